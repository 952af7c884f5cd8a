// Package sequencer numbers the records of logs and has them stored: the log
// write path on a node, from an append to its acknowledgement and release.
//
//	Append ─┐             ┌─ STORE, RELEASE, one batch per node ─► Stores ─┐
//	State  ─┼► loop ─► core.step ─┼─ read, compare-and-set ────► EpochStore │
//	STORED ─┘    ▲         ├─ recover earlier epochs ─► Recoverer            │
//	             │         └─ answers ─► callers                             │
//	             └──────── what came of it, timers ◄─────────────────────────┘
//
// One core owns the sequencers of many logs (logs hash to loops). It is
// deterministic: it is handed time, dice and events and hands back effects. Only
// host*.go know of goroutines, and there are hardly any: whoever posts an event
// to an idle loop steps it.
//
// A log on a node:
//
//	UNAVAILABLE ── append ──► ACTIVATING ── epoch store ──► ACTIVE ◄─ reactivated
//	     ▲                        │                           │
//	     │ unconfigured, isolated │ lost the race,            │ a newer seal
//	     │                        ▼ regressed                 ▼
//	     └────────────────────  FAILED  ◄────────────────  PREEMPTED
//
// A sequencer reigns for an epoch (type reign): a sliding window of appenders,
// one for each record. On reactivation the old reign drains beside the new one.
// append.go is the path of one append, read from the top.
//
// Invariants:
//
//	Q1. An append is acknowledged only when every shard of one wave's copyset
//	    said STORED for that wave.
//	Q2. LSNs are given out in ascending order, and only when a record is about to
//	    be stored under them: a refusal consumes none.
//	Q3. The window has at most max_writes_in_flight slots, from the oldest record
//	    that is not fully stored to the newest.
//	Q4. The last known good ESN never passes a record that is not fully stored; a
//	    record that was given up freezes it for the epoch.
//	Q5. Nothing of an epoch is released before all earlier epochs are recovered
//	    and the epoch's metadata can be read in the metadata log.
//	Q6. An append with a producer is stored once, however often it is sent: what
//	    this node has forgotten (everything up to sequencer.forgotten) is looked
//	    up on the storage nodes before the append is begun again: on an f-majority of
//	    those who can read all that they had, or on everybody who can answer. Where the log
//	    is trimmed nothing is found: what may have been stored there is refused as
//	    TRIMMED, its outcome unknown for good, and not begun again. Of a producer that
//	    numbers its appends itself the last sequence is found there too, as long as the
//	    storage nodes remember it (store P11); one of which nothing is found is new,
//	    and begins with any sequence.
//	Q7. An epoch is used by at most one reign: it was won by compare-and-set, and
//	    no node had seen it or a later one. Otherwise the store is older than the
//	    cluster, and the log is refused (EPOCH_REGRESSED).
//	Q8. Recovery of earlier epochs begins when the old reign on this node has
//	    drained, or after Config.DrainTimeout: a node does not fence itself out.
//	Q9. An append of a client session gets an LSN only when every append of the
//	    session before it that has no answer yet is under way, stored or refused
//	    for good here. So LSNs follow the order of a session's appends, but for one
//	    case: a record that an epoch gave an LSN and that a newer epoch fenced off
//	    is appended anew, behind what was fully stored meanwhile. Streams know no
//	    such case (Q11, Q12, Q13).
//	Q10. Who needs an epoch to be over (StateEndSeen) is answered by a later reign, and
//	    however many ask, and ask again, at most one reign ends for it.
//	Q11. A record of a stream (of an append that asked for order, or is an explicit
//	    producer's) is acknowledged, and found stored, when the LNG reaches it: then
//	    all before it in the epoch is fully stored, and no recovery finds a hole
//	    there. Behind a record that was given up it is left to recovery.
//	Q12. An append of a stream gets no LSN in an epoch while one before it of its
//	    producer is under way in the epoch that drains.
//	Q13. An append that was sent before, and is not found though a later one of its
//	    stream is, is not begun anew: it is refused as LOST, its outcome unknown for good.
//	    That is so where copies were lost, for a recovery that is sure that it was not
//	    stored keeps nothing of a stream behind it (recovery's C7), or where its client
//	    has given it up and gone on. One that may come in any order, and was gathered
//	    with others' streams, counts as one of its stream.
//
// Differences from LogDevice. A STORED means an fsync, so the first wave's timer
// is not 10 ms but twice the slowest answer of late, at least
// Config.StoreTimeout: starting again elsewhere because a disk syncs would double
// the load just then. All silent shards of a wave are graylisted, not one of
// them, and the graylist yields only when no copyset is left without it. Appends
// that find no copyset wait, without an LSN, and are told what is missing.
// CANCELLED does not exist: see Q6. Releases are confirmed once a log is quiet, and
// told again soon to whoever has not; periodic ones only mend what was forgotten. Of the two limits on the memory of
// appends the hard one (Config.AppenderBytes) refuses everything; the soft one, five
// sixths of it, refuses what would only wait, and closes batches at once: appends to
// a log that cannot be written now do not take what the others need. Records in
// flight are bounded by the hard one alone, for nothing makes them leave sooner.
//
// It does not read records, decide what an earlier epoch held (recovery), or
// know where an epoch store lives.
package sequencer
