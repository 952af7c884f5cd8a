// Command run is the simulation's campaign: it runs seeds of every wing, on all
// processors, until it is told to stop, and says what it found. It is for
// developers and is not shipped.
//
//	go run ./internal/sim/run                        all wings, until interrupted
//	go run ./internal/sim/run -for 10m -json out.json
//	go run ./internal/sim/run -wing tables -from 7000 -seeds 1000
//	go run ./internal/sim/run -wing tables -seed 77  one seed, with its trace
//	go run ./internal/sim/run -beyond -seeds 500     faults that exceed what is promised
//	go run ./internal/sim/run -options FILE          options as a failure printed them
//
// A failure is shrunk, and printed as the command that replays it.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/braiddb/braid/internal/sim"
	"github.com/braiddb/braid/internal/sim/sometimes"
)

type settings struct {
	wing            string
	duration        time.Duration
	seeds           uint64
	from            uint64
	parallel        int
	json            string
	twice           int
	shrink          int
	stop            int
	quiet, messages bool
	beyond          bool
	profile         string
}

func main() {
	var s settings
	var seed uint64
	var options string
	flag.StringVar(&s.wing, "wing", "", "run this wing only: "+strings.Join(names(), ", "))
	flag.DurationVar(&s.duration, "for", 0, "stop after so long (0: do not)")
	flag.Uint64Var(&s.seeds, "seeds", 0, "stop after so many seeds of each wing (0: do not)")
	flag.Uint64Var(&s.from, "from", 1, "the first seed")
	flag.IntVar(&s.parallel, "parallel", runtime.GOMAXPROCS(0), "runs at once")
	flag.StringVar(&s.json, "json", "", "write what was found to this file")
	flag.IntVar(&s.twice, "twice", 50, "run one seed in so many a second time and compare (0: none)")
	flag.IntVar(&s.shrink, "shrink", 150, "runs to spend on making a failure small (0: none)")
	flag.IntVar(&s.stop, "stop", 5, "stop after so many failures (0: do not)")
	flag.BoolVar(&s.quiet, "quiet", false, "no progress, and no trace with -seed and -options")
	flag.BoolVar(&s.beyond, "beyond", false, "seeds whose faults exceed what is promised: refusal is right there, silence is not")
	flag.BoolVar(&s.messages, "messages", false, "with -seed and -options: show what nodes say to one another too (wing logs)")
	flag.Uint64Var(&seed, "seed", 0, "run this seed of -wing, with its trace")
	flag.StringVar(&options, "options", "", "run the options in this file, with a trace")
	flag.StringVar(&s.profile, "cpuprofile", "", "write where processor time goes to this file, for go tool pprof")
	flag.Parse()
	debug.SetGCPercent(800) // runs are short-lived: memory is cheaper than time
	// What an engine leaves to finalizers looks alive to one round of the collector, and the
	// goal of the next is a multiple of that: without a limit 1,400 seeds took 19 GB.
	debug.SetMemoryLimit(2 << 30)
	if seed != 0 || options != "" {
		os.Exit(replay(&s, seed, options))
	}
	os.Exit(profiled(s.profile, func() int { return campaign(&s) }))
}

