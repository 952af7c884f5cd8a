package sequencer

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/placement"
	"github.com/braiddb/braid/internal/wire"
)

// activation takes the next epoch of a log from the epoch store:
//
//	read ──► (nothing there: is the metadata log empty?) ──► compare-and-set ─┐
//	  ▲                                                  └─► CHECK_SEAL ──────┴─► reign
//	  └──── lost the race, outcome unknown, store silent ────────┘
//
// The seals are asked for beside the compare-and-set: before epoch E is given
// out nobody can have sealed E-1 or stored in E. Who did shows that the store is
// older than the cluster (Q7).
type activation struct {
	s     *sequencer
	cause cause
	above logs.Epoch // the epoch must be above this one
	// readAbove is what above was when the store was last read: only of that can the answer
	// say that the store is too old. What was seen since may be younger than the answer.
	readAbove logs.Epoch
	founded   bool // others have the log's first metadata, that the store had not when it was read
	token     uint64
	phase     activationPhase
	// verifying: nothing is to be activated; a preempted sequencer only makes
	// sure that the store knows of whoever preempted it.
	verifying bool
	trouble   string // why it takes long, for people
	under     bool   // because there are too few storage nodes
	attempts  int
	timer     timer

	rec, next  *wire.EpochRecord // as read, as proposed
	nonce      uint64
	unsure     bool // a compare-and-set of this nonce may have been carried out
	swappedOK  bool
	asked      []uint64 // questions to shards under way
	empty      int      // metadata shards that hold nothing of the log
	sealed     logs.Epoch
	sealedBy   catalog.NodeID
	bumpReason cause
}

type activationPhase uint8

const (
	phaseQueued activationPhase = iota
	phaseReading
	phaseProving // that the log is new
	phaseSwapping
	phaseWaiting // to try again
)

// activate begins an activation, or makes one that is under way aim higher.
func (s *sequencer) activate(why cause, above logs.Epoch) {
	if s.act != nil {
		s.act.above = max(s.act.above, above)
		if s.act.verifying {
			s.act.verifying, s.act.cause = false, why
			s.state = StateActivating
		}
		return
	}
	if s.cur == nil || !s.cur.accepts() {
		s.state = StateActivating
	}
	s.open(&activation{s: s, cause: why, above: above})
}

// verify reads the epoch store to see that it knows of the epoch that preempted
// this sequencer.
func (s *sequencer) verify() {
	s.open(&activation{s: s, cause: causePreempted, above: s.preempt.seal + 1, verifying: true})
}

func (s *sequencer) open(a *activation) {
	a.timer.kind, a.timer.s = timerActivate, s
	s.act = a
	c := s.c
	if s.failure != nil && c.now < s.failure.until {
		a.retry(s.failure.until-c.now, s.failure.text)
		return
	}
	if wait := s.overLimit(); wait > 0 {
		a.retry(wait, "it was activated too often of late")
		return
	}
	a.enter()
}

// overLimit is how long the log must wait before it may be activated again.
func (s *sequencer) overLimit() time.Duration {
	c := s.c
	if c.now >= s.bumpsSince+time.Second || s.bumps == 0 {
		s.bumpsSince, s.bumps = c.now, 0
	}
	if int(s.bumps) >= c.cfg.ReactivationLimit {
		return s.bumpsSince + time.Second - c.now
	}
	s.bumps++
	return 0
}

// enter reads the store, once there is room among the activations under way.
func (a *activation) enter() {
	c := a.s.c
	if c.activating >= c.cfg.ActivationsMax {
		a.phase = phaseQueued
		c.queue = append(c.queue, a.s)
		return
	}
	c.activating++
	a.readStore()
}

func (a *activation) readStore() {
	a.phase, a.token, a.readAbove = phaseReading, a.s.c.nextToken(), a.above
	a.s.c.fx.reads = append(a.s.c.fx.reads, storeRead{a.s.log, a.token})
}

