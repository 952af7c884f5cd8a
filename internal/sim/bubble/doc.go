// Package bubble is tier B of the simulation: clusters of whole nodes, wired as the
// binary wires them, in one bubble of simulated time (testing/synctest), and each
// seed the same to the last bit every time it is run.
//
//	seed ─▶ world.test ─────────────────── one process, one bubble ───────────────────┐
//	        │ node 1          node 2          node 3        clients, over Redis and rpc │
//	        │ front ends, executors, Raft, journal, LSMs    registers, counters, logs   │
//	        │    │               │               │                  │                   │
//	        │ ┌──▼───────────────▼───────────────▼──────────────────▼────────────────┐  │
//	        │ │ lan: links with delay, cut, clogged, reset     simfs: disks, power   │  │
//	        │ └───────────────────────────────────────────────────────────────────────┘ │
//	        └─▶ {"Seed": 7, "Hash": "5d0c…", "Problems": […]}, and a trace if asked ─────┘
//
// How it is made to replay. A bubble gives virtual time and not an order: select,
// maps, the run queue and ties between timers are random in Go. Two recipes were
// weighed. One lets a bus release one operation at a time, by stable ids; it needs
// no change of Go, but every goroutine that could run beside another must park at
// the bus first, and Pebble's, the journal's and net/http's do not ask us. The
// other, taken here, changes a few lines of Go's own scheduler when the program is
// built (edits.go, through the go command's -overlay): what was random comes from
// the seed, what followed the wall clock does not. So the code that runs is the
// code that ships, and goroutines interleave in ways that a seed chooses.
//
// The price: the edits belong to one release of Go. Their files' hashes are
// checked; with another release worlds run over a library that is hardly changed,
// find bugs all the same, and do not replay (Binary.Unknown says so). And one
// processor: data races are for the race detector.
//
// A process runs one world and ends. So no world sees what another left behind in
// pools and caches, addresses in memory are the same each time (maps keyed by
// pointers have their order by them), and a life of a node can end as a process
// does: nobody waits for its goroutines.
//
// Invariants:
//
//	B1. A seed that is run twice has the same trace, of every message, every change
//	    of a disk and every line that a node logs. Every seed of a campaign is run
//	    twice, unless told otherwise, and a difference is a failure. Nor does it
//	    matter where the program is, or was built: place and Build see to that.
//	B2. A world's faults stay within what is promised: one node at a time is down,
//	    or all lose their power; what a disk has confirmed it keeps.
//	B3. What nobody answers in a healed cluster within 30 virtual seconds is a
//	    failure as much as a wrong answer.
package bubble
