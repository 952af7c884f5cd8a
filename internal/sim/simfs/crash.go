package simfs

import (
	"maps"
	"os"
	"path"
	"slices"
)

// A Crash says how kind a power loss is to what was not durable, in percent.
type Crash struct {
	Sectors int    // of unsynced sectors survive
	Tear    int    // of those that do not survive are torn: new content before, old behind
	Names   int    // of unsynced changes of names survive
	Dice    uint64 // tells crashes at the same point apart
}

// Crash cuts the power: this file system is no more, and the one it gives is
// what the next life finds. Its counts of operations go on.
func (y *FS) Crash(c Crash) *FS {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.down = true
	gone := newBound()
	for i, ch := range y.pending {
		if Mix(y.o.Seed, "names", c.Dice, uint64(i))%100 < uint64(c.Names) && !gone.touches(ch) {
			ch.persist()
		} else {
			gone.add(ch)
		}
	}
	next := y.successor()
	next.root = next.survivors(y.root, "", c, map[*inode]*inode{})
	return next
}

// successor is an empty file system that goes on counting from this one.
func (y *FS) successor() *FS {
	next := New(y.o)
	next.ops, next.opsOf, next.lives = y.ops, maps.Clone(y.opsOf), y.lives+1
	return next
}

// survivors copies what is durable of a tree, links included.
func (y *FS) survivors(n *inode, at string, c Crash, seen map[*inode]*inode) *inode {
	if out := seen[n]; out != nil {
		out.links++
		return out
	}
	var out *inode
	if n.dir {
		out = newDir()
		for _, name := range slices.Sorted(maps.Keys(n.durable)) {
			child := y.survivors(n.durable[name], path.Join(at, name), c, seen)
			out.names[name], out.durable[name] = child, child
		}
	} else {
		dice := Mix(y.o.Seed, at, c.Dice, y.lives)
		out = n.survive(mix(dice)%100 < uint64(c.Sectors), func(s int64) fate {
			d := Mix(dice, "", uint64(s))
			switch {
			case d%100 < uint64(c.Sectors):
				return fate{keep: true}
			case d>>20%100 < uint64(c.Tear):
				return fate{tear: 1 + int(d>>40%(SectorBytes-1))}
			}
			return fate{}
		})
		y.used += out.size
	}
	out.links = 1
	seen[n] = out
	return out
}

// Kill ends the process and not the machine (F4): the file system it gives holds
// everything, synced or not. This one answers with ErrCrashed from now on.
func (y *FS) Kill() *FS {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.down = true
	next := y.successor()
	next.root, next.pending, next.used = y.root, y.pending, y.used
	return next
}

// Down reports whether the machine has stopped.
func (y *FS) Down() bool {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.down
}

// Ops counts the operations so far, those of earlier lives included.
func (y *FS) Ops() uint64 {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.ops
}

// SetFault replaces the hook of Options.
func (y *FS) SetFault(f func(Op) Fault) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.o.Fault = f
}

// SetReads replaces the hook for operations that change nothing.
func (y *FS) SetReads(f func(Op) Fault) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.o.Reads = f
}

// SetCapacity changes how much the disk holds.
func (y *FS) SetCapacity(bytes int64) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.o.Capacity = bytes
}

// Used is how many bytes the files hold.
func (y *FS) Used() int64 {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.used
}

// Files gives the paths of all files, sorted.
func (y *FS) Files() []string {
	y.mu.Lock()
	defer y.mu.Unlock()
	var out []string
	var walk func(n *inode, at string)
	walk = func(n *inode, at string) {
		for _, name := range slices.Sorted(maps.Keys(n.names)) {
			if child := n.names[name]; child.dir {
				walk(child, path.Join(at, name))
			} else {
				out = append(out, path.Join(at, name))
			}
		}
	}
	walk(y.root, "")
	return out
}

// Flip inverts one bit of a file, on the disk and in what is read.
func (y *FS) Flip(name string, bit int64) error {
	return y.alter(name, bit/8, 1, func(_ int, b byte) byte { return b ^ 1<<(bit%8) })
}

// Overwrite changes a file beneath what anybody believes, as a misdirected write
// of somebody else does. It does not make the file longer.
func (y *FS) Overwrite(name string, off int64, p []byte) error {
	return y.alter(name, off, len(p), func(k int, _ byte) byte { return p[k] })
}

func (y *FS) alter(name string, off int64, bytes int, to func(k int, b byte) byte) error {
	y.mu.Lock()
	defer y.mu.Unlock()
	n, ok := y.find(name)
	if !ok || n.dir {
		return pathError("alter", name, os.ErrNotExist)
	}
	if off < 0 || off >= n.size {
		return pathError("alter", name, os.ErrInvalid)
	}
	n.alter(off, bytes, to)
	return nil
}

// Read gives a file's content as it is read now.
func (y *FS) Read(name string) ([]byte, error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	n, ok := y.find(name)
	if !ok || n.dir {
		return nil, pathError("read", name, os.ErrNotExist)
	}
	return n.content(), nil
}

// Copy gives an equal, independent file system, so that one point can be
// damaged in many ways. What is not durable stays so; open files belong to this
// one.
func (y *FS) Copy() *FS {
	y.mu.Lock()
	defer y.mu.Unlock()
	next := y.successor()
	next.lives = y.lives
	seen := map[*inode]*inode{}
	next.root = copyTree(y.root, seen)
	for _, c := range y.pending {
		d := make(change, len(c))
		for i, e := range c {
			d[i] = edit{copyTree(e.dir, seen), e.name, copyTree(e.to, seen)}
		}
		next.pending = append(next.pending, d)
	}
	next.used = y.used
	return next
}

func copyTree(n *inode, seen map[*inode]*inode) *inode {
	if n == nil || seen[n] != nil {
		return seen[n]
	}
	out := n.clone()
	seen[n] = out
	if n.dir {
		out.names, out.durable = map[string]*inode{}, map[string]*inode{}
		for name, child := range n.names {
			out.names[name] = copyTree(child, seen)
		}
		for name, child := range n.durable {
			out.durable[name] = copyTree(child, seen)
		}
	}
	return out
}
