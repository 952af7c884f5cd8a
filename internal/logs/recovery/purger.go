package recovery

import (
	"cmp"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
)

// PurgerDeps is the world of a Purger.
type PurgerDeps struct {
	Self      catalog.NodeID
	Shard     logs.ShardID // the node's own
	Mono      func() time.Duration
	AfterFunc func(d time.Duration, f func()) (stop func() bool)
	Logger    *slog.Logger
	Calls     Calls
	Store     Shard
	View      func() View
}

// Purger does, for the node's own shard, what it missed of recoveries. A log is
// purged by one at a time; a bounded number of logs is at work, the rest waits.
type Purger struct {
	cfg     Config
	deps    PurgerDeps
	metrics Metrics

	mu      sync.Mutex
	closed  bool
	running map[logs.LogID]*machine
	waiting map[logs.LogID]purgeArgs
	order   []logs.LogID // of those that wait
}

type purgeArgs struct{ clean, upTo logs.Epoch }

// NewPurger makes a purger.
func NewPurger(cfg Config, d PurgerDeps) *Purger {
	return &Purger{cfg: cfg.withDefaults(), deps: d, running: map[logs.LogID]*machine{}, waiting: map[logs.LogID]purgeArgs{}}
}

// Purge has the shard learn what was decided of a log between its last clean
// epoch and a release. It does not block; what is at work already is not begun
// again, for the shard asks again if that was not enough.
func (p *Purger) Purge(log logs.LogID, clean logs.Epoch, release logs.LSN) {
	args := purgeArgs{clean, release.Epoch() - 1}
	p.mu.Lock()
	if _, waits := p.waiting[log]; p.closed || waits || p.running[log] != nil || args.upTo <= clean {
		p.mu.Unlock()
		return
	}
	p.metrics.Started.Add(1)
	if len(p.running) >= p.cfg.Purges {
		p.waiting[log] = args
		p.order = append(p.order, log)
		p.metrics.Waiting.Add(1)
		p.mu.Unlock()
		return
	}
	m := p.beginLocked(log, args)
	p.mu.Unlock()
	m.post(event{kind: evStart})
}

func (p *Purger) beginLocked(log logs.LogID, a purgeArgs) *machine {
	m := &machine{
		log: log, calls: p.deps.Calls, shard: p.deps.Store, mono: p.deps.Mono, after: p.deps.AfterFunc,
		core: newPurge(&p.cfg, p.deps.View(), p.deps.Self, p.deps.Shard, log, a.clean, a.upTo), ended: func(effects) { p.end(log) },
	}
	p.running[log] = m
	p.metrics.Running.Add(1)
	return m
}

// end takes a purge away that is over, and lets the next begin.
func (p *Purger) end(log logs.LogID) {
	p.metrics.Done.Add(1)
	var next *machine
	p.mu.Lock()
	delete(p.running, log)
	p.metrics.Running.Add(-1)
	if len(p.order) > 0 && !p.closed {
		w := p.order[0]
		p.order = p.order[1:]
		next = p.beginLocked(w, p.waiting[w])
		delete(p.waiting, w)
		p.metrics.Waiting.Add(-1)
	}
	p.mu.Unlock()
	if next != nil {
		next.post(event{kind: evStart})
	}
}

// ViewChanged says that PurgerDeps.View gives something else now.
func (p *Purger) ViewChanged() {
	view := p.deps.View()
	p.mu.Lock()
	var all []*machine
	for _, log := range slices.Sorted(maps.Keys(p.running)) {
		all = append(all, p.running[log])
	}
	p.mu.Unlock()
	for _, m := range all {
		m.post(event{kind: evView, view: view})
	}
}

// PurgeRow is one purge, for people.
type PurgeRow struct {
	Log     logs.LogID
	State   string // WAITING for its turn, or what it is at
	Waiting int    // shards that have not answered
}

// Rows lists the purges at work and those that wait.
func (p *Purger) Rows() (rows []PurgeRow) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for log, m := range p.running {
		m.mu.Lock()
		core := m.core.(*purge)
		rows = append(rows, PurgeRow{Log: log, State: core.state.String(), Waiting: core.silent()})
		m.mu.Unlock()
	}
	for _, log := range p.order {
		rows = append(rows, PurgeRow{Log: log, State: "WAITING"})
	}
	slices.SortFunc(rows, func(a, b PurgeRow) int { return cmp.Compare(a.Log, b.Log) })
	return rows
}

// Metrics counts what the purger did.
func (p *Purger) Metrics() *Metrics { return &p.metrics }

// Close ends what is under way.
func (p *Purger) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, m := range p.running {
		m.stop()
	}
}
