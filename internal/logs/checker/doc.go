// Package checker verifies that every released record of a log is replicated as its
// epoch demands. It looks at the headers of all copies that the shards say they have
// and decides nothing else: a pure function from answers to findings, fed in pages, so
// that a log of any length is checked in the memory of one page a shard.
//
//	Want ──▶ Records requests ──▶ shards ──▶ Answer ──▶ copies by LSN ──▶ findings
//
// Invariants:
//
//	C1. An LSN is judged only when every shard that answers has come past it.
//	C2. A shard that cannot be asked is given the benefit of the doubt: what it may
//	    have is never reported missing, and the report says that it was not asked.
//	C3. Every LSN of an epoch from its first to its bridge (in the newest epoch: to the
//	    last released) that is not trimmed is judged exactly once.
//	C4. Copies of one wave that name different copysets are a finding, unless recovery
//	    wrote them and all shards of one of the copysets have the copy that names it:
//	    the others are of plans that were given up, with a shard that did not answer.
//	C5. The latest wave is on a copyset, unless recovery wrote it, all copies say the
//	    same, and an earlier wave is on its whole copyset, where the later may have
//	    taken its place: a recovery that began before it could know that an earlier
//	    one had made the epoch clean stores that one's decisions anew, copy by copy,
//	    and when its node dies nobody goes on: the epoch is clean. Or it did not hear
//	    from who knew that the record is fully stored: the next recovery, which does,
//	    leaves that alone, and what was left of one plan or of several stays (C4). Where
//	    it took the place of the earlier one everywhere, the versions below tell of that.
//
// An epoch below the newest without a bridge ends with its last copy: nothing says that
// there was more.
package checker
