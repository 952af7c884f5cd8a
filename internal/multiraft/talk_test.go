package multiraft

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/journal"
	"github.com/braiddb/braid/internal/wire"
)

// TestConversations plays the files of testdata: events in, effects out. A
// file is run with -rewrite to record it anew; the difference is to be read.
//
//	create nodes=(1,2,3)      the group begins on these nodes, replica = 10 + node
//	   [fast=1 by=400]        a node's wall clock is ahead
//	join node=4               a blank replica
//	beat [node=1]             a beat is due (everywhere)
//	wait ms=200               time passes; alarms ring
//	settle [quiet]            deliver, sync and apply until nothing is left
//	deliver | sync node=1     only messages; only one node's disk
//	work                      only disks and state machines, one round
//	propose node=1 a b        read node=1    status    progress node=1
//	transfer node=1 [to=12]   change node=1 add|promote|remove replica=14 on=4
//	cut a=1 b=2 [oneway]      lose what is sent between them
//	heal                      no more
//	flush node=1              the state machine is durable, the log is cut
//	crash node=1              restart node=1 [lose=2]   with a suspect tail if something is lost
func TestConversations(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 8 {
		t.Fatalf("%d conversations: %v", len(files), err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) {
			x := &talk{t: t}
			datadriven.RunTest(t, f, x.command)
		})
	}
}

// talk is a world without chance: messages wait until they are delivered, disks
// until they are synced.
type talk struct {
	t     *testing.T
	now   time.Duration
	nodes []*talker
	wires []func()
	cut   map[[2]catalog.NodeID]bool
	out   []string
	quiet bool
}

type talker struct {
	x       *talk
	id      catalog.NodeID
	inc     uint64
	alive   bool
	clock   *hlc.Clock
	pairs   *pairs
	core    *core
	h       *Group
	disk    map[journal.StreamID]*journal.StreamReplay
	unsaved []simAppend
	tasks   []func()
	machine listMachine
	flushed AppliedState
	alarm   time.Duration
	offset  time.Duration // of its wall clock
}

const talkGroup = catalog.GroupID(7)

func (x *talk) say(format string, args ...any) {
	if !x.quiet {
		x.out = append(x.out, fmt.Sprintf(format, args...))
	}
}

func (x *talk) node(id int) *talker {
	for _, n := range x.nodes {
		if n.id == catalog.NodeID(id) {
			return n
		}
	}
	n := &talker{x: x, id: catalog.NodeID(id), disk: make(map[journal.StreamID]*journal.StreamReplay)}
	x.nodes = append(x.nodes, n)
	n.boot(false)
	return n
}

func (n *talker) boot(suspect bool) {
	n.inc++
	n.alive, n.unsaved, n.tasks, n.alarm = true, nil, nil, 0
	n.clock = hlc.New(func() int64 { return simEpoch + (n.x.now + n.offset).Microseconds() }, simConfig.MaxSkew)
	cfg := Config{Suspect: suspect, Lease: 2 * time.Second, ElectionDelay: 300 * time.Millisecond}.withDefaults()
	d := &Deps{Node: n.id, Incarnation: n.inc, Clock: n.clock, Logger: slog.New(slog.DiscardHandler)}
	m := &Metrics{}
	n.pairs = newPairs(d, &cfg, m)
	n.core = newCore(d, &cfg, n.pairs, m, rand.New(rand.NewPCG(uint64(n.id), n.inc)))
	n.core.nextID = ProposalID(uint64(n.id) * 1000)
}

func (n *talker) take(gc GroupConfig) {
	n.h = &Group{isNew: gc.New, isBlank: !gc.New && gc.Recovered == nil && gc.Applied.Index == 0, sm: &n.machine}
	n.h.gate.self, n.h.gate.clock, n.h.gate.pairs = n.id, n.clock, n.pairs
	_, n.h.damaged = newGroup(n.h, &gc)
	n.step(event{kind: evCreate, group: n.h.g})
}

