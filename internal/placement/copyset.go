package placement

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sort"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
)

// Copysets is from what the copysets of one nodeset are drawn: a table of some
// hundred copysets with the probability of each, such that every shard gets its
// share of the copies. It is never changed, so that logs with the same nodeset
// can share one.
//
// The shares are R · weight ÷ sum, as far as the replication property lets them:
// no node can have more than one copy of a record, and no domain more than leaves
// enough others. To draw R different shards with exactly these inclusion
// probabilities, the shares are laid end to end on a line of length R, domains
// unbroken, and R points a distance of one apart are thrown on it together
// (systematic sampling): a shard whose share is at most one is hit at most once,
// and so is a domain. All that one layout can give is one copyset for each
// interval between two of its marks; the table holds those of several random
// layouts. What breaks the property even so (where domains have shares above one)
// is left out, and the others are weighed again until the shares are right.
//
// Drawing from a table costs the same under every property, and that a shard is
// with few others in copysets makes it unlikely that R failures meet in one.
type Copysets struct {
	replication *catalog.Replication
	copies      int
	shards      []LogShard // of positive weight
	grid        *grid
	upTo        []uint32 // cumulative probability × 2^32; the last is the maximum
	members     []uint8  // copies for each entry: indexes into shards
}

// copysetEntries is about how many entries a table has. More spread a dead
// shard's copies over more of the others; at 256 each of 20 shards is in 25.
const copysetEntries = 256

// NewCopysets makes the table. The error is an *UnderReplicatedError where the
// shards that have a weight contain no copyset.
func NewCopysets(r *catalog.Replication, nodeset []LogShard, rng *rand.Rand) (*Copysets, error) {
	if err := ValidateReplication(r); err != nil {
		return nil, err
	}
	if len(nodeset) > logs.NodesetMax {
		return nil, fmt.Errorf("nodeset of %d shards: at most %d are possible", len(nodeset), logs.NodesetMax)
	}
	c := &Copysets{replication: r, copies: Copies(r)}
	for _, s := range nodeset {
		if s.Weight > 0 && !math.IsInf(s.Weight, 0) {
			c.shards = append(c.shards, s)
		}
	}
	c.grid = newGrid(c.shards)
	if !c.grid.enough(r, func(int) bool { return true }) {
		return nil, underReplicated(r, c.shards)
	}
	root := c.tree()
	want := make([]float64, len(c.shards))
	root.pour(float64(c.copies), want)
	t := &table{c: c, want: want, index: map[string]int{}}
	layouts := max(4, copysetEntries/len(c.shards))
	order := make([]int, 0, len(c.shards))
	for range layouts {
		t.addLayout(root.shuffled(rng, order), 1/float64(layouts))
	}
	t.cover(rng)
	t.weigh()
	t.freeze()
	return c, nil
}

// CopysetPicker draws copysets with dice of its own.
type CopysetPicker struct {
	*Copysets
	rng *rand.Rand
}

// NewCopysetPicker makes a table and a picker that draws from it.
func NewCopysetPicker(r *catalog.Replication, nodeset []LogShard, rng *rand.Rand) (*CopysetPicker, error) {
	c, err := NewCopysets(r, nodeset, rng)
	if err != nil {
		return nil, err
	}
	return &CopysetPicker{c, rng}, nil
}

// Pick is Copysets.Pick.
func (p *CopysetPicker) Pick(avoid func(logs.ShardID) bool, dst []logs.ShardID) ([]logs.ShardID, error) {
	return p.Copysets.Pick(p.rng, avoid, dst)
}

// pickTries is how often the table is asked for a copyset without a shard to be
// avoided, before one is made up from the others.
const pickTries = 6

// Pick appends a copyset without shards that are to be avoided (nil: none are) to
// dst[:0]. The error is an *UnderReplicatedError where none is left.
func (c *Copysets) Pick(rng *rand.Rand, avoid func(logs.ShardID) bool, dst []logs.ShardID) ([]logs.ShardID, error) {
	for range pickTries {
		dice := rng.Uint64()
		dst = c.entry(dice, dst[:0])
		if avoid == nil || !slices.ContainsFunc(dst, avoid) {
			return dst, nil
		}
	}
	return c.compose(rng, avoid, dst[:0])
}

