package logs

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/logs/checker"
	"github.com/braiddb/braid/internal/logs/reader"
	"github.com/braiddb/braid/internal/placement"
	"github.com/braiddb/braid/internal/wire"
)

// truth is what is known of one log from outside.
type truth struct {
	c     *cluster
	id    logs.LogID
	attrs *catalog.LogAttributes

	told    map[logs.LSN][]string // payloads, as the first reader was told
	nothing []span                // LSNs that the first reader was told hold nothing, ascending
	acked   map[logs.LSN][]string // payloads that were acknowledged there
	where   map[string]logs.LSN   // of each payload that was told of
	asked   map[string]bool       // payloads that anybody tried to append
	open    map[string]bool       // those of them that an explicit producer has no answer to yet
	refused map[string]bool       // of them, those that are said never to be in the log
	begun   map[string]floor      // what was there when its append began
	highest logs.LSN              // that was acknowledged
	trim    logs.LSN              // asked for
	read    logs.LSN              // the highest that any reader was told of
	acks    int
	healed  bool // something was acknowledged since the world healed
	readers []*reading
	last    *reading // the one that reads everything in the end
	report  *checker.Checker
	// conditions are conditional appends that were taken: expected tail, LSN.
	conditions []span

	metadata []*wire.EpochMetadata  // of all its epochs, as far as they differ
	held     map[logs.LSN][]*member // who said STORED of it
	sent     map[logs.LSN][]*member // who was sent it as a record
	stream   map[logs.LSN]bool      // it was a record of a stream
	losses   []span                 // that readers were told of

	ballots map[ballot]*decisions // of recoveries
	order   []ballot              // as they came
	since   []logs.Epoch          // from which it is stored elsewhere, ascending
	written map[logs.Epoch]bool   // those of them that the metadata log tells of
	offsets map[logs.LSN]offset   // as readers were told
	end     map[logs.Epoch]bool   // epochs of which there is anything, and whether that has a bridge
	looked  logs.LSN              // up to which those were looked at
}

// floor is what an append, when it begins, has to come behind.
type floor struct {
	known logs.LSN // acknowledged to its own producer, or read by anybody
	// acked was acknowledged to anybody, and is before it if they are of one epoch. In
	// an earlier one who reigned there, and was not yet fenced off, may store it: the
	// two producers know nothing of each other.
	acked logs.LSN
}

// above says whether an LSN is where it may be, or else what it had to be behind.
func (f floor) above(lsn logs.LSN) (logs.LSN, bool) {
	switch {
	case lsn <= f.known:
		return f.known, false
	case lsn <= f.acked && lsn.Epoch() == f.acked.Epoch():
		return f.acked, false
	}
	return 0, true
}

type span struct {
	from, to logs.LSN
	why      logs.GapType
	at       time.Duration // when it was told
}

func newTruth(c *cluster, id logs.LogID, a *catalog.LogAttributes) *truth {
	return &truth{c: c, id: id, attrs: a, told: map[logs.LSN][]string{}, acked: map[logs.LSN][]string{}, where: map[string]logs.LSN{},
		asked: map[string]bool{}, open: map[string]bool{}, refused: map[string]bool{}, begun: map[string]floor{}, held: map[logs.LSN][]*member{}, sent: map[logs.LSN][]*member{}, stream: map[logs.LSN]bool{},
		ballots: map[ballot]*decisions{}, written: map[logs.Epoch]bool{}, offsets: map[logs.LSN]offset{}, end: map[logs.Epoch]bool{}}
}

// learns takes down what an epoch is stored on.
func (t *truth) learns(m *wire.EpochMetadata) {
	if n := len(t.metadata); n == 0 || !slices.Equal(t.metadata[n-1].Nodeset, m.GetNodeset()) {
		t.metadata = append(t.metadata, m)
	}
}

func (t *truth) copies() int { return placement.Copies(t.attrs.Replication) }

// begins notes that a payload's append begins, when its producer knows of an LSN.
func (t *truth) begins(payload string, known logs.LSN) {
	if !t.asked[payload] {
		t.asked[payload], t.begun[payload] = true, floor{known: max(known, t.read), acked: t.highest}
	}
}

