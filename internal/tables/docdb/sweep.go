package docdb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/braiddb/braid/internal/hlc"
)

// SweepOptions say what one call of Sweep may do.
type SweepOptions struct {
	Cutoff hlc.Timestamp // the tablet's history cutoff, as replicated
	From   []byte        // Next of the call before; nil: the span's start. Void after Ingest
	Full   bool          // look everywhere, also where no block property tells of garbage

	BytesMax   int64 // keys and values to look at; default 4 MiB
	DeletesMax int   // versions to delete; default 4,096
}

func (o SweepOptions) withDefaults() SweepOptions {
	if o.BytesMax == 0 {
		o.BytesMax = 4 << 20
	}
	if o.DeletesMax == 0 {
		o.DeletesMax = 4096
	}
	return o
}

// SweepResult is what one call did.
type SweepResult struct {
	Next    []byte // where to go on; nil: the span is done
	Deleted int    // versions, those in deleted ranges not counted
	Ranges  int    // dead documents whose children went as one range
	Bytes   int64  // looked at
}

// rangeFrom is the number of dead children from which one range tombstone is
// cheaper than a tombstone for each.
const rangeFrom = 64

// Sweep deletes versions of a tablet that no view at or above the cutoff can
// see, as far as its budget goes. It is local to this replica, may be broken off
// and repeated at will, and runs beside reads and writes. doc.go argues why it
// is right.
func (e *Engine) Sweep(span Span, o SweepOptions) (SweepResult, error) {
	s := &sweep{e: e, o: o.withDefaults(), batch: e.db.NewBatch()}
	defer func() { s.batch.Close() }() // the one in use then: commit closes and replaces it, and Pebble uses closed ones again
	lower, upper := span.bounds()
	from, orphans := s.parseCursor(o.From)
	if bytes.Compare(from, lower) < 0 {
		from, orphans = lower, false
	}
	err := s.run(from, upper, orphans)
	s.closeIters()
	if err == nil {
		err = s.commit(s.e.commit)
	}
	if err != nil {
		return s.result, fmt.Errorf("docdb: sweep: %w", err)
	}
	return s.result, nil
}

type sweep struct {
	e      *Engine
	o      SweepOptions
	hints  *pebble.Iterator // sees only blocks that may hold garbage: what it shows may be deleted or incomplete
	walk   *pebble.Iterator // sees everything, follows hints
	all    *pebble.Iterator // sees everything, jumps to what is swept
	batch  *pebble.Batch
	result SweepResult
	queued int    // deletes in batch
	key    []byte // scratch
}

func (s *sweep) closeIters() {
	for _, it := range []*pebble.Iterator{s.hints, s.walk, s.all} {
		if it != nil {
			if err := it.Close(); err != nil {
				s.e.readFailed(err)
			}
		}
	}
}

// run goes from hint to hint, and looks whether there is garbage at the place:
// one place with garbage brings its whole block.
func (s *sweep) run(lower, upper []byte, orphans bool) (err error) {
	resumed := lower
	if orphans { // the other garbage of the document is still to come
		v, err := parseVersion(lower)
		if err != nil {
			return err
		}
		lower = seekKey(v.docKey, rootTail)
	}
	o := pebble.IterOptions{LowerBound: lower, UpperBound: upper}
	if s.walk, err = s.e.db.NewIter(&o); err != nil {
		return err
	}
	if s.all, err = s.walk.Clone(pebble.CloneOptions{IterOptions: &pebble.IterOptions{}}); err != nil {
		return err
	}
	if !s.o.Full {
		o.PointKeyFilters = append(make([]pebble.BlockPropertyFilter, 0, 2), garbageFilter{s.o.Cutoff})
	}
	if s.hints, err = s.walk.Clone(pebble.CloneOptions{IterOptions: &o}); err != nil {
		return err
	}
	if orphans {
		if done, err := s.resume(resumed); err != nil || !done {
			return err
		}
	}
	var place []byte
	for ok := s.hints.SeekGE(lower); ok; ok = s.hints.Next() {
		v, err := parseVersion(s.hints.Key())
		if err != nil {
			return corruptRecord("key", s.hints.Key(), err)
		}
		s.result.Bytes += int64(len(s.hints.Key()))
		if bytes.Equal(v.place, place) {
			continue
		}
		if s.spent() {
			s.stopAt(cursorHint, v.docKey, v.tail)
			return nil
		}
		if v.time.HT > s.o.Cutoff {
			continue // what is garbage is itself below the cutoff, and comes as a hint of its own
		}
		place = append(place[:0], v.place...)
		garbage, err := s.anyGarbage(v)
		if err != nil {
			return err
		}
		if !garbage {
			continue
		}
		if done, err := s.place(v.docKey, v.tail); err != nil || !done {
			return err
		}
	}
	return s.hints.Error()
}

