package master

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/wire"
)

// town is several nodes with their replicas in one process: real Masters,
// Machines and Reconcile; Raft groups reduced to a configuration, a leader and an
// applied index.
type town struct {
	t      *testing.T
	now    time.Duration
	nodes  []*townNode
	groups map[catalog.GroupID]*townGroup
	log    [][]byte // of the master's group
}

type townNode struct {
	id       catalog.NodeID
	self     *catalog.Node
	up       bool
	machine  *Machine
	applied  int // of town.log
	master   *Master
	founding *catalog.Catalog
	catalog  *catalog.Index // as heartbeats brought it
	held     map[catalog.GroupID]catalog.ReplicaID
	dropped  map[catalog.GroupID]catalog.ReplicaID
	corrupt  map[catalog.GroupID]bool
	lost     map[catalog.GroupID]catalog.ReplicaID
}

type townGroup struct {
	conf    []*catalog.Replica
	leader  catalog.ReplicaID
	term    uint64
	applied uint64
	schema  uint32
}

func newTown(t *testing.T) *town {
	return &town{t: t, groups: map[catalog.GroupID]*townGroup{}}
}

// seat is the master's group as one node sees it.
type townSeat struct {
	town *town
	node *townNode
}

func (s townSeat) Leading() *wire.Error {
	if g := s.town.groups[catalog.MasterGroup]; g != nil && s.town.leaderOf(g) == s.node {
		return nil
	}
	return &wire.Error{Code: wire.Code_CODE_NOT_LEADER}
}

func (s townSeat) Term() uint64 {
	if g := s.town.groups[catalog.MasterGroup]; g != nil {
		return g.term
	}
	return 0
}

func (s townSeat) Propose(command []byte, done func(*wire.Error)) {
	if err := s.Leading(); err != nil {
		done(err)
		return
	}
	s.town.log = append(s.town.log, command)
	s.town.replicate()
	done(nil)
}

// replicate applies the master's log wherever its group has a replica.
func (w *town) replicate() {
	for _, n := range w.nodes {
		if !n.up || n.held[catalog.MasterGroup] == 0 {
			continue
		}
		for ; n.applied < len(w.log); n.applied++ {
			a, err := n.machine.Apply(hlc.FromMicros(int64(w.now/time.Microsecond)+int64(n.applied)), w.log[n.applied])
			if err != nil {
				w.t.Fatal(err)
			}
			if err := catalog.Validate(n.machine.Index().Catalog()); n.machine.Index().Version() > 0 && err != nil {
				w.t.Fatalf("M1: %v", err)
			}
			n.master.Applied([]Applied{a})
		}
	}
}

// start adds a node with a fresh directory at an address.
func (w *town) start(addr string) *townNode {
	n := &townNode{
		self:    &catalog.Node{RpcAddr: addr, DirectoryId: []byte(fmt.Sprintf("directory-%d", len(w.nodes))), Incarnation: 1},
		up:      true,
		machine: NewMachine(),
		held:    map[catalog.GroupID]catalog.ReplicaID{}, dropped: map[catalog.GroupID]catalog.ReplicaID{},
		corrupt: map[catalog.GroupID]bool{}, lost: map[catalog.GroupID]catalog.ReplicaID{},
	}
	w.nodes = append(w.nodes, n)
	return n
}

func (w *town) serve(n *townNode) {
	n.master = New(Deps{
		Node: n.id, Incarnation: 1, Group: townSeat{w, n}, Index: func() *catalog.Index { return n.machine.Index() }, Founding: n.founding,
	}, Options{})
}

// found makes the first node a cluster of one.
func (w *town) found(n *townNode, first First) {
	f := Alone(n.self, rand.New(rand.NewPCG(1, 1)), first)
	n.id, n.self.Id, n.founding = f.Node, uint64(f.Node), f.Catalog
	w.serve(n)
	w.adopt(n, catalog.NewIndex(f.Catalog))
}

