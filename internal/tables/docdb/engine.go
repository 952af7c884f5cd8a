package docdb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
)

// ErrCorrupt says that stored data does not decode.
var ErrCorrupt = errors.New("docdb: corrupt data")

// EngineOptions configure an Engine. Zero values are good defaults.
type EngineOptions struct {
	CacheBytes    int64  // block cache; default 64 MiB
	MemTableBytes uint64 // one memtable; up to three exist; default 16 MiB
	Logger        *slog.Logger
	Fatal         func(error) // a disk write failed: the node must end. It must not return; default panics
	OnFlush       func()      // something was flushed: DurableGroupState may have moved
}

func (o EngineOptions) withDefaults() EngineOptions {
	if o.CacheBytes == 0 {
		o.CacheBytes = 64 << 20
	}
	if o.MemTableBytes == 0 {
		o.MemTableBytes = 16 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Fatal == nil {
		o.Fatal = func(err error) { panic(err) }
	}
	if o.OnFlush == nil {
		o.OnFlush = func() {}
	}
	return o
}

// Engine holds the documents and the group states of all tablets of a node. It
// is safe for concurrent use.
type Engine struct {
	o     EngineOptions
	fs    vfs.FS
	dir   string
	db    *pebble.DB
	cache *pebble.Cache
}

// OpenEngine opens the engine in dir, or makes one there.
func OpenEngine(fs vfs.FS, dir string, o EngineOptions) (*Engine, error) {
	e := &Engine{o: o.withDefaults(), fs: fs, dir: dir}
	e.cache = pebble.NewCache(e.o.CacheBytes)
	defer e.cache.Unref()
	po := &pebble.Options{
		FS:                          fs,
		Cache:                       e.cache,
		Comparer:                    comparer,
		DisableWAL:                  true,
		FormatMajorVersion:          pebble.FormatValueSeparation,
		MemTableSize:                e.o.MemTableBytes,
		MemTableStopWritesThreshold: 3,
		Logger:                      pebbleLogger{e},
		EventListener:               &pebble.EventListener{FlushEnd: func(pebble.FlushInfo) { e.o.OnFlush() }},
	}
	po.Experimental.DisableIngestAsFlushable = func() bool { return true }
	for i := range po.Levels {
		po.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	db, err := pebble.Open(dir, po)
	if err != nil {
		return nil, fmt.Errorf("docdb: open %s: %w", dir, err)
	}
	e.db = db
	return e, nil
}

// pebbleLogger passes the store's log on.
type pebbleLogger struct{ e *Engine }

func (l pebbleLogger) Infof(format string, args ...any) {
	l.e.o.Logger.Debug(fmt.Sprintf(format, args...))
}

func (l pebbleLogger) Errorf(format string, args ...any) {
	l.e.o.Logger.Error(fmt.Sprintf(format, args...))
}

func (l pebbleLogger) Fatalf(format string, args ...any) {
	l.e.o.Fatal(fmt.Errorf("docdb: "+format, args...))
}

func (e *Engine) newIter() (*pebble.Iterator, error) { return e.db.NewIter(nil) }

func (e *Engine) readFailed(err error) { e.o.Logger.Error("docdb: read failed", "error", err) }

// Flush makes everything applied so far durable.
func (e *Engine) Flush() error { return e.db.Flush() }

// AsyncFlush starts a flush; OnFlush tells of its end.
func (e *Engine) AsyncFlush() error {
	_, err := e.db.AsyncFlush()
	return err
}

// Close flushes and closes the engine. Views must be closed before.
func (e *Engine) Close() error {
	return errors.Join(e.db.Flush(), e.db.Close())
}

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
		return nil, false, err
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
		return nil, false, it.Error()
	}
	p, err := it.ValueAndErr()
	return clone(p), err == nil, err
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
			return err
		}
		key := it.Key()
		if !fn(key[9:len(key)-1], p) {
			return nil
		}
	}
	return it.Error()
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

// ApplyBatch is the effects of Raft entries and the group state that belongs to
// them. Commit makes them visible together, and a crash loses them together.
type ApplyBatch struct {
	e      *Engine
	b      *pebble.Batch
	docKey []byte
	key    []byte
}

// NewBatch begins a batch. It must be committed or closed.
func (e *Engine) NewBatch() *ApplyBatch { return &ApplyBatch{e: e, b: e.db.NewBatch()} }

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
			a.setVersion(r.tail, t)
			if err := a.b.Set(a.key, r.value, nil); err != nil {
				return taken, err
			}
		case recTruncate:
			lower, upper := Span{Table: table, Start: r.start, End: r.end}.bounds()
			if err := a.b.DeleteRange(lower, upper, nil); err != nil {
				return taken, err
			}
		case recCollect:
			a.setVersion(r.tail, r.time)
			if err := a.b.Delete(a.key, nil); err != nil {
				return taken, err
			}
			continue
		}
		taken++
	}
}

func (a *ApplyBatch) setVersion(tail []byte, t DocTime) {
	a.key = append(append(a.key[:0], a.docKey...), tail...)
	a.key = appendVersion(a.key, len(a.docKey), t)
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

// Commit applies the batch. It does not sync: the journal recovers what a crash
// takes. The batch is closed.
func (a *ApplyBatch) Commit() error {
	err := a.b.Commit(pebble.NoSync)
	return errors.Join(err, a.Close())
}

// Close drops the batch if it was not committed.
func (a *ApplyBatch) Close() error {
	if a.b == nil {
		return nil
	}
	b := a.b
	a.b = nil
	return b.Close()
}
