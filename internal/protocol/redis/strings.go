package redis

import (
	"github.com/braiddb/braid/client"
)

// Strings: GET SET SETNX SETEX PSETEX GETSET GETDEL GETEX MGET MSET MSETNX APPEND
// STRLEN SETRANGE GETRANGE SUBSTR INCR DECR INCRBY DECRBY INCRBYFLOAT SETBIT GETBIT.
//
//   - Every one but MGET, MSET and MSETNX is one operation at the leader of its key.
//   - MGET and MSET take keys of any slots and are not atomic over several tablets:
//     if one part of an MSET fails the others stay, and the reply is an error.
//   - MSETNX wants its keys in one slot (CROSSSLOT), is atomic, and is not for MULTI.
//   - INCRBYFLOAT works on 64-bit floats (Redis: 80-bit where the machine has them).
func stringCommands() []*command {
	const g = "string"
	return []*command{
		{name: "get", arity: 2, flags: readonly | fast, keys: oneKey, group: g, since: "1.0.0", summary: "Returns the string value of a key.",
			build: func(k *call) error { return k.do(client.Get(k.args[1]), nil) }},
		{name: "set", arity: -3, flags: write | denyoom, keys: oneKey, group: g, since: "1.0.0", summary: "Sets the string value of a key, ignoring its type. The key is created if it doesn't exist.", build: buildSet},
		{name: "setnx", arity: 3, flags: write | denyoom | fast, keys: oneKey, group: g, since: "1.0.0", summary: "Sets the string value of a key only when the key doesn't exist.",
			build: func(k *call) error {
				return k.do(client.Set(k.args[1], k.args[2], client.SetOptions{NX: true}), replyDone)
			}},
		{name: "setex", arity: 4, flags: write | denyoom, keys: oneKey, group: g, since: "2.0.0", summary: "Sets the string value and expiration time of a key. Creates the key if it doesn't exist.",
			build: func(k *call) error { return buildSetEx(k, 1000) }},
		{name: "psetex", arity: 4, flags: write | denyoom, keys: oneKey, group: g, since: "2.6.0", summary: "Sets both string value and expiration time in milliseconds of a key. The key is created if it doesn't exist.",
			build: func(k *call) error { return buildSetEx(k, 1) }},
		{name: "getset", arity: 3, flags: write | denyoom | fast, keys: oneKey, group: g, since: "1.0.0", summary: "Returns the previous string value of a key after setting it to a new value.",
			build: func(k *call) error {
				return k.do(client.Set(k.args[1], k.args[2], client.SetOptions{Get: true}), replyOldValue)
			}},
		{name: "getdel", arity: 2, flags: write | fast, keys: oneKey, group: g, since: "6.2.0", summary: "Returns the string value of a key after deleting the key.",
			build: func(k *call) error { return k.do(client.GetDel(k.args[1]), nil) }},
		{name: "getex", arity: -2, flags: write | fast, keys: oneKey, group: g, since: "6.2.0", summary: "Returns the string value of a key after setting its expiration time.", build: buildGetEx},
		{name: "mget", arity: -2, flags: readonly | fast, keys: allKeys, group: g, since: "1.0.0", summary: "Atomically returns the string values of one or more keys.", build: buildMGet},
		{name: "mset", arity: -3, flags: write | denyoom, keys: keySpec{1, -1, 2}, group: g, since: "1.0.1", summary: "Atomically creates or modifies the string values of one or more keys.", build: buildMSet},
		{name: "msetnx", arity: -3, flags: write | denyoom | noMulti, keys: keySpec{1, -1, 2}, group: g, since: "1.0.1", summary: "Atomically modifies the string values of one or more keys only when all keys don't exist.", run: runMSetNX},
		{name: "append", arity: 3, flags: write | denyoom | fast, keys: oneKey, group: g, since: "2.0.0", summary: "Appends a string to the value of a key. Creates the key if it doesn't exist.",
			build: func(k *call) error { return k.do(client.Append(k.args[1], k.args[2]), nil) }},
		{name: "strlen", arity: 2, flags: readonly | fast, keys: oneKey, group: g, since: "2.2.0", summary: "Returns the length of a string value.",
			build: func(k *call) error { return k.do(client.StrLen(k.args[1]), nil) }},
		{name: "setrange", arity: 4, flags: write | denyoom, keys: oneKey, group: g, since: "2.2.0", summary: "Overwrites a part of a string value with another by an offset. Creates the key if it doesn't exist.", build: buildSetRange},
		{name: "getrange", arity: 4, flags: readonly, keys: oneKey, group: g, since: "2.4.0", summary: "Returns a substring of the string stored at a key.", build: buildGetRange},
		{name: "substr", arity: 4, flags: readonly, keys: oneKey, group: g, since: "1.0.0", summary: "Returns a substring from a string value.", build: buildGetRange},
		{name: "incr", arity: 2, flags: write | denyoom | fast, keys: oneKey, group: g, since: "1.0.0", summary: "Increments the integer value of a key by one. Uses 0 as initial value if the key doesn't exist.",
			build: func(k *call) error { return k.do(client.IncrBy(k.args[1], 1), nil) }},
		{name: "decr", arity: 2, flags: write | denyoom | fast, keys: oneKey, group: g, since: "1.0.0", summary: "Decrements the integer value of a key by one. Uses 0 as initial value if the key doesn't exist.",
			build: func(k *call) error { return k.do(client.IncrBy(k.args[1], -1), nil) }},
		{name: "incrby", arity: 3, flags: write | denyoom | fast, keys: oneKey, group: g, since: "1.0.0", summary: "Increments the integer value of a key by a number. Uses 0 as initial value if the key doesn't exist.",
			build: func(k *call) error { return buildIncrBy(k, false) }},
		{name: "decrby", arity: 3, flags: write | denyoom | fast, keys: oneKey, group: g, since: "1.0.0", summary: "Decrements a number from the integer value of a key. Uses 0 as initial value if the key doesn't exist.",
			build: func(k *call) error { return buildIncrBy(k, true) }},
		{name: "incrbyfloat", arity: 3, flags: write | denyoom | fast, keys: oneKey, group: g, since: "2.6.0", summary: "Increment the floating point value of a key by a number. Uses 0 as initial value if the key doesn't exist.",
			build: func(k *call) error {
				if _, ok := parseFloat(k.args[2]); !ok {
					return errNotFloat
				}
				return k.do(client.IncrByFloat(k.args[1], k.args[2]), nil)
			}},
		{name: "setbit", arity: 4, flags: write | denyoom, keys: oneKey, group: "bitmap", since: "2.2.0", summary: "Sets or clears the bit at offset of the string value. Creates the key if it doesn't exist.", build: buildSetBit},
		{name: "getbit", arity: 3, flags: readonly | fast, keys: oneKey, group: "bitmap", since: "2.2.0", summary: "Returns a bit value by offset.", build: buildGetBit},
	}
}

