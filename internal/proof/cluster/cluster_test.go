package cluster

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// linked gives both ends of a connection that node 1 made to node 2.
func linked(t *testing.T) (l *Links, one, two net.Conn) {
	t.Helper()
	ports, err := FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	p := &Process{Index: 2, Host: "127.0.0.2", NodePort: ports[0]}
	behind, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.ParseIP(p.Host), Port: p.NodePort})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { behind.Close() })
	if l, err = startLinks([]*Process{p}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.close)
	from := net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}
	if one, err = net.DialTCP("tcp", &from, &net.TCPAddr{IP: net.ParseIP(p.ProxyHost()), Port: p.NodePort}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { one.Close() })
	if two, err = behind.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { two.Close() })
	return l, one, two
}

// arrives says what comes out of a connection within a time.
func arrives(t *testing.T, c net.Conn, n int, limit time.Duration) string {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(limit))
	b := make([]byte, n)
	got, _ := io.ReadFull(c, b)
	return string(b[:got])
}

func TestACutLinkHoldsBackAndDelivers(t *testing.T) {
	l, one, two := linked(t)
	send := func(c net.Conn, s string) {
		t.Helper()
		if _, err := c.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	send(one, "a")
	if got := arrives(t, two, 1, 5*time.Second); got != "a" {
		t.Fatalf("%q came through a whole link", got)
	}
	l.Cut(1, 2)
	send(one, "b")
	if got := arrives(t, two, 1, 100*time.Millisecond); got != "" {
		t.Errorf("%q came through a link that was cut", got)
	}
	send(two, "back")
	if got := arrives(t, one, 4, 5*time.Second); got != "back" {
		t.Errorf("%q came in the direction that was not cut", got)
	}
	send(one, "c")
	l.Heal()
	if got := arrives(t, two, 2, 5*time.Second); got != "bc" {
		t.Errorf("%q came after the link was mended [C3]", got)
	}
	l.Reset(1, 2)
	if got := arrives(t, one, 1, 5*time.Second); got != "" {
		t.Errorf("%q came of a connection that was reset", got)
	}
	if _, err := one.Read(make([]byte, 1)); err == nil {
		t.Error("the connection was not reset")
	}
}

func TestFirstFailedSync(t *testing.T) {
	file := filepath.Join(t.TempDir(), "strace")
	if at := FirstFailedSync(file); at != 0 {
		t.Errorf("a sync failed at %f without a file", at)
	}
	text := `23 1795000000.125000 fsync(9) = 0
24 1795000001.250000 fsync(11) = -1 EIO (Input/output error) (INJECTED)
25 1795000002.000000 fsync(12) = -1 EIO (Input/output error) (INJECTED)
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if at := FirstFailedSync(file); at != 1795000001.25 {
		t.Errorf("the first failed sync is said to be at %f", at)
	}
}
