package client

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// WriterMode says what the batches of a BufferedWriter have to do with each other.
type WriterMode uint8

const (
	// Independent batches are on their way at the same time, and each is answered as
	// soon as it is stored. They are in the log in the order in which they were cut, but
	// one may fail and those behind it not, and one that was not stored when the
	// sequencer failed is appended anew, maybe behind later ones.
	Independent WriterMode = iota
	// OneAtATime begins a batch when the one before it is over.
	OneAtATime
	// Stream never gives a batch up: it is tried until it is in the log, or is
	// refused for what it is (too large, no such log), or the client is closed. What
	// was given to the writer is in the log in that order, without gaps, whatever
	// fails; a batch is answered only behind those before it.
	Stream
)

// BufferedWriterOptions say when a batch is cut and how it is appended. The zero
// value is a good default.
type BufferedWriterOptions struct {
	// Time after which a payload does not wait for company any longer. Default
	// 5 ms; negative: for ever.
	Time time.Duration
	// Bytes that make a batch, before compression; never more than the log takes in
	// one record. Default 128 KiB.
	Bytes int
	// Count of payloads that make a batch. Default: no more than the format's million.
	Count int
	Mode  WriterMode
	// Retries is how many times Options.AppendTimeout a batch is given again that was
	// not in the log in time. Stream needs none. A batch is sent again under the same
	// sequence, so it is in the log once; between attempts there is the pause of
	// Options.BackoffMin and BackoffMax.
	Retries int
	// MemoryBytes bounds the payloads that are not answered; beyond it Append
	// refuses with ErrOverloaded. Default 64 MiB.
	MemoryBytes int64
	// Compression of batches. Default CompressionLZ4.
	Compression *Compression
}

func (o BufferedWriterOptions) withDefaults() BufferedWriterOptions {
	if o.Time == 0 {
		o.Time = 5 * time.Millisecond
	}
	if o.Bytes <= 0 {
		o.Bytes = 128 << 10
	}
	if o.Count <= 0 || o.Count > logs.BatchCountMax {
		o.Count = logs.BatchCountMax
	}
	if o.MemoryBytes <= 0 {
		o.MemoryBytes = 64 << 20
	}
	if o.Compression == nil {
		o.Compression = new(CompressionLZ4)
	}
	return o
}

// BufferedWriter gathers payloads into batches and appends each batch as one
// record: far more payloads a second than appends, for a little delay. A reader
// gets the payloads apart, with one LSN and their offsets in the batch. It is safe
// for concurrent use.
//
//	Append ─▶ gathering ── time, bytes, count, Flush ──▶ ready ─▶ compressed ─▶ log
//
// Whoever cuts a batch sends it, unless somebody is at it: then that one does.
// Payloads are gathered while others are compressed.
type BufferedWriter struct {
	log     *Log
	opts    BufferedWriterOptions
	metrics BufferedWriterMetrics
	builder sync.Pool // of *logs.BatchBuilder

	mu struct {
		sync.Mutex
		open    *writerBatch // gathers
		limit   int          // of its body
		ready   []*writerBatch
		sending bool
		under   []*writerBatch // all cut batches that are not over, in order, ready ones too
		bytes   int64
		cut     uint64 // batches
		waiters []writerWaiter
		closed  bool
	}
}

// BufferedWriterMetrics count what a writer did. All only grow.
type BufferedWriterMetrics struct {
	// Payloads and Batches that were appended.
	Payloads, Batches atomic.Uint64
	// PayloadBytes and BatchBytes, before and after compression.
	PayloadBytes, BatchBytes atomic.Uint64
	// Refused is how many payloads found no memory.
	Refused atomic.Uint64
	// Retries is how many times a batch was given its time again.
	Retries atomic.Uint64
}

type writerBatch struct {
	number  uint64
	builder *logs.BatchBuilder
	dones   []func(LSN, int, error)
	bytes   int64
	stop    func() bool
	retries int // touched under the log's queue only
	over    bool
}

type writerWaiter struct {
	upTo uint64
	over chan struct{}
}

