package manifest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

const (
	noteFile   = "VOUCHED"
	noteFormat = 1
	slotBytes  = 64
	slotEvery  = 4096 // no two slots in one sector of a disk, of whatever size
	noteBytes  = 2 * slotEvery
)

var (
	// ErrDamaged says that a manifest, or the note on it, is not what was synced.
	ErrDamaged = errors.New("the LSM's manifest is damaged: what was flushed is not all there")
	// ErrFormat says that a newer version has written the note.
	ErrFormat = errors.New("the note on the LSM's manifest was written by a newer version of braid")
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	noteMagic  = [4]byte{'B', 'R', 'V', 'M'}
)

// extent is how much of a manifest is durable.
type extent struct {
	number uint64 // of the manifest
	length uint64
	sum    uint32 // of that many bytes
}

// note is one slot's content.
type note struct {
	sequence uint64 // of notes in this directory, from 1; the higher one counts
	now      extent
	pending  bool   // now may not be the current manifest yet: then
	before   extent // is; number 0: there was none
}

const flagPending = 1

func (x *extent) encode(b []byte) {
	binary.LittleEndian.PutUint64(b, x.number)
	binary.LittleEndian.PutUint64(b[8:], x.length)
	binary.LittleEndian.PutUint32(b[16:], x.sum)
}

func decodeExtent(b []byte) extent {
	return extent{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint32(b[16:])}
}

// encode gives a slot's bytes. The checksum covers whose note it is, so that one of
// another directory, written here by mistake, is none.
func (n *note) encode(name string) (b [slotBytes]byte) {
	copy(b[:], noteMagic[:])
	binary.LittleEndian.PutUint32(b[8:], noteFormat)
	if n.pending {
		binary.LittleEndian.PutUint32(b[12:], flagPending)
	}
	binary.LittleEndian.PutUint64(b[16:], n.sequence)
	n.now.encode(b[24:])
	n.before.encode(b[44:])
	binary.LittleEndian.PutUint32(b[4:], noteSum(name, b[8:]))
	return b
}

func noteSum(name string, b []byte) uint32 {
	return crc32.Update(crc32.Checksum([]byte(name), castagnoli), castagnoli, b)
}

// decodeNote reads a slot. One that holds no note gives false, and blank if nothing
// was ever written there.
func decodeNote(name string, b []byte) (n note, ok, blank bool, err error) {
	if len(b) < slotBytes {
		return n, false, false, nil
	}
	b = b[:slotBytes]
	if [slotBytes]byte(b) == [slotBytes]byte{} {
		return n, false, true, nil
	}
	if [4]byte(b) != noteMagic || binary.LittleEndian.Uint32(b[4:]) != noteSum(name, b[8:]) {
		return n, false, false, nil
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v > noteFormat {
		return n, false, false, fmt.Errorf("%w: format %d, this one knows %d", ErrFormat, v, noteFormat)
	}
	n = note{sequence: binary.LittleEndian.Uint64(b[16:]), now: decodeExtent(b[24:]), before: decodeExtent(b[44:])}
	n.pending = binary.LittleEndian.Uint32(b[12:])&flagPending != 0
	return n, n.sequence > 0, false, nil
}

// newest gives the note that counts, and which slot it is in. A directory that never
// had one gives none.
func newest(name string, b []byte) (best note, slot int, err error) {
	spoilt := 0
	for i := range 2 {
		n, ok, blank, err := decodeNote(name, b[min(i*slotEvery, len(b)):])
		switch {
		case err != nil:
			return note{}, 0, err
		case ok && n.sequence > best.sequence:
			best, slot = n, i
		case !ok && !blank && len(b) > i*slotEvery: // one that is not there is blank: the file was being made
			spoilt++
		}
	}
	if spoilt == 2 {
		return note{}, 0, fmt.Errorf("%w: neither slot of the note can be read", ErrDamaged)
	}
	return best, slot, nil
}
