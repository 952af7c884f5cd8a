package recovery

import (
	"cmp"
	"slices"
	"time"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/placement"
	"github.com/braiddb/braid/internal/wire"
)

type phase uint8

const (
	phaseSealing   phase = iota // until an f-majority is sealed
	phaseDigesting              // until one is digested
	phaseMutating               // until every decision is on a copyset
	phaseCleaning               // until all of them know
	phaseClean
)

func (p phase) String() string {
	return [...]string{"SEALING", "DIGESTING", "MUTATING", "CLEANING", "CLEAN"}[p]
}

// epochRecovery is one epoch's.
type epochRecovery struct {
	l       *logRecovery
	epoch   logs.Epoch
	meta    *wire.EpochMetadata
	nodeset []placement.LogShard
	members []member // same order
	heard   *placement.ShardSet
	phase   phase
	graceAt time.Duration // an f-majority that is not everybody is enough from then on

	// slots are ascending. Until the decision: what digests showed; from then on
	// also what is on nobody. Invariant: once decided, a slot's value stays (C2).
	slots     []slot
	damaged   []damage
	decided   bool
	known     logs.ESN // the highest LNG that was told; see lng
	good      logs.ESN // LNG: nothing up to it is touched
	last      logs.ESN // the highest that is decided
	authority placement.FMajority
	tailGood  *wire.TailRecord // the last record at or below good, counts within the epoch; nil: not known

	plan     uint32
	first    int  // slots below it are stored
	fewer    bool // no copyset is possible any more: all there are have to do
	short    bool // the mutation set holds no copyset now
	shortAt  time.Duration
	restarts int
}

// member is a shard of the epoch's nodeset.
type member struct {
	source   int // its place in logRecovery.sources
	asked    bool
	began    logs.ESN // the digest's first LSN; 0: none was asked for
	from     logs.ESN // it goes on from there
	digested bool
	partial  bool // it cannot read all that it has: what it did not show proves nothing
	retryAt  time.Duration
	misses   int // of digests

	in       bool // of the mutation set
	dropped  bool // it was, and failed
	failures int
	storeAt  time.Duration
	cleaning bool
	cleaned  bool
}

type damage struct {
	esn    logs.ESN
	member int
}

func newEpochRecovery(l *logRecovery, e logs.Epoch) *epochRecovery {
	m := l.history.of(e)
	x := &epochRecovery{l: l, epoch: e, meta: m}
	for i, s := range m.Nodeset {
		shard := placement.LogShard{Shard: logs.ShardID(s)}
		if i < len(m.Locations) {
			shard.Location = m.Locations[i]
		}
		x.nodeset = append(x.nodeset, shard)
		at, _ := slices.BinarySearchFunc(l.sources, shard.Shard, func(s source, id logs.ShardID) int { return cmp.Compare(s.id, id) })
		x.members = append(x.members, member{source: at})
	}
	x.heard = placement.NewShardSet(m.Replication, x.nodeset)
	return x
}

func (x *epochRecovery) source(i int) *source { return &x.l.sources[x.members[i].source] }

func (x *epochRecovery) place(id logs.ShardID) int {
	return slices.IndexFunc(x.nodeset, func(s placement.LogShard) bool { return s.Shard == id })
}

// judge counts answers: who has not answered may yet, unless all hope is gone. A
// digest of a shard that cannot read all it has shows what it shows, but that
// something is not in it proves nothing.
func (x *epochRecovery) judge(answered func(i int) bool) placement.FMajority {
	for i := range x.members {
		state := x.l.view.Authority(x.nodeset[i].Shard)
		if state == placement.ShardUnheard && answered(i) {
			state = x.l.rules.heard(x.members[i].partial)
		}
		x.heard.Set(x.nodeset[i].Shard, state)
	}
	return x.l.rules.quorum(x.heard)
}

// canReplicate says whether a copyset fits among some members.
func (x *epochRecovery) canReplicate(among func(i int) bool) bool { return x.heard.Missing(among) == 0 }

func (x *epochRecovery) writable(i int) bool { return x.l.view.Writable(x.nodeset[i].Shard) }

func (x *epochRecovery) digested(i int) bool { return x.members[i].digested }

// usable says whether a shard has shown all that it has: where one cannot be read
// whole, what is stored there anew may not be readable either.
func (x *epochRecovery) usable(i int) bool { return x.members[i].digested && !x.members[i].partial }

