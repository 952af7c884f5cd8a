package rpc

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/braiddb/braid/internal/wire"
)

// greet shakes hands on a bare connection.
func greet(t testing.TB, conn net.Conn, role Role, cluster string) *frameReader {
	t.Helper()
	h := &hello{versionMin: 1, versionMax: 1, role: role, lane: LaneClient, cluster: cluster}
	if _, err := conn.Write(h.append(nil)); err != nil {
		t.Fatal(err)
	}
	if answer, err := readHello(conn); err != nil || answer.refusal != RefusalNone {
		t.Fatalf("%+v, %v", answer, err)
	}
	return newFrameReader(conn, new(Metrics), func() {}, func() {})
}

func appendFrame(b []byte, h header, m Message) []byte {
	size := 0
	if m != nil {
		size = m.SizeVT()
	}
	frame := make([]byte, headerBytes+size)
	if err := fill(frame, h, m, new(Metrics)); err != nil {
		panic(err)
	}
	return append(b, frame...)
}

func TestHandshakeRefusals(t *testing.T) {
	cluster := func(id string) func() string { return func() string { return id } }
	for _, tc := range []struct {
		name   string
		server ServerOptions
		pool   PoolOptions
		want   Refusal
	}{
		{"another cluster", ServerOptions{Role: RoleNode, Cluster: cluster("a")}, PoolOptions{Role: RoleNode, Cluster: cluster("b")}, RefusalCluster},
		{"a client at a node listener", ServerOptions{Role: RoleNode}, PoolOptions{Role: RoleClient}, RefusalRole},
		{"a node at a client listener", ServerOptions{Role: RoleClient}, PoolOptions{Role: RoleNode}, RefusalRole},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inBubble(t, tc.server, tc.pool, echoTable, func(r *rig) {
				_, err := r.write(r.t.Context(), 1)
				var refused *HandshakeError
				if !errors.As(err, &refused) || refused.Refusal != tc.want || !errors.Is(err, ErrUnreachable) {
					r.t.Errorf("error %v", err)
				}
				if refused != nil && refused.Ours == refused.Theirs {
					r.t.Errorf("the error does not tell the two apart: %v", refused)
				}
				synctest.Wait()
				if s, p := r.server.Metrics(), r.pool.Metrics(); s.Refusals.Load() != 1 || p.Refusals.Load() != 1 {
					r.t.Errorf("refusals: server %d, pool %d", s.Refusals.Load(), p.Refusals.Load())
				}
			})
		})
	}
}

func TestOtherVersionsAreRefused(t *testing.T) {
	inBubble(t, ServerOptions{}, PoolOptions{}, echoTable, func(r *rig) {
		for _, v := range [][2]uint16{{versionMax + 1, 9}, {0, 0}} {
			conn, err := r.net.Dial(r.t.Context(), "s")
			if err != nil {
				r.t.Fatal(err)
			}
			h := &hello{versionMin: v[0], versionMax: v[1], role: RoleNode, cluster: "c1"}
			if _, err := conn.Write(h.append(nil)); err != nil {
				r.t.Fatal(err)
			}
			answer, err := readHello(conn)
			if err != nil || answer.refusal != RefusalVersion || answer.versionMax != versionMax {
				r.t.Errorf("versions %v: %+v, %v", v, answer, err)
			}
			if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
				r.t.Errorf("the connection goes on: %v", err)
			}
		}
	})
}

func TestTooManyConnectionsAreRefused(t *testing.T) {
	inBubble(t, ServerOptions{Role: RoleNode, Cluster: testCluster, ConnectionsMax: 1}, PoolOptions{}, echoTable, func(r *rig) {
		if _, err := r.write(r.t.Context(), 1); err != nil {
			r.t.Fatal(err)
		}
		other := NewPool(r.net, PoolOptions{Role: RoleNode, Cluster: testCluster})
		defer other.Close()
		err := other.To("s").Call(r.t.Context(), MethodWrite, &wire.WriteRequest{}, new(wire.WriteResponse))
		var refused *HandshakeError
		if !errors.As(err, &refused) || refused.Refusal != RefusalBusy {
			r.t.Errorf("error %v", err)
		}
	})
}

