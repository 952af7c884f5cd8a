package tablet

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/multiraft"
	"github.com/braiddb/braid/internal/tables/docdb"
	"github.com/braiddb/braid/internal/wire"
)

// world is a physical clock and the timers on it, moved by the test alone.
type world struct {
	us     atomic.Int64
	mu     sync.Mutex
	alarms map[*alarmClock]struct{}
}

type alarmClock struct {
	at time.Time
	f  func()
}

func newWorld() *world {
	w := &world{alarms: make(map[*alarmClock]struct{})}
	w.us.Store(1_700_000_000_000_000)
	return w
}

func (w *world) now() time.Time { return time.UnixMicro(w.us.Load()) }

func (w *world) afterFunc(d time.Duration, f func()) func() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	a := &alarmClock{w.now().Add(d), f}
	w.alarms[a] = struct{}{}
	return func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		_, set := w.alarms[a]
		delete(w.alarms, a)
		return set
	}
}

// pass moves the clock and rings what has become due.
func (w *world) pass(d time.Duration) {
	w.us.Add(d.Microseconds())
	w.mu.Lock()
	var due []*alarmClock
	for a := range w.alarms {
		if !a.at.After(w.now()) {
			due = append(due, a)
			delete(w.alarms, a)
		}
	}
	w.mu.Unlock()
	for _, a := range due {
		a.f()
	}
}

// fakeGroup is a Raft group of one replica that keeps its log, so that others
// can be fed from it. Whoever proposes commits for everyone who waits, unless it
// is paused.
type fakeGroup struct {
	tablet *Tablet
	clock  *hlc.Clock

	mu       sync.Mutex
	term     uint64
	index    uint64
	down     error // not leading, if set
	full     error // what Propose answers, if set
	paused   bool
	pumping  bool
	queue    []*multiraft.Proposal
	inflight hlc.Timestamp
	log      []multiraft.Entry
	flushed  uint64
	batch    int // writes per entry at most, 0: all
}

func (g *fakeGroup) Propose(p *multiraft.Proposal) {
	g.mu.Lock()
	if err := g.refusal(); err != nil {
		g.mu.Unlock()
		p.Done(multiraft.ProposalResult{Err: err})
		return
	}
	g.queue = append(g.queue, p)
	g.pumpLocked()
	g.mu.Unlock()
}

func (g *fakeGroup) refusal() error {
	if g.down != nil {
		return g.down
	}
	return g.full
}

// pumpLocked commits what waits, one entry at a time. Calls from within are left
// to the one that is at it.
func (g *fakeGroup) pumpLocked() {
	if g.pumping {
		return
	}
	g.pumping = true
	for len(g.queue) > 0 && !g.paused {
		n := len(g.queue)
		if g.batch > 0 {
			n = min(n, g.batch)
		}
		batch := g.queue[:n:n]
		g.queue = g.queue[n:]
		g.index++
		g.inflight = g.clock.Now()
		e := multiraft.Entry{Index: g.index, Term: g.term, Kind: multiraft.KindWrites, HybridTime: g.inflight}
		for _, p := range batch {
			e.Writes = append(e.Writes, multiraft.EntryWrite{Data: p.Data, Local: p})
		}
		g.keepLocked(e)
		g.mu.Unlock()
		if err := g.tablet.Apply([]multiraft.Entry{e}); err != nil {
			panic(err)
		}
		for _, p := range batch {
			p.Done(multiraft.ProposalResult{HybridTime: e.HybridTime, Index: e.Index, Copies: 3})
		}
		g.mu.Lock()
		g.inflight = 0
	}
	g.pumping = false
}

// keepLocked remembers an entry as other replicas see it.
func (g *fakeGroup) keepLocked(e multiraft.Entry) {
	e.Writes = append([]multiraft.EntryWrite(nil), e.Writes...)
	for i := range e.Writes {
		e.Writes[i].Local = nil
	}
	g.log = append(g.log, e)
}

// elect begins a term, led here.
func (g *fakeGroup) elect(term uint64) {
	g.mu.Lock()
	g.term, g.down = term, nil
	g.index++
	e := multiraft.Entry{Index: g.index, Term: term, Kind: multiraft.KindNoop, HybridTime: g.clock.Now()}
	g.keepLocked(e)
	g.mu.Unlock()
	if err := g.tablet.Apply([]multiraft.Entry{e}); err != nil {
		panic(err)
	}
}

