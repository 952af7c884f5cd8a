package sequencer

import (
	"testing"
	"time"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// TestAReignEndsOnceForAllWhoAsk: shards in doubt ask for the end of an epoch, several
// and again; the log is quiet. One reign ends, and one that is over costs none (Q10).
func TestAReignEndsOnceForAllWhoAsk(t *testing.T) {
	w := newWorld(t, 1, 3, Config{})
	n := w.home(5)
	var epochs []uint32
	end := func(seen logs.Epoch, flags uint32) {
		n.step(event{kind: evState, state: &stateRequest{req: &wire.SequencerStateRequest{Log: 5, SeenEpoch: uint32(seen), Flags: flags},
			reply: func(a *wire.SequencerStateResponse) {
				if a.Status != wire.LogStatus_LOG_STATUS_OK {
					t.Errorf("%s %s", a.Status, a.Message)
				}
				epochs = append(epochs, a.Epoch)
			}}})
	}
	asked := func(what string, answers int, want uint32) {
		t.Helper()
		w.run(3 * time.Second)
		if len(epochs) != answers {
			t.Fatalf("%s: %d answers", what, len(epochs))
		}
		for _, e := range epochs {
			if e != want {
				t.Errorf("%s: answered by epoch %d, not %d", what, e, want)
			}
		}
		epochs = nil
	}
	w.appendOK(t, n, request(5, "x"))
	end(1, 0)
	asked("who has seen the epoch that reigns", 1, 1)
	for range 3 {
		end(1, logs.StateEndSeen)
	}
	asked("three who need it to be over", 3, 2)
	end(1, logs.StateEndSeen)
	asked("who asks for what is over", 1, 2)
	if lsn := w.appendOK(t, n, request(5, "y")); lsn != logs.MakeLSN(2, 1) {
		t.Errorf("the next record is %s", lsn)
	}
	w.whole(t)
}
