package proof

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9/logging"

	procs "github.com/braiddb/braid/internal/proof/cluster"
)

// binary is the command, built once.
var binary struct {
	once sync.Once
	dir  string
	path string
	err  error
}

// atATime is how many of the tests that are marked parallel run at least: they wait
// more than they compute. What measures times or memory is not marked.
const atATime = 3

// given says whether a flag was given on the command line.
func given(name string) (is bool) {
	flag.Visit(func(f *flag.Flag) { is = is || f.Name == name })
	return is
}

func TestMain(m *testing.M) {
	if os.Getenv(tailEnv) != "" {
		os.Exit(tailProcess(os.Stdin, os.Stdout))
	}
	flag.Parse()
	width := flag.Lookup("test.parallel")
	if n, err := strconv.Atoi(width.Value.String()); err == nil && n < atATime && !given("test.parallel") {
		_ = width.Value.Set(strconv.Itoa(atATime))
	}
	logging.Disable() // its pool complains of nodes that are meant to be down
	code := m.Run()
	if binary.dir != "" {
		os.RemoveAll(binary.dir)
	}
	os.Exit(code)
}

// braidBinary builds the command once and gives its path.
func braidBinary(t testing.TB) string {
	t.Helper()
	binary.once.Do(func() {
		if binary.dir, binary.err = os.MkdirTemp("", "braid-proof-"); binary.err != nil {
			return
		}
		binary.path, binary.err = procs.Build(binary.dir)
	})
	if binary.err != nil {
		t.Fatal(binary.err)
	}
	return binary.path
}

// A process is one node of a cluster that a test has started.
type process struct {
	*procs.Process
	t testing.TB
}

// start runs the process; it must not be running.
func (p *process) start() {
	p.t.Helper()
	if err := p.Start(); err != nil {
		p.t.Fatal(err)
	}
}

// A cluster is one that ends with its test, and shows its logs if that has failed.
type cluster struct {
	t     testing.TB
	all   *procs.Cluster
	nodes []*process   // a test may set some of all aside
	links *procs.Links // nil unless asked for
}

type clusterOptions struct {
	links bool // put a proxy on every link between nodes, so that it can be cut
	flags []string
	roles []string // of each node; none: all roles
}

// startCluster runs n processes that form one cluster and waits until all are ready.
func startCluster(t testing.TB, n int, o clusterOptions) *cluster {
	t.Helper()
	c := newCluster(t, n, o)
	for _, p := range c.nodes {
		p.start()
	}
	c.waitReady()
	return c
}

func newCluster(t testing.TB, n int, o clusterOptions) *cluster {
	t.Helper()
	all, err := procs.New(braidBinary(t), t.TempDir(), n, procs.Options{Direct: !o.links, Flags: o.flags, Roles: o.roles})
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, all: all, links: all.Links}
	for _, p := range all.Nodes {
		c.nodes = append(c.nodes, &process{p, t})
	}
	t.Cleanup(func() {
		all.Close()
		if t.Failed() {
			for _, p := range all.Nodes {
				t.Logf("log of node %d:\n%s", p.Index, p.Tail())
			}
		}
	})
	return c
}

// waitReady waits until every node serves.
func (c *cluster) waitReady() {
	c.t.Helper()
	for _, p := range c.nodes {
		var last error
		if !eventually(30*time.Second, func() bool { last = p.Ready(); return last == nil }) {
			c.t.Fatalf("node %d is not ready: %v\n%s", p.Index, last, p.Tail())
		}
	}
}

func (c *cluster) redisAddrs() []string {
	var out []string
	for _, p := range c.nodes {
		out = append(out, p.RedisAddr())
	}
	return out
}

func (c *cluster) clientAddrs() []string {
	var out []string
	for _, p := range c.nodes {
		out = append(out, p.ClientAddr())
	}
	return out
}

// eventually polls cond until it holds or the time is up.
func eventually(limit time.Duration, cond func() bool) bool {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if cond() {
			return true
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return cond()
		}
	}
}

// freePorts finds n ports that are free on all loopback addresses used here.
func freePorts(t testing.TB, n int) []int {
	t.Helper()
	ports, err := procs.FreePorts(n)
	if err != nil {
		t.Fatal(err)
	}
	return ports
}

// run runs the binary with arguments and gives its output and exit code.
func (c *cluster) run(args ...string) (stdout, stderr string, code int) {
	var out, errOut bytes.Buffer
	cmd := exec.Command(braidBinary(c.t), args...)
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		c.t.Fatal(err)
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}
