package docdb

import (
	"encoding/binary"

	"github.com/braiddb/braid/internal/hlc"
)

// RootKind is the type of a document. Numbers are on disk.
type RootKind uint8

const (
	RootNone RootKind = iota
	RootString
	RootHash
	RootSet
	RootZSet
	RootList
	RootTSeries
	RootRow
)

// pending is the hybrid time of what the batch at hand creates: its entry has
// none yet.
const pending = hlc.Max

// Root is the record at the head of a document. Its version time is the
// document's version: every write of a document writes its root.
type Root struct {
	Kind RootKind
	// Created hides every child that is older. Zero stands for the version's own
	// time in a record, and for "a new life starts here" in PutRoot. Handing back
	// what Root() returned keeps the children.
	Created    DocTime
	Count      int64  // children, where the type keeps count
	ExpireAtMs int64  // milliseconds since the Unix epoch; 0: never
	Head, Tail int64  // the type's own
	Value      []byte // the type's own

	Version hlc.Timestamp // of this record; pending while it is only in a batch
}

// A value's first byte. Root records have their kind there, in [1, 0x3f].
const (
	valueTombstone = 0x00
	valueChild     = 0x40 // then the child's bytes
	valueChildTTL  = 0x41 // then uvarint expiry, then the child's bytes
)

// Fields present in a root record, in this order.
const (
	rootCreatedAt   = 1 << iota // hybrid time u64, write id u32
	rootCreatedBack             // uvarint: own time, write id that much before its own
	rootExpiry                  // uvarint ms
	rootCount                   // varint
	rootHead                    // varint
	rootTailPos                 // varint
	rootFlagsEnd
)

// appendRoot encodes r. back is used where r.Created is pending: how many write
// ids before its own the life began.
func appendRoot(dst []byte, r *Root, back uint32) []byte {
	at := len(dst) + 1
	dst = append(dst, byte(r.Kind), 0)
	var flags byte
	switch {
	case r.Created.HT == pending:
		if back > 0 {
			flags |= rootCreatedBack
			dst = binary.AppendUvarint(dst, uint64(back))
		}
	case r.Created != DocTime{}:
		flags |= rootCreatedAt
		dst = binary.BigEndian.AppendUint64(dst, uint64(r.Created.HT))
		dst = binary.BigEndian.AppendUint32(dst, r.Created.WriteID)
	}
	if r.ExpireAtMs > 0 {
		flags |= rootExpiry
		dst = binary.AppendUvarint(dst, uint64(r.ExpireAtMs))
	}
	if r.Count != 0 {
		flags |= rootCount
		dst = binary.AppendVarint(dst, r.Count)
	}
	if r.Head != 0 {
		flags |= rootHead
		dst = binary.AppendVarint(dst, r.Head)
	}
	if r.Tail != 0 {
		flags |= rootTailPos
		dst = binary.AppendVarint(dst, r.Tail)
	}
	dst[at] = flags
	return append(dst, r.Value...)
}

// decodeRoot reads a root record written at t. The root's Created is always the
// effective one; Value aliases p. A tombstone gives RootNone.
func decodeRoot(p []byte, t DocTime) (Root, error) {
	r := Root{Version: t.HT, Created: t}
	if len(p) == 1 && p[0] == valueTombstone {
		return r, nil
	}
	if len(p) < 2 || p[0] == 0 || p[0] >= valueChild || p[1] >= rootFlagsEnd {
		return r, ErrEncoding
	}
	r.Kind = RootKind(p[0])
	flags, d := p[1], reader{p: p[2:]}
	if flags&rootCreatedAt != 0 {
		r.Created = DocTime{HT: hlc.Timestamp(d.uint64()), WriteID: d.uint32()}
	}
	if flags&rootCreatedBack != 0 {
		back := d.uvarint()
		if back > uint64(t.WriteID) {
			d.bad = true
		}
		r.Created = DocTime{HT: t.HT, WriteID: t.WriteID - uint32(back)}
	}
	if flags&rootExpiry != 0 {
		r.ExpireAtMs = int64(d.uvarint())
	}
	if flags&rootCount != 0 {
		r.Count = d.varint()
	}
	if flags&rootHead != 0 {
		r.Head = d.varint()
	}
	if flags&rootTailPos != 0 {
		r.Tail = d.varint()
	}
	if d.bad || r.ExpireAtMs < 0 {
		return r, ErrEncoding
	}
	r.Value = d.p
	return r, nil
}

func appendChild(dst, value []byte, expireAtMs int64) []byte {
	if expireAtMs <= 0 {
		return append(append(dst, valueChild), value...)
	}
	dst = binary.AppendUvarint(append(dst, valueChildTTL), uint64(expireAtMs))
	return append(dst, value...)
}

// decodeChild reads a child's record. dead is a tombstone; value aliases p.
func decodeChild(p []byte) (value []byte, expireAtMs int64, dead bool, err error) {
	switch {
	case len(p) == 0:
		return nil, 0, false, ErrEncoding
	case len(p) == 1 && p[0] == valueTombstone:
		return nil, 0, true, nil
	case p[0] == valueChild:
		return p[1:], 0, false, nil
	case p[0] == valueChildTTL:
		d := reader{p: p[1:]}
		expireAtMs = int64(d.uvarint())
		if d.bad || expireAtMs <= 0 {
			return nil, 0, false, ErrEncoding
		}
		return d.p, expireAtMs, false, nil
	}
	return nil, 0, false, ErrEncoding
}

// hintOf is what a valid value record tells to its key.
func hintOf(tail, value []byte) (h hint) {
	if len(value) == 1 && value[0] == valueTombstone {
		h.dead = true
		return h
	}
	if tail[0] != tailRoot {
		_, h.expireAtMs, _, _ = decodeChild(value)
	} else if value[1]&rootExpiry != 0 {
		r, _ := decodeRoot(value, DocTime{WriteID: maxWriteID})
		h.expireAtMs = r.ExpireAtMs
	}
	return h
}

// expired reports whether what expires at expireAtMs is gone at nowMs.
func expired(expireAtMs, nowMs int64) bool { return expireAtMs != 0 && expireAtMs <= nowMs }

// reader takes bytes apart with bounds; the first failure sticks.
type reader struct {
	p   []byte
	bad bool
}

func (d *reader) take(n uint64) []byte {
	if d.bad || n > uint64(len(d.p)) {
		d.bad, d.p = true, nil
		return nil
	}
	b := d.p[:n:n]
	d.p = d.p[n:]
	return b
}

func (d *reader) byte() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *reader) uint32() uint32 {
	if b := d.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (d *reader) uint64() uint64 {
	if b := d.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (d *reader) uvarint() uint64 {
	v, n := binary.Uvarint(d.p)
	if n <= 0 {
		d.bad, d.p = true, nil
		return 0
	}
	d.p = d.p[n:]
	return v
}

func (d *reader) varint() int64 {
	v, n := binary.Varint(d.p)
	if n <= 0 {
		d.bad, d.p = true, nil
		return 0
	}
	d.p = d.p[n:]
	return v
}
