package master

import (
	"bytes"
	"slices"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/wire"
)

// admit gives a data directory its node id (M6). A directory that is known keeps
// its id. One that is not gets a new id, and a node that lived at its address is
// gone: its directory has been replaced, and will not come back.
func (c *change) admit(a *Admit) *wire.Error {
	n := a.GetNode()
	if len(n.GetDirectoryId()) == 0 || n.RpcAddr == "" {
		return refuse(wire.Code_CODE_INVALID, "a node that joins says its directory and its address")
	}
	if err := otherEpochs(c.next, n); err != nil {
		return err
	}
	for _, old := range c.next.Nodes {
		if bytes.Equal(old.DirectoryId, n.DirectoryId) {
			if n.Id != 0 && n.Id != old.Id {
				return refuse(wire.Code_CODE_INVALID, "the directory of node %d says that it is node %d", old.Id, n.Id)
			}
			if old.Forgotten() {
				return isForgotten(old.Id)
			}
			if n.Incarnation < old.Incarnation {
				return refuse(wire.Code_CODE_INVALID, "node %d: an older life of its directory (%d) than was seen (%d): is a copy of it in use?",
					old.Id, n.Incarnation, old.Incarnation)
			}
			c.out.Admitted = catalog.NodeID(old.Id)
			again := n.CloneVT()
			again.Id = old.Id
			c.bury(n.RpcAddr, old.Id)
			c.describe(again)
			return nil
		}
	}
	if n.Id != 0 {
		return refuse(wire.Code_CODE_INVALID, "node %d is not known with this data directory: was it made anew by hand?", n.Id)
	}
	c.bury(n.RpcAddr, 0)
	c.noteEpochs(n)
	fresh := n.CloneVT()
	fresh.Id, fresh.State = c.next.NextNodeId, catalog.NodeState_NODE_STATE_ALIVE
	c.next.NextNodeId++
	c.next.Nodes = append(c.next.Nodes, fresh)
	c.out.Admitted = catalog.NodeID(fresh.Id)
	c.changed = true
	return nil
}

// bury declares every node but one dead that had an address.
func (c *change) bury(addr string, but uint64) {
	for _, old := range c.next.Nodes {
		if old.RpcAddr == addr && old.Id != but {
			c.dead(old.Id)
		}
	}
}

// describe replaces what is known of a node by what it says of itself. Whether
// it drains is not kept: it is over with its next start.
func (c *change) describe(n *catalog.Node) {
	for i, old := range c.next.Nodes {
		if old.Id != n.GetId() {
			continue
		}
		if !bytes.Equal(old.DirectoryId, n.DirectoryId) || n.Incarnation < old.Incarnation || old.Forgotten() || otherEpochs(c.next, n) != nil {
			return
		}
		c.noteEpochs(n)
		now := n.CloneVT()
		now.State = catalog.NodeState_NODE_STATE_ALIVE
		if !now.EqualVT(old) {
			c.next.Nodes[i] = now
			c.changed = true
		}
		return
	}
}

func (c *change) dead(id uint64) {
	if n := c.node(id); n != nil && !n.Gone() {
		c.setState(n, catalog.NodeState_NODE_STATE_DEAD)
	}
}

func (c *change) setState(n *catalog.Node, to catalog.NodeState) {
	now := n.CloneVT()
	now.State = to
	c.next.Nodes[slices.Index(c.next.Nodes, n)] = now
	c.changed = true
}

// group is the descriptor of a group in the version being made.
func (c *change) group(id uint64) *catalog.Tablet {
	if id == uint64(catalog.MasterGroup) {
		return c.next.MasterTablet()
	}
	if t := c.was.Group(catalog.GroupID(id)); t == nil || !c.changed {
		return t
	}
	for _, t := range c.next.Tablets {
		if t.Id == id {
			return t
		}
	}
	return nil
}

func (c *change) setGroup(t *catalog.Tablet) {
	t.Version++
	c.next.SetGroup(t)
	c.changed = true
}

