package multiraft

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/raft/v3"
	pb "go.etcd.io/raft/v3/raftpb"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/journal"
	"github.com/braiddb/braid/internal/wire"
)

// core owns the groups of one loop. It is deterministic: what it does follows
// from its events, the times it is handed, its dice and its clock.
type core struct {
	cfg     *Config
	self    catalog.NodeID
	inc     uint64
	clock   *hlc.Clock
	pairs   *pairs
	dice    *rand.Rand
	metrics *Metrics
	logger  *slog.Logger

	now    time.Duration // of the turn under way
	groups map[catalog.GroupID]*group
	order  []*group // by creation; what is walked is walked in this order
	nextID ProposalID

	ready      []*group // touched in this turn
	active     []*group // led, with something outstanding: they beat
	shaky      []*group // led, with a lease that may have lapsed: they are ticked
	orphans    []*group // not led, with own proposals of unknown outcome
	held       []*group // proposals wait for entries on their way
	doubting   []*group // with a suspect tail
	alarms     alarms
	seen       []pairView // peers at the last sweep
	lapseAt    time.Duration
	running    []*group // campaigns under way
	candidates []*group // those that wait for one to end
	bytes      int64    // of all logs
	leaving    int      // snapshot streams under way
	draining   bool
	pace       time.Duration // what a turn of the loop takes of late; its host says

	turn      uint64 // newest append handed out
	done      uint64 // newest append that is durable
	flights   []*flight
	farewells []*farewell

	fx      effects
	enc     []byte // of the entry being proposed; raft copies it
	viewBuf []pairView
}

// effects is what a turn asks of the world. It is good until the next turn.
type effects struct {
	batches   []*nodeBatch // one per peer node with something to hear
	beats     []*nodeBeats
	records   []journal.Record // one append, if any
	turn      uint64           // names the append
	applies   []*applyTask
	answers   []answer
	snapshots []*snapshotTask
	giveUps   []*snapshotTask // streams to end
	restores  []*restoreTask
	discards  []Spool
	queries   []tailQuery
	lowWaters []lowWater
	removed   []*group      // the configuration dropped them
	destroyed []*group      // to be destroyed after what is being applied
	timer     time.Duration // when to step at the latest; 0: only on events
}

type nodeBatch struct {
	to    catalog.NodeID
	batch *wire.RaftBatch
	bytes int
}

type nodeBeats struct {
	to   catalog.NodeID
	beat *wire.Beat
}

type answer struct {
	p *Proposal
	r ProposalResult
}

type lowWater struct {
	stream journal.StreamID
	pos    uint64
}

type eventKind uint8

const (
	evBatch    eventKind = iota + 1 // messages from a peer node
	evBeats                         // groups of a peer's beat
	evPropose                       // one proposal
	evDurable                       // an append is done
	evApplied                       // entries are applied
	evBeat                          // a beat of this node is due
	evTimer                         // the time asked for has come
	evSweep                         // a peer may have gone: look now
	evCreate                        // a group begins here
	evRemove                        // a group ends here
	evTransfer                      // hand leadership over
	evChange                        // change the configuration
	evFlushed                       // the state machine is durable up to an index
	evSnapshot                      // a snapshot came in whole
	evRestored                      // it was restored
	evStreamed                      // a snapshot was sent, or not
	evTail                          // a peer answered about a suspect tail
	evAsked                         // a peer asks about its suspect tail
	evDrain                         // lead nothing from now on
	evCall                          // look at the core between turns
)

// event is something that happened. Which fields are set follows from kind.
type event struct {
	kind     eventKind
	group    *group
	batch    *inBatch
	proposal *Proposal
	turn     uint64
	err      error
	task     *applyTask
	restore  *restoreTask
	snapshot *inSnapshot
	stream   *snapshotTask
	index    uint64
	replica  catalog.ReplicaID
	change   *changeRequest
	tail     *tailEvent
	call     func(*core)
}

// inBatch is what a peer node said to this core's groups.
type inBatch struct {
	from  catalog.NodeID
	inc   uint64
	msgs  []inMessage
	beats []*wire.GroupBeat
	bytes int64 // of the messages, as the mailbox counts them
}

