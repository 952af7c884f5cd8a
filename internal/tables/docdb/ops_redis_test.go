package docdb

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/wire"
)

// The differential test: random operations run here and, as commands, on the
// reference implementation; every answer, error text included, must be the same.

var (
	redisSeed  = flag.Uint64("redis.seed", 1, "seed of the differential test")
	redisSteps = flag.Int("redis.steps", 8000, "operations of the differential test")
)

// act is one operation and its command.
type act struct {
	op      *wire.Op
	command []string
	shape   func(ours, theirs reply) (reply, reply) // brings both to one form
}

func same(o, t reply) (reply, reply)      { return o, t }
func unordered(o, t reply) (reply, reply) { return o.sorted(1), t.sorted(1) }
func pairs(o, t reply) (reply, reply)     { return o.sorted(2), t.sorted(2) }
func scores(o, t reply) (reply, reply)    { return o, t.scored() }
func doubles(o, t reply) (reply, reply) {
	for i := range t.items {
		t.items[i] = t.items[i].double()
	}
	return o, t.double()
}

// okIsOne: we answer how many, Redis OK.
func okIsOne(o, t reply) (reply, reply) {
	if o.kind == ':' && o.num == 1 {
		o = reply{kind: '$', text: "OK"}
	}
	return o, t
}

// gambler rolls operations. Most keys are of the family that operates on them,
// the others are of any.
type gambler struct {
	*rand.Rand
	family string
}

func (g gambler) pick(list ...string) string { return list[g.IntN(len(list))] }
func (g gambler) key() string {
	if g.IntN(5) > 0 {
		return g.family + g.pick("1", "2", "3")
	}
	return g.pick("a", "b", "c", "d")
}
func (g gambler) lexKey() string { return g.pick("lex1", "lex2") }

func (g gambler) value() string {
	return g.pick("", "x", "hello world", "10", "-5", "0", "007", "3.5", "-0.25", "1e3", "9223372036854775807",
		"nan", "inf", " 1", "a\x00b", "\x00", "\xff\xfe", "99999999999999999999", "0.1", "abc", "12")
}

// member is one of few, so that operations meet.
func (g gambler) member() string {
	if g.IntN(8) == 0 {
		return g.pick("", "\x00", "\x00\x00", "\xff", "a\x00", "0")
	}
	return "m" + strconv.Itoa(g.IntN(12))
}

func (g gambler) members(n int) []string {
	m := make([]string, 1+g.IntN(n))
	for i := range m {
		m[i] = g.member()
	}
	return m
}

func (g gambler) values(n int) []string {
	v := make([]string, 1+g.IntN(n))
	for i := range v {
		v[i] = g.pick("x", "y", "z", "w", "", "\x00")
	}
	return v
}

func (g gambler) index() int64 { return g.Int64N(21) - 10 }

func (g gambler) score() float64 {
	switch g.IntN(12) {
	case 0:
		return math.Inf(1)
	case 1:
		return math.Inf(-1)
	case 2:
		return math.Copysign(0, -1)
	case 3:
		return g.NormFloat64() * 1e10
	}
	return float64(g.IntN(13)-6) / 2
}

func (g gambler) coin() bool     { return g.IntN(2) == 0 }
func (g gambler) one(n int) bool { return g.IntN(n) == 0 }

func number(n int64) string  { return strconv.FormatInt(n, 10) }
func float(f float64) string { return strconv.FormatFloat(f, 'g', 17, 64) }

func command(head ...string) func(tail ...string) []string {
	return func(tail ...string) []string { return append(append([]string(nil), head...), tail...) }
}

func blobs(list []string) [][]byte {
	b := make([][]byte, len(list))
	for i, s := range list {
		b[i] = []byte(s)
	}
	return b
}

func (g gambler) roll() act {
	switch n := g.IntN(100); {
	case n < 10:
		g.family = g.pick("string", "hash", "set", "zset", "list")
		return g.keyAct()
	case n < 30:
		g.family = "string"
		return g.stringAct()
	case n < 45:
		g.family = "hash"
		return g.hashAct()
	case n < 57:
		g.family = "set"
		return g.setAct()
	case n < 80:
		g.family = "zset"
		return g.zsetAct()
	}
	g.family = "list"
	return g.listAct()
}

