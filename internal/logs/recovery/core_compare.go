package recovery

import (
	"cmp"
	"slices"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/placement"
	"github.com/braiddb/braid/internal/wire"
)

type compareState uint8

const (
	compareReading   compareState = iota // the epoch store's record
	compareFencing                       // what is in doubt here
	comparePurging                       // until epochs that are clean are so here
	compareHistory                       // who else was of the nodesets
	compareDecisions                     // what recovery decided of clean epochs
	compareAsking                        // the others, what they have that names this shard
	compareSure
	compareOver
)

func (s compareState) String() string {
	return [...]string{"READING", "FENCING", "PURGING", "HISTORY", "DECISIONS", "ASKING", "SURE", "OVER"}[s]
}

// comparison ends the doubt of a shard that may have lost copies of a log, or of
// its metadata log, at the end of its journal (D1-D3):
//
//	epoch store ─► fence ─► purge ─► who else? ─► seal them, read what they have
//	                                              that names this shard ─► sure
//
// What it lacks it takes from them. It is over when every copyset that this shard
// may have been of has another member that answered and is not in doubt itself;
// or when nobody is left who has not answered, for then nobody knows more, and
// what may be missing was torn before it was acknowledged, or is lost. Lost it is in
// any case where recovery decided on it: of that there was a copy (D6).
type comparison struct {
	series
	rules  *rules
	log    logs.LogID // a metadata log's too
	own    logs.ShardID
	self   catalog.NodeID
	sealed logs.Epoch // up to where it is sealed here
	state  compareState
	fenced bool
	weak   bool       // it ended because nobody knows more: all who had something may have lost it
	left   logs.Epoch // up to it the log stays in doubt, 0: not at all (D5)

	record   *wire.EpochRecord
	since    uint64     // the newest doubt before the record was asked for
	doubt    uint64     // that it is for, and no later one (D7)
	from, to logs.LSN   // in doubt
	trim     logs.LSN   // of what is in doubt up to it nothing is lost that readers miss
	clean    logs.Epoch // here
	upTo     logs.Epoch // compared are epochs up to it
	history  history
	decided  map[logs.Epoch]*wire.EpochRecovery // known here, of epochs in [from, next); see note
	next     logs.Epoch                         // of which it is to be asked here
	shown    spans                              // of clean epochs, by any peer
	peers    []comparePeer
	round    uint32 // answers to questions of an earlier one are void
}

type comparePeer struct {
	source
	sealed   bool                               // nothing is added to these epochs there any more
	fence    logs.Epoch                         // asked for
	clean    logs.Epoch                         // what it has of epochs up to it was decided on
	took     map[logs.Epoch]*wire.EpochRecovery // what it knows to be decided of those that are compared, above that one at least
	told     logs.Epoch                         // up to it it was asked
	at       logs.LSN                           // compared below it
	next     logs.LSN                           // then from here, 0: that was all
	doubtful bool                               // it may have lost copies itself
}

func newComparison(cfg *Config, rules *rules, view View, self catalog.NodeID, own logs.ShardID, log logs.LogID, sealed logs.Epoch) *comparison {
	return &comparison{series: series{world: world{cfg: cfg, view: view}}, rules: rules, self: self, own: own, log: log, sealed: sealed}
}

func (c *comparison) step(now time.Duration, ev event) effects {
	c.now, c.fx = now, &effects{}
	if c.state == compareOver {
		return effects{}
	}
	switch ev.kind {
	case evView:
		c.view = ev.view
	case evAnswer:
		c.answer(&ev)
	}
	for before := compareOver; before != c.state; {
		before = c.state
		c.advance()
	}
	fx := *c.fx
	c.fx = nil
	fx.done, fx.fenced = c.state == compareOver, c.fenced
	return fx
}

