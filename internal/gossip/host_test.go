package gossip

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// hall is a few hosts that talk directly, in simulated time.
type hall struct {
	t       *testing.T
	start   time.Time
	mu      sync.Mutex
	hosts   map[catalog.NodeID]*Host
	catalog []*catalog.Node
}

func (l *hall) host(id catalog.NodeID, incarnation uint64, onChange func()) *Host {
	h := NewHost(Config{}, Deps{
		Self: id, Incarnation: incarnation,
		Mono:      func() time.Duration { return time.Since(l.start) },
		AfterFunc: func(d time.Duration, f func()) func() bool { return time.AfterFunc(d, f).Stop },
		Rand:      rand.New(rand.NewPCG(uint64(id), incarnation)),
		Send: func(to catalog.NodeID, m *wire.Gossip) {
			l.mu.Lock()
			h := l.hosts[to]
			l.mu.Unlock()
			if h != nil {
				bytes, err := m.MarshalVT()
				if err != nil {
					l.t.Error(err)
				}
				got := new(wire.Gossip)
				if err := got.UnmarshalVT(bytes); err != nil {
					l.t.Error(err)
				}
				go h.Handle(got)
			}
		},
		Probe: func(id catalog.NodeID, refused func()) {
			l.mu.Lock()
			h := l.hosts[id]
			l.mu.Unlock()
			if h == nil {
				go refused()
			}
		},
		Nodes: func() []*catalog.Node {
			l.mu.Lock()
			defer l.mu.Unlock()
			return l.catalog
		},
		OnChange: onChange,
	})
	l.mu.Lock()
	l.hosts[id] = h
	l.mu.Unlock()
	return h
}

func (l *hall) remove(id catalog.NodeID) {
	l.mu.Lock()
	h := l.hosts[id]
	delete(l.hosts, id)
	l.mu.Unlock()
	h.Close()
}

func newHall(t *testing.T, n int) *hall {
	l := &hall{t: t, start: time.Now(), hosts: map[catalog.NodeID]*Host{}}
	for i := n; i > 0; i-- { // not sorted: the host does that
		l.catalog = append(l.catalog, &catalog.Node{Id: uint64(i), SequencerWeight: 2})
	}
	return l
}

func wait(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func alive(v *logs.Cluster) (ids []catalog.NodeID) {
	for _, n := range v.Nodes {
		if n.Alive {
			ids = append(ids, n.ID)
		}
	}
	return ids
}

func TestHostsFindEachOtherAndSeeADeath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newHall(t, 5)
		var changes, concurrent atomic.Int32
		var last atomic.Pointer[logs.Cluster]
		for id := catalog.NodeID(1); id <= 5; id++ {
			var h *Host
			h = l.host(id, 1, func() {
				if id != 1 {
					return
				}
				if concurrent.Add(1) > 1 {
					t.Error("OnChange runs twice at a time")
				}
				defer concurrent.Add(-1)
				changes.Add(1)
				v := h.View()
				if old := last.Swap(v); old == v {
					t.Error("told of a change, and it is the same view")
				}
				h.SetStarting(false) // from within: no lock is held
			})
			if v := h.View(); len(alive(v)) != 1 || !v.Isolated {
				t.Errorf("before it starts: %+v", v)
			}
		}
		for _, h := range l.hosts {
			h.Start()
			h.Start()
		}
		wait(300 * time.Millisecond)
		for id, h := range l.hosts {
			v := h.View()
			if got := alive(v); len(got) != 5 || v.Isolated || v.Self != id {
				t.Errorf("node %d: %v alive", id, got)
			}
			if n, _ := v.Node(1); n.Starting || n.SequencerWeight != 2 || n.Incarnation != 1 {
				t.Errorf("node %d holds of node 1: %+v", id, n)
			}
		}
		v := l.hosts[1].View()
		wait(time.Minute)
		if l.hosts[1].View() != v || changes.Load() == 0 {
			t.Error("the view became another while nothing happened (G5)")
		}
		l.remove(4)
		wait(950 * time.Millisecond)
		for id, h := range l.hosts {
			if got := alive(h.View()); len(got) != 4 {
				t.Errorf("node %d, after a death: %v", id, got)
			}
		}
		if h := l.hosts[1]; h.View() == v || h.Metrics().Refused.Load() == 0 || h.Metrics().Probes.Load() == 0 {
			t.Error("nothing was refused")
		}
		for id := range l.hosts {
			l.remove(id)
		}
		wait(time.Second)
	})
}

