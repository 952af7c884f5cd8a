package sequencer

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// TestAnEpochDrainsThoughTheOneBeforeItDidNot: a third reign begins while the first
// has a record in flight that nobody answers for. That record is given up; those of
// the second reign have the time to drain that they are owed (Q8).
func TestAnEpochDrainsThoughTheOneBeforeItDidNot(t *testing.T) {
	w := newWorld(t, 1, 3, Config{StoreTimeout: time.Minute})
	n := w.home(5)
	w.appendOK(t, n, request(5, "x"))
	w.run(time.Second)
	for _, id := range w.order {
		w.data(w.nodes[id], func(st *wire.Store) wire.LogStatus {
			if string(st.Record.Payload) == "lost" {
				return astray
			}
			return ok
		})
	}
	reign := func(epoch logs.Epoch, copies uint32) {
		t.Helper()
		w.with(func(a *catalog.LogAttributes) { a.Replication = &catalog.Replication{Node: copies} })
		n.step(event{kind: evLogs})
		w.run(300 * time.Millisecond)
		if e := n.core.logs[5].cur.epoch; e != epoch {
			t.Fatalf("epoch %d, want %d", e, epoch)
		}
	}
	lost := n.append(request(5, "lost"))
	reign(2, 3)
	w.delay = func() time.Duration { return 500 * time.Millisecond }
	slow := n.append(request(5, "slow"))
	w.delay = func() time.Duration { return time.Millisecond }
	reign(3, 2)
	lost.want(t, "PREEMPTED")
	if s := n.core.logs[5]; s.cur.recording || s.cur.recovered || s.old == nil {
		t.Error("epoch 2 is being recovered while it drains")
	}
	w.run(3 * time.Second)
	if e := slow.want(t, "OK").Epoch; e != 2 {
		t.Errorf("epoch %d", e)
	}
	if s := n.core.logs[5]; s.old != nil || !s.cur.recovered {
		t.Error("epochs 1 and 2 are not recovered")
	}
	w.whole(t)
}

// TestALogThatGoesLeavesNoRecoveryBehind: what is in flight in an epoch that drains
// is given up with the log, and no recovery begins for it.
func TestALogThatGoesLeavesNoRecoveryBehind(t *testing.T) {
	w := newWorld(t, 1, 3, Config{StoreTimeout: time.Minute})
	n := w.home(5)
	w.appendOK(t, n, request(5, "x"))
	w.run(time.Second)
	for _, id := range w.order {
		w.data(w.nodes[id], func(*wire.Store) wire.LogStatus { return astray })
	}
	lost := n.append(request(5, "lost"))
	w.with(func(a *catalog.LogAttributes) { a.Replication = &catalog.Replication{Node: 3} })
	n.step(event{kind: evLogs})
	w.run(300 * time.Millisecond)
	w.holdRec = true
	w.attrs = nil // the log is gone
	n.step(event{kind: evLogs})
	w.run(time.Second)
	lost.want(t, "PREEMPTED")
	if n.core.logs[5] != nil || len(w.pending) > 0 {
		t.Errorf("%d recoveries of a log that is gone", len(w.pending))
	}
}

// TestMetadataIsWrittenWithoutANodeThatDies: the first wave of the metadata log's
// record goes to a node that turns out to be dead. Nothing is released without that
// record, so it makes do with the copies that can be made.
func TestMetadataIsWrittenWithoutANodeThatDies(t *testing.T) {
	w := newWorld(t, 1, 3, Config{})
	n := w.home(5)
	dead := w.other(n)
	dead.crash() // and nobody has noticed
	g := n.append(request(5, "x"))
	w.run(3 * time.Second)
	g.want(t, "OK")
	w.noticed()
	w.run(time.Second)
	if r := n.log(5).released; r != logs.MakeLSN(1, 1) {
		t.Errorf("released %s", r)
	}
	w.whole(t)
}

