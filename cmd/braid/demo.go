package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/braiddb/braid/internal/node"
)

const demoNodes = 3

type demoCmd struct {
	nodeFlags
	Keep string `help:"Keep the data in this directory instead of a temporary one." placeholder:"DIR"`
}

// Help says what to type next.
func (demoCmd) Help() string {
	return `Example:
  braid demo
  redis-cli set greeting hello
  redis-cli -h 127.0.0.2 get greeting
  braid log create /clicks
  echo hello | braid log append /clicks
  braid log tail /clicks --from oldest`
}

// Run runs three nodes until a signal.
func (c demoCmd) Run() error {
	if c.LogLevel == "info" {
		c.LogLevel = "warn" // what a newcomer needs is printed below
	}
	logger := c.nodeFlags.logger()
	dir := c.Keep
	if dir == "" {
		d, err := os.MkdirTemp("", "braid-demo-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(d)
		dir = d
	}
	stop, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	begin := time.Now()
	configs, err := c.configs(dir)
	if err != nil {
		return err
	}
	tuneCollector(stop, configs[0].Memory*demoNodes)
	nodes, err := startAll(stop, configs, logger)
	defer stopAll(nodes)
	if err != nil {
		if stop.Err() != nil {
			return nil
		}
		return err
	}
	for _, n := range nodes {
		if err := n.WaitReady(stop); err != nil {
			return nil // interrupted while starting
		}
	}
	printDemo(nodes, dir, time.Since(begin))
	<-stop.Done()
	cancel()
	fmt.Println("\nStopping.")
	return nil
}

// configs gives each node its own loopback address with the standard ports, or,
// where that is not to be had, free ports on 127.0.0.1.
func (c demoCmd) configs(dir string) ([]node.Config, error) {
	configs := make([]node.Config, demoNodes)
	standard := true
	for i := range configs {
		for _, port := range []int{node.NodePort, node.ClientPort, node.RedisPort, node.ConsolePort} {
			standard = standard && free(fmt.Sprintf("127.0.0.%d", i+1), port)
		}
	}
	var join []string
	for i := range configs {
		cfg := c.nodeFlags.config()
		cfg.Data = filepath.Join(dir, fmt.Sprintf("node%d", i+1))
		if cfg.Memory == 0 {
			cfg.Memory = machineMemory() / 4 / demoNodes
		} else {
			cfg.Memory /= demoNodes
		}
		cfg.Listen = "127.0.0.1"
		if standard {
			cfg.Listen = fmt.Sprintf("127.0.0.%d", i+1)
		} else {
			ports, err := freePorts(4)
			if err != nil {
				return nil, err
			}
			cfg.NodePort, cfg.ClientPort, cfg.RedisPort, cfg.ConsolePort = ports[0], ports[1], ports[2], ports[3]
		}
		nodePort := cfg.NodePort
		if nodePort == 0 {
			nodePort = node.NodePort
		}
		join = append(join, net.JoinHostPort(cfg.Listen, strconv.Itoa(nodePort)))
		configs[i] = cfg
	}
	for i := range configs {
		configs[i].Join = join
		if err := configs[i].Validate(); err != nil {
			return nil, &usageError{err}
		}
	}
	return configs, nil
}

func free(host string, port int) bool {
	l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return false
	}
	l.Close()
	return true
}

// freePorts finds n distinct free ports by holding all of them at once.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("no free port on 127.0.0.1: %w", err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

func startAll(ctx context.Context, configs []node.Config, logger *slog.Logger) ([]*node.Node, error) {
	nodes := make([]*node.Node, len(configs))
	errs := make([]error, len(configs))
	var wg sync.WaitGroup
	for i, cfg := range configs {
		wg.Go(func() {
			l := logger.With("node", i+1)
			nodes[i], errs[i] = node.Start(ctx, cfg, node.RealDeps(l, exitOnFatal(l)))
		})
	}
	wg.Wait()
	var started []*node.Node
	var first error
	for i, n := range nodes {
		if errs[i] != nil && first == nil {
			first = errs[i]
		}
		if n != nil {
			started = append(started, n)
		}
	}
	return started, first
}

func stopAll(nodes []*node.Node) {
	for _, n := range nodes {
		n.Kill() // throw-away data, and nobody is left to move leaders to
	}
}

func printDemo(nodes []*node.Node, dir string, took time.Duration) {
	fmt.Printf("Braid demo: three nodes, three copies of everything, ready after %.1f s.\n\n", took.Seconds())
	for i, n := range nodes {
		a := n.Addrs()
		fmt.Printf("  node %d   redis %-18s console http://%s/\n", i+1, a.Redis, a.Console)
	}
	host, port, _ := net.SplitHostPort(nodes[0].Addrs().Redis)
	other, otherPort, _ := net.SplitHostPort(nodes[1].Addrs().Redis)
	fmt.Printf("\nData in %s. Try in another terminal:\n\n", dir)
	fmt.Printf("  redis-cli -h %s -p %s set greeting hello\n", host, port)
	fmt.Printf("  redis-cli -h %s -p %s get greeting\n", other, otherPort)
	addr, flag := nodes[0].Addrs().Client, ""
	if addr != net.JoinHostPort("127.0.0.1", strconv.Itoa(node.ClientPort)) {
		flag = " --addr " + addr
	}
	fmt.Printf("\n  braid log create /clicks%s\n  echo hello | braid log append /clicks%s\n  braid log tail /clicks --from oldest%s\n", flag, flag, flag)
	fmt.Printf("  curl 'http://%s/v1/records/clicks?from=oldest'\n", nodes[1].Addrs().Console)
	fmt.Printf("\n  braid status%s\n\nCtrl-C stops it.\n", flag)
}
