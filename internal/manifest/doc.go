// Package manifest tells whether the manifest of an LSM is as long as it once was.
//
// A Pebble without its own log is as new as its manifest: that file names the tables,
// and every flush, compaction and ingest is a record at its end. Pebble takes a damaged
// record for one that a crash tore, and whatever came after it for never written. So
// one flipped bit makes an older LSM of it, without a word, and by then the journal has
// let go of what was flushed since. The manifest cannot vouch for its own end; a note
// beside it does.
//
//	Pebble ── Create, Write, Sync ─▶ MANIFEST-000007  ███████████▒▒▒
//	              │                                   └── noted ──┘
//	              └─ after each Sync ─▶ VOUCHED: number 7, length, checksum
//
// Guard compares the two before Pebble is let at the directory, and gives it a file
// system that keeps the note from then on. docs/formats/manifest-note.md has the bytes.
//
// Invariants:
//
//	V1. A Sync of a manifest returns only after the note that names its length is
//	    durable. So whoever has heard of a flush, and has the journal let go, is
//	    covered by a note.
//	V2. A note never names more than was synced. So a crash at any point leaves a
//	    manifest that is at least as long as the note says, and what is behind that is
//	    Pebble's to judge: nobody has heard of it.
//	V3. The note has two slots that are written in turn, each in a sector of its own: a
//	    note that was torn leaves the one before it, which asks for less.
//	V4. A new manifest is noted before Pebble makes it the current one, and the note
//	    names the one before it as well, until the new one is synced once more.
//
// It does not repair. What is damaged is refused with ErrDamaged; where there are other
// copies its caller goes there.
package manifest
