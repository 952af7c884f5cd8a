package docdb

import (
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
)

var (
	metaSeed  = flag.Uint64("docdb.seed", 0, "run the metamorphic test with this seed only")
	metaSeeds = flag.Int("docdb.seeds", 16, "seeds of the metamorphic test")
	metaSteps = flag.Int("docdb.steps", 220, "steps of each seed")
)

const metaGroup catalog.GroupID = 7

var (
	metaSpan     = Span{Table: 3, Start: 100, End: 1 << 40}
	metaNeighbor = Span{Table: 3, Start: 1 << 40} // its documents must never change
	appliedKey   = []byte("applied")
)

// TestMetamorphic drives an engine and a plain model with the same random
// writes, and compares what they show at random times, through sweeps, flushes,
// compactions, snapshots, restarts, and crashes that lose what was not flushed
// and are followed by a replay. A second engine never sweeps nor crashes: the
// hashes of the two must agree.
func TestMetamorphic(t *testing.T) {
	if *metaSeed != 0 {
		runMeta(t, *metaSeed, *metaSteps)
		return
	}
	for seed := uint64(1); seed <= uint64(*metaSeeds); seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { runMeta(t, seed, *metaSteps) })
	}
}

// meta is one run.
type meta struct {
	t    *testing.T
	rng  *rand.Rand
	seed uint64
	step int

	fs      *vfs.MemFS
	e       *Engine
	calm    *Engine // the one that nothing happens to
	m       *model
	entries []metaEntry // the journal: entry i has index i+1
	cutoff  Cutoff
	now     hlc.Timestamp
	last    hlc.Timestamp // of the last entry
	cursor  []byte        // of an unfinished sweep
	swept   hlc.Timestamp // its cutoff
	held    []heldView
	exec    *Exec
	batch   WriteBatch
}

type metaEntry struct {
	ht      hlc.Timestamp
	encoded []byte
}

// heldView is a view that stays open while things happen.
type heldView struct {
	v    *View
	docs map[modelKey]*modelDoc
}

func runMeta(t *testing.T, seed uint64, steps int) {
	x := &meta{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 77)), m: newModel(), now: hlc.FromMicros(1_000_000_000)}
	x.fs = vfs.NewCrashableMem()
	x.open()
	var err error
	if x.calm, err = OpenEngine(vfs.NewMem(), "calm", x.options()); err != nil {
		t.Fatal(err)
	}
	x.exec = NewExec(nil, nil, metaSpan.Table, 0)
	x.neighbor()
	for x.step = range steps {
		x.act()
		if t.Failed() {
			return
		}
	}
	x.release()
	x.checkTidy()
	x.must(x.e.Close())
	x.must(x.calm.Close())
}

func (x *meta) options() EngineOptions {
	return EngineOptions{MemTableBytes: 64 << 10, separateFrom: 100, blockBytes: 256, fileBytes: 2 << 10, CacheBytes: 1 << 20, Fatal: func(err error) { x.t.Error(err) }}
}

func (x *meta) open() {
	var err error
	if x.e, err = OpenEngine(x.fs, "data/docdb", x.options()); err != nil {
		x.t.Fatalf("seed %d step %d: open: %v", x.seed, x.step, err)
	}
}

func (x *meta) must(err error) {
	if err != nil {
		x.t.Helper()
		x.t.Fatalf("seed %d step %d: %v", x.seed, x.step, err)
	}
}

func (x *meta) failf(format string, args ...any) {
	x.t.Helper()
	x.t.Fatalf("seed %d step %d: %s (go test -run TestMetamorphic -docdb.seed %d)", x.seed, x.step, fmt.Sprintf(format, args...), x.seed)
}

// neighbor writes a document next door.
func (x *meta) neighbor() {
	x.exec.Reset(nil, &x.batch, metaNeighbor.Table, 0)
	x.batch.Reset()
	d := x.exec.Doc(metaNeighbor.Start, []byte("next door"))
	d.PutRoot(Root{Kind: RootHash, Count: 1})
	d.PutSub([]byte("f"), []byte("v"))
	a := x.e.NewBatch()
	_, err := a.Apply(metaNeighbor.Table, x.batch.Encode(nil), 1, 0)
	x.must(err)
	x.must(a.PutGroupState(metaGroup+1, appliedKey, []byte("neighbor")))
	x.must(a.Commit())
	x.must(x.e.Flush())
}

func (x *meta) act() {
	switch n := x.rng.IntN(100); {
	case n < 45:
		x.write()
	case n < 65:
		x.checkAt(x.e, x.someTime())
	case n < 68:
		x.hold()
	case n < 71:
		x.release()
	case n < 82:
		x.sweep()
	case n < 86:
		x.must(x.e.Flush())
	case n < 88:
		x.must(x.e.db.Flush())
		x.must(x.e.db.Compact(x.t.Context(), []byte{spaceGroup, 0}, []byte{spaceProvisional, 0}, false))
	case n < 91:
		x.crash()
	case n < 92:
		x.release()
		x.must(x.e.Close())
		x.open()
		x.checkApplied(len(x.entries))
	case n < 94:
		x.snapshot()
	case n < 96:
		x.compareHashes()
	case n < 98:
		x.tooOld()
	default:
		x.checkDurable()
	}
}

