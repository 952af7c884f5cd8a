package gossip

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/catalog"
)

// The simulation that the defaults were chosen by. What runs with the tests is a
// sample of it and says what the whole would show; the whole:
//
//	go test ./internal/gossip -run FalseAlarm -gossip.hours=1000 -timeout 2h -v
var simHours = flag.Float64("gossip.hours", 0, "node-hours per cluster size to watch for false alarms; 0: a sample")

// world runs the cores of a cluster in simulated time, a millisecond at a time.
type world struct {
	cfg   Config
	rand  *rand.Rand
	loss  float64
	nodes []*simNode // node i+1
	slots [][]simEvent
	now   time.Duration
	gaps  []int // gaps[s]: how many times somebody was silent for at least s intervals
}

type simNode struct {
	id      catalog.NodeID
	core    *core
	dead    bool
	refuses bool // its address, while dead
	paused  time.Duration
	backlog []simEvent
	late    time.Duration // its ticks come up to that much late
}

type simEvent struct {
	to *simNode
	e  event
}

const simSlots = 4096

func newWorld(n int, cfg Config, seed uint64) *world {
	w := &world{cfg: cfg.withDefaults(), rand: rand.New(rand.NewPCG(seed, uint64(n))), loss: 0.3}
	w.slots = make([][]simEvent, simSlots)
	w.gaps = make([]int, w.cfg.Threshold+3)
	var descs []*catalog.Node
	for i := range n {
		descs = append(descs, &catalog.Node{Id: uint64(i + 1), Location: fmt.Sprintf("r%d/z%d/k%d", i%2, i%4, i%8)})
	}
	for i := range n {
		x := &simNode{id: catalog.NodeID(i + 1)}
		x.core = newCore(w.cfg, x.id, 1, rand.New(rand.NewPCG(seed, uint64(i))))
		x.core.step(0, event{nodes: descs})
		w.nodes = append(w.nodes, x)
	}
	for _, x := range w.nodes {
		w.do(x, event{begin: true})
		w.at(time.Duration(w.rand.Int64N(int64(w.cfg.Interval))), x, event{tick: true})
	}
	return w
}

func (w *world) at(d time.Duration, to *simNode, e event) {
	slot := int((w.now+d)/time.Millisecond+1) % simSlots
	w.slots[slot] = append(w.slots[slot], simEvent{to, e})
}

// run lets time pass.
func (w *world) run(d time.Duration) {
	for end := w.now + d; w.now < end; {
		w.now += time.Millisecond
		slot := int(w.now/time.Millisecond) % simSlots
		due := w.slots[slot]
		for _, ev := range due {
			if ev.e.tick && !ev.to.dead {
				late := time.Duration(0)
				if ev.to.late > 0 {
					late = time.Duration(w.rand.Int64N(int64(ev.to.late)))
				}
				w.at(w.cfg.Interval-time.Millisecond+late, ev.to, event{tick: true})
			}
			w.happen(ev)
		}
		w.slots[slot] = due[:0]
	}
}

func (w *world) happen(ev simEvent) {
	x := ev.to
	switch {
	case x.dead:
	case x.paused > w.now:
		if !ev.e.tick { // a stopped process misses ticks; what was sent to it waits
			x.backlog = append(x.backlog, ev)
		}
	default:
		for _, b := range x.backlog {
			w.do(b.to, b.e)
		}
		x.backlog = nil
		w.do(x, ev.e)
	}
}

func (w *world) do(x *simNode, e event) {
	out := x.core.step(w.now, e)
	if e.tick {
		for i := range x.core.peers {
			if s := x.core.peers[i].silent; s < len(w.gaps) {
				w.gaps[s]++
			}
		}
	}
	for _, s := range out.sends {
		if w.rand.Float64() >= w.loss {
			w.at(time.Duration(w.rand.Int64N(int64(5*time.Millisecond))), w.nodes[s.to-1], event{message: s.msg})
		}
	}
	for _, id := range out.probes {
		// A SYN and what answers it may be lost, each way.
		if t := w.nodes[id-1]; t.dead && t.refuses && w.rand.Float64() >= w.loss && w.rand.Float64() >= w.loss {
			w.at(time.Millisecond, x, event{refused: id})
		}
	}
}

