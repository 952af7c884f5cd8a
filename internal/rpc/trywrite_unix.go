//go:build unix

package rpc

import (
	"io"
	"net"
	"syscall"
)

// tryWriter writes to a connection without ever waiting, where the connection
// gives access to its descriptor.
type tryWriter struct {
	raw syscall.RawConn
	// The arguments and results of attempt, which is a field so that a write
	// allocates no closure.
	attempt func(fd uintptr) bool
	buf     []byte
	n       int
	err     error
}

func newTryWriter(c net.Conn) *tryWriter {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	w := &tryWriter{raw: raw}
	w.attempt = func(fd uintptr) bool {
		for {
			w.n, w.err = syscall.Write(int(fd), w.buf)
			if w.err != syscall.EINTR {
				return true
			}
		}
	}
	return w
}

// write gives the kernel as much of b as it takes at once. The caller sees to it
// that there is one at a time.
func (w *tryWriter) write(b []byte) (int, error) {
	w.buf = b
	err := w.raw.Write(w.attempt)
	w.buf = nil
	switch {
	case err != nil:
		return 0, err
	case w.err == syscall.EAGAIN:
		return 0, nil
	case w.err != nil:
		return 0, w.err
	case w.n == 0 && len(b) > 0:
		return 0, io.ErrShortWrite
	}
	return w.n, nil
}