func (c *comparison) advance() {
	switch c.state {
	case compareReading:
		c.once(call{kind: callRead})
	case compareFencing:
		c.once(call{kind: callFence, epoch: c.nextEpoch(), since: c.since})
	case comparePurging:
		if c.clean >= logs.Epoch(c.record.GetLastCleanEpoch()) {
			c.enter(compareHistory)
			return
		}
		c.once(call{kind: callPurge, epoch: c.clean, to: logs.MakeLSN(logs.Epoch(c.record.GetLastCleanEpoch())+1, 0)})
	case compareHistory:
		if c.history.reaches(&c.world, c.from.Epoch()) {
			c.addPeers(c.history.shards(c.from.Epoch(), c.upTo))
			c.enter(compareDecisions)
		}
	case compareDecisions:
		if last := c.lastClean(); c.next <= last {
			c.once(call{kind: callDecisions, shard: c.own, epoch: c.next, decisions: &wire.EpochRecoveryRequest{Log: uint64(c.log),
				From: uint32(c.next), To: uint32(min(last, c.next+purgePage-1)), Shard: uint64(c.own)}})
			return
		}
		c.enter(compareAsking)
	case compareAsking:
		c.ask()
		if c.enough() {
			c.enter(compareSure)
		}
	case compareSure:
		found := logs.Compared{Doubt: c.doubt, Clean: c.clean, UpTo: c.to, Weak: c.weak}
		if c.weak {
			found.From, found.To = c.unshown()
		}
		c.once(call{kind: callSure, found: found})
	}
}

func (c *comparison) enter(s compareState) { c.state, c.asked, c.askedAt = s, false, 0 }

func (c *comparison) nextEpoch() logs.Epoch { return logs.Epoch(c.record.GetMetadata().GetEpoch()) }

func (c *comparison) answer(ev *event) {
	switch ev.of.kind {
	case callMetadata:
		c.history.answer(&c.world, ev)
		return
	case callSeal, callRecords, callRepair:
		c.onPeer(ev)
		return
	case callDecisions:
		if ev.of.shard != c.own {
			c.onPeer(ev)
			return
		}
	}
	c.asked = false
	if ev.err != nil && (ev.of.kind == callSure || ev.of.kind == callFence) {
		c.restart()
		return
	}
	if ev.err != nil || ev.of.kind == callDecisions && !told(ev.decisions) {
		c.askedAt = c.now + c.cfg.Retry
		return
	}
	switch {
	case ev.of.kind == callRead && c.state == compareReading:
		c.record, c.since = ev.record, ev.doubt.Number
		c.enter(compareFencing)
	case ev.of.kind == callFence && c.state == compareFencing && c.log.IsMetadata():
		c.beginMetadata(ev.doubt)
	case ev.of.kind == callFence && (c.state == compareFencing || c.state == comparePurging): // a purge puts more in doubt
		c.onFence(ev.doubt)
	case ev.of.kind == callPurge && c.state == comparePurging:
		c.asked, c.askedAt = false, c.now+c.cfg.Retry // it is looked again then
		c.call(call{kind: callFence, epoch: c.nextEpoch(), since: c.since})
	case ev.of.kind == callDecisions && c.state == compareDecisions:
		note(&c.decided, ev.decisions.Epochs)
		c.next = min(c.next+purgePage, c.clean+1)
	case ev.of.kind == callSure && c.state == compareSure:
		c.state = compareOver
	}
}

// beginMetadata goes on with a metadata log: all of it is in doubt, all shards that
// store any may have it, and whatever is found was decided in the epoch store.
func (c *comparison) beginMetadata(d logs.Doubt) {
	all := c.view.Shards()
	if !slices.Contains(all, c.own) { // it is not known yet who there is
		c.askedAt = c.now + c.cfg.Retry
		return
	}
	c.doubt, c.to = d.Number, logs.LSNMax
	for _, s := range all {
		c.addPeers([]source{{id: s}})
	}
	c.enter(compareAsking)
}

