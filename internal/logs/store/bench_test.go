package store

import (
	"crypto/rand"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/braiddb/braid/internal/journal"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// realClock is the machine's.
type realClock struct{ begun time.Time }

func (c realClock) Mono() time.Duration { return time.Since(c.begun) }
func (realClock) WallMs() int64         { return time.Now().UnixMilli() }
func (realClock) AfterFunc(d time.Duration, f func()) func() bool {
	return time.AfterFunc(d, f).Stop
}

// openReal opens a shard and its journal on a file system.
func openReal(t testing.TB, fs vfs.FS, dir string, o Options) (*Store, *journal.Journal) {
	t.Helper()
	clock := realClock{time.Now()}
	var s *Store
	ready := make(chan struct{})
	jo := journal.Options{OnPressure: func([]journal.StreamID) { <-ready; s.Pressure() }}
	j, replay, err := journal.Open(fs, fs.PathJoin(dir, "journal"), journal.Identity{Node: 1, Incarnation: 1}, clock, jo)
	if err != nil {
		t.Fatal(err)
	}
	o.Shard, o.Journal, o.Stream, o.Incarnation = labShard, j, labStream, 1
	o.Mono, o.WallMs, o.AfterFunc = clock.Mono, clock.WallMs, clock.AfterFunc
	o.Recovered = replay.Streams[labStream]
	if s, err = Open(fs, fs.PathJoin(dir, "logs"), o); err != nil {
		t.Fatal(err)
	}
	close(ready)
	return s, j
}

// flood sends copies from..to in batches, with so many batches under way at
// once, to some logs in turn.
func flood(t testing.TB, s *Store, from, to, perBatch, window, manyLogs, payload int) {
	noise := make([]byte, 1<<20+payload) // payloads do not compress
	if _, err := rand.Read(noise); err != nil {
		t.Fatal(err)
	}
	slots := make(chan struct{}, window)
	var running sync.WaitGroup
	var mu sync.Mutex
	var again []int // those that a full queue turned away: they are sent again, as a sequencer would
	copyset := []uint64{uint64(labShard), uint64(others[0])}
	batch := &wire.LogBatch{FromNode: 2}
	for range perBatch {
		batch.Stores = append(batch.Stores, &wire.Store{Record: &wire.LogRecord{}})
	}
	send := func(numbers []int) {
		batch.Stores = batch.Stores[:len(numbers)]
		for i, n := range numbers {
			r := batch.Stores[i].Record
			esn := n/manyLogs + 1
			r.Log, r.Lsn = uint64(labLog)+uint64(n%manyLogs), uint64(lsn(1, logs.ESN(esn)))
			r.TimestampMs, r.Wave, r.Copyset = 1_700_000_000_000+int64(n), 1, copyset
			at := n * 509 % (1 << 20)
			r.CountBefore, r.Count, r.Payload = uint64(esn), 1, noise[at:at+payload]
			r.Checksum = logs.Checksum(r.Payload)
		}
		slots <- struct{}{}
		running.Add(len(numbers))
		var answered atomic.Int64 // a batch is answered in one part or two
		all := int64(len(numbers))
		s.HandleBatch(batch, func(a *wire.LogBatch) {
			for _, st := range a.Stored {
				switch st.Status {
				case statusOK:
				case wire.LogStatus_LOG_STATUS_DROPPED:
					mu.Lock()
					again = append(again, int(logs.LSN(st.Lsn).ESN()-1)*manyLogs+int(st.Log-uint64(labLog)))
					mu.Unlock()
				default:
					t.Errorf("store: %s", st.Status)
				}
				running.Done()
			}
			if answered.Add(int64(len(a.Stored))) == all {
				<-slots
			}
		})
	}
	numbers := make([]int, 0, perBatch)
	for at := from; at < to; at += len(numbers) {
		numbers = numbers[:0]
		for n := at; n < min(at+perBatch, to); n++ {
			numbers = append(numbers, n)
		}
		send(numbers)
	}
	for {
		running.Wait()
		if len(again) == 0 {
			return
		}
		dropped := again
		again = nil
		for len(dropped) > 0 {
			n := min(perBatch, len(dropped))
			send(dropped[:n])
			dropped = dropped[n:]
		}
	}
}

func cpu() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkStores stores copies of 128 bytes on the machine's disk.
func BenchmarkStores(b *testing.B) {
	for _, perBatch := range []int{1, 8, 64} {
		for _, manyLogs := range []int{1, 100} {
			b.Run(fmt.Sprintf("batch=%d/logs=%d", perBatch, manyLogs), func(b *testing.B) {
				s, j := openReal(b, vfs.Default, b.TempDir(), Options{})
				n := (b.N + perBatch - 1) / perBatch * perBatch
				b.ReportAllocs()
				b.ResetTimer()
				before := cpu()
				flood(b, s, 0, n, perBatch, max(4, 256/perBatch), manyLogs, 128)
				b.StopTimer()
				used := cpu() - before
				b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "stores/s")
				b.ReportMetric(float64(used.Nanoseconds())/float64(n), "cpu-ns/store")
				if err := s.Close(); err != nil {
					b.Error(err)
				}
				if err := j.Close(); err != nil {
					b.Error(err)
				}
			})
		}
	}
}

// TestWriteAmplification: beyond the journal a copy is written once.
func TestWriteAmplification(t *testing.T) {
	for _, c := range []struct{ payload, logs, copies int }{{128, 1, 60000}, {128, 100, 60000}, {1024, 20, 20000}} {
		s, j := openReal(t, vfs.NewMem(), "shard", Options{PartitionBytes: 3 << 20, MemTableBytes: 1 << 20})
		for i := range 4 {
			flood(t, s, i*c.copies/4, (i+1)*c.copies/4, 50, 4, c.logs, c.payload)
			if err := s.rotate(); err != nil {
				t.Fatal(err)
			}
		}
		stored := s.Metrics().StoredBytes
		s.settled()
		for _, l := range s.writable() {
			if err := l.lsm.db.Flush(); err != nil {
				t.Fatal(err)
			}
			l.done()
		}
		m := s.Metrics()
		written := float64(m.BytesFlushed + m.BytesCompacted)
		journaled := float64(j.Metrics().PayloadBytes)
		t.Logf("%d bytes, %d logs: %.0f KiB of copies, journal %.0f KiB, partitions and marks %.0f KiB: %.2f of the journal",
			c.payload, c.logs, float64(stored)/1024, journaled/1024, written/1024, written/journaled)
		if written > 1.3*journaled {
			t.Errorf("%d bytes, %d logs: written %.2f times", c.payload, c.logs, written/journaled)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}
}
