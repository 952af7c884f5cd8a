package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// inLogBubble runs a test in simulated time, with a cluster and a client.
func inLogBubble(t *testing.T, nodes int, o Options, f func(t *testing.T, f *fakeLogs, c *Client)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		fake := newFakeLogs(t, nodes)
		c := fake.client(o)
		f(t, fake, c)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if n := c.logs.mu.bytes; n != 0 {
			t.Errorf("%d bytes of appends are left", n)
		}
	})
}

func TestAppendsArriveOnceAndInOrder(t *testing.T) {
	inLogBubble(t, 3, Options{}, func(t *testing.T, f *fakeLogs, c *Client) {
		l := c.logByID(7, "seven")
		last := LSN(0)
		for i := range 100 {
			lsn, err := l.Append(t.Context(), fmt.Appendf(nil, "p-%d", i))
			if err != nil || lsn <= last {
				t.Fatalf("append %d: %v after %v: %v", i, lsn, last, err)
			}
			last = lsn
		}
		if got := f.payloads(7); !slices.Equal(got, appendAll(100, "p")) {
			t.Errorf("the log holds %v", got)
		}
		if n := len(f.asked); n != 100 {
			t.Errorf("100 appends took %d requests", n)
		}
	})
}

// Whatever happens to requests and nodes, what was begun in an order is in the log
// in that order, once, and has ascending LSNs; unless its outcome is said to be
// unknown, and then it is there once or not at all.
func TestOrderAndOnceThroughChaos(t *testing.T) {
	for seed := range uint64(60) {
		inLogBubble(t, 1+int(seed%5), Options{Attempt: 300 * time.Millisecond}, func(t *testing.T, f *fakeLogs, c *Client) {
			f.rand = rand.New(rand.NewPCG(seed, 9))
			dice := rand.New(rand.NewPCG(seed, 10))
			f.chaos = 0.02 + 0.2*float64(seed%3)
			l := c.logByID(LogID(seed+1), "")
			const n = 150
			lsns := make([]LSN, n)
			errs := make([]error, n)
			var all sync.WaitGroup
			for i := range n {
				all.Add(1)
				l.AppendAsync(fmt.Appendf(nil, "p-%d", i), func(lsn LSN, err error) {
					lsns[i], errs[i] = lsn, err
					all.Done()
				})
				if i%20 == 19 {
					<-time.After(time.Duration(dice.IntN(30)) * time.Millisecond)
					if i%40 == 19 && len(f.nodes) > 1 {
						victim := NodeID(1 + dice.IntN(len(f.nodes)))
						f.kill(victim, true)
						time.AfterFunc(100*time.Millisecond, func() { f.kill(victim, false) })
					}
				}
			}
			all.Wait()
			held := f.payloads(l.ID())
			next := 0
			for i := range n {
				p := fmt.Sprintf("p-%d", i)
				there := next < len(held) && held[next] == p
				if there {
					next++
				}
				e, _ := errs[i].(*LogError)
				switch {
				case errs[i] == nil && !there:
					t.Fatalf("seed %d: %s was acknowledged as %v and is not in its place: %v", seed, p, lsns[i], held)
				case errs[i] != nil && (e == nil || there && e.OutcomeKnown):
					t.Fatalf("seed %d: %s is in the log, and failed with %v", seed, p, errs[i])
				case errs[i] == nil && i > 0 && errs[i-1] == nil && lsns[i] <= lsns[i-1]:
					t.Fatalf("seed %d: %v after %v", seed, lsns[i], lsns[i-1])
				}
			}
			if next != len(held) {
				t.Fatalf("seed %d: %d records are there twice or out of order: %v", seed, len(held)-next, held)
			}
		})
	}
}

