package sequencer

import (
	"testing"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// TestWhatMayBeTrimmedIsNotTakenAgain: an append was stored, its answer was lost, and
// the log is trimmed above it before it is sent again, to another node. That node
// finds nothing of it, and must not take it for new (Q6).
func TestWhatMayBeTrimmedIsNotTakenAgain(t *testing.T) {
	w := newWorld(t, 1, 3, Config{})
	n := w.home(5)
	numbered := func(producer, seq uint64, after logs.LSN, flags uint32) *wire.AppendRequest {
		r := request(5, "p")
		r.Producer, r.Sequence, r.FirstRunning, r.After, r.Flags = producer, seq, seq, uint64(after), flags
		return r
	}
	first := w.appendOK(t, n, numbered(7, 1, 0, 0))
	second := w.appendOK(t, n, numbered(8, 1, first, 0))
	w.appendOK(t, n, producing(1, "p"))
	trimmed := w.appendOK(t, n, numbered(7, 2, second, 0))
	kept := w.appendOK(t, n, numbered(9, 1, trimmed, 0))

	m := w.other(n)
	for id := catalog.NodeID(1); id <= 3; id++ {
		w.nodes[id].log(5).trim = trimmed
	}
	over := uint32(logs.AppendNoRedirect | logs.AppendReactivateIfPreempted | logs.AppendRetry)
	again := func(r *wire.AppendRequest, want string) *wire.AppendResponse {
		t.Helper()
		r.Flags |= over
		g := m.append(r)
		w.run(3 * time.Second)
		return g.want(t, want)
	}
	for range 2 { // and whoever asks again is told the same
		again(numbered(7, 2, second, 0), "TRIMMED")
	}
	again(producing(1, "p"), "TRIMMED") // nothing says any more how far this producer came
	if next := m.core.logs[5].cur.win.next; next != 1 {
		t.Fatalf("an append whose first copy was trimmed is given an LSN: the next ESN is %d", next)
	}
	if r := again(numbered(9, 1, trimmed, 0), "OK"); logs.LSN(r.Lsn) != kept {
		t.Errorf("%s, kept as %s", logs.LSN(r.Lsn), kept)
	}
	// What could only be stored above the trim point, and is not, is new; and an
	// append that was refused as trimmed holds back none behind it.
	if r := again(numbered(9, 2, kept, 0), "OK"); logs.LSN(r.Lsn) != logs.MakeLSN(2, 1) {
		t.Errorf("%s", logs.LSN(r.Lsn))
	}
	behind := numbered(7, 3, trimmed, 0)
	behind.FirstRunning = 2
	if r := again(behind, "OK"); logs.LSN(r.Lsn) != logs.MakeLSN(2, 2) {
		t.Errorf("%s", logs.LSN(r.Lsn))
	}
}
