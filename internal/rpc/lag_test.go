package rpc

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/braiddb/braid/internal/wire"
)

func TestLagIsWhatAStampWaitedBeyondTheFastest(t *testing.T) {
	const ms = time.Millisecond
	began := time.Unix(1_000_000, 0) // the server's clock; the sender's counts from its own zero
	l := lag{began: began}
	take := func(at, added, want time.Duration) {
		t.Helper()
		if l.stamp(began.Add(at), added); l.is != want {
			t.Errorf("a stamp of %v that came at %v waited %v, not %v", added, at, l.is, want)
		}
	}
	take(103*ms, 0, 0)
	take(118*ms, 5*ms, 10*ms)
	take(112*ms, 10*ms, 0) // the fastest so far: clocks are 102 ms apart
	take(413*ms, 11*ms, 300*ms)
	// The sender's clock is slower by one in a thousand: without forgetting, an hour
	// of that would look like seconds of waiting.
	for s := time.Second; s < time.Hour; s += time.Second {
		l.stamp(began.Add(102*ms+s+s/1000), s)
	}
	if l.is > 2*lagMemory/1000+ms {
		t.Errorf("clocks that differ in speed are taken for %v of waiting", l.is)
	}
}

// crowded serves writes that are never answered, reads, and what is no user's work.
func crowded(held *[]*Request) func(*Server) {
	return func(s *Server) {
		s.Handle(MethodWrite, nil, func(r *Request) { *held = append(*held, r) })
		s.Handle(MethodTailQuery, nil, func(r *Request) { r.Reply(&wire.TailAnswer{}) })
	}
}

// TestWhatWaitedTooLongIsRefusedUndecoded sends stamps that came late, and requests behind them.
func TestWhatWaitedTooLongIsRefusedUndecoded(t *testing.T) {
	var taken []*Request
	inBubble(t, ServerOptions{}, PoolOptions{}, crowded(&taken), func(r *rig) {
		conn, err := r.net.Dial(r.t.Context(), "s")
		if err != nil {
			r.t.Fatal(err)
		}
		frames := greet(r.t, conn, RoleNode, "c1")
		id := uint64(0)
		send := func(added time.Duration, m Method, timeout uint32) {
			id++
			b := appendFrame(nil, header{kind: kindStamp, id: uint64(added)}, nil)
			msg := Message(&wire.WriteRequest{})
			if m == MethodTailQuery {
				msg = &wire.TailQuery{}
			}
			if _, err := conn.Write(appendFrame(b, header{kind: kindRequest, method: m, id: id, timeout: timeout}, msg)); err != nil {
				r.t.Fatal(err)
			}
			synctest.Wait()
		}
		expect := func(k kind, code uint8) header {
			r.t.Helper()
			h, _, err := frames.next()
			if err != nil || h.kind != k || h.code != code || h.id != id {
				r.t.Fatalf("answer %+v, %v; expected kind %d, code %d to %d", h, err, k, code, id)
			}
			return h
		}
		began := time.Now()
		send(0, MethodWrite, 1000) // nothing is known yet
		if len(taken) != 1 {
			r.t.Fatal("the first request was not taken up")
		}
		<-time.After(2 * time.Second)
		send(time.Since(began)-200*time.Millisecond, MethodWrite, 1000) // waited 200 ms: within the bound
		if len(taken) != 2 || !taken[1].Deadline.Equal(time.Now().Add(800*time.Millisecond)) {
			r.t.Errorf("%d taken up, the last with deadline %v: waiting must be taken off it", len(taken), taken[len(taken)-1].Deadline)
		}
		send(time.Since(began)-200*time.Millisecond, MethodWrite, 200) // its time was over
		expect(kindError, errorExpired)
		send(time.Since(began)-400*time.Millisecond, MethodWrite, 0)
		if h := expect(kindError, errorBusy); h.timeout != 200 {
			r.t.Errorf("told to ask again after %d ms", h.timeout)
		}
		send(time.Since(began)-400*time.Millisecond, MethodTailQuery, 1000) // no user's: taken whatever waits
		expect(kindResponse, 0)
		send(time.Since(began), MethodWrite, 1000) // the waiting is over
		if len(taken) != 3 {
			r.t.Errorf("%d requests were taken up", len(taken))
		}
		m := r.server.Metrics()
		if m.Expired.Load() != 1 || m.Lagging.Load() != 1 || m.Decodes.Load() != 4 {
			r.t.Errorf("%d expired, %d refused, %d decoded", m.Expired.Load(), m.Lagging.Load(), m.Decodes.Load())
		}
		_ = conn.Close() // the test is over
	})
}

