package docdb

import (
	"bytes"
	"math/big"
	"strings"
	"testing"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/wire"
)

// globModel says by the definition whether a pattern matches: every * tries
// every length, each (pattern, text) pair once.
type globModel struct {
	pattern, s []byte
	known      map[[2]int]bool
}

func (m *globModel) match(p, i int) (yes bool) {
	at := [2]int{p, i}
	if yes, ok := m.known[at]; ok {
		return yes
	}
	defer func() { m.known[at] = yes }()
	switch {
	case p >= len(m.pattern):
		return i == len(m.s)
	case m.pattern[p] == '*':
		return m.match(p+1, i) || i < len(m.s) && m.match(p, i+1)
	case i == len(m.s):
		return false
	}
	ok, next := matchOne(m.pattern, p, m.s[i])
	return ok && m.match(next, i+1)
}

func FuzzGlob(f *testing.F) {
	for _, p := range []string{"", "*", "a*b*c", "[a-c]?[^x]", "\\*", "[", "[^", "[a-", "[]]", "a\\", "**?**", "[z-a]*"} {
		f.Add([]byte(p), []byte("abcabc"))
	}
	f.Fuzz(func(t *testing.T, pattern, s []byte) {
		if len(pattern) > 200 || len(s) > 200 {
			return
		}
		m := globModel{pattern, s, map[[2]int]bool{}}
		if got, want := matchGlob(pattern, s), m.match(0, 0); got != want {
			t.Fatalf("%q matches %q: %v, want %v", pattern, s, got, want)
		}
	})
}

// TestGlobIsQuick: patterns that make a backtracking matcher explode.
func TestGlobIsQuick(t *testing.T) {
	s := bytes.Repeat([]byte("a"), 10_000)
	for _, p := range []string{strings.Repeat("a*", 500) + "b", strings.Repeat("*a", 500) + "b", strings.Repeat("*?", 500) + "b", strings.Repeat("[a]*", 500) + "b"} {
		if matchGlob([]byte(p), s) {
			t.Errorf("%.20s... matches", p)
		}
	}
}

func FuzzLexBound(f *testing.F) {
	for _, b := range []string{"-", "+", "[a", "(a", "[", "(", "", "x", "[\x00", "(\xff"} {
		f.Add([]byte(b), []byte("[b"))
	}
	members := []string{"", "\x00", "a", "a\x00", "aa", "b", "\xff"}
	s := newShelf(f)
	s.do(client.ZAdd(key, make([]float64, len(members)), blobs(members), client.ZAddOptions{}))
	s.begin()
	in := func(b lexBound, m string, low bool) bool {
		c := bytes.Compare([]byte(m), b.member)
		switch {
		case b.infinite != 0:
			return (b.infinite < 0) == low
		case low:
			return c > 0 || c == 0 && !b.open
		}
		return c < 0 || c == 0 && !b.open
	}
	f.Fuzz(func(t *testing.T, low, high []byte) {
		s := shelf{t: t, e: s.e, ht: s.ht, nowMs: shelfNow}
		s.begin()
		defer s.view.Close()
		r := s.run(client.ZRange(key, client.ByLex(low, high)))
		lo, err1 := parseLexBound(low)
		hi, err2 := parseLexBound(high)
		if refused := r.Kind == wire.Kind_KIND_ERROR; refused != (err1 != nil || err2 != nil) {
			t.Fatalf("%q to %q: %v", low, high, ours(r))
		} else if refused {
			return
		}
		want := reply{kind: '*'}
		for _, m := range members {
			if in(lo, m, true) && in(hi, m, false) {
				want.items = append(want.items, reply{kind: '$', text: m}, reply{kind: 'f', text: "0"})
			}
		}
		if got := ours(r).String(); got != want.String() {
			t.Fatalf("%q to %q: %s, want %s", low, high, got, want)
		}
		n := s.run(client.ZCount(key, client.ByLex(low, high))).Int
		if n != int64(len(want.items)/2) {
			t.Fatalf("%q to %q: counted %d", low, high, n)
		}
	})
}

// FuzzLongDouble: what is taken for a number is one, and what is printed is
// taken again, without exponent.
func FuzzLongDouble(f *testing.F) {
	for _, v := range []string{"0", "-0", "1.5", "1e4932", "1e4933", "0x1p-3", "inf", "-inf", "nan", "1e-5000", ".", "1e", "0x", "9999999999999999999999", "1_0", "0b1", "1e+0000000000005"} {
		f.Add([]byte(v), []byte("1"))
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		x, ok := parseLongDouble(a)
		if !ok {
			return
		}
		if !x.IsInf() {
			if _, _, err := big.ParseFloat(strings.TrimLeft(string(a), "+-"), 0, 64, big.ToNearestEven); err != nil {
				t.Fatalf("%q is taken for %v", a, x)
			}
		}
		y, ok := parseLongDouble(b)
		if !ok {
			return
		}
		text, ok := addLongDouble(x, y)
		if !ok {
			return
		}
		if bytes.ContainsAny(text, "eEnN") || len(text) == 0 || bytes.HasSuffix(text, []byte(".")) {
			t.Fatalf("%q + %q is written %q", a, b, text)
		}
		if _, ok := parseLongDouble(text); !ok {
			t.Fatalf("%q + %q is written %q, which is no number", a, b, text)
		}
	})
}
