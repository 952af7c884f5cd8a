package docdb

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/wire"
)

// TestRandomIsFair: a member drawn from a large set is as likely as any other,
// and drawing reads a few children, not the set.
func TestRandomIsFair(t *testing.T) {
	s := newShelf(t)
	const n, draws = 500, 10000
	var members [][]byte
	for i := range n {
		members = append(members, fmt.Append(nil, i))
	}
	s.do(client.SAdd(key, members...))
	for name, count := range map[string]int64{"one by one": 1, "five different": 5, "five with repeats": -5} {
		times := map[string]int{}
		total := 0
		s.begin()
		for seed := int64(0); total < draws; seed++ {
			r := s.run(client.SRandom(key, client.RandomOptions{Count: count, Seed: seed}))
			met := map[string]bool{}
			for _, item := range r.Items {
				times[string(item.Bytes)]++
				total++
				if met[string(item.Bytes)] && count > 0 {
					t.Fatalf("%s: %s is drawn twice at once", name, item.Bytes)
				}
				met[string(item.Bytes)] = true
			}
		}
		s.commit()
		// Chi-square with n-1 degrees of freedom: mean n-1, deviation sqrt(2(n-1)).
		expected, chi := float64(total)/n, 0.0
		for _, m := range members {
			d := float64(times[string(m)]) - expected
			chi += d * d / expected
		}
		if limit := n - 1 + 5*math.Sqrt(2*(n-1)); chi > limit {
			t.Errorf("%s: chi-square %.0f, want at most %.0f", name, chi, limit)
		}
	}
}

// TestRandomShapes: counts around the size, both signs, with values, of small
// and of large hashes.
func TestRandomShapes(t *testing.T) {
	s := newShelf(t)
	for _, n := range []int64{1, 10, 64, 65, 1000} {
		s.do(client.Delete(key))
		want := map[string]string{}
		for i := range n {
			f := fmt.Sprint("f", i)
			want[f] = fmt.Sprint("v", i)
			s.do(client.HSet(key, []byte(f), []byte(want[f])))
		}
		for _, count := range []int64{0, 1, 2, n - 1, n, n + 1, 10 * n, -1, -n, -3 * n} {
			r := s.do(client.HRandom(key, client.RandomOptions{Count: count, Seed: count, WithValues: true}))
			size := 2 * min(count, n)
			if count < 0 {
				size = -2 * count
			}
			if int64(len(r.Items)) != size {
				t.Errorf("%d of %d fields: %d items, want %d", count, n, len(r.Items), size)
			}
			met := map[string]bool{}
			for i := 0; i < len(r.Items); i += 2 {
				f := string(r.Items[i].Bytes)
				if want[f] != string(r.Items[i+1].Bytes) || want[f] == "" {
					t.Errorf("%d of %d fields: %s with value %q", count, n, f, r.Items[i+1].Bytes)
				}
				if count > 0 && met[f] {
					t.Errorf("%d of %d fields: %s twice", count, n, f)
				}
				met[f] = true
			}
		}
		if r := s.do(client.HRandom(key, client.RandomOptions{Single: true, Seed: n})); want[string(r.Bytes)] == "" {
			t.Errorf("one of %d fields: %s", n, ours(r))
		}
	}
	s.check(client.HRandom([]byte("none"), client.RandomOptions{Single: true}), "nil")
	s.check(client.HRandom([]byte("none"), client.RandomOptions{Count: 3}), "[]")
	s.check(client.HRandom(key, client.RandomOptions{Count: math.MinInt64}), "-ERR value is out of range")
}

// TestRandomOfChosenHashes: hashes that were chosen to crowd end the drawing all
// the same.
func TestRandomOfChosenHashes(t *testing.T) {
	s := newShelf(t)
	const n = 1000
	s.begin()
	d := s.x.Doc(client.DocumentHash(key), key)
	d.PutRoot(Root{Kind: RootSet, Count: n})
	for i := range n {
		d.PutSub(fmt.Appendf(nil, "hashhash%04d", i), nil) // all of one hash
	}
	s.commit()
	for _, count := range []int64{1, 50, -50, 62} {
		r := s.do(client.SRandom(key, client.RandomOptions{Count: count, Seed: 3}))
		if got := int64(len(r.Items)); got != max(count, -count) {
			t.Errorf("%d of one hash: %d items", count, got)
		}
	}
}

