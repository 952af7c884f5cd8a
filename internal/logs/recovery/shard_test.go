package recovery

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/placement"
	"github.com/braiddb/braid/internal/wire"
)

// fakeShard is what a storage shard promises, and nothing else: seals and marks
// that stand, copies by precedence.
type fakeShard struct {
	id        logs.ShardID
	up        bool
	unnoticed bool // down, and believed alive
	gone      bool // with all it had

	hard, soft logs.Epoch
	copies     map[logs.LSN][]*wire.LogRecord // versions, any order
	good       map[logs.Epoch]logs.ESN
	damaged    map[logs.LSN]bool
	doubt      bool
	torn       map[logs.Epoch]bool // some of it cannot be read, and nobody can tell how much
	trim       logs.LSN
	clean      logs.Epoch
	deciding   logs.Epoch // what was chosen before a purge of it began is not taken
	recoveries map[logs.Epoch]*wire.EpochRecovery
	released   logs.LSN
	metadata   []*wire.EpochMetadata

	// A tail that was lost; see lose.
	before                   []*fakeShard // as it was before each of its last changes
	unfenced                 bool
	number                   uint64 // of its newest doubt
	wide                     bool   // more than the end of its journal may be lost
	doubtFrom, doubtTo, sure logs.LSN
	want                     logs.Epoch // a comparison up to it was asked for; 0: none
	shown                    shownTo    // since the doubt that stands

	faults faults
}

func newFakeShard(id logs.ShardID) *fakeShard {
	return &fakeShard{id: id, up: true, copies: map[logs.LSN][]*wire.LogRecord{}, good: map[logs.Epoch]logs.ESN{},
		damaged: map[logs.LSN]bool{}, torn: map[logs.Epoch]bool{}, recoveries: map[logs.Epoch]*wire.EpochRecovery{}}
}

// answer does what a call asks for.
func (f *fakeShard) answer(c call) event {
	ev := event{kind: evAnswer, of: bare(c)}
	switch c.kind {
	case callMetadata:
		ev.metadata = &wire.ReadMetadataResponse{Metadata: f.metadata}
	case callSeal:
		ev.seal = f.seal(c.seal)
	case callDigest:
		ev.digest = f.digest(c.digest)
	case callStore:
		ev.stored = f.store(c.store)
	case callClean:
		ev.clean = f.cleanUp(c.clean)
	case callDecisions:
		ev.decisions = f.decisions(c.decisions)
	case callRecords:
		ev.records = f.records(c.records)
	case callFence:
		if f.unfenced && f.number != c.since {
			ev.err = errDown
		} else {
			ev.doubt = f.fence(c.epoch)
		}
	case callRepair:
		if max(f.clean, f.deciding) > c.epoch {
			ev.err = errDown
		} else {
			f.repair(c.repair)
		}
	case callSure:
		if max(f.clean, f.deciding) > c.found.Clean || f.number != c.found.Doubt && !f.faults.anyDoubt {
			ev.err = errDown
		} else {
			f.sure = max(f.sure, c.found.UpTo)
		}
	case callDelete:
		f.deciding = max(f.deciding, c.to.Epoch())
		maps.DeleteFunc(f.copies, func(l logs.LSN, _ []*wire.LogRecord) bool { return l >= c.from && l <= c.to })
	case callMark:
		if c.epoch > f.clean && f.doubtFrom > 0 && c.epoch >= f.doubtFrom.Epoch() && c.epoch <= f.doubtTo.Epoch() {
			f.sure, f.want = min(f.sure, logs.MakeLSN(c.epoch, 0)-1), f.hard // what is purged is compared again
		}
		f.clean = max(f.clean, c.epoch)
		if c.mark.SealEpoch > 0 {
			f.recoveries[c.epoch] = c.mark
		}
	}
	return ev
}

// bare is a call without its message.
func bare(c call) call {
	return call{kind: c.kind, shard: c.shard, epoch: c.epoch, esn: c.esn, plan: c.plan, expect: c.expect}
}

