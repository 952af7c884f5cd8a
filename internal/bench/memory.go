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
	most map[int]int64
}

const memoryEvery = 100 * time.Millisecond

// watchMemory begins to watch.
func watchMemory(pids []int) (*memoryWatch, error) {
	w := &memoryWatch{end: make(chan struct{}), over: make(chan struct{}), most: map[int]int64{}}
	for _, pid := range pids {
		n, err := residentBytes(pid)
		if err != nil {
			return nil, err
		}
		w.most[pid] = n
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
					w.most[pid] = max(w.most[pid], n)
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
	return maps.Clone(w.most)
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
