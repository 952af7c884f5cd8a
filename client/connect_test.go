package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// listening puts a listener for clients before each node of a fake cluster.
type listening struct {
	*fakeCluster
	addrs   []string
	servers []*rpc.Server
}

func listenFor(t testing.TB, f *fakeCluster) *listening {
	t.Helper()
	ls := &listening{fakeCluster: f}
	for i := range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := rpc.NewServer(rpc.ServerOptions{Role: rpc.RoleClient})
		node := NodeID(i + 1)
		s.Handle(rpc.MethodWrite, nil, func(r *rpc.Request) {
			f.StartWrite(node, r.Msg.(*wire.WriteRequest), r.Deadline, func(resp *wire.WriteResponse, err error) {
				if err == nil {
					r.Reply(resp)
				}
			})
		})
		s.Handle(rpc.MethodRead, nil, func(r *rpc.Request) {
			f.StartRead(node, r.Msg.(*wire.ReadRequest), r.Deadline, func(resp *wire.ReadResponse, err error) {
				if err == nil {
					r.Reply(resp)
				}
			})
		})
		s.Handle(rpc.MethodLocations, nil, func(r *rpc.Request) {
			resp, _ := f.Locations(context.Background(), r.Msg.(*wire.LocationsRequest))
			ls.name(resp.Nodes)
			r.Reply(resp)
		})
		s.Handle(rpc.MethodCatalog, nil, func(r *rpc.Request) {
			if node == 1 {
				r.Reply(&wire.CatalogResponse{Error: &wire.Error{Code: wire.Code_CODE_NOT_LEADER}})
				return
			}
			resp, _ := f.Catalog(context.Background(), r.Msg.(*wire.CatalogRequest))
			ls.name(resp.Catalog.Nodes)
			r.Reply(resp)
		})
		ls.addrs = append(ls.addrs, l.Addr().String())
		ls.servers = append(ls.servers, s)
		ended := make(chan error, 1)
		go func() { ended <- s.Serve(l) }()
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
	return ls
}

func (ls *listening) name(nodes []*catalog.Node) {
	for i, n := range nodes {
		n.ClientAddr = ls.addrs[i]
	}
}

func TestConnectLearnsTheOtherNodesAndOutlivesOne(t *testing.T) {
	ls := listenFor(t, newFakeCluster(4))
	c, err := Connect(t.Context(), []string{"127.0.0.1:1", ls.addrs[0], ls.addrs[1]}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	for i := range 50 {
		mustDo(t, c, IncrBy(fmt.Appendf(nil, "key-%d", i%5), 1))
	}
	if err := ls.servers[0].Close(); err != nil {
		t.Fatal(err)
	}
	ls.lead(3)
	for i := range 50 {
		mustDo(t, c, IncrBy(fmt.Appendf(nil, "key-%d", i%5), 1))
	}
	for i := range 5 {
		if r := mustDo(t, c, Get(fmt.Appendf(nil, "key-%d", i))); string(r.Bytes) != "20" {
			t.Errorf("key-%d is %s", i, r.Bytes)
		}
	}
}

func TestConnectFailsWhenNobodyAnswers(t *testing.T) {
	start := time.Now()
	_, err := Connect(t.Context(), []string{"127.0.0.1:1"}, Options{Park: 100 * time.Millisecond})
	if !errors.Is(err, ErrUnavailable) || !errors.Is(err, rpc.ErrUnreachable) {
		t.Errorf("error %v", err)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
	if _, err := Connect(t.Context(), nil, Options{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("error %v without an address", err)
	}
}

// Open asks nobody: a cluster that cannot be connected to may have a node that answers.
func TestOpenAsksNobody(t *testing.T) {
	s := rpc.NewServer(rpc.ServerOptions{Role: rpc.RoleClient})
	s.Handle(rpc.MethodQuery, nil, func(r *rpc.Request) {
		r.Reply(&wire.QueryResponse{Columns: []string{"said"}, Rows: []*wire.TableRow{wire.NewTableRow([]any{r.Msg.(*wire.QueryRequest).Statement})}})
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	addrs := []string{l.Addr().String()}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if c, err := Connect(ctx, addrs, Options{}); err == nil {
		_ = c.Close()
		t.Fatal("connected to a node without a catalog")
	}
	c, err := Open(addrs, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r, err := c.Query(t.Context(), "SELECT 1")
	if err != nil || fmt.Sprint(r.Rows) != "[[SELECT 1]]" {
		t.Errorf("a query is answered with %+v, %v", r, err)
	}
	if _, err := Open(nil, Options{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("no address: %v", err)
	}
}
