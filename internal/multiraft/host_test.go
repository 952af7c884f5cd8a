package multiraft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/journal"
	"github.com/braiddb/braid/internal/wire"
)

// memJournal syncs after a delay, in order, and survives its host.
type memJournal struct {
	mu      sync.Mutex
	streams map[journal.StreamID]*journal.StreamReplay
	queue   chan func()
	delay   time.Duration
	refuse  atomic.Bool // entries get ErrNoSpace
	closed  bool
}

func newMemJournal(delay time.Duration) *memJournal {
	return &memJournal{streams: make(map[journal.StreamID]*journal.StreamReplay), delay: delay}
}

// open begins a life of the journal; the returned function ends it.
func (j *memJournal) open() func() {
	q := make(chan func(), 1<<16)
	j.mu.Lock()
	j.queue, j.closed = q, false
	j.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for f := range q {
			f()
		}
	}()
	return func() {
		j.mu.Lock()
		j.closed = true
		j.mu.Unlock()
		close(q)
		<-done
	}
}

func (j *memJournal) Append(recs []journal.Record, done func(error)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return
	}
	recs = append([]journal.Record(nil), recs...)
	j.queue <- func() {
		if j.delay > 0 {
			t := time.NewTimer(j.delay)
			<-t.C
		}
		if j.refuse.Load() {
			for _, r := range recs {
				if r.Kind == journal.KindEntry {
					done(journal.ErrNoSpace)
					return
				}
			}
		}
		j.mu.Lock()
		for _, r := range recs {
			replayRecord(j.streams, r)
		}
		j.mu.Unlock()
		done(nil)
	}
}

// replayRecord does to a replay what the journal does when it is read.
func replayRecord(streams map[journal.StreamID]*journal.StreamReplay, r journal.Record) {
	s := streams[r.Stream]
	if s == nil {
		s = &journal.StreamReplay{}
		streams[r.Stream] = s
	}
	r.Payload = append([]byte(nil), r.Payload...)
	switch r.Kind {
	case journal.KindState:
		s.State = r.Payload
	case journal.KindEntry:
		if n := len(s.Records); n > 0 && s.Records[n-1].Pos+1 != r.Pos {
			panic(fmt.Sprintf("stream %d: entry %d follows %d", r.Stream, r.Pos, s.Records[n-1].Pos))
		}
		s.Records = append(s.Records, r)
	case journal.KindTruncate:
		for len(s.Records) > 0 && s.Records[len(s.Records)-1].Pos >= r.Pos {
			s.Records = s.Records[:len(s.Records)-1]
		}
	case journal.KindStart:
		s.StartPos, s.Records, s.Corrupt = r.Pos, nil, false
	case journal.KindDrop:
		delete(streams, r.Stream)
	}
}

func (j *memJournal) SetLowWater(s journal.StreamID, pos uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	r := j.streams[s]
	for r != nil && len(r.Records) > 0 && r.Records[0].Pos <= pos {
		r.Records = r.Records[1:]
	}
}

func (j *memJournal) Full() bool { return j.refuse.Load() }

func (j *memJournal) replay(id catalog.GroupID) *journal.StreamReplay {
	j.mu.Lock()
	defer j.mu.Unlock()
	r := j.streams[journal.StreamID(id)]
	if r == nil {
		return nil
	}
	c := *r
	c.Records = append([]journal.Record(nil), r.Records...)
	return &c
}

// listMachine is a state machine that remembers what it applied.
type listMachine struct {
	mu    sync.Mutex
	state AppliedState
	datas []string
	times []hlc.Timestamp
	gone  bool
}

func (m *listMachine) Apply(ents []Entry) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range ents {
		if e.Index != m.state.Index+1 && m.state.Index != 0 {
			return fmt.Errorf("entry %d after %d", e.Index, m.state.Index)
		}
		if len(e.Writes) > 0 && e.HybridTime <= m.state.HybridTime {
			return fmt.Errorf("entry %d at %s, the one before at %s", e.Index, e.HybridTime, m.state.HybridTime)
		}
		m.state.Index, m.state.Term, m.state.HybridTime = e.Index, e.Term, e.HybridTime
		if e.Kind == KindConf {
			m.state.Conf = append([]byte(nil), e.Conf...)
			continue
		}
		for _, w := range e.Writes {
			m.datas = append(m.datas, string(w.Data))
			m.times = append(m.times, e.HybridTime)
		}
	}
	return nil
}

type listSnapshot struct {
	state AppliedState
	io.Reader
}

func (s *listSnapshot) State() AppliedState { return s.state }
func (s *listSnapshot) Close() error        { return nil }

func (m *listMachine) Snapshot() (SnapshotReader, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b []byte
	for i, d := range m.datas {
		b = binary.LittleEndian.AppendUint64(b, uint64(m.times[i]))
		b = binary.LittleEndian.AppendUint64(b, uint64(len(d)))
		b = append(b, d...)
	}
	return &listSnapshot{state: m.state, Reader: &sliceReader{b: b}}, nil
}

