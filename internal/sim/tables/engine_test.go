package tables

import (
	"math/rand/v2"
	"testing"

	"github.com/braiddb/braid/internal/tables/docdb"
)

// TestNoMemtableFillsByItself: an engine flushes a memtable that is full on a goroutine
// of its own, so what a crash leaves would follow from that and not from the seed.
func TestNoMemtableFillsByItself(t *testing.T) {
	h, verdict := stage(t)
	m := h.m
	m.c.w.Opt.Knobs["midFlushOneIn"] = 0
	var err error
	if m.engine, err = docdb.OpenEngine(m.fs, "db", docdb.EngineOptions{CacheBytes: 1 << 20, MemTableBytes: memTableBytes, OnCommit: m.committed}); err != nil {
		t.Fatal(err)
	}
	defer m.closeEngine()
	dice := rand.New(rand.NewPCG(1, 1))
	memtables, flushed, commits := m.engine.Metrics().MemTableBytes, 0, 0
	for ; flushed < 8; commits++ {
		b := m.engine.NewBatch()
		for range 1 + dice.IntN(4) {
			key, value := make([]byte, 8), make([]byte, dice.IntN(64<<dice.IntN(9)))
			for i := range key {
				key[i] = byte(dice.IntN(256))
			}
			if err := b.PutGroupState(7, key, value); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.Commit(); err != nil {
			t.Fatal(err)
		}
		now := m.engine.Metrics().MemTableBytes
		if m.filled == 0 {
			flushed++
			memtables = now
		} else if now != memtables {
			t.Fatalf("commit %d: the engine has memtables of %d bytes, after the last flush they had %d; %d are filled", commits, now, memtables, m.filled)
		}
	}
	if s := verdict(); s != "" {
		t.Fatal(s)
	}
	t.Logf("%d commits", commits)
}
