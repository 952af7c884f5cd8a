package docdb

import (
	"bytes"
	"errors"
	"fmt"
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
// concurrent use.
type View struct {
	e    *Engine
	span Span
	at   hlc.Timestamp

	first *pebble.Iterator   // fixes what the view sees; others are its clones
	spare []*pebble.Iterator // not in use, first among them when it is free
	key   []byte             // scratch
}

// View opens a view of a tablet at a time (hlc.Max: the newest). It fails with
// ErrSnapshotTooOld if at is below the cutoff. The cutoff is judged after the
// view is fixed, so that a sweep that begins meanwhile cannot take from it.
func (e *Engine) View(span Span, at hlc.Timestamp, cutoff *Cutoff) (*View, error) {
	it, err := e.newIter()
	if err != nil {
		return nil, err
	}
	v := &View{e: e, span: span, at: at, first: it, spare: []*pebble.Iterator{it}}
	if c := cutoff.Load(); at < c {
		v.Close()
		return nil, fmt.Errorf("%w: read at %s, history begins at %s", ErrSnapshotTooOld, at, c)
	}
	return v, nil
}

// At is the view's time.
func (v *View) At() hlc.Timestamp { return v.at }

// Close ends the view.
func (v *View) Close() {
	for _, it := range v.spare {
		if err := it.Close(); err != nil {
			v.e.readFailed(err)
		}
	}
	v.spare, v.first = nil, nil
}

// take gives an iterator over what the view sees; give takes it back.
func (v *View) take() (*pebble.Iterator, error) {
	if n := len(v.spare); n > 0 {
		it := v.spare[n-1]
		v.spare = v.spare[:n-1]
		return it, nil
	}
	return v.first.Clone(pebble.CloneOptions{})
}

func (v *View) give(it *pebble.Iterator) { v.spare = append(v.spare, it) }

// corrupt wraps a record that does not decode.
func (v *View) corrupt(what string, key []byte, err error) error {
	return fmt.Errorf("docdb: %s of document %x: %w", what, key, errors.Join(ErrCorrupt, err))
}

// newest gives the newest version of a place at or before the view's time. The
// value is borrowed until the next use of the view.
func (v *View) newest(docKey, tail []byte) ([]byte, DocTime, bool, error) {
	it, err := v.take()
	if err != nil {
		return nil, DocTime{}, false, err
	}
	defer v.give(it)
	v.key = append(append(v.key[:0], docKey...), tail...)
	n := len(v.key)
	v.key = appendVersion(v.key, len(docKey), DocTime{HT: v.at, WriteID: maxWriteID})
	if !it.SeekPrefixGE(v.key) {
		return nil, DocTime{}, false, it.Error()
	}
	key := it.Key()
	if len(key) < n+timeLen+1 || !bytes.Equal(key[:n], v.key[:n]) {
		return nil, DocTime{}, false, nil
	}
	p, err := it.ValueAndErr()
	if err != nil {
		return nil, DocTime{}, false, err
	}
	return p, decodeTime(key[n:]), true, nil
}

const maxWriteID = 1<<32 - 1

// endOfTime sorts before every version of a place.
var endOfTime = DocTime{HT: hlc.Max, WriteID: maxWriteID}

func seekKey(docKey, tail []byte) []byte {
	key := make([]byte, 0, len(docKey)+len(tail)+timeLen+5)
	return appendVersion(append(append(key, docKey...), tail...), len(docKey), endOfTime)
}

// children visits the newest version at or before the view's time of every child
// of a document with lower <= tail < upper. What fn is given is borrowed.
func (v *View) children(docKey, lower, upper []byte, reverse bool, fn func(tail, p []byte, t DocTime) bool) error {
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
			return v.corrupt("key", it.Key(), err)
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
	return it.Error()
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
			return v.corrupt("key", it.Key(), err)
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
	if err := it.Error(); err != nil {
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
			return v.corrupt("key", it.Key(), err)
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
	return it.Error()
}
