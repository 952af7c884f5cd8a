package recovery

import (
	"sync"
	"time"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// Calls reach shards, the node's own included. No method blocks; done is called
// once, maybe before the method returns.
type Calls interface {
	Seal(shard logs.ShardID, req *wire.SealRequest, done func(*wire.SealResponse, error))
	Digest(shard logs.ShardID, req *wire.DigestRequest, done func(*wire.DigestResponse, error))
	Store(shard logs.ShardID, s *wire.Store, done func(*wire.Stored, error))
	Clean(shard logs.ShardID, req *wire.CleanRequest, done func(*wire.CleanResponse, error))
	EpochRecovery(shard logs.ShardID, req *wire.EpochRecoveryRequest, done func(*wire.EpochRecoveryResponse, error))
	Records(shard logs.ShardID, req *wire.RecordsRequest, done func(*wire.RecordsResponse, error))
	LogState(shard logs.ShardID, req *wire.LogStateRequest, done func(*wire.LogStateResponse, error))
	ReadMetadata(shard logs.ShardID, req *wire.ReadMetadataRequest, done func(*wire.ReadMetadataResponse, error))
}

// EpochStore is what recovery needs of it; an error of CompareAndSet leaves the
// outcome open.
type EpochStore interface {
	Read(log logs.LogID, done func(*wire.EpochRecord, error))
	CompareAndSet(log logs.LogID, expect uint64, next *wire.EpochRecord, done func(error))
}

// Shard is the node's own shard, as a purge changes it.
type Shard interface {
	DeleteCopies(log logs.LogID, from, to logs.LSN, done func(error))
	SetLastClean(log logs.LogID, r *wire.EpochRecovery, done func(error))
}

// core is what a machine runs: a logRecovery, a purge, a comparison or a survey.
type core interface {
	step(now time.Duration, ev event) effects
}

// machine runs one core: events one at a time, in order, on whatever goroutine
// brings them, and effects outside of its lock.
type machine struct {
	log   logs.LogID
	calls Calls
	store EpochStore // recoveries
	shard Shard      // purges
	doubt Doubtful   // comparisons
	purge func(log logs.LogID, clean logs.Epoch, release logs.LSN)
	mono  func() time.Duration
	after func(d time.Duration, f func()) (stop func() bool)
	told  func(effects) // of every step, if it is there
	ended func(effects) // once, unless the machine was stopped before

	mu      sync.Mutex
	core    core
	events  []event
	running bool          // somebody works through events
	over    bool          // ended or stopped: nothing happens any more
	wakeAt  time.Duration // when the timer fires; 0: it is not set
	disarm  func() bool
}

// post brings an event. Who finds nobody at work works through what there is.
func (m *machine) post(ev event) {
	m.mu.Lock()
	m.events = append(m.events, ev)
	if m.running || m.over {
		m.mu.Unlock()
		return
	}
	m.running = true
	for len(m.events) > 0 && !m.over {
		ev := m.events[0]
		m.events = m.events[1:]
		fx := m.core.step(m.mono(), ev)
		end := fx.result != nil || fx.done
		if end {
			m.stopLocked()
		} else {
			m.armLocked(fx.wake)
		}
		m.mu.Unlock()
		for _, c := range fx.calls {
			m.call(c)
		}
		if m.told != nil {
			m.told(fx)
		}
		if end {
			m.ended(fx)
		}
		m.mu.Lock()
	}
	m.running = false
	m.mu.Unlock()
}

// stop has nothing happen any more, and says whether anything would have. Answers
// that are under way are dropped.
func (m *machine) stop() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	was := !m.over
	m.stopLocked()
	return was
}

func (m *machine) stopLocked() {
	m.over, m.events = true, nil
	if m.disarm != nil {
		m.disarm()
		m.disarm = nil
	}
}

// armLocked sets the timer to when the core wants to be woken, 0: never.
func (m *machine) armLocked(at time.Duration) {
	if at == m.wakeAt {
		return
	}
	if m.disarm != nil {
		m.disarm()
		m.disarm = nil
	}
	if m.wakeAt = at; at > 0 {
		m.disarm = m.after(max(0, at-m.mono()), m.wake)
	}
}

func (m *machine) wake() {
	m.mu.Lock()
	m.wakeAt, m.disarm = 0, nil
	m.mu.Unlock()
	m.post(event{kind: evTimer})
}

// call carries a call out; its answer comes back as an event.
func (m *machine) call(c call) {
	ev := event{kind: evAnswer, of: c}
	ev.of.seal, ev.of.digest, ev.of.store, ev.of.clean, ev.of.next, ev.of.decisions = nil, nil, nil, nil, nil, nil
	ev.of.records, ev.of.repair, ev.of.states = nil, nil, nil
	log := uint64(m.log)
	switch c.kind {
	case callMetadata:
		m.calls.ReadMetadata(c.shard, &wire.ReadMetadataRequest{Log: log, Shard: uint64(c.shard)}, func(r *wire.ReadMetadataResponse, err error) {
			ev.metadata, ev.err = r, err
			m.post(ev)
		})
	case callSeal:
		m.calls.Seal(c.shard, c.seal, func(r *wire.SealResponse, err error) { ev.seal, ev.err = r, err; m.post(ev) })
	case callDigest:
		m.calls.Digest(c.shard, c.digest, func(r *wire.DigestResponse, err error) { ev.digest, ev.err = r, err; m.post(ev) })
	case callStore:
		m.calls.Store(c.shard, c.store, func(r *wire.Stored, err error) { ev.stored, ev.err = r, err; m.post(ev) })
	case callClean:
		m.calls.Clean(c.shard, c.clean, func(r *wire.CleanResponse, err error) { ev.clean, ev.err = r, err; m.post(ev) })
	case callRead:
		if m.doubt != nil {
			ev.doubt.Number = m.doubt.DoubtNumber()
		}
		m.store.Read(m.log.DataLog(), func(r *wire.EpochRecord, err error) { ev.record, ev.err = r, err; m.post(ev) })
	case callSwap:
		m.store.CompareAndSet(m.log, c.expect, c.next, func(err error) { ev.record, ev.err = c.next, err; m.post(ev) })
	case callDecisions:
		m.calls.EpochRecovery(c.shard, c.decisions, func(r *wire.EpochRecoveryResponse, err error) {
			ev.decisions, ev.err = r, err
			m.post(ev)
		})
	case callDelete:
		m.shard.DeleteCopies(m.log, c.from, c.to, func(err error) { ev.err = err; m.post(ev) })
	case callRecords:
		m.calls.Records(c.shard, c.records, func(r *wire.RecordsResponse, err error) { ev.records, ev.err = r, err; m.post(ev) })
	case callStates:
		m.calls.LogState(c.shard, c.states, func(r *wire.LogStateResponse, err error) { ev.states, ev.err = r, err; m.post(ev) })
	case callFence:
		m.doubt.Fence(m.log, c.epoch, c.since, func(d logs.Doubt, err error) { ev.doubt, ev.err = d, err; m.post(ev) })
	case callPurge:
		m.purge(m.log, c.epoch, c.to)
		m.post(ev)
	case callRepair:
		m.doubt.Repair(m.log, c.epoch, c.repair, func(err error) { ev.err = err; m.post(ev) })
	case callSure:
		m.doubt.Sure(m.log, c.found, func(err error) { ev.err = err; m.post(ev) })
	case callMark:
		m.shard.SetLastClean(m.log, c.mark, func(err error) { ev.err = err; m.post(ev) })
	}
}
