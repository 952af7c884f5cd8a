package docdb

import (
	"bytes"
	"encoding/binary"

	"github.com/cockroachdb/pebble/v2"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
)

// The first byte of every key names its key space.
const (
	spaceNode        = 0x10 // the node's own records
	spaceGroup       = 0x20 // state of a Raft group: applied index, remembered requests
	spaceDocument    = 0x40 // documents
	spaceProvisional = 0x50 // reserved: provisional records of transactions, keyed as documents are
)

// What stands after a DocKey. Root sorts before every child.
const (
	tailRoot = 0x01
	tailSub  = 0x02
)

const (
	docHeader = 1 + 4 + 8 // space, table, hash
	timeLen   = 8 + 4     // ^hybrid time, ^write id
	expiryLen = 6         // milliseconds, where the trailer says so
)

// The trailer is a key's last byte: how long the suffix is, and what a sweep
// must know of the value without reading it (Pebble shows no value to the
// collectors of block properties). A key that is only a prefix ends in 00.
const (
	trailerLength = 0x3f // of the suffix with its trailer
	trailerLong   = 0x3f // the length stands in the four bytes before
	trailerDead   = 0x40 // the value is a tombstone
	trailerExpiry = 0x80 // the time is followed by the value's expiry
)

// DocTime is the place of a version in the order of a tablet's writes. WriteID
// orders the effects of one entry.
type DocTime struct {
	HT      hlc.Timestamp
	WriteID uint32
}

// Compare is -1, 0 or 1 as t is before, at or after u.
func (t DocTime) Compare(u DocTime) int {
	switch {
	case t.HT < u.HT, t.HT == u.HT && t.WriteID < u.WriteID:
		return -1
	case t == u:
		return 0
	}
	return 1
}

// Span is a range of a table's hash space: a tablet. End is exclusive; 0 is the
// end of the hash space.
type Span struct {
	Table      catalog.TableID
	Start, End uint64
}

// contains reports whether a hash lies in the span.
func (s Span) contains(hash uint64) bool {
	return hash >= s.Start && (s.End == 0 || hash < s.End)
}

func appendDocHeader(dst []byte, table catalog.TableID, hash uint64) []byte {
	dst = append(dst, spaceDocument)
	dst = binary.BigEndian.AppendUint32(dst, uint32(table))
	return binary.BigEndian.AppendUint64(dst, hash)
}

// appendDocKey appends the DocKey: what Split calls the prefix.
func appendDocKey(dst []byte, table catalog.TableID, hash uint64, key []byte) []byte {
	return AppendString(appendDocHeader(dst, table, hash), key)
}

// bound is the first possible key of a hash. The 00 at its end makes it a prefix
// for Split and still sorts at or before every key of the hash.
func bound(table catalog.TableID, hash uint64) []byte {
	return append(appendDocHeader(nil, table, hash), 0)
}

// bounds are the span's lower (inclusive) and upper (exclusive) keys.
func (s Span) bounds() (lower, upper []byte) {
	lower = bound(s.Table, s.Start)
	if s.End != 0 {
		return lower, bound(s.Table, s.End)
	}
	if next := uint32(s.Table) + 1; next != 0 {
		upper = append(binary.BigEndian.AppendUint32([]byte{spaceDocument}, next), 0)
		return lower, upper
	}
	return lower, []byte{spaceDocument + 1, 0}
}

// appendTail appends what names a child within its document.
func appendTail(dst, sub []byte) []byte {
	return AppendString(append(dst, tailSub), sub)
}

var rootTail = []byte{tailRoot}

func appendTime(dst []byte, t DocTime) []byte {
	dst = binary.BigEndian.AppendUint64(dst, ^uint64(t.HT))
	return binary.BigEndian.AppendUint32(dst, ^t.WriteID)
}

func decodeTime(p []byte) DocTime {
	return DocTime{HT: hlc.Timestamp(^binary.BigEndian.Uint64(p)), WriteID: ^binary.BigEndian.Uint32(p[8:])}
}

// hint is what a key tells of its value.
type hint struct {
	dead       bool
	expireAtMs int64 // 0: never
}

// appendVersion finishes a key whose DocKey is dst[:docKeyLen] and whose tail is
// the rest: time, expiry, trailer.
func appendVersion(dst []byte, docKeyLen int, t DocTime, h hint) []byte {
	dst = appendTime(dst, t)
	var trailer byte
	if h.dead {
		trailer |= trailerDead
	}
	if h.expireAtMs > 0 {
		trailer |= trailerExpiry
		ms := min(uint64(h.expireAtMs), 1<<(8*expiryLen)-1)
		dst = append(dst, byte(ms>>40), byte(ms>>32), byte(ms>>24), byte(ms>>16), byte(ms>>8), byte(ms))
	}
	n := len(dst) - docKeyLen + 1
	if n < trailerLong {
		return append(dst, trailer|byte(n))
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(n+4))
	return append(dst, trailer|trailerLong)
}

