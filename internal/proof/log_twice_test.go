package proof

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/sim/simfs"
)

// Producers that number their own appends, how many each makes, and how many of
// them it makes again: more than a shard tells of when it is first asked.
const (
	twiceProducers = 30
	twiceAppends   = 24
	twiceAgain     = 19
)

// A twice is what producers were told of their appends, by payload.
type twice struct {
	l     *lab
	acked map[string]client.LSN
}

func twicePayload(producer, sequence uint64) string { return fmt.Sprint(producer, "/", sequence) }

// TestNoAppendIsStoredTwiceAfterAPowerCut: no sequencer remembers anything after
// it, and every shard has other records than its neighbours, so what a producer
// sends again has to be found on several.
func TestNoAppendIsStoredTwiceAfterAPowerCut(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	l := newLab(t, 3, seed)
	l.start()
	w := newTwice(l)
	for _, b := range l.benches {
		b.fs = b.fs.Crash(simfs.Crash{Sectors: 50, Tear: 50, Names: 50, Dice: rand.New(rand.NewPCG(b.seed, 2)).Uint64()})
	}
	for _, b := range l.benches {
		b.kill()
	}
	l.start()
	w.again()
	w.check()
	w.replicated()
}

// TestNoAppendIsStoredTwiceAfterAFailover: the node that numbers the log dies, and
// another one, which knows none of the producers, takes over while it is away.
func TestNoAppendIsStoredTwiceAfterAFailover(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	l := newLab(t, 3, seed)
	l.start()
	w := newTwice(l)
	b := w.sequencer()
	b.kill()
	b.fs = b.fs.Crash(simfs.Crash{Sectors: 100, Names: 100}) // the process ends, the machine does not
	w.again()
	w.check()
	l.start()
	w.check()
	w.replicated()
}

// TestNoAppendIsStoredTwiceAfterATrimAndAFailover: all that producers appended is
// trimmed, and the node that numbers the log dies. Nothing of it is in the log any
// more, and where each producer was is known all the same.
func TestNoAppendIsStoredTwiceAfterATrimAndAFailover(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	l := newLab(t, 3, seed)
	l.start()
	w := newTwice(l)
	cl := l.connect()
	lg := openLog(t, cl, "/twice")
	ctx := within(t, 30*time.Second)
	trimmed := tailOf(t, lg)
	if err := lg.Trim(ctx, trimmed); err != nil {
		t.Fatal(err)
	}
	cl.Close()
	b := w.sequencer()
	b.kill()
	b.fs = b.fs.Crash(simfs.Crash{Sectors: 100, Names: 100})
	w.again()
	cl = l.connect()
	defer cl.Close()
	lg = openLog(t, cl, "/twice")
	for p := uint64(1); p <= twiceProducers; p++ {
		if seq, lsn, err := lg.Producer(p).Last(ctx); err != nil || seq != twiceAppends+1 || lsn <= trimmed {
			t.Errorf("producer %d was last at %d, %s: %v", p, seq, lsn, err)
		}
	}
	if lsn, err := lg.Producer(1000).Append(ctx, 500, []byte("begins at 500")); err != nil {
		t.Errorf("a producer that begins at 500: %s, %v", lsn, err)
	}
	n := 0
	readRange(t, lg, trimmed+1, tailOf(t, lg), 30*time.Second, func(e client.Entry) {
		if !e.IsGap() {
			n++
		}
	})
	if n != twiceProducers+1 {
		t.Errorf("%d records after the trim, want one of each producer", n)
	}
}

