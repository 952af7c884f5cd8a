package store

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

func nodeID(n uint64) catalog.NodeID { return catalog.NodeID(n) }

const (
	statusPreempted = wire.LogStatus_LOG_STATUS_PREEMPTED
	statusInvalid   = wire.LogStatus_LOG_STATUS_INVALID
	statusShutdown  = wire.LogStatus_LOG_STATUS_SHUTDOWN
	statusFailed    = wire.LogStatus_LOG_STATUS_FAILED
	statusPartial   = wire.LogStatus_LOG_STATUS_PARTIAL
	statusMisplaced = wire.LogStatus_LOG_STATUS_NOT_STORAGE
	statusUnknown   = wire.LogStatus_LOG_STATUS_NOT_FOUND
	statusTooLarge  = wire.LogStatus_LOG_STATUS_TOO_LARGE
	statusAgain     = wire.LogStatus_LOG_STATUS_AGAIN
)

// addressed says whether a request is for this shard; 0 is whoever hears it.
func (s *Store) addressed(shard uint64) bool { return shard == 0 || shard == uint64(s.o.Shard) }

// Seal closes a log's epochs up to one to ordinary stores, durably, and says what
// is here of those that are not clean. Whoever has the answer knows that every
// copy this shard acknowledges of them from now on is recovery's.
func (s *Store) Seal(req *wire.SealRequest, reply func(*wire.SealResponse)) {
	id, want := logs.LogID(req.Log), seal{logs.Epoch(req.Epoch), nodeID(req.SealedBy)}
	switch {
	case !s.addressed(req.Shard):
		reply(&wire.SealResponse{Status: statusMisplaced})
		return
	case !id.Valid():
		reply(&wire.SealResponse{Status: statusInvalid})
		return
	case s.isUnknown(id):
		reply(&wire.SealResponse{Status: statusUnknown})
		return
	}
	last := logs.Epoch(req.LastCleanEpoch)
	s.order.Lock()
	s.mu.Lock()
	l := s.log(id)
	if s.closed || want.epoch < l.hard.epoch {
		out := &wire.SealResponse{Status: statusPreempted, SealEpoch: uint32(l.hard.epoch), SealedBy: uint64(l.hard.by)}
		if s.closed {
			out = &wire.SealResponse{Status: statusShutdown}
		}
		s.mu.Unlock()
		s.order.Unlock()
		reply(out)
		return
	}
	// From here on stores are refused; those before are before the seal in the
	// journal too, so they are in what is told once it is durable.
	l.hard.raise(want)
	s.mu.Unlock()
	m := mark{kind: markSeal, log: id, number: uint64(want.epoch), by: uint64(want.by)}
	s.writeOrdered(&batch{s: s, marks: []mark{m}, done: func(err error) {
		if err != nil {
			reply(&wire.SealResponse{Status: statusOf(err)})
			return
		}
		s.sealed(id, want, last, reply)
	}})
	s.order.Unlock()
}

// sealed answers a seal that is durable. A later soft seal stands against it all
// the same: a newer sequencer has begun.
func (s *Store) sealed(id logs.LogID, want seal, last logs.Epoch, reply func(*wire.SealResponse)) {
	s.mu.Lock()
	l := s.log(id)
	by, soft := l.hard, false
	if by.epoch <= want.epoch {
		by, soft = l.soft, true
	}
	if soft && by.epoch > want.epoch {
		pointSoftSeal.Reach()
	}
	s.mu.Unlock()
	if by.epoch > want.epoch {
		reply(&wire.SealResponse{Status: statusPreempted, SealEpoch: uint32(by.epoch), SealedBy: uint64(by.by), Soft: soft})
		return
	}
	if !s.run(func() { reply(s.sealAnswer(id, want.epoch, last)) }) {
		reply(&wire.SealResponse{Status: statusShutdown})
	}
}