// join admits a node through the master's leader.
func (w *town) join(n *townNode) *wire.JoinResponse {
	var got *wire.JoinResponse
	w.leader().master.Join(w.now, &wire.JoinRequest{Node: n.self, DirectoryId: n.self.DirectoryId}, func(r *wire.JoinResponse) { got = r })
	if got.GetError() == nil {
		n.id, n.self.Id = catalog.NodeID(got.Node), got.Node
		w.serve(n)
		n.catalog = catalog.NewIndex(&catalog.Catalog{})
	}
	return got
}

func (w *town) node(id catalog.NodeID) *townNode {
	for _, n := range w.nodes {
		if n.id == id {
			return n
		}
	}
	return nil
}

func (w *town) leaderOf(g *townGroup) *townNode {
	for _, r := range g.conf {
		if catalog.ReplicaID(r.Id) == g.leader {
			return w.node(catalog.NodeID(r.Node))
		}
	}
	return nil
}

func (w *town) leader() *townNode { return w.leaderOf(w.groups[catalog.MasterGroup]) }

// elect moves leaders from nodes that are down, where a majority is up.
func (w *town) elect() {
	for _, id := range slices.Sorted(maps.Keys(w.groups)) {
		g := w.groups[id]
		if l := w.leaderOf(g); l != nil && l.up && l.held[id] == g.leader {
			continue
		}
		var able []catalog.ReplicaID
		voters := 0
		for _, r := range g.conf {
			if r.Role != catalog.Role_ROLE_VOTER {
				continue
			}
			voters++
			if n := w.node(catalog.NodeID(r.Node)); n.up && n.held[id] == catalog.ReplicaID(r.Id) {
				able = append(able, catalog.ReplicaID(r.Id))
			}
		}
		g.leader = 0
		if len(able) > voters/2 {
			g.leader = able[0]
			g.term++
			g.applied++
		}
	}
}

// adopt is a node taking over a catalog.
func (w *town) adopt(n *townNode, x *catalog.Index) {
	n.catalog = x
	var local []Local
	for _, id := range slices.Sorted(maps.Keys(n.dropped)) {
		if n.held[id] == 0 {
			local = append(local, Local{Group: id, Dropped: n.dropped[id]})
		}
	}
	for _, id := range slices.Sorted(maps.Keys(n.held)) {
		local = append(local, Local{Group: id, Replica: n.held[id], Dropped: n.dropped[id]})
	}
	n.lost = map[catalog.GroupID]catalog.ReplicaID{}
	for _, a := range Reconcile(n.id, x, local) {
		switch a.Kind {
		case CreateReplica:
			if a.Replica <= n.dropped[a.Group] {
				w.t.Fatalf("M7: replica %d is made again on node %d", a.Replica, n.id)
			}
			n.held[a.Group] = a.Replica
			if a.New && w.groups[a.Group] == nil {
				w.groups[a.Group] = &townGroup{conf: a.Conf, applied: 1, schema: a.Table.GetSchema().GetVersion()}
			}
		case DestroyReplica:
			delete(n.held, a.Group)
			delete(n.corrupt, a.Group)
			n.dropped[a.Group] = max(n.dropped[a.Group], a.Replica)
		case LostReplica:
			n.lost[a.Group] = a.Replica
		case ForgetGroup:
			delete(n.dropped, a.Group)
		}
	}
}

func (w *town) report(n *townNode) []*wire.ReplicaReport {
	var list []*wire.ReplicaReport
	for _, id := range slices.Sorted(maps.Keys(n.held)) {
		g := w.groups[id]
		r := &wire.ReplicaReport{Group: uint64(id), Replica: uint64(n.held[id]), Corrupt: n.corrupt[id]}
		if g != nil && g.leader == n.held[id] {
			r.Leader, r.Term, r.Applied, r.Config, r.SchemaVersion = true, g.term, g.applied, g.conf, g.schema
			for _, m := range g.conf {
				if holder := w.node(catalog.NodeID(m.Node)); m.Role == catalog.Role_ROLE_LEARNER && holder.up && holder.held[id] == catalog.ReplicaID(m.Id) {
					r.CaughtUpLearners = append(r.CaughtUpLearners, m.Id)
				}
			}
		}
		list = append(list, r)
	}
	for id, replica := range n.lost {
		list = append(list, &wire.ReplicaReport{Group: uint64(id), Replica: uint64(replica), Corrupt: true})
	}
	return list
}