// electIdle is elect while proposers may be about; it does nothing if an entry
// is being applied.
func (g *fakeGroup) electIdle(term uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.pumping {
		g.down = nil
		return
	}
	g.pumping = true
	g.index++
	e := multiraft.Entry{Index: g.index, Term: term, Kind: multiraft.KindNoop, HybridTime: g.clock.Now()}
	g.keepLocked(e)
	g.mu.Unlock()
	if err := g.tablet.Apply([]multiraft.Entry{e}); err != nil {
		panic(err)
	}
	g.mu.Lock()
	g.term, g.down, g.pumping = term, nil, false
}

// depose ends leadership: what waits for a quorum has an unknown outcome.
func (g *fakeGroup) depose() {
	g.mu.Lock()
	g.down = &multiraft.NotLeaderError{Node: 7}
	lost := g.queue
	g.queue = nil
	g.mu.Unlock()
	for _, p := range lost {
		p.Done(multiraft.ProposalResult{Err: multiraft.ErrUnknownOutcome})
	}
}

func (g *fakeGroup) pause() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.paused = true
}

func (g *fakeGroup) resume() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.paused = false
	g.pumpLocked()
}

func (g *fakeGroup) waiting() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.queue)
}

func (g *fakeGroup) entries() []multiraft.Entry {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]multiraft.Entry(nil), g.log...)
}

func (g *fakeGroup) ReadTime() (hlc.Timestamp, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.down != nil {
		return 0, g.down
	}
	if g.inflight != 0 {
		return g.inflight - 1, nil
	}
	return g.clock.Now(), nil
}

func (g *fakeGroup) Leading() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.down
}

func (g *fakeGroup) Status() multiraft.Status {
	voter := func(id uint64) *catalog.Replica {
		return &catalog.Replica{Id: id, Node: id, Role: catalog.Role_ROLE_VOTER}
	}
	return multiraft.Status{Conf: []*catalog.Replica{voter(1), voter(2), voter(3)}}
}

func (g *fakeGroup) FlushedTo(index uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.flushed = index
}

// replica is a tablet with everything under it.
type replica struct {
	*Tablet
	t      testing.TB
	world  *world
	fs     vfs.FS
	engine *docdb.Engine
	clock  *hlc.Clock
	group  *fakeGroup
	deps   Deps
	desc   *catalog.Tablet
	table  *catalog.Table
}

const tabletID = 100

func redisTable() *catalog.Table {
	return &catalog.Table{Id: uint32(catalog.RedisTableID), Keyspace: "system", Name: "redis", Hash: catalog.Hash_HASH_CRC16,
		HistoryRetentionMs: 900_000, Schema: &catalog.Schema{Version: 1}}
}

// newReplica makes an empty replica that leads in term 1.
func newReplica(t testing.TB, w *world, options Options) *replica {
	t.Helper()
	r := newFollower(t, w, options)
	r.group.elect(1)
	return r
}

func newFollower(t testing.TB, w *world, options Options) *replica {
	t.Helper()
	r := &replica{t: t, world: w, fs: vfs.NewCrashableMem(), table: redisTable(),
		desc: &catalog.Tablet{Id: tabletID, Table: uint32(catalog.RedisTableID)}}
	r.clock = hlc.New(w.us.Load, 500*time.Millisecond)
	r.deps = Deps{Clock: r.clock, Now: w.now, AfterFunc: w.afterFunc, Logger: slog.New(slog.DiscardHandler), Options: options}
	r.group = &fakeGroup{clock: r.clock, down: &multiraft.NotLeaderError{}}
	r.open()
	t.Cleanup(func() { r.engine.Close() })
	return r
}

func (r *replica) open() {
	r.t.Helper()
	var err error
	if r.engine, err = docdb.OpenEngine(r.fs, "db", docdb.EngineOptions{CacheBytes: 1 << 20, MemTableBytes: 1 << 20}); err != nil {
		r.t.Fatal(err)
	}
	r.deps.Engine = r.engine
	if r.Tablet, err = New(r.deps, r.desc, r.table); err != nil {
		r.t.Fatal(err)
	}
	r.group.tablet = r.Tablet
	r.Attach(r.group)
}

// restart closes the replica and opens it again; it leads the next term.
func (r *replica) restart() {
	r.t.Helper()
	r.group.depose()
	if err := r.engine.Close(); err != nil {
		r.t.Fatal(err)
	}
	before := r.Applied()
	r.open()
	if got := r.Applied(); got.Index != before.Index || got.Term != before.Term || got.HybridTime != before.HybridTime {
		r.t.Fatalf("after a restart the replica is at %+v, was at %+v", got, before)
	}
	r.group.elect(r.group.term + 1)
}

