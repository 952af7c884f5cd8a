package client

import (
	"context"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/rpc"
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

// LogTransport carries requests about logs. A transport that has it serves logs;
// with one that has not, they fail as unavailable.
type LogTransport interface {
	// StartLog sends a request to a node, or, where node is 0, to any that answers;
	// where the node shares this process it is a call. resp is filled once done is
	// called without an error. Appends that one goroutine starts for one node, one
	// after another, arrive there in that order, as long as none of them fails. For
	// done, the request and errors the same holds as for Transport.
	StartLog(node catalog.NodeID, m rpc.Method, req, resp rpc.Message, deadline time.Time, done func(error))
}
