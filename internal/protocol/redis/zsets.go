package redis

import (
	"github.com/braiddb/braid/client"
)

// Sorted sets: ZADD ZINCRBY ZREM ZSCORE ZMSCORE ZCARD ZCOUNT ZLEXCOUNT ZRANK
// ZREVRANK ZRANGE ZREVRANGE ZRANGEBYSCORE ZREVRANGEBYSCORE ZRANGEBYLEX
// ZREVRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE ZREMRANGEBYLEX ZPOPMIN ZPOPMAX
// ZSCAN.
//
//   - Each is one operation at the leader of its key. Ranges cost what they answer
//     and skip; ranks cost what lies before them.
//   - ZRANK and ZREVRANK know WITHSCORE, as Redis 7.2 does.
//   - Scores are written as the shortest decimal that reads back the same, as
//     Redis 7.2 does.
//   - Not here: ZRANGESTORE, ZUNION and its like, ZRANDMEMBER, and what blocks.
func zsetCommands() []*command {
	const g = "sorted-set"
	zrange := func(z zrangeForm) func(*call) error {
		return func(k *call) error { return buildZRange(k, z) }
	}
	spanning := func(form spanForm, op func([]byte, client.ZSpan) *client.Op) func(*call) error {
		return func(k *call) error {
			span, err := form(k.args[2], k.args[3])
			if err != nil {
				return err
			}
			return k.do(op(k.args[1], span), nil)
		}
	}
	return []*command{
		{name: "zadd", arity: -4, flags: write | denyoom | fast, keys: oneKey, group: g, since: "1.2.0", summary: "Adds one or more members to a sorted set, or updates their scores. Creates the key if it doesn't exist.", build: buildZAdd},
		{name: "zincrby", arity: 4, flags: write | denyoom | fast, keys: oneKey, group: g, since: "1.2.0", summary: "Increments the score of a member in a sorted set.",
			build: func(k *call) error {
				by, ok := parseFloat(k.args[2])
				if !ok {
					return errNotFloat
				}
				return k.do(client.ZAdd(k.args[1], []float64{by}, k.args[3:4], client.ZAddOptions{Incr: true}), nil)
			}},
		{name: "zrem", arity: -3, flags: write | fast, keys: oneKey, group: g, since: "1.2.0", summary: "Removes one or more members from a sorted set. Deletes the sorted set if all members were removed.",
			build: func(k *call) error { return k.do(client.ZRem(k.args[1], k.args[2:]...), nil) }},
		{name: "zscore", arity: 3, flags: readonly | fast, keys: oneKey, group: g, since: "1.2.0", summary: "Returns the score of a member in a sorted set.",
			build: func(k *call) error { return k.do(client.ZScore(k.args[1], k.args[2]), nil) }},
		{name: "zmscore", arity: -3, flags: readonly | fast, keys: oneKey, group: g, since: "6.2.0", summary: "Returns the score of one or more members in a sorted set.",
			build: func(k *call) error { return k.do(client.ZMScore(k.args[1], k.args[2:]...), nil) }},
		{name: "zcard", arity: 2, flags: readonly | fast, keys: oneKey, group: g, since: "1.2.0", summary: "Returns the number of members in a sorted set.",
			build: func(k *call) error { return k.do(client.ZCard(k.args[1]), nil) }},
		{name: "zcount", arity: 4, flags: readonly | fast, keys: oneKey, group: g, since: "2.0.0", summary: "Returns the count of members in a sorted set that have scores within a range.", build: spanning(scoreSpan, client.ZCount)},
		{name: "zlexcount", arity: 4, flags: readonly | fast, keys: oneKey, group: g, since: "2.8.9", summary: "Returns the number of members in a sorted set within a lexicographical range.", build: spanning(lexSpan, client.ZCount)},
		{name: "zrank", arity: -3, flags: readonly | fast, keys: oneKey, group: g, since: "2.0.0", summary: "Returns the index of a member in a sorted set ordered by ascending scores.",
			build: func(k *call) error { return buildZRank(k, false) }},
		{name: "zrevrank", arity: -3, flags: readonly | fast, keys: oneKey, group: g, since: "2.0.0", summary: "Returns the index of a member in a sorted set ordered by descending scores.",
			build: func(k *call) error { return buildZRank(k, true) }},
		{name: "zrange", arity: -4, flags: readonly, keys: oneKey, group: g, since: "1.2.0", summary: "Returns members in a sorted set within a range of indexes.", build: zrange(zrangeForm{general: true, byRank: true, span: rankSpan})},
		{name: "zrevrange", arity: -4, flags: readonly, keys: oneKey, group: g, since: "1.2.0", summary: "Returns members in a sorted set within a range of indexes in reverse order.", build: zrange(zrangeForm{byRank: true, span: rankSpan, reverse: true})},
		{name: "zrangebyscore", arity: -4, flags: readonly, keys: oneKey, group: g, since: "1.0.5", summary: "Returns members in a sorted set within a range of scores.", build: zrange(zrangeForm{span: scoreSpan})},
		{name: "zrevrangebyscore", arity: -4, flags: readonly, keys: oneKey, group: g, since: "2.2.0", summary: "Returns members in a sorted set within a range of scores in reverse order.", build: zrange(zrangeForm{span: scoreSpan, reverse: true})},
		{name: "zrangebylex", arity: -4, flags: readonly, keys: oneKey, group: g, since: "2.8.9", summary: "Returns members in a sorted set within a lexicographical range.", build: zrange(zrangeForm{span: lexSpan, lex: true})},
		{name: "zrevrangebylex", arity: -4, flags: readonly, keys: oneKey, group: g, since: "2.8.9", summary: "Returns members in a sorted set within a lexicographical range in reverse order.", build: zrange(zrangeForm{span: lexSpan, lex: true, reverse: true})},
		{name: "zremrangebyrank", arity: 4, flags: write, keys: oneKey, group: g, since: "2.0.0", summary: "Removes members in a sorted set within a range of indexes. Deletes the sorted set if all members were removed.", build: spanning(rankSpan, client.ZRemRange)},
		{name: "zremrangebyscore", arity: 4, flags: write, keys: oneKey, group: g, since: "1.2.0", summary: "Removes members in a sorted set within a range of scores. Deletes the sorted set if all members were removed.", build: spanning(scoreSpan, client.ZRemRange)},
		{name: "zremrangebylex", arity: 4, flags: write, keys: oneKey, group: g, since: "2.8.9", summary: "Removes members in a sorted set within a lexicographical range. Deletes the sorted set if all members were removed.", build: spanning(lexSpan, client.ZRemRange)},
		{name: "zpopmin", arity: -2, flags: write | fast, keys: oneKey, group: g, since: "5.0.0", summary: "Returns the lowest-scoring members from a sorted set after removing them. Deletes the sorted set if the last member was popped.",
			build: func(k *call) error { return buildZPop(k, false) }},
		{name: "zpopmax", arity: -2, flags: write | fast, keys: oneKey, group: g, since: "5.0.0", summary: "Returns the highest-scoring members from a sorted set after removing them. Deletes the sorted set if the last member was popped.",
			build: func(k *call) error { return buildZPop(k, true) }},
		{name: "zscan", arity: -3, flags: readonly, keys: oneKey, group: g, since: "2.8.0", summary: "Iterates over members and scores of a sorted set.",
			build: func(k *call) error { return buildScan(k, client.ZScan) }},
	}
}

