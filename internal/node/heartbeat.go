package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/multiraft"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

const (
	// heartbeatEvery is how often a node reports to the master; a node that sees a
	// leader change reports at once.
	heartbeatEvery = 500 * time.Millisecond
	// heartbeatTime bounds one report, moveTime one step of a move.
	heartbeatTime = 3 * time.Second
	moveTime      = 10 * time.Second
	// silentAfter is when a node that no master answers stops being ready.
	silentAfter = 5 * time.Second
	// sweepEvery is how often old versions are looked for.
	sweepEvery = 10 * time.Second
)

func (n *Node) startLoops(context.Context) error {
	if x := n.index.Load(); x.Version() > 0 {
		if err := n.reconcile(x); err != nil { // a founder does not wait for a leader to be told so
			return err
		}
	}
	n.loops.Go(n.flusher)
	n.loops.Go(n.heartbeats)
	n.loops.Go(func() { n.every(heartbeatEvery/2, n.tickMaster) })
	n.loops.Go(func() { n.every(sweepEvery, n.collect) })
	n.loops.Go(func() { n.every(throughputEvery, n.measureThroughput) })
	return nil
}

// every calls f again and again until the node stops.
func (n *Node) every(d time.Duration, f func()) {
	for n.sleep(n.ctx, d) == nil {
		f()
	}
}

// tickMaster lets the master's service look at what was reported.
func (n *Node) tickMaster() {
	if m := n.master.Load(); m != nil {
		m.Tick(n.deps.Mono())
	}
}

// heartbeats reports to the master and carries out what it answers.
func (n *Node) heartbeats() {
	moves := &movers{n: n, running: map[moveKey]bool{}}
	defer moves.wait()
	for {
		if err := n.heartbeat(moves); err != nil && n.ctx.Err() == nil {
			n.log.Debug("no answer to a heartbeat", "error", err)
		}
		n.trustJournal()
		pause := heartbeatEvery
		if !n.led() { // as long as leaders change, locations are worth telling sooner
			pause /= 10
		}
		if n.sleep(n.ctx, pause) != nil {
			return
		}
	}
}

// led reports whether every group that has a replica here knows its leader.
func (n *Node) led() bool {
	for _, g := range n.host.Groups() {
		if g.Status().LeaderNode == 0 {
			return false
		}
	}
	return true
}

func (n *Node) heartbeat(moves *movers) error {
	ctx, cancel := context.WithCancel(n.ctx)
	defer cancel()
	defer n.deps.AfterFunc(heartbeatTime, cancel)()
	req := &wire.HeartbeatRequest{
		Node: n.descriptor(), Replicas: n.report(), CatalogVersion: n.index.Load().Version(), HybridTime: uint64(n.clock.Now()),
	}
	resp := new(wire.HeartbeatResponse)
	err := n.askMaster(ctx, masterCall{
		method: rpc.MethodHeartbeat, req: req,
		local:  func() { resp = n.serveHeartbeat(req) },
		remote: func() rpc.Message { resp = new(wire.HeartbeatResponse); return resp },
		failed: func() *wire.Error { return resp.Error },
	})
	if err != nil {
		return err
	}
	if resp.Forgotten || resp.Misfit {
		n.fatal(errors.New(resp.Error.GetMessage()))
		return n.ctx.Err()
	}
	if resp.Error != nil {
		return fmt.Errorf("the master refuses this node: %s", resp.Error.Message)
	}
	n.heardMaster.Store(int64(max(1, n.deps.Mono())))
	if resp.Catalog != nil {
		if err := n.adopt(resp.Catalog); err != nil {
			if n.ctx.Err() == nil {
				n.log.Error("a catalog could not be carried out, and is tried again", "version", resp.Catalog.Version, "error", err)
			}
			return err
		}
	}
	for _, m := range resp.Moves {
		moves.start(m)
	}
	return nil
}

// adopt takes over a newer catalog. What fails is tried again with the next
// heartbeat, since the node keeps saying which version it has carried out.
func (n *Node) adopt(c *catalog.Catalog) error {
	n.adopting.Lock()
	defer n.adopting.Unlock()
	x := n.index.Load().Next(c)
	if n.index.Load().Version() >= x.Version() {
		return nil
	}
	if err := n.addresses.learn(c); err != nil {
		return err
	}
	if err := n.reconcile(x); err != nil {
		return err
	}
	n.index.Store(x)
	n.logsChanged()
	return nil
}

