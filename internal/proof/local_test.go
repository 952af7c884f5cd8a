package proof

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// metrics reads the console's /metrics.
func metrics(t testing.TB, webAddr string) map[string]float64 {
	t.Helper()
	c := http.Client{Timeout: 5 * time.Second}
	r, err := c.Get("http://" + webAddr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	out := map[string]float64{}
	for s := bufio.NewScanner(r.Body); s.Scan(); {
		name, text, ok := strings.Cut(s.Text(), " ")
		if v, err := strconv.ParseFloat(text, 64); ok && err == nil {
			out[name] = v
		}
	}
	return out
}

// codec sums what a node's connections encoded and decoded.
func codec(t testing.TB, m map[string]float64) (sum float64) {
	t.Helper()
	for _, name := range []string{"out", "nodes", "client"} {
		for _, what := range []string{"encodes", "decodes"} {
			v, ok := m["braid_rpc_"+name+"_"+what]
			if !ok {
				t.Fatalf("no metric braid_rpc_%s_%s", name, what)
			}
			sum += v
		}
	}
	return sum
}

// TestLocalRequestsEncodeNothing sends SETs and GETs to the node that leads
// their keys. In a cluster of one nobody else is spoken to, so the codec's
// counters may not move at all.
func TestLocalRequestsEncodeNothing(t *testing.T) {
	c := newCluster(t, 1, clusterOptions{})
	p := c.nodes[0]
	i := joinIndex(p.Args)
	p.Args = append(p.Args[:i-1:i-1], p.Args[i+1:]...)
	p.start()
	c.waitReady()
	rc := redis.NewClient(&redis.Options{Addr: p.RedisAddr()})
	defer rc.Close()
	ctx := context.Background()
	for i := range 50 {
		if err := rc.Set(ctx, fmt.Sprint("warm", i), i, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	before := metrics(t, p.WebAddr())
	for i := range 500 {
		key := fmt.Sprint("key", i)
		if err := rc.Set(ctx, key, i, 0).Err(); err != nil {
			t.Fatal(err)
		}
		if got, err := rc.Get(ctx, key).Int(); err != nil || got != i {
			t.Fatalf("%s is %d, %v; want %d", key, got, err, i)
		}
	}
	after := metrics(t, p.WebAddr())
	if n := codec(t, after) - codec(t, before); n != 0 {
		t.Errorf("1000 local requests encoded or decoded %v messages", n)
	}
	if n := after["braid_client_requests"] - before["braid_client_requests"]; n < 1000 {
		t.Errorf("the client counted %v of 1000 requests: the wrong thing was measured", n)
	}
}

// TestNoMessageForACommitIndexAlone loads a cluster and lets it fall idle: no
// leader ever sends a message that carries a commit index and nothing else, and
// followers apply all the same.
func TestNoMessageForACommitIndexAlone(t *testing.T) {
	c := startCluster(t, 3, clusterOptions{})
	clients := stockClients(t, c)
	var keys []string
	for i := range 1500 {
		keys = append(keys, fmt.Sprint("key", i))
	}
	each(t, 12, keys, func(worker int, name string) error {
		return clients[worker%3].Set(context.Background(), name, worker, 0).Err()
	}, nil)
	applied := func() (lowest, highest float64) {
		for i, p := range c.nodes {
			v := metrics(t, p.WebAddr())["braid_multiraft_entries_applied"]
			if i == 0 || v < lowest {
				lowest = v
			}
			highest = max(highest, v)
		}
		return
	}
	if !eventually(5*time.Second, func() bool { low, high := applied(); return low > 0 && high-low <= 1 }) {
		low, high := applied()
		t.Errorf("followers of idle groups have applied %v entries, leaders %v", low, high)
	}
	var held, appends float64
	for _, p := range c.nodes {
		m := metrics(t, p.WebAddr())
		alone, ok := m["braid_multiraft_commits_alone"]
		if !ok || alone != 0 {
			t.Errorf("node %d sent %v messages with a commit index alone (counted: %v)", p.Index, alone, ok)
		}
		held += m["braid_multiraft_commits_held_back"]
		appends += m["braid_multiraft_appends_sent"]
	}
	t.Logf("%v messages with entries, %v with a commit index alone held back", appends, held)
	if held == 0 {
		t.Error("nothing was held back: the load did not reach the case")
	}
}
