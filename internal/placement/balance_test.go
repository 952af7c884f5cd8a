package placement

import (
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/braiddb/braid/internal/catalog"
)

var places = []string{"", "eu/a/1", "eu/a/2", "eu/b/1", "us/a/1", "us/b/1", "asia/a/1"}

// From any state the steps end, P1 and P2 hold at each, and at the end nothing
// that could be better is not.
func TestBalanceSettlesFromAnyState(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := draw(t, places)
		w.settle(t, Options{})
		for i := range w.Groups {
			checkSettled(t, w, &w.Groups[i])
		}
	})
}

func checkSettled(t *rapid.T, w *world, g *Group) {
	if g.Leader == 0 {
		return
	}
	b := newBalancer(&w.Cluster, Options{}.withDefaults())
	silent := false
	for i := range g.Replicas {
		silent = silent || w.node(g.Replicas[i].Node).State == Silent
	}
	silent = silent || (g.Adding != nil && w.node(g.Adding.Node).State == Silent)
	if g.changing() {
		// Only a node that says nothing holds a change up, or a leader with nobody to follow it.
		if !silent && b.heir(g) != nil {
			t.Fatalf("group %d never finishes its change:\n%s", g.ID, w)
		}
		return
	}
	sound, free := b.sound(g), 0
	for _, n := range w.Nodes {
		if n.State == Alive && !g.on(n.ID) && !b.spoilt[n.ID] { // P6: a silent node may hold up what has to leave first
			free++
		}
	}
	if sound < g.Factor && free > 0 {
		t.Fatalf("group %d has %d of %d replicas and %d nodes are free:\n%s", g.ID, sound, g.Factor, free, w)
	}
	if broken := b.broken(g); broken != nil && sound >= g.Factor && b.safeWithout(g, broken) {
		t.Fatalf("group %d keeps a broken replica:\n%s", g.ID, w)
	}
}

// Without failures and without locations, replicas and leaders end within one of
// each other.
func TestBalanceIsEven(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := draw(t, []string{""})
		for i := range w.Nodes {
			w.Nodes[i].State = Alive
		}
		for i := range w.Groups {
			w.Groups[i].Table = 1
			for j := range w.Groups[i].Replicas {
				w.Groups[i].Replicas[j].Lost = false
			}
		}
		w.settle(t, Options{})
		least, most := counts(w, func(g *Group) (on []catalog.NodeID) {
			for _, r := range g.Replicas {
				on = append(on, r.Node)
			}
			return on
		})
		if most-least > 1 {
			t.Fatalf("nodes hold from %d to %d replicas:\n%s", least, most, w)
		}
		for i := range w.Groups {
			if g := &w.Groups[i]; len(g.Replicas) != min(g.Factor, len(w.Nodes)) {
				t.Fatalf("group %d has %d replicas:\n%s", g.ID, len(g.Replicas), w)
			}
		}
	})
}

func TestLeadersAreEven(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes, groups := rapid.IntRange(1, 5).Draw(t, "nodes"), rapid.IntRange(1, 20).Draw(t, "groups")
		w := grown(nodes, groups, nodes)
		for i := range w.Groups {
			w.Groups[i].Leader = rapid.SampledFrom(w.Groups[i].Replicas).Draw(t, "leader").ID
		}
		w.settle(t, Options{LeadersMax: rapid.IntRange(1, 8).Draw(t, "at once")})
		least, most := counts(w, func(g *Group) []catalog.NodeID { return []catalog.NodeID{g.leader().Node} })
		if most-least > 1 {
			t.Fatalf("nodes lead from %d to %d groups:\n%s", least, most, w)
		}
	})
}

// grown is n alive nodes and groups of table 1 with a replica on each of the
// first `on` nodes.
func grown(n, groups, on int) *world {
	w := &world{nextReplica: 1}
	for i := range n {
		w.Nodes = append(w.Nodes, Node{ID: catalog.NodeID(i + 1)})
	}
	for i := range groups {
		g := Group{ID: catalog.GroupID(i + 2), Table: 1, Factor: 3}
		for j := range on {
			g.Replicas = append(g.Replicas, Replica{ID: w.nextReplica, Node: catalog.NodeID(j + 1), Voter: true})
			w.nextReplica++
		}
		w.Groups = append(w.Groups, g)
	}
	return w
}

