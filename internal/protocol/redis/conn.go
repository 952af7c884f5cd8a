package redis

import (
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/braiddb/braid/client"
)

const (
	inflightMax  = 256                    // commands of a connection on their way together
	inflightMin  = 16                     // where a connection begins
	replyBudget  = 4 << 20                // replies expected of commands on their way together
	flushBytes   = 256 << 10              // rendered replies are written at the latest now
	keepOutBytes = 64 << 10               // a larger output buffer is not kept
	slowAfter    = 500 * time.Millisecond // see I2: well below client.Options.Attempt
	lingerFor    = time.Second            // what is left of a refused request is read that long
	lingerBytes  = 4 << 20
)

// conn is one client's connection. All but what says otherwise belongs to its
// goroutine, serve.
type conn struct {
	s       *Server
	nc      net.Conn
	id      uint64
	created time.Time
	remote  string
	local   string
	parser  parser
	w       writer
	box     *outbox

	// The pipeline under way.
	running []*call  // to be answered, in this order
	free    []*call  // to be used again
	window  int      // how many may be on their way together
	hashes  []uint64 // of the keys of running
	tainted bool     // I2: buffers are not to be used again
	now     time.Time

	// left counts operations on their way, and one for serve itself, so that
	// exactly one party takes it to zero: serve, or done, which then wakes serve.
	left atomic.Int32
	wake chan struct{}

	authenticated bool
	closing       bool // after what is rendered has been written
	mode          replyMode
	txn           transaction
	copies        uint32 // fewest durable copies that a write of this connection was answered with, 0: none yet
	charged       int64  // of Server.buffers
	deadlineSet   time.Time

	// info is what others may ask for: CLIENT LIST, CLIENT KILL, MONITOR.
	info connInfo
}

// connInfo is shared with other connections.
type connInfo struct {
	last    atomic.Int64            // unix milliseconds of the last command
	cmd     atomic.Pointer[command] // the last command
	calls   atomic.Uint64
	queued  atomic.Int32 // of MULTI, -1 outside
	watched atomic.Int32
	input   atomic.Int64 // capacity of the input buffer
	monitor atomic.Bool
	resp3   atomic.Bool
	killed  atomic.Bool
	mu      struct {
		sync.Mutex
		name, libName, libVersion string
		noEvict, noTouch          bool
	}
}

func newConn(s *Server, nc net.Conn, id uint64) *conn {
	c := &conn{
		s: s, nc: nc, id: id, created: s.opts.Clock(),
		remote: nc.RemoteAddr().String(), local: nc.LocalAddr().String(),
		parser: newParser(s.opts.ValueBytesMax, s.opts.QueryBytesMax),
		wake:   make(chan struct{}, 1),
		window: inflightMin,
	}
	c.box = newOutbox(nc, s.opts.OutputBytesMax, &s.unread, s.opts.OutputBytesTotal, s.opts.Clock, func(n int) { s.metrics.BytesOut.Add(uint64(n)) })
	c.left.Store(1)
	c.now = c.created
	c.info.queued.Store(-1)
	c.info.last.Store(c.created.UnixMilli())
	c.authenticated = !s.config.passwordSet()
	c.parser.unauth = !c.authenticated
	return c
}

// serve is the life of the connection.
func (c *conn) serve() {
	defer c.end()
	for {
		c.pipeline()
		if c.flush(); c.closing {
			return
		}
		c.parser.rewind(c.tainted)
		c.tainted = false
		room := c.parser.free()
		if !c.charge() {
			c.w.error("ERR too much memory is taken by queries, try again later")
			c.flush()
			return
		}
		n, err := c.read(room)
		if err != nil {
			return
		}
		c.parser.fill(n)
		c.s.metrics.BytesIn.Add(uint64(n))
		c.now = c.s.opts.Clock()
	}
}

// pipeline carries out every command that has wholly arrived.
func (c *conn) pipeline() {
	for !c.closing {
		k := c.take()
		var ok bool
		var err error
		k.args, ok, err = c.parser.next(k.args[:0])
		switch {
		case err == nil && ok:
			c.dispatch(k)
		case err == nil:
			c.free = append(c.free, k)
			c.settle()
			return
		case errors.Is(err, errTooBig):
			c.s.metrics.Refused.Add(1)
			c.reject(k, errTooBigQuery)
		default:
			c.settle()
			c.s.metrics.ProtocolErrors.Add(1)
			c.w.error("ERR " + err.Error())
			c.closing = true
			c.flush()
			c.linger()
		}
	}
	c.settle()
}

// take gives a call for the next command.
func (c *conn) take() *call {
	if n := len(c.free); n > 0 {
		k := c.free[n-1]
		c.free = c.free[:n-1]
		return k
	}
	k := &call{s: c.s}
	k.done = func(r client.Reply, err error) {
		c.s.underWay.Add(-k.bytes)
		k.settled(r, err)
		c.one()
	}
	return k
}

// dispatch checks a command as Redis does, in Redis's order, and carries it out.
func (c *conn) dispatch(k *call) {
	cmd, err := c.s.commands.resolve(k.args)
	k.cmd = cmd
	if err != nil {
		if cmd == nil && c.crossProtocol(k.args[0]) {
			return
		}
		c.reject(k, err)
		return
	}
	if !c.authenticated && cmd.flags&noAuth == 0 {
		c.reject(k, errNoAuth)
		return
	}
	if c.s.monitors.Load() > 0 && cmd.flags&skipMonitor == 0 {
		c.s.feedMonitors(c, k.args)
	}
	k.now = c.now.UnixMilli()
	switch {
	case c.txn.open && cmd.flags&inMulti == 0:
		c.settle()
		c.queue(k)
	case cmd.across != nil && !oneSlot(cmd.keyArgs(k.args)):
		c.settle()
		k.now = c.now.UnixMilli()
		c.runHere(k, cmd.across)
	case cmd.run != nil:
		c.settle()
		k.now = c.now.UnixMilli()
		c.runHere(k, cmd.run)
	default:
		c.start(k)
	}
}

