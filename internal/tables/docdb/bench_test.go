package docdb

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/braiddb/braid/internal/hlc"
)

const benchKeys = 1_000_000

// processorTime reports the processor time of a benchmark's operations, all
// threads together: on a busy machine it says more than the clock.
func processorTime(b *testing.B, per int) {
	read := func() int64 {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return u.Utime.Nano() + u.Stime.Nano()
	}
	start := read()
	b.Cleanup(func() { b.ReportMetric(float64(read()-start)/float64(b.N)/float64(per), "cpu-ns/op") })
}

var wholeTable = Span{Table: 1}

// benchEngine holds benchKeys strings of 128 bytes, flushed and compacted.
func benchEngine(b *testing.B) *Engine {
	b.Helper()
	e, err := OpenEngine(vfs.NewMem(), "bench", EngineOptions{CacheBytes: 512 << 20, MemTableBytes: 32 << 20})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = e.Close() })
	value := make([]byte, 128)
	for i := 0; i < benchKeys; i += 500 {
		applyStrings(b, e, uint64(i), 500, hlc.Timestamp(1000+i), value)
	}
	if err := e.Flush(); err != nil {
		b.Fatal(err)
	}
	if err := e.db.Compact(b.Context(), []byte{spaceDocument, 0}, []byte{spaceProvisional, 0}, true); err != nil {
		b.Fatal(err)
	}
	return e
}

// benchKey spreads keys over the hash space as hashing would.
func benchKey(i uint64) (uint64, []byte) {
	return i * 0x9e3779b97f4a7c15, fmt.Appendf(nil, "key:%012d", i)
}

func applyStrings(b *testing.B, e *Engine, from uint64, n int, ht hlc.Timestamp, value []byte) {
	var batch WriteBatch
	x := NewExec(nil, &batch, wholeTable.Table, 0)
	batch.Reset()
	for i := range n {
		x.Doc(benchKey(from + uint64(i))).PutRoot(Root{Kind: RootString, Value: value})
	}
	a := e.NewBatch()
	if _, err := a.Apply(wholeTable.Table, batch.Encode(nil), ht, 0); err != nil {
		b.Fatal(err)
	}
	if err := a.Commit(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkPointRead opens a view, reads one of a million cached keys, closes the
// view. "busy" applies a write between two reads, so that no iterator is reused.
func BenchmarkPointRead(b *testing.B) {
	e := benchEngine(b)
	read := func(b *testing.B, x *Exec, i uint64) {
		v, err := e.View(wholeTable, hlc.Max-1, nil)
		if err != nil {
			b.Fatal(err)
		}
		x.Reset(v, nil, wholeTable.Table, 1)
		if r, ok, err := x.Doc(benchKey(i)).Root(); err != nil || ok != (i < benchKeys) || ok && len(r.Value) != 128 {
			b.Fatal(i, ok, err)
		}
		v.Close()
	}
	b.Run("quiet", func(b *testing.B) {
		x := NewExec(nil, nil, wholeTable.Table, 1)
		b.ReportAllocs()
		processorTime(b, 1)
		for b.Loop() {
			read(b, x, rand.Uint64N(benchKeys))
		}
	})
	b.Run("missing", func(b *testing.B) {
		x := NewExec(nil, nil, wholeTable.Table, 1)
		b.ReportAllocs()
		processorTime(b, 1)
		for b.Loop() {
			read(b, x, benchKeys+rand.Uint64N(benchKeys))
		}
	})
	b.Run("busy", func(b *testing.B) {
		x := NewExec(nil, nil, wholeTable.Table, 1)
		b.ReportAllocs()
		processorTime(b, 1)
		for b.Loop() {
			e.iters.changed(e)
			read(b, x, rand.Uint64N(benchKeys))
		}
	})
	b.Run("memtable", func(b *testing.B) { // with what was written lately in memory
		for i := range uint64(200) {
			applyStrings(b, e, i*100, 100, hlc.Timestamp(1<<50+i), make([]byte, 128))
		}
		x := NewExec(nil, nil, wholeTable.Table, 1)
		b.ReportAllocs()
		processorTime(b, 1)
		for b.Loop() {
			e.iters.changed(e)
			read(b, x, rand.Uint64N(benchKeys))
		}
	})
}

// BenchmarkApply applies an entry of 50 SETs of 128 bytes with its applied index;
// "replacing" deletes at once what each replaces.
func BenchmarkApply(b *testing.B) {
	for _, replacing := range []bool{false, true} {
		b.Run(map[bool]string{false: "blind", true: "replacing"}[replacing], func(b *testing.B) {
			e := benchEngine(b)
			var batch WriteBatch
			var encoded []byte
			x := NewExec(nil, &batch, wholeTable.Table, 1)
			value := make([]byte, 128)
			ht := hlc.Timestamp(1 << 51)
			b.ReportAllocs()
			processorTime(b, 50)
			for b.Loop() {
				ht++
				a := e.NewBatch()
				first := uint32(0)
				for range 50 { // as they come: 50 requests of one key
					var v *View
					batch.Reset()
					if replacing {
						var err error
						if v, err = e.View(wholeTable, hlc.Max-1, nil); err != nil {
							b.Fatal(err)
						}
					}
					x.Reset(v, &batch, wholeTable.Table, 1)
					d := x.Doc(benchKey(rand.Uint64N(benchKeys)))
					if replacing {
						x.SetCollect(hlc.Max)
						if _, _, err := d.Root(); err != nil {
							b.Fatal(err)
						}
					}
					d.PutRoot(Root{Kind: RootString, Value: value})
					if v != nil {
						v.Close()
					}
					encoded = batch.Encode(encoded[:0])
					n, err := a.Apply(wholeTable.Table, encoded, ht, first)
					if err != nil {
						b.Fatal(err)
					}
					first += n
				}
				if err := a.PutGroupState(7, []byte("applied"), binary.BigEndian.AppendUint64(nil, uint64(ht))); err != nil {
					b.Fatal(err)
				}
				if err := a.Commit(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkSweep looks for garbage in a million keys: where there is none the
// block property spares the reading.
func BenchmarkSweep(b *testing.B) {
	e := benchEngine(b)
	for _, full := range []bool{false, true} {
		b.Run(map[bool]string{false: "guided", true: "full"}[full], func(b *testing.B) {
			for b.Loop() {
				r, err := e.Sweep(wholeTable, SweepOptions{Cutoff: 1 << 49, Full: full, BytesMax: 1 << 40})
				if err != nil || r.Deleted > 0 || r.Next != nil {
					b.Fatal(r, err)
				}
			}
		})
	}
}
