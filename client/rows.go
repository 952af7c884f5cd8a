package client

import (
	"context"
	"errors"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/wire"
)

// Row is one row, or part of one, by column name. Values have the Go type of
// their column (see ColumnType); nil is null.
type Row map[string]any

// Comparison of a column with a value.
type Comparison uint32

// The comparisons, as wire.Cell numbers them.
const (
	Equal Comparison = iota
	NotEqual
	Less
	LessOrEqual
	Greater
	GreaterOrEqual
)

// Condition holds when the column compares so with the value. A null equals
// only null.
type Condition struct {
	Column  string
	Compare Comparison
	Value   any
}

// WriteOption conditions or modifies the write of a row.
type WriteOption func(*rowWrite)

type rowWrite struct {
	options    RowOptions
	conditions []Condition
}

// TTL makes the written columns expire after d; without it the table's default holds.
func TTL(d time.Duration) WriteOption {
	return func(w *rowWrite) { w.options.TTLMs = max(1, d.Milliseconds()) }
}

// IfAbsent writes only if there is no such row.
func IfAbsent() WriteOption { return func(w *rowWrite) { w.options.NX = true } }

// IfPresent writes only if there is such a row.
func IfPresent() WriteOption { return func(w *rowWrite) { w.options.XX = true } }

// If writes only if all conditions hold for the row as it is.
func If(conditions ...Condition) WriteOption {
	return func(w *rowWrite) { w.conditions = append(w.conditions, conditions...) }
}

// Mutation is one write of a row, for WriteRows.
type Mutation struct {
	code OpCode
	row  Row
	opts []WriteOption
}

// PutRow writes a whole row: columns that it does not name become null.
func PutRow(row Row, opts ...WriteOption) Mutation { return Mutation{wire.OpRowPut, row, opts} }

// UpdateRow writes the columns that row names, and leaves the others. The row
// comes to be if it was not there.
func UpdateRow(row Row, opts ...WriteOption) Mutation { return Mutation{wire.OpRowUpdate, row, opts} }

// DeleteRow deletes the row with that key.
func DeleteRow(key Row, opts ...WriteOption) Mutation { return Mutation{wire.OpRowDelete, key, opts} }

// Put writes a whole row: columns that it does not name become null. It fails
// with ErrConditionFailed if an option kept it from being written.
func (t *Table) Put(ctx context.Context, row Row, opts ...WriteOption) error {
	return t.WriteRows(ctx, PutRow(row, opts...))
}

// Update writes the columns that row names, and leaves the others.
func (t *Table) Update(ctx context.Context, row Row, opts ...WriteOption) error {
	return t.WriteRows(ctx, UpdateRow(row, opts...))
}

// Delete deletes the row with that key. That there is none is no error.
func (t *Table) Delete(ctx context.Context, key Row, opts ...WriteOption) error {
	return t.WriteRows(ctx, DeleteRow(key, opts...))
}

// WriteRows carries out several writes of rows of one tablet, atomically, each
// seeing those before it; rows with the same hashed columns are always in one
// tablet. If the condition of one does not hold nothing is written, and it fails
// with ErrConditionFailed.
func (t *Table) WriteRows(ctx context.Context, ms ...Mutation) error {
	reply, err := t.rows(ctx, 0, func(d *catalog.Table) ([]*Op, error) {
		ops := make([]*Op, len(ms))
		for i, m := range ms {
			op, err := m.op(d)
			if err != nil {
				return nil, err
			}
			ops[i] = op
		}
		return ops, nil
	})
	if err != nil {
		return err
	}
	for _, r := range reply.Results {
		if err := resultError(r); err != nil {
			return err
		}
	}
	return nil
}

// Get reads the row with that key: the columns named, or all. It fails with
// ErrNotFound if there is none.
func (t *Table) Get(ctx context.Context, key Row, columns ...string) (Row, error) {
	var desc *catalog.Table
	reply, err := t.rows(ctx, 0, func(d *catalog.Table) ([]*Op, error) {
		desc = d
		op, err := getOp(d, key, columns)
		return []*Op{op}, err
	})
	if err != nil {
		return nil, err
	}
	return gotRow(desc, key, reply.Results[0], columns)
}

