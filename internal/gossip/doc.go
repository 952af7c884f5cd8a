// Package gossip says which nodes of the cluster live. Its answer is a hint that
// everything may use to be quick (where to send an append, whom to ask for a
// copy) and nothing may rely on to be right: safety comes from leases, epochs and
// seals.
//
// Every node counts heartbeats and tells, each interval, FanOut others all the
// heartbeats that it knows of. A node lives as long as its heartbeats grow.
//
//	         own word, or a heartbeat that grew while watched
//	┌──────┐ ─────────────────────────────────────────────▶ ┌───────┐
//	│ DEAD │                                                │ ALIVE │
//	└──────┘ ◀───────────────────────────────────────────── └───────┘
//	 │  ▲   silent > Threshold                                  ▲
//	 │  │   silent > RefusedThreshold and its address refuses   │
//	 │  │   it says that it fails over                          │
//	 │  │                                                       │
//	 │  └───────────────────── ┌─────────┐ ─────────────────────┘
//	 └───────────────────────▶ │ SUSPECT │  SuspectIntervals, or its word
//	  same instance is heard   └─────────┘
//	  of again
//
// silent counts the observer's own intervals since the heartbeat last grew, so
// an observer that was itself stopped for a while accuses nobody when it wakes.
//
// # Differences from the ancestor
//
// LogDevice gossips ages ("intervals since it was heard of") and takes the least.
// An age that was kept in a socket while its reader was stopped is too young when
// it is read, and then spreads: a dead node lives again everywhere. A heartbeat
// cannot become younger by lying about, so nothing here depends on how long a
// message took, and no clocks are compared.
//
// Silence alone cannot serve both promises of the failure detector, a death seen
// within a second, and no process killed for a pause under three seconds, since a
// killed and a stopped process are equally silent. They differ in one thing: the
// listener of a process that has ended refuses connections, and that of one that
// is stopped does not, since it is the kernel that accepts. So a node that falls
// silent is probed at its address after ProbeAfter intervals, and if it refuses,
// RefusedThreshold is enough; otherwise it takes Threshold.
//
// # Numbers
//
// The defaults come from the simulation, sim_test.go, of which a part runs with
// the tests, all of it with -gossip.hours=1000, and the choice with -bench Choice.
// How late a heartbeat grows falls off geometrically; the worst ratio is that of
// three nodes (there is only one way around a lost message), the widest spread
// that of a hundred. For each pair below: the intervals of silence beyond which
// fewer than 0.05 growths are to be expected in 1,000 node-hours at 30 % loss, at
// 3, 8, 30 and 100 nodes, and the time after which a death is then seen, at p99
// over observers, by silence alone.
//
//	interval     FanOut 2      FanOut 3      FanOut 4      FanOut 6
//	   50 ms   25  1.61 s    15  0.96 s    11  0.74 s    11  0.71 s
//	   60 ms   21  1.68 s    16  1.25 s    13  1.05 s    11  0.93 s
//	   75 ms   23  2.23 s    14  1.43 s    12  1.16 s    11  1.03 s
//	  100 ms   19  2.58 s    15  1.94 s    12  1.55 s    12  1.55 s
//
// 50 ms and 4 are the cheapest with room left, which is used for two intervals
// more: 13. Threshold is that and 3 s. In 1,000 node-hours each of 3, 4, 5 and 8
// nodes the longest silence of one that lived was 10, 7, 6 and 6 intervals.
//
// Where a death leaves nobody to refuse (a machine without power, a cut cable)
// it is seen after Threshold. Who would rather have that within a second, and has
// processes that never pause, sets Threshold to RefusedThreshold.
//
// # Isolation
//
// A node that holds more than half of the others and itself for dead is isolated:
// it does not sequence, since the others have likely replaced it. Nodes that the
// catalog has declared dead do not count. A domain (rack, zone, region) is
// isolated when all nodes outside of it are dead; nothing decides by that, it is told
// to whoever looks, in the column isolated of the query table gossip.
//
// Invariants:
//
//	G1. The heartbeat of an instance never goes back, nor does a node's instance.
//	G2. A node becomes ALIVE only by its own word or by a heartbeat that grew while
//	    watched: never by a first hearsay, which may be hours old.
//	G3. An instance that said that it fails over is DEAD for ever.
//	G4. A node is declared dead for silence only after the observer itself ticked
//	    that many times without a growth.
//	G5. A view is never changed once it was given out; there is a new one exactly
//	    when something in it differs.
package gossip