// replyDone is 1 where the operation applied, 0 where a condition kept it from it.
func replyDone(w *writer, k *call) {
	if k.result().Kind == client.KindNil {
		w.int(0)
	} else {
		w.int(1)
	}
}

// replyOldValue is the value as it was, nil where there was none.
func replyOldValue(w *writer, k *call) {
	if r := k.result(); r.Kind == client.KindBytes {
		w.bulk(r.Bytes)
	} else {
		w.null()
	}
}

// buildSet: SET key value [NX|XX] [GET] [EX s|PX ms|EXAT s|PXAT ms|KEEPTTL].
func buildSet(k *call) error {
	var o client.SetOptions
	expires := false
	for i := 3; i < len(k.args); i++ {
		a := k.args[i]
		switch {
		case fold(a, "nx") && !o.XX:
			o.NX = true
		case fold(a, "xx") && !o.NX:
			o.XX = true
		case fold(a, "get"):
			o.Get = true
		case fold(a, "keepttl") && !expires:
			o.KeepTTL = true
		default:
			unit, relative := expiryOption(a)
			if unit == 0 || expires || o.KeepTTL || i+1 == len(k.args) {
				return errSyntax
			}
			expires = true
			i++
			at, err := k.expiry(k.args[i], unit, relative, "set")
			if err != nil {
				return err
			}
			o.ExpireAtMs = at
		}
	}
	reply := (func(*writer, *call))(nil)
	if o.Get {
		reply = replyOldValue
	}
	return k.do(client.Set(k.args[1], k.args[2], o), reply)
}

// expiryOption knows EX, PX, EXAT and PXAT; unit is the milliseconds of one, 0 if it is none.
func expiryOption(a []byte) (unit int64, relative bool) {
	switch {
	case fold(a, "ex"):
		return 1000, true
	case fold(a, "px"):
		return 1, true
	case fold(a, "exat"):
		return 1000, false
	case fold(a, "pxat"):
		return 1, false
	}
	return 0, false
}

// expiry turns an argument into a time of expiry, which must lie above zero and
// within what 64 bits of milliseconds hold.
func (k *call) expiry(a []byte, unit int64, relative bool, cmd string) (int64, error) {
	n, ok := parseInt(a)
	if !ok {
		return 0, errNotInteger
	}
	invalid := replyError("ERR invalid expire time in '" + cmd + "' command")
	if n <= 0 || n > maxInt64/unit {
		return 0, invalid
	}
	n *= unit
	if relative {
		if n > maxInt64-k.now {
			return 0, invalid
		}
		n += k.now
	}
	return n, nil
}

const maxInt64 = 1<<63 - 1

func buildSetEx(k *call, unit int64) error {
	at, err := k.expiry(k.args[2], unit, true, k.cmd.name)
	if err != nil {
		return err
	}
	return k.do(client.Set(k.args[1], k.args[3], client.SetOptions{ExpireAtMs: at}), nil)
}

