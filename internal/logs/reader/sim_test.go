package reader

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// truth is what a reader should be told of one LSN.
type truth struct {
	lsn     LSN
	record  *wire.LogRecord
	payload []string
	sound   int // copies that are there and whole
	copies  int
}

// sim is a log on fake shards and two readers of it, driven by one seed.
type sim struct {
	rng     *rand.Rand
	now     time.Duration
	shards  map[logs.ShardID]*fakeShard
	ids     []logs.ShardID
	entries []*wire.EpochMetadata
	truths  []truth
	at      map[LSN]int
	until   LSN
	trim    LSN
	queue   []simEvent
	seq     int
	readers []*simReader
	faults  bool
	harm    bool // copies are missing or damaged
	calm    time.Duration
	plant   func(*Core, *Effects)
	tick    func(time.Duration)
	failure error
}

type simEvent struct {
	at  time.Duration
	seq int
	run func()
}

type simReader struct {
	x      *sim
	name   string
	core   *Core
	next   LSN
	items  []Item // not taken yet
	told   map[LSN]string
	done   bool
	wakeAt time.Duration
	slow   bool // the application is
}

func newSim(seed uint64, faults, harm bool) *sim {
	x := &sim{
		rng: rand.New(rand.NewPCG(seed, 1)), shards: map[logs.ShardID]*fakeShard{}, at: map[LSN]int{},
		faults: faults, harm: harm, calm: 60 * time.Second,
	}
	nodes := 3 + x.rng.IntN(4)
	for n := range nodes {
		id := logs.MakeShard(catalog.NodeID(n+1), 0)
		x.ids = append(x.ids, id)
		x.shards[id] = &fakeShard{id: id, up: true, clips: x.rng.IntN(3) == 0, streams: map[uint64]*fakeStream{}}
	}
	x.writeLog()
	return x
}

// writeLog makes the epochs, and puts their copies on the shards.
func (x *sim) writeLog() {
	epochs := 1 + x.rng.IntN(4)
	var entry *wire.EpochMetadata
	for e := 1; e <= epochs; e++ {
		if entry == nil || x.rng.IntN(3) == 0 {
			copies := 2 + x.rng.IntN(2)
			size := min(len(x.ids), copies+x.rng.IntN(3))
			entry = &wire.EpochMetadata{EffectiveSince: uint32(e), Replication: &catalog.Replication{Node: uint32(copies)}}
			for _, i := range x.rng.Perm(len(x.ids))[:size] {
				entry.Nodeset = append(entry.Nodeset, uint64(x.ids[i]))
			}
			slices.Sort(entry.Nodeset)
			x.entries = append(x.entries, entry)
		}
		n := x.rng.IntN(80)
		for esn := 1; esn <= n; esn++ {
			x.write(entry, logs.MakeLSN(logs.Epoch(e), logs.ESN(esn)), 0)
		}
		if e < epochs && (x.rng.IntN(8) != 0 || n == 0) {
			x.write(entry, logs.MakeLSN(logs.Epoch(e), logs.ESN(n+1)), logs.FlagHole|logs.FlagBridge)
		}
		x.until = logs.MakeLSN(logs.Epoch(e), logs.ESN(n))
	}
	x.write(entry, x.until+1, 0) // the last is a record
	x.until++
}

