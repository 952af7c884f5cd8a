package multiraft

import (
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"github.com/braiddb/braid/internal/catalog"
)

// transfer hands leadership to a replica, 0 for the best placed one. The gate
// closes first and for the rest of the term (M8); the successor hears of the
// last time given out together with the word to campaign.
func (c *core) transfer(g *group, to catalog.ReplicaID) {
	if g.rn == nil || g.role != raft.StateLeader || g.handover.to != 0 || g.ledTerm != g.term {
		return
	}
	if to = c.successor(g, to); to == 0 {
		return
	}
	c.metrics.Transfers.Add(1)
	g.handover.times = max(g.h.gate.revoke(), g.floor)
	g.handover.to, g.handover.until = to, c.now+c.cfg.TransferMax
	c.failWaiting(g, ErrNotReady)
	c.activate(g) // beats watch the time that this takes
	g.rn.TransferLeader(uint64(to))
	c.touch(g)
}

// successor picks a voter that has nearly everything and whose node is there.
func (c *core) successor(g *group, want catalog.ReplicaID) catalog.ReplicaID {
	best, match := catalog.ReplicaID(0), uint64(0)
	g.rn.WithProgress(func(id uint64, _ raft.ProgressType, p tracker.Progress) {
		r := catalog.ReplicaID(id)
		if r == g.replica || want != 0 && r != want || p.IsLearner || p.State != tracker.StateReplicate {
			return
		}
		if c.promises(g.nodeOf(r)) && p.Match >= match {
			best, match = r, p.Match
		}
	})
	return best
}

// abdicate gives up a leadership that could not be handed over: having closed
// its gate, the leader must not stay.
func (c *core) abdicate(g *group) {
	c.metrics.Abdications.Add(1)
	pointAbdicated.Reach()
	c.raiseTerm(g, g.term+1)
}

// raiseTerm makes raft follow nobody in a later term. The message that does it
// is one that raft then has no use for, having no leader to pass it to.
func (c *core) raiseTerm(g *group, term uint64) {
	if g.rn.BasicStatus().GetTerm() >= term {
		return // it heard of a later term in this very turn: there is a leader now to pass things to
	}
	g.unread = true
	c.stepRaft(g, &pb.Message{Type: pb.MsgTransferLeader.Enum(), From: new(uint64(g.replica)),
		To: new(uint64(g.replica)), Term: new(term)})
}

// drain moves every leadership away; none is sought from now on.
func (c *core) drain() {
	c.draining = true
	for _, g := range c.order {
		g.electAt = 0
		c.transfer(g, 0)
	}
}

// watchDisk hands leaderships over when this node's journal does not come back.
func (c *core) watchDisk() {
	if len(c.flights) == 0 || c.now-c.flights[0].at < c.cfg.StallMax {
		return
	}
	c.metrics.DiskStalls.Add(1)
	for _, g := range c.order {
		if g.role == raft.StateLeader && g.lastTurn > c.done {
			c.transfer(g, 0)
		}
	}
}

// leads counts the groups led that another voter could lead.
func (c *core) leads() (n int) {
	for _, g := range c.order {
		if g.rn != nil && g.role == raft.StateLeader && !g.alone() {
			n++
		}
	}
	return n
}

// stalled is how long the oldest append has been under way.
func (c *core) stalled() time.Duration {
	if len(c.flights) == 0 {
		return 0
	}
	return c.now - c.flights[0].at
}
