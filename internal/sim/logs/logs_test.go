package logs

import (
	"bytes"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/sim"
)

// TestSeeds runs some seeds, each twice with equal traces, the second time with
// the readable trace on. A campaign (go run ./internal/sim/run) runs thousands.
func TestSeeds(t *testing.T) {
	seeds := []uint64{1, 2, 3, 4, 5, 7}
	if testing.Short() {
		seeds = seeds[:2]
	}
	wing := Wing()
	for _, seed := range seeds {
		a := wing.Run(wing.Draw(seed), nil)
		if a.Error != "" {
			t.Fatalf("seed %d: %s\nreplay: go run ./internal/sim/run -wing logs -seed %d", seed, a.Error, seed)
		}
		var trace bytes.Buffer
		if b := wing.Run(wing.Draw(seed), &trace); b.Hash != a.Hash || b.Ops != a.Ops {
			t.Fatalf("seed %d: hashes %s and %s", seed, a.Hash, b.Hash)
		}
		if a.Faults < 3 || a.Ops < opsMin || a.Virtual < sim.Duration(60*time.Second) {
			t.Errorf("seed %d: %d faults, %d operations, %s virtual", seed, a.Faults, a.Ops, time.Duration(a.Virtual))
		}
	}
}
