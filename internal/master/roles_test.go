package master

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/placement"
)

// Two nodes that only sequence and three that only store make a cluster: the
// storage nodes stand in for masters and for tablets.
func TestFoundingPlacesByRoles(t *testing.T) {
	members := func(roles ...uint32) (list []*catalog.Node) {
		for i, r := range roles {
			n := self(string(rune('a'+i)) + ":1")
			n.Roles = r
			list = append(list, n)
		}
		return list
	}
	check := func(c *catalog.Catalog, master, tablet uint32) {
		t.Helper()
		if err := catalog.Validate(c); err != nil {
			t.Fatal(err)
		}
		roles := map[uint64]uint32{}
		for _, n := range c.Nodes {
			roles[n.Id] = n.Roles
		}
		for _, r := range c.MasterReplicas {
			if roles[r.Node] != master {
				t.Errorf("a replica of the master is on node %d with roles %d", r.Node, roles[r.Node])
			}
		}
		for _, tablet1 := range c.Tablets {
			for _, r := range tablet1.Replicas {
				if roles[r.Node] != tablet {
					t.Errorf("a replica of tablet %d is on node %d with roles %d", tablet1.Id, r.Node, roles[r.Node])
				}
			}
			if len(tablet1.Replicas) == 0 {
				t.Errorf("tablet %d is nowhere", tablet1.Id)
			}
		}
	}
	seq, store := catalog.RoleSequencer, catalog.RoleStorage
	c := FirstCatalog("c", members(seq, store, seq, store, store), First{})
	check(c, store, store)
	if len(c.MasterReplicas) != 3 || len(c.Tablets[0].Replicas) != 3 {
		t.Errorf("%d masters, %d copies", len(c.MasterReplicas), len(c.Tablets[0].Replicas))
	}
	check(FirstCatalog("c", members(catalog.RoleMaster, catalog.RoleTablet, catalog.RoleTablet, seq), First{}), catalog.RoleMaster, catalog.RoleTablet)
	check(FirstCatalog("c", members(seq, seq), First{}), seq, seq)
}

// What a catalog takes for a replication property is what placement can place.
func TestCatalogAndPlacementAgreeOnReplication(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.SampledFrom([]uint32{0, 0, 1, 2, 3, 5, 127, 128, 1 << 31})
		r := &catalog.Replication{Node: n.Draw(t, "node"), Rack: n.Draw(t, "rack"), Zone: n.Draw(t, "zone"), Region: n.Draw(t, "region")}
		a, b := catalog.CheckReplication(r), placement.ValidateReplication(r)
		if (a == nil) != (b == nil) || (a == nil && int(r.Copies()) != placement.Copies(r)) {
			t.Fatalf("%v: %v and %v", r, a, b)
		}
	})
}
