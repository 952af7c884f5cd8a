package tables

import (
	"fmt"
	"slices"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/journal"
	"github.com/braiddb/braid/internal/multiraft"
	"github.com/braiddb/braid/internal/sim"
)

// move gives a group a replica on another node, and takes one away: what the
// master's balancer asks of leaders, one step at a time, again and again until a
// leader's configuration shows it done.
type move struct {
	v       *view
	to      *member
	replica catalog.ReplicaID // the new one
	victim  catalog.ReplicaID // 0: chosen when the new one is a voter
	repair  bool              // the victim goes first: it is damaged, and its node gets the new one
	asked   time.Duration     // when the step under way was asked for
}

func (mv *move) String() string {
	return fmt.Sprintf("of group %d: replica %d comes to node %d, %d goes", mv.v.id, mv.replica, mv.to.n.ID, mv.victim)
}

// beginMove starts one, where the group has no replica on m yet.
func (c *cluster) beginMove(v *view, m *member) bool {
	if c.first != nil || v.move != nil || !m.n.Up() || m.fatal != nil || m.listed(v.id) != nil {
		return false
	}
	c.replicas++
	v.move = &move{v: v, to: m, replica: c.replicas}
	c.w.Tracef("move %v", v.move)
	return true
}

func (c *cluster) goOnMoving() {
	c.w.After(c.w.Between(150*time.Millisecond, 400*time.Millisecond), "moves", c.goOnMoving)
	for _, v := range c.views {
		if v.move != nil {
			v.move.goOn()
		}
		v.dropStrays()
	}
}

// goOn looks at what the leader says and asks for the next step.
func (mv *move) goOn() {
	l := mv.v.leader()
	if l == nil {
		return
	}
	s := l.group.Status()
	i := slices.IndexFunc(s.Conf, func(r *catalog.Replica) bool { return r.Id == uint64(mv.replica) })
	switch {
	case i < 0 && mv.repair && mv.stands(s.Conf):
		mv.ask(l, multiraft.Change{Kind: multiraft.Remove, Replica: mv.victim})
	case i < 0 && mv.repair && mv.to.listed(mv.v.id) != nil && mv.to.listed(mv.v.id).replica == mv.victim:
		// Destroyed by dropStrays; until then there is no room.
	case i < 0:
		mv.add(l)
	case s.Conf[i].Role == catalog.Role_ROLE_LEARNER:
		if p := slices.IndexFunc(s.Progress, func(p multiraft.Progress) bool { return p.Replica == mv.replica }); p >= 0 && s.Progress[p].CaughtUp {
			mv.ask(l, multiraft.Change{Kind: multiraft.Promote, Replica: mv.replica})
		}
	default:
		mv.remove(l, s.Conf)
	}
}

func (mv *move) add(l *hosted) {
	if !mv.to.n.Up() || mv.to.fatal != nil {
		return
	}
	if mv.to.listed(mv.v.id) == nil {
		mv.to.create(&entry{group: mv.v.id, replica: mv.replica})
	}
	mv.ask(l, multiraft.Change{Kind: multiraft.AddLearner, Replica: mv.replica, Node: catalog.NodeID(mv.to.n.ID)})
}

// remove takes one of the old replicas away, drawn once.
func (mv *move) remove(l *hosted, conf []*catalog.Replica) {
	if mv.victim == 0 {
		others := slices.DeleteFunc(slices.Clone(conf), func(r *catalog.Replica) bool { return r.Id == uint64(mv.replica) })
		mv.victim = catalog.ReplicaID(others[mv.v.c.w.Dice().IntN(len(others))].Id)
	}
	if mv.stands(conf) {
		mv.ask(l, multiraft.Change{Kind: multiraft.Remove, Replica: mv.victim})
		return
	}
	if mv.repair {
		mv.v.c.w.Sometimes("replica: repaired")
	}
	mv.v.c.w.Tracef("moved %v", mv)
	mv.v.c.w.Sometimes("membership: changed")
	mv.v.move = nil
}

// stands says that the victim is still in the configuration.
func (mv *move) stands(conf []*catalog.Replica) bool {
	return slices.ContainsFunc(conf, func(r *catalog.Replica) bool { return r.Id == uint64(mv.victim) })
}

