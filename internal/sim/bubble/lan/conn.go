package lan

import (
	"context"
	"hash/fnv"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Conn is one end of a connection.
type Conn struct {
	net    *Net
	id     uint64
	peer   *Conn
	local  *net.TCPAddr
	remote *net.TCPAddr
	out    *stream // what this end writes
	in     *stream // what the other end writes

	changed  sync.Cond // anything that a Read or a Write of this end may wait for
	closed   bool
	reset    error // what ended the connection, if it was not Close
	deadline [2]deadline
}

const (
	reading = iota
	writing
)

type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

// stream is one direction of a connection.
type stream struct {
	link    *link
	to      *Conn
	queue   []segment // written and not arrived, in order
	queued  int
	last    time.Time // when the last of them arrives, at the earliest
	arrived []byte
	end     bool // the other end closed, and all that it wrote has arrived
}

// segment is what one Write gave, or the end.
type segment struct {
	at   time.Time
	data []byte
	fin  bool
}

// Dial connects to a port of another host, there and back.
func (h *Host) Dial(ctx context.Context, addr string) (net.Conn, error) {
	name, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	n := h.net
	refused := func(err error) error {
		return &net.OpError{Op: "dial", Net: "tcp", Addr: address(name, port), Err: err}
	}
	for {
		n.mu.Lock()
		there, back := n.link(h.name, name), n.link(name, h.name)
		stopped := n.stopped(there) || n.stopped(back)
		wait := n.delay(there) + n.delay(back)
		if stopped {
			wait = dialAgain // a SYN is sent again and again
		}
		n.mu.Unlock()
		if err := sleep(ctx, wait); err != nil {
			return nil, refused(err)
		}
		if stopped {
			continue
		}
		n.mu.Lock()
		if n.stopped(there) || n.stopped(back) {
			n.mu.Unlock()
			continue
		}
		l := n.host(name).listeners[port]
		if l == nil {
			n.o.Trace("refused %s>%s:%s", h.name, name, port)
			n.mu.Unlock()
			return nil, refused(os.NewSyscallError("connect", syscall.ECONNREFUSED))
		}
		c := n.connect(h, l)
		n.mu.Unlock()
		return c, nil
	}
}

const dialAgain = 200 * time.Millisecond

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// connect makes both ends and queues the far one to be accepted.
func (n *Net) connect(h *Host, l *Listener) *Conn {
	h.ports++
	n.made++
	here := &net.TCPAddr{IP: net.ParseIP(h.name), Port: h.ports}
	a := &Conn{net: n, id: n.made, local: here, remote: l.addr}
	b := &Conn{net: n, id: n.made, local: l.addr, remote: here, peer: a}
	a.peer = b
	a.out = &stream{link: n.link(h.name, l.host.name), to: b}
	b.out = &stream{link: n.link(l.host.name, h.name), to: a}
	a.in, b.in = b.out, a.out
	a.changed.L, b.changed.L = &n.mu, &n.mu
	n.conns = append(n.conns, a, b)
	l.queue = append(l.queue, b)
	l.ready.Signal()
	n.o.Trace("c%d %s>%s", a.id, here, l.addr)
	return a
}

func (c *Conn) wake() { c.changed.Broadcast() }

// schedule lets what waits at a link leave it.
func (n *Net) schedule(s *stream) {
	if len(s.queue) == 0 {
		return
	}
	for i := range s.queue {
		at := time.Now().Add(n.delay(s.link))
		if at.Before(s.last) {
			at = s.last
		}
		s.last, s.queue[i].at = at, at
		time.AfterFunc(time.Until(at), func() { n.arrive(s) })
	}
}

// arrive takes in what has had its time.
func (n *Net) arrive(s *stream) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stopped(s.link) {
		return // it goes on with resume
	}
	now := time.Now()
	for len(s.queue) > 0 && !s.queue[0].at.After(now) {
		g := s.queue[0]
		s.queue = s.queue[1:]
		s.queued -= len(g.data)
		if s.to.closed || s.to.reset != nil {
			n.unwanted(s, g)
			continue
		}
		h := fnv.New64a()
		h.Write(g.data)
		n.o.Trace("c%d %s>%s %d %016x", s.to.id, s.link.from, s.link.to, len(g.data), h.Sum64())
		s.arrived = append(s.arrived, g.data...)
		s.end = s.end || g.fin
	}
	s.to.wake()
	s.to.peer.wake() // there is room in the window
}