// getOp encodes the reading of one row.
func getOp(d *catalog.Table, key Row, columns []string) (*Op, error) {
	k, hash, err := rowKey(d, key, true)
	if err != nil {
		return nil, err
	}
	cells, err := columnCells(d, columns)
	if err != nil {
		return nil, err
	}
	return RowGet(hash, k, cells...), nil
}

// gotRow makes a row of what its reading answered.
func gotRow(desc *catalog.Table, key Row, r *Result, columns []string) (Row, error) {
	var err error
	if err := resultError(r); err != nil {
		return nil, err
	}
	if r.Kind == KindNil {
		return nil, newError(wire.Code_CODE_NOT_FOUND, nil, "no row with that key")
	}
	row := Row{}
	for _, c := range desc.Schema.Columns {
		if isKey(c) && (len(columns) == 0 || contains(columns, c.Name)) {
			if row[c.Name], err = wire.RowValue(c.Type, key[c.Name]); err != nil {
				return nil, invalid(err)
			}
		}
	}
	return row, fillRow(row, desc, r.Cells, columns)
}

// rows encodes operations under the schema as known and carries them out. When
// the leader has another one they are encoded anew: this client may be behind,
// or, for a moment after a change, the leader.
func (t *Table) rows(ctx context.Context, readTime uint64, encode func(*catalog.Table) ([]*Op, error)) (Reply, error) {
	c := t.client
	park := c.opts.Clock.Now().Add(c.opts.Park)
	for round := 0; ; round++ {
		r, err := t.awaitRoutes(ctx)
		if err != nil {
			return Reply{}, err
		}
		if r.desc.Schema == nil || len(r.desc.Schema.Columns) == 0 || r.desc.Hash != catalog.Hash_HASH_MURMUR3 {
			return Reply{}, newError(wire.Code_CODE_INVALID, nil, "table %s.%s has no rows", r.desc.Keyspace, r.desc.Name)
		}
		ops, err := encode(r.desc)
		if err != nil {
			return Reply{}, err
		}
		reply, err := t.await(ctx, ops, request{readTime: readTime, schema: r.desc.Schema.Version})
		if !errors.Is(err, ErrSchemaMismatch) || !c.opts.Clock.Now().Before(park) {
			return reply, err
		}
		known, err := t.refreshed(ctx)
		if err != nil {
			return Reply{}, err
		}
		if known.desc.Schema.GetVersion() == r.desc.Schema.Version && !c.sleep(ctx, c.backoff(round)) {
			return Reply{}, contextError(ctx.Err(), false)
		}
	}
}

// op encodes a mutation under a schema.
func (m Mutation) op(d *catalog.Table) (*Op, error) {
	w := rowWrite{}
	for _, o := range m.opts {
		o(&w)
	}
	key, hash, err := rowKey(d, m.row, true)
	if err != nil {
		return nil, err
	}
	if w.options.Conditions, err = conditionCells(d, w.conditions); err != nil {
		return nil, err
	}
	var cells []*Cell
	for _, c := range d.Schema.Columns {
		v, named := m.row[c.Name]
		if isKey(c) || !named {
			continue
		}
		cell, err := valueCell(c, v)
		if err != nil {
			return nil, err
		}
		cells = append(cells, cell)
	}
	if m.code == wire.OpRowDelete && len(cells) > 0 {
		return nil, newError(wire.Code_CODE_INVALID, nil, "a delete names columns that are not part of the key")
	}
	return rowOp(m.code, hash, key, cells, w.options), nil
}

func isKey(c *catalog.Column) bool { return c.Kind == Hashed || c.Kind == Ranged }

func contains(names []string, name string) bool {
	for _, n := range names {
		if n == name {
			return true
		}
	}
	return false
}

