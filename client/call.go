package client

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// call is one request from its start to its answer, over all of its attempts.
// At any moment one party owns it and nobody else touches it but abandon: the
// goroutine that runs a method of it, the transport that holds its done, the
// timer that wakes it, or the table whose routes it waits for.
type call struct {
	table    *Table
	started  time.Time
	deadline time.Time // by which the caller wants to know
	park     time.Time // until which attempts are repeated
	// allowance is what a large request is given beyond the usual times.
	allowance time.Duration
	ops       []*Op
	one       [1]*Op // what ops points to when there is one
	doneOne   func(*Result, error)
	done      func(Reply, error)
	request   request
	write     bool

	id      uint64   // writes: the request id (I1)
	running *running // writes: where id is registered

	routes   *routes
	tablet   *tablet
	node     NodeID // asked last
	avoid    NodeID // did not answer in this round
	cursor   int    // next replica to try when the leader is unknown
	round    int    // attempts since the last pause
	pauses   int
	attempts int
	stopWait func() bool

	maybe bool   // an attempt may have taken effect
	last  *Error // why the latest attempt failed

	sent      atomic.Bool // an attempt is with the transport, or may have had an effect
	abandoned atomic.Bool // nobody waits any longer
}

// redirectsMax bounds how often hints are followed without a pause: two nodes
// that each believe the other to lead must not keep a request spinning.
const redirectsMax = 3

func (t *Table) newCall(deadline time.Time, r request) *call {
	now := t.client.opts.Clock.Now()
	c := &call{table: t, request: r, started: now, park: now.Add(t.client.opts.Park), deadline: deadline}
	if deadline.IsZero() {
		c.deadline = c.park
	}
	return c
}

// limit is when a call that is not with a node ends.
func (c *call) limit() time.Time {
	if c.deadline.Before(c.park) {
		return c.deadline
	}
	return c.park
}

// start is the way of a request: route, attempt, and finish when it is answered.
func (c *call) start() {
	c.table.client.metrics.Requests.Add(1)
	if c.table.client.closed.Load() {
		c.giveUp(ErrClosed)
		return
	}
	size := 0
	for _, op := range c.ops {
		c.write = c.write || wire.OpCode(op.Code).Write()
		for _, arg := range op.Args {
			size += len(arg)
		}
	}
	if size >= largeBytes {
		c.allow(time.Duration(size/largeBytes) * largeTime)
	}
	if r := c.table.routes.Load(); r != nil {
		c.route(r)
		return
	}
	c.reroute()
}

// largeBytes of a request are given largeTime more, in every attempt: what is
// large has to be sent, written by every replica, and sent again.
const (
	largeBytes = 1 << 20
	largeTime  = 250 * time.Millisecond
)

// allow gives a large request the time that it takes, unless the caller has said
// how long he waits.
func (c *call) allow(d time.Duration) {
	c.allowance = d
	if c.deadline == c.park {
		c.deadline = c.deadline.Add(d)
	}
	c.park = c.park.Add(d)
}

// reroute waits for routes newer than those the call knows.
func (c *call) reroute() {
	r, err := c.table.wait(c)
	switch {
	case err != nil:
		c.giveUp(err)
	case r != nil:
		c.route(r)
	}
}

// routed takes the outcome of a refresh that the call waited for.
func (c *call) routed(r *routes, err error) {
	switch {
	case err != nil:
		if codeOf(err) == wire.Code_CODE_NOT_FOUND {
			c.finish(Reply{}, c.noEffect(err))
			return
		}
		c.fail(err)
		c.pause(0)
	case r == c.routes:
		c.pause(0) // nobody knows better yet
	default:
		c.route(r)
	}
}

// route finds the tablet and makes an attempt at it.
func (c *call) route(r *routes) {
	tb := r.find(c.ops[0].Hash)
	for _, op := range c.ops[1:] {
		if op.Hash < tb.start || (op.Hash >= tb.end && tb.end != 0) {
			c.finish(Reply{}, c.noEffect(ErrCrossTablet))
			return
		}
	}
	c.routes, c.tablet = r, tb
	c.attempt()
}

