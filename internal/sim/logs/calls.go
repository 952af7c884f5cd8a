package logs

import (
	"fmt"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/logs/store"
	"github.com/braiddb/braid/internal/placement"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/sim"
	"github.com/braiddb/braid/internal/wire"
)

// door serves one method of a node.
type door struct {
	fresh func() rpc.Message
	serve func(req rpc.Message, reply func(rpc.Message))
}

type message[T any] interface {
	*T
	rpc.Message
}

// served makes a door of a typed method.
func served[T any, Q message[T], R rpc.Message](f func(req Q, reply func(R))) door {
	return door{func() rpc.Message { return Q(new(T)) }, func(req rpc.Message, reply func(rpc.Message)) {
		f(req.(Q), func(r R) { reply(r) })
	}}
}

// serve makes the table of what a life of a node serves.
func (m *member) serve() {
	s, q := m.store, m.sequencer
	m.doors = map[rpc.Method]door{
		rpc.MethodClusterState: served(func(_ *wire.ClusterStateRequest, reply func(*wire.ClusterStateResponse)) {
			reply(m.gossip.ClusterState())
		}),
		rpc.MethodAppend: served(m.append), rpc.MethodSequencerState: served(q.State),
		rpc.MethodReadStart: served(s.ReadStart), rpc.MethodReadNext: served(s.ReadNext), rpc.MethodReadStop: served(s.ReadStop),
		rpc.MethodReadMetadata: served(s.ReadMetadata), rpc.MethodTrim: served(m.trim),
		rpc.MethodLogState: served(s.LogState), rpc.MethodRecords: served(s.Records),
		rpc.MethodSeal: served(m.seal), rpc.MethodDigest: served(m.digest), rpc.MethodClean: served(m.clean),
		rpc.MethodCheckSeal: served(s.CheckSeal), rpc.MethodEpochRecovery: served(s.EpochRecovery), rpc.MethodProducerLookup: served(s.ProducerLookup),
	}
}

// slabBytes hold many messages, of which most are small and short-lived.
const slabBytes = 32 << 10

// room is memory for a message.
func (c *cluster) room(n int) []byte {
	if n > len(c.slab) {
		c.slab = make([]byte, max(n, slabBytes))
	}
	raw := c.slab[:n:n]
	c.slab = c.slab[n:]
	return raw
}

func (c *cluster) encode(m rpc.Message) []byte {
	raw := c.room(m.SizeVT())
	if _, err := m.MarshalToSizedBufferVT(raw); err != nil {
		c.w.Fail("a message does not marshal: %w", err)
	}
	c.w.NoteBytes(raw)
	return raw
}

// decode reads a message. It copies: what is doubled is decoded twice.
func (c *cluster) decode(raw []byte, into rpc.Message) bool {
	if err := into.UnmarshalVT(raw); err != nil {
		c.w.Fail("a message does not unmarshal: %w", err)
		return false
	}
	return true
}

// silenceMax is how long a connection of internal/rpc stands a peer that does not
// even answer pings.
const silenceMax = 4 * time.Second

