package multiraft

import (
	"bytes"
	"container/heap"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/journal"
	"github.com/braiddb/braid/internal/wire"
)

var (
	simSeeds = flag.Int("multiraft.seeds", 100, "how many seeds the simulator runs")
	simSeed  = flag.Uint64("multiraft.seed", 0, "run this seed alone, with a trace")
)

// TestSimulation runs cores, and nothing but cores, in a world that loses,
// delays, doubles and reorders messages, cuts links, stops and crashes nodes
// with what they had not synced, and moves their clocks apart; and checks after
// every event what doc.go promises.
func TestSimulation(t *testing.T) {
	if *simSeed != 0 {
		if err := runSim(*simSeed, t.Logf); err != nil {
			t.Fatal(err)
		}
		return
	}
	elected, acked, crashes, reads := 0, 0, 0, 0
	for seed := uint64(1); seed <= uint64(*simSeeds); seed++ {
		w := newWorld(seed, nil)
		if err := w.run(); err != nil {
			t.Fatalf("seed %d: %v\nreplay: go test ./internal/multiraft -run TestSimulation -multiraft.seed=%d -v", seed, err, seed)
		}
		elected += int(w.metrics.Elected.Load())
		acked, crashes, reads = acked+w.acks, crashes+w.crashes, reads+w.goodReads
	}
	t.Logf("%d seeds: %d elections won, %d writes acknowledged, %d crashes, %d reads", *simSeeds, elected, acked, crashes, reads)
	if acked < 50**simSeeds || reads < 50**simSeeds || crashes < *simSeeds {
		t.Fatalf("the world is too quiet: %d acknowledged, %d reads, %d crashes", acked, reads, crashes)
	}
}

func runSim(seed uint64, trace func(string, ...any)) error { return newWorld(seed, trace).run() }

const (
	simTime  = 40 * time.Second // of trouble
	simCalm  = 25 * time.Second // after it, to come together again
	simNodes = 4
	simEpoch = int64(1_700_000_000_000_000)
)

var simConfig = Config{Suspect: false, SuspectGrace: 15 * time.Second}.withDefaults()

type world struct {
	seed    uint64
	dice    *rand.Rand
	trace   func(string, ...any)
	now     time.Duration
	queue   simQueue
	order   uint64
	nodes   []*simNode
	cut     map[[2]catalog.NodeID]bool
	groups  map[catalog.GroupID]*simGroup
	ids     []catalog.GroupID
	metrics Metrics
	calm    bool
	err     error

	acks, crashes, goodReads int
	nextReplica              catalog.ReplicaID
}

// simGroup is what is known of a group from outside.
type simGroup struct {
	id      catalog.GroupID
	entries map[uint64]*simEntry // applied anywhere, by index
	reads   []simRead
	ackedAt uint64 // highest index acknowledged
	ackedHT hlc.Timestamp
	noted   map[string]string // proposal -> outcome
	where   map[string]uint64 // proposal -> index where it was applied
	next    int
}

type simEntry struct {
	term uint64
	ht   hlc.Timestamp
	data []byte
}

type simRead struct {
	applied uint64
	at      hlc.Timestamp
}

type simEvent struct {
	at    time.Duration
	order uint64
	f     func()
}

type simQueue []*simEvent

func (q simQueue) Len() int { return len(q) }
func (q simQueue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].order < q[j].order
}
func (q simQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *simQueue) Push(x any)   { *q = append(*q, x.(*simEvent)) }
func (q *simQueue) Pop() any {
	old := *q
	x := old[len(old)-1]
	*q = old[:len(old)-1]
	return x
}

// simNode is one node over its lives.
type simNode struct {
	w         *world
	id        catalog.NodeID
	offset    time.Duration // of its wall clock
	rate      float64       // of its monotonic clock
	base      time.Duration
	inc       uint64
	alive     bool
	frozen    bool
	life      uint64
	clock     *hlc.Clock
	pairs     *pairs
	core      *core
	inbox     []event
	late      []func() // what waits for a frozen node to go on
	due       bool
	hosted    map[catalog.GroupID]*simReplica
	disk      map[journal.StreamID]*journal.StreamReplay
	unsynced  []simAppend
	syncing   bool
	applying  []*applyTask
	busy      bool
	suspect   bool
	pledges   map[catalog.GroupID]simPledge // as its messages show them
	bootAt    time.Duration
	recovered map[catalog.GroupID]bool   // it had promises to forget
	forgiven  map[catalog.GroupID]uint64 // the term up to which a leader revoked its hold
}

// simPledge is the last acknowledgement of a leader that left under a promise.
type simPledge struct {
	to        catalog.NodeID
	gen, term uint64
}

type simAppend struct {
	turn uint64
	recs []journal.Record
}

type simReplica struct {
	h       *Group
	replica catalog.ReplicaID
	live    simState // lost in a crash
	flushed simState
}

type simState struct {
	AppliedState
	datas []string
}

