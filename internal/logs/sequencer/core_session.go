package sequencer

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/placement"
	"github.com/braiddb/braid/internal/wire"
)

// session is what a sequencer remembers of one producer (Q6).
//
// An append that comes again, found in entries, gets the same outcome. A retry
// that is not found may have been stored by an earlier epoch, or under an LSN
// that this node has forgotten: it is held, and all later appends of its producer
// behind it, until earlier epochs are recovered and the storage nodes were asked.
// An explicit producer's next sequence is unknown until they were.
type session struct {
	producer uint64
	entries  []entry // ascending by sequence
	held     []pending
	lookup   *lookup
	touched  time.Duration
	past     logs.LSN // the highest of the entries that were let go
	// born is what this node had forgotten, of the epoch that reigned, when it began to
	// remember the producer: up to there an append of its may be stored that is in
	// neither entries nor below first.
	born logs.LSN
	// first is the highest first_running seen: the producer has had answers for all
	// sequences below, so that one that comes yet is a copy that was under way for long.
	first uint64
	// What the last lookup covered: sequences from lookedFirst on, above
	// lookedFrom, up to lookedTo.
	lookedFirst          uint64
	lookedFrom, lookedTo logs.LSN
	// lookedTrim is the trim point that the last lookup was told: what was stored up
	// to it cannot be found any more.
	lookedTrim logs.LSN

	explicit  bool
	lastKnown bool
	last      uint64 // the last sequence taken, of an explicit producer
	// whole is the sequence of an explicit producer from which entries leave none out
	// that is stored: below it, not to be there says nothing. lookedWide: as many as
	// can be were looked up.
	whole      uint64
	lookedWide bool
	dropped    uint64 // sequences below it may have been in entries and were let go
	// trimmedTo is the highest sequence known of records that were trimmed. fresh: of
	// the producer nothing at all was found, trimmed or not, when this node began with it.
	trimmedTo uint64
	fresh     bool
}

// entry is one append: under way (a), stored, or refused for good.
type entry struct {
	sequence uint64
	lsn      logs.LSN // refused: the tail that was told
	ms       int64
	a        *appender
	refused  wire.LogStatus // OK: it was not
	flags    uint32         // of the record, where it was looked up
}

func (ss *session) find(seq uint64) (int, bool) {
	if n := len(ss.entries); n == 0 || ss.entries[n-1].sequence < seq {
		return n, false // the usual case
	}
	return slices.BinarySearchFunc(ss.entries, seq, func(e entry, s uint64) int {
		switch {
		case e.sequence < s:
			return -1
		case e.sequence > s:
			return 1
		}
		return 0
	})
}

func (ss *session) put(e entry) {
	i, found := ss.find(e.sequence)
	if found {
		ss.entries[i] = e
		return
	}
	ss.entries = slices.Insert(ss.entries, i, e)
}

// trim forgets what the producer has had answers for.
func (ss *session) trim(first uint64, keep int) {
	ss.first = max(ss.first, first)
	n, _ := ss.find(ss.first)
	if ss.explicit {
		n = min(n, len(ss.entries)-keep)
	}
	k := 0
	for k < n && ss.entries[k].a == nil {
		k++
	}
	if k > 0 {
		ss.dropped = max(ss.dropped, ss.entries[k-1].sequence+1)
		for _, e := range ss.entries[:k] {
			if e.refused == wire.LogStatus_LOG_STATUS_OK {
				ss.past = max(ss.past, e.lsn)
			}
		}
		ss.entries = slices.Delete(ss.entries, 0, k)
	}
}

func (s *sequencer) session(producer uint64) *session {
	ss := s.sessions[producer]
	if ss == nil {
		if s.sessions == nil {
			s.sessions = make(map[uint64]*session)
		}
		if len(s.sessions) >= s.c.cfg.SessionsMax {
			s.evict()
		}
		ss = &session{producer: producer}
		if r := s.cur; r != nil {
			ss.born = min(s.forgotten, logs.MakeLSN(r.epoch, r.win.next-1))
		}
		s.sessions[producer] = ss
		s.arm(timerIdle, s.c.cfg.SessionIdleFor)
	}
	ss.touched = s.c.now
	return ss
}

