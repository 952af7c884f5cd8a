package master

import (
	"slices"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/placement"
	"github.com/braiddb/braid/internal/wire"
)

// Tick takes what was reported since, proposes the changes of the catalog that
// follow from it, and sets out what each node is to do. Call it about as often
// as nodes send heartbeats.
func (m *Master) Tick(now time.Duration) {
	if m.leading(now) != nil {
		return
	}
	x := m.d.Index()
	if x.Version() == 0 {
		if m.d.Founding != nil && m.beginTick() {
			m.propose(&Command{Found: &Found{Catalog: m.d.Founding}}, func(Applied) { m.endTick() })
		}
		return
	}
	seen := m.look(now, x)
	if m.seenBefore(seen) {
		return
	}
	m.mu.Lock()
	cmd := &Command{
		Nodes: m.describedLocked(now, x), Dead: m.deadLocked(now, x), Observed: m.observedLocked(x),
	}
	m.mu.Unlock()
	var moves map[catalog.NodeID][]*wire.Move
	if seen.settled {
		cmd.Plans, moves = m.balance(now, x)
	}
	proposes := len(cmd.Nodes)+len(cmd.Dead)+len(cmd.Observed)+len(cmd.Plans) > 0
	m.mu.Lock()
	m.mu.moves = moves
	m.alterationsLocked(now, x)
	if !proposes {
		m.mu.looked = seen
	}
	m.mu.Unlock()
	if proposes && m.beginTick() {
		m.propose(cmd, func(Applied) { m.endTick() })
	}
}

// look is what a tick's decisions depend on. A tick that sees what the one before
// it saw, which had nothing to propose, would hand out the same moves: it is
// spared, since with thousands of tablets looking at all of them costs more than
// an idle cluster should.
type look struct {
	version, news uint64
	settled       bool
	nodes         []placement.Node
	at            time.Duration
}

// lookEvery is how long a look lasts at most: it leaves out that an applied index
// alone can make a report count (M5).
const lookEvery = 5 * time.Second

func (m *Master) look(now time.Duration, x *catalog.Index) look {
	l := look{version: x.Version(), settled: m.settled(now, x), nodes: m.nodes(now, x), at: now}
	m.mu.Lock()
	l.news = m.mu.news
	m.mu.Unlock()
	return l
}

func (m *Master) seenBefore(l look) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	was := m.mu.looked
	m.mu.looked = look{} // until this tick is done without a proposal
	if l.version != was.version || l.news != was.news || l.settled != was.settled || l.at-was.at >= lookEvery ||
		!slices.Equal(l.nodes, was.nodes) || len(m.deadLocked(l.at, m.d.Index())) > 0 {
		return false
	}
	m.mu.looked = was
	return true
}

// beginTick keeps ticks from proposing what the one before has on its way.
func (m *Master) beginTick() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	was := m.mu.ticking
	m.mu.ticking = true
	return !was
}

func (m *Master) endTick() {
	m.mu.Lock()
	m.mu.ticking = false
	m.mu.Unlock()
}

// describedLocked is the nodes that say of themselves what the catalog does not.
// What a node said before it fell silent does not bring it back to life.
func (m *Master) describedLocked(now time.Duration, x *catalog.Index) (changed []*catalog.Node) {
	for _, known := range x.Catalog().Nodes {
		b := m.mu.beats[catalog.NodeID(known.Id)]
		if b == nil || now-b.at >= m.o.SilentAfter {
			continue
		}
		said := b.node.CloneVT()
		said.State = catalog.NodeState_NODE_STATE_ALIVE
		if !said.EqualVT(known) {
			changed = append(changed, said)
		}
	}
	return changed
}

// deadLocked is the nodes that have been silent for too long, counted from when
// this leader began to listen.
func (m *Master) deadLocked(now time.Duration, x *catalog.Index) (dead []uint64) {
	for _, n := range x.Catalog().Nodes {
		if !n.Gone() && now-m.heardLocked(catalog.NodeID(n.Id)) >= m.o.DeadAfter {
			dead = append(dead, n.Id)
		}
	}
	return dead
}

func (m *Master) heardLocked(id catalog.NodeID) time.Duration {
	if b := m.mu.beats[id]; b != nil {
		return b.at
	}
	return m.mu.since
}

