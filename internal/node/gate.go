package node

import (
	"context"
	"io"
	"net"
	"sync"

	"github.com/braiddb/braid/internal/rpc"
)

// A gate is all that a node has of the network: every connection and listener
// passes through it, so that one call takes the node off the network, whatever
// its goroutines are doing (N2).
type gate struct {
	network rpc.Network

	mu   sync.Mutex
	shut bool
	open map[io.Closer]struct{}
}

func newGate(n rpc.Network) *gate { return &gate{network: n, open: map[io.Closer]struct{}{}} }

// Listen listens until the gate is shut.
func (g *gate) Listen(addr string) (net.Listener, error) {
	l, err := g.network.Listen(addr)
	if err != nil {
		return nil, err
	}
	if !g.enter(l) {
		return nil, net.ErrClosed
	}
	return gateListener{l, g}, nil
}

// Dial connects until the gate is shut.
func (g *gate) Dial(ctx context.Context, addr string) (net.Conn, error) {
	c, err := g.network.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	return g.pass(c)
}

// pass takes a connection into the books. What a TCP connection can do beyond
// net.Conn stays visible: writes that never wait depend on it.
func (g *gate) pass(c net.Conn) (net.Conn, error) {
	if !g.enter(c) {
		return nil, net.ErrClosed
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		return gateTCP{tcp, g}, nil
	}
	return gateConn{c, g}, nil
}

// enter registers c, or closes it if the gate is shut.
func (g *gate) enter(c io.Closer) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		c.Close()
		return false
	}
	g.open[c] = struct{}{}
	return true
}

func (g *gate) leave(c io.Closer) error {
	g.mu.Lock()
	delete(g.open, c)
	g.mu.Unlock()
	return c.Close()
}

// sever closes everything that passed, and lets nothing pass any more. Nothing
// is sent after it has returned.
func (g *gate) sever() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = true
	for c := range g.open {
		c.Close()
	}
	clear(g.open)
}

type gateListener struct {
	net.Listener
	gate *gate
}

// Accept gives the next connection.
func (l gateListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.gate.pass(c)
}

// Close stops listening.
func (l gateListener) Close() error { return l.gate.leave(l.Listener) }

type gateConn struct {
	net.Conn
	gate *gate
}

// Close ends the connection.
func (c gateConn) Close() error { return c.gate.leave(c.Conn) }

type gateTCP struct {
	*net.TCPConn
	gate *gate
}

// Close ends the connection.
func (c gateTCP) Close() error { return c.gate.leave(c.TCPConn) }
