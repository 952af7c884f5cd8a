package recovery

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// bench is fake shards behind the host's interfaces. Calls are answered each on a
// goroutine of its own, or kept until they are let go.
type bench struct {
	t *testing.T

	mu      sync.Mutex
	shards  map[logs.LogID][]*fakeShard
	view    *fakeView
	records map[logs.LogID]*wire.EpochRecord
	hold    callKind
	holding bool
	kept    []func()
	now     time.Duration
	timers  []*benchTimer
}

type benchTimer struct {
	at time.Duration
	f  func()
}

func newBench(t *testing.T, shards int) *bench {
	b := &bench{t: t, shards: map[logs.LogID][]*fakeShard{}, records: map[logs.LogID]*wire.EpochRecord{}, view: &fakeView{}}
	for i := range shards {
		b.view.shards = append(b.view.shards, newFakeShard(logs.MakeShard(catalog.NodeID(i+1), 0)))
	}
	return b
}

// log makes a log whose epoch 1 left one record on one shard.
func (b *bench) log(id logs.LogID) Args {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := &wire.EpochMetadata{Epoch: 3, EffectiveSince: 1, Replication: &catalog.Replication{Node: 2}}
	var set []*fakeShard
	for _, f := range b.view.shards {
		m.Nodeset = append(m.Nodeset, uint64(f.id))
		set = append(set, newFakeShard(f.id))
	}
	for _, f := range set {
		f.metadata = []*wire.EpochMetadata{m}
	}
	set[0].copies[logs.MakeLSN(1, 1)] = []*wire.LogRecord{{Log: uint64(id), Lsn: uint64(logs.MakeLSN(1, 1)), Wave: 1, Count: 1,
		Payload: []byte("x"), Copyset: m.Nodeset[:2]}}
	b.shards[id] = set
	b.records[id] = &wire.EpochRecord{Version: 1, Log: uint64(id), Metadata: m}
	return Args{Log: id, UpTo: 1, Own: 2, Metadata: []*wire.EpochMetadata{m}, Record: b.records[id]}
}

func (b *bench) deps() Deps {
	return Deps{Self: 9, Mono: b.mono, AfterFunc: b.after, Rand: rand.New(rand.NewPCG(1, 1)), Calls: b, EpochStore: benchStore{b},
		View: func() View { return b.view }}
}

func (b *bench) mono() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

func (b *bench) after(d time.Duration, f func()) func() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	timer := &benchTimer{b.now + d, f}
	b.timers = append(b.timers, timer)
	return func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		at := slices.Index(b.timers, timer)
		if at >= 0 {
			b.timers = slices.Delete(b.timers, at, at+1)
		}
		return at >= 0
	}
}

// do runs what a call asks for, elsewhere.
func (b *bench) do(kind callKind, f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.holding && kind == b.hold {
		b.kept = append(b.kept, f)
		return
	}
	go f()
}

// letGo answers what was kept.
func (b *bench) letGo() {
	b.mu.Lock()
	kept := b.kept
	b.kept, b.holding = nil, false
	b.mu.Unlock()
	for _, f := range kept {
		go f()
	}
}

func (b *bench) keep(kind callKind) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hold, b.holding = kind, true
}

// ask has a log's shard answer a call.
func (b *bench) ask(c call, log uint64, done func(event)) {
	b.do(c.kind, func() {
		b.mu.Lock()
		ev := event{err: errDown}
		for _, f := range b.shards[logs.LogID(log)] {
			if f.id == c.shard {
				ev = f.answer(c)
			}
		}
		b.mu.Unlock()
		done(ev)
	})
}

func (b *bench) Seal(s logs.ShardID, r *wire.SealRequest, done func(*wire.SealResponse, error)) {
	b.ask(call{kind: callSeal, shard: s, seal: r}, r.Log, func(ev event) { done(ev.seal, ev.err) })
}

func (b *bench) Digest(s logs.ShardID, r *wire.DigestRequest, done func(*wire.DigestResponse, error)) {
	b.ask(call{kind: callDigest, shard: s, digest: r}, r.Log, func(ev event) { done(ev.digest, ev.err) })
}

func (b *bench) Store(s logs.ShardID, r *wire.Store, done func(*wire.Stored, error)) {
	b.ask(call{kind: callStore, shard: s, store: r}, r.Record.Log, func(ev event) { done(ev.stored, ev.err) })
}

func (b *bench) Clean(s logs.ShardID, r *wire.CleanRequest, done func(*wire.CleanResponse, error)) {
	b.ask(call{kind: callClean, shard: s, clean: r}, r.Log, func(ev event) { done(ev.clean, ev.err) })
}

func (b *bench) EpochRecovery(s logs.ShardID, r *wire.EpochRecoveryRequest, done func(*wire.EpochRecoveryResponse, error)) {
	b.ask(call{kind: callDecisions, shard: s, decisions: r}, r.Log, func(ev event) { done(ev.decisions, ev.err) })
}

