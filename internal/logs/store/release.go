package store

import (
	"maps"
	"slices"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// handleReleases moves what readers may see. Where stores go to the journal
// anyway the releases go with them; alone they are written later.
// Those that ask for it are answered with what is released now, which may be less:
// of epochs that are not clean here nothing is.
func (s *Store) handleReleases(rs []*wire.Release, with *batch) (confirmed []*wire.Released) {
	if len(rs) == 0 {
		return nil
	}
	var wake []*readStream
	s.mu.Lock()
	for _, r := range rs {
		wake = s.handleRelease(r, with, wake)
		if l := s.logs[logs.LogID(r.Log)]; r.Confirm && l != nil && !s.closed {
			confirmed = append(confirmed, &wire.Released{Log: r.Log, Released: uint64(l.released)})
		}
	}
	s.mu.Unlock()
	s.serveLater(wake)
	return confirmed
}

// handleRelease is one release. mu is held.
func (s *Store) handleRelease(r *wire.Release, with *batch, wake []*readStream) []*readStream {
	id, released := logs.LogID(r.Log), logs.LSN(r.Released)
	if id == 0 || id.IsMetadata() || s.closed {
		return wake
	}
	if s.unknown(id) {
		return wake // it is told again, by when the catalog knows the log
	}
	l := s.log(id)
	epoch := logs.Epoch(r.Epoch)
	if r.CountKnown && epoch >= logs.EpochMin && l.setBase(epoch, r.CountBase) {
		s.toJournal(l, with, mark{kind: markBase, log: id, number: uint64(epoch), by: r.CountBase})
	}
	if s.needsFence(l) { // what is known of it must stay until it is clear what is lost
		l.pending = max(l.pending, released)
		s.askFence(l)
		return wake
	}
	if epoch > l.lce && r.LastKnownGood > 0 {
		t := l.tail(epoch)
		t.good = max(t.good, logs.ESN(r.LastKnownGood))
	}
	if released <= l.released {
		return wake
	}
	if !s.mayRelease(l, released) {
		return wake
	}
	s.toJournal(l, with, mark{kind: markRelease, log: id, number: uint64(released)})
	return s.releaseTo(l, released, wake)
}

// toJournal has a mark that nothing waits for written: with a batch that goes
// there anyway, or later. mu is held.
func (s *Store) toJournal(l *logState, with *batch, m mark) {
	if with != nil {
		with.marks = append(with.marks, m)
		return
	}
	s.released[l.id] = l
}

// laterMarks has those of a batch's marks that nothing waits for written later: the
// batch that they were to go with does not go, or was not written. mu is held.
func (s *Store) laterMarks(b *batch) {
	for i := range b.marks {
		switch m := &b.marks[i]; m.kind {
		case markRelease, markBase:
			s.released[m.log] = s.log(m.log)
		}
	}
}

// mayRelease says whether epochs before the release's are clean here. If not, the
// release waits for the purge: records of those epochs may be here that recovery,
// which this shard missed, has decided against. mu is held.
func (s *Store) mayRelease(l *logState, released logs.LSN) bool {
	e := released.Epoch()
	if e <= l.lce+1 {
		return true
	}
	pointReleaseWaits.Reach()
	l.pending = max(l.pending, released)
	now := s.o.Mono() // the wall may jump back
	if l.asked && now-l.askedAt < purgeAgain {
		return false
	}
	l.asked, l.askedAt = true, now
	s.run(func() { s.purge(l.id) })
	return false
}

// purge seals the epochs before a pending release, which recovery has done with,
// so that nothing of them is on its way here any more, and then has what is here
// looked into.
func (s *Store) purge(id logs.LogID) {
	if err := s.loadTails(id); err != nil {
		s.o.Logger.Error("logs/store: purge", "log", id, "error", err)
		return
	}
	s.order.Lock()
	s.mu.Lock()
	l := s.log(id)
	if l.pending.Epoch() <= l.lce+1 { // it is done meanwhile
		s.mu.Unlock()
		s.order.Unlock()
		return
	}
	m := mark{kind: markSeal, log: id, number: uint64(l.pending.Epoch() - 1), by: uint64(l.soft.by)}
	l.hard.raise(seal{logs.Epoch(m.number), l.soft.by})
	s.mu.Unlock()
	s.writeOrdered(&batch{s: s, marks: []mark{m}, done: func(err error) {
		if err == nil {
			s.purgeSealed(id)
		}
	}})
	s.order.Unlock()
}

// purgeSealed asks for the purge, unless nothing of the epochs in question is
// here: then they are as clean as they can be.
func (s *Store) purgeSealed(id logs.LogID) {
	s.mu.Lock()
	l := s.log(id)
	lce, pending := l.lce, l.pending
	e := pending.Epoch()
	empty := l.tailsKnown && !s.suspected(l).meetsEpochs(lce+1, e-1)
	for _, t := range l.tails {
		empty = empty && (t.epoch >= e || t.max == 0)
	}
	s.mu.Unlock()
	switch {
	case e <= lce+1:
	case empty:
		pointNothingToPurge.Reach()
		s.run(func() { s.write(&batch{s: s, marks: []mark{{kind: markPurged, log: id, number: uint64(e - 1)}}}) })
	default:
		s.run(func() { s.o.Purge(id, lce, pending) })
	}
}

// releaseTo moves the release and collects who waits for it. mu is held.
func (s *Store) releaseTo(l *logState, released logs.LSN, wake []*readStream) []*readStream {
	if released <= l.released {
		return wake
	}
	l.released = released
	return s.wakeable(l, wake)
}

// admitMark makes a durable mark part of what is held to be true. mu is held.
func (s *Store) admitMark(m *mark) {
	l := s.log(m.log)
	switch m.kind {
	case markSeal:
		l.hard.raise(seal{logs.Epoch(m.number), nodeID(m.by)})
	case markTrim:
		if lsn := logs.LSN(m.number); lsn > l.trim {
			l.trim, l.trimMs = lsn, int64(m.by)
			l.forgetBases()
			s.serveLater(s.wakeable(l, nil))
		}
	case markClean, markPurged:
		before := s.doubtOpen(l)
		s.admitClean(l, m)
		s.noteDoubt(l, before)
		if before && !s.doubtOpen(l) {
			s.run(s.endDoubt)
		}
	case markDelete:
		l.forget(logs.LSN(m.number), logs.LSN(m.by))
		l.tailsKnown, l.tails = false, nil
	case markFence:
		before := s.doubtOpen(l)
		from := decoder{b: m.body}
		l.admitFence(logs.Epoch(m.number), m.by, logs.LSN(from.uvarint()))
		s.noteDoubt(l, before)
	case markSure:
		before := s.doubtOpen(l)
		part, lost := decodeLost(m.body)
		l.admitSure(logs.LSN(m.number), m.by, part, lost)
		s.noteDoubt(l, before)
	case markRelease:
		l.released = max(l.released, logs.LSN(m.number))
	case markBase:
		l.setBase(logs.Epoch(m.number), m.by)
	}
}

// persistReleased gives the journal what moved without stores.
func (s *Store) persistReleased() error {
	s.order.Lock()
	defer s.order.Unlock()
	s.mu.Lock()
	var marks []mark
	ids := slices.Sorted(maps.Keys(s.released))
	for _, id := range ids {
		l := s.released[id]
		marks = append(marks, mark{kind: markRelease, log: id, number: uint64(l.released)})
		for _, b := range l.bases {
			marks = append(marks, mark{kind: markBase, log: id, number: uint64(b.epoch), by: b.count})
		}
	}
	clear(s.released)
	s.mu.Unlock()
	if len(marks) == 0 {
		return nil
	}
	s.writeOrdered(&batch{s: s, marks: marks})
	return nil
}
