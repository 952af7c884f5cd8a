package docdb

import (
	"bytes"
	"encoding/binary"
	"math"

	"github.com/cespare/xxhash/v2"

	"github.com/braiddb/braid/internal/wire"
)

// A dump is one document as bytes, for OpRestore on any tablet of any cluster of
// the same version or a later one (docs/formats/documents.md):
//
//	version u8 | kind u8 | uvarint n | n entries | xxhash64 of what is before, u64
//
// Entries of hashes, sets and sorted sets are in the order of their subkeys, those
// of lists in list order, those of time series newest first. A dump holds neither
// key nor expiry of the document.
const dumpVersion = 1

// The kinds' numbers in a dump are those of RootKind, which are on disk anyway.

func (x *Exec) opDump(op *wire.Op) (*wire.Result, error) {
	d := x.doc(op)
	root, ok, err := x.live(d)
	if err != nil || !ok {
		return resultNil, err
	}
	body := []byte{dumpVersion, byte(root.Kind)}
	switch root.Kind {
	case RootString:
		body = appendBlob(body, root.Value)
	case RootHash, RootSet, RootZSet, RootList, RootTSeries:
		if body, err = dumpChildren(op, d, root, body); err != nil {
			return nil, err
		}
	default:
		return nil, errWrongType
	}
	if len(body) > valueBytesMax {
		return nil, errAnswerTooLarge
	}
	return bytesResult(binary.BigEndian.AppendUint64(body, xxhash.Sum64(body))), nil
}

