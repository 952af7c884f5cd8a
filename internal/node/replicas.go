package node

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/journal"
	"github.com/braiddb/braid/internal/master"
	"github.com/braiddb/braid/internal/multiraft"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/tables/docdb"
	"github.com/braiddb/braid/internal/tables/tablet"
	"github.com/braiddb/braid/internal/wire"
)

// hosted is one replica of a tablet that runs here.
type hosted struct {
	*tablet.Tablet
	group *multiraft.Group
}

// hosted gives the replica of a tablet, nil if none runs here.
func (n *Node) hosted(id uint64) *hosted {
	if v, ok := n.tablets.Load(catalog.GroupID(id)); ok {
		return v.(*hosted)
	}
	return nil
}

func (n *Node) eachHosted(f func(h *hosted)) {
	n.tablets.Range(func(_, v any) bool { f(v.(*hosted)); return true })
}

// write is the door to a tablet's write path for every request, local or remote.
func (n *Node) write(req *wire.WriteRequest, deadline time.Time, done func(*wire.WriteResponse)) {
	if n.dead.Load() {
		return // after a fatal fault nothing is answered
	}
	h := n.hosted(req.Tablet)
	if h == nil {
		done(&wire.WriteResponse{Error: notHere()})
		return
	}
	h.WriteAsync(req, deadline, func(resp *wire.WriteResponse) {
		if !n.dead.Load() {
			done(resp)
		}
	})
}

// read is the door to a tablet's reads.
func (n *Node) read(req *wire.ReadRequest) *wire.ReadResponse {
	h := n.hosted(req.Tablet)
	if h == nil || n.dead.Load() {
		return &wire.ReadResponse{Error: notHere()}
	}
	return h.Read(req)
}

func notHere() *wire.Error {
	return &wire.Error{Code: wire.Code_CODE_TABLET_NOT_FOUND, Message: "this node has no replica of the tablet"}
}

// openReplicas starts every replica that the registry lists, each from what the
// LSM and the journal hold of it.
func (n *Node) openReplicas(streams map[journal.StreamID]*journal.StreamReplay) error {
	reps, _ := n.registry.all()
	if err := n.dropStrays(reps, streams); err != nil {
		return err
	}
	for _, rep := range reps {
		if rep.Leaving {
			continue // destroyed further by the next reconciliation
		}
		if err := n.openReplica(rep, streams[journal.StreamID(rep.Group)]); err != nil {
			return err
		}
	}
	return nil
}

// dropStrays ends streams of the journal that no replica here owns: what a crash
// left between the registry's word and the journal's. They would hold its oldest
// segment for ever.
func (n *Node) dropStrays(reps []*Replica, streams map[journal.StreamID]*journal.StreamReplay) error {
	owned := map[journal.StreamID]bool{logStream: true}
	for _, r := range reps {
		owned[journal.StreamID(r.Group)] = true
	}
	for _, id := range slices.Sorted(maps.Keys(streams)) {
		if !owned[id] {
			if err := n.dropStream(id); err != nil {
				return err
			}
		}
	}
	return nil
}

// dropStream tells the journal that a stream is gone, and waits until that is durable.
func (n *Node) dropStream(id journal.StreamID) error {
	done := make(chan error, 1)
	n.journal.Append([]journal.Record{{Stream: id, Kind: journal.KindDrop}}, func(err error) { done <- err })
	return <-done
}

// openReplica starts one replica. A founder of which neither the journal nor the
// LSM holds anything has never answered anybody: the group begins with it.
func (n *Node) openReplica(rep *Replica, recovered *journal.StreamReplay) error {
	cfg := multiraft.GroupConfig{
		ID: catalog.GroupID(rep.Group), Replica: catalog.ReplicaID(rep.Replica), Conf: rep.Founders, Recovered: recovered,
	}
	open := n.openTablet
	if cfg.ID == catalog.MasterGroup {
		open = n.openMaster
	}
	err := open(rep, cfg)
	if errors.Is(err, docdb.ErrCorrupt) {
		n.log.Error("the state of a replica cannot be read; it is replaced", "group", rep.Group, "error", err)
		cfg.SM, cfg.Recovered = unreadable{n.engine, held(rep.Group, rep.Tablet)}, &journal.StreamReplay{Corrupt: true}
		_, err = n.host.Create(cfg)
	}
	return err
}

func (n *Node) openTablet(rep *Replica, cfg multiraft.GroupConfig) error {
	t, err := tablet.New(n.tabletDeps(), rep.Tablet, rep.Table)
	if err != nil {
		return err
	}
	cfg.SM, cfg.Applied = t, t.Applied()
	cfg.New = len(rep.Founders) > 0 && cfg.Recovered == nil && cfg.Applied.Index == 0
	g, err := n.host.Create(cfg)
	if err != nil {
		return fmt.Errorf("group %d: %w", rep.Group, err)
	}
	t.Attach(g)
	n.tablets.Store(cfg.ID, &hosted{Tablet: t, group: g})
	return nil
}

