package tables

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/braiddb/braid/internal/journal"
)

// platter is what a node's journal has on disk: it outlives the node's lives.
type platter struct {
	streams map[journal.StreamID]*journal.StreamReplay
	ids     []journal.StreamID // of streams, ascending: what is walked is walked so
}

// keep is what an append becomes when it is synced.
func (p *platter) keep(recs []journal.Record) {
	for i := range recs {
		p.keepOne(&recs[i])
	}
}

func (p *platter) keepOne(r *journal.Record) {
	if r.Kind == journal.KindDrop {
		delete(p.streams, r.Stream)
		return
	}
	s := p.streams[r.Stream]
	if s == nil {
		s = &journal.StreamReplay{}
		p.streams[r.Stream] = s
	}
	switch r.Kind {
	case journal.KindState:
		s.State = r.Payload
	case journal.KindEntry:
		if n := len(s.Records); n > 0 && s.Records[n-1].Pos+1 != r.Pos {
			panic(fmt.Sprintf("stream %d: entry %d follows %d", r.Stream, r.Pos, s.Records[n-1].Pos))
		}
		s.Records = append(s.Records, *r)
	case journal.KindTruncate:
		for len(s.Records) > 0 && s.Records[len(s.Records)-1].Pos >= r.Pos {
			s.Records = s.Records[:len(s.Records)-1]
		}
	case journal.KindStart:
		s.StartPos, s.Records, s.Corrupt = r.Pos, nil, false
	}
}

// forget drops entries up to a position.
func (p *platter) forget(id journal.StreamID, pos uint64) {
	if s := p.streams[id]; s != nil {
		for len(s.Records) > 0 && s.Records[0].Pos <= pos {
			s.Records = s.Records[1:]
		}
	}
}

// replay is a copy of a stream, as a restart reads it; nil if there is none.
func (p *platter) replay(id journal.StreamID) *journal.StreamReplay {
	s := p.streams[id]
	if s == nil {
		return nil
	}
	c := *s
	c.Records = append([]journal.Record(nil), s.Records...)
	return &c
}

// simJournal is multiraft.Journal over the node's simulated disk.
type simJournal struct{ m *member }

// Append gives records to the disk. A full one refuses entries and nothing else, and
// what is refused bars what follows it, as in the journal of a node.
func (j simJournal) Append(recs []journal.Record, done func(error)) {
	n := j.m.n
	entries := slices.ContainsFunc(recs, func(r journal.Record) bool { return r.Kind == journal.KindEntry })
	switch {
	case entries && n.Disk.Full():
		n.World().Sometimes("journal: entries refused for want of space")
		j.m.refusals.Refused(recs)
		n.Soon("no space", func() { done(journal.ErrNoSpace) })
	case j.m.refuses(recs, entries):
		n.After(50*time.Millisecond, "no space, late", func() { done(journal.ErrNoSpace) })
	default:
		n.Disk.Write(func() { j.m.platter.keep(recs) }, done)
	}
}

// SetLowWater lets a prefix go, now or, as a journal that recycles segments
// does, perhaps never.
func (j simJournal) SetLowWater(s journal.StreamID, pos uint64) {
	if j.m.n.World().OneIn(2) && j.m.leak == leakNot {
		j.m.platter.forget(s, pos)
	}
}

// Full says that entries are refused.
func (j simJournal) Full() bool { return j.m.n.Disk.Full() }

var errCut = errors.New("sim: the peer does not answer")
