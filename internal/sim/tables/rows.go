package tables

import (
	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/sim/check"
	"github.com/braiddb/braid/internal/wire"
)

// Some tablets hold rows and not documents. A row with one number in it is a
// register: it is read, put, put if it is not there, put if the number is still the
// one that was read, and deleted.

// valueColumn is the column of the number.
const valueColumn = 2

func (c *cluster) rowTable() *catalog.Table {
	return &catalog.Table{Id: uint32(catalog.RedisTableID) + 1000, Keyspace: catalog.SystemKeyspace, Name: "rows",
		Hash: catalog.Hash_HASH_CRC16, HistoryRetentionMs: c.w.Opt.Knob("historyMs"), Schema: &catalog.Schema{Version: 1, Columns: []*catalog.Column{
			{Id: 1, Name: "id", Kind: catalog.ColumnKind_COLUMN_KIND_HASH, Type: catalog.Type_TYPE_STRING},
			{Id: valueColumn, Name: "value", Kind: catalog.ColumnKind_COLUMN_KIND_REGULAR, Type: catalog.Type_TYPE_INT64},
		}}}
}

// schema is the table that a tablet is of.
func (v *view) schema() *catalog.Table {
	if v.ofRows {
		return v.c.rows
	}
	return v.c.table
}

// probeWrite and probeRead are what a writer and a reader beside the leader do.
func (v *view) probeWrite() *wire.Op {
	if v.ofRows {
		return v.probe.row(wire.OpRowPut, cellOf(v.c, 1))
	}
	return v.probe.set(1, 0)
}

func (v *view) probeRead() *wire.Op {
	if v.ofRows {
		return v.probe.op(wire.OpRowGet)
	}
	return v.probe.op(wire.OpGet)
}

func (k *key) row(code wire.OpCode, cells ...*wire.Cell) *wire.Op {
	return &wire.Op{Code: uint32(code), Key: k.name, Hash: k.hash, Cells: cells}
}

func cellOf(c *cluster, n int64) *wire.Cell {
	value, err := wire.AppendCellValue(nil, catalog.Type_TYPE_INT64, n)
	if err != nil {
		c.w.Fail("a number is no cell: %w", err)
	}
	return &wire.Cell{Column: valueColumn, Value: value}
}

// parseRow reads a row's number: 0 where there is no row.
func (t *thread) parseRow(r *wire.Result) int64 {
	if r.Kind == wire.Kind_KIND_NIL {
		return 0
	}
	for _, c := range r.Cells {
		if v, err := wire.CellValue(c.Value); err == nil && c.Column == valueColumn {
			if n, ok := v.(int64); ok {
				return n
			}
		}
	}
	t.cl.c.w.Fail("a row that nobody wrote: %v", r)
	return 0
}

// row looks at a row and then puts it: always, if it is not there, or if it is as
// it was; sometimes without looking.
func (t *thread) row(x *register) {
	c := t.cl.c
	if c.w.Dice().IntN(4) == 0 {
		op := t.put(x, check.Write)
		t.cl.write(x.v, &op.Op, []*wire.Op{x.row(wire.OpRowPut, cellOf(c, op.Arg))}, func(*wire.WriteResponse) { t.rest() })
		return
	}
	t.look(x, t.id, func(look *check.RegisterOp, _ *wire.ReadResponse) {
		if look.Outcome != check.OK {
			t.rest()
			return
		}
		op := t.put(x, check.Create)
		do := x.row(wire.OpRowPut, cellOf(c, op.Arg))
		if look.Out == 0 {
			do.Flags = wire.FlagNX
		} else {
			op.Kind, op.Old = check.Cas, look.Out
			do.Conditions = []*wire.Cell{cellOf(c, look.Out)}
		}
		t.cl.write(x.v, &op.Op, []*wire.Op{do}, func(r *wire.WriteResponse) {
			op.Done = op.Outcome == check.OK && r.Error == nil
			t.rest()
		})
	})
}

func (t *thread) put(x *register, kind check.RegisterKind) *check.RegisterOp {
	op := &check.RegisterOp{Op: check.Op{Client: t.id}, Kind: kind, Arg: t.cl.c.unique()}
	x.ops = append(x.ops, op)
	return op
}
