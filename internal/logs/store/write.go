package store

import (
	"cmp"
	"errors"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/journal"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

const (
	statusOK = wire.LogStatus_LOG_STATUS_OK
)

// HandleBatch takes what a sequencer or a recovery sends: it moves releases and
// stores copies. The batch is borrowed until it returns, which it does without
// waiting. reply gets the outcomes of the stores, in one or two answers: those
// that are refused at once, and those that are durable; and what is released now,
// where a release asks for it.
//
//	receive ─▶ fence ─▶ journal ─▶ (durable) admit ─▶ answer
//	                                           └────▶ apply to the partition
func (s *Store) HandleBatch(b *wire.LogBatch, reply func(*wire.LogBatch)) {
	if len(b.Stores) == 0 {
		s.confirm(b, s.handleReleases(b.Releases, nil), reply)
		return
	}
	in := s.receive(b, reply)
	confirmed := s.handleReleases(b.Releases, in.out)
	s.accept(in)
	in.answerRefused()
	s.confirm(b, confirmed, reply)
}

// confirm answers the releases that ask for it.
func (s *Store) confirm(b *wire.LogBatch, confirmed []*wire.Released, reply func(*wire.LogBatch)) {
	if len(confirmed) > 0 {
		reply(&wire.LogBatch{FromNode: uint64(s.o.Shard.Node()), ToNode: b.FromNode, Released: confirmed})
	}
}

// incoming is a batch of stores on its way.
type incoming struct {
	s        *Store
	from     uint64
	node     catalog.NodeID
	reply    func(*wire.LogBatch)
	stores   []*wire.Store // those that are neither refused nor put off
	refused  []*wire.Stored
	out      *batch
	verified bool // its amendments have something to amend
}

// receive says no to what is not for this shard, and encodes the rest.
func (s *Store) receive(b *wire.LogBatch, reply func(*wire.LogBatch)) *incoming {
	in := &incoming{s: s, from: b.FromNode, node: catalog.NodeID(b.FromNode), reply: reply, out: &batch{s: s}}
	in.stores = make([]*wire.Store, 0, len(b.Stores))
	size := entryHead
	for _, st := range b.Stores {
		if status := s.check(st); status != statusOK {
			in.refuse(st, status)
			continue
		}
		in.stores = append(in.stores, st)
		size += copyBytesMax(st.Record)
	}
	in.out.encode(in.stores, size)
	return in
}

// check is what can be said of a store without knowing its log.
func (s *Store) check(st *wire.Store) wire.LogStatus {
	r := st.Record
	switch {
	case r == nil || r.Log == 0 || logs.LSN(r.Lsn).Epoch() < logs.EpochMin || len(r.Copyset) > logs.CopysetMax:
		return wire.LogStatus_LOG_STATUS_INVALID
	case !inCopyset(r.Copyset, s.o.Shard):
		return wire.LogStatus_LOG_STATUS_NOT_IN_COPYSET
	case st.Amend && len(r.Payload) > 0:
		return wire.LogStatus_LOG_STATUS_INVALID
	case !st.Amend && !pseudo(r.Flags) && logs.Checksum(r.Payload) != r.Checksum:
		return wire.LogStatus_LOG_STATUS_CHECKSUM_MISMATCH
	case s.full.Load():
		s.count.noSpace.Add(1)
		return wire.LogStatus_LOG_STATUS_NO_SPACE
	}
	return statusOK
}

func inCopyset(copyset []uint64, shard logs.ShardID) bool {
	for _, c := range copyset {
		if c == uint64(shard) {
			return true
		}
	}
	return false
}

// encode makes the journal entry of stores. The partition is filled in when it
// is known.
func (b *batch) encode(stores []*wire.Store, size int) {
	b.buf = append(make([]byte, 0, size), entryVersion, 0, 0, 0, 0, 0, 0, 0, 0)
	b.entries = make([]entry, len(stores))
	for i, st := range stores {
		r := st.Record
		at := len(b.buf)
		b.buf = appendCopy(b.buf, r, st.Amend)
		e := &b.entries[i]
		e.log, e.lsn, e.precedence = logs.LogID(r.Log), logs.LSN(r.Lsn), logs.Precedence(r)
		d := decoder{b: b.buf[at+copyHead:]}
		e.header = d.take(uint64(d.fixed32()))
		e.flags, e.esnGood, e.timestamp, e.amend = r.Flags, logs.ESN(r.LastKnownGood), r.TimestampMs, st.Amend
		if payload := d.take(d.uvarint()); len(payload) > 0 {
			e.payload = payload
		}
	}
	b.bytes = b.cacheBytes()
}

// accept fences the stores off or gives them to the journal.
func (s *Store) accept(in *incoming) {
	s.order.Lock()
	defer s.order.Unlock()
	s.mu.Lock()
	kept := in.stores[:0:len(in.stores)]
	n := len(in.stores)
	for _, st := range in.stores {
		if s.fenceOff(in, st) {
			kept = append(kept, st)
		}
	}
	in.stores = kept
	if len(kept) < n {
		in.out.encode(kept, entryHead)
	}
	if len(kept) > 0 && s.crowded(in.out.bytes) {
		for _, st := range kept {
			in.refuse(st, wire.LogStatus_LOG_STATUS_DROPPED)
		}
		s.count.dropped.Add(int64(len(kept)))
		in.stores = nil
	}
	b := in.out
	if len(in.stores) == 0 {
		s.laterMarks(b)
		s.mu.Unlock()
		return
	}
	s.raiseSoft(in)
	in.place()
	s.inFlight += b.bytes
	b.done = in.stored()
	s.mu.Unlock()
	s.writeOrdered(b)
}

// crowded says whether there is no room for more on the way to the journal and
// the partition: whoever sends is told instead of being made to wait. mu is held.
func (s *Store) crowded(bytes int64) bool {
	return s.inFlight > 0 && s.inFlight+bytes > s.o.QueueBytes || s.o.Journal.Crowded()
}

// place names the partition that the copies go to. mu is held.
func (in *incoming) place() {
	b := in.out
	b.part = in.s.open
	b.part.pending++
	putPartition(b.buf, b.part.id)
}

// fenceOff says whether a store passes the seals of its log, and whether an
// amendment has something to amend. mu is held.
func (s *Store) fenceOff(in *incoming, st *wire.Store) bool {
	id, lsn := logs.LogID(st.Record.Log), logs.LSN(st.Record.Lsn)
	if s.closed {
		in.refuse(st, wire.LogStatus_LOG_STATUS_SHUTDOWN)
		return false
	}
	if id.IsMetadata() {
		return true // what it says was decided in the epoch store
	}
	l := s.log(id)
	if s.needsFence(l) {
		s.askFence(l)
		in.refuse(st, wire.LogStatus_LOG_STATUS_DROPPED)
		return false
	}
	if by, soft, no := l.preempts(st, lsn); no {
		a := in.refuse(st, wire.LogStatus_LOG_STATUS_PREEMPTED)
		pointFencedOff.Reach()
		a.SealEpoch, a.SealedBy, a.Soft = uint32(by.epoch), uint64(by.by), soft
		return false
	}
	if l.givenUp(st, lsn.Epoch()) {
		pointGivenUp.Reach()
		in.refuse(st, wire.LogStatus_LOG_STATUS_DROPPED)
		return false
	}
	if st.Amend && !pseudo(st.Record.Flags) {
		return s.amendable(in, l, st, lsn)
	}
	return true
}

// givenUp says whether a recovery's store is of a plan that it gave up: what a connection
// that broke still brings may come behind what the next one brought, and would replace it.
func (l *logState) givenUp(st *wire.Store, e logs.Epoch) bool {
	if st.SealEpoch == 0 {
		return false
	}
	p := plan{logs.Epoch(st.SealEpoch), e, logs.PlanOf(st.Record.Flags)}
	is := cmp.Or(cmp.Compare(p.seal, l.plan.seal), cmp.Compare(p.epoch, l.plan.epoch), cmp.Compare(p.number, l.plan.number))
	if is > 0 {
		l.plan = p
	}
	return is < 0
}

// preempts says which seal stands against a store.
func (l *logState) preempts(st *wire.Store, lsn logs.LSN) (by seal, soft, no bool) {
	hard := l.fence()
	if st.SealEpoch > 0 { // recovery, with the seal of its own
		e := logs.Epoch(st.SealEpoch)
		if e < l.hard.epoch {
			return l.hard, false, true
		}
		return l.soft, true, e < l.soft.epoch
	}
	e := lsn.Epoch()
	if e <= hard.epoch {
		return hard, false, true
	}
	return l.soft, true, !st.Draining && e <= l.soft.epoch
}

// raiseSoft notes what the stores imply: a sequencer of epoch e has sealed e-1,
// or is about to. mu is held.
func (s *Store) raiseSoft(in *incoming) {
	for _, st := range in.stores {
		id := logs.LogID(st.Record.Log)
		if st.SealEpoch > 0 || id.IsMetadata() {
			continue
		}
		l := s.log(id)
		if l.soft.raise(seal{logs.LSN(st.Record.Lsn).Epoch() - 1, in.node}) {
			in.out.soft = append(in.out.soft, id)
		}
	}
}

// amendable says whether the copy that an amendment is of is here. Where that
// cannot be said at once the store is put off. mu is held.
func (s *Store) amendable(in *incoming, l *logState, st *wire.Store, lsn logs.LSN) bool {
	if lsn >= l.coverFrom {
		for _, e := range l.cached[l.from(lsn):] {
			if e.lsn != lsn {
				break
			}
			if !e.amend && !pseudo(e.flags) {
				return true
			}
		}
		in.refuse(st, wire.LogStatus_LOG_STATUS_FAILED)
		return false
	}
	if in.checked(st) {
		return true
	}
	s.putOff(in, st)
	return false
}

// refuse notes the outcome of a store that is not taken.
func (in *incoming) refuse(st *wire.Store, status wire.LogStatus) *wire.Stored {
	a := &wire.Stored{Cookie: st.Cookie, Status: status, LowSpace: in.s.low.Load()}
	if r := st.Record; r != nil {
		a.Log, a.Lsn, a.Wave = r.Log, r.Lsn, r.Wave
	}
	in.refused = append(in.refused, a)
	in.s.count.refused.Add(1)
	return a
}

func (in *incoming) answerRefused() {
	if len(in.refused) > 0 {
		in.answer(in.refused)
	}
}

func (in *incoming) answer(stored []*wire.Stored) {
	in.reply(&wire.LogBatch{FromNode: uint64(in.s.o.Shard.Node()), ToNode: in.from, Stored: stored})
}

// stored makes the answer to what is given to the journal. The stores are
// borrowed, so what it needs of them is taken now.
func (in *incoming) stored() func(error) {
	all := make([]wire.Stored, len(in.stores))
	out := make([]*wire.Stored, len(in.stores))
	for i, st := range in.stores {
		r := st.Record
		all[i].Log, all[i].Lsn, all[i].Wave, all[i].Cookie = r.Log, r.Lsn, r.Wave, st.Cookie
		out[i] = &all[i]
	}
	bytes := in.out.bytes
	return func(err error) {
		s := in.s
		status := statusOf(err)
		low := s.low.Load() || status == wire.LogStatus_LOG_STATUS_NO_SPACE
		for _, a := range out {
			a.Status, a.LowSpace = status, low
		}
		if err == nil {
			s.count.stores.Add(int64(len(out)))
			s.count.storedBytes.Add(bytes)
		} else {
			s.count.noSpace.Add(int64(len(out)))
		}
		in.answer(out)
	}
}

// statusOf is what the journal's word means to who asked.
func statusOf(err error) wire.LogStatus {
	switch {
	case err == nil:
		return statusOK
	case errors.Is(err, journal.ErrNoSpace):
		return wire.LogStatus_LOG_STATUS_NO_SPACE
	case errors.Is(err, journal.ErrClosed):
		return wire.LogStatus_LOG_STATUS_SHUTDOWN
	}
	return wire.LogStatus_LOG_STATUS_FAILED
}
