package master

import (
	"strings"
	"testing"

	"github.com/braiddb/braid/internal/catalog"
)

// TestTheEpochStoreIsTheClusters (M10): the first node that says one decides.
func TestTheEpochStoreIsTheClusters(t *testing.T) {
	node := func(dir, store string) *catalog.Node {
		return &catalog.Node{RpcAddr: dir + ":1", DirectoryId: []byte(dir), EpochStore: store, Incarnation: 1}
	}
	founded := FirstCatalog("c", []*catalog.Node{node("a", "table"), node("b", "zookeeper:/x")}, First{})
	if founded.LogEpochStore != "table" {
		t.Errorf("founded on %q", founded.LogEpochStore)
	}
	founded.LogEpochStore = "" // by a release that did not say
	c := &change{was: catalog.NewIndex(founded), next: founded, out: &Applied{}}
	admit := func(n *catalog.Node) string {
		if err := c.admit(&Admit{Node: n}); err != nil {
			return err.Message
		}
		return ""
	}
	for _, n := range []*catalog.Node{node("d", ""), node("e", "zookeeper:/x"), node("f", "zookeeper:/x"), node("g", "")} {
		if refusal := admit(n); refusal != "" {
			t.Errorf("%s: %s", n.RpcAddr, refusal)
		}
	}
	if c.next.LogEpochStore != "zookeeper:/x" {
		t.Errorf("the first that said one said %q", c.next.LogEpochStore)
	}
	for _, store := range []string{"table", "zookeeper:/y"} {
		n, before := node("h", store), len(c.next.Nodes)
		refusal := admit(n)
		if !strings.Contains(refusal, "--epoch-store") || !strings.Contains(refusal, store) || len(c.next.Nodes) != before {
			t.Errorf("%s: refused with %q, %d nodes and then %d", store, refusal, before, len(c.next.Nodes))
		}
	}
	known := node("e", "table") // and a member that comes back with another is not described anew
	known.Id, known.Incarnation = c.node(4).Id, 2
	c.describe(known)
	if n := c.node(4); n.EpochStore != "zookeeper:/x" || n.Incarnation != 1 {
		t.Errorf("described as %v", n)
	}
}
