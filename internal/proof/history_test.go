package proof

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/redis/go-redis/v9"
)

// failoverDialer dials the first of its addresses that answers.
func failoverDialer(addrs []string) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		d := net.Dialer{Timeout: time.Second}
		var last error
		for _, a := range addrs {
			conn, err := d.DialContext(ctx, network, a)
			if err == nil {
				return conn, nil
			}
			last = err
		}
		return nil, last
	}
}

// registerInput is one operation on one register.
type registerInput struct {
	key   string
	write bool
	cas   bool
	value string // write: what is written
	old   string // cas: what must be there
}

// registerOutput is what came back; unknown outcomes may or may not have taken effect.
type registerOutput struct {
	value   string
	done    bool // cas: applied
	unknown bool
}

// registerModel is a register with compare-and-set, per key; "" is absent.
var registerModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		for _, op := range history {
			k := op.Input.(registerInput).key
			byKey[k] = append(byKey[k], op)
		}
		var out [][]porcupine.Operation
		for _, ops := range byKey {
			out = append(out, ops)
		}
		return out
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		s, in, out := state.(string), input.(registerInput), output.(registerOutput)
		switch {
		case in.cas:
			match := s == in.old
			if out.unknown {
				if match {
					return true, in.value // taking effect is allowed; not taking effect is modelled by the far future
				}
				return true, s
			}
			if out.done != match {
				return false, s
			}
			if match {
				return true, in.value
			}
			return true, s
		case in.write:
			return true, in.value
		default:
			return out.unknown || out.value == s, s
		}
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
}

// casScript does compare-and-set with what every Redis client has: WATCH, GET,
// MULTI, SET, EXEC on one connection.
func cas(ctx context.Context, c *redis.Client, key, old, value string) (done bool, err error) {
	err = c.Watch(ctx, func(tx *redis.Tx) error {
		got, err := tx.Get(ctx, key).Result()
		if err != nil && !errors.Is(err, redis.Nil) {
			return errNoEffect{err}
		}
		if got != old {
			return nil
		}
		_, err = tx.TxPipelined(ctx, func(p redis.Pipeliner) error { p.Set(ctx, key, value, 0); return nil })
		if err == nil {
			done = true
		}
		if errors.Is(err, redis.TxFailedErr) {
			return errRaced
		}
		return err
	}, key)
	return done, err
}

var errRaced = errors.New("another write came between")

// errNoEffect wraps an error that surely left nothing behind.
type errNoEffect struct{ error }

// recorder collects one history from many goroutines.
type recorder struct {
	begin time.Time
	mu    sync.Mutex
	ops   []porcupine.Operation
}

func (r *recorder) now() int64 { return time.Since(r.begin).Nanoseconds() }

func (r *recorder) add(op porcupine.Operation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, op)
}

// finish closes unknown writes at the end of time and drops unknown reads.
func (r *recorder) finish() []porcupine.Operation {
	end := r.now() + int64(time.Hour)
	var out []porcupine.Operation
	for _, op := range r.ops {
		if op.Output.(registerOutput).unknown {
			if in := op.Input.(registerInput); !in.write && !in.cas {
				continue
			}
			op.Return = end
		}
		out = append(out, op)
	}
	return out
}

// isRefusal reports whether an error surely left no effect: the server refused
// the command, or was not there to be sent it.
func isRefusal(err error) bool {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return true
	}
	s := err.Error()
	return strings.HasPrefix(s, "TRYAGAIN") || strings.HasPrefix(s, "CLUSTERDOWN")
}

// registerWorker runs operations against one node until stop.
func registerWorker(ctx context.Context, r *recorder, addr string, id, keys int) {
	c := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1, PoolSize: 1, ReadTimeout: 8 * time.Second, DialTimeout: time.Second})
	defer c.Close()
	rng := rand.New(rand.NewPCG(uint64(id), 11))
	seen := map[string]string{}
	for n := 0; ctx.Err() == nil; n++ {
		in := registerInput{key: "r" + strconv.Itoa(rng.IntN(keys))}
		var out registerOutput
		var err error
		call := r.now()
		op := context.Background()
		switch rng.IntN(4) {
		case 0:
			in.write, in.value = true, fmt.Sprintf("%d.%d", id, n)
			err = c.Set(op, in.key, in.value, 0).Err()
		case 1:
			in.cas, in.old, in.value = true, seen[in.key], fmt.Sprintf("%d.%d", id, n)
			out.done, err = cas(op, c, in.key, in.old, in.value)
			if errors.Is(err, errRaced) {
				continue // it failed since somebody wrote: says nothing about the value
			}
		default:
			out.value, err = c.Get(op, in.key).Result()
			if errors.Is(err, redis.Nil) {
				err = nil
			}
			seen[in.key] = out.value
		}
		var none errNoEffect
		if err != nil && (isRefusal(err) || errors.As(err, &none)) {
			pause(ctx, 20*time.Millisecond)
			continue
		}
		if err != nil {
			out.unknown = true
			pause(ctx, 20*time.Millisecond)
		}
		r.add(porcupine.Operation{ClientId: id, Input: in, Call: call, Output: out, Return: r.now()})
	}
}

// pause waits, so that a client whose node is down does not spin.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// A fault is done to a node and undone.
type fault struct {
	name       string
	do, undo   func(c *cluster, node int)
	hold, rest time.Duration
}

var faults = []fault{
	{"kill -9", func(c *cluster, i int) { c.nodes[i].Kill() }, func(c *cluster, i int) { c.nodes[i].start() }, 1500 * time.Millisecond, 2500 * time.Millisecond},
	{"SIGSTOP longer than the lease", func(c *cluster, i int) { c.nodes[i].Signal(syscall.SIGSTOP) },
		func(c *cluster, i int) { c.nodes[i].Signal(syscall.SIGCONT) }, 3 * time.Second, 1500 * time.Millisecond},
	{"cut links", func(c *cluster, i int) { c.links.Isolate(i + 1) }, func(c *cluster, i int) { c.links.Heal() }, 3 * time.Second, 1500 * time.Millisecond},
}

// TestRegistersAreLinearizable checks histories of reads, writes and
// compare-and-sets over Redis, with client retries off and lost replies as
// unknown outcomes, while nodes are killed, paused and cut off.
func TestRegistersAreLinearizable(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3, clusterOptions{links: true})
	r := &recorder{begin: time.Now()}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	const workers, keys = 9, 30
	for i := range workers {
		wg.Go(func() { registerWorker(ctx, r, c.nodes[i%3].RedisAddr(), i, keys) })
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 2 {
		for _, f := range faults {
			i := rng.IntN(3)
			t.Logf("round %d: %s on node %d", round+1, f.name, i+1)
			f.do(c, i)
			pause(ctx, f.hold)
			f.undo(c, i)
			pause(ctx, f.rest)
		}
	}
	stop()
	wg.Wait()
	history := r.finish()
	known := 0
	for _, op := range history {
		if !op.Output.(registerOutput).unknown {
			known++
		}
	}
	t.Logf("%d operations, %d with a known outcome", len(history), known)
	if known < 1000 {
		t.Errorf("only %d operations had an outcome: the cluster hardly served", known)
	}
	if res := porcupine.CheckOperationsTimeout(registerModel, history, 60*time.Second); res != porcupine.Ok {
		t.Errorf("the history is %s", res)
	}
}