// TestSPop: the popped are gone, the others stay, the seed decides.
func TestSPop(t *testing.T) {
	a, b := newShelf(t), newShelf(t)
	for _, n := range []int{3, 300} {
		left := map[string]bool{}
		for i := range n {
			m := fmt.Sprint("m", i)
			left[m] = true
			a.do(client.SAdd(key, []byte(m)))
			b.do(client.SAdd(key, []byte(m)))
		}
		for seed := int64(0); len(left) > 0; seed++ {
			op := client.SPop(key, 1+seed%4, seed)
			if seed%3 == 0 {
				op = client.SPopOne(key, seed)
			}
			r := a.do(op)
			b.check(op, ours(r).String())
			popped := r.Items
			if op.Flags&wire.FlagSingle != 0 {
				popped = []*wire.Result{r}
			}
			for _, item := range popped {
				if !left[string(item.Bytes)] {
					t.Fatalf("%q is popped and was not there", item.Bytes)
				}
				delete(left, string(item.Bytes))
			}
			a.check(client.SCard(key), fmt.Sprint(len(left)))
		}
		a.check(client.Exists(key), "0")
		a.check(client.SPopOne(key, 1), "nil")
		a.check(client.SPop(key, 5, 1), "[]")
		a.check(client.SPop(key, -1, 1), "-ERR value is out of range, must be positive")
	}
}

// TestZRankTies: equal scores are ordered by member, bytewise.
func TestZRankTies(t *testing.T) {
	s := newShelf(t)
	members := []string{"", "\x00", "\x00\x00", "\x01", "a", "a\x00", "ab", "b", "\xff", "\xff\xff"}
	zeros := make([]float64, len(members))
	zeros[3] = math.Copysign(0, -1) // no place of its own
	s.do(client.ZAdd(key, zeros, blobs(members), client.ZAddOptions{}))
	for i, m := range members {
		s.check(client.ZRank(key, []byte(m), false), fmt.Sprintf("[%d 0]", i))
		s.check(client.ZRank(key, []byte(m), true), fmt.Sprintf("[%d 0]", len(members)-1-i))
	}
	s.check(client.ZCount(key, client.ByLex([]byte("(a"), []byte("[b"))), "3")
	s.check(client.ZCount(key, client.ByLex([]byte("+"), []byte("-"))), "0")
	s.check(client.ZCount(key, client.ByLex([]byte("-"), []byte("+"))), "10")
	s.check(client.ZCount(key, client.ByLex([]byte("a"), []byte("+"))), "-ERR min or max not valid string range item")
	s.check(client.ZCount(key, client.ByScore(math.NaN(), 1, false, false)), "-ERR min or max is not a float")
}

// entryModel is one entry of a time series in the model.
type entryModel struct {
	value string
	at    int64
}

// TestSeries: random operations on a time series against a map.
func TestSeries(t *testing.T) {
	s := newShelf(t)
	g := rand.New(rand.NewPCG(1, 19))
	model := map[int64]entryModel{}
	stamp := func() int64 {
		switch g.IntN(10) {
		case 0:
			return math.MaxInt64
		case 1:
			return math.MinInt64
		}
		return g.Int64N(60) - 30
	}
	for step := range 1500 {
		if g.IntN(20) == 0 {
			s.nowMs += g.Int64N(300)
		}
		maps.DeleteFunc(model, func(_ int64, e entryModel) bool { return expired(e.at, s.nowMs) })
		s.begin()
		for range 1 + g.IntN(3) {
			switch g.IntN(9) {
			case 0, 1, 2:
				seriesAdd(s, g, model, stamp, step)
			case 3:
				stamps := []int64{stamp(), stamp(), stamp()}
				removed := 0
				for _, ts := range stamps {
					if _, ok := model[ts]; ok {
						removed++
						delete(model, ts)
					}
				}
				checkRun(s, step, client.TSRem(key, stamps...), fmt.Sprint(removed))
			case 4:
				ts, want := stamp(), "nil"
				if e, ok := model[ts]; ok {
					want = fmt.Sprintf("%q", e.value)
				}
				checkRun(s, step, client.TSGet(key, ts), want)
			case 5:
				checkRun(s, step, client.TSCard(key), fmt.Sprint(len(model)))
			case 6:
				exists := min(len(model), 1)
				checkRun(s, step, client.Exists(key), fmt.Sprint(exists))
				checkRun(s, step, client.CountKeys(0, client.ScanOptions{Count: 100}), fmt.Sprintf("[0 %d]", exists))
			case 7:
				n := g.Int64N(5)
				stamps := slices.Sorted(maps.Keys(model))
				stamps = stamps[max(0, len(stamps)-int(n)):]
				checkRun(s, step, client.TSLastN(key, n), seriesText(model, stamps))
			case 8:
				seriesRange(s, g, model, stamp, step)
			}
		}
		s.commit()
	}
}

func checkRun(s *shelf, step int, op *wire.Op, want string) {
	s.t.Helper()
	if got := ours(s.run(op)).String(); got != want {
		s.t.Fatalf("step %d: operation %d %v answers %s, want %s", step, op.Code, op.Ints, got, want)
	}
}

