package sequencer

import (
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
		if row.Trouble == "" && s.starved() {
			row.Trouble = r.missing()
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
