package node

import (
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/braiddb/braid/internal/journal"
	"github.com/braiddb/braid/internal/multiraft"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/tables/docdb"
)

// Shares of Config.Memory. What is always in use, caches and memtables, of which
// three may exist, is two thirds. The queues are bounds that nothing is set aside
// for: all full at once, which takes every kind of load, they would be as much again.
const (
	cacheShare    = 4  // a quarter: blocks of the LSM of documents
	memtableShare = 16 // each of its memtables, 64 MiB at most
	logCacheShare = 16 // blocks of logs, and as much again for their newest records
	logTableShare = 32 // each memtable of logs, 64 MiB at most

	raftShare     = 16 // entries kept for slow followers, and as much again for proposals
	appenderShare = 8  // appends that are being stored
	requestShare  = 32 // requests under way, of clients and again of nodes and of Redis; copies on their way to the disk
	redisShare    = 16 // what Redis clients have sent in part, and as much again that they leave unread
	restShare     = 8  // bodies of REST requests
)

// clientsLeast is what Redis clients may have sent in part, or leave unread, and
// what REST clients may have sent, however little memory there is: a value of the
// largest size on its way does not turn everybody else away.
const clientsLeast = 64 << 20

// openStorage opens the LSM and the journal, and every replica that is here.
func (n *Node) openStorage(context.Context) error {
	fs, dir := n.deps.FS, n.cfg.Data
	for _, room := range []string{"docs", "journal"} {
		if err := makeDurably(fs, fs.PathJoin(dir, room)); err != nil {
			return err
		}
	}
	var err error
	n.engine, err = docdb.OpenEngine(fs, fs.PathJoin(dir, "docs"), docdb.EngineOptions{
		CacheBytes: n.cfg.Memory / cacheShare, MemTableBytes: min(uint64(n.cfg.Memory/memtableShare), 64<<20),
		Logger: n.log, Fatal: n.fatal, OnFlush: n.wakeFlusher,
	})
	if err != nil {
		return fmt.Errorf("open the LSM: %w", err)
	}
	identity := journal.Identity{Node: uint64(n.id.Node), Incarnation: n.id.Incarnation}
	if b, err := hex.DecodeString(n.id.Cluster); err != nil || len(b) != len(identity.Cluster) {
		return fmt.Errorf("cluster id %q is not 32 hex digits", n.id.Cluster)
	} else {
		copy(identity.Cluster[:], b)
	}
	const standard = 16 << 20
	segment := n.deps.JournalSegment
	if segment == 0 {
		segment = standard
	}
	j, replay, err := journal.Open(fs, fs.PathJoin(dir, "journal"), identity, journalClock{n.deps}, journal.Options{
		SegmentBytes: segment, SegmentsMax: int(n.cfg.JournalBytes / standard), ReserveBytes: 256 << 20,
		Logger: n.log, OnPressure: n.relieve, Fatal: n.fatal,
	})
	if err != nil {
		return fmt.Errorf("open the journal: %w", err)
	}
	n.journal = j
	if replay.Suspect {
		n.log.Warn("the journal ended in a suspect tail; replicas ask their peers before they vote")
		n.suspect.Store(true)
	}
	for _, c := range replay.Corrupt {
		n.log.Error("the journal is damaged; the replicas concerned are replaced", "corruption", c)
	}
	spools, err := multiraft.DirSpools(fs, fs.PathJoin(dir, "incoming"))
	if err != nil {
		return fmt.Errorf("snapshots that arrive: %w", err)
	}
	n.host = multiraft.New(n.raftConfig(replay.Suspect), multiraft.Deps{
		Node: n.id.Node, Incarnation: n.id.Incarnation, Clock: n.clock, Mono: n.deps.Mono, Timer: journalClock{n.deps},
		Journal: n.journal, Transport: &raftTransport{n.pool, n.addresses, n.dead.Load}, Rand: n.dice(), Logger: n.log, Fatal: n.fatal,
		Spool: spools,
	})
	n.machine = &masterMachine{node: n}
	if err := n.openReplicas(replay.Streams); err != nil {
		return err
	}
	if err := n.openLogs(replay); err != nil {
		return err
	}
	n.host.Start()
	return nil
}

func (n *Node) raftConfig(suspect bool) multiraft.Config {
	return multiraft.Config{
		// What was promised before this start was promised under the longest lease
		// that any life of this directory has used.
		Lease: n.cfg.Lease, PromisedBefore: max(n.cfg.Lease, time.Duration(n.id.LeaseMax)*time.Microsecond),
		Beat: n.cfg.Beat, ElectionDelay: n.cfg.ElectionDelay, MaxSkew: n.cfg.MaxSkew, Suspect: suspect,
		LogBytesTotal: n.cfg.Memory / raftShare, ProposalBytesTotal: n.cfg.Memory / raftShare,
		MessageBytesMax: rpc.MaxMessage,
	}
}

// dice gives a room dice of its own, rolled from the node's.
func (n *Node) dice() *rand.Rand {
	return rand.New(rand.NewPCG(n.deps.Rand.Uint64(), n.deps.Rand.Uint64()))
}

// journalClock is the node's timers as the journal and multiraft see them.
type journalClock struct{ deps Deps }

// AfterFunc calls f once d has passed.
func (c journalClock) AfterFunc(d time.Duration, f func()) func() bool { return c.deps.AfterFunc(d, f) }

// wakeFlusher is told of every flush of the LSM. It does not block.
func (n *Node) wakeFlusher() {
	select {
	case n.flushed <- struct{}{}:
	default:
	}
}

// relieve is told which streams pin the journal's oldest segments.
func (n *Node) relieve(pinned []journal.StreamID) {
	if slices.Contains(pinned, logStream) && n.logs.store != nil {
		n.logs.store.Pressure()
	}
	n.flushLSM()
}

// flushLSM starts a flush, so that the journal can let go of what the LSM holds.
func (n *Node) flushLSM() {
	if n.dead.Load() {
		return
	}
	if err := n.engine.AsyncFlush(); err != nil {
		n.log.Warn("flush of the LSM", "error", err)
	}
}

// trustJournal ends the doubt about a suspect tail once every replica has
// compared its end with its peers'.
func (n *Node) trustJournal() {
	if !n.suspect.Load() {
		return
	}
	for _, g := range n.host.Groups() {
		if g.Status().Suspect {
			return
		}
	}
	n.suspect.Store(false)
	n.journal.Trust()
	n.log.Info("the suspect tail is cleared: no replica misses anything that its peers know of")
}

// flusher tells every group how far the LSM has durably come, after each flush,
// so that logs and journal are cut there.
func (n *Node) flusher() {
	for {
		select {
		case <-n.flushed:
		case <-n.ctx.Done():
			return
		}
		n.eachHosted(func(h *hosted) {
			if err := h.Flushed(); err != nil {
				n.log.Error("read back what is flushed", "tablet", h.ID(), "error", err)
			}
		})
		if err := n.machine.flushed(); err != nil {
			n.log.Error("read back what is flushed of the catalog", "error", err)
		}
	}
}
