package rest

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/master"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// fakeNode is a cluster of one node in memory, below a client that is a real one: a
// real master, and a sequencer and a shard that know as much as the client asks for.
type fakeNode struct {
	client.Transport
	t testing.TB

	mu       sync.Mutex
	machine  *master.Machine
	master   *master.Master
	applied  uint64
	records  map[client.LogID][]*wire.LogRecord
	last     map[[2]uint64]uint64 // by (log, producer): the sequence taken last
	taken    map[[3]uint64]uint64 // by (log, producer, sequence): LSN
	trimmed  map[client.LogID]uint64
	streams  map[uint64]*fakeStream
	released *sync.Cond
	reading  int // streams that are open

	// onAppend, if set, may answer instead.
	onAppend func(*wire.AppendRequest) (*wire.AppendResponse, error)
	// silent: the shard does not answer readers.
	silent bool
}

type fakeStream struct {
	req  *wire.ReadStartRequest
	next uint64
}

const fakeShard = uint64(1) << 8

func newFakeNode(t testing.TB) (*fakeNode, *client.Client) {
	f := &fakeNode{
		t: t, machine: master.NewMachine(), records: map[client.LogID][]*wire.LogRecord{}, last: map[[2]uint64]uint64{},
		taken: map[[3]uint64]uint64{}, trimmed: map[client.LogID]uint64{}, streams: map[uint64]*fakeStream{},
	}
	f.released = sync.NewCond(&f.mu)
	founding := master.FirstCatalog("c", []*catalog.Node{{RpcAddr: "a:1", DirectoryId: []byte("a")}}, master.First{})
	f.master = master.New(master.Deps{Node: 1, Group: f, Founding: founding, Index: func() *catalog.Index {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.machine.Index()
	}}, master.Options{})
	f.master.Tick(time.Second)
	c := client.New(f, client.Options{
		Park: 2 * time.Second, Attempt: 200 * time.Millisecond, AppendTimeout: 200 * time.Millisecond,
		BackoffMin: time.Millisecond, BackoffMax: 10 * time.Millisecond, Rand: rand.New(rand.NewPCG(1, 2)),
	})
	t.Cleanup(func() { _ = c.Close() })
	return f, c
}

func (f *fakeNode) Self() catalog.NodeID { return 1 }
func (f *fakeNode) Leading() *wire.Error { return nil }
func (f *fakeNode) Term() uint64         { return 1 }

func (f *fakeNode) Propose(command []byte, done func(*wire.Error)) {
	f.mu.Lock()
	f.applied++
	out, err := f.machine.Apply(hlc.FromMicros(int64(f.applied)), command)
	f.mu.Unlock()
	if err != nil {
		panic(err)
	}
	f.master.Applied([]master.Applied{out})
	done(nil)
}

func (f *fakeNode) Catalog(_ context.Context, req *wire.CatalogRequest) (*wire.CatalogResponse, error) {
	var resp *wire.CatalogResponse
	f.master.Catalog(time.Second, req, func(r *wire.CatalogResponse) { resp = r })
	return resp, nil
}

func (f *fakeNode) StartLog(_ catalog.NodeID, m rpc.Method, req, resp rpc.Message, deadline time.Time, done func(error)) {
	if next, ok := req.(*wire.ReadNextRequest); ok {
		go f.readNext(next, resp, deadline, done)
		return
	}
	f.mu.Lock()
	answer, err := f.answer(m, req)
	f.mu.Unlock()
	if err == nil {
		f.fill(resp, answer)
	}
	done(err)
}

func (f *fakeNode) fill(to, from rpc.Message) {
	b := make([]byte, from.SizeVT())
	if _, err := from.MarshalToSizedBufferVT(b); err != nil {
		f.t.Error(err)
	}
	if err := to.UnmarshalVT(b); err != nil {
		f.t.Error(err)
	}
}

