package sequencer

import (
	"testing"
	"time"

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
