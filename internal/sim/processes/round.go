package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/proof/cluster"
)

// convergeTime is what a healed cluster has until it must serve again.
const convergeTime = 30 * time.Second

// round is one cluster, from its founding to its judgement.
type round struct {
	ctx     context.Context
	seed    uint64
	rng     *rand.Rand // of the nemesis
	dir     string
	harm    time.Duration
	kinds   []string // of fault that may happen
	lease   time.Duration
	copies  uint32
	suspect int // the node that may lose the end of its journal [P2]

	*steady
	*timeline
	c       *cluster.Cluster
	small   *cluster.SmallDisk // of the last node; nil: there is none
	checker *client.Client
	clients []*client.Client

	regs   registers
	counts counts
	logs   []*appends

	load   sync.WaitGroup
	follow sync.WaitGroup
	mu     sync.Mutex
	res    result
}

// newRound draws a round from its seed. Some have few kinds of fault, some have all:
// what never happens beside another thing hides what that does.
func newRound(ctx context.Context, seed uint64, binary, dir string, kinds []string, harm time.Duration) *round {
	rng := rand.New(rand.NewPCG(seed, 0x70726f63))
	r := &round{ctx: ctx, seed: seed, rng: rng, dir: dir, harm: harm, steady: &steady{}, timeline: &timeline{begin: time.Now()}}
	r.res = result{Seed: seed, Nodes: 3, Faults: map[string]int{}, Operations: map[string]int{}}
	if rng.IntN(3) == 0 {
		r.res.Nodes = 4 + rng.IntN(2)
	}
	r.lease = 600*time.Millisecond + time.Duration(rng.Int64N(int64(1400*time.Millisecond)))
	r.copies = uint32(2 + rng.IntN(2))
	r.suspect = rng.IntN(r.res.Nodes)
	share := 1 + rng.IntN(3) // of three: how many of the kinds there are
	for _, k := range kinds {
		if rng.IntN(3) < share {
			r.kinds = append(r.kinds, k)
		}
	}
	if len(r.kinds) == 0 {
		r.kinds = []string{kinds[rng.IntN(len(kinds))]}
	}
	if err := r.place(binary); err != nil {
		r.wrong("founding: %v", err)
	}
	return r
}

// place makes the directories, and the cluster's places.
func (r *round) place(binary string) (err error) {
	if err = os.MkdirAll(r.dir, 0o755); err != nil {
		return err
	}
	r.c, err = cluster.New(binary, r.dir, r.res.Nodes, cluster.Options{Flags: []string{"--lease", r.lease.String(), "--beat", (r.lease / 6).String(), "--journal-size", "64MiB"}})
	if err != nil {
		return err
	}
	for _, k := range r.kinds {
		if k == "full-disk" {
			r.small, err = cluster.MountSmall(r.c.Nodes[len(r.c.Nodes)-1].Dir, smallBytes)
		}
	}
	return err
}

// run lives the round and says what it came to.
func (r *round) run() *result {
	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	go r.steady.runs(ctx)
	r.add("seed %d: %d nodes, lease %v, %d copies of a record, faults %v", r.seed, r.res.Nodes, r.lease, r.copies, r.kinds)
	if len(r.res.Problems) == 0 {
		r.live()
	}
	r.end()
	return &r.res
}

func (r *round) live() {
	for _, p := range r.c.Nodes {
		if err := p.Start(); err != nil {
			r.wrong("founding: %v", err)
			return
		}
	}
	if !r.converged("after founding") {
		return
	}
	loading, stop := context.WithCancel(r.ctx)
	defer stop()
	reading, done := context.WithCancel(r.ctx)
	defer done()
	if err := r.startLoad(loading, reading); err != nil {
		r.wrong("the load cannot begin: %v", err)
		return
	}
	r.nemesis(loading)
	r.add("HEAL")
	r.c.Links.Heal()
	served := r.converged("after healing") && r.serves()
	stop()
	r.load.Wait()
	if served {
		r.judge()
	}
	done()
	r.follow.Wait()
	if served {
		r.judgeEnded()
	}
}

// end ends all that the round started, and keeps what failed [P1] [P4].
func (r *round) end() {
	for _, cl := range r.clients {
		cl.Close()
	}
	if r.c != nil {
		r.c.Close()
	}
	r.res.Seconds = time.Since(r.begin).Seconds()
	r.res.Stopped = time.Duration(r.stopped.Load()).Seconds()
	r.res.Verdict = "ok"
	if len(r.res.Problems) > 0 {
		r.res.Verdict, r.res.Kept = "failed", r.dir
		if r.c != nil {
			if err := r.timeline.write(filepath.Join(r.dir, "timeline.txt"), r.c.Nodes); err != nil {
				fmt.Fprintln(os.Stderr, "timeline:", err)
			}
		}
	}
	if r.small != nil {
		r.small.Unmount(r.res.Kept != "")
	}
	if r.res.Kept == "" {
		os.RemoveAll(r.dir)
	}
}

