package sequencer

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

func (w *world) appendOK(t *testing.T, n *node, req *wire.AppendRequest) logs.LSN {
	t.Helper()
	g := n.append(req)
	w.run(time.Second)
	return logs.LSN(g.want(t, "OK").Lsn)
}

func TestConditionalAppends(t *testing.T) {
	w := newWorld(t, 1, 3, Config{})
	n := w.home(5)
	conditional := func(tail logs.LSN) *wire.AppendRequest {
		r := request(5, "c")
		r.Flags, r.ExpectTail = logs.AppendConditional, uint64(tail)
		return r
	}
	w.appendOK(t, n, conditional(0)) // the log is empty
	g := n.append(conditional(0))
	w.run(time.Second)
	if r := g.want(t, "CONDITION_FAILED"); logs.LSN(r.Tail) != logs.MakeLSN(1, 1) {
		t.Errorf("tail %s", logs.LSN(r.Tail))
	}
	if lsn := w.appendOK(t, n, conditional(logs.MakeLSN(1, 1))); lsn != logs.MakeLSN(1, 2) {
		t.Errorf("%s", lsn)
	}
	// Of two that expect the same tail one wins.
	a, b := n.append(conditional(logs.MakeLSN(1, 2))), n.append(conditional(logs.MakeLSN(1, 2)))
	w.run(time.Second)
	a.want(t, "OK")
	b.want(t, "CONDITION_FAILED")
	// In a new epoch the tail is the old one's, once that is recovered.
	m := w.other(n)
	w.holdRec = true
	req := conditional(logs.MakeLSN(1, 3))
	req.Flags |= logs.AppendNoRedirect | logs.AppendReactivateIfPreempted
	g = m.append(req)
	w.run(time.Second)
	g.want(t, "none")
	for _, do := range w.pending {
		do()
	}
	w.run(time.Second)
	if lsn := logs.LSN(g.want(t, "OK").Lsn); lsn != logs.MakeLSN(2, 1) {
		t.Errorf("%s", lsn)
	}
	w.whole(t)
}

func producing(seq uint64, payload string) *wire.AppendRequest {
	r := request(5, payload)
	r.Producer, r.Sequence, r.FirstRunning, r.Flags = 77, seq, 1, logs.AppendProducer
	return r
}

func TestExplicitProducers(t *testing.T) {
	w := newWorld(t, 1, 3, Config{SessionIdleFor: 3 * time.Second})
	n := w.home(5)
	var at []logs.LSN
	for seq := uint64(1); seq <= 12; seq++ {
		at = append(at, w.appendOK(t, n, producing(seq, "p")))
	}
	check := func(n *node, seq uint64, flags uint32, want string) *wire.AppendResponse {
		t.Helper()
		r := producing(seq, "p")
		r.FirstRunning = 12
		r.Flags |= flags
		g := n.append(r)
		w.run(2 * time.Second)
		return g.want(t, want)
	}
	if r := check(n, 12, 0, "OK"); logs.LSN(r.Lsn) != at[11] {
		t.Errorf("%s, kept as %s", logs.LSN(r.Lsn), at[11])
	}
	if r := check(n, 14, 0, "SEQUENCE_GAP"); r.Sequence != 12 {
		t.Errorf("last %d", r.Sequence)
	}
	check(n, 1, 0, "SEQUENCE_STALE")
	// The node forgets the producer, and learns what it needs from storage.
	w.run(20 * time.Second)
	if n.core.logs[5].sessions != nil {
		t.Error("an idle producer is remembered for ever")
	}
	if r := check(n, 12, 0, "OK"); logs.LSN(r.Lsn) != at[11] {
		t.Errorf("%s, kept as %s", logs.LSN(r.Lsn), at[11])
	}
	// Another node does not know it either.
	m := w.other(n)
	over := uint32(logs.AppendNoRedirect | logs.AppendReactivateIfPreempted)
	if r := check(m, 12, over, "OK"); logs.LSN(r.Lsn) != at[11] {
		t.Errorf("%s, kept as %s", logs.LSN(r.Lsn), at[11])
	}
	if r := check(m, 13, over, "OK"); logs.LSN(r.Lsn) != logs.MakeLSN(2, 1) {
		t.Errorf("%s", logs.LSN(r.Lsn))
	}
	if r := check(m, 15, over, "SEQUENCE_GAP"); r.Sequence != 13 {
		t.Errorf("last %d", r.Sequence)
	}
	late := producing(13, "p")
	late.FirstRunning = 13
	g := n.append(late) // and the first finds out that it is preempted
	w.run(time.Second)
	g.want(t, "PREEMPTED")
	w.whole(t)
}

