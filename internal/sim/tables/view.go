package tables

import (
	"hash/maphash"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/multiraft"
	"github.com/braiddb/braid/internal/tables/docdb"
	"github.com/braiddb/braid/internal/wire"
)

// view is what is known of a group from outside: an oracle that no node sees.
type view struct {
	c        *cluster
	id       catalog.GroupID
	tablet   *catalog.Tablet
	first    uint64 // index of seen[0]
	seen     []seenEntry
	safe     hlc.Timestamp       // highest safe time given out
	acked    hlc.Timestamp       // highest time of a write that was answered
	outcomes map[uint64]*outcome // by what is proposed
	confAt   uint64              // index of the last change of configuration that was applied anywhere
	holder   *hosted             // who passed its gate last
	led      leaders
	healed   bool // a write was answered since the world healed
	flooded  int  // writes that floods brought, or were to
	move     *move
	ofRows   bool // its documents are rows: registers alone
	founders []*catalog.Replica
	documents
}

// seenEntry is an entry as it was first applied anywhere.
type seenEntry struct {
	term uint64
	ht   hlc.Timestamp
	sum  uint64

	remembered remembered // after it, where somebody's batch ended with it
}

// remembered is how much a replica remembers of requests.
type remembered struct {
	known    bool
	requests int
	bytes    int64
}

// outcome is what became of the proposals of one write: how many were not
// refused, and how often it is in the log.
type outcome struct{ open, applied int }

func (v *view) outcome(data []byte) *outcome {
	k := maphash.Bytes(entrySeed, data)
	if v.outcomes == nil {
		v.outcomes = make(map[uint64]*outcome)
	}
	o := v.outcomes[k]
	if o == nil {
		o = &outcome{}
		v.outcomes[k] = o
	}
	return o
}

// checkOutcome is T7.
func (v *view) checkOutcome(o *outcome) {
	if o.applied > o.open {
		v.c.w.Fail("T7: group %d: a write that was refused as without effect is in the log", v.id)
	}
}

// entrySeed is equal in all runs of a process; sums never leave it.
var entrySeed = maphash.MakeSeed()

func (v *view) span() docdb.Span {
	return docdb.Span{Table: catalog.TableID(v.tablet.Table), Start: v.tablet.HashStart, End: v.tablet.HashEnd}
}

func sum(e *multiraft.Entry) uint64 {
	var h maphash.Hash
	h.SetSeed(entrySeed)
	h.WriteByte(byte(e.Kind))
	for i := range e.Writes {
		h.Write(e.Writes[i].Data)
		h.WriteByte(0)
	}
	h.Write(e.Conf)
	return h.Sum64()
}

// sawApplied is T2 and T3.
func (v *view) sawApplied(h *hosted, e *multiraft.Entry) {
	w := v.c.w
	w.Note(uint64(e.HybridTime))
	if w.Tracing() {
		w.Tracef("node %d group %d applies %d of term %d at %d: kind %d, %d writes", h.m.n.ID, v.id, e.Index, e.Term, e.HybridTime, e.Kind, len(e.Writes))
	}
	if e.Index != h.applied+1 && h.applied != 0 {
		// Entries of one Apply follow each other; applied moves on after it.
		if e.Index <= h.applied {
			w.Fail("node %d applies entry %d of group %d after %d", h.m.n.ID, e.Index, v.id, h.applied)
		}
	}
	if len(v.seen) == 0 {
		v.first = e.Index
	}
	at := e.Index - v.first
	switch {
	case at < uint64(len(v.seen)):
		if s := &v.seen[at]; s.term != e.Term || s.sum != sum(e) || s.ht != e.HybridTime {
			w.Fail("T2: group %d: entry %d of term %d at %s on node %d was of term %d at %s on another",
				v.id, e.Index, e.Term, e.HybridTime, h.m.n.ID, s.term, s.ht)
		}
		return
	case at > uint64(len(v.seen)):
		w.Fail("T2: group %d: node %d applies entry %d, nobody has applied %d", v.id, h.m.n.ID, e.Index, v.first+uint64(len(v.seen)))
		return
	}
	if e.Kind == multiraft.KindWrites {
		if e.HybridTime <= v.safe {
			w.Fail("T3: group %d: entry %d is at %s, safe time %s was given out before", v.id, e.Index, e.HybridTime, v.safe)
		}
		if n := len(v.seen); n > 0 && v.seen[n-1].ht >= e.HybridTime {
			w.Fail("T3: group %d: entry %d is at %s, the one before at %s", v.id, e.Index, e.HybridTime, v.seen[n-1].ht)
		}
	}
	if e.Kind == multiraft.KindWrites {
		v.checkFloor(e.Term, e.HybridTime, "an entry")
	}
	if e.Kind == multiraft.KindConf {
		v.confAt = e.Index
	}
	if e.Kind == multiraft.KindWrites && v.tablet.Table != 0 {
		for i := range e.Writes {
			o := v.outcome(e.Writes[i].Data)
			o.applied++
			v.checkOutcome(o)
		}
	}
	v.seen = append(v.seen, seenEntry{term: e.Term, ht: e.HybridTime, sum: sum(e)})
}

