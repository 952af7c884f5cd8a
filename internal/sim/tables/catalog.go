package tables

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/master"
	"github.com/braiddb/braid/internal/multiraft"
	"github.com/braiddb/braid/internal/wire"
)

// In some seeds the cluster is managed: the real master and its balancer say
// which node holds what, from heartbeats, and nodes reconcile themselves with its
// catalog. This file is what a node does about that; the master is the house's.

// heartbeatEvery and moveTime are a node's own.
const (
	heartbeatEvery = 500 * time.Millisecond
	moveTime       = 10 * time.Second
)

// founding is the catalog that the cluster begins with.
func (c *cluster) founding() *catalog.Catalog {
	var nodes []*catalog.Node
	for _, m := range c.members {
		nodes = append(nodes, m.descriptor())
	}
	x := master.FirstCatalog("simulation", nodes, master.First{Tablets: int(c.w.Opt.Knob("tablets")), Factor: int(c.w.Opt.Knob("replicas"))})
	x.Tables[0].HistoryRetentionMs = c.w.Opt.Knob("historyMs")
	return x
}

// descriptor is the node as it describes itself. Addresses sort as ids do, so
// that the first catalog gives each node the id it has.
func (m *member) descriptor() *catalog.Node {
	return &catalog.Node{Id: uint64(m.n.ID), Incarnation: uint64(max(1, m.n.Life())), RpcAddr: fmt.Sprintf("10.0.0.%d:7100", m.n.ID),
		ClientAddr: fmt.Sprintf("10.0.0.%d:7101", m.n.ID), Location: fmt.Sprintf("region/zone%d/rack%d", m.n.ID%3, m.n.ID),
		State: catalog.NodeState_NODE_STATE_ALIVE, Version: "simulation", DirectoryId: []byte(fmt.Sprintf("directory-%06d", m.n.ID)),
		Roles: catalog.RoleAll, SequencerWeight: 1, StorageWeight: 1}
}

// manage makes the groups and registries of a managed cluster.
func (c *cluster) manage() {
	x := c.founding()
	c.first = x
	c.table = x.Tables[0]
	add := func(id catalog.GroupID, replicas []*catalog.Replica) {
		for _, r := range replicas {
			c.members[r.Node-1].register(&entry{group: id, replica: catalog.ReplicaID(r.Id), founders: replicas})
		}
	}
	c.system = &view{c: c, id: catalog.MasterGroup, tablet: x.MasterTablet()}
	add(catalog.MasterGroup, x.MasterReplicas)
	for _, t := range x.Tablets {
		c.views = append(c.views, &view{c: c, id: catalog.GroupID(t.Id), tablet: t})
		add(catalog.GroupID(t.Id), t.Replicas)
	}
}

// managed is what a life of a node knows of the catalog.
type managed struct {
	index   *catalog.Index
	master  *master.Master
	machine *machine
	asked   int // the node that is taken for the master's leader
	running map[catalog.GroupID]*wire.Move
	lost    []master.Action // replicas that the catalog has here and that were destroyed
}

// startManaged begins to report, and to let a master that is here look.
func (m *member) startManaged() {
	m.running = make(map[catalog.GroupID]*wire.Move)
	m.index = catalog.NewIndex(&catalog.Catalog{})
	m.heartbeats()
	m.ticks()
}

func (m *member) ticks() {
	m.n.After(heartbeatEvery/2, "master", func() {
		m.ticks()
		if m.master != nil && m.fatal == nil {
			m.master.Tick(m.n.Mono())
		}
	})
}

func (m *member) heartbeats() {
	pause := heartbeatEvery
	if slices.ContainsFunc(m.host.Groups(), func(g *multiraft.Group) bool { return g.Status().LeaderNode == 0 }) {
		pause /= 10
	}
	m.n.After(pause, "report", func() {
		m.heartbeats()
		if m.fatal == nil {
			m.heartbeat()
		}
	})
}

// heartbeat reports to whom it takes for the master.
func (m *member) heartbeat() {
	if m.asked == 0 {
		masters := m.c.first.MasterReplicas
		if m.index.Version() > 0 {
			masters = m.index.Catalog().MasterReplicas
		}
		m.asked = int(masters[m.c.w.Dice().IntN(len(masters))].Node)
	}
	req := &wire.HeartbeatRequest{Node: m.descriptor(), Replicas: m.report(), CatalogVersion: m.index.Version(), HybridTime: uint64(m.clock.Now())}
	raw, _ := req.MarshalVT()
	p, asked := m.c.members[m.asked-1], m.asked
	m.asked = 0 // unless it answers
	m.n.Send(asked, "report", len(raw), func() {
		in := &wire.HeartbeatRequest{}
		if err := in.UnmarshalVT(raw); err != nil || p.fatal != nil {
			return
		}
		resp := &wire.HeartbeatResponse{Error: &wire.Error{Code: wire.Code_CODE_NOT_LEADER}}
		if p.master != nil {
			resp = p.master.Heartbeat(p.n.Mono(), in)
		}
		out, _ := resp.MarshalVT()
		m.c.w.NoteBytes(out)
		p.n.Send(m.n.ID, "answer", len(out), func() { m.told(asked, out) })
	})
}

