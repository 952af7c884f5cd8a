// Package placement decides where replicas and leaders belong: which nodes get
// the replicas of a new group, and which single step each group takes next
// towards its replication factor, its failure domains and an even load.
//
// It is pure. The same cluster gives the same steps, and what it wants is
// derived anew from what is seen each time, so that nothing is lost when the
// master's leader changes.
//
//	           PlanAdd, PlanReplace
//	settled ──────────────────────────▶ adding ──AddLearner──▶ learner ──Promote──┐
//	 │  ▲                                 │                       (when caught up) │
//	 │  └──────────── PlanCancel ◀────────┘                                        │
//	 │                                                                             ▼
//	 └─────────────── PlanRemove ─────────────────────────▶ removing ──Remove──▶ settled
//
// Plans are recorded in the catalog before anybody acts on them; the other
// steps go to the group's leader and are repeated until its configuration shows
// them done.
//
// Invariants:
//
//	P1. A group has at most one change under way, and no step ever puts two of
//	    its replicas on one node.
//	P2. A replica is removed only when those that can be reached are a majority
//	    of the voters that stay.
//	P3. Where nothing fails any more, the steps come to an end: every plan made
//	    for balance lowers (replicas on nodes without the role for them, sharing of
//	    failure domains, unevenness within tables, unevenness overall), compared in
//	    this order.
//	P4. A learner that replaces a voter which is gone or dead is promoted after that
//	    has left the configuration, unless P2 forbids it to leave: the two are never in
//	    it beside each other. So a replacement that dies at once costs the group nothing.
//	P6. A node that says of a replica that it cannot serve it takes no new one before that
//	    has left, where it can: what spoilt it may not be over.
//
// It does not say when a node is dead; it is told.
//
// For logs it decides which shards a log may use (SelectNodeset), which of them
// a record's copies go to (Copysets), and when enough of them were heard
// (ShardSet). All three count failure domains, which nest:
//
//	region eu ── zone eu/a ── rack eu/a/k1 ── node 3
//
//	copyset      R shards, in at least the domains asked for at every scope
//	f-majority   too few are silent, at some scope, for a copyset among them
//
//	P4. Every copyset that is picked satisfies the replication property, and holds
//	    no shard that was to be avoided.
//	P5. A set of shards is an f-majority exactly if no copyset lies in the rest.
package placement
