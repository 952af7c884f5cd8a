package world

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/logs/checker"
	"github.com/braiddb/braid/internal/node"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// checkReplicas compares every tablet's replicas at equal applied index, until
// they are equal.
func (w *World) checkReplicas() {
	last := ""
	if !w.eventually(20*time.Second, func() bool { last = w.compare(); return last == "" }) {
		w.wrong("replicas differ: %s", last)
	}
}

// compare says what is unlike between the replicas of a tablet, "" if nothing.
func (w *World) compare() string {
	first := w.machines[0].up()
	if first == nil {
		return "node 1 is down"
	}
	at := first.HybridTime()
	var all []map[catalog.GroupID]node.ReplicaHash
	for _, m := range w.machines {
		n := m.up()
		if n == nil {
			return fmt.Sprintf("node %d is down", m.index)
		}
		h, err := n.ReplicaHashes(at)
		if err != nil {
			return err.Error()
		}
		all = append(all, h)
	}
	for _, id := range slices.Sorted(maps.Keys(all[0])) {
		for i, h := range all {
			if h[id] != all[0][id] {
				return fmt.Sprintf("tablet %d: node 1 has %+v, node %d has %+v", id, all[0][id], i+1, h[id])
			}
		}
	}
	if len(all[0]) == 0 {
		return "there are no tablets"
	}
	return ""
}

// checkCopies runs the replication checker over all that was released of a log,
// until it finds nothing: releases and purges take their time to come around.
func (w *World) checkCopies(a *appends) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	tail, err := a.log.Tail(ctx)
	if err != nil {
		w.wrong("%s: the tail: %v", a.path, err)
		return
	}
	pool := rpc.NewPool(w.net.Host(checkerHost), rpc.PoolOptions{Role: rpc.RoleClient})
	defer pool.Close()
	var report *checker.Report
	if w.eventually(20*time.Second, func() bool {
		report = w.copies(ctx, pool, a, tail)
		return w.copied(report)
	}) {
		if report.Records == 0 {
			w.wrong("%s: the replication checker judged nothing", a.path)
		}
		return
	}
	for i, p := range report.Problems {
		if i < 5 {
			w.wrong("%s: replication: %s", a.path, p)
		}
	}
	w.wrong("%s: replication up to %s: %d records, %d copies, silent %v", a.path, tail, report.Records, report.Copies, report.Silent)
}

// copied says whether all that should be stored is. A disk that lost copies gets them
// back when the epoch that reigns has ended and is compared (package store says so);
// of one that was replaced nobody can be asked, and what was stored or recovered while
// there were two nodes has no third copy.
func (w *World) copied(r *checker.Report) bool {
	if w.params.Bad == 0 {
		return r.Clean()
	}
	replaced := w.machines[w.params.Bad-1].replaced
	fewer := checker.BadReplication | checker.BadReplicationLastWave
	if replaced > 0 {
		fewer |= checker.SmallCopyset
	}
	for _, p := range r.Problems {
		if p.Findings&^fewer != 0 || replaced == 0 && p.From.Epoch() != r.To.Epoch() {
			return false
		}
	}
	return len(r.Silent) <= replaced
}

func (w *World) copies(ctx context.Context, pool *rpc.Pool, a *appends, to client.LSN) *checker.Report {
	ck := checker.New(checker.Config{Log: a.log.ID(), Epochs: w.epochs(ctx, pool, a), From: logs.LSNOldest, To: to})
	for {
		reqs := ck.Want()
		if len(reqs) == 0 {
			return ck.Report()
		}
		for _, req := range reqs {
			resp := new(wire.RecordsResponse)
			if w.call(ctx, pool, logs.ShardID(req.Shard).Node(), rpc.MethodRecords, req, resp) != nil {
				resp = nil
			}
			ck.Answer(logs.ShardID(req.Shard), resp)
		}
	}
}

// epochs reads the log's metadata log on all nodes.
func (w *World) epochs(ctx context.Context, pool *rpc.Pool, a *appends) []*wire.EpochMetadata {
	found := map[uint32]*wire.EpochMetadata{}
	for _, m := range w.machines {
		n := m.up()
		if n == nil {
			continue
		}
		req := &wire.ReadMetadataRequest{Log: uint64(a.log.ID()), Shard: uint64(logs.MakeShard(n.ID(), 0))}
		resp := new(wire.ReadMetadataResponse)
		if w.call(ctx, pool, n.ID(), rpc.MethodReadMetadata, req, resp) != nil {
			continue
		}
		for _, e := range resp.Metadata {
			found[e.EffectiveSince] = e
		}
	}
	var out []*wire.EpochMetadata
	for _, since := range slices.Sorted(maps.Keys(found)) {
		out = append(out, found[since])
	}
	return out
}

// call asks a node at its clients' door.
func (w *World) call(ctx context.Context, pool *rpc.Pool, id catalog.NodeID, m rpc.Method, req, resp rpc.Message) error {
	for _, o := range w.machines {
		if n := o.up(); n != nil && n.ID() == id {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
			defer cancel()
			return pool.To(n.Addrs().Client).Call(ctx, m, req, resp)
		}
	}
	return fmt.Errorf("node %d is down", id)
}
