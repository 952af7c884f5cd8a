package rest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// same compares JSON.
func same(t testing.TB, got, want string) {
	t.Helper()
	var g, w any
	if err := json.Unmarshal([]byte(got), &g); err != nil {
		t.Fatalf("%q: %v", got, err)
	}
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatalf("%q: %v", want, err)
	}
	if fmt.Sprint(g) != fmt.Sprint(w) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func (l *lab) payloads(log client.LogID) (list []string) {
	l.node.mu.Lock()
	defer l.node.mu.Unlock()
	for _, r := range l.node.records[log] {
		list = append(list, string(r.Payload))
	}
	return list
}

func TestRecordsAreAppended(t *testing.T) {
	l := newLab(t, Options{})
	l.must(201, "PUT", "/v1/logs/events/clicks", `{"parents":true}`)
	same(t, l.must(200, "POST", "/v1/records/events/clicks", "raw\x00\xff"), `{"log":1,"lsn":"e1n1","number":4294967297}`)
	same(t, l.must(200, "POST", "/v1/records/1", "", "Content-Type: application/octet-stream"), `{"log":1,"lsn":"e1n2","number":4294967298}`)
	l.must(200, "POST", "/v1/records/events/clicks", `{"payload":"text \u00e9 \ud83d\ude00"}`, jsonBody)
	l.must(200, "POST", "/v1/records/events/clicks", `{"payload_base64":"AP8="}`, "Content-Type: application/json; charset=utf-8")
	same(t, l.must(200, "POST", "/v1/records/events/clicks", `{"records":[{"payload":"a"},{"payload_base64":"Yg==","find_key":"k"},{"payload":""}]}`, jsonBody),
		`{"log":1,"results":[{"lsn":"e1n5","number":4294967301},{"lsn":"e1n6","number":4294967302},{"lsn":"e1n7","number":4294967303}]}`)
	want := []string{"raw\x00\xff", "", "text é 😀", "\x00\xff", "a", "b", ""}
	if got := l.payloads(1); fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("kept %q", got)
	}
	if key := l.node.records[1][5].FindKey; string(key) != "k" {
		t.Errorf("find key %q", key)
	}
	if n := l.server.metrics.RecordsIn.Load(); n != 7 {
		t.Errorf("%d records counted", n)
	}
	if n := l.server.metrics.BodyBytes.Load(); n != 0 {
		t.Errorf("%d bytes of bodies are still held", n)
	}
}

func TestALogIsMadeWhenItIsAppendedToAndNotWhenItIsRead(t *testing.T) {
	l := newLab(t, Options{})
	l.must(201, "PUT", "/v1/logs/auto", `{"directory":true,"attributes":{"create_on_append":true}}`)
	l.must(404, "GET", "/v1/records/auto/new", "")
	l.must(404, "GET", "/v1/tail/auto/new", "")
	l.must(404, "DELETE", "/v1/records/auto/new?until=e1n1", "")
	l.must(404, "GET", "/v1/logs/auto/new", "")
	l.must(200, "POST", "/v1/records/auto/new", "x")
	l.must(200, "GET", "/v1/logs/auto/new", "")
	l.must(404, "POST", "/v1/records/elsewhere", "x")
}

func TestConditionsAndProducers(t *testing.T) {
	l := newLab(t, Options{})
	l.must(201, "PUT", "/v1/logs/a", "")
	l.must(200, "POST", "/v1/records/a?if_tail=0", "first")
	l.must(200, "POST", "/v1/records/a?if_tail=e1n1", "second")
	a := l.do("POST", "/v1/records/a?if_tail=4294967297", "late")
	if a.code != 412 {
		t.Fatalf("%d %s", a.code, a.body)
	}
	p := problemIn(t, a.body)
	if p.Status != "condition_failed" || p.Tail != "e1n2" || !p.OutcomeKnown || p.Retriable {
		t.Errorf("%+v", p)
	}
	l.must(200, "POST", "/v1/records/a?producer=7&sequence=1", "p1")
	same(t, l.must(200, "POST", "/v1/records/a?producer=7&sequence=2", `{"records":[{"payload":"p2"},{"payload":"p3"}]}`, jsonBody),
		`{"log":1,"results":[{"lsn":"e1n4","number":4294967300},{"lsn":"e1n5","number":4294967301}]}`)
	same(t, l.must(200, "POST", "/v1/records/a?producer=7&sequence=3", "p3"), `{"log":1,"lsn":"e1n5","number":4294967301}`)
	a = l.do("POST", "/v1/records/a?producer=7&sequence=9", "p9")
	if p := problemIn(t, a.body); a.code != 409 || p.Status != "sequence_gap" || p.LastSequence == nil || *p.LastSequence != 3 {
		t.Errorf("%d %s", a.code, a.body)
	}
	if got := l.payloads(1); fmt.Sprint(got) != "[first second p1 p2 p3]" {
		t.Errorf("kept %q", got)
	}
}