// anyGarbage reports whether a place has a version that the cutoff has overtaken.
// Places come in order, so walk mostly stands where it is wanted.
func (s *sweep) anyGarbage(v version) (bool, error) {
	s.key = append(s.key[:0], v.place...)
	s.key = appendVersion(s.key, len(v.docKey), endOfTime, hint{})
	ok := s.walk.Valid()
	if !ok || compareKeys(s.walk.Key(), s.key) < 0 {
		ok = s.walk.SeekGE(s.key)
	}
	newer := hlc.Max
	for ; ok; ok = s.walk.Next() {
		w, err := parseVersion(s.walk.Key())
		if err != nil {
			return false, corruptRecord("key", s.walk.Key(), err)
		}
		if !bytes.Equal(w.place, v.place) {
			break
		}
		if min(newer, w.hint.dueFrom(w.time)) <= s.o.Cutoff {
			return true, nil
		}
		newer = w.time.HT
	}
	return false, s.walk.Error()
}

// A cursor is what the call before was at: a hint to be looked at, or the
// orphans of a document, of which those before the key are gone. Only at the
// same cutoff are they all that there are.
const (
	cursorHint    = 1
	cursorOrphans = 2
)

func (s *sweep) cursor(kind byte, key []byte) []byte {
	c := binary.BigEndian.AppendUint64([]byte{kind}, uint64(s.o.Cutoff))
	return append(c, key...)
}

func (s *sweep) parseCursor(c []byte) (key []byte, orphans bool) {
	d := reader{p: c}
	kind, cutoff := d.byte(), hlc.Timestamp(d.uint64())
	if d.bad || kind == cursorHint {
		return d.p, false
	}
	v, err := parseVersion(d.p)
	if err != nil {
		return nil, false
	}
	if cutoff != s.o.Cutoff {
		return seekKey(v.docKey, rootTail), false
	}
	return d.p, true
}

// resume goes on with a document among whose orphans the call before stopped.
func (s *sweep) resume(from []byte) (done bool, err error) {
	v, err := parseVersion(from)
	if err != nil {
		return false, err
	}
	return s.root(v.docKey, v.tail)
}

// stopAt notes where the next call is to go on.
func (s *sweep) stopAt(kind byte, docKey, tail []byte) bool {
	s.result.Next = s.cursor(kind, seekKey(docKey, tail))
	return false
}

func (s *sweep) spent() bool {
	return s.result.Bytes >= s.o.BytesMax || s.queued+s.result.Deleted >= s.o.DeletesMax
}

// remove queues the deletion of one version.
func (s *sweep) remove(key []byte) error {
	s.queued++
	return s.batch.Delete(key, nil)
}

// commit applies what is queued, by the engine's commit or, under its lock, commitLocked.
// Exact deletes need no exclusion: what is written meanwhile is newer than the cutoff,
// and other versions are untouched.
func (s *sweep) commit(apply func(*pebble.Batch) error) error {
	if s.batch.Empty() {
		return nil
	}
	if err := apply(s.batch); err != nil {
		return err
	}
	s.e.iters.changed(s.e)
	s.result.Deleted += s.queued
	s.e.collected.Add(int64(s.queued))
	s.queued = 0
	err := s.batch.Close()
	s.batch = s.e.db.NewBatch()
	return err
}

// place sweeps one place. done is false if the budget ended it early.
func (s *sweep) place(docKey, tail []byte) (done bool, err error) {
	if tail[0] == tailRoot {
		return s.root(docKey, []byte{tailSub})
	}
	return s.child(docKey, tail)
}

// child deletes, of one child's versions, all but the newest at or below the
// cutoff, and that one too if it is dead. It does not ask whose life they
// belonged to: children of ended lives are root's.
func (s *sweep) child(docKey, tail []byte) (done bool, err error) {
	var head []byte // the newest at or below the cutoff, if it is dead
	found := false
	place := slices.Concat(docKey, tail)
	for ok := s.all.SeekPrefixGE(seekKey(docKey, tail)); ok; ok = s.all.Next() {
		key := s.all.Key()
		v, err := parseVersion(key)
		if err != nil {
			return false, corruptRecord("key", key, err)
		}
		if !bytes.Equal(v.place, place) {
			break
		}
		s.result.Bytes += int64(len(key))
		switch {
		case v.time.HT > s.o.Cutoff:
		case !found:
			found = true
			if v.hint.dueFrom(v.time) <= s.o.Cutoff {
				head = clone(key)
			}
		default:
			if s.queued >= s.o.DeletesMax {
				return s.stopAt(cursorHint, docKey, tail), nil
			}
			if err := s.remove(key); err != nil {
				return false, err
			}
		}
	}
	if err := s.all.Error(); err != nil {
		return false, err
	}
	// All older ones are gone or go in the same batch: nothing reappears.
	if head != nil {
		return true, s.remove(head)
	}
	return true, nil
}