// attempt sends the request to the node that most likely leads.
func (c *call) attempt() {
	cl := c.table.client
	now := c.started
	if c.attempts > 0 || c.pauses > 0 || c.stopWait != nil {
		now = cl.opts.Clock.Now() // a first attempt is made at once
	}
	if !now.Before(c.deadline) || (c.attempts > 0 && !now.Before(c.park)) {
		c.giveUp(nil)
		return
	}
	c.node = c.pick()
	if c.node == 0 {
		c.fail(newError(wire.Code_CODE_UNAVAILABLE, nil, "tablet %d has no replicas", c.tablet.id))
		c.table.refresh()
		c.pause(0)
		return
	}
	if c.attempts++; c.attempts > 1 {
		cl.metrics.Retries.Add(1)
	} else if !c.tablet.pressure.admit(now, cl.dice) {
		cl.metrics.HeldBack.Add(1)
		c.finish(Reply{}, newError(wire.Code_CODE_OVERLOADED, nil, "tablet %d refuses most of what it is asked: this was not sent", c.tablet.id))
		return
	}
	// Either abandon sees that the request was sent, or this sees that nobody waits.
	c.sent.Store(true)
	if c.abandoned.Load() {
		c.finish(Reply{}, c.noEffect(ErrCanceled))
		return
	}
	limit := c.deadline
	if a := now.Add(cl.opts.Attempt + c.allowance); a.Before(limit) {
		limit = a
	}
	if c.write {
		c.sendWrite(now, limit)
	} else {
		c.sendRead(now, limit)
	}
}

// pick chooses the node: the leader as known, else the replicas in turn.
func (c *call) pick() NodeID {
	if l := NodeID(c.tablet.leader.Load()); l != 0 && l != c.avoid {
		return l
	}
	n := len(c.tablet.replicas)
	for range n {
		rep := &c.tablet.replicas[c.cursor%n]
		c.cursor++
		if !rep.Learner && (rep.Node.ID != c.avoid || n == 1) {
			return rep.Node.ID
		}
	}
	return 0
}

// sendWrite makes a request of its own for each attempt (I3).
func (c *call) sendWrite(now, limit time.Time) {
	cl := c.table.client
	var first uint64
	switch {
	case c.running == nil:
		c.running = c.tablet.running
		c.id, first = c.running.begin(&cl.requests)
	case c.running == c.tablet.running:
		first = c.running.first()
	}
	cl.transport.StartWrite(c.node, &wire.WriteRequest{
		Tablet:        uint64(c.tablet.id),
		Table:         uint32(c.table.id),
		SchemaVersion: c.schemaVersion(),
		ClientId:      cl.id,
		RequestId:     c.id,
		FirstRunning:  first,
		Ops:           c.ops,
		HybridTime:    cl.hybridTime.Load(),
		TimeoutMs:     remaining(now, c.deadline),
	}, limit, c.wrote)
}

func (c *call) sendRead(now, limit time.Time) {
	cl := c.table.client
	cl.transport.StartRead(c.node, &wire.ReadRequest{
		Tablet:        uint64(c.tablet.id),
		Table:         uint32(c.table.id),
		SchemaVersion: c.schemaVersion(),
		Ops:           c.ops,
		ReadTime:      c.request.readTime,
		HybridTime:    cl.hybridTime.Load(),
		TimeoutMs:     remaining(now, limit),
	}, limit, c.read)
}

// wrote takes a leader's answer to a write.
func (c *call) wrote(resp *wire.WriteResponse, err error) {
	if err != nil {
		c.unanswered(err)
		return
	}
	c.table.client.sawTime(resp.HybridTime)
	if resp.Error != nil && resp.Error.Code != wire.Code_CODE_OK {
		c.refused(resp.Error)
		return
	}
	c.answered(Reply{Results: resp.Results, HybridTime: resp.HybridTime, Copies: resp.Copies})
}

// read takes a leader's answer to a read.
func (c *call) read(resp *wire.ReadResponse, err error) {
	if err != nil {
		c.unanswered(err)
		return
	}
	c.table.client.sawTime(resp.HybridTime)
	if resp.Error != nil && resp.Error.Code != wire.Code_CODE_OK {
		c.refused(resp.Error)
		return
	}
	c.answered(Reply{Results: resp.Results, HybridTime: resp.ReadTime})
}

func (c *call) answered(r Reply) {
	if len(r.Results) != len(c.ops) {
		c.maybe = c.write
		c.finish(Reply{}, c.noEffect(newError(wire.Code_CODE_INTERNAL, nil,
			"node %d answered %d operations with %d results", c.node, len(c.ops), len(r.Results))))
		return
	}
	if l := &c.tablet.leader; l.Load() != uint64(c.node) {
		l.Store(uint64(c.node))
	}
	r.tabletEnd = c.tablet.end
	c.tablet.pressure.answered()
	c.finish(r, nil)
}

