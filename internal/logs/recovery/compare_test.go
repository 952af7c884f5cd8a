package recovery

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/placement"
	"github.com/braiddb/braid/internal/wire"
)

// states lists the logs of which a shard of the bench has anything.
func (b *bench) states(s logs.ShardID) *wire.LogStateResponse {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := &wire.LogStateResponse{}
	for id, set := range b.shards {
		for _, f := range set {
			if f.id == s && len(f.copies) > 0 {
				out.States = append(out.States, &wire.LogState{Log: uint64(id)})
			}
		}
	}
	slices.SortFunc(out.States, func(a, b *wire.LogState) int { return int(a.Log) - int(b.Log) })
	return out
}

// benchDoubt is a node's own shard that lost the end of its journal.
type benchDoubt struct {
	benchShard
	listed chan struct{} // closed by Listed
}

func (d benchDoubt) Suspect() bool { return true }

// Doubts knows of no log: what is lost are all copies, and others have to say of which.
func (d benchDoubt) Doubts() []logs.LogID { return nil }

func (d benchDoubt) Unfenced() (out []logs.LogID) {
	d.b.mu.Lock()
	defer d.b.mu.Unlock()
	for id, set := range d.b.shards {
		for _, f := range set {
			if f.id == d.id && f.unfenced && len(f.copies) > 0 {
				out = append(out, id)
			}
		}
	}
	return out
}

func (d benchDoubt) DoubtNumber() uint64 { return 0 }

func (d benchDoubt) Fence(log logs.LogID, next logs.Epoch, _ uint64, done func(logs.Doubt, error)) {
	if log.IsMetadata() {
		d.b.do(callFence, func() { done(logs.Doubt{To: logs.LSNMax}, nil) })
		return
	}
	d.b.ask(call{kind: callFence, shard: d.id, epoch: next}, uint64(log), func(ev event) { done(ev.doubt, ev.err) })
}

func (d benchDoubt) Repair(log logs.LogID, clean logs.Epoch, records []*wire.LogRecord, done func(error)) {
	d.change(call{kind: callRepair, epoch: clean, repair: records}, log.DataLog(), done)
}

func (d benchDoubt) Sure(log logs.LogID, found logs.Compared, done func(error)) {
	if log.IsMetadata() {
		d.b.do(callSure, func() { done(nil) })
		return
	}
	d.change(call{kind: callSure, found: found}, log, done)
}

func (d benchDoubt) Listed() error {
	close(d.listed)
	return nil
}

// inDoubtBench has logs with a record on shards 1 and 2, of which 2 lost its own.
func inDoubtBench(t *testing.T, all logs.LogID) (*bench, benchDoubt, *Comparer) {
	b := newBench(t, 3)
	for id := logs.LogID(1); id <= all; id++ {
		b.log(id)
		b.records[id].Metadata.Epoch = 4
		b.shards[id][1].unfenced = true
		for lsn, vs := range b.shards[id][0].copies {
			vs[0].Checksum = logs.Checksum([]byte(lsn.String())) // as fake shards tell it
			vs[0].Payload = []byte(lsn.String())
		}
	}
	own := benchDoubt{benchShard{b, b.view.shards[1].id}, make(chan struct{})}
	c := NewComparer(Config{Comparisons: 3}, ComparerDeps{Self: own.id.Node(), Shard: own.id, Mono: b.mono, AfterFunc: b.after, Calls: b,
		EpochStore: benchStore{b}, Store: own, Purge: func(logs.LogID, logs.Epoch, logs.LSN) {}, View: func() View { return b.view }})
	return b, own, c
}

// ring moves the time and fires what is due.
func (b *bench) ring(d time.Duration) {
	b.mu.Lock()
	b.now += d
	var due []*benchTimer
	b.timers = slices.DeleteFunc(b.timers, func(timer *benchTimer) bool {
		if timer.at > b.now {
			return false
		}
		due = append(due, timer)
		return true
	})
	b.mu.Unlock()
	for _, timer := range due {
		timer.f()
	}
}

