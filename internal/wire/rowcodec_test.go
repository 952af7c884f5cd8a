package wire

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/catalog"
)

const (
	tBool  = catalog.Type_TYPE_BOOL
	tInt   = catalog.Type_TYPE_INT64
	tFloat = catalog.Type_TYPE_DOUBLE
	tStr   = catalog.Type_TYPE_STRING
	tBytes = catalog.Type_TYPE_BYTES
	tTime  = catalog.Type_TYPE_TIMESTAMP
)

// ascending lists values of each type in their order.
var ascending = map[catalog.Type][]any{
	tBool:  {false, true},
	tInt:   {int64(math.MinInt64), int64(-2), int64(-1), int64(0), int64(1), int64(256), int64(math.MaxInt64)},
	tFloat: {math.Inf(-1), -math.MaxFloat64, -1.5, -math.SmallestNonzeroFloat64, 0.0, math.SmallestNonzeroFloat64, 1.0, 1.5, math.MaxFloat64, math.Inf(1), math.NaN()},
	tStr:   {"", "\x00", "\x00\x00", "\x00\x01", "\x00\xff", "\x01", "a", "a\x00", "a\x00b", "a\x01", "ab", "b", "\xff", "\xff\xff"},
	tBytes: {[]byte{}, []byte{0}, []byte{0, 0}, []byte{0, 1}, []byte{1}, []byte{255}, []byte{255, 0}},
	tTime:  {time.UnixMicro(math.MinInt64 / 2), time.UnixMicro(-1), time.UnixMicro(0), time.UnixMicro(1), time.Unix(1<<31, 0)},
}

func TestKeysOrderAsTheirValues(t *testing.T) {
	for typ, values := range ascending {
		for _, descending := range []bool{false, true} {
			var last []byte
			for i, v := range values {
				// What follows in the key must not matter.
				key, err := AppendKeyValue(nil, typ, v, descending)
				if err != nil {
					t.Fatal(err)
				}
				if i > 0 && (bytes.Compare(append(last, 0xff), append(key, 0)) < 0) == descending {
					t.Errorf("%s %v (descending %v): %x after %x", typ, v, descending, key, last)
				}
				last = key
				got, rest, err := KeyValue(append(key, 7, 8), typ, descending)
				if err != nil || !sameValue(got, v) || !bytes.Equal(rest, []byte{7, 8}) {
					t.Errorf("%s %v: decoded %v, rest %x, %v", typ, v, got, rest, err)
				}
			}
		}
	}
}

func sameValue(a, b any) bool {
	switch a := a.(type) {
	case []byte:
		return bytes.Equal(a, b.([]byte))
	case time.Time:
		return a.Equal(b.(time.Time))
	case float64:
		return a == b.(float64) || (a != a && b.(float64) != b.(float64))
	}
	return a == b
}

func TestNegativeZeroIsTheSameKey(t *testing.T) {
	s := &catalog.Schema{Columns: []*catalog.Column{{Name: "k", Type: tFloat, Kind: catalog.ColumnKind_COLUMN_KIND_HASH}}}
	k1, h1, _ := RowKey(catalog.Hash_HASH_MURMUR3, s, []any{0.0})
	k2, h2, _ := RowKey(catalog.Hash_HASH_MURMUR3, s, []any{math.Copysign(0, -1)})
	if !bytes.Equal(k1, k2) || h1 != h2 {
		t.Fatalf("0 is %x at %x, -0 is %x at %x", k1, h1, k2, h2)
	}
}

func TestCellsComeBackAndCompare(t *testing.T) {
	for typ, values := range ascending {
		var last []byte
		for i, v := range values {
			cell, err := AppendCellValue(nil, typ, v)
			if err != nil {
				t.Fatal(err)
			}
			got, err := CellValue(cell)
			if err != nil || !sameValue(got, v) {
				t.Errorf("%s %v: decoded %v, %v", typ, v, got, err)
			}
			if n, err := CompareCells(cell, cell); n != 0 || err != nil {
				t.Errorf("%v compares %d with itself, %v", v, n, err)
			}
			if f, nan := v.(float64); i > 0 && !(nan && f != f) {
				if n, err := CompareCells(last, cell); n != -1 || err != nil {
					t.Errorf("%v compares %d with the value before it, %v", v, n, err)
				}
			}
			last = cell
		}
	}
}

func TestRowValueRefusesOtherTypes(t *testing.T) {
	for _, bad := range []struct {
		typ catalog.Type
		v   any
	}{{tInt, "1"}, {tInt, uint64(1 << 63)}, {tStr, 1}, {tStr, []byte("x")}, {tBool, 1}, {tFloat, "x"},
		{tFloat, int64(1<<53 + 1)}, {tTime, 1}, {tBytes, nil}, {catalog.Type_TYPE_DOCUMENT, "x"}} {
		if v, err := RowValue(bad.typ, bad.v); !errors.Is(err, ErrRowCodec) {
			t.Errorf("%T taken as %s: %v", bad.v, bad.typ, v)
		}
	}
	for _, good := range []struct {
		typ  catalog.Type
		v    any
		want any
	}{{tInt, 7, int64(7)}, {tInt, uint8(7), int64(7)}, {tFloat, float32(0.5), 0.5}, {tFloat, 3, 3.0}} {
		if v, err := RowValue(good.typ, good.v); err != nil || v != good.want {
			t.Errorf("%T as %s: %v, %v", good.v, good.typ, v, err)
		}
	}
}

