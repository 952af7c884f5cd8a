package tablet

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/multiraft"
	"github.com/braiddb/braid/internal/tables/docdb"
	"github.com/braiddb/braid/internal/wire"
)

// Group is what a tablet needs of its Raft group.
type Group interface {
	// Propose never blocks; the proposal's Done runs exactly once, perhaps before
	// Propose returns.
	Propose(p *multiraft.Proposal)
	// ReadTime gives a time at or below which no later write will be, and by which
	// everything is applied here. It fails unless this replica leads, under a
	// lease, with the first entry of its term applied.
	ReadTime() (hlc.Timestamp, error)
	// Leading is ReadTime's check alone.
	Leading() error
	// Status is asked for the configuration.
	Status() multiraft.Status
	// FlushedTo says that everything up to index is durable in the LSM.
	FlushedTo(index uint64)
}

var (
	_ Group                  = (*multiraft.Group)(nil)
	_ multiraft.StateMachine = (*Tablet)(nil)
)

// Deps is what a tablet is given.
type Deps struct {
	Engine *docdb.Engine
	Clock  *hlc.Clock
	// Now is read for deadlines, AfterFunc wakes the tablet at one.
	Now       func() time.Time
	AfterFunc func(d time.Duration, f func()) (stop func() bool)
	// DiskFull reports that the node takes no more writes for want of space.
	DiskFull func() bool
	// Overloaded reports that the node's LSM cannot keep up.
	Overloaded func() bool
	Logger     *slog.Logger
	Options    Options
}

// Options bound what a tablet takes on. Zero values stand for the defaults.
type Options struct {
	// RequestBytesMax is the largest request, 32 MiB.
	RequestBytesMax int
	// InflightMax and InflightBytesMax bound the writes that are parked or under
	// way: 16,384 and 64 MiB. Above them a write is refused as overloaded, except
	// that one request is always let in.
	InflightMax      int
	InflightBytesMax int64
	// DelayMax bounds how long a write may be on its way through the log: when one
	// took longer, and more than DelayFloor are under way, further ones are refused
	// as overloaded. 400 ms, 64.
	DelayMax   time.Duration
	DelayFloor int64
	// RetryAfter is the least that an overloaded answer recommends, 20 ms.
	RetryAfter time.Duration
	// RequestWindow is how long a carried-out request is remembered, 660 s; the
	// longest retry of any client must be shorter. RememberedBytesMax and
	// ClientsMax bound the memory of it: 8 MiB, 16,384 clients.
	//
	// Replicas decide by them what a second copy of a request is: they must be
	// equal on all nodes of a cluster.
	RequestWindow      time.Duration
	RememberedBytesMax int64
	ClientsMax         int
}

func (o Options) withDefaults() Options {
	set := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	set(&o.RequestBytesMax, 32<<20)
	set(&o.InflightMax, 16<<10)
	set(&o.ClientsMax, defaultRequestLimits.clients)
	if o.InflightBytesMax == 0 {
		o.InflightBytesMax = 64 << 20
	}
	if o.DelayMax == 0 {
		o.DelayMax = 400 * time.Millisecond
	}
	if o.DelayFloor == 0 {
		o.DelayFloor = 64
	}
	if o.RetryAfter == 0 {
		o.RetryAfter = 20 * time.Millisecond
	}
	if o.RequestWindow == 0 {
		o.RequestWindow = defaultRequestLimits.window
	}
	if o.RememberedBytesMax == 0 {
		o.RememberedBytesMax = defaultRequestLimits.bytes
	}
	return o
}

func (o Options) requestLimits() requestLimits {
	return requestLimits{window: o.RequestWindow, bytes: o.RememberedBytesMax, clients: o.ClientsMax}
}

// Tablet is one replica. It is safe for concurrent use, except that Apply,
// Snapshot, Restore and Destroy are called by one goroutine at a time: the
// group's apply worker.
type Tablet struct {
	deps  Deps
	id    catalog.GroupID
	table catalog.TableID
	span  docdb.Span

	group  atomic.Pointer[groupRef]
	schema atomic.Pointer[catalog.Table] // the table as of the last applied change
	// requests is replaced as a whole by a snapshot.
	requests atomic.Pointer[requests]
	locks    *lockTable

	// appliedTerm is the term of the last applied entry. Where Leading holds it
	// is the leader's own: the term's first entry is applied, and nothing later.
	appliedTerm atomic.Uint64
	cutoff      docdb.Cutoff  // W6; replicated, see state.go
	collectable atomic.Uint64 // the cutoff as far as it is committed to the LSM
	sweeping    struct {      // where the next sweep goes on
		sync.Mutex
		next []byte
	}
	lastWrite atomic.Uint64 // hybrid time of the last entry with effects
	closed    atomic.Bool

	inflight      atomic.Int64
	inflightBytes atomic.Int64
	// delay is how long the write that came last out of the log was on its way; 0
	// while few are under way.
	delay atomic.Int64

	alarm struct { // wakes parked writes at their deadlines
		sync.Mutex
		at   time.Time // zero: not set
		stop func() bool
	}

	apply applier // of the apply worker alone

	metrics Metrics
}

