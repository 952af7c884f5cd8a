package docdb

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

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/wire"
)

// shelf is one tablet in memory on which operations run as a leader would run
// them: batch after batch, each applied at the next hybrid time.
type shelf struct {
	t     testing.TB
	e     *Engine
	ht    hlc.Timestamp
	nowMs int64

	view  *View
	batch WriteBatch
	x     *Exec
}

// shelfNow is a time between those that tests call past and future.
const (
	shelfNow = 1_750_000_000_000
	longAgo  = 1_000_000_000
	farAhead = 4_000_000_000_000
)

func newShelf(t testing.TB) *shelf {
	t.Helper()
	e, err := OpenEngine(vfs.NewMem(), "d", EngineOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s := &shelf{t: t, e: e, ht: hlc.FromMicros(1), nowMs: shelfNow}
	t.Cleanup(func() {
		if s.view != nil {
			s.view.Close()
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// begin starts a batch.
func (s *shelf) begin() {
	s.t.Helper()
	v, err := s.e.View(Span{Table: catalog.RedisTableID}, s.ht, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	s.view = v
	s.batch.Reset()
	if s.x == nil {
		s.x = NewExec(v, &s.batch, catalog.RedisTableID, s.nowMs)
	} else {
		s.x.Reset(v, &s.batch, catalog.RedisTableID, s.nowMs)
	}
}

// run executes an operation in the batch that was begun, and checks O1.
func (s *shelf) run(op *wire.Op) *wire.Result {
	s.t.Helper()
	before := s.batch.WriteIDs()
	r, err := s.x.Write(op)
	if err != nil {
		s.t.Fatalf("operation %d on %q: %v", op.Code, op.Key, err)
	}
	if r.Kind == wire.Kind_KIND_ERROR && s.batch.WriteIDs() != before {
		s.t.Fatalf("operation %d on %q answers %q but had an effect", op.Code, op.Key, r.Message)
	}
	return r
}

// commit applies the batch.
func (s *shelf) commit() {
	s.t.Helper()
	s.view.Close()
	s.view = nil
	s.ht += 1 << 12
	if s.batch.Empty() {
		return
	}
	a := s.e.NewBatch()
	if _, err := a.Apply(catalog.RedisTableID, s.batch.Encode(nil), s.ht, 0); err != nil {
		s.t.Fatal(err)
	}
	if err := a.Commit(); err != nil {
		s.t.Fatal(err)
	}
}

// do is begin, run and commit.
func (s *shelf) do(op *wire.Op) *wire.Result {
	s.t.Helper()
	s.begin()
	r := s.run(op)
	s.commit()
	return r
}

// say is do with the answer as text.
func (s *shelf) say(op *wire.Op) string {
	s.t.Helper()
	return ours(s.do(op)).String()
}

// reply is an answer of either side in one form.
type reply struct {
	kind  byte // '-' error, ':' integer, '$' text, '_' nil, 'f' double, '*' array
	text  string
	num   int64
	items []reply
}

func ours(r *wire.Result) reply {
	switch r.Kind {
	case wire.Kind_KIND_NIL:
		return reply{kind: '_'}
	case wire.Kind_KIND_OK:
		return reply{kind: '$', text: "OK"}
	case wire.Kind_KIND_INT:
		return reply{kind: ':', num: r.Int}
	case wire.Kind_KIND_BYTES:
		return reply{kind: '$', text: string(r.Bytes)}
	case wire.Kind_KIND_DOUBLE:
		return reply{kind: 'f', text: strconv.FormatFloat(r.Double, 'g', -1, 64)}
	case wire.Kind_KIND_ERROR:
		return reply{kind: '-', text: r.Message}
	case wire.Kind_KIND_ARRAY:
		a := reply{kind: '*'}
		for _, item := range r.Items {
			a.items = append(a.items, ours(item))
		}
		return a
	}
	return reply{kind: '?', text: r.Kind.String()}
}

func (r reply) String() string {
	switch r.kind {
	case '_':
		return "nil"
	case ':':
		return strconv.FormatInt(r.num, 10)
	case '$':
		return strconv.Quote(r.text)
	case 'f':
		return r.text
	case '*':
		var b strings.Builder
		for i, item := range r.items {
			if i > 0 {
				b.WriteByte(' ')
			}
			b.WriteString(item.String())
		}
		return "[" + b.String() + "]"
	}
	return string(r.kind) + r.text
}

// double turns text into a number.
func (r reply) double() reply {
	if r.kind != '$' {
		return r
	}
	f, err := strconv.ParseFloat(r.text, 64)
	if err != nil {
		return r
	}
	return reply{kind: 'f', text: strconv.FormatFloat(f, 'g', -1, 64)}
}

// scored turns every second item into a number.
func (r reply) scored() reply {
	for i := 1; i < len(r.items); i += 2 {
		r.items[i] = r.items[i].double()
	}
	return r
}

// sorted orders items, step at a time, where the order says nothing.
func (r reply) sorted(step int) reply {
	if r.kind != '*' || len(r.items)%step != 0 {
		return r
	}
	groups := slices.Collect(slices.Chunk(r.items, step))
	slices.SortFunc(groups, func(a, b []reply) int { return strings.Compare(a[0].String(), b[0].String()) })
	r.items = slices.Concat(groups...)
	return r
}

// redis is a server of the reference implementation, and a connection to it.
type redis struct {
	t testing.TB
	r *bufio.Reader
	w io.Writer
}

// startRedis starts a redis-server of the test's own, without persistence.
func startRedis(t testing.TB) *redis {
	t.Helper()
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatal("redis-server is not installed: this test compares with it (Debian: apt-get install redis-server)")
	}
	dir, err := os.MkdirTemp("", "braid-redis")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	cmd := exec.Command(bin, "--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no",
		"--daemonize", "no", "--dir", dir, "--logfile", "")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(out)
	for ready := false; !ready; ready = strings.Contains(lines.Text(), "eady to accept connections") {
		if !lines.Scan() {
			t.Fatalf("redis-server ended before it was ready: %v", lines.Err())
		}
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &redis{t: t, r: bufio.NewReader(conn), w: conn}
}

// do sends a command and reads its reply.
func (c *redis) do(args ...string) reply {
	c.t.Helper()
	var b bytes.Buffer
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	if _, err := c.w.Write(b.Bytes()); err != nil {
		c.t.Fatal(err)
	}
	r, err := c.read()
	if err != nil {
		c.t.Fatalf("%q: %v", args, err)
	}
	return r
}

func (c *redis) read() (reply, error) {
	line, err := c.r.ReadString('\n')
	if err != nil {
		return reply{}, err
	}
	line = strings.TrimSuffix(line, "\r\n")
	text := line[1:]
	switch line[0] {
	case '+':
		return reply{kind: '$', text: text}, nil
	case '-':
		return reply{kind: '-', text: text}, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	switch {
	case err != nil:
		return reply{}, err
	case line[0] == ':':
		return reply{kind: ':', num: n}, nil
	case n < 0:
		return reply{kind: '_'}, nil
	case line[0] == '$':
		p := make([]byte, n+2)
		if _, err := io.ReadFull(c.r, p); err != nil {
			return reply{}, err
		}
		return reply{kind: '$', text: string(p[:n])}, nil
	}
	a := reply{kind: '*'}
	for range n {
		item, err := c.read()
		if err != nil {
			return reply{}, err
		}
		a.items = append(a.items, item)
	}
	return a, nil
}
