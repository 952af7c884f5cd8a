package proof

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/node"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/sim/simfs"
)

// A lab is a cluster whose nodes live in this process, each on a disk of ours
// that can lose power, with real sockets between them.
type lab struct {
	t       testing.TB
	seed    uint64
	benches []*bench
}

// A bench is a node's place in a lab: its disk and its addresses stay over its
// lives.
type bench struct {
	t    testing.TB
	seed uint64
	cfg  node.Config
	fs   *simfs.FS
	wire *tap
	log  syncBuffer

	life   uint64
	node   *node.Node
	fatals atomic.Int64 // Deps.Fatal in this life
}

// A tap is TCP that can tell whether anything is still sent through it.
type tap struct {
	shut atomic.Bool
	late atomic.Int64 // writes that put bytes on a connection after shut
}

type tapListener struct {
	net.Listener
	tap *tap
}

type tapConn struct {
	net.Conn
	tap *tap
}

func (n *tap) Listen(addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	return tapListener{l, n}, err
}

func (n *tap) Dial(ctx context.Context, addr string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return tapConn{c, n}, nil
}

func (l tapListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return tapConn{c, l.tap}, nil
}

func (c tapConn) Write(b []byte) (int, error) {
	late := c.tap.shut.Load()
	n, err := c.Conn.Write(b)
	if late && n > 0 {
		c.tap.late.Add(1)
	}
	return n, err
}

// newLab makes n benches with empty disks; leases are short so that a restart is.
func newLab(t testing.TB, n int, seed uint64) *lab {
	t.Helper()
	l := &lab{t: t, seed: seed}
	ports := freePorts(t, 4*n)
	var join []string
	for i := range n {
		join = append(join, net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[4*i])))
	}
	for i := range n {
		b := &bench{t: t, seed: seed + uint64(i), fs: simfs.New(simfs.Options{Seed: seed + uint64(i)})}
		b.cfg = node.Config{
			Data: "/data", Join: join, Memory: 128 << 20, JournalBytes: 64 << 20, Version: "proof",
			NodePort: ports[4*i], ClientPort: ports[4*i+1], RedisPort: ports[4*i+2], ConsolePort: ports[4*i+3],
			Lease: 600 * time.Millisecond, Beat: 100 * time.Millisecond, ElectionDelay: 100 * time.Millisecond, MaxSkew: 200 * time.Millisecond,
		}
		if n == 1 {
			b.cfg.Join = nil
		}
		l.benches = append(l.benches, b)
	}
	t.Cleanup(func() {
		for _, b := range l.benches {
			b.kill()
		}
		if t.Failed() {
			for i, b := range l.benches {
				s := b.log.String()
				t.Logf("log of node %d:\n%s", i+1, s[max(0, len(s)-6000):])
			}
		}
	})
	return l
}

// start begins a new life of the node and waits until it has met its cluster.
func (b *bench) start() error {
	b.life++
	b.fatals.Store(0)
	b.wire = &tap{}
	wire := b.wire
	deps := node.RealDeps(slog.New(slog.NewTextHandler(&b.log, nil)), func(error) {
		wire.shut.Store(true)
		b.fatals.Add(1)
	})
	deps.FS, deps.Network, deps.Rand = b.fs, wire, rand.New(rand.NewPCG(b.seed, b.life))
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	n, err := node.Start(ctx, b.cfg, deps)
	b.node = n
	return err
}

// kill ends the life as kill -9 does, as far as that can be done inside a process.
func (b *bench) kill() {
	if b.node != nil {
		b.node.Kill()
		b.node = nil
	}
}

// start starts all nodes that are not running and waits until they serve.
func (l *lab) start() {
	l.t.Helper()
	errs := make([]error, len(l.benches))
	var wg sync.WaitGroup
	for i, b := range l.benches {
		if b.node == nil {
			wg.Go(func() { errs[i] = b.start() })
		}
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			l.t.Fatalf("node %d: %v", i+1, err)
		}
	}
	l.waitReady()
}

func (l *lab) waitReady() {
	l.t.Helper()
	for i, b := range l.benches {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		if err := b.node.WaitReady(ctx); err != nil {
			l.t.Fatalf("node %d is not ready: %v", i+1, err)
		}
		cancel()
	}
}

// redis gives a plain client of one node, without retries.
func (b *bench) redis(t testing.TB) *redis.Client {
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(b.cfg.RedisPort))
	c := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1, ReadTimeout: 8 * time.Second, DialTimeout: time.Second})
	t.Cleanup(func() { c.Close() })
	return c
}

