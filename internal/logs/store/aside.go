package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/braiddb/braid/internal/journal"
	"github.com/braiddb/braid/internal/logs"
)

// A partition of which something cannot be read is spoilt. It is set aside: what can be
// read of it goes to the open one, the rest is lost here, and a doubt is for what others
// have of it. Of one that was closed the marks know what it had, so the doubt is of these
// stretches of these logs, and nobody else needs a fence.
//
//	spoils ──▶ the next partition begins ──▶ its last batch is applied ──▶ giveUp ──▶
//	   └────────────────── of one that is closed ───────────────────────────▶
//	setAside, on the applier: salvage, flush ─▶ doubt durable ─▶ unreadable ─▶ key in the
//	marks durable, the doubt counts ──▶ whoever began to read before is done ──▶ forgotten
//
// A crash before the key leaves the partition, with a doubt for nothing: its damage is
// found again. Whoever looked at the doubt before it counted still finds the partition,
// as damage (errAside), so that nobody takes for absent what was set aside.
//
// The key stands for the directory until that is renamed, and goes when the store opens
// next (forgetMoved). The renamed directory stays: whoever runs the node removes it.

// asideAgain is how long nobody tries to set a partition aside again that could not be.
const asideAgain = 10 * time.Second

// spoils notes damage that was found in a partition.
func (s *Store) spoils(p *partition, err error) {
	if p == nil || !isDamage(err) {
		return
	}
	s.shelf.mu.Lock()
	news := !p.spoilt
	p.spoilt = true
	s.shelf.mu.Unlock()
	if news {
		s.o.Logger.Error("logs/store: a partition is damaged: it is set aside", "partition", p.id, "error", err)
	}
}

// errNoRoom is that the disk has no room for what would be copied.
var errNoRoom = errors.New("logs/store: the disk is full")

// giveUpSpoilt has the next partition begin where the open one is spoilt, and sets those
// aside that nothing is on its way to any more, as it never is to closed ones.
func (s *Store) giveUpSpoilt() {
	now := s.o.Mono()
	for _, p := range s.shelf.list() {
		s.shelf.mu.Lock()
		due, closed := p.spoilt && !p.closing && now >= p.again, p.closed
		p.closing = p.closing || due && closed
		s.shelf.mu.Unlock()
		if due && closed && s.full.Load() {
			s.asideLater(p, errNoRoom)
			continue
		}
		if !due {
			continue
		}
		if closed {
			s.giveUp(p)
			continue
		}
		s.mu.Lock()
		open, idle := p == s.open, p.pending == 0
		s.mu.Unlock()
		if !open && idle {
			s.closePartition(p)
		} else if open {
			if err := s.nextPartition(); err != nil {
				s.asideLater(p, err)
			}
		}
	}
}

// asideLater has it tried again: there was no room, as a rule.
func (s *Store) asideLater(p *partition, err error) {
	s.o.Logger.Error("logs/store: set a damaged partition aside", "partition", p.id, "error", err)
	s.shelf.mu.Lock()
	p.closing, p.again = false, s.o.Mono()+asideAgain
	s.shelf.mu.Unlock()
}

// giveUp sets a partition aside that takes no copies any more, between what is durable
// now and what comes later.
func (s *Store) giveUp(p *partition) {
	s.mu.Lock()
	to := s.open
	to.pending++ // it is not closed before
	s.mu.Unlock()
	s.apply.pushTask(&batch{s: s, part: to, task: func() {
		if err := s.setAside(p, to, false); err != nil {
			s.asideLater(p, err)
		}
	}})
	s.applySoon()
}

// setAsideAtOpen sets aside what was found damaged when it was opened: settleDoubt has
// made the doubt durable that is for it.
func (s *Store) setAsideAtOpen() {
	for _, p := range s.shelf.list() {
		s.shelf.mu.Lock()
		damaged := p.damaged // what else was found is for the house: no doubt is for it yet
		p.closing = p.closing || damaged
		s.shelf.mu.Unlock()
		if !damaged {
			continue
		}
		if err := s.setAside(p, s.open, true); err != nil {
			s.asideLater(p, err)
		}
	}
}

