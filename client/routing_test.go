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

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// inBubble runs a test in fake time. That no goroutine is left when the client
// is closed is checked by the bubble itself.
func inBubble(t *testing.T, tablets int, test func(t *testing.T, f *fakeCluster, c *Client)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCluster(tablets)
		c := New(f, Options{})
		defer func() {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			if n := len(c.mu.parked); n > 0 {
				t.Errorf("%d calls are parked after Close", n)
			}
		}()
		test(t, f, c)
	})
}

func mustDo(t *testing.T, c *Client, op *Op) *Result {
	t.Helper()
	r, err := c.Redis().Do(t.Context(), op)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestStaleLeaderIsCorrectedByTheHint(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, f *fakeCluster, c *Client) {
		mustDo(t, c, IncrBy([]byte("k"), 1))
		f.lead(3)
		if r := mustDo(t, c, IncrBy([]byte("k"), 1)); r.Int != 2 {
			t.Errorf("counter %d", r.Int)
		}
		mustDo(t, c, IncrBy([]byte("k"), 1))
		if want := []NodeID{1, 1, 3, 3}; !slices.Equal(f.nodes, want) {
			t.Errorf("asked nodes %v, want %v", f.nodes, want)
		}
		if f.lookups != 1 {
			t.Errorf("%d lookups for one hint", f.lookups)
		}
	})
}

func TestWithoutAHintTheOthersAreAsked(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, f *fakeCluster, c *Client) {
		mustDo(t, c, Set([]byte("k"), []byte("v"), SetOptions{}))
		f.intercept = func(node NodeID, _ *wire.WriteRequest, _ *wire.ReadRequest) verdict {
			if node != 3 {
				return code(wire.Code_CODE_NOT_LEADER)
			}
			return verdict{}
		}
		f.lead(3)
		start := time.Now()
		if r := mustDo(t, c, Get([]byte("k"))); string(r.Bytes) != "v" {
			t.Errorf("read %q", r.Bytes)
		}
		if time.Since(start) > 0 {
			t.Errorf("it paused for %v before every replica was asked", time.Since(start))
		}
	})
}

func TestTwoNodesThatHintAtEachOtherDoNotSpin(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, f *fakeCluster, c *Client) {
		f.intercept = func(node NodeID, _ *wire.WriteRequest, _ *wire.ReadRequest) verdict {
			return verdict{refusal: &wire.Error{Code: wire.Code_CODE_NOT_LEADER, LeaderNode: uint64(3 - node)}}
		}
		_, err := c.Redis().Do(t.Context(), Set([]byte("k"), nil, SetOptions{}))
		if !errors.Is(err, ErrUnavailable) {
			t.Errorf("error %v", err)
		}
		if n := len(f.writes); n > 400 {
			t.Errorf("%d attempts in 4 s", n)
		}
	})
}

func TestTabletNotFoundRefreshesTheRoutes(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, f *fakeCluster, c *Client) {
		mustDo(t, c, IncrBy([]byte("k"), 1))
		f.split(DocumentHash([]byte("k")))
		if r := mustDo(t, c, IncrBy([]byte("k"), 1)); r.Int != 2 {
			t.Errorf("counter %d", r.Int)
		}
		tablets, err := c.Redis().Tablets(t.Context())
		if err != nil || len(tablets) != 2 || tablets[1].HashStart != DocumentHash([]byte("k")) {
			t.Errorf("tablets %v, %v", tablets, err)
		}
		if f.lookups != 2 {
			t.Errorf("%d lookups", f.lookups)
		}
	})
}

