package node

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/master"
	"github.com/braiddb/braid/internal/multiraft"
	"github.com/braiddb/braid/internal/wire"
)

// masterMachine is the state machine of the master's group on this node: the
// catalog machine, kept in the LSM under the group's state.
//
// Invariant: the machine's state and the applied index under which it was
// reached are one record, so that they become durable together.
type masterMachine struct {
	node    *Node
	machine *master.Machine // of the apply worker
	state   multiraft.AppliedState
	index   atomic.Pointer[catalog.Index]
	term    atomic.Uint64
}

var (
	masterKey     = []byte("catalog")
	errMasterData = errors.New("the master's record does not decode")
)

// masterFormat is the version of the record: format u8 | index u64 | term u64 |
// hybrid time u64 | length of conf u32 | conf | state.
const masterFormat = 1

const masterHeader = 1 + 8 + 8 + 8 + 4

func encodeMasterRecord(s multiraft.AppliedState, state []byte) []byte {
	b := make([]byte, 0, masterHeader+len(s.Conf)+len(state))
	b = append(b, masterFormat)
	b = binary.BigEndian.AppendUint64(b, s.Index)
	b = binary.BigEndian.AppendUint64(b, s.Term)
	b = binary.BigEndian.AppendUint64(b, uint64(s.HybridTime))
	b = binary.BigEndian.AppendUint32(b, uint32(len(s.Conf)))
	return append(append(b, s.Conf...), state...)
}

func decodeMasterRecord(b []byte) (s multiraft.AppliedState, state []byte, err error) {
	if len(b) < masterHeader {
		return s, nil, errMasterData
	}
	if b[0] > masterFormat {
		return s, nil, fmt.Errorf("the master's record: %w", ErrFormat)
	}
	s.Index, s.Term = binary.BigEndian.Uint64(b[1:]), binary.BigEndian.Uint64(b[9:])
	s.HybridTime = hlc.Timestamp(binary.BigEndian.Uint64(b[17:]))
	conf := binary.BigEndian.Uint32(b[25:])
	if uint64(conf) > uint64(len(b)-masterHeader) {
		return s, nil, errMasterData
	}
	if conf > 0 {
		s.Conf = bytes.Clone(b[masterHeader : masterHeader+conf])
	}
	return s, b[masterHeader+conf:], nil
}

// load reads back what the LSM holds; an empty one is a machine that has applied nothing.
func (m *masterMachine) load() error {
	m.machine, m.state = master.NewMachine(), multiraft.AppliedState{}
	b, ok, err := m.node.engine.GroupState(catalog.MasterGroup, masterKey)
	if err == nil && ok {
		err = m.adopt(b)
	}
	if err != nil {
		return fmt.Errorf("open the catalog: %w", err)
	}
	m.publish()
	return nil
}

func (m *masterMachine) adopt(record []byte) error {
	s, state, err := decodeMasterRecord(record)
	if err != nil {
		return err
	}
	machine, err := master.DecodeState(bytes.Clone(state))
	if err != nil {
		return err
	}
	m.machine, m.state = machine, s
	return nil
}

func (m *masterMachine) publish() {
	m.index.Store(m.machine.Index())
	m.term.Store(m.state.Term)
}

// save puts the machine's state into the LSM, with the applied index.
func (m *masterMachine) save() error {
	state, err := m.machine.Encode()
	if err != nil {
		return err
	}
	b := m.node.engine.NewBatch()
	defer b.Close()
	if err := b.PutGroupState(catalog.MasterGroup, masterKey, encodeMasterRecord(m.state, state)); err != nil {
		return err
	}
	return b.Commit()
}

// Apply carries out committed commands and tells the service what became of them.
func (m *masterMachine) Apply(ents []multiraft.Entry) error {
	var applied []master.Applied
	for _, e := range ents {
		m.state.Index, m.state.Term, m.state.HybridTime = e.Index, e.Term, e.HybridTime
		if e.Kind == multiraft.KindConf {
			m.state.Conf = bytes.Clone(e.Conf)
		}
		if e.Kind != multiraft.KindWrites {
			continue // its one write, if any, is the change of configuration's own
		}
		for _, w := range e.Writes {
			a, err := m.machine.Apply(e.HybridTime, w.Data)
			if err != nil {
				return err
			}
			applied = append(applied, a)
		}
	}
	if err := m.save(); err != nil {
		return err
	}
	m.publish()
	if s := m.node.master.Load(); s != nil {
		s.Applied(applied)
	}
	return nil
}

// masterSnapshot is the record as it was when the snapshot was taken.
type masterSnapshot struct {
	state multiraft.AppliedState
	*bytes.Reader
}

// State is what had been applied.
func (s masterSnapshot) State() multiraft.AppliedState { return s.state }

