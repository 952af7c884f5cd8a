package tablet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/journal"
	"github.com/braiddb/braid/internal/multiraft"
	"github.com/braiddb/braid/internal/tables/docdb"
	"github.com/braiddb/braid/internal/wire"
)

// The tablet on the real host: three nodes in one process, with engines that
// forget what they have not flushed and a journal that keeps everything.

// keptJournal completes appends in order and outlives its node's crashes.
type keptJournal struct {
	mu      sync.Mutex
	streams map[journal.StreamID]*journal.StreamReplay
	queue   chan func()
	closed  bool
}

func (j *keptJournal) open() (stop func()) {
	queue, done := make(chan func(), 1<<14), make(chan struct{})
	j.mu.Lock()
	j.queue, j.closed = queue, false
	j.mu.Unlock()
	go func() {
		defer close(done)
		for f := range queue {
			f()
		}
	}()
	return func() {
		j.mu.Lock()
		j.closed = true
		j.mu.Unlock()
		close(queue)
		<-done
	}
}

func (j *keptJournal) Append(recs []journal.Record, done func(error)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return
	}
	for _, r := range recs {
		j.keepLocked(r)
	}
	j.queue <- func() { done(nil) }
}

func (j *keptJournal) keepLocked(r journal.Record) {
	s := j.streams[r.Stream]
	if s == nil {
		s = &journal.StreamReplay{}
		j.streams[r.Stream] = s
	}
	r.Payload = append([]byte(nil), r.Payload...)
	switch r.Kind {
	case journal.KindState:
		s.State = r.Payload
	case journal.KindEntry:
		s.Records = append(s.Records, r)
	case journal.KindTruncate:
		for len(s.Records) > 0 && s.Records[len(s.Records)-1].Pos >= r.Pos {
			s.Records = s.Records[:len(s.Records)-1]
		}
	case journal.KindStart:
		s.StartPos, s.Records = r.Pos, nil
	case journal.KindDrop:
		delete(j.streams, r.Stream)
	}
}

func (j *keptJournal) SetLowWater(id journal.StreamID, pos uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if s := j.streams[id]; s != nil {
		for len(s.Records) > 0 && s.Records[0].Pos <= pos {
			s.Records = s.Records[1:]
		}
	}
}

func (j *keptJournal) Full() bool { return false }

func (j *keptJournal) replay(id catalog.GroupID) *journal.StreamReplay {
	j.mu.Lock()
	defer j.mu.Unlock()
	if s := j.streams[journal.StreamID(id)]; s != nil {
		c := *s
		c.Records = append([]journal.Record(nil), s.Records...)
		return &c
	}
	return nil
}

// street joins the nodes; a closed house neither sends nor receives.
type street struct {
	mu    sync.Mutex
	hosts map[catalog.NodeID]*multiraft.Host
	shut  map[catalog.NodeID]bool
}

func (s *street) host(from, to catalog.NodeID) *multiraft.Host {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shut[from] || s.shut[to] {
		return nil
	}
	return s.hosts[to]
}

func (s *street) set(n catalog.NodeID, h *multiraft.Host) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hosts[n] = h
}

func (s *street) close(n catalog.NodeID, shut bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shut[n] = shut
}

type door struct {
	*street
	self catalog.NodeID
}

var errShut = errors.New("nobody answers")

func (d door) SendBatch(to catalog.NodeID, b *wire.RaftBatch) {
	if h := d.host(d.self, to); h != nil {
		raw, _ := b.MarshalVT()
		c := &wire.RaftBatch{}
		if err := c.UnmarshalVT(raw); err == nil {
			h.HandleBatch(c)
		}
	}
}

func (d door) SendBeat(to catalog.NodeID, b *wire.Beat) {
	if h := d.host(d.self, to); h != nil {
		h.HandleBeat(b)
	}
}

func (d door) TailQuery(to catalog.NodeID, q *wire.TailQuery, done func(*wire.TailAnswer, error)) {
	h := d.host(d.self, to)
	if h == nil {
		done(nil, errShut)
		return
	}
	h.HandleTailQuery(q, func(a *wire.TailAnswer) { done(a, nil) })
}

func (d door) SendSnapshotChunk(_ context.Context, to catalog.NodeID, c *wire.SnapshotChunk) error {
	h := d.host(d.self, to)
	if h == nil {
		return errShut
	}
	c.Data = append([]byte(nil), c.Data...)
	if a := h.HandleSnapshotChunk(c); a.Error != nil {
		return errors.New(a.Error.Message)
	}
	return nil
}

