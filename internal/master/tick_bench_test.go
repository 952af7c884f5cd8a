package master

import (
	"testing"

	"github.com/braiddb/braid/internal/wire"
)

// BenchmarkTick is what an idle cluster of three nodes and a thousand tablets
// costs the master's leader each time: most often nothing is new.
func BenchmarkTick(b *testing.B) {
	w := newTown(nil)
	w.found(w.start("a:1"), First{Tablets: 1000})
	for range 5 {
		w.round()
	}
	for _, addr := range []string{"b:1", "c:1"} {
		w.join(w.start(addr))
	}
	for range 2000 {
		w.round()
	}
	if !w.healthy(3) {
		b.Fatal("the cluster does not settle")
	}
	b.Run("quiet", func(b *testing.B) {
		for b.Loop() {
			w.leader().master.Tick(w.now)
		}
	})
	b.Run("news", func(b *testing.B) {
		boss := w.leader().master
		for b.Loop() {
			boss.mu.news++
			boss.Tick(w.now)
		}
	})
}

// BenchmarkHeartbeat is one report of a node with a thousand tablets.
func BenchmarkHeartbeat(b *testing.B) {
	w := newTown(nil)
	w.found(w.start("a:1"), First{Tablets: 1000})
	for range 5 {
		w.round()
	}
	n := w.nodes[0]
	req := &wire.HeartbeatRequest{Node: n.self, Replicas: w.report(n), CatalogVersion: n.catalog.Version()}
	for b.Loop() {
		if r := n.master.Heartbeat(w.now, req); r.Error != nil || r.Catalog != nil {
			b.Fatal(r)
		}
	}
}
