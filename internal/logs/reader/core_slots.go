package reader

import (
	"sort"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// slot is what came for an LSN at or above the front: a record, or a stretch of
// records that the filter leaves out.
type slot struct {
	lo, hi   LSN // hi is lo for a record
	record   *wire.LogRecord
	payloads [][]byte
	base     uint64
	known    bool // base is
	bytes    int
}

// slotBytes is what a slot takes beside its payload.
const slotBytes = 192

// slots are in ascending order and do not overlap.
type slots struct {
	list []slot
	from int // those before were dropped
}

func (b *slots) len() int { return len(b.list) - b.from }

// front is the lowest slot, or nil.
func (b *slots) front() *slot {
	if b.len() == 0 {
		return nil
	}
	return &b.list[b.from]
}

// reset drops all and says how many bytes that freed.
func (b *slots) reset() (freed int) {
	for i := b.from; i < len(b.list); i++ {
		freed += b.list[i].bytes
	}
	clear(b.list)
	b.list, b.from = b.list[:0], 0
	return freed
}

// dropBelow drops what lies below an LSN and says how many bytes that freed.
func (b *slots) dropBelow(lsn LSN) (freed int) {
	for b.from < len(b.list) {
		s := &b.list[b.from]
		if s.lo >= lsn {
			return freed
		}
		if s.hi >= lsn {
			s.lo = lsn
			return freed
		}
		freed += s.bytes
		*s = slot{}
		b.from++
	}
	b.list, b.from = b.list[:0], 0
	return freed
}

// find is the first slot that ends at or above an LSN.
func (b *slots) find(lsn LSN) int {
	// Shards send in order, so most come last.
	if n := len(b.list); n > b.from && b.list[n-1].hi < lsn {
		return n
	}
	return b.from + sort.Search(b.len(), func(i int) bool { return b.list[b.from+i].hi >= lsn })
}

// get is the slot of a record's LSN, or nil.
func (b *slots) get(lsn LSN) *slot {
	if i := b.find(lsn); i < len(b.list) && b.list[i].lo <= lsn {
		return &b.list[i]
	}
	return nil
}

func (b *slots) insert(i int, s slot) {
	if i == len(b.list) && b.from > 0 && len(b.list) == cap(b.list) {
		// Make room at the end instead of growing.
		n := copy(b.list, b.list[b.from:])
		clear(b.list[n:])
		i -= b.from
		b.list, b.from = b.list[:n], 0
	}
	b.list = append(b.list, slot{})
	copy(b.list[i+1:], b.list[i:])
	b.list[i] = s
}

// add puts a record in, unless its LSN has one of as much precedence. It says how
// many more bytes are held.
func (b *slots) add(s slot) int {
	i := b.find(s.lo)
	if i == len(b.list) || b.list[i].lo > s.lo {
		b.insert(i, s)
		return s.bytes
	}
	old := &b.list[i]
	if old.record == nil {
		// One shard left it out, another found that it passes: the filter key is part of
		// the record, so a copy that was written again differs. The record is the answer.
		b.cut(i, s.lo)
		b.insert(b.find(s.lo), s)
		return s.bytes
	}
	if logs.Precedence(s.record) <= logs.Precedence(old.record) {
		return 0
	}
	held := s.bytes - old.bytes
	*old = s
	return held
}

// cut takes one LSN out of a stretch.
func (b *slots) cut(i int, lsn LSN) {
	s := b.list[i]
	switch {
	case s.lo == s.hi:
		b.list = append(b.list[:i], b.list[i+1:]...)
	case s.lo == lsn:
		b.list[i].lo++
	case s.hi == lsn:
		b.list[i].hi--
	default:
		b.list[i].hi = lsn - 1
		b.insert(i+1, slot{lo: lsn + 1, hi: s.hi})
	}
}

// filteredTo is where the stretch ends that begins at the front.
func (b *slots) filteredTo() LSN {
	hi := b.list[b.from].hi
	for _, s := range b.list[b.from+1:] {
		if s.record != nil || s.lo != hi+1 {
			break
		}
		hi = s.hi
	}
	return hi
}

// filtered notes that the records of [lo, hi] are left out, where nothing is known yet.
func (b *slots) filtered(lo, hi LSN) {
	for lo <= hi {
		i := b.find(lo)
		if i == len(b.list) || b.list[i].lo > hi {
			b.insert(i, slot{lo: lo, hi: hi})
			return
		}
		if next := b.list[i]; next.lo > lo {
			b.insert(i, slot{lo: lo, hi: next.lo - 1})
			i++
		}
		if b.list[i].hi >= hi {
			return
		}
		lo = b.list[i].hi + 1
	}
}
