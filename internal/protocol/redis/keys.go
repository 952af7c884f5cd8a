package redis

import (
	"bytes"

	"github.com/braiddb/braid/client"
)

// Keys of any type: DEL UNLINK EXISTS TOUCH TYPE EXPIRE PEXPIRE EXPIREAT PEXPIREAT
// PERSIST TTL PTTL EXPIRETIME PEXPIRETIME RENAME RENAMENX COPY DUMP RESTORE OBJECT.
//
//   - DEL, UNLINK, EXISTS and TOUCH take keys of any slots; over several tablets
//     they are not atomic. UNLINK is DEL: deleting a document costs one tombstone.
//   - TOUCH only counts: nothing is evicted here, so there is no time of last use.
//   - RENAME, RENAMENX and COPY between slots copy the document, and RENAME then
//     deletes the source if it has not changed meanwhile, or copies again: nothing
//     is lost, but both keys may be seen for a moment. Within a slot they are atomic.
//   - DUMP's payload is Braid's own and fits no Redis; RESTORE takes only that.
//   - OBJECT IDLETIME and FREQ are errors: they are not tracked.
func keyCommands() []*command {
	const g = "generic"
	return []*command{
		{name: "del", arity: -2, flags: write, keys: allKeys, group: g, since: "1.0.0", summary: "Deletes one or more keys.", build: buildDelete},
		{name: "unlink", arity: -2, flags: write | fast, keys: allKeys, group: g, since: "4.0.0", summary: "Asynchronously deletes one or more keys.", build: buildDelete},
		{name: "exists", arity: -2, flags: readonly | fast, keys: allKeys, group: g, since: "1.0.0", summary: "Determines whether one or more keys exist.", build: buildExists},
		{name: "touch", arity: -2, flags: readonly | fast, keys: allKeys, group: g, since: "3.2.1", summary: "Returns the number of existing keys out of those specified after updating the time they were last accessed.", build: buildExists},
		{name: "type", arity: 2, flags: readonly | fast, keys: oneKey, group: g, since: "1.0.0", summary: "Determines the type of value stored at a key.",
			build: func(k *call) error {
				return k.do(client.Type(k.args[1]), func(w *writer, k *call) { w.simple(string(k.result().Bytes)) })
			}},
		{name: "expire", arity: -3, flags: write | fast, keys: oneKey, group: g, since: "1.0.0", summary: "Sets the expiration time of a key in seconds.",
			build: func(k *call) error { return buildExpire(k, 1000, true) }},
		{name: "pexpire", arity: -3, flags: write | fast, keys: oneKey, group: g, since: "2.6.0", summary: "Sets the expiration time of a key in milliseconds.",
			build: func(k *call) error { return buildExpire(k, 1, true) }},
		{name: "expireat", arity: -3, flags: write | fast, keys: oneKey, group: g, since: "1.2.0", summary: "Sets the expiration time of a key to a Unix timestamp.",
			build: func(k *call) error { return buildExpire(k, 1000, false) }},
		{name: "pexpireat", arity: -3, flags: write | fast, keys: oneKey, group: g, since: "2.6.0", summary: "Sets the expiration time of a key to a Unix milliseconds timestamp.",
			build: func(k *call) error { return buildExpire(k, 1, false) }},
		{name: "persist", arity: 2, flags: write | fast, keys: oneKey, group: g, since: "2.2.0", summary: "Removes the expiration time of a key.",
			build: func(k *call) error { return k.do(client.Persist(k.args[1]), nil) }},
		{name: "ttl", arity: 2, flags: readonly | fast, keys: oneKey, group: g, since: "1.0.0", summary: "Returns the expiration time in seconds of a key.",
			build: func(k *call) error { return buildTTL(k, 1000, true) }},
		{name: "pttl", arity: 2, flags: readonly | fast, keys: oneKey, group: g, since: "2.6.0", summary: "Returns the expiration time in milliseconds of a key.",
			build: func(k *call) error { return buildTTL(k, 1, true) }},
		{name: "expiretime", arity: 2, flags: readonly | fast, keys: oneKey, group: g, since: "7.0.0", summary: "Returns the expiration time of a key as a Unix timestamp.",
			build: func(k *call) error { return buildTTL(k, 1000, false) }},
		{name: "pexpiretime", arity: 2, flags: readonly | fast, keys: oneKey, group: g, since: "7.0.0", summary: "Returns the expiration time of a key as a Unix milliseconds timestamp.",
			build: func(k *call) error { return buildTTL(k, 1, false) }},
		{name: "rename", arity: 3, flags: write, keys: twoKeys, group: g, since: "1.0.0", summary: "Renames a key and overwrites the destination.",
			build: func(k *call) error { return buildRename(k, false) }, across: func(c *conn, k *call) { runMove(c, k, false) }},
		{name: "renamenx", arity: 3, flags: write | fast, keys: twoKeys, group: g, since: "1.0.0", summary: "Renames a key only when the target key name doesn't exist.",
			build: func(k *call) error { return buildRename(k, true) }, across: func(c *conn, k *call) { runMove(c, k, true) }},
		{name: "copy", arity: -3, flags: write | denyoom, keys: twoKeys, group: g, since: "6.2.0", summary: "Copies the value of a key to a new key.", build: buildCopy, across: runCopy},
		{name: "dump", arity: 2, flags: readonly, keys: oneKey, group: g, since: "2.6.0", summary: "Returns a serialized representation of the value stored at a key.",
			build: func(k *call) error { return k.do(client.Dump(k.args[1]), nil) }},
		{name: "restore", arity: -4, flags: write | denyoom, keys: oneKey, group: g, since: "2.6.0", summary: "Creates a key from the serialized representation of a value.", build: buildRestore},
		{name: "object", arity: -2, flags: 0, group: g, since: "2.2.3", summary: "A container for object introspection commands.", subs: []*command{
			{name: "object|encoding", arity: 3, flags: readonly, keys: subKey, group: g, since: "2.2.3", summary: "Returns the internal encoding of a Redis object.",
				build: func(k *call) error { return k.do(client.Object(k.args[2]), nil) }},
			{name: "object|refcount", arity: 3, flags: readonly, keys: subKey, group: g, since: "2.2.3", summary: "Returns the reference count of a value of a key.",
				build: func(k *call) error { return k.do(client.Exists(k.args[2]), replyOneOrNull) }},
			{name: "object|idletime", arity: 3, flags: readonly, keys: subKey, group: g, since: "2.2.3", summary: "Returns the time since the last access to a Redis object.",
				build: func(*call) error { return replyError("ERR the time of last use is not tracked") }},
			{name: "object|freq", arity: 3, flags: readonly, keys: subKey, group: g, since: "4.0.0", summary: "Returns the logarithmic access frequency counter of a Redis object.",
				build: func(*call) error {
					return replyError("ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.")
				}},
			{name: "object|help", arity: 2, flags: loading | stale, group: g, since: "6.2.0", summary: "Returns helpful text about the different subcommands.", run: runHelp("OBJECT",
				"ENCODING <key>", "    Return the kind of internal representation used in order to store the value", "    associated with a <key>.",
				"REFCOUNT <key>", "    Return the number of references of the value associated with the specified", "    <key>.")},
		}},
	}
}