// connect gives a braid client over all nodes.
func (l *lab) connect() *client.Client {
	l.t.Helper()
	var addrs []string
	for _, b := range l.benches {
		addrs = append(addrs, net.JoinHostPort("127.0.0.1", strconv.Itoa(b.cfg.ClientPort)))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := client.Connect(ctx, addrs, client.Options{Park: 2 * time.Second, Network: rpc.TCP{}})
	if err != nil {
		l.t.Fatal(err)
	}
	return c
}

// A ledger says what was acknowledged. Each key has one writer at a time, that
// never writes it again once an outcome is unknown.
type ledger struct {
	mu   sync.Mutex
	keys map[string]*entry
}

type entry struct {
	acked   int  // number of the last write that was acknowledged, 0 if none
	started int  // number of the last write that was begun
	unknown bool // how that one ended is not known
}

// value is what write number n of a key writes: from a few bytes to many
// sectors, and nothing but this write could have made it.
func value(key string, n int) string {
	words := fmt.Sprintf("%s#%d;", key, n)
	rng := rand.New(rand.NewPCG(uint64(n), uint64(len(key))*31+uint64(key[len(key)-1])))
	size := 1
	switch rng.IntN(10) {
	case 0:
		size = 1 + rng.IntN(40_000/len(words))
	case 1, 2, 3:
		size = 1 + rng.IntN(1500/len(words))
	}
	return strings.Repeat(words, size)
}

// load writes through set until ctx ends: new keys, and old ones again.
func (l *ledger) load(ctx context.Context, name string, rng *rand.Rand, set func(key, value string) error) {
	var mine []string
	for n := 0; ctx.Err() == nil; n++ {
		var key string
		if len(mine) > 0 && rng.IntN(2) == 0 {
			key = mine[rng.IntN(len(mine))]
		} else {
			key = fmt.Sprint(name, ".", n)
			mine = append(mine, key)
		}
		l.mu.Lock()
		e := l.keys[key]
		if e == nil {
			e = &entry{}
			l.keys[key] = e
		}
		e.started++
		number := e.started
		l.mu.Unlock()
		err := set(key, value(key, number))
		l.mu.Lock()
		if err == nil {
			e.acked = number
		} else {
			e.unknown = true
		}
		l.mu.Unlock()
		if err != nil {
			for i := range mine {
				if mine[i] == key {
					mine = append(mine[:i], mine[i+1:]...)
					break
				}
			}
			pause(ctx, 5*time.Millisecond)
		}
	}
}

// acknowledged counts the keys with a write that was acknowledged.
func (l *ledger) acknowledged() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.keys {
		n += e.acked
	}
	return n
}

// check reads everything back: what was acknowledged is there with its value,
// what was not begun is not.
func (l *ledger) check(t testing.TB, c *redis.Client) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	exist := map[string]bool{}
	for key, e := range l.keys {
		got, err := getPatiently(ctx, c, key)
		switch {
		case err == redis.Nil:
			if e.acked > 0 {
				t.Errorf("%s: write %d was acknowledged and is lost", key, e.acked)
			}
			continue
		case err != nil:
			t.Fatalf("get %s: %v", key, err)
		}
		exist[key] = true
		if e.acked > 0 && got == value(key, e.acked) || e.unknown && got == value(key, e.started) {
			continue
		}
		t.Errorf("%s: read %.60q; acknowledged write %d, begun %d, unknown %v", key, got, e.acked, e.started, e.unknown)
	}
	var cursor uint64
	for {
		keys, next, err := c.Scan(ctx, cursor, "", 1000).Result()
		if err != nil {
			t.Fatalf("scan: %v", err)
		}
		for _, k := range keys {
			if !exist[k] {
				t.Errorf("key %q exists and nobody's read found it", k)
			}
			delete(exist, k)
		}
		if cursor = next; cursor == 0 {
			break
		}
	}
	for k := range exist {
		t.Errorf("key %q was read and SCAN does not know it", k)
	}
}

// getPatiently reads a key, with the retries that any client makes.
func getPatiently(ctx context.Context, c *redis.Client, key string) (string, error) {
	for {
		got, err := c.Get(ctx, key).Result()
		if err == nil || err == redis.Nil || ctx.Err() != nil {
			return got, err
		}
		pause(ctx, 20*time.Millisecond)
	}
}
