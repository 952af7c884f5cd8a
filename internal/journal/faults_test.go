package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/sim/simfs"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// until waits for a condition that a goroutine of the journal brings about; nudge
// lets time pass for it.
func until(t testing.TB, what string, nudge func(), cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); runtime.Gosched() {
		if cond() {
			return
		}
		nudge()
	}
	t.Fatalf("waited in vain: %s", what)
}

func openSim(t testing.TB, fs *simfs.FS, clock Clock, incarnation uint64, o Options) (*Journal, *Replay) {
	t.Helper()
	j, r, err := Open(fs, "journal", testIdentity(incarnation), clock, o)
	if err != nil {
		t.Fatal(err)
	}
	return j, r
}

// awaitSpare waits until the background has prepared the next segment.
func (j *Journal) awaitSpare(t testing.TB) {
	t.Helper()
	until(t, "a spare segment", func() {}, func() bool {
		j.books.Lock()
		defer j.books.Unlock()
		return j.books.spare != nil
	})
}

// opCounter counts the data operations on segments.
type opCounter struct{ writes, syncs atomic.Int64 }

func (c *opCounter) hook(op simfs.Op) simfs.Fault {
	switch {
	case op.Kind == simfs.OpWrite && op.Offset >= sector && strings.HasSuffix(op.Path, ".journal"):
		c.writes.Add(1)
	case op.Kind == simfs.OpSync && strings.HasSuffix(op.Path, ".journal"):
		c.syncs.Add(1)
	}
	return simfs.Fault{}
}

func TestALoneAppendCostsOneWriteAndOneSync(t *testing.T) {
	fs := simfs.New(simfs.Options{})
	clock := &manualClock{}
	j, _ := openSim(t, fs, clock, 1, Options{SegmentBytes: 256 << 10})
	defer j.Close()
	j.awaitSpare(t)
	var c opCounter
	fs.SetFault(c.hook)
	for i := range 100 {
		appendWait(t, j, entry(1, uint64(i+1), "x"))
		if c.writes.Load() != int64(i+1) || c.syncs.Load() != int64(i+1) {
			t.Fatalf("%d appends cost %d writes and %d syncs", i+1, c.writes.Load(), c.syncs.Load())
		}
	}
}

func TestAnIdleJournalClosesOnce(t *testing.T) {
	fs := simfs.New(simfs.Options{})
	clock := &manualClock{}
	j, _ := openSim(t, fs, clock, 1, Options{})
	defer j.Close()
	appendWait(t, j, entry(1, 1, "x"))
	until(t, "a closing watermark", clock.fire, func() bool { return j.Metrics().Watermarks == 1 })
	groups := j.Metrics().Groups
	for range 100 {
		clock.fire()
	}
	appendWait(t, j, entry(1, 2, "x")) // whatever was asked for before it is done by now
	if m := j.Metrics(); m.Watermarks != 1 || m.Groups != groups+1 {
		t.Errorf("an idle journal went on writing: %+v", m)
	}
	until(t, "the next closing watermark", clock.fire, func() bool { return j.Metrics().Watermarks == 2 })
}

// TestTheNextGroupGathersWhileOneSyncs holds a sync up and looks at what the
// next group holds.
func TestTheNextGroupGathersWhileOneSyncs(t *testing.T) {
	fs := simfs.New(simfs.Options{})
	j, _ := openSim(t, fs, &manualClock{}, 1, Options{})
	defer j.Close()
	held, release := make(chan bool, 1), make(chan bool)
	slow := &slowFile{File: nil, held: held, release: release}
	j.books.Lock()
	slow.File = j.books.file
	j.books.file = slow
	j.books.Unlock()
	before := j.Metrics().Groups
	var wait sync.WaitGroup
	wait.Add(101)
	done := func(error) { wait.Done() }
	j.Append([]Record{entry(1, 1, "first")}, done)
	<-held
	for i := range 100 {
		j.Append([]Record{entry(1, uint64(i+2), "next")}, done)
	}
	close(release)
	wait.Wait()
	if n := j.Metrics().Groups - before; n != 2 {
		t.Errorf("101 appends made %d groups, not 2", n)
	}
}

