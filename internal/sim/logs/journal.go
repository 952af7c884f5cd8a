package logs

import (
	"slices"

	"github.com/braiddb/braid/internal/journal"
	"github.com/braiddb/braid/internal/sim"
)

// platter is what a node's journal has on disk of its shard: it outlives the
// node's lives.
type platter struct {
	there   bool
	state   []byte
	start   uint64
	records []journal.Record
}

func (p *platter) keep(recs []journal.Record) {
	p.there = true
	for _, r := range recs {
		switch r.Kind {
		case journal.KindState:
			p.state = r.Payload
		case journal.KindStart:
			p.start, p.records = r.Pos, nil
		default:
			p.records = append(p.records, r)
		}
	}
}

// replay is a copy of the stream, as a restart reads it; nil if there is none.
func (p *platter) replay() *journal.StreamReplay {
	if !p.there {
		return nil
	}
	return &journal.StreamReplay{State: p.state, StartPos: p.start, Records: slices.Clone(p.records)}
}

// tear loses the last appends of the journal, as a torn write at its end does, and
// says how many records those were.
func (p *platter) tear(appends int) int {
	n := len(p.records)
	for range appends {
		if k := len(p.records); k > 0 {
			pos := p.records[k-1].Pos
			for len(p.records) > 0 && p.records[len(p.records)-1].Pos == pos {
				p.records = p.records[:len(p.records)-1]
			}
		}
	}
	return n - len(p.records)
}

// simJournal is store.Journal over the node's simulated disk.
type simJournal struct{ m *member }

// Append gives records to the disk. The state of a doubt, for which the store
// waits, is there at once; a full disk takes no copies, and all else.
func (j simJournal) Append(recs []journal.Record, done func(error)) {
	m := j.m
	recs = slices.Clone(recs)
	if recs[0].Kind == journal.KindState {
		m.platter.keep(recs)
		done(nil)
		return
	}
	for i := range recs {
		m.w.NoteBytes(recs[i].Payload)
		if m.n.Disk.Full() && recs[i].Kind == journal.KindLogFirst {
			m.w.Sometimes("journal: copies refused for want of space")
			m.n.Soon("no space", func() { done(journal.ErrNoSpace) })
			return
		}
	}
	m.n.Disk.Write(func() { m.platter.keep(recs) }, func(err error) {
		if err == sim.ErrDisk {
			m.die(err)
		}
		m.synced++
		done(err)
		m.synced--
	})
}

// SetLowWater lets a prefix go, now or, as a journal that recycles segments does,
// perhaps never.
func (j simJournal) SetLowWater(_ journal.StreamID, pos uint64) {
	p := &j.m.platter
	if j.m.w.OneIn(2) {
		for len(p.records) > 0 && p.records[0].Pos <= pos {
			p.records = p.records[1:]
		}
	}
}

// Full says that copies are refused.
func (j simJournal) Full() bool { return j.m.n.Disk.Full() }

// Crowded says that an Append would wait: never, here.
func (j simJournal) Crowded() bool { return false }
