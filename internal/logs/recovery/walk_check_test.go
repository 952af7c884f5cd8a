package recovery

import (
	"slices"

	"github.com/braiddb/braid/internal/logs"
)

// What must hold in every world.

// decided compares what a recovery has decided, and stored, with what others have
// before it, and with what was acknowledged.
func (w *walk) decided(l *logRecovery, x *epochRecovery) {
	d := &walkDecision{good: x.good, records: map[logs.ESN]string{}, by: l.args.Own, tail: x.tail().Count}
	for i := range x.slots {
		s := &x.slots[i]
		switch s.value {
		case valueRecord:
			d.records[s.esn] = string(s.record.Payload)
		case valueBridge:
			d.bridge = s.esn
		}
	}
	w.checkStreams(x)
	before := w.decisions[x.epoch]
	if before == nil || before.by != d.by {
		w.count(x)
	}
	if before != nil {
		w.compare(x.epoch, before, d)
		if before.by != d.by {
			w.n.again++
		}
		d.good = min(d.good, before.good)
		for n, v := range before.records {
			d.records[n] = v
		}
	} else {
		w.trace("recovery of %d decides on epoch %d: %v up to %d, LNG %d", d.by, x.epoch, d.records, d.bridge, d.good)
	}
	w.decisions[x.epoch] = d
	for lsn := range w.acked {
		w.checkAcked(lsn)
	}
}

func (w *walk) count(x *epochRecovery) {
	w.n.restarts += x.restarts
	for i := range x.slots {
		switch x.slots[i].value {
		case valueRecord:
			w.n.records++
		case valueHole:
			w.n.holes++
			if r := x.slots[i].record; r != nil && r.Flags&logs.FlagStream != 0 {
				w.n.orphans++
			}
		}
	}
}

// checkStreams: no record of a stream is decided to stand behind a hole, or one that
// is not decided (C7).
func (w *walk) checkStreams(x *epochRecovery) {
	next := x.good + 1
	for i := range x.slots {
		switch s := &x.slots[i]; {
		case s.value != valueRecord:
		case s.esn == next:
			next++
		case s.record.Flags&logs.FlagStream != 0 && !s.kept:
			w.fail("%s is of a stream, and %s before it is a hole", logs.MakeLSN(x.epoch, s.esn), logs.MakeLSN(x.epoch, next))
		}
	}
}

// compare: two recoveries of an epoch decide the same. What was known to be good
// to one may be found as records by the other.
func (w *walk) compare(e logs.Epoch, a, b *walkDecision) {
	if a.bridge != b.bridge {
		w.fail("epoch %d ends at %d by recovery of %d, at %d by that of %d", e, a.bridge, a.by, b.bridge, b.by)
	}
	if a.tail != b.tail {
		w.fail("epoch %d ends with %d payloads by recovery of %d, %d by that of %d", e, a.tail, a.by, b.tail, b.by)
	}
	for n := max(a.good, b.good) + 1; n <= a.bridge; n++ {
		if a.records[n] != b.records[n] {
			w.fail("%s is %q by recovery of %d, %q by that of %d", logs.MakeLSN(e, n), a.records[n], a.by, b.records[n], b.by)
		}
	}
	for n := min(a.good, b.good) + 1; n <= max(a.good, b.good); n++ {
		if a.good >= n && b.records[n] == "" || b.good >= n && a.records[n] == "" {
			w.fail("%s was known to be good, and is a hole", logs.MakeLSN(e, n))
		}
	}
}

// checkAcked: what was acknowledged is never decided to be anything else.
func (w *walk) checkAcked(lsn logs.LSN) {
	if d := w.decisions[lsn.Epoch()]; d != nil && lsn.ESN() > d.good && d.records[lsn.ESN()] != w.acked[lsn] {
		w.fail("%s was acknowledged, and recovery of %d decided %q", lsn, d.by, d.records[lsn.ESN()])
	}
}

// checkShard: what a shard would serve to a reader is what was decided.
func (w *walk) checkShard(f *fakeShard) {
	for lsn := range f.copies {
		d := w.decisions[lsn.Epoch()]
		if lsn > f.released || d == nil || !w.finals[lsn.Epoch()] || lsn.ESN() <= d.good {
			continue
		}
		r := f.winner(lsn)
		if got := valueOf(r.Flags); got == valueRecord && d.records[lsn.ESN()] != string(r.Payload) ||
			got != valueRecord && d.records[lsn.ESN()] != "" {
			w.fail("%s serves %s as %s, released up to %s; decided was %q", f.id, lsn, say(r), f.released, d.records[lsn.ESN()])
		}
	}
}

// checkEnd: in calm, every record that was decided or acknowledged is on R shards
// (less those that were lost), and the epochs end in bridges.
func (w *walk) checkEnd() {
	clean := logs.Epoch(w.record.LastCleanEpoch)
	want := map[logs.LSN]string{}
	for lsn, p := range w.acked {
		want[lsn] = p
	}
	for e, d := range w.decisions {
		for n, p := range d.records {
			want[logs.MakeLSN(e, n)] = p
		}
		if e <= clean && d.bridge == 0 {
			w.fail("epoch %d has no bridge", e)
		}
	}
	for lsn, p := range want {
		holders := 0
		for _, f := range w.view.shards {
			if f.gone || f.torn[lsn.Epoch()] {
				holders++ // may have been
			} else if r := f.winner(lsn); r != nil && string(r.Payload) == p && slices.Contains(r.Copyset, uint64(f.id)) {
				holders++
			}
		}
		if holders < w.copies {
			for _, f := range w.view.shards {
				w.trace("%s", f.dump())
			}
			w.fail("%s is on %d shards, of %d", lsn, holders, w.copies)
		}
	}
	for e := logs.Epoch(1); e <= clean; e++ {
		if w.decisions[e] == nil {
			w.fail("epoch %d is clean, but nobody decided", e)
		}
	}
	for _, f := range w.view.shards {
		w.checkShard(f)
		if !f.gone && f.clean < clean && !w.faults.noPurge {
			w.fail("%s has made epochs clean up to %d of %d", f.id, f.clean, clean)
		}
	}
}
