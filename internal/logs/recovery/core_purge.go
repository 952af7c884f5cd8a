package recovery

import (
	"slices"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/placement"
	"github.com/braiddb/braid/internal/wire"
)

type purgeState uint8

const (
	purgeHistory  purgeState = iota // the metadata log is read
	purgeSealing                    // its own shard
	purgeAsking                     // others, what was decided of the next epoch
	purgeDeleting                   // what is above its LNG
	purgeMarking                    // the epoch as clean
	purgeOver
)

func (s purgeState) String() string {
	return [...]string{"HISTORY", "SEALING", "ASKING", "DELETING", "MARKING", "OVER"}[s]
}

// silent is how many shards have not answered what the purge asks now.
func (p *purge) silent() (n int) {
	switch p.state {
	case purgeHistory:
		for i := range p.history.readers {
			if !p.history.readers[i].answered {
				n++
			}
		}
	case purgeAsking:
		for i := range p.peers {
			if !p.peers[i].answered {
				n++
			}
		}
	}
	return n
}

// purge is what a shard does that missed the recovery of some epochs, before it
// serves releases of later ones (C6). Even copies that look good go: recovery
// stored what it decided elsewhere, as often as it must be, and what is here may
// be what it decided against.
//
//	seal the own shard ─► for each epoch: ask others what was decided ─►
//	delete (LNG, end of the epoch] ─► mark it clean ─► the next
//
// Epochs whose recovery it did take part in can lie among those it missed, because
// it was not always of the nodeset; they are only marked. Otherwise any shard's answer will do: CLEAN is sent only when all is decided and stored,
// and every recovery of an epoch decides the same. If an f-majority in order knows of no
// decision, the log was removed or trimmed since, or its data lost; then what was
// known here to be good stays, and if nothing was, all of the epoch goes.
type purge struct {
	series
	log     logs.LogID
	own     logs.ShardID
	self    catalog.NodeID
	state   purgeState
	epoch   logs.Epoch // the next to be made clean
	upTo    logs.Epoch
	history history
	peers   []purgePeer // itself first
	page    logs.Epoch  // peers are asked, and have answered, from here to pageTo
	pageTo  logs.Epoch
	fence   logs.Epoch         // what the own shard is sealed up to, at least upTo
	seal    *wire.SealResponse // its answer
	found   *wire.EpochRecovery
}

type purgePeer struct {
	source
	answer  *wire.EpochRecoveryResponse
	partial bool // it may have lost decisions: that it knows of none proves nothing
}

func newPurge(cfg *Config, view View, self catalog.NodeID, own logs.ShardID, log logs.LogID, clean, upTo logs.Epoch) *purge {
	return &purge{series: series{world: world{cfg: cfg, view: view}}, log: log, own: own, self: self, epoch: clean + 1, upTo: upTo}
}

func (p *purge) step(now time.Duration, ev event) effects {
	p.now, p.fx = now, &effects{}
	if p.state == purgeOver {
		return effects{}
	}
	switch ev.kind {
	case evView:
		p.view = ev.view
	case evAnswer:
		p.answer(&ev)
	}
	for before := purgeOver; before != p.state; {
		before = p.state
		p.advance()
	}
	fx := *p.fx
	p.fx = nil
	fx.done = p.state == purgeOver
	return fx
}

func (p *purge) advance() {
	switch {
	case p.state == purgeOver:
	case p.epoch > p.upTo:
		p.state = purgeOver
	case p.state == purgeHistory:
		if p.history.reaches(&p.world, p.epoch) {
			p.peers = []purgePeer{{source: source{id: p.own}}}
			for _, s := range p.history.shards(p.epoch, p.upTo) {
				if s.id != p.own {
					p.peers = append(p.peers, purgePeer{source: s})
				}
			}
			p.state = purgeSealing
		}
	case p.state == purgeSealing:
		p.fence = max(p.fence, p.upTo)
		p.once(call{kind: callSeal, shard: p.own, seal: &wire.SealRequest{Log: uint64(p.log), Epoch: uint32(p.fence),
			LastCleanEpoch: uint32(p.epoch - 1), SealedBy: uint64(p.self), Shard: uint64(p.own)}})
	case p.state == purgeAsking:
		p.ask()
	case p.state == purgeDeleting:
		p.delete()
	case p.state == purgeMarking:
		p.once(call{kind: callMark, epoch: p.epoch, mark: p.found})
	}
}

func (p *purge) enter(s purgeState) { p.state, p.asked, p.askedAt = s, false, 0 }

func (p *purge) answer(ev *event) {
	switch ev.of.kind {
	case callMetadata:
		p.history.answer(&p.world, ev)
		return
	case callDecisions:
		p.onDecisions(ev)
		return
	}
	p.asked = false
	switch {
	case ev.of.kind == callSeal && p.state == purgeSealing && ev.err == nil && ev.seal.Status == statusPreempted:
		// A later seal stands and closes these epochs as well: asked for that one, the
		// shard says what it has.
		pointLaterSeal.Reach()
		if p.fence >= logs.Epoch(ev.seal.SealEpoch) {
			p.askedAt = p.now + p.cfg.Retry
		}
		p.fence = max(p.fence, logs.Epoch(ev.seal.SealEpoch))
	case ev.of.kind == callSeal && p.state == purgeSealing && ev.err == nil && (ev.seal.Status == statusOK || ev.seal.Status == statusPartial):
		p.seal = ev.seal
		p.enter(purgeAsking)
	case ev.err != nil || ev.of.kind == callSeal:
		p.askedAt = p.now + p.cfg.Retry
	case ev.of.kind == callDelete && p.state == purgeDeleting:
		p.enter(purgeMarking)
	case ev.of.kind == callMark && p.state == purgeMarking:
		p.epoch, p.found = p.epoch+1, nil
		p.enter(purgeAsking)
	}
}

