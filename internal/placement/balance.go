package placement

import "github.com/braiddb/braid/internal/catalog"

// Options bound how much is moved at once. Zero means the default.
type Options struct {
	ChangesMax  int // groups whose replicas change at the same time; 16
	IncomingMax int // of them, groups that a node is getting a replica of; 4
	LeadersMax  int // leaders moved for balance at the same time, or one chain of moves if that is longer; 8
}

func (o Options) withDefaults() Options {
	if o.ChangesMax == 0 {
		o.ChangesMax = 16
	}
	if o.IncomingMax == 0 {
		o.IncomingMax = 4
	}
	if o.LeadersMax == 0 {
		o.LeadersMax = 8
	}
	return o
}

// Balance gives every group's next step: what is under way goes on, then what is
// missing or broken is repaired, then replicas and leaders are spread. Groups
// without a known leader cannot change and are left alone.
func Balance(c *Cluster, o Options) []Step {
	b := newBalancer(c, o.withDefaults())
	for i := range c.Groups {
		b.proceed(&c.Groups[i])
	}
	for i := range c.Groups {
		if g := &c.Groups[i]; !g.changing() {
			b.repair(g)
		}
	}
	for i := range c.Groups {
		if g := &c.Groups[i]; !g.changing() && !b.planned[g.ID] {
			b.spread(g)
		}
	}
	b.moveLeaders()
	return b.steps
}

type balancer struct {
	c *Cluster
	o Options

	nodes    map[catalog.NodeID]*Node
	fit      map[uint32]map[catalog.NodeID]bool // by role, see Fit
	held     tally                              // replicas as they will be once every plan is carried out
	led      tally                              // leaders of tablets as they are
	incoming map[catalog.NodeID]int
	spoilt   map[catalog.NodeID]bool // nodes that a lost replica is about to leave
	changes  int
	planned  map[catalog.GroupID]bool
	moved    map[catalog.GroupID]bool // leaders

	steps []Step
}

// tally counts per node, and per node and table.
type tally struct {
	total map[catalog.NodeID]int
	table map[tableOn]int
}

type tableOn struct {
	table catalog.TableID
	node  catalog.NodeID
}

func newTally() tally { return tally{map[catalog.NodeID]int{}, map[tableOn]int{}} }

func (t tally) add(table catalog.TableID, node catalog.NodeID, n int) {
	t.total[node] += n
	t.table[tableOn{table, node}] += n
}

// improves reports whether one less on from and one more on to is more even, in
// the order of P3.
func (t tally) improves(table catalog.TableID, from, to catalog.NodeID) bool {
	inTable := t.table[tableOn{table, from}] - t.table[tableOn{table, to}]
	return inTable >= 2 || (inTable == 1 && t.total[from]-t.total[to] >= 2)
}

func (t tally) load(table catalog.TableID, node catalog.NodeID) Load {
	return Load{Total: t.total[node], Table: t.table[tableOn{table, node}]}
}

func newBalancer(c *Cluster, o Options) *balancer {
	b := &balancer{
		c: c, o: o,
		nodes: make(map[catalog.NodeID]*Node, len(c.Nodes)),
		held:  newTally(), led: newTally(),
		incoming: map[catalog.NodeID]int{},
		spoilt:   map[catalog.NodeID]bool{},
		planned:  map[catalog.GroupID]bool{},
		moved:    map[catalog.GroupID]bool{},
	}
	for i := range c.Nodes {
		b.nodes[c.Nodes[i].ID] = &c.Nodes[i]
	}
	b.fit = map[uint32]map[catalog.NodeID]bool{}
	for _, role := range []uint32{catalog.RoleMaster, catalog.RoleTablet} {
		b.fit[role] = map[catalog.NodeID]bool{}
		for _, n := range Fit(c.Nodes, role) {
			b.fit[role][n.ID] = true
		}
	}
	for i := range c.Groups {
		g := &c.Groups[i]
		for j := range g.Replicas {
			r := &g.Replicas[j]
			if r.Lost && g.leader() != nil && b.safeWithout(g, r) {
				b.spoilt[r.Node] = true
			}
			if r.ID != g.Removing {
				b.held.add(g.Table, r.Node, 1)
			}
			if r.ID == g.Leader && g.Table != 0 {
				b.led.add(g.Table, r.Node, 1)
			}
		}
		if g.Adding != nil {
			b.held.add(g.Table, g.Adding.Node, 1)
		}
	}
	return b
}

func (b *balancer) state(id catalog.NodeID) State {
	if n := b.nodes[id]; n != nil {
		return n.State
	}
	return Gone
}

// fits reports whether a node takes replicas of the group.
func (b *balancer) fits(g *Group, node catalog.NodeID) bool { return b.fit[g.role()][node] }

// takes reports whether a replica of the group may be put on a node (P6).
func (b *balancer) takes(n *Node, g *Group) bool {
	return n.State == Alive && !g.on(n.ID) && b.fits(g, n.ID) && !b.spoilt[n.ID]
}

