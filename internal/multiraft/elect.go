package multiraft

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/wire"
)

// campaignTransfer is what raft puts into the context of a vote that follows a
// hand-over.
var campaignTransfer = []byte("CampaignTransfer")

// hearMessage takes one raft message in its envelope. The envelope is first:
// it says whether raft may hear the message at all.
func (c *core) hearMessage(b *inBatch, in *inMessage) {
	env, m := in.env, in.msg
	g := c.groups[catalog.GroupID(env.Group)]
	if m != nil && m.GetType() == pb.MsgReadIndex {
		c.heardDoubt(g, b.from, env, m)
		return
	}
	if g == nil || g.rn == nil || env.ToReplica != uint64(g.replica) {
		c.metrics.Strays.Add(1)
		return
	}
	from := catalog.ReplicaID(env.FromReplica)
	if env.Removed {
		c.toldRemoved(g, from)
		return
	}
	if m == nil || m.GetFrom() != env.FromReplica || m.GetTo() != env.ToReplica {
		c.metrics.Strays.Add(1)
		return
	}
	g.heard(from, b.from)
	if g.tail != nil {
		return // not a word before peers have said what they know
	}
	if c.admitMessage(g, b, env, m) {
		g.unread = true
		c.stepRaft(g, m)
	}
}

// admitMessage does what an envelope asks and says whether raft hears the rest.
func (c *core) admitMessage(g *group, b *inBatch, env *wire.Envelope, m *pb.Message) bool {
	switch m.GetType() {
	case pb.MsgApp:
		return g.validAppend(m)
	case pb.MsgAppResp:
		if !m.GetReject() {
			c.heardAck(g, catalog.ReplicaID(m.GetFrom()), m.GetTerm(), b.inc, env.Promise)
		}
		if c.toldOff(g, catalog.ReplicaID(m.GetFrom()), b.from) {
			return false
		}
		return true
	case pb.MsgVote, pb.MsgPreVote:
		if c.toldOff(g, catalog.ReplicaID(m.GetFrom()), b.from) {
			return false
		}
		return c.mayVote(g, b.from, env, m)
	case pb.MsgVoteResp:
		if !m.GetReject() && g.role != raft.StateLeader {
			// A bound that voters acknowledged to an earlier leader (M7).
			g.floor = max(g.floor, hlc.Timestamp(env.HybridTimeLease))
			if left := time.Duration(env.RemainingLeaseUs) * time.Microsecond; left > 0 {
				g.earliest = max(g.earliest, c.now+min(left, max(c.cfg.Lease, c.cfg.PromisedBefore)))
			}
		}
		return true
	case pb.MsgPreVoteResp:
		// Winning makes raft vote for itself at once.
		return m.GetReject() || c.boundUntil(g, c.self) == 0
	case pb.MsgTimeoutNow:
		return c.mayTakeOver(g, env, m)
	case pb.MsgForgetLeader:
		if env.Revoked {
			c.heardFarewell(g, env, m)
		}
		return false
	}
	c.metrics.Strays.Add(1)
	return false
}

// validAppend checks what raft takes for granted and what applying needs.
func (g *group) validAppend(m *pb.Message) bool {
	term := m.GetLogTerm()
	for i, e := range m.GetEntries() {
		if e.GetIndex() != m.GetIndex()+uint64(i)+1 || e.GetTerm() < term || e.GetTerm() > m.GetTerm() {
			return false
		}
		if _, _, err := entryTime(e); err != nil {
			return false
		}
		term = e.GetTerm()
	}
	return true
}

// boundUntil says until when a live promise keeps this voter from voting for a
// replica on node, or for itself (M5). 0 means free, and that the promise, if
// one stood, covers the group no longer.
func (c *core) boundUntil(g *group, candidate catalog.NodeID) time.Duration {
	p := &g.pledge
	if p.node != 0 && p.node != candidate {
		if until := c.pairs.bound(p.node, p.gen, c.now); until != 0 {
			return until
		}
		// Free: from here on the voter carries what it acknowledged.
		g.floor = max(g.floor, c.pairs.timesAcked(p.node))
		p.node = 0
	}
	return 0
}

