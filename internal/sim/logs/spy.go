package logs

import (
	"slices"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// spy sees what one life of a node sends and hears as a sequencer.
type spy struct {
	m       *member
	copies  map[place]*sent
	told    map[listener]logs.LSN   // what is released
	highest map[logs.LogID]logs.LSN // given out by this life
	through map[reign]logs.LSN      // up to it all that an epoch gave out was sent
	checked map[logs.LogID]logs.LSN // up to it, what was sent is stored: what is stored stays so
	settled map[reign]logs.LSN      // up to it all that an epoch gave out is stored
}

// place is a slot of a log.
type place struct {
	log logs.LogID
	lsn logs.LSN
}

// listener is who is told what is released of a log.
type listener struct {
	log logs.LogID
	on  catalog.NodeID
}

// sent is what was sent of a slot and who said STORED, by wave.
type sent struct {
	waves   []wave
	payload []byte // of an entry of a metadata log
	fenced  bool   // somebody said PREEMPTED
}

type wave struct {
	number  uint32
	copyset []uint64
	stored  []uint64 // nodes
}

func newSpy(m *member) *spy {
	return &spy{m: m, copies: map[place]*sent{}, told: map[listener]logs.LSN{}, highest: map[logs.LogID]logs.LSN{}, through: map[reign]logs.LSN{}, checked: map[logs.LogID]logs.LSN{}, settled: map[reign]logs.LSN{}}
}

// sends is L3, and takes copies down for L2.
func (s *spy) sends(to catalog.NodeID, b *wire.LogBatch) {
	for _, st := range b.Stores {
		s.m.c.members[to-1].given[logs.LogID(st.Record.Log)] = true
		if id := logs.LogID(st.Record.Log); s.m.c.beyond() && !id.IsMetadata() {
			t, lsn := s.m.c.truths[id-1], logs.LSN(st.Record.Lsn)
			t.gets(lsn, s.m.c.members[to-1], st.Record.Flags&logs.FlagHole == 0)
			if st.Record.Flags&logs.FlagStream != 0 {
				t.stream[lsn] = true
			}
		}
		if st.SealEpoch > 0 {
			continue // recovery's
		}
		r := st.Record
		at := place{logs.LogID(r.Log), logs.LSN(r.Lsn)}
		x := s.copies[at]
		if x == nil {
			x = &sent{}
			if at.log.IsMetadata() {
				x.payload = r.Payload
			}
			s.copies[at] = x
			s.highest[at.log] = max(s.highest[at.log], at.lsn)
			if s.checked[at.log] >= at.lsn { // it was not there to be looked at
				s.checked[at.log] = at.lsn - 1
			}
		}
		if n := len(x.waves); n == 0 || x.waves[n-1].number != r.Wave {
			if n == 1 {
				s.m.w.Sometimes("wave: a second one")
			}
			x.waves = append(x.waves, wave{number: r.Wave, copyset: slices.Clone(r.Copyset)})
		}
	}
	for _, r := range b.Releases {
		s.releases(to, r)
	}
}

func (s *spy) releases(to catalog.NodeID, r *wire.Release) {
	w, log, lsn := s.m.w, logs.LogID(r.Log), logs.LSN(r.Released)
	if log.IsMetadata() {
		return
	}
	if clean := s.m.c.epochs.clean(log); lsn != 0 && lsn.Epoch() > clean+1 {
		w.Fail("node %d releases log %d up to %s, though only %d epochs are clean", s.m.n.ID, log, lsn, clean)
	}
	if t := s.m.c.truths[log-1]; lsn != 0 {
		if since, ok := t.canBeRead(lsn.Epoch()); !ok {
			w.Fail("node %d releases log %d up to %s, and where that is stored, since epoch %d, is not in the metadata log", s.m.n.ID, log, lsn, since)
		}
	}
	if lsn > s.highest[log] && lsn.Epoch() == s.highest[log].Epoch() {
		w.Fail("node %d releases log %d up to %s and gave out %s", s.m.n.ID, log, lsn, s.highest[log])
	}
	if was := s.told[listener{log, to}]; lsn < was {
		w.Fail("node %d tells node %d that log %d is released up to %s, and told it %s before", s.m.n.ID, to, log, lsn, was)
	}
	s.told[listener{log, to}] = lsn
	checked := s.checked[log]
	s.checked[log] = lsn
	for at := lsn; at.ESN() > 0 && at+64 > lsn && at > checked; at-- { // what it says can be read is stored
		if x := s.copies[place{log, at}]; x != nil && !x.whole() {
			w.Fail("node %d releases log %d up to %s, though %s is not stored: %+v", s.m.n.ID, log, lsn, at, x.waves)
			return
		}
	}
}

// stored takes down who says STORED.
func (s *spy) stored(b *wire.LogBatch) {
	for _, st := range b.Stored {
		x := s.copies[place{logs.LogID(st.Log), logs.LSN(st.Lsn)}]
		if x == nil || st.Cookie&recoveryCookie != 0 {
			continue
		}
		if st.Status != wire.LogStatus_LOG_STATUS_OK {
			x.fenced = x.fenced || st.Status == wire.LogStatus_LOG_STATUS_PREEMPTED
			continue
		}
		for i := range x.waves {
			if x.waves[i].number == st.Wave {
				x.waves[i].stored = append(x.waves[i].stored, b.FromNode)
			}
		}
		if log := logs.LogID(st.Log); log.IsMetadata() && x.whole() {
			s.m.c.truths[log.DataLog()-1].writes(x)
		}
	}
}

// whole says whether everybody of some wave's copyset said STORED for it.
func (x *sent) whole() bool {
	for i := range x.waves {
		v := &x.waves[i]
		if !slices.ContainsFunc(v.copyset, func(s uint64) bool { return !slices.Contains(v.stored, uint64(logs.ShardID(s).Node())) }) {
			return true
		}
	}
	return false
}

// acknowledges is L2. What is answered from memory, or found on the shards, was
// sent by another life.
func (s *spy) acknowledges(req *wire.AppendRequest, r *wire.AppendResponse) {
	if r.Status != wire.LogStatus_LOG_STATUS_OK || req.Flags&logs.AppendProbe != 0 {
		return
	}
	log, lsn := logs.LogID(req.Log), logs.LSN(r.Lsn)
	x := s.copies[place{log, lsn}]
	if x == nil || !x.whole() && lsn.Epoch() <= s.m.c.epochs.clean(log) { // in the second case recovery has decided on it
		s.m.w.Sometimes("append: found stored by a retry")
		return
	}
	s.withoutGap(log, lsn)
	if !x.whole() {
		s.m.w.Fail("node %d acknowledges %s of log %d, though no wave is stored: %+v", s.m.n.ID, lsn, log, x.waves)
	}
	if req.Flags&(logs.AppendStream|logs.AppendProducer) != 0 && lsn.Epoch() > s.m.c.epochs.clean(log) {
		s.behindAll(log, lsn)
	}
}

// behindAll is L14: while no recovery has decided on its epoch, what a stream is told to
// have in the log has nothing before it that may become a hole.
func (s *spy) behindAll(log logs.LogID, lsn logs.LSN) {
	e := reign{log, lsn.Epoch()}
	at := s.settled[e]
	if at == 0 {
		at = logs.MakeLSN(e.epoch, 0)
	}
	for at < lsn && s.copies[place{log, at + 1}] != nil && s.copies[place{log, at + 1}].whole() {
		at++
	}
	if s.settled[e] = at; at < lsn {
		s.m.w.Fail("node %d acknowledges %s of log %d to a stream, and %s before it is not stored", s.m.n.ID, lsn, log, at+1)
	}
}

// withoutGap is L13: what comes before an LSN that is acknowledged was sent as well.
func (s *spy) withoutGap(log logs.LogID, lsn logs.LSN) {
	e := reign{log, lsn.Epoch()}
	at := s.through[e]
	if at == 0 {
		at = logs.MakeLSN(e.epoch, 0)
	}
	for at < lsn && s.copies[place{log, at + 1}] != nil {
		at++
	}
	if s.through[e] = at; at < lsn {
		s.m.w.Fail("node %d acknowledges %s of log %d, and gave out %s without storing anything there", s.m.n.ID, lsn, log, at+1)
	}
}