// advance is the path of an epoch, read from the top.
func (x *epochRecovery) advance() {
	if x.phase == phaseSealing {
		sealed := x.judge(func(i int) bool { return x.source(i).answered })
		if sealed == placement.FMajorityNone {
			return
		}
		x.phase = phaseDigesting
	}
	if x.phase == phaseDigesting {
		x.askDigests()
		if !x.ready() {
			return
		}
		if !x.decide() {
			return
		}
		x.makePlan()
		x.phase = phaseMutating
	}
	for x.short { // the mutation set has become too small: newcomers are welcome, and nobody is told anything (C4)
		x.askDigests()
		if !x.l.due(x.shortAt) {
			return
		}
		x.readmit()
		if heard := x.judge(x.digested); heard != placement.FMajorityNone && heard != placement.FMajorityIncomplete { // nobody else will come
			x.fewer = !x.canReplicate(x.usable)
		}
		x.makePlan()
	}
	if x.phase == phaseMutating && x.store() {
		x.phase = phaseCleaning
	}
	if x.phase == phaseCleaning && x.sendCleans() {
		x.phase = phaseClean
	}
}

func (x *epochRecovery) answer(ev *event) {
	i := x.place(ev.of.shard)
	if i < 0 {
		return
	}
	switch ev.of.kind {
	case callDigest:
		x.onDigest(i, ev)
	case callStore:
		x.onStored(i, ev)
	case callClean:
		x.onClean(i, ev)
	}
}

// ---- digest

// lng is the highest last known good ESN that sealed shards told, or what was
// trimmed: below it nothing can be changed. It never falls (C8), though a trim that goes on
// into a later epoch no longer says how far it went in this one.
func (x *epochRecovery) lng() logs.ESN {
	x.known = max(x.known, x.lngNow())
	return x.known
}

func (x *epochRecovery) lngNow() logs.ESN {
	var lng logs.ESN
	for i := range x.members {
		s := x.source(i).seal
		if s == nil {
			continue
		}
		if t := x.tailOf(s); t != nil {
			lng = max(lng, logs.ESN(t.LastKnownGood))
		}
		if trim := logs.LSN(s.TrimPoint); trim.Epoch() == x.epoch {
			lng = max(lng, trim.ESN())
		} else if trim.Epoch() > x.epoch {
			lng = max(lng, x.maxSeen())
		}
	}
	return lng
}

func (x *epochRecovery) maxSeen() logs.ESN {
	var seen logs.ESN
	for i := range x.members {
		if s := x.source(i).seal; s != nil {
			if t := x.tailOf(s); t != nil {
				seen = max(seen, logs.ESN(t.MaxSeen))
			}
		}
	}
	return seen
}

func (x *epochRecovery) tailOf(s *wire.SealResponse) *wire.EpochTail {
	for _, t := range s.Epochs {
		if logs.Epoch(t.Epoch) == x.epoch {
			return t
		}
	}
	return nil
}

// knownTail is the last record at or below lng, as far as seals told.
func (x *epochRecovery) knownTail(lng logs.ESN) *wire.TailRecord {
	var best *wire.TailRecord
	for i := range x.members {
		s := x.source(i).seal
		if s == nil {
			continue
		}
		if t := x.tailOf(s).GetTail(); t != nil && logs.LSN(t.Lsn).Epoch() == x.epoch && logs.LSN(t.Lsn).ESN() <= lng &&
			(best == nil || t.Lsn > best.Lsn) {
			best = t
		}
	}
	return best
}

// askDigests asks everybody who is sealed for what they have above the LNG. The
// record at the LNG is asked for too unless a seal told of it: it may be the tail.
func (x *epochRecovery) askDigests() {
	lng := x.lng()
	if x.decided {
		lng = x.good
	}
	from := lng
	if t := x.knownTail(lng); lng < logs.ESNMax && (lng == 0 || t != nil && logs.LSN(t.Lsn).ESN() == lng) {
		from = lng + 1
	}
	for i := range x.members {
		m := &x.members[i]
		if m.digested || m.asked || !x.l.rules.digest(x.source(i).answered) || !x.l.due(m.retryAt) {
			continue
		}
		m.asked = true
		if m.from == 0 {
			m.from, m.began = from, from
		}
		x.l.call(call{kind: callDigest, shard: x.nodeset[i].Shard, epoch: x.epoch, digest: &wire.DigestRequest{
			Log: uint64(x.l.args.Log), Epoch: uint32(x.epoch), From: uint32(m.from), To: uint32(logs.ESNMax),
			SealEpoch: uint32(x.l.args.UpTo), BytesMax: x.l.cfg.DigestBytes, Shard: uint64(x.nodeset[i].Shard)}})
	}
}

