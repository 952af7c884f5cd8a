package store

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/braiddb/braid/internal/journal"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// loadMarks reads what was held to be true of each log.
func (s *Store) loadMarks() error {
	it, err := s.marks.db.NewIter(&pebble.IterOptions{LowerBound: []byte{spaceLog}, UpperBound: []byte{spaceLog + 1}})
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		key := it.Key()
		if len(key) != 9 {
			return fmt.Errorf("%w: key of %d bytes among the marks", ErrCorrupt, len(key))
		}
		m, err := decodeLogMarks(v)
		if err != nil {
			return err
		}
		id := logs.LogID(binary.BigEndian.Uint64(key[1:]))
		s.logs[id] = &logState{id: id, logMarks: m, coverFrom: logs.LSNMax}
	}
	return it.Error()
}

// loadMetadataLogs finds the metadata logs that have copies here. Those lie among the
// marks, in no partition, and nothing else may be left that tells of their logs once
// the journal has let go of them: to a log that is not known here nobody looks.
func (s *Store) loadMetadataLogs() error {
	it, err := s.marks.db.NewIter(&pebble.IterOptions{LowerBound: []byte{spaceIndex}, UpperBound: []byte{spaceIndex + 1}})
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; {
		id, _, _, _, ours := splitCopyKey(it.Key())
		if !ours {
			return fmt.Errorf("%w: key of %d bytes among the copies of metadata logs", ErrCorrupt, len(it.Key()))
		}
		end := logEnd(spaceIndex, id)
		if it.SeekLT(end) {
			_, last, _, _, _ := splitCopyKey(it.Key())
			l := s.known(id)
			l.last = max(l.last, last)
		}
		ok = it.SeekGE(end)
	}
	return it.Error()
}

// loadPartitions lists the partitions, and opens those that were not closed.
func (s *Store) loadPartitions() error {
	names, err := s.fs.List(s.dir)
	if err != nil {
		return err
	}
	last := uint64(0)
	asides, err := s.loadAsides()
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, trashPrefix) {
			if err := s.fs.RemoveAll(s.fs.PathJoin(s.dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
			continue
		}
		if id, start, ok := parsePartition(name); ok {
			last = max(last, id)
			p := &partition{id: id, startMs: start, dir: s.fs.PathJoin(s.dir, name)}
			if p.aside = asides[id]; p.aside > 0 { // and was not moved yet
				if !s.moveAside(p) {
					delete(asides, id)
				}
				continue
			}
			s.shelf.all = append(s.shelf.all, p)
		}
	}
	for _, name := range names {
		// The newest one always exists, but for a crash between setting it aside and
		// beginning it anew.
		if id, start, ok := parseAside(name); ok && id > last {
			p := &partition{id: id, startMs: start, dir: s.fs.PathJoin(s.dir, partitionName(id, start))}
			if err := s.makePartition(p); err != nil {
				return err
			}
			s.shelf.all, last = append(s.shelf.all, p), id
		}
	}
	if err := s.forgetMoved(asides); err != nil {
		return err
	}
	slices.SortFunc(s.shelf.all, func(a, b *partition) int { return cmp.Compare(a.id, b.id) })
	for _, p := range s.shelf.all {
		v, done, err := s.marks.db.Get(numberKey(nil, spacePart, p.id))
		switch {
		case errors.Is(err, pebble.ErrNotFound):
			err := s.survey(p)
			if p.lsm == nil && isDamage(err) {
				s.o.Logger.Error("logs/store: partition that does not open", "partition", p.id, "error", err)
				err = s.beginAnew(p)
			}
			if pebble.IsCorruptionError(err) {
				s.o.Logger.Error("logs/store: damaged partition", "partition", p.id, "error", err)
				p.damaged, p.spoilt, s.damaged, err = true, true, true, nil
			}
			if err != nil {
				return fmt.Errorf("partition %d: %w", p.id, err)
			}
			continue
		case err != nil:
			return err
		}
		d := decoder{b: v}
		p.closed, p.endMs, p.bytes, p.whole = true, int64(d.uvarint()), int64(d.uvarint()), d.uvarint()
		bad := d.bad
		if err := done.Close(); err != nil || bad {
			return errors.Join(fmt.Errorf("%w: summary of partition %d", ErrCorrupt, p.id), err)
		}
	}
	return nil
}

// isDamage tells what the disk spoilt from what it may not be asked now.
func isDamage(err error) bool { return pebble.IsCorruptionError(err) || errors.Is(err, ErrCorrupt) }

// beginAnew sets the directory of a partition aside that takes copies and cannot be
// opened, and gives it an empty one, which takes what the journal still has. What is
// missing in it is what a doubt is for: other shards have it. The doubt is durable
// first, for nothing tells an empty partition from one that lost everything.
func (s *Store) beginAnew(p *partition) error {
	s.doubt.number++
	s.doubt.wide = s.doubt.number
	if err := s.appendAndWait([]journal.Record{s.doubtRecord()}); err != nil {
		return err
	}
	aside := s.fs.PathJoin(s.dir, asideName(s.doubt.number, p.id, p.startMs))
	if err := s.fs.Rename(p.dir, aside); err != nil {
		return err
	}
	if err := s.makePartition(p); err != nil {
		return err
	}
	s.o.Logger.Error("logs/store: the partition was set aside and begins anew: other shards are asked for what it had; "+
		"remove the directory when they have answered", "partition", p.id, "directory", aside, "doubt", s.doubt.number)
	return s.survey(p)
}

