package rest

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzParameters: what is taken for a request's parameters means the same when it is
// written again; what is not taken is refused with a 4xx.
func FuzzParameters(f *testing.F) {
	for _, s := range []string{
		"", "from=e5n8&until=17&limit=3", "from=e1n5.2&wait=5s", "from=tail&follow=true&format=ndjson", "from=2026-01-31T12:00:00%2B02:00",
		"filter_key=%00%ff&filter_to=z", "payload=false&encoding=base64", "from=e4294967295n4294967295", "from=-1", "a=b", "%zz", "from=e1n1;until=2", "limit=99999999999999999999",
	} {
		f.Add(s)
	}
	s := NewServer(nil, Options{})
	f.Fuzz(func(t *testing.T, raw string) {
		refused := func(err error) {
			if p := problemOf(err); p.code < 400 || p.code > 499 || p.Message == "" {
				t.Fatalf("%q: %d %v", raw, p.code, err)
			}
		}
		if q, err := parseQuery(raw, appendParameters); err != nil {
			refused(err)
		} else if _, err := s.appendTerms(q); err != nil {
			refused(err)
		}
		q, err := parseQuery(raw, readParameters)
		if err != nil {
			refused(err)
			return
		}
		p, err := s.planOf(&request{Request: &http.Request{Header: http.Header{}}, query: q})
		if err != nil {
			refused(err)
			return
		}
		if !p.from.tail && p.from.time.IsZero() {
			again, err := parsePosition(p.from.position.String())
			if err != nil || again != p.from.position {
				t.Fatalf("%q: position %v is read back as %v, %v", raw, p.from.position, again, err)
			}
		}
		if p.limit < 1 || p.wait < 0 || p.wait > s.opts.WaitMax || (p.follow && p.format == typeJSON) {
			t.Fatalf("%q: %+v", raw, p)
		}
	})
}

// FuzzAppendBodies: what is taken of a JSON body is what it says (I2); anything else
// is refused with a 4xx.
func FuzzAppendBodies(f *testing.F) {
	for _, s := range []string{
		`{"payload":"a"}`, `{"payload_base64":"AP8="}`, `{"records":[{"payload":"a","find_key":"k"},{"payload":""}]}`,
		`{"payload":"\ud83d\ude00"}`, `{"payload":"\ud83d"}`, `{"payload":"\\ud83d"}`, "{\"payload\":\"\xff\"}", `{"records":[{}]}`, `{"records":[[`, `null`, `[]`, `{"payload":null}`,
		`{"payload":"\ufffd"}`, `{"payload":"\u00e9\/\b"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		list, several, err := decodeAppend(body)
		if err != nil {
			if p := problemOf(err); (p.code != 400 && p.code != 413) || !p.OutcomeKnown {
				t.Fatalf("%q: %d %v", body, p.code, err)
			}
			return
		}
		if len(list) == 0 || len(list) > recordsMax || (!several && len(list) != 1) {
			t.Fatalf("%q: %d records", body, len(list))
		}
		bytes := 0
		for _, a := range list {
			if a.Payload == nil {
				t.Fatalf("%q: a record without a payload", body)
			}
			bytes += len(a.Payload)
			if strings.Contains(string(a.Payload), "�") && !strings.Contains(string(body), "�") && !strings.Contains(strings.ToLower(string(body)), `\ufffd`) &&
				!strings.Contains(strings.ToLower(string(body)), "base64") {
				t.Fatalf("%q: mended to %q", body, a.Payload)
			}
		}
		if bytes > len(body) {
			t.Fatalf("%q: %d bytes of payload", body, bytes)
		}
	})
}

// FuzzTextRoundTrip: any text that JSON can carry comes out as it went in.
func FuzzTextRoundTrip(f *testing.F) {
	f.Add("a\\ud83d\"\x00", "k")
	f.Add("😀\u2028", "�")
	f.Fuzz(func(t *testing.T, payload, key string) {
		if !utf8.ValidString(payload) || !utf8.ValidString(key) || len(key) > keyBytesMax {
			return
		}
		body, err := json.Marshal(map[string]string{"payload": payload, "find_key": key, "filter_key_base64": base64.StdEncoding.EncodeToString([]byte(key))})
		if err != nil {
			t.Fatal(err)
		}
		list, _, err := decodeAppend(body)
		if err != nil || string(list[0].Payload) != payload || string(list[0].FindKey) != key || string(list[0].FilterKey) != key {
			t.Fatalf("%q: %+v, %v", body, list, err)
		}
	})
}

// FuzzChanges: a body of a change is taken or refused with a 4xx.
func FuzzChanges(f *testing.F) {
	for _, s := range []string{``, `{}`, `{"logs":4,"attributes":{"backlog":"7d"},"parents":true}`, `{"attributes":{"backlog":[]}}`, `{"attributes":null}`, `{"LOGS":1}`, `null`, `{"logs":1e400}`} {
		f.Add(s, "events/clicks")
	}
	f.Add("", "17")
	f.Add("", "a/../b")
	s := NewServer(nil, Options{})
	f.Fuzz(func(t *testing.T, body, name string) {
		r := &request{Request: httptest.NewRequest("PUT", "/", strings.NewReader(body))}
		_, _, err := s.change(httptest.NewRecorder(), r, "attributes logs directory parents if_not_exists first_id")
		if p := problemOf(errOr(err)); p.code < 400 || p.code > 499 {
			t.Fatalf("%q: %v", body, err)
		}
		path, err := changedPath(name)
		if p := problemOf(errOr(err)); p.code < 400 || p.code > 499 || (err == nil && !strings.HasPrefix(path, "/")) {
			t.Fatalf("%q: %q %v", name, path, err)
		}
		if n := s.metrics.BodyBytes.Load(); n != 0 {
			t.Fatalf("%d bytes are still held", n)
		}
	})
}

// errOr is err, or one that is as good.
func errOr(err error) error {
	if err == nil {
		return invalid("none")
	}
	return err
}