func (x *sim) write(entry *wire.EpochMetadata, lsn LSN, flags uint32) {
	tr := truth{lsn: lsn}
	r := &wire.LogRecord{Log: 7, Lsn: uint64(lsn), Wave: 1, Flags: flags, CountBefore: uint64(lsn.ESN()) - 1, Count: 1}
	switch {
	case flags != 0:
		r.Count = 0
	case x.rng.IntN(12) == 0 && lsn != x.until:
		r.Flags, r.Count = logs.FlagHole, 0
	case x.rng.IntN(4) == 0:
		var b logs.BatchBuilder
		for i := range 1 + x.rng.IntN(4) {
			tr.payload = append(tr.payload, fmt.Sprintf("%s/%d", lsn, i))
			b.Add([]byte(tr.payload[i]))
		}
		r.Flags, r.Count, r.Payload = logs.FlagBatch, uint32(b.Count()), b.AppendTo(nil, catalog.Compression_COMPRESSION_NONE)
	default:
		tr.payload = []string{lsn.String() + string(make([]byte, x.rng.IntN(200)))}
		r.Payload = []byte(tr.payload[0])
	}
	r.Checksum = logs.Checksum(r.Payload)
	tr.copies = int(entry.Replication.Node)
	for _, i := range x.rng.Perm(len(entry.Nodeset))[:tr.copies] {
		r.Copyset = append(r.Copyset, entry.Nodeset[i])
	}
	if x.rng.IntN(6) == 0 {
		r.FilterKey = []byte("k")
	}
	for _, m := range r.Copyset {
		s := x.shards[logs.ShardID(m)]
		fate := 9
		if x.harm {
			fate = x.rng.IntN(40)
		}
		switch fate {
		case 0:
			continue // it is gone
		case 1:
			s.add(r, true)
			continue
		case 2:
			s.add(r, false)
			s.copies[len(s.copies)-1].torn = len(r.Payload) > 0
			if len(r.Payload) > 0 {
				continue
			}
		default:
			s.add(r, false)
		}
		tr.sound++
	}
	tr.record = r
	x.at[lsn] = len(x.truths)
	x.truths = append(x.truths, tr)
}

func (x *sim) after(d time.Duration, run func()) {
	x.seq++
	x.queue = append(x.queue, simEvent{x.now + d, x.seq, run})
}

func (x *sim) fail(format string, args ...any) {
	if x.failure == nil {
		x.failure = fmt.Errorf(format, args...)
	}
}

// run plays until all readers are done, or for too long.
func (x *sim) run() error {
	for i := range x.ids {
		x.release(x.shards[x.ids[i]])
		if x.faults {
			x.disturb(x.shards[x.ids[i]])
		}
	}
	if x.rng.IntN(3) == 0 {
		x.after(time.Duration(x.rng.IntN(3000))*time.Millisecond, x.trimSome)
	}
	for steps := 0; x.failure == nil; steps++ {
		busy := false
		for _, r := range x.readers {
			busy = busy || !r.done
		}
		if !busy {
			return nil
		}
		if len(x.queue) == 0 || steps > 400_000 || x.now > 30*time.Minute {
			return fmt.Errorf("after %s and %d steps: %s", x.now, steps, x.stuck())
		}
		best := 0
		for i := range x.queue {
			if q := x.queue[i]; q.at < x.queue[best].at || (q.at == x.queue[best].at && q.seq < x.queue[best].seq) {
				best = i
			}
		}
		ev := x.queue[best]
		x.queue[best] = x.queue[len(x.queue)-1]
		x.queue = x.queue[:len(x.queue)-1]
		x.now = max(x.now, ev.at)
		ev.run()
	}
	return x.failure
}

func (x *sim) stuck() string {
	s := ""
	for _, r := range x.readers {
		if !r.done {
			s += fmt.Sprintf("%s is at %s of %s: %+v rewind %v meta %+v\n", r.name, r.next, x.until, r.core.View(), r.core.mode, r.core.meta.through)
		}
	}
	return s
}

// release moves a shard's release pointer, in steps of its own.
func (x *sim) release(s *fakeShard) {
	i := x.rng.IntN(len(x.truths)/2 + 1)
	if s.released > 0 {
		i = x.at[s.released] + 1 + x.rng.IntN(20)
	}
	if i >= len(x.truths)-1 {
		s.released = x.until
		return
	}
	s.released = max(s.released, x.truths[i].lsn)
	x.after(time.Duration(1+x.rng.IntN(200))*time.Millisecond, func() { x.release(s) })
}

// disturb restarts a shard now and then, until it is time to be calm.
func (x *sim) disturb(s *fakeShard) {
	if x.now > x.calm {
		return
	}
	x.after(time.Duration(x.rng.IntN(3000))*time.Millisecond, func() {
		s.crash()
		x.tell(s.id, ShardDown)
		x.after(time.Duration(x.rng.IntN(4000))*time.Millisecond, func() {
			s.up = true
			x.tell(s.id, ShardUp)
			x.disturb(s)
		})
	})
}