type wallTimer struct{}

func (wallTimer) AfterFunc(d time.Duration, f func()) func() bool { return time.AfterFunc(d, f).Stop }

// house is one node over its lives.
type house struct {
	t       testing.TB
	id      catalog.NodeID
	life    uint64
	street  *street
	journal *keptJournal
	stop    func()
	fs      *vfs.MemFS
	host    *multiraft.Host
	engine  *docdb.Engine
	tablet  atomic.Pointer[Tablet]
	group   *multiraft.Group
	fatal   atomic.Pointer[error]
}

func (h *house) start(first bool) {
	h.t.Helper()
	h.life++
	h.stop = h.journal.open()
	begin := time.Now()
	clock := hlc.New(func() int64 { return time.Now().UnixMicro() }, 500*time.Millisecond)
	fail := func(err error) { h.fatal.Store(&err) }
	var err error
	if h.engine, err = docdb.OpenEngine(h.fs, "db", docdb.EngineOptions{CacheBytes: 1 << 20, MemTableBytes: 256 << 10, Fatal: fail}); err != nil {
		h.t.Fatal(err)
	}
	h.host = multiraft.New(multiraft.Config{Beat: 20 * time.Millisecond, Lease: 150 * time.Millisecond, ElectionDelay: 30 * time.Millisecond,
		MaxSkew: 50 * time.Millisecond, TransferMax: 150 * time.Millisecond}, multiraft.Deps{
		Node: h.id, Incarnation: h.life, Clock: clock, Mono: func() time.Duration { return time.Since(begin) + time.Second },
		Timer: wallTimer{}, Journal: h.journal, Transport: door{h.street, h.id}, Rand: rand.New(rand.NewPCG(uint64(h.id), h.life)),
		Logger: slog.New(slog.DiscardHandler), Fatal: fail})
	h.host.Start()
	desc := &catalog.Tablet{Id: tabletID, Table: uint32(catalog.RedisTableID)}
	t, err := New(Deps{Engine: h.engine, Clock: clock, Now: time.Now, AfterFunc: wallTimer{}.AfterFunc, Logger: slog.New(slog.DiscardHandler)}, desc, redisTable())
	if err != nil {
		h.t.Fatal(err)
	}
	gc := multiraft.GroupConfig{ID: tabletID, Replica: catalog.ReplicaID(h.id) + 10, New: first, Applied: t.Applied(), SM: t}
	for n := uint64(1); n <= 3; n++ {
		gc.Conf = append(gc.Conf, &catalog.Replica{Id: n + 10, Node: n, Role: catalog.Role_ROLE_VOTER})
	}
	if !first {
		gc.Conf, gc.Recovered = nil, h.journal.replay(tabletID)
	}
	if h.group, err = h.host.Create(gc); err != nil {
		h.t.Fatal(err)
	}
	t.Attach(h.group)
	h.tablet.Store(t)
	h.street.set(h.id, h.host)
}

// crash ends the node, keeping of its engine what was flushed.
func (h *house) crash() {
	h.street.set(h.id, nil)
	h.street.close(h.id, true)
	fs := h.fs.CrashClone(vfs.CrashCloneCfg{})
	h.stop()
	h.host.Close()
	h.engine.Close()
	h.fs = fs
	h.street.close(h.id, false)
}

func newStreet(t testing.TB) []*house {
	s := &street{hosts: make(map[catalog.NodeID]*multiraft.Host), shut: make(map[catalog.NodeID]bool)}
	var houses []*house
	for n := catalog.NodeID(1); n <= 3; n++ {
		h := &house{t: t, id: n, street: s, fs: vfs.NewCrashableMem(), journal: &keptJournal{streams: make(map[journal.StreamID]*journal.StreamReplay)}}
		h.start(true)
		houses = append(houses, h)
	}
	t.Cleanup(func() {
		for _, h := range houses {
			h.host.Close()
			h.stop()
			h.engine.Close()
			if err := h.fatal.Load(); err != nil {
				t.Errorf("node %d: %v", h.id, *err)
			}
		}
	})
	return houses
}

