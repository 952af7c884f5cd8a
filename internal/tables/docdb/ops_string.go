package docdb

import (
	"math/big"
	"strconv"

	"github.com/braiddb/braid/internal/wire"
)

// A string is its root: kind, expiry, and the bytes as the root's value.

// openString finds a string.
func (x *Exec) openString(op *wire.Op) (*Doc, Root, bool, error) {
	return x.open(op, RootString)
}

// opSet is blind unless a flag asks about the document as it was.
func (x *Exec) opSet(op *wire.Op) (*wire.Result, error) {
	root := Root{Kind: RootString, Value: op.Args[0]}
	if len(op.Ints) > 0 {
		root.ExpireAtMs = op.Ints[0]
	}
	d := x.doc(op)
	if blindSet(op) {
		x.putString(d, root)
		return resultOK, nil
	}
	old, exists, err := x.live(d)
	if err != nil {
		return nil, err
	}
	answer, refused := resultOK, resultNil
	if op.Flags&wire.FlagGet != 0 {
		if exists && old.Kind != RootString {
			return nil, errWrongType
		}
		answer = resultNil
		if exists {
			answer = bytesResult(old.Value)
		}
		refused = answer
	}
	if op.Flags&wire.FlagNX != 0 && exists || op.Flags&wire.FlagXX != 0 && !exists {
		return refused, nil
	}
	if op.Flags&wire.FlagKeepTTL != 0 && exists {
		root.ExpireAtMs = old.ExpireAtMs
	}
	x.putString(d, root)
	return answer, nil
}

// blindSet reports that the operation is an OpSet that reads nothing.
func blindSet(op *wire.Op) bool {
	return op.Flags&(wire.FlagNX|wire.FlagXX|wire.FlagGet|wire.FlagKeepTTL) == 0
}

// putString begins a new life of the document as a string. One that has expired
// already is no document: writing it is deleting.
func (x *Exec) putString(d *Doc, root Root) {
	root.Created = DocTime{}
	if root.ExpireAtMs < 0 || expired(root.ExpireAtMs, x.nowMs) {
		d.Delete()
		return
	}
	d.PutRoot(root)
}

// setValue replaces the value of a string, keeping its expiry; a missing one
// begins.
func setValue(d *Doc, old Root, value []byte) {
	old.Kind, old.Value, old.Created = RootString, value, DocTime{}
	d.PutRoot(old)
}

func (x *Exec) opGet(op *wire.Op) (*wire.Result, error) {
	_, root, ok, err := x.openString(op)
	if err != nil || !ok {
		return resultNil, err
	}
	return bytesResult(root.Value), nil
}

func (x *Exec) opGetDel(op *wire.Op) (*wire.Result, error) {
	d, root, ok, err := x.openString(op)
	if err != nil || !ok {
		return resultNil, err
	}
	r := bytesResult(root.Value)
	d.Delete()
	return r, nil
}

func (x *Exec) opGetEx(op *wire.Op) (*wire.Result, error) {
	d, root, ok, err := x.openString(op)
	if err != nil || !ok {
		return resultNil, err
	}
	r := bytesResult(root.Value)
	switch {
	case len(op.Ints) > 0 && op.Ints[0] != 0:
		root.ExpireAtMs = op.Ints[0]
	case op.Flags&wire.FlagPersist != 0 && root.ExpireAtMs != 0:
		root.ExpireAtMs = 0
	default:
		return r, nil
	}
	root.Value = r.Bytes
	x.putString(d, root)
	return r, nil
}

// checkLength refuses a string of n bytes before memory is taken for it.
func checkLength(n int64) error {
	switch {
	case n < 0 || n > stringBytesLimit:
		return errStringTooLong
	case n > valueBytesMax:
		return errValueTooLarge
	}
	return nil
}

func (x *Exec) opSetRange(op *wire.Op) (*wire.Result, error) {
	offset, patch := op.Ints[0], op.Args[0]
	if offset < 0 {
		return nil, errOffsetRange
	}
	d, root, _, err := x.openString(op)
	if err != nil {
		return nil, err
	}
	if len(patch) == 0 {
		return intResult(int64(len(root.Value))), nil
	}
	if err := checkLength(offset + int64(len(patch))); err != nil {
		return nil, err
	}
	value := make([]byte, max(len(root.Value), int(offset)+len(patch)))
	copy(value, root.Value)
	copy(value[offset:], patch)
	setValue(d, root, value)
	return intResult(int64(len(value))), nil
}