// TestNothingOfAProducerIsTakenTwice: each shard tells of the newest records that
// it has, which are others than its neighbours' where copysets change. What is in
// none of the answers may be stored all the same.
func TestNothingOfAProducerIsTakenTwice(t *testing.T) {
	w := newWorld(t, 1, 3, Config{})
	w.with(func(a *catalog.LogAttributes) { a.StickyCopysets = proto.Bool(false) })
	n := w.home(5)
	const all = 40
	at := map[uint64]logs.LSN{}
	for seq := uint64(1); seq <= all; seq++ {
		at[seq] = w.appendOK(t, n, producing(seq, "p"))
	}
	m := w.other(n)
	over := uint32(logs.AppendNoRedirect | logs.AppendReactivateIfPreempted | logs.AppendRetry)
	for seq := uint64(1); seq <= all; seq++ {
		r := producing(seq, "p")
		r.Flags |= over
		g := m.append(r)
		w.run(2 * time.Second)
		if a := g.want(t, "OK"); logs.LSN(a.Lsn) != at[seq] {
			t.Errorf("sequence %d is stored as %s, and was taken again as %s", seq, at[seq], logs.LSN(a.Lsn))
		}
	}
	if m.core.logs[5].sessions[77].whole != 0 || m.core.logs[5].sessions[77].last != all {
		t.Errorf("%+v: not all was looked up", m.core.logs[5].sessions[77])
	}
	r := producing(all+1, "p")
	r.Flags |= over
	g := m.append(r)
	w.run(2 * time.Second)
	g.want(t, "OK")
}

// TestProducersAreForgottenManyAtATime: there is no room for all producers. Those that
// were silent for longest are let go, several at once, and their appends that come
// again are found where they are stored.
func TestProducersAreForgottenManyAtATime(t *testing.T) {
	const most, all = 32, 80
	w := newWorld(t, 1, 3, Config{SessionsMax: most})
	n := w.home(5)
	at := map[uint64]logs.LSN{}
	for id := uint64(1); id <= all; id++ {
		r := producing(1, "p")
		r.Producer = id
		at[id] = w.appendOK(t, n, r)
		w.run(time.Second) // so that it is released: what is not, is not let go
		s := n.core.logs[5].sessions
		if len(s) > most || s[id] == nil || id == most+1 && len(s) != most-2 {
			t.Fatalf("%d producers are remembered after %d", len(s), id)
		}
	}
	for id := uint64(1); id <= all; id++ {
		r := producing(1, "p")
		r.Producer, r.Flags = id, r.Flags|logs.AppendRetry
		g := n.append(r)
		w.run(2 * time.Second)
		if a := g.want(t, "OK"); logs.LSN(a.Lsn) != at[id] {
			t.Errorf("producer %d: stored as %s, and was taken again as %s", id, at[id], logs.LSN(a.Lsn))
		}
	}
}

func TestStateTellsAProducersLastSequence(t *testing.T) {
	w := newWorld(t, 1, 3, Config{})
	n := w.home(5)
	lsn := w.appendOK(t, n, producing(1, "p"))
	m := w.other(n)
	var r *wire.SequencerStateResponse
	q := &stateRequest{req: &wire.SequencerStateRequest{Log: 5, Producer: 77, Flags: logs.StateNoRedirect | logs.StateCheckSeal | logs.StateMetadata},
		reply: func(a *wire.SequencerStateResponse) { r = a }}
	m.step(event{kind: evState, state: q})
	w.run(5 * time.Second)
	if r == nil || r.Status != ok || r.LastSequence != 1 || logs.LSN(r.LastSequenceLsn) != lsn || r.Epoch != 2 || len(r.Metadata) != 1 || r.Tail.GetLsn() != uint64(lsn) {
		t.Fatalf("%v", r)
	}
	// The node that was deposed finds out when it is asked to be sure.
	r = nil
	n.step(event{kind: evState, state: &stateRequest{req: &wire.SequencerStateRequest{Log: 5, Flags: logs.StateNoRedirect | logs.StateCheckSeal},
		reply: func(a *wire.SequencerStateResponse) { r = a }}})
	w.run(5 * time.Second)
	if r == nil || r.Status != preempt {
		t.Errorf("%v", r)
	}
}