type slowFile struct {
	vfs.File
	held    chan bool
	release chan bool
}

func (f *slowFile) SyncData() error {
	select {
	case f.held <- true:
	default:
	}
	<-f.release
	return f.File.SyncData()
}

// TestASyncErrorEndsTheJournal: Fatal is called once, and nothing is written,
// synced or acknowledged from then on, whatever the disk says later.
func TestASyncErrorEndsTheJournal(t *testing.T) {
	for _, kind := range []simfs.OpKind{simfs.OpSync, simfs.OpWrite} {
		for _, err := range []error{simfs.ErrIO, simfs.ErrNoSpace} {
			t.Run(fmt.Sprint(kind, err), func(t *testing.T) { syncError1(t, kind, err) })
		}
	}
}

func syncError1(t *testing.T, kind simfs.OpKind, fault error) {
	fs := simfs.New(simfs.Options{})
	clock := &manualClock{}
	var fatals, acked, ops atomic.Int64
	var dead atomic.Bool
	j, _ := openSim(t, fs, clock, 1, Options{SegmentBytes: 256 << 10, Fatal: func(err error) {
		if !errors.Is(err, fault) || !errors.Is(err, ErrFailed) {
			t.Errorf("fatal with %v", err)
		}
		fatals.Add(1)
		dead.Store(true)
	}})
	j.awaitSpare(t)
	left := 3
	fs.SetFault(func(op simfs.Op) simfs.Fault {
		if dead.Load() {
			ops.Add(1)
		}
		if op.Kind == kind {
			if left--; left == 0 {
				return simfs.Fault{Err: fault}
			}
		}
		return simfs.Fault{}
	})
	var wait sync.WaitGroup
	for w := range 8 {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for i := range 50 {
				wasDead := dead.Load()
				if appendErr(j, entry(StreamID(w), uint64(i+1), "x")) == nil {
					acked.Add(1)
					if wasDead {
						t.Error("acknowledged after the fatal fault")
					}
				}
			}
		}()
	}
	wait.Wait()
	for range 10 {
		clock.fire()
	}
	if err := j.Close(); !errors.Is(err, ErrFailed) {
		t.Errorf("close: %v", err)
	}
	if fatals.Load() != 1 || ops.Load() != 0 || acked.Load() >= 400 {
		t.Errorf("%d fatals, %d operations after it, %d acknowledged", fatals.Load(), ops.Load(), acked.Load())
	}
}

// TestAGroupWhoseSyncFailedIsWrittenAgainAtOpen (J4): the page cache still has all of
// it and calls it clean, so that the next life reads it. It builds on it only once the
// group is on the disk, which another sync would not bring about.
func TestAGroupWhoseSyncFailedIsWrittenAgainAtOpen(t *testing.T) {
	fs := simfs.New(simfs.Options{Seed: 5})
	j, _ := openSim(t, fs, &manualClock{}, 1, Options{SegmentBytes: 256 << 10})
	j.awaitSpare(t)
	appendWait(t, j, entry(1, 1, "x"))
	fs.SetFault(func(op simfs.Op) (f simfs.Fault) {
		if op.Kind == simfs.OpSync && strings.HasSuffix(op.Path, ".journal") {
			f.Err = simfs.ErrIO
		}
		return f
	})
	if err := appendErr(j, entry(1, 2, strings.Repeat("y", 16<<10))); !errors.Is(err, ErrFailed) {
		t.Fatalf("a group whose sync failed: %v", err)
	}
	fs = fs.Kill()
	_ = j.Close() // of a process that is no more
	fs.SetFault(nil)
	j, r := openSim(t, fs, &manualClock{}, 2, Options{SegmentBytes: 256 << 10})
	if n := len(r.Streams[1].Records); n != 2 || len(r.Corrupt) != 0 {
		t.Fatalf("%d entries after the kill, damage %v", n, r.Corrupt)
	}
	appendWait(t, j, entry(1, 3, "z"))
	fs = fs.Crash(simfs.Crash{})
	_ = j.Close()
	j, r = openSim(t, fs, &manualClock{}, 3, Options{SegmentBytes: 256 << 10})
	defer j.Close()
	if n := len(r.Streams[1].Records); n != 3 || len(r.Corrupt) != 0 {
		t.Errorf("%d entries of 3 after the power failed, damage %v", n, r.Corrupt)
	}
}

