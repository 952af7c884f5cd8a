package checker

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

func shardOf(n int) uint64 { return uint64(logs.MakeShard(catalog.NodeID(n), 0)) }

// world is a log on shards 1 to 4, in epochs of five records and a bridge.
type world struct {
	entries  []*wire.EpochMetadata
	copies   map[uint64][]*wire.LogRecord
	damaged  map[uint64][]uint64
	silent   map[uint64]bool
	trim     uint64
	released map[uint64]logs.LSN
	to       logs.LSN
}

func newWorld(epochs int) *world {
	w := &world{copies: map[uint64][]*wire.LogRecord{}, damaged: map[uint64][]uint64{}, silent: map[uint64]bool{}, released: map[uint64]logs.LSN{}}
	w.entries = []*wire.EpochMetadata{{
		EffectiveSince: 1, Nodeset: []uint64{shardOf(1), shardOf(2), shardOf(3), shardOf(4)},
		Locations: []string{"r/z/a", "r/z/a", "r/z/b", "r/z/b"}, Replication: &catalog.Replication{Node: 2, Rack: 2},
	}}
	for e := 1; e <= epochs; e++ {
		for n := 1; n <= 6; n++ {
			lsn := logs.MakeLSN(logs.Epoch(e), logs.ESN(n))
			if n == 6 && e == epochs {
				break
			}
			flags := uint32(0)
			if n == 6 {
				flags = logs.FlagHole | logs.FlagBridge
			}
			w.put(lsn, flags, 1+n%2, 3+n%2)
			w.to = lsn
		}
	}
	for n := 1; n <= 4; n++ {
		w.released[shardOf(n)] = w.to
	}
	return w
}

func (w *world) put(lsn logs.LSN, flags uint32, nodes ...int) {
	var set []uint64
	for _, n := range nodes {
		set = append(set, shardOf(n))
	}
	for _, s := range set {
		w.copies[s] = append(w.copies[s], &wire.LogRecord{Log: 7, Lsn: uint64(lsn), Wave: 1, Flags: flags, Copyset: set, Checksum: uint32(lsn)})
	}
}

// each calls f with every copy of an LSN; a nil answer removes it.
func (w *world) each(lsn logs.LSN, f func(shard uint64, r *wire.LogRecord) *wire.LogRecord) {
	for n := 1; n <= 4; n++ {
		s := shardOf(n)
		var kept []*wire.LogRecord
		for _, r := range w.copies[s] {
			if logs.LSN(r.Lsn) == lsn {
				r = f(s, r)
			}
			if r != nil {
				kept = append(kept, r)
			}
		}
		w.copies[s] = kept
	}
}

func (w *world) check(t *testing.T, page uint32) *Report {
	t.Helper()
	c := New(Config{Log: 7, Epochs: w.entries, From: 1, To: w.to, Page: page})
	for rounds := 0; ; rounds++ {
		want := c.Want()
		if len(want) == 0 {
			break
		}
		if rounds > 10_000 {
			t.Fatal("the check does not end")
		}
		for _, req := range want {
			if w.silent[req.Shard] {
				c.Answer(logs.ShardID(req.Shard), nil)
				continue
			}
			c.Answer(logs.ShardID(req.Shard), w.records(req))
		}
	}
	return c.Report()
}

// records answers as a shard: no LSN is cut in two by a page.
func (w *world) records(req *wire.RecordsRequest) *wire.RecordsResponse {
	resp := &wire.RecordsResponse{TrimPoint: w.trim, LastReleased: uint64(w.released[req.Shard])}
	list := slices.Clone(w.copies[req.Shard])
	slices.SortStableFunc(list, func(a, b *wire.LogRecord) int { return int(int64(a.Lsn) - int64(b.Lsn)) })
	for i, r := range list {
		if r.Lsn < req.From || r.Lsn > req.To {
			continue
		}
		if len(resp.Records) >= int(req.Limit) && list[i-1].Lsn != r.Lsn {
			resp.Next = r.Lsn
			break
		}
		resp.Records = append(resp.Records, r)
	}
	for _, d := range w.damaged[req.Shard] {
		if d >= req.From && d <= req.To && (resp.Next == 0 || d < resp.Next) {
			resp.Damaged = append(resp.Damaged, d)
		}
	}
	return resp
}

func TestAWholeLogIsClean(t *testing.T) {
	for _, page := range []uint32{1, 2, 3, 4096} {
		r := newWorld(3).check(t, page)
		if !r.Clean() || r.Records != 17 || r.Copies != 34 {
			t.Errorf("pages of %d: %d records, %d copies, %v", page, r.Records, r.Copies, r.Problems)
		}
	}
}

