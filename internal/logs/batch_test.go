package logs

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/braiddb/braid/internal/catalog"
)

var compressions = []catalog.Compression{
	catalog.Compression_COMPRESSION_NONE, catalog.Compression_COMPRESSION_LZ4, catalog.Compression_COMPRESSION_ZSTD,
}

func batchOf(c catalog.Compression, payloads ...string) []byte {
	var b BatchBuilder
	for _, p := range payloads {
		b.Add([]byte(p))
	}
	return b.AppendTo(nil, c)
}

func payloadsOf(t testing.TB, blob []byte) []string {
	t.Helper()
	b, err := OpenBatch(blob)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for i, p := range b.All() {
		if i != len(out) {
			t.Fatalf("batch offset %d at place %d", i, len(out))
		}
		out = append(out, string(p))
	}
	if n, err := BatchCount(blob); err != nil || n != len(out) || b.Count() != n {
		t.Fatalf("%d payloads; the header says %d: %v", len(out), n, err)
	}
	return out
}

func TestBatchesComeApartAsTheyWereMade(t *testing.T) {
	long := strings.Repeat("the same line again and again\n", 5000)
	cases := [][]string{
		{""}, {"a"}, {"", "", ""}, {"a", "", "bc"}, {long}, {long, "x", long},
		strings.SplitAfter(long, "\n"),
	}
	r := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 10000)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	cases = append(cases, []string{string(noise)}, []string{string(noise[:127]), string(noise[:128]), string(noise[:129])})
	for i, want := range cases {
		for _, c := range compressions {
			blob := batchOf(c, want...)
			if len(want) == 1 {
				var b BatchBuilder
				b.Add([]byte(want[0]))
				if string(b.Only()) != want[0] {
					t.Errorf("case %d: the only payload is another", i)
				}
			}
			if got := payloadsOf(t, blob); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("case %d, %v: %d payloads back of %d", i, c, len(got), len(want))
			}
			bytes := 0
			for _, p := range want {
				bytes += BatchedSize(len(p))
			}
			if len(blob) > BatchSize(bytes) {
				t.Errorf("case %d, %v: %d bytes, bounded by %d", i, c, len(blob), BatchSize(bytes))
			}
		}
	}
}

func TestWhatDoesNotShrinkIsNotCompressed(t *testing.T) {
	for _, c := range compressions[1:] {
		b, err := OpenBatch(batchOf(c, "abcdefgh"))
		if err != nil || b.Compression() != catalog.Compression_COMPRESSION_NONE {
			t.Errorf("%v: a tiny batch is stored as %v: %v", c, b.Compression(), err)
		}
		b, err = OpenBatch(batchOf(c, strings.Repeat("abcdefgh", 100)))
		if err != nil || b.Compression() != c {
			t.Errorf("%v: a batch that shrinks is stored as %v: %v", c, b.Compression(), err)
		}
	}
}

func TestBatchesAreBatchedAgain(t *testing.T) {
	for _, c := range compressions {
		var b BatchBuilder
		b.Add([]byte("first"))
		line := strings.Repeat("z", 300)
		for _, inner := range compressions {
			if err := b.AddBatch(batchOf(inner, inner.String(), line)); err != nil {
				t.Fatal(err)
			}
		}
		b.Add([]byte("last"))
		want := []string{"first", "COMPRESSION_NONE", line, "COMPRESSION_LZ4", line, "COMPRESSION_ZSTD", line, "last"}
		if got := payloadsOf(t, b.AppendTo([]byte{}, c)); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%v: %q", c, got)
		}
	}
}

func TestWhatIsNotABatchAddsNothing(t *testing.T) {
	var b BatchBuilder
	b.Add([]byte("one"))
	good := batchOf(catalog.Compression_COMPRESSION_LZ4, strings.Repeat("x", 1000))
	if err := b.AddBatch(good[:len(good)-1]); !errors.Is(err, ErrBadBatch) {
		t.Errorf("half a batch: %v", err)
	}
	if b.Count() != 1 || b.Bytes() != 4 {
		t.Errorf("%d payloads, %d bytes", b.Count(), b.Bytes())
	}
	b.count = BatchCountMax
	if err := b.AddBatch(good); err == nil || b.Bytes() != 4 {
		t.Errorf("a full builder took a batch: %v", err)
	}
}

// TestTheFormatIsForEver: such bytes are on disks.
func TestTheFormatIsForEver(t *testing.T) {
	line := strings.Repeat("q", 600)
	for _, c := range []struct {
		hex  string
		want []string
	}{
		{"0100020402686900", []string{"hi", ""}},
		{"010101da044fd80471710200ffff33000200e07171717171717171717171717171", []string{line}},
		{"010201da0428b52ffd40005a015d000018d80471015403022d5408", []string{line}},
	} {
		blob, err := hex.DecodeString(c.hex)
		if err != nil {
			t.Fatal(err)
		}
		if got := payloadsOf(t, blob); fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s holds %q", c.hex, got)
		}
	}
	if got := hex.EncodeToString(batchOf(catalog.Compression_COMPRESSION_NONE, "hi", "")); got != "0100020402686900" {
		t.Errorf("encoded as %s", got)
	}
}

