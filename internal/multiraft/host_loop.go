package multiraft

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/braiddb/braid/internal/journal"
	"github.com/braiddb/braid/internal/wire"
)

// loop is one goroutine around one core.
type loop struct {
	h       *Host
	index   int
	core    *core
	mail    mailbox
	applier *applier
	journal appends

	spare       []event       // an emptied slice to collect events in
	beatPending atomic.Int64  // when the beat was posted that the loop has yet to take; 0: none
	armed       time.Duration // when the timer will fire; 0: it is not set
	disarm      func() bool
}

func newLoop(h *Host, c *core) *loop {
	l := &loop{h: h, index: len(h.loops), core: c}
	l.mail.wake = make(chan struct{}, 1)
	l.applier = &applier{l: l, wake: make(chan struct{}, 1)}
	l.journal.l = l
	return l
}

// mailbox holds what has happened until the loop takes it. Its bounds are those
// of what posts: proposals and messages by bytes, the rest by what is under way.
type mailbox struct {
	mu     sync.Mutex
	events []event
	closed bool
	wake   chan struct{}
	bytes  atomic.Int64 // of peers' messages that wait
}

// mailBytesMax bounds the messages of peers that wait for a loop. What comes
// beyond is dropped, as a network would: raft sends it again.
const mailBytesMax = 64 << 20

// postBatch gives the loop a peer's messages, unless too many wait.
func (l *loop) postBatch(b *inBatch) {
	if l.mail.bytes.Add(b.bytes) > mailBytesMax {
		l.mail.bytes.Add(-b.bytes)
		l.h.metrics.MailDropped.Add(uint64(len(b.msgs)))
		return
	}
	l.post(event{kind: evBatch, batch: b})
}

// post gives the loop an event. A loop that has ended refuses it.
func (l *loop) post(e event) {
	m := &l.mail
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		l.refuse(&e)
		return
	}
	m.events = append(m.events, e)
	first := len(m.events) == 1
	m.mu.Unlock()
	if first {
		l.wake()
	}
}

// wake makes the loop look into its mailbox.
func (l *loop) wake() {
	if l.h.d.Tasks != nil {
		l.h.d.Tasks(l.task)
		return
	}
	select {
	case l.mail.wake <- struct{}{}:
	default:
	}
}

// take waits for events. spare is an emptied slice to collect the next ones in.
func (m *mailbox) take(spare []event) ([]event, bool) {
	for {
		m.mu.Lock()
		events, closed := m.events, m.closed
		if len(events) > 0 {
			m.events = spare
		}
		m.mu.Unlock()
		switch {
		case closed:
			return events, false
		case len(events) > 0:
			return events, true
		}
		<-m.wake
	}
}

// run is the loop, on a goroutine of its own.
func (l *loop) run() {
	defer l.h.wg.Done()
	for {
		events, ok := l.mail.take(l.spare)
		if !ok || l.h.fatal.Load() {
			l.stop(append(events, l.mail.close()...))
			return
		}
		l.turn(events)
	}
}

// task is one turn of a loop that has no goroutine.
func (l *loop) task() {
	m := &l.mail
	m.mu.Lock()
	events := m.events
	m.events = l.spare
	m.mu.Unlock()
	if len(events) > 0 && !l.h.fatal.Load() {
		l.turn(events)
	}
}

// turn takes what happened, lets the core step, and carries out what it asks.
// Messages leave before the append is handed over, so that followers write
// while this node does.
func (l *loop) turn(events []event) {
	began := l.h.d.Mono()
	fx := l.core.step(began, events)
	l.h.metrics.Turns.Add(1)
	l.send(fx)
	l.append(fx)
	l.dispatch(fx)
	l.setTimer(fx.timer)
	l.tookBeat(events)
	l.core.pace = max(l.core.pace*7/8, l.h.d.Mono()-began)
	clear(events)
	l.spare = events[:0]
}

func (l *loop) tookBeat(events []event) {
	for i := range events {
		switch e := &events[i]; e.kind {
		case evBeat:
			l.beatPending.Store(0)
		case evBatch:
			l.mail.bytes.Add(-e.batch.bytes)
		}
	}
}

// send hands messages to the transport.
func (l *loop) send(fx *effects) {
	for _, b := range fx.batches {
		l.h.metrics.BatchesSent.Add(1)
		l.h.metrics.EnvelopesSent.Add(uint64(len(b.batch.Envelopes)))
		l.h.d.Transport.SendBatch(b.to, b.batch)
	}
	for _, b := range fx.beats {
		l.h.d.Transport.SendBeat(b.to, b.beat)
	}
}

