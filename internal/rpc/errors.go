package rpc

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// What a call can end with, besides its context's error and the answer itself.
var (
	// ErrUnreachable says that no connection to the peer could be had, so that
	// nothing was sent: the request surely had no effect.
	ErrUnreachable = errors.New("rpc: peer unreachable, nothing was sent")
	// ErrLost says that the connection broke after the request may have been
	// sent: its outcome is unknown.
	ErrLost = errors.New("rpc: connection lost, outcome unknown")
	// ErrDeadline says that the deadline passed before the answer came. A
	// request that was sent may have taken effect.
	ErrDeadline = fmt.Errorf("rpc: deadline passed before the answer came: %w", context.DeadlineExceeded)
	// ErrOverloaded says that a bounded queue towards the peer is full: nothing
	// of this message was sent.
	ErrOverloaded = errors.New("rpc: send queue full, nothing was sent")
	// ErrExpired says that the peer took the request up after its deadline and
	// dropped it: it surely had no effect.
	ErrExpired = errors.New("rpc: the deadline had passed when the peer took the request up: no effect")
	// ErrClosed says that the pool or the server was closed here.
	ErrClosed = errors.New("rpc: closed")
	// ErrTooLarge says that a message exceeds MaxMessage; nothing was sent.
	ErrTooLarge = errors.New("rpc: message too large")
	// ErrResponseTooLarge says that the peer handled the request, and that its
	// answer exceeds MaxMessage. It would again: asking once more is no use.
	ErrResponseTooLarge = errors.New("rpc: the answer is too large for a message between nodes")
	// ErrNoMethod says that the peer does not serve the method on that listener.
	ErrNoMethod = errors.New("rpc: method not served by this listener")
	// ErrBadRequest says that the peer could not decode the request.
	ErrBadRequest = errors.New("rpc: request could not be decoded by the peer")
)

// BusyError says that the peer refused a request unread because too much waits
// there: it surely had no effect. It is an ErrOverloaded.
type BusyError struct{ RetryAfter time.Duration }

func (e *BusyError) Error() string {
	return fmt.Sprintf("rpc: the peer has too much to do, it says to ask again after %v", e.RetryAfter)
}

// Is makes it an ErrOverloaded.
func (e *BusyError) Is(target error) bool { return target == ErrOverloaded }

// RetryAfter is when a peer that was busy said to ask again; 0 if err is of
// another kind.
func RetryAfter(err error) time.Duration {
	if b := (*BusyError)(nil); errors.As(err, &b) {
		return b.RetryAfter
	}
	return 0
}

// FrameError says that the bytes of a connection are not frames: a checksum
// that does not match, a length or a kind out of bounds. The connection ends.
type FrameError struct{ Reason string }

func (e *FrameError) Error() string { return "rpc: bad frame: " + e.Reason }

// HandshakeError says why two ends refuse each other: another cluster, another
// protocol version, a role that the listener does not serve.
type HandshakeError struct {
	Refusal Refusal
	Ours    string
	Theirs  string
}

func (e *HandshakeError) Error() string {
	return fmt.Sprintf("rpc: handshake refused: %s (here %q, there %q)", e.Refusal, e.Ours, e.Theirs)
}

// Is lets errors.Is(err, ErrUnreachable) hold: a refused connection carries nothing.
func (e *HandshakeError) Is(target error) bool { return target == ErrUnreachable }

// Refusal is the reason of a HandshakeError, as it travels in the hello's answer.
type Refusal uint8

const (
	RefusalNone    Refusal = 0
	RefusalVersion Refusal = 1 // no protocol version in common
	RefusalCluster Refusal = 2 // the peer belongs to another cluster
	RefusalRole    Refusal = 3 // a client at a node listener, or the reverse
	RefusalBusy    Refusal = 4 // the listener has as many connections as it takes
)

func (r Refusal) String() string {
	switch r {
	case RefusalNone:
		return "none"
	case RefusalVersion:
		return "protocol version"
	case RefusalCluster:
		return "another cluster"
	case RefusalRole:
		return "role not served here"
	case RefusalBusy:
		return "too many connections"
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

func versions(h *hello) string { return fmt.Sprintf("%d..%d", h.versionMin, h.versionMax) }
