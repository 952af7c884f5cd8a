package sequencer

import (
	"container/heap"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/placement"
	"github.com/braiddb/braid/internal/wire"
)

// world is a cluster in memory: on each node a sequencer core and a shard, an
// epoch store, and a recovery that decides in one stroke. Everything that happens
// is an event at a time; all chance comes from one seed.
type world struct {
	t     testing.TB
	rng   *rand.Rand
	now   time.Duration
	seq   int
	queue happenings
	nodes map[catalog.NodeID]*node
	order []catalog.NodeID
	store *memoryStore
	attrs *catalog.LogAttributes
	cfg   Config
	ver   uint64

	delay func() time.Duration // of a message
	lose  func() bool
	trace func(format string, args ...any)

	truth   map[logs.LogID]map[logs.LSN]*wire.LogRecord // what recovery decided
	crowned map[string]catalog.NodeID                   // log and epoch: who reigned
	lastESN map[logs.LogID]map[logs.Epoch]logs.ESN      // the last one stored first
	first   map[string]logs.LSN                         // by payload: the lowest LSN it was ever given
	windows map[string]int
	inOrder map[logs.LSN]bool // acknowledged to clients that asked for order
	broken  []string
	holdRec bool // recoveries wait
	pending []func()
}

type happening struct {
	at  time.Duration
	seq int
	do  func()
}

type happenings []happening

func (h happenings) Len() int { return len(h) }
func (h happenings) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].seq < h[j].seq
}
func (h happenings) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *happenings) Push(x any)   { *h = append(*h, x.(happening)) }
func (h *happenings) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}

// node is one process with its disk.
type node struct {
	w       *world
	id      catalog.NodeID
	inc     uint64
	alive   bool
	cut     bool // nothing it sends or is sent arrives
	deaf    bool // to releases
	core    *core
	metrics *Metrics
	share   *share
	view    *logs.Cluster
	alarm   time.Duration
	disk    map[logs.LogID]*shardLog
	refuse  func(*wire.Store) wire.LogStatus
	fatal   error
}

// shardLog is what a shard keeps of a log.
type shardLog struct {
	hard, soft     logs.Epoch
	hardBy, softBy catalog.NodeID
	copies         map[logs.LSN][]*wire.LogRecord // every version
	released, trim logs.LSN
	lng            map[logs.Epoch]logs.ESN
}

var defaultAttributes = &catalog.LogAttributes{
	Replication: &catalog.Replication{Node: 2}, NodesetSize: proto.Uint32(0), MaxWritesInFlight: proto.Uint32(1000), MaxPayloadBytes: proto.Uint32(1 << 20),
	StickyCopysets: proto.Bool(false), SequencerBatching: proto.Bool(false), SequencerBatchingTimeMs: proto.Uint32(10),
	SequencerBatchingBytes: proto.Uint32(1 << 16), SequencerBatchingPassthroughBytes: proto.Uint32(1 << 15),
}

func newWorld(t testing.TB, seed uint64, nodes int, cfg Config) *world {
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 7)), nodes: make(map[catalog.NodeID]*node), attrs: defaultAttributes,
		cfg: cfg.withDefaults(), truth: make(map[logs.LogID]map[logs.LSN]*wire.LogRecord), crowned: make(map[string]catalog.NodeID),
		lastESN: make(map[logs.LogID]map[logs.Epoch]logs.ESN), windows: make(map[string]int), inOrder: make(map[logs.LSN]bool), first: make(map[string]logs.LSN), trace: func(string, ...any) {}}
	w.store = &memoryStore{records: make(map[logs.LogID]*wire.EpochRecord)}
	w.delay = func() time.Duration { return time.Millisecond }
	w.lose = func() bool { return false }
	for i := range nodes {
		n := &node{w: w, id: catalog.NodeID(i + 1), inc: 1, disk: make(map[logs.LogID]*shardLog)}
		w.nodes[n.id] = n
		w.order = append(w.order, n.id)
		n.alive = true
	}
	for _, id := range w.order {
		w.nodes[id].begin()
	}
	return w
}