func (x *talk) command(t *testing.T, d *datadriven.TestData) string {
	x.out, x.quiet = nil, d.HasArg("quiet")
	arg := func(name string) int {
		var v int
		if d.HasArg(name) {
			d.ScanArgs(t, name, &v)
		}
		return v
	}
	switch d.Cmd {
	case "create":
		var ids []string
		for _, a := range d.CmdArgs {
			if a.Key == "nodes" {
				ids = a.Vals
			}
		}
		var nodes []catalog.NodeID
		for _, s := range ids {
			k, err := strconv.Atoi(s)
			if err != nil {
				t.Fatal(err)
			}
			nodes = append(nodes, catalog.NodeID(k))
			x.node(k)
		}
		if d.HasArg("fast") {
			x.node(arg("fast")).offset = time.Duration(arg("by")) * time.Millisecond
		}
		for _, id := range nodes {
			x.node(int(id)).take(GroupConfig{ID: talkGroup, Replica: replicaOn(id), New: true, Conf: confOn(nodes...)})
		}
	case "join":
		x.node(arg("node")).take(GroupConfig{ID: talkGroup, Replica: replicaOn(catalog.NodeID(arg("node")))})
	case "beat":
		for _, n := range x.nodes {
			if k := arg("node"); n.alive && (k == 0 || catalog.NodeID(k) == n.id) {
				n.beat()
			}
		}
	case "wait":
		x.now += time.Duration(arg("ms")) * time.Millisecond
		for _, n := range x.nodes {
			if n.alive && n.alarm != 0 && n.alarm <= x.mono() {
				n.step(event{kind: evTimer})
			}
		}
	case "settle":
		for x.deliver() || x.work() {
		}
	case "deliver":
		x.deliver()
	case "work":
		x.work()
	case "sync":
		x.node(arg("node")).sync()
	case "propose":
		n := x.node(arg("node"))
		var ev []event
		for _, a := range d.CmdArgs {
			if a.Key != "node" {
				p := &Proposal{Data: []byte(a.Key), group: n.h}
				p.Done = func(r ProposalResult) { x.say("%d: %s -> %s", n.id, p.Data, result(r)) }
				ev = append(ev, event{kind: evPropose, proposal: p})
			}
		}
		n.step(ev...)
	case "read":
		at, err := x.node(arg("node")).h.gate.readTime(x.mono())
		if err != nil {
			return err.Error() + "\n"
		}
		return fmt.Sprintf("at %s\n", x.ht(at))
	case "transfer":
		n := x.node(arg("node"))
		n.step(event{kind: evTransfer, group: n.h.g, replica: catalog.ReplicaID(arg("to"))})
	case "change":
		n := x.node(arg("node"))
		ch := Change{Replica: catalog.ReplicaID(arg("replica")), Node: catalog.NodeID(arg("on"))}
		ch.Kind = map[bool]ChangeKind{d.HasArg("add"): AddLearner, d.HasArg("promote"): Promote, d.HasArg("remove"): Remove}[true]
		n.step(event{kind: evChange, group: n.h.g, change: &changeRequest{change: ch, done: func(err error) { x.say("%d: changed: %v", n.id, err) }}})
	case "forget": // as a request for a vote makes a voter do
		n := x.node(arg("node"))
		n.step(event{kind: evCall, call: func(c *core) { c.forgetLeader(n.h.g); c.planElection(n.h.g, time.Millisecond) }})
	case "cut":
		if x.cut == nil {
			x.cut = make(map[[2]catalog.NodeID]bool)
		}
		a, b := catalog.NodeID(arg("a")), catalog.NodeID(arg("b"))
		x.cut[[2]catalog.NodeID{a, b}] = true
		x.cut[[2]catalog.NodeID{b, a}] = !d.HasArg("oneway")
	case "heal":
		x.cut = nil
	case "flush":
		n := x.node(arg("node"))
		n.flushed = n.machine.state
		n.step(event{kind: evFlushed, group: n.h.g, index: n.flushed.Index}, event{kind: evCall, call: func(c *core) { c.cutLog(n.h.g, true) }})
	case "crash":
		x.node(arg("node")).alive = false
	case "restart":
		n := x.node(arg("node"))
		s := n.disk[journal.StreamID(talkGroup)]
		s.Records = s.Records[:len(s.Records)-arg("lose")]
		n.boot(arg("lose") > 0)
		n.machine = listMachine{state: n.flushed}
		n.take(GroupConfig{ID: talkGroup, Replica: replicaOn(n.id), Applied: n.flushed, Recovered: s})
	case "progress":
		st := x.node(arg("node")).h.gate.mu.status
		for _, p := range st.Progress {
			x.say("replica %d has %d, %s, caught up %v", p.Replica, p.Match, p.State, p.CaughtUp)
		}
		x.say("rest=%v", st.Quiesced)
	case "status":
		for _, n := range x.nodes {
			if !n.alive {
				x.say("%d: down", n.id)
				continue
			}
			g := n.h.g
			serves := "serves"
			if err := n.h.gate.leadingNow(x.mono()); err != nil {
				serves = err.Error()
			}
			st := n.h.gate.mu.status
			x.say("%d: %s term %d lead %d commit %d applied %d log (%d, %d] rest=%v suspect=%v removed=%v %v: %s", n.id, st.Role, g.term, g.lead, g.commit,
				g.applied, g.log.base, g.log.last(), st.Quiesced, st.Suspect, st.Removed, n.machine.list(), serves)
		}
	default:
		t.Fatalf("unknown command %q", d.Cmd)
	}
	if len(x.out) == 0 {
		return "ok\n"
	}
	return strings.Join(x.out, "\n") + "\n"
}