func problemIn(t testing.TB, body string) problem {
	t.Helper()
	var in struct{ Error problem }
	if err := json.Unmarshal([]byte(body), &in); err != nil || in.Error.Status == "" || in.Error.Message == "" {
		t.Fatalf("no error in %q: %v", body, err)
	}
	return in.Error
}

func TestBadAppendsAreRefusedAndAppendNothing(t *testing.T) {
	l := newLab(t, Options{JSONBytes: 1000})
	l.must(201, "PUT", "/v1/logs/a", `{"attributes":{"max_payload_bytes":100}}`)
	l.must(201, "PUT", "/v1/logs/group", `{"logs":3}`)
	l.must(201, "PUT", "/v1/logs/dir", `{"directory":true}`)
	long := strings.Repeat("x", 101)
	for _, c := range []struct {
		code        int
		path, body  string
		contentType string
		says        string
	}{
		{404, "/v1/records/none", "x", "", "none"},
		{404, "/v1/records/99", "x", "", "99"},
		{400, "/v1/records/0", "x", "", "log id"},
		{400, "/v1/records/dir", "x", "", "directory"},
		{400, "/v1/records/group", "x", "", "group of 3"},
		{404, "/v1/records/group%233", "x", "", "group"},
		{400, "/v1/records/a/", "x", "", "empty"},
		{400, "/v1/records/a%23x", "x", "", "#"},
		{413, "/v1/records/a", long, "", "more than 100 bytes"},
		{413, "/v1/records/a", `{"payload":"` + long + `"}`, typeJSON, "101 bytes"},
		{413, "/v1/records/a", `{"records":[{"payload":"ok"},{"payload":"` + long + `"}]}`, typeJSON, "record 1"},
		{413, "/v1/records/a", `{"payload":"` + strings.Repeat("x", 1000) + `"}`, typeJSON, "taken as JSON"},
		{400, "/v1/records/a", ``, typeJSON, "JSON"},
		{400, "/v1/records/a", `{}`, typeJSON, "neither"},
		{400, "/v1/records/a", `null`, typeJSON, "neither"},
		{400, "/v1/records/a", `[]`, typeJSON, "JSON"},
		{400, "/v1/records/a", `{"payload":"a"} x`, typeJSON, "follows"},
		{400, "/v1/records/a", `{"payload":"a","payload_base64":"YQ=="}`, typeJSON, "both"},
		{400, "/v1/records/a", `{"payload":"a","records":[]}`, typeJSON, "beside"},
		{400, "/v1/records/a", `{"records":[]}`, typeJSON, "empty"},
		{400, "/v1/records/a", `{"records":[{"payload":"a"},{}]}`, typeJSON, "record 1"},
		{400, "/v1/records/a", `{"records":[{"payload":"a"},{"x":1}]}`, typeJSON, "record 1"},
		{400, "/v1/records/a", `{"records":{}}`, typeJSON, "array"},
		{400, "/v1/records/a", `{"payload":7}`, typeJSON, "JSON"},
		{400, "/v1/records/a", `{"payload_base64":"!"}`, typeJSON, "base64"},
		{400, "/v1/records/a", `{"paylod":"a"}`, typeJSON, "paylod"},
		{400, "/v1/records/a", "{\"payload\":\"\xff\"}", typeJSON, "UTF-8"},
		{400, "/v1/records/a", `{"payload":"\ud83d"}`, typeJSON, "surrogate"},
		{400, "/v1/records/a", `{"payload":"\ude00\ud83d"}`, typeJSON, "surrogate"},
		{413, "/v1/records/a?find_key=" + strings.Repeat("k", keyBytesMax+1), "x", "", "find_key"},
		{400, "/v1/records/a?iftail=0", "x", "", "iftail"},
		{400, "/v1/records/a?if_tail=0&if_tail=e1n1", "x", "", "2 times"},
		{400, "/v1/records/a?if_tail=tail", "x", "", "LSN"},
		{400, "/v1/records/a?if_tail=%zz", "x", "", "malformed"},
		{400, "/v1/records/a?if_tail=0", `{"records":[{"payload":"a"}]}`, typeJSON, "one record"},
		{400, "/v1/records/a?if_tail=0&producer=1&sequence=1", "x", "", "together"},
		{400, "/v1/records/a?producer=1", "x", "", "together"},
		{400, "/v1/records/a?producer=0&sequence=1", "x", "", "from 1 on"},
		{400, "/v1/records/a?timeout=soon", "x", "", "timeout"},
		{400, "/v1/records/a?timeout=2h", "x", "", "at most"},
	} {
		a := l.do("POST", c.path, c.body, "Content-Type: "+c.contentType)
		p := problemIn(t, a.body)
		if a.code != c.code || !strings.Contains(p.Message, c.says) || !p.OutcomeKnown || p.Retriable {
			t.Errorf("%s %.80q: %d %s, want %d and %q", c.path, c.body, a.code, a.body, c.code, c.says)
		}
		if c.code == 413 && p.Limit == 0 {
			t.Errorf("%s: the limit is not said: %s", c.path, a.body)
		}
	}
	l.must(415, "POST", "/v1/records/a", "x", "Content-Encoding: gzip")
	l.must(403, "POST", "/v1/records/a", "x", "Sec-Fetch-Site: cross-site")
	l.must(403, "POST", "/v1/records/a", "x", "Origin: http://elsewhere.example")
	if got := l.payloads(1); len(got) != 0 {
		t.Errorf("appended %q", got)
	}
	l.must(200, "POST", "/v1/records/a", long[1:]) // exactly as much as it takes
	if n := l.server.metrics.BodyBytes.Load(); n != 0 {
		t.Errorf("%d bytes of bodies are still held", n)
	}
}

