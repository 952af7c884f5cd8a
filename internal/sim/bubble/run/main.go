// Command run is tier B's campaign: it runs worlds of whole nodes, one process per
// seed, until it is told to stop, and says what it found. It is for developers and
// is not shipped.
//
//	go run ./internal/sim/bubble/run                    until interrupted
//	go run ./internal/sim/bubble/run -seeds 1000 -json out.json
//	go run ./internal/sim/bubble/run -lines all.jsonl -commit 1234abc
//	go run ./internal/sim/bubble/run -seed 77           one seed, with its trace
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/braiddb/braid/internal/sim/bubble"
	"github.com/braiddb/braid/internal/sim/bubble/world"
)

type settings struct {
	from, seeds uint64
	duration    time.Duration
	parallel    int
	once        bool
	stop        int
	json        string
	lines       string
	commit      string
	overlay     string
}

func main() {
	var s settings
	seed := flag.Uint64("seed", 0, "run this seed, with its trace")
	flag.Uint64Var(&s.from, "from", 1, "the first seed")
	flag.Uint64Var(&s.seeds, "seeds", 0, "stop after so many seeds (0: do not)")
	flag.DurationVar(&s.duration, "for", 0, "stop after so long (0: do not)")
	flag.IntVar(&s.parallel, "parallel", runtime.NumCPU(), "worlds at once")
	flag.BoolVar(&s.once, "once", false, "run each seed once, not twice to compare")
	flag.IntVar(&s.stop, "stop", 5, "stop after so many failures (0: do not)")
	flag.StringVar(&s.json, "json", "", "write what was found to this file")
	flag.StringVar(&s.lines, "lines", "", "append a line of JSON for every seed to this file")
	flag.StringVar(&s.commit, "commit", "", "what -lines says was run")
	flag.StringVar(&s.overlay, "overlay", "", "files of the project to replace, as the go command takes them")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, s, *seed); err != nil {
		fmt.Fprintln(os.Stderr, "run:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s settings, seed uint64) error {
	fmt.Fprintln(os.Stderr, "building (the first time takes minutes: all is compiled over the changed library)")
	b, err := bubble.Build(s.overlay)
	if err != nil {
		return err
	}
	defer b.Close()
	if b.Unknown != nil {
		fmt.Fprintln(os.Stderr, b.Unknown)
	}
	if seed != 0 {
		return replay(ctx, b, seed)
	}
	return newCampaign(s).run(ctx, b)
}

// replay runs one seed and prints all that happened in it.
func replay(ctx context.Context, b *bubble.Binary, seed uint64) error {
	f, err := os.CreateTemp("", "braid-trace-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	res, err := b.Run(ctx, seed, f.Name())
	if _, e := io.Copy(os.Stdout, f); e != nil {
		return e
	}
	if err != nil {
		return err
	}
	fmt.Printf("hash %s, %v of virtual time, %d faults, %d operations with a known outcome\n", res.Hash, res.Virtual, res.Faults, res.Known)
	for _, p := range res.Problems {
		fmt.Println("WRONG", p)
	}
	if len(res.Problems) > 0 {
		return fmt.Errorf("seed %d failed", seed)
	}
	return nil
}

// failure is a seed that failed, and how.
type failure struct {
	Seed     uint64
	Error    string   `json:",omitempty"`
	Problems []string `json:",omitempty"`
}

// campaign counts what many seeds came to.
type campaign struct {
	s     settings
	begin time.Time

	mu       sync.Mutex
	next     uint64
	Seeds    uint64
	Known    int
	Faults   map[string]int
	Virtual  time.Duration
	Took     time.Duration
	Failures []failure
	Replays  bool
}

func newCampaign(s settings) *campaign {
	return &campaign{s: s, begin: time.Now(), next: s.from, Faults: map[string]int{}}
}

func (c *campaign) run(ctx context.Context, b *bubble.Binary) error {
	c.Replays = b.Unknown == nil
	var workers sync.WaitGroup
	for range c.s.parallel {
		workers.Go(func() {
			for ctx.Err() == nil {
				seed, more := c.take()
				if !more {
					return
				}
				c.one(ctx, b, seed)
			}
		})
	}
	workers.Wait()
	c.Took = time.Since(c.begin)
	c.say()
	if c.s.json != "" {
		text, err := json.MarshalIndent(c, "", "\t")
		if err != nil {
			return err
		}
		if err := os.WriteFile(c.s.json, append(text, '\n'), 0o644); err != nil {
			return err
		}
	}
	if len(c.Failures) > 0 {
		return fmt.Errorf("%d of %d seeds failed", len(c.Failures), c.Seeds)
	}
	return nil
}

// take gives the next seed, unless it is enough.
func (c *campaign) take() (seed uint64, more bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.s.seeds > 0 && c.next >= c.s.from+c.s.seeds,
		c.s.duration > 0 && time.Since(c.begin) > c.s.duration,
		c.s.stop > 0 && len(c.Failures) >= c.s.stop:
		return 0, false
	}
	c.next++
	return c.next - 1, true
}

// one runs a seed and notes what came of it.
func (c *campaign) one(ctx context.Context, b *bubble.Binary, seed uint64) {
	runs := b.Twice
	if c.s.once {
		runs = func(ctx context.Context, seed uint64) (*world.Result, error) { return b.Run(ctx, seed, "") }
	}
	res, err := runs(ctx, seed)
	if ctx.Err() != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Seeds++
	f := failure{Seed: seed}
	if err != nil {
		f.Error = err.Error()
	}
	if res != nil {
		f.Problems = res.Problems
		c.Known += res.Known
		c.Virtual += res.Virtual
		for kind, n := range res.Kinds {
			c.Faults[kind] += n
		}
	}
	c.note(f, res)
	if err != nil || len(f.Problems) > 0 {
		c.Failures = append(c.Failures, f)
		fmt.Printf("FAILED seed %d: %s%q\nreplay: go run ./internal/sim/bubble/run -seed %d\n", seed, f.Error, f.Problems, seed)
	}
	if c.Seeds%20 == 0 {
		c.say()
	}
}

// line is what is kept of a seed that was run.
type line struct {
	Commit string
	failure
	Hash    string         `json:",omitempty"`
	Known   int            // operations with a known outcome
	Kinds   map[string]int `json:",omitempty"`
	Seconds float64        // of virtual time
	Twice   bool           // and was the same both times
}

// note appends a seed's line, if lines are kept: a campaign that is ended has them all.
func (c *campaign) note(f failure, res *world.Result) {
	if c.s.lines == "" {
		return
	}
	l := line{Commit: c.s.commit, failure: f, Twice: !c.s.once && c.Replays && f.Error == ""}
	if res != nil {
		l.Hash, l.Known, l.Kinds, l.Seconds = res.Hash, res.Known, res.Kinds, res.Virtual.Seconds()
	}
	text, err := json.Marshal(l)
	if err == nil {
		err = appendLine(c.s.lines, text)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "run: the line of seed", f.Seed, "is lost:", err)
	}
}

func appendLine(name string, text []byte) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	return errors.Join(err, f.Close())
}

func (c *campaign) say() {
	took := time.Since(c.begin)
	fmt.Printf("%d seeds in %v (%.1f a minute), %d operations, faults %v, %.1f virtual hours, %d failures\n",
		c.Seeds, took.Round(time.Second), float64(c.Seeds)/took.Minutes(), c.Known, c.Faults, c.Virtual.Hours(), len(c.Failures))
}
