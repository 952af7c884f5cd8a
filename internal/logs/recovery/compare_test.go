package recovery

import (
	"slices"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// states lists the logs of which a shard of the bench has anything.
func (b *bench) states(s logs.ShardID) *wire.LogStateResponse {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := &wire.LogStateResponse{}
	for id, set := range b.shards {
		for _, f := range set {
			if f.id == s && len(f.copies) > 0 {
				out.States = append(out.States, &wire.LogState{Log: uint64(id)})
			}
		}
	}
	slices.SortFunc(out.States, func(a, b *wire.LogState) int { return int(a.Log) - int(b.Log) })
	return out
}
