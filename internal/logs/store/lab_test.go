package store

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/journal"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/sim/simfs"
	"github.com/braiddb/braid/internal/wire"
)

const (
	labStream = journal.StreamID(1<<63 | 1)
	labLog    = logs.LogID(17)
)

var (
	labShard = logs.MakeShard(1, 0)
	others   = []logs.ShardID{logs.MakeShard(2, 0), logs.MakeShard(3, 0)}
)

// labClock is time that a test moves. Timers run on the goroutine that moves it.
type labClock struct {
	mu     sync.Mutex
	now    time.Duration
	ahead  time.Duration // of the wall
	timers []*labTimer
}

type labTimer struct {
	at time.Duration
	f  func()
}

func (c *labClock) Mono() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *labClock) WallMs() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return 1_700_000_000_000 + (c.now + c.ahead).Milliseconds()
}

// jump has the wall show another time from now on.
func (c *labClock) jump(ahead time.Duration) {
	c.mu.Lock()
	c.ahead = ahead
	c.mu.Unlock()
}

func (c *labClock) AfterFunc(d time.Duration, f func()) func() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &labTimer{c.now + d, f}
	c.timers = append(c.timers, t)
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		n := len(c.timers)
		c.timers = slices.DeleteFunc(c.timers, func(o *labTimer) bool { return o == t })
		return len(c.timers) < n
	}
}

func (c *labClock) advance(d time.Duration) {
	c.mu.Lock()
	end := c.now + d
	for {
		var next *labTimer
		for _, t := range c.timers {
			if t.at <= end && (next == nil || t.at < next.at) {
				next = t
			}
		}
		if next == nil {
			break
		}
		c.timers = slices.DeleteFunc(c.timers, func(o *labTimer) bool { return o == next })
		c.now = max(c.now, next.at)
		c.mu.Unlock()
		next.f()
		c.mu.Lock()
	}
	c.now = end
	c.mu.Unlock()
}

// lab is a shard with a journal on a file system of its own.
type lab struct {
	t     testing.TB
	fs    *simfs.FS
	clock *labClock
	life  uint64
	opts  Options
	jopts journal.Options
	j     *journal.Journal
	s     *Store

	doubting bool                           // the tail is said to be suspect
	lost     int                            // records that the next life finds missing at the journal's end
	trusting bool                           // a suspect tail is known to be torn: the power was cut
	looks    atomic.Pointer[func(simfs.Op)] // see look
}

// look has every operation on files looked at, from now on.
func (b *lab) look(f func(simfs.Op)) { b.looks.Store(&f) }

func newLab(t testing.TB, seed uint64) *lab {
	b := &lab{t: t, clock: &labClock{}}
	b.fs = simfs.New(simfs.Options{Seed: seed, Latency: func(op simfs.Op) time.Duration {
		if look := b.looks.Load(); look != nil {
			(*look)(op)
		}
		return 0
	}})
	b.jopts = journal.Options{SegmentBytes: 256 << 10, SegmentsMax: 16}
	b.opts = Options{MemTableBytes: 256 << 10, RecordCacheBytes: 64 << 10, CacheBytes: 1 << 20, Workers: 2}
	return b
}

// open begins a life.
func (b *lab) open() *lab {
	b.t.Helper()
	if err := b.tryOpen(); err != nil {
		b.t.Fatal(err)
	}
	return b
}

func (b *lab) tryOpen() error {
	b.life++
	j, replay, err := journal.Open(b.fs, "journal", journal.Identity{Node: 1, Incarnation: b.life}, b.clock, b.jopts)
	if err != nil {
		return err
	}
	o := b.opts
	o.Shard, o.Journal, o.Stream, o.Incarnation = labShard, j, labStream, b.life
	o.Mono, o.WallMs, o.AfterFunc = b.clock.Mono, b.clock.WallMs, b.clock.AfterFunc
	o.Recovered, o.Suspect = replay.Streams[labStream], replay.Suspect && !b.trusting || b.doubting
	if fs := b.fs; o.Fatal == nil {
		o.Fatal = func(err error) {
			if !fs.Down() {
				b.t.Errorf("fatal: %v", err)
			}
		}
	}
	if r := o.Recovered; r != nil {
		r.Records, b.lost = r.Records[:len(r.Records)-b.lost], 0
	}
	s, err := Open(b.fs, "logs", o)
	if err != nil {
		j.Close()
		return err
	}
	b.j, b.s = j, s
	return nil
}

// stop ends a life in good order.
func (b *lab) stop() {
	b.t.Helper()
	if err := b.s.Close(); err != nil {
		b.t.Fatal(err)
	}
	if err := b.j.Close(); err != nil {
		b.t.Fatal(err)
	}
}

// crash ends a life and the power.
func (b *lab) crash(c simfs.Crash) {
	b.fs = b.fs.Crash(c)
	b.s.abandon()
	_ = b.j.Close()
}

