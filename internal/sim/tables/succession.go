package tables

import (
	"errors"
	"io"
	"slices"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/multiraft"
	"github.com/braiddb/braid/internal/sim"
)

// Trouble at turning points: leaderships that pass on before everybody has heard of
// the one before, changes of a configuration in a minority's absence, and engines
// that flush, or cannot take a snapshot, in the middle of what they are told.

// faultRelay: the leadership of group X passes on Peer times in quick succession, each
// time by another way, and each time somebody has missed a part of it.
const faultRelay = "relay"

// turn draws the knobs and faults of this file, from a source of their own, as aim does.
func turn(o *sim.Options, seed uint64) {
	s := sim.NewSwarm(seed ^ 0x7_4195)
	k := o.Knobs
	k["riftOneIn"] = int64(s.Rare(1, 6))
	k["midFlushOneIn"] = int64(s.Rare(200, 4000))
	k["restoreFailsOneIn"] = int64(s.Rare(2, 12))
	if s.Coin(35) {
		return
	}
	for range s.Int(1, 4) {
		o.Faults = append(o.Faults, sim.Fault{Kind: faultRelay, At: s.Dur(time.Second, time.Duration(o.Safety)*9/10), X: s.Int64N(k["tablets"]),
			Peer: s.Int(2, 4), For: s.Order(2*time.Millisecond, 400*time.Millisecond)})
	}
	slices.SortStableFunc(o.Faults, func(a, b sim.Fault) int { return int(a.At - b.At) })
}

// relay takes a leadership away, and then from whoever got it. d is about how long
// somebody else is deaf meanwhile, and how long a leader has.
func (c *cluster) relay(v *view, l *hosted, hops int, d time.Duration) bool {
	w, term := c.w, l.group.Status().Term
	if others := v.others(l); len(others) > 0 && w.OneIn(2) {
		c.deafen(others[w.Dice().IntN(len(others))], w.Between(time.Millisecond, d))
	}
	switch w.Dice().IntN(4) {
	case 0, 1:
		l.group.TransferLeader(0)
	case 2:
		l.m.n.Crash("power off as soon as it leads", w.Between(5*time.Millisecond, d+50*time.Millisecond))
	default:
		c.eclipse(l.m.n.ID, w.Dice().IntN(3), w.Between(d, d+2*c.ms("leaseMs")))
	}
	if hops == 1 {
		return true
	}
	until := w.Now() + 2*c.ms("leaseMs") + 2*time.Second
	var look func()
	look = func() {
		if w.Calm() || w.Now() > until {
			return
		}
		next := v.elected(term)
		if next == nil {
			w.After(time.Millisecond, "relay", look)
			return
		}
		w.After(w.Between(0, d), "relay", func() {
			if !w.Calm() && next.m.n.Up() && next.m.fatal == nil && next.m.find(v.id) == next && next.group.Status().Role == multiraft.RoleLeader {
				w.Sometimes("leader: overthrown as soon as it was one")
				c.relay(v, next, hops-1, d)
			}
		})
	}
	look()
	return true
}

// elected is the replica that leads in a term above another; nil if none does.
func (v *view) elected(above uint64) *hosted {
	for _, m := range v.c.members {
		if h := m.find(v.id); h != nil && m.n.Up() && m.fatal == nil {
			if s := h.group.Status(); s.Role == multiraft.RoleLeader && s.Term > above {
				return h
			}
		}
	}
	return nil
}

// others are the nodes of a leader's configuration but its own.
func (v *view) others(l *hosted) (out []int) {
	for _, r := range l.group.Status().Conf {
		if int(r.Node) != l.m.n.ID {
			out = append(out, int(r.Node))
		}
	}
	return out
}

// deafen has a node hear of no peer for a moment.
func (c *cluster) deafen(node int, d time.Duration) {
	for o := range c.members {
		if o+1 != node {
			c.w.CarryOut(&sim.Fault{Kind: sim.FaultCutOneWay, Node: o + 1, Peer: node, For: sim.Duration(d)})
		}
	}
}

// change asks a leader for a step of a change of its configuration. In some seeds a
// step sometimes waits until the leader has been alone with a bare majority for so
// long that the others' promises are over.
func (h *hosted) change(ch multiraft.Change, within time.Duration, done func(error)) {
	c, w := h.m.c, h.m.c.w
	others := h.view.others(h)
	if w.Calm() || len(others) < 2 || !w.OneIn(int(w.Opt.Knob("riftOneIn"))) {
		h.group.ChangeThen(ch, within, done)
		return
	}
	lease := c.ms("leaseMs")
	var side int64 = 1 << h.m.n.ID
	voters := votersOf(h.group.Status().Conf)
	w.Dice().Shuffle(len(voters), func(i, j int) { voters[i], voters[j] = voters[j], voters[i] })
	left := len(voters) / 2 // beside the leader
	for _, node := range voters {
		if node != h.m.n.ID && left > 0 {
			side |= 1 << node
			left--
		}
	}
	w.Sometimes("membership: changes while only a bare majority is there")
	w.CarryOut(&sim.Fault{Kind: sim.FaultHalves, X: side, For: sim.Duration(w.Between(lease, 3*lease))})
	life := h.m.n.Life()
	w.After(w.Between(lease*3/4, lease*5/4), "change", func() {
		if h.m.n.Up() && h.m.n.Life() == life && h.m.find(h.view.id) == h {
			h.group.ChangeThen(ch, within, done)
			return
		}
		done(multiraft.ErrStopped)
	})
}

// votersOf are the nodes of a configuration's voters.
func votersOf(conf []*catalog.Replica) (out []int) {
	for _, r := range conf {
		if r.Role == catalog.Role_ROLE_VOTER {
			out = append(out, int(r.Node))
		}
	}
	return out
}

// committed has the engine flush right behind one of its commits, whatever else the
// entries at hand have still to do: on a node a memtable is full when it is. The engine
// flushes a full one itself, on a goroutine and so at any time: what a crash leaves
// would not follow from the seed. Here it is flushed before it can be full, or, where
// one commit fills it, before anything else happens (S1).
func (m *member) committed(bytes int) {
	w := m.c.w
	if m.engine == nil {
		return
	}
	m.filled += bytes
	if m.filled < memTableFull && (w.Calm() || !w.OneIn(int(w.Opt.Knob("midFlushOneIn")))) {
		return
	}
	w.Sometimes("engine: flushed between two commits")
	if m.flushEngine() == nil {
		for _, h := range m.hosted {
			h.flushed = max(h.flushed, h.applied)
		}
	}
}

var errNoRoom = errors.New("sim: no room for a snapshot")

// shaky is a snapshot's stream that the disk may have no room for, from somewhere on.
func (h *hosted) shaky(r io.Reader) io.Reader {
	w := h.m.c.w
	if w.Calm() || !h.m.n.Disk.Full() && !w.OneIn(int(w.Opt.Knob("restoreFailsOneIn"))) {
		return r
	}
	w.Sometimes("snapshot: there is no room for it at once")
	return io.MultiReader(io.LimitReader(r, w.Dice().Int64N(2<<10)), noRoom{})
}

type noRoom struct{}

func (noRoom) Read([]byte) (int, error) { return 0, errNoRoom }
