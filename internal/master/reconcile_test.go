package master

import (
	"testing"

	"github.com/braiddb/braid/internal/catalog"
)

func TestReconcile(t *testing.T) {
	replica := func(id, node uint64) *catalog.Replica {
		return &catalog.Replica{Id: id, Node: node, Role: catalog.Role_ROLE_VOTER}
	}
	c := FirstCatalog("c", []*catalog.Node{self("a:1"), self("b:1")}, First{Tablets: 1})
	c.MasterReplicas = []*catalog.Replica{replica(1, 1)}
	c.Tablets[0].Replicas = []*catalog.Replica{replica(5, 1), replica(6, 2)}
	c.NextReplicaId, c.NextTabletId = 10, 9
	running := c.CloneVT()
	running.Tablets[0].ConfigIndex = 7
	adding := c.CloneVT()
	adding.Tablets[0].Replicas = adding.Tablets[0].Replicas[:1]
	adding.Tablets[0].Adding = &catalog.Replica{Id: 8, Node: 2, Role: catalog.Role_ROLE_LEARNER}
	type list []string
	for _, test := range []struct {
		what string
		in   *catalog.Catalog
		node catalog.NodeID
		held []Local
		want list
	}{
		{"a founder begins its groups", c, 1, nil, list{"create 1/1 new", "create 2/5 new"}},
		{"what is here stays", c, 1, []Local{{Group: 1, Replica: 1}, {Group: 2, Replica: 5}}, nil},
		{"once a leader was seen nobody founds", running, 2, nil, list{"create 2/6"}},
		{"one that is added founds nothing", adding, 2, nil, list{"create 2/8"}},
		{"a removed one goes", c, 2, []Local{{Group: 1, Replica: 2}, {Group: 2, Replica: 6}}, list{"destroy 1/2"}},
		{"a superseded one goes, and its successor comes", c, 2, []Local{{Group: 2, Replica: 3}}, list{"destroy 2/3", "create 2/6 new"}},
		{"one that an old catalog does not know stays", c, 2, []Local{{Group: 2, Replica: 12}}, nil},
		{"so does one of a removed group's place", c, 2, []Local{{Group: 1, Replica: 12}, {Group: 2, Replica: 6}}, nil},
		{"a dropped table's group goes", c, 2, []Local{{Group: 2, Replica: 6}, {Group: 5, Replica: 7}}, list{"destroy 5/7"}},
		{"a group that an old catalog does not know stays", c, 2, []Local{{Group: 2, Replica: 6}, {Group: 9, Replica: 11}}, nil},
		{"what was destroyed is not made again", c, 2, []Local{{Group: 2, Dropped: 6}}, list{"lost 2/6"}},
		{"but a later one is", adding, 2, []Local{{Group: 2, Dropped: 6}}, list{"create 2/8"}},
		{"a mark of a group that is gone goes", c, 2, []Local{{Group: 2, Replica: 6}, {Group: 5, Dropped: 7}}, list{"forget 5/0"}},
		{"a mark of a removed place stays", c, 2, []Local{{Group: 1, Dropped: 2}, {Group: 2, Replica: 6}}, nil},
		{"nothing is known yet", &catalog.Catalog{}, 2, []Local{{Group: 1, Replica: 1}, {Group: 2, Replica: 6}}, nil},
	} {
		var got list
		for _, a := range Reconcile(test.node, catalog.NewIndex(test.in), test.held) {
			s := a.Kind.String() + " " + string(rune('0'+a.Group)) + "/" + string(rune('0'+a.Replica))
			if a.New {
				s += " new"
			}
			if a.Kind == CreateReplica && (a.Tablet == nil || (a.Table == nil) != (a.Group == catalog.MasterGroup) || a.New != (len(a.Conf) > 0)) {
				t.Errorf("%s: incomplete %+v", test.what, a)
			}
			got = append(got, s)
		}
		if len(got) != len(test.want) {
			t.Errorf("%s: %v, want %v", test.what, got, test.want)
			continue
		}
		for i := range got {
			if got[i] != test.want[i] {
				t.Errorf("%s: %v, want %v", test.what, got, test.want)
			}
		}
	}
}

func TestReplicationOf(t *testing.T) {
	if got := ReplicationOf(nil).String(); got != "no data" {
		t.Errorf("nothing: %q", got)
	}
	c := FirstCatalog("c", []*catalog.Node{self("a:1"), self("b:1"), self("c:1")}, First{Tablets: 3})
	if got := ReplicationOf(c); got.String() != "3 copies" || got.Groups != 4 || got.Under != 0 {
		t.Errorf("whole: %+v", got)
	}
	c.Nodes[2].State = catalog.NodeState_NODE_STATE_DEAD
	if got := ReplicationOf(c); got.String() != "4 of 4 groups under-replicated" || got.Fewest != 2 || got.Wanted != 3 {
		t.Errorf("a node is dead: %+v", got)
	}
	c.Nodes[1].State = catalog.NodeState_NODE_STATE_DEAD
	if got := ReplicationOf(c).String(); got != "one copy" {
		t.Errorf("two are: %q", got)
	}
	c.Tables[0].ReplicationFactor = 1
	if got := ReplicationOf(c); got.Under != 1 || got.String() != "one copy" {
		t.Errorf("only the master wants more: %+v", got)
	}
}
