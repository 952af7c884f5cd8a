package recovery

import (
	"bytes"
	"cmp"
	"fmt"
	"hash/maphash"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/placement"
	"github.com/braiddb/braid/internal/wire"
)

// TestEveryOrder steps the production core through every order of events in a
// small world: four shards, R = 2, one append of epoch 1 under way to shards 1 and
// 2, two recoveries of that epoch that race (seals 1 and 2), and one shard that may
// be lost, with all it has, at any moment. Every message may be overtaken by any
// other or never arrive; every choice of the dice is taken.
//
// What is not told apart, because no outcome depends on it:
//   - when an answer arrives: the next call of who hears it can be as late;
//   - when a sealed shard is digested: nothing changes on it but by a later seal,
//     and then the digest is refused;
//   - shards 1 and 2, and 3 and 4, among themselves: states are compared up to that;
//   - the bridge after the record, and CLEAN, which are taken to succeed.
func TestEveryOrder(t *testing.T) {
	start := time.Now()
	x := newExplorer(honest, false)
	if bad := x.run(); bad != "" {
		t.Fatalf("after %d states: %s", len(x.seen.keys), bad)
	}
	t.Logf("%d states, %d transitions, %d decisions (%d records), %v", len(x.seen.keys), x.steps, x.decided, x.records, time.Since(start))
	if len(x.seen.keys) < 20_000 || x.decided < 1000 || x.records < 100 || x.records == x.decided || x.both < 100 {
		t.Fatalf("%d states, %d decisions, %d of them records, %d after another's: the world is too small", len(x.seen.keys), x.decided, x.records, x.both)
	}
}

// TestEveryOrderFindsBugs plants what the protocol hangs on the absence of.
func TestEveryOrderFindsBugs(t *testing.T) {
	for _, b := range plantedBugs {
		if b.deep {
			continue
		}
		t.Run(b.name, func(t *testing.T) {
			r := honest
			b.plant(&r)
			x := newExplorer(r, b.anyDigest)
			bad := x.run()
			if bad == "" {
				t.Fatalf("not found in %d states", len(x.seen.keys))
			}
			t.Logf("after %d states: %s", len(x.seen.keys), bad)
		})
	}
}

var plantedBugs = []struct {
	name  string
	plant func(*rules)
	faults
	deep   bool // only the walks can find it
	narrow bool // takes more chance than walks have
}{
	{name: "seal quorum too small", plant: func(r *rules) {
		r.quorum = func(s *placement.ShardSet) placement.FMajority {
			if f := s.FMajority(); f != placement.FMajorityNone || s.Count(placement.ShardHeard) < 2 {
				return f
			}
			return placement.FMajorityIncomplete
		}
	}},
	{name: "no precedence", plant: func(r *rules) {
		r.precedence = func(*wire.LogRecord) uint64 { return 1 }
	}},
	{name: "done after one copy", plant: func(r *rules) {
		r.stored = func(_, done shardBits) bool { return !done.empty() }
	}},
	{name: "digest without the seal epoch", narrow: true, faults: faults{anyDigest: true}, plant: func(r *rules) {
		r.digest = func(bool) bool { return true }
	}},
	{name: "bridge misplaced", deep: true, plant: func(r *rules) {
		r.bridge = func(last logs.ESN) logs.ESN { return max(last, 1) }
	}},
	{name: "a partial digest counts as heard", deep: true, plant: func(r *rules) {
		r.heard = func(bool) placement.ShardState { return placement.ShardHeard }
	}},
	{name: "a stream goes on behind a hole", deep: true, plant: func(r *rules) {
		r.stream = func(uint32) bool { return false }
	}},
	{name: "a stream is acknowledged in any order", deep: true, faults: faults{anyOrder: true}, plant: func(*rules) {}},
	{name: "purge skipped", deep: true, faults: faults{noPurge: true}, plant: func(*rules) {}},
	{name: "a doubt ends with others silent", deep: true, plant: func(r *rules) {
		r.compared = func(int, bool) bool { return true }
	}},
	{name: "stores before the fence", deep: true, faults: faults{noFence: true}, plant: func(*rules) {}},
	{name: "a doubt ends by what was asked for an earlier one", deep: true, faults: faults{anyDoubt: true}, plant: func(*rules) {}},
	{name: "a lost tail passes for whole", deep: true, faults: faults{noDoubt: true}, plant: func(*rules) {}},
}

