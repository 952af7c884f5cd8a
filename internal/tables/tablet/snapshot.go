package tablet

import (
	"errors"
	"fmt"
	"io"

	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/multiraft"
	"github.com/braiddb/braid/internal/tables/docdb"
)

// A snapshot is the tablet's documents, in all versions, and its group's state:
// how far it is, schema, cutoff, remembered requests. Both lie in one stream of
// docdb's, so a copy of a replica goes on exactly where the original stood (W4).

// snapshotReader is an export with the state that it was taken at.
type snapshotReader struct {
	*docdb.Snapshot
	state multiraft.AppliedState
}

// State is what the stream holds of applied state.
func (s *snapshotReader) State() multiraft.AppliedState { return s.state }

// Snapshot exports the replica as it is. Later entries do not touch it.
func (t *Tablet) Snapshot() (multiraft.SnapshotReader, error) {
	s, err := t.deps.Engine.Export(t.span, t.id)
	if err != nil {
		return nil, fmt.Errorf("snapshot of tablet %d: %w", t.id, err)
	}
	a, conf, err := readApplied(s.GroupState)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("snapshot of tablet %d: %w", t.id, err), s.Close())
	}
	t.metrics.SnapshotsOut.Add(1)
	return &snapshotReader{s, a.state(conf)}, nil
}

// Restore replaces the replica by a snapshot, or changes nothing if the stream
// is not whole. It is durable when it returns.
func (t *Tablet) Restore(meta multiraft.AppliedState, r io.Reader) error {
	if err := t.deps.Engine.Ingest(t.span, t.id, r); err != nil {
		return fmt.Errorf("restore tablet %d: %w", t.id, err)
	}
	if err := t.load(); err != nil {
		return err
	}
	if got := t.apply.state; got.Index != meta.Index || got.Term != meta.Term {
		return fmt.Errorf("restore tablet %d: %w: the snapshot is of entry %d of term %d, the stream of %d of %d",
			t.id, ErrFormat, meta.Index, meta.Term, got.Index, got.Term)
	}
	t.metrics.SnapshotsIn.Add(1)
	return nil
}

// Destroy removes everything of the replica, durably.
func (t *Tablet) Destroy() error {
	t.Close()
	if err := t.deps.Engine.Drop(t.span, t.id); err != nil {
		return fmt.Errorf("destroy tablet %d: %w", t.id, err)
	}
	return nil
}

// Hash digests what can be read here at a time; replicas that applied the same
// entries have equal hashes at every time at or above the cutoff of both.
func (t *Tablet) Hash(at hlc.Timestamp) (uint64, error) {
	return t.deps.Engine.Hash(t.span, at, &t.cutoff)
}
