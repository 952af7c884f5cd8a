package bench

import (
	"context"
	"errors"
	"os"
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
		r, err := RunKV(t.Context(), kv, Options{Workload: "mix", Clients: 4, ValueBytes: 7, Keys: 10, Warmup: time.Millisecond,
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
		if _, err := RunKV(t.Context(), &counted{}, o); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
}

// appended counts appends by log.
type appended [3]atomic.Int64

func (a *appended) Append(_ context.Context, log int, payload []byte) error {
	if len(payload) != 9 {
		return errors.New("wrong shape")
	}
	a[log].Add(1)
	return nil
}

func TestAppendsGoToAllLogs(t *testing.T) {
	var logs appended
	r, err := RunLogs(t.Context(), &logs, Options{Workload: "append", Clients: 2, ValueBytes: 9, Logs: 3, Warmup: time.Millisecond,
		Duration: 300 * time.Millisecond, PIDs: []int{os.Getpid()}})
	if err != nil {
		t.Fatal(err)
	}
	if r.Operations == 0 || r.Errors != 0 || r.CPU <= 0 {
		t.Errorf("%+v", r)
	}
	for i := range logs {
		if logs[i].Load() == 0 {
			t.Errorf("log %d got nothing", i)
		}
	}
	if _, err := RunLogs(t.Context(), &logs, Options{Workload: "append", ValueBytes: 9, Duration: time.Millisecond, PIDs: []int{1 << 30}}); err == nil {
		t.Error("the CPU of a process that does not exist was measured")
	}
}