func (f *fakeNode) answer(m rpc.Method, req rpc.Message) (rpc.Message, error) {
	switch r := req.(type) {
	case *wire.ClusterStateRequest:
		return &wire.ClusterStateResponse{Version: 1, AnsweredBy: 1, Nodes: []*wire.ClusterNode{
			{Node: 1, Instance: 1, State: 2, Descriptor_: &catalog.Node{Id: 1}},
		}}, nil
	case *wire.AppendRequest:
		if f.onAppend != nil {
			if resp, err := f.onAppend(r); resp != nil || err != nil {
				return resp, err
			}
		}
		return f.append(r), nil
	case *wire.SequencerStateRequest:
		return f.state(r), nil
	case *wire.ReadMetadataRequest:
		return &wire.ReadMetadataResponse{Metadata: fakeMetadata()}, nil
	case *wire.ReadStartRequest:
		if f.silent {
			return nil, rpc.ErrUnreachable
		}
		id := uint64(len(f.streams) + 1)
		f.streams[id] = &fakeStream{r, r.From}
		f.reading++
		f.released.Broadcast()
		return &wire.ReadStartResponse{Stream: id, FilterVersion: r.FilterVersion, LastReleased: f.tail(client.LogID(r.Log))}, nil
	case *wire.ReadStopRequest:
		if f.streams[r.Stream] != nil {
			f.streams[r.Stream] = nil
			f.reading--
			f.released.Broadcast()
		}
		return &wire.ReadStopResponse{}, nil
	case *wire.FindRequest:
		return f.find(r), nil
	case *wire.TrimRequest:
		f.trimmed[client.LogID(r.Log)] = max(f.trimmed[client.LogID(r.Log)], r.Lsn)
		return &wire.TrimResponse{TrimPoint: r.Lsn}, nil
	case *wire.LogStateRequest:
		return f.logState(client.LogID(r.Logs[0])), nil
	case *wire.DataSizeRequest:
		return f.dataSize(r), nil
	}
	f.t.Errorf("method %v", m)
	return nil, rpc.ErrNoMethod
}

func fakeMetadata() []*wire.EpochMetadata {
	return []*wire.EpochMetadata{{EffectiveSince: 1, Nodeset: []uint64{fakeShard}, Weights: []float64{1}, Locations: []string{""},
		Replication: &catalog.Replication{Node: 1}}}
}

// append is what a sequencer does, in epoch 1.
func (f *fakeNode) append(r *wire.AppendRequest) *wire.AppendResponse {
	log := client.LogID(r.Log)
	if logs.Checksum(r.Payload) != r.Checksum {
		return &wire.AppendResponse{Status: wire.LogStatus_LOG_STATUS_BAD_PAYLOAD}
	}
	if r.Flags&logs.AppendProbe != 0 {
		return &wire.AppendResponse{}
	}
	if lsn := f.taken[[3]uint64{r.Log, r.Producer, r.Sequence}]; lsn != 0 {
		return &wire.AppendResponse{Lsn: lsn, Epoch: 1}
	}
	by := [2]uint64{r.Log, r.Producer}
	if last := f.last[by]; r.Flags&logs.AppendProducer != 0 && last != 0 && r.Sequence != last+1 {
		s := wire.LogStatus_LOG_STATUS_SEQUENCE_GAP
		if r.Sequence <= last {
			s = wire.LogStatus_LOG_STATUS_SEQUENCE_STALE
		}
		return &wire.AppendResponse{Status: s, Sequence: last}
	}
	if tail := f.lastRecord(log); r.Flags&logs.AppendConditional != 0 && r.ExpectTail != tail {
		return &wire.AppendResponse{Status: wire.LogStatus_LOG_STATUS_CONDITION_FAILED, Tail: tail}
	}
	lsn := f.tail(log) + 1
	n := len(f.records[log])
	f.last[by], f.taken[[3]uint64{r.Log, r.Producer, r.Sequence}] = r.Sequence, lsn
	rec := &wire.LogRecord{Log: r.Log, Lsn: lsn, Wave: 1, Copyset: []uint64{fakeShard}, Payload: bytes.Clone(r.Payload), Checksum: r.Checksum,
		Count: r.Count, TimestampMs: fakeTime(n).UnixMilli(), FindKey: r.FindKey, FilterKey: r.FilterKey}
	for _, before := range f.records[log] {
		rec.CountBefore += uint64(before.Count)
	}
	if r.Flags&logs.AppendBatch != 0 {
		rec.Flags |= logs.FlagBatch
	}
	f.records[log] = append(f.records[log], rec)
	f.released.Broadcast()
	return &wire.AppendResponse{Lsn: lsn, Epoch: 1}
}

