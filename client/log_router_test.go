package client

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/placement"
)

// routed is a cluster as routing sees it: nodes with views of their own, and who
// of them reigns.
type routed struct {
	views  map[NodeID]*logs.Cluster
	dead   map[NodeID]bool
	epoch  int
	reigns map[NodeID]int  // the epoch that it believes to reign in
	sticky map[NodeID]bool // it activated just now, and sends nobody away
}

// ask is what a node does with an append, as the reference's server decides.
func (c *routed) ask(node NodeID, log LogID, flags uint32) (status string, to NodeID) {
	if c.dead[node] {
		return "unreachable", 0
	}
	target, ok := placement.SequencerNode(c.views[node], log, "")
	stay := flags&(logs.AppendNoRedirect|logs.AppendReactivateIfPreempted) != 0
	switch {
	case stay || target == node || c.sticky[node]:
	case !ok:
		return "nobody", 0
	default:
		if n, _ := c.views[node].Node(target); n.Alive {
			return "redirected", target
		}
	}
	mine := c.reigns[node]
	if mine != 0 && mine < c.epoch && flags&logs.AppendReactivateIfPreempted == 0 {
		for other, e := range c.reigns {
			if n, _ := c.views[node].Node(other); e == c.epoch && n.Alive {
				return "preempted", other
			}
		}
	}
	if mine < c.epoch || mine == 0 {
		c.epoch++
		c.reigns[node] = c.epoch
	}
	return "ok", node
}

// route asks until somebody takes it.
func (c *routed) route(t *testing.T, r *logRouter, v *logs.Cluster, last NodeID) (node NodeID, hops int, trace []string) {
	for ok := r.begin(v, "", last); ok; {
		status, to := c.ask(r.at, r.log, r.flags)
		trace = append(trace, fmt.Sprintf("%d(%d):%s:%d", r.at, r.flags, status, to))
		switch status {
		case "ok":
			return r.at, r.hops + 1, trace
		case "unreachable", "nobody":
			ok = r.failed()
		default:
			ok = r.redirected(to, status == "preempted")
		}
	}
	return 0, r.hops, trace
}

func randomView(r *rand.Rand, n int) *logs.Cluster {
	v := &logs.Cluster{}
	for id := NodeID(1); int(id) <= n; id++ {
		v.Nodes = append(v.Nodes, logs.ClusterNode{ID: id, Alive: r.IntN(3) > 0, Sequencer: true, SequencerWeight: 1})
	}
	return v
}

// From whatever view, with whatever views the nodes have, an append reaches a node
// that takes it, within max(10, 3n) hops, as long as some node lives that the
// client's view knows to live.
func TestRoutingConvergesFromAnyView(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	worst, forced := 0, 0
	for round := range 20000 {
		n := 1 + r.IntN(12)
		c := &routed{views: map[NodeID]*logs.Cluster{}, dead: map[NodeID]bool{}, reigns: map[NodeID]int{}, sticky: map[NodeID]bool{}}
		for id := NodeID(1); int(id) <= n; id++ {
			c.dead[id] = r.IntN(3) == 0
		}
		for id := NodeID(1); int(id) <= n; id++ {
			c.views[id] = randomView(r, n)
			c.views[id].Nodes[id-1].Alive = true // it knows of itself
			if r.IntN(3) == 0 {
				c.epoch++
				c.reigns[id] = c.epoch
				c.sticky[id] = r.IntN(2) == 0
			}
		}
		mine := randomView(r, n)
		knows := false
		for id := NodeID(1); int(id) <= n; id++ {
			knows = knows || (mine.Nodes[id-1].Alive && !c.dead[id])
		}
		router := &logRouter{log: LogID(round + 1)}
		node, hops, trace := c.route(t, router, mine, NodeID(r.IntN(n+1)))
		if hops > max(10, 3*n) {
			t.Fatalf("round %d: %d hops among %d nodes: %v", round, hops, n, trace)
		}
		preempted := 0
		for _, h := range router.path {
			if h.preempted {
				preempted++
			}
		}
		if node == 0 && knows && preempted <= preemptedMax {
			t.Fatalf("round %d, %d nodes: nobody takes it: %v", round, n, trace)
		}
		if router.flags != 0 {
			forced++
		}
		worst = max(worst, hops)
		if node == 0 {
			continue
		}
		// No ping-pong: once taken, the same client stays there, at once.
		if again, hops, trace := c.route(t, router, mine, node); hops > max(10, 3*n) || again == 0 {
			t.Fatalf("round %d: then %d after %d hops: %v", round, again, hops, trace)
		}
	}
	if worst < 4 || forced == 0 {
		t.Errorf("nothing was tried: at most %d hops, %d forced", worst, forced)
	}
	t.Logf("at most %d hops, %d of 20000 forced", worst, forced)
}

