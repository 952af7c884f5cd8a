package docdb

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/braiddb/braid/internal/wire"
)

// Operations on rows. wire/ops.go is their specification; the key is opaque
// here, ordered bytewise as whoever encoded it meant it.

const (
	rowScanLimit    = 1000    // rows of an answer where no limit is given
	rowScanBytes    = 1 << 20 // an answer is closed when it is this long
	rowScanExamined = 20_000  // or this many rows were looked at
	rowKeyMax       = 64 << 10
)

var (
	errNoSchema      = refusal(wire.Code_CODE_SCHEMA_MISMATCH, "the table has no columns")
	errRowConditions = refusal(wire.Code_CODE_CONDITION_FAILED, "a condition on the row does not hold")
	errRowKey        = refusal(wire.Code_CODE_TOO_LARGE, "the row's key exceeds 64 KiB")
)

// row is a row as an operation finds it.
type row struct {
	doc   *Doc
	root  Root
	found bool
	cells []cell
}

func (x *Exec) openRow(op *wire.Op) (r row, err error) {
	if x.schema == nil {
		return r, errNoSchema
	}
	if len(op.Key) > rowKeyMax {
		return r, errRowKey
	}
	r.doc = x.Doc(op.Hash, op.Key)
	return r, nil
}

// read fetches the row.
func (r *row) read() (err error) {
	if r.root, r.found, err = r.doc.Root(); err != nil || !r.found {
		return err
	}
	if r.root.Kind != RootRow {
		return corruptRecord("row", r.doc.key, fmt.Errorf("it is a document of kind %d", r.root.Kind))
	}
	if _, r.cells, err = decodeRow(r.root.Value); err != nil {
		return corruptRecord("row", r.doc.key, err)
	}
	return nil
}

// checkCells refuses columns that the schema does not have, or not of this type.
func (x *Exec) checkCells(cells []*wire.Cell) error {
	for _, c := range cells {
		col := regular(x.schema, c.Column)
		if col == nil {
			return refusal(wire.Code_CODE_SCHEMA_MISMATCH, fmt.Sprintf("the table has no regular column %d", c.Column))
		}
		if !c.IsNull && !cellOf(col.Type, c.Value) {
			return refusal(wire.Code_CODE_INVALID, fmt.Sprintf("column %q: the value is not of its type", col.Name))
		}
		if c.Compare >= comparesEnd {
			return refusal(wire.Code_CODE_INVALID, fmt.Sprintf("column %q: unknown comparison %d", col.Name, c.Compare))
		}
	}
	return nil
}

// meets decides NX, XX and the conditions.
func (r *row) meets(op *wire.Op) (bool, error) {
	if op.Flags&wire.FlagNX != 0 && r.found || op.Flags&wire.FlagXX != 0 && !r.found {
		return false, nil
	}
	return meetsAll(op.Conditions, r.cells)
}

func meetsAll(conditions []*wire.Cell, cells []cell) (bool, error) {
	for _, c := range conditions {
		var value []byte
		if i, ok := findCell(cells, c.Column); ok {
			value = cells[i].value
		}
		yes, ok := holds(c, value)
		if !ok {
			return false, refusal(wire.Code_CODE_INVALID, fmt.Sprintf("column %d cannot be compared so", c.Column))
		}
		if !yes {
			return false, nil
		}
	}
	return true, nil
}

// conditional does what the three writes share. With FlagReturn a condition that
// fails is an answer, with the row; without, it fails the whole batch.
func (x *Exec) conditional(op *wire.Op, mustRead bool, write func(r *row) error) (*wire.Result, error) {
	r, err := x.openRow(op)
	if err == nil {
		err = x.checkCells(op.Cells)
	}
	if err == nil {
		err = x.checkCells(op.Conditions)
	}
	if err != nil {
		return nil, err
	}
	applied := true
	if mustRead || op.Flags&(wire.FlagNX|wire.FlagXX|wire.FlagReturn) != 0 || len(op.Conditions) > 0 {
		if err := r.read(); err != nil {
			return nil, err
		}
		if applied, err = r.meets(op); err != nil {
			return nil, err
		}
	}
	result := &wire.Result{Kind: wire.Kind_KIND_BOOL}
	if op.Flags&wire.FlagReturn != 0 && r.found {
		result.Cells = x.present(r.cells, nil)
	}
	if !applied {
		if op.Flags&wire.FlagReturn == 0 {
			return nil, errRowConditions
		}
		return result, nil
	}
	if err := write(&r); err != nil {
		return nil, err
	}
	result.Int = 1
	return result, nil
}

func (x *Exec) opRowPut(op *wire.Op) (*wire.Result, error) {
	return x.conditional(op, false, func(r *row) error {
		r.cells = mergeCells(nil, op.Cells)
		return x.putRow(r, op, 0)
	})
}

func (x *Exec) opRowUpdate(op *wire.Op) (*wire.Result, error) {
	return x.conditional(op, true, func(r *row) error {
		r.cells = mergeCells(r.cells, op.Cells)
		return x.putRow(r, op, r.root.ExpireAtMs)
	})
}

