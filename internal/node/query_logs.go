package node

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/braiddb/braid/internal/admin/query"
	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/logs/sequencer"
	"github.com/braiddb/braid/internal/wire"
)

// logTables are the tables of the log wing; their columns follow LDQuery's where
// those apply.
func (n *Node) logTables() []*liveTable {
	return []*liveTable{
		n.sequencersTable(), n.gossipTable(), n.logGroupsTable(), n.logStateTable(), n.epochStoreTable(), n.partitionsTable(),
		n.readersTable(), n.recordsTable(), n.graylistTable(), n.recoveriesTable(), n.purgesTable(), n.throughputTable(),
		n.historyTable(), n.shardsTable(), n.directoryTable(),
	}
}

func (n *Node) sequencersTable() *liveTable {
	return &liveTable{
		name: "sequencers", doc: "The logs that each node has numbered since it started.", ofEach: true,
		columns: []query.Column{
			column("node_id", query.Integer, ""), column("log_id", query.Integer, ""), column("state", query.Text, "UNAVAILABLE, ACTIVATING, ACTIVE, PREEMPTED, FAILED"),
			column("epoch", query.Integer, ""), column("next_lsn", query.Text, ""), column("last_released", query.Text, "readers are served up to it"),
			column("last_known_good", query.Integer, "ESN up to which everything of the epoch is stored"),
			column("trim_point", query.Text, "as far as the sequencer has heard"), column("in_flight", query.Integer, "appends being stored"),
			column("bytes_in_flight", query.Integer, ""), column("window", query.Integer, "max_writes_in_flight"), column("buffered", query.Integer, "appends that wait for the sequencer"),
			column("held", query.Integer, "retried appends that wait until it is known whether they are stored"), column("preempted_by", query.Integer, "node"),
			column("draining", query.Integer, "the old epoch that drains"), column("recovering", query.Integer, "earlier epochs are being recovered"),
			column("metadata_readable", query.Integer, "of the epoch, in the metadata log"), column("nodeset", query.Text, ""), column("replication", query.Text, ""),
			column("effective_since", query.Integer, "epoch of nodeset and replication"), column("records", query.Integer, "of the epoch"),
			column("payloads", query.Integer, "of the epoch"), column("bytes", query.Integer, "of the epoch"), column("age_ms", query.Integer, "since activation"), column("trouble", query.Text, "what is wrong"),
		},
		local: func(_ context.Context, _ query.Filter, yield func([]any) bool) error {
			if n.logs.sequencer == nil {
				return nil
			}
			n.logs.sequencer.Rows(func(r sequencer.Row) bool {
				return yield([]any{
					uint64(n.id.Node), uint64(r.Log), r.State, uint32(r.Epoch), r.Next.String(), r.LastReleased.String(), uint32(r.LastKnownGood), trimText(uint64(r.TrimPoint)),
					r.InFlight, r.BytesInFlight, r.Window, r.Buffered, r.Held, uint64(r.PreemptedBy), uint32(r.Draining), r.Recovering, r.MetadataRead,
					shardWords(r.Nodeset), catalog.FormatReplication(r.Replication), uint32(r.EffectiveFrom), uint32(r.Records), r.Payloads, r.Bytes,
					r.Age.Milliseconds(), r.Trouble,
				})
			})
			return nil
		},
	}
}

func shardWords[T ~uint64](shards []T) string {
	words := make([]string, len(shards))
	for i, s := range shards {
		words[i] = logs.ShardID(s).String()
	}
	return strings.Join(words, ",")
}