func result(r ProposalResult) string {
	if r.Err != nil {
		return r.Err.Error()
	}
	return fmt.Sprintf("entry %d, %d copies", r.Index, r.Copies)
}

// mono is every node's monotonic clock: they run alike here.
func (x *talk) mono() time.Duration { return x.now + time.Hour }

// ht prints a hybrid time as milliseconds since the beginning.
func (x *talk) ht(t hlc.Timestamp) string {
	if t == 0 {
		return "none"
	}
	return fmt.Sprintf("%dms+%d", (t.Micros()-simEpoch)/1000, t.Logical())
}

func (n *talker) step(ev ...event) {
	if !n.alive {
		return
	}
	n.carryOut(n.core.step(n.x.mono(), ev))
}

func (n *talker) beat() {
	n.step(event{kind: evBeat})
	for _, b := range n.pairs.beats(n.x.mono()) {
		n.sendBeat(b.to, b.beat)
	}
}

// wire queues something for a peer.
func (n *talker) wire(to catalog.NodeID, f func(p *talker)) {
	x := n.x
	if x.cut[[2]catalog.NodeID{n.id, to}] {
		return
	}
	x.wires = append(x.wires, func() {
		for _, p := range x.nodes {
			if p.id == to && p.alive {
				f(p)
			}
		}
	})
}

func (n *talker) sendBeat(to catalog.NodeID, b *wire.Beat) {
	for _, g := range b.Groups {
		n.x.say("%d>%d %s", n.id, to, groupBeat(g))
	}
	n.wire(to, func(p *talker) {
		answer, ok := p.pairs.hear(p.x.mono(), b)
		if answer != nil {
			p.sendBeat(n.id, answer)
		}
		if ok && len(b.Groups) > 0 {
			p.step(event{kind: evBeats, batch: &inBatch{from: n.id, inc: b.Incarnation, beats: b.Groups}})
		}
	})
}

func groupBeat(g *wire.GroupBeat) string {
	kind := "group beat"
	if g.Answer {
		kind = fmt.Sprintf("group beat answer, promise %d,", g.Promise)
	}
	s := fmt.Sprintf("%s t%d commit %d", kind, g.Term, g.Commit)
	if g.Quiesce {
		s += " all have all"
	}
	return s
}

