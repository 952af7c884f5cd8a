package sequencer

import (
	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// told is what a shard was last told is released, and what it said that it serves.
type told struct {
	lsn, has logs.LSN
	due      bool // it has a copy of what is released now
}

// tellings are what the audience was told, by place. Where none are kept, everybody
// has confirmed what is released: an idle log needs no more.
func (r *reign) tellings() []told {
	if r.told == nil {
		r.told = make([]told, len(r.audience.shards))
		for i := range r.told {
			r.told[i] = told{lsn: r.s.released, has: r.s.released}
		}
	}
	return r.told
}

// listen makes the audience of releases: the nodeset, and those of earlier epochs
// as far as they are known.
func (r *reign) listen() {
	s := r.s
	sets := [][]logs.ShardID{r.set.ids()}
	if r.prior != nil {
		sets = append(sets, nodesetOf(r.prior))
	}
	if s.history != nil {
		for _, m := range s.history.entries {
			sets = append(sets, nodesetOf(m))
		}
	}
	old, town := r.audience, s.c.audienceOf(sets...)
	if town == old {
		return
	}
	var was []told
	if old != nil {
		was = r.tellings()
	}
	r.audience, r.told = town, make([]told, len(town.shards))
	for i, t := range was {
		if j, ok := town.index(old.shards[i]); ok {
			r.told[j] = t
		}
	}
}

// advance moves the release pointer as far as it may go (Q5).
func (s *sequencer) advance() {
	r := s.cur
	if r == nil || !r.recovered || !r.readable || r.preempted {
		return
	}
	if to := logs.MakeLSN(r.epoch, r.lng); to > s.released {
		first := s.released.Epoch() < r.epoch
		r.tellings() // of what is released so far
		s.released, r.repeats = to, 0
		if first { // earlier epochs' records wait for this
			for i := range r.told {
				r.told[i].due = true
			}
			if r.since > logs.EpochMin {
				s.loadHistory()
			}
		}
		s.tellSoon()
		s.answerStates()
	}
}

// tellSoon has the releases sent at the end of the turn: to whoever has a copy at
// once, to the others when the log is quiet.
func (s *sequencer) tellSoon() {
	if !s.flush {
		s.flush = true
		s.c.dirty = append(s.c.dirty, s)
	}
	s.arm(timerQuiet, s.c.cfg.ReleaseQuiet)
}

// sendReleases sends what the turn released, one message for each log and shard.
func (c *core) sendReleases() {
	for _, s := range c.dirty {
		s.flush = false
		if r := s.cur; r != nil && !s.gone {
			for i := range r.told {
				if r.told[i].due {
					r.tell(i, false)
				}
			}
		}
	}
	clear(c.dirty)
	c.dirty = c.dirty[:0]
}

// tell sends a shard the release pointer and the last known good.
func (r *reign) tell(i int, confirm bool) {
	s, c := r.s, r.s.c
	shard := r.audience.shards[i]
	if r.told != nil {
		r.told[i].due = false
	}
	if !c.listens(shard) {
		return // it stays behind, and is told when it lives
	}
	if r.told != nil && s.released != 0 {
		r.told[i].lsn = s.released
	}
	m := c.parcelTo(shard.Node()).release()
	m.Log, m.Released, m.Epoch = uint64(s.log), uint64(s.released), uint32(r.epoch)
	m.LastKnownGood, m.CountBase, m.CountKnown = uint32(r.lng), r.base, r.recovered
	m.Confirm = confirm
	c.m.Releases.Add(1)
}

// listens says whether a shard can be told anything now.
func (c *core) listens(shard logs.ShardID) bool {
	n, ok := c.cluster.Node(shard.Node())
	return ok && n.Alive && n.Storage
}

// tellAgain is for those who did not hear. While records are released it tells, now
// and then, the shards that have no copy of the last one; once the log is quiet, all
// that have not confirmed what is released, and these again until they have, for a
// RELEASE may be lost or have to wait. What is of no avail is done ever more rarely.
func (s *sequencer) tellAgain() {
	r, c := s.cur, s.c
	if r == nil || r.preempted || r.told == nil {
		return
	}
	quiet := s.released == r.looked && s.released != 0
	r.looked = s.released
	behind, unconfirmed := false, false
	for i := range r.told {
		t := &r.told[i]
		switch {
		case t.has >= s.released && s.released != 0 || !c.listens(r.audience.shards[i]):
		case quiet:
			pointToldAgain.Reach()
			r.tell(i, true)
			unconfirmed = true
		case t.lsn < s.released || s.released == 0:
			r.tell(i, false)
			behind = true
		default:
			behind = true
		}
	}
	switch {
	case unconfirmed:
		s.arm(timerLaggards, min(c.cfg.ReleaseRepeat<<r.repeats, c.cfg.ReleaseLaggards))
		r.repeats = min(r.repeats+1, 16)
	case behind && s.released != 0:
		s.arm(timerQuiet, c.cfg.ReleaseQuiet)
	}
}

// round tells everybody what is released of all logs, whatever they have confirmed,
// once in Config.ReleaseAll: they may have forgotten. It is a walk over the logs, a
// slice at a time; one that is passed over as others go is told in the next round.
type round struct {
	timer timer
	slice int
}

// roundSlices is how many slices a round has.
const roundSlices = 256

func (c *core) goRound() {
	if c.round.timer.slot == 0 && len(c.order) > 0 {
		c.wheel.set(&c.round.timer, c.now+max(c.cfg.ReleaseAll/roundSlices, wheelTick))
	}
}

func (c *core) tellSlice() {
	w := &c.round
	for _, s := range c.order[len(c.order)*w.slice/roundSlices : len(c.order)*(w.slice+1)/roundSlices] {
		if r := s.cur; r != nil && !r.preempted && !s.gone {
			for i := range r.audience.shards {
				r.tell(i, false)
			}
		}
	}
	w.slice = (w.slice + 1) % roundSlices
	c.goRound()
}

// confirmed takes what a node says that it serves.
func (c *core) confirmed(b *wire.LogBatch) {
	from := catalog.NodeID(b.FromNode)
	if n, ok := c.cluster.Node(from); ok && b.Incarnation != 0 && n.Incarnation != b.Incarnation {
		return // of a life that is over, or of one that has yet to be told of
	}
	for _, m := range b.Released {
		if s := c.logs[logs.LogID(m.Log)]; s != nil && s.cur != nil {
			s.cur.confirmed(from, logs.LSN(m.Released))
		}
	}
}

func (r *reign) confirmed(from catalog.NodeID, released logs.LSN) {
	all := r.s.released != 0
	for i := range r.told {
		t := &r.told[i]
		if r.audience.shards[i].Node() == from {
			t.has = max(t.has, released)
		}
		all = all && t.has >= r.s.released
	}
	if all {
		r.told = nil
	}
}
