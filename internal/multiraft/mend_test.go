package multiraft

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/journal"
	"github.com/braiddb/braid/internal/wire"
)

// handTimer collects what was to run later. The test runs it.
type handTimer struct {
	mu  sync.Mutex
	due []func()
}

func (h *handTimer) AfterFunc(_ time.Duration, f func()) func() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.due = append(h.due, f)
	return func() bool { return true }
}

func (h *handTimer) fire() {
	h.mu.Lock()
	due := h.due
	h.due = nil
	h.mu.Unlock()
	for _, f := range due {
		f()
	}
}

// handJournal takes appends and lets the test say what becomes of them.
type handJournal struct {
	recs    []journal.Record
	done    []func(error)
	onWrite func()
}

func (j *handJournal) Append(recs []journal.Record, done func(error)) {
	j.recs, j.done = append(j.recs, recs...), append(j.done, done)
	if f := j.onWrite; f != nil {
		j.onWrite = nil
		f()
	}
}
func (j *handJournal) SetLowWater(journal.StreamID, uint64) {}
func (j *handJournal) Full() bool                           { return false }

// handHost is a host that was never started: the test is its loops.
func handHost(t *testing.T, cfg Config, d Deps) *Host {
	d.Node, d.Incarnation = 1, 1
	d.Clock = hlc.New(func() int64 { return simEpoch }, cfg.withDefaults().MaxSkew)
	d.Mono = func() time.Duration { return time.Hour }
	d.Rand = rand.New(rand.NewPCG(1, 1))
	if d.Transport == nil {
		d.Transport = &testTransport{net: newTestNet(), self: 1}
	}
	if d.Timer == nil {
		d.Timer = &handTimer{}
	}
	if d.Journal == nil {
		d.Journal = &handJournal{}
	}
	h := New(cfg, d)
	t.Cleanup(h.Close)
	return h
}

// What the loop appends while refused appends are written again must not come
// before any of them, or replay would void what was acknowledged.
func TestRefusedAppendsAreWrittenAgainInOrder(t *testing.T) {
	timer, disk := &handTimer{}, &handJournal{}
	h := handHost(t, Config{Loops: 1}, Deps{Timer: timer, Journal: disk})
	a := &h.loops[0].journal
	entry := func(pos uint64) []journal.Record {
		return []journal.Record{{Stream: 7, Kind: journal.KindEntry, Pos: pos}}
	}
	a.add(1, entry(100))
	disk.done[0](journal.ErrNoSpace)
	a.add(2, entry(101))
	if len(disk.recs) != 1 {
		t.Fatalf("written behind a refused append: %v", disk.recs)
	}
	disk.recs, disk.done = nil, nil
	disk.onWrite = func() { a.add(3, entry(102)) } // the loop is fast
	timer.fire()
	a.add(4, entry(103))
	var got []string
	for _, r := range disk.recs {
		got = append(got, fmt.Sprintf("%d:%d", r.Kind, r.Pos))
	}
	want := []string{fmt.Sprintf("%d:100", journal.KindTruncate)}
	for pos := 100; pos <= 103; pos++ {
		want = append(want, fmt.Sprintf("%d:%d", journal.KindEntry, pos))
	}
	if !slices.Equal(got, want) {
		t.Fatalf("written again as %v, want %v", got, want)
	}
	// Refused once more in the middle: only what is before counts, and all from
	// there on is written a third time.
	for i, done := range slices.Clone(disk.done) {
		if i == 2 {
			done(journal.ErrNoSpace)
		} else {
			done(nil)
		}
	}
	turn := uint64(0)
	for _, e := range h.loops[0].mail.events {
		turn = max(turn, e.turn)
	}
	if turn != 2 {
		t.Fatalf("turn %d counts as durable, want 2", turn)
	}
	disk.recs, disk.done = nil, nil
	timer.fire()
	if len(disk.done) != 2 || disk.recs[0].Kind != journal.KindTruncate || disk.recs[0].Pos != 102 {
		t.Fatalf("third attempt writes %v", disk.recs)
	}
}

// A write above every bound on what waits gets in where nothing else waits, and
// one above EntryBytesMax has an entry of its own; beyond WriteBytesMax none is.
func TestOneLargeWriteIsLetIn(t *testing.T) {
	cfg := testConfig
	cfg.EntryBytesMax, cfg.WriteBytesMax = 1<<10, 3<<20
	cfg.ProposalBytesMax, cfg.ProposalBytesTotal = 1<<10, 2<<10
	nodes, _ := newCluster(t, 3, cfg, 0)
	put(t, nodes, 7, strings.Repeat("x", 2<<20))
	same(t, nodes, 1)
	if r, _ := propose(leaderOf(nodes, 7).host.Group(7), strings.Repeat("x", 3<<20)); !errors.Is(r.Err, ErrTooLarge) {
		t.Fatalf("a write above the bound: %v", r.Err)
	}
}

