package store

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/braiddb/braid/internal/journal"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// A shard whose journal was found corrupt or suspect, or whose open partition was
// found damaged, may have lost copies and seals that it acknowledged. It takes a
// doubt: a number that the stream's state keeps. Until a log is fenced for that
// doubt no store of it is taken; from then on the log has a stretch in doubt, and
// every answer that could hide a loss within it says so, until other shards have
// been asked (Fence, Repair, Sure). doc.go argues it.
type doubt struct {
	number  uint64 // of the newest doubt, 0: there never was one
	trusted uint64 // doubts up to it are over
	listed  uint64 // doubts up to it concern only logs that were fenced for them
	wide    uint64 // the newest for which more than the journal's tail may be lost
}

const doubtVersion = 2

func (d doubt) encode() []byte {
	b := []byte{doubtVersion}
	for _, v := range [...]uint64{d.number, d.trusted, d.listed, d.wide} {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

func decodeDoubt(b []byte) (doubt, error) {
	d := decoder{b: b}
	if len(b) == 0 {
		return doubt{}, nil
	}
	v := d.byte()
	if v < 1 || v > doubtVersion {
		return doubt{}, fmt.Errorf("%w: state of the stream has version %d, not %d", ErrCorrupt, v, doubtVersion)
	}
	out := doubt{number: d.uvarint(), trusted: d.uvarint()}
	out.listed, out.wide = out.trusted, out.number
	if v > 1 {
		out.listed, out.wide = d.uvarint(), d.uvarint()
	}
	if d.bad || len(d.b) > 0 || max(out.trusted, out.listed, out.wide) > out.number {
		return doubt{}, fmt.Errorf("%w: state of the stream does not decode", ErrCorrupt)
	}
	return out, nil
}

// recoverDoubt reads the doubt that stands. Of a corrupt stream the state itself
// may be lost, so the marks are asked too.
func (s *Store) recoverDoubt(r *journal.StreamReplay) error {
	d, err := decodeDoubt(r.State)
	if err != nil && !r.Corrupt {
		return err
	}
	for _, l := range s.logs {
		d.number = max(d.number, l.fenced)
	}
	s.doubt = d
	return nil
}

// settleDoubt makes a new doubt durable, if there is cause, before anything is
// answered.
func (s *Store) settleDoubt() error {
	corrupt := s.o.Recovered != nil && s.o.Recovered.Corrupt
	if !corrupt && !s.o.Suspect && !s.damaged {
		s.countDoubts()
		return nil
	}
	s.doubt.number++
	if corrupt || s.damaged || s.outrun {
		// An LSM that outlived the journal's end, a release in the marks for one, shows as
		// good what had its copies there.
		s.doubt.wide = s.doubt.number
	}
	s.countDoubts()
	recs := []journal.Record{s.doubtRecord()}
	if corrupt {
		// What was read is made durable, then the stream begins anew behind it.
		for _, l := range s.writable() {
			err := l.lsm.flush()
			l.done()
			if err != nil {
				return fmt.Errorf("logs/store: flush what a corrupt stream had: %w", err)
			}
		}
		recs = append(recs, journal.Record{Stream: s.o.Stream, Kind: journal.KindStart, Pos: s.pos})
	}
	s.o.Logger.Warn("logs/store: copies or seals may be lost: other shards are asked", "shard", s.o.Shard, "corrupt", corrupt, "doubt", s.doubt.number)
	return s.appendAndWait(recs)
}

// doubtRecord is the stream's state as it shall be.
func (s *Store) doubtRecord() journal.Record {
	return journal.Record{Stream: s.o.Stream, Kind: journal.KindState, Payload: s.doubt.encode()}
}

func (s *Store) countDoubts() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.openDoubts = 0
	for _, l := range s.logs {
		if s.doubtOpen(l) {
			s.openDoubts++
		}
	}
}

func (s *Store) appendAndWait(recs []journal.Record) error {
	wait := make(chan error, 1)
	s.o.Journal.Append(recs, func(err error) { wait <- err })
	if err := <-wait; err != nil {
		return fmt.Errorf("logs/store: write to the journal: %w", err)
	}
	return nil
}

// Suspect says whether the shard may have lost what it acknowledged.
func (s *Store) Suspect() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.doubt.number > s.doubt.trusted
}

// Trust ends every doubt at once: whoever calls it knows that the shard holds
// again, or never lost, all that it acknowledged. It waits for the disk.
func (s *Store) Trust() error {
	return s.settleFor(func(d *doubt) { d.trusted, d.listed = d.number, d.number })
}

