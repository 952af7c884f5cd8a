package client

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// FindTime gives the LSN at which to begin reading to see every record with a
// timestamp at or after t: that of the first such record or a little earlier, never
// later. Where all records are older it is the one after the last; where all are
// younger, the first that is not trimmed. With ErrPartial the LSN holds too, but lies
// maybe earlier than it need. Approximate looks only at where partitions begin:
// cheaper, and earlier by minutes.
func (l *Log) FindTime(ctx context.Context, t time.Time, approximate bool) (LSN, error) {
	// A record with a timestamp of so many milliseconds is younger than t if t is not
	// beyond the millisecond's beginning.
	ms := t.UnixMilli()
	low, _, err := l.find(ctx, "find time", &wire.FindRequest{TimestampMs: ms, Approximate: approximate})
	if err != nil && !errors.Is(err, ErrPartial) {
		return logs.LSNInvalid, err
	}
	return low + 1, err
}

// FindKey gives the LSNs between which a key lies, where keys ascend with LSNs: low is
// the last record with a smaller find key, high the first with the key or a greater one.
func (l *Log) FindKey(ctx context.Context, key []byte, approximate bool) (low, high LSN, err error) {
	if key == nil {
		key = []byte{}
	}
	return l.find(ctx, "find key", &wire.FindRequest{Key: key, Approximate: approximate})
}

// find asks all shards; each says that the place lies above low and at or below high.
func (l *Log) find(ctx context.Context, op string, req *wire.FindRequest) (low, high LSN, err error) {
	c, err := l.cover(ctx)
	if err != nil {
		return 0, 0, err
	}
	high = logs.LSNMax
	for a := range broadcast(ctx, l, c.shards, rpc.MethodFindLSN, func(s logs.ShardID) rpc.Message {
		return &wire.FindRequest{Log: uint64(l.id), TimestampMs: req.TimestampMs, Key: req.Key, Approximate: req.Approximate, Shard: uint64(s)}
	}, func() *wire.FindResponse { return new(wire.FindResponse) }) {
		if a.err != nil || a.resp.Status != wire.LogStatus_LOG_STATUS_OK {
			continue
		}
		c.answered(a.shard)
		low = max(low, LSN(a.resp.Low))
		if h := LSN(a.resp.High); h != logs.LSNInvalid {
			high = min(high, h)
		}
	}
	return low, max(high, low), c.verdict(l, op)
}

// Tail gives an LSN at or above that of every record that was acknowledged before
// the call, even where another sequencer has taken over unseen.
func (l *Log) Tail(ctx context.Context) (LSN, error) {
	state, err := l.sequencer(ctx, logs.StateCheckSeal, 0)
	if err != nil {
		return logs.LSNInvalid, err
	}
	return LSN(state.Next) - 1, nil
}

// TailAttributes say where a log ends.
type TailAttributes struct {
	LSN       LSN // of the last record, 0 if there never was one
	Timestamp time.Time
	Count     uint64 // payloads ever appended, those left out by holes included
}

func (l *Log) TailAttributes(ctx context.Context) (TailAttributes, error) {
	_, tail, err := l.tailRecord(ctx, "tail attributes")
	if err != nil {
		return TailAttributes{}, err
	}
	return TailAttributes{LSN: LSN(tail.Lsn), Timestamp: time.UnixMilli(tail.TimestampMs), Count: tail.Count}, nil
}

// tailRecord is the last real record; what recovery made up does not count.
func (l *Log) tailRecord(ctx context.Context, op string) (*wire.SequencerStateResponse, *wire.TailRecord, error) {
	state, err := l.sequencer(ctx, logs.StateCheckSeal, 0)
	if err != nil {
		return nil, nil, err
	}
	if state.Tail == nil || state.Recovering {
		return nil, nil, l.questionError(op, wire.LogStatus_LOG_STATUS_AGAIN, nil, "epoch %d", state.Epoch)
	}
	return state, state.Tail, nil
}

// HeadAttributes say where a log begins.
type HeadAttributes struct {
	TrimPoint LSN       // nothing at or below it can be read
	Timestamp time.Time // of the last record trimmed, about; zero if nothing was
}

func (l *Log) HeadAttributes(ctx context.Context) (HeadAttributes, error) {
	c, err := l.cover(ctx)
	if err != nil {
		return HeadAttributes{}, err
	}
	var head HeadAttributes
	for a := range broadcast(ctx, l, c.shards, rpc.MethodLogState, func(s logs.ShardID) rpc.Message {
		return &wire.LogStateRequest{Logs: []uint64{uint64(l.id)}, Shard: uint64(s)}
	}, func() *wire.LogStateResponse { return new(wire.LogStateResponse) }) {
		if a.err != nil || a.resp.Status != wire.LogStatus_LOG_STATUS_OK {
			continue
		}
		c.answered(a.shard)
		for _, st := range a.resp.States {
			if LogID(st.Log) == l.id && LSN(st.TrimPoint) > head.TrimPoint {
				head.TrimPoint = LSN(st.TrimPoint)
				head.Timestamp = time.UnixMilli(st.TrimTimestampMs)
			}
		}
	}
	return head, c.verdict(l, "head attributes")
}

// IsEmpty says whether the log has no record that can be read. Holes and bridges,
// which recovery leaves, are no records.
func (l *Log) IsEmpty(ctx context.Context) (bool, error) {
	state, tail, err := l.tailRecord(ctx, "is empty")
	if err != nil {
		return false, err
	}
	if tail.Lsn == 0 || tail.Lsn <= state.TrimPoint {
		return true, nil
	}
	head, err := l.HeadAttributes(ctx)
	if LSN(tail.Lsn) <= head.TrimPoint {
		return true, nil
	}
	return false, err
}

