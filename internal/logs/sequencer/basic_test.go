package sequencer

import (
	"testing"
	"time"

	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/placement"
	"github.com/braiddb/braid/internal/wire"
)

const ok = wire.LogStatus_LOG_STATUS_OK

// home is the node that sequences a log.
func (w *world) home(log logs.LogID) *node {
	id, found := placement.SequencerNode(w.look(1), log, "")
	if !found {
		w.t.Fatal("nobody sequences the log")
	}
	return w.nodes[id]
}

func request(log logs.LogID, payload string) *wire.AppendRequest {
	return &wire.AppendRequest{Log: uint64(log), Payload: []byte(payload), Checksum: logs.Checksum([]byte(payload)), Count: 1}
}

// got collects answers.
type got struct{ all []*wire.AppendResponse }

func (g *got) reply(r *wire.AppendResponse) { g.all = append(g.all, r) }

func (n *node) append(req *wire.AppendRequest) *got {
	g := &got{}
	p := pending{req: req, reply: g.reply, count: max(req.Count, 1)}
	p.bad = payloadFault(req)
	n.step(event{kind: evAppend, append: p})
	return g
}

func (w *world) whole(t *testing.T) {
	t.Helper()
	for _, b := range w.broken {
		t.Error(b)
	}
}

func TestAppendsAreNumberedStoredAndReleased(t *testing.T) {
	w := newWorld(t, 1, 3, Config{})
	n := w.home(5)
	var answers []*got
	for range 10 {
		answers = append(answers, n.append(request(5, "hello")))
	}
	w.run(time.Second)
	for i, g := range answers {
		if len(g.all) != 1 || g.all[0].Status != ok || logs.LSN(g.all[0].Lsn) != logs.MakeLSN(1, logs.ESN(i+1)) {
			t.Fatalf("append %d: %v", i, g.all)
		}
	}
	for _, id := range w.order {
		if got := w.nodes[id].log(5).released; got != logs.MakeLSN(1, 10) {
			t.Errorf("N%d holds %s for released", id, got)
		}
	}
	rec := w.store.records[5]
	if !rec.Metadata.Written || rec.Metadata.Epoch != 2 {
		t.Errorf("epoch store: %v", rec)
	}
	w.whole(t)
}

func (w *world) other(n *node) *node {
	for _, id := range w.order {
		if id != n.id {
			return w.nodes[id]
		}
	}
	panic("one node")
}
