package rpc

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/braiddb/braid/internal/catalog"
)

// PoolOptions of a pool.
type PoolOptions struct {
	// Role that this end plays.
	Role Role
	// Cluster gives the cluster's id, empty until it is known. Default: empty.
	Cluster func() string
	// Node and Incarnation are told to peers.
	Node        func() catalog.NodeID
	Incarnation uint64
	// QueueBytes bounds what may wait to be written on a connection; beyond it
	// calls fail with ErrOverloaded and one-way messages are dropped. A single
	// message passes whatever its size. Default 32 MiB.
	QueueBytes int
	// DialTimeout bounds dialling and the handshake. Default 2 s.
	DialTimeout time.Duration
	// RedialMin and RedialMax bound the pause after a failed dial; it doubles, and
	// half of it is drawn. Default 10 ms, 500 ms.
	RedialMin, RedialMax time.Duration
	// SilenceMax is how long a peer may answer nothing, while it is sent
	// something, before the connection is given up. Default 4 s.
	SilenceMax time.Duration

	Clock   Clock        // default SystemClock
	Rand    *rand.Rand   // for the pauses; default: seeded from the clock
	Logger  *slog.Logger // default: discards
	Metrics *Metrics     // default: its own
}

func (o PoolOptions) withDefaults() PoolOptions {
	if o.Role == 0 {
		panic("BUG: a pool without a role")
	}
	if o.Cluster == nil {
		o.Cluster = func() string { return "" }
	}
	if o.Node == nil {
		o.Node = func() catalog.NodeID { return 0 }
	}
	if o.QueueBytes <= 0 {
		o.QueueBytes = 32 << 20
	}
	if o.DialTimeout <= 0 {
		o.DialTimeout = 2 * time.Second
	}
	if o.RedialMin <= 0 {
		o.RedialMin = 10 * time.Millisecond
	}
	if o.RedialMax < o.RedialMin {
		o.RedialMax = max(500*time.Millisecond, o.RedialMin)
	}
	if o.SilenceMax <= 0 {
		o.SilenceMax = 4 * time.Second
	}
	if o.Clock == nil {
		o.Clock = SystemClock{}
	}
	if o.Rand == nil {
		o.Rand = rand.New(rand.NewPCG(uint64(o.Clock.Now().UnixNano()), o.Incarnation))
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = new(Metrics)
	}
	return o
}

// Pool keeps the connections of this end, by address and lane. It dials when
// something is to be sent, not before.
type Pool struct {
	net     Network
	opts    PoolOptions
	ctx     context.Context // of dials
	cancel  context.CancelFunc
	running sync.WaitGroup
	waiters sync.Pool // of *waiter

	mu struct {
		sync.Mutex
		closed  bool
		clients map[string]*Client
		rand    *rand.Rand
	}
}

// NewPool makes a pool over a network.
func NewPool(n Network, o PoolOptions) *Pool {
	p := &Pool{net: n, opts: o.withDefaults()}
	p.waiters.New = newWaiter
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.mu.clients = make(map[string]*Client)
	p.mu.rand = p.opts.Rand
	return p
}

// Metrics counts what the pool did.
func (p *Pool) Metrics() *Metrics { return p.opts.Metrics }

// To gives the client of an address; always the same one.
func (p *Pool) To(addr string) *Client {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.mu.clients[addr]
	if c == nil {
		c = &Client{pool: p, addr: addr}
		for i := range c.lanes {
			c.lanes[i].init(p, addr, Lane(i))
		}
		if p.mu.closed {
			c.close(ErrClosed)
		}
		p.mu.clients[addr] = c
	}
	return c
}

// Forget closes the connections to an address that is no longer used.
func (p *Pool) Forget(addr string) {
	p.mu.Lock()
	c := p.mu.clients[addr]
	delete(p.mu.clients, addr)
	p.mu.Unlock()
	if c != nil {
		c.close(ErrClosed)
	}
}

