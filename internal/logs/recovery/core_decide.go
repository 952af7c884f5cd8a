package recovery

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/placement"
	"github.com/braiddb/braid/internal/wire"
)

// value is what an LSN is decided to be.
type value uint8

const (
	valueNone value = iota // nothing: it is left as it is
	valueRecord
	valueHole
	valueBridge // a hole, and the end of the epoch
)

// valueOf is what a copy says.
func valueOf(flags uint32) value {
	switch {
	case flags&logs.FlagBridge != 0:
		return valueBridge
	case flags&logs.FlagHole != 0:
		return valueHole
	}
	return valueRecord
}

// slot is one LSN above the LNG.
type slot struct {
	esn        logs.ESN
	record     *wire.LogRecord // of the highest precedence seen, nil: none
	precedence uint64
	copies     []copyAt
	value      value
	kept       bool // a record, and not all before it is known (C7)
	timestamp  int64

	// How the value is stored; see core_mutate.go.
	target shardBits // on whom it is to be
	wrote  shardBits // who has it from this recovery
	done   shardBits // of target: who has it as this plan wants it
	sent   shardBits // a store is out
	whole  shardBits // an amendment failed: they get all of it
	plan   uint32    // that target is of
	stored bool
}

// copyAt is one shard's copy.
type copyAt struct {
	member     int
	precedence uint64
	value      value
	copyset    []uint64 // on whom it says that the record is
}

func (x *epochRecovery) slotIndex(n logs.ESN) (int, bool) {
	return slices.BinarySearchFunc(x.slots, n, func(s slot, n logs.ESN) int { return cmp.Compare(s.esn, n) })
}

// foundAt is the slot of an ESN, made if there is none.
func (x *epochRecovery) foundAt(n logs.ESN) *slot {
	at, ok := x.slotIndex(n)
	if !ok {
		x.slots = slices.Insert(x.slots, at, slot{esn: n})
		if x.decided {
			x.late(at)
		}
	}
	return &x.slots[at]
}

// found takes a copy in. Of equal precedence a record comes before a hole: it can
// only be that nothing was decided.
func (x *epochRecovery) found(i int, r *wire.LogRecord) {
	n := logs.LSN(r.Lsn).ESN()
	if x.decided && n <= x.good {
		return
	}
	s := x.foundAt(n)
	c := copyAt{member: i, precedence: x.l.rules.precedence(r), value: valueOf(r.Flags), copyset: r.Copyset}
	s.copies = append(s.copies, c)
	if x.decided {
		if s.value == valueNone && c.value == valueRecord && !x.bridgedBefore(n, c.precedence) {
			x.decideLate(s, r, c.precedence)
		}
		return
	}
	if s.record == nil || c.precedence > s.precedence ||
		c.precedence == s.precedence && c.value == valueRecord && valueOf(s.record.Flags) != valueRecord {
		s.record, s.precedence = r, c.precedence
	}
}

// decideLate gives a slot that was left open the record that a late digest shows, by
// the rule of judgeSlots (C7).
func (x *epochRecovery) decideLate(s *slot, r *wire.LogRecord, precedence uint64) {
	hole, open := x.before(s.esn)
	stream := x.l.rules.stream(r.Flags)
	if stream && hole {
		pointOrphan.Reach()
		s.value, s.timestamp = valueHole, x.tail().TimestampMs
		return
	}
	s.record, s.precedence, s.value, s.kept, s.timestamp = r, precedence, valueRecord, stream && open, r.TimestampMs
}

// before says whether a hole that is proved, or something that is not decided, is
// before an LSN.
func (x *epochRecovery) before(n logs.ESN) (hole, open bool) {
	proves := x.authority.Reached()
	open = !proves
	next := x.good + 1
	for i := range x.slots {
		s := &x.slots[i]
		if s.esn >= n {
			break
		}
		hole = hole || proves && (s.esn > next || s.value == valueHole || s.value == valueBridge)
		open = open || s.value == valueNone
		next = s.esn + 1
	}
	return hole || proves && n > next, open
}

// late gives a slot its value that nobody had shown when it was decided. With an
// f-majority that means that it was never acknowledged; without, it stays open.
func (x *epochRecovery) late(at int) {
	s := &x.slots[at]
	if x.authority.Reached() {
		s.value, s.timestamp = valueHole, x.tail().TimestampMs
	}
	x.last = max(x.last, s.esn)
	x.first = min(x.first, at)
}

