package recovery

import (
	"cmp"
	"math"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/placement"
	"github.com/braiddb/braid/internal/wire"
)

// world is what a core is lent for a step.
type world struct {
	cfg  *Config
	view View
	now  time.Duration
	fx   *effects
}

// later asks for a step at a time.
func (w *world) later(at time.Duration) {
	if w.fx.wake == 0 || at < w.fx.wake {
		w.fx.wake = at
	}
}

// due says whether a time has come, and asks to be woken if not.
func (w *world) due(at time.Duration) bool {
	if w.now >= at {
		return true
	}
	w.later(at)
	return false
}

// again is when something that has failed so often in a row, this time included,
// is tried anew: soon at first, since most of what fails is under way to be well
// again, as a node is that was just started; later with each time.
func (w *world) again(failures *int) time.Duration {
	d := w.cfg.Retry >> 4 << min(*failures, 4)
	*failures++
	return w.now + d
}

func (w *world) call(c call) { w.fx.calls = append(w.fx.calls, c) }

// source is a shard that is asked until it has answered.
type source struct {
	id       logs.ShardID
	asked    bool // a call is out
	retryAt  time.Duration
	failures int
	answered bool
	// seal is what it told, of all its answers: what it once knew to be good is good,
	// also where a later one does not know it any more. Invariant: no LNG in it falls (C8).
	seal *wire.SealResponse
}

// learn takes an answer to a seal, and keeps what an earlier one knew beyond it.
func (s *source) learn(r *wire.SealResponse) {
	if before := s.seal; before != nil {
		r = proto.Clone(r).(*wire.SealResponse)
		r.TrimPoint = max(r.TrimPoint, before.TrimPoint)
		for _, b := range before.Epochs {
			at := slices.IndexFunc(r.Epochs, func(t *wire.EpochTail) bool { return t.Epoch == b.Epoch })
			if at < 0 {
				r.Epochs = append(r.Epochs, b)
				continue
			}
			t := r.Epochs[at]
			t.LastKnownGood, t.MaxSeen = max(t.LastKnownGood, b.LastKnownGood), max(t.MaxSeen, b.MaxSeen)
			t.MaxTimestampMs = max(t.MaxTimestampMs, b.MaxTimestampMs)
			if t.Tail.GetLsn() < b.Tail.GetLsn() {
				t.Tail = b.Tail
			}
		}
	}
	s.seal = r
}

// awaits says whether a shard has not answered, and still may.
func (w *world) awaits(s *source) bool {
	return !s.answered && w.view.Authority(s.id) == placement.ShardUnheard
}

// mayAsk says whether a shard that is awaited is to be asked now.
func (w *world) mayAsk(s *source) bool { return w.awaits(s) && !s.asked && w.due(s.retryAt) }

// series is the world of a core that goes from state to state with one call out at a
// time.
type series struct {
	world
	asked   bool          // it is out
	askedAt time.Duration // not before
}

// once has one call of the present state out, again some time after it failed.
func (s *series) once(c call) {
	if !s.asked && s.due(s.askedAt) {
		s.asked = true
		s.call(c)
	}
}

// history is what a log's epochs were replicated by, as far as it is known.
type history struct {
	known   []*wire.EpochMetadata // ascending by EffectiveSince
	readers []source              // who is asked for more
	patient time.Duration         // until then all of them are waited for
	round   uint32                // answers to questions of an earlier one are void
}

func (h *history) learn(ms []*wire.EpochMetadata) {
	for _, m := range ms {
		at, found := slices.BinarySearchFunc(h.known, m.EffectiveSince, func(m *wire.EpochMetadata, since uint32) int {
			return cmp.Compare(m.EffectiveSince, since)
		})
		if !found && len(m.Nodeset) > 0 && len(m.Nodeset) <= logs.NodesetMax && placement.ValidateReplication(m.Replication) == nil {
			h.known = slices.Insert(h.known, at, m)
		}
	}
}

// of is what an epoch was replicated by, nil if that is not known.
func (h *history) of(e logs.Epoch) *wire.EpochMetadata {
	for i := len(h.known) - 1; i >= 0; i-- {
		if logs.Epoch(h.known[i].EffectiveSince) <= e {
			return h.known[i]
		}
	}
	return nil
}

// shards are all that the epochs [from, to] lie on, ascending.
func (h *history) shards(from, to logs.Epoch) (out []source) {
	first := h.of(from)
	for _, m := range h.known {
		since := logs.Epoch(m.EffectiveSince)
		if m != first && (since < from || since > to) {
			continue
		}
		for _, s := range m.Nodeset {
			id := logs.ShardID(s)
			at, found := slices.BinarySearchFunc(out, id, func(s source, id logs.ShardID) int { return cmp.Compare(s.id, id) })
			if !found {
				out = slices.Insert(out, at, source{id: id})
			}
		}
	}
	return out
}

// reaches says whether all is known from an epoch on. What a sequencer knows are
// the latest, without a gap; if they do not reach back far enough the metadata log
// is read. Its records are copies of what the epoch store decided, so any copy is
// true, and each has at least as many as a record of the log: who heard all but
// fewer has seen every one. Less will not do: where one is missing, the epochs
// after it would be taken to lie on an older nodeset.
func (h *history) reaches(w *world, e logs.Epoch) bool {
	if h.readers == nil {
		if h.of(e) != nil {
			return true
		}
		h.patient = w.now + w.cfg.Retry
	}
	for _, s := range w.view.Shards() {
		if !slices.ContainsFunc(h.readers, func(r source) bool { return r.id == s }) {
			h.readers = append(h.readers, source{id: s})
		}
	}
	silent := 0
	for i := range h.readers {
		r := &h.readers[i]
		if r.answered {
			continue
		}
		silent++
		if !r.asked && w.due(r.retryAt) {
			r.asked = true
			w.call(call{kind: callMetadata, shard: r.id, plan: h.round})
		}
	}
	if h.of(e) != nil && (silent == 0 || silent < h.copiesMin() && w.due(h.patient)) {
		return true
	}
	w.later(w.now + w.cfg.Retry)
	return false
}

// copiesMin is how many copies, at least, a record of the metadata log has.
func (h *history) copiesMin() int {
	n := math.MaxInt
	for _, m := range h.known {
		n = min(n, placement.Copies(m.Replication))
	}
	return n
}

func (h *history) answer(w *world, ev *event) {
	at := slices.IndexFunc(h.readers, func(s source) bool { return s.id == ev.of.shard })
	if at < 0 || ev.of.plan != h.round {
		return
	}
	r := &h.readers[at]
	r.asked = false
	if ev.err == nil && ev.metadata.Status == statusPartial {
		h.learn(ev.metadata.Metadata) // true as far as it goes, but there may be more
	}
	if ev.err != nil || ev.metadata.Status != statusOK {
		r.retryAt = w.again(&r.failures)
		return
	}
	r.answered = true
	h.learn(ev.metadata.Metadata)
}