// onFence learns what is in doubt, and what of it can be compared: epochs of
// which nobody takes copies any more. The one that reigns is not of them (D2).
func (c *comparison) onFence(d logs.Doubt) {
	c.fenced, c.doubt, c.clean, c.trim = true, d.Number, d.Clean, d.Trim
	if c.left = 0; d.To > 0 && c.clean < d.To.Epoch() {
		c.left = d.To.Epoch()
	}
	c.from, c.upTo = max(d.From, logs.MakeLSN(logs.EpochMin, 0)), c.sealed
	if next := c.nextEpoch(); next >= 2 {
		c.upTo = max(c.upTo, next-2)
	}
	c.to = min(d.To, logs.MakeLSN(c.upTo, logs.ESNMax))
	if c.from > c.to {
		if c.state = compareOver; d.To > 0 && c.clean < min(logs.Epoch(c.record.GetLastCleanEpoch()), d.To.Epoch()) {
			// All of it was compared, but its CLEAN may have been lost: then it is once more.
			c.call(call{kind: callPurge, epoch: c.clean, to: logs.MakeLSN(logs.Epoch(c.record.GetLastCleanEpoch())+1, 0)})
		}
		return
	}
	c.upTo, c.next = c.to.Epoch(), c.from.Epoch()
	if c.state == compareFencing {
		c.history.learn([]*wire.EpochMetadata{c.record.Metadata})
		c.enter(comparePurging)
	}
}

func (c *comparison) addPeers(all []source) {
	for _, s := range all {
		if s.id != c.own {
			c.peers = append(c.peers, comparePeer{source: source{id: s.id}, at: c.from})
		}
	}
}

// ask has every peer sealed, has it say which decisions it knows that it should have
// heard of, and then reads what it has, a page at a time.
func (c *comparison) ask() {
	for i := range c.peers {
		p := &c.peers[i]
		switch {
		case !c.mayAsk(&p.source):
		case !p.sealed && !c.log.IsMetadata():
			p.asked, p.fence = true, max(p.fence, c.upTo)
			c.call(call{kind: callSeal, shard: p.id, plan: c.round, seal: &wire.SealRequest{Log: uint64(c.log), Epoch: uint32(p.fence),
				LastCleanEpoch: uint32(p.fence), SealedBy: uint64(c.self), Shard: uint64(p.id)}})
		case c.untold(p) != 0:
			p.asked = true
			from := c.untold(p)
			c.call(call{kind: callDecisions, shard: p.id, plan: c.round, epoch: from, decisions: &wire.EpochRecoveryRequest{Log: uint64(c.log),
				From: uint32(from), To: uint32(min(c.lastClean(), from+purgePage-1)), Shard: uint64(p.id)}})
		case c.unjudged(p): // until somebody tells
		default:
			p.asked = true
			c.call(call{kind: callRecords, shard: p.id, plan: c.round, records: &wire.RecordsRequest{Log: uint64(c.log), From: uint64(p.at), To: uint64(c.to),
				Shard: uint64(p.id), Payloads: true}})
		}
	}
}

// onPeer takes what a peer said, and what became of what it had.
func (c *comparison) onPeer(ev *event) {
	at := slices.IndexFunc(c.peers, func(p comparePeer) bool { return p.id == ev.of.shard })
	if at < 0 || c.state != compareAsking || ev.of.plan != c.round {
		return
	}
	p := &c.peers[at]
	p.asked = false
	switch {
	case ev.err != nil && ev.of.kind == callRepair:
		c.restart()
		return
	case ev.err != nil:
	case ev.of.kind == callSeal && (ev.seal.Status == statusOK || ev.seal.Status == statusPartial):
		p.sealed, p.clean = true, logs.Epoch(ev.seal.LastCleanEpoch)
		return
	case ev.of.kind == callSeal && ev.seal.Status == statusPreempted && logs.Epoch(ev.seal.SealEpoch) > p.fence:
		p.fence = logs.Epoch(ev.seal.SealEpoch) // a later seal closes these epochs as well: asked for that one, it tells
		return
	case ev.of.kind == callSeal && ev.seal.Status == statusNotFound:
		p.answered = true // it never had anything of the log
		return
	case ev.of.kind == callDecisions && told(ev.decisions):
		note(&p.took, ev.decisions.Epochs)
		p.told = min(c.lastClean(), ev.of.epoch+purgePage-1)
		return
	case ev.of.kind == callRecords && (ev.records.Status == statusOK || ev.records.Status == statusNotFound):
		p.next = logs.LSN(ev.records.Next)
		p.doubtful = p.doubtful || ev.records.Doubt || len(ev.records.Damaged) > 0
		for _, r := range ev.records.Records {
			if lsn := logs.LSN(r.Lsn); lsn.Epoch() <= c.clean {
				c.shown.add(lsn, spansMost)
			}
		}
		if mine := c.mine(p, ev.records.Records); len(mine) > 0 {
			p.asked = true
			c.call(call{kind: callRepair, shard: p.id, plan: c.round, epoch: c.clean, repair: mine})
			return
		}
		c.turn(p)
		return
	case ev.of.kind == callRepair:
		c.turn(p)
		return
	}
	p.retryAt = c.now + c.cfg.Retry
}