// carryOut is what a leader does with a move.
func (w *town) carryOut(n *townNode, m *wire.Move) {
	g := w.groups[catalog.GroupID(m.Group)]
	if g == nil || g.leader != n.held[catalog.GroupID(m.Group)] {
		return // leads no more
	}
	at := slices.IndexFunc(g.conf, func(r *catalog.Replica) bool { return r.Id == m.Replica.GetId() })
	conf := slices.Clone(g.conf)
	switch m.Kind {
	case wire.Move_KIND_ADD_LEARNER:
		if at >= 0 {
			return
		}
		conf = append(conf, m.Replica)
	case wire.Move_KIND_PROMOTE:
		conf[at] = &catalog.Replica{Id: m.Replica.Id, Node: m.Replica.Node, Role: catalog.Role_ROLE_VOTER}
	case wire.Move_KIND_REMOVE_REPLICA:
		if at < 0 || g.leader == catalog.ReplicaID(m.Replica.Id) {
			return
		}
		conf = slices.Delete(conf, at, at+1)
	case wire.Move_KIND_TRANSFER_LEADER:
		if at >= 0 && conf[at].Role == catalog.Role_ROLE_VOTER && w.node(catalog.NodeID(conf[at].Node)).up {
			g.leader, g.term = catalog.ReplicaID(m.Replica.Id), g.term+1
		}
		return
	case wire.Move_KIND_ALTER_SCHEMA:
		g.schema = m.Table.Schema.Version
		return
	}
	g.conf, g.applied = conf, g.applied+1
}

// round is half a second in the life of all.
func (w *town) round() {
	w.now += 500 * time.Millisecond
	w.elect()
	w.replicate()
	for _, n := range w.nodes {
		if n.up && n.master != nil && n.held[catalog.MasterGroup] != 0 {
			n.master.Tick(w.now)
		}
	}
	for _, n := range w.nodes {
		boss := w.leader()
		if !n.up || n.id == 0 || boss == nil {
			continue
		}
		resp := boss.master.Heartbeat(w.now, &wire.HeartbeatRequest{Node: n.self.CloneVT(), Replicas: w.report(n), CatalogVersion: n.catalog.Version()})
		if resp.Error != nil {
			if resp.Error.Code == wire.Code_CODE_NOT_READY {
				continue
			}
			w.t.Fatalf("heartbeat of node %d: %v", n.id, resp.Error)
		}
		if resp.Catalog != nil {
			w.adopt(n, catalog.NewIndex(resp.Catalog))
		}
		for _, m := range resp.Moves {
			w.carryOut(n, m)
		}
		w.askAgain(boss, n)
	}
}

// askAgain has a node report before the next tick, as one does that waits for a
// leader: nothing that it has carried out is asked of it again.
func (w *town) askAgain(boss, n *townNode) {
	reports := w.report(n)
	again := boss.master.Heartbeat(w.now, &wire.HeartbeatRequest{Node: n.self.CloneVT(), Replicas: reports, CatalogVersion: n.catalog.Version()})
	for _, m := range again.Moves {
		at := slices.IndexFunc(reports, func(r *wire.ReplicaReport) bool { return r.Group == m.Group })
		if at < 0 || !reports[at].Leader {
			w.t.Fatalf("node %d does not lead group %d and is to %s", n.id, m.Group, m.Kind)
		}
		r := reports[at]
		member := slices.IndexFunc(r.Config, func(x *catalog.Replica) bool { return x.Id == m.Replica.GetId() })
		switch {
		case m.Kind == wire.Move_KIND_ADD_LEARNER && member >= 0,
			m.Kind == wire.Move_KIND_PROMOTE && member >= 0 && r.Config[member].Role == catalog.Role_ROLE_VOTER,
			m.Kind == wire.Move_KIND_REMOVE_REPLICA && member < 0,
			m.Kind == wire.Move_KIND_ALTER_SCHEMA && r.SchemaVersion >= m.Table.Schema.Version:
			w.t.Fatalf("node %d has done what is asked again: %s of replica %d, group %d", n.id, m.Kind, m.Replica.GetId(), m.Group)
		}
	}
}