func TestAFullDiskRefusesEntriesAndRecovers(t *testing.T) {
	fs := simfs.New(simfs.Options{Capacity: 10 << 20})
	clock := &manualClock{}
	j, _ := openSim(t, fs, clock, 1, Options{SegmentBytes: 64 << 10, ReserveBytes: 1 << 20})
	defer j.Close()
	appendWait(t, j, entry(1, 1, "x"))
	fs.SetCapacity(fs.Used() + 1<<19)
	until(t, "the journal to see it", clock.fire, j.Full)
	if !j.OutOfDisk() {
		t.Error("a disk below the reserve is not said to be short of space")
	}
	if err := appendErr(j, entry(1, 2, "y")); !errors.Is(err, ErrNoSpace) {
		t.Errorf("an entry below the reserve: %v", err)
	}
	if err := appendErr(j, Record{Stream: 3, Kind: KindLogFirst, Pos: 1}); !errors.Is(err, ErrNoSpace) {
		t.Errorf("copies of a log below the reserve: %v", err)
	}
	for _, k := range []Kind{KindLogMark, KindState, KindTruncate, KindStart, KindDrop} {
		if err := appendErr(j, Record{Stream: 2, Kind: k, Pos: 1}); err != nil {
			t.Errorf("kind %d below the reserve: %v", k, err)
		}
	}
	fs.SetCapacity(fs.Used() + 1<<20 + 1<<16)
	clock.fire()
	clock.fire()
	if !j.Full() {
		t.Error("recovered without an eighth to spare")
	}
	fs.SetCapacity(10 << 20)
	until(t, "recovery", clock.fire, func() bool { return !j.Full() })
	appendWait(t, j, entry(1, 2, "y"))
}

// TestNoSpaceForASegment fills the disk wholly: the journal refuses, loses
// nothing, and goes on when there is space again.
func TestNoSpaceForASegment(t *testing.T) {
	fs := simfs.New(simfs.Options{})
	clock := &manualClock{}
	o := Options{SegmentBytes: 64 << 10, Fatal: func(err error) { t.Errorf("fatal: %v", err) }}
	j, _ := openSim(t, fs, clock, 1, o)
	j.awaitSpare(t)
	fs.SetCapacity(fs.Used())
	pos := uint64(0)
	fill := func() (err error) {
		for err == nil {
			pos++
			err = appendErr(j, entry(1, pos, strings.Repeat("z", 900)))
		}
		pos--
		return err
	}
	if err := fill(); !errors.Is(err, ErrNoSpace) {
		t.Fatal(err)
	}
	if !j.OutOfDisk() {
		t.Error("a full disk is not said to be out of space")
	}
	if pos < 40 {
		t.Errorf("only %d entries went in", pos)
	}
	states := 0
	for appendErr(j, Record{Stream: 2, Kind: KindState, Payload: []byte{byte(states)}}) == nil {
		states++
	}
	if states < 30 {
		t.Errorf("room for %d states only", states)
	}
	big := appendErr(j, entry(1, pos+1, strings.Repeat("b", 100<<10)))
	if !errors.Is(big, ErrNoSpace) {
		t.Errorf("a large entry: %v", big)
	}
	// What frees space still works without any: the low-water mark releases the
	// first segment, which is then reused.
	j.SetLowWater(1, pos)
	until(t, "recovery", clock.fire, func() bool { return !j.Full() })
	pos++
	appendWait(t, j, entry(1, pos, "last"))
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j, r := openSim(t, fs, clock, 2, o)
	defer j.Close()
	s := r.Streams[1]
	if n := len(s.Records); n == 0 || string(s.Records[n-1].Payload) != "last" || s.Corrupt || r.Suspect {
		t.Errorf("%d records, %+v", n, r)
	}
	if s := r.Streams[2]; s.State[0] != byte(states-1) {
		t.Errorf("state %v of %d", s.State, states)
	}
}

