package compactions

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// waiting is a Pebble that always has one more compaction to do.
type waiting struct {
	t       *testing.T
	allowed atomic.Int64
	closed  atomic.Bool

	mu      sync.Mutex
	handles []pebble.CompactionGrantHandle
}

// begun takes what was begun since it was asked before.
func (w *waiting) begun() []pebble.CompactionGrantHandle {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.handles
	w.handles = nil
	return out
}

func (w *waiting) GetAllowedWithoutPermission() int { return int(w.allowed.Load()) }

func (w *waiting) GetWaitingCompaction() (bool, pebble.WaitingCompaction) {
	if w.closed.Load() {
		w.t.Error("C3: asked after its end")
	}
	return true, pebble.WaitingCompaction{}
}

func (w *waiting) Schedule(h pebble.CompactionGrantHandle) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.handles = append(w.handles, h)
	return true
}

// TestAPauseAfterAFailure lets every compaction fail: they become rare, and each that was
// refused begins by itself.
func TestAPauseAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &waiting{t: t}
		w.allowed.Store(1)
		s := New()
		s.Register(2, w)
		begin := time.Now()
		ok, h := s.TrySchedule()
		if !ok {
			t.Fatal("the first is refused")
		}
		var at []time.Duration
		for len(at) < 6 {
			s.Failed()
			h.Done()
			if ok, _ := s.TrySchedule(); ok {
				t.Fatal("C1: one begins behind a failure")
			}
			var handles []pebble.CompactionGrantHandle
			for len(handles) == 0 {
				if time.Since(begin) > time.Minute {
					t.Fatal("C2: none begins any more")
				}
				<-time.After(10 * time.Millisecond)
				synctest.Wait()
				handles = w.begun()
			}
			h = handles[0]
			at = append(at, time.Since(begin).Round(100*time.Millisecond)/time.Second)
		}
		want := []time.Duration{1, 3, 7, 15, 25, 35}
		for i := range want {
			if at[i] != want[i] {
				t.Fatalf("compactions began after %d seconds, not %d", at, want)
			}
		}
		for range 4 {
			s.Succeeded()
		}
		s.Failed()
		h.Done()
		<-time.After(pauseLeast)
		synctest.Wait()
		handles := w.begun()
		if len(handles) != 1 {
			t.Fatal("after successes the pause is as long as before")
		}
		s.Failed()
		s.Unregister()
		w.closed.Store(true)
		handles[0].Done()
		<-time.After(time.Minute)
	})
}

// TestAsManyAsAreAllowed is without failures.
func TestAsManyAsAreAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &waiting{t: t}
		w.allowed.Store(2)
		s := New()
		s.Register(2, w)
		for i, want := range []bool{true, true, false} {
			if ok, _ := s.TrySchedule(); ok != want {
				t.Fatalf("compaction %d: %v", i, ok)
			}
		}
		s.Done()
		if n := len(w.begun()); n != 1 {
			t.Fatalf("%d began where one was done", n)
		}
		w.allowed.Store(3)
		s.UpdateGetAllowedWithoutPermission()
		synctest.Wait()
		if s.TrySchedule(); len(w.begun()) != 0 {
			t.Fatal("nobody was refused since")
		}
		s.TrySchedule()
		w.allowed.Store(4)
		s.UpdateGetAllowedWithoutPermission()
		synctest.Wait()
		if n := len(w.begun()); n != 1 {
			t.Errorf("%d began where one more is allowed", n)
		}
		s.Unregister()
		if ok, _ := s.TrySchedule(); ok {
			t.Error("one begins after the end")
		}
	})
}
