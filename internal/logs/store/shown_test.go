package store

import (
	"errors"
	"testing"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// TestACleanIsOfWhatWasShown: a shard that lost the end of its journal after a recovery's
// digest takes back what others have that names it, also what it never had and the
// recovery did not decide on. It takes the CLEAN when it has shown that too.
func TestACleanIsOfWhatWasShown(t *testing.T) {
	b := inDoubt(t, 64)
	defer func() { b.stop() }()
	digest := func(from, bytes uint32) *wire.DigestResponse {
		return call(b.s.Digest, &wire.DigestRequest{Log: uint64(labLog), Epoch: 4, From: from, To: uint32(logs.ESNMax), SealEpoch: 4, BytesMax: bytes})
	}
	clean := func(seal uint32) wire.LogStatus {
		return call(b.s.Clean, &wire.CleanRequest{Log: uint64(labLog), Epoch: 4, SealEpoch: seal, LastKnownGood: 2, Last: 6}).Status
	}
	if f := b.fence(labLog, 6); f.err != nil {
		t.Fatal(f.err)
	}
	call(b.s.Seal, &wire.SealRequest{Log: uint64(labLog), Epoch: 4, LastCleanEpoch: 3})
	b.must(func(done func(error)) { b.s.Repair(labLog, 3, []*wire.LogRecord{rec(lsn(4, 7), "never here")}, done) })
	b.must(func(done func(error)) { b.sure(labLog, logs.Compared{Clean: 3, UpTo: lsn(4, logs.ESNMax)}, done) })
	if s := clean(4); s != statusAgain {
		t.Fatalf("a recovery that was shown nothing since: %s", s)
	}
	if digest(5, 0); clean(4) != statusAgain {
		t.Error("a recovery that was shown only the end")
	}
	d := digest(3, 1)
	if d.Next == 0 || clean(4) != statusAgain {
		t.Errorf("a recovery that was shown only the beginning: %v", d)
	}
	for d.Next != 0 {
		d = digest(d.Next, 1)
	}
	if s := clean(5); s != statusAgain {
		t.Errorf("another recovery: %s", s)
	}
	b.s.mu.Lock()
	b.s.log(labLog).doubtAgain(b.s.doubt.number, lsn(4, 3), lsn(4, 3)) // with a partition that is closed
	b.s.mu.Unlock()
	b.must(func(done func(error)) { b.sure(labLog, logs.Compared{Clean: 3, UpTo: lsn(4, logs.ESNMax)}, done) })
	if s := clean(4); s != statusAgain {
		t.Errorf("a recovery that was shown everything before another doubt: %s", s)
	}
	digest(3, 0)
	if s := clean(4); s != statusOK {
		t.Errorf("a recovery that was shown everything: %s", s)
	}
	call(b.s.Seal, &wire.SealRequest{Log: uint64(labLog), Epoch: 5, LastCleanEpoch: 3})
	if s := clean(5); s != statusAgain { // it may have stored here what was lost
		t.Errorf("another recovery, of what is clean, that was shown nothing since: %s", s)
	}
	call(b.s.Digest, &wire.DigestRequest{Log: uint64(labLog), Epoch: 4, From: 3, To: uint32(logs.ESNMax), SealEpoch: 5})
	if s := clean(5); s != statusOK {
		t.Errorf("another recovery, of what is clean: %s", s)
	}
}

// TestAFenceIsOfWhatWasAskedSinceItsDoubt: while the epoch store is asked for the next epoch
// of a log, that may begin, and the shard lose copies of it and come to another doubt. What
// the epoch store said does not fence the log for that one.
func TestAFenceIsOfWhatWasAskedSinceItsDoubt(t *testing.T) {
	b := newLab(t, 65)
	b.doubting = true
	asked := make(chan func(logs.Epoch, error), 10)
	b.opts.NextEpoch = func(_ logs.LogID, done func(logs.Epoch, error)) { asked <- done }
	b.open()
	defer func() { b.stop() }()
	b.status(store(rec(lsn(4, 1), "dropped"))) // it asks
	told := <-asked
	b.s.mu.Lock()
	b.s.doubt.number++
	b.s.doubt.wide, b.s.latterly = b.s.doubt.number, b.s.doubt.number
	b.s.mu.Unlock()
	told(5, nil)
	late := make(chan error, 1)
	b.s.Fence(labLog, 5, b.s.DoubtNumber()-1, func(_ logs.Doubt, err error) { late <- err })
	if err := <-late; !errors.Is(err, ErrDoubtMeanwhile) {
		t.Errorf("fenced by what was asked before: %v", err)
	}
	for len(asked) == 0 { // it asks again
		if a := b.status(store(rec(lsn(5, 1), "too early"))); a.Status != wire.LogStatus_LOG_STATUS_DROPPED {
			t.Fatalf("a store: %v", a)
		}
	}
	(<-asked)(6, nil)
	if f := b.fence(labLog, 6); f.err != nil || f.doubt.to != lsn(6, 0)-1 {
		t.Errorf("fenced: %+v", f)
	}
}
