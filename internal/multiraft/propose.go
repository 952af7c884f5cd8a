package multiraft

import (
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"github.com/braiddb/braid/internal/hlc"
)

// queue lets a proposal wait for the end of the turn.
func (c *core) queue(p *Proposal) {
	g := p.group.g
	if g.rn == nil {
		c.answer(p, ProposalResult{Err: ErrStopped})
		return
	}
	g.waiting = append(g.waiting, p)
	c.touch(g)
}

// How many entries of a group may be on their way to a majority at once, and when.
// What comes meanwhile gathers for the next: the slower the disks, the more
// writes share an entry, and a lone write never waits. An entry costs every
// replica a message, a sync and a turn, whatever it carries, so a second one
// leaves only where that cost is not felt: while the one on its way carries few
// writes, there being few who write, or once what waits is enough to bear it.
const (
	entriesOnTheWayMax = 2
	fewWrites          = 2
	enoughWrites       = 32
	enoughBytes        = 64 << 10
)

// proposeWaiting turns what waits in each group into one entry.
func (c *core) proposeWaiting() {
	for _, g := range c.ready {
		for len(g.waiting) > 0 {
			if !g.mayPropose() {
				c.hold(g)
				break
			}
			if !c.proposeEntry(g) {
				break
			}
		}
	}
}

// mayPropose reports whether the next entry may leave. Where this replica does
// not lead, or leads a term that its entries on the way are not of, it is for
// proposeEntry to say what becomes of those who wait.
func (g *group) mayPropose() bool {
	n := len(g.pending)
	switch {
	case n == 0, g.role != raft.StateLeader, g.pending[0].term != g.term, g.rn == nil:
		return true
	case n >= entriesOnTheWayMax:
		return false
	}
	return len(g.pending[n-1].proposals) <= fewWrites || g.waitingEnough()
}

// waitingEnough reports whether what waits is worth an entry of its own.
func (g *group) waitingEnough() bool {
	bytes := 0
	for i, p := range g.waiting {
		if bytes += len(p.Data); bytes >= enoughBytes || i+1 >= enoughWrites {
			return true
		}
	}
	return false
}

// hold keeps a group in mind until it may propose again.
func (c *core) hold(g *group) {
	if !slices.Contains(c.held, g) {
		c.held = append(c.held, g)
	}
}

// resumeHeld touches the held groups that may propose by now, and reports
// whether there were any. It is asked at the end of every turn, so whatever made
// room is noticed in the turn that it did.
func (c *core) resumeHeld() bool {
	keep := c.held[:0]
	for _, g := range c.held {
		if g.mayPropose() {
			c.touch(g)
		} else {
			keep = append(keep, g)
		}
	}
	resumed := len(keep) < len(c.held)
	clear(c.held[len(keep):])
	c.held = keep
	return resumed
}

// proposeEntry makes one entry of the proposals that wait, as many as fit, and
// gives it one hybrid time immediately before raft appends it (M2).
func (c *core) proposeEntry(g *group) bool {
	if c.dropExpired(g); len(g.waiting) == 0 {
		return true
	}
	n, size := 0, entryFixed+10
	for n < len(g.waiting) {
		s := entryWriteSize(g.waiting[n].Data)
		if n > 0 && size+s > c.cfg.EntryBytesMax {
			break
		}
		size += s
		n++
	}
	t, err := g.h.gate.assign(c.now)
	if err != nil {
		c.failWaiting(g, err)
		return false
	}
	e := &pendingEntry{first: c.nextID, proposals: g.waiting[:n:n], term: g.term, time: t}
	g.waiting = g.waiting[n:]
	if len(g.waiting) == 0 {
		g.waiting = nil // the entry owns the array
	}
	b := appendEntryHead(c.enc[:0], KindWrites, t, n)
	for _, p := range e.proposals {
		p.id = c.nextID
		c.nextID++
		b = appendEntryWrite(b, p.id, p.Data)
	}
	if c.enc = b[:0]; cap(b) > 1<<20 {
		c.enc = nil
	}
	return c.proposeBytes(g, e, &pb.Entry{Data: b})
}

// dropExpired answers those that wait and that nobody waits for any more: what is
// proposed is work for every replica.
func (c *core) dropExpired(g *group) {
	keep := g.waiting[:0]
	for _, p := range g.waiting {
		if p.expires == 0 || c.now < p.expires {
			keep = append(keep, p)
			continue
		}
		c.metrics.ProposalsExpired.Add(1)
		c.answer(p, ProposalResult{Err: ErrExpired})
	}
	clear(g.waiting[len(keep):])
	if g.waiting = keep; len(keep) == 0 {
		g.waiting = nil
	}
}

// proposeBytes hands an entry to raft. Raft copies it.
func (c *core) proposeBytes(g *group, e *pendingEntry, re *pb.Entry) bool {
	m := &pb.Message{Type: pb.MsgProp.Enum(), From: new(uint64(g.replica)), Entries: []*pb.Entry{re}}
	if err := g.rn.Step(m); err != nil {
		g.h.gate.unassign()
		c.metrics.ProposalsDropped.Add(1)
		for _, p := range e.proposals {
			c.answer(p, ProposalResult{Err: ErrNotReady})
		}
		if e.change != nil {
			e.change.finish(ErrNotReady)
		}
		return true
	}
	c.metrics.EntriesProposed.Add(1)
	c.metrics.WritesProposed.Add(uint64(len(e.proposals)))
	g.pending = append(g.pending, e)
	c.touch(g)
	c.activate(g)
	return true
}

