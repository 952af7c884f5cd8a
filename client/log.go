package client

import (
	"bytes"
	"context"
	"runtime"
	"sync"
	"weak"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// LSN is the sequence number of a record in its log: an epoch and a place in it.
// It is printed e5n8.
type LSN = logs.LSN

// Log is a log to append to and read from. It is safe for concurrent use.
//
// Appends of one Log, or of several for the same log of the same Client, that one
// goroutine begins one after another reach the sequencer in that order, and their LSNs
// ascend, also across redirects and the failover of the sequencer. Each of them is in
// the log at most once, however often it had to be sent. Only one that ended with an
// unknown outcome may yet come behind some that were begun after it.
//
// So AppendAsync is answered only behind what is before its record in the log: nobody
// is told of a record that a failover may put behind an earlier one. Append, which
// waits, is answered as soon as its record is stored, and so is AppendAsync with
// AnyOrder.
type Log struct {
	client *Client
	id     LogID
	name   string
	queue  *logQueue
}

// Log finds a log by its name: /events/clicks, /events/clicks#3 of a group of
// several, or an id. One that is not there is made, where its directory allows
// that; see LogCreateOnAppend.
func (c *Client) Log(ctx context.Context, name string) (*Log, error) {
	info, err := c.resolveLogForAppend(ctx, name)
	if err != nil {
		return nil, err
	}
	return c.logByID(info.ID, name), nil
}

func (c *Client) logByID(id LogID, name string) *Log {
	return &Log{client: c, id: id, name: name, queue: c.logs.queueOf(c, id, 0)}
}

// ID is the log's id.
func (l *Log) ID() LogID { return l.id }

// Name is what the log was found by.
func (l *Log) Name() string { return l.name }

// AppendOption is something to be said of an append.
type AppendOption func(*logCall)

// FindKey gives the record a key to be found by; where keys ascend with LSNs,
// Log.FindKey finds the record.
func FindKey(key []byte) AppendOption { return func(c *logCall) { c.findKey = key } }

// FilterKey gives the record a key that readers can be selective about.
func FilterKey(key []byte) AppendOption { return func(c *logCall) { c.filterKey = key } }

// AnyOrder has an AppendAsync answered as soon as its record is stored, whatever is
// before it. One that was begun before and was not stored when the sequencer failed is
// appended anew then, and comes behind it.
func AnyOrder() AppendOption { return func(c *logCall) { c.order = orderAny } }

// Append appends a record and waits until it is stored. A context's end ends the
// waiting: the error says whether the record may be in the log. Without a deadline
// it waits for Options.AppendTimeout.
func (l *Log) Append(ctx context.Context, payload []byte, opts ...AppendOption) (LSN, error) {
	return l.queue.wait(ctx, l.call(payload, opts))
}

// AppendIf appends a record if the log's last record is tail: its LSN as returned
// by an append or TailAttributes, 0 where the log has none. Otherwise it fails with
// ErrConditionFailed, and LogError.Tail is the last record.
func (l *Log) AppendIf(ctx context.Context, tail LSN, payload []byte, opts ...AppendOption) (LSN, error) {
	c := l.call(payload, opts)
	c.flags |= logs.AppendConditional
	c.expectTail = tail
	return l.queue.wait(ctx, c)
}

// AppendAsync begins an append, in the log behind all that were begun before. done is
// called once, maybe before AppendAsync returns, and must not block. The payload is not
// to be changed before that.
func (l *Log) AppendAsync(payload []byte, done func(LSN, error), opts ...AppendOption) {
	c := l.call(payload, opts)
	c.done = done
	if c.order == orderAsOthers {
		c.order = orderKept
	}
	l.queue.add(c)
}

func (l *Log) call(payload []byte, opts []AppendOption) *logCall {
	c := &logCall{payload: payload, count: 1}
	for _, o := range opts {
		o(c)
	}
	return c
}

// LogProducer appends under an id and sequence numbers of the caller's own, which
// outlive clients and processes: a record that was taken once is not taken again
// when its sequence is sent again, by whomever. They are in the log in the order of
// their sequences, as long as the caller begins them so, those that failed too.
// Sequences ascend by one from any number above 0, the first that is taken; the caller
// remembers where it was, or asks Last. A producer is remembered as long as one of its records is not trimmed, and for 7
// days after its last one, of each shard the million that wrote last. After that it is
// a new one: what it sent before would be taken again.
type LogProducer struct {
	log   *Log
	id    uint64
	queue *logQueue
}

// Producer gives a producer of a log. The id, any number but 0, is the caller's to
// choose; two at a time must not use the same.
func (l *Log) Producer(id uint64) *LogProducer {
	return &LogProducer{log: l, id: id, queue: l.client.logs.queueOf(l.client, l.id, id)}
}

// Append appends a record under a sequence. A record that was taken under it
// before is answered with its LSN, or, if that is no longer remembered, with
// ErrSequenceStale; a sequence that is not the next with ErrSequenceGap.
func (p *LogProducer) Append(ctx context.Context, sequence uint64, payload []byte, opts ...AppendOption) (LSN, error) {
	return p.queue.wait(ctx, p.call(sequence, payload, opts))
}

// AppendAsync begins Append, as Log.AppendAsync does.
func (p *LogProducer) AppendAsync(sequence uint64, payload []byte, done func(LSN, error), opts ...AppendOption) {
	c := p.call(sequence, payload, opts)
	c.done = done
	p.queue.add(c)
}

func (p *LogProducer) call(sequence uint64, payload []byte, opts []AppendOption) *logCall {
	c := p.log.call(payload, opts)
	c.flags |= logs.AppendProducer
	c.sequence = sequence
	return c
}

// Last asks for the last sequence of the producer that was taken, and the record's
// LSN, be it trimmed; 0 if there is none that is remembered.
func (p *LogProducer) Last(ctx context.Context) (sequence uint64, lsn LSN, err error) {
	resp, err := p.log.client.askSequencer(ctx, &wire.SequencerStateRequest{Log: uint64(p.log.id), Producer: p.id})
	if err != nil {
		return 0, 0, err
	}
	return resp.LastSequence, LSN(resp.LastSequenceLsn), nil
}

// clientLogs is what a client knows of logs.
type clientLogs struct {
	view    clusterView
	waiters sync.Pool // of *waiter; the client's own, for it may live in a bubble of simulated time

	mu struct {
		sync.Mutex
		closed bool
		// queues are those that somebody holds: a Log, or an append that is not
		// answered. Others are let go.
		queues map[queueKey]weak.Pointer[logQueue]
		bytes  int64 // of all appends that are not answered
	}
}

type queueKey struct {
	log      LogID
	producer uint64 // explicit; 0: the client's own
}

// queueOf gives the one queue of a log and a producer, for its order. Each of the
// client's own is a producer of its own, so that one that is made anew, when nobody
// had held the log for a while, may begin again with its sequences.
func (ls *clientLogs) queueOf(c *Client, log LogID, producer uint64) *logQueue {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	key := queueKey{log, producer}
	if q := ls.mu.queues[key].Value(); q != nil {
		return q
	}
	if ls.mu.queues == nil {
		ls.mu.queues = make(map[queueKey]weak.Pointer[logQueue])
	}
	q := newLogQueue(c, log, producer)
	ls.mu.queues[key] = weak.Make(q)
	own := weak.Make(ls) // a transport may lead back to who holds the queue: it must not keep itself
	runtime.AddCleanup(q, func(key queueKey) {
		if ls := own.Value(); ls != nil {
			ls.letGo(key)
		}
	}, key)
	return q
}

// letGo forgets a queue that nobody holds.
func (ls *clientLogs) letGo(key queueKey) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.mu.queues[key].Value() == nil { // else there is another by now
		delete(ls.mu.queues, key)
	}
}

