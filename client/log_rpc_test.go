package client

import (
	"context"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// StartFakeLogs starts three nodes in memory that sequence logs, listening on the
// loopback interface; their catalog is a master's.
func StartFakeLogs(t testing.TB) []string {
	f := newFakeLogs(t, 3)
	admin, _ := newAdministered(t)
	addrs, _ := listenForLogs(t, f, admin)
	return addrs
}

func listenForLogs(t testing.TB, f *fakeLogs, admin *administered) (addrs []string, servers []*rpc.Server) {
	for _, n := range f.nodes {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		n.ClientAddr = l.Addr().String()
		node := NodeID(n.Id)
		s := rpc.NewServer(rpc.ServerOptions{Role: rpc.RoleClient})
		for _, m := range []rpc.Method{rpc.MethodAppend, rpc.MethodClusterState, rpc.MethodSequencerState} {
			s.Handle(m, nil, func(r *rpc.Request) {
				resp := m.NewResponse()
				f.StartLog(node, m, r.Msg, resp, r.Deadline, func(err error) {
					if err == nil {
						r.Reply(resp)
					}
				})
			})
		}
		s.Handle(rpc.MethodCatalog, nil, func(r *rpc.Request) {
			resp, _ := admin.Catalog(context.Background(), r.Msg.(*wire.CatalogRequest))
			r.Reply(resp)
		})
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
		addrs, servers = append(addrs, n.ClientAddr), append(servers, s)
	}
	return addrs, servers
}

// Over the network: a client that knows one address finds the sequencers, and
// outlives the death of one, in the midst of appends.
func TestAppendsOverTheNetwork(t *testing.T) {
	f := newFakeLogs(t, 3)
	admin, _ := newAdministered(t)
	addrs, servers := listenForLogs(t, f, admin)
	c, err := Connect(t.Context(), addrs[:1], Options{Attempt: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.CreateLogs(t.Context(), "/events", 3); err != nil {
		t.Fatal(err)
	}
	l, err := c.Log(t.Context(), "/events#1")
	if err != nil || l.Name() != "/events#1" {
		t.Fatal(err)
	}
	const n = 3000
	results := make(chan error, n)
	for i := range n {
		l.AppendAsync([]byte(appendAll(n, "p")[i]), func(_ LSN, err error) { results <- err })
		if i == n/2 {
			leader := f.sequencer(l.ID())
			f.kill(leader, true)
			if leader != 1 { // 1 serves the catalog and the view
				if err := servers[leader-1].Close(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for range n {
		if err := <-results; err != nil {
			t.Fatal(err)
		}
	}
	if got := f.payloads(l.ID()); !slices.Equal(got, appendAll(n, "p")) {
		t.Errorf("%d records, or out of order", len(got))
	}
	if seq, _, err := l.Producer(5).Last(t.Context()); err != nil || seq != 0 {
		t.Errorf("last sequence %d: %v", seq, err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
