package world

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/node"
	"github.com/braiddb/braid/internal/sim/bubble/lan"
	"github.com/braiddb/braid/internal/sim/simfs"
)

// machine is a node's place in a world: its disk, its address and its clock stay
// over its lives.
type machine struct {
	w     *World
	index int
	name  string
	host  *lan.Host
	cfg   node.Config
	skew  time.Duration
	drift int64 // in millionths

	mu       sync.Mutex
	disk     *simfs.FS
	life     uint64
	node     *node.Node     // nil between two lives
	down     bool           // a fault has it, or it is on its way up
	slow     int            // its disk takes so many times as long
	paused   time.Time      // until when it stands still
	failSync bool           // the next sync of its journal fails
	fatals   int            // in this life
	replaced int            // how often it got an empty disk
	missed   int            // disks that were replaced, of nodes that are not forgotten
	id       catalog.NodeID // of the node whose directory is on the disk; 0: none yet
	injury   injury
}

func (w *World) newMachine(i int) *machine {
	name := fmt.Sprintf("127.0.0.%d", i)
	m := &machine{w: w, index: i, name: name, host: w.net.Host(name), slow: 1}
	m.skew = time.Duration(w.rng.Int64N(int64(2*w.params.SkewMax)+1)) - w.params.SkewMax
	m.drift = w.rng.Int64N(401) - 200
	m.disk = m.newDisk()
	m.cfg = node.Config{
		Data: "data", Listen: name, Memory: 64 << 20, JournalBytes: 64 << 20, Version: "simulation",
		Lease: w.params.Lease, Beat: w.params.Beat, ElectionDelay: w.params.Lease / 6, MaxSkew: 250 * time.Millisecond,
	}
	return m
}

// newDisk is an empty one. Who asks about reads counts them, so only the one of
// which some may fail does.
func (m *machine) newDisk() *simfs.FS {
	o := simfs.Options{Seed: m.w.seed ^ uint64(m.index)<<40 ^ uint64(m.replaced)<<48, Fault: m.fault, Latency: m.latency}
	if m.w.params.Bad == m.index {
		o.Reads = m.reads
	}
	return simfs.New(o)
}

