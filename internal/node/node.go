package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/admin"
	"github.com/braiddb/braid/internal/admin/query"
	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/journal"
	"github.com/braiddb/braid/internal/master"
	"github.com/braiddb/braid/internal/multiraft"
	"github.com/braiddb/braid/internal/protocol/redis"
	"github.com/braiddb/braid/internal/protocol/rest"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/tables/docdb"
)

// Addrs are the addresses at which others reach a node.
type Addrs struct{ Node, Client, Redis, Console string }

// A Node is a running member of a cluster.
type Node struct {
	cfg   Config
	deps  Deps
	log   *slog.Logger
	begin time.Time
	addrs Addrs

	lock        io.Closer
	id          Identity               // of Start's goroutine until the doors open, then constant
	incarnation uint64                 // of id, constant
	directory   []byte                 // of id, constant
	cluster     atomic.Pointer[string] // of id, for connections that are made before it is known
	self        atomic.Uint64          // of id, likewise
	registry    *registry
	addresses   *addresses

	clock   *hlc.Clock
	engine  *docdb.Engine
	journal *journal.Journal
	host    *multiraft.Host
	tablets sync.Map // catalog.GroupID -> *hosted

	machine *masterMachine
	master  atomic.Pointer[master.Master] // nil while no replica of the master's group is here
	mgroup  atomic.Pointer[multiraft.Group]

	logs       logWing
	throughput throughput
	rest       *rest.Server
	logDoors   atomic.Pointer[map[rpc.Method]logMethod] // nil until the storage is open

	listeners    listeners
	nodeServer   *rpc.Server
	clientServer *rpc.Server
	pool         *rpc.Pool
	client       *client.Client
	redis        *redis.Server
	console      *admin.Server
	live         map[string]*liveTable // what queries can ask this node for
	queries      *query.Engine
	former       *former

	index        atomic.Pointer[catalog.Index] // the newest catalog that a heartbeat brought
	lost         atomic.Pointer[map[catalog.GroupID]catalog.ReplicaID]
	masterLeader atomic.Uint64 // who served the last request to the master
	heardMaster  atomic.Int64  // Mono of the last answered heartbeat, 0 if none
	adopting     sync.Mutex    // one catalog is carried out at a time
	draining     atomic.Bool
	suspect      atomic.Bool   // the journal ended in a tail that is in doubt
	opened       atomic.Bool   // the storage is open: requests are served
	flushed      chan struct{} // the LSM has flushed: cut logs and journal

	ctx    context.Context // ends when the node stops
	cancel context.CancelFunc
	loops  sync.WaitGroup
	dead   atomic.Bool   // N2
	died   chan struct{} // closed once it is dead and off the network
	gate   *gate
	ended  sync.Once
}

