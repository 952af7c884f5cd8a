package placement

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
)

// Scope is a width of failure domains. Domains nest: a node lies in one rack, a
// rack in one zone, a zone in one region.
type Scope uint8

// The scopes, from the narrowest.
const (
	ScopeNode Scope = iota
	ScopeRack
	ScopeZone
	ScopeRegion

	scopes = 4
)

func (s Scope) String() string {
	if s < scopes {
		return [...]string{"node", "rack", "zone", "region"}[s]
	}
	return "scope " + strconv.Itoa(int(s))
}

// parts is how many parts of a location "region/zone/rack" name a domain.
func (s Scope) parts() int { return scopes - int(s) }

// Domain names the failure domain of a node at a scope. Where the location does
// not say, the node shares the domain with nobody: that is what keeps domains
// nested, and what a wrong guess would cost is a copy. Such a name begins with a
// slash, which no told domain's does.
func Domain(location string, node catalog.NodeID, s Scope) string {
	if s != ScopeNode {
		start, parts := 0, s.parts()
		for at := 0; at <= len(location); at++ {
			if at < len(location) && location[at] != '/' {
				continue
			}
			if at == start {
				break // an empty part
			}
			if parts--; parts == 0 {
				return location[:at]
			}
			start = at + 1
		}
	}
	return "/" + strconv.FormatUint(uint64(node), 10)
}

// LogShard is a shard that logs may store copies on.
type LogShard struct {
	Shard    logs.ShardID
	Location string
	Weight   float64 // share of the copies; none where it is not above 0
}

// ShardOf is a storage node's shard, without a weight.
func ShardOf(n *catalog.Node) LogShard {
	return LogShard{Shard: logs.MakeShard(catalog.NodeID(n.Id), 0), Location: n.Location}
}

// ErrReplication marks a replication property that no copyset could mean.
var ErrReplication = errors.New("replication property")

// demand is how many domains of a scope a record's copies must lie in.
func demand(r *catalog.Replication, s Scope) int {
	switch s {
	case ScopeNode:
		return int(r.GetNode())
	case ScopeRack:
		return int(r.GetRack())
	case ScopeZone:
		return int(r.GetZone())
	}
	return int(r.GetRegion())
}

// ValidateReplication says what is wrong with a replication property: it must
// ask for something, no more than a copyset can hold, and for no more domains of
// a wide scope than of a narrow one, because each domain has its own copy.
func ValidateReplication(r *catalog.Replication) error {
	narrow, at := 0, ScopeNode
	for s := ScopeNode; s < scopes; s++ {
		d := demand(r, s)
		switch {
		case uint64(d) > logs.CopysetMax || d < 0:
			return fmt.Errorf("%w: %s: %d: a record has at most %d copies", ErrReplication, s, d, logs.CopysetMax)
		case d == 0:
		case narrow != 0 && d > narrow:
			return fmt.Errorf("%w: %s: %d asks for more copies than %s: %d; raise %s to %d", ErrReplication, s, d, at, narrow, at, d)
		default:
			narrow, at = d, s
		}
	}
	if narrow == 0 {
		return fmt.Errorf("%w: no scope is given; write, for example, node: 2", ErrReplication)
	}
	return nil
}

// Copies is how many copies each record has: R.
func Copies(r *catalog.Replication) int {
	n := 0
	for s := ScopeNode; s < scopes; s++ {
		n = max(n, demand(r, s))
	}
	return n
}

// CanReplicate says whether the shards contain a copyset: R of them on different
// nodes, in as many domains of every scope as is asked for. Because domains nest
// and no wide scope asks for more than a narrow one, counting domains scope by
// scope is enough.
func CanReplicate(r *catalog.Replication, among []LogShard) bool {
	return Copies(r) > 0 && newGrid(among).enough(r, func(int) bool { return true })
}

// grid is in which domain each of some shards lies, domains being numbered from
// 0 in the order of their first shard.
type grid struct {
	domain [scopes][]int
	count  [scopes]int // domains
}

func newGrid(shards []LogShard) *grid {
	g := &grid{}
	for s := ScopeNode; s < scopes; s++ {
		g.domain[s] = make([]int, len(shards))
		index := make(map[string]int, len(shards))
		for i, shard := range shards {
			name := Domain(shard.Location, shard.Shard.Node(), s)
			d, ok := index[name]
			if !ok {
				d = len(index)
				index[name] = d
			}
			g.domain[s][i] = d
		}
		g.count[s] = len(index)
	}
	return g
}

// spread counts the domains of a scope that hold one of the chosen shards.
func (g *grid) spread(s Scope, chosen func(i int) bool) int {
	var few [4]uint64
	seen := few[:]
	if g.count[s] > 64*len(few) {
		seen = make([]uint64, g.count[s]/64+1)
	}
	n := 0
	for i, d := range g.domain[s] {
		if seen[d/64]>>(d%64)&1 == 0 && chosen(i) {
			seen[d/64] |= 1 << (d % 64)
			n++
		}
	}
	return n
}

// enough says whether the chosen shards contain a copyset.
func (g *grid) enough(r *catalog.Replication, chosen func(i int) bool) bool {
	return g.missing(r, chosen) == 0
}

// missing is how many more shards, well chosen, would make the chosen contain a
// copyset: nested domains let one shard open a new one at every scope that lacks one.
func (g *grid) missing(r *catalog.Replication, chosen func(i int) bool) int {
	n := 0
	for s := ScopeNode; s < scopes; s++ {
		if d := demand(r, s); d > n {
			n = max(n, d-g.spread(s, chosen))
		}
	}
	return n
}
