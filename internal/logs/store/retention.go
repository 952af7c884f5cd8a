package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// rotate begins the next partition when the open one is old or large enough.
func (s *Store) rotate() error {
	s.mu.Lock()
	p := s.open
	s.mu.Unlock()
	s.shelf.mu.Lock()
	bytes := p.bytes
	s.shelf.mu.Unlock()
	age := s.o.WallMs() - p.startMs
	if bytes == 0 || (bytes < s.o.PartitionBytes && age < s.o.PartitionTime.Milliseconds()) {
		return nil
	}
	return s.nextPartition()
}

// nextPartition begins the next partition; the one before is closed when its
// last batches are applied.
func (s *Store) nextPartition() error {
	next, err := s.begin()
	if err != nil {
		return err
	}
	s.count.rotations.Add(1)
	s.mu.Lock()
	p := s.open
	s.open = next
	idle := p.pending == 0
	s.mu.Unlock()
	if idle {
		s.closePartition(p)
	}
	return nil
}

// closePartition makes a partition durable and writes down what it has. From
// then on it need not be opened to know what to read in it.
func (s *Store) closePartition(p *partition) {
	s.shelf.mu.Lock()
	done, spoilt := p.closed || p.closing, p.spoilt
	p.closing = true
	s.shelf.mu.Unlock()
	if done {
		return
	}
	if spoilt {
		s.giveUp(p)
		return
	}
	if err := s.summarize(p); err != nil {
		s.fail(fmt.Errorf("logs/store: close partition %d: %w", p.id, err))
		return
	}
	s.release(p) // as its writer
	s.closeUnused()
	s.advance()
}

func (s *Store) summarize(p *partition) error {
	p.mu.Lock()
	l := p.lsm
	p.mu.Unlock()
	if err := l.flush(); err != nil {
		return err
	}
	mb := s.marks.db.NewBatch()
	defer mb.Close()
	s.shelf.mu.Lock()
	end := s.o.WallMs()
	p.whole = l.written.Load()
	summary := binary.AppendUvarint(binary.AppendUvarint(nil, uint64(end)), uint64(p.bytes))
	summary = binary.AppendUvarint(summary, p.whole)
	ids := make([]logs.LogID, 0, len(p.extents))
	err := mb.Set(numberKey(nil, spacePart, p.id), summary, nil)
	for id, x := range p.extents {
		ids = append(ids, id)
		err = errors.Join(err, mb.Set(pairKey(nil, spaceExtent, uint64(id), p.id), x.encode(nil), nil),
			mb.Set(pairKey(nil, spacePartLog, p.id, uint64(id)), nil, nil))
	}
	s.shelf.mu.Unlock()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := s.setMarks(mb, id); err != nil {
			return err
		}
	}
	if err := s.marks.take(mb); err != nil {
		return err
	}
	if err := s.marks.flush(); err != nil {
		return err
	}
	s.shelf.mu.Lock()
	p.closed, p.closing, p.extents, p.endMs = true, false, nil, end
	s.shelf.mu.Unlock()
	return nil
}

