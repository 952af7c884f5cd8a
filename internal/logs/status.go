package logs

import (
	"fmt"

	"github.com/braiddb/braid/internal/wire"
)

// Status is the outcome of a request about logs.
type Status = wire.LogStatus

// StatusError is a Status other than OK, with its cause in words.
type StatusError struct {
	Status  Status
	Message string
}

// Error says what happened.
func (e *StatusError) Error() string {
	if e.Message == "" {
		return e.Status.String()
	}
	return fmt.Sprintf("%s: %s", e.Status, e.Message)
}

// OutcomeUnknown says whether an append that ended so may have been stored.
func OutcomeUnknown(s Status) bool {
	switch s {
	case wire.LogStatus_LOG_STATUS_TIMED_OUT, wire.LogStatus_LOG_STATUS_UNKNOWN_OUTCOME, wire.LogStatus_LOG_STATUS_PREEMPTED:
		return true
	}
	return false
}

// Retriable says whether trying again later can succeed without a change of the request.
func Retriable(s Status) bool {
	switch s {
	case wire.LogStatus_LOG_STATUS_REDIRECTED, wire.LogStatus_LOG_STATUS_PREEMPTED, wire.LogStatus_LOG_STATUS_NOT_READY,
		wire.LogStatus_LOG_STATUS_ISOLATED, wire.LogStatus_LOG_STATUS_NO_SEQUENCER, wire.LogStatus_LOG_STATUS_SEQNOBUFS,
		wire.LogStatus_LOG_STATUS_OVERLOADED, wire.LogStatus_LOG_STATUS_NO_SPACE, wire.LogStatus_LOG_STATUS_SHUTDOWN,
		wire.LogStatus_LOG_STATUS_TIMED_OUT, wire.LogStatus_LOG_STATUS_UNKNOWN_OUTCOME, wire.LogStatus_LOG_STATUS_AGAIN,
		wire.LogStatus_LOG_STATUS_UNDER_REPLICATED, wire.LogStatus_LOG_STATUS_DROPPED, wire.LogStatus_LOG_STATUS_CONFLICT,
		wire.LogStatus_LOG_STATUS_NO_STREAM, wire.LogStatus_LOG_STATUS_FAILED, wire.LogStatus_LOG_STATUS_DISABLED,
		wire.LogStatus_LOG_STATUS_NEW_EPOCH:
		return true
	}
	return false
}
