package multiraft

import (
	"fmt"
	"math"
	"slices"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/journal"
)

// snapshotTask is a snapshot on its way out.
type snapshotTask struct {
	g    *group
	to   catalog.ReplicaID
	node catalog.NodeID
	term uint64
	id   uint64
	conf []byte // the configuration the group was created with, for a state machine that has seen no other

	index   uint64 // the log is kept above, unless the stream is given up
	givenUp bool
	cancel  func() // the host's: it ends the stream
}

// inSnapshot is a snapshot that came in whole and was checked.
type inSnapshot struct {
	group catalog.GroupID
	from  catalog.NodeID
	inc   uint64
	msg   *pb.Message // MsgSnap
	meta  AppliedState
	spool Spool
}

// restoreTask is a snapshot on its way into the state machine.
type restoreTask struct {
	g       *group
	meta    AppliedState
	conf    []*catalog.Replica
	spool   Spool
	msg     *pb.Message // raft's MsgStorageAppend
	failure error
}

// describeSnapshot answers raft's wish for a snapshot. It says where one taken
// now would be; the state machine is asked when raft sends it. A later one will
// do: raft takes a follower's word for how far it got.
func (c *core) describeSnapshot(g *group) (*pb.Snapshot, error) {
	if c.leaving >= c.cfg.SnapshotsMax {
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	term, err := g.log.Term(g.applied)
	if err != nil {
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	return &pb.Snapshot{Metadata: &pb.SnapshotMetadata{Index: new(g.applied), Term: new(term), ConfState: confState(g.conf)}}, nil
}

// streamSnapshot starts a stream where raft sends a snapshot. The log is kept
// from here on until it has arrived, or the follower could not go on from it.
func (c *core) streamSnapshot(g *group, to catalog.ReplicaID, node catalog.NodeID, m *pb.Message) {
	c.leaving++
	c.metrics.SnapshotsSent.Add(1)
	t := &snapshotTask{g: g, to: to, node: node, term: m.GetTerm(),
		id: c.dice.Uint64(), conf: EncodeConf(g.conf), index: m.GetSnapshot().GetMetadata().GetIndex()}
	g.streams = append(g.streams, t)
	c.fx.snapshots = append(c.fx.snapshots, t)
}

// pinnedLogs is how many times LogBytesMax a log may grow to while snapshots
// leave. A follower that takes longer needs a later one.
const pinnedLogs = 4

// pinned is the index above which streams need the log. Where that has become
// too much it gives the streams up.
func (c *core) pinned(g *group) uint64 {
	pin := uint64(math.MaxUint64)
	for _, t := range g.streams {
		if g.log.bytes > pinnedLogs*c.cfg.LogBytesMax && !t.givenUp {
			t.givenUp = true
			pointGivenUp.Reach()
			c.fx.giveUps = append(c.fx.giveUps, t)
		}
		if !t.givenUp {
			pin = min(pin, t.index)
		}
	}
	return pin
}

// streamed tells raft what became of a stream.
func (c *core) streamed(t *snapshotTask, err error) {
	g := t.g
	g.streams = slices.DeleteFunc(g.streams, func(x *snapshotTask) bool { return x == t })
	c.leaving--
	if g.rn == nil || g.role != raft.StateLeader {
		return
	}
	status := raft.SnapshotFinish
	if err != nil {
		status = raft.SnapshotFailure
		c.metrics.SnapshotsFailed.Add(1)
	}
	g.rn.ReportSnapshot(uint64(t.to), status)
	c.touch(g)
	c.activate(g)
}

// hearSnapshot shows raft a snapshot that is here in whole. Raft decides
// whether it is wanted; if so it comes back through store.
func (c *core) hearSnapshot(in *inSnapshot) {
	g := c.groups[in.group]
	if g == nil || g.rn == nil || g.restoring != nil || g.incoming != nil || g.tail != nil || in.msg.GetTo() != uint64(g.replica) {
		c.fx.discards = append(c.fx.discards, in.spool)
		return
	}
	g.heard(catalog.ReplicaID(in.msg.GetFrom()), in.from)
	g.incoming = in
	g.unread = true
	c.stepRaft(g, in.msg)
	g.touched = false // looked at now, so that an unwanted one is known as such
	c.collect(g)
	c.discardIncoming(g)
}

func (c *core) discardIncoming(g *group) {
	if g.incoming != nil {
		c.fx.discards = append(c.fx.discards, g.incoming.spool)
		g.incoming = nil
	}
}

// restore begins to replace the state machine. What raft wants stored after
// waits: the log begins anew behind the snapshot.
func (c *core) restore(g *group, m *pb.Message) {
	in := g.incoming
	if in == nil || in.meta.Index != m.GetSnapshot().GetMetadata().GetIndex() {
		panic(fmt.Sprintf("multiraft: group %d: raft restores a snapshot that nobody sent", g.id))
	}
	g.incoming = nil
	conf, err := DecodeConf(in.meta.Conf)
	if err != nil {
		panic(fmt.Sprintf("multiraft: group %d: %v", g.id, err)) // checked when it came in
	}
	g.restoring = &restoreTask{g: g, meta: in.meta, conf: conf, spool: in.spool, msg: m}
	c.fx.restores = append(c.fx.restores, g.restoring)
}

// restored writes down where the log begins now that the state machine has the
// snapshot durably, and only then lets raft's answers go (M1).
func (c *core) restored(t *restoreTask) {
	g := t.g
	c.fx.discards = append(c.fx.discards, t.spool)
	if g.rn == nil || g.restoring != t {
		return
	}
	c.metrics.SnapshotsRestored.Add(1)
	g.restoring, g.voteless = nil, false
	c.bytes -= g.log.bytes
	g.log.reset(t.meta.Index, t.meta.Term)
	g.applied, g.applyTime = t.meta.Index, t.meta.HybridTime
	g.maxTime = max(g.maxTime, t.meta.HybridTime)
	g.commit = max(g.commit, g.applied)
	g.conf, g.pendConf = t.conf, nil
	g.st.startIndex, g.st.startTerm, g.st.conf, g.st.snapshotRestored = t.meta.Index, t.meta.Term, t.meta.Conf, t.meta.Index > bootIndex
	c.failPending(g, ErrUnknownOutcome)
	g.h.gate.applied(g.applied, 0, 0)
	turn := c.write(journal.Record{Stream: journal.StreamID(g.id), Kind: journal.KindStart, Pos: t.meta.Index})
	p := part{g: g, responses: t.msg.GetResponses(), state: true, term: g.term, vote: g.vote, last: t.meta.Index}
	c.writeState(g)
	if ents := t.msg.GetEntries(); len(ents) > 0 {
		c.storeEntries(g, ents)
		p.last = g.log.last()
	}
	c.retarget(g)
	c.await(g, p, turn)
	held := g.held
	g.held = nil
	for _, m := range held {
		c.store(g, m)
	}
	if g.lead == 0 && g.electAt == 0 {
		c.planElection(g, c.cfg.ElectionDelay+c.random(c.cfg.ElectionDelay))
	}
	g.publish()
	c.touch(g)
}
