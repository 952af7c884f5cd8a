package client

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/placement"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// Sentinels for errors.Is, of questions about a log.
var (
	// ErrPartial: the answer holds, but is not the best one, because not all shards
	// were heard; it comes together with an answer.
	ErrPartial error = &LogError{Status: wire.LogStatus_LOG_STATUS_PARTIAL}
	// ErrRecovering: the log's earlier epochs are being recovered; ask again.
	ErrRecovering error = &LogError{Status: wire.LogStatus_LOG_STATUS_AGAIN}
	// ErrPastTail: a trim would reach beyond what was ever appended.
	ErrPastTail error = &LogError{Status: wire.LogStatus_LOG_STATUS_TOO_LARGE}
	// ErrReadFailed: no shard that was asked could answer.
	ErrReadFailed error = &LogError{Status: wire.LogStatus_LOG_STATUS_FAILED}
)

// questionError says what came of a question. It had no effect, or one that does not matter
// when it is repeated.
func (l *Log) questionError(op string, s logs.Status, cause error, format string, args ...any) error {
	e := newLogError(l.id, s, true, cause, op+": "+format, args...)
	e.Retriable = e.Retriable || s == wire.LogStatus_LOG_STATUS_PARTIAL
	return e
}

// ask sends a request to a shard's node.
func (l *Log) ask(node NodeID, m rpc.Method, req, resp rpc.Message, deadline time.Time, done func(error)) {
	if l.client.logTransport == nil {
		done(l.questionError("call", wire.LogStatus_LOG_STATUS_FAILED, nil, "this client's transport carries no requests about logs"))
		return
	}
	l.client.logTransport.StartLog(node, m, req, resp, deadline, done)
}

// sequencer asks the log's sequencer.
func (l *Log) sequencer(ctx context.Context, flags uint32, seen logs.Epoch) (*wire.SequencerStateResponse, error) {
	return l.client.askSequencer(ctx, &wire.SequencerStateRequest{Log: uint64(l.id), Flags: flags, SeenEpoch: uint32(seen)})
}

// attributes of the log as last heard; nil if it is not known.
func (l *Log) attributes() *catalog.LogAttributes {
	a, _ := l.client.attributesOfLog(l.id)
	return a
}

// copies is how many copies each record has, 1 if that is not known.
func (l *Log) copies() int {
	return max(1, placement.Copies(l.attributes().GetReplication()))
}

// metadata is what the log's epochs are stored by, and the last epoch for which that
// is sure to be all. With released, something of the epoch is known to be released,
// so that its metadata can be read; the answer covers it.
func (l *Log) metadata(ctx context.Context, e logs.Epoch, released bool) ([]*wire.EpochMetadata, logs.Epoch, error) {
	seen := logs.Epoch(0)
	if released {
		seen = e
	}
	// Long enough that "no such log" is believed, if that is the answer.
	short, cancel := context.WithTimeout(ctx, max(l.client.opts.Attempt, notFoundFor+notFoundFor/4))
	defer cancel()
	state, err := l.sequencer(short, logs.StateMetadata, seen)
	if err == nil && len(state.Metadata) > 0 && logs.Epoch(state.Epoch) >= seen {
		return state.Metadata, logs.Epoch(state.Epoch), nil
	}
	var refused *LogError
	if errors.As(err, &refused) && (refused.Status == wire.LogStatus_LOG_STATUS_NOT_FOUND || refused.Status == wire.LogStatus_LOG_STATUS_ACCESS) {
		return nil, 0, err
	}
	entries, e2 := l.readMetadata(ctx)
	if e2 != nil {
		if err == nil {
			err = e2
		}
		return nil, 0, err
	}
	through := seen
	for _, m := range entries {
		through = max(through, logs.Epoch(m.EffectiveSince))
	}
	return entries, through, nil
}