func (f *fakeShard) seal(r *wire.SealRequest) *wire.SealResponse {
	e := logs.Epoch(r.Epoch)
	if e < f.hard || e < f.soft {
		return &wire.SealResponse{Status: statusPreempted, SealEpoch: uint32(max(f.hard, f.soft)), SealedBy: 99}
	}
	f.keep()
	f.hard = e
	out := &wire.SealResponse{SealEpoch: r.Epoch, TrimPoint: uint64(f.trim), LastCleanEpoch: uint32(f.clean)}
	if f.doubt || f.inDoubt(logs.MakeLSN(logs.Epoch(r.LastCleanEpoch)+1, 0), logs.MakeLSN(e, logs.ESNMax)) {
		out.Status, f.want = statusPartial, max(f.want, e)
	}
	for n := logs.Epoch(r.LastCleanEpoch) + 1; n <= e; n++ {
		t := &wire.EpochTail{Epoch: uint32(n), LastKnownGood: uint32(f.good[n])}
		for lsn := range f.copies {
			if lsn.Epoch() == n {
				t.MaxSeen = max(t.MaxSeen, uint32(lsn.ESN()))
			}
		}
		for g := f.good[n]; g > 0 && t.Tail == nil; g-- {
			if w := f.winner(logs.MakeLSN(n, g)); w != nil && valueOf(w.Flags) == valueRecord {
				t.Tail = &wire.TailRecord{Log: w.Log, Lsn: w.Lsn, TimestampMs: w.TimestampMs, Count: w.CountBefore + uint64(w.Count)}
			}
		}
		if t.LastKnownGood > 0 || t.MaxSeen > 0 {
			out.Epochs = append(out.Epochs, t)
		}
	}
	return out
}

func (f *fakeShard) digest(r *wire.DigestRequest) *wire.DigestResponse {
	e := logs.Epoch(r.SealEpoch)
	if !f.faults.anyDigest && (e < f.hard || e < f.soft) {
		return &wire.DigestResponse{Status: statusPreempted, SealEpoch: uint32(max(f.hard, f.soft))}
	}
	if !f.faults.anyDigest && e > f.hard {
		return &wire.DigestResponse{Status: statusFailed}
	}
	out := &wire.DigestResponse{SealEpoch: r.SealEpoch}
	if f.torn[logs.Epoch(r.Epoch)] {
		out.Status = statusPartial
	}
	from, to := logs.MakeLSN(logs.Epoch(r.Epoch), logs.ESN(r.From)), logs.MakeLSN(logs.Epoch(r.Epoch), logs.ESN(r.To))
	if f.inDoubt(from, to) {
		f.want = max(f.want, f.hard)
		return &wire.DigestResponse{Status: statusAgain}
	}
	for _, lsn := range slices.Sorted(maps.Keys(f.copies)) {
		if lsn < from || lsn > to || lsn <= f.trim {
			continue
		}
		if f.damaged[lsn] {
			out.Damaged = append(out.Damaged, uint32(lsn.ESN()))
			continue
		}
		if r.BytesMax < 1000 && len(out.Records) >= int(r.BytesMax) {
			out.Next = uint32(lsn.ESN())
			break
		}
		out.Records = append(out.Records, f.winner(lsn))
	}
	f.shown.add(r, out.Next)
	return out
}

// winner is the copy that counts, with the payload of any version.
func (f *fakeShard) winner(lsn logs.LSN) *wire.LogRecord {
	vs := f.copies[lsn]
	if len(vs) == 0 {
		return nil
	}
	w := slices.MaxFunc(vs, func(a, b *wire.LogRecord) int { return cmp.Compare(logs.Precedence(a), logs.Precedence(b)) })
	if valueOf(w.Flags) != valueRecord || w.Payload != nil {
		return w
	}
	for _, v := range vs {
		if v.Payload != nil {
			flags := w.Flags | v.Flags
			w = with(w, v.Payload)
			w.Flags = flags
		}
	}
	return w
}

func with(r *wire.LogRecord, payload []byte) *wire.LogRecord {
	return &wire.LogRecord{Log: r.Log, Lsn: r.Lsn, TimestampMs: r.TimestampMs, LastKnownGood: r.LastKnownGood, Wave: r.Wave,
		Flags: r.Flags, Copyset: r.Copyset, CountBefore: r.CountBefore, Count: r.Count, Payload: payload}
}

func (f *fakeShard) store(s *wire.Store) *wire.Stored {
	lsn := logs.LSN(s.Record.Lsn)
	out := &wire.Stored{Lsn: s.Record.Lsn, Wave: s.Record.Wave}
	stand := max(f.hard, f.soft)
	if s.SealEpoch == 0 && lsn.Epoch() <= max(stand, f.clean) || s.SealEpoch > 0 && logs.Epoch(s.SealEpoch) < stand {
		out.Status, out.SealEpoch, out.SealedBy = statusPreempted, uint32(stand), 99
		return out
	}
	if s.Amend && !slices.ContainsFunc(f.copies[lsn], func(r *wire.LogRecord) bool { return r.Payload != nil }) {
		out.Status = statusFailed
		return out
	}
	if f.unfenced && !f.faults.noFence {
		out.Status = wire.LogStatus_LOG_STATUS_DROPPED
		return out
	}
	f.keep()
	if s.SealEpoch == 0 {
		f.soft = max(f.soft, lsn.Epoch()-1)
	}
	f.good[lsn.Epoch()] = max(f.good[lsn.Epoch()], logs.ESN(s.Record.LastKnownGood))
	f.copies[lsn] = slices.DeleteFunc(f.copies[lsn], func(r *wire.LogRecord) bool {
		if r.Payload != nil && s.Amend {
			return false
		}
		return logs.Precedence(r) == logs.Precedence(s.Record)
	})
	if s.Amend && slices.ContainsFunc(f.copies[lsn], func(r *wire.LogRecord) bool {
		return r.Payload != nil && logs.Precedence(r) == logs.Precedence(s.Record)
	}) {
		return out // it is kept, and a whole copy of equal precedence comes before it
	}
	f.copies[lsn] = append(f.copies[lsn], s.Record)
	delete(f.damaged, lsn)
	return out
}

