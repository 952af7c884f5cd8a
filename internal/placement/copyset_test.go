package placement

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
)

// grownIn makes per racks each with a node of every weight, two racks to a zone
// and two zones to a region.
func grownIn(racks int, weights ...float64) []LogShard {
	var out []LogShard
	for k := range racks {
		for _, w := range weights {
			out = append(out, LogShard{
				Shard:    logs.MakeShard(catalog.NodeID(len(out)+1), 0),
				Location: fmt.Sprintf("r%d/z%d/k%d", k/4, k/2, k),
				Weight:   w,
			})
		}
	}
	return out
}

func drawn(t *testing.T, r *catalog.Replication, nodeset []LogShard, seed uint64, draws int, avoid func(logs.ShardID) bool) map[logs.ShardID]float64 {
	t.Helper()
	p, err := NewCopysetPicker(r, nodeset, rand.New(rand.NewPCG(seed, 7)))
	if err != nil {
		t.Fatalf("%s: %v", catalog.FormatReplication(r), err)
	}
	got := map[logs.ShardID]float64{}
	valid := map[string]bool{}
	var dst []logs.ShardID
	for range draws {
		if dst, err = p.Pick(avoid, dst); err != nil {
			t.Fatalf("%s: %v", catalog.FormatReplication(r), err)
		}
		if len(dst) != Copies(r) {
			t.Fatalf("%s: copyset %v", catalog.FormatReplication(r), dst)
		}
		key := make([]byte, 0, 16)
		for _, s := range dst {
			got[s]++
			key = append(key, byte(s.Node()))
		}
		if valid[string(key)] {
			continue
		}
		valid[string(key)] = true
		var chosen []LogShard
		for _, s := range dst {
			at := slices.IndexFunc(nodeset, func(l LogShard) bool { return l.Shard == s })
			chosen = append(chosen, nodeset[at])
		}
		if !CanReplicate(r, chosen) {
			t.Fatalf("%s: copyset %v does not satisfy it", catalog.FormatReplication(r), chosen)
		}
	}
	return got
}

// TestCopiesFollowWeights: weights 1:2:4 give copies within 5 % of proportion
// under every replication scope.
func TestCopiesFollowWeights(t *testing.T) {
	const draws = 150_000
	eight := grownIn(8, 1, 2, 4)
	mixed := grownIn(8, 2)
	for i := range mixed {
		mixed[i].Weight = []float64{1, 2, 4}[i%3] // whole racks of one weight
	}
	// Two heavy racks of four: copysets of two and two must not be, though each rack
	// may have two.
	heavy := slices.Concat(grownIn(2, 1, 2, 4), grownIn(2, 3))
	for i := range heavy {
		heavy[i].Shard = logs.MakeShard(catalog.NodeID(i+1), 0)
		heavy[i].Location = fmt.Sprintf("r/z%d/k", []int{0, 0, 0, 1, 1, 1, 2, 3}[i])
	}
	for _, c := range []struct {
		r       *catalog.Replication
		nodeset []LogShard
	}{
		{&catalog.Replication{Node: 4, Rack: 3}, heavy},
		{&catalog.Replication{Node: 2}, grownIn(2, 1, 2, 4)},
		{&catalog.Replication{Node: 3}, eight},
		{&catalog.Replication{Rack: 2}, eight},
		{&catalog.Replication{Rack: 3}, eight},
		{&catalog.Replication{Zone: 2}, eight},
		{&catalog.Replication{Zone: 4}, eight},
		{&catalog.Replication{Region: 2}, eight},
		{&catalog.Replication{Node: 3, Rack: 2}, eight},
		{&catalog.Replication{Node: 3, Rack: 2}, grownIn(2, 1, 2, 4)},
		{&catalog.Replication{Node: 3, Zone: 2}, eight},
		{&catalog.Replication{Node: 3, Region: 2}, eight},
		{&catalog.Replication{Node: 5, Rack: 4, Zone: 3, Region: 2}, eight},
		{&catalog.Replication{Node: 4, Rack: 3}, mixed},
		{&catalog.Replication{Rack: 3}, mixed},
	} {
		got := drawn(t, c.r, c.nodeset, 3, draws, nil)
		sum := 0.0
		for _, s := range c.nodeset {
			sum += s.Weight
		}
		for _, s := range c.nodeset {
			want := draws * float64(Copies(c.r)) * s.Weight / sum
			if off := got[s.Shard]/want - 1; math.Abs(off) > 0.05 {
				t.Errorf("%s: %s of weight %g has %+.1f %% of its share", catalog.FormatReplication(c.r), s.Shard, s.Weight, 100*off)
			}
		}
	}
}

