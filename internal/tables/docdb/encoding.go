package docdb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"math/bits"
)

// ErrEncoding says that bytes are not what an encoder of this package writes.
var ErrEncoding = errors.New("docdb: malformed encoding")

// The encoders below keep order: for two values a and b of one type,
// bytes.Compare of the encodings is the comparison of a and b. Each encoding is
// self-delimiting, so encodings can be joined and still compare component by
// component.

// AppendInt64 appends i, ordered and short: a header byte that holds sign and
// length, then the magnitude's bytes (those of a negative number complemented).
// Small numbers, such as the positions of a young list, take two bytes.
func AppendInt64(dst []byte, i int64) []byte {
	if i >= 0 {
		return appendMagnitude(dst, uint64(i), intZero, 0)
	}
	return appendMagnitude(dst, uint64(^i), intZero-1, 0xff)
}

// intZero is the header of zero: header = intZero + number of bytes for numbers
// from zero up, intZero - 1 - number of bytes below zero.
const intZero = 0x80

func appendMagnitude(dst []byte, m uint64, header byte, flip byte) []byte {
	n := (64 - bits.LeadingZeros64(m) + 7) / 8
	if flip == 0 {
		dst = append(dst, header+byte(n))
	} else {
		dst = append(dst, header-byte(n))
	}
	for shift := 8 * (n - 1); shift >= 0; shift -= 8 {
		dst = append(dst, byte(m>>shift)^flip)
	}
	return dst
}

// DecodeInt64 reads what AppendInt64 wrote and returns what follows it.
func DecodeInt64(p []byte) (int64, []byte, error) {
	if len(p) == 0 {
		return 0, nil, ErrEncoding
	}
	n, flip := int(p[0])-intZero, byte(0)
	if n < 0 {
		n, flip = -1-n, 0xff
	}
	if n > 8 || len(p) < 1+n {
		return 0, nil, ErrEncoding
	}
	var m uint64
	for _, b := range p[1 : 1+n] {
		m = m<<8 | uint64(b^flip)
	}
	if m > math.MaxInt64 || (n > 0 && m>>(8*(n-1)) == 0) {
		return 0, nil, ErrEncoding // out of range, or not the shortest form
	}
	if flip != 0 {
		return ^int64(m), p[1+n:], nil
	}
	return int64(m), p[1+n:], nil
}

// AppendFloat64 appends f in eight ordered bytes. Minus zero is written as zero,
// because the two are equal; a NaN has no place in an order and is the caller's
// to refuse.
func AppendFloat64(dst []byte, f float64) []byte {
	if f == 0 {
		f = 0
	}
	b := math.Float64bits(f)
	if b>>63 != 0 {
		b = ^b
	} else {
		b ^= 1 << 63
	}
	return binary.BigEndian.AppendUint64(dst, b)
}

// DecodeFloat64 reads what AppendFloat64 wrote and returns what follows it.
func DecodeFloat64(p []byte) (float64, []byte, error) {
	if len(p) < 8 {
		return 0, nil, ErrEncoding
	}
	b := binary.BigEndian.Uint64(p)
	if b>>63 != 0 {
		b ^= 1 << 63
	} else {
		b = ^b
	}
	return math.Float64frombits(b), p[8:], nil
}

// A string in a key: every 00 becomes 00 01, and 00 00 ends it.
const (
	escape     = 0x00
	escapedNul = 0x01
	terminator = 0x00
)

// AppendString appends s and its end.
func AppendString(dst, s []byte) []byte {
	return append(appendEscaped(dst, s), escape, terminator)
}

func appendEscaped(dst, s []byte) []byte {
	for {
		i := bytes.IndexByte(s, escape)
		if i < 0 {
			return append(dst, s...)
		}
		dst = append(append(dst, s[:i+1]...), escapedNul)
		s = s[i+1:]
	}
}

// DecodeString appends to dst what AppendString wrote and returns it and what
// follows.
func DecodeString(dst, p []byte) (s, rest []byte, err error) {
	for {
		i := bytes.IndexByte(p, escape)
		if i < 0 || i+1 >= len(p) {
			return nil, nil, ErrEncoding
		}
		dst = append(dst, p[:i]...)
		switch p[i+1] {
		case terminator:
			return dst, p[i+2:], nil
		case escapedNul:
			dst = append(dst, escape)
		default:
			return nil, nil, ErrEncoding
		}
		p = p[i+2:]
	}
}
