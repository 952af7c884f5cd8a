package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// The words of the protocol, so that front ends need no import of it.
type (
	// Op is one typed operation on one document.
	Op = wire.Op
	// Result is what an operation answers.
	Result = wire.Result
	// Code says why a request or an operation failed.
	Code = wire.Code
	// NodeID names a node.
	NodeID = catalog.NodeID
)

// Clock is the time that a client lives in.
type Clock interface {
	Now() time.Time
	// AfterFunc calls f once d has passed; stop reports whether it kept f from being called.
	AfterFunc(d time.Duration, f func()) (stop func() bool)
}

// Options of a client. The zero value is a good default.
type Options struct {
	// Park bounds how long a request waits for a leader to be found. It is also
	// the deadline of a request that has none. Default 4 s.
	Park time.Duration
	// Attempt bounds how long one node may take to answer before the request is
	// sent elsewhere under the same id. It should be longer than a slow disk and
	// shorter than Park. Default 1.5 s.
	Attempt time.Duration
	// BackoffMin and BackoffMax bound the pause between two rounds over a
	// tablet's replicas; it doubles, and half of it is drawn. Default 4 ms, 128 ms.
	BackoffMin, BackoffMax time.Duration
	// AppendTimeout is how long an append to a log may take that has no deadline.
	// It should be longer than the failover of a sequencer. Default 20 s.
	AppendTimeout time.Duration
	// AppendBytes bounds the memory of appends that are not answered; beyond it they
	// are refused as overloaded. Default 256 MiB.
	AppendBytes int64
	// ID names this client to the tablets that remember its requests. It must be
	// drawn anew with every start of a process. Zero: it is drawn from Rand.
	ID [16]byte
	// Clock and Rand are the real ones by default; the simulation hands in its own.
	Clock Clock
	Rand  *rand.Rand
	// Network that Connect uses. Default rpc.TCP.
	Network rpc.Network
}

func (o Options) withDefaults() Options {
	if o.Park <= 0 {
		o.Park = 4 * time.Second
	}
	if o.Attempt <= 0 {
		o.Attempt = 1500 * time.Millisecond
	}
	if o.BackoffMin <= 0 {
		o.BackoffMin = 4 * time.Millisecond
	}
	if o.BackoffMax < o.BackoffMin {
		o.BackoffMax = max(128*time.Millisecond, o.BackoffMin)
	}
	if o.AppendTimeout <= 0 {
		o.AppendTimeout = 20 * time.Second
	}
	if o.AppendBytes <= 0 {
		o.AppendBytes = 256 << 20
	}
	if o.Clock == nil {
		o.Clock = systemClock{}
	}
	if o.Rand == nil {
		o.Rand = systemRand()
	}
	if o.ID == [16]byte{} {
		for i := range o.ID {
			o.ID[i] = byte(o.Rand.Uint32())
		}
	}
	return o
}

// Metrics of a client. All only grow.
type Metrics struct {
	// Requests is how many requests were started.
	Requests atomic.Uint64
	// Retries is how many further attempts they took.
	Retries atomic.Uint64
	// RetriesSpared is how many refusals were not followed by another attempt, because
	// more than a tenth of what is answered would have been retries.
	RetriesSpared atomic.Uint64
	// HeldBack is how many requests were refused here, unsent, because their tablet
	// refused most of what it was asked.
	HeldBack atomic.Uint64
	// Refreshes is how many times locations were asked for.
	Refreshes atomic.Uint64
	// Redirects is how many answers named another leader.
	Redirects atomic.Uint64
	// Unavailable is how many requests ended because no leader was found in time.
	Unavailable atomic.Uint64
	// UnknownOutcomes is how many writes ended with an unknown outcome.
	UnknownOutcomes atomic.Uint64
}

// Client speaks to one cluster. It is safe for concurrent use.
type Client struct {
	transport Transport
	opts      Options
	id        []byte // Options.ID
	redis     *Table
	metrics   Metrics
	logTree   logTree
	logs      clientLogs
	// logTransport is transport, if that carries requests about logs.
	logTransport LogTransport

	requests   atomic.Uint64 // the request id given last
	hybridTime atomic.Uint64 // the greatest one seen: sent along, so that time flows with messages

	ctx    context.Context // of refreshes; ends with Close
	cancel context.CancelFunc
	owned  func() error // closes what Connect made
	closed atomic.Bool  // set under mu

	mu struct {
		sync.Mutex
		rand   *rand.Rand
		byID   map[catalog.TableID]*Table
		parked map[*call]func() bool // calls between two attempts, and what stops their timer
	}
	running sync.WaitGroup // refreshes
}

// New makes a client over a transport.
func New(t Transport, o Options) *Client {
	o = o.withDefaults()
	c := &Client{transport: t, opts: o, id: append([]byte(nil), o.ID[:]...)}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.mu.rand = o.Rand
	c.mu.byID = make(map[catalog.TableID]*Table)
	c.mu.parked = make(map[*call]func() bool)
	c.redis = c.table(catalog.RedisTableID)
	c.logTransport, _ = t.(LogTransport)
	return c
}

// Redis is the document table behind the Redis port.
func (c *Client) Redis() *Table { return c.redis }

// Self is the node that shares this process, 0 if none.
func (c *Client) Self() NodeID { return c.transport.Self() }

// Metrics counts what the client did.
func (c *Client) Metrics() *Metrics { return &c.metrics }

// Close ends the client: requests between two attempts fail with ErrCanceled
// (or ErrUnknownOutcome), those at a node end with its answer, later ones fail
// at once. It returns when no goroutine of the client is left.
func (c *Client) Close() error {
	c.mu.Lock()
	if c.closed.Swap(true) {
		c.mu.Unlock()
		return nil
	}
	parked := c.mu.parked
	c.mu.parked = nil
	c.mu.Unlock()
	c.cancel()
	c.logs.close()
	for p, stop := range parked {
		if stop() {
			p.giveUp(ErrClosed)
		}
	}
	c.running.Wait()
	if c.owned != nil {
		return c.owned()
	}
	return nil
}

// table gives the one Table of an id, so that its routes are shared.
func (c *Client) table(id catalog.TableID) *Table {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.mu.byID[id]
	if t == nil {
		t = &Table{client: c, id: id}
		c.mu.byID[id] = t
	}
	return t
}

// sawTime merges a hybrid time that came with an answer.
func (c *Client) sawTime(t uint64) {
	for {
		last := c.hybridTime.Load()
		if t <= last || c.hybridTime.CompareAndSwap(last, t) {
			return
		}
	}
}

// jitter draws from [d/2, d].
func (c *Client) jitter(d time.Duration) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return d/2 + time.Duration(c.mu.rand.Int64N(int64(d/2)+1))
}

// dice draws from [0, 1).
func (c *Client) dice() float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.rand.Float64()
}

// codeOf is the code of an error of this package, CODE_OK if it is none.
func codeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return wire.Code_CODE_OK
}
