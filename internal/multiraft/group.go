package multiraft

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/journal"
)

// bootIndex and bootTerm are where every new group's log begins: not at zero,
// so that a replica that joins later is always brought in by a snapshot, which
// carries the configuration.
const (
	bootIndex = 1
	bootTerm  = 1
)

// group is one replica as its loop sees it.
type group struct {
	id      catalog.GroupID
	replica catalog.ReplicaID
	h       *Group
	rn      *raft.RawNode // nil: corrupt, removed or stopped
	log     memLog
	st      state  // as last handed to the journal
	told    uint64 // M11: known to be committed by what was recovered

	// As of the last Ready. unread says that raft has heard of something since.
	term, vote, commit uint64
	role               raft.StateType
	lead               catalog.ReplicaID
	unread             bool
	touched            bool

	applied   uint64        // confirmed by the apply worker
	applyTime hlc.Timestamp // of the last entry handed to it
	maxTime   hlc.Timestamp
	lowWater  uint64
	rebased   bool   // the journal has yet to hear where the log begins
	lastTurn  uint64 // newest append with something of this group
	durable   struct{ index, term, vote uint64 }

	// Configuration: applied, and those of entries that are not applied yet.
	conf     []*catalog.Replica
	pendConf []confAt
	retained []catalog.NodeID
	heardOf  []voter // replicas heard from that no configuration names yet

	// pledge is the leader that this voter last acknowledged. While the promise
	// to its node keeps that generation it grants no vote to others (M5).
	pledge struct {
		node    catalog.NodeID
		replica catalog.ReplicaID
		gen     uint64
		term    uint64
	}
	votedAt   time.Duration // when its last vote left
	doubted   time.Duration // when the leader was last asked whether it still leads
	floor     hlc.Timestamp // bound on times of leaders that it followed before: votes carry it
	votesFrom time.Duration // grants and asks for no vote before (M6)
	revoked   struct {      // a leader revoked its leadership of this term, in this replica's favour
		term  uint64
		floor hlc.Timestamp
	}
	earliest   time.Duration // a leader serves nothing before: what voters said was left of older promises
	electAt    time.Duration // when to campaign if no leader is known; 0: not planned
	attempts   int
	queued     bool          // among those that wait to campaign
	campaignAt time.Duration // when it last did
	eager      bool          // a new group: campaign as soon as peers are there

	// Leading.
	peers    []*peer
	waiting  []*Proposal
	pending  []*pendingEntry
	ledTerm  uint64        // the term that it led last
	ledAt    time.Duration // when that began
	tickedAt time.Duration
	isActive bool
	isShaky  bool
	isOrphan bool
	quiet    bool
	handover struct {
		to    catalog.ReplicaID // 0: none
		until time.Duration
		times hlc.Timestamp
	}
	changing *changeRequest

	// Snapshots.
	streams   []*snapshotTask // leaving
	incoming  *inSnapshot
	restoring *restoreTask
	held      []*pb.Message

	tail     *tailDoubt // nil: the journal's tail is sound
	owes     owed       // zero: nothing is known to be lost
	voteless bool       // blank under a suspect tail: it may have voted, and knows nobody to ask
}

// peer is what a leader remembers of another replica beside raft's progress.
type peer struct {
	replica catalog.ReplicaID
	commit  uint64 // known to be known there
	probe   bool   // until the next Ready: it answered a heartbeat and is behind, so an empty append may go
	ack     ack
}

// confAt is a configuration that an entry of the log brings.
type confAt struct {
	index uint64
	conf  []*catalog.Replica
}

// pendingEntry is an entry of own proposals on its way.
type pendingEntry struct {
	first     ProposalID
	proposals []*Proposal
	index     uint64 // 0: raft has not said yet
	term      uint64
	time      hlc.Timestamp
	deadline  time.Duration // not leading any more: answer "unknown" then
	change    *changeRequest
}

// errCorrupt marks a replica that must not speak: what its journal says
// contradicts itself or its state machine.
var errCorrupt = errors.New("the group's journal is damaged")

// newGroup brings a replica back from what was recovered, or begins it.
func newGroup(h *Group, gc *GroupConfig) (*group, error) {
	g := &group{id: gc.ID, replica: gc.Replica, h: h}
	h.g = g
	if gc.New {
		return g, g.begin(gc)
	}
	if gc.Recovered == nil {
		if gc.Applied.Index == 0 {
			return g, nil // blank: a leader will bring a snapshot
		}
		return g, g.startAt(&gc.Applied, nil)
	}
	if gc.Recovered.Corrupt {
		return g, errCorrupt
	}
	if err := g.recover(gc); err != nil {
		return g, fmt.Errorf("%w: %w", errCorrupt, err)
	}
	return g, nil
}

