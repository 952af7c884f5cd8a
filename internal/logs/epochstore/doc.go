// Package epochstore keeps one EpochRecord for each log: the next epoch to be
// given out, what epochs are replicated by, and how far the log has been
// recovered. Records change only by compare-and-set, and never go back.
//
//	sequencer, recovery ── Read, CompareAndSet ──┬─► Table      rows of system.epochs, on Braid's own
//	   (on any node)                             │              tablets: a million logs are spread
//	                                             │              over all of them by hash
//	                                             ├─► ZooKeeper  <root>/logs/<log id>
//	                                             └─► Memory     one process; for simulations
//
// The catalog is not the place for it: when a node dies, each of the logs that it
// sequenced needs one write here before it takes appends again.
//
// Whoever loses sight of a compare-and-set, because an answer was lost, finds out
// by reading again: a record bears the nonce of who wrote it. What cannot be
// found out is said so, as an error that is not ErrConflict, and its caller
// reads and decides anew.
//
// Invariants:
//
//	E1. A compare-and-set that succeeds replaced exactly the version it named,
//	    and no two that succeed name the same one.
//	E2. Version, next epoch and last clean epoch of a log never go back, whatever
//	    is asked for. (A store that is replaced by an older one, from a backup, goes
//	    back nevertheless; the seals on storage nodes are what finds that out.)
//	E3. A read begins after all that was answered before it: it never gives an
//	    older record than one that a caller was told of.
//	E4. What is read is what was written for that log: a record names its log, and
//	    a checksum covers both. Else it is an error, never a record.
//	E5. done is called once, and nothing here blocks its caller.
//
// The format of a record is described in docs/formats/epochstore.md.
package epochstore