func (b *bench) Records(s logs.ShardID, r *wire.RecordsRequest, done func(*wire.RecordsResponse, error)) {
	b.ask(call{kind: callRecords, shard: s, records: r}, uint64(logs.LogID(r.Log).DataLog()), func(ev event) { done(ev.records, ev.err) })
}

func (b *bench) LogState(s logs.ShardID, r *wire.LogStateRequest, done func(*wire.LogStateResponse, error)) {
	b.do(callStates, func() { done(b.states(s), nil) })
}

func (b *bench) ReadMetadata(s logs.ShardID, r *wire.ReadMetadataRequest, done func(*wire.ReadMetadataResponse, error)) {
	b.ask(call{kind: callMetadata, shard: s}, r.Log, func(ev event) { done(ev.metadata, ev.err) })
}

// benchStore is the epoch store.
type benchStore struct{ b *bench }

func (s benchStore) Read(log logs.LogID, done func(*wire.EpochRecord, error)) {
	if log.IsMetadata() { // how many copies its entries have would be guessed
		s.b.t.Errorf("the epoch store is asked for the metadata log %d: it knows the log's", log)
	}
	s.b.do(callRead, func() {
		s.b.mu.Lock()
		r := s.b.records[log]
		s.b.mu.Unlock()
		done(r, nil)
	})
}

func (s benchStore) CompareAndSet(log logs.LogID, expect uint64, next *wire.EpochRecord, done func(error)) {
	s.b.do(callSwap, func() {
		s.b.mu.Lock()
		var err error
		if s.b.records[log].Version == expect {
			s.b.records[log] = next
		} else {
			err = errors.New("conflict")
		}
		s.b.mu.Unlock()
		done(err)
	})
}

// benchShard is a node's own shard.
type benchShard struct {
	b  *bench
	id logs.ShardID
}

func (s benchShard) change(c call, log logs.LogID, done func(error)) {
	c.shard = s.id
	s.b.ask(c, uint64(log), func(ev event) { done(ev.err) })
}

func (s benchShard) DeleteCopies(log logs.LogID, from, to logs.LSN, done func(error)) {
	s.change(call{kind: callDelete, from: from, to: to}, log, done)
}

func (s benchShard) SetLastClean(log logs.LogID, r *wire.EpochRecovery, done func(error)) {
	s.change(call{kind: callMark, epoch: logs.Epoch(r.Epoch), mark: r}, log, done)
}

// until waits for a condition that other goroutines bring about.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		<-time.After(time.Millisecond)
	}
}

func TestHostRecoversSomeLogsAtATime(t *testing.T) {
	const all = 40
	b := newBench(t, 4)
	d := b.deps()
	h := NewHost(Config{Recoveries: 3}, d)
	b.keep(callDigest)
	results := make(chan Result, all)
	for id := logs.LogID(1); id <= all; id++ {
		h.Recover(b.log(id), func(r Result, err error) {
			if err != nil {
				t.Error(err)
			}
			results <- r
		})
	}
	until(t, "three logs wait for their digests", func() bool {
		n := 0
		for _, r := range h.Rows() {
			if r.State == "DIGESTING" && r.Absent == 4 {
				n++
			}
		}
		return n == 3
	})
	if rows, m := h.Rows(), h.Metrics(); len(rows) != all || m.Running.Load() != 3 || m.Waiting.Load() != all-3 || rows[all-1].State != "WAITING" {
		t.Fatalf("%d rows, %d running, %d waiting", len(rows), m.Running.Load(), m.Waiting.Load())
	}
	h.ViewChanged()
	b.letGo()
	for range all {
		if r := <-results; r.Status != statusOK || r.Tail.Lsn != uint64(logs.MakeLSN(1, 1)) || r.CountBase != 1 || r.Record.LastCleanEpoch != 1 {
			t.Fatalf("%+v", r)
		}
	}
	if m := h.Metrics(); m.Done.Load() != all || m.Running.Load() != 0 || m.Waiting.Load() != 0 || len(h.Rows()) != 0 {
		t.Fatalf("%d done, %d running, %d waiting", m.Done.Load(), m.Running.Load(), m.Waiting.Load())
	}
}

// TestAnEpochIsNotRecoveredForTwice: C2 across a cancel.
func TestAnEpochIsNotRecoveredForTwice(t *testing.T) {
	b := newBench(t, 4)
	h := NewHost(Config{}, b.deps())
	args := b.log(1)
	answer := make(chan Result, 1)
	done := func(r Result, err error) { answer <- r }

	b.keep(callDigest)
	cancel := h.Recover(args, done)
	until(t, "digests are out", func() bool { b.mu.Lock(); defer b.mu.Unlock(); return len(b.kept) == 4 })
	cancel()
	b.letGo()

	b.keep(callStore) // nothing was decided: it may be begun again
	cancel = h.Recover(args, done)
	until(t, "stores are out", func() bool { b.mu.Lock(); defer b.mu.Unlock(); return len(b.kept) > 0 })
	cancel()
	b.letGo()
	h.Recover(args, done)
	if r := <-answer; r.Status != statusFailed || r.Message == "" {
		t.Fatalf("begun again for the same epoch: %+v", r)
	}

	args.Own, args.UpTo = 3, 2
	h.Recover(args, done)
	if r := <-answer; r.Status != statusOK || r.Record.LastCleanEpoch != 2 {
		t.Fatalf("for a later epoch: %+v", r)
	}
}

