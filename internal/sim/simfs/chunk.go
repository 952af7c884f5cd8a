package simfs

import (
	"bytes"
	"slices"
)

// SectorBytes is what the disk writes whole, tearing aside.
const SectorBytes = 512

const (
	chunkSectors = 128
	chunkBytes   = chunkSectors * SectorBytes
)

var zeroChunk [chunkBytes]byte

// chunk is a piece of a file: what is read of it, and for the sectors that are not
// durable what the disk holds instead. Zeros need no memory.
type chunk struct {
	data   []byte // nil: zeros
	disk   []byte // of dirty sectors; nil: zeros
	dirty  sectors
	lost   sectors // of the dirty ones: the kernel believes that they were written
	flying sectors // of the dirty ones: a sync that is under way will have written them
	listed bool    // in unclean
}

// write changes what is read.
func (c *chunk) write(p []byte, at int, lost bool) {
	for i := at / SectorBytes; i <= (at+len(p)-1)/SectorBytes; i++ {
		switch {
		case c.flying.has(i): // what the sync took is what the disk will hold
			c.save(i)
			c.flying.remove(i)
		case !c.dirty.has(i):
			c.save(i)
			c.dirty.add(i)
		}
		c.lost.remove(i)
		if lost {
			c.lost.add(i)
		}
	}
	if c.data == nil {
		if bytes.Equal(p, zeroChunk[:len(p)]) {
			return
		}
		c.data = make([]byte, chunkBytes)
	}
	copy(c.data[at:], p)
}

// save notes that the disk holds what is read of a sector now.
func (c *chunk) save(i int) {
	from, to := i*SectorBytes, (i+1)*SectorBytes
	switch {
	case c.data == nil && c.disk == nil:
	case c.data == nil:
		clear(c.disk[from:to])
	default:
		if c.disk == nil {
			if bytes.Equal(c.data[from:to], zeroChunk[:SectorBytes]) {
				return
			}
			c.disk = make([]byte, chunkBytes)
		}
		copy(c.disk[from:to], c.data[from:to])
	}
}

// takeOff begins a sync.
func (c *chunk) takeOff() {
	for w := range c.dirty {
		c.flying[w] |= c.dirty[w] &^ c.lost[w]
	}
}

// land ends a sync: what flew is durable if keep says so, and lost if not.
func (c *chunk) land(keep func(s int) bool) {
	c.flying.each(func(i int) {
		if keep(i) {
			c.dirty.remove(i)
		} else {
			c.lost.add(i)
		}
	})
	c.flying = sectors{}
	if c.dirty.empty() {
		c.disk = nil
	}
}

// alter changes one byte on the disk and of what is read.
func (c *chunk) alter(at int, to func(b byte) byte) {
	if c.data == nil {
		c.data = make([]byte, chunkBytes)
	}
	c.data[at] = to(c.data[at])
	if c.dirty.has(at / SectorBytes) {
		if c.disk == nil {
			c.disk = make([]byte, chunkBytes)
		}
		c.disk[at] = to(c.disk[at])
	}
}

// survive gives the chunk as it is after a power loss.
func (c *chunk) survive(of func(s int) fate) *chunk {
	out := &chunk{data: slices.Clone(c.data)}
	c.dirty.each(func(i int) {
		f := fate{}
		if !c.lost.has(i) {
			f = of(i)
		}
		if f.keep {
			return
		}
		from, to := i*SectorBytes+min(f.tear, SectorBytes), (i+1)*SectorBytes
		switch {
		case out.data == nil && c.disk == nil:
		case c.disk == nil:
			clear(out.data[from:to])
		default:
			if out.data == nil {
				out.data = make([]byte, chunkBytes)
			}
			copy(out.data[from:to], c.disk[from:to])
		}
	})
	return out
}

func (c *chunk) clone() *chunk {
	if c == nil {
		return nil
	}
	out := *c
	out.data, out.disk = slices.Clone(c.data), slices.Clone(c.disk)
	out.flying = sectors{} // a sync that is under way belongs to the other
	return &out
}