// buildZAdd: ZADD key [NX|XX] [GT|LT] [CH] [INCR] score member [score member ...].
func buildZAdd(k *call) error {
	var o client.ZAddOptions
	i := 2
options:
	for ; i < len(k.args); i++ {
		switch a := k.args[i]; {
		case fold(a, "nx"):
			o.NX = true
		case fold(a, "xx"):
			o.XX = true
		case fold(a, "gt"):
			o.GT = true
		case fold(a, "lt"):
			o.LT = true
		case fold(a, "ch"):
			o.CH = true
		case fold(a, "incr"):
			o.Incr = true
		default:
			break options
		}
	}
	pairs := k.args[i:]
	switch {
	case len(pairs) == 0 || len(pairs)%2 != 0:
		return errSyntax
	case o.NX && o.XX:
		return replyError("ERR XX and NX options at the same time are not compatible")
	case o.GT && o.NX || o.LT && o.NX || o.GT && o.LT:
		return replyError("ERR GT, LT, and/or NX options at the same time are not compatible")
	case o.Incr && len(pairs) > 2:
		return replyError("ERR INCR option supports a single increment-element pair")
	}
	scores := make([]float64, 0, len(pairs)/2)
	members := make([][]byte, 0, len(pairs)/2)
	for j := 0; j < len(pairs); j += 2 {
		f, ok := parseFloat(pairs[j])
		if !ok {
			return errNotFloat
		}
		scores = append(scores, f)
		members = append(members, pairs[j+1])
	}
	return k.do(client.ZAdd(k.args[1], scores, members, o), nil)
}

