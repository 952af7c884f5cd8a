package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/gossip"
	"github.com/braiddb/braid/internal/journal"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/logs/epochstore"
	"github.com/braiddb/braid/internal/logs/recovery"
	"github.com/braiddb/braid/internal/logs/sequencer"
	"github.com/braiddb/braid/internal/logs/store"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// logWing is a node's part in logs: who lives (gossip), the copies kept here
// (store, nil without the storage role), the logs numbered here (sequencer, nil
// without that role) and the recovery of what others numbered before.
//
//	append ─▶ sequencer ─▶ logCalls ─▶ store here, or rpc ─▶ store there
//	            │  └─ earlier epochs ─▶ recovery ─▶ logCalls
//	            └─ epochs ─▶ epoch store (a table of tablets, through the client)
type logWing struct {
	gossip      *gossip.Host
	prober      *gossip.Prober
	epochs      sequencer.EpochStore
	closeEpochs func()
	store       *store.Store
	purger      *recovery.Purger
	comparer    *recovery.Comparer
	recovery    *recovery.Host
	mutations   *recoveryStores
	sequencer   *sequencer.Host
}

// logStream is the journal's stream of the node's log shard: the high bit is
// theirs, the rest is the shard's index.
const logStream journal.StreamID = 1 << 63

// shard is the node's storage directory for logs.
func (n *Node) shard() logs.ShardID { return logs.MakeShard(n.id.Node, 0) }

// openLogs makes the machines of the log wing. They begin to work with
// startLogs, once the doors are open.
func (n *Node) openLogs(replay *journal.Replay) error {
	w := &n.logs
	w.mutations = &recoveryStores{n: n, waiting: map[uint64]*recoveryStore{}}
	w.prober = gossip.NewProber(n.gate.Dial, n.addresses.rpc, probeTime)
	w.gossip = gossip.NewHost(n.cfg.gossip(), gossip.Deps{
		Self: n.id.Node, Incarnation: n.incarnation, Mono: n.deps.Mono, AfterFunc: n.deps.AfterFunc, Rand: n.dice(),
		Send: n.sendGossip, Probe: w.prober.Probe, Nodes: n.addresses.all, OnChange: n.clusterChanged,
	})
	if n.descriptor().Has(catalog.RoleStorage) {
		if err := n.openLogStore(replay); err != nil {
			return fmt.Errorf("open the logs: %w", err)
		}
	}
	if n.descriptor().Has(catalog.RoleSequencer) {
		w.recovery = recovery.NewHost(recovery.Config{}, recovery.Deps{
			Self: n.id.Node, Mono: n.deps.Mono, AfterFunc: n.deps.AfterFunc, Rand: n.dice(), Logger: n.log,
			Calls: logCalls{n}, EpochStore: lateEpochs{n}, View: n.logView,
		})
		w.sequencer = sequencer.NewHost(sequencer.Config{AppenderBytes: n.cfg.Memory / appenderShare, MissingWait: missingWait}, sequencer.Deps{
			Self: n.id.Node, Incarnation: n.incarnation, Mono: n.deps.Mono, WallMs: n.wallMs, AfterFunc: n.deps.AfterFunc, Rand: n.dice(),
			Logger: n.log, EpochStore: lateEpochs{n}, Stores: logCalls{n}, Recoverer: recoverer{w.recovery}, Cluster: w.gossip.View,
			Attributes: n.logAttributes, Fatal: n.fatal,
		})
	}
	n.openLogDoors()
	return nil
}