// BufferedWriter makes a writer for the log.
func (l *Log) BufferedWriter(o BufferedWriterOptions) *BufferedWriter {
	w := &BufferedWriter{log: l, opts: o.withDefaults()}
	w.builder.New = func() any { return new(logs.BatchBuilder) }
	return w
}

// Metrics counts what the writer did.
func (w *BufferedWriter) Metrics() *BufferedWriterMetrics { return &w.metrics }

// Append adds a payload; a copy is made. done, if not nil, is called once when the
// batch is over, with the record's LSN and the payload's offset in the batch, and
// must not block. An error says that the payload was not taken, and done is not
// called.
func (w *BufferedWriter) Append(payload []byte, done func(lsn LSN, offset int, err error)) error {
	size := logs.BatchedSize(len(payload))
	cost := int64(len(payload)) + payloadOverhead
	w.mu.Lock()
	most := w.maxPayload()
	var refusal *LogError
	switch {
	case w.mu.closed:
		refusal = newLogError(w.log.id, wire.LogStatus_LOG_STATUS_SHUTDOWN, true, ErrClosed, "the writer is closed")
	case len(payload) > most:
		refusal = newLogError(w.log.id, wire.LogStatus_LOG_STATUS_TOO_LARGE, true, nil, "a payload of %d bytes, where the log takes %d: divide it, or raise max_payload_bytes", len(payload), most)
	case w.mu.bytes > 0 && w.mu.bytes+cost > w.opts.MemoryBytes:
		w.metrics.Refused.Add(1)
		refusal = newLogError(w.log.id, wire.LogStatus_LOG_STATUS_OVERLOADED, true, nil,
			"%d bytes of payloads wait already, the most is %d", w.mu.bytes, w.opts.MemoryBytes)
	}
	if refusal != nil {
		w.mu.Unlock()
		return refusal
	}
	if b := w.mu.open; b != nil && (b.builder.Bytes()+size > w.mu.limit || !b.builder.Fits(1, size)) {
		w.cutLocked()
	}
	if w.mu.open == nil {
		w.openLocked(most)
	}
	b := w.mu.open
	b.builder.Add(payload)
	b.dones = append(b.dones, done)
	b.bytes += cost
	w.mu.bytes += cost
	if b.builder.Bytes() >= w.mu.limit || b.builder.Count() >= w.opts.Count {
		w.cutLocked()
	}
	send := len(w.mu.ready) > 0
	w.mu.Unlock()
	if send {
		w.send()
	}
	return nil
}

// payloadOverhead is what a payload costs beyond its bytes.
const payloadOverhead = 32

// defaultMaxPayload is the largest record of a log whose attributes are not known.
const defaultMaxPayload = 1 << 20

func (w *BufferedWriter) maxPayload() int {
	if a, ok := w.log.client.attributesOfLog(w.log.id); ok && a.GetMaxPayloadBytes() > 0 {
		return int(a.GetMaxPayloadBytes())
	}
	return defaultMaxPayload
}

// openLocked begins a batch. A payload that leaves no room for a batch's header is
// alone in its batch and is sent without one.
func (w *BufferedWriter) openLocked(most int) {
	w.mu.limit = min(w.opts.Bytes, most-logs.BatchSize(0))
	b := &writerBatch{builder: w.builder.Get().(*logs.BatchBuilder)}
	w.mu.open = b
	if w.opts.Time > 0 {
		b.stop = w.log.client.opts.Clock.AfterFunc(w.opts.Time, func() { w.timeIsUp(b) })
	}
}

func (w *BufferedWriter) timeIsUp(b *writerBatch) {
	w.mu.Lock()
	if w.mu.open == b {
		w.cutLocked()
	}
	w.mu.Unlock()
	w.send()
}

// cutLocked ends the gathering of a batch.
func (w *BufferedWriter) cutLocked() {
	b := w.mu.open
	w.mu.open = nil
	if b.stop != nil {
		b.stop()
	}
	w.mu.cut++
	b.number = w.mu.cut
	w.mu.ready = append(w.mu.ready, b)
	w.mu.under = append(w.mu.under, b)
}

