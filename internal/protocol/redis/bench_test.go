package redis

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/braiddb/braid/client"
)

// immediate answers at once, from the caller's goroutine: what is left is the
// cost of this package.
type immediate struct{ reply client.Reply }

func (i *immediate) Tablets(context.Context) ([]client.TabletInfo, error) { return nil, nil }

func (i *immediate) StartReply(_ []*client.Op, _ time.Time, done func(client.Reply, error)) {
	done(i.reply, nil)
}

// elsewhere answers from one goroutine, as a node's apply worker does.
type elsewhere struct {
	immediate
	jobs chan func(client.Reply, error)
}

func (e *elsewhere) StartReply(_ []*client.Op, _ time.Time, done func(client.Reply, error)) {
	e.jobs <- done
}

func newElsewhere(b *testing.B, r client.Reply) *elsewhere {
	e := &elsewhere{immediate{r}, make(chan func(client.Reply, error), 1024)}
	go func() {
		for done := range e.jobs {
			done(e.reply, nil)
		}
	}()
	b.Cleanup(func() { close(e.jobs) })
	return e
}

// BenchmarkConnections measures commands through sockets: clients with one
// command in flight each, or with pipelines. The clients share the machine.
func BenchmarkConnections(b *testing.B) {
	value := strings.Repeat("v", 128)
	set := fmt.Sprintf("*3\r\n$3\r\nSET\r\n$16\r\nkey:000000000001\r\n$128\r\n%s\r\n", value)
	get := "*2\r\n$3\r\nGET\r\n$16\r\nkey:000000000001\r\n"
	ok := client.Reply{Results: []*client.Result{{Kind: client.KindOK}}, Copies: 2}
	found := client.Reply{Results: []*client.Result{{Kind: client.KindBytes, Bytes: []byte(value)}}}
	for _, c := range []struct {
		name, raw       string
		table           func(*testing.B) Table
		replyBytes      int
		clients, atOnce int
	}{
		{"set/1", set, func(*testing.B) Table { return &immediate{ok} }, 5, 1, 1},
		{"set/64", set, func(*testing.B) Table { return &immediate{ok} }, 5, 64, 1},
		{"set/256", set, func(*testing.B) Table { return &immediate{ok} }, 5, 256, 1},
		{"set/256/elsewhere", set, func(b *testing.B) Table { return newElsewhere(b, ok) }, 5, 256, 1},
		{"get/64", get, func(*testing.B) Table { return &immediate{found} }, 136, 64, 1},
		{"set/16/pipeline32", set, func(*testing.B) Table { return &immediate{ok} }, 5, 16, 32},
		{"set/16/pipeline32/elsewhere", set, func(b *testing.B) Table { return newElsewhere(b, ok) }, 5, 16, 32},
	} {
		b.Run(c.name, func(b *testing.B) {
			_, addr := serve(b, c.table(b), Options{})
			raw := []byte(strings.Repeat(c.raw, c.atOnce))
			var wg sync.WaitGroup
			b.ReportAllocs()
			for i := range c.clients {
				nc, err := net.Dial("tcp", addr)
				if err != nil {
					b.Fatal(err)
				}
				rounds := b.N / c.clients / c.atOnce
				if i == 0 {
					rounds++
				}
				wg.Add(1)
				go func() {
					defer wg.Done()
					defer nc.Close()
					reply := make([]byte, c.replyBytes*c.atOnce)
					for range rounds {
						if _, err := nc.Write(raw); err != nil {
							b.Error(err)
							return
						}
						if _, err := io.ReadFull(nc, reply); err != nil {
							b.Error(err)
							return
						}
					}
				}()
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commands/s")
		})
	}
}

// script is a connection whose input is a loop of bytes and whose output is
// thrown away: the loop without system calls.
type script struct {
	net.Conn
	raw  []byte
	at   int
	left int
}

func (s *script) Read(b []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	n := copy(b, s.raw[s.at:])
	if s.at += n; s.at == len(s.raw) {
		s.at = 0
		s.left--
	}
	return n, nil
}

func (s *script) Write(b []byte) (int, error)      { return len(b), nil }
func (s *script) Close() error                     { return nil }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }
func (s *script) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (s *script) RemoteAddr() net.Addr             { return &net.TCPAddr{} }

// BenchmarkLoop measures the connection's loop alone, one command a read.
func BenchmarkLoop(b *testing.B) {
	ok := client.Reply{Results: []*client.Result{{Kind: client.KindOK}}, Copies: 2}
	raw := []byte("*3\r\n$3\r\nSET\r\n$16\r\nkey:000000000001\r\n$128\r\n" + strings.Repeat("v", 128) + "\r\n")
	for _, n := range []int{1, 32} {
		b.Run(fmt.Sprintf("pipeline%d", n), func(b *testing.B) {
			s := NewServer(&immediate{ok}, Options{})
			b.ReportAllocs()
			newConn(s, &script{raw: bytes.Repeat(raw, n), left: b.N/n + 1}, 1).serve()
		})
	}
}

func BenchmarkLookup(b *testing.B) {
	t := newCommandTable()
	names := [][]byte{[]byte("GET"), []byte("set"), []byte("ZRANGEBYSCORE"), []byte("nosuch")}
	for i := 0; b.Loop(); i++ {
		t.find(names[i%4])
	}
}

func BenchmarkReplies(b *testing.B) {
	w := writer{}
	value := []byte("hello")
	for b.Loop() {
		w.out = w.out[:0]
		w.array(3)
		w.bulk(value)
		w.int(12345)
		w.double(1.5)
	}
}
