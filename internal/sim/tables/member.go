package tables

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/journal"
	"github.com/braiddb/braid/internal/master"
	"github.com/braiddb/braid/internal/multiraft"
	"github.com/braiddb/braid/internal/sim"
	"github.com/braiddb/braid/internal/tables/docdb"
	"github.com/braiddb/braid/internal/tables/tablet"
	"github.com/braiddb/braid/internal/wire"
)

// member is a node over its lives: what is durable, and what this life runs.
type member struct {
	c *cluster
	n *sim.Node

	// Durable.
	platter  platter
	fs       *vfs.MemFS
	registry []*entry                              // replicas that the node has, by group
	dropped  map[catalog.GroupID]catalog.ReplicaID // the highest that was destroyed here
	suspect  bool                                  // the journal's tail is in doubt
	robbed   bool                                  // and synced records are gone from it
	rotten   bool                                  // bits of the engine's files are flipped
	promised []time.Duration                       // until when nodes may count on this one, by node: on its own clock
	inEngine map[catalog.GroupID]uint64            // durable in the engine when trouble beyond what is promised struck

	// Of this life.
	clock    *hlc.Clock
	engine   *docdb.Engine
	filled   int // of a memtable, at most, since the engine was flushed
	host     *multiraft.Host
	hosted   []*hosted // by group
	fatal    error
	exports  []*export          // open
	acked    []hlc.Timestamp    // bounds on times acknowledged to nodes, by node
	beat     *wire.Beat         // the one that the host is hearing
	serving  *wire.WriteRequest // the one that is being taken in, until it is proposed
	reading  bool               // a client's read is served
	refusals journal.Refusals
	leak     leaking
	leakDown time.Duration
	managed
}

// entry is a line of the node's registry of replicas.
type entry struct {
	group    catalog.GroupID
	replica  catalog.ReplicaID
	founders []*catalog.Replica // of a group that begins here
	leaving  bool
}

// hosted is one replica that runs: the tablet, watched on both sides.
type hosted struct {
	*tablet.Tablet // nil: the master's group
	sm             multiraft.StateMachine
	m              *member
	view           *view
	replica        catalog.ReplicaID
	group          *multiraft.Group
	applied        uint64
	flushed        uint64 // durable in the engine
	oaths          oaths
}

func newMember(c *cluster, n *sim.Node) *member {
	return &member{c: c, n: n, dropped: make(map[catalog.GroupID]catalog.ReplicaID), platter: platter{streams: make(map[journal.StreamID]*journal.StreamReplay)}, fs: vfs.NewCrashableMem(), promised: make([]time.Duration, len(c.w.Nodes))}
}

// A memtable is cleared whenever one begins: a small one costs less. The first of an
// engine has 256 KiB, and up to memTableFull of what is committed fits any, whatever
// it takes there.
const (
	memTableBytes = 512 << 10
	memTableFull  = 192 << 10
)

// boot begins a life as a node does: engine, host, then every replica that the
// registry lists from what the engine and the journal hold of it.
func (m *member) boot() {
	w, cfg := m.c.w, m.c.hostConfig()
	m.fatal, m.hosted, m.exports, m.managed = nil, nil, nil, managed{}
	m.filled = 0
	m.acked, m.beat = make([]hlc.Timestamp, len(w.Nodes)), nil
	m.serving, m.reading, m.leak, m.refusals = nil, false, leakNot, journal.Refusals{}
	m.clock = hlc.New(m.n.Wall, cfg.MaxSkew)
	life := m.n.Life()
	cfg.Suspect = m.suspect
	if m.robbed {
		// S5: who knows of what was lost here is up, and other faults may cut it off for
		// longer than any grace. To go on without its word is not promised, so the grace
		// is over when all that are left have had the time to speak.
		cfg.SuspectGrace = max(time.Duration(w.Opt.Safety)-w.Now(), 0) + 10*time.Second
	}
	var err error
	m.engine, err = docdb.OpenEngine(m.fs, "db", docdb.EngineOptions{CacheBytes: 1 << 20, MemTableBytes: memTableBytes,
		Fatal: func(err error) { m.unfit("the engine", err) }, OnCommit: m.committed})
	if err != nil {
		m.engine = nil
		m.unfit("open", err)
		return
	}
	m.host = multiraft.New(cfg, multiraft.Deps{
		Node: catalog.NodeID(m.n.ID), Incarnation: uint64(m.n.Life()), Clock: m.clock, Mono: m.n.Mono, Timer: m.timer(),
		Journal: simJournal{m}, Transport: door{m}, Rand: m.n.Rand(), Logger: slog.New(slog.DiscardHandler),
		Fatal: m.die, Tasks: func(f func()) { m.task(life, f) },
	})
	m.host.Start()
	for _, e := range slices.Clone(m.registry) {
		if e.leaving {
			m.erase(e)
		} else {
			m.open(e, m.platter.replay(journal.StreamID(e.group)))
		}
		if !m.n.Alive() {
			return // it cannot serve
		}
	}
	if m.c.first != nil {
		m.startManaged()
	}
}