type sliceReader struct{ b []byte }

func (r *sliceReader) Read(p []byte) (int, error) {
	if len(r.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.b)
	r.b = r.b[n:]
	return n, nil
}

func (m *listMachine) Restore(meta AppliedState, r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state, m.datas, m.times = meta, nil, nil
	for len(b) >= 16 {
		t, n := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
		m.times = append(m.times, hlc.Timestamp(t))
		m.datas = append(m.datas, string(b[16:16+n]))
		b = b[16+n:]
	}
	return nil
}

func (m *listMachine) Destroy() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gone = true
	return nil
}

func (m *listMachine) list() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.datas...)
}

// net joins hosts in one process.
type testNet struct {
	mu    sync.Mutex
	hosts map[catalog.NodeID]*Host
	cut   map[[2]catalog.NodeID]bool
}

type testTransport struct {
	net  *testNet
	self catalog.NodeID
}

func (t *testTransport) peer(to catalog.NodeID) *Host {
	t.net.mu.Lock()
	defer t.net.mu.Unlock()
	if t.net.cut[[2]catalog.NodeID{t.self, to}] || t.net.cut[[2]catalog.NodeID{to, t.self}] {
		return nil
	}
	return t.net.hosts[to]
}

func (t *testTransport) SendBatch(to catalog.NodeID, b *wire.RaftBatch) {
	if h := t.peer(to); h != nil {
		raw, _ := b.MarshalVT()
		c := &wire.RaftBatch{}
		if err := c.UnmarshalVT(raw); err != nil {
			panic(err)
		}
		h.HandleBatch(c)
	}
}

func (t *testTransport) SendBeat(to catalog.NodeID, b *wire.Beat) {
	if h := t.peer(to); h != nil {
		h.HandleBeat(b)
	}
}

func (t *testTransport) TailQuery(to catalog.NodeID, q *wire.TailQuery, done func(*wire.TailAnswer, error)) {
	h := t.peer(to)
	if h == nil {
		done(nil, errors.New("unreachable"))
		return
	}
	h.HandleTailQuery(q, func(a *wire.TailAnswer) { done(a, nil) })
}

func (t *testTransport) SendSnapshotChunk(_ context.Context, to catalog.NodeID, c *wire.SnapshotChunk) error {
	h := t.peer(to)
	if h == nil {
		return errors.New("unreachable")
	}
	c.Data = append([]byte(nil), c.Data...)
	if a := h.HandleSnapshotChunk(c); a.Error != nil {
		return errors.New(a.Error.Message)
	}
	return nil
}

type realTimer struct{}

func (realTimer) AfterFunc(d time.Duration, f func()) func() bool { return time.AfterFunc(d, f).Stop }

// testNode is one node over its lives.
type testNode struct {
	t        testing.TB
	id       catalog.NodeID
	inc      uint64
	net      *testNet
	cfg      Config
	journal  *memJournal
	stop     func()
	host     *Host
	machines map[catalog.GroupID]*listMachine
	fatal    atomic.Pointer[error]
	offset   atomic.Int64 // of its wall clock
}

func newTestNet() *testNet {
	return &testNet{hosts: make(map[catalog.NodeID]*Host), cut: make(map[[2]catalog.NodeID]bool)}
}

var testConfig = Config{Beat: 20 * time.Millisecond, Lease: 200 * time.Millisecond, ElectionDelay: 30 * time.Millisecond,
	MaxSkew: 50 * time.Millisecond, TransferMax: 200 * time.Millisecond}

func newTestNode(t testing.TB, net *testNet, id catalog.NodeID, cfg Config, syncTime time.Duration) *testNode {
	n := &testNode{t: t, id: id, net: net, cfg: cfg, journal: newMemJournal(syncTime), machines: make(map[catalog.GroupID]*listMachine)}
	n.start()
	return n
}

func (n *testNode) start() {
	n.inc++
	n.stop = n.journal.open()
	begin := time.Now()
	n.host = New(n.cfg, Deps{Node: n.id, Incarnation: n.inc,
		Clock:   hlc.New(func() int64 { return time.Now().Add(time.Duration(n.offset.Load())).UnixMicro() }, n.cfg.withDefaults().MaxSkew),
		Mono:    func() time.Duration { return time.Since(begin) + time.Second },
		Timer:   realTimer{},
		Journal: n.journal, Transport: &testTransport{net: n.net, self: n.id},
		Rand:  rand.New(rand.NewPCG(uint64(n.id), n.inc)),
		Fatal: func(err error) { n.fatal.Store(&err) },
	})
	n.net.mu.Lock()
	n.net.hosts[n.id] = n.host
	n.net.mu.Unlock()
	n.host.Start()
}

