package tables

import (
	"time"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/journal"
	"github.com/braiddb/braid/internal/multiraft"
	"github.com/braiddb/braid/internal/wire"
)

// What nodes owe each other by what they have said: leases, bounds on times, votes.
// The observer reads every word that leaves and every word that arrives, and holds
// each node to its own. A broken promise shows here long before a client is
// unlucky enough to see what came of it.

// word is what a message says that binds somebody.
type word struct {
	kind  wordKind
	group catalog.GroupID
	to    catalog.ReplicaID
	term  uint64
	times hlc.Timestamp // of a vote: the bound that it carries
}

type wordKind uint8

const (
	wordVote    wordKind = iota // granted
	wordRevoked                 // a leader's, that it serves no more
)

// pledge is a leader that a replica acknowledged in this life: its node, its term, and
// the bound on times that was acknowledged to that node while the replica stood by it.
type pledge struct {
	node  int
	term  uint64
	gen   uint64 // of the node's promise, when it last acknowledged
	acked hlc.Timestamp
}

// oaths is what the observer keeps of one replica in one life.
type oaths struct {
	pledged []pledge // leaders that it acknowledged, by node
	stands  int      // by which of them it stands: the one acknowledged last
	over    uint64   // leaders up to this term were heard to have revoked
	carried struct { // by the votes that it got as a candidate: at least
		term  uint64
		times hlc.Timestamp
	}
}

// of finds a node's pledge, or makes one.
func of(list *[]pledge, node int) *pledge {
	for i := range *list {
		if (*list)[i].node == node {
			return &(*list)[i]
		}
	}
	*list = append(*list, pledge{node: node})
	return &(*list)[len(*list)-1]
}

// checkBatch looks at what a node says to a peer, and gives what of it binds.
func (m *member) checkBatch(b *wire.RaftBatch) (out []word) {
	for _, env := range b.Envelopes {
		if len(env.Raft) == 0 {
			continue
		}
		msg := &pb.Message{}
		if proto.Unmarshal(env.Raft, msg) != nil || msg.GetReject() {
			continue
		}
		v, h := m.c.view(catalog.GroupID(env.Group)), m.find(catalog.GroupID(env.Group))
		x := word{group: v.id, to: catalog.ReplicaID(env.ToReplica), term: msg.GetTerm()}
		if env.Revoked {
			x.kind = wordRevoked
			if msg.GetType() == pb.MsgVote || msg.GetType() == pb.MsgPreVote {
				x.term--
			}
			v.revoked(x.term)
			out = append(out, x)
		}
		if h == nil || uint64(h.replica) != env.FromReplica {
			continue
		}
		switch msg.GetType() {
		case pb.MsgVoteResp:
			x.kind, x.times = wordVote, hlc.Timestamp(env.HybridTimeLease)
			out = append(out, x)
			h.checkVote(int(b.ToNode), x.term, x.times)
		case pb.MsgAppResp:
			m.checkAck(h, msg.GetIndex())
			if env.Promise != 0 {
				h.pledge(int(b.ToNode), msg.GetTerm(), env.Promise)
				h.checkVote(int(b.ToNode), msg.GetTerm()+1, h.group.Carries())
			}
		}
	}
	return out
}

// checkAck is T6: what a follower acknowledges is on its disk.
func (m *member) checkAck(h *hosted, index uint64) {
	last := h.flushed
	if s := m.platter.streams[journal.StreamID(h.view.id)]; s != nil {
		last = max(last, s.StartPos)
		if k := len(s.Records); k > 0 {
			last = max(last, s.Records[k-1].Pos)
		}
	}
	if index > last {
		m.c.w.Fail("node %d acknowledges entry %d of group %d with %d on its disk", m.n.ID, index, h.view.id, last)
	}
}

// hears takes what arrives from a peer.
func (m *member) hears(from int, words []word) {
	for _, x := range words {
		h := m.find(x.group)
		if h == nil || h.replica != x.to {
			continue
		}
		switch x.kind {
		case wordRevoked:
			// What was acknowledged to it, or to earlier ones, binds no more.
			h.oaths.pledged, h.oaths.stands, h.oaths.over = h.oaths.pledged[:0], 0, max(h.oaths.over, x.term)
		case wordVote:
			c := &h.oaths.carried
			if x.term > c.term {
				c.term, c.times = x.term, x.times
			} else if x.term == c.term {
				c.times = min(c.times, x.times) // which of them elected it is its own affair
			}
		}
	}
}

// beats looks at a beat, or an answer, that leaves.
func (m *member) beats(to int, b *wire.Beat) {
	if b.Answer && !b.Skewed && m.beat != nil {
		m.acked[to-1] = max(m.acked[to-1], hlc.Timestamp(m.beat.HybridTimeLease))
		m.promised[to-1] = max(m.promised[to-1], m.n.Mono()+time.Duration(b.PromiseUs)*time.Microsecond)
		for _, h := range m.hosted {
			h.oaths.grow(to, b.Promise, m.acked[to-1])
		}
	}
	for _, gb := range b.Groups {
		if h := m.find(catalog.GroupID(gb.Group)); h != nil && gb.Answer && gb.Promise != 0 && uint64(h.replica) == gb.FromReplica {
			h.pledge(to, gb.Term, gb.Promise)
			h.checkVote(to, gb.Term+1, h.group.Carries())
		}
	}
}

