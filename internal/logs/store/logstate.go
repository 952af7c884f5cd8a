package store

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// seal is a fence: no record of an epoch up to it is taken.
type seal struct {
	epoch logs.Epoch
	by    catalog.NodeID
}

func (s *seal) raise(t seal) bool {
	if t.epoch > s.epoch {
		*s = t
		return true
	}
	return false
}

// plan is one of those by which a recovery stores what it decided, one epoch after another.
type plan struct {
	seal, epoch logs.Epoch
	number      uint32
}

// shown is what a recovery was shown last of an epoch that was in doubt, since it is no
// more (P15). It does not outlive the process: then it is shown again.
type shown struct {
	seal, epoch logs.Epoch
	from, next  uint64 // ESNs from one up to before the other
}

// add takes a page of a digest in; next is where the following begins, 0: it was the last.
func (d *shown) add(req *wire.DigestRequest, next uint32) {
	n := shown{seal: logs.Epoch(req.SealEpoch), epoch: logs.Epoch(req.Epoch), from: uint64(req.From), next: uint64(next)}
	if next == 0 {
		n.next = uint64(req.To) + 1
	}
	if n.seal == d.seal && n.epoch == d.epoch && n.from >= d.from && n.from <= d.next {
		n.from, n.next = d.from, max(n.next, d.next)
	}
	*d = n
}

// all says whether that was everything that a recovery has made clean.
func (d *shown) all(r *wire.CleanRequest) bool {
	return d.seal == logs.Epoch(r.SealEpoch) && d.epoch == logs.Epoch(r.Epoch) && d.from <= uint64(r.LastKnownGood)+1 && d.next > uint64(logs.ESNMax)
}

// epochTail is what stores have shown of an epoch that is not clean.
type epochTail struct {
	epoch     logs.Epoch
	good      logs.ESN // last known good: the highest that a copy or a release told
	max       logs.ESN // the highest that is here
	timestamp int64    // the latest
	// tail is the last record up to the LNG that the recovery decided on that made the
	// epoch clean here, counts within the epoch: it may have been trimmed, or lost, since.
	tail *wire.TailRecord
}

// epochBase says how many payloads the log had before an epoch.
type epochBase struct {
	epoch logs.Epoch
	count uint64
}

// logMarks is what a shard holds to be true of a log, over restarts.
type logMarks struct {
	released  logs.LSN
	trim      logs.LSN
	trimMs    int64      // of the last record that was trimmed, about
	hard      seal       // by SEAL; only ever grows
	soft      seal       // implied by a store of a later epoch
	lce       logs.Epoch // every epoch up to it is clean here
	last      logs.LSN   // the highest that was ever here
	doubtFrom logs.LSN   // LSNs in [doubtFrom, doubtTo] may have been lost by this shard
	doubtTo   logs.LSN
	sure      logs.LSN // those up to it were not, or are back
	lostFrom  logs.LSN // of LSNs in [lostFrom, lostTo] copies are lost for good, no matter which; nobody could tell. 0: none
	lostTo    logs.LSN
	fenced    uint64 // the doubt (its number) for which doubtTo and hard stand
	wide      uint64 // the newest for which more of this log than the journal's tail may be lost, 0: none; doubt.wide is of all
	removedMs int64  // since when the log is not configured, 0: it is
	bases     []epochBase
	decided   []logs.Epoch // clean, above lce: an epoch between is not
}

// logState is one log in memory.
type logState struct {
	id logs.LogID
	logMarks

	// pending waits for a purge.
	pending logs.LSN
	asked   bool // Purge was called, at askedAt
	askedAt time.Duration

	// tails is what was seen of epochs above lce since the store was opened, and
	// all that there is of them if tailsKnown.
	tails      []epochTail
	tailsKnown bool

	// cached has every copy at or above coverFrom, ascending by LSN, winners
	// first. Invariant: what is in it is durable.
	cached    []*entry
	coverFrom logs.LSN

	fencing bool // NextEpoch is under way
	plan    plan // the newest of which recovery stored anything in this life
	shown   shown

	// deciding is up to where marks are on their way to the journal, or there, that
	// say what recovery decided, or delete what it did not. Invariant: it grows under
	// Store.order as they are written; Repair goes by it.
	deciding logs.Epoch

	waiting []*readStream // those that wait for something to deliver
}

// marksVersion 1 had neither doubtFrom nor sure, 2 neither lostFrom nor lostTo, 3 no wide.
const marksVersion = 4

func (m *logMarks) encode(dst []byte) []byte {
	dst = append(dst, marksVersion)
	for _, v := range [...]uint64{uint64(m.released), uint64(m.trim), uint64(m.trimMs), uint64(m.hard.epoch), uint64(m.hard.by),
		uint64(m.soft.epoch), uint64(m.soft.by), uint64(m.lce), uint64(m.last), uint64(m.doubtTo), m.fenced, uint64(m.removedMs),
		uint64(m.doubtFrom), uint64(m.sure), uint64(m.lostFrom), uint64(m.lostTo), m.wide, uint64(len(m.decided)), uint64(len(m.bases))} {
		dst = binary.AppendUvarint(dst, v)
	}
	for _, e := range m.decided {
		dst = binary.AppendUvarint(dst, uint64(e))
	}
	for _, b := range m.bases {
		dst = binary.AppendUvarint(dst, uint64(b.epoch))
		dst = binary.AppendUvarint(dst, b.count)
	}
	return dst
}

