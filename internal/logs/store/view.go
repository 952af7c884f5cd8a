package store

import (
	"cmp"
	"errors"
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
	ahead      int64    // bytes of payloads before its own, of those that the cursor came by
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
	viewChunk = 256      // copies taken from the cache at once
	slabFirst = 2 << 10  // most views read little
	slabBytes = 64 << 10 // at most, unless one thing is larger
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
	pointReadDisk.Reach()
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
	lsn, found := v.stand()
	if v.torn != nil {
		return v.skip()
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

// least is the lowest LSN that a cursor stands on. Cursors that are at their end
// are closed.
func (v *view) least() (lsn logs.LSN, found bool) {
	n := 0
	for _, c := range v.cursors {
		switch {
		case pebble.IsCorruptionError(c.err):
			v.torn = &tear{err: c.err, last: c.last, block: true}
			v.s.spoils(c.part, c.err)
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

// stand opens what must be open to know the lowest LSN that is to come, and gives
// it.
func (v *view) stand() (lsn logs.LSN, found bool) {
	for v.err == nil && v.torn == nil {
		lsn, found = v.least()
		if len(v.pending) == 0 || found && v.pending[0].first > lsn {
			break
		}
		v.openNext()
	}
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
	if n.damage != nil {
		v.s.spoils(c.part, n.damage)
	}
	n.ahead = c.walked
	c.walked += int64(n.head.payloadBytes)
	v.versions = append(v.versions, n)
	c.settle(c.it.Next())
}

// own copies bytes that an iterator is about to take back.
func (v *view) own(b []byte) []byte {
	if len(b) > cap(v.slab)-len(v.slab) {
		v.slab = make([]byte, 0, max(len(b), min(slabBytes, max(slabFirst, 2*cap(v.slab)))))
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
		h.flags = logs.WithPlan(h.flags|top.head.flags, logs.PlanOf(top.head.flags))
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
	if b.cached != nil {
		return b.cached.payload, verifyPayload(&b.head, b.cached.payload)
	}
	p, err := b.from.payload(b)
	if err == nil {
		p = v.own(p)
		err = verifyPayload(&b.head, p)
	}
	if err != nil {
		v.s.spoils(b.from.part, err)
	}
	return p, err
}