func TestOneNodeGrowsToThreeAndToSix(t *testing.T) {
	w := grown(1, 6, 1)
	if w.settle(t, Options{}); len(w.Groups[0].Replicas) != 1 {
		t.Fatal("one node cannot hold two replicas")
	}
	for _, n := range []int{3, 6} {
		for len(w.Nodes) < n {
			w.Nodes = append(w.Nodes, Node{ID: catalog.NodeID(len(w.Nodes) + 1)})
		}
		w.settle(t, Options{})
		if least, most := counts(w, func(g *Group) []catalog.NodeID { return []catalog.NodeID{g.leader().Node} }); least != 6/n || most != 6/n {
			t.Errorf("%d nodes lead %d to %d of 6 groups:\n%s", n, least, most, w)
		}
		for i := range w.Groups {
			if len(w.Groups[i].Replicas) != 3 {
				t.Errorf("group %d has not three replicas:\n%s", w.Groups[i].ID, w)
			}
		}
	}
}

func TestLimits(t *testing.T) {
	w := grown(4, 40, 1)
	w.elect()
	into := map[catalog.NodeID]int{}
	steps := Balance(&w.Cluster, Options{ChangesMax: 7, IncomingMax: 3, LeadersMax: 2})
	for _, s := range steps {
		if s.Kind != PlanAdd && s.Kind != PlanReplace {
			t.Errorf("unexpected %v", s)
		}
		into[s.Node]++
	}
	if len(steps) != 7 {
		t.Errorf("%d changes at once, want 7", len(steps))
	}
	for n, count := range into {
		if count > 3 {
			t.Errorf("node %d gets %d replicas at once", n, count)
		}
	}
	w = grown(3, 12, 3)
	w.elect()
	if steps := Balance(&w.Cluster, Options{LeadersMax: 2}); len(steps) != 2 {
		t.Errorf("%d leaders move at once, want 2: %v", len(steps), steps)
	}
}

func TestDrainingNodeGivesUpItsLeaders(t *testing.T) {
	w := grown(3, 9, 3)
	w.settle(t, Options{})
	w.Nodes[0].State = Draining
	for _, s := range Balance(&w.Cluster, Options{LeadersMax: 1}) {
		if s.Kind != TransferLeader {
			t.Errorf("draining moves replicas: %v", s)
		}
		w.apply(t, s)
	}
	for i := range w.Groups {
		if w.Groups[i].leader().Node == 1 {
			t.Errorf("group %d is still led by the draining node", w.Groups[i].ID)
		}
	}
}

// A dead node's replicas are replaced, and stay in the configuration until they are.
func TestDeadNodeIsReplaced(t *testing.T) {
	w := grown(3, 3, 3)
	w.settle(t, Options{})
	w.Nodes[2].State = Dead
	w.settle(t, Options{})
	for i := range w.Groups {
		if len(w.Groups[i].Replicas) != 3 {
			t.Fatalf("a dead node's replica was dropped with nothing in its place:\n%s", w)
		}
	}
	w.Nodes = append(w.Nodes, Node{ID: 4})
	w.settle(t, Options{})
	for i := range w.Groups {
		if g := &w.Groups[i]; g.on(3) || !g.on(4) || len(g.Replicas) != 3 {
			t.Fatalf("group %d:\n%s", g.ID, w)
		}
	}
}

// The node that replaces a dead one dies before the dead one's replica has left, at any
// step. Two of three live: the group goes on, and a third one replaces both.
func TestTheReplacementDiesToo(t *testing.T) {
	for steps := range 6 {
		w := grown(3, 1, 3)
		w.settle(t, Options{})
		w.Nodes[2].State = Gone
		w.Nodes = append(w.Nodes, Node{ID: 4})
		for range steps {
			w.elect()
			for _, s := range Balance(&w.Cluster, Options{}) {
				w.apply(t, s)
			}
			for i := range w.Groups[0].Replicas {
				w.Groups[0].Replicas[i].CaughtUp = true
			}
		}
		w.Nodes[3].State = Gone
		w.Nodes = append(w.Nodes, Node{ID: 5})
		w.settle(t, Options{})
		if g := &w.Groups[0]; g.Leader == 0 || g.changing() || len(g.Replicas) != 3 || !g.on(5) {
			t.Errorf("after %d steps:\n%s", steps, w)
		}
	}
}

// A replica whose node lives but cannot serve it is made anew, under a new id, on
// the same node where there is no other.
func TestLostReplicaIsMadeAnewOnItsNode(t *testing.T) {
	w := grown(3, 1, 3)
	w.Groups[0].Replicas[1].Lost = true
	lost := w.Groups[0].Replicas[1].ID
	w.settle(t, Options{})
	g := &w.Groups[0]
	if len(g.Replicas) != 3 || !g.on(2) || g.replica(lost) != nil {
		t.Fatalf("%s", w)
	}
}

