// Package bench puts load on a running cluster through the public client and
// reports what it saw: operations per second, latency quantiles, errors.
//
// Closed loop (the default): each of N clients sends its next operation when
// the last is answered. Open loop (Rate > 0): operations are due at fixed times and
// are begun then, whatever becomes of those before; latency counts from when an
// operation was due, so a stall is not hidden by the clients that wait for it. More
// than Options.Outstanding under way, and what is due is shed and counted.
//
// Overload goes further: it measures what a cluster can do, offers it a multiple of
// that, and looks at what is left of the answers, of the memory, and of the latency
// afterwards.
package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// KV is a system under load: single-key writes and reads.
type KV interface {
	Put(ctx context.Context, key, value []byte) error
	Get(ctx context.Context, key []byte) error
}

// Logs is another: appends to the i-th of its logs, answered once they are durable.
type Logs interface {
	Append(ctx context.Context, log int, payload []byte) error
}

// Options say what load to make. The zero value of a field takes the default in brackets.
type Options struct {
	Workload   string        // put, get or mix (half and half), append, or tail: until a reader has it [put]
	Clients    int           // concurrent clients [64]
	ValueBytes int           // [128]
	Keys       int           // put, get, mix: size of the key space [100000]
	Logs       int           // append: how many logs; a client appends to them in turn [1]
	Duration   time.Duration // measured time [10s]
	Warmup     time.Duration // time before it, not counted [1s]
	Rate       float64       // operations a second, of no clients in particular; 0 is a closed loop
	// Outstanding is how many operations of an open loop may be under way; more are shed [10000].
	Outstanding int
	Seed        uint64
	PIDs        []int                               // of the servers, if they run here: their CPU is measured
	Progress    func(done time.Duration, ops int64) // called about once a second
}

func (o Options) withDefaults() Options {
	if o.Workload == "" {
		o.Workload = "put"
	}
	if o.Clients == 0 {
		o.Clients = 64
	}
	if o.ValueBytes == 0 {
		o.ValueBytes = 128
	}
	if o.Keys == 0 {
		o.Keys = 100_000
	}
	if o.Logs == 0 {
		o.Logs = 1
	}
	if o.Outstanding == 0 {
		o.Outstanding = 10_000
	}
	if o.Duration == 0 {
		o.Duration = 10 * time.Second
	}
	if o.Warmup == 0 {
		o.Warmup = time.Second
	}
	return o
}

// Validate says what is wrong with the options.
func (o Options) Validate() error {
	switch o.Workload {
	case "", "put", "get", "mix", "append", "tail":
	default:
		return fmt.Errorf("unknown workload %q: put, get, mix, append or tail", o.Workload)
	}
	if o.Clients < 0 || o.Clients > 100_000 || o.ValueBytes < 0 || o.ValueBytes > 64<<20 || o.Keys < 0 || o.Logs < 0 || o.Rate < 0 {
		return fmt.Errorf("clients (at most 100000), value bytes (at most 64 MiB), keys, logs and rate must not be negative")
	}
	return nil
}

// Result is what was seen in the measured time. Latencies are in milliseconds.
type Result struct {
	Workload   string  `json:"workload"`
	Clients    int     `json:"clients"`
	ValueBytes int     `json:"value_bytes"`
	Operations int64   `json:"operations"`
	Errors     int64   `json:"errors"`
	FirstError string  `json:"first_error,omitempty"`
	Shed       int64   `json:"shed,omitempty"`   // open loop: never begun, too many were under way
	Missed     int64   `json:"missed,omitempty"` // open loop: never begun, the generator was too slow
	PerSecond  float64 `json:"ops_per_second"`
	CPU        float64 `json:"server_cpu_us_per_op,omitempty"` // of the processes in Options.PIDs
	P50        float64 `json:"p50_ms"`
	P99        float64 `json:"p99_ms"`
	P999       float64 `json:"p999_ms"`
	Max        float64 `json:"max_ms"`
}

// worker is one client's own counts, merged at the end.
type worker struct {
	latency *hdrhistogram.Histogram
	errors  int64
	first   error
}

// operation is one thing that a client does.
type operation func(ctx context.Context, client uint64, n int64, rng *rand.Rand) error

