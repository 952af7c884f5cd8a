package rpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// pending is a message from this end until it is answered, if it is a call.
type pending struct {
	method   Method
	req      Message
	resp     Message
	deadline time.Time
	done     func(error) // nil if one-way
	id       uint64
	offset   uint64      // of its frame in what was ever added to the outbox (R1)
	stop     func() bool // of the timer while it waits for a connection
}

// settle ends a message that waited for a connection, without an answer.
func (p *pending) settle(err error) {
	if p.stop != nil {
		p.stop()
	}
	if p.done != nil {
		p.done(err)
	}
}

// ticket is how a call is taken back.
type ticket struct {
	lane *lane
	conn *clientConn
	p    *pending
	id   uint64
}

// cancel takes a call back, so that its done is not called; false if it was, or
// is about to be.
func (t ticket) cancel() bool {
	switch {
	case t.conn != nil:
		return t.conn.cancel(t.id)
	case t.lane == nil:
		return false
	}
	if t.lane.unwait(t.p) {
		return true
	}
	// It was handed to a connection meanwhile.
	c := t.lane.conn.Load()
	return c != nil && c.cancelPending(t.p)
}

// clientConn is one connection that this end made.
type clientConn struct {
	lane     *lane
	out      outbox
	ours     *hello
	theirs   *hello
	sameHome bool // no need to look whether the cluster is known by now

	// Under out.mu: calls under way by slot, free slots, and time.
	slots     []*pending
	free      []uint32
	sequence  uint64
	began     time.Time
	stamped   time.Time // when the last stamp was added
	sweepAt   time.Time // when the sweep for passed deadlines is due; zero if none is
	stopTick  func() bool
	stopSweep func() bool
	heard     bool // something was read since the last tick
	sent      uint64
	progress  uint64 // outbox.progress at the last tick
	silent    int    // ticks without a sign of life
}

func newClientConn(l *lane, conn net.Conn, ours, theirs *hello) *clientConn {
	c := &clientConn{lane: l, ours: ours, theirs: theirs}
	c.sameHome = ours.role == RoleClient || ours.cluster != ""
	o := &l.pool.opts
	c.out.init(conn, o.Clock, o.Metrics, o.QueueBytes)
	c.began = o.Clock.Now()
	c.stopTick = o.Clock.AfterFunc(o.SilenceMax/ticksMax, c.tick)
	if !l.pool.spawn(c.out.write) {
		c.out.fail(ErrClosed)
	}
	return c
}

// call is add for those who want the ticket; ok is false if the connection is
// gone and nothing of the call was sent.
func (c *clientConn) call(u urgency, p *pending) (ticket, bool) {
	id, err, ok := c.add(u, p)
	if !ok {
		return ticket{}, false
	}
	if err != nil {
		p.done(err)
		return ticket{}, true
	}
	return ticket{conn: c, id: id}, true
}

// add enters a call and adds its frame.
func (c *clientConn) add(u urgency, p *pending) (id uint64, err error, ok bool) {
	h := header{kind: kindRequest, method: p.method}
	if !p.deadline.IsZero() {
		left := p.deadline.Sub(c.out.clock.Now())
		if left <= 0 {
			return 0, &unreachable{c.lane.addr, context.DeadlineExceeded}, true
		}
		h.timeout = uint32(min(max(1, (left+time.Millisecond-1)/time.Millisecond), 1<<32-1))
	}
	size := p.req.SizeVT()
	// A large message is encoded before its id is known, and given its header later.
	encoded, err := c.out.encode(h, p.req, size)
	if err != nil {
		return 0, err, true
	}
	c.out.mu.Lock()
	if c.out.mu.err != nil {
		c.out.mu.Unlock()
		return 0, nil, false
	}
	slot, free := c.slotLocked()
	if !free || !c.out.roomLocked(headerBytes+size) {
		if free {
			c.free = append(c.free, slot)
		}
		c.out.mu.Unlock()
		c.out.metrics.Overloaded.Add(1)
		return 0, ErrOverloaded, true
	}
	c.stampLocked()
	c.sequence++
	p.id = c.sequence<<slotBits | uint64(slot)
	p.offset = c.out.mu.added
	h.id = p.id
	if encoded != nil {
		h.reput(encoded)
	}
	if err := c.out.appendLocked(encoded, h, p.req, size); err != nil {
		c.free = append(c.free, slot)
		c.out.mu.Unlock()
		return 0, err, true
	}
	p.req = nil // written; the answer needs no more of it
	c.slots[slot] = p
	c.armLocked(p.deadline)
	id = p.id
	c.out.submit(u)
	return id, nil, true
}