// bad reports whether a replica is to be replaced.
func (b *balancer) bad(r *Replica) bool { return r.Lost || b.state(r.Node) >= Dead }

// reachable reports whether a replica takes part at this moment.
func (b *balancer) reachable(r *Replica) bool { return !r.Lost && b.state(r.Node) <= Draining }

// sound counts the voters that are not to be replaced.
func (b *balancer) sound(g *Group) int {
	n := 0
	for i := range g.Replicas {
		if r := &g.Replicas[i]; r.Voter && !b.bad(r) {
			n++
		}
	}
	return n
}

// safeWithout is P2.
func (b *balancer) safeWithout(g *Group, victim *Replica) bool {
	voters, reachable := 0, 0
	for i := range g.Replicas {
		r := &g.Replicas[i]
		if !r.Voter || r.ID == victim.ID {
			continue
		}
		voters++
		if b.reachable(r) {
			reachable++
		}
	}
	return voters > 0 && reachable >= voters/2+1
}

// leader is the leader's replica, or nil if none is known.
func (g *Group) leader() *Replica {
	if g.Leader == 0 {
		return nil
	}
	return g.replica(g.Leader)
}

// order gives a step to the group's leader.
func (b *balancer) order(kind Kind, g *Group, r *Replica) {
	b.steps = append(b.steps, Step{Kind: kind, Group: g.ID, Node: r.Node, Replica: r.ID, To: g.leader().Node})
}

// plan records what is wanted, in the tallies too.
func (b *balancer) plan(kind Kind, g *Group, node catalog.NodeID, victim *Replica) {
	s := Step{Kind: kind, Group: g.ID, Version: g.Version, Node: node}
	if victim != nil {
		s.Replica = victim.ID
		b.held.add(g.Table, victim.Node, -1)
	}
	if kind == PlanAdd || kind == PlanReplace {
		b.held.add(g.Table, node, 1)
		b.incoming[node]++
	}
	b.changes++
	b.planned[g.ID] = true
	b.steps = append(b.steps, s)
}

// proceed takes a change that is under way one step further, or gives it up when
// what it was for has failed.
func (b *balancer) proceed(g *Group) {
	if !g.changing() || g.leader() == nil {
		return
	}
	b.changes++
	switch learner := g.learner(); {
	case g.Adding != nil && b.bad(g.Adding):
		b.cancel(g)
	case g.Adding != nil:
		b.incoming[g.Adding.Node]++
		b.order(AddLearner, g, g.Adding)
	case learner != nil && learner.ID == g.Removing:
		b.order(RemoveReplica, g, learner)
	case learner != nil && b.bad(learner):
		if g.Removing != 0 { // what it was to replace stays
			b.cancel(g)
			return
		}
		b.plan(PlanRemove, g, learner.Node, learner)
	case learner != nil:
		b.incoming[learner.Node]++
		if learner.CaughtUp {
			b.promote(g, learner)
		}
	default:
		b.remove(g)
	}
}

// promote makes a learner a voter. One that is to be replaced because it is gone or dead
// leaves before (P4): beside it the new one would make a majority larger by one, and the
// next node that dies would take the group with it.
func (b *balancer) promote(g *Group, learner *Replica) {
	if victim := g.replica(g.Removing); victim != nil && b.bad(victim) && b.safeWithout(g, victim) {
		b.remove(g)
		return
	}
	b.order(Promote, g, learner)
}

func (b *balancer) cancel(g *Group) {
	b.planned[g.ID] = true
	b.steps = append(b.steps, Step{Kind: PlanCancel, Group: g.ID, Version: g.Version})
}

// remove carries out a planned removal, once it is safe and unless a failure
// since has made the victim needed.
func (b *balancer) remove(g *Group) {
	victim := g.replica(g.Removing)
	if victim == nil {
		b.cancel(g)
		return
	}
	safe := b.safeWithout(g, victim)
	if !b.bad(victim) && (!safe || b.sound(g)-1 < g.Factor) {
		b.cancel(g)
		return
	}
	if !safe {
		return
	}
	if victim.ID == g.Leader {
		if heir := b.heir(g); heir != nil {
			b.transfer(g, victim, heir)
		}
		return
	}
	b.order(RemoveReplica, g, victim)
}

