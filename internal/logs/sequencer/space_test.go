package sequencer

import (
	"testing"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/wire"
)

// TestALogGoesOnSoonAfterThereIsSpace: a shard that the copyset cannot do without has
// no space for a while. It is not waited for as long as one that can be done without.
func TestALogGoesOnSoonAfterThereIsSpace(t *testing.T) {
	w := newWorld(t, 1, 3, Config{AppendWait: 3 * time.Second})
	w.with(func(a *catalog.LogAttributes) { a.Replication = &catalog.Replication{Node: 3} })
	n := w.home(5)
	n.append(request(5, "first"))
	w.run(time.Second)
	full, isFull := w.other(n), true
	w.data(full, func(*wire.Store) wire.LogStatus {
		if isFull {
			return noSpace
		}
		return wire.LogStatus_LOG_STATUS_OK
	})
	for range 4 { // longer than one probe
		n.append(request(5, "without space"))
		w.run(3 * time.Second)
	}
	isFull = false
	g := n.append(request(5, "with space"))
	w.run(neededSpaceFor + time.Second)
	g.want(t, "OK")
}