func (g gambler) keyAct() act {
	k := g.key()
	b := []byte(k)
	switch g.IntN(9) {
	case 0:
		return act{client.Delete(b), []string{"DEL", k}, same}
	case 1:
		return act{client.Exists(b), []string{"EXISTS", k}, same}
	case 2:
		return act{client.Type(b), []string{"TYPE", k}, same}
	case 3:
		return act{client.Persist(b), []string{"PERSIST", k}, same}
	case 4:
		return act{client.ExpireTime(b), []string{"PEXPIRETIME", k}, same}
	case 5, 6:
		return g.expireAct(k)
	case 7:
		d := g.key()
		if g.coin() {
			return act{client.Rename(b, []byte(d), false), []string{"RENAME", k, d}, okIsOne}
		}
		return act{client.Rename(b, []byte(d), true), []string{"RENAMENX", k, d}, same}
	}
	d := g.key()
	for d == k {
		d = g.key() // of one key the front end says "source and destination objects are the same"
	}
	if g.coin() {
		return act{client.Copy(b, []byte(d), true), []string{"COPY", k, d, "REPLACE"}, same}
	}
	return act{client.Copy(b, []byte(d), false), []string{"COPY", k, d}, same}
}

func (g gambler) expireAct(k string) act {
	at := farAhead + g.Int64N(4)
	if g.one(12) {
		at = longAgo
	}
	cmd := []string{"PEXPIREAT", k, number(at)}
	var o client.ExpireOptions
	add := func(flag *bool, word string) {
		if g.one(4) {
			*flag = true
			cmd = append(cmd, word)
		}
	}
	add(&o.NX, "NX")
	add(&o.XX, "XX")
	add(&o.GT, "GT")
	add(&o.LT, "LT")
	return act{client.ExpireAt([]byte(k), at, o), cmd, same}
}

func (g gambler) stringAct() act {
	k, v := g.key(), g.value()
	b, vb := []byte(k), []byte(v)
	switch g.IntN(14) {
	case 0, 1, 2:
		return g.setStringAct(k, v)
	case 3:
		return act{client.Get(b), []string{"GET", k}, same}
	case 4:
		return act{client.GetDel(b), []string{"GETDEL", k}, same}
	case 5:
		switch g.IntN(4) {
		case 0:
			return act{client.GetEx(b, client.GetExOptions{Persist: true}), []string{"GETEX", k, "PERSIST"}, same}
		case 1:
			return act{client.GetEx(b, client.GetExOptions{ExpireAtMs: longAgo}), []string{"GETEX", k, "PXAT", number(longAgo)}, same}
		case 2:
			return act{client.GetEx(b, client.GetExOptions{ExpireAtMs: farAhead}), []string{"GETEX", k, "PXAT", number(farAhead)}, same}
		}
		return act{client.GetEx(b, client.GetExOptions{}), []string{"GETEX", k}, same}
	case 6:
		at := []int64{0, 1, 5, 20, -1, 600 << 20, math.MaxInt64}[g.IntN(7)]
		return act{client.SetRange(b, at, vb), []string{"SETRANGE", k, number(at), v}, same}
	case 7:
		return act{client.Append(b, vb), []string{"APPEND", k, v}, same}
	case 8, 9:
		by := []int64{1, -1, 100, math.MaxInt64, math.MinInt64, 0}[g.IntN(6)]
		return act{client.IncrBy(b, by), []string{"INCRBY", k, number(by)}, same}
	case 10:
		return act{client.IncrByFloat(b, vb), []string{"INCRBYFLOAT", k, v}, same}
	case 11:
		at, bit := []int64{0, 7, 8, 100, -1, 1 << 40}[g.IntN(6)], g.Int64N(2)
		if g.coin() {
			return act{client.GetBit(b, at), []string{"GETBIT", k, number(at)}, same}
		}
		return act{client.SetBit(b, at, bit), []string{"SETBIT", k, number(at), number(bit)}, same}
	case 12:
		return act{client.StrLen(b), []string{"STRLEN", k}, same}
	}
	from, to := g.index(), g.index()
	return act{client.GetRange(b, from, to), []string{"GETRANGE", k, number(from), number(to)}, same}
}