func (x *epochRecovery) onDigest(i int, ev *event) {
	m := &x.members[i]
	if m.digested || !m.asked {
		return
	}
	m.asked = false
	switch {
	case ev.err == nil && ev.digest.Status == statusPreempted:
		pointPreemptedDigest.Reach()
		x.l.preempted(ev.digest.SealEpoch, 0)
		return
	case ev.err != nil || ev.digest.Status != statusOK && ev.digest.Status != statusPartial:
		m.retryAt = x.l.again(&m.misses)
		return
	}
	m.partial = m.partial || ev.digest.Status == statusPartial
	for _, r := range ev.digest.Records {
		if lsn := logs.LSN(r.Lsn); lsn.Epoch() == x.epoch && lsn.ESN() >= m.from {
			x.found(i, r)
		}
	}
	for _, d := range ev.digest.Damaged {
		x.damaged = append(x.damaged, damage{logs.ESN(d), i})
		x.foundAt(logs.ESN(d))
	}
	if x.phase == phaseMutating && !x.short {
		x.planLate()
	}
	if next := logs.ESN(ev.digest.Next); next > m.from {
		m.from = next
	} else {
		m.digested = true
		if x.short {
			x.shortAt = x.l.now
		}
	}
}

// deserted: all whose digest is missing are believed dead, and not worth a wait.
func (x *epochRecovery) deserted() bool {
	for i := range x.members {
		if !x.digested(i) && x.l.view.Alive(x.nodeset[i].Shard) {
			return false
		}
	}
	return true
}

// ready says whether the digest is good enough to decide by.
func (x *epochRecovery) ready() bool {
	x.authority = x.judge(x.digested)
	can := x.canReplicate(func(i int) bool { return x.usable(i) && x.writable(i) })
	switch x.authority {
	case placement.FMajorityNone:
		x.graceAt = 0
		return false
	case placement.FMajorityIncomplete:
		if x.graceAt == 0 {
			x.graceAt = x.l.now + x.l.cfg.Grace
		}
		return can && (x.deserted() || x.l.due(x.graceAt)) && !x.hidden()
	}
	// Nobody else will come. If they were too few for a copyset even if all of them
	// took copies, as many as there are have to do.
	x.fewer = !x.canReplicate(x.usable)
	if can || !x.fewer || x.nobody() {
		return can || x.fewer
	}
	for i := range x.members {
		if x.usable(i) && x.writable(i) {
			return true
		}
	}
	return false
}

// ---- clean

// sendCleans tells the mutation set what became of the epoch, and says whether
// all of it knows.
func (x *epochRecovery) sendCleans() bool {
	all := true
	for i := range x.members {
		m := &x.members[i]
		if !m.in || m.cleaned {
			continue
		}
		all = false
		if m.cleaning || !x.l.due(m.storeAt) {
			continue
		}
		m.cleaning = true
		x.l.call(call{kind: callClean, shard: x.nodeset[i].Shard, epoch: x.epoch, plan: x.plan, clean: x.cleanRequest(i)})
	}
	return all
}

func (x *epochRecovery) cleanRequest(i int) *wire.CleanRequest {
	tail := x.tail()
	r := &wire.CleanRequest{Log: uint64(x.l.args.Log), Epoch: uint32(x.epoch), SealEpoch: uint32(x.l.args.UpTo),
		LastKnownGood: uint32(x.good), Last: uint32(x.last), Tail: tail, CountBase: x.l.base(), Count: tail.Count - x.l.base(),
		SealedBy: uint64(x.l.self), Shard: uint64(x.nodeset[i].Shard)}
	for j := range x.members {
		if !x.members[j].in {
			r.Absent = append(r.Absent, uint64(x.nodeset[j].Shard))
		}
	}
	return r
}

func (x *epochRecovery) onClean(i int, ev *event) {
	m := &x.members[i]
	if ev.of.plan != x.plan || !m.cleaning {
		return
	}
	m.cleaning = false
	switch {
	case ev.err == nil && ev.clean.Status == statusOK:
		m.cleaned, m.failures = true, 0
	case ev.err == nil && ev.clean.Status == statusPreempted:
		x.l.preempted(ev.clean.SealEpoch, 0)
	case ev.err == nil && ev.clean.Status == statusAgain:
		pointShownAgain.Reach()
		x.forget(i)
	default:
		m.storeAt = x.l.now + x.l.cfg.Retry
		x.failed(i)
	}
}

// forget takes back what a shard has shown, which has come to another state since (C9). What
// is decided stays; the shard is of the mutation set again when it has shown all it has now,
// and until then the others go on, if they are enough.
func (x *epochRecovery) forget(i int) {
	m := &x.members[i]
	m.digested, m.from = false, 0
	m.retryAt = x.l.again(&m.misses)
	x.damaged = slices.DeleteFunc(x.damaged, func(d damage) bool { return d.member == i })
	one := shardBits{}.with(i)
	for n := range x.slots {
		s := &x.slots[n]
		s.copies = slices.DeleteFunc(s.copies, func(c copyAt) bool { return c.member == i })
		s.wrote, s.done, s.sent = s.wrote.without(one), s.done.without(one), s.sent.without(one)
		s.whole = s.whole.with(i) // what it shows may be of this recovery; see hasPayload
		s.stored = s.stored && !s.target.has(i)
	}
	x.fewer = false // it is judged anew with what it shows
	x.makePlan()
}