// fakeTime is when the n-th record of a log is appended.
func fakeTime(n int) time.Time {
	return time.Date(2026, 1, 31, 12, 0, n, 0, time.UTC)
}

// tail is the last LSN of the log, e1n0 if it has no record.
func (f *fakeNode) tail(log client.LogID) uint64 { return 1<<32 + uint64(len(f.records[log])) }

func (f *fakeNode) lastRecord(log client.LogID) uint64 {
	if len(f.records[log]) == 0 {
		return 0
	}
	return f.tail(log)
}

func (f *fakeNode) state(r *wire.SequencerStateRequest) *wire.SequencerStateResponse {
	log := client.LogID(r.Log)
	resp := &wire.SequencerStateResponse{Epoch: 1, Next: f.tail(log) + 1, LastReleased: f.tail(log), Metadata: fakeMetadata(),
		Tail: &wire.TailRecord{Log: r.Log, Lsn: f.lastRecord(log)}}
	if n := len(f.records[log]); n > 0 {
		resp.Tail.TimestampMs = f.records[log][n-1].TimestampMs
		resp.Tail.Count = f.records[log][n-1].CountBefore + uint64(f.records[log][n-1].Count)
	}
	return resp
}

func (f *fakeNode) logState(log client.LogID) *wire.LogStateResponse {
	st := &wire.LogState{Log: uint64(log), TrimPoint: f.trimmed[log]}
	for _, rec := range f.records[log] {
		if rec.Lsn <= st.TrimPoint {
			st.TrimTimestampMs = rec.TimestampMs
		}
	}
	return &wire.LogStateResponse{States: []*wire.LogState{st}}
}

func (f *fakeNode) dataSize(r *wire.DataSizeRequest) *wire.DataSizeResponse {
	resp := new(wire.DataSizeResponse)
	for _, rec := range f.records[client.LogID(r.Log)] {
		if rec.TimestampMs >= r.FromMs && rec.TimestampMs <= r.ToMs && rec.Lsn > f.trimmed[client.LogID(r.Log)] {
			resp.Bytes += 2 * uint64(len(rec.Payload)) // the default: two copies
		}
	}
	return resp
}

func (f *fakeNode) find(r *wire.FindRequest) *wire.FindResponse {
	low := uint64(0)
	for _, rec := range f.records[client.LogID(r.Log)] {
		if (r.Key == nil && rec.TimestampMs >= r.TimestampMs) || (r.Key != nil && bytes.Compare(rec.FindKey, r.Key) >= 0) {
			return &wire.FindResponse{Low: low, High: rec.Lsn}
		}
		low = rec.Lsn
	}
	return &wire.FindResponse{Low: low, High: uint64(logs.LSNMax)}
}

// readNext waits until there is something to deliver.
func (f *fakeNode) readNext(r *wire.ReadNextRequest, resp rpc.Message, deadline time.Time, done func(error)) {
	end := time.Now().Add(time.Duration(r.WaitMs) * time.Millisecond)
	stop := time.AfterFunc(time.Until(end), f.released.Broadcast)
	defer stop.Stop()
	f.mu.Lock()
	for {
		out := f.gather(r)
		if len(out.Deliveries) > 0 || out.Status != 0 || !time.Now().Before(end) {
			f.mu.Unlock()
			f.fill(resp, out)
			done(nil)
			return
		}
		f.released.Wait()
	}
}