// Close does nothing: the record is in memory.
func (s masterSnapshot) Close() error { return nil }

// Snapshot copies the state.
func (m *masterMachine) Snapshot() (multiraft.SnapshotReader, error) {
	state, err := m.machine.Encode()
	if err != nil {
		return nil, err
	}
	return masterSnapshot{m.state, bytes.NewReader(encodeMasterRecord(m.state, state))}, nil
}

// masterSnapshotMax bounds what is read of a snapshot.
const masterSnapshotMax = 1 << 30

// Restore replaces the state by a snapshot's, durably.
func (m *masterMachine) Restore(meta multiraft.AppliedState, r io.Reader) error {
	record, err := io.ReadAll(io.LimitReader(r, masterSnapshotMax))
	if err != nil {
		return err
	}
	if err := m.adopt(record); err != nil {
		return err
	}
	m.state = meta
	if err := m.save(); err != nil {
		return err
	}
	m.publish()
	return m.node.engine.Flush()
}

// Destroy removes the state.
func (m *masterMachine) Destroy() error {
	b := m.node.engine.NewBatch()
	defer b.Close()
	if err := b.DeleteGroupState(catalog.MasterGroup, masterKey); err != nil {
		return err
	}
	if err := b.Commit(); err != nil {
		return err
	}
	m.machine, m.state = master.NewMachine(), multiraft.AppliedState{}
	m.publish()
	return m.node.engine.Flush()
}

// flushed tells the group how far the LSM durably is.
func (m *masterMachine) flushed() error {
	g := m.node.mgroup.Load()
	if g == nil {
		return nil
	}
	b, ok, err := m.node.engine.DurableGroupState(catalog.MasterGroup, masterKey)
	if err != nil || !ok {
		return err
	}
	s, _, err := decodeMasterRecord(b)
	if err != nil {
		return err
	}
	g.FlushedTo(s.Index)
	return nil
}

// openMaster starts this node's replica of the master's group and its service.
func (n *Node) openMaster(rep *Replica, cfg multiraft.GroupConfig) error {
	if err := n.machine.load(); err != nil {
		return err
	}
	cfg.SM, cfg.Applied = n.machine, n.machine.state
	cfg.New = len(rep.Founders) > 0 && cfg.Recovered == nil && cfg.Applied.Index == 0
	g, err := n.host.Create(cfg)
	if err != nil {
		return fmt.Errorf("the master's group: %w", err)
	}
	n.mgroup.Store(g)
	n.master.Store(master.New(master.Deps{
		Node: n.id.Node, Incarnation: n.id.Incarnation, Group: masterGroup{g}, Index: n.machine.index.Load, Founding: rep.First,
	}, master.Options{DeadAfter: n.cfg.DeadAfter}))
	return nil
}

// masterGroup is the master's group as its service sees it.
type masterGroup struct{ g *multiraft.Group }

// Leading says whether this replica may serve.
func (m masterGroup) Leading() *wire.Error { return groupError(m.g.Leading()) }

// Term grows with every change of leader.
func (m masterGroup) Term() uint64 { return m.g.Status().Term }

// Propose replicates one command.
func (m masterGroup) Propose(command []byte, done func(*wire.Error)) {
	m.g.Propose(&multiraft.Proposal{Data: command, Done: func(r multiraft.ProposalResult) { done(groupError(r.Err)) }})
}

// groupError turns what a group refuses with into an answer.
func groupError(err error) *wire.Error {
	var other *multiraft.NotLeaderError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &other):
		return &wire.Error{Code: wire.Code_CODE_NOT_LEADER, Message: err.Error(), LeaderNode: uint64(other.Node)}
	case errors.Is(err, multiraft.ErrNotReady):
		return &wire.Error{Code: wire.Code_CODE_NOT_READY, Message: err.Error()}
	case errors.Is(err, multiraft.ErrStopped):
		return &wire.Error{Code: wire.Code_CODE_NOT_LEADER, Message: err.Error()}
	case errors.Is(err, multiraft.ErrOverloaded):
		return &wire.Error{Code: wire.Code_CODE_OVERLOADED, Message: err.Error(), RetryAfterMs: 50}
	case errors.Is(err, multiraft.ErrDiskFull):
		return &wire.Error{Code: wire.Code_CODE_DISK_FULL, Message: err.Error()}
	case errors.Is(err, multiraft.ErrClockOutlier):
		return &wire.Error{Code: wire.Code_CODE_CLOCK_SKEW, Message: err.Error()}
	case errors.Is(err, multiraft.ErrUnknownOutcome):
		return &wire.Error{Code: wire.Code_CODE_UNKNOWN_OUTCOME, Message: err.Error()}
	}
	return &wire.Error{Code: wire.Code_CODE_INTERNAL, Message: err.Error()}
}
