package docdb

import (
	"encoding/binary"
	"errors"

	"github.com/cockroachdb/pebble/v2"

	"github.com/braiddb/braid/internal/catalog"
)

func groupKey(dst []byte, group catalog.GroupID, key []byte) []byte {
	dst = append(dst, spaceGroup)
	dst = binary.BigEndian.AppendUint64(dst, uint64(group))
	return append(append(dst, key...), 0)
}

// GroupState reads a record of a group's state.
func (e *Engine) GroupState(group catalog.GroupID, key []byte) ([]byte, bool, error) {
	p, done, err := e.db.Get(groupKey(nil, group, key))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, storeError(err)
	}
	return clone(p), true, done.Close()
}

// DurableGroupState is GroupState as it would be after a crash now.
func (e *Engine) DurableGroupState(group catalog.GroupID, key []byte) ([]byte, bool, error) {
	it, err := e.db.NewIter(&pebble.IterOptions{OnlyReadGuaranteedDurable: true})
	if err != nil {
		return nil, false, err
	}
	defer it.Close()
	if !it.SeekPrefixGE(groupKey(nil, group, key)) {
		return nil, false, storeError(it.Error())
	}
	p, err := it.ValueAndErr()
	return clone(p), err == nil, storeError(err)
}

// ScanGroupState visits a group's records with from <= key < to in order; an
// empty to is open. fn borrows what it is given and returns whether to go on.
func (e *Engine) ScanGroupState(group catalog.GroupID, from, to []byte, fn func(key, value []byte) bool) error {
	lower, upper := groupRange(group, from, to)
	it, err := e.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		p, err := it.ValueAndErr()
		if err != nil {
			return storeError(err)
		}
		key := it.Key()
		if !fn(key[9:len(key)-1], p) {
			return nil
		}
	}
	return storeError(it.Error())
}

func groupRange(group catalog.GroupID, from, to []byte) (lower, upper []byte) {
	lower = groupKey(nil, group, from)
	if len(to) > 0 {
		return lower, groupKey(nil, group, to)
	}
	if group == 1<<64-1 {
		return lower, []byte{spaceGroup + 1, 0}
	}
	return lower, groupKey(nil, group+1, nil)
}
