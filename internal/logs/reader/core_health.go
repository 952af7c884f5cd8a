package reader

import (
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/placement"
)

// HealthState is whether a reader can go on.
type HealthState uint8

const (
	// Starting: nothing is known yet.
	Starting HealthState = iota
	// Healthy: enough shards answer that every record can be told or found missing.
	Healthy
	// NoMetadata: what an epoch is stored on could not be learned.
	NoMetadata
	// Stalled: records may lie on shards that do not answer, and on nobody else. If none
	// is silent then all were given up, and no later epoch lies on others.
	Stalled
)

func (h HealthState) String() string {
	return [...]string{"starting", "healthy", "no metadata", "stalled"}[h]
}

// Health says whether a reader can go on, and what keeps it from doing so.
type Health struct {
	State HealthState
	// Silent are the shards that do not answer.
	Silent []logs.ShardID
	// Err is the last failure behind it, nil if there was none.
	Err error
}

// Health judges the reader as it is.
func (c *Core) Health() Health {
	if len(c.shards) == 0 || (c.meta.wanted != 0 && c.meta.err != nil) {
		if c.meta.err != nil {
			return Health{State: NoMetadata, Err: c.meta.err}
		}
		return Health{State: Starting}
	}
	h := Health{State: Healthy}
	for _, s := range c.shards {
		state := placement.ShardHeard
		switch {
		case s.status == ShardLost:
			state = placement.ShardUnavailable
		case s.status == ShardEmptied:
			state = placement.ShardEmpty
		case s.state == shardStarted || s.err == nil && s.status == ShardUp:
		default:
			state = placement.ShardUnheard
			h.Silent = append(h.Silent, s.id)
			if s.err != nil {
				h.Err = s.err
			}
		}
		c.set.Set(s.id, state)
	}
	if c.set.FMajority() == placement.FMajorityNone || c.deserted() {
		h.State = Stalled
	}
	return h
}

// ShardView is what a reader knows of one shard, for people.
type ShardView struct {
	Shard     logs.ShardID
	Next      LSN
	Started   bool
	Down      bool
	SuspectTo LSN
	Err       error
}

// View is where a reader is, for people.
type View struct {
	Log         logs.LogID
	Next        LSN
	Released    LSN
	Until       LSN
	WindowHigh  LSN
	TrimPoint   LSN
	Version     uint64
	SingleCopy  bool
	BytesHeld   int
	SlotsHeld   int
	Shards      []ShardView
	MetadataFor logs.Epoch
}

// View describes the reader.
func (c *Core) View() View {
	v := View{
		Log: c.cfg.Log, Next: c.head, Released: c.rel, Until: c.cfg.Until, WindowHigh: c.window.high, TrimPoint: c.trim,
		Version: c.mode.version, SingleCopy: c.mode.single, BytesHeld: c.window.held(),
		MetadataFor: c.meta.through,
	}
	for _, s := range c.shards {
		v.SlotsHeld += len(s.slots.list) - s.slots.from
		v.Shards = append(v.Shards, ShardView{
			Shard: s.id, Next: s.next, Started: s.state == shardStarted, Down: s.down, SuspectTo: s.suspectTo, Err: s.err,
		})
	}
	return v
}