// with is a copy of a copy, changed.
func with(r *wire.LogRecord, change func(*wire.LogRecord)) *wire.LogRecord {
	c := &wire.LogRecord{Log: r.Log, Lsn: r.Lsn, Wave: r.Wave, Flags: r.Flags, Copyset: slices.Clone(r.Copyset), Checksum: r.Checksum}
	change(c)
	return c
}

// onlyOn changes the copy of one node, everywhere those of all.
func onlyOn(n int, change func(*wire.LogRecord)) func(uint64, *wire.LogRecord) *wire.LogRecord {
	return func(s uint64, r *wire.LogRecord) *wire.LogRecord {
		if s != shardOf(n) {
			return r
		}
		return with(r, change)
	}
}

func everywhere(change func(*wire.LogRecord)) func(uint64, *wire.LogRecord) *wire.LogRecord {
	return func(s uint64, r *wire.LogRecord) *wire.LogRecord { return with(r, change) }
}

// Each finding, from a harm that gives rise to it and to nothing that it does not imply.
func TestFindings(t *testing.T) {
	at := logs.MakeLSN(2, 3)
	none := func(uint64, *wire.LogRecord) *wire.LogRecord { return nil }
	cases := []struct {
		name string
		harm func(w *world)
		want Finding
	}{
		{"every copy is gone", func(w *world) { w.each(at, none) }, DataLoss},
		{"every copy is damaged", func(w *world) {
			w.each(at, func(s uint64, r *wire.LogRecord) *wire.LogRecord {
				w.damaged[s] = append(w.damaged[s], r.Lsn)
				return r
			})
		}, DataLoss},
		{"one copy is gone", func(w *world) {
			w.each(at, func(s uint64, r *wire.LogRecord) *wire.LogRecord {
				if s == shardOf(2) {
					return nil
				}
				return r
			})
		}, BadReplication | BadReplicationLastWave},
		{"one copy is damaged", func(w *world) { w.damaged[shardOf(2)] = []uint64{uint64(at)} }, BadReplication | BadReplicationLastWave},
		{"one copy is of an earlier wave", func(w *world) {
			w.each(at, onlyOn(2, func(r *wire.LogRecord) { r.Wave = 2 }))
		}, BadReplicationLastWave},
		{"copies name each other differently", func(w *world) {
			w.put(at, 0, 1)
			w.each(at, func(s uint64, r *wire.LogRecord) *wire.LogRecord {
				return with(r, func(c *wire.LogRecord) {
					if c.Copyset = []uint64{shardOf(2), shardOf(4)}; s == shardOf(1) {
						c.Copyset = []uint64{shardOf(1), shardOf(4)}
					}
				})
			})
		}, DifferentCopysetInLatestWave},
		{"plans of recovery of which none is whole", func(w *world) {
			w.replanned(at, map[int]int{1: 3, 2: 3, 3: 4})
		}, DifferentCopysetInLatestWave},
		{"a copyset does not name its holder", func(w *world) {
			w.each(at, everywhere(func(r *wire.LogRecord) { r.Copyset = []uint64{shardOf(1), shardOf(3)} }))
		}, CopysetWithoutSelf},
		{"a copyset leaves the nodeset", func(w *world) {
			w.each(at, everywhere(func(r *wire.LogRecord) { r.Copyset = append(r.Copyset, shardOf(9)) }))
		}, CopysetNotInNodeset},
		{"a copyset is too small", func(w *world) {
			w.each(at, func(s uint64, r *wire.LogRecord) *wire.LogRecord {
				return with(r, func(c *wire.LogRecord) { c.Copyset = []uint64{s} })
			})
		}, SmallCopyset | DifferentCopysetInLatestWave},
		{"both copies lie in one rack", func(w *world) {
			w.each(at, none)
			w.put(at, 0, 1, 2)
		}, BadReplication | BadReplicationLastWave},
		{"a hole here, a record there", func(w *world) {
			w.put(at, logs.FlagHole, 1, 3)
		}, HoleRecordConflict | DifferentCopysetInLatestWave | DifferentPayload},
		{"a copyset names a shard twice", func(w *world) {
			w.each(at, everywhere(func(r *wire.LogRecord) { r.Copyset = append(r.Copyset, r.Copyset[0]) }))
		}, DuplicatesInCopyset},
		{"payloads differ", func(w *world) { w.each(at, onlyOn(2, func(r *wire.LogRecord) { r.Checksum++ })) }, DifferentPayload},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(3)
			c.harm(w)
			if c.want&HoleRecordConflict != 0 {
				w.each(at, func(s uint64, r *wire.LogRecord) *wire.LogRecord {
					if r.Flags&logs.FlagHole != 0 {
						return with(r, func(r *wire.LogRecord) { r.Checksum = 0 })
					}
					return r
				})
			}
			r := w.check(t, 3)
			if len(r.Problems) != 1 || r.Problems[0].From != at || r.Problems[0].To != at || r.Problems[0].Findings != c.want {
				t.Fatalf("found %v, want %s at %s", r.Problems, c.want, at)
			}
			for i := range findings {
				if n := r.Count(1 << i); (n == 1) != (c.want&(1<<i) != 0) {
					t.Errorf("%s is counted %d times", Finding(1<<i), n)
				}
			}
		})
	}
}

