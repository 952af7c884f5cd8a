package world

import (
	"fmt"
	"hash"
	"hash/fnv"
	"io"
	"sync"
	"time"
)

// Trace is all that happened, in order: hashed always, written down if asked.
type Trace struct {
	mu    sync.Mutex
	begin time.Time
	sum   hash.Hash64
	lines uint64
	out   io.Writer // nil: only hashed
}

func newTrace(out io.Writer) *Trace { return &Trace{begin: time.Now(), sum: fnv.New64a(), out: out} }

// Add notes that something happened now.
func (t *Trace) Add(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := time.Since(t.begin)
	line := fmt.Appendf(nil, "%4d.%06d ", at/time.Second, at%time.Second/time.Microsecond)
	line = fmt.Appendf(line, format, args...)
	line = append(line, '\n')
	t.sum.Write(line)
	t.lines++
	if t.out != nil {
		t.out.Write(line)
	}
}

// Hash sums up everything so far.
func (t *Trace) Hash() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return fmt.Sprintf("%016x.%d", t.sum.Sum64(), t.lines)
}