// gaveSafeTime is T3 and T4: what is at or below it must be applied where it is given.
func (v *view) gaveSafeTime(h *hosted, at hlc.Timestamp) {
	w := v.c.w
	if at < v.acked {
		w.Fail("T4: group %d: node %d reads at %s, a write at %s was acknowledged before", v.id, h.m.n.ID, at, v.acked)
	}
	if len(v.seen) > 0 {
		for i := len(v.seen) - 1; i >= 0 && v.first+uint64(i) > h.applied; i-- {
			if v.seen[i].ht <= at && (i == 0 || v.seen[i].ht > v.seen[i-1].ht) {
				w.Fail("T3: group %d: node %d gives safe time %s with %d applied, entry %d is at %s",
					v.id, h.m.n.ID, at, h.applied, v.first+uint64(i), v.seen[i].ht)
			}
		}
	}
	if v.led.last == h {
		v.checkFloor(v.led.term, at, "a reader")
	}
	v.safe = max(v.safe, at)
}

// watch is T1 for one replica: if it passes its gate, nobody else does. It also
// plays a reader and a writer that stand beside the leader: bugs of leases and
// times show themselves in the moment in which leadership moves.
func (h *hosted) watch(read bool) {
	v := h.view
	if h.m.fatal != nil || h.group.Leading() != nil {
		return
	}
	if was := v.holder; was != h {
		if was != nil && was.m.n.Alive() && was.m.fatal == nil && was.m.find(v.id) == was && was.group.Leading() == nil {
			v.c.w.Fail("T1: group %d: nodes %d and %d both serve", v.id, was.m.n.ID, h.m.n.ID)
		}
		if was != nil && was.m != h.m {
			v.c.w.Sometimes("leader: changed")
		}
		v.holder = h
		if h.Tablet != nil {
			h.m.n.Soon("probe", h.probe)
		}
	}
	if read {
		_, _ = h.ReadTime() // watched; a refusal is none of a reader's business here
	}
	if read && h.Tablet != nil && h.m.c.events%64 == 0 {
		// A reader whose time was fixed between an entry and its word to the gate.
		h.Read(&wire.ReadRequest{Tablet: uint64(v.id), Table: v.tablet.Table, SchemaVersion: 1, Ops: []*wire.Op{v.probeRead()}})
	}
}

// probe writes at a new leader, as early as anybody could.
func (h *hosted) probe() {
	h.write(h.view.probeWrite())
}

// checkHolders is T1 for all replicas. A paused node counts: it would serve if it
// went on now.
func (v *view) checkHolders() {
	holder := 0
	for _, m := range v.c.members {
		if !m.n.Alive() || m.fatal != nil {
			continue
		}
		h := m.find(v.id)
		if h == nil || h.group.Leading() != nil {
			continue
		}
		if holder != 0 {
			v.c.w.Fail("T1: group %d: nodes %d and %d both serve", v.id, holder, m.n.ID)
		}
		holder = m.n.ID
	}
}

// leader is the replica that serves; nil if none does.
func (v *view) leader() *hosted {
	for _, m := range v.c.members {
		if m.n.Up() && m.fatal == nil {
			if h := m.find(v.id); h != nil && h.group.Leading() == nil {
				return h
			}
		}
	}
	return nil
}