func TestAWriteMustFitAMessage(t *testing.T) {
	for _, c := range []Config{{MessageBytesMax: 1 << 20, WriteBytesMax: 1 << 20}, {MessageBytesMax: 4 << 20}, {SnapshotChunk: 9 << 20}} {
		c = c.withDefaults()
		if c.check() == nil {
			t.Errorf("accepted: writes of %d, entries of %d, chunks of %d in messages of %d", c.WriteBytesMax, c.EntryBytesMax, c.SnapshotChunk, c.MessageBytesMax)
		}
	}
	c := Config{MessageBytesMax: 65 << 20}.withDefaults()
	if err := c.check(); err != nil {
		t.Fatal(err)
	}
	// The largest write as it travels.
	data := appendEntryWrite(appendEntryHead(nil, KindWrites, 1<<62, 1), 1<<63, make([]byte, c.WriteBytesMax))
	raw, err := proto.Marshal(&pb.Message{Type: pb.MsgApp.Enum(), From: new(uint64(1 << 63)), To: new(uint64(1 << 63)), Term: new(uint64(1 << 63)),
		Index: new(uint64(1 << 63)), LogTerm: new(uint64(1 << 63)), Commit: new(uint64(1 << 63)),
		Entries: []*pb.Entry{{Term: new(uint64(1 << 63)), Index: new(uint64(1 << 63)), Data: data}}})
	if err != nil {
		t.Fatal(err)
	}
	x := &core{self: 1 << 63, inc: 1 << 63}
	x.post(1<<63, &wire.Envelope{Group: 1 << 63, FromReplica: 1 << 63, ToReplica: 1 << 63, Incarnation: 1 << 63, HybridTimeLease: 1 << 63,
		RemainingLeaseUs: 1 << 62, Revoked: true, Promise: 1 << 63, Removed: true, Raft: raw})
	x.fx.batches[0].batch.HybridTime = 1 << 63
	if n := x.fx.batches[0].batch.SizeVT(); n > c.MessageBytesMax {
		t.Fatalf("the largest write makes a message of %d bytes, the bound is %d", n, c.MessageBytesMax)
	}
}

// Everything to a node in one message could exceed what the transport carries.
func TestBatchesAreBounded(t *testing.T) {
	x := &core{self: 1}
	for range 40 {
		x.post(2, &wire.Envelope{Group: 1 << 63, FromReplica: 1 << 63, ToReplica: 1 << 63, Incarnation: 1 << 63, HybridTimeLease: 1 << 63,
			RemainingLeaseUs: 1 << 62, Revoked: true, Promise: 1 << 63, Removed: true, Raft: make([]byte, 1<<20)})
		x.post(3, &wire.Envelope{})
	}
	x.post(2, &wire.Envelope{Raft: make([]byte, 64<<20)})
	x.post(2, &wire.Envelope{Raft: []byte("vote")})
	small, large := 0, 0
	for _, b := range x.fx.batches {
		switch n := b.batch.SizeVT(); {
		case b.to == 3:
			small++
		case n > batchBytesMax && len(b.batch.Envelopes) > 1:
			t.Errorf("%d envelopes of %d bytes in one message", len(b.batch.Envelopes), n)
		default:
			large++
		}
	}
	if small != 1 || large < 11 || large > 16 {
		t.Fatalf("%d batches to one node, %d to the other", large, small)
	}
	if last := x.fx.batches[len(x.fx.batches)-1]; len(last.batch.Envelopes) != 1 || string(last.batch.Envelopes[0].Raft) != "vote" {
		t.Fatal("a vote travels with the largest write")
	}
}

// turn lets the core of the host's first loop take what was posted and more.
func (h *Host) turn(now time.Duration, more ...event) *effects {
	l := h.loops[0]
	events := append(l.mail.events, more...)
	l.mail.events = nil
	return l.core.step(now, events)
}