// look makes the view that the cluster has now.
func (w *world) look(self catalog.NodeID) *logs.Cluster {
	w.ver++
	c := &logs.Cluster{Version: w.ver, Self: self}
	for _, id := range w.order {
		n := w.nodes[id]
		c.Nodes = append(c.Nodes, logs.ClusterNode{ID: id, Incarnation: n.inc, Alive: n.alive && !n.cut, Sequencer: true, SequencerWeight: 1,
			Storage: true, Writable: true, StorageWeight: 1})
	}
	return c
}

func (n *node) boot() {
	n.inc++
	n.begin()
}

func (n *node) begin() {
	n.alive, n.alarm = true, 0
	n.view = n.w.look(n.id)
	n.metrics, n.share = &Metrics{}, &share{}
	d := &Deps{Self: n.id, Incarnation: n.inc, Cluster: func() *logs.Cluster { return n.view },
		Attributes: func(logs.LogID) (*catalog.LogAttributes, bool) { return n.w.attrs, n.w.attrs != nil }}
	n.core = newCore(&n.w.cfg, d, n.metrics, n.share, rand.New(rand.NewPCG(uint64(n.id), n.inc)))
}

// noticed: every node's failure detector has seen who lives.
func (w *world) noticed() {
	for _, id := range w.order {
		if n := w.nodes[id]; n.alive {
			n.view = w.look(id)
			n.step(event{kind: evCluster})
		}
	}
}

func (w *world) after(d time.Duration, do func()) {
	w.seq++
	heap.Push(&w.queue, happening{w.now + d, w.seq, do})
}

// run lets time pass until nothing is left before the deadline.
func (w *world) run(d time.Duration) {
	until := w.now + d
	for len(w.queue) > 0 && w.queue[0].at <= until {
		h := heap.Pop(&w.queue).(happening)
		w.now = h.at
		h.do()
	}
	w.now = until
}

// send carries a message between two nodes, if it arrives.
func (w *world) send(from, to catalog.NodeID, do func(n *node)) {
	if from != to && w.lose() {
		return
	}
	a, inc := w.nodes[from], w.nodes[from].inc
	w.after(w.delay(), func() {
		b := w.nodes[to]
		if b == nil || !b.alive || from != to && (a.cut || b.cut) || from == to && a.inc != inc {
			return
		}
		do(b)
	})
}

func (n *node) step(events ...event) {
	if !n.alive {
		return
	}
	fx := n.core.step(n.w.now, 1_700_000_000_000+n.w.now.Milliseconds(), events)
	n.carryOut(fx)
}

func (n *node) carryOut(fx *effects) {
	w, inc := n.w, n.inc
	back := func(e event) {
		if n.inc == inc {
			n.step(e)
		}
	}
	w.checkOrder(fx.batches)
	for _, b := range fx.batches {
		w.check(n, &b.parcel.batch)
		batch := &b.parcel.batch
		w.send(n.id, b.node, func(to *node) { to.take(n.id, batch) })
	}
	for _, a := range fx.answers {
		a.reply(a.resp)
	}
	for _, a := range fx.states {
		a.reply(a.resp)
	}
	for _, r := range fx.reads {
		w.store.read(w, r.log, func(rec *wire.EpochRecord, err error) {
			back(event{kind: evRead, log: r.log, token: r.token, record: rec, err: err})
		})
	}
	for _, s := range fx.swaps {
		w.store.swap(w, s.log, s.expect, s.next, func(err error) {
			back(event{kind: evSwapped, log: s.log, token: s.token, err: err})
		})
	}
	for _, r := range fx.recoveries {
		w.recover(n, r, back)
	}
	for _, q := range fx.calls {
		n.call(q, back)
	}
	for _, no := range fx.notices {
		w.trace("N%d: %s log %d epoch %d by N%d %s", n.id, no.What, no.Log, no.Epoch, no.Node, no.Message)
		if no.What == "activated" {
			key := fmt.Sprint(no.Log, "/", no.Epoch)
			if other, ok := w.crowned[key]; ok {
				w.fault("epoch %s is used by N%d and N%d", key, other, n.id)
			}
			w.crowned[key] = n.id
		}
	}
	if fx.fatal != nil {
		n.fatal = fx.fatal
	}
	if at := fx.timer; at != 0 && (n.alarm == 0 || at < n.alarm || n.alarm <= w.now) {
		n.alarm = at
		w.after(max(at-w.now, 0), func() {
			if n.inc == inc && n.alarm == at {
				n.alarm = 0
				n.step(event{kind: evTimer})
			}
		})
	}
}

