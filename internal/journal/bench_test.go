package journal

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// BenchmarkJournal measures records and bytes a second for writers that wait for
// each of their records, beside the bare loop of one write and one fdatasync.
func BenchmarkJournal(b *testing.B) {
	for _, size := range []int{128, 1 << 10, 64 << 10} {
		b.Run(fmt.Sprintf("bare/%dB", size), func(b *testing.B) { benchBare(b, size) })
		for _, writers := range []int{1, 4, 16, 64, 256} {
			b.Run(fmt.Sprintf("journal/%dB/%dw", size, writers), func(b *testing.B) { benchJournal(b, size, writers) })
		}
	}
}

func benchBare(b *testing.B, size int) {
	fs := vfs.Default
	const bytes = 16 << 20
	f, err := fs.Create(fs.PathJoin(b.TempDir(), "bare"), vfs.WriteCategoryUnspecified)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, bytes)); err != nil {
		b.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, padded(int64(size)))
	at := int64(0)
	b.SetBytes(int64(size))
	for b.Loop() {
		if _, err := f.WriteAt(buf, at); err != nil {
			b.Fatal(err)
		}
		if err := f.SyncData(); err != nil {
			b.Fatal(err)
		}
		if at += int64(len(buf)); at+int64(len(buf)) > bytes {
			at = 0
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

func benchJournal(b *testing.B, size, writers int) {
	j, _ := openAt(b, vfs.Default, b.TempDir(), 1, Options{})
	defer j.Close()
	payload := make([]byte, size)
	var left atomic.Int64
	left.Store(int64(b.N))
	b.SetBytes(int64(size))
	b.ResetTimer()
	before := j.Metrics()
	var wait sync.WaitGroup
	for w := range writers {
		wait.Add(1)
		go func() {
			defer wait.Done()
			recs := []Record{{Stream: StreamID(w), Kind: KindEntry, Payload: payload}}
			c := make(chan error, 1)
			done := func(err error) { c <- err }
			for pos := uint64(1); left.Add(-1) >= 0; pos++ {
				recs[0].Pos = pos
				j.Append(recs, done)
				if err := <-c; err != nil {
					b.Error(err)
					return
				}
				j.SetLowWater(StreamID(w), pos)
			}
		}()
	}
	wait.Wait()
	b.StopTimer()
	after := j.Metrics()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
	b.ReportMetric(float64(after.Records-before.Records)/float64(max(1, after.Groups-before.Groups)), "records/group")
	b.ReportMetric(float64(after.BytesWritten-before.BytesWritten)/float64(max(1, after.PayloadBytes-before.PayloadBytes)), "written/payload")
}
