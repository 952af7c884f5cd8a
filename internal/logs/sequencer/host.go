package sequencer

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/wire"
)

// Host runs the sequencers of one node. Logs hash to loops; a loop steps one
// core. It decides nothing.
type Host struct {
	cfg     Config
	d       Deps
	metrics Metrics
	share   share
	loops   []*loop
	closed  atomic.Bool
}

// NewHost makes a host. Its methods may be called at once; Start lets it work.
func NewHost(cfg Config, d Deps) *Host {
	h := &Host{cfg: cfg.withDefaults(), d: d}
	if h.d.Logger == nil {
		h.d.Logger = slog.New(slog.DiscardHandler)
	}
	if h.cfg.Loops == 0 {
		h.cfg.Loops = min(8, max(1, runtime.GOMAXPROCS(0)/2))
	}
	for range h.cfg.Loops {
		dice := rand.New(rand.NewPCG(d.Rand.Uint64(), d.Rand.Uint64()))
		h.loops = append(h.loops, newLoop(h, newCore(&h.cfg, &h.d, &h.metrics, &h.share, dice)))
	}
	return h
}

// Start begins to run.
func (h *Host) Start() {
	for _, l := range h.loops {
		l.start()
	}
}

// Metrics are the host's counters.
func (h *Host) Metrics() *Metrics { return &h.metrics }

// loopOf spreads logs over the loops.
func (h *Host) loopOf(log logs.LogID) *loop {
	return h.loops[(uint64(log.DataLog())*0x9E3779B97F4A7C15>>32)%uint64(len(h.loops))]
}

// Append takes an append. reply is called once, from any goroutine, maybe before
// Append returns; what one goroutine appends to a log is numbered in that order.
// The request is not changed any more, nor is its payload.
func (h *Host) Append(req *wire.AppendRequest, reply func(*wire.AppendResponse)) {
	p := pending{req: req, reply: reply, count: max(req.Count, 1)}
	p.bad = payloadFault(req)
	h.loopOf(logs.LogID(req.Log)).post(event{kind: evAppend, append: p})
}

// payloadFault says why a payload cannot be taken. It is found out before the
// loop is entered: a batch may have to be decompressed for it.
func payloadFault(req *wire.AppendRequest) string {
	if req.Flags&logs.AppendProbe != 0 {
		return ""
	}
	if logs.Checksum(req.Payload) != req.Checksum {
		return "the payload does not match its checksum"
	}
	if req.Flags&logs.AppendBatch == 0 {
		if req.Count > 1 {
			return fmt.Sprintf("%d payloads, but no batch", req.Count)
		}
		return ""
	}
	b, err := logs.OpenBatch(req.Payload)
	switch {
	case err != nil:
		return err.Error()
	case b.Count() != int(max(req.Count, 1)):
		return fmt.Sprintf("a batch of %d payloads that is said to have %d", b.Count(), req.Count)
	}
	return ""
}

// State answers a question about a log's sequencer, activating it.
func (h *Host) State(req *wire.SequencerStateRequest, reply func(*wire.SequencerStateResponse)) {
	h.loopOf(logs.LogID(req.Log)).post(event{kind: evState, state: &stateRequest{req: req, reply: reply}})
}

// HandleStored takes a storage node's answers, to stores and to releases.
func (h *Host) HandleStored(b *wire.LogBatch) {
	if len(h.loops) == 1 {
		h.loops[0].post(event{kind: evStored, batch: b})
		return
	}
	parts := make([]*wire.LogBatch, len(h.loops))
	part := func(log uint64) *wire.LogBatch {
		i := h.loopOf(logs.LogID(log)).index
		if parts[i] == nil {
			parts[i] = &wire.LogBatch{FromNode: b.FromNode, Incarnation: b.Incarnation}
		}
		return parts[i]
	}
	for _, st := range b.Stored {
		p := part(st.Log)
		p.Stored = append(p.Stored, st)
	}
	for _, r := range b.Released {
		p := part(r.Log)
		p.Released = append(p.Released, r)
	}
	for i, p := range parts {
		if p != nil {
			h.loops[i].post(event{kind: evStored, batch: p})
		}
	}
}

// ClusterChanged says that Deps.Cluster gives a newer view.
func (h *Host) ClusterChanged() { h.all(event{kind: evCluster}) }

// LogsChanged says that Deps.Attributes may answer otherwise than before.
func (h *Host) LogsChanged() { h.all(event{kind: evLogs}) }

func (h *Host) all(e event) {
	for _, l := range h.loops {
		l.post(e)
	}
}

// Drain refuses new appends and waits until those in flight are answered.
func (h *Host) Drain(ctx context.Context) error {
	h.all(event{kind: evDrain})
	for {
		left := make(chan int, len(h.loops))
		for _, l := range h.loops {
			if !l.post(event{kind: evCall, call: func(c *core) { left <- c.undone() }}) {
				left <- 0
			}
		}
		sum := 0
		for range h.loops {
			select {
			case n := <-left:
				sum += n
			case <-ctx.Done():
				return fmt.Errorf("sequencer: appends are still in flight: %w", ctx.Err())
			}
		}
		if sum == 0 {
			return nil
		}
		tick := make(chan struct{})
		stop := h.d.AfterFunc(drainPoll, func() { close(tick) })
		select {
		case <-tick:
		case <-ctx.Done():
			stop()
			return fmt.Errorf("sequencer: %d appends are still in flight: %w", sum, ctx.Err())
		}
	}
}

// drainPoll is how often Drain looks.
const drainPoll = 5 * time.Millisecond

// Close answers everything that waits and stops. It returns when no goroutine
// of the host is left.
func (h *Host) Close() {
	if h.closed.Swap(true) {
		return
	}
	for _, l := range h.loops {
		l.close()
	}
}

// Row is one log's sequencer, for tables.
type Row struct {
	Log           logs.LogID
	State         string
	Epoch         logs.Epoch
	Next          logs.LSN
	LastReleased  logs.LSN
	LastKnownGood logs.ESN
	TrimPoint     logs.LSN // as far as it has heard
	InFlight      int
	BytesInFlight int64
	Buffered      int
	Held          int
	Window        int
	PreemptedBy   catalog.NodeID
	Draining      logs.Epoch // the old epoch that drains, 0 if none
	Recovering    bool
	MetadataRead  bool // the epoch's metadata can be read
	Nodeset       []logs.ShardID
	Replication   *catalog.Replication
	EffectiveFrom logs.Epoch
	Producers     int
	Records       logs.ESN // of this epoch
	Payloads      uint64   // of this epoch
	Bytes         uint64   // of those payloads; of a batch as it is stored
	Age           time.Duration
	Trouble       string
}

// Rows gives a row for every sequencer, until fn says to stop. It is live: rows of
// one loop are of one moment, and loops go on meanwhile.
func (h *Host) Rows(fn func(Row) bool) {
	for _, l := range h.loops {
		for _, r := range ask(l, (*core).rows) {
			if !fn(r) {
				return
			}
		}
	}
}

// ShardRow is what sequencers hold against a shard.
type ShardRow struct {
	Shard   logs.ShardID
	Ban     string
	For     time.Duration // from now
	Probing bool
	Low     bool // on space
}

// Shards gives a row for every shard that is gray- or blacklisted, or low on
// space, by loop.
func (h *Host) Shards(fn func(loop int, r ShardRow) bool) {
	for i, l := range h.loops {
		for _, r := range ask(l, (*core).shardRows) {
			if !fn(i, r) {
				return
			}
		}
	}
}