// acknowledged is a client's success: L4 and L5 as far as they are known now.
func (t *truth) acknowledged(payload string, lsn logs.LSN) {
	w := t.c.w
	t.c.ops++
	t.acks++
	t.healed = t.healed || w.Calm()
	w.Sometimes("append: acknowledged")
	if lsn.Epoch() > 1 {
		w.Sometimes("append: a later epoch")
	}
	if low, ok := t.begun[payload].above(lsn); !ok && lsn != t.where[payload] {
		w.Fail("log %d: %q is acknowledged at %s, though %s was acknowledged before it was begun", t.id, payload, lsn, low)
	}
	if list, ok := t.told[lsn]; ok && !slices.Contains(list, payload) {
		w.Fail("log %d: %q is acknowledged at %s, where readers found %q", t.id, payload, lsn, list)
	}
	if s := t.silence(lsn); s != nil {
		w.Fail("log %d: %q is acknowledged at %s, where readers found nothing: %s from %s to %s", t.id, payload, lsn, s.why, s.from, s.to)
	}
	if seal, ok := t.plugged(lsn); ok && lsn > t.trim {
		w.Fail("log %d: %q is acknowledged at %s, and the recovery under seal %d made nothing of that", t.id, payload, lsn, seal)
	}
	if at, ok := t.where[payload]; ok && at != lsn && !t.anew(payload, at) {
		w.Fail("log %d: %q is acknowledged at %s and was read at %s", t.id, payload, lsn, at)
	}
	if !slices.Contains(t.acked[lsn], payload) {
		t.acked[lsn] = append(t.acked[lsn], payload)
	}
	t.highest = max(t.highest, lsn)
	w.Note(uint64(lsn))
}

// silence finds the gap that an LSN was told to be in.
func (t *truth) silence(lsn logs.LSN) *span {
	for i := range t.nothing {
		if s := &t.nothing[i]; s.from <= lsn && lsn <= s.to {
			return s
		}
	}
	return nil
}

// gap is what a reader was told of LSNs without records: L4.
func (t *truth) gap(r *reading, it *reader.Item) {
	w := t.c.w
	switch it.Gap {
	case logs.GapTrim:
		w.Sometimes("reader: trimmed")
		if it.To > t.trim {
			w.Fail("log %d: reader %s is told that all up to %s is trimmed, %s was asked for", t.id, r.name, it.To, t.trim)
		}
		return
	case logs.GapBridge:
		w.Sometimes("reader: bridge")
	case logs.GapHole:
		w.Sometimes("reader: hole")
	case logs.GapDataLoss:
		t.loss(r, it)
		return
	default:
		w.Fail("log %d: reader %s is told %s from %s to %s: %+v", t.id, r.name, it.Gap, it.LSN, it.To, r.core.View())
		return
	}
	if lsn, ok := t.passedOver(it.LSN, it.To); ok {
		w.Fail("log %d: reader %s is told %s from %s to %s, where %s was acknowledged as %q, and read as %q",
			t.id, r.name, it.Gap, it.LSN, it.To, lsn, t.acked[lsn], t.told[lsn])
		return
	}
	if s := t.silence(it.LSN); s == nil || s.to < it.To {
		t.nothing = append(t.nothing, span{from: it.LSN, to: it.To, why: it.Gap})
	}
}

// record is what a reader was told of an LSN: L4 and L5.
func (t *truth) record(r *reading, it *reader.Item) {
	w := t.c.w
	var list []string
	for _, p := range it.Payloads {
		list = append(list, string(name(p)))
	}
	if len(list) > 1 {
		w.Sometimes("reader: a batch")
	}
	t.counts(r, it)
	if had, ok := t.told[it.LSN]; ok {
		if !slices.Equal(had, list) {
			w.Fail("log %d: reader %s finds %q at %s, others %q", t.id, r.name, list, it.LSN, had)
		}
		return
	}
	t.told[it.LSN] = list
	if t.lostBefore(it.LSN, r.since) { // one that began earlier may have had it in hand
		w.Fail("log %d: reader %s finds %q at %s, which others were told is lost; it was stored on %s", t.id, r.name, list, it.LSN, t.holding(it.LSN))
	}
	if s := t.silence(it.LSN); s != nil {
		w.Fail("log %d: reader %s finds %q at %s, others %s from %s to %s", t.id, r.name, list, it.LSN, s.why, s.from, s.to)
	}
	for _, p := range t.acked[it.LSN] {
		if !slices.Contains(list, p) {
			w.Fail("log %d: reader %s finds %q at %s, %q was acknowledged there", t.id, r.name, list, it.LSN, p)
		}
	}
	for _, p := range list {
		t.found(p, it.LSN)
	}
}

