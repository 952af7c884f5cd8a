package journal

import (
	"encoding/binary"
	"hash/crc32"
)

// Sizes of what is on disk. docs/formats/journal.md is the page of this file.
const (
	// sector is what a disk writes whole or not at all. Groups begin and end on
	// its boundaries, so a torn group never damages the one before it.
	sector = 512

	segmentMagic = 0x534a5242 // "BRJS"
	groupMagic   = 0x474a5242 // "BRJG"
	formatNewest = 1

	segmentHeaderBytes = 64
	groupHeaderBytes   = 104
	rollEntryBytes     = 16
	recordHeaderBytes  = 40
)

// Flags of a group.
const flagSuspect = 1 // the writer's life began on a suspect tail that nobody has cleared yet

// flagRewritten marks a record's kind byte: a copy made by forward rewriting.
// It stands outside the run of its stream's sequence numbers.
const flagRewritten = 0x80

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// seedOf starts every checksum of a journal: what belongs to another cluster or
// node never verifies.
func seedOf(id Identity) uint32 {
	var b [24]byte
	copy(b[:], id.Cluster[:])
	binary.LittleEndian.PutUint64(b[16:], id.Node)
	return crc32.Checksum(b[:], castagnoli)
}

// segmentHeader is the first sector of a segment.
type segmentHeader struct {
	format     uint32
	generation uint64
	id         Identity
	sizeOnDisk uint64
}

func (h *segmentHeader) encode(b []byte) {
	le := binary.LittleEndian
	clear(b[:sector])
	le.PutUint32(b[0:], segmentMagic)
	le.PutUint32(b[8:], formatNewest)
	le.PutUint64(b[16:], h.generation)
	copy(b[24:40], h.id.Cluster[:])
	le.PutUint64(b[40:], h.id.Node)
	le.PutUint64(b[48:], h.id.Incarnation)
	le.PutUint64(b[56:], h.sizeOnDisk)
	le.PutUint32(b[4:], crc32.Checksum(b[8:segmentHeaderBytes], castagnoli))
}

// decodeSegmentHeader reports false where there is no header at all. Its
// checksum is not mixed with the identity: it is what tells a foreign journal
// from a damaged one.
func decodeSegmentHeader(b []byte) (segmentHeader, bool) {
	le := binary.LittleEndian
	if len(b) < segmentHeaderBytes || le.Uint32(b) != segmentMagic {
		return segmentHeader{}, false
	}
	if le.Uint32(b[4:]) != crc32.Checksum(b[8:segmentHeaderBytes], castagnoli) {
		return segmentHeader{}, false
	}
	h := segmentHeader{
		format:     le.Uint32(b[8:]),
		generation: le.Uint64(b[16:]),
		sizeOnDisk: le.Uint64(b[56:]),
	}
	copy(h.id.Cluster[:], b[24:40])
	h.id.Node = le.Uint64(b[40:])
	h.id.Incarnation = le.Uint64(b[48:])
	return h, true
}

// groupHeader begins a group.
type groupHeader struct {
	flags       uint16
	records     uint32
	rolls       uint32
	bytes       uint64 // from the header's first byte to the last record's last
	number      uint64 // groups are numbered without gaps over the journal's whole life
	generation  uint64 // of the segment it is in
	offset      uint64 // in the segment
	incarnation uint64 // of the writer

	// The watermark: everything before this position was synced before this
	// group was written (J3).
	markGen    uint64
	markOffset uint64

	// What is still in use: replay begins with group oldestNumber, which is the
	// first of segment oldestGen.
	oldestGen    uint64
	oldestNumber uint64
}

// A rollEntry names a stream of the group before, and its last sequence there.
type rollEntry struct {
	stream StreamID
	seq    uint64
}

func (h *groupHeader) encode(b []byte, seed uint32, roll []rollEntry) {
	le := binary.LittleEndian
	le.PutUint32(b[0:], groupMagic)
	le.PutUint16(b[8:], formatNewest)
	le.PutUint16(b[10:], h.flags)
	le.PutUint32(b[12:], h.records)
	le.PutUint32(b[16:], uint32(len(roll)))
	le.PutUint32(b[20:], 0)
	le.PutUint64(b[24:], h.bytes)
	le.PutUint64(b[32:], h.number)
	le.PutUint64(b[40:], h.generation)
	le.PutUint64(b[48:], h.offset)
	le.PutUint64(b[56:], h.incarnation)
	le.PutUint64(b[64:], h.markGen)
	le.PutUint64(b[72:], h.markOffset)
	le.PutUint64(b[80:], h.oldestGen)
	le.PutUint64(b[88:], h.oldestNumber)
	le.PutUint64(b[96:], 0)
	for i, r := range roll {
		at := groupHeaderBytes + i*rollEntryBytes
		le.PutUint64(b[at:], uint64(r.stream))
		le.PutUint64(b[at+8:], r.seq)
	}
	le.PutUint32(b[4:], crc32.Update(seed, castagnoli, b[8:groupHeaderBytes+len(roll)*rollEntryBytes]))
}