// leave makes room for the next activation that waits.
func (a *activation) leave() {
	c := a.s.c
	if a.phase != phaseQueued && a.phase != phaseWaiting {
		c.activating--
	}
	for _, t := range a.asked {
		delete(c.calls, t)
	}
	a.asked = nil
	c.wheel.clear(&a.timer)
	for c.activating < c.cfg.ActivationsMax && len(c.queue) > 0 {
		s := c.queue[0]
		c.queue = c.queue[1:]
		if s.act != nil && s.act.phase == phaseQueued && !s.gone {
			c.activating++
			s.act.readStore()
		}
	}
}

// over ends the activation.
func (a *activation) over() {
	a.leave()
	a.s.act = nil
}

// retry comes back later, and lets others go first meanwhile.
func (a *activation) retry(d time.Duration, trouble string) {
	a.leave()
	a.phase, a.trouble, a.token = phaseWaiting, trouble, 0
	a.s.c.wheel.set(&a.timer, a.s.c.now+d)
}

// backOff is a retry after a failure, later with each.
func (a *activation) backOff(trouble string) {
	cfg := a.s.c.cfg
	d := cfg.RetryMin << min(a.attempts, 16)
	a.attempts++
	a.retry(min(d, cfg.RetryMax), trouble)
}

func (a *activation) ring() {
	switch a.phase {
	case phaseWaiting:
		a.phase = phaseQueued
		a.enter()
	case phaseProving, phaseSwapping: // who has not answered will not
		for _, t := range a.asked {
			delete(a.s.c.calls, t)
		}
		a.asked = nil
		a.proceed()
	}
}

// read takes what the store holds.
func (a *activation) read(rec *wire.EpochRecord, err error) {
	if a.phase != phaseReading {
		return
	}
	s := a.s
	switch {
	case err != nil:
		a.backOff("the epoch store does not answer: " + err.Error())
	case a.unsure && rec != nil && rec.WriterNonce == a.nonce: // it was carried out
		a.unsure, a.swappedOK, a.next, a.phase = false, true, rec, phaseSwapping
		a.checkSeals()
		a.proceed()
	case rec == nil && (a.readAbove > 0 || a.rec != nil):
		a.regressed(a.readAbove)
	case rec != nil && logs.Epoch(rec.Metadata.GetEpoch()) <= a.readAbove:
		a.rec = rec
		a.regressed(a.readAbove)
	case logs.Epoch(rec.GetMetadata().GetEpoch()) <= a.above && a.above > 0: // it may have moved on since
		a.readStore()
	case rec == nil:
		a.prove()
	case a.verifying:
		a.over()
		if n, ok := s.c.cluster.Node(s.preempt.by); ok && n.Alive && n.ID != s.c.self {
			s.redirectHeld()
		}
		if len(s.buffer) > 0 {
			s.drainBuffer()
		}
	case (a.founded || a.next != nil && rec.Metadata.Epoch >= a.next.Metadata.Epoch) && a.outraced(rec):
	case rec.Metadata.Disabled:
		s.fail(wire.LogStatus_LOG_STATUS_DISABLED, "the log is disabled in the epoch store")
	case logs.Epoch(rec.Metadata.Epoch) > logs.EpochMax:
		s.fail(wire.LogStatus_LOG_STATUS_FAILED, "the log has used all epochs")
	default:
		a.unsure, a.rec = false, rec
		a.swap()
	}
}

// outraced: another node took an epoch while this one was about to. Where it
// lives, it is the sequencer.
func (a *activation) outraced(rec *wire.EpochRecord) bool {
	s := a.s
	by := catalog.NodeID(rec.WriterNode)
	n, ok := s.c.cluster.Node(by)
	if by == s.c.self || !ok || !n.Alive {
		return false
	}
	s.c.m.Outraced.Add(1)
	s.preempt = preemption{by: by, seal: logs.Epoch(rec.Metadata.Epoch) - 2}
	s.state = StatePreempted
	if s.cur != nil {
		s.cur.preempted = true
	}
	a.over()
	s.refuseBuffered(wire.LogStatus_LOG_STATUS_PREEMPTED, by, "")
	s.redirectHeld()
	return true
}

