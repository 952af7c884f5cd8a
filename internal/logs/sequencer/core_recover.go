package sequencer

import (
	"errors"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/placement"
	"github.com/braiddb/braid/internal/wire"
)

// drainOld lets the epoch before finish what it has in flight, beside the new one.
func (s *sequencer) drainOld(prior *reign) {
	if prior == nil {
		return
	}
	s.abandonOld()
	s.cancelRecovery(prior)
	if prior.meta != nil && prior.meta.state == flying {
		prior.meta.giveUp()
	}
	prior.meta, prior.sticky = nil, nil
	prior.draining = true
	s.old = prior
	if prior.win.len() == 0 {
		s.drained()
		return
	}
	s.arm(timerDrain, s.c.cfg.DrainTimeout)
}

// drained: nothing of the old epoch is in flight.
func (s *sequencer) drained() {
	s.old = nil
	s.startRecovery()
}

// drainOver: the old epoch has had its time. What is still in flight may be
// fenced out by the recovery that begins now; its callers are told then.
func (s *sequencer) drainOver() {
	if s.old != nil && s.c.now >= s.cur.began+s.c.cfg.DrainTimeout {
		s.startRecovery()
	} else if s.old != nil {
		s.arm(timerDrain, s.cur.began+s.c.cfg.DrainTimeout-s.c.now)
	}
}

// abandonOld gives up what is in flight in the epoch that drains, which ends with it:
// not as one that has drained, for the epoch after it may be about to (Q8).
func (s *sequencer) abandonOld() {
	if old := s.old; old != nil {
		s.old = nil
		old.abandon()
	}
}

// abandon gives up all that is in flight in an epoch.
func (r *reign) abandon() {
	for e, end := r.win.front, r.win.next; e < end; e++ {
		if a := r.win.at(e); a != nil && a.state == flying {
			a.giveUp()
		}
	}
}

// startRecovery has earlier epochs made clean, once none of them is in flight
// here (Q8).
func (s *sequencer) startRecovery() {
	r := s.cur
	if r == nil || r.recovered || r.recording || s.gone {
		return
	}
	if s.old != nil && s.c.now < r.began+s.c.cfg.DrainTimeout {
		return
	}
	if r.record.LastCleanEpoch+1 >= uint32(r.epoch) {
		s.recovered(&RecoveryResult{Status: wire.LogStatus_LOG_STATUS_OK, Tail: r.record.Tail, CountBase: r.record.Tail.GetCount()}, nil)
		return
	}
	r.recording, r.recovery = true, s.c.nextToken()
	args := RecoverArgs{Log: s.log, UpTo: r.epoch - 1, Own: r.epoch, Record: r.record}
	if r.prior != nil && r.prior.EffectiveSince != r.record.Metadata.EffectiveSince {
		args.Metadata = append(args.Metadata, r.prior)
	}
	args.Metadata = append(args.Metadata, r.record.Metadata)
	s.c.fx.recoveries = append(s.c.fx.recoveries, recoverStart{r.recovery, args})
}

func (s *sequencer) cancelRecovery(r *reign) {
	if r.recording && !r.recovered {
		s.c.fx.cancels = append(s.c.fx.cancels, r.recovery)
	}
	r.recording, r.recovery = false, 0
}

// recovered is the outcome of the recovery of all earlier epochs.
func (s *sequencer) recovered(res *RecoveryResult, err error) {
	r, c := s.cur, s.c
	r.recording, r.recovery = false, 0
	switch {
	case err == nil && res.Status == wire.LogStatus_LOG_STATUS_OK:
	case err == nil && res.Status == wire.LogStatus_LOG_STATUS_PREEMPTED:
		r.preemptedBy(res.PreemptedBy, res.SealEpoch)
		return
	default:
		c.m.RecoveriesFailed.Add(1)
		s.arm(timerRecover, c.cfg.RecoveryRetry)
		return
	}
	r.recovered, r.base = true, res.CountBase
	if res.Tail != nil && res.Tail.Lsn != 0 {
		r.tail = &wire.TailRecord{Log: uint64(s.log), Lsn: res.Tail.Lsn, TimestampMs: res.Tail.TimestampMs, Count: res.Tail.Count}
	}
	r.record, r.prior = nil, nil
	c.m.Recovered.Add(1)
	s.abandonOld() // what recovery decided about it stands; its callers ask again
	s.advance()
	s.resumeHeld()
	s.drainBuffer()
	s.answerStates()
}

// writeMetadata writes the metadata log's record of this epoch, where the store
// does not say that it is written (Q5). The one of an epoch that ended before it
// was is written again under this one.
func (r *reign) writeMetadata() {
	s, c := r.s, r.s.c
	if r.readable {
		r.metadata = nil
		return
	}
	content := proto.Clone(r.metadata).(*wire.EpochMetadata)
	content.Epoch, content.Written = uint32(r.epoch), true
	payload, err := proto.Marshal(content)
	if err != nil {
		panic("BUG: an epoch's metadata does not encode: " + err.Error())
	}
	a := &appender{r: r, set: r.metadataSet(), began: c.now}
	a.timer.kind, a.timer.a = timerWave, a
	a.out = a.wave1.reserve(a.set.copies)
	rec := &a.out.rec
	rec.Log, rec.Lsn, rec.TimestampMs = uint64(s.log.MetadataLog()), uint64(logs.MakeLSN(r.epoch, logs.ESNMin)), c.wallMs
	rec.Count, rec.Flags, rec.Payload, rec.Checksum = 1, logs.FlagMetadata, payload, logs.Checksum(payload)
	a.esn = logs.ESNMin
	a.finished = func() {
		r.readable, r.meta = true, nil
		c.m.MetadataWritten.Add(1)
		s.advance()
		r.markWritten()
	}
	r.meta = a
	if copyset, ok := c.pick(a.set, nil); ok {
		a.send(copyset)
		return
	}
	a.concluded = true
	c.stuck = append(c.stuck, a)
	a.stuck = true
	c.wheel.set(&a.timer, c.now+a.patience())
}