// kill ends the node as a power cut would: nothing is said to anybody.
func (n *testNode) kill() {
	n.net.mu.Lock()
	delete(n.net.hosts, n.id)
	n.net.mu.Unlock()
	n.stop()
	n.host.fatal.Store(true) // nothing that is under way says a word more
	n.host.Close()
}

// restart begins a new life with what the journal has; state machines lose what
// they had, as nothing was flushed.
func (n *testNode) restart() {
	n.start()
	for id := range n.machines {
		n.machines[id] = &listMachine{}
		n.create(GroupConfig{ID: id, Replica: replicaOn(n.id), Recovered: n.journal.replay(id), SM: n.machines[id]})
	}
}

func (n *testNode) create(gc GroupConfig) *Group {
	if gc.SM == nil {
		m := &listMachine{}
		n.machines[gc.ID] = m
		gc.SM = m
	}
	g, err := n.host.Create(gc)
	if err != nil {
		n.t.Fatal(err)
	}
	return g
}

func replicaOn(n catalog.NodeID) catalog.ReplicaID { return catalog.ReplicaID(n) + 10 }

func confOn(nodes ...catalog.NodeID) []*catalog.Replica {
	var out []*catalog.Replica
	for _, n := range nodes {
		out = append(out, &catalog.Replica{Id: uint64(replicaOn(n)), Node: uint64(n), Role: catalog.Role_ROLE_VOTER})
	}
	return out
}

// cluster is some nodes with group 7 on all of them.
func newCluster(t testing.TB, n int, cfg Config, syncTime time.Duration) ([]*testNode, *testNet) {
	net := newTestNet()
	var nodes []*testNode
	var ids []catalog.NodeID
	for i := range n {
		ids = append(ids, catalog.NodeID(i+1))
	}
	for _, id := range ids {
		nodes = append(nodes, newTestNode(t, net, id, cfg, syncTime))
	}
	t.Cleanup(func() {
		for _, x := range nodes {
			net.mu.Lock()
			alive := net.hosts[x.id] == x.host
			net.mu.Unlock()
			if alive {
				x.host.Close()
				x.stop()
			}
			if err := x.fatal.Load(); err != nil {
				t.Errorf("node %d: %v", x.id, *err)
			}
		}
	})
	for _, x := range nodes {
		x.create(GroupConfig{ID: 7, Replica: replicaOn(x.id), New: true, Conf: confOn(ids...)})
	}
	return nodes, net
}

// eventually waits for a condition, looking every millisecond, and lets others
// say how things stand if it never holds.
func eventually(t testing.TB, what string, cond func() bool, otherwise ...func()) {
	t.Helper()
	deadline := time.NewTimer(40 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline.C:
			for _, f := range otherwise {
				f()
			}
			t.Fatalf("never: %s", what)
		}
	}
}

func leaderOf(nodes []*testNode, id catalog.GroupID) *testNode {
	for _, n := range nodes {
		if g := n.host.Group(id); g != nil && g.Leading() == nil {
			return n
		}
	}
	return nil
}

// put proposes until it succeeds, whoever leads.
func put(t testing.TB, nodes []*testNode, id catalog.GroupID, data string) ProposalResult {
	t.Helper()
	for range 2000 {
		var l *testNode
		eventually(t, "a leader", func() bool { l = leaderOf(nodes, id); return l != nil })
		r, ok := propose(l.host.Group(id), data)
		if ok && r.Err == nil {
			return r
		}
	}
	t.Fatalf("%q never got in", data)
	return ProposalResult{}
}

func propose(g *Group, data string) (ProposalResult, bool) {
	done := make(chan ProposalResult, 1)
	g.Propose(&Proposal{Data: []byte(data), Done: func(r ProposalResult) { done <- r }})
	t := time.NewTimer(5 * time.Second)
	defer t.Stop()
	select {
	case r := <-done:
		return r, true
	case <-t.C:
		return ProposalResult{}, false
	}
}

func TestElectReplicateApplyRestart(t *testing.T) {
	nodes, _ := newCluster(t, 3, testConfig, 0)
	var want []string
	for i := range 20 {
		want = append(want, fmt.Sprintf("v%d", i))
		put(t, nodes, 7, want[i])
	}
	for _, n := range nodes {
		eventually(t, "every replica applies", func() bool { return len(n.machines[7].list()) == 20 })
	}
	for _, n := range nodes {
		n.kill()
	}
	for _, n := range nodes {
		n.restart()
	}
	put(t, nodes, 7, "after")
	want = append(want, "after")
	for _, n := range nodes {
		eventually(t, "every replica applies all again", func() bool { return len(n.machines[7].list()) == 21 })
		for i, got := range n.machines[7].list() {
			if got != want[i] {
				t.Fatalf("node %d has %q at %d, want %q", n.id, got, i, want[i])
			}
		}
	}
}
