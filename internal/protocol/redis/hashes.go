package redis

import (
	"github.com/braiddb/braid/client"
)

// Hashes: HSET HMSET HSETNX HGET HMGET HGETALL HKEYS HVALS HLEN HEXISTS HSTRLEN
// HDEL HINCRBY HINCRBYFLOAT HRANDFIELD HSCAN.
//
//   - Each is one operation at the leader of its key and costs what it touches.
//   - The order of fields is that of their storage, not of their insertion.
//   - HSCAN's cursor is a position in the hash and stays exact through changes.
func hashCommands() []*command {
	const g = "hash"
	hset := func(reply func(*writer, *call)) func(*call) error {
		return func(k *call) error {
			if len(k.args)%2 != 0 {
				return replyError("ERR wrong number of arguments for '" + k.cmd.name + "' command")
			}
			return k.do(client.HSet(k.args[1], k.args[2:]...), reply)
		}
	}
	return []*command{
		{name: "hset", arity: -4, flags: write | denyoom | fast, keys: oneKey, group: g, since: "2.0.0", summary: "Creates or modifies the value of a field in a hash.", build: hset(nil)},
		{name: "hmset", arity: -4, flags: write | denyoom | fast, keys: oneKey, group: g, since: "2.0.0", summary: "Sets the values of multiple fields.", build: hset(replyOK)},
		{name: "hsetnx", arity: 4, flags: write | denyoom | fast, keys: oneKey, group: g, since: "2.0.0", summary: "Sets the value of a field in a hash only when the field doesn't exist.",
			build: func(k *call) error { return k.do(client.HSetNX(k.args[1], k.args[2], k.args[3]), nil) }},
		{name: "hget", arity: 3, flags: readonly | fast, keys: oneKey, group: g, since: "2.0.0", summary: "Returns the value of a field in a hash.",
			build: func(k *call) error { return k.do(client.HGet(k.args[1], k.args[2]), nil) }},
		{name: "hmget", arity: -3, flags: readonly | fast, keys: oneKey, group: g, since: "2.0.0", summary: "Returns the values of all fields in a hash.",
			build: func(k *call) error { return k.do(client.HMGet(k.args[1], k.args[2:]...), nil) }},
		{name: "hgetall", arity: 2, flags: readonly, keys: oneKey, group: g, since: "2.0.0", summary: "Returns all fields and values in a hash.",
			build: func(k *call) error { return k.do(client.HGetAll(k.args[1]), replyMap) }},
		{name: "hkeys", arity: 2, flags: readonly, keys: oneKey, group: g, since: "2.0.0", summary: "Returns all fields in a hash.",
			build: func(k *call) error { return k.do(client.HKeys(k.args[1]), nil) }},
		{name: "hvals", arity: 2, flags: readonly, keys: oneKey, group: g, since: "2.0.0", summary: "Returns all values in a hash.",
			build: func(k *call) error { return k.do(client.HVals(k.args[1]), nil) }},
		{name: "hlen", arity: 2, flags: readonly | fast, keys: oneKey, group: g, since: "2.0.0", summary: "Returns the number of fields in a hash.",
			build: func(k *call) error { return k.do(client.HLen(k.args[1]), nil) }},
		{name: "hexists", arity: 3, flags: readonly | fast, keys: oneKey, group: g, since: "2.0.0", summary: "Determines whether a field exists in a hash.",
			build: func(k *call) error { return k.do(client.HExists(k.args[1], k.args[2]), nil) }},
		{name: "hstrlen", arity: 3, flags: readonly | fast, keys: oneKey, group: g, since: "3.2.0", summary: "Returns the length of the value of a field.",
			build: func(k *call) error { return k.do(client.HStrLen(k.args[1], k.args[2]), nil) }},
		{name: "hdel", arity: -3, flags: write | fast, keys: oneKey, group: g, since: "2.0.0", summary: "Deletes one or more fields and their values from a hash. Deletes the hash if no fields remain.",
			build: func(k *call) error { return k.do(client.HDel(k.args[1], k.args[2:]...), nil) }},
		{name: "hincrby", arity: 4, flags: write | denyoom | fast, keys: oneKey, group: g, since: "2.0.0", summary: "Increments the integer value of a field in a hash by a number. Uses 0 as initial value if the field doesn't exist.",
			build: func(k *call) error {
				by, ok := parseInt(k.args[3])
				if !ok {
					return errNotInteger
				}
				return k.do(client.HIncrBy(k.args[1], k.args[2], by), nil)
			}},
		{name: "hincrbyfloat", arity: 4, flags: write | denyoom | fast, keys: oneKey, group: g, since: "2.6.0", summary: "Increments the floating point value of a field by a number. Uses 0 as initial value if the field doesn't exist.",
			build: func(k *call) error {
				if _, ok := parseFloat(k.args[3]); !ok {
					return errNotFloat
				}
				return k.do(client.HIncrByFloat(k.args[1], k.args[2], k.args[3]), nil)
			}},
		{name: "hrandfield", arity: -2, flags: readonly, keys: oneKey, group: g, since: "6.2.0", summary: "Returns one or more random fields from a hash.", build: buildHRandField},
		{name: "hscan", arity: -3, flags: readonly, keys: oneKey, group: g, since: "2.8.0", summary: "Iterates over fields and values of a hash.",
			build: func(k *call) error { return buildScan(k, client.HScan) }},
	}
}

// randomCountMax bounds how many random elements, with repeats, are answered.
const randomCountMax = 1 << 20

// randomCount reads the count of HRANDFIELD and SRANDMEMBER.
func randomCount(a []byte) (int64, error) {
	n, ok := parseInt(a)
	if !ok {
		return 0, errNotInteger
	}
	if n < -randomCountMax {
		return 0, replyError("ERR value is out of range, at most 1048576 elements with repeats are answered at once")
	}
	return n, nil
}

// buildHRandField: HRANDFIELD key [count [WITHVALUES]].
func buildHRandField(k *call) error {
	o := client.RandomOptions{Seed: k.s.random(), Single: len(k.args) == 2}
	if o.Single {
		return k.do(client.HRandom(k.args[1], o), nil)
	}
	n, err := randomCount(k.args[2])
	if err != nil {
		return err
	}
	if len(k.args) > 4 || len(k.args) == 4 && !fold(k.args[3], "withvalues") {
		return errSyntax
	}
	o.Count, o.WithValues = n, len(k.args) == 4
	reply := (func(*writer, *call))(nil)
	if o.WithValues {
		reply = replyPairs
	}
	return k.do(client.HRandom(k.args[1], o), reply)
}

// replyPairs renders an array of pairs: flat in RESP2, as arrays of two in RESP3.
func replyPairs(w *writer, k *call) {
	items := k.result().Items
	if !w.resp3 {
		k.renderResult(w, k.result())
		return
	}
	w.array(len(items) / 2)
	for i := 0; i+1 < len(items); i += 2 {
		w.array(2)
		k.renderResult(w, items[i])
		k.renderResult(w, items[i+1])
	}
}
