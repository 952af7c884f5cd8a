package tables

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/sim"
)

// TestSeeds runs some seeds, each twice with equal traces, the second time with
// the readable trace on. A campaign (go run ./internal/sim/run) runs thousands.
func TestSeeds(t *testing.T) {
	seeds := uint64(7)
	if testing.Short() {
		seeds = 4
	}
	wing := Wing()
	for seed := uint64(1); seed <= seeds; seed++ {
		a := wing.Run(wing.Draw(seed), nil)
		if a.Error != "" {
			t.Fatalf("seed %d: %s\nreplay: go run ./internal/sim/run -wing tables -seed %d", seed, a.Error, seed)
		}
		var trace bytes.Buffer
		if b := wing.Run(wing.Draw(seed), &trace); b.Hash != a.Hash || b.Ops != a.Ops {
			t.Fatalf("seed %d: hashes %s and %s", seed, a.Hash, b.Hash)
		}
		if a.Faults < 3 || a.Ops < 500 || a.Virtual < sim.Duration(60*time.Second) {
			t.Errorf("seed %d: %d faults, %d operations, %s virtual", seed, a.Faults, a.Ops, time.Duration(a.Virtual))
		}
	}
}

// TestBeyond runs seeds whose faults exceed what is promised, each twice.
func TestBeyond(t *testing.T) {
	wing := Wing()
	told := 0
	for seed := uint64(1); seed <= 12; seed++ {
		a := wing.Run(wing.Beyond(seed), nil)
		if a.Error != "" {
			t.Fatalf("seed %d: %s\nreplay: go run ./internal/sim/run -wing tables -beyond -seed %d", seed, a.Error, seed)
		}
		if b := wing.Run(wing.Beyond(seed), nil); b.Hash != a.Hash {
			t.Fatalf("seed %d: hashes %s and %s", seed, a.Hash, b.Hash)
		}
		if a.Reached["beyond: a group refuses"] > 0 {
			told++
		}
	}
	if told == 0 {
		t.Error("in none of the seeds a group refused")
	}
}

// TestSilenceBeyondIsFound lets journals lose what they vouched for without a word:
// what was acknowledged is gone, and nobody refuses. The checks must say so.
func TestSilenceBeyondIsFound(t *testing.T) {
	wing := Wing()
	found := 0
	for seed := uint64(1); seed <= 20; seed++ {
		o := wing.Beyond(seed)
		for i := range o.Faults {
			if f := &o.Faults[i]; slices.Contains(beyondKinds, f.Kind) {
				f.Kind, f.Peer = faultVouched, 2
			}
		}
		o.Knobs["silent"] = 1
		if r := wing.Run(o, nil); r.Error != "" {
			found++
		}
	}
	if found < 5 {
		t.Fatalf("%d of 20 worlds that lost acknowledged writes in silence were found", found)
	}
}

func BenchmarkSeed(b *testing.B) {
	wing := Wing()
	seed := uint64(0)
	for b.Loop() {
		seed++
		if r := wing.Run(wing.Draw(seed), nil); r.Error != "" {
			b.Fatalf("seed %d: %s", seed, r.Error)
		}
	}
}
