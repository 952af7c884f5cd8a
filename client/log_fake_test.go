package client

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/placement"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// fakeLogs is the log wing of a cluster in memory: nodes that sequence, epochs that
// fence, and, by a seed or a script, everything that can happen to a request.
type fakeLogs struct {
	*fakeCluster
	t    testing.TB
	lock sync.Mutex
	rand *rand.Rand

	nodes   []*catalog.Node
	dead    map[NodeID]bool
	records map[LogID][]fakeRecord
	taken   map[[2]uint64]map[uint64]LSN // by (log, producer): sequence to LSN
	floor   map[[2]uint64]uint64
	epochs  map[LogID]logs.Epoch
	holder  map[LogID]NodeID // who reigns in that epoch
	esn     map[LogID]logs.ESN
	began   map[LogID]time.Time
	pipes   map[NodeID]*fakePipe
	asked   []fakeAsk
	states  int

	// onAppend, if set, may decide instead: a response, an error, whether the append
	// is carried out before.
	onAppend func(node NodeID, req *wire.AppendRequest) *fakeVerdict
	// chaos has things go wrong by chance.
	chaos float64
	// ordered: an append is refused while one before it is not taken.
	ordered bool
}

type fakeRecord struct {
	lsn      LSN
	payload  []byte
	count    uint32
	batch    bool
	producer uint64
	sequence uint64
}

type fakeAsk struct {
	node NodeID
	req  *wire.AppendRequest
}

type fakeVerdict struct {
	resp    *wire.AppendResponse
	err     error
	execute bool
	silent  bool
}

// fakePipe carries requests to a node in their order.
type fakePipe struct {
	queue []func()
	busy  bool
}

func newFakeLogs(t testing.TB, nodes int) *fakeLogs {
	f := &fakeLogs{
		fakeCluster: newFakeCluster(1), t: t, rand: rand.New(rand.NewPCG(1, 1)), ordered: true,
		dead: map[NodeID]bool{}, records: map[LogID][]fakeRecord{}, taken: map[[2]uint64]map[uint64]LSN{},
		floor: map[[2]uint64]uint64{}, epochs: map[LogID]logs.Epoch{}, holder: map[LogID]NodeID{},
		esn: map[LogID]logs.ESN{}, began: map[LogID]time.Time{}, pipes: map[NodeID]*fakePipe{},
	}
	for i := range nodes {
		f.nodes = append(f.nodes, &catalog.Node{Id: uint64(i + 1)})
	}
	return f
}

// view is what the nodes believe, lately: all of them the truth.
func (f *fakeLogs) view() *wire.ClusterStateResponse {
	resp := &wire.ClusterStateResponse{Version: 1, AnsweredBy: 1}
	for _, n := range f.nodes {
		state := uint32(stateAlive)
		if f.dead[NodeID(n.Id)] {
			state = 0
		}
		resp.Nodes = append(resp.Nodes, &wire.ClusterNode{Node: n.Id, Instance: 1, State: state, Descriptor_: n})
	}
	return resp
}

func (f *fakeLogs) cluster() *logs.Cluster {
	c := &logs.Cluster{}
	for _, n := range f.nodes {
		c.Nodes = append(c.Nodes, logs.DescribeNode(n, 1, !f.dead[NodeID(n.Id)], false, false))
	}
	return c
}

func (f *fakeLogs) sequencer(log LogID) NodeID {
	n, _ := placement.SequencerNode(f.cluster(), log, "")
	return n
}

func (f *fakeLogs) kill(n NodeID, dead bool) {
	f.lock.Lock()
	defer f.lock.Unlock()
	f.dead[n] = dead
}

func (f *fakeLogs) StartLog(node NodeID, m rpc.Method, req, resp rpc.Message, deadline time.Time, done func(error)) {
	switch m {
	case rpc.MethodClusterState:
		f.lock.Lock()
		v := f.view()
		f.lock.Unlock()
		copyMessage(f.t, resp, v)
		done(nil)
	case rpc.MethodSequencerState:
		f.lock.Lock()
		f.states++
		v := f.state(node, req.(*wire.SequencerStateRequest))
		f.lock.Unlock()
		copyMessage(f.t, resp, v)
		done(nil)
	case rpc.MethodAppend:
		f.deliver(node, req.(*wire.AppendRequest), resp.(*wire.AppendResponse), deadline, done)
	default:
		f.t.Errorf("method %v", m)
	}
}

