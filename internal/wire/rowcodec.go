package wire

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/braiddb/braid/internal/catalog"
)

// How the values of rows become bytes. docs/formats/rpc.md says it, too: a
// row's key and cells go over the wire as they go to disk.
//
// A value is a bool, int64, float64, string, []byte or time.Time, by the type of
// its column. A key is the concatenation of its columns, hash columns first;
// bytewise comparison orders keys as their columns compare one after another:
//
//	bool       10  00 or 01
//	int64      11  big-endian, sign bit flipped
//	double     12  IEEE 754 big-endian; negative: all bits flipped, else the sign bit; one NaN, above all; no -0
//	string     13  bytes with 00 as 00 01, then 00 00
//	bytes      14  as string
//	timestamp  15  microseconds since the Unix epoch as int64
//
// A descending column has all of its bytes flipped. A cell is the same tag and
// the value as it is: integers and doubles big-endian, strings to the end.

// ErrRowCodec is matched by every error of decoding or encoding a row.
var ErrRowCodec = errors.New("row codec")

const (
	tagBool      = 0x10
	tagInt64     = 0x11
	tagDouble    = 0x12
	tagString    = 0x13
	tagBytes     = 0x14
	tagTimestamp = 0x15
)

// tagOf is the tag of a column's type, 0 if rows have no such values.
func tagOf(t catalog.Type) byte {
	switch t {
	case catalog.Type_TYPE_BOOL:
		return tagBool
	case catalog.Type_TYPE_INT64:
		return tagInt64
	case catalog.Type_TYPE_DOUBLE:
		return tagDouble
	case catalog.Type_TYPE_STRING:
		return tagString
	case catalog.Type_TYPE_BYTES:
		return tagBytes
	case catalog.Type_TYPE_TIMESTAMP:
		return tagTimestamp
	}
	return 0
}

// RowValue makes of v the value that a column of type t holds: every integer
// type that fits is an int64, float32 is a float64. It refuses others.
func RowValue(t catalog.Type, v any) (any, error) {
	switch t {
	case catalog.Type_TYPE_BOOL:
		if b, ok := v.(bool); ok {
			return b, nil
		}
	case catalog.Type_TYPE_INT64:
		if i, ok := integer(v); ok {
			return i, nil
		}
	case catalog.Type_TYPE_DOUBLE:
		switch f := v.(type) {
		case float64:
			return f, nil
		case float32:
			return float64(f), nil
		}
		if i, ok := integer(v); ok && i >= -1<<53 && i <= 1<<53 {
			return float64(i), nil
		}
	case catalog.Type_TYPE_STRING:
		if s, ok := v.(string); ok {
			return s, nil
		}
	case catalog.Type_TYPE_BYTES:
		switch b := v.(type) {
		case []byte:
			return b, nil
		case string:
			return []byte(b), nil
		}
	case catalog.Type_TYPE_TIMESTAMP:
		if at, ok := v.(time.Time); ok {
			return at, nil
		}
	}
	return nil, fmt.Errorf("%w: a %T is no %s", ErrRowCodec, v, t)
}

func integer(v any) (int64, bool) {
	switch i := v.(type) {
	case int64:
		return i, true
	case int:
		return int64(i), true
	case int32:
		return int64(i), true
	case int16:
		return int64(i), true
	case int8:
		return int64(i), true
	case uint8:
		return int64(i), true
	case uint16:
		return int64(i), true
	case uint32:
		return int64(i), true
	case uint64:
		return int64(i), i <= math.MaxInt64
	case uint:
		return int64(i), uint64(i) <= math.MaxInt64
	}
	return 0, false
}

// AppendKeyValue appends one column of a key.
func AppendKeyValue(dst []byte, t catalog.Type, v any, descending bool) ([]byte, error) {
	v, err := RowValue(t, v)
	if err != nil {
		return dst, err
	}
	start := len(dst)
	dst = append(dst, tagOf(t))
	switch v := v.(type) {
	case bool:
		dst = append(dst, boolByte(v))
	case int64:
		dst = binary.BigEndian.AppendUint64(dst, uint64(v)^1<<63)
	case float64:
		dst = binary.BigEndian.AppendUint64(dst, orderedDouble(v))
	case string:
		dst = appendEscaped(dst, v)
	case []byte:
		dst = appendEscaped(dst, v)
	case time.Time:
		dst = binary.BigEndian.AppendUint64(dst, uint64(v.UnixMicro())^1<<63)
	}
	if descending {
		flip(dst[start:])
	}
	return dst, nil
}

