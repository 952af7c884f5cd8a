package journal

import (
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// books is the ledger with what the shell keeps beside it.
type books struct {
	sync.Mutex
	changed sync.Cond // the spare or its hindrance changed
	*ledger
	file    vfs.File     // of the current segment
	spare   *openSegment // prepared to be the next
	nextGen uint64
	stuck   bool  // the spare cannot be had: no disk space, or the bound is reached
	bound   bool  // stuck: it is the bound
	want    int64 // a segment this large is wanted, for one large group; 0: none
	wantErr error // why it cannot be had
	closing []vfs.File
	buf     []byte

	data      bool   // the last group was more than a closing watermark
	idleArmed bool   // the idle timer runs
	idleAt    uint64 // number of the next group when it was set
	lowSpace  bool
	pressed   bool // OnPressure is running
	press     bool // call it when there is cause: a segment began, or time passed
}

// encoded is a group ready to be written.
type encoded struct {
	file    vfs.File
	buf     []byte
	at      int64
	extent  int64
	refused bool // requests were refused for want of room: begin again
	close   bool // it only closes an idle period
}

// encode finds a place for a group and encodes it. ok is false when nothing of
// it is to be written.
func (j *Journal) encode(group []request) (e encoded, ok bool) {
	b := &j.books
	b.Lock()
	defer b.Unlock()
	j.stats.refused.Add(uint64(b.refusals.judge(group)))
	var forward []*stream
	entries, payload, closing, release := false, false, false, false
	for i := range group {
		r := &group[i]
		if r.err != nil {
			continue
		}
		switch r.task {
		case taskForward:
			forward = b.laggards(j.forwardBytesMax)
			release = b.releasable()
		case taskClose:
			closing = b.data
		default:
			payload = true
			entries = entries || r.entry
		}
	}
	if !payload && !release && !closing {
		return e, false
	}
	if err := j.place(b.size(group, forward), entries, payload); err != nil {
		if !payload {
			return e, false // it is asked for again when there is room
		}
		b.refusals.rollback(0) // what was to lift a bar may be among what is refused now
		j.stats.refused.Add(uint64(refuse(group, err, entries)))
		return encoded{refused: true}, false
	}
	e.file, e.at, e.close = b.file, b.offset, !payload && !release
	e.buf, e.extent = b.ledger.encode(b.buf, group, forward, nil)
	b.buf = e.buf
	if int64(cap(b.buf)) > 2*j.groupBytesMax {
		b.buf = nil
	}
	return e, true
}

// place makes sure that need bytes fit behind the last group, beginning the next
// segment if they must. Entries leave half a segment to the other records unless
// a further segment is sure, and other records leave an eighth to forward
// rewriting: so what frees space has room when space is short (J9).
func (j *Journal) place(need int64, entries, payload bool) error {
	b := &j.books
	for !j.failed.Load() {
		size := b.current().size
		keep := int64(0)
		if b.spare == nil && size == j.o.SegmentBytes {
			switch {
			case entries:
				keep = size / 2
			case payload:
				keep = size / 8
			}
		}
		if b.offset+need+keep <= size {
			return nil
		}
		if need > j.o.SegmentBytes-sector {
			b.want = (need + sector + 4095) &^ 4095
		}
		if b.spare != nil && b.spare.seg.size-sector >= need {
			b.want = 0
			j.roll()
			continue
		}
		if b.want > 0 && b.wantErr != nil || b.want == 0 && b.stuck {
			b.want, b.wantErr = 0, nil
			return fmt.Errorf("%w: no segment for a group of %d bytes", ErrNoSpace, need)
		}
		j.wake()
		b.changed.Wait()
	}
	return j.failure()
}

// roll makes the spare the current segment.
func (j *Journal) roll() {
	b := &j.books
	b.closing = append(b.closing, b.file)
	b.file = b.spare.file
	b.begin(b.spare.seg)
	b.spare, b.press = nil, true
	j.wake()
}

// committed keeps the books of a group that is durable.
func (j *Journal) committed(group []request, e encoded) {
	b := &j.books
	b.Lock()
	free := len(b.free)
	b.ledger.committed(e.extent)
	b.data = !e.close
	if len(b.free) > free || b.releasable() {
		j.wake()
	}
	if b.data && !b.idleArmed {
		j.armIdle()
	}
	b.Unlock()

	s := &j.stats
	s.groups.Add(1)
	s.bytes.Add(uint64(len(e.buf)))
	if e.close {
		s.watermarks.Add(1)
	}
	for i := range group {
		if r := &group[i]; r.err == nil && r.task == taskAppend {
			s.appends.Add(1)
			s.records.Add(uint64(len(r.recs)))
			s.payload.Add(uint64(r.bytes))
		}
	}
}

// armIdle sets the timer after which an idle journal writes its closing
// watermark. It looks twice in the interval, so that a busy journal does not set
// a timer per group.
func (j *Journal) armIdle() {
	b := &j.books
	b.idleArmed, b.idleAt = true, b.number
	j.clock.AfterFunc(j.o.IdleWatermark/2, j.idle)
}

func (j *Journal) idle() {
	b := &j.books
	b.Lock()
	defer b.Unlock()
	b.idleArmed = false
	switch {
	case !b.data || j.failed.Load():
	case b.number == b.idleAt:
		j.ask(taskClose)
	default:
		j.armIdle()
	}
}
