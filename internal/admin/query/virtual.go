package query

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"modernc.org/sqlite/vtab"
)

// module makes virtual tables: its arguments are the query's number and the
// table's name.
type module struct{}

// Create is Connect: nothing is stored.
func (m module) Create(ctx vtab.Context, args []string) (vtab.Table, error) {
	return m.Connect(ctx, args)
}

// Connect finds the table and declares its columns.
func (module) Connect(ctx vtab.Context, args []string) (vtab.Table, error) {
	if len(args) != 5 {
		return nil, fmt.Errorf("module %s: arguments %q", moduleName, args)
	}
	id, err := strconv.ParseInt(strings.TrimSpace(args[3]), 10, 64)
	if err != nil {
		return nil, err
	}
	q, ok := running.byID.Load(id)
	if !ok {
		return nil, errors.New("the query has ended")
	}
	run := q.(*run)
	t := run.engine.byName[strings.TrimSpace(args[4])]
	if t == nil {
		return nil, fmt.Errorf("no table %q", args[4])
	}
	var columns []string
	for _, c := range t.Columns {
		columns = append(columns, c.Name+" "+string(c.Type))
	}
	if err := ctx.Declare(fmt.Sprintf("CREATE TABLE %s(%s)", t.Name, strings.Join(columns, ", "))); err != nil {
		return nil, err
	}
	return &virtual{run: run, table: t}, nil
}

// virtual is one table within one query.
type virtual struct {
	run   *run
	table *Table
}

// BestIndex takes equalities of pushed columns. IdxStr lists their numbers in
// the order of Filter's values.
func (v *virtual) BestIndex(info *vtab.IndexInfo) error {
	taken := map[int]bool{}
	var order []string
	for i := range info.Constraints {
		c := &info.Constraints[i]
		c.ArgIndex = -1
		if !c.Usable || c.Op != vtab.OpEQ || c.Column < 0 || c.Column >= len(v.table.Columns) || taken[c.Column] {
			continue
		}
		if col := v.table.Columns[c.Column]; !col.Pushed && !col.Required {
			continue
		}
		taken[c.Column] = true
		c.ArgIndex = len(order)
		order = append(order, strconv.Itoa(c.Column))
	}
	info.IdxStr = strings.Join(order, ",")
	info.EstimatedCost = 1e6 / float64(1+1000*len(order))
	info.EstimatedRows = int64(info.EstimatedCost)
	for i, c := range v.table.Columns {
		if c.Required && !taken[i] {
			info.EstimatedCost = 1e30 // another order of a join may give the value
		}
	}
	return nil
}

// Open makes a cursor.
func (v *virtual) Open() (vtab.Cursor, error) { return &cursor{v: v}, nil }

// Disconnect and Destroy have nothing to let go of.
func (v *virtual) Disconnect() error { return nil }

// Destroy has nothing to let go of.
func (v *virtual) Destroy() error { return nil }

// cursor walks the rows that one look at a table gave.
type cursor struct {
	v    *virtual
	rows [][]any
	at   int
}

// Filter asks the table for its rows.
func (c *cursor) Filter(_ int, order string, values []vtab.Value) error {
	c.rows, c.at = nil, 0
	t, q := c.v.table, c.v.run
	filter := Filter{}
	if order != "" {
		for i, s := range strings.Split(order, ",") {
			n, err := strconv.Atoi(s)
			if err != nil || n < 0 || n >= len(t.Columns) || i >= len(values) {
				return q.fail(fmt.Errorf("table %s: bad plan %q", t.Name, order))
			}
			filter[t.Columns[n].Name] = values[i]
		}
	}
	for _, col := range t.Columns {
		if _, ok := filter[col.Name]; col.Required && !ok {
			return q.fail(fmt.Errorf("%w %s = …: table %s has too much to show it all", ErrRequired, col.Name, t.Name))
		}
	}
	over := false
	err := t.Rows(q.ctx, filter, func(row []any) bool {
		if len(c.rows) == q.engine.rowsMax {
			over = true
			return false
		}
		if len(row) != len(t.Columns) {
			panic(fmt.Sprintf("BUG: table %s gave %d values for %d columns", t.Name, len(row), len(t.Columns)))
		}
		c.rows = append(c.rows, row)
		return q.ctx.Err() == nil
	})
	switch {
	case err != nil:
		return q.fail(fmt.Errorf("table %s: %w", t.Name, err))
	case over:
		return q.fail(fmt.Errorf("table %s: %w", t.Name, ErrTooMany))
	}
	return q.ctx.Err()
}

// Next goes to the next row.
func (c *cursor) Next() error {
	c.at++
	return c.v.run.ctx.Err()
}

// Eof says whether there is none.
func (c *cursor) Eof() bool { return c.at >= len(c.rows) }

// Column gives a value of the row in SQLite's types.
func (c *cursor) Column(i int) (vtab.Value, error) {
	switch v := c.rows[c.at][i].(type) {
	case nil, int64, float64, string, []byte:
		return v, nil
	case uint64:
		if v > math.MaxInt64 {
			return strconv.FormatUint(v, 10), nil
		}
		return int64(v), nil
	case uint32:
		return int64(v), nil
	case int:
		return int64(v), nil
	case bool:
		if v {
			return int64(1), nil
		}
		return int64(0), nil
	default:
		return nil, c.v.run.fail(fmt.Errorf("table %s: column %s holds a %T", c.v.table.Name, c.v.table.Columns[i].Name, v))
	}
}

// Rowid is the place of the row.
func (c *cursor) Rowid() (int64, error) { return int64(c.at), nil }

// Close lets go of the rows.
func (c *cursor) Close() error {
	c.rows = nil
	return nil
}
