// Command processes is tier C of the simulation: clusters of real processes with
// real disks, under a nemesis. Nothing is simulated, so nothing can be replayed: a
// seed draws the cluster, the faults and the load, the machine does the rest. It is
// for developers and is not shipped.
//
//	go run ./internal/sim/processes                     until interrupted
//	go run ./internal/sim/processes -for 2h -out campaign.jsonl
//	go run ./internal/sim/processes -seed 77            that round
//	go run ./internal/sim/processes -faults kill,torn-tail -rounds 10
//
//	seed ─▶ cluster ─▶ load and faults ─▶ heal ─▶ serves within 30 s ─▶ judgement ─▶ a line of data
//	          │           │                                              │
//	     `braid start`   registers, counter, set, appends,         internal/sim/check,
//	     ×3..5, links    producers, tailing readers                copies, replicas
//
// Invariants:
//
//	P1. It signals only processes that it started, and leaves none behind.
//	P2. Faults stay within what is promised: one node at a time is down or cut off,
//	    unless all are ended; one node of a round may lose the end of its journal.
//	P3. Time that this process was stopped for counts nowhere: its clock ticks while
//	    it runs. What clients were told meanwhile is judged like all else.
//	P4. What failed is kept: data directories, logs, and one timeline of all that
//	    clients, the nemesis and the nodes said.
package main
