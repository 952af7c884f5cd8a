package node

import (
	"testing"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// TestWhoHearsNoMasterKnowsNoEndOfALog asks a node for a log that is not in its
// catalog. Cut from the master it may not say that there is none: callers take that
// for final, and a log that was made since would end its readers.
func TestWhoHearsNoMasterKnowsNoEndOfALog(t *testing.T) {
	now := time.Minute
	n := &Node{deps: Deps{Mono: func() time.Duration { return now }}}
	n.opened.Store(true)
	n.index.Store(catalog.NewIndex(&catalog.Catalog{Version: 7}))
	n.logDoors.Store(&map[rpc.Method]logMethod{
		rpc.MethodSequencerState: func(_ rpc.Message, reply func(rpc.Message)) {
			reply(&wire.SequencerStateResponse{Status: wire.LogStatus_LOG_STATUS_NOT_FOUND})
		},
	})
	for heard, want := range map[time.Duration]wire.LogStatus{
		now - heardLately:     wire.LogStatus_LOG_STATUS_NOT_FOUND,
		now - heardLately - 1: wire.LogStatus_LOG_STATUS_NOT_READY,
		0:                     wire.LogStatus_LOG_STATUS_NOT_READY,
	} {
		n.heardMaster.Store(int64(heard))
		f, ok := n.logDoor(rpc.MethodSequencerState)
		if !ok {
			t.Fatal("the door is shut")
		}
		f(&wire.SequencerStateRequest{Log: 404}, func(resp rpc.Message) {
			if got := resp.(*wire.SequencerStateResponse).Status; got != want {
				t.Errorf("heard %v ago: %s, want %s", now-heard, got, want)
			}
		})
	}
}
