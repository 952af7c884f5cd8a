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

const (
	noSpace   = wire.LogStatus_LOG_STATUS_NO_SPACE
	dropped   = wire.LogStatus_LOG_STATUS_DROPPED
	disabled  = wire.LogStatus_LOG_STATUS_DISABLED
	seqNoBufs = wire.LogStatus_LOG_STATUS_SEQNOBUFS
	preempt   = wire.LogStatus_LOG_STATUS_PREEMPTED
)

func (w *world) with(change func(*catalog.LogAttributes)) {
	a := proto.Clone(w.attrs).(*catalog.LogAttributes)
	change(a)
	w.attrs = a
}

// status is the one answer that an append got, or that it got none.
func (g *got) status() string {
	switch len(g.all) {
	case 0:
		return "none"
	case 1:
		return strings.TrimPrefix(g.all[0].Status.String(), "LOG_STATUS_")
	}
	return "several"
}

func (g *got) want(t *testing.T, status string) *wire.AppendResponse {
	t.Helper()
	if g.status() != status {
		t.Fatalf("answer %v, want %s", g.all, status)
	}
	if len(g.all) == 0 {
		return nil
	}
	return g.all[0]
}

// mute makes a shard drop every STORE of data unseen.
func (n *node) mute(on bool) { n.cut = on }

func (w *world) data(n *node, do func(*wire.Store) wire.LogStatus) {
	n.refuse = func(st *wire.Store) wire.LogStatus {
		if logs.LogID(st.Record.Log).IsMetadata() {
			return ok
		}
		return do(st)
	}
}

func TestAFullWindowConsumesNoLSN(t *testing.T) {
	w := newWorld(t, 1, 3, Config{})
	w.with(func(a *catalog.LogAttributes) { a.MaxWritesInFlight = proto.Uint32(4) })
	n := w.home(5)
	n.append(request(5, "first"))
	w.run(time.Second)
	var in []*got
	for range 6 {
		in = append(in, n.append(request(5, "x")))
	}
	for i, g := range in {
		if want := map[bool]string{true: "none", false: "SEQNOBUFS"}[i < 4]; g.status() != want {
			t.Errorf("append %d: %s, want %s", i, g.status(), want)
		}
	}
	w.run(time.Second)
	if r := func() *wire.AppendResponse {
		g := n.append(request(5, "y"))
		w.run(time.Second)
		return g.want(t, "OK")
	}(); logs.LSN(r.Lsn) != logs.MakeLSN(1, 6) {
		t.Errorf("the next is %s, want e1n6", logs.LSN(r.Lsn))
	}
	w.whole(t)
}

func TestMemoryIsBounded(t *testing.T) {
	w := newWorld(t, 1, 3, Config{AppenderBytes: 4000})
	n := w.home(5)
	n.append(request(5, "first"))
	w.run(time.Second)
	big := strings.Repeat("x", 1000)
	var st []string
	for range 4 {
		st = append(st, n.append(request(5, big)).status())
	}
	if got := strings.Join(st, " "); got != "none none SEQNOBUFS SEQNOBUFS" {
		t.Error(got)
	}
	w.run(time.Second)
	if left := n.share.bytes.Load(); left != 0 {
		t.Errorf("%d bytes are counted with nothing in flight", left)
	}
	g := n.append(request(5, "y"))
	w.run(time.Second)
	if r := g.want(t, "OK"); logs.LSN(r.Lsn) != logs.MakeLSN(1, 4) { // Q2
		t.Errorf("after two were refused the next is %s, want e1n4", logs.LSN(r.Lsn))
	}
}

// TestWaitingEndsAtTheSoftLimit fills memory with appends to a log that has no
// copyset; another log takes appends all the same.
func TestWaitingEndsAtTheSoftLimit(t *testing.T) {
	w := newWorld(t, 1, 3, Config{AppenderBytes: 12_000})
	n := w.home(5)
	for _, log := range []logs.LogID{5, 6} {
		r := request(log, "first")
		r.Flags = logs.AppendNoRedirect
		n.append(r)
	}
	w.run(time.Second)
	n.core.logs[5].cur.set = &replicaSet{barren: true, replication: w.attrs.Replication}
	big := strings.Repeat("x", 1000)
	waiting := 0
	for range 20 {
		if n.append(request(5, big)).status() == "none" {
			waiting++
		}
	}
	if left := n.share.bytes.Load(); waiting == 0 || left > 10_000 || left < 8_000 {
		t.Errorf("%d appends wait with %d bytes, the soft limit is 10000", waiting, left)
	}
	r := request(6, big)
	r.Flags = logs.AppendNoRedirect
	g := n.append(r)
	w.run(100 * time.Millisecond)
	g.want(t, "OK")
}