func (g gambler) setStringAct(k, v string) act {
	cmd := []string{"SET", k, v}
	var o client.SetOptions
	switch g.IntN(5) {
	case 0:
		o.NX, cmd = true, append(cmd, "NX")
	case 1:
		o.XX, cmd = true, append(cmd, "XX")
	}
	if g.one(3) {
		o.Get, cmd = true, append(cmd, "GET")
	}
	switch g.IntN(6) {
	case 0:
		o.KeepTTL, cmd = true, append(cmd, "KEEPTTL")
	case 1:
		o.ExpireAtMs, cmd = farAhead, append(cmd, "PXAT", number(farAhead))
	case 2:
		if g.one(3) {
			o.ExpireAtMs, cmd = longAgo, append(cmd, "PXAT", number(longAgo))
		}
	}
	return act{client.Set([]byte(k), []byte(v), o), cmd, same}
}

func (g gambler) hashAct() act {
	k, f, v := g.key(), g.member(), g.value()
	b, fb, vb := []byte(k), []byte(f), []byte(v)
	switch g.IntN(14) {
	case 0, 1, 2:
		var list []string
		for _, f := range g.members(5) {
			list = append(list, f, g.value())
		}
		return act{client.HSet(b, blobs(list)...), command("HSET", k)(list...), same}
	case 3:
		return act{client.HSetNX(b, fb, vb), []string{"HSETNX", k, f, v}, same}
	case 4:
		list := g.members(4)
		return act{client.HDel(b, blobs(list)...), command("HDEL", k)(list...), same}
	case 5:
		by := []int64{1, -7, math.MaxInt64, math.MinInt64}[g.IntN(4)]
		return act{client.HIncrBy(b, fb, by), []string{"HINCRBY", k, f, number(by)}, same}
	case 6:
		return act{client.HIncrByFloat(b, fb, vb), []string{"HINCRBYFLOAT", k, f, v}, same}
	case 7:
		return act{client.HGet(b, fb), []string{"HGET", k, f}, same}
	case 8:
		list := g.members(5)
		return act{client.HMGet(b, blobs(list)...), command("HMGET", k)(list...), same}
	case 9:
		return act{client.HGetAll(b), []string{"HGETALL", k}, pairs}
	case 10:
		return act{client.HKeys(b), []string{"HKEYS", k}, unordered}
	case 11:
		return act{client.HVals(b), []string{"HVALS", k}, unordered}
	case 12:
		return act{client.HLen(b), []string{"HLEN", k}, same}
	}
	if g.coin() {
		return act{client.HExists(b, fb), []string{"HEXISTS", k, f}, same}
	}
	return act{client.HStrLen(b, fb), []string{"HSTRLEN", k, f}, same}
}

func (g gambler) setAct() act {
	k, list := g.key(), g.members(6)
	b := []byte(k)
	switch g.IntN(8) {
	case 0, 1, 2:
		return act{client.SAdd(b, blobs(list)...), command("SADD", k)(list...), same}
	case 3, 4:
		return act{client.SRem(b, blobs(list)...), command("SREM", k)(list...), same}
	case 5:
		return act{client.SMembers(b), []string{"SMEMBERS", k}, unordered}
	case 6:
		return act{client.SMIsMember(b, blobs(list)...), command("SMISMEMBER", k)(list...), same}
	}
	if g.coin() {
		return act{client.SIsMember(b, []byte(list[0])), []string{"SISMEMBER", k, list[0]}, same}
	}
	return act{client.SCard(b), []string{"SCARD", k}, same}
}

func (g gambler) zsetAct() act {
	k, list := g.key(), g.members(5)
	b, m := []byte(k), []byte(list[0])
	switch g.IntN(16) {
	case 0, 1, 2, 3:
		return g.zaddAct(k, list)
	case 4:
		return act{client.ZRem(b, blobs(list)...), command("ZREM", k)(list...), same}
	case 5:
		return act{client.ZScore(b, m), []string{"ZSCORE", k, list[0]}, doubles}
	case 6:
		return act{client.ZMScore(b, blobs(list)...), command("ZMSCORE", k)(list...), doubles}
	case 7:
		return act{client.ZCard(b), []string{"ZCARD", k}, same}
	case 8:
		// The score comes with the rank: Redis 7.0 gives the rank alone.
		rank := func(o, t reply) (reply, reply) {
			if o.kind == '*' {
				o = o.items[0]
			}
			return o, t
		}
		if g.coin() {
			return act{client.ZRank(b, m, true), []string{"ZREVRANK", k, list[0]}, rank}
		}
		return act{client.ZRank(b, m, false), []string{"ZRANK", k, list[0]}, rank}
	case 9:
		n := g.Int64N(4)
		if g.coin() {
			return act{client.ZPop(b, n, true), []string{"ZPOPMAX", k, number(n)}, scores}
		}
		return act{client.ZPop(b, n, false), []string{"ZPOPMIN", k, number(n)}, scores}
	case 10, 11:
		return g.lexAct()
	}
	return g.zrangeAct(k)
}

