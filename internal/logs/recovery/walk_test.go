package recovery

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

var (
	walkSeeds = flag.Int("recovery.seeds", 1000, "how many random worlds are walked through")
	walkSeed  = flag.Uint64("recovery.seed", 0, "walk through this one alone, with a trace")
)

// TestWalks goes where every order cannot be tried: several sequencers one after
// the other, each with a window of appends and waves, recoveries of several epochs
// that race, nodesets that change, shards that crash and come back, one that is
// lost, messages that are lost or late, an epoch store that conflicts and does not
// say what it did, releases, and shards that purge.
func TestWalks(t *testing.T) {
	if *walkSeed != 0 {
		w := newWalk(*walkSeed, honest, faults{})
		w.trace = t.Logf
		if err := w.run(); err != nil {
			t.Fatal(err)
		}
		return
	}
	var sum walkCounts
	for seed := uint64(1); seed <= uint64(*walkSeeds); seed++ {
		w := newWalk(seed, honest, faults{})
		if err := w.run(); err != nil {
			t.Fatalf("seed %d: %v\nreplay: go test ./internal/logs/recovery -run TestWalks -recovery.seed=%d -v", seed, err, seed)
		}
		sum.add(w.n)
	}
	t.Logf("%+v", sum)
	for name, n := range map[string]int{"acknowledged": sum.acked, "holes": sum.holes, "records": sum.records, "decided again": sum.again,
		"purges": sum.purges, "preempted": sum.preempted, "plans made again": sum.restarts, "crashes": sum.crashes, "released": sum.released, "torn": sum.torn, "spoilt": sum.spoilt,
		"two in doubt": sum.twice, "set aside": sum.aside, "sure": sum.sure, "given up": sum.weak, "repaired": sum.repaired,
		"acknowledged in order": sum.inOrder, "streams that end at a hole": sum.orphans} {
		if n < *walkSeeds/50 {
			t.Errorf("%s came up only %d times", name, n)
		}
	}
}

// TestWalksFindBugs plants what the protocol hangs on the absence of.
func TestWalksFindBugs(t *testing.T) {
	for _, b := range plantedBugs {
		if b.narrow {
			continue
		}
		t.Run(b.name, func(t *testing.T) {
			r := honest
			b.plant(&r)
			for seed := uint64(1); seed <= 4000; seed++ {
				if err := newWalk(seed, r, b.faults).run(); err != nil {
					t.Logf("seed %d: %v", seed, err)
					return
				}
			}
			t.Fatal("not found in 4000 worlds")
		})
	}
}

type walkCounts struct{ acked, holes, records, again, purges, preempted, restarts, crashes, released, steps, torn, spoilt, sure, twice, weak, repaired, inOrder, orphans, aside int }

func (c *walkCounts) add(o walkCounts) {
	c.acked, c.holes, c.records, c.again = c.acked+o.acked, c.holes+o.holes, c.records+o.records, c.again+o.again
	c.purges, c.preempted, c.restarts = c.purges+o.purges, c.preempted+o.preempted, c.restarts+o.restarts
	c.crashes, c.released, c.steps, c.torn = c.crashes+o.crashes, c.released+o.released, c.steps+o.steps, c.torn+o.torn
	c.spoilt, c.sure = c.spoilt+o.spoilt, c.sure+o.sure
	c.twice, c.weak, c.repaired = c.twice+o.twice, c.weak+o.weak, c.repaired+o.repaired
	c.inOrder, c.orphans, c.aside = c.inOrder+o.inOrder, c.orphans+o.orphans, c.aside+o.aside
}

// walk is one random world.
type walk struct {
	rng       *rand.Rand
	trace     func(string, ...any)
	rules     rules
	cfg       Config
	faults    faults
	now       time.Duration
	view      *fakeView
	copies    int
	record    *wire.EpochRecord
	all       []*wire.EpochMetadata
	wires     []func()
	reigns    []*walkReign
	purges    map[logs.ShardID]*walkCore
	compares  map[logs.ShardID]*walkCore
	acked     map[logs.LSN]string
	decisions map[logs.Epoch]*walkDecision
	finals    map[logs.Epoch]bool // whose decision the epoch store knows
	lost      bool
	spoils    bool // journals may end badly in this world
	inDoubt   int  // shards that came to be, since none was
	calm      bool
	bad       error
	n         walkCounts
}

