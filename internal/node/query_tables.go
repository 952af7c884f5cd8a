package node

import (
	"context"
	"os"
	"runtime"
	"strings"

	"github.com/braiddb/braid/internal/admin/query"
	"github.com/braiddb/braid/internal/catalog"
)

func column(name string, t query.Type, doc string) query.Column {
	return query.Column{Name: name, Type: t, Doc: doc}
}

// liveTables lists what can be asked for with `braid query`.
func (n *Node) liveTables() []*liveTable {
	return append([]*liveTable{n.infoTable(), n.nodesTable(), n.tabletsTable()}, n.logTables()...)
}

func (n *Node) infoTable() *liveTable {
	return &liveTable{
		name: "info", doc: "Each running node: its process, and what of itself it was told.", ofEach: true,
		columns: []query.Column{
			column("node_id", query.Integer, ""), column("cluster_id", query.Text, ""), column("pid", query.Integer, "several nodes of a demo share one"),
			column("version", query.Text, "of the binary"), column("go_version", query.Text, ""), column("started_ms", query.Integer, "since 1970"),
			column("uptime_ms", query.Integer, ""), column("incarnation", query.Integer, "starts of its data directory, this one included"),
			column("data_directory", query.Text, ""), column("location", query.Text, "region/zone/rack"), column("roles", query.Text, ""),
			column("address", query.Text, "for nodes"), column("client_address", query.Text, ""), column("redis_address", query.Text, ""),
			column("console_address", query.Text, ""), column("catalog_version", query.Integer, "that it has carried out"),
			column("memory", query.Integer, "bytes that it may use"), column("not_ready", query.Text, "why, if it does not serve fully"),
		},
		local: func(_ context.Context, _ query.Filter, yield func([]any) bool) error {
			d, notReady := n.descriptor(), ""
			if err := n.Ready(); err != nil {
				notReady = err.Error()
			}
			yield([]any{
				d.Id, n.clusterID(), os.Getpid(), d.Version, runtime.Version(), n.begin.UnixMilli(), n.deps.Now().Sub(n.begin).Milliseconds(),
				d.Incarnation, n.cfg.Data, d.Location, strings.Join(catalog.RoleNames(d.Roles), ","), d.RpcAddr, d.ClientAddr, d.RedisAddr, d.ConsoleAddr,
				n.index.Load().Version(), n.cfg.Memory, notReady,
			})
			return nil
		},
	}
}

func (n *Node) nodesTable() *liveTable {
	return &liveTable{
		name: "nodes", doc: "The nodes of the catalog.",
		columns: []query.Column{
			column("node_id", query.Integer, "never reused"), column("state", query.Text, "as the master sees it"),
			column("address", query.Text, "where nodes reach it"), column("location", query.Text, "region/zone/rack"),
			column("incarnation", query.Integer, "one life of the data directory"), column("version", query.Text, "of the binary"),
			column("roles", query.Text, "master, tablet, sequencer, storage"), column("sequencer_weight", query.Real, ""),
			column("storage_weight", query.Real, ""), column("storage_state", query.Text, "read_write; read_only, of no weight: it takes no more records of logs; or none, without the role"),
		},
		local: func(_ context.Context, _ query.Filter, yield func([]any) bool) error {
			for _, d := range n.index.Load().Catalog().GetNodes() {
				if !yield([]any{
					d.Id, lower(d.State.String(), "NODE_STATE_"), d.RpcAddr, d.Location, d.Incarnation, d.Version, strings.Join(catalog.RoleNames(d.Roles), ","),
					d.SequencerWeight, d.StorageWeight, storageState(d),
				}) {
					break
				}
			}
			return nil
		},
	}
}

// storageState says what a node may do for logs, by what it was started with.
func storageState(d *catalog.Node) string {
	switch {
	case d.Roles&catalog.RoleStorage == 0:
		return "none"
	case d.StorageWeight == 0:
		return "read_only"
	}
	return "read_write"
}

func lower(name, prefix string) string { return strings.ToLower(strings.TrimPrefix(name, prefix)) }

func (n *Node) tabletsTable() *liveTable {
	return &liveTable{
		name: "tablet_replicas", doc: "The replicas of tablets on each node, the master's group included.", ofEach: true,
		columns: []query.Column{
			column("node_id", query.Integer, ""), column("tablet_id", query.Integer, "1 is the master's group"),
			column("replica_id", query.Integer, ""), column("role", query.Text, "leader, follower, candidate or learner"),
			column("leader_node", query.Integer, "0: unknown"), column("term", query.Integer, ""), column("committed", query.Integer, ""),
			column("applied", query.Integer, ""), column("lease_us", query.Integer, "what is left of the leader's lease"), column("quiesced", query.Integer, ""),
		},
		local: func(_ context.Context, _ query.Filter, yield func([]any) bool) error {
			for _, g := range n.host.Groups() {
				s := g.Status()
				if !yield([]any{
					uint64(n.id.Node), uint64(s.ID), uint64(s.Replica), strings.ToLower(s.Role.String()), uint64(s.LeaderNode), s.Term, s.Commit,
					s.Applied, s.LeaseRemaining.Microseconds(), s.Quiesced,
				}) {
					break
				}
			}
			return nil
		},
	}
}
