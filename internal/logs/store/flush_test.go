package store

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/sim/simfs"
)

// TestAFlushAfterAFatalErrorEnds: the goroutine of a flush ends where the manifest cannot be
// synced, and the node with it. Whoever waits for that flush, or closes the store, as
// an Open does that fails, does not do so for ever.
func TestAFlushAfterAFatalErrorEnds(t *testing.T) {
	b := newLab(t, 73)
	told := make(chan error, 1)
	b.opts.Fatal = func(err error) { told <- err }
	b.open()
	b.put(rec(lsn(1, 1), "a"))
	b.s.settled()
	b.fs.SetFault(func(op simfs.Op) (f simfs.Fault) {
		if op.Kind == simfs.OpSync && strings.Contains(op.Path, "MANIFEST") {
			f.Err = simfs.ErrIO
		}
		return f
	})
	over := make(chan struct{})
	go func() {
		defer close(over)
		b.s.Pressure()
		for _, l := range b.s.writable() {
			if err := l.lsm.flush(); err == nil {
				t.Error("it is durable")
			}
			l.done()
		}
		if err := b.s.Close(); err == nil {
			t.Error("it is closed in good order")
		}
	}()
	select {
	case <-over:
	case <-time.After(20 * time.Second):
		t.Fatal("a flush does not end")
	}
	if err := <-told; err == nil {
		t.Error("Fatal was told nothing")
	}
}

// TestACloseEndsWithAFatalError: whoever closes an LSM waits for a flush, and the goroutine
// of that comes upon the fault only then.
func TestACloseEndsWithAFatalError(t *testing.T) {
	b := newLab(t, 77)
	told := make(chan error, 1)
	b.opts.Fatal = func(err error) { told <- err }
	b.open()
	b.put(rec(lsn(1, 1), "a"))
	b.s.settled()
	syncs, fault := make(chan struct{}, 64), make(chan struct{})
	b.fs.SetFault(func(op simfs.Op) (f simfs.Fault) {
		if op.Kind == simfs.OpSync && strings.Contains(op.Path, "MANIFEST") {
			syncs <- struct{}{}
			<-fault
			f.Err = simfs.ErrIO
		}
		return f
	})
	if _, err := b.s.marks.db.AsyncFlush(); err != nil {
		t.Fatal(err)
	}
	<-syncs
	over := make(chan error, 1)
	go func() { over <- b.s.marks.close() }()
	close(fault)
	select {
	case err := <-over:
		if !errors.Is(err, errEnded) {
			t.Errorf("closed: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("a close does not end")
	}
	if err := <-told; err == nil {
		t.Error("Fatal was told nothing")
	}
	b.s.abandon()
}