// append hands the turn's records to the journal.
func (l *loop) append(fx *effects) {
	if len(fx.records) > 0 {
		l.h.metrics.JournalAppends.Add(1)
		l.journal.add(fx.turn, fx.records)
	}
}

// dispatch hands out everything that is neither message nor record.
func (l *loop) dispatch(fx *effects) {
	for _, t := range fx.applies {
		l.applier.push(work{task: t})
	}
	for i := range fx.answers {
		l.h.finish(fx.answers[i].p, fx.answers[i].r)
	}
	for _, t := range fx.snapshots {
		l.stream(t)
	}
	for _, t := range fx.giveUps {
		t.cancel()
	}
	for _, t := range fx.restores {
		l.restore(t)
	}
	for _, s := range fx.discards {
		if err := s.Close(); err != nil {
			l.h.d.Logger.Warn("an incoming snapshot's spool does not close", "error", err)
		}
	}
	l.ask(fx.queries)
	for _, w := range fx.lowWaters {
		l.h.d.Journal.SetLowWater(w.stream, w.pos)
	}
	for _, g := range fx.removed {
		if l.h.d.Removed != nil {
			l.h.d.Removed(g.id, g.replica)
		}
	}
	for _, g := range fx.destroyed {
		l.applier.push(work{destroy: g})
	}
}

// ask sends the questions of a turn, one message per node.
func (l *loop) ask(queries []tailQuery) {
	for len(queries) > 0 {
		to := queries[0].to
		msg := &wire.TailQuery{FromNode: uint64(l.h.d.Node)}
		rest := queries[:0]
		for _, q := range queries {
			if q.to == to && len(msg.Groups) < beatsPerMessage {
				msg.Groups = append(msg.Groups, q.state)
			} else {
				rest = append(rest, q)
			}
		}
		queries = rest
		l.h.d.Transport.TailQuery(to, msg, func(a *wire.TailAnswer, err error) {
			if err != nil {
				return // asked again next beat
			}
			for _, s := range a.Groups {
				l.post(event{kind: evTail, tail: &tailEvent{from: to, state: s}})
			}
		})
	}
}

// setTimer makes the loop wake at the time its core asked for.
func (l *loop) setTimer(at time.Duration) {
	now := l.h.d.Mono()
	if l.armed != 0 && l.armed <= now {
		l.armed = 0 // it has fired
	}
	if at == 0 || l.armed != 0 && l.armed <= at {
		return
	}
	if l.disarm != nil {
		l.disarm()
	}
	l.armed = at
	l.disarm = l.h.d.Timer.AfterFunc(max(at-now, 0), func() { l.post(event{kind: evTimer}) })
}

// close makes the mailbox refuse, and empties it.
func (m *mailbox) close() []event {
	m.mu.Lock()
	defer m.mu.Unlock()
	events := m.events
	m.closed, m.events = true, nil
	return events
}

// refuse answers an event that no loop will take.
func (l *loop) refuse(e *event) {
	if l.h.fatal.Load() {
		return // after a fatal fault nothing is answered
	}
	switch e.kind {
	case evPropose:
		l.h.finish(e.proposal, ProposalResult{Err: ErrStopped})
	case evChange:
		e.change.finish(ErrStopped)
	case evAsked:
		e.tail.reply(&wire.TailState{Group: e.tail.state.Group, Replica: e.tail.state.Replica})
	case evSnapshot:
		_ = e.snapshot.spool.Close() // nothing of it was used
	case evRestored:
		_ = e.restore.spool.Close() // nothing needs it any more
	}
}

// stop ends the loop: what it still holds gets no promise of an outcome.
func (l *loop) stop(events []event) {
	if l.disarm != nil {
		l.disarm()
	}
	if l.h.fatal.Load() {
		return // after a fatal fault nothing is answered
	}
	for i := range events {
		l.refuse(&events[i])
	}
	for _, g := range l.core.order {
		for _, p := range g.waiting {
			l.h.finish(p, ProposalResult{Err: ErrStopped})
		}
		for _, e := range g.pending {
			for _, p := range e.proposals {
				l.h.finish(p, ProposalResult{HybridTime: e.time, Index: e.index, Err: ErrUnknownOutcome})
			}
		}
		g.failChange(ErrStopped)
		g.waiting, g.pending = nil, nil
	}
}

