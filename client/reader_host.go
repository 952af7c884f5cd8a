package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/logs/reader"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// Reader reads one log: all that is in a range, in order, each record once. It has
// no goroutine of its own, so a client may have many.
//
//	answers, timers, Next ── post ──▶ events ── one at a time ──▶ reader.Core
//	                                                                │ effects
//	Next ◀── queue ◀────────────── items ◀──────────────────────────┤
//	                                        StartLog, timer ◀───────┘
//
// Whoever posts an event while nobody steps the core steps it until no event is left,
// and carries out the effects; others leave their event to it. So effects are carried
// out in order, and an answer that comes while its question is being asked does not
// nest.
type Reader struct {
	log     *Log
	options ReaderOptions
	origin  time.Time
	woken   chan struct{} // holds one: Next may find something

	mu struct {
		sync.Mutex
		core     *reader.Core // nil before the first Next
		events   []reader.Event
		stepping bool
		queue    []reader.Item // queue[at:] was not taken
		at       int
		done     bool // the core is
		closed   bool
		view     *logs.Cluster
		wakeAt   time.Duration
		stopWake func() bool
		existsAt time.Duration // when to look whether the log is still there; 0: somebody does

		// The record that is being taken apart, and what was given since the core was told.
		payload    int
		takenNext  LSN
		takenBytes int
		takenItems int
	}
}

// NewReader makes a reader of the log. Nothing is asked before the first Next.
func (l *Log) NewReader(o ReaderOptions) *Reader {
	return &Reader{log: l, options: o, origin: l.client.opts.Clock.Now(), woken: make(chan struct{}, 1)}
}

func (r *Reader) now() time.Duration { return r.log.client.opts.Clock.Now().Sub(r.origin) }

// begin makes the core, once it is known where to begin.
func (r *Reader) begin(ctx context.Context) error {
	r.mu.Lock()
	begun, closed := r.mu.core != nil, r.mu.closed
	r.mu.Unlock()
	if closed {
		return newError(wire.Code_CODE_CANCELED, ErrClosed, "the reader was closed")
	}
	if begun {
		return nil
	}
	o := r.options
	switch {
	case o.FromTail:
		tail, err := r.log.Tail(ctx)
		if err != nil {
			return err
		}
		o.From = tail + 1
	case !o.FromTime.IsZero():
		from, err := r.log.FindTime(ctx, o.FromTime, false)
		if err != nil && !errors.Is(err, ErrPartial) {
			return err
		}
		o.From = from
	}
	cfg := reader.Config{
		Log: r.log.id, From: o.From, Until: o.Until, SingleCopy: r.log.attributes().GetSingleCopyDelivery(),
		WithoutPayload: o.WithoutPayload, FullReadSet: o.AllShards, Window: uint64(max(o.Window, 0)), BufferBytes: o.BufferBytes,
	}
	if o.SingleCopy != nil {
		cfg.SingleCopy = *o.SingleCopy
	}
	if f := o.Filter; f != nil {
		cfg.Filter, cfg.FilterKey1, cfg.FilterKey2 = logs.FilterEquality, f.Key, f.To
		if f.To != nil {
			cfg.Filter = logs.FilterRange
		}
	}
	r.mu.Lock()
	r.mu.core = reader.New(cfg)
	r.mu.existsAt = r.now() + removedLook
	r.mu.Unlock()
	r.look(ctx)
	r.post(reader.Begin{})
	return nil
}

// look tells the core what the cluster believes of its shards, if that is news.
func (r *Reader) look(ctx context.Context) {
	if view, err := r.log.client.awaitView(ctx, false); err == nil {
		r.lookAt(view)
	}
}

func (r *Reader) lookAt(view *logs.Cluster) {
	if view == nil {
		return
	}
	r.mu.Lock()
	old := r.mu.view
	r.mu.view = view
	r.mu.Unlock()
	if view == old {
		return
	}
	for i := range view.Nodes {
		n := &view.Nodes[i]
		if old != nil {
			if was, ok := old.Node(n.ID); ok && was.Alive == n.Alive && was.Storage == n.Storage && was.Lost == n.Lost {
				continue
			}
		}
		status := reader.ShardUp
		switch {
		case !n.Storage || n.Lost:
			status = reader.ShardLost // it was told to hold nothing, or given up: what it had is not waited for
		case !n.Alive:
			status = reader.ShardDown
		}
		r.post(reader.Shard{Shard: logs.MakeShard(n.ID, 0), Status: status})
	}
}

