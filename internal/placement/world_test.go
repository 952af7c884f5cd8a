package placement

import (
	"fmt"
	"sort"
	"strings"

	"pgregory.net/rapid"

	"github.com/braiddb/braid/internal/catalog"
)

// world carries out steps as nodes, leaders and the catalog would, and checks P1
// and P2 at each.
type world struct {
	Cluster
	nextReplica catalog.ReplicaID
}

type failer interface{ Fatalf(string, ...any) }

func (w *world) node(id catalog.NodeID) *Node {
	for i := range w.Nodes {
		if w.Nodes[i].ID == id {
			return &w.Nodes[i]
		}
	}
	return nil
}

func (w *world) group(id catalog.GroupID) *Group {
	for i := range w.Groups {
		if w.Groups[i].ID == id {
			return &w.Groups[i]
		}
	}
	return nil
}

func (w *world) reachable(r *Replica) bool { return !r.Lost && w.node(r.Node).State <= Draining }

// quorum reports whether a group's reachable voters are a majority.
func (w *world) quorum(g *Group) bool { return w.quorumWithout(g, 0) }

// quorumWithout reports whether they would be if one had left.
func (w *world) quorumWithout(g *Group, gone catalog.ReplicaID) bool {
	voters, up := 0, 0
	for i := range g.Replicas {
		if r := &g.Replicas[i]; r.Voter && r.ID != gone {
			voters++
			if w.reachable(r) {
				up++
			}
		}
	}
	return voters > 0 && up >= voters/2+1
}

// elect gives every group with a quorum a leader and takes it from the others.
func (w *world) elect() {
	for i := range w.Groups {
		g := &w.Groups[i]
		if !w.quorum(g) {
			g.Leader = 0
			continue
		}
		if l := g.leader(); l != nil && l.Voter && w.reachable(l) {
			continue
		}
		g.Leader = 0
		for j := range g.Replicas {
			if r := &g.Replicas[j]; r.Voter && w.reachable(r) {
				g.Leader = r.ID
				break
			}
		}
	}
}

func (w *world) apply(t failer, s Step) {
	g := w.group(s.Group)
	if s.Kind <= PlanCancel {
		if s.Version != g.Version {
			t.Fatalf("%v is made on version %d, the group is at %d", s, s.Version, g.Version)
		}
		g.Version++
	} else if l := g.leader(); l == nil || l.Node != s.To {
		t.Fatalf("%v goes to node %d, which does not lead", s, s.To)
	}
	switch s.Kind {
	case PlanAdd, PlanReplace:
		if g.changing() {
			t.Fatalf("P1: %v while another change is under way: %+v", s, *g)
		}
		if w.node(s.Node).State != Alive {
			t.Fatalf("%v: node is %v", s, w.node(s.Node).State)
		}
		g.Adding = &Replica{ID: w.nextReplica, Node: s.Node}
		w.nextReplica++
		g.Removing = s.Replica
	case PlanRemove:
		g.Removing = s.Replica
	case PlanCancel:
		g.Adding, g.Removing = nil, 0
	case AddLearner:
		g.Replicas = append(g.Replicas, Replica{ID: s.Replica, Node: s.Node})
		g.Adding = nil
	case Promote:
		r := g.replica(s.Replica)
		if !r.CaughtUp {
			t.Fatalf("%v: the learner is behind", s)
		}
		if v := g.replica(g.Removing); v != nil && (v.Lost || w.node(v.Node).State >= Dead) && w.quorumWithout(g, v.ID) {
			t.Fatalf("P4: %v beside replica %d, which is to go and could: %+v", s, v.ID, *g)
		}
		r.Voter = true
	case RemoveReplica:
		w.remove(t, g, s)
	case TransferLeader:
		r := g.replica(s.Replica)
		if !r.Voter || !w.reachable(r) {
			t.Fatalf("%v: cannot lead", s)
		}
		g.Leader = s.Replica
	}
	w.oneOnANode(t, g)
}

func (w *world) remove(t failer, g *Group, s Step) {
	if g.Leader == s.Replica {
		t.Fatalf("%v: is the leader", s)
	}
	if s.Replica != g.Removing {
		t.Fatalf("%v: was never planned", s)
	}
	wasVoter := g.replica(s.Replica).Voter
	kept := g.Replicas[:0:0]
	for _, r := range g.Replicas {
		if r.ID != s.Replica {
			kept = append(kept, r)
		}
	}
	g.Replicas, g.Removing = kept, 0
	if wasVoter && !w.quorum(g) {
		t.Fatalf("P2: %v leaves no majority: %+v", s, *g)
	}
}

func (w *world) oneOnANode(t failer, g *Group) {
	on := map[catalog.NodeID]bool{}
	all := g.Replicas
	if g.Adding != nil {
		all = append(all[:len(all):len(all)], *g.Adding)
	}
	for _, r := range all {
		if on[r.Node] {
			t.Fatalf("P1: group %d has two replicas on node %d: %+v", g.ID, r.Node, *g)
		}
		on[r.Node] = true
	}
}

