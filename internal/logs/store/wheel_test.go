package store

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// wheelRig is many streams that wait, each until a moment of its own.
type wheelRig struct {
	*lab
	late    bool // timers ring after their time
	streams []waitingStream
	told    int
	held    bool // the timers that are due have not rung yet
	others  int  // timers that are not the wheel's
}

type waitingStream struct {
	id       uint64
	request  int           // the newest
	deadline time.Duration // 0: nothing waits
}

// next asks on a stream. What waited there is answered at once, whatever its time.
func (w *wheelRig) next(i int, wait time.Duration) {
	s := &w.streams[i]
	s.request++
	n := s.request
	s.deadline = w.clock.Mono() + min(wait, waitMax)
	w.s.ReadNext(&wire.ReadNextRequest{Stream: s.id, WaitMs: uint32(wait.Milliseconds())}, func(a *wire.ReadNextResponse) {
		if n != s.request {
			return
		}
		w.told++
		now := w.clock.Mono()
		switch {
		case a.Status != statusOK || len(a.Deliveries) > 0:
			w.t.Errorf("stream %d: %v", i, a)
		case now < s.deadline:
			w.t.Errorf("stream %d waits until %s, and is answered at %s", i, s.deadline, now)
		case now > s.deadline+wheelSlot && !w.late:
			w.t.Errorf("stream %d is answered at %s, %s after its time", i, now, now-s.deadline)
		}
		s.deadline = 0
	})
}

// pass lets time pass, and looks that nobody is forgotten.
func (w *wheelRig) pass(d time.Duration) {
	if w.late {
		w.clock.mu.Lock()
		w.clock.now += d
		w.clock.mu.Unlock()
		d = 0
		if w.held = !w.held; w.held {
			return // others ask before it rings
		}
	}
	w.clock.advance(d)
	now := w.clock.Mono()
	for i, s := range w.streams {
		if s.deadline > 0 && now > s.deadline+wheelSlot {
			w.t.Fatalf("stream %d has waited for %s since its time", i, now-s.deadline)
		}
	}
	w.clock.mu.Lock()
	timers := len(w.clock.timers)
	w.clock.mu.Unlock()
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	switch x := &w.s.wheel; {
	case timers > w.others+10: // others come and go
		w.t.Fatalf("%d timers, %d without the wheel's", timers, w.others)
	case (x.count > 0) != (x.wake > 0):
		w.t.Fatalf("%d are in the wheel, and its timer is set for slot %d", x.count, x.wake)
	case x.count > 0 && x.wake != x.first():
		w.t.Fatalf("the timer is set for slot %d, and the first that has any is %d", x.wake, x.first())
	}
}

// TestEveryStreamIsAnsweredAtItsOwnTime: many streams wait, some for longer than the wheel
// is wide, ask anew for a shorter or a longer time, and stop. Each is answered when its time
// has come and no sooner, by one timer, which is set for the first of them; where that rings
// late, they are all answered then.
func TestEveryStreamIsAnsweredAtItsOwnTime(t *testing.T) {
	waits := []time.Duration{5, 20, 45, 300, 1900, 10_210, 10_240, 14_000, 60_000} // ms
	for _, late := range []bool{false, true} {
		for seed := range uint64(4) {
			b := newLab(t, 76)
			b.opts.StreamIdle = 1000 * time.Hour
			w := &wheelRig{lab: b.open(), late: late}
			rng := rand.New(rand.NewPCG(seed, 1))
			start := func() uint64 {
				return call(b.s.ReadStart, &wire.ReadStartRequest{Log: uint64(labLog), From: uint64(lsn(1, 1)), Until: uint64(logs.LSNMax), WindowHigh: uint64(logs.LSNMax)}).Stream
			}
			b.put(rec(lsn(1, 1), "a"))
			b.clock.mu.Lock()
			w.others = len(b.clock.timers)
			b.clock.mu.Unlock()
			for range 40 {
				w.streams = append(w.streams, waitingStream{id: start()})
			}
			for range 1500 {
				i := rng.IntN(len(w.streams))
				switch s := &w.streams[i]; {
				case rng.IntN(3) == 0:
					w.pass(time.Duration(rng.Int64N(int64(waits[rng.IntN(len(waits))]*time.Millisecond) / 4)))
				case rng.IntN(20) == 0:
					s.request++
					call(b.s.ReadStop, &wire.ReadStopRequest{Stream: s.id})
					s.id, s.deadline = start(), 0
				case s.deadline == 0 || rng.IntN(4) == 0:
					ms := waits[rng.IntN(len(waits))]
					w.next(i, (ms+time.Duration(rng.Int64N(int64(ms))))*time.Millisecond)
				}
			}
			w.pass(2 * waitMax) // whoever is put back is there once more
			for range wheelSlots {
				w.pass(time.Second)
			}
			for i, s := range w.streams {
				if s.deadline > 0 {
					t.Errorf("late %v: stream %d waits for ever", late, i)
				}
			}
			if w.told < 300 || b.s.wheel.count != 0 {
				t.Errorf("late %v: %d were answered, %d are left in the wheel", late, w.told, b.s.wheel.count)
			}
			b.stop()
		}
	}
}
