package docdb

import "github.com/braiddb/braid/internal/wire"

// A set has one child per member, as a hash has per field, with an empty value.

func (x *Exec) opSAdd(op *wire.Op) (*wire.Result, error) {
	var sub keySpace
	if err := checkMembers(op.Args, 1); err != nil {
		return nil, err
	}
	d, root, exists, err := x.open(op, RootSet)
	if err != nil {
		return nil, err
	}
	fresh := make([][]byte, 0, min(len(op.Args), 64))
	seen := newSeen(len(op.Args))
	for _, member := range op.Args {
		has, err := hasSub(d, exists, sub.hashed(member))
		if err != nil {
			return nil, err
		}
		if !has && seen.first(member) {
			fresh = append(fresh, member)
		}
	}
	if len(fresh) == 0 {
		return resultInts[0], nil // nothing changes: not even the version
	}
	root.Kind = RootSet
	root.Count += int64(len(fresh))
	d.PutRoot(root)
	for _, member := range fresh {
		d.PutSub(sub.hashed(member), nil)
	}
	return intResult(int64(len(fresh))), nil
}

func (x *Exec) opSRem(op *wire.Op) (*wire.Result, error) { return x.removeHashed(op, RootSet) }

func (x *Exec) opSPop(op *wire.Op) (*wire.Result, error) {
	count, single := op.Ints[0], op.Flags&wire.FlagSingle != 0
	if single {
		count = 1
	}
	if count < 0 {
		return nil, errNotPositive
	}
	d, root, ok, err := x.open(op, RootSet)
	if err != nil {
		return nil, err
	}
	if !ok {
		if single {
			return resultNil, nil
		}
		return resultEmptyArray, nil
	}
	p := picker{op: op, d: d, count: root.Count, dice: dice(op.Ints[1])}
	picked, err := p.distinct(count)
	if err != nil {
		return nil, err
	}
	for _, c := range picked {
		d.DeleteSub(c.sub)
	}
	putShrunk(d, root, int64(len(picked)))
	if single {
		return bytesResult(picked[0].sub[hashedPrefix:]), nil
	}
	var a answer
	for i := range picked {
		picked[i].answer(&a, false)
	}
	return a.result()
}

func (x *Exec) opSMembers(op *wire.Op) (*wire.Result, error) {
	return x.wholeHash(op, RootSet, true, false)
}

func (x *Exec) opSCard(op *wire.Op) (*wire.Result, error) { return x.cardinality(op, RootSet) }

func (x *Exec) opSIsMember(op *wire.Op) (*wire.Result, error) {
	var sub keySpace
	d, _, exists, err := x.open(op, RootSet)
	if err != nil {
		return nil, err
	}
	if op.Flags&wire.FlagSingle != 0 {
		has, err := hasSub(d, exists, sub.hashed(op.Args[0]))
		return boolInt(has), err
	}
	var a answer
	for _, member := range op.Args {
		has, err := hasSub(d, exists, sub.hashed(member))
		if err != nil {
			return nil, err
		}
		a.items = append(a.items, boolInt(has))
	}
	return a.result()
}

func (x *Exec) opSScan(op *wire.Op) (*wire.Result, error) {
	return x.scanHashed(op, RootSet, nil, func(a *answer, member, _ []byte) error {
		a.bytes(member)
		return nil
	})
}

func (x *Exec) opSRandom(op *wire.Op) (*wire.Result, error) { return x.random(op, RootSet, false) }
