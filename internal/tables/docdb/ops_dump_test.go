package docdb

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/wire"
)

// sealDump closes a dump with its checksum.
func sealDump(body []byte) []byte {
	return binary.BigEndian.AppendUint64(body, xxhash.Sum64(body))
}

// dumpOf is a dump of a hash or set with one entry.
func dumpOf(kind RootKind, blobs ...string) []byte {
	body := []byte{dumpVersion, byte(kind), 1}
	for _, b := range blobs {
		body = appendBlob(body, []byte(b))
	}
	return sealDump(body)
}

// oneOfEach makes a document of every kind, and reads it.
func oneOfEach(s *shelf) map[string]*wire.Op {
	s.do(client.Set([]byte("string"), []byte("v\x00"), client.SetOptions{}))
	s.do(client.Set([]byte("empty"), nil, client.SetOptions{}))
	s.do(client.HSet([]byte("hash"), blobs([]string{"a", "1", "", "2", "b\x00", ""})...))
	s.do(client.SAdd([]byte("set"), blobs([]string{"x", "", "\x00", "long member"})...))
	s.do(client.ZAdd([]byte("zset"), []float64{1, math.Inf(-1), math.Inf(1), -2.5}, blobs([]string{"a", "b", "c", ""}), client.ZAddOptions{}))
	s.do(client.RPush([]byte("list"), blobs([]string{"1", "", "3", "1"})...))
	s.do(client.LPush([]byte("list"), []byte("head")))
	s.do(client.TSAdd([]byte("series"), 0, []int64{5, -5, math.MaxInt64, math.MinInt64}, blobs([]string{"a", "b", "", "d"})))
	s.do(client.TSAdd([]byte("series"), farAhead, []int64{6}, blobs([]string{"later gone"})))
	return map[string]*wire.Op{
		"string": client.Get([]byte("string")),
		"empty":  client.Get([]byte("empty")),
		"hash":   client.HGetAll([]byte("hash")),
		"set":    client.SMembers([]byte("set")),
		"zset":   client.ZRange([]byte("zset"), client.ByRank(0, -1)),
		"list":   client.LRange([]byte("list"), 0, -1),
		"series": client.TSRange([]byte("series"), client.TSSpan{Low: math.MinInt64, High: math.MaxInt64}),
	}
}

// TestDump: what is restored, copied or renamed is what was there.
func TestDump(t *testing.T) {
	s := newShelf(t)
	reads := oneOfEach(s)
	for name, read := range reads {
		k := []byte(name)
		want := s.say(read)
		payload := s.do(client.Dump(k)).Bytes
		s.check(client.Restore(k, payload, 0, false), "-BUSYKEY Target key name already exists.")
		s.do(client.Delete(k))
		s.check(client.Restore(k, payload, farAhead, false), `"OK"`)
		s.check(read, want)
		s.check(client.ExpireTime(k), fmt.Sprint(farAhead))
		if again := s.do(client.Dump(k)).Bytes; !bytes.Equal(again, payload) {
			t.Errorf("%s: dumped again it is %x, was %x", name, again, payload)
		}
		s.check(client.Restore(k, payload, 0, true), `"OK"`)
		s.check(client.ExpireTime(k), "-1")
		s.do(client.SAdd([]byte("elsewhere"), []byte("m")))
		s.check(client.Rename(k, []byte("elsewhere"), false), "1")
		s.check(client.Copy([]byte("elsewhere"), k, false), "1")
		s.check(read, want)
		s.do(client.Delete([]byte("elsewhere")))
		s.check(read, want)
		s.check(client.Restore(k, payload, longAgo, true), `"OK"`)
		s.check(client.Exists(k), "0")
	}
	s.check(client.Dump(key), "nil")
}