func TestSequencerBatching(t *testing.T) {
	w := newWorld(t, 1, 3, Config{})
	w.with(func(a *catalog.LogAttributes) {
		a.SequencerBatching, a.SequencerBatchingTimeMs = proto.Bool(true), proto.Uint32(50)
		a.SequencerBatchingBytes, a.SequencerBatchingPassthroughBytes = proto.Uint32(1000), proto.Uint32(500)
	})
	n := w.home(5)
	w.appendOK(t, n, request(5, "alone"))
	if r := n.log(5).copies; len(r) > 0 && winner(r[logs.MakeLSN(1, 1)]).Flags&logs.FlagBatch != 0 {
		t.Error("one payload alone is made a batch of")
	}
	var b logs.BatchBuilder
	b.Add([]byte("x"))
	b.Add([]byte("y"))
	blob := b.AppendTo(nil, 0)
	batched := request(5, string(blob))
	batched.Count, batched.Flags = 2, logs.AppendBatch
	parts := []*got{n.append(request(5, "a")), n.append(batched), n.append(request(5, "b"))}
	w.run(40 * time.Millisecond)
	parts[0].want(t, "none")
	large := n.append(request(5, strings.Repeat("z", 600))) // closes the batch and passes by
	w.run(10 * time.Millisecond)
	for _, p := range parts {
		if lsn := logs.LSN(p.want(t, "OK").Lsn); lsn != logs.MakeLSN(1, 2) {
			t.Errorf("%s", lsn)
		}
	}
	if lsn := logs.LSN(large.want(t, "OK").Lsn); lsn != logs.MakeLSN(1, 3) {
		t.Errorf("%s", lsn)
	}
	var rec *wire.LogRecord
	for _, id := range w.order {
		if c := w.nodes[id].log(5).copies[logs.MakeLSN(1, 2)]; c != nil {
			rec = winner(c)
		}
	}
	open, err := logs.OpenBatch(rec.Payload)
	if err != nil || rec.Flags&logs.FlagBatch == 0 || rec.Count != 4 || rec.CountBefore != 1 {
		t.Fatalf("%v %v", rec, err)
	}
	var all []string
	for _, p := range open.All() {
		all = append(all, string(p))
	}
	if got := strings.Join(all, ""); got != "axyb" {
		t.Errorf("%q", got)
	}
	// Size closes a batch too.
	var by []*got
	for range 4 {
		by = append(by, n.append(request(5, strings.Repeat("s", 300))))
	}
	w.run(10 * time.Millisecond)
	for _, g := range by {
		g.want(t, "OK")
	}
	w.whole(t)
}

func TestServerChecksInOrder(t *testing.T) {
	w := newWorld(t, 1, 3, Config{})
	n := w.home(5)
	other := w.other(n)
	bad := request(5, "x")
	bad.Checksum++
	torn := request(5, "not a batch")
	torn.Flags = logs.AppendBatch
	other.append(request(5, "x")).want(t, "REDIRECTED")
	n.append(bad).want(t, "BAD_PAYLOAD")
	n.append(torn).want(t, "BAD_PAYLOAD")
	n.append(request(5, strings.Repeat("x", 1<<20+1))).want(t, "TOO_LARGE")
	n.append(request(0, "x")).want(t, "NOT_FOUND")
	change := func(f func(c *logs.Cluster)) {
		c := w.look(n.id)
		f(c)
		n.view = c
		n.step(event{kind: evCluster})
	}
	change(func(c *logs.Cluster) { c.Isolated = true })
	n.append(bad).want(t, "ISOLATED")
	change(func(c *logs.Cluster) {
		for i := range c.Nodes {
			if c.Nodes[i].ID == n.id {
				c.Nodes[i].Starting = true
			}
		}
	})
	n.append(bad).want(t, "NOT_READY")
	change(func(*logs.Cluster) {})
	w.appendOK(t, n, request(5, "x"))
	// The node that should sequence it has changed, but this one has just activated.
	change(func(c *logs.Cluster) {
		for i := range c.Nodes {
			c.Nodes[i].Sequencer = c.Nodes[i].ID == other.id || c.Nodes[i].ID == n.id
			if c.Nodes[i].ID == n.id {
				c.Nodes[i].SequencerWeight = 1e-9
			}
		}
	})
	w.appendOK(t, n, request(5, "y"))
	w.run(5 * time.Second)
	if r := n.append(request(5, "z")).want(t, "REDIRECTED"); catalog.NodeID(r.Redirect) != other.id {
		t.Errorf("%v", r)
	}
	n.step(event{kind: evDrain})
	stay := request(5, "z")
	stay.Flags = logs.AppendNoRedirect
	n.append(stay).want(t, "SHUTDOWN")
}

