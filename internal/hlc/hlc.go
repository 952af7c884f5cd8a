// Package hlc is the hybrid logical clock: one 64-bit reading that follows
// physical time and never runs backwards, so that what happened before has the
// smaller reading on every node that heard of it.
//
//	63                                   12 11          0
//	┌──────────────────────────────────────┬─────────────┐
//	│ microseconds since the Unix epoch    │ logical     │
//	└──────────────────────────────────────┴─────────────┘
//
// Invariants:
//
//	H1. Every reading of Now is greater than every reading before it and than
//	    every timestamp merged before it.
//	H2. A timestamp further ahead of physical time than the allowed skew is
//	    refused and changes nothing: one fast clock cannot poison the others.
package hlc

import (
	"fmt"
	"sync"
	"time"
)

// Timestamp is a hybrid time: microseconds since the Unix epoch in the upper 52
// bits, a logical counter in the lower 12. Zero is "none".
type Timestamp uint64

const logicalBits = 12

// Max is above every reading.
const Max Timestamp = 1<<64 - 1

// FromMicros makes the first timestamp of a microsecond.
func FromMicros(us int64) Timestamp { return Timestamp(us) << logicalBits }

// FromTime is FromMicros of t.
func FromTime(t time.Time) Timestamp { return FromMicros(t.UnixMicro()) }

// Micros is the physical part, in microseconds since the Unix epoch.
func (t Timestamp) Micros() int64 { return int64(t >> logicalBits) }

// Millis is the physical part, in milliseconds since the Unix epoch.
func (t Timestamp) Millis() int64 { return t.Micros() / 1000 }

// Logical is the counter within the microsecond.
func (t Timestamp) Logical() uint16 { return uint16(t & (1<<logicalBits - 1)) }

// Add moves the physical part; the logical part stays.
func (t Timestamp) Add(d time.Duration) Timestamp {
	return t + Timestamp(d.Microseconds())<<logicalBits
}

// Sub is the difference of the physical parts.
func (t Timestamp) Sub(u Timestamp) time.Duration {
	return time.Duration(t.Micros()-u.Micros()) * time.Microsecond
}

func (t Timestamp) String() string {
	return fmt.Sprintf("%s+%d", time.UnixMicro(t.Micros()).UTC().Format("2006-01-02T15:04:05.000000Z"), t.Logical())
}

// SkewError says that a remote timestamp was refused.
type SkewError struct {
	Remote  Timestamp
	Ahead   time.Duration // of this node's physical clock
	Allowed time.Duration
}

func (e *SkewError) Error() string {
	return fmt.Sprintf("clock skew: a peer's hybrid time %s is %s ahead of this node's clock, allowed is %s; check time synchronisation on both nodes",
		e.Remote, e.Ahead, e.Allowed)
}

// Clock gives hybrid times. It is safe for concurrent use.
type Clock struct {
	physical func() int64 // microseconds since the Unix epoch; may jump
	maxSkew  time.Duration

	mu struct {
		sync.Mutex
		last Timestamp // H1: the greatest reading given or merged
	}
}

// New makes a clock over a physical one, in microseconds since the Unix epoch.
func New(physical func() int64, maxSkew time.Duration) *Clock {
	return &Clock{physical: physical, maxSkew: maxSkew}
}

// MaxSkew is the skew beyond which Update refuses.
func (c *Clock) MaxSkew() time.Duration { return c.maxSkew }

// Physical reads the physical clock alone, in microseconds since the Unix epoch.
func (c *Clock) Physical() int64 { return c.physical() }

// Ahead is how far the greatest reading is ahead of the physical clock: of one that was
// set back, for as long as it needs to come there again.
func (c *Clock) Ahead() time.Duration {
	p := c.physical()
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(0, time.Duration(c.mu.last.Micros()-p)*time.Microsecond)
}

// Now gives a new reading, above all before it (H1).
func (c *Clock) Now() Timestamp {
	p := FromMicros(c.physical())
	c.mu.Lock()
	defer c.mu.Unlock()
	if p > c.mu.last {
		c.mu.last = p
	} else {
		c.mu.last++ // the logical part carries into the microseconds on overflow
	}
	return c.mu.last
}

// Update merges a timestamp that came with a message. It refuses one that is
// too far ahead with a *SkewError (H2).
func (c *Clock) Update(remote Timestamp) error {
	p := c.physical()
	c.mu.Lock()
	defer c.mu.Unlock()
	if remote <= c.mu.last {
		return nil
	}
	if ahead := time.Duration(remote.Micros()-p) * time.Microsecond; ahead > c.maxSkew {
		return &SkewError{Remote: remote, Ahead: ahead, Allowed: c.maxSkew}
	}
	c.mu.last = remote
	return nil
}

// AtLeast raises the clock to t without a skew check. It is for times that this
// cluster itself has accepted and written down: the log's entries at restart.
func (c *Clock) AtLeast(t Timestamp) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.last = max(c.mu.last, t)
}
