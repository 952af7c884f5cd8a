package node

import (
	"context"
	"fmt"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// localTransport is the client transport of the front ends in this process: a
// request for a tablet that is led here is a function call and encodes nothing,
// any other goes over rpc.
type localTransport struct{ n *Node }

// Self is this node.
func (t localTransport) Self() catalog.NodeID { return t.n.id.Node }

// StartWrite calls straight into the tablet if the node is this one.
func (t localTransport) StartWrite(node catalog.NodeID, req *wire.WriteRequest, deadline time.Time, done func(*wire.WriteResponse, error)) {
	if node == t.n.id.Node {
		t.n.write(req, deadline, func(resp *wire.WriteResponse) { done(resp, nil) })
		return
	}
	c, err := t.to(node)
	if err != nil {
		done(nil, err)
		return
	}
	resp := new(wire.WriteResponse)
	c.Start(deadline, rpc.MethodWrite, req, resp, func(err error) { done(resp, err) })
}

// StartRead calls straight into the tablet if the node is this one.
func (t localTransport) StartRead(node catalog.NodeID, req *wire.ReadRequest, deadline time.Time, done func(*wire.ReadResponse, error)) {
	if node == t.n.id.Node {
		done(t.n.read(req), nil)
		return
	}
	c, err := t.to(node)
	if err != nil {
		done(nil, err)
		return
	}
	resp := new(wire.ReadResponse)
	c.Start(deadline, rpc.MethodRead, req, resp, func(err error) { done(resp, err) })
}

func (t localTransport) to(node catalog.NodeID) (*rpc.Client, error) {
	addr := t.n.addresses.rpc(node)
	if addr == "" {
		return nil, fmt.Errorf("node %d: %w", node, rpc.ErrUnreachable)
	}
	return t.n.pool.To(addr), nil
}

// Locations asks the master's leader.
func (t localTransport) Locations(ctx context.Context, req *wire.LocationsRequest) (*wire.LocationsResponse, error) {
	resp := new(wire.LocationsResponse)
	err := t.n.askMaster(ctx, masterCall{
		method: rpc.MethodLocations, req: req,
		local:  func() { resp = t.n.serveLocations(req) },
		remote: func() rpc.Message { resp = new(wire.LocationsResponse); return resp },
		failed: func() *wire.Error { return resp.Error },
	})
	return resp, err
}

// Catalog asks the master's leader.
func (t localTransport) Catalog(ctx context.Context, req *wire.CatalogRequest) (*wire.CatalogResponse, error) {
	resp := new(wire.CatalogResponse)
	err := t.n.askMaster(ctx, masterCall{
		method: rpc.MethodCatalog, req: req,
		local:  func() { resp = t.n.serveCatalog(ctx, req) },
		remote: func() rpc.Message { resp = new(wire.CatalogResponse); return resp },
		failed: func() *wire.Error { return resp.Error },
	})
	return resp, err
}