// setAside does it; doubted says that there is a doubt for it. It runs where nothing is
// applied meanwhile.
func (s *Store) setAside(p, to *partition, doubted bool) error {
	had, closed, err := s.hold(p)
	if errors.Is(err, errDropped) {
		return nil
	}
	if err != nil {
		return err
	}
	if closed { // else its writer holds it, until it is set aside
		defer s.release(p)
	}
	copies, err := s.salvage(p, to, had)
	if err != nil {
		return fmt.Errorf("salvage copies of partition %d: %w", p.id, err)
	}
	s.settling.Lock()
	defer s.settling.Unlock()
	s.mu.Lock()
	d, held := s.doubt, had
	s.mu.Unlock()
	if !doubted {
		if max(d.listed, d.trusted) < d.number {
			held = nil // another doubt may be of any log, so this one is too, and all are fenced
		}
		if d.number++; held != nil {
			d.listed = d.number
		} else {
			d.wide = d.number
		}
		if err := s.appendAndWait([]journal.Record{{Stream: s.o.Stream, Kind: journal.KindState, Payload: d.encode()}}); err != nil {
			return err
		}
	}
	p.mu.Lock()
	p.aside = d.number // before the doubt counts: what is compared then is not here any more
	p.mu.Unlock()
	if err := s.noteAside(p, d.number, held); err != nil {
		p.mu.Lock()
		p.aside = 0
		p.mu.Unlock()
		return err
	}
	pointSetAside.Reach()
	s.o.Logger.Warn("logs/store: a damaged partition is set aside: other shards are asked for what cannot be read of it",
		"shard", s.o.Shard, "partition", p.id, "salvaged", copies, "doubt", d.number)
	s.doubtFrom(d)
	if !closed {
		s.release(p) // as its writer
	}
	s.afterAll(func() { s.forgetAside(p, had, doubted) })
	return nil
}

