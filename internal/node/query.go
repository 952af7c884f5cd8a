package node

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/admin/query"
	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// A liveTable is a table of live state. Where it is of each node, every node is
// asked for its own rows; else the asked node gives all of them. Where it is of one
// log, that is one that exists.
type liveTable struct {
	name, doc string
	columns   []query.Column
	ofEach    bool
	ofLog     bool
	local     func(ctx context.Context, f query.Filter, yield func([]any) bool) error
}

const (
	// queryTime bounds a query, rowsTime one node's answer within it: of the time that
	// the asker has it takes two thirds at most, so that a node that is silent costs
	// its own rows and no others.
	queryTime = 30 * time.Second
	rowsTime  = 10 * time.Second
	// queryRowsMax bounds the rows of a table in one query, over all nodes.
	queryRowsMax = 500_000
)

// newQueries makes the engine over the node's live tables.
func (n *Node) newQueries() (*query.Engine, error) {
	var tables []query.Table
	n.live = map[string]*liveTable{}
	for _, t := range n.liveTables() {
		n.live[t.name] = t
		rows := func(ctx context.Context, f query.Filter, yield func([]any) bool) error {
			if t.ofLog {
				if err := n.knownLog(ctx, f); err != nil {
					return err
				}
			}
			if t.ofEach {
				return n.gather(ctx, t, f, yield)
			}
			return t.local(ctx, f, yield)
		}
		tables = append(tables, query.Table{Name: t.name, Doc: t.doc, Columns: t.columns, Rows: rows})
	}
	return query.New(tables, query.Options{RowsMax: queryRowsMax})
}

// missing collects, within one query, which nodes could not be asked.
type missing struct {
	mu    sync.Mutex
	words []string
}

type missingKey struct{}

// gather asks every node for its rows. A node that does not answer is missing
// from the result, and the result says so.
func (n *Node) gather(ctx context.Context, t *liveTable, f query.Filter, yield func([]any) bool) error {
	req := &wire.TableRowsRequest{Table: t.name, Limit: queryRowsMax}
	for _, c := range t.columns {
		if v, ok := f[c.Name]; ok {
			req.FilterColumns = append(req.FilterColumns, c.Name)
			req.FilterValues = append(req.FilterValues, wire.NewTableValue(v))
		}
	}
	nodes := n.addresses.all()
	answers := make([]*wire.TableRowsResponse, len(nodes))
	var wg sync.WaitGroup
	for i, peer := range nodes {
		wg.Go(func() { answers[i] = n.askRows(ctx, catalog.NodeID(peer.Id), req) })
	}
	wg.Wait()
	for i, a := range answers {
		if a.Error != nil {
			m, _ := ctx.Value(missingKey{}).(*missing)
			if m == nil {
				return fmt.Errorf("node %d: %s", nodes[i].Id, a.Error.Message)
			}
			m.mu.Lock()
			m.words = append(m.words, fmt.Sprintf("%s: rows of node %d are missing: %s", t.name, nodes[i].Id, a.Error.Message))
			m.mu.Unlock()
			continue
		}
		for _, row := range a.Rows {
			values := row.Any()
			if len(values) != len(t.columns) {
				return fmt.Errorf("node %d: %d values for %d columns of %s: another version?", nodes[i].Id, len(values), len(t.columns), t.name)
			}
			if !yield(values) {
				return nil
			}
		}
	}
	return nil
}

