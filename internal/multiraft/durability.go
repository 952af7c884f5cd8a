package multiraft

import (
	"fmt"
	"math"
	"time"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/braiddb/braid/internal/journal"
)

// flight is an append on its way to the disk, with what may be said once it is
// there. Appends become durable in the order they were handed out.
type flight struct {
	turn  uint64
	at    time.Duration
	parts []part
}

// part is one group's share of a flight.
type part struct {
	g          *group
	responses  []*pb.Message
	state      bool   // a state record was written: term and vote become durable
	term, vote uint64 //
	last       uint64 // the log's last index once this is durable; 0: as it was
	release    bool   // the journal may forget all of the stream's entries
	destroy    bool   // the journal has forgotten the stream: its replica is gone, but for the state machine
}

// store takes what raft wants on disk. Entries enter the log in memory at
// once: raft reads from there only what it knows to be stable.
func (c *core) store(g *group, m *pb.Message) {
	if g.restoring != nil {
		g.held = append(g.held, m) // what follows a snapshot waits for it
		pointHeld.Reach()
		return
	}
	if s := m.GetSnapshot(); !raft.IsEmptySnap(s) {
		c.restore(g, m)
		return
	}
	p := part{g: g, responses: m.GetResponses()}
	turn := uint64(0)
	if ents := m.GetEntries(); len(ents) > 0 {
		turn = c.storeEntries(g, ents)
		p.last = g.log.last()
	}
	if g.term != g.st.term || g.vote != g.st.vote || g.confCommitted() {
		turn = c.writeState(g)
		p.state, p.term, p.vote = true, g.term, g.vote
	}
	c.await(g, p, turn)
}

// confCommitted says that a configuration is newly known to be committed. That
// is worth a record: a voter that forgot it was made one could neither campaign
// nor let a shorter log win.
func (g *group) confCommitted() bool {
	return len(g.pendConf) > 0 && g.st.commit < g.pendConf[0].index && g.pendConf[0].index <= g.commit
}

// await lets a part's responses wait for the append that they depend on: the
// one just made, or the group's last one on its way, or none.
func (c *core) await(g *group, p part, turn uint64) {
	if turn != 0 {
		g.lastTurn = turn
	}
	if g.lastTurn <= c.done {
		c.deliver(&p)
		return
	}
	for i := len(c.flights) - 1; i >= 0; i-- {
		if f := c.flights[i]; f.turn == g.lastTurn {
			f.parts = append(f.parts, p)
			return
		}
	}
	panic(fmt.Sprintf("multiraft: append %d is neither done nor under way", g.lastTurn))
}

// storeEntries writes entries to the log and returns the append's name.
func (c *core) storeEntries(g *group, ents []*pb.Entry) uint64 {
	stream := journal.StreamID(g.id)
	before := g.log.bytes
	first := ents[0].GetIndex()
	if g.log.append(ents) {
		c.write(journal.Record{Stream: stream, Kind: journal.KindTruncate, Pos: first})
		c.overwritten(g, first)
		pointTruncated.Reach()
	}
	c.bytes += g.log.bytes - before
	turn := uint64(0)
	buf := c.arena(ents)
	for _, e := range ents {
		start := len(buf)
		buf = appendRecord(buf, e, g.commit)
		turn = c.write(journal.Record{Stream: stream, Kind: journal.KindEntry, Pos: e.GetIndex(),
			Payload: buf[start:len(buf):len(buf)]})
		c.entryStored(g, e)
	}
	c.bound(g)
	return turn
}

// arena makes room for the records of entries, borrowed by the journal.
func (c *core) arena(ents []*pb.Entry) []byte {
	n := 0
	for _, e := range ents {
		n += recordFixed + len(e.GetData())
	}
	return make([]byte, 0, n)
}

// writeState writes term, vote and the log's beginning.
func (c *core) writeState(g *group) uint64 {
	g.st.term, g.st.vote = g.term, g.vote
	if term, err := g.log.Term(g.commit); err == nil {
		g.st.commit, g.st.commitTerm = g.commit, term
	}
	return c.recordState(g)
}

