package master

import (
	"sync"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/wire"
)

// lone is a group of one that applies at once.
type lone struct {
	mu      sync.Mutex
	machine *Machine
	index   *catalog.Index
	master  *Master
}

func (l *lone) Leading() *wire.Error { return nil }
func (l *lone) Term() uint64         { return 1 }

func (l *lone) Propose(command []byte, done func(*wire.Error)) {
	l.mu.Lock()
	a, err := l.machine.Apply(1, command)
	l.index = l.machine.Index()
	l.mu.Unlock()
	if err != nil {
		panic(err)
	}
	l.master.Applied([]Applied{a})
	done(nil)
}

func (l *lone) current() *catalog.Index {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.index
}

// Every door of the service is used at once; each request is answered once, and
// each change with its own outcome.
func TestServiceInParallel(t *testing.T) {
	l := &lone{machine: NewMachine()}
	l.index = l.machine.Index()
	node := self("a:1")
	founding := FirstCatalog("c", []*catalog.Node{node}, First{})
	node.Id = 1
	l.master = New(Deps{Node: 1, Incarnation: 1, Group: l, Index: l.current, Founding: founding}, Options{})
	l.master.Tick(0)
	var wg sync.WaitGroup
	var mu sync.Mutex
	made := map[catalog.NodeID]string{}
	for i := range 8 {
		wg.Go(func() {
			for k := range 50 {
				now := time.Duration(k) * time.Second
				l.master.Tick(now)
				if r := l.master.Heartbeat(now, &wire.HeartbeatRequest{Node: node}); r.Error != nil {
					t.Error(r.Error)
				}
				if r := l.master.Locations(now, &wire.LocationsRequest{TableId: 1}); r.Error != nil || len(r.Tablets) != 3 {
					t.Errorf("locations: %v", r)
				}
				who := string(rune('a'+i)) + string(rune('0'+k))
				joiner := &catalog.Node{RpcAddr: who, Incarnation: 1}
				answers := 0
				l.master.Join(now, &wire.JoinRequest{Node: joiner, DirectoryId: []byte(who)}, func(r *wire.JoinResponse) {
					answers++
					mu.Lock()
					defer mu.Unlock()
					if r.Error != nil || made[catalog.NodeID(r.Node)] != "" {
						t.Errorf("%s is node %d (%v), as is %q", who, r.Node, r.Error, made[catalog.NodeID(r.Node)])
					}
					made[catalog.NodeID(r.Node)] = who
				})
				l.master.Catalog(now, &wire.CatalogRequest{
					Action: wire.CatalogRequest_ACTION_CREATE_KEYSPACE, Keyspace: &catalog.Keyspace{Name: who},
				}, func(r *wire.CatalogResponse) {
					answers++
					if r.Error != nil {
						t.Error(r.Error)
					}
				})
				if answers != 2 {
					t.Errorf("%d answers to 2 requests", answers)
				}
			}
		})
	}
	wg.Wait()
	for _, n := range l.current().Catalog().Nodes[1:] {
		if made[catalog.NodeID(n.Id)] != n.RpcAddr {
			t.Errorf("node %d is %s, and was told to %q", n.Id, n.RpcAddr, made[catalog.NodeID(n.Id)])
		}
	}
}