func TestOutOfOrderAcknowledgementInOrderRelease(t *testing.T) {
	w := newWorld(t, 1, 3, Config{StoreTimeout: time.Minute, ReleaseQuiet: time.Millisecond})
	n := w.home(5)
	n.append(request(5, "first"))
	w.run(time.Second)
	for _, id := range w.order { // nobody answers for the second
		w.data(w.nodes[id], func(st *wire.Store) wire.LogStatus {
			if string(st.Record.Payload) == "stuck" {
				return astray
			}
			return ok
		})
	}
	stuck := n.append(request(5, "stuck"))
	later := n.append(request(5, "later"))
	w.run(time.Second)
	stuck.want(t, "none")
	later.want(t, "OK")
	if got := n.log(5).released; got != logs.MakeLSN(1, 1) {
		t.Errorf("released %s, want e1n1", got)
	}
	if lng := n.core.logs[5].cur.lng; lng != 1 {
		t.Errorf("LNG %d", lng)
	}
}

func TestARecordGivenUpFreezesLNG(t *testing.T) {
	r := &reign{s: &sequencer{c: &core{}}, audience: &audience{}}
	for i, state := range []appenderState{complete, abandoned, complete} {
		a := &appender{esn: logs.ESN(i + 1), state: state, out: new(outgoing).reserve(2)}
		a.out.rec.Copyset = nil
		r.reap(a)
	}
	if r.lng != 1 || !r.frozen {
		t.Errorf("LNG %d, frozen %v: want 1 and frozen", r.lng, r.frozen)
	}
}

func TestNothingIsReleasedBeforeItsMetadata(t *testing.T) {
	w := newWorld(t, 1, 3, Config{})
	n := w.home(5)
	for _, id := range w.order {
		w.nodes[id].refuse = func(st *wire.Store) wire.LogStatus {
			if logs.LogID(st.Record.Log).IsMetadata() {
				return dropped
			}
			return ok
		}
	}
	g := n.append(request(5, "x"))
	w.run(500 * time.Millisecond)
	for _, id := range w.order {
		if r := w.nodes[id].log(5).released; r != 0 {
			t.Errorf("%s is released at N%d", r, id)
		}
		w.nodes[id].refuse = nil
	}
	w.run(10 * time.Second)
	g.want(t, "OK")
	if r := n.log(5).released; r != logs.MakeLSN(1, 1) {
		t.Errorf("released %s at last", r)
	}
}

// TestRefusedShardsAreAvoidedForTheirTime checks every status of a STORED with its
// stated duration, and that the shard is probed before it is used again.
func TestRefusedShardsAreAvoidedForTheirTime(t *testing.T) {
	for _, c := range []struct {
		st  wire.LogStatus
		ban ban
		d   time.Duration
	}{
		{noSpace, banNoSpace, 60 * time.Second}, {dropped, banOverloaded, time.Second}, {wire.LogStatus_LOG_STATUS_OVERLOADED, banOverloaded, time.Second},
		{disabled, banDisabled, 30 * time.Second}, {wire.LogStatus_LOG_STATUS_SHUTDOWN, banUnroutable, 60 * time.Second},
		{wire.LogStatus_LOG_STATUS_NOT_STORAGE, banUnroutable, 60 * time.Second}, {wire.LogStatus_LOG_STATUS_FAILED, banUnroutable, 60 * time.Second},
		{wire.LogStatus_LOG_STATUS_NOT_IN_COPYSET, banUnroutable, 60 * time.Second}, {wire.LogStatus_LOG_STATUS_CHECKSUM_MISMATCH, banSlow, 600 * time.Second},
	} {
		w := newWorld(t, 3, 4, Config{})
		n := w.home(5)
		n.append(request(5, "first"))
		w.run(time.Second)
		bad := w.other(n)
		w.data(bad, func(*wire.Store) wire.LogStatus { return c.st })
		shard := logs.MakeShard(bad.id, 0)
		for i := 0; i < 50 && (n.core.shards[shard] == nil || n.core.shards[shard].ban == banNone); i++ {
			g := n.append(request(5, "x"))
			w.run(50 * time.Millisecond)
			g.want(t, "OK") // in another wave, at once
		}
		h := n.core.shards[shard]
		if h == nil || h.ban != c.ban || n.core.usable(shard, c.ban == banSlow) != (c.ban == banSlow) {
			t.Fatalf("%v: %+v", c.st, h)
		}
		if left := h.until - w.now; left > c.d || left < c.d-100*time.Millisecond {
			t.Errorf("%v: avoided for %v more, want %v", c.st, left, c.d)
		}
		probes := n.metrics.Probes.Load()
		w.run(c.d + 100*time.Millisecond)
		if h.ban != banNone || n.metrics.Probes.Load() != probes+1 {
			t.Errorf("%v: after its time %v, %d probes", c.st, h.ban, n.metrics.Probes.Load()-probes)
		}
		w.whole(t)
	}
}