func (c *core) recordState(g *group) uint64 {
	return c.write(journal.Record{Stream: journal.StreamID(g.id), Kind: journal.KindState, Payload: encodeState(nil, &g.st)})
}

// durable says that an append, and all before it, is on disk.
func (c *core) durable(turn uint64) {
	for len(c.flights) > 0 && c.flights[0].turn <= turn {
		f := c.flights[0]
		c.flights = c.flights[1:]
		c.done = f.turn
		for i := range f.parts {
			c.deliver(&f.parts[i])
		}
	}
}

// deliver sends what waited for a part to be durable.
func (c *core) deliver(p *part) {
	g := p.g
	if p.release && c.groups[g.id] == g {
		c.fx.lowWaters = append(c.fx.lowWaters, lowWater{stream: journal.StreamID(g.id), pos: math.MaxUint64})
	}
	if p.destroy {
		c.fx.destroyed = append(c.fx.destroyed, g)
	}
	if g.rn == nil {
		return
	}
	if p.last != 0 {
		g.durable.index = p.last
	}
	if p.state {
		g.durable.term, g.durable.vote = p.term, p.vote
	}
	for _, m := range p.responses {
		if m.GetTo() == uint64(g.replica) {
			c.stepRaft(g, m)
			continue
		}
		if g.overtaken(m) {
			continue
		}
		g.assertDurable(m)
		c.say(g, m)
	}
}

// overtaken says of an acknowledgement that its entries were never written: before
// raft's next Ready a leader of a later term overwrote them. To whom it is addressed
// leads no more, and what it says was never true of the disk (M1).
func (g *group) overtaken(m *pb.Message) bool {
	return m.GetType() == pb.MsgAppResp && !m.GetReject() && m.GetIndex() > g.durable.index && m.GetTerm() < g.durable.term
}

// assertDurable stops the process rather than let it acknowledge what its own
// journal has not synced (M1).
func (g *group) assertDurable(m *pb.Message) {
	switch m.GetType() {
	case pb.MsgAppResp:
		if !m.GetReject() && m.GetIndex() > g.durable.index {
			panic(fmt.Sprintf("multiraft: group %d acknowledges %d with %d durable", g.id, m.GetIndex(), g.durable.index))
		}
	case pb.MsgVoteResp:
		if !m.GetReject() && (m.GetTerm() > g.durable.term || m.GetTerm() == g.durable.term && m.GetTo() != g.durable.vote) {
			panic(fmt.Sprintf("multiraft: group %d votes for %d in term %d with %d in %d durable",
				g.id, m.GetTo(), m.GetTerm(), g.durable.vote, g.durable.term))
		}
	}
}

// bound keeps logs within their bounds: entries that are applied and that no
// follower lacks go, beyond the bounds those that are applied at all.
func (c *core) bound(g *group) {
	// Loops do not know of each other's logs: each has its share of the total.
	total := c.cfg.LogBytesTotal / int64(max(1, c.cfg.Loops))
	full := g.log.bytes > c.cfg.LogBytesMax || c.bytes > total && g.log.bytes > total/256
	if full || g.log.bytes > 1<<20 {
		c.cutLog(g, full)
	}
}

// cutLog forgets what followers have; with force, all that is applied.
func (c *core) cutLog(g *group, force bool) {
	to := min(g.applied, c.pinned(g))
	if !force {
		to = min(to, g.needed())
	}
	if force && to > g.log.base {
		pointCutShort.Reach()
		// Keep the newer half: forcing entry by entry would copy the rest each time.
		c.metrics.LogsCutShort.Add(1)
	}
	if to <= g.log.base {
		return
	}
	before := g.log.bytes
	g.log.cut(to)
	c.bytes += g.log.bytes - before
}

// flushed lets the journal forget what the state machine has durably, also that
// of a replica which was retired: its stream stays until Host.Remove.
func (c *core) flushed(g *group, index uint64) {
	if c.groups[g.id] != g || g.h.damaged != nil || index <= g.lowWater {
		return
	}
	if g.rn != nil {
		index = min(index, g.applied)
	}
	g.lowWater = index
	c.fx.lowWaters = append(c.fx.lowWaters, lowWater{stream: journal.StreamID(g.id), pos: g.lowWater})
}