func newWorld(seed uint64, trace func(string, ...any)) *world {
	w := &world{seed: seed, dice: rand.New(rand.NewPCG(seed, 17)), trace: trace, cut: make(map[[2]catalog.NodeID]bool),
		groups: make(map[catalog.GroupID]*simGroup), nextReplica: 100}
	for i := range simNodes {
		n := &simNode{w: w, id: catalog.NodeID(i + 1), hosted: make(map[catalog.GroupID]*simReplica),
			disk: make(map[journal.StreamID]*journal.StreamReplay)}
		n.offset = time.Duration(w.dice.Int64N(int64(490*time.Millisecond))) - 245*time.Millisecond
		if seed%2 == 0 { // as far apart as they may be
			n.offset = 245 * time.Millisecond
			if w.dice.IntN(2) == 0 {
				n.offset = -n.offset
			}
		}
		n.rate = 1 + (w.dice.Float64()-0.5)*0.01
		n.base = time.Duration(w.dice.Int64N(int64(time.Hour)))
		w.nodes = append(w.nodes, n)
	}
	for _, n := range w.nodes {
		n.boot()
	}
	for i := range 2 {
		id := catalog.GroupID(7 + i)
		w.ids = append(w.ids, id)
		w.groups[id] = &simGroup{id: id, entries: make(map[uint64]*simEntry), noted: make(map[string]string), where: make(map[string]uint64)}
		size := 3
		if i == 1 && seed%3 == 0 {
			size = 1
		}
		var conf []*catalog.Replica
		for _, n := range w.nodes[:size] {
			w.nextReplica++
			conf = append(conf, &catalog.Replica{Id: uint64(w.nextReplica), Node: uint64(n.id), Role: catalog.Role_ROLE_VOTER})
		}
		for i, n := range w.nodes[:size] {
			n.create(GroupConfig{ID: id, Replica: catalog.ReplicaID(conf[i].Id), New: true, Conf: conf})
		}
	}
	return w
}

func (w *world) logf(format string, args ...any) {
	if w.trace != nil {
		w.trace("%10s "+format, append([]any{w.now}, args...)...)
	}
}

func (w *world) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf("at %s: "+format, append([]any{w.now}, args...)...)
	}
}

func (w *world) after(d time.Duration, f func()) {
	w.order++
	heap.Push(&w.queue, &simEvent{at: w.now + d, order: w.order, f: f})
}

func (w *world) between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(w.dice.Int64N(int64(hi-lo)+1))
}

// run lets trouble happen, then calm, then looks at what is left.
func (w *world) run() error {
	w.after(0, w.client)
	w.after(w.between(0, 2*time.Second), w.trouble)
	w.after(simTime, w.makePeace)
	for w.queue.Len() > 0 && w.err == nil {
		e := heap.Pop(&w.queue).(*simEvent)
		if e.at > simTime+simCalm {
			break
		}
		w.now = e.at
		func() {
			defer func() {
				if r := recover(); r != nil {
					w.fail("panic: %v\n%s", r, debug.Stack())
					if w.trace != nil {
						panic(r)
					}
				}
			}()
			e.f()
		}()
		w.checkHolders()
	}
	if w.err == nil {
		w.checkEnd()
	}
	return w.err
}

// client writes and reads, everywhere, leader or not.
func (w *world) client() {
	if w.now < simTime+simCalm-5*time.Second {
		w.after(w.between(0, 40*time.Millisecond), w.client)
	}
	n := w.nodes[w.dice.IntN(len(w.nodes))]
	g := w.groups[w.ids[w.dice.IntN(len(w.ids))]]
	r := n.hosted[g.id]
	if !n.alive || n.frozen || r == nil {
		return
	}
	if w.dice.IntN(2) == 0 {
		n.read(g, r)
		return
	}
	for range 1 + w.dice.IntN(3) {
		n.propose(g, r)
	}
}

func (n *simNode) read(g *simGroup, r *simReplica) {
	at, err := r.h.gate.readTime(n.mono())
	if err != nil {
		return
	}
	n.w.goodReads++
	if r.live.Index < g.ackedAt || at < g.ackedHT {
		n.w.fail("group %d: node %d reads at %s with %d applied, after a write at %s, index %d was acknowledged",
			g.id, n.id, at, r.live.Index, g.ackedHT, g.ackedAt)
	}
	g.reads = append(g.reads, simRead{applied: r.live.Index, at: at})
	for i := r.live.Index + 1; g.entries[i] != nil; i++ {
		if e := g.entries[i]; e.ht != 0 && e.ht <= at {
			n.w.fail("group %d: node %d gives safe time %s with %d applied; entry %d is at %s", g.id, n.id, at, r.live.Index, i, e.ht)
		}
	}
}

