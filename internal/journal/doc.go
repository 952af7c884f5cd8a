// Package journal is the node's one fsynced sequence of files: what any of its
// Raft groups or log shards must not lose goes through it, many streams in one
// write and one fdatasync.
//
//	Append ─▶ queue ─▶ worker A: encode, write, fdatasync ─▶ callbacks
//	             └────▶ worker B: the next group, while A tells
//	maintenance: prepares the next segment, lets go of old ones, watches space
//
//	0000000000000007.journal            0000000000000008.journal         ...9.journal
//	┌──────┬───────┬─────┬─────────┐    ┌──────┬───────┬──────┬────────┐ ┌──────┬──────
//	│header│group 1│grp 2│ group 3 │    │header│group 4│zeros │ stale  │ │header│zeros
//	└──────┴───────┴─────┴─────────┘    └──────┴───────┴──────┴────────┘ └──────┴──────
//	 the oldest in use                   the current; behind its last     prepared
//	                                     group stands a sector of zeros
//
// A group is what one write made durable: a header, the roll (the streams of the
// group before and their last sequence there), and records, padded to sectors. A
// stream is a sequence of records of its own numbering; what they mean to it is
// in Kind. A segment is in use from the group that begins it until no stream
// needs anything of it or of an older one. docs/formats/journal.md has the bytes.
//
// Invariants:
//
//	J1. A record is acknowledged only after the sync of its group has returned,
//	    callbacks come in the order of the Appends, and an Append is in one group
//	    or in none.
//	J2. A group is verified by a checksum over content and identity: cluster,
//	    node, incarnation, generation of the segment, offset, and for a record
//	    its stream, sequence, position and kind. What was written elsewhere, by
//	    another, or in an earlier use of the segment is never taken for it.
//	J3. Group N+1 is written only after the sync of group N: its existence
//	    vouches for N and all before it. Groups are numbered without a gap, so a
//	    missing number below an existing one is corruption, and N+1's roll names
//	    the streams that lost something with N.
//	J4. Sectors of a durable group are never written again, but for the last
//	    group at Open, whose same bytes are written once more: it alone can be
//	    in the page cache without being on the disk.
//	J5. With each group the sector behind it becomes zero, and a segment gets its
//	    name only when its first is. So at the end of the journal zeros mean that
//	    nothing was begun there, and anything else is a group that was begun and
//	    does not verify: torn, or acknowledged and damaged since. Nobody here can
//	    tell, and the tail is suspect until Trust, over any number of restarts.
//	J6. Segments leave in order, oldest first. So what makes earlier records void
//	    (KindTruncate, KindStart, KindDrop) never leaves before they do. A file
//	    is reused or removed only once a group that calls it unused is itself
//	    vouched for.
//	J7. After an error of a write or a sync nothing is written, synced or
//	    acknowledged any more; Fatal is called once.
//	J8. A stream found corrupt stays so, whatever becomes of the damaged segment,
//	    until its content is replaced: by a newer KindState and a KindStart, or a
//	    KindDrop.
//	J9. What frees space has space: entries leave half a segment to other
//	    records, and those an eighth to forward rewriting, unless a further
//	    segment is at hand.
//	J10. No refusal leaves a hole: of a stream whose KindEntry was refused with
//	    ErrNoSpace further ones are refused alike until it is written again and
//	    all behind it in order, or a KindTruncate at or below it, a KindStart or
//	    a KindDrop is. Such a record that was refused itself bars its stream too.
//	    Entries of logs stand alone, and states go through.
//
// What can be known at replay, and what is concluded:
//
//	number N missing, N+1 there         corrupt: the streams on N+1's roll
//	several numbers missing             corrupt: every stream not seen whole from its
//	                                    first record on; and suspect, for streams unseen
//	a payload of group N unsound        corrupt: the record's stream, unless a later
//	                                    record has made it void
//	a record's header unsound           corrupt: the streams on the roll whose last
//	                                    record of the group was not read before it
//	such a group, and N+1 as well       as several numbers missing
//	copies of a state or a start,       corrupt: a stream of which nothing newer is there,
//	written forward in group N            unless all of it is, from its first record on
//	the last group unsound              suspect; cut
//	a gap in a stream's sequence        corrupt: the stream
//	the last group gone without trace   nothing: the disk lost or misdirected a write
//	                                    it confirmed, and no later group names it
//
// The last line is the exposure that remains, and why the journal of one node is
// never the only witness of an acknowledgement.
//
// It does not know what is in a record, never reads after Open, and does not
// decide what a suspect or corrupt stream does: its owner asks peers. Positions
// of entries begin at 1.
//
// The ledger (ledger.go), what it has refused (refusals.go), the formats
// (format.go) and the verdict of a replay (replay.go) are deterministic and do no input or output; writer.go, place.go
// and maintain.go are the shell around them, and open.go is the way in.
package journal
