package tables

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/sim/check"
	"github.com/braiddb/braid/internal/wire"
)

// client is a client process: it names its requests, remembers who leads, and
// says which of its requests still run. Its threads each have one request under
// way at a time.
type client struct {
	c       *cluster
	id      [16]byte
	next    uint64
	running []uint64 // ascending
	leaders map[catalog.GroupID]int
	time    uint64 // highest hybrid time heard of
}

func newClient(c *cluster, n int) *client {
	cl := &client{c: c, next: 1, leaders: make(map[catalog.GroupID]int)}
	binary.BigEndian.PutUint64(cl.id[:], uint64(n+1))
	return cl
}

// begin names a request.
func (cl *client) begin() uint64 {
	id := cl.next
	cl.next++
	cl.running = append(cl.running, id)
	return id
}

// end forgets a request. One that was given up may stay on the list, as where
// its caller went away and its connection still waits.
func (cl *client) end(id uint64) {
	if i := slices.Index(cl.running, id); i >= 0 {
		cl.running = slices.Delete(cl.running, i, i+1)
	}
}

// call is one request with its retries.
type call struct {
	cl       *client
	v        *view
	write    *wire.WriteRequest
	read     *wire.ReadRequest
	began    time.Duration
	tries    int
	pausing  bool // a retry is planned
	over     bool
	op       *check.Op
	answer   *wire.WriteResponse // the first that said what became of it
	finished func(w *wire.WriteResponse, r *wire.ReadResponse)
}

// write carries out a write, with retries under one name. done runs once; op
// holds when it began and ended and what is known of its outcome.
func (cl *client) write(v *view, op *check.Op, ops []*wire.Op, done func(*wire.WriteResponse)) {
	id := cl.begin()
	req := &wire.WriteRequest{Tablet: uint64(v.id), Table: v.tablet.Table, SchemaVersion: 1, ClientId: cl.id[:], RequestId: id, Ops: ops}
	c := &call{cl: cl, v: v, write: req, op: op}
	c.finished = func(w *wire.WriteResponse, _ *wire.ReadResponse) {
		if op.Outcome != check.Unknown || cl.c.w.Opt.Knob("floorStays") == 0 {
			cl.end(id)
		}
		done(w)
	}
	c.start()
}

// read carries out a read, with retries. readTime 0 reads what is there now.
func (cl *client) read(v *view, op *check.Op, readTime uint64, ops []*wire.Op, done func(*wire.ReadResponse)) {
	req := &wire.ReadRequest{Tablet: uint64(v.id), Table: v.tablet.Table, SchemaVersion: 1, ReadTime: readTime, Ops: ops}
	c := &call{cl: cl, v: v, read: req, op: op}
	c.finished = func(_ *wire.WriteResponse, r *wire.ReadResponse) { done(r) }
	c.start()
}

func (c *call) start() {
	c.began = c.cl.c.w.Now()
	c.op.Call, c.op.Outcome = c.began, check.Unknown
	c.try()
}

// try sends the request to whom it takes for the leader, and to somebody else
// when no answer comes in time.
func (c *call) try() {
	w, cl := c.cl.c.w, c.cl
	if c.over {
		return
	}
	if w.Now()-c.began > cl.c.ms("patienceMs") {
		w.Sometimes("client: gave up")
		c.finish(check.Unknown, nil, nil)
		return
	}
	c.tries++
	c.pausing = false
	to := cl.leaders[c.v.id]
	if to == 0 {
		to = 1 + w.Dice().IntN(len(cl.c.members))
	}
	if c.tries == 2 {
		w.Sometimes("client: retried")
	}
	c.send(to)
	tries := c.tries
	w.After(w.Between(cl.c.ms("tryMs")/2, cl.c.ms("tryMs")), "patience", func() {
		if !c.over && !c.pausing && c.tries == tries {
			delete(cl.leaders, c.v.id)
			c.try()
		}
	})
}

func (c *call) send(to int) {
	w, cl, m := c.cl.c.w, c.cl, c.cl.c.members[to-1]
	carried := uint64(0)
	if w.Opt.Knob("carryTime") != 0 {
		carried = cl.time
	}
	if c.read != nil {
		c.read.HybridTime = carried
		raw, _ := c.read.MarshalVT()
		w.Net.ToNode(to, "read", len(raw), func() { m.serveRead(raw, func(out []byte) { c.answered(to, out) }) })
		return
	}
	c.write.HybridTime, c.write.FirstRunning = carried, cl.running[0]
	raw, _ := c.write.MarshalVT()
	serve := func() { m.serveWrite(raw, func(out []byte) { c.answered(to, out) }) }
	w.Net.ToNode(to, "write", len(raw), serve)
	if !w.Calm() && w.OneIn(int(w.Opt.Knob("againOneIn"))) { // a copy that was held up on its way
		w.After(w.Between(0, 4*time.Second>>w.Dice().IntN(12)), "copy", func() {
			if !w.Calm() {
				w.Net.ToNode(to, "write", len(raw), serve)
			}
		})
	}
}

