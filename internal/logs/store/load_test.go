package store

import (
	"testing"

	"github.com/braiddb/braid/internal/journal"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// journalForgets has the journal let go of all that the shard's LSMs have: others
// go on until its segments are reused.
func (b *lab) journalForgets() {
	b.t.Helper()
	other := journal.StreamID(5)
	for pos := uint64(1); pos < 60; pos++ {
		wait := make(chan error, 1)
		b.j.Append([]journal.Record{{Stream: other, Kind: journal.KindEntry, Pos: pos, Payload: make([]byte, 1000)}}, func(err error) { wait <- err })
		if err := <-wait; err != nil {
			b.t.Fatal(err)
		}
		b.j.SetLowWater(other, pos)
	}
}

// TestMetadataLogsOutliveTheJournal: copies of a metadata log that only the marks'
// LSM has are found after a restart. Without them readers from the oldest would be
// told that epochs before a change of the nodeset hold nothing.
func TestMetadataLogsOutliveTheJournal(t *testing.T) {
	b := newLab(t, 61)
	b.jopts.SegmentBytes, b.jopts.SegmentsMax = 16<<10, 8
	b.open()
	defer func() { b.stop() }()
	second := labLog + 1
	for _, id := range []logs.LogID{labLog, second} {
		for _, e := range []logs.Epoch{1, 4} {
			body, err := (&wire.EpochMetadata{Epoch: uint32(e), EffectiveSince: uint32(e), Nodeset: []uint64{1, 2}}).MarshalVT()
			if err != nil {
				t.Fatal(err)
			}
			r := rec(lsn(e, 1), string(body))
			r.Log, r.Flags = uint64(id.MetadataLog()), logs.FlagMetadata
			b.put(r)
		}
	}
	if err := b.s.nextPartition(); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { return b.s.Partitions()[0].EndMs > 0 })
	if err := b.s.marks.db.Flush(); err != nil {
		t.Fatal(err)
	}
	b.s.advance()
	b.journalForgets()
	b.stop()
	b.open()
	if r := b.s.o.Recovered; r != nil && len(r.Records) > 0 {
		t.Fatalf("the journal still has %d records", len(r.Records))
	}
	for _, id := range []logs.LogID{labLog, second} {
		a := call(b.s.ReadMetadata, &wire.ReadMetadataRequest{Log: uint64(id)})
		if a.Status != statusOK || len(a.Metadata) != 2 || a.Metadata[0].EffectiveSince != 1 || a.Metadata[1].EffectiveSince != 4 {
			t.Errorf("metadata of log %d after a restart: %v", id, a)
		}
		var got []logs.LSN
		for _, d := range b.read(&wire.ReadStartRequest{Log: uint64(id.MetadataLog()), From: uint64(lsn(1, 1)), Until: uint64(lsn(4, 1))}) {
			if d.Record != nil {
				got = append(got, logs.LSN(d.Record.Lsn))
			}
		}
		if len(got) != 2 || got[0] != lsn(1, 1) || got[1] != lsn(4, 1) {
			t.Errorf("a reader of metadata log %d is given %v after a restart", id, got)
		}
	}
}