// until runs rounds until something holds.
func (w *town) until(what string, rounds int, holds func() bool) {
	w.t.Helper()
	for range rounds {
		if holds() {
			return
		}
		w.round()
	}
	text := catalog.Text(w.catalog())
	for _, n := range w.nodes {
		text += fmt.Sprintf("node %d at %s: up %v, catalog %d, holds %v, dropped %v, corrupt %v, lost %v\n",
			n.id, n.self.RpcAddr, n.up, n.catalog.Version(), n.held, n.dropped, n.corrupt, n.lost)
	}
	for _, id := range slices.Sorted(maps.Keys(w.groups)) {
		text += fmt.Sprintf("group %d: %+v\n", id, *w.groups[id])
	}
	w.t.Fatalf("not %s after %d rounds:\n%s", what, rounds, text)
}

func (w *town) catalog() *catalog.Catalog {
	var best *catalog.Catalog
	for _, n := range w.nodes {
		if best == nil || n.machine.Index().Version() > best.Version {
			best = n.machine.Index().Catalog()
		}
	}
	return best
}

// healthy reports whether every group has n voters, nothing is under way, and
// the groups are what the catalog says.
func (w *town) healthy(n int) bool {
	if w.catalog().Version == 0 {
		return false
	}
	for _, g := range groupsOf(catalog.NewIndex(w.catalog())) {
		real := w.groups[catalog.GroupID(g.Id)]
		if real == nil || g.Changing() || len(g.Replicas) != n || !sameReplicas(g.Replicas, real.conf) {
			return false
		}
		for _, r := range g.Replicas {
			if holder := w.node(catalog.NodeID(r.Node)); !holder.up || holder.corrupt[catalog.GroupID(g.Id)] || holder.held[catalog.GroupID(g.Id)] != catalog.ReplicaID(r.Id) {
				return false
			}
		}
	}
	return true
}

// leads counts the tablets that each node leads.
func (w *town) leads() map[catalog.NodeID]int {
	count := map[catalog.NodeID]int{}
	for id, g := range w.groups {
		if l := w.leaderOf(g); id != catalog.MasterGroup && l != nil {
			count[l.id]++
		}
	}
	return count
}

func (w *town) admin(req *wire.CatalogRequest) *wire.CatalogResponse {
	var got *wire.CatalogResponse
	w.leader().master.Catalog(w.now, req, func(r *wire.CatalogResponse) { got = r })
	return got
}

// grow makes a town of three healthy nodes.
func grow(t *testing.T) *town {
	w := newTown(t)
	w.found(w.start("a:1"), First{})
	w.until("serving alone", 10, func() bool { return w.healthy(1) })
	for _, addr := range []string{"b:1", "c:1"} {
		if r := w.join(w.start(addr)); r.Error != nil {
			t.Fatal(r.Error)
		}
	}
	w.until("three copies", 60, func() bool { return w.healthy(3) })
	return w
}

func TestOneNodeGrowsToThree(t *testing.T) {
	w := newTown(t)
	w.found(w.start("a:1"), First{})
	w.until("serving alone", 10, func() bool { return w.healthy(1) })
	if got := ReplicationOf(w.catalog()).String(); got != "one copy" {
		t.Errorf("alone: %q", got)
	}
	for _, addr := range []string{"b:1", "c:1"} {
		if r := w.join(w.start(addr)); r.Error != nil {
			t.Fatal(r.Error)
		}
	}
	rounds := 0
	w.until("three copies", 60, func() bool { rounds++; return w.healthy(3) })
	t.Logf("three copies after %d rounds", rounds)
	w.until("even leaders", 10, func() bool { return len(w.leads()) == 3 })
	if got := ReplicationOf(w.catalog()); got.String() != "3 copies" || got.Under != 0 {
		t.Errorf("three nodes: %+v %s", got, got)
	}
	if w.catalog().Tables[0].State != catalog.TableState_TABLE_STATE_RUNNING {
		t.Error("the Redis table is not running")
	}
	quiet := w.catalog().Version
	for range 20 {
		w.round()
	}
	if w.catalog().Version != quiet {
		t.Errorf("a healthy cluster makes versions: %d after %d", w.catalog().Version, quiet)
	}
}

