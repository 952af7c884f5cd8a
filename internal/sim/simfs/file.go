package simfs

import (
	"io"
	"os"
	"path"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// file is an open file or directory.
type file struct {
	fs     *FS
	n      *inode
	path   string
	at     int64
	write  bool
	closed bool
}

var _ vfs.File = (*file)(nil)

// usable says why an operation cannot be. The file system is locked.
func (f *file) usable(op string, writes bool) error {
	switch {
	case f.closed:
		return pathError(op, f.path, os.ErrClosed)
	case f.fs.down:
		return ErrCrashed
	case f.n.dir:
		return pathError(op, f.path, syscall.EISDIR)
	case writes && !f.write:
		return pathError(op, f.path, syscall.EBADF)
	}
	return nil
}

// Close implements vfs.File.
func (f *file) Close() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return pathError("close", f.path, os.ErrClosed)
	}
	f.closed = true
	return nil
}

// Read implements vfs.File.
func (f *file) Read(p []byte) (int, error) {
	f.fs.wait(OpRead, f.path, -1, len(p))
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	n, err := f.read(p, f.at)
	f.at += int64(n)
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}

// ReadAt implements vfs.File.
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	f.fs.wait(OpRead, f.path, off, len(p))
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return f.read(p, off)
}

func (f *file) read(p []byte, off int64) (int, error) {
	if err := f.usable("read", false); err != nil {
		return 0, err
	}
	if _, err := f.fs.step(OpRead, f.path, off, len(p)); err != nil {
		return 0, err
	}
	if off >= f.n.size {
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	n := f.n.read(p, off)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Write implements vfs.File.
func (f *file) Write(p []byte) (int, error) {
	f.fs.wait(OpWrite, f.path, -1, len(p))
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	n, err := f.put(p, f.at)
	f.at += int64(n)
	return n, err
}

// WriteAt implements vfs.File.
func (f *file) WriteAt(p []byte, off int64) (int, error) {
	f.fs.wait(OpWrite, f.path, off, len(p))
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return f.put(p, off)
}

func (f *file) put(p []byte, off int64) (int, error) {
	if err := f.usable("write", true); err != nil {
		return 0, err
	}
	y := f.fs
	fault, err := y.step(OpWrite, f.path, off, len(p))
	if err != nil {
		return 0, err
	}
	var full error
	if grow := off + int64(len(p)) - f.n.size; grow > 0 {
		if room := y.o.Capacity - y.used; grow > room {
			p = p[:max(0, int64(len(p))-(grow-max(0, room)))]
			full = pathError("write", f.path, ErrNoSpace)
		}
	}
	before := f.n.size
	f.n.write(p, off, fault.To != nil || fault.Lost)
	f.n.changed = y.ops
	if f.n.links > 0 {
		y.used += f.n.size - before
	}
	if fault.To != nil {
		if n, ok := y.find(fault.To.Path); ok && !n.dir {
			n.alter(fault.To.Offset, len(p), func(k int, _ byte) byte { return p[k] })
		}
	}
	if err := y.done(fault); err != nil {
		return 0, err
	}
	return len(p), full
}

// Preallocate implements vfs.File; it keeps the size, as fallocate does here.
func (f *file) Preallocate(_, _ int64) error { return nil }

// Sync implements vfs.File. What is written while it is under way is not covered.
func (f *file) Sync() error {
	y := f.fs
	y.mu.Lock()
	defer y.mu.Unlock()
	if f.closed {
		return pathError("sync", f.path, os.ErrClosed)
	}
	kind := OpSync
	if f.n.dir {
		kind = OpSyncDir
	}
	nth := y.opsOf[f.path]
	fault, err := y.step(kind, f.path, 0, 0)
	if err != nil {
		return err
	}
	flight, names := f.n.beginSync(), y.beginSyncDir(f.n)
	if y.o.Latency != nil {
		y.mu.Unlock()
		y.wait(kind, f.path, 0, 0)
		y.mu.Lock()
		if y.down {
			return ErrCrashed
		}
	}
	switch {
	case f.n.dir:
		y.endSyncDir(names)
	case fault.Err != nil:
		f.n.failSync(flight, func(s int64) bool { return Mix(y.o.Seed, f.path, nth, uint64(s))&1 == 0 })
		return pathError("sync", f.path, fault.Err)
	default:
		f.n.endSync(flight)
	}
	return y.done(fault)
}

// SyncData implements vfs.File. The size is durable after it, as after fdatasync.
func (f *file) SyncData() error { return f.Sync() }

// SyncTo implements vfs.File. It promises nothing and does nothing.
func (f *file) SyncTo(int64) (fullSync bool, err error) { return false, nil }

// Prefetch implements vfs.File.
func (f *file) Prefetch(_, _ int64) error { return nil }

// Fd implements vfs.File.
func (f *file) Fd() uintptr { return vfs.InvalidFd }

// Stat implements vfs.File.
func (f *file) Stat() (vfs.FileInfo, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return nil, pathError("stat", f.path, os.ErrClosed)
	}
	return f.fs.info(f.n, f.path), nil
}

// info is a file's FileInfo. Its time is the count of operations, in seconds.
type info struct {
	name string
	size int64
	dir  bool
	at   uint64
}

func (y *FS) info(n *inode, name string) vfs.FileInfo {
	return &info{path.Base(clean(name)), n.size, n.dir, n.changed}
}

func (i *info) Name() string       { return i.name }
func (i *info) Size() int64        { return i.size }
func (i *info) IsDir() bool        { return i.dir }
func (i *info) ModTime() time.Time { return time.Unix(int64(i.at), 0).UTC() }
func (i *info) Sys() any           { return nil }
func (i *info) Mode() os.FileMode {
	if i.dir {
		return os.ModeDir | 0o755
	}
	return 0o644
}
func (i *info) DeviceID() vfs.DeviceID { return vfs.DeviceID{} }