// report says how every replica here is.
func (m *member) report() []*wire.ReplicaReport {
	var out []*wire.ReplicaReport
	for _, g := range m.host.Groups() {
		s := g.Status()
		r := &wire.ReplicaReport{Group: uint64(s.ID), Replica: uint64(s.Replica), Term: s.Term, Applied: s.Applied, Corrupt: s.Corrupt}
		if s.ID != catalog.MasterGroup {
			r.SchemaVersion = m.c.table.Schema.Version
		}
		if s.Role == multiraft.RoleLeader && g.Leading() == nil {
			r.Leader, r.Config = true, s.Conf
			for _, p := range s.Progress {
				if p.Learner && p.CaughtUp {
					r.CaughtUpLearners = append(r.CaughtUpLearners, uint64(p.Replica))
				}
				if !p.Learner && s.Commit > p.Match {
					r.Lag = max(r.Lag, s.Commit-p.Match)
				}
			}
		}
		out = append(out, r)
	}
	for _, a := range m.lost {
		out = append(out, &wire.ReplicaReport{Group: uint64(a.Group), Replica: uint64(a.Replica), Corrupt: true})
	}
	return out
}

// told takes the master's answer: a newer catalog, and what to do.
func (m *member) told(from int, raw []byte) {
	resp := &wire.HeartbeatResponse{}
	if err := resp.UnmarshalVT(raw); err != nil {
		m.c.w.Fail("an answer of the master does not unmarshal: %w", err)
		return
	}
	if e := resp.Error; e != nil {
		switch e.Code {
		case wire.Code_CODE_NOT_LEADER, wire.Code_CODE_NOT_READY, wire.Code_CODE_CLOCK_SKEW:
			m.asked = int(e.LeaderNode)
		default:
			m.c.w.Fail("the master refuses node %d: %s %s", m.n.ID, e.Code, e.Message)
		}
		return
	}
	m.asked = from
	if resp.Catalog != nil && resp.Catalog.Version > m.index.Version() {
		x := m.index.Next(resp.Catalog)
		m.reconcile(x)
		m.index = x
	}
	for _, mv := range resp.Moves {
		m.carryOut(mv)
	}
}

// reconcile makes this node hold what the catalog says.
func (m *member) reconcile(x *catalog.Index) {
	var local []master.Local
	m.lost = nil
	for _, e := range m.registry {
		local = append(local, master.Local{Group: e.group, Replica: e.replica, Dropped: m.dropped[e.group]})
	}
	for _, g := range m.droppedGroups() {
		if m.listed(g) == nil {
			local = append(local, master.Local{Group: g, Dropped: m.dropped[g]})
		}
	}
	for _, a := range master.Reconcile(catalog.NodeID(m.n.ID), x, local) {
		m.c.w.Tracef("node %d: catalog %d: %s replica %d of group %d", m.n.ID, x.Version(), a.Kind, a.Replica, a.Group)
		switch e := m.listed(a.Group); a.Kind {
		case master.CreateReplica:
			if e != nil {
				continue // its predecessor still goes: once gone, this is done again
			}
			n := &entry{group: a.Group, replica: a.Replica}
			if a.New {
				n.founders = a.Conf
			}
			m.create(n)
		case master.LostReplica:
			m.lost = append(m.lost, a)
		case master.DestroyReplica:
			if e != nil && !e.leaving {
				m.destroy(e)
			}
		}
	}
}

// droppedGroups are the groups of which a replica was destroyed here, ascending.
func (m *member) droppedGroups() []catalog.GroupID {
	var out []catalog.GroupID
	for g := range m.dropped {
		out = append(out, g)
	}
	slices.Sort(out)
	return out
}

// carryOut does one step that the master asks of a leader. It repeats a step
// until a report shows it done.
func (m *member) carryOut(mv *wire.Move) {
	id := catalog.GroupID(mv.Group)
	g, h := m.host.Group(id), m.find(id)
	if g == nil || h == nil || m.running[id] != nil {
		return
	}
	ch := multiraft.Change{Replica: catalog.ReplicaID(mv.GetReplica().GetId()), Node: catalog.NodeID(mv.GetReplica().GetNode())}
	switch mv.Kind {
	case wire.Move_KIND_ADD_LEARNER:
		ch.Kind = multiraft.AddLearner
	case wire.Move_KIND_PROMOTE:
		ch.Kind = multiraft.Promote
	case wire.Move_KIND_REMOVE_REPLICA:
		ch.Kind = multiraft.Remove
	case wire.Move_KIND_TRANSFER_LEADER:
		m.c.w.Sometimes("balancer: moved a leader")
		g.TransferLeader(ch.Replica)
		return
	default:
		return
	}
	over := func(err error) {
		if m.running[id] == mv {
			delete(m.running, id)
			m.c.w.Tracef("node %d: group %d: %s of replica %d: %v", m.n.ID, id, mv.Kind, ch.Replica, err)
			if err == nil {
				m.c.w.Sometimes("balancer: changed a group")
			}
		}
	}
	m.running[id] = mv
	m.n.After(moveTime, "move late", func() { over(fmt.Errorf("late")) })
	h.change(ch, moveTime, over)
}