// begin sets the state that all first replicas of a group share.
func (g *group) begin(gc *GroupConfig) error {
	g.conf = cloneConf(gc.Conf)
	g.st = state{term: bootTerm, startIndex: bootIndex, startTerm: bootTerm, conf: EncodeConf(gc.Conf)}
	g.log.base, g.log.baseTerm, g.applied = bootIndex, bootTerm, bootIndex
	g.rebased = true
	return nil
}

// startAt begins the log at what the state machine holds.
func (g *group) startAt(a *AppliedState, conf []byte) error {
	if len(a.Conf) > 0 {
		conf = a.Conf
	}
	var err error
	if g.conf, err = DecodeConf(conf); err != nil {
		return err
	}
	g.log.reset(a.Index, a.Term)
	g.applied, g.applyTime, g.maxTime = a.Index, a.HybridTime, a.HybridTime
	g.st.startIndex, g.st.startTerm, g.st.conf, g.st.snapshotRestored = a.Index, a.Term, conf, true
	g.st.atLeast(a.Term)
	g.rebased = true
	return nil
}

// atLeast raises the term that is remembered; a vote is for one term only.
func (s *state) atLeast(term uint64) {
	if s.term < term {
		s.term, s.vote = term, 0
	}
}

// recover joins the journal's records with what the state machine has durably.
func (g *group) recover(gc *GroupConfig) error {
	r, applied := gc.Recovered, gc.Applied
	if len(r.State) > 0 {
		st, err := decodeState(r.State)
		if err != nil {
			return err
		}
		g.st = st
	} else if len(r.Records) > 0 {
		return errors.New("entries without a state")
	}
	boot := g.st.conf
	if applied.Index == 0 {
		if g.st.snapshotRestored {
			return fmt.Errorf("the journal begins after a snapshot at %d that the state machine does not have", g.st.startIndex)
		}
		applied.Index, applied.Term = g.st.startIndex, g.st.startTerm
	}
	if applied.Index < g.st.startIndex {
		return fmt.Errorf("the journal begins at %d, the state machine is at %d", g.st.startIndex, applied.Index)
	}
	ents := make([]*pb.Entry, 0, len(r.Records))
	vouched := false // M11: the entry is there that the state knew to be committed
	for _, rec := range r.Records {
		e, commit, err := decodeRecord(rec.Pos, rec.Payload)
		if err != nil {
			return err
		}
		g.told = max(g.told, commit)
		vouched = vouched || e.GetIndex() == g.st.commit && e.GetTerm() == g.st.commitTerm
		if n := len(ents); n > 0 && (rec.Pos != ents[n-1].GetIndex()+1 || e.GetTerm() < ents[n-1].GetTerm()) {
			return fmt.Errorf("entry %d of term %d follows %d of term %d", rec.Pos, e.GetTerm(), ents[n-1].GetIndex(), ents[n-1].GetTerm())
		}
		ents = append(ents, e)
	}
	if vouched {
		g.told = max(g.told, g.st.commit)
	}
	g.st.commit, g.st.commitTerm = 0, 0
	return g.join(ents, &applied, boot)
}

// join decides where the log begins: at the first entry that the journal still
// has, or, where the state machine is ahead of the journal (a snapshot was
// restored and the journal had not heard yet), at the state machine.
func (g *group) join(ents []*pb.Entry, a *AppliedState, boot []byte) error {
	conf := boot
	if len(a.Conf) > 0 {
		conf = a.Conf
	}
	start, startTerm := g.st.startIndex, g.st.startTerm
	switch {
	case len(ents) > 0 && ents[0].GetIndex() > a.Index+1:
		return fmt.Errorf("entries between %d and %d are missing", a.Index, ents[0].GetIndex())
	case len(ents) == 0 && a.Index > start,
		len(ents) > 0 && a.Index > ents[len(ents)-1].GetIndex(),
		len(ents) > 0 && a.Index >= ents[0].GetIndex() && ents[a.Index-ents[0].GetIndex()].GetTerm() != a.Term:
		pointAheadOfJournal.Reach()
		return g.startAt(a, conf)
	case len(ents) > 0 && ents[0].GetIndex() == a.Index+1:
		start, startTerm = a.Index, a.Term
	case len(ents) > 0 && ents[0].GetIndex() != start+1:
		start, startTerm = ents[0].GetIndex(), ents[0].GetTerm()
		ents = ents[1:]
	}
	var err error
	if g.conf, err = DecodeConf(conf); err != nil {
		return err
	}
	g.log.reset(start, startTerm)
	g.applied, g.applyTime, g.maxTime = a.Index, a.HybridTime, a.HybridTime
	if len(ents) > 0 {
		g.log.append(ents)
	}
	for _, e := range ents {
		if err := g.noteEntry(e); err != nil {
			return err
		}
		g.st.atLeast(e.GetTerm())
	}
	return nil
}

