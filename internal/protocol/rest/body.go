package rest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"
	"unicode/utf8"
)

// recordsMax bounds the records of one request.
const recordsMax = 10_000

// bodyStep is the memory that the first bytes of a body get.
const bodyStep = 4 << 10

// readBody reads a body of at most limit bytes. The caller gives its memory back
// with release, also after an error.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request, limit int64, limitName string) (body []byte, release func(), err error) {
	held := int64(0)
	release = func() { s.metrics.BodyBytes.Add(-held) }
	refused := func() error {
		return tooLarge(limit, "the body has more than %d bytes, the most that %s", limit, limitName)
	}
	switch {
	case r.Header.Get("Content-Encoding") != "":
		return nil, release, refuse(http.StatusUnsupportedMediaType, "invalid", "content encoding %q is not known here: send the body as it is", r.Header.Get("Content-Encoding"))
	case r.ContentLength > limit:
		return nil, release, refused()
	}
	deadlines := http.NewResponseController(w)
	// What is served without a connection has no deadlines.
	_ = deadlines.SetReadDeadline(time.Now().Add(s.opts.BodyTimeout))
	defer deadlines.SetReadDeadline(time.Time{})
	for {
		if len(body) == cap(body) { // I1
			more := max(bodyStep, int64(cap(body)))
			if r.ContentLength >= 0 {
				more = min(more, r.ContentLength+1-int64(cap(body)))
			}
			more = min(more, limit+1-int64(cap(body)))
			if s.metrics.BodyBytes.Add(more) > s.opts.BodyBytes {
				s.metrics.BodyBytes.Add(-more)
				s.metrics.Refused.Add(1)
				return nil, release, overloaded(s.opts.BodyBytes, "the bodies of all requests together have %d bytes already", s.opts.BodyBytes)
			}
			held += more
			grown := make([]byte, len(body), int64(cap(body))+more)
			copy(grown, body)
			body = grown
		}
		n, err := r.Body.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		switch {
		case int64(len(body)) > limit:
			return nil, release, refused()
		case err == io.EOF:
			return body, release, nil
		case err != nil:
			return nil, release, badBody(err)
		}
	}
}

func badBody(err error) error {
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		return refuse(http.StatusRequestTimeout, "timeout", "the body did not come in time")
	}
	return invalid("the body could not be read: %v", err)
}

// isJSON says whether a body is said to be JSON.
func isJSON(h http.Header) bool {
	t, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	return err == nil && t == typeJSON
}

// decodeJSON reads a JSON body: one value, nothing behind it, no field that is not known.
func decodeJSON(body []byte, into any) error {
	if !utf8.Valid(body) {
		return invalid("the body is not UTF-8; send other bytes as payload_base64, or as %s", typeFrames)
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		var p *problem
		if errors.As(err, &p) {
			return p
		}
		return invalid("the body is not the JSON that is wanted: %v", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return invalid("something follows the JSON in the body")
	}
	return nil
}

// text is a JSON string of which nothing is mended: encoding/json puts U+FFFD in the
// place of half a surrogate pair (I2).
type text string

// UnmarshalJSON reads a string.
func (t *text) UnmarshalJSON(raw []byte) error {
	if err := wholePairs(raw); err != nil {
		return err
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return err
	}
	*t = text(s)
	return nil
}

// wholePairs refuses an escape of half a surrogate pair in a JSON string.
func wholePairs(raw []byte) error {
	high := false
	for i := 0; i < len(raw); i++ {
		escape := raw[i] == '\\' && i+1 < len(raw)
		unit := uint64(0)
		if escape && raw[i+1] == 'u' && i+6 <= len(raw) {
			unit, _ = strconv.ParseUint(string(raw[i+2:i+6]), 16, 16)
			i += 4
		}
		if escape {
			i++
		}
		low := unit >= 0xdc00 && unit < 0xe000
		if low != high {
			return fmt.Errorf("a string escapes half a surrogate pair; send such bytes as payload_base64")
		}
		high = unit >= 0xd800 && unit < 0xdc00
	}
	return nil
}

// recordJSON is a record as it is sent.
type recordJSON struct {
	Payload         *text   `json:"payload"`
	PayloadBase64   *string `json:"payload_base64"`
	FindKey         *text   `json:"find_key"`
	FindKeyBase64   *string `json:"find_key_base64"`
	FilterKey       *text   `json:"filter_key"`
	FilterKeyBase64 *string `json:"filter_key_base64"`
}

// appendJSON is a body of POST /v1/records: one record, or several.
type appendJSON struct {
	recordJSON
	Records *recordsJSON `json:"records"`
}

type recordsJSON []recordJSON

// UnmarshalJSON reads an array whose length is bounded: an empty object takes three
// bytes of the body, and many more here (I1).
func (l *recordsJSON) UnmarshalJSON(raw []byte) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if t, err := dec.Token(); err != nil || t != json.Delim('[') {
		return fmt.Errorf("records is not an array")
	}
	for dec.More() {
		if len(*l) == recordsMax {
			return tooLarge(recordsMax, "more than %d records in one request", recordsMax)
		}
		var rec recordJSON
		if err := dec.Decode(&rec); err != nil {
			return fmt.Errorf("record %d: %w", len(*l), err)
		}
		*l = append(*l, rec)
	}
	return nil
}

// decodeAppend gives the records of a JSON body, and whether they came as a list.
func decodeAppend(body []byte) (list []Append, several bool, err error) {
	var in appendJSON
	if err := decodeJSON(body, &in); err != nil {
		return nil, false, err
	}
	if in.Records == nil {
		a, err := in.record()
		return []Append{a}, false, err
	}
	if in.recordJSON != (recordJSON{}) {
		return nil, false, invalid("beside records there is nothing else: payloads and keys lie in each of them")
	}
	if len(*in.Records) == 0 {
		return nil, false, invalid("records is empty")
	}
	list = make([]Append, len(*in.Records))
	for i, rec := range *in.Records {
		if list[i], err = rec.record(); err != nil {
			p := *problemOf(err)
			p.Message = fmt.Sprintf("record %d: %s", i, p.Message)
			return nil, false, &p
		}
	}
	return list, true, nil
}

func (rec recordJSON) record() (a Append, err error) {
	if rec.Payload == nil && rec.PayloadBase64 == nil {
		return a, invalid("neither payload nor payload_base64 is there")
	}
	if a.Payload, err = bytesOf("payload", rec.Payload, rec.PayloadBase64); err != nil {
		return a, err
	}
	if a.FindKey, err = bytesOf("find_key", rec.FindKey, rec.FindKeyBase64); err == nil {
		a.FindKey, err = key("find_key", a.FindKey)
	}
	if err != nil {
		return a, err
	}
	if a.FilterKey, err = bytesOf("filter_key", rec.FilterKey, rec.FilterKeyBase64); err == nil {
		a.FilterKey, err = key("filter_key", a.FilterKey)
	}
	return a, err
}

// bytesOf gives what is said as text or as base64; nil is neither.
func bytesOf(name string, plain *text, coded *string) ([]byte, error) {
	switch {
	case plain != nil && coded != nil:
		return nil, invalid("both %s and %s_base64 are there", name, name)
	case plain != nil:
		return []byte(*plain), nil
	case coded != nil:
		b, err := base64.StdEncoding.DecodeString(*coded)
		if err != nil {
			return nil, invalid("%s_base64: %v", name, err)
		}
		return b, nil
	}
	return nil, nil
}
