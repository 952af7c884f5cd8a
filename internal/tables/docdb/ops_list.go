package docdb

import (
	"bytes"
	"math"

	"github.com/braiddb/braid/internal/wire"
)

// A list has one child per value, at contiguous positions from Head up to, not
// including, Tail, both kept in the root:
//
//	position, ordered  ->  value
//
// Pushing and popping move an end; LLEN is a subtraction and LINDEX one read.
// Taking out or putting in at other places moves the values of the shorter side.

// listRange visits the values at positions [from, to) of a list.
func listRange(op *wire.Op, d *Doc, from, to int64, reverse bool, fn func(pos int64, value []byte) (more bool)) error {
	if from >= to {
		return nil
	}
	next, step := from, int64(1)
	if reverse {
		next, step = to-1, -1
	}
	var low, high keySpace
	var bad error
	stopped := false
	err := d.ScanSub(low.number(from), high.number(to), reverse, func(sub, value []byte) bool {
		pos, rest, err := DecodeInt64(sub)
		if err != nil || len(rest) != 0 || pos != next {
			bad = damaged(op, "position %x where %d should be", sub, next)
			return false
		}
		next += step
		stopped = !fn(pos, value)
		return !stopped
	})
	switch {
	case bad != nil:
		return bad
	case err == nil && !stopped && next != to && next != from-1:
		return damaged(op, "positions end at %d in [%d, %d)", next, from, to)
	}
	return err
}

// putList writes the root of a list whose ends have moved, or deletes it when
// they have met.
func putList(d *Doc, root Root) {
	root.Kind, root.Count = RootList, root.Tail-root.Head
	if root.Count == 0 {
		d.Delete()
		return
	}
	d.PutRoot(root)
}

func (x *Exec) opPush(op *wire.Op) (*wire.Result, error) {
	var sub keySpace
	d, root, ok, err := x.open(op, RootList)
	if err != nil {
		return nil, err
	}
	if !ok && op.Flags&wire.FlagXX != 0 {
		return resultInts[0], nil
	}
	left, n := op.Flags&wire.FlagLeft != 0, int64(len(op.Args))
	at := root.Tail
	if left {
		root.Head -= n
		at = root.Head + n - 1
	} else {
		root.Tail += n
	}
	putList(d, root)
	for _, value := range op.Args {
		d.PutSub(sub.number(at), value)
		if left {
			at--
		} else {
			at++
		}
	}
	return intResult(root.Tail - root.Head), nil
}

func (x *Exec) opPop(op *wire.Op) (*wire.Result, error) {
	count, single := op.Ints[0], op.Flags&wire.FlagSingle != 0
	if single {
		count = 1
	}
	if count < 0 {
		return nil, errNotPositive
	}
	d, root, ok, err := x.open(op, RootList)
	if err != nil || !ok {
		return resultNil, err
	}
	count = min(count, root.Tail-root.Head)
	left := op.Flags&wire.FlagLeft != 0
	from := root.Head
	if !left {
		from = root.Tail - count
	}
	var a answer
	err = listRange(op, d, from, from+count, !left, func(_ int64, value []byte) bool {
		a.bytes(value)
		return !a.full()
	})
	if err != nil {
		return nil, err
	}
	r, err := a.result()
	if err != nil || count == 0 {
		return r, err
	}
	if left {
		root.Head += count
	} else {
		root.Tail -= count
	}
	dropList(d, root, from, from+count)
	if single {
		return a.items[0], nil
	}
	return r, nil
}

// dropList writes the root, then removes what stood at positions [from, to) and
// is outside of the list now.
func dropList(d *Doc, root Root, from, to int64) {
	putList(d, root)
	if root.Head == root.Tail {
		return // the whole is gone
	}
	var sub keySpace
	for at := from; at < to; at++ {
		d.DeleteSub(sub.number(at))
	}
}

