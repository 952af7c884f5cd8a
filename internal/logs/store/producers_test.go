package store

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// lastOf is what a shard remembers of a producer.
func (b *lab) lastOf(producer uint64) string {
	b.t.Helper()
	a := call(b.s.ProducerLookup, &wire.ProducerLookupRequest{Log: uint64(labLog), Producer: producer, To: uint64(lsn(9, 0)), Limit: 8})
	if a.Status != wire.LogStatus_LOG_STATUS_OK {
		return a.Status.String()
	}
	out := ""
	for _, e := range a.Entries {
		out += fmt.Sprint(e.Sequence, " ")
	}
	if a.Mark != nil {
		out += fmt.Sprintf("left %d at %s", a.Mark.Sequence, logs.LSN(a.Mark.Lsn))
	}
	return out
}

// produce stores a record of a producer.
func (b *lab) produce(producer, sequence uint64, at logs.LSN) {
	b.t.Helper()
	r := rec(at, "p")
	r.Producer, r.Sequence, r.Flags, r.TimestampMs = producer, sequence, logs.FlagProducer, b.clock.WallMs()
	b.put(r)
}

// letGo trims the log, and lets the space of what is trimmed come back.
func (b *lab) letGo(upTo logs.LSN) {
	b.t.Helper()
	if a := call(b.s.Trim, &wire.TrimRequest{Log: uint64(labLog), Lsn: uint64(upTo)}); a.Status != wire.LogStatus_LOG_STATUS_OK {
		b.t.Fatal(a)
	}
	if err := b.s.nextPartition(); err != nil {
		b.t.Fatal(err)
	}
	until(b.t, func() bool {
		rows := b.s.Partitions()
		return len(rows) < 2 || rows[len(rows)-2].EndMs != 0 && !b.written()
	})
	b.s.tidy()
}

// written says whether a partition that is closed is still held by its writer, so that
// it cannot be dropped yet.
func (b *lab) written() bool {
	parts := b.s.shelf.list()
	return slices.ContainsFunc(parts[:len(parts)-1], func(p *partition) bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.refs > 0
	})
}

// TestWhatIsTrimmedOfAProducerIsRemembered (P11): the highest sequence, across a
// restart and a second trim, not what was purged, and for a time after its last record.
func TestWhatIsTrimmedOfAProducerIsRemembered(t *testing.T) {
	b := newLab(t, 60)
	b.opts.PartitionTime = 24 * 365 * time.Hour
	b.open()
	defer func() { b.stop() }()
	for n := logs.ESN(1); n <= 3; n++ {
		b.produce(7, uint64(n), lsn(1, n))
	}
	b.produce(7, 2, lsn(1, 4)) // a hole was filled
	for n := logs.ESN(5); n <= 9; n++ {
		b.produce(8, uint64(n), lsn(1, n))
	}
	done := make(chan error, 1)
	b.s.DeleteCopies(labLog, lsn(1, 8), lsn(1, logs.ESNMax), func(err error) { done <- err })
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	b.release(lsn(1, 6))
	if a := call(b.s.Trim, &wire.TrimRequest{Log: uint64(labLog), Lsn: uint64(lsn(1, 4))}); a.Status != wire.LogStatus_LOG_STATUS_OK {
		t.Fatal(a)
	}
	b.expect("trimmed and there", b.lastOf(7), "2 3 2 1 ")

	b.letGo(lsn(1, 9))
	b.expect("not decided yet", b.lastOf(8), "7 6 5 ")
	b.release(lsn(1, 9))
	b.s.tidy()
	if n := len(b.s.Partitions()); n != 1 {
		t.Errorf("%d partitions, all is trimmed", n)
	}
	b.expect("holes filled", b.lastOf(7), "left 3 at e1n3")
	b.expect("purged", b.lastOf(8), "left 7 at e1n7")

	b.clock.advance(6 * 24 * time.Hour)
	b.produce(8, 8, lsn(1, 10))
	b.release(lsn(1, 10))
	b.letGo(lsn(1, 10))
	b.stop()
	b.open()
	b.expect("a second trim", b.lastOf(8), "left 8 at e1n10")
	b.expect("after six days", b.lastOf(7), "left 3 at e1n3")
	b.clock.advance(25 * time.Hour)
	b.s.tidy()
	b.expect("silent for a week", b.lastOf(7), "")
	b.expect("silent for a day", b.lastOf(8), "left 8 at e1n10")
}