// unanswered decides what follows when the transport brought no answer.
func (c *call) unanswered(err error) {
	cl := c.table.client
	switch {
	case errors.Is(err, rpc.ErrTooLarge):
		c.finish(Reply{}, c.noEffect(newError(wire.Code_CODE_TOO_LARGE, err, "%v", err)))
		return
	case errors.Is(err, rpc.ErrResponseTooLarge):
		c.maybe = c.write // it was carried out, and what it answers cannot be told
		c.finish(Reply{}, c.noEffect(newError(wire.Code_CODE_TOO_LARGE, err, "%v", err)))
		return
	case errors.Is(err, rpc.ErrOverloaded):
		c.fail(newError(wire.Code_CODE_OVERLOADED, err, "%v", err))
		c.overloaded(rpc.RetryAfter(err))
		return
	case errors.Is(err, rpc.ErrExpired):
		c.fail(newError(wire.Code_CODE_TIMEOUT, err, "node %d: %v", c.node, err))
		c.overloaded(0)
		return
	case errors.Is(err, rpc.ErrUnreachable), errors.Is(err, rpc.ErrNoMethod):
		c.fail(newError(wire.Code_CODE_UNAVAILABLE, err, "node %d: %v", c.node, err))
	case errTimeout(err):
		c.maybe = c.write
		c.fail(newError(wire.Code_CODE_TIMEOUT, err, "node %d: %v", c.node, err))
		if !c.retriable() {
			c.tablet.leader.CompareAndSwap(uint64(c.node), 0)
			c.pause(cl.opts.BackoffMax)
			return
		}
	default:
		c.maybe = c.write
		c.fail(newError(wire.Code_CODE_UNAVAILABLE, err, "node %d: %v", c.node, err))
	}
	c.avoid = c.node
	c.next()
}

// refused decides what follows a leader's, or a former leader's, refusal.
func (c *call) refused(e *wire.Error) {
	c.fail(fromWire(e))
	if c.last.Message == "" {
		c.last.Message = fmt.Sprintf("so says node %d", c.node)
	}
	switch e.Code {
	case wire.Code_CODE_NOT_LEADER:
		c.redirected(NodeID(e.LeaderNode))
	case wire.Code_CODE_NOT_READY:
		// It will be ready soon. But a leader that was cut off says so as well:
		// now and then hear what the others say.
		if c.pauses%4 == 3 {
			c.tablet.leader.CompareAndSwap(uint64(c.node), 0)
		}
		c.pause(0)
	case wire.Code_CODE_TABLET_NOT_FOUND:
		c.reroute()
	case wire.Code_CODE_SCHEMA_MISMATCH:
		c.schemaChanged()
	case wire.Code_CODE_UNKNOWN_OUTCOME:
		c.maybe = c.write
		c.next()
	case wire.Code_CODE_TIMEOUT, wire.Code_CODE_OVERLOADED:
		c.overloaded(time.Duration(e.RetryAfterMs) * time.Millisecond)
	case wire.Code_CODE_CLOCK_SKEW, wire.Code_CODE_CORRUPT, wire.Code_CODE_UNAVAILABLE:
		c.avoid = c.node
		c.next()
	case wire.Code_CODE_REQUEST_EXPIRED:
		c.expired()
	case wire.Code_CODE_CONDITION_FAILED, wire.Code_CODE_INVALID, wire.Code_CODE_TOO_LARGE:
		// True of the request whichever attempt of it was carried out.
		c.finish(Reply{}, c.last)
	default:
		c.finish(Reply{}, c.noEffect(c.last))
	}
}

// retriable reports whether one more attempt may be made at a tablet that has too
// much to do.
func (c *call) retriable() bool {
	cl := c.table.client
	if c.tablet.pressure.refused(cl.opts.Clock.Now()) {
		return true
	}
	cl.metrics.RetriesSpared.Add(1)
	return false
}

// overloaded tries again after what the tablet said, drawn from there up to half
// as much more, if that leaves retries few; else the request ends with the refusal.
// One that may have had an effect goes on to be asked for, slowly.
func (c *call) overloaded(after time.Duration) {
	cl := c.table.client
	switch {
	case c.retriable():
		if after > 0 {
			after += cl.jitter(after) - after/2
		}
		c.pause(after)
	case c.maybe:
		c.pause(max(after, cl.opts.BackoffMax))
	default:
		c.finish(Reply{}, c.last)
	}
}

// redirected follows a hint, or looks further when there is none.
func (c *call) redirected(hint NodeID) {
	c.table.client.metrics.Redirects.Add(1)
	if hint == 0 || hint == c.node || hint == c.avoid {
		c.tablet.leader.CompareAndSwap(uint64(c.node), 0)
		c.next()
		return
	}
	c.tablet.leader.Store(uint64(hint))
	if c.round++; c.round > redirectsMax {
		c.table.refresh()
		c.pause(0)
		return
	}
	c.attempt()
}

