package redis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/catalog"
)

// CLUSTER: SLOTS SHARDS NODES INFO KEYSLOT MYID COUNTKEYSINSLOT GETKEYSINSLOT
// MYSHARDID LINKS HELP.
//
//   - A slot belongs to the node that leads its tablet, so a cluster client reaches
//     the leader without a further step; where no leader is known, to one that has a
//     copy. There is never MOVED or ASK: every node serves every key.
//   - All nodes are masters; copies are not listed as replicas, because which node
//     leads differs from tablet to tablet.
//   - A tablet boundary inside a slot gives the slot to the tablet that holds its first hash.
//   - Commands that would change a cluster are unknown: nodes join by themselves.
func clusterCommands() []*command {
	const g = "cluster"
	return []*command{{name: "cluster", arity: -2, flags: 0, group: g, since: "3.0.0", summary: "A container for Redis Cluster commands.", subs: []*command{
		{name: "cluster|slots", arity: 2, flags: loading | stale | noMulti, group: g, since: "3.0.0", summary: "Returns the mapping of cluster slots to nodes.", run: runClusterSlots},
		{name: "cluster|shards", arity: 2, flags: loading | stale | noMulti, group: g, since: "7.0.0", summary: "Returns the mapping of cluster slots to shards.", run: runClusterShards},
		{name: "cluster|nodes", arity: 2, flags: loading | stale | noMulti, group: g, since: "3.0.0", summary: "Returns the cluster configuration for a node.", run: runClusterNodes},
		{name: "cluster|info", arity: 2, flags: loading | stale | noMulti, group: g, since: "3.0.0", summary: "Returns information about the state of a node.", run: runClusterInfo},
		{name: "cluster|keyslot", arity: 3, flags: loading | stale, group: g, since: "3.0.0", summary: "Returns the hash slot for a key.", run: func(c *conn, k *call) { c.w.int(int64(catalog.RedisSlot(k.args[2]))) }},
		{name: "cluster|myid", arity: 2, flags: loading | stale, group: g, since: "3.0.0", summary: "Returns the ID of a node.", run: func(c *conn, _ *call) { c.w.bulkString(nodeID(c.s.opts.NodeID)) }},
		{name: "cluster|myshardid", arity: 2, flags: loading | stale, group: g, since: "7.2.0", summary: "Returns the shard ID of a node.", run: func(c *conn, _ *call) { c.w.bulkString(nodeID(c.s.opts.NodeID)) }},
		{name: "cluster|links", arity: 2, flags: loading | stale, group: g, since: "7.0.0", summary: "Returns a list of all TCP links to and from peer nodes. Braid's links are not Redis's.", run: func(c *conn, _ *call) { c.w.array(0) }},
		{name: "cluster|countkeysinslot", arity: 3, flags: stale | noMulti, group: g, since: "3.0.0", summary: "Returns the number of keys in a hash slot.", run: func(c *conn, k *call) { c.keysInSlot(k, false) }},
		{name: "cluster|getkeysinslot", arity: 4, flags: stale | noMulti, group: g, since: "3.0.0", summary: "Returns the key names in a hash slot.", run: func(c *conn, k *call) { c.keysInSlot(k, true) }},
		{name: "cluster|help", arity: 2, flags: loading | stale, group: g, since: "5.0.0", summary: "Returns helpful text about the different subcommands.", run: runHelp("CLUSTER",
			"COUNTKEYSINSLOT <slot>", "    Return the number of keys in <slot>.", "GETKEYSINSLOT <slot> <count>", "    Return key names stored by current node in a slot.",
			"INFO", "    Return information about the cluster.", "KEYSLOT <key>", "    Return the hash slot for <key>.", "MYID", "    Return the node id.",
			"NODES", "    Return cluster configuration seen by node. Output format:", "    <id> <ip:port@bus-port[,hostname]> <flags> <master> <pings> <pongs> <epoch> <link> <slot> ...",
			"SLOTS", "    Return information about slots range mappings. Each range is made of:", "    start, end, master and replicas IP addresses, ports and ids",
			"SHARDS", "    Return information about slot range mappings and the nodes associated with them.")},
	}}}
}

// nodeID is a node's id as 40 hex digits, the form of Redis Cluster.
func nodeID(id catalog.NodeID) string { return fmt.Sprintf("%040x", uint64(id)) }

// member is one node as cluster clients see it.
type member struct {
	id    catalog.NodeID
	host  string
	port  int
	dead  bool
	slots [][2]int // first and last, both included
}