func copyMessage(t testing.TB, to, from rpc.Message) {
	b := make([]byte, from.SizeVT())
	if _, err := from.MarshalToSizedBufferVT(b); err != nil {
		t.Error(err)
	}
	if err := to.UnmarshalVT(b); err != nil {
		t.Error(err)
	}
}

// deliver brings an append to a node, behind those that came before.
func (f *fakeLogs) deliver(node NodeID, req *wire.AppendRequest, resp *wire.AppendResponse, deadline time.Time, done func(error)) {
	arrive := func() {
		f.lock.Lock()
		f.asked = append(f.asked, fakeAsk{node, req})
		v := f.decide(node, req)
		if v.execute || (v.resp == nil && v.err == nil && !v.silent) {
			if r := f.append(node, req); v.resp == nil {
				v.resp = r
			}
		}
		f.lock.Unlock()
		switch {
		case v.silent:
			time.AfterFunc(time.Until(deadline), func() { done(rpc.ErrDeadline) })
		case v.err != nil:
			done(v.err)
		default:
			copyMessage(f.t, resp, v.resp)
			done(nil)
		}
	}
	f.lock.Lock()
	p := f.pipes[node]
	if p == nil {
		p = &fakePipe{}
		f.pipes[node] = p
	}
	p.queue = append(p.queue, arrive)
	start := !p.busy
	p.busy = true
	f.lock.Unlock()
	if start {
		go f.run(p)
	}
}

func (f *fakeLogs) run(p *fakePipe) {
	for {
		f.lock.Lock()
		if len(p.queue) == 0 {
			p.busy = false
			f.lock.Unlock()
			return
		}
		next := p.queue[0]
		p.queue[0] = nil
		p.queue = p.queue[1:]
		f.lock.Unlock()
		next()
	}
}

func (f *fakeLogs) decide(node NodeID, req *wire.AppendRequest) fakeVerdict {
	if f.dead[node] {
		return fakeVerdict{err: rpc.ErrUnreachable}
	}
	if f.onAppend != nil {
		if v := f.onAppend(node, req); v != nil {
			return *v
		}
	}
	if f.rand.Float64() >= f.chaos {
		return fakeVerdict{}
	}
	switch f.rand.IntN(7) {
	case 0:
		return fakeVerdict{err: rpc.ErrLost}
	case 1:
		return fakeVerdict{err: rpc.ErrLost, execute: true}
	case 2:
		return fakeVerdict{resp: status(wire.LogStatus_LOG_STATUS_SEQNOBUFS)}
	case 3:
		return fakeVerdict{resp: status(wire.LogStatus_LOG_STATUS_TIMED_OUT), execute: true}
	case 4:
		f.holder[LogID(req.Log)] = 0 // the reign ends
		return fakeVerdict{}
	case 5:
		return fakeVerdict{silent: true, execute: f.rand.IntN(2) == 0}
	}
	other := NodeID(1 + f.rand.IntN(len(f.nodes)))
	return fakeVerdict{resp: &wire.AppendResponse{Status: wire.LogStatus_LOG_STATUS_REDIRECTED, Redirect: uint64(other)}}
}

func status(s logs.Status) *wire.AppendResponse { return &wire.AppendResponse{Status: s} }

// append is what a sequencer does.
func (f *fakeLogs) append(node NodeID, req *wire.AppendRequest) *wire.AppendResponse {
	log := LogID(req.Log)
	if logs.Checksum(req.Payload) != req.Checksum {
		f.t.Errorf("an append arrives with a wrong checksum")
	}
	if to := f.sequencer(log); to != node && req.Flags&logs.AppendNoRedirect == 0 {
		return &wire.AppendResponse{Status: wire.LogStatus_LOG_STATUS_REDIRECTED, Redirect: uint64(to)}
	}
	if f.holder[log] != node || f.epochs[log] < logs.Epoch(req.SeenEpoch) {
		f.epochs[log] = max(f.epochs[log], logs.Epoch(req.SeenEpoch)) + 1
		f.holder[log], f.esn[log] = node, 0
	}
	if req.Flags&logs.AppendProbe != 0 {
		return &wire.AppendResponse{}
	}
	key := [2]uint64{req.Log, req.Producer}
	if f.taken[key] == nil {
		f.taken[key] = map[uint64]LSN{}
	}
	if lsn, ok := f.taken[key][req.Sequence]; ok {
		if req.Flags&(logs.AppendRetry|logs.AppendProducer) == 0 {
			f.t.Errorf("sequence %d was sent before, and comes as if it was new", req.Sequence)
		}
		if req.Flags&logs.AppendProducer == 0 && LSN(req.After) >= lsn {
			f.t.Errorf("sequence %d is stored as %v, and after is %v", req.Sequence, lsn, LSN(req.After))
		}
		return &wire.AppendResponse{Lsn: uint64(lsn), Epoch: uint32(f.epochs[log])}
	}
	if e := f.epochs[log]; e > 1 && logs.Epoch(req.SeenEpoch) < e && req.Flags&(logs.AppendRetry|logs.AppendProducer) == 0 {
		return &wire.AppendResponse{Status: wire.LogStatus_LOG_STATUS_NEW_EPOCH, Epoch: uint32(e)}
	}
	if r := f.outOfOrder(key, req); r != nil {
		return r
	}
	if tail := f.tail(log); req.Flags&logs.AppendConditional != 0 && LSN(req.ExpectTail) != tail {
		return &wire.AppendResponse{Status: wire.LogStatus_LOG_STATUS_CONDITION_FAILED, Tail: uint64(tail)}
	}
	f.esn[log]++
	lsn := logs.MakeLSN(f.epochs[log], f.esn[log])
	f.taken[key][req.Sequence] = lsn
	f.records[log] = append(f.records[log], fakeRecord{lsn, slices.Clone(req.Payload), req.Count, req.Flags&logs.AppendBatch != 0, req.Producer, req.Sequence})
	return &wire.AppendResponse{Lsn: uint64(lsn), Epoch: uint32(f.epochs[log])}
}

