package placement

import (
	"strings"

	"github.com/braiddb/braid/internal/catalog"
)

// State is what is known of a node.
type State uint8

const (
	// Alive nodes are heard from and take replicas and leaders.
	Alive State = iota
	// Draining nodes are about to stop: they take nothing new and give up their leaders.
	Draining
	// Silent nodes have not been heard from for a moment. They take nothing new; what they hold still counts.
	Silent
	// Dead nodes have been declared so. What they hold is replaced, and kept until it is.
	Dead
	// Gone nodes will not come back: their directory was replaced by another. What they hold is given up.
	Gone
)

func (s State) String() string {
	return [...]string{"alive", "draining", "silent", "dead", "gone"}[s]
}

// Node is a place for replicas.
type Node struct {
	ID       catalog.NodeID
	Location string // "region/zone/rack"; empty shares nothing with anybody
	State    State
	Roles    uint32 // bits of catalog.Role*; 0 means all
}

func (n *Node) has(role uint32) bool { return n.Roles == 0 || n.Roles&role != 0 }

// Fit is the nodes that take replicas of groups of a role, catalog.RoleMaster or
// catalog.RoleTablet: those that have it. A cluster keeps a catalog and tables
// whatever its nodes were started as, so where none that may come back has the
// role, those with the storage role stand in, and where there are none either,
// all do.
func Fit(nodes []Node, role uint32) []Node {
	for _, r := range []uint32{role, catalog.RoleStorage} {
		var fit []Node
		present := false
		for i := range nodes {
			if nodes[i].has(r) {
				fit = append(fit, nodes[i])
				present = present || nodes[i].State < Dead
			}
		}
		if present {
			return fit
		}
	}
	return nodes
}

// Replica is one copy of a group.
type Replica struct {
	ID       catalog.ReplicaID
	Node     catalog.NodeID
	Voter    bool
	Lost     bool // its node lives and says that it cannot serve this replica any more, or not all of it
	CaughtUp bool // a learner that its leader finds fit to be promoted
}

// Group is one Raft group as the catalog describes it and its leader sees it.
type Group struct {
	ID       catalog.GroupID
	Table    catalog.TableID // 0: the master's group
	Version  uint64          // of the descriptor that a plan is made on
	Factor   int
	Replicas []Replica
	Adding   *Replica
	Removing catalog.ReplicaID
	Leader   catalog.ReplicaID // 0: none is known
}

// role is what a node is to have that takes replicas of the group.
func (g *Group) role() uint32 {
	if g.Table == 0 {
		return catalog.RoleMaster
	}
	return catalog.RoleTablet
}

// Cluster is all that a decision depends on. Nodes and groups are sorted by id.
type Cluster struct {
	Nodes  []Node
	Groups []Group
}

// Kind of a step.
type Kind uint8

const (
	// PlanAdd wants a replica on Node.
	PlanAdd Kind = iota + 1
	// PlanReplace wants a replica on Node and then Replica removed.
	PlanReplace
	// PlanRemove wants Replica removed.
	PlanRemove
	// PlanCancel gives up what is planned for the group.
	PlanCancel
	// AddLearner, Promote, RemoveReplica and TransferLeader are for the leader, on the node To.
	AddLearner
	Promote
	RemoveReplica
	TransferLeader
)

func (k Kind) String() string {
	return [...]string{"none", "plan-add", "plan-replace", "plan-remove", "plan-cancel",
		"add-learner", "promote", "remove", "transfer-leader"}[k]
}

// Step is one thing to do for one group.
type Step struct {
	Kind    Kind
	Group   catalog.GroupID
	Version uint64            // plans: of the descriptor that the plan is made on
	Node    catalog.NodeID    // plans: where the new replica goes; else: where Replica is
	Replica catalog.ReplicaID // whom it is about; 0 in PlanAdd and PlanCancel
	To      catalog.NodeID    // where the leader is that carries it out; 0 for plans
}

// changing reports whether anything is planned or under way.
func (g *Group) changing() bool { return g.Adding != nil || g.Removing != 0 || g.learner() != nil }

func (g *Group) learner() *Replica {
	for i := range g.Replicas {
		if !g.Replicas[i].Voter {
			return &g.Replicas[i]
		}
	}
	return nil
}

func (g *Group) replica(id catalog.ReplicaID) *Replica {
	for i := range g.Replicas {
		if g.Replicas[i].ID == id {
			return &g.Replicas[i]
		}
	}
	return nil
}

// on reports whether a node holds a replica of the group or is to get one.
func (g *Group) on(node catalog.NodeID) bool {
	for i := range g.Replicas {
		if g.Replicas[i].Node == node {
			return true
		}
	}
	return g.Adding != nil && g.Adding.Node == node
}

// sharing says how many leading parts of their locations two nodes have in
// common; the deeper, the likelier they fail together.
func sharing(a, b string) int {
	if a == "" || b == "" {
		return 0
	}
	as, bs := strings.Split(a, "/"), strings.Split(b, "/")
	n := 0
	for n < len(as) && n < len(bs) && as[n] == bs[n] {
		n++
	}
	return n
}

// penalty of holding two replicas of one group on two nodes. Sharing a rack is
// worse than any number of shared zones in a group of up to nine replicas (36
// pairs), and so on, hence the base.
func penalty(a, b string) int64 {
	p := int64(0)
	for range min(sharing(a, b), 8) {
		p = p*64 + 1
	}
	return p
}
