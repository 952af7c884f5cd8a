package logs

import (
	"slices"
	"time"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// Recovery is a consensus, and is held to it: L9.

// ballot is one recovery of an epoch; its seal says which of two is the later.
type ballot struct {
	epoch, seal logs.Epoch
}

// decisions are what a recovery had stored.
type decisions struct {
	of     map[logs.LSN]verdict
	closed bool // it has sent a CLEAN: all of them lie on copysets
	good   logs.LSN
	last   logs.LSN
}

// verdict is what an LSN was decided to be.
type verdict struct {
	record   bool
	checksum uint64
}

func (t *truth) ballot(b ballot) *decisions {
	d := t.ballots[b]
	if d == nil {
		d = &decisions{of: map[logs.LSN]verdict{}}
		t.ballots[b] = d
		t.order = append(t.order, b)
	}
	return d
}

// decides is told of a copy that a recovery has stored.
func (t *truth) decides(s *wire.Store, by *member) {
	if t.c.beyond() {
		return
	}
	r, lsn := s.Record, logs.LSN(s.Record.Lsn)
	b := ballot{lsn.Epoch(), logs.Epoch(s.SealEpoch)}
	v := verdict{record: r.Flags&(logs.FlagHole|logs.FlagBridge) == 0}
	if v.record {
		v.checksum = uint64(r.Checksum)
	}
	d := t.ballot(b)
	if was, known := d.of[lsn]; known && was != v {
		t.c.w.Fail("log %d: the recovery of epoch %d under seal %d decides %s as %+v, and before as %+v (node %d)", t.id, b.epoch, b.seal, lsn, v, was, by.n.ID)
	}
	d.of[lsn] = v
	if lsn <= t.trim {
		return // those that have let go of it know nothing
	}
	if p := t.acked[lsn]; !v.record && len(p) > 0 && !t.overtaken(b) {
		t.c.w.Fail("log %d: the recovery of epoch %d under seal %d makes a hole of %s, where %q was acknowledged (node %d)", t.id, b.epoch, b.seal, lsn, p, by.n.ID)
	}
	for _, o := range t.order {
		if x := t.ballots[o]; o.epoch == b.epoch && o.seal < b.seal && x.closed && !x.agrees(lsn, v) {
			t.c.w.Fail("log %d: the recovery of epoch %d under seal %d decides %s as %+v; the one under seal %d had come to CLEAN, up to %s, with %+v (node %d)",
				t.id, b.epoch, b.seal, lsn, v, o.seal, x.last, x.of[lsn], by.n.ID)
		}
	}
}

// overtaken says that a later recovery of the epoch is at work, or was: what an earlier one
// still has stored is refused, and what was acknowledged may be what the later one found.
func (t *truth) overtaken(b ballot) bool {
	return slices.ContainsFunc(t.order, func(o ballot) bool { return o.epoch == b.epoch && o.seal > b.seal })
}

// agrees says that a later recovery may decide so.
func (d *decisions) agrees(lsn logs.LSN, v verdict) bool {
	was, known := d.of[lsn]
	switch {
	case lsn <= d.good:
		return v.record
	case lsn > d.last:
		return !v.record
	case !known: // it lay well
		return true
	}
	return v == was
}

// closes is told that a recovery has sent a CLEAN.
func (t *truth) closes(q *wire.CleanRequest) {
	e := logs.Epoch(q.Epoch)
	d := t.ballot(ballot{e, logs.Epoch(q.SealEpoch)})
	d.closed, d.good, d.last = true, logs.MakeLSN(e, logs.ESN(q.LastKnownGood)), logs.MakeLSN(e, logs.ESN(q.Last))
	t.leaves(e, d.good, q.Absent)
}

// knownGood is the highest LNG of the recoveries of an epoch that had come to CLEAN.
func (t *truth) knownGood(e logs.Epoch) (good logs.LSN) {
	for _, b := range t.order {
		if d := t.ballots[b]; b.epoch == e && d.closed {
			good = max(good, d.good)
		}
	}
	return good
}

// plugged says that a recovery that had come to CLEAN made nothing of an LSN.
func (t *truth) plugged(lsn logs.LSN) (seal logs.Epoch, yes bool) {
	for _, b := range t.order {
		d := t.ballots[b]
		if v, known := d.of[lsn]; b.epoch == lsn.Epoch() && d.closed && (lsn > d.last || known && !v.record) {
			return b.seal, true
		}
	}
	return 0, false
}

// The metadata of what is released: L10.

// setting notes since which epoch a log is stored as the epoch store says now.
func (t *truth) setting(m *wire.EpochMetadata) {
	since := logs.Epoch(m.GetEffectiveSince())
	if n := len(t.since); since > 0 && (n == 0 || t.since[n-1] < since) {
		t.since = append(t.since, since)
	}
}

// written notes that an entry of the metadata log lies on a copyset.
func (t *truth) writes(x *sent) {
	var m wire.EpochMetadata
	if err := m.UnmarshalVT(x.payload); err != nil {
		t.c.w.Fail("log %d: an entry of its metadata log does not decode: %w", t.id, err)
		return
	}
	t.written[logs.Epoch(m.EffectiveSince)] = true
}

// canBeRead says whether the metadata log tells what an epoch is stored on, and since
// when that is so.
func (t *truth) canBeRead(e logs.Epoch) (since logs.Epoch, yes bool) {
	for _, s := range t.since {
		if s <= e {
			since = s
		}
	}
	return since, t.written[since]
}

// A node does not fence itself out: L11.

// reign is an epoch that a node was given.
type reign struct {
	log   logs.LogID
	epoch logs.Epoch
}

// drainTime is how long a node gives its own last epoch to be stored, before it makes
// it clean; clocks may be that much apart.
const drainTime = 2*time.Second - 200*time.Millisecond

// recovers is told that the node begins to make an epoch clean, for the one after it.
func (s *spy) recovers(log logs.LogID, upTo, own logs.Epoch) {
	won, known := s.m.c.epochs.won[reign{log, own}]
	if !known || s.m.w.Now() >= won+drainTime {
		return
	}
	var first logs.LSN // of its own that are on their way
	for at, x := range s.copies {
		if at.log == log && at.lsn.Epoch() == upTo && !x.whole() && !x.fenced && (first == 0 || at.lsn < first) {
			first = at.lsn
		}
	}
	if first != 0 {
		s.m.w.Fail("node %d makes epoch %d of log %d clean %s after it was given epoch %d, and has %s on its way itself", s.m.n.ID, upTo, log, s.m.w.Now()-won, own, first)
	}
}
