package rpc

import (
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// segmentBytes is up to where small frames share a buffer.
	segmentBytes = 64 << 10
	// ownSegmentBytes is the size from which a frame has a buffer of its own: it
	// is encoded outside the lock and not copied.
	ownSegmentBytes = 32 << 10
	// inlineRounds bounds how often a caller writes for others before it leaves
	// the rest to the writer goroutine.
	inlineRounds = 2
	// quiet is how long nothing must have been written for a frame that nobody
	// waits for to be written by who adds it: what follows closely on another
	// frame is better written together with those that follow on it.
	quiet = 30 * time.Microsecond
	// pieceBytes is how much of a large frame is written at once.
	pieceBytes = 1 << 20
	// writeTimeout ends a connection whose peer takes nothing.
	writeTimeout = 30 * time.Second
)

// urgency says who should write a frame.
type urgency uint8

const (
	// eager: the caller waits for the answer, so its time is free.
	eager urgency = iota
	// lazy: the caller has more to do.
	lazy
	// batch: the reading goroutine has handled what came.
	batch
)

// outbox is what waits to be written on a connection, and who writes it (see
// the package comment). Its lock is also the connection's.
type outbox struct {
	conn    net.Conn
	try     *tryWriter // nil: only the writer goroutine writes
	clock   Clock
	metrics *Metrics
	limit   int           // bytes that may wait
	wake    chan struct{} // for the writer goroutine, capacity 1
	closed  chan struct{}
	// pressure says that more waits than limit, until all of it was written.
	pressure atomic.Bool
	// progress counts writes that had to wait: a peer that still takes a large
	// message is not silent.
	progress atomic.Uint64

	mu struct {
		sync.Mutex
		segments [][]byte // frames that were added and not yet taken
		open     bool     // the last segment takes more frames
		spare    []byte
		queued   int    // bytes in segments and in the write under way
		added    uint64 // bytes ever added
		taken    uint64 // bytes ever given to the kernel, or about to be (R1)
		frames   uint64 // in segments
		company  bool   // the last write carried several frames: so will the next, if it waits a moment
		writing  bool   // somebody writes; who adds need not
		corked   bool   // the reading goroutine handles a batch and will write
		kicked   bool   // the writer goroutine was told
		last     time.Time
		err      error // why the connection is no more
		drained  *sync.Cond
	}
}

func (o *outbox) init(c net.Conn, clock Clock, m *Metrics, limit int) {
	o.conn, o.clock, o.metrics, o.limit = c, clock, m, limit
	o.try = newTryWriter(c)
	o.wake = make(chan struct{}, 1)
	o.closed = make(chan struct{})
	o.mu.drained = sync.NewCond(&o.mu)
}

// roomLocked reports whether n more bytes may wait. An empty queue takes
// anything, so that one message of any size always passes.
func (o *outbox) roomLocked(n int) bool { return o.mu.queued == 0 || o.mu.queued+n <= o.limit }

// encode makes a frame of its own of a large message, outside the lock; nil for
// a small one, which appendLocked encodes in place.
func (o *outbox) encode(h header, m Message, size int) ([]byte, error) {
	if size < ownSegmentBytes {
		return nil, nil
	}
	if size > MaxMessage {
		return nil, ErrTooLarge
	}
	b := make([]byte, headerBytes+size)
	if err := fill(b, h, m, o.metrics); err != nil {
		return nil, err
	}
	return b, nil
}

// fill encodes a message into b, which has exactly the room, and its header in front.
func fill(b []byte, h header, m Message, metrics *Metrics) error {
	if m != nil {
		n, err := m.MarshalToSizedBufferVT(b[headerBytes:])
		if err != nil {
			return err
		}
		if n != len(b)-headerBytes {
			panic("BUG: a message changed while it was encoded")
		}
		metrics.Encodes.Add(1)
	}
	h.put(b, b[headerBytes:])
	return nil
}

