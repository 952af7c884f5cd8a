package tablet

import (
	"context"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/multiraft"
	"github.com/braiddb/braid/internal/tables/docdb"
	"github.com/braiddb/braid/internal/wire"
)

// write is one request on its way down the spine. It is a value that is parked
// and resumed: between two stages nothing of it is on any stack.
type write struct {
	tablet   *Tablet
	req      *wire.WriteRequest // nil for a change of the tablet itself
	change   *payload           // schema or cutoff, instead of req
	done     func(*wire.WriteResponse)
	deadline time.Time

	// check
	term  uint64 // W3
	bytes int64  // counted as in flight

	// enrol
	requests *requests // where it is enrolled; nil: not to be remembered
	key      requestKey
	attached []*write // retries that came while it runs; guarded by requests.mu

	// lock
	locks  lockRequest
	locked bool

	// prepare
	outcome outcome

	// propose
	proposal multiraft.Proposal
	begun    time.Time // when it was proposed
	handoff  atomic.Uint32
	result   multiraft.ProposalResult
	verdict  verdict // of apply, where it decided against the write
}

// WriteAsync carries out a request: every operation or none, each seeing those
// before it. It never blocks on a peer, a lock or a timer; done runs exactly
// once, perhaps before WriteAsync returns, and must not block. The request is not
// to be changed until then. The deadline bounds how long the request is parked:
// once proposed, it ends with its outcome.
func (t *Tablet) WriteAsync(req *wire.WriteRequest, deadline time.Time, done func(*wire.WriteResponse)) {
	t.start(&write{tablet: t, req: req, deadline: deadline, done: done})
}

// start is the spine, as far as it goes without waiting.
func (t *Tablet) start(w *write) {
	if e := t.check(w); e != nil {
		t.metrics.Refused.Add(1)
		w.done(&wire.WriteResponse{Error: e})
		return
	}
	if !t.enrol(w) {
		return // answered from memory, refused, or attached to the original
	}
	if e := t.fit(w); e != nil {
		t.resume(t.refuse(w, e, nil))
		return
	}
	if !t.lock(w) {
		return // parked: resume goes on when it is granted, alarm when it is late
	}
	t.resume(t.carryOut(w, nil))
}

// resume goes on with parked writes that were granted their locks, on the
// goroutine that released them. What those release in turn joins the list, so
// that a long queue is a loop and not a recursion.
func (t *Tablet) resume(ready []*lockRequest) {
	for len(ready) > 0 {
		w := ready[0].write
		ready = ready[1:]
		w.locked, w.deadline = true, w.locks.deadline // a retry may have lent it its patience
		if e := t.checkAgain(w); e != nil {
			pointUnled.Reach()
			ready = t.refuse(w, e, ready)
			continue
		}
		pointGranted.Reach()
		ready = t.carryOut(w, ready)
	}
}

// carryOut is the rest of the spine, under locks. It appends to ready whoever
// can go on because w ended.
func (t *Tablet) carryOut(w *write, ready []*lockRequest) []*lockRequest {
	data, e := t.prepare(w)
	switch {
	case e != nil:
		return t.refuse(w, e, ready)
	case data == nil:
		return t.answerUnchanged(w, ready)
	}
	return t.propose(w, data, ready)
}

// check decides whether this replica may take the request on at all: it leads
// under a lease, and has room. The term is read before the lease is looked at:
// if the term changed in between, the entry will be void (W3), never wrong.
func (t *Tablet) check(w *write) *wire.Error {
	if t.closed.Load() {
		return &wire.Error{Code: wire.Code_CODE_TABLET_NOT_FOUND, Message: "the tablet was closed here"}
	}
	if w.req != nil && w.req.Tablet != uint64(t.id) {
		return &wire.Error{Code: wire.Code_CODE_TABLET_NOT_FOUND, Message: "another tablet is served here"}
	}
	g := t.group.Load()
	if g == nil {
		return &wire.Error{Code: wire.Code_CODE_NOT_READY, Message: "the tablet is being opened"}
	}
	w.term = t.appliedTerm.Load()
	if err := g.Leading(); err != nil {
		return groupError(err)
	}
	if w.req == nil {
		return nil
	}
	if e := t.expired(w); e != nil {
		return e
	}
	if e := t.merge(w.req.HybridTime); e != nil {
		return e
	}
	return t.admit(w)
}

