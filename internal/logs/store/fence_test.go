package store

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/sim/simfs"
	"github.com/braiddb/braid/internal/wire"
)

func (b *lab) status(s *wire.Store) *wire.Stored {
	b.t.Helper()
	s.Cookie = 99
	return b.send(s)[99]
}

// TestASealIsCheckedAsTheReferenceSays goes through the rules one by one.
func TestASealIsCheckedAsTheReferenceSays(t *testing.T) {
	b := newLab(t, 20).open()
	defer func() { b.stop() }()
	b.put(rec(lsn(5, 1), "a")) // implies a soft seal of 4
	if a := b.status(store(rec(lsn(4, 9), "x"))); a.Status != statusPreempted || !a.Soft || a.SealEpoch != 4 || a.SealedBy != 2 {
		t.Errorf("below the soft seal: %v", a)
	}
	draining := store(rec(lsn(4, 9), "x"))
	draining.Draining = true
	if a := b.status(draining); a.Status != statusOK {
		t.Errorf("draining below the soft seal: %v", a)
	}
	seal := func(e uint32) *wire.SealResponse {
		return call(b.s.Seal, &wire.SealRequest{Log: uint64(labLog), Epoch: e, SealedBy: 7})
	}
	if a := seal(3); a.Status != statusPreempted || !a.Soft || a.SealEpoch != 4 {
		t.Errorf("a seal older than the soft one: %v", a)
	}
	if a := seal(4); a.Status != statusOK {
		t.Errorf("a seal equal to the soft one: %v", a)
	}
	if a := seal(4); a.Status != statusOK {
		t.Errorf("the same again: %v", a)
	}
	if a := b.status(draining); a.Status != statusPreempted || a.Soft || a.SealedBy != 7 {
		t.Errorf("draining below the hard seal: %v", a)
	}
	if a := seal(2); a.Status != statusPreempted || a.Soft || a.SealEpoch != 4 {
		t.Errorf("a seal older than the hard one: %v", a)
	}
	recovery := store(rec(lsn(4, 9), "x"))
	recovery.SealEpoch = 3
	if a := b.status(recovery); a.Status != statusPreempted {
		t.Errorf("recovery with an older seal: %v", a)
	}
	recovery.SealEpoch = 4
	if a := b.status(recovery); a.Status != statusOK {
		t.Errorf("recovery with the seal that stands: %v", a)
	}
	if a := call(b.s.Digest, &wire.DigestRequest{Log: uint64(labLog), Epoch: 4, To: 99, SealEpoch: 3}); a.Status != statusPreempted || a.SealEpoch != 4 {
		t.Errorf("digest with an older seal: %v", a)
	}
	if a := call(b.s.Clean, &wire.CleanRequest{Log: uint64(labLog), Epoch: 3, SealEpoch: 3}); a.Status != statusPreempted {
		t.Errorf("clean with an older seal: %v", a)
	}
	b.crash(simfs.Crash{})
	b.open()
	a := call(b.s.CheckSeal, &wire.CheckSealRequest{Log: uint64(labLog)})
	if a.SealEpoch != 4 || a.SealedBy != 7 || a.Soft {
		t.Errorf("after a crash: %v", a)
	}
	b.put(rec(lsn(9, 1), "z"))
	b.crash(simfs.Crash{})
	b.open()
	if a := call(b.s.CheckSeal, &wire.CheckSealRequest{Log: uint64(labLog)}); a.SealEpoch != 8 || !a.Soft {
		t.Errorf("the soft seal is not recovered from records: %v", a)
	}
}

func TestStoresThatAreNotForThisShard(t *testing.T) {
	b := newLab(t, 21).open()
	defer b.stop()
	other, bad, empty := store(rec(lsn(1, 1), "a")), store(rec(lsn(1, 2), "b")), store(rec(lsn(1, 3), ""))
	other.Record.Copyset = []uint64{uint64(others[0])}
	bad.Record.Checksum++
	if a := b.status(other); a.Status != wire.LogStatus_LOG_STATUS_NOT_IN_COPYSET {
		t.Errorf("not in the copyset: %v", a)
	}
	if a := b.status(bad); a.Status != wire.LogStatus_LOG_STATUS_CHECKSUM_MISMATCH {
		t.Errorf("a damaged payload: %v", a)
	}
	if a := b.status(empty); a.Status != statusOK {
		t.Errorf("an empty payload: %v", a)
	}
	if a := b.status(&wire.Store{}); a.Status != statusInvalid {
		t.Errorf("no record: %v", a)
	}
	b.release(lsn(1, 3))
	b.expect("kept", text(b.read(span(3))), "none[e1n1 e1n2] e1n3=")
}

