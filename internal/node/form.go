package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/master"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// bootstrapFile keeps this node's part in founding its cluster.
const bootstrapFile = "BOOTSTRAP"

// former runs a master.Former until it has an outcome.
type former struct {
	mu       sync.Mutex
	core     *master.Former // nil once the node is a member
	founding *catalog.Catalog
}

const formTick = 20 * time.Millisecond

// meet makes this node a member: of the cluster that its directory belongs to, of
// the one that its join list founds or already is, or of one of its own.
func (n *Node) meet(ctx context.Context) error {
	saved, err := n.savedBootstrap()
	if err != nil {
		return err
	}
	if saved.GetDecided() {
		n.former.founding = saved.Founding
	}
	if n.id.Cluster != "" {
		return n.checkJoin(ctx)
	}
	first := master.First{Tablets: n.cfg.RedisTablets}
	if len(n.cfg.Join) == 0 {
		return n.admitted(master.Alone(n.descriptor(), n.dice(), first))
	}
	core, err := master.NewFormer(n.descriptor(), n.cfg.joinAddrs(), saved, n.dice(), master.FormOptions{First: first})
	if err != nil {
		return err
	}
	n.log.Info("looking for the cluster", "join", n.cfg.joinAddrs())
	formed, err := n.form(ctx, core)
	if err != nil {
		return err
	}
	if formed.Node == 0 {
		if formed.Node, err = n.join(ctx, formed); err != nil {
			return err
		}
	}
	return n.admitted(formed)
}

// checkJoinTime bounds how long a start waits for what its join list says.
const checkJoinTime = time.Second

// checkJoin refuses to start a member of one cluster where its join list leads
// to another: served by itself, the directory would be mistaken for a part of
// that one (N4). One node of the list that is of this cluster settles it; nodes
// that are down say nothing.
func (n *Node) checkJoin(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkJoinTime)
	defer cancel()
	addrs := n.cfg.joinAddrs()
	type answer struct {
		ours    bool
		refused error
	}
	answers := make(chan answer, len(addrs))
	for _, addr := range addrs {
		resp := new(wire.HelloResponse)
		n.pool.To(addr).Go(ctx, rpc.MethodHello, &wire.HelloRequest{}, resp, func(err error) {
			var a answer
			var h *rpc.HandshakeError
			if errors.As(err, &h) && h.Refusal == rpc.RefusalCluster {
				a.refused = fmt.Errorf("%w: it is of %s, and %s of the join list of %s; start it with its own list, or with an empty directory",
					ErrOtherCluster, h.Ours, addr, h.Theirs)
			}
			a.ours = err == nil && resp.ClusterId == n.clusterID() && !bytes.Equal(resp.DirectoryId, n.directory)
			answers <- a
		})
	}
	var refused error
	for range addrs {
		a := <-answers
		if a.ours {
			return nil
		}
		if a.refused != nil {
			refused = a.refused
		}
	}
	return refused
}

func (n *Node) savedBootstrap() (*wire.BootstrapState, error) {
	data, err := readDurable(n.deps.FS, n.cfg.Data, bootstrapFile)
	if isMissing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return master.DecodeBootstrap(data)
}

// form steps the former until it is done.
func (n *Node) form(ctx context.Context, core *master.Former) (*master.Formed, error) {
	n.former.mu.Lock()
	n.former.core = core
	n.former.mu.Unlock()
	var said error
	for {
		formed, err := n.stepFormer(func(f *master.Former) { f.Tick(n.deps.Mono()) })
		if err != nil || formed != nil {
			return formed, err
		}
		n.former.mu.Lock()
		trouble, missing := core.Trouble(), core.Missing()
		n.former.mu.Unlock()
		if trouble != nil && (said == nil || trouble.Error() != said.Error()) {
			said = trouble
			n.log.Warn("the cluster cannot form", "error", trouble)
		}
		if err := n.sleep(ctx, formTick); err != nil {
			return nil, fmt.Errorf("no cluster found: %w (not heard of: %v)", errors.Join(err, trouble), missing)
		}
	}
}

// stepFormer does one step and what follows from it: first on disk, then sent.
func (n *Node) stepFormer(step func(*master.Former)) (*master.Formed, error) {
	n.former.mu.Lock()
	defer n.former.mu.Unlock()
	f := n.former.core
	if f == nil {
		return nil, nil
	}
	step(f)
	r := f.Ready()
	if r.Save != nil {
		data, err := master.EncodeBootstrap(r.Save)
		if err != nil {
			return nil, err
		}
		if err := writeDurably(n.deps.FS, n.cfg.Data, bootstrapFile, data); err != nil {
			return nil, err
		}
		if r.Save.Decided {
			n.former.founding = r.Save.Founding
		}
	}
	for _, e := range r.Send {
		n.pool.To(e.To).Send(rpc.MethodBootstrap, e.Msg)
	}
	formed := f.Formed()
	return formed, nil
}

// handleBootstrap is told what other nodes that look for a cluster say.
func (n *Node) handleBootstrap(r *rpc.Request) {
	m := r.Msg.(*wire.BootstrapMessage)
	if n.clusterID() == "" {
		if _, err := n.stepFormer(func(f *master.Former) { f.Step(n.deps.Mono(), m) }); err != nil {
			n.fatal(fmt.Errorf("founding: %w", err))
		}
		return
	}
	n.former.mu.Lock()
	founding := n.former.founding
	n.former.mu.Unlock()
	known := n.addresses.known.Load().source
	answer := master.AnswerBootstrap(m, n.descriptor(), known, catalog.NodeID(n.masterLeader.Load()), founding)
	if answer != nil {
		n.pool.To(m.From).Send(rpc.MethodBootstrap, answer)
	}
}

