package redis

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/catalog"
)

// node counts what one node of a cluster is asked.
type node struct {
	*shelf
	id       client.NodeID
	led      atomic.Int64 // operations on keys that it leads
	notLed   atomic.Int64
	requests atomic.Int64
}

func (n *node) StartReply(ops []*client.Op, deadline time.Time, done func(client.Reply, error)) {
	n.requests.Add(1)
	for _, op := range ops {
		if n.tablets[n.owner(op.Hash)].Leader == n.id {
			n.led.Add(1)
		} else {
			n.notLed.Add(1)
		}
	}
	n.shelf.StartReply(ops, deadline, done)
}

// startCluster runs three nodes' servers over one table of twelve tablets.
func startCluster(t testing.TB) (nodes []*node, addrs []string) {
	t.Helper()
	var listeners []net.Listener
	var infos []client.NodeInfo
	for i := range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listeners = append(listeners, l)
		addrs = append(addrs, l.Addr().String())
		infos = append(infos, client.NodeInfo{ID: catalog.NodeID(i + 1), RedisAddr: l.Addr().String()})
	}
	shared := newShelf(t, 12, infos...)
	for i, l := range listeners {
		n := &node{shelf: shared, id: infos[i].ID}
		nodes = append(nodes, n)
		serveOn(t, l, n, Options{NodeID: n.id})
	}
	return nodes, addrs
}

// ledShare is the part of operations that reached the leader of their tablet.
func ledShare(nodes []*node) float64 {
	var led, all int64
	for _, n := range nodes {
		led += n.led.Load()
		all += n.led.Load() + n.notLed.Load()
	}
	return float64(led) / float64(all)
}