func (n *simNode) propose(g *simGroup, r *simReplica) {
	g.next++
	name := fmt.Sprintf("g%d-%d", g.id, g.next)
	if err := r.h.gate.leadingNow(n.mono()); err != nil && n.w.dice.IntN(4) != 0 {
		return
	}
	g.noted[name] = "waits"
	p := &Proposal{Data: []byte(name), group: r.h}
	life := n.life
	p.Done = func(res ProposalResult) {
		if n.life != life {
			n.w.fail("an answer from a past life")
		}
		if was := g.noted[name]; was != "waits" {
			n.w.fail("%s answered twice: %s, then %v", name, was, res.Err)
		}
		switch {
		case res.Err == nil:
			g.noted[name] = "done"
			n.w.acks++
			if res.Index > g.ackedAt {
				g.ackedAt, g.ackedHT = res.Index, res.HybridTime
			}
		case errors.Is(res.Err, ErrUnknownOutcome):
			g.noted[name] = "unknown"
		default:
			g.noted[name] = "none"
			if i, ok := g.where[name]; ok {
				n.w.fail("%s had no effect (%v), but is entry %d", name, res.Err, i)
			}
		}
	}
	n.tell(event{kind: evPropose, proposal: p})
}

// trouble picks something to go wrong.
func (w *world) trouble() {
	if w.calm {
		return
	}
	w.after(w.between(100*time.Millisecond, 4*time.Second), w.trouble)
	n := w.nodes[w.dice.IntN(len(w.nodes))]
	m := w.nodes[w.dice.IntN(len(w.nodes))]
	switch k := w.dice.IntN(12); {
	case k < 2:
		n.crash(w.dice.IntN(5) == 0 && w.healthyBut(n))
	case k < 4:
		w.logf("cut %d-%d", n.id, m.id)
		w.cut[[2]catalog.NodeID{n.id, m.id}], w.cut[[2]catalog.NodeID{m.id, n.id}] = true, w.dice.IntN(4) != 0
		w.after(w.between(0, 6*time.Second), func() {
			delete(w.cut, [2]catalog.NodeID{n.id, m.id})
			delete(w.cut, [2]catalog.NodeID{m.id, n.id})
		})
	case k == 4:
		w.logf("isolate %d", n.id)
		for _, o := range w.nodes {
			w.cut[[2]catalog.NodeID{n.id, o.id}], w.cut[[2]catalog.NodeID{o.id, n.id}] = true, true
		}
		w.after(w.between(0, 8*time.Second), func() { clear(w.cut) })
	case k == 5:
		n.freeze(w.between(0, 5*time.Second))
	case k < 8:
		if r := n.hosted[w.ids[w.dice.IntN(len(w.ids))]]; r != nil && n.alive {
			w.logf("transfer group %d away from %d", r.h.g.id, n.id)
			n.tell(event{kind: evTransfer, group: r.h.g})
		}
	case k < 10:
		w.changeMembers()
	case k == 10 && n.alive:
		for _, id := range w.ids {
			if r := n.hosted[id]; r != nil {
				r.flushed = r.live.clone()
				n.tell(event{kind: evFlushed, group: r.h.g, index: r.flushed.Index})
				// A small bound on memory makes followers need snapshots.
				n.tell(event{kind: evCall, call: func(c *core) { c.cutLog(r.h.g, true) }})
			}
		}
	}
}

// healthyBut says that all nodes but one are up, reachable and sure of
// themselves: then that one may lose what it had synced.
func (w *world) healthyBut(n *simNode) bool {
	for _, o := range w.nodes {
		if o != n && (!o.alive || o.frozen || o.suspect) {
			return false
		}
	}
	return len(w.cut) == 0
}

func (w *world) makePeace() {
	w.calm = true
	clear(w.cut)
	for _, n := range w.nodes {
		if n.frozen {
			n.thaw()
		}
		if !n.alive {
			n.boot()
		}
	}
	w.logf("peace")
}

func (w *world) changeMembers() {
	id := w.ids[w.dice.IntN(len(w.ids))]
	for _, n := range w.nodes {
		r := n.hosted[id]
		if r == nil || !n.alive || n.frozen || r.h.gate.leadingNow(n.mono()) != nil {
			continue
		}
		g := r.h.g
		ch := Change{Kind: AddLearner}
		if len(g.conf) >= 3 || len(g.conf) > 1 && w.dice.IntN(2) == 0 {
			x := g.conf[w.dice.IntN(len(g.conf))]
			ch = Change{Kind: Remove, Replica: catalog.ReplicaID(x.GetId())}
			if len(votersOf(g.conf)) < 3 && x.GetRole() == catalog.Role_ROLE_VOTER {
				return
			}
		}
		for _, x := range g.conf {
			if x.GetRole() == catalog.Role_ROLE_LEARNER {
				ch = Change{Kind: Promote, Replica: catalog.ReplicaID(x.GetId())}
			}
		}
		if ch.Kind == AddLearner {
			o := w.nodes[w.dice.IntN(len(w.nodes))]
			if o.hosted[id] != nil && (!o.alive || o.hosted[id].h.g.rn != nil) || !o.alive {
				return
			}
			delete(o.hosted, id) // a removed replica makes room
			delete(o.disk, journal.StreamID(id))
			if o.core.groups[id] != nil {
				o.core.remove(o.core.groups[id])
			}
			w.nextReplica++
			ch.Replica, ch.Node = w.nextReplica, o.id
			o.create(GroupConfig{ID: id, Replica: w.nextReplica})
		}
		w.logf("node %d: group %d change %+v", n.id, id, ch)
		n.tell(event{kind: evChange, group: g, change: &changeRequest{change: ch, deadline: n.mono() + 5*time.Second,
			done: func(err error) { w.logf("group %d change %+v: %v", id, ch, err) }}})
		return
	}
}

