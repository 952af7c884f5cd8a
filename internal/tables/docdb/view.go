package docdb

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/braiddb/braid/internal/hlc"
)

// ErrSnapshotTooOld says that a read time is below the history cutoff: versions
// that it needs may have been collected.
var ErrSnapshotTooOld = errors.New("docdb: read time is below the history cutoff")

// Cutoff is a tablet's history cutoff: no view below it is served, and what only
// such a view could see may be collected. It only rises. Safe for concurrent use.
type Cutoff struct{ v atomic.Uint64 }

// Load reads the cutoff.
func (c *Cutoff) Load() hlc.Timestamp {
	if c == nil {
		return 0
	}
	return hlc.Timestamp(c.v.Load())
}

// Raise moves the cutoff up to t; a lower t changes nothing.
func (c *Cutoff) Raise(t hlc.Timestamp) {
	for {
		old := c.v.Load()
		if uint64(t) <= old || c.v.CompareAndSwap(old, uint64(t)) {
			return
		}
	}
}

// View is a tablet as it was at one hybrid time. Everything applied before the
// view was opened is in it, as far as its time is not later. It is not safe for
// concurrent use, and void once closed.
type View struct {
	e    *Engine
	span Span
	at   hlc.Timestamp
	gen  uint64 // of the engine when first was made

	first *pebble.Iterator   // fixes what the view sees; others are its clones
	spare []*pebble.Iterator // not in use; first among them when it is free

	key   []byte // scratch
	stamp []byte // of the version that newest gave last; borrowed
}

// View opens a view of a tablet at a time (hlc.Max: the newest). It fails with
// ErrSnapshotTooOld if at is below the cutoff. The cutoff is judged after the
// view is fixed, so that a sweep that begins meanwhile cannot take from it.
func (e *Engine) View(span Span, at hlc.Timestamp, cutoff *Cutoff) (*View, error) {
	it, gen, err := e.iters.take(e)
	if err != nil {
		return nil, err
	}
	v, _ := e.views.Get().(*View)
	if v == nil {
		v = &View{}
	}
	v.e, v.span, v.at, v.gen, v.first = e, span, at, gen, it
	v.spare = append(v.spare[:0], it)
	if c := cutoff.Load(); at < c {
		v.Close()
		return nil, fmt.Errorf("%w: read at %s, history begins at %s", ErrSnapshotTooOld, at, c)
	}
	return v, nil
}

// At is the view's time.
func (v *View) At() hlc.Timestamp { return v.at }

// Span is the tablet that the view is of.
func (v *View) Span() Span { return v.span }

// Close ends the view.
func (v *View) Close() {
	e := v.e
	for i, it := range v.spare {
		if i > 0 || !e.iters.give(e, it, v.gen) {
			if err := it.Close(); err != nil {
				e.readFailed(err)
			}
		}
	}
	v.e, v.first, v.spare, v.stamp = nil, nil, v.spare[:0], nil
	e.views.Put(v)
}

// take gives an iterator over what the view sees; give takes it back.
func (v *View) take() (*pebble.Iterator, error) {
	if n := len(v.spare); n > 0 {
		it := v.spare[n-1]
		v.spare = v.spare[:n-1]
		return it, nil
	}
	return v.first.Clone(pebble.CloneOptions{IterOptions: &pointOptions}) // without the bounds that first may have
}

// pointOptions are for iterators that mostly look for one document: writes look
// for keys that do not exist yet, so the filters of the last level pay.
var pointOptions = pebble.IterOptions{UseL6Filters: true}

func (v *View) give(it *pebble.Iterator) { v.spare = append(v.spare, it) }

// iterPool keeps iterators of closed views for the views to come. An iterator
// sees the engine as it was when it was made, so it may be used again only as
// long as nothing was applied since: gen, which every commit raises before it
// returns, tells. Reading a quiet engine so costs no set-up, and a busy one
// pays about a microsecond.
//
// An iterator pins the files and memtables that it was made over. The pool is
// emptied by the next commit, flush or view, and holds few.
type iterPool struct {
	gen atomic.Uint64
	mu  struct {
		sync.Mutex
		gen  uint64 // of all that are free
		free []*pebble.Iterator
	}
}

const iterPoolMax = 8

func (p *iterPool) take(e *Engine) (*pebble.Iterator, uint64, error) {
	gen := p.gen.Load() // before the iterator is made: what was applied by now, it sees
	p.mu.Lock()
	stale := p.dropLocked(gen)
	if n := len(p.mu.free); n > 0 {
		it := p.mu.free[n-1]
		p.mu.free = p.mu.free[:n-1]
		gen = p.mu.gen // perhaps newer: better
		p.mu.Unlock()
		return it, gen, nil
	}
	p.mu.Unlock()
	e.closeIters(stale)
	it, err := e.db.NewIter(&pointOptions)
	return it, gen, err
}

// give takes an iterator back if it is still good.
func (p *iterPool) give(e *Engine, it *pebble.Iterator, gen uint64) bool {
	if gen != p.gen.Load() {
		return false
	}
	p.mu.Lock()
	stale := p.dropLocked(gen)
	ok := len(p.mu.free) < iterPoolMax && p.mu.gen == gen
	if ok {
		p.mu.free = append(p.mu.free, it)
	}
	p.mu.Unlock()
	e.closeIters(stale)
	return ok
}

// changed says that something was applied.
func (p *iterPool) changed(e *Engine) {
	gen := p.gen.Add(1)
	p.mu.Lock()
	stale := p.dropLocked(gen)
	p.mu.Unlock()
	e.closeIters(stale)
}