// mayVote decides whether raft may consider a vote.
func (c *core) mayVote(g *group, from catalog.NodeID, env *wire.Envelope, m *pb.Message) bool {
	if g.voteless {
		c.metrics.VotesWithheld.Add(1)
		return false
	}
	if bytes.Equal(m.GetContext(), campaignTransfer) {
		if !env.Revoked || m.GetTerm() == 0 || g.owing() && !g.owes.heldBy(m.GetLogTerm(), m.GetIndex()) {
			c.metrics.VotesWithheld.Add(1)
			return false
		}
		c.heardRevocation(g, m.GetTerm()-1, hlc.Timestamp(env.HybridTimeLease))
		return c.boundUntil(g, from) == 0
	}
	if c.now < g.votesFrom || g.owing() && !g.owes.heldBy(m.GetLogTerm(), m.GetIndex()) {
		c.metrics.VotesWithheld.Add(1)
		if c.now < g.votesFrom {
			pointVoteForgot.Reach()
		} else {
			pointVoteOwing.Reach()
		}
		return false
	}
	if m.GetType() == pb.MsgPreVote && g.votedAt != 0 && c.now-g.votedAt < c.cfg.ElectionDelay {
		c.metrics.VotesWithheld.Add(1)
		return false // who got this voter's vote is about to be heard of
	}
	if c.boundUntil(g, from) != 0 || c.leaderAlive(g, from) {
		c.metrics.VotesWithheld.Add(1)
		pointVotePromised.Reach()
		c.doubtLeader(g)
		return false
	}
	c.forgetLeader(g)
	return true
}

// leaderAlive says that the leader known here renews its node's promise. Such a
// leader is not deposed for a stranger, even before it was acknowledged.
func (c *core) leaderAlive(g *group, candidate catalog.NodeID) bool {
	if g.lead == 0 || g.lead == g.replica {
		return false
	}
	node := g.nodeOf(g.lead)
	if node == 0 || node == candidate {
		return false
	}
	for i := range c.seen {
		if c.seen[i].node == node {
			return c.seen[i].until > c.now
		}
	}
	return false
}

func (c *core) forgetLeader(g *group) {
	if g.lead != 0 && g.lead != g.replica {
		if err := g.rn.ForgetLeader(); err != nil {
			c.metrics.RaftRefused.Add(1)
		}
		c.touch(g)
	}
}

// heardRevocation learns that the leader of a term stopped serving for good
// and gave out no time above top. What was promised to it binds no more.
func (c *core) heardRevocation(g *group, term uint64, top hlc.Timestamp) {
	if g.term > term || g.pledge.node != 0 && g.pledge.term > term {
		return
	}
	// Every bound acknowledged so far was to the leader of term or to earlier
	// ones, and top is above all times of those: it started above their bounds.
	g.pledge.node, g.floor = 0, top
}

// mayTakeOver checks that the leader which hands over has stopped serving.
func (c *core) mayTakeOver(g *group, env *wire.Envelope, m *pb.Message) bool {
	if !env.Revoked || m.GetTerm() < g.term || c.draining || g.owing() {
		return false
	}
	c.heardRevocation(g, m.GetTerm(), hlc.Timestamp(env.HybridTimeLease))
	g.revoked.term, g.revoked.floor = m.GetTerm(), hlc.Timestamp(env.HybridTimeLease)
	pointRevoked.Reach()
	return true
}

// heardFarewell is a revocation in nobody's favour: look for a new leader.
func (c *core) heardFarewell(g *group, env *wire.Envelope, m *pb.Message) {
	if m.GetTerm() < g.term || g.role == raft.StateLeader {
		return
	}
	if p := &g.pledge; p.node != 0 && p.term == m.GetTerm() && p.replica == catalog.ReplicaID(m.GetFrom()) {
		pointDoubtAnswered.Reach()
		if env.HybridTimeLease != 0 {
			c.heardRevocation(g, m.GetTerm(), hlc.Timestamp(env.HybridTimeLease))
		} else { // nobody there remembers: carry what was acknowledged
			g.floor = max(g.floor, c.pairs.timesAcked(p.node))
			p.node = 0
		}
	}
	if g.lead == catalog.ReplicaID(m.GetFrom()) && g.term == m.GetTerm() {
		c.forgetLeader(g)
		c.planElection(g, c.random(c.cfg.ElectionDelay))
	}
}

// doubtLeader asks the leader that this voter is bound to whether it still
// leads. A node lives and beats on when it has lost one group, and the word
// that it did may not have come through.
func (c *core) doubtLeader(g *group) {
	replica, term := g.pledge.replica, g.pledge.term
	if g.pledge.node == 0 {
		replica, term = g.lead, g.term
	}
	node := g.nodeOf(replica)
	if replica == 0 || node == 0 || node == c.self || g.doubted != 0 && c.now-g.doubted < c.cfg.Beat {
		return
	}
	g.doubted = c.now
	c.envelope(g, node, &pb.Message{Type: pb.MsgReadIndex.Enum(), From: new(uint64(g.replica)),
		To: new(uint64(replica)), Term: new(term)})
}

