package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"time"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/bench"
)

type benchCmd struct {
	lookFlags
	Workload string        `arg:"" help:"put, get, mix, append, tail or overload." enum:"put,get,mix,append,tail,overload"`
	Clients  int           `help:"Concurrent clients." default:"64"`
	Value    int           `help:"Value bytes." default:"128"`
	Keys     int           `help:"put, get, mix: size of the key space." default:"100000"`
	Logs     int           `help:"append, tail: how many logs are appended to in turn." default:"1"`
	Log      string        `help:"append, tail: where the logs are; made if they are not there." default:"/bench" placeholder:"PATH"`
	Copies   uint32        `help:"append, tail: copies of each record, where the logs are made." default:"2"`
	Batched  bool          `help:"append: through a BufferedWriter, which sends what waits together."`
	PIDs     []int         `name:"pids" help:"Processes of this machine whose CPU is to be told per operation: the nodes." placeholder:"PID"`
	Duration time.Duration `help:"Measured time." default:"10s"`
	Warmup   time.Duration `help:"Time before it, not counted." default:"1s"`
	Rate     float64       `help:"Operations a second, due at fixed times whatever is answered (an open loop); 0: as fast as answers come." default:"0"`
	overloadFlags
}

// Help shows typical runs.
func (benchCmd) Help() string {
	return "Examples:\n  braid bench put --clients 64\n  braid bench mix --rate 5000 --duration 30s --format json\n  braid bench append --clients 256 --logs 100\n  braid bench tail --clients 8\n  braid bench overload --load put --over redis --pids PID,PID,PID"
}

// redisKV drives the document table through the client.
type redisKV struct{ table *client.Table }

// Put sets a key.
func (k redisKV) Put(ctx context.Context, key, value []byte) error {
	_, err := k.table.Do(ctx, client.Set(key, value, client.SetOptions{}))
	return err
}

// Get reads a key; a missing one is no error.
func (k redisKV) Get(ctx context.Context, key []byte) error {
	_, err := k.table.Do(ctx, client.Get(key))
	return err
}

// Run puts the load on the cluster and prints what it saw.
func (c benchCmd) Run() error {
	if c.Workload == "overload" {
		return c.runOverload()
	}
	o := bench.Options{
		Workload: c.Workload, Clients: c.Clients, ValueBytes: c.Value, Keys: c.Keys, Logs: c.Logs, Duration: c.Duration, Warmup: c.Warmup, Rate: c.Rate,
		PIDs: c.PIDs, Outstanding: c.Outstanding,
	}
	if err := o.Validate(); err != nil {
		return &usageError{err}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	connect, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	cl, err := c.connect(connect)
	if err != nil {
		return err
	}
	defer cl.Close()
	if info, err := os.Stderr.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
		o.Progress = func(done time.Duration, ops int64) {
			fmt.Fprintf(os.Stderr, "\r%3.0f s of %.0f s   %d operations", done.Seconds(), (c.Warmup + c.Duration).Seconds(), ops)
		}
	}
	var r bench.Result
	if c.Workload == "append" || c.Workload == "tail" {
		r, err = c.runLogs(ctx, cl, o)
	} else {
		r, err = bench.RunKV(ctx, redisKV{cl.Redis()}, o)
	}
	if o.Progress != nil {
		fmt.Fprintln(os.Stderr)
	}
	if err != nil {
		return err
	}
	if r.Shed+r.Missed > 0 {
		fmt.Fprintf(os.Stderr, "of what was due %d were shed, too many being under way, and %d missed, the generator being too slow\n", r.Shed, r.Missed)
	}
	f := func(v float64) string { return strconv.FormatFloat(v, 'f', 2, 64) }
	return c.show(r, [][]string{
		{"WORKLOAD", "CLIENTS", "OP/S", "P50 MS", "P99 MS", "P99.9 MS", "MAX MS", "ERRORS", "CPU US/OP"},
		{r.Workload, strconv.Itoa(r.Clients), strconv.FormatFloat(r.PerSecond, 'f', 0, 64), f(r.P50), f(r.P99), f(r.P999), f(r.Max), strconv.FormatInt(r.Errors, 10), f(r.CPU)},
	})
}
