package docdb

import (
	"encoding/binary"
	"math"

	"github.com/braiddb/braid/internal/wire"
)

// A sorted set has two families of children:
//
//	'm' | hash64(member) | member         ->  score, eight bytes big endian
//	's' | score, ordered | member         ->  nothing
//
// The first answers a score and ZSCAN, the second keeps the order: by score, then
// bytewise by member. -0 becomes 0 on its way in (as in Redis, while a sorted set
// is small): the two are one place in the order, and its key cannot tell them
// apart.
const (
	zsetMember = 'm'
	zsetScore  = 's'
)

var (
	zsetMembers = []byte{zsetMember}
	zsetScores  = []byte{zsetScore}
	zsetEnd     = []byte{zsetScore + 1}
)

// zmember is a member's subkey in the member family.
func (k *keySpace) zmember(member []byte) []byte {
	return appendHashed(append(k[:0], zsetMember), member)
}

// zscore is a member's subkey in the score family.
func (k *keySpace) zscore(score float64, member []byte) []byte {
	return append(AppendFloat64(append(k[:0], zsetScore), score), member...)
}

// zentry is a member with its score.
type zentry struct {
	member []byte
	score  float64
}

// decodeZScore reads a child of the score family.
func decodeZScore(op *wire.Op, sub []byte) (zentry, error) {
	if len(sub) < 1+8 {
		return zentry{}, damaged(op, "subkey %x", sub)
	}
	score, member, err := DecodeFloat64(sub[1:])
	if err != nil || math.IsNaN(score) {
		return zentry{}, damaged(op, "score in %x", sub)
	}
	return zentry{member, score}, nil
}

// decodeZMember reads the value of a child of the member family.
func decodeZMember(op *wire.Op, value []byte) (float64, error) {
	if len(value) != 8 {
		return 0, damaged(op, "score %x", value)
	}
	return math.Float64frombits(binary.BigEndian.Uint64(value)), nil
}

// zfind reads the score of a member.
func zfind(op *wire.Op, d *Doc, member []byte) (float64, bool, error) {
	var sub keySpace
	value, ok, err := d.Sub(sub.zmember(member))
	if err != nil || !ok {
		return 0, false, err
	}
	score, err := decodeZMember(op, value)
	return score, err == nil, err
}

// zput writes a member, which has no score at the moment.
func zput(d *Doc, e zentry) {
	var sub keySpace
	var value [8]byte
	if e.score == 0 {
		e.score = 0 // not -0
	}
	binary.BigEndian.PutUint64(value[:], math.Float64bits(e.score))
	d.PutSub(sub.zmember(e.member), value[:])
	d.PutSub(sub.zscore(e.score, e.member), nil)
}

// zremove removes a member that has this score.
func zremove(d *Doc, e zentry) {
	var sub keySpace
	d.DeleteSub(sub.zmember(e.member))
	d.DeleteSub(sub.zscore(e.score, e.member))
}

func checkZAdd(op *wire.Op) error {
	flags := op.Flags
	nx, xx := flags&wire.FlagNX != 0, flags&wire.FlagXX != 0
	gt, lt := flags&wire.FlagGT != 0, flags&wire.FlagLT != 0
	switch {
	case nx && xx:
		return errZAddNXXX
	case gt && nx || lt && nx || gt && lt:
		return errZAddGTLTNX
	case len(op.Args) != len(op.Floats):
		return errMalformed
	case flags&wire.FlagIncr != 0 && len(op.Args) != 1:
		return errZAddIncrPairs
	}
	for _, f := range op.Floats {
		if math.IsNaN(f) {
			return errNotFloat
		}
	}
	return checkMembers(op.Args, 1)
}

func (x *Exec) opZAdd(op *wire.Op) (*wire.Result, error) {
	if err := checkZAdd(op); err != nil {
		return nil, err
	}
	incr := op.Flags&wire.FlagIncr != 0
	d, root, exists, err := x.open(op, RootZSet)
	if err != nil {
		return nil, err
	}
	if !exists {
		if op.Flags&wire.FlagXX != 0 {
			return zaddResult(op, 0, 0, 0, false), nil
		}
		// The life begins now, so that a member given twice finds itself.
		d.PutRoot(Root{Kind: RootZSet})
		if root, _, err = d.Root(); err != nil {
			return nil, err
		}
	}
	var added, changed int64
	var score float64
	for i, member := range op.Args {
		old, has, err := zfind(op, d, member)
		if err != nil {
			return nil, err
		}
		var write bool
		if score, write, err = zaddScore(op.Flags, old, has, op.Floats[i]); err != nil {
			return nil, err // of a lone increment: nothing is written yet
		}
		switch {
		case !write:
			if incr {
				return resultNil, nil
			}
		case !has:
			added++
			zput(d, zentry{member, score})
		case score != old:
			changed++
			zremove(d, zentry{member, old})
			zput(d, zentry{member, score})
		}
	}
	if added+changed > 0 {
		root.Kind = RootZSet
		root.Count += added
		d.PutRoot(root)
	}
	return zaddResult(op, added, changed, score, true), nil
}

