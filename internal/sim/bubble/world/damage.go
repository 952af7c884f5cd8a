package world

import (
	"context"
	"errors"
	"math/rand/v2"
	"path"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/sim/simfs"
)

// injury is what is wrong with a machine's disk, beyond slowness and a sync that
// fails: a leaf with a mutex of its own, since the disk asks it.
type injury struct {
	mu sync.Mutex
	// harmed says that what the present directory holds was damaged: its node may
	// end itself at any time, and may not be able to start again.
	harmed bool
	// stray is the fault of the next write to a path of class strayClass.
	stray      *simfs.Fault
	strayClass string
	strayed    bool // it has happened
	// exposed says that a write of the journal was lost and that no later group is
	// durable. What goes then goes without trace (package journal says so): who
	// exceeds that exceeds what is promised.
	exposed, followed bool
	unreadable        string // reads of this file fail
	tear              bool   // the power goes during the next sync of the journal
	full              bool   // the disk has no room
}

// class is what a file is, to whom damage is the same thing.
func class(name string) string {
	dir, base := path.Split(name)
	kind, _, _ := strings.Cut(base, "-")
	if ext := path.Ext(base); ext != "" {
		kind = ext
	}
	parts := strings.Split(dir, "/")
	return strings.Join(parts[:min(3, len(parts))], "/") + " " + kind
}

func inJournal(name string) bool { return strings.Contains(name, "journal/") }

// strikes says what happens to an operation that changes something.
func (i *injury) strikes(op simfs.Op) (f simfs.Fault, torn bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	journal := inJournal(op.Path)
	switch {
	case op.Kind == simfs.OpSync && journal:
		if i.followed {
			i.exposed, i.followed = false, false
		}
		if i.tear {
			i.tear = false
			return simfs.Fault{Crash: true}, true
		}
	case op.Kind == simfs.OpWrite:
		i.followed = i.followed || i.exposed && journal && path.Ext(op.Path) == ".journal"
		if i.stray != nil && class(op.Path) == i.strayClass {
			f, i.stray = *i.stray, nil
			i.harmed, i.strayed = true, true
			i.exposed = i.exposed || journal
		}
	}
	return f, false
}

// reads says what happens to an operation that changes nothing.
func (m *machine) reads(op simfs.Op) (f simfs.Fault) {
	i := &m.injury
	i.mu.Lock()
	defer i.mu.Unlock()
	if op.Kind == simfs.OpRead && i.unreadable == op.Path {
		f.Err = simfs.ErrIO
	}
	return f
}

// set changes the injury.
func (i *injury) set(change func(*injury)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	change(i)
}

// get asks it.
func (i *injury) get(ask func(*injury) bool) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return ask(i)
}

// excuses says whether a node may end itself, or not start, for what its disk did.
func (i *injury) excuses(err error) bool {
	return i.get(func(i *injury) bool {
		return i.harmed || i.unreadable != "" || i.full && errors.Is(err, syscall.ENOSPC)
	})
}

// passing says whether a machine that does not start may do so in a while as it is.
func (i *injury) passing() bool {
	return i.get(func(i *injury) bool { return i.unreadable != "" || i.full })
}

// mayReplace says whether one more disk of a machine may be damaged so that a node cannot
// start from it. Nobody copies records of a log from one disk to another, and each disk that
// was replaced was a node's that is given up: once as many are as records have copies, a
// record may have been on these alone for all that anybody can tell, and logs may refuse for
// good. That is beyond what is promised.
func (w *World) mayReplace(m *machine) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.replaced+1 < int(w.params.Replicas)
}

// damage does what one disk may do to one node, and ends it with the power's loss
// often: what is damaged at rest is found when it is read again.
func (w *World) damage(kind Kind, m *machine, hold time.Duration, rng *rand.Rand) {
	i := &m.injury
	if (kind == BitFlip || kind == LostWrite || kind == Misdirected) && !w.mayReplace(m) {
		w.trace.Add("n%d: no disk of it may be lost any more", m.index)
		return
	}
	switch kind {
	case DiskFull:
		m.room(rng.Int64N(64 << 20))
		time.Sleep(hold)
		m.room(-1)
	case DiskStall:
		m.setSlow(500)
		time.Sleep(hold)
		m.setSlow(1)
	case TornTail:
		if w.othersUp(m) && !i.get(func(i *injury) bool { return i.exposed }) {
			i.set(func(i *injury) { i.tear = true })
		}
	case BitFlip:
		for range 1 + rng.IntN(3) {
			m.flip(rng)
		}
		w.endLife(m, hold, rng.IntN(4))
	case ReadError:
		name := m.pick(rng)
		w.trace.Add("n%d cannot read %s", m.index, name)
		i.set(func(i *injury) { i.unreadable = name })
		how := rng.IntN(3)
		w.goes(func() { w.endLife(m, hold/4, how) }) // it may not come up before the file can be read
		time.Sleep(hold)
		i.set(func(i *injury) { i.unreadable = "" })
	case LostWrite, Misdirected:
		w.astray(kind, m, hold, rng)
	}
}

