package store

import (
	"sync"
	"time"
)

// Periods of housekeeping.
const (
	houseEvery  = time.Second
	polishEvery = 5  // seconds until a release that came alone is in the journal
	tidyEvery   = 10 // seconds between looks at what is past its backlog
	reapEvery   = 30 // seconds between looks at read streams that nobody asks
	wheelSlot   = 20 * time.Millisecond
	wheelSlots  = 512
	waitMax     = 60 * time.Second
	purgeAgain  = time.Second
)

// house keeps the store in order: one timer, whatever the number of logs.
type house struct {
	mu      sync.Mutex
	stop    func() bool
	ended   bool
	seconds int
	tidying bool
}

func (h *house) begin(s *Store) {
	s.lookAtDisk()
	h.arm(s)
}

func (h *house) arm(s *Store) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.ended {
		h.stop = s.o.AfterFunc(houseEvery, func() { s.run(func() { s.keepHouse(); h.arm(s) }) })
	}
}

func (h *house) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = true
	if h.stop != nil {
		h.stop()
	}
}

// keepHouse does what is due.
func (s *Store) keepHouse() {
	s.house.mu.Lock()
	s.house.seconds++
	n := s.house.seconds
	s.house.mu.Unlock()
	s.lookAtDisk()
	if err := s.rotate(); err != nil {
		s.o.Logger.Error("logs/store: begin the next partition", "error", err)
	}
	s.giveUpSpoilt()
	if n%polishEvery == 0 {
		if err := s.persistReleased(); err != nil {
			s.o.Logger.Error("logs/store: persist releases", "error", err)
		}
	}
	if n%tidyEvery == 0 {
		s.tidy()
	}
	if n%reapEvery == 0 {
		s.reapStreams()
	}
}

// lookAtDisk decides whether there is room for stores.
func (s *Store) lookAtDisk() {
	full, low := s.o.Journal.Full(), false
	if s.o.Free != nil {
		free, total, err := s.o.Free()
		switch {
		case err != nil:
			s.o.Logger.Warn("logs/store: free space", "error", err)
		case total > 0:
			full = full || free*100 < total*int64(s.o.FreeMin)
			low = free*100 < total*int64(s.o.FreeLow)
		}
	}
	s.full.Store(full)
	s.low.Store(low || full)
}

// wheel wakes read streams whose waiting ends: one timer for all, which is set for the
// first slot that has any. It is guarded by Store.mu.
type wheel struct {
	slots [wheelSlots][]*readStream
	at    int64 // no slot up to it has any
	count int
	wake  int64       // the slot that the timer is set for, 0: it is not set
	stop  func() bool // the timer
}

func slotOf(now time.Duration) int64 { return int64(now / wheelSlot) }

// wheelAdd has a stream looked at when its waiting ends. One that is in the wheel
// for an earlier moment is put right then; its place for a later one is void.
func (s *Store) wheelAdd(r *readStream) {
	w := &s.wheel
	now := slotOf(s.o.Mono())
	switch {
	case w.count == 0:
		w.at = now
	case w.wake > 0:
		w.at = max(w.at, min(now, w.wake-1))
	}
	slot := min(max(slotOf(r.deadline)+1, w.at+1), w.at+wheelSlots-1)
	if r.slot != 0 && r.slot <= slot {
		return
	}
	w.slots[slot%wheelSlots] = append(w.slots[slot%wheelSlots], r)
	r.slot = slot
	w.count++
	s.wheelArm(slot)
}

// wheelArm sets the timer for a slot, unless it is set for an earlier one.
func (s *Store) wheelArm(slot int64) {
	w := &s.wheel
	if s.closed || w.wake > 0 && w.wake <= slot {
		return
	}
	if w.wake > 0 {
		w.stop()
	}
	w.wake = slot
	w.stop = s.o.AfterFunc(time.Duration(slot)*wheelSlot-s.o.Mono(), s.wheelTurn)
}

// first is the first slot that has any; count is not 0.
func (w *wheel) first() int64 {
	slot := w.at + 1
	for len(w.slots[slot%wheelSlots]) == 0 {
		slot++
	}
	return slot
}

// wheelTurn answers those whose time is up.
func (s *Store) wheelTurn() {
	var due []waitingRead
	s.mu.Lock()
	w := &s.wheel
	w.wake = 0
	now := s.o.Mono()
	upTo := min(slotOf(now), w.at+wheelSlots)
	var again []*readStream
	for w.at < upTo {
		w.at++
		i := w.at % wheelSlots
		slot := w.slots[i]
		w.slots[i] = nil
		w.count -= len(slot)
		for _, r := range slot {
			if r.slot != w.at {
				continue // it has an earlier place
			}
			r.slot = 0
			switch {
			case r.reply == nil:
			case r.deadline <= now:
				due = append(due, s.takeWaiting(r))
			default:
				again = append(again, r)
			}
		}
	}
	if w.count == 0 {
		w.at = slotOf(now)
	}
	for _, r := range again {
		s.wheelAdd(r)
	}
	if w.count > 0 {
		s.wheelArm(w.first())
	}
	s.mu.Unlock()
	for _, d := range due {
		d.reply(d.empty())
	}
}