func TestClosedHost(t *testing.T) {
	b := newBench(t, 3)
	h := NewHost(Config{Recoveries: 1}, b.deps())
	b.keep(callSeal)
	errs := make(chan error, 3)
	for id := logs.LogID(1); id <= 2; id++ {
		h.Recover(b.log(id), func(_ Result, err error) { errs <- err })
	}
	h.Close()
	h.Recover(b.log(3), func(_ Result, err error) { errs <- err })
	for range 3 {
		if err := <-errs; !errors.Is(err, ErrClosed) {
			t.Fatal(err)
		}
	}
	b.letGo() // answers come late
}

// TestHostWakesItsCores: one shard is silent; after the grace period the rest is enough.
func TestHostWakesItsCores(t *testing.T) {
	b := newBench(t, 4)
	h := NewHost(Config{}, b.deps())
	args := b.log(1)
	b.mu.Lock()
	b.shards[1] = b.shards[1][:3] // the fourth cannot be reached
	b.mu.Unlock()
	answer := make(chan Result, 1)
	h.Recover(args, func(r Result, err error) { answer <- r })
	until(t, "it waits for the fourth", func() bool {
		rows := h.Rows()
		return len(rows) == 1 && rows[0].Digest == "incomplete" && rows[0].Absent == 1
	})
	b.mu.Lock()
	b.now += 100 * time.Millisecond
	var due []*benchTimer
	for _, timer := range b.timers {
		if timer.at <= b.now {
			due = append(due, timer)
		}
	}
	b.mu.Unlock()
	if len(due) == 0 {
		t.Fatal("no timer is set")
	}
	for _, timer := range due {
		timer.f()
	}
	if r := <-answer; r.Status != statusOK {
		t.Fatalf("%+v", r)
	}
}

func TestPurgerPurgesSomeLogsAtATime(t *testing.T) {
	const all = 12
	b := newBench(t, 4)
	own := b.view.shards[3].id
	for id := logs.LogID(1); id <= all; id++ {
		b.log(id)
		for i, f := range b.shards[id] {
			if i < 3 {
				f.clean, f.recoveries[1] = 1, &wire.EpochRecovery{Epoch: 1, SealEpoch: 1}
			} else {
				f.copies[logs.MakeLSN(1, 1)] = []*wire.LogRecord{{Lsn: uint64(logs.MakeLSN(1, 1)), Wave: 1, Payload: []byte("stale")}}
			}
		}
	}
	p := NewPurger(Config{Purges: 2}, PurgerDeps{Self: own.Node(), Shard: own, Mono: b.mono, AfterFunc: b.after, Calls: b,
		Store: benchShard{b, own}, View: func() View { return b.view }})
	b.keep(callDecisions)
	for id := logs.LogID(1); id <= all; id++ {
		for range 3 { // the store asks again
			p.Purge(id, 0, logs.MakeLSN(2, 5))
		}
	}
	if m := p.Metrics(); m.Started.Load() != all || m.Running.Load() != 2 || m.Waiting.Load() != all-2 || len(p.Rows()) != all {
		t.Fatalf("%d started, %d running, %d waiting", m.Started.Load(), m.Running.Load(), m.Waiting.Load())
	}
	until(t, "decisions are asked for", func() bool { b.mu.Lock(); defer b.mu.Unlock(); return len(b.kept) >= 2*4 })
	asking := 0
	for _, r := range p.Rows() {
		switch {
		case r.State == "ASKING" && r.Waiting == 4:
			asking++
		case r.State != "WAITING" || r.Waiting > 0:
			t.Errorf("row %+v", r)
		}
	}
	if asking != 2 {
		t.Errorf("%d purges are asking: %+v", asking, p.Rows())
	}
	p.ViewChanged()
	b.letGo()
	until(t, "all are purged", func() bool { return p.Metrics().Done.Load() == all })
	b.mu.Lock()
	defer b.mu.Unlock()
	for id := logs.LogID(1); id <= all; id++ {
		if f := b.shards[id][3]; f.clean != 1 || len(f.copies) != 0 {
			t.Fatalf("log %d: %s", id, f.dump())
		}
	}
	p.Close()
	p.Purge(99, 0, logs.MakeLSN(2, 5))
	if p.Metrics().Started.Load() != all {
		t.Fatal("closed, and began another")
	}
}
