package client

import (
	"sort"
	"sync"
	"sync/atomic"
)

// running knows which requests to a tablet are under way, so that each write
// can say below which id everything is answered and need not be remembered any
// longer (I2). Ids ascend, so a queue whose front is skipped as it empties
// gives the least in constant time.
type running struct {
	mu struct {
		sync.Mutex
		queue []runningRequest // ascending ids; queue[head:] is live
		head  int
		floor uint64 // the greatest first_running given out: it never goes back
	}
}

type runningRequest struct {
	id       uint64
	answered bool
}

func newRunning() *running { return &running{} }

// begin draws a request id from last and returns it with the first that runs.
// The id is drawn under the lock, so the queue ascends.
func (r *running) begin(last *atomic.Uint64) (id, first uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id = last.Add(1)
	r.mu.queue = append(r.mu.queue, runningRequest{id: id})
	return id, r.firstLocked()
}

// first is the least id under way; the caller's own is.
func (r *running) first() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.firstLocked()
}

func (r *running) firstLocked() uint64 {
	first := r.mu.queue[r.mu.head].id
	if first < r.mu.floor {
		panic("BUG: first_running went back")
	}
	r.mu.floor = first
	return first
}

// end says that a request is over.
func (r *running) end(id uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	live := r.mu.queue[r.mu.head:]
	i := sort.Search(len(live), func(i int) bool { return live[i].id >= id })
	if i == len(live) || live[i].id != id {
		panic("BUG: a request ended that was not running")
	}
	live[i].answered = true
	for r.mu.head < len(r.mu.queue) && r.mu.queue[r.mu.head].answered {
		r.mu.head++
	}
	switch {
	case r.mu.head == len(r.mu.queue):
		r.mu.queue, r.mu.head = r.mu.queue[:0], 0
	case r.mu.head > 256 && r.mu.head > len(r.mu.queue)/2:
		n := copy(r.mu.queue, r.mu.queue[r.mu.head:])
		r.mu.queue, r.mu.head = r.mu.queue[:n], 0
	}
}
