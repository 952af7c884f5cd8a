package logs

import (
	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/sim"
	"github.com/braiddb/braid/internal/wire"
)

// What nodes say to one another, for the reader of a trace (-messages).

// traced shows a question, and its answer when that comes.
func traced[R rpc.Message](w *sim.World, who string, to catalog.NodeID, method rpc.Method, req rpc.Message, done func(R, error)) func(R, error) {
	if method == rpc.MethodClusterState {
		return done
	}
	w.Tracef("  %s asks node %d %s: %v", who, to, method, req)
	return func(r R, err error) {
		if err != nil {
			w.Tracef("  %s hears of node %d %s: %v", who, to, method, err)
		} else {
			w.Tracef("  %s hears of node %d %s: %v", who, to, method, r)
		}
		done(r, err)
	}
}

// traceBatch shows the stores and releases that a node sends.
func (m *member) traceBatch(to catalog.NodeID, b *wire.LogBatch) {
	w := m.c.w
	for _, st := range b.Stores {
		r := st.Record
		what := "a record"
		switch {
		case r.Flags&logs.FlagBridge != 0:
			what = "a bridge"
		case r.Flags&logs.FlagHole != 0:
			what = "a hole"
		case st.Amend:
			what = "an amendment"
		}
		w.Tracef("  node %d sends node %d %s: log %d %s wave %d, seal %d, on %v, last known good %d", m.n.ID, to, what, r.Log, logs.LSN(r.Lsn), r.Wave,
			st.SealEpoch, shards(r.Copyset), r.LastKnownGood)
	}
	for _, r := range b.Releases {
		w.Tracef("  node %d tells node %d that log %d is released up to %s", m.n.ID, to, r.Log, logs.LSN(r.Released))
	}
}

// traceStored shows what a shard says of a store.
func (m *member) traceStored(s *wire.Stored) {
	m.c.w.Tracef("  node %d says %s of log %d %s wave %d", m.n.ID, s.Status, s.Log, logs.LSN(s.Lsn), s.Wave)
}

func shards(ids []uint64) (out []logs.ShardID) {
	for _, id := range ids {
		out = append(out, logs.ShardID(id))
	}
	return out
}
