package redis

import (
	"bytes"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/catalog"
)

// Transactions: MULTI EXEC DISCARD WATCH UNWATCH.
//
//   - All keys of a transaction, those watched included, lie in one slot; the first
//     command of another slot is refused with CROSSSLOT and aborts the transaction.
//   - EXEC is one atomic request to the leader of the slot's tablet: first a check
//     that every watched key has the version that WATCH saw, then the operations of
//     all queued commands, reads among them; each sees those before it. Nobody sees
//     part of it, and it is carried out once or not at all.
//   - As in Redis an operation that fails (WRONGTYPE, say) does not undo the others.
//   - A connection that loses the reply of EXEC does not know its outcome.
//   - Commands that concern more than one tablet (KEYS, SCAN, DBSIZE, FLUSHALL, ...)
//     are not allowed inside; those that need no tablet (PING, TIME, ...) run after
//     the batch.
//   - At most 10,000 commands, of together at most Options.QueryBytesMax.
func transactionCommands() []*command {
	const g = "transactions"
	return []*command{
		{name: "multi", arity: 1, flags: noscript | loading | stale | fast | inMulti, group: g, since: "1.2.0", summary: "Starts a transaction.", run: runMulti},
		{name: "exec", arity: 1, flags: noscript | loading | stale | inMulti, group: g, since: "1.2.0", summary: "Executes all commands in a transaction.", run: runExec},
		{name: "discard", arity: 1, flags: noscript | loading | stale | fast | inMulti, group: g, since: "2.0.0", summary: "Discards a transaction.", run: runDiscard},
		{name: "watch", arity: -2, flags: noscript | loading | stale | fast | inMulti, keys: allKeys, group: g, since: "2.2.0", summary: "Monitors changes to keys to determine the execution of a transaction.", run: runWatch},
		{name: "unwatch", arity: 1, flags: noscript | loading | stale | fast, group: g, since: "2.2.0", summary: "Forgets about watched keys of a transaction.", run: func(c *conn, _ *call) {
			if !c.txn.executing {
				c.txn.watched = nil
				c.info.watched.Store(0)
				c.txn.releaseSlot()
			}
			c.w.ok()
		}},
	}
}

const queuedMax = 10000

// transaction is what a connection has watched and queued.
type transaction struct {
	open      bool // MULTI was called
	dirty     bool // a command was refused: EXEC will not carry anything out
	executing bool
	slotKnown bool
	slot      uint16
	watched   []watch
	queued    []*call
	bytes     int // of the queued arguments
}

// watch is a key and the version that it had.
type watch struct {
	key     []byte
	version int64
}

// admit reports whether keys may be part of the transaction.
func (t *transaction) admit(keys [][]byte) bool {
	for _, key := range keys {
		slot := catalog.RedisSlot(key)
		if t.slotKnown && slot != t.slot {
			return false
		}
		t.slot, t.slotKnown = slot, true
	}
	return true
}

// releaseSlot lets the next command choose the slot, if nothing holds it.
func (t *transaction) releaseSlot() {
	if !t.open && len(t.watched) == 0 {
		t.slotKnown = false
	}
}

// queue keeps a command for EXEC.
func (c *conn) queue(k *call) {
	t := &c.txn
	size := 64
	for _, a := range k.args {
		size += len(a) + 24
	}
	var refused error
	switch {
	case k.cmd.flags&noMulti != 0:
		refused = replyError("ERR Command not allowed inside a transaction")
	case len(t.queued) >= queuedMax || t.bytes+size > c.s.opts.QueryBytesMax:
		refused = replyError("ERR transaction exceeds the limits: 10000 commands, and the bytes of a query")
	case !t.admit(k.cmd.keyArgs(k.args)):
		refused = errCrossSlot
	}
	if refused != nil {
		c.reject(k, refused)
		return
	}
	q := &call{s: c.s, cmd: k.cmd, args: make([][]byte, len(k.args))}
	for i, a := range k.args {
		q.args[i] = bytes.Clone(a)
	}
	t.queued = append(t.queued, q)
	t.bytes += size
	c.info.queued.Store(int32(len(t.queued)))
	mark := len(c.w.out)
	c.w.simple("QUEUED")
	c.mode.apply(&c.w, mark)
	c.free = append(c.free, k)
}

