package client

import (
	"strconv"
	"time"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

func nodeText(n NodeID) string { return strconv.FormatUint(uint64(n), 10) }

// stumbleLocked: an attempt failed, and nothing is sent until it is clear what
// became of the others. The first failure says what to do.
func (q *logQueue) stumbleLocked(o outcome) {
	if q.mu.state != flowing {
		return
	}
	q.mu.state, q.mu.trouble = gathering, o
	if o.trouble == troubleLost {
		q.mu.flying = 0 // the others have likely met the same: nothing is waited for
		return
	}
	if q.mu.flying > 0 {
		gen := q.mu.gen
		q.mu.stop = q.client.opts.Clock.AfterFunc(gatherFor, func() { q.gathered(gen) })
	}
}

// gathered ends the waiting for answers that do not come.
func (q *logQueue) gathered(gen uint64) {
	q.mu.Lock()
	var list []ended
	if q.mu.state == gathering && q.mu.gen == gen {
		list = q.regroupLocked()
	}
	q.mu.Unlock()
	q.tell(list)
	q.pump()
}

// regroupLocked goes back to the head of the queue and decides where it is sent
// next, or for how long not.
func (q *logQueue) regroupLocked() []ended {
	q.stopLocked()
	q.mu.gen++
	for _, c := range q.mu.calls[q.mu.head:q.mu.next] {
		if c.flying { // no answer was waited for
			c.flying, c.maybe = false, true
		}
	}
	q.mu.next, q.mu.flying = q.mu.head, 0
	alone := q.mu.trial
	q.mu.state, q.mu.trial = flowing, true
	now := q.client.opts.Clock.Now()
	if q.client.closed.Load() {
		return q.closeLocked()
	}
	list := q.expireLocked(now)
	o := q.mu.trouble
	switch o.trouble {
	case troubleRedirected:
		q.client.metrics.Redirects.Add(1)
		if q.mu.routed = q.mu.router.redirected(o.redirect, o.preempted); !q.mu.routed {
			q.parkLocked(o.retryAfter, true)
		}
	case troubleUnreachable:
		q.client.refreshView(nil)
		if q.mu.routed = q.mu.router.failed(); !q.mu.routed {
			q.parkLocked(o.retryAfter, true)
		}
	case troubleLost, troubleOrder:
		// At once, once; a node that is gone will then be found so.
		if q.mu.pauses > 0 {
			q.parkLocked(o.retryAfter, true)
			break
		}
		q.mu.pauses++
		q.client.refreshView(nil)
	case troubleEpoch: // at once: the epoch is known now
	case troubleNotReady:
		q.parkLocked(o.retryAfter, true)
	case troubleBusy:
		q.shrinkLocked(alone)
		q.parkLocked(o.retryAfter, false)
	}
	return list
}

// parkLocked pauses, at least for d; anew says that the node is to be looked for
// anew, in a fresh view.
func (q *logQueue) parkLocked(d time.Duration, anew bool) {
	if q.mu.state == parked {
		return
	}
	if anew {
		q.mu.routed = false
		if q.mu.pauses > 1 {
			q.mu.home = 0 // who took appends before seems not to any more
		}
		q.client.refreshView(nil)
	}
	q.mu.state = parked
	d = max(d, q.client.backoff(q.mu.pauses))
	q.mu.pauses++
	gen := q.mu.gen
	q.mu.stop = q.client.opts.Clock.AfterFunc(d, func() { q.wake(gen) })
}

// wake ends a pause.
func (q *logQueue) wake(gen uint64) {
	q.mu.Lock()
	var list []ended
	if q.mu.state == parked && q.mu.gen == gen {
		q.stopLocked()
		q.mu.state = flowing
		if q.client.closed.Load() {
			list = q.closeLocked()
		} else {
			list = q.expireLocked(q.client.opts.Clock.Now())
		}
	}
	q.mu.Unlock()
	q.tell(list)
	q.pump()
}

func (q *logQueue) stopLocked() {
	if q.mu.stop != nil {
		q.mu.stop()
		q.mu.stop = nil
	}
}

// expireLocked ends the appends whose time is over and which are not with a node.
func (q *logQueue) expireLocked(now time.Time) (list []ended) {
	var late []*logCall
	for _, c := range q.mu.calls[q.mu.head:] {
		if c.over || c.flying || now.Before(c.deadline) {
			continue
		}
		if c.again != nil && c.again() {
			c.deadline = now.Add(c.deadline.Sub(c.started))
			c.started = now
			continue
		}
		late = append(late, c)
	}
	for _, c := range late {
		e := newLogError(q.log, wire.LogStatus_LOG_STATUS_TIMED_OUT, true, nil, "it was not sent in time")
		if c.last != nil {
			e = c.last
			if !logs.Retriable(e.Status) || e.Status == wire.LogStatus_LOG_STATUS_REDIRECTED || e.Status == wire.LogStatus_LOG_STATUS_PREEMPTED {
				e = newLogError(q.log, wire.LogStatus_LOG_STATUS_NO_SEQUENCER, true, e, "%s", e.Message)
			}
		}
		list = append(list, q.endLocked(c, 0, e)...)
	}
	return list
}

// probeLocked asks whether the node would take an append, before much is sent that
// it would refuse.
func (q *logQueue) probeLocked(c *logCall) {
	q.mu.state, q.mu.trouble = gathering, outcome{}
	q.mu.flying++
	gen, node := q.mu.gen, q.mu.router.at
	req := &wire.AppendRequest{Log: uint64(q.log), Flags: logs.AppendProbe | q.mu.router.flags, SeenEpoch: uint32(q.mu.seen), Checksum: logs.Checksum(nil)}
	resp := new(wire.AppendResponse)
	deadline := q.client.opts.Clock.Now().Add(q.client.opts.Attempt)
	// Not from here: the lock is held, and the answer may come at once.
	q.mu.stop = q.client.opts.Clock.AfterFunc(0, func() {
		q.client.logTransport.StartLog(node, rpc.MethodAppend, req, resp, deadline, func(err error) {
			q.probed(c, req, gen, node, resp, err)
		})
	})
}

func (q *logQueue) probed(c *logCall, req *wire.AppendRequest, gen uint64, node NodeID, resp *wire.AppendResponse, err error) {
	q.mu.Lock()
	var list []ended
	if gen == q.mu.gen {
		q.mu.flying--
		o := q.judgeLocked(c, req, node, resp, err, q.client.opts.Clock.Now())
		if q.mu.state = flowing; !o.final {
			q.mu.trouble = o
			if o.trouble == troubleLost {
				q.mu.pauses++ // a probe has no outcome that matters
			}
			list = q.regroupLocked()
		}
	}
	q.mu.Unlock()
	q.tell(list)
	q.pump()
}

// abandon says that nobody waits for an append any longer.
func (q *logQueue) abandon(c *logCall, cause error) {
	q.mu.Lock()
	if c.flying {
		c.maybe = true
	}
	e := newLogError(q.log, wire.LogStatus_LOG_STATUS_SHUTDOWN, true, cause, "%v", cause)
	if c.last != nil && c.last.Status == wire.LogStatus_LOG_STATUS_UNDER_REPLICATED { // what it was that took so long
		e = newLogError(q.log, c.last.Status, true, cause, "%s: %v", c.last.Message, cause)
	}
	list := q.endLocked(c, 0, e)
	q.mu.Unlock()
	q.tell(list)
	q.pump()
}

// close ends what is not with a node; what is ends with its answer.
func (q *logQueue) close() {
	q.mu.Lock()
	q.stopLocked()
	list := q.closeLocked()
	q.mu.Unlock()
	q.tell(list)
}

func (q *logQueue) closeLocked() (list []ended) {
	var rest []*logCall
	for _, c := range q.mu.calls[q.mu.head:] {
		if !c.over && !c.flying {
			rest = append(rest, c)
		}
	}
	for _, c := range rest {
		list = append(list, q.endLocked(c, 0, newLogError(q.log, wire.LogStatus_LOG_STATUS_SHUTDOWN, true, ErrClosed, "%v", ErrClosed))...)
	}
	return list
}