// dropLocked empties the pool if what it holds is older than gen.
func (p *iterPool) dropLocked(gen uint64) (stale []*pebble.Iterator) {
	if p.mu.gen >= gen {
		return nil
	}
	p.mu.gen = gen
	if len(p.mu.free) == 0 {
		return nil
	}
	stale = p.mu.free
	p.mu.free = nil
	return stale
}

func (e *Engine) closeIters(its []*pebble.Iterator) {
	for _, it := range its {
		if err := it.Close(); err != nil {
			e.readFailed(err)
		}
	}
}

// corruptRecord wraps a record that does not decode.
func corruptRecord(what string, key []byte, err error) error {
	return fmt.Errorf("docdb: %s of document %x: %w", what, key, errors.Join(ErrCorrupt, err))
}

// storeError makes the store's error about a damaged file one of ours.
func storeError(err error) error {
	if pebble.IsCorruptionError(err) {
		return fmt.Errorf("docdb: %w", errors.Join(ErrCorrupt, err))
	}
	return err
}

// newest gives the newest version of a place at or before the view's time. The
// value, and v.stamp, are borrowed until the next use of the view.
func (v *View) newest(docKey, tail []byte) ([]byte, DocTime, bool, error) {
	it, err := v.take()
	if err != nil {
		return nil, DocTime{}, false, err
	}
	defer v.give(it)
	v.key = append(append(v.key[:0], docKey...), tail...)
	n := len(v.key)
	v.key = appendVersion(v.key, len(docKey), DocTime{HT: v.at, WriteID: maxWriteID}, hint{})
	if !it.SeekPrefixGE(v.key) {
		return nil, DocTime{}, false, storeError(it.Error())
	}
	key := it.Key()
	if len(key) < n+timeLen+1 || !bytes.Equal(key[:n], v.key[:n]) {
		return nil, DocTime{}, false, nil
	}
	p, err := it.ValueAndErr()
	if err != nil {
		return nil, DocTime{}, false, err
	}
	v.stamp = key[n:]
	return p, decodeTime(key[n:]), true, nil
}

const maxWriteID = 1<<32 - 1

// endOfTime sorts before every version of a place.
var endOfTime = DocTime{HT: hlc.Max, WriteID: maxWriteID}

func seekKey(docKey, tail []byte) []byte {
	key := make([]byte, 0, len(docKey)+len(tail)+timeLen+5)
	return appendVersion(append(append(key, docKey...), tail...), len(docKey), endOfTime, hint{})
}

// children visits the newest version at or before the view's time of every child
// of a document with lower <= tail < upper. What fn is given is borrowed.
func (v *View) children(docKey, lower, upper []byte, reverse bool, fn func(tail, p []byte, t DocTime) bool) error {
	if bytes.Compare(lower, upper) >= 0 {
		return nil // nothing can be there, and Pebble forbids bounds that cross
	}
	it, err := v.take()
	if err != nil {
		return err
	}
	defer v.give(it)
	if reverse {
		return v.childrenDown(it, docKey, lower, upper, fn)
	}
	var last []byte
	for ok := it.SeekPrefixGE(seekKey(docKey, lower)); ok; ok = it.Next() {
		k, err := parseVersion(it.Key())
		if err != nil {
			return corruptRecord("key", it.Key(), err)
		}
		if bytes.Compare(k.tail, upper) >= 0 {
			return nil
		}
		if k.time.HT > v.at || bytes.Equal(k.tail, last) {
			continue
		}
		last = append(last[:0], k.tail...)
		p, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		if !fn(last, p, k.time) {
			return nil
		}
	}
	return storeError(it.Error())
}

// childrenDown meets the versions of a child oldest first: the last one at or
// before the view's time counts.
func (v *View) childrenDown(it *pebble.Iterator, docKey, lower, upper []byte, fn func(tail, p []byte, t DocTime) bool) error {
	low, high := seekKey(docKey, lower), seekKey(docKey, upper)
	it.SetBounds(low, high)
	defer it.SetBounds(nil, nil)
	var tail, p []byte
	var t DocTime
	have := false
	for ok := it.SeekLT(high); ok; ok = it.Prev() {
		k, err := parseVersion(it.Key())
		if err != nil {
			return corruptRecord("key", it.Key(), err)
		}
		if k.time.HT > v.at {
			continue
		}
		if have && !bytes.Equal(k.tail, tail) && !fn(tail, p, t) {
			return nil
		}
		value, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		tail, p, t, have = append(tail[:0], k.tail...), append(p[:0], value...), k.time, true
	}
	if err := storeError(it.Error()); err != nil {
		return err
	}
	if have {
		fn(tail, p, t)
	}
	return nil
}

// roots visits the newest root record at or before the view's time of every
// document in [lower, upper). What fn is given is borrowed.
func (v *View) roots(lower, upper []byte, fn func(docKey, p []byte, t DocTime) bool) error {
	it, err := v.take()
	if err != nil {
		return err
	}
	defer v.give(it)
	it.SetBounds(lower, upper)
	defer it.SetBounds(nil, nil)
	for ok := it.SeekGE(lower); ok; {
		k, err := parseVersion(it.Key())
		if err != nil {
			return corruptRecord("key", it.Key(), err)
		}
		switch {
		case k.tail[0] != tailRoot:
			ok = it.NextPrefix()
		case k.time.HT > v.at:
			ok = it.Next()
		default:
			p, err := it.ValueAndErr()
			if err != nil {
				return err
			}
			if !fn(k.docKey, p, k.time) {
				return nil
			}
			ok = it.NextPrefix()
		}
	}
	return storeError(it.Error())
}
