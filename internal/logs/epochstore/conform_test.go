package epochstore_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/logs/epochstore"
	"github.com/braiddb/braid/internal/logs/sequencer"
	"github.com/braiddb/braid/internal/wire"
)

var (
	_ sequencer.EpochStore = (*epochstore.Memory)(nil)
	_ sequencer.EpochStore = (*epochstore.Table)(nil)
	_ sequencer.EpochStore = (*epochstore.ZooKeeper)(nil)
)

func read(s sequencer.EpochStore, log logs.LogID) (*wire.EpochRecord, error) {
	type answer struct {
		r   *wire.EpochRecord
		err error
	}
	done := make(chan answer, 2)
	s.Read(log, func(r *wire.EpochRecord, err error) { done <- answer{r, err} })
	a := <-done
	return a.r, a.err
}

func set(s sequencer.EpochStore, log logs.LogID, expect uint64, next *wire.EpochRecord) error {
	done := make(chan error, 2)
	s.CompareAndSet(log, expect, next, func(err error) { done <- err })
	return <-done
}

// record is a record as an activation writes it.
func record(log logs.LogID, version uint64, epoch uint32, nonce uint64) *wire.EpochRecord {
	return &wire.EpochRecord{
		Version: version, Log: uint64(log), WriterNode: 3, WriterIncarnation: 4, WriterNonce: nonce,
		Metadata: &wire.EpochMetadata{
			Epoch: epoch, EffectiveSince: 1, Nodeset: []uint64{256, 512, 768}, Weights: []float64{1, 2, 4},
			Replication: &catalog.Replication{Node: 2}, Locations: []string{"a", "b", "c"},
		},
		LastCleanEpoch: epoch / 2, Tail: &wire.TailRecord{Log: uint64(log), Lsn: 1<<32 | 7, Count: 9},
	}
}

// conform is what every store does.
func conform(t *testing.T, s sequencer.EpochStore) {
	t.Run("one log", func(t *testing.T) { oneLog(t, s) })
	t.Run("nonsense", func(t *testing.T) { nonsense(t, s) })
	t.Run("nothing goes back", func(t *testing.T) { nothingGoesBack(t, s) })
	t.Run("an answer that was lost", func(t *testing.T) { lostAnswer(t, s) })
	t.Run("race", func(t *testing.T) { race(t, 10_004, 30, func(int) {}, s) })
	t.Run("many logs", func(t *testing.T) { manyLogs(t, s, 1000) })
}

func oneLog(t *testing.T, s sequencer.EpochStore) {
	const log = 10_001
	if r, err := read(s, log); r != nil || err != nil {
		t.Fatalf("a log that is not provisioned: %v, %v", r, err)
	}
	var last *wire.EpochRecord
	for version := uint64(1); version <= 5; version++ {
		next := record(log, version, uint32(version+1), version)
		if err := set(s, log, version-1, next); err != nil {
			t.Fatal(err)
		}
		got, err := read(s, log)
		if err != nil || !proto.Equal(got, next) {
			t.Fatalf("written %v, read %v, %v", next, got, err)
		}
		last = next
	}
	for _, expect := range []uint64{0, 1, 4, 6, 99} {
		if err := set(s, log, expect, record(log, expect+1, 99, 77)); !errors.Is(err, sequencer.ErrConflict) {
			t.Errorf("expecting version %d of 5: %v", expect, err)
		}
	}
	if err := set(s, log+1, 3, record(log+1, 4, 9, 1)); !errors.Is(err, sequencer.ErrConflict) {
		t.Errorf("expecting version 3 where nothing is: %v", err)
	}
	if got, err := read(s, log); err != nil || !proto.Equal(got, last) {
		t.Errorf("after refusals: %v, %v", got, err)
	}
}