// feed applies another replica's entries that are new here.
func (r *replica) feed(entries []multiraft.Entry) {
	r.t.Helper()
	for _, e := range entries {
		if e.Index <= r.Applied().Index {
			continue
		}
		if err := r.Apply([]multiraft.Entry{e}); err != nil {
			r.t.Fatal(err)
		}
		r.clock.AtLeast(e.HybridTime)
		r.group.index, r.group.term = e.Index, e.Term
		r.group.log = append(r.group.log, e)
	}
}

func op(code wire.OpCode, key string) *wire.Op {
	return &wire.Op{Code: uint32(code), Key: []byte(key), Hash: catalog.KeyHash(catalog.Hash_HASH_CRC16, []byte(key))}
}

func set(key, value string) *wire.Op {
	o := op(wire.OpSet, key)
	o.Args, o.Ints = [][]byte{[]byte(value)}, []int64{0}
	return o
}

func setNX(key, value string) *wire.Op {
	o := set(key, value)
	o.Flags = wire.FlagNX
	return o
}

func incr(key string, n int64) *wire.Op {
	o := op(wire.OpIncrBy, key)
	o.Ints = []int64{n}
	return o
}

func get(key string) *wire.Op { return op(wire.OpGet, key) }

func check(key string, version int64) *wire.Op {
	o := op(wire.OpCheck, key)
	o.Ints = []int64{version}
	return o
}

// named is a client's request.
func named(client byte, id, firstRunning uint64, ops ...*wire.Op) *wire.WriteRequest {
	req := anonymous(ops...)
	req.ClientId = make([]byte, 16)
	req.ClientId[0], req.ClientId[15] = client, client
	req.RequestId, req.FirstRunning = id, firstRunning
	return req
}

func anonymous(ops ...*wire.Op) *wire.WriteRequest {
	return &wire.WriteRequest{Tablet: tabletID, Table: uint32(catalog.RedisTableID), SchemaVersion: 1, Ops: ops}
}

// write runs a request that is to be answered before it returns.
func (r *replica) write(req *wire.WriteRequest) *wire.WriteResponse {
	r.t.Helper()
	var got *wire.WriteResponse
	r.WriteAsync(req, time.Time{}, func(resp *wire.WriteResponse) { got = resp })
	if got == nil {
		r.t.Fatalf("no answer to %s", printRequest(req))
	}
	return got
}

// begin starts a request and gives where its answer will be.
func (r *replica) begin(req *wire.WriteRequest, patience time.Duration) *pending {
	p := &pending{}
	var deadline time.Time
	if patience > 0 {
		deadline = r.world.now().Add(patience)
	}
	r.WriteAsync(req, deadline, p.done)
	return p
}

type pending struct {
	mu    sync.Mutex
	resp  *wire.WriteResponse
	count int
}

func (p *pending) done(resp *wire.WriteResponse) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.resp = resp
	p.count++
}

func (p *pending) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch p.count {
	case 0:
		return "-"
	case 1:
		return printResponse(p.resp)
	}
	return fmt.Sprintf("answered %d times", p.count)
}

func (r *replica) value(key string) string {
	r.t.Helper()
	resp := r.Read(&wire.ReadRequest{Tablet: tabletID, Table: uint32(catalog.RedisTableID), Ops: []*wire.Op{get(key)}})
	if resp.Error != nil {
		return resp.Error.Code.String()
	}
	return printResult(resp.Results[0])
}

func printRequest(req *wire.WriteRequest) string {
	return fmt.Sprintf("client %x request %d", req.ClientId, req.RequestId)
}

func printResponse(resp *wire.WriteResponse) string {
	if resp.Error != nil {
		return resp.Error.Code.String()[len("CODE_"):]
	}
	s := ""
	for i, r := range resp.Results {
		if i > 0 {
			s += " "
		}
		s += printResult(r)
	}
	return s
}

func printResult(r *wire.Result) string {
	switch r.Kind {
	case wire.Kind_KIND_NIL:
		return "nil"
	case wire.Kind_KIND_OK:
		return "ok"
	case wire.Kind_KIND_INT:
		return fmt.Sprint(r.Int)
	case wire.Kind_KIND_BYTES:
		return fmt.Sprintf("%q", r.Bytes)
	case wire.Kind_KIND_ERROR:
		return "error:" + r.Code.String()[len("CODE_"):]
	}
	return r.Kind.String()
}

func expect(t testing.TB, what string, got fmt.Stringer, want string) {
	t.Helper()
	if got.String() != want {
		t.Fatalf("%s: %s, want %s", what, got, want)
	}
}

type text string

func (s text) String() string { return string(s) }

func answered(resp *wire.WriteResponse) text { return text(printResponse(resp)) }
