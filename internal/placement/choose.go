package placement

import "github.com/braiddb/braid/internal/catalog"

// Load is how many replicas a node holds, and how many of them of the table that
// is being placed.
type Load struct{ Total, Table int }

// less orders nodes by what they hold: first of the table, so that one table's
// work is spread however the others lie.
func (l Load) less(m Load) bool {
	if l.Table != m.Table {
		return l.Table < m.Table
	}
	return l.Total < m.Total
}

// ChooseReplicas picks nodes for the n replicas of a new group, or as many as
// there are alive nodes: each the one that shares the least of its location with
// those picked before, then the least loaded, then the lowest id. The first is
// where the group's first leader should be.
func ChooseReplicas(nodes []Node, load map[catalog.NodeID]Load, n int) []catalog.NodeID {
	var picked []Node
	taken := map[catalog.NodeID]bool{}
	for len(picked) < n {
		best := pick(nodes, load, picked, func(node Node) bool { return !taken[node.ID] })
		if best == nil {
			break
		}
		taken[best.ID] = true
		picked = append(picked, *best)
	}
	ids := make([]catalog.NodeID, len(picked))
	for i, node := range picked {
		ids[i] = node.ID
	}
	return ids
}

// pick is the best alive node beside those a group is on already.
func pick(nodes []Node, load map[catalog.NodeID]Load, beside []Node, ok func(Node) bool) *Node {
	var best *Node
	var bestPenalty int64
	for i := range nodes {
		node := &nodes[i]
		if node.State != Alive || !ok(*node) {
			continue
		}
		p := sharedBy(node.Location, beside)
		if best == nil || p < bestPenalty || (p == bestPenalty && load[node.ID].less(load[best.ID])) {
			best, bestPenalty = node, p
		}
	}
	return best
}

func sharedBy(location string, beside []Node) int64 {
	p := int64(0)
	for _, other := range beside {
		p += penalty(location, other.Location)
	}
	return p
}

// ChooseTablets picks the nodes of every tablet of a new table, one after the
// other, each counting what was placed before it, among those that take tablets.
// The first node of each is where
// its first leader should be; those are even too.
func ChooseTablets(nodes []Node, total map[catalog.NodeID]int, tablets, factor int) [][]catalog.NodeID {
	nodes = Fit(nodes, catalog.RoleTablet)
	load := make(map[catalog.NodeID]Load, len(nodes))
	for _, node := range nodes {
		load[node.ID] = Load{Total: total[node.ID]}
	}
	placed := make([][]catalog.NodeID, tablets)
	for i := range placed {
		placed[i] = ChooseReplicas(nodes, load, factor)
		for _, id := range placed[i] {
			l := load[id]
			load[id] = Load{Total: l.Total + 1, Table: l.Table + 1}
		}
	}
	evenFirsts(nodes, placed)
	return placed
}

// evenFirsts turns lists until their first nodes are as even as they can be.
func evenFirsts(nodes []Node, placed [][]catalog.NodeID) {
	seats, first := make([]seat, len(placed)), map[catalog.NodeID]int{}
	for i, on := range placed {
		if len(on) > 0 {
			seats[i] = seat{at: on[0], others: on}
			first[on[0]]++
		}
	}
	count := func(n catalog.NodeID) int { return first[n] }
	for i := 0; i < len(nodes); {
		hops := chain(nodes[i].ID, seats, count)
		if hops == nil {
			i++
			continue
		}
		for _, h := range hops {
			first[seats[h.seat].at]--
			first[h.to]++
			seats[h.seat].at = h.to
		}
		i = 0
	}
	for i, on := range placed {
		for j, id := range on {
			if id == seats[i].at {
				on[0], on[j] = on[j], on[0]
				break
			}
		}
	}
}

// DefaultReplication is how many replicas a keyspace's tables have if nobody
// says otherwise.
const DefaultReplication = 3

// DefaultTablets is how many tablets a new table has if nobody says: one for
// each node, so that each leads one and waiting writes gather in few entries; at
// least three, so that a cluster that begins as one node can spread its leaders
// once it is three; at most 64.
func DefaultTablets(nodes int) int { return min(max(nodes, DefaultReplication), 64) }

// MasterFactor is how many replicas the master's group has among so many nodes:
// up to three, and five where there are five nodes. A group that has grown to
// five is not cut back when a node is missing.
func MasterFactor(nodes, voters int) int {
	if nodes >= 5 || voters >= 5 {
		return 5
	}
	return DefaultReplication
}
