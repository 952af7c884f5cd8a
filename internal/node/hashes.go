package node

import (
	"fmt"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
)

// A ReplicaHash is a digest of one replica as it stood after applying an entry.
type ReplicaHash struct {
	Applied uint64 // index of the last entry applied
	Hash    uint64
}

// HybridTime is a time at which replicas can be compared: nothing that this node
// has seen is later.
func (n *Node) HybridTime() hlc.Timestamp { return n.clock.Now() }

// ReplicaHashes digests what every replica of a tablet here holds at a time.
// Replicas of one tablet with equal Applied have equal hashes, on all nodes. A
// replica that applied something meanwhile is left out.
func (n *Node) ReplicaHashes(at hlc.Timestamp) (map[catalog.GroupID]ReplicaHash, error) {
	out := map[catalog.GroupID]ReplicaHash{}
	var failed error
	n.eachHosted(func(h *hosted) {
		before := h.group.Status().Applied
		sum, err := h.Hash(at)
		if err != nil {
			failed = fmt.Errorf("tablet %d: %w", h.ID(), err)
			return
		}
		if h.group.Status().Applied == before {
			out[h.ID()] = ReplicaHash{Applied: before, Hash: sum}
		}
	})
	return out, failed
}
