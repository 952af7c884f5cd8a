package epochstore_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/logs/epochstore"
	"github.com/braiddb/braid/internal/node"
	"github.com/braiddb/braid/internal/wire"
)

// startNode runs a cluster of one in memory, and gives its client address.
func startNode(t *testing.T) string { return startNodeOn(t, "table") }

// startNodeOn has it keep its epochs on a store.
func startNodeOn(t *testing.T, store string) string {
	t.Helper()
	deps := node.RealDeps(slog.New(slog.NewTextHandler(io.Discard, nil)), func(err error) { t.Errorf("fatal: %v", err) })
	deps.FS = vfs.NewMem()
	n, err := node.Start(t.Context(), node.Config{
		Data: "/data", Memory: 128 << 20, JournalBytes: 64 << 20, NodePort: -1, ClientPort: -1, RedisPort: -1, ConsolePort: -1, EpochStore: store,
	}, deps)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Kill)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := n.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	return n.Addrs().Client
}

// network is TCP whose connections can be cut.
type network struct{ wires }

func (n *network) Listen(string) (net.Listener, error) {
	return nil, errors.New("a client does not listen")
}

func (n *network) Dial(_ context.Context, addr string) (net.Conn, error) {
	return n.dial("tcp", addr, time.Second)
}

func openTable(t *testing.T, addr string, n *network) *epochstore.Table {
	t.Helper()
	c, err := client.Connect(t.Context(), []string{addr}, client.Options{Network: n})
	if err != nil {
		t.Fatal(err)
	}
	s := epochstore.NewTable(c)
	t.Cleanup(func() {
		s.Close()
		_ = c.Close()
	})
	return s
}

func TestTable(t *testing.T) {
	addr := startNode(t)
	s := openTable(t, addr, new(network))
	if err := s.Records(t.Context(), func(*wire.EpochRecord, error) bool { return false }); err != nil {
		t.Errorf("before there is a table: %v", err)
	}
	conform(t, s)
	t.Run("records are listed", func(t *testing.T) { listed(t, s) })
	t.Run("connections are cut", func(t *testing.T) {
		var n [3]network
		var s [3]*epochstore.Table
		for i := range s {
			s[i] = openTable(t, addr, &n[i])
		}
		var tries atomic.Int64
		race(t, 7, 100, func(i int) {
			if tries.Add(1)%7 == 0 {
				go n[i%3].cut()
			}
		}, s[0], s[1], s[2])
	})
	t.Run("closed", func(t *testing.T) {
		gone := openTable(t, addr, new(network))
		gone.Close()
		if _, err := read(gone, 1); !errors.Is(err, epochstore.ErrClosed) {
			t.Error(err)
		}
	})
}

// listed looks at what conform has left.
func listed(t *testing.T, s interface {
	Records(context.Context, func(*wire.EpochRecord, error) bool) error
}) {
	seen := map[logs.LogID]uint64{}
	if err := s.Records(t.Context(), func(r *wire.EpochRecord, err error) bool {
		if err != nil {
			t.Error(err)
			return false
		}
		seen[logs.LogID(r.Log)] = r.Version
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if len(seen) != 1004 || seen[10_001] != 5 || seen[20_999] != 1 {
		t.Errorf("%d records, log 10001 has version %d", len(seen), seen[10_001])
	}
}

// BenchmarkTable provisions logs as a node's death would have them: all at once.
func BenchmarkTable(b *testing.B) {
	deps := node.RealDeps(slog.New(slog.NewTextHandler(io.Discard, nil)), func(err error) { b.Errorf("fatal: %v", err) })
	deps.FS = vfs.NewMem()
	n, err := node.Start(b.Context(), node.Config{
		Data: "/data", Memory: 256 << 20, NodePort: -1, ClientPort: -1, RedisPort: -1, ConsolePort: -1,
	}, deps)
	if err != nil {
		b.Fatal(err)
	}
	defer n.Kill()
	if err := n.WaitReady(b.Context()); err != nil {
		b.Fatal(err)
	}
	c, err := client.Connect(b.Context(), []string{n.Addrs().Client}, client.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	s := epochstore.NewTable(c)
	defer s.Close()
	if _, err := read(s, 1); err != nil {
		b.Fatal(err)
	}
	var log logs.LogID = 100
	b.ReportAllocs()
	for b.Loop() {
		const all = 1000
		done := make(chan error, all)
		for range all {
			log++
			s.CompareAndSet(log, 0, record(log, 1, 2, 3), func(err error) { done <- err })
		}
		for range all {
			if err := <-done; err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.N)*1000/b.Elapsed().Seconds(), "logs/s")
}