func (n *simNode) mono() time.Duration {
	return n.base + time.Duration(float64(n.w.now)*n.rate)
}

// boot begins a life.
func (n *simNode) boot() {
	w := n.w
	n.inc++
	n.life++
	n.alive, n.frozen, n.due, n.busy, n.syncing = true, false, false, false, false
	n.inbox, n.late, n.applying, n.unsynced = nil, nil, nil, nil
	n.clock = hlc.New(func() int64 { return simEpoch + (w.now + n.offset).Microseconds() }, simConfig.MaxSkew)
	cfg := simConfig
	cfg.Suspect = n.suspect
	if w.seed%4 < 2 {
		cfg.ElectionDelay = 10 * time.Millisecond // elections follow leases closely
	}
	n.bootAt, n.recovered = n.mono(), make(map[catalog.GroupID]bool)
	n.pledges, n.forgiven = make(map[catalog.GroupID]simPledge), make(map[catalog.GroupID]uint64)
	d := &Deps{Node: n.id, Incarnation: n.inc, Clock: n.clock, Logger: slog.New(slog.DiscardHandler)}
	n.pairs = newPairs(d, &cfg, &w.metrics)
	n.core = newCore(d, &cfg, n.pairs, &w.metrics, rand.New(rand.NewPCG(w.dice.Uint64(), 5)))
	w.logf("node %d boots, life %d", n.id, n.inc)
	for _, id := range w.ids {
		r := n.hosted[id]
		if r == nil {
			continue
		}
		r.live = r.flushed.clone()
		if r.live.Index == 0 && n.disk[journal.StreamID(id)] != nil && n.disk[journal.StreamID(id)].StartPos == bootIndex {
			r.live.Index, r.live.Term = bootIndex, bootTerm
		}
		gc := GroupConfig{ID: id, Replica: r.replica, Applied: r.flushed.AppliedState}
		if s := n.disk[journal.StreamID(id)]; s != nil {
			gc.Recovered = s
		}
		r.h = n.handle(&gc)
		if r.h.damaged != nil {
			w.fail("node %d: group %d: %v", n.id, id, r.h.damaged)
			return
		}
		w.logf("node %d recovers group %d: log (%d, %d] term %d conf %v", n.id, id, r.h.g.log.base, r.h.g.log.last(), r.h.g.st.term, r.h.g.conf)
		n.recovered[id] = !r.h.g.alone() && !r.h.isBlank
		n.tell(event{kind: evCreate, group: r.h.g})
	}
	n.beatLoop(n.life)
}

func (n *simNode) handle(gc *GroupConfig) *Group {
	h := &Group{isNew: gc.New, isBlank: !gc.New && gc.Recovered == nil && gc.Applied.Index == 0}
	h.gate.self, h.gate.clock, h.gate.pairs = n.id, n.clock, n.pairs
	_, h.damaged = newGroup(h, gc)
	return h
}

func (n *simNode) create(gc GroupConfig) {
	r := &simReplica{replica: gc.Replica, h: n.handle(&gc)}
	if gc.New {
		r.live.Index, r.live.Term = bootIndex, bootTerm
		r.live.Conf = nil
	}
	n.hosted[gc.ID] = r
	n.w.logf("node %d takes replica %d of group %d, conf %v", n.id, gc.Replica, gc.ID, gc.Conf)
	n.tell(event{kind: evCreate, group: r.h.g})
}

func (n *simNode) beatLoop(life uint64) {
	n.w.after(n.w.between(190*time.Millisecond, 210*time.Millisecond), func() {
		if n.life != life || !n.alive {
			return
		}
		n.beatLoop(life)
		if n.frozen {
			return
		}
		n.tell(event{kind: evBeat})
		for _, b := range n.pairs.beats(n.mono()) {
			n.sendBeat(b.to, b.beat)
		}
	})
}

// tell gives a node something to take in its next turn.
func (n *simNode) tell(e event) {
	n.inbox = append(n.inbox, e)
	if n.due {
		return
	}
	n.due = true
	life := n.life
	n.w.after(n.w.between(0, 2*time.Millisecond), func() {
		if n.life != life || !n.alive {
			return
		}
		if n.frozen {
			n.late = append(n.late, n.turn)
			return
		}
		n.turn()
	})
}