// groupRef holds an interface so that it can be swapped atomically.
type groupRef struct{ Group }

// Metrics count what the tablet did since it was opened.
type Metrics struct {
	Writes       atomic.Int64 // requests carried out by this leader
	Reads        atomic.Int64 // read requests served
	Refused      atomic.Int64 // requests answered with an error before they were proposed
	Parked       atomic.Int64 // writes that waited for a lock
	TimedOut     atomic.Int64 // writes whose deadline passed before they were proposed
	Overloaded   atomic.Int64 // writes refused because too many are under way, or for too long
	Remembered   atomic.Int64 // retries answered from what is remembered
	Attached     atomic.Int64 // retries that joined the running original
	Expired      atomic.Int64 // retries older than what is remembered
	Duplicates   atomic.Int64 // second copies found in committed entries
	Void         atomic.Int64 // committed writes of a term other than the one they were checked in
	Entries      atomic.Int64 // entries applied
	Applies      atomic.Int64 // LSM batches they took
	Unchanged    atomic.Int64 // requests without effect answered without an entry
	SnapshotsIn  atomic.Int64
	SnapshotsOut atomic.Int64
}

// New opens a replica: what the engine holds of its group is read back. Applied
// tells where the group's log goes on. table is used until an applied change of
// schema is found to be newer.
func New(d Deps, desc *catalog.Tablet, table *catalog.Table) (*Tablet, error) {
	d.Options = d.Options.withDefaults()
	if d.DiskFull == nil {
		d.DiskFull = func() bool { return false }
	}
	if d.Overloaded == nil {
		d.Overloaded = func() bool { return false }
	}
	if table.Schema == nil || desc.Table != table.Id {
		return nil, fmt.Errorf("tablet %d: descriptor names table %d, given is table %d with schema %v",
			desc.Id, desc.Table, table.Id, table.Schema != nil)
	}
	t := &Tablet{
		deps:  d,
		id:    catalog.GroupID(desc.Id),
		table: catalog.TableID(desc.Table),
		span:  docdb.Span{Table: catalog.TableID(desc.Table), Start: desc.HashStart, End: desc.HashEnd},
		locks: newLockTable(),
	}
	t.schema.Store(table)
	if err := t.load(); err != nil {
		return nil, err
	}
	return t, nil
}

// Attach gives the tablet its group. Until then it answers "not ready"; entries
// may be applied before.
func (t *Tablet) Attach(g Group) { t.group.Store(&groupRef{g}) }

// Close answers every parked write with "tablet not found" and refuses all later
// ones. Writes under way end with their proposals.
func (t *Tablet) Close() {
	t.closed.Store(true)
	for _, r := range t.locks.drain() {
		t.conclude(r.write, failure(wire.Code_CODE_TABLET_NOT_FOUND, "the tablet was closed here"), nil)
	}
	t.alarm.Lock()
	defer t.alarm.Unlock()
	if t.alarm.stop != nil {
		t.alarm.stop()
	}
}

// ID is the tablet's, and its group's.
func (t *Tablet) ID() catalog.GroupID { return t.id }

// Table is the table as this replica knows it. It is not to be changed.
func (t *Tablet) Table() *catalog.Table { return t.schema.Load() }

// Applied is where the group's log goes on, for multiraft.GroupConfig.
func (t *Tablet) Applied() multiraft.AppliedState { return t.apply.state }

// Metrics of this tablet.
func (t *Tablet) Metrics() *Metrics { return &t.metrics }

// Status is a tablet at a glance.
type Status struct {
	ID                catalog.GroupID
	Table             catalog.TableID
	HashStart         uint64
	HashEnd           uint64
	SchemaVersion     uint32
	Cutoff            hlc.Timestamp
	LastWrite         hlc.Timestamp
	Inflight          int64
	InflightBytes     int64
	LockedPaths       int
	ParkedWrites      int
	Clients           int // whose requests are remembered
	RememberedWrites  int
	RememberedBytes   int64
	RunningRemembered int
}

// Status of this tablet.
func (t *Tablet) Status() Status {
	s := Status{
		ID: t.id, Table: t.table, HashStart: t.span.Start, HashEnd: t.span.End,
		SchemaVersion: t.schema.Load().Schema.Version,
		Cutoff:        t.cutoff.Load(), LastWrite: hlc.Timestamp(t.lastWrite.Load()),
		Inflight: t.inflight.Load(), InflightBytes: t.inflightBytes.Load(),
	}
	s.LockedPaths, s.ParkedWrites = t.locks.size()
	s.Clients, s.RememberedWrites, s.RunningRemembered, s.RememberedBytes = t.requests.Load().counts()
	return s
}
