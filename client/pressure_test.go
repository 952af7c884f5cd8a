package client

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/braiddb/braid/internal/wire"
)

func TestRetriesAreATenthOfWhatIsAnswered(t *testing.T) {
	var p pressure
	now := time.Unix(1000, 0)
	granted := 0
	for range 10_000 { // refusals without a single answer, at one moment
		if p.refused(now) {
			granted++
		}
	}
	if granted != retryBurst {
		t.Errorf("%d retries were granted at once, the most is %d", granted, retryBurst)
	}
	granted = 0
	for i := range 10_000 {
		if i%2 == 0 {
			p.answered()
		}
		if p.refused(now) {
			granted++
		}
	}
	if granted < 490 || granted > 500 {
		t.Errorf("%d retries were granted for 5000 answers", granted)
	}
	if now = now.Add(time.Second); !p.refused(now) {
		t.Error("a second later a lone client may not try again")
	}
}

func TestWhatATabletMostlyRefusesIsMostlyNotSent(t *testing.T) {
	var p pressure
	now := time.Unix(1000, 0)
	draw := 0.0
	dice := func() float64 { draw += 0.618033988749; draw -= float64(int(draw)); return draw } // evenly
	if p.admit(now, dice); p.mu.asked != 0 {
		t.Error("a tablet that refuses nothing is kept account of")
	}
	// It takes a thousand of ten thousand a second.
	p.refused(now)
	sent, took := 0, 0
	const offered = 100_000
	for i := range offered {
		if i%10_000 == 0 {
			now, took = now.Add(time.Second), 0
		}
		if !p.admit(now, dice) {
			continue
		}
		if sent++; took < 1000 {
			took++
			p.answered()
		} else {
			p.refused(now)
		}
	}
	if sent < offered/20 || sent > offered/2 {
		t.Errorf("%d of %d were sent", sent, offered)
	}
	if now = now.Add(pressureFor + 1); !p.admit(now, dice) || p.hot.Load() {
		t.Error("after the last refusal requests are held back")
	}
}

// TestARefusedRequestEndsWhenRetriesAreSpent asks a cluster that takes nothing.
func TestARefusedRequestEndsWhenRetriesAreSpent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeCluster(1)
		f.intercept = func(NodeID, *wire.WriteRequest, *wire.ReadRequest) verdict {
			return verdict{refusal: &wire.Error{Code: wire.Code_CODE_OVERLOADED, RetryAfterMs: 40}}
		}
		c := New(f, Options{})
		const calls = 2000
		var wg sync.WaitGroup
		began := time.Now()
		at := map[string]int{}
		var mu sync.Mutex
		for range calls {
			wg.Add(1)
			c.Redis().Start(Set([]byte("k"), nil, SetOptions{}), time.Time{}, func(_ *Result, err error) {
				defer wg.Done()
				mu.Lock()
				defer mu.Unlock()
				if e := (*Error)(nil); !errors.As(err, &e) || e.Code != wire.Code_CODE_OVERLOADED || !e.Retriable {
					t.Errorf("ended with %v", err)
				}
				if time.Since(began) == 0 {
					at["at once"]++
				} else {
					at["later"]++
				}
			})
		}
		wg.Wait()
		m := c.Metrics()
		if sent := uint64(len(f.writes)); sent > retryBurst*2+askedFew*8 || m.HeldBack.Load() == 0 || m.Retries.Load() > retryBurst+retryDrip*5 {
			t.Errorf("%d requests for %d calls, %d retries, %d held back", sent, calls, m.Retries.Load(), m.HeldBack.Load())
		}
		if at["at once"] < calls-2*retryBurst || at["later"] == 0 {
			t.Errorf("%v: the refusals should be early", at)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestAnAppendIsRefusedWhereOthersWaitForAQuarterOfItsTime appends to a node that answers nothing.
func TestAnAppendIsRefusedWhereOthersWaitForAQuarterOfItsTime(t *testing.T) {
	inLogBubble(t, 1, Options{AppendTimeout: 10 * time.Second, Attempt: 30 * time.Second}, func(t *testing.T, f *fakeLogs, c *Client) {
		f.onAppend = func(NodeID, *wire.AppendRequest) *fakeVerdict { return &fakeVerdict{silent: true} }
		l := c.logByID(7, "")
		refusedAtOnce := func(n int) (early int64) {
			var refused atomic.Int64
			for range n {
				began := time.Now()
				l.AppendAsync([]byte("p"), func(_ LSN, err error) {
					if time.Since(began) == 0 && errors.Is(err, ErrOverloaded) {
						refused.Add(1)
					}
				})
			}
			return refused.Load()
		}
		if early := refusedAtOnce(2 * windowMax); early != 0 {
			t.Errorf("%d were refused before any had waited", early)
		}
		<-time.After(2 * time.Second)
		if early := refusedAtOnce(10); early != 0 {
			t.Errorf("%d were refused after 2 s, of 10", early)
		}
		<-time.After(time.Second)
		if early := refusedAtOnce(10); early != 10 {
			t.Errorf("%d of 10 were refused after 3 s, of 10", early)
		}
		<-time.After(20 * time.Second)
	})
}
