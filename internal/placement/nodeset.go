package placement

import (
	"fmt"
	"math"
	"slices"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
)

// UnderReplicatedError says that the shards at hand hold no copyset.
type UnderReplicatedError struct {
	Replication *catalog.Replication
	Shards      int            // how many there are
	Domains     map[string]int // of each scope asked for, how many domains they lie in
}

// Error says what is missing.
func (e *UnderReplicatedError) Error() string {
	in := ""
	for s := ScopeNode + 1; s < scopes; s++ {
		if n, asked := e.Domains[s.String()]; asked {
			in += fmt.Sprintf(", in %d %ss", n, s)
		}
	}
	return fmt.Sprintf("replication %s is not to be had on the %d storage nodes there are%s: add storage nodes, or ask for fewer copies (braid log alter)",
		catalog.FormatReplication(e.Replication), e.Shards, in)
}

func underReplicated(r *catalog.Replication, among []LogShard) error {
	g := newGrid(among)
	e := &UnderReplicatedError{Replication: r, Shards: len(among), Domains: map[string]int{}}
	for s := ScopeNode; s < scopes; s++ {
		if demand(r, s) > 0 {
			e.Domains[s.String()] = g.count[s]
		}
	}
	return e
}

// NodesetSizeDefault is the size of a nodeset where nobody asked for one.
func NodesetSizeDefault(r *catalog.Replication) int { return min(max(3*Copies(r), 8), logs.NodesetMax) }

// weightDrift is by how much of itself a weight may differ before a nodeset that
// is otherwise the same counts as another.
const weightDrift = 0.05

// SelectNodeset chooses target shards for a log (0: the default size), or all
// there are, ascending; more than target where the replication property needs
// more. Every node that takes new copies and has a weight is eligible, alive or
// not: a nodeset outlives a restart.
//
// Shards are ranked within each domain by a hash of log and shard, and taken one
// per domain in turn, at the widest scope asked for first and within each domain
// at the next one. So domains get shares that differ by one at most where they
// have the nodes, and a node that comes or goes changes one member at most for each
// scope wider than the node that is asked for (one if there is none).
// Weights do not enter here, but when a copyset is picked: were they used twice,
// a heavy node would get the square of its share.
//
// Where the choice differs from old in nothing but weights, and in those by a
// twentieth at most, old is returned, so that noise makes no new epoch.
func SelectNodeset(c *logs.Cluster, r *catalog.Replication, target int, old []LogShard, seed uint64) ([]LogShard, error) {
	if err := ValidateReplication(r); err != nil {
		return nil, err
	}
	var all []LogShard
	for i := range c.Nodes {
		n := &c.Nodes[i]
		if n.Storage && n.Writable && n.StorageWeight > 0 {
			all = append(all, LogShard{Shard: logs.MakeShard(n.ID, 0), Location: n.Location, Weight: n.StorageWeight})
		}
	}
	if !CanReplicate(r, all) {
		return nil, underReplicated(r, all)
	}
	if target <= 0 {
		target = NodesetSizeDefault(r)
	}
	target = max(min(target, len(all), logs.NodesetMax), Copies(r))
	chosen := takeRanked(all, rank(all, r, seed), r, target)
	slices.SortFunc(chosen, func(a, b LogShard) int { return compare(a.Shard, b.Shard) })
	if sameNodeset(chosen, old) {
		return old, nil
	}
	return chosen, nil
}

func compare(a, b logs.ShardID) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// takeRanked takes the shards that the replication property cannot do without,
// each the first in rank that opens a domain still asked for, and then by rank.
func takeRanked(all []LogShard, ranked []int, r *catalog.Replication, target int) []LogShard {
	g := newGrid(all)
	taken := make([]bool, len(all))
	in := func(i int) bool { return taken[i] }
	var out []LogShard
	for s := int(ScopeRegion); s >= int(ScopeNode); s-- {
		missing := demand(r, Scope(s)) - g.spread(Scope(s), in)
		for _, i := range ranked {
			if missing <= 0 {
				break
			}
			if before := g.spread(Scope(s), in); !taken[i] {
				taken[i] = true
				if g.spread(Scope(s), in) == before {
					taken[i] = false
					continue
				}
				out = append(out, all[i])
				missing--
			}
		}
	}
	for _, i := range ranked {
		if len(out) >= target {
			break
		}
		if !taken[i] {
			taken[i] = true
			out = append(out, all[i])
		}
	}
	return out
}

// rank orders shards: at the widest scope that is asked for, the first of every
// domain, then the second of every domain and so on, each round by hash; which is
// first in a domain is found the same way at the next scope.
func rank(all []LogShard, r *catalog.Replication, seed uint64) []int {
	hash := make([]uint64, len(all))
	members := make([]int, len(all))
	for i := range all {
		members[i] = i
		hash[i] = mix(seed, uint64(all[i].Shard))
	}
	return rankWithin(newGrid(all), r, hash, members, ScopeRegion)
}

func rankWithin(g *grid, r *catalog.Replication, hash []uint64, members []int, s Scope) []int {
	for s > ScopeNode && demand(r, s) == 0 {
		s--
	}
	byHash := func(a, b int) int {
		switch {
		case hash[a] < hash[b]:
			return -1
		case hash[a] > hash[b]:
			return 1
		}
		return a - b
	}
	if s == ScopeNode {
		out := slices.Clone(members)
		slices.SortFunc(out, byHash)
		return out
	}
	domains := make([][]int, g.count[s])
	for _, i := range members {
		d := g.domain[s][i]
		domains[d] = append(domains[d], i)
	}
	rounds := make([][]int, 0, len(members))
	for _, d := range domains {
		if len(d) == 0 {
			continue
		}
		for n, i := range rankWithin(g, r, hash, d, s-1) {
			if n == len(rounds) {
				rounds = append(rounds, nil)
			}
			rounds[n] = append(rounds[n], i)
		}
	}
	var out []int
	for _, round := range rounds {
		slices.SortFunc(round, byHash)
		out = append(out, round...)
	}
	return out
}

func sameNodeset(a, b []LogShard) bool {
	return slices.EqualFunc(a, b, func(x, y LogShard) bool {
		return x.Shard == y.Shard && x.Location == y.Location && math.Abs(x.Weight-y.Weight) <= weightDrift*x.Weight
	})
}

// mix makes one well-spread number of two (the finalizer of splitmix64, twice).
func mix(a, b uint64) uint64 {
	for _, v := range [...]uint64{a, b} {
		b = (b ^ v) + 0x9e3779b97f4a7c15
		b = (b ^ b>>30) * 0xbf58476d1ce4e5b9
		b = (b ^ b>>27) * 0x94d049bb133111eb
		b ^= b >> 31
	}
	return b
}