// heardDoubt answers a voter that is bound to a leadership which is over: it
// was deposed, or its replica is not here any more. A leader that still leads
// lets the voter hear from it.
func (c *core) heardDoubt(g *group, from catalog.NodeID, env *wire.Envelope, m *pb.Message) {
	top := hlc.Timestamp(0)
	if g != nil && uint64(g.replica) == env.ToReplica {
		if g.role == raft.StateLeader && g.rn != nil {
			// It may be known to have everything: then only a beat tells it who leads.
			for _, p := range g.peers {
				if uint64(p.replica) == env.FromReplica {
					p.ack = ack{}
				}
			}
			c.activate(g)
			return
		}
		if g.unread || g.term < m.GetTerm() || g.h.damaged != nil {
			return
		}
		top = max(g.h.gate.highest(), g.floor)
	}
	raw, err := proto.Marshal(&pb.Message{Type: pb.MsgForgetLeader.Enum(), From: new(env.ToReplica),
		To: new(env.FromReplica), Term: new(m.GetTerm())})
	if err != nil {
		panic(fmt.Sprintf("multiraft: a raft message does not marshal: %v", err))
	}
	c.post(from, &wire.Envelope{Group: env.Group, FromReplica: env.ToReplica, ToReplica: env.FromReplica, Incarnation: c.inc,
		Revoked: true, HybridTimeLease: uint64(top), Raft: raw})
}

// farewell tells the voters that this replica's leadership of a term is over.
// It is repeated for as long as a promise may live, in case words get lost.
type farewell struct {
	group catalog.GroupID
	to    catalog.NodeID
	env   *wire.Envelope
	left  int
}

func (c *core) farewell(g *group, term uint64, top hlc.Timestamp) {
	times := int(c.cfg.Lease/c.cfg.Beat) + 2
	var told []catalog.ReplicaID
	for _, conf := range g.confs() {
		for _, v := range conf {
			if v.replica == g.replica || slices.Contains(told, v.replica) {
				continue
			}
			told = append(told, v.replica)
			env := c.envelope(g, v.node, &pb.Message{Type: pb.MsgForgetLeader.Enum(), From: new(uint64(g.replica)),
				To: new(uint64(v.replica)), Term: new(term)})
			env.Revoked, env.HybridTimeLease = true, uint64(top)
			c.farewells = append(c.farewells, &farewell{group: g.id, to: v.node, env: env, left: times})
		}
	}
}

// repeatFarewells says them again, once per beat.
func (c *core) repeatFarewells() {
	keep := c.farewells[:0]
	for _, f := range c.farewells {
		if g := c.groups[f.group]; g != nil && !f.env.Removed && g.lead != 0 {
			continue // there is a leader again; who has not heard of it will ask
		}
		c.post(f.to, f.env)
		if f.left--; f.left > 0 {
			keep = append(keep, f)
		}
	}
	clear(c.farewells[len(keep):])
	c.farewells = keep
}

// planElection sets when to campaign if no leader comes.
func (c *core) planElection(g *group, in time.Duration) {
	r := findReplica(g.conf, g.replica)
	if g.rn == nil || r == nil || r.GetRole() != catalog.Role_ROLE_VOTER {
		g.electAt = 0
		return
	}
	g.electAt = max(c.now+in, g.votesFrom, 1)
	c.alarms.set(g, g.electAt)
}

// fireAlarms campaigns where it is time, after looking at who went silent.
func (c *core) fireAlarms() {
	if c.lapseAt != 0 && c.now >= c.lapseAt {
		c.sweep()
	}
	for {
		g, at := c.alarms.pop(c.now)
		if g == nil {
			return
		}
		if g.electAt == at && g.rn != nil {
			g.electAt = 0
			c.electionDue(g)
		}
	}
}

// electionDue campaigns unless a leader is there or a promise forbids it.
func (c *core) electionDue(g *group) {
	switch {
	case g.role == raft.StateLeader || g.tail != nil || c.draining:
		return
	case g.owing():
		c.planElection(g, c.cfg.Lease)
		return
	case g.lead != 0 && c.leaderAlive(g, 0):
		return
	case c.now < g.votesFrom:
		c.planElection(g, c.random(c.cfg.ElectionDelay))
		return
	}
	if until := c.boundUntil(g, c.self); until != 0 {
		c.doubtLeader(g)
		c.planElection(g, until-c.now+c.random(c.cfg.ElectionDelay))
		return
	}
	c.forgetLeader(g)
	c.campaign(g)
}

