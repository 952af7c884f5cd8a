package rest

import (
	"context"
	"errors"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/braiddb/braid/client"
)

// plan is what a read is to give.
type plan struct {
	from     place
	until    client.LSN // 0: none was given
	limit    int        // records and gaps
	wait     time.Duration
	follow   bool
	filter   *client.Filter
	binary   bool // payloads as base64, also where they are text
	headers  bool // no payloads
	format   string
	endpoint client.LSN // of a bounded read: the last LSN that is read
	tail     client.LSN // as of the beginning, where it was asked for
}

// place is where a read begins, before it is known where that is.
type place struct {
	position
	tail bool
	time time.Time
}

const (
	limitDefault = 1000 // entries of a JSON answer
	limitMax     = 100_000
	unlimited    = int(^uint(0) >> 1)
)

// planOf reads the parameters of a read.
func (s *Server) planOf(r *request) (p plan, err error) {
	q := r.query
	if p.format, err = formatOf(r); err != nil {
		return p, err
	}
	if p.from, err = placeOf(q["from"]); err != nil {
		return p, err
	}
	var given bool
	if p.until, given, err = q.lsn("until"); err != nil {
		return p, err
	}
	if given && p.until == 0 {
		return p, invalid("until=0 is no LSN")
	}
	if p.wait, err = q.span("wait", s.opts.WaitMax); err != nil {
		return p, err
	}
	if p.follow, err = q.flag("follow"); err != nil {
		return p, err
	}
	switch {
	case p.follow && p.format == typeJSON:
		return p, invalid("follow=true is a stream: accept %s or %s, or send wait=", typeNDJSON, typeFrames)
	case p.follow && p.wait > 0:
		return p, invalid("follow=true waits for ever: leave out wait")
	}
	if err = p.readLimit(q); err != nil {
		return p, err
	}
	if err = p.readEncoding(q); err != nil {
		return p, err
	}
	return p, p.readFilter(q)
}

func (p *plan) readLimit(q query) error {
	n, err := q.number("limit", 1)
	switch {
	case err != nil:
		return err
	case p.format == typeJSON && n > limitMax:
		return invalid("limit=%d: at most %d as JSON; accept %s for more", n, limitMax, typeNDJSON)
	case n > 0 && n < uint64(unlimited):
		p.limit = int(n)
	case p.format == typeJSON:
		p.limit = limitDefault
	default:
		p.limit = unlimited
	}
	return nil
}

func (p *plan) readEncoding(q query) error {
	switch q["encoding"] {
	case "", "text":
	case "base64":
		p.binary = true
	default:
		return invalid("encoding=%s: say text (what is UTF-8 comes as text) or base64", q["encoding"])
	}
	if _, given := q["payload"]; given {
		with, err := q.flag("payload")
		if err != nil {
			return err
		}
		p.headers = !with
	}
	return nil
}

func (p *plan) readFilter(q query) error {
	from, err := q.bytes("filter_key")
	if err != nil {
		return err
	}
	to, err := q.bytes("filter_to")
	switch {
	case err != nil:
		return err
	case from == nil && to == nil:
		return nil
	case from == nil:
		return invalid("filter_to is the end of a range that begins with filter_key")
	}
	p.filter = &client.Filter{Key: from, To: to}
	return nil
}

// placeOf reads from: oldest (the default), tail, a position, or a time.
func placeOf(s string) (place, error) {
	switch s {
	case "", "oldest":
		return place{position: position{lsn: lsnOldest}}, nil
	case "tail":
		return place{tail: true}, nil
	}
	if pos, err := parsePosition(s); err == nil {
		return place{position: pos}, nil
	}
	if t, err := parseTime(s); err == nil {
		return place{time: t}, nil
	}
	return place{}, invalid("from=%s: say oldest, tail, an LSN like e5n8, the next of an earlier answer, or a time like 2026-01-31T12:00:00Z", s)
}