func TestALostReplyIsRetriedUnderTheSameRequestID(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, f *fakeCluster, c *Client) {
		lost := 0
		f.intercept = func(_ NodeID, w *wire.WriteRequest, _ *wire.ReadRequest) verdict {
			if w != nil && lost < 3 {
				lost++
				return verdict{err: rpc.ErrLost, execute: true}
			}
			return verdict{}
		}
		if r := mustDo(t, c, IncrBy([]byte("k"), 1)); r.Int != 1 {
			t.Errorf("counter %d after one increment and lost replies", r.Int)
		}
		for _, w := range f.writes {
			if w.RequestId != f.writes[0].RequestId {
				t.Errorf("attempts have ids %d and %d", f.writes[0].RequestId, w.RequestId)
			}
		}
		if len(f.writes) < 4 {
			t.Errorf("%d attempts", len(f.writes))
		}
	})
}

func TestASilentNodeIsLeftAfterTheAttempt(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, f *fakeCluster, c *Client) {
		f.intercept = func(node NodeID, _ *wire.WriteRequest, _ *wire.ReadRequest) verdict {
			return verdict{silent: node == 1, execute: node == 1}
		}
		start := time.Now()
		time.AfterFunc(100*time.Millisecond, func() { f.lead(2) })
		if r := mustDo(t, c, IncrBy([]byte("k"), 1)); r.Int != 1 {
			t.Errorf("counter %d", r.Int)
		}
		if took := time.Since(start); took != 1500*time.Millisecond {
			t.Errorf("took %v, want the attempt's 1.5 s", took)
		}
	})
}

