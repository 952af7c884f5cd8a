package epochstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/logs/sequencer"
	"github.com/braiddb/braid/internal/wire"
)

// ZooKeeperOptions say where the store is.
type ZooKeeperOptions struct {
	Servers []string // host:port
	Root    string   // path of the znode below which everything is; default /braid
	// Cluster is the id of the cluster that the store is of. A root that is
	// another's is refused.
	Cluster string
	// SessionTimeout is how long ZooKeeper keeps a session without a connection.
	// Nothing here depends on it but how fast a silent server is given up. Default 10 s.
	SessionTimeout time.Duration
	// Workers is how many requests are under way at a time. Default 64.
	Workers int
	Logger  *slog.Logger
	// Dial replaces net.DialTimeout.
	Dial func(network, address string, timeout time.Duration) (net.Conn, error)
}

// ParseZooKeeper reads "zookeeper://host[:port],host[:port]/root".
func ParseZooKeeper(s string) (servers []string, root string, err error) {
	rest, ok := strings.CutPrefix(s, "zookeeper://")
	hosts, root, _ := strings.Cut(rest, "/")
	if !ok || hosts == "" {
		return nil, "", fmt.Errorf("%q is not zookeeper://HOST:PORT,.../ROOT", s)
	}
	for host := range strings.SplitSeq(hosts, ",") {
		if _, _, err := net.SplitHostPort(host); err != nil {
			host = net.JoinHostPort(strings.Trim(host, "[]"), strconv.Itoa(zk.DefaultPort))
		}
		if name, port, err := net.SplitHostPort(host); err != nil || name == "" || port == "" {
			return nil, "", fmt.Errorf("%q: %q is not HOST or HOST:PORT", s, host)
		}
		servers = append(servers, host)
	}
	if root == "" {
		return servers, "/braid", nil
	}
	if root = "/" + root; path.Clean(root) != root {
		return nil, "", fmt.Errorf("%q: %q is not a path of a znode", s, root)
	}
	return servers, root, nil
}

// ZooKeeper is the store on ZooKeeper, where LogDevice keeps it: one znode for
// each log. A znode's own version makes the compare-and-set; the record's version
// is what callers see, since a znode that is restored by hand begins anew.
//
//	<root>          the cluster's id
//	<root>/logs/17  the record of log 17
//
// The library keeps a session and makes a new one when it has expired. No znode
// here depends on a session.
type ZooKeeper struct {
	o       ZooKeeperOptions
	conn    *zk.Conn
	metrics Metrics
	workers sync.WaitGroup
	queue   chan func()

	mu struct {
		sync.RWMutex
		closed bool
	}
	prepared struct {
		sync.Mutex
		done bool
	}
}

// OpenZooKeeper makes the store; it does not wait for a connection.
func OpenZooKeeper(o ZooKeeperOptions) (*ZooKeeper, error) {
	if o.Root == "" {
		o.Root = "/braid"
	}
	if o.SessionTimeout == 0 {
		o.SessionTimeout = 10 * time.Second
	}
	if o.Workers == 0 {
		o.Workers = 64
	}
	if o.Dial == nil {
		o.Dial = net.DialTimeout
	}
	conn, events, err := zk.Connect(o.Servers, o.SessionTimeout, zk.WithDialer(o.Dial), zk.WithLogInfo(false), zk.WithLogger(zkLog{o.Logger}),
		zk.WithMaxBufferSize(2*recordMax))
	if err != nil {
		return nil, fmt.Errorf("epoch store: ZooKeeper at %s: %w", strings.Join(o.Servers, ","), err)
	}
	z := &ZooKeeper{o: o, conn: conn, queue: make(chan func(), waitingMax)}
	z.workers.Go(func() { z.listen(events) })
	for range o.Workers {
		z.workers.Go(func() {
			for work := range z.queue {
				work()
			}
		})
	}
	return z, nil
}

// listen tells of sessions; the library goes on by itself.
func (z *ZooKeeper) listen(events <-chan zk.Event) {
	for e := range events {
		if z.o.Logger == nil || e.Type != zk.EventSession {
			continue
		}
		switch e.State {
		case zk.StateExpired, zk.StateAuthFailed:
			z.o.Logger.Warn("epoch store: ZooKeeper session lost", "state", e.State.String(), "server", e.Server)
		case zk.StateHasSession:
			z.o.Logger.Info("epoch store: ZooKeeper session", "server", e.Server)
		}
	}
}