// campaignsMax bounds the campaigns of a loop that are under way at once. When
// a node dies a third of all groups looks for a leader. If all did so at once,
// answers would come after the next attempt had made them worthless.
const campaignsMax = 64

// campaign asks for votes, as soon as few enough others do.
func (c *core) campaign(g *group) {
	if !g.queued {
		g.queued = true
		c.candidates = append(c.candidates, g)
		c.nextCampaigns()
	}
}

// nextCampaigns lets those campaign who wait for others to be done. A campaign
// that has gone unanswered for a while makes room too.
func (c *core) nextCampaigns() {
	if len(c.candidates) == 0 {
		return
	}
	c.running = slices.DeleteFunc(c.running, func(g *group) bool { return c.now-g.campaignAt > max(2*c.cfg.ElectionDelay, 32*c.pace) })
	for len(c.candidates) > 0 && len(c.running) < campaignsMax {
		g := c.candidates[0]
		c.candidates[0] = nil
		c.candidates = c.candidates[1:]
		g.queued = false
		if g.rn == nil || g.role == raft.StateLeader || g.lead != 0 || c.draining {
			continue
		}
		g.campaignAt = c.now
		if !slices.Contains(c.running, g) {
			c.running = append(c.running, g)
		}
		c.runCampaign(g)
	}
}

// endCampaign makes room: the group has a leader, or lost.
func (c *core) endCampaign(g *group) {
	if i := slices.Index(c.running, g); i >= 0 {
		c.running = slices.Delete(c.running, i, i+1)
		c.nextCampaigns()
	}
}

// runCampaign asks for votes, and plans to ask again.
func (c *core) runCampaign(g *group) {
	c.metrics.Campaigns.Add(1)
	g.unread = true
	if err := g.rn.Campaign(); err != nil {
		c.metrics.RaftRefused.Add(1)
	}
	c.touch(g)
	retry := c.cfg.ElectionDelay
	if g.eager {
		retry = max(c.cfg.ElectionDelay/32, time.Millisecond)
	}
	retry = min(retry<<min(g.attempts, 10), max(c.cfg.Lease, c.cfg.ElectionDelay))
	retry = max(retry, min(16*c.pace, c.cfg.Lease)) // an election takes some turns of three loops
	g.attempts++
	c.planElection(g, retry+c.random(retry))
}

// roleChanged follows raft's view of who leads.
func (c *core) roleChanged(g *group, s *raft.SoftState) {
	was := g.role
	g.role, g.lead = s.RaftState, catalog.ReplicaID(s.Lead)
	if g.role == raft.StateLeader || g.role == raft.StateFollower {
		c.endCampaign(g)
	}
	if g.role == raft.StateLeader {
		c.becameLeader(g)
		return
	}
	hint := catalog.NodeID(0)
	if g.lead != 0 {
		hint = g.nodeOf(g.lead)
	}
	top := g.h.gate.follow(hint)
	if was == raft.StateLeader {
		c.lostLeadership(g, top)
	}
	switch {
	case g.lead == 0 && g.electAt == 0:
		c.planElection(g, c.cfg.ElectionDelay+c.random(c.cfg.ElectionDelay))
	case g.lead != 0:
		c.foundLeader(g, hint)
	}
}

// foundLeader stops looking for one. If its node has promised nothing yet, the
// replica looks again after a lease: no lapse would tell it.
func (c *core) foundLeader(g *group, node catalog.NodeID) {
	g.electAt, g.attempts, g.eager, g.quiet = 0, 0, false, false
	if !c.leaderAlive(g, 0) {
		c.planElection(g, c.cfg.Lease+c.random(c.cfg.ElectionDelay))
	}
}

// becameLeader opens a term: above every bound that votes carried, and above
// every entry of the log (M7).
func (c *core) becameLeader(g *group) {
	c.metrics.Elected.Add(1)
	g.pledge.node, g.electAt, g.attempts, g.eager = 0, 0, 0, false
	g.handover.to, g.ledTerm, g.ledAt = 0, g.term, c.now
	g.peers = g.peers[:0]
	g.floor = max(g.floor, g.maxTime)
	g.h.gate.lead(g.term, g.floor, g.earliest, g.confs())
	c.activate(g)
	c.shake(g)
}

