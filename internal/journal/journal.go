package journal

import (
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// StreamID names a stream: a Raft group today. The high bit is kept for log
// shards.
type StreamID uint64

// Kind says what a record means to its stream.
type Kind uint8

const (
	// KindState replaces the stream's state; only the newest is kept.
	KindState Kind = 1
	// KindEntry is one entry at a position.
	KindEntry Kind = 2
	// KindTruncate makes void all earlier entries at positions >= Pos.
	KindTruncate Kind = 3
	// KindStart makes void all earlier entries; the stream now begins after Pos.
	// Together with a KindState it heals a corrupt stream: of what was before
	// nothing is needed then.
	KindStart Kind = 4
	// KindDrop ends the stream: nothing before it counts.
	KindDrop Kind = 5

	// kindCorrupt is ours: the stream was found corrupt and is not repaired.
	kindCorrupt Kind = 6

	// KindLogFirst and above are kept for log records. They are entries.
	KindLogFirst Kind = 16
	// KindLogMark and above are entries too, but small ones that fence or free:
	// they are written while others are refused for want of space.
	KindLogMark Kind = 32
)

// A Record is one member of an Append. Pos is its position in the stream (a Raft
// index). The journal borrows Payload until the Append's done has been called.
type Record struct {
	Stream  StreamID
	Kind    Kind
	Pos     uint64
	Payload []byte
}

// Identity is of the writer. Groups written by older incarnations of the same
// cluster and node are read; newer ones are refused.
type Identity struct {
	Cluster     [16]byte
	Node        uint64
	Incarnation uint64
}

// Clock is what the journal needs of time.
type Clock interface {
	AfterFunc(d time.Duration, f func()) (stop func() bool)
}

// Options are a journal's settings; zero values take the defaults in brackets.
type Options struct {
	SegmentBytes  int64         // [16 MiB] size of a segment, whole 4 KiB
	SegmentsMax   int           // [32] the journal's bound is SegmentBytes * SegmentsMax
	ReserveBytes  int64         // [0] free bytes of the disk below which entries are refused
	IdleWatermark time.Duration // [10ms] after the last group, when the closing watermark is on disk
	QueueBytesMax int64         // [64 MiB] waiting to be written; Append blocks above
	SpaceInterval time.Duration // [1s] between looks at the disk's free bytes
	Logger        *slog.Logger  // [discards]

	// OnPressure is told which streams pin the oldest segments once the bytes
	// since the oldest pass half the bound, and again as long as that is so.
	// It runs on a goroutine of the journal and may take its time.
	OnPressure func(pinned []StreamID)
	// Fatal is called once, after a write or sync has failed. From before the
	// call on nothing is acknowledged.
	Fatal func(error)
}

// groupBytesMax is where gathering stops; one larger Append is still one group.
func (o *Options) groupBytesMax() int64 { return min(4<<20, o.SegmentBytes/4) }

func (o Options) withDefaults() Options {
	if o.SegmentBytes == 0 {
		o.SegmentBytes = 16 << 20
	}
	if o.SegmentsMax == 0 {
		o.SegmentsMax = 32
	}
	if o.IdleWatermark == 0 {
		o.IdleWatermark = 10 * time.Millisecond
	}
	if o.QueueBytesMax == 0 {
		o.QueueBytesMax = 64 << 20
	}
	if o.SpaceInterval == 0 {
		o.SpaceInterval = time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.OnPressure == nil {
		o.OnPressure = func([]StreamID) {}
	}
	if o.Fatal == nil {
		o.Fatal = func(error) {}
	}
	return o
}

// segmentsMin leaves room for the current segment, a prepared one, and two that
// can be waiting for their release.
const segmentsMin = 4

// Validate says what is wrong with the options.
func (o *Options) Validate() error {
	switch {
	case o.SegmentBytes < 16<<10 || o.SegmentBytes%4096 != 0 || o.SegmentBytes > 1<<30:
		return fmt.Errorf("journal: segment size %d is not whole 4 KiB between 16 KiB and 1 GiB", o.SegmentBytes)
	case o.SegmentsMax < segmentsMin:
		return fmt.Errorf("journal: %d segments are too few, the least is %d", o.SegmentsMax, segmentsMin)
	case o.ReserveBytes < 0 || o.QueueBytesMax < 0 || o.IdleWatermark < 0:
		return errors.New("journal: negative option")
	}
	return nil
}

// AppendBytesMax bounds the payloads of one Append.
const AppendBytesMax = 1 << 30

var (
	// ErrNoSpace refuses entries while the disk or the journal's bound is near
	// full, and entries that follow refused ones in their stream. Nothing of the
	// Append was written. It passes when space is freed and what was refused is
	// appended again in order.
	ErrNoSpace = errors.New("journal: no space")
	// ErrClosed answers Appends after Close.
	ErrClosed = errors.New("journal: closed")
	// ErrFailed wraps the fault after which nothing is acknowledged any more.
	ErrFailed = errors.New("journal: failed")
	// ErrTooLarge refuses an Append above AppendBytesMax.
	ErrTooLarge = errors.New("journal: append too large")
	// ErrBadRecord refuses an Append of a kind that is not the caller's to write.
	ErrBadRecord = errors.New("journal: bad record")
	// ErrForeign says that the directory is another cluster's or node's.
	ErrForeign = errors.New("journal: belongs to another cluster or node")
	// ErrFormat says that a newer version has written here.
	ErrFormat = errors.New("journal: written by a newer version of braid")
	// ErrIncarnation says that a later life of this node has written here.
	ErrIncarnation = errors.New("journal: written by a later incarnation")
)

// Replay is what a journal held when it was opened.
type Replay struct {
	Streams map[StreamID]*StreamReplay
	// Suspect: what follows the last sound group is not empty and could have
	// been acknowledged, or an earlier life ended so and Trust was not called
	// since. Any stream, known here or not, may miss its last records.
	Suspect bool
	Corrupt []Corruption
	// Torn counts the bytes of the unsound tail that was cut.
	Torn int64
}

// StreamReplay is one stream's content.
type StreamReplay struct {
	State    []byte // payload of the newest KindState, nil if none
	StartPos uint64 // the records begin after it
	Start    []byte // payload of the newest KindStart, nil if none
	Records  []Record
	// Corrupt: acknowledged records of the stream are damaged or gone. Records
	// holds what was before them. It lasts over restarts until a KindStart and a
	// KindState, or a KindDrop, are appended.
	Corrupt bool
}

// A Corruption is a stretch that was vouched for and does not verify.
type Corruption struct {
	Segment uint64
	Offset  int64
	Bytes   int64      // 0: unknown
	Streams []StreamID // that lost records; nil: could be any
	Reason  string
}

// Metrics are counters since Open and present sizes.
type Metrics struct {
	Appends      uint64 // Appends made durable
	Records      uint64 // records made durable, without rewritten ones
	PayloadBytes uint64 // of those records
	Groups       uint64 // groups written: as many writes and syncs of data
	Watermarks   uint64 // of which only closed an idle period
	Rewritten    uint64 // records written forward
	BytesWritten uint64 // to segments, zero-filling included
	Refused      uint64 // Appends refused with ErrNoSpace
	Created      uint64 // segments created
	Recycled     uint64 // segments reused
	Removed      uint64 // segments removed
	Segments     int    // in use
	SegmentsFree int    // kept for reuse
	LiveBytes    int64  // from the oldest position in use to the newest
	QueueBytes   int64  // waiting to be written
	Streams      int    // known and not dropped
	Full         bool   // entries are refused
}
