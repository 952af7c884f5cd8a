package sequencer

import (
	"fmt"
	"slices"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// appender has one record stored: in waves, each of which asks every shard of
// one copyset, until all of one wave said STORED (Q1).
type appender struct {
	r     *reign
	set   *replicaSet
	state appenderState
	esn   logs.ESN
	wave  uint32
	out   *outgoing // what the present wave sent; the record is in it
	wave1 outgoing  // of the first
	size  int64
	began time.Duration
	sent  time.Duration

	stored, failed marks // by place in the copyset of this wave
	nStored, nFail int
	concluded      bool // the wave cannot become whole; the next one starts when the timer rings
	stuck          bool // no copyset was found; listed in core.stuck
	fenced         bool // a shard said PREEMPTED
	told           bool // the callers have been answered
	fence          preemption
	holders        []logs.ShardID // have a copy of some wave: they get no payload again

	first    waiter
	more     []waiter // further callers: retries, and the others of a batch
	gathered *gathering
	finished func() // of a metadata record
	timer    timer
}

type appenderState uint8

const (
	flying appenderState = iota
	complete
	abandoned
)

// waiter is a caller that waits for the record.
type waiter struct {
	reply func(*wire.AppendResponse)
	req   *wire.AppendRequest // of a gathered append
}

// marks are a set of places in a copyset.
type marks [2]uint64

func (m *marks) has(i int) bool { return m[i/64]&(1<<(i%64)) != 0 }
func (m *marks) add(i int)      { m[i/64] |= 1 << (i % 64) }

// outgoing is what a wave sends, in one piece of memory: it is not changed once
// it is sent.
type outgoing struct {
	rec      wire.LogRecord
	amend    *wire.LogRecord // the same without payload, where somebody holds that
	draining bool
	stores   []wire.Store
	room     [3]wire.Store
	ids      [3]uint64
}

// reserve makes room for so many copies.
func (o *outgoing) reserve(copies int) *outgoing {
	if copies <= len(o.room) {
		o.stores, o.rec.Copyset = o.room[:copies], o.ids[:copies:copies]
	} else {
		o.stores, o.rec.Copyset = make([]wire.Store, copies), make([]uint64, copies)
	}
	return o
}

// headTo copies everything but the payload, the wave and the copyset.
func headTo(dst, src *wire.LogRecord) {
	dst.Log, dst.Lsn, dst.TimestampMs, dst.Flags = src.Log, src.Lsn, src.TimestampMs, src.Flags
	dst.CountBefore, dst.Count, dst.Producer, dst.Sequence = src.CountBefore, src.Count, src.Producer, src.Sequence
	dst.FindKey, dst.FilterKey, dst.Checksum, dst.Origins = src.FindKey, src.FilterKey, src.Checksum, src.Origins
}

// start sends the first wave.
func (a *appender) start(copyset []logs.ShardID) { a.send(copyset) }

// send is one wave: STORE to every shard of the copyset.
func (a *appender) send(copyset []logs.ShardID) {
	c, o := a.r.s.c, a.out
	a.wave++
	if a.wave > 1 || len(copyset) != len(o.stores) {
		next := new(outgoing).reserve(len(copyset))
		headTo(&next.rec, &o.rec)
		next.rec.Payload = o.rec.Payload
		o, a.out = next, next
	}
	if a.wave > 1 {
		c.m.Waves.Add(1)
		pointWave.Reach()
		a.r.sticky = nil // a block ends with its first store that failed
	}
	a.stored, a.failed, a.nStored, a.nFail, a.concluded = marks{}, marks{}, 0, 0, false
	a.sent = c.now
	o.draining = a.r.draining
	o.rec.Wave, o.rec.LastKnownGood = a.wave, uint32(a.r.lng)
	for i, s := range copyset {
		o.rec.Copyset[i] = uint64(s)
	}
	for i, s := range copyset {
		st := &o.stores[i]
		st.Record, st.Draining, st.Cookie = &o.rec, o.draining, uint64(s)
		if slices.Contains(a.holders, s) {
			st.Record, st.Amend = o.amended(), true
			c.m.Amends.Add(1)
			pointAmend.Reach()
		}
		p := c.parcelTo(s.Node())
		p.batch.Stores = append(p.batch.Stores, st)
	}
	c.m.Stores.Add(uint64(len(copyset)))
	c.wheel.set(&a.timer, c.now+a.patience())
}

func (o *outgoing) amended() *wire.LogRecord {
	if o.amend == nil {
		o.amend = &wire.LogRecord{Wave: o.rec.Wave, LastKnownGood: o.rec.LastKnownGood, Copyset: o.rec.Copyset}
		headTo(o.amend, &o.rec)
	}
	return o.amend
}

// patience is how long a wave may take: more with every wave, and more when
// disks are slow everywhere.
func (a *appender) patience() time.Duration {
	cfg := a.r.s.c.cfg
	d := max(cfg.StoreTimeout, 2*a.r.s.c.slow)
	for range min(a.wave-1, 32) {
		if d >= cfg.StoreTimeoutMax {
			break
		}
		d *= 2
	}
	return min(d, cfg.StoreTimeoutMax)
}

// stored takes a node's answers.
func (c *core) stored(b *wire.LogBatch) {
	from := catalog.NodeID(b.FromNode)
	for _, st := range b.Stored {
		log, lsn := logs.LogID(st.Log), logs.LSN(st.Lsn)
		s := c.logs[log.DataLog()]
		if s == nil {
			continue
		}
		r := s.reignFor(lsn.Epoch())
		if r == nil {
			continue
		}
		a := r.meta
		if !log.IsMetadata() {
			a = r.win.at(lsn.ESN())
		}
		shard := logs.ShardID(st.Cookie)
		if a != nil && a.state == flying && shard.Node() == from {
			a.heard(shard, st)
		}
	}
}

// heard is one shard's answer.
func (a *appender) heard(shard logs.ShardID, st *wire.Stored) {
	c := a.r.s.c
	ok := st.Status == wire.LogStatus_LOG_STATUS_OK
	if st.LowSpace {
		c.health(shard).low = true
	}
	if st.Wave != a.wave {
		if ok && st.Wave < a.wave { // late, but a copy
			a.holds(shard)
		}
		return
	}
	i := slices.Index(a.out.rec.Copyset, uint64(shard))
	if i < 0 || a.stored.has(i) || a.failed.has(i) {
		return
	}
	if ok {
		a.stored.add(i)
		a.nStored++
		if a.nStored == len(a.out.rec.Copyset) {
			a.complete()
		} else if a.fenced {
			a.giveUpFenced()
		}
		return
	}
	a.failed.add(i)
	a.nFail++
	a.holders = slices.DeleteFunc(a.holders, func(s logs.ShardID) bool {
		return s == shard && st.Status != wire.LogStatus_LOG_STATUS_PREEMPTED
	})
	switch st.Status {
	case wire.LogStatus_LOG_STATUS_PREEMPTED:
		a.preempted(shard, st)
	case wire.LogStatus_LOG_STATUS_CHECKSUM_MISMATCH:
		if a.corrupt(shard) {
			return
		}
		a.refused(shard, st.Status)
	case wire.LogStatus_LOG_STATUS_FAILED:
		if a.out.stores[i].Amend {
			a.nothingThere()
			return
		}
		a.refused(shard, st.Status)
	default:
		a.refused(shard, st.Status)
	}
}

// nothingThere: a shard has not got the copy that it was to amend, for it lost the end
// of its journal. It is in order otherwise, and gets the whole record at once.
func (a *appender) nothingThere() {
	pointAmendLost.Reach()
	a.concluded = true
	if a.fenced {
		a.giveUpFenced()
		return
	}
	a.again()
}

func (a *appender) holds(shard logs.ShardID) {
	if !slices.Contains(a.holders, shard) {
		a.holders = append(a.holders, shard)
	}
}

// refused: the wave is lost. The first two are begun anew at once, later ones
// when their time is over.
func (a *appender) refused(shard logs.ShardID, st wire.LogStatus) {
	a.r.s.c.refusedBy(shard, st)
	a.concluded = true
	switch {
	case a.fenced:
		a.giveUpFenced()
	case a.wave <= 2:
		a.again()
	}
}

// waveTimedOut: whoever was silent is graylisted, and the next wave begins.
func (a *appender) waveTimedOut() {
	if a.state != flying {
		return
	}
	for i, s := range a.out.rec.Copyset {
		if !a.concluded && !a.stored.has(i) && !a.failed.has(i) {
			a.r.s.c.silent(logs.ShardID(s))
		}
	}
	a.concluded = true
	if a.fenced {
		a.giveUp()
		return
	}
	a.again()
}

// again starts the next wave elsewhere, or, where no copyset is left, waits for one.
func (a *appender) again() {
	c := a.r.s.c
	for i, s := range a.out.rec.Copyset {
		if a.stored.has(i) {
			a.holds(logs.ShardID(s))
		}
	}
	a.answerIfOverdue()
	set := a.set
	if a.finished != nil { // nodes may have died since its first wave, or come
		set = a.r.metadataSet()
	}
	copyset, ok := c.pick(set, c.spare[:0])
	if ok {
		c.spare, a.set = copyset[:0], set
		a.send(copyset)
		return
	}
	a.concluded = true
	if !a.stuck {
		a.stuck = true
		c.stuck = append(c.stuck, a)
	}
	c.wheel.set(&a.timer, c.now+a.patience())
}

// complete: all copies of one wave are durable, and the record is acknowledged. What
// is before it in the window matters only to one of a stream, which waits for that.
func (a *appender) complete() {
	c := a.r.s.c
	if a.nStored != len(a.out.rec.Copyset) || a.nStored < min(a.set.copies, len(a.set.shards)) {
		panic("BUG: a record is acknowledged with too few copies") // Q1
	}
	a.state = complete
	if took := c.now - a.sent; took > c.slow {
		c.slow = took
	} else {
		c.slow -= (c.slow - took) / 64
	}
	if a.finished != nil {
		c.wheel.clear(&a.timer)
		a.finished()
		return
	}
	if !a.inOrder() {
		a.acknowledge()
	}
	a.r.retire(a)
}

// inOrder says whether the record is acknowledged only behind all before it.
func (a *appender) inOrder() bool { return a.out.rec.Flags&logs.FlagStream != 0 }

// acknowledge tells the callers that the record is stored.
func (a *appender) acknowledge() {
	if a.inOrder() && a.r.lng < a.esn {
		panic("BUG: Q11: a record of a stream is acknowledged before one that is before it")
	}
	rec := &a.out.rec
	a.settle(logs.LSN(rec.Lsn))
	a.tell(&wire.AppendResponse{Lsn: rec.Lsn, Epoch: uint32(a.r.epoch), TimestampMs: rec.TimestampMs, Log: rec.Log})
	a.r.s.c.m.Stored.Add(1)
}

// tell answers every caller that waits.
func (a *appender) tell(r *wire.AppendResponse) {
	c := a.r.s.c
	a.told = true
	c.answer(a.first.reply, r)
	a.first.reply = nil
	for _, w := range a.more {
		one := &wire.AppendResponse{Status: r.Status, Lsn: r.Lsn, Redirect: r.Redirect, Epoch: r.Epoch, TimestampMs: r.TimestampMs,
			Message: r.Message, StoredAs: r.StoredAs, Log: r.Log}
		c.answer(w.reply, one)
	}
	a.more = nil
}

// answerIfOverdue tells callers that the outcome is open; the record is pursued.
func (a *appender) answerIfOverdue() {
	if a.finished != nil || a.told && len(a.more) == 0 || a.r.s.c.now < a.began+a.r.s.c.cfg.MissingWait {
		return
	}
	a.r.s.c.m.TimedOut.Add(1)
	rec, what := &a.out.rec, "is not fully stored"
	if a.state == complete {
		what = "waits for what is before it"
	}
	a.tell(&wire.AppendResponse{Status: wire.LogStatus_LOG_STATUS_UNDER_REPLICATED, StoredAs: rec.Lsn, Log: rec.Log, Epoch: uint32(a.r.epoch),
		Message: fmt.Sprintf("%s %s: %s", logs.LSN(rec.Lsn), what, a.r.missing(a.set))})
}

// preempted: a newer epoch's seal stands against the record. A soft seal is no
// more than that epoch's first record, and does not hold against one that drains.
func (a *appender) preempted(shard logs.ShardID, st *wire.Stored) {
	if st.Soft && a.r.draining && !a.out.draining {
		a.again()
		return
	}
	a.fenced = true
	a.fence = preemption{by: catalog.NodeID(st.SealedBy), seal: logs.Epoch(st.SealEpoch)}
	a.r.preemptedBy(a.fence.by, a.fence.seal)
	a.giveUpFenced()
}

// giveUpFenced gives a fenced record up once it is known whether it has copies:
// a copy settles that, or everybody's answer.
func (a *appender) giveUpFenced() {
	pointFenced.Reach()
	waiting := len(a.out.rec.Copyset) - a.nStored - a.nFail
	if a.nStored > 0 || len(a.holders) > 0 || waiting == 0 {
		a.giveUp()
	}
}

// giveUp leaves the record to recovery.
func (a *appender) giveUp() {
	r := a.r
	if a.finished != nil { // a metadata record's fate is the next sequencer's
		r.s.c.wheel.clear(&a.timer)
		a.state = abandoned
		return
	}
	a.leave()
	a.state = abandoned
	r.retire(a)
}

// leave: what becomes of the record recovery decides. The callers learn under which
// LSN it may be kept, unless there is no copy and none can come.
func (a *appender) leave() {
	r, rec := a.r, &a.out.rec
	waiting := len(rec.Copyset) - a.nStored - a.nFail
	to := a.fence.by
	switch {
	case to != 0:
	case a.state == complete && r == r.s.cur && r.preempted: // one before it was fenced off
		to = r.s.preempt.by
	default:
		to = r.s.c.self
	}
	resp := &wire.AppendResponse{Status: wire.LogStatus_LOG_STATUS_PREEMPTED, Redirect: uint64(to), Epoch: uint32(r.epoch), Log: rec.Log,
		Message: "a newer epoch fences this one"}
	if a.wave > 1 || a.nStored > 0 || len(a.holders) > 0 || waiting > 0 {
		resp.StoredAs = rec.Lsn
	}
	a.settle(logs.LSNInvalid)
	a.tell(resp)
}

// corrupt: a shard says that the payload does not match its checksum. If it does
// not match here either, this process's memory lies, and it must end, unless so
// much of the cluster is dead that it cannot be spared: then only this epoch does.
func (a *appender) corrupt(shard logs.ShardID) bool {
	c, rec := a.r.s.c, &a.out.rec
	if logs.Checksum(rec.Payload) == rec.Checksum {
		return false
	}
	c.m.Corrupt.Add(1)
	dead := 0
	for _, n := range c.cluster.Nodes {
		if !n.Alive {
			dead++
		}
	}
	text := fmt.Sprintf("payload of %s of log %d does not match its checksum in this node's memory, as %s found", logs.LSN(rec.Lsn), rec.Log, shard)
	c.notice(Notice{What: "corrupt", Log: logs.LogID(rec.Log), Epoch: a.r.epoch, Node: c.self, Message: text, Grave: true})
	if dead*100 < corruptSpareDead*len(c.cluster.Nodes) {
		c.fx.fatal = fmt.Errorf("sequencer: %s", text)
		return true
	}
	a.r.givenUp = true
	a.giveUp()
	return true
}

// corruptSpareDead: with so many percent of the cluster dead, a corrupt
// sequencer stays.
const corruptSpareDead = 35

// answerOverdue looks for callers of this log that waited long enough.
func (s *sequencer) answerOverdue() {
	for _, r := range []*reign{s.cur, s.old} {
		if r == nil {
			continue
		}
		for e := r.win.front; e != r.win.next; e++ {
			r.win.at(e).answerIfOverdue()
		}
		if r.win.len() > 0 {
			s.arm(timerAnswer, s.c.cfg.MissingWait/4)
		}
	}
}