// TestOrderIsAskedFor: of what is to be kept in order, and of what the same goroutine may
// have begun behind it, the sequencer is told so; of others not (A6).
func TestOrderIsAskedFor(t *testing.T) {
	inLogBubble(t, 3, Options{}, func(t *testing.T, f *fakeLogs, c *Client) {
		l := c.logByID(1, "")
		mustAppend(t, l, "warm")
		streams := map[string]bool{}
		var held atomic.Bool
		f.onAppend = func(_ NodeID, req *wire.AppendRequest) *fakeVerdict {
			streams[string(req.Payload)] = req.Flags&logs.AppendStream != 0
			if held.Load() {
				return &fakeVerdict{silent: true}
			}
			return nil
		}
		mustAppend(t, l, "waited for")
		done := func(LSN, error) {}
		l.AppendAsync([]byte("any"), done, AnyOrder())
		held.Store(true)
		l.AppendAsync([]byte("async"), done)
		l.AppendAsync([]byte("any behind it"), done, AnyOrder())
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		_, _ = l.Append(ctx, []byte("waited for behind it"))
		cancel()
		held.Store(false)
		for mode, name := range map[WriterMode]string{Independent: "independent", OneAtATime: "one at a time", Stream: "stream"} {
			w := l.BufferedWriter(BufferedWriterOptions{Mode: mode})
			if err := w.Append([]byte(name), nil); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		mustAppend(t, l, "waited for, all over")
		want := map[string]bool{"waited for": false, "any": false, "async": true, "any behind it": false, "waited for behind it": true,
			"independent": false, "one at a time": false, "stream": true, "waited for, all over": false}
		if !maps.Equal(streams, want) {
			t.Errorf("kept in order: %v, want %v", streams, want)
		}
	})
}

func TestFailoverIsQuick(t *testing.T) {
	inLogBubble(t, 3, Options{}, func(t *testing.T, f *fakeLogs, c *Client) {
		l := c.logByID(1, "")
		mustAppend(t, l, "before")
		leader := f.sequencer(1)
		// It dies, and the others do not know it yet: they send appends there.
		f.onAppend = func(node NodeID, req *wire.AppendRequest) *fakeVerdict {
			switch {
			case node == leader:
				return &fakeVerdict{err: rpc.ErrUnreachable}
			case req.Flags&logs.AppendNoRedirect == 0:
				return &fakeVerdict{resp: &wire.AppendResponse{Status: wire.LogStatus_LOG_STATUS_REDIRECTED, Redirect: uint64(leader)}}
			}
			return nil
		}
		start := time.Now()
		first := mustAppend(t, l, "after")
		if took := time.Since(start); took > 50*time.Millisecond || first.Epoch() != 2 {
			t.Errorf("%v after %v", first, took)
		}
	})
}

func mustAppend(t *testing.T, l *Log, payload string) LSN {
	t.Helper()
	lsn, err := l.Append(t.Context(), []byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	return lsn
}

// Each status ends as it should, or is tried again.
func TestStatuses(t *testing.T) {
	type S = logs.Status
	final := map[S]error{
		wire.LogStatus_LOG_STATUS_TOO_LARGE: ErrTooLarge, wire.LogStatus_LOG_STATUS_BAD_PAYLOAD: ErrInvalid,
		wire.LogStatus_LOG_STATUS_INVALID: ErrInvalid, wire.LogStatus_LOG_STATUS_NOT_FOUND: ErrNotFound,
		wire.LogStatus_LOG_STATUS_EPOCH_REGRESSED: ErrUnavailable, wire.LogStatus_LOG_STATUS_ACCESS: ErrUnavailable,
	}
	for s, want := range final {
		inLogBubble(t, 3, Options{}, func(t *testing.T, f *fakeLogs, c *Client) {
			f.onAppend = func(NodeID, *wire.AppendRequest) *fakeVerdict { return &fakeVerdict{resp: status(s)} }
			_, err := c.logByID(1, "").Append(t.Context(), []byte("x"))
			e, ok := err.(*LogError)
			if !ok || e.Status != s || !e.OutcomeKnown || !errors.Is(err, want) || errors.Is(err, ErrUnknownOutcome) {
				t.Errorf("%v: %v", s, err)
			}
		})
	}
	again := []S{
		wire.LogStatus_LOG_STATUS_NOT_READY, wire.LogStatus_LOG_STATUS_ISOLATED, wire.LogStatus_LOG_STATUS_NO_SEQUENCER,
		wire.LogStatus_LOG_STATUS_SEQNOBUFS, wire.LogStatus_LOG_STATUS_OVERLOADED, wire.LogStatus_LOG_STATUS_NO_SPACE,
		wire.LogStatus_LOG_STATUS_DISABLED, wire.LogStatus_LOG_STATUS_SHUTDOWN, wire.LogStatus_LOG_STATUS_TIMED_OUT,
		wire.LogStatus_LOG_STATUS_UNKNOWN_OUTCOME, wire.LogStatus_LOG_STATUS_AGAIN, wire.LogStatus_LOG_STATUS_UNDER_REPLICATED,
		wire.LogStatus_LOG_STATUS_DROPPED, wire.LogStatus_LOG_STATUS_FAILED, wire.LogStatus_LOG_STATUS_PREEMPTED,
		wire.LogStatus_LOG_STATUS_REDIRECTED, wire.LogStatus_LOG_STATUS_SEQUENCE_GAP, wire.LogStatus_LOG_STATUS_NOT_FOUND,
	}
	for _, s := range again {
		inLogBubble(t, 3, Options{}, func(t *testing.T, f *fakeLogs, c *Client) {
			left := 5
			f.onAppend = func(NodeID, *wire.AppendRequest) *fakeVerdict {
				if left--; left < 0 {
					return nil
				}
				return &fakeVerdict{resp: status(s)}
			}
			lsn := mustAppend(t, c.logByID(1, ""), "x")
			if got := f.payloads(1); len(got) != 1 || lsn == 0 {
				t.Errorf("%v: the log holds %v", s, got)
			}
		})
		// If it never changes, the append ends in time and says what is known.
		inLogBubble(t, 3, Options{AppendTimeout: time.Second}, func(t *testing.T, f *fakeLogs, c *Client) {
			f.onAppend = func(NodeID, *wire.AppendRequest) *fakeVerdict { return &fakeVerdict{resp: status(s)} }
			start := time.Now()
			_, err := c.logByID(1, "").Append(context.Background(), []byte("x"))
			e, ok := err.(*LogError)
			unknown := s == wire.LogStatus_LOG_STATUS_TIMED_OUT || s == wire.LogStatus_LOG_STATUS_UNKNOWN_OUTCOME
			if !ok || e.OutcomeKnown == unknown || errors.Is(err, ErrUnknownOutcome) != unknown {
				t.Errorf("%v: %v", s, err)
			}
			if took := time.Since(start); took > 1200*time.Millisecond || took < 900*time.Millisecond {
				t.Errorf("%v: it took %v", s, took)
			}
		})
	}
}

func TestRetriesSayThatTheyAre(t *testing.T) {
	inLogBubble(t, 1, Options{}, func(t *testing.T, f *fakeLogs, c *Client) {
		l := c.logByID(3, "")
		before := mustAppend(t, l, "before")
		verdicts := []*fakeVerdict{
			{err: rpc.ErrLost, execute: true},
			{resp: &wire.AppendResponse{Status: wire.LogStatus_LOG_STATUS_PREEMPTED, StoredAs: 77, Redirect: 1, Epoch: 9}},
			nil,
		}
		f.onAppend = func(NodeID, *wire.AppendRequest) *fakeVerdict {
			v := verdicts[0]
			verdicts = verdicts[1:]
			return v
		}
		if _, err := l.Append(t.Context(), []byte("x")); err != nil {
			t.Fatal(err)
		}
		a := f.asked[1:]
		if len(a) != 3 || a[0].req.Flags != 0 || a[1].req.Flags != logs.AppendRetry || a[2].req.Flags&logs.AppendRetry == 0 {
			t.Fatalf("%d requests: %v", len(a), a)
		}
		for i, r := range a {
			if r.req.Sequence != a[0].req.Sequence || LSN(r.req.After) != before || r.req.FirstRunning != a[0].req.Sequence || r.req.Producer != l.queue.id {
				t.Errorf("attempt %d: %v", i, r.req)
			}
		}
		if r := a[2].req; r.StoredAs != 77 || r.SeenEpoch != 9 {
			t.Errorf("what a node said is not told to the next: %v", r)
		}
		if got := f.payloads(3); len(got) != 2 {
			t.Errorf("the log holds %v", got)
		}
	})
}

// TestWhatWasTrimmedUnansweredHasAnUnknownOutcome: retries say above what they may be
// stored, as late as it is certain; who cannot know any more ends them at once.
func TestWhatWasTrimmedUnansweredHasAnUnknownOutcome(t *testing.T) {
	unknownForGood(t, wire.LogStatus_LOG_STATUS_TRIMMED)
}

// TestWhatWasLostUnansweredHasAnUnknownOutcome: nor is one sent again that would come behind
// later ones.
func TestWhatWasLostUnansweredHasAnUnknownOutcome(t *testing.T) {
	unknownForGood(t, wire.LogStatus_LOG_STATUS_LOST)
}

func unknownForGood(t *testing.T, as wire.LogStatus) {
	inLogBubble(t, 1, Options{}, func(t *testing.T, f *fakeLogs, c *Client) {
		verdicts := []*fakeVerdict{
			{resp: &wire.AppendResponse{Status: wire.LogStatus_LOG_STATUS_NEW_EPOCH, Epoch: 9}},
			{err: rpc.ErrLost},
			{resp: status(as)},
		}
		f.onAppend = func(NodeID, *wire.AppendRequest) *fakeVerdict {
			v := verdicts[0]
			verdicts = verdicts[1:]
			return v
		}
		_, err := c.logByID(3, "").Append(t.Context(), []byte("x"))
		if e := (*LogError)(nil); !errors.As(err, &e) || e.OutcomeKnown || e.Retriable || !errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("%v", err)
		}
		for i, want := range []LSN{0, logs.MakeLSN(9, 0), logs.MakeLSN(9, 0)} {
			if r := f.asked[i].req; LSN(r.After) != want {
				t.Errorf("attempt %d is above %v, want %v", i, LSN(r.After), want)
			}
		}
	})
}

func TestContextEndsTheWaiting(t *testing.T) {
	inLogBubble(t, 1, Options{}, func(t *testing.T, f *fakeLogs, c *Client) {
		l := c.logByID(3, "")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := l.Append(ctx, []byte("never sent"))
		if e := (*LogError)(nil); !errors.As(err, &e) || !e.OutcomeKnown || !errors.Is(err, context.Canceled) || !errors.Is(err, ErrCanceled) {
			t.Errorf("a context that is over: %v", err)
		}
		f.onAppend = func(NodeID, *wire.AppendRequest) *fakeVerdict { return &fakeVerdict{silent: true} }
		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(50*time.Millisecond, cancel)
		start := time.Now()
		_, err = l.Append(ctx, []byte("sent"))
		if e := (*LogError)(nil); !errors.As(err, &e) || e.OutcomeKnown || !errors.Is(err, ErrUnknownOutcome) || errors.Is(err, ErrCanceled) {
			t.Errorf("a context that ends under way: %v", err)
		}
		if took := time.Since(start); took != 50*time.Millisecond {
			t.Errorf("it took %v", took)
		}
		f.lock.Lock()
		f.onAppend = nil
		f.lock.Unlock()
		mustAppend(t, l, "next")
		if got := f.payloads(3); !slices.Equal(got, []string{"next"}) {
			t.Errorf("the log holds %v", got)
		}
	})
}

func TestConditionalAppend(t *testing.T) {
	inLogBubble(t, 2, Options{}, func(t *testing.T, f *fakeLogs, c *Client) {
		l := c.logByID(4, "")
		one, err := l.AppendIf(t.Context(), 0, []byte("one"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = l.AppendIf(t.Context(), 0, []byte("two"))
		e := (*LogError)(nil)
		if !errors.Is(err, ErrConditionFailed) || !errors.As(err, &e) || e.Tail != one || !e.OutcomeKnown {
			t.Fatalf("%v", err)
		}
		if _, err := l.AppendIf(t.Context(), e.Tail, []byte("two")); err != nil {
			t.Fatal(err)
		}
		if got := f.payloads(4); !slices.Equal(got, []string{"one", "two"}) {
			t.Errorf("the log holds %v", got)
		}
	})
}

func TestProducersOutliveClients(t *testing.T) {
	inLogBubble(t, 3, Options{}, func(t *testing.T, f *fakeLogs, c *Client) {
		p := c.logByID(4, "").Producer(99)
		first, err := p.Append(t.Context(), 1, []byte("a"))
		if err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		busy := 3
		f.onAppend = func(_ NodeID, req *wire.AppendRequest) *fakeVerdict {
			if busy--; req.Sequence == 2 && busy > 0 {
				return &fakeVerdict{resp: status(wire.LogStatus_LOG_STATUS_SEQNOBUFS)}
			}
			return nil
		}
		for s := uint64(2); s < 30; s++ { // one is refused, and the next are gaps for a moment
			all.Add(1)
			p.AppendAsync(s, fmt.Append(nil, s), func(_ LSN, err error) {
				if err != nil {
					t.Errorf("sequence %d: %v", s, err)
				}
				all.Done()
			})
		}
		all.Wait()
		other := f.client(Options{Rand: rand.New(rand.NewPCG(8, 8))})
		q := other.logByID(4, "").Producer(99)
		if seq, lsn, err := q.Last(t.Context()); err != nil || seq != 29 || lsn != f.tail(4) {
			t.Errorf("the last is %d, %v: %v", seq, lsn, err)
		}
		if lsn, err := q.Append(t.Context(), 1, []byte("a")); err != nil || lsn != first {
			t.Errorf("sequence 1 again: %v, once it was %v: %v", lsn, first, err)
		}
		_, err = q.Append(t.Context(), 31, []byte("gap"))
		if e := (*LogError)(nil); !errors.Is(err, ErrSequenceGap) || !errors.As(err, &e) || e.LastSequence != 29 {
			t.Errorf("sequence 31: %v", err)
		}
		if _, err = q.Append(t.Context(), 0, []byte("zero")); !errors.Is(err, ErrInvalid) {
			t.Errorf("sequence 0: %v", err)
		}
		if got := f.payloads(4); len(got) != 29 {
			t.Errorf("the log holds %v", got)
		}
		if err := other.Close(); err != nil {
			t.Error(err)
		}
	})
}

// A gap that was true when an append arrived says nothing for good where one before it
// was under way when it left: the answer to that one may come first.
func TestAGapOfThePastIsNotFinal(t *testing.T) {
	inLogBubble(t, 1, Options{}, func(t *testing.T, f *fakeLogs, c *Client) {
		p := c.logByID(4, "").Producer(99)
		if _, err := p.Append(t.Context(), 1, []byte("a")); err != nil {
			t.Fatal(err)
		}
		refused := false
		f.onAppend = func(_ NodeID, req *wire.AppendRequest) *fakeVerdict {
			if req.Sequence == 3 && !refused {
				refused = true
				return &fakeVerdict{resp: status(wire.LogStatus_LOG_STATUS_SEQUENCE_GAP)}
			}
			return nil
		}
		var all sync.WaitGroup
		for s := uint64(2); s < 4; s++ {
			all.Add(1)
			p.AppendAsync(s, fmt.Append(nil, s), func(_ LSN, err error) {
				if err != nil {
					t.Errorf("sequence %d: %v", s, err)
				}
				all.Done()
			})
		}
		all.Wait()
		if !refused || len(f.payloads(4)) != 3 {
			t.Errorf("refused %v, the log holds %v", refused, f.payloads(4))
		}
	})
}

func TestMemoryOfAppendsIsBounded(t *testing.T) {
	inLogBubble(t, 1, Options{AppendBytes: 10_000, AppendTimeout: time.Second}, func(t *testing.T, f *fakeLogs, c *Client) {
		f.onAppend = func(NodeID, *wire.AppendRequest) *fakeVerdict { return &fakeVerdict{silent: true} }
		l := c.logByID(1, "")
		refused, over := 0, 0
		for range 20 {
			l.AppendAsync(make([]byte, 1000), func(_ LSN, err error) {
				if errors.Is(err, ErrOverloaded) {
					refused++
				} else if errors.Is(err, ErrUnknownOutcome) {
					over++
				}
			})
		}
		synctest.Wait()
		if refused != 13 {
			t.Errorf("%d of 20 refused", refused)
		}
		<-time.After(3 * time.Second)
		synctest.Wait()
		if over != 7 {
			t.Errorf("%d ended", over)
		}
	})
}

// Much that waits behind a busy node is not sent there to be refused.
func TestABusyNodeIsProbed(t *testing.T) {
	inLogBubble(t, 1, Options{}, func(t *testing.T, f *fakeLogs, c *Client) {
		busy, probes, large := 6, 0, 0
		f.onAppend = func(_ NodeID, req *wire.AppendRequest) *fakeVerdict {
			if req.Flags&logs.AppendProbe != 0 {
				probes++
			} else if busy > 0 {
				large++
			}
			if busy--; busy >= 0 {
				return &fakeVerdict{resp: status(wire.LogStatus_LOG_STATUS_OVERLOADED)}
			}
			return nil
		}
		mustAppend(t, c.logByID(1, ""), strings.Repeat("x", 100_000))
		if probes != 6 || large != 1 {
			t.Errorf("%d probes, the payload was refused %d times", probes, large)
		}
	})
}

// When a node has refused one append, the first of those that wait goes alone, and
// the others when it is taken: what was refused for want of room is not sent again
// all at once, and nothing overtakes the first.
func TestAfterATroubleTheFirstGoesAlone(t *testing.T) {
	inLogBubble(t, 1, Options{}, func(t *testing.T, f *fakeLogs, c *Client) {
		l := c.logByID(1, "")
		mustAppend(t, l, "warm")
		refused := false
		f.onAppend = func(_ NodeID, req *wire.AppendRequest) *fakeVerdict {
			if !refused {
				refused = true
				return &fakeVerdict{resp: status(wire.LogStatus_LOG_STATUS_SEQNOBUFS)}
			}
			return &fakeVerdict{silent: true}
		}
		for range 20 {
			l.AppendAsync([]byte("x"), func(_ LSN, err error) {
				if err != nil {
					t.Error(err)
				}
			})
		}
		<-time.After(500 * time.Millisecond)
		f.lock.Lock()
		first := f.asked[1].req.Sequence
		again := 0
		for _, a := range f.asked[2:] {
			if a.req.Sequence == first {
				again++
			}
		}
		if last := f.asked[len(f.asked)-1]; again != 1 || last.req.Sequence != first {
			t.Errorf("the first came %d times again, the last request is of %d", again, last.req.Sequence)
		}
		f.onAppend = nil
		f.lock.Unlock()
		<-time.After(5 * time.Second)
		if n := len(f.payloads(1)); n != 21 {
			t.Errorf("%d records", n)
		}
	})
}

func TestCloseEndsAppends(t *testing.T) {
	inLogBubble(t, 1, Options{}, func(t *testing.T, f *fakeLogs, c *Client) {
		l := c.logByID(1, "")
		mustAppend(t, l, "x")
		f.onAppend = func(NodeID, *wire.AppendRequest) *fakeVerdict {
			return &fakeVerdict{resp: status(wire.LogStatus_LOG_STATUS_UNDER_REPLICATED)}
		}
		var errs []error
		for range 10 {
			l.AppendAsync([]byte("y"), func(_ LSN, err error) { errs = append(errs, err) })
		}
		<-time.After(100 * time.Millisecond)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		<-time.After(2 * time.Second)
		if len(errs) != 10 {
			t.Fatalf("%d of 10 ended", len(errs))
		}
		for _, err := range errs {
			if !errors.Is(err, ErrCanceled) || !errors.Is(err, ErrClosed) {
				t.Errorf("%v", err)
			}
		}
		if _, err := l.Append(context.Background(), nil); !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

func TestATransportWithoutLogs(t *testing.T) {
	c := New(newFakeCluster(1), Options{})
	if _, err := c.logByID(1, "").Append(t.Context(), nil); !errors.Is(err, ErrUnavailable) {
		t.Errorf("%v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// Many goroutines, many logs; for the race detector.
func TestConcurrentAppends(t *testing.T) {
	inLogBubble(t, 3, Options{Attempt: 200 * time.Millisecond}, func(t *testing.T, f *fakeLogs, c *Client) {
		f.chaos = 0.05
		var all sync.WaitGroup
		for g := range 16 {
			all.Go(func() {
				l := c.logByID(LogID(g%3+1), "")
				last := LSN(0)
				for i := range 60 {
					lsn, err := l.Append(context.Background(), fmt.Appendf(nil, "%d-%d", g, i))
					if err != nil || lsn <= last {
						t.Errorf("%v after %v: %v", lsn, last, err)
					}
					last = lsn
				}
			})
		}
		all.Wait()
		total := 0
		for log := range LogID(3) {
			total += len(f.payloads(log + 1))
		}
		if total != 16*60 {
			t.Errorf("%d records of %d", total, 16*60)
		}
	})
}

// TestALogThatIsNotHeardOfYetIsNotGone asks for a log that no node has heard of: only
// after a while is it said that there is none. A reader that is told so never reads
// what the log is about to hold.
func TestALogThatIsNotHeardOfYetIsNotGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newFakeShards(t, 3).client(Options{})
		defer c.Close()
		for _, within := range []time.Duration{notFoundFor / 2, 2 * notFoundFor} {
			ctx, cancel := context.WithTimeout(context.Background(), within)
			_, err := c.askSequencer(ctx, &wire.SequencerStateRequest{Log: 404})
			cancel()
			if want := within > notFoundFor; errors.Is(err, ErrNotFound) != want {
				t.Errorf("within %v it is said: %v; that there is no such log: want %v", within, err, want)
			}
		}
	})
}
