package recovery

import (
	"math/rand/v2"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/placement"
	"github.com/braiddb/braid/internal/wire"
)

// TestACopyOfRecoveryHasAllOfTheRecord: whatever a record carries that recovery
// does not decide itself goes with each copy that it makes, fields that are added
// to the message later included.
func TestACopyOfRecoveryHasAllOfTheRecord(t *testing.T) {
	decided := map[protoreflect.Name]bool{"log": true, "lsn": true, "last_known_good": true, "wave": true, "copyset": true}
	record := &wire.LogRecord{
		Log: 1, Lsn: uint64(logs.MakeLSN(3, 5)), TimestampMs: 7, LastKnownGood: 2, Wave: 1, Flags: logs.FlagBatch, Copyset: []uint64{256},
		CountBefore: 11, Count: 2, Producer: 13, Sequence: 17, FindKey: []byte("f"), FilterKey: []byte("k"), Payload: []byte("p"), Checksum: 19,
		Origins: []*wire.Origin{{Producer: 13, Sequence: 16}, {Producer: 14, Sequence: 1}},
	}
	shard := logs.MakeShard(catalog.NodeID(1), 0)
	x := &epochRecovery{l: &logRecovery{args: Args{Log: 1, UpTo: 4, Own: 5}}, epoch: 3, nodeset: []placement.LogShard{{Shard: shard}}}
	got := x.message(&slot{esn: 5, value: valueRecord, record: record}, 0).Record
	fields := record.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if !record.ProtoReflect().Has(f) {
			t.Errorf("%s: the test gives it no value", f.Name())
		}
		if decided[f.Name()] || f.Name() == "flags" {
			continue
		}
		if want, have := record.ProtoReflect().Get(f), got.ProtoReflect().Get(f); !have.Equal(want) {
			t.Errorf("%s: %v, want %v", f.Name(), have, want)
		}
	}
	if want := logs.FlagBatch | logs.FlagWrittenByRecovery; got.Flags != want {
		t.Errorf("flags %b, want %b", got.Flags, want)
	}
}

// TestAPlanMadeAnewReplacesWholeCopies: a shard that got a record whole from a plan
// that failed gets it whole again with the new copyset, for an amendment of the same
// precedence would lose against the copy that is there. One whose own copy was
// amended is amended again.
func TestAPlanMadeAnewReplacesWholeCopies(t *testing.T) {
	record := &wire.LogRecord{Log: 1, Lsn: uint64(logs.MakeLSN(3, 5)), Wave: 1, Payload: []byte("p")}
	x := &epochRecovery{l: &logRecovery{args: Args{Log: 1, UpTo: 4, Own: 5}}, epoch: 3}
	for n := 1; n <= 3; n++ {
		x.nodeset = append(x.nodeset, placement.LogShard{Shard: logs.MakeShard(catalog.NodeID(n), 0)})
	}
	record.Flags = logs.WithPlan(logs.FlagStream, 9) // a former recovery's
	s := &slot{esn: 5, value: valueRecord, record: record, copies: []copyAt{{member: 0, value: valueRecord}}, plan: 1}
	s.target = shardBits{}.with(0).with(1)
	first := [...]*wire.Store{x.message(s, 0), x.message(s, 1)}
	s.wrote, s.target, s.plan = s.target, s.target.with(2), 2
	again := [...]*wire.Store{x.message(s, 0), x.message(s, 1)}
	for i, whole := range [...]bool{false, true} {
		for _, st := range [...]*wire.Store{first[i], again[i]} {
			if st.Amend == whole || (st.Record.Payload != nil) != whole {
				t.Errorf("member %d on %v: amendment %v, payload %q; want a whole copy: %v", i, st.Record.Copyset, st.Amend, st.Record.Payload, whole)
			}
		}
		if a, b := first[i].Record.Flags, again[i].Record.Flags; logs.PlanOf(a) != 1 || logs.PlanOf(b) != 2 || logs.WithPlan(a, 0) != logs.FlagStream|logs.FlagWrittenByRecovery {
			t.Errorf("member %d: flags %x, then %x", i, a, b)
		}
		if len(again[i].Record.Copyset) != 3 {
			t.Errorf("member %d: the new plan's copyset is %v", i, again[i].Record.Copyset)
		}
	}
}