func decodeLogMarks(b []byte) (m logMarks, err error) {
	d := decoder{b: b}
	v := d.byte()
	if v < 1 || v > marksVersion {
		return m, fmt.Errorf("%w: marks of a log have version %d, not %d", ErrCorrupt, v, marksVersion)
	}
	m.released, m.trim, m.trimMs = logs.LSN(d.uvarint()), logs.LSN(d.uvarint()), int64(d.uvarint())
	m.hard = seal{logs.Epoch(d.uint32()), catalog.NodeID(d.uvarint())}
	m.soft = seal{logs.Epoch(d.uint32()), catalog.NodeID(d.uvarint())}
	m.lce, m.last, m.doubtTo = logs.Epoch(d.uint32()), logs.LSN(d.uvarint()), logs.LSN(d.uvarint())
	m.fenced, m.removedMs = d.uvarint(), int64(d.uvarint())
	if v > 1 {
		m.doubtFrom, m.sure = logs.LSN(d.uvarint()), logs.LSN(d.uvarint())
	}
	if v > 2 {
		m.lostFrom, m.lostTo = logs.LSN(d.uvarint()), logs.LSN(d.uvarint())
	}
	if v > 3 {
		m.wide = d.uvarint()
	}
	decided := d.count(1)
	bases := d.uvarint()
	if decided > 0 {
		m.decided = make([]logs.Epoch, decided)
		for i := range m.decided {
			m.decided[i] = logs.Epoch(d.uint32())
		}
	}
	if bases > uint64(len(d.b))/2 {
		d.bad, bases = true, 0
	}
	m.bases = make([]epochBase, bases)
	for i := range m.bases {
		m.bases[i] = epochBase{logs.Epoch(d.uint32()), d.uvarint()}
	}
	if d.bad || len(d.b) > 0 {
		return logMarks{}, fmt.Errorf("%w: marks of a log do not decode", ErrCorrupt)
	}
	return m, nil
}

// setBase notes an epoch's base and says whether it was news.
func (m *logMarks) setBase(e logs.Epoch, count uint64) bool {
	at, found := slices.BinarySearchFunc(m.bases, e, func(b epochBase, e logs.Epoch) int { return cmp.Compare(b.epoch, e) })
	if found {
		return false // what was decided once does not change
	}
	m.bases = slices.Insert(m.bases, at, epochBase{e, count})
	return true
}

func (m *logMarks) base(e logs.Epoch) (uint64, bool) {
	at, found := slices.BinarySearchFunc(m.bases, e, func(b epochBase, e logs.Epoch) int { return cmp.Compare(b.epoch, e) })
	if !found {
		return 0, e == logs.EpochMin // nothing is before the first epoch
	}
	return m.bases[at].count, true
}

// tail finds what is known of an unclean epoch, making room for it.
func (l *logState) tail(e logs.Epoch) *epochTail {
	at, found := slices.BinarySearchFunc(l.tails, e, func(t epochTail, e logs.Epoch) int { return cmp.Compare(t.epoch, e) })
	if !found {
		l.tails = slices.Insert(l.tails, at, epochTail{epoch: e})
	}
	return &l.tails[at]
}

// noteCopy takes a copy that is durable into what is known of the log.
func (l *logState) noteCopy(e *entry) {
	l.last = max(l.last, e.lsn)
	if l.id.IsMetadata() || e.lsn.Epoch() <= l.lce {
		return
	}
	t := l.tail(e.lsn.Epoch())
	t.good = max(t.good, e.esnGood)
	t.max = max(t.max, e.lsn.ESN())
	t.timestamp = max(t.timestamp, e.timestamp)
}

// cleanTo forgets the tails of epochs that are clean now.
func (l *logState) cleanTo(lce logs.Epoch) bool {
	if lce <= l.lce {
		return false
	}
	l.lce = lce
	l.tails = slices.DeleteFunc(l.tails, func(t epochTail) bool { return t.epoch <= lce })
	return true
}

// fence is the highest epoch of which no ordinary store is taken. A clean epoch
// is one: what recovery has closed stays closed though its seal was not heard.
func (l *logState) fence() seal {
	if l.lce > l.hard.epoch {
		return seal{l.lce, l.hard.by}
	}
	return l.hard
}

// deliverable is up to where readers are served.
func (l *logState) deliverable() logs.LSN {
	if l.id.IsMetadata() {
		return l.last
	}
	return l.released
}

func (m *logMarks) hasDecided(e logs.Epoch) bool { return slices.Contains(m.decided, e) }

// dropDecided forgets what lce says as well.
func (m *logMarks) dropDecided() {
	m.decided = slices.DeleteFunc(m.decided, func(e logs.Epoch) bool { return e <= m.lce })
}

// forgetBases forgets bases of epochs that are trimmed away whole.
func (m *logMarks) forgetBases() {
	m.bases = slices.DeleteFunc(m.bases, func(b epochBase) bool { return b.epoch < m.trim.Epoch() })
}