func TestDamagedBatchesAreRefused(t *testing.T) {
	header := func(format, comp byte, count, length uint64, body string) []byte {
		b := binary.AppendUvarint([]byte{format, comp}, count)
		return append(binary.AppendUvarint(b, length), body...)
	}
	cases := map[string][]byte{
		"nothing":                 {},
		"one byte":                {1},
		"another format":          header(2, 0, 1, 2, "\x01a"),
		"unknown compression":     header(1, 3, 1, 2, "\x01a"),
		"no payloads":             header(1, 0, 0, 0, ""),
		"too many payloads":       header(1, 0, BatchCountMax+1, BatchCountMax+1, strings.Repeat("\x00", BatchCountMax+1)),
		"more payloads than body": header(1, 0, 3, 2, "\x00\x00"),
		"a body too long":         header(1, 1, 1, BatchBytesMax+1, strings.Repeat("a", 1<<18)),
		"a body cut short":        header(1, 0, 1, 3, "\x01a"),
		"a body with more":        header(1, 0, 1, 2, "\x01ab"),
		"a payload past the body": header(1, 0, 1, 2, "\x05a"),
		"a long length":           header(1, 0, 1, 3, "\x81\x00a"),
		"a long count":            append([]byte{1, 0, 0x81, 0}, 2, 1, 'a'),
		"lz4 that is none":        header(1, 1, 1, 200, "\xff\xff\xff\xff"),
		"lz4 that cannot be":      header(1, 1, 1, BatchBytesMax, "\x1f\x00\x00\x00"),
		"zstd that is none":       header(1, 2, 1, 200, "\xff\xff\xff\xff"),
		"zstd that cannot be":     header(1, 2, 1, BatchBytesMax, "\x28\xb5\x2f\xfd"),
	}
	for name, blob := range cases {
		if _, err := OpenBatch(blob); !errors.Is(err, ErrBadBatch) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A whole batch is refused wherever it is cut.
	for _, c := range compressions {
		whole := batchOf(c, strings.Repeat("abc", 50), "", "x")
		for n := range whole {
			if _, err := OpenBatch(whole[:n]); !errors.Is(err, ErrBadBatch) {
				t.Errorf("%v cut at %d: %v", c, n, err)
			}
		}
	}
}

// A few bytes cannot make the decoder take much memory (L2).
func TestBombsAreNotLit(t *testing.T) {
	for _, c := range compressions[1:] {
		blob := append(binary.AppendUvarint([]byte{1, byte(c), 1}, BatchBytesMax), bytes.Repeat([]byte{1}, 16)...)
		if n := testing.AllocsPerRun(5, func() { _, _ = OpenBatch(blob) }); n > 10 {
			t.Errorf("%v: %v allocations", c, n)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range 100 {
			_, _ = OpenBatch(blob) // that it is refused is seen elsewhere
		}
		runtime.ReadMemStats(&after)
		if n := (after.TotalAlloc - before.TotalAlloc) / 100; n > 4096 {
			t.Errorf("%v: %d bytes allocated for %d", c, n, len(blob))
		}
	}
}

// The coders are shared by everybody, also by who lives in simulated time.
func TestCodersWorkInAndOutOfABubble(t *testing.T) {
	line := strings.Repeat("bubble ", 100)
	for range 2 {
		synctest.Test(t, func(t *testing.T) {
			for _, c := range compressions {
				if got := payloadsOf(t, batchOf(c, line)); got[0] != line {
					t.Errorf("%v: %q", c, got)
				}
			}
		})
		for _, c := range compressions {
			if got := payloadsOf(t, batchOf(c, line)); got[0] != line {
				t.Errorf("%v: %q", c, got)
			}
		}
	}
}

func FuzzOpenBatch(f *testing.F) {
	for _, c := range compressions {
		f.Add(batchOf(c, ""))
		f.Add(batchOf(c, "a", "", strings.Repeat("seed ", 60)))
	}
	f.Add([]byte{1, 1, 1, 0xff, 0xff, 0xff, 0x0f, 0})
	f.Fuzz(func(t *testing.T, blob []byte) {
		b, err := OpenBatch(blob)
		if err != nil {
			if !errors.Is(err, ErrBadBatch) {
				t.Fatal(err)
			}
			return
		}
		var again BatchBuilder
		for _, p := range b.All() {
			again.Add(p)
		}
		if again.Count() != b.Count() || !bytes.Equal(again.body, b.body) {
			t.Fatalf("%d payloads in %d bytes become %d in %d", b.Count(), b.Bytes(), again.Count(), again.Bytes())
		}
		if b.compression == 0 && !bytes.Equal(again.AppendTo(nil, 0), blob) {
			t.Fatal("a batch has two encodings")
		}
	})
}

func BenchmarkBatch(b *testing.B) {
	line := []byte("\tif err := binary.Write(w, binary.LittleEndian, header); err != nil {\n")
	for _, c := range compressions {
		b.Run(c.String(), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(line) * 1000))
			var builder BatchBuilder
			var dst []byte
			for b.Loop() {
				builder.Reset()
				for range 1000 {
					builder.Add(line)
				}
				dst = builder.AppendTo(dst[:0], c)
				if _, err := OpenBatch(dst); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(dst)), "bytes/batch")
		})
	}
}
