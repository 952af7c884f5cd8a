package journal

import (
	"errors"
	"fmt"
)

// Refusals knows what a journal has refused for want of space and was not given
// again. A writer hears of a refusal late: it has handed over more by then, and
// what of that were taken would stand behind a hole. After a power failure the
// hole is all there is, and nobody can tell it from a loss. So what follows in a
// stream is refused as well until the refused entries are written again, in
// order, or something makes them void (J10).
//
// It is exported for who stands in for a journal: a simulation that took what
// this one refuses would find what cannot be. The zero value has refused nothing.
type Refusals struct {
	of  map[StreamID]refusal // J10; gone as soon as it is lifted, by a KindDrop at the latest
	was []undo               // changes since the last mark, newest last
}

// refusal bars one stream. Entries from next to top were refused, and only the
// one at next is taken, or what makes them void. Where what was refused first
// would itself have made others void, only such a record will do.
type refusal struct {
	next, top uint64
	void      bool
}

// undo is what stood for a stream before a change.
type undo struct {
	stream StreamID
	refusal
	had bool
}

// Refused notes that an Append was refused.
func (b *Refusals) Refused(recs []Record) {
	b.was = b.was[:0]
	b.refused(recs)
}

// Admit says whether an Append may be written, and notes that it is. One that may
// not be is noted as refused.
func (b *Refusals) Admit(recs []Record) error {
	b.was = b.was[:0]
	return b.admit(recs)
}

// judge goes over a group in the order of its requests, refuses what follows what
// was refused, and says how many those were. All of it can be taken back until the
// next change.
func (b *Refusals) judge(group []request) (refused int) {
	b.was = b.was[:0]
	for i := range group {
		r := &group[i]
		switch {
		case r.err == nil:
			if r.err = b.admit(r.recs); r.err != nil {
				refused++
			}
		case errors.Is(r.err, ErrNoSpace):
			b.refused(r.recs)
		}
	}
	return refused
}

// refused leaves alone what stands against a stream already: that is older, and
// so is written again first.
func (b *Refusals) refused(recs []Record) {
	for i := range recs {
		r := &recs[i]
		was, barred := b.of[r.Stream]
		switch r.Kind {
		case KindEntry:
			if !barred {
				was = refusal{next: r.Pos}
			}
			was.top = max(was.top, r.Pos)
			b.set(r.Stream, was)
		case KindTruncate:
			if !barred {
				b.set(r.Stream, refusal{next: r.Pos, top: r.Pos, void: true})
			}
		case KindStart, KindDrop:
			if !barred {
				b.set(r.Stream, refusal{void: true})
			}
		}
	}
}

func (b *Refusals) admit(recs []Record) error {
	if len(b.of) == 0 {
		return nil
	}
	mark := len(b.was)
	for i := range recs {
		r := &recs[i]
		bar, barred := b.of[r.Stream]
		if !barred {
			continue
		}
		switch r.Kind {
		case KindEntry:
			if bar.void || r.Pos != bar.next {
				b.rollback(mark)
				b.refused(recs)
				return fmt.Errorf("%w: stream %d was refused what comes before entry %d", ErrNoSpace, r.Stream, r.Pos)
			}
			if bar.next++; bar.next <= bar.top {
				b.set(r.Stream, bar)
			} else {
				b.lift(r.Stream)
			}
		case KindTruncate:
			if r.Pos <= bar.next {
				b.lift(r.Stream)
			}
		case KindStart, KindDrop:
			b.lift(r.Stream)
		}
	}
	return nil
}

func (b *Refusals) set(id StreamID, to refusal) {
	b.note(id)
	if b.of == nil {
		b.of = map[StreamID]refusal{}
	}
	b.of[id] = to
}

func (b *Refusals) lift(id StreamID) {
	b.note(id)
	delete(b.of, id)
}

func (b *Refusals) note(id StreamID) {
	was, had := b.of[id]
	b.was = append(b.was, undo{id, was, had})
}

// rollback takes back the changes since a mark.
func (b *Refusals) rollback(mark int) {
	for n := len(b.was); n > mark; n-- {
		if u := b.was[n-1]; u.had {
			b.of[u.stream] = u.refusal
		} else {
			delete(b.of, u.stream)
		}
	}
	b.was = b.was[:mark]
}