// rowKey encodes the key columns of row, all of them or, if not whole, those in
// front that it names. It refuses columns that the table does not have.
func rowKey(d *catalog.Table, row Row, whole bool) (key []byte, hash uint64, err error) {
	if err := knownColumns(d, row); err != nil {
		return nil, 0, err
	}
	var values []any
	for _, c := range d.Schema.Columns {
		if !isKey(c) {
			break
		}
		v, named := row[c.Name]
		if !named && !whole {
			break
		}
		if v == nil {
			return nil, 0, newError(wire.Code_CODE_INVALID, nil, "column %q is part of the key and has no value", c.Name)
		}
		values = append(values, v)
	}
	if key, hash, err = wire.RowKey(d.Hash, d.Schema, values); err != nil {
		return nil, 0, invalid(err)
	}
	return key, hash, nil
}

func knownColumns(d *catalog.Table, row Row) error {
	for name := range row {
		if column(d, name) == nil {
			return noColumn(d, name)
		}
	}
	return nil
}

func column(d *catalog.Table, name string) *catalog.Column {
	for _, c := range d.Schema.Columns {
		if c.Name == name {
			return c
		}
	}
	return nil
}

func noColumn(d *catalog.Table, name string) error {
	return newError(wire.Code_CODE_NOT_FOUND, nil, "table %s.%s has no column %q", d.Keyspace, d.Name, name)
}

func invalid(err error) error { return newError(wire.Code_CODE_INVALID, err, "%v", err) }

func valueCell(c *catalog.Column, v any) (*Cell, error) {
	cell := &Cell{Column: c.Id}
	if v == nil {
		cell.IsNull = true
		return cell, nil
	}
	var err error
	if cell.Value, err = wire.AppendCellValue(nil, c.Type, v); err != nil {
		return nil, newError(wire.Code_CODE_INVALID, err, "column %q: %v", c.Name, err)
	}
	return cell, nil
}

func conditionCells(d *catalog.Table, conditions []Condition) ([]*Cell, error) {
	var cells []*Cell
	for _, cond := range conditions {
		c := column(d, cond.Column)
		if c == nil {
			return nil, noColumn(d, cond.Column)
		}
		if isKey(c) {
			return nil, newError(wire.Code_CODE_INVALID, nil, "a condition on %q, which is part of the key", c.Name)
		}
		cell, err := valueCell(c, cond.Value)
		if err != nil {
			return nil, err
		}
		cell.Compare = uint32(cond.Compare)
		cells = append(cells, cell)
	}
	return cells, nil
}

// columnCells names columns to be read; key columns need not be, they come with
// the key. No names at all mean all columns.
func columnCells(d *catalog.Table, names []string) ([]*Cell, error) {
	var cells []*Cell
	for _, name := range names {
		c := column(d, name)
		if c == nil {
			return nil, noColumn(d, name)
		}
		if !isKey(c) {
			cells = append(cells, &Cell{Column: c.Id})
		}
	}
	return cells, nil
}

// fillRow adds the columns of an answer to a row; those that it lacks are null.
func fillRow(row Row, d *catalog.Table, cells []*Cell, names []string) error {
	for _, c := range d.Schema.Columns {
		if isKey(c) || (len(names) > 0 && !contains(names, c.Name)) {
			continue
		}
		row[c.Name] = nil
		for _, cell := range cells {
			if cell.Column != c.Id || cell.IsNull {
				continue
			}
			v, err := wire.CellValue(cell.Value)
			if err != nil {
				return newError(wire.Code_CODE_INTERNAL, err, "column %q: %v", c.Name, err)
			}
			row[c.Name] = v
		}
	}
	return nil
}

// resultError makes an Error of a result that is one.
func resultError(r *Result) error {
	if r.Kind != KindError {
		return nil
	}
	return &Error{Code: r.Code, Message: r.Message, Retriable: r.Code.Retriable()}
}