// Close closes all connections and waits for their goroutines. Calls under way
// end with ErrLost or, if nothing of them was sent, ErrUnreachable.
func (p *Pool) Close() error {
	p.mu.Lock()
	p.mu.closed = true
	clients := make([]*Client, 0, len(p.mu.clients))
	for _, c := range p.mu.clients {
		clients = append(clients, c)
	}
	p.mu.Unlock()
	p.cancel()
	for _, c := range clients {
		c.close(ErrClosed)
	}
	p.running.Wait()
	return nil
}

// spawn starts a goroutine that Close waits for; it refuses once closed.
func (p *Pool) spawn(f func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.closed {
		return false
	}
	p.running.Add(1)
	go func() {
		defer p.running.Done()
		f()
	}()
	return true
}

// redialPause is the pause after so many failed dials: drawn from the upper half.
func (p *Pool) redialPause(failures int) time.Duration {
	d := min(p.opts.RedialMin<<min(failures-1, 20), p.opts.RedialMax)
	p.mu.Lock()
	defer p.mu.Unlock()
	return d/2 + time.Duration(p.mu.rand.Int64N(int64(d/2)+1))
}

// Client speaks to one address, over one connection per lane. It is safe for
// concurrent use.
type Client struct {
	pool  *Pool
	addr  string
	lanes [lanes]lane
}

// Addr is the address that it speaks to.
func (c *Client) Addr() string { return c.addr }

func (c *Client) close(err error) {
	for i := range c.lanes {
		c.lanes[i].close(err)
	}
}

// Call sends a request and waits for its answer, decoded into resp. A context's
// end cancels the request at the peer; it may have been carried out.
func (c *Client) Call(ctx context.Context, m Method, req, resp Message) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w := c.pool.waiters.Get().(*waiter)
	deadline, _ := ctx.Deadline()
	t := c.start(eager, deadline, m, req, resp, w.done)
	if ctx.Done() == nil {
		err := <-w.ch
		c.pool.waiters.Put(w)
		return err
	}
	select {
	case err := <-w.ch:
		c.pool.waiters.Put(w)
		return err
	case <-ctx.Done():
	}
	if t.cancel() {
		c.pool.waiters.Put(w)
		return ctx.Err()
	}
	// The answer, or a failure, is already on its way to us.
	err := <-w.ch
	c.pool.waiters.Put(w)
	return err
}

// waiter is what Call waits on, used again and again; but not by another pool,
// which may live in a bubble of simulated time.
type waiter struct {
	ch   chan error
	done func(error)
}

func newWaiter() any {
	w := &waiter{ch: make(chan error, 1)}
	w.done = func(err error) { w.ch <- err }
	return w
}

// Go sends a request; done is called once, with resp decoded if its error is
// nil: on the reading goroutine, on a timer's, or, if nothing could be sent, on
// this one before Go returns. It must not block. Only the deadline of ctx counts.
func (c *Client) Go(ctx context.Context, m Method, req, resp Message, done func(error)) {
	deadline, _ := ctx.Deadline()
	c.start(lazy, deadline, m, req, resp, done)
}

// Start is Go with a deadline in place of a context; zero means none.
func (c *Client) Start(deadline time.Time, m Method, req, resp Message, done func(error)) {
	c.start(lazy, deadline, m, req, resp, done)
}

// Send sends a one-way message. It never blocks: what can not be sent, or kept
// while the connection is being made, is dropped and counted.
func (c *Client) Send(m Method, msg Message) error {
	info := m.mustInfo()
	err := c.lanes[info.lane].send(m, msg)
	if err != nil {
		c.pool.opts.Metrics.Dropped.Add(1)
	}
	return err
}

func (c *Client) start(u urgency, deadline time.Time, m Method, req, resp Message, done func(error)) ticket {
	info := m.mustInfo()
	return c.lanes[info.lane].call(u, &pending{method: m, req: req, resp: resp, deadline: deadline, done: done})
}
