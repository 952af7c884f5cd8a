package logs

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/braiddb/braid/internal/catalog"
	"github.com/braiddb/braid/internal/logs"
	"github.com/braiddb/braid/internal/logs/reader"
	"github.com/braiddb/braid/internal/placement"
	"github.com/braiddb/braid/internal/rpc"
	"github.com/braiddb/braid/internal/wire"
)

// reading is one reader of a log: the production core, hosted as client.Reader
// hosts it, without waiting.
type reading struct {
	t    *truth
	name string
	core *reader.Core
	next logs.LSN // behind what was told

	since time.Duration // when it began

	queue  []reader.Event
	busy   bool
	wakeAt time.Duration
	taking bool
	bytes  int // told and not taken
	over   bool
	alive  []bool // by node, as last told
}

// newReading begins to read.
func (t *truth) newReading(name string, from, until logs.LSN, single bool) *reading {
	k := t.c.w.Opt.Knob
	r := &reading{t: t, name: name, next: max(from, logs.LSNOldest), since: t.c.w.Now(), alive: make([]bool, len(t.c.members))}
	for i := range r.alive {
		r.alive[i] = true
	}
	r.core = reader.New(reader.Config{Log: t.id, From: r.next, Until: until, SingleCopy: single, Window: uint64(k("readWindow")),
		Wait: t.c.ms("readWaitMs"), FailOver: t.c.ms("failOverMs")})
	t.readers = append(t.readers, r)
	t.c.w.After(0, "read", func() {
		r.look()
		r.post(reader.Begin{})
	})
	return r
}

// post hands the core an event, one at a time.
func (r *reading) post(ev reader.Event) {
	if r.over {
		return
	}
	r.queue = append(r.queue, ev)
	if r.busy {
		return
	}
	r.busy = true
	for len(r.queue) > 0 && !r.t.c.w.Failed() {
		ev := r.queue[0]
		r.queue = r.queue[1:]
		out := r.core.Step(r.t.c.w.Now(), ev)
		for i := range out.Items {
			r.item(&out.Items[i])
		}
		r.carryOut(out)
	}
	r.busy = false
}

func (r *reading) item(it *reader.Item) {
	w := r.t.c.w
	if it.LSN != r.next {
		w.Fail("log %d: reader %s was told all below %s, and goes on at %s", r.t.id, r.name, r.next, it.LSN)
	}
	if w.Tracing() {
		w.Tracef("reader %s of log %d: %s to %s %s", r.name, r.t.id, it.LSN, it.To, it.Gap)
	}
	if it.Record == nil {
		r.t.gap(r, it)
	} else {
		r.t.record(r, it)
		r.t.read = max(r.t.read, it.LSN)
	}
	r.next = it.To + 1
	r.bytes += it.Bytes
	w.Note(uint64(it.LSN))
}

// carryOut does what a step asks for.
func (r *reading) carryOut(out *reader.Effects) {
	c := r.t.c
	if out.AskMetadata != 0 {
		r.metadata(out.AskMetadata, out.Released)
	}
	for _, s := range out.Stops {
		c.request(s.Shard.Node(), rpc.MethodReadStop, &wire.ReadStopRequest{Stream: s.Stream, Shard: uint64(s.Shard)}, new(wire.ReadStopResponse), c.ms("tryMs"), func(error) {})
	}
	for _, s := range slices.Clone(out.Starts) {
		resp := new(wire.ReadStartResponse)
		c.request(s.Shard.Node(), rpc.MethodReadStart, s.Req, resp, c.ms("tryMs"), func(err error) {
			r.failed(err)
			r.post(reader.Started{Shard: s.Shard, Call: s.Call, Resp: resp, Err: err})
		})
	}
	for _, n := range slices.Clone(out.Nexts) {
		resp := new(wire.ReadNextResponse)
		c.request(n.Shard.Node(), rpc.MethodReadNext, n.Req, resp, time.Duration(n.Req.WaitMs)*time.Millisecond+c.ms("tryMs"), func(err error) {
			r.failed(err)
			r.post(reader.Answered{Shard: n.Shard, Call: n.Call, Resp: resp, Err: err})
		})
	}
	if out.Done {
		r.over = true
	}
	r.arm(out.Wake)
	r.take()
}

func (r *reading) arm(at time.Duration) {
	w := r.t.c.w
	if at == r.wakeAt {
		return
	}
	if r.wakeAt = at; at == 0 {
		return
	}
	w.After(at-w.Now(), "reader", func() {
		if r.wakeAt == at {
			r.wakeAt = 0
			r.post(reader.Wake{})
		}
	})
}

// take has the application take what it was told, now or a little later.
func (r *reading) take() {
	w := r.t.c.w
	if r.taking || r.bytes == 0 {
		return
	}
	r.taking = true
	w.After(w.Between(0, 200*time.Millisecond), "taken", func() {
		bytes := r.bytes
		r.taking, r.bytes = false, 0
		r.post(reader.Taken{Next: r.next, Bytes: bytes})
	})
}