// call asks another node; done is called once, if the life that asks lasts. What is
// lost on its way is noticed as on a connection, long before the limit: a peer that
// has the question is silent as long as it needs to, one that has not is asked in vain.
func (m *member) call(to catalog.NodeID, method rpc.Method, limit time.Duration, req, resp rpc.Message, done func(error)) {
	if m.fatal != nil {
		return
	}
	c, w, p := m.c, m.w, m.c.members[to-1]
	over, life := false, m.n.Life()
	var late sim.Timer
	end := func(err error) {
		if !over && m.n.Life() == life { // what a connection of an earlier life answers finds nobody
			over = true
			late.Stop()
			done(err)
		}
	}
	if (!p.n.Alive() || !w.Net.Reaches(m.n.ID, p.n.ID)) && w.OneIn(2) {
		m.n.After(w.Between(0, 5*time.Millisecond), "unreachable", func() { end(fmt.Errorf("node %d: %w", to, rpc.ErrUnreachable)) })
		return
	}
	late = m.n.After(limit, "late", func() { end(rpc.ErrDeadline) })
	raw, arrived, serving := c.encode(req), false, 0 // by which life of the peer
	var tick func()
	tick = func() {
		switch {
		case over:
		case serving != p.n.Life() || !p.n.Up() || !w.Net.Reaches(m.n.ID, p.n.ID) || !w.Net.Reaches(p.n.ID, m.n.ID):
			end(fmt.Errorf("node %d: %w", to, rpc.ErrLost))
		default:
			m.n.After(silenceMax, "silent", tick)
		}
	}
	if limit > silenceMax {
		m.n.After(silenceMax, "silent", tick)
	}
	m.n.Send(p.n.ID, method.String(), len(raw), func() {
		if arrived {
			return // a connection doubles nothing
		}
		arrived, serving = true, p.n.Life()
		p.answer(method, raw, func(out []byte) {
			serving = 0
			p.n.Send(m.n.ID, "answer", len(out), func() {
				if !over && m.n.Life() == life && c.decode(out, resp) {
					end(nil)
				}
			})
		})
	})
}

// answer serves a request that arrived. A node that is gone says nothing.
func (m *member) answer(method rpc.Method, raw []byte, send func([]byte)) {
	d, ok := m.doors[method]
	if !ok || m.fatal != nil {
		return
	}
	req := d.fresh()
	if m.c.decode(raw, req) {
		d.serve(req, func(r rpc.Message) {
			if m.fatal == nil {
				send(m.c.encode(r))
			}
		})
	}
}

// Bounds on the answers of storage nodes.
const (
	callTime   = 5 * time.Second
	digestTime = 30 * time.Second
)

// ask asks a shard: a function call where it is the node's own.
func ask[T any, R message[T]](m *member, shard logs.ShardID, method rpc.Method, limit time.Duration, req rpc.Message, local func(reply func(R)), done func(R, error)) {
	if m.fatal != nil {
		return
	}
	if m.c.w.TracingMessages() {
		done = traced(m.c.w, fmt.Sprintf("node %d", m.n.ID), shard.Node(), method, req, done)
	}
	if int(shard.Node()) == m.n.ID {
		local(func(r R) {
			if m.fatal == nil {
				done(r, nil)
			}
		})
		return
	}
	resp := R(new(T))
	m.call(shard.Node(), method, limit, req, resp, func(err error) { done(resp, err) })
}

// calls is what sequencers, recovery and purging say to storage nodes.
type calls struct{ m *member }

// SendStores gives a storage node copies and releases.
func (k calls) SendStores(node catalog.NodeID, b *wire.LogBatch) {
	m := k.m
	if m.fatal != nil {
		return
	}
	m.spy.sends(node, b)
	if m.c.w.TracingMessages() {
		m.traceBatch(node, b)
	}
	if int(node) == m.n.ID {
		m.store.HandleBatch(b, m.checked(m.takeStored))
		return
	}
	m.sendBatch(node, b)
}

func (m *member) sendBatch(to catalog.NodeID, b *wire.LogBatch) {
	raw, arrived := m.c.encode(b), false
	p := m.c.members[to-1]
	m.n.Send(int(to), "batch", len(raw), func() {
		if arrived {
			return // a connection doubles nothing (rpc R8)
		}
		arrived = true
		in := new(wire.LogBatch)
		if p.fatal == nil && p.c.decode(raw, in) {
			p.handleBatch(in)
		}
	})
}

// handleBatch takes what another node has to say about logs.
func (m *member) handleBatch(b *wire.LogBatch) {
	if len(b.Stored)+len(b.Released) > 0 {
		m.takeStored(b)
	}
	if len(b.Stores)+len(b.Releases) == 0 {
		return
	}
	from := b.FromNode
	m.store.HandleBatch(b, m.checked(func(answers *wire.LogBatch) {
		answers.FromNode, answers.ToNode, answers.Incarnation = uint64(m.n.ID), from, uint64(m.n.Life())
		m.sendBatch(catalog.NodeID(from), answers)
	}))
}

