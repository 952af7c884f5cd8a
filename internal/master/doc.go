// Package master keeps the catalog: it is the state machine of the cluster's
// first Raft group and the service in front of it.
//
//	nodes ── heartbeat, join ──▶ ┌────────┐ ── command ──▶ ┌───────┐ ──▶ ┌─────────┐
//	                             │ Master │                │ group │     │ Machine │
//	clients ── catalog, ───────▶ └────────┘ ◀── catalog ── └───────┘ ◀── └─────────┘
//	           locations          one leads                 journal       every replica
//
// The Machine applies commands to the catalog. The Master, where its replica
// leads, gathers what nodes report, asks placement for the next steps, proposes
// those that change the catalog and hands the others to the nodes with the
// answers to their heartbeats. A Former (bootstrap.go) makes the first catalog.
//
// What a group's members are is decided by the group itself. The catalog says
// what is wanted (adding, removing) before anybody acts, and follows what the
// group's configuration turns out to be. Reconcile tells a node what that means
// for its replicas.
//
// Invariants:
//
//	M1. The catalog of every version is valid (catalog.Validate). A command that
//	    would make it otherwise is refused and changes nothing.
//	M2. Every command that changes the catalog makes exactly one new version.
//	M3. A client's request is carried out once: its outcome is remembered for
//	    longer than a client retries, and one below what is remembered of its
//	    client is refused.
//	M4. Applying chooses nothing: placement, time and chance are in the command.
//	M5. A configuration read at a lower applied index never overrules one read
//	    at a higher.
//	M6. A data directory has one node id for ever, and a node id one directory.
//	M7. A replica that was destroyed on a node is never made there again under
//	    its id: it may have acknowledged what it then forgot.
//	M8. Nodes started with one join list found at most one cluster.
//	M9. A forgotten node stays forgotten: its directory is never admitted again, and
//	    no heartbeat of it counts.
//	M10. All nodes keep the epochs of logs on one epoch store, that of the first node
//	    that said which: one with another is not admitted, and no heartbeat of it counts.
//
// Time enters as an argument and nothing here starts a goroutine: the node does.
package master
