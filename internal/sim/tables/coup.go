package tables

import (
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/journal"
	"github.com/braiddb/braid/internal/sim"
)

// Faults that are aimed: at who leads, for as long as a lease is, in the moment that
// hurts most. Blind ones meet such moments too, once in many thousand seeds.
const (
	faultEclipse = "eclipse" // the leader of group X loses its peers for about a lease: both ways, unheard, or deaf
	faultUsurp   = "usurp"   // the leader of group X loses its peers, who all restart under its lease
	faultEcho    = "echo"    // the leader of group X is not heard, and hears late what was said before
	faultShuttle = "shuttle" // the leader of group X hands over, and gets it back at once
	faultForget  = "forget"  // a follower of group X loses what only the leader has beside it, which then goes
	faultSqueeze = "squeeze" // node's disk is full and not full by turns; then the power goes
)

// coups draws them. Their lengths are parts of a lease.
func coups(tablets int64, lease time.Duration) sim.Kinds {
	of := func(lo, hi int) func(sim.Swarm, *sim.Fault, int) {
		return func(s sim.Swarm, f *sim.Fault, _ int) {
			f.X, f.Peer = s.Int64N(tablets), s.IntN(3)
			f.For = s.Dur(lease*time.Duration(lo)/100, lease*time.Duration(hi)/100)
		}
	}
	return sim.Kinds{
		{Name: faultEclipse, Most: 6, Draw: of(30, 300)},
		{Name: faultUsurp, Most: 3, Draw: of(5, 100)},
		{Name: faultEcho, Most: 3, Draw: of(20, 200)},
		{Name: faultShuttle, Most: 4, Draw: of(1, 10)},
		{Name: faultForget, Most: 1, Draw: func(s sim.Swarm, f *sim.Fault, _ int) {
			f.X, f.At, f.For = s.Int64N(tablets), s.Dur(3*time.Second, 35*time.Second), s.Dur(10*time.Millisecond, 500*time.Millisecond)
		}},
		{Name: faultSqueeze, Most: 2, Draw: func(s sim.Swarm, f *sim.Fault, _ int) {
			f.X, f.For = int64(s.Int(1, 8)), s.Order(5*time.Millisecond, 300*time.Millisecond)
		}},
	}
}

// coup carries one out.
func (c *cluster) coup(v *view, m *member, f *sim.Fault) bool {
	if f.Kind == faultSqueeze {
		return c.squeeze(m, int(f.X), time.Duration(f.For))
	}
	l := v.leader()
	if l == nil {
		return false
	}
	d, node := time.Duration(f.For), l.m.n.ID
	switch f.Kind {
	case faultEclipse:
		return c.eclipse(node, f.Peer, d)
	case faultUsurp:
		return c.w.CarryOut(&sim.Fault{Kind: sim.FaultCoup, Node: node, X: d.Microseconds() / 2, For: sim.Duration(d + c.ms("leaseMs"))})
	case faultEcho:
		for o := range c.members {
			if o+1 != node {
				c.w.CarryOut(&sim.Fault{Kind: sim.FaultClog, Node: o + 1, Peer: node, For: sim.Duration(d)})
			}
		}
		c.w.After(c.ms("beatMs")+20*time.Millisecond, "unheard", func() {
			if !c.w.Calm() {
				c.eclipse(node, 1, d+c.ms("leaseMs"))
			}
		})
		return true
	case faultShuttle:
		return c.shuttle(v, l, d, 1+f.Peer)
	case faultForget:
		return c.forget(v, l, d)
	case faultRelay:
		return c.relay(v, l, f.Peer, d)
	}
	return false
}

// eclipse cuts a node off from its peers, and not from clients.
func (c *cluster) eclipse(node, way int, d time.Duration) bool {
	switch way {
	case 0:
		return c.w.CarryOut(&sim.Fault{Kind: sim.FaultCut, Node: node, For: sim.Duration(d)})
	case 1:
		return c.w.CarryOut(&sim.Fault{Kind: sim.FaultCutOneWay, Node: node, For: sim.Duration(d)})
	}
	for o := range c.members {
		if o+1 != node {
			c.w.CarryOut(&sim.Fault{Kind: sim.FaultCutOneWay, Node: o + 1, Peer: node, For: sim.Duration(d)})
		}
	}
	return true
}

