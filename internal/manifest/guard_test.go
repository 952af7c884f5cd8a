package manifest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/braiddb/braid/internal/sim/simfs"
)

const dir = "data/lsm"

var blocks = pebble.NewCache(1 << 20)

// openOn opens a Pebble without a log, as the rooms do.
func openOn(fs vfs.FS) (*pebble.DB, error) {
	g, err := Guard(fs, dir)
	if err != nil {
		return nil, err
	}
	return pebble.Open(dir, &pebble.Options{FS: g, DisableWAL: true, DisableAutomaticCompactions: true, Cache: blocks,
		FormatMajorVersion: pebble.FormatValueSeparation, MemTableSize: 64 << 10, Logger: quiet{}, MaxManifestFileSize: 200})
}

type quiet struct{}

func (quiet) Infof(string, ...any)              {}
func (quiet) Errorf(string, ...any)             {}
func (quiet) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// flushes opens the Pebble and flushes the keys [from, to) one after the other.
func flushes(t *testing.T, fs vfs.FS, from, to int, heard func(keys int)) {
	t.Helper()
	db, err := openOn(fs)
	if err != nil {
		t.Fatal(err)
	}
	for i := from; i < to; i++ {
		if err := errors.Join(db.Set(fmt.Appendf(nil, "%04d", i), []byte("value"), pebble.NoSync), db.Flush()); err != nil {
			t.Fatal(err)
		}
		heard(i + 1)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func nobody(int) {}

// filmed is a file system of which a copy is made before every operation that changes it.
type filmed struct {
	vfs.FS
	shoot func()
}

type filmedFile struct {
	vfs.File
	shoot func()
}

func (f filmed) file(file vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return filmedFile{file, f.shoot}, nil
}

func (f filmed) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f.shoot()
	return f.file(f.FS.Create(name, c))
}

func (f filmed) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return f.file(f.FS.OpenReadWrite(name, c, o...))
}

func (f filmed) OpenDir(name string) (vfs.File, error) { return f.file(f.FS.OpenDir(name)) }
func (f filmed) Remove(name string) error              { f.shoot(); return f.FS.Remove(name) }
func (f filmed) Rename(from, to string) error          { f.shoot(); return f.FS.Rename(from, to) }

func (f filmedFile) Write(p []byte) (int, error)             { f.shoot(); return f.File.Write(p) }
func (f filmedFile) WriteAt(p []byte, at int64) (int, error) { f.shoot(); return f.File.WriteAt(p, at) }
func (f filmedFile) Sync() error                             { f.shoot(); return f.File.Sync() }
func (f filmedFile) SyncData() error                         { f.shoot(); return f.File.SyncData() }

