package master

import (
	"bytes"
	"slices"
	"sync"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/placement"
	"github.com/braiddb/braid/internal/wire"
)

// Group is the master's own group as the service sees it. None of its methods
// blocks.
type Group interface {
	// Leading is nil where this replica may serve: it leads, under a live lease,
	// and has applied everything from before its term. Else it says who leads.
	Leading() *wire.Error
	// Term grows with every change of leader.
	Term() uint64
	// Propose replicates one command. done is called once, maybe inside Propose:
	// with nil when the command has been applied here.
	Propose(command []byte, done func(*wire.Error))
}

// Options of the service. Zero means the default.
type Options struct {
	DeadAfter   time.Duration // without a heartbeat, a node is declared dead; 900 s
	SilentAfter time.Duration // without one, a node gets no new replicas or leaders; 5 s
	SettleAfter time.Duration // a new leader plans nothing before it has heard from all nodes, or for so long; 10 s
	Moves       placement.Options
}

func (o Options) withDefaults() Options {
	if o.DeadAfter == 0 {
		o.DeadAfter = 900 * time.Second
	}
	if o.SilentAfter == 0 {
		o.SilentAfter = 5 * time.Second
	}
	if o.SettleAfter == 0 {
		o.SettleAfter = 10 * time.Second
	}
	return o
}

// Deps is what a Master needs of its node.
type Deps struct {
	Node        catalog.NodeID
	Incarnation uint64
	Group       Group
	// Index is the catalog as the local replica has applied it.
	Index func() *catalog.Index
	// Founding is the first catalog, where this node was there when the cluster was
	// founded; nil elsewhere. Whoever of its members leads first proposes it.
	Founding *catalog.Catalog
}

// Master answers nodes and clients where its replica leads the master's group,
// and says who leads where it does not. What it knows from reports is gathered
// anew by every leader. Safe for concurrent use; no method blocks.
type Master struct {
	d Deps
	o Options

	mu struct {
		sync.Mutex
		term     uint64
		since    time.Duration // leading in this term
		beats    map[catalog.NodeID]*beat
		moves    map[catalog.NodeID][]*wire.Move
		sequence uint64
		waiting  map[uint64]func(Applied)
		ticking  bool   // the last tick's command is on its way
		news     uint64 // grows with every heartbeat that says something new
		looked   look   // what the last tick saw, if it had nothing to propose
	}
}

// beat is the last that was heard of a node.
type beat struct {
	at      time.Duration
	node    *catalog.Node
	reports map[catalog.GroupID]*wire.ReplicaReport
}

// saysAs reports whether two heartbeats give no reason to act differently. Applied
// indexes always move, and matter only with a new configuration.
func (b *beat) saysAs(c *beat) bool {
	if len(b.reports) != len(c.reports) || !b.node.EqualVT(c.node) {
		return false
	}
	for g, r := range b.reports {
		s := c.reports[g]
		if s == nil || r.Replica != s.Replica || r.Leader != s.Leader || r.Term != s.Term || r.Corrupt != s.Corrupt ||
			r.SchemaVersion != s.SchemaVersion || !slices.Equal(r.CaughtUpLearners, s.CaughtUpLearners) || !sameReplicas(r.Config, s.Config) {
			return false
		}
	}
	return true
}

// New makes the service of one node's replica of the master's group.
func New(d Deps, o Options) *Master {
	m := &Master{d: d, o: o.withDefaults()}
	m.mu.waiting = map[uint64]func(Applied){}
	m.forgetLocked(0, 0)
	return m
}

// forgetLocked starts a term with nothing heard.
func (m *Master) forgetLocked(term uint64, now time.Duration) {
	m.mu.term, m.mu.since = term, now
	m.mu.beats = map[catalog.NodeID]*beat{}
	m.mu.moves = map[catalog.NodeID][]*wire.Move{}
	m.mu.ticking, m.mu.looked = false, look{}
}