func (f *fakeShard) cleanUp(r *wire.CleanRequest) *wire.CleanResponse {
	if logs.Epoch(r.SealEpoch) < max(f.hard, f.soft) {
		return &wire.CleanResponse{Status: statusPreempted, SealEpoch: uint32(max(f.hard, f.soft))}
	}
	e := logs.Epoch(r.Epoch)
	again := f.doubtFrom > 0 && e >= f.doubtFrom.Epoch() && e <= f.doubtTo.Epoch() && !f.shown.all(r)
	if f.unfenced || again {
		return &wire.CleanResponse{Status: statusAgain}
	}
	f.keep()
	f.recoveries[e] = &wire.EpochRecovery{Epoch: r.Epoch, SealEpoch: r.SealEpoch, LastKnownGood: r.LastKnownGood, Last: r.Last,
		Tail: r.Tail, CountBase: r.CountBase, Count: r.Count, Absent: r.Absent}
	for f.recoveries[f.clean+1] != nil {
		f.clean++
	}
	return &wire.CleanResponse{}
}

func (f *fakeShard) decisions(r *wire.EpochRecoveryRequest) *wire.EpochRecoveryResponse {
	out := &wire.EpochRecoveryResponse{LastCleanEpoch: uint32(f.clean)}
	for e := logs.Epoch(r.From); e <= logs.Epoch(r.To); e++ {
		if k := f.recoveries[e]; k != nil {
			out.Epochs = append(out.Epochs, k)
		}
		if f.inDoubt(logs.MakeLSN(e, 0), logs.MakeLSN(e, logs.ESNMax)) {
			out.Status = statusPartial // a CLEAN may be what was lost
		} else if f.recoveries[e] == nil && !slices.ContainsFunc(slices.Collect(maps.Keys(f.copies)), func(l logs.LSN) bool { return l.Epoch() == e }) {
			out.Empty = append(out.Empty, uint32(e))
		}
	}
	return out
}

// dump prints what is here of an epoch.
func (f *fakeShard) dump() string {
	out := fmt.Sprintf("%s seal=%d clean=%d", f.id, f.hard, f.clean)
	for _, lsn := range slices.Sorted(maps.Keys(f.copies)) {
		w := f.winner(lsn)
		out += fmt.Sprintf(" %s=%s", lsn, say(w))
	}
	return out
}

// say prints a copy: what it is, its precedence, and its copyset.
func say(r *wire.LogRecord) string {
	out := [...]string{"?", "record", "hole", "bridge"}[valueOf(r.Flags)]
	if len(r.Payload) > 0 {
		out += fmt.Sprintf("(%s)", r.Payload)
	}
	if r.Flags&logs.FlagStream != 0 {
		out += "+stream"
	}
	if r.Flags&logs.FlagKept != 0 {
		out += "+kept"
	}
	if r.Flags&logs.FlagWrittenByRecovery != 0 {
		out += fmt.Sprintf("/seal%d", r.Wave)
	} else {
		out += fmt.Sprintf("/wave%d", r.Wave)
	}
	if len(r.Copyset) > 0 {
		out += "@"
		for _, c := range r.Copyset {
			out += fmt.Sprintf("%d", logs.ShardID(c).Node())
		}
	}
	return out
}

// fakeView sees shards as they are.
type fakeView struct {
	shards   []*fakeShard
	readOnly map[logs.ShardID]bool
	empty    map[logs.ShardID]bool
}

func (v *fakeView) find(id logs.ShardID) *fakeShard {
	for _, f := range v.shards {
		if f.id == id {
			return f
		}
	}
	return nil
}

func (v *fakeView) Alive(id logs.ShardID) bool {
	f := v.find(id)
	return f != nil && (f.up || f.unnoticed)
}
func (v *fakeView) Writable(id logs.ShardID) bool { return !v.readOnly[id] }

func (v *fakeView) Authority(id logs.ShardID) placement.ShardState {
	switch f := v.find(id); {
	case v.empty[id]:
		return placement.ShardEmpty
	case f == nil || f.gone:
		return placement.ShardUnavailable
	}
	return placement.ShardUnheard
}

func (v *fakeView) Shards() (out []logs.ShardID) {
	for _, f := range v.shards {
		if !f.gone {
			out = append(out, f.id)
		}
	}
	return out
}