// TestProducersLeftAreBounded: of too many those are forgotten that were silent for longest.
func TestProducersLeftAreBounded(t *testing.T) {
	b := newLab(t, 61)
	b.opts.PartitionTime = 24 * 365 * time.Hour
	b.opts.ProducersKept = 3
	b.open()
	defer b.stop()
	for p := uint64(1); p <= 5; p++ {
		b.produce(p, 10*p, lsn(1, logs.ESN(p)))
		b.clock.advance(time.Second)
	}
	b.release(lsn(1, 5))
	b.letGo(lsn(1, 5))
	b.s.tidy()
	for p, want := range map[uint64]string{1: "", 2: "", 3: "left 30 at e1n3", 4: "left 40 at e1n4", 5: "left 50 at e1n5"} {
		b.expect(fmt.Sprint("producer ", p), b.lastOf(p), want)
	}
}

// FuzzLeft: what decodes of a producer encodes to as much again.
func FuzzLeft(f *testing.F) {
	f.Add((&left{sequence: 1 << 63, lsn: lsn(3, 4), ms: 1_700_000_000_000}).encode(nil))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := decodeLeft(b)
		if err != nil {
			return
		}
		if again, err := decodeLeft(x.encode(nil)); err != nil || again != x {
			t.Fatalf("%+v, encoded and decoded %+v: %v", x, again, err)
		}
	})
}

// TestAPurgeForgetsNoProducer (P11): a shard lost its journal's end, and purges what is
// trimmed of an epoch that it had been told is clean. Of its producer it says what it knows for
// in doubt, until others have shown what the purge took away. Only what is said of
// producers is taken back of what is trimmed.
func TestAPurgeForgetsNoProducer(t *testing.T) {
	b := newLab(t, 66).open()
	defer func() { b.stop() }()
	for n := logs.ESN(1); n <= 6; n++ {
		b.produce(7, uint64(n), lsn(1, n))
	}
	b.put(rec(lsn(1, 7), "q"))
	b.release(lsn(1, 7))
	if a := call(b.s.Trim, &wire.TrimRequest{Log: uint64(labLog), Lsn: uint64(lsn(1, 7))}); a.Status != wire.LogStatus_LOG_STATUS_OK {
		t.Fatal(a)
	}
	all := call(b.s.Records, &wire.RecordsRequest{Log: uint64(labLog), From: uint64(lsn(1, 5)), To: uint64(lsn(1, 9)), Payloads: true}).Records
	b.stop()
	if err := b.openSuspect(); err != nil {
		t.Fatal(err)
	}
	b.fence(labLog, 3)
	b.must(func(done func(error)) { b.s.DeleteCopies(labLog, lsn(1, 6), lsn(1, logs.ESNMax), done) })
	b.must(func(done func(error)) {
		b.s.SetLastClean(labLog, &wire.EpochRecovery{Epoch: 1, SealEpoch: 2, LastKnownGood: 5}, done)
	})
	f := b.fence(labLog, 3)
	if f.err != nil || f.doubt.from > lsn(1, 6) {
		t.Errorf("in doubt is %+v", f)
	}
	b.expect("purged", b.lastOf(7), "LOG_STATUS_AGAIN")
	b.must(func(done func(error)) { b.s.Repair(labLog, f.clean, all, done) })
	b.must(func(done func(error)) { b.s.SetLastClean(labLog, &wire.EpochRecovery{Epoch: 2, SealEpoch: 2}, done) })
	b.must(func(done func(error)) { b.sure(labLog, logs.Compared{Clean: 2, UpTo: lsn(2, logs.ESNMax)}, done) })
	if b.s.endDoubt(); b.s.Suspect() {
		if err := b.s.Listed(); err != nil || b.s.Suspect() {
			t.Errorf("listed %v, in doubt still", err)
		}
	}
	b.expect("compared", b.lastOf(7), "6 5 4 3 2 1 ")
	got := call(b.s.Records, &wire.RecordsRequest{Log: uint64(labLog), From: uint64(lsn(1, 5)), To: uint64(lsn(1, 9))}).Records
	if len(got) != 2 {
		t.Errorf("what is back: %v", got)
	}
}