// walkDecision is what an epoch was decided to hold: above good, and what comes
// after the bridge is nothing.
type walkDecision struct {
	good, bridge logs.ESN
	records      map[logs.ESN]string
	by           logs.Epoch
	tail         uint64 // payloads
}

// walkReign is a sequencer.
type walkReign struct {
	w         *walk
	epoch     logs.Epoch
	nodeset   []*fakeShard
	window    map[logs.ESN]*walkAppend
	waiting   map[logs.ESN]*walkAppend // of streams, stored: acknowledged behind all before them
	next      logs.ESN
	good      logs.ESN
	preempted bool
	payloads  uint64
	walkCore
	recovered bool
}

type walkAppend struct {
	record *wire.LogRecord
	wave   uint32
	set    []*fakeShard
	stored map[logs.ShardID]bool
}

// walkCore is a machine that is being driven.
type walkCore struct {
	core interface {
		step(time.Duration, event) effects
	}
	log  *logRecovery // the same, if it is one
	own  *fakeShard
	wake time.Duration
	over bool
}

func newWalk(seed uint64, r rules, planted faults) *walk {
	rng := rand.New(rand.NewPCG(seed, 0xb7a1d))
	w := &walk{rng: rng, rules: r, faults: planted, acked: map[logs.LSN]string{}, decisions: map[logs.Epoch]*walkDecision{},
		finals: map[logs.Epoch]bool{}, purges: map[logs.ShardID]*walkCore{}, compares: map[logs.ShardID]*walkCore{}, trace: func(string, ...any) {}}
	w.cfg = talkConfig
	if rng.IntN(2) == 0 { // fake shards count records, not bytes
		w.cfg.DigestBytes, w.cfg.MutationsMax = uint32(1+rng.IntN(2)), 1+rng.IntN(2)
	}
	w.spoils = rng.IntN(2) == 0
	n := 4 + rng.IntN(2)
	w.copies = 2
	if n == 5 && rng.IntN(2) == 0 {
		w.copies = 3
	}
	w.view = &fakeView{}
	for i := range n {
		f := newFakeShard(logs.MakeShard(catalog.NodeID(i+1), 0))
		f.faults = planted
		w.view.shards = append(w.view.shards, f)
	}
	w.record = &wire.EpochRecord{Version: 1, Log: uint64(talkLog), Metadata: w.metadata(1)}
	return w
}

// metadata is a nodeset of all shards, or all but one.
func (w *walk) metadata(since logs.Epoch) *wire.EpochMetadata {
	m := &wire.EpochMetadata{Epoch: uint32(since), EffectiveSince: uint32(since), Replication: &catalog.Replication{Node: uint32(w.copies)}}
	out := -1
	if w.rng.IntN(3) == 0 && len(w.view.shards) > w.copies+1 {
		out = w.rng.IntN(len(w.view.shards))
	}
	for i, f := range w.view.shards {
		if i != out {
			m.Nodeset = append(m.Nodeset, uint64(f.id))
		}
	}
	w.all = append(w.all, m)
	for _, f := range w.view.shards {
		f.metadata = append(f.metadata, m)
	}
	return m
}

func (w *walk) fail(format string, args ...any) {
	if w.bad == nil {
		w.bad = fmt.Errorf(format, args...)
	}
}

// run is trouble, and then calm in which everything must come to an end.
func (w *walk) run() error {
	w.reign()
	for range 200 + w.rng.IntN(400) {
		w.stepOnce()
		if w.bad != nil {
			return w.bad
		}
	}
	w.calm = true
	for _, f := range w.view.shards {
		f.up = !f.gone
	}
	for try := 0; ; try++ {
		w.reign() // one that nobody preempts
		r := w.reigns[len(w.reigns)-1]
		for range 6000 {
			if w.stepOnce(); w.bad != nil {
				return w.bad
			}
			if r.over && w.quiet() {
				break
			}
		}
		if r.recovered {
			break
		}
		if try == 3 {
			return fmt.Errorf("no recovery comes to an end: %d epochs clean of %d", w.record.LastCleanEpoch, r.epoch-1)
		}
	}
	w.releaseAll(w.reigns[len(w.reigns)-1])
	for range 6000 {
		if w.stepOnce(); w.bad != nil {
			return w.bad
		}
		if w.quiet() {
			break
		}
	}
	w.checkEnd()
	return w.bad
}

