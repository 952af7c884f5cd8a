package journal

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
)

// foundGroup is a group whose header verified.
type foundGroup struct {
	groupHeader
	rolls   []rollEntry
	records []foundRecord
	unread  int64 // offset from which its records could not be told apart, 0 if all could
	damaged bool  // some record's payload is unsound
}

func (g *foundGroup) sound() bool { return g.unread == 0 && !g.damaged }
func (g *foundGroup) end() int64  { return int64(g.offset) + g.extent() }

// scanned is what one segment's bytes hold.
type scanned struct {
	gen    uint64
	size   int64
	groups []foundGroup
	dirty  bool // the sector where the next group would begin is not zero
}

// scan finds the groups of a segment. Where there is none it looks for the next
// at every sector: a header cannot be mistaken, since its checksum covers where
// it is. The records' payloads do not alias data.
func scan(data []byte, seed uint32, gen uint64) scanned {
	s := scanned{gen: gen, size: int64(len(data))}
	at := uint64(sector)
	end := at
	for at+sector <= uint64(len(data)) {
		h, ok := decodeGroupHeader(data[at:], seed, gen, at)
		if !ok {
			at += sector
			continue
		}
		s.groups = append(s.groups, readGroup(h, data[at:at+h.bytes], seed))
		at += uint64(h.extent())
		end = at
	}
	s.dirty = nonZero(data, end)
	return s
}

// nonZero reports whether the sector at offset holds anything.
func nonZero(data []byte, at uint64) bool {
	if at >= uint64(len(data)) {
		return false
	}
	b := data[at:min(at+sector, uint64(len(data)))]
	return !bytes.Equal(b, zeroSector[:len(b)])
}

var zeroSector [sector]byte

// readGroup takes a group's records; it keeps a copy of b.
func readGroup(h groupHeader, b []byte, seed uint32) foundGroup {
	b = bytes.Clone(b)
	g := foundGroup{groupHeader: h, rolls: h.roll(b)}
	g.records = make([]foundRecord, 0, h.records)
	rs := recordSeed(seed, h.incarnation, h.generation)
	at := h.headBytes()
	for range h.records {
		r, n, ok := decodeRecord(b[at:], rs, h.offset+at)
		if !ok {
			g.unread = int64(h.offset + at)
			return g
		}
		r.number, r.segment = h.number, h.generation
		g.damaged = g.damaged || r.damaged
		g.records = append(g.records, r)
		at += uint64(n)
	}
	return g
}

// verdict is the outcome of reading a journal: what its groups say, what is
// missing, and where writing goes on.
type verdict struct {
	groups  []foundGroup // in use, in order, the last one sound
	suspect bool
	torn    int64
	corrupt []Corruption
	tail    uint64 // generation of the segment the last group is in, 0: none
	end     int64  // where it ends there
	clean   bool   // the sector behind it is zero, so writing may go on there
	streams map[StreamID]*history

	cut    *foundGroup // the last group, when it was not whole
	doubts []uint64    // any record of groups up to these numbers may be missing
}

// history is what is known of one stream, before void records are taken out.
type history struct {
	records []foundRecord
	gap     bool // sequence numbers are missing
}

// classify turns scanned segments, in order of generation, into a verdict.
func classify(segs []scanned) *verdict {
	v := &verdict{streams: map[StreamID]*history{}}
	dirty := false
	for i := range segs {
		s := &segs[i]
		if len(s.groups) == 0 {
			dirty = dirty || s.dirty
			continue
		}
		dirty = s.dirty
		for _, g := range s.groups {
			// A group with the number of an earlier one was written by a later
			// life that had cut the earlier one away.
			for n := len(v.groups); n > 0 && v.groups[n-1].number >= g.number; n-- {
				v.groups = v.groups[:n-1]
			}
			v.groups = append(v.groups, g)
		}
	}
	v.cutTail(&dirty)
	v.suspect = v.suspect || dirty
	if dirty && v.torn == 0 {
		v.torn = sector
	}
	if n := len(v.groups); n > 0 {
		last := &v.groups[n-1]
		v.suspect = v.suspect || last.flags&flagSuspect != 0
		v.tail, v.end, v.clean = last.generation, last.end(), !dirty
	}
	v.collect()
	return v
}

