// Package compactions says when an LSM (Pebble) of ours may begin a compaction: as many
// at once as it allows, and none for a while after one has failed.
//
// Pebble begins a compaction that failed anew at once, and where its input is damaged it
// fails again, after a search for the flipped bit that takes a processor for up to a
// second. Left to itself that goes on for ever: a new file, the search, a file removed.
// A Scheduler takes its place at the door (Options.Experimental.CompactionScheduler) and
// lets nothing in for a second after the first failure, for longer after each further
// one, ten seconds at most. Other compactions wait as long: which one failed is not told.
//
//	Pebble ── TrySchedule ─▶ Scheduler ◀── Failed, Succeeded ── the listener of its events
//	   ▲                        │
//	   └── Schedule ◀── grant ◀─┴── the pause is over, or one is done
//
// Invariants:
//
//	C1. Between a failure and the end of its pause no compaction begins.
//	C2. A compaction that was refused is begun when there is room and no pause, without
//	    being asked for again.
//	C3. After Unregister nothing of Pebble's is called.
package compactions
