package sequencer_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/journal"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/logs/epochstore"
	"github.com/braiddb/braid/internal/logs/recovery"
	"github.com/braiddb/braid/internal/logs/sequencer"
	"github.com/braiddb/braid/internal/logs/store"
	"github.com/braiddb/braid/internal/placement"
	"github.com/braiddb/braid/internal/wire"
)

// instantJournal holds everything durable at once, in order.
type instantJournal struct{ queue chan func(error) }

func newInstantJournal(t *testing.T) *instantJournal {
	j := &instantJournal{queue: make(chan func(error), 10_000)}
	var ended sync.WaitGroup
	ended.Add(1)
	go func() {
		defer ended.Done()
		for done := range j.queue {
			done(nil)
		}
	}()
	t.Cleanup(func() { close(j.queue); ended.Wait() })
	return j
}

func (j *instantJournal) Append(_ []journal.Record, done func(error)) {
	if done == nil {
		done = func(error) {}
	}
	j.queue <- done
}
func (j *instantJournal) SetLowWater(journal.StreamID, uint64) {}
func (j *instantJournal) Full() bool                           { return false }
func (j *instantJournal) Crowded() bool                        { return false }

// rig is three real shards and a real recovery around sequencers.
type rig struct {
	t      *testing.T
	began  time.Time
	stores map[catalog.NodeID]*store.Store
	epochs *epochstore.Memory
	attrs  *catalog.LogAttributes
	view   *logs.Cluster
}

const rigLog = 5