// TestWeightsThatCannotBe: no node takes two copies of a record, whatever its
// weight; the rest follow theirs.
func TestWeightsThatCannotBe(t *testing.T) {
	const draws = 100_000
	got := drawn(t, &catalog.Replication{Node: 2}, grownIn(1, 1, 2, 4), 1, draws, nil)
	for i, want := range []float64{1. / 3, 2. / 3, 1} {
		if share := got[logs.MakeShard(catalog.NodeID(i+1), 0)] / draws; math.Abs(share-want) > 0.01 {
			t.Errorf("node %d is in %.3f of the copysets, want %.3f", i+1, share, want)
		}
	}
}

// TestCopysetsAnywhere throws random clusters at it: every weighted shard is
// used, every copyset is valid, and what is avoided is not used.
func TestCopysetsAnywhere(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	refused, composed := 0, 0
	for round := range 400 {
		shards, r := anyShards(rng, 2+rng.IntN(12)), anyReplication(rng)
		for i := range shards {
			shards[i].Weight = float64(rng.IntN(5))
		}
		var weighted []LogShard
		for _, s := range shards {
			if s.Weight > 0 {
				weighted = append(weighted, s)
			}
		}
		if _, err := NewCopysets(r, shards, rng); err != nil {
			var under *UnderReplicatedError
			if !errors.As(err, &under) || CanReplicate(r, weighted) {
				t.Fatalf("round %d: %s over %v: %v", round, catalog.FormatReplication(r), shards, err)
			}
			refused++
			continue
		}
		got := drawn(t, r, shards, uint64(round), 3000, nil)
		for _, s := range shards {
			if (s.Weight > 0) != (got[s.Shard] > 0) {
				t.Fatalf("round %d: %s over %v: %s was used %g times", round, catalog.FormatReplication(r), shards, s.Shard, got[s.Shard])
			}
		}
		out := weighted[rng.IntN(len(weighted))].Shard
		avoid := func(s logs.ShardID) bool { return s == out }
		if !CanReplicate(r, slices.DeleteFunc(slices.Clone(weighted), func(s LogShard) bool { return s.Shard == out })) {
			p, _ := NewCopysetPicker(r, shards, rng)
			var under *UnderReplicatedError
			if _, err := p.Pick(avoid, nil); !errors.As(err, &under) {
				t.Fatalf("round %d: picked without %s: %v", round, out, err)
			}
			continue
		}
		composed++
		if got := drawn(t, r, shards, uint64(round), 300, avoid); got[out] > 0 {
			t.Fatalf("round %d: %s was to be avoided", round, out)
		}
	}
	if refused < 20 || composed < 50 {
		t.Fatalf("%d refused, %d with one avoided: too few to mean anything", refused, composed)
	}
}

func TestPicksRepeatFromTheSameDice(t *testing.T) {
	draw := func() (out []logs.ShardID) {
		p, err := NewCopysetPicker(&catalog.Replication{Node: 3, Rack: 2}, grownIn(4, 1, 2, 4), rand.New(rand.NewPCG(9, 9)))
		if err != nil {
			t.Fatal(err)
		}
		for i := range 200 {
			c, err := p.Pick(func(s logs.ShardID) bool { return s.Node() == catalog.NodeID(i%12) }, nil)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, c...)
		}
		return out
	}
	if a, b := draw(), draw(); !slices.Equal(a, b) {
		t.Fatal("the same dice gave other copysets")
	}
}

func BenchmarkPick(b *testing.B) {
	for _, racks := range []int{1, 7, 40} {
		b.Run(fmt.Sprint(racks*3), func(b *testing.B) {
			p, err := NewCopysetPicker(&catalog.Replication{Node: 3}, grownIn(racks, 1, 2, 4), rand.New(rand.NewPCG(1, 1)))
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			var dst []logs.ShardID
			for b.Loop() {
				dst, _ = p.Pick(nil, dst)
			}
		})
	}
}

func BenchmarkNewCopysets(b *testing.B) {
	nodeset := grownIn(3, 1, 2, 4)
	rng := rand.New(rand.NewPCG(1, 1))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := NewCopysets(&catalog.Replication{Node: 2}, nodeset, rng); err != nil {
			b.Fatal(err)
		}
	}
}
