package store

import (
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestNoMemtableFillsWithoutGoroutines: Pebble flushes a full memtable on a goroutine of
// its own, and what a crash leaves would follow from how far that came.
func TestNoMemtableFillsWithoutGoroutines(t *testing.T) {
	for _, memTable := range []int64{64 << 10, 128 << 10} {
		s := &Store{o: Options{Tasks: func(func()) {}}.withDefaults(), fs: vfs.NewMem(), blocks: pebble.NewCache(1 << 20), files: pebble.NewFileCache(1, 100)}
		l, err := s.openLSM("lsm", false, memTable)
		if err != nil {
			t.Fatal(err)
		}
		dice := rand.New(rand.NewPCG(1, 1))
		was := l.db.Metrics().MemTable.Size
		for pos, flushes := uint64(1), 0; flushes < 8; pos++ {
			b := l.db.NewBatch()
			for range 1 + dice.IntN(3) {
				key, value := make([]byte, 8+dice.IntN(8)), make([]byte, dice.IntN(16<<dice.IntN(10)))
				for i := range key {
					key[i] = byte(dice.IntN(256))
				}
				if err := b.Set(append([]byte{spaceIndex}, key...), value, nil); err != nil {
					t.Fatal(err)
				}
			}
			if err := l.commit(b, pos); err != nil {
				t.Fatal(err)
			}
			now := l.db.Metrics().MemTable.Size
			if l.filled == 0 {
				flushes++
				was = now
			} else if now != was {
				t.Fatalf("batch %d: memtables of %d bytes, %d after the last flush, with %d written at most", pos, now, was, l.filled)
			}
		}
		if err := l.db.Close(); err != nil {
			t.Fatal(err)
		}
		s.files.Unref()
		s.blocks.Unref()
	}
}
