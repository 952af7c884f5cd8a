package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/braiddb/braid/internal/journal"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// The end of doubt, as whoever asks the other shards (Options.Compare) has it
// done: Fence tells what may be lost of a log, Repair takes what others have of
// it, Sure says that they were asked, Listed that no other log is concerned.

// DoubtNumber is that of the newest doubt, 0: there never was one.
func (s *Store) DoubtNumber() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.doubt.number
}

// Doubts lists the logs of which something may be lost, as far as they are known
// here; ascending.
func (s *Store) Doubts() []logs.LogID {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []logs.LogID
	for id, l := range s.logs {
		if s.unlisted(l) || s.doubtOpen(l) {
			out = append(out, id.DataLog())
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Unfenced lists the data logs known here that nobody has looked at for the doubt
// that stands.
func (s *Store) Unfenced() []logs.LogID {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []logs.LogID
	for id, l := range s.logs {
		if s.needsFence(l) {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// Fence closes a log for the epochs of which seals may be lost, all before the
// one that reigns, if it has not been for the doubt that stands; next is the
// epoch store's next one, 0 where it does not know the log. done hears, when that
// is durable, what is in doubt. Of a metadata log that is all, and it is not closed. It
// fails with ErrDoubtMeanwhile if there is another doubt by then than since, the newest
// (DoubtNumber) before next was asked for: a later epoch may have begun, and what is lost
// now be of that one (P14).
func (s *Store) Fence(id logs.LogID, next logs.Epoch, since uint64, done func(logs.Doubt, error)) {
	told := func(err error) {
		s.mu.Lock()
		l := s.peek(id)
		d := s.doubted(l)
		out := logs.Doubt{Number: s.standing(l), From: d.from, To: d.to, Clean: l.lce, Trim: l.trim}
		if err == nil && s.needsFence(l) {
			err = ErrDoubtMeanwhile
		}
		s.mu.Unlock()
		done(out, err)
	}
	begun := s.run(func() {
		s.mu.Lock()
		number := s.doubt.number
		needed := s.needsFence(s.peek(id))
		s.mu.Unlock()
		switch {
		case !needed:
			told(nil)
			return
		case number != since:
			told(ErrDoubtMeanwhile)
			return
		}
		from, err := s.losable(id)
		if err != nil {
			told(fmt.Errorf("logs/store: fence log %d: %w", id, err))
			return
		}
		m := mark{kind: markFence, log: id, number: uint64(next), by: number, body: binary.AppendUvarint(nil, uint64(from))}
		s.write(&batch{s: s, marks: []mark{m}, done: func(err error) {
			if err == nil {
				s.resumeReleases(id)
			}
			told(err)
		}})
	})
	if !begun {
		told(journal.ErrClosed)
	}
}

// losable is the first LSN of a log of which a copy may be lost. If only the
// journal's tail may be gone then what was known to be fully stored, by what is
// left, was stored here before that. Nothing changes that while the log waits for its
// fence. What is trimmed is lost too: who numbers its appends goes on where it was (P11). Of
// a wide doubt that is the epoch of the trim, for nobody may know who had those before.
func (s *Store) losable(id logs.LogID) (logs.LSN, error) {
	s.mu.Lock()
	wide, trim := s.doubt.wide > s.doubt.trusted, s.peek(id).trim
	s.mu.Unlock()
	if wide {
		return max(logs.MakeLSN(trim.Epoch(), 1), logs.LSNOldest), nil
	}
	if err := s.loadTails(id); err != nil {
		return 0, err
	}
	s.mu.Lock()
	l := s.peek(id)
	lce, known := l.lce, l.released.Epoch() > l.lce
	from := logs.MakeLSN(lce+1, 0)
	for _, t := range l.tails {
		if t.epoch == lce+1 {
			from = logs.MakeLSN(t.epoch, t.good) + 1
		}
	}
	s.mu.Unlock()
	if !known {
		again, err := s.cleanAgain(id, lce)
		if err != nil {
			return 0, err
		}
		from = min(from, again)
	}
	return max(from, logs.LSNOldest), nil
}

// cleanAgain is from where on copies of epochs that are clean here, all up to lce, may have
// been stored since: above what was known to be good of the last of them and of those before
// that the same recovery decided. Before the epoch store says that they are clean, as a
// release of a later one shows, the next recovery makes them so once more, and may give this
// shard what it did not have. What this one found clean is so to all that come.
func (s *Store) cleanAgain(id logs.LogID, lce logs.Epoch) (logs.LSN, error) {
	s.settled()
	from, seal := logs.MakeLSN(lce+1, 0), uint32(0)
	for e := lce; e > 0; e-- {
		told, err := s.readRecoveries(id, uint32(e), uint32(e))
		if err != nil {
			return 0, err
		}
		if len(told) == 0 || told[0].SealEpoch == 0 || seal != 0 && told[0].SealEpoch != seal {
			break
		}
		seal, from = told[0].SealEpoch, logs.MakeLSN(e, logs.ESN(told[0].LastKnownGood))+1
	}
	return from, nil
}

// resumeReleases does with a release what was put off until the log was fenced.
func (s *Store) resumeReleases(id logs.LogID) {
	s.mu.Lock()
	l := s.peek(id)
	released := l.pending
	var wake []*readStream
	if released > l.released && s.mayRelease(l, released) {
		l.pending = 0
		s.released[id] = l
		wake = s.releaseTo(l, released, nil)
	}
	s.mu.Unlock()
	s.serveLater(wake)
}

// ErrCleanMeanwhile refuses copies that were chosen before recovery decided on their
// epoch: choose again.
var ErrCleanMeanwhile = errors.New("logs/store: an epoch was made clean while copies of it were compared: compare again")

// ErrDoubtMeanwhile refuses to end a doubt by what others were asked for an earlier one.
var ErrDoubtMeanwhile = errors.New("logs/store: the shard has come to another doubt while copies of a log were compared: compare again")

// Repair stores those of some copies that are not here: other shards have them,
// and that they name this one as a holder. Seals do not stand against it, for
// nothing is promised by it that was not before; but whoever chose them knew what
// recovery decided of epochs up to clean only, and if more are clean by now it fails
// (ErrCleanMeanwhile). done hears when they are durable.
func (s *Store) Repair(id logs.LogID, clean logs.Epoch, records []*wire.LogRecord, done func(error)) {
	if !s.run(func() { s.repair(id, clean, records, done) }) {
		done(journal.ErrClosed)
	}
}

func (s *Store) repair(id logs.LogID, clean logs.Epoch, records []*wire.LogRecord, done func(error)) {
	var missing []*wire.Store
	for _, r := range records {
		st := &wire.Store{Record: r}
		if status := s.check(st); logs.LogID(r.Log) != id || status != statusOK {
			done(fmt.Errorf("logs/store: repair %s of log %d: %w", logs.LSN(r.Lsn), id, &logs.StatusError{Status: status, Message: "a copy that others have cannot be taken"}))
			return
		}
		has, err := s.holds(r)
		if err != nil {
			done(fmt.Errorf("logs/store: repair log %d: %w", id, err))
			return
		}
		if !has {
			missing = append(missing, st)
		}
	}
	if len(missing) == 0 {
		done(nil)
		return
	}
	in := &incoming{s: s, stores: missing, out: &batch{s: s}}
	b := in.out
	b.encode(missing, entryHead)
	n := int64(len(missing))
	b.done = func(err error) {
		if err == nil {
			s.count.repaired.Add(n)
		}
		done(err)
	}
	if err := s.takeBack(id, clean, in); err != nil {
		done(err)
	}
}

// takeBack gives the journal copies that are missing here, or says why not.
func (s *Store) takeBack(id logs.LogID, clean logs.Epoch, in *incoming) error {
	s.order.Lock()
	defer s.order.Unlock()
	s.mu.Lock()
	closed, late := s.closed, s.decidesAbove(id, clean)
	if !closed && !late {
		in.place()
		s.inFlight += in.out.bytes
	}
	s.mu.Unlock()
	switch {
	case closed:
		return journal.ErrClosed
	case late:
		return ErrCleanMeanwhile
	}
	s.writeOrdered(in.out)
	return nil
}

// noteDeciding has copies refused, from here on, that were chosen before what the marks
// say of recovery's decisions: behind a purge's delete they would stay, and the epoch
// would pass for clean with them. It is left so if the journal does not take the marks,
// for then they are written again. order is held.
func (s *Store) noteDeciding(marks []mark) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range marks {
		m := &marks[i]
		var e logs.Epoch
		switch m.kind {
		case markClean, markPurged:
			e = logs.Epoch(m.number)
		case markDelete:
			e = logs.LSN(m.by).Epoch()
		default:
			continue
		}
		l := s.log(m.log)
		l.deciding = max(l.deciding, e)
	}
}

// decidesAbove says whether more of a log's epochs than up to one are clean here, or
// about to be. mu and order are held.
func (s *Store) decidesAbove(id logs.LogID, clean logs.Epoch) bool {
	l := s.peek(id)
	return max(l.lce, l.deciding) > clean && !id.IsMetadata()
}

// holds says whether a copy is here, whole, or one that wins over it, or is
// trimmed and says nothing of a producer that numbers its appends (P11). A hole does: that
// what else is here is no record.
func (s *Store) holds(r *wire.LogRecord) (bool, error) {
	id, lsn := logs.LogID(r.Log), logs.LSN(r.Lsn)
	s.mu.Lock()
	trim := s.peek(id).trim
	s.mu.Unlock()
	if lsn <= trim && !pseudo(r.Flags) && !numbered(r) {
		return true, nil
	}
	v, err := s.view(id, lsn, lsn)
	if err != nil {
		return false, err
	}
	defer v.close()
	if !v.next() {
		return false, v.err
	}
	if _, err := v.content(); err != nil {
		if errors.Is(err, errHollow) || isDamage(err) {
			return false, nil
		}
		return false, err
	}
	if top := &v.versions[0]; top.precedence != logs.Precedence(r) {
		return top.precedence > logs.Precedence(r), nil
	}
	return logs.PlanOf(v.versions[0].head.flags) >= logs.PlanOf(r.Flags), nil
}

// numbered says whether a record has appends of producers that number them.
func numbered(r *wire.LogRecord) bool {
	return r.Flags&logs.FlagProducer != 0 || slices.ContainsFunc(r.Origins, func(o *wire.Origin) bool { return o.Flags&logs.FlagProducer != 0 })
}

// standing is the newest doubt that concerns a log, once it is fenced. mu is held.
func (s *Store) standing(l *logState) uint64 {
	if l.id.IsMetadata() {
		return s.doubt.number
	}
	return l.fenced
}

// Sure says that the other shards were asked what they have of a log up to an
// LSN, and that it is here; of a metadata log that is all of it. If it is weak nobody is
// left who could tell what was here. If it was the end of the journal that is in doubt
// then what nobody knows of was torn before it was acknowledged, but for what lies
// between found.From and found.To, on which recovery had decided; if it was more then it
// is lost, and what this shard says of these LSNs proves nothing for good: recovery does
// not plug them for it, and readers are told of the loss. Like Repair it fails
// if more is clean by now than up to found.Clean: a purge may have deleted what was taken.
// It fails too if the doubt that others were asked about is not the newest of the log (P14).
// done hears when it is durable.
func (s *Store) Sure(id logs.LogID, found logs.Compared, done func(error)) {
	s.order.Lock()
	s.mu.Lock()
	l := s.peek(id)
	another, late := s.standing(l) != found.Doubt || s.needsFence(l), s.decidesAbove(id, found.Clean)
	wide, decided := max(s.doubt.wide, l.wide) > s.doubt.trusted, stretch{max(found.From, 1), found.To}
	s.mu.Unlock()
	switch {
	case another:
		s.order.Unlock()
		done(ErrDoubtMeanwhile)
		return
	case late:
		s.order.Unlock()
		done(ErrCleanMeanwhile)
		return
	}
	m := mark{kind: markSure, log: id, number: uint64(found.UpTo), by: found.Doubt}
	if found.Weak && (wide || !decided.empty()) {
		if wide {
			decided = stretch{from: 1} // all that is in doubt
		}
		s.o.Logger.Error("logs/store: copies of a log are lost, and nobody can tell which: readers are told where they miss records",
			"shard", s.o.Shard, "log", id, "upTo", found.UpTo, "decided", decided)
		m.body = encodeLost(decided)
	}
	s.writeOrdered(&batch{s: s, marks: []mark{m}, done: func(err error) {
		if err == nil {
			s.run(s.endDoubt)
		}
		done(err)
	}})
	s.order.Unlock()
}

// endDoubt ends the shard's doubt if that of its last log is over.
func (s *Store) endDoubt() {
	s.mu.Lock()
	over := s.doubt.listed == s.doubt.number && s.doubt.trusted < s.doubt.number && s.openDoubts == 0
	s.mu.Unlock()
	if !over {
		return
	}
	if err := s.Listed(); err != nil && !errors.Is(err, journal.ErrClosed) {
		s.o.Logger.Warn("logs/store: end the doubt of a shard", "shard", s.o.Shard, "error", err)
	}
}