// tell has some of the readers learn of a shard's state.
func (x *sim) tell(id logs.ShardID, status ShardStatus) {
	for _, r := range x.readers {
		if x.rng.IntN(2) == 0 || status == ShardUp {
			x.after(time.Duration(x.rng.IntN(500))*time.Millisecond, func() { r.step(Shard{id, status}) })
		}
	}
}

func (x *sim) trimSome() {
	x.trim = x.truths[x.rng.IntN(len(x.truths))].lsn
	for _, id := range x.ids {
		s := x.shards[id]
		x.after(time.Duration(x.rng.IntN(1000))*time.Millisecond, func() {
			s.trim = max(s.trim, x.trim)
			s.copies = slices.DeleteFunc(s.copies, func(c fakeCopy) bool { return LSN(c.record.Lsn) <= x.trim })
		})
	}
}

func (x *sim) reader(name string, cfg Config) *simReader {
	cfg.Log, cfg.Until = 7, x.until
	if cfg.From == 0 {
		cfg.From = 1
	}
	r := &simReader{x: x, name: name, core: New(cfg), next: cfg.From, told: map[LSN]string{}}
	x.readers = append(x.readers, r)
	x.after(0, func() { r.step(Begin{}) })
	return r
}

func (r *simReader) step(ev Event) {
	x := r.x
	if r.done && r.core.done {
		r.core.Step(x.now, ev)
		return
	}
	out := r.core.Step(x.now, ev)
	if x.plant != nil {
		x.plant(r.core, out)
	}
	for _, it := range out.Items {
		r.check(it)
		r.items = append(r.items, it)
	}
	if r.core.window.slotted < 0 || r.core.window.told < 0 || r.core.window.asked < 0 {
		x.fail("%s: bytes held below zero: %+v", r.name, r.core.window)
	}
	if bound := r.core.cfg.BufferBytes + len(x.ids)*(r.core.cfg.NextBytes+1<<16); r.core.window.held() > bound {
		x.fail("%s: R5: %d bytes held, bound %d", r.name, r.core.window.held(), bound)
	}
	if len(out.Items) > 0 {
		r.take()
	}
	if out.AskMetadata != 0 {
		r.metadata(out.AskMetadata, out.Released)
	}
	for _, s := range slices.Clone(out.Starts) {
		r.call(s.Shard, func(sh *fakeShard) { resp := sh.start(s.Req, x.rng); r.reply(Started{s.Shard, s.Call, resp, nil}) },
			func() { r.step(Started{s.Shard, s.Call, nil, errors.New("lost")}) })
	}
	for _, n := range slices.Clone(out.Nexts) {
		r.readNext(n, x.now+time.Duration(n.Req.WaitMs)*time.Millisecond)
	}
	for _, s := range slices.Clone(out.Stops) {
		r.call(s.Shard, func(sh *fakeShard) { delete(sh.streams, s.Stream) }, func() {})
	}
	r.done = out.Done
	if w := out.Wake; w != r.wakeAt {
		if r.wakeAt = w; w != 0 {
			x.after(max(w-x.now, 0), func() {
				if r.wakeAt == w {
					r.wakeAt = 0
					r.step(Wake{})
				}
			})
		}
	}
}

// take has the application take what is there, sooner or later.
func (r *simReader) take() {
	d := time.Duration(r.x.rng.IntN(2)) * time.Millisecond
	if r.slow {
		d = time.Duration(r.x.rng.IntN(100)) * time.Millisecond
	}
	r.x.after(d, func() {
		if len(r.items) == 0 {
			return
		}
		bytes := 0
		for _, it := range r.items {
			bytes += it.Bytes
		}
		next := above(r.items[len(r.items)-1].To, 1)
		r.items = nil
		r.step(Taken{next, bytes})
	})
}

func (r *simReader) latency() time.Duration {
	return time.Duration(100+r.x.rng.IntN(2000)) * time.Microsecond
}

// call reaches a shard after a while, if it is up and the message is not lost.
func (r *simReader) call(id logs.ShardID, run func(*fakeShard), lost func()) {
	x := r.x
	x.after(r.latency(), func() {
		sh := x.shards[id]
		if !sh.up || (x.faults && x.now < x.calm && x.rng.IntN(100) == 0) {
			x.after(r.latency(), lost)
			return
		}
		run(sh)
	})
}

