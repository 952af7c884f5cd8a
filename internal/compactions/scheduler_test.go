package compactions

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// waiting is a Pebble that always has one more compaction to do.
type waiting struct {
	t       *testing.T
	allowed int
	handles []pebble.CompactionGrantHandle
	closed  bool
}

func (w *waiting) GetAllowedWithoutPermission() int { return w.allowed }

func (w *waiting) GetWaitingCompaction() (bool, pebble.WaitingCompaction) {
	if w.closed {
		w.t.Error("C3: asked after its end")
	}
	return true, pebble.WaitingCompaction{}
}

func (w *waiting) Schedule(h pebble.CompactionGrantHandle) bool {
	w.handles = append(w.handles, h)
	return true
}

// TestAPauseAfterAFailure lets every compaction fail: they become rare, and each that was
// refused begins by itself.
func TestAPauseAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &waiting{t: t, allowed: 1}
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
			for len(w.handles) == 0 {
				if time.Since(begin) > time.Minute {
					t.Fatal("C2: none begins any more")
				}
				<-time.After(10 * time.Millisecond)
				synctest.Wait()
			}
			h, w.handles = w.handles[0], nil
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
		if len(w.handles) != 1 {
			t.Error("after successes the pause is as long as before")
		}
		s.Failed()
		s.Unregister()
		w.closed = true
		w.handles[0].Done()
		<-time.After(time.Minute)
	})
}

// TestAsManyAsAreAllowed is without failures.
func TestAsManyAsAreAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &waiting{t: t, allowed: 2}
		s := New()
		s.Register(2, w)
		for i, want := range []bool{true, true, false} {
			if ok, _ := s.TrySchedule(); ok != want {
				t.Fatalf("compaction %d: %v", i, ok)
			}
		}
		s.Done()
		if len(w.handles) != 1 {
			t.Fatalf("%d began where one was done", len(w.handles))
		}
		w.allowed = 3
		s.UpdateGetAllowedWithoutPermission()
		if s.TrySchedule(); len(w.handles) != 1 {
			t.Fatal("nobody was refused since")
		}
		s.TrySchedule()
		w.allowed = 4
		s.UpdateGetAllowedWithoutPermission()
		synctest.Wait()
		if len(w.handles) != 2 {
			t.Errorf("%d began where one more is allowed", len(w.handles))
		}
		s.Unregister()
		if ok, _ := s.TrySchedule(); ok {
			t.Error("one begins after the end")
		}
	})
}
