package world

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/braiddb/braid/internal/sim/bubble/lan"
	"github.com/braiddb/braid/internal/sim/simfs"
)

// Params are everything about a world that its seed decides.
type Params struct {
	Delay      lan.Delay
	SyncTime   time.Duration // of a disk, about
	WriteTime  time.Duration
	SkewMax    time.Duration // of a node's clock
	Lease      time.Duration
	Beat       time.Duration
	Crash      simfs.Crash
	Replicas   uint32 // copies of a record
	Writers    int    // of each workload
	Pause      time.Duration
	Faults     []Kind        // that may happen
	Bad        int           // the machine whose disk may do damage, 0: none
	Segment    int64         // size of a journal's
	Gap        time.Duration // between two, about
	SafetyTime time.Duration // how long faults go on
}

// draw takes every parameter from the seed. Some seeds have one kind of fault,
// some have all: what never happens beside another thing hides what that does.
func draw(seed uint64) (Params, *rand.Rand) {
	rng := rand.New(rand.NewPCG(seed, 0x6272616964))
	between := func(a, b time.Duration) time.Duration { return a + time.Duration(rng.Int64N(int64(b-a)+1)) }
	p := Params{
		Delay:      lan.Delay{Min: between(20*time.Microsecond, time.Millisecond)},
		SyncTime:   between(100*time.Microsecond, 4*time.Millisecond),
		WriteTime:  between(0, 20*time.Microsecond),
		SkewMax:    between(0, 80*time.Millisecond),
		Lease:      between(600*time.Millisecond, 2*time.Second),
		Crash:      simfs.Crash{Sectors: rng.IntN(101), Tear: rng.IntN(101), Names: rng.IntN(101)},
		Replicas:   uint32(2 + rng.IntN(2)),
		Writers:    1 + rng.IntN(3),
		Pause:      between(5*time.Millisecond, 60*time.Millisecond),
		Gap:        between(500*time.Millisecond, 3*time.Second),
		SafetyTime: between(12*time.Second, 25*time.Second),
	}
	p.Delay.Max = p.Delay.Min + between(0, 8*time.Millisecond)
	p.Delay.Spike, p.Delay.SpikeMax = rng.IntN(5), between(0, 80*time.Millisecond)
	p.Beat = p.Lease / time.Duration(5+rng.IntN(4))
	share := 1 + rng.IntN(3) // of three: how many of the kinds there are
	for k := range damages {
		if rng.IntN(3) < share {
			p.Faults = append(p.Faults, k)
		}
	}
	if len(p.Faults) == 0 {
		p.Faults = []Kind{PowerLoss}
	}
	p.drawDamage(seed)
	return p, rng
}

// drawDamage chooses the machine with the bad disk, and what is wrong with it. All
// damage strikes one disk, so that what is on the others is whole.
func (p *Params) drawDamage(seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 0x64616d616765))
	p.Segment = 16 << 20
	if rng.IntN(2) == 0 {
		return
	}
	p.Bad = 1 + rng.IntN(nodes)
	p.Segment = 128 << (10 + rng.IntN(3)) // so that segments are let go, and used again
	share := 1 + rng.IntN(3)
	for k := damages; k < kinds; k++ {
		if rng.IntN(3) < share {
			p.Faults = append(p.Faults, k, k)
		}
	}
}

func (p Params) String() string {
	return fmt.Sprintf("delay %v..%v (spikes %d of 1000 up to %v), sync %v, write %v, skew %v, lease %v, beat %v, crash %+v, %d copies, %d writers, pause %v, bad disk of %d, segments of %d KiB, faults %v every %v for %v",
		p.Delay.Min, p.Delay.Max, p.Delay.Spike, p.Delay.SpikeMax, p.SyncTime, p.WriteTime, p.SkewMax, p.Lease, p.Beat, p.Crash, p.Replicas, p.Writers, p.Pause, p.Bad, p.Segment>>10, p.Faults, p.Gap, p.SafetyTime)
}
