package catalog

import (
	"errors"
	"testing"
)

// sound is a catalog with three nodes, the Redis table in two tablets and a
// table of rows in one.
func sound() *Catalog {
	voters := func(first uint64) []*Replica {
		return []*Replica{
			{Id: first, Node: 1, Role: Role_ROLE_VOTER},
			{Id: first + 1, Node: 2, Role: Role_ROLE_VOTER},
			{Id: first + 2, Node: 3, Role: Role_ROLE_LEARNER},
		}
	}
	return &Catalog{
		ClusterId: "c", Version: 7,
		Keyspaces: []*Keyspace{{Name: "system", ReplicationFactor: 3}, {Name: "shop", ReplicationFactor: 3}},
		Nodes: []*Node{
			{Id: 1, DirectoryId: []byte("a")}, {Id: 2, DirectoryId: []byte("b")}, {Id: 3, DirectoryId: []byte("c")},
		},
		Tables: []*Table{
			{Id: 1, Keyspace: "system", Name: "redis", Hash: Hash_HASH_CRC16, ReplicationFactor: 3, Schema: &Schema{
				Version: 1, NextColumnId: 3, Columns: []*Column{
					{Id: 1, Name: "key", Type: Type_TYPE_BYTES, Kind: ColumnKind_COLUMN_KIND_HASH},
					{Id: 2, Name: "document", Type: Type_TYPE_DOCUMENT, Kind: ColumnKind_COLUMN_KIND_REGULAR},
				}}},
			{Id: 2, Keyspace: "shop", Name: "orders", Hash: Hash_HASH_MURMUR3, ReplicationFactor: 3, Schema: &Schema{
				Version: 1, NextColumnId: 4, Columns: []*Column{
					{Id: 1, Name: "customer", Type: Type_TYPE_STRING, Kind: ColumnKind_COLUMN_KIND_HASH},
					{Id: 2, Name: "at", Type: Type_TYPE_TIMESTAMP, Kind: ColumnKind_COLUMN_KIND_RANGE, Descending: true},
					{Id: 3, Name: "total", Type: Type_TYPE_INT64, Kind: ColumnKind_COLUMN_KIND_REGULAR},
				}}},
		},
		Tablets: []*Tablet{
			{Id: 2, Table: 1, HashStart: SlotStart(8192), Replicas: voters(4)},
			{Id: 3, Table: 1, HashEnd: SlotStart(8192), Replicas: voters(7)},
			{Id: 4, Table: 2, Replicas: voters(10)},
		},
		MasterReplicas: voters(1),
		NextTableId:    3, NextTabletId: 5, NextReplicaId: 20, NextNodeId: 4,
	}
}

