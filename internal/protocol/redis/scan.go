package redis

import (
	"strconv"

	"github.com/braiddb/braid/client"
)

// The whole key space: SCAN KEYS DBSIZE RANDOMKEY FLUSHALL FLUSHDB; and the
// options and reply that HSCAN, SSCAN and ZSCAN share with SCAN.
//
//   - SCAN's cursor is the next position of the 64-bit hash space to visit: it needs
//     no memory on the server, works on every node, survives restarts and failover,
//     and visits every key that is there throughout exactly once.
//   - COUNT is how many documents are visited, as in Redis; TYPE takes Redis's names
//     and "tseries".
//   - KEYS is refused when it matches more than Options.KeysMax keys.
//   - None of them is atomic over tablets, and none can be part of MULTI.
func spaceCommands() []*command {
	const g = "generic"
	return []*command{
		{name: "scan", arity: -2, flags: readonly | noMulti, group: g, since: "2.8.0", summary: "Iterates over the key names in the database.", run: runScan},
		{name: "keys", arity: 2, flags: readonly | noMulti, group: g, since: "1.0.0", summary: "Returns all key names that match a pattern.", run: runKeys},
		{name: "randomkey", arity: 1, flags: readonly | noMulti, group: g, since: "1.0.0", summary: "Returns a random key name from the database.", run: runRandomKey},
		{name: "dbsize", arity: 1, flags: readonly | noMulti, group: "server", since: "1.0.0", summary: "Returns the number of keys in the database.", run: runDBSize},
		{name: "flushall", arity: -1, flags: write | noMulti, group: "server", since: "1.0.0", summary: "Removes all keys from all databases.", run: runFlush},
		{name: "flushdb", arity: -1, flags: write | noMulti, group: "server", since: "1.0.0", summary: "Remove all keys from the current database.", run: runFlush},
	}
}

// How many documents one operation of KEYS and DBSIZE visits.
const visitAtOnce = 4096

// scanStepsMax bounds the operations that one SCAN carries out where tablets are empty.
const scanStepsMax = 16

// scanOptions reads [MATCH glob] [COUNT n] [TYPE name].
func scanOptions(args [][]byte, typed bool) (client.ScanOptions, error) {
	o := client.ScanOptions{Count: 10}
	for i := 0; i < len(args); i += 2 {
		if i+1 == len(args) {
			return o, errSyntax
		}
		switch a, v := args[i], args[i+1]; {
		case fold(a, "match"):
			o.Match = v
			if len(v) == 1 && v[0] == '*' {
				o.Match = nil
			}
		case fold(a, "count"):
			n, ok := parseInt(v)
			if !ok {
				return o, errNotInteger
			}
			if n < 1 {
				return o, errSyntax
			}
			o.Count = min(n, visitAtOnce)
		case fold(a, "type") && typed:
			o.Type = v
		default:
			return o, errSyntax
		}
	}
	return o, nil
}

func parseCursor(a []byte) (uint64, error) {
	n, err := strconv.ParseUint(string(a), 10, 64)
	if err != nil {
		return 0, replyError("ERR invalid cursor")
	}
	return n, nil
}

// buildScan: HSCAN key cursor [MATCH glob] [COUNT n], and its like.
func buildScan(k *call, op func([]byte, uint64, client.ScanOptions) *client.Op) error {
	cursor, err := parseCursor(k.args[2])
	if err != nil {
		return err
	}
	o, err := scanOptions(k.args[3:], false)
	if err != nil {
		return err
	}
	return k.do(op(k.args[1], cursor, o), func(w *writer, k *call) {
		items := k.result().Items
		w.array(2)
		if len(items) == 0 {
			w.bulkString("0")
			w.array(0)
			return
		}
		w.bulkString(strconv.FormatUint(uint64(items[0].Int), 10))
		w.array(len(items) - 1)
		for _, item := range items[1:] {
			if item.Kind == client.KindDouble {
				var scratch [64]byte
				w.bulk(appendFloat(scratch[:0], item.Double)) // a string in RESP3 too
				continue
			}
			k.renderResult(w, item)
		}
	})
}

// visit carries out one step of a scan of the key space. next is where to go on,
// 0 after the end.
func (c *conn) visit(k *call, from uint64, o client.ScanOptions) (keys []*client.Result, next uint64, failed *client.Result) {
	r := c.single(k, client.ScanKeys(from, o))
	if r.Kind == client.KindError {
		return nil, 0, r
	}
	if len(r.Items) == 0 {
		return nil, 0, broken("a scan without a cursor")
	}
	if next = uint64(r.Items[0].Int); next == 0 {
		end, err := c.tabletEnd(from)
		if err != nil {
			return nil, 0, failure(err)
		}
		next = end
	}
	return r.Items[1:], next, nil
}

