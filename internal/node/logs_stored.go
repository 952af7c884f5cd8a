package node

import (
	"fmt"
	"sync"
	"time"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// recoveryCookie marks the cookies of recovery's copies: the answers to others
// are the sequencer's.
const recoveryCookie = 1 << 63

// recoveryStores sends the single copies that recovery makes and finds the call
// that an answer belongs to.
type recoveryStores struct {
	n *Node

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]*recoveryStore
}

type recoveryStore struct {
	done func(*wire.Stored, error)
	stop func() bool // of its timer
}

// storeTime bounds how long recovery waits for one copy to be stored.
const storeTime = 2 * time.Second

// Store has a shard keep a copy; done is called once.
func (s *recoveryStores) Store(shard logs.ShardID, store *wire.Store, done func(*wire.Stored, error)) {
	s.mu.Lock()
	s.next++
	cookie := s.next | recoveryCookie
	w := &recoveryStore{done: done}
	s.waiting[cookie] = w
	w.stop = s.n.deps.AfterFunc(storeTime, func() {
		s.finish(cookie, nil, fmt.Errorf("shard %s did not store a copy in %s: %w", shard, storeTime, rpc.ErrDeadline))
	})
	s.mu.Unlock()
	sent := &wire.Store{Record: store.Record, SealEpoch: store.SealEpoch, Draining: store.Draining, Amend: store.Amend, Cookie: cookie}
	logCalls{s.n}.SendStores(shard.Node(), s.n.logBatch(shard, sent))
}

// logBatch wraps one copy for a shard's node.
func (n *Node) logBatch(shard logs.ShardID, s *wire.Store) *wire.LogBatch {
	return &wire.LogBatch{
		FromNode: uint64(n.nodeID()), ToNode: uint64(shard.Node()), Incarnation: n.incarnation, Stores: []*wire.Store{s},
	}
}

func (s *recoveryStores) finish(cookie uint64, stored *wire.Stored, err error) {
	s.mu.Lock()
	w := s.waiting[cookie]
	delete(s.waiting, cookie)
	s.mu.Unlock()
	if w == nil {
		return // answered before, or after its time
	}
	w.stop()
	w.done(stored, err)
}

// takeStored hands the answers in a batch to who asked: recovery or the
// sequencer.
func (w *logWing) takeStored(b *wire.LogBatch) {
	theirs := 0
	for _, s := range b.Stored {
		if s.Cookie&recoveryCookie != 0 {
			w.mutations.finish(s.Cookie, s, nil)
			theirs++
		}
	}
	if w.sequencer == nil || theirs == len(b.Stored) && len(b.Released) == 0 {
		return
	}
	if theirs > 0 {
		rest := &wire.LogBatch{FromNode: b.FromNode, ToNode: b.ToNode, Incarnation: b.Incarnation, HybridTime: b.HybridTime, Released: b.Released}
		for _, s := range b.Stored {
			if s.Cookie&recoveryCookie == 0 {
				rest.Stored = append(rest.Stored, s)
			}
		}
		b = rest
	}
	w.sequencer.HandleStored(b)
}
