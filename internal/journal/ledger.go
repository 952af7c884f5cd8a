package journal

import (
	"cmp"
	"slices"
)

// A ledger knows what is where: which streams pin which segments, what the next
// group says of the one before, and which segments nobody needs any more. It is
// the journal's deterministic half: it does no input or output and starts
// nothing; the shell tells it what became durable.
type ledger struct {
	id   Identity
	seed uint32

	streams map[StreamID]*stream
	live    []*segment // in order; the last one is written to
	offset  int64      // where the next group goes in it
	number  uint64     // of the next group
	suspect bool

	roll, nextRoll   []rollEntry // of the group before; of the one being encoded
	markGen, markEnd uint64      // end of the group before

	refusals Refusals  // what was refused and is not written since
	leaving  []leaving // released, but no vouched group says so yet
	free     []*segment
	rewrites uint64
}

// segment is one file as the ledger sees it.
type segment struct {
	gen         uint64
	size        int64
	firstNumber uint64 // of its first group
	entryPins   int    // streams with entries above their low-water mark in it
	keptPins    int    // newest states, starts and corruption marks in it
}

// leaving is a segment that group number was the first to call unused.
type leaving struct {
	seg    *segment
	number uint64
}

// stream is what must be known of a stream to write its next record and to
// decide about segments.
type stream struct {
	id      StreamID
	nextSeq uint64
	low     uint64 // entries at or below are not needed
	spans   []span // segments with entries above low, in order
	state   kept
	start   kept
	mark    kept
	dropped *segment // where its KindDrop is; nothing lives

	rollNumber uint64 // the group in whose roll it is entered
	rollIndex  int
}

// span says that a segment holds entries of a stream up to position pos.
type span struct {
	seg *segment
	pos uint64
}

// kept is a record that stays until it is replaced, and moves forward when its
// segment must go.
type kept struct {
	seg     *segment // nil: none
	seq     uint64
	pos     uint64
	payload []byte
}

// mark says what of a stream is in doubt. It is written as a record of its own,
// whose position holds the bits, and kept until nothing is in doubt any more.
type mark struct {
	stream StreamID
	doubt  uint64
}

const (
	doubtState = 1 // until a newer state is written
	doubtLog   = 2 // until a start is
)

func newLedger(id Identity) *ledger {
	return &ledger{id: id, seed: seedOf(id), streams: map[StreamID]*stream{}, number: 1}
}

func (l *ledger) stream(id StreamID) *stream {
	st := l.streams[id]
	if st == nil {
		st = &stream{id: id, nextSeq: 1}
		l.streams[id] = st
	}
	return st
}

// current is the segment being written.
func (l *ledger) current() *segment { return l.live[len(l.live)-1] }

// begin makes seg the segment being written.
func (l *ledger) begin(seg *segment) {
	seg.firstNumber = l.number
	l.live = append(l.live, seg)
	l.offset = sector
}

// room is how large a group fits into the current segment.
func (l *ledger) room() int64 { return l.current().size - l.offset }

// size is the padded size of a group of these appends.
func (l *ledger) size(reqs []request, forward []*stream) int64 {
	n := int64(groupHeaderBytes + len(l.roll)*rollEntryBytes)
	for i := range reqs {
		if reqs[i].err != nil {
			continue
		}
		n += int64(len(reqs[i].recs))*recordHeaderBytes + reqs[i].bytes
	}
	for _, st := range forward {
		for _, k := range []*kept{&st.state, &st.start, &st.mark} {
			n += recordHeaderBytes + int64(len(k.payload))
		}
	}
	return padded(n)
}

