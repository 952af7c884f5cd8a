package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/proof/cluster"
	"github.com/braiddb/braid/internal/sim/check"
)

const registerKeys = 20

// registers is a workload of reads, writes and compare-and-sets over Redis, without
// retries, each worker at one node.
type registers struct {
	r   *round
	mu  sync.Mutex
	ops [registerKeys][]*check.RegisterOp
	by  map[int][]*check.RegisterOp // writes, by the node that was asked
}

func (g *registers) work(ctx context.Context, p *cluster.Process, id int) {
	rng := rand.New(rand.NewPCG(g.r.seed, uint64(1000+id)))
	c := g.r.redis(p)
	defer c.Close()
	seen := [registerKeys]int64{}
	for n := int64(1); ctx.Err() == nil; n++ {
		key := rng.IntN(registerKeys)
		op := &check.RegisterOp{Op: check.Op{Client: id, Call: g.r.timeline.now()}, Arg: int64(id+1)<<32 | n}
		switch rng.IntN(4) {
		case 0:
			op.Kind = check.Write
		case 1:
			op.Kind, op.Old = check.Cas, seen[key]
		}
		err := one(c, fmt.Sprint("r", key), op)
		op.Return, op.Outcome = g.r.timeline.now(), outcome(err)
		if op.Kind == check.Read && err == nil {
			seen[key] = op.Out
		}
		g.r.add("n%d r%d %s: %v", p.Index, key, op, err)
		g.mu.Lock()
		g.ops[key] = append(g.ops[key], op)
		if op.Kind != check.Read {
			if g.by == nil {
				g.by = map[int][]*check.RegisterOp{}
			}
			g.by[p.Index] = append(g.by[p.Index], op)
		}
		g.mu.Unlock()
		rest(ctx, rng, err)
	}
}

// rest is a worker's pause between two operations, longer after an error.
func rest(ctx context.Context, rng *rand.Rand, err error) {
	d := time.Duration(4+rng.IntN(12)) * time.Millisecond
	if err != nil {
		d += 30 * time.Millisecond
	}
	pause(ctx, d)
}

// errNoEffect says that an operation surely did nothing.
var errNoEffect = errors.New("surely without effect")

// outcome is what an error of a Redis command says.
func outcome(err error) check.Outcome {
	var op *net.OpError
	switch {
	case err == nil:
		return check.OK
	case errors.Is(err, errNoEffect), errors.As(err, &op) && op.Op == "dial":
		return check.None
	}
	for _, refusal := range []string{"TRYAGAIN", "CLUSTERDOWN", "MISCONF"} {
		if strings.HasPrefix(err.Error(), refusal) {
			return check.None
		}
	}
	return check.Unknown
}

// one does an operation on a register. What is under way when the load ends is
// waited for.
func one(c *redis.Client, key string, op *check.RegisterOp) error {
	ctx := context.Background()
	get := func(g interface {
		Get(context.Context, string) *redis.StringCmd
	}) (int64, error) {
		v, err := g.Get(ctx, key).Int64()
		if errors.Is(err, redis.Nil) {
			err = nil
		}
		return v, err
	}
	var err error
	switch op.Kind {
	case check.Write:
		return c.Set(ctx, key, op.Arg, 0).Err()
	case check.Read:
		op.Out, err = get(c)
		return err
	}
	return c.Watch(ctx, func(tx *redis.Tx) error {
		got, err := get(tx)
		if err != nil {
			return fmt.Errorf("%w: %w", errNoEffect, err)
		}
		if got != op.Old {
			return nil
		}
		_, err = tx.TxPipelined(ctx, func(p redis.Pipeliner) error { p.Set(ctx, key, op.Arg, 0); return nil })
		if errors.Is(err, redis.TxFailedErr) { // somebody wrote meanwhile: says nothing about the value
			return fmt.Errorf("%w: %w", errNoEffect, err)
		}
		op.Done = err == nil
		return err
	}, key)
}

// judge looks for an order of each register's operations, and for writes that a node
// took after a sync of it had failed.
func (g *registers) judge() {
	for key, ops := range g.ops {
		known, unknown := 0, 0
		for _, o := range ops {
			switch o.Outcome {
			case check.OK:
				known++
			case check.Unknown:
				unknown++
			}
		}
		g.r.counted("registers", known, unknown)
		decided, err := check.Register(ops)
		if err != nil {
			g.r.wrong("register r%d: %v", key, err)
		} else if !decided {
			g.r.res.Undecided++
		}
	}
}

// counts is a workload of increments that the client retries under one request id,
// and of members added to a set.
type counts struct {
	r    *round
	mu   sync.Mutex
	incr []*check.CounterOp
	adds []*check.SetOp
}

func (c *counts) work(ctx context.Context, cl *client.Client, id int) {
	rng := rand.New(rand.NewPCG(c.r.seed, uint64(2000+id)))
	for n := int64(1); ctx.Err() == nil; n++ {
		op, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		o := check.Op{Client: id, Call: c.r.timeline.now()}
		var err error
		var res *client.Result
		if rng.IntN(2) == 0 {
			if res, err = cl.Redis().Do(op, client.IncrBy([]byte("counter"), 1)); err == nil {
				o.Outcome = check.OK
			}
			incr := &check.CounterOp{Op: o, Add: true}
			if incr.Return = c.r.timeline.now(); err == nil {
				incr.Value = res.Int
			}
			c.r.add("c%d incr: %d %v", id, incr.Value, err)
			c.mu.Lock()
			c.incr = append(c.incr, incr)
			c.mu.Unlock()
		} else {
			member := int64(id+1)<<32 | n
			if _, err = cl.Redis().Do(op, client.SAdd([]byte("set"), strconv.AppendInt(nil, member, 10))); err == nil {
				o.Outcome = check.OK
			}
			add := &check.SetOp{Op: o, Add: member}
			add.Return = c.r.timeline.now()
			c.r.add("c%d sadd %d: %v", id, member, err)
			c.mu.Lock()
			c.adds = append(c.adds, add)
			c.mu.Unlock()
		}
		cancel()
		rest(ctx, rng, err)
	}
}

// judge reads the counter and the set back.
func (c *counts) judge(ctx context.Context) {
	for _, o := range c.incr {
		c.r.counted("increments", int(o.Outcome), 1-int(o.Outcome))
	}
	for _, o := range c.adds {
		c.r.counted("members", int(o.Outcome), 1-int(o.Outcome))
	}
	rc := c.r.redis(c.r.c.Nodes[0])
	defer rc.Close()
	var end int64
	var members []string
	call := c.r.timeline.now()
	var err error
	if !c.r.eventually(ctx, convergeTime, func() bool {
		if end, err = rc.Get(ctx, "counter").Int64(); errors.Is(err, redis.Nil) {
			err = nil
		}
		if err == nil {
			members, err = rc.SMembers(ctx, "set").Result()
		}
		return err == nil
	}) {
		c.r.wrong("the counter and the set cannot be read: %v", err)
		return
	}
	read := &check.SetOp{Op: check.Op{Client: -1, Call: call, Return: c.r.timeline.now(), Outcome: check.OK}}
	for _, m := range members {
		v, err := strconv.ParseInt(m, 10, 64)
		if err != nil {
			c.r.wrong("the set has %q, which nobody added", m)
		}
		read.Members = append(read.Members, v)
	}
	slices.Sort(read.Members)
	if err := check.Set(append(c.adds, read)); err != nil {
		c.r.wrong("%v", err)
	}
	if err := errors.Join(check.Counter(c.incr), check.CounterEnd(c.incr, end)); err != nil {
		c.r.wrong("%v", err)
	}
}
