package rest

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/logs"
)

// pageIn is a JSON answer, or a line of a stream, taken apart.
type pageIn struct {
	Log     client.LogID
	Entries []entryIn
	Next    string
	Tail    string
	End     bool
}

type entryIn struct {
	LSN           string
	Number        uint64
	BatchOffset   int `json:"batch_offset"`
	Timestamp     string
	Offset        *uint64
	Count         int
	Payload       *string
	PayloadBase64 []byte `json:"payload_base64"`
	Gap           *gapJSON
	End           *pageIn
	Error         *problem
}

func (e entryIn) String() string {
	switch {
	case e.Gap != nil:
		return e.Gap.Type + "[" + e.Gap.From + "," + e.Gap.To + "]"
	case e.Payload != nil:
		return e.LSN + "=" + *e.Payload
	}
	return fmt.Sprintf("%s=%x", e.LSN, e.PayloadBase64)
}

func (l *lab) read(path string) pageIn {
	l.t.Helper()
	var p pageIn
	body := l.must(200, "GET", path, "")
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		l.t.Fatalf("%q: %v", body, err)
	}
	return p
}

// filled is a lab with a log /a of n records: record i has the payload "r<i>" and keys k<i>.
func filled(t testing.TB, n int, o Options) *lab {
	l := newLab(t, o)
	l.must(201, "PUT", "/v1/logs/a", "")
	for i := 1; i <= n; i++ {
		l.must(200, "POST", fmt.Sprintf("/v1/records/a?find_key=k%d&filter_key=f%d", i, i%2), fmt.Sprintf("r%d", i))
	}
	return l
}

func TestRecordsAreReadInPages(t *testing.T) {
	l := filled(t, 7, Options{})
	var got []string
	next := "oldest"
	for range 20 {
		p := l.read("/v1/records/a?limit=3&from=" + next)
		for _, e := range p.Entries {
			got = append(got, e.String())
		}
		if p.Tail != "e1n7" || p.Log != 1 || len(p.Entries) > 3 {
			t.Errorf("%+v", p)
		}
		if next = p.Next; len(p.Entries) == 0 {
			break
		}
	}
	want := "[BRIDGE[e0n1,e1n0] e1n1=r1 e1n2=r2 e1n3=r3 e1n4=r4 e1n5=r5 e1n6=r6 e1n7=r7]"
	if fmt.Sprint(got) != want || next != "e1n8" {
		t.Errorf("read %v, next %s\nwant %s", got, next, want)
	}
	p := l.read("/v1/records/a?from=e1n2&until=e1n3")
	if fmt.Sprint(p.Entries) != "[e1n2=r2 e1n3=r3]" || !p.End || p.Next != "e1n4" {
		t.Errorf("%+v", p)
	}
	e := p.Entries[0]
	if e.Number != 1<<32+2 || e.Timestamp != "2026-01-31T12:00:01.000Z" || e.Offset == nil || *e.Offset != 1 {
		t.Errorf("%+v", e)
	}
	for from, want := range map[string]string{
		"tail": "[]", "e1n8": "[]", "4294967302": "[e1n6=r6 e1n7=r7]", "e1n7.0": "[e1n7=r7]", "e1n6.1": "[e1n7=r7]",
		"2026-01-31T12:00:05Z": "[e1n6=r6 e1n7=r7]", url.QueryEscape("2026-01-31T14:00:06+02:00"): "[e1n7=r7]",
	} {
		if p := l.read("/v1/records/a?from=" + from); fmt.Sprint(p.Entries) != want {
			t.Errorf("from %s: %v, want %s", from, p.Entries, want)
		}
	}
	l.must(400, "GET", "/v1/records/a?from=e1n9", "")
	if p := l.read("/v1/records/a?from=e1n9&wait=1ms"); len(p.Entries) != 0 || p.Next != "e1n9" {
		t.Errorf("waiting behind the end: %+v", p)
	}
	if p := l.read("/v1/records/a?from=e1n1&filter_key=f1"); fmt.Sprint(p.Entries) != "[e1n1=r1 FILTERED_OUT[e1n2,e1n2] e1n3=r3 FILTERED_OUT[e1n4,e1n4] e1n5=r5 FILTERED_OUT[e1n6,e1n6] e1n7=r7]" {
		t.Errorf("filtered: %v", p.Entries)
	}
	if p := l.read("/v1/records/a?from=e1n7&payload=false"); p.Entries[0].Count != 1 || p.Entries[0].Payload != nil {
		t.Errorf("without payloads: %+v", p.Entries)
	}
	if p := l.read("/v1/records/a?from=e1n7&encoding=base64"); string(p.Entries[0].PayloadBase64) != "r7" {
		t.Errorf("as base64: %+v", p.Entries)
	}
}

