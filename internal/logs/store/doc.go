// Package store is the storage node's side of logs: one shard, which keeps copies
// of records and what fences them in the node's journal and in Pebble, and
// delivers released ones to readers.
//
//	STORE ─▶ validate ─▶ seals ─▶ journal (one Append per batch, fsynced) ─▶ STORED
//	                                 │ durable
//	                                 ├─▶ record cache: seals, digests, tail readers
//	                                 └─▶ applier ─▶ open partition, marks (Pebble, its log off)
//
//	dir/FORMAT
//	dir/marks/                      per-log marks, metadata logs, what partitions have
//	dir/p-<number>-<start>/         a partition: one Pebble, never compacted
//	dir/damaged-<doubt>-p-.../      one that was set aside: the operator's
//
// The write path is HandleBatch (write.go), batch.durable and Store.admit
// (apply.go), Store.applyBatches. The read path is ReadNext, Store.serve,
// delivery.read (stream.go) over a view (view.go), which merges the record cache
// and the partitions. What is held to be true of a log is in logMarks
// (logstate.go) and changes only by marks (entry.go).
//
// A copy is two keys: (log, LSN, descending precedence, kind) in the index space
// with the header, copyset included, and the same in the payload space. So the
// index is the copyset index: who sends a record, whether a filter passes, a
// producer's appends and a time are found without its payload, and nothing is
// kept twice. Versions of an LSN coexist; the highest precedence wins, and an
// amendment, which has no payload, borrows that of another version.
//
// Invariants:
//
//	P1. STORED and the answer to a seal, a trim, a clean or a purge leave only
//	    after the journal has synced what they promise. Seals take effect before
//	    that, for refusing is always allowed. A soft seal needs no sync: the
//	    stores that imply it bring it back.
//	P2. Journal positions ascend. Every batch of an LSM carries the position that
//	    it is of, so each LSM is whole up to a position of its own, and replay
//	    applies to it exactly what lies above. What is salvaged (P13) comes besides.
//	P3. The journal lets go only of what every LSM says is durable, read back
//	    from it.
//	P4. What is durable is in the record cache until it is in the LSMs, and a
//	    reader of LSMs first waits until everything durable before is in them.
//	P5. From coverFrom on the record cache has every copy of its log.
//	P6. Deliveries of a stream tile its LSNs: ascending, no hole, no overlap; a
//	    NO_RECORDS gap never reaches above what is released.
//	P7. A copy whose header or payload does not verify is never delivered,
//	    digested or merged; it is a CHECKSUM gap, and what was asked of a producer is
//	    PARTIAL.
//	P8. An epoch is clean here only if all before it are (LastClean); a release
//	    above the next one waits for the purge.
//	P9. A shard that may have lost what it acknowledged says so until others were
//	    asked (Sure, Listed) or it was rebuilt (Trust).
//	P10. A request about a log that neither the shard nor the catalog knows leaves no
//	    state. A trim never goes above what is known to have been appended.
//	P11. Of a producer that numbers its appends the highest sequence of what was
//	    trimmed stays known, for ProducerKeep after its last record: the space of
//	    records comes back only after it was written down, durably, and only once
//	    it is decided that they are part of the log. What a doubt is of is brought back of
//	    trimmed records too, while their space has not come back at who is asked.
//	P12. Of the copies of an LSN that one recovery had stored here, by the plans that it
//	    made, the latest plan's counts: one of an earlier plan that comes later is refused.
//	P13. A partition of which something cannot be read is set aside (aside.go): what can
//	    be read of it, and what is in memory, is durable in the open one first, then a doubt
//	    is durable, then that it is set aside, with what it had of which log in doubt if it
//	    was closed; else that may be any. Whoever looked at the doubt before that one
//	    counted finds damage there, never nothing. It is between two batches for the applier, so deletions come before or behind, and
//	    what a newer partition has of a copy stays (P12). That it is set aside is noted as
//	    long as its directory may have its own name.
//	P14. A doubt of a log is ended by what others were asked since it counts (Sure), never
//	    by what they were asked for an earlier one; and what it is of goes by the epoch
//	    that the epoch store has said since is the next (Fence).
//	P15. An epoch of which something was in doubt is clean here only by a recovery that was
//	    shown, since then, all that is here of it: what was taken from others in between
//	    it may not have seen, and not decided on.
//
// Doubt (P9). If the journal's tail was suspect, the stream was corrupt, or a
// partition is damaged (the open one begins anew if it cannot be opened at all,
// Store.beginAnew, and else it is set aside, also while the store runs, Store.setAside),
// copies and seals that were acknowledged may
// be gone, and neither can be told from the rest. A lost copy is harmless if
// nobody takes its absence for a proof; so Seal and ReadMetadata answer PARTIAL, Digest
// and ProducerLookup AGAIN, EpochRecovery calls no epoch empty, and readers get
// UNDER_REPLICATED for LSNs without a copy, within the stretch that is in doubt.
// A lost seal is not harmless at all: the shard would acknowledge for a sequencer
// that others have fenced off. Which seals there can be is known elsewhere: the
// sequencer of epoch e seals up to e-1, and e is below the epoch store's next
// one. So before it takes a store of a log the shard asks for that (NextEpoch),
// seals up to next-2 for good, and answers DROPPED meanwhile. Epochs from next on
// are not in doubt.
//
// The doubt ends (repair.go, recovery.Comparer). Of a suspect tail only what came
// after the last known good ESN that is left can be lost, and, until a release shows that
// the epoch store knows the last clean epoch to be clean, what was stored behind that of
// the clean ones that a next recovery may make clean again; of a corrupt stream or
// a damaged partition, or where an LSM has more than is left of the journal, all that is
// not trimmed, and of what is the epoch of the trim (P11); of a damaged partition that was
// closed what it had. The other shards of the nodesets
// are sealed and say what they have that names this one; what is missing is taken.
// It ends for certain when every copyset with this shard in it has another member
// that answered and is in order itself. If two of three are in doubt that cannot
// be; then it ends when everybody has answered who still can, with a warning. Of a
// suspect tail, what nobody knows of was torn before it was acknowledged, or every shard
// that had it lost it at once. Of a corrupt stream or a damaged partition it is lost for
// good (logMarks.lostFrom): the doubt is over, but within that stretch readers go on
// getting UNDER_REPLICATED for LSNs without a copy, and digests and look-ups of producers are
// PARTIAL, so that recovery does not plug what was lost, readers are told of it, and nobody
// takes an append for new that another shard has. Shards that are down are waited for. The epoch that reigns is
// compared when it is sealed; that its reign ends is seen to (recovery's D5). A CLEAN may be
// what was lost: then the epoch is purged later, with copies that recovery counts on,
// so purging puts it in doubt again (purgedFrom), and a log's doubt is not over before
// all that was in doubt is clean (unsettled). The doubt is in the state of the journal's stream and
// in the logs' marks, so it outlives restarts; once it is durable there a corrupt
// stream is begun anew. What can still be lost without trace is in
// docs/formats/log-store.md.
//
// Late copies, which recovery stores again with old timestamps, go to the newest
// partition like all others: reopening an old one would cost a flush per copy.
// They live a little longer than they had to, and never shorter.
//
// Single-copy delivery ranks the shards of a copyset by a hash of shard and LSN,
// the LSN without its lowest ten bits: consecutive records of one copyset are
// then read by one shard in one piece, not by every shard in every block.
//
// It does not decide what recovery decided (Options.Purge asks), does not talk to
// other nodes, and does not rebuild.
package store
