package redis

import (
	"github.com/braiddb/braid/client"
)

// Lists: LPUSH RPUSH LPUSHX RPUSHX LPOP RPOP LLEN LRANGE LINDEX LSET LINSERT LPOS
// LTRIM LREM.
//
//   - Each is one operation at the leader of its key. Both ends are cheap; LINSERT,
//     LREM in the middle and LINDEX cost what lies between the place and an end.
//   - Not here: LMOVE, RPOPLPUSH, LMPOP and what blocks.
func listCommands() []*command {
	const g = "list"
	type push = func(key []byte, values ...[]byte) *client.Op
	pushing := func(f push) func(*call) error {
		return func(k *call) error { return k.do(f(k.args[1], k.args[2:]...), nil) }
	}
	return []*command{
		{name: "lpush", arity: -3, flags: write | denyoom | fast, keys: oneKey, group: g, since: "1.0.0", summary: "Prepends one or more elements to a list. Creates the key if it doesn't exist.", build: pushing(client.LPush)},
		{name: "rpush", arity: -3, flags: write | denyoom | fast, keys: oneKey, group: g, since: "1.0.0", summary: "Appends one or more elements to a list. Creates the key if it doesn't exist.", build: pushing(client.RPush)},
		{name: "lpushx", arity: -3, flags: write | denyoom | fast, keys: oneKey, group: g, since: "2.2.0", summary: "Prepends one or more elements to a list only when the list exists.", build: pushing(client.LPushX)},
		{name: "rpushx", arity: -3, flags: write | denyoom | fast, keys: oneKey, group: g, since: "2.2.0", summary: "Appends an element to a list only when the list exists.", build: pushing(client.RPushX)},
		{name: "lpop", arity: -2, flags: write | fast, keys: oneKey, group: g, since: "1.0.0", summary: "Returns the first elements in a list after removing it. Deletes the list if the last element was popped.",
			build: func(k *call) error { return buildPop(k, client.LPopOne, client.LPop) }},
		{name: "rpop", arity: -2, flags: write | fast, keys: oneKey, group: g, since: "1.0.0", summary: "Returns and removes the last elements of a list. Deletes the list if the last element was popped.",
			build: func(k *call) error { return buildPop(k, client.RPopOne, client.RPop) }},
		{name: "llen", arity: 2, flags: readonly | fast, keys: oneKey, group: g, since: "1.0.0", summary: "Returns the length of a list.",
			build: func(k *call) error { return k.do(client.LLen(k.args[1]), nil) }},
		{name: "lrange", arity: 4, flags: readonly, keys: oneKey, group: g, since: "1.0.0", summary: "Returns a range of elements from a list.",
			build: func(k *call) error { return buildByRange(k, client.LRange) }},
		{name: "ltrim", arity: 4, flags: write, keys: oneKey, group: g, since: "1.0.0", summary: "Removes elements from both ends a list. Deletes the list if all elements were trimmed.",
			build: func(k *call) error { return buildByRange(k, client.LTrim) }},
		{name: "lindex", arity: 3, flags: readonly, keys: oneKey, group: g, since: "1.0.0", summary: "Returns an element from a list by its index.",
			build: func(k *call) error {
				i, ok := parseInt(k.args[2])
				if !ok {
					return errNotInteger
				}
				return k.do(client.LIndex(k.args[1], i), nil)
			}},
		{name: "lset", arity: 4, flags: write | denyoom, keys: oneKey, group: g, since: "1.0.0", summary: "Sets the value of an element in a list by its index.",
			build: func(k *call) error {
				i, ok := parseInt(k.args[2])
				if !ok {
					return errNotInteger
				}
				return k.do(client.LSet(k.args[1], i, k.args[3]), nil)
			}},
		{name: "lrem", arity: 4, flags: write, keys: oneKey, group: g, since: "1.0.0", summary: "Removes elements from a list. Deletes the list if the last element was removed.",
			build: func(k *call) error {
				n, ok := parseInt(k.args[2])
				if !ok {
					return errNotInteger
				}
				return k.do(client.LRem(k.args[1], n, k.args[3]), nil)
			}},
		{name: "linsert", arity: 5, flags: write | denyoom, keys: oneKey, group: g, since: "2.2.0", summary: "Inserts an element before or after another element in a list.",
			build: func(k *call) error {
				before := fold(k.args[2], "before")
				if !before && !fold(k.args[2], "after") {
					return errSyntax
				}
				return k.do(client.LInsert(k.args[1], before, k.args[3], k.args[4]), nil)
			}},
		{name: "lpos", arity: -3, flags: readonly, keys: oneKey, group: g, since: "6.0.6", summary: "Returns the index of matching elements in a list.", build: buildLPos},
	}
}

// buildPop: LPOP key [count].
func buildPop(k *call, one func([]byte) *client.Op, some func([]byte, int64) *client.Op) error {
	switch len(k.args) {
	case 2:
		return k.do(one(k.args[1]), nil)
	case 3:
		n, err := positiveCount(k.args[2])
		if err != nil {
			return err
		}
		return k.do(some(k.args[1], n), func(w *writer, k *call) {
			if k.result().Kind == client.KindNil {
				w.nullArray()
				return
			}
			k.renderResult(w, k.result())
		})
	}
	return replyError("ERR wrong number of arguments for '" + k.cmd.name + "' command")
}

// positiveCount reads a count that may be zero.
func positiveCount(a []byte) (int64, error) {
	n, ok := parseInt(a)
	if !ok || n < 0 {
		return 0, errNotPositive
	}
	return n, nil
}

func buildByRange(k *call, op func(key []byte, start, stop int64) *client.Op) error {
	start, ok1 := parseInt(k.args[2])
	stop, ok2 := parseInt(k.args[3])
	if !ok1 || !ok2 {
		return errNotInteger
	}
	return k.do(op(k.args[1], start, stop), nil)
}

// buildLPos: LPOS key element [RANK n] [COUNT n] [MAXLEN n].
func buildLPos(k *call) error {
	rank, count, maxLen := int64(1), int64(-1), int64(0)
	for i := 3; i < len(k.args); i += 2 {
		if i+1 == len(k.args) {
			return errSyntax
		}
		n, ok := parseInt(k.args[i+1])
		switch a := k.args[i]; {
		case fold(a, "rank"):
			if !ok || n == -maxInt64-1 {
				return errNotInteger
			}
			if n == 0 {
				return replyError("ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to start from the end of the list")
			}
			rank = n
		case fold(a, "count"):
			if !ok || n < 0 {
				return replyError("ERR COUNT can't be negative")
			}
			count = n
		case fold(a, "maxlen"):
			if !ok || n < 0 {
				return replyError("ERR MAXLEN can't be negative")
			}
			maxLen = n
		default:
			return errSyntax
		}
	}
	return k.do(client.LPos(k.args[1], k.args[2], rank, count, maxLen), nil)
}
