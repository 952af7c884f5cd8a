package world

import (
	"encoding/binary"
	"hash/fnv"
	"unsafe"
)

// layout sums up where in memory the next objects of every size come to lie. Maps
// keyed by pointers have their order by that, so two runs of a seed are the same
// only if it is.
func layout() uint64 {
	h := fnv.New64a()
	var b [8]byte
	note := func(p unsafe.Pointer) {
		binary.LittleEndian.PutUint64(b[:], uint64(uintptr(p)))
		h.Write(b[:])
	}
	for size := 8; size <= 32<<10; size += size/8&^7 + 8 {
		plain, pointers := make([]byte, size), make([]*byte, size/8)
		note(unsafe.Pointer(&plain[0]))
		note(unsafe.Pointer(&pointers[0]))
	}
	return h.Sum64()
}
