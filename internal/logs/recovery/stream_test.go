package recovery

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/placement"
	"github.com/braiddb/braid/internal/wire"
)

// TestEveryEndOfAStream looks at every way in which the end of a stream can be left to
// two recoveries: four shards, R = 2, two records of a stream of which each copy was
// made or not, before the first seal or late; every f-majority that the first recovery
// may hear, and every one of its stores that may be its last; every f-majority that the
// second hears. In all of them C7 and C1 hold: the second record is there only with the
// first, and what was acknowledged, or decided by a recovery that came to CLEAN, stands.
func TestEveryEndOfAStream(t *testing.T) {
	x := streamEnds{rules: honest, seen: map[string]bool{}}
	if bad := x.run(); bad != "" {
		t.Fatal(bad)
	}
	t.Logf("%d worlds, %d recoveries: %d came to CLEAN, %d records of streams became holes, %d stood with all before them",
		len(x.seen), x.runs, x.clean, x.orphans, x.whole)
	if x.orphans < 100 || x.whole < 100 || x.clean < 1000 {
		t.Error("the worlds are too few")
	}
}

// TestEveryEndOfAStreamFindsBugs plants what C7 hangs on the absence of.
func TestEveryEndOfAStreamFindsBugs(t *testing.T) {
	for name, x := range map[string]*streamEnds{
		"streams go on behind holes": {rules: honest, seen: map[string]bool{}},
		"acknowledged in any order":  {rules: honest, seen: map[string]bool{}, anyOrder: true},
	} {
		if !x.anyOrder {
			x.rules.stream = func(uint32) bool { return false }
		}
		bad := x.run()
		if bad == "" {
			t.Errorf("%s: not found", name)
		}
		t.Logf("%s: %s", name, bad)
	}
}

type streamEnds struct {
	rules    rules
	anyOrder bool // the second record is acknowledged without the first
	seen     map[string]bool
	bad      string

	runs, clean, orphans, whole int
}

// streamWorld is the shards, and which copies of the two records were ever made.
type streamWorld struct {
	shards [xShards]*fakeShard
	sets   [2][]int
	made   [2]int // by place in the set, bits
}

// record is one of the records.
func (w *streamWorld) record(n int) *wire.LogRecord {
	lsn := logs.MakeLSN(1, logs.ESN(n+1))
	r := &wire.LogRecord{Log: uint64(talkLog), Lsn: uint64(lsn), Count: 1, CountBefore: uint64(n), Wave: 1, Flags: logs.FlagStream, Payload: []byte(lsn.String())}
	for _, i := range w.sets[n] {
		r.Copyset = append(r.Copyset, uint64(xShard(i)))
	}
	return r
}

// arrive has copies of the records come to their shards: two bits for each.
func (w *streamWorld) arrive(copies int) {
	for k := range 4 {
		n, at := k/2, k%2
		if copies>>k&1 == 1 && w.shards[w.sets[n][at]].store(&wire.Store{Record: w.record(n)}).Status == statusOK {
			w.made[n] |= 1 << at
		}
	}
}

func (w *streamWorld) clone() *streamWorld {
	out := *w
	for i, f := range w.shards {
		g := newFakeShard(f.id)
		g.hard = f.hard
		for lsn, vs := range f.copies {
			g.copies[lsn] = slices.Clone(vs)
		}
		out.shards[i] = g
	}
	return &out
}

func (w *streamWorld) String() string {
	var b strings.Builder
	for _, f := range w.shards {
		b.WriteString(f.dump() + "\n")
	}
	fmt.Fprint(&b, "copies made: ", w.made)
	return b.String()
}

// streamMajorities are what can be heard of four shards with R = 2.
var streamMajorities = []int{0b1111, 0b0111, 0b1011, 0b1101, 0b1110}

func (x *streamEnds) run() string {
	for _, second := range [][]int{{0, 1}, {0, 2}, {2, 3}} {
		for made := range 1 << 4 {
			w := &streamWorld{sets: [2][]int{{0, 1}, second}}
			for i := range w.shards {
				w.shards[i] = newFakeShard(xShard(i))
			}
			w.arrive(made)
			for _, heard := range streamMajorities {
				x.first(w, heard, made)
			}
			if x.bad != "" {
				return x.bad
			}
		}
	}
	return ""
}

// first runs a recovery, as far as its stores arrive, then copies come late, and then
// another recovery.
func (x *streamEnds) first(before *streamWorld, heard, made int) {
	for lands := 0; ; lands++ {
		w := before.clone()
		one, stores := x.recover(w, 2, heard, lands)
		for late := range 1 << 4 {
			if late&made != 0 {
				continue
			}
			w := w.clone()
			w.arrive(late) // but for what is fenced off
			key := fmt.Sprint(w, one)
			if x.seen[key] {
				continue
			}
			x.seen[key] = true
			x.judge(w, one)
			for _, again := range streamMajorities {
				v := w.clone()
				two, _ := x.recover(v, 3, again, -1)
				if x.judge(v, two); one != nil && fmt.Sprint(one) != fmt.Sprint(two) {
					x.fail(v, "the first recovery decides on %v, the second on %v", one, two)
				}
			}
		}
		if x.bad != "" || stores <= 8 && lands >= 1<<stores-1 {
			return
		}
	}
}

