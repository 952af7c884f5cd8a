package sequencer

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/placement"
	"github.com/braiddb/braid/internal/wire"
)

// core owns the sequencers of one loop. Only step enters it.
type core struct {
	cfg   *Config
	self  catalog.NodeID
	inc   uint64
	rng   *rand.Rand
	m     *Metrics
	share *share
	// view and attributes are inputs as events are: what they give changes only
	// when the host said evCluster or evLogs.
	view       func() *logs.Cluster
	attributes func(logs.LogID) (*catalog.LogAttributes, bool)

	now     time.Duration
	wallMs  int64
	cluster *logs.Cluster
	// known is who served as what when evCluster was last taken.
	known map[catalog.NodeID]logs.ClusterNode

	logs   map[logs.LogID]*sequencer
	order  []*sequencer // as they were made: what walks over all of them goes by
	gone   int          // of those, how many are dropped
	wheel  wheel
	shards map[logs.ShardID]*shardHealth
	sets   map[string]*replicaSet
	towns  map[string]*audience
	// slow is the upper envelope of how long shards took to store of late.
	slow time.Duration

	dirty      []*sequencer // whose releases are to be sent at the end of the turn
	activating int
	queue      []*sequencer // wait for a place among the activating
	calls      map[uint64]call
	token      uint64
	inFlight   int // records without all their copies
	stopping   bool
	closed     bool
	configAge  uint64 // grows when what a nodeset is chosen from changes
	sweep      sweep
	round      round
	isolated   timer
	fx         effects
	routeSlot  map[catalog.NodeID]int // of fx.batches
	spare      []logs.ShardID
	stuck      []*appender // found no copyset
	// What a copyset avoids, and what it avoids still once the graylist yields.
	avoid, avoidRefusing func(logs.ShardID) bool
}

// share is what the loops of a node have in common.
type share struct {
	bytes atomic.Int64 // of all appends that wait or fly
}

// eventKind says what happened.
type eventKind uint8

const (
	evAppend eventKind = iota
	evStored
	evRead
	evSwapped
	evRecovered
	evAnswered
	evState
	evCluster
	evLogs
	evTimer
	evDrain
	evClose
	evCall
)

// event is one thing that happened.
type event struct {
	kind   eventKind
	append pending
	batch  *wire.LogBatch
	log    logs.LogID
	token  uint64
	record *wire.EpochRecord
	result *RecoveryResult
	answer any // of a shard: the response
	err    error
	state  *stateRequest
	call   func(*core)
}

// pending is an append without an LSN.
type pending struct {
	req     *wire.AppendRequest
	reply   func(*wire.AppendResponse)
	count   uint32        // payloads
	bad     string        // why the payload cannot be taken, as the host found
	arrived time.Duration // 0 until the core has seen it
	// gathered: the append stands for all that were gathered in it.
	gathered *gathering
}

// effects is what one turn asks of the host.
type effects struct {
	batches    []outBatch
	answers    []answer
	states     []stateAnswer
	reads      []storeRead
	swaps      []storeSwap
	recoveries []recoverStart
	cancels    []uint64
	calls      []shardCall
	notices    []Notice
	fatal      error
	timer      time.Duration // when to wake; 0: nothing waits
}

type outBatch struct {
	node   catalog.NodeID
	parcel *parcel
}

// parcel is what a turn sends to one node, with what it usually needs in one piece
// of memory.
type parcel struct {
	batch    wire.LogBatch
	stores   [4]*wire.Store
	releases [2]*wire.Release
	room     []wire.Release
	first    [1]wire.Release
}

// release adds one to the message.
func (p *parcel) release() *wire.Release {
	if len(p.room) == 0 {
		p.room = make([]wire.Release, 16)
	}
	r := &p.room[0]
	p.room = p.room[1:]
	p.batch.Releases = append(p.batch.Releases, r)
	return r
}

type answer struct {
	reply func(*wire.AppendResponse)
	resp  *wire.AppendResponse
}

type storeRead struct {
	log   logs.LogID
	token uint64
}

type storeSwap struct {
	log    logs.LogID
	token  uint64
	expect uint64
	next   *wire.EpochRecord
}

type recoverStart struct {
	token uint64
	args  RecoverArgs
}

// shardCall is a question to a storage node. Exactly one request is set.
type shardCall struct {
	token    uint64
	shard    logs.ShardID
	seal     *wire.CheckSealRequest
	lookup   *wire.ProducerLookupRequest
	metadata *wire.ReadMetadataRequest
}

// call is a question under way.
type call struct {
	shard logs.ShardID
	done  func(answer any, err error)
}

func newCore(cfg *Config, d *Deps, m *Metrics, sh *share, rng *rand.Rand) *core {
	c := &core{cfg: cfg, self: d.Self, inc: d.Incarnation, rng: rng, m: m, share: sh, view: d.Cluster, attributes: d.Attributes,
		logs: make(map[logs.LogID]*sequencer), shards: make(map[logs.ShardID]*shardHealth), sets: make(map[string]*replicaSet),
		towns: make(map[string]*audience), calls: make(map[uint64]call), routeSlot: make(map[catalog.NodeID]int),
		slow: cfg.StoreTimeout}
	c.avoid = func(s logs.ShardID) bool { return !c.usable(s, false) }
	c.avoidRefusing = func(s logs.ShardID) bool { return !c.usable(s, true) }
	c.isolated.kind = timerIsolated
	c.sweep.timer.kind = timerSweep
	c.round.timer.kind = timerRound
	c.cluster = c.view()
	c.known = make(map[catalog.NodeID]logs.ClusterNode)
	c.rememberNodes()
	return c
}

