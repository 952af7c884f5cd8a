package reader

import (
	"time"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/placement"
)

// advance tells what is at the front, if it is known what that is.
func (c *Core) advance() bool {
	if len(c.meta.entries) == 0 {
		return false
	}
	if first := logs.Epoch(c.meta.entries[0].EffectiveSince); c.head.Epoch() < first {
		c.gap(logs.GapBridge, logs.MakeLSN(first, 0))
		return true
	}
	if c.trim >= c.head {
		// One gap up to the trim point, although some shards may still have records below
		// it: what is being trimmed is not told piecemeal.
		c.gap(logs.GapTrim, c.trim)
		return true
	}
	epoch := c.head.Epoch()
	if !c.enter(epoch) {
		return false
	}
	if epoch > c.meta.through { // R2
		if c.rel >= c.head {
			c.ask(epoch, true)
		}
		return false
	}
	front := c.front()
	switch {
	case front != nil && front.lo == c.head:
		c.tell(front)
		return true
	case c.beginsEpoch(front):
		c.gap(logs.GapBridge, front.lo-1)
		return true
	}
	return c.decide()
}

// tell tells what came for the LSN at the front.
func (c *Core) tell(s *slot) {
	switch r := s.record; {
	case r == nil:
		c.gap(logs.GapFilteredOut, c.filteredTo())
	case r.Flags&logs.FlagBridge != 0:
		c.gap(logs.GapBridge, endOf(c.head.Epoch()))
	case r.Flags&logs.FlagHole != 0:
		c.gap(logs.GapHole, c.head)
	default:
		it := Item{LSN: s.lo, To: s.lo, Record: r, Payloads: s.payloads, OffsetKnown: s.known, Bytes: s.bytes}
		if s.known {
			it.Offset = s.base + r.CountBefore
		}
		c.emit(it)
	}
}

// endOf is where a bridge leads: ESN 0 of the next epoch, which is never a record's.
func endOf(e logs.Epoch) LSN { return logs.MakeLSN(e+1, 0) }

// beginsEpoch says that the first record that is here begins the epoch in which the
// front is, and nothing of it was told yet.
func (c *Core) beginsEpoch(front *slot) bool {
	if front == nil || front.record == nil || front.lo.Epoch() != c.head.Epoch() || (c.head.ESN() > logs.ESNMin && c.head != c.cfg.From) {
		return false
	}
	return front.lo.ESN() == logs.ESNMin || front.record.Flags&logs.FlagEpochBegin != 0
}

// decide tells a gap at the front if the shards that passed it prove one.
func (c *Core) decide() bool {
	if c.deserted() {
		return c.leaveBehind()
	}
	kind, to, verdict, ok := c.proven()
	if !ok {
		c.grace.at = 0
		return false
	}
	if verdict == placement.FMajorityIncomplete && !c.grace.over && c.anyGraceful() && (kind != logs.GapBridge || c.head == c.cfg.From) {
		c.grace.begin(c.now, c.cfg.Grace)
		if !c.graceEnds() {
			return false
		}
	}
	if c.mode.lookedAgain != c.head { // R7
		// A shard that was told of the rewind late may have left the record to another.
		// And what they said was not said at one time: one may have spoken before a
		// recovery gave it a copy, and another after it took its own away.
		c.mode.lookedAgain = c.head
		c.rewindSoon(false)
		return false
	}
	c.gap(kind, to)
	return true
}

// proven is the gap that the shards' answers amount to, if they do.
func (c *Core) proven() (kind logs.GapType, to LSN, verdict placement.FMajority, ok bool) {
	if c.mode.single || c.mode.rewindAt != 0 { // R4
		return 0, 0, 0, false
	}
	marker, ok := c.marker()
	if !ok {
		return 0, 0, 0, false
	}
	verdict = c.count()
	if verdict == placement.FMajorityNone || (c.cfg.FullReadSet && verdict == placement.FMajorityIncomplete) {
		return 0, 0, 0, false
	}
	if c.clipped(marker) {
		if marker > c.window.high {
			c.window.stretch()
		}
		return 0, 0, 0, false
	}
	if e := (marker - 1).Epoch(); e > c.meta.through { // R2, for every epoch that the gap touches
		c.ask(e, true)
		return 0, 0, 0, false
	}
	kind, to = c.kind(marker, verdict)
	return kind, to, verdict, true
}

// count judges who has passed the front. A shard that may lack records there counts
// only to say that nobody is left to ask.
func (c *Core) count() placement.FMajority {
	sound := c.countAs(placement.ShardUnheard)
	if sound == placement.FMajorityComplete || sound == placement.FMajorityNonAuthoritative {
		return sound
	}
	switch c.countAs(placement.ShardHeard) {
	case placement.FMajorityComplete, placement.FMajorityNonAuthoritative:
		if sound == placement.FMajorityIncomplete {
			return placement.FMajorityComplete
		}
		return placement.FMajorityNonAuthoritative
	}
	return sound
}