func TestHostTellsItsGoing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newHall(t, 3)
		for id := catalog.NodeID(1); id <= 3; id++ {
			l.host(id, 4, nil).Start()
		}
		for _, h := range l.hosts {
			h.SetStarting(false)
		}
		wait(200 * time.Millisecond)
		l.hosts[3].FailOver()
		wait(time.Millisecond)
		for _, id := range []catalog.NodeID{1, 2} {
			if n, _ := l.hosts[id].View().Node(3); n.Alive || n.Sequencer || !n.Writable {
				t.Errorf("node %d holds node 3 for %+v", id, n) // in nodesets it stays
			}
			rows := l.hosts[id].State()
			if r := rows[2]; len(rows) != 3 || !r.FailingOver || r.State != Dead || r.Node != 3 || r.Instance != 4 {
				t.Errorf("rows %+v", rows)
			}
		}
		cs := l.hosts[1].ClusterState()
		if len(cs.Nodes) != 3 || cs.AnsweredBy != 1 || cs.Nodes[2].State != uint32(Dead) || cs.Nodes[1].State != uint32(Alive) ||
			cs.Nodes[0].Descriptor_.Id != 1 || cs.Version != l.hosts[1].View().Version {
			t.Errorf("clients are told %v", cs)
		}
		// The catalog changes.
		l.mu.Lock()
		l.catalog = []*catalog.Node{{Id: 1}, {Id: 2, StorageWeight: -1, Roles: catalog.RoleStorage, State: catalog.NodeState_NODE_STATE_DRAINING}}
		l.mu.Unlock()
		l.hosts[1].NodesChanged()
		v := l.hosts[1].View()
		if n, ok := v.Node(2); !ok || len(v.Nodes) != 2 || n.Sequencer || !n.Storage || n.Writable || n.StorageWeight != 0 {
			t.Errorf("after the catalog changed: %+v", v)
		}
		for id := range l.hosts {
			l.remove(id)
		}
	})
}

// Everything at once, for the race detector.
func TestHostsUnderConcurrentUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newHall(t, 3)
		for id := catalog.NodeID(1); id <= 3; id++ {
			l.host(id, 1, func() {}).Start()
		}
		h := l.hosts[1]
		var users sync.WaitGroup
		for i := range 4 {
			users.Go(func() {
				for k := range 200 {
					h.SetStarting(k%2 == 0)
					_, _ = h.View().Isolated, h.IsolatedIn()
					if len(h.State()) != 3 || h.ClusterState() == nil {
						t.Error("not three nodes")
					}
					if i == 0 && k%50 == 0 {
						h.NodesChanged()
					}
					<-time.After(time.Millisecond)
				}
			})
		}
		users.Wait()
		for id := range l.hosts {
			l.remove(id)
		}
	})
}

func TestProberTellsAClosedPortFromASilentOne(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	open := listener.Addr().String()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := closed.Addr().String()
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	var d net.Dialer
	p := NewProber(func(ctx context.Context, addr string) (net.Conn, error) {
		if addr == "silent" {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return d.DialContext(ctx, "tcp", addr)
	}, func(id catalog.NodeID) string { return []string{"", open, gone, "silent"}[id] }, 50*time.Millisecond)
	refused := make(chan catalog.NodeID, 10)
	for id := range catalog.NodeID(4) {
		p.Probe(id, func() { refused <- id })
	}
	if id := <-refused; id != 2 {
		t.Errorf("node %d refuses", id)
	}
	p.Close()
	p.Probe(2, func() { refused <- 2 })
	if err := listener.Close(); err != nil {
		t.Error(err)
	}
	if len(refused) != 0 {
		t.Errorf("%v refuses", <-refused)
	}
}

func FuzzReceive(f *testing.F) {
	for seed := range 3 {
		w := newWorld(3, Config{}, uint64(seed))
		w.run(200 * time.Millisecond)
		m := w.nodes[1].core.news(&wire.Gossip{SuspectOver: seed == 1})
		b, err := m.MarshalVT()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m := new(wire.Gossip)
		if m.UnmarshalVT(b) != nil {
			return
		}
		w := newWorld(3, Config{}, 1)
		c := w.nodes[0].core
		c.step(0, event{message: m})
		for i := range 20 {
			c.step(time.Duration(i), event{tick: true})
			c.step(time.Duration(i), event{message: m})
		}
		if v := c.view(); len(v.Nodes) != 3 || v.Nodes[0].Incarnation != 1 {
			t.Fatal(fmt.Sprint(v))
		}
	})
}
