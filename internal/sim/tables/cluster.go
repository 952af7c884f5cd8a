package tables

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/sim"
)

// cluster is sim.Cluster.
type cluster struct {
	w       *sim.World
	table   *catalog.Table
	rows    *catalog.Table   // of tablets that hold rows
	members []*member        // by node
	views   []*view          // by group
	system  *view            // of the master's group, in a managed cluster
	first   *catalog.Catalog // of a managed cluster; nil in one that is not
	clients []*client
	threads []*thread
	hist    history
	ops     int
	events  uint64

	replicas catalog.ReplicaID // the last one named
	healed   time.Duration
	stage    int // of converging
	finals   int // final reads still under way
	repeats  int // second reads still to come
}

const firstGroup = 100

func newCluster(w *sim.World) *cluster {
	c := &cluster{w: w, replicas: 1000}
	c.table, c.rows = c.redisTable(), c.rowTable()
	for _, n := range w.Nodes {
		c.members = append(c.members, newMember(c, n))
	}
	if w.Opt.Knob("managed") != 0 {
		c.manage()
		c.hist.init(c)
		return c
	}
	tablets := uint64(max(1, w.Opt.Knob("tablets")))
	width := ^uint64(0)/tablets + 1 // 0 for one tablet: its end is open
	for i := range tablets {
		t := &catalog.Tablet{Id: firstGroup + i, Table: uint32(catalog.RedisTableID), HashStart: i * width, HashEnd: (i + 1) * width}
		if i == tablets-1 {
			t.HashEnd = 0
		}
		v := &view{c: c, id: catalog.GroupID(t.Id), tablet: t}
		if int64(i) < c.w.Opt.Knob("rowTablets") {
			t.Table, v.ofRows = c.rows.Id, true
		}
		c.views = append(c.views, v)
		c.found(v)
	}
	c.hist.init(c)
	return c
}

// found names the nodes that a group begins on.
func (c *cluster) found(v *view) {
	size := min(int(c.w.Opt.Knob("replicas")), len(c.members))
	perm := c.w.Dice().Perm(len(c.members))[:size]
	slices.Sort(perm)
	var conf []*catalog.Replica
	for _, i := range perm {
		c.replicas++
		conf = append(conf, &catalog.Replica{Id: uint64(c.replicas), Node: uint64(i + 1), Role: catalog.Role_ROLE_VOTER})
	}
	v.founders = conf
	for k, i := range perm {
		c.members[i].register(&entry{group: v.id, replica: catalog.ReplicaID(conf[k].Id), founders: conf})
	}
}

// view finds a group's.
func (c *cluster) view(id catalog.GroupID) *view {
	if c.system != nil && id == c.system.id {
		return c.system
	}
	return c.views[id-c.views[0].id]
}

// all are the views of tablets and of the master's group.
func (c *cluster) all() []*view {
	if c.system == nil {
		return c.views
	}
	return append([]*view{c.system}, c.views...)
}

// Boot begins a life.
func (c *cluster) Boot(n *sim.Node) { c.members[n.ID-1].boot() }

// Down ends one.
func (c *cluster) Down(n *sim.Node) { c.members[n.ID-1].down() }

// Start begins the load.
func (c *cluster) Start() {
	for i := range c.w.Opt.Knob("clients") {
		cl := newClient(c, int(i))
		c.clients = append(c.clients, cl)
		for range max(1, c.w.Opt.Knob("threads")) {
			t := &thread{cl: cl, id: len(c.threads)}
			c.threads = append(c.threads, t)
			c.w.After(c.w.Between(0, 2*time.Second), "client", t.work)
		}
	}
	if c.first == nil {
		c.w.After(250*time.Millisecond, "moves", c.goOnMoving)
	}
	if every := c.ms("flushMs"); every > 0 {
		c.flushing(every)
	}
}

func (c *cluster) flushing(every time.Duration) {
	c.w.After(c.w.Between(every/2, every*3/2), "flush", func() {
		c.flushing(every)
		if m := c.members[c.w.Dice().IntN(len(c.members))]; m.n.Up() && m.fatal == nil {
			m.flush()
		}
	})
}