// newTwice makes a log, with copies of its records on ever other nodes, and has
// every producer append.
func newTwice(l *lab) *twice {
	l.t.Helper()
	w := &twice{l: l, acked: map[string]client.LSN{}}
	cl := l.connect()
	defer cl.Close()
	lg := makeLog(l.t, cl, "/twice", client.LogStickyCopysets(false))
	ctx := within(l.t, 30*time.Second)
	for seq := uint64(1); seq <= twiceAppends; seq++ {
		var mu sync.Mutex
		var wg sync.WaitGroup
		for p := uint64(1); p <= twiceProducers; p++ {
			wg.Go(func() {
				payload := twicePayload(p, seq)
				lsn, err := lg.Producer(p).Append(ctx, seq, []byte(payload))
				if err != nil {
					l.t.Errorf("append %s: %v", payload, err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				w.acked[payload] = lsn
			})
		}
		if wg.Wait(); l.t.Failed() {
			l.t.FailNow()
		}
	}
	return w
}

// sequencer is the bench of the node that numbers the log.
func (w *twice) sequencer() *bench {
	w.l.t.Helper()
	cl := w.l.connect()
	defer cl.Close()
	found := rows(w.l.t, cl, "SELECT node_id FROM sequencers WHERE log_id = %d AND state = 'ACTIVE' ORDER BY epoch DESC", openLog(w.l.t, cl, "/twice").ID())
	for _, b := range w.l.benches {
		if len(found) > 0 && found[0][0] == int64(b.node.ID()) {
			return b
		}
	}
	w.l.t.Fatalf("nobody numbers the log: %v", found)
	return nil
}

// again sends every producer's last appends once more, all at once: each is
// answered with the LSN it had, or as one taken long ago, and the next one is taken.
func (w *twice) again() {
	t := w.l.t
	t.Helper()
	cl := w.l.connect()
	defer cl.Close()
	lg := openLog(t, cl, "/twice")
	var mu sync.Mutex
	var wg sync.WaitGroup
	stale := 0
	answer := func(payload string, next bool) func(client.LSN, error) {
		wg.Add(1)
		return func(lsn client.LSN, err error) {
			defer wg.Done()
			mu.Lock()
			defer mu.Unlock()
			was := w.acked[payload]
			switch {
			case err == nil && next:
				w.acked[payload] = lsn
			case errors.Is(err, client.ErrSequenceStale) && !next:
				stale++
			case err != nil:
				t.Errorf("append %s again: %v", payload, err)
			case lsn != was:
				t.Errorf("append %s, which is at %s, was taken again as %s", payload, was, lsn)
			}
		}
	}
	for p := uint64(1); p <= twiceProducers; p++ {
		for seq := uint64(twiceAppends - twiceAgain + 1); seq <= twiceAppends+1; seq++ {
			payload := twicePayload(p, seq)
			lg.Producer(p).AppendAsync(seq, []byte(payload), answer(payload, seq > twiceAppends))
		}
	}
	wg.Wait()
	if stale > 0 {
		t.Logf("%d of %d were taken long ago", stale, twiceProducers*twiceAgain)
	}
}

// replicated has the replication checker look at every record.
func (w *twice) replicated() {
	w.l.t.Helper()
	cl := w.l.connect()
	defer cl.Close()
	checkReplication(w.l.t, cl, openLog(w.l.t, cl, "/twice"))
}

// check reads the log: what was acknowledged is where it was said to be, and
// nowhere else.
func (w *twice) check() {
	t := w.l.t
	t.Helper()
	cl := w.l.connect()
	defer cl.Close()
	lg := openLog(t, cl, "/twice")
	at := map[string][]client.LSN{}
	readRange(t, lg, oldest, tailOf(t, lg), 30*time.Second, func(e client.Entry) {
		if !e.IsGap() {
			at[string(e.Record.Payload)] = append(at[string(e.Record.Payload)], e.Record.LSN)
		}
	})
	for payload, lsn := range w.acked {
		if found := at[payload]; !slices.Equal(found, []client.LSN{lsn}) {
			t.Errorf("append %s was acknowledged at %s and is at %v", payload, lsn, found)
		}
		delete(at, payload)
	}
	for payload, lsns := range at {
		t.Errorf("append %s, at %v, was never acknowledged", payload, lsns)
	}
	if n := twiceProducers * (twiceAppends + 1); len(w.acked) != n {
		t.Errorf("%d appends were acknowledged, not %d", len(w.acked), n)
	}
}
