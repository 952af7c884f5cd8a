package rpc

import (
	"sync/atomic"
	"time"

	"github.com/braiddb/braid/internal/catalog"
)

// Peer is who is at the other end of a connection, by its own account.
type Peer struct {
	Addr        string
	Role        Role
	Lane        Lane
	Node        catalog.NodeID // 0 for clients, and nodes that have no id yet
	Incarnation uint64
	Cluster     string // empty if it has none yet
}

// Request is one message to be handled. A call is answered by Reply, once, by
// any goroutine, now or later; a one-way message is not. Handler and Msg must
// not be used after Reply by anybody but who keeps Msg.
type Request struct {
	Method   Method
	Msg      Message
	Deadline time.Time // zero if the caller set none

	conn     *serverConn
	id       uint64
	held     int64                    // of the server's RequestBytes, until it is answered
	cell     *atomic.Pointer[Request] // where a cancel frame finds it; nil if one-way
	answered atomic.Bool
	canceled atomic.Bool
	done     atomic.Pointer[doneSignal]
}

type doneSignal struct {
	ch     chan struct{}
	closed atomic.Bool
}

// Peer is who sent it.
func (r *Request) Peer() Peer { return r.conn.peer }

// OneWay reports whether nobody waits for an answer.
func (r *Request) OneWay() bool { return r.cell == nil }

// Reply answers the request. A second answer, and one that nobody waits for, is
// dropped. The response must not be changed afterwards.
func (r *Request) Reply(resp Message) {
	if r.take() {
		r.conn.reply(header{kind: kindResponse, method: r.Method, id: r.id}, resp)
	}
}

// refuse answers without a response; after, unless 0, is when to ask again.
func (r *Request) refuse(code uint8, after time.Duration) {
	if r.take() {
		r.conn.reply(header{kind: kindError, code: code, method: r.Method, id: r.id, timeout: uint32(after.Milliseconds())}, nil)
	}
}

// take reports whether an answer is still wanted, once.
func (r *Request) take() bool {
	if r.cell == nil || r.answered.Swap(true) {
		return false
	}
	if r.held > 0 {
		r.conn.server.opts.Metrics.RequestBytes.Add(-r.held)
	}
	r.cell.CompareAndSwap(r, nil)
	return !r.canceled.Load()
}

// Done is closed when nobody waits for the answer any longer: the caller
// cancelled, or the connection is gone. For a one-way message nobody ever waits,
// and it stays open.
func (r *Request) Done() <-chan struct{} {
	d := r.done.Load()
	if d == nil {
		d = &doneSignal{ch: make(chan struct{})}
		if !r.done.CompareAndSwap(nil, d) {
			d = r.done.Load()
		}
	}
	// Either this sees the cancellation, or cancel sees d.
	if r.canceled.Load() {
		d.close()
	}
	return d.ch
}

func (r *Request) cancel() {
	r.canceled.Store(true)
	if d := r.done.Load(); d != nil {
		d.close()
	}
}

func (d *doneSignal) close() {
	if !d.closed.Swap(true) {
		close(d.ch)
	}
}

const (
	// slotsMax is how many calls of one connection may be under way.
	slotBits = 14
	slotsMax = 1 << slotBits
	slotMask = slotsMax - 1
	pageBits = 8
)

// inflight finds the requests of a connection by the slot in their ids: the
// reading goroutine enters them, whoever answers takes them out, no lock. Pages
// are made as they are needed.
type inflight [slotsMax >> pageBits]*[1 << pageBits]atomic.Pointer[Request]

func (f *inflight) cell(id uint64) *atomic.Pointer[Request] {
	slot := id & slotMask
	page := &f[slot>>pageBits]
	if *page == nil {
		*page = new([1 << pageBits]atomic.Pointer[Request])
	}
	return &(*page)[slot&(1<<pageBits-1)]
}

// cancelAll tells the handlers of a connection that ended.
func (f *inflight) cancelAll() {
	for _, page := range f {
		if page == nil {
			continue
		}
		for i := range page {
			if r := page[i].Swap(nil); r != nil {
				r.cancel()
			}
		}
	}
}
