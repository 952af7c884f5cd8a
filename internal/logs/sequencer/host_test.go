package sequencer

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// instant is a cluster whose storage nodes answer at once.
type instant struct {
	h        *Host
	mu       sync.Mutex
	records  map[logs.LogID]*wire.EpochRecord
	stores   atomic.Int64
	batches  atomic.Int64
	releases atomic.Int64
	silent   atomic.Bool
}

func (x *instant) Read(log logs.LogID, done func(*wire.EpochRecord, error)) {
	x.mu.Lock()
	r := x.records[log]
	x.mu.Unlock()
	done(r, nil)
}

func (x *instant) CompareAndSet(log logs.LogID, expect uint64, next *wire.EpochRecord, done func(error)) {
	x.mu.Lock()
	var err error
	if x.records[log].GetVersion() != expect {
		err = ErrConflict
	} else {
		x.records[log] = next
	}
	x.mu.Unlock()
	done(err)
}

func (x *instant) SendStores(node catalog.NodeID, b *wire.LogBatch) {
	x.batches.Add(1)
	x.releases.Add(int64(len(b.Releases)))
	if x.silent.Load() {
		return
	}
	x.stores.Add(int64(len(b.Stores)))
	answer := &wire.LogBatch{FromNode: uint64(node), Stored: make([]*wire.Stored, len(b.Stores))}
	for _, r := range b.Releases {
		if r.Confirm {
			answer.Released = append(answer.Released, &wire.Released{Log: r.Log, Released: r.Released})
		}
	}
	if len(b.Stores)+len(answer.Released) == 0 {
		return
	}
	all := make([]wire.Stored, len(b.Stores))
	for i, st := range b.Stores {
		all[i].Log, all[i].Lsn, all[i].Wave, all[i].Cookie = st.Record.Log, st.Record.Lsn, st.Record.Wave, st.Cookie
		answer.Stored[i] = &all[i]
	}
	x.h.HandleStored(answer)
}

func (x *instant) CheckSeal(_ logs.ShardID, _ *wire.CheckSealRequest, done func(*wire.CheckSealResponse, error)) {
	done(&wire.CheckSealResponse{}, nil)
}

func (x *instant) ProducerLookup(_ logs.ShardID, _ *wire.ProducerLookupRequest, done func(*wire.ProducerLookupResponse, error)) {
	done(&wire.ProducerLookupResponse{}, nil)
}

func (x *instant) ReadMetadata(_ logs.ShardID, _ *wire.ReadMetadataRequest, done func(*wire.ReadMetadataResponse, error)) {
	done(&wire.ReadMetadataResponse{}, nil)
}

func (x *instant) Recover(a RecoverArgs, done func(RecoveryResult, error)) func() {
	done(RecoveryResult{Record: a.Record}, nil)
	return func() {}
}

func newInstant(t testing.TB, cfg Config, nodes int) *instant {
	x := &instant{records: make(map[logs.LogID]*wire.EpochRecord)}
	view := &logs.Cluster{Version: 1, Self: 1}
	for i := range nodes {
		view.Nodes = append(view.Nodes, logs.ClusterNode{ID: catalog.NodeID(i + 1), Incarnation: 1, Alive: true, Storage: true, Writable: true, StorageWeight: 1,
			Sequencer: i == 0, SequencerWeight: 1})
	}
	attrs := proto.Clone(defaultAttributes).(*catalog.LogAttributes)
	began := time.Now()
	x.h = NewHost(cfg, Deps{Self: 1, Incarnation: 1, Mono: func() time.Duration { return time.Since(began) },
		WallMs:    func() int64 { return time.Now().UnixMilli() },
		AfterFunc: func(d time.Duration, f func()) func() bool { return time.AfterFunc(d, f).Stop },
		Rand:      rand.New(rand.NewPCG(1, 1)), EpochStore: x, Stores: x, Recoverer: x,
		Cluster:    func() *logs.Cluster { return view },
		Attributes: func(logs.LogID) (*catalog.LogAttributes, bool) { return attrs, true }})
	x.h.Start()
	t.Cleanup(x.h.Close)
	return x
}

func TestHostKeepsTheOrderOfACaller(t *testing.T) {
	x := newInstant(t, Config{Loops: 2}, 3)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			log := logs.LogID(g%3 + 1)
			var mu sync.Mutex
			var last uint64
			left := make(chan struct{}, 500)
			for i := range 500 {
				req := request(log, fmt.Sprint(g, i))
				order := i
				x.h.Append(req, func(r *wire.AppendResponse) {
					mu.Lock()
					defer mu.Unlock()
					if r.Status != ok {
						t.Errorf("append %d: %v", order, r)
					}
					last = max(last, r.Lsn)
					left <- struct{}{}
				})
				if i%100 == 99 {
					for range 100 {
						<-left
					}
					mu.Lock()
					before := last
					mu.Unlock()
					one := make(chan uint64, 1)
					x.h.Append(request(log, "x"), func(r *wire.AppendResponse) { one <- r.Lsn })
					if lsn := <-one; lsn <= before {
						t.Errorf("%s after %s", logs.LSN(lsn), logs.LSN(before))
					}
				}
			}
		}()
	}
	wg.Wait()
	rows := 0
	x.h.Rows(func(r Row) bool {
		rows++
		if r.State != "ACTIVE" || r.Epoch != 1 || r.Recovering {
			t.Errorf("row %+v", r)
		}
		return true
	})
	if rows != 3 {
		t.Errorf("%d rows", rows)
	}
	if err := x.h.Drain(context.Background()); err != nil {
		t.Fatal(err)
	}
	refused := make(chan wire.LogStatus, 1)
	x.h.Append(request(1, "late"), func(r *wire.AppendResponse) { refused <- r.Status })
	if st := <-refused; st != wire.LogStatus_LOG_STATUS_SHUTDOWN {
		t.Errorf("an append while the node drains: %v", st)
	}
}