func (w *world) fault(format string, args ...any) {
	if len(w.broken) < 20 {
		w.broken = append(w.broken, fmt.Sprintf("%v: ", w.now)+fmt.Sprintf(format, args...))
	}
}

// call answers a core's question to a shard.
func (n *node) call(q shardCall, back func(event)) {
	w := n.w
	w.after(2*w.delay(), func() {
		to := w.nodes[q.shard.Node()]
		var answer any
		err := errors.New("lost")
		if to != nil && to.alive && !to.cut && !n.cut && (to == n || !w.lose()) {
			answer, err = to.respond(q), nil
		}
		back(event{kind: evAnswered, token: q.token, answer: answer, err: err})
	})
}

func (n *node) log(log logs.LogID) *shardLog {
	l := n.disk[log]
	if l == nil {
		l = &shardLog{copies: make(map[logs.LSN][]*wire.LogRecord), lng: make(map[logs.Epoch]logs.ESN)}
		n.disk[log] = l
	}
	return l
}

func (n *node) respond(q shardCall) any {
	switch {
	case q.seal != nil:
		l := n.log(logs.LogID(q.seal.Log))
		r := &wire.CheckSealResponse{SealEpoch: uint32(l.hard), SealedBy: uint64(l.hardBy)}
		if l.soft > l.hard {
			r.SealEpoch, r.SealedBy, r.Soft = uint32(l.soft), uint64(l.softBy), true
		}
		return r
	case q.metadata != nil:
		r := &wire.ReadMetadataResponse{}
		meta := n.disk[logs.LogID(q.metadata.Log).MetadataLog()]
		if meta != nil {
			for _, versions := range meta.copies {
				m := &wire.EpochMetadata{}
				if err := proto.Unmarshal(versions[0].Payload, m); err != nil {
					n.w.t.Fatal(err)
				}
				r.Metadata = append(r.Metadata, m)
			}
			slices.SortFunc(r.Metadata, func(a, b *wire.EpochMetadata) int { return int(a.EffectiveSince) - int(b.EffectiveSince) })
		}
		return r
	}
	r := &wire.ProducerLookupResponse{LastCleanEpoch: uint32(logs.EpochMax)} // what was away is purged in no time
	l := n.log(logs.LogID(q.lookup.Log))
	r.TrimPoint = uint64(l.trim)
	for lsn, versions := range l.copies {
		c := winner(versions)
		if q.lookup.Limit > 0 && lsn <= l.trim && c.Producer == q.lookup.Producer && c.Sequence > r.GetMark().GetSequence() {
			r.Mark = &wire.ProducerEntry{Lsn: uint64(lsn), Sequence: c.Sequence, TimestampMs: c.TimestampMs}
		}
		if lsn <= max(logs.LSN(q.lookup.After), l.trim) || lsn > logs.LSN(q.lookup.To) {
			continue
		}
		e := &wire.ProducerEntry{Lsn: uint64(lsn), Wave: c.Wave, Flags: c.Flags, TimestampMs: c.TimestampMs}
		switch {
		case c.Flags&logs.FlagHole != 0:
		case c.Producer == q.lookup.Producer:
			e.Sequence = c.Sequence
		default:
			i := slices.IndexFunc(c.Origins, func(o *wire.Origin) bool { return o.Producer == q.lookup.Producer })
			if i < 0 {
				continue
			}
			for _, o := range c.Origins {
				if o.Producer == q.lookup.Producer {
					one := proto.Clone(e).(*wire.ProducerEntry)
					one.Sequence = o.Sequence
					r.Entries = append(r.Entries, one)
				}
			}
			continue
		}
		r.Entries = append(r.Entries, e)
	}
	slices.SortFunc(r.Entries, func(a, b *wire.ProducerEntry) int { return int(int64(b.Lsn) - int64(a.Lsn)) })
	found := 0
	for i, e := range r.Entries {
		if e.Sequence > 0 {
			found++
		}
		if q.lookup.Limit > 0 && found >= int(q.lookup.Limit) { // a shard tells of its own newest
			r.Entries = r.Entries[:i+1]
			break
		}
	}
	return r
}