// prove asks the storage nodes whether the log is as new as the store says.
func (a *activation) prove() {
	c := a.s.c
	a.phase, a.empty = phaseProving, 0
	for _, sh := range c.metadataShards(false) {
		if !c.cluster.Alive(sh.Shard) {
			continue
		}
		q := shardCall{shard: sh.Shard, metadata: &wire.ReadMetadataRequest{Log: uint64(a.s.log), Shard: uint64(sh.Shard)}}
		a.ask(q, func(answer any, err error) {
			r, ok := answer.(*wire.ReadMetadataResponse)
			switch {
			case err != nil || !ok:
			case len(r.Metadata) > 0:
				a.sealed = max(a.sealed, logs.Epoch(r.Metadata[len(r.Metadata)-1].EffectiveSince))
			case r.Status == wire.LogStatus_LOG_STATUS_OK || r.Status == wire.LogStatus_LOG_STATUS_NOT_FOUND:
				a.empty++
			}
		})
	}
	c.wheel.set(&a.timer, c.now+max(c.cfg.SealCheckFor, c.cfg.StoreTimeout))
	if len(a.asked) == 0 {
		a.proceed()
	}
}

// ask puts a question; when the last of a phase is answered, the activation proceeds.
func (a *activation) ask(q shardCall, done func(any, error)) {
	var token uint64
	token = a.s.c.ask(q, func(answer any, err error) {
		for i, t := range a.asked {
			if t == token {
				a.asked = append(a.asked[:i], a.asked[i+1:]...)
				break
			}
		}
		done(answer, err)
		if len(a.asked) == 0 {
			a.proceed()
		}
	})
	a.asked = append(a.asked, token)
}

// proceed goes on once the shards of a phase have answered, or had their time.
func (a *activation) proceed() {
	switch a.phase {
	case phaseProving:
		all := len(a.s.c.metadataShards(false))
		switch {
		case a.sealed > 0: // the log was founded since the store was read, or the store is old
			a.above, a.founded = max(a.above, a.sealed), true
			a.readStore()
		case a.empty < all-metadataCopies(1, all)+1 || a.empty == 0:
			a.backOff(fmt.Sprintf("the log seems new, but only %d of %d storage nodes could be asked", a.empty, all))
		default:
			a.swap()
		}
	case phaseSwapping:
		if a.swappedOK && len(a.asked) == 0 {
			a.crown()
		}
	}
}

// swap proposes this node for the next epoch.
func (a *activation) swap() {
	s, c := a.s, a.s.c
	next, err := a.propose()
	if err != nil {
		var under *placement.UnderReplicatedError
		if errors.As(err, &under) || errors.Is(err, placement.ErrReplication) {
			a.under = true
			a.backOff(err.Error())
			return
		}
		s.fail(wire.LogStatus_LOG_STATUS_FAILED, err.Error())
		return
	}
	a.next, a.nonce = next, c.rng.Uint64()
	a.next.WriterNonce = a.nonce
	a.phase, a.token, a.swappedOK, a.sealed = phaseSwapping, c.nextToken(), false, 0
	c.fx.swaps = append(c.fx.swaps, storeSwap{s.log, a.token, a.rec.GetVersion(), next})
	a.checkSeals()
}

