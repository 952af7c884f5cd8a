package node

import (
	"io"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/multiraft"
	"github.com/braiddb/braid/internal/tables/docdb"
)

// What becomes of a damaged file of the documents. Whoever comes upon it, a compaction or
// a request, the LSM notes where it is. Every replica that may have something there is
// reported as one that cannot be served any more; meanwhile it votes, takes entries and
// answers what it can read. The master gives its leadership away and replaces it, as soon
// as the group can do without. When no replica is left there, what lies there is removed,
// and the node takes replicas again (N5).

// held is what a replica has in the LSM of documents.
func held(group uint64, t *catalog.Tablet) docdb.Held {
	h := docdb.Held{Group: catalog.GroupID(group)}
	if h.Group != catalog.MasterGroup && t != nil {
		h.Span = docdb.Span{Table: catalog.TableID(t.Table), Start: t.HashStart, End: t.HashEnd}
	}
	return h
}

// spoilt is the groups of which a damaged file here may have held something.
func (n *Node) spoilt() map[uint64]bool {
	if n.engine.Sound() {
		return nil
	}
	out := map[uint64]bool{}
	reps, _ := n.registry.all()
	for _, r := range reps {
		if n.engine.Damaged(held(r.Group, r.Tablet)) {
			out[r.Group] = true
		}
	}
	return out
}

// mend removes damage that concerns no replica here any more. Replicas are made by the
// caller, and so not meanwhile.
func (n *Node) mend() {
	if n.engine.Sound() {
		return
	}
	var all []docdb.Held
	reps, _ := n.registry.all()
	for _, r := range reps {
		all = append(all, held(r.Group, r.Tablet))
	}
	if err := n.engine.Mend(all); err != nil {
		n.log.Error("damaged files of documents could not be cut out: it is tried again with the next look", "error", err)
	}
}

// unreadable stands for a replica of which even the group's state does not read. It can be
// removed, and nothing else.
type unreadable struct {
	engine *docdb.Engine
	held   docdb.Held
}

// Apply is not called: the replica takes no part.
func (unreadable) Apply([]multiraft.Entry) error { return docdb.ErrCorrupt }

// Snapshot is refused.
func (unreadable) Snapshot() (multiraft.SnapshotReader, error) { return nil, docdb.ErrCorrupt }

// Restore is refused.
func (unreadable) Restore(multiraft.AppliedState, io.Reader) error { return docdb.ErrCorrupt }

// Destroy removes everything of the replica.
func (u unreadable) Destroy() error { return u.engine.Drop(u.held.Span, u.held.Group) }
