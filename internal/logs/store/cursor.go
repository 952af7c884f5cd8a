package store

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/braiddb/braid/internal/logs"
)

// cursor walks the copies of one log in one LSM.
type cursor struct {
	s          *Store
	part       *partition // nil: the marks
	lsm        *lsm
	log        logs.LogID
	last       logs.LSN // of the log, in it
	it, data   *pebble.Iterator
	valid      bool
	lsn        logs.LSN
	precedence uint64
	kind       copyKind
	err        error
	key        []byte
	walked     int64 // bytes of the payloads of the copies that it came by
	fetched    int64 // of them, up to and with the last that was read
}

// number is that of the cursor's partition.
func (c *cursor) number() uint64 {
	if c.part == nil {
		return 0
	}
	return c.part.id
}

// settle reads where the iterator stands.
func (c *cursor) settle(ok bool) {
	c.valid = false
	for ; ok; ok = c.it.Next() {
		if _, c.lsn, c.precedence, c.kind, c.valid = splitCopyKey(c.it.Key()); c.valid {
			return
		}
	}
	c.err = c.it.Error()
}

// payload finds a copy's payload; it is borrowed until the next call.
func (c *cursor) payload(b *version) ([]byte, error) {
	if c.data != nil && b.ahead-c.fetched > blockBytes {
		// Pebble goes some blocks on before it seeks, and reads each; what others send
		// to a reader of single copies would be read here as well.
		err := c.data.Close()
		if c.data = nil; err != nil {
			return nil, err
		}
	}
	c.fetched = b.ahead + int64(b.head.payloadBytes)
	if c.data == nil {
		it, err := c.lsm.db.NewIter(&pebble.IterOptions{LowerBound: numberKey(nil, spacePayload, uint64(c.log)),
			UpperBound: logEnd(spacePayload, c.log)})
		if err != nil {
			return nil, err
		}
		c.data = it
	}
	c.key = copyKey(c.key[:0], spacePayload, c.log, b.lsn, b.precedence, b.kind)
	if !c.data.SeekGE(c.key) || !bytes.Equal(c.data.Key(), c.key) {
		if err := c.data.Error(); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("%w: payload of %s of log %d is missing", ErrCorrupt, b.lsn, c.log)
	}
	return c.data.ValueAndErr()
}

func (c *cursor) close() {
	for _, it := range []*pebble.Iterator{c.it, c.data} {
		if it != nil {
			if err := it.Close(); err != nil && c.err == nil {
				c.err = err
			}
		}
	}
	c.it, c.data = nil, nil
	if c.part != nil {
		c.s.release(c.part)
		c.part = nil
	}
}

// spanned is a partition and where it begins and ends in a log.
type spanned struct {
	*partition
	first, last logs.LSN
}

// partitionsOf lists the partitions that have any of a stretch of a log, by
// where they begin.
func (s *Store) partitionsOf(log logs.LogID, from, to logs.LSN) ([]spanned, error) {
	var out []spanned
	h := &s.shelf
	h.mu.Lock()
	for _, p := range h.all {
		if p.damaged {
			out = append(out, spanned{p, 0, logs.LSNMax})
		} else if x := p.extents[log]; x != nil && x.overlaps(from, to) {
			out = append(out, spanned{p, x.first, x.last})
		}
	}
	h.mu.Unlock()
	// One that is closed at this moment is found twice; none is missed.
	err := s.eachExtent(log, func(id uint64, x extent) {
		if !x.overlaps(from, to) || slices.ContainsFunc(out, func(p spanned) bool { return p.id == id }) {
			return
		}
		if p := h.find(id); p != nil {
			out = append(out, spanned{p, x.first, x.last})
		}
	})
	slices.SortStableFunc(out, func(a, b spanned) int { return cmp.Compare(a.first, b.first) })
	return out, err
}

// eachExtent visits what closed partitions have of a log, oldest first.
func (s *Store) eachExtent(log logs.LogID, fn func(id uint64, x extent)) error {
	it, err := s.marks.db.NewIter(&pebble.IterOptions{LowerBound: numberKey(nil, spaceExtent, uint64(log)),
		UpperBound: logEnd(spaceExtent, log)})
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		x, err := decodeExtent(v)
		if err != nil {
			return err
		}
		if _, id, ok := splitPair(it.Key()); ok {
			fn(id, x)
		}
	}
	return it.Error()
}

// firstCopy is the winner of the first LSN of a stretch that has copies.
func (s *Store) firstCopy(log logs.LogID, from, to logs.LSN) (version, bool, error) {
	v, err := s.view(log, from, to)
	if err != nil {
		return version{}, false, err
	}
	defer v.close()
	if !v.next() {
		return version{}, false, v.err
	}
	return v.versions[0], true, nil
}

// lastCopy is the winner of the last LSN of a stretch that has copies and that
// accept takes, nil: any.
func (s *Store) lastCopy(log logs.LogID, from, to logs.LSN, accept func(*version) bool) (version, bool, error) {
	for from <= to {
		lsn, ok, err := s.lastLSN(log, from, to)
		if err != nil || !ok {
			return version{}, false, err
		}
		w, ok, err := s.firstCopy(log, lsn, lsn)
		if err != nil {
			return version{}, false, err
		}
		if ok && (accept == nil || accept(&w)) {
			return w, true, nil
		}
		if lsn == 0 {
			break
		}
		to = lsn - 1
	}
	return version{}, false, nil
}

// lastLSN is the last one of a stretch that has copies.
func (s *Store) lastLSN(log logs.LogID, from, to logs.LSN) (logs.LSN, bool, error) {
	s.mu.Lock()
	l := s.logs[log]
	if l == nil {
		s.mu.Unlock()
		return 0, false, nil
	}
	cover := l.coverFrom
	if to >= cover {
		at := len(l.cached)
		if to < logs.LSNMax {
			at = l.from(to + 1)
		}
		if at > 0 && l.cached[at-1].lsn >= from {
			lsn := l.cached[at-1].lsn
			s.mu.Unlock()
			return lsn, true, nil
		}
	}
	s.mu.Unlock()
	to = min(to, cover-1)
	if from > to || cover == logs.LSNOldest {
		return 0, false, nil
	}
	s.settled()
	parts, err := s.partitionsOf(log, from, to)
	if err != nil {
		return 0, false, err
	}
	best, found := logs.LSN(0), false
	for _, p := range parts {
		lsn, ok, err := s.lastIn(p.partition, log, from, to)
		if err != nil {
			return 0, false, err
		}
		if ok && (!found || lsn > best) {
			best, found = lsn, true
		}
	}
	return best, found, nil
}

func (s *Store) lastIn(p *partition, log logs.LogID, from, to logs.LSN) (logs.LSN, bool, error) {
	l, err := s.acquire(p)
	if errors.Is(err, errDropped) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	defer s.release(p)
	it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: lsnKey(nil, spaceIndex, log, from), UpperBound: lsnEnd(spaceIndex, log, to)})
	if err != nil {
		return 0, false, err
	}
	defer it.Close()
	for ok := it.Last(); ok; ok = it.Prev() {
		if _, lsn, _, _, ok := splitCopyKey(it.Key()); ok {
			return lsn, true, nil
		}
	}
	s.spoils(p, it.Error())
	return 0, false, it.Error()
}
