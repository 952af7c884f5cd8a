package journal

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// A request waits in the queue.
type request struct {
	recs  []Record
	done  func(error)
	bytes int64 // of payloads
	entry bool  // has entries: refused while space is low
	task  task
	err   error
}

// task is what the journal asks of its own writer.
type task uint8

const (
	taskAppend  task = iota
	taskForward      // write laggards forward
	taskClose        // closing watermark
)

// queue is what waits to be written, and what waits to be told.
type queue struct {
	sync.Mutex
	work    sync.Cond // signalled when something waits or the journal closes
	room    sync.Cond // signalled when bytes went down
	waiting []request
	bytes   int64
	closed  bool
	asked   [3]bool // tasks that already wait
	spare   []request

	told      []request // durable or refused, not yet told
	telling   bool      // a worker is telling
	toldSpare []request
}

// counters are shared by the room's goroutines.
type counters struct {
	appends, records, payload, groups, watermarks atomic.Uint64
	bytes, refused, created, recycled, removed    atomic.Uint64
}

// Append queues records to become durable together and returns; it blocks only
// while the queue is full. done is called once, in the order of the Appends,
// never two at a time, when the records are durable or cannot be.
func (j *Journal) Append(recs []Record, done func(error)) {
	r := request{recs: recs, done: done}
	for i := range recs {
		k := recs[i].Kind
		r.bytes += int64(len(recs[i].Payload))
		r.entry = r.entry || k == KindEntry || (k >= KindLogFirst && k < KindLogMark)
		if k == 0 || (k > KindDrop && k < KindLogFirst) || k&flagRewritten != 0 {
			r.err = fmt.Errorf("%w: kind %d", ErrBadRecord, k)
		}
	}
	if r.bytes > AppendBytesMax {
		r.err = fmt.Errorf("%w: %d bytes of %d", ErrTooLarge, r.bytes, int64(AppendBytesMax))
	}
	q := &j.queue
	q.Lock()
	for q.bytes > 0 && q.bytes+r.bytes > j.o.QueueBytesMax && !q.closed && !j.failed.Load() {
		q.room.Wait()
	}
	if q.closed {
		q.Unlock()
		done(ErrClosed)
		return
	}
	q.bytes += r.bytes
	q.waiting = append(q.waiting, r)
	q.work.Signal()
	q.Unlock()
}

// ask queues a task for the writer unless it waits already.
func (j *Journal) ask(t task) {
	q := &j.queue
	q.Lock()
	defer q.Unlock()
	if q.closed || q.asked[t] {
		return
	}
	q.asked[t] = true
	q.waiting = append(q.waiting, request{task: t})
	q.work.Signal()
}

// work is one of two workers. One of them writes and syncs; when its group is
// durable it lets the other go on with the next and calls the group's callbacks
// itself. So a lone Append costs one hand-over between goroutines, and callbacks
// never hold up the disk: while they run, the other worker leaves its finished
// groups with the teller.
func (j *Journal) work() {
	defer j.writers.Done()
	for {
		j.turn.Lock()
		for {
			group, more := j.gather()
			if !more {
				j.turn.Unlock()
				return
			}
			j.write(group)
			if j.leave(group) {
				break // nobody is telling: this worker does
			}
		}
		j.turn.Unlock()
		j.tell()
	}
}

// gather waits for requests and takes what a group may hold. It gives nothing
// when the journal is closed and the queue empty.
func (j *Journal) gather() ([]request, bool) {
	q := &j.queue
	q.Lock()
	defer q.Unlock()
	for len(q.waiting) == 0 {
		if q.closed {
			return nil, false
		}
		q.work.Wait()
	}
	n, bytes := 0, int64(0)
	for n < len(q.waiting) {
		b := q.waiting[n].bytes + int64(len(q.waiting[n].recs))*recordHeaderBytes
		if n > 0 && bytes+b > j.groupBytesMax {
			break
		}
		bytes += b
		q.asked[q.waiting[n].task] = false
		n++
	}
	group := append(q.spare[:0], q.waiting[:n]...)
	q.spare = nil
	rest := copy(q.waiting, q.waiting[n:])
	clear(q.waiting[rest:])
	q.waiting = q.waiting[:rest]
	for i := range group {
		q.bytes -= group[i].bytes
	}
	q.room.Broadcast()
	return group, true
}

// write makes a group durable and notes in each request how it went.
func (j *Journal) write(group []request) {
	for {
		if j.failed.Load() {
			refuse(group, j.failure(), false)
			return
		}
		if j.noDisk.Load() { // at its bound place decides: half a segment may be left (J9)
			j.stats.refused.Add(uint64(refuse(group, ErrNoSpace, true)))
		}
		e, ok := j.encode(group)
		if e.refused {
			continue
		}
		if !ok {
			return // nothing is left to write
		}
		if err := j.commit(e); err != nil {
			j.fail(err)
			continue
		}
		j.committed(group, e)
		return
	}
}

// refuse gives err to the requests that have none yet, to all of them or to
// those with entries, and says how many that were.
func refuse(group []request, err error, entriesOnly bool) int {
	n := 0
	for i := range group {
		if r := &group[i]; r.err == nil && (r.entry || !entriesOnly) {
			r.err = err
			n++
		}
	}
	return n
}

// commit is the one write and the one sync that a group costs.
func (j *Journal) commit(e encoded) error {
	if _, err := e.file.WriteAt(e.buf, e.at); err != nil {
		return fmt.Errorf("write group: %w", err)
	}
	if err := e.file.SyncData(); err != nil {
		return fmt.Errorf("sync group: %w", err)
	}
	return nil
}

// leave hands a finished group to the teller and reports whether the caller is
// to be it.
func (j *Journal) leave(group []request) bool {
	q := &j.queue
	q.Lock()
	defer q.Unlock()
	q.told = append(q.told, group...)
	clear(group)
	q.spare = group[:0]
	if q.telling {
		return false
	}
	q.telling = true
	return true
}

// tell calls callbacks until there are none left.
func (j *Journal) tell() {
	q := &j.queue
	for {
		q.Lock()
		if len(q.told) == 0 {
			q.telling = false
			q.Unlock()
			return
		}
		batch := q.told
		q.told = q.toldSpare[:0]
		q.Unlock()
		for i := range batch {
			j.tellOne(&batch[i])
		}
		clear(batch)
		q.Lock()
		q.toldSpare = batch[:0]
		q.Unlock()
	}
}

// tellOne calls one callback, with success only if no fatal fault came in
// between: fail takes the same lock before it lets the fault be known.
func (j *Journal) tellOne(r *request) {
	if r.done == nil {
		return
	}
	j.word.Lock()
	defer j.word.Unlock()
	err := r.err
	if err == nil && j.failed.Load() {
		err = j.failure()
	}
	r.done(err)
}
