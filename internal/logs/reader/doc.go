// Package reader is the reading side of a log as a deterministic machine: it asks
// every shard of the nodeset, merges what they send, decides what is missing and
// why, and gives the one sequence that every reader of the log sees.
//
//	          START, NEXT, STOP                       records and gaps
//	Core ───────────────────────▶ shard N1 ┐          in LSN order, no LSN
//	     ◀─────────────────────── shard N2 ├─ slots ─▶ twice, none left out
//	          deliveries          shard N3 ┘    │
//	                                            └ front: the LSN to be told next
//
//	       somebody failed, sent damage,         everybody passed the front,
//	       or was silent for too long            nobody had it
//	  ┌──── rewind, others send ────┐   ┌────────────────────────┐
//	  ▼                             │   │                        ▼
//	single copy ────────────────────┴───┘                 all send all
//	  ▲                                                          │
//	  └───────── rewind, once the window has moved past ─────────┘
//
// Single-copy delivery: a shard sends a record if it is the first of the record's
// copyset that the reader does not hold for silent. All send all: every shard sends
// every copy it has. Only there is a gap decided, because only there the silence of
// a shard says something about the record.
//
// What is at the front, in this order: nothing yet known of the epoch's metadata
// (wait); trimmed; a record, a hole, a bridge; a filtered record; the beginning of an
// epoch; else the shards that have passed the front are counted, and if no copyset
// fits among the others the range up to the first sign of life is a gap: a BRIDGE
// where it ends an epoch, DATALOSS within one.
//
// Two rules differ from the ancestor's. It calls a gap of less than a window at the
// beginning of an epoch a BRIDGE, because its sequencers may begin above ESN 1; ours
// do not, so such a gap is DATALOSS, and a BRIDGE never reaches past ESN 0 of the
// epoch in which the next record lies. And a shard that keeps still although others
// have shown that the front is released is passed over after seconds rather than
// minutes, since a release that got lost is repeated only so often.
//
// Where every shard of an epoch was given up nobody can say what is released: what lay on
// them is a loss up to the first epoch that lies on others, once one is known.
//
// Invariants:
//
//	R1. Items tile [From, Until]: each begins where the one before ended, ascending,
//	    until the last ends at Until. Asserted with every item.
//	R2. Nothing is told of an epoch before its metadata is known, so the shards that
//	    are counted are those that the epoch was stored on.
//	R3. What was sent under an older filter version is not looked at: a shard that was
//	    to be silent then says nothing about now.
//	R4. A gap that calls for a count of shards is told in all send all only, and while
//	    no rewind is due.
//	R5. No shard is asked for LSNs above the window, the window is a fixed number of
//	    LSNs above what was taken as long as there are records in it, and the bytes
//	    held stay below the bound, but for one answer of each shard that may have the
//	    front.
//	R6. A payload whose checksum does not match, or a batch that is not whole, is never
//	    told: it counts as a copy that the shard does not have.
//	R7. A gap that is concluded from what shards do not have, a loss or a bridge, is
//	    told only when all were asked again since it first seemed so. What they said
//	    before, each at its time, may never have been true of all at once.
//
// Shards must say FILTERED_OUT only of LSNs of which they hold a record: it stands for
// the record. Any other kind of gap may span LSNs freely.
package reader
