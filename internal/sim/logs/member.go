package logs

import (
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/gossip"
	"github.com/braiddb/braid/internal/journal"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/logs/recovery"
	"github.com/braiddb/braid/internal/logs/sequencer"
	"github.com/braiddb/braid/internal/logs/store"
	"github.com/braiddb/braid/internal/placement"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/sim"
	"github.com/braiddb/braid/internal/wire"
)

// member is a node over its lives: what is durable, and what this life runs. It
// wires what internal/node wires.
type member struct {
	c *cluster
	w *sim.World
	n *sim.Node

	// Durable.
	platter platter
	fs      *vfs.MemFS
	suspect bool                // the journal's tail is in doubt
	tree    *catalog.Logs       // the catalog as it was last heard of here
	nodes   []*catalog.Node     // likewise
	given   map[logs.LogID]bool // logs of which copies were sent here
	words   map[logs.LogID]*promises
	ticks   int  // of its releases' watch
	sound   bool // flipped: all that it has was read since, and none was damaged

	// Of this life.
	gossip    *gossip.Host
	store     *store.Store
	purger    *recovery.Purger
	comparer  *recovery.Comparer
	recovery  *recovery.Host
	sequencer *sequencer.Host
	doors     map[rpc.Method]door
	spy       *spy
	mutations map[uint64]func(*wire.Stored, error)
	cookies   uint64
	synced    int // above 0: the journal is just telling what its disk has
	fatal     error
	aloneAt   time.Duration // since when it has seen no majority; 0: it sees one
	scrubbing bool

	hurt hurt
}

func newMember(c *cluster, n *sim.Node) *member {
	return &member{c: c, w: c.w, n: n, fs: vfs.NewCrashableMem(), given: map[logs.LogID]bool{}, words: map[logs.LogID]*promises{}, hurt: hurt{spare: c.isSpare(n)}}
}

func (m *member) after(d time.Duration, f func()) func() bool {
	return m.n.After(d, "timer", f).Stop
}

func (m *member) wallMs() int64 { return m.n.Wall() / 1000 }

func (m *member) tasks(f func()) { m.n.Soon("task", f) }

func (m *member) attributes(log logs.LogID) (*catalog.LogAttributes, bool) {
	return m.tree.Attributes(uint64(log))
}

func (m *member) view() recovery.View { return view{m.gossip.View()} }

func (m *member) shard() logs.ShardID { return logs.MakeShard(catalog.NodeID(m.n.ID), 0) }

// boot begins a life as a node does.
func (m *member) boot() {
	if !m.joins() {
		return
	}
	self, life := catalog.NodeID(m.n.ID), uint64(m.n.Life())
	quiet := slog.New(slog.DiscardHandler)
	m.aloneAt = 0
	m.fatal, m.synced, m.purger, m.comparer, m.sequencer = nil, 0, nil, nil, nil
	m.mutations, m.spy = map[uint64]func(*wire.Stored, error){}, newSpy(m)
	m.tree, m.nodes = m.c.tree, m.c.nodes
	m.gossip = gossip.NewHost(m.c.gossipConfig(), gossip.Deps{Self: self, Incarnation: life, Mono: m.n.Mono, AfterFunc: m.after, Rand: m.n.Rand(),
		Send: m.sendGossip, Probe: m.probe, Nodes: func() []*catalog.Node { return m.nodes }, OnChange: m.clusterChanged})
	if err := m.openStore(); err != nil {
		m.unfit(err)
		return
	}
	door := epochDoor{m, m.c.epochs}
	cfg := recovery.Config{MutationsMax: int(m.w.Opt.Knob("recoverySlots")), DigestBytes: uint32(m.w.Opt.Knob("digestBytes"))}
	m.purger = recovery.NewPurger(cfg, recovery.PurgerDeps{Self: self, Shard: m.shard(), Mono: m.n.Mono, AfterFunc: m.after, Logger: quiet,
		Calls: calls{m}, Store: m.store, View: m.view})
	m.comparer = recovery.NewComparer(cfg, recovery.ComparerDeps{Self: self, Shard: m.shard(), Mono: m.n.Mono, AfterFunc: m.after, Logger: quiet,
		Calls: calls{m}, EpochStore: door, Store: m.store, Purge: m.purge, View: m.view, Sequencers: calls{m}})
	m.recovery = recovery.NewHost(cfg, recovery.Deps{Self: self, Mono: m.n.Mono, AfterFunc: m.after, Rand: m.n.Rand(), Logger: quiet,
		Calls: calls{m}, EpochStore: door, View: m.view})
	m.sequencer = sequencer.NewHost(m.c.sequencerConfig(), sequencer.Deps{Self: self, Incarnation: life, Mono: m.n.Mono, WallMs: m.wallMs, AfterFunc: m.after,
		Rand: m.n.Rand(), Logger: quiet, EpochStore: door, Stores: calls{m}, Recoverer: recoverer{m, m.recovery}, Cluster: m.gossip.View,
		Attributes: m.attributes, Fatal: m.die, Tasks: m.tasks})
	m.serve()
	m.watchReleases()
	m.gossip.Start()
	m.sequencer.Start()
	m.comparer.Start()
	m.gossip.SetStarting(false)
}

