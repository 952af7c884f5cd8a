package docdb

import (
	"errors"

	"github.com/cockroachdb/pebble/v2"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
)

// ApplyBatch is the effects of Raft entries and the group state that belongs to
// them. Commit makes them visible together, and a crash loses them together.
type ApplyBatch struct {
	e      *Engine
	b      *pebble.Batch
	docKey []byte
	key    []byte
}

// NewBatch begins a batch. It must be committed or closed.
func (e *Engine) NewBatch() *ApplyBatch {
	a, _ := e.batches.Get().(*ApplyBatch)
	if a == nil {
		a = &ApplyBatch{e: e}
	}
	a.b = e.db.NewBatch()
	return a
}

// Apply adds the effects of one encoded WriteBatch at its hybrid time. Write ids
// count from first; what the batch takes is returned, so that the next write of
// the entry can go on from there.
func (a *ApplyBatch) Apply(table catalog.TableID, encoded []byte, ht hlc.Timestamp, first uint32) (taken uint32, err error) {
	d, err := decodeBatch(encoded)
	if err != nil {
		return 0, err
	}
	a.docKey = a.docKey[:0]
	for {
		r, ok, err := d.next()
		if err != nil || !ok {
			return taken, err
		}
		t := DocTime{HT: ht, WriteID: first + taken}
		switch r.kind {
		case recDoc:
			a.docKey = append(appendDocHeader(a.docKey[:0], table, 0)[:docHeader-8], r.docKey...)
			continue
		case recSet:
			a.key = append(append(a.key[:0], a.docKey...), r.tail...)
			a.key = appendVersion(a.key, len(a.docKey), t, hintOf(r.tail, r.value))
			if err := a.b.Set(a.key, r.value, nil); err != nil {
				return taken, err
			}
		case recTruncate:
			lower, upper := Span{Table: table, Start: r.start, End: r.end}.bounds()
			if err := a.b.DeleteRange(lower, upper, nil); err != nil {
				return taken, err
			}
		case recCollect:
			a.key = append(append(append(a.key[:0], a.docKey...), r.tail...), r.stamp...)
			if err := a.b.Delete(a.key, nil); err != nil {
				return taken, err
			}
			continue
		}
		taken++
	}
}

// PutGroupState writes a record of a group's state.
func (a *ApplyBatch) PutGroupState(group catalog.GroupID, key, value []byte) error {
	a.key = groupKey(a.key[:0], group, key)
	return a.b.Set(a.key, value, nil)
}

// DeleteGroupState removes a record.
func (a *ApplyBatch) DeleteGroupState(group catalog.GroupID, key []byte) error {
	a.key = groupKey(a.key[:0], group, key)
	return a.b.Delete(a.key, nil)
}

// DeleteGroupStateRange removes the records with from <= key < to; an empty to is
// open.
func (a *ApplyBatch) DeleteGroupStateRange(group catalog.GroupID, from, to []byte) error {
	lower, upper := groupRange(group, from, to)
	return a.b.DeleteRange(lower, upper, nil)
}

// memTableNode is more than a memtable needs for a record beside its key and value.
const memTableNode = 256

// Commit applies the batch. It does not sync: the journal recovers what a crash
// takes. The batch is closed.
func (a *ApplyBatch) Commit() error {
	bytes := a.b.Len() + int(a.b.Count())*memTableNode
	err := a.e.commit(a.b)
	a.e.iters.changed(a.e)
	e := a.e
	err = errors.Join(err, a.Close())
	if err == nil {
		e.o.OnCommit(bytes)
	}
	return err
}

// commit applies a batch while no ingest is under way. The store makes batches and ingests
// visible in one order: a batch behind an ingest whose goroutine a fatal error has ended
// would wait for it for ever.
func (e *Engine) commit(b *pebble.Batch) error {
	e.applying.RLock()
	defer e.applying.RUnlock()
	return e.commitLocked(b)
}

// commitLocked is commit for who holds applying.
func (e *Engine) commitLocked(b *pebble.Batch) error {
	if e.dead.Load() {
		return errFailed
	}
	return b.Commit(pebble.NoSync)
}

// Close drops the batch if it was not committed.
func (a *ApplyBatch) Close() error {
	if a.b == nil {
		return nil
	}
	b := a.b
	a.b = nil
	e := a.e
	e.batches.Put(a)
	return b.Close()
}
