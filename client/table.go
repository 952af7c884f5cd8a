package client

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/wire"
)

// Table is one table, by its id: it stays the same through changes of its
// schema and its tablets. It is safe for concurrent use.
type Table struct {
	client *Client
	id     catalog.TableID
	routes atomic.Pointer[routes] // nil until they are first known

	mu struct {
		sync.Mutex
		waiters    []*call // wait for routes, in the order in which they came
		watchers   []chan<- error
		refreshing bool
	}
}

// Reply is everything that a batch was answered with.
type Reply struct {
	Results []*Result
	// HybridTime is the time of the write, or what was read at.
	HybridTime uint64
	// Copies is how many replicas were known to hold the write durably when it
	// was answered; 0 for reads.
	Copies uint32

	tabletEnd uint64 // where the tablet that answered ends
}

// Do carries out one operation at the leader of its key's tablet. It finds the
// tablet by op.Hash, and repeats the request under one request id until it is
// answered, the context ends, or no leader was found within Options.Park. The
// operation must not be changed until Do returns, nor afterwards if it failed.
func (t *Table) Do(ctx context.Context, op *Op) (*Result, error) {
	reply, err := t.await(ctx, []*Op{op}, request{})
	if err != nil {
		return nil, err
	}
	return reply.Results[0], nil
}

// Start is Do without waiting: done is called once, perhaps before Start
// returns, and must not block. A zero deadline means Options.Park from now.
// Operations started by one goroutine for one key reach its tablet in order as
// long as nothing fails.
func (t *Table) Start(op *Op, deadline time.Time, done func(*Result, error)) {
	c := t.newCall(deadline, request{})
	c.one[0] = op
	c.ops = c.one[:]
	c.doneOne = done
	c.start()
}

// Batch carries out operations of one tablet atomically, each seeing those
// before it. Operations of several tablets are refused with ErrCrossTablet.
func (t *Table) Batch(ctx context.Context, ops []*Op) ([]*Result, error) {
	reply, err := t.await(ctx, ops, request{})
	return reply.Results, err
}

// StartBatch is Batch without waiting, as Start is to Do.
func (t *Table) StartBatch(ops []*Op, deadline time.Time, done func([]*Result, error)) {
	t.StartReply(ops, deadline, func(r Reply, err error) { done(r.Results, err) })
}

// StartReply is StartBatch for callers that also want the time and the number
// of durable copies.
func (t *Table) StartReply(ops []*Op, deadline time.Time, done func(Reply, error)) {
	if len(ops) == 0 {
		done(Reply{}, nil)
		return
	}
	c := t.newCall(deadline, request{})
	c.ops = ops
	c.done = done
	c.start()
}

// request is what the rows of a table add to a call.
type request struct {
	readTime uint64 // reads: 0 lets the tablet choose
	schema   uint32 // under which the operations were encoded; 0 is any
}

// await runs ops and waits for them or for the context.
func (t *Table) await(ctx context.Context, ops []*Op, r request) (Reply, error) {
	if len(ops) == 0 {
		return Reply{}, nil
	}
	if err := ctx.Err(); err != nil {
		return Reply{}, contextError(err, false)
	}
	deadline, _ := ctx.Deadline()
	c := t.newCall(deadline, r)
	c.ops = ops
	type answer struct {
		reply Reply
		err   error
	}
	answers := make(chan answer, 1)
	c.done = func(r Reply, err error) { answers <- answer{r, err} }
	c.start()
	select {
	case a := <-answers:
		return a.reply, a.err
	case <-ctx.Done():
	}
	// An answer that is there already beats the context's end.
	select {
	case a := <-answers:
		return a.reply, a.err
	default:
		return Reply{}, contextError(ctx.Err(), c.abandon())
	}
}

// contextError says what a context's end means for a request that may, or can
// not, have had an effect (I6).
func contextError(err error, effect bool) error {
	switch {
	case effect:
		return newError(wire.Code_CODE_UNKNOWN_OUTCOME, err, "given up while the write was on its way")
	case err == context.DeadlineExceeded:
		return newError(wire.Code_CODE_TIMEOUT, err, "given up")
	}
	return newError(wire.Code_CODE_CANCELED, err, "given up")
}

// TabletInfo is one tablet: a range of its table's hash space, and who holds it.
type TabletInfo struct {
	ID        catalog.GroupID
	HashStart uint64 // inclusive
	HashEnd   uint64 // exclusive; 0 is the end of the hash space
	Leader    NodeID // as last heard, 0 if unknown
	Replicas  []ReplicaInfo
}

// ReplicaInfo is one copy of a tablet.
type ReplicaInfo struct {
	Node    NodeInfo
	Learner bool // copies the data but does not count for a majority yet
}

// NodeInfo is one node, and where to reach it.
type NodeInfo struct {
	ID                                          NodeID
	RPCAddr, ClientAddr, RedisAddr, ConsoleAddr string
	Location                                    string
	Version                                     string
	Draining, Dead                              bool
}

// Tablets gives the table's tablets in the order of their hash ranges, as last
// heard; it asks only when nothing is known yet.
func (t *Table) Tablets(ctx context.Context) ([]TabletInfo, error) {
	r, err := t.awaitRoutes(ctx)
	if err != nil {
		return nil, err
	}
	infos := make([]TabletInfo, len(r.tablets))
	for i, tb := range r.tablets {
		infos[i] = TabletInfo{
			ID: tb.id, HashStart: tb.start, HashEnd: tb.end,
			Leader: NodeID(tb.leader.Load()), Replicas: tb.replicas,
		}
	}
	return infos, nil
}

// Refresh asks for the table's locations and schema again.
func (t *Table) Refresh(ctx context.Context) error {
	_, err := t.refreshed(ctx)
	return err
}

// ID is the table's id.
func (t *Table) ID() catalog.TableID { return t.id }

// awaitRoutes gives the known routes, or asks for them.
func (t *Table) awaitRoutes(ctx context.Context) (*routes, error) {
	if r := t.routes.Load(); r != nil {
		return r, nil
	}
	return t.refreshed(ctx)
}

// refreshed waits for a refresh that ends after the call.
func (t *Table) refreshed(ctx context.Context) (*routes, error) {
	watch := make(chan error, 1)
	t.mu.Lock()
	t.mu.watchers = append(t.mu.watchers, watch)
	if !t.refreshLocked() {
		t.mu.watchers = nil
		watch <- newError(wire.Code_CODE_CANCELED, ErrClosed, "%v", ErrClosed)
	}
	t.mu.Unlock()
	select {
	case err := <-watch:
		if err != nil {
			return nil, err
		}
		return t.routes.Load(), nil
	case <-ctx.Done():
		return nil, contextError(ctx.Err(), false)
	}
}