func (n *simNode) turn() {
	n.due = false
	events := n.inbox
	n.inbox = nil
	fx := n.core.step(n.mono(), events)
	n.carryOut(fx)
}

func (n *simNode) carryOut(fx *effects) {
	w := n.w
	for _, b := range fx.batches {
		n.checkBatch(b.batch)
		n.sendBatch(b.to, b.batch)
	}
	for _, b := range fx.beats {
		n.sendBeat(b.to, b.beat)
	}
	if len(fx.records) > 0 {
		n.unsynced = append(n.unsynced, simAppend{turn: fx.turn, recs: slices.Clone(fx.records)})
		n.sync()
	}
	for _, t := range fx.applies {
		n.applying = append(n.applying, t)
	}
	n.applyNext()
	for _, a := range fx.answers {
		a.p.Done(a.r)
	}
	life := n.life
	for _, t := range fx.snapshots {
		n.stream(t)
	}
	for _, t := range fx.restores {
		w.after(w.between(0, 300*time.Millisecond), func() {
			if n.life == life && n.alive {
				n.restore(t)
			}
		})
	}
	for _, lw := range fx.lowWaters {
		if s := n.disk[lw.stream]; s != nil {
			for len(s.Records) > 0 && s.Records[0].Pos <= lw.pos {
				s.Records = s.Records[1:]
			}
		}
	}
	for _, q := range fx.queries {
		n.ask(q)
	}
	if fx.timer != 0 {
		w.after(time.Duration(float64(max(0, fx.timer-n.mono()))/n.rate)+time.Microsecond, func() {
			if n.life == life && n.alive {
				n.tell(event{kind: evTimer})
			}
		})
	}
}

// checkBatch compares what leaves with what the disk really has (M1).
func (n *simNode) checkBatch(b *wire.RaftBatch) {
	for _, env := range b.Envelopes {
		m := &pb.Message{}
		if len(env.Raft) == 0 || proto.Unmarshal(env.Raft, m) != nil || m.GetReject() {
			continue
		}
		n.checkPledge(catalog.NodeID(b.ToNode), env, m)
		s := n.disk[journal.StreamID(env.Group)]
		switch m.GetType() {
		case pb.MsgAppResp:
			last := uint64(0)
			if s != nil {
				last = s.StartPos
				if k := len(s.Records); k > 0 {
					last = s.Records[k-1].Pos
				}
			}
			if r := n.hosted[catalog.GroupID(env.Group)]; m.GetIndex() > max(last, r.flushed.Index) {
				n.w.fail("node %d acknowledges entry %d of group %d, its disk has %d", n.id, m.GetIndex(), env.Group, last)
			}
		case pb.MsgVoteResp:
			if s == nil {
				n.w.fail("node %d votes in group %d with nothing on disk", n.id, env.Group)
				return
			}
			st, err := decodeState(s.State)
			if err != nil || st.term < m.GetTerm() || st.term == m.GetTerm() && st.vote != m.GetTo() {
				n.w.fail("node %d votes for %d in term %d of group %d, its disk has %d in %d", n.id, m.GetTo(), m.GetTerm(), env.Group, st.vote, st.term)
			}
		}
	}
}

// checkPledge finds votes against a live promise (M5).
func (n *simNode) checkPledge(to catalog.NodeID, env *wire.Envelope, m *pb.Message) {
	id := catalog.GroupID(env.Group)
	if env.Promise != 0 {
		n.pledges[id] = simPledge{to: to, gen: env.Promise, term: m.GetTerm()}
	}
	p := n.pledges[id]
	if m.GetType() == pb.MsgVoteResp && n.recovered[id] && m.GetTerm() > n.forgiven[id]+1 &&
		n.mono()-n.bootAt < simConfig.Lease+simConfig.MaxSkew {
		n.w.fail("node %d votes for node %d in group %d, %s after it started anew", n.id, to, id, n.mono()-n.bootAt)
	}
	if m.GetType() != pb.MsgVoteResp || p.to == 0 || p.to == to || p.term <= n.forgiven[id] || m.GetTerm() <= p.term {
		return
	}
	for _, v := range n.pairs.view(n.mono(), nil) {
		if v.node == p.to && v.givenGen == p.gen && v.until > n.mono() {
			n.w.fail("node %d votes for node %d in group %d while its promise to node %d holds for %s", n.id, to, id, p.to, v.until-n.mono())
		}
	}
}

// deliver runs f at a peer, if the world lets it through.
func (n *simNode) deliver(to catalog.NodeID, f func(*simNode)) {
	w := n.w
	p := w.nodes[to-1]
	times := 1
	if !w.calm {
		if w.dice.IntN(50) == 0 {
			times = 0
		} else if w.dice.IntN(50) == 0 {
			times = 2
		}
	}
	for range times {
		d := w.between(100*time.Microsecond, 3*time.Millisecond)
		if !w.calm && w.dice.IntN(100) == 0 {
			d = w.between(0, 3*time.Second)
		}
		w.after(d, func() {
			if !p.alive || w.cut[[2]catalog.NodeID{n.id, to}] {
				return
			}
			if p.frozen {
				life := p.life
				p.late = append(p.late, func() {
					if p.life == life {
						f(p)
					}
				})
				return
			}
			f(p)
		})
	}
}

