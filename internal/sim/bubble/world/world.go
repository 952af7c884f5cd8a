package world

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/node"
	"github.com/braiddb/braid/internal/sim/bubble/lan"
)

// World is a cluster and everything around it.
type World struct {
	seed     uint64
	layout   uint64
	params   Params
	rng      *rand.Rand // of the faults
	begin    time.Time
	trace    *Trace
	net      *lan.Net
	machines []*machine
	clients  []*client.Client

	regs   *registers
	counts *counts
	logs   []*appends

	ended   atomic.Bool // no more load
	done    atomic.Bool // nor readers
	load    sync.WaitGroup
	harming sync.WaitGroup

	mu       sync.Mutex
	problems []string

	known    int // operations whose outcome is known
	faults   int
	happened [kinds]int
}

// Result is what a world came to.
type Result struct {
	Seed     uint64
	Hash     string
	Problems []string `json:",omitempty"`
	Known    int      // operations with a known outcome
	Faults   int
	Kinds    map[string]int
	Replaced int // disks from which a node could not start any more
	Virtual  time.Duration
	Params   string
	Layout   string
}

const (
	nodes       = 3
	redisHost   = "127.0.0.90"
	checkerHost = "127.0.0.91"
	// convergeTime is what a healed cluster has until it must serve again.
	convergeTime = 30 * time.Second
	// endTime is what faults and workloads have until they have ended: a node that
	// was damaged is tried more than once, and may wait for its cluster each time.
	endTime = 5 * time.Minute
	// fullTime is how long a sequencer leaves out a shard that said its disk is full.
	fullTime = time.Minute
)

// Run lives one world from a seed, and writes down all that happens if out is
// given. It is called in a bubble, and leaves goroutines behind there: lives of
// nodes end as processes do, and not as guests.
func Run(seed uint64, out io.Writer) *Result {
	w := &World{seed: seed, begin: time.Now(), trace: newTrace(out)}
	w.params, w.rng = draw(seed)
	w.trace.Add("seed %d: %s", seed, w.params)
	w.layout = layout()
	w.trace.Add("layout %x", w.layout)
	w.net = lan.New(lan.Options{Seed: seed, Delay: w.params.Delay, Trace: w.trace.Add})
	var join []string
	for i := range nodes {
		w.machines = append(w.machines, w.newMachine(i+1))
		join = append(join, fmt.Sprintf("%s:%d", w.machines[i].name, node.NodePort))
	}
	for _, m := range w.machines {
		m.cfg.Join = join
	}
	if w.found() {
		w.run()
	}
	return w.result()
}

// found starts all nodes and waits until they serve.
func (w *World) found() bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var starts sync.WaitGroup
	for _, m := range w.machines {
		starts.Go(func() {
			if err := m.start(ctx); err != nil {
				w.wrong("founding: %v", err)
			}
		})
	}
	starts.Wait()
	return len(w.problems) == 0 && w.converged("after founding")
}

// run is the world's three parts: load with faults, healing, and the checks.
func (w *World) run() {
	if !w.startLoad() {
		return
	}
	w.harm()
	healed := w.heal()
	if w.unload() && healed && w.converged("after healing") && w.serves() {
		w.check()
	}
	w.done.Store(true)
}

// startLoad begins the workloads.
func (w *World) startLoad() bool {
	w.regs = &registers{w: w}
	w.counts = &counts{w: w, added: map[string]bool{}, tried: map[string]bool{}}
	first := w.connect(0)
	if first == nil {
		return false
	}
	for _, path := range []string{"/one", "/two"} {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		a := newAppends(w, path)
		_, err := first.CreateLogs(ctx, path, 1, client.LogReplication(&client.Replication{Node: w.params.Replicas}))
		if err == nil {
			a.log, err = first.Log(ctx, path)
		}
		cancel()
		if err != nil {
			w.wrong("log %s: %v", path, err)
			return false
		}
		w.logs = append(w.logs, a)
		go a.follow(a.log)
	}
	for i := range w.params.Writers {
		cl := w.connect(i + 1)
		if cl == nil {
			return false
		}
		w.load.Go(func() { w.counts.work(cl, i) })
		for k, a := range w.logs {
			l, err := cl.Log(context.Background(), a.path)
			if err != nil {
				w.wrong("open %s: %v", a.path, err)
				return false
			}
			w.load.Go(func() { a.work(l, 10*k+i) })
		}
		for k, m := range w.machines {
			w.load.Go(func() { w.regs.work(m, 10*k+i) })
		}
	}
	return true
}