// keySchema has two hashed columns and a descending ranged one.
var keySchema = &catalog.Schema{Columns: []*catalog.Column{
	{Name: "a", Type: tStr, Kind: catalog.ColumnKind_COLUMN_KIND_HASH},
	{Name: "b", Type: tInt, Kind: catalog.ColumnKind_COLUMN_KIND_HASH},
	{Name: "c", Type: tBytes, Kind: catalog.ColumnKind_COLUMN_KIND_RANGE, Descending: true},
	{Name: "v", Type: tStr, Kind: catalog.ColumnKind_COLUMN_KIND_REGULAR},
}}

func TestRowKeyHashesAsCassandraDoes(t *testing.T) {
	single := &catalog.Schema{Columns: keySchema.Columns[:1]}
	_, hash, err := RowKey(catalog.Hash_HASH_MURMUR3, single, []any{"hello"})
	if err != nil {
		t.Fatal(err)
	}
	if want := uint64(catalog.Murmur3Token([]byte("hello"))) ^ 1<<63; hash != want {
		t.Errorf("hash %x of a single column, want %x", hash, want)
	}
	key, hash, err := RowKey(catalog.Hash_HASH_MURMUR3, keySchema, []any{"ab", 1, []byte("z")})
	if err != nil {
		t.Fatal(err)
	}
	composite := []byte{0, 2, 'a', 'b', 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1, 0}
	if want := uint64(catalog.Murmur3Token(composite)) ^ 1<<63; hash != want {
		t.Errorf("hash %x of two columns, want %x", hash, want)
	}
	prefix, same, err := RowKey(catalog.Hash_HASH_MURMUR3, keySchema, []any{"ab", 1})
	if err != nil || same != hash || !bytes.HasPrefix(key, prefix) {
		t.Errorf("prefix %x (%x) of %x (%x), %v", prefix, same, key, hash, err)
	}
	values, err := DecodeRowKey(keySchema, key)
	if err != nil || values[0] != "ab" || values[1] != int64(1) || !bytes.Equal(values[2].([]byte), []byte("z")) {
		t.Errorf("decoded %v, %v", values, err)
	}
}

func TestRowKeyRefusesTooManyOrTooFewValues(t *testing.T) {
	for _, values := range [][]any{{"a"}, {"a", 1, []byte{}, "v"}} {
		if _, _, err := RowKey(catalog.Hash_HASH_MURMUR3, keySchema, values); !errors.Is(err, ErrRowCodec) {
			t.Errorf("%d values: %v", len(values), err)
		}
	}
	long := string(make([]byte, math.MaxUint16+1))
	if _, _, err := RowKey(catalog.Hash_HASH_MURMUR3, keySchema, []any{long, 1}); !errors.Is(err, ErrRowCodec) {
		t.Errorf("a hashed column beyond 64 KiB: %v", err)
	}
}

func TestRandomStringKeysOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	random := func() []byte {
		b := make([]byte, r.IntN(6))
		for i := range b {
			b[i] = byte(r.IntN(3))
		}
		return b
	}
	for range 20_000 {
		a, b := random(), random()
		ka, _ := AppendKeyValue(nil, tBytes, a, false)
		kb, _ := AppendKeyValue(nil, tBytes, b, false)
		if bytes.Compare(a, b) != bytes.Compare(ka, kb) {
			t.Fatalf("%x and %x become %x and %x", a, b, ka, kb)
		}
	}
}

func FuzzDecodeRowKey(f *testing.F) {
	for _, seed := range [][]any{{"ab", 1, []byte("z")}, {"", -1, []byte{0, 0}}, {"\x00", 0, []byte{255}}} {
		key, _, err := RowKey(catalog.Hash_HASH_MURMUR3, keySchema, seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key []byte) {
		values, err := DecodeRowKey(keySchema, key)
		if err != nil {
			if !errors.Is(err, ErrRowCodec) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		again, _, err := RowKey(catalog.Hash_HASH_MURMUR3, keySchema, values)
		if err == nil && !bytes.Equal(again, key) {
			t.Fatalf("%x came back as %x", key, again)
		}
	})
}

func FuzzCellValue(f *testing.F) {
	for typ, values := range ascending {
		for _, v := range values {
			cell, err := AppendCellValue(nil, typ, v)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(cell)
		}
	}
	f.Fuzz(func(t *testing.T, cell []byte) {
		if _, err := CellValue(cell); err != nil {
			if !errors.Is(err, ErrRowCodec) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		if n, err := CompareCells(cell, cell); n != 0 || err != nil {
			t.Fatalf("%x compares %d with itself, %v", cell, n, err)
		}
	})
}
