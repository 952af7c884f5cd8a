package journal

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Journal is a node's one fsynced sequence of files.
type Journal struct {
	o     Options
	clock Clock
	shelf shelf
	lock  io.Closer
	stats counters

	groupBytesMax   int64
	forwardBytesMax int

	turn    sync.Mutex // held by the worker that writes
	word    sync.Mutex // held while a callback is told its outcome
	queue   queue
	books   books
	writers sync.WaitGroup
	workers sync.WaitGroup // the others
	wakeup  chan struct{}

	full    atomic.Bool
	noDisk  atomic.Bool
	failed  atomic.Bool
	fault   atomic.Pointer[error]
	closeMu sync.Mutex
	closed  bool

	stopped  bool        // no more ticks; under books
	stopTick func() bool // under books
}

// Open reads the journal in dir, decides where it ends, makes that decision
// durable and goes on from there.
func Open(fs vfs.FS, dir string, id Identity, clock Clock, o Options) (*Journal, *Replay, error) {
	o = o.withDefaults()
	if err := o.Validate(); err != nil {
		return nil, nil, err
	}
	j := &Journal{o: o, clock: clock, wakeup: make(chan struct{}, 1),
		groupBytesMax: o.groupBytesMax(), forwardBytesMax: int(o.SegmentBytes / 16)}
	j.shelf = shelf{fs: fs, dir: dir, id: id, failed: &j.failed, stats: &j.stats}
	j.queue.work.L, j.queue.room.L = &j.queue, &j.queue
	j.books.changed.L = &j.books
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		return nil, nil, fmt.Errorf("journal: %w", err)
	}
	lock, err := fs.Lock(fs.PathJoin(dir, "LOCK"))
	if err != nil {
		return nil, nil, fmt.Errorf("journal: lock %s: %w", dir, err)
	}
	j.lock = lock
	replay, err := j.recover(id)
	if err != nil {
		j.failed.Store(true)
		return nil, nil, errors.Join(fmt.Errorf("journal: open %s: %w", dir, err), j.closeFiles())
	}
	j.writers.Add(2)
	go j.work()
	go j.work()
	j.workers.Add(1)
	go j.maintain()
	j.tick()
	j.books.Lock()
	j.armIdle()
	j.books.Unlock()
	return j, replay, nil
}

// recover is Open's recipe.
func (j *Journal) recover(id Identity) (*Replay, error) {
	if err := j.shelf.syncParent(); err != nil {
		return nil, err
	}
	segs, err := j.shelf.readAll()
	if err != nil {
		return nil, err
	}
	v := classify(segs)
	if n := len(v.groups); n > 0 && v.groups[n-1].incarnation > id.Incarnation {
		return nil, fmt.Errorf("%w: %d, this is %d", ErrIncarnation, v.groups[n-1].incarnation, id.Incarnation)
	}
	b := &j.books
	b.ledger = newLedger(id)
	streams, marks := b.adopt(v, segs)
	replay := &Replay{Streams: streams, Suspect: v.suspect, Corrupt: v.corrupt, Torn: v.torn}
	for _, s := range segs {
		b.nextGen = max(b.nextGen, s.gen)
	}
	b.nextGen++
	if err := j.resume(v, b.size(nil, nil)+padded(int64(len(marks))*recordHeaderBytes)); err != nil {
		return nil, err
	}
	if err := j.opening(marks); err != nil {
		return nil, err
	}
	j.report(replay)
	return replay, nil
}

