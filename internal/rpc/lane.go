package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// waitingMax bounds how many messages wait for a connection that is being made.
const waitingMax = 1024

// hungDial is how long a dial may take to fail and still be repeated with
// messages waiting for it.
const hungDial = 100 * time.Millisecond

// lane is one connection to one peer through its whole life:
//
//	idle ──first message──▶ dialling ──hello accepted──▶ up ──broken──▶ idle
//	                           │ failed                   (conn != nil)
//	                           ▼
//	                        failing: refuses at once; dials again when a message
//	                        comes after the pause. That one waits for the dial if
//	                        the last one failed at once, as it does where nobody
//	                        listens: so what comes after the peer is back is never
//	                        refused for what was true long before. Where dials
//	                        hang, nobody waits for them.
type lane struct {
	pool *Pool
	addr string
	id   Lane
	conn atomic.Pointer[clientConn] // up

	mu struct {
		sync.Mutex
		closed   error
		dialling bool
		failures int       // of dials, in a row
		hung     bool      // the last of them took long to fail
		redial   time.Time // not before
		cause    error     // why the last dial failed
		waiting  []*pending
	}
}

func (l *lane) init(p *Pool, addr string, id Lane) { l.pool, l.addr, l.id = p, addr, id }

// unreachable is an error of a message of which nothing was sent.
type unreachable struct {
	addr  string
	cause error
}

func (e *unreachable) Error() string {
	return fmt.Sprintf("rpc: %s unreachable, nothing was sent: %v", e.addr, e.cause)
}

func (e *unreachable) Is(target error) bool { return target == ErrUnreachable }
func (e *unreachable) Unwrap() error        { return e.cause }

// up gives the connection, nil if there is none that can be used.
func (l *lane) up() *clientConn {
	c := l.conn.Load()
	if c != nil && !c.sameHome && c.ours.cluster != l.pool.opts.Cluster() {
		// Made before this node knew its cluster: the peer is told by a new one.
		c.out.fail(errRecognise)
		return nil
	}
	return c
}

var errRecognise = errors.New("rpc: the connection was made before the cluster was known")

// call sends p, or keeps it until the connection is made.
func (l *lane) call(u urgency, p *pending) ticket {
	if c := l.up(); c != nil {
		if t, ok := c.call(u, p); ok {
			return t
		}
	}
	l.mu.Lock()
	c := l.up()
	if c == nil || c.broken() {
		err := l.waitLocked(p)
		l.mu.Unlock()
		if err != nil {
			p.done(err)
		}
		return ticket{lane: l, p: p}
	}
	l.mu.Unlock()
	if t, ok := c.call(u, p); ok {
		return t
	}
	p.done(&unreachable{l.addr, c.why()})
	return ticket{}
}

// send is call for a one-way message.
func (l *lane) send(m Method, msg Message) error {
	p := &pending{method: m, req: msg}
	if c := l.up(); c != nil {
		if err, ok := c.send(p); ok {
			return err
		}
	}
	l.mu.Lock()
	c := l.up()
	if c == nil || c.broken() {
		err := l.waitLocked(p)
		l.mu.Unlock()
		return err
	}
	l.mu.Unlock()
	if err, ok := c.send(p); ok {
		return err
	}
	return &unreachable{l.addr, c.why()}
}

// waitLocked keeps p until a connection is made, and sees to it that one is.
// In the pause after a dial that failed, and where dials hang, it refuses at once.
func (l *lane) waitLocked(p *pending) error {
	if l.mu.closed != nil {
		return &unreachable{l.addr, l.mu.closed}
	}
	if !l.mu.dialling {
		if l.pool.opts.Clock.Now().Before(l.mu.redial) {
			return &unreachable{l.addr, l.mu.cause}
		}
		if !l.pool.spawn(l.dial) {
			return &unreachable{l.addr, ErrClosed}
		}
		l.mu.dialling = true
	}
	if l.mu.failures > 0 && l.mu.hung {
		return &unreachable{l.addr, l.mu.cause}
	}
	if len(l.mu.waiting) >= waitingMax {
		return ErrOverloaded
	}
	l.mu.waiting = append(l.mu.waiting, p)
	if !p.deadline.IsZero() {
		clock := l.pool.opts.Clock
		p.stop = clock.AfterFunc(max(0, p.deadline.Sub(clock.Now())), func() { l.expire(p) })
	}
	return nil
}

