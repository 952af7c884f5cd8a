package sequencer

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// ErrConflict is how an EpochStore says that a compare-and-set found another
// version. Any other error leaves the outcome open: the record is read again and
// its writer's nonce compared.
var ErrConflict = errors.New("sequencer: the epoch store holds another version")

// EpochStore keeps one record per log, durably, and never goes back. A done
// function may be called before the method returns, from any goroutine, once.
type EpochStore interface {
	// Read gives nil for a log that is not provisioned.
	Read(log logs.LogID, done func(*wire.EpochRecord, error))
	// CompareAndSet replaces the record of version expect; 0: there is none yet.
	CompareAndSet(log logs.LogID, expect uint64, next *wire.EpochRecord, done func(error))
}

// Stores carries messages to storage nodes, the local one included. No method
// blocks. Messages are not changed once sent.
type Stores interface {
	SendStores(node catalog.NodeID, b *wire.LogBatch)
	CheckSeal(shard logs.ShardID, req *wire.CheckSealRequest, done func(*wire.CheckSealResponse, error))
	ProducerLookup(shard logs.ShardID, req *wire.ProducerLookupRequest, done func(*wire.ProducerLookupResponse, error))
	ReadMetadata(shard logs.ShardID, req *wire.ReadMetadataRequest, done func(*wire.ReadMetadataResponse, error))
}

// RecoverArgs says what is to be recovered.
type RecoverArgs struct {
	Log      logs.LogID
	UpTo     logs.Epoch // Own - 1
	Own      logs.Epoch
	Metadata []*wire.EpochMetadata // what is known, by effective_since; the rest is in the metadata log
	Record   *wire.EpochRecord     // as the activation left it
}

// RecoveryResult is what came of it. Any status but OK and PREEMPTED is tried
// again.
type RecoveryResult struct {
	Status      wire.LogStatus
	Record      *wire.EpochRecord // as recovery left it
	Tail        *wire.TailRecord  // of all earlier epochs; nil or LSN 0: they hold no record
	CountBase   uint64            // payloads in all earlier epochs
	PreemptedBy catalog.NodeID
	SealEpoch   logs.Epoch // PREEMPTED: the seal that stands against it, 0 if not told
	Message     string
}

// Recoverer makes earlier epochs clean.
type Recoverer interface {
	Recover(args RecoverArgs, done func(RecoveryResult, error)) (cancel func())
}

// Deps is the world of a Host.
type Deps struct {
	Self        catalog.NodeID
	Incarnation uint64
	Mono        func() time.Duration
	WallMs      func() int64
	AfterFunc   func(d time.Duration, f func()) (stop func() bool)
	Rand        *rand.Rand
	Logger      *slog.Logger
	EpochStore  EpochStore
	Stores      Stores
	Recoverer   Recoverer
	// Cluster is the present view; never nil.
	Cluster func() *logs.Cluster
	// Attributes are a log's, resolved: nothing is absent that has a default. The
	// same pointer is given while nothing changed.
	Attributes func(logs.LogID) (*catalog.LogAttributes, bool)
	// Fatal ends the process: memory is corrupt.
	Fatal func(error)
	// Tasks, where set, takes the place of the host's goroutines: what would run on
	// one of its own is handed over as a function, to be run once, after the caller
	// has returned, by whoever makes every call of this host. Then no call may wait:
	// Drain and Close are for hosts with goroutines. The simulation drives a host so.
	Tasks func(f func())
}

// Config holds the constants; zero values mean the defaults.
type Config struct {
	Loops int // default GOMAXPROCS/2, 1 to 8

	// StoreTimeout is the least a first wave waits for its STOREDs; it doubles
	// with each wave up to StoreTimeoutMax. Default 100 ms, 1 min.
	StoreTimeout    time.Duration
	StoreTimeoutMax time.Duration
	// AppendWait is how long an append waits, for a copyset or for its copies,
	// before its client is told; what has an LSN is pursued beyond. Default 15 s.
	AppendWait time.Duration
	// MissingWait is AppendWait where it is only copies that an append waits for: its
	// client can be told which nodes keep it waiting. To be heard it has to be shorter
	// than the client waits for an answer (client.Options.Attempt). Default AppendWait.
	MissingWait time.Duration

	GraylistFor   time.Duration // a silent shard: default 600 s
	OverloadedFor time.Duration // DROPPED, OVERLOADED: default 1 s
	NoSpaceFor    time.Duration // NO_SPACE: default 60 s
	UnroutableFor time.Duration // SHUTDOWN, NOT_STORAGE, FAILED ...: default 60 s
	DisabledFor   time.Duration // DISABLED: default 30 s
	ProbeTimeout  time.Duration // a probe's answer: default 1 s

	StickyBytes int64         // of a block of one copyset: default 32 MiB
	StickyFor   time.Duration // default 10 min

	BufferMax     int   // appends that wait in a log: default 10,000
	AppenderBytes int64 // of all appends on the node: default 600 MB; beyond, none is taken
	// AppenderBytesSoft is where appends may no longer wait, for an epoch, a copyset
	// or a lookup. Default 5/6 of AppenderBytes.
	AppenderBytesSoft int64
	HeldMax           int           // appends held behind a lookup, per producer: default 1,000
	RememberedMax     int           // explicit producers: sequences kept with their LSNs, at least: default 8
	SessionIdleFor    time.Duration // until a silent producer is forgotten: default 2 min
	SessionsMax       int           // producers remembered in a log: default 100,000

	ReactivationLimit int           // per log and second: default 5
	ActivationsMax    int           // at a time, per loop: default 256
	SealCheckFor      time.Duration // activation waits for nodes' seals: default 100 ms
	RetryMin          time.Duration // epoch store: default 100 ms, doubling to RetryMax
	RetryMax          time.Duration // default 5 s
	RecoveryRetry     time.Duration // default 1 s
	FailedFor         time.Duration // before a regressed epoch store is read again: default 10 s
	DrainTimeout      time.Duration // of the old epoch: default 2 s
	NoRedirectFor     time.Duration // after activation: default 5 s
	NodesetDelayMin   time.Duration // from a change of the cluster to a new nodeset: default 5 s
	NodesetDelayMax   time.Duration // default 60 s
	IsolatedFor       time.Duration // until an isolated node's sequencers are dropped: default 1200 s

	ReleaseQuiet    time.Duration // all are told once a log was quiet so long: default 50 ms
	ReleaseRepeat   time.Duration // to who does not confirm it; doubling up to ReleaseLaggards. Default 1 s
	ReleaseLaggards time.Duration // default 20 s
	ReleaseAll      time.Duration // default 300 s

	// ESNMax is the last ESN that is given out: logs.ESNMax-1, less in tests.
	ESNMax logs.ESN
	// InlineMax is how many records may be in flight in a loop for callers to step
	// it themselves; beyond, events gather for its goroutine. Default 4.
	InlineMax int
}

