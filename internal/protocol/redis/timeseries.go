package redis

import (
	"math"

	"github.com/braiddb/braid/client"
)

// Time series, as YugabyteDB's Redis API has them: TSADD TSGET TSREM TSCARD
// TSRANGEBYTIME TSREVRANGEBYTIME TSLASTN.
//
//   - A series maps 64-bit integer timestamps to values; one value a timestamp.
//   - TSADD key ts value [ts value ...] [EXPIRE_IN seconds | EXPIRE_AT unix] -> OK.
//   - Bounds of a range are inclusive, "(" excludes, -inf and +inf are the ends.
//   - A range answers timestamp, value, timestamp, value, ...
func timeSeriesCommands() []*command {
	const g = "timeseries"
	return []*command{
		{name: "tsadd", arity: -4, flags: write | denyoom, keys: oneKey, group: g, since: "1.0.0", summary: "Adds entries to a time series. Creates the key if it doesn't exist.", build: buildTSAdd},
		{name: "tsrem", arity: -3, flags: write, keys: oneKey, group: g, since: "1.0.0", summary: "Removes entries from a time series.", build: buildTSRem},
		{name: "tsget", arity: 3, flags: readonly | fast, keys: oneKey, group: g, since: "1.0.0", summary: "Returns the value of a time series at a timestamp.",
			build: func(k *call) error {
				ts, ok := parseInt(k.args[2])
				if !ok {
					return errNotInteger
				}
				return k.do(client.TSGet(k.args[1], ts), nil)
			}},
		{name: "tscard", arity: 2, flags: readonly, keys: oneKey, group: g, since: "1.0.0", summary: "Returns the number of entries of a time series.",
			build: func(k *call) error { return k.do(client.TSCard(k.args[1]), nil) }},
		{name: "tsrangebytime", arity: 4, flags: readonly, keys: oneKey, group: g, since: "1.0.0", summary: "Returns the entries of a time series within a range of timestamps.",
			build: func(k *call) error { return buildTSRange(k, false) }},
		{name: "tsrevrangebytime", arity: -4, flags: readonly, keys: oneKey, group: g, since: "1.0.0", summary: "Returns the entries of a time series within a range of timestamps, newest first.",
			build: func(k *call) error { return buildTSRange(k, true) }},
		{name: "tslastn", arity: 3, flags: readonly, keys: oneKey, group: g, since: "1.0.0", summary: "Returns the newest entries of a time series.",
			build: func(k *call) error {
				n, ok := parseInt(k.args[2])
				if !ok || n < 1 || n > math.MaxInt32 {
					return errNotInteger
				}
				return k.do(client.TSLastN(k.args[1], n), nil)
			}},
	}
}

func buildTSAdd(k *call) error {
	pairs := k.args[2:]
	var expireAt int64
	if n := len(pairs); n >= 4 {
		in := fold(pairs[n-2], "expire_in")
		if in || fold(pairs[n-2], "expire_at") {
			at, err := k.expiry(pairs[n-1], 1000, in, k.cmd.name)
			if err != nil {
				return err
			}
			expireAt, pairs = at, pairs[:n-2]
		}
	}
	if len(pairs)%2 != 0 {
		return replyError("ERR wrong number of arguments for 'tsadd' command")
	}
	times := make([]int64, 0, len(pairs)/2)
	values := make([][]byte, 0, len(pairs)/2)
	for i := 0; i < len(pairs); i += 2 {
		ts, ok := parseInt(pairs[i])
		if !ok {
			return errNotInteger
		}
		times = append(times, ts)
		values = append(values, pairs[i+1])
	}
	return k.do(client.TSAdd(k.args[1], expireAt, times, values), replyOK)
}

func buildTSRem(k *call) error {
	times := make([]int64, 0, len(k.args)-2)
	for _, a := range k.args[2:] {
		ts, ok := parseInt(a)
		if !ok {
			return errNotInteger
		}
		times = append(times, ts)
	}
	return k.do(client.TSRem(k.args[1], times...), replyOK)
}

// buildTSRange: TSRANGEBYTIME key low high; TSREVRANGEBYTIME also [LIMIT n].
func buildTSRange(k *call, reverse bool) error {
	var span client.TSSpan
	var ok1, ok2 bool
	span.Low, span.LowOpen, ok1 = timeBound(k.args[2])
	span.High, span.HighOpen, ok2 = timeBound(k.args[3])
	if !ok1 || !ok2 {
		return replyError("ERR min or max is not an integer or out of range")
	}
	span.Reverse = reverse
	switch len(k.args) {
	case 4:
	case 6:
		n, ok := parseInt(k.args[5])
		if !fold(k.args[4], "limit") {
			return errSyntax
		}
		if !ok || n < 1 {
			return errNotPositive
		}
		span.Limit = n
	default:
		return errSyntax
	}
	return k.do(client.TSRange(k.args[1], span), nil)
}

func timeBound(a []byte) (ts int64, open, ok bool) {
	if len(a) > 0 && a[0] == '(' {
		a, open = a[1:], true
	}
	switch {
	case fold(a, "-inf"):
		return math.MinInt64, false, true
	case fold(a, "+inf"), fold(a, "inf"):
		return math.MaxInt64, false, true
	}
	ts, ok = parseInt(a)
	return ts, open, ok
}
