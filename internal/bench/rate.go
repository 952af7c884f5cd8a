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
	l := &openLoop{bound: int64(o.Outstanding), begin: begin, windows: make([]window, 1)}
	l.start = func(due time.Time, n int64) {
		wg.Go(func() {
			one(due, n)
			l.under.Add(-1)
		})
	}
	l.run(ctx, o.Rate, begin, from)
	l.windows[0].Counts = Counts{} // the warm-up is not counted
	l.run(ctx, o.Rate, from, end)
	wg.Wait()
	measured := min(o.Duration, time.Since(from))
	stopProgress()
	r := o.sum([]worker{all}, measured)
	r.Shed, r.Missed = l.windows[0].Shed, l.windows[0].Missed
	used, err := cpu()
	if err == nil && r.Operations > 0 {
		r.CPU = float64(used.Microseconds()) / float64(r.Operations)
	}
	return r, err
}
