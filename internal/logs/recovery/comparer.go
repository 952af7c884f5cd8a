package recovery

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// Doubtful is the node's own shard, as far as it may have lost what it had
// acknowledged.
type Doubtful interface {
	Suspect() bool
	Doubts() []logs.LogID   // known logs of which something may be lost
	Unfenced() []logs.LogID // those of them that take no stores for it
	DoubtNumber() uint64    // of the newest doubt
	// Fence fails if there is another doubt by then than since, the newest before next was
	// asked for.
	Fence(log logs.LogID, next logs.Epoch, since uint64, done func(logs.Doubt, error))
	// Repair fails if more epochs than up to clean are clean by then.
	Repair(log logs.LogID, clean logs.Epoch, records []*wire.LogRecord, done func(error))
	// Sure fails likewise, and if there is another doubt by then.
	Sure(log logs.LogID, found logs.Compared, done func(error))
	Listed() error // waits for the disk
}

// ComparerDeps is the world of a Comparer.
type ComparerDeps struct {
	Self       catalog.NodeID
	Shard      logs.ShardID // the node's own
	Mono       func() time.Duration
	AfterFunc  func(d time.Duration, f func()) (stop func() bool)
	Logger     *slog.Logger
	Calls      Calls
	EpochStore EpochStore
	Store      Doubtful
	Purge      func(log logs.LogID, clean logs.Epoch, release logs.LSN) // what recovery decided is learnt first
	View       func() View
	Sequencers Sequencers // nil: nobody is asked to end a reign
}

// Comparer ends the doubt of the node's own shard: it finds the logs concerned,
// and compares each, and its metadata log, with the other shards. A bounded number
// is at work, the rest waits.
type Comparer struct {
	cfg     Config
	deps    ComparerDeps
	metrics Metrics

	mu       sync.Mutex
	closed   bool
	survey   *machine
	surveyed bool
	running  map[logs.LogID]*machine
	sealed   map[logs.LogID]logs.Epoch // of those that run or wait: up to where, at least
	order    []logs.LogID              // of those that wait
	again    map[logs.LogID]logs.Epoch // asked for while they ran, for later epochs or another doubt
	open     map[logs.LogID]bool       // to be looked at before all are
	reigns   *reigns
}

// NewComparer makes a comparer; it works with Start.
func NewComparer(cfg Config, d ComparerDeps) *Comparer {
	if d.Logger == nil {
		d.Logger = slog.New(slog.DiscardHandler)
	}
	c := &Comparer{cfg: cfg.withDefaults(), deps: d, running: map[logs.LogID]*machine{}, sealed: map[logs.LogID]logs.Epoch{},
		again: map[logs.LogID]logs.Epoch{}, open: map[logs.LogID]bool{}}
	c.reigns = newReigns(&c.cfg, &c.deps, func(log logs.LogID) { c.Compare(log, 0) })
	return c
}

// Start looks for what is in doubt, if the shard is. It is called again when the shard
// comes to another doubt while it runs: then nothing that was found before counts.
func (c *Comparer) Start() {
	if !c.deps.Store.Suspect() {
		return
	}
	c.mu.Lock()
	if c.survey != nil {
		c.survey.stop()
	}
	c.survey, c.surveyed = nil, false
	clear(c.open)
	for id := range c.running { // it may be over, for what was in doubt before (D7)
		c.again[id] = max(c.again[id], c.sealed[id])
	}
	c.mu.Unlock()
	c.found(c.deps.Store.Doubts())
	core := newSurvey(&c.cfg, c.deps.View(), c.deps.Shard)
	m := &machine{calls: c.deps.Calls, mono: c.deps.Mono, after: c.deps.AfterFunc, core: core}
	m.told = func(fx effects) { c.found(fx.logs) }
	m.ended = func(effects) {
		c.mu.Lock()
		if c.survey == m {
			c.surveyed, c.survey = true, nil
		}
		c.mu.Unlock()
		c.list()
	}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	c.survey = m
	c.mu.Unlock()
	c.complain(m, core)
	m.post(event{kind: evStart})
}

// complain says, now and then, who is waited for.
func (c *Comparer) complain(m *machine, v *survey) {
	c.deps.AfterFunc(time.Minute, func() {
		m.mu.Lock()
		over, silent := m.over, v.silent()
		m.mu.Unlock()
		if !over {
			c.deps.Logger.Warn("this node's shard may have lost copies of logs, and shards that could tell do not answer: "+
				"start their nodes, or, if their disks are lost, start them anew on empty directories", "shard", c.deps.Shard, "silent", fmt.Sprint(silent))
			c.complain(m, v)
		}
	})
}

// found has logs compared that were not yet.
func (c *Comparer) found(ids []logs.LogID) {
	for _, id := range ids {
		c.mu.Lock()
		_, seen := c.open[id]
		if !seen {
			c.open[id], c.open[id.MetadataLog()] = true, true
		}
		c.mu.Unlock()
		if !seen {
			c.Compare(id, 0)
		}
	}
}

// Compare has the shard learn from others what it may have lost of a log; sealed
// is up to where it is sealed here. It does not block; what is at work already is
// not begun again, unless for later epochs.
func (c *Comparer) Compare(log logs.LogID, sealed logs.Epoch) {
	for _, id := range [...]logs.LogID{log.MetadataLog(), log} {
		c.mu.Lock()
		m := c.begin(id, sealed)
		c.mu.Unlock()
		if m != nil {
			m.post(event{kind: evStart})
		}
	}
}

