package manifest

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/atomicfs"
)

const (
	markerName     = "manifest" // of Pebble's marker: which manifest is the current one
	markerPrefix   = "marker."
	manifestPrefix = "MANIFEST-"
	lengthMax      = 4 << 30
)

// Guard compares the manifest of the Pebble in dir with what was noted of it, and gives
// the file system that this Pebble is to be opened with, which keeps the note. A
// directory that does not exist, or that has no note yet, passes.
func Guard(fs vfs.FS, dir string) (vfs.FS, error) {
	g := &guard{FS: fs, dir: fs.PathDir(fs.PathJoin(dir, noteFile)), name: fs.PathBase(dir)}
	var err error
	if g.last, g.slot, err = g.read(); err == nil {
		err = g.compare()
	}
	if err != nil {
		return nil, fmt.Errorf("manifest of %s: %w", dir, err)
	}
	return g, nil
}

// guard is a file system that notes how much of manifests is durable.
type guard struct {
	vfs.FS
	dir, name string

	mu       sync.Mutex
	last     note
	slot     int
	standing extent   // the current manifest, as far as it was noted; number 0: there is none
	writes   bool     // last is of this life: Pebble goes on only once its manifest is the current one
	file     vfs.File // nil: not opened
}

// Unwrap gives the file system beneath.
func (g *guard) Unwrap() vfs.FS { return g.FS }

// read finds the newest note.
func (g *guard) read() (note, int, error) {
	b, err := readUpTo(g.FS, g.FS.PathJoin(g.dir, noteFile), noteBytes)
	if errors.Is(err, os.ErrNotExist) {
		return note{}, 0, nil
	}
	if err != nil {
		return note{}, 0, err
	}
	return newest(g.name, b)
}

// compare looks whether the current manifest begins with what was noted.
func (g *guard) compare() error {
	current, err := g.current()
	if errors.Is(err, os.ErrNotExist) && g.last.sequence == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	want := extent{number: current}
	switch n := &g.last; {
	case n.sequence == 0:
	case current == n.now.number:
		want = n.now
	case n.pending && current == n.before.number:
		want = n.before
	case current > n.now.number: // the newest note is gone with its slot, or a version wrote that keeps none
	default:
		return fmt.Errorf("%w: %s%06d is the current one, and %06d was", ErrDamaged, manifestPrefix, current, n.now.number)
	}
	g.standing = want
	return g.verify(want)
}

// verify reads as much of a manifest as was noted.
func (g *guard) verify(want extent) error {
	if want.length == 0 {
		return nil
	}
	if want.length > lengthMax {
		return fmt.Errorf("%w: %d bytes were noted, more than any has", ErrDamaged, want.length)
	}
	f, err := g.FS.Open(g.FS.PathJoin(g.dir, fmt.Sprintf("%s%06d", manifestPrefix, want.number)))
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err != nil {
		return err // who may not open it now, for want of descriptors or rights, knows of no damage
	}
	defer f.Close()
	sum := crc32.New(castagnoli)
	switch n, err := io.Copy(sum, io.LimitReader(f, int64(want.length))); {
	case err != nil:
		return fmt.Errorf("read %s%06d: %w", manifestPrefix, want.number, err)
	case n < int64(want.length):
		return fmt.Errorf("%w: it has %d bytes and had %d", ErrDamaged, n, want.length)
	case sum.Sum32() != want.sum:
		return fmt.Errorf("%w: its first %d bytes are not those that were synced", ErrDamaged, n)
	}
	return nil
}

// current is the number of the manifest that Pebble would read, 0 if there is none.
func (g *guard) current() (uint64, error) {
	names, err := g.FS.List(g.dir)
	if err != nil {
		return 0, err
	}
	marker, name, err := atomicfs.LocateMarkerInListing(g.FS, g.dir, markerName, names)
	if err != nil {
		return 0, err
	}
	if err := marker.Close(); err != nil || name == "" {
		return 0, err
	}
	n, ok := numberOf(name)
	if !ok {
		return 0, fmt.Errorf("%w: the current one is called %q", ErrDamaged, name)
	}
	return n, nil
}

func numberOf(name string) (uint64, bool) {
	digits, ok := strings.CutPrefix(name, manifestPrefix)
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, ok && err == nil && n > 0
}