// admitted writes down what this node is now: first its replica of the master
// and its peers, last its identity, so that a crash in between is repeated.
func (n *Node) admitted(f *master.Formed) error {
	known := &catalog.Catalog{ClusterId: f.ClusterID, Nodes: f.Nodes}
	if f.Catalog != nil {
		known.MasterReplicas = f.Catalog.MasterReplicas
		i := slices.IndexFunc(f.Catalog.MasterReplicas, func(r *catalog.Replica) bool { return r.Node == uint64(f.Node) })
		if i >= 0 {
			err := n.registry.put(&Replica{
				Group: uint64(catalog.MasterGroup), Replica: f.Catalog.MasterReplicas[i].Id,
				Founders: f.Catalog.MasterReplicas, First: f.Catalog,
			})
			if err != nil {
				return err
			}
		}
		n.index.Store(catalog.NewIndex(f.Catalog))
	}
	if err := n.addresses.learn(known); err != nil {
		return err
	}
	id := n.id
	id.Cluster, id.Node = f.ClusterID, f.Node
	if err := id.save(n.deps.FS, n.cfg.Data); err != nil {
		return err
	}
	n.become(id)
	n.former.mu.Lock()
	n.former.core = nil
	n.former.mu.Unlock()
	n.masterLeader.Store(uint64(f.Leader))
	n.log.Info("member of the cluster", "cluster", f.ClusterID, "id", f.Node, "nodes", len(f.Nodes))
	return nil
}

// join asks the master's leader, through whomever it finds, for a node id.
func (n *Node) join(ctx context.Context, f *master.Formed) (catalog.NodeID, error) {
	if err := n.addresses.learn(&catalog.Catalog{ClusterId: f.ClusterID, Nodes: f.Nodes}); err != nil {
		return 0, err
	}
	n.masterLeader.Store(uint64(f.Leader))
	self := n.descriptor()
	req := &wire.JoinRequest{Node: self, DirectoryId: self.DirectoryId, ClusterId: f.ClusterID}
	var resp *wire.JoinResponse
	for {
		err := n.askMaster(ctx, masterCall{
			method: rpc.MethodJoin, req: req, local: func() { panic("BUG: a node without an id asked itself") },
			remote: func() rpc.Message { resp = new(wire.JoinResponse); return resp },
			failed: func() *wire.Error { return resp.Error },
		})
		if err != nil {
			return 0, fmt.Errorf("join cluster %s: %w", f.ClusterID, err)
		}
		if resp.Error == nil {
			return catalog.NodeID(resp.Node), nil
		}
		if !resp.Error.Code.Retriable() {
			return 0, fmt.Errorf("join cluster %s: %s", f.ClusterID, resp.Error.Message)
		}
		n.log.Info("not admitted yet", "reason", resp.Error.Message)
		if err := n.sleep(ctx, 500*time.Millisecond); err != nil {
			return 0, fmt.Errorf("join cluster %s: %w (last: %s)", f.ClusterID, err, resp.Error.Message)
		}
	}
}

// handleJoin admits another node, where this one leads the master.
func (n *Node) handleJoin(r *rpc.Request) {
	m := n.master.Load()
	if m == nil || !n.opened.Load() {
		n.reply(r, &wire.JoinResponse{Error: n.noMaster()})
		return
	}
	m.Join(n.deps.Mono(), r.Msg.(*wire.JoinRequest), func(resp *wire.JoinResponse) { n.reply(r, resp) })
}

// handleHello says who this node is.
func (n *Node) handleHello(r *rpc.Request) {
	id := n.descriptor()
	n.reply(r, &wire.HelloResponse{
		ClusterId: n.clusterID(), Node: id.Id, DirectoryId: id.DirectoryId, LeaderNode: n.masterLeader.Load(),
		Join: n.cfg.joinAddrs(), Nodes: n.addresses.all(),
	})
}

// descriptor is what this node says of itself.
func (n *Node) descriptor() *catalog.Node {
	state := catalog.NodeState_NODE_STATE_ALIVE
	if n.draining.Load() {
		state = catalog.NodeState_NODE_STATE_DRAINING
	}
	return &catalog.Node{
		Id: n.self.Load(), Incarnation: n.incarnation, RpcAddr: n.addrs.Node, ClientAddr: n.addrs.Client,
		RedisAddr: n.addrs.Redis, ConsoleAddr: n.addrs.Console, Location: n.cfg.Location, State: state,
		Version: n.cfg.Version, DirectoryId: n.directory,
		Roles: n.roles(), SequencerWeight: n.cfg.SequencerWeight, StorageWeight: n.cfg.StorageWeight,
		EpochStore: n.cfg.epochStoreName(),
	}
}

// roles are those of the configuration, which has been validated; 0 means all.
func (n *Node) roles() uint32 {
	roles, err := catalog.ParseRoles(n.cfg.Roles)
	if err != nil {
		panic("BUG: a configuration with unknown roles was let through: " + err.Error())
	}
	return roles
}
