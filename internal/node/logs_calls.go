package node

import (
	"fmt"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/placement"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// logCalls carries what sequencers, recovery and purging say to storage nodes:
// a function call where the shard is here, rpc elsewhere. No method blocks.
type logCalls struct{ n *Node }

// Bounds on one answer of a storage node. A digest may carry megabytes.
const (
	logCallTime   = 5 * time.Second
	logDigestTime = 30 * time.Second
)

// response is a message that a call can be answered with.
type response[T any] interface {
	*T
	rpc.Message
}

// callShard asks a shard. local serves it where the shard is here.
func callShard[T any, R response[T]](n *Node, shard logs.ShardID, m rpc.Method, limit time.Duration, req rpc.Message, local func(reply func(R)), done func(R, error)) {
	if n.dead.Load() {
		return // after a fatal fault nothing is asked and nothing answered
	}
	node := shard.Node()
	if node == n.nodeID() {
		if n.logs.store == nil {
			done(nil, fmt.Errorf("node %d stores no logs: %w", node, rpc.ErrUnreachable))
			return
		}
		local(func(r R) {
			if !n.dead.Load() {
				done(r, nil)
			}
		})
		return
	}
	addr := n.addresses.rpc(node)
	if addr == "" {
		done(nil, fmt.Errorf("node %d: %w", node, rpc.ErrUnreachable))
		return
	}
	resp := R(new(T))
	n.pool.To(addr).Start(n.deps.Now().Add(limit), m, req, resp, func(err error) { done(resp, err) })
}

// SendStores gives a storage node copies and releases.
func (c logCalls) SendStores(node catalog.NodeID, b *wire.LogBatch) {
	n := c.n
	if n.dead.Load() {
		return
	}
	if node == n.nodeID() {
		if n.logs.store != nil {
			n.logs.store.HandleBatch(b, n.logs.takeStored)
		}
		return
	}
	if addr := n.addresses.rpc(node); addr != "" {
		n.pool.To(addr).Send(rpc.MethodLogBatch, b) // what cannot be sent is lost: the wave's timer sees to it
	}
}

// CheckSeal asks whether a shard has sealed an epoch.
func (c logCalls) CheckSeal(shard logs.ShardID, req *wire.CheckSealRequest, done func(*wire.CheckSealResponse, error)) {
	callShard(c.n, shard, rpc.MethodCheckSeal, logCallTime, req, func(reply func(*wire.CheckSealResponse)) { c.n.logs.store.CheckSeal(req, reply) }, done)
}

// ProducerLookup asks what a shard has of a producer.
func (c logCalls) ProducerLookup(shard logs.ShardID, req *wire.ProducerLookupRequest, done func(*wire.ProducerLookupResponse, error)) {
	callShard(c.n, shard, rpc.MethodProducerLookup, logCallTime, req, func(reply func(*wire.ProducerLookupResponse)) { c.n.logs.store.ProducerLookup(req, reply) }, done)
}

// ReadMetadata asks for a log's metadata log on a shard.
func (c logCalls) ReadMetadata(shard logs.ShardID, req *wire.ReadMetadataRequest, done func(*wire.ReadMetadataResponse, error)) {
	callShard(c.n, shard, rpc.MethodReadMetadata, logCallTime, req, func(reply func(*wire.ReadMetadataResponse)) { c.n.logs.store.ReadMetadata(req, reply) }, done)
}

// Seal fences a shard against earlier epochs.
func (c logCalls) Seal(shard logs.ShardID, req *wire.SealRequest, done func(*wire.SealResponse, error)) {
	callShard(c.n, shard, rpc.MethodSeal, logCallTime, req, func(reply func(*wire.SealResponse)) { c.n.logs.store.Seal(req, reply) }, done)
}

// Digest asks for a shard's records of an epoch.
func (c logCalls) Digest(shard logs.ShardID, req *wire.DigestRequest, done func(*wire.DigestResponse, error)) {
	callShard(c.n, shard, rpc.MethodDigest, logDigestTime, req, func(reply func(*wire.DigestResponse)) { c.n.logs.store.Digest(req, reply) }, done)
}

// Clean tells a shard how an epoch ended.
func (c logCalls) Clean(shard logs.ShardID, req *wire.CleanRequest, done func(*wire.CleanResponse, error)) {
	callShard(c.n, shard, rpc.MethodClean, logCallTime, req, func(reply func(*wire.CleanResponse)) { c.n.logs.store.Clean(req, reply) }, done)
}

// EpochRecovery asks how epochs ended, by a shard's account.
func (c logCalls) EpochRecovery(shard logs.ShardID, req *wire.EpochRecoveryRequest, done func(*wire.EpochRecoveryResponse, error)) {
	callShard(c.n, shard, rpc.MethodEpochRecovery, logCallTime, req, func(reply func(*wire.EpochRecoveryResponse)) { c.n.logs.store.EpochRecovery(req, reply) }, done)
}

// Records asks what a shard has of a log, copy by copy.
func (c logCalls) Records(shard logs.ShardID, req *wire.RecordsRequest, done func(*wire.RecordsResponse, error)) {
	callShard(c.n, shard, rpc.MethodRecords, logDigestTime, req, func(reply func(*wire.RecordsResponse)) { c.n.logs.store.Records(req, reply) }, done)
}

// LogState asks what a shard holds to be true of logs.
func (c logCalls) LogState(shard logs.ShardID, req *wire.LogStateRequest, done func(*wire.LogStateResponse, error)) {
	callShard(c.n, shard, rpc.MethodLogState, logDigestTime, req, func(reply func(*wire.LogStateResponse)) { c.n.logs.store.LogState(req, reply) }, done)
}

// Store has a shard keep a copy that recovery decided on.
func (c logCalls) Store(shard logs.ShardID, s *wire.Store, done func(*wire.Stored, error)) {
	c.n.logs.mutations.Store(shard, s, done)
}

// Sequencer is the node that should number a log.
func (c logCalls) Sequencer(log logs.LogID) (catalog.NodeID, bool) {
	attrs, ok := c.n.logAttributes(log)
	if !ok {
		return 0, false
	}
	return placement.SequencerNode(c.n.logs.gossip.View(), log, attrs.GetSequencerAffinity())
}

// SequencerState asks who numbers a log.
func (c logCalls) SequencerState(node catalog.NodeID, req *wire.SequencerStateRequest, done func(*wire.SequencerStateResponse, error)) {
	n := c.n
	if n.dead.Load() {
		return
	}
	addr := n.addresses.rpc(node)
	switch {
	case node == n.nodeID() && n.logs.sequencer != nil:
		n.logs.sequencer.State(req, func(r *wire.SequencerStateResponse) { done(r, nil) })
		return
	case node == n.nodeID() || addr == "":
		done(nil, fmt.Errorf("node %d: %w", node, rpc.ErrUnreachable))
		return
	}
	resp := new(wire.SequencerStateResponse)
	n.pool.To(addr).Start(n.deps.Now().Add(logDigestTime), rpc.MethodSequencerState, req, resp, func(err error) { done(resp, err) })
}