// A wiped directory comes back as a new node; its former replicas are replaced.
func TestWipedNodeIsReplaced(t *testing.T) {
	w := grow(t)
	w.nodes[2].up = false
	fresh := w.start("c:1")
	if r := w.join(fresh); r.Error.GetCode() != wire.Code_CODE_UNAVAILABLE {
		t.Fatalf("an address that was heard of a moment ago: %v", r)
	}
	for range 12 {
		w.round()
	}
	if r := w.join(fresh); r.Error != nil || r.Node != 4 {
		t.Fatalf("the wiped node: %v", r)
	}
	w.until("three copies again", 100, func() bool { return w.healthy(3) })
	if old := catalog.NewIndex(w.catalog()).Node(3); old.State != catalog.NodeState_NODE_STATE_DEAD {
		t.Errorf("the old node is %v", old.State)
	}
}

// The same directory keeps its id, through any number of joins.
func TestKnownDirectoryKeepsItsID(t *testing.T) {
	w := grow(t)
	n := w.nodes[1]
	n.self.Incarnation, n.self.Id = 2, 0
	for range 2 {
		if r := w.join(n); r.Error != nil || r.Node != 2 {
			t.Fatalf("joined as %v", r)
		}
	}
}

func TestDeadNodeIsReplacedAfterItsTime(t *testing.T) {
	w := grow(t)
	if r := w.join(w.start("d:1")); r.Error != nil {
		t.Fatal(r.Error)
	}
	w.until("balanced", 100, func() bool { return w.healthy(3) })
	dead := w.nodes[1]
	dead.up = false
	for range 1700 { // 850 s
		w.round()
	}
	if catalog.NewIndex(w.catalog()).Node(dead.id).State == catalog.NodeState_NODE_STATE_DEAD {
		t.Fatal("declared dead before its time")
	}
	w.until("replaced", 200, func() bool { return w.healthy(3) })
	// It comes back: what it holds is superseded, and it is alive again.
	dead.up = true
	w.until("back", 50, func() bool {
		return catalog.NewIndex(w.catalog()).Node(dead.id).State == catalog.NodeState_NODE_STATE_ALIVE && w.healthy(3)
	})
}

func TestCorruptReplicaIsReplacedInPlace(t *testing.T) {
	w := grow(t)
	victim := w.nodes[1]
	id := catalog.GroupID(2)
	old := victim.held[id]
	victim.corrupt[id] = true
	w.until("replaced", 60, func() bool { return victim.held[id] > old && w.healthy(3) })
}

// A replica that was destroyed although the catalog has it is reported and replaced (M7).
func TestDestroyedReplicaIsNotMadeAgain(t *testing.T) {
	w := grow(t)
	n, id := w.nodes[1], catalog.GroupID(3)
	old := n.held[id]
	delete(n.held, id)
	n.dropped[id] = old
	w.adopt(n, n.catalog)
	if n.lost[id] != old {
		t.Fatalf("lost: %v", n.lost)
	}
	w.until("replaced", 60, func() bool { return n.held[id] > old && w.healthy(3) })
}

func TestDrainingNodeLeadsNothing(t *testing.T) {
	w := grow(t)
	w.until("even leaders", 20, func() bool { return len(w.leads()) == 3 })
	boss := w.leader()
	boss.self.State = catalog.NodeState_NODE_STATE_DRAINING
	w.until("drained", 20, func() bool { return w.leads()[boss.id] == 0 && w.leader() != boss })
	if !w.healthy(3) {
		t.Error("draining moved replicas")
	}
	boss.self.State = catalog.NodeState_NODE_STATE_ALIVE
	w.until("leading again", 20, func() bool { return w.leads()[boss.id] == 1 })
}

