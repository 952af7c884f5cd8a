package store

import (
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/braiddb/braid/internal/journal"
	"github.com/braiddb/braid/internal/logs"
)

// Store is one shard. It is safe for concurrent use, and answers whoever calls
// it through the function that comes with the request, once, from any goroutine.
type Store struct {
	o      Options
	fs     vfs.FS
	dir    string
	blocks *pebble.Cache
	files  *pebble.FileCache
	marks  *lsm
	shelf  shelf
	count  counters
	failed sync.Once
	ended  chan struct{} // closed when that has happened
	full   atomic.Bool   // no more stores: the disk is nearly full
	low    atomic.Bool   // stores are taken, but space is getting low

	// settling is held to change what is left of doubt. It is taken before order.
	settling sync.Mutex

	// order is held to give a position and hand it to the journal, so that the
	// journal has positions in ascending order. It is taken before mu.
	order sync.Mutex
	pos   uint64 // last given; under order

	mu         sync.Mutex
	logs       map[logs.LogID]*logState
	open       *partition // where copies go
	recent     recent     // the record cache
	inFlight   int64      // bytes accepted and not applied yet
	streams    map[uint64]*readStream
	streamID   uint64
	wheel      wheel
	doubt      doubt
	openDoubts int    // logs of which something is in doubt
	latterly   uint64 // the newest doubt that came while the store was open, 0: none did
	closed     bool
	torn       map[logs.LogID][]stretch // found unreadable in this life
	released   map[logs.LogID]*logState // whose release moved and is not in the journal

	apply applier
	work  workers

	replaying bool // Open: batches may be in the LSMs already
	outrun    bool // an LSM is ahead of the journal's end, as after the loss of that
	damaged   bool // a partition that was open cannot be read in full
	house     house
	left      leftSweep
	advancing atomic.Bool
}

type counters struct {
	stores, storedBytes, refused, dropped, noSpace, damaged, repaired atomic.Int64
	flushed, compacted, delivered, deliveredBytes                     atomic.Int64
	cacheReads, lsmReads, rotations, drops                            atomic.Int64
}

const (
	storeFormat  = 1
	formatFile   = "FORMAT"
	formatPrefix = "braid log store "
	marksDir     = "marks"
	trashPrefix  = "drop-"
	asidePrefix  = "damaged-"
)

// FormatError says that a directory is of a version that this program does not
// write.
type FormatError struct {
	What       string
	Have, Want uint64
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("logs/store: %s has format %d, this program knows %d", e.What, e.Have, e.Want)
}

// Open opens the shard in dir, or makes one there, and takes from the journal's
// replay what is not in its partitions yet.
func Open(fs vfs.FS, dir string, o Options) (*Store, error) {
	o = o.withDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	s := &Store{o: o, fs: fs, dir: dir, logs: map[logs.LogID]*logState{}, streams: map[uint64]*readStream{},
		released: map[logs.LogID]*logState{}, torn: map[logs.LogID][]stretch{}, streamID: o.Incarnation << 24, ended: make(chan struct{})}
	s.work.init()
	s.apply.init()
	if err := s.checkFormat(); err != nil {
		return nil, err
	}
	s.blocks = pebble.NewCache(o.CacheBytes)
	s.files = pebble.NewFileCache(max(1, bits.Len(uint(o.Workers))), 1000)
	if err := s.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("logs/store: open %s: %w", dir, err), s.closeFiles())
	}
	if o.Tasks == nil {
		s.apply.start(s)
		s.work.start(o.Workers)
	}
	if err := s.settleDoubt(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.setAsideAtOpen()
	s.house.begin(s)
	return s, nil
}