// expire ends a call whose deadline passes before there is a connection.
func (l *lane) expire(p *pending) {
	if l.unwait(p) {
		p.done(&unreachable{l.addr, context.DeadlineExceeded})
	}
}

// unwait takes p out of those that wait; false if it is not among them.
func (l *lane) unwait(p *pending) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.mu.waiting, p)
	if i < 0 {
		return false
	}
	l.mu.waiting = slices.Delete(l.mu.waiting, i, i+1)
	return true
}

// dial makes a connection and serves it until it breaks. It is the lane's
// goroutine, and the connection's reading one.
func (l *lane) dial() {
	clock := l.pool.opts.Clock
	begun := clock.Now()
	c, err := l.connect()
	l.mu.Lock()
	l.mu.dialling = false
	if err == nil && l.mu.closed != nil {
		c.out.fail(l.mu.closed)
		c, err = nil, l.mu.closed
	}
	if err != nil {
		l.mu.failures++
		l.mu.cause = err
		now := clock.Now()
		l.mu.hung = now.Sub(begun) > hungDial
		l.mu.redial = now.Add(l.pool.redialPause(l.mu.failures))
		waiting := l.mu.waiting
		l.mu.waiting = nil
		l.mu.Unlock()
		l.pool.opts.Metrics.DialFailures.Add(1)
		for _, p := range waiting {
			p.settle(&unreachable{l.addr, err})
		}
		return
	}
	l.mu.failures = 0
	l.greetLocked(c)
	l.pool.opts.Metrics.Connections.Add(1)
	c.read()
	l.conn.CompareAndSwap(c, nil)
	l.pool.opts.Metrics.Connections.Add(-1)
}

// greetLocked sends what has waited for the connection before anything newer
// can (R2), publishes it, and unlocks.
func (l *lane) greetLocked(c *clientConn) {
	type failure struct {
		p   *pending
		err error
	}
	var failures []failure
	for _, p := range l.mu.waiting {
		if p.stop != nil && !p.stop() {
			failures = append(failures, failure{p, &unreachable{l.addr, context.DeadlineExceeded}})
			continue
		}
		var err error
		ok := true
		if p.done == nil {
			err, ok = c.send(p)
		} else {
			_, err, ok = c.add(lazy, p)
		}
		if !ok {
			err = &unreachable{l.addr, c.why()}
		}
		if err != nil {
			failures = append(failures, failure{p, err})
		}
	}
	l.mu.waiting = nil
	l.conn.Store(c)
	l.mu.Unlock()
	for _, f := range failures {
		f.p.settle(f.err)
	}
}

// connect dials and shakes hands.
func (l *lane) connect() (*clientConn, error) {
	o := &l.pool.opts
	o.Metrics.Dials.Add(1)
	ctx, cancel := context.WithCancel(l.pool.ctx)
	defer cancel()
	defer o.Clock.AfterFunc(o.DialTimeout, cancel)()
	conn, err := l.pool.net.Dial(ctx, l.addr)
	if err != nil {
		return nil, err
	}
	// Closing is what ends a handshake that takes too long.
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	ours := &hello{
		versionMin: versionMin, versionMax: versionMax, role: o.Role, lane: l.id,
		node: o.Node(), incarnation: o.Incarnation, cluster: o.Cluster(),
	}
	theirs, err := l.shakeHands(conn, ours)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close() // it carried nothing
		var refused *HandshakeError
		if errors.As(err, &refused) {
			o.Metrics.Refusals.Add(1)
			o.Logger.Warn("connection refused", "to", l.addr, "error", err)
		}
		return nil, err
	}
	return newClientConn(l, conn, ours, theirs), nil
}

func (l *lane) shakeHands(conn net.Conn, ours *hello) (*hello, error) {
	if _, err := conn.Write(ours.append(nil)); err != nil {
		return nil, err
	}
	theirs, err := readHello(conn)
	if err != nil {
		return nil, err
	}
	if theirs.refusal != RefusalNone {
		return nil, refusalError(theirs.refusal, ours, theirs)
	}
	if r := refuse(ours, theirs); r != RefusalNone {
		return nil, refusalError(r, ours, theirs)
	}
	return theirs, nil
}

// close ends the lane for good.
func (l *lane) close(err error) {
	l.mu.Lock()
	l.mu.closed = err
	waiting := l.mu.waiting
	l.mu.waiting = nil
	l.mu.Unlock()
	if c := l.conn.Load(); c != nil {
		c.out.fail(err)
	}
	for _, p := range waiting {
		p.settle(&unreachable{l.addr, err})
	}
}