// believed counts how many of the living hold a node for alive.
func (w *world) believed(id catalog.NodeID) (alive, asked int) {
	for _, x := range w.nodes {
		if x.dead || x.id == id {
			continue
		}
		asked++
		if x.core.peer(id).state == Alive {
			alive++
		}
	}
	return alive, asked
}

func (w *world) settle(t testing.TB) {
	t.Helper()
	w.run(3 * time.Second)
	for _, x := range w.nodes {
		if alive, asked := w.believed(x.id); alive != asked {
			t.Fatalf("after 3 s %d of %d hold node %d for alive", alive, asked, x.id)
		}
	}
}

// quick is the detector without patience for pauses: silence alone has to do.
func quick() Config {
	c := Config{}.withDefaults()
	c.Threshold = c.RefusedThreshold
	return c
}

var simSizes = []int{3, 4, 5, 8, 16, 30, 60, 100}

// TestNoFalseAlarm watches how late heartbeats grow at 30 % loss. No death may be
// declared in what is watched, and where that is less than 1,000 node-hours, the
// tail has to say the same of the rest: it falls at least geometrically.
func TestNoFalseAlarm(t *testing.T) {
	for _, n := range simSizes {
		t.Run(fmt.Sprintf("%d_nodes", n), func(t *testing.T) {
			t.Parallel()
			hours := *simHours
			if hours == 0 {
				hours = sample(n)
			}
			cfg := quick()
			threshold := cfg.RefusedThreshold
			cfg.Threshold = 200 // so that the world goes on and the tail is seen
			w := newWorld(n, cfg, 7)
			w.settle(t)
			clear(w.gaps)
			w.run(time.Duration(hours / float64(n) * float64(time.Hour)))
			rate := expected(w.gaps, threshold+1) * 1000 / hours
			t.Logf("%.2f node-hours: gaps %v: %.2g false alarms in 1,000 node-hours", hours, trim(w.gaps), rate)
			if w.gaps[threshold+1] > 0 {
				t.Errorf("%d false alarms in %.0f node-hours", w.gaps[threshold+1], hours)
			}
			if rate > falseAlarmsMax {
				t.Errorf("%.2g false alarms are to be expected in 1,000 node-hours", rate)
			}
		})
	}
}

func trim(gaps []int) []int {
	for i, g := range gaps {
		if g == 0 && i > 0 {
			return gaps[:i]
		}
	}
	return gaps
}

// expected continues the tail of gaps to s with the ratio of its last well-filled
// steps.
func expected(gaps []int, s int) float64 {
	k := 1
	for k+1 < len(gaps) && gaps[k+1] >= 30 {
		k++
	}
	if s <= k {
		return float64(gaps[s])
	}
	ratio := math.Max(float64(gaps[k])/float64(gaps[k-1]), float64(gaps[k-1])/float64(gaps[k-2]))
	return float64(gaps[k]) * math.Pow(ratio, float64(s-k))
}

// seen measures how long it takes until everybody knows of a death, over many
// deaths, and gives the percentiles over observers.
func seen(t testing.TB, n int, cfg Config, deaths int, refuses bool) (p50, p99, last time.Duration) {
	t.Helper()
	var times []time.Duration
	for i := range deaths {
		w := newWorld(n, cfg, uint64(100+i))
		w.settle(t)
		w.run(time.Duration(w.rand.Int64N(int64(200 * time.Millisecond))))
		x := w.nodes[w.rand.IntN(n)]
		x.dead, x.refuses = true, refuses
		died := w.now
		known := make([]bool, n)
		for left := n - 1; left > 0; {
			w.run(5 * time.Millisecond)
			if w.now-died > 20*time.Second {
				t.Fatalf("%d of %d nodes never saw node %d die", left, n-1, x.id)
			}
			for k, o := range w.nodes {
				if o != x && !known[k] && o.core.peer(x.id).state == Dead {
					known[k] = true
					left--
					times = append(times, w.now-died)
				}
			}
		}
	}
	slices.Sort(times)
	return times[len(times)/2], times[len(times)*99/100], times[len(times)-1]
}