// hearsBeat hands a beat to the host, which answers at once.
func (m *member) hearsBeat(b *wire.Beat) {
	m.beat = b
	m.host.HandleBeat(b)
	m.beat = nil
	if b.Answer {
		for _, h := range m.hosted {
			h.watchLease()
		}
	}
}

// pledge notes that a replica acknowledges a leader, under a generation of its node's
// promise: every bound acknowledged under that is the leader's.
func (h *hosted) pledge(node int, term, gen uint64) {
	o := &h.oaths
	if term <= o.over {
		return // said before the word that it is over was heard
	}
	p := of(&o.pledged, node)
	if term < p.term {
		return
	}
	p.term, p.gen, o.stands = term, gen, node
	p.acked = max(p.acked, h.m.acked[node-1])
}

// grow notes a bound that is acknowledged to a node: it counts where the replica stands
// by the leader there, and has not been free of it since.
func (o *oaths) grow(node int, gen uint64, acked hlc.Timestamp) {
	if o.stands != node {
		return
	}
	if p := of(&o.pledged, node); p.gen == gen {
		p.acked = max(p.acked, acked)
	}
}

// floor is what votes carried to the leader of a term, its own with them; 0: nothing is known.
func (o *oaths) floor(term uint64) (at hlc.Timestamp) {
	if o.carried.term == term {
		at = o.carried.times
	}
	for _, p := range o.pledged {
		if p.term < term {
			at = max(at, p.acked)
		}
	}
	return at
}

// checkVote is T9: a vote carries every bound on times that the voter acknowledged to
// leaders of earlier terms, other than the one that it votes for, unless they revoked.
// It is looked at whenever a leader is acknowledged, too, which might ask for the next
// term at once: few pledges are followed by a vote before later bounds hide what is missing.
func (h *hosted) checkVote(candidate int, term uint64, carried hlc.Timestamp) {
	for _, p := range h.oaths.pledged {
		if p.node != candidate && p.term < term && carried < p.acked {
			h.m.c.w.Fail("T9: group %d: the vote of node %d for node %d carries %s; it acknowledged %s to node %d",
				h.view.id, h.m.n.ID, candidate, carried, p.acked, p.node)
		}
	}
}

// leaders is what is known of who leads a group.
type leaders struct {
	term     uint64 // the highest that had a leader
	last     *hosted
	floor    map[uint64]hlc.Timestamp // by term: what votes carried to its leader
	overtold map[uint64]bool          // terms whose leader said that it serves no more
}

func (v *view) revoked(term uint64) {
	if v.led.overtold == nil {
		v.led.overtold = make(map[uint64]bool)
	}
	v.led.overtold[term] = true
}

// watchLease is T8, where a replica leads.
func (h *hosted) watchLease() {
	s := h.group.Status()
	if s.Role != multiraft.RoleLeader || h.m.fatal != nil {
		return
	}
	l := &h.view.led
	if s.Term > l.term {
		l.term, l.last = s.Term, h
		if l.floor == nil {
			l.floor = make(map[uint64]hlc.Timestamp)
		}
		if floor := h.oaths.floor(s.Term); floor != 0 {
			l.floor[s.Term] = floor
		}
		for _, m := range h.m.c.members {
			if o := m.find(h.view.id); o != nil && o != h && m.fatal == nil {
				o.checkLease(o.group.Status())
			}
		}
	}
	h.checkLease(s)
}

// checkLease is T8: who was overtaken by a later term holds no lease, unless it
// has said that it does not use it.
func (h *hosted) checkLease(s multiraft.Status) {
	l := &h.view.led
	if s.Role == multiraft.RoleLeader && s.LeaseRemaining > 0 && s.Term < l.term && !l.overtold[s.Term] {
		h.m.c.w.Fail("T8: group %d: node %d holds the lease of term %d for %s more; node %d was elected in term %d",
			h.view.id, h.m.n.ID, s.Term, s.LeaseRemaining, l.last.m.n.ID, l.term)
	}
	if s.Role == multiraft.RoleLeader && s.LeaseRemaining > 0 && !l.overtold[s.Term] {
		h.checkPromises(&s, s.Conf)
		for _, conf := range s.Pending {
			h.checkPromises(&s, conf)
		}
	}
}

// checkPromises is T14: while a lease runs, the nodes of a majority of a configuration
// still keep their promises to the leader's node. Those that restarted keep them, too.
func (h *hosted) checkPromises(s *multiraft.Status, conf []*catalog.Replica) {
	voters, keep := 0, 0
	for _, r := range conf {
		if r.Role != catalog.Role_ROLE_VOTER {
			continue
		}
		voters++
		if o := h.m.c.members[r.Node-1]; o == h.m || o.promised[h.m.n.ID-1] > o.n.Mono() {
			keep++
		}
	}
	if 2*keep <= voters {
		h.m.c.w.Fail("T14: group %d: node %d holds the lease of term %d for %s more; of the voters of %v %d keep a promise to it",
			h.view.id, h.m.n.ID, s.Term, s.LeaseRemaining, conf, keep)
	}
}

// checkFloor is T10: a leader gives no time at or below what votes carried to it.
func (v *view) checkFloor(term uint64, t hlc.Timestamp, what string) {
	if floor, known := v.led.floor[term]; known && t <= floor {
		v.c.w.Fail("T10: group %d: the leader of term %d gives %s for %s, votes carried %s to it", v.id, term, t, what, floor)
	}
}
