package proof

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/braiddb/braid/internal/node"
	procs "github.com/braiddb/braid/internal/proof/cluster"
)

// mixed runs commands of every kind of document until ctx ends, and counts those
// that were answered.
func mixed(ctx context.Context, c *redis.Client, rng *rand.Rand, done *atomic.Int64) {
	for ctx.Err() == nil {
		key := func(kind string) string { return fmt.Sprint(kind, rng.IntN(40)) }
		field := fmt.Sprint("f", rng.IntN(30))
		var err error
		switch rng.IntN(12) {
		case 0:
			err = c.Set(ctx, key("s"), fmt.Sprint(rng.Uint64()), 0).Err()
		case 1:
			err = c.Set(ctx, key("s"), "short-lived", time.Duration(1+rng.IntN(3000))*time.Millisecond).Err()
		case 2:
			err = c.IncrBy(ctx, key("n"), int64(rng.IntN(9))).Err()
		case 3:
			err = c.Append(ctx, key("a"), field).Err()
		case 4:
			err = c.HSet(ctx, key("h"), field, rng.IntN(1000), "g", "x").Err()
		case 5:
			err = c.HDel(ctx, key("h"), field).Err()
		case 6:
			err = c.SAdd(ctx, key("e"), field, rng.IntN(50)).Err()
		case 7:
			err = c.SPop(ctx, key("e")).Err()
		case 8:
			err = c.ZAdd(ctx, key("z"), redis.Z{Score: rng.Float64(), Member: field}).Err()
		case 9:
			err = c.RPush(ctx, key("l"), field).Err()
		case 10:
			err = c.LPop(ctx, key("l")).Err()
		case 11:
			err = c.Del(ctx, key([]string{"s", "a", "h", "e", "z", "l"}[rng.IntN(6)])).Err()
		}
		if err == nil || err == redis.Nil {
			done.Add(1)
		} else {
			pause(ctx, 10*time.Millisecond)
		}
	}
}

// TestReplicasHashEqual compares every tablet's replicas bit for bit, at equal
// applied index, after a mixed load in which each node was killed once.
func TestReplicasHashEqual(t *testing.T) {
	t.Parallel()
	l := newLab(t, 3, 7)
	l.start()
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var done atomic.Int64
	for i, b := range l.benches {
		for w := range 2 {
			c := b.redis(t)
			wg.Go(func() { mixed(ctx, c, rand.New(rand.NewPCG(uint64(i), uint64(w))), &done) })
		}
	}
	for _, b := range l.benches {
		before := done.Load()
		if !eventually(20*time.Second, func() bool { return done.Load() > before+300 }) {
			t.Fatal("the load stopped")
		}
		b.fs = b.fs.Kill()
		b.kill()
		before = done.Load()
		if !eventually(20*time.Second, func() bool { return done.Load() > before+100 }) {
			t.Fatal("the load stopped with one node down")
		}
		l.start()
	}
	stop()
	wg.Wait()
	t.Logf("%d commands answered", done.Load())

	var last error
	if !eventually(15*time.Second, func() bool { last = l.compare(); return last == nil }) {
		t.Fatal(last)
	}
}

// compare says what is unlike between the replicas of each tablet, nil if nothing.
func (l *lab) compare() error {
	var nodes []*node.Node
	for _, b := range l.benches {
		nodes = append(nodes, b.node)
	}
	if err := procs.Unlike(nodes); err != nil {
		return err
	}
	hashes, err := nodes[0].ReplicaHashes(nodes[0].HybridTime())
	seen := map[uint64]bool{}
	for _, h := range hashes {
		seen[h.Hash] = true
	}
	if err == nil && (len(hashes) < 3 || len(seen) != len(hashes)) {
		err = fmt.Errorf("%d tablets with %d different hashes were compared", len(hashes), len(seen))
	}
	return err
}