// send adds a one-way frame; ok is false if the connection is gone.
func (c *clientConn) send(p *pending) (err error, ok bool) {
	h := header{kind: kindOneWay, method: p.method}
	size := p.req.SizeVT()
	encoded, err := c.out.encode(h, p.req, size)
	if err != nil {
		return err, true
	}
	c.out.mu.Lock()
	switch {
	case c.out.mu.err != nil:
		c.out.mu.Unlock()
		return nil, false
	case !c.out.roomLocked(headerBytes + size):
		c.out.mu.Unlock()
		return ErrOverloaded, true
	}
	if err := c.out.appendLocked(encoded, h, p.req, size); err != nil {
		c.out.mu.Unlock()
		return err, true
	}
	c.out.submit(lazy)
	return nil, true
}

// slotLocked takes a free slot; the one that was freed last, so that few are used.
func (c *clientConn) slotLocked() (uint32, bool) {
	if n := len(c.free); n > 0 {
		slot := c.free[n-1]
		c.free = c.free[:n-1]
		return slot, true
	}
	if len(c.slots) >= slotsMax {
		return 0, false
	}
	c.slots = append(c.slots, nil)
	return uint32(len(c.slots) - 1), true
}

// takeLocked ends a call under way; nil if it is not, any longer.
func (c *clientConn) takeLocked(id uint64) *pending {
	slot := id & slotMask
	if slot >= uint64(len(c.slots)) {
		return nil
	}
	p := c.slots[slot]
	if p == nil || p.id != id {
		return nil
	}
	c.slots[slot] = nil
	c.free = append(c.free, uint32(slot))
	return p
}

// cancel takes a call back and tells the peer.
func (c *clientConn) cancel(id uint64) bool {
	c.out.mu.Lock()
	p := c.takeLocked(id)
	if p == nil {
		c.out.mu.Unlock()
		return false
	}
	c.cancelLocked(p)
	c.out.submit(lazy)
	return true
}

// cancelPending is cancel for a call whose id its caller does not know.
func (c *clientConn) cancelPending(p *pending) bool {
	c.out.mu.Lock()
	id := p.id
	c.out.mu.Unlock()
	return id != 0 && c.cancel(id)
}

func (c *clientConn) cancelLocked(p *pending) {
	c.out.metrics.Canceled.Add(1)
	// If the frame can not be added the connection is gone, and with it the request.
	_ = c.out.appendLocked(nil, header{kind: kindCancel, method: p.method, id: p.id}, nil, 0)
}

// read is the reading goroutine: it hands answers to those who wait, until the
// connection breaks, and then tells all who are left.
func (c *clientConn) read() {
	frames := newFrameReader(c.out.conn, c.out.metrics, c.out.uncork, func() {
		c.out.mu.Lock()
		c.out.mu.corked = true
		c.heard, c.sent = true, c.out.mu.added // part of a large frame is a sign of life, too
		c.out.mu.Unlock()
	})
	frames.large = c.arriving
	for {
		h, payload, err := frames.next()
		if err == nil {
			err = c.frame(h, payload)
		}
		if err != nil {
			c.out.fail(fmt.Errorf("%w: %w", ErrLost, err))
			var bad *FrameError
			if errors.As(err, &bad) {
				c.out.metrics.BadFrames.Add(1)
				c.lane.pool.opts.Logger.Warn("connection ended", "to", c.lane.addr, "error", err)
			}
			c.abort()
			return
		}
	}
}

// arrivingPerMiB is what a large answer that has begun to arrive is given beyond
// its call's deadline. To drop it on the way would be to ask for it again.
const arrivingPerMiB = time.Second

// arriving gives a call whose large answer is on its way the time to take it.
func (c *clientConn) arriving(h header) {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	if slot := h.id & slotMask; slot < uint64(len(c.slots)) {
		if p := c.slots[slot]; p != nil && p.id == h.id && !p.deadline.IsZero() {
			p.deadline = p.deadline.Add(time.Duration(h.length>>20) * arrivingPerMiB)
		}
	}
}

func (c *clientConn) frame(h header, payload []byte) error {
	if h.kind != kindResponse && h.kind != kindError && h.kind != kindPong {
		return &FrameError{fmt.Sprintf("kind %d at a caller", h.kind)}
	}
	c.out.mu.Lock()
	p := c.takeLocked(h.id)
	c.out.mu.Unlock()
	if p == nil {
		return nil // a pong, or nobody waits any longer
	}
	if h.method != p.method {
		p.done(ErrLost)
		return &FrameError{"an answer of another method"}
	}
	if h.kind == kindError {
		p.done(peerError(h))
		return nil
	}
	c.out.metrics.Decodes.Add(1)
	if err := p.resp.UnmarshalVTUnsafe(payload); err != nil {
		p.done(fmt.Errorf("%w: response of %s: %w", ErrLost, p.method, err))
		return &FrameError{"response: " + err.Error()}
	}
	p.done(nil)
	return nil
}

