package logs

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/braiddb/braid/internal/catalog"
)

// LSN is the sequence number of a record in its log: the epoch in the upper 32
// bits, the place in the epoch (ESN) in the lower.
type LSN uint64

// Epoch is one reign of a sequencer; ESN counts within it.
type (
	Epoch uint32
	ESN   uint32
)

// The bounds of sequence numbers.
const (
	LSNInvalid LSN = 0
	LSNOldest  LSN = 1
	LSNMax     LSN = 1<<64 - 1

	EpochMin Epoch = 1
	EpochMax Epoch = 1<<32 - 2

	ESNMin ESN = 1
	// ESNMax is never a record's: a window issues up to ESNMax-1.
	ESNMax ESN = 1<<32 - 1
)

// MakeLSN puts an epoch and a place in it together.
func MakeLSN(e Epoch, n ESN) LSN { return LSN(e)<<32 | LSN(n) }

// Epoch is the upper half.
func (l LSN) Epoch() Epoch { return Epoch(l >> 32) }

// ESN is the lower half.
func (l LSN) ESN() ESN { return ESN(l) }

// String prints e5n8.
func (l LSN) String() string {
	switch l {
	case LSNInvalid:
		return "invalid"
	case LSNMax:
		return "max"
	}
	return fmt.Sprintf("e%dn%d", l.Epoch(), l.ESN())
}

// ParseLSN reads what String prints, "oldest", "max" or a plain number.
func ParseLSN(s string) (LSN, error) {
	switch s {
	case "oldest":
		return LSNOldest, nil
	case "max":
		return LSNMax, nil
	}
	if rest, ok := strings.CutPrefix(s, "e"); ok {
		if e, n, ok := strings.Cut(rest, "n"); ok {
			epoch, err1 := strconv.ParseUint(e, 10, 32)
			esn, err2 := strconv.ParseUint(n, 10, 32)
			if err1 == nil && err2 == nil {
				return MakeLSN(Epoch(epoch), ESN(esn)), nil
			}
		}
	} else if v, err := strconv.ParseUint(s, 10, 64); err == nil {
		return LSN(v), nil
	}
	return 0, fmt.Errorf("%q is not an LSN: write e5n8, oldest, max, or a number", s)
}

// LogID names a log.
type LogID uint64

// LogIDMax is the highest id of a data log.
const LogIDMax LogID = 1<<62 - 1000

const metadataBit LogID = 1 << 63

// MetadataLog is the log that holds what a data log's epochs are replicated by.
func (l LogID) MetadataLog() LogID { return l | metadataBit }

// IsMetadata says whether it is a metadata log.
func (l LogID) IsMetadata() bool { return l&metadataBit != 0 }

// DataLog is the data log of a metadata log, and a data log itself.
func (l LogID) DataLog() LogID { return l &^ metadataBit }

// Valid says whether it can name a data log.
func (l LogID) Valid() bool { return l >= 1 && l <= LogIDMax }

// ShardID names one storage directory of a node.
type ShardID uint64

// MakeShard names a node's storage directory.
func MakeShard(n catalog.NodeID, index uint8) ShardID { return ShardID(n)<<8 | ShardID(index) }

// Node is the node that the shard belongs to.
func (s ShardID) Node() catalog.NodeID { return catalog.NodeID(s >> 8) }

// Index is the storage directory on that node.
func (s ShardID) Index() uint8 { return uint8(s) }

// String prints N3:S0.
func (s ShardID) String() string { return fmt.Sprintf("N%d:S%d", s.Node(), s.Index()) }

// CopysetMax and NodesetMax bound copysets and nodesets.
const (
	CopysetMax = 127
	NodesetMax = 127
)