func TestSilentShardsAreGraylisted(t *testing.T) {
	w := newWorld(t, 2, 4, Config{})
	n := w.home(5)
	n.append(request(5, "first"))
	w.run(time.Second)
	var silent []*node
	for _, id := range w.order {
		if m := w.nodes[id]; m != n && len(silent) < 2 {
			m.cut = true
			silent = append(silent, m)
		}
	}
	for range 30 {
		g := n.append(request(5, "x"))
		w.run(5 * time.Second)
		g.want(t, "OK")
	}
	for _, m := range silent {
		if h := n.core.shards[logs.MakeShard(m.id, 0)]; h == nil || h.ban != banSlow {
			t.Errorf("N%d was silent: %+v", m.id, h)
		}
	}
	// With one more silent no copyset is left, so the graylist yields.
	last := w.nodes[w.order[3]]
	if last == n {
		last = w.nodes[w.order[2]]
	}
	last.cut = true
	for _, m := range silent {
		m.cut = false
	}
	g := n.append(request(5, "y"))
	w.run(20 * time.Second)
	g.want(t, "OK")
	if n.metrics.GraylistCleared.Load() == 0 {
		t.Error("the graylist did not yield")
	}
	w.whole(t)
}

func TestWavesAmendWhoHasACopy(t *testing.T) {
	w := newWorld(t, 1, 3, Config{})
	w.with(func(a *catalog.LogAttributes) { a.Replication = &catalog.Replication{Node: 3} })
	n := w.home(5)
	n.append(request(5, "first"))
	w.run(time.Second)
	bad := w.other(n)
	tries := 0
	w.data(bad, func(*wire.Store) wire.LogStatus {
		if tries++; tries == 1 {
			return dropped
		}
		return ok
	})
	g := n.append(request(5, "payload"))
	w.run(5 * time.Second)
	lsn := logs.LSN(g.want(t, "OK").Lsn)
	for _, id := range w.order {
		v := w.nodes[id].log(5).copies[lsn]
		last := v[len(v)-1]
		if last.Wave < 2 || len(last.Copyset) != 3 {
			t.Errorf("N%d: wave %d of %v", id, last.Wave, last.Copyset)
		}
		if amend := len(last.Payload) == 0; amend == (id == bad.id) {
			t.Errorf("N%d: amended %v", id, amend)
		}
	}
	w.whole(t)
}

// TestAnAmendThatFindsNothing has a shard forget the copy that a later wave only
// amends there: it refuses, and gets the payload once it is asked again.
func TestAnAmendThatFindsNothing(t *testing.T) {
	w := newWorld(t, 1, 3, Config{UnroutableFor: 50 * time.Millisecond})
	w.with(func(a *catalog.LogAttributes) { a.Replication = &catalog.Replication{Node: 3} })
	n := w.home(5)
	n.append(request(5, "first"))
	w.run(time.Second)
	bad, forgetful := w.nodes[w.order[0]], w.nodes[w.order[1]]
	tries, amends := 0, 0
	w.data(bad, func(*wire.Store) wire.LogStatus {
		if tries++; tries == 1 {
			return dropped
		}
		return ok
	})
	w.data(forgetful, func(st *wire.Store) wire.LogStatus {
		if st.Amend && amends == 0 {
			amends++
			delete(forgetful.log(5).copies, logs.LSN(st.Record.Lsn))
		}
		return ok
	})
	g := n.append(request(5, "payload"))
	w.run(10 * time.Second)
	lsn := logs.LSN(g.want(t, "OK").Lsn)
	if amends != 1 {
		t.Fatal("nothing was amended")
	}
	for _, id := range w.order {
		whole := false
		for _, c := range w.nodes[id].log(5).copies[lsn] {
			whole = whole || len(c.Payload) > 0
		}
		if !whole {
			t.Errorf("N%d has no payload", id)
		}
	}
	w.whole(t)
}