// lostLeadership resolves what it can and lets the voters look elsewhere.
func (c *core) lostLeadership(g *group, top hlc.Timestamp) {
	c.metrics.Deposed.Add(1)
	if g.handover.to != 0 {
		top = g.handover.times
	}
	if g.lead == 0 {
		c.farewell(g, g.ledTerm, max(top, g.floor))
	}
	g.handover.to = 0
	g.peers = g.peers[:0]
	g.isActive, g.isShaky = false, false
	c.active, c.shaky = without(c.active, g), without(c.shaky, g)
	c.failWaiting(g, g.notLeader())
	g.failChange(g.notLeader())
	for _, p := range g.pending {
		p.deadline = c.now + c.cfg.Lease
	}
	if len(g.pending) > 0 && !g.isOrphan {
		pointOrphaned.Reach()
		g.isOrphan = true
		c.orphans = append(c.orphans, g)
	}
}

func (g *group) notLeader() error {
	if g.lead == 0 || g.lead == g.replica {
		return &NotLeaderError{}
	}
	return &NotLeaderError{Node: g.nodeOf(g.lead)}
}

// sweep compares every peer with how it was at the last sweep. Only a change
// makes it look at groups: idle ones cost nothing.
func (c *core) sweep() {
	c.viewBuf = c.pairs.view(c.now, c.viewBuf[:0])
	before := c.seen
	c.seen, c.viewBuf = c.viewBuf, c.seen
	c.lapseAt = 0
	for i := range c.seen {
		v := &c.seen[i]
		if v.until != 0 && (c.lapseAt == 0 || v.until < c.lapseAt) {
			c.lapseAt = v.until
		}
		var old pairView
		if j := slices.IndexFunc(before, func(o pairView) bool { return o.node == v.node }); j >= 0 {
			old = before[j]
		}
		if old.until != 0 && v.until == 0 || old.inc != 0 && old.inc != v.inc {
			c.peerDied(v.node)
		}
		switch {
		case old.live && !v.live:
			c.peerSilent(v.node)
		case v.live && (!old.live || old.got.inc != v.got.inc || old.got.gen != v.got.gen):
			c.peerBack(v.node)
		}
	}
}

// peerDied looks for new leaders where the peer led: the promise to it is gone.
func (c *core) peerDied(node catalog.NodeID) {
	for _, g := range c.order {
		if g.rn == nil || g.lead == 0 || g.lead == g.replica || g.nodeOf(g.lead) != node {
			continue
		}
		c.forgetLeader(g)
		c.planElection(g, c.random(c.cfg.ElectionDelay))
	}
}

// peerSilent watches the leases that the peer's promise was part of.
func (c *core) peerSilent(node catalog.NodeID) {
	for _, g := range c.order {
		if g.role == raft.StateLeader && slices.Contains(g.retained, node) {
			c.shake(g)
		}
	}
}

// peerBack asks a peer that promises anew to acknowledge this node's groups
// under its new promise, and brings it up to date.
func (c *core) peerBack(node catalog.NodeID) {
	for _, g := range c.order {
		if g.role == raft.StateLeader && slices.Contains(g.retained, node) {
			c.activate(g)
		}
	}
}

// shake puts a led group among those whose lease is watched.
func (c *core) shake(g *group) {
	if !g.isShaky {
		g.isShaky = true
		c.shaky = append(c.shaky, g)
	}
}

// alarms orders groups by when they want to campaign. An alarm that the group
// has since moved stays in the heap and is ignored when it fires.
type alarms struct{ heap []alarm }

type alarm struct {
	at time.Duration
	g  *group
}

func (a *alarms) set(g *group, at time.Duration) {
	h := append(a.heap, alarm{at: at, g: g})
	for i := len(h) - 1; i > 0; {
		up := (i - 1) / 2
		if h[up].at <= h[i].at {
			break
		}
		h[up], h[i] = h[i], h[up]
		i = up
	}
	a.heap = h
}

// next is the earliest alarm, 0 if there is none.
func (a *alarms) next() time.Duration {
	if len(a.heap) == 0 {
		return 0
	}
	return a.heap[0].at
}

// pop takes the earliest alarm that is due.
func (a *alarms) pop(now time.Duration) (*group, time.Duration) {
	h := a.heap
	if len(h) == 0 || h[0].at > now {
		return nil, 0
	}
	top := h[0]
	n := len(h) - 1
	h[0], h[n] = h[n], alarm{}
	h = h[:n]
	for i := 0; ; {
		l := 2*i + 1
		if l >= n {
			break
		}
		if r := l + 1; r < n && h[r].at < h[l].at {
			l = r
		}
		if h[i].at <= h[l].at {
			break
		}
		h[i], h[l] = h[l], h[i]
		i = l
	}
	a.heap = h
	return top.g, top.at
}
