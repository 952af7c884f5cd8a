package multiraft

import (
	"bytes"
	"slices"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/wire"
)

// say sends a message of raft's to another replica, in its envelope; or keeps
// it back, or turns it into something cheaper.
func (c *core) say(g *group, m *pb.Message) {
	to := catalog.ReplicaID(m.GetTo())
	node := g.nodeOf(to)
	if node == 0 || node == c.self {
		c.metrics.Strays.Add(1)
		if m.GetType() == pb.MsgSnap {
			g.rn.ReportSnapshot(m.GetTo(), raft.SnapshotFailure)
		}
		return
	}
	switch m.GetType() {
	case pb.MsgHeartbeat:
		c.sayHeartbeat(g, to, node, m)
	case pb.MsgHeartbeatResp:
		c.postBeat(node, &wire.GroupBeat{Group: uint64(g.id), FromReplica: uint64(g.replica), ToReplica: uint64(to),
			Term: m.GetTerm(), Commit: g.commit, Answer: true, Promise: c.stamp(g, to, node, m.GetTerm())})
	case pb.MsgApp:
		if len(m.GetEntries()) == 0 && c.carriesCommitAlone(g, to) {
			c.metrics.CommitsHeldBack.Add(1)
			return
		}
		if len(m.GetEntries()) == 0 && g.hasAll(to) {
			c.metrics.CommitsAlone.Add(1)
		}
		c.metrics.AppendsSent.Add(1)
		c.envelope(g, node, m)
	case pb.MsgAppResp:
		env := c.envelope(g, node, m)
		if !m.GetReject() {
			env.Promise = c.stamp(g, to, node, m.GetTerm())
		}
	case pb.MsgVote:
		env := c.envelope(g, node, m)
		if bytes.Equal(m.GetContext(), campaignTransfer) && g.revoked.term+1 == m.GetTerm() {
			env.Revoked, env.HybridTimeLease = true, uint64(g.revoked.floor)
		}
	case pb.MsgVoteResp:
		env := c.envelope(g, node, m)
		env.HybridTimeLease = uint64(g.h.Carries())
		if !m.GetReject() {
			g.votedAt = c.now
		}
	case pb.MsgTimeoutNow:
		env := c.envelope(g, node, m)
		env.Revoked, env.HybridTimeLease = true, uint64(g.handover.times)
	case pb.MsgSnap:
		c.streamSnapshot(g, to, node, m)
	default:
		c.envelope(g, node, m)
	}
}

// stamp pledges this voter to the leader that it acknowledges, and returns the
// generation of the promise that covers the acknowledgement; 0 if none does,
// because what is acknowledged belongs to a leader of the past.
func (c *core) stamp(g *group, to catalog.ReplicaID, node catalog.NodeID, term uint64) uint64 {
	if g.unread || term != g.term || g.lead != to {
		return 0
	}
	gen := c.pairs.stamp(node, c.now)
	if p := &g.pledge; p.node != node || p.gen != gen || p.term != term {
		if p.node != 0 && p.node != node {
			g.floor = max(g.floor, c.pairs.timesAcked(p.node))
		}
		p.node, p.replica, p.gen, p.term = node, to, gen, term
	}
	return gen
}

// carriesCommitAlone says that an empty append to a peer tells it nothing but
// the commit index. That travels with the next entries or the next beat (M10).
func (c *core) carriesCommitAlone(g *group, to catalog.ReplicaID) bool {
	replicating, paused, complete := false, false, false
	g.rn.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		if id == uint64(to) {
			replicating, paused = pr.State == tracker.StateReplicate, pr.MsgAppFlowPaused
			complete = pr.Match >= g.log.last()
		}
	})
	if !replicating {
		return false // a probe
	}
	if p := g.peer(to); p.probe && !complete {
		p.probe = false
		return false // an answer to a heartbeat showed it behind: what was sent may be lost
	}
	if paused && !complete {
		return false // its window is full: this one asks whether it is still there
	}
	return true
}

