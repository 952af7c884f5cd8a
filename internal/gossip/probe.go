package gossip

import (
	"context"
	"errors"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/braiddb/braid/internal/catalog"
)

// Prober looks whether addresses refuse connections: a Deps.Probe over a network.
type Prober struct {
	dial    func(ctx context.Context, addr string) (net.Conn, error)
	addr    func(catalog.NodeID) string
	timeout time.Duration
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu struct {
		sync.Mutex
		closed bool
		under  map[catalog.NodeID]bool // way: one probe of a node at a time
	}
}

// NewProber makes a prober. addr gives where a node listens, empty if not known;
// an answer that takes longer than timeout is none.
func NewProber(dial func(ctx context.Context, addr string) (net.Conn, error), addr func(catalog.NodeID) string, timeout time.Duration) *Prober {
	p := &Prober{dial: dial, addr: addr, timeout: timeout}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.mu.under = make(map[catalog.NodeID]bool)
	return p
}

// Probe calls refused if the node's address refuses a connection. It does not
// wait for that.
func (p *Prober) Probe(node catalog.NodeID, refused func()) {
	addr := p.addr(node)
	p.mu.Lock()
	defer p.mu.Unlock()
	if addr == "" || p.mu.closed || p.mu.under[node] {
		return
	}
	p.mu.under[node] = true
	p.running.Add(1)
	go func() {
		defer p.running.Done()
		ctx, cancel := context.WithTimeout(p.ctx, p.timeout)
		defer cancel()
		conn, err := p.dial(ctx, addr)
		if conn != nil {
			_ = conn.Close() // nothing was said on it
		}
		p.mu.Lock()
		delete(p.mu.under, node)
		p.mu.Unlock()
		if errors.Is(err, syscall.ECONNREFUSED) {
			refused()
		}
	}()
}

// Close ends the probes under way and waits for them.
func (p *Prober) Close() {
	p.mu.Lock()
	p.mu.closed = true
	p.mu.Unlock()
	p.cancel()
	p.running.Wait()
}