// orderedDouble gives bits that compare as the doubles do.
func orderedDouble(f float64) uint64 {
	switch {
	case f != f:
		f = math.NaN() // one of the many
	case f == 0:
		f = 0 // not -0: equal keys are one row
	}
	b := math.Float64bits(f)
	if b>>63 == 1 {
		return ^b
	}
	return b | 1<<63
}

func boolByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}

func flip(b []byte) {
	for i := range b {
		b[i] = ^b[i]
	}
}

func appendEscaped[T string | []byte](dst []byte, v T) []byte {
	for i := range len(v) {
		if dst = append(dst, v[i]); v[i] == 0 {
			dst = append(dst, 1)
		}
	}
	return append(dst, 0, 0)
}

// KeyValue takes one column off the front of a key. The value does not alias it.
func KeyValue(src []byte, t catalog.Type, descending bool) (v any, rest []byte, err error) {
	var mask byte
	if descending {
		mask = 0xff
	}
	if len(src) == 0 || src[0]^mask != tagOf(t) || tagOf(t) == 0 {
		return nil, src, fmt.Errorf("%w: no %s at the start of a key of %d bytes", ErrRowCodec, t, len(src))
	}
	src = src[1:]
	switch t {
	case catalog.Type_TYPE_STRING, catalog.Type_TYPE_BYTES:
		text, rest, err := unescape(src, mask)
		if err != nil {
			return nil, src, err
		}
		if t == catalog.Type_TYPE_STRING {
			return string(text), rest, nil
		}
		return text, rest, nil
	case catalog.Type_TYPE_BOOL:
		if len(src) < 1 || src[0]^mask > 1 {
			return nil, src, fmt.Errorf("%w: bool", ErrRowCodec)
		}
		return src[0]^mask == 1, src[1:], nil
	}
	if len(src) < 8 {
		return nil, src, fmt.Errorf("%w: %s cut short", ErrRowCodec, t)
	}
	bits := binary.BigEndian.Uint64(src)
	if descending {
		bits = ^bits
	}
	switch t {
	case catalog.Type_TYPE_INT64:
		return int64(bits ^ 1<<63), src[8:], nil
	case catalog.Type_TYPE_TIMESTAMP:
		return time.UnixMicro(int64(bits ^ 1<<63)).UTC(), src[8:], nil
	}
	if bits>>63 == 1 {
		bits ^= 1 << 63
	} else {
		bits = ^bits
	}
	return math.Float64frombits(bits), src[8:], nil
}

func unescape(src []byte, mask byte) (text, rest []byte, err error) {
	text = []byte{}
	for i := 0; i < len(src); i++ {
		c := src[i] ^ mask
		if c != 0 {
			text = append(text, c)
			continue
		}
		if i++; i == len(src) {
			break
		}
		switch src[i] ^ mask {
		case 0:
			return text, src[i+1:], nil
		case 1:
			text = append(text, 0)
		default:
			return nil, src, fmt.Errorf("%w: a zero byte that is not escaped", ErrRowCodec)
		}
	}
	return nil, src, fmt.Errorf("%w: text without an end", ErrRowCodec)
}

// keyColumns counts the columns of s that make up the key, and those hashed.
func keyColumns(s *catalog.Schema) (key, hashed int) {
	for _, c := range s.Columns {
		switch c.Kind {
		case catalog.ColumnKind_COLUMN_KIND_HASH:
			hashed++
			key++
		case catalog.ColumnKind_COLUMN_KIND_RANGE:
			key++
		}
	}
	return key, hashed
}

// RowKey encodes a row's key of the values of its key columns, in the schema's
// order, and finds its place in the hash space. With only the hashed columns, or
// those and some of the ranged ones, it gives the prefix that the keys of all
// such rows share.
func RowKey(h catalog.Hash, s *catalog.Schema, values []any) (key []byte, hash uint64, err error) {
	total, hashed := keyColumns(s)
	if len(values) < hashed || len(values) > total {
		return nil, 0, fmt.Errorf("%w: %d values for a key of %d columns, %d of them hashed", ErrRowCodec, len(values), total, hashed)
	}
	var partition []byte
	for i, v := range values {
		c := s.Columns[i]
		if key, err = AppendKeyValue(key, c.Type, v, c.Descending); err != nil {
			return nil, 0, fmt.Errorf("column %q: %w", c.Name, err)
		}
		if i < hashed {
			if partition, err = appendPartition(partition, c.Type, v, hashed > 1); err != nil {
				return nil, 0, fmt.Errorf("column %q: %w", c.Name, err)
			}
		}
	}
	return key, catalog.KeyHash(h, partition), nil
}

