// Package catalog is the vocabulary of what a cluster holds: keyspaces, tables
// and their schemas, tablets and their replicas, nodes; with the rules that a
// catalog keeps at every version.
//
//	Catalog ── Keyspace ── Table ── Schema ── Column
//	   │                     │
//	   │                     └── Tablet [hash_start, hash_end) ── Replica ── Node
//	   └── master replicas
//
// Invariants, checked by Validate:
//
//	C1. The tablets of a running table tile its 64-bit hash space: no gap, no overlap.
//	C2. Ids are unique and below their next_*_id; none is ever reused.
//	C3. A group has at most one replica on a node.
//	C4. A schema's column ids are unique and below next_column_id; key columns come first, hash before range.
//
// It holds no behaviour towards others and imports nothing of this module.
package catalog