// hasAll says that a replica is known to have the whole log and is not probed.
func (g *group) hasAll(r catalog.ReplicaID) (all bool) {
	g.rn.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		if id == uint64(r) {
			all = pr.State == tracker.StateReplicate && pr.Match >= g.log.last()
		}
	})
	return all
}

// peer is what this leader remembers of another replica.
func (g *group) peer(r catalog.ReplicaID) *peer {
	for _, p := range g.peers {
		if p.replica == r {
			return p
		}
	}
	p := &peer{replica: r}
	g.peers = append(g.peers, p)
	return p
}

// heardAck notes under which promise a replica acknowledged this leader.
func (c *core) heardAck(g *group, from catalog.ReplicaID, term, inc, gen uint64) {
	if gen == 0 || g.role != raft.StateLeader || term != g.term {
		return
	}
	if p, a := g.peer(from), (ack{replica: from, inc: inc, gen: gen}); p.ack != a {
		p.ack = a
		g.h.gate.acknowledged(a)
	}
}

// beat is what a loop does once per beat: it looks at who went silent, ticks
// leaders without a lease, and beats for the groups with something outstanding.
// Groups at rest are not looked at.
func (c *core) beat() {
	c.sweep()
	c.repeatFarewells()
	c.tickShaky()
	c.nextCampaigns()
	c.resolveOrphans()
	c.watchDisk()
	c.watchTails()
	for _, g := range slices.Clone(c.active) {
		if g.handover.to != 0 && c.now >= g.handover.until {
			c.abdicate(g)
			continue
		}
		if c.rest(g); !g.isActive {
			continue
		}
		if g.tickedAt != c.now { // a tick beats by itself
			c.stepRaft(g, &pb.Message{Type: pb.MsgBeat.Enum(), From: new(raft.LocalAppendThread)})
		}
		c.promoteReady(g)
		g.publishProgress(c)
	}
}

// tickShaky ticks leaders whose lease lapsed, so that raft's own check of its
// quorum deposes them.
func (c *core) tickShaky() {
	keep := c.shaky[:0]
	for _, g := range c.shaky {
		if g.rn == nil || g.role != raft.StateLeader || g.h.gate.lease(c.now) > c.now && !c.anySilent(g) {
			g.isShaky = false
			continue
		}
		keep = append(keep, g)
		// A new leader has a lease's time to be acknowledged: on a node that is
		// slow under many elections, resigning early only makes more of them.
		if g.h.gate.lease(c.now) <= c.now && c.now-g.ledAt > c.cfg.Lease {
			c.metrics.LeasesLapsed.Add(1)
			g.rn.Tick()
			g.tickedAt = c.now
			g.unread = true
			c.touch(g)
		}
	}
	clear(c.shaky[len(keep):])
	c.shaky = keep
}

func (c *core) anySilent(g *group) bool {
	return slices.ContainsFunc(g.retained, func(n catalog.NodeID) bool { return !c.promises(n) })
}

// promises says whether a peer node's promise held at the last sweep.
func (c *core) promises(node catalog.NodeID) bool {
	for i := range c.seen {
		if c.seen[i].node == node {
			return c.seen[i].live
		}
	}
	return false
}

// activate puts a led group among those that beat.
func (c *core) activate(g *group) {
	if !g.isActive && len(g.retained) > 0 {
		g.isActive = true
		c.active = append(c.active, g)
	}
}

// sayHeartbeat puts a group into the beat for a node, unless the replica there
// has and knows everything, or its node is silent: its return will be noticed.
func (c *core) sayHeartbeat(g *group, to catalog.ReplicaID, node catalog.NodeID, m *pb.Message) {
	if !g.isActive {
		return
	}
	if !g.isShaky && (!c.promises(node) || c.upToDate(g, to, node)) {
		return
	}
	c.metrics.GroupBeats.Add(1)
	c.postBeat(node, &wire.GroupBeat{Group: uint64(g.id), FromReplica: uint64(g.replica), ToReplica: uint64(to),
		Term: m.GetTerm(), Commit: m.GetCommit(), Quiesce: g.needed() == g.log.last()})
}