// Trim makes everything of a log up to an LSN unreadable, durably. Its space
// comes back with the partitions that it is in. What is above all that is known
// here to have been appended is refused, with the highest LSN that is: who knows
// that the log goes on elsewhere loses nothing by trimming up to that one here.
func (s *Store) Trim(req *wire.TrimRequest, reply func(*wire.TrimResponse)) {
	id, lsn := logs.LogID(req.Log), logs.LSN(req.Lsn)
	switch {
	case !s.addressed(req.Shard):
		reply(&wire.TrimResponse{Status: statusMisplaced})
		return
	case !id.Valid() || lsn == logs.LSNMax:
		reply(&wire.TrimResponse{Status: statusInvalid})
		return
	}
	s.mu.Lock()
	l := s.peek(id)
	at, tail := l.trim, max(l.released, l.last)
	closed, unknown := s.closed, s.unknown(id)
	s.mu.Unlock()
	switch {
	case closed:
		reply(&wire.TrimResponse{Status: statusShutdown})
		return
	case unknown:
		reply(&wire.TrimResponse{Status: statusUnknown, Message: "the shard has nothing of the log, nor does the catalog know it"})
		return
	case lsn <= at:
		reply(&wire.TrimResponse{TrimPoint: uint64(at)})
		return
	case lsn > tail:
		reply(&wire.TrimResponse{Status: statusTooLarge, TrimPoint: uint64(at), Tail: uint64(tail), Message: fmt.Sprintf(
			"trim up to %s was asked for, but shard %s knows the log only up to %s: what is appended in between would be gone unread; trim up to the log's tail at most",
			lsn, s.o.Shard, tail)})
		return
	}
	begun := s.run(func() {
		m := mark{kind: markTrim, log: id, number: uint64(lsn)}
		if v, ok, err := s.lastCopy(id, 0, lsn, nil); err == nil && ok && v.damage == nil {
			m.by = uint64(v.head.timestamp)
		}
		s.write(&batch{s: s, marks: []mark{m}, done: func(err error) {
			s.mu.Lock()
			at := s.peek(id).trim
			s.mu.Unlock()
			reply(&wire.TrimResponse{Status: statusOf(err), TrimPoint: uint64(at)})
		}})
	})
	if !begun {
		reply(&wire.TrimResponse{Status: statusShutdown})
	}
}

// tidy trims what is past its log's backlog, partition by partition, and drops
// partitions of which nothing is needed any more.
func (s *Store) tidy() {
	s.mu.Lock()
	open := s.open
	s.mu.Unlock()
	if err := s.sweepLeft(); err != nil {
		s.o.Logger.Error("logs/store: producers whose records are trimmed", "error", err)
	}
	for _, p := range s.shelf.list() {
		s.shelf.mu.Lock()
		closed := p.closed && !p.closing
		s.shelf.mu.Unlock()
		if p == open || !closed {
			continue
		}
		if err := s.tidyPartition(p); err != nil {
			s.o.Logger.Error("logs/store: retention", "partition", p.id, "error", err)
			return
		}
	}
}

// tidyPartition looks at one closed partition.
func (s *Store) tidyPartition(p *partition) error {
	held, err := s.extentsOf(p.id)
	if err != nil {
		return err
	}
	var trims []mark
	needed, dead := 0, []logs.LogID(nil)
	deadBytes := uint64(0)
	for _, h := range held {
		s.mu.Lock()
		l := s.known(h.log)
		if h.last > l.trim && s.expired(l, &h.extent) {
			trims = append(trims, mark{kind: markTrim, log: h.log, number: uint64(h.last), by: uint64(h.maxMs)})
		} else if h.last > l.trim {
			needed++
		}
		if h.last <= l.trim {
			dead = append(dead, h.log)
			deadBytes += h.bytes
		}
		s.mu.Unlock()
	}
	if len(trims) > 0 && s.o.Tasks != nil {
		s.write(&batch{s: s, marks: trims})
		return nil // what is trimmed by it is let go of when it is looked at next
	}
	if len(trims) > 0 {
		wait := make(chan error, 1)
		s.write(&batch{s: s, marks: trims, done: func(err error) { wait <- err }})
		if err := <-wait; err != nil {
			return err
		}
	}
	drop, thin := needed == 0, deadBytes*2 > uint64(p.bytes) && len(trims) == 0
	if !drop && !thin {
		return nil
	}
	if drop {
		dead = dead[:0]
		for _, h := range held {
			dead = append(dead, h.log)
		}
	}
	if kept, err := s.keepProducers(p, dead); err != nil || !kept {
		return err
	}
	if drop {
		return s.drop(p, held)
	}
	return s.thin(p, dead, int64(deadBytes))
}

// expired says whether all that a partition has of a log is past its backlog.
// mu is held.
func (s *Store) expired(l *logState, x *extent) bool {
	now := s.o.WallMs()
	a, configured := s.o.Attributes(l.id)
	switch {
	case !configured && l.removedMs == 0:
		l.removedMs = now
		return false
	case !configured:
		return now-l.removedMs > s.o.RemovedGrace.Milliseconds()
	}
	l.removedMs = 0
	backlog := a.GetBacklogMs()
	return backlog > 0 && x.maxMs < now-backlog && x.last <= l.released
}

