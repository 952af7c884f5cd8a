package multiraft

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/wire"
)

// Host runs the groups of one node: one goroutine per loop, one apply worker
// per loop, one for the beats. It decides nothing; core and pairs do.
type Host struct {
	cfg      Config
	d        Deps
	metrics  Metrics
	pairs    *pairs
	loops    []*loop
	bytes    atomic.Int64 // of proposals that wait, on the whole node
	fatal    atomic.Bool
	hurry    chan struct{} // beat before it is time
	nextBeat func() bool   // calls the next beat off; of a host without goroutines
	skewLog  atomic.Int64  // when a refused clock was last logged, monotonic

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu struct {
		sync.RWMutex
		groups  map[catalog.GroupID]*Group
		started bool
		closed  bool
	}
	spools spools
}

// Group is the handle on one replica. It is safe for concurrent use.
type Group struct {
	host    *Host
	loop    *loop
	g       *group
	sm      StateMachine
	gate    gate
	bytes   atomic.Int64 // of proposals that wait
	isNew   bool
	isBlank bool
	damaged error
}

func (c Config) withDefaults() Config {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&c.Beat, 200*time.Millisecond)
	def(&c.Lease, time.Second)
	def(&c.PromisedBefore, c.Lease)
	def(&c.ElectionDelay, 150*time.Millisecond)
	def(&c.MaxSkew, 500*time.Millisecond)
	def(&c.StallMax, time.Second)
	def(&c.SuspectGrace, 10*time.Second)
	def(&c.TransferMax, 5*c.Beat)
	size := func(n *int64, v int64) {
		if *n == 0 {
			*n = v
		}
	}
	size(&c.LogBytesMax, 16<<20)
	size(&c.LogBytesTotal, 128<<20)
	size(&c.ProposalBytesMax, 16<<20)
	size(&c.ProposalBytesTotal, 64<<20)
	size(&c.ApplyBytesMax, 16<<20)
	count := func(n *int, v int) {
		if *n == 0 {
			*n = v
		}
	}
	count(&c.Loops, min(8, max(1, runtime.GOMAXPROCS(0)/2)))
	count(&c.EntryBytesMax, 4<<20)
	count(&c.MessageBytesMax, 64<<20)
	count(&c.WriteBytesMax, c.MessageBytesMax-messageRoom)
	count(&c.SnapshotsMax, 2)
	count(&c.SnapshotChunk, 1<<20)
	count(&c.SnapshotMemory, 64<<20)
	return c
}

// messageRoom is more than the batch, the envelope, raft's message and the
// entry's head add to a write that travels alone.
const messageRoom = 64 << 10

// check finds settings under which an entry would be committed nowhere: no
// message could carry it.
func (c *Config) check() error {
	switch {
	case c.WriteBytesMax > c.MessageBytesMax-messageRoom:
		return fmt.Errorf("multiraft: a write of %d bytes does not fit a message of %d", c.WriteBytesMax, c.MessageBytesMax)
	case c.EntryBytesMax > c.MessageBytesMax-messageRoom:
		return fmt.Errorf("multiraft: an entry of %d bytes does not fit a message of %d", c.EntryBytesMax, c.MessageBytesMax)
	case c.SnapshotChunk > min(c.MessageBytesMax-messageRoom, snapshotChunkMax):
		return fmt.Errorf("multiraft: a snapshot's chunk of %d bytes does not fit a message of %d", c.SnapshotChunk, c.MessageBytesMax)
	}
	return nil
}

// New makes a host. It runs after Start; groups may be created before. Settings
// that contradict each other are a programming error: New panics.
func New(cfg Config, d Deps) *Host {
	h := &Host{cfg: cfg.withDefaults(), d: d}
	if err := h.cfg.check(); err != nil {
		panic(err)
	}
	if h.d.Logger == nil {
		h.d.Logger = slog.New(slog.DiscardHandler)
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.mu.groups = make(map[catalog.GroupID]*Group)
	h.pairs = newPairs(&h.d, &h.cfg, &h.metrics)
	h.hurry = make(chan struct{}, 1)
	h.pairs.wake = func() {
		if h.d.Tasks != nil {
			if h.nextBeat != nil && h.nextBeat() {
				h.nextBeat = nil
				h.d.Tasks(h.beatTask)
			}
			return
		}
		select {
		case h.hurry <- struct{}{}:
		default:
		}
	}
	h.spools.streams = make(map[spoolKey]*inStream)
	for range h.cfg.Loops {
		dice := rand.New(rand.NewPCG(d.Rand.Uint64(), d.Rand.Uint64()))
		h.loops = append(h.loops, newLoop(h, newCore(&h.d, &h.cfg, h.pairs, &h.metrics, dice)))
	}
	return h
}

// Start begins to run.
func (h *Host) Start() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.started || h.mu.closed {
		return
	}
	h.mu.started = true
	if h.d.Tasks != nil {
		h.d.Tasks(h.beatTask)
		return
	}
	for _, l := range h.loops {
		h.wg.Add(2)
		go l.run()
		go l.applier.run(&h.wg)
	}
	h.wg.Add(1)
	go h.beat()
}

