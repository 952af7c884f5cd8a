package logs

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/sim"
	"github.com/braiddb/braid/internal/wire"
)

// Fault is one of this wing's own.
func (c *cluster) Fault(f *sim.Fault) bool {
	t := c.truths[int(uint64(f.X)%uint64(len(c.truths)))]
	m := c.members[(max(f.Node, 1)-1)%len(c.members)]
	if slices.Contains(beyondKinds, f.Kind) {
		return c.exceed(t, f)
	}
	switch f.Kind {
	case faultMove:
		return c.move(t, m)
	case faultDrain:
		return c.drain(m, time.Duration(f.For))
	case faultShape:
		return c.reshape(t)
	case faultTrim:
		return c.trim(t)
	case faultEpochs:
		c.epochs.away = c.w.Now() + time.Duration(f.For)
		return true
	case faultTorn:
		return c.tear(m, int(f.X), time.Duration(f.For))
	case faultFlip:
		return c.flip(m, f.X)
	case faultFlush:
		if !m.n.Up() || m.fatal != nil {
			return false
		}
		m.store.Pressure()
		return true
	case faultMoment:
		return c.await(f)
	case faultReader:
		from := logs.LSNOldest
		if c.w.OneIn(2) {
			from = t.read
		}
		c.newReader(t, from)
		return true
	}
	return false
}

// move has a node take a log over, as a client does that no other node takes.
func (c *cluster) move(t *truth, m *member) bool {
	if !m.n.Up() || m.doors == nil || !t.appended() {
		return false
	}
	m.sequencer.State(&wire.SequencerStateRequest{Log: uint64(t.id), Flags: logs.StateNoRedirect | logs.StateReactivateIfPreempted}, func(*wire.SequencerStateResponse) {})
	c.w.Sometimes("log: reactivated")
	return true
}

// change gives the nodes a new catalog, each a little later.
func (c *cluster) change() {
	for _, m := range c.members {
		c.w.After(c.w.Between(0, time.Second), "catalog", m.hear)
	}
}

// drain has a node take nothing new for a while, if enough others do.
func (c *cluster) drain(m *member, d time.Duration) bool {
	was := c.described(catalog.NodeID(m.n.ID))
	if len(c.nodes) <= int(c.w.Opt.Knob("copies"))+1 || was.GetState() != catalog.NodeState_NODE_STATE_ALIVE {
		return false
	}
	c.set(m, catalog.NodeState_NODE_STATE_DRAINING)
	c.w.After(d, "drained", func() {
		if c.described(catalog.NodeID(m.n.ID)).State == catalog.NodeState_NODE_STATE_DRAINING {
			c.set(m, catalog.NodeState_NODE_STATE_ALIVE)
		}
	})
	return true
}

// reshape changes a log's nodeset.
func (c *cluster) reshape(t *truth) bool {
	size := c.w.Dice().IntN(len(c.members) + 1)
	if size < t.copies() {
		size = 0
	}
	c.version++
	a := &catalog.LogAttributes{NodesetSize: proto.Uint32(uint32(size))}
	tree, _, err := c.tree.Alter(c.version, catalog.LogAlteration{Path: fmt.Sprintf("/log%d", t.id), Set: a})
	if err != nil {
		c.w.Fail("alter log %d: %w", t.id, err)
		return false
	}
	c.tree = tree
	c.change()
	return true
}

// trim trims a log up to some LSN that was read, on all shards, as a client does.
// Appends that have no answer yet may be stored there: a client is told so when it
// sends them again. But an explicit producer of which all is trimmed is one that
// never appended, so that what it waits for is not trimmed.
func (c *cluster) trim(t *truth) bool {
	if t.read.Epoch() == 0 {
		return false
	}
	to := t.read
	if n := uint64(to.ESN()); n > 1 {
		to -= logs.LSN(c.w.Dice().Uint64N(n))
	}
	for payload := range t.open { // the least, in whatever order
		to = min(to, t.begun[payload].known)
	}
	if to.Epoch() == 0 {
		return false
	}
	t.trim = max(t.trim, to)
	for i := range c.members {
		shard := logs.MakeShard(catalog.NodeID(i+1), 0)
		c.request(shard.Node(), rpc.MethodTrim, &wire.TrimRequest{Log: uint64(t.id), Lsn: uint64(to), Shard: uint64(shard)}, new(wire.TrimResponse), time.Second, func(error) {})
	}
	return true
}

// tear has a node crash and lose the end of its journal, synced or not, as long as
// nobody else is in doubt: what it lost has other copies then.
func (c *cluster) tear(m *member, appends int, d time.Duration) bool {
	for _, o := range c.members {
		if o.suspect || !o.n.Alive() || o.store == nil || o.store.Suspect() {
			return false
		}
	}
	if !c.mayLose(m) {
		return false
	}
	m.n.Crash("torn tail", d)
	m.suspect = m.platter.tear(appends) > 0
	m.forgets()
	return true
}