// cutTail drops the last group if it is not whole: nothing vouches for it. Its
// header still vouches for what is before it.
func (v *verdict) cutTail(dirty *bool) {
	n := len(v.groups)
	if n == 0 || v.groups[n-1].sound() {
		return
	}
	g := &v.groups[n-1]
	v.cut = g
	v.torn = int64(g.bytes)
	*dirty = true
	v.groups = v.groups[:n-1]
}

// collect walks the groups in use, gathers the records by stream and reports
// what is missing between them. The cut group still vouches for what was before
// it.
func (v *verdict) collect() {
	if v.cut != nil {
		v.suspect = v.suspect || v.cut.flags&flagSuspect != 0
	}
	v.dropVoid() // first: what such a group calls unused was not let go of
	oldest := uint64(1)
	for i := range v.groups {
		oldest = max(oldest, v.groups[i].oldestNumber)
	}
	first, _ := slices.BinarySearchFunc(v.groups, oldest, func(g foundGroup, n uint64) int {
		return cmp.Compare(g.number, n)
	})
	v.groups = v.groups[first:]
	expect := oldest
	for i := range v.groups {
		g := &v.groups[i]
		for _, r := range g.records {
			v.add(r)
		}
		if g.number > expect {
			v.lose(g, expect, g.number-1)
		}
		if !g.sound() {
			v.damage(g, v.rollOf(i))
		}
		expect = g.number + 1
	}
	if v.cut != nil && v.cut.number > max(expect, v.cut.oldestNumber) {
		v.lose(v.cut, max(expect, v.cut.oldestNumber), v.cut.number-1)
	}
	for _, number := range v.doubts {
		v.doubtAll(number)
	}
}

// dropVoid takes out groups that an earlier Open had cut and that have come to
// light again because the group that took their number is gone: the next group's
// watermark is not where they end. Where the next group is gone too, a later
// life behind an unsound group is reason enough.
func (v *verdict) dropVoid() {
	next := v.cut
	kept := len(v.groups)
	for i := len(v.groups) - 1; i >= 0; i-- {
		g := &v.groups[i]
		if next != nil && g.isVoid(next) {
			continue
		}
		kept--
		v.groups[kept] = *g
		next = &v.groups[kept]
	}
	v.groups = v.groups[kept:]
}

func (g *foundGroup) isVoid(next *foundGroup) bool {
	if next.number == g.number+1 {
		return next.markGen != g.generation || next.markOffset != uint64(g.end())
	}
	return !g.sound() && next.incarnation > g.incarnation
}

func (v *verdict) add(r foundRecord) {
	h := v.streams[r.stream]
	if h == nil {
		h = &history{}
		v.streams[r.stream] = h
	}
	h.records = append(h.records, r)
}

// rollOf gives the names that the group after v.groups[i] has for it.
func (v *verdict) rollOf(i int) []rollEntry {
	next := v.cut
	if i+1 < len(v.groups) {
		next = &v.groups[i+1]
	}
	if next == nil || next.number != v.groups[i].number+1 {
		return nil
	}
	return next.rolls
}

// lose reports groups from..to as gone; next is the group that vouches for
// them and names the streams of the last.
func (v *verdict) lose(next *foundGroup, from, to uint64) {
	c := Corruption{Segment: next.markGen, Offset: int64(next.markOffset), Reason: "acknowledged group is damaged"}
	if from == to {
		c.Streams = []StreamID{}
		for _, e := range next.rolls {
			c.Streams = append(c.Streams, e.stream)
			v.add(foundRecord{stream: e.stream, seq: e.seq, lost: true, number: to})
		}
	} else {
		c.Reason = "acknowledged groups are damaged"
		v.suspect = true
		v.doubts = append(v.doubts, to)
	}
	v.corrupt = append(v.corrupt, c)
}

// doubtAll marks every stream that cannot be shown to be whole although any
// record of groups up to number may be missing. Whole is one whose sequence runs
// on over the gap from its very first record: of another, a state or start
// written forward may be among what is gone, and that counts as the oldest loss,
// since whatever state or start is still found is newer.
func (v *verdict) doubtAll(number uint64) {
	for id, h := range v.streams {
		v.add(foundRecord{stream: id, seq: h.missing(number), lost: true, number: number})
		v.add(foundRecord{stream: id, seq: 1, lost: true, number: number})
	}
}