// someTime is a time that may be read.
func (x *meta) someTime() hlc.Timestamp {
	low, high := x.cutoff.Load(), x.now
	switch x.rng.IntN(4) {
	case 0:
		return hlc.Max - 1
	case 1:
		return low
	}
	return low + hlc.Timestamp(x.rng.Uint64N(uint64(high-low)+1))
}

// write makes one entry and applies it to both engines.
func (x *meta) write() {
	x.now = x.now.Add(time.Duration(x.rng.Int64N(20_000))*time.Millisecond) + 1
	v, err := x.e.View(metaSpan, hlc.Max-1, &x.cutoff)
	x.must(err)
	x.exec.Reset(v, &x.batch, metaSpan.Table, x.now.Millis())
	x.batch.Reset()
	raises := x.rng.IntN(8) == 0
	if raises {
		x.exec.SetCollect(hlc.Max)
	}
	ops := 1 + x.rng.IntN(6)
	if x.rng.IntN(10) == 0 {
		ops = 30 // enough for the batch's index
	}
	for range ops {
		if x.rng.IntN(150) == 0 {
			x.exec.Truncate(metaSpan.Start, metaSpan.End)
			for k := range x.m.now {
				x.m.now[k] = nil
			}
			raises = true
			continue
		}
		x.mutate()
		if x.rng.IntN(6) == 0 {
			x.checkDocs(x.exec, x.m.nowAlive(x.now.Millis()))
		}
	}
	x.checkDocs(x.exec, x.m.nowAlive(x.now.Millis()))
	v.Close()
	ht := x.now + hlc.Timestamp(x.rng.Uint64N(3))
	x.now = ht
	x.m.commit(ht)
	e := metaEntry{ht, x.batch.Encode(nil)}
	x.entries = append(x.entries, e)
	if raises {
		x.cutoff.Raise(ht)
	}
	x.apply(x.e, e, len(x.entries))
	x.apply(x.calm, metaEntry{ht, withoutCollects(x.t, e.encoded)}, len(x.entries))
	x.last = ht
}

func (m *model) nowAlive(nowMs int64) map[modelKey]*modelDoc {
	out := map[modelKey]*modelDoc{}
	for k, d := range m.now {
		if d.alive(nowMs) {
			out[k] = d
		}
	}
	return out
}

func (x *meta) apply(e *Engine, entry metaEntry, index int) {
	a := e.NewBatch()
	taken, err := a.Apply(metaSpan.Table, entry.encoded, entry.ht, 0)
	x.must(err)
	if taken > 0 && len(entry.encoded) == 1 {
		x.failf("an empty batch took %d write ids", taken)
	}
	x.must(a.PutGroupState(metaGroup, appliedKey, binary.BigEndian.AppendUint64(nil, uint64(index))))
	x.must(a.PutGroupState(metaGroup, binary.BigEndian.AppendUint64([]byte("r"), uint64(index)), entry.encoded[:1]))
	if index > 10 {
		x.must(a.DeleteGroupStateRange(metaGroup, []byte("r"), binary.BigEndian.AppendUint64([]byte("r"), uint64(index-10))))
	}
	x.must(a.Commit())
}

// withoutCollects gives a batch that deletes nothing at once.
func withoutCollects(t *testing.T, encoded []byte) []byte {
	d, err := decodeBatch(encoded)
	if err != nil {
		t.Fatal(err)
	}
	out := []byte{batchVersion}
	for {
		left := d.r.p
		r, ok, err := d.next()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return out
		}
		if r.kind != recCollect {
			out = append(out, left[:len(left)-len(d.r.p)]...)
		}
	}
}

var metaKeys = []modelKey{
	{100, "a"}, {100, "a\x00"}, {100, "a\x00\x00b"}, {100, ""}, {101, "a"}, {500, "\xff\xff"},
	{1 << 39, "key"}, {1 << 39, "kez"}, {1<<40 - 1, "last"},
}

var metaSubs = []string{"", "a", "a\x00", "a\x00\x01", "b", "b\xff", "c", "\x00", "\xff\xff"}

