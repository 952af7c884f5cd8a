package epochstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/logs/epochstore"
	"github.com/braiddb/braid/internal/proof/cluster"
)

// startZooKeeper runs Debian's ZooKeeper on data of its own until the test ends.
func startZooKeeper(t *testing.T) *cluster.ZooKeeper {
	t.Helper()
	z, err := cluster.NewZooKeeper(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(z.Kill)
	if err := z.Start(); err != nil {
		t.Fatal(err)
	}
	return z
}

func openZooKeeper(t *testing.T, addr, root string, o epochstore.ZooKeeperOptions) *epochstore.ZooKeeper {
	t.Helper()
	o.Servers, o.Root = []string{addr}, root
	if o.Cluster == "" {
		o.Cluster = "c"
	}
	z, err := epochstore.OpenZooKeeper(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(z.Close)
	return z
}

// wires are connections that can be cut.
type wires struct {
	mu    sync.Mutex
	conns []net.Conn
	down  atomic.Bool
}

func (w *wires) dial(network, address string, timeout time.Duration) (net.Conn, error) {
	if w.down.Load() {
		return nil, errors.New("the wire is down")
	}
	c, err := net.DialTimeout(network, address, timeout)
	if err == nil {
		w.mu.Lock()
		w.conns = append(w.conns, c)
		w.mu.Unlock()
	}
	return c, err
}

func (w *wires) cut() {
	w.mu.Lock()
	conns := w.conns
	w.conns = nil
	w.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}

func TestZooKeeper(t *testing.T) {
	server := startZooKeeper(t)
	addr := server.Addr
	z := openZooKeeper(t, addr, "/braid/one", epochstore.ZooKeeperOptions{})
	conform(t, z)
	t.Run("records are listed", func(t *testing.T) { listed(t, z) })
	t.Run("connections are cut", func(t *testing.T) { cutZooKeeper(t, addr) })
	t.Run("a session expires", func(t *testing.T) { expire(t, server) })
	t.Run("another cluster's root", func(t *testing.T) {
		other := openZooKeeper(t, addr, "/braid/one", epochstore.ZooKeeperOptions{Cluster: "d"})
		if _, err := read(other, 1); !errors.Is(err, epochstore.ErrOtherCluster) {
			t.Errorf("%v", err)
		}
	})
	t.Run("damage", func(t *testing.T) { damagedZnode(t, addr) })
	t.Run("a node on it", func(t *testing.T) { nodeOnZooKeeper(t, addr) })
	t.Run("closed", func(t *testing.T) {
		gone := openZooKeeper(t, addr, "/braid/one", epochstore.ZooKeeperOptions{})
		gone.Close()
		if _, err := read(gone, 1); !errors.Is(err, epochstore.ErrClosed) {
			t.Error(err)
		}
		if err := set(gone, 1, 0, record(1, 1, 2, 3)); !errors.Is(err, epochstore.ErrClosed) {
			t.Error(err)
		}
	})
}

// cutZooKeeper has writers race while their connections break under them.
func cutZooKeeper(t *testing.T, addr string) {
	var w [3]wires
	var z [3]*epochstore.ZooKeeper
	for i := range z {
		z[i] = openZooKeeper(t, addr, "/braid/cut", epochstore.ZooKeeperOptions{Dial: w[i].dial})
	}
	var tries atomic.Int64
	race(t, 7, 100, func(i int) {
		if n := tries.Add(1); n%40 == 0 {
			go w[i%3].cut() // after some delay, in the middle of something
		}
	}, z[0], z[1], z[2])
	doubts := z[0].Metrics().Doubts.Load() + z[1].Metrics().Doubts.Load() + z[2].Metrics().Doubts.Load()
	t.Logf("%d answers were lost", doubts)
}

// expire loses a session and goes on in another.
func expire(t *testing.T, server *cluster.ZooKeeper) {
	var w wires
	var log safeBuffer
	z := openZooKeeper(t, server.Addr, "/braid/expire", epochstore.ZooKeeperOptions{
		Dial: w.dial, SessionTimeout: 500 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err := set(z, 3, 0, record(3, 1, 2, 3)); err != nil {
		t.Fatal(err)
	}
	session := z.Session()
	w.down.Store(true)
	w.cut()
	for begin := time.Now(); strings.Contains(strings.ToLower(server.Ask("dump")), fmt.Sprintf("0x%x", uint64(session))); {
		if time.Since(begin) > 20*time.Second {
			t.Fatal("the session does not expire")
		}
	}
	w.down.Store(false)
	for begin := time.Now(); ; {
		r, err := read(z, 3)
		if err == nil && r.GetVersion() == 1 {
			break
		}
		if time.Since(begin) > 20*time.Second {
			t.Fatalf("no new session: %v, %v", r, err)
		}
	}
	if err := set(z, 3, 1, record(3, 2, 3, 4)); err != nil {
		t.Error(err)
	}
	if z.Session() == session || !strings.Contains(log.String(), "session lost") {
		t.Errorf("session %x after %x; log:\n%s", z.Session(), session, log.String())
	}
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// damagedZnode: what is not a record of that log is an error, and is not
// overwritten.
func damagedZnode(t *testing.T, addr string) {
	z := openZooKeeper(t, addr, "/braid/damage", epochstore.ZooKeeperOptions{})
	if err := set(z, 1, 0, record(1, 1, 2, 3)); err != nil {
		t.Fatal(err)
	}
	conn, _, err := zk.Connect([]string{addr}, time.Second, zk.WithLogInfo(false))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	good, _, err := conn.Get("/braid/damage/logs/1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Create("/braid/damage/logs/2", good, 0, zk.WorldACL(zk.PermAll)); err != nil {
		t.Fatal(err)
	}
	if r, err := read(z, 2); !errors.Is(err, epochstore.ErrDamaged) {
		t.Errorf("another log's record: %v, %v", r, err)
	}
	if err := set(z, 2, 1, record(2, 2, 3, 4)); !errors.Is(err, epochstore.ErrDamaged) {
		t.Errorf("written over damage: %v", err)
	}
	good[len(good)-1]++
	if _, err := conn.Set("/braid/damage/logs/1", good, -1); err != nil {
		t.Fatal(err)
	}
	if r, err := read(z, 1); !errors.Is(err, epochstore.ErrDamaged) {
		t.Errorf("a flipped bit: %v, %v", r, err)
	}
}

// nodeOnZooKeeper appends to a log whose epochs are on ZooKeeper.
func nodeOnZooKeeper(t *testing.T, addr string) {
	c, err := client.Connect(t.Context(), []string{startNodeOn(t, "zookeeper://"+addr+"/braid/node")}, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.CreateLogs(t.Context(), "/l", 1, client.LogReplication(&client.Replication{Node: 1})); err != nil {
		t.Fatal(err)
	}
	l, err := c.Log(t.Context(), "/l")
	if err != nil {
		t.Fatal(err)
	}
	if lsn, err := l.Append(t.Context(), []byte("x")); err != nil || lsn.Epoch() != 1 {
		t.Fatal(lsn, err)
	}
	info, err := c.Cluster(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	z := openZooKeeper(t, addr, "/braid/node", epochstore.ZooKeeperOptions{Cluster: info.ID})
	if r, err := read(z, l.ID()); err != nil || r.GetMetadata().GetEpoch() != 2 {
		t.Errorf("%v, %v", r, err)
	}
	for _, table := range info.Tables {
		if table.Name == "epochs" {
			t.Error("the table of epochs was made though they are on ZooKeeper")
		}
	}
}

func TestZooKeeperAddresses(t *testing.T) {
	servers, root, err := epochstore.ParseZooKeeper("zookeeper://a,b:77,[::1]:9/x/y")
	if err != nil || fmt.Sprint(servers) != "[a:2181 b:77 [::1]:9]" || root != "/x/y" {
		t.Error(servers, root, err)
	}
	if _, root, err := epochstore.ParseZooKeeper("zookeeper://a"); err != nil || root != "/braid" {
		t.Error(root, err)
	}
	for _, bad := range []string{"", "zookeeper://", "a:1", "zookeeper:///x", "zookeeper://a//x", "zookeeper://:1/x", "zookeeper://a/x/"} {
		if servers, root, err := epochstore.ParseZooKeeper(bad); err == nil {
			t.Errorf("%q: %v %q", bad, servers, root)
		}
	}
}
