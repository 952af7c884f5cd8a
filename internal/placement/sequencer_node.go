package placement

import (
	"math"
	"strings"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
)

// SequencerNode says which node sequences a log, in one view of the cluster:
// everybody who has the same view names the same node, without asking anybody.
// A node is eligible if it is alive, not starting, and a sequencer of positive
// weight. affinity, if any, is a location ("region" or "region/zone", ...): nodes
// in it are preferred, and where none is eligible the others are taken. False
// says that nobody is eligible. A metadata log is sequenced where its data log is.
//
// It is weighted consistent hashing by rendezvous: every eligible node draws a
// time for the log from an exponential distribution whose rate is the node's
// weight, by hashing, and the earliest wins. The probability to be the earliest
// is the node's share of all weights, exactly; a draw depends on nothing but the
// log and the node itself, so a node that dies gives each of its logs to the one
// that was second, and no other log moves. (LogDevice jumps over the dense
// indexes of nodes and accepts by weight; Braid's node ids are never used again
// and so become sparse, and the chance to find nobody within 128 jumps would
// grow with every node that was ever removed.) It costs one hash and one
// logarithm per node.
func SequencerNode(c *logs.Cluster, log logs.LogID, affinity string) (catalog.NodeID, bool) {
	if affinity != "" {
		if n, ok := earliest(c, log, affinity); ok {
			return n, true
		}
	}
	return earliest(c, log, "")
}

// CanSequence says whether logs may be sequenced by a node now.
func CanSequence(n *logs.ClusterNode) bool {
	return n.Alive && !n.Starting && n.Sequencer && n.SequencerWeight > 0
}

func earliest(c *logs.Cluster, log logs.LogID, within string) (catalog.NodeID, bool) {
	var best catalog.NodeID
	found, bestTime := false, 0.0
	for i := range c.Nodes {
		n := &c.Nodes[i]
		if !CanSequence(n) || !inLocation(n.Location, within) {
			continue
		}
		// Nodes ascend by id, so that the lower one wins where times are equal.
		if t := arrival(log.DataLog(), n.ID) / n.SequencerWeight; !found || t < bestTime {
			best, bestTime, found = n.ID, t, true
		}
	}
	return best, found
}

// inLocation says whether a location lies within another, part by part.
func inLocation(location, within string) bool {
	rest, ok := strings.CutPrefix(location, within)
	return ok && (within == "" || rest == "" || rest[0] == '/')
}

// arrival draws from the exponential distribution of rate 1.
func arrival(log logs.LogID, node catalog.NodeID) float64 {
	h := scramble(scramble(uint64(log)+0x9e3779b97f4a7c15) ^ uint64(node)*0xd1342543de82ef95)
	// 53 bits, never 0: (0, 1].
	return -math.Log(float64(h>>11+1) / (1 << 53))
}

// scramble is the finalizer of splitmix64: each bit of x flips half of the result's.
func scramble(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
