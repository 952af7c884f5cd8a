// Package sometimes counts how often the interesting branches of production code
// are taken, so that a campaign of the simulation can say which it never reached:
// a branch that no seed takes is one that no seed tests.
//
//	var voteWithheld = sometimes.Point("multiraft: a vote is withheld under a promise")
//	...
//	voteWithheld.Reach()
//
// Outside of the simulation nothing counts: Reach is one load of a flag that
// never changes.
//
// Invariants:
//
//	O1. Reaching a point changes nothing that the caller can see.
//	O2. A name stands for one place, and begins with the room that it is in.
package sometimes

import (
	"fmt"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
)

// P is a place that is to be reached sometimes.
type P struct {
	name string
	n    atomic.Uint64
}

var (
	counting atomic.Bool
	registry struct {
		sync.Mutex
		points []*P
		names  map[string]bool
	}
)

// Point names a place. It is called where a package's variables are initialised.
func Point(name string) *P {
	registry.Lock()
	defer registry.Unlock()
	if !strings.Contains(name, ": ") {
		panic(fmt.Sprintf("BUG: the point %q does not say which room it is in", name)) // O2
	}
	if registry.names[name] {
		panic(fmt.Sprintf("BUG: two points are named %q", name)) // O2
	}
	if registry.names == nil {
		registry.names = make(map[string]bool)
	}
	registry.names[name] = true
	p := &P{name: name}
	registry.points = append(registry.points, p)
	return p
}

// Reach counts, where counting is on.
func (p *P) Reach() {
	if counting.Load() {
		p.n.Add(1)
	}
}

// Count begins to count, from zero.
func Count() {
	registry.Lock()
	defer registry.Unlock()
	for _, p := range registry.points {
		p.n.Store(0)
	}
	counting.Store(true)
}

// Reached is a point with how often it was reached since Count.
type Reached struct {
	Name  string
	Times uint64
}

// Room is the room whose code the point stands in: what its name begins with.
func (r Reached) Room() string {
	room, _, _ := strings.Cut(r.Name, ":")
	return room
}

// All lists the points, by name.
func All() []Reached {
	registry.Lock()
	defer registry.Unlock()
	out := make([]Reached, 0, len(registry.points))
	for _, p := range registry.points {
		out = append(out, Reached{p.name, p.n.Load()})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}
