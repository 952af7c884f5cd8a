package gossip

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// Deps are what a Host needs of its node.
type Deps struct {
	Self        catalog.NodeID
	Incarnation uint64 // grows with every start of the data directory
	// Mono is time since an arbitrary moment.
	Mono func() time.Duration
	// AfterFunc calls f once d has passed; stop reports whether it kept f from being called.
	AfterFunc func(d time.Duration, f func()) (stop func() bool)
	Rand      *rand.Rand
	// Send sends without waiting; what cannot be sent is dropped. The message is
	// shared and must not be changed.
	Send func(node catalog.NodeID, m *wire.Gossip)
	// Probe finds out, without making the caller wait, whether a node's address
	// refuses connections, and calls refused if so: nothing listens there, so the
	// process is gone. A connection that comes about, or nothing within an
	// interval or two, is no evidence. May be nil: then silence alone decides.
	Probe func(node catalog.NodeID, refused func())
	// Nodes gives the nodes of the catalog as last seen.
	Nodes func() []*catalog.Node
	// OnChange is called after View has become another, once for several changes if
	// they come quickly, and never twice at a time. May be nil.
	OnChange func()
}

// Host runs the failure detector of one node. Its methods may be called from
// anywhere; what it calls it calls without a lock held.
type Host struct {
	cfg     Config
	deps    Deps
	view    atomic.Pointer[logs.Cluster]
	metrics Metrics

	untold atomic.Int32 // changes since OnChange was called last; who makes it 1 calls it

	mu struct {
		sync.Mutex
		core    *core
		started bool
		closed  bool
		due     time.Duration // the tick under way
		stop    func() bool
	}
}

// Metrics of a host. All only grow.
type Metrics struct {
	// Ticks is how many intervals passed.
	Ticks atomic.Uint64
	// Sent is how many messages were given to the transport.
	Sent atomic.Uint64
	// Received is how many messages of other nodes were taken.
	Received atomic.Uint64
	// Probes is how many silent nodes were looked at, whether they refuse.
	Probes atomic.Uint64
	// Refused is how many of them did.
	Refused atomic.Uint64
	// Views is how many times the view became another.
	Views atomic.Uint64
}

// NewHost makes a host. Until Start it sends nothing; it believes of all nodes
// that they are dead, and of itself that it is starting.
func NewHost(cfg Config, d Deps) *Host {
	h := &Host{cfg: cfg.withDefaults(), deps: d}
	h.mu.core = newCore(h.cfg, d.Self, d.Incarnation, d.Rand)
	h.mu.core.step(d.Mono(), event{nodes: h.nodes()})
	h.view.Store(h.mu.core.view())
	return h
}

// nodes are the catalog's, in the order that the core wants.
func (h *Host) nodes() []*catalog.Node {
	nodes := append(make([]*catalog.Node, 0, 4), h.deps.Nodes()...)
	slices.SortFunc(nodes, func(a, b *catalog.Node) int { return cmp.Compare(a.Id, b.Id) })
	return slices.CompactFunc(nodes, func(a, b *catalog.Node) bool { return a.Id == b.Id })
}

// Start tells everybody that this node is up, and begins to tick.
func (h *Host) Start() {
	h.mu.Lock()
	if h.mu.started || h.mu.closed {
		h.mu.Unlock()
		return
	}
	h.mu.started = true
	h.mu.due = h.deps.Mono()
	h.armLocked()
	h.mu.Unlock()
	h.step(event{begin: true})
}

// armLocked sets the timer for the next tick. Ticks keep their rhythm; those that
// came too late are left out, for what they would have counted did not happen.
func (h *Host) armLocked() {
	now := h.deps.Mono()
	h.mu.due += h.cfg.Interval
	if h.mu.due <= now {
		h.mu.due = now + h.cfg.Interval
	}
	h.mu.stop = h.deps.AfterFunc(h.mu.due-now, h.tick)
}