func TestOutcomesAtTheParkLimit(t *testing.T) {
	for _, tc := range []struct {
		name string
		v    verdict
		op   *Op
		want error
	}{
		{"unreachable", verdict{err: rpc.ErrUnreachable}, Set([]byte("k"), nil, SetOptions{}), ErrUnavailable},
		{"no leader", code(wire.Code_CODE_NOT_LEADER), Set([]byte("k"), nil, SetOptions{}), ErrUnavailable},
		{"not ready", code(wire.Code_CODE_NOT_READY), Set([]byte("k"), nil, SetOptions{}), ErrUnavailable},
		{"server's timeout", code(wire.Code_CODE_TIMEOUT), Set([]byte("k"), nil, SetOptions{}), ErrTimeout},
		{"overloaded", code(wire.Code_CODE_OVERLOADED), Set([]byte("k"), nil, SetOptions{}), ErrOverloaded},
		{"queue full here", verdict{err: rpc.ErrOverloaded}, Set([]byte("k"), nil, SetOptions{}), ErrOverloaded},
		{"lost", verdict{err: rpc.ErrLost}, Set([]byte("k"), nil, SetOptions{}), ErrUnknownOutcome},
		{"silent", verdict{silent: true}, Set([]byte("k"), nil, SetOptions{}), ErrUnknownOutcome},
		{"unknown", code(wire.Code_CODE_UNKNOWN_OUTCOME), Set([]byte("k"), nil, SetOptions{}), ErrUnknownOutcome},
		{"a read has no outcome", verdict{err: rpc.ErrLost}, Get([]byte("k")), ErrUnavailable},
		{"a silent read", verdict{silent: true}, Get([]byte("k")), ErrTimeout},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inBubble(t, 1, func(t *testing.T, f *fakeCluster, c *Client) {
				f.intercept = func(NodeID, *wire.WriteRequest, *wire.ReadRequest) verdict { return tc.v }
				start := time.Now()
				_, err := c.Redis().Do(t.Context(), tc.op)
				if !errors.Is(err, tc.want) {
					t.Errorf("error %v, want %v", err, tc.want)
				}
				var e *Error
				if !errors.As(err, &e) || e.Message == "" {
					t.Errorf("error %#v is not typed, or says nothing", err)
				}
				if took := time.Since(start); took < 4*time.Second || took > 4100*time.Millisecond {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

func TestFinalRefusalsAreNotRetried(t *testing.T) {
	for _, refusal := range []Code{
		wire.Code_CODE_INVALID, wire.Code_CODE_TOO_LARGE, wire.Code_CODE_DISK_FULL,
		wire.Code_CODE_SNAPSHOT_TOO_OLD, wire.Code_CODE_INTERNAL, wire.Code_CODE_CONDITION_FAILED,
	} {
		inBubble(t, 1, func(t *testing.T, f *fakeCluster, c *Client) {
			f.intercept = func(NodeID, *wire.WriteRequest, *wire.ReadRequest) verdict { return code(refusal) }
			_, err := c.Redis().Do(t.Context(), Set([]byte("k"), nil, SetOptions{}))
			if codeOf(err) != refusal || len(f.writes) != 1 {
				t.Errorf("%v after %d attempts, want %v after one", err, len(f.writes), refusal)
			}
		})
	}
}

func TestAParkedRequestSucceedsWhenALeaderIsFound(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, f *fakeCluster, c *Client) {
		leaderless := true
		f.intercept = func(NodeID, *wire.WriteRequest, *wire.ReadRequest) verdict {
			if leaderless {
				return code(wire.Code_CODE_NOT_LEADER)
			}
			return verdict{}
		}
		start := time.Now()
		time.AfterFunc(2*time.Second, func() {
			f.lead(2)
			f.mu.Lock()
			leaderless = false
			f.mu.Unlock()
		})
		mustDo(t, c, Set([]byte("k"), nil, SetOptions{}))
		if took := time.Since(start); took > 2200*time.Millisecond {
			t.Errorf("answered %v after a leader was there", took-2*time.Second)
		}
	})
}

func TestOverloadIsGivenTheTimeItAsksFor(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, f *fakeCluster, c *Client) {
		first := true
		f.intercept = func(NodeID, *wire.WriteRequest, *wire.ReadRequest) verdict {
			if first {
				first = false
				return verdict{refusal: &wire.Error{Code: wire.Code_CODE_OVERLOADED, RetryAfterMs: 700}}
			}
			return verdict{}
		}
		start := time.Now()
		mustDo(t, c, Set([]byte("k"), nil, SetOptions{}))
		if took := time.Since(start); took < 700*time.Millisecond {
			t.Errorf("retried after %v", took)
		}
	})
}

func TestAnExpiredIDIsReplacedOnlyIfItHadNoEffect(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, f *fakeCluster, c *Client) {
		refused := false
		f.intercept = func(NodeID, *wire.WriteRequest, *wire.ReadRequest) verdict {
			if !refused {
				refused = true
				return code(wire.Code_CODE_REQUEST_EXPIRED)
			}
			return verdict{}
		}
		mustDo(t, c, IncrBy([]byte("k"), 1))
		if f.writes[0].RequestId == f.writes[1].RequestId {
			t.Error("the expired id was used again")
		}
		n := 0
		f.intercept = func(NodeID, *wire.WriteRequest, *wire.ReadRequest) verdict {
			if n++; n == 1 {
				return verdict{err: rpc.ErrLost}
			}
			return code(wire.Code_CODE_REQUEST_EXPIRED)
		}
		if _, err := c.Redis().Do(t.Context(), IncrBy([]byte("k"), 1)); !errors.Is(err, ErrUnknownOutcome) {
			t.Errorf("error %v after a lost attempt and an expired one", err)
		}
	})
}

