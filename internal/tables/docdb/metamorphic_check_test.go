package docdb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/braiddb/braid/internal/hlc"
)

// checkAt compares a whole view with the model.
func (x *meta) checkAt(e *Engine, at hlc.Timestamp) {
	v, err := e.View(metaSpan, at, &x.cutoff)
	x.must(err)
	defer v.Close()
	x.checkDocs(NewExec(v, nil, metaSpan.Table, at.Millis()), x.m.at(at))
}

// checkDocs compares what an Exec shows with the documents that live.
func (x *meta) checkDocs(exec *Exec, docs map[modelKey]*modelDoc) {
	x.t.Helper()
	want := sortedKeys(docs)
	var got []modelKey
	var problem string
	x.must(exec.ScanDocs(0, 0, func(hash uint64, key []byte, r Root) bool {
		k := modelKey{hash, string(key)}
		got = append(got, k)
		if d := docs[k]; d != nil {
			if s := x.render(exec, k, r); s != d.render(exec.NowMs()) {
				problem = fmt.Sprintf("document %v\n is  %s\n not %s", k, s, d.render(exec.NowMs()))
			}
		}
		return problem == ""
	}))
	if problem != "" {
		x.failf("%s", problem)
	}
	if !slices.Equal(got, want) {
		x.failf("the documents are %v, want %v", got, want)
	}
	k := metaKeys[x.rng.IntN(len(metaKeys))]
	r, ok, err := exec.Doc(k.hash, []byte(k.key)).Root()
	x.must(err)
	if d := docs[k]; ok != (d != nil) || ok && x.render(exec, k, r) != d.render(exec.NowMs()) {
		x.failf("document %v: found %v: %s", k, ok, x.render(exec, k, r))
	}
	x.checkRange(exec, k, docs[k])
}

// render is modelDoc.render of what the Exec shows.
func (x *meta) render(exec *Exec, k modelKey, r Root) string {
	s := fmt.Sprintf("kind %d count %d expires %d value %.20q/%d", r.Kind, r.Count, r.ExpireAtMs, r.Value, len(r.Value))
	d := exec.Doc(k.hash, []byte(k.key))
	x.must(d.ScanSub(nil, nil, false, func(sub, value []byte) bool {
		s += fmt.Sprintf(" %q=%.20q/%d", sub, value, len(value))
		return true
	}))
	return s
}

// checkRange scans part of a document's children, in either direction.
func (x *meta) checkRange(exec *Exec, k modelKey, doc *modelDoc) {
	from, to := metaSubs[x.rng.IntN(len(metaSubs))], metaSubs[x.rng.IntN(len(metaSubs))]
	reverse := x.rng.IntN(2) == 0
	var want []string
	if doc != nil {
		for _, sub := range doc.subs(exec.NowMs()) {
			if (from == "" || sub >= from) && (to == "" || sub < to) {
				want = append(want, sub)
			}
		}
	}
	if reverse {
		slices.Reverse(want)
	}
	limit := x.rng.IntN(12) + 1
	want = want[:min(limit, len(want))]
	var got []string
	d := exec.Doc(k.hash, []byte(k.key))
	x.must(d.ScanSub([]byte(from), []byte(to), reverse, func(sub, value []byte) bool {
		got = append(got, string(sub))
		again, ok, err := d.Sub(sub) // a read within a scan
		x.must(err)
		if !ok || !bytes.Equal(again, value) {
			x.failf("%v %q: the scan says %q, a read %q, %v", k, sub, value, again, ok)
		}
		return len(got) < limit
	}))
	if !slices.Equal(got, want) {
		x.failf("%v: children [%q, %q) reverse %v are %q, want %q", k, from, to, reverse, got, want)
	}
}

func (x *meta) hold() {
	if len(x.held) >= 3 {
		return
	}
	at := x.someTime()
	v, err := x.e.View(metaSpan, at, &x.cutoff)
	x.must(err)
	x.held = append(x.held, heldView{v, x.m.at(at)})
}

// release looks through the views that were kept open, and closes them.
func (x *meta) release() {
	for _, h := range x.held {
		x.checkDocs(NewExec(h.v, nil, metaSpan.Table, h.v.At().Millis()), h.docs)
		h.v.Close()
	}
	x.held = nil
}