// take accounts for an append's memory; false: there is too much under way.
func (ls *clientLogs) take(n, limit int64) bool {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.mu.bytes > 0 && ls.mu.bytes+n > limit {
		return false
	}
	ls.mu.bytes += n
	return true
}

func (ls *clientLogs) give(n int64) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.mu.bytes -= n; ls.mu.bytes < 0 {
		panic("BUG: more memory of appends given back than was taken")
	}
}

// close ends all appends that are not with a node.
func (ls *clientLogs) close() {
	ls.mu.Lock()
	ls.mu.closed = true
	var queues []*logQueue
	for _, p := range ls.mu.queues {
		if q := p.Value(); q != nil {
			queues = append(queues, q)
		}
	}
	ls.mu.Unlock()
	for _, q := range queues {
		q.close()
	}
}

// wait is add that waits.
func (q *logQueue) wait(ctx context.Context, c *logCall) (LSN, error) {
	if ctx.Done() != nil {
		c.payload = bytes.Clone(c.payload) // it may be sent after the caller went away
	}
	if err := ctx.Err(); err != nil {
		return 0, newLogError(q.log, wire.LogStatus_LOG_STATUS_SHUTDOWN, true, err, "%v", err)
	}
	if d, ok := ctx.Deadline(); ok {
		c.deadline = d
	}
	w := q.client.logs.waiter()
	c.done = w.done
	q.add(c)
	select {
	case <-w.ended:
	case <-ctx.Done():
		q.abandon(c, ctx.Err())
		<-w.ended // abandoned, or answered meanwhile
	}
	lsn, err := w.lsn, w.err
	w.err = nil
	q.client.logs.waiters.Put(w)
	return lsn, err
}

// waiter is what wait waits on, used again and again.
type waiter struct {
	ended chan struct{}
	lsn   LSN
	err   error
	done  func(LSN, error)
}

func (ls *clientLogs) waiter() *waiter {
	if w, ok := ls.waiters.Get().(*waiter); ok {
		return w
	}
	w := &waiter{ended: make(chan struct{}, 1)}
	w.done = func(lsn LSN, err error) {
		w.lsn, w.err = lsn, err
		w.ended <- struct{}{}
	}
	return w
}
