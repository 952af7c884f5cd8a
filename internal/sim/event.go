package sim

import "time"

// event is something to come. A nil f was called off. An event is used again when it
// is over: who keeps one to call it off knows it by its order, which no other has.
type event struct {
	order uint64
	what  string
	node  int
	life  int    // of the node, in which f runs (S4); 0: whatever becomes of it
	link  *link  // that a message comes over; nil: none does
	epoch uint64 // of the link when it was sent
	f     func()
}

// at puts an event into the heap.
func (w *World) at(t time.Duration, what string, node int, f func()) *event {
	w.order++
	var e *event
	if n := len(w.spare); n > 0 {
		e = w.spare[n-1]
		w.spare = w.spare[:n-1]
	} else {
		e = new(event)
	}
	e.order, e.what, e.node, e.f = w.order, what, node, f
	w.queue.push(due{t, w.order, e})
	return e
}

// next takes the next event out of the heap.
func (w *World) next() (at time.Duration, e event) {
	d := w.queue.pop()
	e = *d.e
	*d.e = event{order: e.order}
	w.spare = append(w.spare, d.e)
	return d.at, e
}

// happen runs an event where it belongs: a message where its link lets it through, to
// whoever lives there now; a node's own in the life that it is of.
func (w *World) happen(e *event) {
	defer w.recovered()
	switch {
	case e.link != nil && (e.link.cuts > 0 || e.link.epoch != e.epoch):
	case e.link != nil && e.node > 0:
		if n := w.Nodes[e.node-1]; n.alive {
			n.run(n.life, e.f)
		}
	case e.life > 0:
		w.Nodes[e.node-1].run(e.life, e.f)
	default:
		e.f()
	}
}

// due is when an event comes. The heap's order is in it, so that nothing else is
// looked at to keep it.
type due struct {
	at    time.Duration
	order uint64
	e     *event
}

func (d *due) before(o *due) bool {
	return d.at < o.at || d.at == o.at && d.order < o.order
}

// eventHeap is a heap by (at, order) in which each has four below it.
type eventHeap []due

func (h *eventHeap) push(d due) {
	q := append(*h, d)
	*h = q
	i := len(q) - 1
	for i > 0 {
		up := (i - 1) / 4
		if !d.before(&q[up]) {
			break
		}
		q[i] = q[up]
		i = up
	}
	q[i] = d
}

func (h *eventHeap) pop() due {
	q := *h
	top, n := q[0], len(q)-1
	last := q[n]
	q[n] = due{}
	q = q[:n]
	*h = q
	if n == 0 {
		return top
	}
	i := 0
	for {
		first := 4*i + 1
		if first >= n {
			break
		}
		least := first
		for k := first + 1; k < min(first+4, n); k++ {
			if q[k].before(&q[least]) {
				least = k
			}
		}
		if !q[least].before(&last) {
			break
		}
		q[i] = q[least]
		i = least
	}
	q[i] = last
	return top
}
