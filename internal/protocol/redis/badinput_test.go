package redis

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/braiddb/braid/client"
)

// exchangeRaw gives everything that a server sends in answer to raw bytes and a
// command after them; closed says that the connection ended before the answer to that.
func exchangeRaw(t *testing.T, addr string, raw []byte) (reply string, closed bool) {
	t.Helper()
	c := dial(t, addr)
	const last = "*2\r\n$4\r\nECHO\r\n$8\r\nthe-end!\r\n"
	go func() {
		_, _ = c.Write(append(raw, last...)) // an error shows in what is read
	}()
	var got bytes.Buffer
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(buf)
		got.Write(buf[:n])
		if reply, done := bytes.CutSuffix(got.Bytes(), []byte("$8\r\nthe-end!\r\n")); done {
			return string(reply), false
		}
		if bytes.Count(got.Bytes(), []byte("-NOAUTH Authentication")) == 4 {
			return got.String(), false
		}
		if err != nil {
			if !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset") {
				t.Fatalf("%.40q: after %q: %v", raw, got.String(), err)
			}
			return got.String(), true
		}
	}
}

// Requests on the level of bytes: what Redis answers, and whether it goes on.
func TestRawRequestsAgainstRedis(t *testing.T) {
	real := startRedis(t)
	_, ours := serve(t, newShelf(t, 2), Options{})
	for _, raw := range []string{
		"PING\r\n", "PING\n", "  PING  \r\n", "\r\n\r\nPING\r\n", "*0\r\nPING\r\n", "*-1\r\nPING\r\n",
		"SET k 'a b'\r\nGET k\r\n", "SET k \"a\\x41\\n\\t\\\"b\"\r\nGET k\r\n", "SET k 'it\\'s'\r\nGET k\r\n",
		"SET k \"unbalanced\r\n", "SET k 'unbalanced\r\n", "SET k \"a\"b\r\n", "SET k ''\r\nGET k\r\n",
		"*1\r\n$4\r\nPING\r\n", "*1\r\n$4\r\npInG\r\n", "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\nGET k\r\n",
		"*abc\r\n", "*1x\r\n", "*+1\r\n", "*01\r\n", "*99999999999\r\n", "*9223372036854775808\r\n", "*\r\n", "*-5\r\nPING\r\n",
		"*1\r\nPING\r\n", "*1\r\n:4\r\n", "*1\r\n$abc\r\n", "*1\r\n$-1\r\n", "*1\r\n$-5\r\n", "*1\r\n$\r\n",
		"*1\r\n$+4\r\nPING\r\n", "*1\r\n$04\r\nPING\r\n", "*1\r\n$99999999999\r\n", "*2\r\n$4\r\nECHO\r\n$9223372036854775808\r\n",
		"*1\r\n$0\r\n\r\n",
		"*2\r\n$4\r\nECHO\r\n$3\r\nfoo\r\n*2\r\n$4\r\nECHO\r\n$3\r\nbar\r\n",
		"*3\r\n$6\r\nnosuch\r\n$1\r\na\r\n$3\r\nb\r\n\r\n", "*2\r\n$3\r\n\r\n\x03\r\n$2\r\n\x01\x02\r\n",
		"CLIENT REPLY SKIP\r\nPING\r\nECHO b\r\n", "CLIENT REPLY OFF\r\nPING\r\nCLIENT REPLY ON\r\nECHO c\r\n",
		"MULTI\r\nPING\r\nEXEC\r\nQUIT\r\nPING\r\n", "POST / HTTP/1.1\r\nHost: x\r\n\r\n",
		"HELLO 3\r\nGET none\r\nHGETALL none\r\nLPOP none 2\r\n",
	} {
		name := fmt.Sprintf("%.40q", raw)
		wantReply, wantClosed := exchangeRaw(t, real, []byte(raw))
		gotReply, gotClosed := exchangeRaw(t, ours, []byte(raw))
		if raw == "HELLO 3\r\nGET none\r\nHGETALL none\r\nLPOP none 2\r\n" {
			// The reply of HELLO itself differs.
			_, wantReply, _ = strings.Cut(wantReply, "modules")
			_, gotReply, _ = strings.Cut(gotReply, "modules")
		}
		if gotReply != wantReply || gotClosed != wantClosed {
			t.Errorf("%s\nredis: %q closed %v\nours:  %q closed %v", name, wantReply, wantClosed, gotReply, gotClosed)
		}
	}
}

