package world

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/braiddb/braid/client"
)

// counts is a workload of increments that the client retries under one request
// id, and of members added to a set: an increment counts once, a member that was
// acknowledged is there.
type counts struct {
	w     *World
	mu    sync.Mutex
	least int64 // increments that were acknowledged
	most  int64 // and those whose outcome is not known
	added map[string]bool
	tried map[string]bool
}

func (c *counts) work(cl *client.Client, id int) {
	rng := rand.New(rand.NewPCG(c.w.seed, uint64(2000+id)))
	for n := 0; c.w.loading(); n++ {
		ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second)
		var err error
		if rng.IntN(2) == 0 {
			_, err = cl.Redis().Do(ctx, client.IncrBy([]byte("counter"), 1))
			c.counted(err)
		} else {
			member := fmt.Sprintf("%d.%d", id, n)
			_, err = cl.Redis().Do(ctx, client.SAdd([]byte("set"), []byte(member)))
			c.mu.Lock()
			c.tried[member], c.added[member] = true, err == nil
			c.mu.Unlock()
		}
		cancel()
		c.w.trace.Add("count %d.%d: %v", id, n, err)
		c.w.rest(rng, err)
	}
}

func (c *counts) counted(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.most++
	if err == nil {
		c.least++
	}
}

// check reads the counter and the set back.
func (c *counts) check(r *redis) {
	v, err := r.do("GET", "counter")
	var got int64
	if s, ok := v.(string); ok {
		fmt.Sscan(s, &got)
	}
	if err != nil && err != null || got < c.least || got > c.most {
		c.w.wrong("the counter is %v (%v); %d increments were acknowledged, %d begun", v, err, c.least, c.most)
	}
	c.w.known += int(c.least)
	v, err = r.do("SMEMBERS", "set")
	if err != nil && err != null {
		c.w.wrong("the set cannot be read: %v", err)
	}
	list, _ := v.([]any)
	there := map[string]bool{}
	for _, m := range list {
		there[fmt.Sprint(m)] = true
		if !c.tried[fmt.Sprint(m)] {
			c.w.wrong("the set has %v, which nobody added", m)
		}
	}
	for m, acknowledged := range c.added {
		if acknowledged && !there[m] {
			c.w.wrong("%s was added to the set and is not in it", m)
		}
		if acknowledged {
			c.w.known++
		}
	}
}