// reply comes back after a while, or is lost.
func (r *simReader) reply(ev Event) {
	x := r.x
	if x.faults && x.now < x.calm && x.rng.IntN(100) == 0 {
		switch e := ev.(type) {
		case Started:
			ev = Started{e.Shard, e.Call, nil, errors.New("answer lost")}
		case Answered:
			ev = Answered{e.Shard, e.Call, nil, errors.New("answer lost")}
		}
	}
	x.after(r.latency(), func() { r.step(ev) })
}

func (r *simReader) readNext(n Next, give time.Duration) {
	x := r.x
	r.call(n.Shard, func(sh *fakeShard) {
		resp := sh.readNext(n.Req)
		if len(resp.Deliveries) == 0 && resp.Status == wire.LogStatus_LOG_STATUS_OK && x.now < give {
			x.after(20*time.Millisecond, func() { r.readNext(n, give) })
			return
		}
		r.reply(Answered{n.Shard, n.Call, resp, nil})
	}, func() { r.step(Answered{n.Shard, n.Call, nil, errors.New("lost")}) })
}

// metadata answers as the sequencer or the metadata log would: what has begun by then.
func (r *simReader) metadata(e logs.Epoch, released bool) {
	x := r.x
	x.after(r.latency(), func() {
		if x.faults && x.rng.IntN(5) == 0 {
			r.step(Metadata{Err: errors.New("no sequencer")})
			return
		}
		var high LSN
		for _, id := range x.ids {
			high = max(high, x.shards[id].released)
		}
		ev := Metadata{Through: high.Epoch()}
		if released {
			ev.Through = max(ev.Through, e)
		}
		for _, entry := range x.entries {
			if logs.Epoch(entry.EffectiveSince) <= ev.Through {
				ev.Entries = append(ev.Entries, entry)
			}
		}
		r.step(ev)
	})
}

// check holds an item against the truth.
func (r *simReader) check(it Item) {
	x := r.x
	if it.LSN != r.next {
		x.fail("%s: [%s, %s] after %s", r.name, it.LSN, it.To, r.next)
	}
	r.next = above(it.To, 1)
	if it.Record != nil {
		r.checkRecord(it)
		return
	}
	i, _ := slices.BinarySearchFunc(x.truths, it.LSN, func(t truth, l LSN) int {
		return int(min(max(int64(t.lsn)-int64(l), -1), 1))
	})
	for ; i < len(x.truths) && x.truths[i].lsn <= it.To; i++ {
		r.told[x.truths[i].lsn] = it.Gap.String()
		if err := x.gapFits(x.truths[i], it.Gap, r.core.cfg.Filter != 0); err != nil {
			x.fail("%s: gap %s [%s, %s]: %v", r.name, it.Gap, it.LSN, it.To, err)
		}
	}
	if it.Gap == logs.GapTrim && it.To > x.trim {
		x.fail("%s: TRIM to %s, trim point %s", r.name, it.To, x.trim)
	}
	if it.Gap == logs.GapDataLoss && !x.harm {
		x.fail("%s: DATALOSS [%s, %s], and nothing is lost", r.name, it.LSN, it.To)
	}
}

func (x *sim) gapFits(t truth, g logs.GapType, filter bool) error {
	harmed := t.sound < t.copies
	flags := t.record.Flags
	switch {
	case g == logs.GapTrim && t.lsn <= x.trim:
		return nil
	case g == logs.GapHole && flags&logs.FlagHole != 0, g == logs.GapBridge && flags&logs.FlagBridge != 0:
		return nil
	case g == logs.GapFilteredOut && filter && flags == flags&logs.FlagBatch && string(t.record.FilterKey) != "k":
		return nil
	case harmed && (g == logs.GapDataLoss || g == logs.GapBridge):
		return nil // some of its copies are gone, and who has the others may be silent
	}
	return fmt.Errorf("%s has %d sound copies of %d, flags %d", t.lsn, t.sound, t.copies, flags)
}