// buildZRank: ZRANK key member [WITHSCORE].
func buildZRank(k *call, reverse bool) error {
	if len(k.args) > 4 || len(k.args) == 4 && !fold(k.args[3], "withscore") {
		return errSyntax
	}
	k.flag = len(k.args) == 4
	return k.do(client.ZRank(k.args[1], k.args[2], reverse), func(w *writer, k *call) {
		switch items := k.result().Items; {
		case len(items) < 2 && k.flag:
			w.nullArray()
		case len(items) < 2:
			w.null()
		case k.flag:
			w.array(2)
			w.int(items[0].Int)
			w.double(items[1].Double)
		default:
			w.int(items[0].Int)
		}
	})
}

// spanForm reads the two arguments that bound a part of a sorted set.
type spanForm func(min, max []byte) (client.ZSpan, error)

func rankSpan(start, stop []byte) (client.ZSpan, error) {
	from, ok1 := parseInt(start)
	to, ok2 := parseInt(stop)
	if !ok1 || !ok2 {
		return client.ZSpan{}, errNotInteger
	}
	return client.ByRank(from, to), nil
}

func scoreSpan(low, high []byte) (client.ZSpan, error) {
	lo, loOpen, ok1 := scoreBound(low)
	hi, hiOpen, ok2 := scoreBound(high)
	if !ok1 || !ok2 {
		return client.ZSpan{}, replyError("ERR min or max is not a float")
	}
	return client.ByScore(lo, hi, loOpen, hiOpen), nil
}

func scoreBound(a []byte) (f float64, open, ok bool) {
	if len(a) > 0 && a[0] == '(' {
		a, open = a[1:], true
	}
	f, ok = parseFloat(a)
	return f, open, ok
}

func lexSpan(low, high []byte) (client.ZSpan, error) {
	if !lexBound(low) || !lexBound(high) {
		return client.ZSpan{}, replyError("ERR min or max not valid string range item")
	}
	return client.ByLex(low, high), nil
}

func lexBound(a []byte) bool {
	return len(a) > 0 && (a[0] == '(' || a[0] == '[' || len(a) == 1 && (a[0] == '-' || a[0] == '+'))
}

// zrangeForm is what a command of the ZRANGE kind fixes.
type zrangeForm struct {
	general bool // ZRANGE itself: its options say the rest
	span    spanForm
	byRank  bool
	lex     bool
	reverse bool
}

// buildZRange: the ZRANGE kind, key low high and options; with reverse, unless
// the range is of ranks, high comes first.
func buildZRange(k *call, z zrangeForm) error {
	limited := false
	var offset, count int64
	for i := 4; i < len(k.args); i++ {
		a := k.args[i]
		switch {
		case fold(a, "withscores"):
			k.flag = true
		case fold(a, "limit") && i+2 < len(k.args):
			var ok1, ok2 bool
			offset, ok1 = parseInt(k.args[i+1])
			count, ok2 = parseInt(k.args[i+2])
			if !ok1 || !ok2 {
				return errNotInteger
			}
			limited = true
			i += 2
		case fold(a, "rev") && z.general:
			z.reverse = true
		case fold(a, "byscore") && z.general:
			z.span, z.byRank, z.lex = scoreSpan, false, false
		case fold(a, "bylex") && z.general:
			z.span, z.byRank, z.lex = lexSpan, false, true
		default:
			return errSyntax
		}
	}
	if limited && z.byRank {
		return replyError("ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX")
	}
	if z.lex && k.flag {
		return replyError("ERR syntax error, WITHSCORES not supported in combination with BYLEX")
	}
	low, high := k.args[2], k.args[3]
	if z.reverse && !z.byRank {
		low, high = high, low
	}
	span, err := z.span(low, high)
	if err != nil {
		return err
	}
	span.Reverse = z.reverse
	if limited {
		span.Limit, span.Offset, span.Count = true, offset, count
		if offset < 0 {
			span.Offset, span.Count = 0, 0
		}
	}
	return k.do(client.ZRange(k.args[1], span), replyZRange)
}

// replyZRange renders members, with scores if they were asked for (k.flag).
func replyZRange(w *writer, k *call) {
	if k.flag {
		replyPairs(w, k)
		return
	}
	items := k.result().Items
	w.array(len(items) / 2)
	for i := 0; i+1 < len(items); i += 2 {
		w.bulk(items[i].Bytes)
	}
}

// buildZPop: ZPOPMIN key [count].
func buildZPop(k *call, greatest bool) error {
	if len(k.args) > 3 {
		return errSyntax
	}
	n := int64(1)
	var reply func(*writer, *call)
	if len(k.args) == 3 {
		var err error
		if n, err = positiveCount(k.args[2]); err != nil {
			return err
		}
		reply = replyPairs
	}
	return k.do(client.ZPop(k.args[1], n, greatest), reply)
}
