package proof

import (
	"fmt"
	"net"
	"strconv"
	"sync"
	"testing"
)

// proxyHost is the address at which other nodes reach p through its proxy.
func (p *process) proxyHost() string { return fmt.Sprintf("127.0.1.%d", p.index) }

// links puts a proxy before every node's port for other nodes. Since a node
// sends from its own address, the proxy knows which link a connection belongs to
// and can cut it: bytes stop in both directions, connections stay open, as when
// a cable is pulled.
type links struct {
	mu struct {
		sync.Mutex
		cond *sync.Cond
		cut  map[[2]int]bool // from, to
		done bool
	}
	listeners []net.Listener
	conns     sync.WaitGroup
	open      sync.Map // net.Conn
}

func startLinks(t testing.TB, nodes []*process) *links {
	t.Helper()
	l := &links{}
	l.mu.cond = sync.NewCond(&l.mu.Mutex)
	l.mu.cut = map[[2]int]bool{}
	for _, p := range nodes {
		ln, err := net.Listen("tcp", net.JoinHostPort(p.proxyHost(), strconv.Itoa(p.node)))
		if err != nil {
			t.Fatal(err)
		}
		l.listeners = append(l.listeners, ln)
		l.conns.Go(func() { l.accept(ln, p) })
	}
	return l
}

func (l *links) accept(ln net.Listener, to *process) {
	for {
		in, err := ln.Accept()
		if err != nil {
			return
		}
		host, _, _ := net.SplitHostPort(in.RemoteAddr().String())
		var from int
		fmt.Sscanf(host, "127.0.0.%d", &from)
		l.conns.Go(func() { l.forward(in, from, to) })
	}
}

func (l *links) forward(in net.Conn, from int, to *process) {
	defer in.Close()
	l.open.Store(in, nil)
	defer l.open.Delete(in)
	if !l.wait(from, to.index) {
		return
	}
	out, err := net.Dial("tcp", net.JoinHostPort(to.host, strconv.Itoa(to.node)))
	if err != nil {
		return
	}
	defer out.Close()
	l.open.Store(out, nil)
	defer l.open.Delete(out)
	var both sync.WaitGroup
	both.Go(func() { l.pump(in, out, from, to.index); out.Close() })
	both.Go(func() { l.pump(out, in, to.index, from); in.Close() })
	both.Wait()
}

// pump copies bytes that travel from one node to another while the link is whole.
func (l *links) pump(src, dst net.Conn, from, to int) {
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		if !l.wait(from, to) {
			return
		}
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// wait blocks while the link is cut; false means that the test is over.
func (l *links) wait(from, to int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.mu.cut[[2]int{from, to}] && !l.mu.done {
		l.mu.cond.Wait()
	}
	return !l.mu.done
}

// set cuts or mends the link from one node to another, in that direction.
func (l *links) set(from, to int, cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.cut[[2]int{from, to}] = cut
	l.mu.cond.Broadcast()
}

// isolate cuts node i off from all others, both ways; heal mends every link.
func (l *links) isolate(i, nodes int) {
	for j := 1; j <= nodes; j++ {
		if j != i {
			l.set(i, j, true)
			l.set(j, i, true)
		}
	}
}

func (l *links) heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.mu.cut)
	l.mu.cond.Broadcast()
}

func (l *links) close() {
	l.mu.Lock()
	l.mu.done = true
	l.mu.cond.Broadcast()
	l.mu.Unlock()
	for _, ln := range l.listeners {
		ln.Close()
	}
	l.open.Range(func(c, _ any) bool { c.(net.Conn).Close(); return true })
	l.conns.Wait()
}