// TestFirstRunningIsTheLeastUnderWay runs many requests whose answers come in
// random order, and checks I2 at every one that is sent.
func TestFirstRunningIsTheLeastUnderWay(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, f *fakeCluster, c *Client) {
		r := rand.New(rand.NewPCG(3, 4))
		running := map[uint64]map[uint64]bool{}
		floor := map[uint64]uint64{}
		f.intercept = func(_ NodeID, w *wire.WriteRequest, _ *wire.ReadRequest) verdict {
			if w == nil {
				return verdict{}
			}
			ids := running[w.Tablet]
			if ids == nil {
				ids = map[uint64]bool{}
				running[w.Tablet] = ids
			}
			ids[w.RequestId] = true
			for id := range ids {
				if w.FirstRunning > id {
					t.Errorf("first_running %d while %d runs", w.FirstRunning, id)
				}
			}
			// That it is never given out lower than before is asserted in running;
			// here requests of several goroutines may pass one another.
			floor[w.Tablet] = max(floor[w.Tablet], w.FirstRunning)
			if r.IntN(3) == 0 {
				return verdict{err: rpc.ErrLost, execute: r.IntN(2) == 0}
			}
			delete(ids, w.RequestId)
			return verdict{}
		}
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				for j := range 50 {
					mustDo(t, c, IncrBy(fmt.Appendf(nil, "key-%d-%d", i, j%7), 1))
				}
			})
		}
		wg.Wait()
		total := 0
		for i := range 20 {
			for j := range 7 {
				r := mustDo(t, c, Get(fmt.Appendf(nil, "key-%d-%d", i, j)))
				n := 0
				if _, err := fmt.Sscan(string(r.Bytes), &n); err != nil {
					t.Fatal(err)
				}
				total += n
			}
		}
		if total != 1000 {
			t.Errorf("1000 increments counted %d", total)
		}
		for id, first := range floor {
			if first < 500 {
				t.Errorf("tablet %d was told %d at last: it must remember nearly everything", id, first)
			}
		}
	})
}

func TestRequestsBeforeTheRoutesAreKnownKeepTheirOrder(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, f *fakeCluster, c *Client) {
		want := ""
		var wg sync.WaitGroup
		start := func(i int) {
			s := fmt.Sprintf("%d,", i)
			want += s
			wg.Add(1)
			c.Redis().Start(Append([]byte("k"), []byte(s)), time.Time{}, func(_ *Result, err error) {
				if err != nil {
					t.Error(err)
				}
				wg.Done()
			})
		}
		for i := range 100 {
			start(i) // the lookup's goroutine may be anywhere
			if i == 50 {
				synctest.Wait()
			}
		}
		wg.Wait()
		if r := mustDo(t, c, Get([]byte("k"))); string(r.Bytes) != want {
			t.Errorf("order %s", r.Bytes)
		}
		if f.lookups != 1 {
			t.Errorf("%d lookups for requests that came together", f.lookups)
		}
	})
}

func TestAFailedLookupIsRepeated(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, f *fakeCluster, c *Client) {
		f.locate = func() error {
			if f.lookups < 3 {
				return rpc.ErrUnreachable
			}
			return nil
		}
		mustDo(t, c, Set([]byte("k"), nil, SetOptions{}))
		if f.lookups != 3 {
			t.Errorf("%d lookups", f.lookups)
		}
	})
}

func TestADeadlineHoldsWhileTheRoutesAreLookedUp(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, f *fakeCluster, c *Client) {
		f.locate = func() error { return rpc.ErrUnreachable }
		ended := make(chan error, 1)
		start := time.Now()
		c.Redis().Start(Get([]byte("k")), start.Add(300*time.Millisecond), func(_ *Result, err error) { ended <- err })
		if err := <-ended; !errors.Is(err, ErrUnavailable) {
			t.Errorf("error %v", err)
		}
		if took := time.Since(start); took != 300*time.Millisecond {
			t.Errorf("took %v", took)
		}
	})
}

