package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/braiddb/braid/internal/node"
)

// nodeFlags are the settings of a node that demo and start share.
type nodeFlags struct {
	Memory                 bytesFlag     `help:"Memory for caches, memtables and queues together, such as 512MiB. Default: a quarter of the machine." placeholder:"BYTES"`
	RedisPassword          string        `help:"Password that Redis clients must give (requirepass)."`
	RedisMaxClients        int           `help:"Connections to the Redis port at most." default:"10000"`
	RedisTablets           int           `help:"Tablets of the Redis table of a new cluster." default:"3"`
	Park                   time.Duration `help:"How long a request waits for a leader before TRYAGAIN." default:"4s"`
	Lease                  time.Duration `help:"How long a promise between two nodes holds; the same on all nodes." default:"1s"`
	Beat                   time.Duration `help:"How often promises are renewed." default:"200ms"`
	ElectionDelay          time.Duration `help:"The most a voter waits before it stands, once a leader's promise lapsed." default:"150ms"`
	MaxSkew                time.Duration `help:"How far a peer's clock may be ahead." default:"500ms"`
	DeadAfter              time.Duration `help:"Silence after which a node's replicas are made anew elsewhere." default:"15m"`
	GossipInterval         time.Duration `help:"Time between two heartbeats of the failure detector; the same on all nodes, as the other --gossip flags." default:"50ms"`
	GossipFanout           int           `help:"How many nodes are told of the others' heartbeats in each interval." default:"4"`
	GossipThreshold        int           `help:"Intervals of silence after which a node is held for dead. Default: 3s more than --gossip-refused-threshold." placeholder:"N"`
	GossipRefusedThreshold int           `help:"The same for a node whose address refuses connections: its process has ended." default:"13"`
	JournalSize            bytesFlag     `help:"Bound of the journal on disk." default:"512MiB" placeholder:"BYTES"`
	LogFormat              string        `help:"text or json." enum:"text,json" default:"text"`
	LogLevel               string        `help:"debug, info, warn or error." enum:"debug,info,warn,error" default:"info"`
}

func (f nodeFlags) config() node.Config {
	return node.Config{
		Memory: int64(f.Memory), RedisPassword: f.RedisPassword, RedisMaxClients: f.RedisMaxClients, RedisTablets: f.RedisTablets,
		Park: f.Park, Lease: f.Lease, Beat: f.Beat, ElectionDelay: f.ElectionDelay, MaxSkew: f.MaxSkew, DeadAfter: f.DeadAfter,
		GossipInterval: f.GossipInterval, GossipFanOut: f.GossipFanout, GossipThreshold: f.GossipThreshold, GossipRefusedThreshold: f.GossipRefusedThreshold,
		JournalBytes: int64(f.JournalSize), Version: version(),
	}
}

func (f nodeFlags) logger() *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.LogLevel)); err != nil {
		panic("BUG: kong let an unknown log level through: " + err.Error())
	}
	o := &slog.HandlerOptions{Level: level}
	if f.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, o))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, o))
}

type startCmd struct {
	nodeFlags
	Data            string   `help:"The node's data directory; made if missing." required:"" placeholder:"DIR"`
	Listen          string   `help:"Address (without port) to listen on." default:"127.0.0.1" placeholder:"ADDR"`
	Advertise       string   `help:"Address (without port) at which others reach this node. Default: --listen." placeholder:"ADDR"`
	AdvertiseNode   string   `help:"--advertise for traffic between nodes alone. Default: --advertise." placeholder:"ADDR"`
	Join            []string `help:"Node addresses of the cluster to form or join: the same list on all its nodes." placeholder:"ADDR,..."`
	NodePort        int      `help:"Port for other nodes." default:"7100"`
	ClientPort      int      `help:"Port for braid clients." default:"7200"`
	RedisPort       int      `help:"Port for Redis clients." default:"6379"`
	ConsolePort     int      `help:"Port for the console, /metrics, /livez, /readyz and profiles." default:"7000"`
	Location        string   `help:"region/zone/rack of this node. One that does not say is a rack and a zone of its own." placeholder:"R/Z/R"`
	Roles           []string `help:"What this node does. Storage nodes stand in where no node is a master or takes tablets." default:"master,tablet,sequencer,storage" placeholder:"ROLE,..."`
	SequencerWeight float64  `help:"This node's share of sequencers, compared with other nodes'; negative: none." default:"1"`
	StorageWeight   float64  `help:"This node's share of copies of log records, compared with other nodes'; negative: none." default:"1"`
	EpochStore      string   `help:"Where the epochs of logs are kept: on a table of the cluster (table), or on ZooKeeper. The same on all nodes, for ever." default:"table" placeholder:"zookeeper://HOST:PORT,.../ROOT"`
	Procs           int      `help:"Processors that the node may use. 0: all, or an equal share of them where every node of --join is on a loopback address and so on this machine." default:"0"`
	Insecure        bool     `help:"Listen on addresses that are not loopback without TLS."`
}

