package recovery

import (
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/placement"
	"github.com/braiddb/braid/internal/wire"
)

// Args says what is to be recovered.
type Args struct {
	Log      logs.LogID
	UpTo     logs.Epoch // the last epoch to recover: Own - 1
	Own      logs.Epoch // the reign on whose behalf; never used twice (C2)
	Metadata []*wire.EpochMetadata
	Record   *wire.EpochRecord // of the epoch store, as the activation left it
}

// Result is how it ended: OK, PREEMPTED, or FAILED where it cannot be begun.
type Result struct {
	Status      wire.LogStatus
	Record      *wire.EpochRecord // as last seen
	Tail        *wire.TailRecord  // of all earlier epochs; LSN 0: they hold no record
	CountBase   uint64            // payloads in all earlier epochs
	PreemptedBy catalog.NodeID
	SealEpoch   logs.Epoch // PREEMPTED: what stands against it
	Message     string
}

// View is what is believed of shards. It only guides: who is asked, who is
// waited for.
type View interface {
	// Alive says whether a call has a chance.
	Alive(logs.ShardID) bool
	// Writable says whether the shard takes copies.
	Writable(logs.ShardID) bool
	// Authority is ShardUnheard for a shard in order, ShardEmpty and
	// ShardUnavailable for one whose data is elsewhere, or lost for good.
	Authority(logs.ShardID) placement.ShardState
	// Shards lists all that store metadata logs, ascending.
	Shards() []logs.ShardID
}

// dice choose where equals are.
type dice interface{ IntN(n int) int }

type callKind uint8

const (
	callMetadata callKind = iota
	callSeal
	callDigest
	callStore
	callClean
	callRead // the epoch store
	callSwap
	callDecisions // purge: what did recovery decide?
	callDelete    // purge: of the own shard
	callMark      // purge: the epoch is clean here
	callFence     // comparison: what may the own shard have lost?
	callPurge     // it is to learn first what was decided
	callRecords   // what has another shard?
	callRepair    // the own shard takes what it lacks of that
	callSure      // and is sure of it
	callStates    // survey: which logs has another shard?
)

// call is a question, and what says which one it was.
type call struct {
	kind   callKind
	shard  logs.ShardID
	epoch  logs.Epoch
	esn    logs.ESN // stores: of the slot
	plan   uint32   // stores, cleans: number of the plan they belong to
	expect uint64   // swaps: version

	seal   *wire.SealRequest
	digest *wire.DigestRequest
	store  *wire.Store
	clean  *wire.CleanRequest
	next   *wire.EpochRecord // swaps

	decisions *wire.EpochRecoveryRequest
	from, to  logs.LSN            // deletes
	since     uint64              // fences: the newest doubt when the epoch store was asked
	found     logs.Compared       // sure
	mark      *wire.EpochRecovery // marks
	records   *wire.RecordsRequest
	repair    []*wire.LogRecord
	states    *wire.LogStateRequest
}

type eventKind uint8

const (
	evStart eventKind = iota
	evAnswer
	evView
	evTimer
)

// event is what happened: an answer to a call, or its failure, or that time passed.
type event struct {
	kind eventKind
	of   call // evAnswer: without its message
	err  error
	view View // evView

	metadata *wire.ReadMetadataResponse
	seal     *wire.SealResponse
	digest   *wire.DigestResponse
	stored   *wire.Stored
	clean    *wire.CleanResponse
	record   *wire.EpochRecord

	decisions *wire.EpochRecoveryResponse
	records   *wire.RecordsResponse
	states    *wire.LogStateResponse
	doubt     logs.Doubt // fences: what the own shard may have lost; comparisons' reads: the newest number before
}

// effects are what is to be done after a step.
type effects struct {
	calls  []call
	wake   time.Duration // when a timer event is wanted, 0: never
	result *Result       // the recovery is over
	done   bool          // the purge, the comparison or the survey is over
	fenced bool          // comparisons: the own shard knows what is in doubt
	logs   []logs.LogID  // surveys: that were found
}

// rules are those points of the protocol on which agreement hangs. Tests replace
// them to see that their absence is noticed.
type rules struct {
	quorum     func(*placement.ShardSet) placement.FMajority
	precedence func(*wire.LogRecord) uint64
	stored     func(target, done shardBits) bool
	digest     func(sealed bool) bool // who is asked for a digest
	bridge     func(last logs.ESN) logs.ESN
	heard      func(partial bool) placement.ShardState // what an answer counts for
	compared   func(silent int, alone bool) bool       // whether a doubt is over
	stream     func(flags uint32) bool                 // whether a record stands behind no hole
}

var honest = rules{
	quorum:     (*placement.ShardSet).FMajority,
	precedence: logs.Precedence,
	stored:     func(target, done shardBits) bool { return target.without(done).empty() },
	digest:     func(sealed bool) bool { return sealed },
	bridge:     func(last logs.ESN) logs.ESN { return last + 1 },
	heard: func(partial bool) placement.ShardState {
		if partial {
			return placement.ShardUnavailable
		}
		return placement.ShardHeard
	},
	compared: func(silent int, alone bool) bool { return !alone || silent == 0 },
	stream:   func(flags uint32) bool { return flags&(logs.FlagStream|logs.FlagKept) == logs.FlagStream },
}

// shardBits is a set of shards, by their place in a nodeset.
type shardBits [2]uint64

func (b shardBits) has(i int) bool { return b[i/64]>>(i%64)&1 == 1 }

func (b shardBits) with(i int) shardBits {
	b[i/64] |= 1 << (i % 64)
	return b
}

func (b shardBits) without(o shardBits) shardBits {
	return shardBits{b[0] &^ o[0], b[1] &^ o[1]}
}

func (b shardBits) or(o shardBits) shardBits { return shardBits{b[0] | o[0], b[1] | o[1]} }

func (b shardBits) and(o shardBits) shardBits { return shardBits{b[0] & o[0], b[1] & o[1]} }

func (b shardBits) empty() bool { return b[0]|b[1] == 0 }