// TestRestoreRefuses: a dump that is not one, or that would break a document, is
// refused and nothing is written.
func TestRestoreRefuses(t *testing.T) {
	s := newShelf(t)
	s.do(client.HSet(key, []byte("a"), []byte("1"), []byte("b"), []byte("2")))
	payload := s.do(client.Dump(key)).Bytes
	s.do(client.Delete(key))
	const checksum = "-ERR DUMP payload version or checksum are wrong"
	const format = "-ERR Bad data format"
	for i := range payload {
		bad := slices.Clone(payload)
		bad[i] ^= 0x10
		s.check(client.Restore(key, bad, 0, false), checksum)
		s.check(client.Restore(key, payload[:i], 0, false), checksum)
	}
	nan := binary.BigEndian.AppendUint64([]byte{dumpVersion, byte(RootZSet), 1, 1, 'a'}, math.Float64bits(math.NaN()))
	huge := binary.AppendUvarint([]byte{dumpVersion, byte(RootList)}, math.MaxUint64)
	for name, body := range map[string][]byte{
		"no kind":         {dumpVersion, 0, 1, 0},
		"a row":           {dumpVersion, byte(RootRow), 1, 0},
		"unknown kind":    {dumpVersion, 200, 1, 0},
		"empty set":       {dumpVersion, byte(RootSet), 0},
		"more than said":  {dumpVersion, byte(RootSet), 1, 1, 'a', 1, 'b'},
		"less than said":  {dumpVersion, byte(RootSet), 2, 1, 'a'},
		"a member twice":  {dumpVersion, byte(RootSet), 2, 1, 'a', 1, 'a'},
		"not in order":    outOfOrder(),
		"a time twice":    {dumpVersion, byte(RootTSeries), 2, 2, 0, 0, 2, 0, 0},
		"times ascending": {dumpVersion, byte(RootTSeries), 2, 2, 0, 0, 4, 0, 0},
		"not a number":    nan,
		"a huge number":   append(huge, 1, 2, 3),
		"a long blob":     append(binary.AppendUvarint([]byte{dumpVersion, byte(RootString)}, 1<<62), 'a'),
		"a string's rest": {dumpVersion, byte(RootString), 1, 'a', 'b'},
	} {
		if got := s.say(client.Restore(key, sealDump(body), 0, false)); got != format {
			t.Errorf("%s: %s", name, got)
		}
	}
	s.check(client.Exists(key), "0")
}

// outOfOrder is a set of two members, the one with the greater hash first.
func outOfOrder() []byte {
	a, b := []byte("a"), []byte("b")
	if xxhash.Sum64(a) < xxhash.Sum64(b) {
		a, b = b, a
	}
	return appendBlob(appendBlob([]byte{dumpVersion, byte(RootSet), 2}, a), b)
}

// FuzzRestore: whatever is restored is a sound document, which dumps as the very
// bytes it came from.
func FuzzRestore(f *testing.F) {
	s := newShelf(f)
	for name := range oneOfEach(s) {
		f.Add(s.do(client.Dump([]byte(name))).Bytes)
	}
	f.Add(dumpOf(RootHash, "a", "b"))
	f.Add([]byte{})
	reads := []*wire.Op{
		client.HGetAll(key), client.SMembers(key), client.LRange(key, 0, -1), client.ZRange(key, client.ByRank(0, -1)),
		client.ZScan(key, 0, client.ScanOptions{}), client.TSCard(key), client.TSLastN(key, 10), client.Object(key),
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		if len(payload) >= 8 { // let the checksum be right: it is not what is tested
			payload = sealDump(slices.Clone(payload[:len(payload)-8]))
		}
		s := shelf{t: t, e: s.e, ht: s.ht, nowMs: shelfNow}
		s.begin()
		defer s.view.Close()
		r := s.run(client.Restore(key, payload, 0, true))
		if r.Kind == wire.Kind_KIND_ERROR {
			return
		}
		kind, entries, err := decodeDump(payload)
		if err != nil {
			t.Fatal(err)
		}
		late := slices.ContainsFunc(entries, func(e dumpEntry) bool { return expired(e.atMs, shelfNow) })
		again := s.run(client.Dump(key))
		if !late && !canonicalDump(payload) {
			return // numbers written longer than need be
		}
		if !late && !bytes.Equal(again.Bytes, payload) {
			t.Fatalf("kind %s: %x was restored, %x dumped", kind, payload, again.Bytes)
		}
		for _, op := range reads {
			s.run(op)
		}
	})
}

// canonicalDump reports that every length in a dump is written as short as can
// be: decoders take others too.
func canonicalDump(payload []byte) bool {
	kind, entries, err := decodeDump(payload)
	if err != nil {
		return false
	}
	size := 2 + 8
	blob := func(b []byte) int { return len(binary.AppendUvarint(nil, uint64(len(b)))) + len(b) }
	if kind == RootString {
		return size+blob(entries[0].value) == len(payload)
	}
	size += len(binary.AppendUvarint(nil, uint64(len(entries))))
	for _, e := range entries {
		switch kind {
		case RootHash:
			size += blob(e.member) + blob(e.value)
		case RootSet:
			size += blob(e.member)
		case RootZSet:
			size += blob(e.member) + 8
			if e.score == 0 && math.Signbit(e.score) {
				return false // -0 becomes 0
			}
		case RootList:
			size += blob(e.value)
		case RootTSeries:
			size += len(binary.AppendVarint(nil, e.ts)) + len(binary.AppendUvarint(nil, uint64(e.atMs))) + blob(e.value)
		}
	}
	return size == len(payload)
}
