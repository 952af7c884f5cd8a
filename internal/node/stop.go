package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/braiddb/braid/internal/admin"
	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/master"
	"github.com/braiddb/braid/internal/protocol/redis"
)

// Ready says why the node does not serve, or not fully, or nil: who restarts nodes
// in turn goes on to the next when it is nil.
func (n *Node) Ready() error {
	switch {
	case n.dead.Load():
		return errors.New("a fatal fault ended this node")
	case n.draining.Load():
		return errors.New("the node is shutting down")
	case !n.opened.Load():
		return errors.New("the node is starting")
	}
	if ahead := n.host.TimeAhead(); ahead > 0 {
		return fmt.Errorf("this node's clock was set back and is %s behind times that it gave: peers refuse those until it is there. If theirs were not set back, starting this node anew ends that",
			ahead.Round(time.Millisecond))
	}
	if n.host.ClockOutlier() {
		return errors.New("this node's clock disagrees with a majority of its peers: check time synchronisation")
	}
	if wait := n.host.VotesFrom() - n.deps.Mono(); wait > 0 {
		return fmt.Errorf("this node may have promised its votes before it was started: it votes again in %s", wait.Round(time.Millisecond))
	}
	heard := n.heardMaster.Load()
	if heard == 0 || n.deps.Mono()-time.Duration(heard) > silentAfter {
		return errors.New("no leader of the master answers: is a majority of the nodes up?")
	}
	x := n.index.Load()
	for _, t := range x.Catalog().GetTablets() {
		if t.ReplicaOn(n.id.Node) == nil {
			continue
		}
		h := n.hosted(t.Id)
		if h == nil || h.group.Status().LeaderNode == 0 {
			return fmt.Errorf("tablet %d has no leader yet", t.Id)
		}
	}
	return nil
}

// drainTime bounds how long a stopping node waits for its leaders to move away.
const drainTime = 5 * time.Second

// Stop ends the node in order: its leaders move away, commands under way are
// answered, everything is flushed and closed.
func (n *Node) Stop(ctx context.Context) error {
	n.draining.Store(true)
	drain, cancel := context.WithTimeout(ctx, drainTime)
	defer cancel()
	n.sayDraining(drain)
	if err := n.host.Drain(drain); err != nil {
		n.log.Info("not every leader moved away before the stop", "error", err)
	}
	n.drainLogs(drain)
	n.closeRedis() // answers what is under way, then hangs up
	var err error
	if !n.dead.Load() {
		err = n.engine.Flush()
	}
	return errors.Join(err, n.close())
}

