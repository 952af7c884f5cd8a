package node

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/admin"
	"github.com/braiddb/braid/internal/protocol/redis"
	"github.com/braiddb/braid/internal/protocol/rest"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// handleNodes says what other nodes are served.
func (n *Node) handleNodes() {
	s := n.nodeServer
	s.Handle(rpc.MethodRaftBatch, nil, n.whenOpen(nil, func(r *rpc.Request) { n.host.HandleBatch(r.Msg.(*wire.RaftBatch)) }))
	s.Handle(rpc.MethodBeat, nil, n.whenOpen(nil, func(r *rpc.Request) { n.host.HandleBeat(r.Msg.(*wire.Beat)) }))
	s.Handle(rpc.MethodTailQuery, nil, n.whenOpen(func(*wire.Error) rpc.Message { return new(wire.TailAnswer) }, func(r *rpc.Request) {
		n.host.HandleTailQuery(r.Msg.(*wire.TailQuery), func(a *wire.TailAnswer) { n.reply(r, a) })
	}))
	s.Handle(rpc.MethodSnapshotChunk, nil, n.whenOpen(func(e *wire.Error) rpc.Message { return &wire.SnapshotAck{Error: e} }, func(r *rpc.Request) {
		n.beside(func() { n.reply(r, n.host.HandleSnapshotChunk(r.Msg.(*wire.SnapshotChunk))) }) // it may write a file
	}))
	s.Handle(rpc.MethodHello, nil, n.handleHello)
	s.Handle(rpc.MethodBootstrap, nil, n.handleBootstrap)
	s.Handle(rpc.MethodJoin, nil, n.handleJoin)
	s.Handle(rpc.MethodHeartbeat, nil, n.whenOpen(func(e *wire.Error) rpc.Message { return &wire.HeartbeatResponse{Error: e} }, n.handleHeartbeat))
	n.handleRequests(s)
}

// handleClients says what braid clients are served.
func (n *Node) handleClients() {
	n.clientServer.Handle(rpc.MethodHello, nil, n.handleHello)
	n.handleRequests(n.clientServer)
}

// handleRequests is what both listeners serve.
func (n *Node) handleRequests(s *rpc.Server) {
	n.handleQueries(s)
	n.handleLogs(s)
	s.Handle(rpc.MethodWrite, nil, n.whenOpen(func(e *wire.Error) rpc.Message { return &wire.WriteResponse{Error: e} }, func(r *rpc.Request) {
		deadline := r.Deadline
		if deadline.IsZero() {
			deadline = n.deps.Now().Add(n.cfg.Park)
		}
		n.write(r.Msg.(*wire.WriteRequest), deadline, func(resp *wire.WriteResponse) { n.reply(r, resp) })
	}))
	s.Handle(rpc.MethodRead, nil, n.whenOpen(func(e *wire.Error) rpc.Message { return &wire.ReadResponse{Error: e} }, func(r *rpc.Request) {
		req := r.Msg.(*wire.ReadRequest)
		if !walks(req) {
			n.reply(r, n.read(req))
			return
		}
		n.beside(func() { n.reply(r, n.read(req)) })
	}))
	s.Handle(rpc.MethodLocations, nil, n.whenOpen(func(e *wire.Error) rpc.Message { return &wire.LocationsResponse{Error: e} }, func(r *rpc.Request) {
		req := r.Msg.(*wire.LocationsRequest)
		if s == n.nodeServer { // from a node's askMaster: it goes round by itself
			n.reply(r, n.serveLocations(req))
			return
		}
		n.beside(func() {
			n.forClient(r, func(ctx context.Context) rpc.Message {
				resp, err := localTransport{n}.Locations(ctx, req)
				if err != nil {
					resp = &wire.LocationsResponse{Error: unavailable(err)}
				}
				return resp
			})
		})
	}))
	s.Handle(rpc.MethodCatalog, nil, n.whenOpen(func(e *wire.Error) rpc.Message { return &wire.CatalogResponse{Error: e} }, func(r *rpc.Request) {
		req := r.Msg.(*wire.CatalogRequest)
		if s == n.nodeServer {
			n.startCatalog(req, func(resp *wire.CatalogResponse) { n.reply(r, resp) })
			return
		}
		n.beside(func() {
			n.forClient(r, func(ctx context.Context) rpc.Message {
				resp, err := localTransport{n}.Catalog(ctx, req)
				if err != nil {
					resp = &wire.CatalogResponse{Error: unavailable(err)}
				}
				return resp
			})
		})
	}))
}

// beside does what may take long on a goroutine of its own, which closing the
// node waits for: the servers are closed before, so nothing is begun afterwards.
func (n *Node) beside(f func()) { n.loops.Go(f) }

