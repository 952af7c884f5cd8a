package redis

import (
	"fmt"
	"sort"
	"strings"
	"testing"
)

// What real Redis does not have, or answers with a die.
func TestOurOwn(t *testing.T) {
	_, addr := serve(t, newShelf(t, 4), Options{})
	c := newTalk(t, addr)
	for _, x := range [][2]string{
		{"TSADD ts 30 c 10 a 20 b", "+OK\r\n"},
		{"TSADD ts 10 A", "+OK\r\n"},
		{"TSADD ts -5 minus EXPIRE_IN 1000", "+OK\r\n"},
		{"TSADD ts 40 d EXPIRE_AT 4000000000", "+OK\r\n"},
		{"TSADD ts 1 a 2", "-ERR wrong number of arguments for 'tsadd' command\r\n"},
		{"TSADD ts x a", "-ERR value is not an integer or out of range\r\n"},
		{"TSADD ts 1 a EXPIRE_IN 0", "-ERR invalid expire time in 'tsadd' command\r\n"},
		{"TSADD ts 1", "-ERR wrong number of arguments for 'tsadd' command\r\n"},
		{"TSCARD ts", ":5\r\n"},
		{"TSGET ts 10", "$1\r\nA\r\n"},
		{"TSGET ts 11", "$-1\r\n"},
		{"TSGET ts x", "-ERR value is not an integer or out of range\r\n"},
		{"TSRANGEBYTIME ts 10 20", "*4\r\n:10\r\n$1\r\nA\r\n:20\r\n$1\r\nb\r\n"},
		{"TSRANGEBYTIME ts -inf (20", "*4\r\n:-5\r\n$5\r\nminus\r\n:10\r\n$1\r\nA\r\n"},
		{"TSREVRANGEBYTIME ts (20 +inf LIMIT 1", "*2\r\n:40\r\n$1\r\nd\r\n"},
		{"TSREVRANGEBYTIME ts 0 1 LIMIT 0", "-ERR value is out of range, must be positive\r\n"},
		{"TSREVRANGEBYTIME ts 0 1 bogus 1", "-ERR syntax error\r\n"},
		{"TSRANGEBYTIME ts a b", "-ERR min or max is not an integer or out of range\r\n"},
		{"TSLASTN ts 2", "*4\r\n:30\r\n$1\r\nc\r\n:40\r\n$1\r\nd\r\n"},
		{"TSLASTN ts 0", "-ERR value is not an integer or out of range\r\n"},
		{"TSREM ts 10 11", "+OK\r\n"},
		{"TSCARD ts", ":4\r\n"},
		{"TYPE ts", "+tseries\r\n"},
		{"GET ts", "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"},
		{"ZADD z 1 a 2 b", ":2\r\n"},
		{"ZRANK z b WITHSCORE", "*2\r\n:1\r\n$1\r\n2\r\n"},
		{"ZREVRANK z none WITHSCORE", "*-1\r\n"},
		{"ZRANK z b bogus", "-ERR syntax error\r\n"},
		{"ZADD z 3.1 c 1e300 d", ":2\r\n"},
		{"ZRANGE z 2 3 WITHSCORES", "*4\r\n$1\r\nc\r\n$3\r\n3.1\r\n$1\r\nd\r\n$6\r\n1e+300\r\n"},
		{"MSETNX {m}a 1 {m}b 2", ":1\r\n"},
		{"MSETNX {m}b 9 {m}c 9", ":0\r\n"},
		{"MGET {m}a {m}b {m}c", "*3\r\n$1\r\n1\r\n$1\r\n2\r\n$-1\r\n"},
		{"MSETNX a", "-ERR wrong number of arguments for 'msetnx' command\r\n"},
		{"LISTDB", "*1\r\n$1\r\n0\r\n"},
		{"DEBUGSLEEP 1", "+OK\r\n"},
		{"DEBUG SLEEP 0.001", "+OK\r\n"},
		{"OBJECT IDLETIME z", "-ERR the time of last use is not tracked\r\n"},
		{"LATENCY LATEST", "*0\r\n"},
		{"READONLY", "+OK\r\n"}, {"READWRITE", "+OK\r\n"}, {"ASKING", "+OK\r\n"},
		{"HRANDFIELD h -9223372036854775807", "-ERR value is out of range, at most 1048576 elements with repeats are answered at once\r\n"},
	} {
		if got := c.say(t, x[0]); got != x[1] {
			t.Errorf("%s\ngot  %q\nwant %q", x[0], got, x[1])
		}
	}
}

