package sequencer

import (
	"encoding/binary"
	"math"
	"slices"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/placement"
	"github.com/braiddb/braid/internal/wire"
)

// replicaSet is what an epoch is replicated by. Many logs share one: sets are
// interned by their content.
type replicaSet struct {
	shards      []placement.LogShard // ascending by shard
	replication *catalog.Replication
	copies      int
	// picker is made when a copyset is first picked, and let go when all logs that
	// share the set were idle for long: it is larger than all else here.
	picker *placement.CopysetPicker
	used   time.Duration
	barren bool // the set contains no copyset at all
}

// audience are the shards that are told of releases: those of the nodeset, and
// of the nodesets that earlier epochs had.
type audience struct {
	shards []logs.ShardID // ascending
}

func (a *audience) index(s logs.ShardID) (int, bool) { return slices.BinarySearch(a.shards, s) }

// setOf interns the replica set of an epoch's metadata.
func (c *core) setOf(m *wire.EpochMetadata) *replicaSet {
	shards := make([]placement.LogShard, len(m.Nodeset))
	for i, s := range m.Nodeset {
		shards[i] = placement.LogShard{Shard: logs.ShardID(s), Weight: 1}
		if i < len(m.Weights) {
			shards[i].Weight = m.Weights[i]
		}
		if i < len(m.Locations) {
			shards[i].Location = m.Locations[i]
		}
	}
	return c.intern(shards, m.Replication)
}

func (c *core) intern(shards []placement.LogShard, r *catalog.Replication) *replicaSet {
	key := make([]byte, 0, 32*len(shards)+16)
	for _, s := range shards {
		key = binary.AppendUvarint(key, uint64(s.Shard))
		key = binary.BigEndian.AppendUint64(key, math.Float64bits(s.Weight))
		key = binary.AppendUvarint(key, uint64(len(s.Location)))
		key = append(key, s.Location...)
	}
	for _, n := range []uint32{r.GetNode(), r.GetRack(), r.GetZone(), r.GetRegion()} {
		key = binary.AppendUvarint(key, uint64(n))
	}
	if set := c.sets[string(key)]; set != nil {
		return set
	}
	if len(c.sets) >= setsMax {
		clear(c.sets) // those in use live on; new logs intern anew
	}
	set := &replicaSet{shards: shards, replication: r, copies: placement.Copies(r)}
	c.sets[string(key)] = set
	return set
}

// draw picks a copyset that avoids some shards.
func (c *core) draw(set *replicaSet, avoid func(logs.ShardID) bool, dst []logs.ShardID) ([]logs.ShardID, bool) {
	set.used = c.now
	if set.picker == nil {
		if set.barren {
			return dst, false
		}
		p, err := placement.NewCopysetPicker(set.replication, set.shards, c.rng)
		if err != nil {
			set.barren = true
			return dst, false
		}
		set.picker = p
	}
	out, err := set.picker.Pick(avoid, dst)
	return out, err == nil
}

// setsMax bounds the interned sets, which nobody counts the users of.
const setsMax = 10_000

// audienceOf interns the union of some nodesets.
func (c *core) audienceOf(sets ...[]logs.ShardID) *audience {
	var all []logs.ShardID
	for _, s := range sets {
		all = append(all, s...)
	}
	slices.Sort(all)
	all = slices.Compact(all)
	key := make([]byte, 0, 8*len(all))
	for _, s := range all {
		key = binary.BigEndian.AppendUint64(key, uint64(s))
	}
	if a := c.towns[string(key)]; a != nil {
		return a
	}
	if len(c.towns) >= setsMax {
		clear(c.towns)
	}
	a := &audience{shards: slices.Clip(all)}
	c.towns[string(key)] = a
	return a
}

func (set *replicaSet) ids() []logs.ShardID {
	out := make([]logs.ShardID, len(set.shards))
	for i, s := range set.shards {
		out[i] = s.Shard
	}
	return out
}

func nodesetOf(m *wire.EpochMetadata) []logs.ShardID {
	out := make([]logs.ShardID, len(m.Nodeset))
	for i, s := range m.Nodeset {
		out[i] = logs.ShardID(s)
	}
	return out
}

// metadataShards are the nodes that metadata logs are stored on: all with
// storage, the first of them where there are more than a nodeset may hold.
func (c *core) metadataShards(writable bool) []placement.LogShard {
	var out []placement.LogShard
	for _, n := range c.cluster.Nodes {
		if n.Storage && (n.Writable || !writable) && len(out) < logs.NodesetMax {
			out = append(out, placement.LogShard{Shard: logs.MakeShard(n.ID, 0), Location: n.Location, Weight: 1})
		}
	}
	return out
}

// metadataCopies is how many copies a record of a metadata log has: one more
// than the data's where there are nodes enough, for without it the data cannot be read.
func metadataCopies(copies, nodes int) int { return min(nodes, max(copies, min(3, copies+1))) }
