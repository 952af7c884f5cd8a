package multiraft

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/wire"
)

// driftShare is the part of a lease that its holder does not use: a clock may
// run this much slower than the clock of who promised (1/64 is 1.5 %).
const driftShare = 64

// sentKept is how many unanswered beats are remembered per peer.
const sentKept = 16

// pairs holds, per peer node, the promise given to it and the promise got from
// it. It is a leaf: loops, readers and the transport call it, it calls nobody.
//
// A promise has a generation. It moves on when the promise lapses, when the
// peer starts anew, and when a voter uses its freedom under a lapsed promise.
// An acknowledgement names the generation that it was given under, and covers
// its group only as long as the promise keeps that generation. So a promise
// that is renewed after a lapse never covers a group whose voter moved on.
type pairs struct {
	self    catalog.NodeID
	inc     uint64
	lease   time.Duration
	skew    time.Duration
	clock   *hlc.Clock
	metrics *Metrics

	wake    func()      // a peer was added that has promised nothing yet: beat now; may be nil
	outlier atomic.Bool // a majority of peers and this node's clock disagree

	votesFrom atomic.Int64 // when all replicas of this node vote again (M6)

	mu struct {
		sync.Mutex
		byNode map[catalog.NodeID]*pair
		list   []*pair // by node id
	}
}

type pair struct {
	node catalog.NodeID
	refs int    // groups of this node that have a replica there
	inc  uint64 // newest life of the peer that was heard of

	// What this node promised the peer: to elect nobody else where the peer
	// leads. Until is on this node's monotonic clock.
	given struct {
		gen   uint64
		until time.Duration
		times hlc.Timestamp // highest bound on hybrid times acknowledged to the peer
	}
	got  grant
	seq  uint64
	sent [sentKept]sentBeat

	heardAt   time.Duration
	disputeAt time.Duration // when one of the two last refused the other's clock; 0: never
}

// grant is a promise that this node holds of a peer.
type grant struct {
	inc, gen uint64
	until    time.Duration // on this node's monotonic clock, drift taken off
	times    hlc.Timestamp // bound on hybrid times that the peer acknowledged
}

type sentBeat struct {
	seq   uint64
	at    time.Duration
	times hlc.Timestamp
}

func newPairs(d *Deps, cfg *Config, m *Metrics) *pairs {
	p := &pairs{self: d.Node, inc: d.Incarnation, lease: cfg.Lease, skew: cfg.MaxSkew, clock: d.Clock, metrics: m}
	p.mu.byNode = make(map[catalog.NodeID]*pair)
	return p
}

func (p *pairs) pairLocked(node catalog.NodeID) *pair {
	if x := p.mu.byNode[node]; x != nil {
		return x
	}
	x := &pair{node: node}
	x.given.gen = 1
	p.mu.byNode[node] = x
	i, _ := slices.BinarySearchFunc(p.mu.list, node, func(a *pair, n catalog.NodeID) int { return int(int64(a.node) - int64(n)) })
	p.mu.list = slices.Insert(p.mu.list, i, x)
	return x
}

// retain says that one more group has a replica on node.
func (p *pairs) retain(node catalog.NodeID) {
	if node == p.self {
		return
	}
	p.mu.Lock()
	x := p.pairLocked(node)
	x.refs++
	first := x.refs == 1
	p.mu.Unlock()
	if first && p.wake != nil {
		p.wake()
	}
}

// release takes back one retain.
func (p *pairs) release(node catalog.NodeID) {
	if node == p.self {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pairLocked(node).refs--
}

// admit hears that a life of a peer spoke. It refuses older lives.
func (p *pairs) admit(node catalog.NodeID, inc uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.admitLocked(p.pairLocked(node), inc)
}

func (p *pairs) admitLocked(x *pair, inc uint64) bool {
	if inc < x.inc {
		return false
	}
	if inc > x.inc {
		if x.inc != 0 {
			p.voidLocked(x) // what was promised to the older life binds nobody
		}
		x.inc = inc
	}
	return true
}

// voidLocked ends the promise to a peer that cannot rely on it any more.
func (p *pairs) voidLocked(x *pair) {
	x.given.gen++
	x.given.until = 0
}

// lapseLocked moves the generation on if the promise has run out.
func (p *pairs) lapseLocked(x *pair, now time.Duration) {
	if x.given.until != 0 && x.given.until <= now {
		p.voidLocked(x)
		p.metrics.PromisesLapsed.Add(1)
	}
}

// stamp is the generation under which this node now acknowledges the peer.
func (p *pairs) stamp(node catalog.NodeID, now time.Duration) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	x := p.pairLocked(node)
	p.lapseLocked(x, now)
	return x.given.gen
}

// bound says until when an acknowledgement under gen binds this node, 0 if it
// does not. An answer of 0 frees the caller: the generation moves on, so that
// no later renewal covers what the caller does with its freedom.
func (p *pairs) bound(node catalog.NodeID, gen uint64, now time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	x := p.pairLocked(node)
	if x.given.gen != gen {
		return 0
	}
	if x.given.until > now {
		return x.given.until
	}
	p.voidLocked(x)
	return 0
}

// timesAcked is the highest bound on hybrid times acknowledged to the peer.
func (p *pairs) timesAcked(node catalog.NodeID) hlc.Timestamp {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pairLocked(node).given.times
}

// grantOf is the promise held of a peer.
func (p *pairs) grantOf(node catalog.NodeID) grant {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pairLocked(node).got
}

// pairView is what a loop looks at once per beat.
type pairView struct {
	node     catalog.NodeID
	inc      uint64
	givenGen uint64
	until    time.Duration // of the promise given; 0: none
	got      grant
	live     bool // the peer's promise to this node holds
}

