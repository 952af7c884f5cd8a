package rpc

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/braiddb/braid/internal/catalog"
)

// ServerOptions of a server.
type ServerOptions struct {
	// Role that the server serves; peers of another role are refused.
	Role Role
	// Cluster gives the cluster's id, empty until it is known. Default: empty.
	Cluster func() string
	// Node and Incarnation are told to peers.
	Node        func() catalog.NodeID
	Incarnation uint64
	// ConnectionsMax bounds open connections; more are refused. Default 10,000.
	ConnectionsMax int
	// QueueBytes bounds what may wait to be written on a connection: beyond it no
	// further request of that connection is read. Default 16 MiB.
	QueueBytes int
	// RequestBytes bounds what the requests under way of all connections take:
	// beyond it users' requests are refused. One is always taken. Default 64 MiB.
	RequestBytes int64
	// LagMax is how long users' requests may wait to be read: beyond it they are
	// refused. Default 250 ms.
	LagMax time.Duration
	// HandshakeTimeout bounds how long a peer may take to introduce itself. Default 5 s.
	HandshakeTimeout time.Duration

	Clock   Clock        // default SystemClock
	Logger  *slog.Logger // default: discards
	Metrics *Metrics     // default: its own
}

func (o ServerOptions) withDefaults() ServerOptions {
	if o.Role == 0 {
		panic("BUG: a server without a role")
	}
	if o.Cluster == nil {
		o.Cluster = func() string { return "" }
	}
	if o.Node == nil {
		o.Node = func() catalog.NodeID { return 0 }
	}
	if o.ConnectionsMax <= 0 {
		o.ConnectionsMax = 10_000
	}
	if o.QueueBytes <= 0 {
		o.QueueBytes = 16 << 20
	}
	if o.RequestBytes <= 0 {
		o.RequestBytes = 64 << 20
	}
	if o.LagMax <= 0 {
		o.LagMax = 250 * time.Millisecond
	}
	if o.HandshakeTimeout <= 0 {
		o.HandshakeTimeout = 5 * time.Second
	}
	if o.Clock == nil {
		o.Clock = SystemClock{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Metrics == nil {
		o.Metrics = new(Metrics)
	}
	return o
}

// Server serves one role on any number of listeners.
type Server struct {
	opts     ServerOptions
	handlers [len(methods)]handler

	mu struct {
		sync.Mutex
		closed    bool
		listeners map[net.Listener]struct{}
		conns     map[io.Closer]struct{}
	}
	running sync.WaitGroup
}

type handler struct {
	newReq func() Message
	handle func(*Request)
}

// NewServer makes a server without handlers.
func NewServer(o ServerOptions) *Server {
	s := &Server{opts: o.withDefaults()}
	s.mu.listeners = make(map[net.Listener]struct{})
	s.mu.conns = make(map[io.Closer]struct{})
	return s
}

// Metrics counts what the server did.
func (s *Server) Metrics() *Metrics { return s.opts.Metrics }

// Handle says who handles a method. The handler runs on the goroutine that
// reads the connection: it must not block, and hands work that does to others.
// newReq makes the message to decode into; nil means a plain new one. All
// handlers are given before Serve.
func (s *Server) Handle(m Method, newReq func() Message, h func(*Request)) {
	info := m.mustInfo()
	if !info.servedTo(s.opts.Role) {
		panic(fmt.Sprintf("BUG: %s is not for role %s", m, s.opts.Role))
	}
	if newReq == nil {
		newReq = info.req
	}
	s.handlers[m] = handler{newReq, h}
}

// Serve accepts connections until the listener or the server is closed; then it
// returns nil. It owns the listener.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.mu.closed {
		s.mu.Unlock()
		_ = l.Close() // nobody uses it
		return ErrClosed
	}
	s.mu.listeners[l] = struct{}{}
	s.running.Add(1)
	s.mu.Unlock()
	defer s.running.Done()
	for {
		c, err := l.Accept()
		if err != nil {
			return s.accepted(l, err)
		}
		s.mu.Lock()
		closed, busy := s.mu.closed, len(s.mu.conns) >= s.opts.ConnectionsMax
		if !closed {
			s.mu.conns[c] = struct{}{}
			s.running.Add(1)
		}
		s.mu.Unlock()
		if closed {
			_ = c.Close() // nothing was promised on it
			continue
		}
		go func() {
			defer s.running.Done()
			s.serve(c, busy)
			s.mu.Lock()
			delete(s.mu.conns, c)
			s.mu.Unlock()
		}()
	}
}

