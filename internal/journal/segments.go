package journal

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// shelf does the files: it creates, zero-fills, reuses and removes segments.
type shelf struct {
	fs     vfs.FS
	dir    string
	id     Identity
	failed *atomic.Bool // once set nothing is written any more
	stats  *counters
}

// errStopped ends work in the background after a fatal fault.
var errStopped = errors.New("journal: stopped")

const zeroChunk = 256 << 10

var zeros [zeroChunk]byte

// openSegment is a segment with its file.
type openSegment struct {
	seg  *segment
	file vfs.File
}

func segmentName(gen uint64) string { return fmt.Sprintf("%016x.journal", gen) }

// temporary is the name of a segment that is still being zero-filled.
const temporary = "filling.tmp"

func (s *shelf) path(name string) string { return s.fs.PathJoin(s.dir, name) }

// create makes a new segment file of size bytes, all zeros and durable.
func (s *shelf) create(gen uint64, size int64) (vfs.File, error) {
	f, err := s.fs.Create(s.path(temporary), vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	err = s.zero(f, size)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = s.fs.Rename(s.path(temporary), s.path(segmentName(gen)))
	}
	if err != nil {
		if !s.failed.Load() {
			err = errors.Join(err, s.fs.Remove(s.path(temporary)))
		}
		return nil, err
	}
	s.stats.created.Add(1)
	return s.fs.OpenReadWrite(s.path(segmentName(gen)), vfs.WriteCategoryUnspecified)
}

// zero fills a new file. A sync that fails here is as fatal as any other.
func (s *shelf) zero(f vfs.File, size int64) error {
	for at := int64(0); at < size; at += zeroChunk {
		if s.failed.Load() {
			return errStopped
		}
		n, err := f.Write(zeros[:min(zeroChunk, size-at)])
		s.stats.bytes.Add(uint64(n))
		if err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return &syncError{err}
	}
	return nil
}

// prepare readies a segment for use: named, headed, its first group's sector
// zero, all of that durable. A released file is renamed rather than created.
func (s *shelf) prepare(gen uint64, size int64, reuse *segment) (*openSegment, error) {
	if s.failed.Load() {
		return nil, errStopped
	}
	f, err := s.obtain(gen, size, reuse)
	if err != nil {
		return nil, err
	}
	var head [2 * sector]byte
	h := segmentHeader{generation: gen, id: s.id, sizeOnDisk: uint64(size)}
	h.encode(head[:])
	if _, err = f.WriteAt(head[:], 0); err == nil {
		s.stats.bytes.Add(uint64(len(head)))
		if err = f.SyncData(); err != nil {
			err = &syncError{err}
		}
	}
	if err == nil {
		err = s.syncDir()
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &openSegment{&segment{gen: gen, size: size}, f}, nil
}

func (s *shelf) obtain(gen uint64, size int64, reuse *segment) (vfs.File, error) {
	if reuse == nil {
		return s.create(gen, size)
	}
	if err := s.fs.Rename(s.path(segmentName(reuse.gen)), s.path(segmentName(gen))); err != nil {
		return nil, err
	}
	s.stats.recycled.Add(1)
	return s.fs.OpenReadWrite(s.path(segmentName(gen)), vfs.WriteCategoryUnspecified)
}

func (s *shelf) syncDir() error {
	d, err := s.fs.OpenDir(s.dir)
	if err != nil {
		return err
	}
	if err = d.Sync(); err != nil {
		err = &syncError{err}
	}
	return errors.Join(err, d.Close())
}

func (s *shelf) remove(seg *segment) error {
	if s.failed.Load() {
		return errStopped
	}
	s.stats.removed.Add(1)
	return s.fs.Remove(s.path(segmentName(seg.gen)))
}

// syncError marks an error of fsync: never to be retried, whatever it says.
type syncError struct{ err error }

func (e *syncError) Error() string { return "sync: " + e.err.Error() }
func (e *syncError) Unwrap() error { return e.err }

// isNoSpace tells a full disk from a broken one.
func isNoSpace(err error) bool {
	var s *syncError
	return errors.Is(err, syscall.ENOSPC) && !errors.As(err, &s)
}