// winner is the copy that counts.
func winner(versions []*wire.LogRecord) *wire.LogRecord {
	best := versions[0]
	for _, v := range versions[1:] {
		if logs.Precedence(v) > logs.Precedence(best) {
			best = v
		}
	}
	if len(best.Payload) == 0 {
		for _, v := range versions {
			if len(v.Payload) > 0 && best.Flags&logs.FlagHole == 0 {
				best = proto.Clone(best).(*wire.LogRecord)
				best.Payload = v.Payload
				break
			}
		}
	}
	return best
}

// take is a storage node's side of a batch, or a sequencer's of the answers.
func (n *node) take(from catalog.NodeID, b *wire.LogBatch) {
	answer := &wire.LogBatch{FromNode: uint64(n.id), ToNode: b.FromNode, Incarnation: n.inc}
	for _, st := range b.Stores {
		answer.Stored = append(answer.Stored, n.keep(from, st))
	}
	for _, r := range b.Releases {
		l := n.log(logs.LogID(r.Log))
		if n.deaf {
			continue
		}
		l.released = max(l.released, logs.LSN(r.Released))
		l.lng[logs.Epoch(r.Epoch)] = max(l.lng[logs.Epoch(r.Epoch)], logs.ESN(r.LastKnownGood))
		if r.Confirm {
			answer.Released = append(answer.Released, &wire.Released{Log: r.Log, Released: uint64(l.released)})
		}
	}
	if len(b.Stored)+len(b.Released) > 0 {
		n.step(event{kind: evStored, batch: b})
	}
	if len(answer.Stored)+len(answer.Released) > 0 {
		n.w.send(n.id, from, func(to *node) { to.take(n.id, answer) })
	}
}

// astray is what a refuse function says for: keep it, but the answer is lost.
const astray wire.LogStatus = -1

// keep is a shard's answer to a STORE.
func (n *node) keep(from catalog.NodeID, st *wire.Store) *wire.Stored {
	r := st.Record
	lsn := logs.LSN(r.Lsn)
	out := &wire.Stored{Log: r.Log, Lsn: r.Lsn, Wave: r.Wave, Cookie: st.Cookie}
	l := n.log(logs.LogID(r.Log))
	if n.refuse != nil {
		switch st := n.refuse(st); st {
		case wire.LogStatus_LOG_STATUS_OK:
		case astray:
			out.Cookie = 1 << 60
		default:
			out.Status = st
			return out
		}
	}
	if !logs.LogID(r.Log).IsMetadata() {
		switch {
		case lsn.Epoch() <= l.hard:
			out.Status, out.SealEpoch, out.SealedBy = wire.LogStatus_LOG_STATUS_PREEMPTED, uint32(l.hard), uint64(l.hardBy)
			return out
		case lsn.Epoch() <= l.soft && !st.Draining:
			out.Status, out.SealEpoch, out.SealedBy, out.Soft = wire.LogStatus_LOG_STATUS_PREEMPTED, uint32(l.soft), uint64(l.softBy), true
			return out
		}
		if e := lsn.Epoch() - 1; e > l.soft {
			l.soft, l.softBy = e, from
		}
	}
	if st.Amend {
		if len(l.copies[lsn]) == 0 {
			out.Status = wire.LogStatus_LOG_STATUS_FAILED
			return out
		}
	} else if logs.Checksum(r.Payload) != r.Checksum {
		out.Status = wire.LogStatus_LOG_STATUS_CHECKSUM_MISMATCH
		return out
	}
	l.copies[lsn] = append(l.copies[lsn], r)
	return out
}