// noteEntry keeps what the core needs to know of an entry in the log.
func (g *group) noteEntry(e *pb.Entry) error {
	t, _, err := entryTime(e)
	if err != nil {
		return err
	}
	g.maxTime = max(g.maxTime, t)
	if e.GetType() == pb.EntryNormal || e.GetIndex() <= g.applied {
		return nil
	}
	var d Entry
	if _, err := decodeEntry(e, &d, nil); err != nil {
		return err
	}
	conf, err := DecodeConf(d.Conf)
	if err != nil {
		return err
	}
	g.pendConf = append(g.pendConf, confAt{index: e.GetIndex(), conf: conf})
	return nil
}

// create takes a replica into the loop and starts its raft.
func (c *core) create(g *group) {
	c.groups[g.id] = g
	c.order = append(c.order, g)
	g.voteless = c.cfg.Suspect && g.h.isBlank
	if g.h.damaged != nil {
		c.condemn(g)
		g.publish()
		return
	}
	c.clock.AtLeast(g.maxTime)
	g.term, g.vote, g.commit = g.st.term, g.st.vote, g.committedAtLeast()
	g.log.hard = hardState(g.term, g.vote, g.commit)
	g.log.conf = confState(g.conf)
	g.log.snapshot = func() (*pb.Snapshot, error) { return c.describeSnapshot(g) }
	rn, err := raft.NewRawNode(c.raftConfig(g))
	if err != nil {
		panic(fmt.Sprintf("multiraft: raft refuses its configuration: %v", err))
	}
	g.rn = rn
	c.touch(g) // M12
	g.durable.index, g.durable.term, g.durable.vote = g.log.last(), g.term, g.vote
	c.bytes += g.log.bytes
	c.retarget(g)
	g.h.gate.applied(g.applied, 0, 0)
	if g.rebased {
		turn := c.write(journal.Record{Stream: journal.StreamID(g.id), Kind: journal.KindStart, Pos: g.log.base})
		c.writeState(g)
		g.durable.term = 0 // until it is
		c.await(g, part{g: g, state: true, term: g.term, vote: g.vote}, turn)
	}
	if g.h.isNew && (!c.cfg.Suspect || g.alone()) {
		c.beginElection(g)
	} else {
		c.wake(g)
	}
	g.publish()
}

// condemn lets the journal forget a replica that is damaged: nobody will read
// its entries, and kept they would fill the journal. What stays says that they
// are missing, so that no later life takes the rest for all there was.
func (c *core) condemn(g *group) {
	g.st.startIndex, g.st.snapshotRestored = condemned, true
	g.lastTurn = c.recordState(g)
	c.await(g, part{g: g, release: true}, g.lastTurn)
}

// condemned is where the log of a damaged replica begins: no state machine is
// there.
const condemned = 1 << 62

// committedAtLeast is how far a recovered log is known to be committed: what
// the records say, and what the log itself says. A leader proposes a
// configuration only when it has applied the one before, so all but the last
// are committed. Raft must not campaign before it has applied them: a majority
// of a configuration two steps old may know nothing of what was decided since.
func (g *group) committedAtLeast() uint64 {
	commit := max(g.applied, min(g.told, g.log.last()))
	if n := len(g.pendConf); n > 1 {
		commit = max(commit, g.pendConf[n-2].index)
	}
	return commit
}

// beginElection lets the first replica of a new group campaign at once, the
// others only if it does not come.
func (c *core) beginElection(g *group) {
	g.eager = true
	if vs := votersOf(g.conf); len(vs) > 0 && slices.MinFunc(vs, func(a, b voter) int { return int(int64(a.replica) - int64(b.replica)) }).replica == g.replica {
		c.campaign(g)
		return
	}
	c.planElection(g, c.cfg.ElectionDelay+c.random(c.cfg.ElectionDelay))
}