// quiet says whether nothing is under way, and nobody waits to begin.
func (w *walk) quiet() bool {
	return len(w.wires) == 0 && len(w.purges) == 0 && len(w.compares) == 0 &&
		!slices.ContainsFunc(w.view.shards, func(f *fakeShard) bool { return f.up && (f.unfenced || f.want > 0) })
}

// stepOnce lets one thing happen.
func (w *walk) stepOnce() {
	w.n.steps++
	if !w.calm {
		odds := 120
		if x := w.reigns[len(w.reigns)-1].log.epoch; x != nil && x.phase >= phaseMutating {
			odds = 30 // the moment at which it hurts
		}
		switch w.rng.IntN(odds) {
		case 0:
			w.reign()
		case 1, 2:
			w.crash()
		case 3, 4, 5:
			w.restart()
		case 6:
			w.lose()
		case 7, 8:
			w.spoil()
		}
		for range 2 {
			w.appendSome()
		}
	}
	w.compareSome()
	if len(w.wires) > 0 && w.rng.IntN(8) > 0 {
		at := w.rng.IntN(len(w.wires))
		f := w.wires[at]
		w.wires = slices.Delete(w.wires, at, at+1)
		f()
		return
	}
	w.now += time.Duration(w.rng.IntN(int(50 * time.Millisecond)))
	if len(w.wires) == 0 {
		w.now += 200 * time.Millisecond
	}
	for _, r := range w.reigns {
		w.ring(&r.walkCore)
	}
	for _, id := range slices.Sorted(maps.Keys(w.purges)) {
		w.ring(w.purges[id])
	}
	for _, id := range slices.Sorted(maps.Keys(w.compares)) {
		w.ring(w.compares[id])
	}
}

func (w *walk) ring(c *walkCore) {
	if !c.over && c.wake > 0 && c.wake <= w.now {
		w.feed(c, event{kind: evTimer})
	}
}

func (w *walk) crash() {
	f := w.view.shards[w.rng.IntN(len(w.view.shards))]
	if f.up {
		w.n.crashes++
		w.trace("%s crashes", f.id)
		f.up, f.soft, f.deciding, f.shown = false, 0, 0, shownTo{}
		delete(w.purges, f.id)
		delete(w.compares, f.id)
	}
}

func (w *walk) restart() {
	f := w.view.shards[w.rng.IntN(len(w.view.shards))]
	if !f.up && !f.gone {
		w.trace("%s is back", f.id)
		f.up = true
	}
}

// lose takes one shard away for good: as many as R = 2 survives.
func (w *walk) lose() {
	if w.lost || w.doubts() || w.rng.IntN(4) > 0 {
		return
	}
	w.lost = true
	f := w.view.shards[w.rng.IntN(len(w.view.shards))]
	if w.rng.IntN(2) == 0 {
		w.tear(f)
		return
	}
	w.trace("%s is lost", f.id)
	f.up, f.gone = false, true
	delete(w.purges, f.id)
	delete(w.compares, f.id)
}

// tear makes the newest epoch of a shard unreadable from some LSN on. The shard
// itself lives: it says that its digests are partial.
func (w *walk) tear(f *fakeShard) {
	all := slices.Sorted(maps.Keys(f.copies))
	if len(all) == 0 {
		w.lost = false
		return
	}
	e := all[len(all)-1].Epoch()
	from := logs.MakeLSN(e, logs.ESN(1+w.rng.IntN(4)))
	w.trace("%s cannot read from %s on", f.id, from)
	w.n.torn++
	f.torn[e] = true
	maps.DeleteFunc(f.copies, func(l logs.LSN, _ []*wire.LogRecord) bool { return l >= from && l.Epoch() == e })
}

// ---- sequencers

