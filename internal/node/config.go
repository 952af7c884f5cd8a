package node

import (
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/gossip"
	"github.com/braiddb/braid/internal/logs/epochstore"
)

// Standard ports.
const (
	NodePort    = 7100
	ClientPort  = 7200
	RedisPort   = 6379
	ConsolePort = 7000
)

// Config is everything that a user may decide about a node. Durations and sizes
// have the defaults in brackets; the zero value of a field takes its default.
type Config struct {
	// Data is the node's data directory.
	Data string
	// Listen is the address, without a port, that all listeners bind to [127.0.0.1].
	Listen string
	// Advertise is the address, without a port, that others reach the node at [Listen].
	Advertise string
	// AdvertiseNode is Advertise for the nodes' own traffic alone [Advertise].
	AdvertiseNode string
	// Ports; 0 takes the standard one, -1 any free one.
	NodePort, ClientPort, RedisPort, ConsolePort int
	// Join lists the node addresses of the cluster to form or to join; empty
	// makes a cluster of one. An address without a port has the standard one.
	Join []string
	// Location is region/zone/rack; replicas are spread over what differs.
	Location string
	// Roles are what the node does: master, tablet, sequencer, storage [all]. Where
	// no node of a cluster is a master, or takes tablets, its storage nodes do.
	Roles []string
	// SequencerWeight and StorageWeight are the node's shares of sequencers and of
	// copies, compared with other nodes'; negative: none [1].
	SequencerWeight, StorageWeight float64
	// EpochStore is where the epochs of logs are kept: on a table of the cluster
	// [table], or on ZooKeeper, as zookeeper://HOST:PORT,.../ROOT. All nodes of a
	// cluster have the same, for ever.
	EpochStore string
	// Memory bounds caches, memtables and queues together, in bytes [a quarter of the machine].
	Memory int64
	// Insecure allows listening on addresses that are not loopback.
	Insecure bool

	RedisPassword string
	// RedisMaxClients bounds connections to the Redis port [10000].
	RedisMaxClients int
	// RedisTablets is how many tablets the Redis table of a new cluster has [3].
	RedisTablets int
	// Park bounds how long a request waits for a leader before TRYAGAIN [4s].
	Park time.Duration

	// Lease is how long a promise between two nodes holds [1s]; the same on all nodes.
	Lease time.Duration
	// Beat is how often promises are renewed [200ms].
	Beat time.Duration
	// ElectionDelay is the most that a voter waits, after a leader's promise has lapsed, before it stands [150ms].
	ElectionDelay time.Duration
	// MaxSkew is how far a peer's clock may be ahead before its times are refused [500ms].
	MaxSkew time.Duration
	// DeadAfter is how long a node may be silent before its replicas are made anew elsewhere [15m].
	DeadAfter time.Duration
	// GossipInterval is the time between two heartbeats of the failure detector [50ms],
	// GossipFanOut how many nodes are told in each [4], GossipThreshold how many
	// intervals a node may be silent until it is held for dead [3s and 13], and
	// GossipRefusedThreshold the same for one whose address refuses connections [13].
	// The same on all nodes: a node counts others' silence in intervals of its own.
	GossipInterval                          time.Duration
	GossipFanOut                            int
	GossipThreshold, GossipRefusedThreshold int
	// JournalBytes bounds the journal on disk [512 MiB].
	JournalBytes int64

	// Version is what the node says of its build.
	Version string
}

func (c Config) withDefaults() Config {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	if c.Listen == "" {
		c.Listen = "127.0.0.1"
	}
	if c.Advertise == "" {
		c.Advertise = c.Listen
	}
	if c.AdvertiseNode == "" {
		c.AdvertiseNode = c.Advertise
	}
	port := func(p *int, standard int) {
		if *p == 0 {
			*p = standard
		} else if *p < 0 {
			*p = 0
		}
	}
	port(&c.NodePort, NodePort)
	port(&c.ClientPort, ClientPort)
	port(&c.RedisPort, RedisPort)
	port(&c.ConsolePort, ConsolePort)
	if c.Memory == 0 {
		c.Memory = 1 << 30
	}
	if c.RedisMaxClients == 0 {
		c.RedisMaxClients = 10_000
	}
	if c.RedisTablets == 0 {
		c.RedisTablets = 3
	}
	if c.JournalBytes == 0 {
		c.JournalBytes = 512 << 20
	}
	def(&c.Park, 4*time.Second)
	def(&c.Lease, time.Second)
	def(&c.Beat, 200*time.Millisecond)
	def(&c.ElectionDelay, 150*time.Millisecond)
	def(&c.MaxSkew, 500*time.Millisecond)
	def(&c.DeadAfter, 15*time.Minute)
	return c
}

// epochStoreTable is the epoch store on a table of the cluster.
const epochStoreTable = "table"