// faults are planted in what surrounds the cores.
type faults struct {
	anyDigest bool // shards serve digests to whoever asks
	anyOrder  bool // sequencers acknowledge records of streams as they acknowledge others
	noPurge   bool
	noFence   bool // a shard that may have lost seals takes stores
	anyDoubt  bool // a comparison ends doubts that came after it began
	noDoubt   bool // a shard that lost the end of its journal does not know
}

const (
	xShards = 4
	xCopies = 2
	xLater  = time.Hour // when the grace period is over
)

// xCopy is what a shard has at ESN 1.
type xCopy struct {
	value value
	seal  uint8 // of recovery, 0: of the appender
	set   uint8 // copyset
}

// xStore is a store of a recovery that has not arrived.
type xStore struct {
	copy  xCopy
	by    uint8
	shard uint8
	amend bool
	plan  uint8
}

type xState struct {
	seal    [xShards]uint8
	copy    [xShards]xCopy
	flying  uint8 // the append's stores that have not arrived
	landed  uint8 // those that were acknowledged
	lost    uint8 // a shard, by bit
	seals   [2]uint8
	cores   [2]*logRecovery // nil: preempted
	late    [2]bool         // its grace period is over
	decided [2]value
	stores  []xStore
}

// xSeen are the states that somebody has been to, by a hash of 64 bits: among a
// million the chance that two have one is 10^-8.
type xSeen struct {
	mu   sync.Mutex
	keys map[uint64]struct{}
	stop atomic.Bool
}

var xSeed = maphash.MakeSeed()

func (s *xSeen) add(key uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.keys[key]
	s.keys[key] = struct{}{}
	return !ok
}

type explorer struct {
	rules     rules
	anyDigest bool
	cfg       Config
	seen      *xSeen
	made      map[xCopy]*wire.LogRecord
	dice      xDice
	bad       string
	path      []xStep
	next      []xStep
	buf, best []byte
	backwards bool

	steps, decided, records, both int
}

// xDice takes every choice in turn.
type xDice struct {
	script, sizes []int
	at            int
	core          *logRecovery
}

// IntN plays the script. Where the bridge after the record goes is of no
// consequence here, and not varied.
func (d *xDice) IntN(n int) int {
	if e := d.core.epoch; e != nil && len(e.slots) > 1 && e.slots[1].plan == e.plan && e.slots[1].esn == 2 && !e.slots[1].stored && e.planned(1) {
		return 0
	}
	if d.at == len(d.script) {
		d.script, d.sizes = append(d.script, 0), append(d.sizes, 0)
	}
	d.sizes[d.at] = n
	d.at++
	return d.script[d.at-1]
}

func (x *epochRecovery) planned(i int) bool { return x.slots[i].target.empty() }

// next goes to the next script, and says whether there is one.
func (d *xDice) next() bool {
	d.script, d.sizes = d.script[:d.at], d.sizes[:d.at]
	for n := len(d.script) - 1; n >= 0; n-- {
		if d.script[n]++; d.script[n] < d.sizes[n] {
			d.script, d.sizes = d.script[:n+1], d.sizes[:n+1]
			return true
		}
	}
	return false
}

// xView sees a lost shard as lost for good only in that it is not waited for by
// those who fail to reach it; nobody can tell it from a silent one.
type xView struct{}

func (xView) Alive(logs.ShardID) bool                     { return true }
func (xView) Writable(logs.ShardID) bool                  { return true }
func (xView) Authority(logs.ShardID) placement.ShardState { return placement.ShardUnheard }
func (xView) Shards() []logs.ShardID                      { return nil }
func xShard(i int) logs.ShardID                           { return logs.MakeShard(catalog.NodeID(i+1), 0) }
func newExplorer(r rules, anyDigest bool) *explorer {
	return &explorer{rules: r, anyDigest: anyDigest, seen: &xSeen{keys: map[uint64]struct{}{}}, made: map[xCopy]*wire.LogRecord{},
		cfg: Config{Grace: xLater, Retry: 1000 * xLater, StoreRetry: 1000 * xLater, Tries: 1}.withDefaults()}
}

