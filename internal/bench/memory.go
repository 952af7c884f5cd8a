package bench

import (
	"fmt"
	"maps"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// memoryWatch looks at the resident memory of processes again and again.
type memoryWatch struct {
	once sync.Once
	end  chan struct{}
	over chan struct{}

	mu   sync.Mutex
	each map[int]int64 // the most of each process
	last int64         // the most of any since begin
}

const memoryEvery = 100 * time.Millisecond

// watchMemory begins to watch.
func watchMemory(pids []int) (*memoryWatch, error) {
	w := &memoryWatch{end: make(chan struct{}), over: make(chan struct{}), each: map[int]int64{}}
	for _, pid := range pids {
		n, err := residentBytes(pid)
		if err != nil {
			return nil, err
		}
		w.each[pid] = n
	}
	go func() {
		defer close(w.over)
		tick := time.NewTicker(memoryEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-w.end:
				return
			}
			for _, pid := range pids {
				if n, err := residentBytes(pid); err == nil { // one that has ended keeps what it had
					w.saw(pid, n)
				}
			}
		}
	}()
	return w, nil
}

// stop ends watching and gives the most that each process had.
func (w *memoryWatch) stop() map[int]int64 {
	w.once.Do(func() { close(w.end) })
	<-w.over
	return maps.Clone(w.each)
}

func (w *memoryWatch) saw(pid int, n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.each[pid], w.last = max(w.each[pid], n), max(w.last, n)
}

// begin forgets what most has seen.
func (w *memoryWatch) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last = 0
}

// most is the most that any process had since begin.
func (w *memoryWatch) most() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// residentBytes is a process's VmRSS.
func residentBytes(pid int) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("the memory of process %d cannot be measured: %w", pid, err)
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" && f[2] == "kB" {
			n, err := strconv.ParseInt(f[1], 10, 64)
			return n << 10, err
		}
	}
	return 0, fmt.Errorf("the memory of process %d cannot be read from its status", pid)
}
