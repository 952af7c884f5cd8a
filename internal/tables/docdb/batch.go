package docdb

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// WriteBatch is what a request does to the documents of one tablet: effects that
// lack only their time. It is built by operations, read by the later operations
// of the same request (the overlay), encoded into a Raft entry, and applied.
//
// The bytes are in the encoded form from the start (docs/formats/docdb.md): a
// version, then records. Every effect takes the next write id, also one that a
// later effect on the same place replaced: that is a gap, and costs one byte.
type WriteBatch struct {
	buf     []byte
	docs    []batchDoc
	effects []batchEffect
	garbage []batchGarbage // versions that the batch deletes at once
	index   map[string]int // docKey -> document, and place -> effect, once there are many
	current int            // document that the next effect record belongs to; -1 none
	ids     uint32         // write ids taken
	dead    int            // effects that became gaps
	emptied bool           // the tablet's documents are gone before docs and effects
}

const batchVersion = 1

// Records of an encoded batch.
const (
	recDoc      = 1 // length, hash u64 and escaped key: the document of the effects that follow
	recSet      = 2 // length, tail, length, value record. Takes a write id
	recGap      = 3 // takes a write id and does nothing
	recTruncate = 4 // start u64, end u64: no document in [start, end) any more. Takes a write id
	recCollect  = 5 // length, tail, length, stamp: a version that nobody can see any more
)

type batchDoc struct {
	start, end int    // of its docKey in buf
	life       uint32 // the write id after its last root effect: where a new life begins
	lives      bool   // its last root effect is of a living document
	children   bool   // it has effects on children
}

type batchEffect struct {
	doc                int
	start, end         int // of the record in buf; the value ends it
	tailStart, tailEnd int
	valueStart         int
	id                 uint32
	dead               bool
}

// batchGarbage is a version below the batch that it replaces; see Exec.SetCollect.
type batchGarbage struct {
	doc         int
	tail, stamp []byte
}

// indexFrom is the number of effects from which lookups go by a map.
const indexFrom = 16

// Reset empties the batch and keeps its memory.
func (b *WriteBatch) Reset() {
	*b = WriteBatch{buf: append(b.buf[:0], batchVersion), docs: b.docs[:0], effects: b.effects[:0], garbage: b.garbage[:0], current: -1}
}

// Empty reports whether the batch has no effect.
func (b *WriteBatch) Empty() bool { return b.ids == 0 }

// WriteIDs is the number of write ids that the batch takes.
func (b *WriteBatch) WriteIDs() uint32 { return b.ids }

// Size is about how many bytes Encode appends.
func (b *WriteBatch) Size() int { return len(b.buf) }

// Encode appends the batch in the form that ApplyBatch.Apply and DecodeBatch
// read. What was replaced within the batch is left out.
func (b *WriteBatch) Encode(dst []byte) []byte {
	if len(b.buf) == 0 {
		return append(dst, batchVersion)
	}
	from := 0
	for i := 0; b.dead > 0 && i < len(b.effects); i++ {
		if e := &b.effects[i]; e.dead {
			dst = append(append(dst, b.buf[from:e.start]...), recGap)
			from = e.end
		}
	}
	dst = append(dst, b.buf[from:]...)
	current := b.current
	for _, g := range b.garbage {
		if g.doc != current {
			d := b.docs[g.doc]
			dst = appendBytes(append(dst, recDoc), b.buf[d.start:d.end])
			current = g.doc
		}
		dst = appendBytes(appendBytes(append(dst, recCollect), g.tail), g.stamp)
	}
	return dst
}

func appendBytes(dst, p []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(p))), p...)
}

// find gives the document of docKey (hash and escaped key), -1 if the batch has
// none.
func (b *WriteBatch) find(docKey []byte) int {
	if b.index != nil {
		if i, ok := b.index[string(docKey)]; ok {
			return i
		}
		return -1
	}
	for i := range b.docs {
		if bytes.Equal(b.buf[b.docs[i].start:b.docs[i].end], docKey) {
			return i
		}
	}
	return -1
}

// enter makes docKey the document of the next effect record.
func (b *WriteBatch) enter(docKey []byte) int {
	if len(b.buf) == 0 {
		b.Reset()
	}
	if b.current >= 0 {
		d := b.docs[b.current]
		if bytes.Equal(b.buf[d.start:d.end], docKey) {
			return b.current
		}
	}
	i := b.find(docKey)
	b.buf = append(b.buf, recDoc)
	b.buf = binary.AppendUvarint(b.buf, uint64(len(docKey)))
	start := len(b.buf)
	b.buf = append(b.buf, docKey...)
	if i < 0 {
		i = len(b.docs)
		b.docs = append(b.docs, batchDoc{start: start, end: len(b.buf), life: b.ids})
		if b.index != nil {
			b.index[string(docKey)] = i
		}
	}
	b.current = i
	return i
}

