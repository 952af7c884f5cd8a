package logs

import (
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/braiddb/braid/internal/journal"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/logs/reader"
	"github.com/braiddb/braid/internal/logs/recovery"
	"github.com/braiddb/braid/internal/logs/sequencer"
	"github.com/braiddb/braid/internal/wire"
)

// What is true of a log of which more was lost than may be: its acknowledged records are
// read, or readers are told DATALOSS of their places, or it stands still and says why.
// And DATALOSS is told of nothing that somebody has.

// placesIn lists the copies that records of the journal hold.
func placesIn(records []journal.Record) map[place]bool {
	out := map[place]bool{}
	for _, r := range records {
		if r.Kind != journal.KindLogFirst {
			continue
		}
		for b := r.Payload[9:]; len(b) > 28; { // behind version and partition: log, LSN, precedence, header, payload
			at := place{logs.LogID(binary.LittleEndian.Uint64(b)), logs.LSN(binary.LittleEndian.Uint64(b[8:]))}
			out[at] = true
			b = b[28+binary.LittleEndian.Uint32(b[24:]):]
			n, size := binary.Uvarint(b)
			b = b[uint64(size)+n:]
		}
	}
	return out
}

// gets notes that a node was sent a copy of a record, or of a hole or a bridge: what it
// says STORED of then is not the record.
func (t *truth) gets(lsn logs.LSN, on *member, record bool) {
	if !record {
		t.sent[lsn] = slices.DeleteFunc(t.sent[lsn], func(m *member) bool { return m == on })
		return
	}
	if !slices.Contains(t.sent[lsn], on) {
		t.sent[lsn] = append(t.sent[lsn], on)
	}
}

// keeps notes that a node said STORED: of the record, if it was sent that.
func (t *truth) keeps(lsn logs.LSN, on *member) {
	if slices.Contains(t.sent[lsn], on) && !slices.Contains(t.held[lsn], on) {
		t.held[lsn] = append(t.held[lsn], on)
	}
}

// leaves notes that a recovery has come to its end without some shards: a record above what
// was known to be good that is on those that were of it (who is sent a hole was sent no
// record) is theirs alone, for the purges of the others take it away (recovery's C6). Whose
// disk had lost it with its last did so before that.
func (t *truth) leaves(e logs.Epoch, good logs.LSN, absent []uint64) {
	was := func(m *member) bool { return !slices.Contains(absent, uint64(m.shard())) }
	for lsn, held := range t.held {
		if lsn.Epoch() == e && lsn > good && slices.ContainsFunc(held, func(m *member) bool { return was(m) && slices.Contains(t.sent[lsn], m) }) {
			t.held[lsn] = slices.DeleteFunc(held, func(m *member) bool { return !was(m) && !m.hurt.tail[place{t.id, lsn}] })
		}
	}
}

// exposed says that of an LSN nobody can tell that it was acknowledged: it looks as if it
// had never been written, or, of a record of a stream, one before it in its epoch does.
// That one is decided to be a hole, and the record of a stream behind it becomes one too
// (recovery's C7), whoever has it: its acknowledgement waits for all before it (sequencer
// Q11), so that there was none, as far as anybody knows. Up to the LNG that recovery knew
// there was.
func (t *truth) exposed(lsn logs.LSN) bool {
	if t.unwritten(lsn) {
		return true
	}
	if !t.stream[lsn] {
		return false
	}
	good := t.knownGood(lsn.Epoch())
	for at := range t.held {
		if at.Epoch() == lsn.Epoch() && good < at && at < lsn && t.unwritten(at) {
			return true
		}
	}
	return false
}

// unwritten says that an LSN looks as if it had never been written: of those who
// had it one disk at least lost it with the last that it confirmed, and the others lost
// what they had.
func (t *truth) unwritten(lsn logs.LSN) bool {
	lied := false
	for _, m := range t.held[lsn] {
		tail := m.hurt.tail[place{t.id, lsn}]
		if lied = lied || tail; !tail && (m.hurt.kind == "" || m.hurt.kind == faultTails) {
			return false
		}
	}
	return lied
}