func TestGoRedisClusterClientReachesLeaders(t *testing.T) {
	for _, protocol := range []int{2, 3} {
		t.Run(fmt.Sprintf("RESP%d", protocol), func(t *testing.T) {
			nodes, addrs := startCluster(t)
			ctx := context.Background()
			c := goredis.NewClusterClient(&goredis.ClusterOptions{Addrs: addrs[:1], Protocol: protocol})
			defer c.Close()
			for i := range 1000 {
				key := "key" + strconv.Itoa(i)
				if err := c.Set(ctx, key, i, 0).Err(); err != nil {
					t.Fatal(err)
				}
				if got, err := c.Get(ctx, key).Int(); err != nil || got != i {
					t.Fatalf("%s: %d, %v", key, got, err)
				}
			}
			if share := ledShare(nodes); share < 0.99 {
				t.Errorf("only %.3f of the operations reached their leader", share)
			}
			pipe := c.Pipeline()
			for i := range 300 {
				pipe.Incr(ctx, "key"+strconv.Itoa(i))
			}
			cmds, err := pipe.Exec(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for i, cmd := range cmds {
				if got := cmd.(*goredis.IntCmd).Val(); got != int64(i+1) {
					t.Fatalf("key%d is %d", i, got)
				}
			}
			if err := c.Watch(ctx, func(tx *goredis.Tx) error {
				_, err := tx.TxPipelined(ctx, func(p goredis.Pipeliner) error {
					p.Incr(ctx, "{w}n")
					p.HSet(ctx, "{w}h", "f", "v")
					return nil
				})
				return err
			}, "{w}n"); err != nil {
				t.Errorf("transaction: %v", err)
			}
			if shards, err := c.ClusterShards(ctx).Result(); err != nil || len(shards) != 3 {
				t.Errorf("shards %v, %v", shards, err)
			}
		})
	}
}

func TestRueidisReachesLeaders(t *testing.T) {
	nodes, addrs := startCluster(t)
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: addrs[:1], DisableCache: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx := context.Background()
	var cmds rueidis.Commands
	for i := range 500 {
		cmds = append(cmds, c.B().Set().Key("k"+strconv.Itoa(i)).Value(strconv.Itoa(i)).Build())
	}
	for i, r := range c.DoMulti(ctx, cmds...) {
		if err := r.Error(); err != nil {
			t.Fatalf("set %d: %v", i, err)
		}
	}
	for i := range 500 {
		if got, err := c.Do(ctx, c.B().Get().Key("k"+strconv.Itoa(i)).Build()).AsInt64(); err != nil || got != int64(i) {
			t.Fatalf("get %d: %d, %v", i, got, err)
		}
	}
	if share := ledShare(nodes); share < 0.99 {
		t.Errorf("only %.3f of the operations reached their leader", share)
	}
	if err := c.Do(ctx, c.B().Zadd().Key("z").ScoreMember().ScoreMember(1.5, "a").ScoreMember(2, "b").Build()).Error(); err != nil {
		t.Fatal(err)
	}
	z, err := c.Do(ctx, c.B().Zrange().Key("z").Min("0").Max("-1").Withscores().Build()).AsZScores()
	if err != nil || len(z) != 2 || z[0].Score != 1.5 {
		t.Errorf("zrange %v, %v", z, err)
	}
}

// Commands whose keys lie anywhere, sent to one node by a client that knows
// nothing of the cluster.
func TestAnyNodeServesAnyKey(t *testing.T) {
	nodes, addrs := startCluster(t)
	ctx := context.Background()
	c := goredis.NewClient(&goredis.Options{Addr: addrs[2]})
	defer c.Close()
	var pairs []any
	var keys []string
	for i := range 1000 {
		keys = append(keys, "any"+strconv.Itoa(i))
		pairs = append(pairs, keys[i], i)
	}
	if err := c.MSet(ctx, pairs...).Err(); err != nil {
		t.Fatal(err)
	}
	if n := nodes[2].requests.Load(); n > 24 {
		t.Errorf("MSET of 1000 keys over 12 tablets took %d requests", n)
	}
	values, err := c.MGet(ctx, keys...).Result()
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range values {
		if v != strconv.Itoa(i) {
			t.Fatalf("%s is %v", keys[i], v)
		}
	}
	if n := c.Exists(ctx, keys...).Val(); n != 1000 {
		t.Errorf("exists %d", n)
	}
	if n := c.DBSize(ctx).Val(); n != 1000 {
		t.Errorf("dbsize %d", n)
	}
	if got := c.Keys(ctx, "any*").Val(); len(got) != 1000 {
		t.Errorf("keys %d", len(got))
	}
	seen := map[string]int{}
	for it := c.Scan(ctx, 0, "any*", 50).Iterator(); it.Next(ctx); {
		seen[it.Val()]++
	}
	if len(seen) != 1000 {
		t.Errorf("scan saw %d keys", len(seen))
	}
	for k, n := range seen {
		if n != 1 {
			t.Errorf("scan gave %s %d times", k, n)
		}
	}
	inSlots := 0
	for i := range 100 {
		slot := c.ClusterKeySlot(ctx, keys[i]).Val()
		n := c.ClusterCountKeysInSlot(ctx, int(slot)).Val()
		got := c.ClusterGetKeysInSlot(ctx, int(slot), 100).Val()
		if int(n) != len(got) || !slices.Contains(got, keys[i]) {
			t.Errorf("slot %d: %d keys, %v", slot, n, got)
		}
		inSlots += int(n)
	}
	if n := c.Del(ctx, keys...).Val(); n != 1000 {
		t.Errorf("del %d", n)
	}
}

func TestClusterDescribesItself(t *testing.T) {
	_, addrs := startCluster(t)
	ctx := context.Background()
	c := goredis.NewClient(&goredis.Options{Addr: addrs[1]})
	defer c.Close()
	slots, err := c.ClusterSlots(ctx).Result()
	if err != nil {
		t.Fatal(err)
	}
	next := 0
	for _, s := range slots {
		if s.Start != next || len(s.Nodes) != 1 || len(s.Nodes[0].ID) != 40 {
			t.Errorf("slots %+v, expected to go on at %d", s, next)
		}
		next = s.End + 1
	}
	if next != catalog.RedisSlots {
		t.Errorf("slots end at %d", next)
	}
	id := c.ClusterMyID(ctx).Val()
	nodes := c.ClusterNodes(ctx).Val()
	if !strings.Contains(nodes, id+" "+addrs[1]) || strings.Count(nodes, "master") != 3 || strings.Count(nodes, "myself") != 1 {
		t.Errorf("nodes:\n%s", nodes)
	}
	if info := c.ClusterInfo(ctx).Val(); !strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, "cluster_slots_assigned:16384") {
		t.Errorf("info:\n%s", info)
	}
}

func TestShardsOfUnalignedTablets(t *testing.T) {
	a := client.ReplicaInfo{Node: client.NodeInfo{ID: 1, RedisAddr: "h1:1"}}
	b := client.ReplicaInfo{Node: client.NodeInfo{ID: 2, RedisAddr: "h2:2"}}
	c := client.ReplicaInfo{Node: client.NodeInfo{ID: 3}}
	mid := catalog.SlotStart(100) + 5
	sh, err := newShards([]client.TabletInfo{
		{HashStart: 0, HashEnd: mid, Leader: 1, Replicas: []client.ReplicaInfo{a, b}},
		{HashStart: mid, HashEnd: mid + 10, Leader: 2, Replicas: []client.ReplicaInfo{a, b}}, // less than a slot
		{HashStart: mid + 10, HashEnd: 0, Leader: 3, Replicas: []client.ReplicaInfo{c, b}},   // led by one without an address
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range sh.ranges {
		got = append(got, fmt.Sprintf("%d-%d@%s", r.first, r.last, r.node.host))
	}
	if want := []string{"0-100@h1", "101-16383@h2"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if _, err := newShards([]client.TabletInfo{{Replicas: []client.ReplicaInfo{c}}}); err == nil {
		t.Error("slots were given to a node without an address")
	}
}