// Bad input of every kind: what is answered, and whether the connection lives.
// Nothing of it may trouble the client beside.
func TestBadInput(t *testing.T) {
	const small = 1 << 10
	server, addr := serve(t, newShelf(t, 2), Options{ValueBytesMax: small, QueryBytesMax: 2 * small, KeysMax: 2, Password: "secret"})
	beside := newTalk(t, addr)
	if got := beside.say(t, "AUTH secret"); got != "+OK\r\n" {
		t.Fatal(got)
	}
	if got := beside.say(t, "MSET a 1 b 2 c 3"); got != "+OK\r\n" {
		t.Fatal(got)
	}
	const auth = "AUTH secret\r\n"
	bulk := func(args ...string) string {
		s := fmt.Sprintf("*%d\r\n", len(args))
		for _, a := range args {
			s += fmt.Sprintf("$%d\r\n%s\r\n", len(a), a)
		}
		return s
	}
	for _, c := range []struct {
		name, raw, reply string
		closed           bool
	}{
		{"value beyond the limit", auth + bulk("SET", "k", strings.Repeat("x", small+1)) + "PING\r\n", "+OK\r\n-" + string(errTooBigQuery) + "\r\n+PONG\r\n", false},
		{"query beyond the limit", auth + bulk("MSET", "k", strings.Repeat("x", small), "l", strings.Repeat("x", small)) + "PING\r\n", "+OK\r\n-" + string(errTooBigQuery) + "\r\n+PONG\r\n", false},
		{"value at the limit", auth + bulk("SET", "k", strings.Repeat("x", small)), "+OK\r\n+OK\r\n", false},
		{"value that is not even skipped", auth + "*2\r\n$3\r\nGET\r\n$999999999\r\n", "+OK\r\n-ERR Protocol error: invalid bulk length\r\n", true},
		{"too many arguments", auth + "*1048577\r\n", "+OK\r\n-ERR Protocol error: invalid multibulk length\r\n", true},
		{"no line end after an argument", auth + "*1\r\n$4\r\nPINGxx", "+OK\r\n-ERR Protocol error: expected CRLF after an argument\r\n", true},
		{"endless count", "*" + strings.Repeat("1", 70000), "-ERR Protocol error: too big mbulk count string\r\n", true},
		{"endless length", "*1\r\n$" + strings.Repeat("1", 70000), "-ERR Protocol error: too big bulk count string\r\n", true},
		{"endless line", strings.Repeat("a", 70000), "-ERR Protocol error: too big inline request\r\n", true},
		{"not authenticated", "GET a\r\nSET a 1\r\nKEYS *\r\n", strings.Repeat("-NOAUTH Authentication required.\r\n", 4), false},
		{"unauthenticated array", "*11\r\n", "-ERR Protocol error: unauthenticated multibulk length\r\n", true},
		{"unauthenticated value", "*2\r\n$4\r\nAUTH\r\n$16385\r\n", "-ERR Protocol error: unauthenticated bulk length\r\n", true},
		{"wrong password", "AUTH wrong\r\nAUTH default wrong\r\nAUTH other secret\r\n" + auth, strings.Repeat("-"+string(errWrongPass)+"\r\n", 3) + "+OK\r\n", false},
		{"wrong password in HELLO", "HELLO 3 AUTH default wrong\r\nHELLO 3\r\n" + auth, "-" + string(errWrongPass) + "\r\n-NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time\r\n+OK\r\n", false},
		{"KEYS beyond the limit", auth + "KEYS *\r\n", "+OK\r\n-ERR more than 2 keys match, use SCAN\r\n", false},
		{"string grown beyond the limit", auth + "SETRANGE k 1024 x\r\nSETBIT k 8192 1\r\n", "+OK\r\n-" + string(errTooLong) + "\r\n-ERR bit offset is not an integer or out of range\r\n", false},
		{"transaction beyond the limit", auth + "MULTI\r\n" + strings.Repeat(bulk("SET", "k", strings.Repeat("x", small-100)), 3) + "EXEC\r\n",
			"+OK\r\n+OK\r\n+QUEUED\r\n-ERR transaction exceeds the limits: 10000 commands, and the bytes of a query\r\n-ERR transaction exceeds the limits: 10000 commands, and the bytes of a query\r\n-" + string(errExecAbort) + "\r\n", false},
		{"transaction over two slots", auth + "MULTI\r\nSET a 1\r\nSET b 1\r\nEXEC\r\n", "+OK\r\n+OK\r\n+QUEUED\r\n-" + string(errCrossSlot) + "\r\n-" + string(errExecAbort) + "\r\n", false},
		{"command over two slots in a transaction", auth + "MULTI\r\nMGET a b\r\nDISCARD\r\n", "+OK\r\n+OK\r\n-" + string(errCrossSlot) + "\r\n+OK\r\n", false},
		{"watch over two slots", auth + "WATCH a b\r\nWATCH a\r\nWATCH b\r\n", "+OK\r\n-" + string(errCrossSlot) + "\r\n+OK\r\n-" + string(errCrossSlot) + "\r\n", false},
		{"MSETNX over two slots", auth + "MSETNX a 1 b 1\r\n", "+OK\r\n-" + string(errCrossSlot) + "\r\n", false},
		{"the whole key space in a transaction", auth + "MULTI\r\nKEYS *\r\nFLUSHALL\r\nEXEC\r\n", "+OK\r\n+OK\r\n" + strings.Repeat("-ERR Command not allowed inside a transaction\r\n", 2) + "-" + string(errExecAbort) + "\r\n", false},
		{"what is not supported", auth + "SUBSCRIBE c\r\nBLPOP l 0\r\nXADD s * f v\r\nEVAL x 0\r\nCLIENT TRACKING ON\r\nCLIENT PAUSE 100\r\nSELECT 1\r\nCREATEDB x\r\n",
			"+OK\r\n-ERR unknown command 'SUBSCRIBE', with args beginning with: 'c' \r\n-ERR unknown command 'BLPOP', with args beginning with: 'l' '0' \r\n" +
				"-ERR unknown command 'XADD', with args beginning with: 's' '*' 'f' 'v' \r\n-ERR unknown command 'EVAL', with args beginning with: 'x' '0' \r\n" +
				"-ERR client-side caching is not supported: keys may change at other nodes\r\n-ERR CLIENT PAUSE is not supported: one node cannot pause a cluster\r\n" +
				"-ERR DB index is out of range\r\n-ERR only database 0 exists; others cannot be created\r\n", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			reply, closed := exchangeRaw(t, addr, []byte(c.raw))
			if reply != c.reply {
				t.Errorf("got  %q\nwant %q", reply, c.reply)
			}
			if closed != c.closed {
				t.Errorf("closed %v", closed)
			}
			if got := beside.say(t, "GET c"); got != "$1\r\n3\r\n" {
				t.Errorf("the client beside got %q", got)
			}
		})
	}
	for end := time.Now().Add(10 * time.Second); server.buffers.Load() != 0; { // a client hears of its end before the server is done with it
		if time.Now().After(end) {
			t.Fatalf("%d bytes of input buffers are still charged", server.buffers.Load())
		}
		<-time.After(time.Millisecond)
	}
}