func (s *Store) sealAnswer(id logs.LogID, epoch, last logs.Epoch) *wire.SealResponse {
	tails, err := s.tailsAbove(id, last)
	if err != nil {
		s.o.Logger.Error("logs/store: seal", "log", id, "error", err)
		return &wire.SealResponse{Status: statusFailed}
	}
	out := &wire.SealResponse{SealEpoch: uint32(epoch)}
	for _, t := range tails {
		if t.epoch > epoch {
			continue
		}
		tail, err := s.tailRecord(id, t)
		if err != nil {
			s.o.Logger.Error("logs/store: seal", "log", id, "error", err)
			return &wire.SealResponse{Status: statusFailed}
		}
		out.Epochs = append(out.Epochs, &wire.EpochTail{Epoch: uint32(t.epoch), LastKnownGood: uint32(t.good),
			MaxSeen: uint32(t.max), MaxTimestampMs: t.timestamp, Tail: tail})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.peek(id)
	out.TrimPoint, out.LastReleased, out.LastCleanEpoch = uint64(l.trim), uint64(l.released), uint32(l.lce)
	if s.doubted(l).meetsEpochs(last+1, epoch) {
		out.Status = statusPartial
		s.askOthers(l, epoch)
	}
	return out
}

// tailsAbove gives what is here of the epochs above one, ascending.
func (s *Store) tailsAbove(id logs.LogID, last logs.Epoch) ([]epochTail, error) {
	if err := s.loadTails(id); err != nil {
		return nil, err
	}
	s.mu.Lock()
	l := s.peek(id)
	lce := l.lce
	tails := append([]epochTail(nil), l.tails...)
	s.mu.Unlock()
	if last < lce { // asked for some that are clean here
		older, err := s.cleanTails(id, last, lce)
		if err != nil {
			return nil, err
		}
		tails = append(older, tails...)
	}
	n := 0
	for _, t := range tails {
		if t.epoch > last {
			tails[n] = t
			n++
		}
	}
	return tails[:n], nil
}

// cleanTails gives what is here of epochs in (above, upTo] that are clean here. What the
// recovery that made one clean knew to be good is good to the next.
func (s *Store) cleanTails(id logs.LogID, above, upTo logs.Epoch) ([]epochTail, error) {
	tails, err := s.readTails(id, above, upTo)
	if err != nil {
		return nil, err
	}
	s.settled()
	for above < upTo {
		told, err := s.readRecoveries(id, uint32(above+1), uint32(upTo))
		if err != nil {
			return nil, err
		}
		for _, r := range told {
			at, found := slices.BinarySearchFunc(tails, logs.Epoch(r.Epoch), func(t epochTail, e logs.Epoch) int { return cmp.Compare(t.epoch, e) })
			if !found && r.LastKnownGood > 0 {
				tails = slices.Insert(tails, at, epochTail{epoch: logs.Epoch(r.Epoch)})
			}
			if at < len(tails) && tails[at].epoch == logs.Epoch(r.Epoch) {
				tails[at].good = max(tails[at].good, logs.ESN(r.LastKnownGood))
				tails[at].tail = decidedTail(r)
			}
		}
		if len(told) < epochsMax {
			break
		}
		above = logs.Epoch(told[len(told)-1].Epoch)
	}
	return tails, nil
}

// decidedTail is what a recovery decided to be an epoch's last record, if that is one up
// to the LNG, with the payloads of the epoch: where it cannot be read any more, the next
// recovery would count others.
func decidedTail(r *wire.EpochRecovery) *wire.TailRecord {
	lsn := logs.LSN(r.Tail.GetLsn())
	if r.SealEpoch == 0 || lsn.Epoch() != logs.Epoch(r.Epoch) || lsn.ESN() > logs.ESN(r.LastKnownGood) {
		return nil
	}
	return &wire.TailRecord{Log: r.Tail.Log, Lsn: r.Tail.Lsn, TimestampMs: r.Tail.TimestampMs, Count: r.Count}
}

// loadTails makes sure that what is here of a log's unclean epochs is known.
func (s *Store) loadTails(id logs.LogID) error {
	s.mu.Lock()
	l := s.peek(id)
	known, lce := l.tailsKnown, l.lce
	s.mu.Unlock()
	if known {
		return nil
	}
	tails, err := s.readTails(id, lce, logs.EpochMax)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.tailsKnown {
		return nil
	}
	// What came while it was read has been noted, whether it was read or not.
	for _, read := range tails {
		t := l.tail(read.epoch)
		t.good, t.max, t.timestamp = max(t.good, read.good), max(t.max, read.max), max(t.timestamp, read.timestamp)
	}
	l.tailsKnown = true
	for i := range l.tails {
		t := &l.tails[i]
		if l.released.Epoch() == t.epoch {
			t.good = max(t.good, l.released.ESN())
		}
	}
	l.tails = dropClean(l.tails, l.lce)
	return nil
}

func dropClean(tails []epochTail, lce logs.Epoch) []epochTail {
	for len(tails) > 0 && tails[0].epoch <= lce {
		tails = tails[1:]
	}
	return tails
}

// readTails looks for the last copies of each epoch in (above, upTo]. The last
// known good that it finds is a lower bound, as any is.
func (s *Store) readTails(id logs.LogID, above, upTo logs.Epoch) ([]epochTail, error) {
	var out []epochTail
	at := logs.MakeLSN(above+1, 0)
	end := logs.MakeLSN(upTo, logs.ESNMax)
	for at <= end {
		first, ok, err := s.firstCopy(id, at, end)
		if err != nil || !ok {
			return out, err
		}
		e := first.lsn.Epoch()
		last, _, err := s.lastCopy(id, logs.MakeLSN(e, 0), logs.MakeLSN(e, logs.ESNMax), nil)
		if err != nil {
			return nil, err
		}
		t := epochTail{epoch: e, max: last.lsn.ESN()}
		if last.damage == nil {
			t.good, t.timestamp = last.head.good, last.head.timestamp
		}
		out = append(out, t)
		if e == logs.EpochMax {
			break
		}
		at = logs.MakeLSN(e+1, 0)
	}
	return out, nil
}

// tailRecord is the last real record of an epoch at or below its last known
// good, counted within the epoch.
func (s *Store) tailRecord(id logs.LogID, t epochTail) (*wire.TailRecord, error) {
	if t.good == 0 {
		return nil, nil
	}
	v, ok, err := s.lastCopy(id, logs.MakeLSN(t.epoch, 0), logs.MakeLSN(t.epoch, t.good),
		func(v *version) bool { return v.damage == nil && !pseudo(v.head.flags) })
	if err != nil || !ok || uint64(v.lsn) < t.tail.GetLsn() {
		return t.tail, err
	}
	h := &v.head
	return &wire.TailRecord{Log: uint64(id), Lsn: uint64(h.lsn), TimestampMs: h.timestamp, Count: h.countBefore + uint64(h.count)}, nil
}

// CheckSeal says which seal stands for a log here.
func (s *Store) CheckSeal(req *wire.CheckSealRequest, reply func(*wire.CheckSealResponse)) {
	if !s.addressed(req.Shard) {
		reply(&wire.CheckSealResponse{Status: statusMisplaced})
		return
	}
	if !logs.LogID(req.Log).Valid() {
		reply(&wire.CheckSealResponse{Status: statusInvalid})
		return
	}
	s.mu.Lock()
	l, unknown := s.peek(logs.LogID(req.Log)), s.unknown(logs.LogID(req.Log))
	by, soft := l.fence(), false
	if l.soft.epoch > by.epoch {
		by, soft = l.soft, true
	}
	out := &wire.CheckSealResponse{SealEpoch: uint32(by.epoch), SealedBy: uint64(by.by), Soft: soft, TrimPoint: uint64(l.trim)}
	switch {
	case s.needsFence(l):
		out.Status = statusPartial
		s.askFence(l)
	case unknown:
		out.Status = statusUnknown
	}
	s.mu.Unlock()
	reply(out)
}

// Clean keeps what recovery decided of an epoch.
func (s *Store) Clean(req *wire.CleanRequest, reply func(*wire.CleanResponse)) {
	id := logs.LogID(req.Log)
	switch {
	case !s.addressed(req.Shard):
		reply(&wire.CleanResponse{Status: statusMisplaced})
		return
	case !id.Valid() || req.Epoch == 0 || req.SealEpoch < req.Epoch:
		reply(&wire.CleanResponse{Status: statusInvalid})
		return
	case s.isUnknown(id):
		reply(&wire.CleanResponse{Status: statusUnknown})
		return
	}
	r := &wire.EpochRecovery{Epoch: req.Epoch, SealEpoch: req.SealEpoch, LastKnownGood: req.LastKnownGood, Last: req.Last,
		Tail: req.Tail, CountBase: req.CountBase, Count: req.Count, Absent: req.Absent}
	body, err := r.MarshalVT()
	if err != nil {
		reply(&wire.CleanResponse{Status: statusInvalid})
		return
	}
	s.order.Lock()
	s.mu.Lock()
	l := s.log(id)
	by := l.hard
	if l.soft.epoch > by.epoch {
		by = l.soft
	}
	closed, fence, shown := s.closed, s.needsFence(l), s.mayBeClean(l, req)
	if fence { // what may be lost is told by what is clean
		s.askFence(l)
	}
	s.mu.Unlock()
	if fence && !closed {
		s.order.Unlock()
		reply(&wire.CleanResponse{Status: statusAgain})
		return
	}
	if closed || logs.Epoch(req.SealEpoch) < by.epoch {
		s.order.Unlock()
		out := &wire.CleanResponse{Status: statusPreempted, SealEpoch: uint32(by.epoch)}
		if closed {
			out.Status = statusShutdown
		}
		reply(out)
		return
	}
	if !shown {
		s.order.Unlock()
		pointNotShown.Reach()
		reply(&wire.CleanResponse{Status: statusAgain})
		return
	}
	m := mark{kind: markClean, log: id, number: uint64(req.Epoch), body: body}
	s.writeOrdered(&batch{s: s, marks: []mark{m}, done: func(err error) {
		reply(&wire.CleanResponse{Status: statusOf(err), SealEpoch: req.SealEpoch})
	}})
	s.order.Unlock()
}

// admitClean is a decision of recovery made durable: by Clean, where this shard
// took part, or after a purge. An epoch is clean here only when all before it
// are, so what was learnt early waits in `decided`. mu is held.
func (s *Store) admitClean(l *logState, m *mark) {
	e := logs.Epoch(m.number)
	from := l.lce + 1
	if from > e { // it is clean already, for the journal is read again: a mark without a body was of several
		if from = e; len(m.body) == 0 {
			from = min(e, max(l.doubtFrom.Epoch(), logs.EpochMin))
		}
	}
	deleted := logs.MakeLSN(from, 0) // by the purge, at the most
	if len(m.body) > 0 {
		var r wire.EpochRecovery
		if err := r.UnmarshalVT(m.body); err == nil {
			if r.SealEpoch > 0 { // else nobody knows what was decided, and the counts say nothing
				l.setBase(e, r.CountBase)
				l.setBase(e+1, r.CountBase+r.Count)
			}
			l.hard.raise(seal{e, l.hard.by})
			if e == from {
				deleted = logs.MakeLSN(e, logs.ESN(r.LastKnownGood)) + 1
			}
		}
	}
	switch {
	case m.kind == markPurged:
		again := l.fenced > s.doubt.trusted && l.purgedFrom(from, e, deleted)
		if l.cleanTo(e); again && s.doubtOpen(l) {
			s.askOthers(l, l.hard.epoch)
		}
	case e == l.lce+1:
		l.cleanTo(e)
	case e > l.lce && !l.hasDecided(e):
		pointCleanEarly.Reach()
		l.decided = append(l.decided, e)
	}
	for l.hasDecided(l.lce + 1) {
		l.cleanTo(l.lce + 1)
	}
	l.dropDecided()
	if s.doubtOpen(l) && !l.unsettled() { // the epoch that reigned is over
		s.askOthers(l, l.hard.epoch)
	}
	if l.pending > 0 && l.pending.Epoch() <= l.lce+1 {
		released := l.pending
		l.pending, l.asked = 0, false
		s.released[l.id] = l
		s.serveLater(s.releaseTo(l, released, nil))
	}
}

// LastClean is the epoch up to which all of a log is clean here.
func (s *Store) LastClean(log logs.LogID) logs.Epoch {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.logs[log]; l != nil {
		return l.lce
	}
	return 0
}

// SetLastClean says that a log is clean here up to an epoch: what recovery
// decided is done. done hears when that is durable; releases that waited for it
// are applied then.
func (s *Store) SetLastClean(log logs.LogID, r *wire.EpochRecovery, done func(error)) {
	body, err := r.MarshalVT()
	if err != nil {
		done(fmt.Errorf("logs/store: set last clean epoch of log %d: %w", log, err))
		return
	}
	s.write(&batch{s: s, marks: []mark{{kind: markPurged, log: log, number: uint64(r.Epoch), body: body}}, done: done})
}

// DeleteCopies deletes what is here of a stretch of a log. done hears when that
// is durable.
func (s *Store) DeleteCopies(log logs.LogID, from, to logs.LSN, done func(error)) {
	if from > to {
		done(nil)
		return
	}
	s.write(&batch{s: s, marks: []mark{{kind: markDelete, log: log, number: uint64(from), by: uint64(to)}}, done: done})
}

// EpochRecovery tells what recovery decided, as far as it is known here.
func (s *Store) EpochRecovery(req *wire.EpochRecoveryRequest, reply func(*wire.EpochRecoveryResponse)) {
	if !s.addressed(req.Shard) {
		reply(&wire.EpochRecoveryResponse{Status: statusMisplaced})
		return
	}
	if req.From == 0 || req.To < req.From || !logs.LogID(req.Log).Valid() {
		reply(&wire.EpochRecoveryResponse{Status: statusInvalid})
		return
	}
	if s.isUnknown(logs.LogID(req.Log)) {
		reply(&wire.EpochRecoveryResponse{Status: statusUnknown})
		return
	}
	if !s.run(func() { reply(s.epochRecovery(req)) }) {
		reply(&wire.EpochRecoveryResponse{Status: statusShutdown})
	}
}

// epochsMax bounds the epochs of one answer.
const epochsMax = 1000

func (s *Store) epochRecovery(req *wire.EpochRecoveryRequest) *wire.EpochRecoveryResponse {
	id := logs.LogID(req.Log)
	s.settled()
	out := &wire.EpochRecoveryResponse{}
	known, err := s.readRecoveries(id, req.From, req.To)
	if err != nil {
		s.o.Logger.Error("logs/store: epoch recovery", "log", id, "error", err)
		return &wire.EpochRecoveryResponse{Status: statusFailed}
	}
	out.Epochs = known
	have := map[uint32]bool{}
	for _, r := range known {
		have[r.Epoch] = true
	}
	s.mu.Lock()
	l := s.peek(id)
	out.LastCleanEpoch = uint32(l.lce)
	doubted := s.suspected(l)
	s.mu.Unlock()
	if doubted.meetsEpochs(logs.Epoch(req.From), logs.Epoch(req.To)) {
		out.Status = statusPartial // a CLEAN may be what was lost
	}
	first, found := logs.LSN(0), true // the first copy at or behind the epoch in hand
	for e := uint64(req.From); e <= uint64(req.To) && e-uint64(req.From) < epochsMax; e++ {
		at := logs.MakeLSN(logs.Epoch(e), 0)
		if have[uint32(e)] || doubted.meetsEpochs(logs.Epoch(e), logs.Epoch(e)) {
			continue
		}
		if found && first < at {
			v, ok, err := s.firstCopy(id, at, logs.LSNMax)
			if err != nil {
				return &wire.EpochRecoveryResponse{Status: statusFailed}
			}
			first, found = v.lsn, ok
		}
		if !found || first.Epoch() > logs.Epoch(e) {
			out.Empty = append(out.Empty, uint32(e))
		}
	}
	return out
}
