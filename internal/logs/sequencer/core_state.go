package sequencer

import (
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// stateRequest is somebody's question about a log's sequencer.
type stateRequest struct {
	req     *wire.SequencerStateRequest
	reply   func(*wire.SequencerStateResponse)
	arrived time.Duration
	checked bool // the seals of a copyset have been asked for, and stand
	asking  int  // answers to come
	failed  int
}

type stateAnswer struct {
	reply func(*wire.SequencerStateResponse)
	resp  *wire.SequencerStateResponse
}

func (c *core) answerState(q *stateRequest, r *wire.SequencerStateResponse) {
	c.fx.states = append(c.fx.states, stateAnswer{q.reply, r})
}

// wanted is the least epoch whose reign may answer. Whoever asks for the end of one
// epoch is served by any later one, so that of many who ask only the first costs a
// reign (Q10).
func (q *stateRequest) wanted() logs.Epoch {
	e := logs.Epoch(q.req.SeenEpoch)
	if q.req.Flags&logs.StateEndSeen != 0 && e < logs.EpochMax {
		e++
	}
	return e
}

// askedState takes a question, which activates the sequencer as an append does.
func (c *core) askedState(q *stateRequest) {
	log := logs.LogID(q.req.Log)
	q.arrived = c.now
	refuse := func(st wire.LogStatus, to catalog.NodeID, text string) {
		c.answerState(q, &wire.SequencerStateResponse{Status: st, Redirect: uint64(to), Message: text, State: StateUnavailable.String()})
	}
	self, ok := c.cluster.Node(c.self)
	attrs, known := c.attributes(log)
	s := c.logs[log]
	switch {
	case c.closed || c.stopping:
		refuse(wire.LogStatus_LOG_STATUS_SHUTDOWN, 0, "the node is stopping")
		return
	case !ok || !self.Sequencer || self.Starting:
		refuse(wire.LogStatus_LOG_STATUS_NOT_READY, 0, "the node is no sequencer, or not yet")
		return
	case c.cluster.Isolated:
		refuse(wire.LogStatus_LOG_STATUS_ISOLATED, 0, "the node cannot see a majority of the cluster")
		return
	case !known || !log.Valid():
		refuse(wire.LogStatus_LOG_STATUS_NOT_FOUND, 0, "no such log")
		return
	}
	if to, st := c.elsewhere(s, log, attrs, q.req.Flags&logs.StateNoRedirect != 0); st != wire.LogStatus_LOG_STATUS_OK {
		refuse(st, to, "")
		return
	}
	if s == nil && q.req.Flags&logs.StateNoActivate != 0 {
		refuse(wire.LogStatus_LOG_STATUS_NOT_READY, 0, "no sequencer of the log is active here")
		return
	}
	s = c.sequencerOf(log, attrs)
	s.states = append(s.states, q)
	s.answerStates()
	s.arm(timerLookup, c.cfg.RecoveryRetry)
}

// answerStates answers the questions that can be answered now.
func (s *sequencer) answerStates() {
	if len(s.states) == 0 {
		return
	}
	waiting := s.states
	s.states = nil
	for _, q := range waiting {
		if !s.answerOne(q) {
			s.states = append(s.states, q)
		}
	}
}

// answerOne answers a question, or says that it waits.
func (s *sequencer) answerOne(q *stateRequest) bool {
	c, r, f := s.c, s.cur, q.req.Flags
	switch {
	case s.failure != nil && c.now < s.failure.until:
		c.answerState(q, &wire.SequencerStateResponse{Status: s.failure.status, Message: s.failure.text, State: s.state.String()})
		return true
	case (s.state == StatePreempted || r != nil && r.preempted) && (s.act == nil || s.act.verifying):
		n, ok := c.cluster.Node(s.preempt.by)
		if ok && n.Alive && s.preempt.by != c.self && f&logs.StateReactivateIfPreempted == 0 {
			c.answerState(q, &wire.SequencerStateResponse{Status: wire.LogStatus_LOG_STATUS_PREEMPTED, Redirect: uint64(s.preempt.by), State: s.state.String(),
				NodesPreemptedBy: uint64(s.preempt.by)})
			return true
		}
		s.activate(causePreempted, s.preempt.seal+1)
		return false
	case r == nil || !r.accepts() && !c.stopping || r.epoch < q.wanted():
		if f&logs.StateNoActivate != 0 && s.act == nil {
			c.answerState(q, s.describe(q, wire.LogStatus_LOG_STATUS_NOT_READY))
			return true
		}
		why := causeNew
		if r != nil && r.accepts() {
			if why = causeSeenEpoch; f&logs.StateEndSeen != 0 {
				why = causeDoubt
			}
		}
		s.activate(why, logs.Epoch(q.req.SeenEpoch))
		return false
	}
	if f&logs.StateCheckSeal != 0 && !q.checked {
		s.checkSeal(q)
		return false
	}
	if f&logs.StateMetadata != 0 && (s.history == nil || !s.history.loaded) && r.since > logs.EpochMin {
		s.loadHistory()
		return c.now >= q.arrived+c.cfg.AppendWait && s.answerLate(q)
	}
	if q.req.Producer != 0 && !s.producerKnown(q) {
		return c.now >= q.arrived+c.cfg.AppendWait && s.answerLate(q)
	}
	c.answerState(q, s.describe(q, wire.LogStatus_LOG_STATUS_OK))
	return true
}

func (s *sequencer) answerLate(q *stateRequest) bool {
	s.c.answerState(q, s.describe(q, wire.LogStatus_LOG_STATUS_AGAIN))
	return true
}

// producerKnown says whether the last sequence of the producer asked for is known.
func (s *sequencer) producerKnown(q *stateRequest) bool {
	ss := s.session(q.req.Producer)
	if !ss.explicit && len(ss.entries) == 0 && s.forgotten == 0 {
		return true
	}
	ss.explicit = true
	if s.forgotten == 0 && !ss.lastKnown {
		ss.lastKnown, ss.fresh = true, true
	}
	if ss.lastKnown {
		return true
	}
	if ss.lookup == nil && len(ss.held) == 0 && s.cur.recovered {
		s.lookUpLast(ss)
	}
	return false
}

// checkSeal makes sure that nobody newer reigns: a copyset none of whose shards
// knows of a later epoch meets every f-majority.
func (s *sequencer) checkSeal(q *stateRequest) {
	if q.asking > 0 {
		return
	}
	c, r := s.c, s.cur
	copyset, ok := c.pick(r.set, nil)
	if !ok {
		return // asked again when the timer rings, or a shard is there
	}
	q.asking, q.failed = len(copyset), 0
	for _, sh := range copyset {
		c.ask(shardCall{shard: sh, seal: &wire.CheckSealRequest{Log: uint64(s.log), Epoch: uint32(r.epoch), Shard: uint64(sh)}}, func(answer any, err error) {
			q.asking--
			a, ok := answer.(*wire.CheckSealResponse)
			switch {
			case err != nil || !ok || a.Status != wire.LogStatus_LOG_STATUS_OK && a.Status != wire.LogStatus_LOG_STATUS_NOT_FOUND:
				q.failed++
			case logs.Epoch(a.SealEpoch) >= r.epoch:
				r.preemptedBy(catalog.NodeID(a.SealedBy), logs.Epoch(a.SealEpoch))
			default:
				s.trimmed = max(s.trimmed, logs.LSN(a.TrimPoint))
			}
			if q.asking == 0 && !s.gone {
				q.checked = q.failed == 0 && s.cur == r
				s.answerStates()
			}
		})
	}
}

// describe is what there is to say.
func (s *sequencer) describe(q *stateRequest, st wire.LogStatus) *wire.SequencerStateResponse {
	out := &wire.SequencerStateResponse{Status: st, State: s.state.String(), LastReleased: uint64(s.released), TrimPoint: uint64(s.trimmed), NodesPreemptedBy: uint64(s.preempt.by)}
	if s.act != nil {
		out.Message = s.act.trouble
	}
	r := s.cur
	if r == nil {
		return out
	}
	out.Epoch, out.LastKnownGood, out.Next = uint32(r.epoch), uint32(r.lng), uint64(logs.MakeLSN(r.epoch, r.win.next))
	out.InFlight, out.Recovering, out.Tail = uint32(r.win.len()), !r.recovered, r.tailRecord()
	for e := r.win.front; e != r.win.next; e++ {
		out.BytesInFlight += uint64(r.win.at(e).size)
	}
	if q.req.Flags&logs.StateMetadata != 0 {
		out.Metadata = s.allMetadata()
	}
	if ss := s.sessions[q.req.Producer]; q.req.Producer != 0 && ss != nil {
		out.LastSequence = ss.last
		for _, e := range ss.entries {
			if e.sequence == ss.last {
				out.LastSequenceLsn = uint64(e.lsn)
			}
		}
	}
	return out
}

// describes is what the reign's epoch is replicated by.
func (r *reign) describes() *wire.EpochMetadata {
	m := &wire.EpochMetadata{Epoch: uint32(r.epoch), EffectiveSince: uint32(r.since), Replication: r.set.replication, Written: r.readable}
	for _, sh := range r.set.shards {
		m.Nodeset = append(m.Nodeset, uint64(sh.Shard))
		m.Weights = append(m.Weights, sh.Weight)
		m.Locations = append(m.Locations, sh.Location)
	}
	return m
}

// allMetadata is what the log's epochs were and are replicated by.
func (s *sequencer) allMetadata() []*wire.EpochMetadata {
	h := history{}
	if s.history != nil {
		h.merge(s.history.entries)
	}
	h.merge([]*wire.EpochMetadata{s.cur.describes()})
	return h.entries
}