// ask asks the leader for a step, unless it was asked a moment ago.
func (mv *move) ask(l *hosted, ch multiraft.Change) {
	w := mv.v.c.w
	if mv.asked != 0 && w.Now()-mv.asked < 2*time.Second {
		return
	}
	mv.asked = w.Now()
	l.change(ch, 4*time.Second, func(err error) {
		w.Tracef("node %d: group %d: change %+v: %v", l.m.n.ID, mv.v.id, ch, err)
		mv.asked = 0
	})
}

// dropStrays destroys replicas that the group's configuration has no more, as a
// node's reconciliation with the catalog does.
func (v *view) dropStrays() {
	l := v.leader()
	if l == nil {
		return
	}
	conf := l.group.Status().Conf
	for _, m := range v.c.members {
		e := m.listed(v.id)
		if e == nil || e.leaving || !m.n.Up() || m.fatal != nil || v.move != nil && e.replica == v.move.replica {
			continue
		}
		if !slices.ContainsFunc(conf, func(r *catalog.Replica) bool { return r.Id == uint64(e.replica) }) {
			m.destroy(e)
		}
	}
}

// damage crashes a node and makes its journal say that acknowledged records of a
// group are gone. The replica must keep silent, and is replaced on its node.
func (c *cluster) damage(v *view, m *member, d time.Duration) bool {
	h, s := m.find(v.id), m.platter.streams[journal.StreamID(v.id)]
	if h == nil || s == nil || v.move != nil || !m.n.Up() || !c.MayLose(m.n) || len(h.group.Status().Conf) < 3 {
		return false
	}
	if c.first == nil {
		c.replicas++
		v.move = &move{v: v, to: m, replica: c.replicas, victim: h.replica, repair: true}
		c.w.Tracef("repair %v", v.move)
	}
	m.n.Crash("power off, the journal is damaged", d)
	c.w.Sometimes("replica: damaged")
	s.Corrupt = true
	s.Records = s.Records[:c.w.Dice().IntN(len(s.Records)+1)]
	return true
}

// tear crashes a node and takes synced records off its journal's end, where the
// journal can only say that its tail is in doubt. It does so where everybody
// else is up, sound and reachable (S5).
func (c *cluster) tear(m *member, most int, d time.Duration) bool {
	if c.first != nil || !m.n.Up() || !c.MayLose(m.n) {
		return false // where the balancer moves replicas, no one can say who knows of the last change
	}
	lone := func(id catalog.GroupID) bool {
		h := m.find(id)
		return h == nil || h.view.move != nil || len(h.group.Status().Conf) < 3
	}
	var ids []catalog.GroupID
	for _, e := range m.registry {
		if !lone(e.group) {
			ids = append(ids, e.group)
		}
	}
	m.n.Crash("power off, the journal's tail is torn", d)
	m.suspect = true
	c.w.Sometimes("tail: in doubt")
	for _, id := range ids {
		s := m.platter.streams[journal.StreamID(id)]
		for k := c.w.Dice().IntN(most + 1); s != nil && k > 0 && len(s.Records) > 0; k-- {
			last := s.Records[len(s.Records)-1]
			if last.Pos <= c.view(id).confAt {
				break // what made a replica leave may be known to nobody but the one that left
			}
			s.Records, m.robbed = s.Records[:len(s.Records)-1], true
		}
	}
	return true
}

// MayLose says whether all others are up, sure of themselves and reachable:
// then node n may lose what it had synced.
func (c *cluster) MayLose(n *sim.Node) bool {
	if slices.ContainsFunc(c.views, func(v *view) bool { return v.move != nil && v.move.repair || v.staffed() != nil || v.leader() == nil }) {
		return false
	}
	for _, m := range c.members {
		if m.n == n {
			if m.suspect {
				return false
			}
			continue
		}
		if !m.n.Up() || m.suspect || m.fatal != nil {
			return false
		}
		for _, o := range c.members {
			if o != m && !c.w.Net.Reaches(m.n.ID, o.n.ID) || o != m && !c.w.Net.Reaches(o.n.ID, m.n.ID) {
				return false
			}
		}
	}
	return true
}