// settled is step 3: true once the append is answered, held, or joined to one
// that is under way.
func (s *sequencer) settled(p *pending) bool {
	req := p.req
	conditional := req.Flags&logs.AppendConditional != 0
	if req.Producer == 0 && !conditional {
		return false
	}
	if req.Flags&logs.AppendProbe != 0 {
		return false
	}
	ss := s.session(req.Producer)
	if len(ss.held) > 0 {
		s.hold(ss, p)
		return true
	}
	if s.crosses(ss, req) {
		pointCrosses.Reach()
		s.hold(ss, p)
		return true
	}
	if s.mustWait(ss, p) {
		s.hold(ss, p)
		s.startLookup(ss)
		return true
	}
	return s.known(ss, p)
}

// ordered says whether an append is to be behind all that its producer began before
// it, whatever becomes of them. Who numbers its appends itself has said so.
func ordered(req *wire.AppendRequest) bool {
	return req.Flags&(logs.AppendStream|logs.AppendProducer) != 0
}

// crosses says whether an append of a stream is new, while one before it is under way
// in the epoch that drains: that one may yet be fenced off, and would come behind it.
func (s *sequencer) crosses(ss *session, req *wire.AppendRequest) bool {
	if s.old == nil || req.Producer == 0 || !ordered(req) {
		return false
	}
	end, found := ss.find(req.Sequence)
	at, _ := ss.find(ss.firstOpen(req))
	return !found && at < end && slices.ContainsFunc(ss.entries[at:end], func(e entry) bool { return e.a != nil && e.a.r == s.old })
}

// mustWait says whether the answer depends on what this node does not know yet.
func (s *sequencer) mustWait(ss *session, p *pending) bool {
	req := p.req
	if req.Flags&logs.AppendConditional != 0 && !s.cur.recovered {
		return true
	}
	if req.Producer == 0 {
		return false
	}
	if req.Flags&logs.AppendProducer != 0 {
		ss.explicit = true
		if !ss.lastKnown && s.forgotten == 0 {
			ss.lastKnown, ss.fresh = true, true
		}
		return !ss.lastKnown || s.mayBeOlder(ss, req)
	}
	if req.Flags&logs.AppendRetry == 0 || logs.LSN(req.After) >= s.forgotten || req.Sequence < ss.first {
		return false
	}
	if _, found := ss.find(req.Sequence); found {
		return false
	}
	covered := ss.lookedTo >= s.forgotten && logs.LSN(req.After) >= ss.lookedFrom && req.Sequence >= ss.lookedFirst
	return !covered
}

// mayBeOlder: an explicit producer has no answer for an append that may be older
// than what was looked up, and more can be.
func (s *sequencer) mayBeOlder(ss *session, req *wire.AppendRequest) bool {
	if req.Sequence > ss.last || req.Sequence >= ss.whole || req.Sequence < req.FirstRunning || ss.lookedWide {
		return false
	}
	_, found := ss.find(req.Sequence)
	return !found
}

// uninformed: this attempt, a first one, left before its client knew of this reign,
// and epochs that this node does not know may hold a later one: if it was under way
// for long its client has sent the append again, to others. Or it left before this
// node forgot of its producer what may have been a later one. A client that waits for
// this one is told the epoch, and above what it will be stored, and sends it once
// more. After that no epoch before this one can take it, for whoever is told of a
// later epoch reigns no more.
func (s *sequencer) uninformed(ss *session, req *wire.AppendRequest) bool {
	if req.Flags&(logs.AppendRetry|logs.AppendProducer|logs.AppendProbe) != 0 {
		return false
	}
	unknown := max(min(s.forgotten, logs.MakeLSN(s.cur.epoch, 0)), ss.born)
	return max(logs.LSN(req.After), logs.MakeLSN(logs.Epoch(req.SeenEpoch), 0)) < unknown
}

// mayBeTrimmed: an earlier attempt of an append that was not found may have been
// stored where the log is trimmed by now. Whether it was nobody can say any more.
// Of an explicit producer the storage nodes remember what was trimmed.
func (s *sequencer) mayBeTrimmed(ss *session, req *wire.AppendRequest) bool {
	if req.Flags&logs.AppendRetry == 0 || req.Flags&logs.AppendProducer != 0 {
		return false
	}
	return logs.LSN(req.After) < min(ss.lookedTrim, s.forgotten)
}