// TestRequestsUnderWayAreBoundedByBytes leaves requests unanswered until no more are taken.
func TestRequestsUnderWayAreBoundedByBytes(t *testing.T) {
	var held []*Request
	o := ServerOptions{Role: RoleNode, Cluster: testCluster, RequestBytes: 4 * requestOverhead}
	inBubble(t, o, PoolOptions{}, crowded(&held), func(r *rig) {
		write := func() chan error {
			done := make(chan error, 1)
			r.client.Start(time.Time{}, MethodWrite, &wire.WriteRequest{Table: 1}, new(wire.WriteResponse), func(err error) { done <- err })
			synctest.Wait()
			return done
		}
		var under []chan error
		for range 3 {
			under = append(under, write())
		}
		err := <-write()
		if !errors.Is(err, ErrOverloaded) || RetryAfter(err) <= 0 {
			r.t.Errorf("one too many: %v, ask again after %v", err, RetryAfter(err))
		}
		if err := r.client.Call(r.t.Context(), MethodTailQuery, &wire.TailQuery{}, new(wire.TailAnswer)); err != nil {
			r.t.Errorf("what is no user's work: %v", err)
		}
		held[0].Reply(&wire.WriteResponse{})
		if err := <-under[0]; err != nil {
			r.t.Error(err)
		}
		last := write()
		if len(held) != 4 {
			r.t.Errorf("%d were taken up: an answer makes room", len(held))
		}
		for _, h := range held[1:] {
			h.Reply(&wire.WriteResponse{})
		}
		if err := <-last; err != nil {
			r.t.Error(err)
		}
		if m := r.server.Metrics(); m.Crowded.Load() != 1 || m.RequestBytes.Load() != 0 {
			r.t.Errorf("%d refused, %d bytes are still counted", m.Crowded.Load(), m.RequestBytes.Load())
		}
	})
}

// TestABeatPassesACloggedLaneOfUsers fills the lane of users' requests, whose
// server does not read, and calls on the lane of control.
func TestABeatPassesACloggedLaneOfUsers(t *testing.T) {
	var block chan struct{}
	beats := 0
	inBubble(t, ServerOptions{}, PoolOptions{QueueBytes: 1 << 10}, func(s *Server) {
		block = make(chan struct{}) // in the bubble
		s.Handle(MethodWrite, nil, func(r *Request) { <-block; r.Reply(&wire.WriteResponse{}) })
		s.Handle(MethodBeat, nil, func(*Request) { beats++ })
		s.Handle(MethodSeal, nil, func(r *Request) { r.Reply(&wire.SealResponse{}) })
		s.Handle(MethodHeartbeat, nil, func(r *Request) { r.Reply(&wire.HeartbeatResponse{}) })
	}, func(r *rig) {
		var refused, ended atomic.Int64 // some end on the lane's goroutine
		for range 3000 {
			r.client.Start(time.Time{}, MethodWrite, &wire.WriteRequest{ClientId: make([]byte, 100)}, new(wire.WriteResponse), func(err error) {
				if ended.Add(1); errors.Is(err, ErrOverloaded) {
					refused.Add(1)
				}
			})
		}
		synctest.Wait()
		if refused.Load() == 0 || ended.Load() != refused.Load() {
			r.t.Fatalf("%d ended, %d refused: the lane should be clogged", ended.Load(), refused.Load())
		}
		if err := r.client.Send(MethodBeat, &wire.Beat{}); err != nil {
			r.t.Error(err)
		}
		for m, msgs := range map[Method][2]Message{
			MethodSeal: {&wire.SealRequest{}, new(wire.SealResponse)}, MethodHeartbeat: {&wire.HeartbeatRequest{}, new(wire.HeartbeatResponse)},
		} {
			if err := r.client.Call(r.t.Context(), m, msgs[0], msgs[1]); err != nil {
				r.t.Errorf("%s: %v", m, err)
			}
		}
		if synctest.Wait(); beats != 1 {
			r.t.Error("the beat did not arrive")
		}
		close(block)
	})
}