// TestMemoryGrowsWithWhatCame: a length that is only announced takes none (I1).
func TestMemoryGrowsWithWhatCame(t *testing.T) {
	s := NewServer(nil, Options{BodyBytes: 64 << 10})
	in, out := io.Pipe()
	r := httptest.NewRequest("POST", "/", in)
	r.ContentLength = 32 << 20
	ended := make(chan error, 1)
	go func() {
		_, release, err := s.readBody(httptest.NewRecorder(), r, 32<<20, "is taken")
		release()
		in.Close() // as a connection is, whose body was refused
		ended <- err
	}()
	chunk := make([]byte, 1<<10)
	if _, err := out.Write(chunk); err != nil { // it was read
		t.Fatal(err)
	}
	if n := s.metrics.BodyBytes.Load(); n != bodyStep {
		t.Errorf("%d bytes are held for 1 KiB", n)
	}
	for {
		if _, err := out.Write(chunk); err != nil {
			break
		}
	}
	if p := problemOf(<-ended); p.code != 429 || p.Limit != 64<<10 {
		t.Errorf("beyond what all bodies may have: %+v", p)
	}
	if n := s.metrics.BodyBytes.Load(); n != 0 {
		t.Errorf("%d bytes are still held", n)
	}
}

func TestAppendErrorsSayWhatIsKnown(t *testing.T) {
	l := newLab(t, Options{})
	l.must(201, "PUT", "/v1/logs/a", "")
	refusal := func(s wire.LogStatus) func(*wire.AppendRequest) (*wire.AppendResponse, error) {
		return func(*wire.AppendRequest) (*wire.AppendResponse, error) { return &wire.AppendResponse{Status: s}, nil }
	}
	lost := func(*wire.AppendRequest) (*wire.AppendResponse, error) { return nil, rpc.ErrLost }
	for _, c := range []struct {
		name      string
		onAppend  func(*wire.AppendRequest) (*wire.AppendResponse, error)
		code      int
		status    string
		known     bool
		retriable bool
		later     bool
	}{
		{"overloaded", refusal(wire.LogStatus_LOG_STATUS_SEQNOBUFS), 429, "seqnobufs", true, true, true},
		{"disks full", refusal(wire.LogStatus_LOG_STATUS_NO_SPACE), 507, "no_space", true, true, true},
		{"too few nodes", refusal(wire.LogStatus_LOG_STATUS_UNDER_REPLICATED), 503, "under_replicated", true, true, true},
		{"too large", refusal(wire.LogStatus_LOG_STATUS_TOO_LARGE), 413, "too_large", true, false, false},
		{"lost answer", lost, 504, "unknown_outcome", false, true, false},
		{"access", refusal(wire.LogStatus_LOG_STATUS_ACCESS), 403, "access", true, false, false},
	} {
		l.node.mu.Lock()
		l.node.onAppend = c.onAppend
		l.node.mu.Unlock()
		a := l.do("POST", "/v1/records/a?timeout=100ms", "x")
		p := problemIn(t, a.body)
		if a.code != c.code || p.OutcomeKnown != c.known || p.Retriable != c.retriable || (a.header.Get("Retry-After") != "") != c.later {
			t.Errorf("%s: %d %s, Retry-After %q", c.name, a.code, a.body, a.header.Get("Retry-After"))
		}
		if p.Status != c.status {
			t.Errorf("%s: %q", c.name, p.Status)
		}
	}
}

