package query

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sort"
	"strings"
	"sync"
	"sync/atomic"

	_ "modernc.org/sqlite" // the SQL engine behind database/sql
	"modernc.org/sqlite/vtab"
)

// Type is what a column holds. NULL is allowed everywhere.
type Type string

// The types, as SQLite declares them.
const (
	Integer Type = "INTEGER" // int64, uint64 (above 1<<63 as text), bool
	Real    Type = "REAL"    // float64
	Text    Type = "TEXT"    // string
	Blob    Type = "BLOB"    // []byte
)

// A Column of a table.
type Column struct {
	Name string
	Type Type
	Doc  string // one sentence, for `SELECT * FROM columns`
	// Pushed columns reach Rows in its filter where a query compares them for
	// equality.
	Pushed bool
	// Required columns are Pushed, and a query that does not compare them is refused.
	Required bool
}

// A Filter holds what pushed columns must equal, by name.
type Filter map[string]any

// Int gives a filter's integer.
func (f Filter) Int(column string) (int64, bool) {
	v, ok := f[column].(int64)
	return v, ok
}

// A Table of live state. Rows calls yield with values in the order of Columns
// until it returns false, and gives back what went wrong.
type Table struct {
	Name    string
	Doc     string
	Columns []Column
	Rows    func(ctx context.Context, f Filter, yield func(values []any) bool) error
}

// Options bound a query.
type Options struct {
	RowsMax int // [1,000,000]
}

// Engine answers queries over a set of tables. It is safe for concurrent use.
type Engine struct {
	tables  []Table
	byName  map[string]*Table
	rowsMax int
}

// Errors of queries; the text of others is SQLite's.
var (
	ErrNotRead  = errors.New("only one statement that reads can be asked: SELECT, WITH, VALUES or EXPLAIN")
	ErrTooMany  = errors.New("too many rows: narrow the query down with WHERE, or LIMIT it")
	ErrRequired = errors.New("the table needs WHERE")
)

// New makes an engine. Names of tables and columns must be plain identifiers.
func New(tables []Table, o Options) (*Engine, error) {
	if o.RowsMax == 0 {
		o.RowsMax = 1_000_000
	}
	e := &Engine{tables: append([]Table(nil), tables...), byName: map[string]*Table{}, rowsMax: o.RowsMax}
	e.tables = append(e.tables, e.tablesTable(), e.columnsTable())
	sort.Slice(e.tables, func(i, j int) bool { return e.tables[i].Name < e.tables[j].Name })
	for i := range e.tables {
		t := &e.tables[i]
		if !plain(t.Name) || e.byName[t.Name] != nil || len(t.Columns) == 0 {
			return nil, fmt.Errorf("table %q: not a plain name of its own with columns", t.Name)
		}
		for _, c := range t.Columns {
			if !plain(c.Name) {
				return nil, fmt.Errorf("table %s: column %q is not a plain name", t.Name, c.Name)
			}
		}
		e.byName[t.Name] = t
	}
	if err := register(); err != nil {
		return nil, err
	}
	return e, nil
}

func plain(name string) bool {
	for i, r := range name {
		if r != '_' && (r < 'a' || r > 'z') && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return name != ""
}

// A Result is what a query gave.
type Result struct {
	Columns []string `json:"columns"`
	Rows    [][]any  `json:"rows"` // int64, float64, string, []byte or nil
}

// Query runs one statement that reads (Q1).
func (e *Engine) Query(ctx context.Context, statement string) (*Result, error) {
	if err := onlyReads(statement); err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite", ":memory:")
	if err != nil {
		return nil, err
	}
	defer db.Close()
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	run := running.begin(ctx, e)
	defer running.end(run)
	for _, t := range e.tables {
		if !strings.Contains(strings.ToLower(statement), t.Name) {
			continue
		}
		if _, err := conn.ExecContext(ctx, fmt.Sprintf("CREATE VIRTUAL TABLE %s USING %s(%d, %s)", t.Name, moduleName, run.id, t.Name)); err != nil {
			return nil, err
		}
	}
	if _, err := conn.ExecContext(ctx, "PRAGMA query_only=ON"); err != nil {
		return nil, err
	}
	rows, err := conn.QueryContext(ctx, statement)
	if err != nil {
		return nil, run.cause(err)
	}
	defer rows.Close()
	result, err := e.collect(rows)
	return result, run.cause(err)
}

func (e *Engine) collect(rows *sql.Rows) (*Result, error) {
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	r := &Result{Columns: columns, Rows: [][]any{}}
	for rows.Next() {
		if len(r.Rows) == e.rowsMax {
			return nil, ErrTooMany
		}
		values := make([]any, len(columns))
		places := make([]any, len(columns))
		for i := range values {
			places[i] = &values[i]
		}
		if err := rows.Scan(places...); err != nil {
			return nil, err
		}
		r.Rows = append(r.Rows, values)
	}
	return r, rows.Err()
}

// tablesTable lists the tables, columnsTable their columns.
func (e *Engine) tablesTable() Table {
	return Table{Name: "tables", Doc: "What can be asked.", Columns: []Column{{Name: "name", Type: Text}, {Name: "doc", Type: Text}},
		Rows: func(_ context.Context, _ Filter, yield func([]any) bool) error {
			for _, t := range e.tables {
				if !yield([]any{t.Name, t.Doc}) {
					break
				}
			}
			return nil
		}}
}

func (e *Engine) columnsTable() Table {
	return Table{Name: "columns", Doc: "The columns of every table.",
		Columns: []Column{{Name: "table_name", Type: Text}, {Name: "name", Type: Text}, {Name: "type", Type: Text}, {Name: "doc", Type: Text}},
		Rows: func(_ context.Context, _ Filter, yield func([]any) bool) error {
			for _, t := range e.tables {
				for _, c := range t.Columns {
					if !yield([]any{t.Name, c.Name, string(c.Type), c.Doc}) {
						return nil
					}
				}
			}
			return nil
		}}
}

// run is one query under way. SQLite's modules belong to the process, so a
// virtual table finds its query by number.
type run struct {
	id     int64
	ctx    context.Context
	engine *Engine

	mu  sync.Mutex
	err error // of Rows: SQLite keeps only its text
}

type runs struct {
	next atomic.Int64
	byID sync.Map // int64 -> *run
}

var running runs

func (r *runs) begin(ctx context.Context, e *Engine) *run {
	q := &run{id: r.next.Add(1), ctx: ctx, engine: e}
	r.byID.Store(q.id, q)
	return q
}

func (r *runs) end(q *run) { r.byID.Delete(q.id) }

func (r *run) fail(err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.err = err
	}
	return err
}

// cause gives the error behind the one that SQLite made of it.
func (r *run) cause(err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil:
		return nil
	case r.ctx.Err() != nil:
		return r.ctx.Err()
	case r.err != nil:
		return r.err
	}
	return err
}

const moduleName = "braid"

// register makes the module known, once for the process.
var register = sync.OnceValue(func() error { return vtab.RegisterModule(nil, moduleName, module{}) })
