package master

import (
	"bytes"
	"slices"
	"strings"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/wire"
)

// Step takes one message from another node.
func (f *Former) Step(now time.Duration, m *wire.BootstrapMessage) {
	from := slices.Index(f.join, strings.ToLower(m.GetFrom()))
	switch m.GetKind() {
	case wire.BootstrapMessage_KIND_DECIDED:
		f.decided(m.Founding)
		return
	case wire.BootstrapMessage_KIND_MEMBER:
		f.belongs(m)
		return
	case wire.BootstrapMessage_KIND_HELLO:
		if f.seat >= 0 {
			f.hello(m)
		}
	}
	if f.formed != nil || f.seat < 0 || from < 0 || from == f.seat || m.GetNode() == nil {
		return
	}
	if !slices.Equal(m.Join, f.join) {
		f.met[from] = meeting{trouble: &JoinListError{Addr: m.From, Theirs: m.Join, Ours: f.join}}
		return
	}
	f.met[from] = meeting{node: m.Node, at: now}
	switch m.Kind {
	case wire.BootstrapMessage_KIND_PREPARE:
		f.prepare(now, m)
	case wire.BootstrapMessage_KIND_PROMISE:
		if f.mine(m) && f.proposal.founding == nil {
			f.proposal.promises[from] = m
			f.promisedBy(now)
		}
	case wire.BootstrapMessage_KIND_ACCEPT:
		f.accept(now, m)
	case wire.BootstrapMessage_KIND_ACCEPTED:
		if f.mine(m) && f.proposal.founding != nil {
			f.proposal.accepted[from] = true
			f.acceptedBy()
		}
	case wire.BootstrapMessage_KIND_REFUSE:
		f.refused(now, m)
	}
}

// hello is answered even to nodes that are not in the list: they look for a
// cluster to join.
func (f *Former) hello(m *wire.BootstrapMessage) {
	if f.formed == nil {
		f.send(m.From, wire.BootstrapMessage_KIND_WELCOME, nil, nil)
		return
	}
	if f.state.Decided {
		f.send(m.From, wire.BootstrapMessage_KIND_DECIDED, nil, f.state.Founding)
	}
}

// mine reports whether a message answers this node's own ballot.
func (f *Former) mine(m *wire.BootstrapMessage) bool {
	return f.proposal != nil && equal(m.Ballot, f.proposal.ballot)
}

// prepare is an acceptor's first duty: to promise.
func (f *Former) prepare(now time.Duration, m *wire.BootstrapMessage) {
	if m.Ballot == nil || higher(f.state.Promised, m.Ballot) {
		f.send(m.From, wire.BootstrapMessage_KIND_REFUSE, f.state.Promised, nil)
		return
	}
	if higher(m.Ballot, f.state.Promised) {
		f.state.Promised, f.dirty = m.Ballot, true
		f.yield(now)
	}
	answer := f.send(m.From, wire.BootstrapMessage_KIND_PROMISE, m.Ballot, f.state.Founding)
	answer.Accepted = f.state.Accepted
}

// promisedBy goes on once a majority has promised: with the founding accepted
// under the highest ballot, or else with one of the nodes that are here.
func (f *Former) promisedBy(now time.Duration) {
	p := f.proposal
	if len(p.promises) < f.majority() {
		return
	}
	var best *wire.BootstrapMessage
	for i := range f.join {
		if m := p.promises[i]; m.GetAccepted() != nil && (best == nil || higher(m.Accepted, best.Accepted)) {
			best = m
		}
	}
	if best != nil {
		p.founding = best.Founding
	} else {
		p.founding = f.foundingOf(now)
	}
	if higher(f.state.Promised, p.ballot) {
		f.proposal = nil // this node has promised another since
		return
	}
	f.state.Accepted, f.state.Founding, f.dirty = p.ballot, p.founding, true
	p.accepted[f.seat] = true
	f.broadcast(wire.BootstrapMessage_KIND_ACCEPT, p.ballot, p.founding)
	f.acceptedBy()
}

func (f *Former) foundingOf(now time.Duration) *catalog.Catalog {
	members := []*catalog.Node{f.self}
	for _, i := range f.present(now) {
		if i != f.seat {
			members = append(members, f.met[i].node)
		}
	}
	return FirstCatalog(newClusterID(f.rand), members, f.o.First)
}

