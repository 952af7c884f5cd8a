package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// cut reads all records of a stream, byte by byte and in one piece.
func cut(t testing.TB, in []byte, f framing, most int) (records [][]byte, err error) {
	t.Helper()
	read := func(from io.Reader) (list [][]byte, err error) {
		r, err := newFrameReader(from, f, most)
		if err != nil {
			t.Fatal(err)
		}
		for {
			record, err := r.next()
			if errors.Is(err, io.EOF) {
				return list, nil
			}
			if err != nil {
				return list, err
			}
			list = append(list, bytes.Clone(record))
		}
	}
	records, err = read(bytes.NewReader(in))
	slowly, slow := read(iotest.OneByteReader(bytes.NewReader(in)))
	if !slices.EqualFunc(records, slowly, bytes.Equal) || fmt.Sprint(err) != fmt.Sprint(slow) {
		t.Fatalf("%q is %q (%v) in one piece and %q (%v) byte by byte", in, records, err, slowly, slow)
	}
	return records, err
}

func TestRecordsOfAStream(t *testing.T) {
	for _, c := range []struct {
		in        string
		delimiter string
		prefixed  bool
		most      int
		want      string // records, joined by |
		err       string
	}{
		{"a\nb\n", `\n`, false, 9, "a|b", ""},
		{"a\nb", `\n`, false, 9, "a|b", ""},
		{"\n\nb\n", `\n`, false, 9, "||b", ""},
		{"", `\n`, false, 9, "", ""},
		{"a\r\nb\rc\r\n", `\r\n`, false, 9, "a|b\rc", ""},
		{"a\x00b", `\0`, false, 9, "a|b", ""},
		{"a\xffb", `\xff`, false, 9, "a|b", ""},
		{"aébéc", "é", false, 9, "a|b|c", ""},
		{"abc--d-e--", "--", false, 9, "abc|d-e", ""},
		{"a\nb\n", "", false, 9, "a\nb\n", ""},
		{"12345\n", `\n`, false, 5, "12345", ""},
		{"12345\n123456\n", `\n`, false, 5, "12345", "record 2 has more than the 5 bytes"},
		{"123456", `\n`, false, 5, "", "record 1 has more than the 5 bytes"},
		{"123456", "", false, 5, "", "record 1 has more than the 5 bytes"},
		{"\x00\x00\x00\x02a\n\x00\x00\x00\x00\x00\x00\x00\x01b", "", true, 9, "a\n||b", ""},
		{"\x00\x00\x00\x02a", "", true, 9, "", "record 1: the input ends before its 2 bytes do"},
		{"\x00\x00\x00\x01a\x00\x00", "", true, 9, "a", "record 2: the input ends within a length"},
		{"\xff\xff\xff\xff", "", true, 9, "", "record 1 has more than the 9 bytes"},
	} {
		records, err := cut(t, []byte(c.in), framing{c.delimiter, c.prefixed}, c.most)
		got := string(bytes.Join(records, []byte("|")))
		if got != c.want || (err == nil) != (c.err == "") || !strings.Contains(fmt.Sprint(err), c.err) && c.err != "" {
			t.Errorf("%q: %q, %v, want %q, %q", c.in, got, err, c.want, c.err)
		}
	}
	for _, bad := range []string{`\`, `\q`, `\x1`, `a\`} {
		if _, err := (framing{Delimiter: bad}).delimiter(); err == nil {
			t.Errorf("delimiter %q is understood", bad)
		}
	}
}

// FuzzFrames: what is written is read again, whatever the bytes and the delimiter.
func FuzzFrames(f *testing.F) {
	f.Add([]byte("a\nb"), `\n`, false)
	f.Add([]byte("\x00\x00\x00\x01a"), "", true)
	f.Add([]byte("a--b-"), "--", false)
	f.Add([]byte("000"), "00", false)
	f.Fuzz(func(t *testing.T, in []byte, delimiter string, prefixed bool) {
		fr := framing{delimiter, prefixed}
		d, err := fr.delimiter()
		if err != nil || len(in) > 4096 {
			return
		}
		records, err := cut(t, in, fr, 1<<16)
		if err != nil {
			return
		}
		var out bytes.Buffer
		w, err := newFrameWriter(&out, fr)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			if err := w.write(r); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.out.Flush(); err != nil {
			t.Fatal(err)
		}
		// Delimiters are taken from the left: "000" ends behind one "00", not with one.
		parts := bytes.Split(in, d)
		switch {
		case prefixed, len(d) == 0, len(parts[len(parts)-1]) == 0:
			if len(records) > 0 && !bytes.Equal(out.Bytes(), in) {
				t.Fatalf("%q came out as %q", in, out.Bytes())
			}
		default: // the input ended without a delimiter
			if len(records) > 0 && !bytes.Equal(out.Bytes(), append(bytes.Clone(in), d...)) {
				t.Fatalf("%q came out as %q", in, out.Bytes())
			}
		}
	})
}

func TestChunksLoseNothing(t *testing.T) {
	var in bytes.Buffer
	var want []string
	for i := range 20_000 {
		line := strings.Repeat("x", i%97) + fmt.Sprint(i)
		want = append(want, line)
		in.WriteString(line + "\n")
	}
	r, err := newFrameReader(&in, framing{Delimiter: `\n`}, 1000)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	c, chunks := new(chunk), 0
	for err == nil {
		err = c.fill(r)
		for record := range c.records() {
			got = append(got, string(record))
		}
		chunks++
	}
	if !errors.Is(err, io.EOF) || !slices.Equal(got, want) || chunks < 5 || chunks > 1000 {
		t.Errorf("%d of %d records in %d chunks, %v", len(got), len(want), chunks, err)
	}
}

func TestTimesOfTheCommandLine(t *testing.T) {
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	for s, want := range map[string]time.Time{
		"15m": now.Add(-15 * time.Minute), "0s": now, "2026-01-31T12:00:00Z": time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC),
		"2026-01-31T12:00:00.5+01:00": time.Date(2026, 1, 31, 11, 0, 0, 500_000_000, time.UTC),
		"2026-01-31":                  time.Date(2026, 1, 31, 0, 0, 0, 0, time.Local),
		"2026-01-31 12:30:00":         time.Date(2026, 1, 31, 12, 30, 0, 0, time.Local),
	} {
		if got, ok := parseTime(s, now); !ok || !got.Equal(want) {
			t.Errorf("%s is %v, %v", s, got, ok)
		}
	}
	for _, s := range []string{"", "-15m", "yesterday", "e5n8", "2026-13-01"} {
		if got, ok := parseTime(s, now); ok {
			t.Errorf("%q is %v", s, got)
		}
	}
}
