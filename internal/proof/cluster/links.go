package cluster

import (
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"
)

// Links puts a proxy before every node's port for other nodes. Since a node sends
// from its own address, the proxy knows which link a connection belongs to and can
// cut it, in one direction or both: bytes stop, connections stay open, as when a
// cable is pulled [C3].
type Links struct {
	mu        sync.Mutex
	changed   *sync.Cond
	cut       map[[2]int]bool          // from, to
	slow      map[[2]int]time.Duration // each piece takes so much longer
	done      bool
	listeners []net.Listener
	conns     sync.WaitGroup
	open      map[net.Conn][2]int
}

func startLinks(nodes []*Process) (*Links, error) {
	l := &Links{cut: map[[2]int]bool{}, slow: map[[2]int]time.Duration{}, open: map[net.Conn][2]int{}}
	l.changed = sync.NewCond(&l.mu)
	for _, p := range nodes {
		ln, err := net.Listen("tcp", net.JoinHostPort(p.ProxyHost(), strconv.Itoa(p.NodePort)))
		if err != nil {
			l.close()
			return nil, err
		}
		l.listeners = append(l.listeners, ln)
		l.conns.Go(func() { l.accept(ln, p) })
	}
	return l, nil
}

func (l *Links) accept(ln net.Listener, to *Process) {
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

// holds keeps a connection among the open ones of a link; false if all is over.
func (l *Links) holds(c net.Conn, link [2]int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done {
		return false
	}
	l.open[c] = link
	return true
}

func (l *Links) drops(c net.Conn) {
	c.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, c)
}

func (l *Links) forward(in net.Conn, from int, to *Process) {
	defer l.drops(in)
	link, back := [2]int{from, to.Index}, [2]int{to.Index, from}
	if !l.holds(in, link) || !l.wait(link) {
		return
	}
	out, err := net.DialTimeout("tcp", net.JoinHostPort(to.Host, strconv.Itoa(to.NodePort)), 2*time.Second)
	if err != nil {
		return
	}
	defer l.drops(out)
	if !l.holds(out, link) {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { l.pump(in, out, link); out.Close() })
	both.Go(func() { l.pump(out, in, back); in.Close() })
	both.Wait()
}

// pump copies bytes that travel in one direction while that is whole.
func (l *Links) pump(src, dst net.Conn, link [2]int) {
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		if !l.wait(link) {
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

// wait blocks while the link is cut, and for as long as it is slow; false means
// that all is over.
func (l *Links) wait(link [2]int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if d := l.slow[link]; d > 0 && !l.done {
		l.mu.Unlock()
		time.Sleep(d)
		l.mu.Lock()
	}
	for l.cut[link] && !l.done {
		l.changed.Wait()
	}
	return !l.done
}

// Cut stops what one node sends to another.
func (l *Links) Cut(from, to int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut[[2]int{from, to}] = true
}

// Isolate cuts a node off from all others, both ways.
func (l *Links) Isolate(node int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for other := 1; other <= len(l.listeners); other++ {
		if other != node {
			l.cut[[2]int{node, other}], l.cut[[2]int{other, node}] = true, true
		}
	}
}

// Slow makes each piece that one node sends to another take so much longer.
func (l *Links) Slow(from, to int, by time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.slow[[2]int{from, to}] = by
}

// Reset closes all connections between two nodes.
func (l *Links) Reset(a, b int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c, link := range l.open {
		if link == [2]int{a, b} || link == [2]int{b, a} {
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}
	}
}

// Heal mends every link.
func (l *Links) Heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.cut)
	clear(l.slow)
	l.changed.Broadcast()
}

func (l *Links) close() {
	l.mu.Lock()
	l.done = true
	l.changed.Broadcast()
	for c := range l.open {
		c.Close()
	}
	l.mu.Unlock()
	for _, ln := range l.listeners {
		ln.Close()
	}
	l.conns.Wait()
}
