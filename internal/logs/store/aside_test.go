package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/sim/simfs"
	"github.com/braiddb/braid/internal/wire"
)

// asideBy is how many records the files of these tests have: a little more than a block.
const asideBy = 36

// has is what another shard has of everything.
func (b *lab) has(n logs.ESN) (out []*wire.LogRecord) {
	rng := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 1000) // else it shrinks
	for i := logs.ESN(1); i <= n; i++ {
		for j := range noise {
			noise[j] = byte(rng.Uint32())
		}
		out = append(out, rec(lsn(1, i), fmt.Sprintf("<%d>%s", i, noise)))
	}
	return out
}

// filled is a shard whose open partition has n records in several files; the journal has
// let go of them, and in memory is as much as cache holds.
func filled(t *testing.T, seed uint64, n logs.ESN, cache int64) *lab {
	b := newLab(t, seed)
	b.opts.RecordCacheBytes, b.opts.CacheBytes = cache, 1
	b.jopts.SegmentBytes = 32 << 10
	b.open()
	all := b.has(n)
	for i := 0; i < len(all); i += asideBy {
		b.put(all[i:min(i+asideBy, len(all))]...)
		b.s.settled()
		for _, l := range b.s.writable() {
			if err := l.lsm.db.Flush(); err != nil {
				t.Fatal(err)
			}
			l.done()
		}
		b.s.advance()
	}
	b.release(lsn(1, n))
	b.must(func(done func(error)) { b.s.SetLastClean(labLog, &wire.EpochRecovery{Epoch: 1, SealEpoch: 1}, done) })
	b.s.settled()
	return b
}

// spoil flips a bit in one of the files of the partition, in the middle one in time: of
// its first block, in which the index is, or of its second, in which there are payloads.
func (b *lab) spoil(payload bool) {
	b.t.Helper()
	dir := "logs/" + partitionName(1, 1_700_000_000_000)
	names, err := b.fs.List(dir)
	if err != nil {
		b.t.Fatal(err)
	}
	var tables []string
	for _, name := range names {
		if strings.HasSuffix(name, ".sst") {
			tables = append(tables, b.fs.PathJoin(dir, name))
		}
	}
	if len(tables) < 3 {
		b.t.Fatalf("only %d files", len(tables))
	}
	at := int64(40)
	if payload {
		at = 35_500
	}
	if err := b.fs.Flip(tables[len(tables)/2], at*8); err != nil {
		b.t.Fatal(err)
	}
}

// whole reads all, and gives how many records came; nothing that came may say that a
// record is not there.
func (b *lab) whole(n logs.ESN) (records int) {
	b.t.Helper()
	for _, d := range b.read(span(n)) {
		switch {
		case d.Record != nil:
			records++
			if at := logs.LSN(d.Record.Lsn).ESN(); !strings.HasPrefix(string(d.Record.Payload), fmt.Sprintf("<%d>", at)) {
				b.t.Fatalf("%d is %.20q", at, d.Record.Payload)
			}
		case d.Gap != logs.ServerGapChecksum && d.Gap != logs.ServerGapUnderReplicated:
			b.t.Fatalf("%s..%s: gap %d of what was stored", logs.LSN(d.GapFrom), logs.LSN(d.GapTo), d.Gap)
		}
	}
	return records
}

// compared does what the comparer does: it fences the log and brings what another has.
func (b *lab) compared(n logs.ESN) {
	b.t.Helper()
	f := b.fence(labLog, 2)
	if f.err != nil {
		b.t.Fatal(f.err)
	}
	b.must(func(done func(error)) { b.s.Repair(labLog, f.clean, b.has(n), done) })
	found := logs.Compared{Doubt: f.number, Clean: f.clean, UpTo: lsn(2, 0) - 1}
	b.must(func(done func(error)) { b.s.Sure(labLog, found, done) })
	if err := b.s.Listed(); err != nil {
		b.t.Fatal(err)
	}
}

