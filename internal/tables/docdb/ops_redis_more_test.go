package docdb

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/wire"
)

// compare runs one operation on both.
func compare(t *testing.T, s *shelf, server *redis, a act) {
	t.Helper()
	got, want := a.shape(ours(s.do(a.op)), server.do(a.command...))
	if got.String() != want.String() {
		t.Fatalf("%.200q\n ours   %.2000s\n theirs %.2000s", a.command, got, want)
	}
}

// TestRedisLarge: collections of thousands, so that ranks are found from both
// ends, counts race, and lists move their shorter side.
func TestRedisLarge(t *testing.T) {
	server, s := startRedis(t), newShelf(t)
	g := gambler{Rand: rand.New(rand.NewPCG(*redisSeed, 11))}
	const n = 3000
	zkey, lkey := []byte("z"), []byte("l")
	var members, values []string
	var at []float64
	for i := range n {
		members = append(members, fmt.Sprintf("member-%d", i))
		values = append(values, fmt.Sprintf("v%d", g.IntN(n/3)))
		at = append(at, float64(g.IntN(n/2)))
	}
	zadd, rpush := []string{"ZADD", "z"}, append([]string{"RPUSH", "l"}, values...)
	for i := range members {
		zadd = append(zadd, float(at[i]), members[i])
	}
	compare(t, s, server, act{client.ZAdd(zkey, at, blobs(members), client.ZAddOptions{}), zadd, same})
	compare(t, s, server, act{client.RPush(lkey, blobs(values)...), rpush, same})
	for i := range 200 {
		m := g.pick(members...)
		rank := func(o, t reply) (reply, reply) { return o.items[0], t }
		compare(t, s, server, act{client.ZRank(zkey, []byte(m), false), []string{"ZRANK", "z", m}, rank})
		compare(t, s, server, act{client.ZRank(zkey, []byte(m), true), []string{"ZREVRANK", "z", m}, rank})
		from := g.Int64N(2*n) - n
		to := from + g.Int64N(30)
		compare(t, s, server, act{client.ZRange(zkey, client.ByRank(from, to)),
			[]string{"ZRANGE", "z", number(from), number(to), "WITHSCORES"}, scores})
		lo, hi := float64(g.IntN(n/2)), float64(g.IntN(n/2))
		compare(t, s, server, act{client.ZCount(zkey, client.ByScore(lo, hi, true, false)),
			[]string{"ZCOUNT", "z", "(" + float(lo), float(hi)}, same})
		if i%10 > 0 {
			continue
		}
		v, at := g.pick(values...), g.Int64N(n)
		compare(t, s, server, act{client.LInsert(lkey, g.coin(), []byte(v), []byte("in")), nil, nil}.insert(v))
		count := g.Int64N(5) - 2
		compare(t, s, server, act{client.LRem(lkey, count, []byte(v)), []string{"LREM", "l", number(count), v}, same})
		compare(t, s, server, act{client.LPos(lkey, []byte(v), -2, 3, 0),
			[]string{"LPOS", "l", v, "RANK", "-2", "COUNT", "3"}, same})
		compare(t, s, server, act{client.LIndex(lkey, at), []string{"LINDEX", "l", number(at)}, same})
	}
	compare(t, s, server, act{client.LRange(lkey, 0, -1), []string{"LRANGE", "l", "0", "-1"}, same})
	compare(t, s, server, act{client.LTrim(lkey, 1000, 1010), []string{"LTRIM", "l", "1000", "1010"}, same})
	compare(t, s, server, act{client.RPush(lkey, []byte("end")), []string{"RPUSH", "l", "end"}, same})
	compare(t, s, server, act{client.LRange(lkey, 0, -1), []string{"LRANGE", "l", "0", "-1"}, same})
	compare(t, s, server, act{client.ZRemRange(zkey, client.ByRank(10, -11)), []string{"ZREMRANGEBYRANK", "z", "10", "-11"}, same})
	compare(t, s, server, act{client.ZRange(zkey, client.ByRank(0, -1)), []string{"ZRANGE", "z", "0", "-1", "WITHSCORES"}, scores})
}

// insert makes the command of an LInsert out of its operation.
func (a act) insert(pivot string) act {
	side := "AFTER"
	if a.op.Flags&wire.FlagBefore != 0 {
		side = "BEFORE"
	}
	return act{a.op, []string{"LINSERT", "l", side, pivot, "in"}, same}
}