type inMessage struct {
	env *wire.Envelope
	msg *pb.Message
}

func newCore(d *Deps, cfg *Config, p *pairs, m *Metrics, dice *rand.Rand) *core {
	return &core{
		cfg: cfg, self: d.Node, inc: d.Incarnation, clock: d.Clock, pairs: p, dice: dice, metrics: m, logger: d.Logger,
		groups: make(map[catalog.GroupID]*group),
		nextID: ProposalID(dice.Uint64()),
	}
}

// step is one turn: everything that happened is taken, what waits in a group
// becomes one entry, and what Raft wants done leaves as effects. now is read
// before the turn: too early is safe everywhere here, see pairs.
func (c *core) step(now time.Duration, events []event) *effects {
	c.begin(now)
	for i := range events {
		c.take(&events[i])
	}
	c.fireAlarms()
	c.proposeWaiting()
	c.collectReady()
	for c.resumeHeld() {
		c.proposeWaiting()
		c.collectReady()
	}
	c.finish()
	return &c.fx
}

func (c *core) begin(now time.Duration) {
	c.now = max(now, c.now)
	f := &c.fx
	clear(f.batches)
	clear(f.applies)
	clear(f.answers)
	*f = effects{batches: f.batches[:0], beats: f.beats[:0], applies: f.applies[:0], answers: f.answers[:0],
		snapshots: f.snapshots[:0], restores: f.restores[:0], lowWaters: f.lowWaters[:0]}
}

func (c *core) take(e *event) {
	switch e.kind {
	case evBatch:
		for i := range e.batch.msgs {
			c.hearMessage(e.batch, &e.batch.msgs[i])
		}
	case evBeats:
		for _, b := range e.batch.beats {
			c.hearGroupBeat(e.batch, b)
		}
	case evPropose:
		c.queue(e.proposal)
	case evDurable:
		c.durable(e.turn)
	case evApplied:
		c.applied(e.task)
	case evBeat:
		c.beat()
	case evTimer:
	case evSweep:
		c.sweep()
	case evCreate:
		c.create(e.group)
	case evRemove:
		c.remove(e.group)
	case evTransfer:
		c.transfer(e.group, e.replica)
	case evChange:
		c.change(e.group, e.change)
	case evFlushed:
		c.flushed(e.group, e.index)
	case evSnapshot:
		c.hearSnapshot(e.snapshot)
	case evRestored:
		c.restored(e.restore)
	case evStreamed:
		c.streamed(e.stream, e.err)
	case evTail:
		c.hearTail(e.tail)
	case evAsked:
		c.askedTail(e.tail)
	case evDrain:
		c.drain()
	case evCall:
		e.call(c)
	default:
		panic(fmt.Sprintf("multiraft: event %d", e.kind))
	}
}

// touch puts a group among those whose raft is looked at in this turn.
func (c *core) touch(g *group) {
	if !g.touched && g.rn != nil {
		g.touched = true
		c.ready = append(c.ready, g)
	}
}

// collectReady takes from every touched raft what it wants done. Taking may
// touch again: what needs no disk is answered at once.
func (c *core) collectReady() {
	for i := 0; i < len(c.ready); i++ {
		g := c.ready[i]
		g.touched = false
		c.collect(g)
	}
	clear(c.ready)
	c.ready = c.ready[:0]
}

// collect takes one Ready of a group: state first, since the gate must close
// before a vote leaves; then what raft wants said, stored and applied.
func (c *core) collect(g *group) {
	if g.rn == nil || !g.rn.HasReady() {
		return
	}
	rd := g.rn.Ready()
	if rd.HardState != nil {
		g.term, g.vote, g.commit = rd.HardState.GetTerm(), rd.HardState.GetVote(), rd.HardState.GetCommit()
	}
	g.unread = false
	if rd.SoftState != nil {
		c.roleChanged(g, rd.SoftState)
	}
	for _, m := range rd.Messages {
		switch m.GetTo() {
		case raft.LocalAppendThread:
			c.store(g, m)
		case raft.LocalApplyThread:
			c.apply(g, m)
		default:
			c.say(g, m)
		}
	}
	for _, p := range g.peers {
		p.probe = false
	}
	c.failRefusedChange(g)
	g.publish()
	if g.rn != nil && g.rn.HasReady() {
		c.touch(g)
	}
}