func TestPressureNamesTheStreamsThatPin(t *testing.T) {
	fs := simfs.New(simfs.Options{})
	clock := &manualClock{}
	told := make(chan []StreamID, 1000)
	j, _ := openSim(t, fs, clock, 1, Options{SegmentBytes: 16 << 10, SegmentsMax: 8, OnPressure: func(s []StreamID) { told <- s }})
	defer j.Close()
	appendWait(t, j, entry(5, 1, "pins"))
	var err error
	pos := uint64(0)
	for err == nil {
		pos++
		err = appendErr(j, entry(6, pos, strings.Repeat("e", 1000)))
		j.SetLowWater(6, pos)
	}
	if !errors.Is(err, ErrNoSpace) {
		t.Fatal(err)
	}
	if !j.Full() || j.OutOfDisk() {
		t.Errorf("at its bound the journal says full %v, out of disk %v", j.Full(), j.OutOfDisk())
	}
	if pinned := <-told; len(pinned) != 1 || pinned[0] != 5 {
		t.Errorf("pressure on %v", pinned)
	}
	n := len(told)
	until(t, "pressure again as it stays so", clock.fire, func() bool { return len(told) > n })
	j.SetLowWater(5, 1)
	until(t, "recovery", clock.fire, func() bool { return !j.Full() })
	if m := j.Metrics(); m.LiveBytes > 4*16<<10 {
		t.Errorf("%+v", m)
	}
}

// TestAtItsBoundEntriesHaveHalfASegment: what would free the oldest segment may be an
// entry, such as the first of a leader's term, that others wait for. J9.
func TestAtItsBoundEntriesHaveHalfASegment(t *testing.T) {
	const segment = 16 << 10
	clock := &manualClock{}
	j, _ := openSim(t, simfs.New(simfs.Options{}), clock, 1, Options{SegmentBytes: segment, SegmentsMax: 4})
	defer j.Close()
	appendWait(t, j, entry(5, 1, "pins"))
	pos := uint64(0)
	for !j.Full() { // the spare has become the last segment that there may be
		pos++
		if err := appendErr(j, entry(6, pos, strings.Repeat("e", 1000))); err != nil {
			t.Fatalf("entry %d: %v", pos, err)
		}
		j.SetLowWater(6, pos)
		if at := j.Metrics().LiveBytes; at > 3*segment+sector {
			until(t, "the journal to be at its bound", clock.fire, j.Full)
		}
	}
	taken := 0
	for ; ; taken++ {
		pos++
		if err := appendErr(j, entry(6, pos, strings.Repeat("e", 1000))); err != nil {
			if !errors.Is(err, ErrNoSpace) {
				t.Fatal(err)
			}
			break
		}
	}
	if taken < 3 || taken > segment/2/1000 {
		t.Errorf("%d entries of 1000 bytes were taken of a segment of %d", taken, segment)
	}
	for range 3 {
		appendWait(t, j, Record{Stream: 5, Kind: KindState, Payload: []byte(strings.Repeat("s", 1000))})
	}
}