// shards is who serves which slots.
type shards struct {
	ranges []slotRange
	nodes  []*member // by id
}

type slotRange struct {
	first, last int
	node        *member
}

// topologyAge is how old the known locations may be when a client asks for them.
const topologyAge = time.Second

// freshness remembers when locations were asked for last.
type freshness struct {
	sync.Mutex
	at time.Time
}

// shards asks where tablets are and who leads them.
func (s *Server) shards(now time.Time) (*shards, error) {
	ctx, cancel := context.WithTimeout(s.ctx, 2*time.Second)
	defer cancel()
	if r, ok := s.table.(interface{ Refresh(context.Context) error }); ok && s.stale(now) {
		// What is known already will do if nobody answers: every node serves every key.
		if err := r.Refresh(ctx); err != nil {
			s.opts.Logger.Debug("redis: locations not refreshed", "err", err)
		}
	}
	tablets, err := s.table.Tablets(ctx)
	if err != nil {
		return nil, err
	}
	return newShards(tablets)
}

// stale reports whether it is time to ask again, and takes it that this is done.
func (s *Server) stale(now time.Time) bool {
	s.fresh.Lock()
	defer s.fresh.Unlock()
	if now.Sub(s.fresh.at) < topologyAge {
		return false
	}
	s.fresh.at = now
	return true
}

func newShards(tablets []client.TabletInfo) (*shards, error) {
	sh := &shards{}
	byID := map[catalog.NodeID]*member{}
	for _, t := range tablets {
		for _, r := range t.Replicas {
			if byID[r.Node.ID] != nil {
				continue
			}
			m := newMember(r.Node)
			byID[m.id] = m
			sh.nodes = append(sh.nodes, m)
		}
	}
	slices.SortFunc(sh.nodes, func(a, b *member) int { return int(int64(a.id) - int64(b.id)) })
	next := 0
	for i, t := range tablets {
		// The slots whose first hash lies in the tablet.
		end := catalog.RedisSlots
		if i+1 < len(tablets) {
			end = firstSlot(tablets[i+1].HashStart)
		}
		if end <= next {
			continue
		}
		m := serving(t, byID)
		if m == nil {
			return nil, errors.New("no node with a Redis address holds slot " + strconv.Itoa(next))
		}
		if n := len(sh.ranges); n > 0 && sh.ranges[n-1].node == m {
			sh.ranges[n-1].last = end - 1
			m.slots[len(m.slots)-1][1] = end - 1
		} else {
			sh.ranges = append(sh.ranges, slotRange{next, end - 1, m})
			m.slots = append(m.slots, [2]int{next, end - 1})
		}
		next = end
	}
	return sh, nil
}

// firstSlot is the first slot that begins at or after a hash.
func firstSlot(hash uint64) int {
	slot := int(catalog.HashSlot(hash))
	if catalog.SlotStart(uint32(slot)) < hash {
		slot++
	}
	return slot
}

func newMember(n client.NodeInfo) *member {
	m := &member{id: n.ID, dead: n.Dead}
	if host, port, err := net.SplitHostPort(n.RedisAddr); err == nil {
		m.host = host
		m.port, _ = strconv.Atoi(port) // 0: no address
	}
	return m
}

// serving is the node to which a tablet's slots are assigned: its leader, else
// one that has a copy.
func serving(t client.TabletInfo, byID map[catalog.NodeID]*member) *member {
	if m := byID[t.Leader]; m != nil && m.port != 0 && !m.dead {
		return m
	}
	var some *member
	for _, r := range t.Replicas {
		m := byID[r.Node.ID]
		if m.port == 0 {
			continue
		}
		if !m.dead && !r.Node.Draining {
			return m
		}
		some = m
	}
	return some
}

// withShards calls f with who serves what, or writes why that is not known.
func (c *conn) withShards(k *call, f func(*shards)) {
	sh, err := c.s.shards(c.now)
	if err != nil {
		c.w.error(errorLine(failure(err)))
		return
	}
	f(sh)
}

func runClusterSlots(c *conn, k *call) {
	c.withShards(k, func(sh *shards) {
		c.w.array(len(sh.ranges))
		for _, r := range sh.ranges {
			c.w.array(3)
			c.w.int(int64(r.first))
			c.w.int(int64(r.last))
			c.w.array(4)
			c.w.bulkString(r.node.host)
			c.w.int(int64(r.node.port))
			c.w.bulkString(nodeID(r.node.id))
			c.w.dict(0)
		}
	})
}