// machine is the catalog's state machine on a node: the house's, kept in the
// engine with the index under which it was reached.
type machine struct {
	m     *member
	inner *master.Machine
	state multiraft.AppliedState
}

var machineKey = []byte("catalog")

func openMachine(m *member) (*machine, error) {
	x := &machine{m: m, inner: master.NewMachine()}
	b, ok, err := m.engine.GroupState(catalog.MasterGroup, machineKey)
	if err == nil && ok {
		err = x.adopt(b)
	}
	return x, err
}

// index is the catalog as it is applied here.
func (x *machine) index() *catalog.Index { return x.inner.Index() }

func (x *machine) encode() ([]byte, error) {
	state, err := x.inner.Encode()
	b := binary.BigEndian.AppendUint64(nil, x.state.Index)
	b = binary.BigEndian.AppendUint64(b, x.state.Term)
	b = binary.BigEndian.AppendUint64(b, uint64(x.state.HybridTime))
	b = binary.BigEndian.AppendUint32(b, uint32(len(x.state.Conf)))
	return append(append(b, x.state.Conf...), state...), err
}

func (x *machine) adopt(b []byte) error {
	s := multiraft.AppliedState{Index: binary.BigEndian.Uint64(b), Term: binary.BigEndian.Uint64(b[8:]),
		HybridTime: hlc.Timestamp(binary.BigEndian.Uint64(b[16:]))}
	n := binary.BigEndian.Uint32(b[24:])
	if n > 0 {
		s.Conf = bytes.Clone(b[28 : 28+n])
	}
	inner, err := master.DecodeState(bytes.Clone(b[28+n:]))
	if err == nil {
		x.inner, x.state = inner, s
	}
	return err
}

func (x *machine) save() error {
	record, err := x.encode()
	if err != nil {
		return err
	}
	b := x.m.engine.NewBatch()
	defer b.Close()
	if err := b.PutGroupState(catalog.MasterGroup, machineKey, record); err != nil {
		return err
	}
	return b.Commit()
}

// Apply carries out commands and tells the service.
func (x *machine) Apply(ents []multiraft.Entry) error {
	var applied []master.Applied
	for _, e := range ents {
		x.state.Index, x.state.Term, x.state.HybridTime = e.Index, e.Term, e.HybridTime
		if e.Kind == multiraft.KindConf {
			x.state.Conf = bytes.Clone(e.Conf)
		}
		if e.Kind != multiraft.KindWrites {
			continue
		}
		for _, w := range e.Writes {
			a, err := x.inner.Apply(e.HybridTime, w.Data)
			if err != nil {
				return err
			}
			applied = append(applied, a)
		}
	}
	if err := x.save(); err != nil {
		return err
	}
	if x.m.master != nil {
		x.m.master.Applied(applied)
	}
	return nil
}

// Snapshot copies the state.
func (x *machine) Snapshot() (multiraft.SnapshotReader, error) {
	record, err := x.encode()
	return machineSnapshot{x.state, bytes.NewReader(record)}, err
}

type machineSnapshot struct {
	state multiraft.AppliedState
	*bytes.Reader
}

// State is what had been applied.
func (s machineSnapshot) State() multiraft.AppliedState { return s.state }

// Close does nothing.
func (s machineSnapshot) Close() error { return nil }

// Restore replaces the state, durably.
func (x *machine) Restore(meta multiraft.AppliedState, r io.Reader) error {
	b, err := io.ReadAll(r)
	if err == nil {
		err = x.adopt(b)
	}
	if err != nil {
		return err
	}
	x.state = meta
	if err := x.save(); err != nil {
		return err
	}
	return x.m.engine.Flush()
}

// Destroy removes the state.
func (x *machine) Destroy() error {
	b := x.m.engine.NewBatch()
	defer b.Close()
	if err := b.DeleteGroupState(catalog.MasterGroup, machineKey); err != nil {
		return err
	}
	if err := b.Commit(); err != nil {
		return err
	}
	return x.m.engine.Flush()
}

// masterGroup is the master's group as its service sees it.
type masterGroup struct{ h *hosted }

// Leading says whether this replica may serve.
func (g masterGroup) Leading() *wire.Error {
	err := g.h.group.Leading()
	if err == nil {
		return nil
	}
	return &wire.Error{Code: wire.Code_CODE_NOT_LEADER, Message: err.Error(), LeaderNode: uint64(g.h.group.Status().LeaderNode)}
}

// Term grows with every change of leader.
func (g masterGroup) Term() uint64 { return g.h.group.Status().Term }

// Propose replicates one command.
func (g masterGroup) Propose(command []byte, done func(*wire.Error)) {
	g.h.group.Propose(&multiraft.Proposal{Data: command, Done: func(r multiraft.ProposalResult) {
		if r.Err != nil {
			done(&wire.Error{Code: wire.Code_CODE_UNKNOWN_OUTCOME, Message: r.Err.Error()})
			return
		}
		done(nil)
	}})
}