// opLTrim removes what is outside, or, where that is more than what stays,
// begins a new life with what stays.
func (x *Exec) opLTrim(op *wire.Op) (*wire.Result, error) {
	d, root, ok, err := x.open(op, RootList)
	if err != nil || !ok {
		return resultOK, err
	}
	n := root.Tail - root.Head
	first, last, ok := clampRange(op.Ints[0], op.Ints[1], n)
	if !ok {
		d.Delete()
		return resultOK, nil
	}
	keep := last - first + 1
	head, tail := root.Head, root.Tail
	root.Head, root.Tail = head+first, head+last+1
	switch {
	case keep == n:
	case keep >= n-keep:
		dropList(d, root, head, root.Head)
		dropList(d, root, root.Tail, tail)
	default:
		return resultOK, x.keepOnly(op, d, root)
	}
	return resultOK, nil
}

// keepOnly rewrites [root.Head, root.Tail) into a new life of the list.
func (x *Exec) keepOnly(op *wire.Op, d *Doc, root Root) error {
	kept, err := listValues(op, d, root.Head, root.Tail)
	if err != nil {
		return err
	}
	d.Delete()
	root.Created = DocTime{}
	putList(d, root)
	putValues(d, root.Head, kept)
	return nil
}

func listValues(op *wire.Op, d *Doc, from, to int64) ([][]byte, error) {
	values := make([][]byte, 0, min(max(0, to-from), 1<<16))
	err := listRange(op, d, from, to, false, func(_ int64, value []byte) bool {
		values = append(values, value)
		return true
	})
	return values, err
}

func putValues(d *Doc, at int64, values [][]byte) {
	var sub keySpace
	for i, value := range values {
		d.PutSub(sub.number(at+int64(i)), value)
	}
}

