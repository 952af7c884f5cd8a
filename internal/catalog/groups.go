package catalog

import "iter"

// MasterTablet shows the master's own group as a tablet of table 0, so that
// what places, observes and balances groups has one kind of them.
func (c *Catalog) MasterTablet() *Tablet {
	return &Tablet{
		Id:          uint64(MasterGroup),
		Replicas:    c.GetMasterReplicas(),
		Version:     c.GetMasterDescriptor(),
		Adding:      c.GetMasterAdding(),
		Removing:    c.GetMasterRemoving(),
		ConfigIndex: c.GetMasterConfigIndex(),
	}
}

// SetGroup replaces the descriptor of t's group. The catalog must not be shared
// yet; its slice of tablets must be its own.
func (c *Catalog) SetGroup(t *Tablet) {
	if t.Id == uint64(MasterGroup) {
		c.MasterReplicas, c.MasterAdding, c.MasterRemoving = t.Replicas, t.Adding, t.Removing
		c.MasterConfigIndex, c.MasterDescriptor = t.ConfigIndex, t.Version
		return
	}
	for i := range c.Tablets {
		if c.Tablets[i].Id == t.Id {
			c.Tablets[i] = t
			return
		}
	}
	panic("BUG: a descriptor for a tablet that is not in the catalog")
}

// Shallow copies the catalog and its lists, not the descriptors in them: what
// the next version starts from.
func (c *Catalog) Shallow() *Catalog {
	return &Catalog{
		ClusterId:         c.ClusterId,
		Version:           c.Version,
		Keyspaces:         append([]*Keyspace(nil), c.Keyspaces...),
		Tables:            append([]*Table(nil), c.Tables...),
		Tablets:           append([]*Tablet(nil), c.Tablets...),
		Nodes:             append([]*Node(nil), c.Nodes...),
		MasterReplicas:    c.MasterReplicas,
		NextTableId:       c.NextTableId,
		NextTabletId:      c.NextTabletId,
		NextReplicaId:     c.NextReplicaId,
		NextNodeId:        c.NextNodeId,
		MasterAdding:      c.MasterAdding,
		MasterRemoving:    c.MasterRemoving,
		MasterConfigIndex: c.MasterConfigIndex,
		MasterDescriptor:  c.MasterDescriptor,
		LogDirectories:    c.LogDirectories, // replaced, never changed: see Logs
		LogGroups:         c.LogGroups,
		NextLogId:         c.NextLogId,
		NextLogItemId:     c.NextLogItemId,
		LogDefaults:       c.LogDefaults,
		LogVersion:        c.LogVersion,
		LogEpochStore:     c.LogEpochStore,
	}
}

// Members yields the replicas of the configuration and then the one being added.
func (t *Tablet) Members() iter.Seq[*Replica] {
	return func(yield func(*Replica) bool) {
		for _, r := range t.GetReplicas() {
			if !yield(r) {
				return
			}
		}
		if t.GetAdding() != nil {
			yield(t.Adding)
		}
	}
}

// ReplicaOn finds the replica of the group on a node, the one being added included.
func (t *Tablet) ReplicaOn(node NodeID) *Replica {
	for r := range t.Members() {
		if NodeID(r.Node) == node {
			return r
		}
	}
	return nil
}

// Replica finds a replica of the group by its id, the one being added included.
func (t *Tablet) Replica(id ReplicaID) *Replica {
	for r := range t.Members() {
		if ReplicaID(r.Id) == id {
			return r
		}
	}
	return nil
}

// Owns reports whether a position of the hash space lies in the tablet.
func (t *Tablet) Owns(hash uint64) bool {
	return hash >= t.HashStart && (t.HashEnd == 0 || hash < t.HashEnd)
}

// Changing reports whether a change of replicas is planned or under way.
func (t *Tablet) Changing() bool {
	if t.Adding != nil || t.Removing != 0 {
		return true
	}
	for _, r := range t.Replicas {
		if r.Role == Role_ROLE_LEARNER {
			return true
		}
	}
	return false
}

// HashRange is a part [Start, End) of a hash space; End 0 is its end.
type HashRange struct{ Start, End uint64 }

// Ranges cuts the hash space of a table into n parts of nearly equal size. Those
// of HASH_CRC16 begin at slots, so that a slot is never in two tablets; it has
// room for RedisSlots of them.
func Ranges(h Hash, n int) []HashRange {
	if n < 1 || (h == Hash_HASH_CRC16 && n > RedisSlots) {
		panic("BUG: a hash space cannot be cut into that many tablets")
	}
	ranges := make([]HashRange, n)
	for i := range ranges {
		if h == Hash_HASH_CRC16 {
			ranges[i] = HashRange{SlotStart(uint32(i * RedisSlots / n)), SlotStart(uint32((i + 1) * RedisSlots / n))}
			continue
		}
		step := ^uint64(0)/uint64(n) + 1 // wraps to 0 for n == 1, and 0 is both start and open end
		ranges[i] = HashRange{uint64(i) * step, uint64(i+1) * step}
	}
	ranges[n-1].End = 0
	return ranges
}
