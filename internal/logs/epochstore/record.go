package epochstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/logs/sequencer"
	"github.com/braiddb/braid/internal/wire"
)

// How a request ends otherwise than well. ErrConflict is sequencer.ErrConflict.
var (
	// ErrGoesBack: the record would lower an epoch (E2). Nothing was written.
	ErrGoesBack = errors.New("epoch store: an epoch would go back")
	// ErrDamaged: what is stored is not a record of this log (E4).
	ErrDamaged = errors.New("epoch store: damaged record")
	// ErrNewer: what is stored was written by a later release.
	ErrNewer = errors.New("epoch store: written by a newer release")
	// ErrUnknown: it could not be found out whether the record was written.
	ErrUnknown = errors.New("epoch store: unknown outcome")
	// ErrOverloaded: too many requests wait. Nothing was written.
	ErrOverloaded = errors.New("epoch store: too many requests wait")
	// ErrClosed: the store was closed.
	ErrClosed = errors.New("epoch store: closed")
	// ErrOtherCluster: the store is that of another cluster.
	ErrOtherCluster = errors.New("epoch store: belongs to another cluster")
	// ErrInvalid: the request makes no sense.
	ErrInvalid = errors.New("epoch store: invalid record")
)

// format is the version of the encoding.
const format = 1

const (
	headerBytes = 5       // format, checksum
	recordMax   = 1 << 20 // what ZooKeeper takes; a nodeset of 127 shards needs a hundredth of it
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(log logs.LogID, body []byte) uint32 {
	var id [8]byte
	binary.LittleEndian.PutUint64(id[:], uint64(log))
	return crc32.Update(crc32.Checksum(id[:], castagnoli), castagnoli, body)
}

// encode makes the bytes of a record.
func encode(r *wire.EpochRecord) ([]byte, error) {
	body, err := r.MarshalVT()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if len(body) > recordMax-headerBytes {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrInvalid, len(body), recordMax-headerBytes)
	}
	out := make([]byte, headerBytes, headerBytes+len(body))
	out[0] = format
	binary.LittleEndian.PutUint32(out[1:], checksum(logs.LogID(r.Log), body))
	return append(out, body...), nil
}

// decode reads the record of a log.
func decode(log logs.LogID, data []byte) (*wire.EpochRecord, error) {
	switch {
	case len(data) < headerBytes || len(data) > recordMax:
		return nil, fmt.Errorf("%w: log %d: %d bytes", ErrDamaged, log, len(data))
	case data[0] > format:
		return nil, fmt.Errorf("%w: log %d: format %d, this release reads up to %d", ErrNewer, log, data[0], format)
	case data[0] != format || binary.LittleEndian.Uint32(data[1:]) != checksum(log, data[headerBytes:]):
		return nil, fmt.Errorf("%w: log %d: checksum", ErrDamaged, log)
	}
	r := new(wire.EpochRecord)
	if err := r.UnmarshalVT(data[headerBytes:]); err != nil {
		return nil, fmt.Errorf("%w: log %d: %v", ErrDamaged, log, err)
	}
	if r.Log != uint64(log) || r.Version == 0 {
		return nil, fmt.Errorf("%w: log %d: record %d of log %d", ErrDamaged, log, r.Version, r.Log)
	}
	return r, nil
}

// checkRequest says what is wrong with a compare-and-set that can be seen without
// reading.
func checkRequest(log logs.LogID, expect uint64, next *wire.EpochRecord) error {
	switch {
	case !log.Valid():
		return fmt.Errorf("%w: %d is not a data log", ErrInvalid, log)
	case next.GetLog() != uint64(log):
		return fmt.Errorf("%w: a record of log %d for log %d", ErrInvalid, next.GetLog(), log)
	case next.Version != expect+1 || next.Version > 1<<62:
		return fmt.Errorf("%w: log %d: version %d after %d", ErrInvalid, log, next.Version, expect)
	}
	return nil
}

// goesBack is E2 for what is stored and what is to replace it.
func goesBack(was, next *wire.EpochRecord) error {
	if a, b := was.GetMetadata().GetEpoch(), next.GetMetadata().GetEpoch(); b < a {
		return fmt.Errorf("%w: log %d: next epoch %d after %d", ErrGoesBack, next.Log, b, a)
	}
	if a, b := was.GetLastCleanEpoch(), next.GetLastCleanEpoch(); b < a {
		return fmt.Errorf("%w: log %d: last clean epoch %d after %d", ErrGoesBack, next.Log, b, a)
	}
	return nil
}

// outcome says what became of a compare-and-set whose answer was lost, or was
// that another version is there, from what is stored now. cause is that answer.
func outcome(stored, next *wire.EpochRecord, cause error) error {
	switch {
	case stored.GetVersion() == next.Version && stored.WriterNonce == next.WriterNonce &&
		stored.WriterNode == next.WriterNode && stored.WriterIncarnation == next.WriterIncarnation:
		return nil
	case stored.GetVersion() >= next.Version:
		// If it is higher, ours may have been one of those in between: whoever holds
		// the later one knows, and it is as lost to this caller as if it had not been.
		return fmt.Errorf("log %d: version %d, expected %d: %w", next.Log, stored.GetVersion(), next.Version-1, sequencer.ErrConflict)
	case cause == nil || errors.Is(cause, sequencer.ErrConflict):
		if stored.GetVersion() < next.Version-1 {
			return fmt.Errorf("log %d: version %d, expected %d: %w", next.Log, stored.GetVersion(), next.Version-1, sequencer.ErrConflict)
		}
		if err := goesBack(stored, next); err != nil {
			return err
		}
		return fmt.Errorf("%w: log %d: version %d is there now, and was not a moment ago", ErrUnknown, next.Log, stored.GetVersion())
	}
	return fmt.Errorf("%w: log %d: version %d is not there yet: %w", ErrUnknown, next.Log, next.Version, cause)
}