func (n *talker) carryOut(fx *effects) {
	x := n.x
	n.alarm = fx.timer
	for _, b := range fx.batches {
		for _, env := range b.batch.Envelopes {
			x.say("%d>%d %s", n.id, b.to, x.describe(env))
		}
		batch := proto.Clone(b.batch).(*wire.RaftBatch)
		n.wire(b.to, func(p *talker) {
			if p.clock.Update(hlc.Timestamp(batch.HybridTime)) != nil || !p.pairs.admit(n.id, batch.Incarnation) {
				return
			}
			in := &inBatch{from: n.id, inc: batch.Incarnation}
			for _, env := range batch.Envelopes {
				in.msgs = append(in.msgs, inMessage{env: env, msg: parseRaft(env)})
			}
			p.step(event{kind: evBatch, batch: in})
		})
	}
	for _, b := range fx.beats {
		n.sendBeat(b.to, b.beat)
	}
	if len(fx.records) > 0 {
		x.say("%d: write %s", n.id, describeRecords(fx.records))
		n.unsaved = append(n.unsaved, simAppend{turn: fx.turn, recs: slices.Clone(fx.records)})
	}
	for _, t := range fx.applies {
		n.tasks = append(n.tasks, func() { n.apply(t) })
	}
	for _, a := range fx.answers {
		a.p.Done(a.r)
	}
	for _, t := range fx.snapshots {
		n.stream(t)
	}
	for _, t := range fx.restores {
		x.say("%d: restore %d/%d", n.id, t.meta.Index, t.meta.Term)
		n.tasks = append(n.tasks, func() {
			r, _ := t.spool.Reader()
			if err := n.machine.Restore(t.meta, r); err != nil {
				x.t.Fatal(err)
			}
			n.flushed = t.meta
			n.step(event{kind: evRestored, restore: t})
		})
	}
	for _, q := range fx.queries {
		x.say("%d>%d tail? last %d/%d", n.id, q.to, q.state.LastIndex, q.state.LastTerm)
		n.wire(q.to, func(p *talker) {
			p.step(event{kind: evAsked, tail: &tailEvent{from: n.id, state: q.state, reply: func(s *wire.TailState) {
				x.say("%d>%d tail: term %d last %d/%d, knows of %d", p.id, n.id, s.Term, s.LastIndex, s.LastTerm, s.KnownMatch)
				p.wire(n.id, func(b *talker) { b.step(event{kind: evTail, tail: &tailEvent{from: p.id, state: s}}) })
			}}})
		})
	}
	for range fx.removed {
		x.say("%d: removed", n.id)
	}
}

func parseRaft(env *wire.Envelope) *pb.Message {
	if len(env.Raft) == 0 {
		return nil
	}
	m := &pb.Message{}
	if err := proto.Unmarshal(env.Raft, m); err != nil {
		panic(err)
	}
	return m
}

// describe prints an envelope.
func (x *talk) describe(env *wire.Envelope) string {
	if env.Removed {
		return "removed"
	}
	m := parseRaft(env)
	s := fmt.Sprintf("%s t%d", strings.TrimPrefix(m.GetType().String(), "Msg"), m.GetTerm())
	switch m.GetType() {
	case pb.MsgApp:
		s += fmt.Sprintf(" after %d/%d", m.GetIndex(), m.GetLogTerm())
		for _, e := range m.GetEntries() {
			s += " [" + describeEntry(e) + "]"
		}
		s += fmt.Sprintf(" commit %d", m.GetCommit())
	case pb.MsgAppResp:
		s += fmt.Sprintf(" at %d", m.GetIndex())
	case pb.MsgVote, pb.MsgPreVote:
		s += fmt.Sprintf(" log %d/%d", m.GetIndex(), m.GetLogTerm())
	}
	if m.GetReject() {
		s += fmt.Sprintf(" refused, hint %d", m.GetRejectHint())
	}
	if env.Promise != 0 {
		s += fmt.Sprintf(" promise %d", env.Promise)
	}
	if env.Revoked {
		s += " revoked"
	}
	if env.HybridTimeLease != 0 {
		s += " times to " + x.ht(hlc.Timestamp(env.HybridTimeLease))
	}
	return s
}

func describeEntry(re *pb.Entry) string {
	var e Entry
	if _, err := decodeEntry(re, &e, nil); err != nil {
		return err.Error()
	}
	s := fmt.Sprintf("%d/%d", e.Index, e.Term)
	switch {
	case e.Kind == KindConf:
		conf, _ := DecodeConf(e.Conf)
		s += " conf"
		for _, r := range conf {
			s += fmt.Sprintf(" %d%s", r.GetId(), map[catalog.Role]string{catalog.Role_ROLE_LEARNER: "l"}[r.GetRole()])
		}
	default:
		for _, w := range e.Writes {
			s += " " + string(w.Data)
		}
	}
	return s
}