// opLRem closes the gaps by moving the values of the shorter side: those before
// the last match up, or those behind the first match down.
func (x *Exec) opLRem(op *wire.Op) (*wire.Result, error) {
	d, root, ok, err := x.open(op, RootList)
	if err != nil || !ok {
		return resultInts[0], err
	}
	first, last, gone, err := matches(op, d, root)
	removed := int64(len(gone))
	if err != nil || removed == 0 {
		return resultInts[0], err
	}
	if removed == root.Tail-root.Head {
		d.Delete()
		return intResult(removed), nil
	}
	up := last-root.Head <= root.Tail-1-first
	from, to := first, root.Tail
	if up {
		from, to = root.Head, last+1
	}
	stay := make([][]byte, 0, min(to-from, 1<<16))
	err = listRange(op, d, from, to, false, func(pos int64, value []byte) bool {
		if _, is := gone[pos]; !is {
			stay = append(stay, value)
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	if up {
		root.Head += removed
		dropList(d, root, from, root.Head)
		putValues(d, root.Head, stay)
	} else {
		root.Tail -= removed
		dropList(d, root, root.Tail, to)
		putValues(d, first, stay)
	}
	return intResult(removed), nil
}

// matches finds the positions of values that LREM removes.
func matches(op *wire.Op, d *Doc, root Root) (first, last int64, gone map[int64]struct{}, err error) {
	most, reverse := op.Ints[0], op.Ints[0] < 0
	if reverse {
		most = -most // of the least int64 it stays negative: all
	}
	gone = make(map[int64]struct{})
	first, last = math.MaxInt64, math.MinInt64
	err = listRange(op, d, root.Head, root.Tail, reverse, func(pos int64, value []byte) bool {
		if bytes.Equal(value, op.Args[0]) {
			gone[pos] = struct{}{}
			first, last = min(first, pos), max(last, pos)
		}
		return most <= 0 || int64(len(gone)) < most
	})
	return first, last, gone, err
}

func (x *Exec) opLSet(op *wire.Op) (*wire.Result, error) {
	var sub keySpace
	d, root, ok, err := x.open(op, RootList)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, errNoSuchKey
	}
	at, ok := position(root, op.Ints[0])
	if !ok {
		return nil, errIndexRange
	}
	d.PutRoot(root)
	d.PutSub(sub.number(at), op.Args[0])
	return resultOK, nil
}

// position turns an index, negative ones counted from the end, into a position.
func position(root Root, index int64) (int64, bool) {
	n := root.Tail - root.Head
	if index < 0 {
		index += n
	}
	return root.Head + index, index >= 0 && index < n
}

func (x *Exec) opLInsert(op *wire.Op) (*wire.Result, error) {
	d, root, ok, err := x.open(op, RootList)
	if err != nil || !ok {
		return resultInts[0], err
	}
	at, found := int64(0), false
	err = listRange(op, d, root.Head, root.Tail, false, func(pos int64, value []byte) bool {
		at, found = pos, bytes.Equal(value, op.Args[0])
		return !found
	})
	if err != nil {
		return nil, err
	}
	if !found {
		return intResult(-1), nil
	}
	if op.Flags&wire.FlagBefore == 0 {
		at++
	}
	// The new value stands between [Head, at) and [at, Tail): one of them moves.
	if at-root.Head < root.Tail-at {
		moved, err := listValues(op, d, root.Head, at)
		if err != nil {
			return nil, err
		}
		root.Head--
		putList(d, root)
		putValues(d, root.Head, append(moved, op.Args[1]))
	} else {
		moved, err := listValues(op, d, at, root.Tail)
		if err != nil {
			return nil, err
		}
		root.Tail++
		putList(d, root)
		putValues(d, at, append([][]byte{op.Args[1]}, moved...))
	}
	return intResult(root.Tail - root.Head), nil
}

func (x *Exec) opLLen(op *wire.Op) (*wire.Result, error) { return x.cardinality(op, RootList) }

func (x *Exec) opLRange(op *wire.Op) (*wire.Result, error) {
	d, root, ok, err := x.open(op, RootList)
	if err != nil || !ok {
		return resultEmptyArray, err
	}
	first, last, ok := clampRange(op.Ints[0], op.Ints[1], root.Tail-root.Head)
	if !ok {
		return resultEmptyArray, nil
	}
	var a answer
	err = listRange(op, d, root.Head+first, root.Head+last+1, false, func(_ int64, value []byte) bool {
		a.bytes(value)
		return !a.full()
	})
	if err != nil {
		return nil, err
	}
	return a.result()
}

func (x *Exec) opLIndex(op *wire.Op) (*wire.Result, error) {
	var sub keySpace
	d, root, ok, err := x.open(op, RootList)
	if err != nil || !ok {
		return resultNil, err
	}
	at, ok := position(root, op.Ints[0])
	if !ok {
		return resultNil, nil
	}
	value, ok, err := d.Sub(sub.number(at))
	if err == nil && !ok {
		err = damaged(op, "no value at %d in [%d, %d)", at, root.Head, root.Tail)
	}
	return bytesResult(value), err
}

func (x *Exec) opLPos(op *wire.Op) (*wire.Result, error) {
	rank, count, most := op.Ints[0], op.Ints[1], op.Ints[2]
	switch {
	case rank == 0:
		return nil, errPosRank
	case rank == math.MinInt64:
		return nil, errValueRange
	case count < -1:
		return nil, errPosCount
	case most < 0:
		return nil, errPosMaxLen
	}
	single, reverse := count < 0, rank < 0
	if reverse {
		rank = -rank
	}
	if single {
		count = 1
	}
	d, root, ok, err := x.open(op, RootList)
	if err != nil {
		return nil, err
	}
	var a answer
	if ok {
		var looked int64
		err = listRange(op, d, root.Head, root.Tail, reverse, func(pos int64, value []byte) bool {
			looked++
			if bytes.Equal(value, op.Args[0]) {
				if rank--; rank <= 0 {
					a.int(pos - root.Head)
				}
			}
			return (most == 0 || looked < most) && (count == 0 || int64(len(a.items)) < count) && !a.full()
		})
	}
	switch {
	case err != nil:
		return nil, err
	case !single:
		return a.result()
	case len(a.items) == 0:
		return resultNil, nil
	}
	return a.items[0], nil
}