// encode appends to buf the group of these appends as it will stand at offset,
// with a sector of zeros behind it where there is room, and gives its extent.
// From here on the ledger speaks as if it were written; if that fails the
// journal has ended (J7).
func (l *ledger) encode(buf []byte, reqs []request, forward []*stream, marks []mark) ([]byte, int64) {
	seg := l.current()
	head := groupHeaderBytes + len(l.roll)*rollEntryBytes
	need := l.size(reqs, forward) + int64(len(marks))*recordHeaderBytes
	buf = slices.Grow(buf[:0], int(padded(need)+sector))
	buf = buf[:head]
	records := 0
	seed := recordSeed(l.seed, l.id.Incarnation, seg.gen)
	put := func(kind uint8, st *stream, seq, pos uint64, payload []byte) {
		at := len(buf)
		buf = buf[:at+recordHeaderBytes+len(payload)]
		encodeRecord(buf[at:], seed, uint64(l.offset)+uint64(at), kind, st.id, seq, pos, payload)
		l.enroll(st, seq)
		records++
	}
	for _, st := range forward {
		for i, k := range []*kept{&st.state, &st.start, &st.mark} {
			if k.seg != nil && k.seg != seg {
				put(uint8(keptKinds[i])|flagRewritten, st, k.seq, k.pos, k.payload)
				k.seg.keptPins--
				seg.keptPins++
				k.seg = seg
				l.rewrites++
			}
		}
	}
	for _, m := range marks {
		st := l.stream(m.stream)
		seq := st.nextSeq
		put(uint8(kindCorrupt), st, seq, m.doubt, nil)
		l.apply(st, seg, kindCorrupt, seq, m.doubt, nil)
	}
	for i := range reqs {
		if reqs[i].err != nil {
			continue
		}
		for j := range reqs[i].recs {
			r := &reqs[i].recs[j]
			st := l.stream(r.Stream)
			seq := st.nextSeq
			put(uint8(r.Kind), st, seq, r.Pos, r.Payload)
			l.apply(st, seg, r.Kind, seq, r.Pos, r.Payload)
		}
	}
	l.retire()
	h := groupHeader{
		records: uint32(records), bytes: uint64(len(buf)), number: l.number,
		generation: seg.gen, offset: uint64(l.offset), incarnation: l.id.Incarnation,
		markGen: l.markGen, markOffset: l.markEnd,
		oldestGen: l.live[0].gen, oldestNumber: l.live[0].firstNumber,
	}
	if l.suspect {
		h.flags |= flagSuspect
	}
	h.encode(buf, l.seed, l.roll)
	end := padded(int64(len(buf)))
	tail := end
	if l.offset+end+sector <= seg.size {
		tail += sector
	}
	used := len(buf)
	buf = buf[:tail]
	clear(buf[used:])
	return buf, end
}

var keptKinds = [...]Kind{KindState, KindStart, kindCorrupt}

// enroll names the stream in the roll that the next group carries.
func (l *ledger) enroll(st *stream, seq uint64) {
	if st.rollNumber != l.number {
		st.rollNumber, st.rollIndex = l.number, len(l.nextRoll)
		l.nextRoll = append(l.nextRoll, rollEntry{st.id, seq})
		return
	}
	l.nextRoll[st.rollIndex].seq = seq
}

// committed says that the group last encoded, of this extent, is durable.
func (l *ledger) committed(extent int64) {
	seg := l.current()
	l.offset += extent
	l.markGen, l.markEnd = seg.gen, uint64(l.offset)
	l.roll, l.nextRoll = l.nextRoll, l.roll[:0]
	// A segment may be reused only when a group that calls it unused is itself
	// vouched for: then no single damage brings replay back to it.
	n := 0
	for n < len(l.leaving) && l.leaving[n].number < l.number {
		l.free = append(l.free, l.leaving[n].seg)
		n++
	}
	l.leaving = l.leaving[n:]
	l.number++
}

// retire takes unpinned segments out of use, oldest first and never out of
// order: what a truncation, a start or a drop makes void is then always gone
// before the record that says so.
func (l *ledger) retire() {
	n := 0
	for n < len(l.live)-1 && l.live[n].entryPins == 0 && l.live[n].keptPins == 0 {
		l.leaving = append(l.leaving, leaving{l.live[n], l.number})
		n++
	}
	if n == 0 {
		return
	}
	for id, st := range l.streams {
		if st.dropped != nil && st.dropped.gen < l.live[n].gen {
			delete(l.streams, id)
		}
	}
	l.live = slices.Delete(l.live, 0, n)
}

