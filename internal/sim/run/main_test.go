package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/sim"
	"github.com/braiddb/braid/internal/sim/sometimes"
)

// TestFailedSeedsStayMended runs what once failed: the full options of each
// failure, shrunk, from testdata. A seed alone would not do, since what a seed
// draws changes with the options there are.
func TestFailedSeedsStayMended(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no failures are kept: %v", err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		o := &sim.Options{}
		if err := json.Unmarshal(raw, o); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if r := wingNamed(o.Wing).Run(o, nil); r.Error != "" {
			t.Errorf("%s: %s\nreplay: go run ./internal/sim/run -options internal/sim/run/%s", file, r.Error, file)
		}
	}
}

// TestACampaignReports runs one seed of every wing as a campaign does, and reads
// what it wrote.
func TestACampaignReports(t *testing.T) {
	out := filepath.Join(t.TempDir(), "report.json")
	if code := campaign(&settings{seeds: 1, from: 1, parallel: 2, twice: 1, stop: 1, quiet: true, json: out}); code != 0 {
		t.Fatalf("the campaign ends with %d", code)
	}
	raw, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(raw, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Wings) != len(wings) {
		t.Fatalf("%d wings report, there are %d", len(r.Wings), len(wings))
	}
	for _, w := range r.Wings {
		if w.Seeds != 1 || w.Twice != 1 || w.Ops < 500 || w.Faults < 3 || w.Virtual < sim.Duration(60*time.Second) {
			t.Errorf("wing %s: %+v", w.Wing, w)
		}
	}
	for _, w := range r.Wings {
		reached := 0
		for _, p := range w.Points {
			if !slices.Contains(wingNamed(w.Wing).Rooms, p.Room()) {
				t.Errorf("wing %s lists %q, which is none of its own", w.Wing, p.Name)
			}
			if (p.Times == 0) != slices.Contains(w.Unreached, p.Name) {
				t.Errorf("wing %s: %q was reached %d times, and is among the unreached: %v", w.Wing, p.Name, p.Times, p.Times > 0)
			}
			if p.Times > 0 {
				reached++
			}
		}
		if reached == 0 || len(w.Unreached) == 0 {
			t.Errorf("wing %s: %d points were reached by one seed, %d not", w.Wing, reached, len(w.Unreached))
		}
	}
}

// TestEveryPointBelongsToAWing: a point that no campaign lists is one that nobody
// misses.
func TestEveryPointBelongsToAWing(t *testing.T) {
	for _, p := range sometimes.All() {
		of := 0
		for _, w := range wings {
			if slices.Contains(w.Rooms, p.Room()) {
				of++
			}
		}
		if of != 1 {
			t.Errorf("%q belongs to %d wings", p.Name, of)
		}
	}
}

// TestAFailureIsShrunk breaks a run by an impossible demand and looks how much of
// its schedule is left.
func TestAFailureIsShrunk(t *testing.T) {
	wing := *wingNamed("tables")
	build := wing.Build
	wing.Build = func(w *sim.World) sim.Cluster { return &fragile{build(w), w} }
	for seed := uint64(1); seed < 50; seed++ {
		o := wing.Draw(seed)
		r := wing.Run(o, nil)
		if r.Error == "" || len(o.Faults) < 8 {
			continue
		}
		small := wing.Shrink(r, 25)
		if !strings.Contains(small.Error, "fragile") || len(small.Options.Faults) != 1 || small.Options.Faults[0].Kind != sim.FaultReset {
			t.Fatalf("seed %d: %q is left with %v", seed, small.Error, small.Options.Faults)
		}
		return
	}
	t.Fatal("no seed has a reset")
}

// fragile is a cluster that cannot stand a connection reset.
type fragile struct {
	sim.Cluster
	w *sim.World
}

func (f *fragile) Watch() {
	if f.Cluster.Watch(); f.w.Struck(sim.FaultReset) > 0 {
		f.w.Fail("fragile: a connection was reset")
	}
}
