package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"

	"github.com/braiddb/braid/client"
)

// streamBytes is how much of a stream is gathered at most before it is sent. What is
// there is sent as soon as nothing more is.
const streamBytes = 64 << 10

// streamer writes a stream, batch by batch.
type streamer struct {
	server  *Server
	w       http.ResponseWriter
	flusher *http.ResponseController
	src     *source
	batch   bytes.Buffer
	lines   *json.Encoder // into batch
	begun   bool          // the status was sent
}

// stream answers with entries as they come, and at the end says where to go on, or
// what went wrong. Until the first entry an error is an answer like others.
func (s *Server) stream(w http.ResponseWriter, src *source) error {
	t := &streamer{server: s, w: w, flusher: http.NewResponseController(w), src: src}
	t.lines = encoder(&t.batch)
	if src.plan.follow { // who follows wants to know that he does
		if err := t.flush(); err != nil {
			return nil
		}
	}
	err := t.run()
	switch {
	case errors.Is(err, errAway), src.ctx.Err() != nil:
		s.metrics.Gone.Add(1)
		return nil
	case err != nil && !t.begun:
		return src.failure(err)
	case err != nil:
		s.metrics.Errors.Add(1)
		t.problem(problemOf(src.failure(err)))
	default:
		t.end()
	}
	_ = t.flush() // there is nobody else to tell
	return nil
}

// errAway says that the client takes nothing any more.
var errAway = errors.New("the client is gone")

func (t *streamer) run() error {
	for {
		e, err := t.src.take()
		if err == errNothingNow {
			if err := t.flushSome(); err != nil {
				return err
			}
			e, err = t.src.await()
		}
		switch {
		case err == io.EOF || err == errNothingNow:
			return nil
		case err != nil:
			return err
		}
		t.entry(e)
		if t.batch.Len() >= streamBytes {
			if err := t.flush(); err != nil {
				return err
			}
		}
	}
}

func (t *streamer) flushSome() error {
	if t.batch.Len() == 0 {
		return nil
	}
	return t.flush()
}

// flush sends the batch, within Options.WriteTimeout (I5).
func (t *streamer) flush() error {
	if !t.begun {
		t.begun = true
		h := t.w.Header()
		h.Set("Content-Type", t.src.plan.format)
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		t.w.WriteHeader(http.StatusOK)
	}
	t.server.takeWithin(t.w)
	_, err := t.w.Write(t.batch.Bytes())
	if err == nil {
		err = t.flusher.Flush()
	}
	t.batch.Reset()
	if t.batch.Cap() > 16*streamBytes {
		t.batch = bytes.Buffer{} // a large record passed
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.server.metrics.SlowReaders.Add(1)
	}
	if err != nil {
		return errAway
	}
	return nil
}

func (t *streamer) entry(e client.Entry) {
	if t.src.plan.format == typeNDJSON {
		encodeEntry(t.lines, t.src.plan, e)
		return
	}
	t.batch.Write(appendFrame(t.batch.AvailableBuffer(), e))
}

// end says where to go on.
func (t *streamer) end() {
	p := t.src.page()
	if t.src.plan.format == typeNDJSON {
		t.line(map[string]page{"end": p})
		return
	}
	t.batch.Write(appendEnd(t.batch.AvailableBuffer(), t.src.position(), p.End))
}

// problem says what ended the stream before its time, and where to go on.
func (t *streamer) problem(p *problem) {
	body := struct {
		Error *problem `json:"error"`
		Next  string   `json:"next"`
	}{p, t.src.position().String()}
	if t.src.plan.format == typeNDJSON {
		t.line(body)
		return
	}
	text, err := json.Marshal(body)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	t.batch.Write(append(frameOf(t.batch.AvailableBuffer(), frameError, len(text)), text...))
}

func (t *streamer) line(v any) {
	if err := t.lines.Encode(v); err != nil {
		panic("BUG: " + err.Error())
	}
}
