package store

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/journal"
	"github.com/braiddb/braid/internal/logs"
)

// Journal is what a shard needs of the node's journal.
type Journal interface {
	Append(recs []journal.Record, done func(error))
	SetLowWater(s journal.StreamID, pos uint64)
	Full() bool
	Crowded() bool // an Append may have to wait
}

// Options are a store's settings; zero values take the defaults in brackets.
// Those of the first block have none and must be given.
type Options struct {
	Shard     logs.ShardID
	Journal   Journal
	Stream    journal.StreamID
	Mono      func() time.Duration // since an arbitrary origin
	WallMs    func() int64
	AfterFunc func(time.Duration, func()) (stop func() bool)

	// Recovered is what the journal held of the stream, nil if nothing.
	Recovered *journal.StreamReplay
	// Suspect: the journal's tail was, so the stream may miss its last records.
	Suspect bool
	// Incarnation salts the names of read streams, so that those of an earlier
	// life are unknown in this one.
	Incarnation uint64

	Logger *slog.Logger // [discards]
	// Fatal is told once when a file cannot be written or synced: the node must
	// end. [panics]
	Fatal func(error)

	CacheBytes       int64         // [64 MiB] blocks of all partitions
	MemTableBytes    int64         // [16 MiB] of the open partition; up to three exist
	RecordCacheBytes int64         // [32 MiB] recent copies
	QueueBytes       int64         // [16 MiB] stores on their way to the journal and the partition; above: DROPPED
	PartitionBytes   int64         // [2 GiB] at which the next partition begins
	PartitionTime    time.Duration // [15 min] after which the next partition begins
	PartitionsOpen   int           // [16] closed partitions held open for readers
	Streams          int           // [150000] read streams at once
	StreamIdle       time.Duration // [5 min] after which a read stream that nobody asks is forgotten
	RemovedGrace     time.Duration // [96h] that a log is kept after it is gone from the configuration
	Workers          int           // [4] goroutines that read
	ProducerKeep     time.Duration // [7 days] after its last record that a producer is remembered of which all is trimmed
	ProducersKept    int           // [1048576] such producers; above, those go that were silent for longest

	// Tasks, where set, takes the place of the store's goroutines: what would run on
	// one of its own is handed over as a function, to be run once, after the caller
	// has returned, by whoever makes every call of this store. Then the journal must
	// have KindState durable when Append returns, and the store ends with Abandon. The
	// simulation drives a store so.
	Tasks func(f func())

	// Attributes are a log's, false if it is not configured (any more). [all are
	// kept for ever]
	Attributes func(logs.LogID) (*catalog.LogAttributes, bool)
	// Free gives the disk's free and total bytes; asked once a second. [no bound]
	Free func() (free, total int64, err error)
	// FreeMin is the share of the disk, in percent, below which stores are
	// refused with NO_SPACE [5]; FreeLow that below which they are told of it [10].
	FreeMin, FreeLow int
	// Purge is called when a RELEASE of an epoch above the one after lce came:
	// what recovery has decided on the epochs between must be learnt from others
	// first (SetLastClean). It must not block and may be called again.
	Purge func(log logs.LogID, lce logs.Epoch, release logs.LSN)
	// Compare is called when the answer to a question about a log was in doubt: other
	// shards are to be asked what they have of it (Fence, Repair, Sure). sealed is up
	// to which epoch it is sealed here. It must not block and may be called again.
	// [the doubt stays]
	Compare func(log logs.LogID, sealed logs.Epoch)
	// Doubted is called when the shard, while it runs, has come to doubt what it has
	// (Suspect): other shards are to be asked, as after an Open that did. It must not block.
	Doubted func()
	// NextEpoch asks the epoch store which epoch of a log is the next to be given
	// out. A shard in doubt needs it before it takes stores. It must not block.
	// [the shard stays fenced]
	NextEpoch func(log logs.LogID, done func(next logs.Epoch, err error))
}

func orDefault[T int | int64 | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Fatal == nil {
		o.Fatal = func(err error) { panic(err) }
	}
	orDefault(&o.CacheBytes, 64<<20)
	orDefault(&o.MemTableBytes, 16<<20)
	orDefault(&o.RecordCacheBytes, 32<<20)
	orDefault(&o.QueueBytes, 16<<20)
	orDefault(&o.PartitionBytes, 2<<30)
	orDefault(&o.PartitionTime, 15*time.Minute)
	orDefault(&o.PartitionsOpen, 16)
	orDefault(&o.Streams, 150000)
	orDefault(&o.StreamIdle, 5*time.Minute)
	orDefault(&o.RemovedGrace, 96*time.Hour)
	orDefault(&o.Workers, 4)
	orDefault(&o.ProducerKeep, 7*24*time.Hour)
	orDefault(&o.ProducersKept, 1<<20)
	orDefault(&o.FreeMin, 5)
	orDefault(&o.FreeLow, 10)
	if o.Attributes == nil {
		o.Attributes = func(logs.LogID) (*catalog.LogAttributes, bool) { return nil, true }
	}
	if o.Purge == nil {
		o.Purge = func(logs.LogID, logs.Epoch, logs.LSN) {}
	}
	return o
}

// Validate says what is wrong with the options.
func (o *Options) Validate() error {
	switch {
	case o.Journal == nil || o.Mono == nil || o.WallMs == nil || o.AfterFunc == nil:
		return errors.New("logs/store: the journal and the clocks must be given")
	case o.Shard == 0:
		return errors.New("logs/store: which shard it is must be given")
	case o.MemTableBytes < 64<<10 || o.PartitionBytes < 4<<10 || o.QueueBytes < 1 || o.RecordCacheBytes < 1 || o.CacheBytes < 0:
		return errors.New("logs/store: a size is too small")
	case o.Workers < 1 || o.PartitionsOpen < 1 || o.Streams < 1 || o.ProducersKept < 1:
		return errors.New("logs/store: a count is below one")
	case o.FreeMin < 0 || o.FreeLow > 100 || o.FreeMin > o.FreeLow:
		return fmt.Errorf("logs/store: free space of %d and %d percent is contradictory", o.FreeMin, o.FreeLow)
	}
	return nil
}
