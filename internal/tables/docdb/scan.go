package docdb

import (
	"bytes"
	"cmp"
	"slices"
)

// scanEnd is the tail after every child's.
var scanEnd = []byte{tailSub + 1}

// subRange turns [from, to) of subkeys into tails; an empty end is open.
func subRange(from, to []byte) (lower, upper []byte) {
	lower, upper = []byte{tailSub}, scanEnd
	if len(from) > 0 {
		lower = appendTail(nil, from)
	}
	if len(to) > 0 {
		upper = appendTail(nil, to)
	}
	return lower, upper
}

// ScanSub visits the visible children of the live document with from <= sub < to
// in bytewise order of sub, or from the greatest down; an empty from or to is
// open. fn may read documents and returns whether to go on. What it is given is
// its to keep. It must not write to this document.
func (d *Doc) ScanSub(from, to []byte, reverse bool, fn func(sub, value []byte) (more bool)) error {
	r, ok, err := d.Root()
	if err != nil || !ok {
		return err
	}
	lower, upper := subRange(from, to)
	var failed error
	emit := func(tail, p []byte, t DocTime) bool {
		if t.Compare(r.Created) < 0 {
			return true
		}
		value, ok, err := d.visible(p)
		if err == nil && ok {
			var sub []byte
			if sub, err = subOf(nil, tail); err == nil {
				return fn(sub, value)
			}
			err = corruptRecord("subkey", d.key, err)
		}
		failed = err
		return err == nil
	}
	err = d.mergeChildren(lower, upper, reverse, emit)
	return cmp.Or(failed, err)
}

// mergeChildren visits the newest record of every child, the batch's before the
// view's.
func (d *Doc) mergeChildren(lower, upper []byte, reverse bool, emit func(tail, p []byte, t DocTime) bool) error {
	over := d.overlay(lower, upper, reverse)
	b := d.x.batch
	// before emits what the batch has in front of tail, and reports whether it
	// has tail itself.
	before := func(tail []byte) (same, more bool) {
		for len(over) > 0 {
			c := bytes.Compare(b.tail(over[0]), tail)
			if reverse {
				c = -c
			}
			if c > 0 && tail != nil {
				return false, true
			}
			p, t := b.value(over[0])
			at := b.tail(over[0])
			over = over[1:]
			if !emit(at, p, t) {
				return false, false
			}
			if c == 0 && tail != nil {
				return true, true
			}
		}
		return false, true
	}
	stopped := false
	if d.x.view != nil && (b == nil || !b.emptied) {
		err := d.x.view.children(d.key, lower, upper, reverse, func(tail, p []byte, t DocTime) bool {
			same, more := before(tail)
			if more && !same {
				more = emit(tail, p, t)
			}
			stopped = !more
			return more
		})
		if err != nil {
			return err
		}
	}
	if !stopped {
		before(nil)
	}
	return nil
}

// overlay lists the batch's effects on children in [lower, upper), in the order
// of the scan.
func (d *Doc) overlay(lower, upper []byte, reverse bool) []int {
	doc := d.inBatch()
	if doc < 0 {
		return nil
	}
	b := d.x.batch
	var over []int
	for i := range b.effects {
		e := &b.effects[i]
		if e.doc != doc || e.dead {
			continue
		}
		if tail := b.tail(i); bytes.Compare(tail, lower) >= 0 && bytes.Compare(tail, upper) < 0 {
			over = append(over, i)
		}
	}
	slices.SortFunc(over, func(i, j int) int {
		if reverse {
			i, j = j, i
		}
		return bytes.Compare(b.tail(i), b.tail(j))
	})
	return over
}

// ScanDocs visits the live documents with fromHash <= hash < endHash (0: the end
// of the hash space) of the tablet, ordered by hash, then key. fn may read
// documents and returns whether to go on.
func (x *Exec) ScanDocs(fromHash, endHash uint64, fn func(hash uint64, key []byte, r Root) (more bool)) error {
	return x.scanDocs(fromHash, nil, endHash, func(hash uint64, key []byte, r *Root) bool {
		if r.Kind == RootNone || expired(r.ExpireAtMs, x.nowMs) {
			return true
		}
		r.Value = clone(r.Value)
		return fn(hash, key, *r)
	})
}