func TestAStrangerThatSaysNothingIsCutOff(t *testing.T) {
	inBubble(t, ServerOptions{}, PoolOptions{}, echoTable, func(r *rig) {
		conn, err := r.net.Dial(r.t.Context(), "s")
		if err != nil {
			r.t.Fatal(err)
		}
		start := time.Now()
		if _, err := conn.Read(make([]byte, 1)); err != io.EOF || time.Since(start) != 5*time.Second {
			r.t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

// TestANodeWithoutAClusterMayOnlyJoin follows a node from its first word to the
// moment when it knows its cluster.
func TestANodeWithoutAClusterMayOnlyJoin(t *testing.T) {
	var id atomic.Value
	id.Store("")
	setup := func(s *Server) {
		echoTable(s)
		s.Handle(MethodHello, nil, func(r *Request) { r.Reply(&wire.HelloResponse{ClusterId: "c1"}) })
	}
	po := PoolOptions{Role: RoleNode, Cluster: func() string { return id.Load().(string) }}
	inBubble(t, ServerOptions{}, po, setup, func(r *rig) {
		resp := new(wire.HelloResponse)
		if err := r.client.Call(r.t.Context(), MethodHello, &wire.HelloRequest{}, resp); err != nil || resp.ClusterId != "c1" {
			r.t.Fatalf("%v, %v", resp, err)
		}
		_, err := r.write(r.t.Context(), 1)
		var refused *HandshakeError
		if !errors.As(err, &refused) || refused.Refusal != RefusalCluster || !errors.Is(err, ErrUnreachable) {
			r.t.Errorf("a write before the cluster is known: %v", err)
		}
		synctest.Wait()
		if err := r.client.Call(r.t.Context(), MethodHello, &wire.HelloRequest{}, resp); err != nil {
			r.t.Fatal(err)
		}
		id.Store("c1")
		if n, err := r.write(r.t.Context(), 2); n != 2 || err != nil {
			r.t.Errorf("a write afterwards: %d, %v", n, err)
		}
		id.Store("c2")
		_, err = r.pool.To("s").lanes[LaneRaft].connect()
		if !errors.As(err, &refused) {
			r.t.Errorf("another cluster's: %v", err)
		}
	})
}

func TestNodeMethodsCanNotBeReachedByClients(t *testing.T) {
	inBubble(t, ServerOptions{Role: RoleClient}, PoolOptions{Role: RoleClient}, echoTable, func(r *rig) {
		conn, err := r.net.Dial(r.t.Context(), "s")
		if err != nil {
			r.t.Fatal(err)
		}
		frames := greet(r.t, conn, RoleClient, "")
		for m := Method(0); m < Method(len(methods))+3; m++ {
			if _, err := conn.Write(appendFrame(nil, header{kind: kindRequest, method: m, id: 1}, nil)); err != nil {
				r.t.Fatal(err)
			}
			h, _, err := frames.next()
			if err != nil {
				r.t.Fatal(err)
			}
			if refused := h.kind == kindError && h.code == errorNoMethod; refused == (m == MethodWrite) {
				r.t.Errorf("%s: kind %d, code %d", m, h.kind, h.code)
			}
		}
		_ = conn.Close() // the test is over
		defer func() {
			if msg, _ := recover().(string); !strings.Contains(msg, "RaftBatch is not for role client") {
				r.t.Errorf("a handler for nodes was taken: %v", msg)
			}
		}()
		r.server.Handle(MethodRaftBatch, nil, func(*Request) {})
	})
}

func TestBreakingAConnection(t *testing.T) {
	setup := func(s *Server) {
		echoTable(s)
		s.Handle(MethodRead, nil, func(*Request) {}) // never answers
	}
	inBubble(t, ServerOptions{}, PoolOptions{}, setup, func(r *rig) {
		ended := make(chan error, 1)
		r.client.Start(time.Time{}, MethodRead, &wire.ReadRequest{}, new(wire.ReadResponse), func(err error) { ended <- err })
		synctest.Wait()
		r.net.cut()
		if err := <-ended; !errors.Is(err, ErrLost) || errors.Is(err, ErrUnreachable) {
			r.t.Errorf("error %v of a call that was sent", err)
		}
		if n, err := r.write(r.t.Context(), 4); n != 4 || err != nil {
			r.t.Errorf("on a new connection: %d, %v", n, err)
		}
	})
}

func TestAnUnreachablePeerFailsFastUntilItIsBack(t *testing.T) {
	inBubble(t, ServerOptions{}, PoolOptions{}, echoTable, func(r *rig) {
		r.stop()
		for range 200 {
			if _, err := r.write(r.t.Context(), 1); !errors.Is(err, ErrUnreachable) {
				r.t.Fatalf("error %v", err)
			}
			<-time.After(10 * time.Millisecond)
		}
		// 2 s with pauses that double from 10 ms to 500 ms.
		if r.net.dials < 5 || r.net.dials > 14 {
			r.t.Errorf("%d dials in 2 s", r.net.dials)
		}
		r.start(ServerOptions{Role: RoleNode, Cluster: testCluster}, echoTable)
		start := time.Now()
		for {
			if n, err := r.write(r.t.Context(), 5); err == nil {
				if n != 5 {
					r.t.Errorf("answer %d", n)
				}
				break
			}
			<-time.After(time.Millisecond)
		}
		if took := time.Since(start); took > 600*time.Millisecond {
			r.t.Errorf("reached again after %v", took)
		}
	})
}

// A peer that nobody spoke to while it came back is reached by the first call: why
// it was not reachable long ago says nothing.
func TestTheFirstCallFindsAPeerThatIsBack(t *testing.T) {
	inBubble(t, ServerOptions{}, PoolOptions{}, echoTable, func(r *rig) {
		r.stop()
		for range 2 {
			if _, err := r.write(r.t.Context(), 1); !errors.Is(err, ErrUnreachable) {
				r.t.Fatalf("error %v", err)
			}
		}
		if r.net.dials != 1 {
			r.t.Errorf("%d dials: the second call should be refused within the pause", r.net.dials)
		}
		<-time.After(time.Second)
		r.start(ServerOptions{Role: RoleNode, Cluster: testCluster}, echoTable)
		if n, err := r.write(r.t.Context(), 5); err != nil || n != 5 {
			r.t.Errorf("the first call to a peer that is back: %d, %v", n, err)
		}
	})
}

func TestAPeerThatDoesNotAcceptCostsTheDialTimeoutOnce(t *testing.T) {
	inBubble(t, ServerOptions{}, PoolOptions{}, echoTable, func(r *rig) {
		if _, err := r.net.Listen("black hole"); err != nil {
			r.t.Fatal(err)
		}
		c := r.pool.To("black hole")
		start := time.Now()
		early := make(chan time.Duration, 1)
		c.Start(start.Add(300*time.Millisecond), MethodWrite, &wire.WriteRequest{}, new(wire.WriteResponse), func(err error) {
			if !errors.Is(err, ErrUnreachable) {
				r.t.Errorf("error %v", err)
			}
			early <- time.Since(start)
		})
		err := c.Call(r.t.Context(), MethodWrite, &wire.WriteRequest{}, new(wire.WriteResponse))
		if !errors.Is(err, ErrUnreachable) || time.Since(start) != 2*time.Second {
			r.t.Errorf("%v after %v", err, time.Since(start))
		}
		if at := <-early; at != 300*time.Millisecond {
			r.t.Errorf("the call with a deadline ended after %v", at)
		}
		if err := c.Send(MethodBeat, &wire.Beat{}); err != nil {
			r.t.Errorf("the first message of another lane waits for its connection: %v", err)
		}
		ctx, cancel := context.WithTimeout(r.t.Context(), time.Second)
		defer cancel()
		start = time.Now()
		if err := c.Call(ctx, MethodWrite, &wire.WriteRequest{}, new(wire.WriteResponse)); !errors.Is(err, ErrUnreachable) || time.Since(start) > 0 {
			r.t.Errorf("a later call: %v after %v", err, time.Since(start))
		}
	})
}

func TestACanceledCallThatWaitsForItsConnection(t *testing.T) {
	inBubble(t, ServerOptions{}, PoolOptions{}, echoTable, func(r *rig) {
		l, err := r.net.Listen("late")
		if err != nil {
			r.t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(r.t.Context())
		time.AfterFunc(time.Second, cancel)
		if err := r.pool.To("late").Call(ctx, MethodWrite, &wire.WriteRequest{}, new(wire.WriteResponse)); !errors.Is(err, context.Canceled) {
			r.t.Errorf("error %v", err)
		}
		late := NewServer(ServerOptions{Role: RoleNode, Cluster: testCluster})
		late.Handle(MethodWrite, nil, func(r *Request) { t.Error("a call that was taken back was sent") })
		go func() { _ = late.Serve(l) }() // ends with Close
		synctest.Wait()
		if err := late.Close(); err != nil {
			r.t.Error(err)
		}
	})
}

// TestASilentPeerIsGivenUp freezes the peer's end, as SIGSTOP and a cut link do.
func TestASilentPeerIsGivenUp(t *testing.T) {
	inBubble(t, ServerOptions{}, PoolOptions{}, echoTable, func(r *rig) {
		l, err := r.net.Listen("frozen")
		if err != nil {
			r.t.Fatal(err)
		}
		frozen := make(chan net.Conn, 1)
		go func() {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if _, err := readHello(conn); err == nil {
				h := hello{versionMin: 1, versionMax: 1, role: RoleNode, cluster: "c1"}
				_, _ = conn.Write(h.append(nil)) // it reads nothing more
			}
			frozen <- conn
		}()
		start := time.Now()
		err = r.pool.To("frozen").Call(r.t.Context(), MethodWrite, &wire.WriteRequest{}, new(wire.WriteResponse))
		if !errors.Is(err, ErrLost) || time.Since(start) < 3*time.Second || time.Since(start) > 6*time.Second {
			r.t.Errorf("%v after %v", err, time.Since(start))
		}
		_ = (<-frozen).Close() // the test is over
	})
}

func TestAnIdleConnectionCostsNothingAndLivesOn(t *testing.T) {
	inBubble(t, ServerOptions{}, PoolOptions{}, func(s *Server) {
		echoTable(s)
		s.Handle(MethodRaftBatch, nil, func(*Request) {})
	}, func(r *rig) {
		if _, err := r.write(r.t.Context(), 1); err != nil {
			r.t.Fatal(err)
		}
		frames := r.pool.Metrics().FramesSent.Load()
		<-time.After(time.Hour)
		if n := r.pool.Metrics().FramesSent.Load() - frames; n > 0 {
			r.t.Errorf("%d frames in an idle hour", n)
		}
		// One-way messages have no answers: pings keep the connection known to live.
		for range 60 {
			if err := r.client.Send(MethodRaftBatch, &wire.RaftBatch{}); err != nil {
				r.t.Fatal(err)
			}
			<-time.After(500 * time.Millisecond)
		}
		if _, err := r.write(r.t.Context(), 1); err != nil {
			r.t.Fatal(err)
		}
		if r.net.dials != 2 {
			r.t.Errorf("%d connections for two lanes", r.net.dials)
		}
	})
}

// TestSendNeverBlocks sends to a peer that takes nothing (R5).
func TestSendNeverBlocks(t *testing.T) {
	var release chan struct{}
	inBubble(t, ServerOptions{}, PoolOptions{QueueBytes: 1 << 20}, func(s *Server) {
		release = make(chan struct{})
		s.Handle(MethodRaftBatch, nil, func(*Request) { <-release }) // a handler that blocks: the peer reads no more
	}, func(r *rig) {
		msg := &wire.RaftBatch{Envelopes: []*wire.Envelope{{Raft: make([]byte, 10_000)}}}
		start, dropped := time.Now(), 0
		for range 500 {
			if err := r.client.Send(MethodRaftBatch, msg); errors.Is(err, ErrOverloaded) {
				dropped++
			} else if err != nil {
				r.t.Fatal(err)
			}
			synctest.Wait()
		}
		if time.Since(start) > 0 {
			r.t.Errorf("sending took %v", time.Since(start))
		}
		if dropped < 300 || uint64(dropped) != r.pool.Metrics().Dropped.Load() {
			r.t.Errorf("%d of 5 MB were dropped, %d counted; the queue holds 1 MiB", dropped, r.pool.Metrics().Dropped.Load())
		}
		r.net.cut()
		close(release)
	})
}

// TestAServerReadsNoMoreThanItsPeerTakes asks for much and takes nothing.
func TestAServerReadsNoMoreThanItsPeerTakes(t *testing.T) {
	var handled atomic.Int64
	setup := func(s *Server) {
		s.Handle(MethodRead, nil, func(r *Request) {
			handled.Add(1)
			r.Reply(&wire.ReadResponse{Results: []*wire.Result{{Bytes: make([]byte, 1<<20)}}})
		})
	}
	inBubble(t, ServerOptions{}, PoolOptions{}, setup, func(r *rig) {
		conn, err := r.net.Dial(r.t.Context(), "s")
		if err != nil {
			r.t.Fatal(err)
		}
		frames := greet(r.t, conn, RoleNode, "c1")
		var batch []byte
		for i := range 100 {
			batch = appendFrame(batch, header{kind: kindRequest, method: MethodRead, id: uint64(i)}, &wire.ReadRequest{})
		}
		go func() { _, _ = conn.Write(batch) }() // some of it is taken
		synctest.Wait()
		if n := handled.Load(); n > 18 {
			r.t.Errorf("%d requests were handled for a peer that takes no answer, the queue holds 16 MiB", n)
		}
		for i := range 100 {
			if h, p, err := frames.next(); err != nil || h.id != uint64(i) || len(p) < 1<<20 {
				r.t.Fatalf("answer %d: %+v, %v", i, h, err)
			}
		}
		_ = conn.Close() // the test is over
	})
}

func TestTooManyCallsAtOnceAreRefused(t *testing.T) {
	inBubble(t, ServerOptions{}, PoolOptions{}, func(s *Server) {
		s.Handle(MethodRead, nil, func(*Request) {})
		echoTable(s)
	}, func(r *rig) {
		if _, err := r.write(r.t.Context(), 1); err != nil {
			r.t.Fatal(err)
		}
		refused, lost := 0, 0
		for range slotsMax + 10 {
			r.client.Start(time.Time{}, MethodRead, &wire.ReadRequest{}, new(wire.ReadResponse), func(err error) {
				switch {
				case errors.Is(err, ErrOverloaded):
					refused++
				case errors.Is(err, ErrLost):
					lost++
				default:
					r.t.Errorf("error %v", err)
				}
			})
		}
		synctest.Wait()
		r.net.cut()
		synctest.Wait()
		if refused != 10 || lost != slotsMax {
			r.t.Errorf("%d refused, %d lost", refused, lost)
		}
	})
}

func TestCloseEndsEverything(t *testing.T) {
	setup := func(s *Server) { s.Handle(MethodRead, nil, func(*Request) {}) }
	inBubble(t, ServerOptions{}, PoolOptions{}, setup, func(r *rig) {
		ended := make(chan error, 2)
		done := func(err error) { ended <- err }
		r.client.Start(time.Time{}, MethodRead, &wire.ReadRequest{}, new(wire.ReadResponse), done)
		synctest.Wait()
		if err := r.pool.Close(); err != nil {
			r.t.Fatal(err)
		}
		if err := <-ended; !errors.Is(err, ErrLost) || !errors.Is(err, ErrClosed) {
			r.t.Errorf("error %v of a call under way", err)
		}
		for _, c := range []*Client{r.client, r.pool.To("another")} {
			c.Start(time.Time{}, MethodRead, &wire.ReadRequest{}, new(wire.ReadResponse), done)
			if err := <-ended; !errors.Is(err, ErrUnreachable) || !errors.Is(err, ErrClosed) {
				r.t.Errorf("error %v of a call after Close", err)
			}
			if err := c.Send(MethodBeat, &wire.Beat{}); !errors.Is(err, ErrClosed) {
				r.t.Errorf("error %v of a message after Close", err)
			}
		}
	})
}

func TestBytesThatAreNoFramesEndTheConnection(t *testing.T) {
	frame := appendFrame(nil, header{kind: kindRequest, method: MethodWrite, id: 1}, &wire.WriteRequest{Table: 9})
	pong := appendFrame(nil, header{kind: kindResponse, method: MethodWrite, id: 1}, nil)
	damaged := append([]byte{}, frame...)
	damaged[len(damaged)-1] ^= 1
	long := append([]byte{}, frame[:headerBytes]...)
	binary.LittleEndian.PutUint32(long, MaxMessage+1)
	for what, b := range map[string][]byte{"damaged": damaged, "too long": long, "a response": pong, "text": []byte("GET / HTTP/1.1\r\nHost: example\r\n\r\n")} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, ServerOptions{}, PoolOptions{}, func(s *Server) {
				s.Handle(MethodWrite, nil, func(*Request) { t.Error("it was handled") })
			}, func(r *rig) {
				conn, err := r.net.Dial(r.t.Context(), "s")
				if err != nil {
					r.t.Fatal(err)
				}
				frames := greet(r.t, conn, RoleNode, "c1")
				if _, err := conn.Write(b); err != nil {
					r.t.Fatal(err)
				}
				if h, _, err := frames.next(); err != io.EOF {
					r.t.Errorf("%+v, %v", h, err)
				}
				synctest.Wait()
				if n := r.server.Metrics().BadFrames.Load(); n != 1 {
					r.t.Errorf("%d counted", n)
				}
			})
		})
	}
}
