package sequencer

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/braiddb/braid/internal/wire"
)

// loop steps one core. Whoever posts an event to an idle loop steps it: an
// append on a quiet node costs no change of goroutine. Where much is in flight
// events are left to the loop's goroutine instead, which takes all that have
// gathered in one turn, so that copies to one node leave together.
type loop struct {
	h     *Host
	index int
	core  *core
	wake  chan struct{}
	done  chan struct{}
	// busy is how many records were in flight after the last turn.
	busy   atomic.Int64
	tasked bool // without a goroutine: a task is on its way

	mu struct {
		sync.Mutex
		events  []event
		running bool // somebody steps the core
		started bool
		closed  bool
	}
	// What follows belongs to whoever runs.
	spare   []event
	armed   time.Duration // when the timer will fire; 0: it is not set
	disarm  func() bool
	cancels map[uint64]func() // recoveries under way
	ending  bool
}

func newLoop(h *Host, c *core) *loop {
	return &loop{h: h, index: len(h.loops), core: c, wake: make(chan struct{}, 1), done: make(chan struct{}), cancels: make(map[uint64]func())}
}

func (l *loop) start() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.mu.started && !l.mu.closed {
		l.mu.started = true
		if l.h.d.Tasks == nil {
			go l.work()
		}
		l.rouse()
	}
}

// post gives the loop an event. A loop that has ended refuses it: appends and
// questions are answered, everything else is dropped.
func (l *loop) post(e event) bool {
	l.mu.Lock()
	if l.mu.closed {
		l.mu.Unlock()
		l.refuse(&e)
		return false
	}
	l.mu.events = append(l.mu.events, e)
	inline := l.mu.started && !l.mu.running && int(l.busy.Load()) < l.h.cfg.InlineMax
	if inline {
		l.mu.running = true
	}
	first := len(l.mu.events) == 1
	l.mu.Unlock()
	switch {
	case inline:
		if l.turn() { // more came meanwhile
			l.rouse()
		}
	case first:
		l.rouse()
	}
	return true
}

