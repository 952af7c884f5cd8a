package node

import (
	"fmt"
	"reflect"
	"time"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

var _ client.LogTransport = localTransport{}

// StartLog calls what this node serves if it is the one, and sends to it
// otherwise; node 0 is this node, where it serves the method.
func (t localTransport) StartLog(node catalog.NodeID, m rpc.Method, req, resp rpc.Message, deadline time.Time, done func(error)) {
	n := t.n
	if node == n.id.Node || node == 0 {
		if m == rpc.MethodQuery {
			n.beside(func() {
				ctx, cancel := n.asking(deadline)
				defer cancel()
				fill(resp, n.query(ctx, req.(*wire.QueryRequest)))
				done(nil)
			})
			return
		}
		serve, ok := n.logDoor(m)
		if !ok {
			done(fmt.Errorf("node %d does not serve %s now: %w", n.id.Node, m, rpc.ErrUnreachable))
			return
		}
		serve(req, func(r rpc.Message) {
			if !n.dead.Load() {
				fill(resp, r)
				done(nil)
			}
		})
		return
	}
	c, err := t.to(node)
	if err != nil {
		done(err)
		return
	}
	c.Start(deadline, m, req, resp, done)
}

// fill moves an answer, which nobody else holds, to where the caller wants it,
// without encoding or copying what is in it.
func fill(resp, answer rpc.Message) {
	reflect.ValueOf(resp).Elem().Set(reflect.ValueOf(answer).Elem())
}
