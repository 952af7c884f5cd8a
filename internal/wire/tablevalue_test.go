package wire

import (
	"math"
	"reflect"
	"testing"
)

func TestTableValuesComeBack(t *testing.T) {
	in := []any{nil, int64(-3), 7, uint32(8), uint64(9), uint64(math.MaxUint64), true, false, 1.5, "x", []byte{0, 255}}
	want := []any{nil, int64(-3), int64(7), int64(8), int64(9), "18446744073709551615", int64(1), int64(0), 1.5, "x", []byte{0, 255}}
	b, err := NewTableRow(in).MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	var row TableRow
	if err := row.UnmarshalVT(b); err != nil {
		t.Fatal(err)
	}
	if got := row.Any(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %#v, want %#v", got, want)
	}
	if v := (&TableValue{Kind: 99}).Any(); v != nil {
		t.Errorf("an unknown kind is %v", v)
	}
}