func TestCancellation(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, f *fakeCluster, c *Client) {
		mustDo(t, c, Set([]byte("k"), nil, SetOptions{}))
		f.intercept = func(NodeID, *wire.WriteRequest, *wire.ReadRequest) verdict { return verdict{silent: true} }
		for _, tc := range []struct {
			op   *Op
			want error
		}{{Set([]byte("k"), nil, SetOptions{}), ErrUnknownOutcome}, {Get([]byte("k")), ErrCanceled}} {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(10*time.Millisecond, cancel)
			_, err := c.Redis().Do(ctx, tc.op)
			if !errors.Is(err, tc.want) || !errors.Is(err, context.Canceled) {
				t.Errorf("error %v, want %v", err, tc.want)
			}
		}
		before := len(f.writes)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := c.Redis().Do(ctx, Set([]byte("k"), nil, SetOptions{})); !errors.Is(err, ErrCanceled) || len(f.writes) != before {
			t.Errorf("error %v of a request that was cancelled before, %d writes", err, len(f.writes)-before)
		}
		time.AfterFunc(10*time.Second, func() {})
		<-time.After(5 * time.Second)
		if n := len(f.writes) - before; n != 0 {
			t.Errorf("an abandoned write was sent %d more times", n)
		}
	})
}

func TestCancelOfAParkedWriteThatWasNeverCarriedOut(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, f *fakeCluster, c *Client) {
		f.intercept = func(NodeID, *wire.WriteRequest, *wire.ReadRequest) verdict { return code(wire.Code_CODE_NOT_LEADER) }
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Redis().Do(ctx, Set([]byte("k"), nil, SetOptions{})); !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrTimeout) {
			t.Errorf("error %v: every attempt was refused, so there is no doubt", err)
		}
	})
}

func TestCloseEndsParkedRequests(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, f *fakeCluster, c *Client) {
		f.intercept = func(NodeID, *wire.WriteRequest, *wire.ReadRequest) verdict { return code(wire.Code_CODE_NOT_LEADER) }
		ended := make(chan error, 2)
		done := func(_ *Result, err error) { ended <- err }
		c.Redis().Start(Set([]byte("k"), nil, SetOptions{}), time.Time{}, done)
		<-time.After(time.Second)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		c.Redis().Start(Set([]byte("k"), nil, SetOptions{}), time.Time{}, done)
		for range 2 {
			if err := <-ended; !errors.Is(err, ErrCanceled) || !errors.Is(err, ErrClosed) {
				t.Errorf("error %v", err)
			}
		}
		if _, err := c.Redis().Tablets(t.Context()); err != nil {
			t.Errorf("what is known stays known: %v", err)
		}
	})
}

func TestBatch(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, f *fakeCluster, c *Client) {
		results, err := c.Redis().Batch(t.Context(), []*Op{
			Set([]byte("{a}1"), []byte("x"), SetOptions{}), Append([]byte("{a}1"), []byte("y")), Get([]byte("{a}1")),
		})
		if err != nil || len(results) != 3 || string(results[2].Bytes) != "xy" {
			t.Fatalf("%v, %v", results, err)
		}
		var low, high []byte
		for i := 0; low == nil || high == nil; i++ {
			if k := fmt.Appendf(nil, "%d", i); DocumentHash(k) < 1<<63 {
				low = k
			} else {
				high = k
			}
		}
		before := len(f.writes)
		_, err = c.Redis().Batch(t.Context(), []*Op{Set(low, nil, SetOptions{}), Set(high, nil, SetOptions{})})
		if !errors.Is(err, ErrCrossTablet) || len(f.writes) != before {
			t.Errorf("error %v of a batch over two tablets, %d writes sent", err, len(f.writes)-before)
		}
		_, err = c.Redis().Batch(t.Context(), []*Op{Check([]byte("{a}1"), 7), Set([]byte("{a}1"), nil, SetOptions{})})
		if !errors.Is(err, ErrConditionFailed) {
			t.Errorf("error %v of a batch whose check fails", err)
		}
		if results, err := c.Redis().Batch(t.Context(), nil); err != nil || len(results) != 0 {
			t.Errorf("an empty batch: %v, %v", results, err)
		}
	})
}