// harmed says that each disk that had an LSN has since been struck, and that it was not
// among what one that only lost its last had before that. Whether what it
// had is told to be lost is judged elsewhere; nobody can be held to know of it.
func (t *truth) harmed(lsn logs.LSN) bool {
	return t.c.struck(t) && (t.exposed(lsn) || !slices.ContainsFunc(t.held[lsn], func(m *member) bool {
		return m.hurt.kind == "" || m.hurt.kind == faultTails && !m.hurt.tail[place{t.id, lsn}]
	}))
}

// anew says that a payload that was read at an LSN may be in the log once more: who sent it
// again, without an answer, found nobody who had it. That somebody has it fails the run,
// but where a disk lost it as if it had never been written, for who heard that one, and
// others, need not have waited.
func (t *truth) anew(payload string, at logs.LSN) bool {
	if !t.harmed(at) || slices.Contains(t.acked[at], payload) {
		return false
	}
	t.c.w.Sometimes("append: begun anew behind its loss")
	if !t.exposed(at) {
		t.onShards(at, at, func(m *member, a *wire.RecordsResponse) { t.survives(m, a, payload) })
	}
	return true
}

// survives says of what a node has that it was not to be begun anew.
func (t *truth) survives(m *member, a *wire.RecordsResponse, payload string) {
	for lsn, r := range intact(a) {
		if slices.Contains(t.told[lsn], payload) {
			t.c.w.Fail("log %d: %q was begun anew, and node %d has it at %s, wave %d", t.id, payload, m.n.ID, lsn, r.Wave)
			return
		}
	}
}

// passedOver finds what was acknowledged or read, and a reader is told to be nothing;
// what can be told to have been there before what cannot.
func (t *truth) passedOver(from, to logs.LSN) (logs.LSN, bool) {
	var found []logs.LSN
	for lsn := range t.told {
		if from <= lsn && lsn <= to {
			found = append(found, lsn)
		}
	}
	for lsn := range t.acked {
		if from <= lsn && lsn <= to {
			found = append(found, lsn)
		}
	}
	if len(found) == 0 {
		return 0, false
	}
	slices.Sort(found)
	for _, lsn := range found {
		if !t.exposed(lsn) {
			t.c.w.Tracef("log %d: %s was stored on %s", t.id, lsn, t.holding(lsn))
			return lsn, true
		}
	}
	t.c.w.Expose("log %d: all that is left of %s, or of what a stream has before it, were disks that confirmed it as their last, and lost it", t.id, found[0])
	return found[0], true
}

// holding names who had an LSN, for people.
func (t *truth) holding(lsn logs.LSN) (out []string) {
	for _, m := range t.held[lsn] {
		out = append(out, fmt.Sprintf("node %d (%s, of its tail: %v)", m.n.ID, m.hurt.kind, m.hurt.tail[place{t.id, lsn}]))
	}
	return out
}

// loss is what a reader is told to be lost: L4 beyond what is promised.
func (t *truth) loss(r *reading, it *reader.Item) {
	w := t.c.w
	if !t.c.struck(t) {
		w.Fail("log %d: reader %s is told %s from %s to %s: %+v", t.id, r.name, it.Gap, it.LSN, it.To, r.core.View())
		return
	}
	w.Sometimes("beyond: a gap says that data was lost")
	if w.Tracing() {
		w.Tracef("  view: %+v health %+v", r.core.View(), r.core.Health())
	}
	t.losses = append(t.losses, span{it.LSN, it.To, it.Gap, w.Now()})
	t.searched(it.LSN, it.To, r.name)
}

// searched looks on every node that was not given up for what a reader was told is lost.
func (t *truth) searched(from, to logs.LSN, name string) {
	t.onShards(from, to, func(m *member, a *wire.RecordsResponse) { t.present(m, a, name) })
}