// adopt fills the ledger from what was read.
func (l *ledger) adopt(v *verdict, segs []scanned) (map[StreamID]*StreamReplay, []mark) {
	segments := map[uint64]*segment{}
	for i := range v.groups {
		g := &v.groups[i]
		if segments[g.generation] != nil {
			continue
		}
		at, _ := slices.BinarySearchFunc(segs, g.generation, func(s scanned, gen uint64) int { return cmp.Compare(s.gen, gen) })
		s := &segment{gen: g.generation, size: segs[at].size, firstNumber: g.number}
		segments[g.generation] = s
		l.live = append(l.live, s)
	}
	if n := len(v.groups); n > 0 {
		l.number = v.groups[n-1].number + 1
		l.markGen, l.markEnd = v.tail, uint64(v.end)
		l.roll = v.lastRoll()
	}
	for i := range segs {
		s := &segs[i]
		if segments[s.gen] != nil {
			continue
		}
		seg := &segment{gen: s.gen, size: s.size}
		if len(s.groups) == 0 && !s.dirty && s.gen > v.tail {
			l.free = append(l.free, seg) // prepared and never used
			continue
		}
		l.leaving = append(l.leaving, leaving{seg, l.number})
	}
	l.suspect = v.suspect
	return v.rebuild(l, segments)
}

// lastRoll is what the next group must say of the last one.
func (v *verdict) lastRoll() []rollEntry {
	g := &v.groups[len(v.groups)-1]
	at := map[StreamID]int{}
	var roll []rollEntry
	for i := range g.records {
		r := &g.records[i]
		n, ok := at[r.stream]
		if !ok {
			n = len(roll)
			at[r.stream] = n
			roll = append(roll, rollEntry{stream: r.stream})
		}
		roll[n].seq = r.seq
	}
	return roll
}

// resume makes what was read durable and readies the place to write. Only the
// last group can be less than durable: a process that was killed left it in the
// page cache at best, and after a failed sync the cache may call it clean. So
// its bytes are written again, unchanged. The opening group needs need bytes.
func (j *Journal) resume(v *verdict, need int64) error {
	b := &j.books
	clean := false
	if n := len(v.groups); n > 0 {
		last := &v.groups[n-1]
		f, err := j.shelf.fs.OpenReadWrite(j.shelf.path(segmentName(last.generation)), vfs.WriteCategoryUnspecified)
		if err != nil {
			return err
		}
		b.file = f
		clean = v.clean && b.current().size-v.end >= need+sector
		if err := rewrite(f, int64(last.offset), v.end, clean); err != nil {
			return err
		}
		b.offset = v.end
	}
	if clean {
		return nil
	}
	var reuse *segment
	for i, s := range b.free {
		if s.size == j.o.SegmentBytes {
			reuse = s
			b.free = slices.Delete(b.free, i, i+1)
			break
		}
	}
	made, err := j.shelf.prepare(b.nextGen, j.o.SegmentBytes, reuse)
	if err != nil {
		return err
	}
	b.nextGen++
	if b.file != nil {
		b.closing = append(b.closing, b.file)
	}
	b.file = made.file
	b.begin(made.seg)
	return nil
}

// rewrite writes a file's bytes from..to again, and the zero sector behind them
// if writing is to go on there.
func rewrite(f vfs.File, from, to int64, zero bool) error {
	n := to - from
	buf := make([]byte, n, n+sector)
	if _, err := f.ReadAt(buf, from); err != nil && err != io.EOF {
		return err
	}
	if zero {
		buf = buf[:n+sector]
	}
	if _, err := f.WriteAt(buf, from); err != nil {
		return err
	}
	return synced(f.SyncData())
}

// opening writes the first group of this life: it says where the life before
// ended, whether that end is suspect, and which streams are corrupt.
func (j *Journal) opening(marks []mark) error {
	b := &j.books
	buf, extent := b.encode(nil, nil, nil, marks)
	if b.offset+extent > b.current().size {
		return fmt.Errorf("%w: %d corrupt streams", ErrNoSpace, len(marks))
	}
	if err := j.commit(encoded{file: b.file, buf: buf, at: b.offset}); err != nil {
		return err
	}
	b.ledger.committed(extent)
	b.data = true // so that a closing watermark follows, which vouches for it
	return nil
}

