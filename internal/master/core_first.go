package master

import (
	"slices"
	"strings"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/placement"
)

// First says what a new cluster begins with. Zero means the default.
type First struct {
	Tablets int // of the Redis table; placement.DefaultTablets
	Factor  int // replicas of the system keyspace; placement.DefaultReplication
}

// FirstCatalog is version 1 of a cluster of these nodes, which get the ids 1 to n
// in the order of their addresses: the system keyspace with the Redis table, and
// the master's group on as many nodes as placement.MasterFactor says. Nodes that
// are not there yet join later, and what is short of replicas is raised then.
// The first replica of every group is where its first leader should be.
func FirstCatalog(clusterID string, members []*catalog.Node, f First) *catalog.Catalog {
	if f.Tablets == 0 {
		f.Tablets = placement.DefaultTablets(len(placement.Fit(nodesOf(members), catalog.RoleTablet)))
	}
	if f.Factor == 0 {
		f.Factor = placement.DefaultReplication
	}
	c := &catalog.Catalog{
		ClusterId: clusterID, Version: 1,
		Keyspaces:    []*catalog.Keyspace{{Name: catalog.SystemKeyspace, ReplicationFactor: uint32(f.Factor)}},
		NextTableId:  uint32(catalog.RedisTableID) + 1,
		NextTabletId: uint64(catalog.MasterGroup) + 1, NextReplicaId: 1, NextNodeId: 1,
		MasterDescriptor: 1,
	}
	nodes := firstNodes(c, members)
	c.LogEpochStore = c.Nodes[0].EpochStore
	replicas := func(on []catalog.NodeID) (list []*catalog.Replica) {
		for _, node := range on {
			list = append(list, &catalog.Replica{Id: c.NextReplicaId, Node: uint64(node), Role: catalog.Role_ROLE_VOTER})
			c.NextReplicaId++
		}
		return list
	}
	masters := placement.Fit(nodes, catalog.RoleMaster)
	c.MasterReplicas = replicas(placement.ChooseReplicas(masters, nil, placement.MasterFactor(len(masters), 0)))
	c.Tables = []*catalog.Table{redisTable(f.Factor)}
	placed := placement.ChooseTablets(nodes, nil, f.Tablets, f.Factor)
	for i, r := range catalog.Ranges(catalog.Hash_HASH_CRC16, f.Tablets) {
		c.Tablets = append(c.Tablets, &catalog.Tablet{
			Id: c.NextTabletId, Table: uint32(catalog.RedisTableID), HashStart: r.Start, HashEnd: r.End,
			Replicas: replicas(placed[i]), Version: 1,
		})
		c.NextTabletId++
	}
	return c
}

func firstNodes(c *catalog.Catalog, members []*catalog.Node) []placement.Node {
	sorted := slices.Clone(members)
	slices.SortFunc(sorted, func(a, b *catalog.Node) int { return strings.Compare(a.RpcAddr, b.RpcAddr) })
	for _, m := range sorted {
		n := m.CloneVT()
		n.Id, n.State = c.NextNodeId, catalog.NodeState_NODE_STATE_ALIVE
		c.NextNodeId++
		c.Nodes = append(c.Nodes, n)
	}
	return nodesOf(c.Nodes)
}

// nodesOf is nodes that are all alive, as placement sees them.
func nodesOf(list []*catalog.Node) (nodes []placement.Node) {
	for _, n := range list {
		nodes = append(nodes, placement.Node{ID: catalog.NodeID(n.Id), Location: n.Location, Roles: n.Roles})
	}
	return nodes
}

// ownTable is the descriptor of a table that the cluster itself wants in the
// system keyspace, whatever whoever asks for it first says of it; nil for others.
func ownTable(t *catalog.Table) *catalog.Table {
	if t.GetKeyspace() != catalog.SystemKeyspace || t.GetName() != catalog.EpochTable {
		return nil
	}
	column := func(name string, kind catalog.Type) *catalog.Column {
		return &catalog.Column{Name: name, Type: kind, Kind: catalog.ColumnKind_COLUMN_KIND_REGULAR}
	}
	log := column(catalog.EpochColumnLog, catalog.Type_TYPE_INT64)
	log.Kind = catalog.ColumnKind_COLUMN_KIND_HASH
	return &catalog.Table{
		Keyspace: t.Keyspace, Name: t.Name, Hash: catalog.Hash_HASH_MURMUR3, HistoryRetentionMs: epochHistoryMs,
		Schema: &catalog.Schema{Columns: []*catalog.Column{
			log, column(catalog.EpochColumnVersion, catalog.Type_TYPE_INT64), column(catalog.EpochColumnEpoch, catalog.Type_TYPE_INT64),
			column(catalog.EpochColumnClean, catalog.Type_TYPE_INT64), column(catalog.EpochColumnRecord, catalog.Type_TYPE_BYTES),
		}},
	}
}

// epochHistoryMs is how far back the epoch store can be read: nobody does.
const epochHistoryMs = 60_000

// redisTable is the table behind the Redis port.
func redisTable(factor int) *catalog.Table {
	return &catalog.Table{
		Id: uint32(catalog.RedisTableID), Keyspace: catalog.SystemKeyspace, Name: catalog.RedisTable,
		Hash: catalog.Hash_HASH_CRC16, State: catalog.TableState_TABLE_STATE_CREATING,
		ReplicationFactor: uint32(factor), HistoryRetentionMs: retentionMsIf,
		Schema: &catalog.Schema{
			Version: 1, NextColumnId: 3,
			Columns: []*catalog.Column{
				{Id: 1, Name: "key", Type: catalog.Type_TYPE_BYTES, Kind: catalog.ColumnKind_COLUMN_KIND_HASH},
				{Id: 2, Name: "document", Type: catalog.Type_TYPE_DOCUMENT, Kind: catalog.ColumnKind_COLUMN_KIND_REGULAR},
			},
		},
	}
}
