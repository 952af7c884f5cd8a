package docdb

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/wire"
)

// rowTable is a table with columns on which operations run one by one.
type rowTable struct {
	t      *testing.T
	e      *Engine
	ht     hlc.Timestamp
	schema *catalog.Schema
}

const (
	colName  = 3
	colAge   = 4
	colScore = 5
)

func newRowTable(t *testing.T) *rowTable {
	column := func(id uint32, name string, kind catalog.ColumnKind, typ catalog.Type) *catalog.Column {
		return &catalog.Column{Id: id, Name: name, Kind: kind, Type: typ}
	}
	regular := catalog.ColumnKind_COLUMN_KIND_REGULAR
	e := mustOpen(t, vfs.NewMem(), EngineOptions{})
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return &rowTable{t: t, e: e, ht: hlc.FromMicros(1e12), schema: &catalog.Schema{Version: 1, Columns: []*catalog.Column{
		column(1, "id", catalog.ColumnKind_COLUMN_KIND_HASH, catalog.Type_TYPE_INT64),
		column(colName, "name", regular, catalog.Type_TYPE_STRING),
		column(colAge, "age", regular, catalog.Type_TYPE_INT64),
		column(colScore, "score", regular, catalog.Type_TYPE_DOUBLE),
	}}}
}

// do runs one operation a second after the last.
func (r *rowTable) do(op *wire.Op) *wire.Result {
	r.t.Helper()
	r.ht += hlc.FromMicros(1e6)
	v, err := r.e.View(wholeTable, hlc.Max-1, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	defer v.Close()
	var b WriteBatch
	b.Reset()
	x := NewExec(v, &b, wholeTable.Table, r.ht.Millis())
	x.SetSchema(r.schema)
	result, err := x.Write(op)
	if err != nil {
		r.t.Fatalf("operation %d: %v", op.Code, err)
	}
	if result.Kind == wire.Kind_KIND_ERROR && !b.Empty() {
		r.t.Fatalf("operation %d failed and had an effect", op.Code)
	}
	a := r.e.NewBatch()
	_, err = a.Apply(wholeTable.Table, b.Encode(nil), r.ht, 0)
	if err := errors.Join(err, a.Commit()); err != nil {
		r.t.Fatal(err)
	}
	return result
}

func (r *rowTable) cell(id uint32, v any) *wire.Cell {
	if v == nil {
		return &wire.Cell{Column: id, IsNull: true}
	}
	value, err := wire.AppendCellValue(nil, regular(r.schema, id).Type, v)
	if err != nil {
		r.t.Fatal(err)
	}
	return &wire.Cell{Column: id, Value: value}
}

func (r *rowTable) when(id uint32, compare uint32, v any) *wire.Cell {
	c := r.cell(id, v)
	c.Compare = compare
	return c
}

func rowOf(code wire.OpCode, hash uint64, key string, cells ...*wire.Cell) *wire.Op {
	return &wire.Op{Code: uint32(code), Hash: hash, Key: []byte(key), Cells: cells}
}

// say is an answer as text.
func say(r *wire.Result) string {
	s := r.Kind.String()[len("KIND_"):]
	switch r.Kind {
	case wire.Kind_KIND_ERROR:
		return s + " " + r.Code.String()[len("CODE_"):]
	case wire.Kind_KIND_BOOL:
		s += fmt.Sprint(" ", r.Int)
	case wire.Kind_KIND_BYTES:
		s += fmt.Sprintf(" %s", r.Bytes)
	case wire.Kind_KIND_ARRAY:
		for _, item := range r.Items {
			s += " [" + say(item) + "]"
		}
	case wire.Kind_KIND_ROW:
		if len(r.Bytes) > 0 {
			s += fmt.Sprintf(" %s", r.Bytes)
		}
	}
	for _, c := range r.Cells {
		v := any("null")
		if !c.IsNull {
			v, _ = wire.CellValue(c.Value)
		}
		s += fmt.Sprintf(" %d=%v", c.Column, v)
	}
	return s
}

func (r *rowTable) expect(want string, op *wire.Op) {
	r.t.Helper()
	if got := say(r.do(op)); got != want {
		r.t.Errorf("operation %d on %q answers %q, want %q", op.Code, op.Key, got, want)
	}
}

func TestRowsAreWrittenAndRead(t *testing.T) {
	r := newRowTable(t)
	get := func(cells ...*wire.Cell) *wire.Op { return rowOf(wire.OpRowGet, 7, "k", cells...) }
	r.expect("NIL", get())
	r.expect("BOOL 1", rowOf(wire.OpRowPut, 7, "k", r.cell(colAge, 30), r.cell(colName, "ann")))
	r.expect("ROW 3=ann 4=30", get())
	r.expect("ROW 5=null 4=30", get(&wire.Cell{Column: colScore}, &wire.Cell{Column: colAge}))
	r.expect("BOOL 1", rowOf(wire.OpRowUpdate, 7, "k", r.cell(colAge, nil), r.cell(colScore, 1.5)))
	r.expect("ROW 3=ann 5=1.5", get())
	r.expect("BOOL 1", rowOf(wire.OpRowPut, 7, "k", r.cell(colAge, 31)))
	r.expect("ROW 4=31", get())
	r.expect("BOOL 1", rowOf(wire.OpRowDelete, 7, "k"))
	r.expect("NIL", get())
	r.expect("BOOL 1", rowOf(wire.OpRowDelete, 7, "k"))
	r.expect("BOOL 1", rowOf(wire.OpRowPut, 7, "k"))
	r.expect("ROW", get()) // a row without cells is a row
}

func TestRowConditions(t *testing.T) {
	r := newRowTable(t)
	if say(r.do(rowOf(wire.OpRowPut, 7, "k", r.cell(colAge, 30), r.cell(colName, "ann")))) != "BOOL 1" {
		t.Fatal("put")
	}
	update := func(conditions ...*wire.Cell) *wire.Op {
		op := rowOf(wire.OpRowUpdate, 7, "k", r.cell(colName, "bob"))
		op.Conditions = conditions
		return op
	}
	const failed = "ERROR CONDITION_FAILED"
	for _, c := range []struct {
		condition *wire.Cell
		want      string
	}{
		{r.when(colAge, compareEqual, 31), failed},
		{r.when(colAge, compareNotEqual, 30), failed},
		{r.when(colAge, compareLess, 30), failed},
		{r.when(colAge, compareGreater, 30), failed},
		{r.when(colAge, compareGreaterEqual, -1), "BOOL 1"},
		{r.when(colAge, compareLessEqual, 30), "BOOL 1"},
		{r.when(colScore, compareEqual, nil), "BOOL 1"},
		{r.when(colScore, compareNotEqual, nil), failed},
		{r.when(colScore, compareNotEqual, 2.0), "BOOL 1"},
		{r.when(colScore, compareLess, 2.0), failed}, // null is not less
		{&wire.Cell{Column: colAge, Value: r.cell(colScore, 1.0).Value}, "ERROR INVALID"},
		{&wire.Cell{Column: 99, IsNull: true}, "ERROR SCHEMA_MISMATCH"},
		{r.when(colAge, 6, 30), "ERROR INVALID"},
	} {
		if got := say(r.do(update(c.condition))); got != c.want {
			t.Errorf("condition %v: %s, want %s", c.condition, got, c.want)
		}
	}
	flagged := func(op *wire.Op, flags uint64) *wire.Op {
		op.Flags = flags
		return op
	}
	r.expect(failed, flagged(rowOf(wire.OpRowPut, 7, "k"), wire.FlagNX))
	r.expect(failed, flagged(rowOf(wire.OpRowPut, 7, "other"), wire.FlagXX))
	r.expect("BOOL 0 3=bob 4=30", flagged(rowOf(wire.OpRowPut, 7, "k"), wire.FlagNX|wire.FlagReturn))
	r.expect("BOOL 1 3=bob 4=30", flagged(rowOf(wire.OpRowDelete, 7, "k"), wire.FlagReturn))
	r.expect("BOOL 1", flagged(rowOf(wire.OpRowPut, 7, "k"), wire.FlagNX|wire.FlagReturn))
}

func TestColumnsComeAndGo(t *testing.T) {
	r := newRowTable(t)
	r.expect("BOOL 1", rowOf(wire.OpRowPut, 7, "k", r.cell(colAge, 30), r.cell(colName, "ann"), r.cell(colScore, 2.5)))
	whole := r.schema.Columns
	r.schema = &catalog.Schema{Version: 2, Columns: append(whole[:2:2], whole[3], &catalog.Column{
		Id: 6, Name: "city", Kind: catalog.ColumnKind_COLUMN_KIND_REGULAR, Type: catalog.Type_TYPE_STRING})}
	r.expect("ROW 3=ann 5=2.5", rowOf(wire.OpRowGet, 7, "k"))
	r.expect("ROW 6=null 4=null", rowOf(wire.OpRowGet, 7, "k", &wire.Cell{Column: 6}, &wire.Cell{Column: colAge}))
	r.expect("ERROR SCHEMA_MISMATCH", rowOf(wire.OpRowUpdate, 7, "k", &wire.Cell{Column: colAge, IsNull: true}))
	r.expect("BOOL 1", rowOf(wire.OpRowUpdate, 7, "k", r.cell(6, "rome")))
	r.expect("ROW 3=ann 5=2.5 6=rome", rowOf(wire.OpRowGet, 7, "k"))
	r.schema = &catalog.Schema{Version: 3, Columns: whole} // the rewrite dropped what was dropped
	r.expect("ROW 3=ann 5=2.5", rowOf(wire.OpRowGet, 7, "k"))
}

func TestRowsExpire(t *testing.T) {
	r := newRowTable(t)
	ttl := func(op *wire.Op, ms int64) *wire.Op {
		op.Ints = []int64{ms}
		return op
	}
	r.expect("BOOL 1", ttl(rowOf(wire.OpRowPut, 7, "k", r.cell(colAge, 1)), 2500)) // operations are a second apart
	r.expect("BOOL 1", rowOf(wire.OpRowUpdate, 7, "k", r.cell(colAge, 2)))         // keeps the expiry
	r.expect("ROW 4=2", rowOf(wire.OpRowGet, 7, "k"))
	r.expect("NIL", rowOf(wire.OpRowGet, 7, "k"))
	r.schema.DefaultTtlMs = 1500
	r.expect("BOOL 1", rowOf(wire.OpRowPut, 7, "k", r.cell(colAge, 3)))
	r.expect("BOOL 1", ttl(rowOf(wire.OpRowPut, 7, "kept", r.cell(colAge, 4)), -1))
	r.expect("NIL", rowOf(wire.OpRowGet, 7, "k"))
	r.expect("ROW 4=4", rowOf(wire.OpRowGet, 7, "kept"))
}

func TestRowScan(t *testing.T) {
	r := newRowTable(t)
	for i := range 5 {
		r.do(rowOf(wire.OpRowPut, 7, fmt.Sprint("k", i), r.cell(colAge, 10*i)))
	}
	r.do(rowOf(wire.OpRowPut, 9, "far", r.cell(colAge, 70)))
	scan := func(hash uint64, from, end string, limit int64, conditions ...*wire.Cell) *wire.Op {
		op := rowOf(wire.OpRowScan, hash, from)
		op.Args, op.Ints, op.Conditions = [][]byte{[]byte(end)}, []int64{limit}, conditions
		return op
	}
	r.expect("ARRAY [ROW k3 4=30] [ROW k4 4=40] [ROW far 4=70]", scan(7, "k3", "", 0))
	r.expect("ARRAY [ROW k1 4=10] [ROW k2 4=20]", scan(7, "k1", "k3", 0))
	r.expect("ARRAY [ROW k0 4=0] [ROW k1 4=10] [BYTES k2]", scan(7, "", "", 2))
	r.expect("ARRAY [ROW far 4=70]", scan(8, "", "", 0))
	r.expect("ARRAY [ROW k4 4=40] [ROW far 4=70]", scan(0, "", "", 0, r.when(colAge, compareGreater, 30)))
	result := r.do(scan(7, "k4", "", 1))
	if next := result.Items[len(result.Items)-1]; next.Kind != wire.Kind_KIND_BYTES || string(next.Bytes) != "far" || uint64(next.Int) != 9 {
		t.Errorf("the scan goes on at %v", next)
	}
}
