package sequencer

import (
	"github.com/braiddb/braid/internal/logs"
)

// told is what a shard was last told is released.
type told struct {
	lsn logs.LSN
	due bool // it has a copy of what is released now
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
	old, was := r.audience, r.told
	r.audience = s.c.audienceOf(sets...)
	if r.audience == old {
		return
	}
	r.told = make([]told, len(r.audience.shards))
	for i, t := range was {
		if j, ok := r.audience.index(old.shards[i]); ok {
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
		s.released = to
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
					r.tell(i)
				}
			}
		}
	}
	clear(c.dirty)
	c.dirty = c.dirty[:0]
}

// tell sends a shard the release pointer and the last known good.
func (r *reign) tell(i int) {
	s, c := r.s, r.s.c
	shard := r.audience.shards[i]
	r.told[i].due = false
	if !c.cluster.Alive(shard) {
		return // it stays behind, and is told when it lives
	}
	if s.released != 0 {
		r.told[i].lsn = s.released
	}
	m := c.parcelTo(shard.Node()).release()
	m.Log, m.Released, m.Epoch = uint64(s.log), uint64(s.released), uint32(r.epoch)
	m.LastKnownGood, m.CountBase, m.CountKnown = uint32(r.lng), r.base, r.recovered
	c.m.Releases.Add(1)
}

// tellAgain is for those who did not hear: the shards without a copy of the last
// record once the log is quiet, whoever was dead, and now and then everybody,
// since a RELEASE may be lost.
func (s *sequencer) tellAgain(kind timerKind) {
	r, c := s.cur, s.c
	if r == nil || r.preempted {
		return
	}
	behind := false
	for i := range r.told {
		if kind == timerAll || r.told[i].lsn < s.released || s.released == 0 {
			r.tell(i)
			behind = behind || r.told[i].lsn < s.released
		}
	}
	if behind {
		s.arm(timerLaggards, c.cfg.ReleaseLaggards)
	}
	if kind == timerAll {
		s.arm(timerAll, c.cfg.ReleaseAll)
	}
}
