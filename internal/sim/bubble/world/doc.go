// Package world is a cluster of whole nodes in one bubble, with its workloads,
// faults and checks. Package bubble builds its test binary over the seeded library
// and says why.
//
//	draw ─▶ found ─▶ load and harm ─▶ heal ─▶ converge within 30 s ─▶ check
//
//	machine    a node's place: disk, address, clock, over all its lives
//	registers  reads, writes and compare-and-sets over Redis: linearizable
//	counts     increments the client retries, members of a set: once, and all there
//	appends    writers and a follower on a log: none lost, none twice, in order,
//	           entries tile it, both readings agree
//	copies     replicas hash equal; the replication checker finds nothing
//
// Invariants:
//
//	W1. Everything that happens goes through one Trace, in its order: what links
//	    carry, what changes a disk, what nodes log, what workloads are told.
//	W2. All chance is from the seed, each use with a generator of its own, so that
//	    one workload's draws are not another's.
//	W3. A node that ends by itself, other than for a disk that failed, is a failure.
package world