// Fault is one of this wing's own.
func (c *cluster) Fault(f *sim.Fault) bool {
	v := c.views[uint64(f.X)%uint64(len(c.views))]
	m := c.members[(max(f.Node, 1)-1)%len(c.members)]
	switch f.Kind {
	case faultTransfer:
		l := v.leader()
		if l == nil {
			return false
		}
		to := catalog.ReplicaID(0)
		if e := m.listed(v.id); e != nil && m != l.m {
			to = e.replica
		}
		l.group.TransferLeader(to)
		c.w.Sometimes("leader: handed over")
		return true
	case faultOutage:
		if c.first == nil || !m.n.Alive() {
			return false
		}
		m.n.Crash("off for long", time.Duration(f.For))
		return true
	case faultMove:
		return c.beginMove(v, m)
	case faultFlush:
		if !m.n.Up() || m.fatal != nil {
			return false
		}
		m.flush()
		return true
	case faultDamage:
		return c.damage(v, m, time.Duration(f.For))
	case faultTorn:
		return c.tear(m, int(f.X), time.Duration(f.For))
	case faultLeak:
		return c.leak(m, time.Duration(f.For))
	}
	if slices.Contains(beyondKinds, f.Kind) {
		return c.exceed(v, f)
	}
	return c.coup(v, m, f)
}

// Heal is told that the faults are over. A node whose clock was far off may have
// handed times to nobody, and refuses its peers until it starts anew.
func (c *cluster) Heal() {
	c.healed = c.w.Now()
	for _, m := range c.members {
		if m.n.Alive() && m.clock.Now() > hlcAhead(m.n.Wall()) {
			m.n.Crash("its clock was far ahead", 0)
		}
	}
}

// hlcAhead is the most that a clock may be ahead of the wall clock.
func hlcAhead(wall int64) hlc.Timestamp { return hlc.FromMicros(wall).Add(time.Second) }

// Watch looks at the node where something happened: only there can a gate have
// opened. Now and then it looks at all.
func (c *cluster) Watch() {
	c.events++
	if n := c.w.Where(); n > 0 && c.members[n-1].n.Up() {
		for _, h := range c.members[n-1].hosted {
			h.watch(c.events%8 == 0)
			if c.events%3 == 0 {
				h.watchLease()
			}
		}
	}
	if c.events%128 == 0 {
		for _, v := range c.all() {
			v.checkHolders()
		}
	}
}

// opsMin is what a run is to have of answered operations.
const opsMin = 500

// The stages of converging: leaders and load, then the load ends, then everybody
// has everything, then what is there is read.
const (
	stageLoad = iota
	stageStop
	stageEqual
	stageRead
	stageDone
)

// Converged says what is missing.
func (c *cluster) Converged() error {
	for c.stage != stageDone {
		err := c.stageOver()
		if err != nil {
			return err
		}
		c.stage++
		if c.stage == stageRead {
			c.readAll()
		}
	}
	return nil
}

func (c *cluster) stageOver() error {
	switch c.stage {
	case stageLoad:
		if c.ops < opsMin && c.w.Opt.Knob("beyond") == 0 {
			return fmt.Errorf("%d operations were answered, %d are due", c.ops, opsMin)
		}
		for _, v := range c.views {
			if v.helpless() {
				continue
			}
			if err := v.staffed(); err != nil {
				return err
			}
			if v.move != nil {
				return fmt.Errorf("group %d: the move %v is not over: %s", v.id, v.move, v.describe())
			}
			if !v.healed {
				return fmt.Errorf("group %d: no write was answered since the world healed: %s", v.id, v.describe())
			}
		}
	case stageStop:
		for _, t := range c.threads {
			if t.busy {
				return errors.New("clients still wait for answers")
			}
		}
		if c.repeats > 0 {
			return errors.New("repeated reads are still to come")
		}
	case stageEqual:
		return c.equal()
	case stageRead:
		if c.finals > 0 {
			return errors.New("final reads still wait for answers")
		}
		return c.equal() // a new leader may have written meanwhile
	}
	return nil
}

// equal says that every group's replicas have applied the same.
func (c *cluster) equal() error {
	for _, v := range c.all() {
		if v.helpless() {
			continue
		}
		if err := v.equal(); err != nil {
			return err
		}
	}
	return nil
}

// staffed says that a managed group has as many sound voters as it is to have.
func (v *view) staffed() error {
	l := v.leader()
	if v.c.first == nil || l == nil {
		return nil
	}
	voters := 0
	for _, r := range l.group.Status().Conf {
		if h := v.c.members[r.Node-1].find(v.id); h != nil && uint64(h.replica) == r.Id && r.Role == catalog.Role_ROLE_VOTER && !h.group.Status().Corrupt {
			voters++
		}
	}
	if want := min(int(v.c.w.Opt.Knob("replicas")), len(v.c.members)); voters != want {
		return fmt.Errorf("group %d has %d sound voters of %d: %s", v.id, voters, want, v.describe())
	}
	return nil
}