// rootPlan is what a pass over a document's root versions found.
type rootPlan struct {
	garbage [][]byte // root versions below the head
	head    []byte   // the newest at or below the cutoff, if it is dead
	newest  []byte   // of all
	// alive is where the oldest life that a view may see begins: a child before it
	// is garbage. endOfTime if no view sees any root.
	alive    DocTime
	orphans  bool // an ended life among the garbage may have left children
	anyNewer bool // there is a root above the cutoff
	partial  bool // there is more garbage than the budget allows
}

// root sweeps a document's root versions, and first the children of lives that
// ended, from a tail on. The roots of an ended life are deleted after its
// children: as long as they are there, a sweep finds the document again (G3).
func (s *sweep) root(docKey, from []byte) (done bool, err error) {
	plan, err := s.planRoot(docKey)
	if err != nil {
		return false, err
	}
	if plan.orphans {
		done, err := s.orphans(docKey, from, plan)
		if err != nil || !done {
			return false, err
		}
	}
	for _, key := range plan.garbage {
		if err := s.remove(key); err != nil {
			return false, err
		}
	}
	if plan.partial {
		return s.stopAt(cursorHint, docKey, rootTail), nil
	}
	if plan.head != nil {
		return true, s.remove(plan.head)
	}
	return true, nil
}

func (s *sweep) planRoot(docKey []byte) (p rootPlan, err error) {
	p.alive = endOfTime
	var last DocTime // where the oldest of the ended lives with children begins
	ended, found := false, false
	for ok := s.all.SeekPrefixGE(seekKey(docKey, rootTail)); ok && !p.partial; ok = s.all.Next() {
		v, err := parseVersion(s.all.Key())
		if err != nil {
			return p, corruptRecord("key", s.all.Key(), err)
		}
		if v.tail[0] != tailRoot {
			break
		}
		value, err := s.all.ValueAndErr()
		if err != nil {
			return p, err
		}
		r, err := decodeRoot(value, v.time)
		if err != nil {
			return p, corruptRecord("root", docKey, err)
		}
		s.result.Bytes += int64(len(s.all.Key()) + len(value))
		if p.newest == nil {
			p.newest = clone(s.all.Key())
		}
		seen := v.time.HT > s.o.Cutoff
		p.anyNewer = p.anyNewer || seen
		switch {
		case seen:
		case found:
			p.garbage = append(p.garbage, clone(s.all.Key()))
			p.partial = len(p.garbage) >= s.o.DeletesMax
		default:
			found = true
			if seen = v.hint.dueFrom(v.time) > s.o.Cutoff; !seen {
				p.head = clone(s.all.Key())
			}
		}
		if r.Kind == RootNone {
			continue
		}
		if seen {
			p.alive = minTime(p.alive, r.Created)
		} else if r.Kind != RootString && r.Kind != RootRow {
			if !ended || r.Created.Compare(last) < 0 {
				last = r.Created
			}
			ended = true
		}
	}
	p.orphans = ended && last.Compare(p.alive) < 0
	return p, s.all.Error()
}

func minTime(t, u DocTime) DocTime {
	if u.Compare(t) < 0 {
		return u
	}
	return t
}

// orphans deletes the children that are older than every life still visible.
func (s *sweep) orphans(docKey, from []byte, p rootPlan) (done bool, err error) {
	dead := 0
	for ok := s.all.SeekPrefixGE(seekKey(docKey, from)); ok; ok = s.all.Next() {
		key := s.all.Key()
		v, err := parseVersion(key)
		if err != nil {
			return false, corruptRecord("key", key, err)
		}
		s.result.Bytes += int64(len(key))
		if v.time.Compare(p.alive) >= 0 || v.time.HT > s.o.Cutoff {
			continue
		}
		if dead++; dead > rangeFrom && p.alive == endOfTime && !p.anyNewer {
			return s.dropChildren(docKey, p.newest)
		}
		if err := s.remove(key); err != nil {
			return false, err
		}
		if s.spent() {
			return s.stopAt(cursorOrphans, docKey, v.tail), nil
		}
	}
	return true, s.all.Error()
}

// dropChildren deletes all children of a dead document as one range. That would
// take a child written meanwhile with it: so it waits out the batches that are
// being applied, keeps new ones back, and looks whether the root that it judged
// is still the newest.
func (s *sweep) dropChildren(docKey, root []byte) (done bool, err error) {
	s.e.applying.Lock()
	defer s.e.applying.Unlock()
	it, err := s.e.db.NewIter(nil)
	if err != nil {
		return false, err
	}
	unchanged := it.SeekPrefixGE(seekKey(docKey, rootTail)) && bytes.Equal(it.Key(), root)
	if err := errors.Join(it.Error(), it.Close()); err != nil || !unchanged {
		return s.stopAt(cursorHint, docKey, rootTail), err
	}
	lower, upper := seekKey(docKey, []byte{tailSub}), seekKey(docKey, scanEnd)
	if err := s.batch.DeleteRange(lower, upper, nil); err != nil {
		return false, err
	}
	s.result.Ranges++
	return true, s.commit(s.e.commitLocked)
}