func (x *explorer) run() string {
	s := xState{flying: 0b0011}
	for i := range s.cores {
		own := logs.Epoch(i + 2)
		m := &wire.EpochMetadata{EffectiveSince: 1, Replication: &catalog.Replication{Node: xCopies}}
		for n := range xShards {
			m.Nodeset = append(m.Nodeset, uint64(xShard(n)))
		}
		s.cores[i] = newLogRecovery(&x.cfg, &x.rules, &x.dice, xView{}, 9, Args{Log: talkLog, UpTo: own - 1, Own: own,
			Metadata: []*wire.EpochMetadata{m}, Record: &wire.EpochRecord{Metadata: m}})
		s.cores[i].step(0, event{kind: evStart})
		s.seals[i] = 1<<xShards - 1
	}
	// Two go at it from both ends; where one has been the other need not go.
	y := *x
	y.made, y.backwards = map[xCopy]*wire.LogRecord{}, true
	done := make(chan struct{})
	go func() {
		defer close(done)
		t := s
		for i, c := range t.cores {
			t.cores[i] = clone(c)
			t.cores[i].dice = &y.dice
		}
		y.visit(&t)
	}()
	x.visit(&s)
	<-done
	x.steps, x.decided, x.records, x.both = x.steps+y.steps, x.decided+y.decided, x.records+y.records, x.both+y.both
	return cmp.Or(x.bad, y.bad)
}

func (x *explorer) violation(format string, args ...any) {
	if x.bad == "" {
		x.seen.stop.Store(true)
		x.bad = fmt.Sprintf(format, args...)
		for _, w := range x.path {
			x.bad += "\n  " + w.String()
		}
	}
}

// visit goes everywhere from a state, depth first.
func (x *explorer) visit(s *xState) {
	if x.seen.stop.Load() || !x.seen.add(x.key(s)) {
		return
	}
	x.next = nil
	x.ways(s)
	next := x.next
	if x.backwards {
		slices.Reverse(next)
	}
	for _, w := range next {
		x.steps++
		x.path = append(x.path, w)
		x.visit(w.to)
		x.path = x.path[:len(x.path)-1]
	}
}

// ways collects what can happen next.
func (x *explorer) ways(s *xState) {
	for n := range xShards {
		bit := uint8(1) << n
		if s.flying&bit != 0 {
			x.appendLands(s, n)
		}
		if s.lost == 0 {
			t := *s
			t.lost, t.copy[n], t.seal[n] = bit, xCopy{}, 0
			x.go_(&t, "lose %[1]d", n+1, 0)
		}
		for i := range s.cores {
			if s.cores[i] != nil && s.decided[i] == valueNone && s.seals[i]&bit != 0 && s.lost&bit == 0 {
				x.sealLands(s, i, n)
			}
		}
	}
	for k := range s.stores {
		x.storeLands(s, k)
	}
	for i, c := range s.cores {
		if c != nil && s.decided[i] == valueNone && !s.late[i] && c.epoch != nil && c.epoch.phase == phaseDigesting && c.epoch.graceAt > 0 {
			x.feed(s, i, func(t *xState) event {
				t.late[i] = true
				return event{kind: evTimer}
			}, "grace of %[1]d is over", i+1, 0)
		}
	}
}

// xStep is a way out of a state. What it is called is put together only when asked.
type xStep struct {
	to     *xState
	format string
	args   [3]int
	dice   []int
}

func (s xStep) String() string {
	out := fmt.Sprintf(s.format, s.args[0], s.args[1])
	if len(s.dice) > 0 {
		out += fmt.Sprint(" dice ", s.dice)
	}
	return out
}

func (x *explorer) go_(t *xState, format string, a, b int) {
	x.next = append(x.next, xStep{to: t, format: format, args: [3]int{a, b}, dice: slices.Clone(x.dice.script)})
}

// appendLands: a store of the append arrives.
func (x *explorer) appendLands(s *xState, n int) {
	t := *s
	bit := uint8(1) << n
	t.flying &^= bit
	if t.lost&bit == 0 && t.seal[n] == 0 {
		t.copy[n] = xCopy{value: valueRecord, set: 0b0011}
		t.landed |= bit
		if t.landed == 0b0011 {
			for i, d := range t.decided {
				if d != valueNone && d != valueRecord {
					x.violation("recovery %d decided on a hole, then the append is acknowledged", i+1)
				}
			}
		}
	}
	x.go_(&t, "append lands on %[1]d", n+1, 0)
}

// sealLands: a SEAL arrives and is answered.
func (x *explorer) sealLands(s *xState, i, n int) {
	x.feed(s, i, func(t *xState) event {
		t.seals[i] &^= 1 << n
		ev := event{kind: evAnswer, of: call{kind: callSeal, shard: xShard(n)}}
		if e := uint8(i + 1); t.seal[n] > e {
			ev.seal = &wire.SealResponse{Status: statusPreempted}
		} else {
			t.seal[n] = e
			ev.seal = &wire.SealResponse{SealEpoch: uint32(e)}
		}
		return ev
	}, "%d seals %d", i+1, n+1)
}

