package redis

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// serve runs a server for a table on a loopback port and gives its address.
func serve(t testing.TB, table Table, o Options) (*Server, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, l, table, o), l.Addr().String()
}

func serveOn(t testing.TB, l net.Listener, table Table, o Options) *Server {
	t.Helper()
	s := NewServer(table, o)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; err != ErrServerClosed {
			t.Errorf("Serve returned %v", err)
		}
	})
	return s
}

func dial(t testing.TB, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(3 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestStockClient(t *testing.T) {
	_, addr := serve(t, newShelf(t, 4), Options{})
	for _, protocol := range []int{2, 3} {
		t.Run(fmt.Sprintf("RESP%d", protocol), func(t *testing.T) {
			ctx := context.Background()
			c := goredis.NewClient(&goredis.Options{Addr: addr, Protocol: protocol})
			defer c.Close()
			if err := c.FlushAll(ctx).Err(); err != nil {
				t.Fatal(err)
			}
			if err := c.Set(ctx, "k", "v", time.Hour).Err(); err != nil {
				t.Fatal(err)
			}
			if got, err := c.Get(ctx, "k").Result(); err != nil || got != "v" {
				t.Fatalf("got %q, %v", got, err)
			}
			if ttl := c.TTL(ctx, "k").Val(); ttl < 59*time.Minute || ttl > time.Hour {
				t.Errorf("ttl %v", ttl)
			}
			if _, err := c.Get(ctx, "none").Result(); err != goredis.Nil {
				t.Errorf("missing key: %v", err)
			}
			if n := c.HSet(ctx, "h", "a", 1, "b", 2).Val(); n != 2 {
				t.Errorf("hset %d", n)
			}
			if m := c.HGetAll(ctx, "h").Val(); len(m) != 2 || m["b"] != "2" {
				t.Errorf("hgetall %v", m)
			}
			pipe := c.Pipeline()
			for i := range 500 {
				pipe.Set(ctx, fmt.Sprint("p", i), i, 0)
			}
			if _, err := pipe.Exec(ctx); err != nil {
				t.Fatal(err)
			}
			if n := c.DBSize(ctx).Val(); n != 502 {
				t.Errorf("dbsize %d", n)
			}
		})
	}
}
