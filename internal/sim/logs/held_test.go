package logs

import (
	"testing"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/logs/reader"
	"github.com/braiddb/braid/internal/sim"
	"github.com/braiddb/braid/internal/wire"
)

// held is a cluster before its first event, and what is known of its first log.
type held struct {
	w *sim.World
	c *cluster
	m *member
	t *truth
	s *spy
}

// history is what a checker is told, and whether that breaks what it holds nodes to.
type history struct {
	name string
	red  bool
	tell func(h *held) error
}

func judge(t *testing.T, histories []history) {
	t.Helper()
	for _, x := range histories {
		h := &held{}
		h.w = sim.NewWorld(Wing().Draw(1), nil, func(w *sim.World) sim.Cluster { h.c = newCluster(w); return h.c })
		h.m, h.t = h.c.members[0], h.c.truths[0]
		h.s = newSpy(h.m)
		if err := x.tell(h); (h.w.Failed() || err != nil) != x.red {
			t.Errorf("%s: failed %v: %v", x.name, h.w.Failed(), err)
		}
	}
}

// TestAShardIsHeldToItsSeal is L7.
func TestAShardIsHeldToItsSeal(t *testing.T) {
	says := func(e logs.Epoch, cookie uint64) func(*held) error {
		return func(h *held) error {
			h.m.promised(1).fence = 2
			h.m.forgets() // a torn journal is no excuse
			h.m.keepsOut(&wire.Stored{Log: 1, Lsn: uint64(logs.MakeLSN(e, 4)), Cookie: cookie})
			return nil
		}
	}
	judge(t, []history{
		{"of the sealed epoch", true, says(2, 7)},
		{"of one before it", true, says(1, 7)},
		{"of the next", false, says(3, 7)},
		{"for recovery", false, says(2, recoveryCookie|7)},
	})
}

// TestAShardIsHeldToWhatItPromised is L8.
func TestAShardIsHeldToWhatItPromised(t *testing.T) {
	lsn := logs.MakeLSN(2, 5)
	comes := func(change func(*wire.LogState), servedAt int) func(*held) error {
		return func(h *held) error {
			s := &wire.LogState{Log: 1, Seal: 3, TrimPoint: uint64(lsn - 2), LastCleanEpoch: 2, LastReleased: uint64(lsn)}
			change(s)
			h.m.compare(promises{seal: 3, trim: lsn - 2, clean: 2, served: released{lsn, servedAt}}, 100, s)
			return nil
		}
	}
	judge(t, []history{
		{"all is known", false, comes(func(*wire.LogState) {}, 50)},
		{"the seal is forgotten", true, comes(func(s *wire.LogState) { s.Seal = 2 }, 50)},
		{"the trim point is", true, comes(func(s *wire.LogState) { s.TrimPoint-- }, 50)},
		{"the clean epoch is", true, comes(func(s *wire.LogState) { s.LastCleanEpoch = 1 }, 50)},
		{"what was served for long is", true, comes(func(s *wire.LogState) { s.LastReleased-- }, 100-writtenWithin-1)},
		{"what was served just now is", false, comes(func(s *wire.LogState) { s.LastReleased-- }, 100-writtenWithin)},
	})
}

// TestARecoveryIsHeldToWhatWasDecided is L9.
func TestARecoveryIsHeldToWhatWasDecided(t *testing.T) {
	lsn := logs.MakeLSN(1, 5)
	const hole = logs.FlagHole
	decides := func(h *held, seal, flags uint32, sum int) {
		r := &wire.LogRecord{Log: 1, Lsn: uint64(lsn), Flags: flags, Checksum: uint32(sum)}
		h.t.decides(&wire.Store{Record: r, SealEpoch: seal}, h.m)
	}
	twice := func(seal, flags uint32, sum int, closed bool, good, last uint32) func(*held) error {
		return func(h *held) error {
			decides(h, 2, 0, 7)
			if closed {
				h.t.closes(&wire.CleanRequest{Log: 1, Epoch: 1, SealEpoch: 2, LastKnownGood: good, Last: last})
			}
			decides(h, seal, flags, sum)
			return nil
		}
	}
	onAcked := func(flags uint32, later bool) func(*held) error {
		return func(h *held) error {
			h.t.acked[lsn] = []string{"p"}
			if later {
				h.t.ballot(ballot{1, 9})
			}
			decides(h, 2, flags, 7)
			return nil
		}
	}
	judge(t, []history{
		{"the same again", false, twice(2, 0, 7, false, 0, 0)},
		{"another record", true, twice(2, 0, 8, false, 0, 0)},
		{"a hole after a record", true, twice(2, hole, 0, false, 0, 0)},
		{"a later one is free where none came to CLEAN", false, twice(3, hole, 0, false, 0, 0)},
		{"and not where one did", true, twice(3, hole, 0, true, 4, 9)},
		{"it agrees", false, twice(3, 0, 7, true, 4, 9)},
		{"a hole in what was known good", true, twice(3, hole, 0, true, 5, 9)},
		{"a record behind the end", true, twice(3, 0, 7, true, 2, 4)},
		{"a hole of what was acknowledged", true, onAcked(hole, false)},
		{"a record of it", false, onAcked(0, false)},
		{"by one that was overtaken", false, onAcked(hole, true)},
	})
}