func TestAnEmptyLogIsReadAtOnce(t *testing.T) {
	l := filled(t, 0, Options{})
	for _, from := range []string{"oldest", "tail", "e1n1", "2026-01-31T12:00:05Z"} {
		if p := l.read("/v1/records/a?from=" + from); len(p.Entries) != 0 {
			t.Errorf("from %s: %+v", from, p)
		}
	}
	same(t, l.must(200, "GET", "/v1/tail/a", ""), `{"log":1,"lsn":"e0n0","number":0,"count":0}`)
}

// TestPayloadsComeBackAsTheyWereSent: the bytes, whatever they are (I2).
func TestPayloadsComeBackAsTheyWereSent(t *testing.T) {
	l := filled(t, 0, Options{})
	sent := []string{"", "plain", "\xff\xfe", "<&>\u2028\x00\n\"\\", "\xef\xbf\xbd", "é😀", "half \xed\xa0\x80"}
	for _, s := range sent {
		l.must(200, "POST", "/v1/records/a", s, "Content-Type: application/octet-stream")
	}
	for i, e := range l.read("/v1/records/a?from=e1n1").Entries {
		got := string(e.PayloadBase64)
		if e.Payload != nil {
			got = *e.Payload
		}
		if got != sent[i] || (e.Payload == nil && e.PayloadBase64 == nil) {
			t.Errorf("%q came back as %q", sent[i], got)
		}
	}
}

// TestAPageEndsWithinABatch: next names the place in it (I7).
func TestAPageEndsWithinABatch(t *testing.T) {
	l := filled(t, 1, Options{})
	var b logs.BatchBuilder
	for _, p := range []string{"x", "y", "z"} {
		b.Add([]byte(p))
	}
	l.node.mu.Lock()
	rec := l.node.records[1][0]
	rec.Payload, rec.Count, rec.Flags = b.AppendTo(nil, 0), 3, logs.FlagBatch
	rec.Checksum = logs.Checksum(rec.Payload)
	l.node.mu.Unlock()
	l.must(200, "POST", "/v1/records/a", "last")
	var got []string
	next := "e1n1"
	for _, want := range []string{"e1n1.1", "e1n1.2", "e1n2", "e1n3"} {
		p := l.read("/v1/records/a?limit=1&from=" + next)
		if len(p.Entries) != 1 || p.Next != want {
			t.Fatalf("from %s: %+v, want next %s", next, p, want)
		}
		got = append(got, fmt.Sprint(p.Entries[0].BatchOffset, *p.Entries[0].Payload, *p.Entries[0].Offset))
		next = p.Next
	}
	if fmt.Sprint(got) != "[0x0 1y1 2z2 0last3]" {
		t.Errorf("%v", got)
	}
}

func TestAReadWaitsForWhatComes(t *testing.T) {
	l := filled(t, 1, Options{})
	if p := l.read("/v1/records/a?from=tail&wait=30ms"); len(p.Entries) != 0 || p.Next != "e1n2" || p.Tail != "" {
		t.Errorf("nothing came, and the answer is %+v", p)
	}
	pages := make(chan pageIn, 1)
	go func() { pages <- l.read("/v1/records/a?from=e1n2&wait=20s") }()
	l.node.readers(1)
	l.must(200, "POST", "/v1/records/a", "news")
	if p := <-pages; len(p.Entries) == 0 || p.Entries[0].String() != "e1n2=news" || p.Next != "e1n3" {
		t.Errorf("%+v", p)
	}
	l.node.readers(0)
}