func createOne(t *testing.T, h *Host, gc GroupConfig) *Group {
	t.Helper()
	gc.ID, gc.Replica, gc.SM = 7, replicaOn(1), &listMachine{}
	g, err := h.Create(gc)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// A founder whose beginning may be in the lost tail may have voted before: it
// asks before it says a word. Alone it need not.
func TestSuspectFounderAsksFirst(t *testing.T) {
	for _, c := range []struct {
		suspect bool
		nodes   []catalog.NodeID
		asked   int
	}{{true, []catalog.NodeID{1, 2, 3}, 2}, {false, []catalog.NodeID{1, 2, 3}, 0}, {true, []catalog.NodeID{1}, 0}} {
		cfg := Config{Loops: 1, Suspect: c.suspect}
		h := handHost(t, cfg, Deps{})
		g := createOne(t, h, GroupConfig{New: true, Conf: confOn(c.nodes...)})
		fx := h.turn(time.Hour)
		if len(fx.queries) != c.asked || g.Status().Suspect != (c.asked > 0) {
			t.Errorf("%+v: asks %d peers, suspect %v", c, len(fx.queries), g.Status().Suspect)
		}
		if spoke := len(fx.batches) > 0; spoke != (c.asked == 0 && len(c.nodes) > 1) {
			t.Errorf("%+v: spoke %v", c, spoke)
		}
		if waits := g.g.votesFrom > time.Hour+h.cfg.Lease; waits != (c.asked > 0) {
			t.Errorf("%+v: votes from %s", c, g.g.votesFrom)
		}
	}
}

// A blank replica knows nobody to ask whether it voted before.
func TestSuspectBlankReplicaDoesNotVote(t *testing.T) {
	for _, suspect := range []bool{true, false} {
		h := handHost(t, Config{Loops: 1, Suspect: suspect}, Deps{})
		g := createOne(t, h, GroupConfig{})
		h.turn(time.Hour)
		vote := &pb.Message{Type: pb.MsgPreVote.Enum(), From: new(uint64(12)), To: new(uint64(11)), Term: new(uint64(5)),
			LogTerm: new(uint64(4)), Index: new(uint64(9))}
		handOver := &pb.Message{Type: pb.MsgVote.Enum(), From: new(uint64(12)), To: new(uint64(11)), Term: new(uint64(6)),
			LogTerm: new(uint64(4)), Index: new(uint64(9)), Context: campaignTransfer}
		fx := h.turn(time.Hour, event{kind: evBatch, batch: &inBatch{from: 2, inc: 1, msgs: []inMessage{
			{env: &wire.Envelope{Group: 7, FromReplica: 12, ToReplica: 11}, msg: vote},
			{env: &wire.Envelope{Group: 7, FromReplica: 12, ToReplica: 11, Revoked: true}, msg: handOver},
		}}})
		if answered := len(fx.batches)+len(fx.records) > 0; answered == suspect || g.Status().Suspect != suspect {
			t.Errorf("suspect %v: votes %v, says it is suspect %v", suspect, answered, g.Status().Suspect)
		}
	}
}

// A host that was suspended may find its monotonic clock where it was: then the
// lease seems to run, and the wall clock alone tells that it is long over.
func TestWallClockEndsALeaseToo(t *testing.T) {
	wall := int64(simEpoch)
	cfg := Config{}.withDefaults()
	d := &Deps{Node: 1, Incarnation: 1, Clock: hlc.New(func() int64 { return wall }, cfg.MaxSkew)}
	p := newPairs(d, &cfg, &Metrics{})
	g := gate{self: 1, clock: d.Clock, pairs: p}
	g.lead(2, 0, 0, []voters{{{11, 1}, {12, 2}, {13, 3}}})
	g.acknowledged(ack{replica: 12, inc: 1, gen: 1})
	g.applied(2, 2, 0)
	promise := func() {
		p.mu.Lock()
		p.pairLocked(2).got = grant{inc: 1, gen: 1, until: time.Hour + cfg.Lease, times: p.boundNow()}
		p.mu.Unlock()
	}
	promise()
	if _, err := g.readTime(time.Hour); err != nil {
		t.Fatal(err)
	}
	wall += (cfg.Lease + time.Second).Microseconds()
	if _, err := g.readTime(time.Hour); !errors.Is(err, ErrNotReady) {
		t.Fatalf("read under a lease that is over: %v", err)
	}
	if err := g.leadingNow(time.Hour); !errors.Is(err, ErrNotReady) {
		t.Fatalf("leads under a lease that is over: %v", err)
	}
	promise()
	if _, err := g.readTime(time.Hour); err != nil {
		t.Fatalf("with a new promise: %v", err)
	}
}

// What an earlier life promised under a longer lease is waited out.
func TestRestartWaitsOutTheLongestPromise(t *testing.T) {
	h := handHost(t, Config{Loops: 1, Lease: 2 * time.Second, PromisedBefore: 10 * time.Second}, Deps{})
	st := state{term: 3, startIndex: bootIndex, startTerm: bootTerm, conf: EncodeConf(confOn(1, 2, 3))}
	g := createOne(t, h, GroupConfig{Recovered: &journal.StreamReplay{State: encodeState(nil, &st)}})
	h.turn(time.Hour)
	if want := time.Hour + 10*time.Second + h.cfg.MaxSkew; g.g.votesFrom != want {
		t.Fatalf("votes from %s, want %s", g.g.votesFrom, want)
	} else if h.VotesFrom() != want {
		t.Fatalf("the host says that it votes from %s, want %s", h.VotesFrom(), want)
	}
	if h.pairs.lease != 2*time.Second {
		t.Fatalf("promises %s", h.pairs.lease)
	}
	if c := (Config{Lease: 3 * time.Second}).withDefaults(); c.PromisedBefore != c.Lease {
		t.Fatalf("without a word of earlier lives: %s", c.PromisedBefore)
	}
}

// The total of all logs is the node's, whatever the number of loops.
func TestLoopsShareTheLogTotal(t *testing.T) {
	for _, loops := range []int{1, 4} {
		h := handHost(t, Config{Loops: loops, LogBytesTotal: 1000}, Deps{})
		c := h.loops[0].core
		g := &group{h: &Group{}, applied: 2}
		g.log.reset(1, 1)
		g.log.append([]*pb.Entry{{Index: new(uint64(2)), Term: new(uint64(1)), Data: make([]byte, 400)}})
		c.bytes = g.log.bytes
		if c.bound(g); (g.log.bytes == 0) != (loops == 4) {
			t.Errorf("%d loops: a log of %d bytes stays", loops, g.log.bytes)
		}
	}
}

// deafTransport takes a chunk and never answers.
type deafTransport struct {
	testTransport
	took chan struct{}
}

func (d *deafTransport) SendSnapshotChunk(ctx context.Context, _ catalog.NodeID, _ *wire.SnapshotChunk) error {
	close(d.took)
	<-ctx.Done()
	return ctx.Err()
}

func TestSnapshotIntoASilentPeerEnds(t *testing.T) {
	timer, deaf := &handTimer{}, &deafTransport{took: make(chan struct{})}
	h := handHost(t, Config{}, Deps{Timer: timer, Transport: deaf})
	g := &group{id: 7, replica: 11}
	r := &listSnapshot{state: AppliedState{Index: 5, Term: 2, Conf: EncodeConf(confOn(1, 2))}, Reader: &sliceReader{b: []byte("all")}}
	s, err := h.newSender(&snapshotTask{g: g, to: 12, node: 2, term: 2}, r)
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	go func() {
		_, err := s.next(h.ctx)
		failed <- err
	}()
	<-deaf.took
	timer.fire()
	if err := <-failed; !errors.Is(err, errChunkStuck) {
		t.Fatalf("ended with %v", err)
	}
}

// A stream that never ends must not keep the log without bound.
func TestLeavingSnapshotPinsTheLogForAWhileOnly(t *testing.T) {
	h := handHost(t, Config{Loops: 1, LogBytesMax: 1000}, Deps{})
	c := h.loops[0].core
	g := &group{h: &Group{}}
	g.log.reset(1, 1)
	task := &snapshotTask{g: g, index: 1}
	g.streams = []*snapshotTask{task}
	for i := uint64(2); i < 20; i++ {
		before := g.log.bytes
		g.log.append([]*pb.Entry{{Index: new(i), Term: new(uint64(1)), Data: make([]byte, 400)}})
		c.bytes += g.log.bytes - before
		g.applied = i
		c.bound(g)
		if g.log.bytes > pinnedLogs*1000 {
			t.Fatalf("a log of %d bytes stays, of %d at most", g.log.bytes, 1000)
		}
		if kept := g.log.base == 1; kept == task.givenUp {
			t.Fatalf("at %d bytes: kept %v, stream given up %v", g.log.bytes, kept, task.givenUp)
		}
	}
	if len(c.fx.giveUps) != 1 {
		t.Fatalf("%d streams were ended", len(c.fx.giveUps))
	}
	// The next one is kept for again.
	c.streamSnapshot(g, 12, 2, &pb.Message{Term: new(uint64(2)), Snapshot: &pb.Snapshot{Metadata: &pb.SnapshotMetadata{Index: new(g.applied)}}})
	if c.pinned(g) != g.applied {
		t.Fatalf("the log is kept above %d for a stream at %d", c.pinned(g), g.applied)
	}
}

// A damaged replica does not fill the journal; and what is left of its stream
// never passes for a sound one.
func TestDamagedReplicaLetsTheJournalGo(t *testing.T) {
	h := handHost(t, Config{Loops: 1}, Deps{})
	st := state{term: 3, startIndex: bootIndex, startTerm: bootTerm, conf: EncodeConf(confOn(1, 2, 3))}
	rec := journal.Record{Stream: 7, Kind: journal.KindEntry, Pos: 20, Payload: appendRecord(nil,
		&pb.Entry{Index: new(uint64(20)), Term: new(uint64(3)), Data: appendEntryHead(nil, KindWrites, 1, 0)}, 10)}
	applied := AppliedState{Index: 10, Term: 2}
	g := createOne(t, h, GroupConfig{Applied: applied, Recovered: &journal.StreamReplay{State: encodeState(nil, &st), Records: []journal.Record{rec}}})
	fx := h.turn(time.Hour)
	if !g.Status().Corrupt || len(fx.records) != 1 || fx.records[0].Kind != journal.KindState || len(fx.lowWaters) != 0 {
		t.Fatalf("corrupt %v, writes %v, lets go %v", g.Status().Corrupt, fx.records, fx.lowWaters)
	}
	left := fx.records[0].Payload
	if fx = h.turn(time.Hour, event{kind: evDurable, turn: fx.turn}); len(fx.lowWaters) != 1 || fx.lowWaters[0].pos < 20 {
		t.Fatalf("lets go %v", fx.lowWaters)
	}
	for _, a := range []AppliedState{applied, {}} {
		next := &Group{}
		if _, err := newGroup(next, &GroupConfig{ID: 7, Replica: 11, Applied: a, Recovered: &journal.StreamReplay{State: left}}); !errors.Is(err, errCorrupt) {
			t.Fatalf("the next life with the state machine at %d: %v", a.Index, err)
		}
	}
}

// A retired replica's journal is cut as it is flushed, until it is removed.
func TestRetiredReplicaLetsTheJournalGo(t *testing.T) {
	h := handHost(t, Config{Loops: 1}, Deps{})
	g := createOne(t, h, GroupConfig{New: true, Conf: confOn(1, 2, 3)})
	h.turn(time.Hour)
	h.turn(time.Hour, event{kind: evCall, call: func(c *core) { c.retire(g.g) }})
	if fx := h.turn(time.Hour, event{kind: evFlushed, group: g.g, index: 9}); len(fx.lowWaters) != 1 || fx.lowWaters[0].pos != 9 {
		t.Fatalf("lets go %v", fx.lowWaters)
	}
}

// A host that was closed answers at once, whoever still asks.
func TestClosedHostAnswers(t *testing.T) {
	for _, started := range []bool{true, false} {
		h := handHost(t, Config{Loops: 1}, Deps{})
		g := createOne(t, h, GroupConfig{New: true, Conf: confOn(1)})
		if started {
			h.Start()
		}
		h.Close()
		answers := make(chan error, 2)
		g.loop.post(event{kind: evPropose, proposal: &Proposal{group: g, Done: func(r ProposalResult) { answers <- r.Err }}})
		g.loop.post(event{kind: evChange, group: g.g, change: &changeRequest{done: func(err error) { answers <- err }}})
		for range 2 {
			select {
			case err := <-answers:
				if !errors.Is(err, ErrStopped) {
					t.Errorf("started %v: %v", started, err)
				}
			default:
				t.Errorf("started %v: no answer", started)
			}
		}
		closed := false
		g.loop.post(event{kind: evSnapshot, snapshot: &inSnapshot{spool: closeSpool{&closed}}})
		if !closed || len(g.loop.mail.events) != 0 {
			t.Errorf("started %v: spool closed %v, %d events queue", started, closed, len(g.loop.mail.events))
		}
	}
}

type closeSpool struct{ closed *bool }

func (closeSpool) Write(b []byte) (int, error) { return len(b), nil }
func (closeSpool) Reader() (io.Reader, error)  { return strings.NewReader(""), nil }
func (s closeSpool) Close() error              { *s.closed = true; return nil }

// slowMachine restores when it is told to, as it is told.
type slowMachine struct {
	listMachine
	began chan struct{}
	end   chan error
	after atomic.Bool // a restore began or ended when all was destroyed
	dead  atomic.Bool
}

func (m *slowMachine) Restore(AppliedState, io.Reader) error {
	m.began <- struct{}{}
	err := <-m.end
	if m.dead.Load() {
		m.after.Store(true)
	}
	return err
}

func (m *slowMachine) Destroy() error { m.dead.Store(true); return nil }

// A replica is removed while a snapshot goes into its state machine: what the
// restore brings must be gone too.
func TestRemoveDuringRestore(t *testing.T) {
	for _, fault := range []error{nil, errors.New("disk")} {
		n := newTestNode(t, newTestNet(), 1, testConfig, 0)
		m := &slowMachine{began: make(chan struct{}), end: make(chan error)}
		g := n.create(GroupConfig{ID: 7, Replica: replicaOn(1), SM: m})
		closed := false
		g.loop.restore(&restoreTask{g: g.g, spool: closeSpool{&closed}})
		<-m.began
		removed := make(chan error, 1)
		go func() { removed <- n.host.Remove(7) }()
		eventually(t, "the replica goes", func() bool {
			g.loop.applier.mu.Lock()
			defer g.loop.applier.mu.Unlock()
			r := g.loop.applier.mu.restoring[g.g]
			return r == nil || r.destroy
		})
		if m.dead.Load() {
			t.Error("destroyed beside a restore")
		}
		m.end <- fault
		if err := <-removed; err != nil || !m.dead.Load() {
			t.Errorf("removed: %v, destroyed %v", err, m.dead.Load())
		}
		n.host.Close()
		n.stop()
		if m.after.Load() || !closed {
			t.Errorf("restored after it was destroyed: %v; spool closed: %v", m.after.Load(), closed)
		}
	}
}

// A replica in doubt asks the voters that can know: those of configurations that
// were superseded before its journal ended may be gone for good.
func TestSuspectAsksWhoStillDecides(t *testing.T) {
	h := handHost(t, Config{Loops: 1, Suspect: true}, Deps{})
	c := h.loops[0].core
	g := &group{replica: replicaOn(1), h: &Group{}, conf: confOn(1, 2, 3), commit: 5,
		pendConf: []confAt{{index: 4, conf: confOn(1, 2, 4)}, {index: 5, conf: confOn(1, 4)}, {index: 6, conf: confOn(1, 4, 5)}}}
	c.doubtTail(g)
	if len(g.tail.asked) != 2 || g.tail.asked[0].node != 4 || g.tail.asked[1].node != 5 {
		t.Fatalf("asks %v, nodes 4 and 5 decide", g.tail.asked)
	}
	if g.majorityAnswered() {
		t.Fatal("it decides without a word from anybody")
	}
	g.tail.answers[0] = &wire.TailState{}
	if !g.majorityAnswered() {
		t.Fatal("it waits for voters that are gone")
	}
}

// A voter that follows another leader keeps in mind what bound it acknowledged to the
// one before: its next vote carries that, though no vote of its own was asked for.
func TestAVoterCarriesTheBoundToItsNextLeader(t *testing.T) {
	h := handHost(t, Config{Loops: 1}, Deps{})
	g := createOne(t, h, GroupConfig{New: true, Conf: confOn(1, 2, 3)})
	h.turn(time.Hour)
	c, in := h.loops[0].core, g.g
	bound := hlc.FromMicros(simEpoch).Add(time.Hour)
	h.pairs.mu.Lock()
	h.pairs.pairLocked(2).given.times = bound
	h.pairs.mu.Unlock()
	in.term, in.lead, in.unread, in.floor = 5, replicaOn(2), false, 0
	if c.stamp(in, in.lead, 2, 5) == 0 || in.floor != 0 {
		t.Fatalf("pledged to node 2 with floor %s", in.floor)
	}
	in.term, in.lead = 6, replicaOn(3)
	if c.stamp(in, in.lead, 3, 6) == 0 || in.floor != bound {
		t.Errorf("pledged to node 3 with floor %s, not %s", in.floor, bound)
	}
}

// A hole between entries is damage: the journal takes nothing of a group behind an
// entry that it refused, so no refusal makes one.
func TestAHoleBetweenEntriesIsDamage(t *testing.T) {
	h := handHost(t, Config{Loops: 1}, Deps{})
	var records []journal.Record
	for _, i := range []uint64{2, 3, 5, 6} {
		e := &pb.Entry{Type: pb.EntryNormal.Enum(), Index: new(i), Term: new(uint64(1))}
		records = append(records, journal.Record{Stream: 7, Kind: journal.KindEntry, Pos: i, Payload: appendRecord(nil, e, 1)})
	}
	state := encodeState(nil, &state{term: 1, startIndex: bootIndex, startTerm: bootTerm, conf: EncodeConf(confOn(1, 2, 3))})
	g, err := h.Create(GroupConfig{ID: 7, Replica: replicaOn(1), SM: &listMachine{}, Recovered: &journal.StreamReplay{State: state, StartPos: bootIndex, Records: records}})
	if err != nil {
		t.Fatal(err)
	}
	if !errors.Is(g.damaged, errCorrupt) {
		t.Fatalf("entries without the fourth: %v", g.damaged)
	}
}

// A full disk refuses entries and takes the state behind them: what that says is
// committed is not what the log has at that index.
func TestACommitCountsOnlyWithItsEntry(t *testing.T) {
	for _, row := range []struct{ commit, term, want uint64 }{
		{4, 1, 4}, // the entry is there
		{5, 2, 1}, // the one there is a former leader's, never committed
		{9, 2, 1}, // as much longer as the log of that term was
		{5, 0, 1}, // of a version that did not say
	} {
		h := handHost(t, Config{Loops: 1}, Deps{})
		var records []journal.Record
		for _, i := range []uint64{2, 3, 4, 5} {
			e := &pb.Entry{Type: pb.EntryNormal.Enum(), Index: new(i), Term: new(uint64(1))}
			records = append(records, journal.Record{Stream: 7, Kind: journal.KindEntry, Pos: i, Payload: appendRecord(nil, e, 1)})
		}
		state := encodeState(nil, &state{term: 2, commit: row.commit, commitTerm: row.term, startIndex: bootIndex, startTerm: bootTerm, conf: EncodeConf(confOn(1, 2, 3))})
		g := createOne(t, h, GroupConfig{Recovered: &journal.StreamReplay{State: state, StartPos: bootIndex, Records: records}})
		if g.damaged != nil {
			t.Fatal(g.damaged)
		}
		h.turn(time.Hour)
		if g.g.commit != row.want {
			t.Errorf("entry %d of term %d committed, says the state; the log has 2 to 5 of term 1: %d is taken for committed, not %d", row.commit, row.term, g.g.commit, row.want)
		}
	}
}

// A state machine may be durable up to where its replica was still a learner. What made
// it a voter is in the log, and known to be committed: nobody else need say so first,
// for all that are left may be in the same place (M12).
func TestAVoterLearnsThatItIsOneByItself(t *testing.T) {
	for _, committed := range []bool{true, false} {
		h := handHost(t, Config{Loops: 1}, Deps{})
		was := confOn(1, 2, 3)
		was[0].Role = catalog.Role_ROLE_LEARNER
		data, err := proto.Marshal(&pb.ConfChangeV2{
			Changes: []*pb.ConfChangeSingle{{Type: pb.ConfChangeAddNode.Enum(), NodeId: new(uint64(replicaOn(1)))}},
			Context: appendEntryWrite(appendEntryHead(nil, KindConf, 1, 1), 1, EncodeConf(confOn(1, 2, 3)))})
		if err != nil {
			t.Fatal(err)
		}
		promotion := &pb.Entry{Type: pb.EntryConfChangeV2.Enum(), Index: new(uint64(2)), Term: new(uint64(1)), Data: data}
		st := state{term: 1, startIndex: bootIndex, startTerm: bootTerm, conf: EncodeConf(was)}
		if committed {
			st.commit, st.commitTerm = 2, 1
		}
		g := createOne(t, h, GroupConfig{Recovered: &journal.StreamReplay{State: encodeState(nil, &st), StartPos: bootIndex,
			Records: []journal.Record{{Stream: 7, Kind: journal.KindEntry, Pos: 2, Payload: appendRecord(nil, promotion, 1)}}}})
		if g.damaged != nil {
			t.Fatal(g.damaged)
		}
		for _, task := range slices.Clone(h.turn(time.Hour).applies) {
			h.turn(time.Hour, event{kind: evApplied, task: task})
		}
		if is := g.Status().Role == RoleFollower && g.g.electAt != 0; is != committed {
			t.Errorf("its promotion is committed: %v; a voter that will campaign: %v", committed, is)
		}
	}
}

// Between two looks at raft a leader's entry may come, and a later leader's that takes
// its place: the first was never written, and its acknowledgement is not said.
func TestWhatWasOverwrittenUnwrittenIsNotAcknowledged(t *testing.T) {
	h := handHost(t, Config{Loops: 1}, Deps{})
	g := createOne(t, h, GroupConfig{New: true, Conf: confOn(1, 2, 3)})
	h.turn(time.Hour)
	c, in := h.loops[0].core, g.g
	// To a replica that nobody knows, so that what is said is counted as a stray.
	ack := func(term, index uint64) (said uint64, panicked any) {
		defer func() { panicked = recover() }()
		before := c.metrics.Strays.Load()
		in.durable.index, in.durable.term = 48, 14
		c.deliver(&part{g: in, responses: []*pb.Message{{Type: pb.MsgAppResp.Enum(), From: new(uint64(in.replica)), To: new(uint64(99)), Term: new(term), Index: new(index)}}})
		return c.metrics.Strays.Load() - before, nil
	}
	if said, panicked := ack(13, 49); said != 0 || panicked != nil {
		t.Errorf("entry 49 of a term that is over, with 48 in its place: %d messages, %v", said, panicked)
	}
	if said, panicked := ack(14, 48); said != 1 || panicked != nil {
		t.Errorf("entry 48, which is durable: %d messages, %v", said, panicked)
	}
	if _, panicked := ack(14, 49); panicked == nil {
		t.Error("entry 49 is acknowledged, with 48 durable, in the term that is")
	}
}

// A voter that lost what it had acknowledged votes for nobody whose log lacks it: what
// it and the leader of then held may be on no other living replica.
func TestAVoterThatOwesVotesForWhoHoldsIt(t *testing.T) {
	h := handHost(t, Config{Loops: 1}, Deps{})
	g := createOne(t, h, GroupConfig{New: true, Conf: confOn(1, 2, 3)})
	h.turn(time.Hour)
	c, in := h.loops[0].core, g.g
	in.owes = owed{index: 9, term: 3}
	for _, v := range []struct {
		term, index uint64
		may         bool
	}{{3, 8, false}, {2, 8, false}, {3, 9, true}, {4, 2, true}} {
		vote := &pb.Message{Type: pb.MsgVote.Enum(), From: new(uint64(12)), To: new(uint64(11)), Term: new(uint64(5)),
			LogTerm: new(v.term), Index: new(v.index)}
		if may := c.mayVote(in, 2, &wire.Envelope{}, vote); may != v.may {
			t.Errorf("owing entry 9 of term 3 it votes for a log that ends at %d of term %d: %v", v.index, v.term, may)
		}
	}
}

// A hand-over that has come to nothing ends in the turn in which a later leader was
// heard of: raft follows that one already, and would pass on what is to raise its term.
func TestAbdicationThatALaterLeaderForestalled(t *testing.T) {
	h := handHost(t, Config{Loops: 1}, Deps{})
	g := createOne(t, h, GroupConfig{Conf: confOn(1, 2, 3), New: true})
	h.turn(time.Hour, event{kind: evCall, call: func(c *core) {
		later := g.g.term + 1
		c.stepRaft(g.g, &pb.Message{Type: pb.MsgHeartbeat.Enum(), From: new(uint64(12)), To: new(uint64(g.g.replica)), Term: new(later)})
		c.abdicate(g.g)
		if s := g.g.rn.BasicStatus(); s.GetTerm() != later || s.Lead != 12 {
			t.Errorf("term %d follows %d, it heard of 12 in term %d", s.GetTerm(), s.Lead, later)
		}
	}})
}

// A replica is gone when its log is: were the next one of the group made here before
// that, it would find the log of this one after a crash.
func TestRemovedMeansForgottenByTheJournal(t *testing.T) {
	n := newTestNode(t, newTestNet(), 1, testConfig, 20*time.Millisecond)
	n.create(GroupConfig{ID: 7, Replica: replicaOn(1), Conf: confOn(1), New: true})
	put(t, []*testNode{n}, 7, "something")
	if err := n.host.Remove(7); err != nil {
		t.Fatal(err)
	}
	if left := n.journal.replay(7); left != nil {
		t.Errorf("the replica is gone; the journal has %d records of it", len(left.Records))
	}
	if !n.machines[7].gone {
		t.Error("the state machine outlives its removal")
	}
	n.host.Close()
	n.stop()
}

// TestARefusalNamesWhoLedThen: who is refused twice under one leader is told the same, and
// what he was told stays as it is when there is another.
func TestARefusalNamesWhoLedThen(t *testing.T) {
	cfg := Config{}.withDefaults()
	d := &Deps{Node: 1, Incarnation: 1, Clock: hlc.New(func() int64 { return int64(simEpoch) }, cfg.MaxSkew)}
	g := gate{self: 1, clock: d.Clock, pairs: newPairs(d, &cfg, &Metrics{})}
	refused := func() *NotLeaderError {
		var e *NotLeaderError
		if err := g.leadingNow(time.Hour); !errors.As(err, &e) {
			t.Fatalf("a follower leads: %v", err)
		}
		return e
	}
	g.follow(2)
	first, again := refused(), refused()
	g.follow(3)
	second := refused()
	if first != again || first.Node != 2 || second.Node != 3 {
		t.Fatalf("told %v, %v, and of another leader %v", first, again, second)
	}
}