func (n *simNode) sendBatch(to catalog.NodeID, b *wire.RaftBatch) {
	raw, err := b.MarshalVT()
	if err != nil {
		n.w.fail("%v", err)
		return
	}
	n.deliver(to, func(p *simNode) {
		c := &wire.RaftBatch{}
		if err := c.UnmarshalVT(raw); err != nil {
			n.w.fail("%v", err)
			return
		}
		if p.clock.Update(hlc.Timestamp(c.HybridTime)) != nil || !p.pairs.admit(n.id, c.Incarnation) {
			return
		}
		in := &inBatch{from: n.id, inc: c.Incarnation}
		for _, env := range c.Envelopes {
			var m *pb.Message
			if len(env.Raft) > 0 {
				m = &pb.Message{}
				if err := proto.Unmarshal(env.Raft, m); err != nil {
					n.w.fail("%v", err)
				}
			}
			if env.Revoked {
				over := m.GetTerm()
				if m.GetType() == pb.MsgVote {
					over--
				}
				p.forgiven[catalog.GroupID(env.Group)] = max(p.forgiven[catalog.GroupID(env.Group)], over)
			}
			in.msgs = append(in.msgs, inMessage{env: env, msg: m})
		}
		p.tell(event{kind: evBatch, batch: in})
	})
}

func (n *simNode) sendBeat(to catalog.NodeID, b *wire.Beat) {
	for _, g := range b.Groups {
		if g.Promise != 0 {
			n.pledges[catalog.GroupID(g.Group)] = simPledge{to: to, gen: g.Promise, term: g.Term}
		}
	}
	raw, err := b.MarshalVT()
	if err != nil {
		n.w.fail("%v", err)
		return
	}
	n.deliver(to, func(p *simNode) {
		c := &wire.Beat{}
		if err := c.UnmarshalVT(raw); err != nil {
			n.w.fail("%v", err)
			return
		}
		answer, ok := p.pairs.hear(p.mono(), c)
		if answer != nil {
			p.sendBeat(n.id, answer)
		}
		if ok && len(c.Groups) > 0 {
			p.tell(event{kind: evBeats, batch: &inBatch{from: n.id, inc: c.Incarnation, beats: c.Groups}})
		}
	})
}

// sync makes appends durable, some at a time, in order.
func (n *simNode) sync() {
	if n.syncing {
		return
	}
	n.syncing = true
	life, k := n.life, len(n.unsynced)
	d := n.w.between(100*time.Microsecond, 5*time.Millisecond)
	if !n.w.calm && n.w.dice.IntN(200) == 0 {
		d = n.w.between(0, 3*time.Second)
	}
	n.w.after(d, func() {
		if n.life != life || !n.alive {
			return
		}
		n.syncing = false
		for _, a := range n.unsynced[:k] {
			for _, r := range a.recs {
				replayRecord(n.disk, r)
			}
		}
		turn := n.unsynced[k-1].turn
		n.unsynced = n.unsynced[k:]
		n.tell(event{kind: evDurable, turn: turn})
		if len(n.unsynced) > 0 {
			n.sync()
		}
	})
}

func (n *simNode) applyNext() {
	if n.busy || len(n.applying) == 0 {
		return
	}
	n.busy = true
	life := n.life
	n.w.after(n.w.between(0, 2*time.Millisecond), func() {
		if n.life != life || !n.alive {
			return
		}
		if n.frozen {
			n.late = append(n.late, n.applyOne)
			return
		}
		n.applyOne()
	})
}

func (n *simNode) applyOne() {
	n.busy = false
	t := n.applying[0]
	n.applying = n.applying[1:]
	r, g := n.hosted[t.g.id], n.w.groups[t.g.id]
	last := t.prior
	for _, re := range t.ents {
		var e Entry
		if _, err := decodeEntry(re, &e, nil); err != nil {
			n.w.fail("%v", err)
			return
		}
		if r != nil && r.h == t.g.h {
			n.w.sawApplied(n, g, r, &e, re)
		}
		if e.HybridTime != 0 {
			last = e.HybridTime
		}
	}
	end := t.ents[len(t.ents)-1]
	t.g.h.gate.applied(end.GetIndex(), end.GetTerm(), last)
	for i, p := range t.local {
		if p == nil || p.change != nil {
			continue
		}
		for _, pr := range p.proposals {
			pr.Done(ProposalResult{HybridTime: p.time, Index: t.ents[i].GetIndex(), Copies: t.copies})
		}
	}
	n.tell(event{kind: evApplied, task: t})
	n.applyNext()
}