// weightMax bounds a node's weights.
const weightMax = 1e6

// ErrInsecure says that a listener would be open to the network without
// authentication of nodes.
var ErrInsecure = errors.New("listening on an address that is not loopback without TLS: pass --insecure if the network is trusted")

// Validate says what is wrong with the configuration and what to do.
func (c Config) Validate() error {
	if c.Data == "" {
		return errors.New("no data directory: pass --data DIR")
	}
	for _, p := range []int{c.NodePort, c.ClientPort, c.RedisPort, c.ConsolePort} {
		if p < -1 || p > 65535 {
			return fmt.Errorf("port %d is not between 1 and 65535", p)
		}
	}
	for name, d := range map[string]time.Duration{"park": c.Park, "lease": c.Lease, "beat": c.Beat, "election-delay": c.ElectionDelay, "max-skew": c.MaxSkew, "dead-after": c.DeadAfter} {
		if d < 0 {
			return fmt.Errorf("--%s %s is negative: write a duration such as 2s", name, d)
		}
	}
	c = c.withDefaults()
	if !c.Insecure && !isLoopback(c.Listen) {
		return fmt.Errorf("--listen %s: %w", c.Listen, ErrInsecure)
	}
	seen := map[string]bool{}
	for _, a := range c.joinAddrs() {
		if err := checkAddr(a); err != nil {
			return fmt.Errorf("--join %s: %w: write ADDR or ADDR:PORT", a, err)
		}
		if seen[a] {
			return fmt.Errorf("--join names %s twice", a)
		}
		seen[a] = true
	}
	if c.Memory < 64<<20 {
		return fmt.Errorf("--memory of %d MiB is below the least, 64 MiB", c.Memory>>20)
	}
	if c.RedisMaxClients < 1 {
		return fmt.Errorf("--redis-max-clients %d lets nobody in", c.RedisMaxClients)
	}
	if c.RedisTablets < 1 || c.RedisTablets > 1024 {
		return fmt.Errorf("--redis-tablets %d is not between 1 and 1024", c.RedisTablets)
	}
	if c.JournalBytes < 64<<20 {
		return fmt.Errorf("--journal-size of %d MiB is below the least, 64 MiB", c.JournalBytes>>20)
	}
	if c.Beat <= 0 || c.Lease < 3*c.Beat {
		return fmt.Errorf("--lease %s must be at least three times --beat %s", c.Lease, c.Beat)
	}
	if err := c.gossip().Validate(); err != nil {
		return fmt.Errorf("--gossip-interval %s, --gossip-fanout %d, --gossip-threshold %d, --gossip-refused-threshold %d (0: the default): %w",
			c.GossipInterval, c.GossipFanOut, c.GossipThreshold, c.GossipRefusedThreshold, err)
	}
	if c.EpochStore != "" && c.EpochStore != epochStoreTable {
		if _, _, err := epochstore.ParseZooKeeper(c.EpochStore); err != nil {
			return fmt.Errorf("--epoch-store: %w, nor %s", err, epochStoreTable)
		}
	}
	if _, err := catalog.ParseRoles(c.Roles); err != nil {
		return fmt.Errorf("--roles: %w", err)
	}
	for name, w := range map[string]float64{"sequencer-weight": c.SequencerWeight, "storage-weight": c.StorageWeight} {
		if math.IsNaN(w) || math.Abs(w) > weightMax {
			return fmt.Errorf("--%s %g is not a number up to %g", name, w, weightMax)
		}
	}
	if strings.Count(c.Location, "/") > 2 {
		return fmt.Errorf("--location %q is not region/zone/rack", c.Location)
	}
	return nil
}

// gossip is how the failure detector is set.
func (c Config) gossip() gossip.Config {
	return gossip.Config{Interval: c.GossipInterval, FanOut: c.GossipFanOut, Threshold: c.GossipThreshold, RefusedThreshold: c.GossipRefusedThreshold}
}

// joinAddrs is the join list with ports, sorted, so that its order does not matter.
func (c Config) joinAddrs() []string {
	var out []string
	for _, a := range c.Join {
		if a = strings.TrimSpace(a); a == "" {
			continue
		}
		if _, _, err := net.SplitHostPort(a); err != nil {
			a = net.JoinHostPort(strings.Trim(a, "[]"), strconv.Itoa(NodePort))
		}
		out = append(out, a)
	}
	slices.Sort(out)
	return out
}

// checkAddr says what is wrong with an address with a port.
func checkAddr(a string) error {
	host, port, err := net.SplitHostPort(a)
	if err != nil {
		return err
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return fmt.Errorf("port %q is not between 1 and 65535", port)
	}
	if host == "" || strings.Contains(host, ":") && net.ParseIP(host) == nil {
		return fmt.Errorf("%q is neither a name nor an IP address", host)
	}
	return nil
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return ip != nil && ip.IsLoopback()
}