// split is the length of the key's prefix: the DocKey, or the whole key where
// there is no version.
func split(key []byte) int {
	n := len(key)
	if n == 0 {
		return 0
	}
	s := int(key[n-1] & trailerLength)
	if s == trailerLong {
		if n < 5 {
			return n
		}
		s = int(binary.BigEndian.Uint32(key[n-5:]))
	}
	if s > n {
		return n
	}
	return n - s
}

// version is a document key taken apart. It aliases the key.
type version struct {
	docKey []byte // prefix
	tail   []byte // rootTail, or tailSub and the escaped subkey
	place  []byte // docKey and tail
	stamp  []byte // what follows the place
	time   DocTime
	hint   hint
}

// parseVersion takes a key of the document space apart.
func parseVersion(key []byte) (v version, err error) {
	n := split(key)
	if n < docHeader+2 || n == len(key) {
		return v, ErrEncoding
	}
	trailer := key[len(key)-1]
	end := len(key) - 1
	if trailer&trailerLength == trailerLong {
		end -= 4
	}
	v.hint.dead = trailer&trailerDead != 0
	if trailer&trailerExpiry != 0 {
		if end -= expiryLen; end <= n {
			return v, ErrEncoding
		}
		for _, b := range key[end : end+expiryLen] {
			v.hint.expireAtMs = v.hint.expireAtMs<<8 | int64(b)
		}
	}
	if end -= timeLen; end <= n {
		return v, ErrEncoding
	}
	v.docKey, v.tail, v.place, v.stamp = key[:n:n], key[n:end:end], key[:end:end], key[end:]
	v.time = decodeTime(v.stamp)
	return v, nil
}

// docKeyParts gives back what appendDocKey was given.
func docKeyParts(docKey []byte) (hash uint64, key []byte, err error) {
	if len(docKey) < docHeader+2 {
		return 0, nil, ErrEncoding
	}
	key, rest, err := DecodeString(nil, docKey[docHeader:])
	if err != nil || len(rest) != 0 {
		return 0, nil, ErrEncoding
	}
	return binary.BigEndian.Uint64(docKey[5:]), key, nil
}

// subOf gives back the subkey of a child's tail, appended to dst.
func subOf(dst, tail []byte) ([]byte, error) {
	if len(tail) < 3 || tail[0] != tailSub {
		return nil, ErrEncoding
	}
	sub, rest, err := DecodeString(dst, tail[1:])
	if err != nil || len(rest) != 0 {
		return nil, ErrEncoding
	}
	return sub, nil
}

// comparer orders keys by prefix, then suffix, both bytewise. For keys of this
// package that is bytewise as a whole, because no DocKey is a prefix of another;
// taking the two apart keeps Pebble's contract for every string of bytes, so for
// bounds, separators and what it may cut out of keys too.
var comparer = &pebble.Comparer{
	Name:                 "braid.docdb.1",
	Compare:              compareKeys,
	Equal:                bytes.Equal,
	ComparePointSuffixes: bytes.Compare,
	CompareRangeSuffixes: bytes.Compare,
	AbbreviatedKey:       pebble.DefaultComparer.AbbreviatedKey,
	FormatKey:            pebble.DefaultComparer.FormatKey,
	Split:                split,
	Separator:            separator,
	Successor: func(dst, a []byte) []byte {
		if len(a) == 0 {
			return append(dst, 0)
		}
		return append(dst, a...)
	},
	ImmediateSuccessor: func(dst, a []byte) []byte { return append(append(dst, a...), 0) },
}

func compareKeys(a, b []byte) int {
	i, j := split(a), split(b)
	if c := bytes.Compare(a[:i], b[:j]); c != 0 {
		return c
	}
	return bytes.Compare(a[i:], b[j:])
}

// separator shortens between two DocKeys only, and ends what it shortened in 00,
// so that Split sees a prefix.
func separator(dst, a, b []byte) []byte {
	ap, bp := a[:split(a)], b[:split(b)]
	n := len(dst)
	if len(ap) > 0 && len(bp) > 0 {
		dst = pebble.DefaultComparer.Separator(dst, ap, bp)
		if len(dst)-n < len(ap) {
			dst = append(dst, 0)
			if compareKeys(dst[n:], a) >= 0 && compareKeys(dst[n:], b) < 0 {
				return dst
			}
		}
	}
	return append(dst[:n], a...)
}
