package docdb

import (
	"bytes"
	"slices"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
)

// Exec executes typed operations on the documents of one tablet. It reads
// through the batch (what earlier operations of the request wrote) and then the
// view, and writes into the batch. It is not safe for concurrent use; Reset makes
// it new, so that one can serve many requests.
//
// Slices that reads give out are the caller's to keep.
type Exec struct {
	view    *View
	batch   *WriteBatch
	table   catalog.TableID
	nowMs   int64
	schema  *catalog.Schema
	collect bool // see SetCollect

	docs []*Doc // handles given out since Reset, then spare ones
	used int
	tail []byte // scratch
	val  []byte // scratch
}

// NewExec makes an Exec over a view. A nil view reads as an empty tablet and is
// for batches that read nothing; a nil batch is for reads. Expiry is judged at
// nowMs: the physical part of the read time, or the leader's clock for writes.
func NewExec(v *View, b *WriteBatch, table catalog.TableID, nowMs int64) *Exec {
	x := &Exec{}
	x.Reset(v, b, table, nowMs)
	return x
}

// Reset is NewExec into the same memory. Handles given out before are void.
func (x *Exec) Reset(v *View, b *WriteBatch, table catalog.TableID, nowMs int64) {
	x.view, x.batch, x.table, x.nowMs = v, b, table, nowMs
	x.schema, x.collect, x.used = nil, false, 0
}

// SetSchema gives the schema that row operations need.
func (x *Exec) SetSchema(s *catalog.Schema) { x.schema = s }

// SetCollect says which history cutoff will hold where the batch is applied. With
// hlc.Max its entry raises the cutoff to its own time: no view can then see what
// the batch replaces, and a write that has read it deletes it at once (G2 in
// doc.go). With any other cutoff what is replaced may still be seen, and is left
// to the sweep.
func (x *Exec) SetCollect(cutoff hlc.Timestamp) { x.collect = cutoff == hlc.Max }

// NowMs is the time at which expiry is judged.
func (x *Exec) NowMs() int64 { return x.nowMs }

// Table is the table of the documents.
func (x *Exec) Table() catalog.TableID { return x.table }

// Span is the tablet's range, empty without a view.
func (x *Exec) Span() Span {
	if x.view == nil {
		return Span{Table: x.table}
	}
	return x.view.span
}

// Truncate removes every document of [start, end); end 0 is the end of the hash
// space. Reads of later operations see none of them.
func (x *Exec) Truncate(start, end uint64) {
	x.batch.Truncate(start, end)
	for _, d := range x.docs[:x.used] {
		d.forget()
	}
}

// Doc is a handle on one document. It may be used until the Exec is reset;
// several handles on one document see each other's writes.
type Doc struct {
	x    *Exec
	key  []byte // DocKey as it is on disk
	hash uint64

	base struct { // the root below the batch, read once
		known bool
		found bool // a record, perhaps a tombstone or expired
		root  Root
		stamp []byte // of the version, under SetCollect, until it is collected
	}
	seen []seenChild // children read below the batch, under SetCollect
}

// seenChild is the version of a child that a write may replace.
type seenChild struct{ tail, stamp []byte }

// seenMax bounds what a handle remembers; what is forgotten is left to the sweep.
const seenMax = 64

// Doc gives a handle on the document of a key. It reads nothing.
func (x *Exec) Doc(hash uint64, key []byte) *Doc {
	var d *Doc
	if x.used < len(x.docs) {
		d = x.docs[x.used]
	} else {
		d = &Doc{x: x}
		x.docs = append(x.docs, d)
	}
	x.used++
	d.hash = hash
	d.key = appendDocKey(d.key[:0], x.table, hash, key)
	d.forget()
	return d
}

func (d *Doc) forget() {
	d.base.known, d.base.found, d.base.root, d.base.stamp = false, false, Root{}, nil
	d.seen = d.seen[:0]
}

// Hash is the document's place in the hash space.
func (d *Doc) Hash() uint64 { return d.hash }

// batchKey is what a WriteBatch calls the document.
func (d *Doc) batchKey() []byte { return d.key[docHeader-8:] }

// inBatch is the document's number in the batch, -1 if it is not there.
func (d *Doc) inBatch() int {
	if b := d.x.batch; b != nil && len(b.docs) > 0 {
		return b.find(d.batchKey())
	}
	return -1
}

// Root gives the document's root record if the document lives: it was written,
// not deleted since, and has not expired.
func (d *Doc) Root() (Root, bool, error) {
	r, found, err := d.anyRoot()
	if err != nil || !found || r.Kind == RootNone || expired(r.ExpireAtMs, d.x.nowMs) {
		return Root{}, false, err
	}
	return r, true, nil
}

// anyRoot gives the newest root record, dead ones too.
func (d *Doc) anyRoot() (Root, bool, error) {
	if i := d.inBatch(); i >= 0 {
		if e := d.x.batch.lookup(i, rootTail); e >= 0 {
			p, t := d.x.batch.value(e)
			r, err := decodeRoot(p, t)
			r.Value = clone(r.Value)
			return r, true, err
		}
	}
	return d.baseRoot()
}

