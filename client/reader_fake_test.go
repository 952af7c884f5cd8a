package client

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// fakeShards is what fakeLogs was appended, on shards that readers can ask: two copies
// of each record, on nodes that follow each other.
type fakeShards struct {
	*fakeLogs
	streams map[uint64]*fakeReadStream
	last    uint64
	trims   map[NodeID]LSN
	knows   map[NodeID]LSN // nodes that have not heard how far the log goes
	began   time.Time
	gone    map[LSN]bool      // records of which every copy is lost
	keys    map[LSN][]byte    // filter and find keys
	stamps  map[LSN]time.Time // of records; else began plus a second for each
	mute    bool              // sequencers do not answer
	recover bool              // recovery is under way
	removed map[LogID]bool    // of which shards still have copies
	reads   int               // answers with records
}

type fakeReadStream struct {
	node NodeID
	req  *wire.ReadStartRequest
	next LSN
}

func newFakeShards(t testing.TB, nodes int) *fakeShards {
	return &fakeShards{
		fakeLogs: newFakeLogs(t, nodes), streams: map[uint64]*fakeReadStream{}, trims: map[NodeID]LSN{}, began: time.Now(),
		removed: map[LogID]bool{404: true}, gone: map[LSN]bool{}, keys: map[LSN][]byte{}, stamps: map[LSN]time.Time{},
	}
}

func (f *fakeShards) client(o Options) *Client {
	o.BackoffMin, o.BackoffMax = time.Millisecond, 20*time.Millisecond
	o.Rand = rand.New(rand.NewPCG(5, 6))
	return New(f, o)
}

// kept is all of a log, with the bridges that recovery wrote at the ends of epochs.
func (f *fakeShards) kept(log LogID) (list []*wire.LogRecord) {
	count := uint64(0)
	for i, r := range f.records[log] {
		if i > 0 {
			last := f.records[log][i-1].lsn
			if e := last.Epoch(); e < r.lsn.Epoch() {
				list = append(list, &wire.LogRecord{Lsn: uint64(last + 1), Flags: logs.FlagHole | logs.FlagBridge})
				for e++; e < r.lsn.Epoch(); e++ {
					list = append(list, &wire.LogRecord{Lsn: uint64(logs.MakeLSN(e, 1)), Flags: logs.FlagHole | logs.FlagBridge})
				}
			}
		}
		w := &wire.LogRecord{Lsn: uint64(r.lsn), Wave: 1, Count: r.count, CountBefore: count, Payload: r.payload, Checksum: logs.Checksum(r.payload)}
		w.FilterKey, w.FindKey = f.keys[r.lsn], f.keys[r.lsn]
		w.TimestampMs = f.began.Add(time.Duration(i) * time.Second).UnixMilli()
		if at, ok := f.stamps[r.lsn]; ok {
			w.TimestampMs = at.UnixMilli()
		}
		if r.batch {
			w.Flags |= logs.FlagBatch
		}
		count += uint64(r.count)
		list = append(list, w)
	}
	for i, w := range list {
		w.Log = uint64(log)
		for k := range 2 {
			w.Copyset = append(w.Copyset, uint64(logs.MakeShard(NodeID((i+k)%len(f.nodes)+1), 0)))
		}
	}
	return list
}

func (f *fakeShards) entries() []*wire.EpochMetadata {
	m := &wire.EpochMetadata{EffectiveSince: 1, Replication: &catalog.Replication{Node: 2}}
	for _, n := range f.nodes {
		m.Nodeset = append(m.Nodeset, uint64(logs.MakeShard(NodeID(n.Id), 0)))
	}
	return []*wire.EpochMetadata{m}
}

