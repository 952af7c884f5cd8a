package docdb

import (
	"bytes"
	"math/big"
	"strconv"
	"strings"
)

// parseInt reads a canonical decimal integer, the only form in which Redis takes
// a value for a number: no sign but a minus, no leading zero, no space.
func parseInt(text []byte) (int64, bool) {
	if len(text) == 0 || len(text) > len("-9223372036854775808") {
		return 0, false
	}
	digits := text
	if digits[0] == '-' {
		digits = digits[1:]
	}
	if len(digits) == 0 || digits[0] < '0' || digits[0] > '9' || digits[0] == '0' && len(text) > 1 {
		return 0, false
	}
	n, err := strconv.ParseInt(string(text), 10, 64)
	return n, err == nil
}

// addInt is a + b, unless that overflows.
func addInt(a, b int64) (int64, bool) {
	sum := a + b
	return sum, (sum > a) == (b > 0)
}

// INCRBYFLOAT and HINCRBYFLOAT compute in C's long double, which on the machines
// that Redis mostly runs on has a mantissa of 64 bits, and print %.17Lf without
// trailing zeros. A big.Float of that precision gives the same digits on every
// machine.
const (
	longDoubleBits    = 64
	longDoubleExpMax  = 16384  // 2^16384 is infinite
	longDoubleExpMin  = -16445 // below 2^-16445 there is only zero
	longDoubleTextMax = 5 * 1024
)

// parseLongDouble reads what strtold reads, and refuses what Redis refuses:
// space, NaN, overflow to infinity and underflow to zero. "inf" is a number here;
// adding it is what fails.
func parseLongDouble(text []byte) (*big.Float, bool) {
	if len(text) == 0 || len(text) >= longDoubleTextMax {
		return nil, false
	}
	s, negative := string(text), false
	if s[0] == '+' || s[0] == '-' {
		s, negative = s[1:], s[0] == '-'
	}
	switch strings.ToLower(s) {
	case "inf", "infinity":
		return new(big.Float).SetInf(negative), true
	}
	base := 10
	if len(s) > 1 && s[0] == '0' && (s[1] == 'x' || s[1] == 'X') {
		s, base = s[2:], 16
	}
	if !validFloat(s, base) {
		return nil, false
	}
	f, _, err := big.ParseFloat(s, base, longDoubleBits, big.ToNearestEven)
	if err != nil || f.IsInf() {
		return nil, false
	}
	if exp := f.MantExp(nil); f.Sign() != 0 && (exp > longDoubleExpMax || exp < longDoubleExpMin) {
		return nil, false
	}
	if f.Sign() == 0 && strings.ContainsAny(mantissa(s, base), "123456789abcdefABCDEF") {
		return nil, false
	}
	if negative {
		f.Neg(f)
	}
	return f, true
}

func mantissa(s string, base int) string {
	mark := "eE"
	if base == 16 {
		mark = "pP"
	}
	if i := strings.IndexAny(s, mark); i >= 0 {
		return s[:i]
	}
	return s
}

// validFloat checks the grammar of C: digits with at most one point, then an
// optional exponent in decimal. (big.ParseFloat knows more than C does.)
func validFloat(s string, base int) bool {
	m := mantissa(s, base)
	digits, points := 0, 0
	for i := 0; i < len(m); i++ {
		c := m[i]
		switch {
		case c == '.':
			points++
		case c >= '0' && c <= '9', base == 16 && (c|0x20 >= 'a' && c|0x20 <= 'f'):
			digits++
		default:
			return false
		}
	}
	if digits == 0 || points > 1 {
		return false
	}
	if len(m) == len(s) {
		return true
	}
	exp := s[len(m)+1:]
	if exp != "" && (exp[0] == '+' || exp[0] == '-') {
		exp = exp[1:]
	}
	for i := 0; i < len(exp); i++ {
		if exp[i] < '0' || exp[i] > '9' {
			return false
		}
	}
	// An exponent of more digits than any number that is finite and not zero
	// is refused by its length: it is never computed.
	return exp != "" && len(strings.TrimLeft(exp, "0")) <= 6
}

// addLongDouble is a + b as text, unless that is infinite or not a number.
func addLongDouble(a, b *big.Float) ([]byte, bool) {
	if a.IsInf() || b.IsInf() {
		return nil, false
	}
	sum := new(big.Float).SetPrec(longDoubleBits).SetMode(big.ToNearestEven).Add(a, b)
	if sum.Sign() != 0 && sum.MantExp(nil) > longDoubleExpMax {
		return nil, false
	}
	text := sum.Append(nil, 'f', 17)
	text = bytes.TrimRight(text, "0")
	text = bytes.TrimSuffix(text, []byte{'.'})
	if string(text) == "-0" {
		text = text[1:]
	}
	return text, true
}
