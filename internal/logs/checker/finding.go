package checker

import (
	"fmt"
	"strings"

	"github.com/braiddb/braid/internal/logs"
)

// Finding is what is wrong with an LSN; several can be.
type Finding uint16

const (
	// DataLoss: no whole copy is left.
	DataLoss Finding = 1 << iota
	// DifferentCopysetInLatestWave: copies of the wave that counts disagree on who has them.
	DifferentCopysetInLatestWave
	// CopysetWithoutSelf: a shard has a copy whose copyset does not name it.
	CopysetWithoutSelf
	// CopysetNotInNodeset: a copyset names a shard on which the epoch is not stored.
	CopysetNotInNodeset
	// SmallCopyset: a copyset names too few shards.
	SmallCopyset
	// BadReplication: the copies, of whatever wave, do not lie as the epoch demands.
	BadReplication
	// BadReplicationLastWave: those of the wave that counts do not.
	BadReplicationLastWave
	// HoleRecordConflict: it is a record on one shard and a hole on another.
	HoleRecordConflict
	// DuplicatesInCopyset: a copyset names a shard twice.
	DuplicatesInCopyset
	// DifferentPayload: copies of the wave that counts have different payloads.
	DifferentPayload

	findings = 10
)

var findingNames = [findings]string{
	"DATALOSS", "DIFFERENT_COPYSET_IN_LATEST_WAVE", "COPYSET_WITHOUT_SELF", "COPYSET_NOT_IN_NODESET", "SMALL_COPYSET",
	"BAD_REPLICATION", "BAD_REPLICATION_LAST_WAVE", "HOLE_RECORD_CONFLICT", "DUPLICATES_IN_COPYSET", "DIFFERENT_PAYLOAD",
}

// String names all findings, with a bar between them.
func (f Finding) String() string {
	var names []string
	for i, n := range findingNames {
		if f&(1<<i) != 0 {
			names = append(names, n)
		}
	}
	if len(names) == 0 {
		return "OK"
	}
	return strings.Join(names, "|")
}

// Problem is a range of LSNs with the same findings; but for DATALOSS it is one LSN.
type Problem struct {
	From, To logs.LSN
	Findings Finding
	Copies   string // who has what
}

func (p Problem) String() string {
	if p.From == p.To {
		return fmt.Sprintf("%s: %s: %s", p.From, p.Findings, p.Copies)
	}
	return fmt.Sprintf("%s to %s: %s", p.From, p.To, p.Findings)
}

// Report is the outcome of a check.
type Report struct {
	Log      logs.LogID
	From, To logs.LSN // what was asked for
	Trim     logs.LSN // what lies at or below it was not judged
	Records  uint64   // LSNs judged, holes and bridges included
	Copies   uint64   // seen on them
	Damaged  uint64   // copies that fail their checksum
	Silent   []logs.ShardID
	// Found counts LSNs by finding, in the order of the constants.
	Found [findings]uint64
	// Problems are the first ProblemsMax of them.
	Problems []Problem
}

// ProblemsMax bounds the problems that a report describes; all are counted.
const ProblemsMax = 1000

// Clean says that nothing was found and everybody was asked.
func (r *Report) Clean() bool { return r.Found == [findings]uint64{} && len(r.Silent) == 0 }

// Count is how many LSNs have one finding.
func (r *Report) Count(f Finding) uint64 {
	for i := range findings {
		if f == 1<<i {
			return r.Found[i]
		}
	}
	return 0
}