// unwanted is data for an end that is no more: the sender is told by a reset.
func (n *Net) unwanted(s *stream, g segment) {
	from := s.to.peer
	if g.fin || from.closed || from.reset != nil {
		return
	}
	n.o.Trace("c%d %s>%s answered by a reset", from.id, s.link.from, s.link.to)
	n.breakConn(from, syscall.ECONNRESET)
}

func (c *Conn) failure(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: c.local, Addr: c.remote, Err: err}
}

// Read gives what has arrived, and waits for it.
func (c *Conn) Read(p []byte) (int, error) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	for {
		switch {
		case c.closed:
			return 0, c.failure("read", net.ErrClosed)
		case c.deadline[reading].passed():
			return 0, c.failure("read", os.ErrDeadlineExceeded)
		case c.reset != nil:
			return 0, c.failure("read", c.reset)
		case len(c.in.arrived) > 0:
			k := copy(p, c.in.arrived)
			c.in.arrived = c.in.arrived[k:]
			if len(c.in.arrived) == 0 {
				c.in.arrived = nil
			}
			c.peer.wake()
			return k, nil
		case c.in.end:
			return 0, io.EOF
		case len(p) == 0:
			return 0, nil
		}
		c.changed.Wait()
	}
}

// Write gives data to the link, and waits while the window is full.
func (c *Conn) Write(p []byte) (sent int, err error) {
	n := c.net
	n.mu.Lock()
	defer n.mu.Unlock()
	for len(p) > 0 {
		room := windowBytes - c.out.queued - len(c.out.arrived)
		switch {
		case c.closed:
			return sent, c.failure("write", net.ErrClosed)
		case c.deadline[writing].passed():
			return sent, c.failure("write", os.ErrDeadlineExceeded)
		case c.reset != nil:
			return sent, c.failure("write", c.reset)
		case room > 0:
			k := min(room, len(p))
			c.out.put(n, segment{data: append([]byte(nil), p[:k]...)})
			p, sent = p[k:], sent+k
			continue
		}
		c.changed.Wait()
	}
	return sent, nil
}

// put queues a segment, and sends it if the link passes.
func (s *stream) put(n *Net, g segment) {
	s.queued += len(g.data)
	at := time.Now().Add(n.delay(s.link))
	if at.Before(s.last) {
		at = s.last
	}
	s.last, g.at = at, at
	s.queue = append(s.queue, g)
	if !n.stopped(s.link) {
		time.AfterFunc(time.Until(at), func() { n.arrive(s) })
	}
}

// Close ends the connection: what was written still arrives, then its end. An end
// that closes with unread data resets the other, as TCP does.
func (c *Conn) Close() error {
	n := c.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if c.closed {
		return c.failure("close", net.ErrClosed)
	}
	c.closed = true
	c.stopTimers()
	c.wake()
	if c.reset == nil && !n.host(c.out.link.from).off {
		c.out.put(n, segment{fin: true})
	}
	if c.peer.closed || c.peer.reset != nil {
		n.drop(c)
		n.drop(c.peer)
	}
	return nil
}

func (c *Conn) stopTimers() {
	for i := range c.deadline {
		if t := c.deadline[i].timer; t != nil {
			t.Stop()
		}
	}
}

// LocalAddr is this end.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr is the other end.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline sets both.
func (c *Conn) SetDeadline(t time.Time) error {
	c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

// SetReadDeadline bounds Reads, those under way included.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadline(reading, t) }

// SetWriteDeadline bounds Writes, those under way included.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(writing, t) }

func (c *Conn) setDeadline(which int, t time.Time) error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if c.closed {
		return c.failure("set", net.ErrClosed)
	}
	d := &c.deadline[which]
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.at = t
	if !t.IsZero() {
		d.timer = time.AfterFunc(time.Until(t), func() {
			c.net.mu.Lock()
			defer c.net.mu.Unlock()
			c.wake()
		})
	}
	c.wake()
	return nil
}
