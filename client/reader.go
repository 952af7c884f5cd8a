package client

import (
	"context"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/logs/reader"
	"github.com/braiddb/braid/internal/wire"
)

// GapType says why there is no record at some LSNs.
type GapType = logs.GapType

// The types of gaps.
const (
	// GapBridge: the epoch ended, the next one follows.
	GapBridge = logs.GapBridge
	// GapHole: an append that was never acknowledged, and is not there.
	GapHole = logs.GapHole
	// GapDataLoss: records that were there, and can not be read any more.
	GapDataLoss = logs.GapDataLoss
	// GapTrim: trimmed.
	GapTrim = logs.GapTrim
	// GapAccess: they may not be read. It reaches to the end.
	GapAccess = logs.GapAccess
	// GapNotInConfig: there is no such log any more. It reaches to the end.
	GapNotInConfig = logs.GapNotInConfig
	// GapFilteredOut: records that the filter leaves out.
	GapFilteredOut = logs.GapFilteredOut
)

// Record is one payload of a log.
type Record struct {
	LSN         LSN
	BatchOffset int // its place among the payloads with the same LSN
	Timestamp   time.Time
	Payload     []byte // not to be changed: it may share memory with its neighbours
	// Offset is how many payloads the log had before it, if that is known. It never
	// repeats or goes back; where an append came to nothing it leaves a number out.
	Offset      uint64
	OffsetKnown bool
	// Count is how many payloads the record stands for: 1, but for a batch that is
	// read without payloads.
	Count int
}

// Gap is a range of LSNs without records.
type Gap struct {
	Type     GapType
	From, To LSN // inclusive
}

func (g Gap) String() string { return fmt.Sprintf("%s [%s, %s]", g.Type, g.From, g.To) }

// Entry is what a reader gives: a record, or a gap.
type Entry struct {
	Record Record
	Gap    Gap
}

// IsGap says that it is a gap.
func (e Entry) IsGap() bool { return e.Gap.Type != logs.GapUnknown }

// Filter has shards send only records whose filter key is Key, or lies in [Key, To]
// where To is given. Others come as gaps.
type Filter struct{ Key, To []byte }

// ReaderOptions say what is read. The zero value reads all there is and all that comes.
type ReaderOptions struct {
	// From is the first LSN to be read; zero is the oldest.
	From LSN
	// FromTime, if given, takes the place of From: reading begins with the first record
	// at or after it (FindTime).
	FromTime time.Time
	// FromTail, if set, takes the place of From: reading begins after the last record
	// that was appended before the first Next.
	FromTail bool
	// Until is the last LSN to be read, inclusive; zero is none: reading never ends.
	Until LSN
	// After skips the payloads of the record at From up to this batch offset, inclusive.
	// Nil skips none.
	After *int

	Filter         *Filter
	WithoutPayload bool
	// SingleCopy overrides the log's attribute of that name.
	SingleCopy *bool
	// AllShards tells a gap only when every shard that can answer has.
	AllShards bool

	// Window is how many LSNs shards may send ahead of what Next has given. Default 4096.
	Window int
	// BufferBytes bounds what is held for Next. Default 4 MiB.
	BufferBytes int
}

// Next gives the next record or gap, in the order of (LSN, batch offset), each once.
// It waits for one as long as the context lasts. io.EOF says that Until was reached.
// If the context ends while the reader cannot go on, because shards that may hold the
// next record do not answer, the error says which (ErrTimeout; see Health). One
// goroutine at a time may call it.
func (r *Reader) Next(ctx context.Context) (Entry, error) {
	if err := r.begin(ctx); err != nil {
		return Entry{}, err
	}
	for {
		e, ok, err := r.poll()
		if ok || err != nil {
			return e, err
		}
		r.taken()
		if r.ready() {
			continue
		}
		select {
		case <-r.woken:
		case <-ctx.Done():
			return Entry{}, r.gaveUp(ctx.Err())
		case <-r.log.client.ctx.Done():
			return Entry{}, newError(wire.Code_CODE_CANCELED, ErrClosed, "%v", ErrClosed)
		}
	}
}

// All gives entries until the context or the range ends; an error ends it.
func (r *Reader) All(ctx context.Context) iter.Seq2[Entry, error] { return all(ctx, r.Next) }

func all(ctx context.Context, next func(context.Context) (Entry, error)) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for {
			e, err := next(ctx)
			if err == io.EOF {
				return
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// Close ends the reader. What was not given by Next is dropped.
func (r *Reader) Close() { r.close() }

// ReaderHealth says whether a reader can go on, and which nodes keep it from doing so.
type ReaderHealth = reader.Health

// The states of a reader's health.
const (
	ReaderStarting   = reader.Starting
	ReaderHealthy    = reader.Healthy
	ReaderNoMetadata = reader.NoMetadata
	ReaderStalled    = reader.Stalled
)

// ReaderState is where a reader is, for people.
type ReaderState = reader.View

// ReaderMetrics count what a reader did. All only grow.
type ReaderMetrics = reader.Counters