// missing is the sequence of an original that would be gone if any of the stream
// were with the groups up to number.
func (h *history) missing(number uint64) uint64 {
	var before, after, copied uint64
	for i := range h.records {
		switch r := &h.records[i]; {
		case r.lost:
		case r.rewritten:
			copied = max(copied, r.seq)
		case r.number <= number:
			before = max(before, r.seq)
		case after == 0 || r.seq < after:
			after = r.seq
		}
	}
	switch {
	case before > 0:
		return before + 1
	case after > 1:
		return after - 1
	case after == 1:
		return 1
	}
	return copied + 1
}

// damage reports the unsound records of a group whose header is sound.
func (v *verdict) damage(g *foundGroup, roll []rollEntry) {
	for i := range g.records {
		r := &g.records[i]
		if r.damaged {
			v.corrupt = append(v.corrupt, Corruption{Segment: g.generation, Offset: int64(g.offset), Bytes: g.extent(),
				Streams: []StreamID{r.stream}, Reason: "acknowledged record is damaged"})
		}
	}
	if g.unread == 0 {
		return
	}
	c := Corruption{Segment: g.generation, Offset: g.unread, Bytes: g.end() - g.unread,
		Streams: []StreamID{}, Reason: "acknowledged records are damaged"}
	if roll == nil { // the group after it is gone as well: any stream may have had records here
		c.Streams = nil
		v.suspect = true // for those of which nothing else is left
		v.doubts = append(v.doubts, g.number)
	}
	for _, e := range roll {
		if !slices.ContainsFunc(g.records, func(r foundRecord) bool { return r.stream == e.stream && r.seq == e.seq }) {
			c.Streams = append(c.Streams, e.stream)
			v.add(foundRecord{stream: e.stream, seq: e.seq, lost: true, number: g.number})
		}
	}
	v.corrupt = append(v.corrupt, c)
}

// order sorts a stream's records by sequence and keeps of several copies the
// soundest, and of those the newest. Evidence of a loss stays, behind the record
// of its sequence: that one may be a copy, which says nothing of those before it.
func (h *history) order() {
	slices.SortStableFunc(h.records, func(a, b foundRecord) int {
		if c := cmp.Compare(a.seq, b.seq); c != 0 || a.lost == b.lost {
			return c
		}
		if a.lost {
			return 1
		}
		return -1
	})
	n := 0
	for i := range h.records {
		r := h.records[i]
		if n == 0 || h.records[n-1].seq != r.seq || r.lost {
			h.records[n] = r
			n++
			continue
		}
		if !r.damaged || h.records[n-1].damaged {
			r.rewritten = r.rewritten && h.records[n-1].rewritten // either way it was in the run
			h.records[n-1] = r
		}
	}
	h.records = h.records[:n]
}