// die is the node's end after a fatal fault: the process exits a little later.
// What it says until then is T5.
func (m *member) die(err error) {
	m.c.w.Tracef("node %d: fatal: %v", m.n.ID, err)
	m.c.w.Sometimes("node: fatal fault")
	m.fatal = err
	m.n.After(m.c.w.Between(0, 5*time.Millisecond), "exit", func() {
		m.n.Crash("fatal: "+err.Error(), m.c.w.Between(100*time.Millisecond, 3*time.Second))
	})
}

// open starts one replica.
func (m *member) open(e *entry, recovered *journal.StreamReplay) {
	c := m.c
	h := &hosted{m: m, view: c.view(e.group), replica: e.replica}
	applied, err := m.openState(h)
	if err != nil {
		m.unfit(fmt.Sprintf("group %d", e.group), err)
		return
	}
	h.applied, h.flushed = applied.Index, applied.Index
	cfg := multiraft.GroupConfig{ID: e.group, Replica: e.replica, Conf: e.founders, Recovered: recovered, SM: h, Applied: applied}
	cfg.New = len(e.founders) > 0 && recovered == nil && cfg.Applied.Index == 0
	if h.group, err = m.host.Create(cfg); err != nil {
		c.w.Fail("node %d: group %d: %w", m.n.ID, e.group, err)
		return
	}
	if is := recovered != nil && recovered.Corrupt; h.group.Status().Corrupt != is {
		c.w.Fail("node %d: group %d: its journal is damaged: %v; it says %v", m.n.ID, e.group, is, !is)
	}
	if h.Tablet != nil {
		h.Attach(h)
	} else {
		m.machine = h.sm.(*machine)
		m.master = master.New(master.Deps{Node: catalog.NodeID(m.n.ID), Incarnation: uint64(m.n.Life()), Group: masterGroup{h},
			Index: m.machine.index, Founding: c.first}, master.Options{DeadAfter: c.ms("deadMs")})
	}
	m.hosted = append(m.hosted, h)
	if c.w.Tracing() {
		n := 0
		if recovered != nil {
			n = len(recovered.Records)
		}
		c.w.Tracef("node %d opens replica %d of group %d: new %v, applied %d, %d records", m.n.ID, e.replica, e.group, cfg.New, cfg.Applied.Index, n)
	}
}

// openState opens a replica's state machine: a tablet, or the catalog.
func (m *member) openState(h *hosted) (multiraft.AppliedState, error) {
	c, v := m.c, h.view
	if v == c.system {
		x, err := openMachine(m)
		h.sm = x
		return x.state, err
	}
	t, err := tablet.New(tablet.Deps{
		Engine: m.engine, Clock: m.clock, Now: m.now, AfterFunc: m.timer().AfterFunc, DiskFull: m.n.Disk.Full,
		Logger: slog.New(slog.DiscardHandler), Options: c.tabletOptions(),
	}, v.tablet, v.schema())
	if err != nil {
		return multiraft.AppliedState{}, err
	}
	h.Tablet, h.sm = t, t
	return t.Applied(), nil
}

