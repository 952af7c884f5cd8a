package docdb

import (
	"bytes"
	"encoding/binary"
	"math"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"

	"github.com/braiddb/braid/internal/hlc"
)

// ExpiryGrace is how long after its expiry a value is still kept from sweeps.
// An operation that saw the value alive may yet be on its way into the log: its
// NowMs must not be further than this before its entry's hybrid time.
const ExpiryGrace = time.Minute

// collectableFrom is the lowest cutoff at which what expires may be deleted.
func collectableFrom(expireAtMs int64) hlc.Timestamp {
	const most = math.MaxInt64 / 1000 >> 12
	return hlc.FromMicros(min(expireAtMs+ExpiryGrace.Milliseconds(), most) * 1000)
}

// dueFrom is the lowest cutoff at which a version may be garbage by its own
// key, hlc.Max if never.
func (h hint) dueFrom(t DocTime) hlc.Timestamp {
	switch {
	case h.dead:
		return t.HT
	case h.expireAtMs > 0:
		return max(t.HT, collectableFrom(h.expireAtMs))
	}
	return hlc.Max
}

// garbageCollector computes the block property that lets a sweep pass over what
// it has nothing to do in: the lowest history cutoff at which some version of
// the block may be garbage. A version is
//
//   - from its own time on, if it is a tombstone;
//   - from its expiry on, if it has one;
//   - from the time of the next newer version of its place on, if the table
//     holds one;
//   - from its own time on, if it is the table's first: the next newer one may
//     end the table before.
//
// A newer version on another level is not seen. The garbage is then found once a
// compaction has brought the two together, and what can lie in wait for that is
// bounded by the size of the upper levels, a tenth of the whole.
type garbageCollector struct {
	place  []byte // of the key before
	newer  hlc.Timestamp
	block  hlc.Timestamp
	index  hlc.Timestamp
	table  hlc.Timestamp
	closed hlc.Timestamp // of the data block finished last
}

const garbageProperty = "braid.garbage"

func newGarbageCollector() pebble.BlockPropertyCollector {
	return &garbageCollector{block: hlc.Max, index: hlc.Max, table: hlc.Max, closed: hlc.Max}
}

func (c *garbageCollector) Name() string { return garbageProperty }

func (c *garbageCollector) AddPointKey(key pebble.InternalKey, _ []byte) error {
	if len(key.UserKey) == 0 || key.UserKey[0] != spaceDocument {
		return nil
	}
	v, err := parseVersion(key.UserKey)
	if err != nil {
		return nil // not a version: never garbage
	}
	due := v.hint.dueFrom(v.time)
	switch {
	case bytes.Equal(v.place, c.place):
		due = min(due, c.newer)
	case c.place == nil:
		due = min(due, v.time.HT)
		fallthrough
	default:
		c.place = append(c.place[:0], v.place...)
	}
	c.newer = v.time.HT
	c.block = min(c.block, due)
	return nil
}

func (c *garbageCollector) AddRangeKeys(sstable.Span) error { return nil }

func (c *garbageCollector) AddCollectedWithSuffixReplacement(_, _, _ []byte) error {
	return ErrEncoding
}

func (c *garbageCollector) SupportsSuffixReplacement() bool { return false }

func (c *garbageCollector) FinishDataBlock(buf []byte) ([]byte, error) {
	c.closed = c.block
	c.table = min(c.table, c.block)
	c.block = hlc.Max
	return appendDue(buf, c.closed), nil
}

func (c *garbageCollector) AddPrevDataBlockToIndexBlock() {
	c.index = min(c.index, c.closed)
	c.closed = hlc.Max
}

func (c *garbageCollector) FinishIndexBlock(buf []byte) ([]byte, error) {
	due := c.index
	c.index = hlc.Max
	return appendDue(buf, due), nil
}

func (c *garbageCollector) FinishTable(buf []byte) ([]byte, error) {
	return appendDue(buf, c.table), nil
}

// appendDue encodes a property; nothing stands for never.
func appendDue(buf []byte, due hlc.Timestamp) []byte {
	if due == hlc.Max {
		return buf
	}
	return binary.BigEndian.AppendUint64(buf, uint64(due))
}

// garbageFilter passes the blocks that may hold garbage at a cutoff.
type garbageFilter struct{ cutoff hlc.Timestamp }

func (f garbageFilter) Name() string { return garbageProperty }

func (f garbageFilter) Intersects(prop []byte) (bool, error) {
	if len(prop) == 0 {
		return false, nil
	}
	if len(prop) != 8 {
		return false, ErrEncoding
	}
	return hlc.Timestamp(binary.BigEndian.Uint64(prop)) <= f.cutoff, nil
}

func (f garbageFilter) SyntheticSuffixIntersects(_, _ []byte) (bool, error) {
	return true, nil
}
