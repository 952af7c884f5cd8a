package docdb

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"
)

func drawRoot(t *rapid.T) Root {
	return Root{
		Kind:       RootKind(rapid.IntRange(1, 7).Draw(t, "kind")),
		Created:    rapid.SampledFrom([]DocTime{{}, {HT: 5, WriteID: 6}, {HT: pending, WriteID: 3}}).Draw(t, "created"),
		Count:      rapid.Int64().Draw(t, "count"),
		ExpireAtMs: rapid.Int64Range(0, 1<<50).Draw(t, "expiry"),
		Head:       rapid.Int64().Draw(t, "head"),
		Tail:       rapid.Int64().Draw(t, "tail"),
		Value:      drawBytes(t, "value"),
	}
}

func TestRootsComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := drawRoot(t)
		own := DocTime{HT: 1000, WriteID: 10}
		back := rapid.Uint32Range(0, 10).Draw(t, "back")
		p := appendRoot(nil, &r, back)
		want := r
		want.Version = own.HT
		switch {
		case r.Created == DocTime{}:
			want.Created = own
		case r.Created.HT == pending:
			want.Created = DocTime{HT: own.HT, WriteID: own.WriteID - back}
		}
		got, err := decodeRoot(p, own)
		if err != nil || !bytes.Equal(got.Value, want.Value) {
			t.Fatalf("%+v came back as %+v, %v", r, got, err)
		}
		got.Value, want.Value = nil, nil
		if got.Created != want.Created || got.Count != want.Count || got.ExpireAtMs != want.ExpireAtMs || got.Head != want.Head || got.Tail != want.Tail {
			t.Fatalf("%+v came back as %+v", want, got)
		}
		if h := hintOf(rootTail, p); h != (hint{expireAtMs: r.ExpireAtMs}) {
			t.Fatalf("%+v hints %+v", r, h)
		}
	})
}

// someBatch has every record that there is.
func someBatch() []byte {
	var b WriteBatch
	x := NewExec(nil, &b, 1, 5)
	b.Reset()
	x.Doc(1, []byte("gone")).PutRoot(Root{Kind: RootString})
	x.Truncate(0, 1<<40)
	d := x.Doc(7, []byte("k\x00"))
	d.PutRoot(Root{Kind: RootHash, Count: 1, ExpireAtMs: 99})
	d.PutSub([]byte("f\x00"), []byte("v"))
	d.PutSubTTL([]byte("g"), []byte("w"), 77)
	d.PutSub([]byte("f\x00"), []byte("again"))
	d.DeleteSub([]byte("h"))
	b.collect(d.inBatch(), rootTail, stampOf(rootTail))
	e := x.Doc(8, nil)
	e.Delete()
	b.collect(e.inBatch(), appendTail(nil, []byte("g")), stampOf(appendTail(nil, []byte("g"))))
	return b.Encode(nil)
}

// stampOf ends the key of a version of a place.
func stampOf(tail []byte) []byte {
	return appendVersion(slices.Clone(tail), 0, DocTime{HT: 3}, hint{expireAtMs: 4})[len(tail):]
}

