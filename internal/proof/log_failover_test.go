package proof

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/braiddb/braid/client"
)

// An appendHistory is what clients did to one log and were told of it.
type appendHistory struct {
	t       testing.TB
	mu      sync.Mutex
	acked   map[string]client.LSN // by payload
	failed  map[string]bool       // known not to be there
	unknown int
	tail    client.LSN // the highest that was acknowledged
	last    time.Time  // when one was acknowledged
	gap     time.Duration
}

func newAppendHistory(t testing.TB) *appendHistory {
	return &appendHistory{t: t, acked: map[string]client.LSN{}, failed: map[string]bool{}, last: time.Now()}
}

// outcome notes how an append ended.
func (h *appendHistory) outcome(payload string, lsn client.LSN, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var refusal *client.LogError
	switch {
	case err == nil:
		if old, twice := h.acked[payload]; twice && old != lsn {
			h.t.Errorf("%q was acknowledged at %s and at %s", payload, old, lsn)
		}
		h.acked[payload] = lsn
		h.tail = max(h.tail, lsn)
		now := time.Now()
		h.gap, h.last = max(h.gap, now.Sub(h.last)), now
	case errors.As(err, &refusal) && refusal.OutcomeKnown:
		h.failed[payload] = true
	default:
		h.unknown++
	}
}

func (h *appendHistory) highest() client.LSN {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.tail
}

func (h *appendHistory) acknowledged() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.acked)
}

// longestGap is for how long no append was acknowledged, at worst, since it was asked
// before.
func (h *appendHistory) longestGap() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	gap := max(h.gap, time.Since(h.last))
	h.gap = 0
	return gap
}

// check reads the whole log, and demands that every acknowledged payload is there
// at its LSN, none twice, and none that is known to have failed. It gives the
// payloads in order.
func (h *appendHistory) check(l *client.Log) (records []client.Record) {
	h.t.Helper()
	until, err := l.Append(within(h.t, 60*time.Second), []byte("end"))
	if err != nil {
		h.t.Fatal(err)
	}
	at := map[string]client.LSN{}
	readRange(h.t, l, oldest, until, 60*time.Second, func(e client.Entry) {
		if e.IsGap() || e.Record.LSN == until {
			return
		}
		p := string(e.Record.Payload)
		if other, twice := at[p]; twice {
			h.t.Errorf("%s: %q is in the log twice: %s and %s", l.Name(), p, other, e.Record.LSN)
		}
		if h.failed[p] {
			h.t.Errorf("%s: %q failed, and is at %s", l.Name(), p, e.Record.LSN)
		}
		at[p] = e.Record.LSN
		records = append(records, e.Record)
	})
	for p, lsn := range h.acked {
		if at[p] != lsn {
			h.t.Errorf("%s: %q was acknowledged at %s, and is at %s", l.Name(), p, lsn, at[p])
		}
	}
	h.t.Logf("%s: %d acknowledged, %d failed, %d unknown, %d read", l.Name(), len(h.acked), len(h.failed), h.unknown, len(records))
	if len(h.acked) < 50 {
		h.t.Errorf("%s: only %d appends were acknowledged", l.Name(), len(h.acked))
	}
	return records
}

// appendOn appends one record after the other; LSNs ascend.
func (h *appendHistory) appendOn(ctx context.Context, l *client.Log, worker int) {
	var last client.LSN
	for n := 0; ctx.Err() == nil; n++ {
		payload := fmt.Sprintf("w%d.%d", worker, n)
		op, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		lsn, err := l.Append(op, []byte(payload))
		cancel()
		h.outcome(payload, lsn, err)
		if err != nil {
			h.t.Errorf("%s: %q: %v", l.Name(), payload, err)
			continue
		}
		if lsn <= last {
			h.t.Errorf("%s: worker %d got %s after %s", l.Name(), worker, lsn, last)
		}
		last = lsn
		pause(ctx, 2*time.Millisecond)
	}
}

// compareAndAppend appends where the tail is what was last seen of it. The payload
// names the tail that it is for.
func (h *appendHistory) compareAndAppend(ctx context.Context, l *client.Log, worker int) {
	var tail client.LSN
	for n := 0; ctx.Err() == nil; n++ {
		payload := fmt.Sprintf("c%d.%d after %s", worker, n, tail)
		before := h.highest()
		op, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		lsn, err := l.AppendIf(op, tail, []byte(payload))
		cancel()
		h.outcome(payload, lsn, err)
		var refusal *client.LogError
		switch {
		case err == nil:
			tail = lsn
		case errors.Is(err, client.ErrConditionFailed) && errors.As(err, &refusal):
			if refusal.Tail == tail || refusal.Tail < before {
				h.t.Errorf("%s: the tail was said to be %s and not %s, though %s was acknowledged before", l.Name(), refusal.Tail, tail, before)
			}
			tail = refusal.Tail
		default:
			h.t.Logf("%s: %q: %v", l.Name(), payload, err)
		}
		pause(ctx, 3*time.Millisecond)
	}
}