// overtaken: an append was sent before and is not found, and a later one of its stream
// is. It was lost, or given up by its client, and begun anew it would be behind that one
// (Q13). An explicit producer may itself begin one anew behind later ones; of it only
// what a recovery kept, that was not sure of what was before it, says so.
func (s *sequencer) overtaken(ss *session, req *wire.AppendRequest) bool {
	of := uint32(logs.FlagStream)
	if req.Flags&logs.AppendProducer != 0 {
		of = logs.FlagKept
	}
	if req.Flags&logs.AppendRetry == 0 || of == logs.FlagKept && !s.isHole(ss, req.Sequence) {
		return false
	}
	i, _ := ss.find(req.Sequence)
	return slices.ContainsFunc(ss.entries[i:], func(e entry) bool { return e.flags&of != 0 })
}

// known answers an append that is stored, joins it to one that is under way, and
// refuses what is not an explicit producer's next; false: it is new.
func (s *sequencer) known(ss *session, p *pending) bool {
	req := p.req
	if req.Producer == 0 {
		return false
	}
	ss.trim(req.FirstRunning, s.c.cfg.RememberedMax)
	if i, found := ss.find(req.Sequence); found {
		s.c.m.Duplicates.Add(1)
		e := &ss.entries[i]
		switch {
		case e.a != nil:
			e.a.more = append(e.a.more, waiter{p.reply, req})
			return true
		case e.refused != wire.LogStatus_LOG_STATUS_OK:
			s.c.answer(p.reply, &wire.AppendResponse{Status: e.refused, Tail: uint64(e.lsn), Log: req.Log, Message: "so it was answered before"})
			return true
		}
		s.c.answer(p.reply, &wire.AppendResponse{Lsn: uint64(e.lsn), TimestampMs: e.ms, Epoch: uint32(e.lsn.Epoch()), Log: req.Log})
		return true
	}
	switch {
	case req.Flags&logs.AppendProducer == 0 && req.Sequence < ss.first:
		s.c.m.Duplicates.Add(1)
		s.c.answer(p.reply, &wire.AppendResponse{Status: wire.LogStatus_LOG_STATUS_SEQUENCE_STALE, Sequence: ss.first - 1, Log: req.Log,
			Message: fmt.Sprintf("its producer has had an answer to append %d", req.Sequence)})
		return true
	case s.mayBeTrimmed(ss, req):
		s.refuseForGood(p, wire.LogStatus_LOG_STATUS_TRIMMED, 0)
		s.c.answer(p.reply, &wire.AppendResponse{Status: wire.LogStatus_LOG_STATUS_TRIMMED, Log: req.Log,
			Message: fmt.Sprintf("if an earlier attempt stored append %d, it was up to %s, where the log is trimmed", req.Sequence, ss.lookedTrim)})
		return true
	case s.overtaken(ss, req):
		pointOvertaken.Reach()
		s.refuseForGood(p, wire.LogStatus_LOG_STATUS_LOST, 0)
		s.c.answer(p.reply, &wire.AppendResponse{Status: wire.LogStatus_LOG_STATUS_LOST, Log: req.Log,
			Message: fmt.Sprintf("append %d is not found, and one of its stream that came after it is", req.Sequence)})
		return true
	case s.uninformed(ss, req):
		s.c.m.Uninformed.Add(1)
		pointNewEpoch.Reach()
		s.c.answer(p.reply, &wire.AppendResponse{Status: wire.LogStatus_LOG_STATUS_NEW_EPOCH, Epoch: uint32(s.cur.epoch), Tail: uint64(ss.born), Log: req.Log,
			Message: fmt.Sprintf("its client has not seen epoch %d, or %s in it", s.cur.epoch, ss.born)})
		return true
	case req.Flags&logs.AppendProducer == 0,
		req.Sequence == ss.last+1, ss.beginsWith(req), s.isHole(ss, req.Sequence):
		return s.outOfOrder(ss, p)
	}
	st := wire.LogStatus_LOG_STATUS_SEQUENCE_GAP
	if req.Sequence <= ss.last {
		st = wire.LogStatus_LOG_STATUS_SEQUENCE_STALE
	}
	s.c.answer(p.reply, &wire.AppendResponse{Status: st, Sequence: ss.last, Log: req.Log,
		Message: fmt.Sprintf("the last sequence taken of producer %d is %d", req.Producer, ss.last)})
	return true
}

