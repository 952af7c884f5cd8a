package tables

import (
	"bytes"
	"slices"
	"time"

	"github.com/braiddb/braid/internal/journal"
	"github.com/braiddb/braid/internal/multiraft"
	"github.com/braiddb/braid/internal/sim"
	"github.com/braiddb/braid/internal/wire"
)

// Trouble that is aimed at branches which a world of single steps does not take by
// itself. On a node a writer or a reader is a goroutine, and others run between any
// two of its instructions; a disk may refuse one append and take the next; a log
// may outgrow the snapshot that is leaving.

// faultLeak: node's journal refuses one append and has room for the next, whose writer
// hears of the refusal too late; then the power goes.
const faultLeak = "leak"

// leaking is how far a leak is.
type leaking int

const (
	leakNot leaking = iota
	leakArmed
	leakRefused // one append: what follows must not be taken
)

// aim draws the knobs and faults of this file, from a source of their own: what a
// seed meant before there were any of them it means still, where they are off.
func aim(o *sim.Options, seed uint64) {
	s := sim.NewSwarm(seed ^ 0xa1_3ed)
	k := o.Knobs
	k["lateProposalOneIn"] = int64(s.Rare(10, 200))
	k["copiedProposalOneIn"] = int64(s.Rare(20, 200))
	k["slowReadOneIn"] = int64(s.Rare(10, 100))
	k["floodOneIn"] = int64(s.Rare(1, 4))
	if s.Coin(40) {
		return
	}
	for range s.Int(1, 3) {
		at := s.Dur(time.Second, time.Duration(o.Safety)*9/10)
		o.Faults = append(o.Faults, sim.Fault{Kind: faultLeak, At: at, Node: s.Int(1, o.Nodes), For: s.Dur(10*time.Millisecond, 3*time.Second)})
	}
	slices.SortStableFunc(o.Faults, func(a, b sim.Fault) int { return int(a.At - b.At) })
}

// leak arms a node's journal, and has the leaders write: the next entries that reach
// it are refused, those after them are not.
func (c *cluster) leak(m *member, d time.Duration) bool {
	if !m.n.Up() || m.fatal != nil || m.leak != leakNot {
		return false
	}
	m.leak, m.leakDown = leakArmed, d
	life, left := m.n.Life(), 40
	var write func()
	write = func() {
		if left--; left == 0 || m.n.Life() != life || c.w.Calm() {
			m.leak = leakNot
			return
		}
		for _, h := range m.hosted {
			if l := h.view.leader(); l != nil && l.Tablet != nil {
				l.probe()
			}
		}
		c.w.After(c.w.Between(time.Millisecond, 5*time.Millisecond), "leak", write)
	}
	write()
	return true
}

// refuses says whether an append is refused: by an armed leak, or because it follows
// what was refused, which ends one.
func (m *member) refuses(recs []journal.Record, entries bool) bool {
	if entries && m.leak == leakArmed {
		m.leak = leakRefused
		m.refusals.Refused(recs)
		return true
	}
	if m.refusals.Admit(recs) == nil {
		return false
	}
	m.c.w.Sometimes("journal: refused what follows a refused append")
	if m.leak == leakRefused {
		m.endLeak()
	}
	return true
}

// endLeak cuts the power once the disk has all that was taken.
func (m *member) endLeak() {
	m.leak = leakNot
	life := m.n.Life()
	m.n.Disk.Write(func() {}, func(error) {
		if m.n.Life() == life {
			m.n.Crash("power off behind a refused append", m.leakDown)
		}
	})
}

// flood has the leader of a group write much while a snapshot of it leaves.
func (h *hosted) flood() {
	w := h.m.c.w
	if w.Calm() || !w.OneIn(int(w.Opt.Knob("floodOneIn"))) || h.Tablet == nil || h.view.ofRows {
		return
	}
	writes := 2 + 4*int(w.Opt.Knob("logKiB"))/floodKiB
	if writes > 100 {
		return // a log that large is not filled in a moment
	}
	if h.view.flooded += writes; h.view.flooded > h.m.c.floodsMax() {
		return
	}
	w.Sometimes("snapshot: leaves under a flood of writes")
	for range writes {
		op := h.view.probe.op(wire.OpSet, flooding)
		op.Ints = []int64{0}
		h.m.n.After(w.Between(0, 10*time.Millisecond), "flood", func() { h.write(op) })
	}
}

