package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// withShards runs a test in simulated time, and looks that no stream is left behind.
func withShards(t *testing.T, nodes int, f func(t *testing.T, f *fakeShards, c *Client)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeShards(t, nodes)
		c := fake.client(Options{})
		f(t, fake, c)
		synctest.Wait()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

func appendThese(t *testing.T, l *Log, payloads ...string) (last LSN) {
	t.Helper()
	for _, p := range payloads {
		lsn, err := l.Append(t.Context(), []byte(p))
		if err != nil {
			t.Fatal(err)
		}
		last = lsn
	}
	return last
}

// appendBatch puts a batch into the log as BufferedWriter would.
func (f *fakeShards) appendBatch(log LogID, payloads ...string) LSN {
	var b logs.BatchBuilder
	for _, p := range payloads {
		b.Add([]byte(p))
	}
	f.lock.Lock()
	defer f.lock.Unlock()
	f.esn[log]++
	lsn := logs.MakeLSN(max(1, f.epochs[log]), f.esn[log])
	f.epochs[log] = lsn.Epoch()
	f.records[log] = append(f.records[log], fakeRecord{lsn: lsn, payload: b.AppendTo(nil, catalog.Compression_COMPRESSION_LZ4), count: uint32(b.Count()), batch: true})
	return lsn
}

// readAll reads until the end; gaps are told as their type.
func readAll(t *testing.T, r interface {
	Next(context.Context) (Entry, error)
}) (list []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		e, err := r.Next(ctx)
		switch {
		case err == io.EOF:
			return list
		case err != nil:
			t.Fatalf("after %v: %v", list, err)
		case e.IsGap():
			list = append(list, e.Gap.Type.String())
		default:
			list = append(list, string(e.Record.Payload))
		}
	}
}

func on(b bool) *bool { return &b }

func TestReaderTails(t *testing.T) {
	for _, single := range []bool{true, false} {
		withShards(t, 3, func(t *testing.T, f *fakeShards, c *Client) {
			l := c.logByID(7, "seven")
			r := l.NewReader(ReaderOptions{From: logs.MakeLSN(1, 1), SingleCopy: &single})
			var wg sync.WaitGroup
			wg.Go(func() {
				for i := range 200 {
					appendThese(t, l, fmt.Sprintf("p-%d", i))
				}
			})
			for i := range 200 {
				e, err := r.Next(t.Context())
				if err != nil || e.IsGap() || string(e.Record.Payload) != fmt.Sprintf("p-%d", i) || e.Record.Offset != uint64(i) || !e.Record.OffsetKnown || e.Record.Count != 1 {
					t.Fatalf("entry %d: %+v, %v", i, e, err)
				}
			}
			wg.Wait()
			if h := r.Health(); h.State != ReaderHealthy {
				t.Errorf("health %+v", h)
			}
			m := r.Metrics()
			if m.Records != 200 || (single && m.BytesReceived != m.Bytes) {
				t.Errorf("single %v: %+v", single, m)
			}
			r.Close()
			synctest.Wait()
			if len(f.streams) != 0 {
				t.Errorf("%d streams are left", len(f.streams))
			}
			if _, err := r.Next(t.Context()); !errors.Is(err, ErrCanceled) {
				t.Errorf("after Close: %v", err)
			}
		})
	}
}

// What is told across failovers, deaths of shards and a lost record: each acknowledged
// record once, in order, and gaps of the right types.
func TestReaderThroughFailures(t *testing.T) {
	withShards(t, 5, func(t *testing.T, f *fakeShards, c *Client) {
		l := c.logByID(7, "seven")
		var want []string
		for i := range 60 {
			p := fmt.Sprintf("p-%d", i)
			lsn := appendThese(t, l, p)
			if i == 31 {
				f.with(func() { f.gone[lsn] = true })
				p = "DATALOSS"
			}
			want = append(want, p)
			if i == 19 || i == 39 {
				f.with(func() { f.holder[7] = 0 }) // another sequencer: another epoch
				want = append(want, "BRIDGE")
			}
		}
		r := l.NewReader(ReaderOptions{SingleCopy: on(true), Until: f.tail(7), Window: 8})
		var got []string
		for len(got) < 15 {
			e, err := r.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if !e.IsGap() {
				got = append(got, string(e.Record.Payload))
			}
		}
		f.kill(2, true)
		got = append(got, readAll(t, r)...)
		if !slices.Equal(got, want) {
			t.Errorf("read %v\nwant %v", got, want)
		}
		if m := r.Metrics(); m.Losses != 1 || m.Rewinds == 0 {
			t.Errorf("%+v", m)
		}
	})
}

