package recovery

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
)

// ErrClosed ends recoveries that are under way when the host is closed.
var ErrClosed = errors.New("recovery: closed")

// Deps is the world of a Host.
type Deps struct {
	Self       catalog.NodeID
	Mono       func() time.Duration
	AfterFunc  func(d time.Duration, f func()) (stop func() bool)
	Rand       *rand.Rand
	Logger     *slog.Logger
	Calls      Calls
	EpochStore EpochStore
	View       func() View // the present one
}

// Metrics of a host or a purger. All but Running and Waiting only grow.
type Metrics struct {
	// Started is how many were asked for.
	Started atomic.Uint64
	// Done is how many came to an end by themselves.
	Done atomic.Uint64
	// Preempted is how many of those somebody newer ended.
	Preempted atomic.Uint64
	// Running is how many are at work.
	Running atomic.Int64
	// Waiting is how many wait for their turn.
	Waiting atomic.Int64
}

// Host recovers logs, a bounded number at a time; the rest waits in order.
type Host struct {
	cfg     Config
	deps    Deps
	metrics Metrics

	mu      sync.Mutex
	rand    *rand.Rand
	closed  bool
	running map[*recoveryRun]bool
	waiting []*recoveryRun
	// spent are the epochs under which a recovery was cancelled that had decided
	// something: one that began anew might decide otherwise with the same ballot (C2).
	spent map[logs.LogID]logs.Epoch
}

// recoveryRun is one log's.
type recoveryRun struct {
	args    Args
	core    *logRecovery // nil while it waits
	machine *machine
	begun   time.Duration
	done    func(Result, error)
}

// NewHost makes a host.
func NewHost(cfg Config, d Deps) *Host {
	if d.Logger == nil {
		d.Logger = slog.New(slog.DiscardHandler)
	}
	return &Host{cfg: cfg.withDefaults(), deps: d, rand: d.Rand, running: map[*recoveryRun]bool{}, spent: map[logs.LogID]logs.Epoch{}}
}

// Recover makes a log's earlier epochs clean. done is called once, unless cancel
// was called before. What was cancelled after it had decided something is not
// begun again on behalf of the same epoch (Args.Own): FAILED.
func (h *Host) Recover(a Args, done func(Result, error)) (cancel func()) {
	r := &recoveryRun{args: a, done: done, begun: h.deps.Mono()}
	h.metrics.Started.Add(1)
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		done(Result{}, ErrClosed)
		return func() {}
	}
	if spent := h.spent[a.Log]; a.Own <= spent {
		h.mu.Unlock()
		done(Result{Status: statusFailed, Record: a.Record, Message: fmt.Sprintf(
			"a recovery on behalf of epoch %d was given up half-way: another can only be begun for a later epoch", spent)}, nil)
		return func() {}
	}
	delete(h.spent, a.Log)
	if len(h.running) >= h.cfg.Recoveries {
		h.waiting = append(h.waiting, r)
		h.metrics.Waiting.Add(1)
		h.mu.Unlock()
		return func() { h.cancel(r) }
	}
	h.beginLocked(r)
	h.mu.Unlock()
	r.machine.post(event{kind: evStart})
	return func() { h.cancel(r) }
}

// beginLocked makes the machine of a run; it is started outside of the lock.
func (h *Host) beginLocked(r *recoveryRun) {
	dice := rand.New(rand.NewPCG(h.rand.Uint64(), h.rand.Uint64()))
	r.core = newLogRecovery(&h.cfg, &honest, dice, h.deps.View(), h.deps.Self, r.args)
	r.machine = &machine{
		log: r.args.Log, calls: h.deps.Calls, store: h.deps.EpochStore, mono: h.deps.Mono, after: h.deps.AfterFunc, core: r.core,
		ended: func(fx effects) { h.end(r, *fx.result) },
	}
	h.running[r] = true
	h.metrics.Running.Add(1)
}

// end takes a run away whose core has a result, and lets the next begin.
func (h *Host) end(r *recoveryRun, res Result) {
	h.metrics.Done.Add(1)
	if res.Status == statusPreempted {
		h.metrics.Preempted.Add(1)
	}
	if took := h.deps.Mono() - r.begun; res.Status != statusOK {
		h.deps.Logger.Info("recovery of a log ended", "log", r.args.Log, "epoch", r.args.Own, "status", res.Status, "cause", res.Message, "took", took)
	}
	h.remove(r)
	r.done(res, nil)
}

func (h *Host) cancel(r *recoveryRun) {
	h.mu.Lock()
	m := r.machine
	h.mu.Unlock()
	if m != nil && m.stop() {
		m.mu.Lock()
		x := r.core.epoch
		decided := x != nil && x.decided
		m.mu.Unlock()
		if decided {
			h.mu.Lock()
			h.spent[r.args.Log] = max(h.spent[r.args.Log], r.args.Own)
			h.mu.Unlock()
		}
	}
	h.remove(r)
}

