package redis

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/catalog"
)

// Version is the Redis version whose command table, options and error texts are
// spoken here; HELLO and INFO name it, for clients choose features by it.
const Version = "7.0.15"

// Table is what the front end needs of the cluster; *client.Table is one.
type Table interface {
	// StartReply carries out operations of one tablet atomically; done is called
	// once, from any goroutine, maybe before it returns.
	StartReply(ops []*client.Op, deadline time.Time, done func(client.Reply, error))
	// Tablets gives the tablets in the order of their hash ranges, as last heard.
	Tablets(ctx context.Context) ([]client.TabletInfo, error)
}

// Options of a server. The zero value is a good default.
type Options struct {
	// Password that clients must give (CONFIG SET requirepass changes it). Empty: none.
	Password string
	// MaxClients is how many connections are served; more are refused. Default 10,000.
	MaxClients int
	// ValueBytesMax bounds one argument of a command. Default 64 MiB.
	ValueBytesMax int
	// QueryBytesMax bounds a command, and what MULTI queues. Default ValueBytesMax + 1 MiB.
	QueryBytesMax int
	// QueryBytesTotal bounds the input buffers of all connections beyond 64 KiB
	// each: no further one grows while the others hold more. Default 1 GiB.
	QueryBytesTotal int64
	// OutputBytesMax bounds the replies that a client leaves unread; one that
	// leaves more is disconnected. Default 4 * ValueBytesMax.
	OutputBytesMax int
	// OutputBytesTotal bounds the replies that all clients leave unread, beyond 64 KiB
	// each: a client that adds to them while the others leave more is disconnected.
	// Default 1 GiB.
	OutputBytesTotal int64
	// RunningBytesTotal bounds what the single-key commands on their way take, of all
	// connections: beyond it they are answered TRYAGAIN at once. One is always taken.
	// Default 256 MiB.
	RunningBytesTotal int64
	// KeysMax bounds the reply of KEYS. Default 100,000.
	KeysMax int
	// Park bounds how long a command waits for a leader. Default: the client's.
	Park time.Duration
	// Drain bounds how long Close waits for commands under way. Default 5 s.
	Drain time.Duration
	// Clock is the time; default the system's.
	Clock func() time.Time
	// Seed of SPOP, SRANDMEMBER, RANDOMKEY. Default: from Clock.
	Seed uint64
	// Logger takes significant moments. Default: none.
	Logger *slog.Logger
	// NodeID is the node that this server is part of, for CLUSTER MYID. 0: unknown.
	NodeID catalog.NodeID
	// ClusterID is written into INFO.
	ClusterID string
	// Info gives further sections of INFO, and replaces fields of those that exist.
	Info func() []InfoSection
	// BraidVersion is written into INFO.
	BraidVersion string
}

// InfoSection is one section of INFO.
type InfoSection struct {
	Name   string // "Replication"
	Fields []InfoField
}

// InfoField is one line of INFO.
type InfoField struct{ Name, Value string }

