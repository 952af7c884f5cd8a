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
	mine := w.appendOK(t, n, producing(1, "p"))
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
	if r := again(producing(1, "p"), "OK"); logs.LSN(r.Lsn) != mine { // of it the storage nodes remember where it was
		t.Errorf("%s, it was at %s", logs.LSN(r.Lsn), mine)
	}
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

// TestAProducerGoesOnWhereAllIsTrimmed: what a producer appended is trimmed, all of
// it, and another node takes the log over. What was taken before is not taken again,
// and what comes next is; and a producer that is new to the log begins anywhere.
func TestAProducerGoesOnWhereAllIsTrimmed(t *testing.T) {
	for _, trims := range []logs.ESN{3, 5} { // all of them, and all but the last two
		w := newWorld(t, 1, 3, Config{})
		n := w.home(5)
		const all = 5
		at := map[uint64]logs.LSN{}
		for seq := uint64(1); seq <= all; seq++ {
			at[seq] = w.appendOK(t, n, producing(seq, "p"))
		}
		for id := catalog.NodeID(1); id <= 3; id++ {
			w.nodes[id].log(5).trim = logs.MakeLSN(1, trims)
		}
		m := w.other(n)
		send := func(producer, seq, running uint64, want string) *wire.AppendResponse {
			t.Helper()
			r := producing(seq, "p")
			r.Producer, r.FirstRunning = producer, running
			r.Flags |= logs.AppendNoRedirect | logs.AppendReactivateIfPreempted
			g := m.append(r)
			w.run(3 * time.Second)
			return g.want(t, want)
		}
		for _, seq := range []uint64{1, 2} {
			if r := send(77, seq, seq, "SEQUENCE_STALE"); r.Sequence != all {
				t.Errorf("the last one taken is %d", r.Sequence)
			}
		}
		if r := send(77, all, all, "OK"); logs.LSN(r.Lsn) != at[all] {
			t.Errorf("%s, it was at %s", logs.LSN(r.Lsn), at[all])
		}
		send(77, all+2, all+2, "SEQUENCE_GAP")
		send(77, all+1, all+1, "OK")
		send(77, all-3, all-3, "SEQUENCE_STALE")
		// New ones: not with the second of what their clients have under way.
		send(88, 501, 500, "SEQUENCE_GAP")
		first := send(88, 500, 500, "OK")
		send(88, 501, 500, "OK")
		if r := send(88, 500, 500, "OK"); r.Lsn != first.Lsn {
			t.Errorf("%s, it was at %s", logs.LSN(r.Lsn), logs.LSN(first.Lsn))
		}
		send(88, 503, 503, "SEQUENCE_GAP")
		w.whole(t)
	}
}