func (n *Node) gossipTable() *liveTable {
	return &liveTable{
		name: "gossip", doc: "What each node believes of every other.", ofEach: true,
		columns: []query.Column{
			column("node_id", query.Integer, "who believes it"), column("target_node_id", query.Integer, "of whom"), column("state", query.Text, "ALIVE, SUSPECT or DEAD"),
			column("instance", query.Integer, "incarnation"), column("silent_intervals", query.Integer, ""), column("starting", query.Integer, "not ready to sequence"),
			column("failing_over", query.Integer, "said that it stops"), column("refused", query.Integer, "its address refuses connections"), column("location", query.Text, ""),
			column("isolated", query.Text, "the narrowest domain of node_id outside of which it holds everybody for dead: node, rack, zone or region; '': none"),
		},
		local: func(_ context.Context, _ query.Filter, yield func([]any) bool) error {
			isolated := n.logs.gossip.IsolatedIn()
			for _, r := range n.logs.gossip.State() {
				if !yield([]any{uint64(n.id.Node), uint64(r.Node), r.State.String(), r.Instance, r.SilentIntervals, r.Starting, r.FailingOver, r.Refused, r.Location, isolated}) {
					break
				}
			}
			return nil
		},
	}
}

func (n *Node) logGroupsTable() *liveTable {
	return &liveTable{
		name: "log_groups", doc: "The log groups of the catalog, with the attributes that they end up with; a row for each range of ids: a group that grew may have several.",
		columns: []query.Column{
			column("name", query.Text, "path"), column("range", query.Integer, "0: the group's first range of ids"), column("logid_lo", query.Integer, "first log of the range"), column("logid_hi", query.Integer, "last log of the range"),
			column("replication_property", query.Text, ""), column("nodeset_size", query.Integer, "0: chosen"), column("max_writes_in_flight", query.Integer, ""),
			column("max_payload_bytes", query.Integer, ""), column("sticky_copysets", query.Integer, ""), column("single_copy_delivery", query.Integer, ""),
			column("sequencer_batching", query.Integer, ""), column("sequencer_batching_time_ms", query.Integer, ""), column("sequencer_batching_bytes", query.Integer, ""),
			column("sequencer_batching_passthrough_bytes", query.Integer, ""), column("sequencer_batching_compression", query.Text, "none, lz4 or zstd"),
			column("backlog_ms", query.Integer, "0: for ever"), column("durability", query.Text, ""), column("create_on_append", query.Integer, ""),
			column("sequencer_affinity", query.Text, "location"),
		},
		local: func(_ context.Context, _ query.Filter, yield func([]any) bool) error {
			x := n.index.Load().Logs()
			for _, g := range n.index.Load().Catalog().GetLogGroups() {
				a, ok := x.Attributes(g.FirstLog)
				if !ok {
					continue
				}
				number := 0
				for r := range g.Ranges() {
					if !yield(groupRow(x.Path(g.Id), number, r, a)) {
						return nil
					}
					number++
				}
			}
			return nil
		},
	}
}

// groupRow is a range of a group's logs.
func groupRow(path string, number int, r catalog.IDRange, a *catalog.LogAttributes) []any {
	word := func(name string) string {
		d, err := catalog.LogAttributeNamed(name)
		if err != nil {
			panic("BUG: log_groups names an attribute that there is not: " + err.Error())
		}
		return d.Format(a)
	}
	return []any{
		path, number, r.First, r.Last, catalog.FormatReplication(a.Replication), a.GetNodesetSize(), a.GetMaxWritesInFlight(), a.GetMaxPayloadBytes(),
		a.GetStickyCopysets(), a.GetSingleCopyDelivery(), a.GetSequencerBatching(), a.GetSequencerBatchingTimeMs(), a.GetSequencerBatchingBytes(),
		a.GetSequencerBatchingPassthroughBytes(), word("sequencer_batching_compression"), a.GetBacklogMs(), word("durability"), a.GetCreateOnAppend(),
		a.GetSequencerAffinity(),
	}
}

// trimText prints a trim point, of which there need not be one.
func trimText(trim uint64) string {
	if trim == uint64(logs.LSNInvalid) {
		return "e0n0"
	}
	return logs.LSN(trim).String()
}