// insist sends a request to one node after the other until somebody carries it out.
func insist(ctx context.Context, houses []*house, req *wire.WriteRequest) (*wire.WriteResponse, int, error) {
	for at, tries := 0, 1; ; at, tries = at+1, tries+1 {
		patience, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		resp := houses[at%len(houses)].tablet.Load().Write(patience, req)
		cancel()
		switch {
		case resp.Error == nil:
			return resp, tries, nil
		case ctx.Err() != nil:
			return nil, tries, fmt.Errorf("%s at last", resp.Error)
		case !resp.Error.Code.Retriable() && resp.Error.Code != wire.Code_CODE_CANCELED && resp.Error.Code != wire.Code_CODE_TIMEOUT:
			return nil, tries, fmt.Errorf("%s", resp.Error)
		}
		if at%len(houses) == len(houses)-1 {
			pause := time.NewTimer(2 * time.Millisecond)
			<-pause.C
		}
	}
}

// TestCountersOnThreeNodes: increments with retries, while leadership is handed
// over, nodes are cut off, and nodes crash and lose what was not flushed. Every
// increment counts exactly once, and the replicas end equal.
func TestCountersOnThreeNodes(t *testing.T) {
	houses := newStreet(t)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	const workers, keys = 6, 3
	var sums [keys]atomic.Int64
	acknowledged := func() (n int64) {
		for k := range sums {
			n += sums[k].Load()
		}
		return n
	}
	progress := func(n int64) { // whatever has happened, writes go on
		t.Helper()
		goal := acknowledged() + n
		eventually(t, "progress", func() bool { return acknowledged() >= goal || t.Failed() })
	}
	var last [keys]sync.Map // every answer is given once
	stop := make(chan struct{})
	var group sync.WaitGroup
	for n := range workers {
		group.Add(1)
		go func() {
			defer group.Done()
			dice := rand.New(rand.NewPCG(uint64(n), 11))
			for id := uint64(1); ; id++ {
				select {
				case <-stop:
					return
				default:
				}
				k := dice.IntN(keys)
				resp, _, err := insist(ctx, houses, named(byte(n+1), id, id, incr(fmt.Sprint("n", k), 1)))
				if err != nil {
					t.Errorf("worker %d: %v", n, err)
					return
				}
				sums[k].Add(1)
				if who, twice := last[k].LoadOrStore(resp.Results[0].Int, n); twice {
					t.Errorf("counter n%d was %d for workers %v and %d", k, resp.Results[0].Int, who, n)
				}
			}
		}()
	}
	dice := rand.New(rand.NewPCG(5, 5))
	for round := range 9 {
		progress(100)
		h := houses[dice.IntN(3)]
		switch round % 3 {
		case 0:
			for _, l := range houses {
				if l.group.Leading() == nil {
					l.group.TransferLeader(catalog.ReplicaID(h.id) + 10)
				}
			}
		case 1:
			h.street.close(h.id, true)
			progress(100)
			h.street.close(h.id, false)
		case 2:
			if err := h.engine.Flush(); err != nil {
				t.Fatal(err)
			}
			if err := h.tablet.Load().Flushed(); err != nil {
				t.Fatal(err)
			}
			progress(50)
			h.crash()
			progress(50)
			h.start(false)
		}
	}
	progress(100)
	close(stop)
	group.Wait()
	for k := range sums {
		resp, _, err := insist(ctx, houses, named(200, uint64(k+1), uint64(k+1), incr(fmt.Sprint("n", k), 1)))
		if err != nil {
			t.Fatal(err)
		}
		if got := resp.Results[0].Int - 1; got != sums[k].Load() {
			t.Errorf("counter n%d is %d, %d increments were acknowledged", k, got, sums[k].Load())
		}
	}
	sameEverywhere(t, houses)
}

// sameEverywhere waits for the followers and compares hashes at equal entries.
func sameEverywhere(t *testing.T, houses []*house) {
	t.Helper()
	eventually(t, "all replicas are at the same entry", func() bool {
		first := houses[0].group.Status().Applied
		return houses[1].group.Status().Applied == first && houses[2].group.Status().Applied == first
	})
	now := hlc.FromTime(time.Now())
	var first uint64
	for i, h := range houses {
		sum, err := h.tablet.Load().Hash(now)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = sum
		} else if sum != first {
			t.Errorf("node %d holds %x, node 1 %x", h.id, sum, first)
		}
		if got, want := h.tablet.Load().requests.Load().dump(), houses[0].tablet.Load().requests.Load().dump(); got != want {
			t.Errorf("node %d remembers\n%snode 1\n%s", h.id, got, want)
		}
	}
}

// eventually waits for a condition, looking every millisecond.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline, tick := time.NewTimer(30*time.Second), time.NewTicker(time.Millisecond)
	defer deadline.Stop()
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("never: %s", what)
		}
	}
}