// abandon tells the goroutines of a store whose file system is gone to end. It
// does not wait: some wait themselves, for flushes that will never be.
func (s *Store) abandon() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.house.end()
	for _, m := range []struct {
		mu      *sync.Mutex
		cond    *sync.Cond
		stopped *bool
	}{{&s.work.mu, &s.work.cond, &s.work.stopped}, {&s.apply.mu, &s.apply.cond, &s.apply.stopped}} {
		m.mu.Lock()
		*m.stopped = true
		m.cond.Broadcast()
		m.mu.Unlock()
	}
}

// rec makes a record with a payload of its own.
func rec(lsn logs.LSN, payload string) *wire.LogRecord {
	return &wire.LogRecord{Log: uint64(labLog), Lsn: uint64(lsn), TimestampMs: 1_700_000_000_000 + int64(lsn.ESN()), Wave: 1,
		Copyset: []uint64{uint64(labShard), uint64(others[0])}, CountBefore: uint64(lsn.ESN()) - 1, Count: 1,
		Payload: []byte(payload), Checksum: logs.Checksum([]byte(payload))}
}

func store(r *wire.LogRecord) *wire.Store { return &wire.Store{Record: r, Cookie: r.Lsn} }

// send hands over a batch and waits for the outcome of each of its stores.
func (b *lab) send(stores ...*wire.Store) map[uint64]*wire.Stored {
	b.t.Helper()
	var mu sync.Mutex
	out := map[uint64]*wire.Stored{}
	var wg sync.WaitGroup
	wg.Add(len(stores))
	b.s.HandleBatch(&wire.LogBatch{FromNode: 2, ToNode: 1, Stores: stores}, func(a *wire.LogBatch) {
		mu.Lock()
		defer mu.Unlock()
		for _, s := range a.Stored {
			out[s.Cookie] = s
			wg.Done()
		}
	})
	wg.Wait()
	return out
}

// put stores records and fails unless all are taken.
func (b *lab) put(rs ...*wire.LogRecord) {
	b.t.Helper()
	var stores []*wire.Store
	for _, r := range rs {
		stores = append(stores, store(r))
	}
	for c, a := range b.send(stores...) {
		if a.Status != statusOK {
			b.t.Fatalf("store of %s: %s", logs.LSN(c), a.Status)
		}
	}
}

func (b *lab) release(lsn logs.LSN) {
	b.s.HandleBatch(&wire.LogBatch{FromNode: 2, Releases: []*wire.Release{{Log: uint64(labLog), Released: uint64(lsn),
		Epoch: uint32(lsn.Epoch()), LastKnownGood: uint32(lsn.ESN())}}}, nil)
}

// call waits for the answer to one request.
func call[Q, A any](f func(Q, func(A)), req Q) A {
	wait := make(chan A, 1)
	f(req, func(a A) { wait <- a })
	return <-wait
}

// read reads [from, until] to its end with one stream and gives what came.
func (b *lab) read(req *wire.ReadStartRequest) []*wire.Delivery {
	b.t.Helper()
	if req.Log == 0 {
		req.Log = uint64(labLog)
	}
	if req.WindowHigh == 0 {
		req.WindowHigh = uint64(logs.LSNMax)
	}
	start := call(b.s.ReadStart, req)
	if start.Status != statusOK {
		b.t.Fatalf("ReadStart: %s %s", start.Status, start.Message)
	}
	defer call(b.s.ReadStop, &wire.ReadStopRequest{Stream: start.Stream})
	var out []*wire.Delivery
	at := req.From
	for {
		a := call(b.s.ReadNext, &wire.ReadNextRequest{Stream: start.Stream, BytesMax: 4096})
		if a.Status != statusOK {
			b.t.Fatalf("ReadNext: %s", a.Status)
		}
		if len(a.Deliveries) == 0 {
			return out
		}
		for _, d := range a.Deliveries {
			from, to := d.GapFrom, d.GapTo
			if d.Record != nil {
				from, to = d.Record.Lsn, d.Record.Lsn
			}
			if from != at || to < from {
				b.t.Fatalf("delivery of %s..%s where %s is next", logs.LSN(from), logs.LSN(to), logs.LSN(at))
			}
			at = to + 1
		}
		out = append(out, a.Deliveries...)
	}
}

// text prints deliveries: a record as its LSN and payload, a gap as its kind.
func text(ds []*wire.Delivery) string {
	out := ""
	names := [...]string{"?", "trim", "none", "checksum", "filtered", "under"}
	for _, d := range ds {
		if r := d.Record; r != nil {
			out += fmt.Sprintf("%s=%s ", logs.LSN(r.Lsn), r.Payload)
			continue
		}
		out += fmt.Sprintf("%s[%s %s] ", names[d.Gap], logs.LSN(d.GapFrom), logs.LSN(d.GapTo))
	}
	if out != "" {
		out = out[:len(out)-1]
	}
	return out
}

func lsn(e logs.Epoch, n logs.ESN) logs.LSN { return logs.MakeLSN(e, n) }

func attributes(backlogMs int64) func(logs.LogID) (*catalog.LogAttributes, bool) {
	return func(logs.LogID) (*catalog.LogAttributes, bool) {
		return &catalog.LogAttributes{BacklogMs: &backlogMs}, true
	}
}
