package multiraft

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/wire"
)

// changeRequest is a caller that waits for a change of the configuration.
type changeRequest struct {
	change    Change
	deadline  time.Duration // 0: none
	done      func(error)   // called once, must not block
	committed bool
}

func (r *changeRequest) finish(err error) {
	if r.done != nil {
		r.done(err)
		r.done = nil
	}
}

// change begins a single step of a membership change. Promotion waits until
// the learner has caught up.
func (c *core) change(g *group, r *changeRequest) {
	switch {
	case g.rn == nil:
		r.finish(ErrStopped)
	case g.role != raft.StateLeader:
		r.finish(g.notLeader())
	case g.changing != nil || len(g.pendConf) > 0:
		r.finish(ErrChangePending)
	case r.change.Kind == Remove && r.change.Replica == g.replica:
		// Its successor removes it: a leader that removes itself may take the
		// only second copy of what it committed last along.
		c.transfer(g, 0)
		r.finish(ErrNotReady)
	case r.change.Kind == Promote:
		g.changing = r
		c.activate(g)
		c.promoteReady(g)
	default:
		c.proposeChange(g, r)
	}
}

// promoteReady proposes a waiting promotion once its learner is caught up: it
// has everything that is committed, so it will not hold the group back.
func (c *core) promoteReady(g *group) {
	r := g.changing
	if r == nil || r.change.Kind != Promote || slices.ContainsFunc(g.pending, func(p *pendingEntry) bool { return p.change == r }) {
		return
	}
	if r.deadline != 0 && c.now >= r.deadline {
		g.changing = nil
		r.finish(fmt.Errorf("%w: replica %d has not caught up", ErrBadChange, r.change.Replica))
		return
	}
	if g.h.gate.leadingNow(c.now) != nil {
		return
	}
	ready := false
	g.rn.WithProgress(func(id uint64, _ raft.ProgressType, p tracker.Progress) {
		if id == uint64(r.change.Replica) {
			ready = p.State == tracker.StateReplicate && p.Match >= g.commit
		}
	})
	if ready || findReplica(g.conf, r.change.Replica) == nil {
		g.changing = nil
		c.proposeChange(g, r)
	}
}

// cancelChange forgets a promotion that is not in the log yet.
func (c *core) cancelChange(g *group, r *changeRequest) {
	if g.changing == r && !slices.ContainsFunc(g.pending, func(p *pendingEntry) bool { return p.change == r }) {
		g.changing = nil
	}
}

// proposeChange puts the new configuration into the log. It carries a hybrid
// time as writes do.
func (c *core) proposeChange(g *group, r *changeRequest) {
	conf, single, err := nextConf(g.conf, r.change)
	if err != nil || conf == nil {
		r.finish(err)
		return
	}
	t, err := g.h.gate.assign(c.now)
	if err != nil {
		r.finish(err)
		return
	}
	e := &pendingEntry{first: c.nextID, term: g.term, time: t, change: r}
	c.nextID++
	cc := &pb.ConfChangeV2{Changes: []*pb.ConfChangeSingle{single},
		Context: appendEntryWrite(appendEntryHead(nil, KindConf, t, 1), e.first, EncodeConf(conf))}
	data, err := proto.Marshal(cc)
	if err != nil {
		panic(fmt.Sprintf("multiraft: a configuration change does not marshal: %v", err))
	}
	g.changing = r
	c.proposeBytes(g, e, &pb.Entry{Type: pb.EntryConfChangeV2.Enum(), Data: data})
}

// nextConf is the configuration after a change; nil if it is so already.
func nextConf(conf []*catalog.Replica, ch Change) ([]*catalog.Replica, *pb.ConfChangeSingle, error) {
	next := cloneConf(conf)
	i := slices.IndexFunc(next, func(r *catalog.Replica) bool { return catalog.ReplicaID(r.GetId()) == ch.Replica })
	single := &pb.ConfChangeSingle{NodeId: new(uint64(ch.Replica))}
	switch ch.Kind {
	case AddLearner:
		if i >= 0 {
			return nil, nil, nil
		}
		if ch.Replica == 0 || ch.Node == 0 || len(next) >= confReplicasMax ||
			slices.ContainsFunc(next, func(r *catalog.Replica) bool { return catalog.NodeID(r.GetNode()) == ch.Node }) {
			return nil, nil, fmt.Errorf("%w: add replica %d on node %d", ErrBadChange, ch.Replica, ch.Node)
		}
		single.Type = pb.ConfChangeAddLearnerNode.Enum()
		next = append(next, &catalog.Replica{Id: uint64(ch.Replica), Node: uint64(ch.Node), Role: catalog.Role_ROLE_LEARNER})
	case Promote:
		if i < 0 {
			return nil, nil, fmt.Errorf("%w: replica %d is not a member", ErrBadChange, ch.Replica)
		}
		if next[i].Role == catalog.Role_ROLE_VOTER {
			return nil, nil, nil
		}
		single.Type = pb.ConfChangeAddNode.Enum()
		next[i].Role = catalog.Role_ROLE_VOTER
	case Remove:
		if i < 0 {
			return nil, nil, nil
		}
		single.Type = pb.ConfChangeRemoveNode.Enum()
		next = slices.Delete(next, i, i+1)
		if len(votersOf(next)) == 0 {
			return nil, nil, fmt.Errorf("%w: the last voter cannot be removed", ErrBadChange)
		}
	default:
		return nil, nil, fmt.Errorf("%w: kind %d", ErrBadChange, ch.Kind)
	}
	return next, single, nil
}

