package node

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/braiddb/braid/internal/multiraft"
)

// incomingDir holds snapshots that are arriving. What a crash leaves there is of
// no use to anybody and is removed at the next start.
const incomingDir = "incoming"

// spooler makes a file for each incoming snapshot, so that a tablet of any size
// arrives in little memory.
type spooler struct {
	fs   vfs.FS
	dir  string
	next atomic.Uint64
}

func openSpooler(fs vfs.FS, data string) (*spooler, error) {
	s := &spooler{fs: fs, dir: fs.PathJoin(data, incomingDir)}
	if err := fs.RemoveAll(s.dir); err != nil && !isMissing(err) {
		return nil, fmt.Errorf("remove what earlier snapshots left: %w", err)
	}
	return s, fs.MkdirAll(s.dir, 0o755)
}

// open begins one spool.
func (s *spooler) open() (multiraft.Spool, error) {
	path := s.fs.PathJoin(s.dir, fmt.Sprintf("%06d", s.next.Add(1)))
	f, err := s.fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	return &fileSpool{fs: s.fs, path: path, out: f}, nil
}

// fileSpool is one snapshot in a file: written once, then read, then removed. It
// needs no sync: a crash begins the snapshot anew.
type fileSpool struct {
	fs   vfs.FS
	path string
	out  vfs.File // while it is written
	in   vfs.File // while it is read
}

// Write adds to the spool.
func (s *fileSpool) Write(b []byte) (int, error) { return s.out.Write(b) }

// Reader ends the writing and reads from the start.
func (s *fileSpool) Reader() (io.Reader, error) {
	if s.out != nil {
		err := s.out.Close()
		s.out = nil
		if err != nil {
			return nil, err
		}
	}
	if s.in != nil { // a second try reads from the start again
		if err := s.in.Close(); err != nil {
			return nil, err
		}
	}
	var err error
	s.in, err = s.fs.Open(s.path)
	return s.in, err
}

// Close removes the file.
func (s *fileSpool) Close() error {
	var errs []error
	for _, f := range []vfs.File{s.out, s.in} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	s.out, s.in = nil, nil
	return errors.Join(append(errs, s.fs.Remove(s.path))...)
}
