package node

import (
	"cmp"
	"fmt"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/braiddb/braid/internal/catalog"
)

// registryFile lists the replicas of this node.
const registryFile = "REPLICAS"

// registry is the durable list of the replicas that this node holds, in order
// of group. A replica joins it before anything of it exists and leaves it after
// everything of it is gone, so that a crash in between is always finished later.
type registry struct {
	fs  vfs.FS
	dir string

	mu struct {
		sync.Mutex
		list *Replicas // replaced as a whole; replicas by group, at most one per group
	}
}

func openRegistry(fs vfs.FS, dir string) (*registry, error) {
	r := &registry{fs: fs, dir: dir}
	r.mu.list = new(Replicas)
	data, err := readDurable(fs, dir, registryFile)
	if isMissing(err) {
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	if err := r.mu.list.UnmarshalVT(data); err != nil {
		return nil, fmt.Errorf("%s: %w (%v)", fs.PathJoin(dir, registryFile), ErrDamaged, err)
	}
	return r, nil
}

// all gives the replicas and the marks of dropped ones. They are not to be changed.
func (r *registry) all() ([]*Replica, []*Dropped) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.list.Replicas, r.mu.list.Dropped
}

// put adds a replica, or replaces what is kept of its group.
func (r *registry) put(rep *Replica) error {
	return r.change(func(next *Replicas) {
		next.Replicas = slices.DeleteFunc(next.Replicas, func(o *Replica) bool { return o.Group == rep.Group })
		next.Replicas = append(next.Replicas, rep)
		slices.SortFunc(next.Replicas, func(a, b *Replica) int { return cmp.Compare(a.Group, b.Group) })
	})
}

// drop forgets a replica and remembers that it was here.
func (r *registry) drop(group catalog.GroupID, replica catalog.ReplicaID) error {
	return r.change(func(next *Replicas) {
		next.Replicas = slices.DeleteFunc(next.Replicas, func(o *Replica) bool {
			return o.Group == uint64(group) && o.Replica == uint64(replica)
		})
		next.Dropped = slices.DeleteFunc(next.Dropped, func(d *Dropped) bool { return d.Group == uint64(group) })
		next.Dropped = append(next.Dropped, &Dropped{Group: uint64(group), Replica: uint64(replica)})
	})
}

// forget takes away the mark of a group that is gone for ever.
func (r *registry) forget(group catalog.GroupID) error {
	return r.change(func(next *Replicas) {
		next.Dropped = slices.DeleteFunc(next.Dropped, func(d *Dropped) bool { return d.Group == uint64(group) })
	})
}

func (r *registry) change(f func(next *Replicas)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := &Replicas{Replicas: slices.Clone(r.mu.list.Replicas), Dropped: slices.Clone(r.mu.list.Dropped)}
	f(next)
	data, err := next.MarshalVT()
	if err != nil {
		return err
	}
	if err := writeDurably(r.fs, r.dir, registryFile, data); err != nil {
		return err
	}
	r.mu.list = next
	return nil
}