// begin makes a log's machine, or has it wait. mu is held.
func (c *Comparer) begin(id logs.LogID, sealed logs.Epoch) *machine {
	before, known := c.sealed[id]
	switch {
	case c.closed:
		return nil
	case known && c.running[id] != nil:
		if sealed > before && !id.IsMetadata() {
			c.again[id] = max(c.again[id], sealed)
		}
		return nil
	case known:
		c.sealed[id] = max(before, sealed)
		return nil
	}
	c.sealed[id] = sealed
	c.metrics.Started.Add(1)
	if len(c.running) >= c.cfg.Comparisons {
		c.order = append(c.order, id)
		c.metrics.Waiting.Add(1)
		return nil
	}
	return c.run(id)
}

// run makes a log's machine. mu is held.
func (c *Comparer) run(id logs.LogID) *machine {
	core := newComparison(&c.cfg, &honest, c.deps.View(), c.deps.Self, c.deps.Shard, id, c.sealed[id])
	m := &machine{log: id, calls: c.deps.Calls, store: c.deps.EpochStore, doubt: c.deps.Store, purge: c.deps.Purge,
		mono: c.deps.Mono, after: c.deps.AfterFunc, core: core}
	m.told = func(fx effects) {
		if fx.fenced && !id.IsMetadata() {
			c.settled(id)
		}
	}
	m.ended = func(effects) { c.end(id, core) }
	c.running[id] = m
	c.metrics.Running.Add(1)
	return m
}

// end takes a comparison away that is over, and lets the next begin.
func (c *Comparer) end(id logs.LogID, core *comparison) {
	if core.weak {
		c.deps.Logger.Warn("copies of a log that this shard and others may have lost are given up: nobody knows of them", "log", id,
			"shard", c.deps.Shard, "from", core.from, "to", core.to)
	}
	c.metrics.Done.Add(1)
	c.mu.Lock()
	delete(c.running, id)
	delete(c.sealed, id)
	c.metrics.Running.Add(-1)
	var next []*machine
	if len(c.order) > 0 && !c.closed {
		w := c.order[0]
		c.order = c.order[1:]
		c.metrics.Waiting.Add(-1)
		next = append(next, c.run(w))
	}
	later, again := c.again[id]
	if again {
		delete(c.again, id)
		if m := c.begin(id, later); m != nil {
			next = append(next, m)
		}
	}
	c.mu.Unlock()
	for _, m := range next {
		m.post(event{kind: evStart})
	}
	if !id.IsMetadata() {
		c.reigns.left(id, core.left)
	}
	if !again {
		c.settled(id)
	}
}

// settled notes that a log's own state says what is in doubt of it.
func (c *Comparer) settled(id logs.LogID) {
	c.mu.Lock()
	was := c.open[id]
	if was {
		c.open[id] = false
	}
	c.mu.Unlock()
	if was {
		c.list()
	}
}

// list says that all logs are found, when they are.
func (c *Comparer) list() {
	c.mu.Lock()
	all := c.surveyed && !c.closed
	for _, open := range c.open {
		all = all && !open
	}
	c.mu.Unlock()
	if !all {
		return
	}
	c.deps.AfterFunc(0, func() { // it waits for the disk
		left := c.deps.Store.Unfenced()
		if len(left) == 0 {
			if err := c.deps.Store.Listed(); err != nil {
				c.deps.Logger.Warn("the end of a shard's doubt could not be written down", "shard", c.deps.Shard, "error", err)
			}
			return
		}
		c.mu.Lock()
		for _, id := range left { // they came meanwhile
			c.open[id] = true
		}
		c.mu.Unlock()
		for _, id := range left {
			c.Compare(id, 0)
		}
	})
}

// ViewChanged says that ComparerDeps.View gives something else now.
func (c *Comparer) ViewChanged() {
	view := c.deps.View()
	c.mu.Lock()
	var all []*machine
	if c.survey != nil {
		all = append(all, c.survey)
	}
	for _, log := range slices.Sorted(maps.Keys(c.running)) {
		all = append(all, c.running[log])
	}
	c.mu.Unlock()
	for _, m := range all {
		m.post(event{kind: evView, view: view})
	}
}

// CompareRow is one comparison, for people.
type CompareRow struct {
	Log     logs.LogID
	State   string // WAITING, REIGN while what is in doubt is not over, or what it is at
	Waiting int    // shards that have not answered
}

// Rows lists the comparisons at work and those that wait.
func (c *Comparer) Rows() (rows []CompareRow) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, m := range c.running {
		m.mu.Lock()
		core := m.core.(*comparison)
		row := CompareRow{Log: id, State: core.state.String()}
		for i := range core.peers {
			if !core.peers[i].answered {
				row.Waiting++
			}
		}
		m.mu.Unlock()
		rows = append(rows, row)
	}
	for _, id := range c.order {
		rows = append(rows, CompareRow{Log: id, State: "WAITING"})
	}
	for _, id := range c.reigns.logs() {
		if c.running[id] == nil && !slices.Contains(c.order, id) {
			rows = append(rows, CompareRow{Log: id, State: "REIGN"})
		}
	}
	slices.SortFunc(rows, func(a, b CompareRow) int { return cmp.Compare(a.Log, b.Log) })
	return rows
}

// Metrics counts what the comparer did.
func (c *Comparer) Metrics() *Metrics { return &c.metrics }

// Close ends what is under way.
func (c *Comparer) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.survey != nil {
		c.survey.stop()
	}
	for _, m := range c.running {
		m.stop()
	}
	c.reigns.close()
}
