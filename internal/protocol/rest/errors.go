package rest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/braiddb/braid/client"
)

// problem is how a request fails, as the client reads it.
type problem struct {
	// Status says what went wrong, in a word of docs/http.md.
	Status  string `json:"status"`
	Message string `json:"message"`
	// OutcomeKnown: nothing was changed. Otherwise an append may be in the log.
	OutcomeKnown bool `json:"outcome_known"`
	// Retriable: the same request may succeed later.
	Retriable bool `json:"retriable"`
	// Tail is the log's end, where a condition on it failed or the request reached behind it.
	Tail string `json:"tail,omitempty"`
	// LastSequence is the producer's last that was taken, where its sequence was not the next.
	LastSequence *uint64 `json:"last_sequence,omitempty"`
	// Limit is the number that was exceeded.
	Limit int64 `json:"limit,omitempty"`

	code  int
	allow string // methods, of a 405
}

// Error makes a problem an error: one that was found here, before the cluster was asked.
func (p *problem) Error() string { return p.Message }

func refuse(code int, status, format string, args ...any) *problem {
	return &problem{code: code, Status: status, Message: fmt.Sprintf(format, args...), OutcomeKnown: true,
		Retriable: code == http.StatusTooManyRequests}
}

func invalid(format string, args ...any) *problem {
	return refuse(http.StatusBadRequest, "invalid", format, args...)
}

func tooLarge(limit int64, format string, args ...any) *problem {
	p := refuse(http.StatusRequestEntityTooLarge, "too_large", format, args...)
	p.Limit = limit
	return p
}

func overloaded(limit int64, format string, args ...any) *problem {
	p := refuse(http.StatusTooManyRequests, "overloaded", format, args...)
	p.Limit = limit
	return p
}

// httpCodes is the one table from what the client library says to what HTTP says.
// The first that matches is it.
var httpCodes = []struct {
	is   error
	code int
}{
	{client.ErrUnknownOutcome, http.StatusGatewayTimeout},
	{client.ErrNotFound, http.StatusNotFound},
	{client.ErrTooLarge, http.StatusRequestEntityTooLarge},
	{client.ErrConditionFailed, http.StatusPreconditionFailed},
	{client.ErrSequenceGap, http.StatusConflict},
	{client.ErrSequenceStale, http.StatusConflict},
	{client.ErrAlreadyExists, http.StatusConflict},
	{client.ErrNotEmpty, http.StatusConflict},
	{client.ErrNotDirectory, http.StatusConflict},
	{client.ErrIDClash, http.StatusConflict},
	{client.ErrInvalid, http.StatusBadRequest},
	{client.ErrInvalidAttributes, http.StatusBadRequest},
	{client.ErrOverloaded, http.StatusTooManyRequests},
	{client.ErrDiskFull, http.StatusInsufficientStorage},
	{client.ErrTimeout, http.StatusServiceUnavailable},
	{client.ErrUnavailable, http.StatusServiceUnavailable},
	{client.ErrCanceled, http.StatusServiceUnavailable},
}

// statusAccess is the one status of logs whose code says less than it does.
const statusAccess = "access"

// problemOf says what an error is to the client.
func problemOf(err error) *problem {
	var p *problem
	if errors.As(err, &p) {
		return p
	}
	p = &problem{code: http.StatusInternalServerError, Status: "internal", OutcomeKnown: true,
		Message: strings.TrimPrefix(err.Error(), "braid: ")}
	for _, row := range httpCodes {
		if errors.Is(err, row.is) {
			p.code = row.code
			break
		}
	}
	var logErr *client.LogError
	var tableErr *client.Error
	switch {
	case errors.As(err, &logErr):
		p.Status = word(logErr.Status.String(), "LOG_STATUS_")
		p.OutcomeKnown, p.Retriable = logErr.OutcomeKnown, logErr.Retriable
		if errors.Is(err, client.ErrConditionFailed) {
			p.Tail = lsnText(logErr.Tail)
		}
		if errors.Is(err, client.ErrSequenceGap) || errors.Is(err, client.ErrSequenceStale) {
			p.LastSequence = &logErr.LastSequence
		}
		if p.Status == statusAccess && p.OutcomeKnown {
			p.code = http.StatusForbidden
		}
	case errors.As(err, &tableErr):
		p.Status = word(tableErr.Code.String(), "CODE_")
		p.OutcomeKnown, p.Retriable = tableErr.Code != client.CodeUnknownOutcome, tableErr.Retriable
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		p.code, p.Status, p.Retriable = http.StatusServiceUnavailable, "timeout", true
	}
	return p
}

func word(s, prefix string) string { return strings.ToLower(strings.TrimPrefix(s, prefix)) }

// answerProblem answers with an error, if there is anybody to hear it.
func (s *Server) answerProblem(w http.ResponseWriter, r *http.Request, p *problem) {
	if r.Context().Err() != nil {
		s.metrics.Gone.Add(1)
		return
	}
	s.metrics.Errors.Add(1)
	p.headers(w.Header())
	s.answer(w, p.code, map[string]*problem{"error": p})
}

// headers says when to come again, and with which method.
func (p *problem) headers(h http.Header) {
	if p.Retriable && (p.code == http.StatusTooManyRequests || p.code == http.StatusServiceUnavailable || p.code == http.StatusInsufficientStorage) {
		h.Set("Retry-After", strconv.Itoa(int(retryAfter/time.Second)))
	}
	if p.allow != "" {
		h.Set("Allow", p.allow)
	}
}

// retryAfter is what those hear whose request would have succeeded at another time.
const retryAfter = time.Second