// fullyStored says whether some wave of a record is on R shards of its copyset,
// or recovery decided on it.
func (w *world) fullyStored(log logs.LogID, lsn logs.LSN) bool {
	if w.truth[log][lsn] != nil {
		return true
	}
	waves := make(map[uint32]int)
	for _, id := range w.order {
		if l := w.nodes[id].disk[log]; l != nil {
			for _, c := range l.copies[lsn] {
				if slices.Contains(c.Copyset, uint64(logs.MakeShard(id, 0))) {
					waves[c.Wave]++
				}
			}
		}
	}
	for _, n := range waves {
		if n >= placement.Copies(w.attrs.GetReplication()) {
			return true
		}
	}
	return false
}

// checkOrder sees that LSNs are given out without gaps.
// noteFirst notes under which LSN payloads were stored first.
func (w *world) noteFirst(lsn logs.LSN, rec *wire.LogRecord) {
	note := func(payload []byte) {
		if was, ok := w.first[string(payload)]; !ok || lsn < was {
			w.first[string(payload)] = lsn
		}
	}
	if rec.Flags&logs.FlagBatch == 0 {
		note(rec.Payload)
		return
	}
	b, err := logs.OpenBatch(rec.Payload)
	if err != nil {
		w.fault("%s: %v", lsn, err)
		return
	}
	for _, p := range b.All() {
		note(p)
	}
}

func (w *world) checkOrder(batches []outBatch) {
	type place struct {
		log logs.LogID
		lsn logs.LSN
		rec *wire.LogRecord
	}
	var lsns []place
	for _, b := range batches {
		for _, st := range b.parcel.batch.Stores {
			if log := logs.LogID(st.Record.Log); !log.IsMetadata() && st.Record.Wave == 1 {
				lsns = append(lsns, place{log, logs.LSN(st.Record.Lsn), st.Record})
			}
		}
	}
	slices.SortFunc(lsns, func(a, b place) int { return int(int64(a.lsn) - int64(b.lsn)) })
	for _, lsn := range lsns {
		w.noteFirst(lsn.lsn, lsn.rec)
		if last := w.lastESN[lsn.log][lsn.lsn.Epoch()]; lsn.lsn.ESN() > last {
			if lsn.lsn.ESN() != last+1 {
				w.fault("Q2: %s follows ESN %d: an LSN was consumed", lsn.lsn, last)
			}
			if w.lastESN[lsn.log] == nil {
				w.lastESN[lsn.log] = make(map[logs.Epoch]logs.ESN)
			}
			w.lastESN[lsn.log][lsn.lsn.Epoch()] = lsn.lsn.ESN()
		}
	}
}

// check looks at what a sequencer sends against the invariants.
func (w *world) check(n *node, b *wire.LogBatch) {
	for _, st := range b.Stores {
		r := st.Record
		log, lsn := logs.LogID(r.Log), logs.LSN(r.Lsn)
		if log.IsMetadata() {
			continue
		}
		for e := logs.ESN(r.LastKnownGood); e > 0 && int(e) > int(r.LastKnownGood)-3; e-- {
			if !w.fullyStored(log, logs.MakeLSN(lsn.Epoch(), e)) {
				w.fault("Q4: LNG %d of epoch %d passes a record that is not fully stored", r.LastKnownGood, lsn.Epoch())
			}
		}
		if s := n.core.logs[log]; s != nil {
			if r := s.reignFor(lsn.Epoch()); r != nil && r.win.len() > int(w.attrs.GetMaxWritesInFlight()) {
				w.fault("Q3: %d records in flight", r.win.len())
			}
		}
		if len(r.Copyset) != placement.Copies(w.attrs.GetReplication()) {
			w.fault("a wave of %d shards", len(r.Copyset))
		}
	}
	for _, r := range b.Releases {
		to := logs.LSN(r.Released)
		if to == 0 {
			continue
		}
		rec := w.store.records[logs.LogID(r.Log)]
		if rec == nil || rec.LastCleanEpoch+1 < uint32(to.Epoch()) {
			w.fault("Q5: %s is released, the last clean epoch is %d", to, rec.GetLastCleanEpoch())
		}
		if !w.metadataReadable(logs.LogID(r.Log), rec) {
			w.fault("Q5: %s is released, its metadata cannot be read", to)
		}
		if to.ESN() > 0 && !w.fullyStored(logs.LogID(r.Log), to) {
			w.fault("%s is released and not fully stored", to)
		}
	}
}