func (n *Node) tabletDeps() tablet.Deps {
	return tablet.Deps{
		Engine: n.engine, Clock: n.clock, Now: n.deps.Now, AfterFunc: n.deps.AfterFunc,
		DiskFull: n.journal.OutOfDisk, Logger: n.log, Options: tablet.Options{RequestBytesMax: requestBytesMax},
	}
}

// requestBytesMax is the largest write: a Redis value of 64 MiB and what goes
// with it. It leaves room for what an entry and a message between nodes add, so
// that whatever is let in can be replicated.
const requestBytesMax = rpc.MaxMessage - 256<<10

// reconcile makes this node hold what the catalog says it should.
func (n *Node) reconcile(x *catalog.Index) error {
	reps, dropped := n.registry.all()
	local := map[uint64]*master.Local{}
	at := func(group uint64) *master.Local {
		if local[group] == nil {
			local[group] = &master.Local{Group: catalog.GroupID(group)}
		}
		return local[group]
	}
	for _, r := range reps {
		at(r.Group).Replica = catalog.ReplicaID(r.Replica)
	}
	for _, d := range dropped {
		at(d.Group).Dropped = catalog.ReplicaID(d.Replica)
	}
	list := make([]master.Local, 0, len(local))
	for _, r := range reps {
		list = append(list, *local[r.Group])
		delete(local, r.Group)
	}
	for _, d := range dropped {
		if l := local[d.Group]; l != nil {
			list = append(list, *l)
		}
	}
	lost := map[catalog.GroupID]catalog.ReplicaID{}
	for _, a := range master.Reconcile(n.id.Node, x, list) {
		if a.Kind == master.LostReplica || a.Kind == master.CreateReplica && n.refuses(a) {
			lost[a.Group] = a.Replica
			continue
		}
		if err := n.act(a); err != nil {
			return fmt.Errorf("%s replica %d of group %d: %w", a.Kind, a.Replica, a.Group, err)
		}
	}
	n.lost.Store(&lost)
	n.mend()
	return nil
}

// refuses reports whether a replica cannot be made because files are damaged where it
// would be.
func (n *Node) refuses(a master.Action) bool {
	n.mend()
	return n.engine.Damaged(held(uint64(a.Group), a.Tablet))
}

func (n *Node) act(a master.Action) error {
	switch a.Kind {
	case master.CreateReplica:
		return n.createReplica(a)
	case master.DestroyReplica:
		return n.destroyReplica(a.Group, a.Replica)
	case master.ForgetGroup:
		return n.registry.forget(a.Group)
	}
	return fmt.Errorf("BUG: unknown action %d", a.Kind)
}

func (n *Node) createReplica(a master.Action) error {
	rep := &Replica{Group: uint64(a.Group), Replica: uint64(a.Replica), Table: a.Table}
	if a.Group != catalog.MasterGroup {
		rep.Tablet = a.Tablet
	}
	if a.New {
		rep.Founders = a.Conf
	}
	if err := n.registry.put(rep); err != nil {
		return err
	}
	n.log.Info("replica created", "group", a.Group, "replica", a.Replica, "founder", a.New)
	return n.openReplica(rep, nil)
}

// destroyReplica ends a replica and removes everything of it. The registry keeps
// it as leaving until that is done, so that a crash in between is finished later.
func (n *Node) destroyReplica(group catalog.GroupID, replica catalog.ReplicaID) error {
	reps, _ := n.registry.all()
	for _, r := range reps {
		if r.Group == uint64(group) && !r.Leaving {
			leaving := r.CloneVT()
			leaving.Leaving = true
			if err := n.registry.put(leaving); err != nil {
				return err
			}
		}
	}
	if err := n.erase(group, reps); err != nil {
		return err
	}
	n.log.Info("replica destroyed", "group", group, "replica", replica)
	return n.registry.drop(group, replica)
}

// erase removes what the LSM and the journal hold of a group. A replica that was
// found leaving at start runs in no host.
func (n *Node) erase(group catalog.GroupID, reps []*Replica) error {
	if n.host.Group(group) != nil {
		if h := n.hosted(uint64(group)); h != nil {
			n.tablets.Delete(group)
			h.Close()
		}
		if group == catalog.MasterGroup {
			n.master.Store(nil)
			n.mgroup.Store(nil)
		}
		return n.host.Remove(group)
	}
	i := slices.IndexFunc(reps, func(r *Replica) bool { return r.Group == uint64(group) })
	if i < 0 {
		return nil
	}
	h := held(reps[i].Group, reps[i].Tablet)
	if err := n.engine.Drop(h.Span, h.Group); err != nil {
		return err
	}
	return n.dropStream(journal.StreamID(group))
}