func TestBatchesAreChecked(t *testing.T) {
	whole := someBatch()
	kinds := map[byte]int{}
	d, err := decodeBatch(whole)
	for err == nil {
		var r batchRecord
		var ok bool
		if r, ok, err = d.next(); !ok {
			break
		}
		kinds[r.kind]++
	}
	if err != nil || kinds[recDoc] < 2 || kinds[recSet] != 5 || kinds[recGap] != 2 || kinds[recTruncate] != 1 || kinds[recCollect] != 2 {
		t.Fatalf("records %v, %v", kinds, err)
	}
	for n := range whole { // cut anywhere: refused, or a batch with fewer records
		if err := readBatch(whole[:n]); err != nil && !errors.Is(err, ErrEncoding) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
	var format *FormatError
	if _, err := decodeBatch([]byte{batchVersion + 1}); !errors.As(err, &format) {
		t.Fatalf("a batch of another version: %v", err)
	}
	for _, bad := range [][]byte{nil, {batchVersion, 9}, {batchVersion, recSet, 1, tailRoot, 1, 0}, {batchVersion, recDoc, 4, 0, 0, 0, 0}, {batchVersion, recTruncate},
		slices.Concat([]byte{batchVersion, recDoc, 10}, make([]byte, 10), []byte{recCollect, 1, tailRoot, 13}, stampOf(appendTail(nil, []byte("no root")))[:13])} {
		if err := readBatch(bad); err == nil {
			t.Errorf("%x was accepted", bad)
		}
	}
}

func readBatch(p []byte) error {
	d, err := decodeBatch(p)
	for err == nil {
		var ok bool
		if _, ok, err = d.next(); !ok {
			return err
		}
	}
	return err
}

// FuzzBatch: Apply takes what the decoder takes, and makes of it keys and values
// that every reader can take apart.
func FuzzBatch(f *testing.F) {
	f.Add(someBatch())
	f.Add([]byte{batchVersion, recGap, recTruncate, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	e, err := OpenEngine(vfs.NewMem(), "fuzz", EngineOptions{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = e.Close() })
	f.Fuzz(func(t *testing.T, p []byte) {
		valid := readBatch(p)
		a := e.NewBatch()
		defer a.Close()
		if _, err := a.Apply(1, p, 5, 0); (err == nil) != (valid == nil) {
			t.Fatalf("the decoder says %v, apply %v", valid, err)
		}
		for r := a.b.Reader(); ; {
			kind, key, value, ok, err := r.Next()
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				return
			}
			if kind == pebble.InternalKeyKindRangeDelete {
				continue
			}
			v, err := parseVersion(key)
			if err != nil {
				t.Fatalf("key %x: %v", key, err)
			}
			if _, _, err := docKeyParts(v.docKey); err != nil {
				t.Fatalf("key %x: %v", key, err)
			}
			if kind == pebble.InternalKeyKindSet && !validValue(v.tail, value) {
				t.Fatalf("value %x", value)
			}
		}
	})
}

func FuzzValues(f *testing.F) {
	f.Add(appendRoot(nil, &Root{Kind: RootHash, Count: 5, ExpireAtMs: 6, Head: -1, Tail: 4, Value: []byte("v")}, 0))
	f.Add(appendChild(nil, []byte("v"), 9))
	f.Add(appendRow(nil, 3, []cell{{1, []byte{0x13, 'a'}}, {9, []byte{0x10, 1}}}))
	f.Fuzz(func(t *testing.T, p []byte) {
		if r, err := decodeRoot(p, DocTime{HT: 7, WriteID: 9}); err == nil && r.Kind != RootNone {
			if h := hintOf(rootTail, p); h.expireAtMs != r.ExpireAtMs || h.dead {
				t.Fatalf("%+v hints %+v", r, h)
			}
		}
		if _, expireAtMs, dead, err := decodeChild(p); err == nil {
			if h := hintOf(appendTail(nil, nil), p); h.expireAtMs != expireAtMs || h.dead != dead {
				t.Fatalf("child %x hints %+v", p, h)
			}
		}
		if version, cells, err := decodeRow(p); err == nil {
			if v, again, err := decodeRow(appendRow(nil, version, cells)); err != nil || v != version || len(again) != len(cells) {
				t.Fatalf("row %x came back as %v, %v", p, again, err)
			}
		}
	})
}

// FuzzIngest: no stream makes the engine panic, or take what is not the tablet's.
func FuzzIngest(f *testing.F) {
	e, err := OpenEngine(vfs.NewMem(), "fuzz", EngineOptions{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = e.Close() })
	span := Span{Table: 1, Start: 5, End: 50}
	a := e.NewBatch()
	var b WriteBatch
	NewExec(nil, &b, 1, 0).Doc(7, []byte("k")).PutRoot(Root{Kind: RootString, Value: []byte("v")})
	if _, err := a.Apply(1, b.Encode(nil), 5, 0); err != nil {
		f.Fatal(err)
	}
	if err := errors.Join(a.PutGroupState(9, []byte("applied"), []byte("5")), a.Commit()); err != nil {
		f.Fatal(err)
	}
	s, err := e.Export(span, 9)
	if err != nil {
		f.Fatal(err)
	}
	var stream bytes.Buffer
	if _, err := stream.ReadFrom(s); err != nil {
		f.Fatal(err)
	}
	_ = s.Close()
	f.Add(stream.Bytes())
	f.Add(slices.Concat(stream.Bytes()[:streamHeader], []byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}))
	f.Fuzz(func(t *testing.T, p []byte) {
		in, err := e.newIngest(span, 9)
		if err != nil {
			t.Fatal(err)
		}
		defer in.clean()
		var format *FormatError
		if err := in.stream(bytes.NewReader(p)); err != nil && !errors.Is(err, ErrStream) && !errors.As(err, &format) {
			t.Fatal(err)
		}
	})
}

// TestBytesOnDisk pins what docs/formats/docdb.md says.
func TestBytesOnDisk(t *testing.T) {
	at := DocTime{HT: 0x0102030405060708, WriteID: 9}
	root := Root{Kind: RootHash, Created: DocTime{HT: 7, WriteID: 8}, ExpireAtMs: 300, Count: -2, Value: []byte("v")}
	for name, c := range map[string]struct {
		got  []byte
		want string
	}{
		"root key":        {docVersion{table: 1, hash: 2, key: []byte("k\x00"), root: true, t: at}.encode(), "40 00000001 0000000000000002 6b0001 0000 01 fefdfcfbfaf9f8f7 fffffff6 0e"},
		"child key":       {docVersion{table: 1, hash: 2, key: []byte("k"), sub: []byte("f"), t: at, h: hint{dead: true}}.encode(), "40 00000001 0000000000000002 6b 0000 02 66 0000 fefdfcfbfaf9f8f7 fffffff6 51"},
		"expiring child":  {docVersion{table: 1, hash: 2, sub: []byte("f"), t: at, h: hint{expireAtMs: 300}}.encode(), "40 00000001 0000000000000002 0000 02 66 0000 fefdfcfbfaf9f8f7 fffffff6 00000000012c 97"},
		"group key":       {groupKey(nil, 5, []byte("a")), "20 0000000000000005 61 00"},
		"root":            {appendRoot(nil, &root, 0), "02 0d 0000000000000007 00000008 ac02 03 76"},
		"root, back":      {appendRoot(nil, &Root{Kind: RootString, Created: DocTime{HT: pending}}, 3), "01 02 03"},
		"child":           {appendChild(nil, []byte("v"), 0), "40 76"},
		"child, expiring": {appendChild(nil, []byte("v"), 300), "41 ac02 76"},
		"row":             {appendRow(nil, 3, []cell{{7, []byte{0x13, 'a'}}}), "03 07 02 13 61"},
	} {
		if got := fmt.Sprintf("%x", c.got); got != strings.ReplaceAll(c.want, " ", "") {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	var b WriteBatch
	b.Reset()
	d := NewExec(nil, &b, 1, 0).Doc(2, []byte("k"))
	d.PutSub([]byte("f"), []byte("old"))
	d.PutSub([]byte("f"), []byte("v"))
	d.PutRoot(Root{Kind: RootHash, Count: 1})
	want := "01 01 0b 0000000000000002 6b0000 03 02 04 02660000 02 40 76 02 01 01 04 02 0a 02 02"
	if got := fmt.Sprintf("%x", b.Encode(nil)); got != strings.ReplaceAll(want, " ", "") {
		t.Errorf("batch: %s, want %s", got, want)
	}
}
