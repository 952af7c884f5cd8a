package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"time"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/bench"
)

// overloadFlags are those of braid bench overload alone.
type overloadFlags struct {
	Load        string        `help:"overload: what to do: put, get or append." enum:"put,get,append" default:"put"`
	Over        string        `help:"overload: through which door: braid's own client, or the Redis port." enum:"client,redis" default:"client"`
	Connections int           `help:"overload: braid clients, or connections to Redis ports. 0: 4 clients, 256 connections." default:"0"`
	Pipeline    int           `help:"overload over redis: commands under way on a connection at most." default:"8"`
	Outstanding int           `help:"overload, --rate: operations under way at most; more are shed." default:"100000"`
	Patience    time.Duration `help:"overload: time until an answer is worth nothing." default:"2s"`
	Phase       time.Duration `help:"overload: time at each rate." default:"15s"`
	Recovery    time.Duration `help:"overload: time at the last rate." default:"20s"`
	Capacity    float64       `help:"overload: operations a second that the cluster is able to do. 0: what a closed loop does over a phase, the best of --clients and more." default:"0"`
	Factors     []float64     `help:"overload: parts of the capacity that are offered one after the other." default:"2,10" placeholder:"X"`
}

// runOverload offers the cluster more than it can do.
func (c benchCmd) runOverload() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if c.Load == "append" && c.Over == "redis" {
		return &usageError{errors.New("there are no appends over redis")}
	}
	o := bench.OverloadOptions{
		Clients: c.Clients, Capacity: c.Capacity, Phase: c.Phase, Recovery: c.Recovery, Patience: c.Patience,
		Outstanding: c.Outstanding, Factors: c.Factors, PIDs: c.PIDs,
		Progress: func(phase string) { fmt.Fprintln(os.Stderr, c.Load, "over", c.Over+":", phase) },
	}
	load, err := c.overloadTarget(ctx)
	if err != nil {
		return err
	}
	defer load.close()
	o.Retries = load.retries
	if n := load.outstanding; n > 0 {
		o.Outstanding = n
	}
	r, err := bench.Overload(ctx, c.Load+" over "+c.Over, load.start, o)
	if err != nil {
		return err
	}
	return c.showOverload(r)
}

// overloadTarget is what is put under load.
type overloadTarget struct {
	start       bench.Starter
	retries     func() uint64
	outstanding int // operations that it takes at once, 0: any number
	close       func()
}

func (c benchCmd) overloadTarget(ctx context.Context) (*overloadTarget, error) {
	if c.Over == "redis" {
		return c.overRedis(ctx)
	}
	if c.Connections == 0 {
		c.Connections = 4
	}
	var clients []*client.Client
	t := &overloadTarget{
		close: func() {
			for _, cl := range clients {
				cl.Close()
			}
		},
		retries: func() (n uint64) {
			for _, cl := range clients {
				n += cl.Metrics().Retries.Load()
			}
			return n
		},
	}
	for range c.Connections {
		connect, cancel := context.WithTimeout(ctx, c.Timeout)
		cl, err := c.connectWith(connect, client.Options{AppendTimeout: c.Patience})
		cancel()
		if err != nil {
			t.close()
			return nil, err
		}
		clients = append(clients, cl)
	}
	if c.Load == "append" {
		var err error
		if t.start, err = c.overLogs(ctx, clients); err != nil {
			t.close()
		}
		return t, err
	}
	value := make([]byte, c.Value)
	t.start = func(n int64, deadline time.Time, done func(error)) {
		op := client.Get(c.overloadKey(n))
		if c.Load == "put" {
			op = client.Set(c.overloadKey(n), value, client.SetOptions{})
		}
		clients[n%int64(len(clients))].Redis().Start(op, deadline, func(_ *client.Result, err error) { done(kindOf(err)) })
	}
	return t, nil
}

