package multiraft

import (
	"fmt"
	"sync"
)

// applier is the goroutine that calls the state machines of a loop's groups. It
// answers proposals itself: a hop to the loop first would only delay them.
type applier struct {
	l    *loop
	wake chan struct{}
	mu   struct {
		sync.Mutex
		queue     []work
		closed    bool
		destroyed map[*group]func(error)
		restoring map[*group]*restoring
	}

	tasked bool         // without a goroutine: a task is on its way
	ents   []Entry      // reused from task to task
	writes []EntryWrite // likewise
}

// work is one thing for the applier: entries, a function to be run between
// entries, or a state machine to destroy.
type work struct {
	task    *applyTask
	run     func()
	destroy *group
}

func (a *applier) push(w work) {
	a.mu.Lock()
	a.mu.queue = append(a.mu.queue, w)
	first := len(a.mu.queue) == 1
	a.mu.Unlock()
	if first {
		a.signal()
	}
}

func (a *applier) signal() {
	if tasks := a.l.h.d.Tasks; tasks != nil {
		if !a.tasked {
			a.tasked = true
			tasks(a.step)
		}
		return
	}
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

func (a *applier) close() {
	a.mu.Lock()
	a.mu.closed = true
	a.mu.Unlock()
	a.signal()
}

func (a *applier) run(wg *sync.WaitGroup) {
	defer wg.Done()
	var spare []work
	for {
		a.mu.Lock()
		queue, closed := a.mu.queue, a.mu.closed
		if len(queue) > 0 {
			a.mu.queue = spare
		}
		a.mu.Unlock()
		if closed || a.l.h.fatal.Load() {
			a.stop(queue)
			return
		}
		if len(queue) == 0 {
			<-a.wake
			continue
		}
		for i := range queue {
			if !a.do(&queue[i]) {
				return
			}
		}
		clear(queue)
		spare = queue[:0]
	}
}

// step does one piece of work of an applier that has no goroutine.
func (a *applier) step() {
	a.tasked = false
	a.mu.Lock()
	if len(a.mu.queue) == 0 || a.l.h.fatal.Load() {
		a.mu.Unlock()
		return
	}
	w := a.mu.queue[0]
	a.mu.queue[0] = work{}
	a.mu.queue = a.mu.queue[1:]
	more := len(a.mu.queue) > 0
	a.mu.Unlock()
	if a.do(&w) && more {
		a.signal()
	}
}

// stop leaves what was not applied to the next life of this node.
func (a *applier) stop(queue []work) {
	if a.l.h.fatal.Load() {
		return
	}
	for i := range queue {
		if t := queue[i].task; t != nil {
			for _, e := range t.local {
				if e == nil {
					continue
				}
				for _, p := range e.proposals {
					a.l.h.finish(p, ProposalResult{HybridTime: e.time, Index: e.index, Err: ErrUnknownOutcome})
				}
			}
		}
	}
}

func (a *applier) do(w *work) bool {
	switch {
	case w.task != nil:
		if err := a.apply(w.task); err != nil {
			a.l.h.fail(fmt.Errorf("multiraft: group %d: apply: %w", w.task.g.id, err))
			return false
		}
	case w.run != nil:
		w.run()
	case w.destroy != nil:
		a.destroy(w.destroy)
	}
	return true
}

// apply decodes entries, has them applied, lets safe times pass them, answers
// who waits for them here, and tells the loop.
func (a *applier) apply(t *applyTask) error {
	ents, writes := a.ents[:0], a.writes[:0]
	last := t.prior
	for i, re := range t.ents {
		var e Entry
		var err error
		if writes, err = decodeEntry(re, &e, writes); err != nil {
			return err
		}
		if e.HybridTime == 0 {
			e.HybridTime = last
		}
		last = e.HybridTime
		if t.local != nil && t.local[i] != nil && t.local[i].change == nil {
			for k, p := range t.local[i].proposals {
				e.Writes[k].Local = p
			}
		}
		ents = append(ents, e)
	}
	if err := t.g.h.sm.Apply(ents); err != nil {
		return err
	}
	end := &ents[len(ents)-1]
	a.l.h.metrics.EntriesApplied.Add(uint64(len(ents)))
	t.g.h.gate.applied(end.Index, end.Term, last)
	if a.l.h.fatal.Load() {
		return nil
	}
	a.answer(t, ents)
	clear(ents)
	clear(writes)
	a.ents, a.writes = ents[:0], writes[:0]
	a.l.post(event{kind: evApplied, task: t})
	return nil
}

func (a *applier) answer(t *applyTask, ents []Entry) {
	for i, e := range t.local {
		if e == nil {
			continue
		}
		r := ProposalResult{HybridTime: ents[i].HybridTime, Index: ents[i].Index, Copies: t.copies}
		for _, p := range e.proposals {
			a.l.h.finish(p, r)
		}
	}
}

// onDestroyed names who is told when a group's state machine is gone.
func (a *applier) onDestroyed(g *group, done func(error)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.destroyed == nil {
		a.mu.destroyed = make(map[*group]func(error))
	}
	a.mu.destroyed[g] = done
}

// restoring is a restore under way on a goroutine of its own.
type restoring struct {
	over    chan struct{} // closed: the replica goes, do not try again
	destroy bool          // the state machine is to be destroyed when the restore has ended
}

func (a *applier) beginRestore(g *group) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.restoring == nil {
		a.mu.restoring = make(map[*group]*restoring)
	}
	a.mu.restoring[g] = &restoring{over: make(chan struct{})}
}

func (a *applier) restoreOver(g *group) <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mu.restoring[g].over
}

// endRestore destroys what was to be destroyed meanwhile.
func (a *applier) endRestore(g *group) {
	a.mu.Lock()
	r := a.mu.restoring[g]
	delete(a.mu.restoring, g)
	a.mu.Unlock()
	if r.destroy && !a.l.h.fatal.Load() {
		a.destroy(g)
	}
}

// destroy ends a group's state machine, after a restore that is under way: two
// of its methods must not run at once, nor may a restore bring back what is gone.
func (a *applier) destroy(g *group) {
	a.mu.Lock()
	if r := a.mu.restoring[g]; r != nil {
		r.destroy = true
		close(r.over)
		a.mu.Unlock()
		return
	}
	a.mu.Unlock()
	err := g.h.sm.Destroy()
	a.mu.Lock()
	done := a.mu.destroyed[g]
	delete(a.mu.destroyed, g)
	a.mu.Unlock()
	if done != nil {
		done(err)
	}
}
