package store

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/sim/simfs"
	"github.com/braiddb/braid/internal/wire"
)

// stretchOf is what a fence says of a log.
type fenceAnswer struct {
	number uint64
	doubt  stretch
	clean  logs.Epoch
	err    error
}

func (b *lab) fence(id logs.LogID, next logs.Epoch) fenceAnswer {
	wait := make(chan fenceAnswer, 1)
	b.s.Fence(id, next, b.s.DoubtNumber(), func(d logs.Doubt, err error) {
		wait <- fenceAnswer{d.Number, stretch{d.From, d.To}, d.Clean, err}
	})
	return <-wait
}

// sure ends the doubt that stands.
func (b *lab) sure(id logs.LogID, found logs.Compared, done func(error)) {
	found.Doubt = b.s.doubt.number
	b.s.Sure(id, found, done)
}

// must waits for the outcome of what is done on the shard.
func (b *lab) must(do func(done func(error))) {
	b.t.Helper()
	wait := make(chan error, 1)
	do(func(err error) { wait <- err })
	if err := <-wait; err != nil {
		b.t.Fatal(err)
	}
}

// inDoubt has a shard with epoch 3 clean and epoch 4 stored up to e4n5, all good
// up to e4n2, that loses its tail.
func inDoubt(t *testing.T, seed uint64) *lab {
	b := newLab(t, seed).open()
	b.must(func(done func(error)) { b.s.SetLastClean(labLog, &wire.EpochRecovery{Epoch: 3, SealEpoch: 3}, done) })
	for _, n := range []logs.ESN{1, 2, 3, 5} {
		r := rec(lsn(4, n), string(rune('a'+n)))
		r.LastKnownGood = min(uint32(n)-1, 2)
		b.put(r)
	}
	b.release(lsn(4, 1)) // so the epoch store says that epoch 3 is clean
	b.stop()
	if err := b.openSuspect(); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestADoubtEnds goes from a suspect tail to the end of doubt: what may be lost is
// above what is known to be good, others' copies are taken, and once each epoch
// was compared the shard answers as ever, over restarts too.
func TestADoubtEnds(t *testing.T) {
	b := inDoubt(t, 61)
	asked := make(chan logs.Epoch, 100)
	b.opts.Compare = func(id logs.LogID, sealed logs.Epoch) { asked <- sealed }
	b.crash(simfs.Crash{})
	b.open()
	defer func() { b.stop() }()
	if got := b.s.Unfenced(); !slices.Equal(got, []logs.LogID{labLog}) {
		t.Fatalf("unfenced: %v", got)
	}
	if a := call(b.s.Clean, &wire.CleanRequest{Log: uint64(labLog), Epoch: 4, SealEpoch: 4}); a.Status != statusAgain {
		t.Errorf("a clean before the fence, which would hide what may be lost: %v", a)
	}
	b.release(lsn(4, 5)) // says that all up to it is stored: of this life, not of the one before
	f := b.fence(labLog, 6)
	if want := (stretch{lsn(4, 3), lsn(6, 0) - 1}); f.err != nil || f.doubt != want || f.clean != 3 {
		t.Fatalf("fenced: %+v, want %v", f, want)
	}
	if again := b.fence(labLog, 9); again.doubt != f.doubt {
		t.Errorf("fenced again: %+v", again)
	}
	b.expect("released after the fence", text(b.read(&wire.ReadStartRequest{From: uint64(lsn(4, 1)), Until: uint64(lsn(4, 5))})),
		"e4n1=b e4n2=c e4n3=d under[e4n4 e4n4] e4n5=f")

	seal := func(e uint32) *wire.SealResponse {
		return call(b.s.Seal, &wire.SealRequest{Log: uint64(labLog), Epoch: e, LastCleanEpoch: 3})
	}
	for len(asked) > 0 {
		<-asked
	}
	if a := seal(4); a.Status != statusPartial {
		t.Errorf("seal of an epoch in doubt: %v", a)
	}
	if e := <-asked; e != 4 {
		t.Errorf("asked to compare up to epoch %d", e)
	}
	lost := rec(lsn(4, 4), "lost")
	older := rec(lsn(4, 5), "older")
	older.Wave = 0
	b.must(func(done func(error)) { b.s.Repair(labLog, 3, []*wire.LogRecord{lost, older}, done) })
	if got := b.s.Metrics().Repaired; got != 1 {
		t.Errorf("%d copies were taken, one was missing", got)
	}
	late := make(chan error, 1)
	b.s.Repair(labLog, 2, []*wire.LogRecord{rec(lsn(3, 9), "undecided")}, func(err error) { late <- err })
	if err := <-late; !errors.Is(err, ErrCleanMeanwhile) {
		t.Errorf("a copy of an epoch that is clean meanwhile: %v", err)
	}
	b.must(func(done func(error)) { b.sure(labLog, logs.Compared{Clean: 3, UpTo: lsn(4, logs.ESNMax)}, done) })
	if a := seal(4); a.Status != statusOK || a.Epochs[0].MaxSeen != 5 {
		t.Errorf("seal of an epoch that was compared: %v", a)
	}
	if d := call(b.s.Digest, &wire.DigestRequest{Log: uint64(labLog), Epoch: 4, From: 3, To: 9, SealEpoch: 4}); d.Status != statusOK ||
		len(d.Records) != 3 || string(d.Records[1].Payload) != "lost" || string(d.Records[2].Payload) != "f" {
		t.Errorf("digest: %v", d)
	}
	if a := seal(5); a.Status != statusPartial {
		t.Errorf("seal of the epoch that reigned: %v", a)
	}
	if err := b.s.Listed(); err != nil || !b.s.Suspect() {
		t.Fatalf("listed with a log in doubt: %v, suspect %v", err, b.s.Suspect())
	}
	b.crash(simfs.Crash{})
	b.open()
	if a := seal(5); a.Status != statusPartial {
		t.Errorf("after a crash: %v", a)
	}
	if a := call(b.s.CheckSeal, &wire.CheckSealRequest{Log: 99}); a.Status != statusOK {
		t.Errorf("another log, though all were listed: %v", a)
	}
	b.must(func(done func(error)) { b.sure(labLog, logs.Compared{Clean: 3, UpTo: lsn(5, logs.ESNMax)}, done) })
	if b.s.endDoubt(); !b.s.Suspect() {
		t.Error("the doubt is over with epochs that may have been clean, and may be purged")
	}
	for e := uint32(4); e <= 5; e++ {
		call(b.s.Digest, &wire.DigestRequest{Log: uint64(labLog), Epoch: e, From: 1, To: uint32(logs.ESNMax), SealEpoch: 5})
		if a := call(b.s.Clean, &wire.CleanRequest{Log: uint64(labLog), Epoch: e, SealEpoch: 5}); a.Status != statusOK {
			t.Fatalf("clean: %v", a)
		}
	}
	b.s.endDoubt()
	if b.s.Suspect() {
		t.Error("the doubt of the last log is over, and the shard's is not")
	}
	b.crash(simfs.Crash{})
	b.open()
	if a := seal(5); b.s.Suspect() || a.Status != statusOK {
		t.Errorf("after the end: suspect %v, %v", b.s.Suspect(), a)
	}
}

// TestASecondDoubtDoesNotEndTheFirst: what was in doubt and not compared is in
// doubt still after another bad tail.
func TestASecondDoubtDoesNotEndTheFirst(t *testing.T) {
	b := inDoubt(t, 62)
	b.fence(labLog, 6)
	b.put(rec(lsn(5, 7), "later"))
	later := rec(lsn(4, 6), "says that more is good, of which some may be lost")
	later.LastKnownGood = 5
	b.must(func(done func(error)) { b.s.Repair(labLog, 3, []*wire.LogRecord{later}, done) })
	b.stop()
	if err := b.openSuspect(); err != nil {
		t.Fatal(err)
	}
	defer b.stop()
	if f := b.fence(labLog, 7); f.doubt != (stretch{lsn(4, 3), lsn(7, 0) - 1}) {
		t.Errorf("%+v", f)
	}
}

// TestMetadataInDoubt: a shard that may have lost a metadata log says so until
// that was compared, one log at a time.
func TestMetadataInDoubt(t *testing.T) {
	b := inDoubt(t, 63)
	defer func() { b.stop() }()
	read := func(id logs.LogID) wire.LogStatus {
		return call(b.s.ReadMetadata, &wire.ReadMetadataRequest{Log: uint64(id)}).Status
	}
	if read(labLog) != statusPartial || read(98) != statusPartial {
		t.Fatal("a lost metadata log passes for one that never was")
	}
	meta := rec(logs.MakeLSN(4, 1), "meta")
	meta.Log = uint64(labLog.MetadataLog())
	b.must(func(done func(error)) { b.s.Repair(labLog.MetadataLog(), 0, []*wire.LogRecord{meta}, done) })
	b.must(func(done func(error)) { b.sure(labLog.MetadataLog(), logs.Compared{Clean: 0, UpTo: logs.LSNMax}, done) })
	b.stop()
	b.open()
	if v, _, _ := b.s.firstCopy(labLog.MetadataLog(), 1, logs.LSNMax); v.lsn != logs.MakeLSN(4, 1) {
		t.Error("the copy is not here")
	}
	if read(98) != statusPartial {
		t.Error("another log's was not compared")
	}
	if err := b.s.Listed(); err != nil || read(98) != statusOK {
		t.Errorf("listed: %v, %v", err, read(98))
	}
}

// TestUnknownLogsLeaveNoState: requests about logs that neither the shard nor the
// catalog knows are refused, and cost no memory.
func TestUnknownLogsLeaveNoState(t *testing.T) {
	b := newLab(t, 64)
	b.opts.Attributes = func(id logs.LogID) (*catalog.LogAttributes, bool) {
		return &catalog.LogAttributes{}, id.DataLog() == labLog || id.DataLog() == labLog+1
	}
	b.open()
	defer b.stop()
	b.put(rec(lsn(1, 1), "a"))
	before := b.s.Metrics().Logs
	for id := uint64(1000); id < 1100; id++ {
		for name, status := range map[string]wire.LogStatus{
			"Find":           call(b.s.Find, &wire.FindRequest{Log: id}).Status,
			"DataSize":       call(b.s.DataSize, &wire.DataSizeRequest{Log: id}).Status,
			"ReadStart":      call(b.s.ReadStart, &wire.ReadStartRequest{Log: id, Until: 9}).Status,
			"Trim":           call(b.s.Trim, &wire.TrimRequest{Log: id, Lsn: 9}).Status,
			"Seal":           call(b.s.Seal, &wire.SealRequest{Log: id, Epoch: 9}).Status,
			"CheckSeal":      call(b.s.CheckSeal, &wire.CheckSealRequest{Log: id}).Status,
			"Digest":         call(b.s.Digest, &wire.DigestRequest{Log: id, Epoch: 1, To: 9}).Status,
			"Clean":          call(b.s.Clean, &wire.CleanRequest{Log: id, Epoch: 1, SealEpoch: 1}).Status,
			"EpochRecovery":  call(b.s.EpochRecovery, &wire.EpochRecoveryRequest{Log: id, From: 1, To: 9}).Status,
			"ProducerLookup": call(b.s.ProducerLookup, &wire.ProducerLookupRequest{Log: id, Producer: 1, To: 9}).Status,
			"ReadMetadata":   call(b.s.ReadMetadata, &wire.ReadMetadataRequest{Log: id}).Status,
			"Records":        call(b.s.Records, &wire.RecordsRequest{Log: id, To: 9}).Status,
		} {
			if status != statusUnknown {
				t.Fatalf("%s of log %d: %s", name, id, status)
			}
		}
		b.s.HandleBatch(&wire.LogBatch{FromNode: 2, Releases: []*wire.Release{{Log: id, Released: 9, Epoch: 1}}}, nil)
	}
	other := uint64(labLog) + 1 // of which there is nothing yet: looking leaves nothing either
	for name, status := range map[string]wire.LogStatus{
		"Find":         call(b.s.Find, &wire.FindRequest{Log: other}).Status,
		"DataSize":     call(b.s.DataSize, &wire.DataSizeRequest{Log: other}).Status,
		"ReadMetadata": call(b.s.ReadMetadata, &wire.ReadMetadataRequest{Log: other}).Status,
		"Records":      call(b.s.Records, &wire.RecordsRequest{Log: other, To: 9}).Status,
	} {
		if status != statusOK {
			t.Errorf("%s of a log without records: %s", name, status)
		}
	}
	if after := b.s.Metrics().Logs; after != before {
		t.Errorf("%d logs are known, %d were", after, before)
	}
}

// TestATrimPastTheTailIsRefused: what it would hide was not appended yet.
func TestATrimPastTheTailIsRefused(t *testing.T) {
	b := newLab(t, 65).open()
	defer b.stop()
	b.put(rec(lsn(1, 1), "a"), rec(lsn(1, 2), "b"))
	b.release(lsn(1, 2))
	trim := func(at logs.LSN) *wire.TrimResponse {
		return call(b.s.Trim, &wire.TrimRequest{Log: uint64(labLog), Lsn: uint64(at)})
	}
	a := trim(lsn(9, 9))
	if a.Status != statusTooLarge || a.Tail != uint64(lsn(1, 2)) || a.TrimPoint != 0 {
		t.Fatalf("past the tail: %v", a)
	}
	b.expect("what it says", a.Message, "trim up to e9n9 was asked for, but shard N1:S0 knows the log only up to e1n2: what is appended in between would be gone unread; trim up to the log's tail at most")
	if a := trim(lsn(1, 2)); a.Status != statusOK || a.TrimPoint != uint64(lsn(1, 2)) {
		t.Errorf("up to the tail: %v", a)
	}
	b.put(rec(lsn(1, 3), "c"))
	b.release(lsn(1, 3))
	b.expect("later records", text(b.read(span(3))), "trim[e1n1 e1n2] e1n3=c")
}

// TestRepairIsOrderedWithPurges: a copy that was chosen before a purge deletes what was
// not decided of its epoch, and that arrives before the purge says that the epoch is
// clean, is refused: nobody would delete it again.
func TestRepairIsOrderedWithPurges(t *testing.T) {
	b := inDoubt(t, 66)
	defer b.stop()
	if f := b.fence(labLog, 6); f.clean != 3 {
		t.Fatalf("fenced: %+v", f)
	}
	repair := func(clean logs.Epoch, at logs.LSN) error {
		wait := make(chan error, 1)
		b.s.Repair(labLog, clean, []*wire.LogRecord{rec(at, "chosen before")}, func(err error) { wait <- err })
		return <-wait
	}
	if err := repair(3, lsn(4, 6)); err != nil {
		t.Fatalf("before the purge: %v", err)
	}
	b.must(func(done func(error)) { b.s.DeleteCopies(labLog, lsn(4, 3), lsn(4, logs.ESNMax), done) })
	if err := repair(3, lsn(4, 4)); !errors.Is(err, ErrCleanMeanwhile) {
		t.Errorf("between the purge's delete and its mark: %v", err)
	}
	decided := &wire.EpochRecovery{Epoch: 4, SealEpoch: 5, LastKnownGood: 2}
	marked := make(chan error, 1)
	b.s.SetLastClean(labLog, decided, func(err error) { marked <- err })
	if err := repair(3, lsn(4, 4)); !errors.Is(err, ErrCleanMeanwhile) { // durable or not
		t.Errorf("behind the purge's mark: %v", err)
	}
	if err := <-marked; err != nil {
		t.Fatal(err)
	}
	b.release(lsn(5, 1))
	b.expect("of the epoch that was purged", text(b.read(&wire.ReadStartRequest{From: uint64(lsn(4, 1)), Until: uint64(lsn(4, 9))})),
		"e4n1=b e4n2=c under[e4n3 e4n9]")
	if err := repair(4, lsn(4, 3)); err != nil {
		t.Errorf("chosen after the purge: %v", err)
	}
}

// TestAPurgeBringsDoubtBack: an epoch that is compared before it is clean here, and
// purged then because its CLEAN was lost too, is compared again.
func TestAPurgeBringsDoubtBack(t *testing.T) {
	b := inDoubt(t, 67)
	asked := make(chan logs.Epoch, 100)
	b.fence(labLog, 6)
	b.must(func(done func(error)) { b.sure(labLog, logs.Compared{Clean: 3, UpTo: lsn(5, logs.ESNMax)}, done) })
	if err := b.s.Listed(); err != nil || !b.s.Suspect() {
		t.Fatalf("listed: %v, suspect %v", err, b.s.Suspect())
	}
	b.opts.Compare = func(id logs.LogID, sealed logs.Epoch) { asked <- sealed }
	b.crash(simfs.Crash{})
	b.open()
	defer func() { b.stop() }()
	purge := func(e uint32) {
		b.must(func(done func(error)) {
			b.s.SetLastClean(labLog, &wire.EpochRecovery{Epoch: e, SealEpoch: 5, LastKnownGood: 2}, done)
		})
	}
	purge(4)
	if e := <-asked; e != 4 {
		t.Errorf("asked to compare up to epoch %d", e)
	}
	late := make(chan error, 1)
	b.sure(labLog, logs.Compared{Clean: 3, UpTo: lsn(5, logs.ESNMax)}, func(err error) { late <- err })
	if err := <-late; !errors.Is(err, ErrCleanMeanwhile) {
		t.Errorf("sure of what was compared before the purge: %v", err)
	}
	seal := func() wire.LogStatus {
		return call(b.s.Seal, &wire.SealRequest{Log: uint64(labLog), Epoch: 5, LastCleanEpoch: 3}).Status
	}
	b.crash(simfs.Crash{})
	b.open()
	if seal() != statusPartial {
		t.Error("an epoch that was purged proves something")
	}
	b.must(func(done func(error)) { b.sure(labLog, logs.Compared{Clean: 4, UpTo: lsn(5, logs.ESNMax)}, done) })
	if seal() != statusOK {
		t.Error("it was compared again")
	}
	purge(5)
	b.must(func(done func(error)) { b.sure(labLog, logs.Compared{Clean: 5, UpTo: lsn(5, logs.ESNMax)}, done) })
	if b.s.endDoubt(); b.s.Suspect() {
		t.Error("all is clean, and compared, and in doubt")
	}
}

// TestAPurgeDeletesBelowADoubt: what is left shows that a record is good, of which
// recovery was not told. A purge goes by what recovery knew, and what it takes away is
// compared, whether that could have been lost or not.
func TestAPurgeDeletesBelowADoubt(t *testing.T) {
	b := inDoubt(t, 71)
	defer func() { b.stop() }()
	if f := b.fence(labLog, 6); f.err != nil || f.doubt != (stretch{lsn(4, 3), lsn(6, 0) - 1}) {
		t.Fatalf("fenced: %+v", f)
	}
	b.must(func(done func(error)) { b.s.DeleteCopies(labLog, lsn(4, 2), lsn(4, logs.ESNMax), done) })
	b.must(func(done func(error)) {
		b.s.SetLastClean(labLog, &wire.EpochRecovery{Epoch: 4, SealEpoch: 4, LastKnownGood: 1}, done)
	})
	if f, want := b.fence(labLog, 6), (stretch{lsn(4, 2), lsn(6, 0) - 1}); f.err != nil || f.doubt != want || f.clean != 4 {
		t.Errorf("after the purge: %+v, in doubt is %v", f, want)
	}
	b.crash(simfs.Crash{})
	b.open()
	if f, want := b.fence(labLog, 6), (stretch{lsn(4, 2), lsn(6, 0) - 1}); f.err != nil || f.doubt != want {
		t.Errorf("after a restart: %+v, in doubt is %v", f, want)
	}
}

// TestAnEpochMayBeMadeCleanTwice: until the epoch store says that an epoch is clean the next
// recovery decides on it once more, so that a copy of it may be among what a tail has lost:
// of one that the last recovery, as far as is known, decided, above what was good in it.
func TestAnEpochMayBeMadeCleanTwice(t *testing.T) {
	for released, want := range map[logs.LSN]logs.LSN{0: lsn(2, 5), lsn(3, 2): lsn(2, 5), lsn(4, 0): lsn(4, 0)} {
		b := newLab(t, 74).open()
		clean := func(e, seal, good uint32) {
			a := call(b.s.Clean, &wire.CleanRequest{Log: uint64(labLog), Epoch: e, SealEpoch: seal, LastKnownGood: good, Last: 6})
			if a.Status != statusOK {
				t.Fatal(a)
			}
		}
		b.put(rec(lsn(1, 1), "a"))
		clean(1, 1, 0)
		b.put(rec(lsn(2, 1), "b"), rec(lsn(3, 1), "c"))
		clean(2, 3, 4)
		clean(3, 3, 3)
		if a := call(b.s.Seal, &wire.SealRequest{Log: uint64(labLog), Epoch: 4, LastCleanEpoch: 1}); len(a.Epochs) != 2 ||
			a.Epochs[0].LastKnownGood != 4 || a.Epochs[1].LastKnownGood != 3 {
			t.Errorf("the recovery after it is told %v", a)
		}
		if released > 0 {
			b.release(released)
		}
		b.stop()
		if err := b.openSuspect(); err != nil {
			t.Fatal(err)
		}
		if f := b.fence(labLog, 5); f.err != nil || f.doubt != (stretch{want, lsn(5, 0) - 1}) || f.clean != 3 {
			t.Errorf("released up to %s: %+v, in doubt is what begins at %s", released, f, want)
		}
		b.stop()
	}
}

// TestTheNextRecoveryIsToldWhatAnEpochCounted: of an epoch that is clean here its payloads
// stay known, where its last record cannot be read any more, too.
func TestTheNextRecoveryIsToldWhatAnEpochCounted(t *testing.T) {
	for last, want := range map[logs.ESN]string{
		2: "e2n2 2", // it is here
		4: "e2n4 9", // it was, elsewhere
		5: "e2n2 2", // behind the LNG it is not the tail that is asked for
	} {
		b := newLab(t, 75).open()
		b.put(rec(lsn(1, 1), "a"))
		a := call(b.s.Clean, &wire.CleanRequest{Log: uint64(labLog), Epoch: 1, SealEpoch: 1, LastKnownGood: 0, Last: 1})
		b.put(rec(lsn(2, 1), "b"), rec(lsn(2, 2), "c"))
		tail := &wire.TailRecord{Log: uint64(labLog), Lsn: uint64(lsn(2, last)), Count: 40 + 9}
		c := call(b.s.Clean, &wire.CleanRequest{Log: uint64(labLog), Epoch: 2, SealEpoch: 3, LastKnownGood: 4, Last: 6, CountBase: 40, Count: 9, Tail: tail})
		if a.Status != statusOK || c.Status != statusOK {
			t.Fatal(a, c)
		}
		r := call(b.s.Seal, &wire.SealRequest{Log: uint64(labLog), Epoch: 4, LastCleanEpoch: 1})
		if len(r.Epochs) != 1 || fmt.Sprint(logs.LSN(r.Epochs[0].Tail.GetLsn()), r.Epochs[0].Tail.GetCount()) != want {
			t.Errorf("its last record was e2n%d: the recovery after it is told %v, want %s", last, r, want)
		}
		b.stop()
	}
}

// TestWhatOutlivesTheJournalProvesNothing: the marks were flushed, and with them a release
// that came after copies whose place in the journal is lost. That they were there before
// is no proof any more that they are.
func TestWhatOutlivesTheJournalProvesNothing(t *testing.T) {
	b := newLab(t, 73).open()
	for n := range logs.ESN(5) {
		b.put(rec(lsn(1, n+1), string(rune('a'+n))))
	}
	b.release(lsn(1, 4))
	b.stop()
	b.lost = 3
	if err := b.openSuspect(); err != nil {
		t.Fatal(err)
	}
	if f, want := b.fence(labLog, 3), (stretch{logs.LSNOldest, lsn(3, 0) - 1}); f.err != nil || f.doubt != want {
		t.Errorf("fenced: %+v, in doubt is %v", f, want)
	}
	b.stop()
}

// TestADeletionThatOutlivesTheJournal: a purge deletes copies in a partition that is closed,
// durably; the journal loses its end, and with it the purge, the marks had it in memory.
// The next batch has no position that the partition has already (P2).
func TestADeletionThatOutlivesTheJournal(t *testing.T) {
	b := newLab(t, 76)
	b.opts.PartitionTime = 24 * 365 * time.Hour
	b.open()
	b.fillPartitions(2)
	purge := func() {
		b.must(func(done func(error)) { b.s.DeleteCopies(labLog, lsn(1, 3), lsn(1, 20), done) })
		b.s.settled()
	}
	purge()
	b.crash(simfs.Crash{})
	b.lost = 1
	if err := b.openSuspect(); err != nil {
		t.Fatal(err)
	}
	purge()
	b.stop()
}