// storeLands: a store of a recovery arrives and is answered, if anybody listens.
func (x *explorer) storeLands(s *xState, k int) {
	w := s.stores[k]
	i := int(w.by)
	x.feed(s, i, func(t *xState) event {
		t.stores = slices.Delete(slices.Clone(t.stores), k, k+1)
		ev := event{kind: evAnswer, of: call{kind: callStore, shard: xShard(int(w.shard)), epoch: 1, esn: 1, plan: uint32(w.plan)}}
		switch {
		case t.lost&(1<<w.shard) != 0:
			ev.err = errDown
		case t.seal[w.shard] > uint8(i+1):
			ev.stored = &wire.Stored{Status: statusPreempted}
		default:
			t.copy[w.shard] = w.copy
			ev.stored = &wire.Stored{}
		}
		return ev
	}, "store of %d lands on %d", i+1, int(w.shard)+1)
}

// feed gives a recovery an event, under every fall of the dice, and does at once
// what is not told apart.
func (x *explorer) feed(s *xState, i int, cause func(t *xState) event, format string, a, b int) {
	d := &x.dice
	d.script = nil
	for more := true; more && x.bad == ""; more = d.next() {
		t := *s
		ev := cause(&t)
		d.at = 0
		if t.cores[i] != nil && t.decided[i] == valueNone {
			c := clone(s.cores[i])
			t.cores[i], d.core = c, c
			x.settle(&t, i, c, ev)
		}
		d.script, d.sizes = d.script[:d.at], d.sizes[:d.at]
		x.go_(&t, format, a, b)
	}
	d.script, d.sizes = nil, nil
}

func (x *explorer) settle(t *xState, i int, c *logRecovery, ev event) {
	var now time.Duration
	if t.late[i] {
		now = xLater
	}
	queue := []event{ev}
	for len(queue) > 0 {
		fx := c.step(now, queue[0])
		queue = queue[1:]
		if fx.result != nil {
			t.cores[i], t.seals[i] = nil, 0
			return
		}
		for _, k := range fx.calls {
			n := int(k.shard.Node()) - 1
			answer := event{kind: evAnswer, of: bare(k)}
			switch {
			case k.kind == callDigest && t.lost&(1<<n) == 0:
				answer.digest = x.digest(t, i, n)
			case k.kind == callStore && k.esn == 1:
				t.stores = append(slices.Clone(t.stores), xStore{copy: copyOf(k.store.Record), by: uint8(i), shard: uint8(n),
					amend: k.store.Amend, plan: uint8(k.plan)})
				continue
			case k.kind == callStore:
				answer.stored = &wire.Stored{}
			case k.kind == callClean:
				x.decide(t, i, c)
				return
			default:
				continue
			}
			queue = append(queue, answer)
		}
	}
}

func (x *explorer) digest(t *xState, i, n int) *wire.DigestResponse {
	e := uint8(i + 1)
	if t.seal[n] > e && !x.anyDigest {
		return &wire.DigestResponse{Status: statusPreempted}
	}
	out := &wire.DigestResponse{}
	if t.copy[n].value != valueNone {
		out.Records = []*wire.LogRecord{x.record(t.copy[n])}
	}
	return out
}

func copyOf(r *wire.LogRecord) xCopy {
	c := xCopy{value: valueOf(r.Flags), seal: uint8(r.Wave)}
	for _, s := range r.Copyset {
		c.set |= 1 << (logs.ShardID(s).Node() - 1)
	}
	return c
}

func (x *explorer) record(c xCopy) *wire.LogRecord {
	if r := x.made[c]; r != nil {
		return r
	}
	r := &wire.LogRecord{Log: uint64(talkLog), Lsn: uint64(logs.MakeLSN(1, 1)), Count: 1, Wave: 1}
	if c.seal > 0 {
		r.Wave, r.Flags = uint32(c.seal), logs.FlagWrittenByRecovery
	}
	switch c.value {
	case valueHole:
		r.Flags |= logs.FlagHole
	case valueBridge:
		r.Flags |= logs.FlagHole | logs.FlagBridge
	}
	for n := range xShards {
		if c.set>>n&1 == 1 {
			r.Copyset = append(r.Copyset, uint64(xShard(n)))
		}
	}
	x.made[c] = r
	return r
}

