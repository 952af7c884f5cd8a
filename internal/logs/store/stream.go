package store

import (
	"bytes"
	"errors"
	"slices"
	"time"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// readStream is one reader of one log on this shard. Fields are guarded by
// Store.mu; only one request of a stream is served at a time (busy), and what
// it reads by is a copy.
type readStream struct {
	id      uint64
	log     *logState
	terms   terms
	starts  uint64   // times that it was begun or rewound
	from    logs.LSN // where it was begun, or rewound to
	next    logs.LSN // everything below was delivered
	busy    bool     // a worker serves it
	gone    bool
	touched time.Duration

	// A request that waits. Invariant: reply is nil or is called once.
	reply    func(*wire.ReadNextResponse)
	bytesMax int
	deadline time.Duration
	slot     int64 // its place in the wheel, 0: none
	listed   bool  // in its log's waiting
}

// terms are what a reader wants.
type terms struct {
	until, windowHigh logs.LSN
	flags             uint32
	version           uint64
	filteredOut       []logs.ShardID
	filter            uint32
	key1, key2        []byte
}

// waitingRead is a request that is taken from its stream to be answered.
type waitingRead struct {
	reply    func(*wire.ReadNextResponse)
	version  uint64
	released logs.LSN
}

func (w *waitingRead) empty() *wire.ReadNextResponse {
	return &wire.ReadNextResponse{FilterVersion: w.version, LastReleased: uint64(w.released)}
}

func shutdown() *wire.ReadNextResponse { return &wire.ReadNextResponse{Status: statusShutdown} }

const (
	bytesMaxDefault = 1 << 20
	bytesMaxMost    = 64 << 20
)

// ReadStart begins a stream, or rewinds one to other terms.
func (s *Store) ReadStart(req *wire.ReadStartRequest, reply func(*wire.ReadStartResponse)) {
	out := s.readStart(req)
	if out.Status != statusOK {
		s.count.refused.Add(1)
	}
	reply(out)
}

func (s *Store) readStart(req *wire.ReadStartRequest) *wire.ReadStartResponse {
	id := logs.LogID(req.Log)
	refused := func(status wire.LogStatus, message string) *wire.ReadStartResponse {
		return &wire.ReadStartResponse{Status: status, FilterVersion: req.FilterVersion, Message: message}
	}
	switch {
	case !s.addressed(req.Shard):
		return refused(statusMisplaced, "the request names another shard")
	case !id.DataLog().Valid() || req.From > req.Until:
		return refused(statusInvalid, "no such log, or an empty range")
	case req.Flags&logs.ReadDigest != 0:
		return refused(statusInvalid, "recovery reads with Digest")
	case req.Filter > logs.FilterRange:
		return refused(statusInvalid, "unknown filter")
	}
	t := terms{until: logs.LSN(req.Until), windowHigh: logs.LSN(req.WindowHigh), flags: req.Flags, version: req.FilterVersion,
		filter: req.Filter, key1: bytes.Clone(req.FilterKey1), key2: bytes.Clone(req.FilterKey2)}
	for _, f := range req.FilteredOut {
		if logs.ShardID(f) != s.o.Shard { // who is asked is not silent
			t.filteredOut = append(t.filteredOut, logs.ShardID(f))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return refused(statusShutdown, "")
	}
	r := s.streams[req.Stream]
	switch {
	case s.unknown(id):
		return refused(statusUnknown, "the shard has nothing of the log, nor does the catalog know it")
	case req.Stream != 0 && (r == nil || r.log.id != id):
		return refused(wire.LogStatus_LOG_STATUS_NO_STREAM, "the stream is not known here")
	case r == nil && len(s.streams) >= s.o.Streams:
		return refused(wire.LogStatus_LOG_STATUS_OVERLOADED, "too many read streams")
	case r == nil:
		s.streamID++
		r = &readStream{id: s.streamID, log: s.log(id)}
		s.streams[r.id] = r
	}
	r.starts++
	r.from = max(logs.LSN(req.From), logs.LSNOldest)
	r.terms, r.next, r.touched = t, r.from, s.o.Mono()
	return &wire.ReadStartResponse{Stream: r.id, FilterVersion: t.version, LastReleased: uint64(r.log.deliverable())}
}

// ReadStop ends a stream.
func (s *Store) ReadStop(req *wire.ReadStopRequest, reply func(*wire.ReadStopResponse)) {
	s.mu.Lock()
	r := s.streams[req.Stream]
	var w waitingRead
	if r != nil {
		w = s.takeWaiting(r)
		r.gone = true
		delete(s.streams, req.Stream)
	}
	s.mu.Unlock()
	if r == nil {
		reply(&wire.ReadStopResponse{Status: wire.LogStatus_LOG_STATUS_NO_STREAM})
		return
	}
	if w.reply != nil {
		w.reply(&wire.ReadNextResponse{Status: wire.LogStatus_LOG_STATUS_NO_STREAM, FilterVersion: w.version})
	}
	reply(&wire.ReadStopResponse{})
}

// ReadNext delivers what there is of a stream, waiting for it if there is
// nothing. A second request of a stream takes the place of one that waits.
func (s *Store) ReadNext(req *wire.ReadNextRequest, reply func(*wire.ReadNextResponse)) {
	s.mu.Lock()
	r := s.streams[req.Stream]
	if s.closed || r == nil || !s.addressed(req.Shard) {
		closed := s.closed
		s.mu.Unlock()
		if closed {
			reply(shutdown())
			return
		}
		reply(&wire.ReadNextResponse{Status: wire.LogStatus_LOG_STATUS_NO_STREAM})
		return
	}
	before := s.takeWaiting(r)
	r.reply = reply
	r.touched = s.o.Mono()
	r.deadline = r.touched + min(time.Duration(req.WaitMs)*time.Millisecond, waitMax)
	r.bytesMax = int(req.BytesMax)
	if r.bytesMax == 0 {
		r.bytesMax = bytesMaxDefault
	}
	r.bytesMax = min(r.bytesMax, bytesMaxMost)
	if req.WindowHigh != 0 {
		r.terms.windowHigh = logs.LSN(req.WindowHigh)
	}
	ready := r.ready()
	var w waitingRead
	switch {
	case ready:
	case req.WaitMs == 0:
		w = s.takeWaiting(r)
	default:
		s.await(r)
	}
	s.mu.Unlock()
	if before.reply != nil {
		before.reply(before.empty())
	}
	if w.reply != nil {
		w.reply(w.empty())
	}
	if ready {
		s.serveLater([]*readStream{r})
	}
}

// limit is up to where the stream can be served now.
func (r *readStream) limit() logs.LSN {
	return min(max(r.log.deliverable(), r.log.trim), r.terms.windowHigh, r.terms.until)
}

// ready says whether there is something to deliver.
func (r *readStream) ready() bool { return r.next <= r.limit() }

// await puts a stream among those of its log that wait. mu is held.
func (s *Store) await(r *readStream) {
	if !r.listed {
		r.log.waiting = append(r.log.waiting, r)
		r.listed = true
	}
	s.wheelAdd(r)
}

// takeWaiting takes the request of a stream to answer it. mu is held.
func (s *Store) takeWaiting(r *readStream) waitingRead {
	w := waitingRead{reply: r.reply, version: r.terms.version, released: r.log.deliverable()}
	r.reply = nil
	if r.listed {
		r.listed = false
		if at := slices.Index(r.log.waiting, r); at >= 0 {
			r.log.waiting = slices.Delete(r.log.waiting, at, at+1)
		}
	}
	return w
}

func (s *Store) takeAllWaiting() []waitingRead {
	var out []waitingRead
	for _, r := range s.streams {
		if r.reply != nil {
			out = append(out, s.takeWaiting(r))
		}
	}
	return out
}

// wakeable collects the streams of a log that can be served now. mu is held.
func (s *Store) wakeable(l *logState, wake []*readStream) []*readStream {
	n := 0
	for _, r := range l.waiting {
		if r.ready() {
			r.listed = false
			wake = append(wake, r)
			continue
		}
		l.waiting[n] = r
		n++
	}
	clear(l.waiting[n:])
	l.waiting = l.waiting[:n]
	return wake
}

// serveLater has workers serve streams.
func (s *Store) serveLater(rs []*readStream) {
	for _, r := range rs {
		s.run(func() { s.serve(r) })
	}
}

// serve answers the request of a stream with what there is.
func (s *Store) serve(r *readStream) {
	s.mu.Lock()
	if r.reply == nil || r.gone || r.busy {
		s.mu.Unlock()
		return // answered meanwhile, or another worker will
	}
	r.busy = true
	starts := r.starts
	d := delivery{s: s, log: r.log.id, terms: r.terms, next: r.next, bytesMax: r.bytesMax,
		limit: r.limit(), trim: r.log.trim, doubted: s.suspected(r.log)}
	s.mu.Unlock()

	err := d.read()
	if err != nil {
		s.o.Logger.Error("logs/store: read", "log", d.log, "from", d.next, "error", err)
	}

	s.mu.Lock()
	r.busy = false
	again := r.starts != starts // rewound meanwhile: this is of no use any more
	var w waitingRead
	if !again {
		w = s.takeWaiting(r)
		r.next = d.next
	}
	s.mu.Unlock()
	if again {
		s.serveLater([]*readStream{r})
		return
	}
	if w.reply == nil {
		return
	}
	out := w.empty()
	out.Deliveries = d.out
	if err != nil && len(d.out) == 0 {
		out.Status = statusFailed
	}
	s.count.delivered.Add(int64(d.records))
	s.count.deliveredBytes.Add(int64(d.bytes))
	w.reply(out)
}

// reapStreams forgets streams that nobody has asked for long.
func (s *Store) reapStreams() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.o.Mono()
	for id, r := range s.streams {
		if r.reply == nil && !r.busy && now-r.touched > s.o.StreamIdle {
			r.gone = true
			delete(s.streams, id)
		}
	}
}

// delivery collects the answer to one request.
type delivery struct {
	s        *Store
	log      logs.LogID
	terms    terms
	next     logs.LSN // covered up to below it
	limit    logs.LSN
	trim     logs.LSN
	doubted  stretch
	bytesMax int
	bytes    int
	records  int
	out      []*wire.Delivery
}

// read covers [next, limit] with records and gaps, in order, without a hole and
// without an overlap (P6), as far as the budget goes.
func (d *delivery) read() error {
	if d.next <= d.trim {
		// Beyond the window too: nothing is held for it, and a reader that would be led
		// there window by window never came to an epoch after the one it is in.
		d.gap(logs.ServerGapTrim, min(d.trim, d.terms.until))
	}
	if d.next > d.limit || d.next == 0 {
		return nil
	}
	v, err := d.s.view(d.log, d.next, d.limit)
	if err != nil {
		return err
	}
	defer v.close()
	for v.next() {
		if d.bytes >= d.bytesMax {
			return nil
		}
		if err := d.one(v); err != nil {
			return err
		}
	}
	if v.err != nil {
		return v.err
	}
	if d.next != 0 && d.next <= d.limit {
		d.nothing(d.limit)
	}
	return nil
}

// one takes what is at one LSN.
func (d *delivery) one(v *view) error {
	lsn := v.versions[0].lsn
	head, body, err := v.merged()
	switch {
	case errors.Is(err, errHollow):
		return nil // not a copy: covered as if it were not here
	case err != nil:
		d.damaged(lsn, max(lsn, body.upTo), err)
		return nil
	case d.terms.flags&logs.ReadSingleCopy != 0 && !d.sends(head.copyset, lsn):
		return nil
	case !d.terms.passes(&head):
		d.until(lsn)
		d.gap(logs.ServerGapFilteredOut, lsn)
		return nil
	}
	var r *wire.LogRecord
	if d.terms.flags&logs.ReadNoPayload != 0 {
		r = head.record(d.log)
	} else if r, err = v.withPayload(&head, body); err != nil {
		d.damaged(lsn, lsn, err)
		return nil
	}
	d.until(lsn)
	d.record(r)
	return nil
}

// damaged tells of a copy that is not what was stored: never data.
func (d *delivery) damaged(lsn, to logs.LSN, err error) {
	d.s.count.damaged.Add(1)
	d.s.o.Logger.Error("logs/store: damaged copy", "log", d.log, "lsn", lsn, "error", err)
	d.until(lsn)
	d.gap(logs.ServerGapChecksum, to)
}

func (d *delivery) record(r *wire.LogRecord) {
	s := d.s
	out := &wire.Delivery{Record: r}
	s.mu.Lock()
	out.CountBase, out.CountKnown = s.peek(d.log).base(logs.LSN(r.Lsn).Epoch())
	s.mu.Unlock()
	d.out = append(d.out, out)
	d.bytes += 64 + 9*len(r.Copyset) + len(r.FindKey) + len(r.FilterKey) + len(r.Payload)
	d.records++
	d.advance(logs.LSN(r.Lsn))
}

// advance moves next behind lsn; behind the last of all it becomes 0.
func (d *delivery) advance(lsn logs.LSN) { d.next = lsn + 1 }

// until covers what is before lsn.
func (d *delivery) until(lsn logs.LSN) {
	if d.next < lsn {
		d.nothing(lsn - 1)
	}
}

// nothing covers a stretch without records: of LSNs that the shard may have
// lost it does not say that they were not here.
func (d *delivery) nothing(to logs.LSN) {
	if !d.doubted.empty() && d.next < d.doubted.from {
		d.gap(logs.ServerGapNoRecords, min(to, d.doubted.from-1))
	}
	if d.next != 0 && d.next <= min(to, d.doubted.to) {
		d.gap(logs.ServerGapUnderReplicated, min(to, d.doubted.to))
	}
	if d.next != 0 && d.next <= to {
		d.gap(logs.ServerGapNoRecords, to)
	}
}

// gap covers up to an LSN, going on with the gap before it if it is the same.
func (d *delivery) gap(kind uint32, to logs.LSN) {
	if n := len(d.out); n > 0 && d.out[n-1].Gap == kind && kind != logs.ServerGapNone {
		d.out[n-1].GapTo = uint64(to)
	} else {
		d.out = append(d.out, &wire.Delivery{Gap: kind, GapFrom: uint64(d.next), GapTo: uint64(to)})
		d.bytes += 24
	}
	d.advance(to)
}

// passes says whether a record passes the reader's filter. What recovery made up
// always does.
func (t *terms) passes(h *header) bool {
	switch {
	case t.filter == logs.FilterNone || pseudo(h.flags):
		return true
	case t.filter == logs.FilterEquality:
		return h.filterKey != nil && bytes.Equal(h.filterKey, t.key1)
	}
	return h.filterKey != nil && bytes.Compare(h.filterKey, t.key1) >= 0 && bytes.Compare(h.filterKey, t.key2) <= 0
}

// sends says whether this shard is the one that sends a record to a reader of
// single copies: the first of its copyset, shuffled, that is not filtered out.
func (d *delivery) sends(copyset []uint64, lsn logs.LSN) bool {
	best, found := uint64(0), false
	var least uint64
	for _, c := range copyset {
		if slices.Contains(d.terms.filteredOut, logs.ShardID(c)) {
			continue
		}
		if h := shuffle(c, lsn); !found || h < least || h == least && c < best {
			best, least, found = c, h, true
		}
	}
	return !found || best == uint64(d.s.o.Shard)
}

// shuffle ranks a shard among those that could send an LSN. A run of LSNs has
// one order, so that a block of records with one copyset is read from one disk
// in one piece.
func shuffle(shard uint64, lsn logs.LSN) uint64 {
	x := shard*0x9e3779b97f4a7c15 ^ uint64(lsn>>shuffleRun)*0xbf58476d1ce4e5b9
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

const shuffleRun = 10