// wake lets a recovered replica take part again, or one that a suspect tail may
// have held more of than its beginning. It has forgotten its promises, so it
// waits them out (M6); alone, it promised nobody.
func (c *core) wake(g *group) {
	alone := g.alone()
	if !alone && !g.h.isBlank {
		g.votesFrom = c.now + c.cfg.PromisedBefore + c.cfg.MaxSkew
		c.pairs.votesFrom.Store(int64(g.votesFrom)) // time only grows
	}
	// What it acknowledged or gave out before is not remembered either. Its own
	// clock bounds it: a bound ahead of it by more than the skew was refused.
	forgot := !g.h.isBlank || c.cfg.Suspect
	if forgot {
		g.floor = hlc.FromMicros(c.clock.Physical()).Add(c.cfg.MaxSkew)
	}
	if !alone && forgot {
		g.floor = g.floor.Add(c.cfg.PromisedBefore)
	}
	if c.cfg.Suspect && len(g.conf) > 0 && !alone {
		c.doubtTail(g)
		return
	}
	if alone {
		c.campaign(g)
		return
	}
	c.planElection(g, g.votesFrom-c.now+c.random(c.cfg.ElectionDelay))
}

func (c *core) raftConfig(g *group) *raft.Config {
	return &raft.Config{
		ID: uint64(g.replica), Storage: &g.log, Applied: g.applied, AsyncStorageWrites: true,
		ElectionTick: 2, HeartbeatTick: 1, // only a leader whose lease lapsed is ticked
		PreVote: true, CheckQuorum: true, StepDownOnRemoval: true, DisableProposalForwarding: true,
		// An entry above either bound goes all the same, alone.
		MaxSizePerMsg: 1 << 20, MaxCommittedSizePerReady: uint64(c.cfg.ApplyBytesMax),
		MaxInflightMsgs: 256, MaxInflightBytes: 16 << 20,
		Logger: raftLogger{l: c.logger, group: g.id},
	}
}

// remove ends a replica here: it leaves as one that revokes what it led.
func (c *core) remove(g *group) {
	if c.groups[g.id] != g {
		return
	}
	top := g.h.gate.follow(0)
	g.h.gate.stop()
	if g.rn != nil && g.role == raft.StateLeader {
		c.farewell(g, g.term, top)
	}
	c.failWaiting(g, ErrStopped)
	c.failPending(g, ErrUnknownOutcome)
	g.failChange(ErrStopped)
	c.discardIncoming(g)
	dropped := c.write(journal.Record{Stream: journal.StreamID(g.id), Kind: journal.KindDrop})
	for _, n := range g.retained {
		c.pairs.release(n)
	}
	g.retained, g.rn, g.electAt = nil, nil, 0
	c.bytes -= g.log.bytes
	g.log.reset(0, 0)
	delete(c.groups, g.id)
	c.order = without(c.order, g)
	c.active, c.shaky, c.orphans = without(c.active, g), without(c.shaky, g), without(c.orphans, g)
	c.doubting = without(c.doubting, g)
	c.endCampaign(g)
	c.await(g, part{g: g, destroy: true}, dropped)
}

// confs are the voters of every configuration in the log: a lease must hold in
// all of them.
func (g *group) confs() []voters {
	out := []voters{votersOf(g.conf)}
	for _, p := range g.pendConf {
		out = append(out, votersOf(p.conf))
	}
	return out
}

// alone says that no configuration in the log has another voter.
func (g *group) alone() bool {
	for _, vs := range g.confs() {
		if len(vs) != 1 || vs[0].replica != g.replica {
			return false
		}
	}
	return true
}

// nodeOf finds the node of a replica: in the newest configuration that names
// it, or from where it was last heard.
func (g *group) nodeOf(r catalog.ReplicaID) catalog.NodeID {
	for i := len(g.pendConf) - 1; i >= 0; i-- {
		if n := findReplica(g.pendConf[i].conf, r); n != nil {
			return catalog.NodeID(n.GetNode())
		}
	}
	if n := findReplica(g.conf, r); n != nil {
		return catalog.NodeID(n.GetNode())
	}
	for _, v := range g.heardOf {
		if v.replica == r {
			return v.node
		}
	}
	return 0
}