// isChain demands that each record was appended on the condition that the one
// before it was the last.
func isChain(t testing.TB, records []client.Record) {
	t.Helper()
	var last client.LSN
	for _, r := range records {
		if _, after, _ := strings.Cut(string(r.Payload), " after "); after != last.String() {
			t.Errorf("%s: %q follows %s", r.LSN, r.Payload, last)
		}
		last = r.LSN
	}
}

// inSequence demands that each producer's sequences are there from 1 on, in order.
func inSequence(t testing.TB, records []client.Record) {
	t.Helper()
	last := map[uint64]uint64{}
	for _, r := range records {
		var id, seq uint64
		if _, err := fmt.Sscanf(string(r.Payload), "p%d.%d", &id, &seq); err != nil || seq != last[id]+1 {
			t.Errorf("%s: %q follows sequence %d of producer %d (%v)", r.LSN, r.Payload, last[id], id, err)
		}
		last[id] = seq
	}
}

// produce appends under sequences of its own, sends each again until its outcome
// is known, and from time to time begins anew as another client that knows nothing.
func (h *appendHistory) produce(ctx context.Context, t testing.TB, c *cluster, id uint64) {
	var seq uint64
	for ctx.Err() == nil {
		cl, err := client.Connect(within(t, 30*time.Second), c.clientAddrs(), client.Options{Park: 20 * time.Second})
		if err != nil {
			h.t.Error(err)
			return
		}
		l, err := cl.Log(within(t, 30*time.Second), "/producers")
		if err != nil {
			h.t.Error(err)
			cl.Close()
			return
		}
		p := l.Producer(id)
		seq = h.goOn(t, p, id, seq)
		for n := 0; n < 400 && ctx.Err() == nil; n++ {
			if !h.once(ctx, p, id, seq+1) {
				break
			}
			seq++
			pause(ctx, 3*time.Millisecond)
		}
		cl.Close()
	}
}

// goOn asks where the producer was, and tries what must not be taken.
func (h *appendHistory) goOn(t testing.TB, p *client.LogProducer, id, seq uint64) uint64 {
	last, lsn, err := p.Last(within(t, 30*time.Second))
	for i := 0; err != nil && i < 20; i++ {
		pause(context.Background(), 100*time.Millisecond)
		last, lsn, err = p.Last(within(t, 30*time.Second))
	}
	switch {
	case err != nil:
		h.t.Errorf("producer %d: Last: %v", id, err)
		return seq
	case last < seq:
		h.t.Errorf("producer %d: Last is %d at %s; %d was acknowledged", id, last, lsn, seq)
		return seq
	}
	if last == 0 {
		return 0
	}
	h.outcome(producerPayload(id, last), lsn, nil)
	got, err := p.Append(within(t, 30*time.Second), last, []byte(producerPayload(id, last)))
	if err == nil && got != lsn || err != nil && !errors.Is(err, client.ErrSequenceStale) {
		h.t.Errorf("producer %d: sequence %d is at %s; sent again: %s, %v", id, last, lsn, got, err)
	}
	_, err = p.Append(within(t, 30*time.Second), last+2, []byte("gap"))
	var refusal *client.LogError
	if !errors.As(err, &refusal) || !errors.Is(err, client.ErrSequenceGap) || refusal.LastSequence != last {
		h.t.Errorf("producer %d: sequence %d after %d: %v", id, last+2, last, err)
	}
	return last
}

func producerPayload(id, seq uint64) string { return fmt.Sprintf("p%d.%d", id, seq) }

// once sends a sequence until it is known to be there.
func (h *appendHistory) once(ctx context.Context, p *client.LogProducer, id, seq uint64) bool {
	for {
		op, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		lsn, err := p.Append(op, seq, []byte(producerPayload(id, seq)))
		cancel()
		if err == nil {
			h.outcome(producerPayload(id, seq), lsn, nil)
			return true
		}
		if errors.Is(err, client.ErrSequenceGap) {
			h.t.Errorf("producer %d: sequence %d: %v", id, seq, err)
		}
		if ctx.Err() != nil || errors.Is(err, client.ErrSequenceStale) || errors.Is(err, client.ErrSequenceGap) {
			return false
		}
	}
}

// A lateness measures by how much timers of this process are late, because others
// have the processors.
type lateness struct{ most atomic.Int64 }

func startLateness(ctx context.Context) *lateness {
	l := new(lateness)
	go func() {
		const every = 5 * time.Millisecond
		for ctx.Err() == nil {
			begin := time.Now()
			pause(ctx, every)
			if d := int64(time.Since(begin) - every); d > l.most.Load() {
				l.most.Store(d)
			}
		}
	}()
	return l
}

