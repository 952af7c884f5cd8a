package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/braiddb/braid/internal/wire"
)

// CheckpointOptions of a checkpointed reader.
type CheckpointOptions struct {
	// Reader says what is read. From, FromTime and FromTail count only where there is no
	// checkpoint yet.
	Reader ReaderOptions
	// Keyspace in which the table checkpoints lies; both are made on first use. Default
	// "checkpoints".
	Keyspace string
}

// checkpointTable is the table's name in its keyspace.
const checkpointTable = "checkpoints"

// CheckpointedReader reads a log and remembers, in a table of the cluster, how far it
// was read: who opens one of the same name later goes on behind the last entry that was
// committed. So each entry is given at least once, and exactly once if Commit and what
// is done with the entry succeed or fail together. One process at a time should use a
// name with a log: of two, the last to commit wins.
type CheckpointedReader struct {
	reader *Reader // not embedded: its Next would pass the checkpoint by
	table  *Table
	name   string

	last      Position // of the entry that Next gave last
	committed Position
}

// Position is a place in a log: behind a payload, or behind all of an LSN.
type Position struct {
	LSN LSN
	// BatchOffset of the payload; with Whole everything of the LSN is behind.
	BatchOffset int
	Whole       bool
}

// NewCheckpointedReader opens a reader that goes on where the last of that name stopped.
func (l *Log) NewCheckpointedReader(ctx context.Context, name string, o CheckpointOptions) (*CheckpointedReader, error) {
	if name == "" {
		return nil, newError(wire.Code_CODE_INVALID, nil, "a checkpointed reader needs a name")
	}
	if o.Keyspace == "" {
		o.Keyspace = "checkpoints"
	}
	table, err := l.client.checkpoints(ctx, o.Keyspace)
	if err != nil {
		return nil, fmt.Errorf("checkpoints of reader %q: %w", name, err)
	}
	at, err := readCheckpoint(ctx, table, name, l.id)
	if err != nil {
		return nil, fmt.Errorf("checkpoint of reader %q of log %d: %w", name, l.id, err)
	}
	ro := o.Reader
	if at != (Position{}) {
		ro.FromTime, ro.FromTail, ro.After = time.Time{}, false, nil
		if ro.From = at.LSN; at.Whole {
			ro.From++
		} else {
			ro.After = &at.BatchOffset
		}
	}
	return &CheckpointedReader{reader: l.NewReader(ro), table: table, name: name, last: at, committed: at}, nil
}

// Next is Reader.Next; Commit remembers what it gave.
func (r *CheckpointedReader) Next(ctx context.Context) (Entry, error) {
	e, err := r.reader.Next(ctx)
	switch {
	case err != nil:
	case e.IsGap():
		r.last = Position{LSN: e.Gap.To, Whole: true}
	default:
		r.last = Position{LSN: e.Record.LSN, BatchOffset: e.Record.BatchOffset, Whole: e.Record.Count > 1}
	}
	return e, err
}

// All gives entries as Next does, until the context or the range ends; an error ends it.
func (r *CheckpointedReader) All(ctx context.Context) iter.Seq2[Entry, error] {
	return all(ctx, r.Next)
}

// Close ends the reader. What was not committed is given again to the next of its name.
func (r *CheckpointedReader) Close() { r.reader.Close() }

// Health, State and Metrics are those of the reader.
func (r *CheckpointedReader) Health() ReaderHealth   { return r.reader.Health() }
func (r *CheckpointedReader) State() ReaderState     { return r.reader.State() }
func (r *CheckpointedReader) Metrics() ReaderMetrics { return r.reader.Metrics() }

// Commit remembers, durably, that all that Next has given was dealt with.
func (r *CheckpointedReader) Commit(ctx context.Context) error { return r.CommitAt(ctx, r.last) }

// CommitAt remembers that all up to a position was dealt with; it may lie before what
// Next has given.
func (r *CheckpointedReader) CommitAt(ctx context.Context, at Position) error {
	if at == r.committed || at == (Position{}) {
		return nil
	}
	if past(at, r.last) {
		return newError(wire.Code_CODE_INVALID, nil, "%s is beyond what was read, %s", at.LSN, r.last.LSN)
	}
	offset := int64(at.BatchOffset)
	if at.Whole {
		offset = -1
	}
	err := r.table.Put(ctx, Row{
		"reader": r.name, "log": int64(r.reader.log.id), "lsn": int64(at.LSN), "batch_offset": offset, "committed": r.reader.log.client.opts.Clock.Now(),
	})
	if err != nil {
		return fmt.Errorf("checkpoint of reader %q of log %d at %s: %w", r.name, r.reader.log.id, at.LSN, err)
	}
	r.committed = at
	return nil
}

// Committed is the last position that was committed; zero if none was.
func (r *CheckpointedReader) Committed() Position { return r.committed }

func past(a, b Position) bool {
	if a.LSN != b.LSN || b.Whole {
		return a.LSN > b.LSN
	}
	return a.Whole || a.BatchOffset > b.BatchOffset
}

// checkpoints opens the table, and makes it if it is not there.
func (c *Client) checkpoints(ctx context.Context, keyspace string) (*Table, error) {
	t, err := c.Table(ctx, keyspace, checkpointTable)
	if !errors.Is(err, ErrNotFound) {
		return t, err
	}
	if err := c.CreateKeyspace(ctx, keyspace, 0, true); err != nil && !errors.Is(err, ErrAlreadyExists) {
		return nil, err
	}
	return c.CreateTable(ctx, TableSpec{
		Keyspace: keyspace, Name: checkpointTable, IfNotExists: true,
		Columns: []Column{
			{Name: "reader", Type: String, Role: Hashed},
			{Name: "log", Type: Int64, Role: Ranged},
			{Name: "lsn", Type: Int64},
			{Name: "batch_offset", Type: Int64},
			{Name: "committed", Type: Timestamp},
		},
	})
}

// readCheckpoint gives the position that was committed last, zero if there is none.
func readCheckpoint(ctx context.Context, t *Table, name string, log LogID) (Position, error) {
	row, err := t.Get(ctx, Row{"reader": name, "log": int64(log)})
	if errors.Is(err, ErrNotFound) {
		return Position{}, nil
	}
	if err != nil {
		return Position{}, err
	}
	lsn, ok1 := row["lsn"].(int64)
	offset, ok2 := row["batch_offset"].(int64)
	if !ok1 || !ok2 || lsn == 0 || offset < -1 {
		return Position{}, newError(wire.Code_CODE_INTERNAL, nil, "the row holds no position: %v", row)
	}
	if offset == -1 {
		return Position{LSN: LSN(lsn), Whole: true}, nil
	}
	return Position{LSN: LSN(lsn), BatchOffset: int(offset)}, nil
}
