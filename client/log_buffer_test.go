package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// place is where a payload got to.
type place struct {
	lsn    LSN
	offset int
	err    error
}

// writing gives payloads to a writer and knows where they got to, once they did.
type writing struct {
	t      *testing.T
	w      *BufferedWriter
	mu     sync.Mutex
	places map[string]place
}

func newWriting(t *testing.T, w *BufferedWriter) *writing {
	return &writing{t: t, w: w, places: map[string]place{}}
}

func (x *writing) write(payloads ...string) {
	x.t.Helper()
	for _, p := range payloads {
		if err := x.w.Append([]byte(p), func(lsn LSN, offset int, err error) {
			x.mu.Lock()
			defer x.mu.Unlock()
			if _, twice := x.places[p]; twice {
				x.t.Errorf("%s is over twice", p)
			}
			x.places[p] = place{lsn, offset, err}
		}); err != nil {
			x.t.Fatal(err)
		}
	}
}

func (x *writing) over() int {
	synctest.Wait()
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.places)
}

func TestEachTriggerCutsABatch(t *testing.T) {
	inLogBubble(t, 1, Options{}, func(t *testing.T, f *fakeLogs, c *Client) {
		l := c.logByID(1, "")
		mustAppend(t, l, "warm")
		x := newWriting(t, l.BufferedWriter(BufferedWriterOptions{Time: 50 * time.Millisecond, Bytes: 100, Count: 5}))
		x.write(appendAll(4, "a")...)
		if n := x.over(); n != 0 {
			t.Fatalf("%d are over before any trigger", n)
		}
		x.write("a-4")
		if n := x.over(); n != 5 {
			t.Fatalf("%d are over after the fifth", n)
		}
		x.write("b-0", "b-1")
		<-time.After(49 * time.Millisecond)
		if n := x.over(); n != 5 {
			t.Fatalf("%d are over before the time", n)
		}
		<-time.After(time.Millisecond)
		if n := x.over(); n != 7 {
			t.Fatalf("%d are over after the time", n)
		}
		x.write("c", strings.Repeat("d", 98)) // 2 + 99: more than 100, so c leaves alone
		if n := x.over(); n != 1+7 {
			t.Fatalf("%d are over after the bytes", n)
		}
		x.write("e") // 99 + 2
		if n := x.over(); n != 2+7 {
			t.Fatalf("%d are over after the bytes", n)
		}
		x.w.Flush()
		if n := x.over(); n != 3+7 {
			t.Fatalf("%d are over after Flush", n)
		}
		seen := map[string]bool{}
		for p, at := range x.places {
			key := fmt.Sprint(at.lsn, at.offset)
			if at.err != nil || seen[key] {
				t.Errorf("%s is at %v", p, at)
			}
			seen[key] = true
		}
		if a, b := x.places["a-0"], x.places["a-4"]; a.lsn != b.lsn || a.offset != 0 || b.offset != 4 {
			t.Errorf("%v %v", a, b)
		}
		if n := len(f.records[1]); n != 6 {
			t.Errorf("%d records", n)
		}
		if err := x.w.Sync(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestPayloadsKeepTheirOrderInEveryMode(t *testing.T) {
	for _, mode := range []WriterMode{Independent, OneAtATime, Stream} {
		for _, compression := range []Compression{CompressionNone, CompressionLZ4, CompressionZstd} {
			for seed := range uint64(6) {
				inLogBubble(t, 3, Options{Attempt: 200 * time.Millisecond}, func(t *testing.T, f *fakeLogs, c *Client) {
					f.rand, f.chaos = rand.New(rand.NewPCG(seed, 3)), 0.1
					x := newWriting(t, c.logByID(1, "").BufferedWriter(BufferedWriterOptions{
						Mode: mode, Compression: &compression, Count: 1 + int(seed)*7, Retries: 100, Time: time.Millisecond}))
					want := appendAll(400, "the same words again and again")
					for i, p := range want {
						x.write(p)
						if i%50 == 0 {
							<-time.After(3 * time.Millisecond)
						}
					}
					if err := x.w.Close(t.Context()); err != nil {
						t.Fatal(err)
					}
					if got := f.payloads(1); !slices.Equal(got, want) || x.over() != len(want) {
						t.Errorf("mode %d: %d payloads in the log, %d over", mode, len(got), x.over())
					}
					for p, at := range x.places {
						if at.err != nil {
							t.Errorf("%s: %v", p, at.err)
						}
					}
					if err := x.w.Append(nil, nil); !errors.Is(err, ErrClosed) {
						t.Errorf("after Close: %v", err)
					}
				})
			}
		}
	}
}

func TestOneAtATimeIsOneAtATime(t *testing.T) {
	for mode, want := range map[WriterMode]int{OneAtATime: 1, Independent: 10} {
		inLogBubble(t, 1, Options{Attempt: 100 * time.Millisecond}, func(t *testing.T, f *fakeLogs, c *Client) {
			l := c.logByID(1, "")
			mustAppend(t, l, "warm")
			f.onAppend = func(NodeID, *wire.AppendRequest) *fakeVerdict { return &fakeVerdict{silent: true} }
			x := newWriting(t, l.BufferedWriter(BufferedWriterOptions{Mode: mode, Count: 1}))
			x.write(appendAll(10, "p")...)
			synctest.Wait()
			f.lock.Lock()
			if n := len(f.asked) - 1; n != want {
				t.Errorf("mode %d: %d at once", mode, n)
			}
			f.onAppend = nil
			f.lock.Unlock()
			if err := x.w.Sync(t.Context()); err != nil {
				t.Error(err)
			}
			if n := x.over(); n != 10 {
				t.Errorf("%d are over", n)
			}
		})
	}
}

// A batch that is not taken in time fails, or is given its time again, or, in a
// stream, is never given up.
func TestRetriesOfBatches(t *testing.T) {
	for _, c := range []struct {
		mode    WriterMode
		retries int
		ends    time.Duration // 0: with the outage
	}{{Independent, 0, time.Second}, {Independent, 2, 3 * time.Second}, {OneAtATime, 1, 2 * time.Second}, {Stream, 0, 0}} {
		inLogBubble(t, 1, Options{AppendTimeout: time.Second, Attempt: 100 * time.Millisecond}, func(t *testing.T, f *fakeLogs, cl *Client) {
			f.onAppend = func(NodeID, *wire.AppendRequest) *fakeVerdict { return &fakeVerdict{err: rpc.ErrLost} }
			start := time.Now()
			x := newWriting(t, cl.logByID(1, "").BufferedWriter(BufferedWriterOptions{Mode: c.mode, Retries: c.retries, Time: -1}))
			x.write("a", "b")
			time.AfterFunc(10*time.Second, func() { f.lock.Lock(); f.onAppend = nil; f.lock.Unlock() })
			if err := x.w.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			took := time.Since(start)
			at := x.places["b"]
			switch {
			case c.ends == 0 && (at.err != nil || took < 10*time.Second || took > 11*time.Second):
				t.Errorf("a stream: %v after %v", at, took)
			case c.ends > 0 && (!errors.Is(at.err, ErrUnknownOutcome) || took < c.ends || took > c.ends+500*time.Millisecond):
				t.Errorf("mode %d, %d retries: %v after %v", c.mode, c.retries, at, took)
			}
		})
	}
}

func TestMemoryOfAWriterIsBounded(t *testing.T) {
	inLogBubble(t, 1, Options{}, func(t *testing.T, f *fakeLogs, c *Client) {
		f.onAppend = func(NodeID, *wire.AppendRequest) *fakeVerdict { return &fakeVerdict{silent: true} }
		w := c.logByID(1, "").BufferedWriter(BufferedWriterOptions{MemoryBytes: 10_320, Count: 3})
		for i := range 10 {
			if err := w.Append(make([]byte, 1000), nil); err != nil {
				t.Fatalf("payload %d: %v", i, err)
			}
		}
		err := w.Append(make([]byte, 1000), func(LSN, int, error) { t.Error("done of a payload that was refused") })
		e := (*LogError)(nil)
		if !errors.Is(err, ErrOverloaded) || !errors.As(err, &e) || !e.OutcomeKnown || w.Metrics().Refused.Load() != 1 {
			t.Errorf("%v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if err := w.Sync(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Sync: %v", err)
		}
		f.lock.Lock()
		f.onAppend = nil
		f.lock.Unlock()
		if err := w.Sync(t.Context()); err != nil {
			t.Error(err)
		}
		if err := w.Append(make([]byte, 1000), nil); err != nil {
			t.Errorf("once there is room again: %v", err)
		}
		if err := w.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if n := len(f.payloads(1)); n != 11 || w.mu.bytes != 0 {
			t.Errorf("%d payloads in the log, %d bytes are left", n, w.mu.bytes)
		}
	})
}

// The largest payload goes through, alone and without a batch's header; one byte
// more is refused by number.
func TestTheLargestPayload(t *testing.T) {
	inLogBubble(t, 1, Options{}, func(t *testing.T, f *fakeLogs, c *Client) {
		w := c.logByID(1, "").BufferedWriter(BufferedWriterOptions{})
		err := w.Append(make([]byte, defaultMaxPayload+1), nil)
		if !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), "1048577 bytes, where the log takes 1048576") {
			t.Errorf("%v", err)
		}
		x := newWriting(t, w)
		x.write("small", strings.Repeat("x", defaultMaxPayload), "small again", "and again")
		if err := w.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := len(f.records[1]); n != 3 || len(f.records[1][1].payload) != defaultMaxPayload || f.records[1][1].batch || !f.records[1][2].batch {
			t.Errorf("%d records", n)
		}
		if x.over() != 4 || len(f.payloads(1)) != 4 {
			t.Error("not all arrived")
		}
	})
}

func TestManyGoroutinesShareAWriter(t *testing.T) {
	inLogBubble(t, 2, Options{}, func(t *testing.T, f *fakeLogs, c *Client) {
		w := c.logByID(1, "").BufferedWriter(BufferedWriterOptions{Count: 50})
		var all sync.WaitGroup
		for g := range 8 {
			all.Go(func() {
				for i := range 500 {
					if err := w.Append(fmt.Appendf(nil, "%d-%d", g, i), nil); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		if err := w.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		got := f.payloads(1)
		for g := range 8 {
			mine := slices.DeleteFunc(slices.Clone(got), func(p string) bool { return !strings.HasPrefix(p, fmt.Sprint(g, "-")) })
			if !slices.Equal(mine, appendAll(500, fmt.Sprint(g))) {
				t.Errorf("goroutine %d: %d payloads, or out of order", g, len(mine))
			}
		}
	})
}

func BenchmarkBufferedWriter(b *testing.B) {
	f := newFakeLogs(b, 1)
	f.onAppend = func(NodeID, *wire.AppendRequest) *fakeVerdict {
		return &fakeVerdict{resp: &wire.AppendResponse{Lsn: 1 << 32}}
	}
	c := f.client(Options{})
	w := c.logByID(1, "").BufferedWriter(BufferedWriterOptions{})
	line := []byte("\tif err := binary.Write(w, binary.LittleEndian, header); err")
	b.ReportAllocs()
	for b.Loop() {
		for w.Append(line, nil) != nil {
			if err := w.Sync(context.Background()); err != nil {
				b.Fatal(err)
			}
		}
		f.lock.Lock()
		f.asked = f.asked[:0]
		f.lock.Unlock()
	}
	if err := w.Close(context.Background()); err != nil {
		b.Fatal(err)
	}
}
