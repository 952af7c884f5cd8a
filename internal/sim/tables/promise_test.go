package tables

import (
	"strings"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/multiraft"
	"github.com/braiddb/braid/internal/sim"
)

// stage is a replica on node 1 of a world in which nothing has happened yet, and what
// the world says of it in the end.
func stage(t *testing.T) (h *hosted, verdict func() string) {
	t.Helper()
	var said strings.Builder
	var c *cluster
	o := Wing().Draw(1)
	o.Knobs["managed"] = 0
	w := sim.NewWorld(o, &said, func(w *sim.World) sim.Cluster { c = newCluster(w); return c })
	m := c.members[0]
	m.acked = make([]hlc.Timestamp, len(w.Nodes))
	return &hosted{m: m, view: c.views[0], replica: 1}, func() string {
		if !w.Failed() {
			return ""
		}
		return said.String()
	}
}

// TestAVoteThatCarriesTooLittleIsFound: bounds bind while the voter stands by who they
// were acknowledged to, and not after that (T9); they are in its own vote, too (T10).
func TestAVoteThatCarriesTooLittleIsFound(t *testing.T) {
	const low, high = 100, 200
	for _, x := range []struct {
		name    string
		do      func(h *hosted)
		carries hlc.Timestamp
		found   bool
		own     hlc.Timestamp // what its own vote carries in term 9
	}{
		{"all that it acknowledged", func(h *hosted) {}, low, false, low},
		{"less", func(h *hosted) {}, low - 1, true, low},
		{"a bound under the same generation counts", func(h *hosted) { h.oaths.grow(2, 7, high) }, low, true, high},
		{"one after it was free does not", func(h *hosted) { h.oaths.grow(2, 8, high) }, low, false, low},
		{"nor one after it stood by another leader", func(h *hosted) {
			h.pledge(3, 6, 1)
			h.oaths.grow(2, 7, high)
		}, low, false, low},
		{"nor what a leader took back", func(h *hosted) { h.m.hears(2, []word{{kind: wordRevoked, group: h.view.id, to: h.replica, term: 5}}) }, 0, false, 0},
		{"nor what was said before that was heard", func(h *hosted) {
			h.m.hears(2, []word{{kind: wordRevoked, group: h.view.id, to: h.replica, term: 5}})
			h.pledge(2, 5, 7)
		}, 0, false, 0},
	} {
		h, verdict := stage(t)
		h.m.hosted = []*hosted{h}
		h.m.acked[2-1] = low
		h.pledge(2, 5, 7)
		x.do(h)
		if own := h.oaths.floor(9); own != x.own {
			t.Errorf("%s: its own vote carries %d, want %d", x.name, own, x.own)
		}
		h.checkVote(4, 9, x.carries)
		if got := verdict(); strings.Contains(got, "T9:") != x.found {
			t.Errorf("%s: found %q", x.name, got)
		}
	}
}

// TestALeaseThatNobodyKeepsIsFound is T14: a majority of every configuration, and no more.
func TestALeaseThatNobodyKeepsIsFound(t *testing.T) {
	conf := []*catalog.Replica{{Id: 1, Node: 1, Role: catalog.Role_ROLE_VOTER}, {Id: 2, Node: 2, Role: catalog.Role_ROLE_VOTER},
		{Id: 3, Node: 3, Role: catalog.Role_ROLE_VOTER}, {Id: 4, Node: 3, Role: catalog.Role_ROLE_LEARNER}}
	for _, x := range []struct {
		name  string
		node  int // who promised
		until time.Duration
		found bool
	}{
		{"one of two others", 3, time.Second, false},
		{"no other", 3, 0, true},
		{"one whose promise is over", 3, -time.Nanosecond, true},
	} {
		h, verdict := stage(t)
		o := h.m.c.members[x.node-1]
		o.promised[h.m.n.ID-1] = o.n.Mono() + x.until
		h.checkPromises(&multiraft.Status{Term: 3, LeaseRemaining: time.Millisecond}, conf)
		if got := verdict(); strings.Contains(got, "T14:") != x.found {
			t.Errorf("%s: found %q", x.name, got)
		}
	}
}
