package catalog

import (
	"encoding/binary"
	"math/bits"
)

// Murmur3Token is the token that Cassandra's Murmur3Partitioner gives a
// partition key: the first half of MurmurHash3_x64_128 with seed 0, but with
// the tail's bytes sign-extended, as Cassandra does. math.MinInt64 is mapped to
// math.MaxInt64, since the smallest token means "before the first key".
func Murmur3Token(key []byte) int64 {
	const c1, c2 = 0x87c37b91114253d5, 0x4cf5ad432745937f
	var h1, h2 uint64
	n := len(key)
	for len(key) >= 16 {
		k1, k2 := binary.LittleEndian.Uint64(key), binary.LittleEndian.Uint64(key[8:])
		h1 ^= bits.RotateLeft64(k1*c1, 31) * c2
		h1 = (bits.RotateLeft64(h1, 27)+h2)*5 + 0x52dce729
		h2 ^= bits.RotateLeft64(k2*c2, 33) * c1
		h2 = (bits.RotateLeft64(h2, 31)+h1)*5 + 0x38495ab5
		key = key[16:]
	}
	var k1, k2 uint64
	for i := len(key) - 1; i >= 0; i-- {
		signed := uint64(int64(int8(key[i])))
		if i >= 8 {
			k2 ^= signed << (8 * (i - 8))
		} else {
			k1 ^= signed << (8 * i)
		}
	}
	h2 ^= bits.RotateLeft64(k2*c2, 33) * c1
	h1 ^= bits.RotateLeft64(k1*c1, 31) * c2
	h1 ^= uint64(n)
	h2 ^= uint64(n)
	h1 += h2
	h2 += h1
	h1 = finalMix(h1)
	h2 = finalMix(h2)
	token := int64(h1 + h2)
	if token == -1<<63 {
		return 1<<63 - 1
	}
	return token
}

func finalMix(k uint64) uint64 {
	k ^= k >> 33
	k *= 0xff51afd7ed558ccd
	k ^= k >> 33
	k *= 0xc4ceb9fe1a85ec53
	return k ^ k>>33
}
