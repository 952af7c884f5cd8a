package docdb

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/braiddb/braid/internal/compactions"
	"github.com/braiddb/braid/internal/manifest"
)

// ErrCorrupt says that stored data does not decode.
var ErrCorrupt = errors.New("docdb: corrupt data")

// EngineOptions configure an Engine. Zero values are good defaults.
type EngineOptions struct {
	// CacheBytes is the size of the block cache. Default 64 MiB.
	CacheBytes int64
	// MemTableBytes is the size of one memtable; up to three exist. Default 16 MiB.
	MemTableBytes uint64
	// Compactions run at once at most. Default 1: they share the machine with the
	// requests.
	Compactions int
	Logger      *slog.Logger
	// Fatal is told once when a file cannot be written or synced: the node must
	// end. If it returns, the goroutine that met the error ends there, and nothing
	// becomes durable any more. Default: panic.
	Fatal func(error)
	// OnFlush is called after a flush: DurableGroupState may have moved. It runs
	// under a lock of the store: it must return at once and not call the engine.
	OnFlush func()
	// OnCommit is called after a batch of applied entries is visible, by who committed
	// it, with what the batch takes of a memtable at most. It may flush: what a crash
	// leaves then ends with that batch.
	OnCommit func(bytes int)

	separateFrom int // values of this size and more leave the tree; tests lower it
	blockBytes   int // of a data block; tests lower it
	fileBytes    int // of a table; 0 is the store's choice
}

func (o EngineOptions) withDefaults() EngineOptions {
	if o.CacheBytes == 0 {
		o.CacheBytes = 64 << 20
	}
	if o.MemTableBytes == 0 {
		o.MemTableBytes = 16 << 20
	}
	if o.Compactions == 0 {
		o.Compactions = 1
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
	if o.OnCommit == nil {
		o.OnCommit = func(int) {}
	}
	if o.separateFrom == 0 {
		o.separateFrom = 2 << 10
	}
	if o.blockBytes == 0 {
		o.blockBytes = 16 << 10
	}
	return o
}

// Engine holds the documents and the group states of all tablets of a node. It
// is safe for concurrent use. Nothing may be called after Close.
type Engine struct {
	o  EngineOptions
	fs vfs.FS
	// dir holds FORMAT, DAMAGED, db (Pebble's) and ingest (files on their way in).
	dir   string
	db    *pebble.DB
	po    *pebble.Options
	cache *pebble.Cache

	compactions *compactions.Scheduler
	damage      damage

	iters   iterPool
	views   sync.Pool // *View
	batches sync.Pool // *ApplyBatch

	// applying is held shared while a batch commits, and exclusively by an ingest, and
	// where a sweep deletes a range that it has just seen to be dead.
	applying sync.RWMutex
	ingests  atomic.Uint64 // names the files of ingests
	failed   sync.Once     // Fatal
	dead     atomic.Bool   // it was called: goroutines have ended in the middle of what they did
	ended    chan struct{} // closed then
	// installing is held by the one ingest that hands its files over.
	installing chan struct{}

	flushes, backgroundErrors atomic.Int64
	collected                 atomic.Int64
}

const (
	engineFormat = 1
	formatFile   = "FORMAT"
	formatPrefix = "braid docdb "
)

// OpenEngine opens the engine in dir, or makes one there. A directory of another
// format version is refused with a *FormatError.
func OpenEngine(fs vfs.FS, dir string, o EngineOptions) (*Engine, error) {
	e := &Engine{o: o.withDefaults(), fs: fs, dir: dir, compactions: compactions.New(), ended: make(chan struct{}), installing: make(chan struct{}, 1)}
	if err := e.checkFormat(); err != nil {
		return nil, err
	}
	if err := fs.RemoveAll(e.ingestDir()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("docdb: open %s: %w", dir, err)
	}
	guarded, err := manifest.Guard(fs, fs.PathJoin(dir, "db"))
	if err != nil {
		return nil, fmt.Errorf("docdb: open %s: %w; wipe this node's data directory and let it rejoin as a new one: its tablets have other replicas", dir, err)
	}
	if err := e.loadDamage(); err != nil {
		return nil, err
	}
	e.cache = pebble.NewCache(e.o.CacheBytes)
	e.po = e.pebbleOptions()
	e.po.FS = guarded
	e.po.EnsureDefaults() // the writers of ingested files need them too
	db, err := pebble.Open(fs.PathJoin(dir, "db"), e.po)
	if err != nil {
		e.cache.Unref()
		return nil, fmt.Errorf("docdb: open %s: %w", dir, err)
	}
	e.db = db
	return e, nil
}

func (e *Engine) ingestDir() string { return e.fs.PathJoin(e.dir, "ingest") }

// checkFormat reads the format file, or writes it in a directory that has none.
func (e *Engine) checkFormat() error {
	path := e.fs.PathJoin(e.dir, formatFile)
	f, err := e.fs.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		if err := e.makeDir(e.dir); err != nil {
			return fmt.Errorf("docdb: create %s: %w", e.dir, err)
		}
		return e.writeFile(formatFile, fmt.Appendf(nil, "%s%d\n", formatPrefix, engineFormat))
	}
	if err != nil {
		return fmt.Errorf("docdb: open %s: %w", path, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 64))
	if err != nil {
		return fmt.Errorf("docdb: read %s: %w", path, err)
	}
	number, ok := strings.CutPrefix(strings.TrimSpace(string(text)), formatPrefix)
	version, err := strconv.ParseUint(number, 10, 32)
	if !ok || err != nil {
		return fmt.Errorf("%w: %s does not name a format: %q", ErrCorrupt, path, text)
	}
	if version != engineFormat {
		return &FormatError{What: e.dir, Have: version, Want: engineFormat}
	}
	return nil
}