func (o Options) withDefaults() Options {
	defaults := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	defaults(&o.MaxClients, 10000)
	defaults(&o.ValueBytesMax, 64<<20)
	defaults(&o.QueryBytesMax, o.ValueBytesMax+1<<20)
	defaults(&o.OutputBytesMax, 4*o.ValueBytesMax)
	defaults(&o.KeysMax, 100000)
	if o.QueryBytesTotal <= 0 {
		o.QueryBytesTotal = 1 << 30
	}
	if o.OutputBytesTotal <= 0 {
		o.OutputBytesTotal = 1 << 30
	}
	if o.RunningBytesTotal <= 0 {
		o.RunningBytesTotal = 256 << 20
	}
	if o.Drain <= 0 {
		o.Drain = 5 * time.Second
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Seed == 0 {
		o.Seed = uint64(o.Clock().UnixNano())
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.BraidVersion == "" {
		o.BraidVersion = "dev"
	}
	return o
}

// ErrServerClosed is what Serve returns after Close.
var ErrServerClosed = errors.New("redis: server closed")

// Server serves one table to Redis clients.
type Server struct {
	table    Table
	opts     Options
	commands *commandTable
	config   config
	metrics  Metrics
	started  time.Time

	lastID   atomic.Uint64
	buffers  atomic.Int64 // see Options.QueryBytesTotal
	unread   atomic.Int64 // see Options.OutputBytesTotal
	underWay atomic.Int64 // see Options.RunningBytesTotal
	monitors atomic.Int32
	stopping atomic.Bool
	fresh    freshness
	running  sync.WaitGroup // connections and accept loops

	// ctx ends when commands under way are no longer waited for.
	ctx  context.Context
	stop context.CancelFunc

	mu struct {
		sync.Mutex
		rand      *rand.Rand
		listeners map[net.Listener]struct{}
		conns     map[uint64]*conn
	}
}

// NewServer makes a server for a table of documents, usually client.Client.Redis.
func NewServer(t Table, o Options) *Server {
	o = o.withDefaults()
	s := &Server{table: t, opts: o, commands: newCommandTable(), started: o.Clock()}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.config.init(o)
	s.metrics.commands = s.commands
	s.mu.rand = rand.New(rand.NewPCG(o.Seed, uint64(o.NodeID)))
	s.mu.listeners = map[net.Listener]struct{}{}
	s.mu.conns = map[uint64]*conn{}
	return s
}

// Serve accepts connections until the listener fails or Close is called.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.stopping.Load() {
		s.mu.Unlock()
		return ErrServerClosed
	}
	s.mu.listeners[l] = struct{}{}
	s.running.Add(1)
	s.mu.Unlock()
	defer s.running.Done()
	for {
		nc, err := l.Accept()
		if err == nil {
			s.accept(nc)
			continue
		}
		if s.stopping.Load() {
			return ErrServerClosed
		}
		var temporary interface{ Temporary() bool }
		if !errors.As(err, &temporary) || !temporary.Temporary() {
			return err
		}
		// Out of file descriptors, most likely: those who are connected are served on.
		s.opts.Logger.Warn("redis: accept failed", "err", err)
		if !s.pause(100 * time.Millisecond) {
			return ErrServerClosed
		}
	}
}

// pause waits, and reports false if the server was stopped meanwhile.
func (s *Server) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.ctx.Done():
		return false
	}
}

// accept begins to serve a connection, or refuses it.
func (s *Server) accept(nc net.Conn) {
	c := newConn(s, nc, s.lastID.Add(1))
	s.mu.Lock()
	refused := len(s.mu.conns) >= s.config.maxClients()
	if stopped := s.stopping.Load(); refused || stopped {
		s.mu.Unlock()
		if refused && !stopped {
			s.metrics.Rejected.Add(1)
			_ = nc.SetWriteDeadline(s.opts.Clock().Add(lingerFor))
			_, _ = nc.Write([]byte("-ERR max number of clients reached\r\n"))
		}
		_ = nc.Close() // refused either way
		return
	}
	s.mu.conns[c.id] = c
	s.running.Add(1)
	s.mu.Unlock()
	s.metrics.Connections.Add(1)
	go func() {
		defer s.running.Done()
		c.serve()
	}()
}

// forget removes a connection that has ended.
func (s *Server) forget(c *conn) {
	s.mu.Lock()
	delete(s.mu.conns, c.id)
	s.mu.Unlock()
	if c.info.monitor.Swap(false) {
		s.monitors.Add(-1)
	}
}

// connections gives those that are open, oldest first.
func (s *Server) connections() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*conn, 0, len(s.mu.conns))
	for _, c := range s.mu.conns {
		all = append(all, c)
	}
	sortConns(all)
	return all
}

// random draws 63 bits.
func (s *Server) random() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.rand.Int64()
}

// deadline of a command that came at now; zero leaves it to the client.
func (s *Server) deadline(now time.Time) time.Time {
	if s.opts.Park <= 0 {
		return time.Time{}
	}
	return now.Add(s.opts.Park)
}

// Close stops accepting, lets every connection answer what it has read, and
// closes it; it returns when no goroutine of the server is left. Commands that
// take longer than Options.Drain lose their connection.
func (s *Server) Close() error {
	s.mu.Lock()
	s.stopping.Store(true)
	for l := range s.mu.listeners {
		_ = l.Close() // its Serve returns
	}
	for _, c := range s.mu.conns {
		_ = c.nc.SetReadDeadline(time.Unix(1, 0)) // wakes those that wait for input
	}
	s.mu.Unlock()
	late := time.AfterFunc(s.opts.Drain, func() {
		s.stop()
		for _, c := range s.connections() {
			_ = c.nc.Close() // its commands end by the client's park limit
		}
	})
	defer late.Stop()
	s.running.Wait()
	s.stop()
	return nil
}

// Metrics counts what the server did.
func (s *Server) Metrics() *Metrics { return &s.metrics }
