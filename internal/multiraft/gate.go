package multiraft

import (
	"slices"
	"sync"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
)

const forever = time.Duration(1<<63 - 1)

// gate decides whether a replica may serve alone, and gives out its times. It
// is the one part of a group that readers touch without a hop to the loop, so
// it has a mutex; the loop writes it, readers only draw safe times from it.
type gate struct {
	self  catalog.NodeID
	clock *hlc.Clock
	pairs *pairs

	mu struct {
		sync.Mutex
		leading  bool
		term     uint64
		own      bool // an entry of this term is applied here (M7)
		revoked  bool // began to hand over: never again in this term (M8)
		stopped  bool
		hint     catalog.NodeID
		refusal  *NotLeaderError // that names hint: who asks often is told the same
		floor    hlc.Timestamp   // times handed out are above (M7)
		earliest time.Duration   // nothing is served before

		// inflight are the times of this term's entries that are not applied
		// here yet, rising. A safe time is below all of them.
		inflight []hlc.Timestamp
		passed   hlc.Timestamp // of the last entry applied here: no read is before it
		safe     hlc.Timestamp // highest safe time given (M3)
		top      hlc.Timestamp // highest time given at all (M3)

		confs []voters // every configuration of the log, applied or not
		acks  []ack    // who has acknowledged this leader in this term

		// The most that promises amounted to in these configurations and this
		// term. Promises are never withdrawn, and a bound once acknowledged is
		// carried by votes for ever, so both only grow.
		leaseUntil time.Duration
		timesUntil hlc.Timestamp

		status Status
	}
}

// voters is one configuration's voting replicas.
type voters []voter

type voter struct {
	replica catalog.ReplicaID
	node    catalog.NodeID
}

// ack says under which generation of its node's promise a replica acknowledged.
type ack struct {
	replica  catalog.ReplicaID
	inc, gen uint64
}

// passLocked says whether the replica may serve at now.
func (g *gate) passLocked(now time.Duration) error {
	s := &g.mu
	switch {
	case s.stopped:
		return ErrStopped
	case !s.leading:
		if s.refusal == nil || s.refusal.Node != s.hint {
			s.refusal = &NotLeaderError{Node: s.hint}
		}
		return s.refusal
	case g.pairs.outlier.Load():
		pointOutlier.Reach()
		return ErrClockOutlier
	case s.revoked || !s.own || now < s.earliest:
		return ErrNotReady
	}
	if now >= s.leaseUntil && now >= g.refreshLocked() {
		return ErrNotReady
	}
	// The bound on times is a second fence: where a host was suspended and its
	// monotonic clock stood still, its wall clock tells that the lease is over.
	if wall := hlc.FromMicros(g.clock.Physical()); wall > s.timesUntil {
		if g.refreshLocked(); wall > s.timesUntil {
			pointFence.Reach()
			return ErrNotReady
		}
	}
	return nil
}

// refreshLocked looks at the promises anew: the lease is what a majority of
// every configuration promised, and so is the bound on times.
func (g *gate) refreshLocked() time.Duration {
	s := &g.mu
	lease, times := forever, hlc.Max
	if len(s.confs) == 0 {
		lease, times = 0, 0
	}
	for _, c := range s.confs {
		l, t := g.majorityLocked(c)
		lease, times = min(lease, l), min(times, t)
	}
	s.leaseUntil, s.timesUntil = max(s.leaseUntil, lease), max(s.timesUntil, times)
	return s.leaseUntil
}

func (g *gate) majorityLocked(c voters) (time.Duration, hlc.Timestamp) {
	if len(c) == 0 {
		return 0, 0
	}
	var lbuf [8]time.Duration
	var tbuf [8]hlc.Timestamp
	leases, times := lbuf[:0], tbuf[:0]
	for _, v := range c {
		l, t := time.Duration(0), hlc.Timestamp(0)
		if v.node == g.self {
			l, t = forever, hlc.Max
		} else if i := slices.IndexFunc(g.mu.acks, func(a ack) bool { return a.replica == v.replica }); i >= 0 {
			if p := g.pairs.grantOf(v.node); p.inc == g.mu.acks[i].inc && p.gen == g.mu.acks[i].gen {
				l, t = p.until, p.times
			}
		}
		leases, times = append(leases, l), append(times, t)
	}
	slices.Sort(leases)
	slices.Sort(times)
	// The (n/2+1)-th largest: that many voters promised at least this.
	i := (len(c) - 1) / 2
	return leases[i], times[i]
}

