// Package tablet is one replica of a contiguous range of a table: the leader's
// write path, reads under a lease, and the application of committed entries on
// every replica.
//
//	WriteAsync                                             Read
//	    │ check     lease, load                              │ lease, read time
//	    │ enrol     seen before? answer the original         │ view, cutoff
//	    │ fit       schema version, size, disk               │ operations
//	    │ lock      all paths or none; may park              ▼
//	    │ prepare   read if needed, execute, encode
//	    ▼
//	 propose ──> Raft group: hybrid time, log, majority ──> Apply (every replica)
//	                                                          │ effects + remembered requests
//	                                                          │ + applied state: one LSM batch
//	 conclude <───────────────────────────────────────────────┘
//	    unlock, answer, resume who was granted
//
// write.go is the spine and reads downward; lock.go is the lock manager,
// requests.go what is remembered of requests, payload.go what stands in entries,
// state.go what stands in the group's state, snapshot.go how a replica is copied.
//
// Invariants:
//
//	W1. What a write reads is not changed by another write before its own entry
//	    is applied: it holds its locks from before the read until after Apply.
//	W2. A request (client id, request id) takes effect at most once, and every
//	    answer to it is that of its one execution, whichever leader gives it.
//	    Leaders look before they execute, and apply looks again: an entry with a
//	    second copy of a request has no effect.
//	W3. An entry takes effect only in the term in which its request was checked.
//	    A leader that lost its term and won another in between would otherwise
//	    propose effects computed from documents that have changed since.
//	W4. Effects, remembered requests and applied index become durable together,
//	    and are the same on every replica at the same index.
//	W5. A lock is held by a leader's running writes only. A lost leadership ends
//	    each proposal, that gives back its locks, and who waited for them finds
//	    at its next check that this is no leader.
//	W6. Nothing below the cutoff is read: whoever raises it does so before old
//	    versions go, whoever reads looks at it after the view is open.
//
// A request without effect (SET NX of a key that exists, a failed condition) is
// replicated all the same if its client wants it remembered. It costs a round,
// and nothing cheaper is right: answered from the leader's memory alone, a copy
// of it that was delayed on its way could arrive after a failover, find the key
// gone, and do what its client was told had not been done. Requests without a
// client id are answered at once, after a second look at the lease.
//
// What it does not do: it chooses no hybrid time and knows no peers (multiraft),
// encodes no documents (docdb), retries nothing (client).
package tablet
