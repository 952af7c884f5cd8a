// Package catalog is the vocabulary of what a cluster holds: keyspaces, tables
// and their schemas, tablets and their replicas, nodes, log directories and log
// groups; with the rules that a catalog keeps at every version.
//
//	Catalog ── Keyspace ── Table ── Schema ── Column
//	   │                     │
//	   │                     └── Tablet [hash_start, hash_end) ── Replica ── Node
//	   ├── the master's own group, seen as a Tablet by MasterTablet
//	   └── LogDirectory "/" ── LogDirectory ── LogGroup [first_log, last_log]
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
//	C7. Log directories form one tree below the root, which is the first; names
//	    are unique in a directory; ids of directories and groups are unique, below
//	    next_log_item_id and never reused.
//	C8. A log id belongs to one group at most, is below next_log_id, and once given
//	    out is never given to another group: whoever holds records of a log that
//	    was removed never takes them for those of its successor.
//	C9. What a log comes to have, with all that it inherits, makes sense: no two
//	    attributes contradict each other, and none promises what cannot be kept.
//
// Log attributes are inherited: built-in, then the cluster's (set at "/"), then
// those of every directory down to the group; the nearest one counts, attribute
// by attribute. Replication is one attribute, since its scopes make sense only
// together.
//
// A descriptor is immutable once it is in a catalog: a change makes a new one
// and a new Catalog around it, so that catalogs and indexes of them are shared
// freely between goroutines and versions share what did not change.
//
// It holds no behaviour towards others and imports nothing of this module.
package catalog
