package rest

import (
	"errors"
	"net/http"
	"time"

	"github.com/braiddb/braid/client"
)

// tail says where a log ends.
//
//	GET /v1/tail/{log}
func (s *Server) tail(w http.ResponseWriter, r *request) error {
	l, _, err := s.logNamed(r.Context(), r.name, false)
	if err != nil {
		return err
	}
	t, err := l.TailAttributes(r.Context())
	if err != nil {
		return err
	}
	body := struct {
		Log       client.LogID `json:"log"`
		LSN       string       `json:"lsn"` // of the last record; e0n0 where there never was one
		Number    client.LSN   `json:"number"`
		Timestamp string       `json:"timestamp,omitempty"`
		Count     uint64       `json:"count"` // payloads ever appended
	}{Log: l.ID(), LSN: lsnText(t.LSN), Number: t.LSN, Count: t.Count}
	if t.LSN != 0 {
		body.Timestamp = timeText(t.Timestamp)
	}
	s.answer(w, http.StatusOK, body)
	return nil
}

// head says where a log begins.
//
//	GET /v1/head/{log}
func (s *Server) head(w http.ResponseWriter, r *request) error {
	l, _, err := s.logNamed(r.Context(), r.name, false)
	if err != nil {
		return err
	}
	h, err := l.HeadAttributes(r.Context())
	if err != nil {
		return err // of a part of the shards as well: one of the others may be trimmed further
	}
	body := struct {
		Log       client.LogID `json:"log"`
		TrimPoint string       `json:"trim_point"` // nothing at or below it can be read; e0n0: nothing was trimmed
		Number    client.LSN   `json:"number"`
		Timestamp string       `json:"timestamp,omitempty"` // of the last record that was trimmed, about
	}{Log: l.ID(), TrimPoint: lsnText(h.TrimPoint), Number: h.TrimPoint}
	if h.TrimPoint != 0 && !h.Timestamp.IsZero() {
		body.Timestamp = timeText(h.Timestamp)
	}
	s.answer(w, http.StatusOK, body)
	return nil
}

// empty says whether a log has no record that can be read.
//
//	GET /v1/empty/{log}
func (s *Server) empty(w http.ResponseWriter, r *request) error {
	l, _, err := s.logNamed(r.Context(), r.name, false)
	if err != nil {
		return err
	}
	empty, err := l.IsEmpty(r.Context())
	if err != nil {
		return err
	}
	s.answer(w, http.StatusOK, struct {
		Log   client.LogID `json:"log"`
		Empty bool         `json:"empty"`
	}{l.ID(), empty})
	return nil
}

// size estimates how much was appended in a stretch of time.
//
//	GET /v1/size/{log}?from=TIME&to=TIME
func (s *Server) size(w http.ResponseWriter, r *request) error {
	var from, to time.Time
	for name, t := range map[string]*time.Time{"from": &from, "to": &to} {
		text, given := r.query[name]
		if !given {
			continue
		}
		at, err := parseTime(text)
		if err != nil {
			return invalid("%s=%s: %v", name, text, err)
		}
		*t = at
	}
	if !from.IsZero() && !to.IsZero() && to.Before(from) {
		return invalid("from=%s to=%s: it ends before it begins", timeText(from), timeText(to))
	}
	l, _, err := s.logNamed(r.Context(), r.name, false)
	if err != nil {
		return err
	}
	body := struct {
		Log   client.LogID `json:"log"`
		Bytes uint64       `json:"bytes"` // of one copy, with headers, about
		// Partial: not all nodes were heard, so there is more.
		Partial bool `json:"partial,omitempty"`
	}{Log: l.ID()}
	body.Bytes, err = l.DataSize(r.Context(), from, to)
	if body.Partial = errors.Is(err, client.ErrPartial); err != nil && !body.Partial {
		return err
	}
	s.answer(w, http.StatusOK, body)
	return nil
}

// find says where a time, or a find key, lies.
//
//	GET /v1/find/{log}?time=TIME&approximate=true
//	GET /v1/find/{log}?key=KEY&approximate=true
func (s *Server) find(w http.ResponseWriter, r *request) error {
	key, err := r.query.bytes("key")
	if err != nil {
		return err
	}
	text, byTime := r.query["time"]
	approximate, err := r.query.flag("approximate")
	if err != nil {
		return err
	}
	if byTime == (key != nil) {
		return invalid("say either time= or key=")
	}
	var at time.Time
	if byTime {
		if at, err = parseTime(text); err != nil {
			return invalid("time=%s: %v", text, err)
		}
	}
	l, _, err := s.logNamed(r.Context(), r.name, false)
	if err != nil {
		return err
	}
	body := struct {
		Log    client.LogID `json:"log"`
		LSN    string       `json:"lsn,omitempty"` // where to begin reading
		Number client.LSN   `json:"number,omitempty"`
		Low    string       `json:"low,omitempty"`  // the last record with a smaller key
		High   string       `json:"high,omitempty"` // the first with the key or a greater one; absent: none has
		// Partial: not all nodes were heard. The answer holds, but may be earlier than it need.
		Partial bool `json:"partial,omitempty"`
	}{Log: l.ID()}
	if byTime {
		body.Number, err = l.FindTime(r.Context(), at, approximate)
		body.LSN = lsnText(body.Number)
	} else {
		var low, high client.LSN
		low, high, err = l.FindKey(r.Context(), key, approximate)
		body.Low = lsnText(low)
		if high != lsnMax {
			body.High = lsnText(high)
		}
	}
	if body.Partial = errors.Is(err, client.ErrPartial); err != nil && !body.Partial {
		return err
	}
	s.answer(w, http.StatusOK, body)
	return nil
}

// trim makes all records up to an LSN unreadable, for ever.
//
//	DELETE /v1/records/{log}?until=LSN
func (s *Server) trim(w http.ResponseWriter, r *request) error {
	lsn, given, err := r.query.lsn("until")
	switch {
	case err != nil:
		return err
	case !given || lsn == 0:
		return invalid("say until=LSN: the last record to be trimmed")
	}
	l, _, err := s.logNamed(r.Context(), r.name, false)
	if err != nil {
		return err
	}
	err = l.Trim(r.Context(), lsn)
	var past *client.LogError
	switch {
	case errors.As(err, &past) && errors.Is(err, client.ErrPastTail):
		p := pastTail(past.Tail, "until=%s lies behind the end of the log, %s: what is appended next would be gone unread; trim up to %s at most",
			lsnText(lsn), lsnText(past.Tail), lsnText(past.Tail))
		p.Retriable = false // if it comes to pass, it is something else that would go
		return p
	case err != nil:
		return err // of a part of the shards as well: it is to be repeated
	}
	s.answer(w, http.StatusOK, struct {
		Log   client.LogID `json:"log"`
		Until string       `json:"until"`
	}{l.ID(), lsnText(lsn)})
	return nil
}
