package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/braiddb/braid/internal/logs"
)

// extent is what a partition has of one log. It never shrinks while the
// partition lives, so it may promise more than is there, and never less.
type extent struct {
	first, last  logs.LSN
	minMs, maxMs int64
	bytes        uint64
	copies       uint64
}

func (x *extent) add(e *entry) {
	if x.copies == 0 {
		x.first, x.last, x.minMs, x.maxMs = e.lsn, e.lsn, e.timestamp, e.timestamp
	}
	x.first, x.last = min(x.first, e.lsn), max(x.last, e.lsn)
	x.minMs, x.maxMs = min(x.minMs, e.timestamp), max(x.maxMs, e.timestamp)
	x.bytes += uint64(copyKeyBytes + len(e.header) + len(e.payload))
	x.copies++
}

func (x *extent) overlaps(from, to logs.LSN) bool { return x.first <= to && x.last >= from }

func (x *extent) encode(dst []byte) []byte {
	for _, v := range [...]uint64{uint64(x.first), uint64(x.last), uint64(x.minMs), uint64(x.maxMs), x.bytes, x.copies} {
		dst = binary.AppendUvarint(dst, v)
	}
	return dst
}

func decodeExtent(b []byte) (x extent, err error) {
	d := decoder{b: b}
	x = extent{logs.LSN(d.uvarint()), logs.LSN(d.uvarint()), int64(d.uvarint()), int64(d.uvarint()), d.uvarint(), d.uvarint()}
	if d.bad || len(d.b) > 0 {
		return extent{}, fmt.Errorf("%w: extent does not decode", ErrCorrupt)
	}
	return x, nil
}

// partition is a stretch of time with an LSM of its own. The newest is open: all
// copies go there, old ones that recovery stores again too. When the next one
// begins it is closed: flushed, and what it has is written to the marks store.
//
//	open ──▶ closing (its last batches are applied) ──▶ closed ──▶ dropped
//	  │         │
//	  └─────────┴──▶ spoilt: something cannot be read ──▶ set aside: the rest is in the open one
type partition struct {
	id      uint64
	startMs int64
	dir     string

	// Guarded by shelf.mu.
	closed  bool                   // its extents are in the marks store, durably
	damaged bool                   // nobody knows all that it has: it may have any of any log
	spoilt  bool                   // something in it cannot be read: it is to be set aside (aside.go)
	again   time.Duration          // spoilt: not before
	closing bool                   // somebody is about it
	extents map[logs.LogID]*extent // until it is closed
	bytes   int64                  // of its copies
	endMs   int64                  // when it was closed
	whole   uint64                 // closed: the position up to which it must have all
	used    uint64                 // tells which was read last
	pending int                    // batches not applied yet; under Store.mu

	mu      sync.Mutex // held to open and close the LSM
	lsm     *lsm       // nil: not open
	refs    int        // of readers, and one of the writer until it is closed
	dropped bool
	unfit   error  // closed: the damage for which it does not open, nil: it does
	aside   uint64 // the doubt under which it was set aside, 0: it was not
}

var (
	errDropped = errors.New("logs/store: partition is dropped")
	// errAside is damage to whoever still looks for something in the partition.
	errAside = fmt.Errorf("%w: the partition is set aside", ErrCorrupt)
)

// shelf holds the partitions.
type shelf struct {
	mu    sync.Mutex
	all   []*partition // ascending by id
	clock uint64       // of uses

	opened    atomic.Int64 // LSMs that are open
	closing   atomic.Bool  // a worker is about to close some
	bytesRead atomic.Int64 // from files of partitions, whatever the block cache did not have
}

// partitionName is the directory of a partition: its number and its start.
func partitionName(id uint64, startMs int64) string {
	return fmt.Sprintf("p-%016x-%016x", id, uint64(startMs))
}

func parsePartition(name string) (id uint64, startMs int64, ok bool) {
	a, b, found := strings.Cut(strings.TrimPrefix(name, "p-"), "-")
	if !found || len(a) != 16 || len(b) != 16 || !strings.HasPrefix(name, "p-") {
		return 0, 0, false
	}
	id, err1 := strconv.ParseUint(a, 16, 64)
	start, err2 := strconv.ParseUint(b, 16, 64)
	return id, int64(start), err1 == nil && err2 == nil
}

// asideName is where the directory of a partition goes that takes copies and could not be
// opened (beginAnew), or that could not be read whole (moveAside): doubt is the one that it left.
func asideName(doubt, id uint64, startMs int64) string {
	return fmt.Sprintf("%s%d-%s", asidePrefix, doubt, partitionName(id, startMs))
}

func parseAside(name string) (id uint64, startMs int64, ok bool) {
	rest, ok := strings.CutPrefix(name, asidePrefix)
	_, rest, found := strings.Cut(rest, "-")
	if !ok || !found {
		return 0, 0, false
	}
	return parsePartition(rest)
}

// list gives the partitions, oldest first.
func (h *shelf) list() []*partition {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.all)
}

func (h *shelf) find(id uint64) *partition {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.findLocked(id)
}