// A copy of a plan that recovery gave up is no harm beside a plan that is whole, as far
// as shards could be asked; one by a sequencer is.
func TestACopyOfAPlanThatWasGivenUp(t *testing.T) {
	at := logs.MakeLSN(2, 3)
	for _, plan := range []map[int]int{{1: 3, 2: 3, 3: 1}, {2: 3, 3: 1}} {
		w := newWorld(2)
		w.replanned(at, plan)
		w.silent[shardOf(1)] = len(plan) < 3
		if r := w.check(t, 3); len(r.Problems) > 0 {
			t.Errorf("%v: %v", plan, r.Problems)
		}
	}
	w := newWorld(2)
	w.replanned(at, map[int]int{1: 3, 2: 3, 3: 1})
	w.each(at, func(_ uint64, r *wire.LogRecord) *wire.LogRecord { r.Flags = 0; return r })
	if r := w.check(t, 3); r.Count(DifferentCopysetInLatestWave) != 1 {
		t.Errorf("not by recovery: %v", r.Problems)
	}
}

// replanned puts copies by recovery on shards, each on a copyset of its own and one more.
func (w *world) replanned(at logs.LSN, other map[int]int) {
	w.each(at, func(uint64, *wire.LogRecord) *wire.LogRecord { return nil })
	for n, m := range other {
		w.put(at, logs.FlagWrittenByRecovery, n)
		list := w.copies[shardOf(n)]
		list[len(list)-1].Copyset = []uint64{shardOf(min(n, m)), shardOf(max(n, m))}
	}
}

// A recovery that ends half-way through an epoch that an earlier one has made clean
// leaves a wave that is not whole, above one that is. That is no harm, unless the two
// differ, or the earlier is not whole either, or it was no recovery.
func TestALaterRecoveryThatEndedHalfWay(t *testing.T) {
	at := logs.MakeLSN(2, 3) // on 2 and 4
	recovered := uint32(logs.FlagWrittenByRecovery)
	for _, c := range []struct {
		name   string
		flags  uint32
		change func(r *wire.LogRecord)
		lose   int
		want   Finding
	}{
		{"whole below", recovered, func(*wire.LogRecord) {}, 0, 0},
		{"another payload", recovered, func(r *wire.LogRecord) { r.Checksum++ }, 0, BadReplicationLastWave},
		{"a hole", recovered, func(r *wire.LogRecord) { r.Flags |= logs.FlagHole }, 0, HoleRecordConflict | BadReplicationLastWave},
		{"not whole below", recovered, func(*wire.LogRecord) {}, 2, BadReplication | BadReplicationLastWave},
		{"by a sequencer", 0, func(*wire.LogRecord) {}, 0, BadReplicationLastWave},
	} {
		w := newWorld(2)
		w.each(at, func(s uint64, r *wire.LogRecord) *wire.LogRecord {
			r = &wire.LogRecord{Log: 7, Lsn: r.Lsn, Wave: 1, Flags: c.flags, Copyset: r.Copyset, Checksum: r.Checksum}
			if s == shardOf(4) {
				r.Wave, r.Copyset = 2, []uint64{shardOf(1), shardOf(4)}
				c.change(r)
			}
			if s == shardOf(c.lose) {
				return nil
			}
			return r
		})
		r := w.check(t, 3)
		var got Finding
		for _, p := range r.Problems {
			got |= p.Findings
		}
		if got != c.want {
			t.Errorf("%s: %v, want %v: %v", c.name, got, c.want, r.Problems)
		}
	}
}

