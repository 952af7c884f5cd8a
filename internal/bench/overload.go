package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// OverloadOptions say how a system is overloaded. The zero value of a field takes
// the default in brackets.
type OverloadOptions struct {
	Clients     int           // of the closed loop that capacity is first measured with [256]
	Capacity    float64       // operations a second, known from elsewhere; 0: it is measured
	Measure     time.Duration // how long each of the closed loops is measured that look for the best, after a second of warm-up [4s]
	Phase       time.Duration // of the best closed loop, of the load before and of each overload [15s]
	Recovery    time.Duration // of the load after [20s]
	Patience    time.Duration // from when an operation is due to when its answer is worth nothing [2s]
	Outstanding int           // operations under way at most; more are shed [100000]
	Load        float64       // of capacity, before and after [0.7]
	Factors     []float64     // of capacity, one after the other [2, 10]
	PIDs        []int         // of the servers: their memory is watched
	Retries     func() uint64 // how often clients have sent an operation again
	Progress    func(phase string)
}

func (o OverloadOptions) withDefaults() OverloadOptions {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	if o.Clients == 0 {
		o.Clients = 256
	}
	if o.Outstanding == 0 {
		o.Outstanding = 100_000
	}
	if o.Load == 0 {
		o.Load = 0.7
	}
	if o.Factors == nil {
		o.Factors = []float64{2, 10}
	}
	def(&o.Measure, 4*time.Second)
	def(&o.Phase, 15*time.Second)
	def(&o.Recovery, 20*time.Second)
	def(&o.Patience, 2*time.Second)
	if o.Retries == nil {
		o.Retries = func() uint64 { return 0 }
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	return o
}

// OverloadPhase is what was seen at one rate. Counts are of what ended while it
// lasted; latencies are in milliseconds, from when operations were due.
type OverloadPhase struct {
	Name    string  `json:"name"`
	Offered float64 `json:"offered_per_second"`
	Counts
	Goodput float64 `json:"goodput_per_second"`
	Ratio   float64 `json:"goodput_of_peak"`
	P50     float64 `json:"p50_ms"`
	P99     float64 `json:"p99_ms"`
	Retries uint64  `json:"client_retries"`
	// Processors that the servers used together, and this process, the generator. One
	// that has all it can get is the bound, whatever the other could have done.
	ServerCPU    float64 `json:"server_processors,omitempty"`
	GeneratorCPU float64 `json:"generator_processors"`
	RSSMax       int64   `json:"rss_max_bytes,omitempty"` // of the server that held the most
}

// OverloadResult is a whole run.
type OverloadResult struct {
	Workload string          `json:"workload"`
	Peak     float64         `json:"peak_per_second"` // capacity, in a closed loop
	Phases   []OverloadPhase `json:"phases"`
	// NormalAfter is how many seconds after the overload the 99th percentile was back
	// at what it was before it, twice that at most or 20 ms more; -1: it never was.
	NormalAfter float64       `json:"p99_normal_after_s"`
	RSSMax      map[int]int64 `json:"rss_max_bytes,omitempty"` // by process
}

// Overload measures what a system can do, offers it a part of that, then more than
// it can do, then the part again.
func Overload(ctx context.Context, workload string, start Starter, o OverloadOptions) (OverloadResult, error) {
	o = o.withDefaults()
	memory, err := watchMemory(o.PIDs)
	if err != nil {
		return OverloadResult{}, err
	}
	defer memory.stop()
	r := OverloadResult{Workload: workload, Peak: o.Capacity}
	if r.Peak == 0 {
		o.Progress("capacity")
		r.Peak = capacity(ctx, start, o)
	}
	if err := ctx.Err(); err != nil {
		return r, err
	}
	if r.Peak == 0 {
		return r, errors.New("nothing was answered while capacity was measured: there is nothing to be multiplied")
	}
	err = o.phases(ctx, start, memory, &r)
	r.RSSMax = memory.stop()
	return r, errors.Join(err, ctx.Err())
}

// phases runs the open loop at one rate after the other.
func (o OverloadOptions) phases(ctx context.Context, start Starter, memory *memoryWatch, r *OverloadResult) error {
	type phase struct {
		name    string
		factor  float64
		seconds int
	}
	seconds := func(d time.Duration) int { return max(1, int(math.Round(d.Seconds()))) }
	list := []phase{{fmt.Sprintf("%gx before", o.Load), o.Load, seconds(o.Phase)}}
	for _, f := range o.Factors {
		list = append(list, phase{fmt.Sprintf("%gx", f), f, seconds(o.Phase)})
	}
	list = append(list, phase{fmt.Sprintf("%gx after", o.Load), o.Load, seconds(o.Recovery)})
	total := 0
	for _, p := range list {
		total += p.seconds
	}
	l := newOpenLoop(start, o.Patience, o.Outstanding, total)
	l.begin = time.Now()
	at := 0
	var used []phaseUse
	for _, p := range list {
		o.Progress(p.name)
		stop, err := o.watchUse(memory)
		if err != nil {
			return err
		}
		from := l.begin.Add(time.Duration(at) * time.Second)
		at += p.seconds
		to := l.begin.Add(time.Duration(at) * time.Second)
		l.run(ctx, p.factor*r.Peak, from, to)
		waitUntil(ctx, to)
		u, err := stop()
		if err != nil {
			return err
		}
		used = append(used, u)
	}
	waitUntil(ctx, time.Now().Add(o.Patience)) // what is under way ends
	at = 0
	for i, p := range list {
		counts, h := l.sum(at, at+p.seconds)
		at += p.seconds
		goodput := float64(counts.Good) / float64(p.seconds)
		r.Phases = append(r.Phases, OverloadPhase{
			Name: p.name, Offered: p.factor * r.Peak, Counts: counts, Goodput: goodput, Ratio: goodput / r.Peak,
			P50: float64(h.ValueAtQuantile(50)) / 1e3, P99: float64(h.ValueAtQuantile(99)) / 1e3, Retries: used[i].retries,
			ServerCPU: used[i].servers, GeneratorCPU: used[i].generator, RSSMax: used[i].rss,
		})
	}
	r.NormalAfter = l.normalAfter(list[0].seconds, at-list[len(list)-1].seconds, at)
	return nil
}

// phaseUse is what a phase took of the machine.
type phaseUse struct {
	servers, generator float64 // processors
	rss                int64
	retries            uint64
}

// watchUse begins to look at it; the returned function ends that.
func (o OverloadOptions) watchUse(memory *memoryWatch) (func() (phaseUse, error), error) {
	read := func() (servers, own time.Duration, err error) {
		if servers, err = cpuOf(o.PIDs); err == nil {
			own, err = cpuOf([]int{os.Getpid()})
		}
		return servers, own, err
	}
	servers, own, err := read()
	if err != nil {
		return nil, err
	}
	begin, retries := time.Now(), o.Retries()
	memory.begin()
	return func() (phaseUse, error) {
		s, g, err := read()
		took := time.Since(begin).Seconds()
		return phaseUse{(s - servers).Seconds() / took, (g - own).Seconds() / took, memory.most(), o.Retries() - retries}, err
	}, nil
}

// normalAfter says how many seconds after from the last window was whose 99th
// percentile was not as in the windows before normal, or which had no answer.
func (l *openLoop) normalAfter(normal, from, to int) float64 {
	_, h := l.sum(0, normal)
	usual := h.ValueAtQuantile(99)
	limit := max(2*usual, usual+20_000)
	for i := to - 1; i >= from; i-- {
		c, h := l.sum(i, i+1)
		if c.Good == 0 || h.ValueAtQuantile(99) > limit {
			if i == to-1 {
				return -1
			}
			return float64(i + 1 - from)
		}
	}
	return 0
}

// capacity is how many operations a second the best closed loop gets done for as long
// as a phase is. That loop is looked for with four times the clients, again and again,
// until that has twice won no more than a twentieth: once is no sign, as one loop may be
// slow for what else the machine does. What a loop did then, in a few seconds, is no
// capacity: a store that is still empty owes itself the work of merging what it takes.
func capacity(ctx context.Context, start Starter, o OverloadOptions) float64 {
	best, most, vain := 0, 0.0, 0
	for clients := o.Clients; clients <= o.Outstanding && vain < 2; clients *= 4 {
		got := o.closedLoop(ctx, start, clients, o.Measure)
		if vain++; got > most*1.05 {
			vain = 0
		}
		if got > most {
			best, most = clients, got
		}
	}
	o.Progress(fmt.Sprintf("capacity with %d clients", best))
	return o.closedLoop(ctx, start, best, o.Phase)
}

// closedLoop is how many operations a second so many clients get done in a time.
func (o OverloadOptions) closedLoop(ctx context.Context, start Starter, clients int, measure time.Duration) float64 {
	const warmup = time.Second
	from := time.Now().Add(warmup)
	to := from.Add(measure)
	var good, n atomic.Int64
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			answer := make(chan error, 1)
			for ctx.Err() == nil && time.Now().Before(to) {
				start(n.Add(1), time.Now().Add(o.Patience), func(err error) { answer <- err })
				err := <-answer
				if now := time.Now(); err == nil && now.After(from) && now.Before(to) {
					good.Add(1)
				}
			}
		})
	}
	wg.Wait()
	return float64(good.Load()) / measure.Seconds()
}