// enrol looks whether the request was seen before. It reports whether w is to be
// carried out; else w has its answer or will have the original's.
func (t *Tablet) enrol(w *write) bool {
	if w.req == nil || len(w.req.ClientId) == 0 {
		return true
	}
	if len(w.req.ClientId) != len(w.key.client) || w.req.FirstRunning > w.req.RequestId {
		t.leave(w)
		w.done(failure(wire.Code_CODE_INVALID, "malformed client id or first running request"))
		return false
	}
	copy(w.key.client[:], w.req.ClientId)
	w.key.id = w.req.RequestId
	w.requests = t.requests.Load()
	known, found := w.requests.begin(w)
	switch known {
	case standingNew:
		return true
	case standingRunning:
		t.metrics.Attached.Add(1)
		pointAttached.Reach()
		t.leave(w)
		t.locks.extend(&found.running.locks, w.deadline)
		return false
	}
	w.requests = nil // it did not join the running ones
	t.leave(w)
	switch known {
	case standingRemembered:
		t.metrics.Remembered.Add(1)
		pointRemembered.Reach()
		w.done(t.recall(w.key, found))
	case standingExpired:
		t.metrics.Expired.Add(1)
		pointExpired.Reach()
		w.done(failure(wire.Code_CODE_REQUEST_EXPIRED, "older than what the tablet remembers of this client: refused, not carried out"))
	case standingRefused:
		t.metrics.Refused.Add(1)
		w.done(&wire.WriteResponse{Error: &wire.Error{Code: wire.Code_CODE_OVERLOADED,
			Message:      "too many clients have written to the tablet lately to remember one more",
			RetryAfterMs: uint32(t.deps.Options.RetryAfter.Milliseconds())}})
	}
	return false
}

// fit decides whether the request itself can be carried out here and now. It
// comes after enrol: a retry of what was done is answered whatever has changed.
func (t *Tablet) fit(w *write) *wire.Error {
	if w.req == nil {
		return nil
	}
	if t.deps.DiskFull() {
		return &wire.Error{Code: wire.Code_CODE_DISK_FULL, Message: "the node has no disk space left for writes"}
	}
	if e := t.checkSchema(w.req.Table, w.req.SchemaVersion); e != nil {
		return e
	}
	return t.checkOps(w.req.Ops, w.req.SchemaVersion)
}

// checkAgain is for a write that was parked: the lease, the schema or the
// deadline may have gone meanwhile.
func (t *Tablet) checkAgain(w *write) *wire.Error {
	if t.closed.Load() {
		return &wire.Error{Code: wire.Code_CODE_TABLET_NOT_FOUND, Message: "the tablet was closed here"}
	}
	term := t.appliedTerm.Load()
	if err := t.group.Load().Leading(); err != nil {
		return groupError(err)
	}
	if term != w.term {
		return &wire.Error{Code: wire.Code_CODE_NOT_READY, Message: "leadership changed while the request waited"}
	}
	if e := t.expired(w); e != nil {
		return e
	}
	return t.fit(w)
}

// lock takes all locks of the request, or parks it and reports false.
func (t *Tablet) lock(w *write) bool {
	deadline := w.deadline // once parked, w is whoever's that lets go of its locks
	w.locks.write, w.locks.deadline = w, deadline
	t.wantLocks(w)
	if t.locks.acquire(&w.locks) {
		w.locked = true
		return true
	}
	t.metrics.Parked.Add(1)
	pointParked.Reach()
	t.setAlarm(deadline)
	if t.closed.Load() { // Close may have drained the table just before
		if ready, waiting := t.locks.cancel(&w.locks, nil); waiting {
			t.resume(t.refuse(w, &wire.Error{Code: wire.Code_CODE_TABLET_NOT_FOUND, Message: "the tablet was closed here"}, ready))
		}
	}
	return false
}

// wantLocks names the paths: strong on each operation's own, weak on every
// prefix. The empty path, prefix of all, is where a change of the whole tablet
// excludes everything else.
func (t *Tablet) wantLocks(w *write) {
	if w.req == nil {
		w.locks.want(rootPath, StrongRead|StrongWrite)
		return
	}
	for _, op := range w.req.Ops {
		set := docdb.Locks(op)
		for _, l := range set.All() {
			var i Intent
			if l.Reads {
				i |= StrongRead
			}
			if l.Writes {
				i |= StrongWrite
			}
			if l.Whole {
				w.locks.want(rootPath, i)
				continue
			}
			w.locks.want(rootPath, i.weak())
			w.locks.want(pathID(l.Hash, l.Key), i)
		}
	}
}

// pathID is the lock id of a document.
func pathID(hash uint64, key []byte) uint64 {
	var prefix [8]byte
	binary.BigEndian.PutUint64(prefix[:], hash)
	// Multiplying spreads the hash, whose top bits are all that two documents
	// with equal keys differ in.
	id := xxhash.Sum64(key) ^ hash*0x9e3779b97f4a7c15
	if id == rootPath {
		return ^rootPath
	}
	return id
}

// scratch is what preparing a request needs and gives back.
type scratch struct {
	exec  *docdb.Exec
	batch docdb.WriteBatch
	bytes []byte
}

var scratches = sync.Pool{New: func() any { return &scratch{exec: docdb.NewExec(nil, nil, 0, 0)} }}