// A recovery that did not hear that a record is fully stored stores it anew, makes its plan
// anew, and gives way to one that heard it. What it leaves names several copysets. That is
// no harm either, unless the record is not where its sequencer stored it.
func TestARecoveryThatKnewOfNoLNGGivesWay(t *testing.T) {
	at := logs.MakeLSN(2, 3) // on 2 and 4
	for _, c := range []struct {
		name   string
		change func(r *wire.LogRecord) *wire.LogRecord
		want   Finding
	}{
		{"whole below", func(r *wire.LogRecord) *wire.LogRecord { return r }, 0},
		{"not whole below", func(*wire.LogRecord) *wire.LogRecord { return nil }, DifferentCopysetInLatestWave},
		{"another payload below", func(r *wire.LogRecord) *wire.LogRecord { r.Checksum++; return r }, DifferentCopysetInLatestWave},
		{"elsewhere below", func(r *wire.LogRecord) *wire.LogRecord { r.Copyset[1] = shardOf(3); return r }, DifferentCopysetInLatestWave},
	} {
		w := newWorld(2)
		var sum uint32
		w.each(at, func(s uint64, r *wire.LogRecord) *wire.LogRecord {
			r = &wire.LogRecord{Log: 7, Lsn: r.Lsn, Wave: 1, Copyset: slices.Clone(r.Copyset), Checksum: r.Checksum}
			if sum = r.Checksum; s == shardOf(4) {
				r.Wave, r.Flags, r.Copyset = 3, logs.FlagWrittenByRecovery, []uint64{shardOf(1), shardOf(4)}
				return r
			}
			return c.change(r)
		})
		w.put(at, logs.FlagWrittenByRecovery, 1)
		r := w.copies[shardOf(1)][len(w.copies[shardOf(1)])-1]
		r.Wave, r.Checksum, r.Copyset = 3, sum, []uint64{shardOf(1), shardOf(2)}
		slices.SortFunc(w.copies[shardOf(1)], func(a, b *wire.LogRecord) int { return cmp.Compare(a.Lsn, b.Lsn) })
		var got Finding
		report := w.check(t, 3)
		for _, p := range report.Problems {
			got |= p.Findings
		}
		if got != c.want {
			t.Errorf("%s: %v, want %v: %v", c.name, got, c.want, report.Problems)
		}
	}
}

// Two plans of a recovery that ended half-way may have taken the place of the earlier wave
// on its whole copyset. It is stored as that one wanted it, and what lies below tells so:
// if it says the same, and none of its copyset has lost its copy.
func TestALaterRecoveryTookThePlaceOfAnEarlierOneEverywhere(t *testing.T) {
	at := logs.MakeLSN(2, 3) // on 2 and 4
	for _, c := range []struct {
		name   string
		change func(below *wire.LogRecord) *wire.LogRecord
		lose   int
		want   Finding
	}{
		{"whole below", func(r *wire.LogRecord) *wire.LogRecord { return r }, 0, 0},
		{"nothing below", func(*wire.LogRecord) *wire.LogRecord { return nil }, 0, DifferentCopysetInLatestWave},
		{"another payload below", func(r *wire.LogRecord) *wire.LogRecord { r.Checksum++; return r }, 0, DifferentCopysetInLatestWave},
		{"elsewhere below", func(r *wire.LogRecord) *wire.LogRecord { r.Copyset[0] = shardOf(3); return r }, 0, DifferentCopysetInLatestWave},
		{"one has lost it", func(r *wire.LogRecord) *wire.LogRecord { return r }, 2, BadReplication | BadReplicationLastWave},
	} {
		w := newWorld(2)
		var below []*wire.LogRecord
		w.each(at, func(s uint64, r *wire.LogRecord) *wire.LogRecord {
			below = append(below, &wire.LogRecord{Log: 7, Lsn: r.Lsn, Wave: 1, Copyset: slices.Clone(r.Copyset), Checksum: r.Checksum})
			if s == shardOf(c.lose) {
				return nil
			}
			other := shardOf(1)
			if s == shardOf(2) {
				other = shardOf(3)
			}
			return &wire.LogRecord{Log: 7, Lsn: r.Lsn, Wave: 3, Flags: logs.FlagWrittenByRecovery, Copyset: []uint64{other, s}, Checksum: r.Checksum}
		})
		if r := c.change(below[1]); r != nil { // on 4
			w.copies[shardOf(4)] = append(w.copies[shardOf(4)], r)
		}
		var got Finding
		report := w.check(t, 3)
		for _, p := range report.Problems {
			got |= p.Findings
		}
		if got != c.want {
			t.Errorf("%s: %v, want %v: %v", c.name, got, c.want, report.Problems)
		}
	}
}