// apply keeps the books for one record that lies in seg.
func (l *ledger) apply(st *stream, seg *segment, kind Kind, seq, pos uint64, payload []byte) {
	st.nextSeq = max(st.nextSeq, seq+1)
	if kind != KindDrop {
		st.dropped = nil
	}
	switch kind {
	case KindState:
		st.state.set(seg, seq, pos, payload)
		st.settle(doubtState)
	case KindTruncate:
		if pos > 0 {
			st.low = min(st.low, pos-1)
			st.limit(pos - 1)
		} else {
			st.unpin()
			st.low = 0
		}
	case KindStart:
		st.unpin()
		st.low = min(st.low, pos)
		st.settle(doubtLog)
		st.start.set(seg, seq, pos, payload)
	case KindDrop:
		st.unpin()
		st.low = 0
		st.state.clear()
		st.start.clear()
		st.mark.clear()
		st.dropped = seg
	case kindCorrupt:
		st.mark.set(seg, seq, pos, payload)
	default:
		st.pin(seg, pos)
	}
}

// lowWater moves a stream's low-water mark and reports whether that left the
// oldest segment without entries.
func (l *ledger) lowWater(id StreamID, pos uint64) bool {
	st := l.streams[id]
	if st == nil || pos <= st.low {
		return false
	}
	st.low = pos
	st.limit(^uint64(0))
	return l.releasable()
}

// releasable reports whether no entry holds the oldest segment: then a group,
// with what is kept there written forward, puts it out of use.
func (l *ledger) releasable() bool {
	return len(l.live) > 1 && l.live[0].entryPins == 0
}

// laggards gives the streams whose kept records alone hold the oldest segment.
func (l *ledger) laggards(bytesMax int) []*stream {
	if !l.releasable() || l.live[0].keptPins == 0 {
		return nil
	}
	oldest := l.live[0]
	var out []*stream
	for _, st := range l.streams {
		if st.state.seg == oldest || st.start.seg == oldest || st.mark.seg == oldest {
			out = append(out, st)
		}
	}
	slices.SortFunc(out, func(a, b *stream) int { return cmp.Compare(a.id, b.id) })
	bytes := 0
	for i, st := range out {
		bytes += 3*recordHeaderBytes + len(st.state.payload) + len(st.start.payload)
		if bytes > bytesMax && i > 0 {
			return out[:i]
		}
	}
	return out
}

// pinning gives the streams with entries in the older half of the segments.
func (l *ledger) pinning() []StreamID {
	limit := l.live[(len(l.live)-1)/2].gen
	var out []StreamID
	for id, st := range l.streams {
		if len(st.spans) > 0 && st.spans[0].seg.gen <= limit {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// standing counts the streams that were not dropped.
func (l *ledger) standing() (n int) {
	for _, st := range l.streams {
		if st.dropped == nil {
			n++
		}
	}
	return n
}

// liveBytes is the distance from the oldest position in use to the newest.
func (l *ledger) liveBytes() int64 {
	n := l.offset
	for _, s := range l.live[:len(l.live)-1] {
		n += s.size
	}
	return n
}

// pin notes an entry at pos in seg.
func (st *stream) pin(seg *segment, pos uint64) {
	if pos <= st.low {
		return
	}
	if n := len(st.spans); n > 0 && st.spans[n-1].seg == seg {
		st.spans[n-1].pos = max(st.spans[n-1].pos, pos)
		return
	}
	st.spans = append(st.spans, span{seg, pos})
	seg.entryPins++
}

// limit says that entries above pos do not count, and forgets the spans that
// then hold nothing above the low-water mark.
func (st *stream) limit(pos uint64) {
	n := 0
	for _, s := range st.spans {
		s.pos = min(s.pos, pos)
		if s.pos <= st.low {
			s.seg.entryPins--
			continue
		}
		st.spans[n] = s
		n++
	}
	st.spans = st.spans[:n]
}

// settle says that a doubt about the stream has no object any more.
func (st *stream) settle(bits uint64) {
	if st.mark.pos &^= bits; st.mark.pos == 0 {
		st.mark.clear()
	}
}

func (st *stream) unpin() {
	for _, s := range st.spans {
		s.seg.entryPins--
	}
	st.spans = st.spans[:0]
}

func (k *kept) set(seg *segment, seq, pos uint64, payload []byte) {
	k.clear()
	k.seg, k.seq, k.pos = seg, seq, pos
	k.payload = append(k.payload[:0], payload...)
	seg.keptPins++
}

func (k *kept) clear() {
	if k.seg != nil {
		k.seg.keptPins--
	}
	k.seg, k.pos, k.payload = nil, 0, k.payload[:0]
}
