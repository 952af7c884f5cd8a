package store

import (
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// countedFS counts what is read from the files that are opened through it, so that it
// can be told how much of the disk a reader of a backlog costs.
type countedFS struct {
	vfs.FS
	read *atomic.Int64 // bytes
}

// Open opens a file for reading.
func (c countedFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := c.FS.Open(name, opts...)
	if err != nil {
		return nil, err
	}
	return countedFile{f, c.read}, nil
}

// Unwrap gives what it counts on.
func (c countedFS) Unwrap() vfs.FS { return c.FS }

type countedFile struct {
	vfs.File
	read *atomic.Int64
}

// Read reads on.
func (f countedFile) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	f.read.Add(int64(n))
	return n, err
}

// ReadAt reads at a place.
func (f countedFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	f.read.Add(int64(n))
	return n, err
}

// BytesRead is how much was read from the files of partitions since the store was
// opened: what the block cache did not have.
func (s *Store) BytesRead() int64 { return s.shelf.bytesRead.Load() }
