package store

import (
	"errors"
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/braiddb/braid/internal/journal"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// batch is what goes to the journal in one Append, and from there to the LSMs.
type batch struct {
	s       *Store
	pos     uint64
	part    *partition // where its copies go
	buf     []byte     // the journal entry of its copies, which they alias
	entries []entry
	marks   []mark
	soft    []logs.LogID // whose soft seal rose by it
	recs    [2]journal.Record
	bytes   int64
	done    func(err error) // told first, when it is durable and readable
	task    func()          // there is nothing else in it: done when all before it is in the LSMs

	applied bool // in the LSMs; under Store.mu
}

// durable is the journal's word. What is in the batch can be read from now on.
func (b *batch) durable(err error) {
	s := b.s
	if err == nil {
		s.mu.Lock()
		s.admit(b)
		s.mu.Unlock()
		s.apply.push(b)
		s.applySoon()
	} else {
		s.mu.Lock()
		s.laterMarks(b)
		s.settle(b)
		s.mu.Unlock()
	}
	if b.done != nil {
		b.done(err)
	}
}

// admit makes a durable batch part of what is known. mu is held.
func (s *Store) admit(b *batch) {
	for i := range b.entries {
		e := &b.entries[i]
		l := s.log(e.log)
		s.keep(l, e)
		l.noteCopy(e)
		if len(l.waiting) > 0 && l.id.IsMetadata() {
			s.serveLater(s.wakeable(l, nil))
		}
	}
	if len(b.entries) > 0 {
		s.recent.push(b)
	}
	for i := range b.marks {
		s.admitMark(&b.marks[i])
	}
}

// settle lets go of what a batch held while it was under way. mu is held.
func (s *Store) settle(b *batch) {
	b.applied = true
	s.inFlight -= b.bytes
	if p := b.part; p != nil {
		p.pending--
		if p.pending == 0 && p != s.open {
			s.run(func() { s.closePartition(p) })
		}
	}
	s.evict()
}

// applier writes durable batches into the LSMs, in order.
type applier struct {
	mu      sync.Mutex
	cond    sync.Cond
	queue   []*batch
	pushed  uint64 // position of the newest durable batch
	applied uint64 // position up to which all are in the LSMs
	stopped bool
	tasked  bool // without a goroutine: a task is on its way
	ended   sync.WaitGroup
}

func (a *applier) init() { a.cond.L = &a.mu }

func (a *applier) start(s *Store) {
	a.ended.Add(1)
	go s.applyLoop()
}

func (a *applier) push(b *batch) {
	a.mu.Lock()
	a.queue = append(a.queue, b)
	a.pushed = b.pos
	a.cond.Broadcast()
	a.mu.Unlock()
}

// pushTask has something done between what is durable now and what comes later.
func (a *applier) pushTask(b *batch) {
	a.mu.Lock()
	b.pos = a.pushed
	a.queue = append(a.queue, b)
	a.cond.Broadcast()
	a.mu.Unlock()
}

// stop lets the applier finish what it has.
func (a *applier) stop() {
	a.mu.Lock()
	a.stopped = true
	a.cond.Broadcast()
	a.mu.Unlock()
	a.ended.Wait()
}

func (a *applier) accepted() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.pushed
}

func (a *applier) position() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.applied
}

