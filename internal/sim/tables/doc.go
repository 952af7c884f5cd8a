// Package tables is the tables' wing of the simulation: nodes with the
// production multi-raft host, real tablets over the real document engine,
// and clients that retry, in a world of internal/sim.
//
//	client ── request ──▶ tablet.WriteAsync / Read ──▶ multiraft.Host (Deps.Tasks)
//	   ▲                        │  docdb over a file system        │
//	   └── answer, retry        │  in memory                       ├─ journal: sim.Disk
//	                            ▼                                  └─ transport: sim.Node.Send
//	        what is known from outside (view.go): entries by index, safe times
//	        given out, what was acknowledged, who passes its gate
//
// Nothing of the write path is modelled: the host's loops, appliers, beats and
// snapshot streams run as tasks, the tablet has no goroutine, and the engine's
// own goroutines decide only when files are compacted, never what is read. What
// is modelled stands below it: journal.go keeps records as a journal does,
// transport.go loses messages, member.go remembers which replicas a node has.
//
// What survives a crash is what Disk kept of the journal and what the engine
// had flushed.
//
// Invariants that are looked at while a run lasts (view.go, promise.go, client.go):
//
//	T1. Two replicas of a group never pass their gates at once.
//	T2. Entries at equal indexes are equal on all replicas.
//	T3. No entry gets a time at or below a safe time that was given out before
//	    it was applied, and times rise with the index.
//	T4. A safe time is not below the time of anything acknowledged before.
//	T5. A node that has met a fatal fault says nothing any more.
//	T6. What a replica acknowledges to a peer is on its disk.
//	T7. A proposal that was refused as without effect is not in the log.
//	T8. A lease is over, or given up, before a later term has a leader, and stays so.
//	T9. A vote carries every bound on times that the voter acknowledged, while it stood
//	    by them, to leaders of earlier terms which have not revoked. So would one for
//	    the leader that it acknowledges now.
//	T10. A leader gives no time at or below what the votes for it carried, its own with them.
//	T11. Replicas that applied the same entries remember the same requests.
//	T12. All answers to one request are equal.
//	T13. A request that its client still runs is not forgotten, while there is room.
//	T14. While a lease runs, a majority of every configuration of its holder's log keeps
//	    promises to the holder's node.
//
// The clients' histories are checked in the end (history.go), with
// internal/sim/check.
package tables