func TestTablesOnline(t *testing.T) {
	w := grow(t)
	table := &catalog.Table{Keyspace: "shop", Name: "orders", Hash: catalog.Hash_HASH_MURMUR3, Schema: &catalog.Schema{
		Columns: []*catalog.Column{{Name: "id", Type: catalog.Type_TYPE_INT64, Kind: catalog.ColumnKind_COLUMN_KIND_HASH}},
	}}
	create := &wire.CatalogRequest{
		Action: wire.CatalogRequest_ACTION_CREATE_TABLE, Table: table, Tablets: 6, ClientId: []byte("me"), RequestId: 2,
	}
	if r := w.admin(create); r.Error.GetCode() != wire.Code_CODE_NOT_FOUND {
		t.Fatalf("without its keyspace: %v", r)
	}
	if r := w.admin(&wire.CatalogRequest{Action: wire.CatalogRequest_ACTION_CREATE_KEYSPACE, Keyspace: &catalog.Keyspace{Name: "shop"}}); r.Error != nil {
		t.Fatal(r.Error)
	}
	made := w.admin(create)
	if made.Error != nil || made.Table.GetId() != 2 || made.Table.State != catalog.TableState_TABLE_STATE_CREATING {
		t.Fatalf("created: %v", made)
	}
	if again := w.admin(create); again.Error != nil || again.Table.GetId() != 2 {
		t.Fatalf("M3: the retry: %v", again)
	}
	running := func() bool {
		return catalog.NewIndex(w.catalog()).Table(2).State == catalog.TableState_TABLE_STATE_RUNNING && w.healthy(3)
	}
	w.until("running", 20, running)
	locations := w.leader().master.Locations(w.now, &wire.LocationsRequest{Keyspace: "shop", Table: "orders"})
	leaders := map[uint64]int{}
	for _, l := range locations.Tablets {
		leaders[l.LeaderNode]++
	}
	if len(locations.Tablets) != 6 || leaders[1] != 2 || leaders[2] != 2 || leaders[3] != 2 || len(locations.Nodes) != 3 {
		t.Errorf("locations: %v", leaders)
	}

	altered := w.admin(&wire.CatalogRequest{Action: wire.CatalogRequest_ACTION_ALTER_TABLE, Table: table, Alterations: []*wire.Alteration{
		{Add: &catalog.Column{Name: "note", Type: catalog.Type_TYPE_STRING}},
	}})
	if altered.Error != nil || altered.Table.Schema.Version != 2 {
		t.Fatalf("altered: %v", altered)
	}
	w.until("altered everywhere", 10, func() bool {
		for _, l := range locations.Tablets {
			if w.groups[catalog.GroupID(l.Tablet.Id)].schema != 2 {
				return false
			}
		}
		return true
	})

	if r := w.admin(&wire.CatalogRequest{Action: wire.CatalogRequest_ACTION_DROP_TABLE, Table: table}); r.Error != nil {
		t.Fatal(r.Error)
	}
	w.until("gone", 10, func() bool {
		for _, n := range w.nodes {
			if n.held[catalog.GroupID(locations.Tablets[0].Tablet.Id)] != 0 {
				return false
			}
		}
		return true
	})
	if r := w.leader().master.Locations(w.now, &wire.LocationsRequest{TableId: 2}); r.Error.GetCode() != wire.Code_CODE_NOT_FOUND {
		t.Errorf("locations of a dropped table: %v", r)
	}
	if r := w.admin(&wire.CatalogRequest{}); r.Error != nil || len(r.Tablets) != 3 || r.Catalog.Version == 0 {
		t.Errorf("read: %v", r.Error)
	}
}

