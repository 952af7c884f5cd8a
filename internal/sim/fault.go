package sim

import (
	"slices"
	"time"
)

// Fault is one thing that goes wrong, at a time, for a while. It is data, so
// that a schedule can be written down, replayed and shrunk.
type Fault struct {
	Kind string
	At   Duration // since the world began
	For  Duration `json:",omitempty"`
	Node int      `json:",omitempty"` // whom; 0: wings pick by Group
	Peer int      `json:",omitempty"` // the other end of a link; 0: all others
	X    int64    `json:",omitempty"` // more, by kind
}

// The faults that every world knows. Wings add kinds of their own.
const (
	FaultCrash     = "crash"     // node: power off, on again after For
	FaultBlackout  = "blackout"  // all nodes: power off, on again one by one within For
	FaultCoup      = "coup"      // node is cut off, and all others restart within X microseconds
	FaultPause     = "pause"     // node: stopped for For, like SIGSTOP
	FaultCut       = "cut"       // node and peer, both ways
	FaultCutOneWay = "cutOneWay" // from node to peer
	FaultHalves    = "halves"    // X is the mask of one side; clients reach both
	FaultRing      = "ring"      // each node reaches its two neighbours only
	FaultClog      = "clog"      // from node to peer: held back, then all at once
	FaultReset     = "reset"     // node and peer: what is on its way is lost
	FaultFlap      = "flap"      // node and peer: cut and mended X times
	FaultJump      = "jump"      // node's wall clock, by X microseconds, back after For; 0: when the world heals
	FaultDrift     = "drift"     // node's monotonic clock runs X ppm fast, for For
	FaultSlowDisk  = "slowDisk"  // node: syncs take long
	FaultSyncError = "syncError" // node: the next sync fails; it must end
	FaultDiskFull  = "diskFull"  // node, for For
)

// schedule puts the faults into the heap.
func (w *World) schedule() {
	for i := range w.Opt.Faults {
		f := &w.Opt.Faults[i]
		w.at(worldStart+time.Duration(f.At), "fault", f.Node, func() { w.strike(f) })
	}
}

func (w *World) strike(f *Fault) {
	if w.calm {
		return
	}
	w.Tracef("FAULT %s node %d peer %d for %s x %d", f.Kind, f.Node, f.Peer, time.Duration(f.For), f.X)
	if w.CarryOut(f) {
		w.faults++
		w.Sometimes("fault: " + f.Kind)
	} else {
		w.skipped++
		w.Tracef("  found nobody")
	}
}

// CarryOut makes a fault happen now and says whether it found somebody. A wing's
// own fault that is made of several of the world's calls it for each.
func (w *World) CarryOut(f *Fault) (done bool) {
	switch f.Kind {
	case FaultCrash, FaultBlackout, FaultCoup, FaultPause, FaultSlowDisk, FaultSyncError, FaultDiskFull:
		done = w.strikeNode(f)
	case FaultCut, FaultCutOneWay, FaultHalves, FaultRing, FaultClog, FaultReset, FaultFlap:
		done = w.strikeNet(f)
	case FaultJump, FaultDrift:
		done = w.strikeClock(f)
	default:
		done = w.cluster.Fault(f)
	}
	return done
}

// node finds a fault's node; nil where the schedule names one that does not exist.
func (w *World) node(id int) *Node {
	if id < 1 || id > len(w.Nodes) {
		return nil
	}
	return w.Nodes[id-1]
}