// sawApplied checks an applied entry against all that were applied before, on
// any node, and against every safe time given out.
func (w *world) sawApplied(n *simNode, g *simGroup, r *simReplica, e *Entry, re *pb.Entry) {
	w.logf("node %d group %d applies %d term %d", n.id, g.id, e.Index, e.Term)
	if e.Index != r.live.Index+1 {
		w.fail("node %d applies entry %d of group %d after %d", n.id, e.Index, g.id, r.live.Index)
	}
	if old := g.entries[e.Index]; old == nil {
		g.entries[e.Index] = &simEntry{term: e.Term, ht: e.HybridTime, data: slices.Clone(re.GetData())}
		for _, rd := range g.reads {
			if rd.applied < e.Index && e.HybridTime != 0 && e.HybridTime <= rd.at {
				w.fail("group %d: entry %d at %s, after safe time %s was given out with %d applied", g.id, e.Index, e.HybridTime, rd.at, rd.applied)
			}
		}
		for i := e.Index - 1; i > 0 && e.HybridTime != 0; i-- {
			if p := g.entries[i]; p != nil && p.ht != 0 {
				if p.ht >= e.HybridTime {
					w.fail("group %d: entry %d at %s, entry %d at %s", g.id, i, p.ht, e.Index, e.HybridTime)
				}
				break
			}
		}
		for _, x := range e.Writes {
			if e.Kind != KindWrites {
				continue
			}
			name := string(x.Data)
			if i, ok := g.where[name]; ok {
				w.fail("%s is entry %d and entry %d", name, i, e.Index)
			}
			g.where[name] = e.Index
			if g.noted[name] == "none" {
				w.fail("%s had no effect, but is entry %d", name, e.Index)
			}
		}
	} else if old.term != e.Term || !bytes.Equal(old.data, re.GetData()) {
		w.fail("group %d: entry %d is of term %d on node %d, was of term %d", g.id, e.Index, e.Term, n.id, old.term)
	}
	r.live.Index, r.live.Term = e.Index, e.Term
	if e.HybridTime != 0 {
		r.live.HybridTime = e.HybridTime
	}
	if e.Kind == KindConf {
		r.live.Conf = slices.Clone(e.Conf)
	}
	for _, x := range e.Writes {
		if e.Kind == KindWrites {
			r.live.datas = append(r.live.datas, string(x.Data))
		}
	}
}

func (s *simState) clone() simState {
	c := *s
	c.datas = slices.Clone(s.datas)
	return c
}

func (n *simNode) stream(t *snapshotTask) {
	w := n.w
	r := n.hosted[t.g.id]
	st := r.live.clone()
	if len(st.Conf) == 0 {
		st.Conf = t.conf
	}
	raw, err := snapshotMessage(t, &st.AppliedState)
	if err != nil {
		w.fail("%v", err)
		return
	}
	life := n.life
	w.after(w.between(0, 500*time.Millisecond), func() {
		if n.life != life || !n.alive {
			return
		}
		p := w.nodes[t.node-1]
		if !p.alive || p.frozen || w.cut[[2]catalog.NodeID{n.id, t.node}] || p.hosted[t.g.id] == nil || p.hosted[t.g.id].replica != t.to {
			n.tell(event{kind: evStreamed, stream: t, err: errors.New("broken")})
			return
		}
		m, meta, err := decodeSnapshot(raw)
		if err != nil {
			w.fail("%v", err)
			return
		}
		w.logf("snapshot of group %d at %d from %d to %d", t.g.id, meta.Index, n.id, p.id)
		p.tell(event{kind: evSnapshot, snapshot: &inSnapshot{group: t.g.id, from: n.id, inc: n.inc, msg: m, meta: meta, spool: &simSpool{state: st}}})
		n.tell(event{kind: evStreamed, stream: t})
	})
}

type simSpool struct {
	memSpool
	state simState
}

func (n *simNode) restore(t *restoreTask) {
	if len(n.applying) > 0 || n.frozen {
		life := n.life
		n.w.after(time.Millisecond, func() {
			if n.life == life && n.alive {
				n.restore(t)
			}
		})
		return
	}
	r := n.hosted[t.g.id]
	if r == nil || r.h != t.g.h {
		return
	}
	s := t.spool.(*simSpool).state
	if s.Index < r.live.Index {
		n.w.fail("node %d goes back from %d to %d by a snapshot", n.id, r.live.Index, s.Index)
	}
	r.live, r.flushed = s.clone(), s.clone()
	n.tell(event{kind: evRestored, restore: t})
}

func (n *simNode) ask(q tailQuery) {
	n.deliver(q.to, func(p *simNode) {
		p.tell(event{kind: evAsked, tail: &tailEvent{from: n.id, state: proto.Clone(q.state).(*wire.TailState), reply: func(s *wire.TailState) {
			p.deliver(n.id, func(b *simNode) { b.tell(event{kind: evTail, tail: &tailEvent{from: p.id, state: s}}) })
		}}})
	})
}

