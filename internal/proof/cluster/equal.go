package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/logs/checker"
	"github.com/braiddb/braid/internal/node"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// Copies runs the replication checker once over what was released of a log up to an
// LSN. Every node should be up.
func Copies(ctx context.Context, cl *client.Client, l *client.Log, to client.LSN) (*checker.Report, error) {
	c, err := cl.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	pool := rpc.NewPool(rpc.TCP{}, rpc.PoolOptions{Role: rpc.RoleClient})
	defer pool.Close()
	addrs := map[catalog.NodeID]string{}
	for _, n := range c.Nodes {
		addrs[catalog.NodeID(n.Id)] = n.ClientAddr
	}
	call := func(id catalog.NodeID, m rpc.Method, req, resp rpc.Message) bool {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		return addrs[id] != "" && pool.To(addrs[id]).Call(ctx, m, req, resp) == nil
	}
	found := map[uint32]*wire.EpochMetadata{}
	for id := range addrs {
		req := &wire.ReadMetadataRequest{Log: uint64(l.ID()), Shard: uint64(logs.MakeShard(id, 0))}
		if resp := new(wire.ReadMetadataResponse); call(id, rpc.MethodReadMetadata, req, resp) {
			for _, m := range resp.Metadata {
				found[m.EffectiveSince] = m
			}
		}
	}
	var epochs []*wire.EpochMetadata
	for _, since := range slices.Sorted(maps.Keys(found)) {
		epochs = append(epochs, found[since])
	}
	ck := checker.New(checker.Config{Log: l.ID(), Epochs: epochs, From: logs.LSNOldest, To: to})
	for ctx.Err() == nil {
		reqs := ck.Want()
		if len(reqs) == 0 {
			return ck.Report(), nil
		}
		for _, req := range reqs {
			resp := new(wire.RecordsResponse)
			if !call(logs.ShardID(req.Shard).Node(), rpc.MethodRecords, req, resp) {
				resp = nil
			}
			ck.Answer(logs.ShardID(req.Shard), resp)
		}
	}
	return nil, ctx.Err()
}

// CompareReplicas runs the directories of ended nodes in this process, where
// replicas can be hashed, until every tablet's are equal or ctx ends.
func (c *Cluster) CompareReplicas(ctx context.Context) error {
	nodes := make([]*node.Node, len(c.Nodes))
	errs := make([]error, len(c.Nodes))
	var join []string
	for _, p := range c.Nodes {
		join = append(join, p.NodeAddr())
	}
	var starts sync.WaitGroup
	for i, p := range c.Nodes {
		starts.Go(func() {
			log, err := os.OpenFile(p.Log, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				errs[i] = err
				return
			}
			cfg := node.Config{Data: p.Dir, Listen: p.Host, AdvertiseNode: p.ProxyHost(), Join: join, Memory: 96 << 20, Version: "comparison",
				NodePort: p.NodePort, ClientPort: p.ClientPort, RedisPort: p.RedisPort, ConsolePort: p.WebPort}
			nodes[i], errs[i] = node.Start(ctx, cfg, node.RealDeps(slog.New(slog.NewTextHandler(log, nil)), func(err error) {
				fmt.Fprintln(log, "FATAL while replicas are compared:", err)
			}))
		})
	}
	starts.Wait()
	defer func() {
		for _, n := range nodes {
			if n != nil {
				n.Kill()
			}
		}
	}()
	for i, err := range errs {
		if err != nil {
			return fmt.Errorf("node %d, to compare its replicas: %w", i+1, err)
		}
	}
	for _, n := range nodes {
		if err := n.WaitReady(ctx); err != nil {
			return fmt.Errorf("to compare replicas: %w", err)
		}
	}
	for {
		last := Unlike(nodes)
		if last == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return last
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Unlike says which replicas of a tablet differ. On more nodes than copies each
// tablet is on some of them.
func Unlike(nodes []*node.Node) error {
	at := nodes[0].HybridTime()
	type holder struct {
		node int
		hash node.ReplicaHash
	}
	first, copies := map[catalog.GroupID]holder{}, map[catalog.GroupID]int{}
	for i, n := range nodes {
		hashes, err := n.ReplicaHashes(at)
		if err != nil {
			return err
		}
		for id, h := range hashes {
			if copies[id]++; copies[id] == 1 {
				first[id] = holder{i + 1, h}
			} else if first[id].hash != h {
				return fmt.Errorf("tablet %d: node %d has %+v, node %d has %+v", id, first[id].node, first[id].hash, i+1, h)
			}
		}
	}
	if len(copies) == 0 {
		return fmt.Errorf("there are no tablets")
	}
	for _, id := range slices.Sorted(maps.Keys(copies)) {
		if copies[id] < 3 {
			return fmt.Errorf("tablet %d: only %d replicas can be compared", id, copies[id])
		}
	}
	return nil
}