func (j *Journal) report(r *Replay) {
	for _, c := range r.Corrupt {
		j.o.Logger.Error("journal corrupt", "reason", c.Reason, "segment", c.Segment, "offset", c.Offset, "streams", c.Streams)
	}
	if r.Suspect {
		j.o.Logger.Warn("journal tail is suspect", "bytes", r.Torn)
	}
}

func (s *shelf) syncParent() error {
	parent := *s
	parent.dir = s.fs.PathDir(s.dir)
	return parent.syncDir()
}

// readAll reads and scans every segment, in order of generation.
func (s *shelf) readAll() ([]scanned, error) {
	names, err := s.fs.List(s.dir)
	if err != nil {
		return nil, err
	}
	slices.Sort(names) // hexadecimal of one width: the order of generations
	var segs []scanned
	var buf []byte
	seed := seedOf(s.id)
	for _, name := range names {
		gen, ok := generationOf(name)
		if !ok {
			if name == temporary {
				err = s.fs.Remove(s.path(name))
			}
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return nil, err
			}
			continue
		}
		if buf, err = s.read(name, buf); err != nil {
			return nil, err
		}
		if err := s.admit(name, buf); err != nil {
			return nil, err
		}
		segs = append(segs, scan(buf, seed, gen))
	}
	return segs, nil
}

// admit refuses a segment whose sound header says that it is not ours to read.
// One whose header is unsound is read: its groups prove themselves.
func (s *shelf) admit(name string, data []byte) error {
	h, ok := decodeSegmentHeader(data)
	switch {
	case !ok:
		return nil
	case h.format > formatNewest:
		return fmt.Errorf("%w: segment %s has format %d, this version knows %d", ErrFormat, name, h.format, formatNewest)
	case h.id.Cluster != s.id.Cluster || h.id.Node != s.id.Node:
		return fmt.Errorf("%w: segment %s is of node %d, cluster %x", ErrForeign, name, h.id.Node, h.id.Cluster)
	case h.id.Incarnation > s.id.Incarnation:
		return fmt.Errorf("%w: segment %s is of %d, this is %d", ErrIncarnation, name, h.id.Incarnation, s.id.Incarnation)
	}
	return nil
}

