package master

import (
	"fmt"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/placement"
)

// Replication says how well a cluster's groups are copied.
type Replication struct {
	Groups int // the master's included
	Under  int // of them, with fewer copies than wanted
	Fewest int // copies of the worst group
	Wanted int // copies that the worst group should have
}

// ReplicationOf counts voters on nodes that are not dead.
func ReplicationOf(c *catalog.Catalog) Replication {
	alive := make(map[uint64]bool, len(c.GetNodes()))
	for _, n := range c.GetNodes() {
		if !n.Gone() {
			alive[n.Id] = true
		}
	}
	factors := make(map[uint32]int, len(c.GetTables()))
	for _, t := range c.GetTables() {
		factors[t.Id] = int(t.ReplicationFactor)
	}
	var r Replication
	for _, g := range groupsOf(catalog.NewIndex(c)) {
		copies, wanted := 0, factors[g.Table]
		for _, replica := range g.Replicas {
			if replica.Role == catalog.Role_ROLE_VOTER && alive[replica.Node] {
				copies++
			}
		}
		if catalog.GroupID(g.Id) == catalog.MasterGroup {
			wanted = placement.MasterFactor(len(alive), len(g.Replicas))
		}
		r.Groups++
		if copies < wanted {
			r.Under++
		}
		if r.Groups == 1 || copies < r.Fewest {
			r.Fewest, r.Wanted = copies, wanted
		}
	}
	return r
}

func (r Replication) String() string {
	switch {
	case r.Groups == 0:
		return "no data"
	case r.Fewest == 1 && r.Wanted > 1:
		return "one copy"
	case r.Under > 0:
		return fmt.Sprintf("%d of %d groups under-replicated", r.Under, r.Groups)
	}
	return fmt.Sprintf("%d copies", r.Fewest)
}
