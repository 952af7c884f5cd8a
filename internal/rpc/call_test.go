package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/braiddb/braid/internal/wire"
)

func TestCallsAreAnsweredWhateverTheirSize(t *testing.T) {
	s, l, _ := listen(t, RoleClient)
	s.Handle(MethodRead, nil, func(r *Request) {
		op := r.Msg.(*wire.ReadRequest).Ops[0]
		r.Reply(&wire.ReadResponse{Results: []*wire.Result{{Bytes: op.Key, Int: int64(op.Hash)}}})
	})
	serve(t, s, l)
	// However slow the machine is, it is not the peer's silence that is tested.
	p := NewPool(TCP{}, PoolOptions{Role: RoleClient, SilenceMax: time.Minute})
	defer p.Close()
	c := p.To(l.Addr().String())

	source := make([]byte, 1<<20)
	r := rand.NewChaCha8([32]byte{1})
	if _, err := r.Read(source); err != nil {
		t.Fatal(err)
	}
	check := func(n int, tag uint64) error {
		key := bytes.Repeat(source, n/len(source)+1)[:n]
		resp := new(wire.ReadResponse)
		req := &wire.ReadRequest{Ops: []*wire.Op{{Key: key, Hash: tag}}}
		if err := c.Call(t.Context(), MethodRead, req, resp); err != nil {
			return err
		}
		if got := resp.Results[0]; uint64(got.Int) != tag || !bytes.Equal(got.Bytes, key) {
			return fmt.Errorf("%d bytes with tag %d came back as %d with %d", n, tag, len(got.Bytes), got.Int)
		}
		return nil
	}
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(i), 1))
			for j := range 60 {
				n := rnd.IntN(300)
				if j%10 == 0 {
					n = rnd.IntN(300_000) // around the sizes of buffers and segments
				}
				if err := check(n, uint64(i*1000+j)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, n := range []int{0, readBufferBytes / 2, readBufferBytes, ownSegmentBytes - 40, firstAllocation + 1, 64 << 20} {
		if err := check(n, uint64(n)); err != nil {
			t.Error(err)
		}
	}
	if err := check(MaxMessage, 1); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a message above the limit: %v", err)
	}
	if err := check(5, 5); err != nil {
		t.Errorf("after it: %v", err)
	}
}

func TestATooLargeResponseFailsItsCallAlone(t *testing.T) {
	inBubble(t, ServerOptions{}, PoolOptions{}, func(s *Server) {
		echoTable(s)
		s.Handle(MethodRead, nil, func(r *Request) {
			r.Reply(&wire.ReadResponse{Results: []*wire.Result{{Bytes: make([]byte, MaxMessage)}}})
		})
	}, func(r *rig) {
		if err := r.client.Call(r.t.Context(), MethodRead, &wire.ReadRequest{}, new(wire.ReadResponse)); !errors.Is(err, ErrResponseTooLarge) {
			r.t.Errorf("error %v", err)
		}
		if n, err := r.write(r.t.Context(), 7); n != 7 || err != nil {
			r.t.Errorf("%d, %v", n, err)
		}
		if r.net.dials != 1 {
			r.t.Errorf("%d connections", r.net.dials)
		}
	})
}

func TestMessagesArriveInOrder(t *testing.T) {
	var got []uint64
	s, l, _ := listen(t, RoleNode)
	all := make(chan struct{})
	const n = 20_000
	s.Handle(MethodRaftBatch, nil, func(r *Request) {
		if got = append(got, r.Msg.(*wire.RaftBatch).HybridTime); len(got) == n {
			close(all)
		}
	})
	serve(t, s, l)
	p := NewPool(TCP{}, PoolOptions{Role: RoleNode, Cluster: testCluster})
	defer p.Close()
	c := p.To(l.Addr().String())
	for i := range uint64(n) {
		b := &wire.RaftBatch{HybridTime: i}
		if i%500 == 0 {
			b.Envelopes = []*wire.Envelope{{Raft: make([]byte, 200_000)}}
		}
		for {
			err := c.Send(MethodRaftBatch, b)
			if err == nil {
				break
			}
			// The first may wait for the connection in too large a crowd.
			if !errors.Is(err, ErrOverloaded) {
				t.Fatal(err)
			}
		}
	}
	<-all
	for i, v := range got {
		if v != uint64(i) {
			t.Fatalf("message %d arrived as number %d", v, i)
		}
	}
}

