package main

import (
	"time"
)

// judgeTime bounds the reading of everything back.
const judgeTime = 90 * time.Second

// judge looks at everything that was promised, of a cluster that serves.
func (r *round) judge() {
	ctx, cancel := r.within(r.ctx, judgeTime)
	defer cancel()
	r.regs.judge()
	r.counts.judge(ctx)
	for _, a := range r.logs {
		a.judge(ctx)
	}
}

// judgeEnded ends the nodes, and compares the replicas that they have on disk.
func (r *round) judgeEnded() {
	for _, cl := range r.clients {
		cl.Close()
	}
	r.clients = nil
	for _, p := range r.c.Nodes {
		if err := p.Terminate(30 * time.Second); err != nil {
			r.wrong("%v", err)
			return
		}
	}
	ctx, cancel := r.within(r.ctx, judgeTime)
	defer cancel()
	if err := r.c.CompareReplicas(ctx); err != nil {
		r.wrong("replicas: %v", err)
	}
}