// repair plans what the group lacks or has too much of.
func (b *balancer) repair(g *Group) {
	if g.leader() == nil || b.changes >= b.o.ChangesMax {
		return
	}
	broken := b.broken(g)
	switch sound := b.sound(g); {
	case sound < g.Factor:
		if node := b.candidate(g, broken); node != nil {
			switch {
			case b.incoming[node.ID] >= b.o.IncomingMax: // its turn comes
			case broken != nil:
				b.plan(PlanReplace, g, node.ID, broken)
			default:
				b.plan(PlanAdd, g, node.ID, nil)
			}
			return
		}
		// There is no other node to put it on. One that will never serve again is
		// taken out, so that its place can be used; a dead node's may yet come back
		// and is worth more in the configuration than out of it.
		if broken != nil && (broken.Lost || b.state(broken.Node) == Gone) && b.safeWithout(g, broken) {
			b.plan(PlanRemove, g, broken.Node, broken)
		}
	case broken != nil:
		if b.safeWithout(g, broken) {
			b.plan(PlanRemove, g, broken.Node, broken)
		}
	case sound > g.Factor:
		if victim := b.surplus(g); victim != nil && b.safeWithout(g, victim) {
			b.plan(PlanRemove, g, victim.Node, victim)
		}
	}
}

// broken is the voter that is most in need of replacement: one that can never
// serve again before one that may.
func (b *balancer) broken(g *Group) *Replica {
	var found *Replica
	for i := range g.Replicas {
		r := &g.Replicas[i]
		if !b.bad(r) {
			continue
		}
		if r.Lost || b.state(r.Node) == Gone {
			return r
		}
		if found == nil {
			found = r
		}
	}
	return found
}

// beside is the nodes of a group's replicas that stay.
func (b *balancer) beside(g *Group, without *Replica) []Node {
	var nodes []Node
	for i := range g.Replicas {
		r := &g.Replicas[i]
		if (without == nil || r.ID != without.ID) && !b.bad(r) {
			nodes = append(nodes, *b.nodes[r.Node])
		}
	}
	return nodes
}

// candidate is the best node for one more replica of the group.
func (b *balancer) candidate(g *Group, without *Replica) *Node {
	var best *Node
	var bestPenalty int64
	beside := b.beside(g, without)
	for i := range b.c.Nodes {
		n := &b.c.Nodes[i]
		if !b.takes(n, g) {
			continue
		}
		p := sharedBy(n.Location, beside)
		if best == nil || p < bestPenalty ||
			(p == bestPenalty && b.held.load(g.Table, n.ID).less(b.held.load(g.Table, best.ID))) {
			best, bestPenalty = n, p
		}
	}
	return best
}

// surplus is the voter that is missed the least: the one that shares most with
// the others, then on the fullest node, and not the leader if there is a choice.
func (b *balancer) surplus(g *Group) *Replica {
	var worst *Replica
	var worstPenalty int64
	for i := range g.Replicas {
		r := &g.Replicas[i]
		p := sharedBy(b.nodes[r.Node].Location, b.beside(g, r)) + b.misplaced(g, r)
		if worst == nil || p > worstPenalty || (p == worstPenalty && b.fuller(g, r, worst)) {
			worst, worstPenalty = r, p
		}
	}
	return worst
}

func (b *balancer) fuller(g *Group, r, than *Replica) bool {
	lr, lt := b.held.load(g.Table, r.Node), b.held.load(g.Table, than.Node)
	if lr != lt {
		return lt.less(lr)
	}
	return than.ID == g.Leader
}

// misplaced is what it costs that a replica is on a node that does not take such:
// more than sharing everything with all others of its group.
func (b *balancer) misplaced(g *Group, r *Replica) int64 {
	if b.fits(g, r.Node) {
		return 0
	}
	return 1 << 56
}

// spread plans the exchange of one replica that lowers what P3 names the most in
// its first terms, or else the load.
func (b *balancer) spread(g *Group) {
	if g.leader() == nil || b.changes >= b.o.ChangesMax || b.sound(g) != g.Factor || b.broken(g) != nil {
		return
	}
	var victim *Replica
	var target *Node
	var bestGain int64 = -1
	for i := range g.Replicas {
		r := &g.Replicas[i]
		if b.state(r.Node) != Alive {
			continue
		}
		beside := b.beside(g, r)
		now := sharedBy(b.nodes[r.Node].Location, beside) + b.misplaced(g, r)
		for j := range b.c.Nodes {
			n := &b.c.Nodes[j]
			if !b.takes(n, g) || b.incoming[n.ID] >= b.o.IncomingMax {
				continue
			}
			gain := now - sharedBy(n.Location, beside)
			if gain < 0 || (gain == 0 && !b.held.improves(g.Table, r.Node, n.ID)) {
				continue
			}
			if gain > bestGain || (gain == bestGain && b.betterPair(g, r, n, victim, target)) {
				victim, target, bestGain = r, n, gain
			}
		}
	}
	if victim != nil {
		b.plan(PlanReplace, g, target.ID, victim)
	}
}

// betterPair prefers the emptier target, then the fuller source.
func (b *balancer) betterPair(g *Group, r *Replica, n *Node, victim *Replica, target *Node) bool {
	ln, lt := b.held.load(g.Table, n.ID), b.held.load(g.Table, target.ID)
	if ln != lt {
		return ln.less(lt)
	}
	return b.fuller(g, r, victim)
}