// Start makes a member of a cluster out of a data directory. It returns when the
// node is part of its cluster; ctx bounds how long it may look for it. A node
// without a join list founds a cluster of its own.
func Start(ctx context.Context, cfg Config, deps Deps) (_ *Node, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	n := &Node{cfg: cfg, deps: deps, log: deps.Logger, begin: deps.Now(), flushed: make(chan struct{}, 1), former: new(former),
		died: make(chan struct{}), gate: newGate(bound(deps.Network, cfg.Listen))}
	n.deps.FS = diskGate{deps.FS, &n.dead}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	none := ""
	n.cluster.Store(&none)
	n.index.Store(catalog.NewIndex(&catalog.Catalog{}))
	defer func() {
		if err != nil {
			n.Kill()
		}
	}()
	for _, step := range []func(context.Context) error{
		n.openDirectory, n.listen, n.meet, n.openStorage, n.openDoors, n.startLoops, n.startLogs,
	} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// openDirectory locks the data directory and begins a new incarnation (N1).
func (n *Node) openDirectory(context.Context) error {
	fs, dir := n.deps.FS, n.cfg.Data
	if err := makeDurably(fs, dir); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	var err error
	if n.lock, err = fs.Lock(fs.PathJoin(dir, "LOCK")); err != nil {
		return fmt.Errorf("data directory %s is in use by another process: %w", dir, err)
	}
	if n.id, err = openIdentity(fs, dir, n.deps.Rand); err != nil {
		return err
	}
	if lease := n.cfg.Lease.Microseconds(); lease > n.id.LeaseMax {
		n.id.LeaseMax = lease
		if err := n.id.save(fs, dir); err != nil {
			return err
		}
	}
	if n.registry, err = openRegistry(fs, dir); err != nil {
		return err
	}
	if n.addresses, err = openAddresses(fs, dir); err != nil {
		return err
	}
	n.incarnation, n.directory = n.id.Incarnation, n.id.DirectoryBytes()
	n.become(n.id)
	n.clock = hlc.New(n.deps.Micros, n.cfg.MaxSkew)
	return nil
}

// become lets connections know who this node is.
func (n *Node) become(id Identity) {
	n.id = id
	n.cluster.Store(&id.Cluster)
	n.self.Store(uint64(id.Node))
}

func (n *Node) clusterID() string      { return *n.cluster.Load() }
func (n *Node) nodeID() catalog.NodeID { return catalog.NodeID(n.self.Load()) }

// listeners are the node's doors, opened before it meets its cluster so that the
// ports are its own.
type listeners struct{ node, client, redis, console net.Listener }

func (n *Node) listen(context.Context) error {
	open := func(port int) (net.Listener, string, error) {
		l, err := n.gate.Listen(net.JoinHostPort(n.cfg.Listen, strconv.Itoa(port)))
		if err != nil {
			return nil, "", fmt.Errorf("listen: %w; choose another port or --listen address", err)
		}
		_, p, err := net.SplitHostPort(l.Addr().String())
		return l, p, err
	}
	doors := []struct {
		l    *net.Listener
		addr *string
		port int
		host string
	}{
		{&n.listeners.node, &n.addrs.Node, n.cfg.NodePort, n.cfg.AdvertiseNode},
		{&n.listeners.client, &n.addrs.Client, n.cfg.ClientPort, n.cfg.Advertise},
		{&n.listeners.redis, &n.addrs.Redis, n.cfg.RedisPort, n.cfg.Advertise},
		{&n.listeners.console, &n.addrs.Console, n.cfg.ConsolePort, n.cfg.Advertise},
	}
	for _, d := range doors {
		l, port, err := open(d.port)
		if err != nil {
			return err
		}
		*d.l, *d.addr = l, net.JoinHostPort(d.host, port)
	}
	n.pool = rpc.NewPool(n.gate, rpc.PoolOptions{
		Role: rpc.RoleNode, Cluster: n.clusterID, Node: n.nodeID, Incarnation: n.incarnation,
		Clock: rpcClock{n.deps}, Rand: n.dice(), Logger: n.log, RedialMax: 100 * time.Millisecond,
	})
	n.nodeServer = rpc.NewServer(n.serverOptions(rpc.RoleNode))
	n.clientServer = rpc.NewServer(n.serverOptions(rpc.RoleClient))
	n.handleNodes()
	n.handleClients()
	n.serve(n.nodeServer, n.listeners.node)
	return nil
}

func (n *Node) serverOptions(role rpc.Role) rpc.ServerOptions {
	return rpc.ServerOptions{
		Role: role, Cluster: n.clusterID, Node: n.nodeID, Incarnation: n.incarnation, Clock: rpcClock{n.deps}, Logger: n.log,
		RequestBytes: n.cfg.Memory / requestShare,
	}
}

// serve runs a server on a listener until the node ends.
func (n *Node) serve(s *rpc.Server, l net.Listener) {
	n.loops.Go(func() {
		if err := s.Serve(l); err != nil && n.ctx.Err() == nil {
			n.fatal(fmt.Errorf("listener %s: %w", l.Addr(), err))
		}
	})
}

// rpcClock is the node's world as package rpc sees it.
type rpcClock struct{ deps Deps }

// Now is the physical clock.
func (c rpcClock) Now() time.Time { return c.deps.Now() }

// AfterFunc calls f once d has passed.
func (c rpcClock) AfterFunc(d time.Duration, f func()) func() bool { return c.deps.AfterFunc(d, f) }

// fatal ends the node: nothing of this incarnation writes, sends or answers
// afterwards (N2), and whoever runs it is told.
func (n *Node) fatal(err error) {
	if n.silence() {
		n.log.Error("fatal fault", "error", err)
		n.deps.Fatal(err)
	}
}

// silence takes the node off its disk and its network, and reports whether this
// call was the one that did.
func (n *Node) silence() bool {
	if n.dead.Swap(true) {
		return false
	}
	n.cancel()
	n.gate.sever()
	close(n.died)
	return true
}

// Addrs are the addresses at which others reach the node.
func (n *Node) Addrs() Addrs { return n.addrs }

// ID is the node's id in its cluster.
func (n *Node) ID() catalog.NodeID { return n.nodeID() }

// FS is what a node's rooms keep their files on.
func (n *Node) FS() vfs.FS { return n.deps.FS }

// WaitReady returns when the node serves, or with the reason why it did not
// when ctx ended.
func (n *Node) WaitReady(ctx context.Context) error {
	for {
		err := n.Ready()
		if err == nil {
			return nil
		}
		if e := n.sleep(ctx, 5*time.Millisecond); e != nil {
			return errors.Join(e, err)
		}
	}
}
