// Package recovery makes the epochs of a log clean that a sequencer left behind:
// it decides for every LSN that was not known to be stored whether it is a
// record or a hole, so that readers of all times see one answer.
//
//	epoch 5   ████████████▓▓·▓··         █ up to the last known good (LNG): fully stored
//	                      digest          ▓ found on somebody   · on nobody
//	          ████████████▓▓○▓╋           ○ hole   ╋ bridge: the epoch ends here
//
// A log is recovered by the sequencer that reigns now, for all epochs between the
// last clean one and its own; an epoch is one round of a consensus among the
// shards of its nodeset:
//
//	metadata ─► SEAL, once for all epochs
//	            ┌───────────────────── per epoch, oldest first ──────────────────────┐
//	            SEALING ─► DIGESTING ─► MUTATING ─► CLEANING ─► ADVANCING ─► next, done
//	            f-majority  what do     stores of   all who     last clean
//	            sealed      you have?   decisions   took part   epoch + 1
//
// core_log.go is the log's part, core_epoch.go the phases of an epoch,
// core_decide.go what is decided, core_mutate.go how it is stored; core_purge.go is
// the other side: what a shard that was absent does before it serves again. Those
// are deterministic. machine.go lends one of them a clock and calls; host.go and
// purger.go have some of them at work at a time.
//
// Invariants:
//
//	C1. What was acknowledged, or decided by an earlier recovery, is decided so
//	    again: a sealed f-majority meets every copyset, and of what it shows the
//	    highest precedence wins (recovery's over sequencers', later seals over
//	    earlier ones, later waves over earlier). Of the payloads up to the LNG, whose
//	    records may be trimmed or lost since, who has the CLEAN of an earlier recovery
//	    tells what that counted.
//	C2. A recovery has one value for an LSN, whatever fails and is tried again:
//	    its seal epoch is its ballot. It is decided once (epochRecovery.decided),
//	    and a host never begins a second recovery under the same epoch.
//	C3. Nothing is plugged where an f-majority was not heard, or where what was
//	    stored cannot be read by too many: readers are told of the loss.
//	C4. CLEAN is sent when every decision lies on a copyset, as the replication
//	    property wants it, of shards that get the CLEAN; the epoch counts as clean
//	    when all of them have it.
//	C5. A PREEMPTED from anybody ends the recovery: somebody newer is at it.
//	C6. A shard that missed the CLEAN of an epoch deletes what it has above the
//	    epoch's LNG before it serves releases of later ones; of an epoch of which it
//	    has the CLEAN it deletes nothing, whichever others it missed (purge).
//	C7. A record of a stream (FlagStream) is decided to be one only if no hole is before
//	    it in its epoch. It was not acknowledged then, nor decided so by a recovery that
//	    came to CLEAN: its sequencer acknowledges it when all before it is fully stored
//	    (sequencer Q11), and such a recovery has stored all before it as records; of
//	    either an f-majority shows everything (C1). Where that cannot be told, without
//	    an f-majority or behind damage, it is kept, and stored with FlagKept, so that a
//	    later recovery, which has more to go by, keeps it too.
//	C8. The LNG never falls while an epoch is recovered: digests are asked for above
//	    it, and nothing that they left out is decided. A shard may forget what a
//	    release had told it, but not what it has told the recovery (source.seal).
//	C9. A shard takes a CLEAN only where the recovery was shown all that it has: one that
//	    came to be in doubt since its digest may have taken back what it had not shown,
//	    and of which nothing was decided. It is asked again, and what is new is a hole
//	    (epochRecovery.forget), or it counts as absent and purges (C6).
//
// A shard that may have lost the end of its journal is compared with the others
// before it proves anything again (core_compare.go, core_survey.go, comparer.go):
//
//	D1. It is sure of a stretch when every copyset that it may have been of has
//	    another member that answered and is in order; or when nobody is silent who
//	    can still answer.
//	D2. Who answers is sealed there first: nothing it has not shown comes after.
//	D3. It takes only what names it, and of epochs that are clean only what was
//	    decided: what somebody has who took part in the recovery or purged, and of others
//	    what is good or what recovery stored; it waits for who may know what was decided.
//	    Until it is sure its seals are PARTIAL, which counts as silence.
//	D4. What was chosen before more epochs became clean here is neither taken nor
//	    trusted: it begins anew. An epoch that is purged after it was compared, for its
//	    CLEAN may be what was lost, is compared again.
//	D5. A reign that keeps a log in doubt is ended (reigns.go): if it has not by itself
//	    after a while, the log's sequencer is asked for a later one, and asked again, later
//	    each time, but soon again once it says that the reign has ended, until a comparison
//	    leaves nothing in doubt. A bounded number is asked
//	    at a time, and per second; who reigns later already reigns on.
//	D6. Where recovery decided on an LSN there was a copy of it. If the doubt ends
//	    because nobody knows more, and nobody showed one, it is lost, not torn: the
//	    shard proves nothing there for good, and readers are told.
//	D7. What others were asked for one doubt ends no later one: it begins anew, and what
//	    was at work when a doubt came is done once more. What the epoch store said before a
//	    doubt does not say of which epochs that is.
//
// Differences from LogDevice. A slot of which damaged copies were found counts
// those shards as unavailable for that slot: recovery waits for silent ones that
// may have a good copy, and if there are none it does not plug the slot. A shard
// that fails during mutation leaves the mutation set and the decisions are stored
// again without it, from the same digest; the recovery does not begin anew,
// because it would have to decide the same (C2). A copy says by which plan it is where
// it is (logs.PlanOf): of two of one recovery the later one counts. A log's payload count up to its
// tail is carried along, so that offsets go on where they ended.
//
// It does not decide who sequences, and a metadata log needs none of it.
package recovery