// openLogStore opens the copies that are kept here.
func (n *Node) openLogStore(replay *journal.Replay) error {
	fs, dir := n.deps.FS, n.deps.FS.PathJoin(n.cfg.Data, "logs")
	if err := makeDurably(fs, dir); err != nil {
		return err
	}
	memory := n.cfg.Memory
	s, err := store.Open(fs, dir, store.Options{
		Shard: n.shard(), Journal: n.journal, Stream: logStream, Recovered: replay.Streams[logStream], Suspect: replay.Suspect,
		Incarnation: n.incarnation, Mono: n.deps.Mono, WallMs: n.wallMs, AfterFunc: n.deps.AfterFunc, Logger: n.log, Fatal: n.fatal,
		CacheBytes: memory / logCacheShare, MemTableBytes: min(memory/logTableShare, 64<<20), RecordCacheBytes: memory / logCacheShare, QueueBytes: max(memory/requestShare, 16<<20),
		Attributes: n.keptAttributes, Free: n.diskFree, Purge: n.purge, NextEpoch: n.nextEpoch, Compare: n.compareLog, Doubted: n.doubted,
	})
	if err != nil {
		return err
	}
	n.logs.store = s
	n.logs.purger = recovery.NewPurger(recovery.Config{}, recovery.PurgerDeps{
		Self: n.id.Node, Shard: n.shard(), Mono: n.deps.Mono, AfterFunc: n.deps.AfterFunc, Logger: n.log, Calls: logCalls{n}, Store: s, View: n.logView,
	})
	n.logs.comparer = recovery.NewComparer(recovery.Config{}, recovery.ComparerDeps{
		Self: n.id.Node, Shard: n.shard(), Mono: n.deps.Mono, AfterFunc: n.deps.AfterFunc, Logger: n.log, Calls: logCalls{n},
		EpochStore: lateEpochs{n}, Store: s, Purge: n.purge, View: n.logView, Sequencers: logCalls{n},
	})
	return nil
}

func (n *Node) wallMs() int64 { return n.deps.Micros() / 1000 }

func (n *Node) logView() recovery.View { return logView{n.logs.gossip.View()} }

// logAttributes are a log's attributes by the newest catalog.
func (n *Node) logAttributes(log logs.LogID) (*catalog.LogAttributes, bool) {
	return n.index.Load().Logs().Attributes(uint64(log))
}

// keptAttributes is logAttributes for retention, which must not take a log for
// removed because this node has not heard of any catalog yet.
func (n *Node) keptAttributes(log logs.LogID) (*catalog.LogAttributes, bool) {
	if n.index.Load().Version() == 0 {
		return nil, true
	}
	return n.logAttributes(log)
}

func (n *Node) diskFree() (free, total int64, err error) {
	u, err := n.deps.FS.GetDiskUsage(n.cfg.Data)
	return int64(u.AvailBytes), int64(u.TotalBytes), err
}

// purge is asked for by the store: recovery has decided, while this node was
// away, what is between its last clean epoch and a release. One that comes while
// the node starts is begun as soon as it has.
func (n *Node) purge(log logs.LogID, lce logs.Epoch, release logs.LSN) {
	switch {
	case n.opened.Load():
		n.logs.purger.Purge(log, lce, release)
	case n.ctx.Err() == nil:
		n.deps.AfterFunc(purgeLater, func() { n.purge(log, lce, release) })
	}
}

// compareLog is asked for by the store: it may have lost copies of a log, and
// others are to tell. What comes while the node starts is asked for again.
func (n *Node) compareLog(log logs.LogID, sealed logs.Epoch) {
	if n.opened.Load() && n.index.Load().Version() > 0 {
		n.logs.comparer.Compare(log, sealed)
	}
}

// doubted is told by the store that it has come to doubt what it has.
func (n *Node) doubted() {
	switch {
	case n.opened.Load():
		n.deps.AfterFunc(0, n.startComparing) // it waits for the store
	case n.ctx.Err() == nil:
		n.deps.AfterFunc(purgeLater, n.doubted)
	}
}

// startComparing ends what doubt there is, as soon as it is known who is there.
func (n *Node) startComparing() {
	switch {
	case n.logs.comparer == nil || n.ctx.Err() != nil:
	case n.index.Load().Version() == 0:
		n.deps.AfterFunc(purgeLater, n.startComparing)
	default:
		n.logs.comparer.Start()
	}
}

const purgeLater = 200 * time.Millisecond

// nextEpoch asks the epoch store which epoch of a log is given out next.
func (n *Node) nextEpoch(log logs.LogID, done func(logs.Epoch, error)) {
	lateEpochs{n}.Read(log, func(r *wire.EpochRecord, err error) {
		if err != nil {
			done(0, err)
			return
		}
		done(logs.Epoch(r.GetMetadata().GetEpoch()), nil)
	})
}

// errEpochsLater says that the epoch store cannot be reached yet.
var errEpochsLater = errors.New("the node is starting: the epoch store is not open yet")

// lateEpochs is the epoch store, which is a customer of the client and so opens
// after it.
type lateEpochs struct{ n *Node }

