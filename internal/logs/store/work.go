package store

import "sync"

// workers run what may wait for the disk. Tasks are bounded by who asks: one per
// read stream, and requests that the transport bounds.
type workers struct {
	mu      sync.Mutex
	cond    sync.Cond
	queue   []task
	newest  *crowd // what is handed over belongs to it
	stopped bool
	ended   sync.WaitGroup
}

type task struct {
	f  func()
	of *crowd
}

// crowd counts tasks that were handed over between two calls of afterAll.
type crowd struct {
	left  int    // tasks, and one for the crowd before it
	after func() // nil: it is the newest
	next  *crowd
}

func (w *workers) init() { w.cond.L, w.newest = &w.mu, &crowd{} }

func (w *workers) start(n int) {
	w.ended.Add(n)
	for range n {
		go w.loop()
	}
}

func (w *workers) loop() {
	defer w.ended.Done()
	for {
		w.mu.Lock()
		for len(w.queue) == 0 && !w.stopped {
			w.cond.Wait()
		}
		if len(w.queue) == 0 {
			w.mu.Unlock()
			return
		}
		t := w.queue[0]
		w.queue[0] = task{}
		w.queue = w.queue[1:]
		w.mu.Unlock()
		t.f()
		w.leave(t.of)
	}
}

// leave takes one of a crowd away. What waits for its last one is done then.
func (w *workers) leave(c *crowd) {
	for c != nil {
		w.mu.Lock()
		c.left--
		over := c.left == 0 && c.after != nil
		w.mu.Unlock()
		if !over {
			return
		}
		c.after()
		c = c.next
	}
}

// afterAll has f called when all that was handed over before is done, on whatever
// goroutine does the last of it.
func (s *Store) afterAll(f func()) {
	if s.o.Tasks != nil {
		s.o.Tasks(f)
		return
	}
	w := &s.work
	w.mu.Lock()
	was := w.newest
	w.newest = &crowd{left: 1}
	was.after, was.next = f, w.newest
	was.left++ // until it is looked whether there are any
	w.mu.Unlock()
	w.leave(was)
}

// run has a worker call f; false says that there are none any more.
func (s *Store) run(f func()) bool {
	w := &s.work
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return false
	}
	if s.o.Tasks != nil {
		s.o.Tasks(f)
		return true
	}
	w.newest.left++
	w.queue = append(w.queue, task{f, w.newest})
	w.cond.Signal()
	return true
}

// stop lets the workers finish what waits and ends them.
func (w *workers) stop() {
	w.mu.Lock()
	w.stopped = true
	w.cond.Broadcast()
	w.mu.Unlock()
	w.ended.Wait()
}