const floodKiB = 8

// floodsMax is how many writes floods bring a group in all. A snapshot holds all versions,
// and each of its chunks takes a task: with all that floods bring, it must arrive in a
// part of the time that a world has to become well.
func (c *cluster) floodsMax() int {
	chunk := max(time.Duration(c.w.Opt.Sched.Wake)/2, time.Microsecond)
	chunks := int64(c.w.Opt.Liveness) / 6 / int64(chunk)
	return int(min(chunks*max(1, c.w.Opt.Knob("chunkBytes"))/(floodKiB<<10), 1<<20))
}

var flooding = bytes.Repeat([]byte("f"), floodKiB<<10)

// proposes passes a client's proposal on: at once, late, or twice. On a node the
// writer is a goroutine: it may be put off between its last look at the lease and
// the host's mailbox for as long as a reign lasts. No leader proposes a request twice;
// what a second copy in the log does (W2 of package tablet) is seen where one is forged.
func (h *hosted) proposes(p *multiraft.Proposal) {
	w, req := h.m.c.w, h.m.serving
	h.m.serving = nil
	if req == nil || w.Calm() {
		h.group.Propose(p)
		return
	}
	if w.OneIn(int(w.Opt.Knob("copiedProposalOneIn"))) && bytes.Contains(p.Data, req.ClientId) {
		p.Wait = 0 // or it might be said to have expired while its copy is in the log
		copied := &multiraft.Proposal{Data: slices.Clone(p.Data), Done: func(multiraft.ProposalResult) {}}
		w.Sometimes("proposal: forged a copy")
		h.watchOutcome(copied)
		first, second := p, copied
		if w.OneIn(2) {
			first, second = copied, p
		}
		h.group.Propose(first)
		h.group.Propose(second)
		return
	}
	if w.OneIn(int(w.Opt.Knob("lateProposalOneIn"))) {
		w.Sometimes("proposal: late")
		h.late(p)
		return
	}
	h.group.Propose(p)
}

// late has a proposal come late: by some time, or in the leader's next reign, which
// then begins at once.
func (h *hosted) late(p *multiraft.Proposal) {
	c, w := h.m.c, h.m.c.w
	if w.OneIn(2) {
		d := time.Millisecond << w.Dice().IntN(12)
		h.m.n.After(w.Between(d/2, d), "late proposal", func() { h.group.Propose(p) })
		return
	}
	c.shuttle(h.view, h, 20*time.Millisecond, 1)
	term, until := h.group.Status().Term, w.Now()+2*time.Second
	var look func()
	look = func() {
		again := h.group.Leading() == nil && h.group.Status().Term > term
		if again {
			w.Sometimes("proposal: in the next reign")
		}
		if again || w.Now() > until {
			h.group.Propose(p)
			return
		}
		h.m.n.After(time.Millisecond, "late proposal", look)
	}
	look()
}

// pauses lets others go on between a reader's choice of a time and its view, and
// says whether the reader is still there after that.
func (h *hosted) pauses() bool {
	w, m, life := h.m.c.w, h.m, h.m.n.Life()
	if !m.reading || w.Calm() || !w.OneIn(int(w.Opt.Knob("slowReadOneIn"))) {
		return true
	}
	m.reading = false
	w.Meanwhile(w.Between(0, 50*time.Millisecond))
	return m.n.Up() && m.n.Life() == life && m.find(h.view.id) == h
}

// write writes something that no client waits for.
func (h *hosted) write(op *wire.Op) {
	if h.m.fatal == nil && h.m.find(h.view.id) == h {
		h.WriteAsync(&wire.WriteRequest{Tablet: uint64(h.view.id), Table: h.view.tablet.Table, SchemaVersion: 1, Ops: []*wire.Op{op}},
			h.m.now().Add(time.Second), func(*wire.WriteResponse) {})
	}
}
