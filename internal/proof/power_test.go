package proof

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/sim/simfs"
)

// write starts writers against every node, over Redis and over the client, and
// gives a function that stops them and waits.
func (l *lab) write(books *ledger, round int) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for i, b := range l.benches {
		for w := range 2 {
			c := b.redis(l.t)
			rng := rand.New(rand.NewPCG(l.seed, uint64(100*round+10*i+w)))
			wg.Go(func() {
				books.load(ctx, fmt.Sprintf("r%d.n%d.w%d", round, i+1, w), rng, func(key, value string) error {
					return c.Set(ctx, key, value, 0).Err()
				})
			})
		}
	}
	cl := l.connect()
	for w := range 3 {
		rng := rand.New(rand.NewPCG(l.seed, uint64(100*round+90+w)))
		wg.Go(func() {
			books.load(ctx, fmt.Sprintf("r%d.c.w%d", round, w), rng, func(key, value string) error {
				op, done := context.WithTimeout(ctx, 2*time.Second)
				defer done()
				_, err := cl.Redis().Do(op, client.Set([]byte(key), []byte(value), client.SetOptions{}))
				return err
			})
		})
	}
	return func() {
		cancel()
		wg.Wait()
		cl.Close()
	}
}

// TestPowerLossOfTheWholeCluster cuts the power of all nodes at a random moment
// under load, several times over: unsynced sectors are dropped, kept or torn,
// unsynced names vanish. Whatever was acknowledged is there afterwards, with its
// value, and nothing else is.
func TestPowerLossOfTheWholeCluster(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	l := newLab(t, 3, seed)
	books := &ledger{keys: map[string]*entry{}}
	l.start()
	crashes := []simfs.Crash{{}, {Sectors: 50, Tear: 50, Names: 50}, {Sectors: 90, Tear: 100, Names: 100}, {Sectors: 20, Tear: 30}}
	for round, crash := range crashes {
		before := books.acknowledged()
		stop := l.write(books, round)
		if !eventually(10*time.Second, func() bool { return books.acknowledged() > before+50 }) {
			t.Fatal("the cluster takes no writes")
		}
		pause(context.Background(), time.Duration(rng.IntN(600))*time.Millisecond)
		crash.Dice = rng.Uint64()
		for _, i := range rng.Perm(len(l.benches)) {
			l.benches[i].fs = l.benches[i].fs.Crash(crash)
		}
		for _, b := range l.benches {
			b.kill()
		}
		stop()
		begin := time.Now()
		l.start()
		t.Logf("round %d: %d writes acknowledged, serving %v after the power came back", round+1,
			books.acknowledged()-before, time.Since(begin).Round(time.Millisecond))
		books.check(t, l.benches[rng.IntN(len(l.benches))].redis(t))
		if t.Failed() {
			return
		}
	}
}

// TestFatalFaultSilencesANode fails one fsync of one node's journal. The node is
// told to end once, and from then on nothing of it is sent, answered or written,
// though nobody ends it; the others go on, and once its disk is healthy it comes back.
func TestFatalFaultSilencesANode(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	l := newLab(t, 3, seed)
	books := &ledger{keys: map[string]*entry{}}
	l.start()
	stop := l.write(books, 0)
	if !eventually(10*time.Second, func() bool { return books.acknowledged() > 100 }) {
		t.Fatal("the cluster takes no writes")
	}

	sick := l.benches[1]
	var failed atomic.Bool
	var lateOps atomic.Int64
	var quiet atomic.Bool
	var what sync.Map
	sick.fs.SetFault(func(op simfs.Op) simfs.Fault {
		if quiet.Load() {
			lateOps.Add(1)
			what.Store(fmt.Sprint(op.Kind, " ", op.Path), nil)
		}
		if op.Kind == simfs.OpSync && strings.Contains(op.Path, "journal") && failed.CompareAndSwap(false, true) {
			return simfs.Fault{Err: simfs.ErrIO}
		}
		return simfs.Fault{}
	})
	if !eventually(5*time.Second, func() bool { return sick.fatals.Load() > 0 }) {
		t.Fatal("an fsync failed and the node was not told to end")
	}
	pause(context.Background(), 50*time.Millisecond) // what was under way in the kernel
	quiet.Store(true)
	before := books.acknowledged()
	conn := sick.redis(t)
	pause(context.Background(), 2*time.Second)
	for _, command := range []string{"PING", "GET r0.n1.w0.0", "SET x y"} {
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		var args []any
		for _, a := range strings.Fields(command) {
			args = append(args, a)
		}
		if got, err := conn.Do(ctx, args...).Result(); err == nil {
			t.Errorf("%s was answered with %v after a fatal fault", command, got)
		}
		cancel()
	}
	if n := sick.wire.late.Load(); n > 0 {
		t.Errorf("%d sends after a fatal fault", n)
	}
	if n := lateOps.Load(); n > 0 {
		t.Errorf("%d changes of the disk after a fatal fault", n)
		what.Range(func(k, _ any) bool { t.Log(k); return true })
	}
	if n := sick.fatals.Load(); n != 1 {
		t.Errorf("Deps.Fatal was called %d times", n)
	}
	if !eventually(10*time.Second, func() bool { return books.acknowledged() > before+100 }) {
		t.Error("the other two nodes do not go on")
	}
	stop()

	sick.kill()
	sick.fs = sick.fs.Crash(simfs.Crash{})
	sick.fs.SetFault(nil)
	l.start()
	if sick.fatals.Load() != 0 {
		t.Error("the node failed again on a healthy disk")
	}
	books.check(t, sick.redis(t))
}