// beginSet starts a recSet for a place; the caller appends the value record to
// b.buf and calls endSet.
func (b *WriteBatch) beginSet(doc int, tail []byte) batchEffect {
	if i := b.lookup(doc, tail); i >= 0 {
		b.kill(i)
	}
	e := batchEffect{doc: doc, start: len(b.buf), id: b.ids}
	b.buf = append(b.buf, recSet)
	b.buf = binary.AppendUvarint(b.buf, uint64(len(tail)))
	e.tailStart = len(b.buf)
	b.buf = append(b.buf, tail...)
	e.tailEnd = len(b.buf)
	return e
}

// kill makes a gap of an effect.
func (b *WriteBatch) kill(i int) {
	b.effects[i].dead = true
	b.dead++
}

// endLife makes gaps of the document's children with a write id below before. A
// life that began and ended within the batch must leave none: no root version
// would tell a sweep of them (G3).
func (b *WriteBatch) endLife(doc int, before uint32) {
	for i := 0; b.docs[doc].children && i < len(b.effects); i++ {
		if e := &b.effects[i]; e.doc == doc && e.id < before && !e.dead && b.buf[e.tailStart] == tailSub {
			b.kill(i)
		}
	}
	// Nor may the root go that tells of the life below the batch.
	b.garbage = slices.DeleteFunc(b.garbage, func(g batchGarbage) bool { return g.doc == doc && g.tail[0] == tailRoot })
}

// set appends an effect: value is what the place holds from now on.
func (b *WriteBatch) set(doc int, tail, value []byte) {
	e := b.beginSet(doc, tail)
	b.buf = binary.AppendUvarint(b.buf, uint64(len(value)))
	e.valueStart = len(b.buf)
	b.buf = append(b.buf, value...)
	e.end = len(b.buf)
	b.ids++
	if tail[0] == tailRoot {
		b.docs[doc].life = b.ids
		b.docs[doc].lives = value[0] != valueTombstone
	} else {
		b.docs[doc].children = true
	}
	b.effects = append(b.effects, e)
	if b.index != nil {
		b.index[string(b.place(doc, tail))] = len(b.effects) - 1
	} else if len(b.effects) > indexFrom {
		b.makeIndex()
	}
}

// collect notes that a version of a place may be deleted on every replica.
func (b *WriteBatch) collect(doc int, tail, stamp []byte) {
	b.garbage = append(b.garbage, batchGarbage{doc, bytes.Clone(tail), stamp})
}

// Truncate removes every document with a hash in [start, end) that was written
// before it, end 0 being the end of the hash space: the whole tablet.
func (b *WriteBatch) Truncate(start, end uint64) {
	ids := b.ids
	b.Reset() // what the batch did before is gone too
	for range ids {
		b.buf = append(b.buf, recGap)
	}
	b.buf = append(b.buf, recTruncate)
	b.buf = binary.BigEndian.AppendUint64(b.buf, start)
	b.buf = binary.BigEndian.AppendUint64(b.buf, end)
	b.ids = ids + 1
	b.emptied = true
}

// place is the index key of a place. A docKey begins with a hash and is at least
// ten bytes; the marker keeps the two kinds apart.
func (b *WriteBatch) place(doc int, tail []byte) []byte {
	p := make([]byte, 0, 64)
	p = append(p, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	p = append(p, 0, 0) // an empty key's escape and end: what follows is no docKey
	p = binary.BigEndian.AppendUint32(p, uint32(doc))
	return append(p, tail...)
}

func (b *WriteBatch) makeIndex() {
	b.index = make(map[string]int, 4*indexFrom)
	for i := range b.docs {
		b.index[string(b.buf[b.docs[i].start:b.docs[i].end])] = i
	}
	for i := range b.effects {
		if e := &b.effects[i]; !e.dead {
			b.index[string(b.place(e.doc, b.buf[e.tailStart:e.tailEnd]))] = i
		}
	}
}

// lookup gives the living effect on a place, -1 if there is none.
func (b *WriteBatch) lookup(doc int, tail []byte) int {
	if doc < 0 {
		return -1
	}
	if b.index != nil {
		if i, ok := b.index[string(b.place(doc, tail))]; ok && !b.effects[i].dead {
			return i
		}
		return -1
	}
	for i := len(b.effects) - 1; i >= 0; i-- {
		e := &b.effects[i]
		if e.doc == doc && !e.dead && bytes.Equal(b.buf[e.tailStart:e.tailEnd], tail) {
			return i
		}
	}
	return -1
}

// value is the value record and the write id of effect i.
func (b *WriteBatch) value(i int) ([]byte, DocTime) {
	e := &b.effects[i]
	return b.buf[e.valueStart:e.end:e.end], DocTime{HT: pending, WriteID: e.id}
}

func (b *WriteBatch) tail(i int) []byte {
	e := &b.effects[i]
	return b.buf[e.tailStart:e.tailEnd:e.tailEnd]
}