// mutate does one thing to one document, in the batch and in the model.
func (x *meta) mutate() {
	k := metaKeys[x.rng.IntN(len(metaKeys))]
	d := x.exec.Doc(k.hash, []byte(k.key))
	old := x.m.now[k]
	nowMs := x.now.Millis()
	if !old.alive(nowMs) {
		old = nil
	}
	if x.rng.IntN(2) == 0 { // what was read may be deleted at once
		_, ok, err := d.Root()
		x.must(err)
		if ok != (old != nil) {
			x.failf("document %v lives: %v", k, ok)
		}
	}
	switch x.rng.IntN(9) {
	case 0: // blind
		x.m.now[k] = &modelDoc{kind: RootString, value: x.value()}
		d.PutRoot(Root{Kind: RootString, Value: []byte(x.m.now[k].value)})
	case 1:
		x.m.now[k] = nil
		d.Delete()
	case 2: // expire
		r, ok, err := d.Root()
		x.must(err)
		if ok {
			next := old.clone()
			next.expireAtMs = x.expiry()
			r.ExpireAtMs = next.expireAtMs
			x.m.now[k] = next
			d.PutRoot(r)
		}
	case 3: // replace with a collection, blind, root last
		next := &modelDoc{kind: RootZSet, children: map[string]modelChild{}}
		r := Root{Kind: RootZSet}
		if x.rng.IntN(2) == 0 {
			d.Delete()
			x.putSubs(d, next)
		} else {
			d.PutRoot(r)
			x.putSubs(d, next)
			var err error
			r, _, err = d.Root()
			x.must(err)
		}
		next.count = int64(len(next.children))
		r.Count = next.count
		x.m.now[k] = next
		d.PutRoot(r)
	case 4: // copy
		to := metaKeys[x.rng.IntN(len(metaKeys))]
		dst := x.exec.Doc(to.hash, []byte(to.key))
		ok, err := d.CopyTo(dst)
		x.must(err)
		if ok != (old != nil) {
			x.failf("copy of %v: %v", k, ok)
		}
		if old != nil && to != k {
			c := old.clone()
			for sub, child := range c.children {
				if over(child.expireAtMs, nowMs) {
					delete(c.children, sub)
				}
			}
			x.m.now[to] = c
		}
	case 5: // counter
		next := &modelDoc{kind: RootList}
		r, ok, err := d.Root()
		x.must(err)
		if ok && r.Kind == RootList {
			next = old.clone()
		} else {
			r = Root{Kind: RootList}
		}
		next.count++
		r.Count++
		x.m.now[k] = next
		d.PutRoot(r)
	default:
		x.editHash(k, d, old)
	}
}

// editHash adds and removes children as HSET and HDEL would.
func (x *meta) editHash(k modelKey, d *Doc, old *modelDoc) {
	r, ok, err := d.Root()
	x.must(err)
	next := &modelDoc{kind: RootHash, children: map[string]modelChild{}}
	if ok && r.Kind == RootHash {
		next = old.clone()
	} else {
		if ok && old.kind != RootHash && x.rng.IntN(2) == 0 {
			return // a type error
		}
		r = Root{Kind: RootHash}
	}
	if (r.Created == DocTime{}) && (old != nil || x.rng.IntN(2) == 0) {
		d.PutRoot(r) // a new life begins before its children, or after if nothing lives
		r, _, err = d.Root()
		x.must(err)
	}
	for range 1 + x.rng.IntN(4) {
		sub := metaSubs[x.rng.IntN(len(metaSubs))]
		if x.rng.IntN(2) == 0 {
			_, has, err := d.Sub([]byte(sub))
			x.must(err)
			if r.Created != (DocTime{}) {
				if c, want := next.children[sub]; has != (want && !over(c.expireAtMs, x.now.Millis())) {
					x.failf("%v %q: there is %v, want %v", k, sub, has, want)
				}
			}
		}
		if x.rng.IntN(3) == 0 {
			delete(next.children, sub)
			d.DeleteSub([]byte(sub))
		} else {
			c := modelChild{value: x.value()}
			if x.rng.IntN(4) == 0 {
				c.expireAtMs = x.expiry()
			}
			next.children[sub] = c
			d.PutSubTTL([]byte(sub), []byte(c.value), c.expireAtMs)
		}
	}
	next.count = int64(len(next.children))
	r.Count = next.count
	x.m.now[k] = next
	d.PutRoot(r)
}

func (x *meta) putSubs(d *Doc, next *modelDoc) {
	for range x.rng.IntN(5) {
		sub := metaSubs[x.rng.IntN(len(metaSubs))]
		next.children[sub] = modelChild{value: x.value()}
		d.PutSub([]byte(sub), []byte(next.children[sub].value))
	}
	if x.rng.IntN(6) == 0 { // enough for a range tombstone
		for i := range rangeFrom + 40 {
			sub := fmt.Sprintf("many %03d", i)
			next.children[sub] = modelChild{value: "x"}
			d.PutSub([]byte(sub), []byte("x"))
		}
	}
}

func (x *meta) value() string {
	n := x.rng.IntN(6)
	if x.rng.IntN(8) == 0 {
		n = 400 // leaves the tree
	}
	return string(slices.Repeat([]byte{byte('a' + x.rng.IntN(26))}, n))
}

// expiry is some time around now, or never.
func (x *meta) expiry() int64 {
	if x.rng.IntN(4) == 0 {
		return 0
	}
	return max(1, x.now.Millis()+x.rng.Int64N(90_000)-10_000)
}