func nonsense(t *testing.T, s sequencer.EpochStore) {
	for what, err := range map[string]error{
		"another log's record": set(s, 10_002, 0, record(10_003, 1, 2, 1)),
		"a version too far":    set(s, 10_002, 0, record(10_002, 2, 2, 1)),
		"a metadata log":       set(s, logs.LogID(10_002).MetadataLog(), 0, record(logs.LogID(10_002).MetadataLog(), 1, 2, 1)),
		"no log":               set(s, 0, 0, record(0, 1, 2, 1)),
	} {
		if !errors.Is(err, epochstore.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if r, err := read(s, 10_002); r != nil || err != nil {
		t.Errorf("after refusals: %v, %v", r, err)
	}
}

func nothingGoesBack(t *testing.T, s sequencer.EpochStore) {
	const log = 10_005
	first := record(log, 1, 10, 1)
	if err := set(s, log, 0, first); err != nil {
		t.Fatal(err)
	}
	older := record(log, 2, 9, 2)
	older.LastCleanEpoch = first.LastCleanEpoch
	if err := set(s, log, 1, older); !errors.Is(err, epochstore.ErrGoesBack) {
		t.Errorf("next epoch 9 after 10: %v", err)
	}
	unclean := record(log, 2, 11, 2)
	unclean.LastCleanEpoch = first.LastCleanEpoch - 1
	if err := set(s, log, 1, unclean); !errors.Is(err, epochstore.ErrGoesBack) {
		t.Errorf("last clean epoch before what it was: %v", err)
	}
	if got, err := read(s, log); err != nil || !proto.Equal(got, first) {
		t.Errorf("after refusals: %v, %v", got, err)
	}
}

// lostAnswer repeats a write whose answer never came.
func lostAnswer(t *testing.T, s sequencer.EpochStore) {
	const log = 10_006
	if err := set(s, log, 0, record(log, 1, 2, 1)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := set(s, log, 1, record(log, 2, 3, 5)); err != nil {
			t.Errorf("the same writer's same write: %v", err)
		}
		if err := set(s, log, 0, record(log, 1, 2, 5)); !errors.Is(err, sequencer.ErrConflict) {
			t.Errorf("an older write: %v", err)
		}
	}
	if err := set(s, log, 1, record(log, 2, 3, 6)); !errors.Is(err, sequencer.ErrConflict) {
		t.Errorf("another writer's write of the same version: %v", err)
	}
}

// race has writers, one on each store, take epochs of one log against each other,
// as sequencers do, until there were so many. trouble is called before each try.
func race(t *testing.T, log logs.LogID, epochs uint64, trouble func(int), stores ...sequencer.EpochStore) {
	t.Helper()
	for len(stores) < 4 {
		stores = append(stores, stores[0])
	}
	var mu sync.Mutex
	won := map[uint64]uint64{}                // version -> nonce
	var told atomic.Uint64                    // the highest version that somebody was told of
	var conflicts, unknown, wins atomic.Int64 //
	var wg sync.WaitGroup
	for w, s := range stores {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), uint64(log)))
			for range 100_000 {
				trouble(w)
				least := told.Load()
				rec, err := read(s, log)
				if err != nil {
					continue
				}
				if rec.GetVersion() < least {
					t.Errorf("E3: version %d read after %d was known", rec.GetVersion(), least)
					return
				}
				if rec.GetVersion() >= epochs {
					return
				}
				next := record(log, rec.GetVersion()+1, uint32(rec.GetVersion()+2), rng.Uint64())
				switch err := set(s, log, rec.GetVersion(), next); {
				case err == nil:
					wins.Add(1)
					mu.Lock()
					if won[next.Version] != 0 {
						t.Errorf("E1: version %d was won twice", next.Version)
					}
					won[next.Version] = next.WriterNonce
					mu.Unlock()
					for v := told.Load(); v < next.Version && !told.CompareAndSwap(v, next.Version); v = told.Load() {
					}
				case errors.Is(err, sequencer.ErrConflict):
					conflicts.Add(1)
				default:
					unknown.Add(1)
				}
			}
			t.Error("no end of the race")
		})
	}
	wg.Wait()
	rec, err := read(stores[0], log)
	if err != nil || rec.GetVersion() != epochs {
		t.Fatalf("ended with %v, %v", rec, err)
	}
	if nonce := won[epochs]; nonce != 0 && nonce != rec.WriterNonce {
		t.Errorf("version %d was won with nonce %x, and %x is stored", epochs, nonce, rec.WriterNonce)
	}
	if uint64(wins.Load()) > epochs {
		t.Errorf("%d wins of %d versions", wins.Load(), epochs)
	}
	t.Logf("%d wins, %d conflicts, %d unknown", wins.Load(), conflicts.Load(), unknown.Load())
}

func manyLogs(t *testing.T, s sequencer.EpochStore, n int) {
	var wg sync.WaitGroup
	var failed atomic.Pointer[error]
	for i := range n {
		log := logs.LogID(20_000 + i)
		wg.Add(1)
		s.Read(log, func(r *wire.EpochRecord, err error) {
			if err != nil || r != nil {
				err = fmt.Errorf("log %d: %v, %w", log, r, err)
				failed.Store(&err)
				wg.Done()
				return
			}
			s.CompareAndSet(log, 0, record(log, 1, 2, uint64(i)), func(err error) {
				if err != nil {
					failed.Store(&err)
				}
				wg.Done()
			})
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		t.Fatal(*err)
	}
	for _, i := range []int{0, n / 2, n - 1} {
		if r, err := read(s, logs.LogID(20_000+i)); err != nil || r.GetWriterNonce() != uint64(i) {
			t.Errorf("log %d: %v, %v", 20_000+i, r, err)
		}
	}
}

func TestMemory(t *testing.T) { conform(t, epochstore.NewMemory()) }

func FuzzDecode(f *testing.F) {
	good, err := epochstore.Encode(record(7, 3, 4, 5))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint64(7), good)
	f.Add(uint64(8), good)
	f.Add(uint64(7), good[:4])
	f.Add(uint64(7), append([]byte{2}, good[1:]...))
	f.Add(uint64(7), []byte{})
	f.Fuzz(func(t *testing.T, log uint64, data []byte) {
		r, err := epochstore.Decode(logs.LogID(log), data)
		if err != nil {
			if r != nil || !errors.Is(err, epochstore.ErrDamaged) && !errors.Is(err, epochstore.ErrNewer) {
				t.Fatalf("%v, %v", r, err)
			}
			return
		}
		if r.Log != log || r.Version == 0 {
			t.Fatalf("read for log %d: %v", log, r)
		}
		again, err := epochstore.Encode(r)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := epochstore.Decode(logs.LogID(log), again); err != nil || !proto.Equal(back, r) {
			t.Fatalf("%v, %v", back, err)
		}
	})
}

func TestEveryBitOfARecordCounts(t *testing.T) {
	good, err := epochstore.Encode(record(7, 3, 4, 5))
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		for bit := range 8 {
			bad := append([]byte(nil), good...)
			bad[i] ^= 1 << bit
			if r, err := epochstore.Decode(7, bad); err == nil {
				t.Fatalf("byte %d, bit %d: %v", i, bit, r)
			}
		}
	}
	if _, err := epochstore.Decode(8, good); !errors.Is(err, epochstore.ErrDamaged) {
		t.Errorf("another log's record: %v", err)
	}
}