// A node whose files are damaged says so of every replica there, leaders too, which go on
// meanwhile. They give their leadership away at once; all leave before the node is given a
// new one (settle looks at P6), and then it has as many again.
func TestANodeThatLostAllItsReplicas(t *testing.T) {
	w := grown(3, 6, 3)
	for i := range w.Groups {
		r := w.Groups[i].at(2)
		r.Lost = true
		w.Groups[i].Leader = r.ID
	}
	given := map[catalog.GroupID]bool{}
	for _, s := range Balance(&w.Cluster, Options{}) {
		if s.Kind == TransferLeader && s.To == 2 && s.Node != 2 {
			given[s.Group] = true
		}
	}
	if len(given) != len(w.Groups) {
		t.Errorf("leaderships of %v are given away:\n%s", given, w)
	}
	w.settle(t, Options{})
	for i := range w.Groups {
		if g := &w.Groups[i]; len(g.Replicas) != 3 || g.at(2) == nil || g.at(2).Lost {
			t.Errorf("group %d:\n%s", g.ID, w)
		}
	}
}

func TestReplicasSpreadOverDomains(t *testing.T) {
	w := grown(3, 4, 3) // all in one zone
	for i := range w.Nodes {
		w.Nodes[i].Location = "eu/a/" + string(rune('1'+i))
	}
	w.Nodes = append(w.Nodes, Node{ID: 4, Location: "eu/b/1"}, Node{ID: 5, Location: "eu/c/1"})
	w.settle(t, Options{})
	for i := range w.Groups {
		if g := &w.Groups[i]; !g.on(4) || !g.on(5) {
			t.Errorf("group %d is not in three zones:\n%s", g.ID, w)
		}
	}
}

func TestBalanceIsDeterministic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := draw(t, places)
		w.elect()
		if a, b := Balance(&w.Cluster, Options{}), Balance(&w.Cluster, Options{}); !reflect.DeepEqual(a, b) {
			t.Fatalf("one cluster, two answers:\n%v\n%v", a, b)
		}
	})
}

// Nodes fail and come back between rounds; whatever happens P1 and P2 hold (the
// world checks them), and when it stops the steps end.
func TestBalanceUnderFailures(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := draw(t, places)
		for range rapid.IntRange(1, 25).Draw(t, "rounds") {
			w.elect()
			for _, s := range Balance(&w.Cluster, Options{ChangesMax: 4, IncomingMax: 2}) {
				if rapid.Bool().Draw(t, "carried out") {
					w.apply(t, s)
				}
			}
			n := &w.Nodes[rapid.IntRange(0, len(w.Nodes)-1).Draw(t, "node")]
			n.State = rapid.SampledFrom([]State{Alive, Alive, Draining, Silent, Dead, Gone}).Draw(t, "becomes")
			g := &w.Groups[rapid.IntRange(0, len(w.Groups)-1).Draw(t, "group")]
			for i := range g.Replicas {
				g.Replicas[i].CaughtUp = rapid.Bool().Draw(t, "caught up")
			}
		}
		w.settle(t, Options{})
	})
}

// n1 leads two groups that n2 shares, n2 one that n3 shares, n3 none: no single
// move helps, two do.
func TestLeadersMoveAlongAChain(t *testing.T) {
	w := grown(3, 3, 0)
	for i, on := range [][]catalog.NodeID{{1, 2}, {1, 2}, {2, 3}} {
		g := &w.Groups[i]
		g.Factor = 2
		for j, n := range on {
			g.Replicas = append(g.Replicas, Replica{ID: w.nextReplica, Node: n, Voter: true, CaughtUp: true})
			if j == 0 {
				g.Leader = w.nextReplica
			}
			w.nextReplica++
		}
	}
	b := newBalancer(&w.Cluster, Options{}.withDefaults())
	b.moveLeaders()
	steps := b.steps
	for _, s := range steps {
		w.apply(t, s)
	}
	led := map[catalog.NodeID]int{}
	for i := range w.Groups {
		led[w.Groups[i].leader().Node]++
	}
	if len(steps) != 2 || led[1] != 1 || led[2] != 1 || led[3] != 1 {
		t.Errorf("%v lead to %v", steps, led)
	}
}