// Listed says that every log of which a copy may be lost here is fenced: what
// doubt is left is that of the logs. It waits for the disk.
func (s *Store) Listed() error {
	return s.settleFor(func(d *doubt) {
		for _, l := range s.logs {
			if s.latterly > 0 && s.needsFence(l) {
				return // who says so had looked before the doubt came
			}
		}
		d.listed = d.number
		if s.openDoubts == 0 {
			d.trusted = d.number
		}
	})
}

// settleFor changes what is left of doubt, durably. It waits for the disk, so it must
// not hold order: whoever is told of what is durable may write at once, and all that
// the journal has to tell stands behind that.
func (s *Store) settleFor(change func(*doubt)) error {
	s.settling.Lock()
	defer s.settling.Unlock()
	s.mu.Lock()
	d := s.doubt
	change(&d)
	same := d == s.doubt
	s.mu.Unlock()
	if same {
		return nil
	}
	if err := s.appendAndWait([]journal.Record{{Stream: s.o.Stream, Kind: journal.KindState, Payload: d.encode()}}); err != nil {
		return err
	}
	s.mu.Lock()
	s.doubt = d
	s.mu.Unlock()
	if d.trusted == d.number {
		s.o.Logger.Info("logs/store: nothing that was acknowledged is in doubt any more", "shard", s.o.Shard, "doubt", d.number)
	}
	return nil
}

// needsFence says whether a log must not take stores yet. mu is held.
func (s *Store) needsFence(l *logState) bool {
	return s.unlisted(l) && !l.id.IsMetadata()
}

// unlisted says whether nothing is known yet of what a log may have lost. mu is held.
func (s *Store) unlisted(l *logState) bool {
	return s.doubt.number > max(s.doubt.trusted, s.doubt.listed) && l.fenced < s.doubt.number
}

// doubted is where LSNs of a log may have been lost here. mu is held.
func (s *Store) doubted(l *logState) stretch {
	switch {
	case s.unlisted(l):
		return stretch{logs.LSNOldest, logs.LSNMax}
	case s.doubtOpen(l):
		return l.inDoubt()
	}
	return stretch{from: 1}
}

// suspected is where the silence of this shard proves nothing: LSNs that are in doubt,
// and those of which copies are lost for good. It may span some between. mu is held.
func (s *Store) suspected(l *logState) stretch {
	d, lost := s.doubted(l), l.lost()
	switch {
	case lost.empty():
		return d
	case d.empty():
		return lost
	}
	return stretch{min(d.from, lost.from), max(d.to, lost.to)}
}

// lost is where copies are lost for good that nobody else could tell of.
func (m *logMarks) lost() stretch {
	if m.lostFrom == 0 {
		return stretch{from: 1}
	}
	return stretch{max(m.lostFrom, m.trim+1), m.lostTo}
}

// inDoubt is what the log's own marks say.
func (m *logMarks) inDoubt() stretch { return stretch{max(m.doubtFrom, m.sure+1, 1), m.doubtTo} }

// unsettled says whether epochs that were in doubt are not clean yet. Of one that is
// compared before, the CLEAN may be what was lost: then it is purged, with copies that
// recovery counts on, and has to be compared again (purgedFrom).
func (m *logMarks) unsettled() bool { return m.lce < m.doubtTo.Epoch() }

// purgedFrom puts epochs in doubt again that are purged now, and says whether they were
// not any more. What is deleted may begin below what was in doubt: what a tail that was
// lost cannot have held, for it was released before, recovery may not have known to be
// good, and then its copies go with the rest. It is so too when the journal is read again
// and the marks have it all: the end of the comparison that came before is read again as well.
func (m *logMarks) purgedFrom(from, to logs.Epoch, deleted logs.LSN) bool {
	d := stretch{max(m.doubtFrom, 1), m.doubtTo}
	if m.fenced == 0 || !d.meetsEpochs(from, to) {
		return false
	}
	m.doubtFrom = min(d.from, deleted)
	if m.sure < logs.MakeLSN(from, 0) {
		return false
	}
	m.sure = logs.MakeLSN(from, 0) - 1
	return true
}

// doubtOpen says whether a log that was fenced has a stretch in doubt, or may have
// again. mu is held.
func (s *Store) doubtOpen(l *logState) bool {
	return l.fenced > s.doubt.trusted && !l.id.IsMetadata() && (!l.inDoubt().empty() || l.unsettled())
}

