package store

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// version is one copy that a view stands on.
type version struct {
	lsn        logs.LSN
	precedence uint64
	kind       copyKind
	head       header
	damage     error    // the header does not verify
	upTo       logs.LSN // with damage: the last LSN of a stretch that cannot be read at all
	cached     *entry   // in memory
	from       *cursor  // or in an LSM
}

// view walks the copies of a stretch of one log in order of LSN, all versions of
// an LSN at once. It takes them from the record cache where that covers the
// stretch, and from the partitions elsewhere; it never holds a lock while it
// reads. What is damaged is told, not passed over.
type view struct {
	s        *Store
	log      logs.LogID
	at, to   logs.LSN // still to be read
	reached  logs.LSN // everything below was walked
	ended    bool
	memory   []*entry  // of the cache, being walked
	pending  []spanned // partitions that begin further on
	cursors  []*cursor
	diskTo   logs.LSN // up to where cursors go
	disk     bool     // cursors are being walked
	versions []version
	torn     *tear  // what stands in the way
	slab     []byte // of headers and payloads read from LSMs
	err      error
}

var (
	errKnown = errors.New("it was found damaged before")
	// errHollow says that of a record only amendments are here.
	errHollow = errors.New("logs/store: only amendments of the record are here")
)

const (
	viewChunk = 256 // copies taken from the cache at once
	slabBytes = 64 << 10
)

// view begins at from; close must be called.
func (s *Store) view(log logs.LogID, from, to logs.LSN) (*view, error) {
	v := &view{s: s, log: log, at: from, to: to, reached: from}
	if from > to {
		v.ended = true
	}
	return v, nil
}

func (v *view) close() {
	for _, c := range v.cursors {
		c.close()
	}
	v.cursors = nil
}

// next goes to the next LSN that has copies; false is the end or an error.
func (v *view) next() bool {
	for v.err == nil {
		v.versions = v.versions[:0]
		switch {
		case len(v.memory) > 0:
			return v.nextInMemory()
		case v.disk:
			if v.nextOnDisk() {
				return true
			}
		case v.ended:
			return false
		default:
			v.fill()
		}
	}
	return false
}

// fill finds where the stretch goes on.
func (v *view) fill() {
	s := v.s
	s.mu.Lock()
	l := s.logs[v.log]
	if l == nil {
		s.mu.Unlock()
		v.ended = true
		return
	}
	if v.at < l.coverFrom || v.log.IsMetadata() {
		v.diskTo = v.to
		if !v.log.IsMetadata() {
			v.diskTo = min(v.to, l.coverFrom-1)
		}
		if d, ok := s.knownDamage(v.log, v.at); ok && d.from <= v.at {
			v.reached, v.diskTo = v.at, min(v.diskTo, d.to)
			v.torn, v.disk = &tear{err: errKnown, last: d.to}, true
			s.mu.Unlock()
			return
		} else if ok {
			v.diskTo = min(v.diskTo, d.from-1)
		}
		s.mu.Unlock()
		v.reached = v.at
		v.openDisk()
		return
	}
	defer s.mu.Unlock()
	from := l.from(v.at)
	to := from
	for to < len(l.cached) && l.cached[to].lsn <= v.to && (to-from < viewChunk || l.cached[to].lsn == l.cached[to-1].lsn) {
		to++
	}
	v.reached = v.at
	if from == to {
		v.ended = true
		return
	}
	s.count.cacheReads.Add(1)
	v.memory = append([]*entry(nil), l.cached[from:to]...)
	last := v.memory[len(v.memory)-1].lsn
	v.advance(last)
}

// advance says that everything up to lsn is taken.
func (v *view) advance(lsn logs.LSN) {
	if lsn >= v.to {
		v.ended = true
		return
	}
	v.at = lsn + 1
}

func (v *view) nextInMemory() bool {
	lsn := v.memory[0].lsn
	for len(v.memory) > 0 && v.memory[0].lsn == lsn {
		e := v.memory[0]
		v.memory = v.memory[1:]
		n := version{lsn: lsn, precedence: e.precedence, kind: e.kind(), cached: e}
		n.head, n.damage = decodeHeader(e.header, v.log, lsn, e.precedence)
		v.versions = append(v.versions, n)
	}
	return true
}