// onShards asks every node that was not given up what it has of a stretch.
func (t *truth) onShards(from, to logs.LSN, look func(*member, *wire.RecordsResponse)) {
	for _, m := range t.c.members {
		if m.doors == nil || m.fatal != nil || m.hurt.gone {
			continue
		}
		req := &wire.RecordsRequest{Log: uint64(t.id), From: uint64(from), To: uint64(to), Shard: uint64(m.shard()), Payloads: true}
		m.store.Records(req, func(a *wire.RecordsResponse) { look(m, a) })
	}
}

// intact are the records of an answer that can be read, where their latest version is one.
func intact(a *wire.RecordsResponse) iter.Seq2[logs.LSN, *wire.LogRecord] {
	return func(yield func(logs.LSN, *wire.LogRecord) bool) {
		for i, r := range a.Records {
			if i > 0 && a.Records[i-1].Lsn == r.Lsn || r.Flags&(logs.FlagHole|logs.FlagBridge) != 0 || logs.Checksum(r.Payload) != r.Checksum {
				continue
			}
			if !yield(logs.LSN(r.Lsn), r) {
				return
			}
		}
	}
}

// present says of what a node has that it is not lost, if it was acknowledged.
func (t *truth) present(m *member, a *wire.RecordsResponse, name string) {
	for lsn := range intact(a) {
		if len(t.acked[lsn]) > 0 && lsn > t.trim && t.isLost(lsn) {
			t.c.w.Fail("log %d: reader %s is told that %s is lost, and node %d has it: %q", t.id, name, lsn, m.n.ID, t.acked[lsn])
			return
		}
	}
}

// isLost says that a reader was told so.
func (t *truth) isLost(lsn logs.LSN) bool {
	return slices.ContainsFunc(t.losses, func(s span) bool { return s.from <= lsn && lsn <= s.to })
}

// lostBefore says that a reader was told so before a time.
func (t *truth) lostBefore(lsn logs.LSN, at time.Duration) bool {
	return slices.ContainsFunc(t.losses, func(s span) bool { return s.from <= lsn && lsn <= s.to && s.at < at })
}

// runs says that a shard's node does.
func (c *cluster) runs(s logs.ShardID) bool {
	m := c.members[s.Node()-1]
	return m.doors != nil && m.fatal == nil && !m.hurt.gone
}

// well says that a log has to go on as if nothing had happened: nothing of it can be
// lost, each of its epochs has enough nodes for what recovery stores, and where they were
// stored can be told.
func (c *cluster) well(t *truth) bool {
	if !c.beyond() {
		return true
	}
	return !c.struck(t) && !c.recoversForMetadata(t) && !slices.ContainsFunc(t.metadata, func(m *wire.EpochMetadata) bool { return !fits(m, c.runs) })
}

// metadataStruck says that so many nodes are struck that they may have the only copies of
// an entry of the log's metadata log. That lies on other nodes than the log.
func (c *cluster) metadataStruck(t *truth) bool {
	struck := 0
	for _, n := range c.members {
		if n.hurt.kind != "" {
			struck++
		}
	}
	return struck >= t.copies()
}

// recoversForMetadata says that a recovery of the log waits for such an entry, and has
// for long.
func (c *cluster) recoversForMetadata(t *truth) bool {
	return c.metadataStruck(t) && slices.ContainsFunc(c.members, func(m *member) bool {
		return m.doors != nil && t.looksForMetadata(m.recovery.Rows())
	})
}

// looksForMetadata says so of a node's recoveries.
func (t *truth) looksForMetadata(rows []recovery.Row) bool {
	return slices.ContainsFunc(rows, func(r recovery.Row) bool {
		return r.Log == t.id && r.State == "METADATA" && r.For > serveTime
	})
}