func TestTrimmedRangesAreGaps(t *testing.T) {
	l := filled(t, 4, Options{})
	same(t, l.must(200, "DELETE", "/v1/records/a?until=e1n2", ""), `{"log":1,"until":"e1n2"}`)
	if p := l.read("/v1/records/a?from=e1n1"); fmt.Sprint(p.Entries) != "[TRIM[e1n1,e1n2] e1n3=r3 e1n4=r4]" {
		t.Errorf("%v", p.Entries)
	}
	if p := problemIn(t, l.must(400, "DELETE", "/v1/records/a?until=e1n5", "")); p.Status != "past_tail" {
		t.Errorf("%+v", p)
	}
	l.must(400, "DELETE", "/v1/records/a", "")
}

func TestTimesAndKeysAreFound(t *testing.T) {
	l := filled(t, 4, Options{})
	same(t, l.must(200, "GET", "/v1/find/a?time=2026-01-31T12:00:02Z", ""), `{"log":1,"lsn":"e1n3","number":4294967299}`)
	same(t, l.must(200, "GET", "/v1/find/a?key=k3&approximate=true", ""), `{"log":1,"low":"e1n2","high":"e1n3"}`)
	same(t, l.must(200, "GET", "/v1/find/a?key=zz", ""), `{"log":1,"low":"e1n4"}`)
	same(t, l.must(200, "GET", "/v1/tail/a", ""), `{"log":1,"lsn":"e1n4","number":4294967300,"timestamp":"2026-01-31T12:00:03.000Z","count":4}`)
	for _, q := range []string{"", "?key=a&time=2026-01-31T12:00:02Z", "?time=yesterday", "?key=a&approximate=maybe"} {
		l.must(400, "GET", "/v1/find/a"+q, "")
	}
}

