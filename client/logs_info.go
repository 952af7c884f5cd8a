package client

import (
	"context"

	"github.com/braiddb/braid/internal/logs"
)

// The ends of a log.
const (
	// LSNOldest is below or at every record's.
	LSNOldest = logs.LSNOldest
	// LSNMax is above every record's.
	LSNMax = logs.LSNMax
)

// ParseLSN reads an LSN as it is printed: e5n8, or oldest, max, or a number.
func ParseLSN(s string) (LSN, error) { return logs.ParseLSN(s) }

// SequencerInfo is what the sequencer of a log says of itself.
type SequencerInfo struct {
	State         string
	Epoch         uint32
	Next          LSN // the next record's
	Released      LSN // up to which readers are served
	LastKnownGood LSN // of the epoch: everything up to it is fully stored
	InFlight      int // records of the window
	BytesInFlight uint64
	Recovering    bool // earlier epochs are being made clean
	TrimPoint     LSN
	Epochs        []LogEpochs // how the log's epochs are stored, from the first
}

// Sequencer asks the log's sequencer about itself. A log that has none gets one.
func (l *Log) Sequencer(ctx context.Context) (SequencerInfo, error) {
	r, err := l.sequencer(ctx, logs.StateMetadata, 0)
	if err != nil {
		return SequencerInfo{}, err
	}
	info := SequencerInfo{
		State: r.State, Epoch: r.Epoch, Next: LSN(r.Next), Released: LSN(r.LastReleased),
		LastKnownGood: logs.MakeLSN(logs.Epoch(r.Epoch), logs.ESN(r.LastKnownGood)),
		InFlight:      int(r.InFlight), BytesInFlight: r.BytesInFlight, Recovering: r.Recovering, TrimPoint: LSN(r.TrimPoint),
	}
	for _, m := range r.Metadata {
		info.Epochs = append(info.Epochs, epochsOf(m))
	}
	return info, nil
}
