package world

import (
	"math/rand/v2"
	"time"
)

// Kind is a kind of fault.
type Kind int

// The kinds.
const (
	PowerLoss Kind = iota
	AllPowerLoss
	ProcessKill
	Isolate
	OneWay
	Ring
	Resets
	Clog
	StandStill
	SlowDisk
	SyncError
	// Those from here on damage one node's disk, and are in half of the seeds.
	DiskFull
	DiskStall
	TornTail
	BitFlip
	ReadError
	LostWrite
	Misdirected
	kinds
)

// damages is the first kind that damages a disk.
const damages = DiskFull

var kindNames = [kinds]string{"power-loss", "all-power-loss", "kill", "isolate", "one-way", "ring", "resets", "clog", "pause", "slow-disk", "sync-error",
	"disk-full", "disk-stall", "torn-tail", "bit-flip", "read-error", "lost-write", "misdirected-write"}

func (k Kind) String() string { return kindNames[k] }

// harm does faults until the safety phase is over. Each has its time; they may
// overlap, but one node at a time is down, unless all are.
func (w *World) harm() {
	until := time.Now().Add(w.params.SafetyTime)
	for {
		time.Sleep(w.params.Gap/2 + time.Duration(w.rng.Int64N(int64(w.params.Gap))))
		if time.Now().After(until) {
			return
		}
		kind := w.params.Faults[w.rng.IntN(len(w.params.Faults))]
		m := w.machines[w.rng.IntN(len(w.machines))]
		if kind >= damages {
			m = w.machines[w.params.Bad-1]
		}
		hold := 200*time.Millisecond + time.Duration(w.rng.Int64N(int64(3*time.Second)))
		w.trace.Add("FAULT %s n%d for %v", kind, m.index, hold)
		w.faults++
		w.happened[kind]++
		dice := rand.New(rand.NewPCG(w.seed, 5000+uint64(w.faults)))
		w.goes(func() { w.do(kind, m, hold, dice) })
	}
}

// othersUp reports whether every other node lives.
func (w *World) othersUp(m *machine) bool {
	for _, o := range w.machines {
		if o != m && o.up() == nil {
			return false
		}
	}
	return true
}

func (w *World) do(kind Kind, m *machine, hold time.Duration, rng *rand.Rand) {
	if kind >= damages {
		w.damage(kind, m, hold, rng)
		return
	}
	switch kind {
	case PowerLoss:
		if w.othersUp(m) {
			m.crash(hold)
		}
	case ProcessKill:
		if w.othersUp(m) {
			m.kill(hold)
		}
	case AllPowerLoss:
		for _, o := range w.machines {
			w.goes(func() { o.crash(hold) })
		}
	case SyncError:
		m.mu.Lock()
		m.failSync = m.node != nil && !m.down
		m.mu.Unlock()
	case StandStill:
		m.mu.Lock()
		m.paused = time.Now().Add(hold)
		m.mu.Unlock()
		m.host.Pause()
		time.Sleep(hold)
		m.host.Resume()
	case SlowDisk:
		m.setSlow(20 + int(hold%80))
		time.Sleep(hold)
		m.setSlow(1)
	default:
		w.links(kind, m, hold)
	}
}

func (m *machine) setSlow(times int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.slow = times
}

// links does what is done to links, and undoes it.
func (w *World) links(kind Kind, m *machine, hold time.Duration) {
	others := func(do func(o *machine)) {
		for _, o := range w.machines {
			if o != m {
				do(o)
			}
		}
	}
	next := w.machines[m.index%len(w.machines)]
	switch kind {
	case Isolate:
		others(func(o *machine) { w.net.Cut(m.name, o.name); w.net.Cut(o.name, m.name) })
	case OneWay:
		others(func(o *machine) { w.net.Cut(m.name, o.name) })
	case Ring: // each end of one link no longer sees the other; both see the third
		w.net.Cut(m.name, next.name)
		w.net.Cut(next.name, m.name)
	case Clog:
		others(func(o *machine) { w.net.Clog(m.name, o.name, hold/10) })
	case Resets:
		others(func(o *machine) { w.net.Reset(m.name, o.name, nil); w.net.Reset(o.name, m.name, nil) })
		return
	}
	time.Sleep(hold)
	others(func(o *machine) { w.net.Heal(m.name, o.name); w.net.Heal(o.name, m.name) })
}
