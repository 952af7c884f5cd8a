package store

import "sync"

// workers run what may wait for the disk. Tasks are bounded by who asks: one per
// read stream, and requests that the transport bounds.
type workers struct {
	mu      sync.Mutex
	cond    sync.Cond
	queue   []func()
	stopped bool
	ended   sync.WaitGroup
}

func (w *workers) init() { w.cond.L = &w.mu }

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
		f := w.queue[0]
		w.queue[0] = nil
		w.queue = w.queue[1:]
		w.mu.Unlock()
		f()
	}
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
	w.queue = append(w.queue, f)
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