func (f *fakeShards) StartLog(node NodeID, m rpc.Method, req, resp rpc.Message, deadline time.Time, done func(error)) {
	switch m {
	case rpc.MethodClusterState, rpc.MethodAppend:
		f.fakeLogs.StartLog(node, m, req, resp, deadline, done)
		return
	}
	f.lock.Lock()
	if f.dead[node] || (m == rpc.MethodSequencerState && f.mute) {
		f.lock.Unlock()
		done(rpc.ErrUnreachable)
		return
	}
	answer := f.answer(node, m, req)
	if next, ok := req.(*wire.ReadNextRequest); ok {
		if a := answer.(*wire.ReadNextResponse); a.Status == 0 && len(a.Deliveries) == 0 && next.WaitMs > 0 {
			f.lock.Unlock()
			later := &wire.ReadNextRequest{Stream: next.Stream, WindowHigh: next.WindowHigh, BytesMax: next.BytesMax, WaitMs: next.WaitMs - 1, Shard: next.Shard}
			time.AfterFunc(time.Millisecond, func() { f.StartLog(node, m, later, resp, deadline, done) })
			return
		}
	}
	f.lock.Unlock()
	copyMessage(f.t, resp, answer)
	done(nil)
}

func (f *fakeShards) answer(node NodeID, m rpc.Method, req rpc.Message) rpc.Message {
	switch r := req.(type) {
	case *wire.SequencerStateRequest:
		return f.reign(node, r)
	case *wire.ReadStartRequest:
		f.last++
		if r.Stream != 0 {
			delete(f.streams, r.Stream)
		}
		f.streams[f.last] = &fakeReadStream{node, r, LSN(r.From)}
		return &wire.ReadStartResponse{Stream: f.last, FilterVersion: r.FilterVersion, LastReleased: uint64(f.tail(LogID(r.Log)))}
	case *wire.ReadNextRequest:
		st := f.streams[r.Stream]
		if st == nil || st.node != node {
			return &wire.ReadNextResponse{Status: wire.LogStatus_LOG_STATUS_NO_STREAM}
		}
		return f.gather(st, r)
	case *wire.ReadStopRequest:
		delete(f.streams, r.Stream)
		return &wire.ReadStopResponse{}
	case *wire.ReadMetadataRequest:
		return &wire.ReadMetadataResponse{Metadata: f.entries()}
	case *wire.FindRequest:
		return f.findIn(node, r)
	case *wire.TrimRequest:
		if tail, behind := f.knows[node]; behind && LSN(r.Lsn) > tail {
			return &wire.TrimResponse{Status: wire.LogStatus_LOG_STATUS_TOO_LARGE, TrimPoint: uint64(f.trims[node]), Tail: uint64(tail)}
		}
		f.trims[node] = max(f.trims[node], LSN(r.Lsn))
		return &wire.TrimResponse{TrimPoint: uint64(f.trims[node])}
	case *wire.LogStateRequest:
		return &wire.LogStateResponse{States: []*wire.LogState{{Log: r.Logs[0], TrimPoint: uint64(f.trims[node]), TrimTimestampMs: f.began.UnixMilli()}}}
	case *wire.DataSizeRequest:
		n := uint64(0)
		for _, w := range f.heldBy(node, LogID(r.Log)) {
			if w.TimestampMs >= r.FromMs && w.TimestampMs < r.ToMs {
				n += uint64(len(w.Payload))
			}
		}
		return &wire.DataSizeResponse{Bytes: n}
	}
	f.t.Errorf("method %v", m)
	return nil
}

// reign is what the sequencer says of itself.
func (f *fakeShards) reign(node NodeID, r *wire.SequencerStateRequest) *wire.SequencerStateResponse {
	log := LogID(r.Log)
	f.states++
	if to := f.sequencer(log); to != node {
		return &wire.SequencerStateResponse{Status: wire.LogStatus_LOG_STATUS_REDIRECTED, Redirect: uint64(to)}
	}
	if f.removed[log] {
		return &wire.SequencerStateResponse{Status: wire.LogStatus_LOG_STATUS_NOT_FOUND}
	}
	tail := f.tail(log)
	resp := &wire.SequencerStateResponse{Epoch: uint32(max(1, f.epochs[log])), Next: uint64(tail + 1), LastReleased: uint64(tail), Metadata: f.entries(), Recovering: f.recover}
	if tail == 0 {
		resp.Next = uint64(logs.MakeLSN(1, 1))
	}
	resp.Tail = &wire.TailRecord{Log: r.Log, Lsn: uint64(tail)}
	if all := f.kept(log); len(all) > 0 {
		w := all[len(all)-1]
		resp.Tail.Count, resp.Tail.TimestampMs = w.CountBefore+uint64(w.Count), w.TimestampMs
	}
	return resp
}

