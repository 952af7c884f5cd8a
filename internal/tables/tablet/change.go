package tablet

import (
	"context"
	"fmt"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/tables/docdb"
	"github.com/braiddb/braid/internal/wire"
)

// Changes of the tablet itself. They take the spine's way like any write: under
// the lease, under a lock on the whole tablet, through the log.

// ChangeError says why a change was not carried out.
type ChangeError struct {
	Code       wire.Code
	Message    string
	LeaderNode catalog.NodeID // with CODE_NOT_LEADER, 0 if unknown
}

func (e *ChangeError) Error() string {
	return fmt.Sprintf("change of a tablet: %s: %s", e.Code, e.Message)
}

// AlterSchema replaces the table's schema by a newer version on all replicas. It
// excludes every write while it is under way, so no effect that was made for the
// old schema stands behind the change in the log. A version that the tablet has
// already is no change and no error: masters ask again.
func (t *Tablet) AlterSchema(ctx context.Context, table *catalog.Table) error {
	if table.Schema == nil || catalog.TableID(table.Id) != t.table {
		return &ChangeError{Code: wire.Code_CODE_INVALID, Message: "a schema of another table, or none"}
	}
	if table.Schema.Version <= t.schema.Load().Schema.Version {
		return nil
	}
	return t.alter(ctx, &payload{kind: payloadSchema, schema: table.CloneVT()})
}

func (t *Tablet) alter(ctx context.Context, p *payload) error {
	answer := make(chan *wire.WriteResponse, 1)
	deadline, _ := ctx.Deadline()
	w := &write{tablet: t, change: p, deadline: deadline, done: func(r *wire.WriteResponse) { answer <- r }}
	t.start(w)
	if r := t.await(ctx, w, answer); r.Error != nil {
		return &ChangeError{Code: r.Error.Code, Message: r.Error.Message, LeaderNode: catalog.NodeID(r.Error.LeaderNode)}
	}
	return nil
}

const (
	// cutoffSteps is in how many steps per retention the cutoff follows the
	// clock: history is kept up to one step longer than promised.
	cutoffSteps = 8
	// cutoffStepMin keeps a short retention from becoming a stream of entries.
	cutoffStepMin = time.Second
)

// RaiseCutoff lets the history cutoff follow the clock: on a leader it proposes
// a new one if it has become due, and does not wait for it. The node calls it
// now and then for every tablet. A tablet that nobody has written to since its
// cutoff has nothing to collect and is left asleep. It reports whether it
// proposed anything.
func (t *Tablet) RaiseCutoff(now hlc.Timestamp) bool {
	retention := time.Duration(t.schema.Load().HistoryRetentionMs) * time.Millisecond
	if retention == 0 || t.closed.Load() {
		return false // every write raises the cutoff to its own time
	}
	due := now.Add(-retention)
	have := t.cutoff.Load()
	if due > now || due.Sub(have) < max(retention/cutoffSteps, cutoffStepMin) || hlc.Timestamp(t.lastWrite.Load()) <= have {
		return false
	}
	w := &write{tablet: t, change: &payload{kind: payloadCutoff, cutoff: due}, done: func(*wire.WriteResponse) {}}
	if t.check(w) != nil {
		return false
	}
	data, _ := t.prepare(w)
	t.resume(t.propose(w, data, nil))
	return true
}

// Sweep collects old versions on this replica, as far as a budget of bytes to
// look at goes, and reports whether the tablet's end was reached; the next call
// goes on from there, or begins again. The node calls it now and then.
//
// It collects below the cutoff as committed, not as raised in memory: a crash
// could otherwise keep what the sweep deleted and lose the raise, and reads in
// between would find gaps where they ought to be refused.
func (t *Tablet) Sweep(bytesMax int64) (result docdb.SweepResult, done bool, err error) {
	t.sweeping.Lock()
	defer t.sweeping.Unlock()
	result, err = t.deps.Engine.Sweep(t.span, docdb.SweepOptions{
		Cutoff: hlc.Timestamp(t.collectable.Load()), From: t.sweeping.next, BytesMax: bytesMax})
	if err != nil {
		return result, false, fmt.Errorf("tablet %d: %w", t.id, err)
	}
	t.sweeping.next = result.Next
	return result, result.Next == nil, nil
}

// Cutoff is the time below which nothing can be read here; what only such reads
// could see may be collected.
func (t *Tablet) Cutoff() hlc.Timestamp { return t.cutoff.Load() }
