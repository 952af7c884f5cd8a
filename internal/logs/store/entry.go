package store

import (
	"cmp"
	"encoding/binary"
	"fmt"

	"github.com/braiddb/braid/internal/journal"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// What the shard writes to its stream of the journal.
const (
	kindCopies = journal.KindLogFirst // copies of records
	kindMarks  = journal.KindLogMark  // what fences or frees
)

const entryVersion = 1

// entryHead is what a journal entry of copies begins with: version, partition.
const entryHead = 9

// copyHead is what stands before each copy: log, LSN, precedence.
const copyHead = 24

// entry is one copy in memory; its bytes are those of its batch.
type entry struct {
	log        logs.LogID
	lsn        logs.LSN
	precedence uint64
	flags      uint32
	esnGood    logs.ESN // last known good
	timestamp  int64
	amend      bool
	header     []byte
	payload    []byte // nil: none of its own
}

func (e *entry) kind() copyKind {
	if e.amend {
		return kindAmend
	}
	return kindWhole
}

// compare orders copies of a log: by LSN, and of one LSN the winner first.
func (e *entry) compare(f *entry) int {
	switch {
	case e.lsn != f.lsn:
		return cmp.Compare(e.lsn, f.lsn)
	case e.precedence != f.precedence:
		return cmp.Compare(f.precedence, e.precedence)
	}
	return cmp.Compare(e.kind(), f.kind())
}

// appendCopy encodes a copy into a journal entry.
func appendCopy(dst []byte, r *wire.LogRecord, amend bool) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, r.Log)
	dst = binary.LittleEndian.AppendUint64(dst, r.Lsn)
	dst = binary.LittleEndian.AppendUint64(dst, logs.Precedence(r))
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	dst = appendHeader(dst, r, amend)
	binary.LittleEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
	if amend {
		return binary.AppendUvarint(dst, 0)
	}
	return appendBytes(dst, r.Payload)
}

// copyBytesMax bounds what appendCopy adds.
func copyBytesMax(r *wire.LogRecord) int {
	return copyHead + 4 + 100 + 10*len(r.Copyset) + len(r.FindKey) + len(r.FilterKey) + 25*len(r.Origins) + len(r.Payload) + 10
}

// decodeCopies reads a journal entry of copies: the partition they go to, and
// the copies, which alias b.
func decodeCopies(b []byte) (partition uint64, out []entry, err error) {
	d := decoder{b: b}
	if v := d.byte(); v != entryVersion {
		return 0, nil, fmt.Errorf("%w: journal entry of copies has version %d, not %d", ErrCorrupt, v, entryVersion)
	}
	partition = d.fixed64()
	for len(d.b) > 0 && !d.bad {
		e := entry{log: logs.LogID(d.fixed64()), lsn: logs.LSN(d.fixed64()), precedence: d.fixed64()}
		e.header = d.take(uint64(d.fixed32()))
		payload := d.take(d.uvarint())
		if d.bad {
			break
		}
		h, err := decodeHeader(e.header, e.log, e.lsn, e.precedence)
		if err != nil {
			return 0, nil, fmt.Errorf("journal entry of copies: %w", err)
		}
		if h.hasPayload() != (len(payload) > 0) {
			return 0, nil, fmt.Errorf("%w: journal entry of copies: %s of log %d and its payload disagree", ErrCorrupt, e.lsn, e.log)
		}
		e.flags, e.esnGood, e.timestamp, e.amend = h.flags, h.good, h.timestamp, h.amend()
		if len(payload) > 0 {
			e.payload = payload
		}
		out = append(out, e)
	}
	if d.bad {
		return 0, nil, fmt.Errorf("%w: journal entry of copies is cut short", ErrCorrupt)
	}
	return partition, out, nil
}

// markKind says what a mark does to its log. Numbers are for ever.
type markKind uint8

const (
	markSeal    markKind = 1 // number: epoch; by: node
	markTrim    markKind = 2 // number: LSN; by: its timestamp in ms
	markClean   markKind = 3 // body: wire.EpochRecovery
	markPurged  markKind = 4 // number: epoch up to which all is clean here; body as markClean, or empty
	markDelete  markKind = 5 // copies from number to by are gone
	markFence   markKind = 6 // number: the epoch store's next epoch; by: the doubt; body: the first LSN that may be lost
	markRelease markKind = 7 // number: LSN
	markBase    markKind = 8 // number: epoch; by: payloads before it
	markSure    markKind = 9 // number: LSN up to which a doubt is over; by: that doubt; body: empty, or encodeLost
)

// encodeLost is the body of a markSure if what was in doubt is lost, as far as it was
// here, and nobody could tell what it was: all of it, or a part.
func encodeLost(part stretch) []byte {
	b := []byte{1}
	if !part.empty() {
		b = binary.AppendUvarint(b, uint64(part.from))
		b = binary.AppendUvarint(b, uint64(part.to))
	}
	return b
}

// decodeLost gives the part, and whether anything is lost; an empty part is all.
func decodeLost(b []byte) (part stretch, lost bool) {
	if len(b) < 2 {
		return stretch{from: 1}, len(b) > 0
	}
	d := decoder{b: b[1:]}
	part = stretch{logs.LSN(d.uvarint()), logs.LSN(d.uvarint())}
	if d.bad { // all of it, to be safe
		part = stretch{from: 1}
	}
	return part, true
}

// mark is one change of what a shard holds to be true of a log.
type mark struct {
	kind   markKind
	log    logs.LogID
	number uint64
	by     uint64
	body   []byte
}

func appendMark(dst []byte, m *mark) []byte {
	dst = append(dst, byte(m.kind))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(m.log))
	dst = binary.AppendUvarint(dst, m.number)
	dst = binary.AppendUvarint(dst, m.by)
	return appendBytes(dst, m.body)
}

func encodeMarks(ms []mark) []byte {
	b := []byte{entryVersion}
	for i := range ms {
		b = appendMark(b, &ms[i])
	}
	return b
}

// decodeMarks reads a journal entry of marks; bodies alias b.
func decodeMarks(b []byte) ([]mark, error) {
	d := decoder{b: b}
	if v := d.byte(); v != entryVersion {
		return nil, fmt.Errorf("%w: journal entry of marks has version %d, not %d", ErrCorrupt, v, entryVersion)
	}
	var out []mark
	for len(d.b) > 0 && !d.bad {
		m := mark{kind: markKind(d.byte()), log: logs.LogID(d.fixed64()), number: d.uvarint(), by: d.uvarint(), body: d.bytes()}
		if m.kind < markSeal || m.kind > markSure {
			d.bad = true
		}
		out = append(out, m)
	}
	if d.bad {
		return nil, fmt.Errorf("%w: journal entry of marks does not decode", ErrCorrupt)
	}
	return out, nil
}

// putPartition fills in where an entry's copies go.
func putPartition(b []byte, id uint64) { binary.LittleEndian.PutUint64(b[1:], id) }