// accepted ends Serve.
func (s *Server) accepted(l net.Listener, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mu.listeners, l)
	if s.mu.closed || errors.Is(err, net.ErrClosed) {
		return nil
	}
	_ = l.Close() // it failed already
	return fmt.Errorf("rpc: accept on %s: %w", l.Addr(), err)
}

// Close closes listeners and connections and waits for all of their goroutines.
// Requests under way are cancelled; their answers are dropped.
func (s *Server) Close() error {
	s.mu.Lock()
	s.mu.closed = true
	for l := range s.mu.listeners {
		_ = l.Close() // ends its Serve
	}
	for c := range s.mu.conns {
		_ = c.Close() // ends its goroutines
	}
	s.mu.Unlock()
	s.running.Wait()
	return nil
}

// serve is the life of one connection.
func (s *Server) serve(c net.Conn, busy bool) {
	stop := s.opts.Clock.AfterFunc(s.opts.HandshakeTimeout, func() { _ = c.Close() })
	theirs, err := s.shakeHands(c, busy)
	if !stop() && err == nil {
		err = errors.New("rpc: handshake timed out")
	}
	if err != nil {
		_ = c.Close() // refused: the reason was sent
		s.opts.Logger.Info("connection refused", "from", c.RemoteAddr().String(), "error", err)
		return
	}
	sc := newServerConn(s, c, theirs)
	s.opts.Metrics.Connections.Add(1)
	s.running.Add(1)
	go func() {
		defer s.running.Done()
		sc.out.write()
	}()
	err = sc.read()
	var refused *HandshakeError
	if errors.As(err, &refused) {
		sc.out.uncork() // the peer is told why
		sc.out.drain()
	}
	sc.out.fail(err)
	sc.inflight.cancelAll()
	s.opts.Metrics.Connections.Add(-1)
	var bad *FrameError
	if errors.As(err, &bad) {
		s.opts.Metrics.BadFrames.Add(1)
		s.opts.Logger.Warn("connection ended", "from", sc.peer.Addr, "node", sc.peer.Node, "error", err)
	}
}

// shakeHands reads the peer's hello and answers it.
func (s *Server) shakeHands(c net.Conn, busy bool) (*hello, error) {
	theirs, err := readHello(c)
	if err != nil {
		return nil, err
	}
	ours := &hello{
		versionMin: versionMin, versionMax: versionMax, role: s.opts.Role, lane: theirs.lane,
		node: s.opts.Node(), incarnation: s.opts.Incarnation, cluster: s.opts.Cluster(),
	}
	ours.refusal = refuse(ours, theirs)
	if busy && ours.refusal == RefusalNone {
		ours.refusal = RefusalBusy
	}
	if ours.refusal != RefusalNone {
		s.opts.Metrics.Refusals.Add(1)
	}
	if _, err := c.Write(ours.append(nil)); err != nil {
		return nil, err
	}
	if ours.refusal != RefusalNone {
		return nil, refusalError(ours.refusal, ours, theirs)
	}
	return theirs, nil
}

// serverConn is one accepted connection.
type serverConn struct {
	server   *Server
	out      outbox
	peer     Peer
	sameHome bool // both ends are known to belong to one cluster
	inflight inflight
	now      time.Time // when the batch that is handled was read
	lag      lag
}

func newServerConn(s *Server, c net.Conn, theirs *hello) *serverConn {
	sc := &serverConn{server: s, peer: Peer{
		Addr: c.RemoteAddr().String(), Role: theirs.role, Lane: theirs.lane,
		Node: theirs.node, Incarnation: theirs.incarnation, Cluster: theirs.cluster,
	}}
	sc.out.init(c, s.opts.Clock, s.opts.Metrics, s.opts.QueueBytes)
	sc.lag.began = s.opts.Clock.Now()
	// A client need not know the cluster's id.
	sc.sameHome = theirs.role == RoleClient
	return sc
}

