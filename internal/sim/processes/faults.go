package main

import (
	"context"
	"fmt"
	"path/filepath"
	"syscall"
	"time"

	"github.com/braiddb/braid/internal/proof/cluster"
)

// faults are the kinds. Each is done to a node, held, and undone, before the next.
var faults = map[string]func(r *round, ctx context.Context, p *cluster.Process, hold time.Duration){
	"kill":     func(r *round, ctx context.Context, p *cluster.Process, hold time.Duration) { r.down(ctx, p, hold, nil) },
	"kill-all": (*round).killAll,
	"restart":  (*round).restart,
	"pause": func(r *round, ctx context.Context, p *cluster.Process, hold time.Duration) {
		r.standStill(ctx, p, r.lease+hold)
	},
	"hiccup": func(r *round, ctx context.Context, p *cluster.Process, hold time.Duration) {
		r.standStill(ctx, p, r.lease/3)
	},
	"isolate": func(r *round, ctx context.Context, p *cluster.Process, hold time.Duration) {
		r.cut(ctx, p, hold, true, true)
	},
	"deaf": func(r *round, ctx context.Context, p *cluster.Process, hold time.Duration) {
		r.cut(ctx, p, hold, false, true)
	},
	"mute": func(r *round, ctx context.Context, p *cluster.Process, hold time.Duration) {
		r.cut(ctx, p, hold, true, false)
	},
	"one-link":  (*round).oneLink,
	"slow-link": (*round).slowLink,
	"resets":    (*round).resets,
	"torn-tail": func(r *round, ctx context.Context, p *cluster.Process, hold time.Duration) {
		r.down(ctx, p, hold, func() error { return p.TearTail(0) })
	},
	"lost-tail": func(r *round, ctx context.Context, _ *cluster.Process, hold time.Duration) {
		p := r.c.Nodes[r.suspect] // [P2]
		lose := 1 + r.rng.IntN(20)
		r.down(ctx, p, hold, func() error { return p.TearTail(lose) })
	},
	"sync-error": (*round).syncError,
	"full-disk":  (*round).fullDisk,
}

// nemesis does faults one after another.
func (r *round) nemesis(ctx context.Context) {
	until := r.steady.now() + r.harm
	for ctx.Err() == nil {
		pause(ctx, 500*time.Millisecond+time.Duration(r.rng.Int64N(int64(2*time.Second))))
		if r.steady.now() > until {
			return
		}
		kind := r.kinds[r.rng.IntN(len(r.kinds))]
		p := r.c.Nodes[r.rng.IntN(len(r.c.Nodes))]
		hold := 300*time.Millisecond + time.Duration(r.rng.Int64N(int64(3*time.Second)))
		r.add("FAULT %s n%d for %v", kind, p.Index, hold)
		r.res.Faults[kind]++
		faults[kind](r, ctx, p, hold)
		r.add("OVER %s", kind)
	}
}

// start begins a life.
func (r *round) start(p *cluster.Process) {
	if err := p.Start(); err != nil {
		r.wrong("%v", err)
	}
}

// down kills a node, does something to its disk, and starts it again.
func (r *round) down(ctx context.Context, p *cluster.Process, hold time.Duration, harm func() error) {
	p.Kill()
	if harm != nil {
		if err := harm(); err != nil {
			r.wrong("the fault could not be done: %v", err)
		}
	}
	pause(ctx, hold)
	r.start(p)
	if harm != nil { // it is back before another may be away
		r.eventually(ctx, convergeTime, func() bool { return p.Ready() == nil })
	}
}

func (r *round) killAll(ctx context.Context, _ *cluster.Process, hold time.Duration) {
	for _, p := range r.c.Nodes {
		p.Signal(syscall.SIGKILL)
	}
	for _, p := range r.c.Nodes {
		p.Kill()
	}
	pause(ctx, hold/2)
	for _, p := range r.c.Nodes {
		r.start(p)
	}
}

func (r *round) restart(ctx context.Context, p *cluster.Process, hold time.Duration) {
	if err := p.Terminate(25 * time.Second); err != nil {
		r.wrong("%v", err)
	}
	pause(ctx, hold/2)
	r.start(p)
}

// standStill stops a node's process and lets it go on.
func (r *round) standStill(ctx context.Context, p *cluster.Process, hold time.Duration) {
	p.Signal(syscall.SIGSTOP)
	pause(ctx, hold)
	p.Signal(syscall.SIGCONT)
}

func (r *round) others(p *cluster.Process, do func(o int)) {
	for _, o := range r.c.Nodes {
		if o != p {
			do(o.Index)
		}
	}
}