func TestTwoProvisionersOneWins(t *testing.T) {
	w := newWorld(t, 1, 3, Config{})
	a := w.home(5)
	b := w.other(a)
	stay := request(5, "b")
	stay.Flags = logs.AppendNoRedirect
	ga, gb := a.append(request(5, "a")), b.append(stay)
	w.run(time.Second)
	won, lost := ga, gb
	winner := a
	if gb.status() == "OK" {
		won, lost, winner = gb, ga, b
	}
	won.want(t, "OK")
	if r := lost.want(t, "PREEMPTED"); catalog.NodeID(r.Redirect) != winner.id || r.StoredAs != 0 {
		t.Errorf("%v", r)
	}
	if e := w.store.records[5].Metadata.Epoch; e != 2 {
		t.Errorf("next epoch %d, want 2", e)
	}
	w.whole(t)
}

func TestAnUnknownOutcomeIsReadBack(t *testing.T) {
	w := newWorld(t, 1, 3, Config{})
	n := w.home(5)
	first := true
	w.store.lost = func() bool { l := first; first = false; return l }
	if lsn := w.appendOK(t, n, request(5, "x")); lsn != logs.MakeLSN(1, 1) {
		t.Errorf("%s: an epoch was wasted", lsn)
	}
	w.whole(t)
}

func TestAnOlderEpochStoreIsRefused(t *testing.T) {
	back := func(w *world, epoch uint32) {
		w.store.records[5].Metadata.Epoch = epoch
		w.store.records[5].LastCleanEpoch = epoch - 2
	}
	reign := func(w *world, n *node) {
		r := request(5, "x")
		r.Flags, r.SeenEpoch = logs.AppendNoRedirect|logs.AppendReactivateIfPreempted, w.store.records[5].Metadata.Epoch-1
		w.appendOK(t, n, r)
	}
	setUp := func() (*world, *node, *node) {
		w := newWorld(t, 1, 3, Config{})
		n := w.home(5)
		m := w.other(n)
		w.appendOK(t, n, request(5, "x"))
		reign(w, m)
		reign(w, n)
		return w, n, m
	}
	t.Run("restored older", func(t *testing.T) {
		w, _, m := setUp() // epoch 3 reigns at n
		back(w, 3)
		m.crash()
		m.boot()
		w.noticed()
		r := request(5, "y")
		r.Flags = logs.AppendNoRedirect
		g := m.append(r)
		w.run(time.Second)
		g.want(t, "EPOCH_REGRESSED")
		if m.metrics.Regressed.Load() != 1 || m.core.logs[5].state != StateFailed {
			t.Error("nobody was told")
		}
	})
	t.Run("lost whole", func(t *testing.T) {
		w, _, m := setUp()
		delete(w.store.records, 5)
		m.crash()
		m.boot()
		w.noticed()
		r := request(5, "y")
		r.Flags = logs.AppendNoRedirect
		g := m.append(r)
		w.run(time.Second)
		g.want(t, "EPOCH_REGRESSED")
	})
	t.Run("a client has seen more", func(t *testing.T) {
		w, n, _ := setUp()
		r := request(5, "y")
		r.SeenEpoch = 9
		g := n.append(r)
		w.run(time.Second)
		g.want(t, "EPOCH_REGRESSED")
	})
}

