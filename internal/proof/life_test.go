package proof

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/braiddb/braid/client"
)

// connect gives a braid client over all nodes.
func connect(t testing.TB, c *cluster) *client.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cl, err := client.Connect(ctx, c.clientAddrs(), client.Options{Park: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cl.Close() })
	return cl
}

// TestCountersNeverCountTwice increments counters through the client, whose
// retries are on, while nodes are killed and paused: each increment that was
// answered counts once, each with an unknown outcome at most once, and each
// answer is the value that this increment made.
func TestCountersNeverCountTwice(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3, clusterOptions{})
	cl := connect(t, c)
	const counters, workers = 4, 8
	var known, unknown [counters]atomic.Int64
	var seen [counters]sync.Map
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				i := (w + n) % counters
				op, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				r, err := cl.Redis().Do(op, client.IncrBy([]byte(fmt.Sprint("counter", i)), 1))
				cancel()
				if err != nil {
					unknown[i].Add(1)
					continue
				}
				known[i].Add(1)
				if _, twice := seen[i].LoadOrStore(r.Int, w); twice {
					t.Errorf("counter %d: two increments were answered with %d", i, r.Int)
				}
			}
		})
	}
	for i, p := range c.nodes {
		if i == 1 {
			p.Signal(syscall.SIGSTOP)
			pause(ctx, 3*time.Second)
			p.Signal(syscall.SIGCONT)
		} else {
			p.Kill()
			pause(ctx, time.Second)
			p.start()
		}
		pause(ctx, 2500*time.Millisecond)
	}
	stop()
	wg.Wait()
	for i := range counters {
		r, err := cl.Redis().Do(context.Background(), client.Get([]byte(fmt.Sprint("counter", i))))
		if err != nil {
			t.Fatal(err)
		}
		var got int64
		fmt.Sscan(string(r.Bytes), &got)
		t.Logf("counter %d: %d, %d known, %d unknown", i, got, known[i].Load(), unknown[i].Load())
		if got < known[i].Load() || got > known[i].Load()+unknown[i].Load() {
			t.Errorf("counter %d is %d after %d acknowledged and %d unknown increments", i, got, known[i].Load(), unknown[i].Load())
		}
		if known[i].Load() < 100 {
			t.Errorf("counter %d: only %d increments were acknowledged", i, known[i].Load())
		}
	}
}

// TestRollingRestartShowsNoError restarts every node with SIGTERM under load;
// clients with ordinary retries see no error at all.
func TestRollingRestartShowsNoError(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3, clusterOptions{})
	clients := stockClients(t, c)
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var ops atomic.Int64
	for w := range 6 {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				key := fmt.Sprint("k", w, ".", n%50)
				if err := clients[w%3].Set(context.Background(), key, n, 0).Err(); err != nil {
					t.Errorf("set: %v", err)
				}
				if got, err := clients[w%3].Get(context.Background(), key).Int(); err != nil || got != n {
					t.Errorf("get %s: %d, %v; want %d", key, got, err, n)
				}
				ops.Add(2)
			}
		})
	}
	for _, p := range c.nodes {
		before := ops.Load()
		if err := p.Terminate(25 * time.Second); err != nil {
			t.Error(err)
		}
		p.start()
		c.waitReady()
		if !eventually(10*time.Second, func() bool { return ops.Load() > before+100 }) {
			t.Error("the load stopped")
		}
	}
	stop()
	wg.Wait()
	t.Logf("%d operations during three restarts", ops.Load())
}

