package client

import (
	crand "crypto/rand"
	"math/rand/v2"
	"time"
)

// systemClock is the default Clock.
type systemClock struct{}

func (systemClock) Now() time.Time { return time.Now() }

func (systemClock) AfterFunc(d time.Duration, f func()) func() bool {
	return time.AfterFunc(d, f).Stop
}

// systemRand is the default random source: seeded by the operating system, so
// that two processes never draw the same client id.
func systemRand() *rand.Rand {
	var seed [32]byte
	if _, err := crand.Read(seed[:]); err != nil {
		panic("BUG: crypto/rand does not fail: " + err.Error())
	}
	return rand.New(rand.NewChaCha8(seed))
}