func TestACorruptSequencerEndsItsProcess(t *testing.T) {
	w := newWorld(t, 1, 3, Config{})
	n := w.home(5)
	w.appendOK(t, n, request(5, "x"))
	req := request(5, "sound")
	g := n.append(req)
	req.Payload[0] ^= 1 // in memory, after it was checked
	w.run(time.Second)
	if n.fatal == nil {
		t.Error("it goes on")
	}
	g.want(t, "none")

	w = newWorld(t, 1, 5, Config{})
	n = w.home(5)
	w.appendOK(t, n, request(5, "x"))
	for killed := 0; killed < 2; killed++ {
		for _, id := range w.order {
			if m := w.nodes[id]; m != n && m.alive {
				m.crash()
				break
			}
		}
	}
	w.noticed()
	req = request(5, "sound")
	g = n.append(req)
	req.Payload[0] ^= 1
	w.run(time.Second)
	if n.fatal != nil {
		t.Error("with 40 % of the cluster dead it cannot be spared")
	}
	g.want(t, "PREEMPTED")
	if lsn := w.appendOK(t, n, request(5, "y")); lsn != logs.MakeLSN(2, 1) {
		t.Errorf("%s: the epoch with the record that was given up goes on", lsn)
	}
}

func TestStickyCopysets(t *testing.T) {
	w := newWorld(t, 1, 5, Config{StickyBytes: 20_000})
	w.with(func(a *catalog.LogAttributes) { a.StickyCopysets = proto.Bool(true) })
	n := w.home(5)
	blocks := 0
	var last []uint64
	for range 100 {
		lsn := w.appendOK(t, n, request(5, strings.Repeat("x", 500)))
		var set []uint64
		for _, id := range w.order {
			for _, c := range w.nodes[id].log(5).copies[lsn] {
				if c.Flags&logs.FlagSticky == 0 {
					t.Fatal("not marked as sticky")
				}
				set = c.Copyset
			}
		}
		if last == nil || set[0] != last[0] || set[1] != last[1] {
			blocks++
		}
		last = set
	}
	if blocks < 2 || blocks > 7 { // ~1 KB each, 20 to a block
		t.Errorf("%d blocks", blocks)
	}
}

func TestReleasesReachWhoHasNoCopyAndWhoWasAway(t *testing.T) {
	w := newWorld(t, 1, 4, Config{})
	n := w.home(5)
	away := w.other(n)
	w.appendOK(t, n, request(5, "x"))
	away.crash()
	w.noticed()
	lsn := w.appendOK(t, n, request(5, "y"))
	for _, id := range w.order {
		if m := w.nodes[id]; m.alive && m.log(5).released != lsn {
			t.Errorf("N%d: %s", id, m.log(5).released)
		}
	}
	away.disk[5].released = 0
	away.boot()
	w.noticed()
	w.run(time.Second)
	if got := away.log(5).released; got != lsn {
		t.Errorf("the returned shard holds %s for released", got)
	}
	away.disk[5].released = 0 // a RELEASE that was lost is mended within 300 s
	before := n.metrics.Releases.Load()
	w.run(290 * time.Second)
	w.run(20 * time.Second)
	if got := away.log(5).released; got != lsn {
		t.Errorf("after 310 s: %s", got)
	}
	if sent := n.metrics.Releases.Load() - before; sent > 12 {
		t.Errorf("%d releases of an idle log in 310 s", sent)
	}
}

func TestConfigurationChanges(t *testing.T) {
	w := newWorld(t, 1, 4, Config{NodesetDelayMin: time.Second, NodesetDelayMax: 2 * time.Second})
	n := w.home(5)
	w.appendOK(t, n, request(5, "x"))
	epoch := func() logs.Epoch { return n.core.logs[5].cur.epoch }
	w.with(func(a *catalog.LogAttributes) { a.MaxWritesInFlight = proto.Uint32(10) })
	n.step(event{kind: evLogs})
	w.run(5 * time.Second)
	if epoch() != 1 {
		t.Error("a change of the window made a new epoch")
	}
	w.with(func(a *catalog.LogAttributes) { a.Replication = &catalog.Replication{Node: 3} })
	n.step(event{kind: evLogs})
	w.run(5 * time.Second)
	if epoch() != 2 || n.core.logs[5].cur.set.copies != 3 || n.core.logs[5].cur.since != 2 {
		t.Errorf("epoch %d after a change of the replication", epoch())
	}
	m := &node{w: w, id: 5, disk: make(map[logs.LogID]*shardLog)}
	w.nodes[5], w.order = m, append(w.order, 5)
	m.boot()
	w.noticed()
	w.run(5 * time.Second)
	if epoch() != 3 || len(n.core.logs[5].cur.set.shards) != 5 {
		t.Errorf("epoch %d with %d shards after a node came", epoch(), len(n.core.logs[5].cur.set.shards))
	}
	w.appendOK(t, n, request(5, "y"))
	if h := n.core.logs[5].history; h == nil || !h.loaded || len(h.entries) != 3 {
		t.Errorf("history %+v", h)
	}
	w.attrs = nil
	n.step(event{kind: evLogs})
	w.run(time.Second)
	n.append(request(5, "z")).want(t, "NOT_FOUND")
	if len(n.core.logs) != 0 {
		t.Error("a log that is gone has a sequencer")
	}
}