// TestAFirstAttemptThatComesLateIsNotTaken: it left in the first reign, its client
// sent it again in the second, which stored it, and it comes in the third.
func TestAFirstAttemptThatComesLateIsNotTaken(t *testing.T) {
	w := newWorld(t, 1, 3, Config{})
	n := w.home(5)
	m := w.other(n)
	of := func(sequence uint64, seen logs.Epoch, after logs.LSN, flags uint32) *wire.AppendRequest {
		r := request(5, fmt.Sprint(sequence))
		r.Producer, r.Sequence, r.FirstRunning, r.SeenEpoch, r.After, r.Flags = 7, sequence, sequence, uint32(seen), uint64(after), flags
		return r
	}
	one := w.appendOK(t, n, of(1, 0, 0, 0))
	late := of(2, 1, one, 0)
	two := w.appendOK(t, m, of(2, 1, one, logs.AppendRetry|logs.AppendNoRedirect|logs.AppendReactivateIfPreempted))
	if two != logs.MakeLSN(2, 1) {
		t.Fatalf("the second attempt is at %s", two)
	}
	third := request(5, "other")
	third.SeenEpoch = 2
	if at := w.appendOK(t, n, third); at != logs.MakeLSN(3, 1) {
		t.Fatalf("the third reign gave %s", at)
	}
	g := n.append(late)
	w.run(time.Second)
	if r := g.want(t, "NEW_EPOCH"); r.Epoch != 3 || r.StoredAs != 0 {
		t.Errorf("%v", r)
	}
	// The same of one that its client waits for, which knows the epoch from then on.
	g = n.append(of(3, 2, two, 0))
	w.run(time.Second)
	g.want(t, "NEW_EPOCH")
	if at := w.appendOK(t, n, of(3, 3, two, 0)); at != logs.MakeLSN(3, 2) {
		t.Errorf("%s, want e3n2", at)
	}
	if looked := n.metrics.Lookups.Load(); looked != 0 {
		t.Errorf("%d look-ups", looked)
	}
	w.whole(t)
}

// TestAnAppendThatWaitedForAnEpochIsNotTakenUnseen: while it waits at one node its
// client has another one store it.
func TestAnAppendThatWaitedForAnEpochIsNotTakenUnseen(t *testing.T) {
	w := newWorld(t, 1, 3, Config{})
	n := w.home(5)
	m := w.other(n)
	first := request(5, "x")
	first.Flags = logs.AppendNoRedirect
	after := w.appendOK(t, m, first)
	w.store.down = true
	req := request(5, "p")
	req.Producer, req.Sequence, req.FirstRunning, req.After, req.SeenEpoch = 7, 1, 1, uint64(after), 1
	late := n.append(req) // waits for the epoch store
	w.run(600 * time.Millisecond)
	again := proto.Clone(req).(*wire.AppendRequest)
	again.Flags = logs.AppendRetry | logs.AppendNoRedirect
	w.appendOK(t, m, again)
	w.store.down = false
	w.run(10 * time.Second)
	if e := late.want(t, "NEW_EPOCH").Epoch; e != 2 {
		t.Errorf("epoch %d", e)
	}
	if next := n.core.logs[5].cur.win.next; next != logs.ESNMin {
		t.Errorf("the next ESN is %d", next)
	}
}

// TestAStreamsAppendsStayInOrder: the first append of a stream and its second are under
// way when their epoch ends, and only the second has copies. It is not acknowledged
// (Q11), and not kept: both are appended anew, in order.
func TestAStreamsAppendsStayInOrder(t *testing.T) {
	for _, flag := range []uint32{logs.AppendStream, logs.AppendProducer} {
		w := newWorld(t, 1, 3, Config{StoreTimeout: time.Hour, StoreTimeoutMax: time.Hour})
		n := w.home(5)
		w.appendOK(t, n, request(5, "x"))
		for _, id := range w.order {
			w.data(w.nodes[id], func(st *wire.Store) wire.LogStatus {
				if string(st.Record.Payload) == "first" {
					return noSpace
				}
				return ok
			})
		}
		of := func(seq uint64, payload string) *wire.AppendRequest {
			r := producing(seq, payload)
			r.Flags, r.SeenEpoch = flag, 1
			return r
		}
		n.append(of(1, "first"))
		second := n.append(of(2, "second"))
		plain := w.appendOK(t, n, request(5, "plain")) // of another client: it waits for nobody
		second.want(t, "none")
		n.crash()
		for _, id := range w.order {
			w.nodes[id].refuse = nil
		}
		w.noticed()
		m := w.home(5)
		again := func(seq uint64, payload string) *got {
			r := of(seq, payload)
			r.Flags |= logs.AppendRetry
			g := m.append(r)
			w.run(5 * time.Second)
			return g
		}
		again(2, "second").want(t, "SEQUENCE_GAP")
		first := logs.LSN(again(1, "first").want(t, "OK").Lsn)
		if at := logs.LSN(again(2, "second").want(t, "OK").Lsn); at.Epoch() != 2 || at <= first {
			t.Errorf("the first append is at %s, the second at %s", first, at)
		}
		if r := w.truth[5][plain]; r == nil || string(r.Payload) != "plain" {
			t.Errorf("%s, which was acknowledged and is of no stream, is %v", plain, r)
		}
		w.whole(t)
	}
}

