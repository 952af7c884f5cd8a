package docdb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/manifest"
	"github.com/braiddb/braid/internal/sim/simfs"
)

func mustOpen(t *testing.T, fs vfs.FS, o EngineOptions) *Engine {
	t.Helper()
	e, err := OpenEngine(fs, "data/docdb", o)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// put applies one batch that f makes.
func put(t *testing.T, e *Engine, ht hlc.Timestamp, f func(x *Exec)) {
	t.Helper()
	v, err := e.View(wholeTable, hlc.Max-1, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	var b WriteBatch
	b.Reset()
	f(NewExec(v, &b, wholeTable.Table, ht.Millis()))
	a := e.NewBatch()
	_, err = a.Apply(wholeTable.Table, b.Encode(nil), ht, 0)
	if err := errors.Join(err, a.Commit()); err != nil {
		t.Fatal(err)
	}
}

func TestDirectoryOfAnotherFormatIsRefused(t *testing.T) {
	write := func(fs vfs.FS, text string) {
		f, err := fs.Create("data/docdb/FORMAT", vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.Write([]byte(text))
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	fs := vfs.NewMem()
	if err := mustOpen(t, fs, EngineOptions{}).Close(); err != nil {
		t.Fatal(err)
	}
	write(fs, "braid docdb 2\n")
	var format *FormatError
	if _, err := OpenEngine(fs, "data/docdb", EngineOptions{}); !errors.As(err, &format) || format.Have != 2 || format.Want != 1 {
		t.Errorf("a newer directory: %v", err)
	}
	write(fs, "something else")
	if _, err := OpenEngine(fs, "data/docdb", EngineOptions{}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a damaged format file: %v", err)
	}
	write(fs, "braid docdb 1\n")
	if err := mustOpen(t, fs, EngineOptions{}).Close(); err != nil {
		t.Fatal(err)
	}
}

// TestADiskErrorEndsTheNode: a flush that cannot be synced is told to Fatal, and
// nothing is reported durable.
func TestADiskErrorEndsTheNode(t *testing.T) {
	var broken atomic.Bool
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if broken.Load() && (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData) {
			return errors.New("the disk is broken")
		}
		return nil
	}))
	told := make(chan error, 1)
	var times atomic.Int32
	e := mustOpen(t, fs, EngineOptions{Fatal: func(err error) {
		times.Add(1)
		told <- err
	}})
	put(t, e, 5, func(x *Exec) { x.Doc(1, []byte("k")).PutRoot(Root{Kind: RootString}) })
	a := e.NewBatch()
	if err := errors.Join(a.PutGroupState(4, []byte("applied"), []byte("1")), a.Commit()); err != nil {
		t.Fatal(err)
	}
	broken.Store(true)
	if err := e.AsyncFlush(); err != nil {
		t.Fatal(err)
	}
	if err := <-told; err == nil {
		t.Fatal("Fatal was told nothing")
	}
	if _, ok, err := e.DurableGroupState(4, []byte("applied")); ok || err != nil {
		t.Errorf("what was not synced is durable: %v, %v", ok, err)
	}
	if times.Load() != 1 {
		t.Errorf("Fatal was called %d times", times.Load())
	}
}

// TestAnIngestAfterAFatalErrorEnds: the goroutine of an ingest ends where the manifest
// cannot be synced, and the node with it. One behind it does not wait for its turn for
// ever: whoever closes the node waits for that one.
func TestAnIngestAfterAFatalErrorEnds(t *testing.T) {
	var broken atomic.Bool
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if broken.Load() && strings.Contains(op.Path, "MANIFEST") {
			return errors.New("the disk is broken")
		}
		return nil
	}))
	told := make(chan error, 1)
	e := mustOpen(t, fs, EngineOptions{Fatal: func(err error) { told <- err }})
	put(t, e, 5, func(x *Exec) { x.Doc(1, []byte("k")).PutRoot(Root{Kind: RootString}) })
	broken.Store(true)
	over := make(chan error, 2)
	for range 2 {
		go func() {
			var err error
			defer func() { over <- err }()
			err = e.Drop(metaSpan, metaGroup)
		}()
	}
	for range 2 {
		select {
		case err := <-over:
			if err != nil && !errors.Is(err, errFailed) {
				t.Error(err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("an ingest does not end")
		}
	}
	if err := <-told; err == nil {
		t.Error("Fatal was told nothing")
	}
}

// TestACommitBesideAnIngestThatFailsEnds: batches become visible in one order with
// ingests, and the goroutine of an ingest ends where the manifest cannot be synced. Who
// applies entries meanwhile does not wait for it for ever.
func TestACommitBesideAnIngestThatFailsEnds(t *testing.T) {
	var broken atomic.Bool
	syncs, fault := make(chan struct{}, 64), make(chan struct{})
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if broken.Load() && strings.Contains(op.Path, "MANIFEST") {
			syncs <- struct{}{}
			<-fault
			return errors.New("the disk is broken")
		}
		return nil
	}))
	told := make(chan error, 1)
	e := mustOpen(t, fs, EngineOptions{Fatal: func(err error) { told <- err }})
	broken.Store(true)
	over := make(chan error, 2)
	go func() {
		var err error
		defer func() { over <- err }()
		err = e.Drop(metaSpan, metaGroup)
	}()
	<-syncs
	go func() {
		a := e.NewBatch()
		over <- errors.Join(a.PutGroupState(4, []byte("applied"), []byte("1")), a.Commit())
	}()
	close(fault)
	for range 2 {
		select {
		case err := <-over:
			if err != nil && !errors.Is(err, errFailed) {
				t.Error(err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("a commit does not end")
		}
	}
	if err := <-told; err == nil {
		t.Error("Fatal was told nothing")
	}
}

// TestAFlushAfterAFatalErrorEnds: nobody tells whoever waits for a flush of which the
// goroutine has ended, and whoever closes the node waits for that one.
func TestAFlushAfterAFatalErrorEnds(t *testing.T) {
	var broken atomic.Bool
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if broken.Load() && strings.Contains(op.Path, "MANIFEST") {
			return errors.New("the disk is broken")
		}
		return nil
	}))
	told := make(chan error, 1)
	e := mustOpen(t, fs, EngineOptions{Fatal: func(err error) { told <- err }})
	put(t, e, 5, func(x *Exec) { x.Doc(1, []byte("k")).PutRoot(Root{Kind: RootString}) })
	broken.Store(true)
	over := make(chan error, 2)
	for range 2 {
		go func() { over <- e.Flush() }()
	}
	for range 2 {
		select {
		case err := <-over:
			if !errors.Is(err, errFailed) {
				t.Error(err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("a flush does not end")
		}
	}
	if err := <-told; err == nil {
		t.Error("Fatal was told nothing")
	}
}

// TestADamagedFileRefusesWhoReadsIt flips a byte of a flushed file: the documents
// in that block are refused by name, and the node lives.
func TestADamagedFileRefusesWhoReadsIt(t *testing.T) {
	fs := vfs.NewMem()
	o := EngineOptions{Fatal: func(err error) { t.Errorf("the node would have ended: %v", err) }}
	e := mustOpen(t, fs, o)
	put(t, e, 5, func(x *Exec) { x.Doc(1, []byte("k")).PutRoot(Root{Kind: RootString, Value: []byte("v")}) })
	if err := errors.Join(e.Flush(), e.Close()); err != nil {
		t.Fatal(err)
	}
	names, err := fs.List("data/docdb/db")
	if err != nil {
		t.Fatal(err)
	}
	flipped := 0
	for _, name := range names {
		if !strings.HasSuffix(name, ".sst") {
			continue
		}
		f, err := fs.OpenReadWrite("data/docdb/db/"+name, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		var b [1]byte
		_, err = f.ReadAt(b[:], 10)
		b[0] ^= 4
		_, err2 := f.WriteAt(b[:], 10)
		if err := errors.Join(err, err2, f.Close()); err != nil {
			t.Fatal(err)
		}
		flipped++
	}
	if flipped == 0 {
		t.Fatalf("no file was flushed: %v", names)
	}
	e = mustOpen(t, fs, o)
	v, err := e.View(wholeTable, hlc.Max-1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := NewExec(v, nil, wholeTable.Table, 0).Doc(1, []byte("k")).Root(); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a damaged document was read: %v", err)
	}
	v.Close()
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

// TestAShortManifestIsNotACrash flips a bit in each record of the manifest: the store
// would open as it was before that record, with groups that are further in their logs
// than what is here. It is refused.
func TestAShortManifestIsNotACrash(t *testing.T) {
	fs := simfs.New(simfs.Options{Seed: 9})
	e := mustOpen(t, fs, EngineOptions{})
	state := func(n byte) {
		a := e.NewBatch()
		if err := errors.Join(a.PutGroupState(7, []byte("applied"), []byte{n}), a.Commit(), e.Flush()); err != nil {
			t.Fatal(err)
		}
	}
	for n := range byte(6) {
		state(n)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	var name string
	for _, f := range fs.Files() {
		if _, number, ok := strings.Cut(f, "marker.manifest."); ok {
			name = "data/docdb/db/" + number[strings.Index(number, "MANIFEST-"):]
		}
	}
	content, err := fs.Read(name)
	if err != nil {
		t.Fatal(err)
	}
	records, r := 0, record.NewReader(bytes.NewReader(content), 0)
	for {
		at := r.Offset()
		if _, err := r.Next(); err != nil {
			break
		}
		records++
		damaged := fs.Copy()
		if err := damaged.Flip(name, (at+9)*8); err != nil {
			t.Fatal(err)
		}
		e, err := OpenEngine(damaged, "data/docdb", EngineOptions{})
		if errors.Is(err, manifest.ErrDamaged) {
			continue
		}
		t.Errorf("record at %d: opened with %v", at, err)
		if err == nil {
			v, ok, err := e.GroupState(7, []byte("applied"))
			t.Errorf("and the group has applied %v, %v, %v", v, ok, err)
			_ = e.Close()
		}
	}
	if records < 6 {
		t.Errorf("only %d records", records)
	}
	e = mustOpen(t, fs, EngineOptions{})
	if v, ok, err := e.GroupState(7, []byte("applied")); err != nil || !ok || v[0] != 5 {
		t.Errorf("untouched: %v, %v, %v", v, ok, err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestGroupStateIsKeptApart(t *testing.T) {
	e := mustOpen(t, vfs.NewMem(), EngineOptions{})
	defer e.Close()
	a := e.NewBatch()
	for _, g := range []catalog.GroupID{1, 2, 1<<64 - 1} {
		for _, k := range []string{"", "a", "a\x00", "b"} {
			if err := a.PutGroupState(g, []byte(k), fmt.Appendf(nil, "%d %s", g, k)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := a.Commit(); err != nil {
		t.Fatal(err)
	}
	a = e.NewBatch()
	err := errors.Join(a.DeleteGroupStateRange(2, nil, nil), a.DeleteGroupStateRange(1<<64-1, []byte("a"), []byte("b")), a.DeleteGroupState(1, []byte("b")), a.Commit())
	if err != nil {
		t.Fatal(err)
	}
	for g, want := range map[catalog.GroupID]string{1: `"" "a" "a\x00" `, 2: "", 1<<64 - 1: `"" "b" `} {
		got := ""
		err := e.ScanGroupState(g, nil, nil, func(key, value []byte) bool {
			got += fmt.Sprintf("%q ", key)
			if string(value) != fmt.Sprintf("%d %s", g, key) {
				t.Errorf("group %d %q is %q", g, key, value)
			}
			return true
		})
		if err != nil || got != want {
			t.Errorf("group %d has %s, want %s (%v)", g, got, want, err)
		}
	}
}

// TestSweepBesideWrites runs sweeps that delete whole dead documents while the
// same documents are written anew, and readers look on.
func TestSweepBesideWrites(t *testing.T) {
	e := mustOpen(t, vfs.NewMem(), EngineOptions{MemTableBytes: 256 << 10, blockBytes: 512})
	defer e.Close()
	const rounds, children = 60, rangeFrom + 30
	var cutoff Cutoff
	var done atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() { // sweeper
		for !done.Load() {
			if _, err := e.Sweep(wholeTable, SweepOptions{Cutoff: cutoff.Load(), Full: true}); err != nil {
				t.Error(err)
				return
			}
		}
	})
	wg.Go(func() { // reader: a hash is whole or not there
		for !done.Load() {
			v, err := e.View(wholeTable, hlc.Max-1, nil)
			if err != nil {
				t.Error(err)
				return
			}
			checkWhole(t, v, children)
			v.Close()
		}
	})
	ht := hlc.FromMicros(1e15)
	for round := range rounds {
		for doc := range uint64(3) {
			ht += 10
			put(t, e, ht, func(x *Exec) {
				d := x.Doc(doc, []byte("k"))
				d.PutRoot(Root{Kind: RootHash, Count: children})
				for i := range children {
					d.PutSub(fmt.Appendf(nil, "%04d", i), binary.AppendUvarint(nil, uint64(round)))
				}
			})
			if round < rounds-1 {
				ht += 10
				put(t, e, ht, func(x *Exec) { x.Doc(doc, []byte("k")).Delete() })
				cutoff.Raise(ht)
			}
		}
	}
	done.Store(true)
	wg.Wait()
	v, err := e.View(wholeTable, hlc.Max-1, &cutoff)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if n := checkWhole(t, v, children); n != 3 {
		t.Errorf("%d documents, want 3", n)
	}
	if e.Metrics().VersionsCollected == 0 {
		t.Error("nothing was collected")
	}
}

// checkWhole counts the documents; each must have all its children.
func checkWhole(t *testing.T, v *View, children int) (docs int) {
	x := NewExec(v, nil, wholeTable.Table, 1)
	err := x.ScanDocs(0, 0, func(hash uint64, key []byte, r Root) bool {
		docs++
		n := 0
		var round []byte
		err := x.Doc(hash, key).ScanSub(nil, nil, n%2 == 0, func(sub, value []byte) bool {
			if n++; n > 1 && !bytes.Equal(round, value) {
				t.Errorf("children of rounds %x and %x", round, value)
			}
			round = value
			return true
		})
		if err != nil || n != children {
			t.Errorf("document %d has %d children, want %d (%v)", hash, n, children, err)
		}
		return err == nil
	})
	if err != nil {
		t.Error(err)
	}
	return docs
}

// TestViewsAreFixed: what is applied after a view was opened is not in it, also
// where views share iterators.
func TestViewsAreFixed(t *testing.T) {
	e := mustOpen(t, vfs.NewMem(), EngineOptions{})
	defer e.Close()
	read := func(v *View) string {
		r, ok, err := NewExec(v, nil, wholeTable.Table, 1).Doc(1, []byte("k")).Root()
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(string(r.Value), ok)
	}
	var views []*View
	for i := range 4 {
		for range 2 {
			v, err := e.View(wholeTable, hlc.Max-1, nil)
			if err != nil {
				t.Fatal(err)
			}
			if read(v); i%2 == 0 {
				v.Close()
				continue
			}
			views = append(views, v)
		}
		put(t, e, hlc.Timestamp(10+i), func(x *Exec) { x.Doc(1, []byte("k")).PutRoot(Root{Kind: RootString, Value: fmt.Append(nil, i)}) })
	}
	for i, want := range []string{"0true", "0true", "2true", "2true"} {
		if got := read(views[i]); got != want {
			t.Errorf("view %d reads %s, want %s", i, got, want)
		}
		views[i].Close()
	}
	old, err := e.View(wholeTable, 11, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if got := read(old); got != "1true" {
		t.Errorf("at 11 it reads %s, want 1", got)
	}
}

// TestGuidedSweepSkips: the block property keeps a sweep from reading what has
// no garbage, and shows it what has.
func TestGuidedSweepSkips(t *testing.T) {
	e := mustOpen(t, vfs.NewMem(), EngineOptions{blockBytes: 512})
	defer e.Close()
	put(t, e, 100, func(x *Exec) {
		for i := range uint64(2000) {
			x.Doc(i, []byte("key")).PutRoot(Root{Kind: RootString, Value: []byte("some value")})
		}
	})
	put(t, e, 200, func(x *Exec) { x.Doc(1000, []byte("key")).PutRoot(Root{Kind: RootString}) })
	if err := errors.Join(e.Flush(), e.db.Compact(t.Context(), []byte{spaceDocument, 0}, []byte{spaceProvisional, 0}, false)); err != nil {
		t.Fatal(err)
	}
	full, err := e.Sweep(wholeTable, SweepOptions{Cutoff: 150, Full: true, BytesMax: 1 << 30})
	if err != nil || full.Deleted != 0 {
		t.Fatalf("below the second write: %+v, %v", full, err)
	}
	guided, err := e.Sweep(wholeTable, SweepOptions{Cutoff: 200, BytesMax: 1 << 30})
	if err != nil || guided.Deleted != 1 || guided.Next != nil {
		t.Fatalf("at the second write: %+v, %v", guided, err)
	}
	if guided.Bytes*20 > full.Bytes {
		t.Errorf("a guided sweep looked at %d bytes, a full one at %d", guided.Bytes, full.Bytes)
	}
}

// TestReplacedVersionsGoAtOnce: under SetCollect a write that has read what it
// replaces leaves one version.
func TestReplacedVersionsGoAtOnce(t *testing.T) {
	e := mustOpen(t, vfs.NewMem(), EngineOptions{})
	defer e.Close()
	for i := range 20 {
		put(t, e, hlc.Timestamp(100+i), func(x *Exec) {
			x.SetCollect(hlc.Max)
			d := x.Doc(1, []byte("counter"))
			r, _, err := d.Root()
			if err != nil {
				t.Fatal(err)
			}
			r.Kind, r.Count = RootHash, r.Count+1
			if _, _, err := d.Sub([]byte("f")); err != nil {
				t.Fatal(err)
			}
			d.PutSub([]byte("f"), []byte{byte(i)})
			d.PutRoot(r)
		})
	}
	if n := countVersions(t, e); n != 2 {
		t.Errorf("%d versions are left of 20 writes of one field, want its root and itself", n)
	}
}

// countVersions counts what the store holds of the table.
func countVersions(t *testing.T, e *Engine) (n int) {
	t.Helper()
	lower, upper := wholeTable.bounds()
	it, err := e.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		t.Fatal(err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		n++
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestARootThatTellsOfChildrenStays is G3 where a write deletes what it replaces:
// the root of the ended life is left to the sweep, which then finds the children.
func TestARootThatTellsOfChildrenStays(t *testing.T) {
	for name, end := range map[string]func(d *Doc){
		"deleted":  func(d *Doc) { d.Delete() },
		"replaced": func(d *Doc) { d.PutRoot(Root{Kind: RootString}) },
		"edited, then deleted": func(d *Doc) {
			r, _, _ := d.Root()
			d.PutSub([]byte("b"), nil)
			d.PutRoot(r)
			d.Delete()
		},
	} {
		e := mustOpen(t, vfs.NewMem(), EngineOptions{})
		put(t, e, 10, func(x *Exec) {
			d := x.Doc(1, []byte("k"))
			d.PutRoot(Root{Kind: RootHash, Count: 1})
			d.PutSub([]byte("a"), nil)
		})
		put(t, e, 20, func(x *Exec) {
			x.SetCollect(hlc.Max)
			d := x.Doc(1, []byte("k"))
			if _, ok, err := d.Root(); !ok || err != nil {
				t.Fatal(ok, err)
			}
			end(d)
		})
		if _, err := e.Sweep(wholeTable, SweepOptions{Cutoff: 20}); err != nil {
			t.Fatal(err)
		}
		want := 0
		if name == "replaced" {
			want = 1
		}
		if n := countVersions(t, e); n != want {
			t.Errorf("%s: %d versions are left, want %d", name, n, want)
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestNothingHidesAtTheSeamOfFiles: a newer version may end one file and the
// older one begin the next.
func TestNothingHidesAtTheSeamOfFiles(t *testing.T) {
	e := mustOpen(t, vfs.NewMem(), EngineOptions{blockBytes: 256, fileBytes: 1 << 10})
	defer e.Close()
	docs := 0 // with two versions; the others shift the seams
	for ht := range hlc.Timestamp(2) {
		put(t, e, 10+ht, func(x *Exec) {
			for i := range uint64(5000) {
				if ht == 0 || i%13 == 0 {
					x.Doc(i, []byte("key")).PutRoot(Root{Kind: RootString, Value: []byte("some value")})
					docs += int(ht)
				}
			}
		})
	}
	if err := errors.Join(e.Flush(), e.db.Compact(t.Context(), []byte{spaceDocument, 0}, []byte{spaceProvisional, 0}, false)); err != nil {
		t.Fatal(err)
	}
	r, err := e.Sweep(wholeTable, SweepOptions{Cutoff: 11, DeletesMax: 2000, BytesMax: 1 << 30})
	if err != nil || r.Deleted != docs {
		t.Errorf("%d versions were deleted, want %d (%v)", r.Deleted, docs, err)
	}
}

// TestARangeIsDeletedAfterASecondLook is G4: a document that was dead when the
// sweep looked lives again when it wants to delete its children as a range.
func TestARangeIsDeletedAfterASecondLook(t *testing.T) {
	e := mustOpen(t, vfs.NewMem(), EngineOptions{})
	defer e.Close()
	hash := func(x *Exec) {
		d := x.Doc(1, []byte("k"))
		d.PutRoot(Root{Kind: RootHash})
		d.PutSub([]byte("a"), nil)
	}
	put(t, e, 10, hash)
	put(t, e, 20, func(x *Exec) { x.Doc(1, []byte("k")).Delete() })
	s := &sweep{e: e, o: SweepOptions{Cutoff: 20}.withDefaults(), batch: e.db.NewBatch()}
	defer func() { _ = s.batch.Close() }()
	defer s.closeIters()
	lower, upper := wholeTable.bounds()
	if err := s.run(upper, upper, false); err != nil { // opens what it looks through
		t.Fatal(err)
	}
	docKey := appendDocKey(nil, wholeTable.Table, 1, []byte("k"))
	plan, err := s.planRoot(docKey)
	if err != nil || !plan.orphans || plan.alive != endOfTime {
		t.Fatalf("the plan is %+v, %v", plan, err)
	}
	put(t, e, 30, hash)
	done, err := s.dropChildren(docKey, plan.newest)
	if err != nil || done || !inRange(s.result.Next[9:], lower, upper) {
		t.Errorf("it went on: %v, %v", done, err)
	}
	v, err := e.View(wholeTable, 30, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if _, ok, err := NewExec(v, nil, wholeTable.Table, 1).Doc(1, []byte("k")).Sub([]byte("a")); !ok || err != nil {
		t.Errorf("the new child is gone: %v, %v", ok, err)
	}
}
