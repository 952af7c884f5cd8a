package multiraft

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/journal"
	"github.com/braiddb/braid/internal/wire"
)

// StateMachine is what a group replicates. Its methods are called from the
// group's apply worker only, never two at a time for one group.
type StateMachine interface {
	// Apply takes committed entries in order. The entries' effects and the
	// AppliedState of the last one become durable together. The slices are
	// borrowed for the call; the bytes of a write never change.
	Apply(ents []Entry) error
	// Snapshot is a consistent view including its AppliedState. It may be read
	// while later entries are applied, and from another goroutine.
	Snapshot() (SnapshotReader, error)
	// Restore replaces everything of the group by the snapshot, or nothing if it
	// fails. It is durable when it returns.
	Restore(meta AppliedState, r io.Reader) error
	// Destroy removes everything of the group.
	Destroy() error
}

// SnapshotReader is a consistent view of a state machine.
type SnapshotReader interface {
	State() AppliedState
	io.Reader
	io.Closer
}

// AppliedState says how far a state machine has come.
type AppliedState struct {
	Index, Term uint64
	HybridTime  hlc.Timestamp
	Conf        []byte // EncodeConf of the configuration at Index; nil while it is the one the group was created with
}

// EntryKind says what an entry is.
type EntryKind uint8

const (
	// KindNoop is a leader's first entry. It carries no hybrid time of its own.
	KindNoop EntryKind = 0
	// KindWrites carries the writes that waited together.
	KindWrites EntryKind = 1
	// KindConf is a change of configuration.
	KindConf EntryKind = 2
	// KindProvisional, KindLogAppend, KindSplit and KindSystem are reserved:
	// records of transactions, log appends inside an entry, tablet splits and
	// whatever the house itself replicates.
	KindProvisional EntryKind = 3
	KindLogAppend   EntryKind = 4
	KindSplit       EntryKind = 5
	KindSystem      EntryKind = 6
)

// ProposalID names one write within the group's log.
type ProposalID uint64

// Entry is one committed entry.
type Entry struct {
	Index, Term uint64
	Kind        EntryKind
	HybridTime  hlc.Timestamp // above that of every entry before; a noop repeats its predecessor's
	Flags       uint16
	Writes      []EntryWrite
	Conf        []byte // KindConf: the new configuration, to be kept in AppliedState
}

// EntryWrite is one write of an entry; its place in Entry.Writes is its write id.
type EntryWrite struct {
	Proposal ProposalID
	Data     []byte
	Local    *Proposal // non-nil where this process proposed it and still waits
}

// Proposal is one write on its way. The caller fills Data and Done and leaves
// it alone until Done is called.
type Proposal struct {
	Data []byte               // opaque; lacks the hybrid time
	Done func(ProposalResult) // called once, maybe inside Propose; must not block
	// Wait, unless 0, is how long it is worth proposing: a write that is not in the
	// log by then is dropped with ErrExpired.
	Wait time.Duration

	group   *Group
	id      ProposalID
	expires time.Duration // 0: never
}

// ProposalResult is what became of a proposal.
type ProposalResult struct {
	HybridTime hlc.Timestamp
	Index      uint64
	Copies     uint32 // replicas known to hold it durably when it was applied
	Err        error  // nil: applied here
}

// What a proposal or a read may be refused with. All but ErrUnknownOutcome
// mean that nothing has happened nor will.
var (
	ErrNotReady       = errors.New("the leader cannot serve yet")
	ErrOverloaded     = errors.New("too many bytes wait to be replicated")
	ErrExpired        = errors.New("nobody waits for the write any more: it was not proposed")
	ErrDiskFull       = errors.New("the journal is full: it waits for the LSM, or for space on its disk")
	ErrClockOutlier   = errors.New("this node's clock disagrees with a majority of its peers")
	ErrUnknownOutcome = errors.New("leadership was lost while the write was in the log: it may or may not take effect")
	ErrStopped        = errors.New("the group is not served by this node any more")
	ErrTooLarge       = errors.New("the write exceeds what one message between nodes may hold")
	ErrGroupExists    = errors.New("the group already has a replica here")
	ErrChangePending  = errors.New("another change of configuration is under way")
	ErrBadChange      = errors.New("the change does not fit the configuration")
)

// NotLeaderError says who leads instead, as far as this node knows.
type NotLeaderError struct {
	Node catalog.NodeID // 0: unknown
}

// ErrNotLeader matches every *NotLeaderError with errors.Is.
var ErrNotLeader = errors.New("this replica does not lead the group")

func (e *NotLeaderError) Error() string {
	if e.Node == 0 {
		return "this replica does not lead the group, and knows no leader"
	}
	return fmt.Sprintf("this replica does not lead the group, node %d does", e.Node)
}

// Is makes every *NotLeaderError an ErrNotLeader.
func (e *NotLeaderError) Is(target error) bool { return target == ErrNotLeader }

// Role is a replica's part in its group.
type Role uint8

const (
	RoleFollower Role = iota
	RoleCandidate
	RoleLeader
	RoleLearner
)

func (r Role) String() string {
	return [...]string{"follower", "candidate", "leader", "learner"}[r]
}

// Status is what is known of a replica.
type Status struct {
	ID             catalog.GroupID
	Replica        catalog.ReplicaID
	Leader         catalog.ReplicaID
	LeaderNode     catalog.NodeID
	Term           uint64
	Commit         uint64
	Applied        uint64
	Role           Role
	LeaseRemaining time.Duration
	Quiesced       bool // leader: every live follower has and knows everything
	Conf           []*catalog.Replica
	Pending        [][]*catalog.Replica // configurations in the log that are not applied yet, oldest first
	Progress       []Progress           // leader: of the others, at most one beat old
	Suspect        bool                 // the journal's tail is in doubt: peers have not been asked, or know of more than is here
	Corrupt        bool                 // the journal's stream is damaged: replace this replica
	Removed        bool                 // the group's configuration has this replica no more
}