// propose makes the record that takes the epoch: the nodeset and the replication
// as they should be now.
func (a *activation) propose() (*wire.EpochRecord, error) {
	s, c := a.s, a.s.c
	next := &wire.EpochRecord{Log: uint64(s.log), WriterNode: uint64(c.self), WriterIncarnation: c.inc}
	if a.rec == nil {
		m := &wire.EpochMetadata{Epoch: uint32(logs.EpochMin) + 1, EffectiveSince: uint32(logs.EpochMin), CreatedMs: c.wallMs}
		if err := c.chooseNodeset(s, nil, m); err != nil {
			return nil, err
		}
		next.Version, next.Metadata = 1, m
		return next, nil
	}
	proto.Merge(next, a.rec)
	next.WriterNode, next.WriterIncarnation = uint64(c.self), c.inc
	next.Version = a.rec.Version + 1
	m := proto.Clone(a.rec.Metadata).(*wire.EpochMetadata)
	next.Metadata = m
	epoch := m.Epoch
	m.Epoch++
	if !m.Written {
		// What earlier epochs were replicated by is here and nowhere else: it changes
		// only once the metadata log has it, lest they be recovered on other shards.
		return next, nil
	}
	fresh := &wire.EpochMetadata{Epoch: m.Epoch, EffectiveSince: epoch, CreatedMs: c.wallMs}
	if err := c.chooseNodeset(s, a.rec.Metadata, fresh); err != nil {
		var under *placement.UnderReplicatedError
		if errors.As(err, &under) {
			return next, nil // what there is now serves until more nodes are there
		}
		return nil, err
	}
	a.bumpReason = a.cause
	switch {
	case !sameReplication(m.Replication, fresh.Replication):
		a.bumpReason = causeReplication
	case !sameNodeset(m, fresh):
		a.bumpReason = causeNodeset
	default:
		return next, nil
	}
	next.Metadata = fresh
	return next, nil
}

// chooseNodeset fills in what an epoch is to be replicated by.
func (c *core) chooseNodeset(s *sequencer, old, m *wire.EpochMetadata) error {
	repl := s.attrs.GetReplication()
	if err := placement.ValidateReplication(repl); err != nil {
		return err
	}
	var prior []placement.LogShard
	if old != nil {
		prior = c.setOf(old).shards
	}
	shards, err := placement.SelectNodeset(c.cluster, repl, int(s.attrs.GetNodesetSize()), prior, uint64(s.log))
	if err != nil {
		return err
	}
	m.Replication = repl
	for _, sh := range shards {
		m.Nodeset = append(m.Nodeset, uint64(sh.Shard))
		m.Weights = append(m.Weights, sh.Weight)
		m.Locations = append(m.Locations, sh.Location)
	}
	return nil
}

func sameReplication(a, b *catalog.Replication) bool {
	return a.GetNode() == b.GetNode() && a.GetRack() == b.GetRack() && a.GetZone() == b.GetZone() && a.GetRegion() == b.GetRegion()
}

func sameNodeset(a, b *wire.EpochMetadata) bool {
	if len(a.Nodeset) != len(b.Nodeset) {
		return false
	}
	for i := range a.Nodeset {
		if a.Nodeset[i] != b.Nodeset[i] || i < len(a.Weights) && i < len(b.Weights) && a.Weights[i] != b.Weights[i] {
			return false
		}
	}
	return true
}

// checkSeals asks the nodeset's live shards whether they know of a later epoch.
func (a *activation) checkSeals() {
	c := a.s.c
	epoch := logs.Epoch(a.next.Metadata.Epoch) - 1
	if epoch == logs.EpochMin {
		return // nothing is before it; prove has seen to that
	}
	for _, id := range a.rec.Metadata.Nodeset {
		shard := logs.ShardID(id)
		if !c.cluster.Alive(shard) {
			continue
		}
		q := shardCall{shard: shard, seal: &wire.CheckSealRequest{Log: uint64(a.s.log), Epoch: uint32(epoch), Shard: id}}
		a.ask(q, func(answer any, err error) {
			if r, ok := answer.(*wire.CheckSealResponse); ok && err == nil && logs.Epoch(r.SealEpoch) > a.sealed {
				a.sealed, a.sealedBy = logs.Epoch(r.SealEpoch), catalog.NodeID(r.SealedBy)
			}
		})
	}
	c.wheel.set(&a.timer, c.now+c.cfg.SealCheckFor)
}

// swapped is the store's word on the compare-and-set.
func (a *activation) swapped(err error) {
	if a.phase != phaseSwapping {
		return
	}
	switch {
	case err == nil:
		a.swappedOK = true
		a.proceed()
	case errors.Is(err, ErrConflict):
		a.again()
	default:
		a.unsure = true
		a.trouble = "the epoch store does not say whether it took the epoch: " + err.Error()
		a.again()
	}
}