// schemaChanged repeats, under the new version, what was encoded under none;
// rows have to be encoded anew by the caller.
func (c *call) schemaChanged() {
	if c.request.schema != 0 {
		c.finish(Reply{}, c.noEffect(c.last))
		return
	}
	c.reroute()
}

// expired takes a new id when the old one surely had no effect: it was refused
// only because later requests of this client overtook it.
func (c *call) expired() {
	if c.maybe || c.round >= redirectsMax {
		c.finish(Reply{}, c.noEffect(c.last))
		return
	}
	c.running.end(c.id)
	c.running = nil
	c.round++
	c.attempt()
}

// next asks another node at once, or pauses when all were asked.
func (c *call) next() {
	c.tablet.leader.CompareAndSwap(uint64(c.node), 0)
	if c.round++; c.round <= len(c.tablet.replicas) {
		c.attempt()
		return
	}
	c.table.refresh()
	c.pause(0)
}

// fail remembers why an attempt failed.
func (c *call) fail(err error) {
	if e := (*Error)(nil); errors.As(err, &e) {
		c.last = e
	} else {
		c.last = newError(wire.Code_CODE_UNAVAILABLE, err, "%v", err)
	}
	if !c.maybe {
		c.sent.Store(false)
	}
}

// pause waits before the next round, at least for d.
func (c *call) pause(d time.Duration) {
	cl := c.table.client
	c.round, c.avoid = 0, 0
	backoff := cl.backoff(c.pauses)
	c.pauses++
	left := c.limit().Sub(cl.opts.Clock.Now())
	if left <= 0 {
		c.giveUp(nil)
		return
	}
	d = min(max(d, backoff), left)
	cl.mu.Lock()
	closed := cl.closed.Load()
	if !closed {
		cl.mu.parked[c] = cl.opts.Clock.AfterFunc(d, c.wake)
	}
	cl.mu.Unlock()
	if closed {
		c.giveUp(ErrClosed)
	}
}

// wake ends a pause.
func (c *call) wake() {
	cl := c.table.client
	cl.mu.Lock()
	closed := cl.closed.Load()
	delete(cl.mu.parked, c)
	cl.mu.Unlock()
	r := c.table.routes.Load()
	switch {
	case closed:
		c.giveUp(ErrClosed)
	case !cl.opts.Clock.Now().Before(c.limit()):
		c.giveUp(nil)
	case r == nil:
		c.reroute()
	default:
		c.route(r)
	}
}

// giveUp ends a call without an answer.
func (c *call) giveUp(cause error) {
	cl := c.table.client
	err := c.last
	switch {
	case cause != nil:
		err = newError(wire.Code_CODE_CANCELED, cause, "%v", cause)
	case err == nil:
		err = newError(wire.Code_CODE_TIMEOUT, nil, "nothing was sent before the deadline")
	default:
		switch err.Code {
		case wire.Code_CODE_TIMEOUT, wire.Code_CODE_OVERLOADED, wire.Code_CODE_CLOCK_SKEW, wire.Code_CODE_CORRUPT:
		default:
			err = newError(wire.Code_CODE_UNAVAILABLE, err, "no leader found in time: %s", err.Error())
		}
	}
	if err.Code == wire.Code_CODE_UNAVAILABLE {
		cl.metrics.Unavailable.Add(1)
	}
	c.finish(Reply{}, c.noEffect(err))
}

// noEffect gives err, which says that the request had no effect, unless it may
// have had one (I6).
func (c *call) noEffect(err error) error {
	if !c.maybe {
		return err
	}
	c.table.client.metrics.UnknownOutcomes.Add(1)
	return newError(wire.Code_CODE_UNKNOWN_OUTCOME, err, "an attempt was sent and not answered; then: %v", err)
}

// abandon says that nobody waits any longer, and reports whether the request
// may have, or may yet get, an effect.
func (c *call) abandon() bool {
	c.abandoned.Store(true)
	return c.write && c.sent.Load()
}

// finish calls done, once (I4).
func (c *call) finish(r Reply, err error) {
	if c.running != nil {
		c.running.end(c.id)
	}
	switch {
	case c.doneOne == nil:
		c.done(r, err)
	case err != nil:
		c.doneOne(nil, err)
	default:
		c.doneOne(r.Results[0], nil)
	}
}

func (c *call) schemaVersion() uint32 {
	if c.request.schema != 0 || c.routes.desc.Schema == nil {
		return c.request.schema
	}
	return c.routes.desc.Schema.Version
}