// upToDate says that a replica has every entry, knows that all are committed,
// and acknowledged this leader under its node's present promise. That it knows is
// not enough: one that a snapshot brought forward knows before its journal has it,
// and until it says that too, raft and Status take it for behind.
func (c *core) upToDate(g *group, to catalog.ReplicaID, node catalog.NodeID) bool {
	p := g.peer(to)
	if p.commit < g.log.last() || !g.hasAll(to) {
		return false
	}
	for i := range c.seen {
		if v := &c.seen[i]; v.node == node {
			return p.ack.inc == v.got.inc && p.ack.gen == v.got.gen
		}
	}
	return false
}

// rest takes a group off the beating ones once every replica on a node that is
// there is up to date.
func (c *core) rest(g *group) {
	if !g.isActive || g.handover.to != 0 || g.changing != nil || g.commit < g.log.last() {
		return
	}
	done := true
	g.rn.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		r := catalog.ReplicaID(id)
		if r == g.replica || !done {
			return
		}
		node := g.nodeOf(r)
		gone := !c.promises(node) && c.now-g.ledAt > c.cfg.Lease // not merely yet to be heard of
		done = gone && pr.State != tracker.StateSnapshot || c.upToDate(g, r, node)
	})
	if !done {
		return
	}
	g.isActive = false
	c.active = without(c.active, g)
	c.cutLog(g, false)
	g.publishProgress(c)
	g.publish()
}

// hearGroupBeat takes a group's part of a beat: a heartbeat, or its answer.
func (c *core) hearGroupBeat(b *inBatch, gb *wire.GroupBeat) {
	g := c.groups[catalog.GroupID(gb.Group)]
	if g == nil || g.rn == nil || gb.ToReplica != uint64(g.replica) {
		c.metrics.Strays.Add(1)
		return
	}
	g.heard(catalog.ReplicaID(gb.FromReplica), b.from)
	if g.tail != nil {
		return
	}
	g.unread = true
	if !gb.Answer {
		g.quiet = gb.Quiesce
		// A leader that knows more of this log than is left of it must not make
		// raft commit what is not there.
		commit := min(gb.Commit, g.log.last())
		c.stepRaft(g, &pb.Message{Type: pb.MsgHeartbeat.Enum(), From: new(gb.FromReplica), To: new(gb.ToReplica),
			Term: new(gb.Term), Commit: new(commit)})
		if gb.Quiesce {
			c.cutLog(g, false)
		}
		return
	}
	from := catalog.ReplicaID(gb.FromReplica)
	c.heardAck(g, from, gb.Term, b.inc, gb.Promise)
	if g.role != raft.StateLeader || gb.Term != g.term {
		return
	}
	if c.toldOff(g, from, b.from) {
		return
	}
	p := g.peer(from)
	p.commit = gb.Commit
	g.rn.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
		if id == gb.FromReplica {
			p.probe = pr.Match < g.log.last() || pr.State == tracker.StateProbe
		}
	})
	c.stepRaft(g, &pb.Message{Type: pb.MsgHeartbeatResp.Enum(), From: new(gb.FromReplica), To: new(gb.ToReplica), Term: new(gb.Term)})
	c.rest(g)
}

// publishProgress shows a leader's view of the others to Status.
func (g *group) publishProgress(c *core) {
	var out []Progress
	if g.rn != nil && g.role == raft.StateLeader {
		g.rn.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
			r := catalog.ReplicaID(id)
			if r == g.replica {
				return
			}
			node := g.nodeOf(r)
			out = append(out, Progress{Replica: r, Node: node, Match: pr.Match, Learner: pr.IsLearner,
				State: [...]string{"probe", "replicate", "snapshot"}[pr.State], Silent: !c.promises(node),
				CaughtUp: pr.Match >= g.commit})
		})
	}
	g.h.gate.mu.Lock()
	g.h.gate.mu.status.Progress = out
	g.h.gate.mu.Unlock()
}
