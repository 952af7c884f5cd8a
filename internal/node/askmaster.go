package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// masterCall is one request to the master's leader, wherever that is.
type masterCall struct {
	method rpc.Method
	req    rpc.Message
	local  func()             // serves it here
	remote func() rpc.Message // a new, empty response
	failed func() *wire.Error // of the response that came last; nil if it succeeded
}

// masterAttempt bounds one try at one node, masterPause separates rounds over all of them.
const (
	masterAttempt = time.Second
	masterPause   = 50 * time.Millisecond
)

// askMaster asks the node that led the master's group last, follows hints, and
// goes round the others until one serves the request or ctx ends.
func (n *Node) askMaster(ctx context.Context, c masterCall) error {
	var last error = errors.New("no master is known")
	next := n.masterLeader.Load()
	for round := 0; ; round++ {
		candidates := n.addresses.masterNodes()
		if next == 0 && len(candidates) > 0 {
			next = uint64(candidates[round%len(candidates)])
		}
		if next != 0 {
			hint, err := n.askOne(ctx, catalog.NodeID(next), c)
			if err == nil {
				n.masterLeader.Store(next)
				return nil
			}
			last = fmt.Errorf("master on node %d: %w", next, err)
			if hint != 0 && hint != next {
				next = hint
				if err := n.sleep(ctx, masterPause/5); err == nil {
					continue
				}
			}
			next = 0
		}
		if err := n.sleep(ctx, masterPause); err != nil {
			return fmt.Errorf("%w (last: %w)", err, last)
		}
	}
}

// errNotServed says that the node asked does not lead the master's group, or not yet.
var errNotServed = errors.New("does not serve now")

func (n *Node) askOne(ctx context.Context, node catalog.NodeID, c masterCall) (hint uint64, err error) {
	if node == n.id.Node {
		c.local()
	} else {
		addr := n.addresses.rpc(node)
		if addr == "" {
			return 0, rpc.ErrUnreachable
		}
		attempt, cancel := context.WithTimeout(ctx, masterAttempt)
		err := n.pool.To(addr).Call(attempt, c.method, c.req, c.remote())
		cancel()
		if err != nil {
			return 0, err
		}
	}
	e := c.failed()
	if e == nil {
		return 0, nil
	}
	switch e.Code {
	case wire.Code_CODE_NOT_LEADER, wire.Code_CODE_NOT_READY:
		return e.LeaderNode, fmt.Errorf("%w: %s", errNotServed, e.Message)
	}
	return 0, nil // an answer, though not the one hoped for
}

// sleep waits for d on the node's clock, or until ctx or the node ends.
func (n *Node) sleep(ctx context.Context, d time.Duration) error {
	woke := make(chan struct{})
	stop := n.deps.AfterFunc(d, func() { close(woke) })
	select {
	case <-woke:
		return nil
	case <-ctx.Done():
		stop()
		return ctx.Err()
	case <-n.ctx.Done():
		stop()
		return n.ctx.Err()
	}
}