// restart begins anew, after a while: recovery made epochs clean here meanwhile, of
// which others may have shown what was not decided, or the shard has come to another doubt.
// Who stored the epochs that began meanwhile is not known: what the epoch store says next
// would not follow without a gap on what it said (history.reaches).
func (c *comparison) restart() {
	c.round++
	c.history = history{round: c.round}
	c.peers, c.decided, c.shown = nil, nil, nil
	c.enter(compareReading)
	c.askedAt = c.now + c.cfg.Retry
}

// turn goes to the next page of a peer.
func (c *comparison) turn(p *comparePeer) {
	p.answered = p.next <= p.at
	p.at = p.next
}

// mine picks the copies that name this shard, and that are still what they were.
// Where recovery has decided, of each LSN only what the winner says counts. Where it has
// not, any version that names this shard says what was acknowledged here. Whether it is the
// winner that names it is the same: a recovery that somebody began may have moved a record
// to others, and never brought it there.
func (c *comparison) mine(p *comparePeer, rs []*wire.LogRecord) (out []*wire.LogRecord) {
	for i := 0; i < len(rs); {
		n := i + 1
		for n < len(rs) && rs[n].Lsn == rs[i].Lsn {
			n++
		}
		versions := slices.SortedFunc(slices.Values(rs[i:n]), func(a, b *wire.LogRecord) int { return cmp.Compare(logs.Precedence(b), logs.Precedence(a)) })
		if !c.log.IsMetadata() && logs.LSN(rs[i].Lsn).Epoch() <= c.clean {
			first := versions[0]
			versions = slices.DeleteFunc(versions, func(r *wire.LogRecord) bool {
				return r.Checksum != first.Checksum || valueOf(r.Flags) != valueOf(first.Flags)
			})
		}
		for _, r := range versions {
			if slices.Contains(r.Copyset, uint64(c.own)) && c.stands(p, r) {
				if r = whole(r, rs[i:n]); r != nil {
					out = append(out, r)
				}
				break
			}
		}
		i = n
	}
	return out
}

// whole gives a record its payload, from any version that has it; nil: none has.
func whole(r *wire.LogRecord, versions []*wire.LogRecord) *wire.LogRecord {
	if valueOf(r.Flags) != valueRecord || logs.Checksum(r.Payload) == r.Checksum {
		return r
	}
	for _, v := range versions {
		if valueOf(v.Flags) == valueRecord && logs.Checksum(v.Payload) == r.Checksum {
			r.Payload = v.Payload
			return r
		}
	}
	return nil
}

// enough says whether nobody needs to be asked any more (D1, D3).
func (c *comparison) enough() bool {
	silent, unsure := 0, []logs.ShardID{c.own}
	for i := range c.peers {
		p := &c.peers[i]
		if c.awaits(&p.source) {
			silent++
		}
		if !p.answered || p.doubtful {
			unsure = append(unsure, p.id)
		}
	}
	alone := c.copysetIn(unsure)
	if !c.rules.compared(silent, alone) {
		return false
	}
	c.weak = alone
	if c.log.IsMetadata() {
		c.weak = len(unsure) >= min(len(c.view.Shards()), max(2, min(3, c.metadataCopies()+1)))
	}
	return true
}

