package store

import (
	"testing"

	"github.com/braiddb/braid/internal/journal"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// TestAReleaseOutlivesTheStoresItCameWith: a release whose batch brings no copy to
// the journal, because all its stores are refused or cannot be written, is kept as
// one that came alone.
func TestAReleaseOutlivesTheStoresItCameWith(t *testing.T) {
	b := newLab(t, 43).open()
	b.put(rec(lsn(1, 1), "a"), rec(lsn(1, 2), "b"))
	astray := rec(lsn(1, 3), "c")
	astray.Copyset = []uint64{uint64(others[0]), uint64(others[1])}
	var got *wire.LogBatch
	b.s.HandleBatch(&wire.LogBatch{FromNode: 2, Stores: []*wire.Store{store(astray)}, Releases: []*wire.Release{
		{Log: uint64(labLog), Released: uint64(lsn(1, 1)), Epoch: 1, LastKnownGood: 1, CountBase: 40, CountKnown: true}}},
		func(a *wire.LogBatch) { got = a })
	if len(got.GetStored()) != 1 || got.Stored[0].Status != wire.LogStatus_LOG_STATUS_NOT_IN_COPYSET {
		t.Fatalf("%v", got)
	}
	b.wantReleased(lsn(1, 1), 40)

	lost := &batch{s: b.s}
	b.s.handleReleases([]*wire.Release{{Log: uint64(labLog), Released: uint64(lsn(1, 2)), Epoch: 1, LastKnownGood: 2}}, lost)
	lost.durable(journal.ErrNoSpace)
	b.wantReleased(lsn(1, 2), 40)
	b.stop()
}

// wantReleased begins a new life, and looks what it knows of a log's releases.
func (b *lab) wantReleased(released logs.LSN, base uint64) {
	b.t.Helper()
	b.stop()
	b.open()
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	l := b.s.log(labLog)
	if l.released != released {
		b.t.Errorf("%s is released in the next life, not %s", l.released, released)
	}
	if len(l.bases) != 1 || l.bases[0].count != base {
		b.t.Errorf("the next life knows the bases %v", l.bases)
	}
}

// TestReleasesAreConfirmed: whoever asks is told what readers are served up to, which
// is not what was said where earlier epochs have yet to be made clean.
func TestReleasesAreConfirmed(t *testing.T) {
	b := newLab(t, 44)
	b.opts.Purge = func(logs.LogID, logs.Epoch, logs.LSN) {}
	b.open()
	defer b.stop()
	b.put(rec(lsn(1, 1), "a"), rec(lsn(2, 1), "b"))
	confirm := func(at logs.LSN, ask bool) []*wire.Released {
		var got []*wire.Released
		b.s.HandleBatch(&wire.LogBatch{FromNode: 2, Releases: []*wire.Release{{Log: uint64(labLog), Released: uint64(at), Epoch: uint32(at.Epoch()), Confirm: ask}}},
			func(a *wire.LogBatch) { got = append(got, a.Released...) })
		return got
	}
	if got := confirm(lsn(1, 1), false); got != nil {
		t.Errorf("nobody asked for %v", got)
	}
	for _, at := range []logs.LSN{lsn(1, 1), lsn(2, 1)} {
		if got := confirm(at, true); len(got) != 1 || logs.LSN(got[0].Released) != lsn(1, 1) || got[0].Log != uint64(labLog) {
			t.Errorf("release %s: %v", at, got)
		}
	}
}
