package recovery

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

const (
	statusOK         = wire.LogStatus_LOG_STATUS_OK
	statusPartial    = wire.LogStatus_LOG_STATUS_PARTIAL
	statusPreempted  = wire.LogStatus_LOG_STATUS_PREEMPTED
	statusNotFound   = wire.LogStatus_LOG_STATUS_NOT_FOUND
	statusNotStorage = wire.LogStatus_LOG_STATUS_NOT_STORAGE
	statusFailed     = wire.LogStatus_LOG_STATUS_FAILED
	statusAgain      = wire.LogStatus_LOG_STATUS_AGAIN
)

type logState uint8

const (
	stateMetadata  logState = iota // the nodesets of old epochs are being read
	stateEpochs                    // an epoch is being recovered
	stateAdvancing                 // an epoch is clean; the epoch store is told
	stateOver
)

// logRecovery makes a log's epochs in (last clean epoch, UpTo] clean, in order.
type logRecovery struct {
	world
	rules       *rules
	dice        dice
	self        catalog.NodeID
	args        Args
	state       logState
	record      *wire.EpochRecord // the epoch store's, as last seen
	history     history
	sources     []source       // who is sealed: the nodesets of all epochs, ascending
	epoch       *epochRecovery // at work, or clean and not yet told the epoch store
	storeAsked  bool           // a call to the epoch store is out
	storeAt     time.Duration  // not before
	storeStale  bool           // read before writing
	storeFailed int
}

func newLogRecovery(cfg *Config, r *rules, d dice, view View, self catalog.NodeID, args Args) *logRecovery {
	l := &logRecovery{world: world{cfg: cfg, view: view}, rules: r, dice: d, self: self, args: args, record: args.Record}
	l.history.learn(args.Metadata)
	return l
}

// step takes what happened and says what is to be done.
func (l *logRecovery) step(now time.Duration, ev event) effects {
	l.now, l.fx = now, &effects{}
	if l.state == stateOver {
		return effects{}
	}
	switch ev.kind {
	case evView:
		l.view = ev.view
	case evAnswer:
		l.answer(&ev)
	}
	l.advance()
	fx := *l.fx
	l.fx = nil
	if fx.result != nil {
		fx.calls, fx.wake = nil, 0
	}
	return fx
}

func (l *logRecovery) answer(ev *event) {
	switch ev.of.kind {
	case callMetadata:
		l.history.answer(&l.world, ev)
	case callSeal:
		l.onSeal(ev)
	case callRead, callSwap:
		l.onStore(ev)
	default:
		if x := l.epoch; x != nil && x.epoch == ev.of.epoch && x.phase != phaseClean {
			x.answer(ev)
		}
	}
}

// advance does whatever what is known allows. It is run after every event and
// does nothing twice.
func (l *logRecovery) advance() {
	for {
		before := l.state
		switch l.state {
		case stateMetadata:
			l.begin()
		case stateEpochs:
			l.recoverEpochs()
		case stateAdvancing:
			l.tellStore()
		}
		if l.state == before || l.state == stateOver {
			return
		}
	}
}

func (l *logRecovery) clean() logs.Epoch { return logs.Epoch(l.record.GetLastCleanEpoch()) }

// base is how many payloads the log has in its clean epochs.
func (l *logRecovery) base() uint64 { return l.record.GetTail().GetCount() }

func (l *logRecovery) finish(r Result) {
	r.Record = l.record
	l.state = stateOver
	l.fx.result = &r
}

// preempted: somebody newer has sealed, or recovered, what this would (C5).
func (l *logRecovery) preempted(seal uint32, by uint64) {
	if l.state == stateOver {
		return
	}
	l.finish(Result{Status: statusPreempted, SealEpoch: logs.Epoch(seal), PreemptedBy: catalog.NodeID(by),
		Message: fmt.Sprintf("sealed up to epoch %d by node %d", seal, by)})
}

// begin finds out what is to be done, and on whom.
func (l *logRecovery) begin() {
	switch {
	case l.record == nil:
		l.finish(Result{Status: statusFailed, Message: "the log has no record in the epoch store: provision it first"})
	case l.clean() >= l.args.UpTo:
		l.done()
	case l.history.reaches(&l.world, l.clean()+1):
		l.sources = l.history.shards(l.clean()+1, l.args.UpTo)
		l.state = stateEpochs
	}
}