// observedLocked is, for each group, the newest configuration reported, where it
// says what the catalog does not.
func (m *Master) observedLocked(x *catalog.Index) (list []*Observed) {
	for _, g := range groupsOf(x) {
		var newest *wire.ReplicaReport
		for _, n := range x.Catalog().Nodes {
			b := m.mu.beats[catalog.NodeID(n.Id)]
			if b == nil {
				continue
			}
			r := b.reports[catalog.GroupID(g.Id)]
			if r != nil && len(r.Config) > 0 && (newest == nil || r.Applied > newest.Applied) {
				newest = r
			}
		}
		if newest == nil {
			continue
		}
		o := &Observed{Group: g.Id, Applied: newest.Applied, Config: newest.Config}
		if news(g, o) {
			list = append(list, o)
		}
	}
	return list
}

// settled reports whether enough is known to plan by.
func (m *Master) settled(now time.Duration, x *catalog.Index) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now-m.mu.since >= m.o.SettleAfter {
		return true
	}
	for _, n := range x.Catalog().Nodes {
		if !n.Gone() && m.mu.beats[catalog.NodeID(n.Id)] == nil {
			return false
		}
	}
	return true
}

// expects reports whether a node that may be alive was not heard from yet, since this
// leader has not listened for long enough to call it silent. What is placed meanwhile
// would be on fewer nodes than there are: a table of two copies loses its quorum with
// one disk.
func (m *Master) expects(now time.Duration, x *catalog.Index) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return now-m.mu.since < m.o.SilentAfter && slices.ContainsFunc(x.Catalog().Nodes, func(n *catalog.Node) bool {
		return !n.Gone() && m.mu.beats[catalog.NodeID(n.Id)] == nil
	})
}

// nodes is the cluster's nodes as placement sees them.
func (m *Master) nodes(now time.Duration, x *catalog.Index) []placement.Node {
	m.mu.Lock()
	defer m.mu.Unlock()
	lives := map[string]bool{}
	for _, n := range x.Catalog().Nodes {
		if !n.Gone() {
			lives[n.RpcAddr] = true
		}
	}
	var nodes []placement.Node
	for _, n := range x.Catalog().Nodes {
		id := catalog.NodeID(n.Id)
		node := placement.Node{ID: id, Location: n.Location, Roles: n.Roles}
		b := m.mu.beats[id]
		switch {
		case n.Forgotten() || n.Gone() && lives[n.RpcAddr]:
			node.State = placement.Gone // another directory lives at its address
		case n.Gone():
			node.State = placement.Dead
		case b == nil || now-b.at >= m.o.SilentAfter:
			node.State = placement.Silent
		case b.node.State == catalog.NodeState_NODE_STATE_DRAINING:
			node.State = placement.Draining
		}
		nodes = append(nodes, node)
	}
	slices.SortFunc(nodes, func(a, b placement.Node) int { return int(int64(a.ID) - int64(b.ID)) })
	return nodes
}

// lead is a group's leader as it was last reported.
type lead struct {
	node   catalog.NodeID
	report *wire.ReplicaReport
}

// leadersLocked is who leads what: the report of the highest term, of nodes that
// are heard from.
func (m *Master) leadersLocked(now time.Duration) map[catalog.GroupID]lead {
	leaders := map[catalog.GroupID]lead{}
	for id, b := range m.mu.beats {
		if now-b.at >= m.o.SilentAfter {
			continue
		}
		for g, r := range b.reports {
			if old, ok := leaders[g]; r.Leader && (!ok || r.Term > old.report.Term) {
				leaders[g] = lead{id, r}
			}
		}
	}
	return leaders
}

