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

func storageCluster(locations ...string) *logs.Cluster {
	c := &logs.Cluster{}
	for i, l := range locations {
		c.Nodes = append(c.Nodes, logs.ClusterNode{ID: catalog.NodeID(i + 1), Location: l, Alive: true, Storage: true, Writable: true, StorageWeight: 1})
	}
	return c
}

func racks(n, each int) []string {
	var out []string
	for i := range n * each {
		out = append(out, fmt.Sprintf("eu/a/k%d", i%n))
	}
	return out
}

func mustSelect(t *testing.T, c *logs.Cluster, r *catalog.Replication, target int, old []LogShard, seed uint64) []LogShard {
	t.Helper()
	set, err := SelectNodeset(c, r, target, old, seed)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.IsSortedFunc(set, func(a, b LogShard) int { return compare(a.Shard, b.Shard) }) || !CanReplicate(r, set) {
		t.Fatalf("%s: nodeset %v", catalog.FormatReplication(r), set)
	}
	return set
}

func left(a, b []LogShard) (n int) {
	for _, s := range a {
		if !slices.ContainsFunc(b, func(o LogShard) bool { return o.Shard == s.Shard }) {
			n++
		}
	}
	return n
}

func TestNodesetIsWhatThereIs(t *testing.T) {
	c := storageCluster("", "", "", "", "")
	c.Nodes[1].Writable = false
	c.Nodes[2].Storage = false
	c.Nodes[3].StorageWeight = 0
	c.Nodes[4].Alive = false // will be back
	set := mustSelect(t, c, &catalog.Replication{Node: 2}, 0, nil, 1)
	if len(set) != 2 || set[0].Shard.Node() != 1 || set[1].Shard.Node() != 5 {
		t.Fatalf("nodeset %v", set)
	}
	var under *UnderReplicatedError
	if _, err := SelectNodeset(c, &catalog.Replication{Node: 3}, 0, nil, 1); !errors.As(err, &under) || under.Shards != 2 {
		t.Fatalf("three copies on two nodes: %v", err)
	}
	if _, err := SelectNodeset(c, &catalog.Replication{}, 0, nil, 1); !errors.Is(err, ErrReplication) {
		t.Fatalf("no replication at all: %v", err)
	}
}

// TestNodesetSpreads: domains of the widest scope asked for differ by one at most.
func TestNodesetSpreads(t *testing.T) {
	c := storageCluster(racks(4, 6)...)
	for seed := range uint64(300) {
		for _, target := range []int{3, 8, 10, 13} {
			set := mustSelect(t, c, &catalog.Replication{Node: 3, Rack: 2}, target, nil, seed)
			per := map[string]int{}
			for _, s := range set {
				per[s.Location]++
			}
			low, high := math.MaxInt, 0
			for k := range 4 {
				n := per[fmt.Sprintf("eu/a/k%d", k)]
				low, high = min(low, n), max(high, n)
			}
			if len(set) != target || high-low > 1 {
				t.Fatalf("log %d, target %d: %v", seed, target, per)
			}
		}
	}
}

// TestNodesetsShareTheLoad: with the copysets' weights, the nodes' shares of all
// logs' bytes are near the shares of their weights.
func TestNodesetsShareTheLoad(t *testing.T) {
	c := storageCluster(racks(1, 30)...)
	total := 0.0
	for i := range c.Nodes {
		c.Nodes[i].StorageWeight = float64(1 + i%2)
		total += c.Nodes[i].StorageWeight
	}
	const all = 4000
	load := map[logs.ShardID]float64{}
	for seed := range uint64(all) {
		set := mustSelect(t, c, &catalog.Replication{Node: 2}, 10, nil, seed)
		sum := 0.0
		for _, s := range set {
			sum += s.Weight
		}
		for _, s := range set {
			load[s.Shard] += s.Weight / sum
		}
	}
	for _, n := range c.Nodes {
		if off := load[logs.MakeShard(n.ID, 0)]/(all*n.StorageWeight/total) - 1; math.Abs(off) > 0.12 {
			t.Errorf("node %d of weight %g has %+.0f %% of its share", n.ID, n.StorageWeight, 100*off)
		}
	}
}

// TestNodesetIsStable: a node that joins replaces one member at most (for each
// scope that is asked for), and comes to have its share; one that leaves changes nothing where it was not a member.
func TestNodesetIsStable(t *testing.T) {
	for _, r := range []*catalog.Replication{{Node: 2}, {Node: 3, Rack: 2}, {Node: 4, Rack: 3, Region: 2}} {
		rng := rand.New(rand.NewPCG(4, 4))
		bound, more, steps := 1, 0, 0
		if r.Region > 0 {
			bound = 2
		}
		for seed := range uint64(100) {
			places := []string{"a/z/1", "a/z/2", "b/z/3", "b/z/4", "a/z/1", "b/z/3"}
			grown := 0
			set := mustSelect(t, storageCluster(places...), r, 6, nil, seed)
			for len(places) < 24 {
				places = append(places, fmt.Sprintf("%c/z/%d", 'a'+rng.IntN(3), rng.IntN(8)))
				next := mustSelect(t, storageCluster(places...), r, 6, set, seed)
				if gone := left(set, next); gone > bound || len(next) != 6 {
					t.Fatalf("%s, log %d: from %v to %v", catalog.FormatReplication(r), seed, set, next)
				} else {
					grown += gone
					steps++
					if gone > 1 {
						more++
					}
				}
				set = next
			}
			if grown == 0 {
				t.Fatalf("%s, log %d: never got a new node", catalog.FormatReplication(r), seed)
			}
			c := storageCluster(places...)
			for i := range c.Nodes {
				if left([]LogShard{{Shard: logs.MakeShard(c.Nodes[i].ID, 0)}}, set) == 1 {
					c.Nodes[i].Writable = false
					break
				}
			}
			if next := mustSelect(t, c, r, 6, nil, seed); left(set, next) > 0 {
				t.Fatalf("%s, log %d: one that was no member left, and %v became %v", catalog.FormatReplication(r), seed, set, next)
			}
		}
		if more*20 > steps {
			t.Errorf("%s: %d of %d nodes that came replaced more than one member", catalog.FormatReplication(r), more, steps)
		}
	}
}

func TestNoiseInWeightsMakesNoNodeset(t *testing.T) {
	c := storageCluster("", "", "")
	old := mustSelect(t, c, &catalog.Replication{Node: 2}, 0, nil, 1)
	c.Nodes[0].StorageWeight = 1.04
	if set := mustSelect(t, c, &catalog.Replication{Node: 2}, 0, old, 1); set[0].Weight != 1 {
		t.Fatalf("4 %% more made it %v", set)
	}
	c.Nodes[0].StorageWeight = 2
	if set := mustSelect(t, c, &catalog.Replication{Node: 2}, 0, old, 1); set[0].Weight != 2 {
		t.Fatalf("twice as much left it %v", set)
	}
}
