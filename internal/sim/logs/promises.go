package logs

import (
	"slices"
	"time"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// What a shard said that it had done is done: L7 and L8.

// promises are what a shard answered about one log, over its lives.
type promises struct {
	// fence is the last epoch that it said is sealed, or of which it gave recovery a
	// digest. It outlives everything: a shard that may have forgotten it is fenced
	// before it takes stores again.
	fence logs.Epoch
	// What it may not have forgotten when it comes back, unless its journal was torn.
	seal  logs.Epoch
	trim  logs.LSN
	clean logs.Epoch
	// served is what it had released when it was last looked at; before, the same some
	// time ago.
	served, before released
}

// released is how far a shard served, and when it was first seen to.
type released struct {
	lsn  logs.LSN
	tick int
}

// writtenWithin is for how many ticks, of a second of a node that runs, a crash may
// forget a release that came alone: the store writes such ones down at every fifth of
// its own, and its disk may be slow.
const writtenWithin = 9

// promised is what the node's shard has promised of a log.
func (m *member) promised(log uint64) *promises {
	p := m.words[logs.LogID(log)]
	if p == nil {
		p = &promises{}
		m.words[logs.LogID(log)] = p
	}
	return p
}

// seal has the node's shard seal a log.
func (m *member) seal(q *wire.SealRequest, reply func(*wire.SealResponse)) {
	m.store.Seal(q, func(r *wire.SealResponse) {
		if r.Status == wire.LogStatus_LOG_STATUS_OK || r.Status == wire.LogStatus_LOG_STATUS_PARTIAL {
			p := m.promised(q.Log)
			p.fence, p.seal = max(p.fence, logs.Epoch(q.Epoch)), max(p.seal, logs.Epoch(q.Epoch))
		}
		reply(r)
		m.comes(momentSealed)
	})
}

// digest has it tell recovery what it has of an epoch.
func (m *member) digest(q *wire.DigestRequest, reply func(*wire.DigestResponse)) {
	m.store.Digest(q, func(r *wire.DigestResponse) {
		if r.Status == wire.LogStatus_LOG_STATUS_OK || r.Status == wire.LogStatus_LOG_STATUS_PARTIAL {
			p := m.promised(q.Log)
			p.fence = max(p.fence, logs.Epoch(q.Epoch))
		}
		reply(r)
		m.comes(momentDigested)
	})
}

// clean tells it how an epoch ended.
func (m *member) clean(q *wire.CleanRequest, reply func(*wire.CleanResponse)) {
	m.store.Clean(q, func(r *wire.CleanResponse) {
		if r.Status == wire.LogStatus_LOG_STATUS_OK {
			p := m.promised(q.Log)
			p.clean = max(p.clean, m.store.LastClean(logs.LogID(q.Log)))
		}
		reply(r)
		m.comes(momentCleaned)
	})
}

// trim has it let go of records.
func (m *member) trim(q *wire.TrimRequest, reply func(*wire.TrimResponse)) {
	m.store.Trim(q, func(r *wire.TrimResponse) {
		if r.Status == wire.LogStatus_LOG_STATUS_OK {
			p := m.promised(q.Log)
			p.trim = max(p.trim, logs.LSN(r.TrimPoint))
		}
		reply(r)
	})
}

// keepsOut is L7: what a shard says STORED of is not of an epoch that is closed there.
func (m *member) keepsOut(s *wire.Stored) {
	if p := m.words[logs.LogID(s.Log)]; p != nil && s.Cookie&recoveryCookie == 0 && logs.LSN(s.Lsn).Epoch() <= p.fence {
		m.w.Fail("node %d says STORED of log %d %s for a sequencer, and said before that epoch %d is closed there", m.n.ID, s.Log, logs.LSN(s.Lsn), p.fence)
	}
}

// watchReleases takes down, now and then, how far the shard serves.
func (m *member) watchReleases() {
	m.n.After(time.Second, "watch", m.watchReleases)
	m.ticks++
	if m.fatal != nil {
		return
	}
	m.store.LogState(&wire.LogStateRequest{Shard: uint64(m.shard())}, func(r *wire.LogStateResponse) {
		for _, s := range r.States {
			p := m.promised(s.Log)
			if lsn := logs.LSN(s.LastReleased); lsn > p.served.lsn {
				p.before, p.served = p.served, released{lsn, m.ticks}
			}
		}
	})
}

// forgets is told that the shard lost the end of its journal: what it promised it may
// have forgotten, but not that it keeps sequencers out.
func (m *member) forgets() {
	for _, p := range m.words {
		*p = promises{fence: p.fence}
	}
}

// remembers is L8: a life begins with what the ones before it promised.
func (m *member) remembers() {
	if m.c.beyond() {
		return
	}
	promised, ticks := map[logs.LogID]promises{}, m.ticks
	for id, p := range m.words {
		promised[id] = *p
		p.served, p.before = released{}, released{}
	}
	if m.suspect {
		return
	}
	m.store.LogState(&wire.LogStateRequest{Shard: uint64(m.shard())}, func(r *wire.LogStateResponse) {
		for _, t := range m.c.truths {
			p, known := promised[t.id]
			if i := slices.IndexFunc(r.States, func(s *wire.LogState) bool { return s.Log == uint64(t.id) }); i >= 0 && known {
				m.compare(p, ticks, r.States[i])
			} else if known {
				m.compare(p, ticks, &wire.LogState{Log: uint64(t.id)})
			}
		}
	})
}

// compare says what of it is missing.
func (m *member) compare(p promises, ticks int, s *wire.LogState) {
	switch {
	case logs.Epoch(s.Seal) < p.seal:
		m.w.Fail("node %d says that log %d is sealed up to epoch %d, and said %d before it went down", m.n.ID, s.Log, s.Seal, p.seal)
	case logs.LSN(s.TrimPoint) < p.trim:
		m.w.Fail("node %d says that log %d is trimmed up to %s, and said %s before it went down", m.n.ID, s.Log, logs.LSN(s.TrimPoint), p.trim)
	case logs.Epoch(s.LastCleanEpoch) < p.clean:
		m.w.Fail("node %d says that log %d is clean up to epoch %d, and said %d before it went down", m.n.ID, s.Log, s.LastCleanEpoch, p.clean)
	}
	for _, x := range []released{p.served, p.before} {
		if x.tick+writtenWithin < ticks && logs.LSN(s.LastReleased) < x.lsn {
			m.w.Fail("node %d serves log %d up to %s, and had served it up to %s for %d s when it went down", m.n.ID, s.Log, logs.LSN(s.LastReleased), x.lsn, ticks-x.tick)
		}
	}
}
