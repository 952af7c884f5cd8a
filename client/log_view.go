package client

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// clusterView is what the client believes of the cluster: what some node's failure
// detector said lately. It is asked for when it is needed and older than
// viewFresh, and when a node was not what it should be.
type clusterView struct {
	current atomic.Pointer[logs.Cluster] // nil: never heard
	checked atomic.Int64                 // unix nanoseconds of the last answer

	mu struct {
		sync.Mutex
		asking  bool
		waiters []func()
		version uint64
	}
}

const (
	viewFresh = 10 * time.Second
	// viewAsks is how many nodes are asked for a view until one has an answer and
	// sees a majority.
	viewAsks = 3
)

// view gives what is believed now, nil if nothing was heard yet; what is old is
// asked for again, behind the caller's back.
func (c *Client) view() *logs.Cluster {
	v := c.logs.view.current.Load()
	if v != nil && c.opts.Clock.Now().UnixNano()-c.logs.view.checked.Load() > int64(viewFresh) {
		c.refreshView(nil)
	}
	return v
}

// refreshView asks for a view; then, if any, is called when there is an answer, or
// nobody who was asked had one. One asks at a time.
func (c *Client) refreshView(then func()) {
	w := &c.logs.view
	w.mu.Lock()
	if then != nil {
		w.mu.waiters = append(w.mu.waiters, then)
	}
	if w.mu.asking {
		w.mu.Unlock()
		return
	}
	w.mu.asking = true
	w.mu.Unlock()
	c.askView(viewAsks, 0)
}

// askView asks a node, 0 for any, and others if that one knows nothing.
func (c *Client) askView(asks int, node NodeID) {
	if c.logTransport == nil || c.closed.Load() {
		c.viewAnswered(nil)
		return
	}
	resp := new(wire.ClusterStateResponse)
	deadline := c.opts.Clock.Now().Add(c.opts.Attempt / viewAsks)
	c.logTransport.StartLog(node, rpc.MethodClusterState, &wire.ClusterStateRequest{}, resp, deadline, func(err error) {
		if err == nil && len(resp.Nodes) > 0 && (!resp.Isolated || asks <= 1) {
			c.viewAnswered(resp)
			return
		}
		if asks <= 1 {
			c.viewAnswered(nil)
			return
		}
		c.askView(asks-1, c.someoneBut(NodeID(resp.AnsweredBy)))
	})
}

// someoneBut draws a node of the last view that is held for alive.
func (c *Client) someoneBut(not NodeID) NodeID {
	v := c.logs.view.current.Load()
	if v == nil {
		return 0
	}
	var living []NodeID
	for i := range v.Nodes {
		if n := &v.Nodes[i]; n.Alive && n.ID != not {
			living = append(living, n.ID)
		}
	}
	if len(living) == 0 {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return living[c.mu.rand.IntN(len(living))]
}

func (c *Client) viewAnswered(resp *wire.ClusterStateResponse) {
	w := &c.logs.view
	w.mu.Lock()
	if resp != nil {
		v := &logs.Cluster{Self: c.transport.Self(), Isolated: resp.Isolated, Nodes: make([]logs.ClusterNode, 0, len(resp.Nodes))}
		for _, n := range resp.Nodes {
			if n.Descriptor_ != nil {
				v.Nodes = append(v.Nodes, logs.DescribeNode(n.Descriptor_, n.Instance, n.State == stateAlive, n.Starting, false))
			}
		}
		w.mu.version++
		v.Version = w.mu.version
		w.current.Store(v)
		w.checked.Store(c.opts.Clock.Now().UnixNano())
	}
	waiters := w.mu.waiters
	w.mu.waiters, w.mu.asking = nil, false
	w.mu.Unlock()
	for _, then := range waiters {
		then()
	}
}

// stateAlive is the failure detector's word for a node that lives, in ClusterNode.
const stateAlive = 2

// awaitView gives a view, a fresh one if it is asked for, and waits for it.
func (c *Client) awaitView(ctx context.Context, fresh bool) (*logs.Cluster, error) {
	if v := c.view(); v != nil && !fresh {
		return v, nil
	}
	heard := make(chan struct{})
	c.refreshView(func() { close(heard) })
	select {
	case <-heard:
	case <-ctx.Done():
		return nil, newError(wire.Code_CODE_CANCELED, ctx.Err(), "waiting for a view of the cluster: %v", ctx.Err())
	}
	if v := c.logs.view.current.Load(); v != nil {
		return v, nil
	}
	return nil, newError(wire.Code_CODE_UNAVAILABLE, nil, "no node could say who is in the cluster")
}