// finish closes the turn's append and says when to come back.
func (c *core) finish() {
	if len(c.fx.records) > 0 {
		c.fx.turn = c.turn
	}
	if len(c.fx.batches) > 0 {
		ht := uint64(c.clock.Now())
		for _, b := range c.fx.batches {
			b.batch.HybridTime = ht
		}
	}
	for _, b := range c.fx.beats {
		b.beat.HybridTime = uint64(c.clock.Now())
	}
	c.fx.timer = c.alarms.next()
	if c.lapseAt != 0 && (c.fx.timer == 0 || c.lapseAt < c.fx.timer) {
		c.fx.timer = c.lapseAt
	}
}

// stepRaft hands a message to a group's raft. Raft's own refusals (dropped
// proposals apart, which have a path of their own) carry no meaning here.
func (c *core) stepRaft(g *group, m *pb.Message) {
	if err := g.rn.Step(m); err != nil {
		c.metrics.RaftRefused.Add(1)
	}
	c.touch(g)
}

// envelope wraps a raft message for a node.
func (c *core) envelope(g *group, to catalog.NodeID, m *pb.Message) *wire.Envelope {
	raw, err := proto.Marshal(m)
	if err != nil {
		panic(fmt.Sprintf("multiraft: a raft message does not marshal: %v", err))
	}
	env := &wire.Envelope{Group: uint64(g.id), FromReplica: uint64(g.replica), ToReplica: m.GetTo(),
		Incarnation: c.inc, Raft: raw}
	c.post(to, env)
	return env
}

// A batch is closed when the next envelope would take it beyond
// batchBytesMax: a message too large for the transport would be lost with every
// vote and acknowledgement in it. An envelope alone may be larger.
const (
	batchBytesMax = 4 << 20
	envelopeFixed = 96 // at most, beside raft's message
)

// post puts an envelope into the newest batch for a node, or begins a new one.
func (c *core) post(to catalog.NodeID, env *wire.Envelope) {
	size := len(env.Raft) + envelopeFixed
	for i := len(c.fx.batches) - 1; i >= 0; i-- {
		b := c.fx.batches[i]
		if b.to != to {
			continue
		}
		if b.bytes+size > batchBytesMax {
			break
		}
		b.bytes += size
		b.batch.Envelopes = append(b.batch.Envelopes, env)
		return
	}
	c.fx.batches = append(c.fx.batches, &nodeBatch{to: to, bytes: size, batch: &wire.RaftBatch{
		FromNode: uint64(c.self), ToNode: uint64(to), Incarnation: c.inc, Envelopes: []*wire.Envelope{env}}})
}

// beatsPerMessage bounds the groups of one beat message.
const beatsPerMessage = 4096

// postBeat puts a group's beat into the beat message for a node.
func (c *core) postBeat(to catalog.NodeID, gb *wire.GroupBeat) {
	for i := len(c.fx.beats) - 1; i >= 0; i-- {
		if b := c.fx.beats[i]; b.to == to && len(b.beat.Groups) < beatsPerMessage {
			b.beat.Groups = append(b.beat.Groups, gb)
			return
		}
	}
	c.fx.beats = append(c.fx.beats, &nodeBeats{to: to, beat: &wire.Beat{
		FromNode: uint64(c.self), ToNode: uint64(to), Incarnation: c.inc, Groups: []*wire.GroupBeat{gb}}})
}

// write adds a record to the turn's append and returns the append's name.
func (c *core) write(r journal.Record) uint64 {
	if len(c.fx.records) == 0 {
		c.turn++
		c.flights = append(c.flights, &flight{turn: c.turn, at: c.now})
	}
	c.fx.records = append(c.fx.records, r)
	return c.turn
}

// answer tells a proposal what became of it.
func (c *core) answer(p *Proposal, r ProposalResult) {
	c.fx.answers = append(c.fx.answers, answer{p: p, r: r})
}

// random is a seeded delay in [0, d).
func (c *core) random(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return time.Duration(c.dice.Int64N(int64(d)))
}
