package cluster

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
)

// A Cluster is some processes that form one cluster, with links between them.
type Cluster struct {
	Nodes []*Process
	Links *Links // nil if they are direct
}

// Build builds the command into a directory and gives its path.
func Build(dir string) (binary string, err error) {
	binary = filepath.Join(dir, "braid")
	cmd := exec.Command("go", "build", "-o", binary, "github.com/braiddb/braid/cmd/braid")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the binary: %w\n%s", err, out)
	}
	return binary, nil
}

// Options say what a cluster is made of.
type Options struct {
	Direct bool     // without links: nodes reach each other at their own addresses
	Flags  []string // of every node
	Roles  []string // of each node; none: all roles
}

// New makes places for n nodes under a directory, and links between them. Nothing
// is started.
func New(binary, dir string, n int, o Options) (*Cluster, error) {
	c := &Cluster{}
	ports, err := FreePorts(4 * n)
	if err != nil {
		return nil, err
	}
	var join []string
	for i := range n {
		name := fmt.Sprint("n", i+1)
		p := &Process{Index: i + 1, Host: fmt.Sprintf("127.0.0.%d", i+1), binary: binary, linked: !o.Direct,
			Dir: filepath.Join(dir, name), Log: filepath.Join(dir, name+".log"),
			NodePort: ports[4*i], ClientPort: ports[4*i+1], RedisPort: ports[4*i+2], WebPort: ports[4*i+3]}
		c.Nodes = append(c.Nodes, p)
		join = append(join, p.NodeAddr())
	}
	for i, p := range c.Nodes {
		p.Args = append([]string{"start", "--data", p.Dir, "--listen", p.Host, "--join", strings.Join(join, ","),
			"--node-port", strconv.Itoa(p.NodePort), "--client-port", strconv.Itoa(p.ClientPort),
			"--redis-port", strconv.Itoa(p.RedisPort), "--console-port", strconv.Itoa(p.WebPort), "--memory", "256MiB"}, o.Flags...)
		if o.Roles != nil {
			p.Args = append(p.Args, "--roles", o.Roles[i])
		}
		if p.linked {
			p.Args = append(p.Args, "--advertise-node", p.ProxyHost())
		}
	}
	if !o.Direct {
		c.Links, err = startLinks(c.Nodes)
	}
	return c, err
}

// ClientAddrs are the addresses for braid clients.
func (c *Cluster) ClientAddrs() []string {
	var out []string
	for _, p := range c.Nodes {
		out = append(out, p.ClientAddr())
	}
	return out
}

// Ready says which node does not serve and why, nil if all do.
func (c *Cluster) Ready() error {
	for _, p := range c.Nodes {
		if err := p.Ready(); err != nil {
			return fmt.Errorf("node %d: %w", p.Index, err)
		}
	}
	return nil
}

// Close ends every process and the links.
func (c *Cluster) Close() {
	for _, p := range c.Nodes {
		p.Kill()
	}
	if c.Links != nil {
		c.Links.close()
	}
}

// Ports that are given out are below those that the kernel picks for outgoing
// connections, of which some client would take one before its node listens there. Each
// process begins somewhere else, and gives none out twice.
const (
	portsFrom = 12_000
	portsTo   = 32_000
)

var nextPort atomic.Uint32

func init() { nextPort.Store(rand.Uint32N(portsTo - portsFrom)) }

// FreePorts finds ports that are free on all addresses.
func FreePorts(n int) (ports []int, err error) {
	for tries := 0; len(ports) < n; tries++ {
		port := portsFrom + int(nextPort.Add(1)%(portsTo-portsFrom))
		l, err := net.Listen("tcp", fmt.Sprintf("0.0.0.0:%d", port))
		switch {
		case err == nil:
			l.Close()
			ports = append(ports, port)
		case tries > portsTo-portsFrom:
			return nil, err
		}
	}
	return ports, nil
}
