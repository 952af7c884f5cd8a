package gossip

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/catalog"
)

func TestSettingsAreChecked(t *testing.T) {
	for _, c := range []struct {
		Config
		good bool
	}{
		{Config{}, true},
		{Config{Interval: time.Second, FanOut: 1, Threshold: 2, RefusedThreshold: 1}, true},
		{Config{Threshold: 13}, true},
		{Config{Threshold: 12}, false}, // below the default of the other
		{Config{Threshold: 12, RefusedThreshold: 12}, true},
		{Config{RefusedThreshold: 1000}, true}, // the other is more by default
		{Config{Interval: time.Microsecond}, false},
		{Config{Interval: -time.Second}, false},
		{Config{Interval: time.Minute}, false},
		{Config{FanOut: -1}, false},
		{Config{FanOut: FanOutMax + 1}, false},
		{Config{Threshold: -1}, false},
		{Config{RefusedThreshold: -1}, false},
	} {
		err := c.Validate()
		if (err == nil) != c.good || (err != nil && !errors.Is(err, ErrConfig)) {
			t.Errorf("%+v: %v", c.Config, err)
		}
	}
	if c := (Config{RefusedThreshold: 2}).withDefaults(); c.ProbeAfter > c.RefusedThreshold {
		t.Errorf("with a threshold of 2 intervals it is probed after %d", c.ProbeAfter)
	}
}

// TestIsolatedIn kills the nodes outside of ever narrower domains.
func TestIsolatedIn(t *testing.T) {
	nodes := []*catalog.Node{
		{Id: 1, Location: "r/z/a"}, {Id: 2, Location: "r/z/a"}, {Id: 3, Location: "r/z/b"}, {Id: 4, Location: "r/y/a"}, {Id: 5, Location: "q/z/a"},
	}
	c := newCore(Config{}, 1, 1, rand.New(rand.NewPCG(1, 1)))
	c.step(0, event{nodes: nodes})
	for i := range c.peers {
		c.peers[i].state = Alive
	}
	for _, want := range []struct {
		dies catalog.NodeID
		in   string
	}{{0, ""}, {5, "region"}, {4, "zone"}, {3, "rack"}, {2, "node"}} {
		if p := c.peer(want.dies); p != nil {
			p.state = Dead
		}
		if got := c.isolatedIn(); got != want.in {
			t.Errorf("with %d dead too it is isolated in %q, not %q", want.dies, got, want.in)
		}
	}
	if alone := newCore(Config{}, 1, 1, rand.New(rand.NewPCG(1, 1))); alone.isolatedIn() != "" {
		t.Error("a cluster of one is isolated")
	}
}
