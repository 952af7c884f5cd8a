package client

import (
	"errors"
	"fmt"

	"github.com/braiddb/braid/internal/wire"
)

// Error is how a request fails that was not carried out. What an operation
// itself answers (a wrong type, a number out of range) is a Result of kind
// error, not an Error.
type Error struct {
	Code      Code
	Message   string
	Retriable bool // the request may succeed later, as it is

	cause error
}

func (e *Error) Error() string {
	if e.Message == "" {
		return "braid: " + codeText(e.Code)
	}
	return "braid: " + codeText(e.Code) + ": " + e.Message
}

// Unwrap gives the transport's or the context's error behind it, if any.
func (e *Error) Unwrap() error { return e.cause }

// Is makes errors.Is compare codes, so that the sentinels below match whatever
// the message.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

func sentinel(c Code) *Error { return &Error{Code: c, Retriable: c.Retriable()} }

// Sentinels for errors.Is.
var (
	// ErrUnavailable: no leader was found in time; no effect.
	ErrUnavailable error = sentinel(wire.Code_CODE_UNAVAILABLE)
	// ErrTimeout: the deadline passed; no effect.
	ErrTimeout error = sentinel(wire.Code_CODE_TIMEOUT)
	// ErrUnknownOutcome: the deadline passed, or the caller gave up, while the
	// write was on its way: it may or may not take effect.
	ErrUnknownOutcome error = sentinel(wire.Code_CODE_UNKNOWN_OUTCOME)
	// ErrOverloaded: a bounded queue was full until the deadline; no effect.
	ErrOverloaded error = sentinel(wire.Code_CODE_OVERLOADED)
	// ErrConditionFailed: a condition did not hold; nothing was written.
	ErrConditionFailed error = sentinel(wire.Code_CODE_CONDITION_FAILED)
	// ErrRequestExpired: the tablet no longer remembers requests this old.
	ErrRequestExpired error = sentinel(wire.Code_CODE_REQUEST_EXPIRED)
	// ErrSchemaMismatch: the table's schema changed under the request; no effect.
	ErrSchemaMismatch error = sentinel(wire.Code_CODE_SCHEMA_MISMATCH)
	// ErrSnapshotTooOld: the read time lies below what the tablet keeps.
	ErrSnapshotTooOld error = sentinel(wire.Code_CODE_SNAPSHOT_TOO_OLD)
	// ErrNotFound: no such keyspace, table, column or row.
	ErrNotFound error = sentinel(wire.Code_CODE_NOT_FOUND)
	// ErrAlreadyExists: the keyspace or table is there already.
	ErrAlreadyExists error = sentinel(wire.Code_CODE_ALREADY_EXISTS)
	// ErrInvalid: the request is malformed.
	ErrInvalid error = sentinel(wire.Code_CODE_INVALID)
	// ErrTooLarge: a key, value or request exceeds its limit.
	ErrTooLarge error = sentinel(wire.Code_CODE_TOO_LARGE)
	// ErrDiskFull: the leader has no room; no effect.
	ErrDiskFull error = sentinel(wire.Code_CODE_DISK_FULL)
	// ErrNotDirectory: a log group stands where a log directory is needed, or the reverse.
	ErrNotDirectory error = sentinel(wire.Code_CODE_NOT_DIRECTORY)
	// ErrNotEmpty: the log directory still holds something.
	ErrNotEmpty error = sentinel(wire.Code_CODE_NOT_EMPTY)
	// ErrIDClash: the log ids asked for were given out before.
	ErrIDClash error = sentinel(wire.Code_CODE_ID_CLASH)
	// ErrInvalidAttributes: log attributes contradict each other or are out of bounds.
	ErrInvalidAttributes error = sentinel(wire.Code_CODE_INVALID_ATTRIBUTES)
	// ErrCanceled: the caller's context ended, or the client was closed, before
	// anything was sent; no effect.
	ErrCanceled error = sentinel(wire.Code_CODE_CANCELED)
)

// ErrCrossTablet says that the operations of a batch do not lie in one tablet.
var ErrCrossTablet = errors.New("braid: the operations of a batch lie in different tablets")

// ErrClosed is the cause of an ErrCanceled whose client was closed.
var ErrClosed = errors.New("braid: client closed")

func newError(c Code, cause error, format string, args ...any) *Error {
	return &Error{Code: c, Message: fmt.Sprintf(format, args...), Retriable: c.Retriable(), cause: cause}
}

// fromWire makes an Error of what a node answered.
func fromWire(e *wire.Error) *Error {
	return &Error{Code: e.Code, Message: e.Message, Retriable: e.Code.Retriable()}
}

var codeTexts = map[Code]string{
	wire.Code_CODE_NOT_LEADER:       "not the leader",
	wire.Code_CODE_NOT_READY:        "leader not ready",
	wire.Code_CODE_TABLET_NOT_FOUND: "tablet not found",
	wire.Code_CODE_SCHEMA_MISMATCH:  "schema changed",
	wire.Code_CODE_TIMEOUT:          "timeout",
	wire.Code_CODE_UNKNOWN_OUTCOME:  "unknown outcome",
	wire.Code_CODE_REQUEST_EXPIRED:  "request expired",
	wire.Code_CODE_OVERLOADED:       "overloaded",
	wire.Code_CODE_DISK_FULL:        "disk full",
	wire.Code_CODE_CLOCK_SKEW:       "clock skew",
	wire.Code_CODE_SNAPSHOT_TOO_OLD: "snapshot too old",
	wire.Code_CODE_CORRUPT:          "data damaged, repair under way",
	wire.Code_CODE_TOO_LARGE:        "too large",
	wire.Code_CODE_INVALID:          "invalid request",
	wire.Code_CODE_CANCELED:         "canceled",
	wire.Code_CODE_CONDITION_FAILED: "condition failed",
	wire.Code_CODE_WRONG_TYPE:       "wrong type",
	wire.Code_CODE_NOT_AN_INTEGER:   "not an integer",
	wire.Code_CODE_NOT_A_FLOAT:      "not a float",
	wire.Code_CODE_OVERFLOW:         "overflow",
	wire.Code_CODE_NO_SUCH_KEY:      "no such key",
	wire.Code_CODE_OUT_OF_RANGE:     "out of range",
	wire.Code_CODE_SYNTAX:           "syntax",
	wire.Code_CODE_ALREADY_EXISTS:   "already exists",
	wire.Code_CODE_NOT_FOUND:        "not found",
	wire.Code_CODE_UNAVAILABLE:      "unavailable",
	wire.Code_CODE_INTERNAL:         "internal error",

	wire.Code_CODE_NOT_DIRECTORY:      "not a directory",
	wire.Code_CODE_NOT_EMPTY:          "not empty",
	wire.Code_CODE_ID_CLASH:           "log ids taken",
	wire.Code_CODE_INVALID_ATTRIBUTES: "invalid attributes",
}

func codeText(c Code) string {
	if s, ok := codeTexts[c]; ok {
		return s
	}
	return c.String()
}
