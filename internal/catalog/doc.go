// Package catalog is the vocabulary of what a cluster holds: keyspaces, tables
// and their schemas, tablets and their replicas, nodes; with the rules that a
// catalog keeps at every version.
//
//	Catalog ── Keyspace ── Table ── Schema ── Column
//	   │                     │
//	   │                     └── Tablet [hash_start, hash_end) ── Replica ── Node
//	   └── the master's own group, seen as a Tablet by MasterTablet
//
// Invariants, checked by Validate:
//
//	C1. The tablets of a table tile its 64-bit hash space: no gap, no overlap,
//	    and every tablet has its table.
//	C2. Ids are unique and below their next_*_id; none is ever reused. Replica
//	    ids are unique over all groups, and every replica is on a known node.
//	C3. A group has at most one replica on a node, the one being added included.
//	C4. A schema's column ids are unique and below next_column_id; key columns come first, hash before range.
//	C5. Names are unique where they must be and refer to what exists; a table has
//	    a hash and a replication factor.
//	C6. A group has a voter; what it is about to lose it has.
//
// A descriptor is immutable once it is in a catalog: a change makes a new one
// and a new Catalog around it, so that catalogs and indexes of them are shared
// freely between goroutines and versions share what did not change.
//
// It holds no behaviour towards others and imports nothing of this module.
package catalog
