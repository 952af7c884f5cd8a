package recovery

import (
	"slices"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/placement"
	"github.com/braiddb/braid/internal/wire"
)

// Storing decisions. The mutation set are the digested shards that take copies;
// a plan says on whom of them each slot is to be, and is made anew when one of
// them fails. Whoever is not in the set will purge.

// makePlan chooses the mutation set and looks at every slot again.
func (x *epochRecovery) makePlan() {
	if x.plan++; x.plan > 1 {
		x.restarts++
	}
	for i := range x.members {
		m := &x.members[i]
		m.in = x.usable(i) && !m.dropped && x.writable(i)
		m.cleaned, m.cleaning = false, false
	}
	x.short = !x.canReplicate(x.inSet) && !(x.fewer && (!x.set().empty() || x.nobody()))
	if x.short {
		pointShort.Reach()
		x.shortAt = x.l.now + x.l.cfg.Retry
		return
	}
	x.phase = phaseMutating
	x.first = 0
	for i := range x.slots {
		x.planSlot(&x.slots[i])
	}
}

// nobody: every shard of the nodeset is lost, and with them whatever there was.
func (x *epochRecovery) nobody() bool {
	return !slices.ContainsFunc(x.members, func(m member) bool { return m.digested && !m.partial })
}

func (x *epochRecovery) inSet(i int) bool { return x.members[i].in }

func (x *epochRecovery) set() (b shardBits) {
	for i := range x.members {
		if x.members[i].in {
			b = b.with(i)
		}
	}
	return b
}

// readmit gives shards that failed another chance.
func (x *epochRecovery) readmit() {
	for i := range x.members {
		x.members[i].dropped, x.members[i].failures = false, 0
	}
}

// planSlot decides on whom a slot is to be: on all of the set that have a copy,
// because a copy that says something else must be replaced and one that says the
// same must name the copyset; and on others until it is a copyset.
func (x *epochRecovery) planSlot(s *slot) {
	set := x.set()
	have := s.wrote
	for _, c := range s.copies {
		have = have.with(c.member)
	}
	for _, d := range x.damaged {
		if d.esn == s.esn {
			have = have.with(d.member)
		}
	}
	have = have.and(set)
	switch {
	case s.value == valueNone:
		s.stored = true
		return
	case s.stored && s.target.without(set).empty() && have.without(s.target).empty():
		return // it lies well
	case x.plan == 1 && x.whole(s):
		pointLiesWell.Reach()
		s.stored = true
		return
	}
	s.plan, s.stored = x.plan, false
	s.target, s.done, s.sent = x.extend(have), shardBits{}, shardBits{}
}

// planLate decides on whom those slots are to be that a digest showed after the plan
// was made: nothing of them would ever be stored, and the epoch wait for it.
func (x *epochRecovery) planLate() {
	for i := range x.slots {
		if s := &x.slots[i]; !s.stored && s.target.empty() {
			pointLate.Reach()
			x.planSlot(s)
		}
	}
}

// whole says whether a slot needs no store: everybody was heard, and all of the
// copyset that the winning copy names have it, and nobody anything else.
func (x *epochRecovery) whole(s *slot) bool {
	if x.heard.Count(placement.ShardHeard) != len(x.members) || s.record == nil || s.value != valueOf(s.record.Flags) ||
		len(s.record.Copyset) == 0 || s.kept {
		return false
	}
	var named shardBits
	for _, id := range s.record.Copyset {
		i := x.place(logs.ShardID(id))
		if i < 0 {
			return false
		}
		named = named.with(i)
	}
	if !x.canReplicate(named.has) || !named.without(x.set()).empty() {
		return false
	}
	for _, d := range x.damaged {
		if d.esn == s.esn {
			return false
		}
	}
	for _, c := range s.copies {
		if c.value != s.value {
			return false
		}
		if c.precedence == s.precedence {
			if !sameShards(c.copyset, s.record.Copyset) {
				pointDisagree.Reach()
				return false // of a plan that the recovery before gave up
			}
			named = named.without(shardBits{}.with(c.member))
		}
	}
	if named.empty() {
		for _, id := range s.record.Copyset {
			s.target = s.target.with(x.place(logs.ShardID(id)))
		}
		return true
	}
	return false
}

// sameShards says whether two copysets name the same shards.
func sameShards(a, b []uint64) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(id uint64) bool { return !slices.Contains(b, id) })
}

// extend adds shards of the set, by dice, until they are a copyset, none that
// does not bring it nearer. Where no copyset is possible all of the set are taken.
func (x *epochRecovery) extend(b shardBits) shardBits {
	if !x.canReplicate(x.inSet) {
		return x.set()
	}
	for {
		missing := x.heard.Missing(b.has)
		if missing == 0 {
			return b
		}
		var useful []int
		for i := range x.members {
			if x.members[i].in && !b.has(i) && x.heard.Missing(b.with(i).has) < missing {
				useful = append(useful, i)
			}
		}
		b = b.with(useful[x.l.dice.IntN(len(useful))])
	}
}

