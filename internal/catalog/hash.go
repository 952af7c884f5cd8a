package catalog

import (
	"bytes"

	"github.com/cespare/xxhash/v2"
)

// RedisSlots is the number of hash slots of Redis Cluster.
const RedisSlots = 16384

// slotShift places a slot in the top bits of the hash space, so that a range of
// slots is a range of hashes.
const slotShift = 64 - 14

// KeyHash gives the position of an encoded hash key in the hash space of a
// table that uses h. For HASH_CRC16 the key is the Redis key.
func KeyHash(h Hash, key []byte) uint64 {
	switch h {
	case Hash_HASH_CRC16:
		return uint64(RedisSlot(key))<<slotShift | xxhash.Sum64(key)>>14
	case Hash_HASH_MURMUR3:
		return uint64(Murmur3Token(key)) ^ 1<<63
	}
	panic("BUG: a table without a hash: " + h.String())
}

// SlotStart is the first hash of a Redis slot; SlotStart(RedisSlots) is 0, the
// open end.
func SlotStart(slot uint32) uint64 { return uint64(slot) << slotShift }

// HashSlot is the Redis slot that a position of a HASH_CRC16 table lies in.
func HashSlot(hash uint64) uint16 { return uint16(hash >> slotShift) }

// RedisSlot is Redis Cluster's CRC16(key) mod 16384, over the part between the
// first '{' and the next '}' when that part is not empty.
func RedisSlot(key []byte) uint16 {
	if open := bytes.IndexByte(key, '{'); open >= 0 {
		if n := bytes.IndexByte(key[open+1:], '}'); n > 0 {
			key = key[open+1 : open+1+n]
		}
	}
	return crc16(key) % RedisSlots
}

// crc16 is CRC-16/XMODEM: polynomial 0x1021, no reflection, initial value 0.
func crc16(p []byte) uint16 {
	var crc uint16
	for _, b := range p {
		crc = crc<<8 ^ crc16Table[byte(crc>>8)^b]
	}
	return crc
}

var crc16Table = func() (t [256]uint16) {
	for i := range t {
		crc := uint16(i) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
		t[i] = crc
	}
	return t
}()