func runMulti(c *conn, _ *call) {
	if c.txn.open {
		c.w.error("ERR MULTI calls can not be nested")
		return
	}
	c.txn.open = true
	c.info.queued.Store(0)
	c.w.ok()
}

// leaveMulti forgets all that was queued and watched.
func (c *conn) leaveMulti() {
	c.txn = transaction{}
	c.info.queued.Store(-1)
	c.info.watched.Store(0)
}

func runDiscard(c *conn, _ *call) {
	if !c.txn.open {
		c.w.error("ERR DISCARD without MULTI")
		return
	}
	c.leaveMulti()
	c.w.ok()
}

func runWatch(c *conn, k *call) {
	if c.txn.open {
		c.w.error("ERR WATCH inside MULTI is not allowed")
		return
	}
	if !c.txn.admit(k.args[1:]) {
		c.txn.releaseSlot()
		c.w.error(string(errCrossSlot))
		return
	}
	if len(c.txn.watched)+len(k.args) > queuedMax {
		c.w.error("ERR at most 10000 keys can be watched")
		return
	}
	var ops []*client.Op
	for _, key := range k.args[1:] {
		ops = append(ops, client.Version(key))
	}
	results, failed := c.batch(k, ops)
	if failed != nil {
		c.txn.releaseSlot()
		c.w.error(errorLine(failed))
		return
	}
	k.results = results
	if e := k.firstError(); e != nil {
		c.txn.releaseSlot()
		c.w.error(errorLine(e))
		return
	}
	for i, key := range k.args[1:] {
		c.txn.watched = append(c.txn.watched, watch{bytes.Clone(key), results[i].Int})
	}
	c.info.watched.Store(int32(len(c.txn.watched)))
	c.w.ok()
}

// runExec carries the transaction out.
func runExec(c *conn, k *call) {
	t := c.txn
	if !t.open {
		c.w.error("ERR EXEC without MULTI")
		return
	}
	c.leaveMulti()
	if t.dirty {
		c.w.error(string(errExecAbort))
		return
	}
	ops := make([]*client.Op, 0, len(t.watched)+len(t.queued))
	for _, w := range t.watched {
		ops = append(ops, client.Check(w.key, w.version))
	}
	for _, q := range t.queued {
		q.now = k.now
		if q.cmd.build == nil {
			continue
		}
		if err := q.cmd.build(q); err != nil {
			q.fail(refusal(err))
			continue
		}
		ops = append(ops, q.ops...)
	}
	var results []*client.Result
	if len(ops) > 0 {
		var failed *client.Result
		results, failed = c.batch(k, ops)
		switch {
		case failed == nil:
		case failed.Code == client.CodeConditionFailed:
			c.w.nullArray()
			return
		default:
			c.w.error(errorLine(failed))
			return
		}
	}
	c.renderExec(t.queued, results[len(t.watched)*min(len(results), 1):])
}

// renderExec writes the replies of queued commands; results are those of their operations.
func (c *conn) renderExec(queued []*call, results []*client.Result) {
	c.txn.executing = true
	defer func() { c.txn.executing = false }()
	c.w.array(len(queued))
	for _, q := range queued {
		mark := len(c.w.out)
		switch {
		case q.cmd.run != nil:
			q.cmd.run(c, q)
		case q.results == nil:
			q.results, results = results[:len(q.ops)], results[len(q.ops):]
			q.render(&c.w)
		default:
			q.render(&c.w)
		}
		c.account(q, c.w.out[mark] != '-', 0)
	}
}
