package bench

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// runOpen makes operations due at Rate, each on a goroutine of its own.
func (o Options) runOpen(ctx context.Context, do operation) (Result, error) {
	begin := time.Now()
	from := begin.Add(o.Warmup)
	end := from.Add(o.Duration)
	cpu := watchCPU(ctx, o.PIDs, from)
	all := worker{latency: newLatency(3)}
	var mu sync.Mutex // of all
	var ops atomic.Int64
	var wg sync.WaitGroup
	one := func(due time.Time, n int64) {
		err := do(ctx, uint64(n), n, rand.New(rand.NewPCG(o.Seed, uint64(n))))
		if ctx.Err() != nil || err != nil && over(ctx) {
			return
		}
		ops.Add(1)
		if due.Before(from) {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			all.latency.RecordValue(max(1, time.Since(due).Microseconds()))
			return
		}
		if all.errors++; all.first == nil {
			all.first = err
		}
	}
	stopProgress := o.report(ctx, begin, &ops)
	l := &openLoop{bound: int64(o.Outstanding), patience: o.Warmup + o.Duration, begin: from, windows: make([]window, 1)}
	l.windows[0].latency = newLatency(2)
	l.startDue = func(due time.Time, n int64, done func(error)) {
		wg.Go(func() {
			one(due, n)
			done(nil)
		})
	}
	l.run(ctx, o.Rate, begin, end)
	wg.Wait()
	measured := min(o.Duration, time.Since(from))
	stopProgress()
	r := o.sum([]worker{all}, measured)
	counts, _ := l.sum(0, 1)
	r.Shed, r.Missed = counts.Shed, counts.Missed
	used, err := cpu()
	if err == nil && r.Operations > 0 {
		r.CPU = float64(used.Microseconds()) / float64(r.Operations)
	}
	return r, err
}