// now is the clock that deadlines of parked writes go by.
func (m *member) now() time.Time { return time.Unix(0, int64(m.n.Mono())) }

// down ends the life: the engine keeps what was flushed.
func (m *member) down() {
	m.suspect = m.suspect && slices.ContainsFunc(m.hosted, func(h *hosted) bool { return h.group.Status().Suspect })
	m.robbed = m.robbed && m.suspect
	for _, x := range m.exports {
		_ = x.r.Close() // nobody reads it any more
	}
	fs := m.fs.CrashClone(vfs.CrashCloneCfg{})
	m.closeEngine()
	m.fs, m.host, m.hosted, m.exports = fs, nil, nil, nil
}

func (m *member) closeEngine() {
	if m.engine != nil {
		_ = m.engine.Abandon() // its files are thrown away
		m.engine = nil
	}
}

// find gives the replica of a group that runs here; nil if none does.
func (m *member) find(id catalog.GroupID) *hosted {
	for _, h := range m.hosted {
		if h.view.id == id {
			return h
		}
	}
	return nil
}

func (m *member) flushedIndex(id catalog.GroupID) uint64 {
	if h := m.find(id); h != nil {
		return h.flushed
	}
	return 0
}

func (m *member) listed(id catalog.GroupID) *entry {
	for _, e := range m.registry {
		if e.group == id {
			return e
		}
	}
	return nil
}

// create takes up a new replica: the registry first.
func (m *member) create(e *entry) {
	m.register(e)
	m.open(e, nil)
}

// destroy ends a replica. The registry keeps it as leaving until all of it is gone.
func (m *member) destroy(e *entry) {
	e.leaving = true
	h := m.find(e.group)
	if h == nil {
		return // the next boot finds it
	}
	m.c.w.Tracef("node %d destroys replica %d of group %d", m.n.ID, e.replica, e.group)
	if h.Tablet != nil {
		h.Close()
	} else {
		m.master, m.machine = nil, nil
	}
	m.hosted = slices.DeleteFunc(m.hosted, func(x *hosted) bool { return x == h })
	m.host.RemoveThen(e.group, func(err error) {
		if err != nil {
			m.c.w.Fail("node %d: remove group %d: %w", m.n.ID, e.group, err)
			return
		}
		m.gone(e)
	})
}

// erase removes what a crash left of a leaving replica.
func (m *member) erase(e *entry) {
	var err error
	if e.group == catalog.MasterGroup {
		err = (&machine{m: m}).Destroy()
	} else {
		err = m.engine.Drop(m.c.view(e.group).span(), e.group)
	}
	if err != nil {
		m.c.w.Fail("node %d: drop group %d: %w", m.n.ID, e.group, err)
		return
	}
	m.n.Disk.Write(func() { m.platter.keep([]journal.Record{{Stream: journal.StreamID(e.group), Kind: journal.KindDrop}}) },
		func(err error) {
			if err != nil {
				m.die(err)
				return
			}
			m.gone(e)
		})
}

// gone forgets a replica and remembers that it was here.
func (m *member) gone(e *entry) {
	m.registry = slices.DeleteFunc(m.registry, func(x *entry) bool { return x == e })
	m.dropped[e.group] = max(m.dropped[e.group], e.replica)
	if m.index != nil && m.index.Version() > 0 {
		m.reconcile(m.index)
	}
}

// register adds a line to the registry.
func (m *member) register(e *entry) {
	m.registry = append(m.registry, e)
	slices.SortFunc(m.registry, func(a, b *entry) int { return int(int64(a.group) - int64(b.group)) })
}

// flushEngine makes all that was committed durable.
func (m *member) flushEngine() error {
	m.filled = 0
	err := m.engine.Flush()
	if err != nil {
		m.unfit("flush", err)
	}
	return err
}

// flush makes what was applied durable in the engine and lets the journal go.
func (m *member) flush() {
	if m.flushEngine() != nil {
		return
	}
	for _, h := range m.hosted {
		h.flushed = h.applied
		at := h.applied
		// Who is told of a flush tells the group a little later.
		late := 100 * time.Millisecond
		if m.c.w.OneIn(3) {
			late = 4 * time.Second
		}
		m.n.After(m.c.w.Between(0, late), "flushed", func() {
			if h.Tablet == nil {
				h.group.FlushedTo(at)
			} else if err := h.Flushed(); err != nil {
				m.unfit("flushed", err)
			}
		})
	}
}