// TestComparerFindsLogsByOthers: a shard that has lost all it had of some logs learns
// of them, takes its copies back, a few logs at a time, and says when it knows all.
func TestComparerFindsLogsByOthers(t *testing.T) {
	const all = 12
	b, own, c := inDoubtBench(t, all)
	b.keep(callRecords)
	c.Start()
	until(t, "three are compared", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.kept) > 0 && c.Metrics().Running.Load() == 3
	})
	if rows := c.Rows(); len(rows) <= 3 || rows[len(rows)-1].State != "WAITING" {
		t.Fatalf("%d rows: %+v", len(rows), rows)
	}
	select {
	case <-own.listed:
		t.Fatal("listed before all were fenced")
	default:
	}
	c.ViewChanged()
	b.letGo()
	until(t, "all logs and metadata logs are compared", func() bool { b.ring(10 * time.Millisecond); return c.Metrics().Done.Load() >= 2*all })
	until(t, "it is listed", func() bool {
		b.ring(10 * time.Millisecond)
		select {
		case <-own.listed:
			return true
		default:
			return false
		}
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	for id := logs.LogID(1); id <= all; id++ {
		if f := b.shards[id][1]; f.winner(logs.MakeLSN(1, 1)) == nil || f.sure < logs.MakeLSN(2, 0) {
			t.Errorf("log %d: sure up to %s, %s", id, f.sure, f.dump())
		}
	}
}

// TestComparerBeginsAnewForAnotherDoubt: what is at work when the shard comes to another
// doubt is done once more, also of a metadata log, which nobody fences.
func TestComparerBeginsAnewForAnotherDoubt(t *testing.T) {
	b, own, c := inDoubtBench(t, 1)
	b.keep(callRecords)
	c.Start()
	until(t, "both are compared", func() bool {
		b.ring(10 * time.Millisecond)
		rows := c.Rows()
		return len(rows) == 2 && !slices.ContainsFunc(rows, func(r CompareRow) bool { return r.State != "ASKING" })
	})
	c.Start()
	b.letGo()
	until(t, "both are compared twice, and listed", func() bool {
		b.ring(10 * time.Millisecond)
		select {
		case <-own.listed:
			return true
		default:
			return false
		}
	})
	if n := c.Metrics().Done.Load(); n < 4 { // the survey may find what is over by then, once more
		t.Errorf("listed after %d comparisons", n)
	}
}

// TestComparerWaitsForTheSilent: who may have the only other copy is waited for, and
// is not once it cannot answer any more.
func TestComparerWaitsForTheSilent(t *testing.T) {
	b, own, c := inDoubtBench(t, 1)
	b.mu.Lock()
	first := b.shards[1][0]
	b.shards[1] = b.shards[1][1:] // cannot be reached
	b.mu.Unlock()
	c.Compare(1, 0)
	waiting := func() bool {
		b.ring(2 * time.Second)
		return slices.ContainsFunc(c.Rows(), func(r CompareRow) bool { return r.Log == 1 && r.State == "ASKING" && r.Waiting == 1 })
	}
	until(t, "it waits for one", waiting)
	for range 20 {
		if b.ring(2 * time.Second); c.Metrics().Done.Load() > 1 {
			t.Fatal("it did not wait")
		}
	}
	b.mu.Lock()
	b.shards[1] = append(b.shards[1], first)
	b.mu.Unlock()
	until(t, "it is sure", func() bool { b.ring(2 * time.Second); return c.Metrics().Done.Load() == 2 })
	b.mu.Lock()
	if f := b.shards[1][0]; f.id != own.id || f.winner(logs.MakeLSN(1, 1)) == nil {
		t.Errorf("the copy is not back: %s", f.dump())
	}
	b.mu.Unlock()
	c.Close()
	if c.Compare(2, 0); len(c.Rows()) != 0 {
		t.Errorf("closed, and began another: %+v", c.Rows())
	}
}

// TestWhenADoubtIsOver: D1, for each number of shards that are silent, in doubt
// themselves, or gone; of a metadata log too, whose records may have no more copies
// than the log's.
func TestWhenADoubtIsOver(t *testing.T) {
	for _, x := range []struct {
		what                   string
		copies                 uint32
		silent, doubtful, gone int
		over, weak             bool
	}{
		{"all answered", 2, 0, 0, 0, true, false},
		{"one is silent", 2, 1, 0, 0, false, false},
		{"one is in doubt", 2, 0, 1, 0, true, true},
		{"one is gone", 2, 0, 0, 1, true, true},
		{"one is silent, another in doubt", 2, 1, 1, 0, false, false},
		{"one is gone, another in doubt", 2, 0, 1, 1, true, true},
		{"one copy", 1, 0, 0, 0, true, true},
		{"one is silent, of three copies", 3, 1, 0, 0, true, false},
		{"two are silent, of three copies", 3, 2, 0, 0, false, false},
		{"one is silent and one in doubt, of three copies", 3, 1, 1, 0, false, false},
		{"two are in doubt, of three copies", 3, 0, 2, 0, true, true},
	} {
		for _, log := range []logs.LogID{talkLog, talkLog.MetadataLog()} {
			view := &fakeView{}
			m := &wire.EpochMetadata{Epoch: 4, EffectiveSince: 1, Replication: &catalog.Replication{Node: x.copies}}
			for i := range 5 {
				view.shards = append(view.shards, newFakeShard(logs.MakeShard(catalog.NodeID(i+1), 0)))
				m.Nodeset = append(m.Nodeset, uint64(view.shards[i].id))
			}
			cfg := Config{}.withDefaults()
			c := newComparison(&cfg, &honest, view, 1, view.shards[0].id, log, 2)
			c.record, c.from, c.upTo = &wire.EpochRecord{Metadata: m}, logs.MakeLSN(1, 1), 2
			c.history.learn([]*wire.EpochMetadata{m})
			c.addPeers(c.history.shards(1, 2))
			for i := range c.peers {
				p := &c.peers[i]
				p.answered = i >= x.silent+x.gone
				p.doubtful = p.answered && i < x.silent+x.gone+x.doubtful
				view.find(p.id).gone = i >= x.silent && i < x.silent+x.gone
			}
			weak := x.weak
			if log.IsMetadata() && x.copies < 3 { // with five nodes its records had a copy more
				weak = x.silent+x.gone+x.doubtful >= int(x.copies) && x.over
			}
			if over := c.enough(); over != x.over || c.weak != weak {
				t.Errorf("%s, log %d: over %v, weak %v", x.what, log, over, c.weak)
			}
		}
	}
}

// TestNobodyIsWaitedForWhoHadWhatIsTrimmed: of what is trimmed others are asked what they
// know of producers, but who is silent does not hold the end of the doubt back, and
// nothing is lost with who is gone.
func TestNobodyIsWaitedForWhoHadWhatIsTrimmed(t *testing.T) {
	for _, x := range []struct {
		trim       logs.LSN
		gone       bool
		over, weak bool
	}{
		{logs.MakeLSN(3, 9), false, false, false},
		{logs.MakeLSN(4, 9), false, true, false},
		{logs.MakeLSN(4, 9), true, true, false},
		{logs.MakeLSN(3, 9), true, true, true},
	} {
		view := &fakeView{}
		for i := range 5 {
			view.shards = append(view.shards, newFakeShard(logs.MakeShard(catalog.NodeID(i+1), 0)))
		}
		of := func(since uint32, nodes ...int) *wire.EpochMetadata {
			m := &wire.EpochMetadata{Epoch: since, EffectiveSince: since, Replication: &catalog.Replication{Node: 2}}
			for _, n := range nodes {
				m.Nodeset = append(m.Nodeset, uint64(view.shards[n].id))
			}
			return m
		}
		cfg := Config{}.withDefaults()
		c := newComparison(&cfg, &honest, view, 1, view.shards[0].id, talkLog, 6)
		c.from, c.upTo, c.trim = logs.MakeLSN(2, 1), 6, x.trim
		c.history.learn([]*wire.EpochMetadata{of(1, 0, 1, 2), of(4, 0, 1, 3), of(5, 0, 3, 4)})
		c.addPeers(c.history.shards(2, 6))
		for i := range c.peers {
			p := &c.peers[i]
			p.answered = p.id != view.shards[2].id
			view.find(p.id).gone = !p.answered && x.gone
		}
		if over := c.enough(); over != x.over || c.weak != x.weak {
			t.Errorf("trimmed up to %s, one gone %v: over %v, weak %v", x.trim, x.gone, over, c.weak)
		}
	}
}

// TestSurvey: every shard is asked page by page, again where it failed, and those that
// store nothing or are lost are not waited for.
func TestSurvey(t *testing.T) {
	view := &fakeView{}
	for i := range 4 {
		view.shards = append(view.shards, newFakeShard(logs.MakeShard(catalog.NodeID(i+1), 0)))
	}
	cfg := Config{}.withDefaults()
	v := newSurvey(&cfg, view, view.shards[0].id)
	fx := v.step(0, event{kind: evStart})
	if len(fx.calls) != 3 || fx.done {
		t.Fatalf("%+v", fx)
	}
	answer := func(now time.Duration, k call, r *wire.LogStateResponse, err error) effects {
		return v.step(now, event{kind: evAnswer, of: bare(k), states: r, err: err})
	}
	page := func(more bool, ids ...uint64) *wire.LogStateResponse {
		out := &wire.LogStateResponse{More: more}
		for _, id := range ids {
			out.States = append(out.States, &wire.LogState{Log: id})
		}
		return out
	}
	second := answer(0, fx.calls[0], page(true, 3, uint64(logs.LogID(3).MetadataLog()), 5), nil)
	if !slices.Equal(second.logs, []logs.LogID{3, 3, 5}) && !slices.Equal(second.logs, []logs.LogID{3, 5}) ||
		len(second.calls) != 1 || second.calls[0].states.After == 0 {
		t.Fatalf("the next page: %+v", second)
	}
	if end := answer(0, second.calls[0], page(false, 9), nil); end.done || !slices.Equal(end.logs, []logs.LogID{9}) || len(end.calls) != 0 {
		t.Fatalf("the last page: %+v", end)
	}
	if fx := answer(0, fx.calls[1], &wire.LogStateResponse{Status: statusNotStorage}, nil); fx.done {
		t.Fatal("one is silent")
	}
	failed := answer(0, fx.calls[2], nil, errors.New("down"))
	if failed.done || failed.wake != cfg.Retry || !slices.Equal(v.silent(), []logs.ShardID{view.shards[3].id}) {
		t.Fatalf("after a failure: %+v, silent %v", failed, v.silent())
	}
	if again := v.step(cfg.Retry, event{kind: evTimer}); len(again.calls) != 1 {
		t.Fatalf("not asked again: %+v", again)
	}
	view.shards[3].gone = true
	if fx := v.step(cfg.Retry, event{kind: evView, view: view}); !fx.done || view.Authority(view.shards[3].id) != placement.ShardUnavailable {
		t.Fatalf("waits for one that is lost: %+v", fx)
	}
}

// TestComparerBeginsAnew: a shard that comes to doubt what it has while it runs has every
// log compared once more, though all were compared for an earlier doubt.
func TestComparerBeginsAnew(t *testing.T) {
	const all = 3
	b, own, c := inDoubtBench(t, all)
	for round := 1; round <= 2; round++ {
		c.Start()
		until(t, "all logs and metadata logs are compared", func() bool {
			b.ring(10 * time.Millisecond)
			return c.Metrics().Done.Load() >= uint64(round*2*all)
		})
		until(t, "it is listed", func() bool {
			b.ring(10 * time.Millisecond)
			select {
			case <-own.listed:
				return true
			default:
				return false
			}
		})
		b.mu.Lock()
		own.listed = make(chan struct{})
		c.deps.Store = own
		for id := logs.LogID(1); id <= all; id++ {
			f := b.shards[id][1]
			f.unfenced, f.sure = true, 0
			clear(f.copies)
		}
		b.mu.Unlock()
	}
}
