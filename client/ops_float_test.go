package client

import (
	"math"
	"strconv"
	"testing"
)

func TestFormatDouble(t *testing.T) {
	for _, c := range []struct {
		in   float64
		want string
	}{
		{0, "0"}, {math.Copysign(0, -1), "-0"}, {1, "1"}, {-1, "-1"}, {0.1, "0.1"}, {3.14, "3.14"},
		{-2.5, "-2.5"}, {1e18, "1000000000000000000"}, {1e19, "1e+19"}, {1.5e300, "1.5e+300"},
		{1e-7, "1e-7"}, {0.000001, "0.000001"}, {1.5e-10, "1.5e-10"}, {0.0001234, "1.234e-4"}, {0.00123, "0.00123"},
		{math.Inf(1), "inf"}, {math.Inf(-1), "-inf"}, {17179869184, "17179869184"}, {5e-324, "5e-324"},
		{0.30000000000000004, "0.30000000000000004"}, {12345.678, "12345.678"},
	} {
		if got := FormatDouble(c.in); got != c.want {
			t.Errorf("FormatDouble(%g) = %q, want %q", c.in, got, c.want)
		}
	}
}

func TestParseDouble(t *testing.T) {
	for text, want := range map[string]float64{
		"1": 1, "-1.5": -1.5, "+2": 2, "1e3": 1000, "inf": math.Inf(1), "-Infinity": math.Inf(-1),
		"0x10": 16, "0x1p-1": 0.5, ".5": 0.5, "5.": 5, "0e10": 0, "-0": 0,
	} {
		if got, err := ParseDouble(text); err != nil || got != want {
			t.Errorf("ParseDouble(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", " 1", "1 ", "nan", "1_0", "0x", "1e400", "-1e400", "1e-400", "abc", "1.2.3", "--1", "0x1p-2000"} {
		if got, err := ParseDouble(text); err == nil {
			t.Errorf("ParseDouble(%q) = %v, want an error", text, got)
		}
	}
}

func FuzzFormatDouble(f *testing.F) {
	for _, v := range []float64{0.1, 1e19, 1e-7, 5e-324, math.MaxFloat64, 123456789.125} {
		f.Add(math.Float64bits(v))
	}
	f.Fuzz(func(t *testing.T, bits uint64) {
		v := math.Float64frombits(bits)
		if math.IsNaN(v) {
			return
		}
		text := FormatDouble(v)
		back, err := strconv.ParseFloat(text, 64)
		if err != nil || back != v || math.Signbit(back) != math.Signbit(v) {
			t.Fatalf("%g is written %q, read back %g (%v)", v, text, back, err)
		}
	})
}