func (r *simReader) checkRecord(it Item) {
	i, ok := r.x.at[it.LSN]
	if !ok {
		r.x.fail("%s: a record %s", r.name, it.LSN)
		return
	}
	t := r.x.truths[i]
	var got []string
	for _, p := range it.Payloads {
		got = append(got, string(p))
	}
	if !slices.Equal(got, t.payload) || !it.OffsetKnown || it.Offset != uint64(it.LSN.Epoch())*1000+uint64(it.LSN.ESN())-1 {
		r.x.fail("%s: %s is %q at offset %d, not %q", r.name, it.LSN, got, it.Offset, t.payload)
	}
	r.told[it.LSN] = fmt.Sprintf("%q", got)
}

// agree holds two readers against each other: of whatever is whole, both were told the same.
func (x *sim) agree(a, b *simReader) error {
	for _, t := range x.truths {
		ta, tb := a.told[t.lsn], b.told[t.lsn]
		if ta == tb || t.sound < t.copies || ta == "TRIM" || tb == "TRIM" || ta == "FILTERED_OUT" || tb == "FILTERED_OUT" {
			continue
		}
		return fmt.Errorf("%s: %s says %s, %s says %s", t.lsn, a.name, ta, b.name, tb)
	}
	return nil
}

// play is one seed: a reader with single-copy delivery, a slow one that has all sent
// through a small window, and at times one with a filter.
func play(seed uint64, faults, harm bool, plant func(*Core, *Effects)) (*sim, error) {
	x := newSim(seed, faults, harm)
	x.plant = plant
	a := x.reader("a", Config{SingleCopy: true, Window: uint64(8 + x.rng.IntN(100))})
	b := x.reader("b", Config{SingleCopy: x.rng.IntN(2) == 0, Window: uint64(3 + x.rng.IntN(20)), BufferBytes: 400 + x.rng.IntN(4000), NextBytes: 100 + x.rng.IntN(1000)})
	b.slow = true
	if x.rng.IntN(3) == 0 {
		x.reader("f", Config{SingleCopy: x.rng.IntN(2) == 0, Window: 50, Filter: logs.FilterEquality, FilterKey1: []byte("k")})
	}
	if err := x.run(); err != nil {
		return x, err
	}
	return x, x.agree(a, b)
}

func TestSimulation(t *testing.T) {
	seeds := uint64(400)
	if testing.Short() {
		seeds = 60
	}
	losses, rewinds, all := uint64(0), uint64(0), uint64(0)
	for seed := range seeds {
		faults, harm := seed%4 != 0, seed%2 == 1
		x, err := play(seed, faults, harm, nil)
		if err != nil {
			t.Fatalf("seed %d (faults %v, harm %v): %v", seed, faults, harm, err)
		}
		for _, r := range x.readers {
			losses += r.core.Counters.Losses
			rewinds += r.core.Counters.Rewinds
			all += r.core.Counters.AllSendAll
		}
	}
	t.Logf("%d seeds: %d losses told, %d rewinds, %d times all send all", seeds, losses, rewinds, all)
	if losses == 0 || rewinds == 0 || all == 0 {
		t.Fatal("the simulation does not reach what it is for")
	}
}

// In steady state single-copy delivery costs each record once.
func TestSingleCopyReadsOnce(t *testing.T) {
	for seed := uint64(1000); seed < 1020; seed++ {
		x := newSim(seed, false, false)
		r := x.reader("a", Config{SingleCopy: true, From: logs.MakeLSN(1, 1)})
		if err := x.run(); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if r.core.Counters.AllSendAll > 0 {
			continue // an epoch without a bridge
		}
		sent := 0
		for _, id := range x.ids {
			sent += x.shards[id].read
		}
		told := uint64(0)
		for _, tr := range x.truths {
			told += uint64(len(tr.record.Payload))
		}
		// What is sent ahead of a change of nodesets is sent again.
		if x.trim == 0 && float64(r.core.Counters.BytesReceived) > 1.05*float64(told) && len(x.entries) == 1 {
			t.Errorf("seed %d: %d bytes received for %d told", seed, r.core.Counters.BytesReceived, told)
		}
		_ = sent
	}
}