// send appends what is ready, in order. One goroutine is at it at a time.
func (w *BufferedWriter) send() {
	w.mu.Lock()
	for !w.mu.sending && len(w.mu.ready) > 0 {
		b := w.mu.ready[0]
		if w.opts.Mode == OneAtATime && w.mu.under[0] != b {
			break
		}
		w.mu.ready = w.mu.ready[1:]
		w.mu.sending = true
		w.mu.Unlock()
		w.append(b)
		w.mu.Lock()
		w.mu.sending = false
	}
	w.mu.Unlock()
}

func (w *BufferedWriter) append(b *writerBatch) {
	c := &logCall{count: uint32(b.builder.Count()), counted: true, order: orderAny}
	if w.opts.Mode == Stream {
		c.order = orderKept
	}
	if c.count == 1 {
		c.payload = bytes.Clone(b.builder.Only())
	} else {
		c.flags = logs.AppendBatch
		scratch, _ := scratches.Get().(*[]byte)
		if scratch == nil {
			scratch = new([]byte)
		}
		*scratch = b.builder.AppendTo((*scratch)[:0], *w.opts.Compression)
		c.payload = bytes.Clone(*scratch)
		scratches.Put(scratch)
	}
	w.metrics.Batches.Add(1)
	w.metrics.Payloads.Add(uint64(c.count))
	w.metrics.PayloadBytes.Add(uint64(b.builder.Bytes()))
	w.metrics.BatchBytes.Add(uint64(len(c.payload)))
	b.builder.Reset()
	w.builder.Put(b.builder)
	b.builder = nil
	c.again = func() bool {
		if w.opts.Mode != Stream && b.retries >= w.opts.Retries {
			return false
		}
		b.retries++
		w.metrics.Retries.Add(1)
		return true
	}
	c.done = func(lsn LSN, err error) { w.ended(b, lsn, err) }
	w.log.queue.add(c)
}

// scratches are where batches are compressed.
var scratches sync.Pool // of *[]byte

// ended tells everybody what became of a batch.
func (w *BufferedWriter) ended(b *writerBatch, lsn LSN, err error) {
	for i, done := range b.dones {
		if done != nil {
			done(lsn, i, err)
		}
	}
	w.mu.Lock()
	b.over = true
	w.mu.bytes -= b.bytes
	for len(w.mu.under) > 0 && w.mu.under[0].over {
		w.mu.under[0] = nil
		w.mu.under = w.mu.under[1:]
	}
	kept := w.mu.waiters[:0]
	for _, x := range w.mu.waiters {
		if len(w.mu.under) == 0 || w.mu.under[0].number > x.upTo {
			close(x.over)
			continue
		}
		kept = append(kept, x)
	}
	w.mu.waiters = kept
	w.mu.Unlock()
	w.send()
}

// Flush cuts the batch that gathers, without waiting for what becomes of it.
func (w *BufferedWriter) Flush() {
	w.mu.Lock()
	if w.mu.open != nil {
		w.cutLocked()
	}
	w.mu.Unlock()
	w.send()
}

// Sync flushes and waits until all payloads that were taken before are over: done
// was called for each.
func (w *BufferedWriter) Sync(ctx context.Context) error {
	w.Flush()
	w.mu.Lock()
	if len(w.mu.under) == 0 {
		w.mu.Unlock()
		return nil
	}
	over := make(chan struct{})
	w.mu.waiters = append(w.mu.waiters, writerWaiter{w.mu.cut, over})
	w.mu.Unlock()
	select {
	case <-over:
		return nil
	case <-ctx.Done():
		if why := w.log.queue.waitsFor(); why != nil {
			return newLogError(w.log.id, why.Status, false, ctx.Err(), "payloads are still on their way: %s", why.Message)
		}
		return newLogError(w.log.id, wire.LogStatus_LOG_STATUS_TIMED_OUT, false, ctx.Err(), "payloads are still on their way: %v", ctx.Err())
	}
}

// Close takes no more payloads, and does what Sync does.
func (w *BufferedWriter) Close(ctx context.Context) error {
	w.mu.Lock()
	w.mu.closed = true
	w.mu.Unlock()
	return w.Sync(ctx)
}