// TestADamagedOpenPartitionIsMadeGood: damage in the partition that takes copies, found
// when the store opens or when something is read, costs what cannot be read. That is in
// doubt until others were asked, and then it is back; meanwhile nobody is told that
// it was never here.
func TestADamagedOpenPartitionIsMadeGood(t *testing.T) {
	const n = 5 * asideBy
	for _, c := range []struct {
		name             string
		payload, running bool
		cache            int64
	}{
		{"index, at open", false, false, 1},
		{"payload, at open", true, false, 1},
		{"index, running", false, true, 1},
		{"payload, running", true, true, 1},
		{"some of it in memory", false, true, n / 2 * 1300},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := filled(t, 70, n, c.cache)
			defer func() { b.stop() }()
			if c.running {
				b.spoil(c.payload)
			} else {
				b.stop()
				b.spoil(c.payload)
				b.open()
			}
			first := b.whole(n)
			if first == n {
				t.Fatal("nothing was damaged")
			}
			b.setAside(n)
			if left := b.whole(n); left < first || c.payload && left < n/2 {
				t.Errorf("of %d records %d were salvaged; before it was set aside %d could be read", n, left, first)
			}
			b.compared(n)
			if got := b.whole(n); got != n || b.s.Suspect() {
				t.Errorf("%d of %d records are back, in doubt: %v", got, n, b.s.Suspect())
			}
			for range 2 {
				b.stop()
				b.open()
				if got := b.whole(n); got != n || b.s.Suspect() {
					t.Errorf("%d of %d records after a restart", got, n)
				}
			}
		})
	}
}

// closeFirst has the next partition begin, and the first one closed.
func (b *lab) closeFirst() {
	b.t.Helper()
	if err := b.s.nextPartition(); err != nil {
		b.t.Fatal(err)
	}
	until(b.t, func() bool { return b.s.Partitions()[0].EndMs != 0 && !b.written() })
}

// TestADamagedClosedPartitionIsMadeGood: damage in a partition that takes no copies any
// more is of what that had, and of nothing else: other logs, and this one further on, take
// copies meanwhile.
func TestADamagedClosedPartitionIsMadeGood(t *testing.T) {
	const n = 5 * asideBy
	for _, c := range []struct {
		name                    string
		payload, opens, running bool
		cache                   int64
	}{
		{"index", false, true, false, 1},
		{"payload", true, true, false, 1},
		{"it does not open", false, false, false, 1},
		{"running", true, true, true, 1},
		{"some of it in memory", false, true, true, n / 2 * 1300},
		{"it does not open, and some of it is in memory", false, false, true, n / 2 * 1300},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := filled(t, 75, n, c.cache)
			defer func() { b.stop() }()
			b.closeFirst()
			b.put(rec(lsn(3, 1), "next"))
			if !c.running {
				b.stop()
			} else if !c.opens {
				p := b.s.shelf.find(1)
				p.mu.Lock()
				if err := b.s.shut(p); err != nil {
					t.Error(err)
				}
				p.mu.Unlock()
			}
			if c.opens {
				b.spoil(c.payload)
			} else {
				b.spoilManifest()
			}
			if !c.running {
				b.open()
			}
			if first := b.whole(n); first == n {
				t.Fatal("nothing was damaged")
			}
			b.setAside(n)
			if left := b.whole(n); c.payload && left < n/2 {
				t.Errorf("of %d records %d were salvaged", n, left)
			}
			if logs := b.s.Unfenced(); len(logs) > 0 {
				t.Errorf("logs %v are to be fenced", logs)
			}
			other := rec(lsn(1, 1), "of another log")
			other.Log = uint64(labLog) + 1
			b.put(rec(lsn(3, 2), "meanwhile"), other)
			if f := b.fence(labLog, 2); f.err != nil || f.doubt != (stretch{lsn(1, 1), lsn(1, n)}) {
				t.Errorf("in doubt is %+v", f)
			}
			b.compared(n)
			for range 3 {
				if got := b.whole(n); got != n || b.s.Suspect() {
					t.Errorf("%d of %d records are back, in doubt: %v", got, n, b.s.Suspect())
				}
				held, err := b.s.extentsOf(1)
				if err != nil || len(held) > 0 {
					t.Errorf("the marks have %v of what was set aside, %v", held, err)
				}
				b.stop()
				b.open()
			}
		})
	}
}

