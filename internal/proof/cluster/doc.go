// Package cluster runs nodes as processes of the real binary on loopback, and does
// to them what a machine, a disk or a network may do. It is for tests and for tier C
// of the simulation, and is not shipped.
//
//	Cluster ── Process 1..n: `braid start`, its directory, ports and log, over all its lives
//	   │          │ Kill, Terminate, Signal; FailSyncs (strace); TearTail (its journal)
//	   │          │
//	   └─ Links ──┘ a proxy before each node's port for nodes: Cut, Slow, Reset
//
// A node may have a SmallDisk, and a cluster a ZooKeeper. Afterwards CompareReplicas
// compares the tablets that ended nodes have on disk.
//
// Invariants:
//
//	C1. Only processes that were started here are signalled, and all of them end
//	    when the process that started them does.
//	C2. A node's directory, addresses and ports are the same in all its lives.
//	C3. What a cut link holds back is delivered when it is mended, in order, unless
//	    the connection was reset: TCP does not lose bytes in the middle.
package cluster
