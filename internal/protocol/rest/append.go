package rest

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/braiddb/braid/client"
)

// appendRecords appends the body, or the records in it.
//
//	POST /v1/records/{log}?if_tail=LSN&producer=ID&sequence=N&find_key=&filter_key=&timeout=
//
// A list is appended in its order: LSNs ascend. Records before one that fails are
// appended, and so may be those behind it; each is answered for itself. Under a
// producer they have the sequences from N on, so one that fails stops those behind.
func (s *Server) appendRecords(w http.ResponseWriter, r *request) error {
	terms, err := s.appendTerms(r.query)
	if err != nil {
		return err
	}
	timeout, err := r.query.span("timeout", s.opts.WaitMax)
	if err != nil {
		return err
	}
	ctx, cancel := allow(r.Context(), timeout)
	defer cancel()
	l, info, err := s.logNamed(ctx, r.name, true)
	if err != nil {
		return err
	}
	list, several, release, err := s.readAppend(w, r, int64(info.Attributes.GetMaxPayloadBytes()))
	defer release()
	if err != nil {
		return err
	}
	if several && terms.IfTail != nil {
		return invalid("if_tail is for one record, not for a list")
	}
	for i := range list {
		terms.apply(&list[i], i)
	}
	if !several {
		lsn, err := l.Append(ctx, list[0])
		if err != nil {
			return err
		}
		s.appended(list[0])
		s.answer(w, http.StatusOK, appended{Log: l.ID(), LSN: lsnText(lsn), Number: lsn})
		return nil
	}
	s.answerAll(w, r, l, list, appendAll(ctx, l, list))
	return nil
}

// allowed is a context that says it ends a little before it does: the client library
// gives up at its deadline by itself, and then says what it waited for.
type allowed struct {
	context.Context
	deadline time.Time
}

// Deadline is when to give up.
func (a allowed) Deadline() (time.Time, bool) { return a.deadline, true }

// givingUp is how long the client library may take to say why it gave up.
const givingUp = 300 * time.Millisecond

// allow bounds how long a request may take; 0 is the client library's own bound.
func allow(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout == 0 {
		return ctx, func() {}
	}
	deadline := time.Now().Add(timeout)
	ctx, cancel := context.WithDeadline(ctx, deadline.Add(givingUp))
	return allowed{ctx, deadline}, cancel
}

// appendTerms reads what the parameters say of the records.
func (s *Server) appendTerms(q query) (t Append, err error) {
	if t.Producer, err = q.number("producer", 1); err != nil {
		return t, err
	}
	if t.Sequence, err = q.number("sequence", 1); err != nil {
		return t, err
	}
	tail, conditional, err := q.lsn("if_tail")
	switch {
	case err != nil:
		return t, err
	case (t.Producer == 0) != (t.Sequence == 0):
		return t, invalid("producer and sequence go together")
	case conditional && t.Producer != 0:
		return t, invalid("if_tail and producer do not go together")
	case conditional:
		t.IfTail = &tail
	}
	if t.FindKey, err = q.bytes("find_key"); err != nil {
		return t, err
	}
	t.FilterKey, err = q.bytes("filter_key")
	return t, err
}

// apply gives the i-th record what it does not say itself.
func (t Append) apply(a *Append, i int) {
	a.IfTail = t.IfTail
	if a.Producer = t.Producer; t.Producer != 0 {
		a.Sequence = t.Sequence + uint64(i)
	}
	if a.FindKey == nil {
		a.FindKey = t.FindKey
	}
	if a.FilterKey == nil {
		a.FilterKey = t.FilterKey
	}
}

// readAppend reads the body and gives its records, each of at most most bytes (I3).
func (s *Server) readAppend(w http.ResponseWriter, r *request, most int64) (list []Append, several bool, release func(), err error) {
	if !isJSON(r.Header) {
		body, release, err := s.readBody(w, r.Request, most, "the log takes (max_payload_bytes)")
		return []Append{{Payload: body}}, false, release, err
	}
	body, release, err := s.readBody(w, r.Request, max(s.opts.JSONBytes, 2*most), "is taken as JSON")
	if err != nil {
		return nil, false, release, err
	}
	if list, several, err = decodeAppend(body); err != nil {
		return nil, false, release, err
	}
	for i := range list {
		if n := int64(len(list[i].Payload)); n > most {
			return nil, false, release, tooLarge(most, "record %d: the payload has %d bytes, the log takes at most %d (max_payload_bytes)", i, n, most)
		}
	}
	return list, several, release, nil
}

// appended is how one record is answered.
type appended struct {
	Log    client.LogID `json:"log,omitempty"`
	LSN    string       `json:"lsn,omitempty"`
	Number client.LSN   `json:"number,omitempty"`
	Error  *problem     `json:"error,omitempty"`
}

// outcome is what an append came to.
type outcome struct {
	i   int
	lsn client.LSN
	err error
}

// appendAll appends a list and waits for all of it, or the context's end: then what
// is not answered has an unknown outcome (I4).
func appendAll(ctx context.Context, l Log, list []Append) []outcome {
	outcomes := make([]outcome, len(list))
	for i := range outcomes {
		outcomes[i] = outcome{i, 0, errUnanswered}
	}
	answers := make(chan outcome, len(list))
	for i := range list {
		l.AppendAsync(list[i], func(lsn client.LSN, err error) { answers <- outcome{i, lsn, err} })
	}
	for range list {
		select {
		case o := <-answers:
			outcomes[o.i] = o
		case <-ctx.Done():
			return outcomes
		}
	}
	return outcomes
}

var errUnanswered = &problem{code: http.StatusGatewayTimeout, Status: "timed_out", Retriable: true,
	Message: "the time allowed ran out while the append was on its way"}

// answerAll answers a list. If all is well the status is 200, else that of the first
// record that failed; all of them are answered either way.
func (s *Server) answerAll(w http.ResponseWriter, r *request, l Log, list []Append, outcomes []outcome) {
	body := struct {
		Log     client.LogID `json:"log"`
		Results []appended   `json:"results"`
		Error   *problem     `json:"error,omitempty"` // of all that failed
	}{Log: l.ID(), Results: make([]appended, len(list))}
	code, failed := http.StatusOK, 0
	for i, o := range outcomes {
		if o.err == nil {
			body.Results[i] = appended{LSN: lsnText(o.lsn), Number: o.lsn}
			s.appended(list[i])
			continue
		}
		p := problemOf(o.err)
		body.Results[i].Error = p
		if failed++; failed == 1 {
			first := *p
			code, body.Error = p.code, &first
		}
		body.Error.OutcomeKnown = body.Error.OutcomeKnown && p.OutcomeKnown
		body.Error.Retriable = body.Error.Retriable && p.Retriable
	}
	if failed > 0 {
		s.metrics.Errors.Add(1)
		body.Error.Message = fmt.Sprintf("%d of %d records failed; the first: %s", failed, len(list), body.Error.Message)
		// Without a producer, to send the list again is to append the others twice.
		body.Error.Retriable = body.Error.Retriable && (failed == len(list) || list[0].Producer != 0)
		body.Error.headers(w.Header())
	}
	if r.Context().Err() != nil {
		s.metrics.Gone.Add(1)
		return
	}
	s.answer(w, code, body)
}

func (s *Server) appended(a Append) {
	s.metrics.RecordsIn.Add(1)
	s.metrics.PayloadBytesIn.Add(uint64(len(a.Payload)))
}