// endLife ends a life of a node: with the power's loss, as a process, or not.
func (w *World) endLife(m *machine, hold time.Duration, how int) {
	switch {
	case !w.othersUp(m):
	case how == 0:
		m.kill(hold)
	case how < 3:
		m.crash(hold)
	}
}

// astray loses or misdirects a write, and then the power: until then the kernel's
// cache hides it.
func (w *World) astray(kind Kind, m *machine, hold time.Duration, rng *rand.Rand) {
	name := m.pick(rng)
	f := simfs.Fault{Lost: true}
	if kind == Misdirected {
		to, used := m.spot(rng)
		if inJournal(to) {
			used /= 2 // its end must not go without trace
		}
		f = simfs.Fault{To: &simfs.Place{Path: to, Offset: rng.Int64N(used + 1)}}
		w.trace.Add("n%d: the next write to %s goes to %s %d", m.index, class(name), to, f.To.Offset)
	} else {
		w.trace.Add("n%d: the next write to %s is lost", m.index, class(name))
	}
	i := &m.injury
	i.set(func(i *injury) { i.stray, i.strayClass, i.strayed = &f, class(name), false })
	if !w.eventually(hold, func() bool { return i.get(func(i *injury) bool { return i.strayed }) }) {
		i.set(func(i *injury) { i.stray = nil })
		return
	}
	w.trace.Add("n%d: it did", m.index)
	time.Sleep(hold / 4)
	w.endLife(m, hold, 1+rng.IntN(3))
}

// room gives the disk so much room, or as much as it had.
func (m *machine) room(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.injury.set(func(i *injury) { i.full = bytes >= 0 })
	if bytes < 0 {
		m.disk.SetCapacity(1 << 40)
		return
	}
	m.disk.SetCapacity(m.disk.Used() + bytes)
}

// pick draws a file: first what kind of one, so that the rare are not forgotten.
func (m *machine) pick(rng *rand.Rand) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var classes []string
	of := map[string][]string{}
	for _, name := range m.disk.Files() {
		c := class(name)
		if of[c] == nil {
			classes = append(classes, c)
		}
		of[c] = append(of[c], name)
	}
	if len(classes) == 0 {
		return ""
	}
	list := of[classes[rng.IntN(len(classes))]]
	return list[rng.IntN(len(list))]
}

// spot draws a file and says how much of it there is before zeros alone follow.
func (m *machine) spot(rng *rand.Rand) (name string, used int64) {
	name = m.pick(rng)
	m.mu.Lock()
	defer m.mu.Unlock()
	b, err := m.disk.Read(name)
	if err != nil {
		return name, 0
	}
	for used = int64(len(b)); used > 0 && b[used-1] == 0; used-- {
	}
	return name, used
}

// flip inverts one bit of one file.
func (m *machine) flip(rng *rand.Rand) {
	name, used := m.spot(rng)
	if used == 0 {
		return
	}
	bit := rng.Int64N(used * 8)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.disk.Flip(name, bit) == nil {
		m.injury.set(func(i *injury) { i.harmed = true })
		m.w.trace.Add("n%d: bit %d of %s (%d bytes) is flipped", m.index, bit, name, used)
	}
}

// replaceDisk puts an empty disk in the place of one from which the node cannot
// start, as an operator would who is told so, and gives the node whose disk that was, 0 if none
// is known.
func (m *machine) replaceDisk() (was catalog.NodeID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.replaced++
	m.missed++
	was, m.id = m.id, 0
	m.disk = m.newDisk()
	m.injury.set(func(i *injury) {
		i.harmed, i.stray, i.exposed, i.followed, i.tear = false, nil, false, false, false
	})
	m.w.trace.Add("n%d gets an empty disk", m.index)
	return was
}

// forget gives up the node whose disk was replaced, as an operator does who replaced
// it. A node that was heard from a moment ago is refused; so it is said again.
func (m *machine) forget(id catalog.NodeID) {
	w := m.w
	var err error
	if !w.eventually(time.Minute, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		err = w.clients[0].ForgetNode(ctx, client.NodeID(id), true)
		return err == nil
	}) {
		w.trace.Add("node %d cannot be forgotten: %v", id, err)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.missed--
	w.trace.Add("node %d is forgotten", id)
}