// spoilt is the nodes that a lost replica can leave and has not.
func (w *world) spoilt() map[catalog.NodeID]bool {
	out := map[catalog.NodeID]bool{}
	for i := range w.Groups {
		g := &w.Groups[i]
		for _, r := range g.Replicas {
			if r.Lost && g.leader() != nil && w.quorumWithout(g, r.ID) {
				out[r.Node] = true
			}
		}
	}
	return out
}

// settle balances until nothing is left to do and says how many rounds it took.
func (w *world) settle(t failer, o Options) int {
	for round := range 1000 {
		w.elect()
		steps := Balance(&w.Cluster, o)
		spoilt := w.spoilt()
		quiet := len(steps) == 0
		for _, s := range steps {
			if (s.Kind == PlanAdd || s.Kind == PlanReplace) && spoilt[s.Node] {
				t.Fatalf("P6: %v: a lost replica has still to leave the node:\n%s", s, w)
			}
			w.apply(t, s)
		}
		for i := range w.Groups {
			for j := range w.Groups[i].Replicas {
				r := &w.Groups[i].Replicas[j]
				quiet = quiet && (r.CaughtUp || !w.reachable(r))
				r.CaughtUp = w.reachable(r)
			}
		}
		if quiet {
			return round
		}
	}
	t.Fatalf("P3: no end after 1000 rounds:\n%s", w)
	return 0
}

func (w *world) String() string {
	var sb strings.Builder
	for _, n := range w.Nodes {
		fmt.Fprintf(&sb, "node %d %s %q\n", n.ID, n.State, n.Location)
	}
	for _, g := range w.Groups {
		fmt.Fprintf(&sb, "group %d table %d x%d leader %d:", g.ID, g.Table, g.Factor, g.Leader)
		for _, r := range g.Replicas {
			mark := ""
			if !r.Voter {
				mark = "L"
			}
			if r.Lost {
				mark += "!"
			}
			fmt.Fprintf(&sb, " %d@n%d%s", r.ID, r.Node, mark)
		}
		if g.Adding != nil {
			fmt.Fprintf(&sb, " +%d@n%d", g.Adding.ID, g.Adding.Node)
		}
		if g.Removing != 0 {
			fmt.Fprintf(&sb, " -%d", g.Removing)
		}
		sb.WriteByte('\n')
	}
	return sb.String()
}

// draw makes any world: nodes in any state and place, groups in the middle of anything.
func draw(t *rapid.T, locations []string, roles ...uint32) *world {
	if len(roles) == 0 {
		roles = []uint32{0}
	}
	w := &world{nextReplica: 1}
	for i := range rapid.IntRange(1, 8).Draw(t, "nodes") {
		w.Nodes = append(w.Nodes, Node{
			ID:       catalog.NodeID(i + 1),
			Location: rapid.SampledFrom(locations).Draw(t, "location"),
			State:    rapid.SampledFrom([]State{Alive, Alive, Alive, Alive, Draining, Silent, Dead, Gone}).Draw(t, "state"),
			Roles:    rapid.SampledFrom(roles).Draw(t, "roles"),
		})
	}
	for i := range rapid.IntRange(1, 12).Draw(t, "groups") {
		g := Group{
			ID: catalog.GroupID(i + 1), Table: catalog.TableID(rapid.IntRange(0, 3).Draw(t, "table")),
			Factor: rapid.SampledFrom([]int{1, 3, 3, 3, 5}).Draw(t, "factor"),
		}
		nodes := rapid.Permutation(w.Nodes).Draw(t, "order")
		size := rapid.IntRange(1, min(6, len(nodes))).Draw(t, "size")
		for j, n := range nodes[:size] {
			g.Replicas = append(g.Replicas, Replica{
				ID: w.nextReplica, Node: n.ID,
				Voter: j == 0 || rapid.IntRange(0, 5).Draw(t, "voter") > 0,
				Lost:  rapid.IntRange(0, 9).Draw(t, "lost") == 0,
			})
			w.nextReplica++
		}
		if size < len(nodes) && rapid.IntRange(0, 4).Draw(t, "adding") == 0 {
			g.Adding = &Replica{ID: w.nextReplica, Node: nodes[size].ID}
			w.nextReplica++
		}
		if rapid.IntRange(0, 4).Draw(t, "removing") == 0 {
			g.Removing = rapid.SampledFrom(g.Replicas).Draw(t, "whom").ID
		}
		w.Groups = append(w.Groups, g)
	}
	return w
}

func counts(w *world, of func(*Group) []catalog.NodeID) (least, most int) {
	n := map[catalog.NodeID]int{}
	for i := range w.Groups {
		for _, id := range of(&w.Groups[i]) {
			n[id]++
		}
	}
	var all []int
	for _, node := range w.Nodes {
		if node.State == Alive {
			all = append(all, n[node.ID])
		}
	}
	sort.Ints(all)
	return all[0], all[len(all)-1]
}
