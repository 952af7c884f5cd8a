package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// Connect makes a client of the cluster that nodes with these client addresses
// belong to. One that answers is enough: the others are learnt from it. It fails
// when none has answered before the context, or Options.Park, ends.
func Connect(ctx context.Context, addrs []string, o Options) (*Client, error) {
	c, err := Open(addrs, o)
	if err != nil {
		return nil, err
	}
	if _, err := c.readCatalog(ctx); err != nil {
		_ = c.Close() // the error that matters is why it could not connect
		return nil, fmt.Errorf("connect to %v: %w", addrs, err)
	}
	return c, nil
}

// Open is Connect that asks nobody yet. With it a node that is cut off from the others
// answers what it can answer by itself, such as a Query of live tables.
func Open(addrs []string, o Options) (*Client, error) {
	if len(addrs) == 0 {
		return nil, newError(wire.Code_CODE_INVALID, nil, "no address to connect to")
	}
	o = o.withDefaults()
	network := o.Network
	if network == nil {
		network = rpc.TCP{}
	}
	t := newRemote(network, addrs, o)
	c := New(t, o)
	c.owned = t.pool.Close
	return c, nil
}

// remote is the transport over rpc, to the nodes' listeners for clients.
type remote struct {
	pool    *rpc.Pool
	clock   Clock
	attempt time.Duration
	seeds   []string
	nodes   atomic.Pointer[map[NodeID]*rpc.Client] // immutable
	at      atomic.Uint32                          // which address answered last

	mu sync.Mutex // one learns at a time
}

func newRemote(n rpc.Network, seeds []string, o Options) *remote {
	t := &remote{
		pool:    rpc.NewPool(n, rpc.PoolOptions{Role: rpc.RoleClient, Clock: o.Clock}),
		clock:   o.Clock,
		attempt: o.Attempt / 3, // so that one dead node does not cost a refresh its whole time
		seeds:   seeds,
	}
	t.nodes.Store(&map[NodeID]*rpc.Client{})
	return t
}

func (t *remote) Self() NodeID { return 0 }

// errUnknownNode says that the address of a node is not known: nothing was sent.
type errUnknownNode NodeID

func (e errUnknownNode) Error() string {
	return fmt.Sprintf("the address of node %d is not known", uint64(e))
}

func (e errUnknownNode) Is(target error) bool { return target == rpc.ErrUnreachable }

func (t *remote) StartWrite(node NodeID, req *wire.WriteRequest, deadline time.Time, done func(*wire.WriteResponse, error)) {
	c := (*t.nodes.Load())[node]
	if c == nil {
		done(nil, errUnknownNode(node))
		return
	}
	resp := new(wire.WriteResponse)
	c.Start(deadline, rpc.MethodWrite, req, resp, func(err error) { done(resp, err) })
}

func (t *remote) StartRead(node NodeID, req *wire.ReadRequest, deadline time.Time, done func(*wire.ReadResponse, error)) {
	c := (*t.nodes.Load())[node]
	if c == nil {
		done(nil, errUnknownNode(node))
		return
	}
	resp := new(wire.ReadResponse)
	c.Start(deadline, rpc.MethodRead, req, resp, func(err error) { done(resp, err) })
}

func (t *remote) Locations(ctx context.Context, req *wire.LocationsRequest) (*wire.LocationsResponse, error) {
	var resp *wire.LocationsResponse
	err := t.ask(ctx, rpc.MethodLocations, req, func() (rpc.Message, func() *wire.Error) {
		resp = new(wire.LocationsResponse)
		return resp, resp.GetError
	})
	if err != nil {
		return nil, err
	}
	t.learn(resp.Nodes)
	return resp, nil
}

func (t *remote) Catalog(ctx context.Context, req *wire.CatalogRequest) (*wire.CatalogResponse, error) {
	var resp *wire.CatalogResponse
	err := t.ask(ctx, rpc.MethodCatalog, req, func() (rpc.Message, func() *wire.Error) {
		resp = new(wire.CatalogResponse)
		return resp, resp.GetError
	})
	if err != nil {
		return nil, err
	}
	t.learn(resp.GetCatalog().GetNodes())
	return resp, nil
}

// ask sends a request to one node after another until one has an answer that is
// worth having. A request that may have been carried out is not sent to a second
// node if it changes something: its sender decides, by its id.
func (t *remote) ask(ctx context.Context, m rpc.Method, req rpc.Message, make func() (rpc.Message, func() *wire.Error)) error {
	peers := t.peers()
	var last error
	for range peers {
		peer := peers[int(t.at.Load())%len(peers)]
		resp, refusal := make()
		err := t.askOne(ctx, peer, m, req, resp)
		switch {
		case err == nil && !elsewhere(refusal()):
			return nil
		case err == nil:
			last = fromWire(refusal())
			if hinted := (*t.nodes.Load())[NodeID(refusal().LeaderNode)]; hinted != nil && hinted != peer {
				resp, refusal = make()
				if err = t.askOne(ctx, hinted, m, req, resp); err == nil && !elsewhere(refusal()) {
					return nil
				}
			}
		default:
			last = fmt.Errorf("%s: %w", peer.Addr(), err)
		}
		t.at.Add(1)
		if ctx.Err() != nil || (err != nil && uncertain(err) && changes(req)) {
			break
		}
	}
	return last
}

func (t *remote) askOne(ctx context.Context, peer *rpc.Client, m rpc.Method, req, resp rpc.Message) error {
	one, cancel := context.WithCancel(ctx)
	defer cancel()
	defer t.clock.AfterFunc(t.attempt, cancel)()
	err := peer.Call(one, m, req, resp)
	if errors.Is(err, context.Canceled) && ctx.Err() == nil {
		return rpc.ErrDeadline
	}
	return err
}

// elsewhere reports whether another node may know better.
func elsewhere(e *wire.Error) bool {
	switch e.GetCode() {
	case wire.Code_CODE_NOT_LEADER, wire.Code_CODE_NOT_READY, wire.Code_CODE_UNAVAILABLE, wire.Code_CODE_CLOCK_SKEW:
		return true
	}
	return false
}

func changes(req rpc.Message) bool {
	c, ok := req.(*wire.CatalogRequest)
	return ok && c.Action != wire.CatalogRequest_ACTION_READ && c.Action != wire.CatalogRequest_ACTION_READ_LOGS
}

// peers are the addresses given to Connect and the nodes that are known, each
// once.
func (t *remote) peers() []*rpc.Client {
	var peers []*rpc.Client
	for _, addr := range t.seeds {
		peers = append(peers, t.pool.To(addr))
	}
	nodes := *t.nodes.Load()
	for _, id := range slices.Sorted(maps.Keys(nodes)) {
		if !slices.Contains(peers, nodes[id]) {
			peers = append(peers, nodes[id])
		}
	}
	return peers
}

// learn takes the nodes' addresses.
func (t *remote) learn(nodes []*catalog.Node) {
	t.mu.Lock()
	defer t.mu.Unlock()
	known := *t.nodes.Load()
	next, changed := maps.Clone(known), false
	for _, n := range nodes {
		if c := next[NodeID(n.Id)]; n.ClientAddr != "" && (c == nil || c.Addr() != n.ClientAddr) {
			next[NodeID(n.Id)] = t.pool.To(n.ClientAddr)
			changed = true
		}
	}
	if changed {
		t.nodes.Store(&next)
	}
}