// Read gives a log's record.
func (e lateEpochs) Read(log logs.LogID, done func(*wire.EpochRecord, error)) {
	if !e.n.opened.Load() || e.n.logs.epochs == nil {
		done(nil, errEpochsLater)
		return
	}
	if err := e.n.rightEpochs(); err != nil {
		done(nil, err)
		return
	}
	e.n.logs.epochs.Read(log, done)
}

// CompareAndSet replaces it.
func (e lateEpochs) CompareAndSet(log logs.LogID, expect uint64, next *wire.EpochRecord, done func(error)) {
	if !e.n.opened.Load() || e.n.logs.epochs == nil {
		done(errEpochsLater)
		return
	}
	if err := e.n.rightEpochs(); err != nil {
		done(err)
		return
	}
	e.n.logs.epochs.CompareAndSet(log, expect, next, done)
}

// openEpochs opens the epoch store, over the client or on ZooKeeper.
func (n *Node) openEpochs() error {
	if n.cfg.EpochStore == "" || n.cfg.EpochStore == epochStoreTable {
		s := epochstore.NewTable(n.client)
		n.logs.epochs, n.logs.closeEpochs = s, s.Close
		return nil
	}
	servers, root, err := epochstore.ParseZooKeeper(n.cfg.EpochStore)
	if err != nil {
		return err
	}
	s, err := epochstore.OpenZooKeeper(epochstore.ZooKeeperOptions{Servers: servers, Root: root, Cluster: n.clusterID(), Logger: n.log})
	if err != nil {
		return err
	}
	n.logs.epochs, n.logs.closeEpochs = s, s.Close
	return nil
}

// startLogs lets the machines work.
func (n *Node) startLogs(context.Context) error {
	n.logs.gossip.Start()
	if n.logs.sequencer != nil {
		n.logs.sequencer.Start()
	}
	n.startComparing()
	n.logs.gossip.SetStarting(false)
	return nil
}

// clusterChanged is told of every new view of who lives.
func (n *Node) clusterChanged() {
	if n.logs.sequencer != nil {
		n.logs.sequencer.ClusterChanged()
		n.logs.recovery.ViewChanged()
	}
	if n.logs.purger != nil {
		n.logs.purger.ViewChanged()
		n.logs.comparer.ViewChanged()
	}
}

// logsChanged is told of every new catalog.
func (n *Node) logsChanged() {
	n.logs.gossip.NodesChanged()
	if n.logs.sequencer != nil {
		n.logs.sequencer.LogsChanged()
	}
}

// drainLogs lets the others take over the logs that are numbered here.
func (n *Node) drainLogs(ctx context.Context) {
	n.logs.gossip.FailOver()
	if n.logs.sequencer == nil {
		return
	}
	if err := n.logs.sequencer.Drain(ctx); err != nil {
		n.log.Info("not every append was answered before the stop", "error", err)
	}
}

// closeLogs stops the machines, those first that others work for.
func (n *Node) closeLogs() {
	w := &n.logs
	if w.gossip != nil {
		w.gossip.Close()
		w.prober.Close()
	}
	if w.sequencer != nil {
		w.sequencer.Close()
		w.recovery.Close()
	}
	if w.purger != nil {
		w.purger.Close()
		w.comparer.Close()
	}
	if w.closeEpochs != nil {
		w.closeEpochs()
	}
}

func (n *Node) sendGossip(node catalog.NodeID, m *wire.Gossip) {
	if n.dead.Load() {
		return
	}
	if addr := n.addresses.rpc(node); addr != "" {
		n.pool.To(addr).Send(rpc.MethodGossip, m)
	}
}

func (n *Node) clusterState(_ *wire.ClusterStateRequest, reply func(*wire.ClusterStateResponse)) {
	reply(n.logs.gossip.ClusterState())
}

// sendStored answers copies to the node that sent them.
func (n *Node) sendStored(to uint64, b *wire.LogBatch) {
	if n.dead.Load() {
		return
	}
	b.FromNode, b.ToNode, b.Incarnation = uint64(n.id.Node), to, n.incarnation
	if addr := n.addresses.rpc(catalog.NodeID(to)); addr != "" {
		n.pool.To(addr).Send(rpc.MethodLogBatch, b)
	}
}

// missingWait is how long an append waits for nodes that are down before its client
// is told which; clients wait 1.5 s for an answer, and send it again.
const missingWait = 1200 * time.Millisecond

// probeTime bounds how long it is looked whether a silent node's address refuses.
const probeTime = 500 * time.Millisecond
