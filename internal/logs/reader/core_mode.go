package reader

import (
	"time"
)

// mode is who sends what, and when that changes.
type mode struct {
	version uint64 // R3: the filter version of all that is looked at
	single  bool   // single-copy delivery, else all send all
	// allUntil: all send all ends when the front is above it.
	allUntil LSN

	rewindAt   time.Duration // a rewind is due, 0 if none is
	toSingle   bool          // and then it is single-copy delivery
	rewoundAt  time.Duration
	backoff    time.Duration // between rewinds that get nowhere
	frontSince time.Duration // since when the front has been where it is

	lookedAgain LSN // the front that was looked at again before a gap was told that is counted (R7)
}

// rewindMax bounds the pause between rewinds that get nowhere.
const rewindMax = time.Second

// moved notes that the front did.
func (m *mode) moved(now time.Duration) {
	m.frontSince = now
	m.backoff = 0
}

// rewindSoon has all shards start again, once all is seen that came at this moment;
// a little later if the last rewind got nowhere.
func (c *Core) rewindSoon(single bool) {
	m := &c.mode
	if m.rewindAt == 0 {
		m.rewindAt = max(c.now, m.rewoundAt+m.backoff, 1)
		m.toSingle = single
		return
	}
	m.toSingle = m.toSingle && single
}

// rewindIfDue carries out a rewind.
func (c *Core) rewindIfDue() {
	m := &c.mode
	if m.single != c.cfg.SingleCopy && m.rewindAt == 0 && c.head > m.allUntil {
		c.backToSingle()
	}
	if m.rewindAt == 0 || c.now < m.rewindAt {
		return
	}
	m.backoff = min(max(c.cfg.RetryMin, 2*m.backoff), rewindMax)
	c.rewindNow(m.toSingle)
}

// backToSingle ends all send all: the window for which it was needed is passed.
func (c *Core) backToSingle() {
	for _, s := range c.shards {
		s.down = s.state == shardIdle && s.err != nil || s.status == ShardDown || s.status == ShardLost
		s.downTo = c.head
	}
	c.rewindSoon(true)
}

// rewindNow starts all shards from the front under a new filter version. What was
// told of LSNs above it is forgotten with the version that it was told under.
func (c *Core) rewindNow(single bool) {
	m := &c.mode
	m.rewindAt, m.rewoundAt = 0, c.now
	m.version++
	c.Counters.Rewinds++
	if single && c.everybodyDown() {
		single = false
	}
	if !single {
		if m.single {
			c.Counters.AllSendAll++
		}
		m.allUntil = c.window.high
		for _, s := range c.shards {
			s.down = false
		}
	}
	m.single = single
	m.frontSince = c.now
	c.grace.reset()
	for _, s := range c.shards {
		c.window.free(s.slots.reset())
		s.next, s.suspectTo, s.sent, s.high = c.head, 0, false, 0
		if s.state == shardStarted && !s.asking {
			s.state, s.retryAt = shardIdle, 0 // its stream is rewound
			continue
		}
		// An answer may be under way that was not made for this version. It is dropped
		// (R3); the stream that it was taken from is left behind with it.
		retry := s.retryAt
		idle := s.state == shardIdle
		c.stop(s)
		s.retryAt = 0
		if idle {
			s.retryAt = retry
		}
	}
}

func (c *Core) everybodyDown() bool {
	for _, s := range c.shards {
		if !s.down {
			return false
		}
	}
	return len(c.shards) > 0
}

// passOver has others send in place of a shard, for LSNs up to to at least.
func (c *Core) passOver(s *shard, to LSN) {
	if !c.mode.single {
		return
	}
	s.downTo = max(s.downTo, to)
	if s.down {
		return
	}
	s.down, s.sent = true, false
	c.rewindSoon(true)
}

// checkBackUp takes shards off the list that send again, once what they were put
// there for is passed; not before, or they would be put there again.
func (c *Core) checkBackUp() {
	if !c.mode.single {
		return
	}
	for _, s := range c.shards {
		if s.down && s.sent && s.state == shardStarted && s.status == ShardUp && c.head > s.downTo && s.suspectTo <= c.head {
			s.down = false
			c.rewindSoon(true)
		}
	}
}

// checkEverybody acts, in single-copy delivery, when every shard has passed the front
// or is passed over: who was to send what is there has not got it.
func (c *Core) checkEverybody() {
	if !c.mode.single || c.mode.rewindAt != 0 || len(c.shards) == 0 || c.head.Epoch() > c.meta.through {
		return
	}
	passed, suspects := false, false
	for _, s := range c.shards {
		switch {
		case s.next > c.head:
			passed = true
			suspects = suspects || (c.head < s.suspectTo && !s.down)
		case s.down || s.status == ShardLost || s.status == ShardEmptied:
		default:
			return
		}
	}
	if !passed && !c.everybodyDown() {
		return
	}
	if !suspects {
		c.rewindSoon(false)
		return
	}
	for _, s := range c.shards {
		if s.next > c.head && c.head < s.suspectTo {
			c.passOver(s, s.suspectTo-1)
		}
	}
}

// checkFront acts, in single-copy delivery, when the front is released and nobody
// sends it for long.
func (c *Core) checkFront() {
	m := &c.mode
	if c.rel < c.head || c.head.Epoch() > c.meta.through || len(c.shards) == 0 {
		m.frontSince = c.now // there is nothing to be missed
		return
	}
	if !m.single || m.rewindAt != 0 || c.now < m.frontSince+c.cfg.FailOver {
		return
	}
	silent := false
	for _, s := range c.shards {
		if s.next <= c.head && !s.down {
			silent = true
			c.passOver(s, c.head)
		}
	}
	if !silent {
		c.rewindSoon(false)
	}
}
