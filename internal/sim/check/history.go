package check

import (
	"math"
	"time"
)

// Outcome is what a client knows of an operation.
type Outcome uint8

const (
	// Unknown: no answer came, or one that says so.
	Unknown Outcome = iota
	// OK: it was carried out.
	OK
	// None: it has not happened and never will.
	None
)

// Op is what all operations share. A client is one line of thought: it has one
// operation under way at a time.
type Op struct {
	Client  int
	Call    time.Duration
	Return  time.Duration
	Outcome Outcome
}

// end is when the operation was over for its client.
func (o *Op) end() time.Duration {
	if o.Outcome == Unknown {
		return math.MaxInt64
	}
	return o.Return
}

// before says that a was over when b began.
func (o *Op) before(b *Op) bool { return o.Outcome == OK && o.Return < b.Call }