// mayBeClean says whether an epoch may become clean here by a recovery (P15), also once
// more: what a second one had stored may be what was lost. mu is held.
func (s *Store) mayBeClean(l *logState, req *wire.CleanRequest) bool {
	e := logs.Epoch(req.Epoch)
	doubted := stretch{max(l.doubtFrom, 1), l.doubtTo}
	return l.fenced <= s.doubt.trusted || !doubted.meetsEpochs(e, e) || l.shown.all(req)
}

// noteDoubt counts a log whose doubt began or ended. mu is held.
func (s *Store) noteDoubt(l *logState, before bool) {
	switch after := s.doubtOpen(l); {
	case after && !before:
		s.openDoubts++
	case before && !after:
		s.openDoubts--
	}
}

func (d stretch) empty() bool { return d.from > d.to }

// meets says whether LSNs in [from, to] are among those of the stretch.
func (d stretch) meets(from, to logs.LSN) bool {
	return max(d.from, from) <= min(d.to, to)
}

// meetsEpochs is meets for whole epochs.
func (d stretch) meetsEpochs(from, to logs.Epoch) bool {
	return from <= to && d.meets(logs.MakeLSN(from, 0), logs.MakeLSN(to, logs.ESNMax))
}

// askOthers has others asked about a log whose answer was in doubt; seal is up to
// where it is sealed here. mu is held.
func (s *Store) askOthers(l *logState, seal logs.Epoch) {
	if s.o.Compare != nil && !s.unknown(l.id) {
		id := l.id.DataLog()
		s.run(func() { s.o.Compare(id, seal) })
	}
}

// askFence learns which epoch is the next one. Seals that may be lost are below
// the epoch that reigns, so that one minus one is as good as any of them. mu is
// held.
func (s *Store) askFence(l *logState) {
	if l.fencing || s.o.NextEpoch == nil || s.unknown(l.id) {
		return
	}
	l.fencing = true
	id, since := l.id, s.doubt.number
	asked := s.run(func() {
		s.o.NextEpoch(id, func(next logs.Epoch, err error) {
			if err != nil {
				s.fenced(id, err)
				return
			}
			s.Fence(id, next, since, func(_ logs.Doubt, err error) { s.fenced(id, err) })
		})
	})
	l.fencing = asked
}

func (s *Store) fenced(id logs.LogID, err error) {
	s.mu.Lock()
	if l := s.logs[id]; l != nil {
		l.fencing = false
	}
	s.mu.Unlock()
	if err != nil && !errors.Is(err, journal.ErrClosed) {
		s.o.Logger.Warn("logs/store: fence a log that is in doubt", "log", id, "error", err)
	}
}

// admitFence is the fence made durable: from is the first LSN that may be lost.
// mu is held.
func (l *logState) admitFence(next logs.Epoch, number uint64, from logs.LSN) {
	if next >= 2 {
		l.hard.raise(seal{epoch: next - 2})
	}
	to := logs.LSN(0)
	if next > 0 {
		to = logs.MakeLSN(next, 0) - 1
	}
	if before := l.inDoubt(); !before.empty() { // of an earlier doubt, that nobody has ended
		from, to = min(from, before.from), max(to, before.to)
	}
	l.fenced = max(l.fenced, number)
	l.doubtFrom, l.doubtTo, l.sure = from, to, 0
	l.shown = shown{}
}

// doubtAgain puts a stretch in doubt that was lost with a partition. mu is held.
func (l *logState) doubtAgain(number uint64, from, to logs.LSN) {
	if before := (stretch{max(l.doubtFrom, 1), l.doubtTo}); l.fenced > 0 && (!l.inDoubt().empty() || l.unsettled()) {
		from, to = min(from, before.from), max(to, before.to)
	}
	l.fenced, l.wide = max(l.fenced, number), number
	l.doubtFrom, l.doubtTo, l.sure = from, to, 0
	l.shown = shown{}
}

// admitSure is an end of doubt made durable; lost says that nobody could tell what was
// there, or in a part of it, if that is not empty. mu is held.
func (l *logState) admitSure(upTo logs.LSN, number uint64, part stretch, lost bool) {
	gone := stretch{l.inDoubt().from, upTo}
	if !part.empty() {
		gone = part
	}
	if lost && l.id.IsMetadata() {
		l.lostFrom, l.lostTo = 1, logs.LSNMax
	} else if lost && number == l.fenced && !gone.empty() {
		if l.lostFrom == 0 || gone.from < l.lostFrom {
			l.lostFrom = gone.from
		}
		l.lostTo = max(l.lostTo, gone.to)
	}
	if l.id.IsMetadata() {
		l.fenced = max(l.fenced, number)
	} else if number == l.fenced {
		l.sure = max(l.sure, upTo)
	}
}
