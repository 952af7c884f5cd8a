package redis

import (
	"errors"
	"io"
	"os"
	"time"
)

// flush hands rendered replies to the outbox.
func (c *conn) flush() {
	if len(c.w.out) == 0 {
		return
	}
	kept, err := c.box.write(c.w.out)
	if errors.Is(err, errSlowReader) {
		c.s.metrics.SlowReaders.Add(1)
	}
	if err != nil {
		c.closing = true
	}
	if kept || cap(c.w.out) > keepOutBytes {
		c.w.out = nil
	} else {
		c.w.out = c.w.out[:0]
	}
}

// read waits for input. A server that stops, an idle limit and CLIENT KILL end it
// by its deadline.
func (c *conn) read(room []byte) (int, error) {
	for {
		if idle := c.s.config.idle(); idle > 0 && !c.info.monitor.Load() {
			if c.now.Sub(c.deadlineSet) >= idle/8 {
				c.deadlineSet = c.now
				_ = c.nc.SetReadDeadline(c.now.Add(idle + idle/8)) // the read says what is wrong
			}
		}
		if c.s.stopping.Load() || c.info.killed.Load() {
			return 0, errStopped
		}
		n, err := c.nc.Read(room)
		if n > 0 {
			return n, nil
		}
		if err == nil {
			continue
		}
		if errors.Is(err, os.ErrDeadlineExceeded) && !c.s.stopping.Load() && !c.info.killed.Load() && c.s.config.idle() == 0 {
			// The idle limit was lifted while its deadline was set.
			_ = c.nc.SetReadDeadline(time.Time{})
			continue
		}
		return 0, err
	}
}

// errStopped ends the loop of a connection whose server is closing.
var errStopped = errors.New("redis: stopped")

// charge counts what the connection's input takes beyond what every connection
// may have, and reports whether the server can bear it (I4).
func (c *conn) charge() bool {
	size := int64(cap(c.parser.buf))
	c.info.input.Store(size)
	size = max(0, size-readBytesChunk) + int64(c.txn.bytes)
	grown := size - c.charged
	if grown == 0 {
		return true
	}
	c.charged = size
	total := c.s.buffers.Add(grown)
	if grown > 0 && total-size > c.s.opts.QueryBytesTotal { // one is always taken
		c.s.metrics.Refused.Add(1)
		return false
	}
	return true
}

// linger reads what a refused client still sends, for a while: closing a socket
// with unread input would reset it, and the client would never read the error.
func (c *conn) linger() {
	if half, ok := c.nc.(interface{ CloseWrite() error }); ok {
		<-c.box.flushed()
		_ = half.CloseWrite() // closing it wholly comes next anyway
	}
	_ = c.nc.SetReadDeadline(c.s.opts.Clock().Add(lingerFor))
	_, _ = io.CopyN(io.Discard, c.nc, lingerBytes)
}

// end closes the connection once what it was told has been written.
func (c *conn) end() {
	if !c.info.killed.Load() {
		_ = c.nc.SetWriteDeadline(c.s.opts.Clock().Add(lingerFor))
	}
	c.txn = transaction{}
	c.parser.buf = nil
	c.charge()
	<-c.box.flushed()
	_ = c.nc.Close() // nothing more is expected of it
	<-c.box.flushed()
	c.s.forget(c)
}

// replyMode is what CLIENT REPLY asked for.
type replyMode uint8

const (
	replyOn replyMode = iota
	replyOff
	replySkipNext // set by CLIENT REPLY SKIP, whose own reply is not sent either
	replySkip     // the reply now rendered is skipped
)

// apply takes the reply back that was rendered from mark on, if it is not wanted.
func (m *replyMode) apply(w *writer, mark int) {
	switch *m {
	case replyOn:
		return
	case replySkipNext:
		*m = replySkip
	case replySkip:
		*m = replyOn
	}
	w.out = w.out[:mark]
}
