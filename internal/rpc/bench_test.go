package rpc

import (
	"context"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/wire"
)

// The benchmarks echo 100-byte messages through one connection. cpu-µs/op is
// user and system time of both ends together, per round trip: the currency of
// the write path.

func BenchmarkCall1(b *testing.B)   { benchmarkCall(b, 1) }
func BenchmarkCall64(b *testing.B)  { benchmarkCall(b, 64) }
func BenchmarkCall256(b *testing.B) { benchmarkCall(b, 256) }

func benchmarkCall(b *testing.B, callers int) {
	c, metrics := benchmarkPair(b, func(r *Request) { r.Reply(echo(r)) })
	run(b, callers, metrics, func(n int) {
		req, resp := benchmarkRequest(), new(wire.SnapshotAck)
		for range n {
			if err := c.Call(context.Background(), MethodTailQuery, req, resp); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkGo64 keeps 64 asynchronous calls under way.
func BenchmarkGo64(b *testing.B) {
	c, metrics := benchmarkPair(b, func(r *Request) { r.Reply(echo(r)) })
	run(b, 1, metrics, func(n int) {
		req := benchmarkRequest()
		window := make(chan struct{}, 64)
		done := func(err error) {
			if err != nil {
				b.Error(err)
			}
			<-window
		}
		for range n {
			window <- struct{}{}
			c.Start(time.Time{}, MethodTailQuery, req, new(wire.SnapshotAck), done)
		}
		for range cap(window) {
			window <- struct{}{}
		}
	})
}

// BenchmarkReplyElsewhere64 answers from one other goroutine, as an apply worker does.
func BenchmarkReplyElsewhere64(b *testing.B) {
	requests := make(chan *Request, 1024)
	go func() {
		for r := range requests {
			r.Reply(echo(r))
		}
	}()
	c, metrics := benchmarkPair(b, func(r *Request) { requests <- r })
	b.Cleanup(func() { close(requests) })
	run(b, 64, metrics, func(n int) {
		req, resp := benchmarkRequest(), new(wire.SnapshotAck)
		for range n {
			if err := c.Call(context.Background(), MethodTailQuery, req, resp); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkSend sends one-way messages.
func BenchmarkSend(b *testing.B) {
	var got sync.WaitGroup
	s, l, metrics := listen(b, RoleNode)
	s.Handle(MethodRaftBatch, nil, func(*Request) { got.Done() })
	serve(b, s, l)
	p := NewPool(TCP{}, PoolOptions{Role: RoleNode, Cluster: testCluster, Metrics: metrics})
	b.Cleanup(func() { _ = p.Close() })
	c := p.To(l.Addr().String())
	msg := &wire.RaftBatch{Envelopes: []*wire.Envelope{{Group: 1, Raft: make([]byte, 88)}}}
	run(b, 1, metrics, func(n int) {
		for i := range n {
			got.Add(1)
			if err := c.Send(MethodRaftBatch, msg); err != nil {
				b.Error(err)
				got.Done()
				return
			}
			if i%512 == 511 {
				got.Wait()
			}
		}
		got.Wait()
	})
}

func benchmarkRequest() Message {
	return &wire.SnapshotChunk{Group: 7, Data: make([]byte, 96)}
}

func echo(r *Request) Message {
	return &wire.SnapshotAck{Error: &wire.Error{Message: string(r.Msg.(*wire.SnapshotChunk).Data)}}
}

func benchmarkPair(b *testing.B, handle func(*Request)) (*Client, *Metrics) {
	s, l, metrics := listen(b, RoleNode)
	s.Handle(MethodTailQuery, func() Message { return new(wire.SnapshotChunk) }, handle)
	serve(b, s, l)
	p := NewPool(TCP{}, PoolOptions{Role: RoleNode, Cluster: testCluster, Metrics: metrics})
	b.Cleanup(func() { _ = p.Close() })
	c := p.To(l.Addr().String())
	if err := c.Call(context.Background(), MethodTailQuery, benchmarkRequest(), new(wire.SnapshotAck)); err != nil {
		b.Fatal(err)
	}
	return c, metrics
}

func run(b *testing.B, callers int, metrics *Metrics, loop func(n int)) {
	b.ReportAllocs()
	b.ResetTimer()
	writes, before := metrics.Writes.Load(), cpuTime()
	var wg sync.WaitGroup
	for i := range callers {
		n := b.N / callers
		if i == 0 {
			n += b.N % callers
		}
		wg.Go(func() { loop(n) })
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64((cpuTime()-before).Nanoseconds())/1e3/float64(b.N), "cpu-µs/op")
	b.ReportMetric(float64(metrics.Writes.Load()-writes)/float64(b.N), "writes/op")
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