// TestWhoeverFindsThatAPartitionDoesNotOpenHasItSetAside: also who reads no copy, as a
// recovery that asks for the tail of an epoch.
func TestWhoeverFindsThatAPartitionDoesNotOpenHasItSetAside(t *testing.T) {
	b := newLab(t, 76).open()
	defer func() { b.stop() }()
	b.put(rec(lsn(1, 1), "a"), rec(lsn(1, 2), "b"))
	b.closeFirst()
	b.stop()
	b.spoilManifest()
	b.open()
	seal := func() wire.LogStatus {
		return call(b.s.Seal, &wire.SealRequest{Log: uint64(labLog), Epoch: 1, SealedBy: 2}).Status
	}
	if s := seal(); s != statusFailed {
		t.Errorf("sealed: %s", s)
	}
	until(t, func() bool {
		b.clock.advance(houseEvery)
		return b.s.Suspect() && b.s.shelf.find(1) == nil
	})
	if s := seal(); s != statusPartial {
		t.Errorf("sealed in doubt: %s", s)
	}
}

// gone waits until the first partition is set aside; nobody reads.
func (b *lab) gone() {
	b.t.Helper()
	until(b.t, func() bool {
		b.clock.advance(houseEvery)
		return b.s.shelf.find(1) == nil
	})
}

// TestATornJournalAndAClosedPartitionThatDoesNotOpen: the log cannot be fenced before the
// partition is set aside, for its tail cannot be read, and that does not wait for the fence.
func TestATornJournalAndAClosedPartitionThatDoesNotOpen(t *testing.T) {
	const n = 3 * asideBy
	b := filled(t, 91, n, 1)
	defer func() { b.stop() }()
	b.put(rec(lsn(3, 1), "of the epoch that reigns"))
	b.s.settled()
	b.closeFirst()
	b.stop()
	b.spoilManifest()
	if err := b.openSuspect(); err != nil {
		t.Fatal(err)
	}
	if f := b.fence(labLog, 4); !errors.Is(f.err, ErrCorrupt) {
		t.Errorf("fenced: %+v", f)
	}
	b.gone()
	if f := b.fence(labLog, 4); f.err != nil || f.doubt != (stretch{logs.LSNOldest, lsn(4, 0) - 1}) {
		t.Errorf("fenced: %+v", f)
	}
}

// TestADamagedPartitionOfTrimmedRecords (P11): of what is trimmed the producers' sequences
// were there, and are in doubt with the rest.
func TestADamagedPartitionOfTrimmedRecords(t *testing.T) {
	b := newLab(t, 92).open()
	defer func() { b.stop() }()
	for n := logs.ESN(1); n <= 5; n++ {
		b.produce(7, uint64(n), lsn(1, n))
	}
	other := rec(lsn(1, 1), "of another log, which needs the partition")
	other.Log = uint64(labLog) + 1
	b.put(other)
	b.release(lsn(1, 5))
	if a := call(b.s.Trim, &wire.TrimRequest{Log: uint64(labLog), Lsn: uint64(lsn(1, 5))}); a.Status != statusOK {
		t.Fatal(a)
	}
	b.closeFirst()
	b.stop()
	b.spoilManifest()
	b.open()
	b.expect("damaged", b.lastOf(7), "LOG_STATUS_PARTIAL")
	b.gone()
	b.expect("set aside", b.lastOf(7), "LOG_STATUS_AGAIN")
}

// TestOfAnotherLogsPartitionNothingIsLost: the end of a doubt that nobody could tell of is a
// loss only where more than the journal's tail was in doubt: of that log.
func TestOfAnotherLogsPartitionNothingIsLost(t *testing.T) {
	const n = 3 * asideBy
	b := filled(t, 93, n, 1)
	defer func() { b.stop() }()
	b.closeFirst()
	second := rec(lsn(2, 1), "of the second log")
	second.Log = uint64(labLog) + 1
	b.put(second)
	b.s.settled()
	b.stop()
	if err := b.openSuspect(); err != nil {
		t.Fatal(err)
	}
	f, g := b.fence(labLog, 3), b.fence(labLog+1, 4)
	if f.err != nil || g.err != nil || b.s.Listed() != nil {
		t.Fatal(f.err, g.err)
	}
	b.spoil(true)
	b.setAside(n)
	lost := func(id logs.LogID, f fenceAnswer) stretch {
		found := logs.Compared{Doubt: f.number, Clean: f.clean, UpTo: lsn(2, 0) - 1, Weak: true}
		b.must(func(done func(error)) { b.s.Sure(id, found, done) })
		b.s.mu.Lock()
		defer b.s.mu.Unlock()
		return b.s.peek(id).lost()
	}
	if s := lost(labLog+1, g); !s.empty() {
		t.Errorf("of a log that the partition had nothing of, %v is lost", s)
	}
	if s := lost(labLog, b.fence(labLog, 3)); s.empty() {
		t.Error("of the log that it was of nothing is lost")
	}
}

