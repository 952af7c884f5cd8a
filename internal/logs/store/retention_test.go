package store

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/journal"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// fillPartitions makes partitions of an hour each, with ten records of labLog
// and one of the log after it.
func (b *lab) fillPartitions(n int) {
	b.t.Helper()
	for i := range n {
		for k := range 10 {
			r := rec(lsn(1, logs.ESN(i*10+k+1)), fmt.Sprintf("payload %d", i*10+k+1))
			r.TimestampMs = b.clock.WallMs()
			b.put(r)
		}
		r := rec(lsn(1, logs.ESN(i+1)), "other")
		r.Log, r.TimestampMs = uint64(labLog)+1, b.clock.WallMs()
		b.put(r)
		last := lsn(1, logs.ESN(i*10+10))
		b.release(last)
		b.s.HandleBatch(&wire.LogBatch{Releases: []*wire.Release{{Log: r.Log, Released: r.Lsn, Epoch: 1}}}, nil)
		b.clock.advance(time.Hour)
		if err := b.s.nextPartition(); err != nil {
			b.t.Fatal(err)
		}
		until(b.t, func() bool {
			for _, p := range b.s.Partitions() {
				if p.EndMs == 0 && !p.Writable {
					return false
				}
			}
			return true
		})
	}
}

func until(t testing.TB, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatal("it does not come")
		}
		<-time.After(time.Millisecond)
	}
}

func TestTheBacklogDropsWholePartitions(t *testing.T) {
	b := newLab(t, 50)
	b.opts.PartitionTime = 24 * 365 * time.Hour
	b.opts.Attributes = attributes((150 * time.Minute).Milliseconds())
	b.open()
	b.fillPartitions(5)
	b.s.tidy()
	if got := len(b.s.Partitions()); got != 3 {
		t.Errorf("%d partitions are left, want two of five and the open one", got)
	}
	b.stop()
	b.open()
	defer b.stop()
	b.expect("trimmed", text(b.read(&wire.ReadStartRequest{From: uint64(lsn(1, 21)), Until: uint64(lsn(1, 32))})),
		"trim[e1n21 e1n30] e1n31=payload 31 e1n32=payload 32")
}

func TestALogThatIsKeptKeepsItsPartitions(t *testing.T) {
	b := newLab(t, 51)
	b.opts.PartitionTime = 24 * 365 * time.Hour
	hour := time.Hour.Milliseconds()
	b.opts.Attributes = func(id logs.LogID) (*catalog.LogAttributes, bool) {
		if id == labLog {
			return &catalog.LogAttributes{BacklogMs: &hour}, true
		}
		return &catalog.LogAttributes{}, true
	}
	b.open()
	defer func() { b.stop() }()
	b.fillPartitions(3)
	for range 3 { // trims, then thins out
		b.s.tidy()
	}
	rows := b.s.Partitions()
	if len(rows) != 4 || rows[0].Bytes > 200 { // of eleven records one is left
		t.Errorf("%d partitions, the first with %d bytes", len(rows), rows[0].Bytes)
	}
	req := &wire.ReadStartRequest{Log: uint64(labLog) + 1, From: uint64(lsn(1, 1)), Until: uint64(lsn(1, 3))}
	b.expect("kept", text(b.read(req)), "e1n1=other e1n2=other e1n3=other")
	b.stop()
	b.open()
	b.expect("kept", text(b.read(req)), "e1n1=other e1n2=other e1n3=other")
	b.expect("trimmed", text(b.read(&wire.ReadStartRequest{From: uint64(lsn(1, 1)), Until: uint64(lsn(1, 20))})), "trim[e1n1 e1n20]")
}

func TestARemovedLogIsKeptForItsGrace(t *testing.T) {
	b := newLab(t, 52)
	b.opts.PartitionTime = 24 * 365 * time.Hour
	b.opts.RemovedGrace = time.Hour
	b.opts.Attributes = func(logs.LogID) (*catalog.LogAttributes, bool) { return nil, false }
	b.open()
	defer b.stop()
	b.fillPartitions(2)
	b.s.tidy()
	if got := len(b.s.Partitions()); got != 3 {
		t.Errorf("%d partitions right after the removal", got)
	}
	b.clock.advance(61 * time.Minute)
	b.s.tidy()
	b.s.tidy()
	if got := len(b.s.Partitions()); got > 2 {
		t.Errorf("%d partitions after the grace", got)
	}
}