func TestRepliesMayComeInAnyOrderFromAnyGoroutine(t *testing.T) {
	inBubble(t, ServerOptions{}, PoolOptions{}, func(s *Server) {
		s.Handle(MethodWrite, nil, func(r *Request) {
			table := r.Msg.(*wire.WriteRequest).Table
			time.AfterFunc(time.Duration(100-table)*time.Millisecond, func() {
				r.Reply(&wire.WriteResponse{Copies: table})
				r.Reply(&wire.WriteResponse{Copies: 1000}) // the second is dropped
			})
		})
	}, func(r *rig) {
		var wg sync.WaitGroup
		for i := range uint32(100) {
			wg.Go(func() {
				if n, err := r.write(r.t.Context(), i); n != i || err != nil {
					r.t.Errorf("call %d: %d, %v", i, n, err)
				}
			})
		}
		wg.Wait()
	})
}

func TestCancelReachesTheHandler(t *testing.T) {
	canceled := make(chan time.Duration, 1)
	inBubble(t, ServerOptions{}, PoolOptions{}, func(s *Server) {
		start := time.Now()
		s.Handle(MethodRead, nil, func(r *Request) {
			go func() {
				<-r.Done()
				canceled <- time.Since(start)
				r.Reply(&wire.ReadResponse{}) // nobody wants it
			}()
		})
		echoTable(s)
	}, func(r *rig) {
		canceled = make(chan time.Duration, 1) // of the bubble
		ctx, cancel := context.WithCancel(r.t.Context())
		time.AfterFunc(time.Second, cancel)
		if err := r.client.Call(ctx, MethodRead, &wire.ReadRequest{}, new(wire.ReadResponse)); !errors.Is(err, context.Canceled) {
			r.t.Errorf("error %v", err)
		}
		if at := <-canceled; at != time.Second {
			r.t.Errorf("the handler heard of it after %v", at)
		}
		// The slot is used again, for another call, and the late reply is not its answer.
		if n, err := r.write(r.t.Context(), 9); n != 9 || err != nil {
			r.t.Errorf("%d, %v", n, err)
		}
		if r.server.Metrics().Canceled.Load() != 1 {
			r.t.Errorf("%d cancelled", r.server.Metrics().Canceled.Load())
		}
	})
}

func TestDeadlines(t *testing.T) {
	inBubble(t, ServerOptions{}, PoolOptions{}, func(s *Server) {
		s.Handle(MethodRead, nil, func(r *Request) {
			if left := time.Until(r.Deadline); left != 2*time.Second && left != 500*time.Millisecond {
				t.Errorf("the handler sees %v left", left)
			}
		})
	}, func(r *rig) {
		start := time.Now()
		ends := make(chan time.Duration, 2)
		for _, d := range []time.Duration{2 * time.Second, 500 * time.Millisecond} {
			r.client.Start(start.Add(d), MethodRead, &wire.ReadRequest{}, new(wire.ReadResponse), func(err error) {
				if !errors.Is(err, ErrDeadline) || !errors.Is(err, context.DeadlineExceeded) {
					r.t.Errorf("error %v", err)
				}
				ends <- time.Since(start)
			})
		}
		for _, want := range []time.Duration{500 * time.Millisecond, 2 * time.Second} {
			if at := <-ends; at < want || at > want+2*sweepSlack {
				r.t.Errorf("ended after %v, want %v", at, want)
			}
		}
		ctx, cancel := context.WithTimeout(r.t.Context(), 500*time.Millisecond)
		defer cancel()
		if err := r.client.Call(ctx, MethodRead, &wire.ReadRequest{}, new(wire.ReadResponse)); !errors.Is(err, context.DeadlineExceeded) {
			r.t.Errorf("error %v", err)
		}
		past := make(chan error, 1)
		r.client.Start(time.Now().Add(-1), MethodRead, &wire.ReadRequest{}, new(wire.ReadResponse), func(err error) { past <- err })
		if err := <-past; !errors.Is(err, ErrUnreachable) {
			r.t.Errorf("error %v of a deadline that had passed: nothing is sent", err)
		}
	})
}

func TestUnservedAndMalformed(t *testing.T) {
	inBubble(t, ServerOptions{}, PoolOptions{}, func(s *Server) {
		s.Handle(MethodTailQuery, nil, func(r *Request) { r.Reply(&wire.TailAnswer{}) })
		echoTable(s)
	}, func(r *rig) {
		if err := r.client.Call(r.t.Context(), MethodRead, &wire.ReadRequest{}, new(wire.ReadResponse)); !errors.Is(err, ErrNoMethod) {
			r.t.Errorf("error %v", err)
		}
		// Bytes of another message: a length-delimited field where there is a varint.
		bad := &wire.SnapshotChunk{Data: []byte{0xff, 0xff, 0xff}, Raft: []byte{1}}
		err := r.client.Call(r.t.Context(), MethodWrite, bad, new(wire.WriteResponse))
		if !errors.Is(err, ErrBadRequest) {
			r.t.Errorf("error %v", err)
		}
		if n, err := r.write(r.t.Context(), 3); n != 3 || err != nil {
			r.t.Errorf("afterwards: %d, %v", n, err)
		}
	})
}