// DataSize estimates how many bytes were appended between two times: what the shards
// hold, divided by the number of copies. With ErrPartial it is too low.
func (l *Log) DataSize(ctx context.Context, from, to time.Time) (uint64, error) {
	c, err := l.cover(ctx)
	if err != nil {
		return 0, err
	}
	toMs := int64(1<<63 - 1)
	if !to.IsZero() {
		toMs = to.UnixMilli()
	}
	fromMs := int64(0)
	if !from.IsZero() {
		fromMs = from.UnixMilli()
	}
	if fromMs > toMs {
		return 0, l.questionError("data size", wire.LogStatus_LOG_STATUS_INVALID, nil, "it ends before it begins")
	}
	sum := uint64(0)
	for a := range broadcast(ctx, l, c.shards, rpc.MethodDataSize, func(s logs.ShardID) rpc.Message {
		return &wire.DataSizeRequest{Log: uint64(l.id), FromMs: fromMs, ToMs: toMs, Shard: uint64(s)}
	}, func() *wire.DataSizeResponse { return new(wire.DataSizeResponse) }) {
		if a.err != nil || a.resp.Status != wire.LogStatus_LOG_STATUS_OK {
			continue
		}
		c.answered(a.shard)
		sum += a.resp.Bytes
	}
	err = c.verdict(l, "data size")
	if c.heard < len(c.shards) && err == nil {
		err = l.questionError("data size", wire.LogStatus_LOG_STATUS_PARTIAL, nil, "%d of %d answered", c.heard, len(c.shards))
	}
	return sum / uint64(l.copies()), err
}

// Trim makes all records up to an LSN unreadable, for ever. An LSN past the tail is
// refused with ErrPastTail: what is appended later would be gone as well. With
// ErrPartial some shards have not heard of it: readers that reach one of the others
// see it done, and it is to be repeated.
func (l *Log) Trim(ctx context.Context, lsn LSN) error {
	if lsn == logs.LSNInvalid {
		return nil
	}
	tail, err := l.Tail(ctx)
	if err != nil {
		return err
	}
	if lsn > tail {
		return l.pastTail(lsn, tail)
	}
	c, err := l.cover(ctx)
	if err != nil {
		return err
	}
	behind := l.trimOn(ctx, c, c.shards, func(logs.ShardID) LSN { return lsn })
	if len(behind) > 0 { // they have not heard how far the log goes: nothing above what they know is there
		l.trimOn(ctx, c, slices.Sorted(maps.Keys(behind)), func(s logs.ShardID) LSN { return behind[s] })
	}
	switch {
	case c.heard == 0:
		return l.questionError("trim", wire.LogStatus_LOG_STATUS_FAILED, nil, "none of %d shards answered in time", len(c.shards))
	case c.heard < len(c.shards):
		return l.questionError("trim", wire.LogStatus_LOG_STATUS_PARTIAL, nil, "%d of %d shards have it", c.heard, len(c.shards))
	}
	return nil
}

// trimOn has shards trim, counts those that did, and gives those that know of no
// record so high, with the highest LSN that they know.
func (l *Log) trimOn(ctx context.Context, c *coverage, shards []logs.ShardID, to func(logs.ShardID) LSN) map[logs.ShardID]LSN {
	behind := map[logs.ShardID]LSN{}
	for a := range broadcast(ctx, l, shards, rpc.MethodTrim, func(s logs.ShardID) rpc.Message {
		return &wire.TrimRequest{Log: uint64(l.id), Lsn: uint64(to(s)), Shard: uint64(s)}
	}, func() *wire.TrimResponse { return new(wire.TrimResponse) }) {
		switch {
		case a.err != nil:
		case a.resp.Status == wire.LogStatus_LOG_STATUS_OK:
			c.answered(a.shard)
		case a.resp.Status == wire.LogStatus_LOG_STATUS_TOO_LARGE && a.resp.Tail <= a.resp.TrimPoint:
			c.answered(a.shard) // all that it knows is trimmed
		case a.resp.Status == wire.LogStatus_LOG_STATUS_TOO_LARGE:
			behind[a.shard] = LSN(a.resp.Tail)
		}
	}
	return behind
}

// pastTail refuses a trim that would reach into what is still to be appended.
func (l *Log) pastTail(lsn, tail LSN) error {
	err := newLogError(l.id, wire.LogStatus_LOG_STATUS_TOO_LARGE, true, nil,
		"the log ends at %s, and a trim up to %s was asked for: what is appended next would be gone unread; trim up to %s at most", tail, lsn, tail)
	err.what, err.Tail = "trim past the tail", tail
	return err
}

// LogEpochs describes a run of epochs that are stored alike.
type LogEpochs struct {
	Since       uint32 // the first of them
	Shards      []logs.ShardID
	Replication *catalog.Replication
}

// Epochs lists how the log's epochs are stored, from the first.
func (l *Log) Epochs(ctx context.Context) ([]LogEpochs, error) {
	entries, _, err := l.metadata(ctx, logs.EpochMin, false)
	if err != nil {
		return nil, err
	}
	var list []LogEpochs
	for _, m := range entries {
		list = append(list, epochsOf(m))
	}
	return list, nil
}

func epochsOf(m *wire.EpochMetadata) LogEpochs {
	e := LogEpochs{Since: m.EffectiveSince, Replication: m.Replication}
	for _, s := range m.Nodeset {
		e.Shards = append(e.Shards, logs.ShardID(s))
	}
	return e
}