func (x *streamEnds) fail(w *streamWorld, format string, args ...any) {
	if x.bad == "" {
		x.bad = fmt.Sprintf(format, args...) + "\n" + w.String()
	}
}

// judge compares a decision with what was acknowledged.
func (x *streamEnds) judge(w *streamWorld, d []value) {
	if d == nil {
		return
	}
	x.clean++
	first, second := w.made[0] == 0b11, w.made[1] == 0b11
	switch {
	case d[1] == valueRecord && d[0] != valueRecord:
		x.fail(w, "the second record is kept, and the first is a hole")
	case first && d[0] != valueRecord:
		x.fail(w, "the first record was fully stored, and is a hole")
	case (first || x.anyOrder) && second && d[1] != valueRecord:
		x.fail(w, "the second record was acknowledged, and is a hole")
	case d[1] == valueRecord:
		x.whole++
	case w.made[1] != 0 && d[0] != valueRecord:
		x.orphans++
	}
}

// recover runs a recovery among those who are heard; of its stores those arrive whose
// bits are set. It gives what it decided, if it came to CLEAN, and how many stores it
// sent.
func (x *streamEnds) recover(w *streamWorld, own logs.Epoch, heard, lands int) (decided []value, stores int) {
	x.runs++
	m := &wire.EpochMetadata{EffectiveSince: 1, Replication: &catalog.Replication{Node: xCopies}}
	for n := range xShards {
		m.Nodeset = append(m.Nodeset, uint64(xShard(n)))
	}
	cfg := Config{Grace: xLater, Retry: 1000 * xLater, StoreRetry: 1000 * xLater, Tries: 1}.withDefaults()
	c := newLogRecovery(&cfg, &x.rules, firstDice{}, xView{}, 9, Args{Log: talkLog, UpTo: own - 1, Own: own,
		Metadata: []*wire.EpochMetadata{m}, Record: &wire.EpochRecord{Metadata: m}})
	events := []event{{kind: evStart}}
	for late := false; ; {
		if len(events) == 0 {
			if late {
				return nil, stores
			}
			late, events = true, []event{{kind: evTimer}}
		}
		now := xLater
		if !late {
			now = 0
		}
		fx := c.step(now, events[0])
		events = events[1:]
		for _, k := range fx.calls {
			f := w.shards[k.shard.Node()-1]
			switch k.kind {
			case callSeal, callDigest:
				if heard>>(k.shard.Node()-1)&1 == 1 {
					events = append(events, f.answer(k))
				}
			case callStore:
				if lands>>stores&1 == 1 {
					events = append(events, f.answer(k))
				}
				stores++
			case callClean:
				for n := range logs.ESN(2) {
					decided = append(decided, valueHole)
					if s := c.epoch.slotOf(n + 1); s != nil && s.value == valueRecord {
						decided[n] = valueRecord
					}
				}
				return decided, stores
			}
		}
	}
}

// firstDice always choose the first.
type firstDice struct{}

func (firstDice) IntN(int) int { return 0 }

// TestALateRecordOfAStreamIsJudgedAlike (C7): a slot was left open, for its copy is
// damaged on too many, and a late digest shows a record of a stream there. It becomes a
// hole where one is before it, and is marked as kept only where that cannot be told.
func TestALateRecordOfAStreamIsJudgedAlike(t *testing.T) {
	record := func(n logs.ESN, flags uint32) *wire.LogRecord {
		return &wire.LogRecord{Log: uint64(talkLog), Lsn: uint64(logs.MakeLSN(1, n)), Count: 1, Wave: 1, Flags: flags, TimestampMs: int64(n)}
	}
	for name, c := range map[string]struct {
		before    value
		flags     uint32
		authority placement.FMajority
		want      value
		kept      bool
	}{
		"behind a hole":                   {valueHole, logs.FlagStream, placement.FMajorityComplete, valueHole, false},
		"of no stream":                    {valueHole, 0, placement.FMajorityComplete, valueRecord, false},
		"behind a record":                 {valueRecord, logs.FlagStream, placement.FMajorityComplete, valueRecord, false},
		"behind an open slot":             {valueNone, logs.FlagStream, placement.FMajorityComplete, valueRecord, true},
		"where nothing was proved":        {valueHole, logs.FlagStream, placement.FMajorityNonAuthoritative, valueRecord, true},
		"of no stream, and nothing known": {valueNone, 0, placement.FMajorityNonAuthoritative, valueRecord, false},
	} {
		x := &epochRecovery{l: &logRecovery{rules: &honest, args: Args{Log: talkLog}}, epoch: 1, good: 4, decided: true, authority: c.authority,
			slots: []slot{{esn: 5, value: c.before, record: record(5, 0)}, {esn: 6}, {esn: 7, value: valueBridge}}}
		x.found(0, record(6, c.flags))
		if s := &x.slots[1]; s.value != c.want || s.kept != c.kept || s.value == valueRecord && s.record == nil {
			t.Errorf("%s: it is %d, kept %v", name, s.value, s.kept)
		}
	}
}
