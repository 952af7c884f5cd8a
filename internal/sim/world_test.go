package sim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// counters is a cluster without sense: every node counts what it hears and
// keeps the count on disk; a count that goes back would be a lost durable state.
type counters struct {
	w      *World
	kept   []int // durable
	seen   []int // of this life
	told   []int // highest count that was told durable
	forget bool  // the wing breaks its promise on purpose
	ops    int
}

func (c *counters) Boot(n *Node) {
	i := n.ID - 1
	if c.forget && n.Life() > 1 {
		c.kept[i] = 0
	}
	c.seen[i] = c.kept[i]
	if c.kept[i] < c.told[i] {
		c.w.Fail("node %d comes back with %d, was told that %d are durable", n.ID, c.kept[i], c.told[i])
	}
	c.talk(n)
}

func (c *counters) talk(n *Node) {
	n.After(100*time.Millisecond, "talk", func() {
		c.talk(n)
		to := 1 + n.Rand().IntN(len(c.w.Nodes))
		n.Send(to, "hello", 10, func() { c.hear(c.w.Nodes[to-1]) })
	})
}

func (c *counters) hear(n *Node) {
	i := n.ID - 1
	c.seen[i]++
	v := c.seen[i]
	n.Disk.Write(func() { c.kept[i] = v }, func(err error) {
		if err != nil {
			n.Crash("its disk failed", time.Second)
			return
		}
		c.told[i] = v
		c.ops++
	})
}

func (c *counters) Down(*Node)         {}
func (c *counters) Start()             {}
func (c *counters) Fault(*Fault) bool  { return false }
func (c *counters) MayLose(*Node) bool { return false }
func (c *counters) Heal()              {}
func (c *counters) Watch()             {}
func (c *counters) Converged() error {
	for _, n := range c.w.Nodes {
		if !n.Up() {
			return fmt.Errorf("node %d is down", n.ID)
		}
	}
	return nil
}
func (c *counters) Check() error { return nil }
func (c *counters) Ops() int     { return c.ops }
func (c *counters) Close()       {}

func countersWing(forget bool) *Wing {
	return &Wing{Name: "counters", Draw: func(seed uint64) *Options {
		s := NewSwarm(seed)
		o := s.Base("counters", seed, s.Int(3, 7))
		kinds := append(WorldKinds(), Kind{FaultJump, 3, func(s Swarm, f *Fault, _ int) { f.X = 1000 }},
			Kind{FaultDrift, 2, func(s Swarm, f *Fault, _ int) { f.X, f.For = 5000, Duration(time.Second) }})
		s.Schedule(o, kinds)
		return o
	}, Build: func(w *World) Cluster {
		n := len(w.Nodes)
		return &counters{w: w, forget: forget, kept: make([]int, n), seen: make([]int, n), told: make([]int, n)}
	}}
}

// TestSameSeedSameTrace runs every seed twice, the second time from its options
// as they would be written down, and with a trace (S2, S3).
func TestSameSeedSameTrace(t *testing.T) {
	wing := countersWing(false)
	hashes := map[string]uint64{}
	reached := map[string]uint64{}
	for seed := uint64(1); seed <= 60; seed++ {
		o := wing.Draw(seed)
		a := wing.Run(o, nil)
		if a.Error != "" {
			t.Fatalf("seed %d: %s", seed, a.Error)
		}
		again := new(Options)
		if err := json.Unmarshal([]byte(o.String()), again); err != nil {
			t.Fatal(err)
		}
		var trace bytes.Buffer
		if b := wing.Run(again, &trace); b.Hash != a.Hash || b.Events != a.Events {
			t.Fatalf("seed %d: hashes %s and %s, %d and %d events", seed, a.Hash, b.Hash, a.Events, b.Events)
		}
		if !strings.Contains(trace.String(), "the world heals") {
			t.Fatalf("seed %d: the trace does not tell: %s", seed, trace.String())
		}
		if was, ok := hashes[a.Hash]; ok {
			t.Fatalf("seeds %d and %d have equal traces", was, seed)
		}
		hashes[a.Hash] = seed
		if a.Faults < 3 || a.Virtual < Duration(60*time.Second) || a.Ops < 500 {
			t.Fatalf("seed %d: %d faults, %d operations in %s", seed, a.Faults, a.Ops, time.Duration(a.Virtual))
		}
		for k, n := range a.Reached {
			reached[k] += n
		}
	}
	for _, k := range []string{FaultCrash, FaultBlackout, FaultPause, FaultCut, FaultCutOneWay, FaultHalves, FaultRing, FaultClog,
		FaultReset, FaultFlap, FaultJump, FaultDrift, FaultSlowDisk, FaultSyncError, FaultDiskFull} {
		if reached["fault: "+k] == 0 {
			t.Errorf("no seed had the fault %s", k)
		}
	}
	if reached["disk: sync failed"] == 0 {
		t.Error("no sync failed")
	}
}

