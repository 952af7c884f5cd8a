package catalog

import (
	"testing"

	"pgregory.net/rapid"
)

func TestIndexFindsEverything(t *testing.T) {
	c := sound()
	x := NewIndex(c)
	if x.Catalog() != c || x.Version() != 7 {
		t.Error("not the catalog that was indexed")
	}
	if x.Table(RedisTableID) != c.Tables[0] || x.TableNamed("shop", "orders") != c.Tables[1] || x.TableNamed("shop", "redis") != nil {
		t.Error("tables")
	}
	if x.Node(2) != c.Nodes[1] || x.Node(9) != nil || x.Keyspace("shop") != c.Keyspaces[1] {
		t.Error("nodes or keyspaces")
	}
	if x.Group(3) != c.Tablets[1] || x.Group(MasterGroup).Replicas[0] != c.MasterReplicas[0] || x.Group(99) != nil {
		t.Error("groups")
	}
	if got := x.Tablets(RedisTableID); len(got) != 2 || got[0].Id != 3 || got[1].Id != 2 {
		t.Errorf("tablets are not in the order of their ranges: %v", got)
	}
	for slot, want := range map[uint32]uint64{0: 3, 8191: 3, 8192: 2, 16383: 2} {
		if got := x.TabletFor(RedisTableID, SlotStart(slot)); got.GetId() != want {
			t.Errorf("slot %d is in tablet %d, want %d", slot, got.GetId(), want)
		}
	}
	if x.TabletFor(99, 0) != nil {
		t.Error("a tablet of no table")
	}
}

func TestTabletMembers(t *testing.T) {
	tablet := &Tablet{
		Replicas: []*Replica{{Id: 5, Node: 1, Role: Role_ROLE_VOTER}},
		Adding:   &Replica{Id: 6, Node: 2, Role: Role_ROLE_LEARNER},
	}
	if tablet.ReplicaOn(2).GetId() != 6 || tablet.ReplicaOn(3) != nil || tablet.Replica(5).GetNode() != 1 || tablet.Replica(7) != nil {
		t.Error("members are not found")
	}
	if !tablet.Changing() || (&Tablet{Replicas: tablet.Replicas}).Changing() {
		t.Error("changing")
	}
	n := 0
	for range tablet.Members() {
		n++
		break
	}
	if n != 1 {
		t.Error("iteration goes on after break")
	}
}

// Ranges tile the hash space for every count, and never cut a slot.
func TestRangesTile(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		hash := rapid.SampledFrom([]Hash{Hash_HASH_CRC16, Hash_HASH_MURMUR3}).Draw(t, "hash")
		n := rapid.IntRange(1, 300).Draw(t, "tablets")
		var tablets []*Tablet
		for i, r := range Ranges(hash, n) {
			tablets = append(tablets, &Tablet{Id: uint64(i + 2), HashStart: r.Start, HashEnd: r.End})
			if hash == Hash_HASH_CRC16 && SlotStart(uint32(HashSlot(r.Start))) != r.Start {
				t.Fatalf("tablet %d starts inside a slot: %#x", i, r.Start)
			}
		}
		if err := validateTiling(&Table{Id: 1}, tablets); err != nil {
			t.Fatal(err)
		}
		h := rapid.Uint64().Draw(t, "position")
		if got := TabletFor(tablets, h); got == nil || !got.Owns(h) {
			t.Fatalf("%#x is in %v", h, got)
		}
	})
	if got := Ranges(Hash_HASH_CRC16, RedisSlots); got[RedisSlots-1].Start != SlotStart(RedisSlots-1) {
		t.Error("one tablet a slot")
	}
}

func TestShallowSharesDescriptorsOnly(t *testing.T) {
	c := sound()
	before := c.CloneVT()
	next := c.Shallow()
	if !next.EqualVT(c) {
		t.Fatal("a shallow copy differs")
	}
	next.SetGroup(&Tablet{Id: 3, Table: 1, Version: 9})
	next.SetGroup(&Tablet{Id: 1, Version: 9, Adding: &Replica{Id: 19, Node: 3}, Removing: 2, ConfigIndex: 4})
	next.Nodes[0] = &Node{Id: 1}
	if !c.EqualVT(before) {
		t.Error("changing the copy changed the original")
	}
	if m := next.MasterTablet(); m.Version != 9 || m.Adding.GetId() != 19 || m.Removing != 2 || m.ConfigIndex != 4 {
		t.Errorf("master's group: %v", m)
	}
}

func TestEveryFieldOfACatalogIsCopied(t *testing.T) {
	c := sound()
	c.MasterAdding, c.MasterRemoving, c.MasterConfigIndex, c.MasterDescriptor = &Replica{Id: 1}, 2, 3, 4
	c.LogDirectories, c.LogGroups, c.NextLogId, c.NextLogItemId = []*LogDirectory{{Id: 1}}, []*LogGroup{{Id: 2}}, 5, 6
	c.LogDefaults, c.LogVersion, c.LogEpochStore = &LogAttributes{}, 7, "table"
	full := c.ProtoReflect()
	for i := range full.Descriptor().Fields().Len() {
		f := full.Descriptor().Fields().Get(i)
		if !full.Has(f) {
			t.Fatalf("the test does not set %s", f.Name())
		}
		if !c.Shallow().ProtoReflect().Has(f) {
			t.Errorf("Shallow forgets %s", f.Name())
		}
	}
}
