// Package proof holds the tests of whole clusters: real processes of the real
// binary on real disks, under kill -9, SIGSTOP, cut links and restarts, driven by
// stock clients; and clusters in one process whose disks lose power.
//
//	          stock client                      checker
//	               │  history of calls and answers  │
//	┌──────────────▼──────────────┐                 ▼
//	│ braid start   ×3            │        porcupine (linearizable?)
//	│   node i ──link proxy── j   │        nothing acknowledged lost?
//	└──────────────▲──────────────┘        replicas equal?
//	               │ kill -9, SIGSTOP, cut
//	             nemesis
//
// It has no code outside of tests but this page: the processes and the links between
// them are package cluster's, which tier C of the simulation uses too.
package proof
