package multiraft

import (
	"fmt"
	"io"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// DirSpools keeps incoming snapshots in files of a directory of their own. What
// an earlier life left there is removed. The files are never synced: a snapshot
// that did not become part of a state machine is asked for again.
func DirSpools(fs vfs.FS, dir string) (func() (Spool, error), error) {
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	old, err := fs.List(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range old {
		if err := fs.Remove(fs.PathJoin(dir, name)); err != nil {
			return nil, err
		}
	}
	var next atomic.Uint64
	return func() (Spool, error) {
		path := fs.PathJoin(dir, fmt.Sprintf("snapshot-%d", next.Add(1)))
		f, err := fs.Create(path, "multiraft-snapshot")
		if err != nil {
			return nil, err
		}
		return &fileSpool{fs: fs, path: path, out: f}, nil
	}, nil
}

// fileSpool is one incoming snapshot in a file.
type fileSpool struct {
	fs   vfs.FS
	path string
	out  vfs.File // nil once reading began
	in   vfs.File
}

func (s *fileSpool) Write(b []byte) (int, error) { return s.out.Write(b) }

// Reader may be called again: it starts from the beginning.
func (s *fileSpool) Reader() (io.Reader, error) {
	if s.out != nil {
		if err := s.out.Close(); err != nil {
			return nil, err
		}
		s.out = nil
	}
	if s.in != nil {
		if err := s.in.Close(); err != nil {
			return nil, err
		}
		s.in = nil
	}
	in, err := s.fs.Open(s.path)
	if err != nil {
		return nil, err
	}
	s.in = in
	return in, nil
}

func (s *fileSpool) Close() error {
	for _, f := range []vfs.File{s.out, s.in} {
		if f != nil {
			if err := f.Close(); err != nil {
				return err
			}
		}
	}
	s.out, s.in = nil, nil
	return s.fs.Remove(s.path)
}