// prepare executes the operations and gives the entry's payload: final keys and
// values, lacking only the hybrid time. nil means that there is nothing to
// replicate. Blind writes open no view and read nothing.
func (t *Tablet) prepare(w *write) ([]byte, *wire.Error) {
	if w.change != nil {
		w.change.term = w.term
		return w.change.append(nil), nil
	}
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	s.batch.Reset()
	raises, e := t.execute(w, s, t.schema.Load())
	if e != nil {
		return nil, e
	}
	if s.batch.Empty() && w.requests == nil {
		return nil, nil
	}
	p := payload{kind: payloadWrite, term: w.term, raises: raises && !s.batch.Empty()}
	if w.requests != nil {
		p.remembered, p.request, p.firstRunning = true, w.key, w.req.FirstRunning
		s.bytes = w.outcome.append(s.bytes[:0])
		p.outcome = s.bytes
	}
	data := p.append(make([]byte, 0, payloadOverhead+len(p.outcome)+s.batch.Size()))
	if !s.batch.Empty() {
		data = s.batch.Encode(data)
	}
	return data, nil
}

// execute runs the operations over what is applied, which is all that this
// leader ever proposed on the locked paths (W1). It reports whether the entry is
// to raise the cutoff to its own time: if the table keeps no history, or the
// tablet was emptied.
func (t *Tablet) execute(w *write, s *scratch, table *catalog.Table) (raises bool, e *wire.Error) {
	var view *docdb.View
	if readsAny(w.req.Ops) {
		var err error
		if view, err = t.deps.Engine.View(t.span, hlc.Max, nil); err != nil {
			return false, readError(err)
		}
		defer view.Close()
	}
	x := s.exec
	x.Reset(view, &s.batch, t.table, t.deps.Clock.Now().Millis())
	defer x.Reset(nil, nil, 0, 0)
	x.SetSchema(table.Schema)
	if raises = table.HistoryRetentionMs == 0; raises {
		x.SetCollect(hlc.Max)
	}
	w.outcome.results = make([]*wire.Result, 0, len(w.req.Ops))
	for _, op := range w.req.Ops {
		if wire.OpCode(op.Code) == wire.OpTruncate {
			x.Truncate(t.span.Start, t.span.End)
			w.outcome.results = append(w.outcome.results, &wire.Result{Kind: wire.Kind_KIND_OK})
			raises = true
			continue
		}
		r, err := x.Write(op)
		if err != nil {
			return false, readError(err)
		}
		if r.Kind == wire.Kind_KIND_ERROR && r.Code == wire.Code_CODE_CONDITION_FAILED {
			s.batch.Reset()
			w.outcome = outcome{code: r.Code, message: r.Message}
			return false, nil
		}
		w.outcome.results = append(w.outcome.results, r)
	}
	return raises, nil
}

func readsAny(ops []*wire.Op) bool {
	for _, op := range ops {
		if docdb.NeedsRead(op) {
			return true
		}
	}
	return false
}

// answerUnchanged answers a request that changed nothing and is not remembered.
// What it read was current when the lease is looked at after the read: no other
// leader can have begun before that.
func (t *Tablet) answerUnchanged(w *write, ready []*lockRequest) []*lockRequest {
	if err := t.group.Load().Leading(); err != nil {
		return t.refuse(w, groupError(err), ready)
	}
	t.metrics.Unchanged.Add(1)
	resp := w.outcome.response()
	resp.HybridTime = uint64(t.deps.Clock.Now())
	return t.conclude(w, resp, ready)
}

// States of a write's handoff between the proposer and the proposal's Done,
// which may run inside Propose: then the proposer goes on when Propose returns,
// on a flat stack.
const (
	handoffProposing = iota
	handoffProposed  // Propose returned: Done concludes
	handoffDone      // Done came first: the proposer concludes
)

// propose hands the payload to the group. From here on the request ends with the
// proposal's outcome only.
func (t *Tablet) propose(w *write, data []byte, ready []*lockRequest) []*lockRequest {
	w.begun = t.deps.Now()
	w.proposal = multiraft.Proposal{Data: data, Done: w.proposed}
	if w.req != nil && !w.deadline.IsZero() {
		w.proposal.Wait = max(1, w.deadline.Sub(w.begun))
	}
	t.group.Load().Propose(&w.proposal)
	if w.handoff.CompareAndSwap(handoffProposing, handoffProposed) {
		return ready
	}
	return t.conclude(w, t.outcomeOf(w), ready)
}