// TestLoneNodeGrowsToThreeCopies starts one node, fills it, adds two, and waits
// until everything has three copies without an operator; then the first node's
// directory is wiped and rejoins as somebody new.
func TestLoneNodeGrowsToThreeCopies(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, clusterOptions{flags: []string{"--dead-after", "5s"}})
	lone := c.nodes[0]
	for i, a := range lone.Args {
		if a == "--join" {
			lone.Args = append(append([]string(nil), lone.Args[:i]...), lone.Args[i+2:]...)
			break
		}
	}
	lone.start()
	if !eventually(10*time.Second, func() bool { return lone.Ready() == nil }) {
		t.Fatalf("a lone node is not ready: %v\n%s", lone.Ready(), lone.Tail())
	}
	if s := c.status(lone); s.Copies != "one copy" {
		t.Errorf("a lone node says %q", s.Copies)
	}
	rc := redis.NewClient(&redis.Options{Addr: lone.RedisAddr()})
	defer rc.Close()
	for i := range 500 {
		if err := rc.Set(context.Background(), fmt.Sprint("key", i), strings.Repeat("v", i), 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range c.nodes[1:] {
		p.start()
	}
	if !eventually(60*time.Second, func() bool { s := c.status(c.nodes[1]); return s.Copies == "three copies" && len(s.Problems) == 0 }) {
		t.Fatalf("not raised to three copies: %+v\n%s", c.status(c.nodes[1]), lone.Tail())
	}
	lone.Kill()
	if err := os.RemoveAll(lone.Dir); err != nil {
		t.Fatal(err)
	}
	for i, a := range lone.Args { // it must find its cluster again
		if a == "--listen" {
			lone.Args = append(lone.Args[:i:i], append([]string{"--join", c.nodes[1].Args[joinIndex(c.nodes[1].Args)]}, lone.Args[i:]...)...)
			break
		}
	}
	lone.start()
	ok := eventually(90*time.Second, func() bool {
		s := c.status(c.nodes[1])
		return s.Copies == "three copies" && len(s.Problems) == 0 && s.Nodes == 3 && s.Alive == 3
	})
	if !ok {
		t.Errorf("the wiped node was not taken in as a new one: %+v\n%s", c.status(c.nodes[1]), lone.Tail())
		for _, p := range c.nodes { // who leads what, and who is still in it
			out, _, _ := c.run("query", "SELECT * FROM tablet_replicas", "--addr", p.ClientAddr(), "--timeout", "3s")
			t.Logf("tablets by node %d:\n%s", p.Index, out)
		}
		t.FailNow()
	}
	other := redis.NewClient(&redis.Options{Addr: c.nodes[2].RedisAddr()})
	defer other.Close()
	for i := range 500 {
		if got, err := other.Get(context.Background(), fmt.Sprint("key", i)).Result(); err != nil || got != strings.Repeat("v", i) {
			t.Fatalf("key%d: %q, %v", i, got, err)
		}
	}
}

func joinIndex(args []string) int {
	for i, a := range args {
		if a == "--join" {
			return i + 1
		}
	}
	return -1
}

type statusJSON struct {
	Cluster  string
	Nodes    int
	Alive    int `json:"nodes_alive"`
	Tablets  int
	Copies   string
	Problems []string
}

func (c *cluster) status(p *process) statusJSON {
	out, _, _ := c.run("status", "--addr", p.ClientAddr(), "--format", "json")
	var s statusJSON
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		s.Problems = []string{"no status: " + out}
	}
	return s
}

// TestDemo runs the first of the README's two commands: a SET within three
// seconds of the start, words on what to type next, a log of many lines, a clean end
// on Ctrl-C.
func TestDemo(t *testing.T) {
	cmd := exec.Command(braidBinary(t), "demo", "--memory", "512MiB")
	var out syncBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	var line, addr string
	if !eventually(10*time.Second, func() bool {
		for _, l := range strings.Split(out.String(), "\n") {
			if _, rest, found := strings.Cut(l, "braid status"); found {
				addr = strings.TrimSpace(strings.TrimPrefix(rest, " --addr"))
			}
			if strings.Contains(l, "redis-cli") && strings.Contains(l, " set ") {
				line = strings.TrimSpace(l)
			}
		}
		return line != "" && strings.Contains(out.String(), "Ctrl-C")
	}) {
		t.Fatalf("demo printed no command to type:\n%s", out.String())
	}
	args := strings.Fields(line)
	got, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	took := time.Since(begin)
	if err != nil || strings.TrimSpace(string(got)) != "OK" {
		t.Fatalf("%s: %q, %v", line, got, err)
	}
	t.Logf("first SET answered %v after the program's start", took.Round(time.Millisecond))
	if took > 10*time.Second {
		t.Errorf("the first SET was answered after %v", took)
	}
	demoLogs(t, shell{t, cmp.Or(addr, "127.0.0.1")})
	cmd.Process.Signal(os.Interrupt)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("demo ended with %v after Ctrl-C:\n%s", err, out.String())
		}
	case <-time.After(15 * time.Second):
		t.Error("demo did not end after Ctrl-C")
	}
}

// syncBuffer is a buffer that may be read while a process writes to it.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) Len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Len()
}

func (b *syncBuffer) Bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Clone(b.b.Bytes())
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