// load is Open's recipe: marks, partitions, journal.
func (s *Store) load() error {
	var err error
	if s.marks, err = s.openLSM(s.fs.PathJoin(s.dir, marksDir), true, min(4<<20, s.o.MemTableBytes)); err != nil {
		return err
	}
	if err := s.loadMarks(); err != nil {
		return err
	}
	if err := s.loadMetadataLogs(); err != nil {
		return err
	}
	if err := s.recoverDoubt(s.recovered()); err != nil {
		return err
	}
	if err := s.loadPartitions(); err != nil {
		return err
	}
	if err := s.replay(); err != nil {
		return err
	}
	if n := len(s.shelf.all); n == 0 || s.shelf.all[n-1].closed || s.shelf.all[n-1].spoilt {
		s.open, err = s.begin()
		return err
	}
	s.open = s.shelf.all[len(s.shelf.all)-1]
	return nil
}

func (s *Store) checkFormat() error {
	path := s.fs.PathJoin(s.dir, formatFile)
	f, err := s.fs.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return s.writeFormat(path)
	}
	if err != nil {
		return fmt.Errorf("logs/store: open %s: %w", path, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 64))
	if err != nil {
		return fmt.Errorf("logs/store: read %s: %w", path, err)
	}
	number, ok := strings.CutPrefix(strings.TrimSpace(string(text)), formatPrefix)
	version, err := strconv.ParseUint(number, 10, 32)
	if !ok || err != nil {
		return fmt.Errorf("%w: %s does not name a format: %q", ErrCorrupt, path, text)
	}
	if version != storeFormat {
		return &FormatError{What: s.dir, Have: version, Want: storeFormat}
	}
	return nil
}

func (s *Store) writeFormat(path string) error {
	if err := s.makeDir(s.dir); err != nil {
		return fmt.Errorf("logs/store: create %s: %w", s.dir, err)
	}
	temp := path + ".new"
	f, err := s.fs.Create(temp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("logs/store: create %s: %w", temp, err)
	}
	_, err = fmt.Fprintf(f, "%s%d\n", formatPrefix, storeFormat)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = s.fs.Rename(temp, path)
	}
	if err == nil {
		err = s.syncDir(s.dir)
	}
	if err != nil {
		return fmt.Errorf("logs/store: write %s: %w", path, err)
	}
	return nil
}

// makeDir makes a directory, and those above it, so that they survive a crash.
func (s *Store) makeDir(dir string) error {
	parent := s.fs.PathDir(dir)
	if _, err := s.fs.Stat(dir); err == nil || parent == dir {
		return err
	}
	if err := s.makeDir(parent); err != nil {
		return err
	}
	if err := s.fs.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return s.syncDir(parent)
}