// metadataSet is what a wave of the metadata log's record is stored on: one copy more
// than the data has, if there are nodes for it just now.
func (r *reign) metadataSet() *replicaSet {
	c := r.s.c
	shards, usable := c.metadataShards(true), 0
	for _, sh := range shards {
		if c.usable(sh.Shard, true) {
			usable++
		}
	}
	copies := max(r.set.copies, metadataCopies(r.set.copies, usable))
	return c.intern(shards, &catalog.Replication{Node: uint32(copies)})
}

// marking sets the epoch store's flag that the metadata log has the record. It
// only saves the next sequencer a write; losing a race here costs nothing.
type marking struct {
	token uint64
}

func (r *reign) markWritten() {
	if r.metadata == nil || r.preempted || r.draining {
		return
	}
	r.mark.token = r.s.c.nextToken()
	r.s.c.fx.reads = append(r.s.c.fx.reads, storeRead{r.s.log, r.mark.token})
}

func (r *reign) markRead(rec *wire.EpochRecord, err error) {
	c := r.s.c
	switch {
	case err != nil:
		r.mark.token = 0
		r.s.arm(timerMark, c.cfg.RetryMax)
	case rec == nil || rec.Metadata.GetEffectiveSince() != uint32(r.since) || rec.Metadata.Written:
		r.markDone() // it is done, or another epoch's affair
	default:
		next := &wire.EpochRecord{}
		proto.Merge(next, rec)
		next.Version, next.Metadata.Written = rec.Version+1, true
		next.WriterNode, next.WriterIncarnation, next.WriterNonce = uint64(c.self), c.inc, c.rng.Uint64()
		r.mark.token = c.nextToken()
		c.fx.swaps = append(c.fx.swaps, storeSwap{r.s.log, r.mark.token, rec.Version, next})
	}
}

func (r *reign) marked(err error) {
	r.mark.token = 0
	switch {
	case err == nil:
		r.markDone()
	case errors.Is(err, ErrConflict):
		r.markWritten()
	default:
		r.s.arm(timerMark, r.s.c.cfg.RetryMax)
	}
}

// markDone: the epoch's metadata is where successors find it, so that it may be
// changed from now on.
func (r *reign) markDone() {
	r.mark.token, r.metadata = 0, nil
	if r.s.cur == r && !r.s.compareReplication() {
		r.s.compareNodeset()
	}
}

// history is all the metadata that a log has had, as its metadata log tells, and that
// of the reigns here since there is one.
type history struct {
	entries []*wire.EpochMetadata // by effective_since
	loading bool
	loaded  bool
	heard   int
	asked   int
}

// load reads the metadata log. It is loaded once so many shards answered that
// none of its records can have been missed.
func (s *sequencer) loadHistory() {
	c := s.c
	if s.cur == nil {
		return
	}
	if s.history == nil { // of this reign there may be nothing in the metadata log yet
		s.history = &history{entries: []*wire.EpochMetadata{s.cur.describes()}}
	}
	h := s.history
	if h.loading || h.loaded {
		return
	}
	all := c.metadataShards(false)
	h.loading, h.heard, h.asked = true, 0, 0
	copies := s.cur.set.copies
	for _, m := range h.entries {
		copies = min(copies, placement.Copies(m.Replication))
	}
	need := max(len(all)-copies+1, 1)
	for _, sh := range all {
		if !c.cluster.Alive(sh.Shard) {
			continue
		}
		h.asked++
		q := shardCall{shard: sh.Shard, metadata: &wire.ReadMetadataRequest{Log: uint64(s.log), Shard: uint64(sh.Shard)}}
		c.ask(q, func(answer any, err error) {
			h.asked--
			if r, ok := answer.(*wire.ReadMetadataResponse); ok && err == nil && r.Status == wire.LogStatus_LOG_STATUS_OK {
				h.heard++
				h.merge(r.Metadata)
			}
			if h.asked == 0 && !s.gone {
				h.loading, h.loaded = false, h.heard >= need
				s.historyLoaded()
			}
		})
	}
	if h.asked == 0 {
		h.loading = false
		s.arm(timerLookup, c.cfg.RecoveryRetry)
	}
}

func (h *history) merge(entries []*wire.EpochMetadata) {
	for _, m := range entries {
		i, found := slices.BinarySearchFunc(h.entries, m.EffectiveSince, func(a *wire.EpochMetadata, since uint32) int {
			return int(int64(a.EffectiveSince) - int64(since))
		})
		if !found {
			h.entries = slices.Insert(h.entries, i, m)
		}
	}
}

// historyLoaded: earlier nodesets are known, so that their shards are told of
// releases and producers can be looked up on them.
func (s *sequencer) historyLoaded() {
	if !s.history.loaded {
		s.arm(timerLookup, s.c.cfg.RecoveryRetry)
		return
	}
	if s.cur != nil {
		s.cur.listen()
		s.advance()
		s.tellSoon()
	}
	s.resumeHeld()
	s.answerStates()
}
