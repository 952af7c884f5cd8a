package docdb

import (
	"math/big"
	"strconv"

	"github.com/braiddb/braid/internal/wire"
)

// A hash has one child per field:
//
//	hash64(field) big endian | field  ->  value
//
// The order by hash is what makes HSCAN's cursor the next 64-bit hash: stateless,
// exact whatever is added or removed meanwhile, and a random field costs a seek.

func (x *Exec) opHSet(op *wire.Op) (*wire.Result, error) {
	var sub keySpace
	if len(op.Args)%2 != 0 {
		return nil, errMalformed
	}
	if err := checkMembers(op.Args, 2); err != nil {
		return nil, err
	}
	d, root, exists, err := x.open(op, RootHash)
	if err != nil {
		return nil, err
	}
	var added int64
	seen := newSeen(len(op.Args) / 2)
	for i := 0; i < len(op.Args); i += 2 {
		has, err := hasSub(d, exists, sub.hashed(op.Args[i]))
		if err != nil {
			return nil, err
		}
		if has && op.Flags&wire.FlagNX != 0 {
			return resultInts[0], nil
		}
		if !has && seen.first(op.Args[i]) {
			added++
		}
	}
	root.Kind = RootHash
	root.Count += added
	d.PutRoot(root)
	for i := 0; i < len(op.Args); i += 2 {
		d.PutSub(sub.hashed(op.Args[i]), op.Args[i+1])
	}
	return intResult(added), nil
}

// hasSub spares the look into a document that did not exist.
func hasSub(d *Doc, exists bool, sub []byte) (bool, error) {
	if !exists {
		return false, nil
	}
	_, ok, err := d.Sub(sub)
	return ok, err
}

func (x *Exec) opHDel(op *wire.Op) (*wire.Result, error) {
	return x.removeHashed(op, RootHash)
}

// removeHashed removes fields of a hash or members of a set.
func (x *Exec) removeHashed(op *wire.Op, kind RootKind) (*wire.Result, error) {
	var sub keySpace
	d, root, ok, err := x.open(op, kind)
	if err != nil || !ok {
		return resultInts[0], err
	}
	var removed int64
	for _, member := range op.Args {
		_, has, err := d.Sub(sub.hashed(member))
		if err != nil {
			return nil, err
		}
		if has {
			removed++
			d.DeleteSub(sub.hashed(member))
		}
	}
	putShrunk(d, root, removed)
	return intResult(removed), nil
}

func (x *Exec) opHIncrBy(op *wire.Op) (*wire.Result, error) {
	if err := checkMembers(op.Args[:1], 1); err != nil {
		return nil, err
	}
	d, root, exists, err := x.open(op, RootHash)
	if err != nil {
		return nil, err
	}
	old, has, err := x.field(d, exists, op.Args[0])
	if err != nil {
		return nil, err
	}
	var n int64
	if has {
		if n, has = parseInt(old); !has {
			return nil, errHashNotInteger
		}
	} else {
		root.Count++
	}
	n, ok := addInt(n, op.Ints[0])
	if !ok {
		return nil, errIncrOverflow
	}
	var space [20]byte
	x.putField(d, root, op.Args[0], strconv.AppendInt(space[:0], n, 10))
	return intResult(n), nil
}

func (x *Exec) opHIncrByFloat(op *wire.Op) (*wire.Result, error) {
	by, ok := parseLongDouble(op.Args[1])
	if !ok {
		return nil, errNotFloat
	}
	if by.IsInf() {
		return nil, errFloatArgument
	}
	if err := checkMembers(op.Args[:1], 1); err != nil {
		return nil, err
	}
	d, root, exists, err := x.open(op, RootHash)
	if err != nil {
		return nil, err
	}
	old, has, err := x.field(d, exists, op.Args[0])
	if err != nil {
		return nil, err
	}
	n := new(big.Float)
	if has {
		if n, has = parseLongDouble(old); !has {
			return nil, errHashNotFloat
		}
	} else {
		root.Count++
	}
	text, ok := addLongDouble(n, by)
	if !ok {
		return nil, errFloatInfinite
	}
	x.putField(d, root, op.Args[0], text)
	return bytesResult(text), nil
}