// TestRestartWithManyPartitions: closed partitions are not opened to know what
// they have, few are open at once, and all can be read.
func TestRestartWithManyPartitions(t *testing.T) {
	b := newLab(t, 53)
	b.opts.PartitionTime = 24 * 365 * time.Hour
	b.opts.PartitionsOpen = 3
	b.open()
	b.fillPartitions(40)
	b.stop()
	b.open()
	defer b.stop()
	opened := func() (n int) {
		for _, p := range b.s.Partitions() {
			if p.Open {
				n++
			}
		}
		return n
	}
	if n := opened(); n > 1 {
		t.Errorf("%d partitions are open after a restart", n)
	}
	got := b.read(&wire.ReadStartRequest{From: uint64(lsn(1, 1)), Until: uint64(lsn(1, 400))})
	if len(got) != 400 {
		t.Errorf("%d deliveries of 400 records", len(got))
	}
	until(t, func() bool { return opened() <= 4 })
	size := call(b.s.DataSize, &wire.DataSizeRequest{Log: uint64(labLog), ToMs: 1 << 60})
	half := call(b.s.DataSize, &wire.DataSizeRequest{Log: uint64(labLog), ToMs: b.clock.WallMs() - 20*time.Hour.Milliseconds()})
	if size.Bytes < 400*20 || half.Bytes*10 < size.Bytes*4 || half.Bytes*10 > size.Bytes*6 {
		t.Errorf("%d bytes, half of the time has %d", size.Bytes, half.Bytes)
	}
}

