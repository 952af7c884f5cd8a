package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// raftTransport carries what multiraft sends to other nodes.
type raftTransport struct {
	pool      *rpc.Pool
	addresses *addresses
	dead      func() bool // after a fatal fault nothing of this incarnation is sent
}

// to gives the client of a node, nil if it cannot be sent anything.
func (t *raftTransport) to(node catalog.NodeID) *rpc.Client {
	if t.dead() {
		return nil
	}
	if addr := t.addresses.rpc(node); addr != "" {
		return t.pool.To(addr)
	}
	return nil
}

// SendBatch sends Raft messages; what cannot be sent is lost, which Raft expects.
func (t *raftTransport) SendBatch(node catalog.NodeID, b *wire.RaftBatch) {
	if c := t.to(node); c != nil {
		c.Send(rpc.MethodRaftBatch, b)
	}
}

// SendBeat sends a beat or its answer.
func (t *raftTransport) SendBeat(node catalog.NodeID, b *wire.Beat) {
	if c := t.to(node); c != nil {
		c.Send(rpc.MethodBeat, b)
	}
}

// tailQueryTime bounds one attempt to ask a peer what it knows of a suspect tail.
const tailQueryTime = 2 * time.Second

// TailQuery asks a peer what it knows a replica to have acknowledged.
func (t *raftTransport) TailQuery(node catalog.NodeID, q *wire.TailQuery, done func(*wire.TailAnswer, error)) {
	c := t.to(node)
	if c == nil {
		done(nil, fmt.Errorf("node %d: %w", node, rpc.ErrUnreachable))
		return
	}
	resp := new(wire.TailAnswer)
	ctx, cancel := context.WithTimeout(context.Background(), tailQueryTime)
	c.Go(ctx, rpc.MethodTailQuery, q, resp, func(err error) {
		cancel()
		done(resp, err)
	})
}

// SendSnapshotChunk blocks until the peer has taken the chunk.
func (t *raftTransport) SendSnapshotChunk(ctx context.Context, node catalog.NodeID, chunk *wire.SnapshotChunk) error {
	c := t.to(node)
	if c == nil {
		return fmt.Errorf("node %d: %w", node, rpc.ErrUnreachable)
	}
	var ack wire.SnapshotAck
	if err := c.Call(ctx, rpc.MethodSnapshotChunk, chunk, &ack); err != nil {
		return err
	}
	if ack.Error != nil {
		return errors.New(ack.Error.Message)
	}
	return nil
}