func TestDumpAndRestore(t *testing.T) {
	_, addr := serve(t, newShelf(t, 4), Options{})
	c := newTalk(t, addr)
	c.say(t, "HSET h f1 v1 f2 v2")
	dump := c.say(t, "DUMP h")
	payload := dump[strings.Index(dump, "\n")+1 : len(dump)-2]
	restore := func(options string) string {
		args := append([]string{"RESTORE", "copy", "0", payload}, strings.Fields(options)...)
		raw := fmt.Sprintf("*%d", len(args))
		for _, a := range args {
			raw += fmt.Sprintf("\r\n$%d\r\n%s", len(a), a)
		}
		return c.say(t, raw)
	}
	if got := restore(""); got != "+OK\r\n" {
		t.Fatal(got)
	}
	if got := restore(""); got != "-BUSYKEY Target key name already exists.\r\n" {
		t.Error(got)
	}
	if got := restore("REPLACE IDLETIME 5 FREQ 7"); got != "+OK\r\n" {
		t.Error(got)
	}
	if got := restore("FREQ 256"); got != "-ERR Invalid FREQ value, must be >= 0 and <= 255\r\n" {
		t.Error(got)
	}
	if got := c.say(t, "HMGET copy f1 f2"); got != "*2\r\n$2\r\nv1\r\n$2\r\nv2\r\n" {
		t.Error(got)
	}
}

// Random commands answer members that are there, and scans give all of them.
func TestRandomAndScans(t *testing.T) {
	_, addr := serve(t, newShelf(t, 4), Options{Seed: 9})
	c := newTalk(t, addr)
	var want []string
	for i := range 500 {
		member := fmt.Sprintf("member%03d", i)
		want = append(want, member)
		for _, command := range []string{"SADD s ", "SADD popped ", "ZADD z 1 ", "HSET h "} {
			tail := ""
			if command == "HSET h " {
				tail = " v"
			}
			c.say(t, command+member+tail)
		}
	}
	for _, scan := range []struct{ command, value string }{{"SSCAN s", ""}, {"ZSCAN z", "1"}, {"HSCAN h", "v"}} {
		var got []string
		cursor := "0"
		for {
			words := strings.Fields(strings.ReplaceAll(c.say(t, scan.command+" "+cursor+" COUNT 37"), "$", " $"))
			var values []string
			for i := 0; i+1 < len(words); i++ {
				if words[i][0] == '$' {
					values = append(values, words[i+1])
					i++
				}
			}
			for _, v := range values[1:] {
				if v != scan.value {
					got = append(got, v)
				}
			}
			if cursor = values[0]; cursor == "0" {
				break
			}
		}
		sort.Strings(got)
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("%s gave %d members: %v", scan.command, len(got), got)
		}
	}
	if got := c.say(t, "SRANDMEMBER s 1000"); !strings.HasPrefix(got, "*500\r\n") {
		t.Errorf("SRANDMEMBER: %.30q", got)
	}
	if got := c.say(t, "SRANDMEMBER s -1000"); !strings.HasPrefix(got, "*1000\r\n") {
		t.Errorf("SRANDMEMBER with repeats: %.30q", got)
	}
	for range 5 {
		if got := c.say(t, "SPOP popped 90"); !strings.HasPrefix(got, "*90\r\n") || strings.Count(got, "member") != 90 {
			t.Errorf("SPOP: %.30q", got)
		}
	}
	if got := c.say(t, "SCARD popped"); got != ":50\r\n" {
		t.Error(got)
	}
	if got := c.say(t, "HRANDFIELD h"); !strings.HasPrefix(got, "$9\r\nmember") {
		t.Error(got)
	}
}
