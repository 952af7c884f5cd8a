package gossip

import (
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/wire"
)

// news completes a message with all that is known of who was heard of lately. One
// message goes to several nodes, so it names no receiver and is never changed.
func (c *core) news(msg *wire.Gossip) *wire.Gossip {
	c.sequence++
	msg.FromNode, msg.Sequence = uint64(c.self), c.sequence
	n := 1
	for i := range c.peers {
		if c.tellsOf(&c.peers[i]) {
			n++
		}
	}
	entries := make([]wire.GossipNode, n) // one allocation for all
	msg.Nodes = make([]*wire.GossipNode, 0, n)
	add := func(p *peer) {
		e := &entries[len(msg.Nodes)]
		e.Node, e.Instance, e.Counter = uint64(p.id), p.instance, p.heartbeat
		e.Starting, e.FailingOver = p.starting, p.failingOver
		msg.Nodes = append(msg.Nodes, e)
	}
	told := false
	for i := range c.peers {
		p := &c.peers[i]
		if !told && p.id > c.self {
			add(&c.me)
			told = true
		}
		if c.tellsOf(p) {
			add(p)
		}
	}
	if !told {
		add(&c.me)
	}
	return msg
}

// tellsOf says whether a node is worth a mention: not one that nobody has heard
// of for so long that all who could be told have been.
func (c *core) tellsOf(p *peer) bool {
	return p.instance != 0 && p.silent <= c.cfg.Threshold
}

// receive takes another node's news.
func (c *core) receive(now time.Duration, m *wire.Gossip) {
	from := catalog.NodeID(m.FromNode)
	sender := c.peer(from)
	if from == c.self || (m.ToNode != 0 && m.ToNode != uint64(c.self)) || sender == nil {
		return // misdirected, or of a node that the catalog does not have (yet)
	}
	// Both lists ascend; one walk suffices. A list that does not ascend, which only
	// another program would send, is understood as far as it does.
	i := 0
	for _, e := range m.Nodes {
		for i < len(c.peers) && uint64(c.peers[i].id) < e.Node {
			i++
		}
		if i == len(c.peers) {
			return
		}
		if p := &c.peers[i]; uint64(p.id) == e.Node {
			c.hear(now, p, e, p.id == from)
			if p.id == from && m.SuspectOver && p.instance == e.Instance && p.state == Suspect {
				c.become(now, p, Alive)
			}
		}
	}
}

// hear takes what is said of one node; direct if the node itself said it.
func (c *core) hear(now time.Duration, p *peer, e *wire.GossipNode, direct bool) {
	if e.Instance < p.instance || e.Instance == 0 {
		return // of a former life
	}
	grew := e.Instance == p.instance && e.Counter > p.heartbeat
	if e.Instance == p.instance && !grew && !e.FailingOver {
		return
	}
	if e.Instance > p.instance {
		// The former life is over, whatever was believed of it.
		c.become(now, p, Dead)
		*p = peer{id: p.id, desc: p.desc, instance: e.Instance, state: Dead, since: p.since}
		c.dirty = true // the view names the instance
	}
	if e.Counter > p.heartbeat { // G1
		p.heartbeat, p.silent, p.refused = e.Counter, 0, false
		if p.starting != e.Starting {
			p.starting, c.dirty = e.Starting, true
		}
	}
	switch {
	case p.failingOver:
	case e.FailingOver:
		p.failingOver = true
		c.become(now, p, Dead)
	case p.state == Dead && (grew || direct): // G2
		if p.watched {
			c.become(now, p, Suspect)
		} else {
			c.become(now, p, Alive)
		}
	}
}

func (c *core) peer(id catalog.NodeID) *peer {
	lo, hi := 0, len(c.peers)
	for lo < hi {
		if mid := (lo + hi) / 2; c.peers[mid].id < id {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < len(c.peers) && c.peers[lo].id == id {
		return &c.peers[lo]
	}
	return nil
}

// setNodes takes the catalog's nodes, ascending by id.
func (c *core) setNodes(now time.Duration, nodes []*catalog.Node) {
	old := c.peers
	c.peers = make([]peer, 0, len(nodes))
	c.selfDesc = nil
	for _, n := range nodes {
		id := catalog.NodeID(n.Id)
		if id == c.self {
			c.selfDesc = n
			continue
		}
		for len(old) > 0 && old[0].id < id {
			old = old[1:]
		}
		if len(old) > 0 && old[0].id == id {
			c.peers = append(c.peers, old[0])
		} else {
			c.peers = append(c.peers, peer{id: id, since: now})
		}
		c.peers[len(c.peers)-1].desc = n
	}
	c.order = c.order[:0]
	for i := range c.peers {
		c.order = append(c.order, i)
	}
	c.shuffle()
	c.dirty = true
}