// Progress is a leader's view of another replica.
type Progress struct {
	Replica  catalog.ReplicaID
	Node     catalog.NodeID
	Match    uint64 // durable there up to here
	State    string // probe, replicate, snapshot
	Learner  bool
	Silent   bool // its node has not renewed its promise
	CaughtUp bool
}

// ChangeKind is a step of a membership change.
type ChangeKind uint8

const (
	AddLearner ChangeKind = iota + 1
	Promote               // a learner that has caught up becomes a voter
	Remove                // asked of the leader to go, it hands over and answers ErrNotReady: ask its successor
)

// Change is one single-step change of a group's configuration.
type Change struct {
	Kind    ChangeKind
	Replica catalog.ReplicaID
	Node    catalog.NodeID // AddLearner
}

// GroupConfig describes one replica to Host.Create.
type GroupConfig struct {
	ID      catalog.GroupID
	Replica catalog.ReplicaID
	// Conf is the group's first configuration. It is used only with New; a
	// replica that joins a running group has none and learns it.
	Conf []*catalog.Replica
	New  bool // nothing of the group exists yet: write its beginning
	// Applied is what the state machine has durably. Its zero value means that
	// nothing but the group's beginning is there.
	Applied   AppliedState
	Recovered *journal.StreamReplay
	SM        StateMachine
}

// Journal is the node's journal as far as this room needs it.
type Journal interface {
	Append(recs []journal.Record, done func(error))
	SetLowWater(s journal.StreamID, pos uint64)
	Full() bool
}

// Transport carries what leaves this node. SendBatch and SendBeat are called
// from loops: they must not block, and may lose.
type Transport interface {
	SendBatch(to catalog.NodeID, b *wire.RaftBatch)
	SendBeat(to catalog.NodeID, b *wire.Beat)
	// TailQuery calls done once, from any goroutine.
	TailQuery(to catalog.NodeID, q *wire.TailQuery, done func(*wire.TailAnswer, error))
	// SendSnapshotChunk blocks until the peer has taken the chunk.
	SendSnapshotChunk(ctx context.Context, to catalog.NodeID, c *wire.SnapshotChunk) error
}

// Timer runs f once after d, on a goroutine of its own.
type Timer interface {
	AfterFunc(d time.Duration, f func()) (stop func() bool)
}

// Spool holds one incoming snapshot until it is complete.
type Spool interface {
	io.Writer
	// Reader reads what was written from its beginning; nothing is written
	// after. It may be called again.
	Reader() (io.Reader, error)
	// Close forgets the contents.
	Close() error
}

// Deps is everything a host needs of the world.
type Deps struct {
	Node        catalog.NodeID
	Incarnation uint64 // of this node's data directory; grows with every start
	Clock       *hlc.Clock
	Mono        func() time.Duration // monotonic time since some fixed point
	Timer       Timer
	Journal     Journal
	Transport   Transport
	Spool       func() (Spool, error) // nil: in memory
	Rand        *rand.Rand
	Logger      *slog.Logger
	Fatal       func(error)                              // called once; nothing is acknowledged after
	Removed     func(catalog.GroupID, catalog.ReplicaID) // optional, must not block: the configuration dropped this replica

	// Tasks, where set, takes the place of the host's goroutines: what would run
	// on one of its own is handed over as a function, to be run once, after the
	// caller has returned, by whoever makes every call of this host. Then no call
	// may wait: Remove and ChangeMembers have forms with a function, Drain and
	// Close are for hosts with goroutines. The simulation drives a host so.
	Tasks func(f func())
}

// Config are a host's settings. Zero values take the defaults in brackets.
type Config struct {
	Beat  time.Duration // [200ms] between beats to each peer node
	Lease time.Duration // [1s] promised per beat
	// PromisedBefore [Lease] is the longest lease that an earlier life of this
	// node may have promised: a voter that restarted waits that long (M6).
	PromisedBefore time.Duration
	ElectionDelay  time.Duration // [150ms] longest seeded delay before campaigning
	MaxSkew        time.Duration // [500ms] must equal the clock's
	StallMax       time.Duration // [1s] a journal append older than this moves leaders away
	SuspectGrace   time.Duration // [10s] wait for every peer's word on a suspect tail
	TransferMax    time.Duration // [5 beats] a hand-over that takes longer is given up

	Loops              int   // [1 per 2 processors, at most 8]
	EntryBytesMax      int   // [4 MiB] of writes that share an entry
	WriteBytesMax      int   // [what a message holds] of a single write, which may be an entry of its own
	MessageBytesMax    int   // [64 MiB] the largest message that Transport carries
	LogBytesMax        int64 // [16 MiB] kept in memory per group for slow followers
	LogBytesTotal      int64 // [128 MiB] over all groups
	ProposalBytesMax   int64 // [16 MiB] waiting per group
	ProposalBytesTotal int64 // [64 MiB] waiting on the node
	ApplyBytesMax      int64 // [16 MiB] handed to a group's state machine at once
	SnapshotsMax       int   // [2] streams leaving at once
	SnapshotChunk      int   // [1 MiB]
	SnapshotMemory     int   // [64 MiB] of an incoming snapshot without a Spool
	Suspect            bool  // the journal ended in a suspect tail (journal.Replay.Suspect)
}
