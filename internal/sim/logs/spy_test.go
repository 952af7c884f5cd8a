package logs

import (
	"strings"
	"testing"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/sim"
	"github.com/braiddb/braid/internal/wire"
)

// TestAStreamAnsweredAheadIsFound is L14: a stream is not told of a record that has one
// before it which is not stored; others may be.
func TestAStreamAnsweredAheadIsFound(t *testing.T) {
	for _, x := range []struct {
		name   string
		flags  uint32
		stored []logs.ESN // of 1, 2, 3; 3 is acknowledged
		found  bool
	}{
		{"all before it is stored", logs.AppendStream, []logs.ESN{1, 2, 3}, false},
		{"one before it is not", logs.AppendStream, []logs.ESN{1, 3}, true},
		{"an explicit producer's", logs.AppendProducer, []logs.ESN{2, 3}, true},
		{"nobody's who wants order", 0, []logs.ESN{3}, false},
	} {
		var said strings.Builder
		var c *cluster
		w := sim.NewWorld(Wing().Draw(1), &said, func(w *sim.World) sim.Cluster { c = newCluster(w); return c })
		s := newSpy(c.members[0])
		shard := logs.MakeShard(2, 0)
		for esn := logs.ESN(1); esn <= 3; esn++ {
			s.sends(2, &wire.LogBatch{Stores: []*wire.Store{{Record: &wire.LogRecord{Log: 1, Lsn: uint64(logs.MakeLSN(1, esn)), Wave: 1, Copyset: []uint64{uint64(shard)}}}}})
		}
		for _, esn := range x.stored {
			s.stored(&wire.LogBatch{FromNode: 2, Stored: []*wire.Stored{{Log: 1, Lsn: uint64(logs.MakeLSN(1, esn)), Wave: 1}}})
		}
		s.acknowledges(&wire.AppendRequest{Log: 1, Flags: x.flags}, &wire.AppendResponse{Lsn: uint64(logs.MakeLSN(1, 3))})
		if found := w.Failed() && strings.Contains(said.String(), "to a stream"); found != x.found || w.Failed() != x.found {
			t.Errorf("%s: found %v: %s", x.name, found, said.String())
		}
	}
}