// What a shard has not released may be purged before it is shown to anybody.
func TestUnreleasedCopiesDoNotConflict(t *testing.T) {
	w := newWorld(2)
	at := logs.MakeLSN(1, 3)
	w.each(at, func(s uint64, r *wire.LogRecord) *wire.LogRecord { return nil })
	w.put(at, logs.FlagHole|logs.FlagWrittenByRecovery, 1, 3)
	w.put(at, 0, 2)
	w.each(at, func(s uint64, r *wire.LogRecord) *wire.LogRecord {
		if s == shardOf(2) {
			r.Copyset = []uint64{shardOf(2), shardOf(3)}
		}
		return r
	})
	w.released[shardOf(2)] = at - 1
	if r := w.check(t, 10); !r.Clean() {
		t.Errorf("%v", r.Problems)
	}
	w.released[shardOf(2)] = at
	if r := w.check(t, 10); r.Count(HoleRecordConflict) != 1 {
		t.Errorf("%v", r.Problems)
	}
}

// C2: with a shard that cannot be asked nothing is said that its copies would refute.
func TestSilentShards(t *testing.T) {
	w := newWorld(3)
	w.silent[shardOf(2)] = true
	r := w.check(t, 5)
	if r.Found != [findings]uint64{} || r.Clean() || len(r.Silent) != 1 {
		t.Errorf("one silent: %v, silent %v", r.Problems, r.Silent)
	}
	w.silent[shardOf(4)] = true // with 2 it holds all copies of some records
	if r = w.check(t, 5); r.Found != [findings]uint64{} || len(r.Silent) != 2 {
		t.Errorf("two silent: %v", r.Problems)
	}
	w.silent[shardOf(4)] = false
	w.each(logs.MakeLSN(1, 1), func(uint64, *wire.LogRecord) *wire.LogRecord { return nil })
	if r = w.check(t, 5); r.Count(DataLoss) != 1 {
		t.Errorf("a record that cannot lie on the silent shard alone: %v", r.Problems)
	}
}

// Losses at the beginning, the end and across pages; what is trimmed is not missed,
// and what lies behind a bridge is not looked at.
func TestLossesByRange(t *testing.T) {
	w := newWorld(3)
	none := func(uint64, *wire.LogRecord) *wire.LogRecord { return nil }
	for n := logs.ESN(1); n <= 3; n++ {
		w.each(logs.MakeLSN(2, n), none)
	}
	w.each(logs.MakeLSN(3, 5), none) // the last released
	w.put(logs.MakeLSN(1, 9), logs.FlagHole, 1)
	for _, page := range []uint32{1, 2, 100} {
		r := w.check(t, page)
		if len(r.Problems) != 2 || r.Problems[0].From != logs.MakeLSN(2, 1) || r.Problems[0].To != logs.MakeLSN(2, 3) ||
			r.Problems[1].From != logs.MakeLSN(3, 5) || r.Count(DataLoss) != 4 || r.Records != 17 {
			t.Errorf("pages of %d: %v, %d records", page, r.Problems, r.Records)
		}
	}
	w.trim = uint64(logs.MakeLSN(2, 2))
	if r := w.check(t, 2); r.Count(DataLoss) != 2 || r.Records != 9 {
		t.Errorf("trimmed: %v, %d records", r.Problems, r.Records)
	}
}

// Whatever pages the copies come in, the findings are the same.
func TestPagesDoNotMatter(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		w := newWorld(1 + rng.IntN(5))
		for range rng.IntN(6) {
			at := logs.MakeLSN(logs.Epoch(1+rng.IntN(5)), logs.ESN(1+rng.IntN(6)))
			p := rng.IntN(2)
			w.each(at, func(s uint64, r *wire.LogRecord) *wire.LogRecord {
				if p == 0 || rng.IntN(2) == 0 {
					return nil
				}
				return r
			})
		}
		var first string
		for page := uint32(1); page < 8; page++ {
			var all []string
			r := w.check(t, page)
			last := logs.LSN(0)
			for _, p := range r.Problems {
				for l := p.From; l <= p.To; l++ {
					if l <= last {
						t.Fatalf("seed %d: %s is judged twice", seed, l)
					}
					last = l
					all = append(all, l.String()+p.Findings.String())
				}
			}
			s := strings.Join(all, " ")
			if first == "" {
				first = s
			}
			if s != first {
				t.Fatalf("seed %d: pages of %d find %s, not %s", seed, page, s, first)
			}
		}
	}
}