func TestValidate(t *testing.T) {
	if err := Validate(sound()); err != nil {
		t.Fatalf("a sound catalog is refused: %v", err)
	}
	for _, c := range []struct {
		what      string
		invariant string
		breakIt   func(*Catalog)
	}{
		{"gap", "C1", func(c *Catalog) { c.Tablets[1].HashEnd-- }},
		{"overlap", "C1", func(c *Catalog) { c.Tablets[1].HashEnd++ }},
		{"closed end", "C1", func(c *Catalog) { c.Tablets[2].HashEnd = 1 << 63 }},
		{"late start", "C1", func(c *Catalog) { c.Tablets[2].HashStart = 1 }},
		{"open in the middle", "C1", func(c *Catalog) { c.Tablets[1].HashEnd = 0 }},
		{"same range twice", "C1", func(c *Catalog) { c.Tablets[0].HashStart = 0 }},
		{"no tablet", "C1", func(c *Catalog) { c.Tablets = c.Tablets[:2] }},
		{"tablet without table", "C1", func(c *Catalog) { c.Tables = c.Tables[:1] }},
		{"node id twice", "C2", func(c *Catalog) { c.Nodes[1].Id = 1 }},
		{"node id to come", "C2", func(c *Catalog) { c.NextNodeId = 3 }},
		{"directory twice", "C2", func(c *Catalog) { c.Nodes[1].DirectoryId = []byte("a") }},
		{"table id to come", "C2", func(c *Catalog) { c.NextTableId = 2 }},
		{"table id twice", "C2", func(c *Catalog) { c.Tables[1].Id = 1 }},
		{"tablet id twice", "C2", func(c *Catalog) { c.Tablets[1].Id = 2 }},
		{"tablet id to come", "C2", func(c *Catalog) { c.NextTabletId = 4 }},
		{"master's group id", "C2", func(c *Catalog) { c.Tablets[0].Id = 1 }},
		{"replica id in two groups", "C2", func(c *Catalog) { c.Tablets[1].Replicas[0].Id = 4 }},
		{"replica id in a tablet and the master", "C2", func(c *Catalog) { c.Tablets[1].Replicas[0].Id = 1 }},
		{"replica id to come", "C2", func(c *Catalog) { c.NextReplicaId = 12 }},
		{"replica on no node", "C2", func(c *Catalog) { c.Tablets[1].Replicas[0].Node = 9 }},
		{"two on a node", "C3", func(c *Catalog) { c.Tablets[1].Replicas[0].Node = 2 }},
		{"two on a node, one being added", "C3", func(c *Catalog) {
			c.Tablets[1].Adding = &Replica{Id: 15, Node: 2, Role: Role_ROLE_LEARNER}
		}},
		{"two masters on a node", "C3", func(c *Catalog) { c.MasterReplicas[0].Node = 2 }},
		{"no schema", "C4", func(c *Catalog) { c.Tables[0].Schema = nil }},
		{"schema version 0", "C4", func(c *Catalog) { c.Tables[0].Schema.Version = 0 }},
		{"column id twice", "C4", func(c *Catalog) { c.Tables[1].Schema.Columns[1].Id = 1 }},
		{"column id to come", "C4", func(c *Catalog) { c.Tables[1].Schema.NextColumnId = 3 }},
		{"column name twice", "C4", func(c *Catalog) { c.Tables[1].Schema.Columns[1].Name = "customer" }},
		{"range before hash", "C4", func(c *Catalog) {
			s := c.Tables[1].Schema
			s.Columns[0], s.Columns[1] = s.Columns[1], s.Columns[0]
		}},
		{"regular before range", "C4", func(c *Catalog) {
			s := c.Tables[1].Schema
			s.Columns[1], s.Columns[2] = s.Columns[2], s.Columns[1]
		}},
		{"column without type", "C4", func(c *Catalog) { c.Tables[1].Schema.Columns[2].Type = 0 }},
		{"column of a type to come", "C4", func(c *Catalog) { c.Tables[1].Schema.Columns[2].Type = 99 }},
		{"regular descends", "C4", func(c *Catalog) { c.Tables[1].Schema.Columns[2].Descending = true }},
		{"unknown kind", "C4", func(c *Catalog) { c.Tables[1].Schema.Columns[2].Kind = 9 }},
		{"keyspace twice", "C5", func(c *Catalog) { c.Keyspaces[1].Name = "system" }},
		{"keyspace without factor", "C5", func(c *Catalog) { c.Keyspaces[1].ReplicationFactor = 0 }},
		{"no such keyspace", "C5", func(c *Catalog) { c.Tables[1].Keyspace = "shoe" }},
		{"table name twice", "C5", func(c *Catalog) { c.Tables[1].Keyspace, c.Tables[1].Name = "system", "redis" }},
		{"table without a hash", "C5", func(c *Catalog) { c.Tables[1].Hash = 0 }},
		{"table without factor", "C5", func(c *Catalog) { c.Tables[1].ReplicationFactor = 0 }},
		{"no voter", "C6", func(c *Catalog) { c.Tablets[0].Replicas = c.Tablets[0].Replicas[2:] }},
		{"no replica", "C6", func(c *Catalog) { c.Tablets[0].Replicas = nil }},
		{"no master", "C6", func(c *Catalog) { c.MasterReplicas = nil }},
		{"no role", "C6", func(c *Catalog) { c.Tablets[0].Replicas[0].Role = 0 }},
		{"loses what it has not", "C6", func(c *Catalog) { c.Tablets[0].Removing = 1 }},
	} {
		broken := sound()
		c.breakIt(broken)
		var invalid *InvalidError
		if err := Validate(broken); !errors.As(err, &invalid) || invalid.Invariant != c.invariant {
			t.Errorf("%s: got %v, want %s", c.what, err, c.invariant)
		}
	}
}

func TestValidateSurvivesNil(t *testing.T) {
	for _, c := range []*Catalog{
		nil, {}, {Nodes: []*Node{nil}}, {Tables: []*Table{nil}}, {Tablets: []*Tablet{nil}}, {Keyspaces: []*Keyspace{nil}},
	} {
		if Validate(c) == nil {
			t.Errorf("%v is valid", c)
		}
	}
	broken := sound()
	broken.Tables[1].Schema.Columns[2] = nil
	if Validate(broken) == nil {
		t.Error("a missing column is valid")
	}
	broken = sound()
	broken.Tablets[1].Replicas[1] = nil
	if Validate(broken) == nil {
		t.Error("a missing replica is valid")
	}
}

func FuzzValidate(f *testing.F) {
	data, err := sound().MarshalVT()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte{})
	f.Add([]byte{0x22, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		c := new(Catalog)
		if c.UnmarshalVT(data) != nil {
			return
		}
		if Validate(c) == nil {
			x := NewIndex(c)
			for _, table := range c.Tables {
				for _, hash := range []uint64{0, 1 << 63, ^uint64(0)} {
					if x.TabletFor(TableID(table.Id), hash) == nil {
						t.Fatalf("no tablet of table %d owns %#x in a valid catalog", table.Id, hash)
					}
				}
			}
		}
	})
}