// CheckSeal asks whether a shard has sealed an epoch.
func (k calls) CheckSeal(s logs.ShardID, q *wire.CheckSealRequest, done func(*wire.CheckSealResponse, error)) {
	ask(k.m, s, rpc.MethodCheckSeal, callTime, q, func(r func(*wire.CheckSealResponse)) { k.m.store.CheckSeal(q, r) }, done)
}

// ProducerLookup asks what a shard has of a producer.
func (k calls) ProducerLookup(s logs.ShardID, q *wire.ProducerLookupRequest, done func(*wire.ProducerLookupResponse, error)) {
	ask(k.m, s, rpc.MethodProducerLookup, callTime, q, func(r func(*wire.ProducerLookupResponse)) { k.m.store.ProducerLookup(q, r) }, done)
}

// ReadMetadata asks for a log's metadata log on a shard.
func (k calls) ReadMetadata(s logs.ShardID, q *wire.ReadMetadataRequest, done func(*wire.ReadMetadataResponse, error)) {
	ask(k.m, s, rpc.MethodReadMetadata, callTime, q, func(r func(*wire.ReadMetadataResponse)) { k.m.store.ReadMetadata(q, r) }, done)
}

// Seal fences a shard against earlier epochs.
func (k calls) Seal(s logs.ShardID, q *wire.SealRequest, done func(*wire.SealResponse, error)) {
	k.m.comes(momentSeals)
	ask(k.m, s, rpc.MethodSeal, callTime, q, func(r func(*wire.SealResponse)) { k.m.seal(q, r) }, done)
}

// Digest asks for a shard's records of an epoch.
func (k calls) Digest(s logs.ShardID, q *wire.DigestRequest, done func(*wire.DigestResponse, error)) {
	k.m.comes(momentDigests)
	ask(k.m, s, rpc.MethodDigest, digestTime, q, func(r func(*wire.DigestResponse)) { k.m.digest(q, r) }, done)
}

// Clean tells a shard how an epoch ended.
func (k calls) Clean(s logs.ShardID, q *wire.CleanRequest, done func(*wire.CleanResponse, error)) {
	k.m.c.truths[logs.LogID(q.Log)-1].closes(q)
	k.m.comes(momentCleans)
	ask(k.m, s, rpc.MethodClean, callTime, q, func(r func(*wire.CleanResponse)) { k.m.clean(q, r) }, done)
}

// EpochRecovery asks how epochs ended, by a shard's account.
func (k calls) EpochRecovery(s logs.ShardID, q *wire.EpochRecoveryRequest, done func(*wire.EpochRecoveryResponse, error)) {
	ask(k.m, s, rpc.MethodEpochRecovery, callTime, q, func(r func(*wire.EpochRecoveryResponse)) { k.m.store.EpochRecovery(q, r) }, done)
}

// Records asks what a shard has of a log, copy by copy.
func (k calls) Records(s logs.ShardID, q *wire.RecordsRequest, done func(*wire.RecordsResponse, error)) {
	ask(k.m, s, rpc.MethodRecords, digestTime, q, func(r func(*wire.RecordsResponse)) { k.m.store.Records(q, r) }, done)
}

// LogState asks what a shard holds to be true of logs.
func (k calls) LogState(s logs.ShardID, q *wire.LogStateRequest, done func(*wire.LogStateResponse, error)) {
	ask(k.m, s, rpc.MethodLogState, digestTime, q, func(r func(*wire.LogStateResponse)) { k.m.store.LogState(q, r) }, done)
}

// Sequencer is the node that should number a log.
func (k calls) Sequencer(log logs.LogID) (catalog.NodeID, bool) {
	return placement.SequencerNode(k.m.gossip.View(), log, "")
}