// again reads the store anew at once, or later where that did not help.
func (a *activation) again() {
	for _, t := range a.asked {
		delete(a.s.c.calls, t)
	}
	a.asked = nil
	a.attempts++
	if a.attempts <= 3 {
		a.readStore()
		return
	}
	a.backOff(a.trouble)
}

// crown begins the reign: the epoch is won, and appends are taken at once.
func (a *activation) crown() {
	s, c := a.s, a.s.c
	epoch := logs.Epoch(a.next.Metadata.Epoch) - 1
	if epoch > logs.EpochMin && a.sealed >= epoch-1 {
		a.sealedAlready(epoch)
		return
	}
	a.over()
	prior := s.cur
	r := &reign{s: s, epoch: epoch, since: logs.Epoch(a.next.Metadata.EffectiveSince), set: c.setOf(a.next.Metadata), began: c.now,
		metadata: a.next.Metadata, readable: a.next.Metadata.Written, record: a.next}
	r.win.front, r.win.next = logs.ESNMin, logs.ESNMin
	if a.rec != nil {
		r.prior = a.rec.Metadata
	}
	if prior != nil && prior.epoch >= epoch {
		panic("BUG: an epoch is used twice") // Q7
	}
	if epoch > logs.EpochMin && (prior == nil || prior.epoch != epoch-1 || prior.preempted) {
		s.forgetNegatives(logs.MakeLSN(epoch, 0)) // others reigned meanwhile
		if s.history != nil {
			s.history = &history{} // and may have changed what it is stored on
		}
	}
	s.cur, s.state, s.failure, s.preempt = r, StateActive, nil, preemption{}
	s.configAge = c.configAge
	if s.history != nil {
		s.history.merge([]*wire.EpochMetadata{a.next.Metadata})
	}
	c.m.Activations.Add(1)
	c.notice(Notice{What: "activated", Log: s.log, Epoch: epoch, Node: c.self, Message: a.bumpReason.String()})
	r.listen()
	s.drainOld(prior)
	r.writeMetadata()
	s.startRecovery()
	s.resumeHeld() // streams that waited for an epoch that drained, and was given up for the one that does now
	if c.stopping {
		s.refuseBuffered(wire.LogStatus_LOG_STATUS_SHUTDOWN, 0, "the node is stopping")
	}
	s.flushGathered()
	s.drainBuffer()
	s.answerStates()
}

// sealedAlready: a node has seen this epoch or a later one. If the store has
// moved on since, that was somebody newer; if not, the store is old.
func (a *activation) sealedAlready(epoch logs.Epoch) {
	if a.sealed < epoch {
		a.regressed(a.sealed)
		return
	}
	a.above = max(a.above, a.sealed+1)
	a.swappedOK, a.unsure, a.rec = false, false, a.next
	a.readStore()
}

// regressed: the epoch store is older than what a node or a client has seen.
func (a *activation) regressed(seen logs.Epoch) {
	s := a.s
	next := a.rec.GetMetadata().GetEpoch()
	text := fmt.Sprintf("the epoch store would give out epoch %d of log %d, but epoch %d has been seen: it was restored from an older copy, or is another cluster's; "+
		"restore a newer one", max(next, 1), s.log, max(seen, logs.EpochMin))
	s.c.m.Regressed.Add(1)
	s.c.notice(Notice{What: "epoch store regressed", Log: s.log, Epoch: logs.Epoch(next), Node: s.c.self, Message: text, Grave: true})
	s.fail(wire.LogStatus_LOG_STATUS_EPOCH_REGRESSED, text)
}

// fail refuses the log for a while.
func (s *sequencer) fail(st wire.LogStatus, text string) {
	if s.act != nil {
		s.act.over()
	}
	if s.cur != nil && st == wire.LogStatus_LOG_STATUS_EPOCH_REGRESSED {
		s.cur.preempted = true // it may not go on either
	}
	s.state = StateFailed
	s.failure = &failure{st, text, s.c.now + s.c.cfg.FailedFor}
	s.refuseBuffered(st, 0, text)
	s.flushGathered()
}