// TestAStreamWaitsForTheEpochThatDrains: an append of a stream gets no LSN in the next
// epoch while one before it may yet be fenced off in the one that drains (Q12).
func TestAStreamWaitsForTheEpochThatDrains(t *testing.T) {
	for _, drains := range []bool{true, false} {
		w := newWorld(t, 1, 3, Config{StoreTimeout: time.Minute, DrainTimeout: 3 * time.Second, AppendWait: time.Minute})
		n := w.home(5)
		w.appendOK(t, n, request(5, "x"))
		slow := true
		for _, id := range w.order {
			w.data(w.nodes[id], func(st *wire.Store) wire.LogStatus {
				if slow && string(st.Record.Payload) == "first" {
					return astray
				}
				return ok
			})
		}
		of := func(seq, running uint64, flags uint32, payload string) *wire.AppendRequest {
			r := request(5, payload)
			r.Producer, r.Sequence, r.FirstRunning, r.SeenEpoch, r.Flags = 9, seq, running, 1, flags
			return r
		}
		first := n.append(of(1, 1, logs.AppendStream, "first"))
		w.with(func(a *catalog.LogAttributes) { a.Replication = &catalog.Replication{Node: 3} })
		n.step(event{kind: evLogs})
		w.run(300 * time.Millisecond)
		s := n.core.logs[5]
		if s.cur.epoch != 2 || s.old == nil {
			t.Fatalf("epoch %d", s.cur.epoch)
		}
		second := n.append(of(2, 1, logs.AppendStream, "second"))
		other := w.appendOK(t, n, request(5, "other"))
		if second.want(t, "none"); other != logs.MakeLSN(2, 1) {
			t.Fatalf("another client's append is at %s", other)
		}
		if slow = false; drains { // the answer that went astray, as a retried store would bring it
			rec := &s.old.win.at(2).out.rec
			for _, sh := range rec.Copyset {
				n.step(event{kind: evStored, batch: &wire.LogBatch{FromNode: uint64(logs.ShardID(sh).Node()),
					Stored: []*wire.Stored{{Log: 5, Lsn: rec.Lsn, Wave: rec.Wave, Cookie: sh}}}})
			}
		}
		w.run(10 * time.Second)
		if drains {
			one, two := logs.LSN(first.want(t, "OK").Lsn), logs.LSN(second.want(t, "OK").Lsn)
			if one != logs.MakeLSN(1, 2) || two != logs.MakeLSN(2, 2) {
				t.Errorf("%s and %s", one, two)
			}
			continue
		}
		// It is fenced off by the recovery, and the second is sent back behind it.
		first.want(t, "PREEMPTED")
		second.want(t, "NEW_EPOCH") // and once it has seen that: SEQUENCE_GAP
	}
}

// TestALostReleaseIsToldAgain: a release that is lost is told again soon, ever more
// rarely, until the shard confirms it; then nothing is kept of who was told what.
func TestALostReleaseIsToldAgain(t *testing.T) {
	w := newWorld(t, 1, 3, Config{})
	n := w.home(5)
	lost := w.other(n)
	lost.deaf = true
	lsn := w.appendOK(t, n, request(5, "x"))
	before := n.metrics.Releases.Load()
	w.run(60 * time.Second)
	if told := n.metrics.Releases.Load() - before; told < 6 || told > 9 {
		t.Errorf("the shard that does not hear was told %d times in a minute", told)
	}
	lost.deaf = false
	w.run(w.cfg.ReleaseLaggards)
	if r := lost.log(5).released; r != lsn {
		t.Errorf("the shard holds %s for released", r)
	}
	if told := n.core.logs[5].cur.told; told != nil {
		t.Errorf("all have confirmed, and this is kept: %v", told)
	}
	before = n.metrics.Releases.Load()
	w.run(100 * time.Second)
	if told := n.metrics.Releases.Load() - before; told > 3 { // once in five minutes, all
		t.Errorf("%d releases of an idle log that everybody knows of", told)
	}

	lost.deaf = true // a short loss is mended in the second after it
	lsn = w.appendOK(t, n, request(5, "y"))
	w.run(100 * time.Millisecond)
	lost.deaf = false
	w.run(2 * time.Second)
	if r := lost.log(5).released; r != lsn {
		t.Errorf("two seconds later the shard holds %s for released", r)
	}
	w.whole(t)
}

