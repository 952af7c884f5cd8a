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

// openSegment is a segment with its file.
type openSegment struct {
	seg  *segment
	file vfs.File
}

func segmentName(gen uint64) string { return fmt.Sprintf("%016x.journal", gen) }

// temporary is the name of a segment that is still being zero-filled.
const temporary = "filling.tmp"

func (s *shelf) path(name string) string { return s.fs.PathJoin(s.dir, name) }

// prepare readies a segment for use: headed, the sector of its first group zero,
// named, all of that durable, and the name last, so that a segment of its own
// generation's name is never half ready. A released file is used again rather
// than a new one made.
func (s *shelf) prepare(gen uint64, size int64, reuse *segment) (*openSegment, error) {
	if s.failed.Load() {
		return nil, errStopped
	}
	from, err := s.path(temporary), error(nil)
	if reuse != nil {
		from = s.path(segmentName(reuse.gen))
		err = s.refit(from, gen, size)
	} else {
		err = s.fill(from, gen, size)
	}
	if err == nil {
		err = s.fs.Rename(from, s.path(segmentName(gen)))
	}
	if err == nil {
		err = s.syncDir()
	}
	if err != nil {
		return nil, err
	}
	f, err := s.fs.OpenReadWrite(s.path(segmentName(gen)), vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	if reuse != nil {
		s.stats.recycled.Add(1)
	} else {
		s.stats.created.Add(1)
	}
	return &openSegment{&segment{gen: gen, size: size}, f}, nil
}

// fill makes a new file of size bytes: a header, then zeros. What does not fit on
// the disk is removed again.
func (s *shelf) fill(name string, gen uint64, size int64) error {
	f, err := s.fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	head := s.head(gen, size)
	if _, err = f.Write(head[:]); err == nil {
		err = s.zero(f, size-int64(len(head)))
	}
	err = errors.Join(err, f.Close())
	if err != nil && !s.failed.Load() {
		err = errors.Join(err, s.fs.Remove(name))
	}
	return err
}

// zero writes n more zeros and syncs. A sync that fails here is as fatal as any
// other: what it was about is not known.
func (s *shelf) zero(f vfs.File, n int64) error {
	zeros := make([]byte, min(zeroChunk, n))
	for at := int64(0); at < n; at += zeroChunk {
		if s.failed.Load() {
			return errStopped
		}
		clear(zeros) // a file system may use what it was given as its own, as Pebble's in memory does
		wrote, err := f.Write(zeros[:min(zeroChunk, n-at)])
		s.stats.bytes.Add(uint64(wrote))
		if err != nil {
			return err
		}
	}
	return synced(f.Sync())
}

// refit gives a released file the beginning of its next generation.
func (s *shelf) refit(name string, gen uint64, size int64) error {
	f, err := s.fs.OpenReadWrite(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	head := s.head(gen, size)
	if _, err = f.WriteAt(head[:], 0); err == nil {
		s.stats.bytes.Add(uint64(len(head)))
		err = synced(f.SyncData())
	}
	return errors.Join(err, f.Close())
}

// head is what a segment begins with: its header and a sector of zeros.
func (s *shelf) head(gen uint64, size int64) (b [2 * sector]byte) {
	h := segmentHeader{generation: gen, id: s.id, sizeOnDisk: uint64(size)}
	h.encode(b[:])
	return b
}

// synced marks the error of a sync.
func synced(err error) error {
	if err != nil {
		return &syncError{err}
	}
	return nil
}

func (s *shelf) syncDir() error {
	d, err := s.fs.OpenDir(s.dir)
	if err != nil {
		return err
	}
	return errors.Join(synced(d.Sync()), d.Close())
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