// TestADeletionPassesOverWhatDoesNotOpen: while the store runs, and when the journal has it
// done again; what is not deleted there is not salvaged.
func TestADeletionPassesOverWhatDoesNotOpen(t *testing.T) {
	const n = 3 * asideBy
	b := filled(t, 94, n, 1)
	defer func() { b.stop() }()
	b.put(rec(lsn(2, 1), "x"), rec(lsn(2, 2), "y"))
	b.s.settled()
	b.closeFirst()
	b.stop()
	b.spoilManifest()
	b.open()
	b.must(func(done func(error)) { b.s.DeleteCopies(labLog, lsn(2, 2), lsn(2, 5), done) })
	b.crash(simfs.Crash{}) // so that it is done again
	b.open()
	b.gone()
	b.stop()
	b.open() // the key names a doubt
	a := call(b.s.Records, &wire.RecordsRequest{Log: uint64(labLog), From: uint64(lsn(2, 1)), To: uint64(lsn(2, 9))})
	if len(a.Records) != 0 || !a.Doubt {
		t.Errorf("%v", a)
	}
}

// TestWhatIsSalvagedEndsWhereTheDamageDoes: what is behind it is there, also where the log
// goes on far behind what the partition has.
func TestWhatIsSalvagedEndsWhereTheDamageDoes(t *testing.T) {
	const n = 5 * asideBy
	b := filled(t, 96, n, 1)
	defer func() { b.stop() }()
	b.closeFirst()
	b.put(rec(lsn(3, 1<<30), "far"))
	b.stop()
	b.spoil(true)
	b.open()
	b.whole(n)
	b.setAside(n)
	if left := b.whole(n); left < n-2*asideBy {
		t.Errorf("of %d that the partition had %d were salvaged", n, left)
	}
}

// TestWhatIsComparedWhileAPartitionGoes: the doubt counts, and the key is not durable yet.
// What others have is not taken for held by a partition that is about to go.
func TestWhatIsComparedWhileAPartitionGoes(t *testing.T) {
	const n = 5 * asideBy
	b := filled(t, 95, n, 1)
	defer func() { b.stop() }()
	b.put(rec(lsn(3, 1<<30), "far")) // so that salvage gives up what a look at one LSN finds
	b.s.settled()
	b.closeFirst()
	b.stop()
	b.open()
	b.spoil(true)
	b.whole(n)
	reached, goOn := make(chan struct{}), make(chan struct{})
	var once atomic.Bool
	b.look(func(op simfs.Op) {
		if op.Kind == simfs.OpSync && strings.HasPrefix(op.Path, "logs/marks/") && strings.HasSuffix(op.Path, ".sst") {
			b.s.mu.Lock()
			doubted := b.s.peek(labLog).fenced > 0
			b.s.mu.Unlock()
			if doubted && once.CompareAndSwap(false, true) {
				close(reached)
				<-goOn
			}
		}
	})
	until(t, func() bool {
		b.clock.advance(houseEvery)
		select {
		case <-reached:
			return true
		default:
			return false
		}
	})
	f := b.fence(labLog, 2)
	var one, other []*wire.LogRecord // what two other shards have
	for _, r := range b.has(n) {
		if _, err := b.s.holds(r); err == nil {
			one = append(one, r)
		} else {
			other = append(other, r)
		}
	}
	b.must(func(done func(error)) { b.s.Repair(labLog, f.clean, one, done) }) // answered while the marks are flushed
	close(goOn)
	until(t, func() bool { return b.s.shelf.find(1) == nil })
	b.must(func(done func(error)) { b.s.Repair(labLog, f.clean, other, done) }) // answered later
	b.must(func(done func(error)) {
		b.s.Sure(labLog, logs.Compared{Doubt: f.number, Clean: f.clean, UpTo: lsn(4, 0) - 1}, done)
	})
	if err := b.s.Listed(); err != nil {
		t.Fatal(err)
	}
	if got := b.whole(n); got != n {
		t.Errorf("%d of %d are here, in doubt: %v", got, n, b.s.Suspect())
	}
}

