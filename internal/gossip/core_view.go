package gossip

import (
	"strings"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
)

// view gives what is believed now. The same one as before if nothing differs (G5).
func (c *core) view() *logs.Cluster {
	if c.last != nil && !c.dirty {
		return c.last
	}
	c.dirty = false
	v := &logs.Cluster{Self: c.self, Isolated: c.isolated(), Nodes: make([]logs.ClusterNode, 0, len(c.peers)+1)}
	c.all(func(p *peer) {
		if p.desc != nil {
			v.Nodes = append(v.Nodes, describe(p))
		}
	})
	if c.last != nil && same(c.last, v) {
		return c.last
	}
	c.version++
	v.Version = c.version
	c.last = v
	return v
}

// all visits every node, self among them, ascending by id.
func (c *core) all(f func(*peer)) {
	c.me.desc = c.selfDesc
	told := false
	for i := range c.peers {
		if !told && c.peers[i].id > c.self {
			f(&c.me)
			told = true
		}
		f(&c.peers[i])
	}
	if !told {
		f(&c.me)
	}
}

func same(a, b *logs.Cluster) bool {
	if a.Isolated != b.Isolated || len(a.Nodes) != len(b.Nodes) {
		return false
	}
	for i := range a.Nodes {
		if a.Nodes[i] != b.Nodes[i] {
			return false
		}
	}
	return true
}

// describe puts the catalog's word and the failure detector's together.
func describe(p *peer) logs.ClusterNode {
	return logs.DescribeNode(p.desc, p.instance, p.state == Alive, p.starting, p.failingOver)
}

// isolated says whether more than half of the nodes are dead. Who the catalog has
// given up does not count, unless it lives.
func (c *core) isolated() bool {
	nodes, dead := 0, 0
	c.all(func(p *peer) {
		if p.desc == nil || (p.state == Dead && p.desc.Gone()) {
			return
		}
		nodes++
		if p.state == Dead {
			dead++
		}
	})
	return 2*dead > nodes
}

// domainIsolated says whether everybody outside of this node's domain is dead;
// parts is how many leading parts of a location name a domain: 1 a region, 2 a
// zone, 3 a rack. It is not where there is nobody outside, nor if this node does
// not say where it is.
func (c *core) domainIsolated(parts int) bool {
	if c.selfDesc == nil {
		return false
	}
	own, ok := domain(c.selfDesc.Location, parts)
	if !ok {
		return false
	}
	outside, living := 0, 0
	for i := range c.peers {
		p := &c.peers[i]
		if d, ok := domain(p.desc.Location, parts); ok && d == own {
			continue
		}
		if p.state == Dead && p.desc.Gone() {
			continue
		}
		outside++
		if p.state != Dead {
			living++
		}
	}
	return outside > 0 && living == 0
}

// isolatedIn is the narrowest of this node's domains that is isolated, empty if none
// is; the narrowest of all is the node itself.
func (c *core) isolatedIn() string {
	others, living := 0, 0
	for i := range c.peers {
		p := &c.peers[i]
		if p.state != Dead {
			living++
		}
		if p.state != Dead || !p.desc.Gone() {
			others++
		}
	}
	if others > 0 && living == 0 {
		return "node"
	}
	for i, name := range []string{"rack", "zone", "region"} {
		if c.domainIsolated(3 - i) {
			return name
		}
	}
	return ""
}

// domain is the leading parts of a location.
func domain(location string, parts int) (string, bool) {
	at := 0
	for i := range parts {
		n := strings.IndexByte(location[at:], '/')
		if n < 0 {
			return location, i == parts-1 && at < len(location)
		}
		if i == parts-1 {
			return location[:at+n], n > 0
		}
		at += n + 1
	}
	return "", false
}

// Row is what is known of one node: a row of the gossip table.
type Row struct {
	Node            catalog.NodeID
	Instance        uint64
	State           State
	Since           time.Duration // of the host's clock
	Heartbeat       uint32
	SilentIntervals int
	Refused         bool // its address refuses connections
	Starting        bool
	FailingOver     bool
	Location        string
}

func (c *core) rows() []Row {
	var rows []Row
	c.all(func(p *peer) {
		r := Row{
			Node: p.id, Instance: p.instance, State: p.state, Since: p.since, Heartbeat: p.heartbeat,
			SilentIntervals: p.silent, Refused: p.refused, Starting: p.starting, FailingOver: p.failingOver,
		}
		if p.desc != nil {
			r.Location = p.desc.Location
		}
		rows = append(rows, r)
	})
	return rows
}
