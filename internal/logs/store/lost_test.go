package store

import (
	"fmt"
	"testing"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/sim/simfs"
	"github.com/braiddb/braid/internal/wire"
)

// TestWhatNobodyCanTellIsLostForGood: a shard whose journal is damaged, and of which no
// other could tell what it had, proves nothing by what it does not have, over restarts
// too: readers hear that copies may be missing, recovery that its digest is not all, and who
// looks for a producer's appends that it is not told all. Its
// doubt is over all the same. Of a torn tail that ends so nothing was acknowledged.
func TestWhatNobodyCanTellIsLostForGood(t *testing.T) {
	for _, weak := range []bool{true, false} {
		for _, torn := range []bool{true, false} {
			lost := weak && !torn
			b := newLab(t, 71).open()
			for i := logs.ESN(1); i <= 6; i++ {
				b.put(rec(lsn(1, i), fmt.Sprintf("<%d>", i)))
			}
			want := "e1n1=<1> e1n2=<2>"
			if torn {
				want += " e1n3=<3> e1n4=<4> e1n5=<5> e1n6=<6>"
				b.stop()
				if err := b.openSuspect(); err != nil {
					t.Fatal(err)
				}
			} else {
				b.damageJournal("<3>")
			}
			if f := b.fence(labLog, 3); f.err != nil {
				t.Fatal(f.err)
			}
			lookup := func(after logs.LSN, limit uint32) wire.LogStatus {
				return call(b.s.ProducerLookup, &wire.ProducerLookupRequest{Log: uint64(labLog), Producer: 7, After: uint64(after), To: uint64(lsn(3, 0)), Limit: limit}).Status
			}
			if got := lookup(lsn(1, 6), 0); got != statusAgain {
				t.Errorf("weak %v, torn %v: look-up in doubt: %s", weak, torn, got)
			}
			b.must(func(done func(error)) {
				b.s.SetLastClean(labLog, &wire.EpochRecovery{Epoch: 1, SealEpoch: 2, LastKnownGood: 6}, done)
			})
			b.must(func(done func(error)) { b.s.SetLastClean(labLog, &wire.EpochRecovery{Epoch: 2, SealEpoch: 2}, done) })
			b.must(func(done func(error)) {
				b.sure(labLog, logs.Compared{Clean: 2, UpTo: lsn(2, logs.ESNMax), Weak: weak}, done)
			})
			if err := b.s.Listed(); err != nil {
				t.Fatal(err)
			}
			what := fmt.Sprintf("weak %v, torn %v", weak, torn)
			for range 2 {
				b.release(lsn(3, 1))
				if b.s.endDoubt(); b.s.Suspect() {
					t.Errorf("%s: the doubt is not over", what)
				}
				d := call(b.s.Digest, &wire.DigestRequest{Log: uint64(labLog), Epoch: 1, From: 1, To: 9, SealEpoch: 2})
				if lost != (d.Status == statusPartial) || len(d.Records) < 2 {
					t.Errorf("%s: digest %v", what, d)
				}
				if a := call(b.s.Digest, &wire.DigestRequest{Log: uint64(labLog), Epoch: 3, From: 1, To: 9, SealEpoch: 3}); a.Status != statusOK {
					t.Errorf("%s: digest of an epoch that began later: %v", what, a)
				}
				r := call(b.s.Records, &wire.RecordsRequest{Log: uint64(labLog), From: uint64(lsn(1, 1)), To: uint64(lsn(1, 9))})
				if r.Doubt != lost {
					t.Errorf("%s: records %v", what, r)
				}
				for _, limit := range []uint32{0, 8} {
					if got := lookup(lsn(1, 6), limit); lost != (got == statusPartial) || !lost && got != statusOK {
						t.Errorf("%s: look-up of %d: %s", what, limit, got)
					}
					if got := lookup(lsn(3, 0), limit); got != statusOK {
						t.Errorf("%s: look-up of %d in what came later: %s", what, limit, got)
					}
				}
				gap := map[bool]string{true: " under[%s e2n9]", false: " none[%s e2n9]"}[lost]
				first := map[bool]string{true: "e1n7", false: "e1n3"}[torn]
				b.expect(what, text(b.read(&wire.ReadStartRequest{From: uint64(lsn(1, 1)), Until: uint64(lsn(2, 9))})), want+fmt.Sprintf(gap, first))
				b.crash(simfs.Crash{})
				b.open()
			}
			b.stop()
		}
	}
}

// TestAMetadataLogThatLostEntriesSaysSo: it gives what it has, and that it is not all.
func TestAMetadataLogThatLostEntriesSaysSo(t *testing.T) {
	b := newLab(t, 72).open()
	defer func() { b.stop() }()
	for i := logs.ESN(1); i <= 6; i++ {
		b.put(rec(lsn(1, i), fmt.Sprintf("<%d>", i)))
	}
	b.damageJournal("<3>")
	b.fence(labLog, 3)
	b.must(func(done func(error)) {
		b.sure(labLog.MetadataLog(), logs.Compared{UpTo: logs.LSNMax, Weak: true}, done)
	})
	for i := range 2 {
		if a := call(b.s.ReadMetadata, &wire.ReadMetadataRequest{Log: uint64(labLog)}); a.Status != statusPartial {
			t.Errorf("look %d: metadata: %v", i, a)
		}
		b.crash(simfs.Crash{})
		b.open()
	}
}

// TestOfATornTailThatWasDecidedOnAPartIsLost: what recovery had decided on had a copy.
// Between the LSNs that are told the shard proves nothing for good, elsewhere it does.
func TestOfATornTailThatWasDecidedOnAPartIsLost(t *testing.T) {
	b := newLab(t, 73).open()
	defer func() { b.stop() }()
	for i := logs.ESN(1); i <= 3; i++ {
		b.put(rec(lsn(1, i), fmt.Sprintf("<%d>", i)))
	}
	b.stop()
	if err := b.openSuspect(); err != nil {
		t.Fatal(err)
	}
	if f := b.fence(labLog, 3); f.err != nil {
		t.Fatal(f.err)
	}
	b.must(func(done func(error)) {
		b.s.SetLastClean(labLog, &wire.EpochRecovery{Epoch: 1, SealEpoch: 2, LastKnownGood: 3, Last: 6}, done)
	})
	b.must(func(done func(error)) { b.s.SetLastClean(labLog, &wire.EpochRecovery{Epoch: 2, SealEpoch: 2}, done) })
	b.must(func(done func(error)) {
		b.sure(labLog, logs.Compared{Clean: 2, UpTo: lsn(2, logs.ESNMax), Weak: true, From: lsn(1, 5), To: lsn(1, 6)}, done)
	})
	for range 2 {
		b.release(lsn(3, 1))
		b.expect("before", text(b.read(&wire.ReadStartRequest{From: uint64(lsn(1, 3)), Until: uint64(lsn(1, 4))})), "e1n3=<3> none[e1n4 e1n4]")
		b.expect("within", text(b.read(&wire.ReadStartRequest{From: uint64(lsn(1, 5)), Until: uint64(lsn(1, 6))})), "under[e1n5 e1n6]")
		b.expect("behind", text(b.read(&wire.ReadStartRequest{From: uint64(lsn(1, 7)), Until: uint64(lsn(2, 9))})), "none[e1n7 e2n9]")
		b.crash(simfs.Crash{})
		b.open()
	}
}
