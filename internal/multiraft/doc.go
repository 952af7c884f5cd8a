// Package multiraft hosts many Raft groups in one process: it turns what
// waits into entries, orders them by hybrid time, replicates them through
// go.etcd.io/raft, applies what is committed, and says under which lease a
// leader may answer alone.
//
//	Propose ─┐                 ┌─ messages, one batch per peer node ─► Transport
//	HandleBatch ─► mailbox ─► core.step ─┼─ records, one append per turn ────► Journal ─┐
//	HandleBeat ─┐     ▲       └─ committed entries ───────────► apply worker │
//	            ▼     └──────────── applied, durable, timer ◄────────┴──────────┘
//	          pairs: one promise per pair of nodes, renewed by beats
//
// Groups hash to loops. A loop is one goroutine that owns a core: all state of
// its groups that Raft decides about. The core is deterministic: it is handed
// time, dice and events, and hands back what to send, to write, to apply and to
// answer. Only host*.go start goroutines, and none where Deps.Tasks is set: then
// the simulation runs each turn as an event. Two leaves with a mutex are shared
// beyond the loop: pairs (promises between nodes) and, per group, the gate
// (lease, safe time, what is in flight), so that a read costs no hop.
//
// Promises, leases, times. Every beat, node A asks every node B that it shares
// a group with for a promise. B's promise to A covers each group in which B
// has acknowledged A's replica as leader under the promise's present
// generation: there B grants no vote until the promise lapses. A's lease on a
// group is a majority of such promises in every configuration of its log. The
// same beat carries a bound on the hybrid times A may assign; a majority of
// acknowledged bounds is the most A may hand out, and votes carry the bound to
// the next leader. Nothing is ticked: a follower learns of its leader's death
// when the promise to the leader's node lapses.
//
// Invariants:
//
//	M1. An entry, a vote or a term is acknowledged to a peer only after this
//	    node's own journal has synced it (durability.go asserts it).
//	M2. Entries that carry a hybrid time carry strictly rising ones, by index.
//	M3. No entry gets a hybrid time at or below a safe time or an entry time
//	    handed out before, by this leader or any earlier one.
//	M4. At most one replica of a group passes its gate at any moment.
//	M5. A voter grants no vote against a live promise, unless the promise's
//	    holder revoked its leadership of that group.
//	M6. A voter that restarted grants no vote and does not campaign for one
//	    lease (the longest it may have promised) and the allowed skew: it has
//	    forgotten its promises.
//	M7. A leader passes its gate only after an entry of its own term is applied
//	    and its clock is above every hybrid-time bound that votes carried to it.
//	M8. A leader that began to hand over never passes the gate again in that term.
//	M9. A proposal is answered once: success only when applied here, "no
//	    effect" only when it can never commit.
//	M10. A commit index alone costs no message while traffic or a beat is due.
//	M11. What a state record says is committed counts after a restart only if the
//	     entry that it means is in the log. A state may be on disk without entries
//	     before it: a full disk takes the one and refuses the others.
//	M12. A replica applies what it knows to be committed before anybody speaks to it:
//	     only then may it learn that it is a voter, and every voter may stand so.
//
// It does not decide who belongs to a group, know what the entries mean, or
// retry a proposal.
package multiraft
