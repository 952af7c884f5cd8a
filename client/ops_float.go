package client

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// ErrNotAFloat is returned by ParseDouble for text that Redis would refuse.
var ErrNotAFloat = errors.New("client: not a valid float")

// ParseDouble reads a double as today's Redis does: decimal or hexadecimal, "inf"
// and "infinity" with a sign or without, no white space, no NaN. What overflows
// or vanishes is refused, not rounded to infinity or zero.
func ParseDouble(text string) (float64, error) {
	if text == "" || strings.ContainsRune(text, '_') {
		return 0, ErrNotAFloat
	}
	digits := strings.TrimLeft(text, "+-")
	hex := len(digits) > 1 && digits[0] == '0' && (digits[1] == 'x' || digits[1] == 'X')
	if hex && !strings.ContainsAny(digits, "pP") {
		text += "p0" // C needs no exponent, Go does
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(f) {
		return 0, ErrNotAFloat
	}
	if f == 0 {
		mantissa, _, _ := strings.Cut(strings.ToLower(digits), map[bool]string{true: "p", false: "e"}[hex])
		if strings.ContainsAny(strings.TrimPrefix(mantissa, "0x"), "123456789abcdef") {
			return 0, ErrNotAFloat // too small to be anything but zero
		}
	}
	return f, nil
}

// FormatDouble writes a double as today's Redis does (7.2 and later): whole
// numbers as integers, others with the fewest digits that read back the same,
// with an exponent only where that is much shorter.
func FormatDouble(f float64) string {
	var buf [32]byte
	return string(AppendDouble(buf[:0], f))
}

// AppendDouble appends FormatDouble of f.
func AppendDouble(b []byte, f float64) []byte {
	switch {
	case math.IsNaN(f):
		return append(b, "nan"...)
	case math.IsInf(f, 1):
		return append(b, "inf"...)
	case math.IsInf(f, -1):
		return append(b, "-inf"...)
	case f == 0 && math.Signbit(f):
		return append(b, "-0"...)
	case math.Abs(f) <= math.MaxInt64/2 && f == math.Trunc(f):
		return strconv.AppendInt(b, int64(f), 10)
	}
	if f < 0 {
		b, f = append(b, '-'), -f
	}
	var space [32]byte
	text := strconv.AppendFloat(space[:0], f, 'e', -1, 64) // d.ddde±xx
	mark := len(text) - 1
	for text[mark] != 'e' {
		mark--
	}
	exp, _ := strconv.Atoi(string(text[mark+1:]))
	digits := text[:1]
	if mark > 1 {
		digits = append(digits, text[2:mark]...)
	}
	return appendDigits(b, digits, exp)
}

// appendDigits writes 0.d1d2d3... * 10^(exp+1) by the rules of fpconv, the
// printer that Redis uses.
func appendDigits(b, digits []byte, exp int) []byte {
	n := len(digits)
	scale := exp - n + 1 // of the last digit
	size := max(exp, -exp)
	switch {
	case scale >= 0 && size < n+7:
		b = append(b, digits...)
		return append(b, strings.Repeat("0", scale)...)
	case scale < 0 && (scale > -7 || size < 4):
		if point := n + scale; point > 0 {
			b = append(append(b, digits[:point]...), '.')
			return append(b, digits[point:]...)
		}
		b = append(append(b, "0."...), strings.Repeat("0", -(n+scale))...)
		return append(b, digits...)
	}
	b = append(b, digits[0])
	if n > 1 {
		b = append(append(b, '.'), digits[1:]...)
	}
	b = append(b, 'e')
	if exp < 0 {
		b = append(b, '-')
	} else {
		b = append(b, '+')
	}
	return strconv.AppendInt(b, int64(size), 10)
}