// holds says how many keys are there.
func holds(t *testing.T, db *pebble.DB) (n int) {
	t.Helper()
	it, err := db.NewIter(nil)
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

func currentManifest(t *testing.T, fs *simfs.FS) (string, []byte) {
	t.Helper()
	n, err := (&guard{FS: fs, dir: dir}).current()
	if err != nil || n == 0 {
		t.Fatalf("manifest %d: %v", n, err)
	}
	name := fmt.Sprintf("%s/%s%06d", dir, manifestPrefix, n)
	content, err := fs.Read(name)
	if err != nil {
		t.Fatal(err)
	}
	return name, content
}

// boundaries are where the records of a manifest begin, and where the last ends.
func boundaries(t *testing.T, content []byte) (at []int64) {
	t.Helper()
	r := record.NewReader(bytes.NewReader(content), 0)
	for {
		at = append(at, r.Offset())
		next, err := r.Next()
		if err != nil {
			return at[:len(at)-1]
		}
		if _, err := bytes.NewBuffer(nil).ReadFrom(next); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAShortenedManifestIsRefused cuts the manifest, or flips a bit of it, at every
// record's beginning and within each: Pebble alone opens most of them, and has less.
func TestAShortenedManifestIsRefused(t *testing.T) {
	fs := simfs.New(simfs.Options{Seed: 1})
	const keys = 12
	flushes(t, fs, 0, keys, nobody)
	name, content := currentManifest(t, fs)
	records := boundaries(t, content)
	if len(records) < 4 {
		t.Fatalf("only %d records in %d bytes", len(records), len(content))
	}
	silent := 0
	for _, begin := range records {
		for _, c := range []struct {
			what string
			do   func(*simfs.FS) error
		}{
			{"flip of its checksum", func(fs *simfs.FS) error { return fs.Flip(name, begin*8) }},
			{"flip of its length", func(fs *simfs.FS) error { return fs.Flip(name, (begin+4)*8) }},
			{"flip within", func(fs *simfs.FS) error { return fs.Flip(name, (begin+12)*8+3) }},
			{"zeros from there on", func(fs *simfs.FS) error {
				return fs.Overwrite(name, begin, make([]byte, int64(len(content))-begin))
			}},
		} {
			y := fs.Copy()
			if err := c.do(y); err != nil {
				t.Fatal(err)
			}
			if _, err := openOn(y.Copy()); !errors.Is(err, ErrDamaged) {
				t.Errorf("record at %d, %s: opened with %v", begin, c.what, err)
			}
			db, err := pebble.Open(dir, &pebble.Options{FS: y, DisableWAL: true, Logger: quiet{}})
			if err != nil {
				continue
			}
			if n := holds(t, db); n < keys {
				silent++
			}
			db.Close()
		}
	}
	if silent < len(records) {
		t.Errorf("Pebble alone was silently shorter only %d times: the test does not reach what it is about", silent)
	}
	db, err := openOn(fs)
	if err != nil {
		t.Fatalf("untouched: %v", err)
	}
	if n := holds(t, db); n != keys {
		t.Errorf("untouched: %d keys of %d", n, keys)
	}
	db.Close()
}

// TestACrashIsNoDamage (V1, V2, V4) cuts the power before every operation of three
// lives, which also begin new manifests, with several fates for what was not synced: the
// next life opens, and has every key of whose flush was heard.
func TestACrashIsNoDamage(t *testing.T) {
	type frame struct {
		fs    *simfs.FS
		heard int
	}
	var mu sync.Mutex
	var film []frame
	fs, heard := simfs.New(simfs.Options{Seed: 2}), 0
	shoot := func() {
		mu.Lock()
		defer mu.Unlock()
		shot := fs.Copy()
		shot.SetFault(nil)
		film = append(film, frame{shot, heard})
	}
	hear := func(keys int) {
		mu.Lock()
		defer mu.Unlock()
		heard = keys
	}
	begun := 0
	fs.SetFault(func(op simfs.Op) simfs.Fault {
		if op.Kind == simfs.OpCreate && strings.Contains(op.Path, manifestPrefix) && !strings.Contains(op.Path, "marker.") {
			begun++
		}
		return simfs.Fault{}
	})
	const lives = 3
	for life := range lives {
		flushes(t, filmed{fs, shoot}, 5*life, 5*(life+1), hear)
	}
	if begun <= lives {
		t.Errorf("%d manifests: none began within a life", begun)
	}
	for i, shot := range film {
		for k, c := range []simfs.Crash{{}, {Sectors: 50, Tear: 50, Names: 50}, {Sectors: 100, Names: 100}, {Tear: 100, Names: 100}} {
			c.Dice = uint64(i*4 + k)
			after := shot.fs.Copy().Crash(c)
			if shot.heard > 0 { // V3: a note that was torn leaves one that is good enough to see it
				damaged := after.Copy()
				name, _ := currentManifest(t, damaged)
				if err := damaged.Flip(name, 100); err != nil {
					t.Fatal(err)
				}
				if _, err := openOn(damaged); !errors.Is(err, ErrDamaged) {
					t.Fatalf("before operation %d, %+v, %d flushed, then damaged: opened with %v", i, c, shot.heard, err)
				}
			}
			for range 2 {
				db, err := openOn(after)
				if err != nil {
					t.Fatalf("before operation %d, %+v, %d flushed: %v", i, c, shot.heard, err)
				}
				if n := holds(t, db); n < shot.heard {
					t.Fatalf("before operation %d, %+v: %d keys, and %d were flushed", i, c, n, shot.heard)
				}
				if err := db.Close(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	t.Logf("%d points", len(film))
	if len(film) < 150 {
		t.Errorf("only %d points", len(film))
	}
}

// TestADamagedNote: one slot that cannot be read leaves the other, and a crash may have
// torn it; two that cannot are nobody's crash. The note of another directory is none.
func TestADamagedNote(t *testing.T) {
	fs := simfs.New(simfs.Options{Seed: 3})
	flushes(t, fs, 0, 3, nobody)
	path := dir + "/" + noteFile
	for _, c := range []struct {
		slots []int64
		want  error
	}{{[]int64{0}, nil}, {[]int64{1}, nil}, {[]int64{0, 1}, ErrDamaged}} {
		y := fs.Copy()
		for _, slot := range c.slots {
			if err := y.Flip(path, (slot*slotEvery+40)*8); err != nil {
				t.Fatal(err)
			}
		}
		db, err := openOn(y)
		if !errors.Is(err, c.want) {
			t.Errorf("slots %v: %v", c.slots, err)
		}
		if db != nil {
			db.Close()
		}
	}
	n := note{sequence: 1 << 40, now: extent{number: 1 << 40}}
	b := n.encode("another")
	if err := fs.Overwrite(path, 0, b[:]); err != nil {
		t.Fatal(err)
	}
	db, err := openOn(fs.Copy())
	if err != nil {
		t.Fatalf("the note of another directory: %v", err)
	}
	db.Close()
	b = n.encode("lsm")
	binary.LittleEndian.PutUint32(b[8:], noteFormat+1)
	binary.LittleEndian.PutUint32(b[4:], noteSum("lsm", b[8:]))
	if err := fs.Overwrite(path, 0, b[:]); err != nil {
		t.Fatal(err)
	}
	if _, err := openOn(fs); !errors.Is(err, ErrFormat) {
		t.Errorf("a note of a newer version: %v", err)
	}
}

// TestAnOlderManifestIsNotTheCurrentOne: the marker that names the manifest went back.
func TestAnOlderManifestIsNotTheCurrentOne(t *testing.T) {
	fs := simfs.New(simfs.Options{Seed: 4})
	flushes(t, fs, 0, 2, nobody)
	flushes(t, fs, 2, 4, nobody)
	var marker string
	for _, name := range fs.Files() {
		if strings.Contains(name, "marker."+markerName+".") {
			marker = name
		}
	}
	if marker == "" {
		t.Fatal("no marker")
	}
	if err := fs.Rename(marker, marker[:strings.LastIndex(marker, "-")]+"-000001"); err != nil {
		t.Fatal(err)
	}
	if _, err := openOn(fs); !errors.Is(err, ErrDamaged) {
		t.Errorf("opened: %v", err)
	}
}

// TestADirectoryWithoutANotePasses: it was written before there were notes, and has one
// from then on.
func TestADirectoryWithoutANotePasses(t *testing.T) {
	fs := simfs.New(simfs.Options{Seed: 5})
	db, err := pebble.Open(dir, &pebble.Options{FS: fs, DisableWAL: true, Logger: quiet{}, FormatMajorVersion: pebble.FormatValueSeparation})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Set([]byte("old"), nil, pebble.NoSync), db.Flush(), db.Close()); err != nil {
		t.Fatal(err)
	}
	flushes(t, fs, 0, 2, nobody)
	name, _ := currentManifest(t, fs)
	if err := fs.Flip(name, 100); err != nil {
		t.Fatal(err)
	}
	if _, err := openOn(fs); !errors.Is(err, ErrDamaged) {
		t.Errorf("opened: %v", err)
	}
}

// TestAFailedNoteEndsTheProcess: Pebble may not go on as if its manifest were synced.
func TestAFailedNoteEndsTheProcess(t *testing.T) {
	fs := simfs.New(simfs.Options{Seed: 6})
	db, err := openOn(fs)
	if err != nil {
		t.Fatal(err)
	}
	w, err := (&guard{FS: fs, dir: dir, name: "lsm"}).Create(dir+"/"+manifestPrefix+"000099", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteAt([]byte("x"), 0); err == nil {
		t.Error("a manifest was written within")
	}
	fs.SetFault(func(op simfs.Op) (f simfs.Fault) {
		if op.Kind == simfs.OpSync && strings.HasSuffix(op.Path, noteFile) {
			f.Err = simfs.ErrIO
		}
		return f
	})
	if err := w.Sync(); !errors.Is(err, simfs.ErrIO) {
		t.Errorf("sync: %v", err)
	}
	fs.SetFault(nil)
	w.Close()
	db.Close()
}

func FuzzNote(f *testing.F) {
	n := note{sequence: 7, now: extent{2, 300, 4}, pending: true, before: extent{1, 200, 9}}
	b := n.encode("lsm")
	f.Add(b[:])
	f.Add([]byte{})
	f.Add(make([]byte, noteBytes))
	f.Add(append(make([]byte, slotEvery), b[:]...))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, slot, err := newest("lsm", b)
		if err != nil || n.sequence == 0 {
			return
		}
		if back := n.encode("lsm"); crc32.ChecksumIEEE(back[8:12]) == 0 || !bytes.Equal(back[16:], b[slot*slotEvery+16:][:slotBytes-16]) {
			t.Errorf("%+v from %x, and %x back", n, b[slot*slotEvery:][:slotBytes], back)
		}
	})
}

// barred is a file system that refuses to open manifests.
type barred struct {
	vfs.FS
	err error
}

func (b barred) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	if strings.HasPrefix(b.PathBase(name), manifestPrefix) {
		return nil, b.err
	}
	return b.FS.Open(name, opts...)
}

// TestWhatCannotBeOpenedIsNotDamaged: for want of descriptors or rights nothing is known
// of a manifest, and what is done about damage must not be done. One that is gone is damaged.
func TestWhatCannotBeOpenedIsNotDamaged(t *testing.T) {
	fs := simfs.New(simfs.Options{Seed: 8})
	flushes(t, fs, 0, 2, nobody)
	for _, c := range []struct {
		err     error
		damaged bool
	}{{syscall.EMFILE, false}, {os.ErrPermission, false}, {os.ErrNotExist, true}} {
		_, err := Guard(barred{fs, c.err}, dir)
		if !errors.Is(err, c.err) || errors.Is(err, ErrDamaged) != c.damaged {
			t.Errorf("%v: %v", c.err, err)
		}
	}
}

// TestANoteThatWasBeingMade: the power went when the file of the note was not all there.
func TestANoteThatWasBeingMade(t *testing.T) {
	for _, n := range []int{0, 1, 63, 64, slotEvery - 1, slotEvery, slotEvery + 1} {
		if best, _, err := newest("lsm", make([]byte, n)); err != nil || best.sequence != 0 {
			t.Errorf("%d bytes: %+v, %v", n, best, err)
		}
	}
}