// buildGetEx: GETEX key [EX s|PX ms|EXAT s|PXAT ms|PERSIST].
func buildGetEx(k *call) error {
	var o client.GetExOptions
	switch {
	case len(k.args) == 2:
	case len(k.args) == 3 && fold(k.args[2], "persist"):
		o.Persist = true
	case len(k.args) == 4:
		unit, relative := expiryOption(k.args[2])
		if unit == 0 {
			return errSyntax
		}
		at, err := k.expiry(k.args[3], unit, relative, "getex")
		if err != nil {
			return err
		}
		o.ExpireAtMs = at
	default:
		return errSyntax
	}
	return k.do(client.GetEx(k.args[1], o), nil)
}

func buildMGet(k *call) error {
	for _, key := range k.args[1:] {
		k.ops = append(k.ops, client.Get(key))
	}
	k.reply = func(w *writer, k *call) {
		// A key that holds no string is nil; a key that could not be read is an
		// error, and of the whole reply, for a client takes an element for a value.
		for _, r := range k.results {
			if r.Kind == client.KindError && r.Code != client.CodeWrongType {
				w.error(errorLine(r))
				return
			}
		}
		w.array(len(k.results))
		for _, r := range k.results {
			if r.Kind == client.KindBytes {
				w.bulk(r.Bytes)
			} else {
				w.null()
			}
		}
	}
	return nil
}

func buildMSet(k *call) error {
	if len(k.args)%2 == 0 {
		return replyError("ERR wrong number of arguments for 'mset' command")
	}
	for i := 1; i < len(k.args); i += 2 {
		k.ops = append(k.ops, client.Set(k.args[i], k.args[i+1], client.SetOptions{}))
	}
	k.reply = replyAllOK
	return nil
}

// runMSetNX checks that all keys are missing and sets them, as one batch: an
// operation that must only be applied with others is guarded by Check(version 0).
func runMSetNX(c *conn, k *call) {
	if len(k.args)%2 == 0 {
		c.w.error("ERR wrong number of arguments for 'msetnx' command")
		return
	}
	if !oneSlot(k.cmd.keyArgs(k.args)) {
		c.w.error(string(errCrossSlot))
		return
	}
	var ops []*client.Op
	for i := 1; i < len(k.args); i += 2 {
		ops = append(ops, client.Check(k.args[i], 0))
	}
	for i := 1; i < len(k.args); i += 2 {
		ops = append(ops, client.Set(k.args[i], k.args[i+1], client.SetOptions{}))
	}
	results, failed := c.batch(k, ops)
	switch {
	case failed != nil && failed.Code == client.CodeConditionFailed:
		c.w.int(0)
	case failed != nil:
		c.w.error(errorLine(failed))
	default:
		k.results = results
		if e := k.firstError(); e != nil {
			c.w.error(errorLine(e))
			return
		}
		c.w.int(1)
	}
}

func buildSetRange(k *call) error {
	offset, ok := parseInt(k.args[2])
	if !ok {
		return errNotInteger
	}
	if offset < 0 {
		return errOffset
	}
	if n := len(k.args[3]); n > 0 && offset > int64(k.s.opts.ValueBytesMax-n) {
		return errTooLong
	}
	return k.do(client.SetRange(k.args[1], offset, k.args[3]), nil)
}

func buildGetRange(k *call) error {
	start, ok1 := parseInt(k.args[2])
	end, ok2 := parseInt(k.args[3])
	if !ok1 || !ok2 {
		return errNotInteger
	}
	return k.do(client.GetRange(k.args[1], start, end), nil)
}

func buildIncrBy(k *call, negate bool) error {
	by, ok := parseInt(k.args[2])
	if !ok {
		return errNotInteger
	}
	if negate {
		if by == -maxInt64-1 {
			return replyError("ERR decrement would overflow")
		}
		by = -by
	}
	return k.do(client.IncrBy(k.args[1], by), nil)
}

// bitOffset is where SETBIT and GETBIT look; a string ends at the value limit.
func (k *call) bitOffset(a []byte) (int64, error) {
	n, ok := parseInt(a)
	if !ok || n < 0 || n>>3 >= int64(k.s.opts.ValueBytesMax) {
		return 0, replyError("ERR bit offset is not an integer or out of range")
	}
	return n, nil
}

func buildSetBit(k *call) error {
	offset, err := k.bitOffset(k.args[2])
	if err != nil {
		return err
	}
	bit, ok := parseInt(k.args[3])
	if !ok || bit != 0 && bit != 1 {
		return replyError("ERR bit is not an integer or out of range")
	}
	return k.do(client.SetBit(k.args[1], offset, bit), nil)
}

func buildGetBit(k *call) error {
	offset, err := k.bitOffset(k.args[2])
	if err != nil {
		return err
	}
	return k.do(client.GetBit(k.args[1], offset), nil)
}