// burst is how many of a kind a turn may have before the memory for it is let go.
const burst = 1024

// step takes what happened and gives what is to be done. The effects are valid
// until the next step.
func (c *core) step(now time.Duration, wallMs int64, events []event) *effects {
	c.now, c.wallMs = max(c.now, now), max(c.wallMs, wallMs)
	c.fx.reset()
	clear(c.routeSlot)
	for _, t := range c.wheel.advance(c.now) {
		if t.slot == 0 { // not set again meanwhile
			c.ring(t)
		}
	}
	for i := range events {
		c.take(&events[i])
	}
	c.compact()
	c.sendReleases()
	c.fx.timer = c.wheel.next()
	return &c.fx
}

func (c *core) take(e *event) {
	switch e.kind {
	case evAppend:
		c.append(e.append)
	case evStored:
		c.stored(e.batch)
		c.confirmed(e.batch)
	case evRead, evSwapped, evRecovered:
		c.outcome(e)
	case evAnswered:
		if q, ok := c.calls[e.token]; ok {
			delete(c.calls, e.token)
			q.done(e.answer, e.err)
		}
	case evState:
		c.askedState(e.state)
	case evCluster:
		c.clusterChanged()
	case evLogs:
		c.logsChanged()
	case evDrain:
		c.drain()
	case evClose:
		c.close()
	case evCall:
		e.call(c)
	case evTimer: // the wheel has been turned
	}
}

// outcome is what the epoch store or the recoverer said.
func (c *core) outcome(e *event) {
	s := c.logs[e.log]
	if s == nil || c.closed {
		return
	}
	switch {
	case e.kind == evRecovered:
		if s.cur != nil && s.cur.recovery == e.token {
			s.recovered(e.result, e.err)
		}
	case s.act != nil && s.act.token == e.token:
		if e.kind == evRead {
			s.act.read(e.record, e.err)
		} else {
			s.act.swapped(e.err)
		}
	case s.cur != nil && s.cur.mark.token == e.token:
		if e.kind == evRead {
			s.cur.markRead(e.record, e.err)
		} else {
			s.cur.marked(e.err)
		}
	}
}

// ring is what happens when a timer runs out.
func (c *core) ring(t *timer) {
	switch t.kind {
	case timerWave:
		t.a.waveTimedOut()
	case timerProbe:
		t.h.ring()
	case timerSweep:
		c.goOn()
	case timerRound:
		c.tellSlice()
	case timerIsolated:
		c.letGo()
	default:
		t.s.ring(t.kind)
	}
}

func (c *core) nextToken() uint64 {
	c.token++
	return c.token
}

// ask puts a question to a shard. done is called in a later turn, or never if
// the core forgets the token.
func (c *core) ask(q shardCall, done func(answer any, err error)) uint64 {
	q.token = c.nextToken()
	c.calls[q.token] = call{shard: q.shard, done: done}
	c.fx.calls = append(c.fx.calls, q)
	return q.token
}

// parcelTo is the message that this turn sends to a node.
func (c *core) parcelTo(node catalog.NodeID) *parcel {
	i, ok := c.routeSlot[node]
	if !ok {
		i = len(c.fx.batches)
		c.routeSlot[node] = i
		p := &parcel{}
		p.batch.FromNode, p.batch.ToNode, p.batch.Incarnation = uint64(c.self), uint64(node), c.inc
		p.batch.Stores, p.batch.Releases, p.room = p.stores[:0], p.releases[:0], p.first[:]
		c.fx.batches = append(c.fx.batches, outBatch{node, p})
	}
	return c.fx.batches[i].parcel
}

func (c *core) answer(reply func(*wire.AppendResponse), r *wire.AppendResponse) {
	if reply != nil {
		c.fx.answers = append(c.fx.answers, answer{reply, r})
	}
}

// refuse answers an append that got no LSN.
func (c *core) refuse(p *pending, st wire.LogStatus, message string) {
	c.m.Refused.Add(1)
	c.answer(p.reply, &wire.AppendResponse{Status: st, Message: message, Log: p.req.Log})
}

func (c *core) notice(n Notice) { c.fx.notices = append(c.fx.notices, n) }

// reset empties the effects. What a burst made large is not kept.
func (f *effects) reset() {
	if cap(f.answers) > burst || cap(f.batches) > burst || cap(f.reads) > burst || cap(f.swaps) > burst || cap(f.calls) > burst || cap(f.notices) > burst {
		*f = effects{}
		return
	}
	clear(f.batches)
	clear(f.answers)
	clear(f.states)
	clear(f.swaps)
	clear(f.recoveries)
	clear(f.calls)
	*f = effects{batches: f.batches[:0], answers: f.answers[:0], states: f.states[:0], reads: f.reads[:0], swaps: f.swaps[:0],
		recoveries: f.recoveries[:0], cancels: f.cancels[:0], calls: f.calls[:0], notices: f.notices[:0]}
}

// locate is the node that should sequence a log.
func (c *core) locate(log logs.LogID, attrs *catalog.LogAttributes) (catalog.NodeID, bool) {
	return placement.SequencerNode(c.cluster, log, attrs.GetSequencerAffinity())
}
