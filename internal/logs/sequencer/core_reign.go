package sequencer

import (
	"slices"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// reign is one epoch of a log on this node.
type reign struct {
	s     *sequencer
	epoch logs.Epoch
	since logs.Epoch // the first epoch with this set
	set   *replicaSet
	win   window
	lng   logs.ESN
	// frozen: a record was given up, so lng stands (Q4).
	frozen    bool
	preempted bool
	draining  bool
	givenUp   bool // corrupt: no more LSNs
	recovered bool
	recording bool // the recovery has been asked for
	recovery  uint64
	readable  bool // the epoch's metadata can be read in the metadata log
	meta      *appender
	mark      marking
	metadata  *wire.EpochMetadata // until it is readable
	prior     *wire.EpochMetadata // of the epochs before, until they are recovered
	record    *wire.EpochRecord   // until earlier epochs are recovered
	began     time.Duration

	payloads uint64           // in all records given an LSN
	bytes    uint64           // of those, as stored
	base     uint64           // payloads of earlier epochs; known once recovered
	tail     *wire.TailRecord // of earlier epochs, once recovered; nil: none
	lastMs   int64            // timestamp of the last record given an LSN
	reapedMs int64            // of the last reaped
	reapedN  uint64           // payloads up to the last reaped
	sticky   *sticky
	told     []told // by place in the audience; see tellings
	audience *audience
	looked   logs.LSN // what was released when tellAgain last looked
	repeats  uint8    // how often it told again what is released now
}

// sticky is the copyset of a block of records.
type sticky struct {
	copyset []logs.ShardID
	bytes   int64
	until   time.Duration
}

// accepts says whether the epoch gives out LSNs.
func (r *reign) accepts() bool {
	return !r.preempted && !r.draining && !r.givenUp && r.win.next <= r.s.c.cfg.ESNMax
}

// full says why no record can be begun, "" if one can.
func (r *reign) full(size int64) string {
	switch {
	case r.win.len() >= int(max(2, r.s.attrs.GetMaxWritesInFlight())):
		return "the log has as many records in flight as it may"
	case !r.s.c.room(size):
		return "the node holds as many bytes of appends as it may"
	}
	return ""
}

// copyset chooses where the next record goes.
func (r *reign) copyset(size int64) ([]logs.ShardID, bool) {
	c := r.s.c
	if !r.s.attrs.GetStickyCopysets() {
		out, ok := c.pick(r.set, c.spare[:0])
		c.spare = out[:0]
		return out, ok
	}
	st := r.sticky
	if st != nil && (st.bytes+size > c.cfg.StickyBytes || c.now >= st.until ||
		slices.ContainsFunc(st.copyset, func(sh logs.ShardID) bool { return !c.usable(sh, false) })) {
		st = nil
	}
	if st == nil {
		out, ok := c.pick(r.set, nil)
		if !ok {
			return nil, false
		}
		st = &sticky{copyset: out, until: c.now + c.cfg.StickyFor}
		r.sticky = st
	}
	st.bytes += size
	return st.copyset, true
}

// retire takes note that an appender is through, and moves the window.
func (r *reign) retire(a *appender) {
	c := r.s.c
	c.inFlight--
	c.wheel.clear(&a.timer)
	for {
		a := r.win.pop()
		if a == nil {
			break
		}
		c.share.bytes.Add(-a.size)
		r.reap(a)
	}
	r.s.advance()
	r.s.arm(timerQuiet, c.cfg.ReleaseQuiet)
	if r.win.len() == 0 {
		r.emptied()
	}
}

// reap lets a record go whose predecessors have all gone.
func (r *reign) reap(a *appender) {
	if a.state != complete {
		r.frozen = true
		pointFrozen.Reach()
	}
	if r.frozen {
		if a.state == complete && a.inOrder() { // recovery may put a hole before it, and then there (Q11)
			pointOrphan.Reach()
			a.leave()
		}
		return
	}
	if a.esn != r.lng+1 {
		panic("BUG: the window does not slide record by record")
	}
	r.lng = a.esn
	rec := &a.out.rec
	r.reapedMs, r.reapedN = rec.TimestampMs, rec.CountBefore+uint64(rec.Count)
	for _, sh := range rec.Copyset {
		if i, ok := r.audience.index(logs.ShardID(sh)); ok {
			r.tellings()[i].due = true
		}
	}
	if a.inOrder() {
		a.acknowledge()
	}
}

// emptied: nothing is in flight in this epoch.
func (r *reign) emptied() {
	s := r.s
	s.arm(timerIdle, s.c.cfg.SessionIdleFor)
	if r == s.old {
		pointDrained.Reach()
		s.drained()
		s.resumeHeld() // streams go on in the next
	}
}

// stamp is the time of a record: never before that of an earlier one.
func (r *reign) stamp() int64 {
	r.lastMs = max(r.lastMs, r.s.c.wallMs)
	return r.lastMs
}

// tailRecord is the last record of the log that is fully stored with all before
// it, nil while earlier epochs are not recovered.
func (r *reign) tailRecord() *wire.TailRecord {
	switch {
	case !r.recovered:
		return nil
	case r.lng > 0:
		return &wire.TailRecord{Log: uint64(r.s.log), Lsn: uint64(logs.MakeLSN(r.epoch, r.lng)), TimestampMs: r.reapedMs, Count: r.base + r.reapedN}
	case r.tail != nil:
		return &wire.TailRecord{Log: uint64(r.s.log), Lsn: r.tail.Lsn, TimestampMs: r.tail.TimestampMs, Count: r.base}
	}
	return &wire.TailRecord{Log: uint64(r.s.log), Count: r.base}
}

// assigned is the LSN of the last record that was given one, in any epoch.
func (r *reign) assigned() logs.LSN {
	switch {
	case r.win.next > logs.ESNMin:
		return logs.MakeLSN(r.epoch, r.win.next-1)
	case r.tail != nil:
		return logs.LSN(r.tail.Lsn)
	}
	return logs.LSNInvalid
}

// reignFor finds the reign of an epoch, nil if it is over.
func (s *sequencer) reignFor(e logs.Epoch) *reign {
	if s.cur != nil && s.cur.epoch == e {
		return s.cur
	}
	if s.old != nil && s.old.epoch == e {
		return s.old
	}
	return nil
}

// preemptedBy takes note of a seal against an epoch.
func (r *reign) preemptedBy(by catalog.NodeID, seal logs.Epoch) {
	s := r.s
	if r.preempted || r != s.cur {
		return
	}
	r.preempted = true
	pointPreempted.Reach()
	s.c.m.Preempted.Add(1)
	s.preempt = preemption{by: by, seal: max(seal, r.epoch)}
	s.state = StatePreempted
	s.c.notice(Notice{What: "preempted", Log: s.log, Epoch: r.epoch, Node: by})
	if s.act == nil {
		s.verify()
	}
	if s.gathered != nil {
		s.flushGathered()
	}
}