func TestFullDiskAndFullQueue(t *testing.T) {
	b := newLab(t, 22)
	var free atomic.Int64
	free.Store(50)
	b.opts.Free = func() (int64, int64, error) { return free.Load(), 100, nil }
	b.opts.QueueBytes = 2000
	b.open()
	defer b.stop()
	b.put(rec(lsn(1, 1), "a"))
	free.Store(7)
	b.s.keepHouse()
	if a := b.status(store(rec(lsn(1, 2), "b"))); a.Status != statusOK || !a.LowSpace {
		t.Errorf("little space: %v", a)
	}
	free.Store(4)
	b.s.keepHouse()
	if a := b.status(store(rec(lsn(1, 3), "b"))); a.Status != wire.LogStatus_LOG_STATUS_NO_SPACE {
		t.Errorf("no space: %v", a)
	}
	if a := call(b.s.Seal, &wire.SealRequest{Log: uint64(labLog), Epoch: 1}); a.Status != statusOK {
		t.Errorf("a seal without space: %v", a)
	}
	if a := call(b.s.Trim, &wire.TrimRequest{Log: uint64(labLog), Lsn: uint64(lsn(1, 1))}); a.Status != statusOK {
		t.Errorf("a trim without space: %v", a)
	}
	free.Store(50)
	b.s.keepHouse()
	b.s.settled()
	b.s.mu.Lock()
	b.s.inFlight += 1990 // as if the disk were slow
	b.s.mu.Unlock()
	if a := b.status(store(rec(lsn(2, 1), "c"))); a.Status != wire.LogStatus_LOG_STATUS_DROPPED {
		t.Errorf("a full queue: %v", a)
	}
	b.s.mu.Lock()
	b.s.inFlight -= 1990
	b.s.mu.Unlock()
	b.put(rec(lsn(2, 2), "d"))
}

func TestSealAndDigestTellTheUncleanTail(t *testing.T) {
	b := newLab(t, 23).open()
	defer func() { b.stop() }()
	for n := range logs.ESN(8) {
		r := rec(lsn(3, n+1), string(rune('a'+n)))
		r.LastKnownGood = uint32(max(n, 2) - 2)
		b.put(r)
	}
	check := func() {
		a := call(b.s.Seal, &wire.SealRequest{Log: uint64(labLog), Epoch: 3, LastCleanEpoch: 0})
		if a.Status != statusOK || len(a.Epochs) != 1 {
			t.Fatalf("seal: %v", a)
		}
		if e := a.Epochs[0]; e.Epoch != 3 || e.LastKnownGood != 5 || e.MaxSeen != 8 || e.Tail.GetLsn() != uint64(lsn(3, 5)) || e.Tail.GetCount() != 5 {
			t.Errorf("tail: %v", e)
		}
		var got string
		from := uint32(6)
		for from != 0 {
			d := call(b.s.Digest, &wire.DigestRequest{Log: uint64(labLog), Epoch: 3, From: from, To: uint32(logs.ESNMax), SealEpoch: 3, BytesMax: 1})
			if d.Status != statusOK {
				t.Fatalf("digest: %v", d)
			}
			for _, r := range d.Records {
				got += string(r.Payload)
			}
			from = d.Next
		}
		b.expect("digest", got, "fgh")
	}
	b.everywhere(check)
}

// TestAReleaseWaitsForThePurge: a shard that missed a recovery shows nothing of
// later epochs until what it should not have is gone.
func TestAReleaseWaitsForThePurge(t *testing.T) {
	b := newLab(t, 24)
	type ask struct {
		lce     logs.Epoch
		release logs.LSN
	}
	asked := make(chan ask, 10)
	b.opts.Purge = func(_ logs.LogID, lce logs.Epoch, release logs.LSN) { asked <- ask{lce, release} }
	b.open()
	defer func() { b.stop() }()
	b.put(rec(lsn(1, 1), "kept"), rec(lsn(1, 2), "dirty"), rec(lsn(3, 1), "new"))
	b.release(lsn(3, 1))
	if a := <-asked; a.lce != 0 || a.release != lsn(3, 1) {
		t.Fatalf("asked for %v", a)
	}
	all := &wire.ReadStartRequest{From: uint64(lsn(1, 1)), Until: uint64(lsn(3, 1))}
	b.expect("before the purge", text(b.read(all)), "")
	if a := b.status(store(rec(lsn(2, 1), "late"))); a.Status != statusPreempted {
		t.Errorf("a late store of an epoch that recovery is done with: %v", a)
	}
	done := make(chan error, 2)
	b.s.DeleteCopies(labLog, lsn(1, 2), lsn(1, logs.ESNMax), func(err error) { done <- err })
	b.s.SetLastClean(labLog, &wire.EpochRecovery{Epoch: 2, SealEpoch: 2, LastKnownGood: 1, Last: 1, CountBase: 1, Count: 3}, func(err error) { done <- err })
	for range 2 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	if got := b.s.LastClean(labLog); got != 2 {
		t.Errorf("last clean epoch %d", got)
	}
	b.everywhere(func() {
		b.expect("after the purge", text(b.read(all)), "e1n1=kept none[e1n2 e3n0] e3n1=new")
	})
	if a := call(b.s.EpochRecovery, &wire.EpochRecoveryRequest{Log: uint64(labLog), From: 1, To: 2}); len(a.Epochs) != 1 || a.Epochs[0].Count != 3 || a.LastCleanEpoch != 2 {
		t.Errorf("epoch recovery: %v", a)
	}
	if a := call(b.s.EpochRecovery, &wire.EpochRecoveryRequest{Log: uint64(labLog), From: 4, To: 5}); len(a.Empty) != 2 {
		t.Errorf("epochs of which there is nothing: %v", a)
	}
}

