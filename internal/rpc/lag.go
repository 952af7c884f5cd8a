package rpc

import "time"

// How long requests wait before they are read cannot be seen at this end: they lie
// in the sender's outbox and in the kernels' buffers, and clocks of two machines
// need not agree. So the sender puts stamps of its own clock between its frames,
// when they are added. A stamp comes late by the difference of the clocks, by the
// way itself, and by the waiting; the first two are what the stamp that came least
// late was late by.
//
//	sender    stamp 0 ┐  stamp 5 ┐ stamp 10 ┐
//	                  └──┐       └──────────┼──┐
//	server               at 103             │  at 118: 113 - 103 = 10 more: so long
//	                                        └── …      have the frames behind it waited
const (
	// stampEvery is the least time between two stamps of a connection.
	stampEvery = 5 * time.Millisecond
	// lagMemory is how long a stamp may count as the one that came least late:
	// clocks do not go equally fast.
	lagMemory = time.Minute
)

// lag measures the waiting, at the end that reads.
type lag struct {
	began   time.Time
	is      time.Duration // what the frames now read have waited
	known   bool
	least   time.Duration // of this memory and the last
	younger time.Duration // of this memory alone
	since   time.Time     // when this memory began
}

// stamp takes a stamp: added is the sender's time since its connection began.
func (l *lag) stamp(now time.Time, added time.Duration) {
	late := now.Sub(l.began) - added
	switch {
	case !l.known:
		l.known, l.least, l.younger, l.since = true, late, late, now
	case now.Sub(l.since) >= lagMemory:
		l.least, l.younger, l.since = min(l.younger, late), late, now
	default:
		l.least, l.younger = min(l.least, late), min(l.younger, late)
	}
	l.is = late - l.least
}

// stampLocked adds a stamp, if the last is some time ago.
func (c *clientConn) stampLocked() {
	if min(c.ours.versionMax, c.theirs.versionMax) < versionStamps {
		return
	}
	now := c.out.clock.Now()
	if !c.stamped.IsZero() && now.Sub(c.stamped) < stampEvery {
		return
	}
	c.stamped = now
	// If it cannot be added the connection is gone, and the request will find that.
	_ = c.out.appendLocked(nil, header{kind: kindStamp, id: uint64(now.Sub(c.began))}, nil, 0)
}

// requestOverhead is what a request takes beyond its payload.
const requestOverhead = 512

// admit decides whether a request is taken up. What comes too late is dropped;
// users' work is refused while requests wait too long to be read, or take too much
// memory. It costs no decoding: the refusals of an overloaded server have to be cheap.
func (c *serverConn) admit(r *Request, info *methodInfo, payload int) bool {
	o := &c.server.opts
	if !r.Deadline.IsZero() && !c.now.Before(r.Deadline) {
		o.Metrics.Expired.Add(1)
		r.refuse(errorExpired, 0)
		return false
	}
	if !info.user {
		return true
	}
	if c.lag.is > o.LagMax {
		o.Metrics.Lagging.Add(1)
		r.busy(c.lag.is / 2)
		return false
	}
	held := int64(payload) + requestOverhead
	if under := o.Metrics.RequestBytes.Add(held); under > held && under > o.RequestBytes {
		o.Metrics.RequestBytes.Add(-held)
		o.Metrics.Crowded.Add(1)
		r.busy(o.LagMax / 4)
		return false
	}
	r.held = held
	return true
}

// busy refuses a request that is better sent again after a time.
func (r *Request) busy(after time.Duration) { r.refuse(errorBusy, max(after, time.Millisecond)) }