// decide: a recovery has stored its decision, and would send CLEAN.
func (x *explorer) decide(t *xState, i int, c *logRecovery) {
	v := c.epoch.slots[0].value
	t.decided[i], t.seals[i] = v, 0
	x.decided++
	if v == valueRecord {
		x.records++
	}
	if o := t.decided[1-i]; o != valueNone {
		x.both++
		if o != v {
			x.violation("recovery %d decides on %d, the other had decided on %d", i+1, v, o)
		}
	}
	if v != valueRecord && t.landed == 0b0011 {
		x.violation("recovery %d decides that what was acknowledged is a hole", i+1)
	}
	held := bits.OnesCount8(t.lost)
	for n := range xShards {
		if t.copy[n].value == v {
			held++
		}
	}
	if held < xCopies {
		x.violation("recovery %d is done with %d copies of its decision", i+1, held)
	}
}

// clone copies a core so far that stepping the copy leaves the original alone.
func clone(l *logRecovery) *logRecovery {
	c := *l
	c.sources = slices.Clone(l.sources)
	if l.epoch != nil {
		e := *l.epoch
		e.l = &c
		e.members = slices.Clone(e.members)
		e.slots = slices.Clone(e.slots)
		for i := range e.slots {
			e.slots[i].copies = slices.Clone(e.slots[i].copies)
		}
		e.heard = e.heard.Clone()
		c.epoch = &e
	}
	return &c
}

// key tells states apart, up to the order of shards 1 and 2, and of 3 and 4.
func (x *explorer) key(s *xState) uint64 {
	best := x.best[:0]
	for _, p := range [...][xShards]int{{0, 1, 2, 3}, {1, 0, 2, 3}, {0, 1, 3, 2}, {1, 0, 3, 2}} {
		b := x.encode(s, p)
		if len(best) == 0 || bytes.Compare(b, best) < 0 {
			best = append(best[:0], b...)
		}
	}
	x.best = best
	return maphash.Bytes(xSeed, best)
}

func (x *explorer) encode(s *xState, p [xShards]int) []byte {
	mask := func(m uint8) (out uint8) {
		for k, n := range p {
			out |= m >> n & 1 << k
		}
		return out
	}
	set := func(m shardBits) uint8 { return mask(uint8(m[0])) }
	b := x.buf[:0]
	for _, n := range p {
		b = append(b, s.seal[n], byte(s.copy[n].value), s.copy[n].seal, mask(s.copy[n].set))
	}
	b = append(b, mask(s.flying), mask(s.landed), mask(s.lost))
	for i, c := range s.cores {
		b = append(b, byte(s.decided[i]), mask(s.seals[i]))
		if c == nil || s.decided[i] != valueNone {
			continue
		}
		b = append(b, asByte(s.late[i]), byte(c.state))
		for _, n := range p {
			b = append(b, asByte(c.sources[n].answered))
		}
		if e := c.epoch; e != nil {
			b = append(b, byte(e.phase), byte(e.plan), asByte(e.short), asByte(e.graceAt > 0), byte(len(e.slots)))
			for _, n := range p {
				m := &e.members[n]
				b = append(b, asByte(m.digested)|asByte(m.asked)<<1|asByte(m.in)<<2|asByte(m.dropped)<<3)
			}
			if len(e.slots) > 0 {
				w := &e.slots[0]
				b = append(b, byte(w.value), set(w.target), set(w.wrote), set(w.done), set(w.sent), asByte(w.stored))
				for at, n := range p {
					for _, k := range w.copies {
						if k.member == n {
							b = append(b, byte(at), byte(k.value), byte(k.precedence), byte(k.precedence>>32))
						}
					}
				}
			}
		}
	}
	x.buf = b
	at := len(b)
	for _, w := range s.stores {
		b = append(b, w.by, mask(1<<w.shard), byte(w.copy.value), mask(w.copy.set), asByte(w.amend), w.plan)
	}
	sortRows(b[at:], 6)
	x.buf = b
	return b
}

func asByte(v bool) byte {
	if v {
		return 1
	}
	return 0
}

// sortRows sorts rows of n bytes.
func sortRows(b []byte, n int) {
	for i := n; i < len(b); i += n {
		for j := i; j > 0 && bytes.Compare(b[j:j+n], b[j-n:j]) < 0; j -= n {
			for k := range n {
				b[j+k], b[j-n+k] = b[j-n+k], b[j+k]
			}
		}
	}
}