func (x *Exec) opRowDelete(op *wire.Op) (*wire.Result, error) {
	return x.conditional(op, true, func(r *row) error {
		if r.found {
			r.doc.Delete()
		}
		return nil
	})
}

// mergeCells lays changes over a row.
func mergeCells(cells []cell, changes []*wire.Cell) []cell {
	cells = slices.Clone(cells)
	for _, c := range changes {
		i, found := findCell(cells, c.Column)
		switch {
		case c.IsNull && found:
			cells = slices.Delete(cells, i, i+1)
		case c.IsNull:
		case found:
			cells[i].value = c.Value
		default:
			cells = slices.Insert(cells, i, cell{c.Column, c.Value})
		}
	}
	return cells
}

// putRow writes the row: without the columns that were dropped meanwhile, and
// with the expiry that the operation asks for, else the table's, else keepMs. The
// table's is taken when the row is written, as in Cassandra: a later change of
// it moves no row.
func (x *Exec) putRow(r *row, op *wire.Op, keepMs int64) error {
	cells := slices.DeleteFunc(r.cells, func(c cell) bool { return regular(x.schema, c.column) == nil })
	value := appendRow(nil, x.schema.Version, cells)
	if len(value) > valueBytesMax {
		return errValueTooLarge
	}
	root := Root{Kind: RootRow, ExpireAtMs: keepMs, Value: value}
	ttl := x.schema.DefaultTtlMs
	if len(op.Ints) > 0 && op.Ints[0] != 0 {
		ttl = op.Ints[0]
	}
	switch {
	case ttl > 0:
		root.ExpireAtMs = max(x.nowMs, 0) + min(ttl, expiryMax-max(x.nowMs, 0))
	case ttl < 0:
		root.ExpireAtMs = 0 // for ever, whatever the table says
	}
	r.doc.PutRoot(root)
	return nil
}

// expiryMax is the latest expiry that a key can tell of.
const expiryMax = 1<<(8*expiryLen) - 1

// present gives the cells of an answer: the wanted columns, or all that the
// schema has and that are not null.
func (x *Exec) present(cells []cell, wanted []*wire.Cell) []*wire.Cell {
	if len(wanted) == 0 {
		out := make([]*wire.Cell, 0, len(cells))
		for _, c := range cells {
			if regular(x.schema, c.column) != nil {
				out = append(out, &wire.Cell{Column: c.column, Value: c.value})
			}
		}
		return out
	}
	out := make([]*wire.Cell, 0, len(wanted))
	for _, w := range wanted {
		if i, ok := findCell(cells, w.Column); ok && regular(x.schema, w.Column) != nil {
			out = append(out, &wire.Cell{Column: w.Column, Value: cells[i].value})
		} else {
			out = append(out, &wire.Cell{Column: w.Column, IsNull: true})
		}
	}
	return out
}

func (x *Exec) opRowGet(op *wire.Op) (*wire.Result, error) {
	r, err := x.openRow(op)
	if err != nil {
		return nil, err
	}
	if err := r.read(); err != nil {
		return nil, err
	}
	if !r.found {
		return resultNil, nil
	}
	return &wire.Result{Kind: wire.Kind_KIND_ROW, Cells: x.present(r.cells, op.Cells)}, nil
}

// opRowScan answers rows, each with its key and its hash, and where to go on.
func (x *Exec) opRowScan(op *wire.Op) (*wire.Result, error) {
	if x.schema == nil {
		return nil, errNoSchema
	}
	if err := x.checkCells(op.Conditions); err != nil {
		return nil, err
	}
	limit := int64(rowScanLimit)
	if len(op.Ints) > 0 && op.Ints[0] > 0 {
		limit = min(op.Ints[0], limit)
	}
	var end []byte
	if len(op.Args) > 0 {
		end = op.Args[0]
	}
	out := &wire.Result{Kind: wire.Kind_KIND_ARRAY}
	var failed error
	size, examined := 0, 0
	err := x.scanDocs(op.Hash, op.Key, 0, func(hash uint64, key []byte, r *Root) bool {
		if len(end) > 0 && (hash > op.Hash || bytes.Compare(key, end) >= 0) {
			return false
		}
		if int64(len(out.Items)) >= limit || size >= rowScanBytes || examined >= rowScanExamined {
			out.Items = append(out.Items, &wire.Result{Kind: wire.Kind_KIND_BYTES, Bytes: key, Int: int64(hash)})
			return false
		}
		examined++
		if r.Kind != RootRow || expired(r.ExpireAtMs, x.nowMs) {
			return true
		}
		_, cells, err := decodeRow(clone(r.Value))
		if err != nil {
			failed = corruptRecord("row", key, err)
			return false
		}
		yes, err := meetsAll(op.Conditions, cells)
		if err != nil || !yes {
			failed = err
			return err == nil
		}
		item := &wire.Result{Kind: wire.Kind_KIND_ROW, Bytes: key, Int: int64(hash), Cells: x.present(cells, op.Cells)}
		size += len(key) + len(r.Value)
		out.Items = append(out.Items, item)
		return true
	})
	if failed != nil {
		return nil, failed
	}
	return out, err
}