// SequencerState asks who numbers a log.
func (k calls) SequencerState(node catalog.NodeID, q *wire.SequencerStateRequest, done func(*wire.SequencerStateResponse, error)) {
	ask(k.m, logs.MakeShard(node, 0), rpc.MethodSequencerState, digestTime, q, func(r func(*wire.SequencerStateResponse)) { k.m.sequencer.State(q, r) }, done)
}

// recoveryCookie marks the cookies of recovery's copies, as internal/node does.
const recoveryCookie = 1 << 63

const storeTime = 2 * time.Second

// Store has a shard keep a copy that recovery decided on.
func (k calls) Store(shard logs.ShardID, s *wire.Store, done func(*wire.Stored, error)) {
	m := k.m
	m.cookies++
	cookie := m.cookies | recoveryCookie
	m.mutations[cookie] = done
	m.n.After(storeTime, "not stored", func() { m.finish(cookie, nil, rpc.ErrDeadline) })
	sent := &wire.Store{Record: s.Record, SealEpoch: s.SealEpoch, Draining: s.Draining, Amend: s.Amend, Cookie: cookie}
	m.c.truths[logs.LogID(s.Record.Log)-1].decides(s, m)
	if r := s.Record; r.Flags&logs.FlagHole != 0 && r.Flags&logs.FlagBridge == 0 {
		m.w.Sometimes("recovery: holes")
	}
	k.SendStores(shard.Node(), &wire.LogBatch{FromNode: uint64(m.n.ID), ToNode: uint64(shard.Node()), Incarnation: uint64(m.n.Life()), Stores: []*wire.Store{sent}})
	m.comes(momentDecides)
}

func (m *member) finish(cookie uint64, s *wire.Stored, err error) {
	if done := m.mutations[cookie]; done != nil {
		delete(m.mutations, cookie)
		done(s, err)
	}
}

// takeStored hands answers to who asked: recovery or the sequencer.
func (m *member) takeStored(b *wire.LogBatch) {
	rest := &wire.LogBatch{FromNode: b.FromNode, ToNode: b.ToNode, Incarnation: b.Incarnation, Released: b.Released}
	for _, s := range b.Stored {
		if s.Cookie&recoveryCookie != 0 {
			m.finish(s.Cookie, s, nil)
		} else {
			rest.Stored = append(rest.Stored, s)
		}
	}
	m.spy.stored(b)
	if len(rest.Stored)+len(rest.Released) > 0 {
		m.sequencer.HandleStored(rest)
	}
}

// checked is L1: a copy is on the disk before anybody is told.
func (m *member) checked(reply func(*wire.LogBatch)) func(*wire.LogBatch) {
	return func(b *wire.LogBatch) {
		for _, s := range b.Stored {
			if m.c.w.TracingMessages() {
				m.traceStored(s)
			}
			if s.Status == wire.LogStatus_LOG_STATUS_OK && m.synced == 0 {
				m.w.Fail("node %d says STORED of log %d %s before its disk does", m.n.ID, s.Log, logs.LSN(s.Lsn))
			}
			if id := logs.LogID(s.Log); s.Status == wire.LogStatus_LOG_STATUS_OK && m.c.beyond() && !id.IsMetadata() {
				m.c.truths[id-1].keeps(logs.LSN(s.Lsn), m)
			}
			if s.Status == wire.LogStatus_LOG_STATUS_OK {
				m.keepsOut(s)
			}
		}
		if m.fatal == nil {
			reply(b)
			m.comes(momentStored)
		}
	}
}

// purge has the node learn what recovery decided while it was away.
func (m *member) purge(log logs.LogID, clean logs.Epoch, release logs.LSN) {
	m.w.Sometimes("shard: purged")
	if m.purger != nil {
		m.purger.Purge(log, clean, release)
		return
	}
	m.n.After(200*time.Millisecond, "purge", func() { m.purge(log, clean, release) })
}

var _ store.Journal = simJournal{}
