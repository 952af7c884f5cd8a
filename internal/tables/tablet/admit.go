package tablet

import (
	"time"

	"github.com/braiddb/braid/internal/wire"
)

// admit counts a request as in flight, or refuses it as one too many.
func (t *Tablet) admit(w *write) *wire.Error {
	w.bytes = requestBytes(w.req)
	if w.bytes > int64(t.deps.Options.RequestBytesMax) {
		return &wire.Error{Code: wire.Code_CODE_TOO_LARGE, Message: "the request is larger than a tablet takes"}
	}
	n, bytes := t.inflight.Add(1), t.inflightBytes.Add(w.bytes)
	o := &t.deps.Options
	if n > 1 && (n > int64(o.InflightMax) || bytes > o.InflightBytesMax || t.deps.Overloaded()) {
		return t.crowded(w, "the tablet has too much under way", 0)
	}
	switch delay := time.Duration(t.delay.Load()); {
	case delay == 0:
	case n <= o.DelayFloor:
		t.delay.Store(0) // what was waited for is over
	case delay > o.DelayMax:
		return t.crowded(w, "writes take too long on their way through the tablet's log", delay)
	}
	return nil
}

// crowded refuses a request that was counted. The longer those under way take, the
// later it should come again.
func (t *Tablet) crowded(w *write, why string, delay time.Duration) *wire.Error {
	t.leave(w)
	t.metrics.Overloaded.Add(1)
	after := max(t.deps.Options.RetryAfter, min(delay/4, time.Second))
	return &wire.Error{Code: wire.Code_CODE_OVERLOADED, Message: why, RetryAfterMs: uint32(after.Milliseconds())}
}

// expired refuses a request whose deadline has passed: nobody waits for its answer.
func (t *Tablet) expired(w *write) *wire.Error {
	if w.deadline.IsZero() || t.deps.Now().Before(w.deadline) {
		return nil
	}
	t.metrics.TimedOut.Add(1)
	return &wire.Error{Code: wire.Code_CODE_TIMEOUT, Message: "deadline passed before the request was taken up: no effect"}
}

// leave is the reverse of admit.
func (t *Tablet) leave(w *write) {
	if w.req != nil {
		t.inflight.Add(-1)
		t.inflightBytes.Add(-w.bytes)
	}
}