func (f *fakeNode) gather(r *wire.ReadNextRequest) *wire.ReadNextResponse {
	st := f.streams[r.Stream]
	if st == nil {
		return &wire.ReadNextResponse{Status: wire.LogStatus_LOG_STATUS_NO_STREAM}
	}
	log := client.LogID(st.req.Log)
	resp := &wire.ReadNextResponse{FilterVersion: st.req.FilterVersion, LastReleased: f.tail(log)}
	end := min(f.tail(log), r.WindowHigh, st.req.Until)
	gap := func(kind uint32, to uint64) {
		if st.next <= to {
			resp.Deliveries = append(resp.Deliveries, &wire.Delivery{Gap: kind, GapFrom: st.next, GapTo: to})
			st.next = to + 1
		}
	}
	gap(logs.ServerGapTrim, min(f.trimmed[log], end))
	size := 0
	for _, rec := range f.records[log] {
		if rec.Lsn < st.next || rec.Lsn > end {
			continue
		}
		if size += len(rec.Payload); size > int(r.BytesMax) && size > len(rec.Payload) {
			return resp
		}
		gap(logs.ServerGapNoRecords, rec.Lsn-1)
		in := st.req.Filter == logs.FilterNone || (st.req.Filter == logs.FilterEquality && bytes.Equal(rec.FilterKey, st.req.FilterKey1)) ||
			(st.req.Filter == logs.FilterRange && bytes.Compare(rec.FilterKey, st.req.FilterKey1) >= 0 && bytes.Compare(rec.FilterKey, st.req.FilterKey2) <= 0)
		if !in {
			gap(logs.ServerGapFilteredOut, rec.Lsn)
			continue
		}
		d := &wire.Delivery{Record: rec, CountKnown: true}
		if st.req.Flags&logs.ReadNoPayload != 0 {
			bare := &wire.LogRecord{Log: rec.Log, Lsn: rec.Lsn, Wave: rec.Wave, Copyset: rec.Copyset, Count: rec.Count, CountBefore: rec.CountBefore, TimestampMs: rec.TimestampMs, Flags: rec.Flags}
			d.Record = bare
		}
		resp.Deliveries = append(resp.Deliveries, d)
		st.next = rec.Lsn + 1
	}
	gap(logs.ServerGapNoRecords, end)
	return resp
}

// readers waits until so many streams are open.
func (f *fakeNode) readers(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	late := time.AfterFunc(10*time.Second, f.released.Broadcast)
	defer late.Stop()
	for deadline := time.Now().Add(10 * time.Second); f.reading != n; {
		if time.Now().After(deadline) {
			f.t.Fatalf("%d streams are open, want %d", f.reading, n)
		}
		f.released.Wait()
	}
}

// lab is a server over a fake node, and how to speak to it.
type lab struct {
	t      testing.TB
	node   *fakeNode
	server *Server
	http   *httptest.Server
}

func newLab(t testing.TB, o Options) *lab {
	node, c := newFakeNode(t)
	l := &lab{t: t, node: node, server: NewServer(Over(c), o)}
	l.http = httptest.NewServer(l.server)
	t.Cleanup(func() {
		l.http.CloseClientConnections()
		l.http.Close()
	})
	return l
}

// answer is what came back.
type answer struct {
	code   int
	header http.Header
	body   string
}

// do sends a request; headers are "Name: value".
func (l *lab) do(method, path, body string, headers ...string) answer {
	l.t.Helper()
	req, err := http.NewRequest(method, l.http.URL+path, strings.NewReader(body))
	if err != nil {
		l.t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := l.http.Client().Do(req)
	if err != nil {
		l.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		l.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(b)}
}

// must is do that expects a status.
func (l *lab) must(code int, method, path, body string, headers ...string) string {
	l.t.Helper()
	a := l.do(method, path, body, headers...)
	if a.code != code {
		l.t.Fatalf("%s %s: %d, want %d: %s", method, path, a.code, code, a.body)
	}
	return a.body
}

const jsonBody = "Content-Type: application/json"
