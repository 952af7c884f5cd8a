package redis

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// errSlowReader ends a connection whose client does not take its replies.
var errSlowReader = errors.New("output buffer limit exceeded: the client does not read")

// writeStallMax is how long a client may leave a write waiting.
const writeStallMax = 60 * time.Second

// outbox writes to a client without ever making the connection's goroutine wait
// for it: a client that sends a long pipeline before it reads the first reply
// would otherwise wait for us while we wait for it. Usually one non-blocking
// write takes everything; what it does not take is left to a goroutine that ends
// when it has caught up. More than max bytes left is an error.
type outbox struct {
	nc    net.Conn
	raw   syscall.RawConn // nil: everything is left to the goroutine
	max   int
	total *atomic.Int64 // what all outboxes hold beyond outboxFree each
	most  int64         // that it may be
	clock func() time.Time
	sent  func(n int)

	// try is the non-blocking write of piece, made once.
	try   func(fd uintptr) bool
	piece []byte
	tried int
	tryOK error

	mu struct {
		sync.Mutex
		queue    [][]byte
		bytes    int
		draining bool
		err      error
		idle     chan struct{} // closed when draining ends
	}
}

func newOutbox(nc net.Conn, maxBytes int, total *atomic.Int64, most int64, clock func() time.Time, sent func(int)) *outbox {
	o := &outbox{nc: nc, max: maxBytes, total: total, most: most, clock: clock, sent: sent}
	if sc, ok := nc.(syscall.Conn); ok && canTryWrite {
		o.raw, _ = sc.SyscallConn()
	}
	o.try = func(fd uintptr) bool {
		o.tried, o.tryOK = tryWrite(fd, o.piece)
		return true
	}
	return o
}

// write takes b, which it keeps if it reports that it did.
func (o *outbox) write(b []byte) (kept bool, err error) {
	if len(b) == 0 {
		return false, nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.mu.err != nil {
		return false, o.mu.err
	}
	if !o.mu.draining && o.raw != nil {
		o.piece = b
		if err := o.raw.Write(o.try); err != nil {
			o.tryOK = err
		}
		o.piece = nil
		if o.tryOK != nil {
			o.mu.err = o.tryOK
			return false, o.tryOK
		}
		o.sent(o.tried)
		if b = b[o.tried:]; len(b) == 0 {
			return false, nil
		}
	}
	if o.mu.bytes+len(b) > o.max || !o.changeLocked(len(b)) {
		o.mu.err = errSlowReader
		return false, errSlowReader
	}
	o.mu.queue = append(o.mu.queue, b)
	if !o.mu.draining {
		o.mu.draining = true
		o.mu.idle = make(chan struct{})
		go o.drain()
	}
	return true, nil
}

// outboxFree is what every client may leave unread, however much others do.
const outboxFree = 64 << 10

// changeLocked counts n bytes more as waiting; it refuses, and counts nothing, what
// is too much over all clients.
func (o *outbox) changeLocked(n int) bool {
	charged := func() int64 { return int64(max(0, o.mu.bytes-outboxFree)) }
	before := charged()
	o.mu.bytes += n
	more := charged() - before
	if all := o.total.Add(more); more > 0 && all-charged() > o.most { // one is always taken
		o.total.Add(-more)
		o.mu.bytes -= n
		return false
	}
	return true
}

// drain writes what is queued until nothing is.
func (o *outbox) drain() {
	for {
		o.mu.Lock()
		batch := net.Buffers(o.mu.queue)
		o.mu.queue = nil
		if len(batch) == 0 || o.mu.err != nil {
			o.changeLocked(-o.mu.bytes)
			o.mu.draining, o.mu.queue = false, nil
			close(o.mu.idle)
			o.mu.Unlock()
			return
		}
		o.mu.Unlock()
		_ = o.nc.SetWriteDeadline(o.clock().Add(writeStallMax)) // the write says what is wrong
		n, err := batch.WriteTo(o.nc)
		o.sent(int(n))
		o.mu.Lock()
		o.changeLocked(-int(n))
		if err != nil && o.mu.err == nil {
			o.mu.err = err
			_ = o.nc.Close() // wakes the reader
		}
		o.mu.Unlock()
	}
}

// backlog is how many bytes wait for the client.
func (o *outbox) backlog() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.mu.bytes
}

// flushed gives a channel that is closed when nothing waits.
func (o *outbox) flushed() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.mu.draining {
		return o.mu.idle
	}
	closed := make(chan struct{})
	close(closed)
	return closed
}