// bridgedBefore says whether a copy of a bridge of higher precedence than p lies
// before n: whoever wrote it had decided that nothing comes after.
func (x *epochRecovery) bridgedBefore(n logs.ESN, p uint64) bool {
	for i := range x.slots {
		for _, c := range x.slots[i].copies {
			if x.slots[i].esn < n && c.value == valueBridge && c.precedence > p {
				return true
			}
		}
	}
	return false
}

// decide gives every LSN above the LNG its value, once and for all (C1, C2). It
// says whether it could.
func (x *epochRecovery) decide() bool {
	x.good = x.lng()
	for i := range x.members {
		if m := &x.members[i]; m.began > x.good && m.began-1 > x.good {
			panic("BUG: C8: a digest began above what is decided")
		}
	}
	x.takeTail()
	x.slots = slices.DeleteFunc(x.slots, func(s slot) bool { return s.esn <= x.good })
	last, lost := x.judgeSlots()
	bridge := x.bridgeAt(last, lost)
	if x.authority.Reached() && !x.plug(bridge) {
		return false
	}
	x.stamp(bridge)
	x.last = x.good
	if n := len(x.slots); n > 0 {
		x.last = x.slots[n-1].esn
	}
	x.decided = true
	return true
}

// takeTail finds the last record at or below the LNG: told by a seal, or in the
// digest, which begins there if no seal told.
func (x *epochRecovery) takeTail() {
	x.tailGood = x.knownTail(x.good)
	for i := range x.slots {
		s := &x.slots[i]
		if s.esn <= x.good && s.record != nil && valueOf(s.record.Flags) == valueRecord &&
			(x.tailGood == nil || s.record.Lsn > x.tailGood.Lsn) {
			x.tailGood = &wire.TailRecord{Log: s.record.Log, Lsn: s.record.Lsn, TimestampMs: s.record.TimestampMs,
				Count: s.record.CountBefore + uint64(s.record.Count)}
		}
	}
}

// judgeSlots decides what digests showed. It gives the last real record's ESN (or
// the LNG) and the last of which damaged copies make it impossible to tell.
//
// With an f-majority what is on nobody was never fully stored, and so no record of a
// stream behind it was acknowledged: it becomes a hole too (C7). Where that much is not
// known of all that is before it, it stays, and is marked so: another recovery, which
// may know more, does not decide otherwise.
func (x *epochRecovery) judgeSlots() (last, lost logs.ESN) {
	last = x.good
	barrier := uint64(0) // the highest precedence of a bridge before
	proves := x.authority.Reached()
	hole, open := false, !proves // before: a hole that is proved; something that is not decided
	next := x.good + 1
	for i := range x.slots {
		s := &x.slots[i]
		hole = hole || proves && s.esn > next
		next = s.esn + 1
		switch {
		case s.record == nil:
			if !x.authority.Reached() || x.unreadable(s.esn) {
				lost = s.esn
			} else {
				s.value = valueHole
			}
		case valueOf(s.record.Flags) != valueRecord || s.precedence < barrier:
			s.value = valueHole // of bridges, one is found below
		case hole && x.l.rules.stream(s.record.Flags):
			pointOrphan.Reach()
			s.value = valueHole
		default:
			s.value, s.kept = valueRecord, open && x.l.rules.stream(s.record.Flags)
			last = s.esn
		}
		hole = hole || proves && s.value == valueHole
		open = open || s.value == valueNone
		for _, c := range s.copies {
			if c.value == valueBridge {
				barrier = max(barrier, c.precedence)
			}
		}
	}
	return last, lost
}

// hidden says whether an LSN's only good copies may be with those who are silent,
// because what was heard of it is damaged. They are waited for: gone on without,
// they would purge them.
func (x *epochRecovery) hidden() bool {
	lng := x.lng()
	for _, d := range x.damaged {
		if d.esn > lng && x.foundAt(d.esn).record == nil && x.unreadable(d.esn) {
			return true
		}
	}
	return false
}

// unreadable says whether the shards on which the LSN's copy is damaged make the
// others too few: what is on nobody else may have been acknowledged (C3).
func (x *epochRecovery) unreadable(n logs.ESN) bool {
	hit := false
	for _, d := range x.damaged {
		if d.esn == n {
			x.heard.Set(x.nodeset[d.member].Shard, placement.ShardUnavailable)
			hit = true
		}
	}
	if !hit {
		return false
	}
	bad := !x.l.rules.quorum(x.heard).Reached()
	x.judge(x.digested)
	return bad
}