// scanDocs visits the newest root of every document, dead ones too, from
// (fromHash, fromKey) on. The root's Value is borrowed.
func (x *Exec) scanDocs(fromHash uint64, fromKey []byte, endHash uint64, fn func(hash uint64, key []byte, r *Root) bool) error {
	span := Span{Table: x.table, Start: fromHash, End: endHash}
	if s := x.Span(); x.view != nil {
		span.Start = max(span.Start, s.Start)
		if s.End != 0 && (span.End == 0 || span.End > s.End) {
			span.End = s.End
		}
	}
	lower, upper := span.bounds()
	if fromKey != nil && span.Start == fromHash {
		lower = appendDocKey(nil, x.table, fromHash, fromKey)
	}
	var failed error
	emit := func(docKey, p []byte, t DocTime) bool {
		r, err := decodeRoot(p, t)
		if err == nil {
			var hash uint64
			var key []byte
			if hash, key, err = docKeyParts(docKey); err == nil {
				return fn(hash, key, &r)
			}
		}
		failed = corruptRecord("document", docKey, err)
		return false
	}
	err := x.mergeRoots(lower, upper, emit)
	return cmp.Or(failed, err)
}

func (x *Exec) mergeRoots(lower, upper []byte, emit func(docKey, p []byte, t DocTime) bool) error {
	over := x.overlayRoots(lower, upper)
	before := func(docKey []byte) (same, more bool) {
		for len(over) > 0 {
			c := -1
			if docKey != nil {
				c = bytes.Compare(over[0].docKey, docKey)
			}
			if c > 0 {
				break
			}
			o := over[0]
			over = over[1:]
			p, t := x.batch.value(o.effect)
			if !emit(o.docKey, p, t) {
				return false, false
			}
			if c == 0 {
				return true, true
			}
		}
		return false, true
	}
	stopped := false
	if x.view != nil && (x.batch == nil || !x.batch.emptied) {
		err := x.view.roots(lower, upper, func(docKey, p []byte, t DocTime) bool {
			same, more := before(docKey)
			if more && !same {
				more = emit(docKey, p, t)
			}
			stopped = !more
			return more
		})
		if err != nil {
			return err
		}
	}
	if !stopped {
		before(nil)
	}
	return nil
}

type overlayRoot struct {
	docKey []byte
	effect int
}

func (x *Exec) overlayRoots(lower, upper []byte) []overlayRoot {
	b := x.batch
	if b == nil {
		return nil
	}
	var over []overlayRoot
	header := appendDocHeader(nil, x.table, 0)[:docHeader-8]
	for i := range b.docs {
		e := b.lookup(i, rootTail)
		if e < 0 {
			continue
		}
		docKey := slices.Concat(header, b.buf[b.docs[i].start:b.docs[i].end])
		if bytes.Compare(docKey, lower) >= 0 && bytes.Compare(docKey, upper) < 0 {
			over = append(over, overlayRoot{docKey, e})
		}
	}
	slices.SortFunc(over, func(a, b overlayRoot) int { return bytes.Compare(a.docKey, b.docKey) })
	return over
}

// CopyTo makes dst a copy of the live document: root, children and expiry. What
// dst was before is gone. It reports whether there was anything to copy.
func (d *Doc) CopyTo(dst *Doc) (bool, error) {
	r, ok, err := d.Root()
	if err != nil || !ok || bytes.Equal(d.key, dst.key) {
		return ok, err
	}
	r.Created = DocTime{}
	dst.PutRoot(r)
	var failed error
	lower, upper := subRange(nil, nil)
	from, _, err := d.Root()
	if err != nil {
		return false, err
	}
	err = d.mergeChildren(lower, upper, false, func(tail, p []byte, t DocTime) bool {
		if t.Compare(from.Created) < 0 {
			return true
		}
		_, expireAtMs, dead, err := decodeChild(p)
		if err != nil {
			failed = corruptRecord("child", d.key, err)
			return false
		}
		if !dead && !expired(expireAtMs, d.x.nowMs) {
			// The batch may move its bytes while it grows: set copies tail and p.
			dst.x.batch.set(dst.x.batch.enter(dst.batchKey()), clone(tail), clone(p))
		}
		return true
	})
	return true, cmp.Or(failed, err)
}