func (w *World) strikeNode(f *Fault) bool {
	if f.Kind == FaultBlackout {
		for _, n := range w.Nodes {
			n.Crash("blackout", w.Between(time.Millisecond, time.Duration(f.For)))
		}
		return true
	}
	n := w.node(f.Node)
	if n == nil || !n.alive {
		return false
	}
	switch f.Kind {
	case FaultCoup:
		for _, o := range w.Nodes {
			if o != n {
				o.Crash("coup", w.Between(time.Millisecond, time.Duration(f.X)*time.Microsecond))
			}
		}
		return w.strikeNet(&Fault{Kind: FaultCut, Node: f.Node, For: f.For})
	case FaultCrash:
		n.Crash("fault", time.Duration(f.For))
	case FaultPause:
		if n.paused {
			return false
		}
		n.pause(time.Duration(f.For))
	case FaultSlowDisk:
		n.Disk.slow = w.now + time.Duration(f.For)
	case FaultSyncError:
		n.Disk.fail = true
	case FaultDiskFull:
		n.Disk.full = true
		w.After(time.Duration(f.For), "disk has room", func() { n.Disk.full = false })
	}
	return true
}

// strikeNet cuts and clogs. Clients (node 0) lose nodes that are isolated.
func (w *World) strikeNet(f *Fault) bool {
	var links [][2]int
	both := func(a, b int) { links = append(links, [2]int{a, b}, [2]int{b, a}) }
	switch f.Kind {
	case FaultHalves:
		for a := 1; a <= len(w.Nodes); a++ {
			for b := a + 1; b <= len(w.Nodes); b++ {
				if f.X>>a&1 != f.X>>b&1 {
					both(a, b)
				}
			}
		}
	case FaultRing:
		n := len(w.Nodes)
		for a := 1; a <= n; a++ {
			for b := a + 1; b <= n; b++ {
				if d := b - a; d != 1 && d != n-1 {
					both(a, b)
				}
			}
		}
	default:
		for b := 1; b <= len(w.Nodes); b++ {
			if b == f.Node || f.Peer != 0 && b != f.Peer {
				continue
			}
			links = append(links, [2]int{f.Node, b})
			if f.Kind != FaultCutOneWay && f.Kind != FaultClog {
				links = append(links, [2]int{b, f.Node})
			}
		}
	}
	if w.node(max(f.Node, 1)) == nil || len(links) == 0 {
		return false
	}
	w.breakLinks(f, links)
	return true
}

func (w *World) breakLinks(f *Fault, links [][2]int) {
	d := time.Duration(f.For)
	cut := func() {
		for _, l := range links {
			w.Net.cut(l[0], l[1])
		}
	}
	mend := func() {
		if !w.calm {
			for _, l := range links {
				w.Net.mend(l[0], l[1])
			}
		}
	}
	switch f.Kind {
	case FaultReset:
		w.Net.reset(f.Node, f.Peer)
	case FaultClog:
		for _, l := range links {
			w.Net.clog(l[0], l[1], w.now+d)
		}
	case FaultFlap:
		for i := range f.X {
			at := d * time.Duration(i) / time.Duration(f.X)
			w.After(at, "cut", func() {
				if !w.calm {
					cut()
				}
			})
			w.After(at+d/time.Duration(2*f.X), "mend", mend)
		}
	default:
		cut()
		w.After(d, "mend", mend)
	}
}

func (w *World) strikeClock(f *Fault) bool {
	n := w.node(f.Node)
	if n == nil {
		return false
	}
	d, by := time.Duration(f.For), time.Duration(f.X)*time.Microsecond
	if f.Kind == FaultJump {
		n.jumped += by
		if d > 0 {
			w.unlessCalm(d, "clock set right", func() { n.jumped -= by })
		}
		return true
	}
	n.setRate(1 + float64(f.X)/1e6)
	n.drifts++
	w.unlessCalm(d, "clock runs right", func() {
		if n.drifts--; n.drifts == 0 {
			n.setRate(n.own)
		}
	})
	return true
}

// unlessCalm ends a fault after d, if the world has not healed until then.
func (w *World) unlessCalm(d time.Duration, what string, end func()) {
	w.After(d, what, func() {
		if !w.calm {
			end()
		}
	})
}

// heal ends all faults (S6): links, disks, clocks, pauses, then nodes that are down.
func (w *World) heal() {
	w.Tracef("the world heals")
	w.calm = true
	w.Net.heal()
	w.guard(func() {
		for _, n := range w.Nodes {
			n.Disk.slow, n.Disk.full, n.Disk.fail = 0, false, false
			n.setRight()
		}
		w.cluster.Heal()
		for _, n := range w.Nodes {
			n.resume()
			if !n.alive {
				n.boot()
			}
		}
	})
}

