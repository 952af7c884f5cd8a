package node

import (
	"context"
	"strconv"

	"github.com/braiddb/braid/internal/admin/query"
	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
)

// historyTable is the metadata log of a log, as readers see it.
func (n *Node) historyTable() *liveTable {
	return &liveTable{
		name: "historical_metadata", doc: "How the epochs of a log are stored, from its first: a row for each change.", ofLog: true,
		columns: []query.Column{
			{Name: "log_id", Type: query.Integer, Required: true}, column("since", query.Integer, "the first epoch that is stored so"),
			column("replication", query.Text, ""), column("nodeset_size", query.Integer, ""), column("nodeset", query.Text, ""),
		},
		local: func(ctx context.Context, f query.Filter, yield func([]any) bool) error {
			id, _ := f.Int("log_id")
			l, err := n.client.Log(ctx, strconv.FormatInt(id, 10))
			if err != nil {
				return err
			}
			epochs, err := l.Epochs(ctx)
			if err != nil {
				return err
			}
			for _, e := range epochs {
				if !yield([]any{id, e.Since, catalog.FormatReplication(e.Replication), len(e.Shards), shardWords(e.Shards)}) {
					break
				}
			}
			return nil
		},
	}
}

// directoryTable is where each store has a log.
func (n *Node) directoryTable() *liveTable {
	return &liveTable{
		name: "logsdb_directory", doc: "What each partition of each storage node has of a log.", ofEach: true, ofLog: true,
		columns: []query.Column{
			column("node_id", query.Integer, ""), {Name: "log_id", Type: query.Integer, Required: true}, column("partition", query.Integer, "see partitions"),
			column("first_lsn", query.Text, ""), column("max_lsn", query.Text, ""), column("first_timestamp_ms", query.Integer, ""),
			column("max_timestamp_ms", query.Integer, ""), column("copies", query.Integer, ""), column("bytes", query.Integer, "of them, about"),
		},
		local: func(_ context.Context, f query.Filter, yield func([]any) bool) error {
			id, ok := f.Int("log_id")
			if n.logs.store == nil || !ok || !logs.LogID(id).Valid() {
				return nil
			}
			rows, err := n.logs.store.Directory(logs.LogID(id))
			if err != nil {
				return err
			}
			for _, r := range rows {
				if !yield([]any{uint64(n.id.Node), id, r.Partition, r.First.String(), r.Last.String(), r.MinMs, r.MaxMs, r.Copies, r.Bytes}) {
					break
				}
			}
			return nil
		},
	}
}

// shardsTable is what each store did since it was opened.
func (n *Node) shardsTable() *liveTable {
	return &liveTable{
		name: "shards", doc: "What each storage node's shard did since the node started.", ofEach: true,
		columns: []query.Column{
			column("node_id", query.Integer, ""), column("shard", query.Text, ""), column("stores", query.Integer, "copies acknowledged"),
			column("stored_bytes", query.Integer, "of them, with headers"), column("refused", query.Integer, "stores and reads"),
			column("dropped", query.Integer, "stores, because the queue was full"), column("no_space", query.Integer, "stores, for want of space"),
			column("damaged", query.Integer, "copies found so"), column("delivered", query.Integer, "records to readers"),
			column("delivered_bytes", query.Integer, "of them"), column("cache_reads", query.Integer, "served from memory"),
			column("partition_reads", query.Integer, "that went to partitions"), column("bytes_read", query.Integer, "from files of partitions"),
			column("bytes_flushed", query.Integer, "to partitions and marks"), column("bytes_compacted", query.Integer, "written again"),
			column("partitions", query.Integer, ""), column("logs", query.Integer, "of which something is known"), column("readers", query.Integer, ""),
			column("queue_bytes", query.Integer, "of stores under way"), column("cache_bytes", query.Integer, "of recent copies"),
			column("suspect", query.Integer, "what was acknowledged may be lost"),
		},
		local: func(_ context.Context, _ query.Filter, yield func([]any) bool) error {
			if n.logs.store == nil {
				return nil
			}
			m := n.logs.store.Metrics()
			yield([]any{
				uint64(n.id.Node), n.shard().String(), m.Stores, m.StoredBytes, m.Refused, m.Dropped, m.NoSpace, m.Damaged, m.Delivered, m.DeliveredBytes,
				m.CacheReads, m.LSMReads, n.logs.store.BytesRead(), m.BytesFlushed, m.BytesCompacted, m.Partitions, m.Logs, m.ReadStreams, m.QueueBytes, m.RecentBytes,
				m.Suspect,
			})
			return nil
		},
	}
}