// survey opens a partition that was not closed and finds out what it has.
func (s *Store) survey(p *partition) error {
	p.extents = map[logs.LogID]*extent{}
	l, err := s.acquire(p) // until it is closed
	if err != nil {
		return err
	}
	if l.unsure != nil {
		return l.unsure
	}
	it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: []byte{spaceIndex}, UpperBound: []byte{spaceIndex + 1}})
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		log, lsn, precedence, _, ok := splitCopyKey(it.Key())
		if !ok {
			continue
		}
		e := entry{log: log, lsn: lsn, header: v}
		if h, err := decodeHeader(v, log, lsn, precedence); err == nil {
			e.timestamp = h.timestamp
			e.payload = nil
			p.bytes += int64(h.payloadBytes)
		}
		x := p.extents[log]
		if x == nil {
			x = &extent{}
			p.extents[log] = x
		}
		before := x.bytes
		x.add(&e)
		p.bytes += int64(x.bytes - before)
		l := s.known(log)
		l.last = max(l.last, lsn)
	}
	return it.Error()
}

// known is a log of which there is something, but not in the cache.
func (s *Store) known(id logs.LogID) *logState {
	l := s.logs[id]
	if l == nil {
		l = &logState{id: id, coverFrom: logs.LSNMax}
		s.logs[id] = l
	}
	return l
}

// recovered is what the journal had of the shard's stream.
func (s *Store) recovered() *journal.StreamReplay {
	if s.o.Recovered == nil {
		return &journal.StreamReplay{}
	}
	return s.o.Recovered
}

// replay takes from the journal what is not in the LSMs.
func (s *Store) replay() error {
	s.pos = s.marks.written.Load()
	for _, p := range s.shelf.all { // what the journal has let go of counts too: no position is given twice
		s.pos = max(s.pos, p.whole)
		if p.lsm != nil {
			s.pos = max(s.pos, p.lsm.written.Load())
		}
	}
	s.replaying = true
	defer func() { s.replaying = false }()
	r := s.recovered()
	records, end := r.Records, r.StartPos
	if n := len(records); n > 0 {
		end = records[n-1].Pos
	}
	s.outrun = end < s.pos
	s.pos = max(s.pos, r.StartPos)
	for len(records) > 0 {
		n := 1
		for n < len(records) && records[n].Pos == records[0].Pos {
			n++
		}
		b := &batch{s: s, pos: records[0].Pos}
		for i := range records[:n] {
			if err := s.takeRecord(b, &records[i]); err != nil {
				return fmt.Errorf("journal position %d: %w", b.pos, err)
			}
		}
		if err := s.redo(b); err != nil {
			return err
		}
		records = records[n:]
	}
	if s.o.Suspect || r.Corrupt || s.outrun {
		// A partition that was closed, and had copies deleted since, may have positions that
		// the journal lost, and nobody knows of (P2).
		s.pos += positionsLost
	}
	s.apply.pushed, s.apply.applied = s.pos, s.pos
	return nil
}

// positionsLost is more than the journal had in what it may have lost.
const positionsLost = 1 << 32

// redo does with a batch of the journal what was done with it once.
func (s *Store) redo(b *batch) error {
	s.pos = max(s.pos, b.pos)
	s.mu.Lock()
	for i := range b.entries {
		e := &b.entries[i]
		l := s.known(e.log)
		if e.precedence>>32 == 0 && !e.log.IsMetadata() && l.soft.raise(seal{epoch: e.lsn.Epoch() - 1}) {
			b.soft = append(b.soft, e.log)
		}
	}
	for i := range b.marks {
		s.known(b.marks[i].log)
	}
	s.admit(b)
	s.mu.Unlock()
	if err := s.applyBatches([]*batch{b}); err != nil {
		return err
	}
	s.mu.Lock()
	b.applied = true
	s.evict()
	s.mu.Unlock()
	return nil
}

// takeRecord decodes one record of the journal into a batch. Copies of a
// partition that has been dropped since are passed over.
func (s *Store) takeRecord(b *batch, r *journal.Record) error {
	switch r.Kind {
	case kindMarks:
		marks, err := decodeMarks(r.Payload)
		b.marks = marks
		return err
	case kindCopies:
	default:
		return fmt.Errorf("%w: record of kind %d", ErrCorrupt, r.Kind)
	}
	buf := bytes.Clone(r.Payload) // else it would hold the whole group that it was read with
	id, entries, err := decodeCopies(buf)
	if err != nil {
		return err
	}
	p := s.shelf.find(id)
	if n := len(s.shelf.all); p == nil && (n == 0 || id > s.shelf.all[n-1].id) {
		return fmt.Errorf("%w: partition %d is missing: its directory was removed", ErrCorrupt, id)
	}
	if p == nil || p.closed {
		entries = slices.DeleteFunc(entries, func(e entry) bool { return !e.log.IsMetadata() })
		p = nil
	}
	b.part, b.entries, b.buf = p, entries, buf
	return nil
}

// readRecoveries reads what recovery decided of epochs [from, to].
func (s *Store) readRecoveries(id logs.LogID, from, to uint32) ([]*wire.EpochRecovery, error) {
	it, err := s.marks.db.NewIter(&pebble.IterOptions{LowerBound: pairKey(nil, spaceRecovery, uint64(id), uint64(from)),
		UpperBound: pairKey(nil, spaceRecovery, uint64(id), uint64(to)+1)})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	var out []*wire.EpochRecovery
	for ok := it.First(); ok && len(out) < epochsMax; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return nil, err
		}
		r := new(wire.EpochRecovery)
		if err := r.UnmarshalVT(v); err != nil {
			return nil, fmt.Errorf("%w: epoch recovery of log %d: %w", ErrCorrupt, id, err)
		}
		out = append(out, r)
	}
	return out, it.Error()
}