// localLogs asks the store here for its logs' state, page by page.
func (n *Node) localLogs(f query.Filter, yield func(*wire.LogState) bool) error {
	if n.logs.store == nil {
		return nil
	}
	req := &wire.LogStateRequest{Shard: uint64(n.shard()), Limit: 10_000}
	if id, ok := f.Int("log_id"); ok {
		req.Logs = []uint64{uint64(id)}
	}
	for {
		answer := make(chan *wire.LogStateResponse, 1)
		n.logs.store.LogState(req, func(r *wire.LogStateResponse) { answer <- r })
		r := <-answer
		if r.Status != wire.LogStatus_LOG_STATUS_OK {
			return errors.New(r.Status.String())
		}
		for _, s := range r.States {
			if !yield(s) {
				return nil
			}
			req.After = s.Log
		}
		if !r.More || len(r.States) == 0 {
			return nil
		}
	}
}

func (n *Node) logStateTable() *liveTable {
	return &liveTable{
		name: "log_storage_state", doc: "What each storage node knows of the logs that it has copies of; metadata logs have bit 63 set and are printed as text.", ofEach: true,
		columns: []query.Column{
			column("node_id", query.Integer, ""), {Name: "log_id", Type: query.Integer, Pushed: true}, column("last_released", query.Text, ""),
			column("trim_point", query.Text, ""), column("seal", query.Integer, "epochs up to it take no more appends"), column("soft_seal", query.Integer, "the same, implied by a later epoch's copies"),
			column("last_clean_epoch", query.Integer, ""), column("last_lsn", query.Text, "highest copy here"), column("bytes", query.Integer, "about"),
		},
		local: func(_ context.Context, f query.Filter, yield func([]any) bool) error {
			return n.localLogs(f, func(s *wire.LogState) bool {
				return yield([]any{
					uint64(n.id.Node), s.Log, logs.LSN(s.LastReleased).String(), trimText(s.TrimPoint), s.Seal, s.SoftSeal, s.LastCleanEpoch,
					logs.LSN(s.Last).String(), s.Bytes,
				})
			})
		},
	}
}