// read is the reading goroutine: it handles every frame of a batch, then writes
// what that produced.
func (c *serverConn) read() error {
	c.now = c.server.opts.Clock.Now()
	frames := newFrameReader(c.out.conn, c.server.opts.Metrics, c.out.uncork, func() {
		c.now = c.server.opts.Clock.Now()
		c.out.cork()
	})
	for {
		h, payload, err := frames.next()
		if err != nil {
			return err
		}
		if err := c.frame(h, payload); err != nil {
			return err
		}
		if c.out.pressure.Load() {
			// The peer asks for more than it takes: it gets what it asked for first.
			c.out.uncork()
			c.out.drain()
			c.out.cork()
		}
	}
}

func (c *serverConn) frame(h header, payload []byte) error {
	switch h.kind {
	case kindRequest, kindOneWay:
		return c.request(h, payload)
	case kindCancel:
		if r := c.inflight.cell(h.id).Load(); r != nil && r.id == h.id {
			c.server.opts.Metrics.Canceled.Add(1)
			r.cell.CompareAndSwap(r, nil)
			r.cancel()
		}
		return nil
	case kindPing:
		c.reply(header{kind: kindPong, id: h.id}, nil)
		return nil
	case kindStamp:
		c.now = c.server.opts.Clock.Now()
		c.lag.stamp(c.now, time.Duration(h.id))
		return nil
	}
	return &FrameError{fmt.Sprintf("kind %d at a server", h.kind)}
}

// request hands a message to its handler.
func (c *serverConn) request(h header, payload []byte) error {
	r := &Request{Method: h.method, conn: c, id: h.id}
	if h.timeout > 0 {
		r.Deadline = c.now.Add(time.Duration(h.timeout)*time.Millisecond - c.lag.is)
	}
	if h.kind == kindRequest {
		r.cell = c.inflight.cell(h.id)
		if old := r.cell.Swap(r); old != nil {
			old.cancel() // the caller gave it up and uses its slot again
		}
	}
	info := h.method.info()
	if info == nil || c.server.handlers[h.method].handle == nil || info.oneWay != (h.kind == kindOneWay) {
		r.refuse(errorNoMethod, 0)
		return nil
	}
	if !c.sameHome && !info.open {
		if err := c.recognise(); err != nil {
			r.refuse(errorCluster, 0)
			return err
		}
	}
	if !c.admit(r, info, len(payload)) {
		return nil
	}
	hd := &c.server.handlers[h.method]
	r.Msg = hd.newReq()
	if err := r.Msg.UnmarshalVTUnsafe(payload); err != nil {
		r.refuse(errorBadRequest, 0)
		return nil
	}
	c.server.opts.Metrics.Decodes.Add(1)
	hd.handle(r)
	return nil
}

// recognise decides, for a connection on which an end had no cluster id when it
// was made, whether both belong to one cluster by now. If that is not known the
// connection ends: the peer makes another and says who it is.
func (c *serverConn) recognise() error {
	ours := c.server.opts.Cluster()
	if ours != "" && ours == c.peer.Cluster {
		c.sameHome = true
		return nil
	}
	c.server.opts.Metrics.Refusals.Add(1)
	return &HandshakeError{Refusal: RefusalCluster, Ours: ours, Theirs: c.peer.Cluster}
}

// reply adds a frame to be written. It cannot fail visibly: if the connection is
// gone nobody waits.
func (c *serverConn) reply(h header, m Message) {
	size := 0
	if m != nil {
		size = m.SizeVT()
	}
	encoded, err := c.out.encode(h, m, size)
	if err == nil {
		c.out.mu.Lock()
		if err = c.out.appendLocked(encoded, h, m, size); err == nil {
			c.out.submit(lazy)
			return
		}
		c.out.mu.Unlock()
	}
	if m == nil || errors.Is(err, net.ErrClosed) {
		return
	}
	c.server.opts.Logger.Warn("response not sent", "method", h.method.String(), "bytes", size, "error", err)
	if errors.Is(err, ErrTooLarge) {
		c.reply(header{kind: kindError, code: errorTooLarge, method: h.method, id: h.id}, nil)
	}
}