func (g gambler) zaddAct(k string, list []string) act {
	cmd := []string{"ZADD", k}
	var o client.ZAddOptions
	add := func(flag *bool, word string, odds int) {
		if g.one(odds) {
			*flag = true
			cmd = append(cmd, word)
		}
	}
	add(&o.NX, "NX", 6)
	add(&o.XX, "XX", 6)
	add(&o.GT, "GT", 6)
	add(&o.LT, "LT", 6)
	add(&o.CH, "CH", 3)
	add(&o.Incr, "INCR", 4)
	if o.Incr && !g.one(10) {
		list = list[:1]
	}
	var f []float64
	for _, m := range list {
		s := g.score()
		f = append(f, s)
		cmd = append(cmd, float(s), m)
	}
	shape := same
	if o.Incr {
		shape = doubles
	}
	return act{client.ZAdd([]byte(k), f, blobs(list), o), cmd, shape}
}

// zrangeAct reads, counts or removes a range by rank or score.
func (g gambler) zrangeAct(k string) act {
	b := []byte(k)
	if g.one(3) {
		from, to := g.index(), g.index()
		span := client.ByRank(from, to)
		switch g.IntN(3) {
		case 0:
			return act{client.ZRemRange(b, span), []string{"ZREMRANGEBYRANK", k, number(from), number(to)}, same}
		case 1:
			span.Reverse = true
			return act{client.ZRange(b, span), []string{"ZREVRANGE", k, number(from), number(to), "WITHSCORES"}, scores}
		}
		return act{client.ZRange(b, span), []string{"ZRANGE", k, number(from), number(to), "WITHSCORES"}, scores}
	}
	lo, hi := g.score(), g.score()
	loOpen, hiOpen := g.one(3), g.one(3)
	text := func(f float64, open bool) string {
		if open {
			return "(" + float(f)
		}
		return float(f)
	}
	low, high := text(lo, loOpen), text(hi, hiOpen)
	span := client.ByScore(lo, hi, loOpen, hiOpen)
	switch g.IntN(4) {
	case 0:
		return act{client.ZRemRange(b, span), []string{"ZREMRANGEBYSCORE", k, low, high}, same}
	case 1:
		return act{client.ZCount(b, span), []string{"ZCOUNT", k, low, high}, same}
	}
	cmd := []string{"ZRANGEBYSCORE", k, low, high, "WITHSCORES"}
	if g.coin() {
		span.Reverse = true
		cmd = []string{"ZREVRANGEBYSCORE", k, high, low, "WITHSCORES"}
	}
	return act{client.ZRange(b, g.limit(&span, &cmd)), cmd, scores}
}

func (g gambler) limit(span *client.ZSpan, cmd *[]string) client.ZSpan {
	if g.coin() {
		span.Limit, span.Offset, span.Count = true, g.Int64N(5)-1, g.Int64N(6)-1
		*cmd = append(*cmd, "LIMIT", number(span.Offset), number(span.Count))
	}
	return *span
}

// lexAct works on sorted sets whose scores are all zero.
func (g gambler) lexAct() act {
	k, list := g.lexKey(), g.members(5)
	b := []byte(k)
	if g.one(3) {
		cmd := []string{"ZADD", k}
		for _, m := range list {
			cmd = append(cmd, "0", m)
		}
		return act{client.ZAdd(b, make([]float64, len(list)), blobs(list), client.ZAddOptions{}), cmd, same}
	}
	bound := func() string {
		if g.one(10) {
			return g.pick("", "x", "[", "(", "+x", "*")
		}
		return g.pick("-", "+", "[", "(", "[", "(") + ""
	}
	edge := func() string {
		s := bound()
		if (s == "[" || s == "(") && !g.one(10) {
			s += g.member()
		}
		return s
	}
	lo, hi := edge(), edge()
	span := client.ByLex([]byte(lo), []byte(hi))
	// The order of arguments decides which of two bad bounds is met first, and
	// they are bad in the same way: nothing to bring to one form.
	switch g.IntN(4) {
	case 0:
		return act{client.ZRemRange(b, span), []string{"ZREMRANGEBYLEX", k, lo, hi}, same}
	case 1:
		return act{client.ZCount(b, span), []string{"ZLEXCOUNT", k, lo, hi}, same}
	}
	membersOnly := func(o, t reply) (reply, reply) {
		if o.kind == '*' {
			var items []reply
			for i := 0; i < len(o.items); i += 2 {
				items = append(items, o.items[i])
			}
			o.items = items
		}
		return o, t
	}
	cmd := []string{"ZRANGEBYLEX", k, lo, hi}
	if g.coin() {
		span.Reverse = true
		cmd = []string{"ZREVRANGEBYLEX", k, hi, lo}
	}
	return act{client.ZRange(b, g.limit(&span, &cmd)), cmd, membersOnly}
}