// unshown are the first and the last LSN in doubt on which recovery decided, and of
// which no peer showed a copy; 0: there is none.
func (c *comparison) unshown() (first, last logs.LSN) {
	for _, d := range c.decided {
		e := logs.Epoch(d.Epoch)
		from, to := c.shown.gaps(max(c.from, c.trim+1, logs.MakeLSN(e, 1)), min(c.to, logs.MakeLSN(e, logs.ESN(d.Last))))
		if from > 0 && (first == 0 || from < first) {
			first = from
		}
		last = max(last, to)
	}
	return first, last
}

// spans are stretches of LSNs, ascending, with something between any two.
type spans []span

type span struct{ from, to logs.LSN }

// find is the first span that ends at n, next to it, or behind it.
func (s spans) find(n logs.LSN) int {
	i, _ := slices.BinarySearchFunc(s, n, func(x span, n logs.LSN) int { return cmp.Compare(x.to, n-1) })
	return i
}

// spansMost bounds spans: what is above the last of so many counts as not shown. It is
// then said of more that it may be lost than need be.
const spansMost = 4096

// add notes an LSN; most is how many spans there may be at the most.
func (s *spans) add(n logs.LSN, most int) {
	i := s.find(n)
	switch all := *s; {
	case i == len(all) || n+1 < all[i].from:
		*s = slices.Insert(all, i, span{n, n})
		*s = (*s)[:min(len(*s), most)]
	case n < all[i].from:
		all[i].from = n
	case n == all[i].to+1:
		all[i].to = n
		if i+1 < len(all) && all[i+1].from == n+1 {
			all[i].to = all[i+1].to
			*s = slices.Delete(all, i+1, i+2)
		}
	}
}

// gaps are the first and the last LSN in [from, to] that is in no span; 0: none.
func (s spans) gaps(from, to logs.LSN) (first, last logs.LSN) {
	for i := s.find(from); i < len(s) && s[i].from <= from; i++ {
		from = max(from, s[i].to+1)
	}
	for i := len(s) - 1; i >= 0 && s[i].to >= to && to >= from; i-- {
		if s[i].from <= to {
			to = s[i].from - 1
		}
	}
	if from > to {
		return 0, 0
	}
	return from, to
}

// copysetIn says whether some shards, of which this is one, may have been all that
// had a record.
func (c *comparison) copysetIn(shards []logs.ShardID) bool {
	if c.log.IsMetadata() {
		return len(shards) >= c.metadataCopies()
	}
	first := min(max(c.from, c.trim+1).Epoch(), c.upTo) // nobody is waited for who had but what is trimmed
	for i, m := range c.history.known {
		if logs.Epoch(m.EffectiveSince) > c.upTo || i+1 < len(c.history.known) && logs.Epoch(c.history.known[i+1].EffectiveSince) <= first ||
			!slices.Contains(m.Nodeset, uint64(c.own)) {
			continue
		}
		set := placement.NewShardSet(m.Replication, nodesetOf(m))
		for _, s := range shards {
			set.Set(s, placement.ShardHeard)
		}
		if set.CanReplicate(placement.ShardHeard) {
			return true
		}
	}
	return false
}

// metadataCopies is how many copies, at least, a record of the metadata log has: as
// many as one of the log. There is one more only where it was written with nodes for it.
func (c *comparison) metadataCopies() int {
	m := c.record.GetMetadata()
	if m == nil {
		return 2
	}
	return min(len(m.Nodeset), placement.Copies(m.Replication))
}

// nodesetOf is the nodeset of a metadata record.
func nodesetOf(m *wire.EpochMetadata) []placement.LogShard {
	var out []placement.LogShard
	for i, s := range m.Nodeset {
		shard := placement.LogShard{Shard: logs.ShardID(s)}
		if i < len(m.Locations) {
			shard.Location = m.Locations[i]
		}
		out = append(out, shard)
	}
	return out
}