// TestRedisFloats: INCRBYFLOAT prints digit for digit what C's long double gives.
func TestRedisFloats(t *testing.T) {
	server, s := startRedis(t), newShelf(t)
	g := gambler{Rand: rand.New(rand.NewPCG(*redisSeed, 13))}
	digits := func(n int) string {
		b := make([]byte, 1+g.IntN(n))
		for i := range b {
			b[i] = byte('0' + g.IntN(10))
		}
		return string(b)
	}
	text := func() string {
		v := g.pick("", "-", "+", "") + g.pick(digits(20), digits(3), "0x"+digits(4), "", "inf", "1"+digits(25))
		if g.coin() {
			v += "." + digits(22)
		}
		if g.one(3) {
			v += g.pick("e", "E", "p") + g.pick("", "-", "+") + digits(2)
		}
		if g.one(10) {
			v += g.pick("e5000", "e-5000", "e4900", "e4932", "e-4950", " ", "x", "e", "_1", "e99999999999999999999")
		}
		return v
	}
	for range 800 {
		k, v := g.pick("a", "b", "c"), text()
		if g.one(4) {
			compare(t, s, server, act{client.Set([]byte(k), []byte(v), client.SetOptions{}), []string{"SET", k, v}, same})
			v = text()
		}
		compare(t, s, server, act{client.IncrByFloat([]byte(k), []byte(v)), []string{"INCRBYFLOAT", k, v}, same})
		compare(t, s, server, act{client.HIncrByFloat([]byte("h"), []byte(k), []byte(v)), []string{"HINCRBYFLOAT", "h", k, v}, same})
	}
}

// TestRedisGlob: SCAN's patterns match what KEYS's match.
func TestRedisGlob(t *testing.T) {
	server, s := startRedis(t), newShelf(t)
	g := gambler{Rand: rand.New(rand.NewPCG(*redisSeed, 17))}
	for range 300 {
		k := make([]byte, 1+g.IntN(5)) // of the empty key Redis says that "**" does not match it
		for i := range k {
			k[i] = g.pick("a", "b", "c", "[", "]", "-", "^", "*", "?", "\\")[0]
		}
		compare(t, s, server, act{client.Set(k, nil, client.SetOptions{}), []string{"SET", string(k), ""}, same})
	}
	for range 600 {
		var p strings.Builder
		for range 1 + g.IntN(7) {
			p.WriteString(g.pick("a", "b", "*", "?", "[ab]", "[^a]", "[a-c]", "[c-a]", "\\", "[", "]", "[a", "[^", "\\*", "[\\]]", "-", "[]", "[^]", "[a-", "**"))
		}
		theirs := server.do("KEYS", p.String()).sorted(1)
		mine := ours(s.do(client.ScanKeys(0, client.ScanOptions{Count: 1000, Match: []byte(p.String())})))
		mine.items = mine.items[1:]
		if got, want := mine.sorted(1).String(), theirs.String(); got != want {
			t.Fatalf("pattern %q\n ours   %s\n theirs %s", p.String(), got, want)
		}
	}
}

// TestRedisEncoding: OBJECT ENCODING names what Redis has for a document that was
// written in one go.
func TestRedisEncoding(t *testing.T) {
	server, s := startRedis(t), newShelf(t)
	long, number := strings.Repeat("x", 65), func(n int) (l []string) {
		for i := range n {
			l = append(l, fmt.Sprint(i))
		}
		return l
	}
	pairs := func(n int) (l []string) {
		for i := range n {
			l = append(l, fmt.Sprint(i), "v")
		}
		return l
	}
	for i, c := range []struct {
		cmd  string
		args []string
	}{
		{"SET", []string{"12"}}, {"SET", []string{"-9223372036854775808"}}, {"SET", []string{"9223372036854775808"}},
		{"SET", []string{strings.Repeat("x", 44)}}, {"SET", []string{strings.Repeat("x", 45)}}, {"SET", []string{""}},
		{"RPUSH", []string{"a"}},
		{"HSET", []string{"a", "b"}}, {"HSET", []string{"a", long}}, {"HSET", []string{long, "a"}}, {"HSET", pairs(512)}, {"HSET", pairs(513)},
		{"SADD", number(512)}, {"SADD", number(513)}, {"SADD", []string{"a"}}, {"SADD", []string{"1", "01"}},
		{"ZADD", []string{"1", "a"}}, {"ZADD", []string{"1", long}}, {"ZADD", []string{"1", long[1:]}},
	} {
		k := fmt.Sprint("k", i)
		b := []byte(k)
		var op *wire.Op
		switch c.cmd {
		case "SET":
			op = client.Set(b, []byte(c.args[0]), client.SetOptions{})
		case "RPUSH":
			op = client.RPush(b, blobs(c.args)...)
		case "HSET":
			op = client.HSet(b, blobs(c.args)...)
		case "SADD":
			op = client.SAdd(b, blobs(c.args)...)
		case "ZADD":
			op = client.ZAdd(b, []float64{1}, blobs(c.args[1:]), client.ZAddOptions{})
		}
		compare(t, s, server, act{op, slices.Concat([]string{c.cmd, k}, c.args), same})
		compare(t, s, server, act{client.Object(b), []string{"OBJECT", "ENCODING", k}, same})
	}
}
