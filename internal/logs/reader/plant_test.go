package reader

import (
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
				if c.slots.len() > 3 && len(out.Items) > 0 {
					c.slots.list = c.slots.list[:len(c.slots.list)-1]
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

// slots: stretches that the filter left out, cut by a record that passes.
func TestSlots(t *testing.T) {
	var b slots
	rec := func(lsn LSN, wave uint32) slot {
		return slot{lo: lsn, hi: lsn, record: &wire.LogRecord{Lsn: uint64(lsn), Wave: wave}, bytes: int(wave)}
	}
	b.filtered(10, 20)
	b.filtered(5, 12)
	b.filtered(18, 25)
	if n := b.add(rec(15, 2)); n != 2 {
		t.Fatalf("%d bytes for a record", n)
	}
	if n := b.add(rec(15, 1)); n != 0 {
		t.Fatalf("%d bytes for a lower wave", n)
	}
	if n := b.add(rec(15, 5)); n != 3 {
		t.Fatalf("%d more bytes for a higher wave", n)
	}
	var got []LSN
	for _, s := range b.list[b.from:] {
		got = append(got, s.lo, s.hi)
	}
	want := []LSN{5, 9, 10, 14, 15, 15, 16, 20, 21, 25}
	if len(got) != len(want) {
		t.Fatalf("%v, not %v", got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("%v, not %v", got, want)
		}
	}
	if b.filteredTo() != 14 {
		t.Fatalf("the first stretch ends at %s", b.filteredTo())
	}
	if freed := b.dropBelow(18); freed != 5 || b.front().lo != 18 {
		t.Fatalf("%d bytes freed, front %s", freed, b.front().lo)
	}
}
