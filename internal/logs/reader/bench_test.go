package reader

import (
	"testing"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// BenchmarkMerge is what a record of 128 bytes costs in the core: three shards in
// turn, single-copy delivery, answers of 340 records, all taken.
func BenchmarkMerge(b *testing.B) {
	c := New(Config{Log: 7, From: logs.MakeLSN(1, 1), SingleCopy: true})
	meta := &wire.EpochMetadata{EffectiveSince: 1, Replication: &catalog.Replication{Node: 2}}
	for n := range 3 {
		meta.Nodeset = append(meta.Nodeset, uint64(logs.MakeShard(catalog.NodeID(n+1), 0)))
	}
	payload := make([]byte, 128)
	sum := logs.Checksum(payload)
	var events []Event
	var told, next uint64
	pending := Taken{}
	handle := func(out *Effects) {
		for _, it := range out.Items {
			told++
			pending.Next, pending.Bytes = it.To+1, pending.Bytes+it.Bytes
		}
		for _, s := range out.Starts {
			events = append(events, Started{s.Shard, s.Call, &wire.ReadStartResponse{Stream: s.Call, FilterVersion: s.Req.FilterVersion}, nil})
		}
		for _, n := range out.Nexts {
			i := uint64(n.Shard.Node()) - 1
			resp := &wire.ReadNextResponse{FilterVersion: c.mode.version}
			s := c.find(n.Shard)
			esn := uint64(s.next.ESN())
			for esn%3 != i {
				esn++
			}
			for k := 0; k < 340 && logs.MakeLSN(1, logs.ESN(esn)) <= LSN(n.Req.WindowHigh); k++ {
				resp.Deliveries = append(resp.Deliveries, &wire.Delivery{CountKnown: true, Record: &wire.LogRecord{
					Log: 7, Lsn: uint64(logs.MakeLSN(1, logs.ESN(esn))), Wave: 1, Count: 1, Payload: payload, Checksum: sum,
				}})
				esn += 3
				next++
			}
			events = append(events, Answered{n.Shard, n.Call, resp, nil})
		}
	}
	handle(c.Step(0, Begin{}))
	handle(c.Step(0, Metadata{Entries: []*wire.EpochMetadata{meta}, Through: 1}))
	b.ReportAllocs()
	b.SetBytes(128)
	b.ResetTimer()
	for told < uint64(b.N) {
		if pending.Next != 0 {
			p := pending
			pending = Taken{}
			handle(c.Step(time.Second, p))
		}
		if len(events) == 0 {
			b.Fatalf("stuck at %d: %+v", told, c.View())
		}
		ev := events[0]
		events = events[1:]
		handle(c.Step(time.Second, ev))
	}
}
