package sequencer

import (
	"slices"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/wire"
)

// TestALogGoesOnSoonAfterItCan: a shard that the copyset cannot do without refuses for a
// while. It is not waited for as long as one that can be done without.
func TestALogGoesOnSoonAfterItCan(t *testing.T) {
	for _, no := range []wire.LogStatus{noSpace, wire.LogStatus_LOG_STATUS_SHUTDOWN, wire.LogStatus_LOG_STATUS_DISABLED, wire.LogStatus_LOG_STATUS_FAILED} {
		t.Run(no.String(), func(t *testing.T) {
			w, n := threeOfThree(t)
			some, refuses := w.other(n), true
			w.data(some, func(*wire.Store) wire.LogStatus {
				if refuses {
					return no
				}
				return wire.LogStatus_LOG_STATUS_OK
			})
			for range 4 { // longer than one probe
				n.append(request(5, "refused"))
				w.run(3 * time.Second)
			}
			refuses = false
			g := n.append(request(5, "taken"))
			w.run(neededFor + time.Second)
			g.want(t, "OK")
		})
	}
}

// threeOfThree is a log with three copies on three nodes, in its first epoch, and the
// node that numbers it.
func threeOfThree(t *testing.T) (*world, *node) {
	w := newWorld(t, 1, 3, Config{AppendWait: 3 * time.Second})
	w.with(func(a *catalog.LogAttributes) { a.Replication = &catalog.Replication{Node: 3} })
	n := w.home(5)
	n.append(request(5, "first"))
	w.run(time.Second)
	return w, n
}

// TestACopyThatIsGoneIsNotRefused: a shard that had a copy of a record under way loses
// the end of its journal, and says that it has nothing to amend. It gets the record
// whole, and is left in peace for it.
func TestACopyThatIsGoneIsNotRefused(t *testing.T) {
	w, n := threeOfThree(t)
	var waves []bool // of the copies that the shard is sent, whether they amend
	loses, slow := w.other(n), true
	for _, o := range w.nodes {
		switch o {
		case n:
		case loses:
			w.data(o, func(st *wire.Store) wire.LogStatus {
				if waves = append(waves, st.Amend); st.Amend {
					return wire.LogStatus_LOG_STATUS_FAILED
				}
				return wire.LogStatus_LOG_STATUS_OK
			})
		default:
			w.data(o, func(*wire.Store) wire.LogStatus {
				if slow {
					slow = false
					return wire.LogStatus_LOG_STATUS_DROPPED
				}
				return wire.LogStatus_LOG_STATUS_OK
			})
		}
	}
	g := n.append(request(5, "kept"))
	w.run(2 * time.Second) // far less than it would be left alone for
	g.want(t, "OK")
	if want := []bool{false, true, false}; !slices.Equal(waves, want) {
		t.Errorf("it was sent amendments %v, want %v", waves, want)
	}
}