// memTableBytes is what every LSM has cleared, and hardly less than a run gives one before
// it is told to flush: what fills one is flushed behind the write that does.
const memTableBytes = 128 << 10

func (m *member) openStore() (err error) {
	k := m.w.Opt.Knob
	recovered := m.platter.replay()
	if recovered != nil {
		recovered.Corrupt = m.hurt.corrupt
	}
	m.store, err = store.Open(m.fs, "logs", store.Options{Shard: m.shard(), Journal: simJournal{m}, Stream: journal.StreamID(1), Recovered: recovered,
		Suspect: m.suspect, Incarnation: uint64(m.n.Life()), Mono: m.n.Mono, WallMs: m.wallMs, AfterFunc: m.after, Fatal: m.die,
		CacheBytes: 1 << 20, MemTableBytes: memTableBytes, RecordCacheBytes: k("cacheBytes"), PartitionBytes: k("partitionBytes"), PartitionTime: m.c.ms("partitionMs"),
		Attributes: m.attributes, Purge: m.purge, Tasks: m.tasks,
		NextEpoch: func(log logs.LogID, done func(logs.Epoch, error)) {
			epochDoor{m, m.c.epochs}.Read(log, func(r *wire.EpochRecord, err error) { done(logs.Epoch(r.GetMetadata().GetEpoch()), err) })
		},
		Compare: func(log logs.LogID, sealed logs.Epoch) {
			if m.comparer != nil {
				m.comparer.Compare(log, sealed)
			}
		},
		Doubted: func() {
			if m.comparer != nil {
				m.comparer.Start()
			}
		}})
	if err == nil && m.store.Suspect() {
		m.w.Sometimes("shard: in doubt")
	}
	if err == nil {
		m.remembers()
		m.suspect, m.hurt.corrupt = false, false // the store has written it down
	}
	return err
}

// recoverer is recovery as the sequencer sees it.
type recoverer struct {
	m    *member
	host *recovery.Host
}

// Recover makes earlier epochs clean.
func (r recoverer) Recover(a sequencer.RecoverArgs, done func(sequencer.RecoveryResult, error)) (cancel func()) {
	r.m.spy.recovers(a.Log, a.UpTo, a.Own)
	args := recovery.Args{Log: a.Log, UpTo: a.UpTo, Own: a.Own, Metadata: a.Metadata, Record: a.Record}
	return r.host.Recover(args, func(x recovery.Result, err error) {
		done(sequencer.RecoveryResult{Status: x.Status, Record: x.Record, Tail: x.Tail, CountBase: x.CountBase, PreemptedBy: x.PreemptedBy,
			SealEpoch: x.SealEpoch, Message: x.Message}, err)
	})
}

// view is the cluster as recovery sees it.
type view struct{ *logs.Cluster }

// Writable says whether a shard takes copies.
func (v view) Writable(s logs.ShardID) bool {
	n, ok := v.Node(s.Node())
	return ok && n.Alive && n.Storage && n.Writable
}