// TestCopiesThatDisagreeOnTheirPlaceAreStoredAnew: copies of one recovery that name
// different copysets, since it made its plan anew, do not lie well, even if one of the
// copysets is complete.
func TestCopiesThatDisagreeOnTheirPlaceAreStoredAnew(t *testing.T) {
	replication := &catalog.Replication{Node: 2}
	l := &logRecovery{rules: &honest, args: Args{Log: 1, UpTo: 6, Own: 7}}
	x := &epochRecovery{l: l, epoch: 2}
	var ids []uint64
	for n := 1; n <= 3; n++ {
		s := placement.LogShard{Shard: logs.MakeShard(catalog.NodeID(n), 0)}
		x.nodeset, x.members, ids = append(x.nodeset, s), append(x.members, member{in: true, digested: true}), append(ids, uint64(s.Shard))
	}
	x.heard = placement.NewShardSet(replication, x.nodeset)
	for _, s := range x.nodeset {
		x.heard.Set(s.Shard, placement.ShardHeard)
	}
	record := &wire.LogRecord{Log: 1, Lsn: uint64(logs.MakeLSN(2, 5)), Wave: 6, Flags: logs.FlagWrittenByRecovery, Copyset: ids[:2]}
	for _, third := range []struct {
		copyset []uint64
		whole   bool
	}{{nil, true}, {ids[1:], false}} {
		s := &slot{esn: 5, value: valueRecord, record: record, precedence: 9, copies: []copyAt{
			{member: 0, precedence: 9, value: valueRecord, copyset: ids[:2]}, {member: 1, precedence: 9, value: valueRecord, copyset: []uint64{ids[1], ids[0]}}}}
		if third.copyset != nil {
			s.copies = append(s.copies, copyAt{member: 2, precedence: 9, value: valueRecord, copyset: third.copyset})
		}
		if got := x.whole(s); got != third.whole {
			t.Errorf("with a third copy on %v it needs no store: %v, want %v", third.copyset, got, third.whole)
		}
	}
}

// TestASlotThatIsShownLateIsStored: a digest that comes while the decisions are being
// stored may show an LSN of which nobody knew. It is made a hole, and that hole stored.
func TestASlotThatIsShownLateIsStored(t *testing.T) {
	l := &logRecovery{rules: &honest, args: Args{Log: 1, UpTo: 2, Own: 3}, dice: rand.New(rand.NewPCG(1, 2)), record: &wire.EpochRecord{}}
	x := &epochRecovery{l: l, epoch: 2, decided: true, phase: phaseMutating, plan: 1, authority: placement.FMajorityIncomplete}
	for n := 1; n <= 3; n++ {
		s := placement.LogShard{Shard: logs.MakeShard(catalog.NodeID(n), 0)}
		x.nodeset, x.members = append(x.nodeset, s), append(x.members, member{in: n < 3, digested: n < 3, asked: n == 3})
	}
	x.heard = placement.NewShardSet(&catalog.Replication{Node: 2}, x.nodeset)
	for _, s := range x.nodeset[:2] {
		x.heard.Set(s.Shard, placement.ShardHeard)
	}
	shown := &wire.LogRecord{Log: 1, Lsn: uint64(logs.MakeLSN(2, 9)), Wave: 1}
	x.onDigest(2, &event{kind: evAnswer, digest: &wire.DigestResponse{Records: []*wire.LogRecord{shown}}})
	s := x.slotOf(9)
	if s == nil || s.value != valueHole || s.stored {
		t.Fatalf("the slot that was shown late: %+v", s)
	}
	if want := (shardBits{}).with(0).with(1); s.target != want {
		t.Errorf("it is to be on %b, want the mutation set", s.target)
	}
}