// Apply is multiraft.StateMachine, watched.
func (h *hosted) Apply(ents []multiraft.Entry) error {
	for i := range ents {
		h.view.sawApplied(h, &ents[i])
	}
	err := h.sm.Apply(ents)
	h.applied = ents[len(ents)-1].Index
	h.checkRemembered()
	return err
}

// checkRemembered is T11.
func (h *hosted) checkRemembered() {
	if h.Tablet == nil {
		return
	}
	s := h.Tablet.Status()
	is, was := remembered{known: true, requests: s.RememberedWrites, bytes: s.RememberedBytes}, &h.view.seen[h.applied-h.view.first].remembered
	if was.known && *was != is {
		h.m.c.w.Fail("T11: group %d: after entry %d node %d remembers %d requests of %d bytes, another node %d of %d",
			h.view.id, h.applied, h.m.n.ID, is.requests, is.bytes, was.requests, was.bytes)
	}
	*was = is
}

// Restore is multiraft.StateMachine, watched. The engine flushes what it holds
// before it takes files in.
func (h *hosted) Restore(meta multiraft.AppliedState, r io.Reader) error {
	h.m.c.w.Tracef("node %d restores a snapshot of group %d at %d over %d", h.m.n.ID, h.view.id, meta.Index, h.applied)
	h.m.c.w.Sometimes("snapshot: restored")
	if meta.Index < h.applied {
		return fmt.Errorf("sim: a snapshot at %d would take replica %d back from %d", meta.Index, h.replica, h.applied)
	}
	if err := h.sm.Restore(meta, h.shaky(r)); err != nil {
		return err
	}
	h.applied, h.flushed = meta.Index, meta.Index
	return nil
}

// Snapshot is multiraft.StateMachine. A crash closes what a stream left open.
func (h *hosted) Snapshot() (multiraft.SnapshotReader, error) {
	r, err := h.sm.Snapshot()
	if err != nil {
		return nil, err
	}
	x := &export{SnapshotReader: r, m: h.m, r: r}
	h.m.exports = append(h.m.exports, x)
	h.flood()
	return x, nil
}

// Destroy is multiraft.StateMachine.
func (h *hosted) Destroy() error { return h.sm.Destroy() }

// export is a snapshot that is being read.
type export struct {
	multiraft.SnapshotReader
	m *member
	r multiraft.SnapshotReader
}

// Close lets the snapshot go.
func (x *export) Close() error {
	x.m.exports = slices.DeleteFunc(x.m.exports, func(y *export) bool { return y == x })
	return x.r.Close()
}

// The group as the tablet sees it, watched.

// Propose passes a proposal on, watched for T7.
func (h *hosted) Propose(p *multiraft.Proposal) {
	h.watchOutcome(p)
	h.proposes(p)
}

func (h *hosted) watchOutcome(p *multiraft.Proposal) {
	o, done := h.view.outcome(p.Data), p.Done
	o.open++
	p.Done = func(r multiraft.ProposalResult) {
		if r.Err != nil && !errors.Is(r.Err, multiraft.ErrUnknownOutcome) {
			o.open--
			h.view.checkOutcome(o)
		}
		done(r)
	}
}

// ReadTime is watched for T3 and T4.
func (h *hosted) ReadTime() (hlc.Timestamp, error) {
	at, err := h.group.ReadTime()
	if err != nil {
		return at, err
	}
	h.view.gaveSafeTime(h, at)
	if !h.pauses() {
		return 0, multiraft.ErrStopped
	}
	return at, nil
}

// Leading is the group's.
func (h *hosted) Leading() error { return h.group.Leading() }

// Status is the group's, not the tablet's.
func (h *hosted) Status() multiraft.Status { return h.group.Status() }

// FlushedTo is the group's.
func (h *hosted) FlushedTo(index uint64) { h.group.FlushedTo(index) }
