package proof

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/braiddb/braid/client"
)

// noise is n bytes that do not compress.
func noise(seed uint64, n int) []byte {
	rng := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	b := make([]byte, n)
	rng.Read(b) // never fails
	return b
}

// TestLargeValues writes and reads values up to the limit through every node, so
// through leaders and others, and what is beyond it: that is refused by name, at
// once, and nothing ends with it.
func TestLargeValues(t *testing.T) {
	c := startCluster(t, 3, clusterOptions{})
	var clients []*redis.Client
	for _, p := range c.nodes {
		rc := redis.NewClient(&redis.Options{Addr: p.RedisAddr(), MaxRetries: -1, ReadTimeout: 20 * time.Second, WriteTimeout: 20 * time.Second})
		t.Cleanup(func() { rc.Close() })
		clients = append(clients, rc)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 120*time.Second)
	defer cancel()
	const key = "{large}" // and all others in its tablet
	leader := leaderOf(t, c, connect(t, c), key)
	other, third := (leader+1)%3, (leader+2)%3
	for _, row := range []struct{ mib, through, from int }{{15, leader, other}, {15, other, leader}, {30, third, other}, {60, other, third}} {
		v := noise(uint64(row.mib), row.mib<<20)
		begin := time.Now()
		if err := clients[row.through].Set(ctx, key, v, 0).Err(); err != nil {
			t.Fatalf("set %d MiB through node %d after %v: %v", row.mib, row.through+1, time.Since(begin), err)
		}
		wrote := time.Since(begin)
		got, err := clients[row.from].Get(ctx, key).Bytes()
		if err != nil || sha256.Sum256(got) != sha256.Sum256(v) {
			t.Fatalf("get %d MiB through node %d: %d bytes, %v", row.mib, row.from+1, len(got), err)
		}
		t.Logf("%d MiB, led by node %d: set through node %d in %v, read through node %d in %v", row.mib, leader+1, row.through+1, wrote, row.from+1, time.Since(begin)-wrote)
	}
	for _, i := range []int{leader, other} {
		begin := time.Now()
		err := clients[i].Set(ctx, key, noise(1, 70<<20), 0).Err()
		if err == nil || !strings.Contains(err.Error(), "ERR command exceeds the limits of a value") {
			t.Errorf("set 70 MiB through node %d after %v: %v", i+1, time.Since(begin), err)
		}
	}
	c.largeAnswers(ctx, clients, key)
	c.largeRequests(ctx)
	for _, p := range c.nodes {
		if err := p.Ready(); err != nil {
			t.Errorf("node %d: %v", p.Index, err)
		}
	}
}

// largeAnswers asks for more than a message between nodes holds: 60 MiB that are
// there and 15 more. Where the key is led no message is needed. An answer counts
// where the leader was the same before and after it, which on a slow machine it may
// not be.
func (c *cluster) largeAnswers(ctx context.Context, clients []*redis.Client, key string) {
	t := c.t
	cl := connect(t, c)
	if err := clients[0].Set(ctx, key+"b", noise(3, 15<<20), 0).Err(); err != nil {
		t.Fatal(err)
	}
	ask := func(i int) (err error, leads bool) {
		for {
			leader := leaderOf(t, c, cl, key)
			begin := time.Now()
			got, err := clients[i].TxPipelined(ctx, func(p redis.Pipeliner) error {
				p.Get(ctx, key)
				p.Get(ctx, key+"b")
				return nil
			})
			took := time.Since(begin)
			t.Logf("an answer of 75 MiB through node %d, node %d leads: %d results, %v, after %v", i+1, leader+1, len(got), err, took)
			if leaderOf(t, c, cl, key) == leader || ctx.Err() != nil {
				return err, i == leader
			}
		}
	}
	for i := range clients {
		switch err, leads := ask(i); {
		case leads && err != nil:
			t.Errorf("an answer of 75 MiB through the leader: %v", err)
		case !leads && (err == nil || !strings.Contains(err.Error(), "exceeds")):
			t.Errorf("an answer of 75 MiB through node %d, which does not lead: %v", i+1, err)
		}
	}
}

// largeRequests sends what the front end would not let pass.
func (c *cluster) largeRequests(ctx context.Context) {
	cl := connect(c.t, c)
	begin := time.Now()
	_, err := cl.Redis().Do(ctx, client.Set([]byte("{large}"), noise(4, 66<<20), client.SetOptions{}))
	if !errors.Is(err, client.ErrTooLarge) {
		c.t.Errorf("66 MiB through the client: %v after %v", err, time.Since(begin))
	}
	var keep []*client.Op
	for i := range 5 { // each within the limit, together not
		keep = append(keep, client.Set([]byte(fmt.Sprint("{large}", i)), noise(5, 15<<20), client.SetOptions{}))
	}
	begin = time.Now()
	_, err = cl.Redis().Batch(ctx, keep)
	if !errors.Is(err, client.ErrTooLarge) {
		c.t.Errorf("75 MiB in five writes: %v after %v", err, time.Since(begin))
	}
}