// spoilManifest flips a bit of what says which files the first partition has.
func (b *lab) spoilManifest() {
	b.t.Helper()
	dir := "logs/" + partitionName(1, 1_700_000_000_000)
	names, err := b.fs.List(dir)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasPrefix(name, "MANIFEST") {
			if err := b.fs.Flip(b.fs.PathJoin(dir, name), 20*8); err != nil {
				b.t.Fatal(err)
			}
		}
	}
}

// setAside waits until the first partition is, while somebody reads.
func (b *lab) setAside(n logs.ESN) {
	b.t.Helper()
	until(b.t, func() bool {
		b.clock.advance(houseEvery)
		b.whole(n)
		return b.s.Suspect() && b.s.shelf.find(1) == nil
	})
}

// TestASpoiltPartitionInAnyPiece cuts the power while a store sets a partition aside:
// in the life after that nothing is said not to be there, and what is in doubt comes back.
func TestASpoiltPartitionInAnyPiece(t *testing.T) {
	for _, closed := range []bool{false, true} {
		t.Run(fmt.Sprintf("closed %v", closed), func(t *testing.T) { spoiltInAnyPiece(t, closed) })
	}
}

func spoiltInAnyPiece(t *testing.T, closed bool) {
	const n = 4 * asideBy
	b := filled(t, 71, n, 1)
	if closed {
		b.closeFirst()
	}
	b.stop()
	whole := b.fs
	for _, cut := range []struct {
		name string
		at   func(op simfs.Op) bool
	}{
		{"salvaged", func(op simfs.Op) bool {
			return op.Kind == simfs.OpSync && strings.Contains(op.Path, "/p-0000000000000002-")
		}},
		{"doubt", func(op simfs.Op) bool { return op.Kind == simfs.OpSync && strings.HasPrefix(op.Path, "journal/") }},
		{"noted", func(op simfs.Op) bool { return op.Kind == simfs.OpSync && strings.HasPrefix(op.Path, "logs/marks/") }},
		{"renamed", func(op simfs.Op) bool { return op.Kind == simfs.OpRename && strings.Contains(op.Path, asidePrefix) }},
	} {
		for _, after := range []bool{false, true} {
			b.fs = whole.Copy()
			b.open()
			b.spoil(closed) // of a closed one that does not open nothing is salvaged
			b.whole(n)
			fs := b.fs
			if !closed {
				if err := b.s.nextPartition(); err != nil { // as the house would, but Pebble does not bear a crash there
					t.Fatal(err)
				}
			}
			b.s.shelf.mu.Lock()
			fs.SetFault(func(op simfs.Op) simfs.Fault { return simfs.Fault{Crash: cut.at(op), After: after} })
			b.s.shelf.mu.Unlock()
			until(t, func() bool { // the house looks for those that are closed
				if closed && !fs.Down() {
					b.clock.advance(houseEvery)
				}
				return fs.Down()
			})
			for dice := range uint64(4) {
				b.fs = fs.Copy().Crash(simfs.Crash{Names: 50, Sectors: 50, Tear: 50, Dice: dice})
				b.fs.SetFault(nil)
				old := b.s
				b.open()
				old.abandon()
				b.whole(n)
				b.setAside(n)
				b.compared(n)
				if got := b.whole(n); got != n || b.s.Suspect() {
					t.Errorf("%s, after: %v: %d of %d records are back, in doubt: %v", cut.name, after, got, n, b.s.Suspect())
				}
				b.stop()
			}
		}
	}
}

