package docdb

import (
	"bytes"
	"cmp"
	"math"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"pgregory.net/rapid"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
)

// drawBytes likes the bytes that escaping is about.
func drawBytes(t *rapid.T, label string) []byte {
	return rapid.SliceOfN(rapid.SampledFrom([]byte{0, 0, 1, 2, 0x7f, 0xff, 'a'}), 0, 12).Draw(t, label)
}

func TestNumbersKeepTheirOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.Int64().Draw(t, "a"), rapid.Int64().Draw(t, "b")
		ea, eb := AppendInt64(nil, a), AppendInt64(nil, b)
		if bytes.Compare(ea, eb) != cmp.Compare(a, b) {
			t.Fatalf("%d is %x, %d is %x", a, ea, b, eb)
		}
		if back, rest, err := DecodeInt64(append(ea, 7)); err != nil || back != a || len(rest) != 1 {
			t.Fatalf("%d came back as %d, %v", a, back, err)
		}
		f, g := rapid.Float64().Draw(t, "f"), rapid.Float64().Draw(t, "g")
		ef, eg := AppendFloat64(nil, f), AppendFloat64(nil, g)
		if bytes.Compare(ef, eg) != cmp.Compare(f, g) {
			t.Fatalf("%g is %x, %g is %x", f, ef, g, eg)
		}
		if back, rest, err := DecodeFloat64(ef); err != nil || back != f || len(rest) != 0 {
			t.Fatalf("%g came back as %g, %v", f, back, err)
		}
	})
}

func TestNumbersAtTheEdges(t *testing.T) {
	ints := []int64{math.MinInt64, math.MinInt64 + 1, -65537, -65536, -257, -256, -255, -2, -1, 0, 1, 2, 127, 128, 255, 256, 65535, 65536, math.MaxInt64}
	for i := 1; i < len(ints); i++ {
		if bytes.Compare(AppendInt64(nil, ints[i-1]), AppendInt64(nil, ints[i])) >= 0 {
			t.Errorf("%d is not below %d", ints[i-1], ints[i])
		}
	}
	if n := len(AppendInt64(nil, 5)); n != 2 {
		t.Errorf("a small number takes %d bytes", n)
	}
	floats := []float64{math.Inf(-1), -math.MaxFloat64, -1, -math.SmallestNonzeroFloat64, 0, math.SmallestNonzeroFloat64, 1, math.MaxFloat64, math.Inf(1)}
	for i := 1; i < len(floats); i++ {
		if bytes.Compare(AppendFloat64(nil, floats[i-1]), AppendFloat64(nil, floats[i])) >= 0 {
			t.Errorf("%g is not below %g", floats[i-1], floats[i])
		}
	}
	if !bytes.Equal(AppendFloat64(nil, math.Copysign(0, -1)), AppendFloat64(nil, 0)) {
		t.Error("minus zero is not zero")
	}
	for _, p := range [][]byte{nil, {0x81}, {0x81, 0}, {0x89, 1, 1, 1, 1, 1, 1, 1, 1, 1}, {0x88, 0x80, 0, 0, 0, 0, 0, 0, 0}} {
		if v, _, err := DecodeInt64(p); err == nil {
			t.Errorf("%x decoded to %d", p, v)
		}
	}
}

func TestStringsKeepTheirOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawBytes(t, "a"), drawBytes(t, "b")
		x, y := drawBytes(t, "x"), drawBytes(t, "y")
		// Joined with what follows, components still compare one after another.
		ea, eb := append(AppendString(nil, a), x...), append(AppendString(nil, b), y...)
		want := bytes.Compare(a, b)
		if want == 0 {
			want = bytes.Compare(x, y)
		}
		if got := bytes.Compare(ea, eb); got != want {
			t.Fatalf("(%x,%x) and (%x,%x) compare %d, want %d", a, x, b, y, got, want)
		}
		back, rest, err := DecodeString(nil, ea)
		if err != nil || !bytes.Equal(back, a) || !bytes.Equal(rest, x) || !validString(ea[:len(ea)-len(x)]) {
			t.Fatalf("%x came back as %x, rest %x, %v", a, back, rest, err)
		}
	})
}

// docVersion is a version in words.
type docVersion struct {
	table catalog.TableID
	hash  uint64
	key   []byte
	root  bool
	sub   []byte
	t     DocTime
	h     hint
}

func drawVersion(t *rapid.T, label string) docVersion {
	return docVersion{
		table: rapid.SampledFrom([]catalog.TableID{1, 2, 256}).Draw(t, label+" table"),
		hash:  rapid.SampledFrom([]uint64{0, 1, 255, 256, 1 << 50, math.MaxUint64}).Draw(t, label+" hash"),
		key:   drawBytes(t, label+" key"),
		root:  rapid.Bool().Draw(t, label+" root"),
		sub:   slices.Repeat(drawBytes(t, label+" sub"), rapid.SampledFrom([]int{1, 1, 1, 6, 40}).Draw(t, label+" long")),
		t: DocTime{
			HT:      hlc.Timestamp(rapid.Uint64Range(0, math.MaxUint64-1).Draw(t, label+" ht")),
			WriteID: rapid.SampledFrom([]uint32{0, 1, 77, maxWriteID - 1}).Draw(t, label+" id"),
		},
		h: rapid.SampledFrom([]hint{{}, {dead: true}, {expireAtMs: 1}, {expireAtMs: 1<<48 - 1}}).Draw(t, label+" hint"),
	}
}

func (v docVersion) tail() []byte {
	if v.root {
		return rootTail
	}
	return appendTail(nil, v.sub)
}

