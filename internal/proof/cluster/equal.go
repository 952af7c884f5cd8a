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

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/node"
)

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
			cfg := node.Config{Data: p.Dir, Listen: p.Host, Join: join, Memory: 96 << 20, Version: "comparison",
				NodePort: p.NodePort, ClientPort: p.ClientPort, RedisPort: p.RedisPort, ConsolePort: p.WebPort}
			if p.linked {
				cfg.AdvertiseNode = p.ProxyHost()
			}
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