func TestReplyTellsCopiesAndTime(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, f *fakeCluster, c *Client) {
		got := make(chan Reply, 1)
		c.Redis().StartReply([]*Op{Set([]byte("k"), nil, SetOptions{})}, time.Time{}, func(r Reply, err error) {
			if err != nil {
				t.Error(err)
			}
			got <- r
		})
		if r := <-got; r.Copies != 2 || r.HybridTime != f.time {
			t.Errorf("reply %+v at %d", r, f.time)
		}
		mustDo(t, c, Get([]byte("k")))
		if last := f.reads[len(f.reads)-1]; last.HybridTime != f.time {
			t.Errorf("the hybrid time %d of the write was not sent along: %d", f.time, last.HybridTime)
		}
	})
}

func TestTablets(t *testing.T) {
	inBubble(t, 4, func(t *testing.T, f *fakeCluster, c *Client) {
		tablets, err := c.Redis().Tablets(t.Context())
		if err != nil || len(tablets) != 4 {
			t.Fatalf("%v, %v", tablets, err)
		}
		var at uint64
		for _, tb := range tablets {
			if tb.HashStart != at || tb.Leader != 1 || len(tb.Replicas) != 3 || tb.Replicas[1].Node.RedisAddr != "redis-2" {
				t.Errorf("%+v", tb)
			}
			at = tb.HashEnd
		}
		if at != 0 {
			t.Errorf("the last tablet ends at %#x", at)
		}
	})
}

func TestTabletsThatDoNotTileAreRefused(t *testing.T) {
	for _, ranges := range [][][2]uint64{{{1, 0}}, {{0, 5}, {6, 0}}, {{0, 5}, {4, 0}}, {{0, 5}}, {{0, 0}, {5, 0}}} {
		resp := &wire.LocationsResponse{Table: &catalog.Table{Id: 1}}
		for _, r := range ranges {
			resp.Tablets = append(resp.Tablets, &wire.TabletLocation{Tablet: &catalog.Tablet{HashStart: r[0], HashEnd: r[1]}})
		}
		if _, err := newRoutes(resp, nil); err == nil {
			t.Errorf("routes of %v", ranges)
		}
	}
}

func TestErrorsSayWhatTheyAre(t *testing.T) {
	err := fmt.Errorf("outer: %w", newError(wire.Code_CODE_UNAVAILABLE, rpc.ErrUnreachable, "node 3"))
	var e *Error
	if !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrTimeout) || !errors.Is(err, rpc.ErrUnreachable) || !errors.As(err, &e) || !e.Retriable {
		t.Errorf("%#v", err)
	}
	for c := range wire.Code_name {
		if text := (&Error{Code: Code(c)}).Error(); Code(c) != wire.Code_CODE_OK && strings.Contains(text, "CODE_") {
			t.Errorf("no words for %s", text)
		}
	}
}

func BenchmarkStart(b *testing.B) {
	f := newFakeCluster(16)
	c := New(answering{f}, Options{})
	defer c.Close()
	if err := c.Redis().Refresh(context.Background()); err != nil {
		b.Fatal(err)
	}
	key := []byte("key")
	done := func(*Result, error) {}
	b.Run("write", func(b *testing.B) {
		b.ReportAllocs()
		op := Set(key, key, SetOptions{})
		for b.Loop() {
			c.Redis().Start(op, time.Time{}, done)
		}
	})
	b.Run("read", func(b *testing.B) {
		b.ReportAllocs()
		op := Get(key)
		for b.Loop() {
			c.Redis().Start(op, time.Time{}, done)
		}
	})
}

// answering answers everything at once.
type answering struct{ *fakeCluster }

var (
	answeredWrite = &wire.WriteResponse{Results: []*wire.Result{{}}}
	answeredRead  = &wire.ReadResponse{Results: []*wire.Result{{}}}
)

func (answering) StartWrite(_ NodeID, _ *wire.WriteRequest, _ time.Time, done func(*wire.WriteResponse, error)) {
	done(answeredWrite, nil)
}

func (answering) StartRead(_ NodeID, _ *wire.ReadRequest, _ time.Time, done func(*wire.ReadResponse, error)) {
	done(answeredRead, nil)
}
