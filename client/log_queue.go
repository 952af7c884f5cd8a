package client

import (
	"sync"
	"time"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// logQueue sends the appends of one log and one producer in the order in which they
// were begun.
//
//	      answered              sent                 not yet sent
//	───────────────────┬─────────────────────┬──────────────────────▶
//	                 head                   next
//
// FLOWING: what is not yet sent leaves, a window of appends at a time, whoever
// brings it; one goroutine sends, the others leave theirs to it.
//
// GATHERING: an attempt failed. Nothing is sent any more; what is with the node is
// waited for, briefly, since a node that refuses one append answers all others too.
//
// Then next goes back to head: whatever is not answered is sent again, in order, to
// the node that the router says; first the head alone (trial), and when that is
// taken, the rest. PARKED is the pause before, where there is nobody to send to.
//
// Attempts belong to a generation. Answers to those of a former one still count, for
// they name the same append: only their failures say nothing new.
//
// Invariants:
//
//	A1. Appends are sent in ascending sequence; a sequence belongs to one append,
//	    through all of its attempts, and is given when it is first sent, so that none
//	    is left out.
//	A2. An append that may have been stored is only ever sent as a retry, with a
//	    position that it is stored above: what was acknowledged, and the epoch that was
//	    seen or the position that was told with it, before the first attempt that may
//	    have stored it.
//	A3. first_running never passes an append that is not answered, nor goes back.
//	A4. done is called once, without a lock held.
//	A5. An append that may have been stored ends with OutcomeKnown false, unless it
//	    ends well.
//	A6. An append that is kept in order is sent with AppendStream, and so is one begun
//	    while such a one is under way, unless it may come in any order: the sequencer
//	    answers it, and a recovery keeps it, only behind all that were begun before it.
type logQueue struct {
	client   *Client
	log      LogID
	producer uint64 // explicit; 0: the client's own
	id       uint64 // what it goes by: the producer, or one that was drawn

	mu struct {
		sync.Mutex
		calls    []*logCall // calls[head:] are not answered, or behind one that is not
		head     int
		next     int // the first that is not with a node
		sequence uint64
		floor    uint64 // the greatest first_running given out (A3)
		ordered  int    // of the calls that are not over, those that are kept in order

		state   queueState
		sending bool // a goroutine is in pump
		flying  int  // attempts of this generation that are with a node
		gen     uint64
		window  int // appends that may fly at once
		grown   int // answers since the window last grew
		enough  int // below, the window grows with every answer
		trial   bool
		probe   bool // see with an empty append first whether the node takes any
		trouble outcome
		pauses  int
		stop    func() bool // of the timer of a pause

		router logRouter
		routed bool   // router.at is to be asked
		home   NodeID // who took an append last
		acked  LSN
		told   LSN // with NEW_EPOCH: what is taken from then on is stored above it
		seen   logs.Epoch
	}
}

type queueState uint8

const (
	flowing queueState = iota
	gathering
	parked
)

const (
	windowMax = 1000
	windowMin = 4
	// gatherFor bounds how long answers are waited for that a node owes when it has
	// refused one append.
	gatherFor = 100 * time.Millisecond
	// probeBytes is how much has to wait behind a node that was busy for a probe to
	// be worth its round trip.
	probeBytes = 64 << 10
)

func newLogQueue(c *Client, log LogID, producer uint64) *logQueue {
	q := &logQueue{client: c, log: log, producer: producer, id: producer}
	c.mu.Lock()
	for q.id == 0 {
		q.id = c.mu.rand.Uint64()
	}
	c.mu.Unlock()
	q.mu.window = windowMax
	q.mu.router.log = log
	return q
}

func (q *logQueue) explicit() bool { return q.producer != 0 }

// ended is an append that is over, to be told so without the lock.
type ended struct {
	c   *logCall
	lsn LSN
	err error
}

func (q *logQueue) tell(list []ended) {
	for _, e := range list {
		q.client.logs.give(e.c.size())
		e.c.done(e.lsn, e.err)
	}
}

// size is what an append counts for in Options.AppendBytes.
func (c *logCall) size() int64 {
	if c.counted {
		return 0
	}
	return int64(len(c.payload)) + 256
}

// add is the way of an append: it takes its place, and leaves when its turn comes.
func (q *logQueue) add(c *logCall) {
	cl := q.client
	cl.metrics.Requests.Add(1)
	c.started = cl.opts.Clock.Now()
	if c.deadline.IsZero() {
		c.deadline = c.started.Add(cl.opts.AppendTimeout)
	}
	var refusal *LogError
	switch {
	case cl.closed.Load():
		refusal = newLogError(q.log, wire.LogStatus_LOG_STATUS_SHUTDOWN, true, ErrClosed, "%v", ErrClosed)
	case cl.logTransport == nil:
		refusal = newLogError(q.log, wire.LogStatus_LOG_STATUS_NO_SEQUENCER, true, nil, "this client's transport carries no appends")
	case q.explicit() && c.sequence == 0:
		refusal = newLogError(q.log, wire.LogStatus_LOG_STATUS_INVALID, true, nil, "sequences of a producer begin with 1")
	case !c.counted && !cl.logs.take(c.size(), cl.opts.AppendBytes):
		refusal = newLogError(q.log, wire.LogStatus_LOG_STATUS_OVERLOADED, true, nil,
			"%d bytes of appends wait already, the most is Options.AppendBytes", cl.opts.AppendBytes)
	}
	if refusal != nil {
		c.done(0, refusal)
		return
	}
	c.checksum = logs.Checksum(c.payload)
	q.mu.Lock()
	if waited := q.overdueLocked(c); waited > 0 {
		q.mu.Unlock()
		q.tell([]ended{{c: c, err: newLogError(q.log, wire.LogStatus_LOG_STATUS_OVERLOADED, true, nil,
			"what was begun before has waited for %v to be sent", waited)}})
		return
	}
	q.orderLocked(c)
	q.mu.calls = append(q.mu.calls, c)
	q.mu.Unlock()
	q.pump()
}

// orderLocked says whether an append is one of a stream (A6).
func (q *logQueue) orderLocked(c *logCall) {
	if c.order == orderKept {
		q.mu.ordered++
	}
	if q.mu.ordered > 0 && c.order != orderAny {
		c.flags |= logs.AppendStream
	}
}

// overdueLocked says how long the first append has waited that is not sent, if that
// is more than a quarter of the time that a newcomer has. It would be sent late for
// its answer, as would all behind it: refused now, those before it are in time. The
// rest of the time is for what is with the node, which may be as busy.
// While the sequencer is looked for nothing is known of how long it will be.
func (q *logQueue) overdueLocked(c *logCall) time.Duration {
	if q.mu.next >= len(q.mu.calls) || c.again != nil || q.mu.state == parked && q.mu.trouble.trouble != troubleBusy {
		return 0
	}
	if waited := c.started.Sub(q.mu.calls[q.mu.next].started); waited > c.deadline.Sub(c.started)/4 {
		return waited
	}
	return 0
}

// pump sends what may be sent.
func (q *logQueue) pump() {
	q.mu.Lock()
	if q.mu.sending {
		q.mu.Unlock()
		return // who sends sees it
	}
	q.mu.sending = true
	for {
		c, gen := q.nextLocked(), q.mu.gen
		if c == nil {
			q.mu.sending = false
			q.mu.Unlock()
			return
		}
		now := q.client.opts.Clock.Now()
		if !now.Before(c.deadline) {
			list := q.expireLocked(now)
			q.mu.Unlock()
			q.tell(list)
			q.mu.Lock()
			continue
		}
		deadline := now.Add(q.client.opts.Attempt + largeTime*time.Duration(len(c.payload)/largeBytes))
		if c.deadline.Before(deadline) {
			deadline = c.deadline
		}
		if c.attempt++; c.attempt > 1 {
			q.client.metrics.Retries.Add(1)
		}
		node, req := q.mu.router.at, q.requestLocked(c)
		c.flying = true
		q.mu.next++
		q.mu.flying++
		q.mu.Unlock()
		resp := new(wire.AppendResponse)
		q.client.logTransport.StartLog(node, rpc.MethodAppend, req, resp, deadline, func(err error) {
			q.answered(c, req, gen, node, resp, err)
		})
		q.mu.Lock()
	}
}

// nextLocked is the append to be sent now, nil if none is.
func (q *logQueue) nextLocked() *logCall {
	for q.mu.next < len(q.mu.calls) && q.mu.calls[q.mu.next].over {
		q.mu.next++
	}
	switch {
	case q.mu.state != flowing, q.mu.next >= len(q.mu.calls), q.mu.flying >= q.mu.window, q.mu.trial && q.mu.flying > 0:
		return nil
	}
	if !q.mu.routed && !q.routeLocked() {
		q.parkLocked(0, true)
		return nil
	}
	if q.mu.probe {
		q.mu.probe = false
		if c := q.mu.calls[q.mu.next]; q.waitingBytesLocked() >= probeBytes {
			q.probeLocked(c)
			return nil
		}
	}
	return q.mu.calls[q.mu.next]
}

func (q *logQueue) waitingBytesLocked() (n int) {
	for _, c := range q.mu.calls[q.mu.next:] {
		if n += len(c.payload); n >= probeBytes {
			break
		}
	}
	return n
}

// routeLocked begins to look for the sequencer.
func (q *logQueue) routeLocked() bool {
	v := q.client.view()
	if v == nil {
		return false
	}
	affinity := ""
	if a, ok := q.client.attributesOfLog(q.log); ok {
		affinity = a.GetSequencerAffinity()
	}
	q.mu.routed = q.mu.router.begin(v, affinity, q.mu.home)
	return q.mu.routed
}

// firstLocked is the lowest sequence that is not answered (A3).
func (q *logQueue) firstLocked(c *logCall) uint64 {
	first := c.sequence
	for _, x := range q.mu.calls[q.mu.head:] {
		if x == c {
			break
		}
		if !x.over && x.sequence != 0 {
			first = min(first, x.sequence)
			if !q.explicit() { // who numbers them himself may begin an older one anew
				break
			}
		}
	}
	if q.explicit() {
		return first
	}
	if first < q.mu.floor {
		panic("BUG: A3: first_running went back")
	}
	q.mu.floor = first
	return first
}

// answered takes what became of an attempt.
func (q *logQueue) answered(c *logCall, req *wire.AppendRequest, gen uint64, node NodeID, resp *wire.AppendResponse, err error) {
	q.mu.Lock()
	now := q.client.opts.Clock.Now()
	o := q.judgeLocked(c, req, node, resp, err, now)
	current := gen == q.mu.gen
	if current {
		q.mu.flying--
		c.flying = false
	}
	var list []ended
	if err == nil {
		q.mu.seen = max(q.mu.seen, logs.Epoch(resp.Epoch), LSN(resp.Lsn).Epoch())
		if resp.Status == wire.LogStatus_LOG_STATUS_NEW_EPOCH {
			q.mu.told = max(q.mu.told, LSN(resp.Tail))
		}
	}
	switch {
	case o.final && o.err == nil:
		list = q.takenLocked(c, o.lsn, node, current)
	case o.final:
		list = q.endLocked(c, o.lsn, o.err)
	default:
		c.last = stillWaits(c.last, o.err)
		c.maybe = c.maybe || o.maybe
		if err == nil && resp.StoredAs != 0 {
			c.stored = LSN(resp.StoredAs)
		}
		if current {
			q.stumbleLocked(o)
		}
	}
	if q.mu.state == gathering && q.mu.flying == 0 {
		list = append(list, q.regroupLocked()...)
	}
	q.mu.Unlock()
	q.tell(list)
	q.pump()
}

// stillWaits is why an append is not over, after an attempt without an answer: what
// one before it was told it waits for, if it was told.
func stillWaits(before, now *LogError) *LogError {
	silent := now.Status == wire.LogStatus_LOG_STATUS_TIMED_OUT || now.Status == wire.LogStatus_LOG_STATUS_UNKNOWN_OUTCOME
	if before == nil || !silent || before.Status != wire.LogStatus_LOG_STATUS_UNDER_REPLICATED {
		return now
	}
	e := *before
	e.cause = now.cause
	return &e
}

// waitsFor is why the first append of the queue is not over, nil if that is not known.
func (q *logQueue) waitsFor() *LogError {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, c := range q.mu.calls[q.mu.head:] {
		if !c.over {
			return c.last
		}
	}
	return nil
}

// takenLocked: the append is stored.
func (q *logQueue) takenLocked(c *logCall, lsn LSN, node NodeID, current bool) []ended {
	q.mu.acked = max(q.mu.acked, lsn)
	if current {
		q.mu.home, q.mu.trial, q.mu.pauses = node, false, 0
		if q.mu.router.at == node && q.mu.state == flowing { // found
			q.mu.router.flags, q.mu.router.hops = 0, 0
			q.mu.router.path, q.mu.router.unreachable = q.mu.router.path[:0], q.mu.router.unreachable[:0]
		}
		q.growLocked()
	}
	return q.endLocked(c, lsn, nil)
}

// growLocked opens the window after an answer: quickly while it is well below what
// was too much, then by little with every window that is answered.
func (q *logQueue) growLocked() {
	switch q.mu.grown++; {
	case q.mu.window >= windowMax:
	case q.mu.window < q.mu.enough:
		q.mu.window++
	case q.mu.grown >= q.mu.window:
		q.mu.window, q.mu.grown = min(q.mu.window+windowMin, windowMax), 0
	}
}

// shrinkLocked halves the window of a node that was busy; one that refused the only
// append that it was sent has others to do work for, and the window says nothing of it.
func (q *logQueue) shrinkLocked(alone bool) {
	if !alone {
		q.mu.enough = max(windowMin, q.mu.window*3/4)
		q.mu.window = max(windowMin, q.mu.window/2)
	}
	q.mu.grown, q.mu.probe = 0, true
}

// endLocked makes an append over.
func (q *logQueue) endLocked(c *logCall, lsn LSN, e *LogError) []ended {
	if c.over {
		return nil
	}
	c.over = true
	if c.order == orderKept {
		if q.mu.ordered--; q.mu.ordered < 0 {
			panic("BUG: more appends that are kept in order have ended than were begun")
		}
	}
	out := ended{c: c, lsn: lsn}
	if e != nil {
		out.err = c.failure(e)
		if err := out.err.(*LogError); !err.OutcomeKnown {
			q.client.metrics.UnknownOutcomes.Add(1)
		}
	}
	for q.mu.head < len(q.mu.calls) && q.mu.calls[q.mu.head].over {
		q.mu.calls[q.mu.head] = nil
		q.mu.head++
	}
	q.mu.next = max(q.mu.next, q.mu.head)
	switch {
	case q.mu.head == len(q.mu.calls):
		q.mu.calls, q.mu.head, q.mu.next = q.mu.calls[:0], 0, 0
	case q.mu.head > 256 && q.mu.head > len(q.mu.calls)/2:
		n := copy(q.mu.calls, q.mu.calls[q.mu.head:])
		clear(q.mu.calls[n:])
		q.mu.calls, q.mu.next, q.mu.head = q.mu.calls[:n], q.mu.next-q.mu.head, 0
	}
	return []ended{out}
}