func runClusterShards(c *conn, k *call) {
	c.withShards(k, func(sh *shards) {
		c.w.array(len(sh.nodes))
		for _, m := range sh.nodes {
			c.w.dict(2)
			c.w.bulkString("slots")
			c.w.array(2 * len(m.slots))
			for _, r := range m.slots {
				c.w.int(int64(r[0]))
				c.w.int(int64(r[1]))
			}
			c.w.bulkString("nodes")
			c.w.array(1)
			c.w.dict(7)
			c.w.bulkString("id")
			c.w.bulkString(nodeID(m.id))
			c.w.bulkString("port")
			c.w.int(int64(m.port))
			c.w.bulkString("ip")
			c.w.bulkString(m.host)
			c.w.bulkString("endpoint")
			c.w.bulkString(m.host)
			c.w.bulkString("role")
			c.w.bulkString("master")
			c.w.bulkString("replication-offset")
			c.w.int(0)
			c.w.bulkString("health")
			c.w.bulkString(map[bool]string{true: "fail", false: "online"}[m.dead])
		}
	})
}

func runClusterNodes(c *conn, k *call) {
	c.withShards(k, func(sh *shards) {
		var b strings.Builder
		for _, m := range sh.nodes {
			flags := "master"
			if m.id == c.s.opts.NodeID {
				flags = "myself,master"
			}
			link := "connected"
			if m.dead {
				flags += ",fail"
				link = "disconnected"
			}
			fmt.Fprintf(&b, "%s %s:%d@%d %s - 0 0 %d %s", nodeID(m.id), m.host, m.port, m.port, flags, m.id, link)
			for _, r := range m.slots {
				if r[0] == r[1] {
					fmt.Fprintf(&b, " %d", r[0])
				} else {
					fmt.Fprintf(&b, " %d-%d", r[0], r[1])
				}
			}
			b.WriteByte('\n')
		}
		c.w.verbatim(b.String())
	})
}

func runClusterInfo(c *conn, k *call) {
	sh, err := c.s.shards(c.now)
	state, nodes, size := "ok", 0, 0
	if err != nil {
		state, sh = "fail", &shards{}
	}
	nodes = len(sh.nodes)
	for _, m := range sh.nodes {
		if len(m.slots) > 0 {
			size++
		}
	}
	slots := 0
	for _, r := range sh.ranges {
		slots += r.last - r.first + 1
	}
	c.w.verbatim(fmt.Sprintf("cluster_state:%s\r\ncluster_slots_assigned:%d\r\ncluster_slots_ok:%d\r\ncluster_slots_pfail:0\r\ncluster_slots_fail:%d\r\n"+
		"cluster_known_nodes:%d\r\ncluster_size:%d\r\ncluster_current_epoch:1\r\ncluster_my_epoch:1\r\n",
		state, slots, slots, catalog.RedisSlots-slots, nodes, size))
}

// keysInSlot counts, or lists, the keys of one slot.
func (c *conn) keysInSlot(k *call, list bool) {
	slot, ok := parseInt(k.args[2])
	limit := int64(-1)
	if list && ok {
		limit, ok = parseInt(k.args[3])
	}
	switch {
	case !ok:
		c.w.error(string(errNotInteger))
		return
	case slot < 0 || slot >= catalog.RedisSlots || list && limit < 0:
		c.w.error("ERR Invalid slot" + map[bool]string{true: " or number of keys"}[list])
		return
	}
	at, end := catalog.SlotStart(uint32(slot)), catalog.SlotStart(uint32(slot)+1)
	o := client.ScanOptions{Count: visitAtOnce}
	if list {
		o.Count = max(min(o.Count, limit), 1)
	}
	var found []*client.Result
	n := int64(0)
	for !c.gone() {
		keys, next, failed := c.visit(k, at, o)
		if failed != nil {
			c.w.error(errorLine(failed))
			return
		}
		for _, key := range keys {
			if int64(catalog.RedisSlot(key.Bytes)) == slot && (!list || n < limit) {
				n++
				if list {
					found = append(found, key)
				}
			}
		}
		if next == 0 || end != 0 && next >= end || list && n >= limit {
			break
		}
		at = next
	}
	if !list {
		c.w.int(n)
		return
	}
	c.w.array(len(found))
	for _, key := range found {
		c.w.bulk(key.Bytes)
	}
}