// close ends the loop's goroutines, or, where none ran, its groups.
func (l *loop) close(started bool) {
	if !started {
		l.stop(l.mail.close())
		return
	}
	l.mail.mu.Lock()
	l.mail.closed = true
	l.mail.mu.Unlock()
	select {
	case l.mail.wake <- struct{}{}:
	default:
	}
	l.applier.close()
}

// appends are the loop's appends on their way to the journal, in order. A full
// disk refuses entries for a while: then the refused append and all after it
// are written again, in order, and meanwhile nothing of them counts as durable.
type appends struct {
	l  *loop
	mu struct {
		sync.Mutex
		jobs      []*appendJob // not known to be durable, by turn
		flying    int          // handed to the journal, which has yet to answer
		blocked   bool         // one was refused
		rewriting bool         // again is at work: what comes meanwhile queues behind
	}
}

type appendJob struct {
	turn    uint64
	recs    []journal.Record
	handed  bool
	durable bool
}

func (a *appends) add(turn uint64, recs []journal.Record) {
	j := &appendJob{turn: turn, recs: recs}
	a.mu.Lock()
	a.mu.jobs = append(a.mu.jobs, j)
	hold := a.mu.blocked || a.mu.rewriting
	if !hold {
		j.handed = true
		a.mu.flying++
	}
	a.mu.Unlock()
	if !hold {
		a.l.h.d.Journal.Append(recs, func(err error) { a.done(j, err) })
	}
}

// done takes the journal's word for one append.
func (a *appends) done(j *appendJob, err error) {
	if a.l.h.fatal.Load() {
		return
	}
	if err != nil && !errors.Is(err, journal.ErrNoSpace) {
		a.l.h.fail(fmt.Errorf("multiraft: journal: %w", err))
		return
	}
	a.mu.Lock()
	a.mu.flying--
	j.durable = err == nil
	if err != nil {
		a.mu.blocked = true
	}
	turn := uint64(0)
	for !a.mu.blocked && len(a.mu.jobs) > 0 && a.mu.jobs[0].durable {
		turn = a.mu.jobs[0].turn
		a.mu.jobs[0] = nil
		a.mu.jobs = a.mu.jobs[1:]
	}
	retry := a.retryLocked()
	a.mu.Unlock()
	if turn != 0 {
		a.l.post(event{kind: evDurable, turn: turn})
	}
	if retry {
		a.l.h.d.Timer.AfterFunc(a.l.h.cfg.Beat, a.again)
	}
}

// retryLocked says that it is time to plan the next attempt: one append was
// refused, none is under way and none is about to be.
func (a *appends) retryLocked() bool { return a.mu.blocked && a.mu.flying == 0 && !a.mu.rewriting }

// again writes everything anew from the first refused append on. Entries of
// later appends may already be there: each stream's tail is voided first. What
// the loop adds meanwhile is written in its turn, never before what is older.
func (a *appends) again() {
	if a.l.h.fatal.Load() || a.l.h.ctx.Err() != nil {
		return
	}
	a.mu.Lock()
	a.mu.blocked, a.mu.rewriting = false, true
	for _, j := range a.mu.jobs {
		j.handed, j.durable = false, false
	}
	a.mu.Unlock()
	pointRewritten.Reach()
	voided := make(map[journal.StreamID]bool)
	for j := a.nextJob(); j != nil; j = a.nextJob() {
		recs := voiding(j.recs, voided)
		a.l.h.d.Journal.Append(recs, func(err error) { a.done(j, err) })
	}
}

// nextJob is the oldest append that is to be handed over, nil once none is left
// or one was refused again.
func (a *appends) nextJob() *appendJob {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.mu.blocked {
		for _, j := range a.mu.jobs {
			if !j.handed {
				j.handed = true
				a.mu.flying++
				return j
			}
		}
	}
	a.mu.rewriting = false
	if a.retryLocked() {
		a.l.h.d.Timer.AfterFunc(a.l.h.cfg.Beat, a.again)
	}
	return nil
}

// voiding puts a truncation before the first entry of every stream.
func voiding(recs []journal.Record, voided map[journal.StreamID]bool) []journal.Record {
	var out []journal.Record
	for _, r := range recs {
		if r.Kind == journal.KindEntry && !voided[r.Stream] {
			voided[r.Stream] = true
			out = append(out, journal.Record{Stream: r.Stream, Kind: journal.KindTruncate, Pos: r.Pos})
		}
		out = append(out, r)
	}
	return out
}
