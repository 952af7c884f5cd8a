package multiraft

import (
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/wire"
)

// termLeap is how far a replica with a doubtful tail moves its term when not
// every voter could be asked. It may have voted in a term that nobody asked
// knows of; no silent voter is this many elections ahead.
const termLeap = 1 << 20

// tailDoubt is a replica whose journal ended in a suspect tail: it may have
// acknowledged entries or given votes that it does not have any more. It says
// nothing until the other voters have said what they know.
type tailDoubt struct {
	asked   []voter
	answers []*wire.TailState // parallel to asked, nil where none came
	since   time.Duration
	again   time.Duration
}

// tailQuery asks a node what it knows.
type tailQuery struct {
	to    catalog.NodeID
	state *wire.TailState
	g     *group
}

// tailEvent is a peer's answer, or a peer's question with where to answer it.
type tailEvent struct {
	from  catalog.NodeID
	state *wire.TailState
	reply func(*wire.TailState)
}

// deciding are the configurations whose voters can know what this replica
// acknowledged or voted: the newest that is known to be committed, and those
// after it. Whoever counts on it now, or gets its vote, holds that one in its
// log. The voters of earlier ones may all be gone, with nobody to answer for them.
func (g *group) deciding() []voters {
	out := g.confs()
	for i := len(g.pendConf); i > 0; i-- {
		if g.pendConf[i-1].index <= g.commit {
			return out[i:]
		}
	}
	return out
}

// doubtTail starts asking.
func (c *core) doubtTail(g *group) {
	d := &tailDoubt{since: c.now}
	for _, conf := range g.deciding() {
		for _, v := range conf {
			if v.replica != g.replica && !slices.Contains(d.asked, v) {
				d.asked = append(d.asked, v)
			}
		}
	}
	d.answers = make([]*wire.TailState, len(d.asked))
	g.tail = d
	c.metrics.TailsDoubted.Add(1)
	c.askTail(g)
}

// askTail asks those who have not answered, and again after a beat.
func (c *core) askTail(g *group) {
	d := g.tail
	d.again = c.now + c.cfg.Beat
	for i, v := range d.asked {
		if d.answers[i] == nil {
			c.fx.queries = append(c.fx.queries, tailQuery{to: v.node, g: g, state: &wire.TailState{Group: uint64(g.id),
				Replica: uint64(g.replica), Term: g.term, LastIndex: g.log.last(), LastTerm: g.log.lastTerm()}})
		}
	}
	if !slices.Contains(c.doubting, g) {
		c.doubting = append(c.doubting, g)
	}
}

// watchTails repeats questions and ends the wait for answers that do not come.
func (c *core) watchTails() {
	for _, g := range slices.Clone(c.doubting) {
		if g.tail == nil || g.rn == nil {
			c.doubting = without(c.doubting, g)
			continue
		}
		c.settleTail(g)
		if g.tail != nil && c.now >= g.tail.again {
			c.askTail(g)
		}
	}
}

// hearTail takes a peer's answer.
func (c *core) hearTail(e *tailEvent) {
	g := c.groups[catalog.GroupID(e.state.Group)]
	if g == nil || g.rn == nil || g.tail == nil || !e.state.Known || catalog.ReplicaID(e.state.Replica) != g.replica {
		return
	}
	for i, v := range g.tail.asked {
		if v.node == e.from {
			g.tail.answers[i] = e.state
		}
	}
	c.settleTail(g)
}

