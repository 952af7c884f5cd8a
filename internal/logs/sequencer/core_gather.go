package sequencer

import (
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// gathering is sequencer batching: appends of many clients that share a record.
// What clients batched themselves is taken apart and batched again. The appender
// exists from the first one on, so that a retry joins it like any other.
type gathering struct {
	a       *appender
	builder logs.BatchBuilder
	alone   pending // while there is one append only: it needs no batch
	n       int
	stream  bool // one of them is to be kept in order, and so the record is
	origins []*wire.Origin
	began   time.Duration
	// epoch is the reign that found these appends to be new. Another cannot take its
	// word: they may have been stored in between.
	epoch logs.Epoch
}

// gather is step 4: done if the append is in a batch, or was answered; wait if a
// batch before it has to wait. What cannot share a record closes the batch before it.
func (s *sequencer) gather(p *pending) (done, wait bool) {
	a := s.attrs
	if !a.GetSequencerBatching() {
		return s.closeBefore(p)
	}
	alone := p.req.Flags&(logs.AppendConditional|logs.AppendProbe) != 0 || p.req.FindKey != nil || p.req.FilterKey != nil ||
		len(p.req.Payload) >= passThrough(a)
	body := logs.BatchedSize(len(p.req.Payload))
	if g := s.gathered; g != nil && (alone || !g.builder.Fits(int(p.count), body) ||
		logs.BatchSize(g.builder.Bytes()+body) > int(a.GetMaxPayloadBytes())) {
		if done, wait := s.closeBefore(p); done || wait {
			return done, wait
		}
	}
	if alone {
		return false, false
	}
	if !s.c.room(p.size()) || s.gathered == nil && s.cur.full(p.size()) != "" {
		s.c.m.SeqNoBufs.Add(1)
		s.refuse(p, wire.LogStatus_LOG_STATUS_SEQNOBUFS, "the log has as much in flight as it may")
		return true, false
	}
	if !s.join(p) {
		s.refuse(p, wire.LogStatus_LOG_STATUS_BAD_PAYLOAD, "a batch that is not whole")
		return true, false
	}
	if s.gathered.builder.Bytes() >= int(a.GetSequencerBatchingBytes()) || s.c.tight() {
		s.flushGathered()
	}
	return true, false
}

// closeBefore lets the batch go that is open, before an append which does not
// join it. If the batch was refused, so may the append have to be (Q9).
func (s *sequencer) closeBefore(p *pending) (done, wait bool) {
	if s.gathered == nil {
		return false, false
	}
	if !s.flushGathered() {
		return false, true
	}
	if p.req.Producer != 0 && p.req.Flags&(logs.AppendProducer|logs.AppendProbe) == 0 {
		return s.outOfOrder(s.session(p.req.Producer), p), false
	}
	return false, false
}

// passThrough is the size from which on a payload gains nothing by batching.
func passThrough(a *catalog.LogAttributes) int {
	if n := a.GetSequencerBatchingPassthroughBytes(); n > 0 {
		return int(n)
	}
	return int(a.GetSequencerBatchingBytes())
}

// join adds an append to the batch that is open, or opens one.
func (s *sequencer) join(p *pending) bool {
	c := s.c
	g := s.gathered
	if g == nil {
		g = &gathering{a: &appender{}, began: c.now, alone: *p, epoch: s.cur.epoch}
		g.a.timer.kind, g.a.timer.a, g.a.gathered = timerWave, g.a, g
	}
	if p.req.Flags&logs.AppendBatch != 0 {
		if g.builder.AddBatch(p.req.Payload) != nil {
			return false
		}
	} else {
		g.builder.Add(p.req.Payload)
	}
	g.n++
	g.stream = g.stream || ordered(p.req)
	g.a.more = append(g.a.more, waiter{p.reply, p.req})
	if p.req.Producer != 0 {
		o := &wire.Origin{Producer: p.req.Producer, Sequence: p.req.Sequence}
		if p.req.Flags&logs.AppendProducer != 0 {
			o.Flags = logs.FlagProducer
		}
		g.origins = append(g.origins, o)
		s.remember(p.req, g.a)
	}
	if s.gathered == nil {
		s.gathered = g
		s.arm(timerGather, max(time.Duration(s.attrs.GetSequencerBatchingTimeMs())*time.Millisecond, wheelTick))
	}
	return true
}

// flushGathered closes the batch: it goes on as one append, before all that waits,
// for that came later; false: it waits itself.
func (s *sequencer) flushGathered() bool {
	g := s.gathered
	if g == nil {
		return true
	}
	s.gathered = nil
	p := pending{req: g.request(s), count: uint32(g.builder.Count()), arrived: g.began, gathered: g}
	if s.admit(&p) {
		return true
	}
	s.enqueueAt(s.drainAt, p)
	return false
}

// request makes the append that stands for all that were gathered.
func (g *gathering) request(s *sequencer) *wire.AppendRequest {
	if g.n == 1 {
		q := g.alone.req
		g.origins = nil
		return &wire.AppendRequest{Log: q.Log, Payload: q.Payload, Checksum: q.Checksum, Count: q.Count, Producer: q.Producer, Sequence: q.Sequence,
			Flags: q.Flags & (logs.AppendBatch | logs.AppendProducer | logs.AppendStream)}
	}
	flags := logs.AppendBatch
	if g.stream {
		flags |= logs.AppendStream
	}
	payload := g.builder.AppendTo(nil, s.attrs.GetSequencerBatchingCompression())
	s.c.m.BatchesMade.Add(1)
	return &wire.AppendRequest{Log: uint64(s.log), Payload: payload, Checksum: logs.Checksum(payload), Count: uint32(g.builder.Count()), Flags: flags}
}

// dissolve takes a batch apart that a former epoch gathered: each append is
// looked at anew.
func (s *sequencer) dissolve(g *gathering) {
	s.forgetGathered(g)
	waiters := g.a.more
	g.a.more = nil
	for _, w := range waiters {
		p := pending{req: w.req, reply: w.reply, count: max(w.req.Count, 1), arrived: g.began}
		if !s.admit(&p) {
			s.enqueue(p)
		}
	}
}

// tell answers everybody in a batch that got no LSN.
func (g *gathering) tell(s *sequencer, r *wire.AppendResponse) {
	for _, w := range g.a.more {
		one := &wire.AppendResponse{Status: r.Status, Redirect: r.Redirect, Epoch: r.Epoch, Message: r.Message, Log: r.Log}
		s.c.answer(w.reply, one)
	}
	g.a.more = nil
}

// forgetGathered takes a batch that got no LSN out of its producers' sessions.
func (s *sequencer) forgetGathered(g *gathering) {
	take := func(producer, sequence uint64) {
		ss := s.sessions[producer]
		if ss == nil {
			return
		}
		if i, found := ss.find(sequence); found && ss.entries[i].a == g.a {
			ss.entries = append(ss.entries[:i], ss.entries[i+1:]...)
			if ss.explicit && ss.last == sequence { // it took nothing: the one before is the last again
				ss.last--
			}
		}
	}
	for i := len(g.origins) - 1; i >= 0; i-- {
		take(g.origins[i].Producer, g.origins[i].Sequence)
	}
	if len(g.origins) == 0 && g.alone.req.Producer != 0 {
		take(g.alone.req.Producer, g.alone.req.Sequence)
	}
}