// cut stops what a node sends, what it is sent, or both.
func (r *round) cut(ctx context.Context, p *cluster.Process, hold time.Duration, out, in bool) {
	r.others(p, func(o int) {
		if out {
			r.c.Links.Cut(p.Index, o)
		}
		if in {
			r.c.Links.Cut(o, p.Index)
		}
	})
	pause(ctx, r.lease+hold)
	r.c.Links.Heal()
}

// oneLink cuts two nodes off from each other; both see the rest.
func (r *round) oneLink(ctx context.Context, p *cluster.Process, hold time.Duration) {
	o := r.c.Nodes[p.Index%len(r.c.Nodes)].Index
	r.c.Links.Cut(p.Index, o)
	r.c.Links.Cut(o, p.Index)
	pause(ctx, r.lease+hold)
	r.c.Links.Heal()
}

func (r *round) slowLink(ctx context.Context, p *cluster.Process, hold time.Duration) {
	by := time.Duration(5+r.rng.IntN(200)) * time.Millisecond
	r.others(p, func(o int) { r.c.Links.Slow(p.Index, o, by) })
	pause(ctx, hold)
	r.c.Links.Heal()
}

func (r *round) resets(ctx context.Context, p *cluster.Process, hold time.Duration) {
	for range 3 {
		r.others(p, func(o int) { r.c.Links.Reset(p.Index, o) })
		pause(ctx, hold/3)
	}
}

// syncError lets the syncs of a node fail. It must end by itself; it starts again
// from what its disk has, as an operator would have it.
func (r *round) syncError(ctx context.Context, p *cluster.Process, hold time.Duration) {
	file := filepath.Join(r.dir, fmt.Sprintf("n%d.%d.strace", p.Index, r.res.Faults["sync-error"]))
	end, _ := p.Ended()
	detach, err := p.FailSyncs(file)
	if err != nil {
		r.wrong("the fault could not be done: %v", err)
		return
	}
	defer detach()
	var failed float64
	if !r.eventually(ctx, 10*time.Second, func() bool { failed = cluster.FirstFailedSync(file); return failed > 0 }) {
		if ctx.Err() == nil {
			r.wrong("node %d has not synced for 10 s, under load", p.Index)
		}
		return
	}
	r.add("n%d: a sync failed at %.6f", p.Index, failed-float64(r.begin.UnixMicro())/1e6)
	if !r.eventually(ctx, 10*time.Second, func() bool {
		select {
		case <-end:
			return true
		default:
			return false
		}
	}) {
		r.wrong("node %d lives 10 s after a sync failed", p.Index)
	} else if code := p.ExitCode(); code == 0 {
		r.wrong("node %d ended with code 0 after a sync failed", p.Index)
	} else {
		r.add("n%d ended by itself with code %d", p.Index, code)
	}
	p.Kill() // it is gone; its place is free
	r.silent(p, failed)
	pause(ctx, hold)
	r.start(p)
	r.eventually(ctx, convergeTime, func() bool { return p.Ready() == nil })
}

// silenceGrace is how long after a failed sync a write may still be taken: the
// kernel gives the error to one thread, others are on their way out.
const silenceGrace = 100 * time.Millisecond

// silent demands that the life that has just ended took no write after its sync failed.
func (r *round) silent(p *cluster.Process, failed float64) {
	at := time.Duration(failed*1e9) - time.Duration(r.begin.UnixNano())
	r.regs.mu.Lock()
	defer r.regs.mu.Unlock()
	for _, o := range r.regs.by[p.Index] {
		if o.Outcome == 1 && o.Call > at+silenceGrace {
			r.wrong("node %d took a write that was sent %v after its sync failed: %s", p.Index, o.Call-at, o)
		}
	}
}

// smallBytes is the size of a small disk: what a node keeps free, its journal, and
// room for what a round writes.
const smallBytes = 640 << 20

// fullDisk leaves no space to the node with the small disk, for a while: first less
// than what a node keeps free, then none.
func (r *round) fullDisk(ctx context.Context, _ *cluster.Process, hold time.Duration) {
	for _, left := range []int64{128 << 20, 0} {
		if err := r.small.Fill(left); err != nil {
			r.wrong("the disk cannot be filled: %v", err)
		}
		pause(ctx, time.Second+hold/2)
	}
	p := r.c.Nodes[len(r.c.Nodes)-1]
	if end, running := p.Ended(); running {
		select {
		case <-end:
			r.wrong("node %d ended since its disk is full", p.Index)
		default:
		}
	}
	r.small.Drain()
}