// remove forgets a run and begins what waits, as far as there is room.
func (h *Host) remove(r *recoveryRun) {
	var begun []*recoveryRun
	h.mu.Lock()
	if h.running[r] {
		delete(h.running, r)
		h.metrics.Running.Add(-1)
	}
	for i, w := range h.waiting {
		if w == r {
			h.waiting = append(h.waiting[:i], h.waiting[i+1:]...)
			h.metrics.Waiting.Add(-1)
			break
		}
	}
	for !h.closed && len(h.waiting) > 0 && len(h.running) < h.cfg.Recoveries {
		w := h.waiting[0]
		h.waiting = h.waiting[1:]
		h.metrics.Waiting.Add(-1)
		h.beginLocked(w)
		begun = append(begun, w)
	}
	h.mu.Unlock()
	for _, w := range begun {
		w.machine.post(event{kind: evStart})
	}
}

// ViewChanged says that Deps.View gives something else now.
func (h *Host) ViewChanged() {
	view := h.deps.View()
	for _, r := range h.atWork() {
		r.machine.post(event{kind: evView, view: view})
	}
}

func (h *Host) atWork() (out []*recoveryRun) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for r := range h.running {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b *recoveryRun) int {
		return cmp.Or(cmp.Compare(a.args.Log, b.args.Log), cmp.Compare(a.args.Own, b.args.Own))
	})
	return out
}

// Row is one recovery, for people.
type Row struct {
	Log        logs.LogID
	Own, Epoch logs.Epoch // on whose behalf; which one is at work
	UpTo       logs.Epoch
	State      string // METADATA, SEALING, DIGESTING, MUTATING, CLEANING, ADVANCING or WAITING
	For        time.Duration
	Slots      int // of the epoch, that had to be decided
	Records    int // of them
	Holes      int
	Pending    int // not stored yet
	Good       logs.ESN
	Digest     string // what was heard amounts to: an f-majority, complete or incomplete, or less
	Absent     int    // shards of the nodeset that do not take part, or have not answered yet
	Restarts   int    // times that decisions were stored again on others
}

// describe fills in what is known of the epoch at work.
func (row *Row) describe(x *epochRecovery) {
	row.State, row.Epoch, row.Good, row.Restarts = x.phase.String(), x.epoch, x.good, x.restarts
	row.Slots, row.Digest = len(x.slots), x.authority.String()
	for i := range x.slots {
		switch x.slots[i].value {
		case valueRecord:
			row.Records++
		case valueHole, valueBridge:
			row.Holes++
		}
		if x.decided && !x.slots[i].stored {
			row.Pending++
		}
	}
	for i := range x.members {
		if !x.takesPart(i) {
			row.Absent++
		}
	}
}

// takesPart says whether a shard has done what the phase asks of all: until the
// decision to answer, from then on to take what is decided.
func (x *epochRecovery) takesPart(i int) bool {
	switch {
	case x.decided:
		return x.members[i].in
	case x.phase == phaseSealing:
		return x.source(i).answered
	}
	return x.members[i].digested
}

// Rows lists the recoveries under way and those that wait.
func (h *Host) Rows() (rows []Row) {
	now := h.deps.Mono()
	for _, r := range h.atWork() {
		row := Row{Log: r.args.Log, Own: r.args.Own, UpTo: r.args.UpTo, For: now - r.begun}
		r.machine.mu.Lock()
		row.Epoch = r.core.clean() + 1
		switch x := r.core.epoch; {
		case r.core.state == stateMetadata:
			row.State = "METADATA"
		case r.core.state == stateAdvancing || r.core.state == stateOver || x == nil:
			row.State = "ADVANCING"
		default:
			row.describe(x)
		}
		r.machine.mu.Unlock()
		rows = append(rows, row)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.waiting {
		rows = append(rows, Row{Log: r.args.Log, Own: r.args.Own, UpTo: r.args.UpTo, State: "WAITING", For: now - r.begun})
	}
	return rows
}

// Metrics counts what the host did.
func (h *Host) Metrics() *Metrics { return &h.metrics }

// Close ends what is under way with ErrClosed.
func (h *Host) Close() {
	h.mu.Lock()
	h.closed = true
	over := h.waiting
	h.waiting = nil
	for r := range h.running {
		over = append(over, r)
	}
	h.running = map[*recoveryRun]bool{}
	h.mu.Unlock()
	for _, r := range over {
		if r.machine != nil {
			r.machine.stop()
		}
		r.done(Result{}, ErrClosed)
	}
}
