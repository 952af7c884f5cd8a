package logs

import "github.com/braiddb/braid/internal/catalog"

// DescribeNode puts the catalog's word on a node and the failure detector's
// together. A node that leaves counts as dead, but stays in nodesets as those that die
// do: it comes back, and a restart must not choose the nodeset of every log anew, twice.
// One that is being drained takes nothing new, and one that was forgotten is dead for
// good, whatever the detector says.
func DescribeNode(d *catalog.Node, incarnation uint64, alive, starting, leaving bool) ClusterNode {
	takesNew := d.State != catalog.NodeState_NODE_STATE_DRAINING && !d.Forgotten()
	n := ClusterNode{
		ID: catalog.NodeID(d.Id), Incarnation: incarnation, Alive: alive && !leaving && !d.Forgotten(), Lost: d.Forgotten(), Starting: starting,
		Location:  d.Location,
		Sequencer: hasRole(d, catalog.RoleSequencer) && takesNew && !leaving, SequencerWeight: nodeWeight(d.SequencerWeight),
		Storage:       hasRole(d, catalog.RoleStorage) && d.StorageState != catalog.StorageState_STORAGE_STATE_NONE,
		StorageWeight: nodeWeight(d.StorageWeight),
	}
	n.Writable = n.Storage && takesNew && n.StorageWeight > 0 && d.StorageState == catalog.StorageState_STORAGE_STATE_READ_WRITE
	return n
}

func hasRole(d *catalog.Node, role uint32) bool { return d.Roles == 0 || d.Roles&role != 0 }

// nodeWeight reads a descriptor's weight: 0 means 1, negative means none.
func nodeWeight(w float64) float64 {
	switch {
	case w == 0:
		return 1
	case w < 0:
		return 0
	}
	return w
}
