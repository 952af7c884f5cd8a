package rpc

import (
	"net"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/wire"
)

// handClock stands still until it is moved.
type handClock struct {
	SystemClock
	now time.Time
}

func (c *handClock) Now() time.Time { return c.now }

// TestAFrameWaitsForCompanyThatIsLikely: after a write of several frames the next
// frame, however late, is left to the writer goroutine; once that found it alone,
// frames leave at once again.
func TestAFrameWaitsForCompanyThatIsLikely(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	clock, metrics := &handClock{now: time.Unix(1, 0)}, new(Metrics)
	var o outbox
	o.init(conn, clock, metrics, 1<<20)
	if o.try == nil {
		t.Fatal("a TCP connection that must be waited for")
	}
	add := func() {
		clock.now = clock.now.Add(time.Second) // quiet for long
		m := &wire.ReadRequest{Table: 1}
		o.mu.Lock()
		if err := o.appendLocked(nil, header{kind: kindRequest, method: MethodRead}, m, m.SizeVT()); err != nil {
			t.Error(err)
		}
		o.submit(lazy)
	}
	expect := func(when string, writes, frames uint64) {
		t.Helper()
		if w, f := metrics.Writes.Load(), metrics.FramesSent.Load(); w != writes || f != frames {
			t.Errorf("%s: %d frames in %d writes, want %d in %d", when, f, w, frames, writes)
		}
	}
	add()
	expect("alone", 1, 1)
	o.cork()
	add()
	add()
	o.uncork()
	expect("together", 2, 3)
	add()
	expect("after company", 2, 3)
	done := make(chan struct{})
	go func() { o.write(); close(done) }()
	o.mu.Lock()
	for o.mu.queued > 0 {
		o.mu.drained.Wait()
	}
	o.mu.Unlock()
	expect("none came", 3, 4)
	o.fail(ErrClosed)
	<-done
}