// TestNoMetadataIsReplacedBeforeItIsWritten: two changes of the replication with
// the metadata log out of order all the while. Had the second replaced what the
// first decided, nobody would know by what the first's epoch was replicated.
func TestNoMetadataIsReplacedBeforeItIsWritten(t *testing.T) {
	w := newWorld(t, 1, 4, Config{NodesetDelayMin: time.Second, NodesetDelayMax: 2 * time.Second})
	n := w.home(5)
	w.appendOK(t, n, request(5, "x"))
	w.run(5 * time.Second)
	refuse := func(f func(st *wire.Store) wire.LogStatus) {
		for _, id := range w.order {
			w.nodes[id].refuse = f
		}
	}
	refuse(func(st *wire.Store) wire.LogStatus {
		if logs.LogID(st.Record.Log).IsMetadata() {
			return dropped
		}
		return ok
	})
	change := func(copies uint32) {
		w.with(func(a *catalog.LogAttributes) { a.Replication = &catalog.Replication{Node: copies} })
		n.step(event{kind: evLogs})
		w.run(5 * time.Second)
	}
	change(3)
	change(4)
	r := request(5, "z") // somebody has seen a later epoch, so another one begins
	w.store.records[5].Metadata.Epoch, r.SeenEpoch = 4, 3
	n.append(r)
	w.run(5 * time.Second)
	if e := n.core.logs[5].cur.epoch; e != 4 {
		t.Fatalf("epoch %d, want 4", e)
	}
	m := w.store.records[5].Metadata
	if m.EffectiveSince != 2 || m.Replication.Node != 3 || m.Written {
		t.Errorf("the epoch store holds %v, the metadata of epoch 2 is nowhere", m)
	}
	refuse(nil)
	w.run(20 * time.Second)
	m = w.store.records[5].Metadata
	if m.EffectiveSince != 5 || m.Replication.Node != 4 || !m.Written {
		t.Errorf("the epoch store holds %v: the second change was not made up for", m)
	}
	w.appendOK(t, n, request(5, "y"))
}

func TestActivationIsRetriedAndLimited(t *testing.T) {
	w := newWorld(t, 1, 3, Config{AppendWait: 4 * time.Second})
	n := w.home(5)
	w.store.down = true
	g := n.append(request(5, "x"))
	w.run(6 * time.Second)
	if r := g.want(t, "NOT_READY"); !strings.Contains(r.Message, "epoch store") {
		t.Errorf("%q", r.Message)
	}
	g = n.append(request(5, "y"))
	w.store.down = false
	w.run(10 * time.Second)
	g.want(t, "OK")
	reads := w.store.reads
	for i := range 20 { // somebody sends ever higher epochs
		r := request(5, "z")
		w.store.records[5].Metadata.Epoch = uint32(10 + i*2)
		r.SeenEpoch = uint32(9 + i*2)
		n.append(r)
		w.run(25 * time.Millisecond)
	}
	if bumps := w.store.reads - reads; bumps > 12 {
		t.Errorf("%d reads of the epoch store in half a second", bumps)
	}
}

func TestALogThatCannotBeReplicatedWaits(t *testing.T) {
	w := newWorld(t, 1, 2, Config{AppendWait: 2 * time.Second})
	w.with(func(a *catalog.LogAttributes) { a.Replication = &catalog.Replication{Node: 3} })
	g := w.home(5).append(request(5, "x"))
	w.run(5 * time.Second)
	if g.status() == "OK" || g.status() == "none" {
		t.Errorf("%v", g.all)
	}
}