func describeRecords(recs []journal.Record) string {
	var out []string
	for _, r := range recs {
		switch r.Kind {
		case journal.KindState:
			s, err := decodeState(r.Payload)
			if err != nil {
				return err.Error()
			}
			out = append(out, fmt.Sprintf("state t%d vote %d commit %d", s.term, s.vote, s.commit))
		case journal.KindEntry:
			e, _, err := decodeRecord(r.Pos, r.Payload)
			if err != nil {
				return err.Error()
			}
			out = append(out, "entry "+describeEntry(e))
		case journal.KindTruncate:
			out = append(out, fmt.Sprintf("truncate %d", r.Pos))
		case journal.KindStart:
			out = append(out, fmt.Sprintf("start %d", r.Pos))
		case journal.KindDrop:
			out = append(out, "drop")
		}
	}
	return strings.Join(out, ", ")
}

func (n *talker) apply(t *applyTask) {
	var ents []Entry
	last := t.prior
	for _, re := range t.ents {
		var e Entry
		if _, err := decodeEntry(re, &e, nil); err != nil {
			n.x.t.Fatal(err)
		}
		if e.HybridTime == 0 {
			e.HybridTime = last
		}
		last = e.HybridTime
		ents = append(ents, e)
		n.x.say("%d: apply %s", n.id, describeEntry(re))
	}
	if err := n.machine.Apply(ents); err != nil {
		n.x.t.Fatal(err)
	}
	end := ents[len(ents)-1]
	n.h.gate.applied(end.Index, end.Term, last)
	for i, p := range t.local {
		if p != nil && p.change == nil {
			for _, pr := range p.proposals {
				pr.Done(ProposalResult{HybridTime: p.time, Index: ents[i].Index, Copies: t.copies})
			}
		}
	}
	n.step(event{kind: evApplied, task: t})
}

func (n *talker) stream(t *snapshotTask) {
	x := n.x
	r, err := n.machine.Snapshot()
	if err != nil {
		x.t.Fatal(err)
	}
	meta := r.State()
	if len(meta.Conf) == 0 {
		meta.Conf = t.conf
	}
	raw, err := snapshotMessage(t, &meta)
	if err != nil {
		x.t.Fatal(err)
	}
	x.say("%d>%d snapshot %d/%d", n.id, t.node, meta.Index, meta.Term)
	spool := &memSpool{max: 1 << 20}
	if _, err := spool.buf.ReadFrom(r); err != nil {
		x.t.Fatal(err)
	}
	if x.cut[[2]catalog.NodeID{n.id, t.node}] {
		n.tasks = append(n.tasks, func() { n.step(event{kind: evStreamed, stream: t, err: errors.New("cut")}) })
		return
	}
	n.wire(t.node, func(p *talker) {
		m, meta, err := decodeSnapshot(raw)
		if err != nil {
			x.t.Fatal(err)
		}
		p.step(event{kind: evSnapshot, snapshot: &inSnapshot{group: talkGroup, from: n.id, inc: n.inc, msg: m, meta: meta, spool: spool}})
		n.step(event{kind: evStreamed, stream: t})
	})
}

// deliver hands over what is under way now, not what that causes.
func (x *talk) deliver() bool {
	wires := x.wires
	x.wires = nil
	for _, f := range wires {
		f()
	}
	return len(wires) > 0
}

// work syncs every disk and does every task.
func (x *talk) work() bool {
	any := false
	for _, n := range x.nodes {
		if n.alive {
			any = n.sync() || any
			for len(n.tasks) > 0 && n.alive {
				f := n.tasks[0]
				n.tasks = n.tasks[1:]
				f()
				any = true
			}
		}
	}
	return any
}

func (n *talker) sync() bool {
	if len(n.unsaved) == 0 {
		return false
	}
	for _, a := range n.unsaved {
		for _, r := range a.recs {
			replayRecord(n.disk, r)
		}
	}
	turn := n.unsaved[len(n.unsaved)-1].turn
	n.unsaved = nil
	n.step(event{kind: evDurable, turn: turn})
	return true
}