func TestEachRecordOfAListIsAnswered(t *testing.T) {
	l := newLab(t, Options{})
	l.must(201, "PUT", "/v1/logs/a", "")
	l.node.onAppend = func(r *wire.AppendRequest) (*wire.AppendResponse, error) {
		if bytes.HasPrefix(r.Payload, []byte("bad")) {
			return &wire.AppendResponse{Status: wire.LogStatus_LOG_STATUS_TOO_LARGE}, nil
		}
		return nil, nil
	}
	a := l.do("POST", "/v1/records/a", `{"records":[{"payload":"one"},{"payload":"bad"},{"payload":"two"}]}`, jsonBody)
	var in struct {
		Results []appended
		Error   problem
	}
	if err := json.Unmarshal([]byte(a.body), &in); err != nil {
		t.Fatal(err)
	}
	if a.code != http.StatusRequestEntityTooLarge || len(in.Results) != 3 || in.Results[0].LSN != "e1n1" || in.Results[1].Error == nil || in.Results[2].LSN != "e1n2" {
		t.Errorf("%d %s", a.code, a.body)
	}
	if in.Error.Retriable || !in.Error.OutcomeKnown || !strings.Contains(in.Error.Message, "1 of 3") {
		t.Errorf("%+v", in.Error)
	}
	// A node that answers nothing: the outcome of all is unknown, and nobody is told to send them again.
	l.node.mu.Lock()
	l.node.onAppend = func(*wire.AppendRequest) (*wire.AppendResponse, error) { return nil, rpc.ErrLost }
	l.node.mu.Unlock()
	a = l.do("POST", "/v1/records/a?timeout=50ms", `{"records":[{"payload":"x"},{"payload":"y"}]}`, jsonBody)
	if p := problemIn(t, a.body); a.code != 504 || p.OutcomeKnown {
		t.Errorf("%d %s", a.code, a.body)
	}
	many := `{"records":[` + strings.Repeat(`{"payload":""},`, recordsMax) + `{"payload":""}]}`
	if a := l.do("POST", "/v1/records/a", many, jsonBody); a.code != 413 || problemIn(t, a.body).Limit != recordsMax {
		t.Errorf("%d %.200s", a.code, a.body)
	}
}