func peerError(h header) error {
	switch h.code {
	case errorNoMethod:
		return ErrNoMethod
	case errorBadRequest:
		return ErrBadRequest
	case errorCluster:
		return &HandshakeError{Refusal: RefusalCluster}
	case errorTooLarge:
		return ErrResponseTooLarge
	case errorExpired:
		return ErrExpired
	case errorBusy:
		return &BusyError{time.Duration(h.timeout) * time.Millisecond}
	}
	return fmt.Errorf("%w: peer answered error %d", ErrLost, h.code)
}

// abort ends what is left when the connection is gone: what was never given to
// the kernel had no effect (R1).
func (c *clientConn) abort() {
	c.out.mu.Lock()
	err, taken := c.out.mu.err, c.out.mu.taken
	left := c.slots
	c.slots, c.free = nil, nil
	c.stopTick()
	if c.stopSweep != nil {
		c.stopSweep()
	}
	c.out.mu.Unlock()
	c.lane.conn.CompareAndSwap(c, nil) // the next call finds no connection
	for _, p := range left {
		switch {
		case p == nil:
		case p.offset >= taken:
			p.done(&unreachable{c.lane.addr, err})
		case errors.Is(err, ErrLost):
			p.done(err)
		default:
			p.done(fmt.Errorf("%w: %w", ErrLost, err))
		}
	}
}

func (c *clientConn) broken() bool { return c.why() != nil }

func (c *clientConn) why() error {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	return c.out.mu.err
}

// sweepSlack is how late a deadline may be noticed: calls that end within it
// share one sweep.
const sweepSlack = 5 * time.Millisecond

// armLocked sees to it that a deadline is noticed. Calls usually have the same
// time to live, so the sweep that is due already mostly comes early enough, and
// a call costs no timer of its own.
func (c *clientConn) armLocked(deadline time.Time) {
	if deadline.IsZero() || (!c.sweepAt.IsZero() && !deadline.Before(c.sweepAt)) {
		return
	}
	if c.stopSweep != nil {
		c.stopSweep()
	}
	c.sweepAt = deadline.Add(sweepSlack)
	c.stopSweep = c.out.clock.AfterFunc(c.sweepAt.Sub(c.out.clock.Now()), c.sweep)
}

// sweep ends the calls whose deadline has passed.
func (c *clientConn) sweep() {
	now := c.out.clock.Now()
	var late []*pending
	var next time.Time
	c.out.mu.Lock()
	if c.out.mu.err != nil {
		c.out.mu.Unlock()
		return
	}
	for _, p := range c.slots {
		switch {
		case p == nil || p.deadline.IsZero():
		case !now.Before(p.deadline):
			late = append(late, c.takeLocked(p.id))
			c.cancelLocked(p)
		case next.IsZero() || p.deadline.Before(next):
			next = p.deadline
		}
	}
	c.sweepAt, c.stopSweep = time.Time{}, nil
	c.armLocked(next)
	c.out.submit(lazy)
	for _, p := range late {
		p.done(ErrDeadline)
	}
}

// ticksMax is how many silent ticks end a connection.
const ticksMax = 4

// tick notices a peer that is gone without a word. It pings only when something
// was sent that nothing came back for, so an idle connection costs nothing. A
// peer that still takes bytes is not silent.
func (c *clientConn) tick() {
	c.out.mu.Lock()
	if c.out.mu.err != nil {
		c.out.mu.Unlock()
		return
	}
	calls := len(c.slots) - len(c.free)
	progress := c.out.progress.Load()
	if c.heard || progress != c.progress || (calls == 0 && c.out.mu.added == c.sent) {
		c.silent = 0
	} else {
		c.silent++
	}
	c.heard, c.progress = false, progress
	if c.silent >= ticksMax {
		c.out.mu.Unlock()
		c.out.fail(fmt.Errorf("%w: silent for %v", ErrLost, c.lane.pool.opts.SilenceMax))
		return
	}
	if c.silent > 0 {
		_ = c.out.appendLocked(nil, header{kind: kindPing}, nil, 0) // it was alive a moment ago
	}
	c.stopTick = c.out.clock.AfterFunc(c.lane.pool.opts.SilenceMax/ticksMax, c.tick)
	c.out.submit(lazy)
}
