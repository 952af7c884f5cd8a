package sequencer

import "github.com/braiddb/braid/internal/logs"

// window holds the appenders of an epoch from the oldest that is not fully
// stored to the newest (Q3). They finish in any order and leave in order.
type window struct {
	ring  []*appender // a power of two long; nil while the window is empty
	front logs.ESN    // the oldest
	next  logs.ESN    // will be given out next
}

func (w *window) len() int { return int(w.next - w.front) }

// push gives an appender the next ESN.
func (w *window) push(a *appender) logs.ESN {
	if w.len() == len(w.ring) {
		w.grow()
	}
	esn := w.next
	w.ring[int(esn)&(len(w.ring)-1)] = a
	w.next++
	return esn
}

func (w *window) grow() {
	ring := make([]*appender, max(8, 2*len(w.ring)))
	for e := w.front; e != w.next; e++ {
		ring[int(e)&(len(ring)-1)] = w.ring[int(e)&(len(w.ring)-1)]
	}
	w.ring = ring
}

// at finds an appender, nil if the ESN is not in the window.
func (w *window) at(esn logs.ESN) *appender {
	if esn < w.front || esn >= w.next {
		return nil
	}
	return w.ring[int(esn)&(len(w.ring)-1)]
}

// pop takes the oldest out if it has finished.
func (w *window) pop() *appender {
	if w.front == w.next {
		return nil
	}
	i := int(w.front) & (len(w.ring) - 1)
	a := w.ring[i]
	if a.state == flying {
		return nil
	}
	w.ring[i] = nil
	w.front++
	return a
}

// letGo frees the ring of an empty window.
func (w *window) letGo() {
	if w.front == w.next {
		w.ring = nil
	}
}
