package node

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/braiddb/braid/internal/catalog"
)

// addressFile keeps who the other nodes are and which of them are masters, so
// that a restarted node finds its peers before it has a catalog.
const addressFile = "NODES"

// addresses is the part of the catalog that this node needs in order to speak to
// anybody. Readers take no lock.
type addresses struct {
	fs  vfs.FS
	dir string

	known atomic.Pointer[known]
	write sync.Mutex
}

// known is one immutable version of the addresses.
type known struct {
	nodes   map[catalog.NodeID]*catalog.Node
	masters []*catalog.Replica
	source  *catalog.Catalog // nodes and masters only, as kept on disk
}

func openAddresses(fs vfs.FS, dir string) (*addresses, error) {
	a := &addresses{fs: fs, dir: dir}
	data, err := readDurable(fs, dir, addressFile)
	c := new(catalog.Catalog)
	switch {
	case isMissing(err):
	case err != nil:
		return nil, err
	default:
		if err := c.UnmarshalVT(data); err != nil {
			return nil, fmt.Errorf("%s: %w (%v)", fs.PathJoin(dir, addressFile), ErrDamaged, err)
		}
	}
	a.known.Store(newKnown(c))
	return a, nil
}

func newKnown(c *catalog.Catalog) *known {
	k := &known{nodes: map[catalog.NodeID]*catalog.Node{}, masters: c.MasterReplicas, source: c}
	for _, n := range c.Nodes {
		k.nodes[catalog.NodeID(n.Id)] = n
	}
	return k
}

// learn takes over nodes and masters from a newer catalog, and puts them on disk
// if they differ from what is there.
func (a *addresses) learn(c *catalog.Catalog) error {
	a.write.Lock()
	defer a.write.Unlock()
	part := &catalog.Catalog{ClusterId: c.ClusterId, Nodes: c.Nodes, MasterReplicas: c.MasterReplicas}
	if part.EqualVT(a.known.Load().source) {
		return nil
	}
	data, err := part.MarshalVT()
	if err != nil {
		return err
	}
	if err := writeDurably(a.fs, a.dir, addressFile, data); err != nil {
		return err
	}
	a.known.Store(newKnown(part.CloneVT()))
	return nil
}

// node gives a node's descriptor, or nil.
func (a *addresses) node(id catalog.NodeID) *catalog.Node { return a.known.Load().nodes[id] }

// rpc gives the address at which other nodes reach a node; empty if unknown.
func (a *addresses) rpc(id catalog.NodeID) string {
	if n := a.node(id); n != nil {
		return n.RpcAddr
	}
	return ""
}

// masterNodes lists the nodes that hold a replica of the master's group, or all
// nodes where that is not known yet: each knows whom to ask.
func (a *addresses) masterNodes() []catalog.NodeID {
	k := a.known.Load()
	var out []catalog.NodeID
	for _, r := range k.masters {
		out = append(out, catalog.NodeID(r.Node))
	}
	if len(out) == 0 {
		return slices.Sorted(maps.Keys(k.nodes))
	}
	return out
}

// all lists the nodes in order of their ids.
func (a *addresses) all() []*catalog.Node {
	k := a.known.Load()
	out := make([]*catalog.Node, 0, len(k.nodes))
	for _, id := range slices.Sorted(maps.Keys(k.nodes)) {
		out = append(out, k.nodes[id])
	}
	return out
}