func (l *loop) rouse() {
	if tasks := l.h.d.Tasks; tasks != nil {
		if !l.tasked {
			l.tasked = true
			tasks(l.task)
		}
		return
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// task is a turn of a loop that has no goroutine.
func (l *loop) task() {
	l.tasked = false
	if l.claim() && l.turn() {
		l.rouse()
	}
}

// work is the loop's goroutine.
func (l *loop) work() {
	defer close(l.done)
	for range l.wake {
		for l.claim() && l.turn() {
		}
		l.mu.Lock()
		over := l.mu.closed && !l.mu.running
		l.mu.Unlock()
		if over {
			return
		}
	}
}

// claim says whether a turn is wanted that nobody takes; then it is the caller's.
func (l *loop) claim() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	mine := l.mu.started && !l.mu.running && len(l.mu.events) > 0
	if mine {
		l.mu.running = true
	}
	return mine
}

// turn takes what happened, lets the core step and carries out what it asks. The
// caller has set running; turn clears it. It says whether more has come.
func (l *loop) turn() bool {
	l.mu.Lock()
	events := l.mu.events
	l.mu.events = l.spare
	l.mu.Unlock()
	fx := l.core.step(l.h.d.Mono(), l.h.d.WallMs(), events)
	l.h.metrics.Turns.Add(1)
	l.busy.Store(int64(l.core.inFlight))
	l.carryOut(fx)
	clear(events)
	if l.spare = events[:0]; cap(events) > burst {
		l.spare = nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.running = false
	return len(l.mu.events) > 0 || l.mu.closed // work ends once nobody runs
}

// carryOut does what a turn asks for. Copies leave before answers: what is in
// flight is what others wait for.
func (l *loop) carryOut(fx *effects) {
	d := &l.h.d
	for _, b := range fx.batches {
		d.Stores.SendStores(b.node, &b.parcel.batch)
	}
	for _, a := range fx.answers {
		a.reply(a.resp)
	}
	for _, a := range fx.states {
		a.reply(a.resp)
	}
	for _, r := range fx.reads {
		d.EpochStore.Read(r.log, func(rec *wire.EpochRecord, err error) {
			l.post(event{kind: evRead, log: r.log, token: r.token, record: rec, err: err})
		})
	}
	for _, s := range fx.swaps {
		d.EpochStore.CompareAndSet(s.log, s.expect, s.next, func(err error) {
			l.post(event{kind: evSwapped, log: s.log, token: s.token, err: err})
		})
	}
	l.recover(fx)
	for _, q := range fx.calls {
		l.call(q)
	}
	for _, n := range fx.notices {
		l.log(n)
	}
	if fx.fatal != nil && d.Fatal != nil {
		d.Fatal(fx.fatal)
	}
	l.setTimer(fx.timer)
}

func (l *loop) recover(fx *effects) {
	for _, token := range fx.cancels {
		if cancel := l.cancels[token]; cancel != nil {
			delete(l.cancels, token)
			cancel()
		}
	}
	for _, r := range fx.recoveries {
		log := r.args.Log
		l.cancels[r.token] = l.h.d.Recoverer.Recover(r.args, func(res RecoveryResult, err error) {
			l.post(event{kind: evCall, call: func(c *core) {
				delete(l.cancels, r.token)
				c.take(&event{kind: evRecovered, log: log, token: r.token, result: &res, err: err})
			}})
		})
	}
}

// errNoAnswer is what a nil response without an error counts as.
var errNoAnswer = errors.New("sequencer: the shard gave no answer")

// call asks a shard.
func (l *loop) call(q shardCall) {
	post := func(answer any, err error) {
		l.post(event{kind: evAnswered, token: q.token, answer: answer, err: err})
	}
	s := l.h.d.Stores
	switch {
	case q.seal != nil:
		s.CheckSeal(q.shard, q.seal, func(r *wire.CheckSealResponse, err error) { post(r, orNoAnswer(r == nil, err)) })
	case q.lookup != nil:
		s.ProducerLookup(q.shard, q.lookup, func(r *wire.ProducerLookupResponse, err error) { post(r, orNoAnswer(r == nil, err)) })
	case q.metadata != nil:
		s.ReadMetadata(q.shard, q.metadata, func(r *wire.ReadMetadataResponse, err error) { post(r, orNoAnswer(r == nil, err)) })
	}
}

func orNoAnswer(none bool, err error) error {
	if none && err == nil {
		return errNoAnswer
	}
	return err
}

func (l *loop) log(n Notice) {
	args := []any{"log", uint64(n.Log), "epoch", uint32(n.Epoch), "node", uint64(n.Node)}
	if n.Message != "" {
		args = append(args, "why", n.Message)
	}
	if n.Grave {
		l.h.d.Logger.Error("sequencer: "+n.What, args...)
	} else {
		l.h.d.Logger.Debug("sequencer: "+n.What, args...)
	}
}

// setTimer makes the loop wake at the time its core asked for.
func (l *loop) setTimer(at time.Duration) {
	now := l.h.d.Mono()
	if l.armed != 0 && l.armed <= now {
		l.armed = 0 // it has fired
	}
	if at == 0 || l.armed != 0 && l.armed <= at || l.ending {
		return
	}
	if l.disarm != nil {
		l.disarm()
	}
	l.armed = at
	l.disarm = l.h.d.AfterFunc(max(at-now, 0), func() { l.post(event{kind: evTimer}) })
}

// ask has the core answer a question; of a loop that has ended there is no answer.
func ask[T any](l *loop, question func(*core) T) (answer T) {
	got := make(chan T, 1)
	if !l.post(event{kind: evCall, call: func(c *core) { got <- question(c) }}) {
		return answer
	}
	if l.h.d.Tasks != nil {
		l.task() // nobody else will while it is waited for
	}
	return <-got
}

// refuse answers an event that the loop will not take.
func (l *loop) refuse(e *event) {
	switch e.kind {
	case evAppend:
		e.append.reply(&wire.AppendResponse{Status: wire.LogStatus_LOG_STATUS_SHUTDOWN, Log: e.append.req.Log, Message: "the node is stopping"})
	case evState:
		e.state.reply(&wire.SequencerStateResponse{Status: wire.LogStatus_LOG_STATUS_SHUTDOWN, State: StateUnavailable.String()})
	}
}

// close lets the core answer all that waits, and ends the goroutine.
func (l *loop) close() {
	closing := make(chan struct{})
	l.mu.Lock()
	started := l.mu.started
	l.mu.events = append(l.mu.events, event{kind: evClose}, event{kind: evCall, call: func(*core) { l.ending = true; close(closing) }})
	l.mu.Unlock()
	if !started {
		l.mu.Lock()
		l.mu.running = true
		l.mu.Unlock()
		l.turn()
	} else {
		l.rouse()
	}
	<-closing
	l.mu.Lock()
	l.mu.closed = true
	rest := l.mu.events
	l.mu.events = nil
	l.mu.Unlock()
	for i := range rest {
		l.refuse(&rest[i])
	}
	if started {
		l.rouse()
		<-l.done
	}
	if l.disarm != nil {
		l.disarm()
	}
}