func (t *truth) found(p string, lsn logs.LSN) {
	w := t.c.w
	low, above := t.begun[p].above(lsn)
	switch at, twice := t.where[p]; {
	case !t.asked[p]:
		w.Fail("log %d: %s holds %q, which nobody appended", t.id, lsn, p)
	case t.refused[p]:
		w.Fail("log %d: %s holds %q, of which was said that it is not in the log", t.id, lsn, p)
	case twice && !t.anew(p, at):
		w.Fail("log %d: %q is there twice, at %s and %s", t.id, p, at, lsn)
	case !above:
		w.Fail("log %d: %q is at %s, though %s was acknowledged before it was begun", t.id, p, lsn, low)
	}
	t.where[p] = lsn
}

// complete says that everything that was acknowledged was read or trimmed.
func (t *truth) complete() error {
	lsns := make([]logs.LSN, 0, len(t.acked))
	for lsn := range t.acked {
		lsns = append(lsns, lsn)
	}
	slices.Sort(lsns)
	for _, lsn := range lsns {
		if lsn <= t.trim || t.isLost(lsn) || t.last != nil && !t.last.over && lsn >= t.last.next {
			continue
		}
		if _, ok := t.told[lsn]; !ok {
			return fmt.Errorf("log %d: %q was acknowledged at %s, and nobody was told of it", t.id, t.acked[lsn], lsn)
		}
	}
	return nil
}

// name is what tells a payload from all others; the rest is padding.
func name(p []byte) []byte {
	if i := bytes.IndexByte(p, ' '); i >= 0 {
		return p[:i]
	}
	return p
}

// offset is how many payloads a log has before a record, and behind it.
type offset struct{ before, behind uint64 }

// counts takes down what a reader was told of a record's offset: L12.
func (t *truth) counts(r *reading, it *reader.Item) {
	if !it.OffsetKnown {
		return
	}
	o := offset{it.Offset, it.Offset + uint64(it.Record.Count)}
	if was, known := t.offsets[it.LSN]; known && was != o {
		t.c.w.Fail("log %d: reader %s is told that %s has the offsets %+v, others %+v", t.id, r.name, it.LSN, o, was)
	}
	t.offsets[it.LSN] = o
}

// ascend says that offsets go up with LSNs, and none is there twice.
func (t *truth) ascend() error {
	lsns := make([]logs.LSN, 0, len(t.offsets))
	for lsn := range t.offsets {
		if !t.harmed(lsn) {
			lsns = append(lsns, lsn)
		}
	}
	slices.Sort(lsns)
	for i := 1; i < len(lsns); i++ {
		if a, b := t.offsets[lsns[i-1]], t.offsets[lsns[i]]; b.before < a.behind {
			return fmt.Errorf("log %d: %s has the offsets %+v, and %s behind it %+v", t.id, lsns[i-1], a, lsns[i], b)
		}
	}
	return nil
}

// ends takes down of which epochs there is anything, and which have a bridge.
func (t *truth) ends(a *wire.RecordsResponse) {
	for _, r := range a.Records {
		e := logs.LSN(r.Lsn).Epoch()
		t.end[e] = t.end[e] || r.Flags&logs.FlagBridge != 0
	}
}

// bridged says that every epoch before the last one that was looked at, and of which
// there is anything, ends with a bridge.
func (t *truth) bridged() error {
	for e := t.trim.Epoch() + 1; e < t.looked.Epoch(); e++ {
		if bridge, any := t.end[e]; any && !bridge {
			return fmt.Errorf("log %d: epoch %d is clean, and ends without a bridge", t.id, e)
		}
	}
	return nil
}