func TestAppendsWaitForACopysetAndSayWhatIsMissing(t *testing.T) {
	w := newWorld(t, 1, 3, Config{AppendWait: 3 * time.Second})
	w.with(func(a *catalog.LogAttributes) { a.Replication = &catalog.Replication{Node: 3} })
	n := w.home(5)
	n.append(request(5, "first"))
	w.run(time.Second)
	down := w.other(n)
	down.crash()
	w.noticed()
	first := n.append(request(5, "a"))
	w.run(2 * time.Second)
	first.want(t, "none")
	w.run(2 * time.Second)
	r := first.want(t, "UNDER_REPLICATED")
	if !strings.Contains(r.Message, logs.MakeShard(down.id, 0).String()+" is dead") {
		t.Errorf("cause: %q", r.Message)
	}
	second := n.append(request(5, "b"))
	w.run(time.Second)
	down.boot()
	w.noticed()
	w.run(time.Second)
	if lsn := logs.LSN(second.want(t, "OK").Lsn); lsn.ESN() != 2 {
		t.Errorf("%s: the append that was refused consumed an LSN", lsn)
	}
	w.whole(t)
}

func TestESNsRunOut(t *testing.T) {
	w := newWorld(t, 1, 3, Config{ESNMax: 255, ReactivationLimit: 100})
	n := w.home(5)
	last := logs.LSNInvalid
	for range 400 {
		g := n.append(request(5, "x"))
		w.run(20 * time.Millisecond)
		if len(g.all) == 0 {
			w.run(time.Second)
		}
		lsn := logs.LSN(g.want(t, "OK").Lsn)
		if lsn <= last {
			t.Fatalf("%s after %s", lsn, last)
		}
		last = lsn
	}
	if last != logs.MakeLSN(2, 145) {
		t.Errorf("the last is %s", last)
	}
	w.whole(t)
}

func TestASeenEpochReactivates(t *testing.T) {
	w := newWorld(t, 1, 3, Config{})
	n := w.home(5)
	n.append(request(5, "x"))
	w.run(time.Second)
	m := w.other(n)
	req := request(5, "y")
	req.Flags = logs.AppendNoRedirect | logs.AppendReactivateIfPreempted
	g := m.append(req)
	w.run(time.Second)
	if e := g.want(t, "OK").Epoch; e != 2 {
		t.Fatalf("epoch %d", e)
	}
	back := request(5, "z") // n has not heard of epoch 2
	back.SeenEpoch = 2
	g = n.append(back)
	w.run(time.Second)
	if lsn := logs.LSN(g.want(t, "OK").Lsn); lsn != logs.MakeLSN(3, 1) {
		t.Errorf("%s", lsn)
	}
	w.whole(t)
}

func TestPreemption(t *testing.T) {
	w := newWorld(t, 1, 3, Config{})
	n := w.home(5)
	n.append(request(5, "x"))
	w.run(time.Second)
	m := w.other(n)
	take := request(5, "y")
	take.Flags = logs.AppendNoRedirect | logs.AppendReactivateIfPreempted
	m.append(take)
	w.run(time.Second)
	// All shards are sealed: no copy of this one can come to be.
	r := n.append(request(5, "z"))
	w.run(time.Second)
	if a := r.want(t, "PREEMPTED"); catalog.NodeID(a.Redirect) != m.id || a.StoredAs != 0 {
		t.Errorf("%v", a)
	}
	// Now it knows, and says so at once.
	if a := n.append(request(5, "z")).want(t, "PREEMPTED"); catalog.NodeID(a.Redirect) != m.id {
		t.Errorf("%v", a)
	}
	if s := n.core.logs[5]; s.state != StatePreempted {
		t.Errorf("state %v", s.state)
	}
	m.crash() // the preemptor is dead: whoever is asked reigns again
	w.noticed()
	g := n.append(request(5, "z"))
	w.run(time.Second)
	if lsn := logs.LSN(g.want(t, "OK").Lsn); lsn != logs.MakeLSN(3, 1) {
		t.Errorf("%s", lsn)
	}
	w.whole(t)
}