// DecodeRowKey is RowKey backwards: the values of all key columns.
func DecodeRowKey(s *catalog.Schema, key []byte) ([]any, error) {
	total, _ := keyColumns(s)
	values := make([]any, total)
	var err error
	for i := range values {
		if values[i], key, err = KeyValue(key, s.Columns[i].Type, s.Columns[i].Descending); err != nil {
			return nil, err
		}
	}
	if len(key) > 0 {
		return nil, fmt.Errorf("%w: %d bytes after the key", ErrRowCodec, len(key))
	}
	return values, nil
}

// appendPartition appends what is hashed of a column: what Cassandra hashes, so
// that its drivers find the tablet by themselves. That is the plain value of a
// single column, and length, value, zero byte of each of several.
func appendPartition(dst []byte, t catalog.Type, v any, several bool) ([]byte, error) {
	v, err := RowValue(t, v)
	if err != nil {
		return dst, err
	}
	start := len(dst)
	if several {
		dst = append(dst, 0, 0)
	}
	switch v := v.(type) {
	case bool:
		dst = append(dst, boolByte(v))
	case int64:
		dst = binary.BigEndian.AppendUint64(dst, uint64(v))
	case float64:
		if v == 0 {
			v = 0 // as in the key
		}
		dst = binary.BigEndian.AppendUint64(dst, math.Float64bits(v))
	case string:
		dst = append(dst, v...)
	case []byte:
		dst = append(dst, v...)
	case time.Time:
		dst = binary.BigEndian.AppendUint64(dst, uint64(v.UnixMilli()))
	}
	if several {
		n := len(dst) - start - 2
		if n > math.MaxUint16 {
			return dst[:start], fmt.Errorf("%w: %d bytes in one of several hashed columns, the limit is %d", ErrRowCodec, n, math.MaxUint16)
		}
		binary.BigEndian.PutUint16(dst[start:], uint16(n))
		dst = append(dst, 0)
	}
	return dst, nil
}

// AppendCellValue appends the value of a column that is not part of the key.
func AppendCellValue(dst []byte, t catalog.Type, v any) ([]byte, error) {
	v, err := RowValue(t, v)
	if err != nil {
		return dst, err
	}
	dst = append(dst, tagOf(t))
	switch v := v.(type) {
	case bool:
		dst = append(dst, boolByte(v))
	case int64:
		dst = binary.BigEndian.AppendUint64(dst, uint64(v))
	case float64:
		dst = binary.BigEndian.AppendUint64(dst, math.Float64bits(v))
	case string:
		dst = append(dst, v...)
	case []byte:
		dst = append(dst, v...)
	case time.Time:
		dst = binary.BigEndian.AppendUint64(dst, uint64(v.UnixMicro()))
	}
	return dst, nil
}

// CellValue decodes a cell's value. Bytes alias the cell.
func CellValue(b []byte) (any, error) {
	if len(b) == 0 {
		return nil, fmt.Errorf("%w: empty cell", ErrRowCodec)
	}
	raw := b[1:]
	switch b[0] {
	case tagString:
		return string(raw), nil
	case tagBytes:
		return raw, nil
	case tagBool:
		if len(raw) == 1 && raw[0] <= 1 {
			return raw[0] == 1, nil
		}
	case tagInt64, tagDouble, tagTimestamp:
		if len(raw) != 8 {
			break
		}
		bits := binary.BigEndian.Uint64(raw)
		switch b[0] {
		case tagInt64:
			return int64(bits), nil
		case tagDouble:
			return math.Float64frombits(bits), nil
		}
		return time.UnixMicro(int64(bits)).UTC(), nil
	}
	return nil, fmt.Errorf("%w: cell of %d bytes with tag %#x", ErrRowCodec, len(b), b[0])
}

// CompareCells orders two cells of one type as their values compare. A NaN is
// below every other double, as cmp.Compare has it.
func CompareCells(a, b []byte) (int, error) {
	if len(a) > 0 && len(b) > 0 && a[0] == b[0] && (a[0] == tagString || a[0] == tagBytes) {
		return bytes.Compare(a[1:], b[1:]), nil
	}
	va, err := CellValue(a)
	if err != nil {
		return 0, err
	}
	vb, err := CellValue(b)
	if err != nil {
		return 0, err
	}
	switch va := va.(type) {
	case int64:
		if vb, ok := vb.(int64); ok {
			return cmp.Compare(va, vb), nil
		}
	case float64:
		if vb, ok := vb.(float64); ok {
			return cmp.Compare(va, vb), nil
		}
	case bool:
		if vb, ok := vb.(bool); ok {
			return cmp.Compare(boolByte(va), boolByte(vb)), nil
		}
	case time.Time:
		if vb, ok := vb.(time.Time); ok {
			return va.Compare(vb), nil
		}
	}
	return 0, fmt.Errorf("%w: cells of types %#x and %#x do not compare", ErrRowCodec, a[0], b[0])
}