// beginsWith: an explicit producer of which nothing is known begins with any sequence,
// the first of those that its client has under way.
func (ss *session) beginsWith(req *wire.AppendRequest) bool {
	return ss.last == 0 && len(ss.entries) == 0 && req.Sequence == req.FirstRunning
}

// isHole says whether an explicit producer's sequence, which is not in entries, became
// a hole while later ones were kept: it is not below what they are known from, and
// was not trimmed. Where nothing is left of what was trimmed (it was too long ago)
// what is before all others may have been.
func (s *sequencer) isHole(ss *session, sequence uint64) bool {
	if len(ss.entries) == 0 || sequence >= ss.last || sequence < max(ss.whole, ss.dropped) {
		return false
	}
	if ss.trimmedTo > 0 {
		return sequence > ss.trimmedTo
	}
	return ss.fresh || s.trimmed == 0 || sequence > ss.entries[0].sequence
}

// outOfOrder is the order fence (Q9): an append is not taken while one before it,
// which its client has no answer for, was refused here or never came. The client
// sends both again, in order.
func (s *sequencer) outOfOrder(ss *session, p *pending) bool {
	if s.follows(ss, p.req) {
		return false
	}
	s.c.m.OutOfOrder.Add(1)
	s.c.refuse(p, wire.LogStatus_LOG_STATUS_SEQUENCE_GAP,
		fmt.Sprintf("append %d waits for one before it, from %d on, that was not taken here", p.req.Sequence, ss.firstOpen(p.req)))
	return true
}

// firstOpen is the first sequence that the producer may have no answer for. Who numbers
// its appends itself may begin an older one anew that was refused: then what ran first
// when later ones were sent says nothing.
func (ss *session) firstOpen(req *wire.AppendRequest) uint64 {
	if req.Flags&logs.AppendProducer != 0 {
		return max(req.FirstRunning, 1)
	}
	return max(ss.first, req.FirstRunning, 1)
}

// follows says whether all appends before one that have no answer are known here:
// under way, stored, or refused for good. Clients number without gaps.
func (s *sequencer) follows(ss *session, req *wire.AppendRequest) bool {
	first := ss.firstOpen(req)
	if req.Sequence <= first {
		return true
	}
	i, _ := ss.find(first)
	j, _ := ss.find(req.Sequence)
	return uint64(j-i) == req.Sequence-first
}

// refuseForGood notes that a client's append got an answer that it will not ask
// again after: those behind it may pass.
func (s *sequencer) refuseForGood(p *pending, st wire.LogStatus, tail logs.LSN) {
	req := p.req
	if s == nil || req.Producer == 0 || req.Flags&(logs.AppendProducer|logs.AppendProbe) != 0 {
		return
	}
	ss := s.session(req.Producer)
	if _, found := ss.find(req.Sequence); !found && req.Sequence >= ss.first && s.follows(ss, req) {
		ss.put(entry{sequence: req.Sequence, refused: st, lsn: tail})
	}
}

// remember keeps an append that has just begun.
func (s *sequencer) remember(req *wire.AppendRequest, a *appender) {
	ss := s.session(req.Producer)
	ss.put(entry{sequence: req.Sequence, a: a})
	if req.Flags&logs.AppendProducer != 0 {
		ss.last = max(ss.last, req.Sequence)
	}
}

// settle is called when an append is over: stored under an LSN, or given up.
func (a *appender) settle(lsn logs.LSN) {
	rec := &a.out.rec
	if rec.Producer != 0 {
		a.settleOne(rec.Producer, rec.Sequence, lsn)
	}
	for _, o := range rec.Origins {
		a.settleOne(o.Producer, o.Sequence, lsn)
	}
	if lsn == logs.LSNInvalid {
		s := a.r.s
		s.forgotten = max(s.forgotten, logs.MakeLSN(a.r.epoch, logs.ESNMax))
	}
}

func (a *appender) settleOne(producer, sequence uint64, lsn logs.LSN) {
	ss := a.r.s.sessions[producer]
	if ss == nil {
		return
	}
	i, found := ss.find(sequence)
	if !found || ss.entries[i].a != a {
		return
	}
	if lsn == logs.LSNInvalid { // whether it is kept, recovery decides
		ss.entries = slices.Delete(ss.entries, i, i+1)
		ss.lastKnown = false
		return
	}
	ss.entries[i] = entry{sequence: sequence, lsn: lsn, ms: a.out.rec.TimestampMs}
}

