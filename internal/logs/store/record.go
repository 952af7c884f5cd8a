package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// ErrCorrupt says that stored bytes do not decode or do not verify.
var ErrCorrupt = errors.New("logs/store: corrupt data")

const headerVersion = 1

// What a header has besides its fixed part.
const (
	headPayload  byte = 1 << iota // a payload stands under the same key of spacePayload
	headAmend                     // only copyset, wave and flags count; the payload is another version's
	headProducer                  // producer and sequence
	headFindKey
	headFilterKey
	headOrigins
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// header is what a shard keeps of a copy besides the payload.
type header struct {
	bits         byte
	payloadBytes uint32
	checksum     uint32
	lsn          logs.LSN
	timestamp    int64
	good         logs.ESN // last known good
	wave         uint32
	flags        uint32
	countBefore  uint64
	count        uint32
	copyset      []uint64
	producer     uint64
	sequence     uint64
	findKey      []byte // nil: none
	filterKey    []byte
	origins      []origin
}

// origin says whose append a part of a gathered record was.
type origin struct {
	producer, sequence uint64
	flags              uint32
}

// record makes a message of it, without the payload.
func (h *header) record(log logs.LogID) *wire.LogRecord {
	r := &wire.LogRecord{Log: uint64(log), Lsn: uint64(h.lsn), TimestampMs: h.timestamp, LastKnownGood: uint32(h.good),
		Wave: h.wave, Flags: h.flags, Copyset: h.copyset, CountBefore: h.countBefore, Count: h.count, Producer: h.producer,
		Sequence: h.sequence, FindKey: h.findKey, FilterKey: h.filterKey, Checksum: h.checksum}
	for _, o := range h.origins {
		r.Origins = append(r.Origins, &wire.Origin{Producer: o.producer, Sequence: o.sequence, Flags: o.flags})
	}
	return r
}

// eachOrigin visits whose appends the record holds.
func (h *header) eachOrigin(fn func(o origin)) {
	if h.producer != 0 {
		fn(origin{h.producer, h.sequence, h.flags & logs.FlagProducer})
	}
	for _, o := range h.origins {
		fn(o)
	}
}

func (h *header) hasPayload() bool { return h.bits&headPayload != 0 }
func (h *header) amend() bool      { return h.bits&headAmend != 0 }

// pseudo says whether recovery made the record up: holes and bridges hold
// nothing that was appended.
func pseudo(flags uint32) bool { return flags&(logs.FlagHole|logs.FlagBridge) != 0 }

// appendHeader encodes a copy's header. Its checksum covers the key too, so that
// a header found under another key is not believed.
func appendHeader(dst []byte, r *wire.LogRecord, amend bool) []byte {
	at := len(dst)
	bits := byte(0)
	if amend {
		bits |= headAmend
	} else if len(r.Payload) > 0 {
		bits |= headPayload
	}
	if r.Producer != 0 {
		bits |= headProducer
	}
	if r.FindKey != nil {
		bits |= headFindKey
	}
	if r.FilterKey != nil {
		bits |= headFilterKey
	}
	if len(r.Origins) > 0 {
		bits |= headOrigins
	}
	dst = append(dst, 0, 0, 0, 0, headerVersion, bits)
	dst = binary.LittleEndian.AppendUint32(dst, r.Checksum)
	dst = binary.AppendVarint(dst, r.TimestampMs)
	dst = binary.AppendUvarint(dst, uint64(r.LastKnownGood))
	dst = binary.AppendUvarint(dst, uint64(r.Flags))
	dst = binary.AppendUvarint(dst, r.CountBefore)
	dst = binary.AppendUvarint(dst, uint64(r.Count))
	dst = binary.AppendUvarint(dst, uint64(len(r.Payload)))
	dst = binary.AppendUvarint(dst, uint64(len(r.Copyset)))
	for _, s := range r.Copyset {
		dst = binary.AppendUvarint(dst, s)
	}
	if bits&headProducer != 0 {
		dst = binary.LittleEndian.AppendUint64(dst, r.Producer)
		dst = binary.AppendUvarint(dst, r.Sequence)
	}
	if bits&headFindKey != 0 {
		dst = appendBytes(dst, r.FindKey)
	}
	if bits&headFilterKey != 0 {
		dst = appendBytes(dst, r.FilterKey)
	}
	if bits&headOrigins != 0 {
		dst = binary.AppendUvarint(dst, uint64(len(r.Origins)))
		for _, o := range r.Origins {
			dst = binary.LittleEndian.AppendUint64(dst, o.Producer)
			dst = binary.AppendUvarint(dst, o.Sequence)
			dst = binary.AppendUvarint(dst, uint64(o.Flags))
		}
	}
	sum := headerSum(logs.LogID(r.Log), logs.LSN(r.Lsn), logs.Precedence(r), dst[at+4:])
	binary.LittleEndian.PutUint32(dst[at:], sum)
	return dst
}

func appendBytes(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

// headerSum is the checksum of a header under its key.
func headerSum(log logs.LogID, lsn logs.LSN, precedence uint64, rest []byte) uint32 {
	sum := sumUint64(sumUint64(sumUint64(0, uint64(log)), uint64(lsn)), precedence)
	return crc32.Update(sum, castagnoli, rest)
}

// sumUint64 is crc32.Update by a number's eight bytes, without moving them to
// the heap.
func sumUint64(sum uint32, v uint64) uint32 {
	sum = ^sum
	for range 8 {
		sum = castagnoli[byte(sum)^byte(v)] ^ sum>>8
		v >>= 8
	}
	return ^sum
}

// decodeHeader reads what appendHeader wrote for this copy; anything else is
// refused. Its byte fields alias b.
func decodeHeader(b []byte, log logs.LogID, lsn logs.LSN, precedence uint64) (h header, err error) {
	if len(b) < 10 || binary.LittleEndian.Uint32(b) != headerSum(log, lsn, precedence, b[4:]) {
		return h, fmt.Errorf("%w: header of %s of log %d fails its checksum", ErrCorrupt, lsn, log)
	}
	if b[4] != headerVersion {
		return h, fmt.Errorf("%w: header of %s of log %d has version %d, not %d", ErrCorrupt, lsn, log, b[4], headerVersion)
	}
	d := decoder{b: b[6:]}
	h.bits = b[5]
	h.lsn, h.wave = lsn, uint32(precedence)
	h.checksum = d.fixed32()
	h.timestamp = d.varint()
	h.good = logs.ESN(d.uint32())
	h.flags = d.uint32()
	h.countBefore = d.uvarint()
	h.count = d.uint32()
	h.payloadBytes = d.uint32()
	if n := d.count(1); n > 0 {
		h.copyset = make([]uint64, n)
		for i := range h.copyset {
			h.copyset[i] = d.uvarint()
		}
	}
	if h.bits&headProducer != 0 {
		h.producer, h.sequence = d.fixed64(), d.uvarint()
	}
	if h.bits&headFindKey != 0 {
		h.findKey = d.bytes()
	}
	if h.bits&headFilterKey != 0 {
		h.filterKey = d.bytes()
	}
	if h.bits&headOrigins != 0 {
		h.origins = make([]origin, d.count(10))
		for i := range h.origins {
			h.origins[i] = origin{d.fixed64(), d.uvarint(), d.uint32()}
		}
	}
	if d.bad || len(d.b) > 0 || logs.PrecedenceOf(h.flags, h.wave) != precedence {
		return header{}, fmt.Errorf("%w: header of %s of log %d does not decode", ErrCorrupt, lsn, log)
	}
	return h, nil
}

// decoder takes fields off bytes; after the first that is not there it is bad
// and gives zeros.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) take(n uint64) []byte {
	if d.bad || n > uint64(len(d.b)) {
		d.bad = true
		return nil
	}
	p := d.b[:n:n]
	d.b = d.b[n:]
	return p
}

func (d *decoder) fixed32() uint32 {
	if p := d.take(4); p != nil {
		return binary.LittleEndian.Uint32(p)
	}
	return 0
}

func (d *decoder) fixed64() uint64 {
	if p := d.take(8); p != nil {
		return binary.LittleEndian.Uint64(p)
	}
	return 0
}

func (d *decoder) byte() byte {
	if p := d.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if d.bad || n <= 0 {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if d.bad || n <= 0 {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) uint32() uint32 {
	v := d.uvarint()
	if v > 1<<32-1 {
		d.bad = true
		return 0
	}
	return uint32(v)
}

// count reads how many things of at least size bytes follow.
func (d *decoder) count(size uint64) uint64 {
	n := d.uvarint()
	if n > uint64(len(d.b))/size {
		d.bad = true
		return 0
	}
	return n
}

// bytes is never nil.
func (d *decoder) bytes() []byte {
	if p := d.take(d.uvarint()); p != nil {
		return p
	}
	return []byte{}
}

// verifyPayload says whether a payload is the one that its client handed over.
func verifyPayload(h *header, payload []byte) error {
	if uint32(len(payload)) != h.payloadBytes || logs.Checksum(payload) != h.checksum {
		return fmt.Errorf("%w: payload of %s fails its checksum", ErrCorrupt, h.lsn)
	}
	return nil
}
