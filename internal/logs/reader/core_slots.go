package reader

import (
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// slot is what a shard sent for an LSN at or above the front: a record, or a stretch
// of records that the filter leaves out.
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

// slots are what one shard sent, ascending, for that is how it sends. The front is
// found by comparing the lowest of each shard: nothing is ever moved to its place.
type slots struct {
	list []slot
	from int // those before were dropped
}

// front is the lowest slot, or nil.
func (b *slots) front() *slot {
	if b.from == len(b.list) {
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

// add puts a slot at the end, unless the shard repeats itself. A stretch joins the one
// before it. It says whether the slot was taken.
func (b *slots) add(s slot) bool {
	if n := len(b.list); n > b.from {
		last := &b.list[n-1]
		if s.lo <= last.hi {
			if s.record != nil || s.hi <= last.hi {
				return false
			}
			s.lo = last.hi + 1
		}
		if s.record == nil && last.record == nil && s.lo == last.hi+1 {
			last.hi = s.hi
			return true
		}
	}
	if b.from > 0 && len(b.list) == cap(b.list) {
		// Make room at the end instead of growing.
		n := copy(b.list, b.list[b.from:])
		clear(b.list[n:])
		b.list, b.from = b.list[:n], 0
	}
	b.list = append(b.list, s)
	return true
}

// front is the lowest slot of all shards, nil if there is none. Of copies of one LSN it
// is the one of the highest precedence; a record goes before a stretch that leaves it
// out, for a copy that was written again may have another key.
func (c *Core) front() *slot {
	var best *slot
	for _, s := range c.shards {
		f := s.slots.front()
		switch {
		case f == nil:
		case best == nil || f.lo < best.lo:
			best = f
		case f.lo == best.lo && f.record != nil && (best.record == nil || logs.Precedence(f.record) > logs.Precedence(best.record)):
			best = f
		}
	}
	return best
}

// filteredTo is how far the records are left out, from the front on.
func (c *Core) filteredTo() LSN {
	to := c.head
	for grown := true; grown; {
		grown = false
		for _, s := range c.shards {
			if f := s.slots.front(); f != nil && f.record == nil && f.lo <= above(to, 1) && f.hi > to {
				to, grown = f.hi, true
			}
		}
	}
	for _, s := range c.shards {
		for _, f := range s.slots.list[s.slots.from:] {
			if f.lo > to {
				break
			}
			if f.record != nil {
				to = f.lo - 1
			}
		}
	}
	return to
}

// dropSlots drops what lies below an LSN.
func (c *Core) dropSlots(below LSN) {
	for _, s := range c.shards {
		c.window.free(s.slots.dropBelow(below))
	}
}
