package simfs

import (
	"maps"
	"slices"
)

// SectorBytes is what the disk writes whole, tearing aside.
const SectorBytes = 512

// inode is a file or a directory.
type inode struct {
	dir   bool
	links int

	// Of a file: what is read, and for each sector that is not durable what the
	// disk holds instead.
	data    []byte
	stale   map[int64]*sector
	synced  int64 // the durable size
	changed uint64

	// Of a directory: the names as they are seen and as they are durable.
	names   map[string]*inode
	durable map[string]*inode
}

// sector is what a sector's place on the disk holds while data holds more.
type sector struct {
	disk [SectorBytes]byte
	lost bool // the kernel believes that it was written
}

func newFile() *inode { return &inode{stale: map[int64]*sector{}} }

func newDir() *inode {
	return &inode{dir: true, names: map[string]*inode{}, durable: map[string]*inode{}}
}

// sectorsOf gives the first and the last sector of a range.
func sectorsOf(off int64, n int) (first, last int64) {
	return off / SectorBytes, (off + int64(n) - 1) / SectorBytes
}

// write changes what is read. lost says that the disk will never hold it.
func (n *inode) write(p []byte, off int64, lost bool) {
	if len(p) == 0 {
		return
	}
	if grow := off + int64(len(p)) - int64(len(n.data)); grow > 0 {
		n.data = append(n.data, make([]byte, grow)...)
	}
	first, last := sectorsOf(off, len(p))
	for i := first; i <= last; i++ {
		s := n.stale[i]
		if s == nil {
			s = &sector{}
			if at := i * SectorBytes; at < n.synced {
				copy(s.disk[:], n.data[at:min(at+SectorBytes, n.synced)])
			}
			n.stale[i] = s
		}
		s.lost = lost
	}
	copy(n.data[off:], p)
}

// sync makes durable what the kernel still knows to be dirty.
func (n *inode) sync() {
	for i, s := range n.stale {
		if !s.lost {
			delete(n.stale, i)
		}
	}
	n.synced = int64(len(n.data))
}

// syncFailed is a sync that reports an error: every sector is called clean, and
// those that the dice do not keep are gone (F3).
func (n *inode) syncFailed(keep func(sector int64) bool) {
	for i, s := range n.stale {
		if s.lost || !keep(i) {
			s.lost = true
			continue
		}
		delete(n.stale, i)
	}
	n.synced = int64(len(n.data))
}

// alter changes the disk itself, beneath what anybody believes (F5), and with it
// what is read: whoever read the sector again would see that. to maps the k-th
// byte to its new value. Bytes beyond the end are nobody's.
func (n *inode) alter(off int64, bytes int, to func(k int, b byte) byte) {
	for k := range bytes {
		at := off + int64(k)
		if at >= int64(len(n.data)) {
			return
		}
		n.data[at] = to(k, n.data[at])
		if s := n.stale[at/SectorBytes]; s != nil {
			s.disk[at%SectorBytes] = to(k, s.disk[at%SectorBytes])
		}
	}
}

// fate is what becomes of a sector that was not durable.
type fate struct {
	keep bool
	tear int // bytes of the new content before the old goes on, 0: not torn
}

// survive gives the file as it is after a power loss.
func (n *inode) survive(grown bool, of func(sector int64) fate) *inode {
	out := newFile()
	size := n.synced
	if grown {
		size = int64(len(n.data))
	}
	out.data = make([]byte, size)
	copy(out.data, n.data)
	for _, i := range slices.Sorted(maps.Keys(n.stale)) {
		s, at := n.stale[i], i*SectorBytes
		if at >= size {
			continue
		}
		f := fate{}
		if !s.lost {
			f = of(i)
		}
		part := out.data[at:min(at+SectorBytes, size)]
		switch {
		case f.keep:
		case f.tear > 0:
			copy(part[min(f.tear, len(part)):], s.disk[min(f.tear, len(part)):])
		default:
			copy(part, s.disk[:])
		}
	}
	out.synced, out.changed = size, n.changed
	return out
}
