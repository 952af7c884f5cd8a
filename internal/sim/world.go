package sim

import (
	"fmt"
	"io"
	"math/rand/v2"
	"runtime/debug"
	"time"
)

// World is one run: a clock, a heap of what is to come, and who lives in it.
type World struct {
	Opt     *Options
	Nodes   []*Node // by id, from 1: Nodes[0] is node 1
	Net     Net
	cluster Cluster

	dice  *rand.Rand
	now   time.Duration
	queue eventHeap
	spare []*event // that are over
	order uint64
	hash  uint64
	trace io.Writer // nil: no trace
	err   error

	exposed string // see Expose

	calm    bool // the faults are over (S6)
	nested  bool // Meanwhile is under way
	where   int  // the node of the event under way
	events  uint64
	faults  int // carried out
	skipped int // that found no one to strike
	reached map[string]uint64
}

// worldStart is where the virtual clock begins; times of zero mean "none" to many cores.
const worldStart = time.Second

// NewWorld makes the world of some options. build makes the cluster in it;
// nothing boots before Run. trace may be nil.
func NewWorld(o *Options, trace io.Writer, build func(*World) Cluster) *World {
	w := &World{Opt: o, trace: trace, now: worldStart, hash: 14695981039346656037,
		dice: rand.New(rand.NewPCG(o.Seed, 0x5eed)), reached: make(map[string]uint64)}
	w.Net.init(w, o.Nodes)
	for id := 1; id <= o.Nodes; id++ {
		w.Nodes = append(w.Nodes, newNode(w, id))
	}
	w.cluster = build(w)
	return w
}

// Now is the virtual time, which no node sees: nodes have clocks.
func (w *World) Now() time.Duration { return w.now }

// Dice is the one source of chance. Who draws from it takes part in the order
// of the world; cores get sources of their own (Node.Rand).
func (w *World) Dice() *rand.Rand { return w.dice }

// Between draws a duration.
func (w *World) Between(lo, hi time.Duration) time.Duration {
	if hi <= lo {
		return lo
	}
	return lo + time.Duration(w.dice.Int64N(int64(hi-lo)+1))
}

// OneIn is true once in n draws, never for n <= 0.
func (w *World) OneIn(n int) bool { return n > 0 && w.dice.IntN(n) == 0 }

// Where is the node that the event under way belongs to, 0 for none: what it
// changed, it changed there.
func (w *World) Where() int { return w.where }

// Calm says that the faults are over.
func (w *World) Calm() bool { return w.calm }

// After runs f at a later time, whatever becomes of nodes.
func (w *World) After(d time.Duration, what string, f func()) Timer {
	e := w.at(w.now+max(d, 0), what, 0, f)
	return Timer{e, e.order}
}

// Meanwhile lets what comes in the next d happen before its caller goes on: the
// caller is a goroutine that stands between two of its instructions. Who calls it
// must look after that whether its life lasts. It does not nest.
func (w *World) Meanwhile(d time.Duration) {
	if w.nested {
		return
	}
	w.nested = true
	where, end := w.where, w.now+d
	for w.err == nil && len(w.queue) > 0 && w.queue[0].at <= end {
		w.one()
	}
	w.where, w.nested = where, false
}

// Note makes a value part of the trace's hash.
func (w *World) Note(v uint64) {
	w.hash = (w.hash ^ v) * 1099511628211
}

// NoteBytes makes bytes part of the trace's hash.
func (w *World) NoteBytes(b []byte) {
	h := w.hash
	for len(b) >= 8 {
		h = (h ^ (uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 |
			uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56)) * 1099511628211
		b = b[8:]
	}
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	w.hash = h
}

