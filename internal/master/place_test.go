package master

import (
	"testing"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/wire"
)

// A leader that has just begun to listen knows of few nodes that they are alive. A table
// that is made at once waits until all have reported, or have been silent for as long as
// a node may be: on fewer nodes than there are it would not outlive a disk.
func TestATableWaitsForNodesToReport(t *testing.T) {
	w := grow(t)
	table := &catalog.Table{Keyspace: catalog.SystemKeyspace, Name: catalog.EpochTable}
	create := &wire.CatalogRequest{Action: wire.CatalogRequest_ACTION_CREATE_TABLE, Table: table, Tablets: 1, IfNotExists: true, ClientId: []byte("me"), RequestId: 1}
	group := w.groups[catalog.MasterGroup]
	handOver := func() {
		for _, r := range group.conf {
			if n := w.node(catalog.NodeID(r.Node)); n.up && n != w.leader() {
				group.leader = catalog.ReplicaID(r.Id)
				break
			}
		}
		group.term++
		w.leader().master.Tick(w.now)
		w.beat(w.leader())
	}
	handOver()
	if r := w.admin(create); r.Error.GetCode() != wire.Code_CODE_NOT_READY {
		t.Fatalf("one of three nodes has reported, and the table was made: %v", r)
	}
	down := w.leader() // it falls, and the next one is not told of it
	handOver()
	down.up = false
	for begin := w.now; w.now-begin < 4*time.Second; w.round() {
		if r := w.admin(create); r.Error.GetCode() != wire.Code_CODE_NOT_READY {
			t.Fatalf("two of three nodes have reported within %v, and the table was made: %v", w.now-begin, r)
		}
	}
	w.until("the third is silent", 4, func() bool { return w.admin(create).Error == nil })
	down.up = true
	w.until("three copies", 60, func() bool { return w.healthy(3) })
	handOver()
	if r := w.admin(create); r.Error != nil {
		t.Fatalf("a table that there is waits for nodes: %v", r.Error)
	}
	for _, n := range w.nodes {
		w.beat(n)
	}
	if r := w.admin(&wire.CatalogRequest{Action: wire.CatalogRequest_ACTION_CREATE_KEYSPACE, Keyspace: &catalog.Keyspace{Name: "shop"}}); r.Error != nil {
		t.Fatal(r.Error)
	}
	create.RequestId, create.Table = 2, &catalog.Table{Keyspace: "shop", Name: "orders", Hash: catalog.Hash_HASH_MURMUR3, Schema: &catalog.Schema{
		Columns: []*catalog.Column{{Name: "id", Type: catalog.Type_TYPE_INT64, Kind: catalog.ColumnKind_COLUMN_KIND_HASH}},
	}}
	made := w.admin(create)
	if made.Error != nil {
		t.Fatalf("all have reported: %v", made.Error)
	}
	for _, tablet := range catalog.NewIndex(w.catalog()).Tablets(catalog.TableID(made.Table.Id)) {
		if len(tablet.Replicas) != 3 {
			t.Errorf("a tablet is on %d nodes", len(tablet.Replicas))
		}
	}
}

// beat is one heartbeat of a node.
func (w *town) beat(n *townNode) {
	w.t.Helper()
	if r := w.leader().master.Heartbeat(w.now, &wire.HeartbeatRequest{Node: n.self.CloneVT(), Replicas: w.report(n), CatalogVersion: n.catalog.Version()}); r.Error != nil {
		w.t.Fatalf("heartbeat of node %d: %v", n.id, r.Error)
	}
}