func (h *shelf) findLocked(id uint64) *partition {
	at, found := slices.BinarySearchFunc(h.all, id, func(p *partition, id uint64) int {
		switch {
		case p.id < id:
			return -1
		case p.id > id:
			return 1
		}
		return 0
	})
	if !found {
		return nil
	}
	return h.all[at]
}

// remove takes a partition away.
func (h *shelf) remove(p *partition) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = slices.DeleteFunc(h.all, func(q *partition) bool { return q == p })
}

// note takes copies that are being applied into the partition's extents.
func (h *shelf) note(p *partition, entries []entry) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var x *extent
	for i := range entries {
		e := &entries[i]
		if e.log.IsMetadata() {
			continue
		}
		if x == nil || i == 0 || entries[i-1].log != e.log {
			x = p.extents[e.log]
			if x == nil {
				x = &extent{}
				p.extents[e.log] = x
			}
		}
		before := x.bytes
		x.add(e)
		p.bytes += int64(x.bytes - before)
	}
}

// begin makes the next partition, durably, and gives it.
func (s *Store) begin() (*partition, error) {
	h := &s.shelf
	h.mu.Lock()
	id := uint64(1)
	if n := len(h.all); n > 0 {
		id = h.all[n-1].id + 1
	}
	h.mu.Unlock()
	p := &partition{id: id, startMs: s.o.WallMs(), extents: map[logs.LogID]*extent{}}
	p.dir = s.fs.PathJoin(s.dir, partitionName(p.id, p.startMs))
	if err := s.makePartition(p); err != nil {
		return nil, err
	}
	if _, err := s.acquire(p); err != nil {
		return nil, err
	}
	h.mu.Lock()
	h.all = append(h.all, p)
	h.mu.Unlock()
	return p, nil
}

// makePartition makes a partition's directory, durably.
func (s *Store) makePartition(p *partition) error {
	err := s.fs.MkdirAll(p.dir, 0o755)
	if err == nil {
		err = s.syncDir(s.dir)
	}
	if err != nil {
		return fmt.Errorf("logs/store: begin partition %d: %w", p.id, err)
	}
	return nil
}

// memTableClosed is the size of a memtable of a partition that takes only deletions.
const memTableClosed = 64 << 10

// acquire opens a partition; release gives it back.
func (s *Store) acquire(p *partition) (*lsm, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dropped {
		return nil, errDropped
	}
	if p.aside > 0 {
		return nil, errAside
	}
	if p.unfit != nil {
		return nil, p.unfit
	}
	s.shelf.mu.Lock()
	s.shelf.clock++
	p.used = s.shelf.clock
	memTable, whole, closed := s.o.MemTableBytes, p.whole, p.closed
	if closed {
		memTable = memTableClosed
	}
	s.shelf.mu.Unlock()
	if p.lsm == nil {
		l, err := s.openLSM(p.dir, false, memTable)
		if err == nil && l.written.Load() < whole { // Pebble takes a damaged manifest for a short one
			err = fmt.Errorf("%w: partition %d has all up to %d, and had up to %d", ErrCorrupt, p.id, l.written.Load(), whole)
			err = errors.Join(err, l.close())
		}
		if closed && isDamage(err) {
			p.unfit = err
			s.spoils(p, err)
		}
		if err != nil {
			return nil, err
		}
		p.lsm = l
		s.shelf.opened.Add(1)
	}
	p.refs++
	return p.lsm, nil
}

func (s *Store) release(p *partition) {
	p.mu.Lock()
	p.refs--
	idle := p.refs == 0
	if idle && p.aside > 0 {
		s.moveAside(p)
	}
	p.mu.Unlock()
	if idle && s.shelf.opened.Load() > int64(s.o.PartitionsOpen)+1 && s.shelf.closing.CompareAndSwap(false, true) {
		if !s.run(s.closeUnused) {
			s.shelf.closing.Store(false)
		}
	}
}

// shut closes a partition's LSM; p.mu is held and nobody uses it.
func (s *Store) shut(p *partition) error {
	if p.lsm == nil {
		return nil
	}
	flushed, compacted := p.lsm.writtenBytes()
	s.count.flushed.Add(flushed)
	s.count.compacted.Add(compacted)
	err := p.lsm.close()
	p.lsm = nil
	s.shelf.opened.Add(-1)
	return err
}

// closeUnused closes those of the closed partitions that were not read for
// longest, above the number that may be open.
func (s *Store) closeUnused() {
	s.shelf.closing.Store(false)
	open := slices.DeleteFunc(s.shelf.list(), func(p *partition) bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.lsm == nil || p.refs > 0
	})
	if len(open) <= s.o.PartitionsOpen {
		return
	}
	s.shelf.mu.Lock()
	used := map[*partition]uint64{}
	for _, p := range open {
		used[p] = p.used
	}
	s.shelf.mu.Unlock()
	slices.SortFunc(open, func(a, b *partition) int { return int(int64(used[a] - used[b])) })
	for _, p := range open[:len(open)-s.o.PartitionsOpen] {
		p.mu.Lock()
		if p.refs == 0 && p.lsm != nil {
			if err := s.shut(p); err != nil {
				s.o.Logger.Error("logs/store: close partition", "partition", p.id, "error", err)
			}
		}
		p.mu.Unlock()
	}
}
