//go:build unix

package redis

import "syscall"

// canTryWrite says that tryWrite is to be used.
const canTryWrite = true

// tryWrite writes as much of b as the socket takes at once.
func tryWrite(fd uintptr, b []byte) (int, error) {
	for n := 0; ; {
		m, err := syscall.Write(int(fd), b[n:])
		if m > 0 {
			n += m
		}
		switch {
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return n, nil
		case err != nil:
			return n, err
		case n == len(b) || m == 0:
			return n, nil
		}
	}
}
