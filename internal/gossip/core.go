package gossip

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// Config of the failure detector. Zero fields take defaults; doc.go says where
// they come from. All but Interval are counted in intervals or nodes.
type Config struct {
	// Interval between two heartbeats. Default 50 ms.
	Interval time.Duration
	// FanOut is how many nodes are told in each interval. Default 4.
	FanOut int
	// Threshold is how many intervals a node may be silent. Default 3 s more than
	// RefusedThreshold: no pause under three seconds is taken for a death.
	Threshold int
	// RefusedThreshold is how many intervals a node may be silent whose address
	// refuses connections. Default 13.
	RefusedThreshold int
	// ProbeAfter is how many intervals of silence make it worth to look whether its
	// address refuses; repeated every ProbeEvery. Default 5, but no more than
	// RefusedThreshold; 1.
	ProbeAfter, ProbeEvery int
	// SuspectIntervals is how long a node that was silent for too long, and is the
	// same instance, is not trusted after it came back. Default 2 s.
	SuspectIntervals int
}

// ErrConfig says that settings of the failure detector are out of bounds, or
// contradict each other.
var ErrConfig = errors.New("the failure detector cannot work so")

// Bounds of Config.
const (
	IntervalMin = time.Millisecond
	IntervalMax = 10 * time.Second
	FanOutMax   = 128
)

// Validate says what is wrong with what is set: an ErrConfig.
func (c Config) Validate() error {
	switch {
	case c.Interval != 0 && (c.Interval < IntervalMin || c.Interval > IntervalMax):
		return fmt.Errorf("%w: an interval of %s is not between %s and %s", ErrConfig, c.Interval, IntervalMin, IntervalMax)
	case c.FanOut < 0 || c.FanOut > FanOutMax:
		return fmt.Errorf("%w: a fan-out of %d is not between 1 and %d", ErrConfig, c.FanOut, FanOutMax)
	case c.Threshold < 0 || c.RefusedThreshold < 0:
		return fmt.Errorf("%w: a threshold is a number of intervals, 1 or more", ErrConfig)
	}
	if d := c.withDefaults(); d.Threshold < d.RefusedThreshold {
		return fmt.Errorf("%w: a node whose address refuses connections would be given %d intervals of silence, and any other only %d: the first must not be more",
			ErrConfig, d.RefusedThreshold, d.Threshold)
	}
	return nil
}

func (c Config) withDefaults() Config {
	if c.Interval <= 0 {
		c.Interval = 50 * time.Millisecond
	}
	if c.FanOut <= 0 {
		c.FanOut = 4
	}
	if c.RefusedThreshold <= 0 {
		c.RefusedThreshold = 13
	}
	if c.Threshold <= 0 {
		c.Threshold = c.RefusedThreshold + c.intervals(3*time.Second)
	}
	if c.ProbeAfter <= 0 {
		c.ProbeAfter = min(5, c.RefusedThreshold)
	}
	if c.ProbeEvery <= 0 {
		c.ProbeEvery = 1
	}
	if c.SuspectIntervals <= 0 {
		c.SuspectIntervals = c.intervals(2 * time.Second)
	}
	return c
}

func (c Config) intervals(d time.Duration) int { return int((d + c.Interval - 1) / c.Interval) }

// State is what is believed of a node.
type State uint8

// The states, with the numbers that they have in wire.ClusterNode.
const (
	Dead State = iota
	Suspect
	Alive
)

func (s State) String() string { return [...]string{"DEAD", "SUSPECT", "ALIVE"}[s] }

// core is the failure detector of one node. It is told what happens and says what
// to do; see step.
type core struct {
	cfg  Config
	self catalog.NodeID
	rand *rand.Rand

	me       peer   // self: instance, heartbeat, starting, failingOver
	peers    []peer // all others that the catalog has, ascending by id
	selfDesc *catalog.Node
	order    []int  // a shuffled round over peers: whom to tell next
	at       int    // place in order
	sequence uint64 // of messages
	ticks    uint64

	dirty   bool // something in the view differs from the last one
	version uint64
	last    *logs.Cluster
}

// peer is what is known of one node.
type peer struct {
	id          catalog.NodeID
	desc        *catalog.Node
	instance    uint64
	heartbeat   uint32
	silent      int // own intervals since heartbeat grew (G4)
	state       State
	since       time.Duration
	watched     bool // ALIVE before, in this instance: silence makes it a suspect
	trial       int  // SUSPECT: intervals left
	refused     bool // since its heartbeat last grew, its address refused a connection
	starting    bool
	failingOver bool // G3
}

// event is one thing that happened. Exactly one field is set.
type event struct {
	tick     bool
	begin    bool         // the node starts: say so to everybody
	message  *wire.Gossip // from another node
	refused  catalog.NodeID
	nodes    []*catalog.Node // the catalog's, ascending by id; never nil
	starting *bool
	failOver bool // this node is about to stop: say so to everybody
}

