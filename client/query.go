package client

import (
	"context"
	"time"

	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// QueryResult is what a query gave.
type QueryResult struct {
	Columns []string
	Rows    [][]any // int64, float64, string, []byte or nil
	// Warnings name the nodes whose rows are missing, and why.
	Warnings []string
}

// Query asks for the cluster's live state with one SQL statement that reads;
// `SELECT name, doc FROM tables` says what there is. Any node answers, and asks
// the others for theirs.
func (c *Client) Query(ctx context.Context, statement string) (*QueryResult, error) {
	t, ok := c.transport.(LogTransport)
	if !ok {
		return nil, newError(wire.Code_CODE_UNAVAILABLE, nil, "this client's transport carries no queries")
	}
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = c.opts.Clock.Now().Add(queryTime)
	}
	resp := new(wire.QueryResponse)
	done := make(chan error, 1)
	t.StartLog(0, rpc.MethodQuery, &wire.QueryRequest{Statement: statement}, resp, deadline, func(err error) { done <- err })
	select {
	case err := <-done:
		if err != nil {
			return nil, err
		}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if resp.Error != nil {
		return nil, fromWire(resp.Error)
	}
	out := &QueryResult{Columns: resp.Columns, Warnings: resp.Warnings}
	for _, r := range resp.Rows {
		out.Rows = append(out.Rows, r.Any())
	}
	return out, nil
}

// queryTime bounds a query whose context has no deadline.
const queryTime = 30 * time.Second