// profiled runs f and notes where its processor time goes, if file names a place.
func profiled(file string, f func() int) int {
	if file == "" {
		return f()
	}
	out, err := os.Create(file)
	if err == nil {
		err = pprof.StartCPUProfile(out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	code := f()
	pprof.StopCPUProfile()
	if err := out.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	return code
}

func names() []string {
	var out []string
	for _, w := range wings {
		out = append(out, w.Name)
	}
	return out
}

func wingNamed(name string) *sim.Wing {
	for _, w := range wings {
		if w.Name == name {
			return w
		}
	}
	fmt.Fprintf(os.Stderr, "there is no wing %q; there are: %s\n", name, strings.Join(names(), ", "))
	os.Exit(2)
	return nil
}

// replay runs one set of options and prints its trace.
func replay(s *settings, seed uint64, file string) int {
	o := &sim.Options{}
	if file != "" {
		raw, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(raw, o)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", file, err)
			return 2
		}
	} else {
		o = s.draw(wingNamed(s.wing), seed)
	}
	trace := io.Writer(os.Stdout)
	if s.quiet {
		trace = nil
	}
	o.Messages = s.messages
	began := time.Now()
	r := wingNamed(o.Wing).Run(o, trace)
	fmt.Printf("\n%s seed %d: %d operations, %d faults, %s virtual, %d events, hash %s, %s\n",
		o.Wing, o.Seed, r.Ops, r.Faults, time.Duration(r.Virtual), r.Events, r.Hash, time.Since(began).Round(time.Millisecond))
	if r.Exposed != "" {
		fmt.Println("exposed, as documented:", r.Exposed)
	}
	if r.Error != "" {
		fmt.Println("FAILED:", r.Error)
		return 1
	}
	return 0
}

// draw makes the options of a seed.
func (s *settings) draw(w *sim.Wing, seed uint64) *sim.Options {
	if s.beyond {
		return w.Beyond(seed)
	}
	return w.Draw(seed)
}

// report is what a campaign found, as JSON.
type report struct {
	Wings []*tally
}

type tally struct {
	Wing      string
	From, To  uint64 // seeds
	Seeds     uint64
	Twice     uint64 // of them run twice, with equal traces
	Ops       uint64
	Faults    uint64
	Events    uint64
	OpsLeast  int
	FewFaults uint64 // seeds with fewer than three
	Exposed   uint64 `json:",omitempty"` // beyond: seeds that lost what nobody can tell, as documented
	Virtual   sim.Duration
	Real      sim.Duration        // of all runners together
	CPU       sim.Duration        // of the process, shared among wings by Real
	PerMinute float64             // seeds a minute, had the process its processors for itself
	Reached   map[string]uint64   // what its worlds say they saw
	Points    []sometimes.Reached // branches of production code, of the wing's rooms
	Unreached []string            // of both
	Failures  []*failure
}

type failure struct {
	Seed  uint64
	Error string
	After sim.Duration // since the campaign began
	Small *sim.Options // still fails so
}

type runner struct {
	s     *settings
	began time.Time
	stop  context.CancelFunc

	mu      sync.Mutex
	tallies []*tally
	wings   []*sim.Wing
	next    uint64 // seed times wings
	failed  int
}

func campaign(s *settings) int {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	if s.duration > 0 {
		ctx, cancel = context.WithTimeout(ctx, s.duration)
		defer cancel()
	}
	r := &runner{s: s, began: time.Now(), stop: cancel}
	for _, w := range wings {
		if (s.wing == "" || s.wing == w.Name) && (!s.beyond || w.Beyond != nil) {
			r.wings = append(r.wings, w)
			r.tallies = append(r.tallies, &tally{Wing: w.Name, From: s.from, Reached: map[string]uint64{}, OpsLeast: 1 << 30})
		}
	}
	if len(r.wings) == 0 {
		wingNamed(s.wing)
	}
	sometimes.Count()
	var group sync.WaitGroup
	for range s.parallel {
		group.Go(func() { r.work(ctx) })
	}
	if !s.quiet {
		go r.progress(ctx)
	}
	group.Wait()
	return r.finish()
}

// work runs seed after seed, each wing in turn.
func (r *runner) work(ctx context.Context) {
	for ctx.Err() == nil {
		r.mu.Lock()
		n := r.next
		r.next++
		r.mu.Unlock()
		at := int(n % uint64(len(r.wings)))
		seed := r.s.from + n/uint64(len(r.wings))
		if r.s.seeds > 0 && seed >= r.s.from+r.s.seeds {
			return
		}
		r.one(at, seed)
	}
}

func (r *runner) one(at int, seed uint64) {
	wing, t := r.wings[at], r.tallies[at]
	began := time.Now()
	res := wing.Run(r.s.draw(wing, seed), nil)
	twice := res.Error == "" && r.s.twice > 0 && seed%uint64(r.s.twice) == 0
	if twice {
		if again := wing.Run(r.s.draw(wing, seed), nil); again.Hash != res.Hash {
			res.Error = fmt.Sprintf("the same seed gives two traces: %s, %s", res.Hash, again.Hash)
		}
	}
	took := time.Since(began)
	r.mu.Lock()
	t.Seeds++
	t.To = max(t.To, seed)
	t.Ops += uint64(res.Ops)
	t.Faults += uint64(res.Faults)
	t.Events += res.Events
	t.Virtual += res.Virtual
	t.Real += sim.Duration(took)
	if twice {
		t.Twice++
	}
	if res.Error == "" {
		t.OpsLeast = min(t.OpsLeast, res.Ops)
		if res.Faults < 3 {
			t.FewFaults++
		}
	}
	for k, n := range res.Reached {
		t.Reached[k] += n
	}
	if res.Exposed != "" {
		t.Exposed++
	}
	r.mu.Unlock()
	if res.Error != "" {
		r.fail(wing, t, res)
	}
}

// fail shrinks a failure and prints how to see it again.
func (r *runner) fail(wing *sim.Wing, t *tally, res *sim.Result) {
	f := &failure{Seed: res.Options.Seed, Error: res.Error, After: sim.Duration(time.Since(r.began)), Small: res.Options}
	if r.s.shrink > 0 {
		f.Small = wing.Shrink(res, r.s.shrink).Options
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	t.Failures = append(t.Failures, f)
	fmt.Printf("\nFAILED %s seed %d after %s: %s\n", t.Wing, f.Seed, time.Duration(f.After).Round(time.Millisecond), f.Error)
	fmt.Printf("replay: go run ./internal/sim/run -wing %s%s -seed %d\n", t.Wing, map[bool]string{true: " -beyond"}[r.s.beyond], f.Seed)
	if raw, err := json.MarshalIndent(f.Small, "", " "); err == nil && r.s.shrink > 0 {
		if file, err := os.CreateTemp("", fmt.Sprintf("%s-%d-*.json", t.Wing, f.Seed)); err == nil {
			_, _ = file.Write(raw) // for convenience: the seed says it all
			_ = file.Close()
			fmt.Printf("small:  go run ./internal/sim/run -options %s     (%d faults of %d)\n", file.Name(), len(f.Small.Faults), len(res.Options.Faults))
		}
	}
	if r.failed++; r.s.stop > 0 && r.failed >= r.s.stop {
		r.stop()
	}
}

func (r *runner) progress(ctx context.Context) {
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			r.mu.Lock()
			for _, t := range r.tallies {
				fmt.Printf("%8s  %s\n", time.Since(r.began).Round(time.Second), t.line(r))
			}
			r.mu.Unlock()
		}
	}
}

