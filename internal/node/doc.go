// Package node makes one process, or one part of a process, a member of a
// cluster: it opens the data directory, listens, finds or founds its cluster,
// starts the rooms in order and stops them in reverse.
//
//	Start:  lock ─ identity ─ listen ─ found or join ─ journal, LSM ─ groups ─ doors ─ loops
//	        ◄────────────────────────────── Stop ──────────────────────────────────
//
//	           redis    braid clients    other nodes           console
//	             │            │               │                   │
//	        ┌────▼────────────▼────┐   ┌──────▼──────┐       ┌────▼───┐
//	        │ client (in process)  │   │ node server │       │ admin  │
//	        └────┬─────────────────┘   └──┬───┬───┬──┘       └────────┘
//	             ▼                        │   │   │
//	         tablets ◄────────────────────┘   │   └──► master
//	             │                            ▼
//	             └──────────────────────► multiraft ──► journal
//
// It is the only room, with the simulation, that knows everyone. Clocks, dice,
// disk, network and what a fatal fault does are handed in (Deps).
//
// Invariants:
//
//	N1. An incarnation is on disk before anything is sent under it.
//	N2. After a fatal fault nothing of this incarnation writes, sends or answers.
//	N3. A replica is in the registry before anything of it is written, until
//	    everything of it is gone.
//	N4. A directory of one cluster never serves another.
//	N5. Where a file of the documents is damaged no replica is made, and every one that
//	    is there is reported, until they are gone and the damage with them.
package node