// connect makes a client of the whole cluster, on a host of its own.
func (w *World) connect(i int) *client.Client {
	var addrs []string
	for _, m := range w.machines {
		addrs = append(addrs, fmt.Sprintf("%s:%d", m.name, node.ClientPort))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, err := client.Connect(ctx, addrs, client.Options{
		Park: 4 * time.Second, Network: w.net.Host(fmt.Sprintf("127.0.0.%d", 100+i)), Rand: rand.New(rand.NewPCG(w.seed, uint64(4000+i))),
	})
	if err != nil {
		w.wrong("client %d: %v", i, err)
		return nil
	}
	w.clients = append(w.clients, c)
	return c
}

func (w *World) redis(m *machine) *redis {
	return &redis{host: w.net.Host(redisHost), addr: fmt.Sprintf("%s:%d", m.name, node.RedisPort), timeout: 8 * time.Second}
}

// heal undoes every fault and lets every node come back.
func (w *World) heal() bool {
	w.trace.Add("HEAL")
	ended := w.within(endTime, &w.harming, "faults")
	w.net.HealAll()
	return ended
}

// unload ends the load.
func (w *World) unload() bool {
	w.ended.Store(true)
	return w.within(endTime, &w.load, "workloads")
}

// within waits until all of a group have ended. What never does, as a node that can
// neither start nor say so, is a failure of its seed, and not the end of its time.
func (w *World) within(limit time.Duration, group *sync.WaitGroup, what string) bool {
	ended := make(chan struct{})
	go func() {
		group.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return true
	case <-time.After(limit):
	}
	var down []string
	for _, m := range w.machines {
		if m.up() == nil {
			down = append(down, m.name)
		}
	}
	w.wrong("%s did not end within %v; down: %v", what, limit, down)
	return false
}

// goes runs a part of a fault, or a reader, that heal or the end waits for.
func (w *World) goes(f func()) { w.harming.Go(f) }

func (w *World) loading() bool  { return !w.ended.Load() }
func (w *World) finished() bool { return w.done.Load() }

// rest is a worker's pause between two operations, longer after an error.
func (w *World) rest(rng *rand.Rand, err error) {
	d := w.params.Pause/2 + time.Duration(rng.Int64N(int64(w.params.Pause)))
	if err != nil {
		d += 20 * time.Millisecond
	}
	time.Sleep(d)
}

// wrong notes that something is not as promised.
func (w *World) wrong(format string, args ...any) {
	p := fmt.Sprintf(format, args...)
	w.trace.Add("WRONG %s", p)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.problems = append(w.problems, p)
}

// eventually asks again until it is so.
func (w *World) eventually(limit time.Duration, so func() bool) bool {
	for end := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		if so() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}

// converged waits until every node says that it serves.
func (w *World) converged(when string) bool {
	var last string
	if w.eventually(convergeTime, func() bool {
		last = ""
		for _, m := range w.machines {
			if n := m.up(); n == nil {
				last = fmt.Sprintf("node %d is down", m.index)
			} else if err := n.Ready(); err != nil {
				last = fmt.Sprintf("node %d: %v", m.index, err)
			}
		}
		return last == ""
	}) {
		w.trace.Add("READY %s", when)
		return true
	}
	w.wrong("%s: not serving within %v: %s", when, convergeTime, last)
	return false
}

// serves demands one write of every kind through every node, of a healed cluster.
func (w *World) serves() bool {
	for _, m := range w.machines {
		r := w.redis(m)
		var err error
		if !w.eventually(convergeTime, func() bool { _, err = r.do("SET", fmt.Sprint("alive", m.index), "yes"); return err == nil }) {
			w.wrong("node %d takes no writes after healing: %v", m.index, err)
		}
		r.close()
	}
	for _, a := range w.logs {
		limit := convergeTime
		if w.happened[DiskFull] > 0 {
			limit += fullTime
		}
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		lsn, err := a.log.Append(ctx, []byte("alive"))
		cancel()
		if a.outcome("alive", lsn, err); err != nil && !w.gone() {
			w.wrong("%s takes no appends after healing: %v", a.path, err)
		}
	}
	return len(w.problems) == 0
}

// check looks at everything that was promised.
func (w *World) check() {
	r := w.redis(w.machines[0])
	w.counts.check(r)
	r.close()
	w.checkReplicas()
	if w.gone() {
		return
	}
	for _, a := range w.logs {
		a.check()
	}
	for _, a := range w.logs {
		w.checkCopies(a)
	}
}

// gone reports whether a shard of logs is gone for good with its disk and nobody could
// say so: recovery and readers wait for such a one to come back. Then logs are judged
// by what readers were given meanwhile, and tables in full.
func (w *World) gone() bool {
	if w.params.Bad == 0 {
		return false
	}
	m := w.machines[w.params.Bad-1]
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.missed > 0
}

// result sums up. The histories are searched after the hash is taken: a search is
// no part of what happened.
func (w *World) result() *Result {
	virtual := time.Since(w.begin)
	w.trace.Add("END")
	res := &Result{Seed: w.seed, Hash: w.trace.Hash(), Faults: w.faults, Virtual: virtual, Params: w.params.String(), Layout: fmt.Sprintf("%016x", w.layout), Kinds: map[string]int{}}
	if w.regs != nil {
		w.regs.check()
	}
	for k, n := range w.happened {
		if n > 0 {
			res.Kinds[Kind(k).String()] = n
		}
	}
	for _, m := range w.machines {
		res.Replaced += m.replaced
	}
	res.Known, res.Problems = w.known, w.problems
	return res
}