// longest is the most since it was asked before.
func (l *lateness) longest() time.Duration { return time.Duration(l.most.Swap(0)) }

// TestLogFailover appends to three logs in three ways, with ordinary retries, while
// the nodes with their sequencers are killed, stopped for longer than it takes to be
// held for dead, and cut off. What was acknowledged is there once, at its LSN;
// conditional appends form a chain; producers go on where they were. After a kill no
// more than two seconds pass until the next append is acknowledged.
func TestLogFailover(t *testing.T) {
	c := startCluster(t, 3, clusterOptions{links: true})
	cl := connect(t, c)
	many, chain, producers := makeLog(t, cl, "/many"), makeLog(t, cl, "/chain"), makeLog(t, cl, "/producers")
	hm, hc, hp := newAppendHistory(t), newAppendHistory(t), newAppendHistory(t)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var wg sync.WaitGroup
	for i := range 2 {
		other := connect(t, c)
		lm, lc := openLog(t, other, "/many"), openLog(t, other, "/chain")
		for w := range 4 {
			wg.Go(func() { hm.appendOn(ctx, lm, 4*i+w) })
		}
		for w := range 2 {
			wg.Go(func() { hc.compareAndAppend(ctx, lc, 2*i+w) })
		}
		wg.Go(func() { hp.produce(ctx, t, c, uint64(i+1)) })
	}
	late := startLateness(ctx)
	for round, harm := range []struct {
		do    func(i int)
		known time.Duration // until the failure detector knows of it
	}{
		{func(i int) { c.nodes[i].Kill(); pause(ctx, time.Second); c.nodes[i].start() }, 0},
		{func(i int) {
			c.nodes[i].Signal(syscall.SIGSTOP)
			pause(ctx, 4*time.Second)
			c.nodes[i].Signal(syscall.SIGCONT)
		}, 3500 * time.Millisecond},
		{func(i int) { c.links.Isolate(i + 1); pause(ctx, 4*time.Second); c.links.Heal() }, 3500 * time.Millisecond},
		{func(i int) { c.nodes[i].Kill(); c.nodes[i].start() }, 0},
	} {
		pause(ctx, time.Second)
		l := []*client.Log{many, chain, producers, many}[round]
		at := c.sequencerOf(cl, l)
		before := hm.acknowledged()
		hm.longestGap()
		late.longest()
		harm.do(at)
		c.waitReady()
		if !eventually(20*time.Second, func() bool { return hm.acknowledged() > before+100 }) {
			t.Errorf("round %d: nothing is appended", round)
		}
		// Two seconds are promised where the machine has time: processes that are made
		// to wait by others say so by their timers.
		gap, by := hm.longestGap(), late.longest()
		if most := harm.known + 2*time.Second + 20*by; gap > most {
			t.Errorf("round %d: no append was acknowledged for %v, at most %v are allowed", round, gap, most)
		}
		t.Logf("round %d: node %d, which numbers %s: %.2f s without an append of %s; timers %v late", round, at+1, l.Name(), gap.Seconds(), many.Name(), by)
	}
	stop()
	wg.Wait()
	hm.check(many)
	isChain(t, hc.check(chain))
	inSequence(t, hp.check(producers))
	for _, l := range []*client.Log{many, chain, producers} {
		c.checkReplication(cl, l)
	}
}

// TestLogTailAfterTakeover asks for the tail of a log, and appends nothing, when the
// node that should number it was preempted while it slept, and the one that preempted
// it sends everybody back: one of them takes the log again, and says.
func TestLogTailAfterTakeover(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3, clusterOptions{})
	cl := connect(t, c)
	l := makeLog(t, cl, "/taken")
	h := newAppendHistory(t)
	add := func(payload string) {
		lsn, err := l.Append(within(t, 30*time.Second), []byte(payload))
		if h.outcome(payload, lsn, err); err != nil {
			t.Fatal(err)
		}
	}
	add("before")
	asleep := c.sequencerOf(cl, l)
	c.nodes[asleep].Signal(syscall.SIGSTOP)
	add("meanwhile")
	c.nodes[asleep].Signal(syscall.SIGCONT)
	c.waitReady()
	pause(context.Background(), 5500*time.Millisecond) // as long as a new sequencer sends nobody away
	for i := range 3 {
		begin := time.Now()
		tail, err := openLog(t, connect(t, c), "/taken").Tail(within(t, 10*time.Second))
		t.Logf("the tail is %s, after %.1f s", tail, time.Since(begin).Seconds())
		if err != nil || tail < h.highest() {
			t.Errorf("question %d: tail %s after %s, %v", i, tail, h.highest(), err)
		}
	}
	c.checkReplication(cl, l)
}