// TestAPurgeIsAskedForAgain: a release that waits asks once more after a second, also where
// the wall was ahead when it asked first, and is set back since.
func TestAPurgeIsAskedForAgain(t *testing.T) {
	b := newLab(t, 27)
	asked := make(chan logs.LSN, 10)
	b.opts.Purge = func(_ logs.LogID, _ logs.Epoch, release logs.LSN) { asked <- release }
	b.open()
	defer func() { b.stop() }()
	b.put(rec(lsn(1, 1), "a"), rec(lsn(3, 1), "b"))
	b.clock.jump(time.Hour)
	b.release(lsn(3, 1))
	if at := <-asked; at != lsn(3, 1) {
		t.Errorf("asked for %s", at)
	}
	b.clock.jump(0)
	b.clock.advance(900 * time.Millisecond)
	b.release(lsn(3, 2))
	b.clock.advance(200 * time.Millisecond)
	b.release(lsn(3, 3))
	select {
	case at := <-asked:
		if at != lsn(3, 3) {
			t.Errorf("asked again for %s, before a second was over", at)
		}
	case <-time.After(10 * time.Second):
		t.Error("not asked again")
	}
}

// TestNothingToPurgeNeedsNoPurge: a shard that has nothing of the epochs between
// shows what is released without asking anybody.
func TestNothingToPurgeNeedsNoPurge(t *testing.T) {
	b := newLab(t, 25)
	b.opts.Purge = func(id logs.LogID, lce logs.Epoch, _ logs.LSN) { t.Errorf("asked to purge log %d from %d", id, lce) }
	b.open()
	defer b.stop()
	b.put(rec(lsn(7, 1), "a"))
	start := call(b.s.ReadStart, &wire.ReadStartRequest{Log: uint64(labLog), From: uint64(lsn(7, 1)), Until: uint64(lsn(7, 1)), WindowHigh: uint64(logs.LSNMax)})
	b.release(lsn(7, 1))
	a := call(b.s.ReadNext, &wire.ReadNextRequest{Stream: start.Stream, WaitMs: 10000})
	b.expect("released", text(a.Deliveries), "e7n1=a")
	if got := b.s.LastClean(labLog); got != 6 {
		t.Errorf("last clean epoch %d", got)
	}
}

// TestACleanEpochAboveAGapWaits: having taken part in a later recovery does not
// make an earlier epoch clean that this shard missed.
func TestACleanEpochAboveAGapWaits(t *testing.T) {
	b := newLab(t, 26).open()
	defer func() { b.stop() }()
	clean := func(e uint32) {
		if a := call(b.s.Clean, &wire.CleanRequest{Log: uint64(labLog), Epoch: e, SealEpoch: 9}); a.Status != statusOK {
			t.Fatalf("clean %d: %v", e, a)
		}
	}
	clean(1)
	clean(3)
	if got := b.s.LastClean(labLog); got != 1 {
		t.Errorf("last clean epoch %d, epoch 2 was missed", got)
	}
	b.stop()
	b.open()
	clean(2)
	if got := b.s.LastClean(labLog); got != 3 {
		t.Errorf("last clean epoch %d, want 3", got)
	}
}

