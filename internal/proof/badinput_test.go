package proof

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

const password = "right horse"

// A canary is a connection that was there before the bad input came, and a key
// that was written before it.
type canary struct {
	p    *process
	conn *redis.Client
}

// sings checks that the bad input killed and lost nothing.
func (c canary) sings(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if got, err := c.conn.Get(ctx, "canary").Result(); err != nil || got != "sings" {
		t.Errorf("the canary reads %q, %v", got, err)
	}
	if err := c.p.Ready(); err != nil {
		t.Errorf("the node is not ready any more: %v", err)
	}
	if _, err := os.Stat(filepath.Join(c.p.Dir, "IDENTITY")); err != nil {
		t.Error(err)
	}
}

// startLone runs a cluster of one with a password and a canary.
func startLone(t *testing.T) canary {
	t.Helper()
	c := newCluster(t, 1, clusterOptions{flags: []string{"--redis-password", password}})
	p := c.nodes[0]
	i := joinIndex(p.Args)
	p.Args = append(p.Args[:i-1:i-1], p.Args[i+1:]...)
	p.start()
	c.waitReady()
	rc := redis.NewClient(&redis.Options{Addr: p.RedisAddr(), Password: password, PoolSize: 1, MaxRetries: -1})
	t.Cleanup(func() { rc.Close() })
	if err := rc.Set(context.Background(), "canary", "sings", 0).Err(); err != nil {
		t.Fatal(err)
	}
	return canary{p, rc}
}

// exchange sends raw bytes on a connection of its own and gives all that comes
// back until the server closes it or has been quiet for a while.
func exchange(t *testing.T, addr string, raw io.Reader) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		io.Copy(c, raw) // an error shows in what is read
	}()
	var got bytes.Buffer
	buf := make([]byte, 4096)
	for quiet := false; !quiet; {
		c.SetReadDeadline(time.Now().Add(400 * time.Millisecond))
		n, err := c.Read(buf)
		got.Write(buf[:n])
		var slow net.Error
		switch {
		case errors.As(err, &slow) && slow.Timeout():
			select {
			case <-sent:
				quiet = true
			default:
			}
		case err != nil:
			quiet = true
		}
	}
	return got.String()
}

func command(args ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	return b.String()
}

// TestBadRequests is the table of what a running node is sent that it should
// not be. Each row gets a clear error, and the canary sings after it.
func TestBadRequests(t *testing.T) {
	t.Parallel()
	c := startLone(t)
	auth := command("AUTH", password)
	authed := func(rest string) io.Reader { return strings.NewReader(auth + rest) }
	huge := 64<<20 + 1
	for _, row := range []struct {
		name, addr string
		raw        io.Reader
		want       string // in what comes back; "" asks for silence and the end
	}{
		{"an unknown command", c.p.RedisAddr(), authed(command("FROB", "x")), "-ERR unknown command"},
		{"a missing argument", c.p.RedisAddr(), authed(command("SET", "x")), "-ERR wrong number of arguments"},
		{"a word for a number", c.p.RedisAddr(), authed(command("EXPIRE", "canary", "soon")), "-ERR value is not an integer"},
		{"the wrong type", c.p.RedisAddr(), authed(command("LPUSH", "canary", "x")), "-WRONGTYPE"},
		{"a count that is no number", c.p.RedisAddr(), authed("*abc\r\n"), "-ERR Protocol error: invalid multibulk length"},
		{"a length below zero", c.p.RedisAddr(), authed("*1\r\n$-7\r\n"), "-ERR Protocol error: invalid bulk length"},
		{"an argument that is no string", c.p.RedisAddr(), authed("*1\r\n:4\r\n"), "-ERR Protocol error: expected '$'"},
		{"too many arguments", c.p.RedisAddr(), authed("*1048577\r\n"), "-ERR Protocol error: invalid multibulk length"},
		{"an absurd length", c.p.RedisAddr(), authed("*2\r\n$3\r\nGET\r\n$9999999999\r\n"), "-ERR Protocol error: invalid bulk length"},
		{"a value beyond the limit", c.p.RedisAddr(),
			io.MultiReader(authed(fmt.Sprintf("*3\r\n$3\r\nSET\r\n$6\r\ncanary\r\n$%d\r\n", huge)), io.LimitReader(zeros{}, int64(huge)), strings.NewReader("\r\n")), "-ERR"},
		{"a key beyond the limit", c.p.RedisAddr(),
			io.MultiReader(authed("*3\r\n$3\r\nSET\r\n$1048577\r\n"), io.LimitReader(zeros{}, 1<<20+1), strings.NewReader("\r\n$1\r\nx\r\n")), "-ERR key, field or member exceeds"},
		{"a wrong password", c.p.RedisAddr(), strings.NewReader(command("AUTH", "wrong")), "-WRONGPASS"},
		{"no password", c.p.RedisAddr(), strings.NewReader(command("GET", "canary")), "-NOAUTH"},
		{"a large command before the password", c.p.RedisAddr(), strings.NewReader("*2\r\n$3\r\nGET\r\n$1000000\r\n"), "unauthenticated bulk length"},
		{"an HTTP request to the Redis port", c.p.RedisAddr(), strings.NewReader("POST / HTTP/1.1\r\nHost: x\r\n\r\n"), ""},
		{"garbage to the node port", net.JoinHostPort(c.p.Host, strconv.Itoa(c.p.NodePort)), strings.NewReader(strings.Repeat("garbage ", 100)), ""},
		{"garbage to the client port", c.p.ClientAddr(), strings.NewReader(strings.Repeat("\x00\xff", 500)), ""},
		{"half a hello to the node port", net.JoinHostPort(c.p.Host, strconv.Itoa(c.p.NodePort)), strings.NewReader("braidrpc\xff\xff"), ""},
		{"an HTTP request to the client port", c.p.ClientAddr(), strings.NewReader("GET / HTTP/1.1\r\n\r\n"), ""},
		{"garbage to the console", c.p.WebAddr(), strings.NewReader("\x01\x02\x03\r\n\r\n"), "400 Bad Request"},
	} {
		t.Run(row.name, func(t *testing.T) {
			got := exchange(t, row.addr, row.raw)
			if row.want == "" && got != "" && !strings.HasPrefix(got, "-") {
				t.Errorf("answered %.100q", got)
			}
			if !strings.Contains(got, row.want) {
				t.Errorf("answered %.200q, want %q", got, row.want)
			}
			c.sings(t)
		})
	}
}