func (f *fakeShards) heldBy(node NodeID, log LogID) (list []*wire.LogRecord) {
	for _, w := range f.kept(log) {
		if slices.Contains(w.Copyset, uint64(logs.MakeShard(node, 0))) && !f.gone[LSN(w.Lsn)] {
			list = append(list, w)
		}
	}
	return list
}

func (f *fakeShards) gather(st *fakeReadStream, req *wire.ReadNextRequest) *wire.ReadNextResponse {
	log := LogID(st.req.Log)
	resp := &wire.ReadNextResponse{FilterVersion: st.req.FilterVersion, LastReleased: uint64(f.tail(log))}
	end := min(f.tail(log), LSN(req.WindowHigh), LSN(st.req.Until))
	gap := func(kind uint32, to LSN) {
		if st.next <= to {
			resp.Deliveries = append(resp.Deliveries, &wire.Delivery{Gap: kind, GapFrom: uint64(st.next), GapTo: uint64(to)})
			st.next = to + 1
		}
	}
	gap(logs.ServerGapTrim, min(f.trims[st.node], end))
	n := 0
	for _, w := range f.heldBy(st.node, log) {
		lsn := LSN(w.Lsn)
		switch {
		case lsn < st.next || lsn > end || !f.sends(st, w):
			continue
		case n > 0 && n+len(w.Payload) > int(req.BytesMax):
			return resp
		}
		gap(logs.ServerGapNoRecords, lsn-1)
		pseudo := w.Flags&logs.FlagHole != 0
		if st.req.Filter == logs.FilterEquality && !pseudo && !bytes.Equal(w.FilterKey, st.req.FilterKey1) {
			gap(logs.ServerGapFilteredOut, lsn)
			continue
		}
		if st.req.Flags&logs.ReadNoPayload != 0 {
			w.Payload = nil
		}
		n += len(w.Payload)
		f.reads++
		resp.Deliveries = append(resp.Deliveries, &wire.Delivery{Record: w, CountKnown: true})
		st.next = lsn + 1
	}
	gap(logs.ServerGapNoRecords, end)
	return resp
}

func (f *fakeShards) sends(st *fakeReadStream, w *wire.LogRecord) bool {
	if st.req.Flags&logs.ReadSingleCopy == 0 {
		return true
	}
	for _, m := range w.Copyset {
		if m == uint64(logs.MakeShard(st.node, 0)) {
			return true
		}
		if !slices.Contains(st.req.FilteredOut, m) {
			return false
		}
	}
	return false
}

func (f *fakeShards) findIn(node NodeID, r *wire.FindRequest) *wire.FindResponse {
	low, high := f.trims[node], LSN(0)
	for _, w := range f.heldBy(node, LogID(r.Log)) {
		lsn := LSN(w.Lsn)
		if lsn <= low || w.Flags&logs.FlagHole != 0 {
			continue
		}
		before := w.TimestampMs < r.TimestampMs
		if r.Key != nil {
			before = bytes.Compare(w.FindKey, r.Key) < 0
		}
		if !before {
			high = lsn
			break
		}
		low = lsn
	}
	return &wire.FindResponse{Low: uint64(low), High: uint64(high)}
}

func (f *fakeShards) with(change func()) {
	f.lock.Lock()
	defer f.lock.Unlock()
	change()
}

// FakeLogs gives the examples a client of a cluster in memory that has a log, 7.
func FakeLogs(t testing.TB) *Client {
	f := newFakeShards(t, 3)
	f.began = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return f.client(Options{})
}

// LogWithID opens a log without asking what it is called.
func (c *Client) LogWithID(id LogID) *Log { return c.logByID(id, "") }
