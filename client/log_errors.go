package client

import (
	"fmt"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// LogError is how an append, or another request about a log, fails. errors.Is
// matches it with another of the same status and, by its meaning, with the
// sentinels of Error: ErrNotFound, ErrTooLarge, ErrConditionFailed, ErrOverloaded,
// ErrDiskFull, ErrTimeout, ErrUnavailable, ErrCanceled, ErrInvalid. An append whose
// outcome is not known matches ErrUnknownOutcome, and nothing that says that it
// had no effect.
type LogError struct {
	Log     LogID
	Status  logs.Status
	Message string
	// OutcomeKnown: the record is not in the log, and never will be. Otherwise it
	// may be, once.
	OutcomeKnown bool
	// Retriable: the same request may succeed later. If the outcome is not known,
	// that may be a second record.
	Retriable bool
	// Tail is the log's last record, where a condition on it failed or a trim was to go beyond it.
	Tail LSN
	// LastSequence is the last of an explicit producer that was taken, where its
	// sequence was not the next.
	LastSequence uint64

	what  string // instead of what the status is called, where it is not about an append
	cause error
}

func (e *LogError) Error() string {
	known := ""
	if !e.OutcomeKnown {
		known = ", outcome unknown"
	}
	what := e.what
	if what == "" {
		what = logStatusText(e.Status)
	}
	text := fmt.Sprintf("braid: log %d: %s%s", e.Log, what, known)
	if e.Message != "" {
		text += ": " + e.Message
	}
	return text
}

// Unwrap gives the transport's or the context's error behind it, if any.
func (e *LogError) Unwrap() error { return e.cause }

// Is compares statuses, or meanings.
func (e *LogError) Is(target error) bool {
	switch t := target.(type) {
	case *LogError:
		return t.Status == e.Status
	case *Error:
		return t.Code == e.code()
	}
	return false
}

// Sentinels for errors.Is, of what only logs have.
var (
	// ErrSequenceStale: the producer's record was taken long ago.
	ErrSequenceStale error = &LogError{Status: wire.LogStatus_LOG_STATUS_SEQUENCE_STALE}
	// ErrSequenceGap: the producer left out a sequence; see LogError.LastSequence.
	ErrSequenceGap error = &LogError{Status: wire.LogStatus_LOG_STATUS_SEQUENCE_GAP}
)

// code is the meaning of the error among those of requests to tables.
func (e *LogError) code() Code {
	if !e.OutcomeKnown {
		return wire.Code_CODE_UNKNOWN_OUTCOME
	}
	switch e.Status {
	case wire.LogStatus_LOG_STATUS_NOT_FOUND:
		return wire.Code_CODE_NOT_FOUND
	case wire.LogStatus_LOG_STATUS_TOO_LARGE:
		return wire.Code_CODE_TOO_LARGE
	case wire.LogStatus_LOG_STATUS_CONDITION_FAILED:
		return wire.Code_CODE_CONDITION_FAILED
	case wire.LogStatus_LOG_STATUS_TIMED_OUT:
		return wire.Code_CODE_TIMEOUT
	case wire.LogStatus_LOG_STATUS_SEQNOBUFS, wire.LogStatus_LOG_STATUS_OVERLOADED, wire.LogStatus_LOG_STATUS_DROPPED:
		return wire.Code_CODE_OVERLOADED
	case wire.LogStatus_LOG_STATUS_NO_SPACE:
		return wire.Code_CODE_DISK_FULL
	case wire.LogStatus_LOG_STATUS_INVALID, wire.LogStatus_LOG_STATUS_BAD_PAYLOAD,
		wire.LogStatus_LOG_STATUS_SEQUENCE_STALE, wire.LogStatus_LOG_STATUS_SEQUENCE_GAP:
		return wire.Code_CODE_INVALID
	case wire.LogStatus_LOG_STATUS_SHUTDOWN:
		return wire.Code_CODE_CANCELED
	}
	return wire.Code_CODE_UNAVAILABLE
}

var logStatusTexts = map[logs.Status]string{
	wire.LogStatus_LOG_STATUS_REDIRECTED:       "sent from node to node",
	wire.LogStatus_LOG_STATUS_PREEMPTED:        "sequencers preempt each other",
	wire.LogStatus_LOG_STATUS_NOT_READY:        "sequencer not ready",
	wire.LogStatus_LOG_STATUS_ISOLATED:         "node cannot see a majority of the cluster",
	wire.LogStatus_LOG_STATUS_NOT_FOUND:        "no such log",
	wire.LogStatus_LOG_STATUS_NO_SEQUENCER:     "no sequencer found",
	wire.LogStatus_LOG_STATUS_SEQNOBUFS:        "too many appends in flight",
	wire.LogStatus_LOG_STATUS_OVERLOADED:       "overloaded",
	wire.LogStatus_LOG_STATUS_TOO_LARGE:        "payload too large",
	wire.LogStatus_LOG_STATUS_BAD_PAYLOAD:      "payload damaged on the way, or a malformed batch",
	wire.LogStatus_LOG_STATUS_NO_SPACE:         "disks full",
	wire.LogStatus_LOG_STATUS_DISABLED:         "log disabled",
	wire.LogStatus_LOG_STATUS_SHUTDOWN:         "given up",
	wire.LogStatus_LOG_STATUS_TIMED_OUT:        "timeout",
	wire.LogStatus_LOG_STATUS_UNKNOWN_OUTCOME:  "no answer",
	wire.LogStatus_LOG_STATUS_CONDITION_FAILED: "the log's tail is another",
	wire.LogStatus_LOG_STATUS_SEQUENCE_STALE:   "sequence taken long ago",
	wire.LogStatus_LOG_STATUS_SEQUENCE_GAP:     "sequence is not the next",
	wire.LogStatus_LOG_STATUS_AGAIN:            "recovery under way",
	wire.LogStatus_LOG_STATUS_UNDER_REPLICATED: "too few storage nodes",
	wire.LogStatus_LOG_STATUS_EPOCH_REGRESSED:  "the epoch store is older than the cluster",
	wire.LogStatus_LOG_STATUS_TRIMMED:          "trimmed",
	wire.LogStatus_LOG_STATUS_ACCESS:           "access denied",
	wire.LogStatus_LOG_STATUS_NEW_EPOCH:        "the log's epoch is newer than the client knew",
	wire.LogStatus_LOG_STATUS_LOST:             "lost, or never stored, and a later append was kept",
}

func logStatusText(s logs.Status) string {
	if t, ok := logStatusTexts[s]; ok {
		return t
	}
	return s.String()
}

func newLogError(log LogID, s logs.Status, known bool, cause error, format string, args ...any) *LogError {
	return &LogError{
		Log: log, Status: s, OutcomeKnown: known, Retriable: logs.Retriable(s), cause: cause,
		Message: fmt.Sprintf(format, args...),
	}
}
