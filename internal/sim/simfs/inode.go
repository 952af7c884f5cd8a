package simfs

import (
	"math/bits"
	"slices"
)

// inode is a file or a directory.
type inode struct {
	dir   bool
	links int

	// Of a file: its content by chunks, its size as it is read and as it is durable.
	chunks  []*chunk // nil: zeros
	unclean []int64  // chunks with sectors that are not durable
	size    int64
	synced  int64
	changed uint64

	// Of a directory: the names as they are seen and as they are durable.
	names   map[string]*inode
	durable map[string]*inode
}

func newFile() *inode { return &inode{} }

func newDir() *inode {
	return &inode{dir: true, names: map[string]*inode{}, durable: map[string]*inode{}}
}

// write changes what is read. lost says that the disk will never hold it.
func (n *inode) write(p []byte, off int64, lost bool) {
	n.size = max(n.size, off+int64(len(p)))
	for len(p) > 0 {
		i := off / chunkBytes
		c := n.chunk(i)
		at := int(off % chunkBytes)
		k := min(len(p), chunkBytes-at)
		if !c.listed {
			c.listed = true
			n.unclean = append(n.unclean, i)
		}
		c.write(p[:k], at, lost)
		p, off = p[k:], off+int64(k)
	}
}

// chunk gives a chunk, making it if need be.
func (n *inode) chunk(i int64) *chunk {
	for int64(len(n.chunks)) <= i {
		n.chunks = append(n.chunks, nil)
	}
	if n.chunks[i] == nil {
		n.chunks[i] = &chunk{}
	}
	return n.chunks[i]
}

// read copies what is read at off into p, up to the end.
func (n *inode) read(p []byte, off int64) int {
	p = p[:max(0, min(int64(len(p)), n.size-off))]
	for done := 0; done < len(p); {
		i, at := (off+int64(done))/chunkBytes, int((off+int64(done))%chunkBytes)
		k := min(len(p)-done, chunkBytes-at)
		if i < int64(len(n.chunks)) && n.chunks[i] != nil && n.chunks[i].data != nil {
			copy(p[done:done+k], n.chunks[i].data[at:])
		} else {
			clear(p[done : done+k])
		}
		done += k
	}
	return len(p)
}

// content is all that is read.
func (n *inode) content() []byte {
	p := make([]byte, n.size)
	n.read(p, 0)
	return p
}

// flight is a sync under way: the sectors that were not durable when it began.
type flight struct{ size int64 }

// beginSync takes off with all that the kernel knows to be dirty.
func (n *inode) beginSync() flight {
	for _, i := range n.unclean {
		n.chunks[i].takeOff()
	}
	return flight{n.size}
}

// endSync makes durable what was in flight.
func (n *inode) endSync(f flight) { n.land(f, func(int64) bool { return true }) }

// failSync is a sync that reports an error: every sector is called clean, and
// those that the dice do not keep are gone (F3).
func (n *inode) failSync(f flight, keep func(sector int64) bool) { n.land(f, keep) }

func (n *inode) land(f flight, keep func(sector int64) bool) {
	slices.Sort(n.unclean)
	rest := n.unclean[:0]
	for _, i := range n.unclean {
		c := n.chunks[i]
		c.land(func(s int) bool { return keep(i*chunkSectors + int64(s)) })
		if c.listed = !c.dirty.empty(); c.listed {
			rest = append(rest, i)
		}
	}
	n.unclean = rest
	n.synced = max(n.synced, f.size)
}

// alter changes the disk itself, beneath what anybody believes (F5), and with it
// what is read: whoever read the sector again would see that. to maps the k-th
// byte to its new value. Bytes beyond the end are nobody's.
func (n *inode) alter(off int64, bytes int, to func(k int, b byte) byte) {
	for k := range bytes {
		at := off + int64(k)
		if at >= n.size {
			return
		}
		n.chunk(at/chunkBytes).alter(int(at%chunkBytes), func(b byte) byte { return to(k, b) })
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
	out.size, out.changed = n.synced, n.changed
	if grown {
		out.size = n.size
	}
	out.synced = out.size
	count := min(int64(len(n.chunks)), (out.size+chunkBytes-1)/chunkBytes)
	for i := range count {
		c := n.chunks[i]
		if c == nil {
			out.chunks = append(out.chunks, nil)
			continue
		}
		out.chunks = append(out.chunks, c.survive(func(s int) fate { return of(i*chunkSectors + int64(s)) }))
	}
	if tail := out.size % chunkBytes; tail > 0 && count > 0 && count*chunkBytes > out.size {
		if c := out.chunks[count-1]; c != nil && c.data != nil {
			clear(c.data[tail:])
		}
	}
	return out
}

// clone is an equal, independent file without links.
func (n *inode) clone() *inode {
	out := &inode{dir: n.dir, links: n.links, unclean: slices.Clone(n.unclean), size: n.size, synced: n.synced, changed: n.changed}
	for _, c := range n.chunks {
		out.chunks = append(out.chunks, c.clone())
	}
	return out
}

// sectors is a set of a chunk's sectors.
type sectors [chunkSectors / 64]uint64

func (s *sectors) has(i int) bool { return s[i/64]&(1<<(i%64)) != 0 }
func (s *sectors) add(i int)      { s[i/64] |= 1 << (i % 64) }
func (s *sectors) remove(i int)   { s[i/64] &^= 1 << (i % 64) }
func (s *sectors) empty() bool    { return *s == sectors{} }

// each calls f for every member, in order.
func (s *sectors) each(f func(i int)) {
	for w, set := range s {
		for ; set != 0; set &= set - 1 {
			f(w*64 + bits.TrailingZeros64(set))
		}
	}
}
