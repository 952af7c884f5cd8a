package client

import (
	"context"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/wire"
)

// Transport carries requests to nodes. A node's own calls straight into the
// tablets that it leads; Connect makes one over rpc.
//
// StartWrite and StartRead call done exactly once, maybe before they return,
// and not much later than the deadline; done does not block. The request is not
// changed afterwards. An error that matches rpc.ErrUnreachable or
// rpc.ErrOverloaded says that the request had no effect; after any other error
// its outcome is unknown.
type Transport interface {
	// Self is the node that shares this process, 0 if none.
	Self() catalog.NodeID
	StartWrite(node catalog.NodeID, req *wire.WriteRequest, deadline time.Time, done func(*wire.WriteResponse, error))
	StartRead(node catalog.NodeID, req *wire.ReadRequest, deadline time.Time, done func(*wire.ReadResponse, error))
	Locations(ctx context.Context, req *wire.LocationsRequest) (*wire.LocationsResponse, error)
	Catalog(ctx context.Context, req *wire.CatalogRequest) (*wire.CatalogResponse, error)
}