// entryStored looks at an entry that entered the log.
func (c *core) entryStored(g *group, e *pb.Entry) {
	if err := g.noteEntry(e); err != nil {
		panic(fmt.Sprintf("multiraft: group %d: %v", g.id, err)) // validAppend and proposeEntry make these
	}
	if e.GetType() != pb.EntryNormal {
		c.retarget(g)
	}
	if g.role != raft.StateLeader {
		return
	}
	_, id, _ := entryTime(e)
	for _, p := range g.pending {
		if p.index == 0 && p.first == id && p.term == e.GetTerm() {
			p.index = e.GetIndex()
			return
		}
	}
}

// overwritten drops what the log's old end brought: configurations that will
// not be.
func (c *core) overwritten(g *group, from uint64) {
	n := len(g.pendConf)
	for n > 0 && g.pendConf[n-1].index >= from {
		n--
	}
	if n < len(g.pendConf) {
		g.pendConf = g.pendConf[:n]
		c.retarget(g)
	}
}

// applyTask is a run of committed entries on their way through the apply
// worker and back.
type applyTask struct {
	g       *group
	ents    []*pb.Entry
	local   []*pendingEntry // parallel to ents, nil where proposed elsewhere; nil if all were
	copies  uint32          // replicas known to hold the last of them
	resp    []*pb.Message   // for raft, once applied
	prior   hlc.Timestamp   // time of the entry before
	failure error
}

// apply hands committed entries to the apply worker, with the own proposals
// that they resolve.
func (c *core) apply(g *group, m *pb.Message) {
	t := &applyTask{g: g, ents: m.GetEntries(), resp: m.GetResponses(), prior: g.applyTime}
	for i, e := range t.ents {
		if at, _, _ := entryTime(e); at != 0 {
			g.applyTime = at
		}
		if p := c.resolve(g, e); p != nil {
			if t.local == nil {
				t.local = make([]*pendingEntry, len(t.ents))
			}
			t.local[i] = p
		}
	}
	if t.local != nil {
		t.copies = g.copies(t.ents[len(t.ents)-1].GetIndex())
	}
	c.fx.applies = append(c.fx.applies, t)
}

// resolve finds the own entry that a committed entry is, and fails those whose
// place it took: they can never commit (M9).
func (c *core) resolve(g *group, e *pb.Entry) *pendingEntry {
	for len(g.pending) > 0 {
		p := g.pending[0]
		if p.index == 0 || p.index > e.GetIndex() {
			return nil
		}
		g.pending[0] = nil
		g.pending = g.pending[1:]
		if len(g.pending) == 0 {
			g.pending = nil
		}
		if p.index == e.GetIndex() && p.term == e.GetTerm() {
			if p.change != nil {
				p.change.committed = true
			}
			return p
		}
		c.failEntry(p, g.notLeader())
	}
	return nil
}

// copies counts the replicas that are known to hold an entry durably.
func (g *group) copies(index uint64) uint32 {
	if g.role != raft.StateLeader {
		return 1
	}
	n := uint32(0)
	g.rn.WithProgress(func(_ uint64, _ raft.ProgressType, pr tracker.Progress) {
		if pr.Match >= index {
			n++
		}
	})
	return n
}

// applied takes what the apply worker has done back to raft.
func (c *core) applied(t *applyTask) {
	g := t.g
	if g.rn == nil {
		return
	}
	for _, e := range t.ents {
		if e.GetType() != pb.EntryNormal {
			c.applyConf(g, e)
		}
	}
	g.applied = t.ents[len(t.ents)-1].GetIndex()
	for _, m := range t.resp {
		c.stepRaft(g, m)
	}
	if t.local != nil {
		for _, p := range t.local {
			if p != nil && p.change != nil {
				c.finishChange(g, p.change, nil)
			}
		}
	}
	c.checkRemoved(g)
}

func (c *core) failWaiting(g *group, err error) {
	for _, p := range g.waiting {
		c.answer(p, ProposalResult{Err: err})
	}
	g.waiting = nil
}

// failPending gives up on every entry on its way.
func (c *core) failPending(g *group, err error) {
	for _, p := range g.pending {
		c.failEntry(p, err)
	}
	g.pending = nil
}

func (c *core) failEntry(e *pendingEntry, err error) {
	for _, p := range e.proposals {
		c.answer(p, ProposalResult{HybridTime: e.time, Index: e.index, Err: err})
	}
	if e.change != nil {
		e.change.finish(err)
	}
}

// resolveOrphans gives up waiting for what became of a lost leader's entries.
func (c *core) resolveOrphans() {
	keep := c.orphans[:0]
	for _, g := range c.orphans {
		for len(g.pending) > 0 && g.pending[0].deadline != 0 && g.pending[0].deadline <= c.now {
			c.failEntry(g.pending[0], ErrUnknownOutcome)
			g.pending = g.pending[1:]
		}
		if len(g.pending) == 0 {
			g.isOrphan, g.pending = false, nil
			continue
		}
		keep = append(keep, g)
	}
	clear(c.orphans[len(keep):])
	c.orphans = keep
}