// holding is what a partition has of a log.
type holding struct {
	log logs.LogID
	extent
}

// extentsOf lists what a closed partition has.
func (s *Store) extentsOf(id uint64) ([]holding, error) {
	it, err := s.marks.db.NewIter(&pebble.IterOptions{LowerBound: numberKey(nil, spacePartLog, id),
		UpperBound: numberKey(nil, spacePartLog, id+1)})
	if err != nil {
		return nil, err
	}
	defer it.Close()
	var out []holding
	for ok := it.First(); ok; ok = it.Next() {
		_, log, ok := splitPair(it.Key())
		if !ok {
			continue
		}
		v, done, err := s.marks.db.Get(pairKey(nil, spaceExtent, log, id))
		if errors.Is(err, pebble.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		x, err := decodeExtent(v)
		if err := errors.Join(err, done.Close()); err != nil {
			return nil, err
		}
		out = append(out, holding{logs.LogID(log), x})
	}
	return out, it.Error()
}

// drop removes a partition: first its name, so that a crash leaves it whole or
// gone, then what the marks say of it.
func (s *Store) drop(p *partition, held []holding) error {
	p.mu.Lock()
	if p.refs > 0 { // a reader is in it: next time
		p.mu.Unlock()
		return nil
	}
	p.dropped = true
	err := s.shut(p)
	p.mu.Unlock()
	trash := s.fs.PathJoin(s.dir, trashPrefix+partitionName(p.id, p.startMs))
	if err == nil {
		err = s.fs.Rename(p.dir, trash)
	}
	if err == nil {
		err = s.syncDir(s.dir)
	}
	if err != nil {
		return err
	}
	s.shelf.remove(p)
	err = s.forgetExtents(p.id, held)
	s.count.drops.Add(1)
	return errors.Join(err, s.fs.RemoveAll(trash))
}

// forgetExtents deletes what the marks say of a partition that is not on the shelf any more.
func (s *Store) forgetExtents(id uint64, held []holding) error {
	mb := s.marks.db.NewBatch()
	defer mb.Close()
	err := mb.Delete(numberKey(nil, spacePart, id), nil)
	for _, h := range held {
		err = errors.Join(err, mb.Delete(pairKey(nil, spaceExtent, uint64(h.log), id), nil),
			mb.Delete(pairKey(nil, spacePartLog, id, uint64(h.log)), nil))
	}
	if err != nil {
		return err
	}
	return s.marks.take(mb)
}

// thin rewrites a partition without logs of which nothing in it is needed, once
// they are most of it: then less is written than comes back.
func (s *Store) thin(p *partition, dead []logs.LogID, bytes int64) error {
	l, err := s.acquire(p)
	if err != nil {
		return err
	}
	defer s.release(p)
	b := l.db.NewBatch()
	defer b.Close()
	for _, id := range dead {
		for _, space := range [...]byte{spaceIndex, spacePayload, spaceProducer} {
			err = errors.Join(err, b.DeleteRange(numberKey(nil, space, uint64(id)), logEnd(space, id), nil))
		}
	}
	if err == nil {
		err = l.take(b)
	}
	if err == nil {
		err = l.flush()
	}
	if err == nil {
		err = l.db.Compact(context.Background(), []byte{spaceIndex}, []byte{spaceProducer + 1}, false)
		s.spoils(p, err)
	}
	if err != nil {
		return err
	}
	mb := s.marks.db.NewBatch()
	defer mb.Close()
	for _, id := range dead {
		err = errors.Join(err, mb.Delete(pairKey(nil, spaceExtent, uint64(id), p.id), nil),
			mb.Delete(pairKey(nil, spacePartLog, p.id, uint64(id)), nil))
	}
	s.shelf.mu.Lock()
	p.bytes -= bytes
	s.shelf.mu.Unlock()
	return errors.Join(err, s.marks.take(mb))
}
