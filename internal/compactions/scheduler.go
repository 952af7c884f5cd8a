package compactions

import (
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

const (
	pauseLeast = time.Second
	pauseMost  = 10 * time.Second
)

// Scheduler is a pebble.CompactionScheduler. Each Pebble needs one of its own.
type Scheduler struct {
	mu       sync.Mutex
	db       pebble.DBForCompaction
	running  int
	refused  bool       // Pebble was, since the last grant
	granting bool       // somebody is in grant: others wait for their turn
	turn     *sync.Cond // granting has become false
	failures int        // less those that succeeded since
	pausing  *time.Timer
	pause    int // the number of the newest pause
	closed   bool
}

// New makes one.
func New() *Scheduler {
	s := &Scheduler{}
	s.turn = sync.NewCond(&s.mu)
	return s
}

// Failed notes that a compaction failed. It may be called under Pebble's locks.
func (s *Scheduler) Failed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	pause := pauseMost
	if s.failures < 4 {
		pause = min(pauseLeast<<s.failures, pauseMost)
		s.failures++
	}
	if s.pausing != nil {
		s.pausing.Stop()
	}
	s.pause++
	number := s.pause
	s.pausing = time.AfterFunc(pause, func() { s.resume(number) })
}

// Succeeded notes that a compaction did not fail.
func (s *Scheduler) Succeeded() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = max(0, s.failures-1)
}

// resume ends a pause, unless another has begun.
func (s *Scheduler) resume(number int) {
	s.mu.Lock()
	ended := s.pause == number
	if ended {
		s.pausing = nil
	}
	s.mu.Unlock()
	if ended {
		s.grant()
	}
}

// roomLocked reports whether one more compaction may begin.
func (s *Scheduler) roomLocked() bool {
	return !s.closed && s.pausing == nil && s.running < s.db.GetAllowedWithoutPermission()
}

// grant lets compactions begin that were refused. Pebble's locks must not be held.
func (s *Scheduler) grant() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.granting {
		s.turn.Wait()
	}
	s.granting, s.refused = true, false
	for s.roomLocked() && s.startLocked() {
		s.running++
	}
	s.granting = false
	s.turn.Broadcast()
}

// startLocked begins one that waits, if one does, with the lock released.
func (s *Scheduler) startLocked() bool {
	s.mu.Unlock()
	defer s.mu.Lock()
	waits, _ := s.db.GetWaitingCompaction()
	return waits && s.db.Schedule(s)
}

// Register is called by Pebble when it opens.
func (s *Scheduler) Register(_ int, db pebble.DBForCompaction) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.db = db
}

// Unregister is called by Pebble when it closes.
func (s *Scheduler) Unregister() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.pausing != nil {
		s.pausing.Stop()
	}
	for s.granting {
		s.turn.Wait()
	}
}

// TrySchedule is asked by Pebble whether it may begin a compaction now.
func (s *Scheduler) TrySchedule() (bool, pebble.CompactionGrantHandle) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.roomLocked() {
		s.refused = true
		return false, nil
	}
	s.running++
	return true, s
}

// UpdateGetAllowedWithoutPermission is called by Pebble when it may allow more, under its
// locks or not.
func (s *Scheduler) UpdateGetAllowedWithoutPermission() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refused && s.roomLocked() {
		go s.grant()
	}
}

// Done is called by Pebble when a compaction has ended.
func (s *Scheduler) Done() {
	s.mu.Lock()
	s.running--
	s.mu.Unlock()
	s.grant()
}

// Started is for schedulers that measure.
func (s *Scheduler) Started() {}

// MeasureCPU is for schedulers that measure.
func (s *Scheduler) MeasureCPU(pebble.CompactionGoroutineKind) {}

// CumulativeStats is for schedulers that measure.
func (s *Scheduler) CumulativeStats(pebble.CompactionGrantHandleStats) {}
