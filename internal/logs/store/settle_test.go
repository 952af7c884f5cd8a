package store

import (
	"testing"
	"time"

	"github.com/braiddb/braid/internal/logs"
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