func TestWhatOpenRefuses(t *testing.T) {
	fs := simfs.New(simfs.Options{})
	j, _ := openSim(t, fs, &manualClock{}, 5, Options{})
	if _, _, err := Open(fs, "journal", testIdentity(5), &manualClock{}, Options{}); err == nil {
		t.Error("opened twice at once")
	}
	closeJournal(t, j)
	other := testIdentity(6)
	other.Cluster[0]++
	node := testIdentity(6)
	node.Node++
	for _, c := range []struct {
		id   Identity
		want error
	}{{other, ErrForeign}, {node, ErrForeign}, {testIdentity(4), ErrIncarnation}} {
		if _, _, err := Open(fs, "journal", c.id, &manualClock{}, Options{}); !errors.Is(err, c.want) {
			t.Errorf("%+v: %v", c.id, err)
		}
	}
	var head [sector]byte
	h := segmentHeader{generation: 1, id: testIdentity(5)}
	h.encode(head[:])
	newer(head[:])
	if err := fs.Overwrite(fileOf(1), 0, head[:]); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Open(fs, "journal", testIdentity(6), &manualClock{}, Options{}); !errors.Is(err, ErrFormat) {
		t.Errorf("a newer format: %v", err)
	}
	if _, _, err := Open(fs, "journal", testIdentity(6), &manualClock{}, Options{SegmentBytes: 1000}); err == nil {
		t.Error("odd segment size accepted")
	}
}

func TestBadAppendsAreRefused(t *testing.T) {
	j, _ := openSim(t, simfs.New(simfs.Options{}), &manualClock{}, 1, Options{})
	for _, k := range []Kind{0, kindCorrupt, 7, 15, 0x80 | KindEntry} {
		if err := appendErr(j, Record{Stream: 1, Kind: k, Pos: 1}); !errors.Is(err, ErrBadRecord) {
			t.Errorf("kind %d: %v", k, err)
		}
	}
	appendWait(t, j, Record{Stream: 1, Kind: KindLogFirst, Pos: 1})
	closeJournal(t, j)
	if err := appendErr(j, entry(1, 1, "late")); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	closeJournal(t, j)
}

// TestAFullQueueBlocks holds the disk up and fills the queue.
func TestAFullQueueBlocks(t *testing.T) {
	j, _ := openSim(t, simfs.New(simfs.Options{}), &manualClock{}, 1, Options{QueueBytesMax: 1000})
	defer j.Close()
	held, release := make(chan bool, 1), make(chan bool)
	j.books.Lock()
	j.books.file = &slowFile{File: j.books.file, held: held, release: release}
	j.books.Unlock()
	var wait sync.WaitGroup
	done := func(error) { wait.Done() }
	wait.Add(4)
	j.Append([]Record{entry(1, 1, "in the works")}, done)
	<-held
	if j.Crowded() {
		t.Error("an empty queue is crowded")
	}
	j.Append([]Record{entry(1, 2, strings.Repeat("q", 900))}, done)
	if !j.Crowded() {
		t.Error("a queue that is nearly full is not crowded")
	}
	returned := make(chan bool)
	go func() {
		j.Append([]Record{entry(1, 3, strings.Repeat("q", 900))}, done)
		close(returned)
	}()
	j.Append([]Record{entry(2, 1, "small ones pass")}, done)
	select {
	case <-returned:
		t.Error("the queue took more than it holds")
	default:
	}
	close(release)
	<-returned
	wait.Wait()
}

func TestSteadyStateDoesNotAllocate(t *testing.T) {
	// The idle timer is the one allocation left, two in five milliseconds; this
	// clock's never runs out, so it is set once.
	j, _, err := Open(vfs.Default, t.TempDir(), testIdentity(1), &manualClock{}, Options{})
	must(t, err)
	defer j.Close()
	recs := []Record{entry(1, 1, strings.Repeat("x", 128))}
	c := make(chan error, 1)
	done := func(err error) { c <- err }
	once := func() {
		j.Append(recs, done)
		if err := <-c; err != nil {
			t.Fatal(err)
		}
	}
	once()
	if n := testing.AllocsPerRun(200, once); n > 0 {
		t.Errorf("%v allocations per append", n)
	}
}

// newer turns a header into one of the format after ours.
func newer(head []byte) {
	binary.LittleEndian.PutUint32(head[8:], formatNewest+1)
	binary.LittleEndian.PutUint32(head[4:], crc32.Checksum(head[8:segmentHeaderBytes], castagnoli))
}