// awaitApplied waits until everything up to pos is in the LSMs.
func (s *Store) awaitApplied(pos uint64) {
	a := &s.apply
	if s.o.Tasks != nil {
		s.applyQueued()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for a.applied < pos && !a.stopped {
		a.cond.Wait()
	}
}

// settled waits until what was durable when it was called is in the LSMs.
func (s *Store) settled() { s.awaitApplied(s.apply.accepted()) }

// applyBytesMax is where gathering batches into one commit stops.
const applyBytesMax = 1 << 20

func (s *Store) applyLoop() {
	a := &s.apply
	defer func() { // also when it ends for a fault: nobody is to wait for it
		a.mu.Lock()
		a.stopped = true
		a.cond.Broadcast()
		a.mu.Unlock()
		a.ended.Done()
	}()
	var spare []*batch
	for {
		a.mu.Lock()
		for len(a.queue) == 0 && !a.stopped {
			a.cond.Wait()
		}
		if len(a.queue) == 0 {
			a.mu.Unlock()
			return
		}
		queue := a.queue
		a.queue = spare[:0]
		a.mu.Unlock()
		s.applyAll(queue)
		clear(queue)
		spare = queue
	}
}

// applyAll writes batches into the LSMs, in order.
func (s *Store) applyAll(queue []*batch) {
	a := &s.apply
	for rest := queue; len(rest) > 0; {
		n := together(rest)
		if rest[0].task != nil {
			rest[0].task()
		} else if err := s.applyBatches(rest[:n]); err != nil {
			s.fatal(fmt.Errorf("logs/store: apply: %w", err))
		}
		a.mu.Lock()
		a.applied = rest[n-1].pos
		a.cond.Broadcast()
		a.mu.Unlock()
		s.mu.Lock()
		for _, b := range rest[:n] {
			s.settle(b)
		}
		s.mu.Unlock()
		rest = rest[n:]
	}
}

// applySoon has a store without goroutines apply what is durable, as a task.
func (s *Store) applySoon() {
	a := &s.apply
	if s.o.Tasks == nil || a.tasked {
		return
	}
	a.tasked = true
	s.o.Tasks(func() {
		a.tasked = false
		s.applyQueued()
	})
}

// applyQueued applies what is durable, on the caller: of a store without goroutines.
func (s *Store) applyQueued() {
	a := &s.apply
	a.mu.Lock()
	queue := a.queue
	a.queue = nil
	a.mu.Unlock()
	s.applyAll(queue)
}

// together says how many of the batches go into one commit: those of one
// partition, and none with another that deletes or is a task.
func together(q []*batch) int {
	bytes := int64(0)
	for i, b := range q {
		if i > 0 && (b.part != q[0].part || bytes > applyBytesMax || b.alone() || q[i-1].alone()) {
			return i
		}
		bytes += b.bytes
	}
	return len(q)
}

// alone says whether nothing else goes into the commit of a batch.
func (b *batch) alone() bool {
	if b.task != nil {
		return true
	}
	for i := range b.marks {
		if b.marks[i].kind == markDelete {
			return true
		}
	}
	return false
}

// applyBatches writes batches of one partition into it and into the marks.
// Batches that an LSM has already, at a replay, are passed over there.
func (s *Store) applyBatches(batches []*batch) error {
	pos := batches[len(batches)-1].pos
	if p := batches[0].part; p != nil {
		l, err := s.acquire(p)
		if err != nil {
			return err
		}
		err = s.applyCopies(p, l, batches, pos)
		s.release(p)
		if err != nil {
			return err
		}
	}
	mb := s.marks.db.NewBatch()
	defer mb.Close()
	for _, b := range batches {
		if s.replaying && b.pos <= s.marks.written.Load() {
			continue
		}
		for i := range b.entries {
			if e := &b.entries[i]; e.log.IsMetadata() {
				if err := setCopy(mb, e); err != nil {
					return err
				}
			}
		}
		if err := s.applyMarks(mb, b); err != nil {
			return err
		}
	}
	if mb.Empty() {
		return nil
	}
	return s.marks.commit(mb, pos)
}

func (s *Store) applyCopies(p *partition, l *lsm, batches []*batch, pos uint64) error {
	pb := l.db.NewBatchWithSize(int(batches[0].bytes)*len(batches) + 1024)
	defer pb.Close()
	for _, b := range batches {
		if s.replaying && b.pos <= l.written.Load() {
			continue
		}
		for i := range b.entries {
			if e := &b.entries[i]; !e.log.IsMetadata() {
				if err := setCopy(pb, e); err != nil {
					return err
				}
			}
		}
		s.shelf.note(p, b.entries)
	}
	if pb.Empty() {
		return nil
	}
	return l.commit(pb, pos)
}

// setCopy writes a copy's keys.
func setCopy(b *pebble.Batch, e *entry) error {
	var key [40]byte
	k := copyKey(key[:0], spaceIndex, e.log, e.lsn, e.precedence, e.kind())
	if err := b.Set(k, e.header, nil); err != nil {
		return err
	}
	if e.payload != nil {
		k[0] = spacePayload
		if err := b.Set(k, e.payload, nil); err != nil {
			return err
		}
	}
	if e.flags&(logs.FlagProducer|logs.FlagBatch) == 0 {
		return nil
	}
	h, err := decodeHeader(e.header, e.log, e.lsn, e.precedence)
	if err != nil {
		return err
	}
	h.eachOrigin(func(o origin) {
		if o.flags&logs.FlagProducer != 0 {
			err = errors.Join(err, b.Set(producerKey(key[:0], e.log, o.producer, e.lsn, o.sequence), nil, nil))
		}
	})
	return err
}

// applyMarks writes what a batch changes of marks.
func (s *Store) applyMarks(mb *pebble.Batch, b *batch) error {
	for _, id := range b.soft {
		if err := s.setMarks(mb, id); err != nil {
			return err
		}
	}
	for i := range b.marks {
		m := &b.marks[i]
		switch m.kind {
		case markClean, markPurged:
			if len(m.body) > 0 {
				var r wire.EpochRecovery
				if err := r.UnmarshalVT(m.body); err != nil {
					return fmt.Errorf("%w: %w", ErrCorrupt, err)
				}
				if err := mb.Set(pairKey(nil, spaceRecovery, uint64(m.log), uint64(r.Epoch)), m.body, nil); err != nil {
					return err
				}
			}
		case markDelete:
			if err := s.deleteCopies(mb, m, b.pos); err != nil {
				return err
			}
		}
		if err := s.setMarks(mb, m.log); err != nil {
			return err
		}
	}
	return nil
}

// setMarks writes a log's marks as they are now.
func (s *Store) setMarks(mb *pebble.Batch, id logs.LogID) error {
	s.mu.Lock()
	value := s.log(id).encode(nil)
	s.mu.Unlock()
	return mb.Set(numberKey(nil, spaceLog, uint64(id)), value, nil)
}

// deleteCopies deletes a stretch of a log from every partition that has any of
// it, durably, since closed ones are not flushed again.
func (s *Store) deleteCopies(mb *pebble.Batch, m *mark, pos uint64) error {
	if m.log.IsMetadata() {
		return deleteStretch(mb, m)
	}
	parts, err := s.partitionsOf(m.log, logs.LSN(m.number), logs.LSN(m.by))
	if err != nil {
		return err
	}
	for _, p := range parts {
		l, err := s.acquire(p.partition)
		if errors.Is(err, errDropped) || isDamage(err) { // what does not open is set aside, and nothing of it salvaged
			continue
		}
		if err != nil {
			return err
		}
		if !s.replaying || l.written.Load() < pos {
			pb := l.db.NewBatch()
			pointDeleted.Reach()
			err = deleteStretch(pb, m)
			if err == nil {
				err = l.commit(pb, pos)
			}
			err = errors.Join(err, pb.Close())
			if err == nil {
				err = l.flush()
			}
		}
		s.release(p.partition)
		if err != nil {
			return err
		}
	}
	return nil
}

func deleteStretch(b *pebble.Batch, m *mark) error {
	for _, space := range [...]byte{spaceIndex, spacePayload} {
		if err := b.DeleteRange(lsnKey(nil, space, m.log, logs.LSN(m.number)), lsnEnd(space, m.log, logs.LSN(m.by)), nil); err != nil {
			return err
		}
	}
	return nil
}