// sweep does a part of a sweep. What may be seen at or above the cutoff must not
// change; the checks of later steps tell.
func (x *meta) sweep() {
	if x.cursor == nil {
		if x.rng.IntN(2) == 0 && x.last > 0 {
			low := x.cutoff.Load()
			if low < x.last {
				x.cutoff.Raise(low + hlc.Timestamp(x.rng.Uint64N(uint64(x.last-low)+1)))
			}
		}
		x.swept = x.cutoff.Load()
	}
	r, err := x.e.Sweep(metaSpan, SweepOptions{
		Cutoff: x.swept, From: x.cursor, Full: x.rng.IntN(3) == 0,
		DeletesMax: 1 + x.rng.IntN(20*(1+9*x.rng.IntN(2))), BytesMax: 1 + x.rng.Int64N(8000),
	})
	x.must(err)
	x.cursor = r.Next
	if x.rng.IntN(2) == 0 {
		x.checkAt(x.e, x.cutoff.Load())
	}
}

// crash loses what was not flushed, and replays it.
func (x *meta) crash() {
	durable := x.durableIndex()
	percent := []int{0, 0, 50, 100}[x.rng.IntN(4)]
	clone := x.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(x.rng.Uint64(), 1))})
	x.release()
	x.must(x.e.Abandon())
	x.fs, x.cursor = clone, nil
	x.open()
	applied := x.appliedIndex()
	if applied < durable {
		x.failf("a crash took entries back to %d, %d was durable", applied, durable)
	}
	for i := applied; i < len(x.entries); i++ {
		x.apply(x.e, x.entries[i], i+1)
	}
	x.checkApplied(len(x.entries))
	x.checkAt(x.e, x.someTime())
}

func (x *meta) appliedIndex() int {
	p, ok, err := x.e.GroupState(metaGroup, appliedKey)
	x.must(err)
	if !ok {
		return 0
	}
	return int(binary.BigEndian.Uint64(p))
}

func (x *meta) durableIndex() int {
	p, ok, err := x.e.DurableGroupState(metaGroup, appliedKey)
	x.must(err)
	if !ok {
		return 0
	}
	return int(binary.BigEndian.Uint64(p))
}

func (x *meta) checkApplied(want int) {
	if got := x.appliedIndex(); got != want {
		x.failf("applied is %d, want %d", got, want)
	}
	remembered := 0
	x.must(x.e.ScanGroupState(metaGroup, []byte("r"), []byte("s"), func(key, value []byte) bool {
		remembered++
		return true
	}))
	if limit := min(want, 11); remembered != limit {
		x.failf("%d records of requests, want %d", remembered, limit)
	}
}

// checkDurable flushes and sees DurableGroupState follow.
func (x *meta) checkDurable() {
	x.must(x.e.Flush())
	if got := x.durableIndex(); got != len(x.entries) {
		x.failf("%d is durable after a flush, want %d", got, len(x.entries))
	}
}

// snapshot replaces the tablet by a stream of itself, or by one of the engine
// that keeps everything; then perhaps the machine crashes.
func (x *meta) snapshot() {
	x.release()
	from := x.e
	if x.rng.IntN(2) == 0 {
		from = x.calm
	}
	s, err := from.Export(metaSpan, metaGroup)
	x.must(err)
	if p, ok, err := s.GroupState(appliedKey); err != nil || len(x.entries) > 0 && (!ok || int(binary.BigEndian.Uint64(p)) != len(x.entries)) {
		x.failf("the snapshot's applied index is %x, %v", p, err)
	}
	var stream bytes.Buffer
	_, err = stream.ReadFrom(s)
	x.must(err)
	x.must(s.Close())
	x.checkDamaged(stream.Bytes())
	x.stale()
	x.must(x.e.Ingest(metaSpan, metaGroup, &stream))
	if x.rng.IntN(2) == 0 {
		clone := x.fs.CrashClone(vfs.CrashCloneCfg{})
		x.must(x.e.Abandon())
		x.fs = clone
		x.open()
	}
	x.cursor = nil
	x.checkApplied(len(x.entries))
	x.checkAt(x.e, x.someTime())
	x.checkNeighbor()
	if _, ok, err := x.e.GroupState(metaGroup, staleKey); ok || err != nil {
		x.failf("a record of the group outlived its replacement (%v)", err)
	}
}

var staleKey = []byte("stale")

