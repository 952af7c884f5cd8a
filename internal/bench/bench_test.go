package bench

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"
)

// counted answers at once, fails every tenth write, and counts.
type counted struct{ puts, gets atomic.Int64 }

func (c *counted) Put(_ context.Context, key, value []byte) error {
	if len(value) != 7 || len(key) < 4 {
		return errors.New("wrong shape")
	}
	if c.puts.Add(1)%10 == 0 {
		return errors.New("tenth")
	}
	return nil
}

func (c *counted) Get(context.Context, []byte) error { c.gets.Add(1); return nil }

func TestRunCountsWhatHappened(t *testing.T) {
	for _, rate := range []float64{0, 2000} {
		kv := &counted{}
		var progressed atomic.Int64
		r, err := Run(t.Context(), kv, Options{Workload: "mix", Clients: 4, ValueBytes: 7, Keys: 10, Warmup: time.Millisecond,
			Duration: 1100 * time.Millisecond, Rate: rate, Progress: func(time.Duration, int64) { progressed.Add(1) }})
		if err != nil {
			t.Fatal(err)
		}
		if r.Operations == 0 || r.Errors == 0 || r.FirstError != "tenth" || r.P99 < r.P50 || r.Max < r.P999 {
			t.Errorf("rate %v: %+v", rate, r)
		}
		if kv.gets.Load() == 0 || kv.puts.Load() < r.Errors*9 {
			t.Errorf("rate %v: %d puts, %d gets, %d errors", rate, kv.puts.Load(), kv.gets.Load(), r.Errors)
		}
		if rate > 0 && r.Operations > int64(rate*1.2) {
			t.Errorf("an open loop of %v/s did %d operations in 1.1 s", rate, r.Operations)
		}
		if progressed.Load() == 0 {
			t.Error("no progress was reported")
		}
	}
}

func TestBadOptionsAreRefused(t *testing.T) {
	for _, o := range []Options{{Workload: "drop"}, {Clients: -1}, {ValueBytes: 65 << 20}, {Rate: -1}} {
		if _, err := Run(t.Context(), &counted{}, o); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
}