// openDisk opens cursors on the partitions that have any of at..diskTo.
func (v *view) openDisk() {
	s := v.s
	s.settled()
	s.count.lsmReads.Add(1)
	v.disk = true
	if v.log.IsMetadata() {
		v.addCursor(nil, s.marks, logs.LSNMax)
		return
	}
	parts, err := s.partitionsOf(v.log, v.at, v.diskTo)
	if err != nil {
		v.err = err
		return
	}
	v.pending = parts
}

// openNext opens the partition that begins next.
func (v *view) openNext() {
	p := v.pending[0]
	v.pending = v.pending[1:]
	l, err := v.s.acquire(p.partition)
	if errors.Is(err, errDropped) {
		return
	}
	if err != nil {
		v.torn = &tear{err: err, last: p.last}
		return
	}
	v.addCursor(p.partition, l, p.last)
}

func (v *view) addCursor(p *partition, l *lsm, last logs.LSN) {
	c := &cursor{s: v.s, part: p, lsm: l, log: v.log, last: last}
	v.cursors = append(v.cursors, c)
	it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: lsnKey(nil, spaceIndex, v.log, v.at),
		UpperBound: lsnEnd(spaceIndex, v.log, v.diskTo)})
	if err != nil {
		v.err = err
		return
	}
	c.it = it
	c.settle(it.First())
}

func (v *view) nextOnDisk() bool {
	lsn, found := logs.LSN(0), false
	for v.err == nil {
		if lsn, found = v.least(); v.torn != nil {
			return v.skip()
		}
		if len(v.pending) == 0 || found && v.pending[0].first > lsn {
			break
		}
		v.openNext()
	}
	if v.err != nil {
		return false
	}
	if !found {
		v.disk = false
		v.advance(v.diskTo)
		return false
	}
	for _, c := range v.cursors {
		for c.valid && c.lsn == lsn {
			v.take(c)
		}
	}
	if len(v.versions) > 1 {
		slices.SortStableFunc(v.versions, func(a, b version) int {
			if a.precedence != b.precedence {
				return cmp.Compare(b.precedence, a.precedence)
			}
			if a.kind != b.kind {
				return cmp.Compare(a.kind, b.kind)
			}
			return cmp.Compare(b.from.number(), a.from.number())
		})
		// The same copy, stored again in a later partition, is one.
		v.versions = slices.CompactFunc(v.versions, func(a, b version) bool {
			return a.precedence == b.precedence && a.kind == b.kind
		})
	}
	v.reached = lsn + 1
	return v.err == nil
}

// tear is what cannot be read: a partition that does not open, or a block of one.
type tear struct {
	err   error
	last  logs.LSN // nothing behind it is of that partition
	block bool     // the partition is open: some of it can be read
}

// probesMax bounds the search for the end of a damaged stretch. Where it is bad
// each step is dear, since Pebble looks for the bit that was flipped; so the end
// is found to a 32nd of what the partition has of the log, and remembered.
const probesMax = 5

// stretch is a range of LSNs.
type stretch struct{ from, to logs.LSN }

// knownDamage finds the first stretch of a log at or behind an LSN that is known
// not to be readable. mu is held.
func (s *Store) knownDamage(log logs.LogID, at logs.LSN) (stretch, bool) {
	best, found := stretch{}, false
	for _, d := range s.torn[log] {
		if d.to >= at && (!found || d.from < best.from) {
			best, found = d, true
		}
	}
	return best, found
}

// skip goes on behind what cannot be read: it becomes one stretch of damage. What
// could be read within that stretch is given up here; the other shards have it.
func (v *view) skip() bool {
	t := *v.torn
	for _, c := range v.cursors {
		c.close()
	}
	v.cursors, v.pending, v.disk, v.torn = v.cursors[:0], nil, false, nil
	bad, end := v.reached, max(min(v.diskTo, t.last), v.reached)
	if t.block {
		good := end + 1
		bad = v.reached
		for range probesMax {
			if good-bad <= 1 {
				break
			}
			if mid := bad + (good-bad)/2; v.s.readable(v.log, mid, v.diskTo) {
				good = mid
			} else {
				bad = mid
			}
		}
		end = good - 1
	}
	v.versions = append(v.versions[:0], version{lsn: v.reached, upTo: end, damage: fmt.Errorf("%w: %w", ErrCorrupt, t.err)})
	v.s.mu.Lock()
	if t.block {
		v.s.torn[v.log] = append(v.s.torn[v.log], stretch{v.reached, end})
	}
	v.s.mu.Unlock()
	v.reached = end + 1
	v.advance(end)
	return true
}