// plan records what the balancer wants, if the group is still as it saw it.
func (c *change) plan(p *Plan) {
	old := c.group(p.GetGroup())
	if old == nil || old.Version != p.BasedOn {
		return
	}
	t := old.CloneVT()
	idle := t.Adding == nil && t.Removing == 0
	victim := t.Replica(catalog.ReplicaID(p.Replica))
	switch p.Kind {
	case Plan_KIND_ADD, Plan_KIND_REPLACE:
		node := c.node(p.Node)
		if t.Changing() || node == nil || node.Gone() || t.ReplicaOn(catalog.NodeID(p.Node)) != nil {
			return
		}
		if p.Kind == Plan_KIND_REPLACE {
			if victim == nil {
				return
			}
			t.Removing = victim.Id
		}
		t.Adding = &catalog.Replica{Id: c.next.NextReplicaId, Node: p.Node, Role: catalog.Role_ROLE_LEARNER}
		c.next.NextReplicaId++
	case Plan_KIND_REMOVE:
		if !idle || victim == nil {
			return
		}
		t.Removing = victim.Id
	case Plan_KIND_CANCEL:
		if idle {
			return
		}
		t.Adding, t.Removing = nil, 0
	default:
		return
	}
	c.setGroup(t)
}

func (c *change) node(id uint64) *catalog.Node {
	for _, n := range c.next.Nodes {
		if n.Id == id {
			return n
		}
	}
	return nil
}

// observe takes over what a group's configuration is (M5), and drops what was
// planned as far as it is done.
func (c *change) observe(o *Observed) {
	old := c.group(o.GetGroup())
	if old == nil || !news(old, o) || !c.possible(old, o) {
		return
	}
	t := old.CloneVT()
	t.ConfigIndex = o.Applied
	t.Replicas = make([]*catalog.Replica, 0, len(o.Config))
	for _, r := range o.Config {
		t.Replicas = append(t.Replicas, &catalog.Replica{Id: r.Id, Node: r.Node, Role: r.Role})
	}
	slices.SortFunc(t.Replicas, func(a, b *catalog.Replica) int { return int(int64(a.Id) - int64(b.Id)) })
	in := func(id uint64) bool {
		return slices.ContainsFunc(t.Replicas, func(r *catalog.Replica) bool { return r.Id == id })
	}
	if t.Adding != nil {
		node := t.Adding.Node
		if slices.ContainsFunc(t.Replicas, func(r *catalog.Replica) bool { return r.Node == node }) {
			t.Adding = nil
		}
	}
	if t.Removing != 0 && !in(t.Removing) {
		t.Removing = 0
	}
	c.setGroup(t)
}

// news reports whether an observation says what the catalog does not, and was
// made later.
func news(t *catalog.Tablet, o *Observed) bool {
	if o.Applied == 0 || o.Applied <= t.ConfigIndex {
		return false
	}
	return t.ConfigIndex == 0 || !sameReplicas(t.Replicas, o.Config)
}

func sameReplicas(a, b []*catalog.Replica) bool {
	if len(a) != len(b) {
		return false
	}
	for _, r := range a {
		if !slices.ContainsFunc(b, func(s *catalog.Replica) bool { return r.EqualVT(s) }) {
			return false
		}
	}
	return true
}

// possible refuses a configuration that no group of this cluster can have, so
// that one mistaken report spoils neither the catalog nor the rest of a command.
func (c *change) possible(t *catalog.Tablet, o *Observed) bool {
	voters := 0
	for i, r := range o.Config {
		if r.GetId() == 0 || r.Id >= c.next.NextReplicaId || c.node(r.Node) == nil {
			return false
		}
		if r.Role != catalog.Role_ROLE_VOTER && r.Role != catalog.Role_ROLE_LEARNER {
			return false
		}
		if r.Role == catalog.Role_ROLE_VOTER {
			voters++
		}
		for _, s := range o.Config[:i] {
			if s.Id == r.Id || s.Node == r.Node {
				return false
			}
		}
		if t.Replica(catalog.ReplicaID(r.Id)) == nil && c.elsewhere(t.Id, r.Id) {
			return false
		}
	}
	return voters > 0
}

// elsewhere reports whether a replica id belongs to another group.
func (c *change) elsewhere(group, replica uint64) bool {
	if group != uint64(catalog.MasterGroup) && c.next.MasterTablet().Replica(catalog.ReplicaID(replica)) != nil {
		return true
	}
	for _, t := range c.next.Tablets {
		if t.Id != group && t.Replica(catalog.ReplicaID(replica)) != nil {
			return true
		}
	}
	return false
}

// tablesRunning turns tables from creating to running whose every tablet has
// been seen with a leader.
func (c *change) tablesRunning() {
	waiting := map[uint32]bool{}
	for _, t := range c.next.Tablets {
		waiting[t.Table] = waiting[t.Table] || t.ConfigIndex == 0
	}
	for i, table := range c.next.Tables {
		if table.State == catalog.TableState_TABLE_STATE_CREATING && !waiting[table.Id] {
			running := table.CloneVT()
			running.State = catalog.TableState_TABLE_STATE_RUNNING
			c.next.Tables[i] = running
			c.changed = true
		}
	}
}