// store sends what is to be stored, a bounded number of slots at a time, and says
// whether all of it is.
func (x *epochRecovery) store() bool {
	for x.first < len(x.slots) && x.slots[x.first].stored {
		x.first++
	}
	window := x.l.cfg.MutationsMax
	for at := x.first; at < len(x.slots) && window > 0; at++ {
		s := &x.slots[at]
		if s.stored {
			continue
		}
		window--
		for i := range x.members {
			m := &x.members[i]
			if s.target.has(i) && !s.done.has(i) && !s.sent.has(i) && x.l.due(m.storeAt) {
				s.sent = s.sent.with(i)
				x.l.call(call{kind: callStore, shard: x.nodeset[i].Shard, epoch: x.epoch, esn: s.esn, plan: s.plan, store: x.message(s, i)})
			}
		}
	}
	return x.first == len(x.slots)
}

// message is the store of a slot for one shard: an amendment where it has the
// payload, which is left to it.
func (x *epochRecovery) message(s *slot, i int) *wire.Store {
	r := &wire.LogRecord{Log: uint64(x.l.args.Log), Lsn: uint64(logs.MakeLSN(x.epoch, s.esn)), TimestampMs: s.timestamp,
		LastKnownGood: uint32(x.good), Wave: uint32(x.l.args.UpTo), Flags: logs.WithPlan(logs.FlagWrittenByRecovery, s.plan)}
	for j, shard := range x.nodeset {
		if s.target.has(j) {
			r.Copyset = append(r.Copyset, uint64(shard.Shard))
		}
	}
	st := &wire.Store{Record: r, SealEpoch: uint32(x.l.args.UpTo)}
	switch s.value {
	case valueHole:
		r.Flags |= logs.FlagHole
		return st
	case valueBridge:
		r.Flags |= logs.FlagHole | logs.FlagBridge
		return st
	}
	o := s.record
	r.TimestampMs, r.Flags = o.TimestampMs, logs.WithPlan(r.Flags|o.Flags&^logs.FlagSticky, s.plan)
	if s.kept {
		r.Flags |= logs.FlagKept
	}
	r.CountBefore, r.Count, r.Producer, r.Sequence = o.CountBefore, o.Count, o.Producer, o.Sequence
	r.FindKey, r.FilterKey, r.Checksum, r.Origins = o.FindKey, o.FilterKey, o.Checksum, o.Origins
	if x.hasPayload(s, i) && !s.whole.has(i) {
		st.Amend = true
	} else {
		r.Payload = o.Payload
	}
	return st
}

// hasPayload says whether a shard had the payload before this recovery. What this
// one gave it whole it gets whole again: its copies are of one precedence, among
// which a whole one comes before an amendment, and would go on naming the copyset
// of a plan that was given up.
func (x *epochRecovery) hasPayload(s *slot, i int) bool {
	for _, c := range s.copies {
		if c.member == i {
			return c.value == valueRecord
		}
	}
	return false
}

func (x *epochRecovery) onStored(i int, ev *event) {
	s := x.slotOf(ev.of.esn)
	if s == nil {
		return
	}
	now := ev.of.plan == s.plan && !s.stored
	switch {
	case ev.err == nil && ev.stored.Status == statusOK:
		s.wrote = s.wrote.with(i)
		if now {
			s.done, s.sent = s.done.with(i), s.sent.without(shardBits{}.with(i))
			x.members[i].failures = 0
			s.stored = x.l.rules.stored(s.target, s.done)
		}
	case ev.err == nil && ev.stored.Status == statusPreempted:
		pointPreemptedStore.Reach()
		x.l.preempted(ev.stored.SealEpoch, ev.stored.SealedBy)
	case now:
		s.sent = s.sent.without(shardBits{}.with(i))
		if ev.err == nil {
			s.whole = s.whole.with(i)
		}
		if m := &x.members[i]; x.l.now >= m.storeAt { // one failure, of however many stores
			m.storeAt = x.l.now + x.l.cfg.StoreRetry
			x.failed(i)
		}
	}
}

func (x *epochRecovery) slotOf(n logs.ESN) *slot {
	if at, ok := x.slotIndex(n); ok {
		return &x.slots[at]
	}
	return nil
}

// failed counts failures of a shard of the mutation set. After some of them, or
// two if it is believed dead, the rest goes on without it.
func (x *epochRecovery) failed(i int) {
	m := &x.members[i]
	m.failures++
	if m.failures < x.l.cfg.Tries && (m.failures < 2 || x.l.view.Alive(x.nodeset[i].Shard)) {
		return
	}
	m.dropped = true
	pointReplaced.Reach()
	x.makePlan()
}