func (s *Store) syncDir(dir string) error {
	d, err := s.fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// unknown says whether nothing is known of a log, neither here nor to the catalog.
// A request about one is refused and leaves no state: else whoever asks for ids
// that are not there could fill the memory. mu is held.
func (s *Store) unknown(id logs.LogID) bool {
	if s.logs[id] != nil {
		return false
	}
	_, configured := s.o.Attributes(id.DataLog())
	return !configured
}

// isUnknown is unknown for those who do not hold mu.
func (s *Store) isUnknown(id logs.LogID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unknown(id)
}

// peek gives a log's state to look at. Of a log that is new here it is one that is
// not kept. mu is held.
func (s *Store) peek(id logs.LogID) *logState {
	if l := s.logs[id]; l != nil {
		return l
	}
	return &logState{id: id, tailsKnown: true, coverFrom: logs.LSNOldest}
}

// log finds a log's state, making it for a log that is new here: of that one
// everything is known, for there is nothing. mu is held.
func (s *Store) log(id logs.LogID) *logState {
	l := s.logs[id]
	if l == nil {
		l = s.peek(id)
		s.logs[id] = l
	}
	return l
}

// write gives the journal records of the next position. done hears of it; mu is
// not held.
func (s *Store) write(b *batch) {
	s.order.Lock()
	defer s.order.Unlock()
	s.writeOrdered(b)
}

// writeOrdered is write for those who hold order.
func (s *Store) writeOrdered(b *batch) {
	s.pos++
	b.pos = s.pos
	recs := b.recs[:0]
	if len(b.entries) > 0 {
		recs = append(recs, journal.Record{Stream: s.o.Stream, Kind: kindCopies, Pos: b.pos, Payload: b.buf})
	}
	if len(b.marks) > 0 {
		s.noteDeciding(b.marks)
		recs = append(recs, journal.Record{Stream: s.o.Stream, Kind: kindMarks, Pos: b.pos, Payload: encodeMarks(b.marks)})
	}
	s.o.Journal.Append(recs, b.durable)
}

// Pressure asks to let go of the journal: what pins it is flushed.
func (s *Store) Pressure() {
	s.run(func() {
		s.awaitApplied(s.apply.accepted())
		for _, l := range s.writable() {
			if err := s.flush(l.lsm); err != nil {
				s.o.Logger.Error("logs/store: flush", "error", err)
			}
			l.done()
		}
		s.flushed()
	})
}

// flush begins to make an LSM durable; without goroutines it waits for that.
func (s *Store) flush(l *lsm) error {
	if s.o.Tasks != nil {
		return l.flush()
	}
	_, err := l.db.AsyncFlush()
	return err
}

// held is an LSM that is kept open until done.
type held struct {
	lsm  *lsm
	done func()
}

// writable gives the LSMs that may have what is not durable.
func (s *Store) writable() []held {
	out := []held{{s.marks, func() {}}}
	for _, p := range s.shelf.list() {
		s.shelf.mu.Lock()
		closed := p.closed
		s.shelf.mu.Unlock()
		if closed {
			continue
		}
		if l, err := s.acquire(p); err == nil {
			out = append(out, held{l, func() { s.release(p) }})
		}
	}
	return out
}

// flushed is told that some LSM has flushed: the journal may let go. It may run
// under a lock of the LSM.
func (s *Store) flushed() {
	if s.advancing.CompareAndSwap(false, true) {
		s.run(func() {
			s.advancing.Store(false)
			s.advance()
		})
	}
}

// advance moves the journal's low-water mark to where every LSM is durable (P3).
func (s *Store) advance() {
	low := s.apply.position() // before the LSMs are looked at: what comes later is above
	for _, l := range s.writable() {
		written := l.lsm.written.Load()
		durable, err := l.lsm.durable()
		l.done()
		if err != nil {
			s.o.Logger.Error("logs/store: read what is durable", "error", err)
			return
		}
		if durable < written {
			low = min(low, durable)
		}
	}
	if low > 0 {
		s.o.Journal.SetLowWater(s.o.Stream, low)
	}
}

// Close flushes and closes the shard. Requests that wait are answered SHUTDOWN.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	waiting := s.takeAllWaiting()
	s.mu.Unlock()
	s.house.end()
	for _, r := range waiting {
		r.reply(shutdown())
	}
	s.work.stop()
	s.apply.stop()
	err := s.persistReleased()
	for _, l := range s.writable() {
		err = errors.Join(err, l.lsm.flush())
		l.done()
	}
	s.advance()
	return errors.Join(err, s.closeFiles())
}

// Abandon closes the files as they are, as the end of a process does: nothing is
// answered, flushed or written any more.
func (s *Store) Abandon() error {
	s.mu.Lock()
	was := s.closed
	s.closed = true
	s.mu.Unlock()
	if was {
		return nil
	}
	s.house.end()
	if s.o.Tasks == nil {
		s.work.stop()
		s.apply.stop()
	}
	return s.closeFiles()
}

// closeFiles closes without flushing: what is not durable is the journal's.
func (s *Store) closeFiles() error {
	var err error
	for _, p := range s.shelf.list() {
		p.mu.Lock()
		err = errors.Join(err, s.shut(p))
		p.mu.Unlock()
	}
	if s.marks != nil {
		err = errors.Join(err, s.marks.close())
	}
	s.files.Unref()
	s.blocks.Unref()
	return err
}