// zkLog passes on what the library has to say.
type zkLog struct{ logger *slog.Logger }

// Printf is the library's one way to say anything.
func (l zkLog) Printf(f string, args ...any) {
	if l.logger != nil {
		l.logger.Debug("ZooKeeper client: " + fmt.Sprintf(f, args...))
	}
}

// Metrics counts what the store did.
func (z *ZooKeeper) Metrics() *Metrics { return &z.metrics }

// Close ends the session; requests that wait end with an error.
func (z *ZooKeeper) Close() {
	z.mu.Lock()
	if z.mu.closed {
		z.mu.Unlock()
		return
	}
	z.mu.closed = true
	close(z.queue)
	z.mu.Unlock()
	z.conn.Close()
	z.workers.Wait()
}

// submit hands work to a worker.
func (z *ZooKeeper) submit(work func()) error {
	z.mu.RLock()
	defer z.mu.RUnlock()
	if z.mu.closed {
		return ErrClosed
	}
	select {
	case z.queue <- work:
		return nil
	default:
		return ErrOverloaded
	}
}

// Read gives the record of a log, nil if there is none.
func (z *ZooKeeper) Read(log logs.LogID, done func(*wire.EpochRecord, error)) {
	z.metrics.Reads.Add(1)
	if err := z.submit(func() { done(z.read(log)) }); err != nil {
		done(nil, err)
	}
}

// CompareAndSet replaces the record of version expect.
func (z *ZooKeeper) CompareAndSet(log logs.LogID, expect uint64, next *wire.EpochRecord, done func(error)) {
	z.metrics.Writes.Add(1)
	if err := checkRequest(log, expect, next); err != nil {
		done(err)
		return
	}
	data, err := encode(next)
	if err == nil {
		err = z.submit(func() { done(z.metrics.count(z.set(log, expect, next, data))) })
	}
	if err != nil {
		done(err)
	}
}

func (z *ZooKeeper) parent() string { return path.Join(z.o.Root, "logs") }
func (z *ZooKeeper) znode(log logs.LogID) string {
	return z.parent() + "/" + strconv.FormatUint(uint64(log), 10)
}

// attempts is how often what changes nothing, or can be repeated, is tried while
// connections break; each waits for a connection.
const attempts = 4

func insist(try func() error) (err error) {
	for range attempts {
		if err = try(); !connection(err) {
			break
		}
	}
	return err
}

// read is linearizable: the server that is asked first catches up with what the
// others have answered (E3).
func (z *ZooKeeper) read(log logs.LogID) (*wire.EpochRecord, error) {
	if err := z.prepare(); err != nil {
		return nil, err
	}
	var r *wire.EpochRecord
	err := insist(func() error {
		_, err := z.conn.Sync(z.znode(log))
		if err == nil {
			r, _, err = z.get(log)
		}
		return err
	})
	if err != nil {
		return nil, z.failed("read", log, err)
	}
	return r, nil
}

// get reads from the server at hand, which may be behind. The record is nil if
// there is none.
func (z *ZooKeeper) get(log logs.LogID) (*wire.EpochRecord, int32, error) {
	data, stat, err := z.conn.Get(z.znode(log))
	switch {
	case errors.Is(err, zk.ErrNoNode):
		return nil, 0, nil
	case err != nil:
		return nil, 0, err
	}
	r, err := decode(log, data)
	return r, stat.Version, err
}

// set is one compare-and-set. Where the server at hand shows another version than
// the one expected it may be behind, so it is asked to catch up before that is
// believed.
func (z *ZooKeeper) set(log logs.LogID, expect uint64, next *wire.EpochRecord, data []byte) error {
	if err := z.prepare(); err != nil {
		return err
	}
	if expect == 0 {
		_, err := z.conn.Create(z.znode(log), data, 0, zk.WorldACL(zk.PermAll))
		if errors.Is(err, zk.ErrNoNode) { // somebody has removed the root
			z.prepared.Lock()
			z.prepared.done = false
			z.prepared.Unlock()
		}
		return z.settle(next, err)
	}
	was, version, err := z.get(log)
	if err == nil && was.GetVersion() != expect {
		if _, err = z.conn.Sync(z.znode(log)); err == nil {
			was, version, err = z.get(log)
		}
	}
	switch {
	case connection(err):
		return z.failed("write", log, err) // nothing was sent that changes anything
	case err != nil:
		return err
	case was.GetVersion() != expect:
		return outcome(was, next, sequencer.ErrConflict)
	}
	if err := goesBack(was, next); err != nil {
		return err
	}
	_, err = z.conn.Set(z.znode(log), data, version)
	return z.settle(next, err)
}