func TestCopysetsSpanRacks(t *testing.T) {
	w := newWorld(t, 1, 6, Config{})
	w.with(func(a *catalog.LogAttributes) { a.Replication = &catalog.Replication{Node: 3, Rack: 2} })
	n := w.home(5)
	view := w.look(n.id)
	for i := range view.Nodes {
		view.Nodes[i].Location = []string{"r/z/a", "r/z/b"}[i%2]
	}
	n.view = view
	n.step(event{kind: evCluster})
	for range 50 {
		lsn := w.appendOK(t, n, request(5, "x"))
		racks := map[bool]int{}
		for _, id := range w.order {
			if len(w.nodes[id].log(5).copies[lsn]) > 0 {
				racks[id%2 == 0]++
			}
		}
		if len(racks) != 2 || racks[true]+racks[false] != 3 {
			t.Fatalf("%s: %v", lsn, racks)
		}
	}
}

// TestStorageWeights has shards of weights 1, 2 and 4, twice, keep their share of
// the copies.
func TestStorageWeights(t *testing.T) {
	w := newWorld(t, 1, 6, Config{})
	weights := []float64{1, 2, 4}
	n := w.home(5)
	view := w.look(n.id)
	for i := range view.Nodes {
		view.Nodes[i].StorageWeight = weights[i%3]
	}
	n.view = view
	n.step(event{kind: evCluster})
	w.appendOK(t, n, request(5, "x"))
	r := n.core.logs[5].cur
	copies := make(map[logs.ShardID]float64)
	const picks = 50_000
	for range picks {
		copyset, found := r.copyset(100)
		if !found {
			t.Fatal("no copyset")
		}
		for _, sh := range copyset {
			copies[sh]++
		}
	}
	for i, id := range w.order {
		want := 2 * picks * weights[i%3] / 14
		if got := copies[logs.MakeShard(id, 0)]; got < 0.95*want || got > 1.05*want {
			t.Errorf("weight %v keeps %v copies, its share is %.0f", weights[i%3], got, want)
		}
	}
}

func TestIsolationEndsInTheEnd(t *testing.T) {
	w := newWorld(t, 1, 3, Config{})
	n := w.home(5)
	w.appendOK(t, n, request(5, "x"))
	c := w.look(n.id)
	c.Isolated = true
	n.view = c
	n.step(event{kind: evCluster})
	w.run(1199 * time.Second)
	if len(n.core.logs) != 1 {
		t.Error("dropped too early")
	}
	w.run(2 * time.Second)
	if len(n.core.logs) != 0 {
		t.Error("an isolated node keeps its sequencers")
	}
}

func TestWheel(t *testing.T) {
	w := &wheel{}
	var timers []*timer
	for i, d := range []time.Duration{5 * time.Millisecond, time.Second, 1500 * time.Millisecond, 20 * time.Second, 300 * time.Second, 2 * time.Hour, 5 * time.Millisecond} {
		tm := &timer{kind: timerKind(i)}
		w.set(tm, d)
		timers = append(timers, tm)
	}
	w.clear(timers[6])
	now := time.Duration(0)
	var fired []timerKind
	for steps := 0; len(fired) < 6; steps++ {
		if steps > 2000 {
			t.Fatal("it does not end")
		}
		at := w.next()
		if at <= now {
			t.Fatalf("next %v at %v", at, now)
		}
		now = at
		for _, tm := range w.advance(now) {
			fired = append(fired, tm.kind)
			if want := time.Duration(tm.at) * wheelTick; want > now || now-want > 0 {
				t.Errorf("timer %d for %v fires at %v", tm.kind, want, now)
			}
		}
	}
	for i, k := range fired {
		if int(k) != i {
			t.Errorf("order %v", fired)
		}
	}
	if w.next() != 0 || w.count != 0 {
		t.Error("something is left")
	}
}

func TestACopyThatComesAfterItsAnswerIsNotStored(t *testing.T) {
	w := newWorld(t, 1, 3, Config{})
	n := w.home(5)
	send := func(seq, first uint64, flags uint32) *got {
		r := request(5, "p")
		r.Producer, r.Sequence, r.FirstRunning, r.Flags = 7, seq, first, flags
		g := n.append(r)
		w.run(time.Second)
		return g
	}
	send(1, 1, 0).want(t, "OK")
	send(2, 2, 0).want(t, "OK") // the producer has had the answer to 1
	if r := send(1, 1, logs.AppendRetry).want(t, "SEQUENCE_STALE"); r.Sequence != 1 {
		t.Errorf("%v", r)
	}
	if next := n.core.logs[5].cur.win.next; next != 3 {
		t.Errorf("the next ESN is %d", next)
	}
}
