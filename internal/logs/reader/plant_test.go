package reader

import (
	"slices"
	"testing"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/placement"
	"github.com/braiddb/braid/internal/wire"
)

// TestPlantedBugs breaks the reader in ways that people would, and demands that the
// simulation sees each of them.
func TestPlantedBugs(t *testing.T) {
	plants := map[string]func() func(*Core, *Effects){
		"a rewind forgets the filter version": func() func(*Core, *Effects) {
			return func(c *Core, out *Effects) {
				c.mode.version = 1
				for _, s := range out.Starts {
					s.Req.FilterVersion = 1
				}
			}
		},
		"gaps are decided in single-copy delivery": func() func(*Core, *Effects) {
			return func(c *Core, out *Effects) { c.mode.single = false }
		},
		"one shard that passed the front is enough": func() func(*Core, *Effects) {
			return func(c *Core, out *Effects) {
				if c.entry != nil {
					set := nodesetOf(c.entry)
					c.set = placement.NewShardSet(&catalog.Replication{Node: uint32(len(set))}, set)
				}
			}
		},
		"a new epoch is read from the old one's shards": func() func(*Core, *Effects) {
			return func(c *Core, out *Effects) {
				if len(c.meta.entries) > 0 {
					c.meta.through = logs.EpochMax
				}
			}
		},
		"a shard that failed is taken to have answered": func() func(*Core, *Effects) {
			return func(c *Core, out *Effects) {
				for _, s := range c.shards {
					if s.err != nil && s.state == shardIdle {
						s.next = max(s.next, c.head+4)
					}
				}
			}
		},
		"a damaged copy counts as none": func() func(*Core, *Effects) {
			return func(c *Core, out *Effects) {
				for _, s := range c.shards {
					s.suspectTo, s.down = 0, false
				}
			}
		},
		"what stopped at the window is the end of a gap": func() func(*Core, *Effects) {
			return func(c *Core, out *Effects) {
				for _, s := range c.shards {
					s.high = 0
				}
			}
		},
		"the window does not move": func() func(*Core, *Effects) {
			return func(c *Core, out *Effects) { c.window.taken = logs.LSNMax }
		},
		"a slot is lost when the front moves": func() func(*Core, *Effects) {
			return func(c *Core, out *Effects) {
				for _, s := range c.shards {
					// One that came again would be found by the second look (R7).
					q := &s.slots
					q.list = append(q.list[:q.from], slices.DeleteFunc(q.list[q.from:], func(x slot) bool { return x.lo%5 == 0 })...)
				}
			}
		},
	}
	for name, plant := range plants {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(400) {
				if err := playSafely(seed, seed%4 != 0, seed%2 == 1, plant()); err != nil {
					t.Logf("seed %d: %.150s", seed, err.Error())
					return
				}
			}
			t.Error("not seen in 400 seeds")
		})
	}
}

type panicked struct{ what any }

func (p panicked) Error() string { return "panic: " + p.what.(string) }

func playSafely(seed uint64, faults, harm bool, plant func(*Core, *Effects)) (err error) {
	defer func() {
		if p := recover(); p != nil {
			if s, ok := p.(string); ok {
				err = panicked{s}
				return
			}
			panic(p)
		}
	}()
	_, err = play(seed, faults, harm, plant)
	return err
}

// R1 is asserted where items are told, not only looked at by the simulation.
func TestTilingIsAsserted(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Fatal("an item that leaves a hole was told")
		}
	}()
	c := New(Config{Log: 7, From: 5, Until: 20})
	c.emit(Item{LSN: 5, To: 5, Record: &wire.LogRecord{Lsn: 5}})
	c.emit(Item{LSN: 7, To: 7, Gap: logs.GapHole})
}

// What shards sent is merged by comparing the lowest of each: of copies the one of the
// highest precedence, a record before a stretch that leaves it out.
func TestFrontOfSlots(t *testing.T) {
	c := New(Config{Log: 7, From: 5})
	for range 3 {
		c.shards = append(c.shards, &shard{})
	}
	a, b, d := &c.shards[0].slots, &c.shards[1].slots, &c.shards[2].slots
	rec := func(lsn LSN, wave uint32) slot {
		return slot{lo: lsn, hi: lsn, record: &wire.LogRecord{Lsn: uint64(lsn), Wave: wave}, bytes: int(wave)}
	}
	for _, s := range []slot{{lo: 5, hi: 6}, {lo: 7, hi: 9}, {lo: 8, hi: 12}, rec(20, 1)} {
		if !a.add(s) {
			t.Fatalf("%+v is refused", s)
		}
	}
	if a.add(rec(20, 7)) || a.add(rec(4, 1)) || a.add(slot{lo: 1, hi: 3}) || len(a.list) != 2 {
		t.Fatalf("a repetition is taken, or stretches are not joined: %+v", a.list)
	}
	b.add(slot{lo: 11, hi: 15})
	b.add(rec(16, 1))
	b.add(rec(20, 5))
	d.add(rec(14, 2))
	if f := c.front(); f.lo != 5 || c.filteredTo() != 13 {
		t.Fatalf("front %s, left out to %s", f.lo, c.filteredTo())
	}
	c.window.slotted = 100
	c.head = 14
	c.dropSlots(14)
	if f := c.front(); f.record == nil || f.lo != 14 {
		t.Fatalf("at 14: %+v", f)
	}
	c.dropSlots(20)
	if f := c.front(); f.record.Wave != 5 || c.window.slotted != 97 {
		t.Fatalf("at 20: %+v, %d bytes", f, c.window.slotted)
	}
	if freed := a.reset() + b.reset(); freed != 6 || c.front() != nil {
		t.Fatalf("%d bytes freed", freed)
	}
}