// cluster is what placement decides by.
func (m *Master) cluster(now time.Duration, x *catalog.Index) *placement.Cluster {
	c := &placement.Cluster{Nodes: m.nodes(now, x)}
	present := 0
	for _, n := range placement.Fit(c.Nodes, catalog.RoleMaster) {
		if n.State < placement.Dead {
			present++
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	leaders := m.leadersLocked(now)
	for _, t := range groupsOf(x) {
		g := placement.Group{
			ID: catalog.GroupID(t.Id), Table: catalog.TableID(t.Table), Version: t.Version,
			Removing: catalog.ReplicaID(t.Removing),
			Factor:   int(x.Table(catalog.TableID(t.Table)).GetReplicationFactor()),
		}
		if g.ID == catalog.MasterGroup {
			g.Factor = placement.MasterFactor(present, len(t.Replicas))
		}
		l := leaders[g.ID]
		for _, r := range t.Replicas {
			g.Replicas = append(g.Replicas, m.replicaLocked(g.ID, r, l.report))
		}
		if t.Adding != nil {
			adding := m.replicaLocked(g.ID, t.Adding, l.report)
			g.Adding = &adding
		}
		if l.report != nil {
			g.Leader = catalog.ReplicaID(l.report.Replica)
		}
		c.Groups = append(c.Groups, g)
	}
	slices.SortFunc(c.Groups, func(a, b placement.Group) int { return int(int64(a.ID) - int64(b.ID)) })
	return c
}

func (m *Master) replicaLocked(g catalog.GroupID, r *catalog.Replica, leader *wire.ReplicaReport) placement.Replica {
	p := placement.Replica{
		ID: catalog.ReplicaID(r.Id), Node: catalog.NodeID(r.Node), Voter: r.Role == catalog.Role_ROLE_VOTER,
		CaughtUp: slices.Contains(leader.GetCaughtUpLearners(), r.Id),
	}
	if b := m.mu.beats[p.Node]; b != nil {
		own := b.reports[g]
		p.Lost = own.GetReplica() == r.Id && own.GetCorrupt()
	}
	return p
}

// balance turns placement's steps into plans to propose and moves to hand out.
func (m *Master) balance(now time.Duration, x *catalog.Index) ([]*Plan, map[catalog.NodeID][]*wire.Move) {
	var plans []*Plan
	moves := map[catalog.NodeID][]*wire.Move{}
	for _, s := range placement.Balance(m.cluster(now, x), m.o.Moves) {
		if kind, ok := planKinds[s.Kind]; ok {
			plans = append(plans, &Plan{
				Kind: kind, Group: uint64(s.Group), BasedOn: s.Version, Node: uint64(s.Node), Replica: uint64(s.Replica),
			})
			continue
		}
		move := &wire.Move{
			Kind: moveKinds[s.Kind], Group: uint64(s.Group),
			Replica: &catalog.Replica{Id: uint64(s.Replica), Node: uint64(s.Node), Role: catalog.Role_ROLE_LEARNER},
		}
		if s.Kind != placement.AddLearner {
			move.Replica = x.Group(s.Group).Replica(s.Replica)
		}
		moves[s.To] = append(moves[s.To], move)
	}
	return plans, moves
}

var planKinds = map[placement.Kind]Plan_Kind{
	placement.PlanAdd:     Plan_KIND_ADD,
	placement.PlanReplace: Plan_KIND_REPLACE,
	placement.PlanRemove:  Plan_KIND_REMOVE,
	placement.PlanCancel:  Plan_KIND_CANCEL,
}

var moveKinds = map[placement.Kind]wire.Move_Kind{
	placement.AddLearner:     wire.Move_KIND_ADD_LEARNER,
	placement.Promote:        wire.Move_KIND_PROMOTE,
	placement.RemoveReplica:  wire.Move_KIND_REMOVE_REPLICA,
	placement.TransferLeader: wire.Move_KIND_TRANSFER_LEADER,
}

// alterationsLocked adds a move for every tablet whose leader has an older schema
// than the catalog.
func (m *Master) alterationsLocked(now time.Duration, x *catalog.Index) {
	if m.mu.moves == nil {
		m.mu.moves = map[catalog.NodeID][]*wire.Move{}
	}
	leaders := m.leadersLocked(now)
	for _, t := range x.Catalog().Tablets {
		l, ok := leaders[catalog.GroupID(t.Id)]
		table := x.Table(catalog.TableID(t.Table))
		if ok && l.report.SchemaVersion < table.GetSchema().GetVersion() {
			m.mu.moves[l.node] = append(m.mu.moves[l.node], &wire.Move{
				Kind: wire.Move_KIND_ALTER_SCHEMA, Group: t.Id, Tablet: t, Table: table,
			})
		}
	}
}