func TestCloseAnswersEverything(t *testing.T) {
	x := newInstant(t, Config{Loops: 1}, 3)
	first := make(chan struct{})
	x.h.Append(request(1, "a"), func(*wire.AppendResponse) { close(first) })
	<-first
	x.silent.Store(true)
	var answered atomic.Int64
	for range 100 {
		x.h.Append(request(1, "b"), func(r *wire.AppendResponse) {
			if r.Status == ok {
				t.Error("nobody stored it")
			}
			answered.Add(1)
		})
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := x.h.Drain(ctx); err == nil {
		t.Error("a drain ended although nobody stored")
	}
	x.h.Close()
	if n := answered.Load(); n != 100 {
		t.Errorf("%d of 100 answered", n)
	}
}

// aloneEnv is set where the test binary runs one test that measures memory: other
// tests leave some behind, and let go of it when they please.
const aloneEnv = "BRAID_SEQUENCER_ALONE"

// TestIdleSequencersAreSmall makes 30,000 logs, appends to each, and measures
// what they keep, in a process of its own.
func TestIdleSequencersAreSmall(t *testing.T) {
	if os.Getenv(aloneEnv) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestIdleSequencersAreSmall$", "-test.v")
		cmd.Env = append(os.Environ(), aloneEnv+"=1")
		out, err := cmd.CombinedOutput()
		if t.Logf("%s", out); err != nil {
			t.Error(err)
		}
		return
	}
	const many = 30_000
	x := newInstant(t, Config{Loops: 1, SessionIdleFor: time.Millisecond, ReleaseQuiet: time.Millisecond}, 5)
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	var done atomic.Int64
	for i := range many {
		r := request(logs.LogID(i+1), "hello")
		r.Producer, r.Sequence, r.FirstRunning = 7, uint64(i+1), uint64(i+1)
		x.h.Append(r, func(r *wire.AppendResponse) {
			if r.Status == ok {
				done.Add(1)
			}
		})
	}
	wait(t, func() bool { return done.Load() == many })
	idle := func() (n int) {
		got := make(chan int, 1)
		x.h.loops[0].post(event{kind: evCall, call: func(c *core) {
			for _, s := range c.order {
				if s.sessions == nil && s.cur.recovered && s.cur.metadata == nil && s.cur.told == nil {
					n++
				}
			}
			got <- n
		}})
		return <-got
	}
	wait(t, func() bool { return idle() == many })
	x.mu.Lock()
	x.records = nil // the epoch store is not the sequencers'
	x.mu.Unlock()
	per := (int64(heap()) - int64(before)) / many
	t.Logf("%d bytes for an idle sequencer", per)
	if per > 900 {
		t.Errorf("%d bytes for an idle sequencer: 1024 are allowed, and it was 780", per)
	}
	runtime.KeepAlive(x)
}

// wait polls a condition without sleeping.
func wait(t testing.TB, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatal("it does not happen")
		}
		tick := make(chan struct{})
		time.AfterFunc(2*time.Millisecond, func() { close(tick) })
		<-tick
	}
}

// BenchmarkAppend measures the sequencer alone: storage answers at once.
func BenchmarkAppend(b *testing.B) {
	for _, n := range []int{1, 100} {
		b.Run(fmt.Sprintf("logs=%d", n), func(b *testing.B) {
			x := newInstant(b, Config{Loops: 1}, 3)
			payload := make([]byte, 128)
			sum := logs.Checksum(payload)
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			const clients = 256
			for c := range clients {
				wg.Add(1)
				go func() {
					defer wg.Done()
					one := make(chan wire.LogStatus, 1)
					for i := c; i < b.N; i += clients {
						req := &wire.AppendRequest{Log: uint64(c%n + 1), Payload: payload, Checksum: sum, Count: 1, Producer: uint64(c + 1), Sequence: uint64(i + 1), FirstRunning: uint64(i + 1)}
						x.h.Append(req, func(r *wire.AppendResponse) { one <- r.Status })
						if st := <-one; st != ok {
							b.Error(st)
							return
						}
					}
				}()
			}
			wg.Wait()
			b.ReportMetric(float64(x.batches.Load())/float64(b.N), "batches/op")
		})
	}
}
