package recovery

import (
	"testing"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// duel is a shard that lost the end of its journal among others: the second of three, two
// copies of each record. Epochs 1 and 2 are clean, of epoch 2 nothing is known to be good.
type duel struct {
	view   *fakeView
	own    *fakeShard
	record *wire.EpochRecord
	held   map[logs.ShardID]bool // whose answers wait
	kept   []call
	core   *comparison
	over   bool
	now    time.Duration
}

func newDuel() *duel {
	d := &duel{view: &fakeView{}, held: map[logs.ShardID]bool{}}
	m := &wire.EpochMetadata{Epoch: 4, EffectiveSince: 1, Replication: &catalog.Replication{Node: 2}}
	for i := range 3 {
		f := newFakeShard(logs.MakeShard(catalog.NodeID(i+1), 0))
		d.view.shards = append(d.view.shards, f)
		m.Nodeset = append(m.Nodeset, uint64(f.id))
	}
	d.own = d.view.shards[1]
	d.own.clean, d.own.doubtFrom, d.own.doubtTo = 2, logs.MakeLSN(2, 1), logs.MakeLSN(4, 0)-1
	d.record = &wire.EpochRecord{Metadata: m, LastCleanEpoch: 2}
	return d
}

// put gives shards a copy that names them.
func (d *duel) put(lsn logs.LSN, on ...int) {
	r := &wire.LogRecord{Log: uint64(talkLog), Lsn: uint64(lsn), Wave: 1, Payload: []byte(lsn.String())}
	for _, n := range on {
		r.Copyset = append(r.Copyset, uint64(logs.MakeShard(catalog.NodeID(n), 0)))
	}
	for _, n := range on {
		d.view.shards[n-1].copies[lsn] = []*wire.LogRecord{r}
	}
}

// heard has shards know how epoch 2 ended: nothing was known to be good.
func (d *duel) heard(on ...int) {
	for _, n := range on {
		d.view.shards[n-1].recoveries[2] = &wire.EpochRecovery{Epoch: 2, SealEpoch: 2, Last: 2}
	}
}

// compare goes on until nothing but held answers is awaited.
func (d *duel) compare() {
	if d.core == nil {
		cfg := talkConfig
		d.core = newComparison(&cfg, &honest, d.view, d.own.id.Node(), d.own.id, talkLog, 2)
		d.take(d.core.step(0, event{kind: evStart}))
	}
	for range 20 {
		kept := d.kept
		d.kept = nil
		for _, k := range kept {
			d.answer(k)
		}
		d.now += d.core.cfg.Retry
		d.take(d.core.step(d.now, event{kind: evTimer}))
	}
}

func (d *duel) take(fx effects) {
	d.over = d.over || fx.done
	for _, k := range fx.calls {
		d.answer(k)
	}
}

func (d *duel) answer(k call) {
	if d.held[k.shard] {
		d.kept = append(d.kept, k)
		return
	}
	f := d.own
	if k.shard != 0 && k.kind != callRepair { // what is taken names who had it
		f = d.view.find(k.shard)
	}
	ev := f.answer(k)
	switch k.kind {
	case callRead:
		ev.record = d.record
	case callMetadata:
		ev.metadata = &wire.ReadMetadataResponse{Metadata: []*wire.EpochMetadata{d.record.Metadata}}
	}
	d.take(d.core.step(d.now, ev))
}

// TestWhatLayWellIsTakenBack: a record that a recovery found well stored, and so did not
// store, is what was decided though no recovery wrote it. Who has it took part, and is
// not clean up to there only because it missed an earlier recovery.
func TestWhatLayWellIsTakenBack(t *testing.T) {
	d := newDuel()
	at := logs.MakeLSN(2, 1)
	d.put(at, 2, 3)
	d.own.copies = map[logs.LSN][]*wire.LogRecord{}
	d.view.shards[0].clean = 2
	d.heard(1, 2, 3)
	d.compare()
	if !d.over || d.own.winner(at) == nil {
		t.Errorf("over %v, %s", d.over, d.own.dump())
	}
}

// TestWhatNobodyDecidedIsNotTakenBack: a shard that does not know what was decided of an
// epoch that is clean there takes nothing of it from one that missed the recovery before
// it has heard from those who may know.
func TestWhatNobodyDecidedIsNotTakenBack(t *testing.T) {
	d := newDuel()
	at := logs.MakeLSN(2, 2)
	d.put(at, 2, 3) // of a sequencer that did not know yet that it was fenced off
	d.own.copies = map[logs.LSN][]*wire.LogRecord{}
	d.view.shards[0].clean = 2
	d.heard(1)
	d.held[d.view.shards[0].id] = true
	d.compare()
	if d.over || d.own.winner(at) != nil {
		t.Fatalf("before the other is heard: over %v, %s", d.over, d.own.dump())
	}
	d.held = nil
	d.compare()
	if !d.over || d.own.winner(at) != nil {
		t.Errorf("over %v, %s", d.over, d.own.dump())
	}
}

// TestWhatWasMovedHalfWayIsTakenBack: a recovery that gave way to another stored a record
// anew, elsewhere, as far as one of those who had it. It is not where that one wanted it,
// so the other, which lost it, gets it back.
func TestWhatWasMovedHalfWayIsTakenBack(t *testing.T) {
	d := newDuel()
	at, other := logs.MakeLSN(2, 1), logs.MakeLSN(2, 2)
	d.put(at, 2, 3)
	d.put(other, 2, 3)
	d.own.copies = map[logs.LSN][]*wire.LogRecord{}
	last := d.view.shards[2]
	for lsn, flags := range map[logs.LSN]uint32{at: 0, other: logs.FlagHole} { // that is decided against
		moved := *with(last.copies[lsn][0], nil)
		moved.Wave, moved.Flags, moved.Copyset = 2, logs.FlagWrittenByRecovery|flags, []uint64{uint64(d.view.shards[0].id), uint64(last.id)}
		last.copies[lsn] = append(last.copies[lsn], &moved)
	}
	d.view.shards[0].clean, last.clean = 2, 2
	d.heard(1, 2, 3)
	d.compare()
	if !d.over || d.own.winner(at) == nil || d.own.winner(other) != nil {
		t.Errorf("over %v, %s", d.over, d.own.dump())
	}
}

// TestWhatNobodyKnowsIsTakenBack: where nobody knows of a decision all that there is stays.
func TestWhatNobodyKnowsIsTakenBack(t *testing.T) {
	d := newDuel()
	at := logs.MakeLSN(2, 2)
	d.put(at, 2, 3)
	d.own.copies = map[logs.LSN][]*wire.LogRecord{}
	d.compare()
	if !d.over || d.own.winner(at) == nil {
		t.Errorf("over %v, %s", d.over, d.own.dump())
	}
}