// failed looks at the cluster when a node does not answer.
func (r *reading) failed(err error) {
	if err != nil {
		r.look()
	}
}

// look tells the core what some node believes of the others.
func (r *reading) look() {
	c := r.t.c
	resp := new(wire.ClusterStateResponse)
	c.request(0, rpc.MethodClusterState, &wire.ClusterStateRequest{}, resp, c.ms("tryMs"), func(err error) {
		if err != nil {
			return
		}
		for _, n := range resp.Nodes {
			if c.described(catalog.NodeID(n.Node)).Forgotten() {
				r.post(reader.Shard{Shard: logs.MakeShard(catalog.NodeID(n.Node), 0), Status: reader.ShardLost})
				continue
			}
			if alive := n.State == 2; alive != r.alive[n.Node-1] {
				r.alive[n.Node-1] = alive
				status := reader.ShardDown
				if alive {
					status = reader.ShardUp
				}
				r.post(reader.Shard{Shard: logs.MakeShard(catalog.NodeID(n.Node), 0), Status: status})
			}
		}
	})
}

var errMetadata = errors.New("sim: the log's metadata could not be learned")

// metadata asks the log's sequencer what its epochs are stored on, and, if that
// does not answer, the metadata log.
func (r *reading) metadata(e logs.Epoch, released bool) {
	c, seen := r.t.c, logs.Epoch(0)
	if released {
		seen = e
	}
	r.look()
	c.sequencerState(r.t.id, &wire.SequencerStateRequest{Log: uint64(r.t.id), Flags: logs.StateMetadata, SeenEpoch: uint32(seen)}, func(s *wire.SequencerStateResponse, err error) {
		if err == nil && len(s.Metadata) > 0 && logs.Epoch(s.Epoch) >= seen {
			r.post(reader.Metadata{Entries: s.Metadata, Through: logs.Epoch(s.Epoch)})
			return
		}
		r.metadataLog(seen)
	})
}

// metadataLog reads the metadata log: if fewer are silent than an entry has copies,
// all entries were found.
func (r *reading) metadataLog(seen logs.Epoch) {
	c := r.t.c
	var entries []*wire.EpochMetadata
	asked := slices.Clone(c.nodes)
	heard, left := 0, len(asked)
	for _, d := range asked {
		resp, shard := new(wire.ReadMetadataResponse), logs.MakeShard(catalog.NodeID(d.Id), 0)
		c.request(shard.Node(), rpc.MethodReadMetadata, &wire.ReadMetadataRequest{Log: uint64(r.t.id), Shard: uint64(shard)}, resp, c.ms("tryMs"), func(err error) {
			left--
			if err == nil && resp.Status == wire.LogStatus_LOG_STATUS_OK {
				heard++
				for _, m := range resp.Metadata {
					if !slices.ContainsFunc(entries, func(o *wire.EpochMetadata) bool { return o.EffectiveSince == m.EffectiveSince }) {
						entries = append(entries, m)
					}
				}
			}
			if left > 0 {
				return
			}
			nodes := len(asked)
			if nodes-heard >= min(nodes, r.t.copies()) {
				r.post(reader.Metadata{Err: errMetadata})
				return
			}
			slices.SortFunc(entries, func(a, b *wire.EpochMetadata) int { return int(int64(a.EffectiveSince) - int64(b.EffectiveSince)) })
			through := seen
			for _, m := range entries {
				through = max(through, logs.Epoch(m.EffectiveSince))
			}
			r.post(reader.Metadata{Entries: entries, Through: through})
		})
	}
}

// sequencerState asks a log's sequencer about itself, wherever it is.
func (c *cluster) sequencerState(log logs.LogID, req *wire.SequencerStateRequest, done func(*wire.SequencerStateResponse, error)) {
	hops := 0
	var try func(node catalog.NodeID)
	try = func(node catalog.NodeID) {
		resp := new(wire.SequencerStateResponse)
		c.request(node, rpc.MethodSequencerState, req, resp, c.ms("tryMs"), func(err error) {
			hops++
			switch {
			case err != nil:
				done(nil, err)
			case resp.Status == wire.LogStatus_LOG_STATUS_OK:
				done(resp, nil)
			case resp.Redirect != 0 && hops < 4:
				if hops > 1 { // in circles: one has to say
					req.Flags |= logs.StateNoRedirect | logs.StateReactivateIfPreempted
				}
				try(catalog.NodeID(resp.Redirect))
			default:
				done(nil, fmt.Errorf("node %d: %s %s", node, resp.Status, resp.Message))
			}
		})
	}
	if m := c.someone(); m != nil {
		if n, ok := placement.SequencerNode(m.gossip.View(), log, ""); ok {
			try(n)
			return
		}
	}
	c.w.After(c.ms("tryMs"), "nobody", func() { done(nil, errMetadata) })
}