// forgetNegatives: others may have stored anything up to here.
func (s *sequencer) forgetNegatives(upTo logs.LSN) {
	s.forgotten = max(s.forgotten, upTo)
	for _, ss := range s.sessions {
		ss.lastKnown = false
		s.dropLookup(ss) // it asked for less than is needed now
	}
}

func (s *sequencer) dropLookup(ss *session) {
	if ss.lookup != nil {
		s.lookups = slices.DeleteFunc(s.lookups, func(l *lookup) bool { return l == ss.lookup })
		ss.lookup = nil
	}
}

// hold lets an append wait behind what its producer's fate depends on.
func (s *sequencer) hold(ss *session, p *pending) {
	if len(ss.held) >= s.c.cfg.HeldMax || !s.c.roomToWait(p.size()) {
		s.refuse(p, wire.LogStatus_LOG_STATUS_SEQNOBUFS, "too many appends of the producer wait for the recovery of earlier epochs")
		return
	}
	s.c.share.bytes.Add(p.size())
	ss.held = append(ss.held, *p)
	s.c.m.Held.Add(1)
	s.arm(timerLookup, s.c.cfg.RecoveryRetry)
}

// resumeHeld tries everything that is held, producer by producer.
func (s *sequencer) resumeHeld() {
	var ids []uint64
	for id, ss := range s.sessions {
		if len(ss.held) > 0 {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	for _, id := range ids {
		s.resume(s.sessions[id])
	}
}

func (s *sequencer) resume(ss *session) {
	for len(ss.held) > 0 && s.cur != nil && s.cur.accepts() {
		p := ss.held[0]
		if s.crosses(ss, p.req) {
			return
		}
		if s.mustWait(ss, &p) {
			s.startLookup(ss)
			return
		}
		ss.held = ss.held[1:]
		s.c.share.bytes.Add(-p.size())
		if s.known(ss, &p) {
			continue
		}
		if done, wait := s.gather(&p); done {
			continue
		} else if wait || len(s.buffer) > 0 || !s.begin(&p) {
			s.enqueue(p)
		}
	}
	if len(ss.held) == 0 {
		ss.held = nil
	}
}

// expireHeld tells those that were held too long that the outcome is open.
func (s *sequencer) expireHeld() {
	for _, id := range sortedIDs(s.sessions) {
		ss := s.sessions[id]
		for len(ss.held) > 0 && (ss.held[0].arrived+s.c.cfg.AppendWait <= s.c.now || s.cur == nil) {
			p := ss.held[0]
			ss.held = ss.held[1:]
			s.c.share.bytes.Add(-p.size())
			st := wire.LogStatus_LOG_STATUS_TIMED_OUT
			if p.req.Flags&logs.AppendRetry == 0 {
				st = wire.LogStatus_LOG_STATUS_NOT_READY
			}
			s.refuse(&p, st, "earlier epochs are being recovered, or drain, and only then is it known what they hold")
		}
	}
}

func sortedIDs(m map[uint64]*session) []uint64 {
	ids := make([]uint64, 0, len(m))
	for id := range m {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// redirectHeld sends those that are held to the node that reigns now.
func (s *sequencer) redirectHeld() {
	for _, id := range sortedIDs(s.sessions) {
		ss := s.sessions[id]
		for i := range ss.held {
			s.c.share.bytes.Add(-ss.held[i].size())
			s.redirect(&ss.held[i], wire.LogStatus_LOG_STATUS_PREEMPTED, s.preempt.by)
		}
		ss.held = nil
		s.dropLookup(ss)
	}
}

// forgetIdle forgets producers that were silent for long, and what a log needs
// only while it is written to. What is forgotten here is fully stored, so that a
// lookup finds it.
func (s *sequencer) forgetIdle() {
	c := s.c
	for _, id := range sortedIDs(s.sessions) {
		ss := s.sessions[id]
		if ss.touched+c.cfg.SessionIdleFor <= c.now {
			s.forget(ss)
		}
	}
	if len(s.sessions) == 0 {
		s.sessions = nil
	} else {
		s.arm(timerIdle, c.cfg.SessionIdleFor)
	}
	if r := s.cur; r != nil && r.win.len() == 0 {
		r.win.letGo()
		if r.set.used+c.cfg.SessionIdleFor <= c.now {
			r.set.picker = nil
		}
	}
}

// forget lets a session go, unless something of it is under way or could not be
// found again.
func (s *sequencer) forget(ss *session) bool {
	if len(ss.held) > 0 || ss.lookup != nil {
		return false
	}
	high := ss.past
	for _, e := range ss.entries {
		if e.a != nil {
			return false
		}
		if e.refused == wire.LogStatus_LOG_STATUS_OK {
			high = max(high, e.lsn)
		}
	}
	if s.cur != nil && high > logs.MakeLSN(s.cur.epoch, s.cur.lng) {
		return false
	}
	if ss.explicit && s.cur != nil { // its last sequence must be looked up again
		high = max(high, logs.MakeLSN(s.cur.epoch, s.cur.lng))
	}
	s.forgotten = max(s.forgotten, high)
	pointForgotten.Reach()
	delete(s.sessions, ss.producer)
	return true
}

// evict makes room: those that were silent for longest go. Looking for them costs a
// pass over all, so room is made for many at once.
func (s *sequencer) evict() {
	all := make([]*session, 0, len(s.sessions))
	for _, ss := range s.sessions {
		all = append(all, ss)
	}
	slices.SortFunc(all, func(a, b *session) int {
		return cmp.Or(cmp.Compare(a.touched, b.touched), cmp.Compare(a.producer, b.producer))
	})
	room := 1 + len(all)/evictShare
	for _, ss := range all {
		if s.forget(ss) {
			if room--; room == 0 {
				return
			}
		}
	}
}

// evictShare: one in so many producers goes when there are too many.
const evictShare = 16

// lookup asks the storage nodes what they hold of a producer.
type lookup struct {
	ss       *session
	from, to logs.LSN
	first    uint64
	explicit bool
	sets     []*placement.ShardSet // an f-majority of each must answer
	shards   []logs.ShardID
	waiting  map[logs.ShardID]bool
	best     map[logs.LSN][]*wire.ProducerEntry // the copies of highest precedence
	whole    uint64                             // see session: the highest of the sequences that shards' answers end at
	trimmed  logs.LSN                           // the highest trim point that a shard told
	mark     *wire.ProducerEntry                // the highest that is left of trimmed records
	limit    uint32                             // of each answer, where the producer is explicit
	tries    int                                // times that its shards were asked
}

// How many of an explicit producer's newest records are asked for: its last one is
// wanted, mostly; but one that was sent again may be as far back as windows are wide.
const (
	lookupFew  = 8
	lookupWide = 1000
)

// startLookup begins to look up what the first held append depends on.
func (s *sequencer) startLookup(ss *session) {
	r := s.cur
	if ss.lookup != nil || !r.recovered || len(ss.held) == 0 {
		return
	}
	if r.since > logs.EpochMin && (s.history == nil || !s.history.loaded) {
		s.loadHistory() // which nodes earlier epochs were stored on
		return
	}
	first := ss.held[0].req
	from, seq := logs.LSN(first.After), first.Sequence
	for i := range ss.held {
		from, seq = min(from, logs.LSN(ss.held[i].req.After)), min(seq, ss.held[i].req.Sequence)
	}
	if first.Flags&logs.AppendProducer != 0 {
		from, seq = 0, 0
	}
	s.lookUp(ss, from, seq, first.Flags&logs.AppendProducer != 0)
}

// lookUp asks the nodesets of all epochs since from.
func (s *sequencer) lookUp(ss *session, from logs.LSN, first uint64, explicit bool) {
	l := &lookup{ss: ss, from: from, to: s.forgotten, first: first, explicit: explicit,
		waiting: make(map[logs.ShardID]bool), best: make(map[logs.LSN][]*wire.ProducerEntry), limit: lookupFew}
	if ss.lastKnown {
		l.limit = lookupWide
	}
	for _, m := range s.nodesetsFrom(l.from.Epoch()) {
		l.sets = append(l.sets, placement.NewShardSet(m.replication, m.shards))
		l.shards = append(l.shards, m.ids()...)
	}
	slices.Sort(l.shards)
	l.shards = slices.Compact(l.shards)
	ss.lookup = l
	s.lookups = append(s.lookups, l)
	s.c.m.Lookups.Add(1)
	s.askSilent(l)
	s.armAsk()
}

// armAsk has shards asked again that do not answer, or not all: soon at first, for
// one that was just started has yet to be reached or to purge what it missed.
func (s *sequencer) armAsk() {
	tries := 4
	for _, l := range s.lookups {
		tries = min(tries, l.tries)
	}
	if len(s.lookups) > 0 {
		s.arm(timerAsk, s.c.cfg.RecoveryRetry>>4<<tries)
	}
}

// nodesetsFrom are what the epochs from one on were replicated by.
func (s *sequencer) nodesetsFrom(from logs.Epoch) []*replicaSet {
	out := []*replicaSet{s.cur.set}
	if s.history == nil {
		return out
	}
	for i, m := range s.history.entries {
		ended := i+1 < len(s.history.entries) && logs.Epoch(s.history.entries[i+1].EffectiveSince) <= from
		if set := s.c.setOf(m); !ended && !slices.Contains(out, set) {
			out = append(out, set)
		}
	}
	return out
}

func (s *sequencer) askShard(l *lookup, sh logs.ShardID) {
	if l.waiting[sh] {
		return
	}
	l.waiting[sh] = true
	q := &wire.ProducerLookupRequest{Log: uint64(s.log), Producer: l.ss.producer, After: uint64(l.from), To: uint64(l.to), FirstSequence: l.first, Shard: uint64(sh)}
	if l.explicit {
		q.Limit = l.limit
	}
	s.c.ask(shardCall{shard: sh, lookup: q}, func(answer any, err error) {
		l.waiting[sh] = false
		r, ok := answer.(*wire.ProducerLookupResponse)
		if s.gone || l.ss.lookup != l || err != nil || !ok ||
			r.Status != wire.LogStatus_LOG_STATUS_OK && r.Status != wire.LogStatus_LOG_STATUS_PARTIAL {
			return // asked again when the timer rings
		}
		s.trimmed = max(s.trimmed, logs.LSN(r.TrimPoint))
		if s.unclean(r) {
			return
		}
		s.foundOn(l, sh, r)
	})
}

// unclean says whether a shard holds something of an epoch that was recovered
// without it: until it has purged that, it may tell of copies that a hole was put
// in the place of, and the index by producer does not know holes.
func (s *sequencer) unclean(r *wire.ProducerLookupResponse) bool {
	for _, e := range r.Entries {
		if at := logs.LSN(e.Lsn).Epoch(); at > logs.Epoch(r.LastCleanEpoch) && at < s.cur.epoch {
			return true
		}
	}
	return false
}

// foundOn merges one shard's answer: of several copies of an LSN the one of
// highest precedence counts, be it a hole. A shard that lost something, or cannot read it,
// says what it has; what it does not say proves nothing, so that it counts as one that
// has lost what it held: whoever else may have the append is waited for.
func (s *sequencer) foundOn(l *lookup, sh logs.ShardID, r *wire.ProducerLookupResponse) {
	l.whole = max(l.whole, endsAt(l, r))
	l.trimmed = max(l.trimmed, logs.LSN(r.TrimPoint))
	if m := r.Mark; m != nil && (l.mark == nil || m.Sequence > l.mark.Sequence) {
		l.mark = m
	}
	for _, e := range r.Entries {
		lsn := logs.LSN(e.Lsn)
		// A gathered record may hold several of one producer's appends.
		b := l.best[lsn]
		switch p := logs.PrecedenceOf(e.Flags, e.Wave); {
		case len(b) == 0 || p > logs.PrecedenceOf(b[0].Flags, b[0].Wave):
			l.best[lsn] = append(b[:0], e)
		case p == logs.PrecedenceOf(b[0].Flags, b[0].Wave):
			l.best[lsn] = append(b, e)
		}
	}
	state := placement.ShardHeard
	if r.Status == wire.LogStatus_LOG_STATUS_PARTIAL {
		state = placement.ShardUnavailable
	}
	for _, set := range l.sets {
		set.Set(sh, state)
	}
	if l.answered() {
		s.foundAll(l)
	}
}

// answered says whether what was found is all that is to be found: of what lay only on
// shards that were given up, or that lost it, nothing is left.
func (l *lookup) answered() bool {
	for _, set := range l.sets {
		if f := set.FMajority(); !f.Reached() && f != placement.FMajorityNonAuthoritative {
			return false
		}
	}
	return true
}

// endsAt is the lowest sequence in an answer that may have left out lower ones,
// 0 if it has left out none. Each shard tells of its own newest, which are others
// than its neighbours': only where no answer has ended are all of them complete.
func endsAt(l *lookup, r *wire.ProducerLookupResponse) uint64 {
	if !l.explicit {
		return 0
	}
	lowest, n := uint64(math.MaxUint64), 0
	for _, e := range r.Entries {
		if e.Sequence > 0 {
			lowest = min(lowest, e.Sequence)
			n++
		}
	}
	if n < int(l.limit) {
		return 0
	}
	return lowest
}

// foundAll: what the storage nodes hold of the producer is known.
func (s *sequencer) foundAll(l *lookup) {
	ss := l.ss
	s.dropLookup(ss)
	for lsn, copies := range l.best {
		for _, e := range copies {
			if e.Flags&(logs.FlagHole|logs.FlagBridge) != 0 || e.Sequence == 0 {
				continue
			}
			if i, found := ss.find(e.Sequence); !found || ss.entries[i].a == nil && ss.entries[i].refused == wire.LogStatus_LOG_STATUS_OK && ss.entries[i].lsn > lsn {
				ss.put(entry{sequence: e.Sequence, lsn: lsn, ms: e.TimestampMs, flags: e.Flags})
			}
		}
	}
	if l.explicit {
		ss.noteTrimmed(l)
	}
	ss.lookedFirst, ss.lookedFrom, ss.lookedTo, ss.lookedTrim = l.first, l.from, l.to, l.trimmed
	if l.explicit && l.to >= s.forgotten {
		ss.lastKnown, ss.last, ss.lookedWide = true, 0, l.limit == lookupWide
		ss.whole = max(l.whole, ss.trimmedTo)
		ss.fresh = ss.trimmedTo == 0 && (ss.fresh || len(ss.entries) == 0)
		if n := len(ss.entries); n > 0 {
			ss.last = ss.entries[n-1].sequence
		}
	}
	s.resume(ss)
	s.answerStates()
}

// noteTrimmed takes what is known of an explicit producer's trimmed records: some are
// found as others are, of all whose space came back the highest sequence is left. So
// below the highest of both, not to be found says nothing.
func (ss *session) noteTrimmed(l *lookup) {
	if m := l.mark; m != nil {
		if _, found := ss.find(m.Sequence); !found {
			ss.put(entry{sequence: m.Sequence, lsn: logs.LSN(m.Lsn), ms: m.TimestampMs})
		}
		ss.trimmedTo = max(ss.trimmedTo, m.Sequence)
	}
	for i := range ss.entries {
		if e := &ss.entries[i]; e.a == nil && e.refused == wire.LogStatus_LOG_STATUS_OK && e.lsn <= l.trimmed {
			ss.trimmedTo = max(ss.trimmedTo, e.sequence)
		}
	}
}

// askAgain asks those shards again that have not answered.
func (s *sequencer) askAgain() {
	for _, l := range slices.Clone(s.lookups) {
		l.tries++
		s.askSilent(l)
		if l.answered() {
			s.foundAll(l)
		}
	}
	s.armAsk()
}

// askSilent asks the shards that have not answered and still may.
func (s *sequencer) askSilent(l *lookup) {
	for _, sh := range l.shards {
		if n, ok := s.c.cluster.Node(sh.Node()); ok && n.Lost {
			for _, set := range l.sets {
				set.Set(sh, placement.ShardUnavailable)
			}
			continue
		}
		if slices.ContainsFunc(l.sets, func(set *placement.ShardSet) bool {
			return set.Has(sh) && set.State(sh) != placement.ShardHeard
		}) {
			s.askShard(l, sh)
		}
	}
}

// lookAtHeld tells those that were held for too long, and tries the others.
func (s *sequencer) lookAtHeld() {
	s.expireHeld()
	if s.cur != nil && s.history != nil && !s.history.loaded {
		s.loadHistory()
	}
	s.resumeHeld()
	for _, ss := range s.sessions {
		if len(ss.held) > 0 {
			s.arm(timerLookup, s.c.cfg.RecoveryRetry)
			break
		}
	}
}

// lookUpLast looks up an explicit producer's last sequence for somebody who asks.
func (s *sequencer) lookUpLast(ss *session) { s.lookUp(ss, 0, 0, true) }