// appendLocked adds a frame: encoded, if it was made by encode, else m.
func (o *outbox) appendLocked(encoded []byte, h header, m Message, size int) error {
	if o.mu.err != nil {
		return o.mu.err
	}
	if encoded != nil {
		o.mu.segments = append(o.mu.segments, encoded)
		o.mu.open = false
		o.addedLocked(len(encoded))
		return nil
	}
	n := headerBytes + size
	if last := len(o.mu.segments) - 1; !o.mu.open || len(o.mu.segments[last])+n > segmentBytes {
		o.mu.segments = append(o.mu.segments, o.mu.spare[:0])
		o.mu.spare, o.mu.open = nil, true
	}
	seg := &o.mu.segments[len(o.mu.segments)-1]
	at := len(*seg)
	*seg = extend(*seg, n)
	if err := fill((*seg)[at:], h, m, o.metrics); err != nil {
		*seg = (*seg)[:at]
		return err
	}
	o.addedLocked(n)
	return nil
}

func (o *outbox) addedLocked(n int) {
	o.mu.queued += n
	o.mu.added += uint64(n)
	o.mu.frames++
	if o.mu.queued > o.limit {
		o.pressure.Store(true)
	}
}

// extend lengthens b by n bytes of whatever content.
func extend(b []byte, n int) []byte {
	if len(b)+n <= cap(b) {
		return b[:len(b)+n]
	}
	grown := make([]byte, len(b)+n, max(4096, len(b)+n, min(2*cap(b), segmentBytes)))
	copy(grown, b)
	return grown
}

// submit sees to it that what was added is written, and unlocks.
func (o *outbox) submit(u urgency) {
	if o.mu.writing || o.mu.corked || o.mu.kicked || o.mu.err != nil {
		o.mu.Unlock()
		return
	}
	if o.try == nil || (u == lazy && (o.mu.company || o.clock.Now().Sub(o.mu.last) < quiet)) {
		o.kickLocked()
		o.mu.Unlock()
		return
	}
	o.mu.writing = true
	if u == eager {
		// Others that are about to call have their chance to come along.
		o.mu.Unlock()
		runtime.Gosched()
		o.mu.Lock()
	}
	for range inlineRounds {
		if !o.tryLocked() {
			break
		}
	}
	o.mu.writing = false
	if len(o.mu.segments) > 0 && o.mu.err == nil {
		o.kickLocked()
	}
	o.mu.Unlock()
}

func (o *outbox) kickLocked() {
	if !o.mu.kicked {
		o.mu.kicked = true
		o.wake <- struct{}{} // never waits: kicked says that it is empty
	}
}

// tryLocked writes what is queued without waiting. It reports whether to go on.
func (o *outbox) tryLocked() bool {
	if len(o.mu.segments) != 1 || o.mu.err != nil {
		return false // many segments are left to one writev of the writer goroutine
	}
	b := o.takeLocked()[0]
	o.mu.Unlock()
	n, err := o.try.write(b)
	o.metrics.Writes.Add(1)
	o.mu.Lock()
	o.wroteLocked(n)
	switch {
	case err != nil:
		o.failLocked(err)
		return false
	case n < len(b):
		// The kernel is full: the rest goes in front, for the writer goroutine.
		o.mu.segments = append([][]byte{b[n:]}, o.mu.segments...)
		o.mu.open = o.mu.open && len(o.mu.segments) > 1
		return false
	}
	o.recycleLocked(b)
	return true
}

// takeLocked takes all that is queued.
func (o *outbox) takeLocked() [][]byte {
	taken := o.mu.segments
	o.mu.segments, o.mu.open = nil, false
	o.mu.taken = o.mu.added
	o.metrics.FramesSent.Add(o.mu.frames)
	o.mu.company = o.mu.frames > 1
	o.mu.frames = 0
	return taken
}

