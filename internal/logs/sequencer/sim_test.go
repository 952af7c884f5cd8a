package sequencer

import (
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/placement"
	"github.com/braiddb/braid/internal/wire"
)

var simSeed = flag.Uint64("sim.seed", 0, "run this seed of TestSimulation alone, and print what happens")
var simSeeds = flag.Uint64("sim.seeds", 100, "how many seeds TestSimulation runs")

// simClient appends to one log, a few at a time, as the client library does: it
// follows redirects, and what may have been stored it sends again as a retry.
type simClient struct {
	w        *world
	id       uint64
	log      logs.LogID
	next     uint64
	explicit bool
	stream   bool // its appends are to be in order
	acked    logs.LSN
	seen     logs.Epoch
	running  map[uint64]*simAppend
	left     int
	target   catalog.NodeID
	done     map[uint64]logs.LSN
	payloads map[uint64]string
}

type simAppend struct {
	c       *simClient
	seq     uint64
	after   logs.LSN
	retry   bool
	attempt int
	hops    int
	over    bool
	flags   uint32
}

func (c *simClient) begin() {
	if c.left == 0 {
		return
	}
	c.left--
	c.next++
	a := &simAppend{c: c, seq: c.next, after: c.acked}
	c.running[a.seq] = a
	c.payloads[a.seq] = fmt.Sprintf("%d:%d", c.id, a.seq)
	a.send()
}

func (c *simClient) firstRunning() uint64 {
	first := c.next
	for s := range c.running {
		first = min(first, s)
	}
	return first
}

func (a *simAppend) send() {
	if a.over {
		return
	}
	c, w := a.c, a.c.w
	a.attempt++
	attempt := a.attempt
	req := request(c.log, c.payloads[a.seq])
	req.Producer, req.Sequence, req.FirstRunning, req.After, req.Flags = c.id, a.seq, c.firstRunning(), uint64(a.after), a.flags
	req.SeenEpoch = uint32(c.seen)
	if a.retry {
		req.Flags |= logs.AppendRetry
	}
	if c.explicit {
		req.Flags |= logs.AppendProducer
	}
	if c.stream {
		req.Flags |= logs.AppendStream
	}
	if c.target == 0 {
		c.target = w.order[w.rng.IntN(len(w.order))]
		if id, found := placement.SequencerNode(w.look(1), c.log, ""); found {
			c.target = id
		}
	}
	target := c.target
	reply := func(r *wire.AppendResponse) {
		if w.lose() {
			return
		}
		r = proto.Clone(r).(*wire.AppendResponse)
		w.after(w.delay(), func() { a.heard(attempt, r) })
	}
	travels := w.delay()
	if w.rng.IntN(50) == 0 { // it comes long after its client sent it again
		travels += time.Duration(w.rng.Int64N(int64(strayMax)))
	}
	w.after(travels, func() {
		if n := w.nodes[target]; n.alive && !n.cut {
			p := pending{req: req, reply: reply, count: 1}
			w.trace("append %s attempt %d at N%d: retry %v after %s", c.payloads[a.seq], attempt, n.id, req.Flags, logs.LSN(req.After))
			n.step(event{kind: evAppend, append: p})
		}
	})
	w.after(700*time.Millisecond, func() {
		if a.attempt == attempt && !a.over {
			a.retry, a.flags, c.target = true, 0, 0
			a.send()
		}
	})
}

// strayMax is how long an append may be under way: in some seeds more than its
// producer is remembered by a sequencer that reigns on.
const strayMax = 5 * time.Second

func (a *simAppend) heard(attempt int, r *wire.AppendResponse) {
	c, w := a.c, a.c.w
	w.trace("append %s attempt %d: %v", c.payloads[a.seq], attempt, r)
	c.seen = max(c.seen, logs.Epoch(r.Epoch), logs.LSN(r.Lsn).Epoch())
	if a.over {
		if r.Status == ok && c.done[a.seq] != logs.LSN(r.Lsn) {
			w.fault("Q6: append %s is acknowledged as %s and as %s", c.payloads[a.seq], c.done[a.seq], logs.LSN(r.Lsn))
		}
		return
	}
	if r.Status == ok {
		w.acknowledged(c, a, logs.LSN(r.Lsn))
		return
	}
	if attempt != a.attempt {
		return
	}
	if r.Status == wire.LogStatus_LOG_STATUS_SEQUENCE_STALE {
		w.fault("append %s, which has no answer, is stale: %v", c.payloads[a.seq], r)
	}
	again := 20 * time.Millisecond
	switch r.Status {
	case wire.LogStatus_LOG_STATUS_NEW_EPOCH:
		again = time.Millisecond
		if !a.retry {
			a.after = max(a.after, logs.LSN(r.Tail))
		}
	case wire.LogStatus_LOG_STATUS_PREEMPTED, wire.LogStatus_LOG_STATUS_REDIRECTED:
		a.retry = a.retry || r.Status == wire.LogStatus_LOG_STATUS_PREEMPTED && r.StoredAs != 0
		c.target, again = catalog.NodeID(r.Redirect), time.Millisecond
		a.hops++
		a.flags = 0
		if a.hops%6 == 5 {
			a.flags = logs.AppendNoRedirect | logs.AppendReactivateIfPreempted
		}
	case wire.LogStatus_LOG_STATUS_UNDER_REPLICATED:
		a.retry = a.retry || r.StoredAs != 0
	case wire.LogStatus_LOG_STATUS_BAD_PAYLOAD, wire.LogStatus_LOG_STATUS_EPOCH_REGRESSED:
		w.fault("append %s: %v", c.payloads[a.seq], r)
	}
	next := a.attempt
	w.after(again, func() {
		if a.attempt == next {
			a.send()
		}
	})
}