// line says how far a wing is. Other work on the machine makes runs slow to
// watch; what they cost is counted in processor time.
func (t *tally) line(r *runner) string {
	all := sim.Duration(0)
	for _, o := range r.tallies {
		all += o.Real
	}
	per := time.Duration(0)
	if t.Seeds > 0 && all > 0 {
		t.CPU = sim.Duration(float64(processorTime()) * float64(t.Real) / float64(all))
		per = time.Duration(t.CPU) / time.Duration(t.Seeds)
		t.PerMinute = float64(r.s.parallel) * float64(time.Minute) / float64(per)
	}
	return fmt.Sprintf("%s: %d seeds, %s of a processor each (%.0f a minute on %d), %d operations, %d faults, %.1f virtual hours, %d failed",
		t.Wing, t.Seeds, per.Round(time.Millisecond), t.PerMinute, r.s.parallel, t.Ops, t.Faults, time.Duration(t.Virtual).Hours(), len(t.Failures))
}

// processorTime is what this process has used.
func processorTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// finish says what was found and what was never reached.
func (r *runner) finish() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	code := 0
	for i, t := range r.tallies {
		fmt.Println(t.line(r))
		if r.s.beyond {
			t.sayBeyond()
		} else {
			t.countPoints(r.wings[i])
		}
		for _, p := range t.Unreached {
			fmt.Printf("%s: never reached: %s\n", t.Wing, p)
		}
		if !r.s.beyond && (t.FewFaults > 0 || t.OpsLeast < 500) {
			fmt.Printf("%s: %d seeds had fewer than 3 faults, the fewest operations were %d\n", t.Wing, t.FewFaults, t.OpsLeast)
		}
		if len(t.Failures) > 0 {
			code = 1
		}
	}
	if r.s.json != "" {
		raw, err := json.MarshalIndent(report{Wings: r.tallies}, "", " ")
		if err == nil {
			err = os.WriteFile(r.s.json, append(raw, '\n'), 0o644)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	return code
}

// countPoints says what the seeds reached and what they did not: of what the wing's
// worlds note, and of the points in the rooms that it runs.
func (t *tally) countPoints(w *sim.Wing) {
	for _, p := range w.Points {
		if t.Reached[p] == 0 {
			t.Unreached = append(t.Unreached, p)
		}
	}
	for _, p := range sometimes.All() {
		if !slices.Contains(w.Rooms, p.Room()) {
			continue
		}
		if t.Points = append(t.Points, p); p.Times == 0 {
			t.Unreached = append(t.Unreached, p.Name)
		}
	}
	slices.Sort(t.Unreached)
}

// sayBeyond says how what was struck beyond measure stood in the end.
func (t *tally) sayBeyond() {
	for _, k := range slices.Sorted(maps.Keys(t.Reached)) {
		if what, ok := strings.CutPrefix(k, "beyond: "); ok {
			fmt.Printf("%s: %6d times %s\n", t.Wing, t.Reached[k], what)
		}
	}
	fmt.Printf("%s: %d seeds lost what nobody can tell, as documented\n", t.Wing, t.Exposed)
}