// sayDraining lets the master know, so that it moves nothing here meanwhile.
func (n *Node) sayDraining(ctx context.Context) {
	done := make(chan struct{})
	n.loops.Go(func() {
		defer close(done)
		moves := &movers{n: n, running: map[moveKey]bool{}}
		if err := n.heartbeat(moves); err != nil {
			n.log.Info("the master was not told of the stop", "error", err)
		}
		moves.wait()
	})
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// closeRedis waits for commands under way, but not for those that a fatal fault
// has left without an outcome: nobody will ever answer them.
func (n *Node) closeRedis() {
	closed := make(chan struct{})
	go func() { defer close(closed); n.redis.Close() }()
	select {
	case <-closed:
	case <-n.died:
	}
}

// Kill ends the node as a crash would: nothing is flushed, nobody is told.
func (n *Node) Kill() {
	n.silence()
	n.close()
}

// close stops what was started, in reverse, once.
func (n *Node) close() (err error) {
	n.ended.Do(func() { err = n.closeAll() })
	return err
}

func (n *Node) closeAll() error {
	n.cancel()
	n.opened.Store(false)
	if n.client != nil {
		n.client.Close() // whatever still waits for a leader gives up
	}
	if n.redis != nil {
		n.closeRedis()
	}
	if n.console != nil {
		n.console.Close()
	}
	if n.clientServer != nil {
		n.clientServer.Close()
		n.nodeServer.Close()
	}
	n.closeLogs()
	var errs []error
	if n.host != nil {
		n.host.Close()
	}
	if n.pool != nil {
		n.pool.Close()
	}
	for _, l := range []interface{ Close() error }{n.listeners.node, n.listeners.client, n.listeners.redis, n.listeners.console} {
		if l != nil {
			l.Close() // a second close of a listener that its server owned is no harm
		}
	}
	n.loops.Wait()
	n.eachHosted(func(h *hosted) { h.Close() })
	if n.logs.store != nil && !n.dead.Load() { // as with the engine
		errs = append(errs, n.logs.store.Close())
	}
	if n.journal != nil {
		errs = append(errs, n.journal.Close())
	}
	if n.engine != nil && !n.dead.Load() { // closing it flushes, and waits for work that a fault has ended
		errs = append(errs, n.engine.Close())
	}
	if n.lock != nil {
		errs = append(errs, n.lock.Close())
	}
	return errors.Join(errs...)
}

// sweepBytes is how much of a tablet one collection looks at, so that collecting
// takes a bounded share of the disk.
const sweepBytes = 16 << 20

// collect lets every tablet move its history cutoff and look for old versions.
func (n *Node) collect() {
	n.eachHosted(func(h *hosted) {
		if n.ctx.Err() != nil || n.dead.Load() {
			return
		}
		h.RaiseCutoff(n.clock.Now())
		if _, _, err := h.Sweep(sweepBytes); err != nil {
			n.log.Warn("collection of old versions", "tablet", h.ID(), "error", err)
		}
	})
}

func (n *Node) redisOptions() redis.Options {
	return redis.Options{
		Password: n.cfg.RedisPassword, MaxClients: n.cfg.RedisMaxClients, Clock: n.deps.Now, Seed: n.deps.Rand.Uint64(),
		Logger: n.log, NodeID: n.id.Node, ClusterID: n.id.Cluster, BraidVersion: n.cfg.Version,
		QueryBytesTotal: max(n.cfg.Memory/redisShare, clientsLeast), OutputBytesTotal: max(n.cfg.Memory/redisShare, clientsLeast),
		RunningBytesTotal: n.cfg.Memory / requestShare, Info: n.redisInfo,
	}
}

// redisInfo adds to INFO what only the node knows.
func (n *Node) redisInfo() []redis.InfoSection {
	x := n.index.Load()
	return []redis.InfoSection{{Name: "Braid", Fields: []redis.InfoField{
		{Name: "braid_replication", Value: master.ReplicationOf(x.Catalog()).String()},
		{Name: "braid_catalog_version", Value: fmt.Sprint(x.Version())},
		{Name: "braid_incarnation", Value: fmt.Sprint(n.incarnation)},
	}}}
}

// counts is what of the cluster is on this node now.
func (n *Node) counts() *Counts {
	c := new(Counts)
	for _, g := range n.host.Groups() {
		c.Replicas++
		if g.Leading() == nil {
			c.Leaders++
		}
	}
	return c
}

// Counts are metrics of what a node holds.
type Counts struct {
	Replicas int64 // of tablets and of the master
	Leaders  int64 // of those, the ones that lead and serve
}

func (n *Node) metrics() map[string]func() any {
	m := map[string]func() any{
		"node":       func() any { return n.counts() },
		"journal":    func() any { m := n.journal.Metrics(); return &m },
		"multiraft":  func() any { return n.host.Metrics() },
		"rpc_out":    func() any { return n.pool.Metrics() },
		"rpc_nodes":  func() any { return n.nodeServer.Metrics() },
		"rpc_client": func() any { return n.clientServer.Metrics() },
		"client":     func() any { return n.client.Metrics() },
		"redis":      func() any { return n.redis.Metrics() },
		"docdb":      func() any { m := n.engine.Metrics(); return &m },
		"gossip":     func() any { return n.logs.gossip.Metrics() },
		"rest":       func() any { return n.rest.Metrics() },
	}
	if s := n.logs.store; s != nil {
		m["logstore"] = func() any { m := s.Metrics(); return &m }
		m["purger"] = func() any { return n.logs.purger.Metrics() }
	}
	if s := n.logs.sequencer; s != nil {
		m["sequencer"] = func() any { return s.Metrics() }
		m["recovery"] = func() any { return n.logs.recovery.Metrics() }
	}
	return m
}

// status is what the console shows: the cluster, as the master tells it.
func (n *Node) status() admin.Status {
	s := admin.Status{
		ClusterID: n.id.Cluster, Node: uint64(n.id.Node), Version: n.cfg.Version,
		Uptime: n.deps.Now().Sub(n.begin).Round(time.Second).String(),
	}
	if err := n.Ready(); err != nil {
		s.Problems = append(s.Problems, err.Error())
	}
	ctx, cancel := context.WithTimeout(n.ctx, statusTime)
	defer cancel()
	c, err := n.client.Cluster(ctx)
	if err != nil {
		s.Problems = append(s.Problems, "the catalog cannot be read: "+err.Error())
		return s
	}
	s.Replication = master.ReplicationOf(n.index.Load().Catalog()).String()
	for _, node := range c.Nodes {
		row := admin.NodeStatus{
			ID: node.Id, State: strings.ToLower(strings.TrimPrefix(node.State.String(), "NODE_STATE_")), RPC: node.RpcAddr, Redis: node.RedisAddr, Console: node.ConsoleAddr, Location: node.Location,
		}
		for _, t := range c.Tablets {
			if t.ReplicaOn(catalog.NodeID(node.Id)) != nil {
				row.Replicas++
			}
			if t.Leader == catalog.NodeID(node.Id) {
				row.Leaders++
			}
		}
		s.Nodes = append(s.Nodes, row)
	}
	for _, t := range c.Tablets {
		row := admin.TabletStatus{ID: t.Id, Range: fmt.Sprintf("%016x–%016x", t.HashStart, t.HashEnd-1), Leader: uint64(t.Leader)}
		if table := c.Table(t.Tablet.Table); table != nil {
			row.Table = table.Keyspace + "." + table.Name
		}
		for _, r := range t.Replicas {
			row.Replicas = append(row.Replicas, r.Node)
		}
		s.Tablets = append(s.Tablets, row)
	}
	return s
}