// reign begins the next epoch, now and then on another nodeset.
func (w *walk) reign() {
	next := logs.Epoch(w.record.Metadata.Epoch)
	m := w.record.Metadata
	if w.rng.IntN(4) == 0 && next > 1 {
		m = w.metadata(next)
	}
	kept := &wire.EpochMetadata{Epoch: uint32(next + 1), EffectiveSince: m.EffectiveSince, Nodeset: m.Nodeset, Replication: m.Replication}
	prior := w.record.Metadata
	w.record = &wire.EpochRecord{Version: w.record.Version + 1, Log: w.record.Log, Metadata: kept,
		LastCleanEpoch: w.record.LastCleanEpoch, Tail: w.record.Tail}
	r := &walkReign{w: w, epoch: next, window: map[logs.ESN]*walkAppend{}, waiting: map[logs.ESN]*walkAppend{}, next: 1}
	for _, s := range m.Nodeset {
		r.nodeset = append(r.nodeset, w.view.find(logs.ShardID(s)))
	}
	w.trace("epoch %d begins on %v", next, nodes(m.Nodeset))
	args := Args{Log: talkLog, UpTo: next - 1, Own: next, Record: w.record, Metadata: []*wire.EpochMetadata{kept}}
	if w.rng.IntN(2) == 0 {
		args.Metadata = append(args.Metadata, prior)
	}
	r.log = newLogRecovery(&w.cfg, &w.rules, rand.New(rand.NewPCG(w.rng.Uint64(), 1)), w.view, catalog.NodeID(100+next), args)
	r.core = r.log
	w.reigns = append(w.reigns, r)
	w.feed(&r.walkCore, event{kind: evStart})
}

// appendSome has a sequencer append, or start a wave again elsewhere.
func (w *walk) appendSome() {
	r := w.reigns[len(w.reigns)-1]
	if len(w.reigns) > 1 && w.rng.IntN(5) == 0 {
		r = w.reigns[len(w.reigns)-2] // it does not know yet
	}
	if r.preempted {
		return
	}
	if len(r.window) < 3 && w.rng.IntN(4) == 0 {
		n := r.next
		r.next++
		count := uint32(1 + w.rng.IntN(3))
		lsn := logs.MakeLSN(r.epoch, n)
		r.window[n] = &walkAppend{record: &wire.LogRecord{Log: uint64(talkLog), Lsn: uint64(lsn), TimestampMs: int64(w.now / time.Millisecond),
			Count: count, CountBefore: r.payloads, Payload: []byte(lsn.String())}}
		if w.rng.IntN(2) == 0 {
			r.window[n].record.Flags = logs.FlagStream
		}
		r.payloads += uint64(count)
		r.wave(n)
	} else if w.rng.IntN(12) == 0 {
		for _, n := range slices.Sorted(maps.Keys(r.window)) {
			r.wave(n)
			break
		}
	}
}

func (r *walkReign) wave(n logs.ESN) {
	a := r.window[n]
	w := r.w
	if a.wave++; a.wave > 4 {
		return
	}
	set := slices.Clone(r.nodeset)
	w.rng.Shuffle(len(set), func(i, j int) { set[i], set[j] = set[j], set[i] })
	a.set, a.stored = set[:w.copies], map[logs.ShardID]bool{}
	rec := with(a.record, a.record.Payload)
	rec.Wave, rec.LastKnownGood = a.wave, uint32(r.good)
	for _, f := range a.set {
		rec.Copyset = append(rec.Copyset, uint64(f.id))
	}
	for _, f := range a.set {
		w.send(func() {
			if !f.up {
				return
			}
			out := f.store(&wire.Store{Record: rec})
			w.checkShard(f)
			w.send(func() { r.stored(n, rec.Wave, f, out) })
		})
	}
}

// send has something happen later, or never.
func (w *walk) send(f func()) {
	if w.calm || w.rng.IntN(40) > 0 {
		w.wires = append(w.wires, f)
	}
}

func (r *walkReign) stored(n logs.ESN, wave uint32, f *fakeShard, out *wire.Stored) {
	a := r.window[n]
	if out.Status == statusPreempted {
		r.preempted = true
	}
	if a == nil || a.wave != wave || out.Status != statusOK || r.preempted {
		return
	}
	a.stored[f.id] = true
	if len(a.stored) < r.w.copies {
		return
	}
	delete(r.window, n)
	if a.record.Flags&logs.FlagStream == 0 || r.w.faults.anyOrder {
		r.acknowledge(n, a)
	} else {
		r.waiting[n] = a
	}
	for r.good+1 < r.next && r.window[r.good+1] == nil {
		r.good++
		if a := r.waiting[r.good]; a != nil {
			delete(r.waiting, r.good)
			r.w.n.inOrder++
			r.acknowledge(r.good, a)
		}
	}
	if r.recovered {
		r.w.releaseAll(r)
	}
}

func (r *walkReign) acknowledge(n logs.ESN, a *walkAppend) {
	lsn := logs.MakeLSN(r.epoch, n)
	r.w.trace("%s is acknowledged", lsn)
	r.w.n.acked++
	r.w.acked[lsn] = string(a.record.Payload)
	r.w.checkAcked(lsn)
}

