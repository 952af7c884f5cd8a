package redis

import (
	"bufio"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/braiddb/braid/client"
)

// holding is a table that answers nothing until it is told to.
type holding struct {
	*shelf
	mu      sync.Mutex
	waiting []func(client.Reply, error)
	came    chan struct{}
}

func (h *holding) StartReply(_ []*client.Op, _ time.Time, done func(client.Reply, error)) {
	h.mu.Lock()
	h.waiting = append(h.waiting, done)
	h.mu.Unlock()
	h.came <- struct{}{}
}

// TestCommandsUnderWayAreBoundedByBytes has one connection's commands held up: what
// another sends beyond the bound is refused at once, and taken when there is room.
func TestCommandsUnderWayAreBoundedByBytes(t *testing.T) {
	h := &holding{shelf: newShelf(t, 1), came: make(chan struct{}, 16)}
	s, addr := serve(t, h, Options{RunningBytesTotal: 2*commandOverhead + 64})
	set := "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\nabcd\r\n"
	begin := func() net.Conn {
		c := dial(t, addr)
		if _, err := io.WriteString(c, set); err != nil {
			t.Fatal(err)
		}
		return c
	}
	line := func(c net.Conn) string {
		l, err := bufio.NewReader(c).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	first, second := begin(), begin()
	<-h.came
	<-h.came
	if l := line(begin()); !strings.HasPrefix(l, "-TRYAGAIN ") {
		t.Errorf("a third command was answered %q", l)
	}
	h.mu.Lock()
	answer := h.waiting
	h.waiting = nil
	h.mu.Unlock()
	for _, done := range answer {
		done(client.Reply{Results: []*client.Result{{Kind: client.KindOK}}}, nil)
	}
	if a, b := line(first), line(second); a != "+OK\r\n" || b != a {
		t.Errorf("the first were answered %q, %q", a, b)
	}
	last := begin()
	<-h.came
	h.waiting[0](client.Reply{Results: []*client.Result{{Kind: client.KindOK}}}, nil)
	if l := line(last); l != "+OK\r\n" {
		t.Errorf("afterwards one was answered %q", l)
	}
	if s.Metrics().Crowded.Load() != 1 || s.underWay.Load() != 0 {
		t.Errorf("%d refused, %d bytes are counted still", s.Metrics().Crowded.Load(), s.underWay.Load())
	}
}

// TestUnreadRepliesAreBoundedOverAllClients fills outboxes that nobody reads.
func TestUnreadRepliesAreBoundedOverAllClients(t *testing.T) {
	var total atomic.Int64
	open := func() (*outbox, net.Conn) {
		ours, theirs := net.Pipe() // takes nothing by itself
		return newOutbox(ours, 1<<30, &total, 1<<20, time.Now, func(int) {}), theirs
	}
	a, readerA := open()
	b, readerB := open()
	if _, err := a.write(make([]byte, 1500<<10)); err != nil {
		t.Errorf("one reply alone is larger than what all may leave: %v", err)
	}
	if _, err := b.write(make([]byte, 60<<10)); err != nil {
		t.Errorf("what every client may leave unread: %v", err)
	}
	if _, err := b.write(make([]byte, 300<<10)); err != errSlowReader {
		t.Errorf("beyond what all may leave: %v", err)
	}
	for _, reader := range []net.Conn{readerA, readerB} {
		go io.Copy(io.Discard, reader)
	}
	<-a.flushed()
	<-b.flushed()
	if n := total.Load(); n != 0 {
		t.Errorf("%d bytes are counted when all is read", n)
	}
	readerA.Close()
	readerB.Close()
}