// readTime gives a safe time (M3): no later write is at or below it.
func (g *gate) readTime(now time.Duration) (hlc.Timestamp, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := &g.mu
	if err := g.passLocked(now); err != nil {
		return 0, err
	}
	t := g.clock.Now()
	if len(s.inflight) > 0 {
		t = min(t, s.inflight[0]-1)
	}
	if t > s.timesUntil {
		g.refreshLocked()
		if t > s.timesUntil {
			pointTimesBounded.Reach()
		}
		t = min(t, s.timesUntil)
	}
	t = max(t, s.safe)
	if t <= s.floor || t < s.passed {
		return 0, ErrNotReady
	}
	s.safe, s.top = t, max(s.top, t)
	return t, nil
}

// leadingNow is readTime's check alone.
func (g *gate) leadingNow(now time.Duration) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.passLocked(now); err != nil {
		return err
	}
	if g.clock.Now() <= g.mu.floor {
		return ErrNotReady
	}
	return nil
}

// assign gives the time of an entry that is proposed next. From here to the
// entry's application safe times stay below it.
func (g *gate) assign(now time.Duration) (hlc.Timestamp, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := &g.mu
	if err := g.passLocked(now); err != nil {
		return 0, err
	}
	t := g.clock.Now()
	if t > s.timesUntil {
		g.refreshLocked()
	}
	if t > s.timesUntil || t <= s.floor || t <= s.top {
		return 0, ErrNotReady
	}
	s.inflight = append(s.inflight, t)
	s.top = t
	return t, nil
}

// unassign takes back the newest assigned time: its entry was not proposed.
func (g *gate) unassign() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.inflight = g.mu.inflight[:len(g.mu.inflight)-1]
}

// applied says that the entry at index, of term and time t, is applied here:
// safe times may pass it.
func (g *gate) applied(index, term uint64, t hlc.Timestamp) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := &g.mu
	s.status.Applied = index
	s.passed = max(s.passed, t)
	if s.leading && term == s.term {
		s.own = true
	}
	n := 0
	for n < len(s.inflight) && s.inflight[n] <= t {
		n++
	}
	if n == len(s.inflight) {
		s.inflight = s.inflight[:0]
	} else {
		s.inflight = s.inflight[n:]
	}
}

// lead opens the gate's term. It passes nothing until an own entry is applied.
func (g *gate) lead(term uint64, floor hlc.Timestamp, earliest time.Duration, confs []voters) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := &g.mu
	s.leading, s.term, s.own, s.revoked = true, term, false, false
	s.floor, s.earliest = max(floor, s.top), earliest
	s.inflight, s.acks = s.inflight[:0], s.acks[:0]
	s.confs, s.leaseUntil, s.timesUntil = confs, 0, 0
	s.hint = g.self
}

// follow closes the gate and says who leads, if known. It returns the highest
// time given out.
func (g *gate) follow(hint catalog.NodeID) hlc.Timestamp {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := &g.mu
	s.leading, s.own, s.hint = false, false, hint
	s.inflight, s.confs = s.inflight[:0], nil
	s.leaseUntil, s.timesUntil = 0, 0
	return s.top
}

// revoke closes the gate for the rest of the term (M8) and returns the highest
// time given out in it or before.
func (g *gate) revoke() hlc.Timestamp {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.revoked = true
	return g.mu.top
}

// reconfigure says what the log's configurations are now.
func (g *gate) reconfigure(confs []voters) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.confs, g.mu.leaseUntil, g.mu.timesUntil = confs, 0, 0
}

// acknowledged notes that a replica acknowledged this leader in this term.
func (g *gate) acknowledged(a ack) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if i := slices.IndexFunc(g.mu.acks, func(b ack) bool { return b.replica == a.replica }); i >= 0 {
		g.mu.acks[i] = a
		return
	}
	g.mu.acks = append(g.mu.acks, a)
}

// lease is until when the leader's lease runs, as far as known.
func (g *gate) lease(now time.Duration) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.mu.leading {
		return 0
	}
	if now >= g.mu.leaseUntil {
		g.refreshLocked()
	}
	return g.mu.leaseUntil
}

// highest is the highest time given out here.
func (g *gate) highest() hlc.Timestamp {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.mu.top
}

// forget takes back an assigned time whose entry raft did not append after all.
func (g *gate) forget(t hlc.Timestamp) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if i := slices.Index(g.mu.inflight, t); i >= 0 {
		g.mu.inflight = slices.Delete(g.mu.inflight, i, i+1)
	}
}

// stop closes the gate for good.
func (g *gate) stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.stopped = true
}
