package reader

import (
	"slices"
	"time"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/placement"
	"github.com/braiddb/braid/internal/wire"
)

// metadata is what is known of how the log's epochs are stored.
type metadata struct {
	entries []*wire.EpochMetadata // by effective_since
	through logs.Epoch            // no other entry begins at or below it
	wanted  logs.Epoch            // the epoch that it is asked for, 0 if none
	rel     bool                  // wanted is known to be released
	asking  bool
	retryAt time.Duration
	backoff time.Duration
	err     error         // of the last answer
	laterAt time.Duration // of a deserted epoch: when to ask again what comes after it
}

// ask wants metadata that covers an epoch.
func (c *Core) ask(e logs.Epoch, released bool) {
	m := &c.meta
	if m.wanted != 0 && m.wanted >= e && (m.rel || !released) {
		return
	}
	m.wanted, m.rel = max(e, logs.EpochMin), released
	m.retryAt = max(c.now, 1)
}

// askAgain sends the question if there is one to send.
func (c *Core) askAgain() {
	m := &c.meta
	if m.wanted == 0 || m.asking || c.now < m.retryAt {
		return
	}
	m.asking, m.retryAt = true, 0
	c.out.AskMetadata, c.out.Released = m.wanted, m.rel
}

// learn takes an answer.
func (c *Core) learn(ev Metadata) {
	m := &c.meta
	m.asking = false
	if c.done {
		return
	}
	if ev.End != logs.GapUnknown {
		c.gap(ev.End, c.cfg.Until)
		return
	}
	m.err = ev.Err
	if ev.Err == nil && len(ev.Entries) > 0 {
		m.entries = ev.Entries
		m.through = max(m.through, ev.Through)
	}
	enough := len(m.entries) > 0 && (m.through >= m.wanted || !m.rel)
	if enough && ev.Err == nil {
		m.wanted, m.rel, m.backoff, m.retryAt = 0, false, 0, 0
		return
	}
	m.backoff = min(max(c.cfg.RetryMin, 2*m.backoff), c.cfg.RetryMax)
	m.retryAt = c.now + m.backoff
}

// at is the entry that an epoch is stored by, and the first epoch after those that
// it holds for, as far as is known.
func (m *metadata) at(e logs.Epoch) (entry *wire.EpochMetadata, end logs.Epoch) {
	end = logs.EpochMax + 1
	for i := len(m.entries) - 1; i >= 0; i-- {
		if since := logs.Epoch(m.entries[i].EffectiveSince); since <= e {
			return m.entries[i], end
		} else {
			end = since
		}
	}
	return nil, end
}

// enter makes the shards of an epoch those that are read. It reports false if they
// were others until now: then all start again (R2).
func (c *Core) enter(e logs.Epoch) bool {
	entry, _ := c.meta.at(e)
	if entry == c.entry {
		return true
	}
	old := c.entry
	c.entry = entry
	if old != nil && sameStorage(old, entry) {
		return true
	}
	nodeset := nodesetOf(entry)
	c.set = placement.NewShardSet(entry.Replication, nodeset)
	kept := c.shards
	c.shards = nil
	for _, n := range nodeset {
		i := slices.IndexFunc(kept, func(s *shard) bool { return s.id == n.Shard })
		if i >= 0 {
			c.shards = append(c.shards, kept[i])
			kept = slices.Delete(kept, i, i+1)
			continue
		}
		s := &shard{id: n.Shard, status: c.status[n.Shard], next: c.head}
		s.down = c.mode.single && s.status != ShardUp
		c.shards = append(c.shards, s)
	}
	for _, s := range kept {
		c.window.free(s.slots.reset())
		c.stop(s)
	}
	slices.SortFunc(c.shards, func(a, b *shard) int {
		if a.id < b.id {
			return -1
		}
		return 1
	})
	if old != nil {
		c.rewindNow(c.mode.single)
	}
	return false
}

func sameStorage(a, b *wire.EpochMetadata) bool {
	return slices.Equal(a.Nodeset, b.Nodeset) && slices.Equal(a.Locations, b.Locations) &&
		a.Replication.GetNode() == b.Replication.GetNode() && a.Replication.GetRack() == b.Replication.GetRack() &&
		a.Replication.GetZone() == b.Replication.GetZone() && a.Replication.GetRegion() == b.Replication.GetRegion()
}

// nodesetOf is an entry's nodeset as placement counts it.
func nodesetOf(e *wire.EpochMetadata) []placement.LogShard {
	set := make([]placement.LogShard, len(e.Nodeset))
	for i, id := range e.Nodeset {
		set[i] = placement.LogShard{Shard: logs.ShardID(id), Weight: 1}
		if i < len(e.Locations) {
			set[i].Location = e.Locations[i]
		}
		if i < len(e.Weights) {
			set[i].Weight = e.Weights[i]
		}
	}
	return set
}