func replyOneOrNull(w *writer, k *call) {
	if k.result().Int == 0 {
		w.null()
	} else {
		w.int(1)
	}
}

func buildDelete(k *call) error {
	for _, key := range k.args[1:] {
		k.ops = append(k.ops, client.Delete(key))
	}
	k.reply = replySum
	return nil
}

func buildExists(k *call) error {
	for _, key := range k.args[1:] {
		k.ops = append(k.ops, client.Exists(key))
	}
	k.reply = replySum
	return nil
}

// buildExpire: EXPIRE key n [NX|XX|GT|LT]. A time that has passed deletes the key.
func buildExpire(k *call, unit int64, relative bool) error {
	var o client.ExpireOptions
	for _, a := range k.args[3:] {
		switch {
		case fold(a, "nx"):
			o.NX = true
		case fold(a, "xx"):
			o.XX = true
		case fold(a, "gt"):
			o.GT = true
		case fold(a, "lt"):
			o.LT = true
		default:
			return replyError("ERR Unsupported option " + string(a))
		}
	}
	if o.NX && (o.XX || o.GT || o.LT) {
		return replyError("ERR NX and XX, GT or LT options at the same time are not compatible")
	}
	if o.GT && o.LT {
		return replyError("ERR GT and LT options at the same time are not compatible")
	}
	n, ok := parseInt(k.args[2])
	if !ok {
		return errNotInteger
	}
	invalid := replyError("ERR invalid expire time in '" + k.cmd.name + "' command")
	if n > maxInt64/unit || n < -(maxInt64/unit) {
		return invalid
	}
	n *= unit
	if relative {
		if n > maxInt64-k.now {
			return invalid
		}
		n += k.now
	}
	return k.do(client.ExpireAt(k.args[1], max(n, 1), o), nil) // 0 would be none
}

func buildTTL(k *call, unit int64, relative bool) error {
	k.n, k.flag = unit, relative
	return k.do(client.ExpireTime(k.args[1]), func(w *writer, k *call) {
		at := k.result().Int
		switch {
		case at < 0:
			w.int(at)
		case k.flag:
			w.int((max(at-k.now, 0) + k.n/2) / k.n)
		default:
			w.int((at + k.n/2) / k.n)
		}
	})
}

func buildRename(k *call, onlyNew bool) error {
	k.flag = onlyNew
	if bytes.Equal(k.args[1], k.args[2]) {
		return k.do(client.Exists(k.args[1]), func(w *writer, k *call) {
			switch {
			case k.result().Int == 0:
				w.error(string(errNoKey))
			case k.flag:
				w.int(0)
			default:
				w.ok()
			}
		})
	}
	var reply func(*writer, *call)
	if !onlyNew {
		reply = replyOK
	}
	return k.do(client.Rename(k.args[1], k.args[2], onlyNew), reply)
}