// proposed is the proposal's Done: the entry is applied here, or surely will not
// be, or nobody knows. A success comes on the apply worker before it applies
// anything more: there, whoever waited for the locks goes on. A failure may come
// on a loop of the host, which must not touch the disk: those who waited find the
// lease gone with it.
func (w *write) proposed(r multiraft.ProposalResult) {
	w.result, w.verdict = r, w.tablet.apply.verdicts.take(&w.proposal)
	w.tablet.delay.Store(int64(w.tablet.deps.Now().Sub(w.begun)))
	if w.handoff.CompareAndSwap(handoffProposing, handoffDone) {
		return
	}
	t := w.tablet
	t.resume(t.conclude(w, t.outcomeOf(w), nil))
}

// outcomeOf turns the proposal's result into the answer.
func (t *Tablet) outcomeOf(w *write) *wire.WriteResponse {
	if w.result.Err != nil {
		return &wire.WriteResponse{Error: groupError(w.result.Err)}
	}
	switch w.verdict {
	case verdictVoid:
		return failure(wire.Code_CODE_NOT_READY, "leadership changed before the request was in the log")
	case verdictDuplicate:
		if known, found := w.requests.standing(w.key); known == standingRemembered {
			return t.recall(w.key, found)
		}
		fallthrough
	case verdictExpired:
		return failure(wire.Code_CODE_REQUEST_EXPIRED, "older than what the tablet remembers of this client: refused, not carried out")
	}
	t.metrics.Writes.Add(1)
	resp := w.outcome.response()
	resp.HybridTime, resp.Copies = uint64(w.result.HybridTime), w.result.Copies
	return resp
}

// refuse ends a request that has had no effect.
func (t *Tablet) refuse(w *write, e *wire.Error, ready []*lockRequest) []*lockRequest {
	t.metrics.Refused.Add(1)
	return t.conclude(w, &wire.WriteResponse{Error: e}, ready)
}

// conclude ends a request: unlock, answer it and everyone attached to it. It
// appends to ready whoever is granted what it held.
func (t *Tablet) conclude(w *write, resp *wire.WriteResponse, ready []*lockRequest) []*lockRequest {
	if w.locked {
		ready = t.locks.release(&w.locks, ready)
		w.locked = false
	}
	t.leave(w)
	var attached []*write
	if w.requests != nil {
		attached = w.requests.end(w)
	}
	w.done(resp)
	for _, a := range attached {
		a.done(&wire.WriteResponse{Error: resp.Error, Results: resp.Results, HybridTime: resp.HybridTime, Copies: resp.Copies})
	}
	return ready
}

// Write is WriteAsync for callers that wait. If the context ends first, a parked
// request is taken back (no effect); one that was proposed is an unknown outcome.
func (t *Tablet) Write(ctx context.Context, req *wire.WriteRequest) *wire.WriteResponse {
	deadline, _ := ctx.Deadline()
	answer := make(chan *wire.WriteResponse, 1)
	w := &write{tablet: t, req: req, deadline: deadline, done: func(r *wire.WriteResponse) { answer <- r }}
	t.start(w)
	return t.await(ctx, w, answer)
}

// await waits for a started write's answer or the end of the context.
func (t *Tablet) await(ctx context.Context, w *write, answer <-chan *wire.WriteResponse) *wire.WriteResponse {
	select {
	case r := <-answer:
		return r
	case <-ctx.Done():
	}
	if ready, parked := t.locks.cancel(&w.locks, nil); parked {
		t.resume(t.refuse(w, &wire.Error{Code: wire.Code_CODE_CANCELED, Message: "cancelled while waiting for a lock: no effect"}, ready))
		return <-answer
	}
	select {
	case r := <-answer:
		return r
	default:
		return failure(wire.Code_CODE_UNKNOWN_OUTCOME, "cancelled while the write was under way")
	}
}

// setAlarm makes sure that parked writes are looked at by the deadline. One
// timer serves all of them: most have the same patience, so it is rarely set.
func (t *Tablet) setAlarm(deadline time.Time) {
	if deadline.IsZero() {
		return
	}
	t.alarm.Lock()
	defer t.alarm.Unlock()
	if t.closed.Load() || (!t.alarm.at.IsZero() && !deadline.Before(t.alarm.at)) {
		return
	}
	if t.alarm.stop != nil {
		t.alarm.stop()
	}
	t.alarm.at = deadline
	t.alarm.stop = t.deps.AfterFunc(max(0, deadline.Sub(t.deps.Now())), t.ring)
}

// ring answers the parked writes whose deadline has passed.
func (t *Tablet) ring() {
	t.alarm.Lock()
	t.alarm.at, t.alarm.stop = time.Time{}, nil
	t.alarm.Unlock()
	expired, ready, earliest := t.locks.expire(t.deps.Now())
	t.setAlarm(earliest)
	for _, r := range expired {
		t.metrics.TimedOut.Add(1)
		pointTimedOut.Reach()
		ready = t.refuse(r.write, &wire.Error{Code: wire.Code_CODE_TIMEOUT, Message: "deadline passed while waiting for a lock: no effect"}, ready)
	}
	t.resume(ready)
}
