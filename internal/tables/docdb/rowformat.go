package docdb

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/wire"
)

// A row is one root record: all regular columns packed into its Value. A partial
// update reads the row and writes it whole. The other way, a record for each
// changed column over the packed one and a repack later, saves bytes where few
// columns of a wide row change, and costs every read a scan and a merge; it also
// needs a compaction that understands rows, and Pebble has none. An update needs
// the row's lock either way, and with it the leader has the row at hand.
//
// Value: uvarint schema version that wrote it, then for each column that is not
// null, ascending: uvarint column id, uvarint length, the cell as wire has it.
// Columns are found by id, so one that was dropped is passed over and one that
// was added reads null, whatever version wrote the row; ids are never reused.

// cell is one column of a stored row; value is borrowed.
type cell struct {
	column uint32
	value  []byte
}

func appendRow(dst []byte, version uint32, cells []cell) []byte {
	dst = binary.AppendUvarint(dst, uint64(version))
	for _, c := range cells {
		dst = binary.AppendUvarint(dst, uint64(c.column))
		dst = binary.AppendUvarint(dst, uint64(len(c.value)))
		dst = append(dst, c.value...)
	}
	return dst
}

// decodeRow reads what appendRow wrote.
func decodeRow(p []byte) (version uint32, cells []cell, err error) {
	d := reader{p: p}
	v := d.uvarint()
	last := int64(-1)
	for len(d.p) > 0 && !d.bad {
		id := d.uvarint()
		value := d.take(d.uvarint())
		if id > math.MaxUint32 || int64(id) <= last || len(value) == 0 {
			return 0, nil, ErrEncoding
		}
		last = int64(id)
		cells = append(cells, cell{uint32(id), value})
	}
	if d.bad || v > math.MaxUint32 {
		return 0, nil, ErrEncoding
	}
	return uint32(v), cells, nil
}

func findCell(cells []cell, column uint32) (int, bool) {
	return slices.BinarySearchFunc(cells, column, func(c cell, id uint32) int { return cmp.Compare(c.column, id) })
}

// regular is the column of a schema that a cell may name, nil if there is none.
func regular(s *catalog.Schema, id uint32) *catalog.Column {
	for _, c := range s.GetColumns() {
		if c.Id == id && c.Kind == catalog.ColumnKind_COLUMN_KIND_REGULAR {
			return c
		}
	}
	return nil
}

// cellOf reports whether a cell is a well-formed value of a type.
func cellOf(t catalog.Type, value []byte) bool {
	v, err := wire.CellValue(value)
	if err != nil {
		return false
	}
	switch v.(type) {
	case bool:
		return t == catalog.Type_TYPE_BOOL
	case int64:
		return t == catalog.Type_TYPE_INT64
	case float64:
		return t == catalog.Type_TYPE_DOUBLE
	case string:
		return t == catalog.Type_TYPE_STRING
	case []byte:
		return t == catalog.Type_TYPE_BYTES
	case time.Time:
		return t == catalog.Type_TYPE_TIMESTAMP
	}
	return false
}

// Comparisons of a condition, as wire.Cell numbers them.
const (
	compareEqual = iota
	compareNotEqual
	compareLess
	compareLessEqual
	compareGreater
	compareGreaterEqual
	comparesEnd
)

// holds decides a condition on a column's value, nil for null. Null equals only
// null, and is neither less nor greater than anything.
func holds(c *wire.Cell, value []byte) (yes, ok bool) {
	if c.IsNull || value == nil {
		same := c.IsNull && value == nil
		switch c.Compare {
		case compareEqual:
			return same, true
		case compareNotEqual:
			return !same, true
		}
		return false, true
	}
	order, err := wire.CompareCells(value, c.Value)
	ok = err == nil
	switch c.Compare {
	case compareEqual:
		return order == 0, ok
	case compareNotEqual:
		return order != 0, ok
	case compareLess:
		return order < 0, ok
	case compareLessEqual:
		return order <= 0, ok
	case compareGreater:
		return order > 0, ok
	case compareGreaterEqual:
		return order >= 0, ok
	}
	return false, false
}