// tabletEnd is where the tablet that owns a hash ends.
func (c *conn) tabletEnd(hash uint64) (uint64, error) {
	tablets, err := c.s.table.Tablets(c.s.ctx)
	if err != nil {
		return 0, err
	}
	for _, t := range tablets {
		if hash >= t.HashStart && (hash < t.HashEnd || t.HashEnd == 0) {
			return t.HashEnd, nil
		}
	}
	return 0, &client.Error{Code: client.CodeInternal, Message: "tablets do not cover the hash space"}
}

// runScan: SCAN cursor [MATCH glob] [COUNT n] [TYPE name].
func runScan(c *conn, k *call) {
	cursor, err := parseCursor(k.args[1])
	if err != nil {
		c.w.error(err.Error())
		return
	}
	o, err := scanOptions(k.args[2:], true)
	if err != nil {
		c.w.error(err.Error())
		return
	}
	var found []*client.Result
	for range scanStepsMax {
		keys, next, failed := c.visit(k, cursor, o)
		if failed != nil {
			c.w.error(errorLine(failed))
			return
		}
		found = append(found, keys...)
		cursor = next
		if cursor == 0 || len(found) >= int(o.Count) {
			break
		}
	}
	c.w.array(2)
	c.w.bulkString(strconv.FormatUint(cursor, 10))
	c.w.array(len(found))
	for _, key := range found {
		c.w.bulk(key.Bytes)
	}
}

func runKeys(c *conn, k *call) {
	o := client.ScanOptions{Count: visitAtOnce, Match: k.args[1]}
	if len(o.Match) == 1 && o.Match[0] == '*' {
		o.Match = nil
	}
	var found []*client.Result
	for at := uint64(0); ; {
		keys, next, failed := c.visit(k, at, o)
		if failed != nil {
			c.w.error(errorLine(failed))
			return
		}
		if found = append(found, keys...); len(found) > c.s.opts.KeysMax {
			c.w.error("ERR more than " + strconv.Itoa(c.s.opts.KeysMax) + " keys match, use SCAN")
			return
		}
		if at = next; at == 0 || c.gone() {
			break
		}
	}
	c.w.array(len(found))
	for _, key := range found {
		c.w.bulk(key.Bytes)
	}
}

// gone reports whether nobody waits for what a long command finds.
func (c *conn) gone() bool { return c.s.ctx.Err() != nil || c.info.killed.Load() }

func runRandomKey(c *conn, k *call) {
	start := uint64(c.s.random()) << 1
	at, wrapped := start, false
	for !c.gone() {
		keys, next, failed := c.visit(k, at, client.ScanOptions{Count: 1})
		switch {
		case failed != nil:
			c.w.error(errorLine(failed))
			return
		case len(keys) > 0:
			c.w.bulk(keys[0].Bytes)
			return
		case next == 0 && wrapped || wrapped && next > start:
			c.w.null()
			return
		case next == 0:
			wrapped = true
		}
		at = next
	}
	c.w.null()
}

// runDBSize counts in all tablets at once, a piece of each at a time.
func runDBSize(c *conn, k *call) {
	tablets, err := c.s.table.Tablets(c.s.ctx)
	if err != nil {
		c.w.error(errorLine(failure(err)))
		return
	}
	ops := make([]*client.Op, len(tablets))
	for i, t := range tablets {
		ops[i] = client.CountKeys(t.HashStart, client.ScanOptions{Count: visitAtOnce})
	}
	var total int64
	for len(ops) > 0 && !c.gone() {
		results, _ := c.exchange(ops)
		var rest []*client.Op
		for _, r := range results {
			switch {
			case r.Kind == client.KindError:
				c.w.error(errorLine(r))
				return
			case len(r.Items) != 2:
				c.w.error("ERR internal error: a count without a cursor")
				return
			}
			total += r.Items[1].Int
			if next := uint64(r.Items[0].Int); next != 0 {
				rest = append(rest, client.CountKeys(next, client.ScanOptions{Count: visitAtOnce}))
			}
		}
		ops = rest
	}
	c.w.int(total)
}

// runFlush: FLUSHALL [ASYNC|SYNC]. Deleting everything is one tombstone a tablet,
// so both are the same.
func runFlush(c *conn, k *call) {
	if len(k.args) > 2 || len(k.args) == 2 && !fold(k.args[1], "async") && !fold(k.args[1], "sync") {
		c.w.error(string(errSyntax))
		return
	}
	tablets, err := c.s.table.Tablets(c.s.ctx)
	if err != nil {
		c.w.error(errorLine(failure(err)))
		return
	}
	ops := make([]*client.Op, len(tablets))
	for i, t := range tablets {
		ops[i] = client.Truncate(t.HashStart)
	}
	k.results, k.copies = c.exchange(ops)
	replyAllOK(&c.w, k)
}