// entry looks a copyset up by dice: the upper half says which, the lower half
// which member comes first, since who is first serves single-copy readers.
func (c *Copysets) entry(dice uint64, dst []logs.ShardID) []logs.ShardID {
	high := uint32(dice >> 32)
	at := sort.Search(len(c.upTo), func(i int) bool { return high <= c.upTo[i] })
	m := c.members[at*c.copies : (at+1)*c.copies]
	first := int(uint64(uint32(dice)) * uint64(len(m)) >> 32)
	for _, i := range m[first:] {
		dst = append(dst, c.shards[i].Shard)
	}
	for _, i := range m[:first] {
		dst = append(dst, c.shards[i].Shard)
	}
	return dst
}

// compose makes a copyset of the shards that are not avoided: in a random order
// by weight, each is taken that leaves the property within reach.
func (c *Copysets) compose(rng *rand.Rand, avoid func(logs.ShardID) bool, dst []logs.ShardID) ([]logs.ShardID, error) {
	allowed := func(i int) bool { return avoid == nil || !avoid(c.shards[i].Shard) }
	if !c.grid.enough(c.replication, allowed) {
		var left []LogShard
		for i, s := range c.shards {
			if allowed(i) {
				left = append(left, s)
			}
		}
		return dst, underReplicated(c.replication, left)
	}
	for _, i := range c.build(rng, allowed, -1) {
		dst = append(dst, c.shards[i].Shard)
	}
	return dst, nil
}

// build composes a copyset of allowed shards, which must contain one, beginning
// with first unless that is negative.
func (c *Copysets) build(rng *rand.Rand, allowed func(int) bool, first int) []int {
	order := make([]int, 0, len(c.shards))
	key := make([]float64, len(c.shards))
	for i := range c.shards {
		key[i] = rng.ExpFloat64() / c.shards[i].Weight
		if i == first {
			key[i] = -1
		}
		if allowed(i) {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case key[a] < key[b]:
			return -1
		case key[a] > key[b]:
			return 1
		}
		return 0
	})
	chosen := make([]bool, len(c.shards))
	in := func(i int) bool { return chosen[i] }
	out := make([]int, 0, c.copies)
	for _, i := range order {
		if len(out) == c.copies {
			break
		}
		chosen[i] = true
		if c.reachable(in, c.copies-len(out)-1) {
			out = append(out, i)
		} else {
			chosen[i] = false
		}
	}
	return out
}

// reachable says whether so many more shards can make a copyset of the chosen.
// Nested domains make it enough that no scope lacks more than that.
func (c *Copysets) reachable(chosen func(int) bool, more int) bool {
	for s := ScopeNode; s < scopes; s++ {
		if need := c.needed(s); need > more && need-c.grid.spread(s, chosen) > more {
			return false
		}
	}
	return true
}

// needed is the demand at a scope; every copy is on a node of its own, whether
// the property says so or a wider scope does.
func (c *Copysets) needed(s Scope) int {
	if s == ScopeNode {
		return c.copies
	}
	return demand(c.replication, s)
}

// branch is a domain with the domains in it, or a shard.
type branch struct {
	shard    int // where there are no children
	children []*branch
	weight   float64
	capacity float64 // copies of one record that fit
}

// tree makes the domains of all scopes into one tree. A domain at a scope that
// needs d domains takes at most R - d + 1 copies.
func (c *Copysets) tree() *branch {
	var grow func(members []int, s int) []*branch
	grow = func(members []int, s int) []*branch {
		var out []*branch
		if s < int(ScopeNode) {
			for _, i := range members {
				out = append(out, &branch{shard: i, weight: c.shards[i].Weight, capacity: 1})
			}
			return out
		}
		byDomain := make([][]int, c.grid.count[s])
		for _, i := range members {
			d := c.grid.domain[s][i]
			byDomain[d] = append(byDomain[d], i)
		}
		for _, d := range byDomain {
			if len(d) > 0 {
				b := newBranch(grow(d, s-1))
				if need := c.needed(Scope(s)); need > 0 {
					b.capacity = min(b.capacity, float64(c.copies-need+1))
				}
				out = append(out, b)
			}
		}
		return out
	}
	all := make([]int, len(c.shards))
	for i := range all {
		all[i] = i
	}
	return newBranch(grow(all, int(ScopeRegion)))
}

func newBranch(children []*branch) *branch {
	b := &branch{children: children}
	for _, ch := range children {
		b.weight += ch.weight
		b.capacity += ch.capacity
	}
	return b
}