// zeros never ends.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// A trial is a `braid start` that should end with an error, beside a node that runs.
type trial struct {
	name string
	args []string // of start; --data of a fresh directory and free ports are added unless given
	code int
	want []string
}

// TestBadStarts is the table of starts that must fail: each ends by itself, with
// a code that tells wrong usage from failure and a message that says what to do,
// and the node beside it notices nothing.
func TestBadStarts(t *testing.T) {
	t.Parallel()
	c := startLone(t)
	host, port := c.p.Host, strconv.Itoa(c.p.RedisPort)
	other := startLone(t) // of another cluster
	other.p.Kill()
	moved := startLone(t)
	moved.p.Kill()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("redis-prot: 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	spoilt := func(change func(b []byte)) string {
		dir := t.TempDir()
		b, err := os.ReadFile(filepath.Join(other.p.Dir, "IDENTITY"))
		if err != nil {
			t.Fatal(err)
		}
		change(b)
		if err := os.WriteFile(filepath.Join(dir, "IDENTITY"), b, 0o644); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	damaged := spoilt(func(b []byte) { b[len(b)-3] ^= 1 })
	newer := spoilt(func(b []byte) { b[7] = 99 })
	running := net.JoinHostPort(host, strconv.Itoa(c.p.NodePort))

	for _, row := range []trial{
		{"no data directory", []string{"--data", ""}, 2, []string{"--data"}},
		{"an unknown flag", []string{"--frob"}, 2, []string{"unknown flag --frob", "braid --help"}},
		{"a word for a port", []string{"--redis-port", "many"}, 2, []string{"--redis-port", "braid --help"}},
		{"a port out of range", []string{"--console-port", "70000"}, 2, []string{"70000", "between 1 and 65535"}},
		{"a size that is none", []string{"--memory", "lots"}, 2, []string{`"lots" is not a size`, "512MiB"}},
		{"too little memory", []string{"--memory", "1MiB"}, 2, []string{"--memory", "64 MiB"}},
		{"a small journal", []string{"--journal-size", "1MiB"}, 2, []string{"--journal-size", "64 MiB"}},
		{"a lease of a beat", []string{"--lease", "200ms", "--beat", "200ms"}, 2, []string{"--lease", "three times"}},
		{"a heartbeat too quick", []string{"--gossip-interval", "1us"}, 2, []string{"--gossip-interval", "1ms and 10s"}},
		{"a fan-out of too many", []string{"--gossip-fanout", "1000"}, 2, []string{"--gossip-fanout", "between 1 and 128"}},
		{"thresholds that contradict", []string{"--gossip-threshold", "10", "--gossip-refused-threshold", "11"}, 2, []string{"--gossip-threshold", "must not be more"}},
		{"a negative duration", []string{"--park=-1s"}, 2, []string{"--park", "negative"}},
		{"a location too deep", []string{"--location", "a/b/c/d"}, 2, []string{"region/zone/rack"}},
		{"an open listener", []string{"--listen", "0.0.0.0"}, 2, []string{"--insecure"}},
		{"an address twice", []string{"--join", "127.0.0.1,127.0.0.2,127.0.0.1:7100"}, 2, []string{"127.0.0.1:7100 twice"}},
		{"an address that is none", []string{"--join", "a:b:c"}, 2, []string{"--join", "ADDR:PORT"}},
		{"a port that is none", []string{"--join", "127.0.0.1:frob"}, 2, []string{"--join", `"frob"`}},
		{"a file with an unknown key", []string{"--config", file}, 2, []string{`"redis-prot" is not a setting`}},
		{"a file that is missing", []string{"--config", file + "x"}, 2, []string{"no such file"}},
		{"a port in use", []string{"--listen", host, "--redis-port", port}, 1, []string{"address already in use", "another port"}},
		{"a directory in use", []string{"--data", c.p.Dir}, 1, []string{c.p.Dir, "in use by another process"}},
		{"a directory that is a file", []string{"--data", file}, 1, []string{"data directory", "not a directory"}},
		{"a damaged IDENTITY", []string{"--data", damaged}, 1, []string{"IDENTITY", "damaged", "rejoin as a new one"}},
		{"a directory of a newer format", []string{"--data", newer}, 1, []string{"IDENTITY", "newer version of braid"}},
		{"another epoch store", []string{"--join", running, "--epoch-store", "zookeeper://127.0.0.1:1/elsewhere"}, 1, []string{"--epoch-store", "on table, for ever", "zookeeper:/elsewhere"}},
		{"another epoch store for a member", []string{"--data", moved.p.Dir, "--epoch-store", "zookeeper://127.0.0.1:1/elsewhere"}, 1, []string{"--epoch-store", "on table, for ever"}},
		{"a directory of another cluster", []string{"--data", other.p.Dir, "--join", running}, 1, []string{"belongs to another cluster", running}},
	} {
		t.Run(row.name, func(t *testing.T) {
			before, _ := os.ReadFile(filepath.Join(c.p.Dir, "IDENTITY"))
			code, out := row.run(t)
			if code != row.code {
				t.Errorf("ended with code %d, want %d:\n%s", code, row.code, out)
			}
			for _, w := range row.want {
				if !strings.Contains(out, w) {
					t.Errorf("said nothing of %q:\n%s", w, out)
				}
			}
			if after, _ := os.ReadFile(filepath.Join(c.p.Dir, "IDENTITY")); !bytes.Equal(before, after) {
				t.Error("the running node's IDENTITY has changed")
			}
			c.sings(t)
		})
	}
	other.p.start() // with its own list it is what it was
	if !eventually(20*time.Second, func() bool { return other.p.Ready() == nil }) {
		t.Fatalf("the other cluster's node does not start again:\n%s", other.p.Tail())
	}
	other.sings(t)
}

// run starts the node and waits for its end.
func (r trial) run(t *testing.T) (code int, out string) {
	t.Helper()
	args := append([]string{"start"}, r.args...)
	given := func(flag string) bool { return strings.Contains(strings.Join(args, " ")+" ", "--"+flag+" ") }
	if !given("data") {
		args = append(args, "--data", filepath.Join(t.TempDir(), "d"))
	}
	ports := freePorts(t, 4)
	for i, flag := range []string{"node-port", "client-port", "redis-port", "console-port"} {
		if !given(flag) {
			args = append(args, "--"+flag, strconv.Itoa(ports[i]))
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	b, err := exec.CommandContext(ctx, braidBinary(t), args...).CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("it did not end:\n%s", b)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if exit != nil {
		code = exit.ExitCode()
	}
	return code, string(b)
}