// decodeGroupHeader reads the header of a group that should begin at b[0],
// which lies at offset of segment generation. Everything that is not exactly
// such a header is refused, whatever it was once.
func decodeGroupHeader(b []byte, seed uint32, generation, offset uint64) (groupHeader, bool) {
	le := binary.LittleEndian
	if len(b) < groupHeaderBytes || le.Uint32(b) != groupMagic {
		return groupHeader{}, false
	}
	h := groupHeader{
		flags:        le.Uint16(b[10:]),
		records:      le.Uint32(b[12:]),
		rolls:        le.Uint32(b[16:]),
		bytes:        le.Uint64(b[24:]),
		number:       le.Uint64(b[32:]),
		generation:   le.Uint64(b[40:]),
		offset:       le.Uint64(b[48:]),
		incarnation:  le.Uint64(b[56:]),
		markGen:      le.Uint64(b[64:]),
		markOffset:   le.Uint64(b[72:]),
		oldestGen:    le.Uint64(b[80:]),
		oldestNumber: le.Uint64(b[88:]),
	}
	if h.generation != generation || h.offset != offset || h.bytes > uint64(len(b)) {
		return groupHeader{}, false
	}
	head := groupHeaderBytes + uint64(h.rolls)*rollEntryBytes // rolls < 2^32: no overflow
	if head > h.bytes || uint64(h.records) > (h.bytes-head)/recordHeaderBytes {
		return groupHeader{}, false
	}
	if le.Uint32(b[4:]) != crc32.Update(seed, castagnoli, b[8:head]) {
		return groupHeader{}, false
	}
	return h, true
}

// roll decodes the names in the group's header; b is the group.
func (h *groupHeader) roll(b []byte) []rollEntry {
	le := binary.LittleEndian
	out := make([]rollEntry, h.rolls)
	for i := range out {
		at := groupHeaderBytes + i*rollEntryBytes
		out[i] = rollEntry{StreamID(le.Uint64(b[at:])), le.Uint64(b[at+8:])}
	}
	return out
}

// headBytes is the length of the header with its roll.
func (h *groupHeader) headBytes() uint64 { return groupHeaderBytes + uint64(h.rolls)*rollEntryBytes }

// extent is what the group occupies: whole sectors.
func (h *groupHeader) extent() int64 { return padded(int64(h.bytes)) }

func padded(n int64) int64 { return (n + sector - 1) &^ (sector - 1) }

// recordSeed mixes into a record's checksum whose it is and in which segment.
func recordSeed(seed uint32, incarnation, generation uint64) uint32 {
	return sumUint64(sumUint64(seed, incarnation), generation)
}

// sumUint64 is crc32.Update by a number's eight bytes. That function would move
// a small buffer to the heap for every record.
func sumUint64(sum uint32, v uint64) uint32 {
	sum = ^sum
	for range 8 {
		sum = castagnoli[byte(sum)^byte(v)] ^ sum>>8
		v >>= 8
	}
	return ^sum
}

// encodeRecord writes a record at b; offset is its place in the segment, which
// is part of its checksum though it is not stored.
func encodeRecord(b []byte, seed uint32, offset uint64, kind uint8, s StreamID, seq, pos uint64, payload []byte) int {
	le := binary.LittleEndian
	le.PutUint32(b[8:], uint32(len(payload)))
	le.PutUint32(b[12:], uint32(kind))
	le.PutUint64(b[16:], uint64(s))
	le.PutUint64(b[24:], seq)
	le.PutUint64(b[32:], pos)
	head := recordHeadSum(b, seed, offset)
	le.PutUint32(b[4:], head)
	copy(b[recordHeaderBytes:], payload)
	le.PutUint32(b[0:], crc32.Update(head, castagnoli, b[recordHeaderBytes:recordHeaderBytes+len(payload)]))
	return recordHeaderBytes + len(payload)
}

func recordHeadSum(b []byte, seed uint32, offset uint64) uint32 {
	return crc32.Update(sumUint64(seed, offset), castagnoli, b[8:recordHeaderBytes])
}

// foundRecord is a record read back. If damaged is set its header is sound and
// its payload is not.
type foundRecord struct {
	stream    StreamID
	seq, pos  uint64
	kind      Kind
	rewritten bool
	damaged   bool
	lost      bool // not read at all: other evidence says that it was there
	number    uint64
	segment   uint64
	payload   []byte
}

// decodeRecord reads the record at b[0]; ok is false if its header is unsound,
// and then nothing behind it in its group can be found. The payload aliases b.
func decodeRecord(b []byte, seed uint32, offset uint64) (r foundRecord, n int, ok bool) {
	le := binary.LittleEndian
	if len(b) < recordHeaderBytes {
		return r, 0, false
	}
	head := recordHeadSum(b, seed, offset)
	length := uint64(le.Uint32(b[8:]))
	if le.Uint32(b[4:]) != head || length > uint64(len(b)-recordHeaderBytes) {
		return r, 0, false
	}
	n = recordHeaderBytes + int(length)
	r.payload = b[recordHeaderBytes:n:n]
	r.kind = Kind(b[12] &^ flagRewritten)
	r.rewritten = b[12]&flagRewritten != 0
	r.stream = StreamID(le.Uint64(b[16:]))
	r.seq = le.Uint64(b[24:])
	r.pos = le.Uint64(b[32:])
	r.damaged = le.Uint32(b[0:]) != crc32.Update(head, castagnoli, r.payload)
	return r, n, true
}