func (v docVersion) encode() []byte {
	key := appendDocKey(nil, v.table, v.hash, v.key)
	n := len(key)
	return appendVersion(append(key, v.tail()...), n, v.t, v.h)
}

// compare is the order that keys are meant to have: newest version first.
func (v docVersion) compare(w docVersion) int {
	root := func(v docVersion) int {
		if v.root {
			return 0
		}
		return 1
	}
	sub := 0
	if !v.root && !w.root {
		sub = bytes.Compare(v.sub, w.sub)
	}
	return cmp.Or(cmp.Compare(v.table, w.table), cmp.Compare(v.hash, w.hash), bytes.Compare(v.key, w.key),
		cmp.Compare(root(v), root(w)), sub, w.t.Compare(v.t))
}

func TestVersionsKeepTheirOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v, w := drawVersion(t, "v"), drawVersion(t, "w")
		if rapid.Bool().Draw(t, "same document") {
			w.table, w.hash, w.key = v.table, v.hash, v.key
		}
		a, b := v.encode(), w.encode()
		if want := v.compare(w); want != 0 && (compareKeys(a, b) != want || bytes.Compare(a, b) != want) {
			t.Fatalf("%+v\n%x\n%+v\n%x\ncompare %d, want %d", v, a, w, b, bytes.Compare(a, b), want)
		}
		p, err := parseVersion(a)
		if err != nil || p.time != v.t || p.hint != v.h || !bytes.Equal(p.tail, v.tail()) {
			t.Fatalf("%+v came apart as %+v, %v", v, p, err)
		}
		hash, key, err := docKeyParts(p.docKey)
		if err != nil || hash != v.hash || !bytes.Equal(key, v.key) {
			t.Fatalf("document (%d, %x) came apart as (%d, %x), %v", v.hash, v.key, hash, key, err)
		}
		lower, upper := Span{Table: v.table, Start: v.hash}.bounds()
		if !inRange(a, lower, upper) {
			t.Fatalf("%x is not in [%x, %x)", a, lower, upper)
		}
		if v.hash > 0 {
			if lower, upper := (Span{Table: v.table, End: v.hash}).bounds(); inRange(a, lower, upper) {
				t.Fatalf("%x is in [%x, %x)", a, lower, upper)
			}
		}
		checkSeparator(t, a, b)
	})
}

func checkSeparator(t *rapid.T, a, b []byte) {
	switch compareKeys(a, b) {
	case 0:
		return
	case 1:
		a, b = b, a
	}
	s := comparer.Separator(nil, a, b)
	if compareKeys(a, s) > 0 || compareKeys(s, b) >= 0 {
		t.Fatalf("separator %x is not in [%x, %x)", s, a, b)
	}
	if !bytes.Equal(s, a) && split(s) != len(s) {
		t.Fatalf("separator %x of %x and %x is no prefix", s, a, b)
	}
	docKey := a[:split(a)]
	next := comparer.ImmediateSuccessor(nil, docKey)
	if split(next) != len(next) || compareKeys(a, next) >= 0 {
		t.Fatalf("successor %x of %x", next, docKey)
	}
	if other := b[:split(b)]; !bytes.Equal(other, docKey) && compareKeys(next, other) > 0 {
		t.Fatalf("successor %x of %x is beyond %x", next, docKey, other)
	}
}

// TestComparerHoldsPebblesContract runs the store's own check.
func TestComparerHoldsPebblesContract(t *testing.T) {
	prefixes := [][]byte{
		appendDocKey(nil, 1, 0, nil),
		appendDocKey(nil, 1, 0, []byte("a")),
		appendDocKey(nil, 1, 0, []byte("a\x00b")),
		appendDocKey(nil, 1, 1<<63, []byte("ab")),
		bound(1, 77), bound(2, 0),
		groupKey(nil, 5, []byte("applied")),
		groupKey(nil, 6, nil),
	}
	var suffixes [][]byte
	for _, tail := range [][]byte{rootTail, appendTail(nil, nil), appendTail(nil, []byte("f\x00")), appendTail(nil, bytes.Repeat([]byte("x"), 300)), scanEnd} {
		for _, at := range []DocTime{{}, {HT: 1 << 60, WriteID: 3}, endOfTime} {
			suffixes = append(suffixes, appendVersion(slices.Clone(tail), 0, at, hint{}), appendVersion(slices.Clone(tail), 0, at, hint{expireAtMs: 9}))
		}
	}
	if err := pebble.CheckComparer(comparer, prefixes, suffixes); err != nil {
		t.Fatal(err)
	}
}

func FuzzParseVersion(f *testing.F) {
	f.Add(docVersion{table: 1, key: []byte("k"), root: true, t: DocTime{5, 6}}.encode())
	f.Add(docVersion{table: 1, key: []byte("k"), sub: bytes.Repeat([]byte("s"), 90), h: hint{expireAtMs: 5}}.encode())
	f.Add([]byte{0x3f, 0, 0, 0, 1, 0x3f})
	f.Fuzz(func(t *testing.T, key []byte) {
		n := split(key)
		if n < 0 || n > len(key) {
			t.Fatalf("split(%x) = %d", key, n)
		}
		v, err := parseVersion(key)
		if err == nil && len(v.docKey)+len(v.tail)+len(v.stamp) != len(key) {
			t.Fatalf("%x came apart as %+v", key, v)
		}
		_, _, _ = docKeyParts(key)
		_, _ = subOf(nil, key)
		_, _, _ = DecodeInt64(key)
	})
}
