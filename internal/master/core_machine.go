package master

import (
	"errors"
	"fmt"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/wire"
)

// Versions of what this package writes. A reader refuses what is newer.
const (
	commandVersion = 3 // 2: changes of logs; 3: nodes are forgotten
	stateFormat    = 3 // 2: with logs; 3: forgotten nodes
)

// ErrNewer says that a master of a later release wrote what is read. Applying it
// half-understood would make replicas differ, so the replica stops instead.
var ErrNewer = errors.New("written by a newer release")

// ErrDamaged says that bytes are not what this package writes.
var ErrDamaged = errors.New("damaged")

// Applied is what became of one command.
type Applied struct {
	Node, Incarnation, Sequence uint64 // who waits

	Err      *wire.Error    // nil: carried out
	Table    uint32         // created or altered
	LogGroup uint64         // made, changed or found
	Admitted catalog.NodeID // admit
	Version  uint64         // of the catalog after it
}

// Machine applies commands to the catalog, the same on every replica. It is
// owned by the group's apply worker. Catalogs it has given out never change.
type Machine struct {
	index   *catalog.Index
	clients clients
}

// NewMachine has an empty catalog of version 0.
func NewMachine() *Machine {
	return &Machine{index: catalog.NewIndex(&catalog.Catalog{})}
}

// DecodeState makes a machine of what Encode wrote.
func DecodeState(data []byte) (*Machine, error) {
	s := new(State)
	if err := s.UnmarshalVT(data); err != nil {
		return nil, fmt.Errorf("master's state: %w: %v", ErrDamaged, err)
	}
	if s.Format > stateFormat {
		return nil, fmt.Errorf("master's state: %w: format %d, this release reads up to %d", ErrNewer, s.Format, stateFormat)
	}
	if s.Format == 0 || s.Catalog == nil {
		return nil, fmt.Errorf("master's state: %w: no catalog", ErrDamaged)
	}
	if s.Catalog.Version > 0 {
		if err := catalog.Validate(s.Catalog); err != nil {
			return nil, fmt.Errorf("master's state: %w: %v", ErrDamaged, err)
		}
	}
	return &Machine{index: catalog.NewIndex(s.Catalog), clients: clients{list: s.Clients}}, nil
}

// Encode is the machine's whole state.
func (m *Machine) Encode() ([]byte, error) {
	s := &State{Format: stateFormat, Catalog: m.index.Catalog(), Clients: m.clients.list}
	return s.MarshalVT()
}

// Index is the catalog as it is now.
func (m *Machine) Index() *catalog.Index { return m.index }

// Apply carries out one command that committed at a hybrid time. The error is
// for what must stop the replica; a refusal is in Applied.
func (m *Machine) Apply(at hlc.Timestamp, data []byte) (Applied, error) {
	cmd := new(Command)
	if err := cmd.UnmarshalVT(data); err != nil {
		return Applied{}, fmt.Errorf("master's command: %w: %v", ErrDamaged, err)
	}
	if cmd.Version > commandVersion {
		return Applied{}, fmt.Errorf("master's command: %w: version %d, this release applies up to %d", ErrNewer, cmd.Version, commandVersion)
	}
	out := Applied{Node: cmd.Node, Incarnation: cmd.Incarnation, Sequence: cmd.Sequence}
	if done, found := m.clients.find(cmd.ClientId, cmd.RequestId); found {
		out.Err, out.Table, out.LogGroup = done.Error, done.Table, done.LogGroup
		out.Version = m.index.Version()
		return out, nil
	}
	m.carryOut(cmd, &out)
	if out.Err == nil || !out.Err.Code.Retriable() { // else a retry is to be tried
		m.clients.remember(at, cmd.ClientId, cmd.RequestId, &Outcome{RequestId: cmd.RequestId, Error: out.Err, Table: out.Table, LogGroup: out.LogGroup})
	}
	out.Version = m.index.Version()
	return out, nil
}

// carryOut makes the next version of the catalog, or none (M1, M2).
func (m *Machine) carryOut(cmd *Command, out *Applied) {
	c := &change{was: m.index, next: m.index.Catalog().Shallow(), out: out}
	if out.Err = c.make(cmd); out.Err != nil || !c.changed {
		return
	}
	c.next.Version = m.index.Version() + 1
	validate := catalog.ValidateBesideLogs
	if cmd.Found != nil {
		validate = catalog.Validate
	}
	if err := validate(c.next); err != nil {
		out.Err = refuse(wire.Code_CODE_INVALID, "refused: %v", err)
		out.Table, out.LogGroup, out.Admitted = 0, 0, 0
		return
	}
	if c.logs != nil {
		c.logs.Into(c.next)
		m.index = m.index.NextWithLogs(c.next, c.logs)
		return
	}
	m.index = m.index.Next(c.next)
}

// change is the making of one version out of another.
type change struct {
	was     *catalog.Index
	next    *catalog.Catalog // lists are its own, descriptors are shared with was
	out     *Applied
	logs    *catalog.Logs // the log part, where it has changed
	changed bool
}

// make carries out whatever a command holds. Parts of the master's own commands
// that have become pointless are passed over.
func (c *change) make(cmd *Command) *wire.Error {
	switch {
	case cmd.Found != nil:
		return c.found(cmd.Found)
	case c.was.Version() == 0:
		return refuse(wire.Code_CODE_NOT_READY, "the cluster is not founded yet")
	case cmd.Admin != nil:
		return c.admin(cmd.Admin)
	case cmd.Admit != nil:
		return c.admit(cmd.Admit)
	}
	for _, n := range cmd.Nodes {
		c.describe(n)
	}
	for _, id := range cmd.Dead {
		c.dead(id)
	}
	for _, o := range cmd.Observed {
		c.observe(o)
	}
	if len(cmd.Observed) > 0 {
		c.tablesRunning()
	}
	for _, p := range cmd.Plans {
		c.plan(p)
	}
	return nil
}

func (c *change) found(f *Found) *wire.Error {
	if c.was.Version() != 0 {
		return refuse(wire.Code_CODE_ALREADY_EXISTS, "cluster %s is founded already", c.was.Catalog().ClusterId)
	}
	if f.Catalog.GetVersion() != 1 {
		return refuse(wire.Code_CODE_INVALID, "a first catalog of version %d", f.Catalog.GetVersion())
	}
	c.next, c.changed = f.Catalog, true
	return nil
}

func refuse(code wire.Code, format string, args ...any) *wire.Error {
	return &wire.Error{Code: code, Message: fmt.Sprintf(format, args...)}
}