func (x *Exec) opAppend(op *wire.Op) (*wire.Result, error) {
	d, root, _, err := x.openString(op)
	if err != nil {
		return nil, err
	}
	n := len(root.Value) + len(op.Args[0])
	if err := checkLength(int64(n)); err != nil {
		return nil, err
	}
	value := append(append(make([]byte, 0, n), root.Value...), op.Args[0]...)
	setValue(d, root, value)
	return intResult(int64(n)), nil
}

func (x *Exec) opIncrBy(op *wire.Op) (*wire.Result, error) {
	d, root, ok, err := x.openString(op)
	if err != nil {
		return nil, err
	}
	var n int64
	if ok {
		if n, ok = parseInt(root.Value); !ok {
			return nil, errNotInteger
		}
	}
	if n, ok = addInt(n, op.Ints[0]); !ok {
		return nil, errIncrOverflow
	}
	var space [20]byte
	setValue(d, root, strconv.AppendInt(space[:0], n, 10))
	return intResult(n), nil
}

func (x *Exec) opIncrByFloat(op *wire.Op) (*wire.Result, error) {
	d, root, ok, err := x.openString(op)
	if err != nil {
		return nil, err
	}
	n, by := new(big.Float), (*big.Float)(nil)
	if ok {
		if n, ok = parseLongDouble(root.Value); !ok {
			return nil, errNotFloat
		}
	}
	if by, ok = parseLongDouble(op.Args[0]); !ok {
		return nil, errNotFloat
	}
	text, ok := addLongDouble(n, by)
	if !ok {
		return nil, errFloatInfinite
	}
	setValue(d, root, text)
	return bytesResult(text), nil
}

// checkBit refuses bit offsets outside of the longest string.
func checkBit(offset int64) error {
	if offset < 0 || offset>>3 >= stringBytesLimit {
		return errBitOffset
	}
	return nil
}

func (x *Exec) opSetBit(op *wire.Op) (*wire.Result, error) {
	offset, bit := op.Ints[0], op.Ints[1]
	if err := checkBit(offset); err != nil {
		return nil, err
	}
	if bit != 0 && bit != 1 {
		return nil, errBitValue
	}
	d, root, _, err := x.openString(op)
	if err != nil {
		return nil, err
	}
	if err := checkLength(offset>>3 + 1); err != nil {
		return nil, err
	}
	value := make([]byte, max(len(root.Value), int(offset>>3)+1))
	copy(value, root.Value)
	old := bitOf(value, offset)
	mask := byte(1) << (7 - offset&7)
	value[offset>>3] = value[offset>>3]&^mask | byte(bit)<<(7-offset&7)
	setValue(d, root, value)
	return intResult(old), nil
}

func bitOf(value []byte, offset int64) int64 {
	if offset>>3 >= int64(len(value)) {
		return 0
	}
	return int64(value[offset>>3]>>(7-offset&7)) & 1
}

func (x *Exec) opGetBit(op *wire.Op) (*wire.Result, error) {
	if err := checkBit(op.Ints[0]); err != nil {
		return nil, err
	}
	_, root, _, err := x.openString(op)
	if err != nil {
		return nil, err
	}
	return intResult(bitOf(root.Value, op.Ints[0])), nil
}

func (x *Exec) opStrLen(op *wire.Op) (*wire.Result, error) {
	_, root, _, err := x.openString(op)
	return intResult(int64(len(root.Value))), err
}

// opGetRange follows GETRANGE in that an end before the beginning is the
// beginning, unless start and end are both negative and the wrong way round.
func (x *Exec) opGetRange(op *wire.Op) (*wire.Result, error) {
	_, root, _, err := x.openString(op)
	if err != nil {
		return nil, err
	}
	start, end, n := op.Ints[0], op.Ints[1], int64(len(root.Value))
	if n == 0 || start < 0 && end < 0 && start > end {
		return bytesResult(nil), nil
	}
	if start < 0 {
		start = max(0, start+n)
	}
	if end < 0 {
		end = max(0, end+n)
	}
	end = min(end, n-1)
	if start > end {
		return bytesResult(nil), nil
	}
	return bytesResult(root.Value[start : end+1]), nil
}