// releaseAll tells everybody up to where readers may read.
func (w *walk) releaseAll(r *walkReign) {
	lsn := logs.MakeLSN(r.epoch, r.good)
	for _, f := range w.view.shards {
		if !f.gone {
			w.send(func() { w.release(f, lsn) })
		}
	}
}

// release is what a shard does with it: serve, or purge first.
func (w *walk) release(f *fakeShard, lsn logs.LSN) {
	if !f.up || f.unfenced || lsn <= f.released {
		return
	}
	if f.clean+1 < lsn.Epoch() && !w.faults.noPurge {
		w.purge(f, lsn.Epoch()-1)
		w.send(func() { w.release(f, lsn) }) // it is told again
		return
	}
	w.n.released++
	f.released = lsn
	w.checkShard(f)
}

// purge has a shard learn what it missed.
func (w *walk) purge(f *fakeShard, upTo logs.Epoch) {
	if w.purges[f.id] == nil {
		w.n.purges++
		w.trace("%s purges up to epoch %d", f.id, upTo)
		c := &walkCore{own: f, core: newPurge(&w.cfg, w.view, f.id.Node(), f.id, talkLog, f.clean, upTo)}
		w.purges[f.id] = c
		w.feed(c, event{kind: evStart})
	}
}

// ---- machines

// feed steps a machine and sends what it wants sent.
func (w *walk) feed(c *walkCore, ev event) {
	if c.over {
		return
	}
	fx := c.core.step(w.now, ev)
	c.wake = fx.wake
	if x := c.epochNow(); x != nil && x.decided {
		w.decided(c.log, x)
	}
	for _, k := range fx.calls {
		w.call(c, k)
	}
	if fx.done {
		c.over = true
		if w.purges[c.own.id] == c {
			delete(w.purges, c.own.id)
		}
		if w.compares[c.own.id] == c {
			delete(w.compares, c.own.id)
		}
	}
	if fx.result != nil {
		c.over = true
		w.ended(c, fx.result)
	}
}

func (c *walkCore) epochNow() *epochRecovery {
	if c.log == nil || c.log.state == stateOver || c.log.epoch == nil || c.log.epoch.phase < phaseCleaning {
		return nil
	}
	return c.log.epoch
}

func (w *walk) ended(c *walkCore, res *Result) {
	var r *walkReign
	for _, o := range w.reigns {
		if &o.walkCore == c {
			r = o
		}
	}
	w.trace("recovery of %d: %s %s", r.epoch, res.Status, res.Message)
	switch res.Status {
	case statusOK:
		r.recovered = true
		w.releaseAll(r)
	case statusPreempted:
		w.n.preempted++
	default:
		w.fail("recovery of epoch %d: %s", r.epoch, res.Message)
	}
}

// call carries a question, and its answer, each of which may be lost; then the
// machine hears of a failure.
func (w *walk) call(c *walkCore, k call) {
	failed := event{kind: evAnswer, of: bare(k), err: errDown}
	lose := func() bool { return !w.calm && w.rng.IntN(25) == 0 }
	w.wires = append(w.wires, func() {
		ev := failed
		switch f := w.view.find(k.shard); {
		case lose():
		case k.kind == callRead:
			ev = event{kind: evAnswer, of: bare(k), record: w.record}
			if c.own != nil {
				ev.doubt.Number = c.own.number
			}
		case k.kind == callSwap:
			if k.expect == w.record.Version {
				w.record = k.next
				w.finals[logs.Epoch(k.next.LastCleanEpoch)] = true
				ev = event{kind: evAnswer, of: bare(k), record: w.record}
			} else {
				ev.err = errors.New("conflict")
			}
		case k.kind == callPurge:
			if w.compares[c.own.id] == c && !w.faults.noPurge {
				w.purge(c.own, k.to.Epoch()-1)
			}
			ev = event{kind: evAnswer, of: bare(k)}
		case k.kind == callDelete || k.kind == callMark || k.kind == callFence || k.kind == callRepair || k.kind == callSure:
			if c.over || !c.own.up || w.purges[c.own.id] != c && w.compares[c.own.id] != c {
				return // of a life that is over
			}
			w.noteDoubt(c, k)
			ev = c.own.answer(k)
			w.checkShard(c.own)
		case f.up:
			ev = f.answer(k)
			w.checkShard(f)
		}
		if lose() {
			ev = failed
		}
		w.wires = append(w.wires, func() { w.feed(c, ev) })
	})
}