// purgePage is how many epochs are asked about at once.
const purgePage = 256

// ask looks for the decision on the epoch in the answers, and asks who has not
// given one.
func (p *purge) ask() {
	if p.epoch > p.pageTo {
		p.page, p.pageTo = p.epoch, min(p.upTo, p.epoch+purgePage-1)
		for i := range p.peers {
			p.peers[i] = purgePeer{source: source{id: p.peers[i].id}}
		}
	}
	if took := decisionIn(p.peers[0].answer, p.epoch); took != nil {
		pointTookPart.Reach()
		p.found = took // it took part: what it has is what was decided
		p.enter(purgeMarking)
		return
	}
	if p.peers[0].answered {
		if p.found = p.decision(); p.found != nil {
			p.enter(purgeDeleting)
			return
		}
	}
	for i := range p.peers {
		q := &p.peers[i]
		if !p.mayAsk(&q.source) && !p.mayAskAgain(q) {
			continue
		}
		q.asked = true
		p.call(call{kind: callDecisions, shard: q.id, epoch: p.page, decisions: &wire.EpochRecoveryRequest{Log: uint64(p.log),
			From: uint32(p.page), To: uint32(p.pageTo), Shard: uint64(q.id)}})
	}
	if p.nobodyKnows() {
		pointNobodyKnows.Reach()
		p.found = &wire.EpochRecovery{Epoch: uint32(p.epoch), LastKnownGood: uint32(p.goodHere())}
		p.enter(purgeDeleting)
	}
}

func (p *purge) onDecisions(ev *event) {
	at := slices.IndexFunc(p.peers, func(q purgePeer) bool { return q.id == ev.of.shard })
	if at < 0 || ev.of.epoch != p.page {
		return
	}
	q := &p.peers[at]
	q.asked = false
	if ev.err != nil || !told(ev.decisions) {
		q.retryAt = p.again(&q.failures)
		return
	}
	q.answered, q.answer, q.partial = true, ev.decisions, ev.decisions.Status == statusPartial
	if q.partial {
		q.retryAt = p.again(&q.failures)
	}
}

// mayAskAgain says whether a shard that was in doubt when it answered is to be asked
// now: doubts end, and others may be down for long. Until then its answer stands.
func (p *purge) mayAskAgain(q *purgePeer) bool {
	return q.partial && !q.asked && p.view.Authority(q.id) == placement.ShardUnheard && p.due(q.retryAt)
}

// told says whether a shard said which decisions it knows of.
func told(r *wire.EpochRecoveryResponse) bool {
	return r.Status == statusOK || r.Status == statusPartial
}

// decision is what the highest seal decided of the epoch, as far as was told. What
// another shard marked because nobody knew (SealEpoch 0) is none: that names what was
// good there, and this one may know of more.
func (p *purge) decision() *wire.EpochRecovery {
	var best *wire.EpochRecovery
	for i := range p.peers {
		if r := decisionIn(p.peers[i].answer, p.epoch); r.GetSealEpoch() > best.GetSealEpoch() {
			best = r
		}
	}
	return best
}

func decisionIn(answer *wire.EpochRecoveryResponse, e logs.Epoch) *wire.EpochRecovery {
	for _, r := range answer.GetEpochs() {
		if logs.Epoch(r.Epoch) == e {
			return r
		}
	}
	return nil
}

// nobodyKnows says whether an f-majority of the epoch's shards, this one included,
// knows of no decision. Shards in doubt, which this one may be, count as silent: a
// CLEAN may be what they lost. But if all others have answered, nobody knows more.
func (p *purge) nobodyKnows() bool {
	if !p.peers[0].answered {
		return false
	}
	m := p.history.of(p.epoch)
	nodeset := nodesetOf(m)
	set, silent := placement.NewShardSet(m.Replication, nodeset), false
	for _, s := range nodeset {
		state := p.view.Authority(s.Shard)
		at := slices.IndexFunc(p.peers, func(q purgePeer) bool { return q.id == s.Shard })
		switch answered := at >= 0 && p.peers[at].answered; {
		case state != placement.ShardUnheard:
		case !answered:
			silent = true
		case !p.peers[at].partial || slices.Contains(p.peers[at].answer.Empty, uint32(p.epoch)):
			state = placement.ShardHeard // of an epoch that is not in doubt there it tells that it has nothing
		}
		set.Set(s.Shard, state)
	}
	return !silent || set.FMajority() != placement.FMajorityNone
}

// goodHere is the LNG of the epoch as this shard knows it.
func (p *purge) goodHere() logs.ESN {
	for _, t := range p.seal.GetEpochs() {
		if logs.Epoch(t.Epoch) == p.epoch {
			return logs.ESN(t.LastKnownGood)
		}
	}
	return 0
}

func (p *purge) delete() {
	good := logs.ESN(p.found.LastKnownGood)
	if good == logs.ESNMax || p.found.SealEpoch == 0 && good > 0 {
		p.enter(purgeMarking)
		return
	}
	pointPurged.Reach()
	p.once(call{kind: callDelete, epoch: p.epoch, from: logs.MakeLSN(p.epoch, good+1), to: logs.MakeLSN(p.epoch, logs.ESNMax)})
}