// post hands the core an event.
func (r *Reader) post(ev reader.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.core == nil {
		return
	}
	r.mu.events = append(r.mu.events, ev)
	if r.mu.stepping {
		return
	}
	r.mu.stepping = true
	for i := 0; i < len(r.mu.events); i++ {
		ev := r.mu.events[i]
		r.mu.events[i] = nil
		out := r.mu.core.Step(r.now(), ev)
		if len(out.Items) > 0 || out.Done {
			if r.mu.at > len(r.mu.queue)/2 { // what was given makes room
				left := copy(r.mu.queue, r.mu.queue[r.mu.at:])
				clear(r.mu.queue[left:])
				r.mu.queue, r.mu.at = r.mu.queue[:left], 0
			}
			r.mu.queue = append(r.mu.queue, out.Items...)
			r.mu.done = r.mu.done || out.Done
			r.wake()
		}
		r.armLocked(out.Wake)
		// Nobody else steps meanwhile, so the effects stay as they are.
		r.mu.Unlock()
		r.carryOut(out)
		r.mu.Lock()
	}
	r.mu.events, r.mu.stepping = r.mu.events[:0], false
}

func (r *Reader) wake() {
	select {
	case r.woken <- struct{}{}:
	default:
	}
}

// armLocked sets the one timer.
func (r *Reader) armLocked(at time.Duration) {
	if at == r.mu.wakeAt {
		return
	}
	if r.mu.stopWake != nil {
		r.mu.stopWake()
		r.mu.stopWake = nil
	}
	if r.mu.wakeAt = at; at == 0 || r.mu.closed {
		return
	}
	r.mu.stopWake = r.log.client.opts.Clock.AfterFunc(max(at-r.now(), 0), func() {
		r.mu.Lock()
		due := r.mu.wakeAt == at && !r.mu.closed
		if due {
			r.mu.wakeAt, r.mu.stopWake = 0, nil
		}
		r.mu.Unlock()
		if due {
			r.post(reader.Wake{})
		}
	})
}

// carryOut does what a step asks for.
func (r *Reader) carryOut(out *reader.Effects) {
	clock := r.log.client.opts.Clock
	r.lookForLog()
	if e := out.AskMetadata; e != 0 {
		r.ask(e, out.Released)
	}
	for _, s := range out.Stops {
		r.log.ask(s.Shard.Node(), rpc.MethodReadStop, &wire.ReadStopRequest{Stream: s.Stream, Shard: uint64(s.Shard)},
			new(wire.ReadStopResponse), clock.Now().Add(r.log.client.opts.Attempt), func(error) {})
	}
	for _, s := range out.Starts {
		resp := new(wire.ReadStartResponse)
		r.log.ask(s.Shard.Node(), rpc.MethodReadStart, s.Req, resp, clock.Now().Add(r.log.client.opts.Attempt), func(err error) {
			r.failed(err)
			r.post(reader.Started{Shard: s.Shard, Call: s.Call, Resp: resp, Err: err})
		})
	}
	for _, n := range out.Nexts {
		resp := new(wire.ReadNextResponse)
		deadline := clock.Now().Add(time.Duration(n.Req.WaitMs)*time.Millisecond + attemptPadding)
		r.log.ask(n.Shard.Node(), rpc.MethodReadNext, n.Req, resp, deadline, func(err error) {
			r.failed(err)
			r.post(reader.Answered{Shard: n.Shard, Call: n.Call, Resp: resp, Err: err})
		})
	}
}

// failed looks at the cluster when a node does not answer.
func (r *Reader) failed(err error) {
	if err != nil {
		r.log.client.refreshView(func() { r.lookAt(r.log.client.view()) })
	}
}

// ask fetches metadata.
func (r *Reader) ask(e logs.Epoch, released bool) {
	asked := r.inBackground(func() {
		r.look(r.log.client.ctx)
		entries, through, err := r.log.metadata(r.log.client.ctx, e, released)
		r.post(reader.Metadata{Entries: entries, Through: through, Err: err, End: endOf(err)})
	})
	if !asked {
		r.post(reader.Metadata{Err: ErrClosed})
	}
}

// inBackground runs f unless the client is closed, which waits for it.
func (r *Reader) inBackground(f func()) bool {
	c := r.log.client
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed.Load() {
		return false
	}
	c.running.Add(1)
	go func() {
		defer c.running.Done()
		f()
	}()
	return true
}

