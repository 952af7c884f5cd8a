package journal

import (
	"errors"
	"strings"
	"testing"

	"github.com/braiddb/braid/internal/sim/simfs"
)

// TestNothingFollowsARefusedEntry (J10): a large entry is refused for want of a
// segment, and there is room for the small ones behind it. The journal has let go of
// all before it, so that after a power failure the hole could not even be seen.
func TestNothingFollowsARefusedEntry(t *testing.T) {
	large := strings.Repeat("l", 100<<10)
	for name, heal := range map[string][]Record{
		"itself, and what follows": {entry(1, 2, "y"), entry(1, 3, "z")},
		"a truncation below it":    {{Stream: 1, Kind: KindTruncate, Pos: 1}, entry(1, 1, "w")},
		"a start":                  {{Stream: 1, Kind: KindStart, Pos: 40}, entry(1, 41, "s")},
		"a drop":                   {{Stream: 1, Kind: KindDrop}, entry(1, 1, "d")},
	} {
		t.Run(name, func(t *testing.T) {
			fs := simfs.New(simfs.Options{})
			j, _ := openSim(t, fs, &manualClock{}, 1, Options{SegmentBytes: 64 << 10})
			j.awaitSpare(t)
			appendWait(t, j, entry(1, 1, "x"))
			j.SetLowWater(1, 1)
			fs.SetCapacity(fs.Used())
			for _, r := range []Record{entry(1, 2, large), entry(1, 3, "z"), entry(1, 4, "z"),
				{Stream: 1, Kind: KindTruncate, Pos: 3}, entry(1, 3, "z"), entry(1, 2, large), entry(1, 3, "z")} {
				if err := appendErr(j, r); r.Kind == KindEntry && !errors.Is(err, ErrNoSpace) {
					t.Fatalf("entry %d behind a refused one: %v", r.Pos, err)
				}
			}
			if err := appendErr(j, entry(2, 1, "another stream's"), Record{Stream: 1, Kind: KindState}); err != nil {
				t.Errorf("what does not follow it: %v", err)
			}
			if n := j.Metrics().Refused; n != 6 {
				t.Errorf("%d appends count as refused", n)
			}
			for _, r := range heal {
				appendWait(t, j, r)
			}
			last := heal[len(heal)-1]
			if name != "itself, and what follows" {
				appendWait(t, j, entry(1, last.Pos+1, "goes on"))
			} else if err := appendErr(j, entry(1, 5, "z")); !errors.Is(err, ErrNoSpace) {
				t.Errorf("entry 5 before 4 is written again: %v", err)
			} else {
				appendWait(t, j, entry(1, 4, "z"), entry(1, 5, "z"))
			}
			if n := len(j.books.refusals.of); n != 0 {
				t.Errorf("%d streams are still barred", n)
			}
			fs = fs.Crash(simfs.Crash{})
			_ = j.Close()
			_, r := openSim(t, fs, &manualClock{}, 2, Options{SegmentBytes: 64 << 10})
			for i, got := range r.Streams[1].Records {
				if want := r.Streams[1].Records[0].Pos + uint64(i); got.Pos != want {
					t.Errorf("entry %d stands where %d belongs", got.Pos, want)
				}
			}
		})
	}
}

// TestRefusedTruncationsBarTheirStream (J10): what a refused Append was to make void
// is still there, and what was to follow it must not come behind that.
func TestRefusedTruncationsBarTheirStream(t *testing.T) {
	truncate := func(pos uint64) Record { return Record{Stream: 1, Kind: KindTruncate, Pos: pos} }
	start := Record{Stream: 1, Kind: KindStart, Pos: 50}
	drop := Record{Stream: 1, Kind: KindDrop}
	for _, c := range []struct {
		refused, next []Record
		may           bool
	}{
		{[]Record{truncate(7), entry(1, 7, "")}, []Record{entry(1, 7, "")}, false},
		{[]Record{truncate(7), entry(1, 7, "")}, []Record{entry(1, 8, "")}, false},
		{[]Record{truncate(7), entry(1, 7, "")}, []Record{truncate(8), entry(1, 8, "")}, false},
		{[]Record{truncate(7), entry(1, 7, "")}, []Record{truncate(7), entry(1, 7, "")}, true},
		{[]Record{start, entry(1, 51, "")}, []Record{entry(1, 51, "")}, false},
		{[]Record{start, entry(1, 51, "")}, []Record{truncate(51), entry(1, 51, "")}, false},
		{[]Record{start, entry(1, 51, "")}, []Record{start, entry(1, 51, "")}, true},
		{[]Record{drop}, []Record{entry(1, 1, "")}, false},
		{[]Record{drop}, []Record{{Stream: 1, Kind: KindState}}, true},
		{[]Record{entry(1, 9, "")}, []Record{entry(1, 8, "")}, false},
		{[]Record{entry(1, 9, ""), truncate(4)}, []Record{entry(1, 9, ""), entry(1, 10, "")}, true},
		{[]Record{{Stream: 1, Kind: KindLogFirst, Pos: 3}}, []Record{{Stream: 1, Kind: KindLogFirst, Pos: 4}}, true},
	} {
		var b Refusals
		b.Refused(c.refused)
		if err := b.Admit(c.next); (err == nil) != c.may || err != nil && !errors.Is(err, ErrNoSpace) {
			t.Errorf("behind refused %v: %v ends with %v", c.refused, c.next, err)
		}
	}
}

// TestAnAppendIsJudgedAsOne (J1, J10): one stream's bar is not lifted by an Append that
// another stream's has refused, nor by one for which there is no room after all.
func TestAnAppendIsJudgedAsOne(t *testing.T) {
	var b Refusals
	b.Refused([]Record{entry(1, 5, ""), entry(2, 9, "")})
	if b.Admit([]Record{entry(1, 5, ""), entry(2, 10, "")}) == nil || b.Admit([]Record{entry(1, 6, "")}) == nil {
		t.Error("half of an Append was taken")
	}
	group := []request{{recs: []Record{entry(1, 5, ""), entry(1, 6, "")}}, {recs: []Record{entry(2, 9, ""), entry(2, 10, "")}}}
	if n := b.judge(group); n != 0 || len(b.of) != 0 {
		t.Errorf("%d refused, %v barred", n, b.of)
	}
	b.rollback(0)
	refuse(group[:1], ErrNoSpace, false)
	if n := b.judge(group); n != 0 || len(b.of) != 1 {
		t.Errorf("%d refused, %v barred", n, b.of)
	}
}
