package client

import (
	"sync"
	"sync/atomic"
	"time"
)

// pressure is what a client does about a tablet that has too much to do: few of
// its refusals are followed by another attempt, and when it refuses most of what it
// is asked, part of that is not sent at all. So load that a cluster cannot carry
// ends with those who make it, and does not grow by itself.
//
// As long as a tablet refuses nothing it costs one look at hot.
type pressure struct {
	hot atomic.Bool // refused something lately

	mu struct {
		sync.Mutex
		until   time.Time // hot until then
		at      time.Time // of the counts
		dripped time.Time // when retries were last given for the time
		retries float64   // that may be made
		asked   float64   // requests lately, refused here or not; halved every second
		taken   float64   // of those, the ones that the tablet took
	}
}

const (
	retryShare  = 0.1         // retries to answered requests
	retryBurst  = 100         // that may be made at once
	retryDrip   = 10          // a second, whatever is answered: a lone client can always try again
	askedSlack  = 2           // as many times as a tablet takes is it asked
	askedFew    = 64          // below, nothing is held back
	pressureFor = time.Second // after the last refusal everything is sent again
)

// refused takes note of an answer that says that too much is asked, or of none in
// time, and reports whether the request may be sent again.
func (p *pressure) refused(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.hot.Swap(true) {
		if p.mu.at.IsZero() {
			p.mu.dripped, p.mu.retries = now, retryBurst
		}
		p.mu.at, p.mu.asked, p.mu.taken = now, 0, 0
	}
	p.mu.until = now.Add(pressureFor)
	p.passLocked(now)
	if p.mu.retries < 1 {
		return false
	}
	p.mu.retries--
	return true
}

// answered takes note of a request that the tablet took.
func (p *pressure) answered() {
	if !p.hot.Load() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.retries = min(p.mu.retries+retryShare, retryBurst)
	p.mu.taken++
}

// admit decides whether a request is sent at all; dice is drawn from [0, 1).
func (p *pressure) admit(now time.Time, dice func() float64) bool {
	if !p.hot.Load() {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.After(p.mu.until) {
		p.hot.Store(false)
		return true
	}
	p.passLocked(now)
	p.mu.asked++
	excess := (p.mu.asked - askedSlack*p.mu.taken - askedFew) / p.mu.asked
	return excess <= 0 || dice() >= excess
}

// passLocked lets time pass over the counts.
func (p *pressure) passLocked(now time.Time) {
	if d := now.Sub(p.mu.dripped); d > 0 {
		p.mu.retries = min(p.mu.retries+retryDrip*d.Seconds(), retryBurst)
		p.mu.dripped = now
	}
	for ; now.Sub(p.mu.at) >= time.Second && p.mu.asked >= 1; p.mu.at = p.mu.at.Add(time.Second) {
		p.mu.asked, p.mu.taken = p.mu.asked/2, p.mu.taken/2
	}
	if now.Sub(p.mu.at) >= time.Second {
		p.mu.at = now
	}
}