// settleTail decides once every voter has answered, or, after the grace, so
// many that they and this replica are a majority of every configuration.
func (c *core) settleTail(g *group) {
	d := g.tail
	all := !slices.Contains(d.answers, nil)
	if !all && (c.now-d.since < c.cfg.SuspectGrace || !g.majorityAnswered()) {
		return
	}
	g.tail = nil
	c.doubting = without(c.doubting, g)
	term := g.term
	lost := false
	for _, a := range d.answers {
		if a == nil {
			continue
		}
		term = max(term, a.Term)
		if a.KnownMatch > g.log.last() {
			g.owes.index, g.owes.term, lost = max(g.owes.index, a.KnownMatch), max(g.owes.term, a.Term), true
		}
		if a.LastTerm > g.log.lastTerm() || a.LastTerm == g.log.lastTerm() && a.LastIndex > g.log.last() {
			if a.LastTerm > g.owes.lastTerm || a.LastTerm == g.owes.lastTerm && a.LastIndex > g.owes.last {
				g.owes.lastTerm, g.owes.last = a.LastTerm, a.LastIndex
			}
		}
	}
	if lost {
		c.metrics.TailsLost.Add(1)
		pointTailLost.Reach()
	} else {
		pointTailSound.Reach()
	}
	// A vote may be among what was lost: in no term that exists may it vote anew.
	if all {
		term++
	} else {
		term += termLeap
	}
	c.raiseTerm(g, term)
	c.planElection(g, c.cfg.ElectionDelay+c.random(c.cfg.ElectionDelay))
	g.publish()
}

// settled says that no group here is in doubt or owes anything: what the
// journal's end may have held is accounted for.
func (c *core) settled() bool {
	if len(c.doubting) > 0 {
		return false
	}
	for _, g := range c.order {
		if g.tail != nil || g.rn != nil && (g.owing() || g.voteless) {
			return false
		}
	}
	return true
}

// owed is what peers know a replica to have held, or hold themselves.
type owed struct {
	index, term    uint64 // a leader of term counted on entries up to index
	lastTerm, last uint64 // the longest log among those asked
}

func (g *group) majorityAnswered() bool {
	for _, conf := range g.deciding() {
		n := 1
		for _, v := range conf {
			if i := slices.Index(g.tail.asked, v); i >= 0 && g.tail.answers[i] != nil {
				n++
			}
		}
		if 2*n <= len(conf) {
			return false
		}
	}
	return true
}

// owing says that peers know this replica to have held more than it has now.
// It takes entries, but does not campaign until it has caught up, and votes
// only for who holds all that it owes.
func (g *group) owing() bool {
	if g.owes == (owed{}) {
		return false
	}
	if !g.owes.heldBy(g.log.lastTerm(), g.durable.index) {
		return true
	}
	g.owes = owed{}
	return false
}

// heldBy says whether a log that ends so holds what is owed.
func (o *owed) heldBy(term, last uint64) bool {
	return (last >= o.index || term > o.term) && (term > o.lastTerm || term == o.lastTerm && last >= o.last)
}

// askedTail answers a peer in doubt. A leader that counted on entries which the
// asking replica lost cannot repair it: raft takes an acknowledgement for ever.
// It steps down, and the next term finds out anew how far everyone is.
func (c *core) askedTail(e *tailEvent) {
	q := e.state
	a := &wire.TailState{Group: q.Group, Replica: q.Replica}
	g := c.groups[catalog.GroupID(q.Group)]
	if g != nil && g.h.damaged == nil {
		a.Known = true // even if it was removed since, or is in doubt itself
		a.Term, a.LastIndex, a.LastTerm = g.term, g.log.last(), g.log.lastTerm()
		if g.rn != nil && g.role == raft.StateLeader {
			g.rn.WithProgress(func(id uint64, _ raft.ProgressType, p tracker.Progress) {
				if id == q.Replica {
					a.KnownMatch = p.Match
				}
			})
			if a.KnownMatch > q.LastIndex {
				c.stepAside(g)
			}
		}
	}
	e.reply(a)
}

// stepAside hands over, or resigns where nobody can take over.
func (c *core) stepAside(g *group) {
	c.transfer(g, 0)
	if g.handover.to == 0 {
		g.handover.times = max(g.h.gate.revoke(), g.floor)
		g.handover.to = g.replica
		g.handover.until = c.now
		c.activate(g)
	}
}
