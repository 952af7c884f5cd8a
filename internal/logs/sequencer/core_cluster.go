package sequencer

import (
	"slices"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/placement"
	"github.com/braiddb/braid/internal/wire"
)

// sweep walks over all logs, a slice at a time, so that 10^5 of them do not hold
// up the appends of one.
type sweep struct {
	timer   timer
	at      int
	running bool
	again   bool // something changed while it ran
	config  bool // attributes may have changed
	reborn  map[catalog.NodeID]bool
}

// Slices of a sweep, and the pause between them.
const (
	sweepSlice = 500
	sweepPause = 5 * time.Millisecond
)

func (c *core) rememberNodes() {
	clear(c.known)
	for _, n := range c.cluster.Nodes {
		c.known[n.ID] = n
	}
}

// clusterChanged takes a newer view: waves to the dead start again elsewhere,
// whoever is back is probed and told what is released, and nodesets are compared
// if what they are chosen from changed.
func (c *core) clusterChanged() {
	c.cluster = c.view()
	var died []catalog.NodeID
	nodesets := len(c.cluster.Nodes) != len(c.known)
	for _, n := range c.cluster.Nodes {
		was, ok := c.known[n.ID]
		if !ok || was.Storage != n.Storage || was.Writable != n.Writable || was.StorageWeight != n.StorageWeight || was.Location != n.Location {
			nodesets = true
		}
		if was.Alive && (!n.Alive || n.Incarnation != was.Incarnation) {
			died = append(died, n.ID)
		}
		if ok && n.Alive && (!was.Alive || n.Incarnation != was.Incarnation) {
			c.returned(n.ID)
		}
	}
	c.rememberNodes()
	if nodesets {
		c.configAge++
	}
	for _, id := range died {
		c.died(id)
	}
	c.watchIsolation()
	if nodesets {
		c.startSweep()
	}
	c.wakeWaiting()
}

// died: no answer comes from a node's past life, so waves that wait for it are lost.
func (c *core) died(node catalog.NodeID) {
	for _, s := range c.order {
		for _, r := range [...]*reign{s.old, s.cur} {
			if r == nil {
				continue
			}
			if r.meta != nil && r.meta.state == flying {
				r.meta.lost(node)
			}
			for e, end := r.win.front, r.win.next; e < end; e++ {
				if a := r.win.at(e); a != nil && a.state == flying {
					a.lost(node)
				}
			}
		}
	}
}

// lost starts the next wave at once if this one still waits for the node.
func (a *appender) lost(node catalog.NodeID) {
	if a.concluded {
		return
	}
	for i, id := range a.out.rec.Copyset {
		if logs.ShardID(id).Node() == node && !a.stored.has(i) && !a.failed.has(i) {
			a.concluded = true
			if a.fenced {
				a.giveUp()
			} else {
				a.again()
			}
			return
		}
	}
}

// returned: a node lives again. What was held against it is of its past life;
// what it had been told it may have forgotten.
func (c *core) returned(node catalog.NodeID) {
	if h := c.shards[logs.MakeShard(node, 0)]; h != nil && h.ban != banNone && !h.probing {
		h.startProbe()
	}
	if c.sweep.reborn == nil {
		c.sweep.reborn = make(map[catalog.NodeID]bool)
	}
	c.sweep.reborn[node] = true
	c.startSweep()
}

// logsChanged: attributes are others, logs are new or gone.
func (c *core) logsChanged() {
	c.sweep.config = true
	c.startSweep()
}

func (c *core) startSweep() {
	if c.sweep.running {
		c.sweep.again = true
		return
	}
	c.sweep.running, c.sweep.at = true, 0
	c.wheel.set(&c.sweep.timer, c.now+wheelTick)
}

// goOn looks at the next slice of logs.
func (c *core) goOn() {
	w := &c.sweep
	end := min(w.at+sweepSlice, len(c.order))
	for _, s := range c.order[min(w.at, end):end] {
		if !s.gone {
			s.sweep()
		}
	}
	w.at = end
	if w.at < len(c.order) {
		c.wheel.set(&w.timer, c.now+sweepPause)
		return
	}
	w.running = false
	if w.again {
		w.again = false
		c.startSweep()
		return
	}
	w.reborn, w.config = nil, false
}