func (o *outbox) wroteLocked(n int) {
	o.mu.queued -= n
	o.metrics.BytesSent.Add(uint64(n))
	if o.mu.queued == 0 {
		o.pressure.Store(false)
		o.mu.drained.Broadcast()
	}
}

func (o *outbox) recycleLocked(b []byte) {
	o.mu.last = o.clock.Now()
	if cap(b) <= segmentBytes && cap(b) > cap(o.mu.spare) {
		o.mu.spare = b[:0]
	}
}

// write is the writer goroutine. It ends when the connection does.
func (o *outbox) write() {
	for {
		select {
		case <-o.wake:
		case <-o.closed:
			return
		}
		runtime.Gosched() // see submit
		o.mu.Lock()
		o.mu.kicked = false
		for !o.mu.writing && len(o.mu.segments) > 0 && o.mu.err == nil {
			o.mu.writing = true
			if o.try == nil || !o.tryLocked() && len(o.mu.segments) > 0 {
				o.waitLocked()
			}
			o.mu.writing = false
		}
		o.mu.Unlock()
	}
}

// waitLocked writes what is queued, waiting until the kernel has taken it.
func (o *outbox) waitLocked() {
	if o.mu.err != nil {
		return
	}
	taken := o.takeLocked()
	o.mu.Unlock()
	first := taken[0]
	n, err := o.writeAll(taken)
	o.mu.Lock()
	o.wroteLocked(n)
	if err != nil {
		o.failLocked(err)
	}
	o.recycleLocked(first)
}

// writeAll writes buffers with one system call, as long as the kernel takes it;
// large ones piece by piece, each with a deadline of its own.
func (o *outbox) writeAll(bufs [][]byte) (n int, err error) {
	var group net.Buffers
	size := 0
	for i, b := range bufs {
		for len(b) > pieceBytes && err == nil {
			n, err = o.writeGroup(n, append(group, b[:pieceBytes]))
			group, size, b = nil, 0, b[pieceBytes:]
		}
		group = append(group, b)
		size += len(b)
		if (size > pieceBytes || i == len(bufs)-1) && err == nil {
			n, err = o.writeGroup(n, group)
			group, size = nil, 0
		}
	}
	if err == nil {
		// The deadline would hold for later writes that do not wait, too.
		err = o.conn.SetWriteDeadline(time.Time{})
	}
	return n, err
}

func (o *outbox) writeGroup(before int, group net.Buffers) (int, error) {
	if err := o.conn.SetWriteDeadline(o.clock.Now().Add(writeTimeout)); err != nil {
		return before, err
	}
	o.metrics.Writes.Add(1)
	defer o.progress.Add(1)
	if len(group) == 1 {
		n, err := o.conn.Write(group[0])
		return before + n, err
	}
	n, err := group.WriteTo(o.conn)
	return before + int(n), err
}

// cork holds back writing while the reading goroutine handles a batch.
func (o *outbox) cork() {
	o.mu.Lock()
	o.mu.corked = true
	o.mu.Unlock()
}

// uncork writes what the batch produced.
func (o *outbox) uncork() {
	o.mu.Lock()
	o.mu.corked = false
	if len(o.mu.segments) == 0 {
		o.mu.Unlock()
		return
	}
	o.submit(batch)
}

// drain waits until what is queued was written, or the connection is no more.
func (o *outbox) drain() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.mu.queued > 0 && o.mu.err == nil {
		o.mu.drained.Wait()
	}
}

// fail ends the connection, for the first reason given.
func (o *outbox) fail(err error) {
	o.mu.Lock()
	o.failLocked(err)
	o.mu.Unlock()
}

func (o *outbox) failLocked(err error) {
	if o.mu.err != nil {
		return
	}
	o.mu.err = err
	o.mu.segments, o.mu.spare = nil, nil
	close(o.closed)
	_ = o.conn.Close() // the reading goroutine notices; there is nothing to do about an error
	o.mu.drained.Broadcast()
}
