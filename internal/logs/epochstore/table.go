package epochstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/logs/sequencer"
	"github.com/braiddb/braid/internal/wire"
)

// Metrics of a store. All only grow.
type Metrics struct {
	// Reads is how many records were asked for.
	Reads atomic.Uint64
	// Writes is how many compare-and-sets were asked for.
	Writes atomic.Uint64
	// Conflicts is how many of them found another version.
	Conflicts atomic.Uint64
	// Doubts is how many answers were lost, so that the record was read again.
	Doubts atomic.Uint64
	// Unknown is how many outcomes could not be found out.
	Unknown atomic.Uint64
}

func (m *Metrics) count(err error) error {
	switch {
	case errors.Is(err, sequencer.ErrConflict):
		m.Conflicts.Add(1)
	case errors.Is(err, ErrUnknown):
		m.Unknown.Add(1)
	}
	return err
}

// waitingMax bounds the requests that wait for the table to be found, or for a
// ZooKeeper connection.
const waitingMax = 1 << 17

// Table is the store on a table of Braid's own tablets. The table is made when it
// is first needed. Requests of many logs go out at once, one message to each
// tablet's leader carries those that wait for it, and one Raft entry all that
// have arrived.
type Table struct {
	client  *client.Client
	metrics Metrics
	table   atomic.Pointer[client.Table] // nil until it is first needed

	ctx    context.Context
	cancel context.CancelFunc
	opener sync.WaitGroup

	mu struct {
		sync.Mutex
		opening bool
		closed  bool
		waiting []func(*client.Table, error)
	}
}

// NewTable makes the store of the cluster that the client speaks to.
func NewTable(c *client.Client) *Table {
	t := &Table{client: c}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t
}

// Metrics counts what the store did.
func (t *Table) Metrics() *Metrics { return &t.metrics }

// Close ends waiting for the table. Requests on their way are answered by the
// client that carries them.
func (t *Table) Close() {
	t.mu.Lock()
	t.mu.closed = true
	t.mu.Unlock()
	t.cancel()
	t.opener.Wait()
}

// with calls use with the table, once that is known.
func (t *Table) with(use func(*client.Table, error)) {
	if table := t.table.Load(); table != nil {
		use(table, nil)
		return
	}
	refused := t.wait(use)
	if refused != nil {
		use(nil, refused)
	}
}

func (t *Table) wait(use func(*client.Table, error)) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.mu.closed:
		return ErrClosed
	case len(t.mu.waiting) >= waitingMax:
		return ErrOverloaded
	}
	t.mu.waiting = append(t.mu.waiting, use)
	if !t.mu.opening {
		t.mu.opening = true
		t.opener.Go(t.open)
	}
	return nil
}

// open finds the table, or makes it, and lets everybody go on who waits.
func (t *Table) open() {
	table, err := t.client.Table(t.ctx, catalog.SystemKeyspace, catalog.EpochTable)
	if errors.Is(err, client.ErrNotFound) {
		table, err = t.client.CreateTable(t.ctx, client.TableSpec{Keyspace: catalog.SystemKeyspace, Name: catalog.EpochTable, IfNotExists: true})
	}
	if err != nil {
		err = fmt.Errorf("the epoch store's table: %w", err)
		if t.ctx.Err() != nil {
			err = ErrClosed
		}
	} else {
		t.table.Store(table)
	}
	t.mu.Lock()
	waiting := t.mu.waiting
	t.mu.waiting, t.mu.opening = nil, false
	t.mu.Unlock()
	for _, use := range waiting {
		use(table, err)
	}
}

// Read gives the record of a log, nil if there is none.
func (t *Table) Read(log logs.LogID, done func(*wire.EpochRecord, error)) {
	t.metrics.Reads.Add(1)
	t.with(func(table *client.Table, err error) {
		if err != nil {
			done(nil, err)
			return
		}
		t.read(table, log, done)
	})
}

func (t *Table) read(table *client.Table, log logs.LogID, done func(*wire.EpochRecord, error)) {
	key := client.Row{catalog.EpochColumnLog: int64(log)}
	table.StartGet(key, time.Time{}, func(row client.Row, err error) {
		switch {
		case errors.Is(err, client.ErrNotFound):
			done(nil, nil)
		case err != nil:
			done(nil, fmt.Errorf("epoch store: read log %d: %w", log, err))
		default:
			data, _ := row[catalog.EpochColumnRecord].([]byte)
			done(decode(log, data))
		}
	}, catalog.EpochColumnRecord)
}

// CompareAndSet replaces the record of version expect.
func (t *Table) CompareAndSet(log logs.LogID, expect uint64, next *wire.EpochRecord, done func(error)) {
	t.metrics.Writes.Add(1)
	if err := checkRequest(log, expect, next); err != nil {
		done(err)
		return
	}
	data, err := encode(next)
	if err != nil {
		done(err)
		return
	}
	epoch, clean := int64(next.Metadata.GetEpoch()), int64(next.LastCleanEpoch)
	row := client.Row{
		catalog.EpochColumnLog: int64(log), catalog.EpochColumnVersion: int64(next.Version),
		catalog.EpochColumnEpoch: epoch, catalog.EpochColumnClean: clean, catalog.EpochColumnRecord: data,
	}
	condition := client.IfAbsent()
	if expect != 0 {
		condition = client.If(
			client.Condition{Column: catalog.EpochColumnVersion, Compare: client.Equal, Value: int64(expect)},
			client.Condition{Column: catalog.EpochColumnEpoch, Compare: client.LessOrEqual, Value: epoch},
			client.Condition{Column: catalog.EpochColumnClean, Compare: client.LessOrEqual, Value: clean},
		)
	}
	t.with(func(table *client.Table, err error) {
		if err != nil {
			done(err)
			return
		}
		table.StartRow(client.PutRow(row, condition), time.Time{}, func(err error) { t.wrote(table, next, err, done) })
	})
}

// wrote says how a write ended, if need be after another look.
func (t *Table) wrote(table *client.Table, next *wire.EpochRecord, err error, done func(error)) {
	switch {
	case err == nil:
		done(nil)
		return
	case errors.Is(err, client.ErrConditionFailed):
		err = nil
	case errors.Is(err, client.ErrUnknownOutcome):
		t.metrics.Doubts.Add(1)
	default:
		done(fmt.Errorf("epoch store: write log %d: %w", next.Log, err)) // no effect
		return
	}
	t.read(table, logs.LogID(next.Log), func(stored *wire.EpochRecord, e error) {
		if e != nil {
			done(t.metrics.count(fmt.Errorf("%w: log %d: %w", ErrUnknown, next.Log, errors.Join(err, e))))
			return
		}
		done(t.metrics.count(outcome(stored, next, err)))
	})
}

// Records visits every record, in no order, until visit returns false. Those that
// cannot be read are given as errors.
func (t *Table) Records(ctx context.Context, visit func(*wire.EpochRecord, error) bool) error {
	table, err := t.client.Table(ctx, catalog.SystemKeyspace, catalog.EpochTable)
	if errors.Is(err, client.ErrNotFound) {
		return nil // no log was ever appended to
	}
	if err != nil {
		return err
	}
	for row, err := range table.Scan(ctx, client.Query{}) {
		if err != nil {
			return fmt.Errorf("epoch store: %w", err)
		}
		log, _ := row[catalog.EpochColumnLog].(int64)
		data, _ := row[catalog.EpochColumnRecord].([]byte)
		if !visit(decode(logs.LogID(log), data)) {
			return nil
		}
	}
	return nil
}
