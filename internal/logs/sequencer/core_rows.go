package sequencer

import (
	"fmt"
	"slices"

	"github.com/braiddb/braid/internal/logs"
)

// rows describes every sequencer.
func (c *core) rows() []Row {
	out := make([]Row, 0, len(c.order))
	for _, s := range c.order {
		out = append(out, s.row())
	}
	return out
}

func (s *sequencer) row() Row {
	row := Row{Log: s.log, State: s.state.String(), LastReleased: s.released, TrimPoint: s.trimmed, Buffered: len(s.buffer), PreemptedBy: s.preempt.by,
		Window: int(s.attrs.GetMaxWritesInFlight()), Producers: len(s.sessions)}
	for _, ss := range s.sessions {
		row.Held += len(ss.held)
	}
	if s.act != nil {
		row.Trouble = s.act.trouble
	}
	if s.failure != nil && s.c.now < s.failure.until {
		row.Trouble = s.failure.text
	}
	if s.old != nil {
		row.Draining = s.old.epoch
	}
	if r := s.cur; r != nil {
		tail := r.win.next
		row.Epoch, row.Next, row.LastKnownGood, row.InFlight = r.epoch, logs.MakeLSN(r.epoch, tail), r.lng, r.win.len()
		row.Recovering, row.MetadataRead = !r.recovered, r.readable
		row.Nodeset, row.Replication, row.EffectiveFrom = r.set.ids(), r.set.replication, r.since
		row.Records, row.Payloads, row.Bytes, row.Age = tail-1, r.payloads, r.bytes, s.c.now-r.began
		switch {
		case row.Trouble != "":
		case r.meta != nil && r.meta.began <= s.c.now-s.c.cfg.MissingWait:
			row.Trouble = "where the epoch is stored cannot be written to the metadata log, and nothing of it is released before: " + r.missing(r.meta.set)
		case s.starved():
			row.Trouble = r.missing(r.set)
		default:
			row.Trouble = s.heldUp()
		}
		for e := r.win.front; e != r.win.next; e++ {
			row.BytesInFlight += r.win.at(e).size
		}
	}
	return row
}

// starved says whether appends have waited for copies as long as their clients are
// let wait for an answer.
func (s *sequencer) starved() bool {
	r, before := s.cur, s.c.now-s.c.cfg.MissingWait
	return r.win.len() > 0 && r.win.at(r.win.front).began <= before || len(s.buffer) > 0 && s.buffer[0].arrived <= before
}

// heldUp says what appends that are held wait for, once they have for a third of the
// time after which they are refused.
func (s *sequencer) heldUp() string {
	producers, shards := 0, 0
	for _, ss := range s.sessions {
		if len(ss.held) > 0 && ss.held[0].arrived <= s.c.now-s.c.cfg.MissingWait/3 {
			producers++
			if ss.lookup != nil {
				shards = max(shards, len(ss.lookup.waiting))
			}
		}
	}
	switch {
	case producers == 0:
		return ""
	case s.history != nil && !s.history.loaded:
		return fmt.Sprintf("appends of %d producers wait for the metadata log, which says where earlier epochs are stored: %d shards have told of it, which are too few", producers, s.history.heard)
	case shards > 0:
		return fmt.Sprintf("appends of %d producers wait for %d shards to tell what they have of them", producers, shards)
	}
	return fmt.Sprintf("appends of %d producers wait for the recovery of earlier epochs", producers)
}

// shardRows describes what is held against shards.
func (c *core) shardRows() []ShardRow {
	var out []ShardRow
	for _, h := range c.shards {
		if h.ban != banNone || h.low {
			out = append(out, ShardRow{Shard: h.shard, Ban: h.ban.String(), For: max(h.until-c.now, 0), Probing: h.probing, Low: h.low})
		}
	}
	slices.SortFunc(out, func(a, b ShardRow) int { return int(int64(a.Shard) - int64(b.Shard)) })
	return out
}