// follow opens a stream and gives its lines.
func (l *lab) follow(ctx context.Context, path, accept string) (*http.Response, *bufio.Reader) {
	l.t.Helper()
	req, err := http.NewRequestWithContext(ctx, "GET", l.http.URL+path, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	req.Header.Set("Accept", accept)
	resp, err := l.http.Client().Do(req)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != accept {
		b, _ := io.ReadAll(resp.Body)
		l.t.Fatalf("%d %v %s", resp.StatusCode, resp.Header, b)
	}
	return resp, bufio.NewReader(resp.Body)
}

func line(t testing.TB, r *bufio.Reader) (e entryIn) {
	t.Helper()
	s, err := r.ReadString('\n')
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	if err := json.Unmarshal([]byte(s), &e); err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return e
}

func TestALogSaysWhereItBeginsAndHowMuchItHolds(t *testing.T) {
	l := newLab(t, Options{})
	l.must(201, "PUT", "/v1/logs/a", "")
	same(t, l.must(200, "GET", "/v1/head/a", ""), `{"log":1,"trim_point":"e0n0","number":0}`)
	same(t, l.must(200, "GET", "/v1/empty/a", ""), `{"log":1,"empty":true}`)
	same(t, l.must(200, "GET", "/v1/size/a", ""), `{"log":1,"bytes":0}`)
	for _, payload := range []string{"one", "three", "five"} {
		l.must(200, "POST", "/v1/records/a", payload)
	}
	same(t, l.must(200, "GET", "/v1/empty/a", ""), `{"log":1,"empty":false}`)
	same(t, l.must(200, "GET", "/v1/size/a", ""), `{"log":1,"bytes":12}`)
	same(t, l.must(200, "GET", "/v1/size/a?from=2026-01-31T12:00:01Z&to=2026-01-31T12:00:01Z", ""), `{"log":1,"bytes":5}`)
	l.must(200, "DELETE", "/v1/records/a?until=e1n2", "")
	same(t, l.must(200, "GET", "/v1/head/a", ""), `{"log":1,"trim_point":"e1n2","number":4294967298,"timestamp":"2026-01-31T12:00:01.000Z"}`)
	same(t, l.must(200, "GET", "/v1/empty/a", ""), `{"log":1,"empty":false}`)
	l.must(200, "DELETE", "/v1/records/a?until=e1n3", "")
	same(t, l.must(200, "GET", "/v1/empty/a", ""), `{"log":1,"empty":true}`)
	for path, says := range map[string]string{
		"head/nowhere": "404", "empty/nowhere": "404", "size/nowhere": "404", "head/a?x=1": "400", "size/a?from=soon": "400",
		"size/a?from=2026-01-31T12:00:01Z&to=2025-01-31T12:00:01Z": "400", "empty": "404",
	} {
		if a := l.do("GET", "/v1/"+path, ""); fmt.Sprint(a.code) != says {
			t.Errorf("%s: %d %s, want %s", path, a.code, a.body, says)
		}
	}
}

func TestALogIsFollowed(t *testing.T) {
	l := filled(t, 2, Options{Readers: 1})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_, lines := l.follow(ctx, "/v1/records/a?from=e1n2&follow=true", typeNDJSON)
	if e := line(t, lines); e.String() != "e1n2=r2" {
		t.Errorf("%v", e)
	}
	for i := range 3 {
		l.must(200, "POST", "/v1/records/a", "new")
		if e := line(t, lines); e.String() != fmt.Sprintf("e1n%d=new", 3+i) { // before the next is there
			t.Errorf("%v", e)
		}
	}
	a := l.do("GET", "/v1/records/a", "") // one reader is all there may be (I5)
	if a.code != 429 || a.header.Get("Retry-After") == "" || problemIn(t, a.body).Limit != 1 {
		t.Errorf("%d %s", a.code, a.body)
	}
	cancel() // I6
	l.node.readers(0)
	for l.server.metrics.Readers.Load() != 0 {
		l.must(200, "GET", "/v1/tail/a", "")
	}
	l.read("/v1/records/a")
}

func TestAStreamEndsWithWhereToGoOn(t *testing.T) {
	l := filled(t, 3, Options{})
	_, lines := l.follow(t.Context(), "/v1/records/a?from=e1n1&limit=2", typeNDJSON)
	if a, b := line(t, lines), line(t, lines); a.String()+b.String() != "e1n1=r1e1n2=r2" {
		t.Errorf("%v %v", a, b)
	}
	if e := line(t, lines); e.End == nil || e.End.Next != "e1n3" || e.End.End {
		t.Errorf("%+v", e)
	}
	_, lines = l.follow(t.Context(), "/v1/records/a?from=e1n3&follow=true&until=e1n3", typeNDJSON)
	if e := line(t, lines); e.String() != "e1n3=r3" {
		t.Errorf("%v", e)
	}
	if e := line(t, lines); e.End == nil || e.End.Next != "e1n4" || !e.End.End {
		t.Errorf("%+v", e)
	}
}

// frameIn is a frame, as docs/formats/http-frames.md has it.
func frameIn(r io.Reader) (kind byte, body []byte, err error) {
	var head [frameHeader]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	body = make([]byte, binary.LittleEndian.Uint32(head[:])-1)
	_, err = io.ReadFull(r, body)
	return head[4], body, err
}

func TestRecordsComeAsFrames(t *testing.T) {
	l := filled(t, 2, Options{})
	l.must(200, "DELETE", "/v1/records/a?until=e1n1", "")
	_, in := l.follow(t.Context(), "/v1/records/a?from=e1n1", typeFrames)
	le := binary.LittleEndian
	kind, b, err := frameIn(in)
	if err != nil || kind != 2 || b[0] != byte(client.GapTrim) || le.Uint64(b[1:]) != 1<<32+1 || le.Uint64(b[9:]) != 1<<32+1 {
		t.Errorf("gap: %d %x %v", kind, b, err)
	}
	kind, b, err = frameIn(in)
	if err != nil || kind != 1 || le.Uint64(b) != 1<<32+2 || le.Uint32(b[8:]) != 0 || le.Uint32(b[12:]) != 1 ||
		le.Uint64(b[16:]) != uint64(fakeTime(1).UnixMilli()) || le.Uint64(b[24:]) != 1 || string(b[32:]) != "r2" {
		t.Errorf("record: %d %x %v", kind, b, err)
	}
	kind, b, err = frameIn(in)
	if err != nil || kind != 3 || le.Uint64(b) != 1<<32+3 || le.Uint32(b[8:]) != 0 || b[12] != 0 {
		t.Errorf("end: %d %x %v", kind, b, err)
	}
	if _, _, err := frameIn(in); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}
}

