package redis

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/catalog"
)

// scattered is a table of strings that carries operations out when, and in the
// order in which, a die says; it knows which of them were on their way together.
type scattered struct {
	t    *testing.T
	mu   sync.Mutex
	rand *rand.Rand
	data map[string]string
	wait []func()
	most int // on their way together

	running map[string]int
	fail    func(op *client.Op) error
	held    []heldOp
}

type heldOp struct {
	op   *client.Op
	key  string
	args []string
}

func newScattered(t *testing.T, seed uint64) *scattered {
	return &scattered{t: t, rand: rand.New(rand.NewPCG(seed, 1)), data: map[string]string{}, running: map[string]int{}}
}

func (s *scattered) Tablets(context.Context) ([]client.TabletInfo, error) {
	return []client.TabletInfo{{ID: 2, Replicas: []client.ReplicaInfo{{Node: client.NodeInfo{ID: 1}}}}}, nil
}

func (s *scattered) StartReply(ops []*client.Op, _ time.Time, done func(client.Reply, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, op := range ops {
		if s.running[string(op.Key)]++; s.running[string(op.Key)] > 1 && len(ops) == 1 {
			s.t.Errorf("two operations on %q are on their way together", op.Key)
		}
	}
	s.wait = append(s.wait, func() { s.finish(ops, done) })
	s.most = max(s.most, len(s.wait))
	// Answer some of those that wait, in any order. The last one is always
	// answered by somebody: by this or by the goroutine started for it.
	if s.rand.IntN(3) == 0 {
		go s.answerAll()
	} else {
		time.AfterFunc(time.Duration(s.rand.IntN(200))*time.Microsecond, s.answerAll)
	}
}

func (s *scattered) answerAll() {
	s.mu.Lock()
	all := s.wait
	s.wait = nil
	s.rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	s.mu.Unlock()
	for _, f := range all {
		f()
	}
}

func (s *scattered) finish(ops []*client.Op, done func(client.Reply, error)) {
	s.mu.Lock()
	var reply client.Reply
	var err error
	for _, op := range ops {
		s.running[string(op.Key)]--
		if s.fail != nil && err == nil {
			if err = s.fail(op); err != nil {
				held := heldOp{op: op, key: string(op.Key)}
				for _, a := range op.Args {
					held.args = append(held.args, string(a))
				}
				s.held = append(s.held, held)
			}
		}
		key := string(op.Key)
		if len(op.Args) == 0 {
			r := &client.Result{Kind: client.KindNil}
			if v, ok := s.data[key]; ok {
				r = &client.Result{Kind: client.KindBytes, Bytes: []byte(v)}
			}
			reply.Results = append(reply.Results, r)
			continue
		}
		s.data[key] = string(op.Args[0])
		reply.Results = append(reply.Results, &client.Result{Kind: client.KindOK})
		reply.Copies = 2
	}
	s.mu.Unlock()
	if err != nil {
		reply = client.Reply{}
	}
	done(reply, err)
}

// A pipeline of SETs and GETs, arriving in pieces of any size, is answered as if
// it had been carried out one command after the other.
func TestPipelineOrder(t *testing.T) {
	for seed := range uint64(20) {
		table := newScattered(t, seed)
		_, addr := serve(t, table, Options{})
		r := rand.New(rand.NewPCG(seed, 2))
		var raw bytes.Buffer
		var want []string
		model := map[string]string{}
		for range 1000 {
			key := "k" + strconv.Itoa(r.IntN(40))
			switch r.IntN(10) {
			case 0:
				raw.WriteString("PING\r\n")
				want = append(want, "+PONG\r\n")
			case 1:
				other := "k" + strconv.Itoa(r.IntN(40))
				fmt.Fprintf(&raw, "MGET %s %s\r\n", key, other)
				reply := "*2\r\n"
				for _, k := range []string{key, other} {
					reply += bulkOf(model, k)
				}
				want = append(want, reply)
			case 2, 3, 4, 5:
				value := strings.Repeat(strconv.Itoa(r.IntN(10)), r.IntN(300))
				fmt.Fprintf(&raw, "*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", len(key), key, len(value), value)
				model[key] = value
				want = append(want, "+OK\r\n")
			default:
				fmt.Fprintf(&raw, "GET %s\r\n", key)
				want = append(want, bulkOf(model, key))
			}
		}
		c := newTalk(t, addr)
		go writeInPieces(c.c, raw.Bytes(), r)
		for i, w := range want {
			got, err := readReply(c.r)
			if err != nil || string(got) != w {
				t.Fatalf("seed %d, reply %d: %q, %v; want %q", seed, i, got, err, w)
			}
		}
		if table.most < 8 {
			t.Errorf("seed %d: at most %d operations were on their way together", seed, table.most)
		}
	}
}

func bulkOf(m map[string]string, key string) string {
	v, ok := m[key]
	if !ok {
		return "$-1\r\n"
	}
	return fmt.Sprintf("$%d\r\n%s\r\n", len(v), v)
}

func writeInPieces(c net.Conn, raw []byte, r *rand.Rand) {
	r = rand.New(rand.NewPCG(r.Uint64(), 3))
	for len(raw) > 0 {
		n := min(len(raw), 1+r.IntN(1+r.IntN(8000)))
		if _, err := c.Write(raw[:n]); err != nil {
			return // the reader will say
		}
		raw = raw[n:]
	}
}

// I2: what a failed operation refers to is not overwritten by later commands,
// for somebody may still be carrying it out.
func TestFailedOperationsKeepTheirBytes(t *testing.T) {
	table := newScattered(t, 1)
	table.fail = func(op *client.Op) error {
		if op.Key[0] == 'f' {
			return client.ErrUnknownOutcome
		}
		return nil
	}
	_, addr := serve(t, table, Options{})
	c := newTalk(t, addr)
	for i := range 200 {
		value := strings.Repeat(string(rune('a'+i%26)), 1+i*7%500)
		raw := fmt.Sprintf("SET f%d %s\r\nSET g%d %s\r\nGET g%d\r\nMSET f%d %s g%d %s\r\n", i, value, i, value, i, i, value, i, value)
		if _, err := io.WriteString(c.c, raw); err != nil {
			t.Fatal(err)
		}
		for range 4 {
			if _, err := readReply(c.r); err != nil {
				t.Fatal(err)
			}
		}
	}
	table.mu.Lock()
	defer table.mu.Unlock()
	if len(table.held) < 400 {
		t.Fatalf("only %d operations failed", len(table.held))
	}
	for _, h := range table.held {
		if string(h.op.Key) != h.key {
			t.Fatalf("key %q became %q", h.key, h.op.Key)
		}
		for i, a := range h.op.Args {
			if string(a) != h.args[i] {
				t.Fatalf("argument %q of %q became %q", h.args[i], h.key, a)
			}
		}
	}
}

// A parser that is fed any pieces gives the same commands.
func TestParserPieces(t *testing.T) {
	var raw bytes.Buffer
	var want []string
	r := rand.New(rand.NewPCG(7, 7))
	for range 200 {
		n := 1 + r.IntN(5)
		fmt.Fprintf(&raw, "*%d\r\n", n)
		var words []string
		for range n {
			w := strings.Repeat("x", r.IntN(3000)*r.IntN(2))
			words = append(words, w)
			fmt.Fprintf(&raw, "$%d\r\n%s\r\n", len(w), w)
		}
		want = append(want, strings.Join(words, "|"))
		if r.IntN(4) == 0 {
			raw.WriteString("one 'two three'\r\n\r\n")
			want = append(want, "one|two three")
		}
	}
	for _, piece := range []int{1, 2, 3, 7, 100, 4096, 1 << 20} {
		p := newParser(1<<20, 1<<20)
		var got []string
		for in := raw.Bytes(); ; {
			args, ok, err := p.next(nil)
			if err != nil {
				t.Fatal(err)
			}
			if ok {
				got = append(got, string(bytes.Join(args, []byte("|"))))
				continue
			}
			if len(in) == 0 {
				break
			}
			p.rewind(piece%2 == 0)
			n := copy(p.free(), in[:min(piece, len(in))])
			p.fill(n)
			in = in[n:]
			if cap(p.buf) > 64<<10 {
				t.Fatalf("the buffer grew to %d", cap(p.buf))
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("pieces of %d: %d commands, want %d", piece, len(got), len(want))
		}
	}
}

// I3: memory follows what was received, not what was announced.
func TestParserDoesNotBelieveLengths(t *testing.T) {
	p := newParser(64<<20, 65<<20)
	feed := func(s string) {
		for len(s) > 0 {
			n := copy(p.free(), s)
			p.fill(n)
			s = s[n:]
			if _, _, err := p.next(nil); err != nil {
				t.Fatal(err)
			}
			p.rewind(false)
		}
	}
	feed("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$67108864\r\n")
	p.free()
	if cap(p.buf) > 128<<10 {
		t.Fatalf("%d bytes for a value that was only announced", cap(p.buf))
	}
	feed(strings.Repeat("x", 1<<20))
	p.free()
	if cap(p.buf) > 4<<20 {
		t.Fatalf("%d bytes after one megabyte came", cap(p.buf))
	}
	feed(strings.Repeat("x", 63<<20) + "\r\n")
	if cap(p.buf) > readBytesChunk {
		t.Fatalf("%d bytes are kept after the command", cap(p.buf))
	}
	q := newParser(64<<20, 64<<20)
	n := copy(q.free(), "*1048576\r\n")
	q.fill(n)
	if _, _, err := q.next(nil); err != nil || cap(q.spans) > 1024 {
		t.Fatalf("%d spans for arguments that were only announced, %v", cap(q.spans), err)
	}
}

func TestOneSlot(t *testing.T) {
	keys := func(s ...string) (b [][]byte) {
		for _, k := range s {
			b = append(b, []byte(k))
		}
		return b
	}
	if !oneSlot(nil) || !oneSlot(keys("a")) || !oneSlot(keys("{x}a", "{x}b", "x")) || oneSlot(keys("a", "b")) {
		t.Error("oneSlot is wrong")
	}
	if catalog.RedisSlot([]byte("a")) == catalog.RedisSlot([]byte("b")) {
		t.Error("a and b were chosen for their slots")
	}
}