func (n *Node) handleHeartbeat(r *rpc.Request) {
	n.reply(r, n.serveHeartbeat(r.Msg.(*wire.HeartbeatRequest)))
}

func (n *Node) serveHeartbeat(req *wire.HeartbeatRequest) *wire.HeartbeatResponse {
	m := n.master.Load()
	if m == nil {
		return &wire.HeartbeatResponse{Error: n.noMaster()}
	}
	return m.Heartbeat(n.deps.Mono(), req)
}

// report says how every replica here is.
func (n *Node) report() []*wire.ReplicaReport {
	var out []*wire.ReplicaReport
	spoilt := n.spoilt()
	for _, g := range n.host.Groups() {
		s := g.Status()
		r := &wire.ReplicaReport{
			Group: uint64(s.ID), Replica: uint64(s.Replica), Term: s.Term, Applied: s.Applied, Corrupt: s.Corrupt,
		}
		r.Corrupt = r.Corrupt || spoilt[r.Group]
		if h := n.hosted(r.Group); h != nil {
			r.SchemaVersion = h.Table().Schema.GetVersion()
		}
		if s.Role == multiraft.RoleLeader && g.Leading() == nil {
			r.Leader, r.Config = true, s.Conf
			for _, p := range s.Progress {
				if p.Learner && p.CaughtUp {
					r.CaughtUpLearners = append(r.CaughtUpLearners, uint64(p.Replica))
				}
				if !p.Learner && s.Commit > p.Match {
					r.Lag = max(r.Lag, s.Commit-p.Match)
				}
			}
		}
		out = append(out, r)
	}
	if lost := n.lost.Load(); lost != nil {
		for group, replica := range *lost {
			out = append(out, &wire.ReplicaReport{Group: uint64(group), Replica: uint64(replica), Corrupt: true})
		}
	}
	return out
}

// movers carries out moves, one at a time for each group. The master repeats a
// move until a report shows it done, so a failed one is simply forgotten.
type movers struct {
	n  *Node
	wg sync.WaitGroup

	mu      sync.Mutex
	running map[moveKey]bool
}

type moveKey uint64

func (m *movers) wait() { m.wg.Wait() }

func (m *movers) start(move *wire.Move) {
	key := moveKey(move.Group)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.running[key] {
		return
	}
	m.running[key] = true
	m.wg.Go(func() {
		ctx, cancel := context.WithCancel(m.n.ctx)
		defer cancel()
		defer m.n.deps.AfterFunc(moveTime, cancel)()
		if err := m.n.move(ctx, move); err != nil && ctx.Err() == nil {
			m.n.log.Info("move not done", "kind", move.Kind, "group", move.Group, "error", err)
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.running, key)
	})
}

// move carries out one step that the master asks of a leader.
func (n *Node) move(ctx context.Context, m *wire.Move) error {
	g := n.host.Group(catalog.GroupID(m.Group))
	if g == nil {
		return errors.New("no replica of the group is here")
	}
	replica := catalog.ReplicaID(m.GetReplica().GetId())
	change := multiraft.Change{Replica: replica, Node: catalog.NodeID(m.GetReplica().GetNode())}
	switch m.Kind {
	case wire.Move_KIND_ADD_LEARNER:
		change.Kind = multiraft.AddLearner
	case wire.Move_KIND_PROMOTE:
		change.Kind = multiraft.Promote
	case wire.Move_KIND_REMOVE_REPLICA:
		change.Kind = multiraft.Remove
	case wire.Move_KIND_TRANSFER_LEADER:
		g.TransferLeader(replica)
		return nil
	case wire.Move_KIND_ALTER_SCHEMA:
		if h := n.hosted(m.Group); h != nil {
			return h.AlterSchema(ctx, m.Table)
		}
		return nil
	default:
		return fmt.Errorf("unknown move %d", m.Kind)
	}
	n.log.Info("membership", "change", m.Kind, "group", m.Group, "replica", replica, "node", change.Node)
	return g.ChangeMembers(ctx, change)
}