func (h *Host) tick() {
	h.mu.Lock()
	if h.mu.closed {
		h.mu.Unlock()
		return
	}
	h.armLocked()
	h.mu.Unlock()
	h.metrics.Ticks.Add(1)
	h.step(event{tick: true})
}

// Handle takes a message of another node.
func (h *Host) Handle(m *wire.Gossip) {
	h.metrics.Received.Add(1)
	h.step(event{message: m})
}

// NodesChanged says that Deps.Nodes gives something else now.
func (h *Host) NodesChanged() { h.step(event{nodes: h.nodes()}) }

// SetStarting says whether this node is up but not ready to sequence. Everybody
// is told at once; that a node is ready also ends its time as a suspect.
func (h *Host) SetStarting(starting bool) { h.step(event{starting: &starting}) }

// FailOver tells everybody that this node is about to stop, so that they need not
// find out. They hold it for dead from then on, until it is started again.
func (h *Host) FailOver() { h.step(event{failOver: true}) }

// Refused says that a node's address was seen to refuse a connection.
func (h *Host) Refused(node catalog.NodeID) {
	h.metrics.Refused.Add(1)
	h.step(event{refused: node})
}

func (h *Host) step(e event) {
	h.mu.Lock()
	if h.mu.closed || (!h.mu.started && e.nodes == nil && e.starting == nil) {
		h.mu.Unlock()
		return
	}
	out := h.mu.core.step(h.deps.Mono(), e)
	if !h.mu.started {
		out.sends, out.probes = nil, nil
	}
	changed := false
	if out.changed {
		v := h.mu.core.view()
		changed = h.view.Swap(v) != v
	}
	h.mu.Unlock()
	for _, s := range out.sends {
		h.metrics.Sent.Add(1)
		h.deps.Send(s.to, s.msg)
	}
	if h.deps.Probe != nil {
		for _, id := range out.probes {
			h.metrics.Probes.Add(1)
			h.deps.Probe(id, func() { h.Refused(id) })
		}
	}
	if changed {
		h.tell()
	}
}

// tell calls OnChange. Who comes while it runs leaves it to who runs it.
func (h *Host) tell() {
	h.metrics.Views.Add(1)
	if h.deps.OnChange == nil || h.untold.Add(1) > 1 {
		return
	}
	for {
		n := h.untold.Load()
		h.deps.OnChange()
		if h.untold.CompareAndSwap(n, 0) {
			return
		}
	}
}

// View is what is believed of the cluster. It is never changed: as long as it is
// the same pointer, it is the same view.
func (h *Host) View() *logs.Cluster { return h.view.Load() }

// IsolatedIn is the narrowest domain of this node outside of which everybody is
// dead: node, rack, zone or region; empty if there is none.
func (h *Host) IsolatedIn() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.core.isolatedIn()
}

// State gives the rows of the gossip table, ascending by node.
func (h *Host) State() []Row {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.core.rows()
}

// Metrics counts what the host did.
func (h *Host) Metrics() *Metrics { return &h.metrics }

// ClusterState is the view as clients are told it.
func (h *Host) ClusterState() *wire.ClusterStateResponse {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := h.view.Load()
	resp := &wire.ClusterStateResponse{Version: v.Version, AnsweredBy: uint64(h.deps.Self), Isolated: v.Isolated}
	h.mu.core.all(func(p *peer) {
		if p.desc == nil {
			return
		}
		s := p.state
		if p.failingOver {
			s = Dead
		}
		resp.Nodes = append(resp.Nodes, &wire.ClusterNode{
			Node: uint64(p.id), Instance: p.instance, State: uint32(s), Descriptor_: p.desc, Starting: p.starting,
		})
	})
	return resp
}

// Close ends ticking. Nothing is called after it, but for what was under way.
func (h *Host) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mu.closed = true
	if h.mu.stop != nil {
		h.mu.stop()
	}
}