// With two of three shards dead some record lies only on them: the error says so, and
// reading goes on when one is back.
func TestReaderStalls(t *testing.T) {
	withShards(t, 3, func(t *testing.T, f *fakeShards, c *Client) {
		l := c.logByID(7, "seven")
		last := appendThese(t, l, "a", "b", "c")
		f.kill(2, true)
		f.kill(3, true)
		r := l.NewReader(ReaderOptions{From: logs.MakeLSN(1, 1), Until: last})
		if e, err := r.Next(t.Context()); err != nil || string(e.Record.Payload) != "a" {
			t.Fatalf("%+v, %v", e, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := r.Next(ctx)
		if !errors.Is(err, ErrTimeout) || !strings.Contains(err.Error(), "N2:S0 N3:S0") || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%v", err)
		}
		if h := r.Health(); h.State != ReaderStalled || len(h.Silent) != 2 {
			t.Fatalf("%+v", h)
		}
		f.kill(2, false)
		if got := readAll(t, r); !slices.Equal(got, []string{"b", "c"}) {
			t.Errorf("%v", got)
		}
	})
}

func TestReaderOptions(t *testing.T) {
	withShards(t, 3, func(t *testing.T, f *fakeShards, c *Client) {
		l := c.logByID(7, "seven")
		appendThese(t, l, "a")
		at := f.appendBatch(7, "b0", "b1", "b2")
		f.with(func() { f.keys[at] = []byte("k") })
		f.appendBatch(7, "c0")
		last := f.appendBatch(7, "d0", "d1")
		f.with(func() { f.keys[last] = []byte("k") })
		read := func(o ReaderOptions) []string {
			o.Until = max(o.Until, f.tail(7))
			r := l.NewReader(o)
			defer r.Close()
			return readAll(t, r)
		}
		one := 1
		cases := map[string]struct {
			o    ReaderOptions
			want []string
		}{
			"all":       {ReaderOptions{}, []string{"BRIDGE", "a", "b0", "b1", "b2", "c0", "d0", "d1"}},
			"after":     {ReaderOptions{From: at, After: &one}, []string{"b2", "c0", "d0", "d1"}},
			"by time":   {ReaderOptions{FromTime: f.began.Add(2 * time.Second)}, []string{"c0", "d0", "d1"}},
			"a filter":  {ReaderOptions{From: logs.MakeLSN(1, 1), Filter: &Filter{Key: []byte("k")}}, []string{"FILTERED_OUT", "b0", "b1", "b2", "FILTERED_OUT", "d0", "d1"}},
			"no window": {ReaderOptions{From: logs.MakeLSN(1, 1), Window: 1, BufferBytes: 1}, []string{"a", "b0", "b1", "b2", "c0", "d0", "d1"}},
		}
		for name, x := range cases {
			if got := read(x.o); !slices.Equal(got, x.want) {
				t.Errorf("%s: %v, want %v", name, got, x.want)
			}
			x.o.SingleCopy = on(true)
			if got := read(x.o); !slices.Equal(got, x.want) {
				t.Errorf("%s, single copy: %v, want %v", name, got, x.want)
			}
		}
		r := l.NewReader(ReaderOptions{From: at, Until: at, WithoutPayload: true})
		if e, err := r.Next(t.Context()); err != nil || e.Record.Count != 3 || e.Record.Payload != nil || e.Record.Offset != 1 {
			t.Errorf("without payload: %+v, %v", e, err)
		}
		tailing := l.NewReader(ReaderOptions{FromTail: true})
		got := make(chan Entry, 1)
		go func() {
			e, _ := tailing.Next(t.Context())
			got <- e
		}()
		synctest.Wait()
		f.appendBatch(7, "e0")
		if e := <-got; string(e.Record.Payload) != "e0" {
			t.Errorf("from the tail: %+v", e)
		}
		tailing.Close()
	})
}

// Where no sequencer answers, the metadata log does.
func TestReaderWithoutSequencer(t *testing.T) {
	withShards(t, 3, func(t *testing.T, f *fakeShards, c *Client) {
		l := c.logByID(7, "seven")
		last := appendThese(t, l, "a", "b")
		f.with(func() { f.mute = true })
		r := l.NewReader(ReaderOptions{From: logs.MakeLSN(1, 1), Until: last})
		if got := readAll(t, r); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("%v", got)
		}
		f.kill(1, true)
		f.kill(3, true)
		r = l.NewReader(ReaderOptions{From: logs.MakeLSN(1, 1), Until: last})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := r.Next(ctx); !errors.Is(err, ErrTimeout) || r.Health().State != ReaderNoMetadata {
			t.Errorf("%v, %+v", err, r.Health())
		}
		r.Close()
	})
}

