package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// A SmallDisk is a file system of its own, in memory, for one node's directory.
type SmallDisk struct {
	dir     string
	ballast string
}

// MountSmall makes a disk of a size at a directory. It takes the right to mount.
func MountSmall(dir string, bytes int64) (*SmallDisk, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprint("size=", bytes)); err != nil {
		return nil, fmt.Errorf("mount a small disk: %w", err)
	}
	return &SmallDisk{dir: dir, ballast: filepath.Join(dir, "ballast")}, nil
}

// Fill takes space until so much is left.
func (s *SmallDisk) Fill(left int64) error {
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

// Drain gives the space back.
func (s *SmallDisk) Drain() { os.Remove(s.ballast) }

// Unmount ends the disk; with keep its files are copied to where it was.
func (s *SmallDisk) Unmount(keep bool) {
	s.Drain()
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