func (w *world) metadataReadable(log logs.LogID, rec *wire.EpochRecord) bool {
	for _, id := range w.order {
		if meta := w.nodes[id].disk[log.MetadataLog()]; meta != nil && len(meta.copies) > 0 {
			return true
		}
	}
	return rec.GetMetadata().GetWritten()
}

// memoryStore is an epoch store whose answers may be lost.
type memoryStore struct {
	records map[logs.LogID]*wire.EpochRecord
	lost    func() bool // the answer, not the change
	down    bool
	reads   int
}

var errStoreSilent = errors.New("no answer")

func (s *memoryStore) read(w *world, log logs.LogID, done func(*wire.EpochRecord, error)) {
	s.reads++
	w.after(2*w.delay(), func() {
		if s.down {
			done(nil, errStoreSilent)
			return
		}
		done(clone(s.records[log]), nil)
	})
}

func clone(r *wire.EpochRecord) *wire.EpochRecord {
	if r == nil {
		return nil
	}
	return proto.Clone(r).(*wire.EpochRecord)
}

func (s *memoryStore) swap(w *world, log logs.LogID, expect uint64, next *wire.EpochRecord, done func(error)) {
	w.after(w.delay(), func() {
		var err error
		switch {
		case s.down:
			err = errStoreSilent
		case s.records[log].GetVersion() != expect:
			err = ErrConflict
		case next.Version != expect+1:
			w.fault("a record of version %d follows %d", next.Version, expect)
		default:
			s.records[log] = clone(next)
		}
		if s.lost != nil && s.lost() {
			err = errStoreSilent
		}
		w.after(w.delay(), func() { done(err) })
	})
}

// recover decides on all earlier epochs in one stroke, after a while: what any
// live shard holds by precedence, and holes between.
func (w *world) recover(n *node, r recoverStart, back func(event)) {
	log, upTo := r.args.Log, r.args.UpTo
	do := func() {
		res, err := w.decide(n, log, upTo, r.args.Record)
		back(event{kind: evRecovered, log: log, token: r.token, result: &res, err: err})
	}
	if w.holdRec {
		w.pending = append(w.pending, do)
		return
	}
	w.after(5*w.delay(), do)
}

func (w *world) decide(n *node, log logs.LogID, upTo logs.Epoch, rec *wire.EpochRecord) (RecoveryResult, error) {
	live, total := 0, len(w.order)
	for _, id := range w.order {
		m := w.nodes[id]
		if !m.alive || m.cut && m != n || n.cut && m != n {
			continue
		}
		l := m.log(log)
		if s := max(l.hard, l.soft); s > upTo {
			by := l.hardBy
			if l.soft > l.hard {
				by = l.softBy
			}
			return RecoveryResult{Status: wire.LogStatus_LOG_STATUS_PREEMPTED, PreemptedBy: by, SealEpoch: s}, nil
		}
		live++
	}
	if live < total-placement.Copies(w.attrs.GetReplication())+1 {
		return RecoveryResult{Status: wire.LogStatus_LOG_STATUS_FAILED}, nil
	}
	if w.truth[log] == nil {
		w.truth[log] = make(map[logs.LSN]*wire.LogRecord)
	}
	stored := w.store.records[log]
	var lsns []logs.LSN
	for _, id := range w.order {
		if m := w.nodes[id]; m.alive && (!m.cut || m == n) {
			l := m.log(log)
			if upTo > l.hard {
				l.hard, l.hardBy = upTo, n.id
			}
			for lsn := range l.copies {
				if lsn.Epoch() <= upTo && lsn.Epoch() > logs.Epoch(stored.LastCleanEpoch) {
					lsns = append(lsns, lsn)
				}
			}
		}
	}
	slices.Sort(lsns)
	w.settle(n, log, slices.Compact(lsns))
	w.purge(n, log, upTo)
	next := clone(stored)
	next.LastCleanEpoch = max(next.LastCleanEpoch, uint32(upTo))
	next.Version++
	next.Tail = w.tail(log)
	w.store.records[log] = next
	return RecoveryResult{Record: next, Tail: next.Tail, CountBase: next.Tail.Count}, nil
}