// leading checks that this replica may answer, and begins a term it has not
// seen yet.
func (m *Master) leading(now time.Duration) *wire.Error {
	term := m.d.Group.Term()
	if err := m.d.Group.Leading(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if term > m.mu.term {
		m.forgetLocked(term, now)
	}
	return nil
}

// serving is leading with a catalog to serve.
func (m *Master) serving(now time.Duration) (*catalog.Index, *wire.Error) {
	if err := m.leading(now); err != nil {
		return nil, err
	}
	x := m.d.Index()
	if x.Version() == 0 {
		return nil, refuse(wire.Code_CODE_NOT_READY, "the cluster is being founded")
	}
	return x, nil
}

// Heartbeat takes a node's report and answers with a newer catalog and with what
// the node is to do.
func (m *Master) Heartbeat(now time.Duration, req *wire.HeartbeatRequest) *wire.HeartbeatResponse {
	x, err := m.serving(now)
	if err == nil {
		err = member(x, req.GetNode())
	}
	if err != nil {
		return &wire.HeartbeatResponse{Error: err}
	}
	if id := catalog.NodeID(req.Node.Id); x.Node(id).Forgotten() {
		return &wire.HeartbeatResponse{Error: isForgotten(uint64(id)), Forgotten: true}
	}
	if err := otherEpochs(x.Catalog(), req.Node); err != nil {
		return &wire.HeartbeatResponse{Error: err, Misfit: true}
	}
	b := &beat{at: now, node: req.Node, reports: make(map[catalog.GroupID]*wire.ReplicaReport, len(req.Replicas))}
	for _, r := range req.Replicas {
		b.reports[catalog.GroupID(r.GetGroup())] = r
	}
	id := catalog.NodeID(req.Node.Id)
	m.mu.Lock()
	if old := m.mu.beats[id]; old == nil || !old.saysAs(b) {
		m.mu.news++
	}
	m.mu.beats[id] = b
	resp := &wire.HeartbeatResponse{Moves: b.undone(m.mu.moves[id])}
	m.mu.Unlock()
	if req.CatalogVersion < x.Version() {
		resp.Catalog = x.Catalog()
	}
	return resp
}

// undone is those of the moves that the report does not show carried out, and that
// its sender can carry out. Moves are worked out anew only by ticks, and a node that
// waits for a leader reports several times between two of them.
func (b *beat) undone(moves []*wire.Move) (list []*wire.Move) {
	for _, move := range moves {
		r := b.reports[catalog.GroupID(move.Group)]
		if !r.GetLeader() {
			continue // whoever leads now is found out by the next tick
		}
		at := slices.IndexFunc(r.Config, func(x *catalog.Replica) bool { return x.Id == move.GetReplica().GetId() })
		done := false
		switch move.Kind {
		case wire.Move_KIND_ADD_LEARNER:
			done = at >= 0
		case wire.Move_KIND_PROMOTE:
			done = at >= 0 && r.Config[at].Role == catalog.Role_ROLE_VOTER
		case wire.Move_KIND_REMOVE_REPLICA:
			done = at < 0
		case wire.Move_KIND_ALTER_SCHEMA:
			done = r.SchemaVersion >= move.Table.GetSchema().GetVersion()
		}
		if !done {
			list = append(list, move)
		}
	}
	return list
}

// member checks that a node is who it says it is.
func member(x *catalog.Index, n *catalog.Node) *wire.Error {
	known := x.Node(catalog.NodeID(n.GetId()))
	switch {
	case known == nil:
		return refuse(wire.Code_CODE_NOT_FOUND, "node %d is not a member of cluster %s", n.GetId(), x.Catalog().ClusterId)
	case !bytes.Equal(known.DirectoryId, n.DirectoryId):
		return refuse(wire.Code_CODE_INVALID, "node %d has another data directory in cluster %s", n.Id, x.Catalog().ClusterId)
	case n.Incarnation < known.Incarnation:
		return refuse(wire.Code_CODE_INVALID, "node %d: an older life of its directory (%d) than was seen (%d): is a copy of it in use?",
			n.Id, n.Incarnation, known.Incarnation)
	}
	return nil
}

// Join admits a node and gives it its id, or again the id of its directory.
func (m *Master) Join(now time.Duration, req *wire.JoinRequest, done func(*wire.JoinResponse)) {
	x, err := m.serving(now)
	if err == nil {
		err = m.admissible(now, x, req)
	}
	if err != nil {
		done(&wire.JoinResponse{Error: err})
		return
	}
	node := req.Node.CloneVT()
	node.DirectoryId = req.DirectoryId
	m.propose(&Command{Admit: &Admit{Node: node}}, func(a Applied) {
		done(&wire.JoinResponse{Error: a.Err, Node: uint64(a.Admitted), ClusterId: x.Catalog().ClusterId})
	})
}

func (m *Master) admissible(now time.Duration, x *catalog.Index, req *wire.JoinRequest) *wire.Error {
	cluster := x.Catalog().ClusterId
	if req.GetClusterId() != "" && req.ClusterId != cluster {
		return refuse(wire.Code_CODE_INVALID, "the node's data directory belongs to cluster %s, this is cluster %s", req.ClusterId, cluster)
	}
	if len(req.GetDirectoryId()) == 0 || req.GetNode().GetRpcAddr() == "" {
		return refuse(wire.Code_CODE_INVALID, "a node that joins says its directory and its address")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range x.Catalog().Nodes {
		if n.RpcAddr != req.Node.RpcAddr || bytes.Equal(n.DirectoryId, req.DirectoryId) {
			continue
		}
		if b := m.mu.beats[catalog.NodeID(n.Id)]; b != nil && now-b.at < m.o.SilentAfter {
			return refuse(wire.Code_CODE_UNAVAILABLE, "node %d was heard from at %s a moment ago: if its directory was wiped, it is replaced once it is silent for %v",
				n.Id, n.RpcAddr, m.o.SilentAfter)
		}
	}
	return nil
}

// Catalog reads the catalog or changes it for a client. done is called once, with
// a change that it reports applied on this replica.
func (m *Master) Catalog(now time.Duration, req *wire.CatalogRequest, done func(*wire.CatalogResponse)) {
	x, err := m.serving(now)
	if err != nil {
		done(&wire.CatalogResponse{Error: err})
		return
	}
	switch req.GetAction() {
	case wire.CatalogRequest_ACTION_READ_LOGS:
		done(m.readLogs(x, req))
		return
	case wire.CatalogRequest_ACTION_READ:
		done(&wire.CatalogResponse{
			Catalog: withoutLogs(x.Catalog()), Tablets: m.locate(now, x, x.Catalog().Tablets), MasterLeader: uint64(m.d.Node),
		})
		return
	}
	admin := &Admin{Request: req}
	if req.Action == wire.CatalogRequest_ACTION_FORGET_NODE {
		if err = m.forgettable(now, x, catalog.NodeID(req.Node)); err != nil {
			done(&wire.CatalogResponse{Error: err})
			return
		}
	}
	if req.Action == wire.CatalogRequest_ACTION_CREATE_TABLE {
		if admin.Tablets, err = m.place(now, x, req); err != nil {
			done(&wire.CatalogResponse{Error: err})
			return
		}
	}
	m.propose(&Command{ClientId: req.ClientId, RequestId: req.RequestId, Admin: admin}, func(a Applied) {
		resp := &wire.CatalogResponse{Error: a.Err, MasterLeader: uint64(m.d.Node)}
		if a.Err == nil {
			x := m.d.Index()
			resp.Table = x.Table(catalog.TableID(a.Table))
			resp.LogGroup, resp.LogVersion = x.Logs().GroupWithID(a.LogGroup), x.Logs().Version()
		}
		done(resp)
	})
}

// place chooses the nodes of a new table's tablets (M4).
func (m *Master) place(now time.Duration, x *catalog.Index, req *wire.CatalogRequest) ([]*Placed, *wire.Error) {
	table := req.Table
	if own := ownTable(table); own != nil {
		table = own
	}
	if err := checkTable(x, table); err != nil {
		return nil, err
	}
	nodes := m.nodes(now, x)
	alive := 0
	for _, n := range placement.Fit(nodes, catalog.RoleTablet) {
		if n.State == placement.Alive {
			alive++
		}
	}
	factor := int(completeTable(x, table).ReplicationFactor)
	if alive == 0 || alive < factor && x.TableNamed(table.Keyspace, table.Name) == nil && m.expects(now, x) {
		return nil, refuse(wire.Code_CODE_NOT_READY, "%d nodes that take tablets have reported to this master, and more may be alive", alive)
	}
	tablets := int(req.Tablets)
	if tablets == 0 {
		tablets = placement.DefaultTablets(alive)
	}
	if tablets > tabletsMax {
		return nil, refuse(wire.Code_CODE_INVALID, "a table has 1 to %d tablets, not %d", tabletsMax, tablets)
	}
	held := map[catalog.NodeID]int{}
	for _, g := range groupsOf(x) {
		for r := range g.Members() {
			held[catalog.NodeID(r.Node)]++
		}
	}
	var placed []*Placed
	for _, on := range placement.ChooseTablets(nodes, held, tablets, factor) {
		p := &Placed{}
		for _, id := range on {
			p.Nodes = append(p.Nodes, uint64(id))
		}
		placed = append(placed, p)
	}
	return placed, nil
}

// Locations says where the tablets of a table are and who leads them.
func (m *Master) Locations(now time.Duration, req *wire.LocationsRequest) *wire.LocationsResponse {
	x, err := m.serving(now)
	if err != nil {
		return &wire.LocationsResponse{Error: err}
	}
	table := x.TableNamed(req.GetKeyspace(), req.GetTable())
	if req.GetTableId() != 0 {
		table = x.Table(catalog.TableID(req.TableId))
	}
	if table == nil {
		return &wire.LocationsResponse{CatalogVersion: x.Version(),
			Error: refuse(wire.Code_CODE_NOT_FOUND, "no table %s.%s (id %d)", req.GetKeyspace(), req.GetTable(), req.GetTableId())}
	}
	return &wire.LocationsResponse{
		Table: table, Tablets: m.locate(now, x, x.Tablets(catalog.TableID(table.Id))),
		Nodes: x.Catalog().Nodes, CatalogVersion: x.Version(),
	}
}

func (m *Master) locate(now time.Duration, x *catalog.Index, tablets []*catalog.Tablet) []*wire.TabletLocation {
	m.mu.Lock()
	defer m.mu.Unlock()
	leaders := m.leadersLocked(now)
	list := make([]*wire.TabletLocation, len(tablets))
	for i, t := range tablets {
		list[i] = &wire.TabletLocation{Tablet: t}
		if l, ok := leaders[catalog.GroupID(t.Id)]; ok {
			list[i].LeaderNode, list[i].LeaderTerm = uint64(l.node), l.report.Term
		}
	}
	return list
}

// propose sends one command through the group; done is called once with what
// became of it.
func (m *Master) propose(cmd *Command, done func(Applied)) {
	m.mu.Lock()
	m.mu.sequence++
	seq := m.mu.sequence
	m.mu.waiting[seq] = done
	m.mu.Unlock()
	cmd.Version, cmd.Node, cmd.Incarnation, cmd.Sequence = commandVersion, uint64(m.d.Node), m.d.Incarnation, seq
	data, err := cmd.MarshalVT()
	if err != nil {
		m.resolve(seq, Applied{Err: refuse(wire.Code_CODE_INTERNAL, "%v", err)})
		return
	}
	m.d.Group.Propose(data, func(err *wire.Error) {
		if err == nil {
			// It has been applied here, so Applied has told already what came of it.
			err = refuse(wire.Code_CODE_UNKNOWN_OUTCOME, "the outcome was lost")
		}
		m.resolve(seq, Applied{Err: err})
	})
}

// Applied is told what became of every command that the local replica applies.
func (m *Master) Applied(list []Applied) {
	for _, a := range list {
		if a.Node == uint64(m.d.Node) && a.Incarnation == m.d.Incarnation {
			m.resolve(a.Sequence, a)
		}
	}
}

func (m *Master) resolve(seq uint64, a Applied) {
	m.mu.Lock()
	done := m.mu.waiting[seq]
	delete(m.mu.waiting, seq)
	m.mu.Unlock()
	if done != nil {
		done(a)
	}
}
