package rpc

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/braiddb/braid/internal/wire"
)

func testCluster() string { return "c1" }

// listen makes a server on a free port, not yet serving.
func listen(t testing.TB, role Role) (*Server, net.Listener, *Metrics) {
	t.Helper()
	l, err := TCP{}.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := new(Metrics)
	// However slow the machine is, its requests are not refused for that.
	return NewServer(ServerOptions{Role: role, Cluster: testCluster, Metrics: m, LagMax: time.Minute}), l, m
}

// serve serves until the test ends.
func serve(t testing.TB, s *Server, l net.Listener) {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// pipes is a network in memory. Its connections have no descriptor, so all is
// written by writer goroutines, and in a bubble its time is the bubble's.
type pipes struct {
	mu        sync.Mutex
	listeners map[string]*pipeListener
	dials     int
	made      []net.Conn // both ends, for tests that break them
}

type pipeListener struct {
	net    *pipes
	addr   string
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

var errRefused = errors.New("connection refused")

func newPipes() *pipes { return &pipes{listeners: map[string]*pipeListener{}} }

func (n *pipes) Listen(addr string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := &pipeListener{net: n, addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
	n.listeners[addr] = l
	return l, nil
}

func (n *pipes) Dial(ctx context.Context, addr string) (net.Conn, error) {
	n.mu.Lock()
	n.dials++
	l := n.listeners[addr]
	n.mu.Unlock()
	if l == nil {
		return nil, errRefused
	}
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		n.mu.Lock()
		n.made = append(n.made, ours, theirs)
		n.mu.Unlock()
		return ours, nil
	case <-l.closed:
		return nil, errRefused
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// cut closes every connection.
func (n *pipes) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.made {
		_ = c.Close() // again, perhaps
	}
	n.made = nil
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.net.mu.Lock()
		delete(l.net.listeners, l.addr)
		l.net.mu.Unlock()
	})
	return nil
}

func (l *pipeListener) Addr() net.Addr { return pipeAddr(l.addr) }

type pipeAddr string

func (a pipeAddr) Network() string { return "pipe" }
func (a pipeAddr) String() string  { return string(a) }

// rig is a server and a pool in one bubble.
type rig struct {
	t      *testing.T
	net    *pipes
	server *Server
	pool   *Pool
	client *Client
	ended  chan error
}

// inBubble gives a server at "s" and a pool, in fake time. The bubble checks
// that no goroutine outlives their Close (R7).
func inBubble(t *testing.T, so ServerOptions, po PoolOptions, setup func(*Server), test func(*rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, net: newPipes()}
		if so.Role == 0 {
			so.Role, so.Cluster = RoleNode, testCluster
		}
		if po.Role == 0 {
			po.Role, po.Cluster = RoleNode, testCluster
		}
		r.start(so, setup)
		r.pool = NewPool(r.net, po)
		r.client = r.pool.To("s")
		test(r)
		if err := r.pool.Close(); err != nil {
			t.Error(err)
		}
		r.stop()
	})
}

func (r *rig) start(so ServerOptions, setup func(*Server)) {
	r.t.Helper()
	r.server = NewServer(so)
	setup(r.server)
	l, err := r.net.Listen("s")
	if err != nil {
		r.t.Fatal(err)
	}
	s, ended := r.server, make(chan error, 1)
	r.ended = ended
	go func() { ended <- s.Serve(l) }()
	synctest.Wait()
}

func (r *rig) stop() {
	r.t.Helper()
	if err := r.server.Close(); err != nil {
		r.t.Error(err)
	}
	if err := <-r.ended; err != nil {
		r.t.Error(err)
	}
}

// write calls MethodWrite with a table number, and gives the copies of the answer.
func (r *rig) write(ctx context.Context, table uint32) (uint32, error) {
	resp := new(wire.WriteResponse)
	err := r.client.Call(ctx, MethodWrite, &wire.WriteRequest{Table: table}, resp)
	return resp.Copies, err
}

// echoTable answers a write with its table number as the number of copies.
func echoTable(s *Server) {
	s.Handle(MethodWrite, nil, func(r *Request) {
		r.Reply(&wire.WriteResponse{Copies: r.Msg.(*wire.WriteRequest).Table})
	})
}