// TestAConfirmationOfAFormerLifeIsNotBelieved: what a node served before it was
// started anew it may not serve now.
func TestAConfirmationOfAFormerLifeIsNotBelieved(t *testing.T) {
	w := newWorld(t, 1, 3, Config{})
	n := w.home(5)
	m := w.other(n)
	m.deaf = true
	lsn := w.appendOK(t, n, request(5, "x"))
	was := m.inc
	m.crash()
	m.boot()
	w.noticed()
	w.run(50 * time.Millisecond)
	n.step(event{kind: evStored, batch: &wire.LogBatch{FromNode: uint64(m.id), Incarnation: was, Released: []*wire.Released{{Log: 5, Released: uint64(lsn)}}}})
	m.deaf = false
	w.run(30 * time.Second)
	if r := m.log(5).released; r != lsn {
		t.Errorf("the shard holds %s for released", r)
	}
}

// TestMetadataOfAReignInBetweenIsTold: a node reigned and knew all that the log was
// stored on; another changed that; the first reigns again, and what it tells of the
// log's epochs has the one in between.
func TestMetadataOfAReignInBetweenIsTold(t *testing.T) {
	w := newWorld(t, 1, 3, Config{})
	n := w.home(5)
	m := w.other(n)
	take := func(by *node, copies, epoch uint32) {
		t.Helper()
		w.with(func(a *catalog.LogAttributes) { a.Replication = &catalog.Replication{Node: copies} })
		r := request(5, "x")
		r.SeenEpoch, r.Flags = epoch-1, logs.AppendNoRedirect|logs.AppendReactivateIfPreempted
		if at := w.appendOK(t, by, r); at.Epoch() != logs.Epoch(epoch) {
			t.Fatalf("%s, want epoch %d", at, epoch)
		}
		w.run(2 * time.Second) // its metadata is written
	}
	take(n, 2, 1)
	take(m, 3, 2)
	take(n, 2, 3)
	if got := fmt.Sprint(n.told(t)); got != "[1 2 3]" {
		t.Fatalf("metadata since %s", got)
	}
	take(m, 3, 4)
	take(n, 2, 5)
	if got := fmt.Sprint(n.told(t)); got != "[1 2 3 4 5]" {
		t.Errorf("metadata since %s", got)
	}
}

// TestMetadataOfAReignIsToldBeforeItIsWritten: a node is asked what a log's epochs are
// stored on when the metadata log has not got the last of them yet. What it learns
// then it tells in its next reign too, and with it what had been missing.
func TestMetadataOfAReignIsToldBeforeItIsWritten(t *testing.T) {
	w := newWorld(t, 1, 3, Config{})
	n := w.home(5)
	w.appendOK(t, n, request(5, "x"))
	w.run(2 * time.Second)
	hold := true
	for _, id := range w.order {
		w.nodes[id].refuse = func(st *wire.Store) wire.LogStatus {
			if hold && logs.LogID(st.Record.Log).IsMetadata() {
				return noSpace
			}
			return ok
		}
	}
	reign := func(copies uint32) {
		w.with(func(a *catalog.LogAttributes) { a.Replication = &catalog.Replication{Node: copies} })
		n.step(event{kind: evLogs})
		w.run(300 * time.Millisecond)
	}
	reign(3)
	if got := fmt.Sprint(n.told(t)); got != "[1 2]" {
		t.Fatalf("metadata since %s", got)
	}
	hold = false
	w.run(20 * time.Second)
	reign(2)
	if got := fmt.Sprint(n.told(t)); got != "[1 2 3]" {
		t.Errorf("metadata since %s", got)
	}
}

// told is since when a log has had each of its metadata, as the node says.
func (n *node) told(t *testing.T) (since []uint32) {
	t.Helper()
	var r *wire.SequencerStateResponse
	q := &stateRequest{req: &wire.SequencerStateRequest{Log: 5, Flags: logs.StateNoRedirect | logs.StateMetadata}, reply: func(a *wire.SequencerStateResponse) { r = a }}
	n.step(event{kind: evState, state: q})
	n.w.run(5 * time.Second)
	if r == nil || r.Status != ok {
		t.Fatalf("%v", r)
	}
	for _, e := range r.Metadata {
		since = append(since, e.EffectiveSince)
	}
	return since
}
