package bench

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestAnOpenLoopIsNotHeldUpByAnswers runs one against a system that answers late.
func TestAnOpenLoopIsNotHeldUpByAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := func(n int64, _ time.Time, done func(error)) {
			time.AfterFunc(500*time.Millisecond, func() {
				switch n % 5 {
				case 0:
					done(fmt.Errorf("no: %w", ErrRefused))
				case 1:
					done(ErrUnknown)
				default:
					done(nil)
				}
			})
		}
		l := newOpenLoop(start, time.Second, 1000, 4)
		l.begin = time.Now()
		l.run(t.Context(), 100, l.begin, l.begin.Add(2*time.Second))
		<-time.After(time.Second)
		c, h := l.sum(0, 4)
		want := Counts{Due: 200, Good: 120, Refused: 40, Unknown: 40}
		if c != want || h.ValueAtQuantile(50) < 490_000 || h.ValueAtQuantile(50) > 510_000 {
			t.Errorf("%+v, latency %d us", c, h.ValueAtQuantile(50))
		}
		first, _ := l.sum(0, 1)
		if first.Due != 100 || first.Good != 30 { // what was due in the first half second was answered in the first
			t.Errorf("the first second: %+v", first)
		}
	})
}

// TestAnOpenLoopShedsWhatIsTooMuch has nothing answered in time.
func TestAnOpenLoopShedsWhatIsTooMuch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newOpenLoop(func(_ int64, _ time.Time, done func(error)) {
			time.AfterFunc(3*time.Second, func() { done(nil) })
		}, time.Second, 10, 5)
		l.begin = time.Now()
		l.run(t.Context(), 100, l.begin, l.begin.Add(time.Second))
		<-time.After(4 * time.Second)
		if c, _ := l.sum(0, 6); c != (Counts{Due: 100, Shed: 90, Expired: 10}) {
			t.Errorf("%+v", c)
		}
	})
}

// TestOverloadTellsASystemThatRecoversFromOneThatDoesNot runs the phases against a
// model that serves a thousand a second, and refuses or queues what is more.
func TestOverloadTellsASystemThatRecoversFromOneThatDoesNot(t *testing.T) {
	for _, refuses := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			var queue atomic.Int64
			start := func(_ int64, _ time.Time, done func(error)) {
				if n := queue.Add(1); refuses && n > 100 {
					queue.Add(-1)
					done(ErrRefused)
				} else {
					time.AfterFunc(time.Duration(n)*time.Millisecond, func() { queue.Add(-1); done(nil) })
				}
			}
			r, err := Overload(t.Context(), "model", start, OverloadOptions{Clients: 10, Capacity: 1000, Phase: 5 * time.Second, Recovery: 5 * time.Second})
			if err != nil || len(r.Phases) != 4 {
				t.Fatalf("%+v, %v", r, err)
			}
			last := r.Phases[2]
			if refuses && (r.NormalAfter < 0 || r.NormalAfter > 2 || last.Ratio < 0.9 || last.Refused == 0) {
				t.Errorf("a system that refuses: normal after %g s, 10x: %+v", r.NormalAfter, last)
			}
			if !refuses && (r.NormalAfter >= 0 && r.NormalAfter < 2 || last.Ratio > 0.5 || last.Expired == 0) {
				t.Errorf("a system that queues everything: normal after %g s, 10x: %+v", r.NormalAfter, last)
			}
		})
	}
}

// TestCapacityIsWhatLasts has a system that does a thousand a second, one after the
// other, until it has to merge what it took, and half of that from then on.
func TestCapacityIsWhatLasts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, free := time.Now(), time.Now()
		var mu sync.Mutex
		start := func(_ int64, _ time.Time, done func(error)) {
			mu.Lock()
			defer mu.Unlock()
			takes := time.Millisecond
			if free = later(free, time.Now()); free.Sub(began) > 12*time.Second {
				takes *= 2
			}
			free = free.Add(takes)
			time.AfterFunc(time.Until(free), func() { done(nil) })
		}
		o := OverloadOptions{Clients: 4, Outstanding: 64}.withDefaults()
		if got := capacity(t.Context(), start, o); got < 450 || got > 600 {
			t.Errorf("capacity is taken for %g a second, 500 last", got)
		}
	})
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// TestRedisLoadSendsAgainWhatWasRefused speaks to a server that refuses every command once.
func TestRedisLoadSendsAgainWhatWasRefused(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		c, err := server.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		in, seen := bufio.NewReader(c), map[string]bool{}
		for {
			var words [7]string
			for i := range words {
				if words[i], err = in.ReadString('\n'); err != nil {
					return
				}
			}
			answer := "+OK\r\n"
			if key := words[4]; !seen[key] {
				seen[key], answer = true, "-TRYAGAIN too much; nothing was done\r\n"
			} else if strings.HasPrefix(key, "bad") {
				answer = "-ERR no\r\n"
			}
			if _, err := io.WriteString(c, answer); err != nil {
				return
			}
		}
	}()
	r, err := DialRedis([]string{server.Addr().String()}, 1, 4)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ends := make(chan error, 2)
	for key, want := range map[string]string{"good": "", "bad": "ERR no"} {
		r.Start(RedisCommand([]byte("SET"), []byte(key), []byte("v")), time.Now().Add(time.Minute), func(err error) { ends <- err })
		if err := <-ends; err == nil && want != "" || err != nil && err.Error() != want {
			t.Errorf("%s ended with %v", key, err)
		}
	}
	if r.Retries() != 2 {
		t.Errorf("%d retries", r.Retries())
	}
	if !errors.Is(redisError("TRYAGAIN x"), ErrRefused) || !errors.Is(redisError("UNKNOWNOUTCOME x"), ErrUnknown) || errors.Is(redisError("ERR x"), ErrRefused) {
		t.Error("error replies are taken for what they are not")
	}
}

// TestRedisLoadClosesWhatIsMadeMeanwhile has a connection made anew that Close did not see.
func TestRedisLoadClosesWhatIsMadeMeanwhile(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	r := &RedisLoad{end: make(chan struct{})}
	r.conns = []*redisConn{{load: r, wake: make(chan struct{}, 1)}}
	r.Close()
	r.conns[0].use(ours)
	r.running.Wait()
	if _, err := ours.Write(nil); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("the connection is still open: %v", err)
	}
	if _, err := DialRedis(nil, 1, 1); err == nil {
		t.Error("connections to no address were made")
	}
}

func TestMemoryOfProcessesIsWatched(t *testing.T) {
	w, err := watchMemory([]int{os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	w.saw(os.Getpid(), 3<<40)
	w.begin()
	w.saw(os.Getpid(), 2<<40)
	if n := w.most(); n != 2<<40 {
		t.Errorf("since it began there were %d bytes", n)
	}
	if n := w.stop()[os.Getpid()]; n != 3<<40 {
		t.Errorf("of %d bytes %d are told", int64(3)<<40, n)
	}
	if w, err = watchMemory([]int{os.Getpid()}); err != nil {
		t.Fatal(err)
	}
	if n := w.stop()[os.Getpid()]; n < 1<<20 {
		t.Errorf("this process has %d bytes", n)
	}
	if _, err := watchMemory([]int{1 << 30}); err == nil {
		t.Error("a process that does not exist was watched")
	}
}