// equal says that a leader serves and that every replica has applied all it has.
func (v *view) equal() error {
	l := v.leader()
	if l == nil {
		return fmt.Errorf("group %d has no leader: %s", v.id, v.describe())
	}
	for _, r := range l.group.Status().Conf {
		m := v.c.members[r.Node-1]
		h := m.find(v.id)
		switch {
		case v.c.w.Opt.Knob("beyond") != 0 && (m.listed(v.id) == nil || m.rotten):
			// What it had is gone, and is not put anywhere else here.
		case h == nil || uint64(h.replica) != r.Id:
			return fmt.Errorf("group %d: node %d does not run replica %d", v.id, r.Node, r.Id)
		case h.applied != l.applied:
			return fmt.Errorf("group %d: node %d has applied %d, the leader on node %d %d: %s", v.id, r.Node, h.applied, l.m.n.ID, l.applied, v.describe())
		}
	}
	return nil
}

func (v *view) describe() string {
	out := ""
	for _, m := range v.c.members {
		h := m.find(v.id)
		if h == nil {
			if e := m.listed(v.id); e != nil {
				out += fmt.Sprintf("\n  node %d: replica %d does not run (up %v, leaving %v)", m.n.ID, e.replica, m.n.Up(), e.leaving)
			}
			continue
		}
		s := h.group.Status()
		out += fmt.Sprintf("\n  node %d replica %d: %s term %d leader %d commit %d applied %d lease %s quiet %v suspect %v corrupt %v leading: %v progress %+v",
			m.n.ID, h.replica, s.Role, s.Term, s.Leader, s.Commit, h.applied, s.LeaseRemaining, s.Quiesced, s.Suspect, s.Corrupt, h.group.Leading(), s.Progress)
	}
	return out
}

// Check compares the replicas and judges what clients saw.
func (c *cluster) Check() error {
	for _, v := range c.views {
		if v.helpless() && v.leader() == nil {
			continue
		}
		if err := v.sameEverywhere(); err != nil {
			return err
		}
	}
	c.count()
	c.sumUp()
	return c.hist.check()
}

// sameEverywhere compares what can be read on the replicas of a group.
func (v *view) sameEverywhere() error {
	l := v.leader()
	if l == nil {
		return fmt.Errorf("group %d has no leader", v.id)
	}
	at := l.m.clock.Now()
	want, err := l.Hash(at)
	if err != nil && l.m.rotten {
		v.c.w.Sometimes("beyond: an error of the engine is told")
		return nil
	}
	if err != nil {
		return fmt.Errorf("group %d: hash: %w", v.id, err)
	}
	for _, r := range l.group.Status().Conf {
		h := v.c.members[r.Node-1].find(v.id)
		if v.c.w.Opt.Knob("beyond") != 0 && (h == nil || h.applied != l.applied) {
			continue // gone, or not led any more
		}
		if got, err := h.Hash(at); err != nil && h.m.rotten {
			v.c.w.Sometimes("beyond: an error of the engine is told")
		} else if err != nil || got != want {
			return fmt.Errorf("group %d: node %d holds %x, node %d %x (%v)", v.id, l.m.n.ID, want, r.Node, got, err)
		}
	}
	return nil
}

// count adds up what was reached.
func (c *cluster) count() {
	for _, m := range c.members {
		if m.host == nil {
			continue
		}
		if m.host.Metrics().SkewRefused.Load() > 0 {
			c.w.Sometimes("clock: refused")
		}
		for _, h := range m.hosted {
			if h.Tablet == nil {
				continue
			}
			x := h.Metrics()
			for _, p := range []struct {
				what string
				n    int64
			}{
				{"client: answered from memory", x.Remembered.Load() + x.Attached.Load()},
				{"tablet: write parked", x.Parked.Load()}, {"tablet: write void", x.Void.Load()}, {"tablet: duplicate entry", x.Duplicates.Load()},
			} {
				if p.n > 0 {
					c.w.Sometimes(p.what)
				}
			}
		}
	}
}

// Ops is what was answered.
func (c *cluster) Ops() int { return c.ops }

// Close lets the engines go.
func (c *cluster) Close() {
	for _, m := range c.members {
		for _, x := range m.exports {
			_ = x.r.Close() // nobody reads it any more
		}
		m.closeEngine()
	}
}