// TestABatchIsAnsweredWithOneWrite sends many requests in one piece.
func TestABatchIsAnsweredWithOneWrite(t *testing.T) {
	inBubble(t, ServerOptions{}, PoolOptions{}, echoTable, func(r *rig) {
		conn, err := r.net.Dial(r.t.Context(), "s")
		if err != nil {
			r.t.Fatal(err)
		}
		frames := greet(r.t, conn, RoleNode, "c1")
		var batch []byte
		for i := range 100 {
			batch = appendFrame(batch, header{kind: kindRequest, method: MethodWrite, id: uint64(i)}, &wire.WriteRequest{Table: uint32(i)})
		}
		synctest.Wait()
		before := r.server.Metrics().Writes.Load()
		if _, err := conn.Write(batch); err != nil {
			r.t.Fatal(err)
		}
		for i := range 100 {
			h, _, err := frames.next()
			if err != nil || h.id != uint64(i) || h.kind != kindResponse {
				r.t.Fatalf("answer %d: %+v, %v", i, h, err)
			}
		}
		if n := r.server.Metrics().Writes.Load() - before; n != 1 {
			r.t.Errorf("%d writes for the answers to one read", n)
		}
		_ = conn.Close() // the test is over
	})
}

func TestEncodesAndDecodesAreCounted(t *testing.T) {
	inBubble(t, ServerOptions{}, PoolOptions{}, echoTable, func(r *rig) {
		for i := range uint32(10) {
			if _, err := r.write(r.t.Context(), i); err != nil {
				r.t.Fatal(err)
			}
		}
		synctest.Wait() // a frame is counted after it was written, which may be after its answer came
		s, p := r.server.Metrics(), r.pool.Metrics()
		for what, n := range map[string]uint64{
			"server's encodes": s.Encodes.Load(), "server's decodes": s.Decodes.Load(),
			"pool's encodes": p.Encodes.Load(), "pool's decodes": p.Decodes.Load(),
			"frames sent, but the stamp": p.FramesSent.Load() - 1, "frames received": p.FramesReceived.Load(),
		} {
			if n != 10 {
				r.t.Errorf("%s: %d", what, n)
			}
		}
		if p.BytesSent.Load() != s.BytesReceived.Load() || p.BytesSent.Load() == 0 {
			r.t.Errorf("%d bytes sent, %d received", p.BytesSent.Load(), s.BytesReceived.Load())
		}
	})
}

// slow is a network whose connections give what they receive in small parts.
type slow struct{ *pipes }

type slowConn struct{ net.Conn }

func (n slow) Dial(ctx context.Context, addr string) (net.Conn, error) {
	c, err := n.pipes.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	return slowConn{c}, nil
}

func (c slowConn) Read(b []byte) (int, error) {
	if len(b) > 8<<10 {
		b = b[:8<<10]
	}
	n, err := c.Conn.Read(b)
	if n == len(b) {
		<-time.After(5 * time.Millisecond)
	}
	return n, err
}

// TestALargeAnswerOnItsWayOutlivesTheDeadline has an answer of 2 MiB take 1.3 s,
// and of 512 KiB, which is not large, 0.3 s: the first is waited for.
func TestALargeAnswerOnItsWayOutlivesTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, net: newPipes()}
		size := 2 << 20
		r.start(ServerOptions{Role: RoleNode, Cluster: testCluster}, func(s *Server) {
			s.Handle(MethodRead, nil, func(q *Request) {
				q.Reply(&wire.ReadResponse{Results: []*wire.Result{{Bytes: make([]byte, size)}}})
			})
		})
		r.pool = NewPool(slow{r.net}, PoolOptions{Role: RoleNode, Cluster: testCluster})
		r.client = r.pool.To("s")
		read := func(limit time.Duration) error {
			done := make(chan error, 1)
			r.client.Start(time.Now().Add(limit), MethodRead, &wire.ReadRequest{}, new(wire.ReadResponse), func(err error) { done <- err })
			return <-done
		}
		begin := time.Now()
		if err := read(500 * time.Millisecond); err != nil || time.Since(begin) < time.Second {
			t.Errorf("a large answer: %v after %v", err, time.Since(begin))
		}
		size = 512 << 10
		if err := read(100 * time.Millisecond); !errors.Is(err, ErrDeadline) {
			t.Errorf("an answer that is not large: %v", err)
		}
		if err := r.pool.Close(); err != nil {
			t.Error(err)
		}
		r.stop()
	})
}