// settle says how a write ended, if need be after another look.
func (z *ZooKeeper) settle(next *wire.EpochRecord, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, zk.ErrBadVersion), errors.Is(err, zk.ErrNodeExists), errors.Is(err, zk.ErrNoNode):
		err = nil // another was faster
	case connection(err):
		z.metrics.Doubts.Add(1)
	default:
		return z.failed("write", logs.LogID(next.Log), err)
	}
	stored, e := z.read(logs.LogID(next.Log))
	if e != nil {
		return fmt.Errorf("%w: log %d: %w", ErrUnknown, next.Log, errors.Join(err, e))
	}
	return outcome(stored, next, err)
}

// connection reports whether an error means that the request may or may not have
// reached ZooKeeper.
func connection(err error) bool {
	for _, e := range []error{zk.ErrConnectionClosed, zk.ErrSessionExpired, zk.ErrSessionMoved, zk.ErrNoServer, zk.ErrClosing} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (z *ZooKeeper) failed(what string, log logs.LogID, err error) error {
	return fmt.Errorf("epoch store: %s log %d on ZooKeeper at %s: %w", what, log, strings.Join(z.o.Servers, ","), z.orClosed(err))
}

// orClosed adds to an error that the store was closed meanwhile.
func (z *ZooKeeper) orClosed(err error) error {
	z.mu.RLock()
	defer z.mu.RUnlock()
	if z.mu.closed {
		return fmt.Errorf("%w (%w)", ErrClosed, err)
	}
	return err
}

// prepare makes the znodes above the logs, once, and refuses those of another
// cluster.
func (z *ZooKeeper) prepare() error {
	z.prepared.Lock()
	defer z.prepared.Unlock()
	if z.prepared.done {
		return nil
	}
	var data []byte
	err := insist(func() (err error) {
		data, err = z.makeRoot()
		return err
	})
	if err != nil {
		return fmt.Errorf("epoch store: %s on ZooKeeper at %s: %w", z.o.Root, strings.Join(z.o.Servers, ","), z.orClosed(err))
	}
	if string(data) != z.o.Cluster {
		return fmt.Errorf("%w: %s on ZooKeeper is of cluster %q, this is cluster %q: choose another root", ErrOtherCluster, z.o.Root, data, z.o.Cluster)
	}
	z.prepared.done = true
	return nil
}

// makeRoot makes the znodes that are missing and reads whose they are.
func (z *ZooKeeper) makeRoot() ([]byte, error) {
	for at := 1; at < len(z.parent()); {
		end := strings.IndexByte(z.parent()[at:], '/')
		if end < 0 {
			end = len(z.parent()) - at
		}
		node := z.parent()[:at+end]
		at += end + 1
		var data []byte
		if node == z.o.Root {
			data = []byte(z.o.Cluster)
		}
		if _, err := z.conn.Create(node, data, 0, zk.WorldACL(zk.PermAll)); err != nil && !errors.Is(err, zk.ErrNodeExists) {
			return nil, err
		}
	}
	data, _, err := z.conn.Get(z.o.Root)
	return data, err
}

// Records visits every record, in no order, until visit returns false. Those that
// cannot be read are given as errors.
func (z *ZooKeeper) Records(ctx context.Context, visit func(*wire.EpochRecord, error) bool) error {
	if err := z.prepare(); err != nil {
		return err
	}
	var names []string
	err := insist(func() (err error) {
		names, _, err = z.conn.Children(z.parent())
		return err
	})
	if err != nil {
		return fmt.Errorf("epoch store: list %s on ZooKeeper: %w", z.parent(), z.orClosed(err))
	}
	for _, name := range names {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		id, err := strconv.ParseUint(name, 10, 64)
		if err != nil {
			continue // nothing of ours
		}
		r, _, err := z.get(logs.LogID(id))
		if r == nil && err == nil {
			continue // removed meanwhile
		}
		if !visit(r, err) {
			return nil
		}
	}
	return nil
}
