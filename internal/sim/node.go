package sim

import (
	"math/rand/v2"
	"time"
)

// epochMicros is the wall clock where virtual time is zero.
const epochMicros = 1_700_000_000_000_000

// Node is a machine over its lives. Its methods are a life's doors to the world.
type Node struct {
	ID   int
	Disk Disk
	w    *World

	alive  bool
	paused bool
	life   int
	late   []func() // what waits for a paused node to go on

	// Clocks. The monotonic one runs at rate; the wall clock is kept near the
	// truth from outside, as time services do, but for faults that set it.
	rate   float64
	own    float64       // rate without a fault
	drifts int           // faults under way that changed it
	base   time.Duration // of the monotonic clock
	offset time.Duration // of the wall clock
	jumped time.Duration // of the wall clock, by faults
	rateAt time.Duration // virtual time at which rate was last changed
	mono   time.Duration // monotonic then
}

func newNode(w *World, id int) *Node {
	n := &Node{ID: id, w: w, rate: 1}
	n.Disk.n = n
	c := &w.Opt.Clock
	n.base = w.Between(time.Second, time.Hour)
	n.offset = w.Between(-time.Duration(c.Skew)/2, time.Duration(c.Skew)/2)
	if c.Apart { // as far apart as they may be
		n.offset = time.Duration(c.Skew) / 2
		if w.OneIn(2) {
			n.offset = -n.offset
		}
	}
	n.own = 1 + (w.dice.Float64()*2-1)*float64(c.DriftPPM)/1e6
	n.rate = n.own
	return n
}

// World is where the node lives.
func (n *Node) World() *World { return n.w }

// Alive says that the node runs; it may be paused.
func (n *Node) Alive() bool { return n.alive }

// Up says that the node runs and is not paused.
func (n *Node) Up() bool { return n.alive && !n.paused }

// Life counts the node's lives, from 1.
func (n *Node) Life() int { return n.life }

// Mono is the node's monotonic clock.
func (n *Node) Mono() time.Duration {
	return n.base + n.mono + time.Duration(float64(n.w.now-n.rateAt)*n.rate)
}

// Wall is the node's wall clock in microseconds since the Unix epoch.
func (n *Node) Wall() int64 {
	return epochMicros + (n.w.now + n.offset + n.jumped).Microseconds()
}

// setRate changes how fast the monotonic clock runs.
func (n *Node) setRate(rate float64) {
	n.mono += time.Duration(float64(n.w.now-n.rateAt) * n.rate)
	n.rateAt, n.rate = n.w.now, rate
}

// setRight ends what faults did to the clocks.
func (n *Node) setRight() {
	n.jumped, n.drifts = 0, 0
	n.setRate(n.own)
}

// Rand is a source of chance for a core of this life.
func (n *Node) Rand() *rand.Rand {
	return rand.New(rand.NewPCG(n.w.dice.Uint64(), n.w.dice.Uint64()))
}

// Timer is something that can be called off. The zero Timer was never set.
type Timer struct {
	e     *event
	order uint64 // of e while it is this timer's
}

// Stop calls it off and says whether that was in time.
func (t Timer) Stop() bool {
	if t.e == nil || t.e.order != t.order || t.e.f == nil {
		return false
	}
	t.e.f = nil
	return true
}

// After runs f after d on the node's own clock, if this life lasts so long.
func (n *Node) After(d time.Duration, what string, f func()) Timer {
	real := time.Duration(float64(max(d, 0))/n.rate) + time.Microsecond
	return n.inLife(n.w.now+real, what, f)
}

// Soon runs f as a task of its own, a little later: as soon as a scheduler would.
func (n *Node) Soon(what string, f func()) {
	o := &n.w.Opt.Sched
	d := n.w.Between(0, time.Duration(o.Wake))
	if !n.w.calm && n.w.OneIn(o.LagOneIn) {
		d = n.w.Between(0, time.Duration(o.Lag))
	}
	n.inLife(n.w.now+d, what, f)
}

// inLife makes an event that ends with the life and waits while paused (S4).
func (n *Node) inLife(at time.Duration, what string, f func()) Timer {
	e := n.w.at(at, what, n.ID, f)
	e.life = n.life
	return Timer{e, e.order}
}

func (n *Node) run(life int, f func()) {
	switch {
	case n.life != life || !n.alive:
	case n.paused:
		n.late = append(n.late, f)
	default:
		f()
	}
}

// Send runs f at a peer, if the network lets it through. f is run at most
// twice, in a life of the peer, and must hold copies only.
func (n *Node) Send(to int, what string, size int, f func()) { n.w.Net.send(n.ID, to, what, size, f) }

func (n *Node) boot() {
	n.life++
	n.alive, n.paused, n.late = true, false, nil
	n.Disk.boot()
	n.w.Tracef("node %d boots, life %d", n.ID, n.life)
	n.w.cluster.Boot(n)
}

// Crash ends the life. It boots again after d; 0: when the world heals.
func (n *Node) Crash(why string, d time.Duration) {
	if !n.alive {
		return
	}
	n.w.Tracef("node %d crashes: %s", n.ID, why)
	n.alive, n.paused, n.late = false, false, nil
	n.Disk.crash()
	n.w.Net.reset(n.ID, 0)
	n.w.cluster.Down(n)
	if d > 0 {
		life := n.life
		n.w.at(n.w.now+d, "boot", n.ID, func() {
			if !n.alive && n.life == life {
				n.boot()
			}
		})
	}
}

// pause stops the node, with all that is on its way inside it, for d.
func (n *Node) pause(d time.Duration) {
	n.w.Tracef("node %d stops for %s", n.ID, d)
	n.paused = true
	life := n.life
	n.w.at(n.w.now+d, "resume", n.ID, func() {
		if n.life == life {
			n.resume()
		}
	})
}

func (n *Node) resume() {
	if !n.paused {
		return
	}
	n.w.Tracef("node %d goes on", n.ID)
	n.paused = false
	late, life := n.late, n.life
	n.late = nil
	for _, f := range late {
		n.run(life, f)
	}
}