// read gives a segment's bytes. What the disk cannot read is given as ones: it
// verifies as nothing and is not empty either.
func (s *shelf) read(name string, buf []byte) ([]byte, error) {
	f, err := s.fs.Open(s.path(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > 2*AppendBytesMax {
		return nil, fmt.Errorf("segment %s has %d bytes, more than any has", name, info.Size())
	}
	size := info.Size() &^ (sector - 1)
	if int64(cap(buf)) < size {
		buf = make([]byte, size)
	}
	buf = buf[:size]
	const chunk = 1 << 20
	for at := int64(0); at < size; at += chunk {
		b := buf[at:min(at+chunk, size)]
		if n, err := f.ReadAt(b, at); n < len(b) && err != nil {
			readSectors(f, b, at)
		}
	}
	return buf, nil
}

func readSectors(f vfs.File, b []byte, at int64) {
	for i := 0; i < len(b); i += sector {
		s := b[i : i+sector]
		if n, err := f.ReadAt(s, at+int64(i)); n < sector && err != nil {
			for k := range s {
				s[k] = 0xff
			}
		}
	}
}

// SetLowWater says that entries of s at positions up to pos are not needed.
func (j *Journal) SetLowWater(s StreamID, pos uint64) {
	b := &j.books
	b.Lock()
	defer b.Unlock()
	if b.lowWater(s, pos) {
		j.ask(taskForward)
	}
}

// Trust says that no stream misses anything at the suspect tail: every one has
// compared its end with its peers'. Until then each Open reports it suspect.
func (j *Journal) Trust() {
	b := &j.books
	b.Lock()
	defer b.Unlock()
	if b.suspect {
		b.suspect, b.data = false, true
		j.ask(taskClose)
	}
}

// Full reports that there is no segment behind the current one, or no disk for it. Of a
// disk that is full no entries are taken any more; at the journal's bound they are while
// half of the segment is left, for they may be what frees it: who can do without should.
func (j *Journal) Full() bool { return j.full.Load() }

// OutOfDisk reports whether Full is for want of disk space. It is not where the
// journal has reached its bound, which passes as soon as the LSM has flushed.
func (j *Journal) OutOfDisk() bool { return j.noDisk.Load() }

// Crowded says that the queue is half full: an Append may soon have to wait for
// room. It is for those who would rather refuse than wait.
func (j *Journal) Crowded() bool {
	j.queue.Lock()
	defer j.queue.Unlock()
	return j.queue.bytes > j.o.QueueBytesMax/2
}

func (j *Journal) failure() error {
	if e := j.fault.Load(); e != nil {
		return *e
	}
	return ErrFailed
}

// fail ends the journal: from here on nothing is written, and nobody is told of
// a success. It returns after Fatal has.
func (j *Journal) fail(err error) {
	if errors.Is(err, errStopped) {
		return
	}
	err = fmt.Errorf("%w: %w", ErrFailed, err)
	if !j.fault.CompareAndSwap(nil, &err) {
		return
	}
	j.failed.Store(true)
	j.queue.Lock()
	j.queue.room.Broadcast()
	j.queue.Unlock()
	j.books.Lock()
	j.books.changed.Broadcast()
	j.books.Unlock()
	j.word.Lock() // a callback that was being told of a success has been
	j.word.Unlock()
	j.o.Fatal(err)
}

// Close writes what is queued and a closing watermark, and waits for the
// journal's goroutines. It must not be called from a callback of the journal.
func (j *Journal) Close() error {
	j.closeMu.Lock()
	defer j.closeMu.Unlock()
	if j.closed {
		return nil
	}
	j.closed = true
	j.books.Lock()
	j.stopped = true
	if j.stopTick != nil {
		j.stopTick()
	}
	j.books.Unlock()
	j.ask(taskClose)
	q := &j.queue
	q.Lock()
	q.closed = true
	q.work.Broadcast()
	q.room.Broadcast()
	q.Unlock()
	j.writers.Wait()
	close(j.wakeup)
	j.workers.Wait()
	return errors.Join(j.closeFiles(), j.fatalFault())
}

func (j *Journal) fatalFault() error {
	if j.failed.Load() {
		return j.failure()
	}
	return nil
}

func (j *Journal) closeFiles() error {
	b := &j.books
	if b.file != nil {
		b.closing = append(b.closing, b.file)
	}
	if b.spare != nil {
		b.closing = append(b.closing, b.spare.file)
	}
	var err error
	for _, f := range b.closing {
		err = errors.Join(err, f.Close())
	}
	b.closing, b.file, b.spare = nil, nil, nil
	return errors.Join(err, j.lock.Close())
}

// Metrics gives the counters.
func (j *Journal) Metrics() Metrics {
	s := &j.stats
	m := Metrics{
		Appends: s.appends.Load(), Records: s.records.Load(), PayloadBytes: s.payload.Load(),
		Groups: s.groups.Load(), Watermarks: s.watermarks.Load(), BytesWritten: s.bytes.Load(),
		Refused: s.refused.Load(), Created: s.created.Load(), Recycled: s.recycled.Load(), Removed: s.removed.Load(),
		Full: j.full.Load(),
	}
	j.queue.Lock()
	m.QueueBytes = j.queue.bytes
	j.queue.Unlock()
	b := &j.books
	b.Lock()
	defer b.Unlock()
	m.Rewritten = b.rewrites
	m.Segments, m.SegmentsFree, m.LiveBytes, m.Streams = len(b.live), len(b.free)+len(b.leaving), b.liveBytes(), b.standing()
	return m
}
