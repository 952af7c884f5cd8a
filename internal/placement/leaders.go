package placement

import "github.com/braiddb/braid/internal/catalog"

// moveLeaders takes leaders from draining nodes and from replicas that are lost to their
// nodes, and then evens out what the
// nodes lead: first within each table, then overall as far as that keeps every
// table even. The master's group moves only to get off such.
func (b *balancer) moveLeaders() {
	for i := range b.c.Groups {
		g := &b.c.Groups[i]
		leader := g.leader()
		if leader == nil || b.moved[g.ID] || b.state(leader.Node) != Draining && !leader.Lost {
			continue
		}
		if heir := b.heir(g); heir != nil {
			b.transfer(g, leader, heir)
		}
	}
	movable := map[catalog.TableID][]*Group{}
	var tables []catalog.TableID
	for i := range b.c.Groups {
		g := &b.c.Groups[i]
		leader := g.leader()
		if leader == nil || g.Table == 0 || g.changing() || b.planned[g.ID] || b.state(leader.Node) != Alive {
			continue
		}
		if movable[g.Table] == nil {
			tables = append(tables, g.Table)
		}
		movable[g.Table] = append(movable[g.Table], g)
	}
	left := b.o.LeadersMax
	for _, table := range tables {
		left = b.evenTable(table, movable[table], left)
	}
	for _, table := range tables {
		left = b.evenOverall(movable[table], left)
	}
}

// evenTable moves leaders of one table along chains (see chain), one from each
// node, and returns how many more may move.
func (b *balancer) evenTable(table catalog.TableID, groups []*Group, left int) int {
	seats := make([]seat, len(groups))
	for i, g := range groups {
		seats[i].at = g.leader().Node
		for j := range g.Replicas {
			if r := &g.Replicas[j]; b.canLead(g, r) {
				seats[i].others = append(seats[i].others, r.Node)
			}
		}
	}
	count := func(n catalog.NodeID) int { return b.led.table[tableOn{table, n}] }
	for _, n := range b.c.Nodes {
		if n.State != Alive {
			continue
		}
		hops := chain(n.ID, seats, count)
		if left == 0 || (len(hops) > left && left < b.o.LeadersMax) {
			return left
		}
		// A chain moves whole: half of one is less even than none.
		left = max(left-len(hops), 0)
		for _, hop := range hops {
			g := groups[hop.seat]
			b.transfer(g, g.leader(), g.at(hop.to))
			seats[hop.seat] = seat{} // moved once
		}
	}
	return left
}

func (b *balancer) evenOverall(groups []*Group, left int) int {
	for _, g := range groups {
		if left == 0 {
			return 0
		}
		if b.moved[g.ID] {
			continue
		}
		leader, heir := g.leader(), b.heir(g)
		if heir != nil && b.led.improves(g.Table, leader.Node, heir.Node) {
			b.transfer(g, leader, heir)
			left--
		}
	}
	return left
}

// transfer asks a leader to hand over, at most once per group.
func (b *balancer) transfer(g *Group, leader, heir *Replica) {
	if b.moved[g.ID] {
		return
	}
	b.moved[g.ID] = true
	if g.Table != 0 {
		b.led.add(g.Table, leader.Node, -1)
		b.led.add(g.Table, heir.Node, 1)
	}
	b.order(TransferLeader, g, heir)
}

// heir is the one that can lead on the node that leads the least.
func (b *balancer) heir(g *Group) *Replica {
	var best *Replica
	for i := range g.Replicas {
		r := &g.Replicas[i]
		if !b.canLead(g, r) {
			continue
		}
		if best == nil || b.led.load(g.Table, r.Node).less(b.led.load(g.Table, best.Node)) {
			best = r
		}
	}
	return best
}

// canLead reports whether the group's leader may hand over to r.
func (b *balancer) canLead(g *Group, r *Replica) bool {
	return r.Voter && !r.Lost && r.ID != g.Leader && r.ID != g.Removing && b.state(r.Node) == Alive
}

func (g *Group) at(node catalog.NodeID) *Replica {
	for i := range g.Replicas {
		if g.Replicas[i].Node == node {
			return &g.Replicas[i]
		}
	}
	return nil
}

// seat is where a group is led and where it could be.
type seat struct {
	at     catalog.NodeID
	others []catalog.NodeID
}

// hop moves the leader of one seat.
type hop struct {
	seat int
	to   catalog.NodeID
}

// chain finds the fewest hops that take one leader from a node and give one to a
// node that leads at least two fewer; every node between gives one and gets one.
// A direct move need not exist where an even distribution does: n1 leads two,
// n3 none, and only n2, which leads one, has replicas of both.
func chain(from catalog.NodeID, seats []seat, count func(catalog.NodeID) int) []hop {
	type arrival struct {
		hop
		before catalog.NodeID
	}
	came := map[catalog.NodeID]arrival{from: {}}
	for queue := []catalog.NodeID{from}; len(queue) > 0; queue = queue[1:] {
		node := queue[0]
		for i, s := range seats {
			if s.at != node {
				continue
			}
			for _, to := range s.others {
				if _, seen := came[to]; seen {
					continue
				}
				came[to] = arrival{hop{i, to}, node}
				queue = append(queue, to)
				if count(from)-count(to) < 2 {
					continue
				}
				var hops []hop
				for n := to; n != from; n = came[n].before {
					hops = append([]hop{came[n].hop}, hops...)
				}
				return hops
			}
		}
	}
	return nil
}
