package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9/logging"

	"github.com/braiddb/braid/internal/proof/cluster"
)

type settings struct {
	seed     uint64
	from     uint64
	rounds   int
	duration time.Duration
	harm     time.Duration
	faults   string
	out      string
	dir      string
	stop     int
}

func main() {
	var s settings
	flag.Uint64Var(&s.seed, "seed", 0, "run the round of this seed alone")
	flag.Uint64Var(&s.from, "from", rand.Uint64()>>44, "the first seed")
	flag.IntVar(&s.rounds, "rounds", 0, "stop after so many rounds (0: do not)")
	flag.DurationVar(&s.duration, "for", 0, "stop after so long (0: do not)")
	flag.DurationVar(&s.harm, "harm", 25*time.Second, "how long faults go on in a round")
	flag.StringVar(&s.faults, "faults", "", "only these kinds, of "+strings.Join(kindNames(), ","))
	flag.StringVar(&s.out, "out", "", "append a line of JSON for each round to this file")
	flag.StringVar(&s.dir, "dir", "", "where rounds live, and failures stay (a new directory)")
	flag.IntVar(&s.stop, "stop", 5, "stop after so many failures (0: do not)")
	flag.Parse()
	logging.Disable() // its pool complains of nodes that are meant to be down
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := campaign(ctx, s); err != nil {
		fmt.Fprintln(os.Stderr, "processes:", err)
		os.Exit(1)
	}
}

// result is what a round came to: a line of data.
type result struct {
	Commit     string
	Seed       uint64
	Nodes      int
	Seconds    float64
	Stopped    float64        `json:",omitempty"` // seconds in which this process stood still
	Faults     map[string]int // by kind
	Operations map[string]int // with a known outcome, by workload
	Unknown    int            // operations without one
	Undecided  int            `json:",omitempty"` // registers whose history took too long to search
	Verdict    string         // "ok" or "failed"
	Problems   []string       `json:",omitempty"`
	Kept       string         `json:",omitempty"` // where what failed lies
}

// commit names what is tested.
func commit() string {
	head, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	name := strings.TrimSpace(string(head))
	if changed, _ := exec.Command("git", "status", "--porcelain", "-uno").Output(); len(changed) > 0 {
		name += "+"
	}
	return name
}

// tools says which kinds of fault can be done here.
func tools(s settings) (kinds []string, err error) {
	kinds = kindNames()
	if s.faults != "" {
		kinds = strings.Split(s.faults, ",")
	}
	without := func(kind, why string) {
		if i := slices.Index(kinds, kind); i >= 0 {
			fmt.Fprintf(os.Stderr, "no %s: %s\n", kind, why)
			kinds = slices.Delete(kinds, i, i+1)
		}
	}
	if _, err := exec.LookPath("strace"); err != nil {
		without("sync-error", "strace is not installed (apt-get install strace)")
	}
	if os.Geteuid() != 0 {
		without("full-disk", "only root may mount a small file system")
	}
	for _, k := range kinds {
		if faults[k] == nil {
			return nil, fmt.Errorf("there is no fault %q, only %s", k, strings.Join(kindNames(), ", "))
		}
	}
	if len(kinds) == 0 {
		return nil, errors.New("no fault is left to be done")
	}
	return kinds, nil
}

func kindNames() []string { return slices.Sorted(maps.Keys(faults)) }

// campaign runs rounds until it is enough.
func campaign(ctx context.Context, s settings) error {
	kinds, err := tools(s)
	if err != nil {
		return err
	}
	if s.dir == "" {
		if s.dir, err = os.MkdirTemp("", "braid-processes-"); err != nil {
			return err
		}
	} else if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	binary, err := cluster.Build(s.dir)
	if err != nil {
		return err
	}
	defer os.Remove(s.dir) // if nothing is kept
	defer os.Remove(binary)
	seed, name := s.from, commit()
	if s.seed != 0 {
		seed, s.rounds = s.seed, 1
	}
	begin, ran, failed := time.Now(), 0, 0
	for ; ctx.Err() == nil; seed++ {
		if s.rounds > 0 && ran >= s.rounds || s.duration > 0 && time.Since(begin) > s.duration || s.stop > 0 && failed >= s.stop {
			break
		}
		res := newRound(ctx, seed, binary, filepath.Join(s.dir, fmt.Sprint("round-", seed)), kinds, s.harm).run()
		if ctx.Err() != nil {
			break // interrupted: it says nothing
		}
		ran++
		if res.Commit = name; res.Verdict != "ok" {
			failed++
		}
		if err := say(res, s.out); err != nil {
			return err
		}
	}
	fmt.Printf("%d rounds in %v, %d failed\n", ran, time.Since(begin).Round(time.Second), failed)
	if failed > 0 {
		return fmt.Errorf("%d of %d rounds failed; see %s", failed, ran, s.dir)
	}
	return nil
}

// say prints what a round came to, and appends it to the file.
func say(res *result, out string) error {
	fmt.Printf("seed %d: %s, %d nodes, %.0f s, faults %v, operations %v, %d unknown\n", res.Seed, res.Verdict, res.Nodes, res.Seconds, res.Faults, res.Operations, res.Unknown)
	for _, p := range res.Problems {
		fmt.Println("  WRONG", p)
	}
	if res.Kept != "" {
		fmt.Printf("  read %s from the end\n", filepath.Join(res.Kept, "timeline.txt"))
	}
	if out == "" {
		return nil
	}
	f, err := os.OpenFile(out, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(json.NewEncoder(f).Encode(res), f.Close())
}
