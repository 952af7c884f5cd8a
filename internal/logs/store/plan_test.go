package store

import (
	"slices"
	"testing"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// planned is a bridge that a recovery under seal 2 stores by one of its plans.
func planned(at logs.LSN, plan uint32, with logs.ShardID) *wire.LogRecord {
	return &wire.LogRecord{Log: uint64(labLog), Lsn: uint64(at), Wave: 2, Copyset: []uint64{uint64(labShard), uint64(with)},
		Flags: logs.WithPlan(logs.FlagWrittenByRecovery|logs.FlagHole|logs.FlagBridge, plan)}
}

// placed is on whom the copy that counts says that it is.
func (b *lab) placed(at logs.LSN) []uint64 {
	r := call(b.s.Records, &wire.RecordsRequest{Log: uint64(labLog), From: uint64(at), To: uint64(at)})
	if len(r.Records) != 1 {
		b.t.Fatalf("%d copies of %s", len(r.Records), at)
	}
	return r.Records[0].Copyset
}

// TestAPlanThatWasGivenUpComesLate: what a recovery sent before it made its plan anew may
// arrive behind what it sent after that. It would replace it, and this shard would name one
// that has no copy.
func TestAPlanThatWasGivenUpComesLate(t *testing.T) {
	b := newLab(t, 81).open()
	defer b.stop()
	at, second := lsn(1, 5), lsn(2, 1)
	put := func(r *wire.LogRecord) wire.LogStatus {
		return b.send(&wire.Store{Record: r, SealEpoch: 2, Cookie: 1})[1].Status
	}
	for _, x := range []struct {
		r    *wire.LogRecord
		want wire.LogStatus
	}{
		{planned(at, 1, others[0]), statusOK}, {planned(at, 3, others[1]), statusOK}, {planned(at, 3, others[1]), statusOK},
		{planned(at, 1, others[0]), wire.LogStatus_LOG_STATUS_DROPPED},
		{planned(second, 1, others[0]), statusOK}, {planned(at, 4, others[0]), wire.LogStatus_LOG_STATUS_DROPPED},
	} {
		if got := put(x.r); got != x.want {
			t.Errorf("%s by plan %d: %s, want %s", logs.LSN(x.r.Lsn), logs.PlanOf(x.r.Flags), got, x.want)
		}
	}
	if got := b.placed(at); !slices.Equal(got, planned(at, 3, others[1]).Copyset) {
		t.Errorf("%s is said to be on %v", at, got)
	}
}

// TestAnAmendmentHasAPlanOfItsOwn: what an earlier recovery wrote has another.
func TestAnAmendmentHasAPlanOfItsOwn(t *testing.T) {
	b := newLab(t, 83).open()
	defer b.stop()
	at := lsn(1, 5)
	whole, amended := rec(at, "x"), rec(at, "x")
	whole.Wave, whole.Flags = 2, logs.WithPlan(logs.FlagWrittenByRecovery|logs.FlagStream, 2)
	amended.Wave, amended.Flags, amended.Payload = 3, logs.WithPlan(logs.FlagWrittenByRecovery, 1), nil
	b.send(&wire.Store{Record: whole, SealEpoch: 2, Cookie: 1})
	b.send(&wire.Store{Record: amended, SealEpoch: 3, Amend: true, Cookie: 2})
	call(b.s.Seal, &wire.SealRequest{Log: uint64(labLog), Epoch: 3})
	d := call(b.s.Digest, &wire.DigestRequest{Log: uint64(labLog), Epoch: 1, From: 1, To: 9, SealEpoch: 3})
	if len(d.Records) != 1 || d.Records[0].Wave != 3 || d.Records[0].Flags != amended.Flags|logs.FlagStream {
		t.Errorf("%v", d)
	}
}

// TestALaterPlanIsTakenBack: of two copies of one recovery the later plan's counts. Who lost
// it, and still has the one that it took the place of, takes it back.
func TestALaterPlanIsTakenBack(t *testing.T) {
	b := newLab(t, 82).open()
	defer b.stop()
	at := lsn(1, 5)
	b.send(&wire.Store{Record: planned(at, 2, others[0]), SealEpoch: 2, Cookie: 1})
	for _, x := range []struct {
		plan uint32
		with logs.ShardID
		want logs.ShardID
	}{{1, others[1], others[0]}, {3, others[1], others[1]}} {
		b.must(func(done func(error)) { b.s.Repair(labLog, 0, []*wire.LogRecord{planned(at, x.plan, x.with)}, done) })
		if got := b.placed(at); !slices.Equal(got, []uint64{uint64(labShard), uint64(x.want)}) {
			t.Errorf("with a copy of plan %d at hand it is said to be on %v", x.plan, got)
		}
	}
}