// settle writes what is decided for each LSN to all shards: those that are away
// get it when they return, which is what purging comes to.
func (w *world) settle(n *node, log logs.LogID, lsns []logs.LSN) {
	var prev logs.LSN
	hole := false // in the epoch, before
	for _, lsn := range lsns {
		if prev.Epoch() != lsn.Epoch() {
			prev, hole = logs.MakeLSN(lsn.Epoch(), 0), false
		}
		hole = hole || lsn > prev+1
		for at := prev + 1; at < lsn; at++ {
			w.decideOne(log, at, &wire.LogRecord{Log: uint64(log), Lsn: uint64(at), Flags: logs.FlagHole | logs.FlagWrittenByRecovery, Wave: uint32(lsn.Epoch())})
		}
		prev = lsn
		var versions []*wire.LogRecord
		for _, id := range w.order {
			if m := w.nodes[id]; m.alive && (!m.cut || m == n) {
				versions = append(versions, m.log(log).copies[lsn]...)
			}
		}
		best := proto.Clone(winner(versions)).(*wire.LogRecord)
		if hole && best.Flags&logs.FlagStream != 0 {
			best = &wire.LogRecord{Log: uint64(log), Lsn: uint64(lsn), Flags: logs.FlagHole}
			if at := w.inOrder[lsn]; at {
				w.fault("%s of a stream was acknowledged, and there is a hole before it", lsn)
			}
		}
		hole = hole || best.Flags&logs.FlagHole != 0
		best.Flags |= logs.FlagWrittenByRecovery
		best.Wave = uint32(lsn.Epoch())
		w.decideOne(log, lsn, best)
	}
}

// purge brings shards that were away to what was decided, as they do themselves
// before they take the next release.
func (w *world) purge(by *node, log logs.LogID, upTo logs.Epoch) {
	for _, id := range w.order {
		l := w.nodes[id].log(log)
		if upTo > l.hard {
			l.hard, l.hardBy = upTo, by.id
		}
		for lsn := range l.copies {
			if lsn.Epoch() <= upTo && w.truth[log][lsn] == nil {
				delete(l.copies, lsn)
			}
		}
	}
}

func (w *world) decideOne(log logs.LogID, lsn logs.LSN, rec *wire.LogRecord) {
	if was := w.truth[log][lsn]; was != nil && string(was.Payload) != string(rec.Payload) {
		w.fault("%s is decided twice", lsn)
		return
	}
	w.truth[log][lsn] = rec
	for _, id := range w.order {
		w.nodes[id].log(log).copies[lsn] = []*wire.LogRecord{rec}
	}
}

func (w *world) tail(log logs.LogID) *wire.TailRecord {
	out := &wire.TailRecord{Log: uint64(log)}
	var lsns []logs.LSN
	for lsn := range w.truth[log] {
		lsns = append(lsns, lsn)
	}
	slices.Sort(lsns)
	for _, lsn := range lsns {
		if r := w.truth[log][lsn]; r.Flags&logs.FlagHole == 0 {
			out.Lsn, out.TimestampMs = uint64(lsn), r.TimestampMs
			out.Count += uint64(r.Count)
		}
	}
	return out
}

// crash ends a process; its disk stays.
func (n *node) crash() {
	n.alive = false
	n.inc++
}