func (n *Node) askRows(ctx context.Context, node catalog.NodeID, req *wire.TableRowsRequest) *wire.TableRowsResponse {
	if node == n.nodeID() {
		return n.tableRows(ctx, req)
	}
	addr := n.addresses.rpc(node)
	patience := rowsTime
	if end, ok := ctx.Deadline(); ok {
		patience = min(patience, end.Sub(n.deps.Now())*2/3)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	resp := new(wire.TableRowsResponse)
	if err := n.pool.To(addr).Call(ctx, rpc.MethodTableRows, req, resp); err != nil {
		return &wire.TableRowsResponse{Error: &wire.Error{Code: wire.Code_CODE_UNAVAILABLE, Message: err.Error()}}
	}
	return resp
}

// tableRows gives this node's rows of a table.
func (n *Node) tableRows(ctx context.Context, req *wire.TableRowsRequest) *wire.TableRowsResponse {
	t := n.live[req.Table]
	if t == nil || len(req.FilterColumns) != len(req.FilterValues) {
		return &wire.TableRowsResponse{Error: &wire.Error{Code: wire.Code_CODE_INVALID, Message: fmt.Sprintf("no table %q here", req.Table)}}
	}
	f := query.Filter{}
	for i, c := range req.FilterColumns {
		f[c] = req.FilterValues[i].Any()
	}
	resp := new(wire.TableRowsResponse)
	err := t.local(ctx, f, func(values []any) bool {
		if len(resp.Rows) == int(min(req.Limit, queryRowsMax)) {
			resp.More = true
			return false
		}
		resp.Rows = append(resp.Rows, wire.NewTableRow(values))
		return ctx.Err() == nil
	})
	switch {
	case err != nil:
		return &wire.TableRowsResponse{Error: &wire.Error{Code: wire.Code_CODE_INTERNAL, Message: err.Error()}}
	case resp.More:
		return &wire.TableRowsResponse{Error: &wire.Error{Code: wire.Code_CODE_TOO_LARGE, Message: query.ErrTooMany.Error()}}
	}
	return resp
}

// query answers one SQL statement.
func (n *Node) query(ctx context.Context, req *wire.QueryRequest) *wire.QueryResponse {
	m := new(missing)
	result, err := n.queries.Query(context.WithValue(ctx, missingKey{}, m), req.Statement)
	if err != nil {
		return &wire.QueryResponse{Error: queryError(err), Warnings: m.words}
	}
	resp := &wire.QueryResponse{Columns: result.Columns, Warnings: m.words}
	for _, r := range result.Rows {
		resp.Rows = append(resp.Rows, wire.NewTableRow(r))
	}
	return resp
}

// queryError is a failed query in wire's words: what a table needed of the cluster
// keeps its own code.
func queryError(err error) *wire.Error {
	e := &wire.Error{Code: wire.Code_CODE_INVALID, Message: err.Error()}
	var asked *client.Error
	var ofLog *client.LogError
	switch {
	case errors.As(err, &asked):
		e.Code, e.Message = asked.Code, strings.Replace(e.Message, asked.Error(), asked.Message, 1)
	case errors.As(err, &ofLog):
		e.Code, e.Message = wire.Code_CODE_UNAVAILABLE, strings.Replace(e.Message, "braid: ", "", 1)
		if errors.Is(err, client.ErrNotFound) {
			e.Code = wire.Code_CODE_NOT_FOUND
		}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		e.Code = wire.Code_CODE_TIMEOUT
	}
	return e
}

// knownLog refuses a question about a log that there is not: an answer without rows
// would say that there is nothing of it. Where the master is silent, it is answered.
func (n *Node) knownLog(ctx context.Context, f query.Filter) error {
	id, ok := f.Int("log_id")
	if !ok || id <= 0 { // metadata logs are in no group
		return nil
	}
	if _, ok := n.index.Load().Logs().Attributes(uint64(id)); ok {
		return nil
	}
	_, err := n.client.LogInfo(ctx, strconv.FormatInt(id, 10))
	if errors.Is(err, client.ErrNotFound) {
		return err
	}
	return nil
}

// asking is the context of a question whose asker waits until a time, if it says so.
func (n *Node) asking(until time.Time) (context.Context, context.CancelFunc) {
	limit := queryTime
	if !until.IsZero() {
		limit = min(limit, until.Sub(n.deps.Now()))
	}
	return context.WithTimeout(n.ctx, limit)
}

// handleQueries serves both kinds of questions; they may take long.
func (n *Node) handleQueries(s *rpc.Server) {
	bounded := func(r *rpc.Request, f func(ctx context.Context) rpc.Message) {
		n.beside(func() {
			ctx, cancel := n.asking(r.Deadline)
			defer cancel()
			n.reply(r, f(ctx))
		})
	}
	s.Handle(rpc.MethodQuery, nil, n.whenOpen(func(e *wire.Error) rpc.Message { return &wire.QueryResponse{Error: e} }, func(r *rpc.Request) {
		bounded(r, func(ctx context.Context) rpc.Message { return n.query(ctx, r.Msg.(*wire.QueryRequest)) })
	}))
	if s == n.nodeServer {
		s.Handle(rpc.MethodTableRows, nil, n.whenOpen(func(e *wire.Error) rpc.Message { return &wire.TableRowsResponse{Error: e} }, func(r *rpc.Request) {
			bounded(r, func(ctx context.Context) rpc.Message { return n.tableRows(ctx, r.Msg.(*wire.TableRowsRequest)) })
		}))
	}
}