// TestAShardInDoubtSaysSo: after a suspect tail nothing is claimed that may have
// been lost, and no store is taken before the log is fenced.
func TestAShardInDoubtSaysSo(t *testing.T) {
	b := newLab(t, 27)
	next := make(chan func(logs.Epoch, error), 10)
	b.opts.NextEpoch = func(_ logs.LogID, done func(logs.Epoch, error)) { next <- done }
	b.open()
	b.put(rec(lsn(4, 1), "a"), rec(lsn(4, 3), "c"))
	done := make(chan error, 1)
	b.s.SetLastClean(labLog, &wire.EpochRecovery{Epoch: 3, SealEpoch: 3}, func(err error) { done <- err })
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	b.release(lsn(4, 3))
	b.stop()
	if err := b.openSuspect(); err != nil {
		t.Fatal(err)
	}
	if !b.s.Suspect() {
		t.Fatal("not suspect")
	}
	if a := b.status(store(rec(lsn(4, 4), "d"))); a.Status != wire.LogStatus_LOG_STATUS_DROPPED {
		t.Errorf("a store before the fence: %v", a)
	}
	if a := call(b.s.CheckSeal, &wire.CheckSealRequest{Log: uint64(labLog)}); a.Status != statusPartial {
		t.Errorf("seals that may be lost: %v", a)
	}
	all := &wire.ReadStartRequest{From: uint64(lsn(4, 1)), Until: uint64(lsn(5, 2))}
	b.expect("in doubt", text(b.read(all)), "e4n1=a under[e4n2 e4n2] e4n3=c")
	(<-next)(5, nil) // epoch 4 reigns
	for b.status(store(rec(lsn(3, 9), "x"))).Status == wire.LogStatus_LOG_STATUS_DROPPED {
	}
	if a := b.status(store(rec(lsn(4, 4), "d"))); a.Status != statusOK {
		t.Errorf("a store of the epoch that reigns: %v", a)
	}
	if a := b.status(store(rec(lsn(3, 9), "x"))); a.Status != statusPreempted {
		t.Errorf("a store of an epoch that may have been sealed: %v", a)
	}
	b.put(rec(lsn(5, 1), "e"))
	a := call(b.s.Seal, &wire.SealRequest{Log: uint64(labLog), Epoch: 4, LastCleanEpoch: 3})
	if a.Status != statusPartial || len(a.Epochs) != 1 {
		t.Errorf("seal of an epoch in doubt: %v", a)
	}
	if a := call(b.s.Digest, &wire.DigestRequest{Log: uint64(labLog), Epoch: 4, From: 1, To: 9, SealEpoch: 4}); a.Status != statusAgain {
		t.Errorf("digest of an epoch in doubt: %v", a)
	}
	if a := call(b.s.Digest, &wire.DigestRequest{Log: uint64(labLog), Epoch: 5, From: 1, To: 9, SealEpoch: 4}); a.Status != statusOK || len(a.Records) != 1 {
		t.Errorf("digest of a later epoch: %v", a)
	}
	b.stop()
	b.open() // the doubt stays
	if !b.s.Suspect() {
		t.Error("the doubt did not last")
	}
	if a := b.status(store(rec(lsn(5, 2), "f"))); a.Status != statusOK {
		t.Errorf("fenced once is fenced: %v", a)
	}
	if err := b.s.Trust(); err != nil {
		t.Fatal(err)
	}
	b.stop()
	b.open()
	defer b.stop()
	if b.s.Suspect() {
		t.Error("still suspect")
	}
	b.release(lsn(4, 4))
	b.expect("trusted", text(b.read(all)), "e4n1=a none[e4n2 e4n2] e4n3=c e4n4=d")
}

// openSuspect opens with a journal whose tail was suspect.
func (b *lab) openSuspect() error {
	b.doubting = true
	defer func() { b.doubting = false }()
	return b.tryOpen()
}

// TestASealFencesBeforeItIsDurable (P1): a store that comes while the seal is on its
// way to the disk is behind it in the journal, and would be acknowledged after the
// digest that finds nothing.
func TestASealFencesBeforeItIsDurable(t *testing.T) {
	b := newLab(t, 29).open()
	defer func() { b.stop() }()
	b.put(rec(lsn(1, 1), "a"))
	syncs, goOn := make(chan struct{}, 64), make(chan struct{})
	b.fs.SetFault(func(op simfs.Op) (f simfs.Fault) {
		if op.Kind == simfs.OpSync && strings.HasSuffix(op.Path, ".journal") {
			syncs <- struct{}{}
			<-goOn
		}
		return f
	})
	sealed := make(chan *wire.SealResponse, 1)
	b.s.Seal(&wire.SealRequest{Log: uint64(labLog), Epoch: 1, SealedBy: 7}, func(a *wire.SealResponse) { sealed <- a })
	<-syncs
	answers := make(chan *wire.LogBatch, 2)
	b.s.HandleBatch(&wire.LogBatch{FromNode: 2, Stores: []*wire.Store{store(rec(lsn(1, 2), "late"))}}, func(a *wire.LogBatch) { answers <- a })
	close(goOn)
	if a := <-sealed; a.Status != statusOK || len(a.Epochs) != 1 || a.Epochs[0].MaxSeen != 1 {
		t.Errorf("sealed: %v", a)
	}
	if a := <-answers; len(a.Stored) != 1 || a.Stored[0].Status != statusPreempted {
		t.Errorf("a store that came while the seal was written: %v", a)
	}
}
