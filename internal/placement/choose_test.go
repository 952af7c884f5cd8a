package placement

import (
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/braiddb/braid/internal/catalog"
)

func TestChooseReplicas(t *testing.T) {
	type ids = []catalog.NodeID
	nodes := []Node{
		{ID: 1, Location: "eu/a/1"}, {ID: 2, Location: "eu/a/2"}, {ID: 3, Location: "eu/b/1"},
		{ID: 4, Location: "us/a/1"}, {ID: 5, Location: "us/a/1", State: Silent}, {ID: 6, Location: "us/b/1", State: Dead},
	}
	for _, c := range []struct {
		what string
		load map[catalog.NodeID]Load
		n    int
		want ids
	}{
		{"over regions, then zones", nil, 3, ids{1, 4, 3}},
		{"all that live", nil, 9, ids{1, 4, 3, 2}},
		{"none", nil, 0, ids{}},
		{"the emptiest first", map[catalog.NodeID]Load{1: {Table: 2}, 2: {Table: 1}, 3: {Table: 1, Total: 5}}, 1, ids{4}},
		{"domains before load", map[catalog.NodeID]Load{4: {Table: 9, Total: 9}}, 2, ids{1, 4}},
		{"table before total", map[catalog.NodeID]Load{1: {Total: 9}, 2: {Table: 1}, 3: {Table: 1}, 4: {Table: 1}}, 1, ids{1}},
	} {
		if got := ChooseReplicas(nodes, c.load, c.n); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
}

// The tablets of a new table lie and are led evenly from the start.
func TestChooseTabletsIsEven(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 7).Draw(t, "nodes")
		tablets, factor := rapid.IntRange(1, 20).Draw(t, "tablets"), rapid.IntRange(1, 5).Draw(t, "factor")
		var nodes []Node
		for i := range n {
			nodes = append(nodes, Node{ID: catalog.NodeID(i + 1)})
		}
		holds, leads := map[catalog.NodeID]int{}, map[catalog.NodeID]int{}
		for _, on := range ChooseTablets(nodes, nil, tablets, factor) {
			if len(on) != min(n, factor) {
				t.Fatalf("%d replicas on %d nodes", len(on), n)
			}
			leads[on[0]]++
			for _, id := range on {
				holds[id]++
			}
		}
		for _, count := range []map[catalog.NodeID]int{holds, leads} {
			least, most := 1<<30, 0
			for _, node := range nodes {
				least, most = min(least, count[node.ID]), max(most, count[node.ID])
			}
			if most-least > 1 {
				t.Fatalf("uneven: %v", count)
			}
		}
	})
}

func TestDefaults(t *testing.T) {
	for nodes, want := range map[int]int{1: 3, 3: 3, 5: 5, 64: 64, 1000: 64} {
		if got := DefaultTablets(nodes); got != want {
			t.Errorf("%d tablets on %d nodes, want %d", got, nodes, want)
		}
	}
	for _, c := range [][3]int{{1, 1, 3}, {4, 3, 3}, {5, 3, 5}, {4, 5, 5}, {3, 4, 3}} {
		if got := MasterFactor(c[0], c[1]); got != c[2] {
			t.Errorf("MasterFactor(%d, %d) = %d, want %d", c[0], c[1], got, c[2])
		}
	}
}

func TestSharing(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"eu/a", "", 0}, {"eu/a/1", "us/a/1", 0}, {"eu/a/1", "eu/b/1", 1}, {"eu/a/1", "eu/a/2", 2}, {"eu/a/1", "eu/a/1", 3}, {"eu", "eu/a", 1},
	} {
		if got := sharing(c.a, c.b); got != c.want {
			t.Errorf("sharing(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
	// One pair in one rack outweighs every pair of nine replicas in one zone.
	if penalty("a/b/c", "a/b/c") <= 36*penalty("a/b/c", "a/b/d") {
		t.Error("a deeper domain does not outweigh all shallower ones")
	}
}
