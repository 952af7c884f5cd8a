package proof

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9/logging"
)

var binary struct {
	once sync.Once
	dir  string
	err  error
}

func TestMain(m *testing.M) {
	if os.Getenv(tailEnv) != "" {
		os.Exit(tailProcess(os.Stdin, os.Stdout))
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
		cmd := exec.Command("go", "build", "-o", filepath.Join(binary.dir, "braid"), "github.com/braiddb/braid/cmd/braid")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			binary.err = fmt.Errorf("build the binary: %v\n%s", err, out)
		}
	})
	if binary.err != nil {
		t.Fatal(binary.err)
	}
	return filepath.Join(binary.dir, "braid")
}

// A process is one `braid start`. Its ports and directory stay the same over
// restarts; it sends from and listens on an address of its own.
type process struct {
	t     testing.TB
	index int
	host  string // 127.0.0.x
	node  int    // ports
	cli   int
	redis int
	web   int
	dir   string
	args  []string
	log   string

	mu  sync.Mutex
	cmd *exec.Cmd
	end chan struct{} // closed when the present cmd has ended
}

func (p *process) redisAddr() string  { return net.JoinHostPort(p.host, strconv.Itoa(p.redis)) }
func (p *process) clientAddr() string { return net.JoinHostPort(p.host, strconv.Itoa(p.cli)) }
func (p *process) webAddr() string    { return net.JoinHostPort(p.host, strconv.Itoa(p.web)) }

// start runs the process; it must not be running.
func (p *process) start() {
	p.t.Helper()
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		p.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(braidBinary(p.t), p.args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	end := make(chan struct{})
	go func() { cmd.Wait(); close(end) }()
	p.mu.Lock()
	p.cmd, p.end = cmd, end
	p.mu.Unlock()
}

// signal sends s to the running process.
func (p *process) signal(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		p.cmd.Process.Signal(s)
	}
}

// kill ends the process as kill -9 does, and waits until it is gone.
func (p *process) kill() {
	p.mu.Lock()
	cmd, end := p.cmd, p.end
	p.cmd = nil
	p.mu.Unlock()
	if cmd == nil {
		return
	}
	cmd.Process.Kill()
	<-end
}

// terminate sends SIGTERM and waits for the process to end by itself.
func (p *process) terminate(limit time.Duration) error {
	p.mu.Lock()
	cmd, end := p.cmd, p.end
	p.cmd = nil
	p.mu.Unlock()
	cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-end:
	case <-time.After(limit):
		cmd.Process.Kill()
		<-end
		return fmt.Errorf("node %d did not end within %s of SIGTERM", p.index, limit)
	}
	if code := cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("node %d ended with code %d after SIGTERM\n%s", p.index, code, p.tail())
	}
	return nil
}

func (p *process) tail() string {
	b, _ := os.ReadFile(p.log)
	if len(b) > 4000 {
		b = b[len(b)-4000:]
	}
	return string(b)
}

func (p *process) ready() error {
	c := http.Client{Timeout: time.Second}
	r, err := c.Get("http://" + p.webAddr() + "/readyz")
	if err != nil {
		return err
	}
	defer r.Body.Close()
	body, _ := io.ReadAll(r.Body)
	if r.StatusCode != http.StatusOK {
		return errors.New(strings.TrimSpace(string(body)))
	}
	return nil
}

type cluster struct {
	t       testing.TB
	nodes   []*process
	proxies *links // nil unless asked for
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
	c := &cluster{t: t}
	dir := t.TempDir()
	ports := freePorts(t, 5*n)
	var join []string
	for i := range n {
		p := &process{t: t, index: i + 1, host: fmt.Sprintf("127.0.0.%d", i+1), dir: filepath.Join(dir, fmt.Sprint("n", i+1)),
			log: filepath.Join(dir, fmt.Sprint("n", i+1, ".log"))}
		p.node, p.cli, p.redis, p.web = ports[5*i], ports[5*i+1], ports[5*i+2], ports[5*i+3]
		c.nodes = append(c.nodes, p)
	}
	if o.links {
		c.proxies = startLinks(t, c.nodes)
	}
	for _, p := range c.nodes {
		host := p.host
		if o.links {
			host = p.proxyHost()
		}
		join = append(join, net.JoinHostPort(host, strconv.Itoa(p.node)))
	}
	for _, p := range c.nodes {
		p.args = append([]string{"start", "--data", p.dir, "--listen", p.host, "--join", strings.Join(join, ","),
			"--node-port", strconv.Itoa(p.node), "--client-port", strconv.Itoa(p.cli), "--redis-port", strconv.Itoa(p.redis),
			"--console-port", strconv.Itoa(p.web), "--memory", "256MiB"}, o.flags...)
		if o.roles != nil {
			p.args = append(p.args, "--roles", o.roles[p.index-1])
		}
		if o.links {
			p.args = append(p.args, "--advertise-node", p.proxyHost())
		}
	}
	t.Cleanup(func() {
		for _, p := range c.nodes {
			p.signal(syscall.SIGCONT)
			p.kill()
		}
		if c.proxies != nil {
			c.proxies.close()
		}
		if t.Failed() {
			for _, p := range c.nodes {
				t.Logf("log of node %d:\n%s", p.index, p.tail())
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
		if !eventually(30*time.Second, func() bool { last = p.ready(); return last == nil }) {
			c.t.Fatalf("node %d is not ready: %v\n%s", p.index, last, p.tail())
		}
	}
}

func (c *cluster) redisAddrs() []string {
	var out []string
	for _, p := range c.nodes {
		out = append(out, p.redisAddr())
	}
	return out
}

func (c *cluster) clientAddrs() []string {
	var out []string
	for _, p := range c.nodes {
		out = append(out, p.clientAddr())
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
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "0.0.0.0:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
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