// writeFile writes a small file of the engine's directory, durably and at once.
func (e *Engine) writeFile(name string, content []byte) error {
	path := e.fs.PathJoin(e.dir, name)
	temp := path + ".new"
	f, err := e.fs.Create(temp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("docdb: create %s: %w", temp, err)
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = e.fs.Rename(temp, path)
	}
	if err == nil {
		err = e.syncDir(e.dir)
	}
	if err != nil {
		return fmt.Errorf("docdb: write %s: %w", path, err)
	}
	return nil
}

// makeDir makes a directory, and those above it, so that they survive a crash.
func (e *Engine) makeDir(dir string) error {
	parent := e.fs.PathDir(dir)
	if _, err := e.fs.Stat(dir); err == nil || parent == dir {
		return err
	}
	if err := e.makeDir(parent); err != nil {
		return err
	}
	if err := e.fs.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return e.syncDir(parent)
}

func (e *Engine) syncDir(dir string) error {
	d, err := e.fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (e *Engine) pebbleOptions() *pebble.Options {
	po := &pebble.Options{
		FS:                         e.fs,
		Cache:                      e.cache,
		Comparer:                   comparer,
		DisableWAL:                 true, // the journal is the log
		FormatMajorVersion:         pebble.FormatValueSeparation,
		MemTableSize:               e.o.MemTableBytes,
		CompactionConcurrencyRange: func() (int, int) { return 1, e.o.Compactions },
		MaxOpenFiles:               2000,
		Logger:                     pebbleLogger{e},
		BlockPropertyCollectors:    []func() pebble.BlockPropertyCollector{newGarbageCollector},
		EventListener: &pebble.EventListener{
			FlushEnd: func(info pebble.FlushInfo) {
				if info.Err == nil {
					e.flushes.Add(1)
					e.o.OnFlush()
				}
			},
			BackgroundError: e.backgroundError,
			CompactionEnd: func(info pebble.CompactionInfo) {
				if info.Err == nil {
					e.compactions.Succeeded()
				}
			},
			// Who reads what is damaged is refused (ErrCorrupt), as is a compaction;
			// left to itself the store would end the node.
			DataCorruption: e.found,
		},
		MemTableStopWritesThreshold: 3,
		L0CompactionThreshold:       4,
		L0StopWritesThreshold:       24,
		LBaseMaxBytes:               64 << 20,
	}
	x := &po.Experimental
	x.CompactionScheduler = e.compactions
	// With the log off, an ingest that waits in the memtables is not durable when
	// it returns; this makes it flush them first instead.
	x.DisableIngestAsFlushable = func() bool { return true }
	// Large values are written once by the flush and not again by compactions.
	x.ValueSeparationPolicy = func() pebble.ValueSeparationPolicy {
		return pebble.ValueSeparationPolicy{
			Enabled:               true,
			MinimumSize:           e.o.separateFrom,
			MaxBlobReferenceDepth: 10,
			RewriteMinimumAge:     5 * time.Minute,
			TargetGarbageRatio:    0.3,
		}
	}
	// Two keys of one prefix are two children as often as two versions of one:
	// neither is to be kept apart from its value for that.
	x.SpanPolicyFunc = func([]byte) (pebble.SpanPolicy, []byte, error) {
		return pebble.SpanPolicy{DisableValueSeparationBySuffix: true}, nil, nil
	}
	for i := range po.TargetFileSizes {
		po.TargetFileSizes[i] = int64(e.o.fileBytes)
	}
	for i := range po.Levels {
		l := &po.Levels[i]
		l.FilterPolicy = bloom.FilterPolicy(10)
		l.FilterType = pebble.TableFilter
		l.BlockSize = e.o.blockBytes
		l.IndexBlockSize = 64 << 10
	}
	return po
}

// backgroundError hears of a flush or compaction that failed. The store tries
// again with new files, a compaction after a while. Want of space and damaged input leave the node running;
// an error of the disk does not.
func (e *Engine) backgroundError(err error) {
	e.backgroundErrors.Add(1)
	e.compactions.Failed()
	if errors.Is(err, syscall.ENOSPC) || pebble.IsCorruptionError(err) || errors.Is(err, pebble.ErrCancelledCompaction) {
		e.o.Logger.Error("docdb: background work failed", "error", err)
		return
	}
	e.fatal(fmt.Errorf("docdb: background work failed: %w", err))
}

// fatal ends the goroutine after it has told of the error.
func (e *Engine) fatal(err error) {
	e.dead.Store(true)
	e.failed.Do(func() {
		close(e.ended)
		e.o.Fatal(err)
	})
	runtime.Goexit()
}

// pebbleLogger passes the store's log on.
type pebbleLogger struct{ e *Engine }

func (l pebbleLogger) Infof(format string, args ...any) {}

func (l pebbleLogger) Errorf(format string, args ...any) {
	l.e.o.Logger.Error(fmt.Sprintf(format, args...))
}

func (l pebbleLogger) Fatalf(format string, args ...any) {
	l.e.fatal(fmt.Errorf("docdb: "+format, args...))
}

func (e *Engine) readFailed(err error) {
	e.o.Logger.Error("docdb: read failed", "error", err)
}

// Flush makes everything applied so far durable. Where the goroutine of a flush has ended
// for a fault nobody tells of its end.
func (e *Engine) Flush() error {
	if e.dead.Load() {
		return errFailed
	}
	done, err := e.db.AsyncFlush()
	if err != nil {
		return err
	}
	select {
	case <-done:
		return nil
	case <-e.ended:
		return errFailed
	}
}

// AsyncFlush starts a flush; OnFlush tells of its end.
func (e *Engine) AsyncFlush() error {
	_, err := e.db.AsyncFlush()
	return err
}

// Close flushes and closes the engine. Views and snapshots must be closed before.
func (e *Engine) Close() error {
	e.iters.changed(e)
	err := e.Flush()
	return errors.Join(err, e.Abandon())
}

// Abandon closes the engine without flushing: what is not durable yet is lost, as
// when the process ends.
func (e *Engine) Abandon() error {
	e.iters.changed(e)
	err := e.db.Close()
	e.cache.Unref()
	return err
}

// Metrics is what the engine did since it was opened.
type Metrics struct {
	BytesFlushed      int64 // written to disk by flushes
	BytesCompacted    int64 // written to disk by compactions
	BytesIngested     int64 // brought in by snapshots
	BytesOnDisk       int64 // of the store's files
	MemTableBytes     int64 // in memtables
	Flushes           int64 // flushes done
	Compactions       int64 // compactions done
	CompactionDebt    int64 // bytes that compactions have still to move
	L0Sublevels       int64 // files a read of one key may have to look into before the levels; writes stop at 24
	CacheBytes        int64 // in the block cache
	CacheHits         int64 // blocks found in the cache
	CacheMisses       int64 // blocks read from files
	FilterHits        int64 // files a Bloom filter kept a read out of
	FilterMisses      int64 // files it did not
	VersionsCollected int64 // old versions deleted by sweeps
	BackgroundErrors  int64 // failed flushes and compactions
}

// Metrics reads the counters.
func (e *Engine) Metrics() Metrics {
	m := e.db.Metrics()
	out := Metrics{
		BytesOnDisk:       int64(m.DiskSpaceUsage()),
		MemTableBytes:     int64(m.MemTable.Size),
		Flushes:           e.flushes.Load(),
		Compactions:       m.Compact.Count,
		CompactionDebt:    int64(m.Compact.EstimatedDebt),
		L0Sublevels:       int64(m.Levels[0].Sublevels),
		CacheBytes:        m.BlockCache.Size,
		CacheHits:         m.BlockCache.Hits,
		CacheMisses:       m.BlockCache.Misses,
		FilterHits:        m.Filter.Hits,
		FilterMisses:      m.Filter.Misses,
		VersionsCollected: e.collected.Load(),
		BackgroundErrors:  e.backgroundErrors.Load(),
	}
	for i := range m.Levels {
		l := &m.Levels[i]
		out.BytesFlushed += int64(l.TableBytesFlushed + l.BlobBytesFlushed)
		out.BytesCompacted += int64(l.TableBytesCompacted + l.BlobBytesCompacted)
		out.BytesIngested += int64(l.TableBytesIngested)
	}
	return out
}
