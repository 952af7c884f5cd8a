package node

import (
	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/logs/recovery"
	"github.com/braiddb/braid/internal/logs/sequencer"
	"github.com/braiddb/braid/internal/placement"
)

// recoverer is recovery as the sequencer sees it.
type recoverer struct{ host *recovery.Host }

// Recover makes earlier epochs clean.
func (r recoverer) Recover(a sequencer.RecoverArgs, done func(sequencer.RecoveryResult, error)) (cancel func()) {
	args := recovery.Args{Log: a.Log, UpTo: a.UpTo, Own: a.Own, Metadata: a.Metadata, Record: a.Record}
	return r.host.Recover(args, func(res recovery.Result, err error) {
		done(sequencer.RecoveryResult{
			Status: res.Status, Record: res.Record, Tail: res.Tail, CountBase: res.CountBase, PreemptedBy: res.PreemptedBy,
			SealEpoch: res.SealEpoch, Message: res.Message,
		}, err)
	})
}

// logView is the cluster as recovery sees it.
type logView struct{ *logs.Cluster }

// Writable says whether a shard takes copies.
func (v logView) Writable(s logs.ShardID) bool {
	n, ok := v.Node(s.Node())
	return ok && n.Alive && n.Storage && n.Writable
}

// Authority is what a shard's silence means. Each is the only authority on what it
// holds, until somebody says that it is lost.
func (v logView) Authority(s logs.ShardID) placement.ShardState {
	if n, ok := v.Node(s.Node()); ok && n.Lost {
		return placement.ShardUnavailable
	}
	return placement.ShardUnheard
}

// Shards lists the storage nodes' shards: the nodeset of metadata logs.
func (v logView) Shards() []logs.ShardID {
	var out []logs.ShardID
	for _, n := range v.Nodes {
		if n.Storage {
			out = append(out, logs.MakeShard(catalog.NodeID(n.ID), 0))
		}
	}
	return out
}