// RunKV puts the load on kv until the duration is over or ctx ends.
func RunKV(ctx context.Context, kv KV, o Options) (Result, error) {
	value := o.payload()
	return run(ctx, o, func(ctx context.Context, _ uint64, _ int64, rng *rand.Rand) error {
		key := strconv.AppendInt([]byte("key"), int64(rng.IntN(o.withDefaults().Keys)), 10)
		if o.Workload == "get" || (o.Workload == "mix" && rng.IntN(2) == 0) {
			return kv.Get(ctx, key)
		}
		return kv.Put(ctx, key, value)
	})
}

// RunLogs appends to logs until the duration is over or ctx ends.
func RunLogs(ctx context.Context, logs Logs, o Options) (Result, error) {
	payload, count := o.payload(), int64(o.withDefaults().Logs)
	return run(ctx, o, func(ctx context.Context, client uint64, n int64, _ *rand.Rand) error {
		return logs.Append(ctx, int((int64(client)+n)%count), payload)
	})
}

func (o Options) payload() []byte {
	value := make([]byte, o.withDefaults().ValueBytes)
	for i := range value {
		value[i] = 'a' + byte(i%26)
	}
	return value
}

func run(ctx context.Context, o Options, do operation) (Result, error) {
	if err := o.Validate(); err != nil {
		return Result{}, err
	}
	o = o.withDefaults()
	ctx, cancel := context.WithTimeout(ctx, o.Warmup+o.Duration)
	defer cancel()
	if o.Rate > 0 {
		return o.runOpen(ctx, do)
	}
	begin := time.Now()
	from := begin.Add(o.Warmup)
	cpu := watchCPU(ctx, o.PIDs, from)
	workers := make([]worker, o.Clients)
	var ops atomic.Int64
	var wg sync.WaitGroup
	for i := range workers {
		workers[i].latency = newLatency(3)
		wg.Go(func() { workers[i].run(ctx, do, o, uint64(i), from, &ops) })
	}
	stopProgress := o.report(ctx, begin, &ops)
	wg.Wait()
	measured := time.Since(from)
	stopProgress()
	r := o.sum(workers, measured)
	used, err := cpu()
	if err == nil && r.Operations > 0 {
		r.CPU = float64(used.Microseconds()) / float64(r.Operations)
	}
	return r, err
}

func (w *worker) run(ctx context.Context, do operation, o Options, id uint64, from time.Time, ops *atomic.Int64) {
	rng := rand.New(rand.NewPCG(o.Seed, id))
	for n := int64(0); ctx.Err() == nil; n++ {
		due := time.Now()
		err := do(ctx, id, n, rng)
		if ctx.Err() != nil || err != nil && over(ctx) {
			return
		}
		ops.Add(1)
		if due.Before(from) {
			continue
		}
		if err != nil {
			if w.errors++; w.first == nil {
				w.first = err
			}
			continue
		}
		w.latency.RecordValue(max(1, time.Since(due).Microseconds()))
	}
}

// over reports whether ctx's time is up, though its timer may be about to say so.
func over(ctx context.Context) bool {
	end, ok := ctx.Deadline()
	return ok && !time.Now().Before(end)
}

func waitUntil(ctx context.Context, t time.Time) bool {
	d := time.Until(t)
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// report calls Progress about once a second until the returned function is called.
func (o Options) report(ctx context.Context, begin time.Time, ops *atomic.Int64) (stop func()) {
	if o.Progress == nil {
		return func() {}
	}
	ended, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				o.Progress(time.Since(begin), ops.Load())
			case <-ctx.Done():
				return
			case <-ended:
				return
			}
		}
	}()
	return func() { close(ended); <-stopped }
}

func (o Options) sum(workers []worker, measured time.Duration) Result {
	all := newLatency(3)
	r := Result{Workload: o.Workload, Clients: o.Clients, ValueBytes: o.ValueBytes}
	for _, w := range workers {
		all.Merge(w.latency)
		r.Errors += w.errors
		if w.first != nil && r.FirstError == "" {
			r.FirstError = w.first.Error()
		}
	}
	r.Operations = all.TotalCount()
	if measured > 0 {
		r.PerSecond = float64(r.Operations) / measured.Seconds()
	}
	ms := func(q float64) float64 { return float64(all.ValueAtQuantile(q)) / 1e3 }
	r.P50, r.P99, r.P999, r.Max = ms(50), ms(99), ms(99.9), float64(all.Max())/1e3
	return r
}
