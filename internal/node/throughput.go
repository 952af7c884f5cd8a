package node

import (
	"context"
	"sync"
	"time"

	"github.com/braiddb/braid/internal/admin/query"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/logs/sequencer"
)

// throughput remembers what was appended to each log group on this node, so that
// rates over some minutes can be told. A look every throughputEvery costs a walk
// over the node's sequencers.
type throughput struct {
	mu      sync.Mutex
	last    map[logs.LogID]appendCount // of each log, in its present epoch
	groups  map[uint64]appendCount     // of each log group, since the node started
	history []throughputSample         // oldest first
}

type appendCount struct {
	epoch    logs.Epoch
	records  uint64
	payloads uint64
	bytes    uint64
}

type throughputSample struct {
	at     time.Duration
	groups map[uint64]appendCount
}

const (
	throughputEvery = 10 * time.Second
	throughputKept  = 61 // samples: ten minutes
)

// measureThroughput takes a sample.
func (n *Node) measureThroughput() {
	if n.logs.sequencer == nil {
		return
	}
	x, t := n.index.Load().Logs(), &n.throughput
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last == nil {
		t.last, t.groups = map[logs.LogID]appendCount{}, map[uint64]appendCount{}
	}
	n.logs.sequencer.Rows(func(r sequencer.Row) bool {
		now, was := appendCount{r.Epoch, uint64(r.Records), r.Payloads, r.Bytes}, t.last[r.Log]
		if now == was {
			return true
		}
		t.last[r.Log] = now
		if was.epoch != now.epoch {
			was = appendCount{} // counts begin anew with an epoch
		}
		if g, _ := x.GroupOf(uint64(r.Log)); g != nil {
			sum := t.groups[g.Id]
			sum.records += now.records - was.records
			sum.payloads += now.payloads - was.payloads
			sum.bytes += now.bytes - was.bytes
			t.groups[g.Id] = sum
		}
		return true
	})
	sample := throughputSample{at: n.deps.Mono(), groups: make(map[uint64]appendCount, len(t.groups))}
	for id, c := range t.groups {
		sample.groups[id] = c
	}
	if len(t.history) == 0 { // the node started a look ago, with nothing
		t.history = append(t.history, throughputSample{at: sample.at - throughputEvery})
	}
	if t.history = append(t.history, sample); len(t.history) > throughputKept {
		t.history = t.history[len(t.history)-throughputKept:]
	}
}

// rates gives appends, payloads and their bytes a second of a group over the last d,
// or over as much of it as the node has seen.
func (t *throughput) rates(group uint64, d time.Duration) (records, payloads, bytes float64) {
	if len(t.history) < 2 {
		return 0, 0, 0
	}
	end := t.history[len(t.history)-1]
	begin := t.history[0]
	for _, s := range t.history {
		if end.at-s.at <= d {
			break
		}
		begin = s
	}
	over := (end.at - begin.at).Seconds()
	a, b := begin.groups[group], end.groups[group]
	return float64(b.records-a.records) / over, float64(b.payloads-a.payloads) / over, float64(b.bytes-a.bytes) / over
}

func (n *Node) throughputTable() *liveTable {
	return &liveTable{
		name: "append_throughput", doc: "What each node's sequencers took for each log group, a second; sampled every ten seconds.", ofEach: true,
		columns: []query.Column{
			column("node_id", query.Integer, ""), column("log_group_name", query.Text, "path"),
			column("appends_1min", query.Real, "records a second"), column("appends_5min", query.Real, ""), column("appends_10min", query.Real, ""),
			column("payloads_1min", query.Real, "payloads a second: a batch has several"), column("payloads_5min", query.Real, ""), column("payloads_10min", query.Real, ""),
			column("throughput_1min", query.Real, "bytes a second, of batches as they are stored"), column("throughput_5min", query.Real, ""), column("throughput_10min", query.Real, ""),
		},
		local: func(_ context.Context, _ query.Filter, yield func([]any) bool) error {
			x, t := n.index.Load().Logs(), &n.throughput
			t.mu.Lock()
			defer t.mu.Unlock()
			for _, g := range n.index.Load().Catalog().GetLogGroups() {
				if _, seen := t.groups[g.Id]; !seen {
					continue
				}
				r1, p1, b1 := t.rates(g.Id, time.Minute)
				r5, p5, b5 := t.rates(g.Id, 5*time.Minute)
				r10, p10, b10 := t.rates(g.Id, 10*time.Minute)
				if !yield([]any{uint64(n.id.Node), x.Path(g.Id), r1, r5, r10, p1, p5, p10, b1, b5, b10}) {
					break
				}
			}
			return nil
		},
	}
}