// poll takes the next entry from the queue.
func (r *Reader) poll() (Entry, bool, error) {
	r.mu.Lock()
	for r.mu.at < len(r.mu.queue) {
		it := &r.mu.queue[r.mu.at]
		if it.Record == nil {
			e := Entry{Gap: Gap{Type: it.Gap, From: it.LSN, To: it.To}}
			r.dropLocked(it)
			r.mu.Unlock()
			return e, true, nil
		}
		i := r.mu.payload
		if it.LSN == r.options.From && r.options.After != nil && i <= *r.options.After {
			i = *r.options.After + 1 // they were read before
		}
		whole := it.Payloads == nil
		if (whole && i > 0) || (!whole && i >= len(it.Payloads)) {
			r.dropLocked(it)
			continue
		}
		e := Entry{Record: Record{
			LSN: it.LSN, BatchOffset: i, Timestamp: time.UnixMilli(it.Record.TimestampMs),
			Offset: it.Offset + uint64(i), OffsetKnown: it.OffsetKnown, Count: 1,
		}}
		if whole {
			e.Record.Count = int(it.Record.Count)
		} else {
			e.Record.Payload = it.Payloads[i]
		}
		if r.mu.payload = i + 1; whole || r.mu.payload == len(it.Payloads) {
			r.dropLocked(it)
		}
		due := r.mu.takenBytes >= r.takingBytes() || r.mu.takenItems >= r.takingItems()
		r.mu.Unlock()
		if due {
			r.taken()
		}
		return e, true, nil
	}
	done := r.mu.done
	r.mu.Unlock()
	if done {
		return Entry{}, false, io.EOF
	}
	return Entry{}, false, nil
}

// takingBytes and takingItems are how much may be taken before the core is told, so
// that shards send on long before the queue is empty.
func (r *Reader) takingBytes() int { return max(cmp.Or(r.options.BufferBytes, 4<<20)/4, 1) }

func (r *Reader) takingItems() int { return max(cmp.Or(r.options.Window, 4096)/4, 1) }

// dropLocked takes an item off the queue.
func (r *Reader) dropLocked(it *reader.Item) {
	r.mu.takenNext = it.To + 1
	if it.To == logs.LSNMax {
		r.mu.takenNext = it.To
	}
	r.mu.takenBytes += it.Bytes
	r.mu.takenItems++
	r.mu.payload = 0
	*it = reader.Item{}
	r.mu.at++
}

// taken tells the core what was taken.
func (r *Reader) taken() {
	r.mu.Lock()
	next, bytes := r.mu.takenNext, r.mu.takenBytes
	r.mu.takenNext, r.mu.takenBytes, r.mu.takenItems = 0, 0, 0
	r.mu.Unlock()
	if next != 0 {
		r.post(reader.Taken{Next: next, Bytes: bytes})
	}
}

// ready says whether poll would give something.
func (r *Reader) ready() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.at < len(r.mu.queue) || r.mu.done
}

// gaveUp is how Next ends with its context.
func (r *Reader) gaveUp(cause error) error {
	h := r.Health()
	if cause != context.DeadlineExceeded {
		return newError(wire.Code_CODE_CANCELED, cause, "given up")
	}
	r.mu.Lock()
	at, released := r.mu.core.Front(), r.mu.core.View().Released
	r.mu.Unlock()
	why := "nothing came"
	if released != 0 && at > released {
		why = fmt.Sprintf("nothing is there yet: the log ends at %s", released)
	}
	switch h.State {
	case reader.Stalled:
		why = fmt.Sprintf("the record may lie on %v, which do not answer (%v)", h.Silent, h.Err)
	case reader.NoMetadata:
		why = fmt.Sprintf("where it is stored could not be learned: %v", h.Err)
	}
	return newError(wire.Code_CODE_TIMEOUT, cause, "log %d at %s: %s", r.log.id, at, why)
}

// Health says whether the reader can go on.
func (r *Reader) Health() ReaderHealth {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.core == nil {
		return ReaderHealth{State: reader.Starting}
	}
	return r.mu.core.Health()
}

// State describes where the reader is.
func (r *Reader) State() ReaderState {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.core == nil {
		return ReaderState{Log: r.log.id, Next: r.options.From}
	}
	return r.mu.core.View()
}

// Metrics counts what the reader did.
func (r *Reader) Metrics() ReaderMetrics {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.core == nil {
		return ReaderMetrics{}
	}
	return r.mu.core.Counters
}

func (r *Reader) close() {
	r.mu.Lock()
	if r.mu.closed {
		r.mu.Unlock()
		return
	}
	r.mu.closed = true
	if r.mu.stopWake != nil {
		r.mu.stopWake()
		r.mu.stopWake = nil
	}
	r.mu.Unlock()
	r.post(reader.End{})
}