// acknowledged is the heart of the check: what is acknowledged has its copies.
func (w *world) acknowledged(c *simClient, a *simAppend, lsn logs.LSN) {
	a.over = true
	delete(c.running, a.seq)
	c.done[a.seq] = lsn
	c.acked = max(c.acked, lsn)
	if c.stream || c.explicit {
		w.inOrder[lsn] = true
	}
	if !w.fullyStored(c.log, lsn) {
		w.fault("Q1: %s is acknowledged and not fully stored", lsn)
	}
	w.after(w.delay(), c.begin)
}

// mishaps keeps breaking things until a moment.
func (w *world) mishaps(until time.Duration) {
	if w.now > until {
		for _, id := range w.order {
			n := w.nodes[id]
			n.refuse, n.cut = nil, false
			if !n.alive {
				n.boot()
			}
		}
		w.lose, w.store.lost, w.store.down = func() bool { return false }, nil, false
		w.noticed()
		return
	}
	n := w.nodes[w.order[w.rng.IntN(len(w.order))]]
	switch w.rng.IntN(7) {
	case 0:
		if n.alive {
			w.trace("%v: crash N%d", w.now, n.id)
			n.crash()
			w.after(time.Duration(w.rng.IntN(1500))*time.Millisecond, func() {
				if !n.alive {
					w.trace("%v: restart N%d", w.now, n.id)
					n.boot()
					w.after(50*time.Millisecond, w.noticed)
				}
			})
		}
	case 1:
		w.trace("%v: cut N%d %v", w.now, n.id, !n.cut)
		n.cut = !n.cut
	case 2:
		st := []wire.LogStatus{wire.LogStatus_LOG_STATUS_NO_SPACE, wire.LogStatus_LOG_STATUS_DROPPED, wire.LogStatus_LOG_STATUS_OVERLOADED,
			wire.LogStatus_LOG_STATUS_DISABLED, wire.LogStatus_LOG_STATUS_FAILED}[w.rng.IntN(5)]
		n.refuse = func(*wire.Store) wire.LogStatus {
			if w.rng.IntN(3) > 0 {
				return st
			}
			return ok
		}
	case 3:
		n.refuse = nil
	case 4:
		w.store.lost = func() bool { return w.rng.IntN(4) == 0 }
	case 5:
		w.store.lost = nil
	case 6: // somebody reigns beside it
		n.append(&wire.AppendRequest{Log: 5, Flags: logs.AppendNoRedirect | logs.AppendReactivateIfPreempted | logs.AppendProbe})
	}
	w.after(time.Duration(100+w.rng.IntN(300))*time.Millisecond, w.noticed)
	w.after(time.Duration(100+w.rng.IntN(700))*time.Millisecond, func() { w.mishaps(until) })
}

func simulate(t testing.TB, seed uint64) (*world, []*simClient) {
	idle := 800 * time.Millisecond
	if seed%4 == 1 {
		idle = 2 * strayMax
	}
	most := 0
	if seed%3 == 0 {
		most = 2
	}
	w := newWorld(t, seed, 3+int(seed%3), Config{ESNMax: 60, AppendWait: 2 * time.Second, GraylistFor: 2 * time.Second, NoSpaceFor: time.Second,
		UnroutableFor: time.Second, DisabledFor: time.Second, FailedFor: 100 * time.Millisecond, SessionIdleFor: idle, SessionsMax: most, RecoveryRetry: 200 * time.Millisecond})
	if *simSeed != 0 {
		w.trace = func(f string, a ...any) { t.Logf("%v: %s", w.now, fmt.Sprintf(f, a...)) }
	}
	attrs := proto.Clone(defaultAttributes).(*catalog.LogAttributes)
	attrs.MaxWritesInFlight = proto.Uint32(8)
	attrs.StickyCopysets = proto.Bool(seed%2 == 0)
	attrs.SequencerBatching = proto.Bool(seed%5 == 0)
	w.attrs = attrs
	w.delay = func() time.Duration { return time.Duration(200+w.rng.IntN(3000)) * time.Microsecond }
	w.lose = func() bool { return w.rng.IntN(40) == 0 }
	var clients []*simClient
	for i := range 4 {
		c := &simClient{w: w, id: uint64(i + 1), log: 5, left: 60, explicit: i == 3 && seed%2 == 1, stream: i%2 == 1, running: make(map[uint64]*simAppend),
			done: make(map[uint64]logs.LSN), payloads: make(map[uint64]string)}
		clients = append(clients, c)
		for range 2 + 2*(i%3) {
			w.after(w.delay(), c.begin)
		}
	}
	w.after(100*time.Millisecond, func() { w.mishaps(6 * time.Second) })
	w.run(60 * time.Second)
	return w, clients
}