// view appends what a loop wants to know of every peer, in order of node id.
func (p *pairs) view(now time.Duration, out []pairView) []pairView {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range p.mu.list {
		p.lapseLocked(x, now)
		out = append(out, pairView{node: x.node, inc: x.inc, givenGen: x.given.gen, until: x.given.until,
			got: x.got, live: x.got.until > now})
	}
	return out
}

// bounds are the hybrid times that this node's beats carry.
func (p *pairs) boundNow() hlc.Timestamp {
	return hlc.FromMicros(p.clock.Physical()).Add(p.lease)
}

// outBeat is a beat on its way.
type outBeat struct {
	to   catalog.NodeID
	beat *wire.Beat
}

// beats makes this beat's requests, one per peer that shares a group.
func (p *pairs) beats(now time.Duration) []outBeat {
	ht, bound := p.clock.Now(), p.boundNow()
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []outBeat
	peers, disputed := 0, 0
	for _, x := range p.mu.list {
		if x.refs <= 0 {
			continue
		}
		peers++
		if x.disputeAt != 0 && now-x.disputeAt < 2*p.lease {
			disputed++
		}
		x.seq++
		x.sent[x.seq%sentKept] = sentBeat{seq: x.seq, at: now, times: bound}
		out = append(out, outBeat{to: x.node, beat: &wire.Beat{
			FromNode: uint64(p.self), ToNode: uint64(x.node), Incarnation: p.inc, ToIncarnation: x.inc,
			Sequence: x.seq, HybridTime: uint64(ht), HybridTimeLease: uint64(bound),
			PromiseUs: p.lease.Microseconds(),
		}})
	}
	p.outlier.Store(disputed*2 > peers)
	return out
}

// releases tells every peer that this node gives up what they promised it. The
// caller has stopped serving.
func (p *pairs) releases() []outBeat {
	ht := p.clock.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []outBeat
	for _, x := range p.mu.list {
		if x.refs > 0 {
			x.got = grant{}
			clear(x.sent[:])
			out = append(out, outBeat{to: x.node, beat: &wire.Beat{
				FromNode: uint64(p.self), ToNode: uint64(x.node), Incarnation: p.inc,
				HybridTime: uint64(ht), Releases: true,
			}})
		}
	}
	return out
}

// hear takes a beat at the time of its arrival, which must be read after it
// arrived. It returns the answer to send, if any, and whether the groups in
// the beat may be looked at.
func (p *pairs) hear(now time.Duration, b *wire.Beat) (answer *wire.Beat, ok bool) {
	node := catalog.NodeID(b.FromNode)
	if catalog.NodeID(b.ToNode) != p.self || node == p.self || node == 0 {
		return nil, false
	}
	refused := p.clock.Update(hlc.Timestamp(b.HybridTime))
	if refused == nil && hlc.Timestamp(b.HybridTimeLease) > p.boundNow().Add(p.skew) {
		refused = &hlc.SkewError{Remote: hlc.Timestamp(b.HybridTimeLease), Allowed: p.skew}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	x := p.pairLocked(node)
	if !p.admitLocked(x, b.Incarnation) {
		return nil, false
	}
	if refused != nil {
		p.metrics.SkewRefused.Add(1)
		x.disputeAt = max(now, 1)
		if b.Answer || b.Sequence == 0 {
			return nil, false
		}
		return p.answerLocked(b, &wire.Beat{Skewed: true}), false
	}
	x.heardAt = now
	switch {
	case b.Answer:
		p.grantedLocked(x, now, b)
	case b.Releases:
		p.voidLocked(x)
	case b.Sequence != 0:
		return p.grantLocked(x, now, b), true
	}
	return nil, true
}

// grantLocked renews the promise to a peer that asks.
func (p *pairs) grantLocked(x *pair, now time.Duration, b *wire.Beat) *wire.Beat {
	d := min(time.Duration(b.PromiseUs)*time.Microsecond, p.lease)
	if d <= 0 {
		return nil
	}
	p.lapseLocked(x, now)
	x.given.until = max(x.given.until, now+d)
	x.given.times = max(x.given.times, hlc.Timestamp(b.HybridTimeLease))
	return p.answerLocked(b, &wire.Beat{PromiseUs: d.Microseconds(), Promise: x.given.gen})
}

func (p *pairs) answerLocked(to, b *wire.Beat) *wire.Beat {
	b.FromNode, b.ToNode = uint64(p.self), to.FromNode
	b.Incarnation, b.ToIncarnation = p.inc, to.Incarnation
	b.Sequence, b.Answer = to.Sequence, true
	b.HybridTime = uint64(p.clock.Now())
	return b
}

// grantedLocked takes a peer's promise.
func (p *pairs) grantedLocked(x *pair, now time.Duration, b *wire.Beat) {
	if b.ToIncarnation != p.inc {
		return
	}
	if b.Skewed {
		x.disputeAt = max(now, 1)
		return
	}
	x.disputeAt = 0
	s := x.sent[b.Sequence%sentKept]
	if b.Sequence == 0 || s.seq != b.Sequence {
		return // long forgotten
	}
	g := grant{inc: b.Incarnation, gen: b.Promise, times: s.times}
	d := time.Duration(b.PromiseUs) * time.Microsecond
	g.until = s.at + d - d/driftShare
	switch old := x.got; {
	case old.inc == g.inc && old.gen > g.gen:
		return // overtaken
	case old.inc == g.inc && old.gen == g.gen:
		g.until, g.times = max(g.until, old.until), max(g.times, old.times)
	}
	x.got = g
}
