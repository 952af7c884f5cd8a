package wire

import (
	"fmt"
	"math"
)

// The kinds of a TableValue.
const (
	valueNull uint32 = iota
	valueInteger
	valueReal
	valueText
	valueBlob
)

// NewTableValue puts a value of a live table on the wire: nil, an integer, a
// bool (1 or 0), a float64, a string or bytes. An integer beyond int64 is text.
func NewTableValue(v any) *TableValue {
	switch v := v.(type) {
	case nil:
		return &TableValue{}
	case int64:
		return &TableValue{Kind: valueInteger, Integer: v}
	case int:
		return &TableValue{Kind: valueInteger, Integer: int64(v)}
	case uint32:
		return &TableValue{Kind: valueInteger, Integer: int64(v)}
	case uint64:
		if v > math.MaxInt64 {
			return &TableValue{Kind: valueText, Text: fmt.Append(nil, v)}
		}
		return &TableValue{Kind: valueInteger, Integer: int64(v)}
	case bool:
		b := &TableValue{Kind: valueInteger}
		if v {
			b.Integer = 1
		}
		return b
	case float64:
		return &TableValue{Kind: valueReal, Real: v}
	case string:
		return &TableValue{Kind: valueText, Text: []byte(v)}
	case []byte:
		return &TableValue{Kind: valueBlob, Text: v}
	}
	panic(fmt.Sprintf("BUG: a table's value of type %T", v))
}

// NewTableRow is a row of such values.
func NewTableRow(values []any) *TableRow {
	row := &TableRow{Values: make([]*TableValue, len(values))}
	for i, v := range values {
		row.Values[i] = NewTableValue(v)
	}
	return row
}

// Any is the value: int64, float64, string, []byte or nil. What a newer version
// sends is nil.
func (x *TableValue) Any() any {
	switch x.GetKind() {
	case valueInteger:
		return x.Integer
	case valueReal:
		return x.Real
	case valueText:
		return string(x.Text)
	case valueBlob:
		return x.Text
	}
	return nil
}

// Any gives a row's values.
func (x *TableRow) Any() []any {
	values := make([]any, len(x.GetValues()))
	for i, v := range x.GetValues() {
		values[i] = v.Any()
	}
	return values
}