// effects are what to do.
type effects struct {
	sends   []send
	probes  []catalog.NodeID // does its address refuse?
	changed bool             // view differs
}

type send struct {
	to  catalog.NodeID
	msg *wire.Gossip
}

func newCore(cfg Config, self catalog.NodeID, incarnation uint64, r *rand.Rand) *core {
	return &core{
		cfg: cfg.withDefaults(), self: self, rand: r,
		me: peer{id: self, instance: incarnation, state: Alive, starting: true},
	}
}

// step takes an event and says what to do about it.
func (c *core) step(now time.Duration, e event) (out effects) {
	switch {
	case e.tick:
		c.tick(now, &out)
	case e.begin:
		c.broadcast(&out, &wire.Gossip{Starting: true})
	case e.message != nil:
		c.receive(now, e.message)
	case e.refused != 0:
		if p := c.peer(e.refused); p != nil && p.state != Dead {
			p.refused = true
			c.judge(now, p)
		}
	case e.nodes != nil:
		c.setNodes(now, e.nodes)
	case e.starting != nil:
		if c.me.starting != *e.starting {
			c.me.starting, c.dirty = *e.starting, true
			c.broadcast(&out, &wire.Gossip{SuspectOver: !c.me.starting})
		}
	case e.failOver:
		c.me.failingOver, c.dirty = true, true
		c.broadcast(&out, &wire.Gossip{})
	}
	out.changed = c.dirty
	return out
}

// tick is one interval: a heartbeat, everybody else a little more silent, and
// news to a few.
func (c *core) tick(now time.Duration, out *effects) {
	c.ticks++
	c.me.heartbeat++
	for i := range c.peers {
		p := &c.peers[i]
		p.silent++
		if p.state == Dead {
			continue
		}
		c.judge(now, p)
		if p.state == Suspect {
			if p.trial--; p.trial <= 0 {
				c.become(now, p, Alive)
			}
		}
		if over := p.silent - c.cfg.ProbeAfter; p.state != Dead && over >= 0 && over%c.cfg.ProbeEvery == 0 {
			out.probes = append(out.probes, p.id)
		}
	}
	msg := c.news(&wire.Gossip{})
	for _, p := range c.targets() {
		out.sends = append(out.sends, send{p, msg})
	}
}

// judge declares a node dead if it has been silent for too long.
func (c *core) judge(now time.Duration, p *peer) {
	if p.silent > c.cfg.Threshold || (p.refused && p.silent > c.cfg.RefusedThreshold) {
		c.become(now, p, Dead)
	}
}

func (c *core) become(now time.Duration, p *peer, s State) {
	if p.state == s {
		return
	}
	if s != Dead && p.failingOver {
		panic("BUG: G3: a node that fails over lives")
	}
	p.state, p.since, c.dirty = s, now, true
	switch s {
	case Suspect:
		p.trial = c.cfg.SuspectIntervals
	case Alive:
		p.watched = true
	}
}

// deadEvery is how often, in ticks, somebody who is dead is told the news as
// well: that is how the halves of a cluster find each other again.
const deadEvery = 4

// targets are the nodes to be told in this interval: those that are not dead in
// turn, so that each is told regularly, in an order drawn anew for each round.
func (c *core) targets() []catalog.NodeID {
	out := make([]catalog.NodeID, 0, c.cfg.FanOut+1)
	if len(c.peers) <= c.cfg.FanOut {
		for i := range c.peers {
			if c.peers[i].state != Dead {
				out = append(out, c.peers[i].id)
			}
		}
	} else {
		for seen := 0; seen < 2*len(c.order) && len(out) < c.cfg.FanOut; seen++ {
			if c.at >= len(c.order) {
				c.shuffle()
			}
			p := &c.peers[c.order[c.at]]
			c.at++
			if p.state != Dead && !contains(out, p.id) {
				out = append(out, p.id)
			}
		}
	}
	if c.ticks%deadEvery == 0 {
		if p := c.anyDead(); p != nil {
			out = append(out, p.id)
		}
	}
	return out
}

// anyDead draws one of the dead.
func (c *core) anyDead() *peer {
	var drawn *peer
	n := 0
	for i := range c.peers {
		if c.peers[i].state != Dead {
			continue
		}
		if n++; c.rand.IntN(n) == 0 {
			drawn = &c.peers[i]
		}
	}
	return drawn
}

func contains(ids []catalog.NodeID, id catalog.NodeID) bool {
	for _, x := range ids {
		if x == id {
			return true
		}
	}
	return false
}

func (c *core) shuffle() {
	c.at = 0
	c.rand.Shuffle(len(c.order), func(i, j int) { c.order[i], c.order[j] = c.order[j], c.order[i] })
}

// broadcast tells everybody. The heartbeat grows, so that what changed is news.
func (c *core) broadcast(out *effects, msg *wire.Gossip) {
	c.me.heartbeat++
	msg = c.news(msg)
	for i := range c.peers {
		out.sends = append(out.sends, send{c.peers[i].id, msg})
	}
}
