package catalog

import (
	"encoding/hex"
	"math"
	"testing"

	"pgregory.net/rapid"
)

// The values are those of the Cassandra drivers' murmur3, made with the Java one.
func TestMurmur3TokenIsCassandras(t *testing.T) {
	// Every prefix of a running sequence of digits, so every length of the tail.
	series := []uint64{
		0x0000000000000000, 0x2ac9debed546a380, 0x649e4eaa7fc1708e, 0xce68f60d7c353bdb, 0x0f95757ce7f38254,
		0x0f04e459497f3fc1, 0x88c0a92586be0a27, 0x13eb9fb82606f7a6, 0x8236039b7387354d, 0x4c1e87519fe738ba,
		0x3f9652ac3effeb24, 0x3f33760ded9006c6, 0xaed70a6631854cb1, 0x8a299a8f8e0e2da7, 0x624b675c779249a6,
		0xa4b203bb1d90b9a3, 0xa3293ad698ecb99a, 0xbc740023dbd50048, 0x3fe5ab9837d25cdd, 0x2d0338c1ca87d132,
	}
	digits := "01234567890123456789"
	for n, want := range series {
		if got := Murmur3Token([]byte(digits[:n])); uint64(got) != want {
			t.Errorf("token(%q) = %#x, want %#x", digits[:n], uint64(got), want)
		}
	}
	for key, want := range map[string]uint64{
		"hello":                     0xcbd8a7b341bd9b02,
		"hello, world":              0x342fac623a5ebc8e,
		"19 Jan 2038 at 3:14:07 AM": 0xb89e5988b737affc,
		"The quick brown fox jumps over the lazy dog.": 0xcd99481f9ee902c9,
	} {
		if got := Murmur3Token([]byte(key)); uint64(got) != want {
			t.Errorf("token(%q) = %#x, want %#x", key, uint64(got), want)
		}
	}
}

// Bytes of 0x80 and above in the tail are sign-extended by Cassandra: the plain
// MurmurHash3 gives another value for this key.
func TestMurmur3TokenExtendsTheSignAsCassandraDoes(t *testing.T) {
	key, err := hex.DecodeString("00104327529fb645dd00b883ec39ae448bb800000400066a6b00")
	if err != nil {
		t.Fatal(err)
	}
	if got := Murmur3Token(key); got != -9223371632693506265 {
		t.Errorf("token = %d", got)
	}
}

func TestMurmur3HashOrdersAsTokensDo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.SliceOf(rapid.Byte()).Draw(t, "a"), rapid.SliceOf(rapid.Byte()).Draw(t, "b")
		ta, tb := Murmur3Token(a), Murmur3Token(b)
		ha, hb := KeyHash(Hash_HASH_MURMUR3, a), KeyHash(Hash_HASH_MURMUR3, b)
		if (ta < tb) != (ha < hb) {
			t.Fatalf("tokens %d, %d but hashes %#x, %#x", ta, tb, ha, hb)
		}
		if ta == math.MinInt64 {
			t.Fatal("the smallest token was given to a key")
		}
	})
}

func TestCRC16IsXModem(t *testing.T) {
	if got := crc16([]byte("123456789")); got != 0x31c3 {
		t.Errorf("crc16 = %#x, want 0x31c3", got)
	}
}

func TestRedisSlots(t *testing.T) {
	for key, want := range map[string]uint16{
		"":                 0,
		"foo":              12182,
		"123456789":        0x31c3 % RedisSlots,
		"{foo}.bar":        12182,
		"x{foo}{bar}":      12182, // the first tag counts
		"bar":              5061,
		"{user1000}.a":     RedisSlot([]byte("user1000")),
		"foo{}{bar}":       crc16([]byte("foo{}{bar}")) % RedisSlots, // an empty tag is none
		"foo{{bar}}zap":    crc16([]byte("{bar")) % RedisSlots,
		"foo{bar":          crc16([]byte("foo{bar")) % RedisSlots,
		"foo}bar{":         crc16([]byte("foo}bar{")) % RedisSlots,
		"\xff\x00{\x80}\n": crc16([]byte{0x80}) % RedisSlots,
	} {
		if got := RedisSlot([]byte(key)); got != want {
			t.Errorf("slot(%q) = %d, want %d", key, got, want)
		}
	}
}

func TestCRC16HashLiesInItsSlot(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOf(rapid.Byte()).Draw(t, "key")
		h := KeyHash(Hash_HASH_CRC16, key)
		slot := RedisSlot(key)
		if HashSlot(h) != slot {
			t.Fatalf("hash %#x of %q is in slot %d, not %d", h, key, HashSlot(h), slot)
		}
		if start, end := SlotStart(uint32(slot)), SlotStart(uint32(slot)+1); h < start || (end != 0 && h >= end) {
			t.Fatalf("hash %#x is outside [%#x, %#x)", h, start, end)
		}
	})
}

func TestKeyHashOfNoHashPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	KeyHash(Hash_HASH_UNSPECIFIED, nil)
}