// countAs counts those that may lack records as given.
func (c *Core) countAs(suspect placement.ShardState) placement.FMajority {
	for _, s := range c.shards {
		state := placement.ShardUnheard
		switch {
		case s.next > c.head && c.head < s.suspectTo:
			state = suspect
		case s.next > c.head:
			state = placement.ShardHeard
		case s.status == ShardLost:
			state = placement.ShardUnavailable
		case s.status == ShardEmptied:
			state = placement.ShardEmpty
		}
		c.set.Set(s.id, state)
	}
	return c.set.FMajority()
}

// marker is the lowest LSN above the front of which anything is known: a record, or
// where a shard that passed the front stands.
func (c *Core) marker() (LSN, bool) {
	var at LSN
	if front := c.front(); front != nil {
		at = front.lo
	}
	for _, s := range c.shards {
		if s.next > c.head && (at == 0 || s.next < at) {
			at = s.next
		}
	}
	return at, at != 0
}

// clipped says that the marker is where a shard stopped because of the window, so that
// more of the gap, and what it is, shows when it is asked again.
func (c *Core) clipped(marker LSN) bool {
	if front := c.front(); marker > c.rel || (front != nil && front.lo == marker) {
		return false
	}
	for _, s := range c.shards {
		if s.next == marker && s.high+1 == marker && s.state == shardStarted {
			return true
		}
	}
	return false
}

// kind is the type of a gap that ends before marker, and the part of it that has one
// type: a bridge ends with ESN 0 of the epoch that it leads to, or where other shards
// are to be asked.
func (c *Core) kind(marker LSN, verdict placement.FMajority) (logs.GapType, LSN) {
	if c.nobodyLeft() {
		return logs.GapDataLoss, marker - 1
	}
	epoch := c.head.Epoch()
	if marker.Epoch() == epoch {
		return logs.GapDataLoss, marker - 1
	}
	if verdict == placement.FMajorityNonAuthoritative {
		// Nobody wrote where this epoch ended: its last records may be those that are lost.
		return logs.GapDataLoss, min(logs.MakeLSN(epoch+1, 0), marker-1)
	}
	to := marker.Epoch()
	if _, end := c.meta.at(epoch); end < to {
		to = end
	}
	return logs.GapBridge, min(logs.MakeLSN(to, 0), marker-1)
}

// nobodyLeft says that no shard of the epoch is authoritative any more.
func (c *Core) nobodyLeft() bool {
	for _, s := range c.shards {
		if s.status != ShardLost && s.status != ShardEmptied {
			return false
		}
	}
	return true
}

// deserted says that every shard of the epoch was given up, and none of them left a word
// of what is at the front or behind it: nobody will say any more what is released.
func (c *Core) deserted() bool {
	if len(c.shards) == 0 || !c.nobodyLeft() {
		return false
	}
	_, ok := c.marker()
	return !ok
}

// leaveBehind tells the loss of all epochs that lie on shards which were all given up, up to
// the first that does not. Until there is one it is asked for.
func (c *Core) leaveBehind() bool {
	m := &c.meta
	if _, end := m.at(c.head.Epoch()); end <= m.through {
		c.gap(logs.GapDataLoss, logs.MakeLSN(end, 0))
		return true
	}
	if c.now >= m.laterAt && m.wanted == 0 && !m.asking {
		m.laterAt = c.now + c.cfg.RetryMax
		c.ask(m.through+1, false)
	}
	return false
}

// grace is the time that silent shards are given before a gap is told without them.
type grace struct {
	at   time.Duration // when it ends, 0 if it did not begin
	over bool          // it has ended, for the LSN at the front
}

func (g *grace) reset() { *g = grace{} }

func (g *grace) begin(now, period time.Duration) {
	if g.at == 0 {
		g.at = now + period
	}
}

// graceEnds says whether the time is over, and counts it against the silent ones.
func (c *Core) graceEnds() bool {
	if c.now < c.grace.at {
		return false
	}
	c.grace.at, c.grace.over = 0, true
	for _, s := range c.shards {
		if s.next <= c.head {
			s.missed++
		}
	}
	return true
}

// anyGraceful says whether a silent shard is worth waiting for.
func (c *Core) anyGraceful() bool {
	for _, s := range c.shards {
		if s.next <= c.head && s.missed < c.cfg.GraceMisses && s.status != ShardLost && s.status != ShardEmptied {
			return true
		}
	}
	return false
}