func (g gambler) listAct() act {
	k, list := g.key(), g.values(5)
	b, v := []byte(k), []byte(list[0])
	i, j := g.index(), g.index()
	switch g.IntN(16) {
	case 0, 1:
		return act{client.LPush(b, blobs(list)...), command("LPUSH", k)(list...), same}
	case 2, 3, 4:
		return act{client.RPush(b, blobs(list)...), command("RPUSH", k)(list...), same}
	case 5:
		if g.coin() {
			return act{client.LPushX(b, blobs(list)...), command("LPUSHX", k)(list...), same}
		}
		return act{client.RPushX(b, blobs(list)...), command("RPUSHX", k)(list...), same}
	case 6:
		if g.coin() {
			return act{client.LPopOne(b), []string{"LPOP", k}, same}
		}
		return act{client.RPopOne(b), []string{"RPOP", k}, same}
	case 7:
		n := g.Int64N(4)
		if g.coin() {
			return act{client.LPop(b, n), []string{"LPOP", k, number(n)}, same}
		}
		return act{client.RPop(b, n), []string{"RPOP", k, number(n)}, same}
	case 8:
		return act{client.LTrim(b, i, j), []string{"LTRIM", k, number(i), number(j)}, same}
	case 9:
		n := g.Int64N(7) - 3
		return act{client.LRem(b, n, v), []string{"LREM", k, number(n), list[0]}, same}
	case 10:
		return act{client.LSet(b, i, v), []string{"LSET", k, number(i), list[0]}, same}
	case 11:
		w := g.pick("x", "y", "new")
		if g.coin() {
			return act{client.LInsert(b, true, v, []byte(w)), []string{"LINSERT", k, "BEFORE", list[0], w}, same}
		}
		return act{client.LInsert(b, false, v, []byte(w)), []string{"LINSERT", k, "AFTER", list[0], w}, same}
	case 12:
		return act{client.LLen(b), []string{"LLEN", k}, same}
	case 13:
		return act{client.LIndex(b, i), []string{"LINDEX", k, number(i)}, same}
	case 14:
		return g.lposAct(k, list[0])
	}
	return act{client.LRange(b, i, j), []string{"LRANGE", k, number(i), number(j)}, same}
}

func (g gambler) lposAct(k, v string) act {
	cmd := []string{"LPOS", k, v}
	rank, count, most := int64(1), int64(-1), int64(0)
	if g.coin() {
		rank = g.Int64N(7) - 3
		cmd = append(cmd, "RANK", number(rank))
	}
	if g.coin() {
		count = g.Int64N(4)
		cmd = append(cmd, "COUNT", number(count))
	}
	if g.coin() {
		most = g.Int64N(7)
		cmd = append(cmd, "MAXLEN", number(most))
	}
	return act{client.LPos([]byte(k), []byte(v), rank, count, most), cmd, same}
}

// TestRedis runs random operations on both, in batches of one to five, so that
// later operations of a batch read what earlier ones wrote.
func TestRedis(t *testing.T) {
	server, s := startRedis(t), newShelf(t)
	g := gambler{Rand: rand.New(rand.NewPCG(*redisSeed, 7))}
	var log []string
	for step := 0; step < *redisSteps; {
		s.begin()
		for range 1 + g.IntN(5) {
			a := g.roll()
			step++
			log = append(log, fmt.Sprintf("%q", a.command))
			got, want := a.shape(ours(s.run(a.op)), server.do(a.command...))
			if got.String() != want.String() {
				for _, line := range log[max(0, len(log)-30):] {
					t.Log(line)
				}
				t.Fatalf("step %d of seed %d: %q\n ours   %s\n theirs %s", step, *redisSeed, a.command, got, want)
			}
		}
		s.commit()
	}
}
