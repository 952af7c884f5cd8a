package placement

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/braiddb/braid/internal/catalog"
)

var anyRoles = []uint32{0, catalog.RoleMaster, catalog.RoleTablet, catalog.RoleStorage, catalog.RoleSequencer, catalog.RoleMaster | catalog.RoleStorage}

func TestFit(t *testing.T) {
	node := func(id catalog.NodeID, roles uint32, s State) Node { return Node{ID: id, Roles: roles, State: s} }
	for name, c := range map[string]struct {
		nodes []Node
		role  uint32
		want  []catalog.NodeID
	}{
		"all by default":     {[]Node{node(1, 0, Alive), node(2, 0, Silent)}, catalog.RoleMaster, []catalog.NodeID{1, 2}},
		"who has the role":   {[]Node{node(1, catalog.RoleStorage, Alive), node(2, catalog.RoleTablet, Alive)}, catalog.RoleTablet, []catalog.NodeID{2}},
		"storage stands in":  {[]Node{node(1, catalog.RoleSequencer, Alive), node(2, catalog.RoleStorage, Alive), node(3, catalog.RoleStorage, Alive)}, catalog.RoleMaster, []catalog.NodeID{2, 3}},
		"the silent count":   {[]Node{node(1, catalog.RoleMaster, Silent), node(2, catalog.RoleStorage, Alive)}, catalog.RoleMaster, []catalog.NodeID{1}},
		"the dead do not":    {[]Node{node(1, catalog.RoleMaster, Dead), node(2, catalog.RoleStorage, Alive)}, catalog.RoleMaster, []catalog.NodeID{2}},
		"sequencers as last": {[]Node{node(1, catalog.RoleSequencer, Alive)}, catalog.RoleTablet, []catalog.NodeID{1}},
	} {
		var got []catalog.NodeID
		for _, n := range Fit(c.nodes, c.role) {
			got = append(got, n.ID)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// TestReplicasGoWhereTheirRoleIs starts with every group on the wrong nodes.
func TestReplicasGoWhereTheirRoleIs(t *testing.T) {
	w := &world{nextReplica: 100}
	for i := range 8 {
		roles := catalog.RoleTablet
		switch {
		case i < 3:
			roles = catalog.RoleMaster | catalog.RoleSequencer
		case i == 7:
			roles = catalog.RoleSequencer
		}
		w.Nodes = append(w.Nodes, Node{ID: catalog.NodeID(i + 1), Roles: roles})
	}
	for i := range 6 {
		g := Group{ID: catalog.GroupID(i + 1), Table: catalog.TableID(min(i, 1)), Factor: 3}
		for j := range 3 {
			node := catalog.NodeID(j + 1) // tablets on masters
			if i == 0 {
				node = catalog.NodeID(j + 6) // the master on tablets and a sequencer
			}
			g.Replicas = append(g.Replicas, Replica{ID: catalog.ReplicaID(10*i + j + 1), Node: node, Voter: true})
		}
		w.Groups = append(w.Groups, g)
	}
	w.settle(t, Options{})
	for _, g := range w.Groups {
		for _, r := range g.Replicas {
			if n := w.node(r.Node); len(g.Replicas) != 3 || !n.has(g.role()) {
				t.Fatalf("group %d of table %d:\n%s", g.ID, g.Table, w)
			}
		}
	}
	least, most := 99, 0
	for _, n := range w.Nodes[3:7] {
		held := 0
		for i := range w.Groups {
			if w.Groups[i].on(n.ID) {
				held++
			}
		}
		least, most = min(least, held), max(most, held)
	}
	if most-least > 1 {
		t.Errorf("tablets lie %d to %d on a node:\n%s", least, most, w)
	}
}

// TestRolesNeverUndoARepair: with nodes of any roles in any state, steps come to
// an end, and a replica is where its role is not only if nobody could take it.
func TestRolesNeverUndoARepair(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := draw(t, []string{"", "a", "b"}, anyRoles...)
		w.settle(t, Options{})
		for i := range w.Groups {
			g := &w.Groups[i]
			if g.Leader == 0 || g.changing() || len(g.Replicas) != g.Factor {
				continue
			}
			fit := map[catalog.NodeID]bool{}
			for _, n := range Fit(w.Nodes, g.role()) {
				fit[n.ID] = true
			}
			free := ""
			for _, n := range w.Nodes {
				if fit[n.ID] && n.State == Alive && !g.on(n.ID) && !anyLost(w, n.ID) { // P6
					free = fmt.Sprint(n.ID)
				}
			}
			for j := range g.Replicas {
				r := &g.Replicas[j]
				if !fit[r.Node] && free != "" && w.node(r.Node).State == Alive && !anyBroken(w, g) {
					t.Fatalf("group %d stays on node %d while node %s is free:\n%s", g.ID, r.Node, free, w)
				}
			}
		}
	})
}

// anyLost says that a node cannot serve a replica that it has.
func anyLost(w *world, n catalog.NodeID) bool {
	return slices.ContainsFunc(w.Groups, func(g Group) bool {
		return slices.ContainsFunc(g.Replicas, func(r Replica) bool { return r.Node == n && r.Lost })
	})
}

func anyBroken(w *world, g *Group) bool {
	return slices.ContainsFunc(g.Replicas, func(r Replica) bool { return r.Lost || w.node(r.Node).State >= Dead })
}