// heard remembers where a replica speaks from.
func (g *group) heard(r catalog.ReplicaID, node catalog.NodeID) {
	if g.nodeOf(r) != 0 {
		return
	}
	if len(g.heardOf) >= 16 {
		g.heardOf = g.heardOf[1:]
	}
	g.heardOf = append(g.heardOf, voter{replica: r, node: node})
}

// retarget keeps a pair with every node that a configuration names.
func (c *core) retarget(g *group) {
	var want []catalog.NodeID
	add := func(conf []*catalog.Replica) {
		for _, r := range conf {
			if n := catalog.NodeID(r.GetNode()); n != c.self && !slices.Contains(want, n) {
				want = append(want, n)
			}
		}
	}
	add(g.conf)
	for _, p := range g.pendConf {
		add(p.conf)
	}
	for _, n := range want {
		if !slices.Contains(g.retained, n) {
			c.pairs.retain(n)
		}
	}
	for _, n := range g.retained {
		if !slices.Contains(want, n) {
			c.pairs.release(n)
		}
	}
	g.retained = want
	if g.role == raft.StateLeader {
		g.h.gate.reconfigure(g.confs())
	}
}

// needed is the index up to which no follower that the log can still serve
// lacks entries. A follower that this leader has not heard of yet may lack any.
func (g *group) needed() uint64 {
	if g.role != raft.StateLeader {
		if g.quiet {
			return g.commit
		}
		return 0
	}
	to := g.log.last()
	g.rn.WithProgress(func(id uint64, _ raft.ProgressType, p tracker.Progress) {
		switch {
		case id == uint64(g.replica):
		case p.Match == 0 && p.State == tracker.StateProbe:
			to = 0
		case p.Match >= g.log.base:
			to = min(to, p.Match)
		}
	})
	return to
}

// publish shows the replica's state to Status.
func (g *group) publish() {
	h := g.h
	h.gate.mu.Lock()
	defer h.gate.mu.Unlock()
	s := &h.gate.mu.status
	s.Term, s.Commit, s.Leader = g.term, g.commit, g.lead
	s.Quiesced = g.role == raft.StateLeader && !g.isActive
	s.Suspect, s.Corrupt = g.tail != nil || g.owing() || g.voteless, h.damaged != nil
	s.Conf, s.Pending = g.conf, nil
	for _, p := range g.pendConf {
		s.Pending = append(s.Pending, p.conf)
	}
	s.LeaderNode = 0
	if g.lead != 0 {
		s.LeaderNode = g.nodeOf(g.lead)
	}
	switch {
	case g.role == raft.StateLeader:
		s.Role = RoleLeader
	case g.role == raft.StateCandidate || g.role == raft.StatePreCandidate:
		s.Role = RoleCandidate
	default:
		s.Role = RoleFollower
		if r := findReplica(g.conf, g.replica); r != nil && r.GetRole() == catalog.Role_ROLE_LEARNER {
			s.Role = RoleLearner
		}
	}
}

func findReplica(conf []*catalog.Replica, r catalog.ReplicaID) *catalog.Replica {
	for _, x := range conf {
		if catalog.ReplicaID(x.GetId()) == r {
			return x
		}
	}
	return nil
}

func votersOf(conf []*catalog.Replica) voters {
	var out voters
	for _, r := range conf {
		if r.GetRole() == catalog.Role_ROLE_VOTER {
			out = append(out, voter{replica: catalog.ReplicaID(r.GetId()), node: catalog.NodeID(r.GetNode())})
		}
	}
	return out
}

func confState(conf []*catalog.Replica) *pb.ConfState {
	cs := &pb.ConfState{AutoLeave: new(bool)}
	for _, r := range conf {
		if r.GetRole() == catalog.Role_ROLE_VOTER {
			cs.Voters = append(cs.Voters, r.GetId())
		} else {
			cs.Learners = append(cs.Learners, r.GetId())
		}
	}
	return cs
}

func cloneConf(conf []*catalog.Replica) []*catalog.Replica {
	out := make([]*catalog.Replica, len(conf))
	for i, r := range conf {
		out[i] = &catalog.Replica{Id: r.GetId(), Node: r.GetNode(), Role: r.GetRole()}
	}
	return out
}

func hardState(term, vote, commit uint64) *pb.HardState {
	return &pb.HardState{Term: &term, Vote: &vote, Commit: &commit}
}

func without(list []*group, g *group) []*group {
	return slices.DeleteFunc(list, func(x *group) bool { return x == g })
}