// start builds a command's operations and sends them on their way.
func (c *conn) start(k *call) {
	k.reset()
	if err := k.cmd.build(k); err != nil {
		c.answerLater(k, refusal(err))
		return
	}
	if len(k.ops) != 1 {
		c.settle()
		k.results, k.copies = c.exchange(k.ops)
		k.ops = nil
		c.running = append(c.running, k)
		c.settle()
		return
	}
	hash := k.ops[0].Hash
	if len(c.running) >= c.window || c.onItsWay(hash) {
		c.settle()
	}
	if !c.s.room(k) {
		c.answerLater(k, crowded)
		return
	}
	c.hashes = append(c.hashes, hash)
	c.running = append(c.running, k)
	c.left.Add(1)
	c.s.table.StartReply(k.ops, c.s.deadline(c.now), k.done)
}

// commandOverhead is what a command on its way takes beyond its arguments.
const commandOverhead = 1 << 10

// crowded is the answer to a command that was not sent on its way (I4).
var crowded = refusal(replyError("TRYAGAIN too much is on its way at this node; nothing was done"))

// room counts a command as on its way, if there is room for it.
func (s *Server) room(k *call) bool {
	k.bytes = commandOverhead
	for _, a := range k.args {
		k.bytes += int64(len(a))
	}
	if all := s.underWay.Add(k.bytes); all > k.bytes && all > s.opts.RunningBytesTotal {
		s.underWay.Add(-k.bytes)
		s.metrics.Crowded.Add(1)
		return false
	}
	return true
}

// onItsWay reports whether a running command has a key of this hash.
func (c *conn) onItsWay(hash uint64) bool {
	for _, h := range c.hashes {
		if h == hash {
			return true
		}
	}
	return false
}

// one operation less is on its way. Any goroutine may call it.
func (c *conn) one() {
	if c.left.Add(-1) == 0 {
		c.wake <- struct{}{}
	}
}

// wait until nothing is on its way.
func (c *conn) wait() {
	if c.left.Add(-1) != 0 {
		<-c.wake
	}
	c.left.Store(1)
}

// answerLater gives a call a result that is rendered in its turn.
func (c *conn) answerLater(k *call, r *client.Result) {
	k.fail(r)
	c.running = append(c.running, k)
}

// reject answers a command that is not carried out; a transaction that it was
// meant for cannot be either.
func (c *conn) reject(k *call, err error) {
	if k.cmd != nil {
		k.cmd.stats.rejected.Add(1)
	}
	if k.cmd != nil && k.cmd.name == "exec" {
		c.settle()
		c.leaveMulti()
		err = replyError("EXECABORT Transaction discarded because of: " + strings.TrimPrefix(err.Error(), "ERR "))
	} else if c.txn.open {
		c.txn.dirty = true
	}
	k.reset()
	c.answerLater(k, refusal(err))
}

// settle waits for the commands under way and renders their replies (I1).
func (c *conn) settle() {
	if len(c.running) == 0 {
		return
	}
	c.wait()
	end := c.s.opts.Clock()
	took := end.Sub(c.now)
	biggest := 0
	for _, k := range c.running {
		mark := len(c.w.out)
		ok := k.render(&c.w)
		biggest = max(biggest, len(c.w.out)-mark)
		c.account(k, ok, took)
		c.mode.apply(&c.w, mark)
		if k.lost || took > slowAfter {
			c.tainted = true // k is left alone (I2)
		} else {
			k.forget()
			c.free = append(c.free, k)
		}
		if len(c.w.out) > flushBytes {
			c.flush()
		}
	}
	clear(c.running)
	c.running, c.hashes, c.now = c.running[:0], c.hashes[:0], end
	switch {
	case biggest > replyBudget/inflightMax:
		c.window = min(max(replyBudget/biggest, 1), c.window)
	case c.window < inflightMax:
		c.window *= 2
	}
}

// runHere carries a command out on this goroutine.
func (c *conn) runHere(k *call, run func(*conn, *call)) {
	k.reset()
	mark := len(c.w.out)
	run(c, k)
	end := c.s.opts.Clock()
	ok := len(c.w.out) == mark || c.w.out[mark] != '-'
	c.account(k, ok, end.Sub(c.now))
	c.mode.apply(&c.w, mark)
	c.now = end
	if !c.tainted {
		k.forget()
		c.free = append(c.free, k)
	}
	if len(c.w.out) > flushBytes {
		c.flush()
	}
}

// account counts a command that was carried out.
func (c *conn) account(k *call, ok bool, took time.Duration) {
	if k.cmd == nil {
		c.s.metrics.Errors.Add(1)
		return
	}
	st := &k.cmd.stats
	st.calls.Add(1)
	st.micros.Add(uint64(took.Microseconds()))
	c.s.metrics.observe(k.cmd, took)
	if !ok {
		st.failed.Add(1)
		c.s.metrics.Errors.Add(1)
	}
	if k.copies > 0 && (c.copies == 0 || k.copies < c.copies) {
		c.copies = k.copies
	}
	c.info.calls.Add(1)
	c.info.cmd.Store(k.cmd)
	c.info.last.Store(c.now.UnixMilli())
}
