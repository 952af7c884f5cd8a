package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/braiddb/braid/client"
)

// readRecords reads.
//
//	GET /v1/records/{log}?from=oldest|tail|LSN|TIME&until=LSN&limit=N&wait=5s&follow=true
//	    &filter_key=&filter_to=&encoding=text|base64&payload=true|false&format=json|ndjson|frames
func (s *Server) readRecords(w http.ResponseWriter, r *request) error {
	p, err := s.planOf(r)
	if err != nil {
		return err
	}
	l, _, err := s.logNamed(r.Context(), r.name, false)
	if err != nil {
		return err
	}
	if err := p.settle(r.Context(), l); err != nil {
		return err
	}
	src := &source{server: s, plan: &p, ctx: r.Context(), next: p.from.position, left: p.limit}
	defer src.close()
	if options, done := p.readerOptions(s.opts.ReaderBytes); done {
		src.reached = true
	} else {
		src.reader = l.NewReader(options)
	}
	if p.format == typeJSON {
		return s.readPage(w, l.ID(), src)
	}
	return s.stream(w, src)
}

// source gives the entries of a read, one after the other, and knows where it is.
type source struct {
	server *Server
	plan   *plan
	ctx    context.Context // the request's
	reader Reader          // nil: there is nothing to be read

	left    int      // of the limit
	next    position // behind the last entry given
	begun   bool     // an entry was given
	reached bool     // there is nothing more, ever
	peeked  *client.Entry
}

func (src *source) close() {
	if src.reader != nil {
		src.reader.Close()
	}
}

// errNothingNow says that the next entry is not here at this moment.
var errNothingNow = errors.New("nothing to read now")

// gone is a context that ended: Reader.Next gives with it what it has, and no more.
var gone = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// take gives the next entry that is here already, else errNothingNow, or io.EOF
// where the read ends.
func (src *source) take() (client.Entry, error) {
	switch {
	case src.reached || src.left == 0:
		return client.Entry{}, io.EOF
	case src.peeked != nil:
		e := *src.peeked
		src.peeked = nil
		return src.given(e), nil
	case !src.begun:
		return client.Entry{}, errNothingNow // the reader begins with the first waiting
	}
	e, err := src.reader.Next(gone)
	switch {
	case err == io.EOF:
		src.reached = true
		return e, err
	case err != nil && src.ctx.Err() == nil && errors.Is(err, context.Canceled):
		return e, errNothingNow
	case err != nil:
		return e, err
	}
	return src.given(e), nil
}

// await gives the next entry, and waits for it as the plan says: errNothingNow says
// that none came in the time that the request has for that.
func (src *source) await() (client.Entry, error) {
	if src.reached || src.left == 0 {
		return client.Entry{}, io.EOF
	}
	ctx, cancel := src.ctx, context.CancelFunc(func() {})
	switch {
	case src.plan.bounded():
		ctx, cancel = context.WithTimeout(ctx, src.server.opts.ReadTimeout)
	case src.plan.wait > 0 && src.begun:
		return client.Entry{}, io.EOF // what was there was given
	case src.plan.wait > 0:
		ctx, cancel = context.WithTimeout(ctx, src.plan.wait)
	}
	defer cancel()
	e, err := src.reader.Next(ctx)
	switch {
	case err == nil:
		return src.given(e), nil
	case err == io.EOF:
		src.reached = true
	case src.plan.wait > 0 && ctx.Err() != nil && src.ctx.Err() == nil && src.able():
		return e, errNothingNow
	}
	return e, err
}

// able says whether the reader waits for records, not for nodes.
func (src *source) able() bool {
	state := src.reader.Health().State
	return state != client.ReaderStalled && state != client.ReaderNoMetadata
}

// given notes that an entry is given.
func (src *source) given(e client.Entry) client.Entry {
	src.begun = true
	src.left--
	m := &src.server.metrics
	if e.IsGap() {
		m.GapsOut.Add(1)
		src.next = behind(e.Gap.To)
		return e
	}
	m.RecordsOut.Add(1)
	m.PayloadBytesOut.Add(uint64(len(e.Record.Payload)))
	src.next = position{e.Record.LSN, e.Record.BatchOffset + 1}
	return e
}

// position is where the next read begins (I7). The payloads of a record come
// together, so that if the next of them is not here there is none.
func (src *source) position() position {
	if src.next.offset == 0 || src.peeked != nil {
		return src.next
	}
	within := false
	if !src.reached {
		e, err := src.reader.Next(gone)
		if err == nil {
			src.peeked = &e
			within = !e.IsGap() && e.Record.LSN == src.next.lsn
		}
		src.reached = err == io.EOF
	}
	if !within {
		src.next = behind(src.next.lsn)
	}
	return src.next
}

// page is the answer of a read as JSON, but for its entries.
type page struct {
	Next string `json:"next"`
	// Tail is the last LSN as the read began, of a bounded one.
	Tail string `json:"tail,omitempty"`
	// End: until was reached, or nothing will ever follow.
	End bool `json:"end,omitempty"`
}

func (src *source) page() page {
	p := page{Next: src.position().String()}
	if src.plan.bounded() {
		p.Tail = lsnText(src.plan.tail)
	}
	next := src.position().lsn
	p.End = (src.plan.until != 0 && next > src.plan.until) || next == lsnMax
	return p
}

// readPage answers with all entries at once: up to the limit, or Options.AnswerBytes.
func (s *Server) readPage(w http.ResponseWriter, id client.LogID, src *source) error {
	var b bytes.Buffer
	enc := encoder(&b)
	b.WriteString(`{"entries":[`)
	for first := true; b.Len() < s.opts.AnswerBytes; first = false {
		e, err := src.take()
		if err == errNothingNow {
			e, err = src.await()
		}
		if err == io.EOF || err == errNothingNow {
			break
		}
		if err != nil {
			if !src.begun || src.ctx.Err() != nil {
				return src.failure(err)
			}
			break // the next request begins with it
		}
		if !first {
			b.WriteByte(',')
		}
		encodeEntry(enc, src.plan, e)
		join(&b)
	}
	fmt.Fprintf(&b, `],"log":%d,`, id)
	tail, err := json.Marshal(src.page())
	if err != nil {
		panic("BUG: " + err.Error())
	}
	b.Write(tail[1:])
	b.WriteByte('\n')
	s.answerBytes(w, http.StatusOK, b.Bytes())
	return nil
}

// failure says what it means that a reader gave up.
func (src *source) failure(err error) error {
	if errors.Is(err, context.DeadlineExceeded) && src.ctx.Err() == nil {
		p := *problemOf(err)
		p.code, p.Retriable = http.StatusServiceUnavailable, true
		return &p
	}
	return err
}

// entryJSON is one record or gap.
type entryJSON struct {
	LSN           string      `json:"lsn,omitempty"`
	Number        client.LSN  `json:"number,omitempty"`
	BatchOffset   int         `json:"batch_offset,omitempty"`
	Timestamp     string      `json:"timestamp,omitempty"`
	Offset        *uint64     `json:"offset,omitempty"` // payloads of the log before it
	Count         int         `json:"count,omitempty"`  // of a batch that is read without payloads
	Payload       *jsonString `json:"payload,omitempty"`
	PayloadBase64 *[]byte     `json:"payload_base64,omitempty"`
	Gap           *gapJSON    `json:"gap,omitempty"`
}

// jsonString is text that is known to be UTF-8.
type jsonString string

type gapJSON struct {
	Type string `json:"type"`
	From string `json:"from"`
	To   string `json:"to"`
}

// timeText is how times are written: in UTC, to the millisecond.
func timeText(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z07:00") }