// waitsForMetadata says that a purge waits for such an entry.
func (c *cluster) waitsForMetadata(m *member, t *truth) bool {
	return c.metadataStruck(t) && slices.ContainsFunc(m.purger.Rows(), func(r recovery.PurgeRow) bool {
		return r.Log == t.id && r.State == "HISTORY" && r.Waiting > 0
	})
}

// holdsForMetadata says that a log's sequencer holds appends for such an entry, and says so.
func (c *cluster) holdsForMetadata(t *truth) bool {
	r := c.reign(t)
	return c.beyond() && c.metadataStruck(t) && r != nil && r.Held > 0 && strings.Contains(r.Trouble, "metadata log")
}

// The time that logs have beyond what is promised, to serve or to refuse.
const (
	serveTime = 12 * time.Second
	readTime  = 15 * time.Second
)

// mayRefuse says that a log is waited for no longer.
func (c *cluster) mayRefuse(t *truth, since, limit time.Duration) bool {
	return c.beyond() && !c.well(t) && c.w.Now() > since+limit
}

// readBeyond begins the last reading of a log, from its oldest record to the last that
// was acknowledged or is released.
func (c *cluster) readBeyond(t *truth, r *sequencer.Row) {
	until := t.highest
	if r != nil {
		until = max(until, r.LastReleased)
	}
	if until == 0 {
		return
	}
	for _, x := range t.readers {
		x.over = true
	}
	t.last = t.newReading("last", logs.LSNOldest, until, false)
}

// standsStill says why a log does not answer; empty: nobody says.
func (c *cluster) standsStill(t *truth) (why string) {
	if h := t.last.core.Health(); h.State != reader.Healthy {
		return fmt.Sprintf("its readers: %s, silent %v", h.State, h.Silent)
	}
	for _, m := range c.members {
		if m.doors == nil {
			continue
		}
		for _, r := range m.recovery.Rows() {
			if r.Log == t.id {
				return fmt.Sprintf("recovery: epoch %d %s, heard %s", r.Epoch, r.State, r.Digest)
			}
		}
		for _, r := range m.comparer.Rows() {
			if r.Log.DataLog() == t.id {
				return fmt.Sprintf("shard in doubt: %s, %d are waited for", r.State, r.Waiting)
			}
		}
		for _, r := range m.purger.Rows() {
			if r.Log == t.id {
				return fmt.Sprintf("a purge: %s, %d are waited for", r.State, r.Waiting)
			}
		}
	}
	return troubleOf(c.reign(t))
}

// troubleOf is why a log's sequencer does not go on; empty if it should.
func troubleOf(r *sequencer.Row) string {
	switch {
	case r == nil:
		return "no node sequences it"
	case r.Trouble != "":
		return r.Trouble
	case r.Recovering:
		return "it is being recovered"
	}
	return ""
}

// stands counts how a log stands in the end, and fails one that is silent.
func (c *cluster) stands(t *truth) error {
	if !c.beyond() || t.last == nil {
		return nil
	}
	w := c.w
	lost := 0
	for lsn := range t.acked {
		if lsn > t.trim && t.isLost(lsn) {
			lost++
		}
	}
	switch {
	case !c.struck(t) && t.last.over:
		w.Sometimes("beyond: a log that was not struck")
	case !t.last.over:
		why := c.standsStill(t)
		if why == "" {
			return fmt.Errorf("log %d: the last reading is at %s, and nobody says why: %+v, %s", t.id, t.last.next, t.last.core.View(), c.describe(t))
		}
		w.Tracef("log %d refuses: %s", t.id, why)
		w.Sometimes("beyond: a log refuses, and says why")
	case lost > 0:
		w.Sometimes("beyond: a log serves, and tells what it lost")
	default:
		w.Sometimes("beyond: a log serves all that was acknowledged")
	}
	if lost > 0 {
		w.Sometimes("beyond: seeds and logs with acknowledged records told as lost")
	}
	return nil
}
