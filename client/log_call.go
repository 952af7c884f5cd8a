package client

import (
	"context"
	"errors"
	"time"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// logCall is one append from its beginning to its answer, over all of its
// attempts. Its fields belong to its queue's lock once it was added.
type logCall struct {
	payload    []byte
	checksum   uint32
	count      uint32
	flags      uint32
	expectTail LSN
	order      appendOrder
	findKey    []byte
	filterKey  []byte
	done       func(LSN, error)
	// again, if set, is asked when the time of the append is over: true gives it
	// as much again.
	again func() bool
	// counted: its memory is bounded by who began it.
	counted bool

	sequence uint64     // 0 until it is first sent, unless the caller gave it
	after    LSN        // below the first attempt that may have stored it
	seen     logs.Epoch // as its latest attempt says
	started  time.Time
	deadline time.Time

	over    bool // answered, or given up
	sent    bool // at least once
	flying  bool // an attempt of the queue's current generation is with a node
	maybe   bool // an attempt may have stored it
	stored  LSN  // under which it may be kept, if a node said so
	attempt int
	last    *LogError // why the latest attempt failed
}

// appendOrder is whether an append is to be in the log behind all that its queue began
// before it, whatever fails. Then it is answered in that order too.
type appendOrder uint8

const (
	orderAsOthers appendOrder = iota // if one is under way that is kept in order: the same goroutine may have begun both
	orderKept
	orderAny
)

// trouble is why a queue stops sending, and says what it does about it.
type trouble uint8

const (
	troubleNone        trouble = iota
	troubleRedirected          // another node is named
	troubleUnreachable         // nothing was sent, or the node is going: try another
	troubleLost                // the outcome is unknown: send it again
	troubleNotReady            // nobody sequences yet: pause, with a newer view
	troubleBusy                // it would be taken later: pause, then see with little
	troubleOrder               // one before it was not taken yet: send again in order
	troubleEpoch               // it did not say that the epoch is known: send it again
)

// outcome is what an attempt came to.
type outcome struct {
	trouble    trouble
	final      bool // answered, well or badly
	err        *LogError
	lsn        LSN
	maybe      bool
	redirect   NodeID
	preempted  bool
	retryAfter time.Duration
}

// notFoundFor is how long "no such log" is not believed: a log that was just made
// is not known everywhere at once.
const notFoundFor = 2 * time.Second

// judgeLocked says what an attempt came to.
func (q *logQueue) judgeLocked(c *logCall, req *wire.AppendRequest, node NodeID, resp *wire.AppendResponse, err error, now time.Time) outcome {
	if err != nil {
		return q.judgeTransport(node, err)
	}
	s := resp.Status
	if s == wire.LogStatus_LOG_STATUS_OK {
		return outcome{final: true, lsn: LSN(resp.Lsn)}
	}
	e := &LogError{Log: q.log, Status: s, Message: resp.Message, OutcomeKnown: true, Retriable: logs.Retriable(s),
		Tail: LSN(resp.Tail), LastSequence: resp.Sequence}
	if e.Message == "" {
		e.Message = "so says node " + nodeText(node)
	}
	o := outcome{err: e, redirect: NodeID(resp.Redirect), retryAfter: time.Duration(resp.RetryAfterMs) * time.Millisecond}
	switch s {
	case wire.LogStatus_LOG_STATUS_REDIRECTED:
		o.trouble = troubleRedirected
	case wire.LogStatus_LOG_STATUS_PREEMPTED:
		// Without an LSN no copy was made, and none will be.
		o.trouble, o.preempted, o.maybe = troubleRedirected, true, resp.StoredAs != 0
	case wire.LogStatus_LOG_STATUS_SHUTDOWN, wire.LogStatus_LOG_STATUS_ISOLATED:
		o.trouble = troubleUnreachable
	case wire.LogStatus_LOG_STATUS_NOT_READY, wire.LogStatus_LOG_STATUS_NO_SEQUENCER:
		o.trouble = troubleNotReady
	case wire.LogStatus_LOG_STATUS_NOT_FOUND:
		if now.Sub(c.started) < notFoundFor {
			o.trouble = troubleNotReady
			break
		}
		o.final = true
	case wire.LogStatus_LOG_STATUS_TIMED_OUT, wire.LogStatus_LOG_STATUS_UNKNOWN_OUTCOME:
		o.trouble, o.maybe = troubleLost, true
	case wire.LogStatus_LOG_STATUS_UNDER_REPLICATED:
		// With an LSN it has copies, too few yet, and is pursued; else it waits for its turn.
		if o.trouble = troubleBusy; resp.StoredAs != 0 {
			o.trouble, o.maybe = troubleLost, true
		}
	case wire.LogStatus_LOG_STATUS_NEW_EPOCH:
		if o.trouble = troubleEpoch; logs.Epoch(resp.Epoch) <= c.seen && LSN(resp.Tail) <= c.after {
			o.trouble = troubleNotReady // it was said; whoever answers so knows no better
		}
	case wire.LogStatus_LOG_STATUS_SEQUENCE_GAP:
		// Where one before it was not answered when this attempt was sent, or is not yet,
		// that one has yet to arrive; of our own numbers none is ever left out.
		o.final = q.explicit() && req.FirstRunning == req.Sequence && !q.behindLocked(c)
		o.trouble = troubleOrder
	default:
		o.final = !logs.Retriable(s)
		o.trouble = troubleBusy
	}
	return o
}

// behindLocked says whether an append of a lower sequence is not answered yet.
func (q *logQueue) behindLocked(c *logCall) bool {
	for _, x := range q.mu.calls[q.mu.head:] {
		if x == c {
			return false
		}
		if !x.over && x.sequence < c.sequence {
			return true
		}
	}
	return false
}

// judgeTransport says what it means that a node did not answer.
func (q *logQueue) judgeTransport(node NodeID, err error) outcome {
	fail := func(s logs.Status) *LogError {
		return newLogError(q.log, s, true, err, "node %s: %v", nodeText(node), err)
	}
	switch {
	case errors.Is(err, rpc.ErrTooLarge):
		return outcome{final: true, err: fail(wire.LogStatus_LOG_STATUS_TOO_LARGE)}
	case errors.Is(err, rpc.ErrOverloaded):
		return outcome{trouble: troubleBusy, retryAfter: rpc.RetryAfter(err), err: fail(wire.LogStatus_LOG_STATUS_OVERLOADED)}
	case errors.Is(err, rpc.ErrExpired):
		return outcome{trouble: troubleBusy, err: fail(wire.LogStatus_LOG_STATUS_OVERLOADED)}
	case errors.Is(err, rpc.ErrUnreachable), errors.Is(err, rpc.ErrNoMethod):
		return outcome{trouble: troubleUnreachable, err: fail(wire.LogStatus_LOG_STATUS_NO_SEQUENCER)}
	case errors.Is(err, rpc.ErrDeadline), errors.Is(err, context.DeadlineExceeded):
		return outcome{trouble: troubleLost, maybe: true, err: fail(wire.LogStatus_LOG_STATUS_TIMED_OUT)}
	}
	return outcome{trouble: troubleLost, maybe: true, err: fail(wire.LogStatus_LOG_STATUS_UNKNOWN_OUTCOME)}
}

// requestLocked is what an attempt sends; each has one of its own.
func (q *logQueue) requestLocked(c *logCall) *wire.AppendRequest {
	if !c.maybe { // whoever takes it reigns for an epoch that was seen, or a later one
		c.after = max(q.mu.acked, q.mu.told, logs.MakeLSN(q.mu.seen, 0))
	}
	if !c.sent {
		c.sent = true
		if !q.explicit() {
			q.mu.sequence++
			c.sequence = q.mu.sequence
		}
	}
	c.seen = q.mu.seen
	flags := c.flags | q.mu.router.flags
	if c.maybe {
		flags |= logs.AppendRetry
	}
	return &wire.AppendRequest{
		Log: uint64(q.log), Payload: c.payload, Checksum: c.checksum, Count: c.count, Flags: flags,
		SeenEpoch: uint32(c.seen), Producer: q.id, Sequence: c.sequence, FirstRunning: q.firstLocked(c),
		After: uint64(c.after), ExpectTail: uint64(c.expectTail), FindKey: c.findKey, FilterKey: c.filterKey,
		StoredAs: uint64(c.stored),
	}
}

// failure is the error that ends an append which was not answered well.
func (c *logCall) failure(e *LogError) error {
	out := *e
	switch e.Status {
	case wire.LogStatus_LOG_STATUS_CONDITION_FAILED, wire.LogStatus_LOG_STATUS_TOO_LARGE, wire.LogStatus_LOG_STATUS_INVALID,
		wire.LogStatus_LOG_STATUS_BAD_PAYLOAD, wire.LogStatus_LOG_STATUS_SEQUENCE_STALE, wire.LogStatus_LOG_STATUS_SEQUENCE_GAP:
		// True of the append whichever attempt of it was looked at.
	default:
		out.OutcomeKnown = !c.maybe
	}
	return &out
}
