package simfs

import (
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Options of a file system.
type Options struct {
	Seed uint64
	// Fault is asked before every operation that changes something; Reads before
	// the others, if it is set. They run under the file system's lock and must
	// not call it.
	Fault func(Op) Fault
	Reads func(Op) Fault
	// Latency is how long a read, a write or a sync takes, if it is set. Others go on
	// meanwhile: it is asked, and waited, without the file system's lock.
	Latency func(Op) time.Duration
	// Capacity in bytes [1 TiB].
	Capacity int64
}

// FS is a simulated file system, safe for concurrent use.
type FS struct {
	mu      sync.Mutex
	o       Options
	root    *inode
	pending []change // of names, in order, not durable yet
	ops     uint64
	opsOf   map[string]uint64
	locks   map[string]bool
	used    int64
	down    bool
	lives   uint64
}

var _ vfs.FS = (*FS)(nil)

// change is a change of names that happens as a whole or not at all.
type change []edit

// edit binds a name in a directory to an inode, or to nothing.
type edit struct {
	dir  *inode
	name string
	to   *inode
}

// New makes an empty file system.
func New(o Options) *FS {
	if o.Capacity == 0 {
		o.Capacity = 1 << 40
	}
	return &FS{o: o, root: newDir(), opsOf: map[string]uint64{}, locks: map[string]bool{}}
}

// clean gives a path its one spelling: no leading slash, "" is the root.
func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

func pathError(op, name string, err error) error {
	return &os.PathError{Op: op, Path: name, Err: err}
}

// find walks to a path.
func (y *FS) find(name string) (*inode, bool) {
	n := y.root
	name = clean(name)
	for name != "" {
		var part string
		part, name, _ = strings.Cut(name, "/")
		if n = n.names[part]; n == nil {
			return nil, false
		}
	}
	return n, true
}

// parent gives the directory a path is in, and its name there.
func (y *FS) parent(op, name string) (*inode, string, error) {
	name = clean(name)
	dir, base := path.Split(name)
	d, ok := y.find(dir)
	switch {
	case !ok:
		return nil, "", pathError(op, name, os.ErrNotExist)
	case !d.dir:
		return nil, "", pathError(op, name, syscall.ENOTDIR)
	case base == "":
		return nil, "", pathError(op, name, os.ErrInvalid)
	}
	return d, base, nil
}

// change applies edits to the names that are seen and keeps them for the next
// sync of one of their directories.
func (y *FS) change(c change) {
	for _, e := range c {
		if old := e.dir.names[e.name]; old != nil && old != e.to {
			old.links--
			if old.links == 0 {
				y.used -= old.size
			}
		}
		if e.to == nil {
			delete(e.dir.names, e.name)
		} else if e.dir.names[e.name] != e.to {
			e.dir.names[e.name] = e.to
			e.to.links++
			if e.to.links == 1 {
				y.used += e.to.size
			}
		}
	}
	y.pending = append(y.pending, c)
}

// persist makes a change durable.
func (c change) persist() {
	for _, e := range c {
		if e.to == nil {
			delete(e.dir.durable, e.name)
		} else {
			e.dir.durable[e.name] = e.to
		}
	}
}

// bound is what a change depends on, so that changes of the same name or of the
// same inode become durable in their order: a second rename of a file cannot be
// without the first.
type bound struct {
	names  map[edit]bool // without the inode
	inodes map[*inode]bool
}

func newBound() bound { return bound{map[edit]bool{}, map[*inode]bool{}} }

func (b bound) add(c change) {
	for _, e := range c {
		b.names[edit{e.dir, e.name, nil}] = true
		if e.to != nil {
			b.inodes[e.to] = true
		}
	}
}

func (b bound) touches(c change) bool {
	return slices.ContainsFunc(c, func(e edit) bool {
		return b.names[edit{e.dir, e.name, nil}] || e.to != nil && b.inodes[e.to]
	})
}

// beginSyncDir finds the changes that touch a directory, and those before them
// that they depend on.
func (y *FS) beginSyncDir(d *inode) map[*edit]bool {
	needed, found := newBound(), map[*edit]bool{}
	for i := len(y.pending) - 1; i >= 0; i-- {
		c := y.pending[i]
		if needed.touches(c) || slices.ContainsFunc(c, func(e edit) bool { return e.dir == d }) {
			found[&c[0]] = true
			needed.add(c)
		}
	}
	return found
}

// endSyncDir makes them durable, those that no other sync has.
func (y *FS) endSyncDir(found map[*edit]bool) {
	rest := y.pending[:0]
	for _, c := range y.pending {
		if found[&c[0]] {
			c.persist()
		} else {
			rest = append(rest, c)
		}
	}
	clear(y.pending[len(rest):])
	y.pending = rest
}

// Create implements vfs.FS.
func (y *FS) Create(name string, _ vfs.DiskWriteCategory) (vfs.File, error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.create(name)
}

func (y *FS) create(name string) (vfs.File, error) {
	name = clean(name)
	f, err := y.step(OpCreate, name, 0, 0)
	if err != nil {
		return nil, err
	}
	d, base, err := y.parent("create", name)
	if err != nil {
		return nil, err
	}
	if old := d.names[base]; old != nil && old.dir {
		return nil, pathError("create", name, syscall.EISDIR)
	}
	n := newFile()
	y.change(change{{d, base, n}})
	return &file{fs: y, n: n, path: name, write: true}, y.done(f)
}

// Link implements vfs.FS.
func (y *FS) Link(oldname, newname string) error {
	y.mu.Lock()
	defer y.mu.Unlock()
	f, err := y.step(OpLink, clean(newname), 0, 0)
	if err != nil {
		return err
	}
	n, ok := y.find(oldname)
	if !ok {
		return &os.LinkError{Op: "link", Old: oldname, New: newname, Err: os.ErrNotExist}
	}
	d, base, err := y.parent("link", newname)
	if err != nil {
		return err
	}
	if d.names[base] != nil {
		return &os.LinkError{Op: "link", Old: oldname, New: newname, Err: os.ErrExist}
	}
	y.change(change{{d, base, n}})
	return y.done(f)
}

// Open implements vfs.FS.
func (y *FS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	return y.open(name, false, opts)
}

// OpenReadWrite implements vfs.FS.
func (y *FS) OpenReadWrite(name string, _ vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return y.open(name, true, opts)
}

// OpenDir implements vfs.FS.
func (y *FS) OpenDir(name string) (vfs.File, error) { return y.open(name, false, nil) }

func (y *FS) open(name string, write bool, opts []vfs.OpenOption) (vfs.File, error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if _, err := y.step(OpOpen, clean(name), 0, 0); err != nil {
		return nil, err
	}
	n, ok := y.find(name)
	if !ok && write {
		return y.create(name)
	}
	if !ok {
		return nil, pathError("open", name, os.ErrNotExist)
	}
	f := &file{fs: y, n: n, path: clean(name), write: write && !n.dir}
	for _, o := range opts {
		o.Apply(f)
	}
	return f, nil
}

// Remove implements vfs.FS.
func (y *FS) Remove(name string) error {
	y.mu.Lock()
	defer y.mu.Unlock()
	f, err := y.step(OpRemove, clean(name), 0, 0)
	if err != nil {
		return err
	}
	d, base, err := y.parent("remove", name)
	if err != nil {
		return err
	}
	switch n := d.names[base]; {
	case n == nil:
		return pathError("remove", name, os.ErrNotExist)
	case len(n.names) > 0:
		return pathError("remove", name, syscall.ENOTEMPTY)
	}
	y.change(change{{d, base, nil}})
	return y.done(f)
}

// RemoveAll implements vfs.FS.
func (y *FS) RemoveAll(name string) error {
	y.mu.Lock()
	defer y.mu.Unlock()
	f, err := y.step(OpRemove, clean(name), 0, 0)
	if err != nil {
		return err
	}
	d, base, err := y.parent("remove", name)
	if err != nil || d.names[base] == nil {
		return y.done(f)
	}
	y.removeTree(d, base)
	return y.done(f)
}

func (y *FS) removeTree(d *inode, base string) {
	n := d.names[base]
	for _, name := range slices.Sorted(maps.Keys(n.names)) {
		y.removeTree(n, name)
	}
	y.change(change{{d, base, nil}})
}

// Rename implements vfs.FS.
func (y *FS) Rename(oldname, newname string) error {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.rename(oldname, newname)
}

func (y *FS) rename(oldname, newname string) error {
	f, err := y.step(OpRename, clean(newname), 0, 0)
	if err != nil {
		return err
	}
	from, base, err := y.parent("rename", oldname)
	if err != nil {
		return err
	}
	n := from.names[base]
	if n == nil {
		return &os.LinkError{Op: "rename", Old: oldname, New: newname, Err: os.ErrNotExist}
	}
	to, newBase, err := y.parent("rename", newname)
	if err != nil {
		return err
	}
	if to.names[newBase] != n {
		y.change(change{{to, newBase, n}, {from, base, nil}})
	}
	return y.done(f)
}

// ReuseForWrite implements vfs.FS.
func (y *FS) ReuseForWrite(oldname, newname string, _ vfs.DiskWriteCategory) (vfs.File, error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if err := y.rename(oldname, newname); err != nil {
		return nil, err
	}
	n, ok := y.find(newname)
	if !ok {
		return nil, pathError("open", newname, os.ErrNotExist)
	}
	return &file{fs: y, n: n, path: clean(newname), write: true}, nil
}

// MkdirAll implements vfs.FS.
func (y *FS) MkdirAll(dir string, _ os.FileMode) error {
	y.mu.Lock()
	defer y.mu.Unlock()
	f, err := y.step(OpMkdir, clean(dir), 0, 0)
	if err != nil {
		return err
	}
	n := y.root
	for rest := clean(dir); rest != ""; {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		child := n.names[part]
		if child == nil {
			child = newDir()
			y.change(change{{n, part, child}})
		}
		if !child.dir {
			return pathError("mkdir", dir, syscall.ENOTDIR)
		}
		n = child
	}
	return y.done(f)
}

// lock is what Lock gives.
type lock struct {
	fs   *FS
	name string
	once sync.Once
}

// Lock implements vfs.FS. A crash or a kill frees it.
func (y *FS) Lock(name string) (io.Closer, error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	name = clean(name)
	if y.locks[name] {
		return nil, pathError("lock", name, syscall.EAGAIN)
	}
	if _, ok := y.find(name); !ok {
		if _, err := y.create(name); err != nil {
			return nil, err
		}
	}
	if y.down {
		return nil, ErrCrashed
	}
	y.locks[name] = true
	return &lock{fs: y, name: name}, nil
}

func (l *lock) Close() error {
	l.once.Do(func() {
		l.fs.mu.Lock()
		defer l.fs.mu.Unlock()
		delete(l.fs.locks, l.name)
	})
	return nil
}

// List implements vfs.FS; names are sorted.
func (y *FS) List(dir string) ([]string, error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if _, err := y.step(OpList, clean(dir), 0, 0); err != nil {
		return nil, err
	}
	n, ok := y.find(dir)
	if !ok {
		return nil, pathError("list", dir, os.ErrNotExist)
	}
	if !n.dir {
		return nil, pathError("list", dir, syscall.ENOTDIR)
	}
	return slices.Sorted(maps.Keys(n.names)), nil
}

// Stat implements vfs.FS.
func (y *FS) Stat(name string) (vfs.FileInfo, error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.down {
		return nil, ErrCrashed
	}
	n, ok := y.find(name)
	if !ok {
		return nil, pathError("stat", name, fs.ErrNotExist)
	}
	return y.info(n, name), nil
}

// PathBase implements vfs.FS.
func (y *FS) PathBase(p string) string { return path.Base(p) }

// PathJoin implements vfs.FS.
func (y *FS) PathJoin(elem ...string) string { return path.Join(elem...) }

// PathDir implements vfs.FS.
func (y *FS) PathDir(p string) string { return path.Dir(p) }

// GetDiskUsage implements vfs.FS.
func (y *FS) GetDiskUsage(string) (vfs.DiskUsage, error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if y.down {
		return vfs.DiskUsage{}, ErrCrashed
	}
	return vfs.DiskUsage{
		AvailBytes: uint64(max(0, y.o.Capacity-y.used)),
		TotalBytes: uint64(y.o.Capacity),
		UsedBytes:  uint64(y.used),
	}, nil
}

// Unwrap implements vfs.FS.
func (y *FS) Unwrap() vfs.FS { return nil }