// accept is an acceptor's second duty.
func (f *Former) accept(now time.Duration, m *wire.BootstrapMessage) {
	if m.Ballot == nil || higher(f.state.Promised, m.Ballot) {
		f.send(m.From, wire.BootstrapMessage_KIND_REFUSE, f.state.Promised, nil)
		return
	}
	if !sound(m.Founding) {
		return
	}
	f.state.Promised, f.state.Accepted, f.state.Founding, f.dirty = m.Ballot, m.Ballot, m.Founding, true
	f.yield(now)
	f.send(m.From, wire.BootstrapMessage_KIND_ACCEPTED, m.Ballot, nil)
}

func sound(founding *catalog.Catalog) bool {
	return founding.GetVersion() == 1 && founding.ClusterId != "" && catalog.Validate(founding) == nil
}

func (f *Former) acceptedBy() {
	if len(f.proposal.accepted) >= f.majority() {
		f.decided(f.proposal.founding)
	}
}

// refused gives up a ballot and remembers the higher one, to go above it later.
func (f *Former) refused(now time.Duration, m *wire.BootstrapMessage) {
	if f.proposal == nil || !higher(m.Ballot, f.proposal.ballot) {
		return
	}
	f.proposal = nil
	if higher(m.Ballot, f.state.Promised) {
		f.state.Promised, f.dirty = m.Ballot, true
	}
	f.tryAt = now + time.Duration(f.rand.Int64N(int64(f.o.Attempt)+1))
}

// decided ends forming: a majority has accepted this founding.
func (f *Former) decided(founding *catalog.Catalog) {
	if f.formed != nil || !sound(founding) {
		return
	}
	f.state.Founding, f.state.Decided, f.dirty = founding, true, true
	f.finish()
	if f.seat >= 0 {
		f.broadcast(wire.BootstrapMessage_KIND_DECIDED, nil, founding)
	}
}

// finish draws the conclusion from a decided founding.
func (f *Former) finish() {
	c := f.state.Founding
	f.proposal = nil
	f.formed = &Formed{ClusterID: c.ClusterId, Nodes: c.Nodes, Catalog: c}
	for _, n := range c.Nodes {
		if bytes.Equal(n.DirectoryId, f.self.DirectoryId) {
			f.formed.Node = catalog.NodeID(n.Id)
		}
	}
}

// belongs ends forming: there is a cluster already. If it is the one that this
// node accepted the founding of, that founding was decided.
func (f *Former) belongs(m *wire.BootstrapMessage) {
	if f.formed != nil || m.ClusterId == "" {
		return
	}
	if f.state.Founding.GetClusterId() == m.ClusterId {
		f.decided(f.state.Founding)
		return
	}
	f.formed = &Formed{ClusterID: m.ClusterId, Nodes: m.Nodes, Leader: catalog.NodeID(m.LeaderNode)}
}

// AnswerBootstrap is what a member of a cluster says to a node that is forming:
// the founding if that node was part of it, else where to join. founding is the
// one that this node decided on, nil if it joined later. It is nil where there is
// nothing to say.
func AnswerBootstrap(m *wire.BootstrapMessage, self *catalog.Node, cluster *catalog.Catalog, leader catalog.NodeID, founding *catalog.Catalog) *wire.BootstrapMessage {
	switch m.GetKind() {
	case wire.BootstrapMessage_KIND_HELLO, wire.BootstrapMessage_KIND_PREPARE, wire.BootstrapMessage_KIND_ACCEPT:
	default:
		return nil
	}
	for _, n := range founding.GetNodes() {
		if bytes.Equal(n.DirectoryId, m.GetNode().GetDirectoryId()) {
			return &wire.BootstrapMessage{Kind: wire.BootstrapMessage_KIND_DECIDED, From: self.RpcAddr, Node: self, Founding: founding}
		}
	}
	return &wire.BootstrapMessage{
		Kind: wire.BootstrapMessage_KIND_MEMBER, From: self.RpcAddr, Node: self,
		ClusterId: cluster.GetClusterId(), LeaderNode: uint64(leader), Nodes: cluster.GetNodes(),
	}
}