// stale writes what a snapshot must take away.
func (x *meta) stale() {
	var b WriteBatch
	b.Reset()
	NewExec(nil, &b, metaSpan.Table, 0).Doc(metaSpan.Start, staleKey).PutRoot(Root{Kind: RootString})
	a := x.e.NewBatch()
	_, err := a.Apply(metaSpan.Table, b.Encode(nil), 1, 0)
	x.must(err)
	x.must(a.PutGroupState(metaGroup, staleKey, nil))
	x.must(a.Commit())
}

// checkDamaged flips a bit of a stream, or cuts it: it must be refused, and
// change nothing.
func (x *meta) checkDamaged(stream []byte) {
	bad := slices.Clone(stream)
	if x.rng.IntN(2) == 0 {
		bad[x.rng.IntN(len(bad))] ^= 1 << x.rng.IntN(8)
	} else {
		bad = bad[:x.rng.IntN(len(bad))]
	}
	var format *FormatError
	if err := x.e.Ingest(metaSpan, metaGroup, bytes.NewReader(bad)); !errors.Is(err, ErrStream) && !errors.As(err, &format) {
		x.failf("a damaged stream gave %v", err)
	}
	x.checkApplied(len(x.entries))
}

func (x *meta) checkNeighbor() {
	v, err := x.e.View(metaNeighbor, hlc.Max-1, nil)
	x.must(err)
	defer v.Close()
	value, ok, err := NewExec(v, nil, metaNeighbor.Table, 0).Doc(metaNeighbor.Start, []byte("next door")).Sub([]byte("f"))
	x.must(err)
	state, there, err := x.e.GroupState(metaGroup+1, appliedKey)
	x.must(err)
	if !ok || string(value) != "v" || !there || string(state) != "neighbor" {
		x.failf("the neighbour's document is %q, %v, its state %q, %v", value, ok, state, there)
	}
}

func (x *meta) compareHashes() {
	at := x.someTime()
	a, err := x.e.Hash(metaSpan, at, &x.cutoff)
	x.must(err)
	b, err := x.calm.Hash(metaSpan, at, &x.cutoff)
	x.must(err)
	if a != b {
		x.failf("the hashes at %d are %x and %x", at, a, b)
	}
}

func (x *meta) tooOld() {
	if c := x.cutoff.Load(); c > 0 {
		if _, err := x.e.View(metaSpan, c-1, &x.cutoff); !errors.Is(err, ErrSnapshotTooOld) {
			x.failf("a view below the cutoff: %v", err)
		}
	}
}

// checkTidy sweeps up to the last entry and expects nothing to be left that no
// view can see. It trusts the block property: a compaction has put everything on
// one level.
func (x *meta) checkTidy() {
	x.now = x.now.Add(time.Hour)
	x.cutoff.Raise(x.now)
	x.must(x.e.Flush())
	x.must(x.e.db.Compact(x.t.Context(), []byte{spaceGroup, 0}, []byte{spaceProvisional, 0}, false))
	x.sweepAll()
	if left := x.leftovers(); len(left) > 0 {
		x.failf("a sweep left %d versions, the first: %s", len(left), left[0])
	}
	x.checkAt(x.e, x.now)
	x.compareHashes()
}

func (x *meta) sweepAll() {
	o := SweepOptions{Cutoff: x.now, DeletesMax: 50 + x.rng.IntN(200)}
	for more := true; more; {
		r, err := x.e.Sweep(metaSpan, o)
		x.must(err)
		o.From, more = r.Next, r.Next != nil
	}
}

// leftovers describes the versions that no view from now on can see.
func (x *meta) leftovers() (left []string) {
	lower, upper := metaSpan.bounds()
	it, err := x.e.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	x.must(err)
	defer func() { x.must(it.Close()) }()
	docs := x.m.at(x.now)
	var place []byte
	for ok := it.First(); ok; ok = it.Next() {
		v, err := parseVersion(it.Key())
		x.must(err)
		hash, key, err := docKeyParts(v.docKey)
		x.must(err)
		d := docs[modelKey{hash, string(key)}]
		switch {
		case d == nil:
			left = append(left, fmt.Sprintf("%x of a document that is gone", it.Key()))
		case bytes.Equal(place, v.place):
			left = append(left, fmt.Sprintf("%x under a newer version", it.Key()))
		case v.tail[0] == tailSub:
			sub, err := subOf(nil, v.tail)
			x.must(err)
			if c, ok := d.children[string(sub)]; !ok || over(c.expireAtMs, x.now.Millis()) {
				left = append(left, fmt.Sprintf("child %q of %q", sub, key))
			}
		}
		place = slices.Clone(v.place)
	}
	return left
}
