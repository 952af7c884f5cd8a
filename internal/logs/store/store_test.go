package store

import (
	"testing"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/sim/simfs"
	"github.com/braiddb/braid/internal/wire"
)

func TestStoredThenReleasedThenRead(t *testing.T) {
	b := newLab(t, 1).open()
	b.put(rec(lsn(1, 1), "a"), rec(lsn(1, 2), "b"), rec(lsn(1, 4), "d"))
	all := func() string {
		return text(b.read(&wire.ReadStartRequest{From: uint64(lsn(1, 1)), Until: uint64(lsn(1, 10))}))
	}
	if got := all(); got != "" {
		t.Fatalf("before the release: %s", got)
	}
	b.release(lsn(1, 5))
	const want = "e1n1=a e1n2=b none[e1n3 e1n3] e1n4=d none[e1n5 e1n5]"
	if got := all(); got != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
	b.stop()
	b.open()
	if got := all(); got != want {
		t.Fatalf("after a restart\ngot  %s\nwant %s", got, want)
	}
	b.put(rec(lsn(1, 5), "e"))
	b.crash(simfs.Crash{})
	b.open()
	if got, want := all(), "e1n1=a e1n2=b none[e1n3 e1n3] e1n4=d e1n5=e"; got != want {
		t.Fatalf("after a crash\ngot  %s\nwant %s", got, want)
	}
	b.stop()
}

func TestSealRefusesStoresForGood(t *testing.T) {
	b := newLab(t, 2).open()
	b.put(rec(lsn(1, 1), "a"), rec(lsn(1, 2), "b"))
	a := call(b.s.Seal, &wire.SealRequest{Log: uint64(labLog), Epoch: 1, SealedBy: 3})
	if a.Status != statusOK || len(a.Epochs) != 1 || a.Epochs[0].MaxSeen != 2 {
		t.Fatalf("seal: %v", a)
	}
	for range 2 {
		got := b.send(store(rec(lsn(1, 3), "c")))[uint64(lsn(1, 3))]
		if got.Status != statusPreempted || got.SealEpoch != 1 || got.SealedBy != 3 || got.Soft {
			t.Fatalf("store below the seal: %v", got)
		}
		b.crash(simfs.Crash{})
		b.open()
	}
	b.put(rec(lsn(2, 1), "next epoch"))
	recovery := store(rec(lsn(1, 3), "c"))
	recovery.SealEpoch = 1
	recovery.Record.Flags |= logs.FlagWrittenByRecovery
	if got := b.send(recovery)[uint64(lsn(1, 3))]; got.Status != statusOK {
		t.Fatalf("recovery's store: %v", got)
	}
	b.stop()
}