// moveTries bounds how often runMove copies a document that keeps changing.
const moveTries = 8

// runMove is RENAME to another slot: copy, then delete the source if it is still
// what was copied.
func runMove(c *conn, k *call, onlyNew bool) {
	from, to := k.args[1], k.args[2]
	replace := !onlyNew
	for range moveTries {
		read, failed := c.batch(k, []*client.Op{client.Version(from), client.ExpireTime(from), client.Dump(from)})
		if failed != nil {
			c.w.error(errorLine(failed))
			return
		}
		if read[2].Kind != client.KindBytes {
			c.w.error(moveProblem(k, read[2]))
			return
		}
		put := c.single(k, client.Restore(to, read[2].Bytes, max(read[1].Int, 0), replace))
		if put.Kind == client.KindError {
			if put.Code == client.CodeAlreadyExists && onlyNew {
				c.w.int(0)
				return
			}
			c.w.error(errorLine(put))
			return
		}
		replace = true // what is there now is ours
		_, failed = c.batch(k, []*client.Op{client.Check(from, read[0].Int), client.Delete(from)})
		switch {
		case failed == nil && onlyNew:
			c.w.int(1)
			return
		case failed == nil:
			c.w.ok()
			return
		case failed.Code != client.CodeConditionFailed:
			c.w.error("UNKNOWNOUTCOME the destination was written, but the source may still exist: " + errorLine(failed))
			return
		}
	}
	c.w.error("ERR the source kept changing while it was moved; it still exists, and so does a copy of it")
}

// moveProblem says why a document could not be read for a copy.
func moveProblem(k *call, r *client.Result) string {
	if r.Kind == client.KindError {
		return errorLine(r)
	}
	return string(errNoKey)
}

// copyOptions: COPY source destination [DB n] [REPLACE].
func copyOptions(k *call) (replace bool, err error) {
	for i := 3; i < len(k.args); i++ {
		switch {
		case fold(k.args[i], "replace"):
			replace = true
		case fold(k.args[i], "db") && i+1 < len(k.args):
			i++
			n, ok := parseInt(k.args[i])
			if !ok {
				return false, errNotInteger
			}
			if n != 0 {
				return false, replyError("ERR DB index is out of range")
			}
		default:
			return false, errSyntax
		}
	}
	if bytes.Equal(k.args[1], k.args[2]) {
		return false, replyError("ERR source and destination objects are the same")
	}
	return replace, nil
}

func buildCopy(k *call) error {
	replace, err := copyOptions(k)
	if err != nil {
		return err
	}
	return k.do(client.Copy(k.args[1], k.args[2], replace), replyCopied)
}

// replyCopied is 0 where there was nothing to copy or something in its way.
func replyCopied(w *writer, k *call) { w.int(k.result().Int) }

// runCopy is COPY to another slot.
func runCopy(c *conn, k *call) {
	replace, err := copyOptions(k)
	if err != nil {
		c.w.error(err.Error())
		return
	}
	read, failed := c.batch(k, []*client.Op{client.ExpireTime(k.args[1]), client.Dump(k.args[1])})
	switch {
	case failed != nil:
		c.w.error(errorLine(failed))
		return
	case read[1].Kind == client.KindNil:
		c.w.int(0)
		return
	case read[1].Kind != client.KindBytes:
		c.w.error(errorLine(read[1]))
		return
	}
	put := c.single(k, client.Restore(k.args[2], read[1].Bytes, max(read[0].Int, 0), replace))
	switch {
	case put.Kind != client.KindError:
		c.w.int(1)
	case put.Code == client.CodeAlreadyExists:
		c.w.int(0)
	default:
		c.w.error(errorLine(put))
	}
}

// buildRestore: RESTORE key ttl payload [REPLACE] [ABSTTL] [IDLETIME s] [FREQ n].
func buildRestore(k *call) error {
	replace, absolute := false, false
	for i := 4; i < len(k.args); i++ {
		switch a := k.args[i]; {
		case fold(a, "replace"):
			replace = true
		case fold(a, "absttl"):
			absolute = true
		case (fold(a, "idletime") || fold(a, "freq")) && i+1 < len(k.args):
			i++
			if n, ok := parseInt(k.args[i]); !ok {
				return errNotInteger
			} else if n < 0 || fold(a, "freq") && n > 255 {
				return replyError("ERR Invalid " + map[bool]string{true: "FREQ value, must be >= 0 and <= 255", false: "IDLETIME value, must be >= 0"}[fold(a, "freq")])
			}
		default:
			return errSyntax
		}
	}
	ttl, ok := parseInt(k.args[2])
	if !ok {
		return errNotInteger
	}
	if ttl < 0 || !absolute && ttl > maxInt64-k.now {
		return replyError("ERR Invalid TTL value, must be >= 0")
	}
	if ttl > 0 && !absolute {
		ttl += k.now
	}
	return k.do(client.Restore(k.args[1], k.args[3], ttl, replace), nil)
}