// zaddScore decides what one member's score becomes, and whether it is written
// at all.
func zaddScore(flags uint64, old float64, has bool, score float64) (float64, bool, error) {
	if !has {
		return score, flags&wire.FlagXX == 0, nil
	}
	if flags&wire.FlagNX != 0 {
		return 0, false, nil
	}
	if flags&wire.FlagIncr != 0 {
		if score += old; math.IsNaN(score) {
			return 0, false, errScoreNaN
		}
	}
	if flags&wire.FlagGT != 0 && score <= old || flags&wire.FlagLT != 0 && score >= old {
		return 0, false, nil
	}
	return score, true, nil
}

func zaddResult(op *wire.Op, added, changed int64, score float64, written bool) *wire.Result {
	if op.Flags&wire.FlagIncr != 0 {
		if !written {
			return resultNil
		}
		return doubleResult(score)
	}
	if op.Flags&wire.FlagCH != 0 {
		added += changed
	}
	return intResult(added)
}

func (x *Exec) opZRem(op *wire.Op) (*wire.Result, error) {
	d, root, ok, err := x.open(op, RootZSet)
	if err != nil || !ok {
		return resultInts[0], err
	}
	var removed int64
	for _, member := range op.Args {
		score, has, err := zfind(op, d, member)
		if err != nil {
			return nil, err
		}
		if has {
			removed++
			zremove(d, zentry{member, score})
		}
	}
	putShrunk(d, root, removed)
	return intResult(removed), nil
}

func (x *Exec) opZRemRange(op *wire.Op) (*wire.Result, error) {
	r, err := rangeOf(op)
	if err != nil {
		return nil, err
	}
	d, root, ok, err := x.open(op, RootZSet)
	if err != nil || !ok {
		return resultInts[0], err
	}
	entries, err := r.entries(op, d, root, math.MaxInt)
	if err != nil {
		return nil, err
	}
	zremoveAll(d, root, entries)
	return intResult(int64(len(entries))), nil
}

// zremoveAll removes entries; all of them is one tombstone.
func zremoveAll(d *Doc, root Root, entries []zentry) {
	if int64(len(entries)) < root.Count {
		for _, e := range entries {
			zremove(d, e)
		}
	}
	putShrunk(d, root, int64(len(entries)))
}

func (x *Exec) opZPop(op *wire.Op) (*wire.Result, error) {
	count := op.Ints[0]
	if count < 0 {
		return nil, errNotPositive
	}
	d, root, ok, err := x.open(op, RootZSet)
	if err != nil || !ok || count == 0 {
		return resultEmptyArray, err
	}
	r := zrange{byRank: true, stop: count - 1, reverse: op.Flags&wire.FlagReverse != 0}
	entries, err := r.entries(op, d, root, answerBytesMax)
	if err != nil {
		return nil, err
	}
	zremoveAll(d, root, entries)
	return zanswer(entries)
}

func zanswer(entries []zentry) (*wire.Result, error) {
	var a answer
	for _, e := range entries {
		a.bytes(e.member)
		a.double(e.score)
	}
	return a.result()
}

func (x *Exec) opZScore(op *wire.Op) (*wire.Result, error) {
	d, _, exists, err := x.open(op, RootZSet)
	if err != nil {
		return nil, err
	}
	var a answer
	for _, member := range op.Args {
		var score float64
		var has bool
		if exists {
			if score, has, err = zfind(op, d, member); err != nil {
				return nil, err
			}
		}
		if op.Flags&wire.FlagSingle != 0 {
			if has {
				return doubleResult(score), nil
			}
			return resultNil, nil
		}
		if has {
			a.double(score)
		} else {
			a.null()
		}
	}
	return a.result()
}

func (x *Exec) opZCard(op *wire.Op) (*wire.Result, error) { return x.cardinality(op, RootZSet) }

func (x *Exec) opZScan(op *wire.Op) (*wire.Result, error) {
	return x.scanHashed(op, RootZSet, zsetMembers, func(a *answer, member, value []byte) error {
		score, err := decodeZMember(op, value)
		a.bytes(member)
		a.double(score)
		return err
	})
}
