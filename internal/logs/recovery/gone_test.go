package recovery

import (
	"math/rand/v2"
	"testing"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// TestWhatWasDecidedAndNobodyShowsIsLost: D6. Recovery ended an epoch with five LSNs. The
// shard, alone in its copysets, lost the end of its journal, and others show the first,
// the third and the bridge: the second and the fourth had copies, and have none.
func TestWhatWasDecidedAndNobodyShowsIsLost(t *testing.T) {
	view := &fakeView{}
	m := &wire.EpochMetadata{Epoch: 4, EffectiveSince: 1, Replication: &catalog.Replication{Node: 1}}
	for i := range 3 {
		view.shards = append(view.shards, newFakeShard(logs.MakeShard(catalog.NodeID(i+1), 0)))
		m.Nodeset = append(m.Nodeset, uint64(view.shards[i].id))
	}
	cfg := Config{}.withDefaults()
	c := newComparison(&cfg, &honest, view, 1, view.shards[0].id, talkLog, 2)
	at := func(e logs.Epoch, n logs.ESN) logs.LSN { return logs.MakeLSN(e, n) }
	c.record, c.from, c.to, c.upTo, c.clean = &wire.EpochRecord{Metadata: m}, at(1, 1), at(2, logs.ESNMax), 2, 1
	c.history.learn([]*wire.EpochMetadata{m})
	c.addPeers(c.history.shards(1, 2))
	c.decided = map[logs.Epoch]*wire.EpochRecovery{1: {Epoch: 1, SealEpoch: 2, LastKnownGood: 1, Last: 5}}
	c.state, c.next = compareAsking, 2
	shows := map[logs.ShardID][]logs.LSN{view.shards[1].id: {at(1, 1), at(1, 5)}, view.shards[2].id: {at(1, 3), at(2, 7)}}
	fx := c.step(0, event{kind: evView, view: view})
	c.step(0, event{kind: evAnswer, of: call{kind: callFence}, doubt: logs.Doubt{Number: 1, From: 1, Clean: 2}}) // late
	for len(fx.calls) > 0 {
		k := fx.calls[0]
		fx.calls = fx.calls[1:]
		ev := event{kind: evAnswer, of: bare(k)}
		switch k.kind {
		case callSeal:
			ev.seal = &wire.SealResponse{LastCleanEpoch: 1}
		case callRecords:
			ev.records = &wire.RecordsResponse{}
			for _, lsn := range shows[k.shard] {
				ev.records.Records = append(ev.records.Records, &wire.LogRecord{Lsn: uint64(lsn), Copyset: []uint64{uint64(k.shard)}})
			}
		case callSure:
			if f := k.found; !f.Weak || f.Clean != 1 || f.Doubt != 0 || f.From != at(1, 2) || f.To != at(1, 4) {
				t.Errorf("%+v", f)
			}
			return
		}
		more := c.step(0, ev)
		fx.calls = append(fx.calls, more.calls...)
	}
	t.Errorf("it did not come to an end: %s", c.state)
}

// only is the one call that a step makes.
func only(t *testing.T, fx effects, want callKind) call {
	t.Helper()
	if len(fx.calls) != 1 || fx.calls[0].kind != want {
		t.Fatalf("%+v, not one call %d", fx.calls, want)
	}
	return fx.calls[0]
}

// TestAFenceIsOfWhatWasAskedSinceItsDoubt: D7. A comparison tells its shard which doubt was
// the newest when it asked the epoch store for the next epoch. If there is another by then,
// of a later epoch maybe, the shard refuses, and the epoch store is asked again.
func TestAFenceIsOfWhatWasAskedSinceItsDoubt(t *testing.T) {
	view := &fakeView{shards: []*fakeShard{newFakeShard(logs.MakeShard(1, 0)), newFakeShard(logs.MakeShard(2, 0))}}
	cfg := Config{}.withDefaults()
	c := newComparison(&cfg, &honest, view, 1, view.shards[0].id, talkLog, 2)
	k := only(t, c.step(0, event{kind: evStart}), callRead)
	for _, next := range []struct {
		number uint64
		epoch  logs.Epoch
	}{{3, 4}, {4, 6}} {
		m := &wire.EpochMetadata{Epoch: uint32(next.epoch), EffectiveSince: 1, Replication: &catalog.Replication{Node: 1}}
		ev := event{kind: evAnswer, of: bare(k), record: &wire.EpochRecord{Metadata: m}, doubt: logs.Doubt{Number: next.number}}
		f := only(t, c.step(0, ev), callFence)
		if f.epoch != next.epoch || f.since != next.number {
			t.Fatalf("%+v, not of %+v", f, next)
		}
		if fx := c.step(0, event{kind: evAnswer, of: bare(f), err: errDown}); len(fx.calls) > 0 {
			t.Fatalf("at once: %+v", fx.calls)
		}
		k = only(t, c.step(cfg.Retry, event{kind: evTimer}), callRead)
	}
}

// TestAComparisonThatBeginsAnewAsksWhoStored: epochs 1 and 2 are on shards 1 and 2. While a
// comparison waits epochs 3 and 4 begin on 1 and 3, then 5 on all. It begins anew, and the
// epoch store names who stores from 5 on: who stored 3 and 4 only the metadata log tells.
func TestAComparisonThatBeginsAnewAsksWhoStored(t *testing.T) {
	view := &fakeView{}
	for i := range 3 {
		view.shards = append(view.shards, newFakeShard(logs.MakeShard(catalog.NodeID(i+1), 0)))
	}
	own := view.shards[0]
	meta := func(next, since uint32, on ...int) *wire.EpochMetadata {
		m := &wire.EpochMetadata{Epoch: next, EffectiveSince: since, Replication: &catalog.Replication{Node: 2}}
		for _, i := range on {
			m.Nodeset = append(m.Nodeset, uint64(view.shards[i-1].id))
		}
		return m
	}
	first, last := meta(3, 1, 1, 2), meta(6, 5, 1, 2, 3)
	own.metadata = []*wire.EpochMetadata{first, meta(5, 3, 1, 3), last}
	cfg := Config{}.withDefaults()
	c := newComparison(&cfg, &honest, view, 1, own.id, talkLog, 2)
	doubt := event{kind: evAnswer, of: call{kind: callFence}, doubt: logs.Doubt{From: logs.MakeLSN(1, 1), To: logs.MakeLSN(5, logs.ESNMax)}}
	begin := func(k call, m *wire.EpochMetadata) effects {
		c.step(c.now, event{kind: evAnswer, of: bare(k), record: &wire.EpochRecord{Metadata: m}})
		return c.step(c.now, doubt)
	}
	fx := begin(only(t, c.step(0, event{kind: evStart}), callRead), first)
	if k := only(t, fx, callSeal); k.shard != view.shards[1].id {
		t.Fatalf("%s is asked about epoch 1", k.shard)
	}
	c.restart()
	fx = begin(only(t, c.step(cfg.Retry, event{kind: evTimer}), callRead), last)
	asked := map[logs.ShardID]bool{}
	for len(fx.calls) > 0 {
		k := fx.calls[0]
		fx.calls = fx.calls[1:]
		if k.kind == callSeal {
			asked[k.shard] = true
			continue
		}
		ev := event{kind: evAnswer, of: bare(k), metadata: &wire.ReadMetadataResponse{Metadata: own.metadata}}
		ev.of.plan-- // of what was asked before it began anew, before anything was written
		ev.metadata = &wire.ReadMetadataResponse{}
		c.step(c.now, ev)
		fx.calls = append(fx.calls, c.step(c.now, view.find(k.shard).answer(k)).calls...)
	}
	if len(asked) != 2 {
		t.Errorf("asked: %v", asked)
	}
}

// TestSpans holds the stretches to a set. Where there are too many some are forgotten, and
// nothing is claimed that was not added.
func TestSpans(t *testing.T) {
	for seed := range uint64(300) {
		dice := rand.New(rand.NewPCG(seed, 1))
		var s spans
		in := map[logs.LSN]bool{}
		most := 1 + dice.IntN(30)
		for range dice.IntN(40) {
			n := logs.LSN(1 + dice.IntN(40))
			s.add(n, most)
			in[n] = true
		}
		if len(s) > most {
			t.Fatalf("seed %d: %d spans, of at most %d", seed, len(s), most)
		}
		claimed := map[logs.LSN]bool{}
		for _, x := range s {
			for n := x.from; n <= x.to; n++ {
				if claimed[n] = true; !in[n] {
					t.Fatalf("seed %d: %d was never added: %v", seed, n, s)
				}
			}
		}
		if most >= 20 && len(claimed) != len(in) {
			t.Fatalf("seed %d: %d are left of %d: %v", seed, len(claimed), len(in), s)
		}
		in = claimed
		for i, x := range s {
			if x.from > x.to || i > 0 && s[i-1].to+1 >= x.from {
				t.Fatalf("seed %d: %v", seed, s)
			}
		}
		for from := logs.LSN(1); from < 42; from++ {
			for to := from; to < 42; to++ {
				var first, last logs.LSN
				for n := from; n <= to; n++ {
					if !in[n] {
						last = n
						if first == 0 {
							first = n
						}
					}
				}
				if a, b := s.gaps(from, to); a != first || b != last {
					t.Fatalf("seed %d: gaps of %v in %d to %d are %d to %d, want %d to %d", seed, s, from, to, a, b, first, last)
				}
			}
		}
	}
}
