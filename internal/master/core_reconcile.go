package master

import (
	"slices"

	"github.com/braiddb/braid/internal/catalog"
)

// Local is what a node holds of one group.
type Local struct {
	Group   catalog.GroupID
	Replica catalog.ReplicaID // 0: none at present
	// Dropped is the highest replica id of the group that this node has ever
	// destroyed, 0 if none. The node records it durably with the destruction (M7)
	// and may forget it once the group itself is in no catalog any more.
	Dropped catalog.ReplicaID
}

// ActionKind says what a node is to do with a replica.
type ActionKind uint8

const (
	// CreateReplica makes Replica of Tablet here.
	CreateReplica ActionKind = iota + 1
	// DestroyReplica removes Replica and its data from here, durably recording it as Dropped.
	DestroyReplica
	// LostReplica cannot be served: the catalog has it here, and it was destroyed
	// here. Report it corrupt, so that it is replaced.
	LostReplica
	// ForgetGroup means that the group is gone for ever: its Dropped mark can go too.
	ForgetGroup
)

func (k ActionKind) String() string {
	return [...]string{"none", "create", "destroy", "lost", "forget"}[k]
}

// Action is one thing that a node is to do so that it holds what the catalog says.
type Action struct {
	Kind    ActionKind
	Group   catalog.GroupID
	Replica catalog.ReplicaID
	// With CreateReplica:
	New    bool               // the group begins with this replica, in the configuration Conf
	Conf   []*catalog.Replica // if New
	Tablet *catalog.Tablet    // MasterTablet for the master's group
	Table  *catalog.Table     // nil for the master's group
}

// Reconcile compares what a node holds with what a catalog says it should hold,
// and gives what to do, in order. It is idempotent, and safe with a catalog of any age: ids are never reused, so
// what an old catalog does not know of has an id that it has not given out yet.
func Reconcile(node catalog.NodeID, x *catalog.Index, local []Local) []Action {
	held := make(map[catalog.GroupID]Local, len(local))
	for _, l := range local {
		held[l.Group] = l
	}
	var actions []Action
	for _, g := range groupsOf(x) {
		l := held[catalog.GroupID(g.Id)]
		delete(held, catalog.GroupID(g.Id))
		actions = append(actions, reconcileGroup(node, x, g, l)...)
	}
	for _, l := range local {
		if _, unknown := held[l.Group]; !unknown || uint64(l.Group) >= x.Catalog().GetNextTabletId() || l.Group == catalog.MasterGroup {
			continue
		}
		if l.Replica != 0 {
			actions = append(actions, Action{Kind: DestroyReplica, Group: l.Group, Replica: l.Replica})
		} else if l.Dropped != 0 {
			actions = append(actions, Action{Kind: ForgetGroup, Group: l.Group})
		}
	}
	return actions
}

// groupsOf is every group of a catalog, the master's first.
func groupsOf(x *catalog.Index) []*catalog.Tablet {
	c := x.Catalog()
	if c.GetVersion() == 0 {
		return nil
	}
	return append([]*catalog.Tablet{c.MasterTablet()}, c.Tablets...)
}

func reconcileGroup(node catalog.NodeID, x *catalog.Index, g *catalog.Tablet, l Local) []Action {
	group := catalog.GroupID(g.Id)
	want := g.ReplicaOn(node)
	var actions []Action
	switch {
	case want == nil && uint64(l.Replica) >= x.Catalog().NextReplicaId:
		return nil // the catalog is older than what is here
	case want != nil && l.Replica >= catalog.ReplicaID(want.Id):
		return nil // it is here, or the catalog is older
	case l.Replica != 0:
		actions = append(actions, Action{Kind: DestroyReplica, Group: group, Replica: l.Replica})
		l.Dropped = max(l.Dropped, l.Replica)
	}
	if want == nil {
		return actions
	}
	if catalog.ReplicaID(want.Id) <= l.Dropped {
		return append(actions, Action{Kind: LostReplica, Group: group, Replica: catalog.ReplicaID(want.Id)})
	}
	create := Action{
		Kind: CreateReplica, Group: group, Replica: catalog.ReplicaID(want.Id),
		Tablet: g, Table: x.Table(catalog.TableID(g.Table)),
	}
	// Until a leader has been seen, the configuration is the one that the group
	// was given. One that is added later learns it from the leader.
	if g.ConfigIndex == 0 && slices.Contains(g.Replicas, want) && want.Role == catalog.Role_ROLE_VOTER {
		create.New, create.Conf = true, g.Replicas
	}
	return append(actions, create)
}