// hold keeps a partition that is closed from being closed or dropped, and lists what it
// had, not nil: that is known, though it may not open any more.
func (s *Store) hold(p *partition) (held []holding, closed bool, err error) {
	s.shelf.mu.Lock()
	closed = p.closed
	s.shelf.mu.Unlock()
	if !closed {
		return nil, false, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dropped {
		return nil, true, errDropped
	}
	if held, err = s.extentsOf(p.id); err == nil {
		held, p.refs = append([]holding{}, held...), p.refs+1
	}
	return held, true, err
}

// noteAside writes down that a partition is set aside under a doubt, and where what it had
// is in doubt now: at once, durably. Of what is trimmed that is the epoch of the trim, as of
// any wide doubt (losable), and of logs that were removed nothing.
func (s *Store) noteAside(p *partition, number uint64, held []holding) error {
	mb := s.marks.db.NewBatch()
	defer mb.Close()
	for _, h := range held {
		s.mu.Lock()
		l := s.log(h.log)
		_, configured := s.o.Attributes(h.log)
		if from := max(h.first, logs.MakeLSN(l.trim.Epoch(), 1)); from <= h.last && (configured || l.removedMs == 0) {
			l.doubtAgain(number, from, h.last)
		}
		s.mu.Unlock()
		if err := s.setMarks(mb, h.log); err != nil {
			return err
		}
	}
	if err := mb.Set(numberKey(nil, spaceAside, p.id), binary.AppendUvarint(nil, number), nil); err != nil {
		return err
	}
	if err := s.marks.take(mb); err != nil {
		return err
	}
	return s.marks.flush()
}

// doubtFrom has a doubt count from here on.
func (s *Store) doubtFrom(d doubt) {
	s.mu.Lock()
	if d != s.doubt {
		s.latterly = d.number
	}
	s.doubt = d
	s.mu.Unlock()
	s.countDoubts()
}

// forgetAside takes a partition off the shelf, when nobody who reads can have looked at
// the doubt before it counted.
func (s *Store) forgetAside(p *partition, held []holding, doubted bool) {
	s.shelf.remove(p)
	if err := s.forgetExtents(p.id, held); err != nil { // nobody asks for them any more
		s.o.Logger.Error("logs/store: forget what a partition had that is set aside", "partition", p.id, "error", err)
	}
	s.mu.Lock()
	clear(s.torn) // what is torn elsewhere is found again
	s.mu.Unlock()
	if s.o.Doubted != nil && !doubted {
		s.o.Doubted()
	}
}

// moveAside closes a partition that is set aside, and renames its directory: that is the
// operator's. It says whether that is so. p.mu is held, and nobody uses it.
func (s *Store) moveAside(p *partition) bool {
	err := s.shut(p)
	if err == nil {
		err = s.fs.Rename(p.dir, s.fs.PathJoin(s.dir, asideName(p.aside, p.id, p.startMs)))
	}
	if err == nil {
		err = s.syncDir(s.dir)
	}
	if err != nil { // it is tried again when the store opens
		s.o.Logger.Error("logs/store: move a damaged partition aside", "partition", p.id, "error", err)
	}
	return err == nil
}

// forgetMoved deletes what the marks have of partitions that were set aside, of which no
// directory is left to be taken for one. Nothing else needs them: entries of the journal that name a
// partition which is not here, and is not the newest, are passed over. The renaming may be
// of a life that did not come to sync it, and the partition would come back without its key;
// that Pebble syncs the directory too when it opens is its own affair.
func (s *Store) forgetMoved(asides map[uint64]uint64) error {
	if len(asides) == 0 {
		return nil
	}
	if err := s.syncDir(s.dir); err != nil {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(asides)) {
		held, err := s.extentsOf(id)
		if err == nil {
			err = s.forgetExtents(id, held)
		}
		if err == nil {
			err = s.marks.db.Delete(numberKey(nil, spaceAside, id), pebble.NoSync)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// loadAsides lists the partitions that were set aside, and under which doubt.
func (s *Store) loadAsides() (map[uint64]uint64, error) {
	it, err := s.marks.db.NewIter(&pebble.IterOptions{LowerBound: []byte{spaceAside}, UpperBound: []byte{spaceAside + 1}})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	out := map[uint64]uint64{}
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return nil, err
		}
		d := decoder{b: v}
		doubt := d.uvarint()
		if key := it.Key(); d.bad || doubt == 0 || len(key) != 9 {
			return nil, fmt.Errorf("%w: what was set aside", ErrCorrupt)
		}
		out[binary.BigEndian.Uint64(it.Key()[1:])] = doubt
	}
	return out, it.Error()
}

// salvager copies what can be read of one partition into another.
type salvager struct {
	s            *Store
	to           *partition
	in           *lsm   // of to
	newer        []*lsm // of partitions that are newer than the one that is copied, to among them
	batch        *pebble.Batch
	entries      []entry // of the batch
	size, copies int
	last         map[logs.LogID]logs.LSN // of what the partition has; nil: it is not known
}

// salvage stores in a partition what can be read of another, durably. Its batches have no
// position: what they bring was of some long before. Of one that is closed, and does not
// open, that is what is in memory: it may lack deletions.
func (s *Store) salvage(p, to *partition, had []holding) (copies int, err error) {
	from, err := s.acquire(p)
	unfit := had != nil && isDamage(err)
	switch {
	case unfit:
		s.o.Logger.Error("logs/store: damaged partition that does not open", "partition", p.id, "error", err)
	case err != nil:
		return 0, err
	default:
		defer s.release(p)
	}
	in, err := s.acquire(to)
	if err != nil {
		return 0, err
	}
	defer s.release(to)
	w := &salvager{s: s, to: to, in: in, newer: []*lsm{in}, batch: in.db.NewBatch(), last: s.lastOf(p, had)}
	for _, q := range s.shelf.list() {
		if q.id <= p.id || q == to {
			continue
		}
		l, err := s.acquire(q)
		if err != nil {
			continue // it has nothing that can be read
		}
		defer s.release(q)
		w.newer = append(w.newer, l)
	}
	defer func() { w.batch.Close() }()
	if !unfit {
		if err := w.walk(from.db); err != nil {
			return 0, err
		}
	}
	if err := w.memory(); err != nil {
		return 0, err
	}
	if err := w.commit(); err != nil {
		return 0, err
	}
	return w.copies, in.flush()
}

// lastOf says where what a partition has of each log ends, nil: nobody knows.
func (s *Store) lastOf(p *partition, had []holding) map[logs.LogID]logs.LSN {
	s.shelf.mu.Lock()
	defer s.shelf.mu.Unlock()
	if had == nil && p.damaged {
		return nil
	}
	last := map[logs.LogID]logs.LSN{}
	for _, h := range had {
		last[h.log] = h.last
	}
	for id, x := range p.extents {
		last[id] = x.last
	}
	return last
}

// walk goes through all logs, and around what is damaged.
func (w *salvager) walk(db *pebble.DB) error {
	log, at := logs.LogID(0), logs.LSN(0)
	for {
		var err error
		if log, at, err = w.run(db, log, at); err == nil {
			return nil
		}
		if !isDamage(err) {
			return err
		}
		found := false
		if log, at, found = w.beyond(db, log, at); !found {
			return nil
		}
	}
}

// iterators gives both spaces of a partition.
func iterators(db *pebble.DB) (index, data *pebble.Iterator, err error) {
	index, err = db.NewIter(&pebble.IterOptions{LowerBound: []byte{spaceIndex}, UpperBound: []byte{spaceIndex + 1}})
	if err != nil {
		return nil, nil, err
	}
	data, err = db.NewIter(&pebble.IterOptions{LowerBound: []byte{spacePayload}, UpperBound: []byte{spacePayload + 1}})
	if err != nil {
		index.Close()
		return nil, nil, err
	}
	return index, data, nil
}

// run copies from an LSN of a log on, until something cannot be read: behind where it
// stood then.
func (w *salvager) run(db *pebble.DB, log logs.LogID, at logs.LSN) (logs.LogID, logs.LSN, error) {
	index, data, err := iterators(db)
	if err != nil {
		return log, at, err
	}
	defer index.Close()
	defer data.Close()
	for ok := index.SeekGE(lsnKey(nil, spaceIndex, log, at)); ok; ok = index.Next() {
		id, lsn, precedence, kind, ours := splitCopyKey(index.Key())
		if !ours {
			continue
		}
		log, at = id, lsn
		if err := w.one(index, data, entry{log: id, lsn: lsn, precedence: precedence, amend: kind == kindAmend}); err != nil {
			return log, at, err
		}
	}
	return log, at, index.Error()
}

// one copies what the index stands on, unless it does not verify.
func (w *salvager) one(index, data *pebble.Iterator, e entry) error {
	v, err := index.ValueAndErr()
	if err != nil {
		return err
	}
	h, err := decodeHeader(bytes.Clone(v), e.log, e.lsn, e.precedence)
	if err != nil {
		return nil
	}
	if found, damaged := w.superseded(index.Key()); found || damaged {
		return nil // of what is damaged others are asked
	}
	e.header, e.timestamp, e.flags = bytes.Clone(v), h.timestamp, h.flags
	if h.hasPayload() {
		key := copyKey(nil, spacePayload, e.log, e.lsn, e.precedence, e.kind())
		if !data.SeekGE(key) || !bytes.Equal(data.Key(), key) {
			return data.Error()
		}
		p, err := data.ValueAndErr()
		if err != nil {
			return err
		}
		if verifyPayload(&h, p) != nil {
			return nil
		}
		e.payload = bytes.Clone(p)
	}
	return w.add(e)
}

// superseded says whether a newer partition has the copy: that one is of a later plan, or
// it is the same.
func (w *salvager) superseded(key []byte) (found, damaged bool) {
	for _, l := range w.newer {
		_, done, err := l.db.Get(key)
		if err == nil {
			done.Close()
			return true, false
		}
		damaged = damaged || isDamage(err)
	}
	return false, damaged
}

// memory copies what is in the record cache, and in no newer partition: it is read there,
// and held to be here, until it has to leave.
func (w *salvager) memory() error {
	var all []*entry
	w.s.mu.Lock()
	for _, id := range slices.Sorted(maps.Keys(w.s.logs)) {
		all = append(all, w.s.logs[id].cached...)
	}
	w.s.mu.Unlock()
	for _, e := range all {
		if e.log.IsMetadata() {
			continue
		}
		if found, _ := w.superseded(copyKey(nil, spaceIndex, e.log, e.lsn, e.precedence, e.kind())); found {
			continue
		}
		if err := w.add(*e); err != nil {
			return err
		}
	}
	return nil
}

func (w *salvager) add(e entry) error {
	if err := setCopy(w.batch, &e); err != nil {
		return err
	}
	w.copies++
	w.size += len(e.header) + len(e.payload)
	w.entries = append(w.entries, e)
	if w.size > int(min(applyBytesMax, w.s.o.MemTableBytes/4)) {
		return w.commit()
	}
	return nil
}

func (w *salvager) commit() error {
	if err := w.batch.Commit(pebble.NoSync); err != nil {
		return err
	}
	err := w.batch.Close()
	w.s.shelf.note(w.to, w.entries)
	w.batch, w.entries, w.size = w.in.db.NewBatch(), nil, 0
	if err == nil && w.s.o.Tasks != nil { // what Pebble flushes by itself it flushes at any moment
		err = w.in.flush()
	}
	return err
}

// salvageProbes bounds the search for the end of what is damaged, as probesMax does.
const salvageProbes = 8

// beyond looks behind an LSN at which something cannot be read for where it can, as
// view.skip does; where that is not found the next log is as good.
func (w *salvager) beyond(db *pebble.DB, log logs.LogID, at logs.LSN) (logs.LogID, logs.LSN, bool) {
	last := w.last
	if last == nil {
		last = map[logs.LogID]logs.LSN{}
		w.s.mu.Lock()
		for id, l := range w.s.logs {
			last[id] = l.last
		}
		w.s.mu.Unlock()
	}
	end, next, found := at, logs.LogID(0), false
	for id, lsn := range last {
		if id == log {
			end = max(end, lsn)
		} else if id > log && !id.IsMetadata() && (!found || id < next) {
			next, found = id, true
		}
	}
	bad, good := at, end+1
	for range salvageProbes {
		if good-bad <= 1 {
			break
		}
		mid := logs.MakeLSN((bad.Epoch()+good.Epoch()+1)/2, 0)
		if mid <= bad || mid >= good {
			mid = bad + (good-bad)/2
		}
		if readableAt(db, log, mid) {
			good = mid
		} else {
			bad = mid
		}
	}
	if good <= end {
		return log, good, true
	}
	return next, 0, found
}

// readableAt says whether the first copy from an LSN on can be found.
func readableAt(db *pebble.DB, log logs.LogID, at logs.LSN) bool {
	index, data, err := iterators(db)
	if err != nil {
		return false
	}
	defer index.Close()
	defer data.Close()
	index.SeekGE(lsnKey(nil, spaceIndex, log, at))
	data.SeekGE(lsnKey(nil, spacePayload, log, at))
	return index.Error() == nil && data.Error() == nil
}
