package bench

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Starter begins operation number n. done is called once, by any goroutine, maybe
// before Starter returns. An answer after the deadline is worth nothing.
type Starter func(n int64, deadline time.Time, done func(error))

// openLoop makes operations due at fixed times, whatever becomes of them. One
// goroutine begins them, nothing waits for an answer, and latency counts from when
// an operation was due.
//
//	due ──▶ begun ──▶ answered in time      good, with its latency
//	 │        └─────▶ refused, expired, …   counted by kind
//	 ├─ as many as may are under way:       shed
//	 └─ the generator itself is late:       missed
type openLoop struct {
	start   func(due time.Time, n int64) // takes one off under when the operation has ended
	bound   int64                        // operations under way at most
	begin   time.Time
	windows []window // by second since begin
	under   atomic.Int64
	n       int64
}

// missedAfter is how late the generator may begin an operation: beyond it is the
// generator that cannot keep up, and the operation is counted as missed.
const missedAfter = 100 * time.Millisecond

// window is what ended, or was given up, within one second.
type window struct {
	mu      sync.Mutex
	latency *hdrhistogram.Histogram
	Counts
}

// Counts say what became of operations.
type Counts struct {
	Due     int64 `json:"due"`     // by the schedule
	Good    int64 `json:"good"`    // answered well before their deadlines
	Refused int64 `json:"refused"` // surely without effect: the system said that it has too much to do
	Expired int64 `json:"expired"` // the deadline came first, surely without effect
	Unknown int64 `json:"unknown"` // the deadline came first, and it may have taken effect
	Failed  int64 `json:"failed"`  // anything else
	Shed    int64 `json:"shed"`    // never begun: too many were under way
	Missed  int64 `json:"missed"`  // never begun: the generator was too slow
}

func (c *Counts) add(o Counts) {
	c.Due += o.Due
	c.Good += o.Good
	c.Refused += o.Refused
	c.Expired += o.Expired
	c.Unknown += o.Unknown
	c.Failed += o.Failed
	c.Shed += o.Shed
	c.Missed += o.Missed
}

// Errors that a Starter's done is given to say what kind of failure it was; they
// may be wrapped.
var (
	ErrRefused = errors.New("refused: too much to do")
	ErrExpired = errors.New("the deadline passed, no effect")
	ErrUnknown = errors.New("the deadline passed, outcome unknown")
)

// newOpenLoop counts, by seconds, what becomes of operations whose answers are
// worth something as long as patience, from when they were due.
func newOpenLoop(start Starter, patience time.Duration, bound int, seconds int) *openLoop {
	l := &openLoop{bound: int64(bound), windows: make([]window, seconds+1)}
	l.start = func(due time.Time, n int64) {
		deadline := due.Add(patience)
		start(n, deadline, func(err error) { l.ended(due, deadline, err) })
	}
	for i := range l.windows {
		l.windows[i].latency = newLatency(2)
	}
	return l
}

// newLatency makes a histogram of microseconds up to two minutes.
func newLatency(digits int) *hdrhistogram.Histogram {
	return hdrhistogram.New(1, int64(2*time.Minute/time.Microsecond), digits)
}

// at is the window of a moment; what comes after the last second counts there.
func (l *openLoop) at(now time.Time) *window {
	return &l.windows[min(max(0, int(now.Sub(l.begin)/time.Second)), len(l.windows)-1)]
}

// run makes operations due at rate, from from to to; they are begun until ctx ends.
func (l *openLoop) run(ctx context.Context, rate float64, from, to time.Time) {
	interval := float64(time.Second) / rate
	for i := 0; ; i++ {
		due := from.Add(time.Duration(float64(i) * interval))
		if !due.Before(to) || !waitUntil(ctx, due) {
			return
		}
		l.issue(due)
	}
}

// issue begins an operation, or says why not.
func (l *openLoop) issue(due time.Time) {
	now := time.Now()
	w := l.at(now)
	w.mu.Lock()
	w.Due++
	switch {
	case now.Sub(due) > missedAfter:
		w.Missed++
	case l.under.Load() >= l.bound:
		w.Shed++
	default:
		w.mu.Unlock()
		l.under.Add(1)
		l.n++
		l.start(due, l.n)
		return
	}
	w.mu.Unlock()
}

// ended counts an operation that was begun.
func (l *openLoop) ended(due, deadline time.Time, err error) {
	l.under.Add(-1)
	now := time.Now()
	w := l.at(now)
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case err == nil && now.After(deadline):
		w.Expired++
	case err == nil:
		w.Good++
		w.latency.RecordValue(max(1, now.Sub(due).Microseconds()))
	case errors.Is(err, ErrUnknown):
		w.Unknown++
	case errors.Is(err, ErrRefused):
		w.Refused++
	case errors.Is(err, ErrExpired):
		w.Expired++
	default:
		w.Failed++
	}
}

// sum gives what windows [from, to) hold together.
func (l *openLoop) sum(from, to int) (Counts, *hdrhistogram.Histogram) {
	var c Counts
	h := newLatency(2)
	for i := from; i < to; i++ {
		w := &l.windows[i]
		w.mu.Lock()
		c.add(w.Counts)
		h.Merge(w.latency)
		w.mu.Unlock()
	}
	return c, h
}