// TestWhatIsSalvagedReplacesNothing: of a copy that was stored once more, in a newer
// partition, that one counts.
func TestWhatIsSalvagedReplacesNothing(t *testing.T) {
	const n = 3 * asideBy
	b := filled(t, 72, n, 1)
	defer func() { b.stop() }()
	b.spoil(true)
	b.whole(n)
	b.s.mu.Lock()
	p := b.s.open
	p.pending++ // or it is set aside at once
	b.s.mu.Unlock()
	if err := b.s.nextPartition(); err != nil {
		t.Fatal(err)
	}
	again := b.has(1)[0]
	again.Copyset = []uint64{uint64(labShard), uint64(others[1])}
	b.must(func(done func(error)) {
		b.s.HandleBatch(&wire.LogBatch{FromNode: 2, ToNode: 1, Stores: []*wire.Store{{Record: again, SealEpoch: 1}}}, func(a *wire.LogBatch) { done(nil) })
	})
	b.s.settled()
	b.s.mu.Lock()
	p.pending--
	b.s.mu.Unlock()
	b.setAside(n)
	a := call(b.s.Records, &wire.RecordsRequest{Log: uint64(labLog), From: uint64(lsn(1, 1)), To: uint64(lsn(1, 1))})
	if len(a.Records) != 1 || a.Records[0].Copyset[1] != uint64(others[1]) {
		t.Errorf("%v", a.Records)
	}
}

// TestAnEarlierComparisonEndsNoLaterDoubt: a partition is set aside while others are
// asked about a torn journal. What they say then does not end the doubt of the partition, though
// the log was fenced for it meanwhile.
func TestAnEarlierComparisonEndsNoLaterDoubt(t *testing.T) {
	const n = 5 * asideBy
	b := filled(t, 74, n, 1)
	defer func() { b.stop() }()
	b.stop()
	if err := b.openSuspect(); err != nil {
		t.Fatal(err)
	}
	f := b.fence(labLog, 2)
	b.spoil(true)
	b.setAside(n)
	for _, fenced := range []bool{false, true} {
		late := make(chan error, 1)
		b.s.Sure(labLog, logs.Compared{Doubt: f.number, Clean: f.clean, UpTo: lsn(2, 0) - 1}, func(err error) { late <- err })
		if err := <-late; !errors.Is(err, ErrDoubtMeanwhile) {
			t.Fatalf("fenced again %v: sure of what was asked before the partition was set aside: %v", fenced, err)
		}
		if !fenced {
			b.fence(labLog, 2)
		}
		b.whole(n)
	}
	b.compared(n)
	if got := b.whole(n); got != n || b.s.Suspect() {
		t.Errorf("%d of %d records are back, in doubt: %v", got, n, b.s.Suspect())
	}
}

// TestTheKeyOfAPartitionThatWasMovedGoes: the key that keeps a partition from being opened
// stays as long as its directory may have its own name in the next life, also where the life
// that renamed it did not come to sync that, and no longer.
func TestTheKeyOfAPartitionThatWasMovedGoes(t *testing.T) {
	const n = 3 * asideBy
	keys := func(b *lab) int {
		b.t.Helper()
		all, err := b.s.loadAsides()
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	for _, killed := range []bool{false, true} {
		b := filled(t, 75, n, 1)
		b.spoil(true)
		if fs := b.fs; killed {
			b.fs.SetFault(func(op simfs.Op) simfs.Fault {
				return simfs.Fault{Crash: op.Kind == simfs.OpRename && strings.Contains(op.Path, asidePrefix), After: true}
			})
			until(t, func() bool {
				if !fs.Down() {
					b.clock.advance(houseEvery)
					call(b.s.Records, &wire.RecordsRequest{Log: uint64(labLog), To: uint64(logs.LSNMax), Payloads: true})
				}
				return fs.Down()
			})
			b.fs = fs.Kill()
			b.fs.SetFault(nil)
			b.s.abandon()
			_ = b.j.Close()
		} else {
			b.setAside(n)
			if got := keys(b); got != 1 {
				t.Errorf("%d keys for a partition that was set aside in this life", got)
			}
			b.stop()
		}
		for range 3 {
			b.open()
			if got := keys(b); got != 0 {
				t.Errorf("killed %v: %d keys", killed, got)
			}
			if b.s.shelf.find(1) != nil {
				t.Fatalf("killed %v: the partition is back", killed)
			}
			b.whole(n)
			if err := b.s.marks.flush(); err != nil {
				t.Fatal(err)
			}
			b.crash(simfs.Crash{})
		}
		b.open()
		b.compared(n)
		if got := b.whole(n); got != n || b.s.Suspect() {
			t.Errorf("killed %v: %d of %d records are back, in doubt: %v", killed, got, n, b.s.Suspect())
		}
		b.stop()
	}
}
