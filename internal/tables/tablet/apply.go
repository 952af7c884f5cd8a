package tablet

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/braiddb/braid/internal/multiraft"
	"github.com/braiddb/braid/internal/tables/docdb"
)

// applier is the state of the group's apply worker.
type applier struct {
	state    multiraft.AppliedState
	notes    entryNotes
	buf      []byte
	record   []byte
	verdicts verdicts
}

// Apply carries out committed entries, in order, on every replica alike. All of
// them go into one LSM batch (W4): effects, remembered requests and how far the
// replica is are visible, and later durable, together. Whoever proposed a write
// here hears of it from the group after Apply has returned.
func (t *Tablet) Apply(ents []multiraft.Entry) error {
	if len(ents) == 0 {
		return nil
	}
	t.apply.verdicts.clear()
	b := t.deps.Engine.NewBatch()
	if err := t.fill(b, ents); err != nil {
		return errors.Join(fmt.Errorf("tablet %d: %w", t.id, err), b.Close())
	}
	if err := b.Commit(); err != nil {
		return fmt.Errorf("tablet %d: commit entries up to %d: %w", t.id, t.apply.state.Index, err)
	}
	t.appliedTerm.Store(t.apply.state.Term)
	t.collectable.Store(uint64(t.cutoff.Load()))
	t.metrics.Entries.Add(int64(len(ents)))
	t.metrics.Applies.Add(1)
	return nil
}

// fill puts the entries and what they make of the group's state into a batch.
func (t *Tablet) fill(b *docdb.ApplyBatch, ents []multiraft.Entry) error {
	for i := range ents {
		if err := t.applyEntry(b, &ents[i]); err != nil {
			return fmt.Errorf("apply entry %d: %w", ents[i].Index, err)
		}
	}
	if err := t.putGarbage(b); err != nil {
		return err
	}
	return t.putApplied(b)
}

// applyEntry adds one entry to the batch.
func (t *Tablet) applyEntry(b *docdb.ApplyBatch, e *multiraft.Entry) error {
	s := &t.apply.state
	if e.Index <= s.Index {
		panic(fmt.Sprintf("BUG: tablet %d is given entry %d after %d", t.id, e.Index, s.Index))
	}
	if e.HybridTime < s.HybridTime && e.Kind == multiraft.KindWrites {
		panic(fmt.Sprintf("BUG: tablet %d: entry %d at %s comes after %s: log order is not time order", t.id, e.Index, e.HybridTime, s.HybridTime))
	}
	s.Index, s.Term, s.HybridTime = e.Index, e.Term, max(s.HybridTime, e.HybridTime)
	switch e.Kind {
	case multiraft.KindNoop:
	case multiraft.KindConf:
		s.Conf = append([]byte(nil), e.Conf...)
		if err := b.PutGroupState(t.id, keyConf, s.Conf); err != nil {
			return err
		}
	case multiraft.KindWrites:
		if err := t.applyWrites(b, e); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%w: entry of kind %d, which this node does not know", ErrFormat, e.Kind)
	}
	t.requests.Load().noted(&t.apply.notes, s.HybridTime)
	return nil
}

// applyWrites adds the writes of one entry in their order, and one record of the
// requests among them.
func (t *Tablet) applyWrites(b *docdb.ApplyBatch, e *multiraft.Entry) error {
	a := &t.apply
	a.notes.begin()
	var ids uint32
	for i := range e.Writes {
		p, err := decodePayload(e.Writes[i].Data)
		if err != nil {
			return err
		}
		v := t.judge(&p, e)
		if v != verdictApply {
			t.count(v)
			a.verdicts.put(e.Writes[i].Local, v)
			continue
		}
		taken, err := t.applyPayload(b, &p, e, ids)
		if err != nil {
			return err
		}
		ids += taken
	}
	if a.notes.count == 0 {
		return nil
	}
	a.record = appendRequestsHeader(a.record[:0], e.HybridTime, a.notes.count)
	a.record = append(a.record, a.notes.disk...)
	return b.PutGroupState(t.id, requestsKey(e.Index), a.record)
}

// judge decides whether a write of an entry takes effect, from replicated state
// alone.
func (t *Tablet) judge(p *payload, e *multiraft.Entry) verdict {
	if p.term != e.Term {
		return verdictVoid // W3
	}
	if !p.remembered {
		return verdictApply
	}
	switch known, _ := t.requests.Load().standing(p.request); known {
	case standingRemembered:
		return verdictDuplicate // W2
	case standingExpired:
		return verdictExpired
	}
	return verdictApply
}

func (t *Tablet) count(v verdict) {
	if v == verdictVoid {
		t.metrics.Void.Add(1)
		pointVoid.Reach()
		return
	}
	t.metrics.Duplicates.Add(1)
	pointDuplicate.Reach()
}

// applyPayload adds what one write does.
func (t *Tablet) applyPayload(b *docdb.ApplyBatch, p *payload, e *multiraft.Entry, firstWriteID uint32) (taken uint32, err error) {
	switch p.kind {
	case payloadSchema:
		return 0, t.applySchema(b, p)
	case payloadCutoff:
		t.cutoff.Raise(min(p.cutoff, e.HybridTime))
		return 0, nil
	}
	if len(p.effects) > 0 {
		if p.raises {
			t.cutoff.Raise(e.HybridTime) // before old versions go (W6)
		}
		if taken, err = b.Apply(t.table, p.effects, e.HybridTime, firstWriteID); err != nil {
			return 0, err
		}
		t.lastWrite.Store(uint64(e.HybridTime))
	}
	if p.remembered {
		t.requests.Load().note(&t.apply.notes, e.Index, e.HybridTime, p)
	}
	return taken, nil
}

// applySchema adopts a newer schema; an older or equal one, from a change that
// was asked for twice, is nothing new.
func (t *Tablet) applySchema(b *docdb.ApplyBatch, p *payload) error {
	if p.schema.Schema.Version <= t.schema.Load().Schema.Version {
		return nil
	}
	data, err := p.schema.MarshalVT()
	if err != nil {
		return err
	}
	if err := b.PutGroupState(t.id, keySchema, data); err != nil {
		return err
	}
	t.schema.Store(p.schema)
	return nil
}

// verdict is what apply decides about a write of an entry.
type verdict uint8

const (
	verdictApply     verdict = iota
	verdictVoid              // of another term: no effect
	verdictDuplicate         // the request had its effect before: answer that
	verdictExpired           // below its client's floor: no effect
)

// verdicts carries what apply decided against to the writes that wait for it.
// It is all but always empty, and what is in it is asked for before the next
// Apply; what is not, because leadership was lost and the waiter told so, goes.
type verdicts struct {
	count atomic.Int32
	mu    struct {
		sync.Mutex
		by map[*multiraft.Proposal]verdict
	}
}

func (v *verdicts) put(p *multiraft.Proposal, of verdict) {
	if p == nil {
		return // nobody waits here
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.mu.by == nil {
		v.mu.by = make(map[*multiraft.Proposal]verdict)
	}
	v.mu.by[p] = of
	v.count.Store(int32(len(v.mu.by)))
}

func (v *verdicts) clear() {
	if v.count.Load() == 0 {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	clear(v.mu.by)
	v.count.Store(0)
}

func (v *verdicts) take(p *multiraft.Proposal) verdict {
	if v.count.Load() == 0 {
		return verdictApply
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	of := v.mu.by[p]
	delete(v.mu.by, p)
	v.count.Store(int32(len(v.mu.by)))
	return of
}