func (c Config) withDefaults() Config {
	dur := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	dur(&c.StoreTimeout, 100*time.Millisecond)
	dur(&c.StoreTimeoutMax, time.Minute)
	dur(&c.AppendWait, 15*time.Second)
	dur(&c.MissingWait, c.AppendWait)
	dur(&c.GraylistFor, 600*time.Second)
	dur(&c.OverloadedFor, time.Second)
	dur(&c.NoSpaceFor, time.Minute)
	dur(&c.UnroutableFor, time.Minute)
	dur(&c.DisabledFor, 30*time.Second)
	dur(&c.ProbeTimeout, time.Second)
	dur(&c.StickyFor, 10*time.Minute)
	dur(&c.SessionIdleFor, 2*time.Minute)
	dur(&c.SealCheckFor, 100*time.Millisecond)
	dur(&c.RetryMin, 100*time.Millisecond)
	dur(&c.RetryMax, 5*time.Second)
	dur(&c.RecoveryRetry, time.Second)
	dur(&c.FailedFor, 10*time.Second)
	dur(&c.DrainTimeout, 2*time.Second)
	dur(&c.NoRedirectFor, 5*time.Second)
	dur(&c.NodesetDelayMin, 5*time.Second)
	dur(&c.NodesetDelayMax, 60*time.Second)
	dur(&c.IsolatedFor, 1200*time.Second)
	dur(&c.ReleaseQuiet, 50*time.Millisecond)
	dur(&c.ReleaseRepeat, time.Second)
	dur(&c.ReleaseLaggards, 20*time.Second)
	dur(&c.ReleaseAll, 300*time.Second)
	count := func(n *int, v int) {
		if *n == 0 {
			*n = v
		}
	}
	count(&c.BufferMax, 10_000)
	count(&c.HeldMax, 1_000)
	count(&c.RememberedMax, 8)
	count(&c.SessionsMax, 100_000)
	count(&c.ReactivationLimit, 5)
	count(&c.ActivationsMax, 256)
	count(&c.InlineMax, 4)
	if c.StickyBytes == 0 {
		c.StickyBytes = 32 << 20
	}
	if c.AppenderBytes == 0 {
		c.AppenderBytes = 600 << 20
	}
	if c.AppenderBytesSoft == 0 {
		c.AppenderBytesSoft = c.AppenderBytes - c.AppenderBytes/6
	}
	if c.ESNMax == 0 {
		c.ESNMax = logs.ESNMax - 1
	}
	return c
}

// State is that of a log's sequencer on this node.
type State uint8

// The states.
const (
	StateUnavailable State = iota
	StateActivating
	StateActive
	StatePreempted
	StateFailed
)

// String names the state as tables show it.
func (s State) String() string {
	switch s {
	case StateActivating:
		return "ACTIVATING"
	case StateActive:
		return "ACTIVE"
	case StatePreempted:
		return "PREEMPTED"
	case StateFailed:
		return "PERMANENT_ERROR"
	}
	return "UNAVAILABLE"
}

// cause says why an epoch is bumped.
type cause uint8

const (
	causeNew         cause = iota // a log's first epoch, or its first on this node
	causeReplication              // the replication property changed
	causeNodeset                  // the nodeset changed
	causePreempted                // and nobody else reigns
	causeSeenEpoch                // a client has seen a later one
	causeESNs                     // the epoch is used up
	causeCorrupt                  // a record had to be given up
	causeDoubt                    // a shard may have lost copies of it, and can be compared only once it is over
)

// String names the cause.
func (c cause) String() string {
	return [...]string{"new", "replication", "nodeset", "preempted", "seen epoch", "ESNs exhausted", "record given up", "copies in doubt"}[c]
}

// Notice is a moment worth telling an operator of.
type Notice struct {
	What    string
	Log     logs.LogID
	Epoch   logs.Epoch
	Node    catalog.NodeID
	Message string
	Grave   bool
}