// Authority is what a shard's silence means, as internal/node has it.
func (v view) Authority(s logs.ShardID) placement.ShardState {
	if n, ok := v.Node(s.Node()); ok && n.Lost {
		return placement.ShardUnavailable
	}
	return placement.ShardUnheard
}

// Shards lists the storage nodes' shards.
func (v view) Shards() []logs.ShardID {
	var out []logs.ShardID
	for _, n := range v.Nodes {
		if n.Storage {
			out = append(out, logs.MakeShard(n.ID, 0))
		}
	}
	return out
}

func (m *member) clusterChanged() {
	if m.sequencer == nil {
		return
	}
	switch isolated := m.gossip.View().Isolated; {
	case !isolated:
		m.aloneAt = 0
	case m.aloneAt == 0:
		m.aloneAt = m.w.Now()
	}
	m.sequencer.ClusterChanged()
	m.recovery.ViewChanged()
	m.purger.ViewChanged()
	m.comparer.ViewChanged()
}

func (m *member) sendGossip(to catalog.NodeID, g *wire.Gossip) {
	if m.fatal != nil {
		return
	}
	p := m.c.members[to-1]
	if m.w.Opt.Knob("handOver") != 0 { // said to several and never changed: it is handed over
		size := g.SizeVT()
		m.w.Note(uint64(size))
		m.n.Send(int(to), "gossip", size, func() {
			if p.fatal == nil {
				p.gossip.Handle(g)
			}
		})
		return
	}
	raw := m.c.encode(g)
	m.n.Send(int(to), "gossip", len(raw), func() {
		in := new(wire.Gossip)
		if p.fatal == nil && m.c.decode(raw, in) {
			p.gossip.Handle(in)
		}
	})
}

// probe finds out whether a node's address refuses: it does if the machine is
// reached and the process is gone.
func (m *member) probe(node catalog.NodeID, refused func()) {
	p := m.c.members[node-1]
	m.n.After(m.w.Between(time.Millisecond, 10*time.Millisecond), "probe", func() {
		if !p.n.Alive() && m.w.Net.Reaches(m.n.ID, p.n.ID) && m.w.Net.Reaches(p.n.ID, m.n.ID) {
			refused()
		}
	})
}

// aloneLong is when all of a node knows that it sees no majority.
const aloneLong = time.Second

// append is the door of appends, with L2 on its way out, and L11.
func (m *member) append(req *wire.AppendRequest, reply func(*wire.AppendResponse)) {
	since := m.aloneAt
	alone := since != 0 && m.w.Now() > since+aloneLong
	if alone {
		m.w.Sometimes("append: to a node that sees no majority")
	}
	m.sequencer.Append(req, func(r *wire.AppendResponse) {
		if alone && r.Status == wire.LogStatus_LOG_STATUS_OK {
			m.w.Fail("node %d takes an append of log %d, and had seen no majority for %s", m.n.ID, req.Log, m.w.Now()-since)
		}
		m.spy.acknowledges(req, r)
		reply(r)
	})
}

// hear gives the node the newest catalog.
func (m *member) hear() {
	m.tree, m.nodes = m.c.tree, m.c.nodes
	if m.n.Alive() && m.sequencer != nil {
		m.gossip.NodesChanged()
		m.sequencer.LogsChanged()
	}
}

// die is the node's end after a fatal fault: the process exits a little later.
func (m *member) die(err error) {
	if m.fatal != nil {
		return
	}
	m.w.Sometimes("node: fatal fault")
	m.fatal = err
	m.n.After(m.w.Between(0, 5*time.Millisecond), "exit", func() {
		m.n.Crash("fatal: "+err.Error(), m.w.Between(100*time.Millisecond, 3*time.Second))
	})
}

// down ends the life: of the store's files stays what was synced.
func (m *member) down() {
	fs := m.fs.CrashClone(vfs.CrashCloneCfg{})
	m.close()
	m.fs = fs
}

func (m *member) close() {
	if m.store != nil {
		_ = m.store.Abandon() // its files are thrown away
		m.store, m.doors = nil, nil
	}
}