// answered takes an answer to any of the tries.
func (c *call) answered(from int, raw []byte) {
	if c.over && c.write == nil {
		return
	}
	w, cl := c.cl.c.w, c.cl
	var wr *wire.WriteResponse
	var rr *wire.ReadResponse
	var e *wire.Error
	if c.read != nil {
		rr = &wire.ReadResponse{}
		if err := rr.UnmarshalVT(raw); err != nil {
			w.Fail("an answer does not unmarshal: %w", err)
		}
		e, cl.time = rr.Error, max(cl.time, rr.HybridTime)
	} else {
		wr = &wire.WriteResponse{}
		if err := wr.UnmarshalVT(raw); err != nil {
			w.Fail("an answer does not unmarshal: %w", err)
		}
		e, cl.time = wr.Error, max(cl.time, wr.HybridTime)
	}
	if wr != nil {
		c.checkAnswer(from, wr)
	}
	switch {
	case c.over: // an answer to an earlier try, or to a copy
	case e == nil || e.Code == wire.Code_CODE_CONDITION_FAILED:
		cl.leaders[c.v.id] = from
		c.finish(check.OK, wr, rr)
	case e.Code == wire.Code_CODE_REQUEST_EXPIRED && c.write != nil:
		c.finish(check.Unknown, nil, nil)
	case e.Code == wire.Code_CODE_SNAPSHOT_TOO_OLD && c.read != nil:
		c.finish(check.None, nil, rr)
	case e.Code.Retriable() || e.Code == wire.Code_CODE_TIMEOUT:
		c.again(from, e)
	case e.Code == wire.Code_CODE_INTERNAL && cl.c.members[from-1].rotten:
		w.Sometimes("beyond: an error of the engine is told")
		c.again(from, e)
	default:
		w.Fail("node %d answers %s: %s to %v", from, e.Code, e.Message, c.write)
	}
}

// checkAnswer is T12 and T13.
func (c *call) checkAnswer(from int, r *wire.WriteResponse) {
	w := c.cl.c.w
	switch {
	case r.Error != nil && r.Error.Code == wire.Code_CODE_REQUEST_EXPIRED:
		if !c.over && w.Opt.Knob("rememberedBytes") >= allRemembered {
			w.Fail("T13: node %d has forgotten a request that its client still runs: %v", from, c.write)
		}
	case r.Error != nil && r.Error.Code != wire.Code_CODE_CONDITION_FAILED:
	case c.answer == nil:
		c.answer = r
	case (r.Error == nil) != (c.answer.Error == nil) || !sameResults(r.Results, c.answer.Results):
		w.Fail("T12: one request is answered %v, and by node %d %v: %v", c.answer, from, r, c.write)
	}
}

// again tries once more after a while.
func (c *call) again(from int, e *wire.Error) {
	w, cl := c.cl.c.w, c.cl
	if c.pausing {
		return // an answer to an earlier try, or a second copy
	}
	c.pausing = true
	delete(cl.leaders, c.v.id)
	pause := w.Between(5*time.Millisecond, 120*time.Millisecond)
	switch {
	case e.Code == wire.Code_CODE_NOT_LEADER && e.LeaderNode != 0:
		cl.leaders[c.v.id] = int(e.LeaderNode)
		pause = w.Between(0, 20*time.Millisecond)
	case e.Code == wire.Code_CODE_NOT_READY || e.Code == wire.Code_CODE_TIMEOUT:
		cl.leaders[c.v.id] = from
	}
	w.After(pause, "retry", c.try)
}

func (c *call) finish(o check.Outcome, w *wire.WriteResponse, r *wire.ReadResponse) {
	c.over = true
	c.op.Outcome, c.op.Return = o, c.cl.c.w.Now()
	if o == check.OK {
		c.cl.c.ops++
		if w != nil && c.cl.c.w.Calm() {
			c.v.healed = true
		}
	}
	c.finished(w, r)
}

// serveWrite is a node's door for writes.
func (m *member) serveWrite(raw []byte, reply func([]byte)) {
	if m.fatal != nil {
		return
	}
	req := &wire.WriteRequest{}
	if err := req.UnmarshalVT(raw); err != nil {
		m.c.w.Fail("a request does not unmarshal: %w", err)
		return
	}
	done := func(resp *wire.WriteResponse) {
		if resp.Error == nil {
			if !m.speaks("answers a write") {
				return
			}
			v := m.c.view(catalog.GroupID(req.Tablet))
			v.acked = max(v.acked, timestamp(resp.HybridTime))
		}
		if m.fatal != nil {
			return
		}
		out, _ := resp.MarshalVT()
		m.c.w.NoteBytes(out)
		if !m.c.w.Calm() && m.c.w.OneIn(int(m.c.w.Opt.Knob("answerLostOneIn"))) {
			return
		}
		m.c.w.Net.ToClient(m.n.ID, "answer", func() { reply(out) })
	}
	h := m.find(catalog.GroupID(req.Tablet))
	if h == nil {
		done(&wire.WriteResponse{Error: &wire.Error{Code: wire.Code_CODE_TABLET_NOT_FOUND}})
		return
	}
	m.serving = req
	h.WriteAsync(req, m.now().Add(m.c.ms("tryMs")), done)
	m.serving = nil
}

// serveRead is a node's door for reads.
func (m *member) serveRead(raw []byte, reply func([]byte)) {
	if m.fatal != nil {
		return
	}
	req := &wire.ReadRequest{}
	if err := req.UnmarshalVT(raw); err != nil {
		m.c.w.Fail("a request does not unmarshal: %w", err)
		return
	}
	resp := &wire.ReadResponse{Error: &wire.Error{Code: wire.Code_CODE_TABLET_NOT_FOUND}}
	if h := m.find(catalog.GroupID(req.Tablet)); h != nil {
		life := m.n.Life()
		m.reading = true
		resp = h.Read(req)
		if m.n.Life() != life || !m.n.Up() {
			return // it ended while it read
		}
		m.reading = false
	}
	out, _ := resp.MarshalVT()
	m.c.w.NoteBytes(out)
	m.c.w.Net.ToClient(m.n.ID, "answer", func() { reply(out) })
}