// sweep looks at one log after a change of the cluster or of the configuration.
func (s *sequencer) sweep() {
	c := s.c
	r := s.cur
	if r != nil && len(c.sweep.reborn) > 0 {
		behind := false
		for i, sh := range r.audience.shards {
			if c.sweep.reborn[sh.Node()] {
				r.tellings()[i] = told{}
				behind = true
			}
		}
		if behind && s.released != 0 {
			r.repeats = 0
			s.tellAgain()
		}
	}
	if c.sweep.config {
		attrs, ok := c.attributes(s.log)
		if !ok {
			s.unconfigured()
			return
		}
		s.attrs = attrs
		if s.compareReplication() {
			return
		}
	}
	if r == nil || !r.accepts() {
		return
	}
	if c.sweep.config {
		s.compareNodeset() // what the operator asked for is done at once
	} else if s.configAge != c.configAge {
		spread := c.cfg.NodesetDelayMax - c.cfg.NodesetDelayMin
		s.arm(timerNodeset, c.cfg.NodesetDelayMin+time.Duration(c.rng.Int64N(int64(spread)+1)))
	}
}

// compareReplication reactivates the log if it is to be replicated otherwise, and
// says whether it did. As with the nodeset, a reign whose own metadata is not in
// the metadata log yet looks again once it is (marked).
func (s *sequencer) compareReplication() bool {
	r := s.cur
	if r == nil || !r.accepts() || r.metadata != nil || sameReplication(s.attrs.GetReplication(), r.set.replication) {
		return false
	}
	s.activate(causeReplication, 0)
	return true
}

// compareNodeset reactivates the log if another nodeset would be chosen now.
func (s *sequencer) compareNodeset() {
	r, c := s.cur, s.c
	if r == nil || !r.accepts() || c.stopping || r.metadata != nil {
		return
	}
	s.configAge = c.configAge
	want, err := placement.SelectNodeset(c.cluster, s.attrs.GetReplication(), int(s.attrs.GetNodesetSize()), r.set.shards, uint64(s.log))
	if err != nil {
		return // what there is serves until more nodes are there
	}
	if !slices.Equal(want, r.set.shards) {
		s.activate(causeNodeset, 0)
	}
}

// unconfigured: the log is gone from the configuration.
func (s *sequencer) unconfigured() {
	s.letGo(wire.LogStatus_LOG_STATUS_NOT_FOUND, "no such log")
}

// letGo ends a sequencer. What is in flight is left to whoever reigns next.
func (s *sequencer) letGo(st wire.LogStatus, text string) {
	if s.act != nil {
		s.act.over()
	}
	s.refuseBuffered(st, 0, text)
	if g := s.gathered; g != nil {
		s.gathered = nil
		g.tell(s, &wire.AppendResponse{Status: st, Message: text, Log: uint64(s.log)})
	}
	for _, id := range sortedIDs(s.sessions) {
		ss := s.sessions[id]
		held := ss.held
		ss.held = nil
		for i := range held {
			s.c.share.bytes.Add(-held[i].size())
			s.refuse(&held[i], st, text)
		}
		s.dropLookup(ss)
	}
	s.abandonOld()
	if r := s.cur; r != nil {
		s.cancelRecovery(r)
		r.preempted = true
		if r.meta != nil && r.meta.state == flying {
			r.meta.giveUp()
		}
		r.abandon()
	}
	s.c.drop(s)
}

// watchIsolation: sequencers of a node that sees no majority end after a while.
func (c *core) watchIsolation() {
	switch {
	case !c.cluster.Isolated:
		c.wheel.clear(&c.isolated)
	case c.isolated.slot == 0:
		c.wheel.set(&c.isolated, c.now+c.cfg.IsolatedFor)
	}
}

func (c *core) letGo() {
	for _, s := range c.order {
		if s.gone {
			continue
		}
		s.letGo(wire.LogStatus_LOG_STATUS_ISOLATED, "the node cannot see a majority of the cluster")
	}
}

// drain: no new appends; what is in flight is finished.
func (c *core) drain() {
	c.stopping = true
	for _, s := range c.order {
		if s.cur == nil || !s.cur.accepts() {
			s.refuseBuffered(wire.LogStatus_LOG_STATUS_SHUTDOWN, 0, "the node is stopping")
		}
		s.flushGathered()
		for _, q := range s.states {
			c.answerState(q, &wire.SequencerStateResponse{Status: wire.LogStatus_LOG_STATUS_SHUTDOWN})
		}
		s.states = nil
	}
}

// undone counts what a drain waits for.
func (c *core) undone() int {
	n := c.inFlight
	for _, s := range c.order {
		n += len(s.buffer)
		if s.gathered != nil {
			n++
		}
	}
	return n
}

// close answers everything that waits: nothing more will come of it here.
func (c *core) close() {
	if c.closed {
		return
	}
	for _, s := range c.order {
		s.tellAgain()
	}
	c.closed = true
	for _, s := range c.order {
		if s.gone {
			continue
		}
		s.letGo(wire.LogStatus_LOG_STATUS_SHUTDOWN, "the node is stopping")
	}
	clear(c.calls)
}