var formats = map[string]string{"json": typeJSON, "ndjson": typeNDJSON, "frames": typeFrames}

// formatOf says how the answer is to be written: as format= or the header Accept says.
func formatOf(r *request) (string, error) {
	if f, given := r.query["format"]; given {
		if t, ok := formats[f]; ok {
			return t, nil
		}
		return "", invalid("format=%s: say json, ndjson or frames", f)
	}
	accept := strings.Join(r.Header.Values("Accept"), ",")
	if accept == "" {
		return typeJSON, nil
	}
	best, quality := "", 0.0
	for part := range strings.SplitSeq(accept, ",") {
		t, params, err := mime.ParseMediaType(part)
		if err != nil {
			continue
		}
		q := 1.0
		if v, ok := params["q"]; ok {
			if q, err = strconv.ParseFloat(v, 64); err != nil {
				continue
			}
		}
		switch t {
		case "*/*", "application/*":
			t = typeJSON
		case typeJSON, typeNDJSON, typeFrames:
		default:
			continue
		}
		if q > quality {
			best, quality = t, q
		}
	}
	if best == "" {
		return "", refuse(http.StatusNotAcceptable, "not_acceptable", "records come as %s, %s or %s", typeJSON, typeNDJSON, typeFrames)
	}
	return best, nil
}

// bounded says whether the read ends at the tail as it was when it began.
func (p *plan) bounded() bool { return !p.follow && p.wait == 0 }

// settle finds out where the read begins and, if it is bounded, ends.
func (p *plan) settle(ctx context.Context, l Log) error {
	switch {
	case p.from.tail:
		tail, err := l.Tail(ctx)
		if err != nil {
			return err
		}
		p.tail, p.endpoint, p.from.position = tail, tail, behind(tail)
		return nil
	case !p.from.time.IsZero():
		lsn, err := l.FindTime(ctx, p.from.time, false)
		if err != nil && !errors.Is(err, client.ErrPartial) { // then it may begin earlier than it need
			return err
		}
		p.from.position = position{lsn: max(lsn, lsnOldest)}
	}
	if !p.bounded() {
		return nil
	}
	tail, err := l.Tail(ctx)
	if err != nil {
		return err
	}
	if p.from.lsn > max(tail+1, lsnOldest) {
		return pastTail(tail, "from=%s lies behind the end of the log, %s: nothing was appended there yet; send wait= or follow=true to wait for it",
			lsnText(p.from.lsn), lsnText(tail))
	}
	p.tail, err = lastOf(ctx, l, tail)
	p.endpoint = p.tail
	return err
}

// pastTail refuses a place that the log has not come to. It may yet.
func pastTail(tail client.LSN, format string, args ...any) *problem {
	p := refuse(http.StatusBadRequest, "past_tail", format, args...)
	p.Tail, p.Retriable = lsnText(tail), true
	return p
}

// lastOf is the last LSN that may have a record, 0 if there is none. It is one that
// will be released: an epoch in which nothing was appended yet has none.
func lastOf(ctx context.Context, l Log, tail client.LSN) (client.LSN, error) {
	if uint32(tail) != 0 {
		return tail, nil
	}
	last, err := l.TailAttributes(ctx)
	return last.LSN, err
}

// readerOptions is what the reader is to do. done: there is nothing to be read.
func (p *plan) readerOptions(buffer int) (o client.ReaderOptions, done bool) {
	o = client.ReaderOptions{From: p.from.lsn, Until: p.until, Filter: p.filter, WithoutPayload: p.headers, BufferBytes: buffer}
	if p.from.offset > 0 {
		after := p.from.offset - 1
		o.After = &after
	}
	if p.bounded() {
		if o.Until == 0 || p.endpoint < o.Until {
			o.Until = p.endpoint
		}
		done = p.endpoint == 0
	}
	return o, done || (o.Until != 0 && o.From > o.Until)
}
