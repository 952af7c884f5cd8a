package sequencer

import (
	"fmt"
	"slices"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// sequencer is one log on this node. There may be 10^5 that are idle: what only
// a busy one needs hangs from it and is let go.
type sequencer struct {
	c     *core
	log   logs.LogID
	state State
	gone  bool // dropped: its timers mean nothing
	flush bool // a release is to be sent at the end of the turn
	armed uint32
	attrs *catalog.LogAttributes

	// Who should sequence the log, as of a version of the view.
	target    catalog.NodeID
	targetOK  bool
	targetFor uint64

	cur, old *reign
	act      *activation
	preempt  preemption
	failure  *failure

	buffer   []pending // wait for an epoch or for a copyset, in order of arrival
	draining bool      // the buffer is being emptied
	drainAt  int       // what was admitted of it so far
	sessions map[uint64]*session
	gathered *gathering
	lookups  []*lookup
	states   []*stateRequest // wait for an epoch

	// forgotten: of appends up to here this node does not know that they are not
	// there (Q6).
	forgotten logs.LSN
	released  logs.LSN
	trimmed   logs.LSN // the highest trim point that shards told of
	// Activations of the present second, for the limit.
	bumpsSince time.Duration
	bumps      int32
	configAge  uint64 // for which the nodeset was last compared
	history    *history
}

// preemption is by whom the sequencer was told that it reigns no more. Who sealed
// an epoch had been given the next one, so that the epoch store is beyond that.
type preemption struct {
	by   catalog.NodeID
	seal logs.Epoch
}

// failure is why a log is not sequenced, for a while.
type failure struct {
	status wire.LogStatus
	text   string
	until  time.Duration
}

func (c *core) sequencerOf(log logs.LogID, attrs *catalog.LogAttributes) *sequencer {
	s := c.logs[log]
	if s == nil {
		s = &sequencer{c: c, log: log}
		c.logs[log] = s
		c.order = append(c.order, s)
		c.m.Sequencers.Add(1)
		c.goRound()
	}
	s.attrs = attrs
	return s
}

// arm makes a timer ring once; one that is set stays as it is.
func (s *sequencer) arm(kind timerKind, d time.Duration) {
	if s.armed&(1<<kind) != 0 {
		return
	}
	s.armed |= 1 << kind
	s.c.wheel.set(&timer{kind: kind, s: s}, s.c.now+d)
}

func (s *sequencer) ring(kind timerKind) {
	s.armed &^= 1 << kind
	if s.gone {
		return
	}
	switch kind {
	case timerActivate:
		if s.act != nil {
			s.act.ring()
		}
	case timerDrain:
		s.drainOver()
	case timerRecover:
		s.startRecovery()
	case timerMark:
		if s.cur != nil {
			s.cur.markWritten()
		}
	case timerBuffer:
		s.lookAtBuffer()
	case timerAnswer:
		s.answerOverdue()
	case timerQuiet, timerLaggards:
		s.tellAgain()
	case timerGather:
		s.flushGathered()
	case timerIdle:
		s.forgetIdle()
	case timerNodeset:
		s.compareNodeset()
	case timerLookup:
		s.lookAtHeld()
	case timerAsk:
		s.askAgain()
	}
}

// enqueue lets an append wait for an epoch or a copyset.
func (s *sequencer) enqueue(p pending) { s.enqueueAt(len(s.buffer), p) }

func (s *sequencer) enqueueAt(i int, p pending) {
	size := p.size()
	if len(s.buffer) >= s.c.cfg.BufferMax || !s.c.roomToWait(size) {
		s.refuse(&p, wire.LogStatus_LOG_STATUS_SEQNOBUFS, "too many appends wait for "+s.waitsFor())
		return
	}
	s.c.share.bytes.Add(size)
	s.buffer = slices.Insert(s.buffer, i, p)
	s.c.m.Buffered.Add(1)
	s.arm(timerBuffer, s.c.cfg.MissingWait)
}

// patience is how long appends wait without an LSN before their clients are told
// what for.
func (s *sequencer) patience() time.Duration {
	if s.cur != nil && s.cur.accepts() || s.act != nil && s.act.under {
		return s.c.cfg.MissingWait
	}
	return s.c.cfg.AppendWait
}

// drainBuffer admits what waits, in order, until one has to wait on.
func (s *sequencer) drainBuffer() {
	if s.draining {
		return
	}
	s.draining, s.drainAt = true, 0
	for s.drainAt < len(s.buffer) {
		p := s.buffer[s.drainAt] // a batch may be put before it
		if !s.admit(&p) {
			break
		}
		s.c.share.bytes.Add(-p.size())
		s.buffer[s.drainAt] = pending{}
		s.drainAt++
	}
	s.buffer = s.buffer[s.drainAt:]
	if len(s.buffer) == 0 {
		s.buffer = nil
	}
	s.draining, s.drainAt = false, 0
}

// lookAtBuffer tells those that waited too long what they waited for, and tries
// the others.
func (s *sequencer) lookAtBuffer() {
	s.drainBuffer()
	n := 0
	for n < len(s.buffer) && s.buffer[n].arrived+s.patience() <= s.c.now {
		n++
	}
	if n > 0 {
		st, text := s.causeOfWaiting()
		for i := range n {
			s.c.share.bytes.Add(-s.buffer[i].size())
			s.refuse(&s.buffer[i], st, text)
		}
		s.buffer = s.buffer[n:]
	}
	if len(s.buffer) > 0 {
		left := s.buffer[0].arrived + s.patience() - s.c.now
		s.arm(timerBuffer, max(min(left, s.c.cfg.MissingWait), wheelTick)) // patience may end sooner by then
	} else {
		s.buffer = nil
	}
}

// refuseBuffered answers everything that waits for an epoch.
func (s *sequencer) refuseBuffered(st wire.LogStatus, redirect catalog.NodeID, text string) {
	waiting := s.buffer
	s.buffer = nil
	for i := range waiting {
		p := &waiting[i]
		s.c.share.bytes.Add(-p.size())
		if redirect != 0 {
			s.redirect(p, st, redirect)
		} else {
			s.refuse(p, st, text)
		}
	}
	for _, q := range s.states {
		s.c.answerState(q, &wire.SequencerStateResponse{Status: st, Redirect: uint64(redirect), Message: text, State: s.state.String()})
	}
	s.states = nil
}

// refuse answers an append, or all that were gathered in it, without an LSN.
func (s *sequencer) refuse(p *pending, st wire.LogStatus, text string) {
	if p.gathered == nil {
		s.c.refuse(p, st, text)
		return
	}
	s.c.m.Refused.Add(1)
	s.forgetGathered(p.gathered)
	p.gathered.tell(s, &wire.AppendResponse{Status: st, Message: text, Log: uint64(s.log)})
}

func (s *sequencer) redirect(p *pending, st wire.LogStatus, to catalog.NodeID) {
	r := &wire.AppendResponse{Status: st, Redirect: uint64(to), Log: uint64(s.log)}
	if s.cur != nil {
		r.Epoch = uint32(s.cur.epoch)
	}
	s.c.m.Redirected.Add(1)
	if p.gathered == nil {
		s.c.answer(p.reply, r)
		return
	}
	s.forgetGathered(p.gathered)
	p.gathered.tell(s, r)
}

// causeOfWaiting says what appends of this log wait for.
func (s *sequencer) causeOfWaiting() (wire.LogStatus, string) {
	if s.cur == nil || !s.cur.accepts() {
		text := "the log's sequencer is activating"
		if s.act != nil && s.act.trouble != "" {
			text += ": " + s.act.trouble
		}
		if s.act != nil && s.act.under {
			return wire.LogStatus_LOG_STATUS_UNDER_REPLICATED, text
		}
		return wire.LogStatus_LOG_STATUS_NOT_READY, text
	}
	return wire.LogStatus_LOG_STATUS_UNDER_REPLICATED, s.cur.missing(s.cur.set)
}

func (s *sequencer) waitsFor() string {
	_, text := s.causeOfWaiting()
	return text
}

// missing names the shards that keep a copyset from being found.
func (r *reign) missing(of *replicaSet) string {
	text := fmt.Sprintf("%d copies are asked for, and of the nodeset", of.copies)
	n := 0
	for _, sh := range of.shards {
		if why := r.s.c.why(sh.Shard); why != "" {
			if n > 0 {
				text += ","
			}
			text += fmt.Sprintf(" %s is %s", sh.Shard, why)
			n++
		}
	}
	if n == 0 {
		return fmt.Sprintf("%d copies are asked for, which the storage nodes have not made in time", of.copies)
	}
	return text
}

// size is what an append takes of the node's memory, about.
func (p *pending) size() int64 { return int64(len(p.req.Payload)) + appenderOverhead }

const appenderOverhead = 512

func (c *core) room(size int64) bool { return c.share.bytes.Load()+size <= c.cfg.AppenderBytes }

// roomToWait is for what has no LSN yet: waiting ends at the soft limit, so that
// logs which cannot be written leave room for those that can.
func (c *core) roomToWait(size int64) bool {
	return c.share.bytes.Load()+size <= c.cfg.AppenderBytesSoft
}

// tight says that memory is short: batches do not linger.
func (c *core) tight() bool { return c.share.bytes.Load() > c.cfg.AppenderBytesSoft }

// wakeWaiting lets everything look again that waits for a copyset.
func (c *core) wakeWaiting() {
	if c.closed {
		return
	}
	stuck := c.stuck
	c.stuck = nil
	for _, a := range stuck {
		a.stuck = false
		if a.state == flying && a.concluded {
			a.again()
		}
	}
	for _, s := range c.order {
		if len(s.buffer) > 0 && s.cur != nil {
			s.drainBuffer()
		}
	}
}

// drop forgets a sequencer. Nothing of it is in flight, or the process ends.
func (c *core) drop(s *sequencer) {
	s.gone = true
	delete(c.logs, s.log)
	c.gone++ // it leaves c.order at the end of the turn
	c.m.Sequencers.Add(-1)
}

// compact takes dropped sequencers out of the order.
func (c *core) compact() {
	if c.gone == 0 {
		return
	}
	at := c.sweep.at
	kept := c.order[:0]
	for i, s := range c.order {
		if !s.gone {
			kept = append(kept, s)
		} else if i < at {
			c.sweep.at--
		}
	}
	clear(c.order[len(kept):])
	c.order, c.gone = kept, 0
}