// pour divides an amount of copies among the children by weight. Who would get
// more than fits is filled, and the rest divided among the others.
func (b *branch) pour(amount float64, want []float64) {
	if b.children == nil {
		want[b.shard] = amount
		return
	}
	full := make([]bool, len(b.children))
	for {
		left, weight := amount, 0.0
		for i, ch := range b.children {
			if full[i] {
				left -= ch.capacity
			} else {
				weight += ch.weight
			}
		}
		over := false
		for i, ch := range b.children {
			if !full[i] && left*ch.weight > ch.capacity*weight*(1+1e-12) {
				full[i], over = true, true
			}
		}
		if over {
			continue
		}
		for i, ch := range b.children {
			if full[i] {
				ch.pour(ch.capacity, want)
			} else {
				ch.pour(left*ch.weight/weight, want)
			}
		}
		return
	}
}

// shuffled lists the shards in a random order that leaves every domain unbroken.
func (b *branch) shuffled(rng *rand.Rand, to []int) []int {
	if b.children == nil {
		return append(to, b.shard)
	}
	rng.Shuffle(len(b.children), func(i, j int) { b.children[i], b.children[j] = b.children[j], b.children[i] })
	for _, ch := range b.children {
		to = ch.shuffled(rng, to)
	}
	return to
}

// table is a Copysets being made.
type table struct {
	c       *Copysets
	want    []float64 // share of each shard, R in sum
	entries [][]uint8
	weights []float64
	index   map[string]int // of an entry by its members
	members []uint8        // of the copyset at hand
	skewed  bool           // something was left out or added: the shares are off
}

// addLayout adds every copyset that points thrown on one layout can hit.
func (t *table) addLayout(order []int, share float64) {
	ends := make([]float64, len(order))
	marks := make([]float64, 0, len(order)+2)
	marks = append(marks, 0, 1)
	sum := 0.0
	for k, i := range order {
		sum += t.want[i]
		ends[k] = sum
		marks = append(marks, sum-math.Floor(sum))
	}
	slices.Sort(marks)
	for k := 1; k < len(marks); k++ {
		width := marks[k] - marks[k-1]
		if width < 1e-9 {
			continue // the width of rounding
		}
		point := (marks[k] + marks[k-1]) / 2
		members := t.members[:0]
		for j, i := range order {
			if point < ends[j] {
				members = append(members, uint8(i))
				point++
			}
		}
		t.members = members
		t.add(members, width*share)
	}
}

func (t *table) add(members []uint8, weight float64) {
	slices.Sort(members)
	if len(members) != t.c.copies || !t.c.reachable(func(i int) bool { return slices.Contains(members, uint8(i)) }, 0) {
		t.skewed = true
		return
	}
	if at, ok := t.index[string(members)]; ok {
		t.weights[at] += weight
		return
	}
	members = slices.Clone(members)
	t.index[string(members)] = len(t.entries)
	t.entries = append(t.entries, members)
	t.weights = append(t.weights, weight)
}

// cover sees to it that every shard is in some entry, even where all layouts of
// its domain broke the property.
func (t *table) cover(rng *rand.Rand) {
	all := func(int) bool { return true }
	for i := range t.c.shards {
		if slices.ContainsFunc(t.entries, func(e []uint8) bool { return slices.Contains(e, uint8(i)) }) {
			continue
		}
		t.skewed = true
		for range 4 {
			var members []uint8
			for _, m := range t.c.build(rng, all, i) {
				members = append(members, uint8(m))
			}
			t.add(members, t.want[i]/8)
		}
	}
}

// weigh makes the shares right again by iterative scaling: an entry is multiplied
// by how much its members, on the geometric mean, lack. Where the property cannot
// give the shares, it stops as near to them as it got.
func (t *table) weigh() {
	const rounds, close = 400, 0.005
	got := make([]float64, len(t.want))
	for range rounds {
		if !t.skewed {
			return
		}
		clear(got)
		sum := 0.0
		for _, w := range t.weights {
			sum += w
		}
		for e, members := range t.entries {
			t.weights[e] /= sum
			for _, m := range members {
				got[m] += t.weights[e]
			}
		}
		worst := 0.0
		for i := range got {
			worst = max(worst, math.Abs(got[i]/t.want[i]-1))
			got[i] = math.Pow(t.want[i]/got[i], 1/float64(t.c.copies))
		}
		if worst < close {
			return
		}
		for e, members := range t.entries {
			for _, m := range members {
				t.weights[e] *= got[m]
			}
		}
	}
}

func (t *table) freeze() {
	sum, total := 0.0, 0.0
	for _, w := range t.weights {
		total += w
	}
	for e, members := range t.entries {
		sum += t.weights[e]
		t.c.upTo = append(t.c.upTo, uint32(min(sum/total, 1)*math.MaxUint32))
		t.c.members = append(t.c.members, members...)
	}
	t.c.upTo[len(t.c.upTo)-1] = math.MaxUint32
}