// TestAReleaseIsHeldToTheMetadataLog is L10.
func TestAReleaseIsHeldToTheMetadataLog(t *testing.T) {
	releases := func(written bool) func(*held) error {
		return func(h *held) error {
			h.t.setting(&wire.EpochMetadata{EffectiveSince: 1})
			h.t.written[1] = written
			h.s.highest[1] = logs.MakeLSN(1, 5)
			h.s.releases(2, &wire.Release{Log: 1, Released: uint64(logs.MakeLSN(1, 5))})
			return nil
		}
	}
	judge(t, []history{{"it is written", false, releases(true)}, {"it is not", true, releases(false)}})
}

// TestANodeIsHeldToItsOwnAppends is L11.
func TestANodeIsHeldToItsOwnAppends(t *testing.T) {
	recovers := func(of logs.Epoch, stored, fenced, late bool) func(*held) error {
		return func(h *held) error {
			h.c.epochs.won[reign{1, 2}] = h.w.Now()
			if late {
				h.c.epochs.won[reign{1, 2}] -= drainTime
			}
			v := wave{number: 1, copyset: []uint64{uint64(logs.MakeShard(2, 0))}}
			if stored {
				v.stored = []uint64{2}
			}
			h.s.copies[place{1, logs.MakeLSN(of, 5)}] = &sent{waves: []wave{v}, fenced: fenced}
			h.s.recovers(1, 1, 2)
			return nil
		}
	}
	judge(t, []history{
		{"one is on its way", true, recovers(1, false, false, false)},
		{"it is stored", false, recovers(1, true, false, false)},
		{"it was fenced off", false, recovers(1, false, true, false)},
		{"it had its time", false, recovers(1, false, false, true)},
		{"it is of another epoch", false, recovers(2, false, false, false)},
	})
}

// TestReadersAreHeldToOffsetsAndBridges is L12.
func TestReadersAreHeldToOffsetsAndBridges(t *testing.T) {
	told := func(h *held, esn logs.ESN, offset uint64) {
		h.t.counts(&reading{name: "r"}, &reader.Item{LSN: logs.MakeLSN(1, esn), Offset: offset, OffsetKnown: true, Record: &wire.LogRecord{Count: 2}})
	}
	offsets := func(esn logs.ESN, offset uint64) func(*held) error {
		return func(h *held) error {
			told(h, 5, 10)
			told(h, esn, offset)
			return h.t.ascend()
		}
	}
	ends := func(flags uint32) func(*held) error {
		return func(h *held) error {
			for _, r := range []*wire.LogRecord{{Lsn: uint64(logs.MakeLSN(1, 5))}, {Lsn: uint64(logs.MakeLSN(1, 6)), Flags: flags}} {
				h.t.ends(&wire.RecordsResponse{Records: []*wire.LogRecord{r}})
			}
			h.t.looked = logs.MakeLSN(2, 1)
			return h.t.bridged()
		}
	}
	judge(t, []history{
		{"the same again", false, offsets(5, 10)},
		{"another", true, offsets(5, 11)},
		{"the next goes on", false, offsets(6, 12)},
		{"the next goes back", true, offsets(6, 11)},
		{"with a bridge", false, ends(logs.FlagBridge)},
		{"without one", true, ends(0)},
	})
}

// TestARefusalIsHeldToTakeNoLSN is L13.
func TestARefusalIsHeldToTakeNoLSN(t *testing.T) {
	acknowledges := func(esns ...logs.ESN) func(*held) error {
		return func(h *held) error {
			for _, esn := range esns {
				h.s.copies[place{1, logs.MakeLSN(1, esn)}] = &sent{}
			}
			h.s.withoutGap(1, logs.MakeLSN(1, 3))
			return nil
		}
	}
	judge(t, []history{{"all were sent", false, acknowledges(1, 2, 3)}, {"one was not", true, acknowledges(1, 3)}, {"the first was not", true, acknowledges(2, 3)}})
}