func readUpTo(fs vfs.FS, path string, limit int64) ([]byte, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}

// Create watches the manifests of this directory.
func (g *guard) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := g.FS.Create(name, category)
	if err != nil || g.FS.PathDir(name) != g.dir {
		return f, err
	}
	number, ok := numberOf(g.FS.PathBase(name))
	if !ok {
		return f, nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.writes {
		g.standing = g.last.now
	}
	return &watched{File: f, g: g, extent: extent{number: number}, fresh: true}, nil
}

// Remove makes sure that the marker which takes another's place is there first. Pebble
// syncs both changes at once, and a power loss that kept the second alone would leave a
// directory that seems to be new.
func (g *guard) Remove(name string) error {
	if g.FS.PathDir(name) == g.dir && strings.HasPrefix(g.FS.PathBase(name), markerPrefix) {
		if err := g.syncDir(); err != nil {
			return err
		}
	}
	return g.FS.Remove(name)
}

// watched is a manifest that is being written.
type watched struct {
	vfs.File
	g *guard
	extent
	fresh  bool  // never synced: not the current one yet
	failed error // of a write: what the file holds is not known, and no note is taken
}

// Write appends.
func (w *watched) Write(p []byte) (int, error) {
	sum := crc32.Update(w.sum, castagnoli, p) // before: a file may use the buffer for itself
	n, err := w.File.Write(p)
	if n == len(p) {
		w.sum, w.length = sum, w.length+uint64(n)
	} else if err == nil {
		err = io.ErrShortWrite
	}
	if err != nil {
		w.failed = err
	}
	return n, err
}

// WriteAt is not for manifests: what was noted must not change.
func (w *watched) WriteAt([]byte, int64) (int, error) {
	return 0, fmt.Errorf("manifest: write within %s%06d: %w", manifestPrefix, w.number, errors.ErrUnsupported)
}

// Sync makes the manifest durable, then the note on it (V1, V2). The name of a new one
// as well: Pebble syncs that only together with the marker that makes it the current
// one, and a power loss could keep the marker alone.
func (w *watched) Sync() error {
	if w.failed != nil {
		return fmt.Errorf("manifest: sync %s%06d after a failed write: %w", manifestPrefix, w.number, w.failed)
	}
	err := w.File.Sync()
	if err == nil && w.fresh {
		err = w.g.syncDir()
	}
	if err != nil {
		return err
	}
	fresh := w.fresh
	w.fresh = false
	return w.g.take(w.extent, fresh)
}

// SyncData is Sync.
func (w *watched) SyncData() error { return w.Sync() }

// Close closes the note as well; the next manifest opens it again.
func (w *watched) Close() error {
	g := w.g
	g.mu.Lock()
	defer g.mu.Unlock()
	err := w.File.Close()
	if g.file != nil {
		err = errors.Join(err, g.file.Close())
		g.file = nil
	}
	return err
}

// take writes the next note into the slot that does not hold the last one.
func (g *guard) take(x extent, fresh bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if x == g.last.now && !fresh && !g.last.pending {
		return nil
	}
	next := note{sequence: g.last.sequence + 1, now: x}
	if fresh {
		next.pending, next.before = true, g.standing // V4
	}
	slot := g.slot
	if g.last.sequence > 0 {
		slot = 1 - slot
	}
	err := g.open()
	if err == nil {
		b := next.encode(g.name)
		_, err = g.file.WriteAt(b[:], int64(slot)*slotEvery)
	}
	if err == nil {
		err = g.file.SyncData()
	}
	if err != nil {
		return fmt.Errorf("manifest: note on %s: %w", g.dir, err)
	}
	g.last, g.slot, g.writes = next, slot, true
	return nil
}

// open opens the file of the note, or makes it. Pebble has made the directory by then.
func (g *guard) open() error {
	if g.file != nil {
		return nil
	}
	path := g.FS.PathJoin(g.dir, noteFile)
	info, err := g.FS.Stat(path)
	if err == nil && info.Size() == noteBytes && g.last.sequence > 0 {
		g.file, err = g.FS.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
		return err
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := g.FS.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if _, err = f.Write(make([]byte, noteBytes)); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = g.syncDir()
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	g.file = f
	return nil
}

func (g *guard) syncDir() error {
	d, err := g.FS.OpenDir(g.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
