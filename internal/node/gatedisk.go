package node

import (
	"errors"
	"os"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// errDead answers every change of the disk that is asked for after the end of an
// incarnation.
var errDead = errors.New("this life of the node has ended: nothing of it is written any more")

// diskGate is all that a node has of the disk. Once the node is dead it changes
// nothing any more, whichever room asks (N2); what the kernel was given before
// that may still end. Reading goes on.
type diskGate struct {
	vfs.FS
	dead *atomic.Bool
}

func (g diskGate) check() error {
	if g.dead.Load() {
		return errDead
	}
	return nil
}

func (g diskGate) file(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return gatedFile{f, g}, nil
}

// Create implements vfs.FS.
func (g diskGate) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := g.check(); err != nil {
		return nil, err
	}
	return g.file(g.FS.Create(name, c))
}

// Link implements vfs.FS.
func (g diskGate) Link(oldname, newname string) error {
	if err := g.check(); err != nil {
		return err
	}
	return g.FS.Link(oldname, newname)
}

// OpenReadWrite implements vfs.FS.
func (g diskGate) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	if err := g.check(); err != nil {
		return nil, err
	}
	return g.file(g.FS.OpenReadWrite(name, c, opts...))
}

// OpenDir implements vfs.FS.
func (g diskGate) OpenDir(name string) (vfs.File, error) { return g.file(g.FS.OpenDir(name)) }

// Remove implements vfs.FS.
func (g diskGate) Remove(name string) error {
	if err := g.check(); err != nil {
		return err
	}
	return g.FS.Remove(name)
}

// RemoveAll implements vfs.FS.
func (g diskGate) RemoveAll(name string) error {
	if err := g.check(); err != nil {
		return err
	}
	return g.FS.RemoveAll(name)
}

// Rename implements vfs.FS.
func (g diskGate) Rename(oldname, newname string) error {
	if err := g.check(); err != nil {
		return err
	}
	return g.FS.Rename(oldname, newname)
}

// ReuseForWrite implements vfs.FS.
func (g diskGate) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := g.check(); err != nil {
		return nil, err
	}
	return g.file(g.FS.ReuseForWrite(oldname, newname, c))
}

// MkdirAll implements vfs.FS.
func (g diskGate) MkdirAll(dir string, perm os.FileMode) error {
	if err := g.check(); err != nil {
		return err
	}
	return g.FS.MkdirAll(dir, perm)
}

// Unwrap implements vfs.FS.
func (g diskGate) Unwrap() vfs.FS { return g.FS }

type gatedFile struct {
	vfs.File
	gate diskGate
}

// Write implements vfs.File.
func (f gatedFile) Write(p []byte) (int, error) {
	if err := f.gate.check(); err != nil {
		return 0, err
	}
	return f.File.Write(p)
}

// WriteAt implements vfs.File.
func (f gatedFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.gate.check(); err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, off)
}

// Preallocate implements vfs.File.
func (f gatedFile) Preallocate(offset, length int64) error {
	if err := f.gate.check(); err != nil {
		return err
	}
	return f.File.Preallocate(offset, length)
}

// Sync implements vfs.File.
func (f gatedFile) Sync() error {
	if err := f.gate.check(); err != nil {
		return err
	}
	return f.File.Sync()
}

// SyncTo implements vfs.File.
func (f gatedFile) SyncTo(length int64) (bool, error) {
	if err := f.gate.check(); err != nil {
		return false, err
	}
	return f.File.SyncTo(length)
}

// SyncData implements vfs.File.
func (f gatedFile) SyncData() error {
	if err := f.gate.check(); err != nil {
		return err
	}
	return f.File.SyncData()
}
