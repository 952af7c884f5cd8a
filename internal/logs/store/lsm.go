package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync/atomic"
	"syscall"

	"github.com/cockroachdb/pebble/v2"

	"github.com/braiddb/braid/internal/compactions"
	"github.com/braiddb/braid/internal/manifest"
)

// lsm is one Pebble: a partition's or the marks'. Its log is off; the journal is
// the log. Each of its batches carries the journal position that it is of, so
// each lsm is whole up to a position of its own and says which (P2).
type lsm struct {
	db      *pebble.DB
	written atomic.Uint64 // position of the newest batch
	ended   chan struct{} // closed when a fault has ended one of its goroutines, or of others
	unsure  error         // why it could not be read when this was opened: 0 was taken, nil: it was

	// Of a store without goroutines (Options.Tasks): Pebble flushes a memtable that is
	// full on one of its own, so none may fill.
	flushAt int // at so much it is flushed; 0: by Pebble, when it is full
	filled  int // of it, at most
}

// memTableNode is more than a memtable needs for a key beside it and its value.
const memTableNode = 256

// blockBytes is the size of a block, in which reads are.
const blockBytes = 32 << 10

// openLSM opens the Pebble in dir, or makes one there. One that compacts is the
// marks'; of a partition only deletions ever rewrite anything.
func (s *Store) openLSM(dir string, compacts bool, memTable int64) (*lsm, error) {
	fs, err := manifest.Guard(s.fs, dir)
	if errors.Is(err, manifest.ErrDamaged) {
		err = fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if err != nil {
		return nil, fmt.Errorf("logs/store: open %s: %w", dir, err)
	}
	if !compacts {
		fs = countedFS{fs, &s.shelf.bytesRead}
	}
	begins := compactions.New()
	po := &pebble.Options{
		FS:                          fs,
		Cache:                       s.blocks,
		FileCache:                   s.files,
		DisableWAL:                  true,
		DisableAutomaticCompactions: !compacts,
		FormatMajorVersion:          pebble.FormatValueSeparation,
		MemTableSize:                uint64(memTable),
		MemTableStopWritesThreshold: 3,
		L0CompactionThreshold:       4,
		L0StopWritesThreshold:       24,
		Logger:                      lsmLogger{s},
		EventListener: &pebble.EventListener{
			FlushEnd: func(info pebble.FlushInfo) {
				if info.Err == nil && s.o.Tasks == nil { // it is told on Pebble's goroutine
					s.flushed()
				}
			},
			CompactionEnd: func(info pebble.CompactionInfo) {
				if info.Err == nil {
					begins.Succeeded()
				}
			},
			BackgroundError: func(err error) {
				begins.Failed()
				s.backgroundError(err)
			},
			// Damage is the reader's gap, and another shard's copy; left to itself
			// Pebble would end the process.
			DataCorruption: func(info pebble.DataCorruptionInfo) {
				s.o.Logger.Error("logs/store: damaged file", "path", info.Path, "error", info.Details)
			},
		},
	}
	po.Experimental.CompactionScheduler = begins
	if !compacts {
		po.L0CompactionThreshold, po.L0StopWritesThreshold = math.MaxInt32, math.MaxInt32
	}
	for i := range po.Levels {
		po.Levels[i].BlockSize = blockBytes
		po.Levels[i].IndexBlockSize = 64 << 10
	}
	db, err := pebble.Open(dir, po)
	if err != nil {
		return nil, fmt.Errorf("logs/store: open %s: %w", dir, err)
	}
	l := &lsm{db: db, ended: s.ended}
	if s.o.Tasks != nil {
		l.flushAt = int(memTable * 7 / 16) // a batch of half of one has Pebble begin another
	}
	at, err := l.durable()
	if pebble.IsCorruptionError(err) { // all of the journal is applied again, then
		s.o.Logger.Error("logs/store: position of a damaged partition", "dir", dir, "error", err)
		at, l.unsure, err = 0, err, nil
	}
	if err != nil {
		return nil, errors.Join(err, l.close())
	}
	l.written.Store(at)
	return l, nil
}

// durable reads back up to which position everything would survive a crash now.
func (l *lsm) durable() (uint64, error) {
	it, err := l.db.NewIter(&pebble.IterOptions{LowerBound: appliedKey, UpperBound: []byte{spaceApplied + 1},
		OnlyReadGuaranteedDurable: true})
	if err != nil {
		return 0, err
	}
	defer it.Close()
	if !it.First() {
		return 0, it.Error()
	}
	v, err := it.ValueAndErr()
	if err != nil {
		return 0, err
	}
	if len(v) != 8 {
		return 0, fmt.Errorf("%w: applied position of %d bytes", ErrCorrupt, len(v))
	}
	return binary.BigEndian.Uint64(v), nil
}

// flush makes everything that was written durable. Where the goroutine of a flush has ended
// for a fault nobody tells of its end.
func (l *lsm) flush() error {
	if l.dead() {
		return errEnded
	}
	done, err := l.db.AsyncFlush()
	if err != nil {
		return err
	}
	select {
	case <-done:
		return nil
	case <-l.ended:
		return errEnded
	}
}

// close closes the files, but does not wait for work that a fault has ended, or ends now.
func (l *lsm) close() error {
	if l.dead() {
		return errEnded
	}
	over := make(chan error, 1)
	go func() { over <- l.db.Close() }()
	select {
	case err := <-over:
		return err
	case <-l.ended:
		return errEnded
	}
}

// dead says whether a fault has ended a goroutine in the middle of what it did.
func (l *lsm) dead() bool {
	select {
	case <-l.ended:
		return true
	default:
		return false
	}
}

// commit writes a batch that is of position pos.
func (l *lsm) commit(b *pebble.Batch, pos uint64) error {
	if was := l.written.Load(); pos <= was {
		panic(fmt.Sprintf("BUG: position %d after %d", pos, was)) // P2
	}
	var v [8]byte
	binary.BigEndian.PutUint64(v[:], pos)
	if err := b.Set(appliedKey, v[:], nil); err != nil {
		return err
	}
	if err := l.take(b); err != nil {
		return err
	}
	l.written.Store(pos)
	return nil
}

// take makes a batch readable. It is durable with the next flush.
func (l *lsm) take(b *pebble.Batch) error {
	n := b.Len() + int(b.Count())*memTableNode
	if err := b.Commit(pebble.NoSync); err != nil || l.flushAt == 0 {
		return err
	}
	if l.filled += n; l.filled < l.flushAt {
		return nil
	}
	l.filled = 0
	return l.flush()
}

// writtenBytes is what the store has written to disk for its content.
func (l *lsm) writtenBytes() (flushed, compacted int64) {
	m := l.db.Metrics()
	for i := range m.Levels {
		v := &m.Levels[i]
		flushed += int64(v.TableBytesFlushed + v.BlobBytesFlushed)
		compacted += int64(v.TableBytesCompacted + v.BlobBytesCompacted)
	}
	return flushed, compacted
}

// backgroundError hears of a flush or compaction that failed. The store tries
// again with new files, a compaction after a while. Want of space and damaged input
// leave the node running; an error of the disk does not.
func (s *Store) backgroundError(err error) {
	if errors.Is(err, syscall.ENOSPC) || pebble.IsCorruptionError(err) || errors.Is(err, pebble.ErrCancelledCompaction) {
		s.o.Logger.Error("logs/store: background work failed", "error", err)
		return
	}
	s.fatal(fmt.Errorf("logs/store: background work failed: %w", err))
}

// errEnded is what is told after that.
var errEnded = errors.New("logs/store: the node ends: a file could not be written")

// fail tells of an error after which nothing may be answered any more.
func (s *Store) fail(err error) {
	s.failed.Do(func() {
		close(s.ended)
		s.o.Fatal(err)
	})
}

// fatal ends the goroutine after it has told of the error.
func (s *Store) fatal(err error) {
	s.fail(err)
	if s.o.Tasks != nil {
		panic(err) // there is no goroutine to end
	}
	runtime.Goexit()
}

// lsmLogger passes Pebble's log on.
type lsmLogger struct{ s *Store }

func (l lsmLogger) Infof(string, ...any) {}

func (l lsmLogger) Errorf(format string, args ...any) {
	l.s.o.Logger.Error(fmt.Sprintf(format, args...))
}

func (l lsmLogger) Fatalf(format string, args ...any) {
	l.s.fatal(fmt.Errorf("logs/store: "+format, args...))
}