func (c benchCmd) overLogs(ctx context.Context, clients []*client.Client) (bench.Starter, error) {
	var logs []*client.Log
	for _, cl := range clients {
		more, err := c.openLogs(ctx, cl)
		if err != nil {
			return nil, err
		}
		logs = append(logs, more...)
	}
	payload := make([]byte, c.Value)
	return func(n int64, _ time.Time, done func(error)) { // the client's AppendTimeout is the deadline
		logs[n%int64(len(logs))].AppendAsync(payload, func(_ client.LSN, err error) { done(kindOf(err)) }, client.AnyOrder())
	}, nil
}

func (c benchCmd) overRedis(ctx context.Context) (*overloadTarget, error) {
	cl, err := c.cluster()
	if err != nil {
		return nil, err
	}
	var addrs []string
	for _, n := range cl.Nodes {
		if n.RedisAddr != "" {
			addrs = append(addrs, n.RedisAddr)
		}
	}
	if c.Connections == 0 {
		c.Connections = 256
	}
	r, err := bench.DialRedis(addrs, c.Connections, c.Pipeline)
	if err != nil {
		return nil, err
	}
	value := make([]byte, c.Value)
	start := func(n int64, deadline time.Time, done func(error)) {
		key := c.overloadKey(n)
		if c.Load == "put" {
			r.Start(bench.RedisCommand([]byte("SET"), key, value), deadline, done)
		} else {
			r.Start(bench.RedisCommand([]byte("GET"), key), deadline, done)
		}
	}
	return &overloadTarget{start: start, retries: r.Retries, outstanding: c.Connections * c.Pipeline, close: r.Close}, ctx.Err()
}

// overloadKey spreads operations over the key space.
func (c benchCmd) overloadKey(n int64) []byte {
	x := uint64(n) * 0x9e3779b97f4a7c15
	x ^= x >> 29
	return strconv.AppendUint([]byte("key"), x%uint64(max(1, c.Keys)), 10)
}

// kindOf says in the bench's words what kind of failure an error is.
func kindOf(err error) error {
	switch {
	case errors.Is(err, client.ErrUnknownOutcome):
		return bench.ErrUnknown
	case errors.Is(err, client.ErrOverloaded):
		return bench.ErrRefused
	case errors.Is(err, client.ErrTimeout):
		return bench.ErrExpired
	}
	return err
}

// showOverload prints a line for each phase.
func (c benchCmd) showOverload(r bench.OverloadResult) error {
	count := func(n int64) string { return strconv.FormatInt(n, 10) }
	f := func(v float64, digits int) string { return strconv.FormatFloat(v, 'f', digits, 64) }
	rows := [][]string{{"LOAD", "OFFERED/S", "GOOD/S", "OF PEAK", "P50 MS", "P99 MS", "REFUSED", "EXPIRED", "UNKNOWN", "FAILED", "SHED", "MISSED", "RETRIES", "SERVERS CPU", "OWN CPU", "RSS MIB"}}
	for _, p := range r.Phases {
		rows = append(rows, []string{p.Name, f(p.Offered, 0), f(p.Goodput, 0), f(p.Ratio, 2), f(p.P50, 1), f(p.P99, 1), count(p.Refused), count(p.Expired),
			count(p.Unknown), count(p.Failed), count(p.Shed), count(p.Missed), strconv.FormatUint(p.Retries, 10),
			f(p.ServerCPU, 2), f(p.GeneratorCPU, 2), count(p.RSSMax >> 20)})
	}
	if err := c.show(r, rows); err != nil || c.Format == "json" {
		return err
	}
	fmt.Printf("%s: peak %.0f a second; the 99th percentile was normal again after %g s\n", r.Workload, r.Peak, r.NormalAfter)
	for _, pid := range slices.Sorted(maps.Keys(r.RSSMax)) {
		fmt.Printf("process %d: %d MiB resident at most\n", pid, r.RSSMax[pid]>>20)
	}
	return nil
}