// TestASlowReaderIsCutOff: what it does not take is not kept for it (I5).
func TestASlowReaderIsCutOff(t *testing.T) {
	l := filled(t, 0, Options{WriteTimeout: 50 * time.Millisecond})
	payload := strings.Repeat("x", 1<<20)
	for range 16 {
		l.must(200, "POST", "/v1/records/a", payload)
	}
	resp, _ := l.follow(t.Context(), "/v1/records/a?from=e1n1&follow=true", typeFrames)
	for deadline := time.Now().Add(10 * time.Second); l.server.metrics.SlowReaders.Load() == 0; {
		if l.must(200, "GET", "/v1/tail/a", ""); time.Now().After(deadline) {
			t.Fatal("what the client does not take is kept for it")
		}
	}
	l.node.readers(0)
	if _, err := io.Copy(io.Discard, resp.Body); err == nil {
		t.Error("the stream ended as if all was well")
	}
}

func TestAReadThatCannotGoOnSaysSo(t *testing.T) {
	l := filled(t, 2, Options{ReadTimeout: 300 * time.Millisecond})
	l.node.mu.Lock()
	l.node.silent = true
	l.node.mu.Unlock()
	for _, path := range []string{"/v1/records/a?from=e1n1", "/v1/records/a?from=e1n1&format=ndjson", "/v1/records/a?from=e1n1&wait=300ms"} {
		a := l.do("GET", path, "")
		if p := problemIn(t, a.body); a.code != 503 || !p.Retriable || a.header.Get("Retry-After") == "" {
			t.Errorf("%s: %d %s", path, a.code, a.body)
		}
	}
}

func TestBadReadsAreRefused(t *testing.T) {
	l := filled(t, 1, Options{})
	for path, code := range map[string]int{
		"/v1/records/none": 404, "/v1/records": 404, "/v1/records/": 404, "/v1/nothing": 404, "/v1/": 404, "/other": 404,
		"/v1/records/a?from=never": 400, "/v1/records/a?from=e1": 400, "/v1/records/a?from=e1n1.x": 400, "/v1/records/a?from=e1n1.9999999999": 400,
		"/v1/records/a?from=e4294967296n1": 400, "/v1/records/a?until=0": 400, "/v1/records/a?until=tail": 400,
		"/v1/records/a?limit=0": 400, "/v1/records/a?limit=-1": 400, "/v1/records/a?limit=1000001": 400,
		"/v1/records/a?wait=1h": 400, "/v1/records/a?wait=5": 400, "/v1/records/a?wait=-1s": 400,
		"/v1/records/a?follow=true": 400, "/v1/records/a?follow=yes": 400, "/v1/records/a?follow=true&format=ndjson&wait=1s": 400,
		"/v1/records/a?format=xml": 400, "/v1/records/a?encoding=hex": 400, "/v1/records/a?filter_to=a": 400, "/v1/records/a?payload=x": 400,
	} {
		a := l.do("GET", path, "")
		if a.code != code || !problemIn(t, a.body).OutcomeKnown {
			t.Errorf("%s: %d %s, want %d", path, a.code, a.body, code)
		}
	}
	if a := l.do("GET", "/v1/records/a", "", "Accept: text/html"); a.code != 406 {
		t.Errorf("%d %s", a.code, a.body)
	}
	if a := l.do("GET", "/v1/records/a", "", "Accept: text/html, application/x-ndjson;q=0.3, */*;q=0.5"); a.header.Get("Content-Type") != typeJSON {
		t.Errorf("%v %s", a.header, a.body)
	}
	if a := l.do("PUT", "/v1/records/a", "x"); a.code != 405 || a.header.Get("Allow") != "POST, GET, DELETE" {
		t.Errorf("%d %v", a.code, a.header)
	}
}