func TestTooManyClients(t *testing.T) {
	server, addr := serve(t, newShelf(t, 1), Options{MaxClients: 2})
	a, b := newTalk(t, addr), newTalk(t, addr)
	a.say(t, "PING")
	b.say(t, "PING")
	c := dial(t, addr)
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil || line != "-ERR max number of clients reached\r\n" {
		t.Fatalf("%q, %v", line, err)
	}
	if got := a.say(t, "CONFIG SET maxclients 3"); got != "+OK\r\n" {
		t.Fatal(got)
	}
	newTalk(t, addr).say(t, "PING")
	if server.metrics.Rejected.Load() != 1 {
		t.Error("the refused connection was not counted")
	}
}

// A client that sends without reading is disconnected, and costs no more than
// the limit; one that merely reads late gets everything.
func TestSlowReader(t *testing.T) {
	server, addr := serve(t, newShelf(t, 1), Options{OutputBytesMax: 1 << 20})
	value := strings.Repeat("v", 64<<10)
	if got := newTalk(t, addr).say(t, "SET k "+value[:60<<10]); got != "+OK\r\n" {
		t.Fatal(got)
	}
	late := newTalk(t, addr)
	if _, err := io.WriteString(late.c, strings.Repeat("GET k\r\n", 15)); err != nil {
		t.Fatal(err)
	}
	for range 15 {
		if r, err := readReply(late.r); err != nil || len(r) < 60<<10 {
			t.Fatalf("%d bytes, %v", len(r), err)
		}
	}
	c := dial(t, addr)
	var err error
	for err == nil {
		_, err = io.WriteString(c, strings.Repeat("GET k\r\n", 100))
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a client could ask for ever without reading")
	}
	for deadline := time.Now().Add(5 * time.Second); server.metrics.SlowReaders.Load() == 0; {
		if time.Now().After(deadline) {
			t.Fatal("the slow reader was not counted")
		}
		<-time.After(time.Millisecond)
	}
}

