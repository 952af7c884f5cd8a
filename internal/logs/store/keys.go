package store

import (
	"encoding/binary"

	"github.com/braiddb/braid/internal/logs"
)

// The first byte of a key names its space. docs/formats/log-store.md is the page
// of this file. Integers in keys are big-endian.
const (
	spaceApplied  byte = 0x01 // the journal position up to which this store has all
	spaceIndex    byte = 0x10 // copies: log, LSN, complement of precedence, kind -> header
	spacePayload  byte = 0x20 // the same key -> payload
	spaceProducer byte = 0x30 // log, producer, LSN, sequence -> wave and flags
	spaceLog      byte = 0x40 // marks of a log
	spaceRecovery byte = 0x41 // log, epoch -> wire.EpochRecovery
	spaceLeft     byte = 0x42 // log, producer -> what is left of records that were trimmed
	spacePart     byte = 0x50 // partition -> its summary
	spaceExtent   byte = 0x51 // log, partition -> extent
	spacePartLog  byte = 0x52 // partition, log -> nothing
	spaceAside    byte = 0x53 // partition -> the doubt under which it was set aside
)

const copyKeyBytes = 26

// copyKind tells copies of one LSN and precedence apart. Kind 2 is reserved for
// records of transactions that are not decided.
type copyKind byte

const (
	kindWhole copyKind = 0 // a record, or what recovery put in its place
	kindAmend copyKind = 1 // only copyset and wave: the rest is another copy's
)

var appliedKey = []byte{spaceApplied}

// copyKey names one copy. Of one LSN the copy that wins comes first.
func copyKey(dst []byte, space byte, log logs.LogID, lsn logs.LSN, precedence uint64, kind copyKind) []byte {
	dst = append(dst, space)
	dst = binary.BigEndian.AppendUint64(dst, uint64(log))
	dst = binary.BigEndian.AppendUint64(dst, uint64(lsn))
	return append(binary.BigEndian.AppendUint64(dst, ^precedence), byte(kind))
}

// lsnKey is the least key of an LSN.
func lsnKey(dst []byte, space byte, log logs.LogID, lsn logs.LSN) []byte {
	return pairKey(dst, space, uint64(log), uint64(lsn))
}

// lsnEnd is above every key of an LSN.
func lsnEnd(space byte, log logs.LogID, lsn logs.LSN) []byte {
	if lsn == logs.LSNMax {
		return logEnd(space, log)
	}
	return lsnKey(nil, space, log, lsn+1)
}

// logEnd is above every key of a log.
func logEnd(space byte, log logs.LogID) []byte {
	if log == 1<<64-1 {
		return []byte{space + 1}
	}
	return numberKey(nil, space, uint64(log)+1)
}

func numberKey(dst []byte, space byte, n uint64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, space), n)
}

func pairKey(dst []byte, space byte, a, b uint64) []byte {
	return binary.BigEndian.AppendUint64(numberKey(dst, space, a), b)
}

func producerKey(dst []byte, log logs.LogID, producer uint64, lsn logs.LSN, sequence uint64) []byte {
	dst = pairKey(dst, spaceProducer, uint64(log), producer)
	dst = binary.BigEndian.AppendUint64(dst, uint64(lsn))
	return binary.BigEndian.AppendUint64(dst, sequence)
}

// splitCopyKey reads a copy's key.
func splitCopyKey(key []byte) (log logs.LogID, lsn logs.LSN, precedence uint64, kind copyKind, ok bool) {
	if len(key) != copyKeyBytes || key[25] > byte(kindAmend) {
		return 0, 0, 0, 0, false
	}
	be := binary.BigEndian
	return logs.LogID(be.Uint64(key[1:])), logs.LSN(be.Uint64(key[9:])), ^be.Uint64(key[17:]), copyKind(key[25]), true
}

// splitPair reads the two numbers of a pairKey.
func splitPair(key []byte) (a, b uint64, ok bool) {
	if len(key) != 17 {
		return 0, 0, false
	}
	return binary.BigEndian.Uint64(key[1:]), binary.BigEndian.Uint64(key[9:]), true
}