func TestFindAgreesWithASearch(t *testing.T) {
	b := newLab(t, 54)
	b.opts.PartitionTime = 24 * 365 * time.Hour
	b.open()
	defer func() { b.stop() }()
	var all []*wire.LogRecord
	for i := range 120 {
		r := rec(lsn(1+logs.Epoch(i/50), logs.ESN(i%50*3+1)), "x")
		r.TimestampMs = 1000 + int64(i/2)*10
		if i%3 != 1 {
			r.FindKey = []byte(fmt.Sprintf("%05d", i))
		}
		b.put(r)
		all = append(all, r)
		if i%40 == 39 {
			if err := b.s.nextPartition(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for e := range uint32(2) {
		call(b.s.Clean, &wire.CleanRequest{Log: uint64(labLog), Epoch: e + 1, SealEpoch: 2})
	}
	b.release(logs.LSN(all[len(all)-1].Lsn))
	b.everywhere(func() {
		for ms := int64(990); ms < 1620; ms += 15 {
			low, high := uint64(0), uint64(logs.LSNMax)
			for _, r := range all {
				if r.TimestampMs < ms {
					low = r.Lsn
				} else {
					high = min(high, r.Lsn)
				}
			}
			a := call(b.s.Find, &wire.FindRequest{Log: uint64(labLog), TimestampMs: ms})
			if a.Low != low || a.High != high {
				t.Fatalf("time %d: (%s %s], want (%s %s]", ms, logs.LSN(a.Low), logs.LSN(a.High), logs.LSN(low), logs.LSN(high))
			}
			if a := call(b.s.Find, &wire.FindRequest{Log: uint64(labLog), TimestampMs: ms, Approximate: true}); a.Low > low || a.Low >= a.High {
				t.Fatalf("time %d, about: (%s %s], exactly after %s", ms, logs.LSN(a.Low), logs.LSN(a.High), logs.LSN(low))
			}
		}
		for i := 0; i <= 120; i += 4 {
			key := []byte(fmt.Sprintf("%05d", i))
			low, high := uint64(0), uint64(logs.LSNMax)
			for k, r := range all {
				if r.FindKey != nil && k < i {
					low = r.Lsn
				} else if r.FindKey != nil {
					high = min(high, r.Lsn)
				}
			}
			if a := call(b.s.Find, &wire.FindRequest{Log: uint64(labLog), Key: key}); a.Low != low || a.High != high {
				t.Fatalf("key %s: (%s %s], want (%s %s]", key, logs.LSN(a.Low), logs.LSN(a.High), logs.LSN(low), logs.LSN(high))
			}
		}
	})
}

func TestAProducerIsFound(t *testing.T) {
	b := newLab(t, 55).open()
	defer func() { b.stop() }()
	for i := range logs.ESN(20) {
		r := rec(lsn(1, i+1), "x")
		r.Producer, r.Sequence = 7+uint64(i%2), uint64(i)
		if i%2 == 0 {
			r.Flags |= logs.FlagProducer
		}
		b.put(r)
	}
	gathered := rec(lsn(1, 30), "x")
	gathered.Flags = logs.FlagBatch
	gathered.Origins = []*wire.Origin{{Producer: 7, Sequence: 100, Flags: logs.FlagProducer}, {Producer: 8, Sequence: 101}}
	hole := rec(lsn(1, 19), "")
	hole.Flags, hole.Count = logs.FlagHole|logs.FlagWrittenByRecovery, 0
	b.put(gathered, hole)
	lookup := func(req *wire.ProducerLookupRequest) string {
		req.Log, req.To = uint64(labLog), uint64(lsn(1, 99))
		out := ""
		a := call(b.s.ProducerLookup, req)
		for _, e := range a.Entries {
			out += fmt.Sprintf("%s:%d ", logs.LSN(e.Lsn), e.Sequence)
		}
		return out
	}
	b.everywhere(func() {
		b.expect("newest", lookup(&wire.ProducerLookupRequest{Producer: 7, Limit: 3}), "e1n30:100 e1n19:0 e1n17:16 e1n15:14 ")
		b.expect("session", lookup(&wire.ProducerLookupRequest{Producer: 8, After: uint64(lsn(1, 14))}), "e1n30:101 e1n20:19 e1n19:0 e1n18:17 e1n16:15 ")
		b.expect("from a sequence", lookup(&wire.ProducerLookupRequest{Producer: 8, After: uint64(lsn(1, 14)), FirstSequence: 18}), "e1n30:101 e1n20:19 e1n19:0 ")
	})
}

func TestMetadataLogsNeedNoReleaseAndNoSeal(t *testing.T) {
	b := newLab(t, 56).open()
	defer func() { b.stop() }()
	call(b.s.Seal, &wire.SealRequest{Log: uint64(labLog), Epoch: 100})
	for _, e := range []uint32{5, 2, 9} {
		m := &wire.EpochMetadata{Epoch: e, EffectiveSince: e, Nodeset: []uint64{1, 2}}
		body, err := m.MarshalVT()
		if err != nil {
			t.Fatal(err)
		}
		r := rec(lsn(logs.Epoch(e), 1), string(body))
		r.Log, r.Flags = uint64(labLog.MetadataLog()), logs.FlagMetadata
		b.put(r)
	}
	for range 2 {
		a := call(b.s.ReadMetadata, &wire.ReadMetadataRequest{Log: uint64(labLog)})
		if a.Status != statusOK || len(a.Metadata) != 3 || a.Metadata[0].EffectiveSince != 2 || a.Metadata[2].EffectiveSince != 9 {
			t.Errorf("metadata: %v", a)
		}
		b.stop()
		b.open()
	}
}

// TestNoPositionIsGivenTwice: when the journal has let go of all that a closed
// partition has, the positions it had are still taken.
func TestNoPositionIsGivenTwice(t *testing.T) {
	b := newLab(t, 57)
	b.jopts.SegmentBytes, b.jopts.SegmentsMax = 16<<10, 8
	b.open()
	for i := range logs.ESN(40) {
		b.put(rec(lsn(1, i+1), strings.Repeat("x", 500)))
	}
	if err := b.s.nextPartition(); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { return b.s.Partitions()[0].EndMs > 0 })
	b.s.advance()
	given := b.s.pos
	other := journal.StreamID(5)
	for pos := uint64(1); pos < 60; pos++ { // others go on
		wait := make(chan error, 1)
		b.j.Append([]journal.Record{{Stream: other, Kind: journal.KindEntry, Pos: pos, Payload: make([]byte, 1000)}}, func(err error) { wait <- err })
		if err := <-wait; err != nil {
			t.Fatal(err)
		}
		b.j.SetLowWater(other, pos)
	}
	b.stop()
	b.open()
	defer b.stop()
	if r := b.s.o.Recovered; r != nil && len(r.Records) > 0 {
		t.Fatalf("the journal still has %d records", len(r.Records))
	}
	b.put(rec(lsn(1, 41), "y"))
	if b.s.pos <= given {
		t.Errorf("position %d after %d", b.s.pos, given)
	}
}
