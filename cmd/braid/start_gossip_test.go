package main

import (
	"testing"
	"time"

	"github.com/alecthomas/kong"
)

// TestFlagsOfTheFailureDetector: what is said reaches the node's configuration, and
// what is not said is the failure detector's own default.
func TestFlagsOfTheFailureDetector(t *testing.T) {
	for _, c := range []struct {
		args                       []string
		interval                   time.Duration
		fanout, threshold, refused int
	}{
		{nil, 50 * time.Millisecond, 4, 0, 13},
		{[]string{"--gossip-interval", "100ms", "--gossip-fanout", "3", "--gossip-threshold", "40", "--gossip-refused-threshold", "15"}, 100 * time.Millisecond, 3, 40, 15},
	} {
		var start startCmd
		p, err := kong.New(&start)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Parse(append([]string{"--data", "d"}, c.args...)); err != nil {
			t.Fatal(err)
		}
		cfg := start.nodeFlags.config()
		if cfg.GossipInterval != c.interval || cfg.GossipFanOut != c.fanout || cfg.GossipThreshold != c.threshold || cfg.GossipRefusedThreshold != c.refused {
			t.Errorf("%v: %v, %d, %d, %d", c.args, cfg.GossipInterval, cfg.GossipFanOut, cfg.GossipThreshold, cfg.GossipRefusedThreshold)
		}
	}
}