// ---- sealing and the epochs

// recoverEpochs asks everybody for the seal, again and again, and takes the
// oldest epoch that is not clean forward.
func (l *logRecovery) recoverEpochs() {
	for i := range l.sources {
		s := &l.sources[i]
		if !l.mayAsk(s) {
			continue
		}
		s.asked = true
		l.call(call{kind: callSeal, shard: s.id, seal: &wire.SealRequest{Log: uint64(l.args.Log), Epoch: uint32(l.args.UpTo),
			LastCleanEpoch: l.record.GetLastCleanEpoch(), SealedBy: uint64(l.self), Shard: uint64(s.id)}})
	}
	if l.epoch == nil {
		if l.clean() >= l.args.UpTo {
			l.done()
			return
		}
		l.epoch = newEpochRecovery(l, l.clean()+1)
	}
	l.epoch.advance()
	if l.state == stateEpochs && l.epoch.phase == phaseClean {
		l.state, l.storeAt, l.storeFailed, l.storeStale = stateAdvancing, l.now, 0, false
	}
}

func (l *logRecovery) onSeal(ev *event) {
	at, found := slices.BinarySearchFunc(l.sources, ev.of.shard, func(s source, id logs.ShardID) int { return cmp.Compare(s.id, id) })
	if !found {
		return
	}
	s := &l.sources[at]
	s.asked = false
	switch {
	case ev.err != nil:
	case ev.seal.Status == statusPreempted:
		l.preempted(ev.seal.SealEpoch, ev.seal.SealedBy)
		return
	case ev.seal.Status == statusOK:
		s.answered = true
		s.learn(ev.seal)
		return
	case ev.seal.Status == statusPartial:
		s.learn(ev.seal) // it is in doubt, which ends: what it knows to be good is good, but it is asked again
	}
	s.retryAt = l.again(&s.failures)
}

// ---- the epoch store

// tellStore advances the last clean epoch. Whoever else did it first, or whether
// an earlier try that seemed to fail did it, is the same. Who wrote the record is
// left as it is: that is how a sequencer knows its own activation, and nothing of
// that is changed here.
func (l *logRecovery) tellStore() {
	if l.storeAsked || !l.due(l.storeAt) {
		return
	}
	l.storeAsked = true
	if l.storeStale {
		l.call(call{kind: callRead, epoch: l.epoch.epoch})
		return
	}
	r := l.record
	next := &wire.EpochRecord{Version: r.Version + 1, Log: r.Log, Metadata: r.Metadata, LastCleanEpoch: uint32(l.epoch.epoch),
		Tail: l.epoch.tail(), WriterNode: r.WriterNode, WriterIncarnation: r.WriterIncarnation, WriterNonce: r.WriterNonce}
	l.call(call{kind: callSwap, epoch: l.epoch.epoch, expect: r.Version, next: next})
}

func (l *logRecovery) onStore(ev *event) {
	if l.state != stateAdvancing || !l.storeAsked || ev.of.epoch != l.epoch.epoch {
		return
	}
	l.storeAsked = false
	switch {
	case ev.err != nil || ev.record == nil: // of a swap: lost the race, or who knows
		l.storeStale = true
		if l.storeFailed++; l.storeFailed > 1 {
			l.storeAt = l.now + l.cfg.Retry
		}
		return
	case ev.of.kind == callRead:
		l.storeStale = false
	}
	l.record = ev.record
	switch clean := l.clean(); {
	case clean > l.args.UpTo:
		l.preempted(uint32(clean), ev.record.WriterNode)
	case clean >= l.epoch.epoch:
		l.epoch, l.state = nil, stateEpochs
	}
}

func (l *logRecovery) done() {
	tail := l.record.GetTail()
	if tail == nil {
		tail = &wire.TailRecord{Log: uint64(l.args.Log)}
	}
	l.finish(Result{Status: statusOK, Tail: tail, CountBase: tail.Count})
}
