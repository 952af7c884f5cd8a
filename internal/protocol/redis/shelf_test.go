package redis

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/braiddb/braid/client"
	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/hlc"
	"github.com/braiddb/braid/internal/tables/docdb"
	"github.com/braiddb/braid/internal/wire"
)

// shelf is a cluster's table in memory: real operations on a real engine, one
// tablet beside the other, without Raft. It answers from a goroutine of its own,
// as a cluster does, unless inline is set.
type shelf struct {
	inline  bool
	tablets []client.TabletInfo

	mu     sync.Mutex
	engine *docdb.Engine
	last   hlc.Timestamp
	batch  docdb.WriteBatch
	hook   func(ops []*client.Op) error // may refuse, hold up or count requests

	jobs chan func()
	wg   sync.WaitGroup
}

// newShelf makes a shelf with n tablets, cut at slots, led by the nodes in turn.
func newShelf(t testing.TB, n int, nodes ...client.NodeInfo) *shelf {
	t.Helper()
	e, err := docdb.OpenEngine(vfs.NewMem(), "d", docdb.EngineOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s := &shelf{engine: e, jobs: make(chan func(), 4096)}
	if len(nodes) == 0 {
		nodes = []client.NodeInfo{{ID: 1, RedisAddr: "127.0.0.1:6379"}}
	}
	for i := range n {
		info := client.TabletInfo{
			ID: catalog.GroupID(i + 2), HashStart: catalog.SlotStart(uint32(i * catalog.RedisSlots / n)),
			HashEnd: catalog.SlotStart(uint32((i + 1) * catalog.RedisSlots / n)), Leader: nodes[i%len(nodes)].ID,
		}
		for _, node := range nodes {
			info.Replicas = append(info.Replicas, client.ReplicaInfo{Node: node})
		}
		s.tablets = append(s.tablets, info)
	}
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		for job := range s.jobs {
			job()
		}
	}()
	t.Cleanup(func() {
		close(s.jobs)
		s.wg.Wait()
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *shelf) Tablets(context.Context) ([]client.TabletInfo, error) { return s.tablets, nil }

func (s *shelf) StartReply(ops []*client.Op, _ time.Time, done func(client.Reply, error)) {
	job := func() { done(s.carryOut(ops)) }
	if s.inline {
		job()
		return
	}
	s.jobs <- job
}

func (s *shelf) owner(hash uint64) int {
	for i, t := range s.tablets {
		if hash >= t.HashStart && (hash < t.HashEnd || t.HashEnd == 0) {
			return i
		}
	}
	panic("BUG: tablets do not cover the hash space")
}

// carryOut executes operations as the leader of their tablet would.
func (s *shelf) carryOut(ops []*client.Op) (client.Reply, error) {
	if h := s.hook; h != nil {
		if err := h(ops); err != nil {
			return client.Reply{}, err
		}
	}
	tablet := s.owner(ops[0].Hash)
	for _, op := range ops {
		if s.owner(op.Hash) != tablet {
			return client.Reply{}, client.ErrCrossTablet
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	info := s.tablets[tablet]
	view, err := s.engine.View(docdb.Span{Table: catalog.RedisTableID, Start: info.HashStart, End: info.HashEnd}, hlc.Max, nil)
	if err != nil {
		return client.Reply{}, err
	}
	defer view.Close()
	s.batch.Reset()
	now := hlc.FromTime(time.Now())
	x := docdb.NewExec(view, &s.batch, catalog.RedisTableID, now.Millis())
	reply := client.Reply{}
	wrote := false
	for _, op := range ops {
		var r *wire.Result
		if wire.OpCode(op.Code).Write() {
			wrote = true
			r, err = x.Write(op)
		} else {
			r, err = x.Read(op)
		}
		if err != nil {
			return client.Reply{}, &client.Error{Code: client.CodeCorrupt, Message: err.Error()}
		}
		if r.Kind == client.KindError && r.Code == client.CodeConditionFailed {
			return client.Reply{}, &client.Error{Code: client.CodeConditionFailed}
		}
		reply.Results = append(reply.Results, r)
	}
	if wrote {
		reply.Copies = uint32(len(info.Replicas)/2 + 1)
	}
	if !s.batch.Empty() {
		s.last = max(s.last+1<<12, now)
		b := s.engine.NewBatch()
		if _, err := b.Apply(catalog.RedisTableID, s.batch.Encode(nil), s.last, 0); err != nil {
			return client.Reply{}, err
		}
		if err := b.Commit(); err != nil {
			return client.Reply{}, err
		}
	}
	return reply, nil
}
