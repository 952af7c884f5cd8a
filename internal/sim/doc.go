// Package sim runs whole clusters of production cores under one seeded
// scheduler, on a clock that jumps from event to event: tier A of
// docs/TESTING.md. Nothing in it starts a goroutine, reads a clock or rolls a
// die that does not come from the seed, so one set of options is one run, on
// any machine, for ever.
//
//	Options ──▶ World ── heap of events ── one at a time ──▶ f()
//	 (seed,       │                                           │
//	  knobs,      ├─ Node 1..n   lives, pauses, own clocks     │ a core steps,
//	  faults)     ├─ Net         delay, loss, cuts, resets     │ its effects
//	              ├─ Disk        syncs as events, lost tails   │ become events
//	              └─ Faults      the schedule, as data        ◀┘
//	Cluster (a wing: tables, logs) hosts the cores, makes the load, checks
//
// # How a core is hosted
//
// A wing implements Cluster. Boot(n) begins a life of node n: it builds the
// production core from what durable state the wing kept for n, and hands it
// nothing but the node's own doors:
//
//   - time:    n.Mono(), n.Wall(); n.After(d, "what", f) for timers, on the
//     node's own clock. n.Soon("what", f) is a task: it runs a little later, as
//     a goroutine would that was just woken.
//   - chance:  n.Rand(), a fresh source per call, from the seed.
//   - network: n.Send(to, "what", size, f) runs f at the peer, if the world lets
//     it through. What f holds must be a copy (encode and decode messages).
//   - disk:    n.Disk.Write(keep, done): keep changes the durable state when the
//     write reaches the platter (maybe after a crash, maybe never), done tells
//     the life that asked. n.Disk.Full() refuses early.
//
// All of these end with the life: after a crash nothing of it runs any more,
// and while the node is paused what arrives waits. What must survive is kept by
// the wing outside of the core and changed in keep alone.
//
// World.Run lets trouble happen for Options.Safety, then heals everything and
// gives the cluster Options.Liveness to converge: Cluster.Converged is asked
// until it says nil. Cluster.Check is the last word. World.Fail ends a run at
// any moment.
//
// Faults are data: Draw makes a schedule from the seed, the World carries out
// what it knows (crashes, pauses, cuts, clocks, disks) and gives the others to
// Cluster.Fault. A failing run is shrunk by leaving faults out.
//
// Invariants:
//
//	S1. Events run in order of time, ties in the order in which they were made.
//	    No map is ranged over, nothing depends on addresses.
//	S2. Equal options give equal traces: Hash covers every event's time, name
//	    and node, and what wings note. A test runs seeds twice.
//	S3. Tracing, and only tracing, looks at Options.Trace: it draws no dice.
//	S4. Nothing of an ended life runs, and nothing of a paused node.
//	S5. A fault never exceeds what is promised: durable state is lost only where
//	    Cluster says that enough other copies are sound (MayLose).
//	    Worlds of Wing.Beyond do exceed it: there, what was promised may be refused, and
//	    never silently be wrong (docs/TESTING.md).
//	S6. After the safety phase no fault is left and none comes.
package sim