// Metrics are the host's counters.
func (h *Host) Metrics() *Metrics { return &h.metrics }

// ClockOutlier says that this node's clock disagrees with a majority of its
// peers, so that it refuses to serve.
func (h *Host) ClockOutlier() bool { return h.pairs.outlier.Load() }

// TimeAhead is how far the hybrid times that this node gives are ahead of its own
// clock, which was set back, where that is more than peers accept; otherwise 0. Peers
// whose clocks were not set back refuse this node until its clock is there, or until it
// starts anew: times that they refused bind nobody.
func (h *Host) TimeAhead() time.Duration {
	if ahead := h.d.Clock.Ahead(); ahead > h.cfg.MaxSkew {
		return ahead
	}
	return 0
}

// VotesFrom is when the last of the replicas that were recovered here votes again
// (M6), on Deps.Mono's clock. Until then this node is no help to a group that loses
// another of its nodes.
func (h *Host) VotesFrom() time.Duration { return time.Duration(h.pairs.votesFrom.Load()) }

// Create takes up a replica. A replica whose journal is damaged is created too:
// it says so in its Status, and nothing else.
func (h *Host) Create(gc GroupConfig) (*Group, error) {
	if gc.ID == 0 || gc.Replica == 0 || gc.SM == nil {
		return nil, fmt.Errorf("multiraft: group %d, replica %d: %w", gc.ID, gc.Replica, ErrBadChange)
	}
	g := &Group{host: h, loop: h.loopOf(gc.ID), sm: gc.SM, isNew: gc.New,
		isBlank: !gc.New && gc.Recovered == nil && gc.Applied.Index == 0}
	g.gate.self, g.gate.clock, g.gate.pairs = h.d.Node, h.d.Clock, h.pairs
	g.gate.mu.status.ID, g.gate.mu.status.Replica = gc.ID, gc.Replica
	inner, err := newGroup(g, &gc)
	if err != nil {
		if !errors.Is(err, errCorrupt) {
			return nil, fmt.Errorf("multiraft: group %d: %w", gc.ID, err)
		}
		g.damaged = err
		g.gate.mu.status.Corrupt = true
		h.d.Logger.Error("replica is damaged and will not take part", "group", uint64(gc.ID), "error", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.closed {
		return nil, ErrStopped
	}
	if h.mu.groups[gc.ID] != nil {
		return nil, fmt.Errorf("multiraft: group %d: %w", gc.ID, ErrGroupExists)
	}
	h.mu.groups[gc.ID] = g
	g.loop.post(event{kind: evCreate, group: inner})
	return g, nil
}

// Group finds a group, nil if it has no replica here.
func (h *Host) Group(id catalog.GroupID) *Group {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.mu.groups[id]
}

// Groups lists all groups, by id.
func (h *Host) Groups() []*Group {
	h.mu.RLock()
	out := make([]*Group, 0, len(h.mu.groups))
	for _, g := range h.mu.groups {
		out = append(out, g)
	}
	h.mu.RUnlock()
	slices.SortFunc(out, func(a, b *Group) int { return int(int64(a.g.id) - int64(b.g.id)) })
	return out
}

// Remove ends a replica, forgets its log and destroys its state machine. It
// returns when both are gone for good: the next replica of the group here may be
// made, and will not find the log of this one after a crash.
func (h *Host) Remove(id catalog.GroupID) error {
	done := make(chan error, 1)
	h.RemoveThen(id, func(err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-h.ctx.Done():
		return ErrStopped
	}
}

// RemoveThen is Remove for callers that do not wait. A host that ends before may
// not call done.
func (h *Host) RemoveThen(id catalog.GroupID, done func(error)) {
	h.mu.Lock()
	g := h.mu.groups[id]
	delete(h.mu.groups, id)
	h.mu.Unlock()
	if g == nil {
		done(nil)
		return
	}
	g.loop.applier.onDestroyed(g.g, done)
	g.loop.post(event{kind: evRemove, group: g.g})
}

// Drain hands every leadership over and waits until none is left that another
// voter could have. From then on this node seeks none.
func (h *Host) Drain(ctx context.Context) error {
	for _, l := range h.loops {
		l.post(event{kind: evDrain})
	}
	for {
		left := make(chan int, len(h.loops))
		for _, l := range h.loops {
			l.post(event{kind: evCall, call: func(c *core) { left <- c.leads() }})
		}
		sum := 0
		for range h.loops {
			select {
			case n := <-left:
				sum += n
			case <-ctx.Done():
				return ctx.Err()
			case <-h.ctx.Done():
				return ErrStopped
			}
		}
		if sum == 0 {
			return nil
		}
		tick := make(chan struct{})
		stop := h.d.Timer.AfterFunc(h.cfg.Beat/4, func() { close(tick) })
		select {
		case <-tick:
		case <-ctx.Done():
			stop()
			return ctx.Err()
		}
		for _, l := range h.loops {
			l.post(event{kind: evDrain}) // those that found no successor before
		}
	}
}

// Close stops serving, gives peers their promises back, and waits for every
// goroutine of the host. Proposals that still wait get ErrUnknownOutcome.
func (h *Host) Close() {
	h.mu.Lock()
	if h.mu.closed {
		h.mu.Unlock()
		return
	}
	h.mu.closed = true
	started := h.mu.started
	groups := make([]*Group, 0, len(h.mu.groups))
	for _, g := range h.mu.groups {
		groups = append(groups, g)
	}
	h.mu.Unlock()
	for _, g := range groups {
		g.gate.stop()
	}
	if !h.fatal.Load() {
		for _, b := range h.pairs.releases() {
			h.d.Transport.SendBeat(b.to, b.beat)
		}
	}
	h.cancel()
	for _, l := range h.loops {
		l.close(started)
	}
	h.spools.close()
	h.wg.Wait()
}

// loopOf spreads groups over loops.
func (h *Host) loopOf(id catalog.GroupID) *loop {
	x := uint64(id) * 0x9e3779b97f4a7c15
	return h.loops[(x>>32)%uint64(len(h.loops))]
}

// fail ends all work: nothing is acknowledged after.
func (h *Host) fail(err error) {
	if h.fatal.CompareAndSwap(false, true) {
		h.d.Logger.Error("fatal", "error", err)
		if h.d.Fatal != nil {
			h.d.Fatal(err)
		}
	}
}

// HandleBatch takes what a peer's loops have to say. It may be called from many
// goroutines and does not block. The batch belongs to the host from here on.
func (h *Host) HandleBatch(b *wire.RaftBatch) {
	from := catalog.NodeID(b.FromNode)
	if catalog.NodeID(b.ToNode) != h.d.Node || from == h.d.Node || from == 0 || h.fatal.Load() {
		return
	}
	if err := h.d.Clock.Update(hlc.Timestamp(b.HybridTime)); err != nil {
		h.metrics.SkewRefused.Add(1)
		h.logSkew(from, err)
		return
	}
	if !h.pairs.admit(from, b.Incarnation) {
		return // a life that is over
	}
	in := make([]*inBatch, len(h.loops))
	for _, env := range b.Envelopes {
		var m *pb.Message
		if len(env.Raft) > 0 {
			m = &pb.Message{}
			if err := proto.Unmarshal(env.Raft, m); err != nil {
				h.metrics.Strays.Add(1)
				continue
			}
		}
		l := h.loopOf(catalog.GroupID(env.Group))
		if in[l.index] == nil {
			in[l.index] = &inBatch{from: from, inc: b.Incarnation, msgs: make([]inMessage, 0, len(b.Envelopes))}
		}
		in[l.index].msgs = append(in[l.index].msgs, inMessage{env: env, msg: m})
		in[l.index].bytes += int64(len(env.Raft)) + 128
	}
	for i, b := range in {
		if b != nil {
			h.loops[i].postBatch(b)
		}
	}
}

// HandleBeat takes a peer's beat and answers it at once: no loop stands between
// a peer and its lease.
func (h *Host) HandleBeat(b *wire.Beat) {
	if h.fatal.Load() {
		return
	}
	answer, ok := h.pairs.hear(h.d.Mono(), b)
	if answer != nil {
		h.d.Transport.SendBeat(catalog.NodeID(b.FromNode), answer)
		if answer.Skewed {
			h.logSkew(catalog.NodeID(b.FromNode), &hlc.SkewError{Remote: hlc.Timestamp(b.HybridTime), Allowed: h.cfg.MaxSkew})
		}
	}
	if !ok {
		return
	}
	if b.Releases {
		for _, l := range h.loops {
			l.post(event{kind: evSweep})
		}
	}
	if len(b.Groups) == 0 {
		return
	}
	in := make([]*inBatch, len(h.loops))
	for _, gb := range b.Groups {
		l := h.loopOf(catalog.GroupID(gb.Group))
		if in[l.index] == nil {
			in[l.index] = &inBatch{from: catalog.NodeID(b.FromNode), inc: b.Incarnation}
		}
		in[l.index].beats = append(in[l.index].beats, gb)
	}
	for i, b := range in {
		if b != nil {
			h.loops[i].post(event{kind: evBeats, batch: b})
		}
	}
}

// logSkew says at most once in ten seconds that a peer's clock was refused.
func (h *Host) logSkew(from catalog.NodeID, err error) {
	now, last := int64(h.d.Mono()), h.skewLog.Load()
	if last != 0 && now-last < int64(10*time.Second) || !h.skewLog.CompareAndSwap(last, max(now, 1)) {
		return
	}
	h.d.Logger.Warn("refused a peer because of its clock", "peer", uint64(from), "error", err)
}

// HandleTailQuery answers a peer whose journal ended in a suspect tail. reply is
// called once, from any goroutine.
func (h *Host) HandleTailQuery(q *wire.TailQuery, reply func(*wire.TailAnswer)) {
	states := make(chan *wire.TailState, len(q.Groups))
	left := atomic.Int64{}
	left.Store(int64(len(q.Groups)))
	finish := func(s *wire.TailState) {
		states <- s
		if left.Add(-1) == 0 {
			close(states)
			a := &wire.TailAnswer{}
			for s := range states {
				a.Groups = append(a.Groups, s)
			}
			reply(a)
		}
	}
	if len(q.Groups) == 0 {
		reply(&wire.TailAnswer{})
		return
	}
	for _, s := range q.Groups {
		h.loopOf(catalog.GroupID(s.Group)).post(event{kind: evAsked,
			tail: &tailEvent{from: catalog.NodeID(q.FromNode), state: s, reply: finish}})
	}
}

// beat asks every peer for its promise, once per beat, and lets the loops do
// what is due. A loop that does not come back for too long silences the node:
// its promises lapse and others take over.
func (h *Host) beat() {
	defer h.wg.Done()
	for {
		due := make(chan struct{})
		stop := h.d.Timer.AfterFunc(h.cfg.Beat, func() { close(due) })
		h.sendBeats()
		select {
		case <-due:
		case <-h.hurry:
			stop()
		case <-h.ctx.Done():
			stop()
			return
		}
	}
}

// beatTask is a beat of a host that has no goroutines.
func (h *Host) beatTask() {
	if h.ctx.Err() == nil {
		h.nextBeat = h.d.Timer.AfterFunc(h.cfg.Beat, h.beatTask)
		h.sendBeats()
	}
}

func (h *Host) sendBeats() {
	now := h.d.Mono()
	stuck := false
	for _, l := range h.loops {
		if at := l.beatPending.Load(); at == 0 {
			l.beatPending.Store(int64(max(now, 1)))
			l.post(event{kind: evBeat})
		} else if now-time.Duration(at) > h.cfg.StallMax {
			stuck = true
		}
	}
	if stuck || h.fatal.Load() {
		return
	}
	for _, b := range h.pairs.beats(h.d.Mono()) {
		h.d.Transport.SendBeat(b.to, b.beat)
	}
}

// Propose asks for a write to be replicated. It never blocks; Done is called
// once, maybe before Propose returns.
func (g *Group) Propose(p *Proposal) {
	n := int64(len(p.Data)) + 64
	if err := g.admit(n); err != nil {
		p.Done(ProposalResult{Err: err})
		return
	}
	p.group = g
	if p.Wait > 0 {
		p.expires = max(1, g.host.d.Mono()+p.Wait)
	}
	g.loop.post(event{kind: evPropose, proposal: p})
}

// admit refuses what can be refused without the loop: here the caller's own
// goroutine pays, and nothing queues. Whatever its size, a write is let in where
// nothing else waits: it could never come in otherwise.
func (g *Group) admit(n int64) error {
	h := g.host
	if n > int64(h.cfg.WriteBytesMax) {
		return ErrTooLarge
	}
	if err := g.gate.leadingNow(h.d.Mono()); err != nil {
		return err
	}
	if h.d.Journal.Full() {
		return ErrDiskFull
	}
	own, all := g.bytes.Add(n), h.bytes.Add(n)
	if own > n && own > h.cfg.ProposalBytesMax || all > n && all > h.cfg.ProposalBytesTotal {
		g.bytes.Add(-n)
		h.bytes.Add(-n)
		h.metrics.Overloaded.Add(1)
		return ErrOverloaded
	}
	return nil
}

// finish answers a proposal and frees what it was counted with.
func (h *Host) finish(p *Proposal, r ProposalResult) {
	n := int64(len(p.Data)) + 64
	if p.group != nil {
		p.group.bytes.Add(-n)
	}
	h.bytes.Add(-n)
	p.Done(r)
}

// ReadTime fixes a safe time and returns it: what was acknowledged is at or
// below it, and no later write will be.
func (g *Group) ReadTime() (hlc.Timestamp, error) { return g.gate.readTime(g.host.d.Mono()) }

// Leading says whether ReadTime would succeed, without fixing a time.
func (g *Group) Leading() error { return g.gate.leadingNow(g.host.d.Mono()) }

// ID is the group's id.
func (g *Group) ID() catalog.GroupID { return g.g.id }

// Status is what is known of the replica, as of the loop's last look at it.
func (g *Group) Status() Status {
	now := g.host.d.Mono()
	lease := g.gate.lease(now)
	g.gate.mu.Lock()
	defer g.gate.mu.Unlock()
	s := g.gate.mu.status
	if s.LeaseRemaining = lease - now; lease == 0 || s.LeaseRemaining < 0 {
		s.LeaseRemaining = 0
	}
	return s
}

// Carries is the bound on times that a vote of this replica would carry now, to the
// leader that it stands by as to anybody: at least what it acknowledged to others (M7).
// It is the loop's to know, so it is for hosts with Deps.Tasks alone.
func (g *Group) Carries() hlc.Timestamp { return max(g.g.floor, g.gate.highest()) }

// TransferLeader hands leadership to a replica; 0 lets the group choose. It
// returns at once; Status tells when it has happened.
func (g *Group) TransferLeader(to catalog.ReplicaID) {
	g.loop.post(event{kind: evTransfer, group: g.g, replica: to})
}

// ChangeMembers makes one change of the configuration and returns when it is
// applied here. It must be called where the group is led.
func (g *Group) ChangeMembers(ctx context.Context, ch Change) error {
	within := time.Duration(0)
	if at, ok := ctx.Deadline(); ok {
		within = time.Until(at)
	}
	done := make(chan error, 1)
	r := g.change(ch, within, func(err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		// A promotion that waits for its learner waits no more. What is in the
		// log already goes its way.
		g.loop.post(event{kind: evCall, call: func(c *core) { c.cancelChange(g.g, r) }})
		return ctx.Err()
	case <-g.host.ctx.Done():
		return ErrStopped
	}
}

// ChangeThen is ChangeMembers for callers that do not wait. A promotion waits at
// most so long for its learner; zero: for ever.
func (g *Group) ChangeThen(ch Change, within time.Duration, done func(error)) {
	g.change(ch, within, done)
}

func (g *Group) change(ch Change, within time.Duration, done func(error)) *changeRequest {
	r := &changeRequest{change: ch, done: done}
	if within != 0 {
		r.deadline = g.host.d.Mono() + within
	}
	g.loop.post(event{kind: evChange, group: g.g, change: r})
	return r
}

// FlushedTo says that the state machine has everything up to index durably:
// the journal may forget it.
func (g *Group) FlushedTo(index uint64) {
	g.loop.post(event{kind: evFlushed, group: g.g, index: index})
}
