package logs

import "github.com/braiddb/braid/internal/catalog"

// Cluster is what a node or a client believes of the cluster at one moment:
// descriptors of the catalog with the failure detector's opinion. It is never
// changed once made; a newer one replaces it.
type Cluster struct {
	Version  uint64 // local: grows with each new view
	Self     catalog.NodeID
	Isolated bool          // Self cannot see a majority
	Nodes    []ClusterNode // ascending by ID
}

// ClusterNode is one node in a view.
type ClusterNode struct {
	ID              catalog.NodeID
	Incarnation     uint64
	Alive           bool // by the failure detector
	Starting        bool // alive, but not ready to sequence
	Lost            bool // given up by hand: nothing that it held is waited for
	Location        string
	Sequencer       bool
	SequencerWeight float64 // >= 0
	Storage         bool
	Writable        bool // storage that takes new copies, while it is alive
	StorageWeight   float64
}

// Node finds a node.
func (c *Cluster) Node(id catalog.NodeID) (ClusterNode, bool) {
	lo, hi := 0, len(c.Nodes)
	for lo < hi {
		mid := (lo + hi) / 2
		if c.Nodes[mid].ID < id {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < len(c.Nodes) && c.Nodes[lo].ID == id {
		return c.Nodes[lo], true
	}
	return ClusterNode{}, false
}

// Alive says whether a shard's node is believed to live.
func (c *Cluster) Alive(s ShardID) bool {
	n, ok := c.Node(s.Node())
	return ok && n.Alive
}