func TestADeathIsSeenWithinASecond(t *testing.T) {
	for _, n := range simSizes {
		deaths := max(4, 60/n)
		t.Run(fmt.Sprintf("%d_nodes", n), func(t *testing.T) {
			t.Parallel()
			for name, killed := range map[string]bool{"killed": true, "unplugged": false} {
				cfg := Config{}
				if !killed {
					cfg = quick()
				}
				p50, p99, last := seen(t, n, cfg, deaths, killed)
				t.Logf("%s: p50 %v, p99 %v, last %v", name, p50, p99, last)
				if p99 > time.Second {
					t.Errorf("%s: a death is seen after %v at p99", name, p99)
				}
			}
		})
	}
}

// Nobody dies of a pause under 3 s, of slow ticks, or of both, with the defaults.
func TestNobodyDiesOfAPause(t *testing.T) {
	for _, n := range []int{3, 10, 40} {
		w := newWorld(n, Config{}, 5)
		w.settle(t)
		for round := range 60 / n * 3 {
			x := w.nodes[w.rand.IntN(n)]
			x.paused = w.now + 2990*time.Millisecond
			for _, o := range w.nodes {
				o.late = time.Duration(w.rand.Int64N(int64(40 * time.Millisecond)))
			}
			for range 50 {
				w.run(100 * time.Millisecond)
				for _, o := range w.nodes {
					if alive, asked := w.believed(o.id); alive != asked {
						t.Fatalf("%d nodes, round %d: %d of %d hold node %d for alive; node %d pauses", n, round, alive, asked, o.id, x.id)
					}
				}
			}
		}
	}
}

// BenchmarkChoice is what interval, fan-out and thresholds were chosen by: the
// table of doc.go. Run it once: -bench Choice -benchtime 1x.
func BenchmarkChoice(b *testing.B) {
	for _, interval := range []time.Duration{50, 60, 75, 100} {
		for _, fanOut := range []int{2, 3, 4, 6} {
			b.Run(fmt.Sprintf("%d_ms/%d", interval, fanOut), func(b *testing.B) {
				cfg := Config{Interval: interval * time.Millisecond, FanOut: fanOut, Threshold: 200}
				for b.Loop() {
					cfg.RefusedThreshold = needed(b, cfg)
					cfg.Threshold = cfg.RefusedThreshold
					var worst time.Duration
					for _, n := range []int{3, 30, 100} {
						_, p99, _ := seen(b, n, cfg, max(4, 60/n), false)
						worst = max(worst, p99)
					}
					b.ReportMetric(float64(cfg.Threshold), "intervals")
					b.ReportMetric(worst.Seconds(), "s-p99")
				}
			})
		}
	}
}

// needed is the least threshold without false alarms.
func needed(t testing.TB, cfg Config) int {
	need := 1
	for _, n := range []int{3, 8, 30, 100} {
		hours := sample(n)
		w := newWorld(n, cfg, 7)
		w.settle(t)
		clear(w.gaps)
		w.run(time.Duration(hours / float64(n) * float64(time.Hour)))
		for expected(w.gaps, need+1)*1000/hours > falseAlarmsMax {
			need++
		}
	}
	return need
}

// sample is how many node-hours take about a second.
func sample(n int) float64 { return 12 * float64(n) / float64(n*n+40) }

// falseAlarmsMax is how many false alarms may be expected in 1,000 node-hours.
const falseAlarmsMax = 0.05
