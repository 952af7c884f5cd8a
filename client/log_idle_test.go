package client

import (
	"fmt"
	"runtime"
	"testing"
	"time"
	"weak"

	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// TestQueuesThatNobodyHoldsAreLetGo: a client that goes over many logs keeps nothing
// of those it is done with, and begins anew, as another producer, when it comes back.
func TestQueuesThatNobodyHoldsAreLetGo(t *testing.T) {
	f := newFakeLogs(t, 3)
	c := f.client(Options{})
	defer c.Close()
	held := c.logByID(1, "")
	mustAppend(t, held, "first")
	was := held.queue.id
	gone := map[uint64]bool{was: true}
	for id := LogID(2); id < 200; id++ {
		l := c.logByID(id, "")
		mustAppend(t, l, "first")
		gone[l.queue.id] = true
		if _, err := l.Producer(9).Append(t.Context(), 1, []byte("mine")); err != nil {
			t.Fatal(err)
		}
	}
	if len(gone) != 199 {
		t.Errorf("199 logs have %d producers", len(gone))
	}
	left := func() int {
		runtime.GC()
		c.logs.mu.Lock()
		defer c.logs.mu.Unlock()
		return len(c.logs.mu.queues)
	}
	for deadline := time.Now().Add(10 * time.Second); left() > 1; <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d queues are kept, and one is held", left())
		}
	}
	if again := c.logByID(1, ""); again.queue != held.queue || again.queue.id != was {
		t.Error("a log that is held got a second queue")
	}
	back := c.logByID(7, "")
	if gone[back.queue.id] {
		t.Error("a queue that was made anew goes by a producer that was used")
	}
	mustAppend(t, back, "second")
	if got := f.payloads(7); len(got) != 3 || got[2] != "second" {
		t.Errorf("the log holds %v", got)
	}
	runtime.KeepAlive(held)
}

// TestAClientThatNobodyHoldsIsLetGo: what a client keeps to forget idle queues does not
// keep the client, not even where its transport leads back to who holds a log.
func TestAClientThatNobodyHoldsIsLetGo(t *testing.T) {
	gone := func() weak.Pointer[Client] {
		f := newFakeLogs(t, 1)
		c := f.client(Options{})
		l := c.logByID(1, "")
		mustAppend(t, l, "first")
		f.onAppend = func(NodeID, *wire.AppendRequest) *fakeVerdict { runtime.KeepAlive(l); return nil }
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		return weak.Make(c)
	}()
	for deadline := time.Now().Add(10 * time.Second); gone.Value() != nil; <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a closed client is kept")
		}
		runtime.GC()
	}
}

// TestTroublesThatAreToldAreNotWaitedOut: whatever a node says at once, or its
// connection does, the append is at the next node in no time; only silence takes the
// time of an attempt.
func TestTroublesThatAreToldAreNotWaitedOut(t *testing.T) {
	for name, verdict := range map[string]fakeVerdict{
		"refused":   {err: rpc.ErrUnreachable},
		"reset":     {err: rpc.ErrLost},
		"stopping":  {resp: status(wire.LogStatus_LOG_STATUS_SHUTDOWN)},
		"isolated":  {resp: status(wire.LogStatus_LOG_STATUS_ISOLATED)},
		"redirect":  {resp: &wire.AppendResponse{Status: wire.LogStatus_LOG_STATUS_REDIRECTED}},
		"preempted": {resp: &wire.AppendResponse{Status: wire.LogStatus_LOG_STATUS_PREEMPTED}},
		"epoch":     {resp: &wire.AppendResponse{Status: wire.LogStatus_LOG_STATUS_NEW_EPOCH, Epoch: 9}},
	} {
		t.Run(name, func(t *testing.T) {
			inLogBubble(t, 3, Options{BackoffMin: 50 * time.Millisecond, BackoffMax: time.Second}, func(t *testing.T, f *fakeLogs, c *Client) {
				l := c.logByID(1, "")
				mustAppend(t, l, "before")
				node := f.sequencer(1)
				next := node%3 + 1
				if v := verdict.resp; v != nil && v.Epoch == 0 && v.Status != wire.LogStatus_LOG_STATUS_SHUTDOWN {
					v.Redirect = uint64(next)
				}
				hit := 0
				f.onAppend = func(at NodeID, req *wire.AppendRequest) *fakeVerdict {
					switch {
					case at != node: // whoever else is asked takes it
						f.holder[1] = at
						return &fakeVerdict{resp: &wire.AppendResponse{Lsn: uint64(9)<<32 | uint64(req.Sequence), Epoch: 9}}
					case hit > 0 && verdict.err != nil: // it is gone
						return &fakeVerdict{err: rpc.ErrUnreachable}
					case hit > 0 && verdict.resp.Epoch != 0:
						return nil
					}
					hit++
					v := verdict
					return &v
				}
				begun := time.Now()
				for i := range 5 {
					mustAppend(t, l, fmt.Sprint(i))
				}
				if took := time.Since(begun); took > 0 || hit != 1 {
					t.Errorf("five appends took %v, and %d met the trouble", took, hit)
				}
			})
		})
	}
}