// TestSimulation runs a log under losses, refusals, crashes, cuts, a forgetful
// epoch store and rival sequencers, and checks at the end that every append was
// acknowledged and is in the log exactly once, under the LSN it was told.
func TestSimulation(t *testing.T) {
	if *simSeed != 0 {
		w, clients := simulate(t, *simSeed)
		checkEnd(w, clients)
		w.whole(t)
		return
	}
	for seed := uint64(1); seed <= *simSeeds && !t.Failed(); seed++ {
		w, clients := simulate(t, seed)
		checkEnd(w, clients)
		if len(w.broken) > 0 {
			t.Errorf("seed %d: go test ./internal/logs/sequencer -run TestSimulation -sim.seed %d", seed, seed)
			w.whole(t)
		}
	}
}

func checkEnd(w *world, clients []*simClient) {
	const log = 5
	rec := w.store.records[log]
	n := w.nodes[1]
	if res, _ := w.decide(n, log, logs.Epoch(rec.Metadata.Epoch), rec); res.Status != ok {
		w.fault("the last recovery: %v", res.Status)
	}
	where := make(map[string][]logs.LSN)
	for lsn, r := range w.truth[log] {
		if r.Flags&logs.FlagHole != 0 {
			continue
		}
		if r.Flags&logs.FlagBatch == 0 {
			where[string(r.Payload)] = append(where[string(r.Payload)], lsn)
			continue
		}
		b, err := logs.OpenBatch(r.Payload)
		if err != nil {
			w.fault("%s: %v", lsn, err)
			continue
		}
		for _, p := range b.All() {
			where[string(p)] = append(where[string(p)], lsn)
		}
	}
	for _, c := range clients {
		for seq, payload := range c.payloads {
			at, acked := c.done[seq]
			found := where[payload]
			slices.Sort(found)
			switch {
			case !acked:
				w.fault("append %s was never acknowledged (attempts %d)", payload, c.running[seq].attempt)
			case len(found) != 1 || found[0] != at:
				w.fault("Q6: append %s, acknowledged as %s, is at %v", payload, at, found)
			}
		}
		w.checkFence(c)
		if len(c.done) != 60 {
			w.fault("client %d: %d appends", c.id, len(c.done))
		}
	}
	w.counts(log)
}

// checkFence: a session's appends were given LSNs in order (Q9), and only one that a
// newer epoch fenced off may have ended behind one that followed it; of streams none (Q11, Q12).
func (w *world) checkFence(c *simClient) {
	for seq := uint64(2); seq <= c.next; seq++ {
		a, b := w.first[c.payloads[seq-1]], w.first[c.payloads[seq]]
		switch {
		case a > b || a == b && a.Epoch() == 0:
			w.fault("Q9: append %s was first given %s, the one before it %s", c.payloads[seq], b, a)
		case (c.stream || c.explicit) && c.done[seq-1] > c.done[seq]:
			w.fault("Q11: append %s of a stream is at %s, the one before it at %s", c.payloads[seq], c.done[seq], c.done[seq-1])
		case c.done[seq-1] == a && c.done[seq-1] > c.done[seq]:
			w.fault("Q9: append %s is at %s, the one before it at %s", c.payloads[seq], c.done[seq], a)
		}
	}
}

// counts: the number of payloads before a record grows with its LSN.
func (w *world) counts(log logs.LogID) {
	var lsns []logs.LSN
	for lsn, r := range w.truth[log] {
		if r.Flags&logs.FlagHole == 0 {
			lsns = append(lsns, lsn)
		}
	}
	slices.Sort(lsns)
	for i := 1; i < len(lsns); i++ {
		a, b := w.truth[log][lsns[i-1]], w.truth[log][lsns[i]]
		if lsns[i-1].Epoch() == lsns[i].Epoch() && b.CountBefore < a.CountBefore+uint64(a.Count) {
			w.fault("the count goes back at %s", lsns[i])
		}
	}
}