// wrong notes that something is not as promised.
func (r *round) wrong(format string, args ...any) {
	p := fmt.Sprintf(format, args...)
	r.add("WRONG %s", p)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.res.Problems) < 20 {
		r.res.Problems = append(r.res.Problems, p)
	}
}

// counted notes operations of a workload.
func (r *round) counted(workload string, known, unknown int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.res.Operations[workload] += known
	r.res.Unknown += unknown
}

// converged waits until every node says that it serves.
func (r *round) converged(when string) bool {
	var last error
	begin := r.steady.now()
	if r.eventually(r.ctx, convergeTime, func() bool { last = r.c.Ready(); return last == nil }) {
		r.add("READY %s, after %v", when, r.steady.now()-begin)
		return true
	}
	r.wrong("%s: not serving within %v: %v", when, convergeTime, last)
	return false
}

// connect makes a client of the whole cluster.
func (r *round) connect() (*client.Client, error) {
	ctx, cancel := r.within(r.ctx, 20*time.Second)
	defer cancel()
	cl, err := client.Connect(ctx, r.c.ClientAddrs(), client.Options{Park: 4 * time.Second})
	if err == nil {
		r.clients = append(r.clients, cl)
	}
	return cl, err
}

// redis makes a plain client of one node, without retries.
func (r *round) redis(p *cluster.Process) *redis.Client {
	return redis.NewClient(&redis.Options{Addr: p.RedisAddr(), MaxRetries: -1, PoolSize: 1, ReadTimeout: 8 * time.Second, DialTimeout: time.Second})
}

// startLoad begins the workloads.
func (r *round) startLoad(loading, reading context.Context) (err error) {
	if r.checker, err = r.connect(); err != nil {
		return err
	}
	r.regs.r, r.counts.r = r, r
	for _, path := range []string{"/one", "/two", "/producers"} {
		ctx, cancel := r.within(r.ctx, 30*time.Second)
		_, err := r.checker.CreateLogs(ctx, path, 1, client.LogReplication(&client.Replication{Node: r.copies}))
		a := &appends{r: r, path: path}
		if err == nil {
			a.log, err = r.checker.Log(ctx, path)
		}
		cancel()
		if err != nil {
			return fmt.Errorf("log %s: %w", path, err)
		}
		r.logs = append(r.logs, a)
		r.follow.Go(func() { a.follow(reading, a.log) })
	}
	for i := range 2 {
		cl, err := r.connect()
		if err != nil {
			return err
		}
		r.load.Go(func() { r.counts.work(loading, cl, i) })
		for k, a := range r.logs {
			l, err := cl.Log(r.ctx, a.path)
			if err != nil {
				return err
			}
			if a.path == "/producers" {
				r.load.Go(func() { a.produce(loading, l, i+1) })
				continue
			}
			for w := range 2 {
				r.load.Go(func() { a.work(loading, l, 10*k+2*i+w) })
			}
		}
		for k, p := range r.c.Nodes {
			r.load.Go(func() { r.regs.work(loading, p, 10*k+i) })
		}
	}
	return nil
}

// serves demands a write of every kind, through every node, of a healed cluster.
func (r *round) serves() bool {
	ctx, cancel := r.within(r.ctx, convergeTime)
	defer cancel()
	var all error
	for _, p := range r.c.Nodes {
		c := r.redis(p)
		var err error
		if !r.eventually(ctx, convergeTime, func() bool { err = c.Set(ctx, fmt.Sprint("alive", p.Index), "yes", 0).Err(); return err == nil }) {
			all = errors.Join(all, fmt.Errorf("node %d takes no writes after healing: %w", p.Index, err))
		}
		c.Close()
	}
	if _, err := r.checker.Redis().Do(ctx, client.IncrBy([]byte("alive"), 1)); err != nil {
		all = errors.Join(all, fmt.Errorf("no increment after healing: %w", err))
	}
	for _, a := range r.logs {
		if a.path == "/producers" {
			continue // its writers say so
		}
		if err := a.one(ctx, a.log, 99, "alive"); err != nil {
			all = errors.Join(all, fmt.Errorf("%s takes no appends after healing: %w", a.path, err))
		}
	}
	if all != nil {
		r.wrong("%v", all)
	}
	return all == nil
}
