package journal

import (
	"encoding/binary"
	"hash/crc32"
	"slices"
	"testing"
)

func TestSumUint64IsTheChecksumOfItsBytes(t *testing.T) {
	for _, v := range []uint64{0, 1, 0x0123456789abcdef, ^uint64(0)} {
		b := binary.LittleEndian.AppendUint64(nil, v)
		if got, want := sumUint64(77, v), crc32.Update(77, castagnoli, b); got != want {
			t.Errorf("%x: %08x, not %08x", v, got, want)
		}
	}
}

// sampleSegment is a sound segment of two groups.
func sampleSegment() []byte {
	l := newLedger(testIdentity(1))
	l.begin(&segment{gen: 3, size: 8 << 10})
	data := make([]byte, 8<<10)
	h := segmentHeader{generation: 3, id: testIdentity(1), sizeOnDisk: 8 << 10}
	h.encode(data)
	for i := range uint64(2) {
		recs := []Record{entry(1, i+1, "payload"), entry(2, i+1, ""), {Stream: 1, Kind: KindState, Payload: []byte("s")}}
		at := l.offset
		buf, extent := l.encode(nil, []request{{recs: recs, bytes: 8}}, nil, nil)
		copy(data[at:], buf)
		l.committed(extent)
	}
	return data
}

// TestEveryPartOfTheIdentityCounts reads a sound segment as somebody, something
// or somewhere else.
func TestEveryPartOfTheIdentityCounts(t *testing.T) {
	data := sampleSegment()
	count := func(data []byte, id Identity, gen uint64) (groups, records int) {
		for _, g := range scan(data, seedOf(id), gen).groups {
			groups++
			for _, r := range g.records {
				if !r.damaged {
					records++
				}
			}
		}
		return groups, records
	}
	id := testIdentity(9) // a reader's incarnation is its own
	if g, r := count(data, id, 3); g != 2 || r != 6 {
		t.Fatalf("%d groups, %d records", g, r)
	}
	cluster, node := id, id
	cluster.Cluster[15]++
	node.Node++
	for what, n := range map[string]int{
		"cluster":    first(count(data, cluster, 3)),
		"node":       first(count(data, node, 3)),
		"generation": first(count(data, id, 4)),
		"offset":     first(count(append(data[:sector:sector], append(make([]byte, sector), data[sector:]...)...), id, 3)),
	} {
		if n != 0 {
			t.Errorf("with another %s %d groups are taken for sound", what, n)
		}
	}
	// A record that stands elsewhere in its group, everything else equal.
	rs := recordSeed(seedOf(id), 1, 3)
	var b [64]byte
	n := encodeRecord(b[:], rs, 1000, uint8(KindEntry), 1, 1, 1, []byte("x"))
	for _, c := range []struct {
		seed   uint32
		offset uint64
		want   bool
	}{{rs, 1000, true}, {rs, 1001, false}, {recordSeed(seedOf(id), 2, 3), 1000, false}, {recordSeed(seedOf(id), 1, 4), 1000, false}} {
		if _, _, ok := decodeRecord(b[:n], c.seed, c.offset); ok != c.want {
			t.Errorf("%+v: sound %v", c, ok)
		}
	}
}

func first(a, _ int) int { return a }

// FuzzScan gives the decoder any bytes as a segment: it must not panic, nor give
// records that reach outside, nor take what does not verify.
func FuzzScan(f *testing.F) {
	sound := sampleSegment()
	f.Add(sound, uint32(0), uint32(0))
	f.Add(sound, uint32(sector+16), uint32(0xffffffff)) // count of the roll
	f.Add(sound, uint32(sector+24), uint32(0xffffffff)) // length of the group
	f.Add(sound, uint32(sector+groupHeaderBytes+8), uint32(0x80000000))
	f.Add(sound[:sector+100], uint32(0), uint32(0))
	f.Add([]byte{}, uint32(0), uint32(0))
	f.Fuzz(func(t *testing.T, data []byte, at, xor uint32) {
		if len(data) > 1<<16 {
			return
		}
		data = slices.Clone(data)
		if n := uint64(len(data)); n >= 4 && uint64(at) <= n-4 {
			binary.LittleEndian.PutUint32(data[at:], binary.LittleEndian.Uint32(data[at:])^xor)
			repair(data)
		}
		decodeSegmentHeader(data)
		s := scan(data, seedOf(testIdentity(1)), 3)
		end := int64(sector)
		for i := range s.groups {
			g := &s.groups[i]
			if int64(g.offset) < end || g.end() > padded(int64(len(data))) {
				t.Fatalf("group at %d..%d after %d in %d bytes", g.offset, g.end(), end, len(data))
			}
			end = g.end()
		}
		v := classify([]scanned{s})
		l := newLedger(testIdentity(1))
		l.adopt(v, []scanned{s})
	})
}

// repair makes the first group's checksum right again, so that the fuzzer gets
// behind it.
func repair(data []byte) {
	const at = sector
	if len(data) < at+groupHeaderBytes {
		return
	}
	b := data[at:]
	head := uint64(groupHeaderBytes) + uint64(binary.LittleEndian.Uint32(b[16:]))*rollEntryBytes
	if head <= uint64(len(b)) {
		binary.LittleEndian.PutUint32(b[4:], crc32.Update(seedOf(testIdentity(1)), castagnoli, b[8:head]))
	}
}