func (d *Doc) baseRoot() (Root, bool, error) {
	if !d.base.known {
		if d.x.view == nil || (d.x.batch != nil && d.x.batch.emptied) {
			d.base.known = true
			return Root{}, false, nil
		}
		p, t, ok, err := d.x.view.newest(d.key, rootTail)
		if err != nil {
			return Root{}, false, err
		}
		if ok {
			if d.base.root, err = decodeRoot(p, t); err != nil {
				return Root{}, false, corruptRecord("root", d.key, err)
			}
			d.base.root.Value = clone(d.base.root.Value)
		}
		d.base.known, d.base.found = true, ok
		if ok && d.x.collect {
			d.base.stamp = clone(d.x.view.stamp)
		}
	}
	return d.base.root, d.base.found, nil
}

// PutRoot writes the root record. With r.Created as Root() gave it the life of
// the document goes on, with all children. With r.Created zero a new life begins,
// and what was written before is gone; but for the children that this batch wrote
// while the document was not alive, which are the new life's. (So a new document
// may get its root before its children or after; one that lives, before.)
// r.Version is ignored.
func (d *Doc) PutRoot(r Root) {
	b := d.x.batch
	i := b.enter(d.batchKey())
	var back uint32
	switch {
	case r.Created == DocTime{}:
		r.Created.HT = pending
		if !b.docs[i].lives {
			back = b.ids - b.docs[i].life
		}
		b.endLife(i, b.ids-back)
	case r.Created.HT == pending:
		back = b.ids - r.Created.WriteID
	}
	d.x.val = appendRoot(d.x.val[:0], &r, back)
	b.set(i, rootTail, d.x.val)
	b.docs[i].lives = !expired(r.ExpireAtMs, d.x.nowMs)
	d.collectRoot(r.Created)
}

// collectRoot deletes the root that the batch has just replaced, if it was read.
// A root with children may only go when its life goes on: the last root of an
// ended life is what tells a sweep of the children (G3).
func (d *Doc) collectRoot(created DocTime) {
	b := &d.base
	if b.stamp == nil || b.root.Kind == RootNone {
		return
	}
	if created == b.root.Created || b.root.Kind == RootString || b.root.Kind == RootRow {
		d.x.batch.collect(d.inBatch(), rootTail, b.stamp)
		b.stamp = nil
	}
}

// collectChild is collectRoot for the child that the batch has just replaced.
func (d *Doc) collectChild(tail []byte) {
	for i := range d.seen {
		if bytes.Equal(d.seen[i].tail, tail) {
			d.x.batch.collect(d.inBatch(), tail, d.seen[i].stamp)
			d.seen = slices.Delete(d.seen, i, i+1)
			return
		}
	}
}

// Delete ends the document's life: the root and every child are gone. It is one
// record, whatever the number of children.
func (d *Doc) Delete() {
	b := d.x.batch
	i := b.enter(d.batchKey())
	b.endLife(i, b.ids)
	b.set(i, rootTail, tombstone)
	d.collectRoot(DocTime{})
}

var tombstone = []byte{valueTombstone}

func (x *Exec) subTail(sub []byte) []byte {
	x.tail = appendTail(x.tail[:0], sub)
	return x.tail
}

// Sub reads one child of the live document.
func (d *Doc) Sub(sub []byte) (value []byte, ok bool, err error) {
	r, ok, err := d.Root()
	if err != nil || !ok {
		return nil, false, err
	}
	tail := d.x.subTail(sub)
	p, t, ok, err := d.newest(tail)
	if err != nil || !ok || t.Compare(r.Created) < 0 {
		return nil, false, err
	}
	return d.visible(p)
}

// newest gives the newest record of a child, from the batch or below.
func (d *Doc) newest(tail []byte) (p []byte, t DocTime, ok bool, err error) {
	if i := d.inBatch(); i >= 0 {
		if e := d.x.batch.lookup(i, tail); e >= 0 {
			p, t = d.x.batch.value(e)
			return p, t, true, nil
		}
	}
	if d.x.view == nil || (d.x.batch != nil && d.x.batch.emptied) {
		return nil, DocTime{}, false, nil
	}
	p, t, ok, err = d.x.view.newest(d.key, tail)
	if ok && d.x.collect && len(d.seen) < seenMax {
		d.seen = append(d.seen, seenChild{clone(tail), clone(d.x.view.stamp)})
	}
	return p, t, ok, err
}

// visible copies a child's value out unless it is dead.
func (d *Doc) visible(p []byte) ([]byte, bool, error) {
	value, expireAtMs, dead, err := decodeChild(p)
	if err != nil {
		return nil, false, corruptRecord("child", d.key, err)
	}
	if dead || expired(expireAtMs, d.x.nowMs) {
		return nil, false, nil
	}
	return clone(value), true, nil
}

// PutSub writes one child. The document's root must be written in the same
// batch, before or after (PutRoot says which life the child belongs to).
func (d *Doc) PutSub(sub, value []byte) { d.PutSubTTL(sub, value, 0) }

// PutSubTTL is PutSub with an expiry of the child's own; 0 is never.
func (d *Doc) PutSubTTL(sub, value []byte, expireAtMs int64) {
	d.x.val = appendChild(d.x.val[:0], value, expireAtMs)
	d.setChild(d.x.subTail(sub), d.x.val)
}

// DeleteSub removes one child.
func (d *Doc) DeleteSub(sub []byte) { d.setChild(d.x.subTail(sub), tombstone) }

func (d *Doc) setChild(tail, record []byte) {
	b := d.x.batch
	b.set(b.enter(d.batchKey()), tail, record)
	if len(d.seen) > 0 {
		d.collectChild(tail)
	}
}

func clone(p []byte) []byte {
	if len(p) == 0 {
		return nil
	}
	return append(make([]byte, 0, len(p)), p...)
}