// crash ends a life. What was not synced is lost but for some of it; with
// losing, some of what was synced is lost too, and the journal is suspect.
func (n *simNode) crash(losing bool) {
	if !n.alive {
		return
	}
	w := n.w
	w.crashes++
	w.logf("node %d crashes, losing %v", n.id, losing)
	n.alive, n.suspect = false, losing || n.suspect && !n.core.settled()
	n.life++
	if k := len(n.unsynced); k > 0 {
		for _, a := range n.unsynced[:w.dice.IntN(k+1)] { // the disk may have got further than anyone was told
			for _, r := range a.recs {
				replayRecord(n.disk, r)
			}
		}
	}
	if losing {
		for _, id := range w.ids {
			// Nobody could know what a lone voter lost; and what made a replica
			// leave may be known to nobody but the one that left.
			s := n.disk[journal.StreamID(id)]
			for k := w.dice.IntN(3); s != nil && k > 0 && len(s.Records) > 0 && !n.hosted[id].h.g.alone(); k-- {
				last := s.Records[len(s.Records)-1]
				if e, _, err := decodeRecord(last.Pos, last.Payload); err != nil || e.GetType() != pb.EntryNormal {
					break
				}
				s.Records = s.Records[:len(s.Records)-1]
			}
		}
	}
	w.after(w.between(0, 5*time.Second), func() {
		if !n.alive {
			n.boot()
		}
	})
}

func (n *simNode) freeze(d time.Duration) {
	if !n.alive || n.frozen {
		return
	}
	n.w.logf("node %d freezes for %s", n.id, d)
	n.frozen = true
	n.w.after(d, n.thaw)
}

func (n *simNode) thaw() {
	if !n.frozen {
		return
	}
	n.frozen = false
	n.w.logf("node %d goes on", n.id)
	late := n.late
	n.late = nil
	life := n.life
	for _, f := range late {
		if n.life == life && n.alive {
			f()
		}
	}
}

// checkHolders finds two replicas of a group that would both serve (M4). A
// frozen node is asked too: it would serve if it went on now.
func (w *world) checkHolders() {
	for _, id := range w.ids {
		holder := catalog.NodeID(0)
		for _, n := range w.nodes {
			r := n.hosted[id]
			if !n.alive || r == nil || r.h.gate.leadingNow(n.mono()) != nil {
				continue
			}
			if holder != 0 {
				w.fail("group %d: nodes %d and %d both serve", id, holder, n.id)
			}
			holder = n.id
		}
	}
}

// checkEnd looks at a world at peace: one leader each, every member has applied
// everything, and every acknowledged write is there.
func (w *world) checkEnd() {
	for _, id := range w.ids {
		g := w.groups[id]
		var leader *simReplica
		for _, n := range w.nodes {
			if r := n.hosted[id]; r != nil && r.h.gate.leadingNow(n.mono()) == nil {
				leader = r
			}
		}
		if leader == nil {
			w.fail("group %d has no leader in the end: %s", id, w.describe(id))
			return
		}
		for _, m := range leader.h.g.conf {
			r := w.nodes[m.GetNode()-1].hosted[id]
			if r == nil || uint64(r.replica) != m.GetId() {
				continue // its removed predecessor made room for another since
			}
			if r.live.Index < leader.live.Index || !slices.Equal(r.live.datas, leader.live.datas) {
				w.fail("group %d: replica %d ends at %d, the leader at %d: %s", id, r.replica, r.live.Index, leader.live.Index, w.describe(id))
			}
		}
		for _, p := range leader.h.gate.mu.status.Progress {
			if i := slices.IndexFunc(leader.h.g.conf, func(r *catalog.Replica) bool { return r.GetId() == uint64(p.Replica) }); i < 0 {
				continue
			}
			if r := w.nodes[p.Node-1].hosted[id]; r != nil && r.replica == p.Replica && !p.CaughtUp {
				w.fail("group %d: the leader shows %+v for ever: %s", id, p, w.describe(id))
			}
		}
		for name, was := range g.noted {
			at, there := g.where[name]
			if was == "done" && (!there || !slices.Contains(leader.live.datas, name)) {
				w.fail("%s was acknowledged and is lost (entry %d)", name, at)
			}
		}
	}
}

func (w *world) describe(id catalog.GroupID) string {
	var b bytes.Buffer
	for _, n := range w.nodes {
		if r := n.hosted[id]; r != nil {
			g := r.h.g
			fmt.Fprintf(&b, "\n  node %d replica %d: role %v term %d lead %d log (%d, %d] commit %d applied %d conf %v rn %v doubt %v owes %+v electAt %s now %s pledge %+v active %v gate %v",
				n.id, g.replica, g.role, g.term, g.lead, g.log.base, g.log.last(), g.commit, g.applied, g.conf, g.rn != nil, g.tail != nil, g.owes,
				g.electAt, n.mono(), g.pledge, g.isActive, r.h.gate.leadingNow(n.mono()))
		}
	}
	return b.String()
}