func newRig(t *testing.T, batching bool) *rig {
	r := &rig{t: t, began: time.Now(), stores: map[catalog.NodeID]*store.Store{}, epochs: epochstore.NewMemory()}
	r.attrs = &catalog.LogAttributes{Replication: &catalog.Replication{Node: 2}, NodesetSize: proto.Uint32(0), MaxWritesInFlight: proto.Uint32(100),
		MaxPayloadBytes: proto.Uint32(1 << 20), SequencerBatching: proto.Bool(batching), SequencerBatchingTimeMs: proto.Uint32(2),
		SequencerBatchingBytes: proto.Uint32(1 << 16), SequencerBatchingPassthroughBytes: proto.Uint32(1 << 15)}
	r.view = &logs.Cluster{Version: 1}
	for id := catalog.NodeID(1); id <= 3; id++ {
		r.view.Nodes = append(r.view.Nodes, logs.ClusterNode{ID: id, Incarnation: 1, Alive: true, Sequencer: true, SequencerWeight: 1,
			Storage: true, Writable: true, StorageWeight: 1})
		s, err := store.Open(vfs.NewMem(), "logs", store.Options{Shard: logs.MakeShard(id, 0), Journal: newInstantJournal(t), Stream: journal.StreamID(1),
			Incarnation: 1, Mono: r.mono, WallMs: wallMs, AfterFunc: afterFunc, MemTableBytes: 1 << 20, CacheBytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		r.stores[id] = s
	}
	return r
}

func (r *rig) mono() time.Duration { return time.Since(r.began) }
func wallMs() int64                { return time.Now().UnixMilli() }
func afterFunc(d time.Duration, f func()) func() bool {
	return time.AfterFunc(d, f).Stop
}

// reigning is a node with a sequencer.
type reigning struct {
	*rig
	self catalog.NodeID
	host *sequencer.Host
	rec  *recovery.Host
}

func (r *rig) node(self catalog.NodeID, cfg sequencer.Config) *reigning {
	n := &reigning{rig: r, self: self}
	view := *r.view
	view.Self = self
	n.rec = recovery.NewHost(recovery.Config{}, recovery.Deps{Self: self, Mono: r.mono, AfterFunc: afterFunc, Rand: rand.New(rand.NewPCG(uint64(self), 1)),
		Calls: n, EpochStore: r.epochs, View: func() recovery.View { return rigView{&view} }})
	n.host = sequencer.NewHost(cfg, sequencer.Deps{Self: self, Incarnation: 1, Mono: r.mono, WallMs: wallMs, AfterFunc: afterFunc,
		Rand: rand.New(rand.NewPCG(uint64(self), 2)), EpochStore: r.epochs, Stores: n, Recoverer: n, Cluster: func() *logs.Cluster { return &view },
		Attributes: func(logs.LogID) (*catalog.LogAttributes, bool) { return r.attrs, true }})
	n.host.Start()
	r.t.Cleanup(func() { n.host.Close(); n.rec.Close() })
	return n
}

type rigView struct{ *logs.Cluster }

func (v rigView) Writable(s logs.ShardID) bool                { return v.Alive(s) }
func (v rigView) Authority(logs.ShardID) placement.ShardState { return placement.ShardUnheard }
func (v rigView) Shards() (out []logs.ShardID) {
	for _, n := range v.Nodes {
		out = append(out, logs.MakeShard(n.ID, 0))
	}
	return out
}

func (n *reigning) SendStores(node catalog.NodeID, b *wire.LogBatch) {
	n.stores[node].HandleBatch(b, n.host.HandleStored)
}

func (n *reigning) Recover(a sequencer.RecoverArgs, done func(sequencer.RecoveryResult, error)) func() {
	return n.rec.Recover(recovery.Args{Log: a.Log, UpTo: a.UpTo, Own: a.Own, Metadata: a.Metadata, Record: a.Record}, func(r recovery.Result, err error) {
		done(sequencer.RecoveryResult{Status: r.Status, Record: r.Record, Tail: r.Tail, CountBase: r.CountBase, PreemptedBy: r.PreemptedBy,
			SealEpoch: r.SealEpoch, Message: r.Message}, err)
	})
}

func (n *reigning) Store(s logs.ShardID, st *wire.Store, done func(*wire.Stored, error)) {
	n.stores[s.Node()].HandleBatch(&wire.LogBatch{FromNode: uint64(n.self), Stores: []*wire.Store{st}}, func(b *wire.LogBatch) { done(b.Stored[0], nil) })
}

func told[R any](done func(R, error)) func(R) { return func(r R) { done(r, nil) } }

func (n *reigning) CheckSeal(s logs.ShardID, q *wire.CheckSealRequest, done func(*wire.CheckSealResponse, error)) {
	n.stores[s.Node()].CheckSeal(q, told(done))
}
func (n *reigning) ProducerLookup(s logs.ShardID, q *wire.ProducerLookupRequest, done func(*wire.ProducerLookupResponse, error)) {
	n.stores[s.Node()].ProducerLookup(q, told(done))
}
func (n *reigning) ReadMetadata(s logs.ShardID, q *wire.ReadMetadataRequest, done func(*wire.ReadMetadataResponse, error)) {
	n.stores[s.Node()].ReadMetadata(q, told(done))
}
func (n *reigning) Seal(s logs.ShardID, q *wire.SealRequest, done func(*wire.SealResponse, error)) {
	n.stores[s.Node()].Seal(q, told(done))
}
func (n *reigning) Digest(s logs.ShardID, q *wire.DigestRequest, done func(*wire.DigestResponse, error)) {
	n.stores[s.Node()].Digest(q, told(done))
}
func (n *reigning) Clean(s logs.ShardID, q *wire.CleanRequest, done func(*wire.CleanResponse, error)) {
	n.stores[s.Node()].Clean(q, told(done))
}
func (n *reigning) EpochRecovery(s logs.ShardID, q *wire.EpochRecoveryRequest, done func(*wire.EpochRecoveryResponse, error)) {
	n.stores[s.Node()].EpochRecovery(q, told(done))
}
func (n *reigning) LogState(s logs.ShardID, q *wire.LogStateRequest, done func(*wire.LogStateResponse, error)) {
	n.stores[s.Node()].LogState(q, told(done))
}
func (n *reigning) Records(s logs.ShardID, q *wire.RecordsRequest, done func(*wire.RecordsResponse, error)) {
	n.stores[s.Node()].Records(q, told(done))
}

// append appends, once more where it is told of an epoch, and waits for the answer.
func (n *reigning) append(producer, seq uint64, flags uint32) *wire.AppendResponse {
	n.t.Helper()
	r := n.attempt(producer, seq, flags, 0)
	if r.Status == wire.LogStatus_LOG_STATUS_NEW_EPOCH {
		r = n.attempt(producer, seq, flags, r.Epoch)
	}
	return r
}

func (n *reigning) attempt(producer, seq uint64, flags, seen uint32) *wire.AppendResponse {
	n.t.Helper()
	payload := []byte(fmt.Sprint(producer, ".", seq))
	got := make(chan *wire.AppendResponse, 1)
	n.host.Append(&wire.AppendRequest{Log: rigLog, Payload: payload, Checksum: logs.Checksum(payload), Count: 1, Flags: flags | logs.AppendNoRedirect,
		Producer: producer, Sequence: seq, FirstRunning: seq, SeenEpoch: seen}, func(r *wire.AppendResponse) { got <- r })
	select {
	case r := <-got:
		return r
	case <-time.After(30 * time.Second):
		n.t.Fatalf("append %s is not answered", payload)
		return nil
	}
}

// TestAgainstRealShards uses up epoch after epoch of a log on real shards, whose
// soft seals meet the copies of epochs that drain, and has another node take it
// over: what comes again is found among the records that the shards keep, in
// batches or not, and the node that reigned is fenced off.
func TestAgainstRealShards(t *testing.T) {
	for _, batching := range []bool{false, true} {
		t.Run(fmt.Sprintf("batching=%v", batching), func(t *testing.T) { againstRealShards(t, newRig(t, batching)) })
	}
}

func againstRealShards(t *testing.T, r *rig) {
	const clients, each = 8, 60
	n := r.node(1, sequencer.Config{ESNMax: 21, ReactivationLimit: 1000})
	lsns := make([][each + 1]logs.LSN, clients+1)
	var wg sync.WaitGroup
	for c := 1; c <= clients; c++ {
		wg.Add(1)
		go func() {
			defer wg.Done()
			flags := uint32(0)
			if c == clients {
				flags = logs.AppendProducer
			}
			for seq := uint64(1); seq <= each; seq++ {
				a := n.append(uint64(c), seq, flags)
				if a.Status != wire.LogStatus_LOG_STATUS_OK || logs.LSN(a.Lsn) <= lsns[c][seq-1] {
					t.Errorf("append %d.%d: %v after %s", c, seq, a, lsns[c][seq-1])
					return
				}
				lsns[c][seq] = logs.LSN(a.Lsn)
			}
		}()
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	last := lsns[1][each]
	if last.Epoch() < 3 {
		t.Fatalf("%s: the epochs were not used up", last)
	}
	m := r.node(2, sequencer.Config{})
	for c := uint64(1); c < clients; c++ {
		if a := m.append(c, each, logs.AppendRetry); logs.LSN(a.Lsn) != lsns[c][each] {
			t.Errorf("append %d.%d comes again: %v, it is at %s", c, each, a, lsns[c][each])
		}
	}
	for _, seq := range []uint64{each, each - 1} {
		if a := m.append(clients, seq, logs.AppendProducer); logs.LSN(a.Lsn) != lsns[clients][seq] {
			t.Errorf("sequence %d of the producer comes again: %v, it is at %s", seq, a, lsns[clients][seq])
		}
	}
	if a := m.append(clients, each+2, logs.AppendProducer); a.Status != wire.LogStatus_LOG_STATUS_SEQUENCE_GAP || a.Sequence != each {
		t.Errorf("a sequence after the next: %v", a)
	}
	a := m.append(clients, each+1, logs.AppendProducer)
	if a.Status != wire.LogStatus_LOG_STATUS_OK || logs.LSN(a.Lsn).Epoch() <= last.Epoch() {
		t.Errorf("the producer's next: %v", a)
	}
	// It may take the log back where its own epoch is used up, but not go on in that.
	z := n.append(99, 1, 0)
	if z.Status == wire.LogStatus_LOG_STATUS_OK && logs.LSN(z.Lsn) < logs.LSN(a.Lsn) || z.Status != wire.LogStatus_LOG_STATUS_OK && z.Redirect != 2 {
		t.Errorf("the node that reigned: %v, after %v", z, a)
	}
}
