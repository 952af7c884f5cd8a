package recovery

import (
	"maps"
	"slices"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// A shard that lost the end of its journal, and what it does about it.

const keptMax = 8

// shownTo is up to where a digest of an epoch was given to a recovery, from an ESN on.
type shownTo struct {
	seal, epoch logs.Epoch
	from, next  uint64
}

func (s *shownTo) add(r *wire.DigestRequest, next uint32) {
	if s.seal != logs.Epoch(r.SealEpoch) || s.epoch != logs.Epoch(r.Epoch) || uint64(r.From) != s.next {
		*s = shownTo{seal: logs.Epoch(r.SealEpoch), epoch: logs.Epoch(r.Epoch), from: uint64(r.From)}
	}
	if s.next = uint64(next); next == 0 {
		s.next = uint64(r.To) + 1
	}
}

func (s *shownTo) all(r *wire.CleanRequest) bool {
	return s.seal == logs.Epoch(r.SealEpoch) && s.epoch == logs.Epoch(r.Epoch) && s.from <= uint64(r.LastKnownGood)+1 && s.next > uint64(logs.ESNMax)
}

// keep remembers how it was before a change.
func (f *fakeShard) keep() {
	if f.unfenced || f.doubtFrom > 0 {
		return
	}
	o := *f
	o.before = nil
	o.copies = map[logs.LSN][]*wire.LogRecord{}
	for lsn, vs := range f.copies {
		o.copies[lsn] = slices.Clone(vs)
	}
	o.good, o.damaged, o.recoveries = maps.Clone(f.good), maps.Clone(f.damaged), maps.Clone(f.recoveries)
	f.before = append(f.before, &o)
	if len(f.before) > keptMax {
		f.before = f.before[1:]
	}
}

// lose takes it back by n changes, which it had acknowledged; from then on it is
// in doubt.
func (f *fakeShard) lose(n int) {
	if n > 0 {
		old := f.before[len(f.before)-n]
		f.hard, f.copies, f.good, f.damaged, f.clean = old.hard, old.copies, old.good, old.damaged, old.clean
		f.recoveries, f.released = old.recoveries, old.released
	}
	f.before, f.soft, f.unfenced = nil, 0, !f.faults.noDoubt
}

func (f *fakeShard) inDoubt(from, to logs.LSN) bool {
	return f.unfenced || f.doubtFrom > 0 && max(from, f.doubtFrom, f.sure+1) <= min(to, f.doubtTo)
}

func (f *fakeShard) fence(next logs.Epoch) logs.Doubt {
	if f.unfenced {
		f.unfenced, f.sure, f.shown = false, 0, shownTo{}
		f.doubtFrom, f.doubtTo = logs.MakeLSN(f.clean+1, f.good[f.clean+1])+1, logs.MakeLSN(next, 0)-1
		if f.wide {
			f.doubtFrom = f.trim + 1
		}
		if !f.faults.noFence {
			f.hard = max(f.hard, next-min(next, 2))
		}
	}
	if f.doubtFrom == 0 {
		return logs.Doubt{Number: f.number, From: 1, Clean: f.clean}
	}
	return logs.Doubt{Number: f.number, From: max(f.doubtFrom, f.sure+1), To: f.doubtTo, Clean: f.clean}
}

func (f *fakeShard) records(r *wire.RecordsRequest) *wire.RecordsResponse {
	out := &wire.RecordsResponse{Doubt: f.inDoubt(logs.LSN(r.From), logs.LSN(r.To))}
	for _, lsn := range slices.Sorted(maps.Keys(f.copies)) {
		if lsn < logs.LSN(r.From) || lsn > logs.LSN(r.To) {
			continue
		}
		if len(out.Records) >= 3 {
			out.Next = uint64(lsn)
			break
		}
		for _, c := range f.copies[lsn] {
			if valueOf(c.Flags) == valueRecord {
				c = with(c, c.Payload)
				c.Checksum = logs.Checksum([]byte(lsn.String())) // what every payload of these worlds is
			}
			out.Records = append(out.Records, c)
		}
	}
	return out
}

func (f *fakeShard) repair(rs []*wire.LogRecord) {
	for _, r := range rs {
		lsn := logs.LSN(r.Lsn)
		if w := f.winner(lsn); w == nil || logs.Precedence(w) < logs.Precedence(r) || valueOf(w.Flags) == valueRecord && w.Payload == nil {
			f.copies[lsn] = append(f.copies[lsn], r)
		}
	}
}

// spoil has a shard come back without the end of its journal. While one is in doubt
// others may be; but of R copies one must be left, so that the last of R shards loses
// nothing that it has acknowledged.
func (w *walk) spoil() {
	f := w.view.shards[w.rng.IntN(len(w.view.shards))]
	if ids := slices.Sorted(maps.Keys(w.compares)); len(ids) > 0 && w.rng.IntN(2) == 0 {
		f = w.view.find(ids[0])
	}
	if w.setAside(f) {
		return
	}
	if !w.spoils || w.lost || f.unfenced || f.doubtFrom > 0 {
		return
	}
	n := 0
	switch {
	case w.doubts() && w.inDoubt >= w.copies:
		return
	case w.doubts():
		if w.inDoubt++; w.inDoubt < w.copies {
			n = w.rng.IntN(len(f.before) + 1)
		}
		w.n.twice++
	case len(f.before) == 0:
		return
	default:
		n, w.inDoubt = 1+w.rng.IntN(len(f.before)), 1
	}
	w.trace("%s comes back without the last %d changes", f.id, n)
	w.n.spoilt++
	f.up = true
	delete(w.purges, f.id)
	delete(w.compares, f.id)
	f.lose(n)
}

// setAside has a shard that is compared, and the only one in doubt, lose more copies
// while it runs: a partition that was damaged. Its comparison goes on.
func (w *walk) setAside(f *fakeShard) bool {
	others := slices.ContainsFunc(w.view.shards, func(o *fakeShard) bool { return o != f && o.doubting() })
	if w.lost || others || !f.up || w.compares[f.id] == nil || f.unfenced || f.number > 0 || !f.doubting() {
		return false
	}
	w.n.aside++
	f.number, f.unfenced, f.wide, f.before = f.number+1, !f.faults.noDoubt, true, nil
	for _, lsn := range slices.Sorted(maps.Keys(f.copies)) {
		if w.rng.IntN(2) == 0 {
			delete(f.copies, lsn)
			w.trace("%s loses %s with a partition", f.id, lsn)
		}
	}
	if f.unfenced && w.rng.IntN(2) == 0 { // a store came first
		f.fence(logs.Epoch(w.record.Metadata.Epoch))
		if !f.faults.anyDoubt {
			f.want = f.hard
		}
	}
	return true
}

// doubts says whether some shard is in doubt. As long as it is, another that is
// lost would be one more than R = 2 survives.
func (w *walk) doubts() bool {
	return slices.ContainsFunc(w.view.shards, (*fakeShard).doubting)
}

func (f *fakeShard) doubting() bool {
	return f.unfenced || f.doubtFrom > 0 && (f.sure < f.doubtTo || f.clean < f.doubtTo.Epoch())
}

// compareSome begins comparisons that are asked for.
func (w *walk) compareSome() {
	for _, f := range w.view.shards {
		if !f.up || w.compares[f.id] != nil || !f.unfenced && f.want == 0 {
			continue
		}
		sealed := min(f.want, f.hard)
		f.want = 0
		c := &walkCore{own: f, core: newComparison(&w.cfg, &w.rules, w.view, f.id.Node(), f.id, talkLog, sealed)}
		w.compares[f.id] = c
		w.feed(c, event{kind: evStart})
	}
}

// noteDoubt counts what a comparison does to its shard.
func (w *walk) noteDoubt(c *walkCore, k call) {
	cmp, ok := c.core.(*comparison)
	if !ok {
		return
	}
	switch k.kind {
	case callSure:
		w.n.sure++
		if cmp.weak {
			w.n.weak++
		}
	case callRepair:
		w.n.repaired++
	}
}