// readMetadata reads the metadata log: each entry lies on as many storage nodes at least as
// a record of the log had copies, so if fewer are silent all entries were found. It mostly
// has one more, but not where there were no nodes for that when it was written.
func (l *Log) readMetadata(ctx context.Context) ([]*wire.EpochMetadata, error) {
	view, err := l.client.awaitView(ctx, false)
	if err != nil {
		return nil, err
	}
	var shards []logs.ShardID
	for i := range view.Nodes {
		if view.Nodes[i].Storage {
			shards = append(shards, logs.MakeShard(view.Nodes[i].ID, 0))
		}
	}
	if len(shards) == 0 {
		return nil, l.questionError("metadata", wire.LogStatus_LOG_STATUS_FAILED, nil, "no storage node is known")
	}
	var entries []*wire.EpochMetadata
	heard := 0
	for a := range broadcast(ctx, l, shards, rpc.MethodReadMetadata, func(s logs.ShardID) rpc.Message {
		return &wire.ReadMetadataRequest{Log: uint64(l.id), Shard: uint64(s)}
	}, func() *wire.ReadMetadataResponse { return new(wire.ReadMetadataResponse) }) {
		if a.err != nil || a.resp.Status != wire.LogStatus_LOG_STATUS_OK {
			continue
		}
		heard++
		for _, m := range a.resp.Metadata {
			if !slices.ContainsFunc(entries, func(o *wire.EpochMetadata) bool { return o.EffectiveSince == m.EffectiveSince }) {
				entries = append(entries, m)
			}
		}
	}
	if silent := len(shards) - heard; silent >= metadataCopies(l.attributes(), entries, len(shards)) {
		return nil, l.questionError("metadata", wire.LogStatus_LOG_STATUS_FAILED, nil, "%d of %d storage nodes are silent", silent, len(shards))
	}
	slices.SortFunc(entries, func(a, b *wire.EpochMetadata) int { return int(int64(a.EffectiveSince) - int64(b.EffectiveSince)) })
	return entries, nil
}

// metadataCopies is how many copies an entry of a metadata log has at the least, that may
// be missing among those that were found.
func metadataCopies(a *catalog.LogAttributes, found []*wire.EpochMetadata, nodes int) int {
	copies := nodes
	if a != nil {
		copies = min(copies, placement.Copies(a.Replication))
	}
	for _, m := range found {
		copies = min(copies, placement.Copies(m.Replication))
	}
	if a == nil && len(found) == 0 {
		return 1
	}
	return max(copies, 1)
}

// shardAnswer is what one shard answered.
type shardAnswer[R any] struct {
	shard logs.ShardID
	resp  R
	err   error
}

// broadcast asks shards at the same time and gives the answers as they come.
func broadcast[R rpc.Message](ctx context.Context, l *Log, shards []logs.ShardID, m rpc.Method, req func(logs.ShardID) rpc.Message, fresh func() R) func(yield func(shardAnswer[R]) bool) {
	return func(yield func(shardAnswer[R]) bool) {
		deadline := l.client.opts.Clock.Now().Add(l.client.opts.Attempt)
		if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
			deadline = d
		}
		answers := make(chan shardAnswer[R], len(shards))
		for _, s := range shards {
			resp := fresh()
			l.ask(s.Node(), m, req(s), resp, deadline, func(err error) { answers <- shardAnswer[R]{s, resp, err} })
		}
		for range shards {
			var a shardAnswer[R]
			select {
			case a = <-answers:
			case <-ctx.Done():
				return
			case <-l.client.ctx.Done():
				return
			}
			if !yield(a) {
				return
			}
		}
	}
}

// coverage counts answers against every nodeset that the log has had.
type coverage struct {
	shards []logs.ShardID
	sets   []*placement.ShardSet
	heard  int
}

// cover begins a round of questions to all shards that may hold something of the log.
func (l *Log) cover(ctx context.Context) (*coverage, error) {
	entries, _, err := l.metadata(ctx, logs.EpochMin, false)
	if err != nil {
		return nil, err
	}
	c := &coverage{}
	for _, m := range entries {
		var nodeset []placement.LogShard
		for i, id := range m.Nodeset {
			s := placement.LogShard{Shard: logs.ShardID(id), Weight: 1}
			if i < len(m.Locations) {
				s.Location = m.Locations[i]
			}
			nodeset = append(nodeset, s)
			if !slices.Contains(c.shards, s.Shard) {
				c.shards = append(c.shards, s.Shard)
			}
		}
		c.sets = append(c.sets, placement.NewShardSet(m.Replication, nodeset))
	}
	return c, nil
}

func (c *coverage) answered(s logs.ShardID) {
	c.heard++
	for _, set := range c.sets {
		set.Set(s, placement.ShardHeard)
	}
}

// verdict is nil where no record can lie only on shards that were not heard.
func (c *coverage) verdict(l *Log, op string) error {
	if c.heard == 0 {
		return l.questionError(op, wire.LogStatus_LOG_STATUS_FAILED, nil, "none of %d answered in time", len(c.shards))
	}
	for _, set := range c.sets {
		if !set.FMajority().Reached() {
			return l.questionError(op, wire.LogStatus_LOG_STATUS_PARTIAL, nil, "%d of %d answered", c.heard, len(c.shards))
		}
	}
	return nil
}

// attemptPadding is how much longer than it may be held a question to a shard may take.
const attemptPadding = 3 * time.Second
