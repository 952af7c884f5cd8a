package catalog

import (
	"strings"
	"testing"
)

func TestText(t *testing.T) {
	c := sound()
	c.Tablets[2].Adding, c.Tablets[2].Removing, c.Tablets[2].ConfigIndex = &Replica{Id: 13, Node: 4}, 10, 99
	c.Nodes[2].Location = "eu/a"
	got := Text(c)
	for _, want := range []string{
		"catalog 7 of cluster c\n",
		"node 3  unspecified in eu/a\n",
		"table 2 shop.orders murmur3 x3 unspecified, schema 1: customer#1 string hash, at#2 timestamp range desc, total#3 int64\n",
		"master v0: 1@n1 2@n2 3@n3(learner)\n",
		"tablet 3 of 1 [0x0, 0x8000000000000000) v0: 7@n1 8@n2 9@n3(learner)\n",
		"tablet 4 of 2 [0x0, end) v0: 10@n1 11@n2 12@n3(learner) +13@n4 -10 as of 99\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no line %q in\n%s", want, got)
		}
	}
	if Text(nil) == "" {
		t.Error("nothing about nothing")
	}
}
