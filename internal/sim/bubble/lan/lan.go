package lan

import (
	"fmt"
	"hash/fnv"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Delay is how long a segment takes over a link: between Min and Max, mostly
// near Min; Spike of a thousand take up to SpikeMax.
type Delay struct {
	Min, Max time.Duration
	Spike    int
	SpikeMax time.Duration
}

// Options of a network.
type Options struct {
	Seed  uint64
	Delay Delay
	// Trace is told what happens, if it is set.
	Trace func(format string, args ...any)
}

// windowBytes is how much of a connection's one direction may be under way and
// unread, as in two sockets' buffers.
const windowBytes = 256 << 10

// Net is a network of hosts, which have names such as 10.0.0.1.
type Net struct {
	mu    sync.Mutex
	o     Options
	hosts map[string]*Host
	links map[[2]string]*link
	conns []*Conn // both ends, in the order of their making
	made  uint64
}

// link is one direction between two hosts.
type link struct {
	from, to string
	cut      bool
	extra    time.Duration // clogged: so much slower
	sent     uint64
}

// Host is a machine's place in the network.
type Host struct {
	net       *Net
	name      string
	off       bool // without power
	paused    bool // its process stands still
	listeners map[string]*Listener
	ports     int
}

// New makes a network.
func New(o Options) *Net {
	if o.Trace == nil {
		o.Trace = func(string, ...any) {}
	}
	return &Net{o: o, hosts: map[string]*Host{}, links: map[[2]string]*link{}}
}

// Host gives the host of a name, making it if need be.
func (n *Net) Host(name string) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.host(name)
}

func (n *Net) host(name string) *Host {
	h := n.hosts[name]
	if h == nil {
		h = &Host{net: n, name: name, listeners: map[string]*Listener{}, ports: 32768}
		n.hosts[name] = h
	}
	return h
}

func (n *Net) link(from, to string) *link {
	l := n.links[[2]string{from, to}]
	if l == nil {
		l = &link{from: from, to: to}
		n.links[[2]string{from, to}] = l
	}
	return l
}

// delay draws how long the next segment takes on a link.
func (n *Net) delay(l *link) time.Duration {
	l.sent++
	if l.from == l.to {
		return 10 * time.Microsecond
	}
	dice := mix(n.o.Seed, l.from+">"+l.to, l.sent)
	d := n.o.Delay
	span := uint64(max(1, d.Max-d.Min))
	out := d.Min + time.Duration(min(dice%span, dice>>20%span))
	if int(dice>>40%1000) < d.Spike {
		out += time.Duration(mix(dice, "spike", 0) % uint64(max(1, d.SpikeMax)))
	}
	return out + l.extra
}

// mix is a number that depends on its arguments only.
func mix(seed uint64, key string, n uint64) uint64 {
	h := fnv.New64a()
	h.Write([]byte(key))
	x := seed ^ h.Sum64()*0x9e3779b97f4a7c15 ^ n*0xd6e8feb86659fd93
	for range 2 {
		x = (x ^ x>>32) * 0xbea225f9eb34556d
		x = (x ^ x>>29) * 0xbea225f9eb34556d
	}
	return x ^ x>>32
}

// stopped reports whether a link passes nothing: it is cut, or an end of it has
// no power or stands still.
func (n *Net) stopped(l *link) bool {
	a, b := n.host(l.from), n.host(l.to)
	return l.cut || a.off || b.off || a.paused || b.paused
}

// Cut stops a link, one way.
func (n *Net) Cut(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.o.Trace("cut %s>%s", from, to)
	n.link(from, to).cut = true
}

// Clog makes a link slower by extra, one way.
func (n *Net) Clog(from, to string, extra time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.o.Trace("clog %s>%s %v", from, to, extra)
	n.link(from, to).extra = extra
}

// Heal lets a link pass again at its own speed.
func (n *Net) Heal(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.o.Trace("heal %s>%s", from, to)
	l := n.link(from, to)
	l.cut, l.extra = false, 0
	n.resume()
}

// HealAll heals every link.
func (n *Net) HealAll() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.o.Trace("heal all links")
	for _, l := range n.links {
		l.cut, l.extra = false, 0
	}
	n.resume()
}

// resume sends again what waits at links that pass.
func (n *Net) resume() {
	for _, c := range n.conns {
		if !n.stopped(c.out.link) {
			n.schedule(c.out)
		}
	}
}

// Reset ends the connections between two hosts, or those of them that keep spares:
// both ends are told, as by a firewall that forgot them.
func (n *Net) Reset(a, b string, keep func(nth int) bool) (ended int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	nth := 0
	for _, c := range append([]*Conn(nil), n.conns...) {
		if c.out.link.from != a || c.out.link.to != b || c.reset != nil {
			continue
		}
		if nth++; keep != nil && keep(nth) {
			continue
		}
		n.breakConn(c, syscall.ECONNRESET)
		n.breakConn(c.peer, syscall.ECONNRESET)
		ended++
	}
	n.o.Trace("reset %s-%s: %d connections", a, b, ended)
	return ended
}

// breakConn ends one end of a connection with an error.
func (n *Net) breakConn(c *Conn, err error) {
	if c.reset == nil {
		c.reset = err
	}
	c.out.queue, c.out.queued = nil, 0
	c.wake()
	n.drop(c)
}

// drop forgets an end that sends nothing any more.
func (n *Net) drop(c *Conn) {
	for i, o := range n.conns {
		if o == c {
			n.conns = append(n.conns[:i], n.conns[i+1:]...)
			return
		}
	}
}

// Listener is where a host takes connections.
type Listener struct {
	host   *Host
	addr   *net.TCPAddr
	ready  sync.Cond
	queue  []*Conn
	closed bool
}

// Listen opens a port of the host; the address's own host does not matter.
func (h *Host) Listen(addr string) (net.Listener, error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	n := h.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if port == "0" {
		h.ports++
		port = fmt.Sprint(h.ports)
	}
	if h.listeners[port] != nil {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Err: os.NewSyscallError("bind", syscall.EADDRINUSE)}
	}
	l := &Listener{host: h, addr: address(h.name, port)}
	l.ready.L = &n.mu
	h.listeners[port] = l
	return l, nil
}

func address(host, port string) *net.TCPAddr {
	a := &net.TCPAddr{IP: net.ParseIP(host)}
	fmt.Sscan(port, &a.Port)
	return a
}

// Addr is where it listens.
func (l *Listener) Addr() net.Addr { return l.addr }

// Accept gives the next connection.
func (l *Listener) Accept() (net.Conn, error) {
	n := l.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	for {
		switch {
		case l.closed:
			return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.addr, Err: net.ErrClosed}
		case len(l.queue) > 0:
			c := l.queue[0]
			l.queue = l.queue[1:]
			return c, nil
		}
		l.ready.Wait()
	}
}

// Close closes the port and those who wait at it.
func (l *Listener) Close() error {
	n := l.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	delete(l.host.listeners, fmt.Sprint(l.addr.Port))
	for _, c := range l.queue {
		n.breakConn(c, syscall.ECONNRESET)
		if !n.host(l.host.name).off {
			n.breakConn(c.peer, syscall.ECONNRESET)
		}
	}
	l.ready.Broadcast()
	return nil
}