func (f *fakeLogs) outOfOrder(key [2]uint64, req *wire.AppendRequest) *wire.AppendResponse {
	if req.FirstRunning < f.floor[key] && req.Flags&logs.AppendProducer == 0 {
		f.floor[key] = max(f.floor[key], req.FirstRunning)
	}
	if req.Sequence < req.FirstRunning {
		f.t.Errorf("sequence %d with first_running %d", req.Sequence, req.FirstRunning)
	}
	last := uint64(0)
	for s := range f.taken[key] {
		last = max(last, s)
	}
	_, before := f.taken[key][req.Sequence-1]
	switch {
	case req.Flags&logs.AppendProducer != 0 && last != 0 && req.Sequence != last+1:
		s := wire.LogStatus_LOG_STATUS_SEQUENCE_GAP
		if req.Sequence <= last {
			s = wire.LogStatus_LOG_STATUS_SEQUENCE_STALE
		}
		return &wire.AppendResponse{Status: s, Sequence: last}
	case req.Flags&logs.AppendProducer == 0 && f.ordered && !before && req.Sequence > req.FirstRunning:
		return status(wire.LogStatus_LOG_STATUS_SEQUENCE_GAP)
	}
	return nil
}

func (f *fakeLogs) tail(log LogID) LSN {
	if r := f.records[log]; len(r) > 0 {
		return r[len(r)-1].lsn
	}
	return 0
}

func (f *fakeLogs) state(node NodeID, req *wire.SequencerStateRequest) *wire.SequencerStateResponse {
	if to := f.sequencer(LogID(req.Log)); to != node {
		return &wire.SequencerStateResponse{Status: wire.LogStatus_LOG_STATUS_REDIRECTED, Redirect: uint64(to)}
	}
	resp := &wire.SequencerStateResponse{}
	for s, lsn := range f.taken[[2]uint64{req.Log, req.Producer}] {
		if s > resp.LastSequence {
			resp.LastSequence, resp.LastSequenceLsn = s, uint64(lsn)
		}
	}
	return resp
}

// payloads are what the log holds, in order, batches taken apart.
func (f *fakeLogs) payloads(log LogID) (list []string) {
	f.lock.Lock()
	defer f.lock.Unlock()
	last := LSN(0)
	for _, r := range f.records[log] {
		if r.lsn <= last {
			f.t.Errorf("%v comes after %v", r.lsn, last)
		}
		last = r.lsn
		if !r.batch {
			list = append(list, string(r.payload))
			continue
		}
		b, err := logs.OpenBatch(r.payload)
		if err != nil || b.Count() != int(r.count) {
			f.t.Errorf("%v: a batch of %d: %v", r.lsn, r.count, err)
		}
		for _, p := range b.All() {
			list = append(list, string(p))
		}
	}
	return list
}

func (f *fakeLogs) client(o Options) *Client {
	if o.BackoffMax == 0 {
		o.BackoffMin, o.BackoffMax = time.Millisecond, 20*time.Millisecond
	}
	if o.Rand == nil {
		o.Rand = rand.New(rand.NewPCG(5, 6))
	}
	return New(f, o)
}

func appendAll(n int, name string) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprintf("%s-%d", name, i))
	}
	return list
}