// TestAnEntryMayHaveNoCopyMore: where a node was down an entry of the metadata log has as
// many copies as a record, not one more. As many silent nodes may have it.
func TestAnEntryMayHaveNoCopyMore(t *testing.T) {
	log := func(copies uint32) *catalog.LogAttributes {
		return &catalog.LogAttributes{Replication: &catalog.Replication{Node: copies}}
	}
	entry := func(copies uint32) []*wire.EpochMetadata {
		return []*wire.EpochMetadata{{EffectiveSince: 1, Replication: &catalog.Replication{Node: copies}}}
	}
	for _, x := range []struct {
		what   string
		log    *catalog.LogAttributes
		found  []*wire.EpochMetadata
		copies int
	}{
		{"two copies", log(2), entry(2), 2},
		{"two copies, nothing found", log(2), nil, 2},
		{"three now, two once", log(3), entry(2), 2},
		{"two now, three once", log(2), entry(3), 2},
		{"more copies than nodes", log(5), nil, 3},
		{"not known, two by an entry", nil, entry(2), 2},
		{"nothing is known", nil, nil, 1},
	} {
		if n := metadataCopies(x.log, x.found, 3); n != x.copies {
			t.Errorf("%s: %d", x.what, n)
		}
	}
}

func TestReaderOfNoLog(t *testing.T) {
	withShards(t, 3, func(t *testing.T, f *fakeShards, c *Client) {
		r := c.logByID(404, "").NewReader(ReaderOptions{From: 5, Until: 9})
		e, err := r.Next(t.Context())
		if err != nil || e.Gap != (Gap{GapNotInConfig, 5, 9}) {
			t.Errorf("%+v, %v", e, err)
		}
		if _, err := r.Next(t.Context()); err != io.EOF {
			t.Errorf("%v", err)
		}
	})
}

// Readers are cheap: no goroutine, and little memory.
func TestManyReaders(t *testing.T) {
	withShards(t, 3, func(t *testing.T, f *fakeShards, c *Client) {
		const readers = 500
		var list []*Reader
		before := runtime.NumGoroutine()
		for i := range readers {
			r := c.logByID(LogID(1000+i), "").NewReader(ReaderOptions{From: logs.MakeLSN(1, 1)})
			if err := r.begin(t.Context()); err != nil {
				t.Fatal(err)
			}
			list = append(list, r)
		}
		synctest.Wait()
		if n := runtime.NumGoroutine() - before; n > 20 {
			t.Errorf("%d readers at the tail have %d goroutines", readers, n)
		}
		for i, r := range list {
			f.appendBatch(LogID(1000+i), "x")
			if e, err := r.Next(t.Context()); err != nil || string(e.Record.Payload) != "x" {
				t.Fatalf("reader %d: %+v, %v", i, e, err)
			}
			r.Close()
		}
		synctest.Wait()
		if len(f.streams) != 0 {
			t.Errorf("%d streams are left", len(f.streams))
		}
	})
}

