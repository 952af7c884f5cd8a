package logs

import (
	"hash/crc32"

	"github.com/braiddb/braid/internal/wire"
)

// Flags of a stored record.
const (
	FlagHole              uint32 = 1 << iota // nothing was, or ever will be, acknowledged here
	FlagBridge                               // the epoch ends here
	FlagWrittenByRecovery                    // wave is the epoch that recovery sealed with
	FlagEpochBegin
	FlagBatch       // the payload is a batch of this package's format
	FlagSticky      // the copyset is that of a block
	FlagProvisional // reserved: of a transaction that is not decided
	FlagProducer    // the producer gave its own id and sequence: remembered beyond sessions
	FlagMetadata    // the payload is a wire.EpochMetadata
	FlagStream      // acknowledged only with all before it in its epoch; recovery keeps it behind no hole
	FlagKept        // of a stream: a recovery that could not tell what is before it kept it
)

// planShift is where flags say, of a copy that recovery wrote, by which of its plans: of
// two of one recovery that name different copysets the later one counts.
const planShift = 24

// WithPlan gives flags a plan instead of the one they have. The last that fits stands for
// all behind it.
func WithPlan(flags, plan uint32) uint32 {
	return flags&(1<<planShift-1) | min(plan, 1<<(32-planShift)-1)<<planShift
}

// PlanOf is the plan in a copy's flags.
func PlanOf(flags uint32) uint32 { return flags >> planShift }

// Flags of an append.
const (
	AppendNoRedirect            uint32 = 1 << iota
	AppendReactivateIfPreempted        // with NoRedirect: the preemptor is dead
	AppendRetry                        // an earlier attempt's outcome is unknown
	AppendConditional                  // only if the log's tail is expect_tail
	AppendBatch                        // the payload is a batch
	AppendProducer                     // the sequence is the caller's own: contiguous, remembered
	AppendProbe                        // no payload: would it be taken?
	AppendStream                       // in the log behind all that its producer began before, whatever fails
)

// Flags of SequencerState.
const (
	StateNoRedirect uint32 = 1 << iota
	StateCheckSeal         // be sure that nobody newer reigns
	StateMetadata          // give the metadata of all epochs
	StateNoActivate
	StateReactivateIfPreempted // as AppendReactivateIfPreempted
	StateEndSeen               // seen_epoch is to be over: a later one reigns
)

// Flags of a read stream.
const (
	ReadSingleCopy uint32 = 1 << iota // a record is sent by the first shard of its copyset that is not filtered out
	ReadNoPayload
	ReadDigest
)

// What a storage node says of LSNs for which it has no record to give.
const (
	ServerGapNone uint32 = iota
	ServerGapTrim
	ServerGapNoRecords
	ServerGapChecksum
	ServerGapFilteredOut
	ServerGapUnderReplicated
)

// Kinds of server-side filters.
const (
	FilterNone uint32 = iota
	FilterEquality
	FilterRange
)

// GapType says why a reader gets no record for a range of LSNs.
type GapType uint8

// The gap types, with the ancestor's numbers.
const (
	GapUnknown GapType = iota
	GapBridge
	GapHole
	GapDataLoss
	GapTrim
	GapAccess
	GapNotInConfig
	GapFilteredOut
)

// String names the type as users see it.
func (g GapType) String() string {
	names := [...]string{"UNKNOWN", "BRIDGE", "HOLE", "DATALOSS", "TRIM", "ACCESS", "NOTINCONFIG", "FILTERED_OUT"}
	if int(g) < len(names) {
		return names[g]
	}
	return "UNKNOWN"
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checksum is what protects a payload from the client to the disk and back.
func Checksum(payload []byte) uint32 { return crc32.Checksum(payload, castagnoli) }

// Precedence orders copies of one LSN: what recovery wrote, then a later seal,
// then a later wave, wins.
func Precedence(r *wire.LogRecord) uint64 { return PrecedenceOf(r.Flags, r.Wave) }

// PrecedenceOf is Precedence of a copy's flags and wave.
func PrecedenceOf(flags, wave uint32) uint64 {
	p := uint64(wave)
	if flags&FlagWrittenByRecovery != 0 {
		p |= 1 << 32
	}
	return p
}
