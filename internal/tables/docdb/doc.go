// Package docdb stores the documents of tablets: what a key holds, at every
// hybrid time that can still be read, on a log-structured merge tree (Pebble).
//
// A document is a root record and children. One Engine per node holds the
// documents of all its tablets, by table and hash, and the state of their Raft
// groups beside them:
//
//	space │ table │ hash │ key 00 00 ║ 01            │ ^time │ trailer     root
//	                                 ║ 02 sub 00 00  │ ^time │ trailer     child
//	└──────────── DocKey ───────────┘  └─── tail ───┘
//	└────────────────── place ──────────────────────┘
//
// The DocKey is what Bloom filters cover and what a point read seeks. The newest
// version of a place comes first. A tablet is a range of hashes, never part of a
// key, so that a split moves nothing. docs/formats/docdb.md has every byte.
//
// The way of a write: operations (ops*.go, row.go) run at the leader on an Exec,
// which reads through a WriteBatch and then a View and writes effects into the
// batch (exec.go, scan.go); the batch's bytes go into a Raft entry; every replica
// turns them into versions at the entry's hybrid time (apply.go), in one store
// batch with its applied index.
//
// # What a view shows
//
//	V1. Of each place, a view at time T shows the newest version at or before T.
//	    Within one hybrid time the write id decides.
//	V2. A child is visible if its document's root is, and if it is not older than
//	    the root's Created. So a root that begins a new life hides a million
//	    children at once, and one that keeps Created hides none.
//	V3. A tombstone, or a value whose expiry is not after the reader's clock,
//	    shows nothing; older versions stay hidden behind it.
//	V4. Every write of a document writes its root: the root's time is the
//	    document's version.
//	V5. An expiry is fixed when a value is written. A table's default time to live
//	    becomes one then, as in Cassandra; judging by today's schema would let
//	    replicas disagree that swept at different times.
//
// # Durability
//
//	D1. The store's log is off. The group's applied index is written in the same
//	    batch as the effects, memtables are flushed in order, so after a crash the
//	    store is as it was after some applied entry, and the journal has the rest.
//	D2. DurableGroupState reads files only, never memtables: what it says is there
//	    after a crash.
//	D3. Ingest and Drop are durable when they return (ingest.go says why).
//	D4. A store that is older than what was flushed is not opened: the journal has
//	    let go of what is missing (internal/manifest).
//
// # Damage
//
// Pebble finds damage when a block is read, by a request or a compaction, tells, and goes
// on: the read is refused, the compaction fails and is begun anew, after a pause
// (internal/compactions). It cannot mend a file. Replicas have good copies elsewhere, so
// they are replaced, and then the file is cut out:
//
//	found ──▶ noted in DAMAGED ──▶ Damaged: replicas there are replaced ──▶ Mend: excised
//
//	R1. What does not read is refused (ErrCorrupt), never left out.
//	R2. Where damage was met is noted, for a file as a whole, before whoever met it goes
//	    on, and until Mend has removed it: cutting a damaged file in two may silently
//	    lose what is beside the cut (Pebble takes the error for the file's end), and
//	    whose that was is known by the note.
//	R3. Mend removes files only where no replica has anything.
//
// # Old versions
//
// A tablet's history cutoff is replicated; no view below it is served. Pebble has
// no compaction filter, and would not know a tablet's cutoff if it had one. What
// was considered: rewriting files from outside (costs what a compaction costs,
// again); bounding history by time-partitioned stores (documents are not
// partitioned by time); deleting at write only (cannot help what readers still
// need then). Chosen: sweeps that find garbage and delete it, and deletion at
// write where nobody may need the old version any more. The tombstones are the
// store's own, which compactions know how to drop, and a key's exact version is
// written once and deleted at most a few times, so nothing can come back.
//
//	G1. A version is deleted only if no view at or above the cutoff shows it, and
//	    none shows anything else for its absence: of a place, the newest version
//	    at or below the cutoff stays, unless it is dead and all older ones are
//	    gone or go with it.
//	G2. Where an entry raises the cutoff to its own time, what it replaces is
//	    garbage at once; a write that has read it names it in its batch, and all
//	    replicas delete it. Locks keep everyone else away in between.
//	G3. While children of an ended life are in the store, so is a root of that
//	    life, under a newer root. That is how a sweep finds them: it deletes them
//	    first and that root last.
//	G4. A sweep deletes exact versions, all at or below the cutoff. Writes that are
//	    applied meanwhile are above it, so they need not wait. The exception is a
//	    dead document with many children, which go as a range: under a lock that
//	    holds commits back, after another look at the root.
//	G5. Expired values are kept for ExpiryGrace longer: an operation on its way
//	    into the log may have seen them alive and carry their life on.
//
// Sweeps are local: two replicas may differ in what they have deleted, never in
// what a view shows (Hash). A block property tells a sweep which blocks and files
// cannot hold garbage yet (garbage.go), so an idle tablet costs next to nothing:
// a million keys are passed in milliseconds. One call does a bounded amount of
// work and returns where to go on; its caller decides how often. What a sweep
// costs is a tombstone for each version, as large as its key.
//
// # Reserved
//
// Keys of spaceProvisional are laid out as documents are, for the provisional
// records of transactions. Log appends inside an entry are another kind of entry
// and never reach this package.
package docdb
