package sim

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// Duration is written as "1.5s" in options.
type Duration time.Duration

// MarshalText writes it as time.Duration does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads it back.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// Options are everything that a run follows from. They are drawn from a seed,
// written down in full where a run fails, and read back to replay it.
type Options struct {
	Wing     string
	Seed     uint64
	Nodes    int
	Safety   Duration // how long trouble lasts
	Liveness Duration // how long the cluster may take to be well after it
	Net      NetOptions
	Disk     DiskOptions
	Clock    ClockOptions
	Sched    SchedOptions
	Knobs    map[string]int64 `json:",omitempty"` // the wing's own
	Faults   []Fault

	// Messages puts what nodes say to one another into the trace, as far as the wing
	// shows it. It changes nothing else.
	Messages bool `json:"-"`
}

// NetOptions say how messages travel. A OneIn of 0 is never.
type NetOptions struct {
	DelayMin, DelayMax Duration // each link draws its own delay
	Jitter             Duration
	PerKiB             Duration
	LoseOneIn          int
	DoubleOneIn        int
	LateOneIn          int
	Late               Duration
	Ordered            bool // a link does not reorder
}

// DiskOptions say how long syncs take.
type DiskOptions struct {
	SyncMin, SyncMax Duration
	StallOneIn       int
	Stall            Duration
	Slow             Duration // added at most while a fault makes the disk slow
}

// ClockOptions say how far clocks are apart.
type ClockOptions struct {
	Skew     Duration // between any two wall clocks, at most
	Apart    bool     // they are as far apart as they may be
	DriftPPM int      // of a node's monotonic clock, at most
}

// SchedOptions say how long a woken task waits for a processor.
type SchedOptions struct {
	Wake     Duration
	LagOneIn int
	Lag      Duration
}

// Knob reads one of the wing's own options.
func (o *Options) Knob(name string) int64 { return o.Knobs[name] }

// Clone copies the options deeply.
func (o *Options) Clone() *Options {
	c := *o
	c.Faults = append([]Fault(nil), o.Faults...)
	c.Knobs = make(map[string]int64, len(o.Knobs))
	for k, v := range o.Knobs {
		c.Knobs[k] = v
	}
	return &c
}

// String is the options in full, as one line of JSON.
func (o *Options) String() string {
	b, err := json.Marshal(o)
	if err != nil {
		return fmt.Sprintf("seed %d of %s", o.Seed, o.Wing)
	}
	return string(b)
}

// Swarm draws options: every parameter is drawn anew, and each kind of trouble
// is off entirely in some seeds, so that no trouble hides behind another.
type Swarm struct{ *rand.Rand }

// NewSwarm is the source that a seed's options are drawn from.
func NewSwarm(seed uint64) Swarm { return Swarm{rand.New(rand.NewPCG(seed, 0x5a4d))} }

// Dur draws a duration.
func (s Swarm) Dur(lo, hi time.Duration) Duration {
	return Duration(lo + time.Duration(s.Int64N(int64(hi-lo)+1)))
}

// Order draws a duration whose order of magnitude is uniform: short ones are as
// likely as long ones.
func (s Swarm) Order(lo, hi time.Duration) Duration {
	return Duration(float64(lo) * math.Pow(float64(hi)/float64(lo), s.Float64()))
}

// Int draws from [lo, hi].
func (s Swarm) Int(lo, hi int) int { return lo + s.IntN(hi-lo+1) }

// Coin is true with a probability of percent.
func (s Swarm) Coin(percent int) bool { return s.IntN(100) < percent }

// Rare is how rare something is: one in [often, seldom], or never in a third of the seeds.
func (s Swarm) Rare(often, seldom int) int {
	n := s.Int(often, seldom)
	if s.Coin(33) {
		return 0
	}
	return n
}

// Base draws what every wing's options share.
func (s Swarm) Base(wing string, seed uint64, nodes int) *Options {
	o := &Options{Wing: wing, Seed: seed, Nodes: nodes, Safety: Duration(60 * time.Second), Liveness: Duration(30 * time.Second),
		Knobs: make(map[string]int64)}
	lo := s.Dur(50*time.Microsecond, 2*time.Millisecond)
	o.Net = NetOptions{DelayMin: lo, DelayMax: lo + s.Dur(0, 8*time.Millisecond), Jitter: s.Dur(0, 3*time.Millisecond),
		PerKiB: s.Dur(0, 20*time.Microsecond), LoseOneIn: s.Rare(20, 400), DoubleOneIn: s.Rare(20, 400),
		LateOneIn: s.Rare(30, 500), Late: s.Dur(50*time.Millisecond, 3*time.Second), Ordered: s.Coin(30)}
	o.Disk = DiskOptions{SyncMin: s.Dur(50*time.Microsecond, time.Millisecond), StallOneIn: s.Rare(100, 1000),
		Stall: s.Dur(100*time.Millisecond, 3*time.Second), Slow: s.Dur(20*time.Millisecond, 600*time.Millisecond)}
	o.Disk.SyncMax = o.Disk.SyncMin + s.Dur(0, 8*time.Millisecond)
	o.Clock = ClockOptions{Skew: s.Dur(0, 440*time.Millisecond), Apart: s.Coin(40), DriftPPM: s.Rare(50, 7000)}
	o.Sched = SchedOptions{Wake: s.Dur(0, 2*time.Millisecond), LagOneIn: s.Rare(100, 2000), Lag: s.Dur(5*time.Millisecond, 300*time.Millisecond)}
	return o
}