func (n *Node) epochStoreTable() *liveTable {
	return &liveTable{
		name: "epoch_store", doc: "A log's record in the epoch store.", ofLog: true,
		columns: []query.Column{
			{Name: "log_id", Type: query.Integer, Required: true}, column("next_epoch", query.Integer, "to be given out"), column("effective_since", query.Integer, ""),
			column("last_clean_epoch", query.Integer, ""), column("tail_lsn", query.Text, "of the last clean epoch"), column("tail_count", query.Integer, "payloads up to it"),
			column("nodeset", query.Text, ""), column("replication", query.Text, ""), column("written_in_metadata_log", query.Integer, ""),
			column("written_by", query.Integer, "node"), column("version", query.Integer, ""),
		},
		local: func(ctx context.Context, f query.Filter, yield func([]any) bool) error {
			id, _ := f.Int("log_id")
			type answer struct {
				record *wire.EpochRecord
				err    error
			}
			answers := make(chan answer, 1)
			lateEpochs{n}.Read(logs.LogID(id), func(r *wire.EpochRecord, err error) { answers <- answer{r, err} })
			select {
			case a := <-answers:
				if a.err != nil || a.record == nil {
					return a.err
				}
				m := a.record.GetMetadata()
				yield([]any{
					id, m.GetEpoch(), m.GetEffectiveSince(), a.record.LastCleanEpoch, logs.LSN(a.record.GetTail().GetLsn()).String(), a.record.GetTail().GetCount(),
					shardWords(m.GetNodeset()), catalog.FormatReplication(m.GetReplication()), m.GetWritten(), a.record.WriterNode, a.record.Version,
				})
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		},
	}
}

func (n *Node) partitionsTable() *liveTable {
	return &liveTable{
		name: "partitions", doc: "The time partitions of each storage node.", ofEach: true,
		columns: []query.Column{
			column("node_id", query.Integer, ""), column("id", query.Integer, ""), column("start_ms", query.Integer, "Unix time"), column("end_ms", query.Integer, "0: takes new copies"),
			column("bytes", query.Integer, "of copies, about"), column("open", query.Integer, "its files are open"), column("writable", query.Integer, ""),
		},
		local: func(_ context.Context, _ query.Filter, yield func([]any) bool) error {
			if n.logs.store == nil {
				return nil
			}
			for _, p := range n.logs.store.Partitions() {
				if !yield([]any{uint64(n.id.Node), p.ID, p.StartMs, p.EndMs, p.Bytes, p.Open, p.Writable}) {
					break
				}
			}
			return nil
		},
	}
}

func (n *Node) readersTable() *liveTable {
	return &liveTable{
		name: "readers", doc: "The read streams that each storage node serves.", ofEach: true,
		columns: []query.Column{
			column("node_id", query.Integer, ""), column("log_id", query.Integer, ""), column("stream", query.Integer, ""),
			column("start_lsn", query.Text, "where it began, or was rewound to"), column("read_pointer", query.Text, "next LSN to be sent"), column("until_lsn", query.Text, ""),
			column("last_released", query.Text, "it may be served up to it"), column("window_high", query.Text, "nothing above it is sent"), column("filter_version", query.Integer, "grows with each rewind"),
			column("waiting", query.Integer, "asked, and there is nothing to send"), column("known_down", query.Integer, "shards that the reader holds for silent"),
		},
		local: func(_ context.Context, _ query.Filter, yield func([]any) bool) error {
			if n.logs.store == nil {
				return nil
			}
			for _, s := range n.logs.store.Streams() {
				if !yield([]any{
					uint64(n.id.Node), uint64(s.Log), s.ID, s.From.String(), s.Next.String(), s.Until.String(), s.LastReleased.String(), s.WindowHigh.String(), s.FilterVersion, s.Waiting, s.FilteredOutShards,
				}) {
					break
				}
			}
			return nil
		},
	}
}

func (n *Node) recordsTable() *liveTable {
	return &liveTable{
		name: "records", doc: "The copies of a log's records as each storage node keeps them, every version of them.", ofEach: true, ofLog: true,
		columns: []query.Column{
			column("node_id", query.Integer, ""), {Name: "log_id", Type: query.Integer, Required: true}, column("lsn", query.Text, ""), column("wave", query.Integer, "or seal epoch, where recovery wrote it"),
			column("flags", query.Text, ""), column("copyset", query.Text, ""), column("timestamp_ms", query.Integer, ""), column("payload_bytes", query.Integer, ""),
			column("count", query.Integer, "payloads in it"), column("last_known_good", query.Integer, ""), column("producer", query.Text, ""), column("sequence", query.Integer, ""),
		},
		local: func(_ context.Context, f query.Filter, yield func([]any) bool) error {
			if n.logs.store == nil {
				return nil
			}
			id, _ := f.Int("log_id")
			req := &wire.RecordsRequest{Log: uint64(id), From: uint64(logs.LSNOldest), To: uint64(logs.LSNMax), Limit: 10_000, Shard: uint64(n.shard())}
			for {
				answer := make(chan *wire.RecordsResponse, 1)
				n.logs.store.Records(req, func(r *wire.RecordsResponse) { answer <- r })
				r := <-answer
				switch r.Status {
				case wire.LogStatus_LOG_STATUS_OK:
				case wire.LogStatus_LOG_STATUS_NOT_FOUND:
					return nil // nothing of it is here
				default:
					return errors.New(r.Status.String())
				}
				for i, c := range r.Records {
					size := uint32(0)
					if i < len(r.PayloadBytes) {
						size = r.PayloadBytes[i]
					}
					if !yield([]any{
						uint64(n.id.Node), id, logs.LSN(c.Lsn).String(), c.Wave, recordFlags(c.Flags), shardWords(c.Copyset), c.TimestampMs, size, c.Count,
						c.LastKnownGood, fmt.Sprintf("%x", c.Producer), c.Sequence,
					}) {
						return nil
					}
				}
				if r.Next == 0 {
					return nil
				}
				req.From = r.Next
			}
		},
	}
}

// recordFlags names the flags of a stored record.
func recordFlags(flags uint32) string {
	var out []string
	for _, f := range []struct {
		bit  uint32
		name string
	}{
		{logs.FlagHole, "HOLE"}, {logs.FlagBridge, "BRIDGE"}, {logs.FlagWrittenByRecovery, "WRITTEN_BY_RECOVERY"}, {logs.FlagEpochBegin, "EPOCH_BEGIN"},
		{logs.FlagBatch, "BATCH"}, {logs.FlagSticky, "STICKY"}, {logs.FlagProducer, "PRODUCER"}, {logs.FlagMetadata, "METADATA"},
		{logs.FlagStream, "STREAM"}, {logs.FlagKept, "KEPT"},
	} {
		if flags&f.bit != 0 {
			out = append(out, f.name)
		}
	}
	return strings.Join(out, "|")
}

func (n *Node) graylistTable() *liveTable {
	return &liveTable{
		name: "graylist", doc: "The shards that each node's sequencers avoid, and why.", ofEach: true,
		columns: []query.Column{
			column("node_id", query.Integer, ""), column("loop", query.Integer, ""), column("shard", query.Text, ""), column("reason", query.Text, ""),
			column("for_ms", query.Integer, "from now"), column("probing", query.Integer, ""), column("low_space", query.Integer, ""),
		},
		local: func(_ context.Context, _ query.Filter, yield func([]any) bool) error {
			if n.logs.sequencer == nil {
				return nil
			}
			n.logs.sequencer.Shards(func(loop int, r sequencer.ShardRow) bool {
				return yield([]any{uint64(n.id.Node), loop, r.Shard.String(), r.Ban, r.For.Milliseconds(), r.Probing, r.Low})
			})
			return nil
		},
	}
}

func (n *Node) recoveriesTable() *liveTable {
	return &liveTable{
		name: "recoveries", doc: "The recoveries of earlier epochs that each node is at.", ofEach: true,
		columns: []query.Column{
			column("node_id", query.Integer, ""), column("log_id", query.Integer, ""), column("own_epoch", query.Integer, "on whose behalf"),
			column("epoch", query.Integer, "at work"), column("up_to", query.Integer, "the last one to be recovered"),
			column("state", query.Text, "METADATA, SEALING, DIGESTING, MUTATING, CLEANING, ADVANCING or WAITING"), column("for_ms", query.Integer, ""),
			column("slots", query.Integer, "of the epoch, that had to be decided"), column("records", query.Integer, "of them"), column("holes", query.Integer, "of them, the bridge included"),
			column("pending", query.Integer, "decisions that are not stored yet"), column("digest", query.Text, "what was heard: an f-majority, complete or incomplete, or less"),
			column("absent", query.Integer, "shards of the nodeset that do not take part, or have not answered yet"), column("last_known_good", query.Integer, ""), column("restarts", query.Integer, ""),
		},
		local: func(_ context.Context, _ query.Filter, yield func([]any) bool) error {
			if n.logs.recovery == nil {
				return nil
			}
			for _, r := range n.logs.recovery.Rows() {
				if !yield([]any{
					uint64(n.id.Node), uint64(r.Log), uint32(r.Own), uint32(r.Epoch), uint32(r.UpTo), r.State, r.For.Milliseconds(), r.Slots,
					r.Records, r.Holes, r.Pending, r.Digest, r.Absent, uint32(r.Good), r.Restarts,
				}) {
					break
				}
			}
			return nil
		},
	}
}

func (n *Node) purgesTable() *liveTable {
	return &liveTable{
		name: "purges", doc: "The logs of which each node is learning what recovery decided while it was away.", ofEach: true,
		columns: []query.Column{column("node_id", query.Integer, ""), column("log_id", query.Integer, ""),
			column("state", query.Text, "WAITING for its turn, HISTORY while the metadata log is read, SEALING, ASKING others what was decided, DELETING, MARKING"),
			column("waiting", query.Integer, "shards that have not answered")},
		local: func(_ context.Context, _ query.Filter, yield func([]any) bool) error {
			if n.logs.purger == nil {
				return nil
			}
			for _, r := range n.logs.purger.Rows() {
				if !yield([]any{uint64(n.id.Node), uint64(r.Log), r.State, r.Waiting}) {
					break
				}
			}
			return nil
		},
	}
}
