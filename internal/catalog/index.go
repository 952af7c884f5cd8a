package catalog

import (
	"slices"
	"sort"
	"sync"
)

// Index finds things in one version of a catalog. It is immutable: make another
// for another version. The catalog must not be changed once it is indexed.
type Index struct {
	catalog   *Catalog
	tables    map[TableID]*Table
	names     map[[2]string]*Table
	keyspaces map[string]*Keyspace
	nodes     map[NodeID]*Node
	groups    map[GroupID]*Tablet
	tablets   map[TableID][]*Tablet // sorted by hash_start
	logs      func() *Logs          // indexed when first asked for
}

// NewIndex indexes a valid catalog.
func NewIndex(c *Catalog) *Index {
	return newIndex(c, sync.OnceValue(func() *Logs { return NewLogs(c) }))
}

// Next indexes a later version of the same cluster's catalog. The index of logs
// is shared where nothing of them has changed in between.
func (x *Index) Next(c *Catalog) *Index {
	if c.GetLogVersion() == x.catalog.GetLogVersion() && c.GetClusterId() == x.catalog.GetClusterId() {
		return newIndex(c, x.logs)
	}
	return NewIndex(c)
}

// NextWithLogs is Next where the index of logs is at hand already.
func (x *Index) NextWithLogs(c *Catalog, l *Logs) *Index {
	return newIndex(c, func() *Logs { return l })
}

func newIndex(c *Catalog, logs func() *Logs) *Index {
	x := &Index{
		catalog:   c,
		logs:      logs,
		tables:    make(map[TableID]*Table, len(c.GetTables())),
		names:     make(map[[2]string]*Table, len(c.GetTables())),
		keyspaces: make(map[string]*Keyspace, len(c.GetKeyspaces())),
		nodes:     make(map[NodeID]*Node, len(c.GetNodes())),
		groups:    make(map[GroupID]*Tablet, len(c.GetTablets())+1),
		tablets:   make(map[TableID][]*Tablet, len(c.GetTables())),
	}
	for _, k := range c.GetKeyspaces() {
		x.keyspaces[k.Name] = k
	}
	for _, t := range c.GetTables() {
		x.tables[TableID(t.Id)] = t
		x.names[[2]string{t.Keyspace, t.Name}] = t
	}
	for _, n := range c.GetNodes() {
		x.nodes[NodeID(n.Id)] = n
	}
	if len(c.GetMasterReplicas()) > 0 {
		x.groups[MasterGroup] = c.MasterTablet()
	}
	for _, t := range c.GetTablets() {
		x.groups[GroupID(t.Id)] = t
		x.tablets[TableID(t.Table)] = append(x.tablets[TableID(t.Table)], t)
	}
	for _, tablets := range x.tablets {
		slices.SortFunc(tablets, func(a, b *Tablet) int {
			if a.HashStart < b.HashStart {
				return -1
			}
			return 1
		})
	}
	return x
}

// Logs is the log part.
func (x *Index) Logs() *Logs { return x.logs() }

// Catalog is what was indexed.
func (x *Index) Catalog() *Catalog { return x.catalog }

// Version is the version of the catalog that was indexed.
func (x *Index) Version() uint64 { return x.catalog.GetVersion() }

// Table finds a table by id; nil if there is none.
func (x *Index) Table(id TableID) *Table { return x.tables[id] }

// TableNamed finds a table by name; nil if there is none.
func (x *Index) TableNamed(keyspace, name string) *Table { return x.names[[2]string{keyspace, name}] }

// Keyspace finds a keyspace by name; nil if there is none.
func (x *Index) Keyspace(name string) *Keyspace { return x.keyspaces[name] }

// Node finds a node by id; nil if there is none.
func (x *Index) Node(id NodeID) *Node { return x.nodes[id] }

// Group finds a group's descriptor, the master's included; nil if there is none.
func (x *Index) Group(id GroupID) *Tablet { return x.groups[id] }

// Tablets are the tablets of a table in the order of their ranges. The slice is
// shared: do not change it.
func (x *Index) Tablets(id TableID) []*Tablet { return x.tablets[id] }

// TabletFor is the tablet of a table that owns a position of its hash space; nil
// if there is no such table.
func (x *Index) TabletFor(id TableID, hash uint64) *Tablet { return TabletFor(x.tablets[id], hash) }

// TabletFor is the one of a table's tablets, sorted by their start, that owns a
// position of its hash space; nil if none does.
func TabletFor(tablets []*Tablet, hash uint64) *Tablet {
	i := sort.Search(len(tablets), func(i int) bool { return tablets[i].HashStart > hash }) - 1
	if i < 0 || !tablets[i].Owns(hash) {
		return nil
	}
	return tablets[i]
}