// TestClocksAreRightOnceTheWorldHeals lets clocks be wrong for longer than the safety
// phase lasts, and drifts overlap (S6).
func TestClocksAreRightOnceTheWorldHeals(t *testing.T) {
	o := countersWing(false).Draw(1)
	second := Duration(time.Second)
	o.Safety, o.Faults = 10*second, []Fault{
		{Kind: FaultJump, Node: 1, At: 9 * second, For: 5 * second, X: 557_000_000},
		{Kind: FaultJump, Node: 2, At: 1 * second, For: 2 * second, X: 557_000_000},
		{Kind: FaultJump, Node: 2, At: 2 * second, X: -9_000},
		{Kind: FaultDrift, Node: 1, At: 1 * second, For: 2 * second, X: 5_000},
		{Kind: FaultDrift, Node: 1, At: 2 * second, For: 3 * second, X: 7_000},
		{Kind: FaultDrift, Node: 2, At: 9 * second, For: 5 * second, X: 5_000},
	}
	w := NewWorld(o, nil, func(w *World) Cluster {
		n := len(w.Nodes)
		return &counters{w: w, kept: make([]int, n), seen: make([]int, n), told: make([]int, n)}
	})
	wall := func(n *Node) time.Duration { return time.Duration(n.Wall()-epochMicros)*time.Microsecond - w.Now() }
	var offsets []time.Duration
	var rates []float64
	for _, n := range w.Nodes {
		offsets, rates = append(offsets, wall(n)), append(rates, n.rate)
	}
	look := func(when string) {
		for i, n := range w.Nodes {
			if d := wall(n) - offsets[i]; d.Abs() > time.Microsecond || n.rate != rates[i] {
				t.Errorf("%s: the wall clock of node %d is off by %s, its rate is %v and was %v", when, n.ID, d, n.rate, rates[i])
			}
		}
	}
	w.After(time.Duration(o.Safety)-2*time.Second, "look", func() {
		if n := w.Nodes[0]; n.rate != rates[0] {
			t.Errorf("after two drifts that overlapped the rate of node 1 is %v, and was %v", n.rate, rates[0])
		}
	})
	w.After(time.Duration(o.Safety)+time.Millisecond, "look", func() { look("healed") })
	w.After(time.Duration(o.Safety)+20*time.Second, "look", func() { look("later") })
	w.cluster = &restless{counters: w.cluster.(*counters), until: worldStart + time.Duration(o.Safety) + 21*time.Second}
	if r := w.Run(); r.Error != "" || r.Faults != len(o.Faults) {
		t.Fatalf("%d faults: %s", r.Faults, r.Error)
	}
}

// restless is not well before a time.
type restless struct {
	*counters
	until time.Duration
}

func (c *restless) Converged() error {
	if c.w.Now() < c.until {
		return errors.New("it is early")
	}
	return c.counters.Converged()
}

// TestLostStateIsSeen breaks the cluster on purpose.
func TestLostStateIsSeen(t *testing.T) {
	wing := countersWing(true)
	for seed := uint64(1); seed <= 20; seed++ {
		if r := wing.Run(wing.Draw(seed), nil); r.Error != "" {
			if !strings.Contains(r.Error, "was told that") {
				t.Fatalf("seed %d: %s", seed, r.Error)
			}
			return
		}
	}
	t.Fatal("nobody noticed")
}

// TestNothingOfAnEndedLifeRuns is S4: timers, tasks, messages and disk writes of
// a life end with it, and those of a paused node wait.
func TestNothingOfAnEndedLifeRuns(t *testing.T) {
	wing := countersWing(false)
	o := NewSwarm(1).Base("counters", 1, 3)
	o.Net.LoseOneIn = 0
	w := NewWorld(o, nil, wing.Build)
	w.boot()
	n := w.Nodes[0]
	ran, waited := "", ""
	n.After(time.Second, "timer", func() { ran += "timer " })
	n.Soon("task", func() { ran += "task " })
	n.Disk.Write(func() {}, func(error) { ran += "disk " })
	n.Crash("test", 10*time.Millisecond)
	w.runUntil(w.now + 2*time.Second)
	if ran != "" || n.Life() != 2 {
		t.Fatalf("life %d: ran %q", n.Life(), ran)
	}
	n.pause(time.Second)
	n.Soon("task", func() { waited += "task " })
	before := n.Mono()
	w.runUntil(w.now + 500*time.Millisecond)
	if waited != "" {
		t.Fatal("a paused node works")
	}
	w.runUntil(w.now + time.Second)
	if waited != "task " {
		t.Fatal("what waited for a paused node is lost")
	}
	if d := n.Mono() - before; d < 1400*time.Millisecond || d > 1600*time.Millisecond {
		t.Fatalf("the monotonic clock went on by %s in 1.5 s", d)
	}
}

// TestMeanwhile: what is due happens while its caller stands still, once and in order,
// and does not nest.
func TestMeanwhile(t *testing.T) {
	w := NewWorld(countersWing(false).Draw(1), nil, countersWing(false).Build)
	var seen []string
	note := func(s string) func() { return func() { seen = append(seen, s) } }
	w.After(time.Millisecond, "early", func() {
		note("early")()
		w.Meanwhile(time.Hour) // does not nest
	})
	w.After(2*time.Millisecond, "next", note("next"))
	w.After(time.Second, "late", note("late"))
	w.where = 3
	w.Meanwhile(10 * time.Millisecond)
	if strings.Join(seen, " ") != "early next" || w.where != 3 {
		t.Fatalf("meanwhile happened %v, at node %d", seen, w.where)
	}
}
