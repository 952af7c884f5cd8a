package sequencer

import (
	"fmt"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// append is the path of one append, from the top:
//
//  1. check     is it for this node, and is it one that can be taken?
//  2. reigns    an epoch to number it in; activation starts here
//  3. settled   is it known already? (exactly once, core_session.go)
//  4. gather    into a batch with others, where the log says so (core_gather.go)
//  5. begin     window, memory, copyset, then the LSN; the first wave leaves
//
// and, when its copies are durable,
//
//  6. stored    all of a wave: acknowledge at once, whatever is before it, but in order
//     where order was asked for (core_appender.go)
//  7. retire    the window slides in order, LNG with it (core_reign.go)
//  8. advance   the release pointer follows, RELEASE leaves (core_release.go)
//
// What cannot go on now waits in the log's buffer, in order of arrival.
func (c *core) append(p pending) {
	p.arrived = c.now
	s := c.check(&p)
	if s == nil {
		return // answered
	}
	if len(s.buffer) > 0 || !s.admit(&p) {
		s.enqueue(p)
	}
}

// admit takes an append through steps 2 to 5; false: it has to wait.
func (s *sequencer) admit(p *pending) bool {
	if done, wait := s.reigns(p); done || wait {
		return done
	}
	switch {
	case p.gathered == nil:
		if s.settled(p) {
			return true
		}
		if done, wait := s.gather(p); done || wait {
			return done
		}
	case p.gathered.epoch != s.cur.epoch:
		s.dissolve(p.gathered)
		return true
	}
	return s.begin(p)
}

// check is step 1, in the order of the reference's server. It gives nil once the
// append is answered.
func (c *core) check(p *pending) *sequencer {
	req := p.req
	log := logs.LogID(req.Log)
	self, ok := c.cluster.Node(c.self)
	switch {
	case c.closed:
		c.refuse(p, wire.LogStatus_LOG_STATUS_SHUTDOWN, "the node is stopping")
		return nil
	case !ok || !self.Sequencer || self.Starting:
		c.refuse(p, wire.LogStatus_LOG_STATUS_NOT_READY, "the node is no sequencer, or not yet")
		return nil
	case c.cluster.Isolated:
		c.refuse(p, wire.LogStatus_LOG_STATUS_ISOLATED, "the node cannot see a majority of the cluster")
		return nil
	}
	s := c.logs[log]
	if p.bad != "" {
		s.refuseForGood(p, wire.LogStatus_LOG_STATUS_BAD_PAYLOAD, 0)
		c.refuse(p, wire.LogStatus_LOG_STATUS_BAD_PAYLOAD, p.bad)
		return nil
	}
	if req.Flags&logs.AppendProducer != 0 && (req.Producer == 0 || req.Sequence == 0) {
		c.refuse(p, wire.LogStatus_LOG_STATUS_INVALID, "a producer's append has its id and a sequence, both above 0")
		return nil
	}
	attrs, ok := c.attributes(log)
	switch {
	case !ok || !log.Valid():
		c.refuse(p, wire.LogStatus_LOG_STATUS_NOT_FOUND, "no such log")
		return nil
	case len(req.Payload) > int(attrs.GetMaxPayloadBytes()):
		s.refuseForGood(p, wire.LogStatus_LOG_STATUS_TOO_LARGE, 0)
		c.refuse(p, wire.LogStatus_LOG_STATUS_TOO_LARGE, tooLarge(len(req.Payload), attrs.GetMaxPayloadBytes()))
		return nil
	}
	if to, st := c.elsewhere(s, log, attrs, req.Flags&(logs.AppendNoRedirect|logs.AppendReactivateIfPreempted) != 0); st != wire.LogStatus_LOG_STATUS_OK {
		c.m.Redirected.Add(1)
		c.answer(p.reply, &wire.AppendResponse{Status: st, Redirect: uint64(to), Log: req.Log})
		return nil
	}
	if c.stopping {
		c.refuse(p, wire.LogStatus_LOG_STATUS_SHUTDOWN, "the node is stopping")
		return nil
	}
	return c.sequencerOf(log, attrs)
}

func tooLarge(n int, most uint32) string {
	return fmt.Sprintf("a payload of %d bytes, where the log takes %d: divide it, or raise max_payload_bytes (braid log alter)", n, most)
}

// elsewhere decides on a redirect: nobody is sent away from a node that has just
// activated, nor to one that is dead.
func (c *core) elsewhere(s *sequencer, log logs.LogID, attrs *catalog.LogAttributes, stay bool) (catalog.NodeID, wire.LogStatus) {
	var to catalog.NodeID
	var ok bool
	if s != nil && s.targetFor == c.cluster.Version && s.attrs == attrs {
		to, ok = s.target, s.targetOK
	} else {
		to, ok = c.locate(log, attrs)
		if s != nil {
			s.target, s.targetOK, s.targetFor, s.attrs = to, ok, c.cluster.Version, attrs
		}
	}
	switch {
	case stay || to == c.self:
		return 0, wire.LogStatus_LOG_STATUS_OK
	case !ok:
		return 0, wire.LogStatus_LOG_STATUS_NO_SEQUENCER
	case s != nil && s.state == StateActive && s.cur != nil && c.now < s.cur.began+c.cfg.NoRedirectFor:
		return 0, wire.LogStatus_LOG_STATUS_OK
	}
	if n, ok := c.cluster.Node(to); ok && n.Alive {
		return to, wire.LogStatus_LOG_STATUS_REDIRECTED
	}
	return 0, wire.LogStatus_LOG_STATUS_OK
}

// reigns is step 2: done once the append is answered, wait if it has to wait for
// an epoch; neither: there is one that takes it.
func (s *sequencer) reigns(p *pending) (done, wait bool) {
	r := s.cur
	switch {
	case s.failure != nil && s.c.now < s.failure.until:
		s.refuse(p, s.failure.status, s.failure.text)
		return true, false
	case r != nil && r.accepts():
		if logs.Epoch(p.req.SeenEpoch) <= r.epoch {
			return false, false
		}
		// Somebody reigned after this epoch: what it would number might come before
		// what the client knows already.
		s.activate(causeSeenEpoch, logs.Epoch(p.req.SeenEpoch))
	case s.state == StatePreempted || r != nil && r.preempted:
		if s.act != nil && !s.act.verifying {
			break // it is being won back
		}
		again := p.req.Flags&logs.AppendReactivateIfPreempted != 0
		n, ok := s.c.cluster.Node(s.preempt.by)
		if ok && n.Alive && s.preempt.by != s.c.self && !again {
			s.redirect(p, wire.LogStatus_LOG_STATUS_PREEMPTED, s.preempt.by)
			return true, false
		}
		s.activate(causePreempted, max(s.preempt.seal+1, logs.Epoch(p.req.SeenEpoch)))
	case r != nil && r.givenUp:
		s.activate(causeCorrupt, 0)
	case r != nil && !r.draining:
		s.activate(causeESNs, 0)
	default:
		s.activate(causeNew, logs.Epoch(p.req.SeenEpoch))
	}
	return false, true
}

// begin is step 5; false: no copyset can be found, and the append waits for one.
func (s *sequencer) begin(p *pending) bool {
	r := s.cur
	if !s.conditionHolds(p) || p.req.Flags&logs.AppendProbe != 0 && s.probed(p) {
		return true
	}
	size := p.size()
	if full := r.full(size); full != "" {
		s.c.m.SeqNoBufs.Add(1)
		s.refuse(p, wire.LogStatus_LOG_STATUS_SEQNOBUFS, full) // no LSN is consumed (Q2)
		return true
	}
	copyset, ok := r.copyset(size)
	if !ok {
		return false
	}
	r.assign(p, copyset, size).start(copyset)
	return true
}

// probed answers an append that only asks whether it would be taken.
func (s *sequencer) probed(p *pending) bool {
	st, text := wire.LogStatus_LOG_STATUS_OK, ""
	if full := s.cur.full(p.size()); full != "" {
		st, text = wire.LogStatus_LOG_STATUS_SEQNOBUFS, full
	}
	s.c.answer(p.reply, &wire.AppendResponse{Status: st, Message: text, Log: p.req.Log, Epoch: uint32(s.cur.epoch)})
	return true
}

// conditionHolds answers a conditional append whose condition does not hold.
// Earlier epochs are recovered: settled has seen to that.
func (s *sequencer) conditionHolds(p *pending) bool {
	if p.req.Flags&logs.AppendConditional == 0 {
		return true
	}
	tail := s.cur.assigned()
	if logs.LSN(p.req.ExpectTail) == tail {
		return true
	}
	s.refuseForGood(p, wire.LogStatus_LOG_STATUS_CONDITION_FAILED, tail)
	s.c.answer(p.reply, &wire.AppendResponse{Status: wire.LogStatus_LOG_STATUS_CONDITION_FAILED, Tail: uint64(tail), Log: p.req.Log,
		Epoch: uint32(s.cur.epoch), Message: "the tail is " + tail.String()})
	return false
}

// assign gives an append its LSN. From here on it is pursued until it is stored
// or fenced out.
func (r *reign) assign(p *pending, copyset []logs.ShardID, size int64) *appender {
	s, req := r.s, p.req
	var a *appender
	if p.gathered != nil {
		a = p.gathered.a
	} else {
		a = &appender{first: waiter{reply: p.reply}}
		a.timer.kind, a.timer.a = timerWave, a
	}
	a.r, a.set, a.size, a.began = r, r.set, size, s.c.now
	a.esn = r.win.push(a)
	if a.esn > s.c.cfg.ESNMax {
		panic("BUG: an ESN beyond the last")
	}
	a.out = a.wave1.reserve(len(copyset))
	rec := &a.out.rec
	rec.Log, rec.Lsn, rec.TimestampMs = uint64(s.log), uint64(logs.MakeLSN(r.epoch, a.esn)), r.stamp()
	rec.CountBefore, rec.Count = r.payloads, p.count
	rec.Producer, rec.Sequence = req.Producer, req.Sequence
	rec.FindKey, rec.FilterKey = req.FindKey, req.FilterKey
	rec.Payload, rec.Checksum = req.Payload, req.Checksum
	rec.Flags = recordFlags(s, req, a.esn)
	if p.gathered != nil {
		rec.Origins = p.gathered.origins
	} else if req.Producer != 0 {
		if ss := s.sessions[req.Producer]; ss != nil && s.crosses(ss, req) {
			panic("BUG: Q12: a stream goes on in an epoch, and has not ended in the one before")
		}
		s.remember(req, a)
	}
	r.payloads += uint64(p.count)
	r.bytes += uint64(len(req.Payload))
	s.c.share.bytes.Add(size)
	s.c.inFlight++
	s.arm(timerAnswer, s.c.cfg.MissingWait)
	s.c.m.Records.Add(1)
	s.c.m.Payloads.Add(uint64(p.count))
	s.c.m.PayloadBytes.Add(uint64(len(req.Payload)))
	return a
}

func recordFlags(s *sequencer, req *wire.AppendRequest, esn logs.ESN) uint32 {
	var f uint32
	if req.Flags&logs.AppendBatch != 0 {
		f |= logs.FlagBatch
	}
	if req.Flags&logs.AppendProducer != 0 {
		f |= logs.FlagProducer
	}
	if ordered(req) {
		f |= logs.FlagStream
	}
	if s.attrs.GetStickyCopysets() {
		f |= logs.FlagSticky
	}
	if esn == logs.ESNMin {
		f |= logs.FlagEpochBegin
	}
	return f
}
