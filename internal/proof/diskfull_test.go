package proof

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/sim/simfs"
)

// ask runs commands through one node until one of them is answered as wanted.
func ask(limit time.Duration, do func() error, want func(error) bool) (last error, ok bool) {
	ok = eventually(limit, func() bool { last = do(); return want(last) })
	return last, ok
}

func refusedForSpace(err error) bool {
	return err != nil && strings.HasPrefix(err.Error(), "MISCONF") && strings.Contains(err.Error(), "full")
}

// spread waits until every node leads a tablet of the Redis table. Leaders are spread
// before disks run low: a node that is low takes none over.
func (l *lab) spread(ctx context.Context, cl *client.Client) {
	l.t.Helper()
	if !eventually(30*time.Second, func() bool {
		c, err := cl.Cluster(ctx)
		if err != nil {
			return false
		}
		leads := map[catalog.NodeID]bool{}
		for _, tb := range c.Tablets {
			if tb.Tablet.Table == uint32(catalog.RedisTableID) {
				leads[tb.Leader] = true
			}
		}
		return len(leads) == len(l.benches) && !leads[0]
	}) {
		l.t.Fatal("the leaders were not spread over the nodes")
	}
}

// TestFullDisk lets the disks of a cluster run full: first to the low-water mark
// of one node, then of all, then to the last byte. Writes are refused by name,
// reads go on, logs are stored where there is room, no node ends; when there is space again writes go on by
// themselves, and nothing that was acknowledged is lost.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	l := newLab(t, 3, 33)
	l.start()
	ctx, cancel := context.WithTimeout(context.Background(), 150*time.Second)
	defer cancel()
	var clients []*redis.Client
	for _, b := range l.benches {
		clients = append(clients, b.redis(t))
	}
	const keys = 12 // over all tablets
	acked := map[string]string{}
	n := 0
	set := func(c *redis.Client, i int) error {
		n++
		key, v := fmt.Sprint("key", i), strings.Repeat(fmt.Sprint(n, ";"), 2000)
		err := c.Set(ctx, key, v, 0).Err()
		if err == nil {
			acked[key] = v
		}
		return err
	}
	reads := func(when string) {
		t.Helper()
		for key, v := range acked {
			for i, c := range clients {
				if got, err := c.Get(ctx, key).Result(); err != nil || got != v {
					t.Fatalf("%s: read %s through node %d: %.20q, %v; want %.20q", when, key, i+1, got, err, v)
				}
			}
		}
		for i, b := range l.benches {
			if b.fatals.Load() != 0 {
				t.Fatalf("%s: node %d has ended", when, i+1)
			}
		}
	}
	for i := range keys {
		if err := set(clients[i%3], i); err != nil {
			t.Fatal(err)
		}
	}
	const reserve = 256 << 20 // what a node keeps free
	low := func(b *bench) { b.fs.SetCapacity(b.fs.Used() + reserve - 1<<20) }
	room := func(b *bench) { b.fs.SetCapacity(1 << 40) }

	// One node is low: what it leads is refused, the rest is not. On a slow machine
	// leaders may change meanwhile, and one that is low takes none over: then again.
	cl, err := client.Connect(ctx, []string{l.benches[0].node.Addrs().Client}, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	logs := newFullLogs(t, cl)
	var refused, taken int
	for try := 0; refused == 0 || taken == 0; try++ {
		if try == 4 {
			t.Fatalf("with one disk low %d writes were refused and %d taken", refused, taken)
		}
		room(l.benches[0])
		l.spread(ctx, cl)
		low(l.benches[0])
		ask(5*time.Second, func() error {
			refused, taken = 0, 0
			for i := range keys {
				switch err := set(clients[i%3], i); {
				case err == nil:
					taken++
				case refusedForSpace(err):
					refused++
				default:
					return err
				}
			}
			return nil
		}, func(err error) bool { return err == nil && refused > 0 && taken > 0 })
	}
	reads("with one disk low")
	logs.full("with one disk low", fmt.Sprintf("N%d:S0", l.benches[0].node.ID()))

	// All are low, then wholly full: every write is refused, every read answered.
	for _, b := range l.benches[1:] {
		low(b)
	}
	all := func(when string) {
		t.Helper()
		for i := range keys {
			if last, ok := ask(10*time.Second, func() error { return set(clients[i%3], i) }, refusedForSpace); !ok {
				t.Fatalf("%s: key %d through node %d: %v", when, i, i%3+1, last)
			}
		}
		reads(when)
	}
	all("with all disks low")
	for _, b := range l.benches {
		b.fs.SetCapacity(b.fs.Used())
	}
	all("with all disks full")

	// There is space again.
	for _, b := range l.benches {
		room(b)
	}
	for i := range keys {
		if last, ok := ask(15*time.Second, func() error { return set(clients[i%3], i) }, func(err error) bool { return err == nil }); !ok {
			t.Fatalf("key %d through node %d is refused after space was freed: %v", i, i%3+1, last)
		}
	}
	reads("with space again")
	logs.room("with space again")
	var last error
	if !eventually(15*time.Second, func() bool { last = l.compare(); return last == nil }) {
		t.Fatal(last)
	}
	// Power goes: what was acknowledged around the full disk is on it.
	for _, b := range l.benches {
		b.fs = b.fs.Crash(simfs.Crash{})
		b.kill()
	}
	l.start()
	reads("after a loss of power")
	logs.check()
}