func (w *World) noteString(s string) {
	h := w.hash
	for i := 0; i < len(s); i++ {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	w.hash = h
}

// Tracing says whether lines are wanted: ask before making one is costly.
func (w *World) Tracing() bool { return w.trace != nil }

// TracingMessages says whether it shows messages too.
func (w *World) TracingMessages() bool { return w.trace != nil && w.Opt.Messages }

// Tracef writes a line of the readable trace.
func (w *World) Tracef(format string, args ...any) {
	if w.trace != nil {
		fmt.Fprintf(w.trace, "%11.6f  %s\n", w.now.Seconds(), fmt.Sprintf(format, args...))
	}
}

// Sometimes counts that something worth reaching was reached in this run.
func (w *World) Sometimes(what string) { w.reached[what]++ }

// Struck counts the faults of a kind that were carried out.
func (w *World) Struck(kind string) uint64 { return w.reached["fault: "+kind] }

// Fail ends the run: a promise is broken. The first word counts.
func (w *World) Fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf(format, args...)
		w.Tracef("FAILED: %v", w.err)
	}
}

// Expose notes that a fault beyond what is promised took something in a way that a
// document names as one that nobody can tell: a failure that follows is no news.
func (w *World) Expose(format string, args ...any) {
	if w.exposed == "" {
		w.exposed = fmt.Sprintf(format, args...)
		w.Tracef("EXPOSED: %s", w.exposed)
		w.Sometimes("beyond: exposed")
	}
}

// Exposed says that Expose was called.
func (w *World) Exposed() bool { return w.exposed != "" }

// Failed says that the run has failed.
func (w *World) Failed() bool { return w.err != nil }

// Run lets the run happen and says how it went.
func (w *World) Run() *Result {
	w.boot()
	end := worldStart + time.Duration(w.Opt.Safety)
	w.schedule()
	w.runUntil(end)
	if w.err == nil {
		w.heal()
		w.converge(end + time.Duration(w.Opt.Liveness))
	}
	if w.err == nil {
		w.guard(func() {
			if err := w.cluster.Check(); err != nil {
				w.Fail("in the end: %w", err)
			}
		})
	}
	w.Note(w.dice.Uint64())
	r := &Result{Options: w.Opt, Hash: fmt.Sprintf("%016x", w.hash), Events: w.events, Virtual: Duration(w.now - worldStart),
		Ops: w.cluster.Ops(), Faults: w.faults, Skipped: w.skipped, Reached: w.reached}
	switch {
	case w.err != nil && w.exposed != "":
		r.Exposed = w.exposed + ": " + w.err.Error()
	case w.err != nil:
		r.Error = w.err.Error()
	}
	w.cluster.Close()
	return r
}

func (w *World) boot() {
	w.guard(func() {
		for _, n := range w.Nodes {
			n.boot()
		}
		w.cluster.Start()
	})
}

func (w *World) runUntil(end time.Duration) {
	for w.err == nil && len(w.queue) > 0 && w.queue[0].at <= end {
		w.one()
	}
	if w.err == nil {
		w.now = max(w.now, end)
	}
}

// eventsMax is far above what a run takes: cores that answer each other for ever
// must not hold a campaign up.
const eventsMax = 3_000_000

// one runs the next event.
func (w *World) one() {
	at, e := w.next()
	if e.f == nil {
		return
	}
	w.now, w.where = at, e.node
	if w.events++; w.events > eventsMax {
		w.Fail("the world does not come to rest: %d events, the last is %q of node %d", w.events, e.what, e.node)
	}
	w.Note(uint64(at))
	w.Note(uint64(e.node))
	w.noteString(e.what)
	w.happen(&e)
	if w.err == nil {
		w.cluster.Watch()
	}
}

// guard turns a panic into a failure: cores assert their invariants that way.
func (w *World) guard(f func()) {
	defer w.recovered()
	f()
}

func (w *World) recovered() {
	if r := recover(); r != nil {
		w.Fail("panic: %v", r)
		w.Tracef("%s", debug.Stack())
	}
}

// converge asks every quarter second whether all is well, and fails at the end.
func (w *World) converge(end time.Duration) {
	const step = 250 * time.Millisecond
	last := error(nil)
	for w.err == nil {
		w.runUntil(w.now + step)
		if w.err != nil {
			return
		}
		w.guard(func() { last = w.cluster.Converged() })
		if last == nil {
			return
		}
		if w.now >= end {
			w.Fail("not well %s after the last fault: %w", time.Duration(w.Opt.Liveness), last)
		}
	}
}
