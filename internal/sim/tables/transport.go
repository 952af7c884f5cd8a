package tables

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/wire"
)

// door is multiraft.Transport of one life of a node. What passes is encoded and
// decoded, as between processes; beats in some of the seeds only.
type door struct{ m *member }

// SendBatch sends raft's messages.
func (d door) SendBatch(to catalog.NodeID, b *wire.RaftBatch) {
	m := d.m
	if !m.speaks("sends to a peer") {
		return
	}
	words := m.checkBatch(b)
	raw, err := b.MarshalVT()
	if err != nil {
		m.c.w.Fail("node %d: a batch does not marshal: %w", m.n.ID, err)
		return
	}
	m.c.w.NoteBytes(raw)
	p := m.c.members[to-1]
	m.n.Send(int(to), "batch", len(raw), func() {
		in := &wire.RaftBatch{}
		if err := in.UnmarshalVT(raw); err != nil {
			m.c.w.Fail("a batch does not unmarshal: %w", err)
			return
		}
		p.hears(m.n.ID, words)
		p.host.HandleBatch(in)
	})
}

// SendBeat sends a beat or its answer.
func (d door) SendBeat(to catalog.NodeID, b *wire.Beat) {
	m := d.m
	if !m.speaks("beats") {
		return
	}
	m.beats(int(to), b)
	p := m.c.members[to-1]
	if m.c.w.Opt.Knob("handOver") != 0 { // it is made anew for each peer and never changed: it is handed over
		m.n.Send(int(to), "beat", b.SizeVT(), func() { p.hearsBeat(b) })
		return
	}
	raw, err := b.MarshalVT()
	if err != nil {
		m.c.w.Fail("node %d: a beat does not marshal: %w", m.n.ID, err)
		return
	}
	m.n.Send(int(to), "beat", len(raw), func() {
		in := &wire.Beat{}
		if err := in.UnmarshalVT(raw); err != nil {
			m.c.w.Fail("a beat does not unmarshal: %w", err)
			return
		}
		p.hearsBeat(in)
	})
}

// TailQuery asks a peer about a suspect tail. What is lost is asked again. What comes
// when the life that asked is over finds nobody: it was that life's call.
func (d door) TailQuery(to catalog.NodeID, q *wire.TailQuery, done func(*wire.TailAnswer, error)) {
	m, p, life := d.m, d.m.c.members[to-1], d.m.n.Life()
	ask := proto.Clone(q).(*wire.TailQuery)
	m.n.Send(int(to), "tail?", 100, func() {
		p.host.HandleTailQuery(proto.Clone(ask).(*wire.TailQuery), func(a *wire.TailAnswer) {
			answer := proto.Clone(a).(*wire.TailAnswer)
			p.n.Send(m.n.ID, "tail!", 100, func() {
				if m.n.Life() == life {
					done(proto.Clone(answer).(*wire.TailAnswer), nil)
				}
			})
		})
	})
}

// SendSnapshotChunk hands a chunk over at once, if the peer can be reached: the
// time that a stream takes lies between its chunks.
func (d door) SendSnapshotChunk(_ context.Context, to catalog.NodeID, c *wire.SnapshotChunk) error {
	m, p, w := d.m, d.m.c.members[to-1], d.m.c.w
	if !w.Net.Reaches(m.n.ID, p.n.ID) || !w.Net.Reaches(p.n.ID, m.n.ID) || !p.n.Up() || p.host == nil ||
		!w.Calm() && w.OneIn(int(w.Opt.Knob("chunkLostOneIn"))) {
		return errCut
	}
	raw, err := c.MarshalVT()
	if err != nil {
		return err
	}
	w.NoteBytes(raw)
	in := &wire.SnapshotChunk{}
	if err := in.UnmarshalVT(raw); err != nil {
		return err
	}
	if a := p.host.HandleSnapshotChunk(in); a.Error != nil {
		return errors.New(a.Error.Message)
	}
	return nil
}

// timer is multiraft.Timer on the node's clock, for one life.
type timer struct {
	m    *member
	life int
}

func (m *member) timer() timer { return timer{m, m.n.Life()} }

// AfterFunc runs f as a task of this life.
func (t timer) AfterFunc(d time.Duration, f func()) func() bool {
	t.m.lives(t.life)
	return t.m.n.After(d, "timer", f).Stop
}

// task runs f as a goroutine would that a life's host woke.
func (m *member) task(life int, f func()) {
	m.lives(life)
	m.n.Soon("task", f)
}

// lives is S4 of internal/sim, where work is asked for: what an ended life asks for would
// run in the one that goes on.
func (m *member) lives(life int) {
	if m.n.Life() != life {
		m.c.w.Fail("S4: node %d: life %d asks for work in life %d", m.n.ID, life, m.n.Life())
	}
}

// speaks is T5.
func (m *member) speaks(what string) bool {
	if m.fatal != nil {
		m.c.w.Fail("node %d %s after a fatal fault: %w", m.n.ID, what, m.fatal)
		return false
	}
	return true
}
