package redis

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The conversations in testdata are held with a real redis-server and with ours,
// over sockets, and the replies compared byte for byte. A line is a command as it
// is typed; "~ " before it means that the order of the elements is free.
func TestConversationsAgainstRedis(t *testing.T) {
	real := startRedis(t)
	files, err := filepath.Glob("testdata/conversations/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no conversations: %v", err)
	}
	for _, file := range files {
		for _, protocol := range []string{"2", "3"} {
			name := strings.TrimSuffix(filepath.Base(file), ".txt")
			t.Run(name+"/RESP"+protocol, func(t *testing.T) {
				_, ours := serve(t, newShelf(t, 4), Options{Seed: 1})
				converse(t, file, protocol, newTalk(t, real), newTalk(t, ours))
			})
		}
	}
}

func converse(t *testing.T, file, protocol string, real, ours *talk) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*talk{real, ours} {
		c.say(t, "RESET")
		c.say(t, "FLUSHALL")
		c.say(t, "HELLO "+protocol)
	}
	for i, line := range strings.Split(string(text), "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		line, free := strings.CutPrefix(line, "~ ")
		want, got := real.say(t, line), ours.say(t, line)
		if free {
			want, got = sorted(want), sorted(got)
		}
		if want != got {
			t.Errorf("%s:%d: %s\nredis: %q\nours:  %q", filepath.Base(file), i+1, line, want, got)
		}
		if line == "RESET" { // the protocol too
			real.say(t, "HELLO "+protocol)
			ours.say(t, "HELLO "+protocol)
		}
	}
}

// sorted brings the lines of a reply into order.
func sorted(reply string) string {
	lines := strings.SplitAfter(reply, "\r\n")
	slices.Sort(lines[1:])
	return strings.Join(lines, "")
}

// talk is one side of a conversation.
type talk struct {
	c net.Conn
	r *bufio.Reader
}

func newTalk(t testing.TB, addr string) *talk {
	c := dial(t, addr)
	return &talk{c, bufio.NewReader(c)}
}

// say sends one inline command and gives its reply as it came.
func (c *talk) say(t testing.TB, line string) string {
	t.Helper()
	if _, err := io.WriteString(c.c, line+"\r\n"); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	reply, err := readReply(c.r)
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return string(reply)
}

// readReply reads one reply of any kind, raw.
func readReply(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadBytes('\n')
	if err != nil {
		return nil, err
	}
	n, _ := strconv.Atoi(string(bytes.TrimSpace(line[1:])))
	switch line[0] {
	case '$', '=':
		if n < 0 {
			return line, nil
		}
		body := make([]byte, n+2)
		if _, err := io.ReadFull(r, body); err != nil {
			return nil, err
		}
		return append(line, body...), nil
	case '%':
		n *= 2
		fallthrough
	case '*', '~', '>':
		for range n {
			item, err := readReply(r)
			if err != nil {
				return nil, err
			}
			line = append(line, item...)
		}
	}
	return line, nil
}

// startRedis runs the real server for the length of a test.
func startRedis(t testing.TB) (addr string) {
	t.Helper()
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatalf("these tests compare with redis-server 7.0 (Debian: apt install redis-server): %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr = l.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command(binary, "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
		"--databases", "1", "--proto-max-bulk-len", "64mb", "--dir", t.TempDir())
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
	})
	for deadline := time.Now().Add(10 * time.Second); ; {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
			return addr
		}
		if time.Now().After(deadline) {
			t.Fatalf("redis-server does not listen on %s: %v\n%s", addr, err, &log)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// redisVersion fails the test where the server compared with is not of the
// version whose texts are expected.
func TestRealRedisIsTheVersionWeSpeak(t *testing.T) {
	c := newTalk(t, startRedis(t))
	if info := c.say(t, "INFO server"); !strings.Contains(info, "redis_version:7.0.") {
		t.Fatal(fmt.Sprintf("redis-server 7.0 is needed: %s", info))
	}
}
