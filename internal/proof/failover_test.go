package proof

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/braiddb/braid/client"
)

// BenchmarkFailover kills the node that leads a key's tablet, again and again,
// and measures the longest time without an acknowledged write of that key:
//
//	go test -run '^$' -bench Failover -benchtime 50x -timeout 30m ./internal/proof
//
// Every write is sent to a node that stays up, without retries of the client's own.
func BenchmarkFailover(b *testing.B) {
	c := startCluster(b, 3, clusterOptions{})
	cl := connect(b, c)
	const key = "failover"
	var longest, sum time.Duration
	for b.Loop() {
		leader := leaderOf(b, c, cl, key)
		up := c.nodes[(leader+1)%3]
		rc := redis.NewClient(&redis.Options{Addr: up.RedisAddr(), MaxRetries: -1, ReadTimeout: 20 * time.Second})
		if err := rc.Set(context.Background(), key, "before", 0).Err(); err != nil {
			b.Fatal(err)
		}
		last := time.Now()
		c.nodes[leader].Kill()
		if !eventually(20*time.Second, func() bool { return rc.Set(context.Background(), key, "after", 0).Err() == nil }) {
			b.Fatal("no write was acknowledged within 20 s of the kill")
		}
		gap := time.Since(last)
		longest, sum = max(longest, gap), sum+gap
		rc.Close()
		c.nodes[leader].start()
		c.waitReady()
	}
	b.ReportMetric(longest.Seconds(), "longest-gap-s")
	b.ReportMetric(sum.Seconds()/float64(b.N), "mean-gap-s")
	b.ReportMetric(0, "ns/op")
}

// leaderOf gives the position of the node that leads a key's tablet.
func leaderOf(t testing.TB, c *cluster, cl *client.Client, key string) (i int) {
	t.Helper()
	hash := client.DocumentHash([]byte(key))
	found := eventually(20*time.Second, func() bool {
		state, err := cl.Cluster(context.Background())
		if err != nil {
			return false
		}
		for _, tablet := range state.Tablets {
			if !tablet.Owns(hash) || tablet.Leader == 0 {
				continue
			}
			for _, n := range state.Nodes {
				for j, p := range c.nodes {
					if n.Id == uint64(tablet.Leader) && n.RedisAddr == p.RedisAddr() {
						i = j
						return true
					}
				}
			}
		}
		return false
	})
	if !found {
		t.Fatal("the tablet has no leader")
	}
	return i
}