// field reads a field of a hash that was opened.
func (x *Exec) field(d *Doc, exists bool, field []byte) ([]byte, bool, error) {
	if !exists {
		return nil, false, nil
	}
	var sub keySpace
	return d.Sub(sub.hashed(field))
}

// putField writes root, then one field.
func (x *Exec) putField(d *Doc, root Root, field, value []byte) {
	var sub keySpace
	root.Kind = RootHash
	d.PutRoot(root)
	d.PutSub(sub.hashed(field), value)
}

// openField opens a hash and reads one field.
func (x *Exec) openField(op *wire.Op) ([]byte, bool, error) {
	d, _, ok, err := x.open(op, RootHash)
	if err != nil {
		return nil, false, err
	}
	return x.field(d, ok, op.Args[0])
}

func (x *Exec) opHGet(op *wire.Op) (*wire.Result, error) {
	value, ok, err := x.openField(op)
	if err != nil || !ok {
		return resultNil, err
	}
	return bytesResult(value), nil
}

func (x *Exec) opHExists(op *wire.Op) (*wire.Result, error) {
	_, ok, err := x.openField(op)
	return boolInt(ok), err
}

func (x *Exec) opHStrLen(op *wire.Op) (*wire.Result, error) {
	value, _, err := x.openField(op)
	return intResult(int64(len(value))), err
}

func (x *Exec) opHMGet(op *wire.Op) (*wire.Result, error) {
	d, _, exists, err := x.open(op, RootHash)
	if err != nil {
		return nil, err
	}
	var a answer
	for _, field := range op.Args {
		value, ok, err := x.field(d, exists, field)
		if err != nil {
			return nil, err
		}
		if ok {
			a.bytes(value)
		} else {
			a.null()
		}
		if a.full() {
			break
		}
	}
	return a.result()
}

func (x *Exec) opHLen(op *wire.Op) (*wire.Result, error) { return x.cardinality(op, RootHash) }

// cardinality answers the root's count: no child is read.
func (x *Exec) cardinality(op *wire.Op, kind RootKind) (*wire.Result, error) {
	_, root, _, err := x.open(op, kind)
	return intResult(root.Count), err
}

func (x *Exec) opHGetAll(op *wire.Op) (*wire.Result, error) {
	return x.wholeHash(op, RootHash, true, true)
}
func (x *Exec) opHKeys(op *wire.Op) (*wire.Result, error) {
	return x.wholeHash(op, RootHash, true, false)
}
func (x *Exec) opHVals(op *wire.Op) (*wire.Result, error) {
	return x.wholeHash(op, RootHash, false, true)
}

// wholeHash answers all of a hash or a set.
func (x *Exec) wholeHash(op *wire.Op, kind RootKind, fields, values bool) (*wire.Result, error) {
	d, root, ok, err := x.open(op, kind)
	if err != nil || !ok {
		return resultEmptyArray, err
	}
	var a answer
	var found int64
	err = d.ScanSub(nil, nil, false, func(sub, value []byte) bool {
		if len(sub) < hashedPrefix {
			found = -1 // reported below
			return false
		}
		found++
		if fields {
			a.bytes(sub[hashedPrefix:])
		}
		if values {
			a.bytes(value)
		}
		return !a.full()
	})
	if err != nil {
		return nil, err
	}
	if !a.full() && found != root.Count {
		return nil, damaged(op, "count %d, children %d", root.Count, found)
	}
	return a.result()
}

func (x *Exec) opHScan(op *wire.Op) (*wire.Result, error) {
	return x.scanHashed(op, RootHash, nil, func(a *answer, member, value []byte) error {
		a.bytes(member)
		a.bytes(value)
		return nil
	})
}

func (x *Exec) opHRandom(op *wire.Op) (*wire.Result, error) {
	return x.random(op, RootHash, op.Flags&wire.FlagWithValues != 0)
}