// rebuild orders every stream, fills the ledger's books with it and gives what
// the caller shall see, and which streams are to be marked corrupt. Streams go
// in order of their ids.
func (v *verdict) rebuild(l *ledger, segments map[uint64]*segment) (map[StreamID]*StreamReplay, []mark) {
	var marks []mark
	ids := make([]StreamID, 0, len(v.streams))
	for id := range v.streams {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	out := make(map[StreamID]*StreamReplay, len(ids))
	for _, id := range ids {
		h := v.streams[id]
		h.order()
		st := l.stream(id)
		sr, doubt := h.replay(st, l, segments)
		if sr != nil {
			out[id] = sr
		}
		if h.gap && doubt != 0 && !v.reported(id) {
			v.corrupt = append(v.corrupt, Corruption{Streams: []StreamID{id}, Reason: "acknowledged records are missing"})
		}
		if doubt != 0 {
			marks = append(marks, mark{id, doubt})
		}
	}
	return out, marks
}

// reported tells whether a stream's loss is among those found already.
func (v *verdict) reported(id StreamID) bool {
	return slices.ContainsFunc(v.corrupt, func(c Corruption) bool {
		return c.Streams == nil || slices.Contains(c.Streams, id)
	})
}

// replay walks one stream in the order of its sequence. From the first record
// that is missing on its log is in doubt until a start begins it anew, and its
// state until a newer one was written; a drop ends both.
func (h *history) replay(st *stream, l *ledger, segments map[uint64]*segment) (*StreamReplay, uint64) {
	w := walk{}
	if bits := h.copiesGone(); bits != 0 {
		w.miss(bits)
	}
	previous := uint64(0)
	for i := range h.records {
		r := &h.records[i]
		if r.lost {
			st.nextSeq = max(st.nextSeq, r.seq+1)
			if previous < r.seq { // else what is gone was copies, and copiesGone has spoken
				w.miss(doubtState | doubtLog)
			}
			continue
		}
		switch {
		case !r.rewritten:
			if previous != 0 && r.seq != previous+1 {
				w.miss(doubtState | doubtLog)
				h.gap = true
			}
			previous = r.seq
		case previous != 0 && r.seq == previous+1:
			previous = r.seq // the original is gone, its copy is as good
		}
		l.apply(st, segments[r.segment], r.kind, r.seq, r.pos, r.payload)
		w.step(r)
	}
	return w.result()
}

// copiesGone says what may be gone with groups whose newest record of the stream is
// there after all: those held copies, written forward, of its newest state, start and
// mark, in this order, and of one that came before the record that is named the
// original can have left with its segment. Whatever state or start is still there is
// newer than that one, so the doubt stands before all that is found, and a stream that
// is there from its first record on has its originals.
func (h *history) copiesGone() (doubt uint64) {
	previous := uint64(0)
	var last *foundRecord
	for i := range h.records {
		r := &h.records[i]
		switch {
		case !r.lost:
			if previous == 0 && r.seq == 1 && !r.rewritten {
				return 0
			}
			previous, last = r.seq, r
		case previous < r.seq:
		case last.seq == r.seq && last.kind == KindState:
		case last.seq == r.seq && last.kind == KindStart:
			doubt |= doubtState
		default:
			doubt |= doubtState | doubtLog
		}
	}
	return doubt
}

// walk is the state of a replay of one stream.
type walk struct {
	alive   bool // records since the last drop
	sr      StreamReplay
	entries []foundRecord
	whole   int    // entries before the first that is missing, if the log is in doubt
	doubt   uint64 // doubtState, doubtLog
}

func (w *walk) miss(bits uint64) {
	w.alive = true
	if bits&^w.doubt&doubtLog != 0 {
		w.whole = len(w.entries)
	}
	w.doubt |= bits
}

func (w *walk) step(r *foundRecord) {
	w.alive = true
	switch r.kind {
	case KindState:
		w.sr.State = r.payload
		w.doubt &^= doubtState
		if r.damaged {
			w.miss(doubtState)
		}
	case KindTruncate:
		w.entries = slices.DeleteFunc(w.entries, func(e foundRecord) bool { return e.pos >= r.pos })
		w.whole = min(w.whole, len(w.entries))
	case KindStart:
		w.sr.Start, w.sr.StartPos, w.entries, w.whole = r.payload, r.pos, nil, 0
		w.doubt &^= doubtLog
		if r.damaged {
			w.miss(doubtLog)
		}
	case KindDrop:
		*w = walk{}
	case kindCorrupt:
		w.miss(r.pos)
	default:
		w.entries = append(w.entries, *r)
	}
}

// result gives nothing for a stream that was dropped, and what is in doubt.
func (w *walk) result() (*StreamReplay, uint64) {
	if !w.alive {
		return nil, 0
	}
	if n := slices.IndexFunc(w.entries, func(e foundRecord) bool { return e.damaged }); n >= 0 {
		w.miss(doubtLog)
		w.whole = min(w.whole, n)
	}
	if w.doubt&doubtLog != 0 {
		w.entries = w.entries[:w.whole]
	}
	sr := w.sr
	sr.Corrupt = w.doubt != 0
	sr.Records = make([]Record, len(w.entries))
	for i, e := range w.entries {
		sr.Records[i] = Record{Stream: e.stream, Kind: e.kind, Pos: e.pos, Payload: e.payload}
	}
	if sr.Start == nil && len(w.entries) > 0 && w.entries[0].pos > 0 {
		sr.StartPos = w.entries[0].pos - 1
	}
	return &sr, w.doubt
}

// generationOf parses a segment's file name, 16 hex digits and ".journal".
func generationOf(name string) (uint64, bool) {
	const suffix = ".journal"
	if len(name) != 16+len(suffix) || name[16:] != suffix {
		return 0, false
	}
	var b [8]byte
	for i := range 16 {
		c := name[i]
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		default:
			return 0, false
		}
		b[i/2] = b[i/2]<<4 | c
	}
	return binary.BigEndian.Uint64(b[:]), true
}