// applyConf makes a committed configuration the group's.
func (c *core) applyConf(g *group, e *pb.Entry) {
	cc, err := decodeConfChange(e)
	if err != nil {
		panic(fmt.Sprintf("multiraft: group %d: committed entry %d: %v", g.id, e.GetIndex(), err))
	}
	var d Entry
	if _, err := decodeEntry(e, &d, nil); err != nil {
		panic(fmt.Sprintf("multiraft: group %d: committed entry %d: %v", g.id, e.GetIndex(), err))
	}
	conf, err := DecodeConf(d.Conf)
	if err != nil {
		panic(fmt.Sprintf("multiraft: group %d: committed entry %d: %v", g.id, e.GetIndex(), err))
	}
	before := g.conf
	g.conf = conf
	for len(g.pendConf) > 0 && g.pendConf[0].index <= e.GetIndex() {
		g.pendConf = g.pendConf[1:]
	}
	g.unread = true
	g.rn.ApplyConfChange(cc)
	c.touch(g)
	if g.role == raft.StateLeader {
		for _, r := range before {
			if findReplica(conf, catalog.ReplicaID(r.GetId())) == nil {
				c.tellRemoved(g, catalog.ReplicaID(r.GetId()), catalog.NodeID(r.GetNode()))
			}
		}
	}
	c.retarget(g)
	if g.role == raft.StateLeader {
		c.activate(g)
	} else if g.lead == 0 && g.electAt == 0 {
		c.planElection(g, c.cfg.ElectionDelay+c.random(c.cfg.ElectionDelay)) // it may be a voter only now
	}
	g.publish()
}

// decodeConfChange reads the change of an entry.
func decodeConfChange(e *pb.Entry) (*pb.ConfChangeV2, error) {
	cc := &pb.ConfChangeV2{}
	if e.GetType() != pb.EntryConfChangeV2 {
		return nil, fmt.Errorf("%w: entry type %s", ErrBadEntry, e.GetType())
	}
	if err := proto.Unmarshal(e.GetData(), cc); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadEntry, err)
	}
	if len(cc.GetChanges()) != 1 || cc.GetTransition() != pb.ConfChangeTransitionAuto {
		return nil, fmt.Errorf("%w: a change of %d replicas at once", ErrBadEntry, len(cc.GetChanges()))
	}
	return cc, nil
}

func (c *core) finishChange(g *group, r *changeRequest, err error) {
	if g.changing == r {
		g.changing = nil
	}
	r.finish(err)
}

func (g *group) failChange(err error) {
	if g.changing != nil {
		g.changing.finish(err)
		g.changing = nil
	}
}

// failRefusedChange notices a change that raft replaced by an empty entry,
// because another one was under way: its place in the queue stays unfilled.
func (c *core) failRefusedChange(g *group) {
	for i, p := range g.pending {
		if p.index == 0 && p.change != nil {
			g.pending = slices.Delete(g.pending, i, i+1)
			g.h.gate.forget(p.time)
			c.finishChange(g, p.change, ErrChangePending)
			return
		}
	}
}

// member says whether any configuration in the log names a replica.
func (g *group) member(r catalog.ReplicaID) bool {
	if findReplica(g.conf, r) != nil {
		return true
	}
	return slices.ContainsFunc(g.pendConf, func(p confAt) bool { return findReplica(p.conf, r) != nil })
}

// tellRemoved says to a replica that it belongs to the group no more. Raft
// itself stops talking to it, so it would never learn.
func (c *core) tellRemoved(g *group, r catalog.ReplicaID, node catalog.NodeID) {
	if node == c.self || node == 0 {
		return
	}
	env := &wire.Envelope{Group: uint64(g.id), FromReplica: uint64(g.replica), ToReplica: uint64(r), Incarnation: c.inc, Removed: true}
	c.post(node, env)
	c.farewells = append(c.farewells, &farewell{group: g.id, to: node, env: env, left: 5})
}

// toldOff answers a replica that speaks although it was removed.
func (c *core) toldOff(g *group, r catalog.ReplicaID, node catalog.NodeID) bool {
	if g.role != raft.StateLeader || g.member(r) || g.h.gate.leadingNow(c.now) != nil {
		return false
	}
	env := &wire.Envelope{Group: uint64(g.id), FromReplica: uint64(g.replica), ToReplica: uint64(r), Incarnation: c.inc, Removed: true}
	c.post(node, env)
	return true
}

// toldRemoved believes a leader that this replica was removed: ids are never
// used again, so there is nothing to come back to.
func (c *core) toldRemoved(g *group, from catalog.ReplicaID) {
	if len(g.conf) == 0 || from == g.replica {
		return
	}
	c.retire(g)
}

// checkRemoved retires a replica that applied its own removal.
func (c *core) checkRemoved(g *group) {
	if len(g.conf) > 0 && !g.member(g.replica) {
		c.retire(g)
	}
}

// retire silences a removed replica. Its data stays until Host.Remove.
func (c *core) retire(g *group) {
	if g.rn == nil {
		return
	}
	top := g.h.gate.follow(0)
	if g.role == raft.StateLeader {
		c.farewell(g, g.term, max(top, g.floor))
	}
	g.h.gate.stop()
	c.failWaiting(g, ErrStopped)
	c.failPending(g, ErrUnknownOutcome)
	g.failChange(ErrStopped)
	c.discardIncoming(g)
	for _, n := range g.retained {
		c.pairs.release(n)
	}
	g.retained, g.electAt, g.rn, g.tail = nil, 0, nil, nil
	c.doubting = without(c.doubting, g)
	g.role, g.lead = raft.StateFollower, 0
	c.endCampaign(g)
	c.active, c.shaky, c.orphans = without(c.active, g), without(c.shaky, g), without(c.orphans, g)
	g.h.gate.mu.Lock()
	g.h.gate.mu.status.Removed = true
	g.h.gate.mu.Unlock()
	g.publish()
	c.fx.removed = append(c.fx.removed, g)
}
