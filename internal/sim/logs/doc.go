// Package logs is the logs' wing of the simulation: nodes with the production
// gossip, sequencer, recovery, purging and comparing of shards and log store, and
// clients that append and read, in a world of internal/sim.
//
//	producer: client.Log ── append ──▶ sequencer.Host ── STORE ──▶ store.Store
//	     ▲                                │   │                      │  journal: sim.Disk
//	     └── answer, retry, redirect      │   └─ recovery.Host ──────┤  Pebble: memory
//	                                      ▼                          ▼
//	reader: reader.Core ◀── records, gaps ──────────────────── read streams
//
// Nothing of the write path, of recovery or of reading is modelled: hosts are driven
// by tasks (Deps.Tasks, Options.Tasks), the rest has no goroutine anyway. What is
// modelled stands below and between: journal.go keeps records as a journal does,
// epochs.go is an epoch store that is slow, loses answers and is away for a while,
// calls.go loses messages, and member.go wires what internal/node wires. Pebble's
// goroutines write files when they are told to and decide nothing that is read.
// The producers are production clients; of readers the core is, its host
// (read.go) does what client.Reader does without waiting.
//
// Invariants that are looked at while a run lasts:
//
//	L1. STORED leaves a node only when its disk has the copy (member.go).
//	L2. An append is acknowledged only when each of one wave's copyset said STORED
//	    for that wave (spy.go).
//	L3. What a life of a node tells another to be released of a log never goes back,
//	    nor beyond what its epoch gave out, and nothing of an epoch is released before
//	    all earlier ones are clean (spy.go).
//	L4. All readers are told the same of an LSN, whenever they are: the record that
//	    was acknowledged there, or nothing (truth.go). Nobody is told DATALOSS.
//	L5. A payload is in the log once, and what was begun after another was read, or
//	    was acknowledged to its own producer, is behind it, as it is behind all that
//	    was acknowledged to others in its epoch (truth.go).
//	L6. The epoch store never goes back, and a compare-and-set that succeeds was of
//	    the version that was there (epochs.go).
//	L7. A shard that said that an epoch is sealed, or gave recovery a digest of it, says
//	    STORED of nothing that a sequencer sends of that epoch any more (promises.go).
//	L8. What a shard promised of seals, trims and clean epochs it knows after a restart,
//	    and what it had served for a while it serves again (promises.go).
//	L9. A recovery decides an LSN once; what one decided that came to CLEAN later ones
//	    decide again, and nobody makes nothing of what was acknowledged (decisions.go).
//	L10. Of an epoch of which anything is released the metadata log tells what it is
//	    stored on (decisions.go, spy.go).
//	L11. A node does not make an epoch clean in which it has appends on their way itself,
//	    but after the time that it gives those (decisions.go), nor does one that sees no
//	    majority take appends (member.go).
//	L12. Readers are told the same offset of a record, and offsets go up with LSNs; every
//	    clean epoch ends with a bridge (truth.go).
//	L13. A refusal takes no LSN: below one that is acknowledged all of its epoch were
//	    sent to somebody (spy.go).
//	L14. An append of a stream is acknowledged behind nothing of its epoch that is not
//	    stored, and may yet become a hole (spy.go).
//
// In the end (final.go) readers from the oldest LSN must have all that was
// acknowledged, and the replication checker must find every copy where it belongs.
package logs
