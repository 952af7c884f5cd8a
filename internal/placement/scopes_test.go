package placement

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
)

func TestDomain(t *testing.T) {
	for _, c := range []struct {
		location                   string
		rack, zone, region, domain string
	}{
		{"eu/a/r1", "eu/a/r1", "eu/a", "eu", "/7"},
		{"eu/a", "/7", "eu/a", "eu", "/7"},
		{"eu", "/7", "/7", "eu", "/7"},
		{"", "/7", "/7", "/7", "/7"},
		{"eu//r1", "/7", "/7", "eu", "/7"},
		{"/a/r1", "/7", "/7", "/7", "/7"},
		{"eu/a/r1/u5", "eu/a/r1", "eu/a", "eu", "/7"},
	} {
		for s, want := range map[Scope]string{ScopeNode: c.domain, ScopeRack: c.rack, ScopeZone: c.zone, ScopeRegion: c.region} {
			if got := Domain(c.location, 7, s); got != want {
				t.Errorf("Domain(%q, %s) = %q, want %q", c.location, s, got, want)
			}
		}
	}
}

func TestValidateReplication(t *testing.T) {
	for _, c := range []struct {
		r  *catalog.Replication
		ok bool
	}{
		{&catalog.Replication{Node: 2}, true},
		{&catalog.Replication{Rack: 3}, true},
		{&catalog.Replication{Node: 3, Zone: 2}, true},
		{&catalog.Replication{Node: 127}, true},
		{&catalog.Replication{}, false},
		{&catalog.Replication{Node: 128}, false},
		{&catalog.Replication{Node: 1<<32 - 1}, false},
		{&catalog.Replication{Node: 2, Rack: 3}, false},
		{&catalog.Replication{Rack: 2, Region: 3}, false},
	} {
		err := ValidateReplication(c.r)
		if (err == nil) != c.ok || (err != nil && !errors.Is(err, ErrReplication)) {
			t.Errorf("%s: %v", catalog.FormatReplication(c.r), err)
		}
	}
}

// anyShards makes shards at random places, deep and shallow, some unknown.
func anyShards(rng *rand.Rand, n int) []LogShard {
	depth := 1 + rng.IntN(3)
	var out []LogShard
	for i := range n {
		at := ""
		if rng.IntN(8) > 0 {
			at = fmt.Sprintf("r%d/z%d/k%d", rng.IntN(depth), rng.IntN(2), rng.IntN(2))
			if rng.IntN(6) == 0 {
				at = at[:5]
			}
		}
		out = append(out, LogShard{Shard: logs.MakeShard(catalog.NodeID(i+1), 0), Location: at, Weight: 1})
	}
	return out
}

func anyReplication(rng *rand.Rand) *catalog.Replication {
	for {
		r := &catalog.Replication{Node: uint32(rng.IntN(5)), Rack: uint32(rng.IntN(4)), Zone: uint32(rng.IntN(4)), Region: uint32(rng.IntN(3))}
		if ValidateReplication(r) == nil {
			return r
		}
	}
}

// holdsCopyset looks at every set of R of the shards in the mask.
func holdsCopyset(r *catalog.Replication, shards []LogShard, mask uint) bool {
	copies := Copies(r)
	var try func(from, left int, chosen []LogShard) bool
	try = func(from, left int, chosen []LogShard) bool {
		if left == 0 {
			for s := ScopeNode; s < scopes; s++ {
				domains := map[string]bool{}
				for _, c := range chosen {
					domains[Domain(c.Location, c.Shard.Node(), s)] = true
				}
				if len(domains) < demand(r, s) {
					return false
				}
			}
			return true
		}
		for i := from; i < len(shards); i++ {
			if mask>>i&1 == 1 && try(i+1, left-1, append(chosen, shards[i])) {
				return true
			}
		}
		return false
	}
	return try(0, copies, nil)
}

// TestFMajority compares with the definition, over all scopes and all states: no
// copyset among those that are neither heard nor empty.
func TestFMajority(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	seen := map[FMajority]int{}
	for round := range 6000 {
		shards, r := anyShards(rng, 1+rng.IntN(8)), anyReplication(rng)
		set := NewShardSet(r, shards)
		silent, heard, waiting := uint(0), uint(0), false
		for i, s := range shards {
			state := ShardState(rng.IntN(4))
			set.Set(s.Shard, state)
			switch state {
			case ShardUnheard:
				silent |= 1 << i
				waiting = true
			case ShardUnavailable:
				silent |= 1 << i
			case ShardHeard:
				heard |= 1 << i
			}
		}
		want := FMajorityNonAuthoritative
		switch reached := !holdsCopyset(r, shards, silent); {
		case reached && waiting:
			want = FMajorityIncomplete
		case reached:
			want = FMajorityComplete
		case waiting:
			want = FMajorityNone
		}
		got := set.FMajority()
		if got != want {
			t.Fatalf("round %d: %s over %v states %v: %s, want %s", round, catalog.FormatReplication(r), shards, set.states, got, want)
		}
		seen[got]++
		if can := holdsCopyset(r, shards, heard); set.CanReplicate(ShardHeard) != can {
			t.Fatalf("round %d: %s over %v states %v: can replicate: %v, want %v", round, catalog.FormatReplication(r), shards, set.states, !can, can)
		}
		if can := holdsCopyset(r, shards, 1<<len(shards)-1); CanReplicate(r, shards) != can {
			t.Fatalf("round %d: %s over %v: can replicate: %v, want %v", round, catalog.FormatReplication(r), shards, !can, can)
		}
	}
	for f := FMajorityNone; f <= FMajorityNonAuthoritative; f++ {
		if seen[f] < 100 {
			t.Errorf("%s came up only %d times", f, seen[f])
		}
	}
}