// readable says whether the first copy of a stretch can be found.
func (s *Store) readable(log logs.LogID, from, to logs.LSN) bool {
	v := &view{s: s, log: log, at: from, to: to, diskTo: to}
	defer v.close()
	v.openDisk()
	for _, c := range v.cursors {
		if c.err != nil {
			return false
		}
	}
	return true
}

// least is the lowest LSN that a cursor stands on. Cursors that are at their end
// are closed.
func (v *view) least() (lsn logs.LSN, found bool) {
	n := 0
	for _, c := range v.cursors {
		switch {
		case pebble.IsCorruptionError(c.err):
			v.torn = &tear{err: c.err, last: c.last, block: true}
		case c.err != nil:
			v.err = c.err
		}
		if !c.valid && c.err == nil {
			c.close()
			continue
		}
		v.cursors[n] = c
		n++
		if c.valid && (!found || c.lsn < lsn) {
			lsn, found = c.lsn, true
		}
	}
	clear(v.cursors[n:])
	v.cursors = v.cursors[:n]
	return lsn, found
}

// take makes a version of what a cursor stands on.
func (v *view) take(c *cursor) {
	n := version{lsn: c.lsn, precedence: c.precedence, kind: c.kind, from: c}
	value, err := c.it.ValueAndErr()
	if err != nil {
		n.damage = err
	} else {
		n.head, n.damage = decodeHeader(v.own(value), v.log, c.lsn, c.precedence)
	}
	v.versions = append(v.versions, n)
	c.settle(c.it.Next())
}

// own copies bytes that an iterator is about to take back.
func (v *view) own(b []byte) []byte {
	if len(b) > cap(v.slab)-len(v.slab) {
		v.slab = make([]byte, 0, max(slabBytes, len(b)))
	}
	at := len(v.slab)
	v.slab = append(v.slab, b...)
	return v.slab[at:len(v.slab):len(v.slab)]
}

// merged is the record's header as its copies here make it out: flags, wave and
// copyset of the winner, the rest from the copy that has it, which is given too.
func (v *view) merged() (header, *version, error) {
	top := &v.versions[0]
	if top.damage != nil {
		return header{lsn: top.lsn}, top, top.damage
	}
	if pseudo(top.head.flags) || top.kind == kindWhole {
		return top.head, top, nil
	}
	damage := errHollow
	for i := range v.versions[1:] {
		b := &v.versions[1+i]
		if b.damage != nil {
			damage = b.damage
			continue
		}
		if b.kind != kindWhole || pseudo(b.head.flags) {
			continue
		}
		h := b.head
		h.wave, h.copyset = top.head.wave, top.head.copyset
		h.flags |= top.head.flags
		h.good = max(h.good, top.head.good)
		return h, b, nil
	}
	return top.head, top, damage
}

// content is the record with its payload, verified.
func (v *view) content() (*wire.LogRecord, error) {
	h, body, err := v.merged()
	if err != nil {
		return nil, err
	}
	return v.withPayload(&h, body)
}

// withPayload reads the payload of what merged gave. If that of the copy that
// should give it is damaged, that of another wave is as good.
func (v *view) withPayload(h *header, body *version) (*wire.LogRecord, error) {
	r := h.record(v.log)
	if pseudo(h.flags) || !body.head.hasPayload() {
		return r, nil
	}
	payload, err := v.payload(body)
	for i := range v.versions {
		if err == nil {
			break
		}
		b := &v.versions[i]
		if b == body || b.damage != nil || b.kind != kindWhole || b.head.checksum != h.checksum {
			continue
		}
		if p, e := v.payload(b); e == nil {
			payload, err = p, nil
		}
	}
	r.Payload = payload
	return r, err
}

func (v *view) payload(b *version) ([]byte, error) {
	var p []byte
	if b.cached != nil {
		p = b.cached.payload
	} else {
		found, err := b.from.payload(b)
		if err != nil {
			return nil, err
		}
		p = v.own(found)
	}
	return p, verifyPayload(&b.head, p)
}

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
	return 0, false, it.Error()
}