func seriesAdd(s *shelf, g *rand.Rand, model map[int64]entryModel, stamp func() int64, step int) {
	var stamps []int64
	var values [][]byte
	at := []int64{0, s.nowMs + 1 + g.Int64N(1000), s.nowMs, longAgo}[min(g.IntN(8)/2, g.IntN(4))]
	for i := range 1 + g.IntN(3) {
		ts, v := stamp(), fmt.Sprint("v", step, "-", i)
		stamps, values = append(stamps, ts), append(values, []byte(v))
		if expired(at, s.nowMs) {
			delete(model, ts)
		} else {
			model[ts] = entryModel{v, at}
		}
	}
	checkRun(s, step, client.TSAdd(key, at, stamps, values), `"OK"`)
}

func seriesRange(s *shelf, g *rand.Rand, model map[int64]entryModel, stamp func() int64, step int) {
	span := client.TSSpan{Low: stamp(), High: stamp(), LowOpen: g.IntN(3) == 0, HighOpen: g.IntN(3) == 0, Reverse: g.IntN(2) == 0, Limit: g.Int64N(6)}
	var stamps []int64
	for ts := range model {
		if low, high := cmp.Compare(ts, span.Low), cmp.Compare(ts, span.High); (low > 0 || low == 0 && !span.LowOpen) && (high < 0 || high == 0 && !span.HighOpen) {
			stamps = append(stamps, ts)
		}
	}
	slices.Sort(stamps)
	if span.Reverse {
		slices.Reverse(stamps)
	}
	if span.Limit > 0 {
		stamps = stamps[:min(int64(len(stamps)), span.Limit)]
	}
	checkRun(s, step, client.TSRange(key, span), seriesText(model, stamps))
}

func seriesText(model map[int64]entryModel, stamps []int64) string {
	r := reply{kind: '*'}
	for _, ts := range stamps {
		r.items = append(r.items, reply{kind: ':', num: ts}, reply{kind: '$', text: model[ts].value})
	}
	return r.String()
}

// TestSeriesPurge: expired entries of a series that is written on do not pile up
// in its index.
func TestSeriesPurge(t *testing.T) {
	s := newShelf(t)
	s.do(client.TSAdd(key, 0, []int64{-1}, [][]byte{nil}))
	for i := range int64(500) {
		s.do(client.TSAdd(key, s.nowMs+10, []int64{i}, [][]byte{nil}))
		s.nowMs += 5
	}
	s.begin()
	root, ok, err := s.x.Doc(client.DocumentHash(key), key).Root()
	if err != nil || !ok || root.Count > 5 {
		t.Errorf("the root counts %d (%v, %v), want the three that live and one or two more", root.Count, ok, err)
	}
	s.commit()
	s.check(client.TSCard(key), "2")
	s.nowMs += 100
	s.check(client.TSCard(key), "1")
	s.check(client.TSRem(key, -1), "1")
	s.check(client.Exists(key), "0")
}

// TestExpireOptions: the table of EXPIREAT's options.
func TestExpireOptions(t *testing.T) {
	const early, late = shelfNow + 10_000, shelfNow + 20_000
	for name, c := range map[string]struct {
		had   int64 // 0: no expiry
		at    int64
		o     client.ExpireOptions
		want  string
		after int64 // -1 none, -2 deleted
	}{
		"plain":              {0, early, client.ExpireOptions{}, "1", early},
		"nx without":         {0, early, client.ExpireOptions{NX: true}, "1", early},
		"nx with":            {early, late, client.ExpireOptions{NX: true}, "0", early},
		"xx without":         {0, early, client.ExpireOptions{XX: true}, "0", -1},
		"xx with":            {early, late, client.ExpireOptions{XX: true}, "1", late},
		"gt without":         {0, early, client.ExpireOptions{GT: true}, "0", -1},
		"gt later":           {early, late, client.ExpireOptions{GT: true}, "1", late},
		"gt equal":           {early, early, client.ExpireOptions{GT: true}, "0", early},
		"lt without":         {0, early, client.ExpireOptions{LT: true}, "1", early},
		"lt later":           {early, late, client.ExpireOptions{LT: true}, "0", early},
		"lt earlier":         {late, early, client.ExpireOptions{LT: true}, "1", early},
		"past":               {0, shelfNow, client.ExpireOptions{}, "1", -2},
		"past but refused":   {0, longAgo, client.ExpireOptions{XX: true}, "0", -1},
		"long before 1970":   {early, math.MinInt64, client.ExpireOptions{}, "1", -2},
		"nx and gt":          {0, early, client.ExpireOptions{NX: true, GT: true}, "-ERR NX and XX, GT or LT options at the same time are not compatible", -1},
		"gt and lt":          {0, early, client.ExpireOptions{GT: true, LT: true}, "-ERR GT and LT options at the same time are not compatible", -1},
		"xx and gt, without": {0, early, client.ExpireOptions{XX: true, GT: true}, "0", -1},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShelf(t)
			s.do(client.Set(key, nil, client.SetOptions{ExpireAtMs: c.had}))
			s.check(client.ExpireAt(key, c.at, c.o), c.want)
			s.check(client.ExpireTime(key), fmt.Sprint(c.after))
		})
	}
}