// TestARecordPreemptedWithACopyIsFoundAgain is row 17: what recovery kept is
// answered with the LSN it was kept under.
func TestARecordPreemptedWithACopyIsFoundAgain(t *testing.T) {
	w := newWorld(t, 1, 3, Config{StoreTimeout: time.Minute})
	n := w.home(5)
	n.append(request(5, "x"))
	w.run(time.Second)
	m := w.other(n)
	for _, id := range w.order { // one copy is made, on the node itself; nobody answers
		node := w.nodes[id]
		w.data(node, func(st *wire.Store) wire.LogStatus {
			if string(st.Record.Payload) != "twice" || node == n {
				return ok
			}
			return noSpace
		})
	}
	req := request(5, "twice")
	req.Producer, req.Sequence, req.FirstRunning, req.After = 9, 1, 1, uint64(logs.MakeLSN(1, 1))
	first := n.append(req)
	w.run(100 * time.Millisecond)
	first.want(t, "none")
	if len(n.log(5).copies[logs.MakeLSN(1, 2)]) == 0 {
		t.Fatal("the copyset does not hold this node: choose another seed")
	}
	for _, id := range w.order {
		w.nodes[id].refuse = nil
	}
	retry := proto.Clone(req).(*wire.AppendRequest)
	retry.Flags = logs.AppendRetry | logs.AppendNoRedirect | logs.AppendReactivateIfPreempted
	g := m.append(retry)
	w.run(5 * time.Second)
	if lsn := logs.LSN(g.want(t, "OK").Lsn); lsn != logs.MakeLSN(1, 2) {
		t.Errorf("%s, want e1n2", lsn)
	}
	w.whole(t)
}

func TestAnOldEpochDrainsBesideTheNew(t *testing.T) {
	w := newWorld(t, 1, 3, Config{StoreTimeout: time.Minute})
	n := w.home(5)
	n.append(request(5, "x"))
	w.run(time.Second)
	w.delay = func() time.Duration { return 500 * time.Millisecond }
	var slow []*got
	for range 5 {
		slow = append(slow, n.append(request(5, "slow")))
	}
	w.with(func(a *catalog.LogAttributes) { a.Replication = &catalog.Replication{Node: 3} })
	w.delay = func() time.Duration { return time.Millisecond }
	n.step(event{kind: evLogs})
	w.run(40 * time.Millisecond)
	g := n.append(request(5, "new"))
	w.run(3 * time.Second)
	for _, s := range slow {
		if e := s.want(t, "OK").Epoch; e != 1 {
			t.Errorf("epoch %d", e)
		}
	}
	if e := g.want(t, "OK").Epoch; e != 2 {
		t.Errorf("the new one is of epoch %d", e)
	}
	if s := n.core.logs[5]; s.old != nil || !s.cur.recovered || n.metrics.Preempted.Load() != 0 {
		t.Errorf("old %v, preempted %d", s.old, n.metrics.Preempted.Load())
	}
}

// TestARecordThatOutlivesTheDrainIsLookedUp: the old epoch's two seconds end with
// a record in flight; its retry finds what recovery made of it.
func TestARecordThatOutlivesTheDrainIsLookedUp(t *testing.T) {
	w := newWorld(t, 1, 3, Config{StoreTimeout: time.Hour, StoreTimeoutMax: time.Hour, ESNMax: 2})
	n := w.home(5)
	n.append(request(5, "x"))
	w.run(time.Second)
	for _, id := range w.order {
		w.data(w.nodes[id], func(st *wire.Store) wire.LogStatus {
			if string(st.Record.Payload) == "twice" {
				return astray
			}
			return ok
		})
	}
	req := request(5, "twice")
	req.Producer, req.Sequence, req.FirstRunning, req.After = 9, 1, 1, uint64(logs.MakeLSN(1, 1))
	first := n.append(req)
	w.run(100 * time.Millisecond)
	n.append(request(5, "other")) // the ESNs have run out
	w.run(1500 * time.Millisecond)
	first.want(t, "none")
	w.run(2 * time.Second)
	a := first.want(t, "PREEMPTED")
	if logs.LSN(a.StoredAs) != logs.MakeLSN(1, 2) {
		t.Errorf("stored as %s", logs.LSN(a.StoredAs))
	}
	retry := proto.Clone(req).(*wire.AppendRequest)
	retry.Flags = logs.AppendRetry
	g := n.append(retry)
	w.run(time.Second)
	if lsn := logs.LSN(g.want(t, "OK").Lsn); lsn != logs.MakeLSN(1, 2) {
		t.Errorf("%s, want e1n2", lsn)
	}
}