// Errors of the cluster, and the one table that turns them into lines.
func TestErrorsOfTheCluster(t *testing.T) {
	table := newShelf(t, 2)
	_, addr := serve(t, table, Options{})
	c := newTalk(t, addr)
	for _, e := range []struct {
		err    error
		prefix string
	}{
		{client.ErrUnavailable, "-TRYAGAIN "}, {client.ErrTimeout, "-TRYAGAIN "}, {client.ErrOverloaded, "-TRYAGAIN "},
		{client.ErrCanceled, "-TRYAGAIN "}, {client.ErrSnapshotTooOld, "-TRYAGAIN "}, {client.ErrDiskFull, "-MISCONF "},
		{client.ErrUnknownOutcome, "-UNKNOWNOUTCOME "}, {client.ErrRequestExpired, "-UNKNOWNOUTCOME "},
		{client.ErrTooLarge, "-ERR string exceeds"}, {client.ErrInvalid, "-ERR "}, {errors.New("anything\r\nelse"), "-ERR anything  else\r\n"},
	} {
		table.hook = func([]*client.Op) error { return e.err }
		for _, command := range []string{"SET k v", "GET k", "MGET k l m", "DEL k l", "MSET k 1 l 2", "KEYS *", "DBSIZE", "SCAN 0", "FLUSHALL", "WATCH k", "RENAME k l", "MSETNX k 1", "SINTER k l", "CLUSTER COUNTKEYSINSLOT 5", "RANDOMKEY"} {
			if got := c.say(t, command); !strings.HasPrefix(got, e.prefix) {
				t.Errorf("%v: %s answered %q", e.err, command, got)
			}
		}
		c.say(t, "MULTI")
		c.say(t, "INCR k")
		if got := c.say(t, "EXEC"); !strings.HasPrefix(got, e.prefix) {
			t.Errorf("%v: EXEC answered %q", e.err, got)
		}
	}
	table.hook = nil
	if got := c.say(t, "GET k"); got != "$-1\r\n" {
		t.Errorf("after all that: %q", got)
	}
}

// A broken connection troubles nobody else.
func TestConnectionsThatBreak(t *testing.T) {
	_, addr := serve(t, newShelf(t, 1), Options{})
	beside := newTalk(t, addr)
	for i := range 50 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nab"+strings.Repeat("c", i%3)); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			if err := c.(*net.TCPConn).SetLinger(0); err != nil { // reset instead of close
				t.Fatal(err)
			}
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if got := beside.say(t, "GET k"); got != "$-1\r\n" {
		t.Errorf("half a command was carried out: %q", got)
	}
}
