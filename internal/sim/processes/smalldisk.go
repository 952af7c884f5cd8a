package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// smallBytes is the size of a small disk: what a node keeps free, its journal, and
// room for what a round writes.
const smallBytes = 640 << 20

// smallDisk is a file system of its own for one node's directory.
type smallDisk struct {
	dir     string
	ballast string
}

func mountSmall(dir string) (*smallDisk, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprint("size=", smallBytes)); err != nil {
		return nil, fmt.Errorf("mount a small disk: %w", err)
	}
	return &smallDisk{dir: dir, ballast: filepath.Join(dir, "ballast")}, nil
}

// fill takes space until so much is left.
func (s *smallDisk) fill(left int64) error {
	var st syscall.Statfs_t
	if err := syscall.Statfs(s.dir, &st); err != nil {
		return err
	}
	free := int64(st.Bavail) * st.Bsize
	if free <= left {
		return nil
	}
	f, err := os.OpenFile(s.ballast, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		err = syscall.Fallocate(int(f.Fd()), 0, info.Size(), free-left)
	}
	if errors.Is(err, syscall.ENOSPC) { // the node was faster: it is full
		err = nil
	}
	return errors.Join(err, f.Close())
}

// drain gives the space back.
func (s *smallDisk) drain() { os.Remove(s.ballast) }

// unmount ends the disk; with keep its files are copied to where it was.
func (s *smallDisk) unmount(keep bool) {
	s.drain()
	kept := s.dir + ".kept"
	if keep {
		if err := os.CopyFS(kept, os.DirFS(s.dir)); err != nil {
			fmt.Fprintln(os.Stderr, "keep the small disk:", err)
		}
	}
	if err := syscall.Unmount(s.dir, syscall.MNT_DETACH); err != nil {
		fmt.Fprintln(os.Stderr, "unmount the small disk:", err)
	}
	if keep {
		os.Remove(s.dir)
		os.Rename(kept, s.dir)
	}
}
