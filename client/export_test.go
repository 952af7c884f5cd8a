package client

import "testing"

// StartFakeCluster starts three nodes in memory, listening on the loopback interface,
// for the examples; the end-to-end tests run against real nodes.
func StartFakeCluster(t testing.TB) []string { return listenFor(t, newFakeCluster(2)).addrs }