func TestCheckpointedReader(t *testing.T) {
	withShards(t, 3, func(t *testing.T, f *fakeShards, c *Client) {
		l := c.logByID(7, "seven")
		appendThese(t, l, "a")
		f.appendBatch(7, "b0", "b1", "b2")
		last := f.appendBatch(7, "c0")
		o := CheckpointOptions{Reader: ReaderOptions{From: logs.MakeLSN(1, 1), Until: last}, Keyspace: "app"}
		all := []string{"a", "b0", "b1", "b2", "c0"}
		for n := range all {
			name := fmt.Sprintf("reader-%d", n)
			r, err := l.NewCheckpointedReader(t.Context(), name, o)
			if err != nil {
				t.Fatal(err)
			}
			for range n + 1 {
				if _, err := r.Next(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if err := r.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n < len(all)-1 { // what is read and not committed is read again
				if _, err := r.Next(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			r.Close()
			again, err := l.NewCheckpointedReader(t.Context(), name, o)
			if err != nil || again.Committed() != r.Committed() {
				t.Fatalf("%+v, %v", again, err)
			}
			if got := readAll(t, again); !slices.Equal(got, all[n+1:]) {
				t.Errorf("after %d entries: %v, want %v", n+1, got, all[n+1:])
			}
			if err := again.CommitAt(t.Context(), Position{LSN: last + 5}); !errors.Is(err, ErrInvalid) {
				t.Errorf("a checkpoint beyond what was read: %v", err)
			}
		}
		if _, err := l.NewCheckpointedReader(t.Context(), "", o); !errors.Is(err, ErrInvalid) {
			t.Errorf("no name: %v", err)
		}
	})
}

func TestQuestions(t *testing.T) {
	withShards(t, 3, func(t *testing.T, f *fakeShards, c *Client) {
		l := c.logByID(7, "seven")
		if empty, err := l.IsEmpty(t.Context()); err != nil || !empty {
			t.Errorf("a new log is empty: %v, %v", empty, err)
		}
		if at, err := l.FindTime(t.Context(), f.began, false); err != nil || at != logs.LSNOldest {
			t.Errorf("a time in an empty log: %v, %v", at, err)
		}
		var lsns []LSN
		for i := range 12 {
			lsns = append(lsns, appendThese(t, l, strings.Repeat("x", 10)))
			f.with(func() { f.keys[lsns[i]] = fmt.Appendf(nil, "key-%02d", i*2) })
		}
		if tail, err := l.Tail(t.Context()); err != nil || tail < lsns[11] {
			t.Errorf("tail %v, %v", tail, err)
		}
		if a, err := l.TailAttributes(t.Context()); err != nil || a.LSN != lsns[11] || a.Count != 12 || !a.Timestamp.Equal(f.began.Add(11*time.Second).Truncate(time.Millisecond)) {
			t.Errorf("%+v, %v", a, err)
		}
		// FindTime is what looking at every record gives.
		for i := range 26 {
			at := f.began.Add(time.Duration(i-1) * time.Second / 2)
			want := lsns[11] + 1
			for k := 11; k >= 0; k-- {
				if f.began.Add(time.Duration(k)*time.Second).UnixMilli() >= at.UnixMilli() {
					want = lsns[k]
				}
			}
			got, err := l.FindTime(t.Context(), at, false)
			if i <= 1 {
				want = logs.LSNOldest
			}
			if err != nil || got != want {
				t.Errorf("time %v: %v, not %v: %v", at.Sub(f.began), got, want, err)
			}
		}
		if low, high, err := l.FindKey(t.Context(), []byte("key-05"), false); err != nil || low != lsns[2] || high != lsns[3] {
			t.Errorf("key: %v, %v, %v", low, high, err)
		}
		if n, err := l.DataSize(t.Context(), time.Time{}, time.Time{}); err != nil || n != 240 {
			// The attributes of the fake's log are unknown, so copies are counted as one.
			t.Errorf("%d bytes, %v", n, err)
		}
		if e, err := l.Epochs(t.Context()); err != nil || len(e) != 1 || len(e[0].Shards) != 3 {
			t.Errorf("%+v, %v", e, err)
		}
		f.with(func() { f.recover = true })
		if _, err := l.TailAttributes(t.Context()); !errors.Is(err, ErrRecovering) {
			t.Errorf("while recovering: %v", err)
		}
		if _, err := l.IsEmpty(t.Context()); !errors.Is(err, ErrRecovering) {
			t.Errorf("while recovering: %v", err)
		}
	})
}

func TestTrim(t *testing.T) {
	withShards(t, 3, func(t *testing.T, f *fakeShards, c *Client) {
		l := c.logByID(7, "seven")
		last := appendThese(t, l, "a", "b", "c", "d")
		if err := l.Trim(t.Context(), last+1); !errors.Is(err, ErrPastTail) {
			t.Errorf("past the tail: %v", err)
		} else if want := "braid: log 7: trim past the tail: the log ends at e1n4, and a trim up to e1n5 was asked for: " +
			"what is appended next would be gone unread; trim up to e1n4 at most"; err.Error() != want {
			t.Errorf("%q, want %q", err, want)
		}
		f.with(func() { f.knows = map[NodeID]LSN{3: last - 3} })
		if err := l.Trim(t.Context(), last-2); err != nil {
			t.Fatal(err)
		}
		r := l.NewReader(ReaderOptions{From: logs.MakeLSN(1, 1), Until: last})
		if got := readAll(t, r); !slices.Equal(got, []string{"TRIM", "c", "d"}) {
			t.Errorf("%v", got)
		}
		if h, err := l.HeadAttributes(t.Context()); err != nil || h.TrimPoint != last-2 || h.Timestamp.IsZero() {
			t.Errorf("%+v, %v", h, err)
		}
		if at, err := l.FindTime(t.Context(), time.Unix(1, 0), false); err != nil || at != last-1 {
			t.Errorf("all records are younger: %v, %v", at, err)
		}
		f.kill(f.sequencer(7)%3+1, true) // not the sequencer
		err := l.Trim(t.Context(), last)
		if !errors.Is(err, ErrPartial) || errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("with one dead: %v", err)
		}
		var le *LogError
		if !errors.As(err, &le) || !le.Retriable {
			t.Errorf("%#v", err)
		}
		if empty, err := l.IsEmpty(t.Context()); err != nil || !empty {
			t.Errorf("trimmed wholly: %v, %v", empty, err)
		}
	})
}

// With too few shards heard an answer is partial, and never later than the right one.
func TestPartialAnswers(t *testing.T) {
	withShards(t, 5, func(t *testing.T, f *fakeShards, c *Client) {
		l := c.logByID(7, "seven")
		var lsns []LSN
		for range 20 {
			lsns = append(lsns, appendThese(t, l, "x"))
		}
		s := f.sequencer(7)
		partial := 0
		for dead := NodeID(1); dead <= 5; dead++ {
			other := dead%5 + 1
			if dead == s || other == s {
				continue
			}
			f.kill(dead, true)
			for i, lsn := range lsns {
				at, err := l.FindTime(t.Context(), f.began.Add(time.Duration(i)*time.Second), false)
				if want := max(lsn, 1); err != nil || at > want || (i > 0 && at != want) {
					t.Errorf("one dead: %v, not %v: %v", at, want, err)
				}
			}
			f.kill(other, true)
			for i, lsn := range lsns {
				at, err := l.FindTime(t.Context(), f.began.Add(time.Duration(i)*time.Second), false)
				if !errors.Is(err, ErrPartial) || at > lsn {
					t.Errorf("two dead: %v, should be at most %v: %v", at, lsn, err)
				}
				if at < lsn {
					partial++
				}
			}
			f.kill(dead, false)
			f.kill(other, false)
		}
		if partial <= 3 {
			t.Errorf("only %d answers were earlier than they need be: the test does not test", partial)
		}
	})
}

func TestLogErrorsOfReads(t *testing.T) {
	l := &Log{id: 7}
	err := l.questionError("trim", wire.LogStatus_LOG_STATUS_PARTIAL, nil, "2 of 3")
	if !errors.Is(err, ErrPartial) || errors.Is(err, ErrPastTail) || !strings.Contains(err.Error(), "2 of 3") {
		t.Errorf("%v", err)
	}
}