// bridgeAt is where the epoch ends: after the last record. Without an f-majority
// only a bridge that is there is kept; nor is one put where a record may have been
// lost after the last. 0: nowhere.
func (x *epochRecovery) bridgeAt(last, lost logs.ESN) logs.ESN {
	if x.authority.Reached() && lost <= last {
		if last == logs.ESNMax {
			return 0
		}
		return x.l.rules.bridge(last)
	}
	for i := range x.slots {
		if s := &x.slots[i]; s.esn > last && s.record != nil && valueOf(s.record.Flags) == valueBridge {
			return s.esn
		}
	}
	return 0
}

// slotsMax bounds what a sequencer can have had in flight, and so the slots that
// are to be decided.
const slotsMax = 1 << 20

// plug makes a hole of every LSN that is on nobody, up to the bridge or the last
// that is on somebody. More of them than any window leaves cannot be true.
func (x *epochRecovery) plug(bridge logs.ESN) bool {
	end := bridge
	if n := len(x.slots); n > 0 {
		end = max(end, x.slots[n-1].esn)
	}
	switch {
	case end <= x.good || uint64(end-x.good) == uint64(len(x.slots)):
		return true
	case uint64(end-x.good) > slotsMax:
		x.l.finish(Result{Status: statusFailed, Message: fmt.Sprintf(
			"epoch %d: a shard shows a copy of LSN %s, but the last that was known to be stored is %s: more than %d holes are never left; check the shards with braid query on the records table",
			x.epoch, logs.MakeLSN(x.epoch, end), logs.MakeLSN(x.epoch, x.good), slotsMax)})
		return false
	}
	full := make([]slot, 0, end-x.good)
	at := 0
	for n := x.good + 1; ; n++ {
		if at < len(x.slots) && x.slots[at].esn == n {
			full = append(full, x.slots[at])
			at++
		} else {
			pointPlugged.Reach()
			full = append(full, slot{esn: n, value: valueHole})
		}
		if n == end {
			break
		}
	}
	x.slots = full
	return true
}

// stamp gives pseudorecords the time of the record before them, and the bridge
// its name.
func (x *epochRecovery) stamp(bridge logs.ESN) {
	at, hole := x.tailGood.GetTimestampMs(), false
	for i := range x.slots {
		s := &x.slots[i]
		hole = hole || s.value == valueHole
		if s.value == valueRecord {
			at = s.record.TimestampMs
			if hole && x.authority.Reached() && x.l.rules.stream(s.record.Flags) {
				panic("BUG: C7: a record of a stream stands behind a hole")
			}
		}
		if s.esn == bridge {
			s.value = valueBridge
			pointBridge.Reach()
		}
		s.timestamp = at
	}
}

// tail is the log's last record when the epoch is clean, counts within the log.
func (x *epochRecovery) tail() *wire.TailRecord {
	for i := len(x.slots) - 1; i >= 0; i-- {
		if s := &x.slots[i]; s.value == valueRecord {
			return &wire.TailRecord{Log: uint64(x.l.args.Log), Lsn: s.record.Lsn, TimestampMs: s.record.TimestampMs,
				Count: x.l.base() + s.record.CountBefore + uint64(s.record.Count)}
		}
	}
	if x.good == 0 {
		if before := x.l.record.GetTail(); before != nil {
			return before
		}
		return &wire.TailRecord{Log: uint64(x.l.args.Log)}
	}
	// Everything up to the LNG was a record. If the last of them is gone (trimmed, or
	// lost with more shards than may be) so is how many payloads it had.
	known := logs.LSN(x.tailGood.GetLsn()).ESN()
	return &wire.TailRecord{Log: uint64(x.l.args.Log), Lsn: uint64(logs.MakeLSN(x.epoch, x.good)), TimestampMs: x.tailGood.GetTimestampMs(),
		Count: x.l.base() + x.tailGood.GetCount() + uint64(x.good-known)*payloadsAssumed}
}

// payloadsAssumed is how many a record has that nobody can read any more: more
// than is likely, since offsets may leave out but not repeat.
const payloadsAssumed = 1 << 16
