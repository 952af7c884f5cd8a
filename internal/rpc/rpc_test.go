package rpc

import (
	"net"
	"testing"
)

func testCluster() string { return "c1" }

// listen makes a server on a free port, not yet serving.
func listen(t testing.TB, role Role) (*Server, net.Listener, *Metrics) {
	t.Helper()
	l, err := TCP{}.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := new(Metrics)
	return NewServer(ServerOptions{Role: role, Cluster: testCluster, Metrics: m}), l, m
}

// serve serves until the test ends.
func serve(t testing.TB, s *Server, l net.Listener) {
	t.Helper()
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
