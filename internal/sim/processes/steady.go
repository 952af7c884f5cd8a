package main

import (
	"context"
	"sync/atomic"
	"time"
)

const (
	tick     = 50 * time.Millisecond
	tickMost = time.Second // of a tick that came late, as on a busy machine
)

// steady is a clock that stands still while this process does [P3].
type steady struct {
	ran     atomic.Int64 // nanoseconds
	stopped atomic.Int64
}

// runs moves the clock on until ctx ends.
func (s *steady) runs(ctx context.Context) {
	t := time.NewTicker(tick)
	defer t.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			now := time.Now()
			passed := now.Sub(last)
			s.ran.Add(int64(min(passed, tickMost)))
			s.stopped.Add(int64(max(0, passed-tickMost)))
			last = now
		}
	}
}

func (s *steady) now() time.Duration { return time.Duration(s.ran.Load()) }

// within ends after so much steady time.
func (s *steady) within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		for end := s.now() + d; s.now() < end && ctx.Err() == nil; {
			pause(ctx, tick)
		}
		cancel()
	}()
	return ctx, cancel
}

// eventually asks again until it is so, or the steady time is up.
func (s *steady) eventually(ctx context.Context, limit time.Duration, so func() bool) bool {
	for end := s.now() + limit; ctx.Err() == nil; pause(ctx, tick) {
		if so() {
			return true
		}
		if s.now() > end {
			return false
		}
	}
	return false
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