// fault notes every change of the disk, and makes the sync fail that is to.
func (m *machine) fault(op simfs.Op) simfs.Fault {
	m.w.trace.Add("n%d %s %s %d %d", m.index, op.Kind, op.Path, op.Offset, op.Bytes)
	f, torn := m.injury.strikes(op)
	if torn {
		m.w.trace.Add("n%d loses its power in the middle of a sync", m.index)
		m.w.goes(func() { m.crash(time.Second) })
	}
	if op.Kind != simfs.OpSync || !inJournal(op.Path) || torn {
		return f
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.failSync {
		return simfs.Fault{}
	}
	m.failSync = false
	m.w.trace.Add("n%d sync of %s fails", m.index, op.Path)
	return simfs.Fault{Err: simfs.ErrIO}
}

// latency is how long the disk takes.
func (m *machine) latency(op simfs.Op) time.Duration {
	var d time.Duration
	switch op.Kind {
	case simfs.OpSync, simfs.OpSyncDir:
		d = m.w.params.SyncTime/2 + time.Duration(op.Dice%uint64(m.w.params.SyncTime))
	case simfs.OpWrite:
		d = m.w.params.WriteTime
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return d*time.Duration(m.slow) + max(0, time.Until(m.paused))
}

// start begins a life of the node; it returns when the node has met its cluster.
func (m *machine) start(ctx context.Context) error {
	m.mu.Lock()
	m.life++
	m.fatals = 0
	m.w.trace.Add("n%d starts, life %d", m.index, m.life)
	deps := m.deps()
	m.mu.Unlock()
	n, err := node.Start(ctx, m.cfg, deps)
	if err != nil {
		return fmt.Errorf("node %d, life %d: %w", m.index, m.life, err)
	}
	m.mu.Lock()
	m.node, m.down, m.id = n, false, n.ID()
	m.mu.Unlock()
	m.w.trace.Add("n%d is a member", m.index)
	return nil
}

// deps are the node's world. The machine is locked.
func (m *machine) deps() node.Deps {
	begin := time.Now()
	life := m.life
	return node.Deps{
		Micros: m.micros,
		Mono:   func() time.Duration { return time.Since(begin) },
		AfterFunc: func(d time.Duration, f func()) func() bool {
			return time.AfterFunc(d, func() {
				m.standStill()
				f()
			}).Stop
		},
		Rand:    rand.New(rand.NewPCG(m.w.seed^uint64(m.index)<<32, life)),
		FS:      m.disk,
		Network: m.host, JournalSegment: m.w.params.Segment,
		Logger: slog.New(slog.NewTextHandler(&logWriter{m}, &slog.HandlerOptions{Level: slog.LevelInfo, ReplaceAttr: withoutTime})),
		Fatal:  func(err error) { m.died(life, err) },
	}
}

// micros is the node's clock: off by its skew, and running a little too fast or slow.
func (m *machine) micros() int64 {
	elapsed := time.Since(m.w.begin)
	return m.w.begin.Add(elapsed + m.skew + time.Duration(int64(elapsed/time.Microsecond)*m.drift/1000)*time.Nanosecond).UnixMicro()
}

// standStill waits while the machine is paused.
func (m *machine) standStill() {
	m.mu.Lock()
	d := time.Until(m.paused)
	m.mu.Unlock()
	if d > 0 {
		time.Sleep(d)
	}
}

// died is told of a fatal fault. The machine starts again, from what its disk
// really holds.
func (m *machine) died(life uint64, err error) {
	m.w.trace.Add("n%d fatal: %v", m.index, err)
	m.mu.Lock()
	expected := m.disk.Down() || strings.Contains(err.Error(), simfs.ErrIO.Error()) || m.injury.excuses(err)
	if m.fatals++; m.fatals > 1 {
		m.w.wrong("node %d was ended twice in life %d", m.index, life)
	}
	m.mu.Unlock()
	if !expected {
		m.w.wrong("node %d ended itself: %v", m.index, err)
	}
	if !m.disk.Down() {
		m.w.goes(func() { m.crash(time.Second) })
	}
}

// crash cuts the power, and brings the machine back after a while.
func (m *machine) crash(after time.Duration) {
	if m.stop(true) {
		m.back(after)
	}
}

// kill ends the process and starts it again after a while.
func (m *machine) kill(after time.Duration) {
	if m.stop(false) {
		m.back(after)
	}
}

// stop ends the node's life, unless another fault has done so.
func (m *machine) stop(power bool) bool {
	if power {
		m.w.eventually(time.Second, func() bool { return !m.injury.get(func(i *injury) bool { return i.exposed }) })
	}
	m.mu.Lock()
	n := m.node
	if n == nil || m.down {
		m.mu.Unlock()
		return false
	}
	m.down, m.node = true, nil
	m.failSync = false
	if power {
		m.host.PowerOff()
		c := m.w.params.Crash
		c.Dice = m.life
		m.disk = m.disk.Crash(c)
	} else {
		m.disk = m.disk.Kill()
	}
	m.mu.Unlock()
	m.w.trace.Add("n%d stops, power loss %v", m.index, power)
	n.Kill()
	m.w.trace.Add("n%d is gone", m.index)
	return true
}

// back brings the machine up again.
func (m *machine) back(after time.Duration) {
	time.Sleep(after)
	m.host.PowerOn()
	var lost []catalog.NodeID
	for try := 1; ; try++ {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		err := m.start(ctx)
		cancel()
		switch {
		case err == nil:
			for _, id := range lost {
				m.forget(id)
			}
			return
		case m.powerless():
			time.Sleep(after)
			continue // it was lost again on the way up
		case !m.injury.excuses(err):
			m.w.wrong("after a crash: %v", err)
			return
		}
		m.w.trace.Add("n%d does not start: %v", m.index, err)
		m.nextProcess()
		if !m.injury.passing() && try > 1 {
			if id := m.replaceDisk(); id != 0 {
				lost = append(lost, id)
			}
		}
		time.Sleep(time.Second)
	}
}

// powerless reports whether the disk is down, and if so gives it power again.
func (m *machine) powerless() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.disk.Down() {
		return false
	}
	c := m.w.params.Crash
	c.Dice = m.life
	m.disk = m.disk.Crash(c)
	return true
}

// nextProcess lets the disk forget the process that could not start.
func (m *machine) nextProcess() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.disk = m.disk.Kill()
}

// up gives the node if it lives.
func (m *machine) up() *node.Node {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down {
		return nil
	}
	return m.node
}

// withoutTime leaves out of a log line what the trace says better.
func withoutTime(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

// logWriter puts what a node logs into the trace.
type logWriter struct{ m *machine }

func (l *logWriter) Write(p []byte) (int, error) {
	l.m.w.trace.Add("n%d log %s", l.m.index, bytes.TrimSuffix(p, []byte("\n")))
	return len(p), nil
}