// With one view everywhere every client finds the same node with its first
// request, and nobody is activated twice.
func TestRoutingSettlesWhenViewsAgree(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for log := LogID(1); log < 300; log++ {
		n := 1 + r.IntN(9)
		c := &routed{views: map[NodeID]*logs.Cluster{}, dead: map[NodeID]bool{}, reigns: map[NodeID]int{}, sticky: map[NodeID]bool{}}
		v := &logs.Cluster{}
		for id := NodeID(1); int(id) <= n; id++ {
			c.dead[id] = n > 1 && r.IntN(4) == 0
			v.Nodes = append(v.Nodes, logs.ClusterNode{ID: id, Alive: !c.dead[id], Sequencer: true, SequencerWeight: 1})
			c.views[id] = v
		}
		want, ok := placement.SequencerNode(v, log, "")
		if !ok {
			continue
		}
		for range 5 { // who has a stale view is no harm to the others
			if _, hops, trace := c.route(t, &logRouter{log: log}, randomView(r, n), 0); hops > max(10, 3*n) {
				t.Fatalf("log %d: %d hops: %v", log, hops, trace)
			}
		}
		before := c.epoch
		node, hops, trace := c.route(t, &logRouter{log: log}, v, 0)
		if node != want || hops != 1 || c.epoch > before+1 {
			t.Fatalf("log %d: node %d takes it after %d hops, it is node %d's: %v", log, node, hops, want, trace)
		}
	}
}

func TestRoutingByHand(t *testing.T) {
	view := func(n int) *logs.Cluster {
		v := &logs.Cluster{}
		for id := NodeID(1); int(id) <= n; id++ {
			v.Nodes = append(v.Nodes, logs.ClusterNode{ID: id, Alive: true, Sequencer: true, SequencerWeight: 1})
		}
		return v
	}
	force, reactivate := logs.AppendNoRedirect, logs.AppendNoRedirect|logs.AppendReactivateIfPreempted
	expect := func(r *logRouter, ok bool, at NodeID, flags uint32) {
		t.Helper()
		if !ok || r.at != at || r.flags != flags {
			t.Fatalf("ok %v, node %d with flags %b; wanted node %d with %b", ok, r.at, r.flags, at, flags)
		}
	}
	// A cycle is broken by its highest node, here one that is not preempted.
	r := &logRouter{log: 1}
	expect(r, r.begin(view(5), "", 2), 2, 0)
	expect(r, r.redirected(4, false), 4, 0)
	expect(r, r.redirected(3, true), 3, 0)
	expect(r, r.redirected(4, false), 4, reactivate)
	// A tail before the cycle is no part of it.
	expect(r, r.begin(view(5), "", 5), 5, 0)
	expect(r, r.redirected(1, false), 1, 0)
	expect(r, r.redirected(2, false), 2, 0)
	expect(r, r.redirected(1, false), 2, force)
	// Who names a node that cannot be reached has to take it himself.
	expect(r, r.begin(view(2), "", 1), 1, 0)
	expect(r, r.failed(), 2, 0)
	expect(r, r.redirected(1, true), 2, reactivate)
	// Four that are preempted are too many.
	expect(r, r.begin(view(9), "", 1), 1, 0)
	for to := NodeID(2); to <= 4; to++ {
		expect(r, r.redirected(to, true), to, 0)
	}
	if r.redirected(5, true) {
		t.Error("a fourth preemption was believed")
	}
	// Nobody is left.
	expect(r, r.begin(view(1), "", 1), 1, 0)
	if r.failed() {
		t.Error("the only node failed, and somebody is left")
	}
	// Who the view holds for dead is not asked first.
	v := view(2)
	v.Nodes[0].Alive = false
	expect(r, r.begin(v, "", 1), 2, 0)
}