// Help shows how a cluster is started.
func (startCmd) Help() string {
	return `Examples:
  A cluster of one:
    braid start --data d1
  A cluster of three (run each on its machine; any order, same list):
    braid start --data d1 --listen 127.0.0.1 --join 127.0.0.1,127.0.0.2,127.0.0.3
  A node that only sequences logs:
    braid start --data d4 --listen 127.0.0.4 --join 127.0.0.1,127.0.0.2,127.0.0.3 --roles sequencer`
}

// Run runs a node until a signal; SIGTERM and Ctrl-C move its leaders away first.
func (c startCmd) Run() error {
	cfg := c.nodeFlags.config()
	cfg.Data, cfg.Listen, cfg.Advertise, cfg.Join, cfg.Location, cfg.Insecure = c.Data, c.Listen, c.Advertise, c.Join, c.Location, c.Insecure
	cfg.AdvertiseNode = c.AdvertiseNode
	cfg.EpochStore = c.EpochStore
	cfg.Roles, cfg.SequencerWeight, cfg.StorageWeight = c.Roles, c.SequencerWeight, c.StorageWeight
	if c.SequencerWeight == 0 {
		cfg.SequencerWeight = -1 // in a descriptor 0 stands for 1
	}
	if c.StorageWeight == 0 {
		cfg.StorageWeight = -1
	}
	cfg.NodePort, cfg.ClientPort, cfg.RedisPort, cfg.ConsolePort = c.NodePort, c.ClientPort, c.RedisPort, c.ConsolePort
	if cfg.Memory == 0 {
		cfg.Memory = machineMemory() / 4
	}
	if err := cfg.Validate(); err != nil {
		return &usageError{err}
	}
	if c.Procs < 0 || c.Procs > 1024 {
		return &usageError{fmt.Errorf("--procs %d is not between 0 and 1024", c.Procs)}
	}
	if all := runtime.GOMAXPROCS(0); c.Procs == 0 && processorShare(all, c.Join) < all {
		c.Procs = processorShare(all, c.Join)
	}
	if c.Procs > 0 {
		runtime.GOMAXPROCS(c.Procs) // not otherwise: it ends the runtime's own watch over a container's limit
	}
	logger := c.nodeFlags.logger()
	stop, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	tuneCollector(stop, cfg.Memory)
	n, err := node.Start(stop, cfg, node.RealDeps(logger, exitOnFatal(logger)))
	if err != nil {
		if errors.Is(err, context.Canceled) {
			return nil
		}
		return err
	}
	<-stop.Done()
	cancel() // a second signal ends the process at once
	ctx, done := context.WithTimeout(context.Background(), 20*time.Second)
	defer done()
	return n.Stop(ctx)
}

// processorShare is how many of the machine's processors a node takes: all, or
// its share where the nodes that it joins can only be on the same machine. There
// more would win nothing: with one processor a node needed a fifth less time of
// it for the same requests than with two, whose threads wake each other.
func processorShare(all int, join []string) int {
	for _, addr := range join {
		if host, _, err := net.SplitHostPort(addr); err == nil {
			addr = host
		}
		if ip := net.ParseIP(strings.Trim(addr, "[]")); ip == nil || !ip.IsLoopback() {
			return all
		}
	}
	return max(1, all/max(1, len(join)))
}

// exitOnFatal ends the process: after a failed fsync nothing that is in memory
// may be trusted to be on disk, so nothing more may be said.
func exitOnFatal(logger *slog.Logger) func(error) {
	return func(err error) {
		logger.Error("fatal: the node ends", "error", err)
		os.Exit(exitFailed)
	}
}

// bytesFlag is a size such as 512MiB, 2GB or 1048576.
type bytesFlag int64

// UnmarshalText reads a number with an optional unit.
func (b *bytesFlag) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	units := []struct {
		suffix string
		factor int64
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1}, {"", 1}}
	for _, u := range units {
		number, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		var v float64
		var rest string
		if n, _ := fmt.Sscanf(strings.TrimSpace(number)+" ", "%g%s", &v, &rest); n != 1 || v < 0 || v*float64(u.factor) > 1<<62 {
			break
		}
		*b = bytesFlag(v * float64(u.factor))
		return nil
	}
	return fmt.Errorf("%q is not a size: write 512MiB, 2GB or a number of bytes", s)
}