// shuttle hands a leadership over and, wherever it went, back.
func (c *cluster) shuttle(v *view, l *hosted, patience time.Duration, times int) bool {
	l.group.TransferLeader(0)
	until := c.w.Now() + patience + 200*time.Millisecond
	var look func()
	look = func() {
		if c.w.Calm() || c.w.Now() > until {
			return
		}
		if now := v.leader(); now != nil && now.m != l.m {
			now.group.TransferLeader(l.replica)
			if times--; times > 0 {
				c.shuttle(v, now, patience, times)
			}
			return
		}
		c.w.After(500*time.Microsecond, "shuttle", look)
	}
	look()
	return true
}

// squeeze lets a disk have room only now and then: what is refused and what is not
// alternate. Then the power goes.
func (c *cluster) squeeze(m *member, times int, d time.Duration) bool {
	if !m.n.Up() {
		return false
	}
	c.w.CarryOut(&sim.Fault{Kind: sim.FaultDiskFull, Node: m.n.ID, For: sim.Duration(d)})
	c.w.After(d+c.w.Between(0, 10*time.Millisecond), "squeeze", func() {
		switch {
		case c.w.Calm():
		case times > 1:
			c.squeeze(m, times-1, d)
		default:
			m.n.Crash("power off, the disk had just room", c.w.Between(10*time.Millisecond, time.Second))
		}
	})
	return true
}

// forget makes a follower lose synced records that nobody holds but the leader,
// lets it learn so from the leader, and takes the leader away: what is left is a
// majority that must not go on without it. The third replica hears nothing from the
// leader until then. Nothing that was promised is exceeded (S5): the leader's disk is sound.
func (c *cluster) forget(v *view, l *hosted, d time.Duration) bool {
	conf := l.group.Status().Conf
	if c.first != nil || v.move != nil || len(conf) != 3 {
		return false
	}
	var others []*hosted
	for _, r := range conf {
		h := c.members[r.Node-1].find(v.id)
		if h == nil || r.Role != catalog.Role_ROLE_VOTER || uint64(h.replica) != r.Id {
			return false
		}
		if h != l {
			others = append(others, h)
		}
	}
	victim, behind := others[0].m, others[1].m
	if !c.MayLose(victim.n) {
		return false
	}
	isolate := func(change func(from, to int), from ...*member) {
		for _, o := range from {
			if o != behind {
				change(o.n.ID, behind.n.ID)
				change(behind.n.ID, o.n.ID)
			}
		}
	}
	isolate(c.w.Net.Cut, c.members...)
	confAt := v.confAt
	c.w.After(c.w.Between(200*time.Millisecond, time.Second), "forget", func() {
		s := victim.platter.streams[journal.StreamID(v.id)]
		if c.w.Calm() || !victim.n.Up() || s == nil || v.confAt != confAt || v.move != nil {
			isolate(c.w.Net.Mend, c.members...)
			return
		}
		victim.n.Crash("power off, the journal's tail is torn", d)
		victim.suspect = true
		for k := c.w.Dice().IntN(4); k >= 0 && len(s.Records) > 0 && s.Records[len(s.Records)-1].Pos > confAt; k-- {
			s.Records, victim.robbed = s.Records[:len(s.Records)-1], true
		}
		isolate(c.w.Net.Mend, victim)
		c.awaitAccount(v, victim, func(accounted bool) {
			isolate(c.w.Net.Mend, c.members...)
			if accounted && l.m.n.Alive() {
				c.w.Sometimes("replica: lost what only a leader that went held beside it")
				l.m.n.Crash("the one that knows goes", min(3*c.ms("leaseMs")+2*time.Second, 8*time.Second))
			}
		})
	})
	return true
}

// awaitAccount waits until a replica in doubt has accounted for what it lost: its
// term moves, and not before. One that restarts meanwhile begins anew.
func (c *cluster) awaitAccount(v *view, m *member, then func(accounted bool)) {
	boot, term := m.n.Life(), uint64(0)
	var look func()
	look = func() {
		h := m.find(v.id)
		switch {
		case c.w.Calm():
			return // the world heals every link
		case m.n.Life() > boot+1:
			then(false)
			return
		case h != nil && term == 0:
			term = h.group.Status().Term // 0 until the replica has said anything of itself
		case h != nil && h.group.Status().Term > term:
			then(true)
			return
		}
		c.w.After(time.Millisecond, "account", look)
	}
	look()
}
