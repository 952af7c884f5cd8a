package store

import (
	"testing"
	"time"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/sim/simfs"
	"github.com/braiddb/braid/internal/wire"
)

// TestTheEndOfADoubtHoldsNobodyUp: while the end of a shard's doubt is on its way to
// the disk, who is told of an earlier write writes at once, on the goroutine that the
// journal tells everybody on.
func TestTheEndOfADoubtHoldsNobodyUp(t *testing.T) {
	b := newLab(t, 61)
	b.doubting = true
	b.opts.NextEpoch = func(_ logs.LogID, done func(logs.Epoch, error)) { done(2, nil) }
	b.open()
	defer b.stop()
	fenced := make(chan error, 1)
	b.s.Fence(labLog, 2, b.s.DoubtNumber(), func(_ logs.Doubt, err error) { fenced <- err })
	if err := <-fenced; err != nil {
		t.Fatal(err)
	}
	ending, again := make(chan struct{}), make(chan wire.LogStatus, 1)
	listed := make(chan error, 1)
	b.s.HandleBatch(&wire.LogBatch{FromNode: 2, Stores: []*wire.Store{store(rec(lsn(2, 1), "a"))}}, func(*wire.LogBatch) {
		go func() { listed <- b.s.Listed() }()
		<-ending
		b.s.HandleBatch(&wire.LogBatch{FromNode: 2, Stores: []*wire.Store{store(rec(lsn(2, 2), "b"))}}, func(a *wire.LogBatch) { again <- a.Stored[0].Status })
	})
	// It waits for the journal, which waits for the one above, as soon as it cannot be
	// begun again.
	for deadline := time.Now().Add(10 * time.Second); b.s.settling.TryLock(); <-time.After(time.Millisecond) {
		b.s.settling.Unlock()
		if time.Now().After(deadline) {
			t.Fatal("nobody ends the doubt")
		}
	}
	close(ending)
	select {
	case status := <-again:
		if err := <-listed; err != nil || status != statusOK {
			t.Errorf("%s, %v", status, err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("a write is held up by the end of a doubt, which waits for the journal, which waits for the write")
	}
}

// TestWhatIsPurgedAfterAComparisonStaysInDoubt: an epoch is purged that was compared, and is
// in doubt again. So it is in the next life, where the journal is read again on top of marks
// that have all of it: the end of the comparison too, which came before.
func TestWhatIsPurgedAfterAComparisonStaysInDoubt(t *testing.T) {
	for _, empty := range []bool{false, true} {
		b := inDoubt(t, 65)
		if f := b.fence(labLog, 6); f.err != nil {
			t.Fatal(f.err)
		}
		b.must(func(done func(error)) { b.sure(labLog, logs.Compared{Clean: 3, UpTo: lsn(5, logs.ESNMax)}, done) })
		if empty { // as a shard that has nothing of some epochs notes it
			b.must(func(done func(error)) {
				b.s.write(&batch{s: b.s, marks: []mark{{kind: markPurged, log: labLog, number: 5}}, done: done})
			})
		} else {
			b.must(func(done func(error)) {
				b.s.SetLastClean(labLog, &wire.EpochRecovery{Epoch: 4, SealEpoch: 5, LastKnownGood: 2, Last: 6}, done)
			})
		}
		for _, life := range []string{"purged", "and in the next life", "and in the one after"} {
			a := call(b.s.Records, &wire.RecordsRequest{Log: uint64(labLog), From: uint64(lsn(4, 3)), To: uint64(lsn(4, 6))})
			if !a.Doubt {
				t.Errorf("nothing here %v, %s: it is not in doubt", empty, life)
			}
			if err := b.s.marks.flush(); err != nil {
				t.Fatal(err)
			}
			b.crash(simfs.Crash{})
			b.open()
		}
		b.must(func(done func(error)) {
			b.sure(labLog, logs.Compared{Clean: b.s.LastClean(labLog), UpTo: lsn(5, logs.ESNMax)}, done)
		})
		for _, life := range []string{"compared again", "and in the next life"} {
			a := call(b.s.Records, &wire.RecordsRequest{Log: uint64(labLog), From: uint64(lsn(4, 1)), To: uint64(lsn(4, 6))})
			if a.Doubt {
				t.Errorf("nothing here %v, %s: it is in doubt", empty, life)
			}
			b.crash(simfs.Crash{})
			b.open()
		}
		b.stop()
	}
}
