package journal

import (
	"strings"
	"testing"
)

// put encodes and commits one group.
func (l *ledger) put(recs ...Record) {
	bytes := int64(0)
	for _, r := range recs {
		bytes += int64(len(r.Payload))
	}
	_, extent := l.encode(nil, []request{{recs: recs, bytes: bytes}}, l.laggards(1<<20), nil)
	l.committed(extent)
}

// TestASegmentIsFreeOnceAVouchedGroupReleasedIt: the group that releases it
// could be damaged, and the one before it still says that it is in use.
func TestASegmentIsFreeOnceAVouchedGroupReleasedIt(t *testing.T) {
	l := newLedger(testIdentity(1))
	l.begin(&segment{gen: 1, size: 1 << 20})
	l.put(entry(1, 1, "x"), Record{Stream: 2, Kind: KindState, Payload: []byte("vote")})
	l.begin(&segment{gen: 2, size: 1 << 20})
	l.put(entry(1, 2, "y"))
	if l.releasable() {
		t.Fatal("released below an entry that is needed")
	}
	if !l.lowWater(1, 1) {
		t.Fatal("the low-water mark did not release it")
	}
	l.put(entry(1, 3, "z"))
	if len(l.free) != 0 || len(l.leaving) != 1 || l.rewrites != 1 {
		t.Fatalf("free %d, leaving %d, rewrites %d after the releasing group", len(l.free), len(l.leaving), l.rewrites)
	}
	l.put()
	if len(l.free) != 1 || l.free[0].gen != 1 {
		t.Fatalf("free %d after the group that vouches for it", len(l.free))
	}
}

// TestVoidEntriesDoNotPin: what a truncation, start or drop makes void holds no
// segment, though the stream never gets that far again.
func TestVoidEntriesDoNotPin(t *testing.T) {
	for what, r := range map[string]Record{
		"truncate": {Stream: 1, Kind: KindTruncate, Pos: 2},
		"start":    {Stream: 1, Kind: KindStart, Pos: 50},
		"drop":     {Stream: 1, Kind: KindDrop},
	} {
		l := newLedger(testIdentity(1))
		l.begin(&segment{gen: 1, size: 1 << 20})
		l.put(entry(1, 1, "x"), entry(1, 2, "y"), entry(1, 3, "z"))
		l.begin(&segment{gen: 2, size: 1 << 20})
		l.lowWater(1, 1)
		if l.releasable() {
			t.Fatalf("%s: released too early", what)
		}
		l.put(r)
		if len(l.leaving) != 1 {
			t.Errorf("%s: the segment is still held", what)
		}
	}
}

// TestATruncationLowersTheMark: positions are used again after it, and their new
// entries are needed though older ones at the same positions were not.
func TestATruncationLowersTheMark(t *testing.T) {
	l := newLedger(testIdentity(1))
	l.begin(&segment{gen: 1, size: 1 << 20})
	l.put(entry(1, 1, "x"), entry(1, 2, "y"))
	l.lowWater(1, 2)
	l.put(Record{Stream: 1, Kind: KindTruncate, Pos: 1}, entry(1, 1, "new"))
	l.begin(&segment{gen: 2, size: 1 << 20})
	l.put(entry(2, 1, strings.Repeat("z", 100)))
	if len(l.leaving) > 0 || l.releasable() {
		t.Error("the new entry at position 1 was given up")
	}
}

// TestADropLowersTheMark: a stream that begins anew under the same id has its
// positions from the first on, and needs them.
func TestADropLowersTheMark(t *testing.T) {
	l := newLedger(testIdentity(1))
	l.begin(&segment{gen: 1, size: 1 << 20})
	l.put(entry(1, 1, "x"), entry(1, 2, "y"))
	l.lowWater(1, 2)
	l.put(Record{Stream: 1, Kind: KindDrop})
	l.put(entry(1, 1, "another's"))
	l.begin(&segment{gen: 2, size: 1 << 20})
	l.put(entry(2, 1, strings.Repeat("z", 100)))
	if len(l.leaving) > 0 || l.releasable() {
		t.Error("the new stream's entry was given up")
	}
}