func TestRefusals(t *testing.T) {
	w := grow(t)
	boss := w.leader()
	other := w.nodes[1]
	if other == boss {
		other = w.nodes[2]
	}
	if r := other.master.Heartbeat(w.now, &wire.HeartbeatRequest{Node: boss.self}); r.Error.GetCode() != wire.Code_CODE_NOT_LEADER {
		t.Errorf("a follower answers: %v", r)
	}
	other.master.Join(w.now, &wire.JoinRequest{}, func(r *wire.JoinResponse) {
		if r.Error.GetCode() != wire.Code_CODE_NOT_LEADER {
			t.Errorf("a follower admits: %v", r)
		}
	})
	beat := func(change func(*catalog.Node)) wire.Code {
		n := other.self.CloneVT()
		change(n)
		return boss.master.Heartbeat(w.now, &wire.HeartbeatRequest{Node: n}).Error.GetCode()
	}
	if got := beat(func(n *catalog.Node) { n.Id = 99 }); got != wire.Code_CODE_NOT_FOUND {
		t.Errorf("an unknown node: %v", got)
	}
	if got := beat(func(n *catalog.Node) { n.DirectoryId = []byte("another") }); got != wire.Code_CODE_INVALID {
		t.Errorf("another directory: %v", got)
	}
	if got := beat(func(n *catalog.Node) { n.Incarnation = 0 }); got != wire.Code_CODE_INVALID {
		t.Errorf("an older life: %v", got)
	}
	stranger := w.start("z:1")
	boss.master.Join(w.now, &wire.JoinRequest{Node: stranger.self, DirectoryId: stranger.self.DirectoryId, ClusterId: "another"}, func(r *wire.JoinResponse) {
		if r.Error.GetCode() != wire.Code_CODE_INVALID {
			t.Errorf("data of another cluster: %v", r)
		}
	})
	boss.master.Join(w.now, &wire.JoinRequest{}, func(r *wire.JoinResponse) {
		if r.Error.GetCode() != wire.Code_CODE_INVALID {
			t.Errorf("nobody: %v", r)
		}
	})
	if r := boss.master.Locations(w.now, &wire.LocationsRequest{Keyspace: "no", Table: "where"}); r.Error.GetCode() != wire.Code_CODE_NOT_FOUND {
		t.Errorf("no table: %v", r)
	}
}

// Nodes stop, start, are wiped, drain; whatever happens the catalog stays valid
// (replicate checks M1), no replica is made twice (adopt checks M7), and when it
// is over every group has its three copies.
func TestTownUnderFailures(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 3))
		w := grow(t)
		if r := w.join(w.start("d:1")); r.Error != nil {
			t.Fatal(r.Error)
		}
		wiped := 0
		for range 150 {
			w.round()
			n := w.nodes[rng.IntN(len(w.nodes))]
			down := 0
			for _, m := range w.nodes {
				if !m.up {
					down++
				}
			}
			switch rng.IntN(6) {
			case 0:
				n.up = n.up && down > wiped
			case 1, 2:
				n.up = n.up || (w.known(n) && down > wiped)
			case 3:
				n.self.State = catalog.NodeState(1 + rng.IntN(2))
			case 4:
				if wiped == 0 && !n.up && w.leader() != nil && w.dispensable(n) {
					fresh := w.start(n.self.RpcAddr)
					if r := w.join(fresh); r.Error != nil {
						w.nodes = w.nodes[:len(w.nodes)-1]
					} else {
						wiped++
					}
				}
			case 5:
				if id := catalog.GroupID(1 + rng.IntN(4)); n.up && down == wiped && n.held[id] != 0 && w.healthy(3) {
					n.corrupt[id] = true
				}
			}
		}
		for _, n := range w.nodes {
			n.self.State = catalog.NodeState_NODE_STATE_ALIVE
			n.up = n.up || w.known(n)
		}
		w.until(fmt.Sprintf("healed (seed %d)", seed), 400, func() bool { return w.healthy(3) })
	}
}

// dispensable reports whether every group keeps a majority of sound replicas when
// a node's directory is lost for ever.
func (w *town) dispensable(n *townNode) bool {
	for id, g := range w.groups {
		voters, left := 0, 0
		for _, r := range g.conf {
			if r.Role != catalog.Role_ROLE_VOTER {
				continue
			}
			voters++
			if m := w.node(catalog.NodeID(r.Node)); m != n && m.held[id] == catalog.ReplicaID(r.Id) && !m.corrupt[id] {
				left++
			}
		}
		if left <= voters/2 {
			return false
		}
	}
	return true
}

// known reports whether a node's directory still is in place.
func (w *town) known(n *townNode) bool {
	for _, m := range w.nodes {
		if m != n && m.self.RpcAddr == n.self.RpcAddr && m.id > n.id {
			return false
		}
	}
	return true
}