func appendBlob(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

// dumpChildren appends the number of entries and the entries.
func dumpChildren(op *wire.Op, d *Doc, root Root, body []byte) ([]byte, error) {
	from, to := []byte(nil), []byte(nil)
	switch root.Kind {
	case RootZSet:
		from, to = zsetMembers, familyEnd(zsetMembers)
	case RootTSeries:
		from, to = []byte{seriesData}, seriesDataEnd
	}
	var entries []byte
	var n int64
	var bad error
	err := d.ScanSub(from, to, false, func(sub, value []byte) bool {
		n++
		entries, bad = dumpChild(op, root.Kind, entries, sub, value)
		return bad == nil && len(entries) <= valueBytesMax
	})
	switch {
	case bad != nil || err != nil:
		return nil, firstError(bad, err)
	case len(entries) > valueBytesMax:
		return nil, errAnswerTooLarge
	case root.Kind != RootTSeries && n != root.Count:
		return nil, damaged(op, "count %d, children %d", root.Count, n)
	}
	return append(binary.AppendUvarint(body, uint64(n)), entries...), nil
}

func dumpChild(op *wire.Op, kind RootKind, dst, sub, value []byte) ([]byte, error) {
	skip := 0 // of the subkey, before the member
	switch kind {
	case RootHash, RootSet:
		skip = hashedPrefix
	case RootZSet:
		skip = 1 + hashedPrefix
	}
	if len(sub) < skip {
		return nil, damaged(op, "subkey %x", sub)
	}
	switch kind {
	case RootHash:
		return appendBlob(appendBlob(dst, sub[skip:]), value), nil
	case RootSet:
		return appendBlob(dst, sub[skip:]), nil
	case RootZSet:
		if _, err := decodeZMember(op, value); err != nil {
			return nil, err
		}
		return append(appendBlob(dst, sub[skip:]), value...), nil
	case RootList:
		return appendBlob(dst, value), nil
	}
	ts, _, err := DecodeInt64(sub[1:])
	if err != nil {
		return nil, damaged(op, "subkey %x", sub)
	}
	atMs, entry, err := decodeEntry(op, value)
	dst = binary.AppendUvarint(binary.AppendVarint(dst, ^ts), uint64(atMs))
	return appendBlob(dst, entry), err
}

// dumpEntry is one entry of a dump that was read: what is not of its kind is
// zero. The slices alias the dump.
type dumpEntry struct {
	member []byte
	value  []byte
	score  float64
	ts     int64
	atMs   int64
}

// decodeDump reads a dump. It refuses all that opDump would not have written, so
// that a document made from it keeps every invariant: entries in order, which
// also means none twice, sizes within bounds, no NaN.
func decodeDump(payload []byte) (RootKind, []dumpEntry, error) {
	const trailer = 8
	if len(payload) < 2+1+trailer || len(payload) > valueBytesMax+trailer || payload[0] != dumpVersion {
		return 0, nil, errDumpChecksum
	}
	body := payload[:len(payload)-trailer]
	if binary.BigEndian.Uint64(payload[len(body):]) != xxhash.Sum64(body) {
		return 0, nil, errDumpChecksum
	}
	kind := RootKind(body[1])
	d := reader{p: body[2:]}
	if kind == RootString {
		value := d.take(d.uvarint())
		if d.bad || len(d.p) != 0 {
			return 0, nil, errDumpFormat
		}
		return kind, []dumpEntry{{value: value}}, nil
	}
	n := d.uvarint()
	if d.bad || kind < RootString || kind > RootTSeries || n == 0 || n > uint64(len(d.p)) {
		return 0, nil, errDumpFormat // an entry takes a byte at least
	}
	entries := make([]dumpEntry, 0, min(n, 1<<12))
	for range n {
		e, ok := readDumpEntry(&d, kind)
		if !ok || len(entries) > 0 && !ordered(kind, &entries[len(entries)-1], &e) {
			return 0, nil, errDumpFormat
		}
		entries = append(entries, e)
	}
	if len(d.p) != 0 {
		return 0, nil, errDumpFormat
	}
	return kind, entries, nil
}

func readDumpEntry(d *reader, kind RootKind) (e dumpEntry, ok bool) {
	blob := func() []byte { return d.take(d.uvarint()) }
	switch kind {
	case RootHash:
		e.member = blob()
		e.value = blob()
	case RootSet:
		e.member = blob()
	case RootZSet:
		e.member = blob()
		e.score = math.Float64frombits(d.uint64())
	case RootList:
		e.value = blob()
	case RootTSeries:
		e.ts = d.varint()
		at := d.uvarint()
		if at > math.MaxInt64 {
			return e, false
		}
		e.atMs = int64(at)
		e.value = blob()
	}
	return e, !d.bad && len(e.member) <= keyBytesMax && !math.IsNaN(e.score)
}

// ordered reports that b may follow a.
func ordered(kind RootKind, a, b *dumpEntry) bool {
	switch kind {
	case RootHash, RootSet, RootZSet:
		var x, y keySpace
		return bytes.Compare(x.hashed(a.member), y.hashed(b.member)) < 0
	case RootTSeries:
		return a.ts > b.ts
	}
	return true
}

func (x *Exec) opRestore(op *wire.Op) (*wire.Result, error) {
	d := x.doc(op)
	_, exists, err := x.live(d)
	if err != nil {
		return nil, err
	}
	if exists && op.Flags&wire.FlagReplace == 0 {
		return nil, errBusyKey
	}
	expireAtMs := op.Ints[0]
	if expireAtMs < 0 {
		return nil, errMalformed
	}
	kind, entries, err := decodeDump(op.Args[0])
	if err != nil {
		return nil, err
	}
	if exists {
		d.Delete()
	}
	if expired(expireAtMs, x.nowMs) {
		return resultOK, nil
	}
	return resultOK, x.restore(op, d, kind, entries, expireAtMs)
}

// restore begins a new life of the document with entries that decodeDump let
// pass.
func (x *Exec) restore(op *wire.Op, d *Doc, kind RootKind, entries []dumpEntry, expireAtMs int64) error {
	n := int64(len(entries))
	root := Root{Kind: kind, ExpireAtMs: expireAtMs, Count: n}
	var sub keySpace
	switch kind {
	case RootString:
		root.Count, root.Value = 0, entries[0].value
		d.PutRoot(root)
	case RootHash, RootSet:
		d.PutRoot(root)
		for i := range entries {
			d.PutSub(sub.hashed(entries[i].member), entries[i].value)
		}
	case RootZSet:
		d.PutRoot(root)
		for i := range entries {
			zput(d, zentry{entries[i].member, entries[i].score})
		}
	case RootList:
		root.Tail = n
		d.PutRoot(root)
		for i := range entries {
			d.PutSub(sub.number(int64(i)), entries[i].value)
		}
	case RootTSeries:
		return x.restoreSeries(op, d, entries, expireAtMs)
	}
	return nil
}

// restoreSeries leaves out what has expired since it was dumped.
func (x *Exec) restoreSeries(op *wire.Op, d *Doc, entries []dumpEntry, expireAtMs int64) error {
	s := series{op: op, d: d, nowMs: x.nowMs}
	if err := s.begin(); err != nil {
		return err
	}
	s.root.ExpireAtMs = expireAtMs
	for i := range entries {
		if e := &entries[i]; !expired(e.atMs, x.nowMs) {
			s.put(e.ts, e.atMs, e.value)
		}
	}
	s.wrote = true
	return s.finish(purgeMin)
}