// whenOpen refuses what comes before the storage is open: a one-way message is
// lost, a call is answered at once with refusal's word of it, so that its caller
// asks elsewhere or again. After a fatal fault nothing is answered at all (N2).
func (n *Node) whenOpen(refusal func(*wire.Error) rpc.Message, h func(*rpc.Request)) func(*rpc.Request) {
	return func(r *rpc.Request) {
		switch {
		case n.dead.Load():
		case n.opened.Load():
			h(r)
		case refusal != nil:
			code := wire.Code_CODE_NOT_READY
			if r.Method == rpc.MethodWrite || r.Method == rpc.MethodRead {
				code = wire.Code_CODE_UNAVAILABLE // it surely leads nothing: ask another replica
			}
			n.reply(r, refusal(&wire.Error{Code: code, Message: "the node is starting or stopping: its storage is not open"}))
		}
	}
}

// reply answers unless a fatal fault has silenced this incarnation (N2).
func (n *Node) reply(r *rpc.Request, resp rpc.Message) {
	if !n.dead.Load() {
		r.Reply(resp)
	}
}

// walks reports whether a read may take long, so that it must not hold up the
// goroutine that reads the connection.
func walks(req *wire.ReadRequest) bool {
	for _, op := range req.Ops {
		if wire.OpCode(op.Code).Walks() {
			return true
		}
	}
	return false
}

// forClient answers a client's request about the catalog by asking the master's leader.
func (n *Node) forClient(r *rpc.Request, ask func(ctx context.Context) rpc.Message) {
	limit := n.cfg.Park
	if !r.Deadline.IsZero() {
		limit = min(limit, r.Deadline.Sub(n.deps.Now()))
	}
	ctx, cancel := context.WithCancel(n.ctx)
	defer cancel()
	stop := n.deps.AfterFunc(limit, cancel)
	defer stop()
	n.reply(r, ask(ctx))
}

func unavailable(err error) *wire.Error {
	return &wire.Error{Code: wire.Code_CODE_UNAVAILABLE, Message: "the master's leader was not found in time: " + err.Error()}
}

// serveLocations answers from this node's replica of the master.
func (n *Node) serveLocations(req *wire.LocationsRequest) *wire.LocationsResponse {
	m := n.master.Load()
	if m == nil {
		return &wire.LocationsResponse{Error: n.noMaster()}
	}
	return m.Locations(n.deps.Mono(), req)
}

// startCatalog answers from this node's replica of the master; done is called once.
func (n *Node) startCatalog(req *wire.CatalogRequest, done func(*wire.CatalogResponse)) {
	m := n.master.Load()
	if m == nil {
		done(&wire.CatalogResponse{Error: n.noMaster()})
		return
	}
	m.Catalog(n.deps.Mono(), req, done)
}

// serveCatalog is startCatalog for a caller that waits.
func (n *Node) serveCatalog(ctx context.Context, req *wire.CatalogRequest) *wire.CatalogResponse {
	done := make(chan *wire.CatalogResponse, 1)
	n.startCatalog(req, func(resp *wire.CatalogResponse) { done <- resp })
	select {
	case resp := <-done:
		return resp
	case <-ctx.Done():
		return &wire.CatalogResponse{Error: &wire.Error{Code: wire.Code_CODE_UNKNOWN_OUTCOME, Message: ctx.Err().Error()}}
	}
}

// noMaster says that no replica of the master is here, and who is worth asking.
func (n *Node) noMaster() *wire.Error {
	e := &wire.Error{Code: wire.Code_CODE_NOT_LEADER, Message: "this node has no replica of the master"}
	if led := n.masterLeader.Load(); led != uint64(n.nodeID()) {
		e.LeaderNode = led
	}
	return e
}

// openDoors lets everybody in: the cluster is known and the storage is open.
func (n *Node) openDoors(context.Context) error {
	var err error
	if n.queries, err = n.newQueries(); err != nil {
		return err
	}
	n.client = client.New(localTransport{n}, client.Options{Park: n.cfg.Park, Clock: rpcClock{n.deps}, Rand: n.dice()})
	if err := n.openEpochs(); err != nil {
		return err
	}
	n.opened.Store(true)
	n.redis = redis.NewServer(n.client.Redis(), n.redisOptions())
	n.serve(n.clientServer, n.listeners.client)
	n.loops.Go(func() {
		if err := n.redis.Serve(n.listeners.redis); err != nil && !errors.Is(err, redis.ErrServerClosed) && n.ctx.Err() == nil {
			n.log.Error("redis listener", "error", err)
		}
	})
	n.rest = rest.NewServer(rest.Over(n.client), rest.Options{BodyBytes: max(n.cfg.Memory/restShare, clientsLeast)})
	n.console = admin.Serve(n.listeners.console, admin.Options{
		Ready: n.Ready, Status: n.status, Metrics: n.metrics(), Mounts: map[string]http.Handler{"/v1/": n.rest},
	})
	return nil
}

// statusTime bounds how long the console waits for the master.
const statusTime = 2 * time.Second