// Kinds that a schedule draws from, with how many it draws at most.
type Kinds []Kind

// Kind draws one kind of fault.
type Kind struct {
	Name string
	Most int // of these in one seed
	Draw func(s Swarm, f *Fault, nodes int)
}

// Schedule draws faults: each kind is off entirely in some seeds. At least
// three come: whoever is drawn short gets crashes.
func (s Swarm) Schedule(o *Options, kinds Kinds) {
	last := time.Duration(o.Safety) * 9 / 10
	add := func(k *Kind) {
		f := Fault{Kind: k.Name, At: s.Dur(time.Second, last), Node: s.Int(1, o.Nodes)}
		if k.Draw != nil {
			k.Draw(s, &f, o.Nodes)
		}
		o.Faults = append(o.Faults, f)
	}
	for i := range kinds {
		k := &kinds[i]
		if s.Coin(45) {
			continue
		}
		for range s.Int(1, k.Most) {
			add(k)
		}
	}
	for len(o.Faults) < 4 {
		add(&kinds[0])
	}
	slices.SortStableFunc(o.Faults, func(a, b Fault) int { return int(a.At - b.At) })
}

// peerOf draws another node.
func (s Swarm) peerOf(n, nodes int) int {
	if nodes < 2 {
		return 0
	}
	p := s.Int(1, nodes-1)
	if p >= n {
		p++
	}
	return p
}

// WorldKinds are the faults that every world knows, as most wings want them.
func WorldKinds() Kinds {
	long := func(lo, hi time.Duration) func(Swarm, *Fault, int) {
		return func(s Swarm, f *Fault, _ int) { f.For = s.Order(lo, hi) }
	}
	link := func(hi time.Duration, all int) func(Swarm, *Fault, int) {
		return func(s Swarm, f *Fault, nodes int) {
			f.For = s.Dur(50*time.Millisecond, hi)
			if !s.Coin(all) {
				f.Peer = s.peerOf(f.Node, nodes)
			}
		}
	}
	return Kinds{
		{FaultCrash, 6, long(10*time.Millisecond, 6*time.Second)},
		{FaultBlackout, 2, long(100*time.Millisecond, 4*time.Second)},
		{FaultCoup, 3, func(s Swarm, f *Fault, _ int) {
			f.X, f.For = time.Duration(s.Order(5*time.Millisecond, time.Second)).Microseconds(), s.Order(200*time.Millisecond, 6*time.Second)
		}},
		{FaultPause, 4, long(50*time.Millisecond, 7*time.Second)},
		{FaultCut, 5, link(8*time.Second, 50)},
		{FaultCutOneWay, 4, link(6*time.Second, 40)},
		{FaultHalves, 2, func(s Swarm, f *Fault, nodes int) {
			f.Node, f.X, f.For = 0, 2*(1+s.Int64N(1<<nodes-2)), s.Dur(200*time.Millisecond, 8*time.Second)
		}},
		{FaultRing, 1, func(s Swarm, f *Fault, _ int) { f.Node, f.For = 0, s.Dur(200*time.Millisecond, 8*time.Second) }},
		{FaultClog, 3, link(4*time.Second, 30)},
		{FaultReset, 5, func(s Swarm, f *Fault, nodes int) {
			if s.Coin(60) {
				f.Peer = s.peerOf(f.Node, nodes)
			}
		}},
		{FaultFlap, 2, func(s Swarm, f *Fault, nodes int) {
			f.Peer, f.X, f.For = s.peerOf(f.Node, nodes), int64(s.Int(2, 8)), s.Dur(time.Second, 6*time.Second)
		}},
		{FaultSlowDisk, 3, long(200*time.Millisecond, 8*time.Second)},
		{FaultSyncError, 2, nil},
		{FaultDiskFull, 2, long(100*time.Millisecond, 5*time.Second)},
	}
}
